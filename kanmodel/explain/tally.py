"""`Tally`: what forecasts of a model read, used and missed, as counts and sums that add up.

A histogram has fixed bins, between the deciles of the reference windows and beyond their range on either side, so the
counts of several processes, replicas and hours add up, and those of any span of time are a difference. The mean of
the values in each bin is kept too: with it a shift is exact even where all values are beyond the range.

A tally has blocks in order of time, an hour of a service or some consecutive windows of a table. Intervals come from
a bootstrap over blocks, so they respect that windows overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from kanmodel.data import Array

N_INNER = 10  # bins between the deciles of the reference
N_BINS = N_INNER + 2  # with those below and above its range
BELOW, ABOVE = 0, N_BINS - 1
ROUNDING = 1e-6  # of the range: a value that was a float32


@dataclass(frozen=True, eq=False)
class Bins:
    """The bins of some columns.

    Attributes:
        edges: (n_columns, N_BINS - 1), ascending: a value is in the bin of the number of edges that are below it. An
            edge is between two neighbouring values of the reference, so that rounding moves none of them over it.
    """

    edges: Array

    @classmethod
    def of(cls, values: Array) -> Bins:
        """The bins of reference values, (n, n_columns), finite."""
        ordered = np.sort(values, axis=0)
        low, high = ordered[0], ordered[-1]
        inner = np.quantile(ordered, np.arange(1, N_INNER) / N_INNER, axis=0, method="inverted_cdf")
        margin = ROUNDING * np.where(high > low, high - low, np.where(high, np.abs(high), 1))
        for column, edges in enumerate(inner.T):  # views of `inner`
            different = np.append(np.unique(ordered[:, column]), high[column] + 2 * margin[column])
            edges += (different[np.searchsorted(different, edges, "right")] - edges) / 2
        return cls(np.vstack([low - margin, inner, high + margin]).T)

    def count(self, values: Array) -> tuple[Array, Array]:
        """Counts and sums of values (n, n_columns) by bin, (n_columns, N_BINS) each."""
        n_columns = len(self.edges)
        places = np.stack([np.searchsorted(*pair) for pair in zip(self.edges, values.T, strict=True)])
        numbers = (places + N_BINS * np.arange(n_columns)[:, None]).ravel()
        counts, sums = (
            np.bincount(numbers, weights, n_columns * N_BINS).reshape(n_columns, N_BINS).astype(np.float64)
            for weights in (None, values.T.ravel())
        )
        return counts, sums


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts and sums over forecasts of one output, by block in order of time.

    Names are those of what a forecast is divided among: the outermost groups, and the features in none. Errors are
    forecast minus actual value, in the target's unit.

    Attributes:
        inputs: values of the features at the newest step by bin, (n_blocks, n_features, N_BINS).
        input_sums: their sums by bin, likewise.
        forecasts: forecasts by bin, (n_blocks, 1, N_BINS).
        forecast_sums: their sums by bin, likewise.
        explained: number of forecasts that are explained, (n_blocks,).
        contributions: sums of contributions, signed, (n_blocks, n_names).
        sizes: sums of |contribution|, (n_blocks, n_names).
        known: number of forecasts whose actual value is known, (n_blocks,).
        errors: sum of errors, (n_blocks,).
        sizes_of_errors: sum of |error|, (n_blocks,).
        bounded: number of intervals whose actual value is known, by level, (n_blocks, n_levels).
        covered: number of these that hold it, likewise.
    """

    inputs: Array
    input_sums: Array
    forecasts: Array
    forecast_sums: Array
    explained: Array
    contributions: Array
    sizes: Array
    known: Array
    errors: Array
    sizes_of_errors: Array
    bounded: Array
    covered: Array

    @classmethod
    def empty(cls, n_features: int, n_names: int, n_levels: int, n_blocks: int = 1) -> Tally:
        """Of nothing."""
        shapes: list[tuple[int, ...]] = [(n_features, N_BINS)] * 2 + [(1, N_BINS)] * 2 + [(), (n_names,), (n_names,)]
        shapes += [(), (), (), (n_levels,), (n_levels,)]
        return cls(*(np.zeros((n_blocks, *shape)) for shape in shapes))

    def __len__(self) -> int:
        return len(self.explained)

    def __add__(self, other: Tally) -> Tally:
        """Of the forecasts of both, block by block."""
        return Tally(*(mine + theirs for mine, theirs in zip(self.arrays, other.arrays, strict=True)))

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All counts and sums, in the order of the attributes."""
        return tuple(getattr(self, field.name) for field in fields(self))

    @classmethod
    def join(cls, tallies: Sequence[Tally]) -> Tally:
        """The blocks of several, one after another."""
        return cls(*(np.concatenate(each) for each in zip(*(tally.arrays for tally in tallies), strict=True)))

    def total(self) -> Tally:
        """Of all blocks, as one."""
        return Tally(*(each.sum(axis=0, keepdims=True) for each in self.arrays))

    def spans(self, length: int) -> Tally:
        """Of each run of `length` blocks, as a block, (n_blocks - length + 1)."""

        def slide(each: Array) -> Array:
            ends = np.concatenate([np.zeros((1, *each.shape[1:])), np.cumsum(each, axis=0)])
            runs: Array = ends[length:] - ends[:-length]
            return runs

        return Tally(*map(slide, self.arrays))

    def without(self, spans: Tally) -> Tally:
        """Of all blocks but those of each of some spans, (n_spans)."""
        return Tally(*(each - span for each, span in zip(self.total().arrays, spans.arrays, strict=True)))


def population_stability(counts: Array, others: Array) -> Array:
    """PSI = sum of (p - q) ln(p / q) over the bins, (...), of counts (..., n_bins) from those of a reference.

    p and q are the shares of the counts with a half added to each bin (Krichevsky and Trofimov 1981), so that an empty
    bin has a share. It is the symmetric Kullback-Leibler divergence (Jeffreys 1946).
    """
    p, q = ((each + 0.5) / (each + 0.5).sum(axis=-1, keepdims=True) for each in (counts, others))
    index: Array = ((p - q) * np.log(p / q)).sum(axis=-1)
    return index


def mean_of(counts: Array, sums: Array) -> Array:
    """The mean of binned values, (...); NaN of none."""
    n, total = counts.sum(axis=-1), sums.sum(axis=-1)
    mean: Array = np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)
    return mean


def wasserstein(counts: Array, sums: Array, others: Array, other_sums: Array) -> float:
    """Wasserstein distance of order 1 of two binned distributions, in their unit, each bin's values at their mean.

    Each is (n_bins,). It is the integral of the difference of the two distribution functions, at most the mean
    absolute deviation of values within their bins, of both together, from that of the values themselves, and at least
    the shift of the mean.
    """
    places = np.concatenate([sums[counts > 0] / counts[counts > 0], other_sums[others > 0] / others[others > 0]])
    if not counts.sum() or not others.sum():
        return float("nan")
    mass = np.concatenate([counts[counts > 0] / counts.sum(), -others[others > 0] / others.sum()])
    order: NDArray[np.intp] = np.argsort(places)
    return float(np.abs(np.cumsum(mass[order])[:-1]) @ np.diff(places[order]))
