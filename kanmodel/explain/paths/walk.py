"""Ledgers of one output along the paths from a baseline to windows, before they are scaled to the target's unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.explain.paths.bisection import MAX_MOVE, Integrals, Parts, bisect, largest_move, part_ends
from kanmodel.explain.paths.layers import LedgerLayer, list_layers, measure_residual
from kanmodel.explain.paths.path import Contributions, integrate, paths_per_pass, sample_path
from kanmodel.explain.paths.quadrature import estimate_errors, nested_clenshaw_curtis
from kanmodel.network.frozen import FrozenNetwork
from kanmodel.network.ranges import NodeRanges
from kanmodel.pausing import Pause
from kanmodel.scaling import Array


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
class PathLedger:
    """Contributions along n whole paths, in model units.

    Attributes:
        start: F where each begins, (n,).
        end: F where it ends, (n,).
        contributions: along them.
        residual: as `measure_residual` has it, (n,).
        error: the largest of any entry, (n,), not below the residual.
        converged: whether it is within the tolerance, and no move is too large, (n,).
        n_nodes: nodes of each path, (n,).
    """

    start: Array
    end: Array
    contributions: Contributions
    residual: Array
    error: Array
    converged: NDArray[np.bool_]
    n_nodes: NDArray[np.int64]

    @property
    def _arrays(self) -> tuple[NDArray[Any], ...]:
        alone = (self.start, self.end, self.residual, self.error, self.converged, self.n_nodes)
        return (*alone, *self.contributions.arrays)

    @classmethod
    def _of(cls, arrays: Sequence[NDArray[Any]]) -> PathLedger:
        start, end, residual, error, converged, n_nodes, *contributions = arrays
        return cls(start, end, Contributions.of(contributions), residual, error, converged, n_nodes)

    @classmethod
    def join(cls, batches: Sequence[PathLedger]) -> PathLedger:
        """Those of several batches."""
        return cls._of([np.concatenate(arrays) for arrays in zip(*(batch._arrays for batch in batches), strict=True)])

    def replace(self, chosen: NDArray[np.bool_], others: PathLedger) -> PathLedger:
        """These, with others in place of some."""
        replaced = [values.copy() for values in self._arrays]
        for values, theirs in zip(replaced, others._arrays, strict=True):
            values[chosen] = theirs
        return PathLedger._of(replaced)


def explain_paths(walk: Walk, tolerance: float, halvings: int, pause: Pause) -> PathLedger:
    """The ledgers of paths.

    Args:
        walk: the paths.
        tolerance: largest accepted residual and error of a path, model units.
        halvings: how often a part may be halved.
        pause: called between slices.
    """
    n, network = len(walk.windows), walk.network.network
    batch = paths_per_pass(network.config, walk.n_nodes)
    parts, found = bisect(n, lambda parts: _integrate(walk, parts), batch, tolerance, halvings, pause)
    whole = found.total(parts)
    start, end = np.zeros(n), np.zeros(n)
    first, last = parts.low == 0, parts.high == 1
    start[parts.path[first]], end[parts.path[last]] = found.values[0][first], found.values[1][last]
    contributions = Contributions.of([end - start, *whole.values[2:]])
    residual = measure_residual(network, list_layers(network, walk.output, contributions), contributions.change)
    error = np.maximum(whole.errors.max(axis=1), residual)
    return PathLedger(
        start,
        end,
        contributions,
        residual,
        error,
        converged=(error <= tolerance) & (whole.move <= MAX_MOVE),
        n_nodes=np.bincount(parts.path) * (walk.n_nodes - 1) + 1,
    )


def _integrate(walk: Walk, parts: Parts) -> Integrals:
    """Integrals over parts; their values are F at both ends, and contributions without the change of F."""
    rule = nested_clenshaw_curtis(walk.n_nodes)
    starts, ends, change = part_ends(parts, walk.start, walk.windows)
    samples = sample_path(walk.network, starts, ends, walk.output, rule.nodes)
    nested = integrate(change, samples, rule)
    n, network = len(parts), walk.network.network
    layers = list_layers(network, walk.output, nested)
    residual = measure_residual(network, layers, nested.change).reshape(3, n)
    outputs = samples.outputs[:, :, 0].double().numpy()
    return Integrals(
        (outputs[:, 0], outputs[:, -1], *nested[:n].arrays[1:]),
        errors=estimate_errors(_list_entries(nested.steps, layers).reshape(3, n, -1), residual),
        residual=residual[0],
        move=largest_move(walk.ranges, starts, ends, samples.passed, rule.nodes),
    )


def _list_entries(steps: Array, layers: Sequence[LedgerLayer]) -> Array:
    """Every contribution of a ledger, (n, n_entries)."""
    arrays = [steps, *(values for layer in layers for values in (layer.nodes, layer.edges) if values is not None)]
    return np.concatenate([values.reshape(len(values), -1) for values in arrays], axis=1)
