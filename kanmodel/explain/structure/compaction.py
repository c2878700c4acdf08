"""Compaction of a pruned network: unreachable nodes are removed, the function stays the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kanmodel.explain.structure.connectivity import Kept, n_nodes
from kanmodel.network.chain import Network
from kanmodel.network.config import LayerConfig, Layers
from kanmodel.network.layer import KANLayer


def compact_network(network: Network, nodes: Kept) -> Network:
    """Drops nodes of hidden layers.

    Inputs and outputs of a stage stay: features, units and forecasts are named by the world outside. So do nodes
    that a layer norm reads. A layer keeps at least one node.

    Args:
        network: a network in which the dropped nodes have no edge that acts; it is not changed.
        nodes: whether a node stays, (n_nodes,) by (stage, layer).
    """
    config = network.config
    keep = {stage: _kept_nodes(layers, stage, nodes) for stage, layers in config.stages.items()}
    configs = {stage: _shrink(layers, keep[stage]) for stage, layers in config.stages.items()}
    compact = Network(replace(config, head=configs["head"], front=configs.get("front", ())))
    if network.recurrent is not None and compact.recurrent is not None:
        compact.recurrent.load_state_dict(network.recurrent.state_dict())
    for stage, layers in network.stages.items():
        for number, (old, new) in enumerate(zip(layers, compact.stages[stage], strict=True)):
            _copy_kept(old, new, *keep[stage][number : number + 2])
    return compact.eval().requires_grad_(False)


def _kept_nodes(layers: Layers, stage: str, nodes: Kept) -> list[Tensor]:
    """Numbers of the nodes of each layer that stay."""
    kept = []
    for number, n in enumerate(n_nodes(layers)):
        hidden = 0 < number < len(layers) and not layers[number].mixes  # a norm reads the others through each
        stay = nodes[stage, number] if hidden else torch.ones(n, dtype=torch.bool)
        numbers = stay.nonzero().flatten()
        kept.append(numbers if len(numbers) else torch.tensor([0]))
    return kept


def _shrink(layers: Layers, keep: Sequence[Tensor]) -> Layers:
    """The configs of the nodes that stay, their symbolic edges renumbered."""
    shrunk = []
    for number, layer in enumerate(layers):
        inputs, nodes = keep[number].tolist(), keep[number + 1].tolist()
        subnodes = _kept_subnodes(layer, keep[number + 1]).tolist()
        arity = tuple(layer.mult_arity[node - layer.n_sum] for node in nodes if node >= layer.n_sum)
        symbolic = tuple(
            replace(edge, i=inputs.index(edge.i), j=subnodes.index(edge.j))
            for edge in layer.symbolic
            if edge.i in inputs and edge.j in subnodes
        )
        n_sum = len(nodes) - len(arity)
        shrunk.append(replace(layer, n_in=len(inputs), n_sum=n_sum, mult_arity=arity, symbolic=symbolic))
    return tuple(shrunk)


def _kept_subnodes(layer: LayerConfig, nodes: Tensor) -> Tensor:
    """Numbers of the sub-nodes of the nodes that stay."""
    return torch.isin(torch.tensor(layer.node_of_subnode), nodes).nonzero().flatten()


def _copy_kept(old: KANLayer, new: KANLayer, inputs: Tensor, nodes: Tensor) -> None:
    subnodes = _kept_subnodes(old.config, nodes)
    stay = [n for n, edge in enumerate(old.config.symbolic) if edge.i in inputs and edge.j in subnodes]
    basis = old.config.basis
    for name, tensor in old.state_dict().items():
        if name in (*basis.per_edge(), "scale_base", "scale_spline", "mask"):
            kept = tensor[subnodes][:, inputs]
        elif name in basis.per_input() or name.startswith("before."):
            kept = tensor[inputs]
        elif name.startswith("symbolic_"):
            kept = tensor[stay]
        else:
            kept = tensor[subnodes if name.startswith("subnode_") else nodes]
        if name in new.state_dict():  # symbolic tensors are gone with the last symbolic edge
            new.state_dict()[name].copy_(kept)
