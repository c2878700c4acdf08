"""Counterfactual explanations: the smallest change of a window with which its forecast reaches a goal.

After Wachter, Mittelstadt and Russell 2017 (arXiv 1711.00399). A change adds a constant to each of a few features over
chosen steps; its distance is the L1 norm in training standard deviations. One feature at a time is sampled over its
whole range, and bounded between the samples where the network has no recurrent part; several together are searched by
gradient from many starting points, which is heuristic: a smaller change may exist. The result is checked by a forecast
of the changed window.

Plausibility of a changed window: its distance from the nearest reference window (nearest neighbour).

The distance of two windows is the root mean square difference of their cells, in training standard deviations: 1 if
every cell differs by one. A window that is much farther from its nearest neighbour than reference windows are from
theirs is probably out of distribution.

`Counterfactuals`: the smallest change found of each window for which its forecast reaches a goal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel import html
from kanmodel.checkpoint import LoadedModel
from kanmodel.computing import pause
from kanmodel.data import Array
from kanmodel.errors import DataError
from kanmodel.explain.counterfactual_search import (
    GRID,
    ITERATIONS,
    N_ZOOM,
    N_ZOOMED,
    ZOOMS,
    SingleShift,
    choose_sets,
    descend,
    search_single_features,
)
from kanmodel.explain.result import Result
from kanmodel.explain.shifts import Goal, Shifts
from kanmodel.text import with_unit, write_table


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
class FoundCounterfactual:
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
) -> FoundCounterfactual:
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
) -> FoundCounterfactual:
    """The smallest candidate that reaches the goal, or else the one whose forecast comes nearest to it."""
    missed, distance = goal.miss(shifts.predict(candidates)), np.abs(candidates).sum(axis=1)
    best = int(np.lexsort((distance, missed))[0])
    chosen = candidates[best]
    new = shifts.predict(chosen[None])
    return FoundCounterfactual(
        prediction=prediction,
        reached=bool(goal.miss(new)[0] == 0),
        shifts=shifts.in_original_units(chosen[None])[0],
        new_prediction=float(new[0]),
        distance=float(distance[best]),
        single=single,
        window=shifts.change(chosen[None])[0],
    )


_COLUMNS = ("window", "prediction", "reached", "new_prediction", "distance", "changes")


@dataclass(frozen=True)
class Change:
    """A constant added to a feature at the chosen steps.

    Attributes:
        feature: its name.
        unit: its unit; None if unknown.
        shift: the constant, in that unit.
        shift_in_std: the same in training standard deviations.
    """

    feature: str
    unit: str | None
    shift: float
    shift_in_std: float


@dataclass(frozen=True)
class SingleFeature:
    """The effect of changing one feature alone.

    Its range is sampled. Without a recurrent part, bounds of the forecasts then say what lies between the samples.

    Attributes:
        feature: its name.
        unit: its unit; None if unknown.
        shift: the smallest shift that reaches the goal, in that unit; None if no sample does.
        shift_in_std: the same in training standard deviations.
        proven: true if bounds prove that no shift reaches the goal whose `shift_in_std` is nearer to 0 by more than
            0.001, or none within the range if `shift` is None; up to the rounding of forecasts. False if only samples
            stand behind it, between which the goal may be reached unseen: the network has a recurrent part, or 4,096
            intervals of the range were not enough.
        best_prediction: the sampled forecast nearest to the goal.
        searched: number of samples over its range.
    """

    feature: str
    unit: str | None
    shift: float | None
    shift_in_std: float | None
    proven: bool
    best_prediction: float
    searched: int


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """The smallest change found that makes the forecast of one window reach the goal.

    Attributes:
        prediction: the forecast of the unchanged window, the target's unit.
        reached: whether the goal is reached; if not, the rest describes the change that comes nearest.
        changes: the changed features, by |shift_in_std|; empty if the unchanged forecast reaches the goal.
        new_prediction: the forecast of `window`, as returned by `Model.predict`.
        distance: sum of |shift_in_std|.
        nearest_reference: the reference window nearest to the changed one.
        window: the changed window, (lookback, n_features), original units.
        single_features: the effect of each feature that may change, alone.
    """

    prediction: float
    reached: bool
    changes: tuple[Change, ...]
    new_prediction: float
    distance: float
    nearest_reference: Neighbour
    window: Array
    single_features: tuple[SingleFeature, ...]

    @classmethod
    def of(cls, model: LoadedModel, found: FoundCounterfactual, nearest: Neighbour) -> Counterfactual:
        """The result of the search, by name."""
        features, in_std = model.config.features, found.shifts / model.scaling.feature_scale
        order = [f for f in np.argsort(-np.abs(in_std), kind="stable").tolist() if found.shifts[f]]
        return cls(
            prediction=found.prediction,
            reached=found.reached,
            changes=tuple(
                Change(features[f].name, features[f].unit, float(found.shifts[f]), float(in_std[f])) for f in order
            ),
            new_prediction=found.new_prediction,
            distance=found.distance,
            nearest_reference=nearest,
            window=found.window,
            single_features=tuple(_name(model, single) for single in found.single),
        )


@dataclass(frozen=True, repr=False, eq=False)
class Counterfactuals(Result):
    """A counterfactual for each window.

    Attributes:
        output: name of the output.
        unit: of its forecasts; None if unknown.
        steps: the first and the last step that change; 0 is the newest.
        counterfactuals: in the order of the windows.
    """

    output: str
    unit: str | None
    steps: tuple[int, int]
    counterfactuals: tuple[Counterfactual, ...]

    def __len__(self) -> int:
        return len(self.counterfactuals)

    def __iter__(self) -> Iterator[Counterfactual]:
        return iter(self.counterfactuals)

    def __getitem__(self, window: int) -> Counterfactual:
        return self.counterfactuals[window]

    def table(self) -> list[dict[str, Any]]:
        """A row for each window."""
        return [
            {
                "window": window,
                "prediction": one.prediction,
                "reached": one.reached,
                "new_prediction": one.new_prediction,
                "distance": one.distance,
                "changes": ", ".join(f"{change.feature} {change.shift:+.4g}" for change in one.changes),
                "nearest_reference": one.nearest_reference.index,
                "nearest_distance": one.nearest_reference.distance,
                "typical_distance": one.nearest_reference.typical,
            }
            for window, one in enumerate(self)
        ]

    def _title(self) -> str:
        return f"What would change {with_unit(self.output, self.unit)}"

    def _details(self) -> str:
        alone = [{"window": n, **vars(single)} for n, one in enumerate(self) for single in one.single_features]
        nearest = [*_COLUMNS, "nearest_reference", "nearest_distance", "typical_distance"]
        tables = html.write_heading(self._title()) + html.write_table(self.table(), nearest)
        return tables + (html.fold("One feature alone", html.write_table(alone, list(alone[0]))) if alone else "")

    def __repr__(self) -> str:
        return f"{self._title()}\n{write_table(self.table(), _COLUMNS)}"


def _name(model: LoadedModel, single: SingleShift) -> SingleFeature:
    feature, std = model.config.features[single.feature], float(model.scaling.feature_scale[single.feature])
    shift = None if single.shift is None else single.shift * std
    if shift is not None and feature.integer:
        shift = float(round(shift))
    found = single.shift, single.proven, single.best_prediction, single.searched
    return SingleFeature(feature.name, feature.unit, shift, *found)
