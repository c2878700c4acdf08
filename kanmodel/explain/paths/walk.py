"""Ledgers of one output along the paths from a baseline to windows, before they are scaled to the target's unit.

The rules are nested, so a path starts with few nodes, and the nodes between them are added where its error requires
it. Most paths are smooth, and every doubling of the nodes gains several digits; a path, or a part of one, that doubling
would not bring within the tolerance is bisected instead.

What is known of functions along a path: where activations have kinks, and bumps on edges between its points.

Divided at a kink, a quadrature rule converges fast on both sides. A bump that lies between two points is invisible to
every rule, and to what its errors are estimated from: all values are the same with and without it. But the functions on
edges are known, and take one number each, so they are evaluated between the points as well.

Contributions layer by layer, and their gaps in completeness (convergence delta) and conservation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.data import Array
from kanmodel.explain.paths.bisection import Integrals, Parts, bisect, part_ends
from kanmodel.explain.paths.path import (
    MAX_MOVE,
    Contributions,
    PassedNodes,
    PathSamples,
    integrate,
    largest_move,
    paths_per_pass,
    points_along,
    replace_rows,
    sample_path,
    take,
)
from kanmodel.explain.paths.quadrature import clenshaw_curtis, estimate_errors, interpolation, nested_clenshaw_curtis
from kanmodel.network.bounds import NodeRanges
from kanmodel.network.chain import Network
from kanmodel.network.config import LayerConfig, Layers
from kanmodel.network.frozen import FrozenNetwork
from kanmodel.network.layer import InputTransform, KANLayer

# Arguments at which the slope of an activation jumps.
KINKS = {
    "relu": (0.0,),
    "leaky_relu": (0.0,),
    "elu": (0.0,),
    "selu": (0.0,),
    "relu6": (0.0, 6.0),
    "hardtanh": (-1.0, 1.0),
    "hardsigmoid": (-3.0, 3.0),
    "hardswish": (-3.0, 3.0),
}
MIDDLE = 0.5
MARGIN = 1e-4  # a kink this close to an end is at the end, up to the error of interpolation
AT_ONCE = 1_000_000  # values of edges between points
FINER = 8  # intervals in each between two points at whose ends functions are evaluated


def measure_crossings(network: Network, points: Tensor, passed: PassedNodes) -> Tensor:
    """The largest part of a bump on an edge of each KAN layer that lies between two points, (n_layers, n).

    Args:
        network: the network.
        points: points of the paths, (n, n_points, lookback, n_features).
        passed: values of the nodes there.
    """
    crossed = []
    for layer, inputs in zip(network.layers.values(), _inputs(points, passed), strict=True):
        moves = [at.diff(dim=1).abs_().flatten(1).amax(dim=1) for at in layer.in_bumps(inputs)]
        crossed.append(torch.stack(moves).amax(dim=0) if moves else inputs.new_zeros(len(inputs)))
    return torch.stack(crossed)


def largest_beyond(crossings: Tensor) -> Array:
    """The largest crossing of each path that not even functions at `FINER` times as many points show, or 0, (n,)."""
    return torch.where(crossings <= FINER * MAX_MOVE, 0, crossings).amax(dim=0).double().numpy()


def measure_hidden(
    network: FrozenNetwork, slopes: Sequence[Tensor], points: Tensor, samples: PathSamples, crossings: Tensor
) -> Array:
    """The mean effect on the output of what the functions on edges do between the points, (n,).

    Where a large part of a bump may lie between two points, each function is evaluated at `FINER` times as many, and
    compared with the polynomial through its values at the points, by which the rule replaces it.

    Args:
        network: the network.
        slopes: the least gradients of the output by each layer's sub-nodes that are assumed, (n_subnodes,): it may be 0
            at all points and not between them.
        points: points of the paths, (n, n_points, lookback, n_features).
        samples: the samples there.
        crossings: from `measure_crossings`.
    """
    effect = torch.zeros(len(points), dtype=torch.float64)
    doubtful = (crossings > MAX_MOVE) & (crossings <= FINER * MAX_MOVE)
    if not bool(doubtful.any()):
        return effect.numpy()
    between = torch.from_numpy(interpolation(points.shape[1], FINER))
    weights = torch.from_numpy(clenshaw_curtis(len(between)).weights)
    layers = zip(
        network.network.layers,
        _inputs(points, samples.passed),
        samples.edges,
        samples.subnodes_gradient,
        slopes,
        doubtful,
        strict=True,
    )
    for (stage, number), inputs, edges, gradient, least, chosen in layers:
        size = max(1, AT_ONCE // (FINER * edges[0].numel()))
        for paths in chosen.nonzero().flatten().split(size) if bool(chosen.any()) else ():
            along = (between @ inputs[paths].double().flatten(2)).to(inputs.dtype).view(-1, inputs.shape[3])
            found = network.edges(stage, number, along).double().reshape(len(paths), len(between), -1)
            hidden = (found - between @ edges[paths].double().flatten(2)).abs_()
            mean = (weights @ hidden).view(len(paths), *edges.shape[2:]).sum(dim=3)  # (n_paths, rows, n_subnodes)
            slope = torch.maximum(gradient[paths].double().abs().amax(dim=1), least)
            effect[paths] += (mean * slope).sum(dim=(1, 2))
    return effect.numpy()


def _inputs(points: Tensor, passed: PassedNodes) -> Sequence[Tensor]:
    """The inputs of each KAN layer, front first, (n, n_points, rows, n_in)."""
    front = (points, *passed.front[:-1]) if passed.front else ()
    return (*front, passed.readout.unsqueeze(2), *passed.head[:-1])


def divide_at_kinks(network: Network, passed: PassedNodes, nodes: Array) -> Array:
    """Where to divide each part of a path: at the kink nearest to its middle, or else in the middle.

    Args:
        network: the network.
        passed: values of the nodes at the points.
        nodes: their positions on the part, 0 to 1, (n_points,).

    Returns:
        (n,), between 0 and 1.
    """
    at = np.full(len(passed.readout), MIDDLE)
    farthest = np.full(len(at), MIDDLE - MARGIN)
    low, gap = torch.from_numpy(nodes[:-1]), torch.from_numpy(np.diff(nodes))
    for values in _arguments_of_kinks(network, passed):
        before, after = values[:, :-1], values[:, 1:]
        share = (before / (before - after)).transpose(1, -1)  # (n, ..., n_points - 1)
        crossing = torch.where((before * after < 0).transpose(1, -1), low + gap * share, torch.nan).flatten(1).numpy()
        distance = np.where(np.isnan(crossing), np.inf, np.abs(crossing - MIDDLE))
        nearest = distance.argmin(axis=1)[:, None]
        distance, crossing = (np.take_along_axis(each, nearest, axis=1)[:, 0] for each in (distance, crossing))
        at = np.where(distance < farthest, crossing, at)
        farthest = np.minimum(farthest, distance)
    return at


def _arguments_of_kinks(network: Network, passed: PassedNodes) -> Iterator[Tensor]:
    """Arguments of activations minus the positions of their kinks, (n, n_points, ..., n_in), float64."""
    stages = network.stages
    reads = list(zip(stages["head"], (passed.readout, *passed.head[:-1]), strict=True))
    if passed.front:  # of which the first layer reads the features, which move evenly
        reads += zip(stages["front"][1:], passed.front[:-1], strict=True)
    for layer, values in reads:
        yield from _before_kinks(layer, values)


def _before_kinks(layer: KANLayer, values: Tensor) -> Iterator[Tensor]:
    for step in layer.before:
        assert isinstance(step, InputTransform)
        for place in KINKS.get(step.config.kind, ()):
            yield values.double() - place
        values = step(values)


class LedgerLayer(NamedTuple):
    """Contributions of one layer.

    Attributes:
        stage: input, front, lstm, gru, cell, head or output.
        layer: index of the layer within its stage.
        nodes: contributions of its nodes, (n, n_nodes); None if another stage lists the same nodes.
        edges: contributions of the edges from them, (n, n_subnodes, n_nodes); None if there are none.
    """

    stage: str
    layer: int
    nodes: Array | None
    edges: Array | None


def list_layers(network: Network, output: int, contributions: Contributions) -> tuple[LedgerLayer, ...]:
    """The layers in the order input, front, readout (lstm, gru or cell), head, output.

    Each node's contribution is the sum over its steps or over the edges into it, so the layers are linear in the
    contributions.

    Args:
        network: the network.
        output: index of the output.
        contributions: the contributions to it.
    """
    config, edges = network.config, contributions.edges
    layers = [LedgerLayer("input", 0, contributions.steps.sum(axis=1), None)]
    if config.front:
        layers += _list_stage("front", config.front, edges[: len(config.front)])
    if config.readout_stage is not None:
        layers.append(LedgerLayer(config.readout_stage, 0, contributions.readout, None))
    depth = len(config.head)
    layers += list(_list_stage("head", config.head, edges[-depth:]))[:-1]
    if config.output_function is not None:
        layers.append(LedgerLayer("head", depth, contributions.logits, None))
    outputs = np.zeros((len(contributions.change), len(config.outputs)))
    outputs[:, output] = contributions.change
    return (*layers, LedgerLayer("output", depth, outputs, None))


def measure_residual(network: Network, layers: Sequence[LedgerLayer], change: Array) -> Array:
    """The largest of |layer sum - (F(x) - F(x0))| and of |in - out| at a KAN node, (n,).

    After a layer norm only the layer's sum is compared, since a normalised input depends on all nodes.

    Args:
        network: the network.
        layers: from `list_layers`.
        change: F(x) - F(x0), (n,).
    """
    residual: Array = np.zeros_like(change)
    stages = network.config.stages
    reaching = np.zeros((len(change), 0))  # contributions of the nodes that the next edges leave
    entering = reaching  # contributions of the edges into the nodes of this layer
    for layer in layers:
        if layer.nodes is not None:
            reaching = layer.nodes
            residual = np.maximum(residual, np.abs(reaching.sum(axis=1) - change))
            if layer.stage in stages and layer.layer > 0:  # exact by construction, unless before an output function
                residual = np.maximum(residual, np.abs(reaching - entering).max(axis=1))
        if layer.edges is not None:
            config = stages[layer.stage][layer.layer]
            residual = np.maximum(residual, np.abs(layer.edges.sum(axis=(1, 2)) - change))
            if not config.mixes:
                residual = np.maximum(residual, np.abs(layer.edges.sum(axis=1) - reaching).max(axis=1))
            entering = _entering(config, layer.edges)
    return residual


def _list_stage(stage: str, layers: Layers, edges: Sequence[Array]) -> Iterator[LedgerLayer]:
    """The layers of a stage from its edges, (n, n_subnodes, n_in) each, and its last nodes; not its input nodes."""
    nodes = None
    for number, (config, leaving) in enumerate(zip(layers, edges, strict=True)):
        yield LedgerLayer(stage, number, nodes, leaving)
        nodes = _entering(config, leaving)
    yield LedgerLayer(stage, len(edges), nodes, None)


def _entering(config: LayerConfig, edges: Array) -> Array:
    """Contributions of edges to their target nodes, (n, n_out): a product node has the sum of its sub-nodes."""
    entering: Array = edges.sum(axis=2)
    if config.mult_arity:
        entering = entering @ np.eye(config.n_out)[list(config.node_of_subnode)]
    return entering


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
