"""The support of edges: the distribution of their inputs on the reference windows, and the nearest line there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kanmodel.scaling import Array

N_BINS = 20


@dataclass(frozen=True)
class Grid:
    """Where the basis of the edges that leave a node is, as positions of what the curve is a function of.

    Attributes:
        knots: ascending; those that no position within reach leads to are missing. Empty for a basis without any.
        core: ends of the interval beyond which the basis fades to zero; None where it never does, or nothing within
            reach lies inside.
        outside: share of the reference inputs beyond it; None for a basis without one.
    """

    knots: Array
    core: tuple[float, float] | None
    outside: float | None


@dataclass(frozen=True)
class Support:
    """The values of an edge's input on the reference windows, model units.

    Attributes:
        p01: 1st percentile.
        p50: median.
        p99: 99th percentile.
        histogram_edges: (21,), from the smallest to the largest value.
        histogram_counts: (20,).
        outside_grid: share of the values beyond the core interval of the grid, where the basis fades to zero; None for
            a basis without one.
        coverage: length from p01 to p99, as a share of the core interval's; infinite for a grid of no length, None
            without one.
    """

    p01: float
    p50: float
    p99: float
    histogram_edges: Array
    histogram_counts: Array
    outside_grid: float | None
    coverage: float | None


@dataclass(frozen=True)
class LinearFit:
    """The straight line nearest to an edge at the reference inputs between p01 and p99 (least squares).

    Attributes:
        slope: model units.
        intercept: model units.
        r2: coefficient of determination there; 1 for a constant edge.
    """

    slope: float
    intercept: float
    r2: float


def measure_supports(inputs: Array, grids: Sequence[Grid]) -> list[Support]:
    """The support of each input.

    Args:
        inputs: what the reference windows send through its edges, (n_in, n), model units.
        grids: where the basis of its edges is.
    """
    percentiles = np.percentile(inputs, (1, 50, 99), axis=1).T.tolist()
    return [_measure_support(*measured) for measured in zip(inputs, percentiles, grids, strict=True)]


def _measure_support(values: Array, percentiles: Sequence[float], grid: Grid) -> Support:
    p01, p50, p99 = percentiles
    counts, edges = np.histogram(values, bins=N_BINS)
    outside, coverage = grid.outside, None
    if grid.core is not None:
        length = grid.core[1] - grid.core[0]
        coverage = (p99 - p01) / length if length > 0 else float("inf")
    return Support(p01, p50, p99, edges, counts.astype(np.float64), outside, coverage)


def fit_lines(inputs: Array, outputs: Array, supports: Sequence[Support]) -> list[list[LinearFit]]:
    """The line of each edge, by input, then sub-node.

    Args:
        inputs: as `measure_supports` has them, (n_in, n).
        outputs: what the edges make of them, (n_in, n_subnodes, n), model units.
        supports: those of the inputs.
    """
    ends = np.array([(support.p01, support.p99) for support in supports])
    inside = (inputs >= ends[:, :1]) & (inputs <= ends[:, 1:])
    inside |= ~inside.any(axis=1, keepdims=True)  # of two values neither lies between the percentiles
    inputs, inside = inputs[:, None], inside[:, None]
    x_mean, y_mean = _mean(inputs, inside), _mean(outputs, inside)
    x, y = np.where(inside, inputs - x_mean, 0.0), np.where(inside, outputs - y_mean, 0.0)
    slopes = _divide(_sum(x * y), _sum(x**2))
    r2 = 1 - _divide(_sum((y - x * slopes) ** 2), _sum(y**2))
    fitted = np.concatenate([slopes, y_mean - slopes * x_mean, r2], axis=2)
    return [[LinearFit(*line) for line in of_input] for of_input in fitted.tolist()]


def _mean(values: Array, inside: NDArray[np.bool_]) -> Array:
    """Of those inside, along the last axis. That of equal values is one of them, not what rounding makes of a sum."""
    lowest = values.min(axis=-1, where=inside, initial=np.inf, keepdims=True)
    highest = values.max(axis=-1, where=inside, initial=-np.inf, keepdims=True)
    mean: Array = np.where(lowest < highest, values.mean(axis=-1, where=inside, keepdims=True), lowest)
    return mean


def _sum(values: Array) -> Array:
    total: Array = values.sum(axis=-1, keepdims=True)
    return total


def _divide(numerator: Array, denominator: Array) -> Array:
    """0/0 counts as 0."""
    quotient: Array = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
    return quotient
