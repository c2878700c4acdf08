"""`Change`: a figure now and before, with the interval of the difference, from blocks of windows.

Intervals of 95 % are of a moving-block bootstrap over the blocks of each side, combined by MOVER (Zou and Donner 2008,
"Construction of confidence limits about effect measures"), so they respect that windows overlap. They describe these
two stretches of time, and say nothing about whether such a change is unusual. Of a short stretch of a strongly
autocorrelated series they are too narrow; how many of 100 hold the true shift of an AR(1) series, from 2,000 values to
so many, in blocks of 4 (``pytest -s tests/kanmodel/monitoring/test_drift.py -k by_length``, thorough, prints it):

    autocorrelation   0     0.7   0.9
    1000 values       95.2  94.2  93.2
    400 values        94.8  93.0  90.8
    96 values         94.0  87.5  78.8
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kanmodel.arrays import Array
from kanmodel.tables.statistics.bootstrap import Bootstrap, Estimate

MIN_BLOCKS = 8  # for an interval
MOST_BLOCKS = 1000  # that are resampled; neighbours are joined


@dataclass(frozen=True)
class Change:
    """A figure of the current side and of the reference; None where it is unknown.

    Attributes:
        now: its value on the current side.
        reference: that of the reference.
        interval: of the change, 95 %; None of fewer than 8 blocks of either side.
    """

    now: float | None
    reference: float | None
    interval: tuple[float, float] | None = None

    @property
    def change(self) -> float | None:
        """now - reference."""
        return None if self.now is None or self.reference is None else self.now - self.reference


@dataclass(frozen=True)
class EffectPart:
    """The part of an effect that the data or the model has, in the target's unit, with its interval as of `Change`."""

    value: float | None
    interval: tuple[float, float] | None


class Bootstraps(dict[int, Bootstrap]):
    """By number of blocks, since resampling takes longer than what is estimated from it."""

    def __missing__(self, n: int) -> Bootstrap:
        self[n] = Bootstrap(n)
        return self[n]


def average(bootstraps: Bootstraps, sums: Array, weights: Array) -> Estimate:
    """Sums (n_blocks, n_columns) over the sum of the weights (n_blocks,), with bounds; NaN where they are unknown."""
    kept, unknown = np.flatnonzero(weights > 0), np.full(sums.shape[1], np.nan)
    if not len(kept):
        return Estimate(unknown, unknown, unknown)
    value = sums[kept].sum(axis=0) / weights[kept].sum()
    if len(kept) < MIN_BLOCKS:
        return Estimate(value, unknown, unknown)
    starts = np.arange(min(len(kept), MOST_BLOCKS)) * len(kept) // min(len(kept), MOST_BLOCKS)
    joined, of = (np.add.reduceat(each[kept], starts, axis=0) for each in (sums, weights))
    found = bootstraps[len(starts)].share(joined, of=of[:, None])
    return Estimate(value, found.low, found.high)


def combine(sign: int, one: Estimate, other: Estimate) -> Estimate:
    """one + sign * other, of independent estimates, with bounds by MOVER."""
    value = one.value + sign * other.value
    ends = (other.low, other.high) if sign > 0 else (other.high, other.low)
    low = value - np.hypot(one.value - one.low, ends[0] - other.value)
    high = value + np.hypot(one.high - one.value, ends[1] - other.value)
    return Estimate(value, low, high)


def list_changes(now: Estimate, then: Estimate) -> list[Change]:
    """The change of each column."""
    figures = (map(known_or_none, each.value.tolist()) for each in (now, then))
    intervals = (part.interval for part in list_parts(combine(-1, now, then)))
    return list(map(Change, *figures, intervals))


def list_parts(found: Estimate) -> list[EffectPart]:
    """The estimate of each column."""
    bounds = zip(found.low.tolist(), found.high.tolist(), strict=True)
    intervals = (pair if pair[0] == pair[0] and pair[1] == pair[1] else None for pair in bounds)
    return list(map(EffectPart, map(known_or_none, found.value.tolist()), intervals))


def known_or_none(value: float) -> float | None:
    """None for NaN."""
    return value if value == value else None
