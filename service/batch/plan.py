"""The plan of a run: the table and its options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kanmodel.data import TimeColumn
from kanmodel.explain.attribution import LedgerOptions
from kanmodel.explain.baseline import Baseline
from kanmodel.model import Model

EngineName = Literal["threads", "ray"]
PART_WINDOWS = 2048


@dataclass(frozen=True)
class Plan:
    """A table to explain, and how. It can be pickled.

    Attributes:
        table: a file, or a folder of files.
        features: the model's features, which are columns of the table.
        lookback: steps of a window.
        output: index of the output.
        time: the column of time stamps; None if there is none.
        segment: the column that changes at each gap, which no window crosses; None if there is none.
        clock: the time step of the model, with `time`; None if it is unknown.
        groups: names of the checkpoint's groups, each a column of the result.
        part_windows: rows of the table per file.
        strict: whether a bad row ends the run.
        effects: whether to add the effects of removing each feature, and of each alone, to the contributions.
    """

    table: Path
    features: tuple[str, ...]
    lookback: int
    output: int
    time: str | None = None
    segment: str | None = None
    clock: TimeColumn | None = None
    groups: tuple[str, ...] = ()
    part_windows: int = PART_WINDOWS
    strict: bool = False
    effects: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read."""
        return tuple(dict.fromkeys((*self.features, *filter(None, (self.time, self.segment)))))


def describe_plan(plan: Plan, model: Model) -> dict[str, Any]:
    """Everything that determines the results: a folder is resumed only if all of it is the same."""
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
        "effects": plan.effects,
    }
