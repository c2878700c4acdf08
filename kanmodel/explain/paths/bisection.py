"""Adaptive bisection of integration paths.

Along most paths a network is smooth, and one rule of 17 nodes is enough. But an LSTM may switch from one state to
another within a thousandth of a path, which takes many nodes of one rule and a few halvings. Contributions are
integrals: those of the parts of a path add up to its own.

Three things are held against what is accepted, and a part of a path where one of them is too large is halved:

    residual   how far the layers are from completeness, and nodes from conservation
    error      the largest estimated error of any entry: errors of opposite sign cancel in every sum, not here
    move       how far a feature, gate or node moves between two neighbouring points, relative to where it usually lies

An error is an estimate. What happens wholly between two points without moving any node or gate that is watched, such as
a spline's bump much narrower than its grid, is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.explain.paths.path import PassedNodes
from kanmodel.network.ranges import Intervals, NodeRanges
from kanmodel.pausing import Pause
from kanmodel.scaling import Array

BATCH = 64  # paths that are bisected together
MAX_PARTS = 64  # a path with so many is not halved any further
MAX_MOVE = 0.5  # of a node between two neighbouring points, in widths of its intervals


@dataclass(frozen=True)
class Parts:
    """Parts of paths, in any order.

    Attributes:
        path: numbers of the paths, (n_parts,).
        low: where each begins, 0 at the baseline, (n_parts,).
        high: where it ends, 1 at the window, (n_parts,).
    """

    path: NDArray[np.int64]
    low: Array
    high: Array

    def __len__(self) -> int:
        return len(self.path)

    def take(self, chosen: NDArray[np.bool_] | slice) -> Parts:
        """Some of them."""
        return Parts(self.path[chosen], self.low[chosen], self.high[chosen])

    def halve(self) -> Parts:
        """The lower half of each, then the upper ones."""
        middle = (self.low + self.high) / 2
        return Parts(np.tile(self.path, 2), np.append(self.low, middle), np.append(middle, self.high))

    def join(self, others: Parts) -> Parts:
        """These, then the others."""
        return Parts(
            np.append(self.path, others.path), np.append(self.low, others.low), np.append(self.high, others.high)
        )


@dataclass(frozen=True)
class Integrals:
    """What is integrated over n parts of paths.

    Attributes:
        values: what adds up over the parts of a path, (n, ...) each.
        errors: as `estimate_errors` has them, of whatever is not to be wrong, (n, n_entries).
        residual: how far sums are from what they must be, (n,).
        move: the largest of any node between two neighbouring points, in widths of its intervals, (n,).
    """

    values: tuple[Array, ...]
    errors: Array
    residual: Array
    move: Array

    @property
    def error(self) -> Array:
        """The largest of any entry, (n,); not below the residual, which is an error of some entry."""
        error: Array = np.maximum(self.errors.max(axis=1), self.residual)
        return error

    @property
    def _arrays(self) -> tuple[Array, ...]:
        return (self.errors, self.residual, self.move, *self.values)

    @classmethod
    def _of(cls, arrays: Sequence[Array]) -> Integrals:
        errors, residual, move, *values = arrays
        return cls(tuple(values), errors, residual, move)

    def take(self, chosen: NDArray[np.bool_]) -> Integrals:
        """Some of them."""
        return Integrals._of([values[chosen] for values in self._arrays])

    @classmethod
    def join(cls, batches: Sequence[Integrals]) -> Integrals:
        """Those of several batches."""
        if len(batches) == 1:
            return batches[0]
        return cls._of([np.concatenate(arrays) for arrays in zip(*(batch._arrays for batch in batches), strict=True)])

    def total(self, parts: Parts) -> Integrals:
        """Over whole paths: sums of values, and of errors and residuals by magnitude, and the largest move."""
        n = int(parts.path.max()) + 1
        if n == len(parts):  # each is a whole path
            return self
        move = np.zeros(n)
        np.maximum.at(move, parts.path, self.move)
        values, errors = [add_parts(value, parts) for value in self.values], add_parts(self.errors, parts)
        return Integrals(tuple(values), errors, add_parts(self.residual, parts), move)


def bisect(
    n: int, integrate: Callable[[Parts], Integrals], batch: int, tolerance: float, halvings: int, pause: Pause
) -> tuple[Parts, Integrals]:
    """Integrates along paths, halving parts until each path is within the tolerance or may not be halved further.

    Args:
        n: number of paths.
        integrate: over parts of them, in one slice.
        batch: how many parts it takes at once.
        tolerance: largest accepted residual and error of a path.
        halvings: how often a part may be halved.
        pause: called between slices.

    Returns:
        The parts, of which each path has at least one, and what was found on each.
    """
    parts = Parts(np.arange(n), np.zeros(n), np.ones(n))
    found = _in_batches(integrate, batch, parts, pause)
    for _ in range(halvings):
        coarse = _find_coarse(parts, found, tolerance)
        if not coarse.any():
            break
        pause()
        halves = parts.take(coarse).halve()
        added = _in_batches(integrate, batch, halves, pause)
        parts = parts.take(~coarse).join(halves)
        found = Integrals.join([found.take(~coarse), added])
    return parts, found


def largest_move(ranges: NodeRanges, starts: Tensor, ends: Tensor, samples: PassedNodes, nodes: Array) -> Array:
    """The largest of any node of the network between two neighbouring points of each path, (n,).

    Args:
        ranges: of the network.
        starts: where the paths begin, (n, lookback, n_features).
        ends: where they end.
        samples: what passes at the points.
        nodes: positions of the points on the paths, (n_points,).

    Returns:
        In widths of the node's interval; to be compared with `MAX_MOVE`.
    """
    moves = [_largest_feature_move(ranges.features, starts, ends, nodes)]
    if ranges.gates is not None:
        moves += [ranges.gates.largest_move(gates) for gates in samples.gates]
    if ranges.front is not None:
        moves.append(ranges.front.largest_move(torch.cat(samples.front, dim=-1)))
    moves.append(ranges.nodes.largest_move(torch.cat([samples.readout, *samples.head], dim=-1)))
    return torch.stack(moves).amax(dim=0).double().numpy()


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


def _find_coarse(parts: Parts, found: Integrals, tolerance: float) -> NDArray[np.bool_]:
    """The parts to halve: of each path above the tolerance those with more than an equal share, and those with a jump.

    Residuals and errors of different parts could cancel, and then tell nothing, so they are added by magnitude.
    """
    n_parts = np.bincount(parts.path)
    above = np.maximum(add_parts(found.errors, parts).max(axis=1), add_parts(found.residual, parts)) > tolerance
    share = tolerance / n_parts[parts.path]
    coarse = (above[parts.path] & (found.error > share)) | (found.move > MAX_MOVE)
    chosen: NDArray[np.bool_] = coarse & (n_parts < MAX_PARTS)[parts.path]
    return chosen


def _in_batches(integrate: Callable[[Parts], Integrals], batch: int, parts: Parts, pause: Pause) -> Integrals:
    found: list[Integrals] = []
    for first in range(0, len(parts), batch):
        if found:
            pause()
        found.append(integrate(parts.take(slice(first, first + batch))))
    return Integrals.join(found)


def _largest_feature_move(features: Intervals, starts: Tensor, ends: Tensor, nodes: Array) -> Tensor:
    """That of the features, (n,): where it is small enough only a bound of it, as they move evenly."""
    if features.node is None or not len(features.width):
        return starts.new_zeros(len(ends))
    gap = float(np.diff(nodes).max())
    evenly: Tensor = gap * ((ends - starts).abs()[..., features.node] / features.width).flatten(1).amax(dim=1)
    if bool((evenly <= MAX_MOVE).all()):
        return evenly
    along = torch.from_numpy(nodes).to(ends.dtype)[:, None, None]
    return features.largest_move(torch.lerp(starts[:, None], ends[:, None], along))
