"""Ids of the nodes of the graph.

``feature:{name}``; ``front:{l}:{j}``; ``lstm:{u}``; ``head:{l}:{j}`` for l >= 1; ``output:{name}``. Layer 0 of the head
is the LSTM's units, or the features where there is no LSTM. The factors of a product node are ``{id}.{m}``.
"""

from __future__ import annotations

from typing import Literal

from kanmodel.config import KANConfig, ModelConfig

NodeKind = Literal["feature", "front", "lstm", "head", "output", "subnode"]


def node_id(config: ModelConfig, stage: str, layer: int, index: int) -> str:
    """Id of a node of a KAN."""
    kan = _kan_config(config, stage)
    if stage == "head" and layer == kan.depth:
        return f"output:{config.outputs[index]}"
    if layer == 0 and (stage == "front" or config.lstm is None):
        return f"feature:{config.feature_names[index]}"
    return f"lstm:{index}" if layer == 0 else f"{stage}:{layer}:{index}"


def subnode_id(config: ModelConfig, stage: str, layer: int, subnode: int) -> str:
    """Id of a sub-node of a KAN; of a sum node it is the node's own."""
    members = _kan_config(config, stage).node_of_subnode(layer)
    node = members[subnode]
    if members.count(node) == 1:
        return node_id(config, stage, layer, node)
    return f"{stage}:{layer}:{node}.{subnode - members.index(node)}"


def _kan_config(config: ModelConfig, stage: str) -> KANConfig:
    if stage == "front" and config.front is not None:
        return config.front
    return config.head


def kind_of(identity: str) -> NodeKind:
    """``lstm:3`` -> ``lstm``; not for sub-nodes, whose ids begin with their node's."""
    kind: NodeKind = identity.split(":", 1)[0]  # type: ignore[assignment]
    return kind


def label_of(identity: str) -> str:
    """``lstm:3`` -> ``lstm 3``; ``feature:temp_c`` -> ``temp_c``."""
    kind, rest = identity.split(":", 1)
    return rest if kind in ("feature", "output") else f"{kind} {rest}"
