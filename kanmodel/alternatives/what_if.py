"""What-if analysis: the forecasts of a window with one input changed: a number, or a level or hour as a whole.

These are individual conditional expectation (ICE) curves after Goldstein et al. 2015 (arXiv 1309.6392).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kanmodel.alternatives.changeable import Levels, find_columns, find_rows
from kanmodel.arrays import Array
from kanmodel.computing import tracked
from kanmodel.errors import DataError, check_lowest, quote
from kanmodel.forecaster import Forecaster
from kanmodel.result import Table, WindowsResult
from kanmodel.text import with_unit

DEFAULT_POINTS = 21
CurveKind = Literal["shift", "value", "level"]


@dataclass(frozen=True, eq=False)
class Curve:
    """Forecasts of one window over the values or shifts of one feature, or over the levels of a column.

    Attributes:
        feature: name of the input: a column, or a part of the calendar.
        label: the same for people, such as ``temp_c 24 hours later``.
        unit: its unit; None if unknown.
        kind: ``shift``: the values are added to the feature; ``value``: they replace it; ``level``: they are indices of
            `levels`, each of which is set as a whole.
        values: shifts or values, in the feature's unit, or indices of levels, (points,).
        predictions: (points, n_outputs), original units, as returned by `Model.predict` for the changed windows.
        outside_training_range: for each, whether a changed value is outside the feature's training range, (points,).
        within: the lowest and the highest value with which none is; infinite where the range is unknown.
        actual: the value that leaves the newest changed step as it is: its own, or a shift of 0; NaN without a level.
        prediction: the forecast of the unchanged window, (n_outputs,).
        levels: all levels of the column, hours of a day, and so on; a number has none.
    """

    feature: str
    label: str
    unit: str | None
    kind: CurveKind
    values: Array
    predictions: Array
    outside_training_range: NDArray[np.bool_]
    within: tuple[float, float]
    actual: float
    prediction: Array
    levels: tuple[str, ...] | None = None

    @classmethod
    def of_levels(cls, model: Forecaster, window: Array, rows: slice, of: Levels, prediction: Array) -> Curve:
        """The forecasts of a window (lookback, n_features) with each of some levels of a column in some rows."""
        changed = np.stack([of.set(window, rows, level) for level in of.chosen])
        one, values, everything = of.input, np.array(of.chosen, np.float64), (-np.inf, np.inf)
        outside, actual = _is_outside(model, changed[:, rows], list(one.numbers)), float(one.decode(window[rows][-1]))
        found = (values, model.predict(changed), outside, everything, actual, prediction, one.levels)
        return cls(one.name, one.label, None, "level", *found)

    @classmethod
    def of_feature(
        cls, model: Forecaster, window: Array, rows: slice, feature: int, shifts: Array | None, points: int, now: Array
    ) -> Curve:
        """The forecasts of a window with some shifts of a feature in some rows, or with values over its range.

        `now` is the forecast of the window as it is.
        """
        column, low, high = model.config.features[feature], model.feature_low[feature], model.feature_high[feature]
        values, present = shifts, window[rows, feature]
        if values is None:
            if not np.isfinite([low, high]).all():
                raise DataError.at("shift", f"is needed, since the training range of {column.name} is unknown")
            values = np.linspace(low, high, points)
            values = np.unique(np.rint(values)) if column.integer else values
        changed, added = np.repeat(window[None], len(values), axis=0), 0 * present if shifts is None else present
        changed[:, rows, feature] = values[:, None] + added
        outside, actual = _is_outside(model, changed[:, rows], [feature]), float((present - added)[-1])
        within = float(low - added.min()), float(high - added.max())
        found = (values, model.predict(changed), outside, within, actual, now)
        of = model.inputs.of_feature[column.name]
        return cls(of.name, of.label, column.unit, "value" if shifts is None else "shift", *found)

    @property
    def points(self) -> list[Any]:
        """The values, or the levels that they are the places of, (points,)."""
        values: list[Any] = self.values.tolist()
        return values if self.levels is None else [self.levels[int(place)] for place in values]


@dataclass(frozen=True, repr=False, eq=False)
class WhatIf(WindowsResult):
    """Response curves for each window.

    Attributes:
        outputs: names of the outputs.
        units: of their forecasts; None if unknown.
        curves: by window, then by feature in the requested order.
    """

    outputs: tuple[str, ...]
    units: tuple[str | None, ...]
    curves: tuple[tuple[Curve, ...], ...]

    @classmethod
    def of(
        cls,
        model: Forecaster,
        windows: Array,
        features: Sequence[str] | str | None = None,
        steps: Sequence[int] | None = None,
        shift: Sequence[float] | None = None,
        points: int = DEFAULT_POINTS,
        **source: Any,
    ) -> WhatIf:
        """Forecasts of windows (n, lookback, n_features), original units, with their `source`.

        Other arguments are those of `kanmodel.model.Model.what_if`.

        Raises:
            DataError: an argument or value that cannot be used, or no shift and an unknown training range.
            UnknownNameError: there is no such feature.
            NonFiniteError: a forecast is not finite.
        """
        check_lowest("points", points, 2)
        config = model.config
        columns, rows = find_columns(model, features), find_rows(config, steps)
        shifts = None
        if shift is not None:
            levels = [one.input.name for one in columns if isinstance(one, Levels)]
            if levels and (features is not None or len(levels) == len(columns)):
                raise DataError.at("shift", f"cannot be added to the levels of {levels[0]}")
            numbers = [one for one in columns if isinstance(one, int)]
            columns, shifts = [*numbers], _read_shift(shift, model.scaling.feature_limit[numbers].min())
        curves: list[tuple[Curve, ...]] = []
        for window, prediction in tracked(zip(windows, model.predict(windows), strict=True)):
            of_window = (
                Curve.of_levels(model, window, rows, one, prediction)
                if isinstance(one, Levels)
                else Curve.of_feature(model, window, rows, one, shifts, points, prediction)
                for one in tracked(columns)
            )
            curves.append(tuple(of_window))
        units = tuple(config.target_of(output).unit for output in range(len(config.outputs)))
        return cls(config.outputs, units, tuple(curves), origin=model.origin, **source)

    def __len__(self) -> int:
        return len(self.curves)

    def __iter__(self) -> Iterator[tuple[Curve, ...]]:
        return iter(self.curves)

    def __getitem__(self, window: int) -> tuple[Curve, ...]:
        return self.curves[window]

    def table(self) -> list[dict[str, Any]]:
        """A row for each window, feature and value, shift or level, with a column for each output."""
        rows = []
        for window, curve in self._numbered():
            points = curve.points, curve.outside_training_range.tolist(), curve.predictions.tolist()
            name = "shift" if curve.kind == "shift" else "value"
            for value, outside, predictions in zip(*points, strict=True):
                row = {"window": window, "feature": curve.feature, name: value, "outside_training_range": outside}
                rows.append(row | dict(zip(self.outputs, predictions, strict=True)))
        return rows

    def _numbered(self) -> Iterator[tuple[int, Curve]]:
        """The curves with the numbers of their windows."""
        return ((window, curve) for window, curves in enumerate(self.curves) for curve in curves)

    def _title(self) -> str:
        return "What if"

    def _tables(self) -> list[Table]:
        """The range of each curve and output, and every value."""
        summary = [
            {
                "window": window,
                "feature": with_unit(curve.label, curve.unit),
                "kind": curve.kind,
                "from": curve.points[0],
                "to": curve.points[-1],
                "output": output,
                "prediction_from": float(predictions[0]),
                "prediction_to": float(predictions[-1]),
                "lowest": float(predictions.min()),
                "highest": float(predictions.max()),
            }
            for window, curve in self._numbered()
            for output, predictions in zip(self.outputs, curve.predictions.T, strict=True)
        ]
        rows = self.table()
        return [Table(summary, list(summary[0])), Table(rows, list(rows[0]), "Every value", in_text=False)]


def _read_shift(shift: Sequence[float], limit: float) -> Array:
    """The constants to add, (points,), from the first, the last and their number; at most `limit` either way."""
    if len(shift) not in (2, 3):
        raise DataError.at("shift", f"must be from, to and number of points, but is {quote(shift)}")
    for name, value in zip(("from", "to"), shift, strict=False):
        if not abs(value) <= limit:
            raise DataError.at(f"shift.{name}", f"must be a number of at most {limit:.2g}, but is {quote(value)}")
    points = DEFAULT_POINTS if len(shift) == 2 else shift[2]
    if points < 2 or points != int(points):
        raise DataError.at("shift.points", f"must be a whole number from 2, but is {quote(points)}")
    return np.linspace(float(shift[0]), float(shift[1]), int(points))


def _is_outside(model: Forecaster, rows: Array, features: Sequence[int]) -> NDArray[np.bool_]:
    """Whether a value of some features is outside the training range, (n,), of rows (n, n_rows, n_features)."""
    values = rows[..., features]
    outside = (values < model.feature_low[features]) | (values > model.feature_high[features])
    return np.asarray(outside.any(axis=(1, 2)))
