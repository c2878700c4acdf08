"""Contributions to one output along the paths from a baseline to windows, before they are scaled to its unit.

The rules are nested, so a path starts with few nodes, and the nodes between them are added where its error requires
it. Most paths are smooth, and every doubling of the nodes gains several digits; a path, or a part of one, that doubling
would not bring within the tolerance is bisected instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.data import Array
from kanmodel.explain.paths.bisection import (
    MAX_MOVE,
    Integrals,
    PartEnds,
    Parts,
    bisect,
    divide_at_kinks,
    largest_beyond,
    largest_move,
    measure_crossings,
    measure_hidden,
    part_ends,
)
from kanmodel.explain.paths.path import (
    Contributions,
    LedgerLayer,
    PathSamples,
    integrate,
    list_layers,
    map_arrays,
    measure_residual,
    paths_per_pass,
    points_along,
    sample_path,
    take,
)
from kanmodel.explain.paths.quadrature import estimate_errors, nested_clenshaw_curtis
from kanmodel.network.bounds import NodeRanges
from kanmodel.network.chain import FrozenNetwork


class PathLedger(NamedTuple):
    """Contributions along n whole paths, in model units.

    Attributes:
        contributions: contributions along the paths.
        residual: from `measure_residual`, (n,).
        error: the largest of any entry, (n,), not below the residual.
        converged: whether the error is within the tolerance and no move is too large, (n,).
        n_nodes: nodes of each path, (n,).
    """

    contributions: Contributions
    residual: Array
    error: Array
    converged: NDArray[np.bool_]
    n_nodes: NDArray[np.int64]


class Walk(NamedTuple):
    """The paths of a ledger, and the rules along them.

    Attributes:
        network: the network.
        ranges: usual ranges of its nodes.
        windows: the ends of the paths, (n, lookback, n_features), model units, in the network's type.
        start: the start of all paths, (lookback, n_features).
        output: index of the output.
        spread: standard deviation of the output on the reference windows, model units.
        n_nodes: nodes of the rule for each part.
        first_nodes: nodes of the rule that a part starts with: as many, or those of a coarser rule inside it.
        last_nodes: nodes of the finest rule, before a part is bisected.
    """

    network: FrozenNetwork
    ranges: NodeRanges
    windows: Tensor
    start: Tensor
    output: int
    spread: float
    n_nodes: int
    first_nodes: int
    last_nodes: int

    def explain(self, tolerance: float, halvings: int) -> PathLedger:
        """The contributions along all paths.

        Args:
            tolerance: largest accepted residual and error of a path, model units.
            halvings: most bisections of a part.
        """
        network = self.network.network
        batch = paths_per_pass(network.config, self.first_nodes)
        parts, found = bisect(len(self.windows), self._integrate_parts, batch, tolerance, halvings)
        whole, first, start = found.total(parts), parts.low == 0, np.zeros(len(self.windows))
        start[parts.path[first]] = found.values.start[first]
        contributions, residual = whole.values._replace(start=start), whole.residual
        if len(parts.path) > len(start):  # of the sums over parts, since the residuals of parts may cancel
            residual = measure_residual(network, list_layers(network, self.output, contributions), contributions.change)
        error = np.maximum(whole.errors.max(axis=1), residual)
        converged = (error <= tolerance) & (whole.move <= MAX_MOVE)
        return PathLedger(contributions, residual, error, converged, whole.n_nodes)

    @torch.inference_mode()
    def _integrate_parts(self, parts: Parts, accepted: Array) -> Integrals[Contributions]:
        ends = part_ends(parts, self.start, self.windows)
        return self._refine(ends, self._sample(ends, nested_clenshaw_curtis(self.first_nodes).nodes), accepted)

    def _sample(self, ends: PartEnds, nodes: Array) -> PathSamples:
        return sample_path(self.network, ends.starts, ends.ends, nodes, self.output)

    def _refine(self, ends: PartEnds, samples: PathSamples, accepted: Array) -> Integrals[Contributions]:
        """Integrals over parts, with twice as many nodes if that is likely to reach the accepted error (n,) of each."""
        n_nodes = samples.outputs.shape[1]
        found, rate = self._integrate(ends, samples)
        open_ = ~((found.error <= accepted) & (found.move <= MAX_MOVE))
        if n_nodes >= self.n_nodes:
            open_ &= (found.move <= MAX_MOVE) & (found.error * rate <= accepted)
        if n_nodes >= self.last_nodes or not open_.any():
            return found
        some, finer = take(ends, open_), nested_clenshaw_curtis(2 * n_nodes - 1)
        between = self._sample(some, finer.nodes[1::2])
        refined = self._refine(some, take(samples, open_).interleave(between), accepted[open_])
        if open_.all():
            return refined

        def replace_rows(coarse: NDArray[np.float64], fine: NDArray[np.float64]) -> NDArray[np.float64]:
            coarse = coarse.copy()
            coarse[open_] = fine
            return coarse

        return map_arrays(replace_rows, found, refined)

    def _integrate(self, ends: PartEnds, samples: PathSamples) -> tuple[Integrals[Contributions], Array]:
        """Integrals over n parts, and the factor by which doubling the nodes would change their errors, (n,)."""
        n, n_nodes = samples.outputs.shape
        rule, network = nested_clenshaw_curtis(n_nodes), self.network.network
        nested = integrate(ends.change, samples, rule)
        layers = list_layers(network, self.output, nested)
        residual = measure_residual(network, layers, nested.change).reshape(3, n)
        errors, rate = estimate_errors(_list_entries(nested.steps, layers).reshape(3, n, -1), residual)
        points = points_along(ends.starts, ends.ends, rule.nodes)
        move = largest_move(self.network, self.ranges, points, rule.nodes, samples.passed)
        crossings = measure_crossings(network, points, samples.passed)
        slopes = [self.spread / edges for edges in self.ranges.edges]
        hidden = measure_hidden(self.network, slopes, points, samples, crossings)
        integrals = Integrals(
            take(nested, slice(n)),
            errors=np.append(errors, hidden[:, None], axis=1),
            residual=residual[0],
            move=np.maximum(move, largest_beyond(crossings)),
            n_nodes=np.full(n, n_nodes),
            divide_at=divide_at_kinks(network, samples.passed, rule.nodes),
        )
        return integrals, rate


def _list_entries(steps: Array, layers: Sequence[LedgerLayer]) -> Array:
    """Every contribution of a ledger, (n, n_entries)."""
    arrays = [steps, *(values for layer in layers for values in (layer.nodes, layer.edges) if values is not None)]
    return np.concatenate([values.reshape(len(values), -1) for values in arrays], axis=1)
