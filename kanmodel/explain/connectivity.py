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
        reached = torch.ones(config.n_nodes[0], dtype=torch.bool)
        forward = []
        for number in range(config.depth):
            forward.append(_through_norm(config, number, reached))
            subnodes = (edges[stage, number] & forward[-1]).any(dim=1)  # (n_subnodes,)
            reached = _any_subnode(config, number + 1, subnodes)
        forward.append(reached)
        for number, onward in enumerate(leading_nodes(config, stage, edges, last)):
            connected[stage, number] = onward & forward[number]
    return connected


def leading_nodes(config: KANConfig, stage: str, edges: Kept, last: Tensor) -> list[Tensor]:
    """The nodes of each layer of a KAN from which kept edges lead to the last nodes that are set, bool (n_nodes,)."""
    onward = [last]
    for number in range(config.depth - 1, -1, -1):
        leads_on = onward[0][list(config.node_of_subnode(number + 1))]
        leading = (edges[stage, number] & leads_on[:, None]).any(dim=0)
        onward.insert(0, _through_norm(config, number, leading))
    return onward


def _through_norm(config: KANConfig, layer: int, nodes: Tensor) -> Tensor:
    """Nodes that a layer reads, (n_nodes,); with a layer norm each of them acts through all, so one set sets all."""
    return nodes.any().expand_as(nodes) if config.layer_norm[layer] else nodes


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
    front = network.front.config
    return [bool(feature) for feature in leading_nodes(front, "front", live_edges(network), read)[0]]


def live_edges(network: LSTMKAN) -> Kept:
    """The edges that are neither masked nor zero everywhere, (n_subnodes, n_in) by (stage, layer)."""
    live: Kept = {}
    for stage, kan in network.stages.items():
        for number, layer in enumerate(kan):
            base = (layer.scale_base != 0) & (kan.config.base_activation != "zero")
            spline = (layer.scale_spline != 0) & (layer.coef != 0).any(dim=2)
            live[stage, number] = layer.live & (base | spline | layer.is_symbolic)
    return live


def _any_subnode(config: KANConfig, layer: int, subnodes: Tensor) -> Tensor:
    """Whether any sub-node of each node of a layer is set, (n_subnodes,) -> (n_nodes,)."""
    members = torch.tensor(config.node_of_subnode(layer))
    return torch.zeros(config.n_nodes[layer], dtype=torch.long).index_add(0, members, subnodes.long()) > 0
