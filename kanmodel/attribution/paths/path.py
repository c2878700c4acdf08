"""Contributions of all parts of a network along the straight paths from a baseline to windows, in model units.

Computations come in slices of one pass each, a few milliseconds, and pause between them; see `kanmodel.computing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.attribution.paths.quadrature import Quadrature, measure_gaps
from kanmodel.network.chain import FrozenNetwork, Network, Trace
from kanmodel.network.config import LayerConfig, Layers, ModelConfig
from kanmodel.network.graph import GraphNetwork, GraphTrace, flat
from kanmodel.network.recurrent import RecurrentTrace, count_gates

GRAPH_POINTS = 68  # of a pass at least, of a graph: each of its many operations takes as long for fewer
PASS_BYTES = 5_500_000  # of the largest tensors of a pass; beyond this size, memory is mapped anew in each pass

Nested = TypeVar("Nested")
Detail = Literal["features", "steps", "flow"]
"""What a ledger lists: contributions of features, of their steps too, or of all nodes and edges as well."""


def map_arrays(function: Callable[..., Any], *nested: Nested) -> Nested:
    """Maps a function of one array of each argument over equally nested tuples; what is no array is the first's."""
    mapped: Any = nested[0]
    if isinstance(mapped, tuple):
        parts = [map_arrays(function, *each) for each in zip(*nested, strict=True)]
        mapped = mapped._make(parts) if hasattr(mapped, "_make") else tuple(parts)
    elif hasattr(mapped, "shape"):
        mapped = function(*nested)
    result: Nested = mapped
    return result


def take(values: Nested, chosen: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Nested:
    """The chosen rows of all arrays; the arrays themselves if all are chosen."""
    if isinstance(chosen, slice) or chosen.dtype != bool:
        return map_arrays(lambda array: array[chosen], values)
    if chosen.all():
        return values
    rows = np.flatnonzero(chosen)
    of_tensors = torch.from_numpy(rows)
    return map_arrays(lambda of: of.index_select(0, of_tensors) if isinstance(of, Tensor) else of[rows], values)


def concatenate(results: Sequence[Nested]) -> Nested:
    """Concatenates the rows of several results."""
    return results[0] if len(results) == 1 else map_arrays(lambda *arrays: np.concatenate(arrays), *results)


def merge_rows(chosen: NDArray[np.bool_], of_chosen: Nested, others: Nested) -> Nested:
    """The rows of two results in their order: those of the chosen and those of the others."""
    if chosen.all():
        return of_chosen
    order = np.argsort(np.append(np.flatnonzero(chosen), np.flatnonzero(~chosen)))
    return map_arrays(lambda *arrays: np.concatenate(arrays)[order], of_chosen, others)


class PassedNodes(NamedTuple):
    """Values of the network's nodes at the points of paths."""

    features: Tensor  # the points, (n, n_points, lookback, n_features)
    front: tuple[Tensor, ...]  # after each layer of the front, (n, n_points, lookback, n_out)
    readout: Tensor  # the input of the head, (n, n_points, n_units)
    head: tuple[Tensor, ...]  # after each layer of the head, (n, n_points, 1, n_out)
    states: tuple[Tensor, ...]  # of each recurrent layer, (n, n_points, lookback, n_units)

    @classmethod
    def of(cls, points: Tensor, trace: Trace, paths: Sequence[int]) -> PassedNodes:
        """The values of a trace of all points of paths, flattened over (n, n_points); of a graph the `GraphNodes`."""
        if isinstance(trace, GraphTrace):
            return cast(PassedNodes, GraphNodes.of(points, trace, paths))
        stages = (trace.front, trace.head)
        front, head = (tuple(by_path(layer.nodes, paths, -1) for layer in stage) for stage in stages)
        states = tuple(by_path(each, paths) for each in trace.recurrent.states) if trace.recurrent else ()
        return cls(by_path(points, paths), front, by_path(trace.readout, paths), head, states)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs of each KAN layer, front first, (n, n_points, rows, n_in)."""
        front = (self.features, *self.front[:-1]) if self.front else ()
        return (*front, self.readout.unsqueeze(2), *self.head[:-1])

    @property
    def moving(self) -> Tensor:
        """The values whose moves are compared with `NodeRanges.nodes`, (n, n_points, n_nodes)."""
        return torch.cat([self.readout, *(values.squeeze(2) for values in self.head)], dim=-1)

    @property
    def recurrents(self) -> tuple[tuple[RecurrentTrace, ...], ...]:
        """The passes of each recurrent part."""
        entering = self.front[-1] if self.front else self.features
        return ((RecurrentTrace(entering, self.states),),) if self.states else ()

    @property
    def kinks(self) -> tuple[Tensor, ...]:
        """Arguments less the positions of kinks, of operations that are no part of a layer, (n, n_points, n)."""
        return ()


class GraphNodes(NamedTuple):
    """The `PassedNodes` of a graph."""

    features: Tensor
    front: tuple[Tensor, ...]  # empty
    readout: Tensor  # the values of all cuts, one after the other
    head: tuple[Tensor, ...]  # the logits alone
    inputs: tuple[Tensor, ...]
    moving: Tensor
    recurrents: tuple[tuple[RecurrentTrace, ...], ...]
    kinks: tuple[Tensor, ...]

    @classmethod
    def of(cls, points: Tensor, trace: GraphTrace, paths: Sequence[int]) -> GraphNodes:
        """As `PassedNodes.of`."""
        recurrents = (
            tuple(
                RecurrentTrace(by_path(x, paths), (by_path(out, paths),))
                for x, out in zip(steps.unbind(1), states.unbind(1), strict=True)
            )
            for steps, states in trace.steps
        )
        return cls(
            by_path(points, paths),
            (),
            by_path(torch.cat([trace.logits[:, :0], *map(flat, trace.values)], dim=1), paths),
            (by_path(trace.logits, paths, 1),),
            tuple(by_path(layer.inputs, paths, -1) for layer in trace.layers),
            by_path(trace.watched, paths),
            tuple(recurrents),
            tuple(by_path(values, paths) for values in trace.kinks),
        )


def by_path(values: Tensor, paths: Sequence[int], *rows: int) -> Tensor:
    """(n * n_points, ...) -> (n, n_points, *rows, ...), without gradients."""
    return values.detach().reshape(*paths, *rows, *values.shape[1:])


class PathSamples(NamedTuple):
    """Values along n paths, and gradients of one output; rows are the steps in the front, elsewhere there is one."""

    outputs: Tensor  # the output, (n, n_points)
    gradient: Tensor  # by the features, (n, n_points, lookback, n_features)
    subnodes_gradient: tuple[Tensor, ...]  # by the sub-nodes of each layer, (n, n_points, rows, n_subnodes)
    passed: PassedNodes
    # Of the flow; without it they are None.
    readout_gradient: Tensor | None = None  # by what the head sees, (n, n_points, n_units)
    logits_gradient: Tensor | None = None  # by the last layer's nodes, (n, n_points, n_outputs)
    edges: tuple[Tensor, ...] | None = None  # by KAN layer, front first: (n, n_points, rows, n_subnodes, n_in)

    def interleave(self, between: PathSamples) -> PathSamples:
        """Merges the samples at the points between each two of these."""

        def merge(values: Tensor, others: Tensor) -> Tensor:
            both = values.new_empty(len(values), values.shape[1] + others.shape[1], *values.shape[2:])
            both[:, ::2], both[:, 1::2] = values, others
            return both

        return map_arrays(merge, self, between)


class Contributions(NamedTuple):
    """Contributions to one output along n paths, or parts of them; float64. All but `start` add up over the parts.

    The last three are of the flow; without it they are None.
    """

    start: Array  # F(start), (n,)
    change: Array  # F(end) - F(start), (n,)
    steps: Array  # of each feature at each step, (n, lookback, n_features)
    readout: Array | None  # of the input of the head, (n, n_units)
    logits: Array | None  # of the last layer's nodes, before an output function, (n, n_outputs)
    edges: tuple[Array, ...] | None  # of each KAN layer, front first and summed over the steps, (n, n_subnodes, n_in)


def paths_per_pass(config: ModelConfig, n_points: int) -> int:
    """How many paths are sampled per pass: about `PASS_BYTES` of features, edges and gates."""
    values = len(config.features) + sum(layer.n_in * layer.n_subnodes for layer in config.front)
    values += sum(count_gates(config))
    point: int = (config.lookback * values + config.graph_size) * getattr(torch, config.dtype).itemsize
    return max(1, PASS_BYTES // (n_points * point), GRAPH_POINTS // n_points if config.graph else 1)


def points_along(starts: Tensor, ends: Tensor, nodes: Array) -> Tensor:
    """Points of paths, (n, n_nodes, lookback, n_features), at positions (n_nodes,) from 0 to 1 on each.

    They lead from `starts`, (n, lookback, n_features), or (1, ...) for all of them, to `ends`.
    """
    return torch.lerp(starts[:, None], ends[:, None], torch.from_numpy(nodes).to(ends.dtype)[:, None, None])


def sample_path(
    network: FrozenNetwork, starts: Tensor, ends: Tensor, nodes: Array, output: int, detail: Detail
) -> PathSamples:
    """A forward and a backward pass for one output over all points of paths, which are as in `points_along`."""
    with torch.inference_mode(False):
        batch = points_along(starts, ends, nodes).flatten(0, 1)
        trace, pull_back = network.linearise(batch)
        one = torch.zeros_like(trace.outputs)
        one[:, output] = 1
        gradients = pull_back(one)
    outputs, paths = trace.outputs[:, output], (len(ends), len(nodes))
    of_subnodes = tuple(by_path(gradient, paths, -1) for gradient in gradients.subnodes)
    passed = PassedNodes.of(batch, trace, paths)
    samples = PathSamples(by_path(outputs, paths), by_path(gradients.window, paths), of_subnodes, passed)
    if detail != "flow":
        return samples
    of_values = [flat(gradient) for gradient in gradients.values]
    by_readout = of_values[0] if len(of_values) == 1 else torch.cat([gradients.logits[:, :0], *of_values], dim=1)
    edges = tuple(by_path(layer.edges, paths, -1) for layer in trace.layers)
    return samples._replace(
        readout_gradient=by_path(by_readout, paths), logits_gradient=by_path(gradients.logits, paths), edges=edges
    )


@np.errstate(over="ignore", invalid="ignore")  # the ledger refuses what is not finite
def integrate(change: Tensor, samples: PathSamples, rule: Quadrature) -> tuple[Contributions, Array]:
    """Contributions of 3 n paths in float64: of all by the finest of the three rules, then by each coarser one.

    `change` is end - start of each path, (n, lookback, n_features); the samples are at the nodes of the rule. With them
    come the errors of the rules that are known from the outputs at the nodes, (3, n), see `measure_gaps`.
    """
    n, outputs = len(change), samples.outputs.double().numpy()
    gradient, moved = samples.gradient.flatten(2).double().numpy(), change.double().numpy()
    gradients = rule.weights @ gradient  # (n, 3, lookback * n_features)
    steps = moved[:, None] * gradients.reshape(n, 3, *change.shape[1:])
    gaps = measure_gaps(outputs, (gradient @ moved.reshape(n, -1, 1)).squeeze(2))
    of_readout = of_logits = of_edges = None
    if samples.edges is not None and samples.readout_gradient is not None and samples.logits_gradient is not None:
        readout, logits = samples.passed.readout.double().numpy(), samples.passed.head[-1].squeeze(2).double().numpy()
        of_nodes = [samples.readout_gradient, samples.logits_gradient, *samples.subnodes_gradient]
        by_readout, by_logits, *by_subnodes = _adjoints(rule, of_nodes)
        of_readout, of_logits = ((by_readout * readout[:, None]).sum(axis=2), (by_logits * logits[:, None]).sum(axis=2))
        of_edges = tuple(map(_integrate_edges, by_subnodes, samples.edges))
    ends = outputs[:, :1], outputs[:, -1:] - outputs[:, :1]
    by_rule = (*(np.repeat(each, 3, axis=1) for each in ends), steps, of_readout, of_logits, of_edges)
    return Contributions._make(
        map_arrays(lambda values: values.swapaxes(0, 1).reshape(3 * n, *values.shape[2:]), by_rule)
    ), gaps


def _adjoints(rule: Quadrature, gradients: Sequence[Tensor]) -> list[Array]:
    """Turns gradients along the path into weights of the values themselves, (n, n_nodes, ...) -> (n, 3, n_nodes, ...).

    sum_k w_k g(a_k) h'(a_k) = sum_m (D^T w g)_m h(a_m), with D the differentiation matrix: by each of the rules.
    """
    n, n_nodes = gradients[0].shape[:2]
    adjoint = rule.adjoints @ torch.cat([gradient.flatten(2) for gradient in gradients], dim=2).double().numpy()
    ends = np.cumsum([gradient.shape[2:].numel() for gradient in gradients])
    return [
        part.reshape(n, 3, n_nodes, *gradient.shape[2:])
        for part, gradient in zip(np.split(adjoint, ends[:-1], axis=2), gradients, strict=True)
    ]


def _integrate_edges(adjoint: Array, values: Tensor) -> Array:
    """(n, 3, n_nodes, rows, n_subnodes) and (n, n_nodes, rows, n_subnodes, n_in) -> (n, 3, n_subnodes, n_in)."""
    n, _, _, _, n_subnodes = adjoint.shape
    by_subnode = adjoint.transpose(0, 4, 1, 2, 3).reshape(n, n_subnodes, 3, -1)
    edges = values.permute(0, 3, 1, 2, 4).reshape(n, n_subnodes, -1, values.shape[-1]).double().numpy()
    integrals: Array = by_subnode @ edges  # matrices so small that numpy multiplies them faster than torch
    return integrals.transpose(0, 2, 1, 3)


class LedgerLayer(NamedTuple):
    """Contributions of one layer: of its nodes, and of the edges from them."""

    stage: str  # input, front, lstm, gru, cell, head or output; several may be of one kind in a graph
    layer: int  # index within its stage
    nodes: Array | None  # (n, n_nodes); None if another stage lists the same nodes
    edges: Array | None  # (n, n_subnodes, n_nodes); None if there are none
    around: Array | None = None  # of what flows around the nodes of a graph there, (n, n_sources); None if nothing does
    sources: tuple[str, ...] = ()  # what that comes from, such as ``window`` or ``lstm:0``


def list_layers(network: Network, output: int, contributions: Contributions) -> tuple[LedgerLayer, ...]:
    """The layers in the order input, front, readout (lstm, gru or cell), head, output, linear in the contributions.

    Each node's contribution is the sum over its steps or over the edges into it. Without the flow there are only the
    input and the output.
    """
    config, edges, depth = network.config, contributions.edges, len(network.config.head)
    layers = [LedgerLayer("input", 0, contributions.steps.sum(axis=1), None)]
    outputs = np.zeros((len(contributions.change), len(config.outputs)))
    outputs[:, output] = contributions.change
    if edges is None:
        return layers[0], LedgerLayer("output", depth, outputs, None)
    if isinstance(network, GraphNetwork):
        layers += _list_cuts(network, contributions)
    if config.front:
        layers += _list_stage("front", config.front, edges[: len(config.front)])
    if config.readout_stage is not None:
        layers.append(LedgerLayer(config.readout_stage, 0, contributions.readout, None))
    if not config.graph:
        layers += list(_list_stage("head", config.head, edges[-depth:]))[:-1]
    if config.output_function is not None:
        layers.append(LedgerLayer("head", depth, contributions.logits, None))
    return (*layers, LedgerLayer("output", depth, outputs, None))


def measure_residual(network: Network, layers: Sequence[LedgerLayer], change: Array) -> Array:
    """The largest of |layer sum - (F(x) - F(x0))| and of |in - out| at a KAN node, (n,).

    After a layer norm only the layer's sum is compared, since a normalised input depends on all nodes. `change` is
    F(x) - F(x0), (n,).
    """
    stages, total = network.config.stages, change[:, None]
    if network.config.graph:
        return _measure_cuts(network.config, layers, total)
    gaps: list[Array] = []  # (n, n_gaps) each
    reaching = np.zeros((len(change), 0))  # contributions of the nodes that the next edges leave
    entering = reaching  # contributions of the edges into the nodes of this layer
    for layer in layers:
        if layer.nodes is not None:
            reaching = layer.nodes
            gaps.append(reaching.sum(axis=1, keepdims=True) - total)
            if layer.stage in stages and layer.layer > 0:  # exact by construction, unless before an output function
                gaps.append(reaching - entering)
        if layer.edges is not None:
            config = stages[layer.stage][layer.layer]
            gaps.append(layer.edges.sum(axis=(1, 2))[:, None] - total)
            if not config.mixes:
                gaps.append(layer.edges.sum(axis=1) - reaching)
            entering = sum_subnodes(config, layer.edges)
    residual: Array = np.abs(np.concatenate(gaps, axis=1)).max(axis=1)
    return residual


def _list_cuts(network: GraphNetwork, contributions: Contributions) -> Iterator[LedgerLayer]:
    """The layers at the cuts of a graph, whose leaf's contributions are summed over its rows and steps."""
    config, values, leaving = network.config, contributions.readout, contributions.edges
    assert values is not None and leaving is not None
    n, at = len(values), 0

    def take_next(node: int) -> Array:
        nonlocal at
        shape = config.graph_shapes[node]
        rows = values[:, at : at + math.prod(shape)].reshape(n, -1, shape[-1] if shape else 1)
        at += math.prod(shape)
        found: Array = rows.sum(axis=1)
        return found

    for cut in network.cuts:
        is_layer = cut.stage == "head"
        nodes = take_next(config.graph[cut.node].inputs[0] if is_layer else cut.node)
        sources = tuple(dict.fromkeys(cut.around.values()))
        around = np.zeros((n, len(sources)))
        for node, source in cut.around.items():
            around[:, sources.index(source)] += take_next(node).sum(axis=1)
        edges = leaving[cut.layer] if is_layer else None
        yield LedgerLayer(cut.stage, cut.layer, nodes, edges, around if sources else None, sources)


def _measure_cuts(config: ModelConfig, layers: Sequence[LedgerLayer], total: Array) -> Array:
    """`measure_residual` of a graph: what enters a layer is what its edges lead on."""
    gaps: list[Array] = []
    for layer in layers:
        assert layer.nodes is not None
        around = 0.0 if layer.around is None else layer.around.sum(axis=1, keepdims=True)
        gaps.append(layer.nodes.sum(axis=1, keepdims=True) + around - total)
        if layer.edges is not None:
            gaps.append(layer.edges.sum(axis=(1, 2))[:, None] + around - total)
            if not config.head[layer.layer].mixes:
                gaps.append(layer.edges.sum(axis=1) - layer.nodes)
    residual: Array = np.abs(np.concatenate(gaps, axis=1)).max(axis=1)
    return residual


def _list_stage(stage: str, layers: Layers, edges: Sequence[Array]) -> Iterator[LedgerLayer]:
    """The layers of a stage from its edges, (n, n_subnodes, n_in) each, and its last nodes; not its input nodes."""
    nodes = None
    for number, (config, leaving) in enumerate(zip(layers, edges, strict=True)):
        yield LedgerLayer(stage, number, nodes, leaving)
        nodes = sum_subnodes(config, leaving)
    yield LedgerLayer(stage, len(edges), nodes, None)


def sum_subnodes(config: LayerConfig, edges: Array) -> Array:
    """Contributions of edges to their target nodes, (n, n_out): a product node has the sum of its sub-nodes."""
    entering: Array = edges.sum(axis=2)
    if config.mult_arity:
        entering = entering @ np.eye(config.n_out)[list(config.node_of_subnode)]
    return entering
