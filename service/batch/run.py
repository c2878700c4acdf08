"""The run: resumes from the parts that exist, and has the engine compute the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kanmodel.model import Model
from service.batch.folder import Folder
from service.batch.parts import Part, Summary
from service.batch.plan import Plan, describe_plan
from service.batch.rows import hold_windows

Engine = Callable[[Model, Plan, Mapping[int, str], int | None], Iterator[Part]]


@dataclass(frozen=True)
class Advance:
    """Where a run stands.

    Attributes:
        summary: of all parts that are in the folder.
        read: bytes of the table that they cover, roughly.
    """

    summary: Summary
    read: int


def explain_table(model: Model, plan: Plan, output: Path, engine: Engine, workers: int | None) -> Iterator[Advance]:
    """Explains what is not yet explained; gives where it stands at the start, and after each part.

    Args:
        model: the model.
        plan: the table.
        output: the folder of the result.
        engine: what computes the parts.
        workers: threads or processes that it does so with; None for one a core.

    Raises:
        DataError: the table cannot be read, or the folder is that of another run, or cannot be written.
        UnknownNameError: a column does not exist.
    """
    hold_windows(plan)  # before anything is written
    folder = Folder(output, describe_plan(plan, model))
    finished: dict[int, str] = {}
    summary, read = Summary(), 0
    for number, part in folder.finished():
        finished[number] = part.input
        summary, read = summary + part.summary, max(read, part.read)
    yield Advance(summary, read)
    for made in engine(model, plan, finished, workers):
        folder.add(made)
        summary, read = summary + made.summary, max(read, made.read)
        yield Advance(summary, read)
    folder.complete(summary)
