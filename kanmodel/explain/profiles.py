"""Profiles: the share of each feature in the value of each node.

Deep in a network, and downstream of an LSTM already in its first layer, a node's value is a mixture of features. Its
profile is the ledger of that value instead of the prediction's: Integrated Gradients of the node, from the mean
baseline, along paths that are bisected where the integrals are not accurate enough.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.data import Array
from kanmodel.explain.baseline import scaled_baselines, spread_windows
from kanmodel.explain.paths.bisection import Integrals, PartEnds, Parts, bisect, measure_moves, part_ends
from kanmodel.explain.paths.path import PassedNodes, paths_per_pass, points_along
from kanmodel.explain.paths.quadrature import estimate_errors, nested_clenshaw_curtis
from kanmodel.network.chain import FrozenNetwork, Trace
from kanmodel.network.config import ModelConfig
from kanmodel.network.graph import GraphTrace
from kanmodel.network.recurrent import count_weights

MIN_WINDOWS, MAX_WINDOWS = 16, 128  # taken evenly from the reference: a share needs no more
MULTIPLY_ADDS = 4e12  # a few minutes of one core, within which the number of windows stays where it can
N_NODES = 17
TOLERANCE = 3e-2  # largest accepted error of a feature's contribution to a node, in standard deviations of the node
HALVINGS = 10


@dataclass(frozen=True)
class Profiles:
    """The mean |contribution| of features to nodes over reference windows, as a share of all features'.

    By (stage, layer), the outputs as the last layer of the head, unless an output function stands between; of a graph
    by place, with the inputs of its layers. A node that no feature moves has 0 everywhere. The value of a front's node,
    and of one of a graph, is its sum over the steps and rows at which it is read.
    """

    shares: Mapping[tuple[str, int], Array]  # (n_nodes, n_features)
    errors: Mapping[tuple[str, int], Array]  # (n_nodes,): the largest estimated error of a share of the node


def profile_nodes(model: LoadedModel, places: Collection[tuple[str, int]] | None = None) -> Profiles:
    """Profiles of the LSTM's units and of the KANs' nodes after their inputs, over evenly chosen reference windows.

    Of a graph those at some places suffice, each of whose nodes takes time; None for all.
    """
    with torch.no_grad():
        values = _node_values(model.config, model.frozen.trace(model.reference.windows), places)
    spread = torch.cat(list(values.values()), dim=1).double().std(dim=0, correction=0).numpy()
    scale = np.where(spread > 0, spread, np.inf)  # (n_nodes,): of a node that never moves nothing is asked
    windows, start = spread_windows(model, count_windows(model.config)), scaled_baselines(model)[0]

    def integrate(parts: Parts, _: Array) -> Integrals[Array]:
        return _integrate(model, part_ends(parts, start, windows), scale, places)

    batch = paths_per_pass(model.config, N_NODES)
    _, _, whole = bisect(len(windows), integrate, batch, TOLERANCE, HALVINGS)
    magnitude = np.abs(whole.values).mean(axis=0)  # (n_nodes, n_features)
    error = whole.errors.mean(axis=0).reshape(magnitude.shape) * spread[:, None]
    total = magnitude.sum(axis=1, keepdims=True)
    shares = np.divide(magnitude, total, out=np.zeros_like(magnitude), where=total > 0)
    moved = error + shares * error.sum(axis=1, keepdims=True)  # of the share's numerator, and of its denominator
    off = np.divide(moved, total, out=np.zeros_like(moved), where=total > 0).max(axis=1)
    ends = np.cumsum([nodes.shape[1] for nodes in values.values()])[:-1]
    return Profiles(*(dict(zip(values, np.split(figures, ends), strict=True)) for figures in (shares, off)))


def count_windows(config: ModelConfig) -> int:
    """How many reference windows are profiled: all that are useful, or fewer of a model that takes minutes."""
    weights = count_weights(config)
    if not weights:
        return MAX_WINDOWS
    passes = min(len(config.features), config.n_units)
    if config.graph:
        passes = sum(map(len, config.wiring.ids.values()))
    affordable = int(MULTIPLY_ADDS / (N_NODES * passes * config.lookback * weights))
    return min(max(affordable, MIN_WINDOWS), MAX_WINDOWS)


def _integrate(
    model: LoadedModel, ends: PartEnds, scale: Array, places: Collection[tuple[str, int]] | None
) -> Integrals[Array]:
    """Contributions of features to all nodes, (n_parts, n_nodes, n_features); errors in units of each node's scale."""
    rule, n = nested_clenshaw_curtis(N_NODES), len(ends.ends)
    points = points_along(ends.starts, ends.ends, rule.nodes).flatten(0, 1).requires_grad_()
    with torch.enable_grad():
        trace = model.frozen.trace(points)
        nodes = _node_values(model.config, trace, places)
        values = torch.cat(list(nodes.values()), dim=1)
        change = ends.change.to(points.dtype).repeat_interleave(N_NODES, dim=0)
        slopes = _slopes_along(model.frozen, trace, nodes, points, change)
    slopes = slopes.double().view(n, N_NODES, -1)  # of all nodes, by feature
    entries = (torch.from_numpy(rule.weights) @ slopes).view(n, 3, *scale.shape, -1).transpose(0, 1).numpy()
    values = values.detach().double().view(n, N_NODES, -1)
    moved = (values[:, -1] - values[:, 0]).numpy()
    residual = (np.abs(entries.sum(axis=3) - moved) / scale).max(axis=2)  # (3, n)
    errors, rate = estimate_errors(N_NODES, (entries / scale[:, None]).reshape(3, n, -1), residual)
    passed = PassedNodes.of(points, trace, (n, N_NODES))
    move, _ = measure_moves(model.frozen, model.node_ranges, rule.nodes, passed)
    return Integrals(entries[0], errors, residual[0], move, np.full(n, N_NODES), rate, np.full(n, 0.5))


def _slopes_along(
    network: FrozenNetwork, trace: Trace, values: Mapping[tuple[str, int], Tensor], points: Tensor, change: Tensor
) -> Tensor:
    """How fast each node's value moves with each feature along the paths, (n_points, n_nodes, n_features).

    Only the front's nodes and the readout take a pass through the steps, one for each feature or one for each node,
    whichever are fewer; the head's take the chain rule.
    """

    def slopes(node: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(node.sum(), points, retain_graph=True)
        return (gradient * change).sum(dim=1)  # (n_points, n_features)

    slopes_of = []
    if network.config.graph:
        return torch.stack([slopes(node) for nodes in values.values() for node in nodes.unbind(1)], dim=1)
    readout = network.readout_slopes(trace, change)
    if readout is None:
        readout = torch.stack([slopes(node) for node in trace.readout.unbind(1)], dim=1)
    for (stage, _), nodes in values.items():
        if stage in ("head", "output"):
            jacobian = [torch.autograd.grad(n.sum(), trace.readout, retain_graph=True)[0] for n in nodes.unbind(1)]
            slopes_of.append(torch.stack(jacobian, dim=1) @ readout)
        elif nodes is trace.readout:
            slopes_of.append(readout)
        else:
            slopes_of.append(torch.stack([slopes(node) for node in nodes.unbind(1)], dim=1))
    return torch.cat(slopes_of, dim=1)


def _node_values(
    config: ModelConfig, trace: Trace, places: Collection[tuple[str, int]] | None = None
) -> dict[tuple[str, int], Tensor]:
    """Values of the nodes, (batch, n_nodes) by (stage, layer); of a graph those at some places, if they are given."""
    if isinstance(trace, GraphTrace):
        return {at: of for at, of in _graph_values(config, trace) if places is None or at in places}
    values = {
        ("front", number + 1): layer.nodes.view(-1, config.lookback, layer.nodes.shape[1]).sum(dim=1)
        for number, layer in enumerate(trace.front)
    }
    if config.readout_stage is not None:
        values[config.readout_stage, 0] = trace.readout
    values |= {("head", number + 1): layer.nodes for number, layer in enumerate(trace.head)}
    if config.output_function is not None:
        values["output", len(config.head)] = trace.outputs
    return values


def _graph_values(config: ModelConfig, trace: GraphTrace) -> Iterator[tuple[tuple[str, int], Tensor]]:
    """The same of a graph, by place."""
    n = len(trace.outputs)
    for key, read in config.wiring.read.items():
        states = trace.steps[key[1]][1].reshape(n, -1, read.shape[-1])
        yield key, (states * torch.from_numpy(read.reshape(states.shape[1:]))).sum(dim=1)
    for number, layer in enumerate(trace.layers):
        for place, values in ((("glue", number), layer.inputs), (("head", number + 1), layer.nodes)):
            yield place, values.reshape(n, -1, values.shape[1]).sum(dim=1)
    yield ("output", len(config.head)), trace.outputs
