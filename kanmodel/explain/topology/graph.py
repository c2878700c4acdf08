"""The topology graph: nodes and edges with their contributions, scores, and whether pruning keeps them.

A product node has a sub-node for each factor, joined to it by an edge of kind ``product``. Edges of kind ``input`` join
features with what the head reads of them, units or cells; those of kind ``output`` join the last layer's nodes with the
output where an output function stands between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from kanmodel.errors import UnknownNameError
from kanmodel.explain.structure.ids import NodeKind
from kanmodel.explain.structure.replay import Fidelity
from kanmodel.explain.topology.pruning import PruningRule

EdgeKind = Literal["edge", "product", "input", "output"]


@dataclass(frozen=True)
class TopologyNode:
    """A node of the graph.

    Attributes:
        id: as `kanmodel.explain.structure.ids` describes.
        kind: feature, front, lstm, gru, cell, head, output or subnode.
        layer: its layer within its stage.
        index: its number within its layer.
        label: for people.
        kept: whether the rule keeps it; a feature is dropped only if nothing connects it with the output.
        contribution: mean |contribution| over the reference windows, the target's unit; None for a sub-node.
        interval: of that mean, 95 %.
        scores: pykan's backward score, model units; None where there is none.
        profile: share of each feature in the node's own value, names to numbers that sum to 1; empty for features.
    """

    id: str
    kind: NodeKind
    layer: int
    index: int
    label: str
    kept: bool
    contribution: float | None = None
    interval: tuple[float, float] | None = None
    scores: Mapping[str, float] | None = None
    profile: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TopologyEdge:
    """An edge of the graph.

    Attributes:
        source: id of the node it leaves.
        target: id of the node, or of a product node's sub-node, that it enters.
        kind: ``edge``, a function of a KAN; ``product``, from a sub-node to its node; ``input``, from a feature to a
            unit or a cell; ``output``, from a node of the last layer to the output, through the output function.
        stage: front, lstm, gru, cell, head or output.
        layer: layer of the node it leaves; for ``product`` the layer of the node.
        i: number of the node, or sub-node, it leaves.
        j: number of the sub-node, or node, it enters.
        kept: whether the rule keeps it.
        masked: whether the checkpoint itself masks it.
        contribution: mean |contribution| over the reference windows, the target's unit; None but for ``edge`` and
            ``output``.
        interval: of that mean, 95 %.
        share: of the feature in the unit's profile; None but for ``input``.
        scores: backward, forward_n and forward_u, model units; None where there are none.
        opacity: tanh(3 backward), as pykan draws it; None where there is no score.
        outside_grid: share of its reference inputs beyond the core interval of its grid; None where it has none.
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


@dataclass(frozen=True)
class NetworkGraph:
    """The graph of a model for one output.

    Attributes:
        output: name of the output.
        rule: the pruning rule, its metric resolved.
        fidelity: what pruning costs.
        nodes: all nodes, in the order of the data.
        edges: all edges, those of the KANs first.
        reference_windows: number of windows that everything was measured on.
    """

    output: str
    rule: PruningRule
    fidelity: Fidelity
    nodes: tuple[TopologyNode, ...]
    edges: tuple[TopologyEdge, ...]
    reference_windows: int

    @property
    def kan_edges(self) -> tuple[TopologyEdge, ...]:
        """The edges that hold functions."""
        return tuple(edge for edge in self.edges if edge.kind == "edge")

    def upstream(self) -> Self:
        """The part that leads to the output, by edges that are kept or not; other outputs' last edges are left out."""
        before_head = [node.id for node in self.nodes if node.kind not in ("head", "subnode", "output")]
        found = _reach([f"output:{self.output}", *before_head], ((edge.target, edge.source) for edge in self.edges))
        return replace(
            self,
            nodes=tuple(node for node in self.nodes if node.id in found),
            edges=tuple(edge for edge in self.edges if edge.target in found),
        )

    def through(self, node: str, only_kept: bool = True) -> Self:
        """The part on the paths through a node: what leads to it, and what it leads to.

        Args:
            node: its id. It stays in the graph even if no path leads through it.
            only_kept: whether paths follow kept edges alone.

        Raises:
            UnknownNameError: there is no such node.
        """
        if all(one.id != node for one in self.nodes):
            raise UnknownNameError(f"there is no node {node!r}; the graph has {self.nodes[0].id!r} and others")
        edges = [edge for edge in self.edges if edge.kept or not only_kept]
        above = _reach([node], ((edge.source, edge.target) for edge in edges))
        below = _reach([node], ((edge.target, edge.source) for edge in edges))
        found = above | below
        return replace(
            self,
            nodes=tuple(one for one in self.nodes if one.id in found),
            edges=tuple(
                edge for edge in edges if {edge.source, edge.target} <= above or {edge.source, edge.target} <= below
            ),
        )

    def edge(self, stage: str, layer: int, i: int, j: int) -> TopologyEdge:
        """The KAN edge from node i of `layer` to sub-node j of the next.

        Raises:
            UnknownNameError: there is none.
        """
        return edge_at(self.kan_edges, stage, layer, i, j)


def _reach(starts: Iterable[str], steps: Iterable[tuple[str, str]]) -> set[str]:
    """All that is reached from some nodes by steps from one node to another; the starts among them."""
    following: dict[str, list[str]] = {}
    for start, end in steps:
        following.setdefault(start, []).append(end)
    found, waiting = set[str](), list(starts)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(following.get(node, ()))
    return found


def edge_at(edges: Iterable[TopologyEdge], stage: str, layer: int, i: int, j: int) -> TopologyEdge:
    """The edge from node i of a layer of a stage to sub-node j of the next, among all that hold functions.

    Raises:
        UnknownNameError: there is none; the message says which there are.
    """
    numbers: dict[tuple[str, int], tuple[int, int]] = {}
    for edge in edges:
        if (edge.stage, edge.layer, edge.i, edge.j) == (stage, layer, i, j):
            return edge
        numbers[edge.stage, edge.layer] = edge.i, edge.j  # the last of a layer has the largest
    exist = "; ".join(f"{name} layer {number}: i 0 to {i}, j 0 to {j}" for (name, number), (i, j) in numbers.items())
    raise UnknownNameError(f"there is no edge ({stage}, {layer}, {i}, {j}); there are {exist}")
