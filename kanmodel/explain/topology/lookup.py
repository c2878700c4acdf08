"""Lookup of KAN edges by id, by the ids of their end nodes, or by (stage, layer, i, j)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import product
from numbers import Integral
from typing import Any

from kanmodel.errors import UnknownNameError, quote
from kanmodel.explain.structure.ids import node_id, subnode_id
from kanmodel.explain.topology.graph import TopologyEdge, edge_at
from kanmodel.explain.topology.pruning import EdgePlace
from kanmodel.network.chain import Network
from kanmodel.text import list_some

_ID = re.compile("(front|head):([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9})")


def find_places(network: Network, edges: Iterable[Any]) -> tuple[EdgePlace, ...]:
    """The (stage, layer, i, j) of edges in any of the forms of `find_place`, sorted, each once.

    Raises:
        UnknownNameError: one of them does not exist.
    """
    return tuple(sorted({find_place(network, edge) for edge in ([edges] if isinstance(edges, str) else edges)}))


def find_place(network: Network, edge: Any, stage: str = "head") -> EdgePlace:
    """The (stage, layer, i, j) of an edge.

    Args:
        network: the network.
        edge: its id, such as ``"head:0:7:3"``; the ids of its end nodes, such as ``("lstm:7", "head:1:3")``; or its
            indices ``(layer, i, j)`` or ``(stage, layer, i, j)``.
        stage: the stage of ``(layer, i, j)``.

    Raises:
        UnknownNameError: there is no such edge.
    """
    match edge:
        case str() if found := _ID.fullmatch(edge):
            stage, *numbers = found.groups()
        case str():
            raise UnknownNameError(f"there is no edge {quote(edge)}: an id is such as 'head:0:7:3'")
        case [str() as source, str() as target]:
            between = find_edge_between(network, source, target)
            return between.stage, between.layer, between.i, between.j
        case [Integral(), Integral(), Integral()]:
            numbers = edge
        case [str() as stage, Integral(), Integral(), Integral()]:
            numbers = edge[1:]
        case _:
            raise UnknownNameError(
                "an edge is an id such as 'head:0:7:3', two ids of nodes or indices layer, i, j, but "
                f"{quote(edge)} is not"
            )
    layer, i, j = (int(number) for number in numbers)
    known = network.layers.get((stage, layer))
    if known is None or not (0 <= i < known.config.n_in and 0 <= j < known.config.n_subnodes):
        find_edge_at(network, stage, layer, i, j)  # raises, with the valid indices
    return stage, layer, i, j


def find_edge_between(network: Network, source: str, target: str) -> TopologyEdge:
    """The edge from a node to a node, or to a factor of a product node, by their ids.

    Raises:
        UnknownNameError: there is none; the message lists targets of the source, or sources if it has none.
    """
    leaving = [edge for edge in network_edges(network) if edge.source == source]
    for edge in leaving:
        if edge.target == target:
            return edge
    if leaving:
        targets = list_some([edge.target for edge in leaving])
        raise UnknownNameError(
            f"there is no edge from {quote(source)} to {quote(target)}; from {quote(source)} edges lead to {targets}"
        )
    sources = list_some(list(dict.fromkeys(edge.source for edge in network_edges(network))))
    raise UnknownNameError(f"there is no edge from {quote(source)}; edges leave {sources}")


def find_edge_at(network: Network, stage: str, layer: int, i: int, j: int) -> TopologyEdge:
    """The edge from node i of a layer of a stage to sub-node j of the next.

    Raises:
        UnknownNameError: there is none; the message lists the valid indices.
    """
    return edge_at(network_edges(network), stage, layer, i, j)


def network_edges(network: Network) -> Iterator[TopologyEdge]:
    """Yields all KAN edges of a checkpoint: kept unless the checkpoint masks them, without contributions or scores."""
    config = network.config
    for (stage, number), layer in network.layers.items():
        live = layer.live.tolist()
        sources = [node_id(config, stage, number, i) for i in range(layer.config.n_in)]
        targets = [subnode_id(config, stage, number + 1, j) for j in range(layer.config.n_subnodes)]
        for i, j in product(range(len(sources)), range(len(targets))):
            kept = live[j][i]
            yield TopologyEdge(sources[i], targets[j], "edge", stage, number, i, j, kept=kept, masked=not kept)
