"""A row of the benchmark table, and how the table is printed."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch


@dataclass(frozen=True)
class Row:
    """A measurement beside an alternative in the same run.

    Attributes:
        work: the task.
        measured: the figures, with their units.
        beside: the peer and its figures; empty if there is none.
        ratio: how many times faster than the peer, or empty.
    """

    work: str
    measured: str
    beside: str = ""
    ratio: str = ""


def name_model(model: str, rows: Iterable[Row]) -> Iterator[Row]:
    """Rows that state which model is asked."""
    return (replace(row, work=f"{row.work}, {model}") for row in rows)


def print_table(rows: Iterable[Row]) -> None:
    """Prints a Markdown table below a description of the machine."""
    print(f"\n{machine()}\n")
    print("| work | Kanscope | beside | ratio |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.work} | {row.measured} | {row.beside} | {row.ratio} |", flush=True)


def machine() -> str:
    """The processor, its cores, and the relevant versions."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    name = names[0] if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def times_in_turn(calls: Sequence[Callable[[], object]], rounds: int) -> list[np.ndarray]:
    """Seconds of each call, alternating (A B A B ...), so that drift of the machine affects all alike."""
    for call in calls:
        call()
    seconds = np.empty((len(calls), rounds))
    for round_number in range(rounds):
        for number, call in enumerate(calls):
            start = perf_counter()
            call()
            seconds[number, round_number] = perf_counter() - start
    return list(seconds)
