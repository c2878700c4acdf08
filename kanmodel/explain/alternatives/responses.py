"""Individual conditional expectation (ICE) curves: the response of a forecast to one feature of its window.

After Goldstein et al. 2015 (arXiv 1309.6392). Each point is a forecast of the window with this feature changed and all
others as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel
from kanmodel.computing import pause
from kanmodel.errors import DataError
from kanmodel.scaling import Array

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
