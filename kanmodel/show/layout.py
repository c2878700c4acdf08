"""The layout of a network: layers from bottom to top, and a box for the curve of each kept edge.

`Scene`: the data that all parts of a network's picture share: layout, curves, colours and options.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from typing import Literal

from kanmodel.explain.curves import EdgeCurve
from kanmodel.explain.structure import READOUT_KINDS
from kanmodel.explain.topology import NetworkGraph, TopologyEdge, TopologyNode
from kanmodel.show.style import N_COLORS

MARGIN = 24.0
HEADER, FOOTER = 98.0, 68.0
CAPTIONS, FOLDED = 112.0, 128.0  # widths of the columns beside the layers: captions, and counts of folded nodes
MIN_WIDTH, MAX_WIDTH = 560.0, 1480.0  # width between the two
FEATURE_PITCH, NODE_PITCH, PRUNED_PITCH, MAX_PITCH = 38.0, 78.0, 13.0, 180.0
CHARACTER = 6.6  # width
TILT = 0.7  # height of a tilted name, of its length
CHIP = 28.0  # height of a node
BOX, SMALL_BOX, N_MANY = 36.0, 22.0, 150  # side of a box, and in a layer with more than `N_MANY` curves
BOX_GAP, MAX_GAP = 10.0, 28.0  # from a box to the next
MIN_LEAD, LEAD_SHARE = 34.0, 22.0  # distance between nodes and boxes: the least, and the width of a fan per pixel of it
INPUT_GAP, STEP_GAP = 130.0, 72.0  # below units or cells: from features, from a front
BUNDLE_GAP = 260.0  # between layers joined by links without curves
SLOPE = 0.75  # width of a tilted name, of its length
FACTORS, FACTOR_PITCH = 28.0, 18.0  # from a product node to its factors, and from one to the next

Point = tuple[float, float]
EdgeKey = tuple[str, int, int, int]  # stage, layer, i, j


@dataclass(frozen=True)
class Row:
    """A layer.

    Attributes:
        kind: of its nodes.
        layer: its index within its stage.
        kept: kept nodes, in the order of the data.
        pruned: pruned nodes.
        y: of their centres.
        pitch: distance from one kept node to the next.
    """

    kind: str
    layer: int
    kept: Sequence[TopologyNode]
    pruned: Sequence[TopologyNode]
    y: float
    pitch: float


@dataclass(frozen=True)
class Box:
    """The position of an edge's curve.

    Attributes:
        x: of its centre.
        y: of its centre.
        line: its index in its column, from the bottom.
        lines: number of boxes in a column of its layer.
        side: width and height.
        low: y coordinate of the lower end of its layer's columns.
        high: y coordinate of their upper end.
    """

    x: float
    y: float
    line: int
    lines: int
    side: float
    low: float
    high: float


@dataclass(frozen=True)
class Layout:
    """All positions, in pixels from the top left.

    Attributes:
        width: of the picture.
        height: of the picture.
        left: left end of the layers.
        right: right end of the layers.
        rows: the layers, from bottom to top.
        places: centre of each drawn node and sub-node, by id.
        boxes: boxes of the kept edges' curves.
        tilted: whether names of features are tilted, because they are too many or too long.
        name_length: most characters of the name of a feature.
    """

    width: float
    height: float
    left: float
    right: float
    rows: Sequence[Row]
    places: Mapping[str, Point]
    boxes: Mapping[EdgeKey, Box]
    tilted: bool
    name_length: int


@dataclass(frozen=True)
class _Layer:
    """A layer that has no position yet; `edges` are the kept ones that leave it."""

    kind: str
    number: int
    kept: Sequence[TopologyNode]
    pruned: Sequence[TopologyNode]
    edges: Sequence[TopologyEdge]
    has_factors: bool

    @property
    def side(self) -> float:
        """Side of each curve's box."""
        return SMALL_BOX if len(self.edges) > N_MANY else BOX

    def lines(self, width: float) -> int:
        """Number of lines of boxes."""
        return ceil(len(self.edges) * (self.side + BOX_GAP) / width)

    def lead(self, width: float) -> float:
        """Distance between nodes and boxes: wide fans need more."""
        return max(MIN_LEAD, min(width, len(self.edges) * (self.side + BOX_GAP)) / LEAD_SHARE)


def edge_key(edge: TopologyEdge) -> EdgeKey:
    """The key of an edge within its network."""
    return edge.stage, edge.layer, edge.i, edge.j


def lay_out(topology: NetworkGraph, fold: bool, with_curves: bool = True) -> Layout:
    """Places the nodes and curves of a network.

    Args:
        topology: the network.
        fold: whether pruned nodes are only counted beside their layer.
        with_curves: whether there is a box for the curve of each kept edge; otherwise layers are further apart, so that
            links can be distinguished.
    """
    layers = _group_by_layer(topology, with_curves)
    width = min(MAX_WIDTH, max(MIN_WIDTH, *(_wanted_width(layer, fold) for layer in layers)))
    left, right = MARGIN + CAPTIONS, MARGIN + CAPTIONS + width
    pitches = [_pitch(layer, width, fold) for layer in layers]
    longest = max((len(node.label) for node in layers[0].kept), default=0)
    tilted = longest * CHARACTER > pitches[0]
    beside_first = (width - _pruned_width(layers[0], fold) - pitches[0] * (len(layers[0].kept) - 1)) / 2
    room = left + beside_first - CHIP
    name_length = int(room / (CHARACTER * SLOPE)) if tilted else longest
    labels = CHIP + (min(longest, name_length) * CHARACTER * TILT if tilted else 0.0)
    gaps = [_gap(below, above, width, with_curves) for below, above in pairwise(layers)]
    height = HEADER + sum(gaps) + labels + FOOTER
    ys = accumulate(gaps, lambda y, gap: y - gap, initial=height - FOOTER - labels)
    rows = [
        Row(layer.kind, layer.number, layer.kept, layer.pruned, y, pitch)
        for layer, y, pitch in zip(layers, ys, pitches, strict=True)
    ]
    places = {identity: point for row in rows for identity, point in _place_row(row, left, right, fold)}
    places.update(_place_factors(topology, places))
    boxes = {
        key: box
        for layer, row in zip(layers, rows, strict=True)
        for key, box in _place_boxes(layer, places, row.y - CHIP / 2 - layer.lead(width), left, right)
    }
    beside = FOLDED if fold and any(layer.pruned for layer in layers) else 0.0
    return Layout(right + beside + MARGIN, height, left, right, rows, places, boxes, tilted, name_length)


def spread(wanted: Sequence[float], pitch: float, low: float, high: float) -> list[float]:
    """Positions at least `pitch` apart, in the given order, and nearest to the wanted ones in least squares.

    Args:
        wanted: the wanted positions, in order.
        pitch: smallest distance.
        low: smallest position.
        high: largest position; there must be enough space.
    """
    blocks: list[tuple[float, int]] = []  # touching positions: mean wanted position of their first, count
    for index, x in enumerate(wanted):
        mean, count = x - index * pitch, 1
        while blocks and blocks[-1][0] >= mean:
            before, n_before = blocks.pop()
            mean, count = (before * n_before + mean * count) / (n_before + count), n_before + count
        blocks.append((mean, count))
    starts = [mean for mean, count in blocks for _ in range(count)]
    last = high - (len(wanted) - 1) * pitch
    return [min(max(start, low), last) + index * pitch for index, start in enumerate(starts)]


def _group_by_layer(topology: NetworkGraph, with_curves: bool) -> list[_Layer]:
    """Layers from the features to the output; sub-nodes belong to the layer of their node."""
    nodes: dict[tuple[str, int], list[TopologyNode]] = {}
    for node in topology.nodes:
        if node.kind != "subnode":
            nodes.setdefault((node.kind, node.layer), []).append(node)
    leaving: dict[str, list[TopologyEdge]] = {}
    for edge in topology.kan_edges:
        if edge.kept and with_curves:
            leaving.setdefault(edge.source, []).append(edge)
    products = {edge.target for edge in topology.edges if edge.kind == "product"}
    return [
        _Layer(
            kind=kind,
            number=number,
            kept=[node for node in members if node.kept],
            pruned=[node for node in members if not node.kept],
            edges=[edge for node in members for edge in leaving.get(node.id, ())],
            has_factors=any(node.id in products for node in members),
        )
        for (kind, number), members in nodes.items()
    ]


def _wanted_width(layer: _Layer, fold: bool) -> float:
    pitch = FEATURE_PITCH if layer.kind == "feature" else NODE_PITCH
    return max(len(layer.kept) * pitch + _pruned_width(layer, fold), len(layer.edges) * (layer.side + BOX_GAP))


def _pruned_width(layer: _Layer | Row, fold: bool) -> float:
    return 0.0 if fold else len(layer.pruned) * PRUNED_PITCH


def _pitch(layer: _Layer, width: float, fold: bool) -> float:
    return min(MAX_PITCH, (width - _pruned_width(layer, fold)) / max(1, len(layer.kept)))


def _gap(below: _Layer, above: _Layer, width: float, with_curves: bool) -> float:
    """Distance from the centre of one layer to that of the next."""
    if above.kind in READOUT_KINDS:
        return INPUT_GAP if below.kind == "feature" else STEP_GAP
    if not with_curves:
        return BUNDLE_GAP
    boxes = below.lines(width) * (below.side + BOX_GAP)
    return CHIP + 2 * below.lead(width) + boxes + (FACTORS if above.has_factors else 0.0)


def _place_row(row: Row, left: float, right: float, fold: bool) -> Iterable[tuple[str, Point]]:
    """Positions of the kept nodes, centred, then of the pruned ones, close together."""
    room = right - left - _pruned_width(row, fold)
    first = left + (room - row.pitch * len(row.kept)) / 2 + row.pitch / 2
    for index, node in enumerate(row.kept):
        yield node.id, (first + index * row.pitch, row.y)
    for index, node in enumerate(() if fold else row.pruned):
        yield node.id, (left + room + (index + 0.5) * PRUNED_PITCH, row.y)


def _place_factors(topology: NetworkGraph, places: Mapping[str, Point]) -> Iterable[tuple[str, Point]]:
    """Positions of sub-nodes, side by side below their product node."""
    factors: dict[str, list[str]] = {}
    for edge in topology.edges:
        if edge.kind == "product" and edge.target in places:
            factors.setdefault(edge.target, []).append(edge.source)
    for product, members in factors.items():
        x, y = places[product]
        for index, member in enumerate(members):
            yield member, (x + (index - (len(members) - 1) / 2) * FACTOR_PITCH, y + CHIP / 2 + FACTORS - 6)


def _place_boxes(
    layer: _Layer, places: Mapping[str, Point], low: float, left: float, right: float
) -> Iterable[tuple[EdgeKey, Box]]:
    """Places each curve as near as possible to the middle of its edge, in the order of the sources; many in columns."""
    edges = sorted(layer.edges, key=lambda edge: (places[edge.source][0], places[edge.target][0]))
    side, lines = layer.side, layer.lines(right - left)
    columns = [edges[first : first + lines] for first in range(0, len(edges), max(1, lines))]
    middles = [(places[column[0].source][0] + places[column[-1].target][0]) / 2 for column in columns]
    first, last = left + side / 2, right - side / 2
    pitch = min(side + MAX_GAP, (last - first) / max(1, len(columns) - 1))
    high = low - lines * (side + BOX_GAP) + BOX_GAP
    for x, column in zip(spread(middles, pitch, first, last), columns, strict=True):
        for line, edge in enumerate(column):
            yield edge_key(edge), Box(x, low - side / 2 - line * (side + BOX_GAP), line, lines, side, low, high)


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
