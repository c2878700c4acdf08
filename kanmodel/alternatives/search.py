"""The search for the smallest shift with which a forecast reaches a goal, of one feature alone and of several together.

**One feature.** Its range is sampled evenly, more densely where the input of a basis passes its knots quickly, so that
each piece of a spline has samples, and around the samples nearest to the goal. What happens between two is missed.

**Several features** by sequential linear programming: minimise sum_f |z_f| subject to F(z) reaching the goal, where F
is replaced by its tangent within a trust region (Fletcher and Sainz de la Maza 1989, "Nonlinear programming and
nonsmooth optimization by successive linear programming"). With one constraint the linear program is a continuous
knapsack problem, solved by sorting the slopes. All starting points, over many sets of features, are one batch, which
no solver of scipy takes. The search is heuristic: a smaller change may exist.

**Columns of levels** have no slope: levels are set at the chosen steps, alone and together, and shifts of features are
searched beside the best of these settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product
from math import comb, prod

import numpy as np
from numpy.typing import NDArray

from kanmodel.alternatives.changeable import Goal, Levels, SearchOptions, ShiftableWindow, find_changeable, find_rows
from kanmodel.arrays import Array
from kanmodel.computing import pause, progress_share, tracked
from kanmodel.forecaster import Forecaster

HALVINGS = 30  # bisection steps
GRID = 64  # grid points on each side of 0
STRIDE = 0.5  # distance between knots that an input of a basis may move between two samples
ROUNDS = 8  # of bisection of the distances between samples
MAX_SAMPLES = 2048
N_ZOOMED, N_ZOOM, ZOOMS = 2, 9, 4  # samples that are zoomed in on, samples of each, rounds
MAX_SETS = 192  # largest number of sets of features that are searched
N_SCANNED = 8704  # random shifts scanned for starting points
LARGEST_BATCH = 1024  # forecasts per batch of the scan
STRETCH = 2.0  # largest factor by which a scanned shift is extrapolated
UNLIKELY = 1e6  # ranks shifts that would need a larger factor after all others
N_STARTS = 96  # starting points, at most
ITERATIONS = 16
RADIUS, LARGEST = 0.5, 4.0  # of the first trust region and of the largest, training standard deviations
NEAR = 0.01  # share of the initial distance to the goal within which a shift counts as reaching it, before polishing
N_POLISHED = 8  # best shifts, which are polished
SCALES = np.linspace(0, 1.5, 25)  # multiples of a shift that polishing tries
SEED = 0
SAME = 1e-5  # of a level's features: a difference that is rounding
MAX_SETTINGS = 1024  # of levels that are tried
N_SETTINGS = 3  # best of them, beside which features shift


def count_forecasts(n_features: int, max_features: int, columns: Sequence[Levels] = ()) -> int:
    """About how many forecasts a search takes, each gradient counted as two: an estimate of its cost in advance."""
    n_settings = min(MAX_SETTINGS, prod(1 + len(column.chosen) for column in columns) - 1)
    n_searches, alone = 1 + min(N_SETTINGS, n_settings), 4 * (GRID + 1) + 2 * HALVINGS + N_ZOOMED * N_ZOOM * ZOOMS
    together = N_SCANNED + N_STARTS * (3 * (ITERATIONS + 1) + 2) + 2 * N_POLISHED * (len(SCALES) + HALVINGS)
    together = 0 if min(n_features, max_features) < 2 else together
    return n_settings + n_searches * (n_features * alone + together)


@dataclass(frozen=True)
class SingleFeature:
    """The effect of changing one feature alone, by sampling its range.

    Attributes:
        feature: name of the input, with a level that is set, such as ``daytype=holiday``.
        label: the same for people: ``daytype holiday``.
        unit: its unit; None if unknown.
        shift: the smallest shift that reaches the goal, in that unit; None if no sample does. Of a level 1 where it is
            set, and 0 where the goal is reached without.
        shift_in_std: the same in training standard deviations; of a level the sum over its features.
        best_prediction: the sampled forecast nearest to the goal.
        searched: number of samples over its range; the goal may be reached unseen between two.
    """

    feature: str
    label: str
    unit: str | None
    shift: float | None
    shift_in_std: float | None
    best_prediction: float
    searched: int


@dataclass(frozen=True, eq=False)
class Setting:
    """A window with levels set at the chosen steps, at most one of each column."""

    levels: tuple[tuple[Levels, int], ...]  # inputs with the places of their levels; empty for the window as it is
    window: Array  # the changed window, (lookback, n_features), original units
    change: Array  # mean magnitude of each feature's change at these steps, with the sign of their mean, (n_features,)


def list_settings(model: Forecaster, window: Array, search: SearchOptions) -> list[Setting]:
    """The settings of a window, itself first, then those of one column, of two and so on, up to `MAX_SETTINGS`.

    Levels that the steps have already, or that no row of training has, are not among them.
    """
    rows, (_, columns) = find_rows(model.config, search.steps), find_changeable(model, search.features)

    def is_new(column: Levels, level: int) -> bool:
        of = column.input
        is_known = of.kind != "level" or model.feature_high[of.numbers[level]] >= 1
        return bool(is_known and (np.abs(column.set(window, rows, level) - window) > SAME).any())

    options = [[(column, level) for level in column.chosen if is_new(column, level)] for column in columns]
    sizes = range(1, 1 + min(search.max_features, len(columns)))
    sets = (each for size in sizes for some in combinations(options, size) for each in product(*some))
    found = [Setting((), window, np.zeros(len(model.features)))]
    for chosen in islice(sets, MAX_SETTINGS):
        changed = window
        for column, level in chosen:
            changed = column.set(changed, rows, level)
        moves = (changed - window)[rows]  # of a cycle such as the hour up at some steps and down at others
        found.append(Setting(tuple(chosen), changed, np.copysign(np.abs(moves).mean(axis=0), moves.mean(axis=0))))
    return found


def describe_level(model: Forecaster, setting: Setting, goal: Goal, predictions: tuple[float, float]) -> SingleFeature:
    """The effect of a setting of one level, from the forecasts of the window as it is and of the changed one."""
    ((of, level),), missed = setting.levels, goal.miss(np.array(predictions))
    moved = float(np.abs(setting.change / model.scaling.feature_scale).sum())
    in_std = None if missed.all() else moved if missed[0] else 0.0
    shift = None if in_std is None else float(in_std > 0)
    name, best = of.input.name, predictions[int(missed.argmin())]
    label = f"{of.input.label} {of.input.levels[level]}"
    return SingleFeature(f"{name}={of.input.levels[level]}", label, None, shift, in_std, best, len(predictions))


def search_shifts(
    window: ShiftableWindow, goal: Goal, tight: Goal, most: int
) -> tuple[dict[int, SingleFeature], Array]:
    """The effect of each feature alone, by its number, and the best shifts found, (n, n_features), the first of 0.

    The forecasts reach the tight goal, which has a margin; at most so many features change together.
    """
    still = np.zeros((1, len(window.std)))
    prediction = float(window.predict(still)[0])
    with progress_share(0.5):
        alone = [FeatureSearch(window, tight, feature).run() for feature in tracked(window.movable)]
    singles, places = [single for single, _ in alone], np.array([place for _, place in alone])
    candidates = [still, np.eye(len(window.std))[window.movable] * places[:, None]]
    if most > 1 and len(alone) > 1 and not goal.low <= prediction <= goal.high:
        best_alone = np.array([single.best_prediction for single in singles])
        candidates.append(JointSearch(window, tight, prediction).run(most, best_alone))
    return dict(zip(window.movable.tolist(), singles, strict=True)), np.concatenate(candidates)


def _bisect(
    reaches: Callable[[Array], NDArray[np.bool_]],
    missing: Array,
    reaching: Array,
    rounded: Callable[[Array], Array] = np.asarray,
) -> Array:
    """Halves the distance from numbers that miss the goal to others that reach it; returns numbers that do, (n,)."""
    for _ in range(HALVINGS):
        middle = rounded((missing + reaching) / 2)
        if ((middle == missing) | (middle == reaching)).all():
            break
        good = reaches(middle)
        missing, reaching = np.where(good, missing, middle), np.where(good, middle, reaching)
    return reaching


class FeatureSearch:
    """The search over the shifts of one feature alone: places, in training standard deviations."""

    def __init__(self, window: ShiftableWindow, goal: Goal, feature: int) -> None:
        self._window, self._goal, self._feature = window, goal, feature
        self._low, self._high, self._std = window.low[feature], window.high[feature], window.std[feature]
        self._is_whole = bool(window.integer[feature])

    def run(self) -> tuple[SingleFeature, float]:
        """The result, and its shift, or else the one whose forecast comes nearest to the goal, standard deviations."""
        grid = np.concatenate([np.linspace(0, self._low, GRID + 1), np.linspace(0, self._high, GRID + 1)])
        places = self._refine(np.unique(self._round(grid)))
        predictions = self._predict(places)
        if not self._is_whole:
            places, predictions = self._zoom(places, predictions)
        order = np.argsort(np.abs(places), kind="stable")  # 0 first
        places, missed = places[order], self._goal.miss(predictions[order])
        reaching = []
        for side in (places <= 0, places >= 0):
            of_side, reached = places[side], missed[side] == 0
            if reached.any():  # bisect between the first that does and the one before it
                first = int(reached.argmax())
                before = of_side[[max(first - 1, 0)]]
                reaching.append(float(_bisect(self._reaches, before, of_side[[first]], self._round)[0]))
        in_std = min(reaching, key=abs, default=None)
        shift = None if in_std is None else in_std * float(self._std)
        if shift is not None and self._is_whole:
            shift = float(round(shift))
        column, best = self._window.columns[self._feature], int(missed.argmin())  # the smallest shift of several
        forecast = float(predictions[order][best])
        of = self._window.inputs.of_feature[column.name]
        found = SingleFeature(of.name, of.label, column.unit, shift, in_std, forecast, len(places))
        return found, float(places[best]) if in_std is None else in_std

    def _only(self, places: Array) -> Array:
        """Shifts of this feature alone, (n,) -> (n, n_features)."""
        moved = np.zeros((len(places), len(self._window.std)))
        moved[:, self._feature] = places
        return moved

    def _predict(self, places: Array) -> Array:
        return self._window.predict(self._only(places))

    def _reaches(self, places: Array) -> NDArray[np.bool_]:
        return self._goal.is_reached(self._predict(places))

    def _round(self, places: Array) -> Array:
        """The nearest whole numbers of an integer feature's unit."""
        return np.round(places * self._std) / self._std if self._is_whole else places

    def _refine(self, places: Array) -> Array:
        """Adds samples until no input of a basis moves farther than `STRIDE` between two, up to `MAX_SAMPLES`."""
        positions = self._window.measure_positions(self._only(places))
        for _ in range(ROUNDS):
            moves = np.abs(np.diff(positions, axis=0)).max(axis=1, initial=0.0)
            most = np.sort(np.argsort(-moves, kind="stable")[: MAX_SAMPLES - len(places)])
            between = most[moves[most] > STRIDE]
            added = self._round((places[between] + places[between + 1]) / 2)
            new = ~np.isin(added, places)
            between, added = between[new], added[new]
            if not len(added):
                break
            places = np.insert(places, between + 1, added)
            positions = np.insert(positions, between + 1, self._window.measure_positions(self._only(added)), axis=0)
        return places

    def _zoom(self, places: Array, predictions: Array) -> tuple[Array, Array]:
        """Adds samples around those that come nearest to the goal without reaching it; ascending."""
        for _ in range(ZOOMS):
            missed = self._goal.miss(predictions)
            bounded = np.concatenate([[np.inf], missed, [np.inf]])
            lowest = np.flatnonzero((missed > 0) & (missed < bounded[:-2]) & (missed <= bounded[2:]))
            lowest = lowest[np.argsort(missed[lowest], kind="stable")][:N_ZOOMED]
            before, after = places[np.maximum(lowest - 1, 0)], places[np.minimum(lowest + 1, len(places) - 1)]
            added = np.setdiff1d(np.linspace(before, after, N_ZOOM), places)
            if not len(added):
                break
            where = np.searchsorted(places, added)
            predictions = np.insert(predictions, where, self._predict(added))
            places = np.insert(places, where, added)
        return places, predictions


class JointSearch:
    """The search over shifts of several features together, for a goal that the forecast without a shift misses."""

    def __init__(self, window: ShiftableWindow, goal: Goal, prediction: float) -> None:
        self._window, self._goal, self._prediction = window, goal, prediction
        self._towards = 1 if prediction < goal.low else -1  # whether the forecast must increase or decrease
        self._border = goal.low if prediction < goal.low else goal.high

    def run(self, max_features: int, best_alone: Array) -> Array:
        """The best shifts found, (n, n_features), polished, of at most so many features; some may miss the goal.

        `best_alone` is the forecast nearest to the goal that each movable feature reaches alone, (n_movable,).
        """
        starts, free = self._scan(self._choose_sets(max_features, self._towards * (best_alone - self._prediction)))
        found = np.concatenate([self._descend(starts, free), starts])
        missed = self._goal.miss(self._window.predict(found))
        missed[missed <= NEAR * self._goal.miss(np.array([self._prediction]))] = 0
        return self._polish(found[np.lexsort((np.abs(found).sum(axis=1), missed))][:N_POLISHED])

    def _choose_sets(self, n_features: int, reach: Array) -> NDArray[np.bool_]:
        """Sets of features that may change together, (n_sets, all features), of those with the largest reach."""
        order = self._window.movable[np.argsort(-reach, kind="stable")]
        size, n_taken = min(n_features, len(order)), len(order)
        while comb(n_taken, size) > MAX_SETS and n_taken > size + 1:
            n_taken -= 1
        chosen = np.array(list(combinations(order[:n_taken], size))[:MAX_SETS])
        sets = np.zeros((len(chosen), len(self._window.low)), dtype=bool)
        np.put_along_axis(sets, chosen, True, axis=1)
        return sets

    def _scan(self, sets: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
        """Starting points, the best of random shifts, which are denser near 0; and which features of each may change.

        Shifts are ranked by the distance at which they would reach the goal if the forecast changed linearly along
        them. Each of the best sets of features gives equally many shifts per feature that change mostly this feature,
        since there may be a local minimum near each. Both results are (n, n_features).
        """
        low, high = self._window.low, self._window.high
        n_tried, size = max(1, N_SCANNED // len(sets)), int(sets[0].sum())
        generator = np.random.default_rng(SEED)
        place = generator.uniform(low, high, (n_tried, *sets.shape)) * sets
        place *= generator.uniform(size=(n_tried, len(sets), 1))
        forecasts = []
        for batch in np.array_split(place.reshape(-1, sets.shape[1]), -(-n_tried * len(sets) // LARGEST_BATCH)):
            forecasts.append(self._window.predict(batch))
            pause()
        with np.errstate(divide="ignore"):
            factor = (self._border - self._prediction) / (np.concatenate(forecasts) - self._prediction)
        factor = np.where(factor > 0, factor, np.inf)  # it is constant, or moves away from the goal
        factor = factor.reshape(n_tried, -1)
        promised = np.where(factor <= STRETCH, np.abs(place).sum(axis=2) * factor, UNLIKELY * factor)
        best = np.argsort(promised.min(axis=0), kind="stable")[: max(1, N_STARTS // size)]
        n_each = max(1, N_STARTS // (size * len(best)))
        largest, starts = np.abs(place).argmax(axis=2), []
        for number in best:
            for feature in np.flatnonzero(sets[number]):
                order = np.argsort(np.where(largest[:, number] == feature, promised[:, number], np.inf), kind="stable")
                starts.append(place[order[:n_each], number])
        return np.concatenate(starts)[:N_STARTS], np.repeat(sets[best], size * n_each, axis=0)[:N_STARTS]

    def _descend(self, starts: Array, free: NDArray[np.bool_]) -> Array:
        """Small shifts at or near the border of the goal, one per starting point; all arrays (n, n_features).

        A step is accepted if it lowers |z| + penalty * (distance to the goal), an exact penalty function. The penalty
        is three times the largest shadow price of the constraint in the linear programs so far.
        """
        low, high = np.where(free, self._window.low, 0.0), np.where(free, self._window.high, 0.0)
        place = np.clip(starts, low, high)
        radius, penalty = np.full(len(place), RADIUS), np.zeros(len(place))
        ahead, slopes = self._look(place)
        for _ in range(ITERATIONS):
            step, price = _solve(place, ahead, slopes, radius, low, high)
            penalty = np.maximum(penalty, 3 * price)
            tried = place + step
            tried_ahead, tried_slopes = self._look(tried)
            distances, missed = np.abs([place, tried]).sum(axis=2), np.maximum(-np.stack([ahead, tried_ahead]), 0.0)
            before, after = distances + penalty * missed
            better = after < before
            radius = np.where(better, np.minimum(radius * 2, LARGEST), radius / 2)
            place, slopes = np.where(better[:, None], (tried, tried_slopes), (place, slopes))
            ahead = np.where(better, tried_ahead, ahead)
            pause()
        return place

    def _look(self, place: Array) -> tuple[Array, Array]:
        """How far the forecasts are past the border of the goal, (n,), and its gradient, (n, n_features)."""
        predictions, slopes = self._window.predict_with_gradient(place)
        return self._towards * (predictions - self._border), self._towards * slopes

    def _polish(self, found: Array) -> Array:
        """Scales shifts to about the smallest multiple that reaches the goal, (n, n_features); rounds integers."""
        window = self._window
        rounded = np.concatenate([window.round_integers(shift) for shift in found])
        whole, rest = np.where(window.integer, rounded, 0.0), np.where(window.integer, 0.0, rounded)

        def scale(factors: Array) -> Array:
            return np.clip(whole + factors[..., None] * rest, window.low, window.high)

        def reaches(factors: Array) -> NDArray[np.bool_]:
            forecasts = window.predict(scale(factors).reshape(-1, len(window.low)))
            return self._goal.is_reached(forecasts).reshape(factors.shape)

        reached = reaches(np.repeat(SCALES[:, None], len(rounded), axis=1))
        first = np.where(reached.any(axis=0), reached.argmax(axis=0), len(SCALES) - 1)
        return scale(_bisect(reaches, SCALES[np.maximum(first - 1, 0)], SCALES[first]))


def _solve(place: Array, ahead: Array, slopes: Array, radius: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Solves linear programs: minimise |z + d| subject to ahead + slopes . d >= 0, |d| <= radius, low <= z + d <= high.

    Returns d, (n, n_features), or the step that gains most if none within the bounds is enough; and the shadow price of
    the constraint, (n,): the change of |z + d| per unit of forecast, 0 where the constraint is not active.
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
