"""What is connected with what, by structure alone."""

from __future__ import annotations

import torch
from torch import Tensor

from kanmodel.config import KANConfig
from kanmodel.network import LSTMKAN

Place = tuple[str, int]  # (stage, layer)
Kept = dict[Place, Tensor]  # bool, (n_subnodes, n_in) for layers of edges, (n_nodes,) for layers of nodes


def connected_nodes(network: LSTMKAN, output: int, edges: Kept) -> Kept:
    """The nodes of every KAN that kept edges connect with both sides, bool (n_nodes,) by (stage, layer).

    Beyond the head lies one output; before a KAN lie all its inputs, and beyond a front KAN the LSTM.
    """
    connected: Kept = {}
    for stage, kan in network.stages.items():
        config = kan.config
        last = torch.ones(config.n_nodes[-1], dtype=torch.bool)
        if stage == "head":
            last[:] = False
            last[output] = True
        forward = [torch.ones(config.n_nodes[0], dtype=torch.bool)]
        for number in range(config.depth):
            reached = (edges[stage, number] & forward[-1]).any(dim=1)  # (n_subnodes,)
            forward.append(_any_subnode(config, number + 1, reached))
        onward = last
        for number in range(config.depth, -1, -1):
            connected[stage, number] = onward & forward[number]
            if number:
                leads_on = onward[list(config.node_of_subnode(number))]
                onward = (edges[stage, number - 1] & leads_on[:, None]).any(dim=0)
    return connected


def connected_features(network: LSTMKAN, output: int) -> list[bool]:
    """Whether a path of live edges and nonzero weights leads from each feature to an output.

    An LSTM counts as a path from every input that it has a weight for to each of its units.
    """
    nodes = connected_nodes(network, output, live_edges(network))
    if network.lstm is None:
        return [bool(node) for node in nodes["head", 0]]
    weights = [weight for name, weight in network.lstm.named_parameters() if name.startswith("weight_ih_l0")]
    read = torch.stack([(weight != 0).any(dim=0) for weight in weights]).any(dim=0) & nodes["head", 0].any()
    if network.front is None:
        return [bool(feature) for feature in read]
    reached = _connected_inputs(network.front.config, live_edges(network), "front", read)
    return [bool(feature) for feature in reached]


def live_edges(network: LSTMKAN) -> Kept:
    """The edges that are neither masked nor zero everywhere, (n_subnodes, n_in) by (stage, layer)."""
    live: Kept = {}
    for stage, kan in network.stages.items():
        for number, layer in enumerate(kan):
            base = (layer.scale_base != 0) & (kan.config.base_activation != "zero")
            spline = (layer.scale_spline != 0) & (layer.coef != 0).any(dim=2)
            live[stage, number] = layer.live & (base | spline | layer.is_symbolic)
    return live


def _connected_inputs(config: KANConfig, edges: Kept, stage: str, outputs: Tensor) -> Tensor:
    """The inputs of a KAN from which edges lead to the outputs that are set, (n_in,)."""
    onward = outputs
    for number in range(config.depth - 1, -1, -1):
        leads_on = onward[list(config.node_of_subnode(number + 1))]
        onward = (edges[stage, number] & leads_on[:, None]).any(dim=0)
    return onward


def _any_subnode(config: KANConfig, layer: int, subnodes: Tensor) -> Tensor:
    """Whether any sub-node of each node of a layer is set, (n_subnodes,) -> (n_nodes,)."""
    members = torch.tensor(config.node_of_subnode(layer))
    return torch.zeros(config.n_nodes[layer], dtype=torch.long).index_add(0, members, subnodes.long()) > 0
