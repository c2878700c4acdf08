"""Adaptive bisection of integration paths.

Along most paths a network is smooth, and one rule of 17 nodes does. But an LSTM may tip over from one state into
another within a thousandth of a path, often near a baseline that is an unlikely window. No affordable number of nodes
of one rule sees that; a few halvings do. Contributions are integrals: those of the parts of a path add up to its own.

Three things are held against what is accepted, and a part of a path where one of them is too large is halved:

    residual   how far the layers are from completeness, and nodes from conservation
    error      the largest |fine - coarse| of any entry: errors of opposite sign cancel in every sum, not here
    move       how far a node moves between two neighbouring points: what lies between them no rule sees
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.explain.layers import LedgerLayer, list_layers, measure_residual
from kanmodel.explain.path import Contributions, PathSamples, Slices, integrate, sample_path
from kanmodel.explain.quadrature import estimate_errors, nested_clenshaw_curtis
from kanmodel.frozen import FrozenNetwork
from kanmodel.ranges import Intervals, NodeRanges
from kanmodel.scaling import Array

BATCH = 64  # parts whose samples are kept and integrated together
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
class Walk:
    """What is walked.

    Attributes:
        network: the network.
        ranges: of its nodes.
        windows: the ends of the paths, (n, lookback, n_features), model units, in the network's type.
        start: where all begin, (lookback, n_features).
        output: number of the output.
        n_nodes: of the rule for each part.
    """

    network: FrozenNetwork
    ranges: NodeRanges
    windows: Tensor
    start: Tensor
    output: int
    n_nodes: int


@dataclass(frozen=True)
class Integrals:
    """What is integrated over n parts of paths, or over whole paths.

    Attributes:
        start: F where each begins, (n,).
        end: F where it ends, (n,).
        contributions: along them.
        errors: as `estimate_errors` has them, added over the parts by magnitude, (n, n_entries).
        residual: as `measure_residual` has it, (n,).
        move: the largest of any node between two neighbouring points, in widths of its intervals, (n,).
    """

    start: Array
    end: Array
    contributions: Contributions
    errors: Array
    residual: Array
    move: Array

    @property
    def error(self) -> Array:
        """The largest of any entry, (n,); not below the residual, which is an error of some entry."""
        error: Array = np.maximum(self.errors.max(axis=1), self.residual)
        return error

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All of them."""
        return (self.start, self.end, self.errors, self.residual, self.move, *self.contributions.arrays)

    @classmethod
    def of(cls, arrays: Sequence[Array]) -> Integrals:
        """Of `arrays`."""
        start, end, errors, residual, move, *contributions = arrays
        return cls(start, end, Contributions.of(contributions), errors, residual, move)

    def take(self, chosen: NDArray[np.bool_]) -> Integrals:
        """Some of them."""
        return Integrals.of([values[chosen] for values in self.arrays])

    @classmethod
    def join(cls, batches: Sequence[Integrals]) -> Integrals:
        """Those of several batches."""
        if len(batches) == 1:
            return batches[0]
        return cls.of([np.concatenate(arrays) for arrays in zip(*(batch.arrays for batch in batches), strict=True)])


@dataclass(frozen=True)
class Explained:
    """Integrals over whole paths.

    Attributes:
        integrals: of each path, (n, ...) each.
        converged: whether residual and error are within what is accepted, and no move is too large, (n,).
        n_nodes: nodes of each path, (n,).
    """

    integrals: Integrals
    converged: NDArray[np.bool_]
    n_nodes: NDArray[np.int64]

    def replace(self, chosen: NDArray[np.bool_], others: Explained) -> Explained:
        """These, with others in place of some."""
        replaced = []
        for mine, theirs in zip(self._arrays, others._arrays, strict=True):
            replaced.append(mine.copy())
            replaced[-1][chosen] = theirs
        return Explained._of(replaced)

    @classmethod
    def join(cls, batches: Sequence[Explained]) -> Explained:
        """Those of several batches."""
        return cls._of([np.concatenate(arrays) for arrays in zip(*(batch._arrays for batch in batches), strict=True)])

    @property
    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return (self.converged, self.n_nodes, *self.integrals.arrays)

    @classmethod
    def _of(cls, arrays: Sequence[NDArray[Any]]) -> Explained:
        converged, n_nodes, *integrals = arrays
        return cls(Integrals.of(integrals), converged, n_nodes)


def explain_paths(walk: Walk, tolerance: float, halvings: int) -> Slices[Explained]:
    """Integrates along the paths, halving parts until each path is within the tolerance or may not be halved further.

    Args:
        walk: the paths.
        tolerance: largest accepted residual and error of a path, model units.
        halvings: how often a part may be halved.
    """
    n = len(walk.windows)
    parts = Parts(np.arange(n), np.zeros(n), np.ones(n))
    found = yield from _integrate(walk, parts)
    ends = found.start, found.end
    for _ in range(halvings):
        coarse = _find_coarse(parts, found, tolerance)
        if not coarse.any():
            break
        yield
        halves = parts.take(coarse).halve()
        added = yield from _integrate(walk, halves)
        parts = parts.take(~coarse).join(halves)
        found = Integrals.join([found.take(~coarse), added])
    whole = found if len(parts) == n else _sum(walk, parts, found, *ends)
    converged = (whole.error <= tolerance) & (whole.move <= MAX_MOVE)
    return Explained(whole, converged, np.bincount(parts.path) * (walk.n_nodes - 1) + 1)


def _find_coarse(parts: Parts, found: Integrals, tolerance: float) -> NDArray[np.bool_]:
    """The parts to halve: of each path above the tolerance those with more than an equal share, and those with a jump.

    Residuals and errors of different parts could cancel, and then tell nothing, so they are added by magnitude.
    """
    n_parts = np.bincount(parts.path)
    jumps = found.move > MAX_MOVE
    residual, errors = (_total(values, parts.path, len(n_parts)) for values in (found.residual, found.errors))
    above = np.maximum(residual, errors.max(axis=1)) > tolerance
    coarse = (above[parts.path] & (found.error > tolerance / n_parts[parts.path])) | jumps
    chosen: NDArray[np.bool_] = coarse & (n_parts < MAX_PARTS)[parts.path]
    return chosen


def _integrate(walk: Walk, parts: Parts) -> Slices[Integrals]:
    """Integrals over parts, some of them at a time."""
    batches: list[Integrals] = []
    for first in range(0, len(parts), BATCH):
        if batches:
            yield
        batches.append((yield from _integrate_batch(walk, parts.take(slice(first, first + BATCH)))))
    return Integrals.join(batches)


def _integrate_batch(walk: Walk, parts: Parts) -> Slices[Integrals]:
    rule = nested_clenshaw_curtis(walk.n_nodes)
    windows = walk.windows[torch.from_numpy(parts.path)]
    low, high = (_column(ends, windows) for ends in (parts.low, parts.high))
    starts, ends = torch.lerp(walk.start, windows, low), torch.lerp(walk.start, windows, high)
    samples = yield from sample_path(walk.network, starts, ends, walk.output, rule.nodes)
    change = (windows - walk.start).double() * (high - low).double()
    nested = integrate(change, samples, rule)
    n, network = len(parts), walk.network.network
    layers = list_layers(network, walk.output, nested)
    residual = measure_residual(network, layers, nested.change).reshape(3, n)
    return Integrals(
        start=samples.outputs[:, 0, 0].double().numpy(),
        end=samples.outputs[:, -1, 0].double().numpy(),
        contributions=nested[:n],
        errors=estimate_errors(_list_entries(nested.steps, layers).reshape(3, n, -1), residual),
        residual=residual[0],
        move=_largest_move(walk.ranges, starts, ends, samples, rule.nodes),
    )


def _list_entries(steps: Array, layers: Sequence[LedgerLayer]) -> Array:
    """Every contribution of a ledger, (n, n_entries)."""
    arrays = [steps, *(values for layer in layers for values in (layer.nodes, layer.edges) if values is not None)]
    return np.concatenate([values.reshape(len(values), -1) for values in arrays], axis=1)


def _largest_move(ranges: NodeRanges, starts: Tensor, ends: Tensor, samples: PathSamples, nodes: Array) -> Array:
    """The largest of any node of the network between two neighbouring points of each path, (n,)."""
    moves = [_largest_feature_move(ranges.features, starts, ends, nodes)]
    if ranges.gates is not None:
        moves += [ranges.gates.largest_move(gates) for gates in samples.gates]
    if ranges.front is not None:
        moves.append(ranges.front.largest_move(torch.cat(samples.front_nodes, dim=-1)))
    moves.append(ranges.nodes.largest_move(torch.cat([samples.readout, *samples.head_nodes], dim=-1)))
    return torch.stack(moves).amax(dim=0).double().numpy()


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


def _column(positions: Array, like: Tensor) -> Tensor:
    return torch.from_numpy(positions).to(like.dtype)[:, None, None]


def _sum(walk: Walk, parts: Parts, found: Integrals, start: Array, end: Array) -> Integrals:
    """Integrals over whole paths from those over their parts; the ends of a path are known exactly."""
    n = len(start)
    contributions = Contributions.of(
        [end - start, *(_total(values, parts.path, n) for values in found.contributions.arrays[1:])]
    )
    layers = list_layers(walk.network.network, walk.output, contributions)
    residual = measure_residual(walk.network.network, layers, contributions.change)
    move = np.zeros(n)
    np.maximum.at(move, parts.path, found.move)
    return Integrals(start, end, contributions, _total(found.errors, parts.path, n), residual, move)


def _total(values: Array, path: NDArray[np.int64], n: int) -> Array:
    """Sums over the parts of each of n paths."""
    total = torch.zeros(n, *values.shape[1:], dtype=torch.float64)
    return total.index_add_(0, torch.from_numpy(path), torch.from_numpy(values)).numpy()
