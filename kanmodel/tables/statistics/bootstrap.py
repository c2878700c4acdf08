"""Moving-block bootstrap: confidence intervals of means over reference windows, which are autocorrelated.

The bootstrap is circular (Politis and Romano 1992, "A circular block-resampling procedure for stationary data"):
a resample consists of blocks of neighbouring windows, the first window following the last. The block length of a series
is chosen from its own autocorrelations (Politis and White 2004, "Automatic block-length selection for the dependent
bootstrap", corrected by Patton, Politis and White 2009), rounded up so that few lengths occur.

Percentiles of few blocks are too narrow, so they are taken further out (an expanded percentile interval: Hesterberg
2015, arXiv 1411.5279): where the normal distribution would put 1.96 standard errors, the fixed-b critical value of
Kiefer and Vogelsang 2005 ("A new asymptotic theory for heteroskedasticity-autocorrelation robust tests") stands, b the
block length over the number of windows. An interval keeps to the range of the resampled values: a share is never
negative.

How many of 100 intervals of 95 % hold the true mean of a Gaussian AR(1) series of 512 values, at these autocorrelations
(``pytest -s tests/kanmodel/tables/statistics/test_bootstrap.py -k coverage`` prints the table):

    autocorrelation   0     0.5   0.8   0.9
    coverage          94.8  93.2  92.1  89.8
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from kanmodel.arrays import Array

CONFIDENCE = 0.95
N_RESAMPLES = 1000
SEED = 0
COLUMNS = 4096  # resampled at a time, so that the 33,000 edges of a large head do not take hundreds of megabytes
LENGTHS = np.array([1, 2, *(m << k for k in range(20) for m in (3, 4))])  # 1, 2, 3, 4, 6, 8, 12, 16, 24, ...


@dataclass(frozen=True)
class Estimate:
    """Means over windows, of any shape, with the bounds of their intervals."""

    value: Array
    low: Array
    high: Array

    def bounds(self, *index: int) -> tuple[float, float]:
        """Lower and upper bound of one entry."""
        return float(self.low[index]), float(self.high[index])


class Bootstrap:
    """Resamples of n windows in time order; the same seed gives the same intervals."""

    def __init__(self, n: int, resamples: int = N_RESAMPLES, seed: int = SEED) -> None:
        self._n, self._resamples, self._seed = n, resamples, seed
        self._weights: dict[int, Array] = {}  # by length; a cache of a bound method would outlive the last reference

    def weights(self, length: int) -> Array:
        """How often each window counts in each resample of blocks of this length, (resamples, n); rows sum to 1."""
        if length not in self._weights:
            n, resamples = self._n, self._resamples
            starts = np.random.default_rng(self._seed).integers(0, n, (resamples, -(-n // length)))
            rows = (starts[..., None] + np.arange(length)).reshape(resamples, -1)[:, :n] % n  # (resamples, n)
            rows += n * np.arange(resamples)[:, None]
            self._weights[length] = np.bincount(rows.ravel(), minlength=n * resamples).reshape(-1, n) / n
        return self._weights[length]

    def mean(self, values: Array) -> Estimate:
        """The mean of values (n, ...) over the windows."""
        series = values.reshape(self._n, -1)
        low, high = self._bounds(series, lambda weights, columns: weights @ series[:, columns])
        shape = values.shape[1:]
        return Estimate(values.mean(axis=0), low.reshape(shape), high.reshape(shape))

    def share(self, sizes: Array, of: Array | None = None) -> Estimate:
        """The mean of each column of sizes (n, n_columns), none negative, as a share of all, 0 where all are 0.

        `of` is what is all, (n, any number of columns), if not the sizes. The block length is that of the linearised
        share: size - share * total, window by window.
        """
        total = (sizes if of is None else of).sum(axis=1, keepdims=True)  # (n, 1)
        value = divide(sizes.mean(axis=0), total.mean(axis=0))

        def resample(weights: Array, columns: NDArray[np.intp]) -> Array:
            return divide(weights @ sizes[:, columns], weights @ total)

        return Estimate(value, *self._bounds(sizes - value * total, resample))

    def share_difference(self, sizes: Array, others: Array) -> Estimate:
        """`share` of some sizes less that of others, (n, n_columns) both, which are resampled together (paired)."""
        totals = [one.sum(axis=1, keepdims=True) for one in (sizes, others)]
        shares = [share_of(one) for one in (sizes, others)]
        series = [
            divide(one, total.mean(axis=0)) - share * divide(total, total.mean(axis=0))
            for one, total, share in zip((sizes, others), totals, shares, strict=True)
        ]

        def resample(weights: Array, columns: NDArray[np.intp]) -> Array:
            share = divide(weights @ sizes[:, columns], weights @ totals[0])
            return share - divide(weights @ others[:, columns], weights @ totals[1])

        return Estimate(shares[0] - shares[1], *self._bounds(series[0] - series[1], resample))

    def _bounds(self, series: Array, resample: Callable[[Array, NDArray[np.intp]], Array]) -> tuple[Array, Array]:
        """Bounds of a statistic of each column, to first order the mean of series (n, n_columns).

        `resample` gives the statistics (resamples, chosen) of chosen columns under weights (resamples, n).
        """
        low, high = np.empty(series.shape[1]), np.empty(series.shape[1])
        for start in range(0, series.shape[1], COLUMNS):
            lengths = LENGTHS[np.searchsorted(LENGTHS, block_lengths(series[:, start : start + COLUMNS]))]
            for length in np.unique(lengths).tolist():
                columns = start + np.flatnonzero(lengths == length)
                b, normal = length / self._n, NormalDist()
                critical = normal.inv_cdf((1 + CONFIDENCE) / 2) + 2.9694 * b + 0.4160 * b**2 - 0.5324 * b**3
                tail, resampled = normal.cdf(-critical), resample(self.weights(length), columns)
                low[columns], high[columns] = np.quantile(resampled, (tail, 1 - tail), axis=0)
        return low, high


def block_lengths(series: Array) -> Array:
    """The block length that estimates the variance of a mean best, (n_columns,), for series (n, n_columns) in time.

    Politis and White 2004, section 3.2, for the circular bootstrap, as corrected in 2009: autocovariances are summed
    under a flat-top lag window that ends where neighbouring autocorrelations are insignificant. At most min(3 sqrt(n),
    n / 3) rounded up, 0 for a constant column; the cube root of n, at most n / 3, if n is too small for correlations.
    """
    n, n_columns = series.shape
    run = max(5, int(np.log10(n)))  # neighbouring lags that must be insignificant
    n_lags = int(np.ceil(np.sqrt(n))) + run
    if n_lags > n - 2:
        return np.full(n_columns, min(n ** (1 / 3), n / 3))
    centred = series - series.mean(axis=0)
    centred /= np.maximum(np.abs(centred).max(axis=0), np.finfo(float).tiny)  # squares must not overflow
    products = np.stack([(centred[lag:] * centred[: n - lag]).sum(axis=0) for lag in range(n_lags + 1)])
    squares = np.cumsum(centred**2, axis=0)
    sizes = np.stack([np.sqrt((squares[-1] - squares[lag]) * squares[n - lag - 2]) for lag in range(n_lags + 1)])
    insignificant = np.abs(products) <= 2 * np.sqrt(np.log10(n) / n) * sizes  # (n_lags + 1, n_columns)

    runs = sliding_window_view(insignificant[:-1], run, axis=0).all(axis=2)
    last = np.where(runs.any(axis=0), np.minimum(2 * np.maximum(runs.argmax(axis=0), 1), n_lags), n_lags)
    lags = np.arange(1, n_lags + 1)[:, None]
    window = np.clip(2 * (1 - lags / last), 0, 1)
    slope = 2 * (window * lags * products[1:]).sum(axis=0)
    spectrum = products[0] + 2 * (window * products[1:]).sum(axis=0)
    ratio = np.divide(slope, spectrum, out=np.zeros(n_columns), where=spectrum != 0)
    found: Array = np.minimum((1.5 * ratio**2 * n) ** (1 / 3), np.ceil(min(3 * np.sqrt(n), n / 3)))
    return found


def share_of(sizes: Array) -> Array:
    """The value of `Bootstrap.share` of sizes (n, n_columns), without its interval."""
    return divide(sizes.mean(axis=0), sizes.sum(axis=1, keepdims=True).mean(axis=0))


def divide(sums: Array, weights: Array, unknown: float = 0.0) -> Array:
    """The ratio, or `unknown` where the weight is 0."""
    shape = np.broadcast_shapes(sums.shape, weights.shape)
    ratio: Array = np.divide(sums, weights, out=np.full(shape, unknown), where=weights > 0)
    return ratio
