"""Grid search for the smallest shift of one feature alone with which the forecast reaches a goal, refined by bisection.

The whole range of each feature is searched. A goal that is reached only between two neighbouring grid points is missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kanmodel.explain.alternatives.shifts import Goal, Shifts
from kanmodel.pausing import Pause, go_on
from kanmodel.scaling import Array

GRID = 64  # grid points on each side of 0
HALVINGS = 30  # bisection steps


@dataclass(frozen=True)
class SingleShift:
    """Result of shifting one feature alone.

    Attributes:
        feature: number of the feature.
        shift: the smallest found that reaches the goal, training standard deviations; None if no grid point reaches it.
        best: the grid point whose forecast comes nearest to the goal, the smallest of several.
        best_prediction: the forecast at `best`, the target's unit.
    """

    feature: int
    shift: float | None
    best: float
    best_prediction: float


def search_single_features(shifts: Shifts, goal: Goal, pause: Pause = go_on) -> list[SingleShift]:
    """Searches for the smallest shift of each feature that can change.

    Args:
        shifts: the possible shifts of one window.
        goal: the range that the forecast must reach.
        pause: called between batches of forecasts.
    """
    found = []
    for feature in shifts.movable.tolist():
        places = _grid(shifts, feature)  # 0 first, then by magnitude
        predictions = _predict(shifts, feature, places)
        missed = goal.miss(predictions)
        best = int(missed.argmin())  # argmin returns the first, which is the smallest shift
        reaching = [_narrow(shifts, goal, feature, side) for side in _sides(places, missed)]
        smallest = min((shift for shift in reaching if shift is not None), key=abs, default=None)
        found.append(SingleShift(feature, smallest, float(places[best]), float(predictions[best])))
        pause()
    return found


def _grid(shifts: Shifts, feature: int) -> Array:
    low, high, std = shifts.low[feature], shifts.high[feature], shifts.std[feature]
    places = np.concatenate([np.linspace(0, low, GRID + 1), np.linspace(0, high, GRID + 1)])
    if shifts.integer[feature]:
        places = np.round(places * std) / std
    places = np.unique(places)
    return places[np.argsort(np.abs(places), kind="stable")]


def _sides(places: Array, missed: Array) -> list[tuple[float, float]]:
    """On each side of 0, the first grid point that reaches the goal, after the point before it: (before, reaching)."""
    sides = []
    for sign in (-1, 1):
        side = np.flatnonzero(places * sign >= 0)
        reached = np.flatnonzero(missed[side] == 0)
        if len(reached):
            first = int(reached[0])
            sides.append((float(places[side[max(first - 1, 0)]]), float(places[side[first]])))
    return sides


def _narrow(shifts: Shifts, goal: Goal, feature: int, side: tuple[float, float]) -> float:
    """Bisects between a shift that misses the goal and one that reaches it; returns a shift that reaches it."""
    missing, reaching = side
    std = shifts.std[feature]
    for _ in range(HALVINGS):
        middle = (missing + reaching) / 2
        if shifts.integer[feature]:
            middle = float(np.round(middle * std) / std)
        if middle in (missing, reaching):
            break
        if goal.miss(_predict(shifts, feature, np.array([middle])))[0] == 0:
            reaching = middle
        else:
            missing = middle
    return reaching


def _predict(shifts: Shifts, feature: int, places: Array) -> Array:
    moved = np.zeros((len(places), len(shifts.std)))
    moved[:, feature] = places
    return shifts.predict(moved)
