"""The topology graph: nodes and edges with their contributions, their scores, and whether pruning keeps them.

A product node has a sub-node for each factor, which an edge of kind ``product`` connects with it. Edges of kind
``input`` connect features with the units or cells that the head reads; edges of kind ``output`` connect the last
layer's nodes with the output if the model has an output function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from kanmodel.arguments import checked
from kanmodel.errors import UnknownNameError, quote
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
        label: display name.
        kept: whether the rule keeps it; for a feature that is not an input of a KAN, whether it is connected with the
            output.
        contribution: mean |contribution| over the reference windows, the target's unit; None for a sub-node.
        interval: of that mean, 95 %.
        scores: pykan's backward score, model units; None if not available.
        profile: share of each feature in the node's own value, by name; empty for features and sub-nodes.
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
        i: index of the node, or sub-node, it leaves.
        j: index of the sub-node, or node, it enters.
        kept: whether the rule keeps it.
        masked: whether the checkpoint itself masks it.
        contribution: mean |contribution| over the reference windows, the target's unit; only for ``edge`` and
            ``output``.
        interval: of that mean, 95 %.
        share: of the feature in the profile of the unit or cell; only for ``input``.
        scores: backward, forward_n and forward_u, model units; None if not available.
        opacity: tanh(3 * backward score), as pykan draws it; None without scores.
        outside_grid: share of its inputs on the reference windows outside the core interval of its grid; None if its
            basis has no grid.
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
        fidelity: of the pruned network.
        nodes: all nodes, from the features to the outputs.
        edges: all edges, KAN edges first.
        reference_windows: number of reference windows.
    """

    output: str
    rule: PruningRule
    fidelity: Fidelity
    nodes: tuple[TopologyNode, ...]
    edges: tuple[TopologyEdge, ...]
    reference_windows: int

    @property
    def kan_edges(self) -> tuple[TopologyEdge, ...]:
        """The edges of the KANs, which hold functions."""
        return tuple(edge for edge in self.edges if edge.kind == "edge")

    def upstream(self) -> Self:
        """The subgraph upstream of the output, along all edges; features, front nodes, units and cells stay."""
        before_head = [node.id for node in self.nodes if node.kind not in ("head", "subnode", "output")]
        found = _reach([f"output:{self.output}", *before_head], ((edge.target, edge.source) for edge in self.edges))
        return replace(
            self,
            nodes=tuple(node for node in self.nodes if node.id in found),
            edges=tuple(edge for edge in self.edges if edge.target in found),
        )

    @checked
    def through(self, node: str, only_kept: bool = True) -> Self:
        """The subgraph upstream and downstream of a node.

        Args:
            node: its id. The node itself is included even if it has no edges.
            only_kept: whether to leave out pruned edges.

        Raises:
            UnknownNameError: there is no such node.
        """
        if all(one.id != node for one in self.nodes):
            raise UnknownNameError(f"there is no node {quote(node)}; the graph has {self.nodes[0].id!r} and others")
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

    @checked
    def edge(self, stage: str, layer: int, i: int, j: int) -> TopologyEdge:
        """The KAN edge from node i of `layer` to sub-node j of the next.

        Raises:
            UnknownNameError: there is none.
        """
        return edge_at(self.kan_edges, stage, layer, i, j)


def _reach(starts: Iterable[str], steps: Iterable[tuple[str, str]]) -> set[str]:
    """The nodes reachable from some nodes along (source, target) steps, including these nodes."""
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
    """The KAN edge from node i of a layer of a stage to sub-node j of the next.

    Raises:
        UnknownNameError: there is none; the message lists the valid indices.
    """
    numbers: dict[tuple[str, int], tuple[int, int]] = {}
    for edge in edges:
        if (edge.stage, edge.layer, edge.i, edge.j) == (stage, layer, i, j):
            return edge
        numbers[edge.stage, edge.layer] = edge.i, edge.j  # the last of a layer has the largest
    exist = "; ".join(f"{name} layer {number}: i 0 to {i}, j 0 to {j}" for (name, number), (i, j) in numbers.items())
    raise UnknownNameError(f"there is no edge ({stage}, {layer}, {i}, {j}); there are {exist}")
