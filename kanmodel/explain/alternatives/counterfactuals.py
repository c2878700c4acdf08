"""Counterfactual explanations: the smallest change of a window with which its forecast reaches a goal.

After Wachter, Mittelstadt and Russell 2017 (arXiv 1711.00399). A change adds a constant to each of a few features over
chosen steps; its distance is the L1 norm in training standard deviations. One feature at a time is sampled over its
whole range, and bounded between the samples where the network has no recurrent part; several together are searched by
gradient from many starting points, which is heuristic: a smaller change may exist. The result is checked by a forecast
of the changed window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel
from kanmodel.computing import pause
from kanmodel.errors import DataError
from kanmodel.explain.alternatives.descent import ITERATIONS, choose_sets, descend
from kanmodel.explain.alternatives.shifts import Goal, Shifts
from kanmodel.explain.alternatives.single_features import (
    GRID,
    N_ZOOM,
    N_ZOOMED,
    ZOOMS,
    SingleShift,
    search_single_features,
)
from kanmodel.scaling import Array

N_SCANNED = 8704  # random shifts scanned for starting points of the gradient search
N_STARTS = 96  # starting points of the gradient search, at most
STRETCH = 2.0  # largest factor by which a scanned shift is extrapolated
UNLIKELY = 1e6  # ranks shifts that would need a larger factor after all others
LARGEST_BATCH = 1024  # forecasts per batch of the scan
NEAR = 0.01  # share of the initial distance to the goal within which a shift counts as reaching it, before polishing
N_POLISHED = 8  # best shifts of the gradient search, which are polished
SCALES = np.linspace(0, 1.5, 25)  # multiples of a shift that polishing tries
HALVINGS = 30
MARGIN = 1e-6  # tightens the goal, output standard deviations: a forecast in another batch may be rounded differently
SEED = 0


@dataclass(frozen=True)
class Counterfactual:
    """The smallest change found with which a forecast reaches a goal.

    Attributes:
        prediction: the forecast of the original window, the target's unit.
        reached: whether the goal is reached.
        shifts: what is added to each feature at the chosen steps, (n_features,), original units; if the goal is not
            reached, the shifts whose forecast comes nearest to it.
        new_prediction: the forecast of `window`.
        distance: L1 norm of the shifts, in training standard deviations.
        single: results of shifting one feature alone.
        window: the changed window, (lookback, n_features), original units.
    """

    prediction: float
    reached: bool
    shifts: Array
    new_prediction: float
    distance: float
    single: tuple[SingleShift, ...]
    window: Array


@dataclass(frozen=True)
class Search:
    """Options of a counterfactual search.

    Attributes:
        features: numbers of the features that may change; None for all.
        steps: the steps that change; None for all.
        max_features: largest number of features that change together, from 1.
        within_training_range: whether changed values stay within the training range, minimum to maximum. A feature
            shifts by at most 10 training standard deviations in any case.

    Raises:
        DataError: `max_features` is below 1.
    """

    features: Sequence[int] | None = None
    steps: slice | None = None
    max_features: int = 2
    within_training_range: bool = True

    def __post_init__(self) -> None:
        if self.max_features < 1:
            raise DataError.at("max_features", f"must be a whole number from 1, but is {self.max_features}")


def count_forecasts(n_features: int, max_features: int) -> int:
    """About how many forecasts a search takes, each gradient counted as two: an estimate of its cost in advance."""
    alone = n_features * (4 * (GRID + 1) + 2 * HALVINGS + N_ZOOMED * N_ZOOM * ZOOMS)
    if min(n_features, max_features) < 2:
        return alone
    together = N_SCANNED + N_STARTS * (3 * (ITERATIONS + 1) + 2)
    return alone + together + 2 * N_POLISHED * (len(SCALES) + HALVINGS)


def find_counterfactual(
    model: LoadedModel,
    window: Array,
    output: int,
    goal: Goal,
    search: Search | None = None,
) -> Counterfactual:
    """Searches for the smallest change of one window with which one of its forecasts reaches a goal.

    Args:
        model: the model.
        window: (lookback, n_features), original units, oldest step first.
        output: number of the output.
        goal: the range that its forecast must reach.
        search: options; None for the defaults.

    Raises:
        DataError: the window does not fit, or a changed value is too large.
        NonFiniteError: a forecast is not finite.
    """
    search = search or Search()
    features = list(range(window.shape[1])) if search.features is None else list(search.features)
    shifts = Shifts(model, window, output, features, search.steps or slice(None), search.within_training_range)
    still = np.zeros((1, window.shape[1]))
    prediction = float(shifts.predict(still)[0])
    margin = MARGIN * float(model.output_std[output])
    aim = goal.tighten(margin)
    single = tuple(search_single_features(shifts, goal, margin))
    candidates = [still, _as_shifts(single, window.shape[1])]
    if search.max_features > 1 and len(single) > 1 and goal.miss(np.array([prediction]))[0] > 0:
        towards = 1 if prediction < goal.low else -1
        found = _search_together(shifts, aim, towards, prediction, single, search.max_features)
        candidates.append(_polish(shifts, aim, found))
    return _choose(shifts, goal, prediction, np.concatenate(candidates), single)


def _as_shifts(single: Sequence[SingleShift], n_features: int) -> Array:
    shifts = np.zeros((len(single), n_features))
    for number, one in enumerate(single):
        shifts[number, one.feature] = one.best if one.shift is None else one.shift
    return shifts


def _search_together(
    shifts: Shifts,
    goal: Goal,
    towards: int,
    prediction: float,
    single: Sequence[SingleShift],
    max_features: int,
) -> Array:
    """Shifts of several features at or near the border of the goal, found from many starting points, best first."""
    reach = np.zeros(len(shifts.low))
    for one in single:
        reach[one.feature] = towards * (one.best_prediction - prediction)
    border = goal.low if towards > 0 else goal.high
    sets = choose_sets(shifts, max_features, reach)
    starts, free = _scan(shifts, sets, lambda found: (border - prediction) / (found - prediction))
    found = np.concatenate([descend(shifts, goal, towards, starts, free), starts])
    missed = goal.miss(shifts.predict(found))
    missed[missed <= NEAR * goal.miss(np.array([prediction]))] = 0
    return found[np.lexsort((np.abs(found).sum(axis=1), missed))]


def _scan(
    shifts: Shifts, sets: NDArray[np.bool_], stretch: Callable[[Array], Array]
) -> tuple[Array, NDArray[np.bool_]]:
    """Starting points of the gradient search, the best of random shifts, which are denser near 0.

    Shifts are ranked by the distance at which they would reach the goal if the forecast changed linearly along them.
    Each of the best sets of features gives equally many shifts per feature that change mostly this feature, since there
    may be a local minimum near each.

    Args:
        shifts: the possible shifts of one window.
        sets: features that may change together, (n_sets, n_features).
        stretch: maps forecasts to the factors by which their shifts would reach the goal by linear extrapolation.

    Returns:
        The shifts, (n, n_features), and which features of each may change.
    """
    n_tried, size = max(1, N_SCANNED // len(sets)), int(sets[0].sum())
    generator = np.random.default_rng(SEED)
    place = generator.uniform(shifts.low, shifts.high, (n_tried, *sets.shape)) * sets
    place *= generator.uniform(size=(n_tried, len(sets), 1))
    forecasts = []
    for batch in np.array_split(place.reshape(-1, sets.shape[1]), -(-n_tried * len(sets) // LARGEST_BATCH)):
        forecasts.append(shifts.predict(batch))
        pause()
    with np.errstate(divide="ignore"):
        factor = stretch(np.concatenate(forecasts)).reshape(n_tried, -1)
    factor = np.where(factor > 0, factor, np.inf)  # infinite if the forecast is constant or moves away from the goal
    distance = np.abs(place).sum(axis=2)
    promised = np.where(factor <= STRETCH, distance * factor, UNLIKELY * factor)
    best = np.argsort(promised.min(axis=0), kind="stable")[: max(1, N_STARTS // size)]
    n_each = max(1, N_STARTS // (size * len(best)))
    largest, starts = np.abs(place).argmax(axis=2), []
    for number in best:
        for feature in np.flatnonzero(sets[number]):
            order = np.argsort(np.where(largest[:, number] == feature, promised[:, number], np.inf), kind="stable")
            starts.append(place[order[:n_each], number])
    found = np.concatenate(starts)[:N_STARTS]
    return found, np.repeat(sets[best], size * n_each, axis=0)[:N_STARTS]


def _polish(shifts: Shifts, goal: Goal, found: Array) -> Array:
    """Scales shifts to about the smallest multiple that reaches the goal, (n, n_features); rounds integer features."""
    rounded = np.concatenate([shifts.round_integers(shift) for shift in found[:N_POLISHED]])
    whole, rest = np.where(shifts.integer, rounded, 0.0), np.where(shifts.integer, 0.0, rounded)

    def scale(factors: Array) -> Array:
        return np.clip(whole + factors[:, None] * rest, shifts.low, shifts.high)

    scaled = np.stack([scale(np.full(len(rounded), factor)) for factor in SCALES])
    reached = goal.miss(shifts.predict(scaled.reshape(-1, rounded.shape[1]))).reshape(len(SCALES), -1) == 0
    first = np.where(reached.any(axis=0), reached.argmax(axis=0), len(SCALES) - 1)
    missing, reaching = SCALES[np.maximum(first - 1, 0)], SCALES[first]
    for _ in range(HALVINGS):
        middle = (missing + reaching) / 2
        good = goal.miss(shifts.predict(scale(middle))) == 0
        missing, reaching = np.where(good, missing, middle), np.where(good, middle, reaching)
    return scale(reaching)


def _choose(
    shifts: Shifts, goal: Goal, prediction: float, candidates: Array, single: tuple[SingleShift, ...]
) -> Counterfactual:
    """The smallest candidate that reaches the goal, or else the one whose forecast comes nearest to it."""
    missed, distance = goal.miss(shifts.predict(candidates)), np.abs(candidates).sum(axis=1)
    best = int(np.lexsort((distance, missed))[0])
    chosen = candidates[best]
    new = shifts.predict(chosen[None])
    return Counterfactual(
        prediction=prediction,
        reached=bool(goal.miss(new)[0] == 0),
        shifts=shifts.in_original_units(chosen[None])[0],
        new_prediction=float(new[0]),
        distance=float(distance[best]),
        single=single,
        window=shifts.change(chosen[None])[0],
    )
