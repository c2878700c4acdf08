"""The network as a graph: what is connected, how strongly, and what pruning keeps of it.

A product node has a sub-node for each factor, joined to it by an edge of kind ``product``. Edges of kind ``input`` join
features with what the head reads of them, units or cells; those of kind ``output`` join the last layer's nodes with the
output where an output function stands between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import tanh
from typing import Literal

import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import UnknownNameError
from kanmodel.explain.importance.global_importance import Importance
from kanmodel.explain.structure.connectivity import connected_features, n_nodes
from kanmodel.explain.structure.ids import (
    READOUT_KINDS,
    NodeKind,
    kind_of,
    label_of,
    node_id,
    node_place,
    output_id,
    subnode_id,
)
from kanmodel.explain.structure.replay import Fidelity
from kanmodel.explain.structure.scores import MIN_INPUTS, KANScores, score_traces
from kanmodel.explain.topology.pruning import Pruning, PruningRule, prune_by_rule
from kanmodel.network.chain import Trace
from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.network.layer import KANLayer, LayerTrace

EdgeKind = Literal["edge", "product", "input", "output"]
OPACITY_BETA = 3.0  # as pykan's plot draws a backward score


@dataclass(frozen=True)
class TopologyNode:
    """A node of the graph.

    Attributes:
        id: as `kanmodel.explain.structure.ids` describes.
        kind: feature, front, lstm, gru, cell, head, output or subnode.
        layer: its layer within its stage.
        index: its number within its layer.
        label: for people.
        kept: whether the rule keeps it; a feature goes only when nothing connects it with the output.
        contribution: mean |contribution| over the reference windows, the target's unit; None for a sub-node.
        interval: of that mean, 95 %.
        scores: pykan's backward score, model units; None where there is none.
        profile: share of each feature in the node's own value, names to numbers that sum to 1; empty for features.
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
        i: number of the node, or sub-node, it leaves.
        j: number of the sub-node, or node, it enters.
        kept: whether the rule keeps it.
        masked: whether the checkpoint itself masks it.
        contribution: mean |contribution| over the reference windows, the target's unit; None but for ``edge`` and
            ``output``.
        interval: of that mean, 95 %.
        share: of the feature in the unit's profile; None but for ``input``.
        scores: backward, forward_n and forward_u, model units; None where there are none.
        opacity: tanh(3 backward), as pykan draws it; None where there is no score.
        outside_grid: share of its reference inputs beyond the core interval of its grid; None where it has none.
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
class Topology:
    """The graph of a model for one output.

    Attributes:
        output: name of the output.
        rule: the pruning rule, its metric resolved.
        fidelity: what pruning costs.
        nodes: all nodes, in the order of the data.
        edges: all edges, those of the KANs first.
        reference_windows: number of windows that everything was measured on.
    """

    output: str
    rule: PruningRule
    fidelity: Fidelity
    nodes: tuple[TopologyNode, ...]
    edges: tuple[TopologyEdge, ...]
    reference_windows: int

    @property
    def kan_edges(self) -> tuple[TopologyEdge, ...]:
        """The edges that hold functions."""
        return tuple(edge for edge in self.edges if edge.kind == "edge")

    def edge(self, stage: str, layer: int, i: int, j: int) -> TopologyEdge:
        """The KAN edge from node i of `layer` to sub-node j of the next.

        Raises:
            UnknownNameError: there is none.
        """
        for edge in self.kan_edges:
            if (edge.stage, edge.layer, edge.i, edge.j) == (stage, layer, i, j):
                return edge
        sizes: dict[str, tuple[int, int]] = {}
        for edge in self.kan_edges:
            place = f"{edge.stage} layer {edge.layer}"
            i_max, j_max = sizes.get(place, (0, 0))
            sizes[place] = max(i_max, edge.i), max(j_max, edge.j)
        exist = "; ".join(f"{place}: i 0 to {i}, j 0 to {j}" for place, (i, j) in sizes.items())
        raise UnknownNameError(f"there is no edge ({stage}, {layer}, {i}, {j}); there are {exist}")


def build_topology(model: LoadedModel, importance: Importance, rule: PruningRule) -> Topology:
    """The graph of a model, pruned by a rule.

    Args:
        model: the model.
        importance: its contributions, which also say which output is meant.
        rule: what to keep.

    Raises:
        InsufficientReferenceError: the rule's metric is a score, and there are too few reference windows for one.
    """
    return lay_out(model, importance, prune_by_rule(model, importance, rule))


def lay_out(model: LoadedModel, importance: Importance, pruning: Pruning) -> Topology:
    """The graph of a model, of which it is known what is kept."""
    with torch.no_grad():
        trace = model.network.trace(model.reference.windows)
    scores: dict[str, KANScores] = {}
    if len(model.reference.windows) >= MIN_INPUTS:
        stages = model.network.stages
        scores = {stage: score_traces(layers, trace.stages[stage]) for stage, layers in stages.items()}
    nodes = list(_nodes(model, importance, pruning, scores))
    return Topology(
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
    model: LoadedModel, importance: Importance, pruning: Pruning, scores: Mapping[str, KANScores]
) -> Iterator[TopologyNode]:
    config = model.config
    if config.readout_stage is not None and not config.front:  # the features are no layer of their own
        connected = connected_features(model.network, importance.output)
        for index in range(len(config.features)):
            yield _node(
                model, importance, ("input", 0), index, f"feature:{config.feature_names[index]}", connected[index]
            )
    for stage, layers in config.stages.items():
        for number, n in enumerate(n_nodes(layers)):
            place, kept = node_place(config, stage, number), pruning.nodes[stage, number].tolist()
            of_nodes = scores[stage].nodes[number].tolist() if stage in scores else None
            for index in range(n) if number or place[0] != "front" else ():  # the head may begin where the front ends
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
    importance: Importance,
    place: tuple[str, int],
    index: int,
    identity: str,
    kept: bool,
    scores: Mapping[str, float] | None = None,
) -> TopologyNode:
    """The node that the ledger lists at a place, under a number."""
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
    model: LoadedModel, importance: Importance, pruning: Pruning, trace: Trace, scores: Mapping[str, KANScores]
) -> Iterator[TopologyEdge]:
    for (stage, number), keep in pruning.edges.items():
        layer = model.network.stages[stage][number]
        live, outside = layer.live, _outside_core(layer, trace.stages[stage][number])
        estimate = importance.edges[stage, number]
        for i, j in product(range(keep.shape[1]), range(keep.shape[0])):
            score = _edge_scores(scores[stage], number, i, j) if stage in scores else None
            yield TopologyEdge(
                source=node_id(model.config, stage, number, i),
                target=subnode_id(model.config, stage, number + 1, j),
                kind="edge",
                stage=stage,
                layer=number,
                i=i,
                j=j,
                kept=bool(keep[j, i]),
                masked=not bool(live[j, i]),
                contribution=float(estimate.value[j, i]),
                interval=estimate.bounds(j, i),
                scores=score,
                opacity=tanh(OPACITY_BETA * score["backward"]) if score else None,
                outside_grid=None if outside is None else float(outside[i]),
            )


def _edge_scores(scores: KANScores, layer: int, i: int, j: int) -> dict[str, float]:
    return {
        "backward": float(scores.backward[layer][j, i]),
        "forward_n": float(scores.forward_n[layer][j, i]),
        "forward_u": float(scores.forward_u[layer][j, i]),
    }


def _product_edges(model: LoadedModel, pruning: Pruning) -> Iterator[TopologyEdge]:
    for (stage, layer), kept in pruning.nodes.items():
        for subnode, node in _factors(model.config.stages[stage][layer - 1]) if layer else ():
            source = subnode_id(model.config, stage, layer, subnode)
            target = node_id(model.config, stage, layer, node)
            yield TopologyEdge(source, target, "product", stage, layer, subnode, node, bool(kept[node]))


def _factors(layer: LayerConfig) -> Iterator[tuple[int, int]]:
    """The sub-nodes of the product nodes of a layer, each with its node."""
    return (pair for pair in enumerate(layer.node_of_subnode) if pair[1] >= layer.n_sum)


def _input_edges(nodes: Sequence[TopologyNode]) -> Iterator[TopologyEdge]:
    features = [node for node in nodes if node.kind == "feature"]
    for unit in (node for node in nodes if node.kind in READOUT_KINDS):
        for feature in features:
            share = unit.profile.get(feature.label, 0.0)
            if unit.kind == "cell" and not share:  # most features never reach a cell: it is of one step
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
    """From the last layer's nodes that an output function reads for the output, to that output."""
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


def _profile(config: ModelConfig, importance: Importance, place: tuple[str, int], index: int) -> dict[str, float]:
    """Names of features to their share in a node, largest first."""
    profiles = importance.profiles.get(place, importance.profiles.get(("head", place[1])))
    assert profiles is not None
    shares = zip(config.feature_names, profiles[index].tolist(), strict=True)
    return {name: share for name, share in sorted(shares, key=lambda pair: -pair[1]) if share > 0}


def _outside_core(layer: KANLayer, trace: LayerTrace) -> Tensor | None:
    """Share of what reaches a layer beyond each input's core interval, (n_in,); None where there is none."""
    core = layer.core
    if core is None:
        return None
    of_basis = layer.read(trace.inputs)[1]
    return ((of_basis < core[0]) | (of_basis > core[1])).double().mean(dim=0)
