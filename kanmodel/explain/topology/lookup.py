"""Lookup of KAN edges by the ids of their ends or by their indices, without a ledger or a pruning."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from kanmodel.errors import UnknownNameError
from kanmodel.explain.structure.ids import node_id, subnode_id
from kanmodel.explain.topology.graph import TopologyEdge, edge_at
from kanmodel.network.chain import Network

N_NAMED = 8  # ids that an error lists


def find_edge_between(network: Network, source: str, target: str) -> TopologyEdge:
    """The edge from a node to a node, or to a factor of a product node, by their ids.

    Raises:
        UnknownNameError: there is none; the message lists where edges from the source lead, or what sources there are.
    """
    leaving = [edge for edge in network_edges(network) if edge.source == source]
    for edge in leaving:
        if edge.target == target:
            return edge
    if leaving:
        targets = _list_some([edge.target for edge in leaving])
        raise UnknownNameError(
            f"there is no edge from {source!r} to {target!r}; from {source!r} edges lead to {targets}"
        )
    sources = _list_some(list(dict.fromkeys(edge.source for edge in network_edges(network))))
    raise UnknownNameError(f"there is no edge from {source!r}; edges leave {sources}")


def find_edge_at(network: Network, stage: str, layer: int, i: int, j: int) -> TopologyEdge:
    """The edge from node i of a layer of a stage to sub-node j of the next.

    Raises:
        UnknownNameError: there is none; the message says which there are.
    """
    return edge_at(network_edges(network), stage, layer, i, j)


def network_edges(network: Network) -> Iterator[TopologyEdge]:
    """All edges that hold functions, as the checkpoint has them: kept unless it masks them, without contributions."""
    config = network.config
    for (stage, number), layer in network.layers.items():
        live = layer.live.tolist()
        sources = [node_id(config, stage, number, i) for i in range(layer.config.n_in)]
        targets = [subnode_id(config, stage, number + 1, j) for j in range(layer.config.n_subnodes)]
        for i, j in product(range(len(sources)), range(len(targets))):
            kept = live[j][i]
            yield TopologyEdge(sources[i], targets[j], "edge", stage, number, i, j, kept=kept, masked=not kept)


def _list_some(ids: list[str]) -> str:
    more = len(ids) - N_NAMED
    return ", ".join(ids[:N_NAMED]) + (f" and {more} more" if more > 0 else "")
