"""Trust: how unlike the reference windows a window is, by what, and whether what holds for them can be relied on.

The distance of a window is the root mean square difference from its nearest reference window, in training standard
deviations. Its square is a sum over features and steps, of which each has a share. Errors grow with this distance (area
of applicability: Meyer and Pebesma 2021, arXiv 2005.07939).

A distance is ranked among those of the reference windows, each from the nearest one of another block: they come from
blocks of neighbouring windows, and a new window has no neighbours among them. The rank is a conformal p-value (Bates et
al. 2023, arXiv 2104.08279): of windows that are exchangeable with the reference windows, in blocks of their own, at
most a share a has a p-value of a or below. If the reference windows are of one block or their times unknown, as of many
imports, only those that overlap are left out; a p-value is then a rank among windows with neighbours, and more new
windows than that share are called unusual. How far values are outside the training range is ranked likewise, since a
few of the reference windows may exceed it a little, as the day of the year does at its turn.

Where both are usual, there is no evidence against exchangeability, on which the coverage of conformal intervals rests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.attribution.ledger import sum_groups
from kanmodel.attribution.profiles import N_READ, Lags, find_lags
from kanmodel.computing import tracked
from kanmodel.errors import DataError, InsufficientReferenceError
from kanmodel.forecaster import NO_SCALING, Forecaster
from kanmodel.network.intervals import forecasts_of
from kanmodel.result import ModelResult, Table, name_window
from kanmodel.tables.inputs import ROUNDING
from kanmodel.tables.instants import read_instants
from kanmodel.tables.skill import Skill
from kanmodel.tables.statistics.errors import covered
from kanmodel.text import write_figure

TrustVerdict = Literal["usual", "unusual", "outside", "unknown"]
LEVEL = 0.01  # p-value up to which a window is not usual
NEGLIGIBLE = 0.1  # of a standard deviation, outside the training range
CHUNK = 512  # windows whose distances are computed together
LARGEST = 1e100  # a difference, standard deviations, whose square is finite
TIES = 1e-12  # relative rounding of a square distance
TINY = 1e-300
N_THIRDS = 3  # of the reference windows, by distance, that have errors of their own
DOUBT = "the coverage of intervals is not guaranteed here"
N_APART = 4  # median distances of neighbouring reference windows, beyond which a block ends


@dataclass(frozen=True)
class Neighbour:
    """The reference window nearest to a window.

    Attributes:
        index: its number, from 0; of equally near ones the first.
        distance: root mean square difference of the cells, in training standard deviations; of a feature whose
            training is unknown, in those of the reference windows, and of one that did not vary, in its own unit.
        typical: median distance of the reference windows from the nearest of another block; None if they all overlap.
    """

    index: int
    distance: float
    typical: float | None


@dataclass(frozen=True)
class Outside:
    """The values of a feature outside its training range.

    Attributes:
        feature: its name.
        label: of its input, and the level of one that has levels: ``daytype strike``.
        unit: of its values; None if unknown.
        steps: the steps at which they are, 0 the newest, ascending.
        value: the one farthest outside.
        low: smallest training value; None if unknown.
        high: largest training value; None if unknown.
        excess: how far outside it is, training standard deviations.
    """

    feature: str
    label: str
    unit: str | None
    steps: tuple[int, ...]
    value: float
    low: float | None
    high: float | None
    excess: float

    def __str__(self) -> str:
        above = self.high is not None and self.value > self.high
        limit = write_figure((self.high if above else self.low) or 0.0) + (f" {self.unit}" if self.unit else "")
        beyond = "above its training maximum" if above else "below its training minimum"
        return f"{self.label} {beyond} of {limit} by {self.excess:.2g} standard deviations"


@dataclass(frozen=True, eq=False)
class WindowTrust:
    """How far the forecast of one window can be relied on.

    Attributes:
        skill: of the model, whatever the window: forecasts and reasons of a ``red`` one are not to be relied on.
        verdict: ``outside``: a value is more than 0.1 standard deviations outside the training range, and farther than
            in 99 % of the reference windows; ``unusual``: else, the p-value is at most 0.01; ``usual``: neither;
            ``unknown``: all reference windows overlap. Of fewer than 99 reference windows, all must be exceeded.
        nearest_reference: the nearest reference window, and the distance from it.
        p_value: share of the reference windows, this one counted, that are as far from the nearest of another block;
            None if they all overlap. Of a reference of one block it is no bound: see `kanmodel.monitoring.trust`.
        shares: share of each feature in the square of the distance; they sum to 1, or are all 0 at a distance of 0.
        lags: of the three inputs with the largest shares, by label, the shortest run of lags that holds 80 % of it.
        shares_shown: share of each of these, likewise.
        cells: the share of each cell, (lookback, n_features), oldest step first.
        outside: by feature, the values outside the training range, farthest first.
        mean_abs_error: mean absolute error of each output on the third of the reference windows that has such
            distances, original units; None where targets are unknown, or fewer than 3 windows have a distance.
        error_ratio: the same over the mean of the three thirds, as a mean over the outputs; None likewise.
        coverage: by level, the share of the actual values of that third that the model's intervals hold; None likewise,
            and of a model without intervals.
    """

    skill: Skill
    verdict: TrustVerdict
    nearest_reference: Neighbour
    p_value: float | None
    shares: Mapping[str, float]
    lags: Mapping[str, Lags]
    shares_shown: Mapping[str, float]
    cells: Array
    outside: tuple[Outside, ...]
    mean_abs_error: Mapping[str, float] | None
    error_ratio: float | None
    coverage: Mapping[float, float] | None

    @property
    def reliable(self) -> bool:
        """Whether the model has skill, as far as is known, and errors should be as on the reference windows."""
        return self.verdict == "usual" and self.skill.verdict != "red"

    @property
    def reasons(self) -> str:
        """``temp_c (61 %) at lags 0 to 5, wind_ms (12 %) at lag 0``: the largest shares of the distance."""
        return ", ".join(
            f"{name} ({100 * share:.0f} %) at {self.lags[name]}" for name, share in self.shares_shown.items()
        )

    def __str__(self) -> str:
        """The verdict in a sentence, after that on a doubtful model."""
        return " ".join([self.skill.reason] * self.skill.is_doubtful + [self._describe()])

    def _describe(self) -> str:
        near, p_value = self.nearest_reference, self.p_value
        if self.verdict == "outside":
            more = f" and {len(self.outside) - 1} more" if len(self.outside) > 1 else ""
            return f"Outside: {self.outside[0]}{more}; {DOUBT}."
        if p_value is None:
            found = "the reference windows overlap in time, so how far apart others are is unknown"
        elif self.verdict == "unusual":
            farther = (
                f"farther from the nearest reference window than {100 * (1 - p_value):.1f} % of them are from theirs"
            )
            far = f"{near.distance:.2g} against typically {near.typical:.2g} standard deviations"
            found = f"{farther} ({far}), mostly by {self.reasons}"
        else:
            found = f"{100 * p_value:.0f} % of the reference windows are at least as far from the nearest other"
        if self.error_ratio is not None:
            ratio = f"{self.error_ratio:.2f} times the mean absolute error of all"
            found += f"; reference windows about as far have {ratio}"
            held = [f"{100 * held:.0f} % at {100 * level:g} %" for level, held in (self.coverage or {}).items()]
            found += f", and intervals that hold {' and '.join(held)}" if held else ""
        return f"{self.verdict.capitalize()}: {found}{f'; {DOUBT}' if self.verdict == 'unusual' else ''}."


@dataclass(frozen=True, eq=False)
class ReferenceDistances:
    """How far the reference windows are from each other, and from the training range.

    Attributes:
        scale: of the distance, (n_features,), model units.
        neighbours: as of `find_neighbours`.
        ranked: the distances from the nearest other that is no neighbour, ascending; those that have one.
        excess: largest distance of a value from the training range, (n,), ascending, training standard deviations.
        typical: median of those ranked; None if there are none.
        errors: mean absolute error of the nearest third, the middle one and the farthest, (3, n_outputs), original
            units; None where targets are unknown, or fewer than 3 windows have a distance.
        coverage: share of the actual values of each third that the intervals hold, (3, n_levels); None likewise.
    """

    scale: Tensor
    neighbours: NDArray[np.bool_]
    ranked: Array
    excess: Array
    typical: float | None
    errors: Array | None
    coverage: Array | None

    @classmethod
    def of(cls, model: Forecaster) -> ReferenceDistances:
        """Those of a model, measured once."""
        return model.derived.get("reference distances", lambda: cls._measure(model))

    @classmethod
    def _measure(cls, model: Forecaster) -> ReferenceDistances:
        windows, targets = model.reference.scaled, model.reference.targets
        unknown = [one.min is None and (one.mean, one.std) == NO_SCALING for one in model.config.features]
        varies = windows.amax(dim=(0, 1)) > windows.amin(dim=(0, 1))
        spread = windows.double().std(dim=(0, 1), correction=0)
        scale = torch.where(torch.tensor(unknown) & varies, spread, 1.0)
        neighbours, original = find_neighbours(model), model.scaling.features_to_original(windows)
        distances = np.sqrt(_find_nearest(windows, windows, scale, neighbours)[1].sum(axis=(1, 2)))
        alone = neighbours.all(axis=1)
        order = np.argsort(np.where(alone, np.inf, distances), kind="stable")[: np.count_nonzero(~alone)]
        ranked, errors, coverage = distances[order], None, None

        def average(values: Array) -> Array:
            """The means of each third."""
            return np.stack([values[third].mean(axis=0) for third in np.array_split(order, N_THIRDS)])

        if targets is not None and len(order) >= N_THIRDS:
            errors = average(np.abs(model.reference_predictions - targets))
            if model.levels:
                _, lower, upper = model.predict_bounds(original)
                actual = targets[:, list(forecasts_of(model.config))]
                coverage = average(covered(lower, upper, actual).mean(axis=2).T)
        excess = np.sort(_measure_excess(model, original).max(axis=(1, 2)))
        typical = float(np.median(ranked)) if len(ranked) else None
        return cls(scale, neighbours, ranked, excess, typical, errors, coverage)

    def describe_errors(self, model: Forecaster, distances: Array) -> list[dict[str, Any]]:
        """Of windows by their distances, (n,), what `WindowTrust` has of the errors of the third that is as far."""
        if self.errors is None:
            return [{"mean_abs_error": None, "error_ratio": None, "coverage": None}] * len(distances)
        ratios = ((self.errors + TINY) / (self.errors.mean(axis=0) + TINY)).mean(axis=1)  # 1 where all are 0
        of_thirds = list[dict[str, Any]]()
        for third, errors in enumerate(self.errors):
            held = (
                None if self.coverage is None else dict(zip(model.levels, self.coverage[third].tolist(), strict=True))
            )
            named = dict(zip(model.config.outputs, errors.tolist(), strict=True))
            of_thirds.append({"mean_abs_error": named, "error_ratio": float(ratios[third]), "coverage": held})
        ends = [third.max(initial=0.0) for third in np.array_split(self.ranked, N_THIRDS)[:-1]]
        return [of_thirds[third] for third in np.searchsorted(ends, distances)]

    def find_neighbour(self, model: Forecaster, window: Array) -> Neighbour:
        """The reference window nearest to a window (lookback, n_features), original units."""
        (index,), squares = _find_nearest(model.to_model_units(window[None]), model.reference.scaled, self.scale)
        return Neighbour(int(index), float(np.sqrt(squares.sum())), self.typical)


def find_neighbours(model: Forecaster) -> NDArray[np.bool_]:
    """Whether reference windows are in the same block, or overlap in time, (n, n); each does with itself.

    Where the step of their times is unknown, it is taken to be the shortest between two of them. A block ends where the
    next window is more than a window's length later, and than four times the median distance of neighbours; several
    windows, of several series, may have the same time. Without times there are no blocks, and windows overlap if the
    last rows of one are the first of the other, and not all the same.
    """
    windows, times, clock = model.reference.scaled, model.reference.times, model.config.time
    n, lookback = windows.shape[:2]
    with suppress(DataError):  # times of no known form
        if times is not None:
            instants = read_instants(list(times), "times[{}]".format)[0]
            apart = np.abs(instants[:, None] - instants)
            step = apart[apart > 0].min(initial=np.inf) if clock is None else clock.step
            together: NDArray[np.bool_] = (apart < (lookback - 0.5) * step) | (apart == 0)
            moments = np.unique(instants)
            later = np.diff(moments, prepend=moments[0])
            starts = (
                later > max(lookback * step, N_APART * float(np.median(later[1:]))) if len(later) > 1 else later > 0
            )
            blocks = np.searchsorted(moments[starts], instants, "right")
            return together | (blocks[:, None] == blocks) if starts.any() else together
    rows = torch.unique(windows.flatten(0, 1), dim=0, return_inverse=True)[1].reshape(n, lookback).numpy()
    overlaps: NDArray[np.bool_] = (rows[:, None] == rows).all(axis=2)
    for length in tracked(range(2, lookback)):
        ends = np.concatenate([rows[:, :length], rows[:, -length:]])
        number = np.unique(ends, axis=0, return_inverse=True)[1].ravel()
        number[n:][(ends[n:] == ends[n:, :1]).all(axis=1)] = -1
        overlaps |= number[:n, None] == number[n:]
    return overlaps | overlaps.T


def _find_nearest(
    windows: Tensor, others: Tensor, scale: Tensor, without: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], Array]:
    """The nearest other of each window, (n,), and the mean square differences by cell, (n, lookback, n_features).

    Windows are in model units. Pairs in `without`, (n, n_others), are left out. The nearest is found by a matrix
    product; its difference is then computed without the rounding errors of that.
    """
    centre = others.double().mean(dim=0)

    def scaled(windows: Tensor) -> Tensor:
        return (windows.double() - centre).div_(scale).clamp_(-LARGEST, LARGEST).flatten(1)

    rows = scaled(others)
    norms, nearest, parts = rows.square().sum(dim=1), [], []
    for first in tracked(range(0, len(windows), CHUNK)):
        given = scaled(windows[first : first + CHUNK])
        own = given.square().sum(dim=1, keepdim=True)
        squares = (own + norms - 2 * given @ rows.T).numpy()
        if without is not None:
            squares[without[first : first + CHUNK]] = np.inf
        enough = squares.min(axis=1, keepdims=True) + TIES * (own + norms.max()).numpy()
        nearest.append((squares <= enough).argmax(axis=1))
        parts.append((given - rows[nearest[-1]]).square().div_(given.shape[1]).numpy())
    return np.concatenate(nearest), np.concatenate(parts).reshape(windows.shape)


def _measure_excess(model: Forecaster, windows: Array) -> Array:
    """How far values, original units, are outside the training range, in standard deviations, 0 within; same shape."""
    with np.errstate(over="ignore"):
        beyond = np.maximum(model.feature_low - windows, windows - model.feature_high) / model.scaling.feature_scale
    return np.where(beyond > ROUNDING, np.minimum(beyond, LARGEST), 0.0)


def _rank(known: Array, values: Array, own: bool) -> tuple[Array, NDArray[np.bool_]]:
    """Conformal p-values among known values, ascending, of others or of these (`own`); and whether at most `LEVEL`.

    Among few, whether it is the least that there is.
    """
    n = len(known) + 1 - own
    p_values = (n - np.searchsorted(known, values)) / n
    return p_values, p_values <= max(LEVEL, 1 / n)


@dataclass(frozen=True, repr=False, eq=False)
class Trust(ModelResult):
    """How far the forecasts of some windows can be relied on.

    Attributes:
        windows: each of them, in order.
        reference_windows: number of those with which they are compared.
        times: of the newest row of each window, (n,); None if unknown.
        series: of each window, (n,); None of one series, or if unknown.
    """

    windows: tuple[WindowTrust, ...]
    reference_windows: int
    times: tuple[str, ...] | None = field(default=None, kw_only=True)
    series: tuple[str, ...] | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, model: Forecaster, windows: Array | None = None, **named: Any) -> Trust:
        """Of windows (n, lookback, n_features), original units; without, of each reference window among the others.

        `times` and `series` are those of the windows. Raises DataError as `Forecaster.to_model_units` does, and
        InsufficientReferenceError if a reference window overlaps with all others.
        """
        reference, names, own = ReferenceDistances.of(model), model.config.feature_names, windows is None
        if windows is None:
            named = {"times": model.reference.times, "series": model.reference.series}
            if len(alone := np.flatnonzero(reference.neighbours.all(axis=1))):
                raise InsufficientReferenceError(f"reference window {alone[0]} overlaps in time with all others")
            scaled, windows = model.reference.scaled, model.reference.windows
        else:
            scaled = model.to_model_units(windows)
        without = reference.neighbours if own else None
        nearest, squares = _find_nearest(scaled, model.reference.scaled, reference.scale, without)
        total = squares.sum(axis=(1, 2))
        cells = squares / np.where(total > 0, total, 1.0)[:, None, None]
        distances, shares = np.sqrt(total), cells.sum(axis=1)
        excess = _measure_excess(model, windows)
        p_values, is_unusual = _rank(reference.ranked, distances, own)
        farthest = excess.max(axis=(1, 2))
        is_outside = _rank(reference.excess, farthest, own)[1] & (farthest > NEGLIGIBLE)
        shown = model.inputs.merge(names)
        labels, of_inputs = [*shown], sum_groups(cells, shown.values())
        shares_shown = of_inputs.sum(axis=1)
        largest = np.argsort(-shares_shown, axis=1, kind="stable")[:, :N_READ]
        by_lag = np.take_along_axis(of_inputs[:, ::-1], largest[:, None], axis=2).transpose(0, 2, 1).astype(np.float32)
        lags = iter(find_lags(by_lag.reshape(-1, by_lag.shape[2])))
        errors, found = reference.describe_errors(model, distances), []
        is_unknown = np.full(len(windows), not len(reference.ranked))
        verdicts = np.select([is_outside, is_unknown, is_unusual], ["outside", "unknown", "unusual"], "usual").tolist()
        for number, row in enumerate(shares.tolist()):
            read = {labels[place]: next(lags) for place in largest[number]}
            read = {name: of for name, of in read.items() if of.shares.any()}
            of_read = dict(zip(labels, shares_shown[number].tolist(), strict=True))
            found.append(
                WindowTrust(
                    model.skill,
                    verdicts[number],
                    Neighbour(int(nearest[number]), float(distances[number]), reference.typical),
                    None if is_unknown[number] else float(p_values[number]),
                    shares=dict(zip(names, row, strict=True)),
                    lags=read,
                    shares_shown={name: of_read[name] for name in read},
                    cells=cells[number],
                    outside=_list_outside(model, windows[number], excess[number]),
                    **errors[number],
                )
            )
        return cls(tuple(found), len(model.reference.scaled), **named, origin=model.origin, skill=model.skill)

    def __len__(self) -> int:
        return len(self.windows)

    def __iter__(self) -> Iterator[WindowTrust]:
        return iter(self.windows)

    def __getitem__(self, window: int) -> WindowTrust:
        return self.windows[window]

    def table(self) -> list[dict[str, Any]]:
        """A row for each window."""
        return [
            {
                **name_window(number, self.times, self.series),
                "verdict": one.verdict,
                "distance": one.nearest_reference.distance,
                "typical_distance": one.nearest_reference.typical,
                "p_value": one.p_value,
                "nearest_reference": one.nearest_reference.index,
                "by": one.reasons,
                "outside": ", ".join(each.label for each in one.outside),
                "error_ratio": one.error_ratio,
            }
            for number, one in enumerate(self)
        ]

    def _title(self) -> str:
        return "How like the reference windows these are" if len(self) > 1 else "How like the reference windows this is"

    def _facts(self) -> dict[str, str]:
        counts = Counter(one.verdict for one in self)
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        first = {"verdict": str(self[0])} if len(self) == 1 else {"verdicts": verdicts}
        skill = {} if self.skill is None else {"skill": self.skill.brief}
        return skill | first | {"reference": f"{self.reference_windows} windows"}

    def _tables(self) -> list[Table]:
        rows = self.table()
        names = [name for name in rows[0] if name not in ("typical_distance", "nearest_reference", "error_ratio")]
        return [Table(rows, names, in_html=False), Table(rows, list(rows[0]), in_text=False)]


def _list_outside(model: Forecaster, window: Array, excess: Array) -> tuple[Outside, ...]:
    """The features outside their training range in a window, by their `excess`, (lookback, n_features) both."""
    found, last = [], len(window) - 1
    for number in np.flatnonzero(excess.any(axis=0)):
        feature, of = model.config.features[number], excess[:, number]
        steps, value = tuple((np.flatnonzero(of) - last).tolist()), float(window[of.argmax(), number])
        label = model.inputs.label(feature.name)
        found.append(
            Outside(feature.name, label, feature.unit, steps, value, feature.min, feature.max, float(of.max()))
        )
    return tuple(sorted(found, key=lambda one: -one.excess))
