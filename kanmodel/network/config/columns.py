"""Features, targets and time: the columns that a forecaster reads and predicts, and was trained along."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kanmodel.errors import ConfigError
from kanmodel.network.checks import check_flag, check_number, check_text


@dataclass(frozen=True)
class Column:
    """One column of a table, with its scaling.

    Attributes:
        name: the column's name.
        unit: its unit, for display; None if unknown.
        mean: mean over the training rows, original units.
        std: standard deviation over the training rows, original units; 0 for a constant column.
    """

    name: str
    unit: str | None = None
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        check_text(self.name, "name")
        if self.unit is not None:
            check_text(self.unit, "unit")
        check_number(self.mean, "mean")
        check_number(self.std, "std")


@dataclass(frozen=True)
class Target(Column):
    """One forecast column, or one class."""


@dataclass(frozen=True)
class Feature(Column):
    """One input column.

    Attributes:
        min: smallest training value, original units.
        max: largest training value, original units.
        integer: whether its values are whole numbers, which a counterfactual keeps whole.
        fixed: whether nobody can change it, like the calendar; a counterfactual leaves it unchanged.
    """

    min: float | None = None
    max: float | None = None
    integer: bool = field(default=False, kw_only=True)
    fixed: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag(self.integer, "integer")
        check_flag(self.fixed, "fixed")
        for place in ("min", "max"):
            if getattr(self, place) is not None:
                check_number(getattr(self, place), place)


@dataclass(frozen=True)
class TimeColumn:
    """The time stamps of the rows that a forecaster was trained on.

    Attributes:
        name: the column's name.
        step: usual time from row to row: seconds if the column has dates, else in its own unit.
        max_step: longest step that is not a gap, in usual steps.
        dated: whether the column has dates.
    """

    name: str
    step: float
    max_step: float
    dated: bool

    def __post_init__(self) -> None:
        check_text(self.name, "name")
        check_flag(self.dated, "dated")
        for place in ("step", "max_step"):
            check_number(getattr(self, place), place)
            if getattr(self, place) <= 0:
                raise ConfigError(f"{place} must be positive, but is {getattr(self, place)}")

    def is_gap(self, steps: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each step is a gap."""
        return steps > self.max_step * self.step

    def is_short(self, steps: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each step is shorter than the usual one by as large a factor as a gap is longer."""
        return steps < self.step / self.max_step

    @property
    def usual_step(self) -> str:
        """`step` in words."""
        return f"{self.step:g} seconds" if self.dated else f"{self.step:g}"
