"""Ledgers of one output along the paths from a baseline to windows, before they are scaled to the target's unit.

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

from kanmodel.explain.paths.arrays import replace_rows, take
from kanmodel.explain.paths.bisection import Integrals, Parts, bisect, part_ends
from kanmodel.explain.paths.layers import LedgerLayer, list_layers, measure_residual
from kanmodel.explain.paths.moves import MAX_MOVE, largest_move
from kanmodel.explain.paths.path import (
    Contributions,
    PathSamples,
    integrate,
    paths_per_pass,
    points_along,
    sample_path,
)
from kanmodel.explain.paths.quadrature import estimate_errors, nested_clenshaw_curtis
from kanmodel.explain.paths.shapes import divide_at_kinks, largest_beyond, measure_crossings, measure_hidden
from kanmodel.network.frozen import FrozenNetwork
from kanmodel.network.ranges import NodeRanges
from kanmodel.scaling import Array


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


class PathLedger(NamedTuple):
    """Contributions along n whole paths, in model units.

    Attributes:
        start: F where each begins, (n,).
        contributions: contributions along the paths.
        residual: from `measure_residual`, (n,).
        error: the largest of any entry, (n,), not below the residual.
        converged: whether the error is within the tolerance and no move is too large, (n,).
        n_nodes: nodes of each path, (n,).
    """

    start: Array
    contributions: Contributions
    residual: Array
    error: Array
    converged: NDArray[np.bool_]
    n_nodes: NDArray[np.int64]


class _Ledgers(NamedTuple):
    """What is integrated: F where each part begins, (n,), and contributions."""

    start: Array
    contributions: Contributions


class _Ends(NamedTuple):
    """Where n parts begin and end, and the change between in float64, (n, lookback, n_features) each."""

    starts: Tensor
    ends: Tensor
    change: Tensor


def explain_paths(walk: Walk, tolerance: float, halvings: int) -> PathLedger:
    """The ledgers of paths.

    Args:
        walk: the paths.
        tolerance: largest accepted residual and error of a path, model units.
        halvings: most bisections of a part.
    """
    network = walk.network.network

    @torch.inference_mode()
    def integrate_parts(parts: Parts, accepted: Array) -> Integrals[_Ledgers]:
        ends = _Ends(*part_ends(parts, walk.start, walk.windows))
        return _refine(walk, ends, _sample(walk, ends, nested_clenshaw_curtis(walk.first_nodes).nodes), accepted)

    batch = paths_per_pass(network.config, walk.first_nodes)
    parts, found = bisect(len(walk.windows), integrate_parts, batch, tolerance, halvings)
    whole = found.total(parts)
    start, contributions = np.zeros(len(walk.windows)), whole.values.contributions
    first = parts.low == 0
    start[parts.path[first]] = found.values.start[first]
    residual = whole.residual
    if len(parts.path) > len(start):  # of the sums over parts, since the residuals of parts may cancel
        residual = measure_residual(network, list_layers(network, walk.output, contributions), contributions.change)
    error = np.maximum(whole.errors.max(axis=1), residual)
    converged = (error <= tolerance) & (whole.move <= MAX_MOVE)
    return PathLedger(start, contributions, residual, error, converged, whole.n_nodes)


def _refine(walk: Walk, ends: _Ends, samples: PathSamples, accepted: Array) -> Integrals[_Ledgers]:
    """Integrals over parts, with twice as many nodes if that is likely to reach the accepted error.

    Args:
        walk: the paths.
        ends: ends of the parts.
        samples: samples at the nodes of a rule.
        accepted: accepted error of each part, (n,).
    """
    n_nodes = samples.outputs.shape[1]
    found, rate = _integrate(walk, ends, samples)
    open_ = ~((found.error <= accepted) & (found.move <= MAX_MOVE))
    if n_nodes >= walk.n_nodes:
        open_ &= (found.move <= MAX_MOVE) & (found.error * rate <= accepted)
    if n_nodes >= walk.last_nodes or not open_.any():
        return found
    some, finer = take(ends, open_), nested_clenshaw_curtis(2 * n_nodes - 1)
    between = _sample(walk, some, finer.nodes[1::2])
    refined = _refine(walk, some, take(samples, open_).interleave(between), accepted[open_])
    return replace_rows(found, open_, refined)


def _sample(walk: Walk, ends: _Ends, nodes: Array) -> PathSamples:
    return sample_path(walk.network, ends.starts, ends.ends, nodes, walk.output)


def _integrate(walk: Walk, ends: _Ends, samples: PathSamples) -> tuple[Integrals[_Ledgers], Array]:
    """Integrals over n parts, and the factor by which doubling the nodes would change their errors, (n,)."""
    n, n_nodes = samples.outputs.shape
    rule, network = nested_clenshaw_curtis(n_nodes), walk.network.network
    nested = integrate(ends.change, samples, rule)
    layers = list_layers(network, walk.output, nested)
    residual = measure_residual(network, layers, nested.change).reshape(3, n)
    errors, rate = estimate_errors(_list_entries(nested.steps, layers).reshape(3, n, -1), residual)
    points = points_along(ends.starts, ends.ends, rule.nodes)
    move = largest_move(walk.network, walk.ranges, points, rule.nodes, samples.passed)
    crossings = measure_crossings(network, points, samples.passed)
    hidden = measure_hidden(
        walk.network, [walk.spread / edges for edges in walk.ranges.edges], points, samples, crossings
    )
    integrals = Integrals(
        _Ledgers(samples.outputs[:, 0].double().numpy(), take(nested, slice(n))),
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
