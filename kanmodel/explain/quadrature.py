"""Clenshaw-Curtis quadrature on [0, 1], with the differentiation matrix of its nodes.

Both ends are nodes, so one batch of evaluations gives the integral, the values at the ends, and the derivative of
whatever was evaluated. The n nodes are every other one of the 2n - 1, so a finer rule reuses what a coarser one
evaluated. Source: Trefethen 2000, "Spectral Methods in MATLAB", chapters 6 and 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from kanmodel.scaling import Array


@dataclass(frozen=True)
class Quadrature:
    """A rule of n nodes, exact for polynomials up to degree n - 1.

    Attributes:
        nodes: (n,), ascending, the first 0 and the last 1.
        weights: (n,), sum 1.
        derivative: (n, n); times the values of a function at the nodes, its derivative there.
    """

    nodes: Array
    weights: Array
    derivative: Array


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
