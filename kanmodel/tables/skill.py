"""Skill: whether a model knows more than simple forecasts do, measured where these had seen nothing either.

Simple forecasts are persistence, the seasonal naive ones, the average, and a ridge regression on the same windows. The
average is one number for all windows: the mean of actual values elsewhere, that of the training, or the mean of the
model's own forecasts, whichever misses by least, so that no constant model is better than it.

A model gains 1 - MAE / MAE of the simple forecast, with an interval of 95 % from blocks of windows in order of time
(`Bootstrap`), paired: both err on the same windows. From these gains come the verdicts:

- ``unknown``: there are no actual values to compare with, or fewer than 8 independent blocks, unless the model has
  twice the error of the best of persistence, seasonal naive and average, and so is red. A block is as long as errors
  are correlated, and at least as the spans of time that two forecasts share.
- ``red``: no better than the best of persistence, seasonal naive and average; or clearly worse than the ridge
  regression (the interval is below 0) and either not clearly better than those, or with less than a fifth of its gain.
- ``green``: clearly better (the interval is above 0) than the best of all, the ridge regression among them or else
  persistence.
- ``amber``: everything between.

A gain below 0.1 % is rounding. Errors of several outputs are averaged: in the unit of the targets if they have the same
one, or else in standard deviations of the training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal, NamedTuple

import numpy as np

from kanmodel.arrays import Array
from kanmodel.errors import ConfigError, DataError, Index, check_config, check_text
from kanmodel.tables.columns import column_of
from kanmodel.tables.encoding import Rows
from kanmodel.tables.instants import read_instants
from kanmodel.tables.statistics.bootstrap import Bootstrap, block_lengths
from kanmodel.tables.statistics.differences import MIN_BLOCKS, MOST_BLOCKS
from kanmodel.tables.table import TableSpec
from kanmodel.tables.windows import Windows
from kanmodel.text import write_figure

SkillVerdict = Literal["green", "amber", "red", "unknown"]
BaselineName = Literal["persistence", "seasonal naive", "average", "ridge"]
MeasuredOn = Literal["test", "validation", "reference"]
LEAST_GAIN = 0.001  # share of an error, below which a gain is rounding
SMALL_GAIN = 0.2  # of that of a ridge regression, below which nothing is gained beside it
TWICE = -1.0  # gain of a model with twice the error
TINY = 1e-300
ROUNDING = 1e-6  # of a target's standard deviation: an error that is none
STD = "standard deviations"  # the unit of errors of targets with different units
PENALTIES = np.logspace(-1, 6, 15)
N_FOLDS = 8  # blocks of reference windows, of which a ridge regression forecasts each from the others
LEAST_FITTED = 16  # windows on which one is fitted
MOST_WINDOWS = 2048  # of which it takes seconds
_WORDS = {"persistence": "repeating the last value", "average": "always forecasting the average"}
_WHERE: dict[MeasuredOn, str] = {
    "test": "",
    "validation": "by which the training may have chosen its epoch, and which are few for a regression",
    "reference": "which may have been rows of its training, and which are few for a regression",
}

Simple = tuple[BaselineName, int | None]  # a simple forecast, and the steps of its season
Flat = Callable[[Rows], Iterable[tuple[Array, Array]]]
"""Yields some windows by their numbers: rows (n, n_inputs), and their targets (n, n_outputs), model units."""


@dataclass(frozen=True)
class Baseline:
    """The error of a simple forecast, and what the model gains over it.

    Attributes:
        name: of the forecast.
        season: steps of the season of a seasonal naive one; else None.
        mae: its mean absolute error.
        better_by: 1 - MAE of the model / this.
        interval: of that, 95 %.
    """

    name: BaselineName
    season: Index | None
    mae: float
    better_by: float
    interval: tuple[float, float]

    def __post_init__(self) -> None:
        check_config(self)
        if len(self.interval) != 2:
            raise ConfigError(f"interval must be two numbers, but is {list(self.interval)}")

    @property
    def words(self) -> str:
        """``repeating the last value``: what it does."""
        return describe_simple(self.name, self.season)


def describe_simple(name: BaselineName, season: int | None) -> str:
    """What a simple forecast does in words: ``repeating the last value``."""
    if name == "seasonal naive":
        return f"repeating the value of {season} steps before"
    return _WORDS.get(name, "a ridge regression")


@dataclass(frozen=True)
class Skill:
    """Whether a model knows more than simple forecasts: persistence, seasonal naive, the average, ridge regression.

    Errors of several outputs are averaged, of quantiles that of the median alone. The gain over the best has an
    interval from blocks of windows in order of time. ``green``: the interval is above 0. ``red``: no better than one
    that needs no fitting, or beside a clearly better ridge regression hardly so. ``amber``: between. ``unknown``: no
    actual values, or fewer than 8 independent blocks.

    Attributes:
        measured_on: the ``test`` part of the training, which nothing had seen; or the reference windows, of a model
            that was trained here of the ``validation`` part, of any other perhaps rows of its training
            (``reference``). There the ridge regression forecasts each block of time from the others.
        windows: their number.
        blocks: how many independent blocks of time they are.
        mae: mean absolute error of the model; None if unknown.
        unit: of errors: that of the targets, ``standard deviations`` of the training if they have different ones, or
            None if unknown.
        baselines: simple forecasts, as far as there are any here, the best first.
        lacking: why nothing can be compared; empty if it can.
    """

    measured_on: MeasuredOn
    windows: Index
    blocks: Index = 0
    mae: float | None = None
    unit: Annotated[str, check_text] | None = None
    baselines: tuple[Baseline, ...] = ()
    lacking: str = ""

    def __post_init__(self) -> None:
        check_config(self)
        if not self.lacking and (self.mae is None or "average" not in (of.name for of in self.baselines)):
            raise ConfigError("skill must have errors of the model and of the average, or say what is lacking")

    @property
    def best(self) -> Baseline | None:
        """The simple forecast with the lowest error; None if unknown."""
        return self.baselines[0] if self.baselines else None

    @property
    def better_by(self) -> float | None:
        """1 - MAE / MAE of the best simple forecast; None if unknown."""
        return None if self.best is None else self.best.better_by

    @property
    def interval(self) -> tuple[float, float] | None:
        """Interval of `better_by`, 95 %; None if unknown, or of too few independent blocks."""
        return None if self.best is None or self.verdict == "unknown" else self.best.interval

    @property
    def verdict(self) -> SkillVerdict:
        """``green``: clearly better than all; ``red``: nothing was learned; ``amber``: between; or ``unknown``."""
        if self.best is None:
            return "unknown"
        if self.blocks < MIN_BLOCKS:
            return "red" if self._naive.better_by <= TWICE else "unknown"
        if self._winner is not None:
            return "red"
        is_compared = {"ridge", "persistence"} & {of.name for of in self.baselines}
        is_better = self.best.interval[0] > 0 and self.best.better_by > LEAST_GAIN
        return "green" if is_better and is_compared else "amber"

    @property
    def _naive(self) -> Baseline:
        """The best that is no regression."""
        return next(of for of in self.baselines if of.name != "ridge")

    @property
    def _winner(self) -> Baseline | None:
        """The simple forecast beside which the model knows nothing; None if there is none."""
        naive = self._naive
        if naive.better_by <= LEAST_GAIN:
            return naive
        ridge = next((of for of in self.baselines if of.name == "ridge"), None)
        if ridge is None or ridge.interval[1] >= 0:
            return None
        is_small = naive.interval[0] <= 0 or naive.better_by < SMALL_GAIN * (1 - ridge.mae / naive.mae)
        return ridge if is_small else None

    @property
    def reason(self) -> str:
        """The verdict in a sentence."""
        where = "" if self.measured_on == "test" else f", as far as reference windows tell, {_WHERE[self.measured_on]}"
        unknown = "Whether this model is better than simple forecasts is unknown:"
        if self.best is None:
            return f"{unknown} {self.lacking}."
        if self.verdict == "unknown":
            return f"{unknown} {self.windows:,} windows are too few independent blocks of time ({self.blocks}) to tell."
        if (winner := self._winner) is not None:
            return f"This model has learned nothing that {winner.words} does not know; do not read its reasons."
        if self.verdict == "green":
            return f"This model is better than {self.best.words}, the best of the simple forecasts{where}."
        naive = self._naive
        if naive.interval[0] <= 0:
            return f"This model may be no better than {naive.words}: the interval of what it gains includes 0{where}."
        better = f"This model is better than {naive.words}"
        if self.best.name == "ridge":
            return f"{better}, not better than a ridge regression{where}."
        return f"{better}, beside which nothing else could be compared{where}."

    @property
    def figures(self) -> str:
        """The errors in words; empty if unknown."""
        if self.best is None or self.mae is None:
            return ""
        unit = f" {self.unit}" if self.unit else ""
        beside = ", ".join(f"{write_figure(of.mae, of.mae)} of {of.words}" for of in self.baselines)
        figures = f"Mean absolute error {write_figure(self.mae, self.mae)}{unit} beside {beside}"
        if self.interval is not None:
            figures += f"; {self._gain} than the best of these"
        return f"{figures}, on {self.windows:,} {'test' if self.measured_on == 'test' else 'reference'} windows."

    @property
    def brief(self) -> str:
        """The verdict in a short line, that of a red one with its whole sentence."""
        if self.interval is None or self.best is None or self.verdict == "red":
            return f"{self.verdict}: {self.reason}"
        on = f"{self.windows:,} {'test' if self.measured_on == 'test' else 'reference'} windows"
        return f"{self.verdict}: {self._gain} than {self.best.words}, on {on}"

    @property
    def _gain(self) -> str:
        """By how much it is better than the best of the simple forecasts, ``10 % better (95 % interval 4 to 16 %)``."""
        gain, interval = 100 * (self.better_by or 0.0), self.interval or (0.0, 0.0)
        low, high = (f"{100 * end:.0f}" for end in interval)
        return f"{abs(gain):.0f} % {'better' if gain >= 0 else 'worse'} (95 % interval {low} to {high} %)"

    @property
    def is_doubtful(self) -> bool:
        """Whether it is red or amber, so that whoever reads reasons reads this first."""
        return self.verdict in ("red", "amber")

    def __str__(self) -> str:
        return " ".join(filter(None, (f"{self.verdict}: {self.reason}", self.figures)))


def measure_skill(
    forecasts: Array,
    actual: Array,
    simple: Mapping[Simple, Array],
    positions: Array,
    horizon: int,
    unit: Array,
    name: str | None,
    measured_on: MeasuredOn,
) -> Skill:
    """The skill of forecasts (n, n_outputs) beside simple ones of the same shape, all original units.

    Args:
        forecasts: of the model.
        actual: what came.
        simple: the simple forecasts; those with NaN are left out.
        positions: of each window in time, steps, (n,).
        horizon: steps that a window forecasts, of which neighbours share some.
        unit: of each output, (n_outputs,), in which errors are averaged; 1 for the targets' own.
        name: of the unit; None if unknown.
        measured_on: what the windows are.
    """
    least = np.maximum(ROUNDING * actual.std(axis=0), TINY)
    moments, at = np.unique(positions, return_inverse=True)
    starts = np.arange(min(len(moments), MOST_BLOCKS)) * len(moments) // min(len(moments), MOST_BLOCKS)

    def measure(values: Array) -> Array:
        """The sums of the errors of neighbouring times, (n_starts, 1); windows of several series may have the same."""
        missed = np.maximum(np.abs(values - actual), least) / unit
        sums: Array = np.add.reduceat(np.bincount(at, missed.mean(axis=1)), starts)
        return sums[:, None]

    ours, found = measure(forecasts), list[Baseline]()
    bootstrap, lengths = Bootstrap(len(ours)), list[float]()
    for (kind, season), values in simple.items():
        if np.isnan(values).any():
            continue
        theirs = measure(values)
        ratio, total = bootstrap.share(ours, theirs), float(theirs.sum()) / len(actual)
        lengths.append(float(block_lengths(ours - float(ratio.value[0]) * theirs)[0]))
        ends = 1 - float(ratio.high[0]), 1 - float(ratio.low[0])
        found.append(Baseline(kind, season, total, 1 - float(ratio.value[0]), ends))
    apart = float(np.median(np.diff(moments[starts]))) if len(starts) > 1 else 1.0
    blocks = int(len(ours) / max(1.0, horizon / apart, *lengths))
    found.sort(key=lambda of: of.mae)
    return Skill(measured_on, len(actual), blocks, float(ours.sum()) / len(actual), name, tuple(found))


def best_constant(actual: Array, constants: Iterable[Array]) -> Array:
    """Of forecasts that broadcast to (n, n_outputs), for each output those with the lowest mean absolute error."""
    forecasts = np.stack([np.broadcast_to(each, actual.shape) for each in constants if np.isfinite(each).all()])
    best = np.abs(forecasts - actual).mean(axis=1).argmin(axis=0)
    chosen: Array = np.take_along_axis(forecasts, best[None, None], axis=0)[0]
    return chosen


class Moments(NamedTuple):
    """Means of flattened windows and targets, and their centred products, summed over windows."""

    n: int
    mean_x: Array  # (n_inputs,)
    mean_y: Array  # (n_outputs,)
    xx: Array  # (n_inputs, n_inputs)
    xy: Array  # (n_inputs, n_outputs)

    @classmethod
    def of(cls, chunks: Iterable[tuple[Array, Array]]) -> Moments:
        """Those of windows (n, n_inputs) and targets (n, n_outputs), some at a time."""
        gram, moment, n = np.zeros(()), np.zeros(()), 0
        for flat, y in chunks:
            x = np.column_stack([flat, np.ones(len(flat))])
            gram, moment, n = gram + x.T @ x, moment + x.T @ y, n + len(x)
        mean_x, mean_y = gram[-1, :-1] / n, moment[-1] / n  # by the column of ones
        xx, xy = gram[:-1, :-1] - n * np.outer(mean_x, mean_x), moment[:-1] - n * np.outer(mean_x, mean_y)
        return cls(n, mean_x, mean_y, xx, xy)


def ridge(moments: Moments, flat: Flat, validation: Rows) -> Callable[[Rows], Array]:
    """A ridge regression on the flattened window (Hoerl and Kennard 1970), in closed form, model units.

    The moments are those of the windows it is fitted on; the penalty is that with the lowest error on `validation`.
    """
    values, vectors = np.linalg.eigh(moments.xx)
    rotated = vectors.T @ moments.xy  # (n_inputs, n_outputs)

    def forecast(penalty: float, numbers: Rows) -> Array:
        weights = vectors @ (rotated / (values.clip(0)[:, None] + penalty))
        intercept = moments.mean_y - moments.mean_x @ weights
        return np.concatenate([x @ weights + intercept for x, _ in flat(numbers)])

    truth = np.concatenate([y for _, y in flat(validation)])
    errors = [np.nanmean((forecast(penalty, validation) - truth) ** 2) for penalty in PENALTIES]
    return partial(forecast, PENALTIES[int(np.argmin(errors))])


def repeat_values(spec: TableSpec, windows: Array, seasons: Iterable[int]) -> dict[Simple, Array]:
    """Persistence and seasonal naive forecasts from the windows alone, (n, horizon * n_targets), original units.

    Windows are (n, lookback, n_features). A window has the past of a target whose column is a feature; NaN where it has
    not, or is too short for the season.
    """
    features, ahead = spec.encoding.features, replace(spec, ahead=max(1, spec.ahead))
    found: dict[Simple, list[Array]] = {("persistence", None): []}
    found |= {("seasonal naive", season): [] for season in seasons}
    for name in spec.targets:
        column, unknown = column_of(name, ()), np.full((len(windows), spec.horizon), np.nan)
        of = Windows.of(ahead, windows, features.index(column)) if column in features else None
        for (_, season), columns in found.items():
            if of is None:
                columns.append(unknown)
            elif season is None:
                columns.append(np.repeat(of.persistence(0)[:, None], spec.horizon, axis=1))
            else:
                columns.append(of.seasonal_naive(0, season))
    return {simple: np.stack(columns, axis=2).reshape(len(windows), -1) for simple, columns in found.items()}


def find_positions(spec: TableSpec, times: tuple[str, ...] | None, n: int) -> Array:
    """Of windows in time, in steps, (n,); those without times are taken to be one step apart."""
    with suppress(DataError):  # times of no known form
        if times is not None:
            instants, _ = read_instants(list(times), "times[{}]".format, spec.time.zone if spec.time else None)
            moments, at = np.unique(instants, return_inverse=True)
            steps = np.diff(moments)
            if spec.time is not None:
                steps = spec.time.count_steps(moments) * (
                    spec.time.weekdays.count("1") if spec.time.is_open_days else 1
                )
            elif len(steps):
                steps = steps / steps.min()
            found: Array = np.concatenate([[0.0], np.cumsum(steps)])[at]
            return found
    return np.arange(float(n))


def forecast_blocks(spec: TableSpec, positions: Array, x: Array, y: Array) -> dict[Simple, Array]:
    """The average and a ridge regression, (n, n_outputs) each, of blocks of time from the others, as far as they can.

    Each block is forecast by what was fitted on the others, of which nothing overlaps with it: neither their windows
    nor what these forecast. The next block chooses the penalty. Windows are (n, n_inputs), targets (n, n_outputs).
    """
    span = spec.lookback + max(1, spec.ahead) + spec.horizon - 1
    span += 2 * (spec.time is not None and spec.time.is_open_days)  # whose positions are right from week to week
    blocks = [each for each in np.array_split(np.unique(positions), N_FOLDS) if len(each)]
    averages, forecasts = np.full(y.shape, np.nan), np.full(y.shape, np.nan)
    if len(x) <= MOST_WINDOWS and x.shape[1] > len(x):  # as good in the coordinates of what the windows span
        left, sizes, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
        x = left * sizes

    def flat(numbers: Rows) -> Iterator[tuple[Array, Array]]:
        yield x[numbers], y[numbers]

    def apart(numbers: Rows, block: Array) -> Rows:
        at = positions[numbers]
        kept: Rows = numbers[(at <= block.min() - span) | (at >= block.max() + span)]
        return kept

    for number, block in enumerate(blocks):
        own, others = np.flatnonzero(np.isin(positions, block)), apart(np.arange(len(x)), block)
        if len(others):
            averages[own] = y[others].mean(axis=0)
        following = blocks[(number + 1) % len(blocks)]
        validation = others[np.isin(positions[others], following)]
        fitted = apart(others, following)
        if len(x) <= MOST_WINDOWS and len(fitted) >= LEAST_FITTED and len(validation):
            forecasts[own] = ridge(Moments.of(flat(fitted)), flat, validation)(own)
    return {("average", None): averages, ("ridge", None): forecasts}
