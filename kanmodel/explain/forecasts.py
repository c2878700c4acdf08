"""`Forecasts`: forecasts with their prediction intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from kanmodel.checkpoint import LoadedModel
from kanmodel.data import Array
from kanmodel.errors import DataError, quote, refuse_unknown
from kanmodel.explain.result import ModelResult, Table
from kanmodel.network.intervals import forecasts_of
from kanmodel.text import list_some, with_unit


@dataclass(frozen=True, repr=False, eq=False)
class Forecasts(ModelResult):
    """Forecasts of n windows with an interval at each level, in original units.

    Attributes:
        outputs: names of the forecasts: the model's outputs, but of a target with quantiles only the target itself or
            its median.
        units: of each; None if unknown.
        levels: nominal coverages, ascending.
        predictions: (n, n_outputs).
        lower, upper: bounds, (n_levels, n, n_outputs).
        times: of the newest row of each window; None unless the windows are those of a data frame with times.
    """

    outputs: tuple[str, ...]
    units: tuple[str | None, ...]
    levels: tuple[float, ...]
    predictions: Array
    lower: Array
    upper: Array
    times: tuple[str, ...] | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, model: LoadedModel, windows: Array, levels: Literal["all"] | Sequence[float]) -> Forecasts:
        """The forecasts of windows (n, lookback, n_features), original units, oldest step first.

        Raises:
            DataError: a window does not fit, or the model has no intervals, or none at one of the levels.
            NonFiniteError: a forecast or a bound is not finite.
        """
        chosen, config = choose_levels(model, levels), model.config
        predictions, lower, upper = model.predict_bounds(windows)
        kept, at = list(forecasts_of(config)), [model.levels.index(level) for level in chosen]
        return cls(
            tuple(config.outputs[output] for output in kept),
            tuple(config.target_of(output).unit for output in kept),
            chosen,
            predictions[:, kept],
            lower[at],
            upper[at],
        )

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def width(self) -> Array:
        """Upper bound minus lower bound, (n_levels, n, n_outputs)."""
        width: Array = self.upper - self.lower
        return width

    def table(self) -> list[dict[str, Any]]:
        """A row for each window and output: ``time`` or ``window``, ``prediction``, ``lower@0.8``, ``upper@0.8``."""
        return [
            {
                **({"window": n} if self.times is None else {"time": self.times[n]}),
                "output": name,
                "unit": self.units[output],
                "prediction": float(self.predictions[n, output]),
                **{
                    f"{bound}@{level:g}": float(of[k, n, output])
                    for k, level in enumerate(self.levels)
                    for bound, of in (("lower", self.lower), ("upper", self.upper))
                },
            }
            for n in range(len(self))
            for output, name in enumerate(self.outputs)
        ]

    def _title(self) -> str:
        named = [with_unit(name, unit) for name, unit in zip(self.outputs, self.units, strict=True)]
        return f"Forecasts of {list_some(named)} with intervals"

    def _tables(self) -> list[Table]:
        rows = self.table()
        return [Table(rows, list(rows[0]) if rows else [])]


def choose_levels(model: LoadedModel, levels: Literal["all"] | Sequence[float]) -> tuple[float, ...]:
    """The given levels of a model's intervals, ascending."""
    known = model.levels
    if not known:
        raise DataError.at(
            "intervals", "must not be given, as the model has none: train it with intervals, or calibrate it"
        )
    if isinstance(levels, str):
        refuse_unknown("intervals", levels, ("all",))
        return known
    chosen = np.asarray(levels, dtype=np.float64).reshape(-1).tolist()
    for number, level in enumerate(chosen):
        if level not in known:
            there = f"one of {', '.join(f'{p:g}' for p in known)}"
            raise DataError.at(
                f"intervals[{number}]", f"must be {there}, the levels of the model, but is {quote(level)}"
            )
    if not chosen:
        raise DataError.at("intervals", "is empty")
    return tuple(sorted(set(chosen)))
