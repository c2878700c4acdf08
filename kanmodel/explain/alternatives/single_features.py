"""The smallest shift of one feature alone that makes the forecast reach a goal: every feature, its whole range.

The range is searched on a grid, and the first place where the goal is reached is then narrowed down by bisection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kanmodel.explain.alternatives.shifts import Goal, Shifts
from kanmodel.pausing import Pause, go_on
from kanmodel.scaling import Array

GRID = 64  # places on each side of 0
HALVINGS = 30


@dataclass(frozen=True)
class SingleShift:
    """What one feature can do alone.

    Attributes:
        feature: number of the feature.
        shift: the smallest that reaches the goal, in training standard deviations; None where none of the grid does.
        best: the shift whose forecast misses the goal by least.
        best_prediction: that forecast, the target's unit.
    """

    feature: int
    shift: float | None
    best: float
    best_prediction: float


def search_single_features(shifts: Shifts, goal: Goal, pause: Pause = go_on) -> list[SingleShift]:
    """The smallest shift of each feature that can change, among those of a grid of 64 on each side, refined.

    A goal that is reached between two neighbouring places of the grid alone is not seen.

    Args:
        shifts: of one window.
        goal: what the forecast shall reach.
        pause: called between batches of forecasts.
    """
    found = []
    for feature in shifts.movable.tolist():
        places = _grid(shifts, feature)  # 0 first, then by magnitude
        predictions = _predict(shifts, feature, places)
        missed = goal.miss(predictions)
        best = int(missed.argmin())  # the first, and so the smallest, of equal ones
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
    """On each side of 0 the last place of the grid before the goal is reached first, and that place."""
    sides = []
    for sign in (-1, 1):
        side = np.flatnonzero(places * sign >= 0)
        reached = np.flatnonzero(missed[side] == 0)
        if len(reached):
            first = int(reached[0])
            sides.append((float(places[side[max(first - 1, 0)]]), float(places[side[first]])))
    return sides


def _narrow(shifts: Shifts, goal: Goal, feature: int, side: tuple[float, float]) -> float:
    """The smallest shift between one that misses the goal and one that reaches it, which is reached itself."""
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
