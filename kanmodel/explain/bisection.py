"""Paths that are halved where what is said of them does not add up.

Along most paths a network is smooth, and one rule of 17 nodes does. But an LSTM may tip over from one state into
another within a thousandth of a path, often near a baseline that is an unlikely window. No affordable number of nodes
of one rule sees that; a few halvings do. Contributions are integrals: those of the parts of a path add up to its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.explain.path import Entries, Slices, balance, concatenate, sample_path, tally
from kanmodel.explain.quadrature import clenshaw_curtis
from kanmodel.network.frozen import FrozenNetwork
from kanmodel.scaling import Array

BATCH = 64  # parts whose samples are kept and tallied together
MAX_PARTS = 32  # a path with so many is not halved any further


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
        windows: the ends of the paths, (n, lookback, n_features), model units.
        start: where all begin, (lookback, n_features).
        output: number of the output.
        n_nodes: of the rule for each part.
    """

    network: FrozenNetwork
    windows: Tensor
    start: Tensor
    output: int
    n_nodes: int


def explain_paths(walk: Walk, tolerance: float, halvings: int) -> Slices[Entries]:
    """Entries of `path.balance` for each window, and the nodes of its path as ``n_nodes``.

    Args:
        walk: the paths.
        tolerance: largest accepted residual of a path, model units.
        halvings: how often a part may be halved.
    """
    n, network = len(walk.windows), walk.network.network
    parts = Parts(np.arange(n), np.zeros(n), np.ones(n))
    tallied = yield from _tally(walk, parts)
    entries = balance(network, walk.output, tallied)  # of the parts
    whole = {key: tallied[key] for key in (("path", 0, "start"), ("path", 0, "end"))}
    for _ in range(halvings):
        coarse = _find_coarse(parts, entries["path", 0, "residual"], tolerance)
        if not coarse.any():
            break
        yield
        halves = parts.take(coarse).halve()
        added = yield from _tally(walk, halves)
        parts = parts.take(~coarse).join(halves)
        tallied = concatenate([{key: values[~coarse] for key, values in tallied.items()}, added])
        entries = balance(network, walk.output, tallied)
    if len(parts) > n:
        sums = {key: _sum(values, parts.path, n) for key, values in tallied.items()}
        entries = balance(network, walk.output, sums | whole)
    entries["path", 0, "n_nodes"] = np.bincount(parts.path).astype(np.float64) * (walk.n_nodes - 1) + 1
    return entries


def _find_coarse(parts: Parts, residual: Array, tolerance: float) -> NDArray[np.bool_]:
    """Of each path whose residuals together are above the tolerance, the parts with more than an equal share of it.

    Residuals of different parts could cancel, and then tell nothing, so they are added up by size.
    """
    n_parts = np.bincount(parts.path)
    goes_on = (np.bincount(parts.path, weights=residual) > tolerance) & (n_parts < MAX_PARTS)
    coarse: NDArray[np.bool_] = goes_on[parts.path] & (residual > tolerance / n_parts[parts.path])
    return coarse


def _tally(walk: Walk, parts: Parts) -> Slices[Entries]:
    """What `path.tally` says of parts, some of them at a time."""
    rule = clenshaw_curtis(walk.n_nodes)
    tallied: list[Entries] = []
    for first in range(0, len(parts), BATCH):
        if tallied:
            yield
        batch = parts.take(slice(first, first + BATCH))
        windows = walk.windows[torch.from_numpy(batch.path)]
        low, high = (_column(ends, windows) for ends in (batch.low, batch.high))
        starts, ends = torch.lerp(walk.start, windows, low), torch.lerp(walk.start, windows, high)
        samples = yield from sample_path(walk.network, starts, ends, walk.output, rule.nodes)
        change = (windows - walk.start).double() * (high - low).double()
        tallied.append(tally(change, samples, rule))
    return concatenate(tallied)


def _column(positions: Array, like: Tensor) -> Tensor:
    return torch.from_numpy(positions).to(like.dtype)[:, None, None]


def _sum(values: Array, path: NDArray[np.int64], n: int) -> Array:
    """Over the parts of each of n paths."""
    total = torch.zeros(n, *values.shape[1:], dtype=torch.float64)
    return total.index_add_(0, torch.from_numpy(path), torch.from_numpy(values)).numpy()
