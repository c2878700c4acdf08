"""Contributions layer by layer, and how far they are from completeness and conservation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kanmodel.config import KANConfig
from kanmodel.explain.path import Contributions
from kanmodel.network import LSTMKAN
from kanmodel.scaling import Array


@dataclass(frozen=True)
class LedgerLayer:
    """Contributions of one layer.

    Attributes:
        stage: input, front, lstm, head or output.
        layer: number of the layer within its stage.
        nodes: contributions of its nodes, (n, n_nodes); None where another stage lists the same nodes.
        edges: contributions of the edges that leave them, (n, n_subnodes, n_nodes); None where there are none.
    """

    stage: str
    layer: int
    nodes: Array | None
    edges: Array | None


def list_layers(network: LSTMKAN, output: int, contributions: Contributions) -> tuple[LedgerLayer, ...]:
    """The layers in the order input, front, lstm, head, output.

    Each node's contribution is the sum of its steps or of the edges that enter it, so this is linear in the
    contributions: of |fine - coarse| of the former it makes the signed differences of the latter.

    Args:
        network: the network.
        output: number of the output.
        contributions: to it.
    """
    layers = [LedgerLayer("input", 0, contributions.steps.sum(axis=1), None)]
    edges = contributions.edges
    if network.front is not None:
        layers += _list_kan("front", network.front.config, edges[: network.front.config.depth])
    if network.lstm is not None:
        layers.append(LedgerLayer("lstm", 0, contributions.readout, None))
    head = network.head.config
    layers += list(_list_kan("head", head, edges[-head.depth :]))[:-1]
    change = contributions.change[:, None] * np.eye(head.n_nodes[-1])[output]
    return (*layers, LedgerLayer("output", head.depth, change, None))


def measure_residual(network: LSTMKAN, layers: Sequence[LedgerLayer], change: Array) -> Array:
    """The largest of |layer sum - (F(x) - F(x0))| and of |in - out| at a KAN node, (n,).

    Behind a layer norm only the layer's sum is compared: a normalised input depends on all nodes.

    Args:
        network: the network.
        layers: as `list_layers` has them.
        change: F(x) - F(x0), (n,).
    """
    residual: Array = np.zeros_like(change)
    reaching = np.zeros((len(change), 0))  # contributions of the nodes that the next edges leave
    for layer in layers:
        if layer.nodes is not None:
            reaching = layer.nodes
            residual = np.maximum(residual, np.abs(reaching.sum(axis=1) - change))
        if layer.edges is not None:
            residual = np.maximum(residual, np.abs(layer.edges.sum(axis=(1, 2)) - change))
            if not network.stages[layer.stage].config.layer_norm[layer.layer]:
                residual = np.maximum(residual, np.abs(layer.edges.sum(axis=1) - reaching).max(axis=1))
    return residual


def _list_kan(stage: str, config: KANConfig, edges: Sequence[Array]) -> Iterator[LedgerLayer]:
    """The layers of a KAN from its edges, (n, n_subnodes, n_in) each, and last its outputs; not its inputs' nodes."""
    nodes = None
    for layer, leaving in enumerate(edges):
        yield LedgerLayer(stage, layer, nodes, leaving)
        node_of_subnode = np.eye(config.n_nodes[layer + 1])[list(config.node_of_subnode(layer + 1))]
        nodes = leaving.sum(axis=2) @ node_of_subnode  # (n, n_nodes): a product node has its sub-nodes' sum
    yield LedgerLayer(stage, len(edges), nodes, None)
