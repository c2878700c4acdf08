"""`Tally`: what forecasts of a model read, used and missed, as counts and sums that add up.

A histogram has fixed bins, between the deciles of the reference windows and beyond their range on either side, so the
counts of several processes, replicas and hours add up. The sum of the values in each bin is kept too: with it a shift
is exact even where all values are beyond the range. Blocks are in order of time, an hour of a service or some
consecutive windows of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array

N_INNER = 10  # bins between the deciles of the reference
N_BINS = N_INNER + 2  # with those below and above its range
BELOW, ABOVE = 0, N_BINS - 1
ROUNDING = 1e-6  # of the range, or of the largest magnitude: of a value that was a float32
PRIOR = N_BINS / 2  # forecasts by which shares are smoothed

Blocks = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Bins:
    """The bins of some columns."""

    # (n_columns, N_BINS - 1), ascending: the number of edges below a value is that of its bin. Each is between two
    # neighbouring values of the reference, so that rounding moves none of them over it
    edges: Array

    @classmethod
    def of(cls, values: Array) -> Bins:
        """The bins of reference values, (n, n_columns), finite."""
        ordered = np.sort(values, axis=0)
        low, high = ordered[0], ordered[-1]
        inner = np.quantile(ordered, np.arange(1, N_INNER) / N_INNER, axis=0, method="inverted_cdf")
        margin = ROUNDING * np.maximum(high - low, np.maximum(np.abs(low), np.abs(high)))
        margin[margin == 0] = ROUNDING
        for column, edges in enumerate(inner.T):  # views of `inner`
            different = np.append(np.unique(ordered[:, column]), high[column] + 2 * margin[column])
            edges += (different[np.searchsorted(different, edges, "right")] - edges) / 2
        return cls(np.vstack([low - margin, inner, high + margin]).T)

    def count(self, values: Array, blocks: Blocks | None = None, n_blocks: int = 1) -> tuple[Array, Array]:
        """Counts and sums of values (n, n_columns) by block and bin, (n_blocks, n_columns, N_BINS); see `Tally.of`."""
        shape = n_blocks, len(self.edges), N_BINS
        places = np.stack([np.searchsorted(*pair) for pair in zip(self.edges, values.T, strict=True)])
        columns = np.arange(shape[1])[:, None] + shape[1] * (0 if blocks is None else blocks)
        numbers = (places + N_BINS * columns).ravel()
        counts, sums = (
            np.bincount(numbers, weights, np.prod(shape)).reshape(shape).astype(np.float64)
            for weights in (None, values.T.ravel())
        )
        return counts, sums


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts and sums over forecasts of one output, by block in order of time.

    Names are those of what a forecast is divided among: the outermost groups, and the features in none. Errors are
    forecast minus actual value, in the target's unit.
    """

    inputs: Array  # values of the features at the newest step by bin, (n_blocks, n_features, N_BINS)
    input_sums: Array  # their sums by bin, likewise
    forecasts: Array  # forecasts by bin, (n_blocks, 1, N_BINS)
    forecast_sums: Array  # their sums by bin, likewise
    explained: Array  # number of forecasts that are explained, (n_blocks,)
    contributions: Array  # sums of contributions, signed, (n_blocks, n_names)
    sizes: Array  # sums of |contribution|, (n_blocks, n_names)
    known: Array  # number of forecasts whose actual value is known, (n_blocks,)
    errors: Array  # sum of errors, (n_blocks,)
    sizes_of_errors: Array  # sum of |error|, (n_blocks,)
    intervals: Array  # number of intervals whose actual value is known, by level, (n_blocks, n_levels)
    covered: Array  # number of these that hold it, likewise

    @classmethod
    def of(
        cls,
        bins: Bins,  # of the features, and then of the forecasts
        newest: Array,  # values of the features at the newest step, (n, n_features)
        forecasts: Array,  # (n,)
        contributions: Array,  # (n, n_names)
        errors: Array,  # forecast minus actual value, (n,)
        inside: Array,  # 1 where an interval holds the actual value, or else 0, (n, n_levels)
        blocks: Blocks | None = None,  # the number of the block of each, (n,); by default all are in one
        n_blocks: int = 1,
    ) -> Tally:
        """Of n forecasts, in original units; NaN where a value is unknown."""
        counts, sums = bins.count(np.column_stack([newest, forecasts]), blocks, n_blocks)
        numbers = np.zeros(len(forecasts), dtype=np.int64) if blocks is None else blocks

        def add(values: NDArray[Any]) -> Array:
            """Sums of values (n, ...) by block, without NaN."""
            flat = np.nan_to_num(values.reshape(len(values), int(np.prod(values.shape[1:]))))
            places = (numbers[:, None] * flat.shape[1] + np.arange(flat.shape[1])).ravel()
            found = np.bincount(places, flat.ravel(), n_blocks * flat.shape[1]).astype(np.float64)
            return found.reshape(n_blocks, *values.shape[1:])

        explained = np.isfinite(contributions).all(axis=1)
        return cls(
            inputs=counts[:, :-1],
            input_sums=sums[:, :-1],
            forecasts=counts[:, -1:],
            forecast_sums=sums[:, -1:],
            explained=add(np.where(explained, 1.0, 0.0)),
            contributions=add(contributions),
            sizes=add(np.abs(contributions)),
            known=add(np.isfinite(errors).astype(np.float64)),
            errors=add(errors),
            sizes_of_errors=add(np.asarray(np.abs(errors))),
            intervals=add(np.isfinite(inside).astype(np.float64)),
            covered=add(inside),
        )

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

    def merged(self, n_blocks: int) -> Tally:
        """With neighbouring blocks as one, so that there are at most `n_blocks`, of about as many blocks each."""
        starts = np.arange(min(n_blocks, len(self))) * len(self) // max(min(n_blocks, len(self)), 1)
        return Tally(*(np.add.reduceat(each, starts, axis=0) for each in self.arrays))

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
    """Population stability index of counts (..., n_bins) from those of a reference, sum of (p - q) ln(p / q), (...).

    p and q are the shares of the counts, both smoothed by `PRIOR` forecasts that are distributed as those of both
    together, so that few forecasts are no drift for being few. It is the symmetric Kullback-Leibler divergence
    (Jeffreys 1946), 0 for equal shares and of no forecasts.
    """
    both = counts + others
    together = both / np.maximum(both.sum(axis=-1, keepdims=True), 1)
    p, q = ((each + PRIOR * together) / (each.sum(axis=-1, keepdims=True) + PRIOR) for each in (counts, others))
    index: Array = ((p - q) * np.log(np.divide(p, q, out=np.ones_like(p), where=both > 0))).sum(axis=-1)
    return index


def wasserstein(counts: Array, sums: Array, others: Array, other_sums: Array) -> float:
    """Wasserstein distance of order 1 of two binned distributions, in their unit, each bin's values at their mean.

    Each is (n_bins,). It is at least the shift of the mean, and differs from that of the values themselves by at most
    their mean absolute deviation within bins, of both together.
    """
    if not counts.any() or not others.any():
        return float("nan")
    places = np.concatenate([sums[counts > 0] / counts[counts > 0], other_sums[others > 0] / others[others > 0]])
    mass = np.concatenate([counts[counts > 0] / counts.sum(), -others[others > 0] / others.sum()])
    order: NDArray[np.intp] = np.argsort(places)
    return float(np.abs(np.cumsum(mass[order])[:-1]) @ np.diff(places[order]))
