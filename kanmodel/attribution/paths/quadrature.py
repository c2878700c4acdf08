"""Clenshaw-Curtis quadrature on [0, 1], with the differentiation matrix of its nodes and the coarser rules inside.

Every other node is a node of the rule of half as many intervals, so the same evaluations give coarser rules, and their
differences an estimate of the error. Sources: Trefethen 2000, "Spectral Methods in MATLAB", chapters 6 and 12; Laurie
1983, "Sharper error estimates in adaptive quadrature", BIT 23: the difference of the last two rules, scaled by the
decay of the error, which is measured here, since the error of some sums is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.polynomial.chebyshev import chebint, chebvander

from kanmodel.arrays import Array

LEAST_SHARE = 0.003  # of the difference between the two coarser rules, in the error of the fine one
MARGIN = 1.3  # the decay of one entry's error differs from that of the known errors
POWER = 3  # of the decrease of the differences, the least rate
VISIBLE = 0.01  # weight of the entries' own differences in the decay, which alone count where no error is known


@dataclass(frozen=True)
class Quadrature:
    """A rule of n nodes, exact for polynomials up to degree n - 1; or several rules over some of these nodes."""

    nodes: Array  # (n,), ascending, the first 0 and the last 1
    weights: Array  # (n,), sum 1; or of each rule, (n_rules, n), 0 at the nodes that it leaves out
    derivative: Array  # (n, n); times a function's values at the nodes, its derivative there; or (n_rules, n, n)

    @cached_property
    def adjoints(self) -> Array:
        """(n_rules n, n), of several rules: (adjoints @ u) @ v integrates u v', from values of u and v at the nodes."""
        products = self.weights[..., None] * self.derivative
        return products.swapaxes(1, 2).reshape(-1, len(self.nodes))

    @cached_property
    def own(self) -> list[tuple[int, Array]]:
        """Of each rule which nodes it has, such as every other, and (n, n): (own @ v) @ u integrates u v' by it."""
        strides = [(len(self.nodes) - 1) // (int(np.count_nonzero(weights)) - 1) for weights in self.weights]
        rules = zip(strides, self.weights, self.derivative, strict=True)
        return [(every, weights[::every, None] * slopes[::every, ::every]) for every, weights, slopes in rules]

    @cached_property
    def antiderivative(self) -> Array:
        """(n, n), of one rule; times a function's values at the nodes, its integral from 0 to each of them."""
        x, n = 2 * self.nodes - 1, len(self.nodes)
        matrix: Array = chebvander(x, n) @ chebint(np.eye(n), lbnd=-1) @ np.linalg.inv(chebvander(x, n - 1)) / 2
        return matrix


@lru_cache
def clenshaw_curtis(n: int) -> Quadrature:
    """The rule of `n` >= 2 nodes."""
    angle = np.pi * np.arange(n) / (n - 1)
    x = np.sin(angle - np.pi / 2)  # -cos(angle), without its rounding at the middle; on [-1, 1]
    even = np.arange(0, n, 2)
    moments = 2 / (1 - even**2)  # integrals of the Chebyshev polynomials of even degree
    moments[0] *= 0.5
    if even[-1] == n - 1:
        moments[-1] *= 0.5
    weights = 2 / (n - 1) * (np.cos(np.outer(angle, even)) @ moments)
    weights[[0, -1]] *= 0.5

    sign = (-1.0) ** np.arange(n)
    sign[[0, -1]] *= 2
    distance = x[:, None] - x[None, :]
    np.fill_diagonal(distance, 1.0)
    derivative = np.outer(sign, 1 / sign) / distance
    np.fill_diagonal(derivative, 0.0)
    np.fill_diagonal(derivative, -derivative.sum(axis=1))  # a constant has derivative 0, exactly
    return Quadrature((x + 1) / 2, weights / 2, 2 * derivative)


@lru_cache
def nested_clenshaw_curtis(n: int) -> Quadrature:
    """The rules of `n` nodes, a multiple of 4 and one, of every other of them, and of every fourth."""
    weights, derivative = np.zeros((3, n)), np.zeros((3, n, n))
    for number, every in enumerate((1, 2, 4)):
        rule = clenshaw_curtis((n - 1) // every + 1)
        weights[number, ::every], derivative[number, ::every, ::every] = rule.weights, rule.derivative
    return Quadrature(clenshaw_curtis(n).nodes, weights, derivative)


@lru_cache
def interpolation(n: int, factor: int) -> Array:
    """(factor (n - 1) + 1, n); times values at the nodes of a rule, those at the nodes of a finer one around them.

    Source: Berrut and Trefethen 2004, "Barycentric Lagrange interpolation", SIAM Review 46, eq. 4.2 and 5.4.
    """
    weights = (-1.0) ** np.arange(n)
    weights[[0, -1]] *= 0.5
    distance = clenshaw_curtis(factor * (n - 1) + 1).nodes[:, None] - clenshaw_curtis(n).nodes
    distance[::factor][np.eye(n, dtype=bool)] = 1.0
    matrix: Array = weights / distance
    matrix[::factor] = np.eye(n)
    matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


@lru_cache
def _antiderivatives(n: int) -> tuple[Array, Array]:
    """(n, n_points) each; values at the nodes times the first are their integrals up to each point, by three rules.

    Times the second they are a function's changes up to there; the points are the nodes of each rule in turn.
    """
    integrals, changes = [], []
    for every in (1, 2, 4):
        matrix = np.zeros((n, (n - 1) // every + 1))
        matrix[::every] = clenshaw_curtis(matrix.shape[1]).antiderivative.T
        integrals.append(matrix)
        changes.append(np.eye(n)[:, ::every] - np.eye(n)[:, :1])
    return np.concatenate(integrals, axis=1), np.concatenate(changes, axis=1)


def measure_gaps(values: Array, slopes: Array) -> Array:
    """Known errors of three nested rules, the finest first, (3, n), from a function and its slopes at (n, n_nodes).

    The root mean square of the errors of the integrals of the derivative from the first node to each other one.
    """
    n_nodes = values.shape[1]
    integrals, changes = _antiderivatives(n_nodes)
    squares = np.square(slopes @ integrals - values @ changes).T
    sizes = [(n_nodes - 1) // every + 1 for every in (1, 2, 4)]
    first = [0, sizes[0], sizes[0] + sizes[1]]
    gaps: Array = np.sqrt(np.add.reduceat(squares, first) / np.array(sizes)[:, None])
    return gaps


def estimate_errors(n_nodes: int, entries: Array, gaps: Array) -> tuple[Array, Array]:
    """Errors of the finest of three nested rules, (n, n_entries), and the rate of convergence, (n,).

    |fine - coarse| estimates the error of the coarse rule. That of the fine rule is smaller by the rate at which
    doubling the nodes has reduced the known errors: at least by a `POWER` of the decrease of the rules' differences,
    since entries may converge more slowly than sums in which they cancel, and by 1 / n_nodes, since few nodes may show
    a decay that does not last. Two rules may agree while both are wrong, so the error is at least a small share of the
    difference between the two coarser ones.

    Args:
        n_nodes: of the finest rule.
        entries: results of each rule, (3, n, n_entries), the finest first.
        gaps: known errors of each rule, (3, n), such as those of sums of entries.
    """
    differences = entries[:-1] - entries[1:]  # the only array of its size: others would take most of the time
    np.abs(differences, out=differences)
    after, before = differences.max(axis=2)
    known, own = _ratio(gaps[0] + VISIBLE * after, gaps[1] + VISIBLE * before), _ratio(after, before) ** POWER
    rate: Array = np.maximum(np.maximum(known, own), 1 / n_nodes)
    errors, least = differences
    errors *= MARGIN
    errors *= rate[:, None]
    least *= LEAST_SHARE
    return np.maximum(errors, least, out=errors), rate


def _ratio(after: Array, before: Array) -> Array:
    """after / before, up to 1; and 1 where there was nothing before."""
    ratio: Array = np.divide(after, before, out=np.ones_like(after), where=before > after)
    return ratio
