"""Responses of the forecast to one feature: what if it were different, and all else as it is.

Individual conditional expectation curves (Goldstein et al. 2015, arXiv 1309.6392) of one window: every value is a
forecast of the changed window, computed as any other forecast is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import DataError
from kanmodel.pausing import Pause, go_on
from kanmodel.scaling import Array

DEFAULT_POINTS = 21


@dataclass(frozen=True)
class Shift:
    """Constants that are added to a feature at the chosen steps, in its own unit.

    Attributes:
        low: the first.
        high: the last.
        points: how many, evenly spaced, from 2.

    Raises:
        DataError: no such range.
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
    """Forecasts of one window in which one feature is different.

    Attributes:
        feature: number of the feature.
        kind: ``shift``, the values are added to the feature; ``value``, they take its place.
        values: (points,), in the feature's unit.
        predictions: (points, n_outputs), original units.
        outside_training_range: whether a changed value leaves the range of the training data, (points,).
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
    pause: Pause = go_on,
) -> list[list[Response]]:
    """The response of each window's forecasts to each feature.

    Args:
        model: the model.
        windows: (n, lookback, n_features), original units, oldest step first.
        features: numbers of the features.
        steps: which steps are changed; the others stay.
        shift: what is added; None: the feature takes constant values from its training minimum to its maximum.
        points: how many of these.
        pause: called between the features.

    Returns:
        By window, then by feature in the given order.

    Raises:
        DataError: a feature's training range is unknown, and no shift is given; or a changed value is too large.
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
