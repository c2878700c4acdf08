"""The network as a graph: what is connected, how strongly, and what pruning keeps of it.

A product node has a sub-node for each factor, joined to it by an edge of kind ``product``. Edges of kind ``input`` join
features and LSTM units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import tanh
from typing import Literal

import torch

from kanmodel.checkpoint import LoadedModel
from kanmodel.config import KANConfig, ModelConfig
from kanmodel.errors import UnknownNameError
from kanmodel.explain.connectivity import connected_features
from kanmodel.explain.ids import NodeKind, kind_of, label_of, node_id, subnode_id
from kanmodel.explain.importance import Importance
from kanmodel.explain.pruning import Pruning, PruningRule, prune_by_rule
from kanmodel.explain.replay import Fidelity
from kanmodel.explain.scores import MIN_INPUTS, KANScores, score_traces
from kanmodel.network import Trace

EdgeKind = Literal["edge", "product", "input"]
OPACITY_BETA = 3.0  # as pykan's plot draws a backward score


@dataclass(frozen=True)
class TopologyNode:
    """A node of the graph.

    Attributes:
        id: as `kanmodel.explain.ids` describes.
        kind: feature, front, lstm, head, output or subnode.
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
        kind: ``edge``, a function of a KAN; ``product``, from a sub-node to its node; ``input``, from a feature to an
            LSTM unit.
        stage: front, lstm or head.
        layer: layer of the node it leaves; for ``product`` the layer of the node.
        i: number of the node, or sub-node, it leaves.
        j: number of the sub-node, or node, it enters.
        kept: whether the rule keeps it.
        masked: whether the checkpoint itself masks it.
        contribution: mean |contribution| over the reference windows, the target's unit; None but for ``edge``.
        interval: of that mean, 95 %.
        share: of the feature in the unit's profile; None but for ``input``.
        scores: backward, forward_n and forward_u, model units; None where there are none.
        opacity: tanh(3 backward), as pykan draws it; None where there is no score.
        outside_grid: share of its reference inputs beyond the core interval of its grid; None but for ``edge``.
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
        scores = {stage: score_traces(kan.config, trace.stages[stage]) for stage, kan in stages.items()}
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
        ),
        reference_windows=len(model.reference.windows),
    )


def _nodes(
    model: LoadedModel, importance: Importance, pruning: Pruning, scores: Mapping[str, KANScores]
) -> Iterator[TopologyNode]:
    config = model.config
    if config.lstm is not None and config.front is None:
        connected = connected_features(model.network, importance.output)
        for index, name in enumerate(config.feature_names):
            yield TopologyNode(
                id=f"feature:{name}",
                kind="feature",
                layer=0,
                index=index,
                label=name,
                kept=connected[index],
                contribution=float(importance.features.value[index]),
                interval=importance.features.bounds(index),
            )
    for stage, kan in model.network.stages.items():
        for layer in range(kan.config.depth + 1):
            estimate = importance.nodes[_ledger_place(config, stage, layer)]
            for index in range(kan.config.n_nodes[layer]):
                identity = node_id(config, stage, layer, index)
                yield TopologyNode(
                    id=identity,
                    kind=kind_of(identity),
                    layer=layer,
                    index=index,
                    label=label_of(identity),
                    kept=bool(pruning.nodes[stage, layer][index]),
                    contribution=float(estimate.value[index]),
                    interval=estimate.bounds(index),
                    scores={"backward": float(scores[stage].nodes[layer][index])} if stage in scores else None,
                    profile=_profile(config, importance, stage, layer, index),
                )
            for subnode, node in _factors(kan.config, layer):
                identity = subnode_id(config, stage, layer, subnode)
                kept = bool(pruning.nodes[stage, layer][node])
                yield TopologyNode(identity, "subnode", layer, subnode, label_of(identity), kept)


def _kan_edges(
    model: LoadedModel, importance: Importance, pruning: Pruning, trace: Trace, scores: Mapping[str, KANScores]
) -> Iterator[TopologyEdge]:
    for (stage, number), keep in pruning.edges.items():
        layer = model.network.stages[stage][number]
        inputs, (low, high) = layer.normalise(trace.stages[stage][number].inputs), layer.core
        live = layer.live
        outside = ((inputs < low) | (inputs > high)).double().mean(dim=0)  # (n_in,)
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
                outside_grid=float(outside[i]),
            )


def _edge_scores(scores: KANScores, layer: int, i: int, j: int) -> dict[str, float]:
    return {
        "backward": float(scores.backward[layer][j, i]),
        "forward_n": float(scores.forward_n[layer][j, i]),
        "forward_u": float(scores.forward_u[layer][j, i]),
    }


def _product_edges(model: LoadedModel, pruning: Pruning) -> Iterator[TopologyEdge]:
    for (stage, layer), kept in pruning.nodes.items():
        for subnode, node in _factors(model.network.stages[stage].config, layer):
            source = subnode_id(model.config, stage, layer, subnode)
            target = node_id(model.config, stage, layer, node)
            yield TopologyEdge(source, target, "product", stage, layer, subnode, node, bool(kept[node]))


def _factors(kan: KANConfig, layer: int) -> Iterator[tuple[int, int]]:
    """The sub-nodes of the product nodes of a layer, each with its node."""
    return (pair for pair in enumerate(kan.node_of_subnode(layer)) if pair[1] >= kan.width[layer][0])


def _input_edges(nodes: Sequence[TopologyNode]) -> Iterator[TopologyEdge]:
    features = [node for node in nodes if node.kind == "feature"]
    for unit in (node for node in nodes if node.kind == "lstm"):
        for feature in features:
            yield TopologyEdge(
                source=feature.id,
                target=unit.id,
                kind="input",
                stage="lstm",
                layer=0,
                i=feature.index,
                j=unit.index,
                kept=unit.kept and feature.kept,
                share=unit.profile.get(feature.label, 0.0),
            )


def _profile(config: ModelConfig, importance: Importance, stage: str, layer: int, index: int) -> dict[str, float]:
    """Names of features to their share in a node, largest first; empty for a KAN's node that is a feature."""
    place = ("lstm", 0) if stage == "head" and layer == 0 else (stage, layer)
    if layer == 0 and (stage == "front" or config.lstm is None):
        return {}
    shares = zip(config.feature_names, importance.profiles[place][index].tolist(), strict=True)
    return {name: share for name, share in sorted(shares, key=lambda pair: -pair[1]) if share > 0}


def _ledger_place(config: ModelConfig, stage: str, layer: int) -> tuple[str, int]:
    """Where the ledger lists the nodes of a layer of a KAN."""
    if stage == "head" and layer == config.head.depth:
        return "output", layer
    if layer > 0:
        return stage, layer
    return ("lstm", 0) if stage == "head" and config.lstm is not None else ("input", 0)
