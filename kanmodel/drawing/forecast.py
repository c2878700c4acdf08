"""`Forecast`: the data of one explained forecast that its pictures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kanmodel.scaling import Array

WIDTH = 760.0
LEFT, RIGHT = 190.0, 640.0  # ends of a plot; names are left and amounts right of it


@dataclass(frozen=True)
class Forecast:
    """Contributions of each feature at each step to one forecast, in the target's unit.

    Attributes:
        output: name of the output.
        unit: of all values; None if unknown.
        features: names of the features, or of groups of them.
        baseline_prediction: the forecast from which the contributions start.
        prediction: the forecast in which they end, up to the residual.
        contributions: (n_features,), the signed sum over the steps.
        steps: (lookback, n_features), oldest step first.
        segments: first and last step of those that are drawn together, by name; empty for each step alone.
        removed: what the forecast loses without each feature, (n_features,); None if unknown.
        alone: what each feature does alone, likewise.
    """

    output: str
    unit: str | None
    features: Sequence[str]
    baseline_prediction: float
    prediction: float
    contributions: Array
    steps: Array
    segments: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    removed: Array | None = None
    alone: Array | None = None


def split_features(magnitudes: Array, most: int) -> tuple[list[int], list[int]]:
    """The features to draw individually, largest first, and those to draw as one.

    Args:
        magnitudes: (n_features,).
        most: most features to draw individually, if more than one is left.
    """
    order = np.argsort(-magnitudes, kind="stable").tolist()
    n_named = most if len(order) > most + 1 else len(order)
    return order[:n_named], order[n_named:]
