"""Gradient search for the smallest shift of a few features together with which the forecast reaches a goal.

Sequential linear programming: minimise sum_f |z_f| subject to F(z) reaching the goal, where F is replaced by its
tangent within a trust region (Fletcher and Sainz de la Maza 1989, "Nonlinear programming and nonsmooth optimization by
successive linear programming"). With one constraint the linear program is a continuous knapsack problem, solved by
sorting the slopes. All starting points, over many sets of features, are one batch.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from kanmodel.computing import pause
from kanmodel.explain.alternatives.shifts import Goal, Shifts
from kanmodel.scaling import Array

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
