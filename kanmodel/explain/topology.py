"""`Topology`: the pruned graph of a model, with a picture.

The topology graph: nodes and edges with their contributions, their scores, and whether pruning keeps them.

A product node has a sub-node for each factor, which an edge of kind ``product`` connects with it. Edges of kind
``input`` connect features with the units or cells that the head reads; edges of kind ``output`` connect the last
layer's nodes with the output if the model has an output function.

Lookup of KAN edges by id, by the ids of their end nodes, or by (stage, layer, i, j).

Construction of the topology graph from contributions, edge and node scores, and a pruning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import tanh
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from kanmodel import html
from kanmodel.checkpoint import LoadedModel
from kanmodel.checks import checked
from kanmodel.errors import UnknownNameError, quote
from kanmodel.explain.importance import ImportanceEstimates
from kanmodel.explain.pruning import EdgePlace, Fidelity, Pruning, PruningRule, prune_by_rule
from kanmodel.explain.result import GlobalResult, Pictured
from kanmodel.explain.scores import MIN_INPUTS, KANScores, score_traces
from kanmodel.explain.structure import (
    READOUT_KINDS,
    NodeKind,
    connected_features,
    kind_of,
    label_of,
    n_nodes,
    node_id,
    node_place,
    output_id,
    subnode_id,
)
from kanmodel.network.chain import Network, Trace
from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.network.layer import KANLayer, LayerTrace
from kanmodel.text import list_some, with_unit, write_table

if TYPE_CHECKING:
    from networkx import DiGraph


EdgeKind = Literal["edge", "product", "input", "output"]


@dataclass(frozen=True)
class TopologyNode:
    """A node of the graph.

    Attributes:
        id: as `kanmodel.explain.structure` describes.
        kind: feature, front, lstm, gru, cell, head, output or subnode.
        layer: its layer within its stage.
        index: its number within its layer.
        label: display name.
        kept: whether the rule keeps it; for a feature that is not an input of a KAN, whether it is connected with the
            output.
        contribution: mean |contribution| over the reference windows, the target's unit; None for a sub-node.
        interval: of that mean, 95 %.
        scores: pykan's backward score, model units; None if not available.
        profile: share of each feature in the node's own value, by name; empty for features and sub-nodes.
    """

    id: str
    kind: NodeKind
    layer: int
    index: int
    label: str
    kept: bool
    contribution: float | None = None
    interval: tuple[float, float] | None = None
    scores: Mapping[str, float] | None = None
    profile: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TopologyEdge:
    """An edge of the graph.

    Attributes:
        source: id of the node it leaves.
        target: id of the node, or of a product node's sub-node, that it enters.
        kind: ``edge``, a function of a KAN; ``product``, from a sub-node to its node; ``input``, from a feature to a
            unit or a cell; ``output``, from a node of the last layer to the output, through the output function.
        stage: front, lstm, gru, cell, head or output.
        layer: layer of the node it leaves; for ``product`` the layer of the node.
        i: index of the node, or sub-node, it leaves.
        j: index of the sub-node, or node, it enters.
        kept: whether the rule keeps it.
        masked: whether the checkpoint itself masks it.
        contribution: mean |contribution| over the reference windows, the target's unit; only for ``edge`` and
            ``output``.
        interval: of that mean, 95 %.
        share: of the feature in the profile of the unit or cell; only for ``input``.
        scores: backward, forward_n and forward_u, model units; None if not available.
        opacity: tanh(3 * backward score), as pykan draws it; None without scores.
        outside_grid: share of its inputs on the reference windows outside the core interval of its grid; None if its
            basis has no grid.
    """

    source: str
    target: str
    kind: EdgeKind
    stage: str
    layer: int
    i: int
    j: int
    kept: bool
    masked: bool = False
    contribution: float | None = None
    interval: tuple[float, float] | None = None
    share: float | None = None
    scores: Mapping[str, float] | None = None
    opacity: float | None = None
    outside_grid: float | None = None


@dataclass(frozen=True)
class NetworkGraph:
    """The graph of a model for one output.

    Attributes:
        output: name of the output.
        rule: the pruning rule, its metric resolved.
        fidelity: of the pruned network.
        nodes: all nodes, from the features to the outputs.
        edges: all edges, KAN edges first.
        reference_windows: number of reference windows.
    """

    output: str
    rule: PruningRule
    fidelity: Fidelity
    nodes: tuple[TopologyNode, ...]
    edges: tuple[TopologyEdge, ...]
    reference_windows: int

    @property
    def kan_edges(self) -> tuple[TopologyEdge, ...]:
        """The edges of the KANs, which hold functions."""
        return tuple(edge for edge in self.edges if edge.kind == "edge")

    def upstream(self) -> Self:
        """The subgraph upstream of the output, along all edges; features, front nodes, units and cells stay."""
        before_head = [node.id for node in self.nodes if node.kind not in ("head", "subnode", "output")]
        found = _reach([f"output:{self.output}", *before_head], ((edge.target, edge.source) for edge in self.edges))
        return replace(
            self,
            nodes=tuple(node for node in self.nodes if node.id in found),
            edges=tuple(edge for edge in self.edges if edge.target in found),
        )

    @checked
    def through(self, node: str, only_kept: bool = True) -> Self:
        """The subgraph upstream and downstream of a node.

        Args:
            node: its id. The node itself is included even if it has no edges.
            only_kept: whether to leave out pruned edges.

        Raises:
            UnknownNameError: there is no such node.
        """
        if all(one.id != node for one in self.nodes):
            raise UnknownNameError(f"there is no node {quote(node)}; the graph has {self.nodes[0].id!r} and others")
        edges = [edge for edge in self.edges if edge.kept or not only_kept]
        above = _reach([node], ((edge.source, edge.target) for edge in edges))
        below = _reach([node], ((edge.target, edge.source) for edge in edges))
        found = above | below
        return replace(
            self,
            nodes=tuple(one for one in self.nodes if one.id in found),
            edges=tuple(
                edge for edge in edges if {edge.source, edge.target} <= above or {edge.source, edge.target} <= below
            ),
        )

    @checked
    def edge(self, stage: str, layer: int, i: int, j: int) -> TopologyEdge:
        """The KAN edge from node i of `layer` to sub-node j of the next.

        Raises:
            UnknownNameError: there is none.
        """
        return edge_at(self.kan_edges, stage, layer, i, j)


def _reach(starts: Iterable[str], steps: Iterable[tuple[str, str]]) -> set[str]:
    """The nodes reachable from some nodes along (source, target) steps, including these nodes."""
    following: dict[str, list[str]] = {}
    for start, end in steps:
        following.setdefault(start, []).append(end)
    found, waiting = set[str](), list(starts)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(following.get(node, ()))
    return found


def edge_at(edges: Iterable[TopologyEdge], stage: str, layer: int, i: int, j: int) -> TopologyEdge:
    """The KAN edge from node i of a layer of a stage to sub-node j of the next.

    Raises:
        UnknownNameError: there is none; the message lists the valid indices.
    """
    numbers: dict[tuple[str, int], tuple[int, int]] = {}
    for edge in edges:
        if (edge.stage, edge.layer, edge.i, edge.j) == (stage, layer, i, j):
            return edge
        numbers[edge.stage, edge.layer] = edge.i, edge.j  # the last of a layer has the largest
    exist = "; ".join(f"{name} layer {number}: i 0 to {i}, j 0 to {j}" for (name, number), (i, j) in numbers.items())
    raise UnknownNameError(f"there is no edge ({stage}, {layer}, {i}, {j}); there are {exist}")


_ID = re.compile("(front|head):([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9})")


def find_places(network: Network, edges: Iterable[Any]) -> tuple[EdgePlace, ...]:
    """The (stage, layer, i, j) of edges in any of the forms of `find_place`, sorted, each once.

    Raises:
        UnknownNameError: one of them does not exist.
    """
    return tuple(sorted({find_place(network, edge) for edge in ([edges] if isinstance(edges, str) else edges)}))


def find_place(network: Network, edge: Any, stage: str = "head") -> EdgePlace:
    """The (stage, layer, i, j) of an edge.

    Args:
        network: the network.
        edge: its id, such as ``"head:0:7:3"``; the ids of its end nodes, such as ``("lstm:7", "head:1:3")``; or its
            indices ``(layer, i, j)`` or ``(stage, layer, i, j)``.
        stage: the stage of ``(layer, i, j)``.

    Raises:
        UnknownNameError: there is no such edge.
    """
    match edge:
        case str() if found := _ID.fullmatch(edge):
            stage, *numbers = found.groups()
        case str():
            raise UnknownNameError(f"there is no edge {quote(edge)}: an id is such as 'head:0:7:3'")
        case [str() as source, str() as target]:
            between = find_edge_between(network, source, target)
            return between.stage, between.layer, between.i, between.j
        case [Integral(), Integral(), Integral()]:
            numbers = edge
        case [str() as stage, Integral(), Integral(), Integral()]:
            numbers = edge[1:]
        case _:
            raise UnknownNameError(
                "an edge is an id such as 'head:0:7:3', two ids of nodes or indices layer, i, j, but "
                f"{quote(edge)} is not"
            )
    layer, i, j = (int(number) for number in numbers)
    known = network.layers.get((stage, layer))
    if known is None or not (0 <= i < known.config.n_in and 0 <= j < known.config.n_subnodes):
        find_edge_at(network, stage, layer, i, j)  # raises, with the valid indices
    return stage, layer, i, j


def find_edge_between(network: Network, source: str, target: str) -> TopologyEdge:
    """The edge from a node to a node, or to a factor of a product node, by their ids.

    Raises:
        UnknownNameError: there is none; the message lists targets of the source, or sources if it has none.
    """
    leaving = [edge for edge in network_edges(network) if edge.source == source]
    for edge in leaving:
        if edge.target == target:
            return edge
    if leaving:
        targets = list_some([edge.target for edge in leaving])
        raise UnknownNameError(
            f"there is no edge from {quote(source)} to {quote(target)}; from {quote(source)} edges lead to {targets}"
        )
    sources = list_some(list(dict.fromkeys(edge.source for edge in network_edges(network))))
    raise UnknownNameError(f"there is no edge from {quote(source)}; edges leave {sources}")


def find_edge_at(network: Network, stage: str, layer: int, i: int, j: int) -> TopologyEdge:
    """The edge from node i of a layer of a stage to sub-node j of the next.

    Raises:
        UnknownNameError: there is none; the message lists the valid indices.
    """
    return edge_at(network_edges(network), stage, layer, i, j)


def network_edges(network: Network) -> Iterator[TopologyEdge]:
    """Yields all KAN edges of a checkpoint: kept unless the checkpoint masks them, without contributions or scores."""
    config = network.config
    for (stage, number), layer in network.layers.items():
        live = layer.live.tolist()
        sources = [node_id(config, stage, number, i) for i in range(layer.config.n_in)]
        targets = [subnode_id(config, stage, number + 1, j) for j in range(layer.config.n_subnodes)]
        for i, j in product(range(len(sources)), range(len(targets))):
            kept = live[j][i]
            yield TopologyEdge(sources[i], targets[j], "edge", stage, number, i, j, kept=kept, masked=not kept)


OPACITY_BETA = 3.0  # the default `beta` of pykan's `plot`: opacity = tanh(beta * backward score)


def build_topology(model: LoadedModel, importance: ImportanceEstimates, rule: PruningRule) -> NetworkGraph:
    """Prunes a model by a rule and builds its graph.

    Args:
        model: the model.
        importance: its contributions to one output.
        rule: the pruning rule.

    Raises:
        InsufficientReferenceError: the rule's metric is a score, and there are too few reference windows for one.
    """
    return assemble_topology(model, importance, prune_by_rule(model, importance, rule))


def assemble_topology(model: LoadedModel, importance: ImportanceEstimates, pruning: Pruning) -> NetworkGraph:
    """Builds the graph of a model for a given pruning."""
    with torch.no_grad():
        trace = model.network.trace(model.reference.windows)
    scores: dict[str, KANScores] = {}
    if len(model.reference.windows) >= MIN_INPUTS:
        stages = model.network.stages
        scores = {stage: score_traces(layers, trace.stages[stage]) for stage, layers in stages.items()}
    nodes = list(_nodes(model, importance, pruning, scores))
    return NetworkGraph(
        output=model.config.outputs[importance.output],
        rule=pruning.rule,
        fidelity=pruning.fidelity,
        nodes=tuple(nodes),
        edges=(
            *_kan_edges(model, importance, pruning, trace, scores),
            *_product_edges(model, pruning),
            *_input_edges(nodes),
            *_output_edges(nodes, model.config, importance.output),
        ),
        reference_windows=len(model.reference.windows),
    )


def _nodes(
    model: LoadedModel, importance: ImportanceEstimates, pruning: Pruning, scores: Mapping[str, KANScores]
) -> Iterator[TopologyNode]:
    config = model.config
    if config.readout_stage is not None and not config.front:  # features are not the first nodes of a stage
        connected = connected_features(model.network, importance.output)
        for index in range(len(config.features)):
            yield _node(
                model, importance, ("input", 0), index, f"feature:{config.feature_names[index]}", connected[index]
            )
    for stage, layers in config.stages.items():
        for number, n in enumerate(n_nodes(layers)):
            place, kept = node_place(config, stage, number), pruning.nodes[stage, number].tolist()
            of_nodes = scores[stage].nodes[number].tolist() if stage in scores else None
            # With a front, the head's input nodes may be the front's outputs.
            for index in range(n) if number or place[0] != "front" else ():
                identity = node_id(config, stage, number, index)
                score = {"backward": of_nodes[index]} if of_nodes else None
                yield _node(model, importance, place, index, identity, kept[index], score)
            for subnode, node in _factors(layers[number - 1]) if number else ():
                identity = subnode_id(config, stage, number, subnode)
                yield TopologyNode(identity, "subnode", number, subnode, label_of(identity), kept[node])
    if config.output_function is not None:
        for index in range(len(config.outputs)):
            place = ("output", len(config.head))
            yield _node(model, importance, place, index, output_id(config, index), index == importance.output)


def _node(
    model: LoadedModel,
    importance: ImportanceEstimates,
    place: tuple[str, int],
    index: int,
    identity: str,
    kept: bool,
    scores: Mapping[str, float] | None = None,
) -> TopologyNode:
    """Node `index` of a layer, with its contribution; `place` is (stage, layer)."""
    features = place == ("input", 0)
    estimate = importance.features if features else importance.nodes[place]
    return TopologyNode(
        id=identity,
        kind=kind_of(identity),
        layer=place[1],
        index=index,
        label=label_of(identity),
        kept=kept,
        contribution=float(estimate.value[index]),
        interval=estimate.bounds(index),
        scores=scores,
        profile={} if features else _profile(model.config, importance, place, index),
    )


def _kan_edges(
    model: LoadedModel, importance: ImportanceEstimates, pruning: Pruning, trace: Trace, scores: Mapping[str, KANScores]
) -> Iterator[TopologyEdge]:
    outside = {
        (stage, number): _outside_core(model.network.layers[stage, number], layer)
        for stage, layers in trace.stages.items()
        for number, layer in enumerate(layers)
    }
    for edge in network_edges(model.network):
        place, i, j = (edge.stage, edge.layer), edge.i, edge.j
        score, beyond = _edge_scores(scores.get(edge.stage), edge), outside[place]
        yield replace(
            edge,
            kept=bool(pruning.edges[place][j, i]),
            contribution=float(importance.edges[place].value[j, i]),
            interval=importance.edges[place].bounds(j, i),
            scores=score,
            opacity=tanh(OPACITY_BETA * score["backward"]) if score else None,
            outside_grid=None if beyond is None else float(beyond[i]),
        )


def _edge_scores(scores: KANScores | None, edge: TopologyEdge) -> dict[str, float] | None:
    if scores is None:
        return None
    by_metric = {"backward": scores.backward, "forward_n": scores.forward_n, "forward_u": scores.forward_u}
    return {metric: float(values[edge.layer][edge.j, edge.i]) for metric, values in by_metric.items()}


def _product_edges(model: LoadedModel, pruning: Pruning) -> Iterator[TopologyEdge]:
    for (stage, layer), kept in pruning.nodes.items():
        for subnode, node in _factors(model.config.stages[stage][layer - 1]) if layer else ():
            source = subnode_id(model.config, stage, layer, subnode)
            target = node_id(model.config, stage, layer, node)
            yield TopologyEdge(source, target, "product", stage, layer, subnode, node, bool(kept[node]))


def _factors(layer: LayerConfig) -> Iterator[tuple[int, int]]:
    """Yields (sub-node, node) for each factor of a product node of a layer."""
    return (pair for pair in enumerate(layer.node_of_subnode) if pair[1] >= layer.n_sum)


def _input_edges(nodes: Sequence[TopologyNode]) -> Iterator[TopologyEdge]:
    features = [node for node in nodes if node.kind == "feature"]
    for unit in (node for node in nodes if node.kind in READOUT_KINDS):
        for feature in features:
            share = unit.profile.get(feature.label, 0.0)
            if unit.kind == "cell" and not share:  # a cell is one value of one step, which most features do not reach
                continue
            yield TopologyEdge(
                source=feature.id,
                target=unit.id,
                kind="input",
                stage=unit.kind,
                layer=0,
                i=feature.index,
                j=unit.index,
                kept=unit.kept and feature.kept,
                share=share,
            )


def _output_edges(nodes: Sequence[TopologyNode], config: ModelConfig, output: int) -> Iterator[TopologyEdge]:
    """Yields edges from the last layer's nodes that the output function reads for an output to that output."""
    depth = len(config.head)
    if config.output_function is None:
        return
    for node in nodes:
        of_last = node.kind == "head" and node.layer == depth
        if of_last and (config.output_function == "softmax" or node.index == output):
            yield TopologyEdge(
                source=node.id,
                target=output_id(config, output),
                kind="output",
                stage="output",
                layer=depth,
                i=node.index,
                j=output,
                kept=node.kept,
                contribution=node.contribution,
                interval=node.interval,
            )


def _profile(
    config: ModelConfig, importance: ImportanceEstimates, place: tuple[str, int], index: int
) -> dict[str, float]:
    """Share of each feature in a node, by name, largest first; features with a share of 0 are left out."""
    profiles = importance.profiles.get(place, importance.profiles.get(("head", place[1])))
    assert profiles is not None
    shares = zip(config.feature_names, profiles[index].tolist(), strict=True)
    return {name: share for name, share in sorted(shares, key=lambda pair: -pair[1]) if share > 0}


def _outside_core(layer: KANLayer, trace: LayerTrace) -> Tensor | None:
    """Share of values outside the core interval of the grid, by input, (n_in,); None for a basis without a grid."""
    core = layer.core
    if core is None:
        return None
    of_basis = layer.read(trace.inputs)[1]
    return ((of_basis < core[0]) | (of_basis > core[1])).double().mean(dim=0)


_COLUMNS = ("source", "target", "contribution", "backward")


@dataclass(frozen=True, repr=False, eq=False)
class Topology(GlobalResult, Pictured, NetworkGraph):
    """The graph of a model for one output, with the kept edges and nodes, and the fidelity of the pruned model.

    Attributes:
        unit: of the contributions; None if unknown.
        name: name of the model, for the picture.
        loaded: the model, whose edges are sampled for the picture.
    """

    unit: str | None = field(kw_only=True)
    name: str = field(kw_only=True)
    loaded: LoadedModel = field(kw_only=True)

    def networkx(self) -> DiGraph[str]:
        """A directed graph with the fields of nodes and edges as attributes, including pruned ones with kept=False."""
        from networkx import DiGraph  # here, because it is rarely needed

        graph = DiGraph(output=self.output)
        graph.add_nodes_from((node.id, _without(node, "id")) for node in self.nodes)
        graph.add_edges_from((edge.source, edge.target, _without(edge, "source", "target")) for edge in self.edges)
        return graph

    def table(self) -> list[dict[str, Any]]:
        """A row for each edge that holds a function, largest contribution first."""
        rows = []
        for edge in sorted(self.kan_edges, key=lambda edge: -(edge.contribution or 0.0)):
            row = _without(edge, "scores", "interval", "kind", "share")
            low, high = edge.interval or (None, None)
            scores = edge.scores or dict.fromkeys(("backward", "forward_n", "forward_u"))
            rows.append(row | {"interval_low": low, "interval_high": high} | dict(scores))
        return rows

    def _title(self) -> str:
        return f"Topology for {with_unit(self.output, self.unit)}"

    def _details(self) -> str:
        kept = [row for row in self.table() if row["kept"]]
        return html.fold("Kept edges", html.write_table(kept, _COLUMNS))

    def _text(self) -> str:
        kept = [row for row in self.table() if row["kept"]]
        cost = self.fidelity
        errors = "" if cost.mae is None else f", MAE {cost.mae:.4g} (full model {cost.mae_full:.4g})"
        head = (
            f"{self._title()}: {len(kept)} of {len(self.kan_edges)} edges kept, "
            f"R2 {cost.r2:.4f} against the full model{errors}"
        )
        return f"{head}\n{write_table(kept, _COLUMNS)}"


def _without(part: TopologyNode | TopologyEdge, *names: str) -> dict[str, Any]:
    """The fields of a node or an edge except some; mappings are copied, because the part is shared."""
    kept = {name: value for name, value in vars(part).items() if name not in names}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in kept.items()}
