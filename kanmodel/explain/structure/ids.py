"""Ids of the nodes of the graph.

``feature:{name}``; ``front:{l}:{j}``; ``lstm:{u}`` or ``gru:{u}``, the units of the readout; ``cell:{step}:{name}``
where the head reads all steps, step 0 the newest and -1 the one before; ``head:{l}:{j}`` for l >= 1; ``output:{name}``.
Layer 0 of the head is what it reads: units, cells, or nodes that are there already, features or nodes of the front. The
last layer of the head is the outputs, unless an output function stands between them. The factors of a product node are
``{id}.{m}``.

The edge from node i of a layer of a KAN to sub-node j of the next is ``{stage}:{layer}:{i}:{j}``, as in ``head:0:7:3``.
"""

from __future__ import annotations

from typing import Literal

from kanmodel.network.config import ModelConfig

NodeKind = Literal["feature", "front", "lstm", "gru", "cell", "head", "output", "subnode"]
READOUT_KINDS: tuple[NodeKind, ...] = ("lstm", "gru", "cell")


def node_place(config: ModelConfig, stage: str, layer: int) -> tuple[str, int]:
    """Where the ledger lists the nodes of a layer of a stage: (stage, layer)."""
    if stage == "head" and layer == len(config.head) and config.output_function is None:
        return "output", layer
    if layer > 0:
        return stage, layer
    if stage == "head" and config.readout_stage is not None:
        return config.readout_stage, 0
    return ("front", len(config.front)) if stage == "head" and config.front else ("input", 0)


def node_id(config: ModelConfig, stage: str, layer: int, index: int) -> str:
    """Id of a node of a layer of a stage."""
    kind, number = node_place(config, stage, layer)
    match kind:
        case "output":
            return output_id(config, index)
        case "input":
            return f"feature:{config.feature_names[index]}"
        case "cell":
            return f"cell:{_cell_name(config, index)}"
        case "lstm" | "gru":
            return f"{kind}:{index}"
    return f"{kind}:{number}:{index}"


def output_id(config: ModelConfig, output: int) -> str:
    """Id of an output."""
    return f"output:{config.outputs[output]}"


def subnode_id(config: ModelConfig, stage: str, layer: int, subnode: int) -> str:
    """Id of a sub-node of a layer of a stage; of a sum node it is the node's own."""
    members = config.stages[stage][layer - 1].node_of_subnode
    node = members[subnode]
    if members.count(node) == 1:
        return node_id(config, stage, layer, node)
    return f"{stage}:{layer}:{node}.{subnode - members.index(node)}"


def edge_id(stage: str, layer: int, i: int, j: int) -> str:
    """Id of the edge from node i of a layer of a stage to sub-node j of the next."""
    return f"{stage}:{layer}:{i}:{j}"


def kind_of(identity: str) -> NodeKind:
    """``lstm:3`` -> ``lstm``; not for sub-nodes, whose ids begin with their node's."""
    kind: NodeKind = identity.split(":", 1)[0]  # type: ignore[assignment]
    return kind


def label_of(identity: str) -> str:
    """``lstm:3`` -> ``lstm 3``; ``feature:temp_c`` -> ``temp_c``; ``cell:-3:temp_c`` -> ``temp_c at -3``."""
    kind, rest = identity.split(":", 1)
    if kind == "cell":
        step, name = rest.split(":", 1)
        return f"{name} at {step}"
    return rest if kind in ("feature", "output") else f"{kind} {rest}"


def _cell_name(config: ModelConfig, index: int) -> str:
    """Step and name of one of the values that a flattened window has: a feature, or a unit or node by its number."""
    step, value = divmod(index, config.n_readout // config.lookback)
    plain = config.recurrent is None and not config.front
    return f"{step - config.lookback + 1}:{config.feature_names[value] if plain else value}"
