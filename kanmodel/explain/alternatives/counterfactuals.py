"""What must change for a forecast to become another.

Counterfactual explanations (Wachter, Mittelstadt and Russell 2017, arXiv 1711.00399) of one window: constant shifts of
a few features over chosen steps, the smallest in training standard deviations, L1. One feature at a time is searched
exhaustively; a few together are searched by gradient, from many starts, so that a smaller change may exist. Every
answer is checked by a forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import DataError
from kanmodel.explain.alternatives.descent import ITERATIONS, choose_sets, descend
from kanmodel.explain.alternatives.shifts import Goal, Shifts
from kanmodel.explain.alternatives.single_features import GRID, SingleShift, search_single_features
from kanmodel.pausing import Pause, go_on
from kanmodel.scaling import Array

N_SCANNED = 8704  # random shifts from which gradients set out
N_STARTS = 96  # of them
STRETCH = 2.0  # of a scanned shift, up to which its distance is extrapolated
UNLIKELY = 1e6  # standard deviations, of shifts that would have to be longer than that
LARGEST_BATCH = 1024  # forecasts at once
NEAR = 0.01  # of what is missing: what a shift may still miss to be polished first
N_POLISHED = 8  # of the shifts found by gradient
SCALES = np.linspace(0, 1.5, 25)  # of a shift, where its ray is searched
HALVINGS = 30
MARGIN = 1e-6  # of an output's standard deviation: a forecast in another batch may differ by its rounding
SEED = 0


@dataclass(frozen=True)
class Counterfactual:
    """The smallest change found that makes a forecast reach a goal.

    Attributes:
        prediction: the forecast of the window as it is, the target's unit.
        reached: whether the goal is reached.
        shifts: what is added to each feature at the chosen steps, (n_features,), original units; where the goal is not
            reached, those whose forecast misses it by least.
        new_prediction: the forecast of `window`.
        distance: sum of |shift| in training standard deviations.
        single: what each feature can do alone.
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
    """What may change.

    Attributes:
        features: numbers of the features that may change; None for all.
        steps: the steps that change; None for all.
        max_features: how many may change together, from 1.
        within_training_range: whether changed values keep within the smallest and the largest of training; else a
            feature shifts by at most 10 standard deviations.

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
    """How many forecasts a search takes at most, its gradients counted as two each: the work, before it is done."""
    alone = n_features * 2 * (GRID + 1 + HALVINGS)
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
    pause: Pause = go_on,
) -> Counterfactual:
    """The smallest change of one window that makes one of its forecasts reach a goal.

    Args:
        model: the model.
        window: (lookback, n_features), original units, oldest step first.
        output: number of the output.
        goal: where its forecast shall lie.
        search: what may change.
        pause: called between batches of forecasts.

    Raises:
        DataError: the window does not fit, or a changed value is too large.
        NonFiniteError: a forecast is not finite.
    """
    search = search or Search()
    features = list(range(window.shape[1])) if search.features is None else list(search.features)
    shifts = Shifts(model, window, output, features, search.steps or slice(None), search.within_training_range)
    still = np.zeros((1, window.shape[1]))
    prediction = float(shifts.predict(still)[0])
    aim = goal.tighten(MARGIN * float(model.output_std[output]))
    single = tuple(search_single_features(shifts, aim, pause))
    candidates = [still, _as_shifts(single, window.shape[1])]
    if search.max_features > 1 and len(single) > 1 and goal.miss(np.array([prediction]))[0] > 0:
        towards = 1 if prediction < goal.low else -1
        found = _search_together(shifts, aim, towards, prediction, single, search.max_features, pause)
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
    pause: Pause,
) -> Array:
    """Shifts of several features near the border of the goal: those found from many starts, best first."""
    reach = np.zeros(len(shifts.low))
    for one in single:
        reach[one.feature] = towards * (one.best_prediction - prediction)
    border = goal.low if towards > 0 else goal.high
    sets = choose_sets(shifts, max_features, reach)
    starts, free = _scan(shifts, sets, lambda found: (border - prediction) / (found - prediction), pause)
    found = np.concatenate([descend(shifts, goal, towards, starts, free, pause), starts])
    missed = goal.miss(shifts.predict(found))
    missed[missed <= NEAR * goal.miss(np.array([prediction]))] = 0
    return found[np.lexsort((np.abs(found).sum(axis=1), missed))]


def _scan(
    shifts: Shifts, sets: NDArray[np.bool_], stretch: Callable[[Array], Array], pause: Pause
) -> tuple[Array, NDArray[np.bool_]]:
    """Starts of descents: the most promising of random shifts, which are denser near 0.

    A shift promises the distance at which the goal would be reached if the forecast changed in proportion. Of the sets
    that promise most, each gives as many shifts that change mostly one of its features as mostly another, as there
    may be a smallest change near each.

    Args:
        shifts: of one window.
        sets: features that may change together, (n_sets, n_features).
        stretch: by forecasts, the factor by which a shift would have to be scaled to reach the goal so.
        pause: called between batches of forecasts.

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
    factor = np.where(factor > 0, factor, np.inf)  # none where the forecast does not change, or away from the goal
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
    """The smallest multiple of each shift that reaches the goal, (n, n_features); those of whole numbers stay."""
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
    """The smallest candidate that reaches the goal, or else the one that misses by least."""
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
