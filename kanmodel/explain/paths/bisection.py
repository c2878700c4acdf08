"""Adaptive bisection of integration paths.

Along most paths a network is smooth, and one rule of 17 nodes is enough. But an LSTM may switch from one state to
another within a thousandth of a path, which takes very many nodes of one rule, or a few bisections. Contributions are
integrals: those of the parts of a path add up to its own.

The position of a kink of an activation, such as relu's, is known, so a part that crosses one is divided there.

Three measures are compared with their limits, and a part of a path where one is too large is bisected:

    residual   deviation of layers from completeness, and of nodes from conservation
    error      the largest estimated error of any entry: errors of opposite sign cancel in every sum, but not here
    move       the largest move of a feature, gate or node between neighbouring points, relative to its usual range

An error is an estimate: it misses what happens entirely between two points without moving any node or gate there. What
the functions of edges do there counts as an error too; see `shapes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.computing import pause
from kanmodel.data import Array
from kanmodel.explain.paths.path import MAX_MOVE, concatenate, map_arrays, take

Values = TypeVar("Values")

BATCH = 64  # paths that are bisected together
MAX_PARTS = 64  # a path with this many parts is not bisected further


class Parts(NamedTuple):
    """Parts of paths, in any order.

    Attributes:
        path: indices of the paths, (n_parts,).
        low: where each begins, 0 at the baseline, (n_parts,).
        high: where it ends, 1 at the window, (n_parts,).
    """

    path: NDArray[np.int64]
    low: Array
    high: Array

    def divide(self, at: Array) -> Parts:
        """The lower part of each, then the upper ones, divided at positions from 0 to 1 on each, (n_parts,)."""
        middle = self.low + at * (self.high - self.low)
        return Parts(np.tile(self.path, 2), np.append(self.low, middle), np.append(middle, self.high))


class Integrals(NamedTuple, Generic[Values]):
    """Integrals over n parts of paths.

    Attributes:
        values: what adds up over the parts of a path, arrays (n, ...) in tuples.
        errors: of every entry, from `estimate_errors`, (n, n_entries).
        residual: largest deviation of the sums, (n,).
        move: the largest move of any node between neighbouring points, in widths of its usual interval, (n,).
        n_nodes: nodes of the rule, (n,).
        divide_at: where to divide each part if necessary, from 0 to 1, (n,).
    """

    values: Values
    errors: Array
    residual: Array
    move: Array
    n_nodes: NDArray[np.int64]
    divide_at: Array

    @property
    def error(self) -> Array:
        """The largest error of any entry, (n,); not below the residual, which is itself an error of entries."""
        error: Array = np.maximum(self.errors.max(axis=1), self.residual)
        return error

    def total(self, parts: Parts) -> Integrals[Values]:
        """Over whole paths: sums of values, of errors and residuals by magnitude, and the largest move."""
        n = int(parts.path.max()) + 1
        if n == len(parts.path):  # every part is a whole path
            return self
        move, n_nodes = np.zeros(n), np.ones(n, dtype=np.int64)
        np.maximum.at(move, parts.path, self.move)
        np.add.at(n_nodes, parts.path, self.n_nodes - 1)  # adjacent parts share a node
        values = map_arrays(lambda value: add_parts(value, parts), self.values)
        return Integrals(
            values, add_parts(self.errors, parts), add_parts(self.residual, parts), move, n_nodes, np.full(n, 0.5)
        )


def bisect(
    n: int,
    integrate: Callable[[Parts, Array], Integrals[Values]],
    batch: int,
    tolerance: float,
    halvings: int,
) -> tuple[Parts, Integrals[Values]]:
    """Integrates along paths, bisecting parts until each path is within the tolerance or the limit is reached.

    Args:
        n: number of paths.
        integrate: integrates over parts in one slice; the second argument is the accepted error of each part, (n,).
        batch: parts per call of `integrate`.
        tolerance: largest accepted residual and error of a path.
        halvings: most bisections of a part.

    Returns:
        The parts, at least one per path, and the integrals over each.
    """
    parts = Parts(np.arange(n), np.zeros(n), np.ones(n))
    found = _in_batches(integrate, batch, parts, np.full(n, tolerance))
    for _ in range(halvings):
        coarse = _find_coarse(parts, found, tolerance)
        if not coarse.any():
            break
        pause()
        halves = take(parts, coarse).divide(found.divide_at[coarse])
        fine = take(parts, ~coarse)
        share = tolerance / np.bincount(np.append(fine.path, halves.path))[halves.path]
        added = _in_batches(integrate, batch, halves, share)
        parts, found = concatenate([fine, halves]), concatenate([take(found, ~coarse), added])
    return parts, found


def add_parts(values: Array, parts: Parts) -> Array:
    """Sums over the parts of each path, (n_parts, ...) -> (n, ...)."""
    total = torch.zeros(int(parts.path.max()) + 1, *values.shape[1:], dtype=torch.float64)
    return total.index_add_(0, torch.from_numpy(parts.path), torch.from_numpy(values)).numpy()


def part_ends(parts: Parts, start: Tensor, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where parts of the paths from one window to others begin and end, and the change between in float64.

    Args:
        parts: the parts.
        start: where all paths begin, (lookback, n_features).
        windows: where they end, (n, lookback, n_features).

    Returns:
        Three tensors (n_parts, lookback, n_features).
    """
    of_part = windows[torch.from_numpy(parts.path)]
    low, high = (torch.from_numpy(ends).to(windows.dtype)[:, None, None] for ends in (parts.low, parts.high))
    change = (of_part - start).double() * (high - low).double()
    return torch.lerp(start, of_part, low), torch.lerp(start, of_part, high), change


def _find_coarse(parts: Parts, found: Integrals[Values], tolerance: float) -> NDArray[np.bool_]:
    """The parts to bisect: in each path above the tolerance those with more than an equal share, and those with a jump.

    Residuals and errors of different parts could cancel, so their magnitudes are added.
    """
    n_parts = np.bincount(parts.path)
    share = tolerance / n_parts[parts.path]
    coarse = found.error > share
    if coarse.any():
        above = np.maximum(add_parts(found.errors, parts).max(axis=1), add_parts(found.residual, parts)) > tolerance
        coarse &= above[parts.path]
    coarse |= found.move > MAX_MOVE
    chosen: NDArray[np.bool_] = coarse & (n_parts < MAX_PARTS)[parts.path]
    return chosen


def _in_batches(
    integrate: Callable[[Parts, Array], Integrals[Values]], batch: int, parts: Parts, accepted: Array
) -> Integrals[Values]:
    found: list[Integrals[Values]] = []
    for first in range(0, len(parts.path), batch):
        if found:
            pause()
        chosen = slice(first, first + batch)
        found.append(integrate(take(parts, chosen), accepted[chosen]))
    return concatenate(found)
