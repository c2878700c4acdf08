"""What is connected with what, by structure alone: by masks and weights that are zero, not by what data show.

Whatever has no connection with an output has no effect on it, for any values for which all that passes through the
network is finite (0 times infinity is not 0). The converse does not hold: nonzero weights may cancel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kanmodel.config import KANConfig, LSTMConfig
from kanmodel.kan import KAN, KANLayer
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
        for number, layer in enumerate(kan):
            forward.append(_through_norm(config, number, reached))
            subnodes = (edges[stage, number] & forward[-1]).any(dim=1) & passing_subnodes(layer)
            reached = _any_subnode(config, number + 1, subnodes)
        forward.append(reached)
        for number, onward in enumerate(leading_nodes(kan, stage, edges, last)):
            connected[stage, number] = onward & forward[number]
    return connected


def leading_nodes(kan: KAN, stage: str, edges: Kept, last: Tensor) -> list[Tensor]:
    """The nodes of each layer of a KAN from which kept edges lead to the last nodes that are set, bool (n_nodes,)."""
    onward = [last]
    for number in range(kan.config.depth - 1, -1, -1):
        leading = (edges[stage, number] & leading_subnodes(kan[number], onward[0])[:, None]).any(dim=0)
        onward.insert(0, _through_norm(kan.config, number, leading))
    return onward


def leading_subnodes(layer: KANLayer, nodes: Tensor) -> Tensor:
    """The sub-nodes of a layer that act on any of its nodes that are set, (n_nodes,) -> (n_subnodes,), bool."""
    return nodes[list(layer.config.node_of_subnode(layer.number + 1))] & passing_subnodes(layer)


def passing_subnodes(layer: KANLayer) -> Tensor:
    """The sub-nodes of a layer that its affine maps and products let through, (n_subnodes,), bool.

    None where its own scale or that of its node is 0, nor beside a factor of its product that is always 0: one that no
    edge moves (it has none that adds anything, or its scale is 0), and whose bias is 0.
    """
    config, number = layer.config, layer.number + 1
    node_of_subnode = torch.tensor(config.node_of_subnode(number))
    empty = ~(_added(layer) | layer.is_symbolic).any(dim=1) | (layer.subnode_scale == 0)
    is_factor = node_of_subnode >= layer.n_sum
    vanishing = _any_subnode(config, number, is_factor & empty & (layer.subnode_bias == 0))  # (n_nodes,)
    return (layer.subnode_scale != 0) & ((layer.node_scale != 0) & ~vanishing)[node_of_subnode]


def _through_norm(config: KANConfig, layer: int, nodes: Tensor) -> Tensor:
    """Nodes that a layer reads, (n_nodes,); with a layer norm each of them acts through all, so one set sets all."""
    return nodes.any().expand_as(nodes) if config.layer_norm[layer] else nodes


def connected_features(network: LSTMKAN, output: int) -> list[bool]:
    """Whether a path of live edges and nonzero weights leads from each feature to an output."""
    live = live_edges(network)
    read = connected_nodes(network, output, live)["head", 0]
    if network.lstm is not None and network.config.lstm is not None:
        read = _read_by_lstm(network.lstm, network.config.lstm, network.config.lookback, read)
    if network.front is not None:
        read = leading_nodes(network.front, "front", live, read)[0]
    return [bool(feature) for feature in read]


def _read_by_lstm(lstm: nn.LSTM, config: LSTMConfig, lookback: int, units: Tensor) -> Tensor:
    """The inputs of an LSTM that act on any of its units that are set, (n_units,) -> (n_inputs,), bool.

    An input acts on a unit for which one of its gates has a weight, and a unit on those that have a weight for it from
    one step to the next. A unit whose candidate is always 0 stays 0. At the first step, which a backward pass reads out
    for `last`, there is neither a unit of the step before nor anything to forget.
    """
    for layer in reversed(range(config.num_layers)):
        reads = []
        for direction, suffix in enumerate(("", "_reverse") if config.bidirectional else ("",)):
            steps = 1 if direction and layer == config.num_layers - 1 and config.readout == "last" else lookback
            acting = units[direction * config.hidden_size :][: config.hidden_size]
            reads.append(_read_by_cells(lstm, f"l{layer}{suffix}", acting, steps))
        units = torch.stack(reads).any(dim=0)
    return units


def _read_by_cells(lstm: nn.LSTM, name: str, units: Tensor, steps: int) -> Tensor:
    """The same for one layer and direction that has made so many steps."""
    weights = {part: getattr(lstm, f"{part}_{name}", None) for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    gates = {part: weight.unflatten(0, (4, -1)) for part, weight in weights.items() if weight is not None}
    candidate, forget = 2, 1  # PyTorch's gates: input, forget, candidate, output
    of_candidate = torch.cat([gate[candidate].reshape(len(units), -1) for gate in gates.values()], dim=1)
    alive = (of_candidate != 0).any(dim=1)
    acting = [gate for gate in range(4) if gate != forget or steps > 1]
    of_input = (gates["weight_ih"][acting] != 0).any(dim=0)  # (n_units, n_inputs)
    of_units = (gates["weight_hh"] != 0).any(dim=0)  # (n_units, n_units)
    units = units & alive
    for _ in range(min(steps - 1, len(units))):
        units = units | ((of_units & units[:, None]).any(dim=0) & alive)
    read: Tensor = (of_input & units[:, None]).any(dim=0)
    return read


def live_edges(network: LSTMKAN) -> Kept:
    """The edges that vary: neither masked nor zero or constant by their weights, (n_subnodes, n_in) by (stage, layer).

    A symbolic part c f(a x + b) + d varies unless a or c is 0.
    """
    live: Kept = {}
    for stage, kan in network.stages.items():
        for number, layer in enumerate(kan):
            live[stage, number] = _added(layer)
            for q, edge in enumerate(layer.symbolic):
                a, _, c, _ = layer.symbolic_affine[q]
                if edge.function != "0" and bool((layer.symbolic_mask[q] != 0) & (a != 0) & (c != 0)):
                    live[stage, number][edge.j, edge.i] = True
    return live


def _added(layer: KANLayer) -> Tensor:
    """The edges whose base or spline part is neither masked nor zero everywhere, (n_subnodes, n_in), bool."""
    base = (layer.scale_base != 0) & (layer.config.base_activation != "zero")
    spline = (layer.scale_spline != 0) & (layer.coef != 0).any(dim=2)
    return (layer.mask != 0) & (base | spline)


def _any_subnode(config: KANConfig, layer: int, subnodes: Tensor) -> Tensor:
    """Whether any sub-node of each node of a layer is set, (n_subnodes,) -> (n_nodes,)."""
    members = torch.tensor(config.node_of_subnode(layer))
    return torch.zeros(config.n_nodes[layer], dtype=torch.long).index_add(0, members, subnodes.long()) > 0
