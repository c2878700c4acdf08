"""What is connected with what, by structure alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kanmodel.network.chain import Network
from kanmodel.network.config import LayerConfig, Layers, ModelConfig

Place = tuple[str, int]  # stage and layer
Kept = dict[Place, Tensor]  # bool, (n_subnodes, n_in) for layers of edges, (n_nodes,) for layers of nodes


def connected_nodes(network: Network, output: int, edges: Kept) -> Kept:
    """The nodes that kept edges connect with the features and with one output, bool (n_nodes,) by (stage, layer).

    A recurrent part connects each of its inputs with each of its units. A softmax connects every node with the output.
    """
    config = network.config
    forward: Kept = {}
    reached = torch.ones(len(config.features), dtype=torch.bool)
    for stage, layers in config.stages.items():
        if stage == "head":
            reached = _read_out(config, reached)
        for number, layer in enumerate(layers):
            forward[stage, number] = _through_norm(layer, reached)
            subnodes = (edges[stage, number] & forward[stage, number]).any(dim=1)  # (n_subnodes,)
            reached = _any_subnode(layer, subnodes)
        forward[stage, len(layers)] = reached
    connected: Kept = {}
    onward = torch.arange(len(config.outputs)) == output
    if config.output_function == "softmax":
        onward = torch.ones_like(onward)
    for stage, layers in reversed(config.stages.items()):
        leading = leading_nodes(layers, stage, edges, onward)
        connected |= {(stage, number): nodes & forward[stage, number] for number, nodes in enumerate(leading)}
        onward = _read_back(config, leading[0]) if config.recurrent is None else torch.ones(config.n_steps).bool()
    return {place: connected[place] for place in forward}


def leading_nodes(layers: Sequence[LayerConfig], stage: str, edges: Kept, last: Tensor) -> list[Tensor]:
    """The nodes of each layer of a stage from which kept edges lead to the last nodes that are set, bool (n_nodes,)."""
    onward = [last]
    for number, layer in reversed(list(enumerate(layers))):
        leads_on = onward[0][list(layer.node_of_subnode)]
        leading = (edges[stage, number] & leads_on[:, None]).any(dim=0)
        onward.insert(0, _through_norm(layer, leading))
    return onward


def connected_features(network: Network, output: int) -> list[bool]:
    """Whether a path of live edges and nonzero weights leads from each feature to an output.

    A recurrent part counts as a path from every input that it has a weight for to each of its units.
    """
    config, edges = network.config, live_edges(network)
    nodes = connected_nodes(network, output, edges)
    read = _read_back(config, nodes["head", 0])
    if network.recurrent is not None:
        named = network.recurrent.named_parameters()
        weights = [weight for name, weight in named if name.startswith("weight_ih_l0")]
        read = torch.stack([(weight != 0).any(dim=0) for weight in weights]).any(dim=0) & nodes["head", 0].any()
    return [bool(feature) for feature in leading_nodes(config.front, "front", edges, read)[0]]


def live_edges(network: Network) -> Kept:
    """The edges that are neither masked nor zero everywhere, (n_subnodes, n_in) by (stage, layer)."""
    return {
        (stage, number): layer.acts for stage, layers in network.stages.items() for number, layer in enumerate(layers)
    }


def n_nodes(layers: Layers) -> list[int]:
    """Nodes of each layer of a stage, its inputs first."""
    return [layers[0].n_in, *(layer.n_out for layer in layers)]


def _read_out(config: ModelConfig, steps: Tensor) -> Tensor:
    """Which of the head's inputs are reached from values of the steps that are, (n_steps,) -> (n_readout,)."""
    if config.recurrent is not None:
        return steps.any().expand(config.n_readout)
    return steps.repeat(config.lookback) if config.readout == "flatten" else steps


def _read_back(config: ModelConfig, readout: Tensor) -> Tensor:
    """Which values of a step lead to head inputs that are set, without a recurrent part, (n_readout,) -> (n,)."""
    return readout.view(config.lookback, -1).any(dim=0) if config.readout == "flatten" else readout


def _through_norm(layer: LayerConfig, nodes: Tensor) -> Tensor:
    """Nodes that a layer reads, (n_nodes,); with a layer norm each of them acts through all, so one set sets all."""
    return nodes.any().expand_as(nodes) if layer.mixes else nodes


def _any_subnode(layer: LayerConfig, subnodes: Tensor) -> Tensor:
    """Whether any sub-node of each node of a layer is set, (n_subnodes,) -> (n_out,)."""
    members = torch.tensor(layer.node_of_subnode)
    return torch.zeros(layer.n_out, dtype=torch.long).index_add(0, members, subnodes.long()) > 0
