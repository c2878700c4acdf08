"""The structure of a network: ids of its nodes and edges, and the nodes that can affect an output.

Ids of nodes are ``feature:{name}``; ``front:{l}:{j}``; ``lstm:{u}`` or ``gru:{u}``, the units of the readout;
``cell:{step}:{name}`` where the head reads all steps, step 0 the newest and -1 the one before; ``head:{l}:{j}`` for
l >= 1; ``output:{name}``. Layer 0 of the head is what it reads: units, cells, features or nodes of the front. Its last
layer is the outputs, unless an output function stands between them. The factors of a product node are ``{id}.{m}``. The
edge from node i of a layer to sub-node j of the next is ``{stage}:{layer}:{i}:{j}``, as in ``head:0:7:3``.

A graph has ``lstm:{r}:{u}`` or ``gru:{r}:{u}`` for the units of its recurrent part number r, ``loop:{n}:{u}`` for what
loop n gives in each step, and ``head:{l}:{j}`` for the outputs of layer number l - 1. What a layer reads is one of
these nodes, a cell, or else ``glue:{l}:{i}``: input i of layer l, which operations between the layers have computed,
such as a sum or the normalised value of a window. So a node stands at a place, (stage, number), of those of
`kanmodel.network.wiring`; of a chain's stage layer l reads the nodes at (stage, l) and sets those at (stage, l + 1).

Connectivity follows from masks and zero weights alone. What has no connection with an output has no effect on it, for
any data that stay finite on their way (0 times infinity is not 0). The converse fails: nonzero weights may cancel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.network.network import LayerKey, Network
from kanmodel.network.recurrent import acting_inputs
from kanmodel.network.wiring import Flags, find_window, leaves_of, spread

NodeKind = Literal["feature", "front", "lstm", "gru", "loop", "cell", "glue", "head", "output", "subnode"]
READOUT_KINDS: tuple[NodeKind, ...] = ("lstm", "gru", "loop", "cell")
EdgeKey = tuple[str, int, int, int]  # (stage, layer, i, j): from node i of the layer to sub-node j of the next
Kept = dict[LayerKey, Tensor]  # bool, (n_subnodes, n_in) for layers of edges, (n_nodes,) for places of nodes


def read_place(config: ModelConfig, key: LayerKey) -> LayerKey:
    """The place of the nodes that a layer reads."""
    return config.wiring.reads[key]


def set_place(key: LayerKey) -> LayerKey:
    """The place of the nodes that a layer sets."""
    return key[0], key[1] + 1


def rows_of_layers(config: ModelConfig) -> tuple[tuple[LayerKey, ...], ...]:
    """The layers that follow each other directly: the stages of a chain."""
    return config.wiring.rows


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
    """Id of a node of a layer of a stage, or of a place of a graph."""
    return config.wiring.ids[stage, layer][index]


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
        read = leading_nodes(network, rows_of_layers(network.config)[0], edges, read)[0]
    return [bool(feature) for feature in read]


def _reaching_features(network: Network, output: int) -> list[bool]:
    """The features of a graph that are read on a way to an output, value by value."""
    config, layers = network.config, network.layers
    passing = passing_edges(network, {key: layer.varies for key, layer in layers.items()})
    leaves = {
        node: (into[1], config.head[into[1]] if into[0] == "glue" else None) for node, into, _ in leaves_of(config)
    }

    def through(node: int, flags: Flags) -> Flags:
        number, layer = leaves[node]
        if layer is not None:
            rows = torch.from_numpy(np.array(flags.reshape(-1, layer.n_in)))
            read = _through_norm(layer, rows).float() @ passing["head", number].float().T > 0
            nodes = torch.zeros(len(rows), layer.n_out).index_add(1, torch.tensor(layer.node_of_subnode), read.float())
            return (nodes > 0).numpy().reshape(*flags.shape[:-1], layer.n_out)
        acting = (flags & _acting_inputs(network, number).numpy()).any(axis=-1)  # (n, ..., steps)
        if config.recurrents[number].bidirectional:
            acting = np.broadcast_to(acting.any(axis=-1, keepdims=True), acting.shape)
        reached = np.logical_or.accumulate(acting, axis=-1)[..., None]
        return np.broadcast_to(reached, (*reached.shape[:-1], config.recurrents[number].n_units))

    found: list[bool] = []
    for flags in spread(config, find_window(config), through):
        n, last = next(len(each) for each in flags if each is not None), flags[-1]
        reached = np.zeros((n, len(config.outputs)), dtype=np.bool_) if last is None else last
        of_outputs = reached if config.output_function == "softmax" else reached[:, output : output + 1]
        found += [bool(each.any()) for each in of_outputs]
    return found


def _acting_inputs(network: Network, number: int) -> Tensor:
    """The inputs of a recurrent part of a graph that act on some of its units, (n_in,)."""
    part, units = network.config.recurrents[number], torch.ones(network.config.recurrents[number].n_units).bool()
    return acting_inputs(network.recurrent_modules[number], part, units, network.config.lookback, last=False)


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
    for key, layer in network.layers.items():
        targets = nodes[set_place(key)][list(layer.config.node_of_subnode)]  # (n_subnodes,)
        between[key] = edges[key] & targets[:, None] & nodes[read_place(network.config, key)]
    return between


def connected_nodes(network: Network, output: int, edges: Kept) -> Kept:
    """The nodes that `passing_edges` connect both with a feature and with an output, (n_nodes,) by place.

    A softmax reads all nodes for each output. A recurrent part counts as connected with everything.
    """
    if network.config.graph:
        return _connected_in_graph(network, output, edges)
    config = network.config
    forward, reached = Kept(), torch.ones(len(config.features), dtype=torch.bool)
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
    for row in reversed(rows_of_layers(config)):
        stage, leading = row[0][0], leading_nodes(network, row, edges, onward)
        connected |= {(stage, number): nodes & forward[stage, number] for number, nodes in enumerate(leading)}
        if stage == "head":
            onward = torch.ones(config.n_steps).bool() if config.mixes_steps else network.acting_steps(leading[0])
    return {key: connected[key] for key in forward}


def _connected_in_graph(network: Network, output: int, edges: Kept) -> Kept:
    config, wiring, forward = network.config, network.config.wiring, Kept()
    links = {
        into: {place: torch.from_numpy(np.ascontiguousarray(reads)) for place, reads in read.items()}
        for into, read in wiring.links.items()
    }
    last = ("output", len(config.head))
    forward["input", 0] = torch.ones(len(config.features), dtype=torch.bool)

    def reach(into: LayerKey) -> Tensor:
        reads = [(by & forward[place]).any(dim=1) for place, by in links[into].items()]
        return torch.stack(reads).any(dim=0)

    def lead(place: LayerKey) -> Tensor:
        read = [(links[into][place] & onward[into][:, None]).any(dim=0) for into in onward if place in links[into]]
        return torch.stack(read).any(dim=0)

    leaves, changes = [*leaves_of(config)], True
    for _, into, place in leaves:
        forward |= {each: torch.zeros(len(wiring.ids[each])).bool() for each in (into, place) if each in wiring.ids}
    while changes:  # again where a loop reads what it has set
        before = dict(forward)
        for _, into, place in leaves:
            reached = reach(into)
            if into[0] == "steps":
                forward[place] = reached.any().expand(config.recurrents[into[1]].n_units)
            elif into[0] == "units":
                forward[place] = reached
            else:
                layer = config.head[into[1]]
                forward[into] = _through_norm(layer, reached)
                forward[place] = _any_subnode(layer, (edges["head", into[1]] & forward[into]).any(dim=1))
        changes = any(not torch.equal(nodes, before[place]) for place, nodes in forward.items())
    forward[last] = reach(last)
    onward = {into: torch.zeros(len(next(iter(read.values())))).bool() for into, read in links.items()}
    onward[last], changes = torch.arange(len(config.outputs)) == output, True
    while changes:
        before = dict(onward)
        for _, into, place in reversed(leaves):
            leading = lead(place)
            if into[0] == "glue":
                onward[into] = leading_nodes(network, [("head", into[1])], edges, leading)[0]
            else:
                onward[into] = leading if into[0] == "units" else _acting_inputs(network, into[1]) & leading.any()
        changes = any(not torch.equal(nodes, before[into]) for into, nodes in onward.items())
    for place in (("input", 0), *(place for _, _, place in leaves)):
        forward[place] = forward[place] & lead(place)
    return {place: nodes & onward.get(place, nodes) for place, nodes in forward.items()}


def leading_nodes(network: Network, row: Sequence[LayerKey], edges: Kept, last: Tensor) -> list[Tensor]:
    """The nodes of each layer of a row from which `passing_edges` lead to those of its last, bool (n_nodes,)."""
    onward = [last]
    for key in reversed(row):
        layer = network.layers[key].config
        subnodes = onward[0][list(layer.node_of_subnode)]
        leading = (edges[key] & subnodes[:, None]).any(dim=0)
        onward.insert(0, _through_norm(layer, leading))
    return onward


def _through_norm(layer: LayerConfig, nodes: Tensor) -> Tensor:
    """Nodes that a layer reads, (..., n_nodes); with a layer norm each of them acts through all, so one sets all."""
    return nodes.any(dim=-1, keepdim=True).expand_as(nodes) if layer.mixes else nodes


def _any_subnode(layer: LayerConfig, subnodes: Tensor) -> Tensor:
    """Whether any sub-node of each node of a layer is set, (n_subnodes,) -> (n_out,)."""
    members = torch.tensor(layer.node_of_subnode)
    return torch.zeros(layer.n_out, dtype=torch.long).index_add(0, members, subnodes.long()) > 0
