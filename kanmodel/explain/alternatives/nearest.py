"""Plausibility of a changed window: its distance from the nearest reference window (nearest neighbour).

The distance of two windows is the root mean square difference of their cells, in training standard deviations: 1 if
every cell differs by one. A window that is much farther from its nearest neighbour than reference windows are from
theirs is probably out of distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kanmodel.checkpoint import LoadedModel
from kanmodel.scaling import Array


@dataclass(frozen=True)
class Neighbour:
    """The reference window nearest to a window.

    Attributes:
        index: its number, from 0.
        distance: root mean square difference of the cells, training standard deviations.
        typical: median distance of the reference windows from the nearest other; None if there is only one.
    """

    index: int
    distance: float
    typical: float | None


def measure_typical_distance(model: LoadedModel) -> float | None:
    """Median distance of the reference windows from the nearest other; None if there is only one."""
    windows = _flatten(model)
    if len(windows) < 2:
        return None
    nearest = [np.delete(((windows - window) ** 2).mean(axis=1), number).min() for number, window in enumerate(windows)]
    return float(np.median(np.sqrt(nearest)))


def find_neighbour(model: LoadedModel, window: Array, typical: float | None) -> Neighbour:
    """The nearest reference window, the first of several at the same distance.

    Args:
        model: the model.
        window: (lookback, n_features), original units, oldest step first.
        typical: from `measure_typical_distance`, which can be cached per model.
    """
    changed = model.to_model_units(window[None]).double().flatten().numpy()
    distances = ((_flatten(model) - changed) ** 2).mean(axis=1)
    index = int(distances.argmin())
    return Neighbour(index, float(np.sqrt(distances[index])), typical)


def _flatten(model: LoadedModel) -> Array:
    """The reference windows, (n, lookback * n_features), model units."""
    flat: Array = model.reference.windows.double().flatten(1).numpy()
    return flat
