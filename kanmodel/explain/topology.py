"""The network as a graph: what is connected, how strongly, and what pruning keeps of it.

A product node has a sub-node for each factor, joined to it by an edge of kind ``product``. Edges of kind ``input`` join
features and LSTM units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import tanh
from typing import Literal, get_args

from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.config import KANConfig, ModelConfig
from kanmodel.errors import UnknownNameError
from kanmodel.explain.connectivity import read_features
from kanmodel.explain.ids import NodeKind, kind_of, label_of, node_id, subnode_id
from kanmodel.explain.importance import Importance
from kanmodel.explain.pruning import Metric, Pruning, PruningRule, prune_by_rule
from kanmodel.explain.replay import Fidelity, Replay
from kanmodel.explain.scores import MIN_INPUTS, KANScores, score_traces

EdgeKind = Literal["edge", "product", "input"]
OPACITY_BETA = 3.0  # as pykan's plot draws a backward score


@dataclass(frozen=True)
class TopologyNode:
    """A node of the graph.

    Attributes:
        id: as the module describes.
        kind: feature, front, lstm, head, output or subnode.
        layer: its layer within its stage.
        index: its number within its layer.
        label: for people.
        contribution: mean |contribution| over the reference windows, the target's unit; None for a sub-node.
        scores: pykan's backward score, model units; None where there is none.
        profile: share of each feature in the node's own value, names to numbers that sum to 1; empty for features.
        kept: whether the rule keeps it; a feature goes only when nothing connects it with the output.
    """

    id: str
    kind: NodeKind
    layer: int
    index: int
    label: str
    contribution: float | None
    scores: Mapping[str, float] | None
    profile: Mapping[str, float]
    kept: bool


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
        contribution: mean |contribution| over the reference windows, the target's unit; None but for ``edge``.
        share: of the feature in the unit's profile; None but for ``input``.
        scores: backward, forward_n and forward_u, model units; None where there are none.
        opacity: tanh(3 backward), as pykan draws it; None where there is no score.
        kept: whether the rule keeps it.
    """

    source: str
    target: str
    kind: EdgeKind
    stage: str
    layer: int
    i: int
    j: int
    contribution: float | None
    share: float | None
    scores: Mapping[str, float] | None
    opacity: float | None
    kept: bool


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
    pruning = prune_by_rule(model, importance, rule)
    scores = _scores(model)
    nodes = list(_nodes(model, importance, pruning, scores))
    return Topology(
        output=model.config.outputs[importance.output],
        rule=pruning.rule,
        fidelity=pruning.fidelity,
        nodes=tuple(nodes),
        edges=(
            *_kan_edges(model, importance, pruning, scores),
            *_product_edges(model, pruning),
            *_input_edges(nodes),
        ),
        reference_windows=len(model.reference.windows),
    )


def _scores(model: LoadedModel) -> dict[str, KANScores]:
    """pykan's scores of each stage of the full model; empty where there are too few reference windows."""
    if len(model.reference.windows) < MIN_INPUTS:
        return {}
    replay = Replay(model)
    trace = replay.run(replay.live)
    return {stage: score_traces(kan.config, trace.stages[stage]) for stage, kan in model.network.stages.items()}


def _nodes(
    model: LoadedModel, importance: Importance, pruning: Pruning, scores: Mapping[str, KANScores]
) -> Iterator[TopologyNode]:
    config = model.config
    if config.lstm is not None and config.front is None:
        for index, (name, connected) in enumerate(zip(config.feature_names, read_features(model.network), strict=True)):
            contribution = float(importance.features[index])
            yield TopologyNode(f"feature:{name}", "feature", 0, index, name, contribution, None, {}, connected)
    for stage, kan in model.network.stages.items():
        for layer in range(kan.config.depth + 1):
            place = _ledger_place(config, stage, layer)
            for index in range(kan.config.n_nodes[layer]):
                identity = node_id(config, stage, layer, index)
                score = {"backward": float(scores[stage].nodes[layer][index])} if stage in scores else None
                yield TopologyNode(
                    id=identity,
                    kind=kind_of(identity),
                    layer=layer,
                    index=index,
                    label=label_of(identity),
                    contribution=float(importance.nodes[place][index]),
                    scores=score,
                    profile=_profile(config, importance, stage, layer, index),
                    kept=bool(pruning.nodes[stage, layer][index]),
                )
            yield from _subnodes(config, kan.config, pruning, stage, layer)


def _subnodes(config: ModelConfig, kan: KANConfig, pruning: Pruning, stage: str, layer: int) -> Iterator[TopologyNode]:
    for subnode, node in enumerate(kan.node_of_subnode(layer)):
        if node >= kan.width[layer][0]:
            identity = subnode_id(config, stage, layer, subnode)
            kept = bool(pruning.nodes[stage, layer][node])
            yield TopologyNode(identity, "subnode", layer, subnode, label_of(identity), None, None, {}, kept)


def _kan_edges(
    model: LoadedModel, importance: Importance, pruning: Pruning, scores: Mapping[str, KANScores]
) -> Iterator[TopologyEdge]:
    for (stage, layer), keep in pruning.edges.items():
        for i in range(keep.shape[1]):
            for j in range(keep.shape[0]):
                score = _edge_scores(scores[stage], layer, i, j) if stage in scores else None
                yield TopologyEdge(
                    source=node_id(model.config, stage, layer, i),
                    target=subnode_id(model.config, stage, layer + 1, j),
                    kind="edge",
                    stage=stage,
                    layer=layer,
                    i=i,
                    j=j,
                    contribution=float(importance.edges[stage, layer][j, i]),
                    share=None,
                    scores=score,
                    opacity=tanh(OPACITY_BETA * score["backward"]) if score else None,
                    kept=bool(keep[j, i]),
                )


def _edge_scores(scores: KANScores, layer: int, i: int, j: int) -> dict[str, float]:
    metrics: tuple[Metric, ...] = tuple(metric for metric in get_args(Metric) if metric != "contribution")
    tensors: dict[str, tuple[Tensor, ...]] = {metric: getattr(scores, metric) for metric in metrics}
    return {metric: float(values[layer][j, i]) for metric, values in tensors.items()}


def _product_edges(model: LoadedModel, pruning: Pruning) -> Iterator[TopologyEdge]:
    for (stage, layer), kept in pruning.nodes.items():
        kan = model.network.stages[stage].config
        for subnode, node in enumerate(kan.node_of_subnode(layer)):
            if node >= kan.width[layer][0]:
                source = subnode_id(model.config, stage, layer, subnode)
                target = node_id(model.config, stage, layer, node)
                yield TopologyEdge(
                    source,
                    target,
                    "product",
                    stage,
                    layer,
                    subnode,
                    node,
                    None,
                    None,
                    None,
                    None,
                    bool(kept[node]),
                )


def _input_edges(nodes: Sequence[TopologyNode]) -> Iterator[TopologyEdge]:
    features = [node for node in nodes if node.kind == "feature"]
    for unit in (node for node in nodes if node.kind == "lstm"):
        for feature in features:
            share = unit.profile.get(feature.label, 0.0)
            kept = unit.kept and feature.kept
            yield TopologyEdge(
                feature.id,
                unit.id,
                "input",
                "lstm",
                0,
                feature.index,
                unit.index,
                None,
                share,
                None,
                None,
                kept,
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
