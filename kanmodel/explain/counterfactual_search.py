"""The smallest shift of one feature alone with which the forecast reaches a goal: sampling, then a proof by bounds.

The range of the feature is sampled evenly, then more densely wherever the input of a basis passes its knots quickly, so
that each piece of a spline has samples, and around the samples that come nearest to the goal. Samples are no proof: a
goal that is reached only between two of them is missed. Without a recurrent part, branch and bound (Land and Doig 1960)
then divides the range until each interval of smaller shifts either has a shift that reaches the goal, or has bounds of
its forecasts (`kanmodel.network.bounds`) that do not. Up to `MAX_INTERVALS` are tried; `SingleShift.proven` says
whether that was enough.

Gradient search for the smallest shift of a few features together with which the forecast reaches a goal.

Sequential linear programming: minimise sum_f |z_f| subject to F(z) reaching the goal, where F is replaced by its
tangent within a trust region (Fletcher and Sainz de la Maza 1989, "Nonlinear programming and nonsmooth optimization by
successive linear programming"). With one constraint the linear program is a continuous knapsack problem, solved by
sorting the slopes. All starting points, over many sets of features, are one batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from kanmodel.computing import pause
from kanmodel.data import Array
from kanmodel.explain.shifts import NEARLY_WHOLE, Goal, Shifts

MAX_SETS = 192  # largest number of sets of features that are searched
ITERATIONS = 16
RADIUS = 0.5  # of the first trust region, training standard deviations
LARGEST = 4.0  # largest radius of a trust region


def choose_sets(shifts: Shifts, n_features: int, reach: Array) -> NDArray[np.bool_]:
    """Sets of features that may change together, (n_sets, all features), from those that change the forecast most.

    Args:
        shifts: the possible shifts of one window.
        n_features: number of features in a set.
        reach: how much each feature alone can change the forecast, (all features,).
    """
    movable = shifts.movable
    order = movable[np.argsort(-reach[movable], kind="stable")]
    size = min(n_features, len(order))
    n_taken = len(order)
    while comb(n_taken, size) > MAX_SETS and n_taken > size + 1:
        n_taken -= 1
    chosen = [list(some) for some in combinations(order[:n_taken].tolist(), size)][:MAX_SETS]
    sets = np.zeros((len(chosen), len(reach)), dtype=bool)
    for number, features in enumerate(chosen):
        sets[number, features] = True
    return sets


def descend(
    shifts: Shifts,
    goal: Goal,
    towards: int,
    starts: Array,
    free: NDArray[np.bool_],
) -> Array:
    """Small shifts at or near the border of the goal, one per starting point.

    A step is accepted if it lowers |z| + penalty * (distance to the goal), an exact penalty function. The penalty is
    three times the largest shadow price of the constraint in the linear programs so far.

    Args:
        shifts: the possible shifts of one window.
        goal: the range that the forecast must reach.
        towards: 1 if the forecast must increase to reach it, -1 if it must decrease.
        starts: the starting points, (n, n_features).
        free: which features may change, (n, n_features).

    Returns:
        (n, n_features).
    """
    low, high = np.where(free, shifts.low, 0.0), np.where(free, shifts.high, 0.0)
    place = np.clip(starts, low, high)
    radius, penalty = np.full(len(place), RADIUS), np.zeros(len(place))
    ahead, slopes = _look(shifts, goal, towards, place)
    for _ in range(ITERATIONS):
        step, price = _solve(place, ahead, slopes, radius, low, high)
        penalty = np.maximum(penalty, 3 * price)
        tried = place + step
        tried_ahead, tried_slopes = _look(shifts, goal, towards, tried)
        better = _merit(tried, tried_ahead, penalty) < _merit(place, ahead, penalty)
        radius = np.where(better, np.minimum(radius * 2, LARGEST), radius / 2)
        place = np.where(better[:, None], tried, place)
        ahead = np.where(better, tried_ahead, ahead)
        slopes = np.where(better[:, None], tried_slopes, slopes)
        pause()
    return place


def _look(shifts: Shifts, goal: Goal, towards: int, place: Array) -> tuple[Array, Array]:
    """How far the forecasts are past the border of the goal, (n,), and its gradient, (n, n_features)."""
    predictions, slopes = shifts.predict_with_gradient(place)
    border = goal.low if towards > 0 else goal.high
    return towards * (predictions - border), towards * slopes


def _merit(place: Array, ahead: Array, penalty: Array) -> Array:
    merit: Array = np.abs(place).sum(axis=1) + penalty * np.maximum(-ahead, 0.0)
    return merit


def _solve(place: Array, ahead: Array, slopes: Array, radius: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Solves linear programs: minimise |z + d| subject to ahead + slopes . d >= 0, |d| <= radius, low <= z + d <= high.

    If no step within the bounds is enough, returns the one that gains most.

    Returns:
        d, (n, n_features), and the shadow price of the constraint, (n,): the change of |z + d| per unit of forecast, 0
        where the constraint is not active.
    """
    reach = radius[:, None]
    back = np.clip(-place, -reach, reach)  # to 0 first; what that loses is regained along the steepest slopes
    lowest, highest = np.maximum(-reach, low - place), np.minimum(reach, high - place)
    room = np.where(slopes > 0, highest - back, back - lowest)
    order = np.argsort(-np.abs(slopes), axis=1)
    gains = np.take_along_axis(np.abs(slopes) * room, order, axis=1)
    needed = np.maximum(-(ahead + (slopes * back).sum(axis=1)), 0.0)
    before = np.cumsum(gains, axis=1) - gains
    share = np.clip((needed[:, None] - before) / np.where(gains > 0, gains, np.inf), 0.0, 1.0)
    used = np.empty_like(share)
    np.put_along_axis(used, order, share, axis=1)
    slowest = np.where((used > 0) & (slopes != 0), np.abs(slopes), np.inf).min(axis=1)  # of the slopes in use
    return back + np.sign(slopes) * used * room, 1 / slowest


GRID = 64  # grid points on each side of 0
HALVINGS = 30  # bisection steps
STRIDE = 0.5  # distance between knots that an input of a basis may move between two samples
ROUNDS = 8  # of bisection of the distances between samples
MAX_SAMPLES = 2048
TOLERANCE = 1e-3  # training standard deviations by which a proven shift may be larger than the smallest
MAX_INTERVALS, N_BOUNDED = 4096, 256  # that are bounded for one feature, and at a time
N_ZOOMED, N_ZOOM, ZOOMS = 2, 9, 4  # samples that are zoomed in on, samples of each, rounds


@dataclass(frozen=True)
class SingleShift:
    """Result of shifting one feature alone.

    Attributes:
        feature: number of the feature.
        shift: the smallest found that reaches the goal, training standard deviations; None if no sample reaches it.
        proven: whether bounds of the forecasts prove, up to their rounding, that no shift reaches the goal whose
            magnitude is smaller by more than `TOLERANCE`, or none at all if `shift` is None. If not, only samples stand
            behind it: the network has a recurrent part, or more than `MAX_INTERVALS` were needed. A shift of at most
            `TOLERANCE` needs no bounds.
        best: the sample whose forecast comes nearest to the goal, the smallest of several.
        best_prediction: the forecast at `best`, the target's unit.
        searched: number of samples.
    """

    feature: int
    shift: float | None
    proven: bool
    best: float
    best_prediction: float
    searched: int


def search_single_features(shifts: Shifts, goal: Goal, margin: float) -> list[SingleShift]:
    """Searches for the smallest shift of each feature that can change.

    Args:
        shifts: the possible shifts of one window.
        goal: the range that the forecast must reach.
        margin: how far inside it, and how far outside it for a proof that it is not reached; the target's unit.
    """
    found, wide, goal = [], goal.tighten(-margin), goal.tighten(margin)
    for feature in shifts.movable.tolist():
        places = _refine(shifts, feature, _grid(shifts, feature))
        predictions = _predict(shifts, feature, places)
        if not shifts.integer[feature]:
            places, predictions = _zoom(shifts, goal, feature, places, predictions)
        tried, forecasts, proven = _prove(shifts, goal, wide, feature, np.abs(places[goal.miss(predictions) == 0]))
        places, predictions = np.concatenate([places, tried]), np.concatenate([predictions, forecasts])
        order = np.argsort(np.abs(places), kind="stable")  # 0 first
        places, predictions = places[order], predictions[order]
        missed = goal.miss(predictions)
        best = int(missed.argmin())  # argmin returns the first, which is the smallest shift
        reaching = [_narrow(shifts, goal, feature, side) for side in _sides(places, missed)]
        smallest = min((shift for shift in reaching if shift is not None), key=abs, default=None)
        found.append(SingleShift(feature, smallest, proven, float(places[best]), float(predictions[best]), len(places)))
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


def _prove(shifts: Shifts, goal: Goal, wide: Goal, feature: int, reaching: Array) -> tuple[Array, Array, bool]:
    """Bounds the forecasts of all shifts smaller than the smallest that is known, interval by interval.

    Args:
        shifts: the possible shifts of one window.
        goal: what a forecast must reach.
        wide: what bounds must not reach.
        feature: number of the feature.
        reaching: magnitudes of shifts that reach the goal.

    Returns:
        Shifts that were tried, their forecasts, and whether the intervals are all decided.
    """
    smallest, n_bounded = float(reaching.min(initial=np.inf)), 0
    tried, forecasts = [np.empty(0)], [np.empty(0)]
    intervals = np.array([[shifts.low[feature], 0.0], [0.0, shifts.high[feature]]])
    while True:
        if shifts.integer[feature]:
            units = intervals * shifts.std[feature]
            intervals = np.stack([np.ceil(units[:, 0] - NEARLY_WHOLE), np.floor(units[:, 1] + NEARLY_WHOLE)], axis=1)
            intervals = intervals[intervals[:, 0] <= intervals[:, 1]] / shifts.std[feature]
        near = np.take_along_axis(intervals, np.abs(intervals).argmin(axis=1)[:, None], axis=1)[:, 0]
        smaller = np.abs(near) < smallest - TOLERANCE
        intervals, near = intervals[smaller], near[smaller]
        n_bounded += len(intervals)
        decided = not len(intervals)
        if decided or not shifts.has_bounds or n_bounded > MAX_INTERVALS:
            return np.concatenate(tried), np.concatenate(forecasts), decided
        tried.append(near)
        forecasts.append(_predict(shifts, feature, near))
        smallest = min(smallest, float(np.abs(near[goal.miss(forecasts[-1]) == 0]).min(initial=np.inf)))
        open_ = []
        for part in np.array_split(intervals, -(-len(intervals) // N_BOUNDED)):
            low, high = shifts.bound(*(_only(shifts, feature, ends) for ends in part.T))
            open_.append(part[~((high < wide.low) | (low > wide.high))])  # also where a bound is NaN
            pause()
        low, high = np.concatenate(open_).T
        middle = (low + high) / 2
        intervals = np.stack([np.stack([low, middle]), np.stack([middle, high])], axis=1).T.reshape(-1, 2)


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
