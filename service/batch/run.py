"""A batch run: resumes from the finished parts, and has the engine compute the rest."""

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
    """Progress of a run.

    Attributes:
        summary: counts of all parts in the folder.
        read: bytes of the table that they cover, roughly.
    """

    summary: Summary
    read: int


def explain_table(model: Model, plan: Plan, output: Path, engine: Engine, workers: int | None) -> Iterator[Advance]:
    """Explains the missing parts of a table; yields the progress at the start and after each part.

    Args:
        model: the model.
        plan: the table.
        output: the folder of the result.
        engine: computes the parts.
        workers: threads or actors of the engine; None for one per core.

    Raises:
        DataError: the table cannot be read, or the folder belongs to another run or cannot be written to.
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
