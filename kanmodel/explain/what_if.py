"""`WhatIf`: response curves, the forecasts of a window over the values or shifts of one feature.

Individual conditional expectation (ICE) curves: the response of a forecast to one feature of its window.

After Goldstein et al. 2015 (arXiv 1309.6392). Each point is a forecast of the window with this feature changed and all
others as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel
from kanmodel.computing import pause
from kanmodel.data import Array
from kanmodel.errors import DataError
from kanmodel.explain.result import Result, Table
from kanmodel.network.config import ModelConfig
from kanmodel.text import with_unit

DEFAULT_POINTS = 21


@dataclass(frozen=True)
class Shift:
    """Evenly spaced constants to add to a feature at the chosen steps, in its own unit.

    Attributes:
        low: the first constant.
        high: the last.
        points: number of constants, from 2.

    Raises:
        DataError: a bound is not finite, or `points` is below 2.
    """

    low: float
    high: float
    points: int = DEFAULT_POINTS

    def __post_init__(self) -> None:
        for place, value in (("from", self.low), ("to", self.high)):
            if not np.isfinite(value):
                raise DataError.at(f"shift.{place}", f"must be finite, but is {value}")
        if self.points < 2:
            raise DataError.at("shift.points", f"must be a whole number from 2, but is {self.points}")

    @property
    def values(self) -> Array:
        """The constants, (points,)."""
        return np.linspace(self.low, self.high, self.points)


@dataclass(frozen=True)
class Response:
    """Forecasts of one window with one feature changed.

    Attributes:
        feature: number of the feature.
        kind: ``shift`` if the values are added to the feature, ``value`` if they replace it.
        values: (points,), in the feature's unit.
        predictions: (points, n_outputs), original units.
        outside_training_range: whether a changed value is outside the training range, (points,).
    """

    feature: int
    kind: Literal["shift", "value"]
    values: Array
    predictions: Array
    outside_training_range: NDArray[np.bool_]


def respond(
    model: LoadedModel,
    windows: Array,
    features: Sequence[int],
    steps: slice,
    shift: Shift | None,
    points: int = DEFAULT_POINTS,
) -> list[list[Response]]:
    """Computes the response of the forecasts of each window to each feature.

    Args:
        model: the model.
        windows: (n, lookback, n_features), original units, oldest step first.
        features: numbers of the features.
        steps: which steps are changed; the others stay.
        shift: the constants to add; None to replace the feature by constants from its training minimum to its maximum.
        points: number of these constants, used if `shift` is None.

    Returns:
        By window, then by feature in the given order.

    Raises:
        DataError: the training range of a feature is unknown and no shift is given, or a changed value is too large.
        NonFiniteError: a forecast is not finite.
    """
    kind: Literal["shift", "value"] = "value" if shift is None else "shift"
    low, high = model.feature_low, model.feature_high
    responses: list[list[Response]] = []
    for window in windows:
        responses.append([])
        for feature in features:
            values = _training_range(model, feature, points) if shift is None else shift.values
            changed = np.repeat(window[None], len(values), axis=0)
            kept = 0.0 if shift is None else window[steps, feature]
            changed[:, steps, feature] = kept + values[:, None]
            taken = changed[:, steps, feature]
            outside = ((taken < low[feature]) | (taken > high[feature])).any(axis=1)
            responses[-1].append(Response(feature, kind, values, model.predict(changed), outside))
            pause()
    return responses


def _training_range(model: LoadedModel, feature: int, points: int) -> Array:
    low, high = float(model.feature_low[feature]), float(model.feature_high[feature])
    if not np.isfinite([low, high]).all():
        name = model.config.feature_names[feature]
        raise DataError.at("shift", f"is needed, since the training range of {name} is unknown")
    return np.linspace(low, high, points)


@dataclass(frozen=True, eq=False)
class Curve:
    """Forecasts of one window over the values or shifts of one feature.

    Attributes:
        feature: its name.
        unit: its unit; None if unknown.
        kind: ``shift``, values that are added to the feature; ``value``, values that replace it.
        values: (points,), in the feature's unit.
        predictions: (points, n_outputs), original units, as returned by `Model.predict` for the changed windows.
        outside_training_range: whether a changed value is outside the training range, (points,).
    """

    feature: str
    unit: str | None
    kind: Literal["shift", "value"]
    values: Array
    predictions: Array
    outside_training_range: NDArray[Any]


@dataclass(frozen=True, repr=False, eq=False)
class WhatIf(Result):
    """Response curves for each window and feature.

    Attributes:
        outputs: names of the outputs.
        curves: by window, then by feature in the requested order.
    """

    outputs: tuple[str, ...]
    curves: tuple[tuple[Curve, ...], ...]

    @classmethod
    def of(cls, config: ModelConfig, responses: Sequence[Sequence[Response]]) -> WhatIf:
        """The responses by name."""
        return cls(config.outputs, tuple(tuple(_name(config, one) for one in of_window) for of_window in responses))

    def __len__(self) -> int:
        return len(self.curves)

    def __iter__(self) -> Iterator[tuple[Curve, ...]]:
        return iter(self.curves)

    def __getitem__(self, window: int) -> tuple[Curve, ...]:
        return self.curves[window]

    def table(self) -> list[dict[str, Any]]:
        """A row for each window, feature and value, with a column for each output."""
        return [
            {
                "window": window,
                "feature": curve.feature,
                curve.kind: value,
                "outside_training_range": outside,
                **dict(zip(self.outputs, predictions, strict=True)),
            }
            for window, curves in enumerate(self.curves)
            for curve in curves
            for value, outside, predictions in zip(
                curve.values.tolist(),
                curve.outside_training_range.tolist(),
                curve.predictions.tolist(),
                strict=True,
            )
        ]

    def _summary(self) -> list[dict[str, Any]]:
        """A row for each curve and output, with its range."""
        return [
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

    def _title(self) -> str:
        return "What if"

    def _tables(self) -> list[Table]:
        summary, rows = self._summary(), self.table()
        return [Table(summary, list(summary[0])), Table(rows, list(rows[0]), "Every value", in_text=False)]


def _name(config: ModelConfig, response: Response) -> Curve:
    feature = config.features[response.feature]
    return Curve(
        feature.name,
        feature.unit,
        response.kind,
        response.values,
        response.predictions,
        response.outside_training_range,
    )
