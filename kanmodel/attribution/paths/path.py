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
from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.network.layer import KANLayer, pass_layers
from kanmodel.network.network import FrozenNetwork, Network, Trace, flat
from kanmodel.network.recurrent import RecurrentTrace, count_gates
from kanmodel.network.wiring import Cut

GRAPH_POINTS = 200  # of a pass at least, of a graph: each of its many operations takes as long for fewer
PASS_BYTES = 5_500_000  # of the largest tensors of a pass; beyond this size, memory is mapped anew in each pass

Nested = TypeVar("Nested")
Detail = Literal["features", "steps", "flow", "links"]
"""What a ledger lists: contributions of features, of their steps too, of all nodes and edges as well, or also of what
the units of a recurrent chain get from each feature."""
FLOW = ("flow", "links")  # the details with all nodes and edges
Places = tuple[tuple[Array, Array] | None, ...]
"""The `values` and `y` of windows in each layer whose functions are evaluated once; of a front at the newest step."""


def map_arrays(function: Callable[..., Any], *nested: Nested) -> Nested:
    """Maps a function of one array of each argument over equally nested tuples; what is no array is the first's.

    An array that is there several times is mapped once.
    """
    return cast(Nested, _map_nested(function, {}, nested))


def _map_nested(function: Callable[..., Any], known: dict[tuple[int, ...], Any], nested: tuple[Any, ...]) -> Any:
    """The same, with the results of the arrays that are `known`; no closure, whose cycle would keep its values."""
    first = nested[0]
    if isinstance(first, tuple):
        mapped = [_map_nested(function, known, each) for each in zip(*nested, strict=True)]
        return first._make(mapped) if hasattr(first, "_make") else tuple(mapped)
    if not hasattr(first, "shape"):
        return first
    key = tuple(map(id, nested))
    if key not in known:
        known[key] = function(*nested)
    return known[key]


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
    """Values of the network's nodes at the points of paths; rows are those of a layer for one window, such as steps."""

    features: Tensor  # the points, (n, n_points, lookback, n_features)
    inputs: tuple[Tensor, ...]  # of each KAN layer, (n, n_points, rows, n_in)
    watched: tuple[Tensor, ...]  # as `Trace.watched`, (n, n_points, ...)
    recurrents: tuple[tuple[RecurrentTrace, ...], ...]  # the passes of each recurrent layer, one for each row
    kinks: tuple[Tensor, ...]  # as `Trace.kinks`, (n, n_points, n)

    @classmethod
    def of(cls, points: Tensor, trace: Trace, paths: tuple[int, int]) -> PassedNodes:
        """The values of a trace of all points of paths, flattened over (n, n_points)."""
        known: dict[Any, Tensor] = {}

        def share(values: Tensor) -> Tensor:
            """The same tensor for the same values, so that `map_arrays` copies them once."""
            return known.setdefault((values.data_ptr(), values.shape, values.stride()), values)

        def along(values: Tensor, *rows: int) -> Tensor:
            return share(by_path(values, paths, *rows))

        features, recurrents = along(points), list[tuple[RecurrentTrace, ...]]()
        for of in trace.recurrents:
            by_row = (map(share, by_path(values, paths, -1).unbind(2)) for values in (of.steps, *of.states))
            recurrents.append(tuple(RecurrentTrace(x, tuple(states)) for x, *states in zip(*by_row, strict=True)))
        return cls(
            features,
            tuple(along(layer.inputs, -1) for layer in trace.layers),
            tuple(map(along, trace.watched)),
            tuple(recurrents),
            tuple(map(along, trace.kinks)),
        )


def join_values(values: Sequence[Tensor], logits: Tensor) -> Tensor:
    """The values of cuts and the logits, or their gradients, one after the other, (batch, n)."""
    return torch.cat([*map(flat, values), logits], dim=1)


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
    values: Tensor | None = None  # of all cuts and the logits, one after the other, (n, n_points, n_values)
    values_gradient: Tensor | None = None  # by these
    # By layer, front first: edges, (n, n_points, rows, n_subnodes, n_in); of a Linear one its inputs, (..., n_in).
    edges: tuple[Tensor, ...] | None = None
    links: Tensor | None = None  # slopes of the output along the path by what a unit gets, (n, n_points, n_units, n_in)

    def interleave(self, between: PathSamples) -> PathSamples:
        """Merges the samples at the points between each two of these."""

        def merge(values: Tensor, others: Tensor) -> Tensor:
            both = values.new_empty(len(values), values.shape[1] + others.shape[1], *values.shape[2:])
            both[:, ::2], both[:, 1::2] = values, others
            return both

        return map_arrays(merge, self, between)


class Contributions(NamedTuple):
    """Contributions to one output along n paths, or parts of them; float64. All but `start` and `places` add up.

    The last four are of the flow; without it they are None.
    """

    start: Array  # F(start), (n,)
    change: Array  # F(end) - F(start), (n,)
    steps: Array  # of each feature at each step, (n, lookback, n_features)
    values: Array | None  # of the values of cuts, and of the logits, before an output function, (n, n_values)
    edges: tuple[Array, ...] | None  # of each KAN layer, front first and summed over the steps, (n, n_subnodes, n_in)
    links: Array | None  # from the values that a recurrent chain reads to its readout, (n, n_readout, n_in)
    places: Places | None = None  # of the ends


def paths_per_pass(config: ModelConfig, n_points: int) -> int:
    """How many paths are sampled per pass: about `PASS_BYTES` of features, edges and gates."""
    values = len(config.features) + sum(layer.n_in * layer.n_subnodes for layer in config.front)
    values += sum(count_gates(config))
    point: int = (config.lookback * values + config.graph_size) * getattr(torch, config.dtype).itemsize
    return max(1, PASS_BYTES // (n_points * point), GRAPH_POINTS // n_points if config.graph_size else 1)


def points_along(starts: Tensor, ends: Tensor, nodes: Array) -> Tensor:
    """Points of paths, (n, n_nodes, lookback, n_features), at positions (n_nodes,) from 0 to 1 on each.

    They lead from `starts`, (n, lookback, n_features), or (1, ...) for all of them, to `ends`.
    """
    return torch.lerp(starts[:, None], ends[:, None], torch.from_numpy(nodes).to(ends.dtype)[:, None, None])


def sample_path(
    network: FrozenNetwork, starts: Tensor, ends: Tensor, nodes: Array, of: NDArray[np.int64], detail: Detail
) -> PathSamples:
    """A forward and a backward pass over all points of paths, which are as in `points_along`, for an output of each.

    `of` are the outputs, (n,).
    """
    with torch.inference_mode(False):
        batch = points_along(starts, ends, nodes).flatten(0, 1)
        trace, pull_back = network.linearise(batch)
        chosen = torch.from_numpy(of).repeat_interleave(len(nodes))[:, None]
        one = torch.zeros_like(trace.outputs).scatter_(1, chosen, 1)
        gradients = pull_back(one)
    outputs, paths = trace.outputs.gather(1, chosen)[:, 0], (len(ends), len(nodes))
    of_subnodes = tuple(by_path(gradient, paths, -1) for gradient in gradients.subnodes)
    passed = PassedNodes.of(batch, trace, paths)
    samples = PathSamples(by_path(outputs, paths), by_path(gradients.window, paths), of_subnodes, passed)
    if detail not in FLOW:
        return samples
    if detail == "links" and network.is_path and network.recurrents:
        change = (ends.detach() - starts).repeat_interleave(len(nodes), dim=0)
        slopes = network.readout_slopes(trace, _step_changes(network, batch, change))
        samples = samples._replace(links=by_path(slopes * gradients.values[0].unsqueeze(2), paths))
    values, by_values = (by_path(join_values(each.values, each.logits), paths) for each in (trace, gradients))
    edges = tuple(
        by_path(layer.edges if lines is None else of.read(layer.inputs)[1], paths, -1)
        for layer, lines, of in zip(trace.layers, network.lines, network.network.layers.values(), strict=True)
    )
    return samples._replace(values=values, values_gradient=by_values, edges=edges)


def _step_changes(network: FrozenNetwork, points: Tensor, change: Tensor) -> Tensor:
    """Slopes along the paths of what the recurrent layer reads, (n_points, lookback, n): of the front's last nodes."""
    if not network.config.front:
        return change
    with torch.inference_mode(False), torch.enable_grad():
        windows = points.detach().clone().requires_grad_()
        nodes = pass_layers(network.network.front, windows.flatten(0, 1)).unbind(1)
        slopes = [torch.autograd.grad(node.sum(), windows, retain_graph=True)[0] for node in nodes]
    return torch.stack([(slope * change).sum(dim=2) for slope in slopes], dim=2)


@np.errstate(over="ignore", invalid="ignore")  # the ledger refuses what is not finite
def integrate(
    change: Tensor, samples: PathSamples, rule: Quadrature, lines: Sequence[Tensor | None]
) -> tuple[Contributions, Array]:
    """Contributions of 3 n paths in float64, the finest of three rules first, and the gaps of `measure_gaps`, (3, n).

    `change` is end - start of each path, (n, lookback, n_features); the samples are at the nodes of the rule. `lines`
    are the weights of each Linear layer, see `FrozenNetwork.lines`.
    """
    n, outputs = len(change), samples.outputs.double().numpy()
    gradient, moved = samples.gradient.flatten(2).double().numpy(), change.double().numpy()
    gradients = rule.weights @ gradient  # (n, 3, lookback * n_features)
    steps = moved[:, None] * gradients.reshape(n, 3, *change.shape[1:])
    gaps = measure_gaps(outputs, (gradient @ moved.reshape(n, -1, 1)).squeeze(2))
    of_values = of_edges = of_links = None
    if samples.values is not None and samples.values_gradient is not None and samples.edges is not None:
        of_values = _integrate_nodes(rule, samples.values_gradient, samples.values)
        of_edges = tuple(map(_integrate_edges, _adjoints(rule, samples.subnodes_gradient), samples.edges, lines))
    if samples.links is not None:
        links = samples.links.double().numpy()
        of_links = (rule.weights @ links.reshape(*outputs.shape, -1)).reshape(n, 3, *links.shape[2:])
    start, moved_output = (np.repeat(each, 3, axis=1) for each in (outputs[:, :1], outputs[:, -1:] - outputs[:, :1]))
    by_rule = Contributions(start, moved_output, steps, of_values, of_edges, of_links)
    return map_arrays(lambda values: values.swapaxes(0, 1).reshape(3 * n, *values.shape[2:]), by_rule), gaps


def _integrate_nodes(rule: Quadrature, gradient: Tensor, values: Tensor) -> Array:
    """Integrals of gradients times the derivatives of values, (n, n_nodes, n_values) each -> (n, 3, n_values)."""
    by, of = gradient.double().numpy(), values.double().numpy()
    of_rules = [np.einsum("nkv,nkv->nv", matrix @ of[:, ::every], by[:, ::every]) for every, matrix in rule.own]
    return np.stack(of_rules, axis=1)


def _adjoints(rule: Quadrature, gradients: Sequence[Tensor]) -> list[Array]:
    """Turns gradients along the path into weights of the values themselves, (n, n_nodes, ...) -> (n, 3, n_nodes, ...).

    sum_k w_k g(a_k) h'(a_k) = sum_m (D^T w g)_m h(a_m), with D the differentiation matrix: by each of the rules.
    """
    if not gradients:
        return []
    n, n_nodes = gradients[0].shape[:2]
    adjoint = rule.adjoints @ torch.cat([gradient.flatten(2) for gradient in gradients], dim=2).double().numpy()
    ends = np.cumsum([gradient.shape[2:].numel() for gradient in gradients])
    return [
        part.reshape(n, 3, n_nodes, *gradient.shape[2:])
        for part, gradient in zip(np.split(adjoint, ends[:-1], axis=2), gradients, strict=True)
    ]


def _integrate_edges(adjoint: Array, values: Tensor, lines: Tensor | None) -> Array:
    """(n, 3, n_nodes, rows, n_subnodes) and (n, n_nodes, rows, n_subnodes, n_in) -> (n, 3, n_subnodes, n_in)."""
    n, _, _, _, n_subnodes = adjoint.shape
    if lines is not None:
        read = values.reshape(n, 1, -1, values.shape[-1]).double().numpy()
        of_lines: Array = adjoint.reshape(n, 3, -1, n_subnodes).swapaxes(2, 3) @ read
        of_lines *= lines.double().numpy()
        return of_lines
    by_subnode = adjoint.transpose(0, 4, 1, 2, 3).reshape(n, n_subnodes, 3, -1)
    edges = values.permute(0, 3, 1, 2, 4).reshape(n, n_subnodes, -1, values.shape[-1]).double().numpy()
    integrals: Array = by_subnode @ edges  # matrices so small that numpy multiplies them faster than torch
    return integrals.transpose(0, 2, 1, 3)


class LedgerLayer(NamedTuple):
    """Contributions of one layer: of its nodes, and of the edges from them.

    From the features of a recurrent chain, or from the last nodes of its front, edges lead to the units of the readout:
    sum_k w_k dF/dh_u sum_t dh_u/dv_i(t) v_i'(t), which are the `links`.
    """

    stage: str  # input, front, lstm, gru, cell, head or output; several may be of one kind in a graph
    layer: int  # index within its stage
    nodes: Array | None  # (n, n_nodes); None if another stage lists the same nodes
    edges: Array | None  # (n, n_subnodes, n_nodes); None if there are none
    around: Array | None = None  # of what flows around the nodes of a graph there, (n, n_sources); None if nothing does
    sources: tuple[str, ...] = ()  # what that comes from, such as ``window`` or ``lstm:0``
    values: Array | None = None  # at which the functions of the edges are read in the window, as `Edge.x`, (n, n_nodes)
    y: Array | None = None  # their values there, as `Edge.y`, (n, n_subnodes, n_nodes)
    inside: bool = False  # whether it is in a loop, summed over the steps: its entries do not sum to the forecast


def list_layers(network: Network, of: int | NDArray[np.int64], contributions: Contributions) -> tuple[LedgerLayer, ...]:
    """The layers in the order of the data, from the features to the outputs, linear in the contributions.

    `of` is the output that they are to, or the output of each path, (n,).
    Each node's contribution is the sum over its steps and rows, or over the edges into it. Without the flow there are
    only the input and the output.
    """
    config, edges, depth = network.config, contributions.edges, len(network.config.head)
    outputs = np.zeros((len(contributions.change), len(config.outputs)))
    outputs[np.arange(len(outputs)), of] = contributions.change
    links = contributions.links
    layers = [LedgerLayer("input", 0, contributions.steps.sum(axis=1), None if config.front else links)]
    if edges is not None:
        layers += _list_cuts(config, contributions, edges)
        if config.output_function is not None:
            assert contributions.values is not None
            layers.append(LedgerLayer("head", depth, contributions.values[:, -len(config.outputs) :], None))
    return (*layers, LedgerLayer("output", depth, outputs, None))


def _list_cuts(config: ModelConfig, contributions: Contributions, edges: Sequence[Array]) -> Iterator[LedgerLayer]:
    assert contributions.values is not None
    held, shapes = config.cut_values, [config.graph_shapes[node] for node in config.cut_values.nodes]
    parts = np.split(contributions.values, np.cumsum([*map(math.prod, shapes)]), axis=1)
    values = [
        part.reshape(len(part), -1, shape[-1] if shape else 1).sum(axis=1)
        for part, shape in zip(parts, shapes, strict=False)  # without the logits
    ]
    of_cut = iter(held.of_cut)
    entering: Array | None = None  # of the edges into the nodes
    for cut in config.cuts:
        nodes, sources, around = entering, tuple(dict.fromkeys(source for _, source in cut.around)), None
        if cut.at is not None:
            leaf, *others = next(of_cut)
            nodes = values[leaf]
        if sources:
            around = np.zeros((len(contributions.change), len(sources)))
            for other, (_, source) in zip(others, cut.around, strict=True):
                around[:, sources.index(source)] += values[other].sum(axis=1)
        leaving = contributions.links if cut == Cut("front", len(config.front), None) else None
        leaving = leaving if cut.edges is None else edges[cut.edges]
        if cut.inside and leaving is not None and not _continues(config, cut):
            nodes = leaving.sum(axis=1)
        if cut.stage:
            yield LedgerLayer(cut.stage, cut.layer, nodes, leaving, around, sources, inside=cut.inside)
        entering = None if cut.edges is None else sum_subnodes(config.layers[cut.edges], edges[cut.edges])


def _continues(config: ModelConfig, cut: Cut) -> bool:
    """Whether a layer reads the nodes of the layer before it, and nothing else does."""
    return any((cut.stage, cut.layer) in row[1:] for row in config.wiring.rows)


def find_places(network: Network, samples: PathSamples) -> Places:
    """The places of the ends of paths."""
    assert samples.edges is not None
    return tuple(
        _find_places(key[0], layer, inputs[:, -1], edges[:, -1])
        for (key, layer), inputs, edges in zip(
            network.layers.items(), samples.passed.inputs, samples.edges, strict=True
        )
    )


def _find_places(stage: str, layer: KANLayer, inputs: Tensor, edges: Tensor) -> tuple[Array, Array] | None:
    """The same of one layer, from its (n, rows, n_in) and what `PathSamples` has of its edges, (n, rows, ...)."""
    if inputs.shape[1] != 1 and stage != "front":
        return None
    if layer.config.is_linear:
        edges = edges.unsqueeze(2) * layer.weights().squeeze(-1)
    x, y = inputs[:, -1], edges[:, -1]
    if layer.config.mixes:
        x = layer.read(x)[1]
        if layer.config.n_before_base != len(layer.config.before):  # the base reads something else
            y = layer.functions().functions.edges(x)
    return x.double().numpy(), y.double().numpy()


def add_places(network: Network, layers: Sequence[LedgerLayer], places: Places | None) -> tuple[LedgerLayer, ...]:
    """The layers with places on the functions of their edges."""
    known = dict(zip(network.layers, places or (), strict=False))
    return tuple(
        layer
        if layer.edges is None or (found := known.get(layer[:2])) is None
        else layer._replace(values=found[0], y=found[1])
        for layer in layers
    )


def measure_residual(network: Network, layers: Sequence[LedgerLayer], change: Array) -> Array:
    """The largest of |layer sum - (F(x) - F(x0))| and of |in - out| at a KAN node, (n,).

    After a layer norm only the layer's sum is compared, since a normalised input depends on all nodes; of a layer in a
    loop only its nodes, where it reads those of another layer. `change` is
    F(x) - F(x0), (n,).
    """
    config, total = network.config, change[:, None]
    gaps: list[Array] = []  # (n, n_gaps) each
    entering = reaching = np.zeros((len(change), 0))  # contributions of the edges into nodes, and of the nodes
    is_linked = False
    for layer in layers:
        around = 0.0 if layer.around is None else layer.around.sum(axis=1, keepdims=True)
        if layer.nodes is not None:
            reaching = layer.nodes
            if is_linked:
                gaps.append(reaching - entering)
            if not layer.inside:
                gaps.append(reaching.sum(axis=1, keepdims=True) + around - total)
            if layer.edges is None and layer.stage == "head" and config.nodes[-1].op == "layer":  # logits
                gaps.append(reaching - entering)
        is_linked = layer.edges is not None and (layer.stage == "input" or layer[:2] == ("front", len(config.front)))
        if layer.edges is not None:
            of_layer = None if is_linked else config.stages[layer.stage][layer.layer]
            if not layer.inside:
                gaps.append(layer.edges.sum(axis=(1, 2))[:, None] + around - total)
            if of_layer is None or not of_layer.mixes:
                gaps.append(layer.edges.sum(axis=1) - reaching)
            entering = layer.edges.sum(axis=2) if of_layer is None else sum_subnodes(of_layer, layer.edges)
    residual: Array = np.abs(np.concatenate(gaps, axis=1)).max(axis=1)
    return residual


def sum_subnodes(config: LayerConfig, edges: Array) -> Array:
    """Contributions of edges to their target nodes, (n, n_out): a product node has the sum of its sub-nodes."""
    entering: Array = edges.sum(axis=2)
    if config.mult_arity:
        entering = entering @ np.eye(config.n_out)[list(config.node_of_subnode)]
    return entering
