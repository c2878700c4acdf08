"""Intervals of means over reference windows, which overlap in time and so are not independent.

Moving-block bootstrap: Künsch 1989, "The jackknife and the bootstrap for general stationary observations". Of strongly
autocorrelated values its intervals are too narrow: for AR(1) series of 512 values they hold the true mean in 92, 90, 87
and 80 of 100 cases at an autocorrelation of 0.5, 0.7, 0.8 and 0.9, where 95 are meant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kanmodel.scaling import Array

CONFIDENCE = 0.95
N_RESAMPLES = 1000
SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A mean over the reference windows, with its interval.

    Attributes:
        value: any shape.
        low: lower bound, the same shape.
        high: upper bound, the same shape.
    """

    value: Array
    low: Array
    high: Array

    def bounds(self, *index: int) -> tuple[float, float]:
        """Lower and upper bound of one entry."""
        return float(self.low[index]), float(self.high[index])


@dataclass(frozen=True)
class Resampling:
    """How often each of n windows counts in each resample.

    Attributes:
        weights: (resamples, n); each row sums to 1.
    """

    weights: Array

    @classmethod
    def blocks(cls, n: int, resamples: int = N_RESAMPLES, seed: int = SEED) -> Resampling:
        """Resamples of n windows in time order, in blocks of 2 n^(1/3) neighbours, at most half of the windows."""
        length = max(1, min(n // 2, round(2 * n ** (1 / 3))))
        n_blocks = -(-n // length)
        generator = np.random.default_rng(seed)
        starts = generator.integers(0, n - length + 1, size=(resamples, n_blocks))
        rows = (starts[..., None] + np.arange(length)).reshape(resamples, -1)[:, :n]  # (resamples, n)
        counts = np.zeros((resamples, n))
        np.add.at(counts, (np.arange(resamples)[:, None], rows), 1.0)
        return cls(counts / n)

    def means(self, values: Array) -> Array:
        """Means of values (n, ...) in each resample, (resamples, ...)."""
        flat: Array = self.weights @ values.reshape(len(values), -1)
        return flat.reshape(-1, *values.shape[1:])

    def estimate(self, values: Array) -> Estimate:
        """The mean of values (n, ...) over the windows."""
        return interval(values.mean(axis=0), self.means(values))


def interval(value: Array, resampled: Array) -> Estimate:
    """An estimate with the percentile interval of its resamples, (resamples, ...)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail), axis=0)
    return Estimate(value, low, high)
