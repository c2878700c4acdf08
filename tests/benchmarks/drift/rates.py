"""Prints how often drift has an alarm, and trust a low p-value, though nothing has changed: a simulation.

`tests/benchmarks/drift/rates.py` took half an hour on two cores with other work; `--draws 10` takes 3 minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from scipy.signal import lfilter

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[2]))

from factories import make_model, with_intervals
from table import machine

from kanmodel import Model
from kanmodel.arrays import take_windows
from kanmodel.forecaster import Reference
from kanmodel.monitoring.trust import Trust
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.statistics.choose import choose_evenly
from kanmodel.tables.statistics.p_values import QUESTIONS

Array = np.ndarray
LENGTH, DAY, WEEK = 168, 24, 168  # rows of a span, and of the seasons of hours
SPANS = (19, 99)  # of a reference, which can hold 5 % and 1 %
N_BLOCKS, N_REFERENCE, N_NEW = 12, 512, 200  # of the validation part, windows of it, and new ones
VALIDATION = 0.15  # of the rows before the new ones
LEVELS = (0.01, 0.05)


def make_process(correlation: float, season: float = 0.0) -> Callable[[int, np.random.Generator], Array]:
    """A stationary process of AR(1) columns, with seasons of a day and a week from a random hour, (n, n_columns)."""

    def draw(n: int, rng: np.random.Generator, n_columns: int = 5) -> Array:
        noise = np.sqrt(1 - correlation**2) * rng.normal(size=(n + 1000, n_columns))
        hours = np.arange(n)[:, None] + rng.integers(WEEK)
        phases = 2 * np.pi * np.arange(n_columns) / n_columns
        seasons = np.sin(2 * np.pi * hours / DAY + phases) + 0.5 * np.sin(2 * np.pi * hours / WEEK + phases)
        return lfilter([1], [1, -correlation], noise, axis=0)[1000:] + season * seasons

    return draw


PROCESSES: Mapping[str, Callable[[int, np.random.Generator], Array]] = {
    "independent": make_process(0.0),
    "AR(1) 0.5": make_process(0.5),
    "AR(1) 0.9": make_process(0.9),
    "AR(1) 0.99": make_process(0.99),
    "hours, with day and week": make_process(0.9, season=1.5),
}


def count_alarms(process: str, n_spans: int, n_draws: int) -> dict[str, float]:
    """The share of draws in which each question of drift has an alarm at the lowest rate that the spans can hold."""
    loaded, alarms = with_intervals(make_model(dtype="float32")), dict.fromkeys(QUESTIONS, 0)
    model, names = Model.of(loaded), loaded.config.feature_names
    for number in range(n_draws):
        drawn = PROCESSES[process]((n_spans + 1) * LENGTH + model.lookback, np.random.default_rng([number, n_spans]))
        values = drawn[:, :-1] * loaded.scaling.feature_scale + loaded.scaling.feature_mean
        table = dict(zip(names, values.T, strict=True)) | {"y": np.zeros(len(values))}
        ends = np.arange(model.lookback - 1, len(values) - 1)
        table["y"][ends + 1] = model.predict(take_windows(values, ends, model.lookback))[:, 0] + drawn[ends, -1]
        split = n_spans * LENGTH + model.lookback - 1
        sides = (slice(0, split + 1), slice(split - model.lookback + 1, None))  # windows of the second: LENGTH
        found = model.drift(*({name: column[rows] for name, column in table.items()} for rows in sides))
        for question in found.alarms:
            alarms[question] += 1
    return {question: count / n_draws for question, count in alarms.items()}


def rank_new(process: str, n_draws: int) -> dict[float, Array]:
    """The share of new windows with a p-value at each level or below, by draw, (n_draws,)."""
    plain, found = make_model(lookback=24, dtype="float32"), {level: [] for level in LEVELS}
    n_rows, lookback = SPANS[1] * LENGTH, 24
    config = replace(plain.config, time=TimeColumn("time", 3600.0, 1.5, dated=True))
    loaded = plain.with_config(config)
    for number in range(n_draws):
        rows = PROCESSES[process](n_rows + 4 * LENGTH, np.random.default_rng(number))[:, :-1]
        starts = (np.arange(N_BLOCKS) + 0.5) * n_rows / N_BLOCKS
        blocks = [int(start) + np.arange(int(VALIDATION * n_rows / N_BLOCKS)) for start in starts]
        ends = np.concatenate(blocks)[choose_evenly(sum(map(len, blocks)), N_REFERENCE)]
        new = n_rows + lookback + choose_evenly(4 * LENGTH - lookback, N_NEW)
        times = tuple(np.datetime_as_string(np.datetime64("2024-01-01T00") + end, unit="m") + "Z" for end in ends)
        windows = torch.as_tensor(take_windows(rows, ends, lookback), dtype=torch.float32)
        model = replace(loaded, reference=Reference(windows, loaded.config, None, times))
        given = take_windows(rows, new, lookback) * model.scaling.feature_scale + model.scaling.feature_mean
        p_values = np.array([one.p_value for one in Trust.of(model, given)])
        for level in LEVELS:
            found[level].append((p_values <= level).mean())
    return {level: np.array(shares) for level, shares in found.items()}


def measure(process: str, n_draws: int) -> str:
    """The row of a process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cells = []
    for n_spans in SPANS:
        rates = count_alarms(process, n_spans, n_draws)
        cells += [f"{100 * rates[question]:.0f}" for question in QUESTIONS]
    shares = rank_new(process, n_draws)
    cells += [f"{100 * shares[level].mean():.2f} ± {100 * shares[level].std() / n_draws**0.5:.2f}" for level in LEVELS]
    return f"| {process} | {' | '.join(cells)} |"


def main() -> None:
    """Measures on all cores, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=100, help="of each process")
    chosen, start = parser.parse_args(), perf_counter()
    print(f"\n{machine()}; {chosen.draws} draws, percent\n")
    heads = [f"{question}, {100 / (n + 1):.0f} %" for n in SPANS for question in QUESTIONS]
    print(f"| process | {' | '.join(heads)} |", " | ".join(f"p ≤ {100 * level:.0f} %" for level in LEVELS), "|")
    print(f"|---|{'---|' * (len(heads) + len(LEVELS))}")
    os.environ |= {"OMP_NUM_THREADS": "1"}  # of the processes
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for row in pool.map(measure, PROCESSES, [chosen.draws] * len(PROCESSES)):
            print(row, flush=True)
    print(f"\n{perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
