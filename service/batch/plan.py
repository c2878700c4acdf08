"""The plan of a run: model, table and options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kanmodel.model import Model
from kanmodel.terms import Baseline, LedgerOptions

EngineName = Literal["threads", "ray"]
PART_WINDOWS = 2048


@dataclass(frozen=True)
class Plan:
    """A table to explain. It can be sent to another process.

    Attributes:
        table: a file, or a folder of files.
        features: the model's features, which are columns of the table.
        lookback: steps of a window.
        output: number of the output.
        time: the column of time stamps; None where there is none.
        segment: the column that changes at each gap, which no window crosses; None where there is none.
        groups: names of the checkpoint's groups, each of which has a column of the result.
        part_windows: rows of the table whose windows go into one file.
        strict: whether a bad row ends the run.
    """

    table: Path
    features: tuple[str, ...]
    lookback: int
    output: int
    time: str | None = None
    segment: str | None = None
    groups: tuple[str, ...] = ()
    part_windows: int = PART_WINDOWS
    strict: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read."""
        return tuple(dict.fromkeys((*self.features, *filter(None, (self.time, self.segment)))))


def describe_plan(plan: Plan, model: Model) -> dict[str, Any]:
    """What decides the numbers: a folder is gone on with only where it is the same."""
    config = model.config
    return {
        "checkpoint": model.checkpoint,
        "output": config.outputs[plan.output],
        "unit": config.target_of(plan.output).unit,
        "features": {feature.name: feature.unit for feature in config.features},
        "groups": {name: list(config.groups[name]) for name in plan.groups},
        "lookback": plan.lookback,
        "baseline": Baseline().kind,
        "tolerance": LedgerOptions().tolerance,
        "time_column": plan.time,
        "segment_column": plan.segment,
        "part_windows": plan.part_windows,
    }
