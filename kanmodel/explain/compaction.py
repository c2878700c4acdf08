"""A pruned network without the nodes that nothing reaches any more: really smaller, the same function."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kanmodel.config import KANConfig
from kanmodel.explain.connectivity import Kept
from kanmodel.kan import KAN
from kanmodel.network import LSTMKAN


def compact_network(network: LSTMKAN, nodes: Kept) -> LSTMKAN:
    """Drops nodes of hidden layers.

    Inputs and outputs of a KAN stay: features, LSTM units and forecasts are named by the world outside. So do nodes
    that a layer norm reads. A layer keeps at least one node.

    Args:
        network: a network in which the dropped nodes have no edge that acts; it is not changed.
        nodes: whether a node stays, (n_nodes,) by (stage, layer).
    """
    keep = {stage: _kept_nodes(kan.config, stage, nodes) for stage, kan in network.stages.items()}
    configs = {stage: _shrink(kan.config, keep[stage]) for stage, kan in network.stages.items()}
    compact = LSTMKAN(
        replace(network.config, head=configs["head"], front=configs["front"] if network.front is not None else None)
    )
    if network.lstm is not None and compact.lstm is not None:
        compact.lstm.load_state_dict(network.lstm.state_dict())
    for stage, kan in network.stages.items():
        _copy_kept(kan, compact.stages[stage], keep[stage])
    return compact.eval().requires_grad_(False)


def _kept_nodes(config: KANConfig, stage: str, nodes: Kept) -> list[Tensor]:
    """Numbers of the nodes of each layer that stay."""
    kept = []
    for layer, n_nodes in enumerate(config.n_nodes):
        hidden = 0 < layer < config.depth and not config.layer_norm[layer]  # a norm reads the others through each
        stay = nodes[stage, layer] if hidden else torch.ones(n_nodes, dtype=torch.bool)
        numbers = stay.nonzero().flatten()
        kept.append(numbers if len(numbers) else torch.tensor([0]))
    return kept


def _shrink(config: KANConfig, keep: list[Tensor]) -> KANConfig:
    """The config of the nodes that stay, its symbolic edges renumbered."""
    width, mult_arity = [], []
    for (n_sum, _), arity, numbers in zip(config.width, config.mult_arity, keep, strict=True):
        kept_arity = tuple(arity[number - n_sum] for number in numbers.tolist() if number >= n_sum)
        width.append((len(numbers) - len(kept_arity), len(kept_arity)))
        mult_arity.append(kept_arity)
    symbolic = []
    for edge in config.symbolic:
        inputs, subnodes = (
            keep[edge.layer].tolist(),
            _kept_subnodes(config, edge.layer + 1, keep[edge.layer + 1]).tolist(),
        )
        if edge.i in inputs and edge.j in subnodes:
            symbolic.append(replace(edge, i=inputs.index(edge.i), j=subnodes.index(edge.j)))
    return replace(config, width=tuple(width), mult_arity=tuple(mult_arity), symbolic=tuple(symbolic))


def _kept_subnodes(config: KANConfig, layer: int, nodes: Tensor) -> Tensor:
    """Numbers of the sub-nodes of the nodes of a layer that stay."""
    members = torch.tensor(config.node_of_subnode(layer))
    return torch.isin(members, nodes).nonzero().flatten()


def _copy_kept(source: KAN, target: KAN, keep: list[Tensor]) -> None:
    for number, (old, new) in enumerate(zip(source, target, strict=True)):
        inputs, nodes = keep[number], keep[number + 1]
        subnodes = _kept_subnodes(source.config, number + 1, nodes)
        for name in ("coef", "scale_base", "scale_spline", "mask"):
            getattr(new, name).data.copy_(getattr(old, name)[subnodes][:, inputs])
        new.grid.copy_(old.grid[inputs])
        for name in ("norm_weight", "norm_bias") if old.layer_norm else ():
            getattr(new, name).copy_(getattr(old, name)[inputs])
        stay = [q for q, edge in enumerate(old.symbolic) if edge.i in inputs and edge.j in subnodes]
        for name in ("symbolic_mask", "symbolic_affine") if stay else ():
            getattr(new, name).copy_(getattr(old, name)[stay])
        for name in ("subnode_scale", "subnode_bias"):
            getattr(new, name).copy_(getattr(old, name)[subnodes])
        for name in ("node_scale", "node_bias"):
            getattr(new, name).copy_(getattr(old, name)[nodes])
