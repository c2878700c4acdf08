"""Edges of the graph of a network, and finding the KAN edges among them by id, by their ends or by their indices."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from numbers import Integral
from typing import Any, Literal

from kanmodel.attribution.profiles import Lags
from kanmodel.errors import UnknownNameError, quote
from kanmodel.network.connections import EdgeKey, node_id, read_place, subnode_id
from kanmodel.network.network import LayerKey, Network
from kanmodel.text import list_some

EdgeKind = Literal["edge", "product", "input", "link", "output"]
_ID = re.compile("(front|head):([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9})")


@dataclass(frozen=True)
class TopologyEdge:
    """An edge: a function, or a way from a sub-node to its product node, from a feature to a unit, to an output.

    Attributes:
        source: id of the node that it leaves.
        target: id of the node or sub-node that it enters.
        kind: ``edge``, a function of a KAN; ``product``, from a sub-node to its node in the same layer; ``input``, from
            a feature to a unit or a cell that the head reads; ``output``, from a node of the last layer to the output,
            through the output function; ``link``, in a graph from a node to one that the operations between the layers
            compute of it, or that reads it through a recurrent part.
        stage: the part of the network: front, lstm, gru, cell, glue, head or output.
        layer: layer of the node that it leaves, within its stage.
        i: number of the node that it leaves.
        j: number of the sub-node that it enters.
        kept: whether the rule keeps it.
        masked: whether the checkpoint itself masks it.
        contribution: mean |contribution| over the reference windows, the target's unit, for ``edge``, ``output``, and
            ``link`` except into a recurrent part or in a graph with more than 256 computed nodes; else None.
        interval: 95 % interval of that mean; None without a contribution.
        share: share of the feature in the profile of the target; only from a feature, for ``input`` and ``link``.
        lags: the steps at which the source reads features; of an edge with a share, those of the feature in the target.
            Empty for ``product``, for an ``edge`` that leaves a feature, and as for a node.
        reads: when its source reads which inputs, as of a node; with a share, when the target reads the feature.
        scores: backward, forward_n and forward_u, model units; None if not available.
        opacity: tanh(3 * backward score), as pykan draws it; None without scores.
        outside_grid: share of its reference inputs outside the core interval of its grid; None for a basis without one.
    """

    source: str
    target: str
    kind: EdgeKind
    stage: str
    layer: int
    i: int
    j: int
    kept: bool
    masked: bool = False
    contribution: float | None = None
    interval: tuple[float, float] | None = None
    share: float | None = None
    scores: Mapping[str, float] | None = None
    opacity: float | None = None
    outside_grid: float | None = None
    lags: Mapping[str, Lags] = field(default_factory=dict, compare=False)
    reads: str = field(default="", compare=False)

    @property
    def key(self) -> EdgeKey:
        """Its (stage, layer, i, j)."""
        return self.stage, self.layer, self.i, self.j


def network_edges(network: Network) -> Iterator[TopologyEdge]:
    """Yields all KAN edges of a checkpoint: kept unless the checkpoint masks them, without contributions or scores."""
    config = network.config
    for (stage, number), layer in network.layers.items():
        live = layer.live.tolist()
        sources = [node_id(config, *read_place(config, (stage, number)), i) for i in range(layer.config.n_in)]
        targets = [subnode_id(config, stage, number + 1, j) for j in range(layer.config.n_subnodes)]
        for (i, source), (j, target) in product(enumerate(sources), enumerate(targets)):
            yield TopologyEdge(source, target, "edge", stage, number, i, j, kept=live[j][i], masked=not live[j][i])


def find_edge(network: Network, edge: Any, stage: str = "head") -> TopologyEdge:
    """One of the `network_edges`, by any name; see `find_edge_key`."""
    key = find_edge_key(network, edge, stage)
    return next(one for one in network_edges(network) if one.key == key)


def find_edge_key(network: Network, edge: Any, stage: str = "head") -> EdgeKey:
    """The (stage, layer, i, j) of an edge.

    An edge is given by its id, such as ``"head:0:7:3"``; the ids of its end nodes, such as ``("lstm:7", "head:1:3")``;
    or its indices ``(layer, i, j)`` in `stage`, or ``(stage, layer, i, j)``.

    Raises:
        UnknownNameError: there is no such edge; the message lists some that are near, or the valid indices.
    """
    match edge:
        case str() if found := _ID.fullmatch(edge):
            stage, *numbers = found.groups()
        case str():
            raise UnknownNameError(f"there is no edge {quote(edge)}: an id is such as 'head:0:7:3'")
        case [str() as source, str() as target]:
            return _find_between(network, source, target)
        case [Integral(), Integral(), Integral()]:
            numbers = edge
        case [str() as stage, Integral(), Integral(), Integral()]:
            numbers = edge[1:]
        case _:
            valid = "an id such as 'head:0:7:3', two ids of nodes or indices layer, i, j"
            raise UnknownNameError(f"an edge is {valid}, but {quote(edge)} is not")
    layer, i, j = (int(number) for number in numbers)
    refuse_outside(
        (stage, layer, i, j), {place: (of.config.n_in, of.config.n_subnodes) for place, of in network.layers.items()}
    )
    return stage, layer, i, j


def refuse_outside(key: EdgeKey, sizes: Mapping[LayerKey, tuple[int, int]]) -> None:
    """Raises `UnknownNameError` unless an edge is in a layer of that many nodes and sub-nodes."""
    stage, layer, i, j = key
    n_in, n_subnodes = sizes.get((stage, layer), (0, 0))
    if not (0 <= i < n_in and 0 <= j < n_subnodes):
        ends = [f"{name} layer {number}: i 0 to {n - 1}, j 0 to {m - 1}" for (name, number), (n, m) in sizes.items()]
        raise UnknownNameError(f"there is no edge ({stage}, {layer}, {i}, {j}); there are {'; '.join(ends)}")


def _find_between(network: Network, source: str, target: str) -> EdgeKey:
    """The edge from a node to a node, or to a factor of a product node, by their ids."""
    edges = list(network_edges(network))
    leaving = {edge.target: edge.key for edge in edges if edge.source == source}
    if target in leaving:
        return leaving[target]
    if leaving:
        found = f"from {quote(source)} edges lead to {list_some(list(leaving))}"
        raise UnknownNameError(f"there is no edge from {quote(source)} to {quote(target)}; {found}")
    sources = list_some(list(dict.fromkeys(edge.source for edge in edges)))
    raise UnknownNameError(f"there is no edge from {quote(source)}; edges leave {sources}")
