"""Pruning by thresholds, as in pykan 0.2.8: `prune_node`, `prune_edge` and `prune_input` in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import NonFiniteError
from kanmodel.explain.importance.global_importance import ImportanceEstimates
from kanmodel.explain.structure.connectivity import Kept
from kanmodel.explain.structure.replay import Replay
from kanmodel.explain.topology.metrics import Metric, score_edges, score_nodes
from kanmodel.network.chain import Network, Place


@dataclass(frozen=True)
class Thresholds:
    """Scores at or below which a part is removed, model units; the defaults are pykan's for the backward score.

    Attributes:
        node: for nodes of hidden layers. With a metric other than backward, the score of a node is that of its
            strongest outgoing edge.
        edge: for edges, scored again without the removed nodes.
        input: for the input nodes of a KAN, scored again without the removed edges.
    """

    node: float = 0.01
    edge: float = 0.03
    input: float = 0.01


def cut_at_thresholds(
    model: LoadedModel, importance: ImportanceEstimates, replay: Replay, metric: Metric, thresholds: Thresholds
) -> tuple[Kept, Kept]:
    """Removes nodes, then edges, then inputs, scoring each on the network that the step before left.

    As in pykan, the edge threshold does not apply to edges with a symbolic function.

    Returns:
        The kept edges and the kept nodes.

    Raises:
        InsufficientReferenceError: the metric is a score of pykan, and there are too few reference windows for one.
        NonFiniteError: the scores of the network that a step leaves are NaN.
    """
    network = model.network
    scores = score_nodes(model, importance, replay.run(replay.live), metric)
    nodes = {(stage, layer): values > thresholds.node for (stage, layer), values in scores.items()}
    for stage, layers in network.stages.items():  # only hidden nodes are removed
        nodes |= {(stage, end): torch.ones_like(nodes[stage, end]) for end in (0, len(layers))}
    edges = edges_between(network, replay.live, nodes)

    scores = score_edges(model, importance, replay.run(edges), metric)
    _refuse_nan(scores, "nodes")
    for place, layer in network.layers.items():
        edges[place] &= (scores[place] > thresholds.edge) | layer.is_symbolic

    scores = score_nodes(model, importance, replay.run(edges), metric)
    _refuse_nan(scores, "edges")
    nodes |= {(stage, 0): scores[stage, 0] > thresholds.input for stage in network.stages}
    return edges_between(network, edges, nodes), nodes


def edges_between(network: Network, edges: Kept, nodes: Kept) -> Kept:
    """The edges whose source and target are both among the nodes."""
    return {
        (stage, number): edges[stage, number]
        & nodes[stage, number + 1][list(layer.config.node_of_subnode)][:, None]
        & nodes[stage, number]
        for (stage, number), layer in network.layers.items()
    }


def _refuse_nan(scores: Mapping[Place, Tensor], left: str) -> None:
    if any(bool(torch.isnan(values).any()) for values in scores.values()):
        raise NonFiniteError(
            f"the {left} that the thresholds keep leave a network that is not finite on the reference windows: a "
            "function of an edge has left its domain; lower the thresholds"
        )
