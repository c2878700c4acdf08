"""What-if analysis: the forecasts of a window over the values or shifts of one feature.

Individual conditional expectation (ICE) curves after Goldstein et al. 2015 (arXiv 1309.6392): each point is a forecast
of the window with this feature changed and all others as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.checkpoint import LoadedModel
from kanmodel.computing import slices
from kanmodel.errors import DataError, check_lowest, quote
from kanmodel.explain.result import Table, WindowsResult
from kanmodel.explain.shifts import find_features, find_rows
from kanmodel.text import with_unit

DEFAULT_POINTS = 21


@dataclass(frozen=True, eq=False)
class Curve:
    """Forecasts of one window over the values or shifts of one feature.

    Attributes:
        feature: its name; `unit` is None if unknown.
        kind: ``shift``, values that are added to the feature; ``value``, values that replace it.
        values: (points,), in the feature's unit.
        predictions: (points, n_outputs), original units, as returned by `Model.predict` for the changed windows.
        outside_training_range: whether a changed value is outside the training range, (points,).
        within: the lowest and the highest value with which none is; infinite where the range is unknown.
        actual: the value that leaves the newest changed step as it is: its own, or a shift of 0.
        prediction: the forecast of the unchanged window, (n_outputs,).
    """

    feature: str
    unit: str | None
    kind: Literal["shift", "value"]
    values: Array
    predictions: Array
    outside_training_range: NDArray[np.bool_]
    within: tuple[float, float]
    actual: float
    prediction: Array


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
        model: LoadedModel,
        windows: Array,
        features: Sequence[str] | str | None = None,
        steps: Sequence[int] | None = None,
        shift: Sequence[float] | None = None,
        points: int = DEFAULT_POINTS,
    ) -> WhatIf:
        """Forecasts of windows (n, lookback, n_features), original units; arguments as `kanmodel.model.Model.what_if`.

        Raises:
            DataError: an argument or value that cannot be used, or no shift and an unknown training range.
            UnknownNameError: there is no such feature.
            NonFiniteError: a forecast is not finite.
        """
        check_lowest("points", points, 2)
        chosen, rows = find_features(model.config, features), find_rows(model.config, steps)
        kind: Literal["shift", "value"] = "value" if shift is None else "shift"
        curves: list[list[Curve]] = []
        for window, prediction in slices(zip(windows, model.predict(windows), strict=True)):
            curves.append([])
            for feature in slices(chosen):
                column = model.config.features[feature]
                low, high = model.feature_low[feature], model.feature_high[feature]
                if shift is None and not np.isfinite([low, high]).all():
                    raise DataError.at("shift", f"is needed, since the training range of {column.name} is unknown")
                values = np.linspace(low, high, points) if shift is None else _read_shift(shift)
                changed, present = np.repeat(window[None], len(values), axis=0), window[rows, feature]
                added = np.zeros_like(present) if shift is None else present
                changed[:, rows, feature] = values[:, None] + added
                taken = changed[:, rows, feature]
                outside = ((taken < low) | (taken > high)).any(axis=1)
                within = float(low - added.min()), float(high - added.max())
                found = (values, model.predict(changed), outside, within, float((present - added)[-1]), prediction)
                curves[-1].append(Curve(column.name, column.unit, kind, *found))
        units = tuple(model.config.target_of(output).unit for output in range(len(model.config.outputs)))
        return cls(model.config.outputs, units, tuple(map(tuple, curves)))

    def __len__(self) -> int:
        return len(self.curves)

    def __iter__(self) -> Iterator[tuple[Curve, ...]]:
        return iter(self.curves)

    def __getitem__(self, window: int) -> tuple[Curve, ...]:
        return self.curves[window]

    def table(self) -> list[dict[str, Any]]:
        """A row for each window, feature and value, with a column for each output."""
        rows = []
        for window, curve in ((window, curve) for window, curves in enumerate(self) for curve in curves):
            points = curve.values.tolist(), curve.outside_training_range.tolist(), curve.predictions.tolist()
            for value, outside, predictions in zip(*points, strict=True):
                row = {"window": window, "feature": curve.feature, curve.kind: value, "outside_training_range": outside}
                rows.append(row | dict(zip(self.outputs, predictions, strict=True)))
        return rows

    def _title(self) -> str:
        return "What if"

    def _tables(self) -> list[Table]:
        """The range of each curve and output, and every value."""
        summary = [
            {
                "window": window,
                "feature": with_unit(curve.feature, curve.unit),
                "kind": curve.kind,
                "from": float(curve.values[0]),
                "to": float(curve.values[-1]),
                "output": output,
                "prediction_from": float(predictions[0]),
                "prediction_to": float(predictions[-1]),
                "lowest": float(predictions.min()),
                "highest": float(predictions.max()),
            }
            for window, curves in enumerate(self.curves)
            for curve in curves
            for output, predictions in zip(self.outputs, curve.predictions.T, strict=True)
        ]
        rows = self.table()
        return [Table(summary, list(summary[0])), Table(rows, list(rows[0]), "Every value", in_text=False)]


def _read_shift(shift: Sequence[float]) -> Array:
    """The constants to add, (points,), from the first, the last and their number."""
    if len(shift) not in (2, 3):
        raise DataError.at("shift", f"must be from, to and number of points, but is {quote(shift)}")
    points = DEFAULT_POINTS if len(shift) == 2 else shift[2]
    if points < 2 or points != int(points):
        raise DataError.at("shift.points", f"must be a whole number from 2, but is {quote(points)}")
    return np.linspace(float(shift[0]), float(shift[1]), int(points))
