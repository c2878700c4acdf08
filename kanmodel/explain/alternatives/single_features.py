"""The smallest shift of one feature alone with which the forecast reaches a goal: sampling, refined by bisection.

The range of the feature is sampled evenly, then more densely wherever the input of a basis passes its knots quickly, so
that each piece of a spline has samples, and around the samples that come nearest to the goal. It is no proof: a goal
that is reached only between two neighbouring samples is missed; `SingleShift.searched` states how many there were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kanmodel.explain.alternatives.shifts import Goal, Shifts
from kanmodel.pausing import Pause, go_on
from kanmodel.scaling import Array

GRID = 64  # grid points on each side of 0
HALVINGS = 30  # bisection steps
STRIDE = 0.5  # distance between knots that an input of a basis may move between two samples
ROUNDS = 8  # of bisection of the distances between samples
MAX_SAMPLES = 2048
N_ZOOMED, N_ZOOM, ZOOMS = 2, 9, 4  # samples that are zoomed in on, samples of each, rounds


@dataclass(frozen=True)
class SingleShift:
    """Result of shifting one feature alone.

    Attributes:
        feature: number of the feature.
        shift: the smallest found that reaches the goal, training standard deviations; None if no sample reaches it.
        best: the sample whose forecast comes nearest to the goal, the smallest of several.
        best_prediction: the forecast at `best`, the target's unit.
        searched: number of samples.
    """

    feature: int
    shift: float | None
    best: float
    best_prediction: float
    searched: int


def search_single_features(shifts: Shifts, goal: Goal, pause: Pause = go_on) -> list[SingleShift]:
    """Searches for the smallest shift of each feature that can change.

    Args:
        shifts: the possible shifts of one window.
        goal: the range that the forecast must reach.
        pause: called between batches of forecasts.
    """
    found = []
    for feature in shifts.movable.tolist():
        places = _refine(shifts, feature, _grid(shifts, feature))
        predictions = _predict(shifts, feature, places)
        if not shifts.integer[feature]:
            places, predictions = _zoom(shifts, goal, feature, places, predictions)
        order = np.argsort(np.abs(places), kind="stable")  # 0 first
        places, predictions = places[order], predictions[order]
        missed = goal.miss(predictions)
        best = int(missed.argmin())  # argmin returns the first, which is the smallest shift
        reaching = [_narrow(shifts, goal, feature, side) for side in _sides(places, missed)]
        smallest = min((shift for shift in reaching if shift is not None), key=abs, default=None)
        found.append(SingleShift(feature, smallest, float(places[best]), float(predictions[best]), len(places)))
        pause()
    return found


def _grid(shifts: Shifts, feature: int) -> Array:
    low, high, std = shifts.low[feature], shifts.high[feature], shifts.std[feature]
    places = np.concatenate([np.linspace(0, low, GRID + 1), np.linspace(0, high, GRID + 1)])
    if shifts.integer[feature]:
        places = np.round(places * std) / std
    return np.unique(places)


def _refine(shifts: Shifts, feature: int, places: Array) -> Array:
    """Adds samples until no input of a basis moves farther than `STRIDE` between two, up to `MAX_SAMPLES`."""
    positions = shifts.measure_positions(_only(shifts, feature, places))
    for _ in range(ROUNDS):
        moves = np.abs(np.diff(positions, axis=0)).max(axis=1, initial=0.0)
        most = np.sort(np.argsort(-moves, kind="stable")[: MAX_SAMPLES - len(places)])
        between = most[moves[most] > STRIDE]
        added = (places[between] + places[between + 1]) / 2
        if shifts.integer[feature]:
            added = np.round(added * shifts.std[feature]) / shifts.std[feature]
            new = ~np.isin(added, places)
            between, added = between[new], added[new]
        if not len(added):
            break
        places = np.insert(places, between + 1, added)
        more = shifts.measure_positions(_only(shifts, feature, added))
        positions = np.insert(positions, between + 1, more, axis=0)
    return places


def _zoom(shifts: Shifts, goal: Goal, feature: int, places: Array, predictions: Array) -> tuple[Array, Array]:
    """Adds samples around those that come nearest to the goal without reaching it; ascending."""
    for _ in range(ZOOMS):
        missed = goal.miss(predictions)
        bounded = np.concatenate([[np.inf], missed, [np.inf]])
        lowest = np.flatnonzero((missed > 0) & (missed < bounded[:-2]) & (missed <= bounded[2:]))
        lowest = lowest[np.argsort(missed[lowest], kind="stable")][:N_ZOOMED]
        ends = zip(places[np.maximum(lowest - 1, 0)], places[np.minimum(lowest + 1, len(places) - 1)], strict=True)
        added = np.setdiff1d(np.concatenate([np.linspace(*pair, N_ZOOM) for pair in ends] or [places[:0]]), places)
        if not len(added):
            break
        where = np.searchsorted(places, added)
        predictions = np.insert(predictions, where, _predict(shifts, feature, added))
        places = np.insert(places, where, added)
    return places, predictions


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
    return shifts.predict(_only(shifts, feature, places))


def _only(shifts: Shifts, feature: int, places: Array) -> Array:
    moved = np.zeros((len(places), len(shifts.std)))
    moved[:, feature] = places
    return moved
