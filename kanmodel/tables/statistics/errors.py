"""Errors of forecasts, of simple forecasts beside them, and of their intervals, by groups.

Of n forecasts p with the actual values y: MAE = mean |p - y|, RMSE = sqrt(mean (p - y)^2), bias = mean (p - y). Skill
is 1 - MAE / MAE of persistence, the last value that was known (Hyndman and Athanasopoulos 2021, "Forecasting:
Principles and Practice", section 5.8): 1 for perfect forecasts, 0 for those as good as persistence, below 0 for worse.

Of intervals [l, u] at level p, the coverage is the share of actual values within, and the Winkler score the mean of

    (u - l) + 2 / (1 - p) (l - y)  if y < l,   + 2 / (1 - p) (y - u)  if y > u

(interval score: Gneiting and Raftery 2007, eq. 43), which is lowest for the true quantiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.tables.instants import DAY

COLUMNS = ("mae", "rmse", "bias", "persistence_mae", "seasonal_naive_mae", "skill", "count")
# Forecasts that a model is measured beside: what they are called, by their name in metrics
SIMPLE_FORECASTS = {"persistence": "persistence", "seasonal_naive": "seasonal naive"}
SIMPLE_FORECASTS |= {"ridge": "ridge", "lightgbm": "LightGBM"}
MIN_CORRELATION = 0.3  # autocorrelation at the period of a season that no calendar names
NEAR = 0.9  # of the highest peak: the first that is as high is the period, and others its multiples
MOST_ROWS = 20_000  # of which autocorrelations are computed, the newest

Groups = NDArray[np.int64]
"""The number of the group of each forecast."""


@dataclass(frozen=True)
class IntervalErrors:
    """How intervals of some forecasts fit what came; None where there is nothing to compare.

    Attributes:
        level: nominal coverage.
        count: number of forecasts with an interval whose actual value is known.
        covered: share of actual values inside.
        below: share of those below the lower bound.
        above: share of those above the upper bound.
        width: mean width, in the target's unit.
        winkler: Winkler score (mean interval score), in the target's unit.
    """

    level: float
    count: int
    covered: float | None
    below: float | None
    above: float | None
    width: float | None
    winkler: float | None


@dataclass(frozen=True)
class Errors:
    """Errors of some forecasts, in the target's unit; None where there is nothing to compare.

    Attributes:
        count: number of forecasts whose actual value is known.
        mae: mean absolute error, in the target's unit; None where there is nothing to compare.
        rmse: root mean squared error, in the target's unit.
        bias: mean of forecast minus actual value, in the target's unit.
        persistence_mae: MAE of persistence, over the forecasts for which it is known too.
        skill: 1 - MAE / MAE of persistence, both over these; None also where persistence has no error.
        seasonal_naive_mae: MAE of the seasonal naive forecast, over the forecasts for which it is known.
        intervals: of their intervals, by level, ascending, if they have any.
    """

    count: int
    mae: float | None
    rmse: float | None
    bias: float | None
    persistence_mae: float | None
    skill: float | None
    seasonal_naive_mae: float | None = None
    intervals: tuple[IntervalErrors, ...] = ()

    def row(self) -> dict[str, Any]:
        """For a table: those of intervals as ``covered@0.8``, ``width@0.8``, ``winkler@0.8``."""
        of_points = {name: getattr(self, name) for name in ("count", *COLUMNS[:-1])}
        names = ("covered", "width", "winkler")
        return of_points | {f"{name}@{each.level:g}": getattr(each, name) for each in self.intervals for name in names}


def r2_scores(targets: Array, forecasts: Array, series: NDArray[np.int64]) -> Array:
    """R2 of each output, (n_outputs,): 1 - squared error / squared distance from the mean of its series' targets.

    To know which series are large explains nothing (the within R2 of Wooldridge 2010, "Econometric Analysis of Cross
    Section and Panel Data", section 10.5).

    Targets and forecasts are (n, n_outputs) in the same units, `series` the number of each row's, (n,). No column of
    targets may be constant in every series.
    """
    own = average_by_series(targets, series, series)
    scores: Array = 1 - ((targets - forecasts) ** 2).sum(axis=0) / ((targets - own) ** 2).sum(axis=0)
    return scores


def average_by_series(values: Array, series: NDArray[np.int64], wanted: NDArray[np.int64]) -> Array:
    """The mean of each wanted series, (n_wanted, n_outputs), by its number; of one without values, that of all.

    Values are (n, n_outputs), `series` the number of each one's, (n,).
    """
    n_series = int(max(series.max(), wanted.max())) + 1
    counts = np.bincount(series, minlength=n_series)[:, None]
    sums = np.stack([np.bincount(series, column, n_series) for column in values.T], axis=1)
    found: Array = np.where(counts > 0, sums / np.maximum(counts, 1), values.mean(axis=0))[wanted]
    return found


def measure_errors(
    error: Array, of_persistence: Array, of_season: Array | None = None, groups: Groups | None = None, n_groups: int = 1
) -> list[Errors]:
    """The errors of the forecasts in each of `n_groups` groups, by default one.

    `error` is forecast minus actual value, of any shape, in the target's unit, NaN where it is unknown;
    `of_persistence` and `of_season` are the same of persistence and the seasonal naive forecast.
    """
    numbers = np.zeros(error.shape, dtype=np.int64) if groups is None else groups
    of_season = np.full(error.shape, np.nan) if of_season is None else of_season
    known = ~np.isnan(error)
    both, seasonal = known & ~np.isnan(of_persistence), known & ~np.isnan(of_season)

    def add(which: NDArray[np.bool_], values: Array | None = None) -> list[float]:
        weights = None if values is None else values[which]
        return list(map(float, np.bincount(numbers[which], weights, n_groups)))

    of_model = add(known), add(known, np.abs(error)), add(known, error**2), add(known, error)
    of_both = add(both), add(both, np.abs(error)), add(both, np.abs(of_persistence))
    sums = zip(*of_model, *of_both, add(seasonal), add(seasonal, np.abs(of_season)), strict=True)
    measured = []
    for n, absolute, squared, signed, n_both, ours, theirs, n_seasonal, of_naive in sums:
        mae, rmse, bias = (absolute / n, (squared / n) ** 0.5, signed / n) if n else (None, None, None)
        skill = 1 - ours / theirs if theirs else None
        naive = of_naive / n_seasonal if n_seasonal else None
        measured.append(Errors(int(n), mae, rmse, bias, theirs / n_both if n_both else None, skill, naive))
    return measured


def covered(lower: Array, upper: Array, actual: Array) -> Array:
    """Whether intervals hold the actual values, 1.0 or 0.0; NaN where a bound or the value is unknown."""
    unknown = np.isnan(lower) | np.isnan(upper) | np.isnan(actual)
    held: Array = np.where(unknown, np.nan, (lower <= actual) & (actual <= upper))
    return held


def measure_intervals(
    levels: Sequence[float], lower: Array, upper: Array, actual: Array, groups: Groups | None = None, n_groups: int = 1
) -> list[tuple[IntervalErrors, ...]]:
    """How the intervals of the forecasts in each group fit; groups as of `measure_errors`.

    Bounds are (n_levels, ...), in the target's unit, NaN where there is none; actual values (...), of any shape.
    """
    numbers = np.zeros(actual.shape, dtype=np.int64) if groups is None else groups
    measured = []
    for level, low, high in zip(levels, lower, upper, strict=True):
        known = ~np.isnan(actual) & ~np.isnan(low)
        y, low, high, of = actual[known], low[known], high[known], numbers[known]
        beyond = np.maximum(np.maximum(low - y, y - high), 0)
        columns = (None, y < low, y > high, high - low, high - low + 2 / (1 - level) * beyond)
        found = []
        for n, below, above, *sums in zip(*(np.bincount(of, each, n_groups).tolist() for each in columns), strict=True):
            means = (each / n if n else None for each in (n - below - above, below, above, *sums))
            found.append(IntervalErrors(level, n, *means))
        measured.append(found)
    return list(zip(*measured, strict=True))


def group_times(local: Array, within_day: bool) -> dict[str, tuple[list[int | str], Groups]]:
    """By ``month`` (``2024-03``), and within a day by ``hour`` (0 to 23) and ``week`` (its Monday, ``2024-03-04``).

    Returns the groups of each, and the number of that of each time; `local` are seconds of the local clock, any shape.
    """
    months, numbers = np.unique(local.astype("datetime64[s]").astype("datetime64[M]"), return_inverse=True)
    found: dict[str, tuple[list[int | str], Groups]] = {}
    found["month"] = months.astype(str).tolist(), numbers.reshape(local.shape)
    if within_day:
        hours, numbers = np.unique((local % DAY // 3600).astype(np.int64), return_inverse=True)
        found["hour"] = hours.tolist(), numbers.reshape(local.shape)
        mondays, numbers = np.unique((local // DAY + 3) // 7 * 7 - 3, return_inverse=True)  # day 0 was a Thursday
        found["week"] = mondays.astype("datetime64[D]").astype(str).tolist(), numbers.reshape(local.shape)
    return found


def find_season(seasons: Mapping[str, int], measure: Callable[[int], float]) -> tuple[str, int] | None:
    """The name and the steps of the season whose seasonal naive forecast has the lowest error; None without seasons.

    `measure` gives the mean absolute error of a season of so many steps, NaN where there is none.
    """
    errors = {season: measure(season[1]) for season in seasons.items()}
    known = {season: error for season, error in errors.items() if error == error}
    return min(known, key=lambda season: known[season]) if known else None


def find_period(values: Array) -> int | None:
    """The lag from 2 of the first of the highest peaks of the autocorrelation of a series (n,); None below 0.3."""
    series = values[np.isfinite(values)][-MOST_ROWS:]
    n, most = len(series), len(series) // 3
    if most < 3 or np.ptp(series) == 0:
        return None
    spectrum = np.abs(np.fft.rfft(series - series.mean(), 2 * n)) ** 2
    correlations = np.fft.irfft(spectrum)[: most + 2]
    correlations = correlations / correlations[0]
    inner = correlations[1:-1]
    peaks = np.flatnonzero((inner > correlations[:-2]) & (inner >= correlations[2:])) + 1
    peaks = peaks[peaks >= 2]
    if not len(peaks) or correlations[peaks].max() < MIN_CORRELATION:
        return None
    return int(peaks[correlations[peaks] >= NEAR * correlations[peaks].max()][0])
