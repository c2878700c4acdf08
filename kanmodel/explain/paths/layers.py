"""Contributions layer by layer, and their gaps in completeness (convergence delta) and conservation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kanmodel.explain.paths.path import Contributions
from kanmodel.network.chain import Network
from kanmodel.network.config import LayerConfig, Layers
from kanmodel.scaling import Array


@dataclass(frozen=True)
class LedgerLayer:
    """Contributions of one layer.

    Attributes:
        stage: input, front, lstm, gru, cell, head or output.
        layer: index of the layer within its stage.
        nodes: contributions of its nodes, (n, n_nodes); None if another stage lists the same nodes.
        edges: contributions of the edges from them, (n, n_subnodes, n_nodes); None if there are none.
    """

    stage: str
    layer: int
    nodes: Array | None
    edges: Array | None


def list_layers(network: Network, output: int, contributions: Contributions) -> tuple[LedgerLayer, ...]:
    """The layers in the order input, front, readout (lstm, gru or cell), head, output.

    Each node's contribution is the sum over its steps or over the edges into it, so the layers are linear in the
    contributions.

    Args:
        network: the network.
        output: index of the output.
        contributions: the contributions to it.
    """
    config, edges = network.config, contributions.edges
    layers = [LedgerLayer("input", 0, contributions.steps.sum(axis=1), None)]
    if config.front:
        layers += _list_stage("front", config.front, edges[: len(config.front)])
    if config.readout_stage is not None:
        layers.append(LedgerLayer(config.readout_stage, 0, contributions.readout, None))
    depth = len(config.head)
    layers += list(_list_stage("head", config.head, edges[-depth:]))[:-1]
    if config.output_function is not None:
        layers.append(LedgerLayer("head", depth, contributions.logits, None))
    outputs = np.zeros((len(contributions.change), len(config.outputs)))
    outputs[:, output] = contributions.change
    return (*layers, LedgerLayer("output", depth, outputs, None))


def measure_residual(network: Network, layers: Sequence[LedgerLayer], change: Array) -> Array:
    """The largest of |layer sum - (F(x) - F(x0))| and of |in - out| at a KAN node, (n,).

    After a layer norm only the layer's sum is compared, since a normalised input depends on all nodes.

    Args:
        network: the network.
        layers: from `list_layers`.
        change: F(x) - F(x0), (n,).
    """
    residual: Array = np.zeros_like(change)
    stages = network.config.stages
    reaching = np.zeros((len(change), 0))  # contributions of the nodes that the next edges leave
    entering = reaching  # contributions of the edges into the nodes of this layer
    for layer in layers:
        if layer.nodes is not None:
            reaching = layer.nodes
            residual = np.maximum(residual, np.abs(reaching.sum(axis=1) - change))
            if layer.stage in stages and layer.layer > 0:  # exact by construction, unless before an output function
                residual = np.maximum(residual, np.abs(reaching - entering).max(axis=1))
        if layer.edges is not None:
            config = stages[layer.stage][layer.layer]
            residual = np.maximum(residual, np.abs(layer.edges.sum(axis=(1, 2)) - change))
            if not config.mixes:
                residual = np.maximum(residual, np.abs(layer.edges.sum(axis=1) - reaching).max(axis=1))
            entering = _entering(config, layer.edges)
    return residual


def _list_stage(stage: str, layers: Layers, edges: Sequence[Array]) -> Iterator[LedgerLayer]:
    """The layers of a stage from its edges, (n, n_subnodes, n_in) each, and its last nodes; not its input nodes."""
    nodes = None
    for number, (config, leaving) in enumerate(zip(layers, edges, strict=True)):
        yield LedgerLayer(stage, number, nodes, leaving)
        nodes = _entering(config, leaving)
    yield LedgerLayer(stage, len(edges), nodes, None)


def _entering(config: LayerConfig, edges: Array) -> Array:
    """Contributions of edges to their target nodes, (n, n_out): a product node has the sum of its sub-nodes."""
    entering: Array = edges.sum(axis=2)
    if config.mult_arity:
        entering = entering @ np.eye(config.n_out)[list(config.node_of_subnode)]
    return entering
