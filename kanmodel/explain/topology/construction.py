"""Construction of the topology graph from contributions, edge and node scores, and a pruning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import tanh

import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.importance.global_importance import ImportanceEstimates
from kanmodel.explain.structure.connectivity import connected_features, n_nodes
from kanmodel.explain.structure.ids import READOUT_KINDS, kind_of, label_of, node_id, node_place, output_id, subnode_id
from kanmodel.explain.structure.scores import MIN_INPUTS, KANScores, score_traces
from kanmodel.explain.topology.graph import NetworkGraph, TopologyEdge, TopologyNode
from kanmodel.explain.topology.lookup import network_edges
from kanmodel.explain.topology.pruning import Pruning, PruningRule, prune_by_rule
from kanmodel.network.chain import Trace
from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.network.layer import KANLayer, LayerTrace

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
