"""pykan's scores of edges and nodes: magnitudes, unsigned, not percentages, and blind to cancellation.

Equal to pykan 0.2.8: `acts_scale` (forward_n), `edge_actscale` (forward_u), `edge_scores` and `node_scores` (backward).
Source: Liu et al. 2024, arXiv 2408.10205, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from kanmodel.errors import InsufficientReferenceError, UnknownNameError
from kanmodel.network.connections import read_place, rows_of_layers, set_place
from kanmodel.network.layer import KANLayer, LayerTrace
from kanmodel.network.network import LayerKey, Network, Trace

MIN_INPUTS = 128  # a standard deviation over fewer says little; over one it does not exist
Score = Literal["backward", "forward_n", "forward_u"]
Scores = dict[LayerKey, Tensor]  # model units, (n_subnodes, n_in) for layers of edges, (n_nodes,) for places of nodes


@dataclass(frozen=True)
class KANScores:
    """Scores of layers in a row, a tensor per layer of edges, (n_subnodes, n_in); standard deviations are unbiased.

    Attributes:
        forward_u: standard deviation of what the edge adds.
        forward_n: the same, divided by the standard deviation of the edge's input plus 0.1.
        backward: how much of the outputs' spread passes through the edge, the mean over outputs.
        nodes: the same for nodes, (n_nodes,) for every layer of nodes, inputs first.
    """

    forward_u: tuple[Tensor, ...]
    forward_n: tuple[Tensor, ...]
    backward: tuple[Tensor, ...]
    nodes: tuple[Tensor, ...]

    @property
    def feature_score(self) -> Tensor:
        """pykan's name for the scores of the inputs, (n_in,); after an LSTM these are its units."""
        return self.nodes[0]


def score_layers(layers: Sequence[KANLayer], inputs: Tensor) -> KANScores:
    """Scores of layers, first to last, for inputs (batch, n_in) of the first, model units.

    Raises:
        InsufficientReferenceError: there are fewer than 128 inputs.
    """
    return _score_traces(layers, _trace(layers, inputs))


def score_rows(network: Network, trace: Trace) -> tuple[dict[Score, Scores], Scores]:
    """Scores of all edges by (stage, layer), and backward scores of the nodes by place; raises as `score_layers`.

    Each row of layers is a KAN of its own; a graph's layers are applied to all their rows of inputs.
    """
    edges: dict[Score, Scores] = {score: {} for score in get_args(Score)}
    nodes: Scores = {}
    for row in rows_of_layers(network.config):
        traces = [trace.stages[stage][number] for stage, number in row]
        scores = _score_traces([network.layers[key] for key in row], traces)
        for at, key in enumerate(row):
            for score, of_layers in edges.items():
                of_layers[key] = getattr(scores, score)[at]
            nodes[read_place(network.config, key)], nodes[set_place(key)] = scores.nodes[at : at + 2]
    return edges, nodes


def attribute_node(layers: Sequence[KANLayer], inputs: Tensor, layer: int, node: int) -> Tensor:
    """How much of the spread of one node, of a layer from 1, comes from each input: pykan's `attribute(l, i)`.

    Of inputs (batch, n_in), model units; (n_in,), in proportion to the node's own backward score.

    Raises:
        InsufficientReferenceError: there are fewer than 128 inputs.
        UnknownNameError: there is no such node.
    """
    n_nodes = tuple(layer.config.n_out for layer in layers)
    if not 1 <= layer <= len(layers) or not 0 <= node < n_nodes[layer - 1]:
        raise UnknownNameError(f"there is no node ({layer}, {node}); layers 1 to {len(layers)} have {n_nodes}")
    traces = _trace(layers, inputs)
    scores = _score_traces(layers, traces)
    start = torch.zeros_like(scores.nodes[layer])
    start[node] = scores.nodes[layer][node]
    return _pass_back(layers[:layer], traces[:layer], scores.forward_u[:layer], start[None])[1][0]


@torch.no_grad()
def _trace(layers: Sequence[KANLayer], x: Tensor) -> list[LayerTrace]:
    traces: list[LayerTrace] = []
    for layer in layers:
        traces.append(layer.trace(x))
        x = traces[-1].nodes
    return traces


def _score_traces(layers: Sequence[KANLayer], traces: Sequence[LayerTrace]) -> KANScores:
    n_inputs = len(traces[0].inputs)
    if n_inputs < MIN_INPUTS:
        raise InsufficientReferenceError(f"scores need at least {MIN_INPUTS} inputs, but there are {n_inputs}")
    forward_u = tuple(trace.edges.std(dim=0) for trace in traces)
    forward_n = tuple(u / (trace.inputs.std(dim=0) + 0.1) for u, trace in zip(forward_u, traces, strict=True))
    every_output = torch.eye(layers[-1].config.n_out, dtype=forward_u[0].dtype)
    edges, nodes = _pass_back(layers, traces, forward_u, every_output)
    return KANScores(forward_u, forward_n, tuple(edges), tuple(nodes))


def _pass_back(
    layers: Sequence[KANLayer], traces: Sequence[LayerTrace], edge_std: Sequence[Tensor], score: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Passes scores (n_starts, n_nodes) of the last layer's nodes back to edges and nodes; means over the starts.

    A sub-node passes on its node's score, shared in proportion to the edges' spread over its own.
    """
    edges, nodes = list[Tensor](), [score.mean(dim=0)]
    for layer, trace, of_edge in zip(reversed(layers), reversed(traces), reversed(edge_std), strict=True):
        of_subnodes = score[:, list(layer.config.node_of_subnode)]  # (n_starts, n_subnodes)
        shares = of_edge / (trace.subnodes.std(dim=0) + 1e-4).unsqueeze(-1)  # (n_subnodes, n_in)
        of_edges = of_subnodes.unsqueeze(-1) * shares
        score = of_edges.sum(dim=1)
        edges.insert(0, of_edges.mean(dim=0))
        nodes.insert(0, score.mean(dim=0))
    return edges, nodes
