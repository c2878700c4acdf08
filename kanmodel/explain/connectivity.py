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


def _any_subnode(config: KANConfig, layer: int, subnodes: Tensor) -> Tensor:
    """Whether any sub-node of each node of a layer is set, (n_subnodes,) -> (n_nodes,)."""
    members = torch.tensor(config.node_of_subnode(layer))
    return torch.zeros(config.n_nodes[layer], dtype=torch.long).index_add(0, members, subnodes.long()) > 0


def read_features(network: LSTMKAN) -> list[bool]:
    """Whether the LSTM has any weight for each feature."""
    lstm = network.lstm
    assert lstm is not None
    weights = [weight for name, weight in lstm.named_parameters() if name.startswith("weight_ih_l0")]
    return [any(bool((weight[:, feature] != 0).any()) for weight in weights) for feature in range(lstm.input_size)]
