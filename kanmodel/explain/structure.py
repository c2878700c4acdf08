"""The structure of a network: ids of its nodes and edges, and the nodes that can affect an output.

Ids of nodes are ``feature:{name}``; ``front:{l}:{j}``; ``lstm:{u}`` or ``gru:{u}``, the units of the readout;
``cell:{step}:{name}`` where the head reads all steps, step 0 the newest and -1 the one before; ``head:{l}:{j}`` for
l >= 1; ``output:{name}``. Layer 0 of the head is what it reads: units, cells, or nodes that are there already, features
or nodes of the front. The last layer of the head is the outputs, unless an output function stands between them. The
factors of a product node are ``{id}.{m}``. The edge from node i of a layer of a KAN to sub-node j of the next is
``{stage}:{layer}:{i}:{j}``, as in ``head:0:7:3``.

Connectivity follows from masks and zero weights alone. What has no connection with an output has no effect on it, for
any data that stay finite on their way (0 times infinity is not 0). The converse fails: nonzero weights may cancel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from kanmodel.network.chain import LayerKey, Network
from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.network.layer import KANLayer

NodeKind = Literal["feature", "front", "lstm", "gru", "cell", "head", "output", "subnode"]
READOUT_KINDS: tuple[NodeKind, ...] = ("lstm", "gru", "cell")
EdgeKey = tuple[str, int, int, int]  # (stage, layer, i, j): from node i of the layer to sub-node j of the next
Kept = dict[LayerKey, Tensor]  # bool, (n_subnodes, n_in) for layers of edges, (n_nodes,) for layers of nodes


def ledger_key(config: ModelConfig, stage: str, layer: int) -> LayerKey:
    """The (stage, layer) at which a ledger lists the nodes of a layer of a stage."""
    if stage == "head" and layer == len(config.head) and config.output_function is None:
        return "output", layer
    if layer > 0:
        return stage, layer
    if stage == "head" and config.readout_stage is not None:
        return config.readout_stage, 0
    return ("front", len(config.front)) if stage == "head" and config.front else ("input", 0)


def node_id(config: ModelConfig, stage: str, layer: int, index: int) -> str:
    """Id of a node of a layer of a stage."""
    kind, number = ledger_key(config, stage, layer)
    match kind:
        case "output":
            return f"output:{config.outputs[index]}"
        case "input":
            return f"feature:{config.feature_names[index]}"
        case "cell":  # a value of one step of a flattened window: a feature, or a unit or node by its number
            step, value = divmod(index, config.n_readout // config.lookback)
            name = config.feature_names[value] if config.has_plain_steps else value
            return f"cell:{step - config.lookback + 1}:{name}"
        case "lstm" | "gru":
            return f"{kind}:{index}"
    return f"{kind}:{number}:{index}"


def subnode_id(config: ModelConfig, stage: str, layer: int, subnode: int) -> str:
    """Id of a sub-node of a layer of a stage; of a sum node it is the node's own."""
    members = config.stages[stage][layer - 1].node_of_subnode
    node = members[subnode]
    if members.count(node) == 1:
        return node_id(config, stage, layer, node)
    return f"{stage}:{layer}:{node}.{subnode - members.index(node)}"


def label_of(identity: str) -> str:
    """``lstm:3`` -> ``lstm 3``; ``feature:temp_c`` -> ``temp_c``; ``cell:-3:temp_c`` -> ``temp_c at -3``."""
    kind, rest = identity.split(":", 1)
    if kind == "cell":
        step, name = rest.split(":", 1)
        return f"{name} at {step}"
    return rest if kind in ("feature", "output") else f"{kind} {rest}"


def connected_features(network: Network, output: int) -> list[bool]:
    """Whether a path of edges that vary and of nonzero weights leads from each feature to an output."""
    if network.config.graph:
        return _reaching_features(network, output)
    edges = passing_edges(network, {key: layer.varies for key, layer in network.layers.items()})
    read = network.acting_steps(connected_nodes(network, output, edges)["head", 0])
    if network.config.front:
        read = leading_nodes(network.stages["front"], "front", edges, read)[0]
    return [bool(feature) for feature in read]


def _reaching_features(network: Network, output: int) -> list[bool]:
    """The features of a graph that are read on a way to an output: those that make it NaN if they are NaN.

    A recurrent part reads all its inputs, and a layer those with an edge that acts.
    """
    lookback, n = network.config.window_shape
    windows = torch.randn(1, lookback, n, generator=torch.Generator().manual_seed(0)).repeat(n, 1, 1)
    windows.diagonal(dim1=0, dim2=2).fill_(torch.nan)  # of window i feature i
    outputs = network.freeze().forward(windows.to(getattr(torch, network.config.dtype)))
    found: list[bool] = outputs[:, output].isnan().tolist()
    return found


def passing_edges(network: Network, edges: Kept) -> Kept:
    """Those of the edges that enter a sub-node with an effect on its node.

    It has none if its own scale or that of its node is 0, nor beside a factor of its product that is always 0: one that
    no edge moves (none adds anything, or its scale is 0), and whose bias is 0.
    """
    passing: Kept = {}
    for key, layer in network.layers.items():
        node_of_subnode = torch.tensor(layer.config.node_of_subnode)
        empty = ~layer.acts.any(dim=1) | (layer.subnode_scale == 0)
        is_factor = node_of_subnode >= layer.config.n_sum
        vanishing = _any_subnode(layer.config, is_factor & empty & (layer.subnode_bias == 0))  # (n_nodes,)
        passes = (layer.subnode_scale != 0) & ((layer.node_scale != 0) & ~vanishing)[node_of_subnode]
        passing[key] = edges[key] & passes[:, None]
    return passing


def edges_between(network: Network, edges: Kept, nodes: Kept) -> Kept:
    """The edges whose source and target are both among the nodes."""
    between: Kept = {}
    for (stage, number), layer in network.layers.items():
        targets = nodes[stage, number + 1][list(layer.config.node_of_subnode)]  # (n_subnodes,)
        between[stage, number] = edges[stage, number] & targets[:, None] & nodes[stage, number]
    return between


def connected_nodes(network: Network, output: int, edges: Kept) -> Kept:
    """The nodes that `passing_edges` connect both with a feature and with an output, (n_nodes,) by (stage, layer).

    A softmax reads all nodes for each output. A recurrent part counts as connected with everything.
    """
    config = network.config
    forward: Kept = {}
    reached = torch.ones(len(config.features), dtype=torch.bool)
    for stage, layers in network.stages.items():
        if stage == "head" and config.mixes_steps:
            reached = torch.ones(config.n_readout, dtype=torch.bool)
        elif stage == "head" and config.readout == "flatten":
            reached = reached.repeat(config.lookback)
        for number, layer in enumerate(layers):
            forward[stage, number] = _through_norm(layer.config, reached)
            reached = _any_subnode(layer.config, (edges[stage, number] & forward[stage, number]).any(dim=1))
        forward[stage, len(layers)] = reached
    connected: Kept = {}
    onward = (torch.arange(len(config.outputs)) == output) | (config.output_function == "softmax")
    for stage in reversed(list(network.stages)):
        leading = leading_nodes(network.stages[stage], stage, edges, onward)
        connected |= {(stage, number): nodes & forward[stage, number] for number, nodes in enumerate(leading)}
        if stage == "head":
            onward = torch.ones(config.n_steps).bool() if config.mixes_steps else network.acting_steps(leading[0])
    return {key: connected[key] for key in forward}


def leading_nodes(layers: Sequence[KANLayer], stage: str, edges: Kept, last: Tensor) -> list[Tensor]:
    """The nodes of each layer of a stage from which `passing_edges` lead to those of its last, bool (n_nodes,)."""
    onward = [last]
    for number, layer in reversed(list(enumerate(layers))):
        subnodes = onward[0][list(layer.config.node_of_subnode)]
        leading = (edges[stage, number] & subnodes[:, None]).any(dim=0)
        onward.insert(0, _through_norm(layer.config, leading))
    return onward


def _through_norm(layer: LayerConfig, nodes: Tensor) -> Tensor:
    """Nodes that a layer reads, (n_nodes,); with a layer norm each of them acts through all, so one set sets all."""
    return nodes.any().expand_as(nodes) if layer.mixes else nodes


def _any_subnode(layer: LayerConfig, subnodes: Tensor) -> Tensor:
    """Whether any sub-node of each node of a layer is set, (n_subnodes,) -> (n_out,)."""
    members = torch.tensor(layer.node_of_subnode)
    return torch.zeros(layer.n_out, dtype=torch.long).index_add(0, members, subnodes.long()) > 0
