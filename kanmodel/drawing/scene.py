"""`Scene`: the data that all parts of a network's picture share: layout, curves, colours and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kanmodel.drawing.layout import CHIP, EdgeKey, Layout, Point, edge_key, lay_out
from kanmodel.drawing.style import N_COLORS
from kanmodel.explain.functions.curves import EdgeCurve
from kanmodel.explain.topology.graph import NetworkGraph, TopologyEdge, TopologyNode

Color = Literal["score", "contribution"]


@dataclass(frozen=True)
class Scene:
    """A network, ready to be drawn.

    Attributes:
        topology: the network.
        layout: positions of nodes and curves.
        nodes: its nodes by id.
        curves: its kept edges, sampled.
        unit: of the contributions.
        colors: colour indices of the features that contribute most; the others share colour 0.
        by_score: whether a link's opacity shows its score; otherwise its width shows its contribution.
        fold: whether pruned parts are left out and counted.
        bundled: whether kept edges are drawn as links without curves, because there are too many.
    """

    topology: NetworkGraph
    layout: Layout
    nodes: Mapping[str, TopologyNode]
    curves: Mapping[EdgeKey, EdgeCurve]
    unit: str | None
    colors: Mapping[str, int]
    by_score: bool
    fold: bool
    bundled: bool

    @property
    def has_front(self) -> bool:
        """Whether there are layers per step between the features and the head's inputs."""
        return any(row.kind == "front" for row in self.layout.rows)

    def ends(self, edge: TopologyEdge) -> tuple[Point, Point]:
        """The ends of an edge: the top of its source, and the bottom of its target."""
        (x_source, y_source), (x_target, y_target) = self.layout.places[edge.source], self.layout.places[edge.target]
        above = CHIP / 2 if self.is_chip(self.nodes[edge.source]) else 0.0
        below = CHIP / 2 if self.is_chip(self.nodes[edge.target]) else 0.0
        return (x_source, y_source - above), (x_target, y_target + below)

    def is_chip(self, node: TopologyNode) -> bool:
        """Whether a node is a chip with name and profile; otherwise it is a dot."""
        return node.kept and node.kind not in ("feature", "subnode")


def set_scene(
    topology: NetworkGraph, curves: Sequence[EdgeCurve], unit: str | None, fold: bool, color: Color = "score"
) -> Scene:
    """Computes the layout and assigns colours."""
    bundled = not curves and any(edge.kept for edge in topology.kan_edges)
    return Scene(
        topology=topology,
        layout=lay_out(topology, fold, with_curves=not bundled),
        nodes={node.id: node for node in topology.nodes},
        curves={edge_key(curve.edge): curve for curve in curves},
        unit=unit,
        colors=_color_features(topology.nodes),
        by_score=color == "score" and any(edge.opacity is not None for edge in topology.kan_edges),
        fold=fold,
        bundled=bundled,
    )


def _color_features(nodes: Sequence[TopologyNode]) -> dict[str, int]:
    features = [node for node in nodes if node.kind == "feature" and node.kept]
    ranked = sorted(features, key=lambda node: -(node.contribution or 0.0))
    return {node.label: number for number, node in enumerate(ranked[:N_COLORS], start=1)}
