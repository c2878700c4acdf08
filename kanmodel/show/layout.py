"""The layout of a network: layers from bottom to top, and a box for the curve of each kept edge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from operator import sub
from typing import Any

from kanmodel.explain.structure import READOUT_KINDS, EdgeKey
from kanmodel.explain.topology import Topology, TopologyEdge, TopologyNode
from kanmodel.show.svg import MARGIN

HEADER, FOOTER = 98.0, 68.0
LINE = 16.0  # height of a line of text
CAPTIONS, FOLDED = 112.0, 128.0  # widths of the columns beside the layers: captions, and counts of folded nodes
MIN_WIDTH, MAX_WIDTH = 560.0, 1480.0  # width between the two
FEATURE_PITCH, NODE_PITCH, PRUNED_PITCH, MAX_PITCH = 38.0, 78.0, 13.0, 180.0
CHARACTER = 6.6  # width
TILT, SLOPE = 0.7, 0.75  # height and width of a tilted name, of its length
CHIP = 28.0  # height of a node
BOX, SMALL_BOX, N_MANY = 36.0, 22.0, 150  # side of a box, and in a layer with more than `N_MANY` curves
BOX_GAP, MAX_GAP = 10.0, 28.0  # from a box to the next
MIN_LEAD, LEAD_SHARE = 34.0, 22.0  # distance between nodes and boxes: the least, and the width of a fan per pixel of it
INPUT_GAP, STEP_GAP = 130.0, 72.0  # below units or cells: from features, from a front
BUNDLE_GAP = 260.0  # between layers joined by links without curves
LANES = 56.0  # width of the column beside the layers for what passes some of them
FACTORS, FACTOR_PITCH = 28.0, 18.0  # from a product node to its factors, and from one to the next

Point = tuple[float, float]


@dataclass
class Row:
    """A layer of nodes of one kind; of a graph the nodes that are equally far from the features."""

    parts: Sequence[tuple[str, int]]  # kind and layer of its nodes, one except in a graph
    kept: Sequence[TopologyNode]  # in the order of the data
    pruned: Sequence[TopologyNode]
    edges: Sequence[TopologyEdge]  # that enter the nodes of the next row and have a box
    has_factors: bool  # whether some of its nodes are products, with their factors below them
    pruned_width: float  # that the pruned nodes take; 0 if they are folded
    y: float = 0.0  # of its nodes' centres, set by `lay_out`
    pitch: float = 0.0  # from one kept node to the next, likewise

    @property
    def kind(self) -> str:
        """The kind of its nodes, of several the first."""
        return self.parts[0][0]

    @property
    def side(self) -> float:
        """Side of each curve's box."""
        return SMALL_BOX if len(self.edges) > N_MANY else BOX

    @property
    def boxes_width(self) -> float:
        """Width of all boxes in one line."""
        return len(self.edges) * (self.side + BOX_GAP)

    def lines(self, width: float) -> int:
        """Number of lines of boxes."""
        return ceil(self.boxes_width / width)

    def lead(self, width: float) -> float:
        """Distance between nodes and boxes: wide fans need more."""
        return max(MIN_LEAD, min(width, self.boxes_width) / LEAD_SHARE)


@dataclass(frozen=True)
class Box:
    """The position of an edge's curve: its centre, and where it is in a column of boxes."""

    x: float
    y: float
    line: int  # its index in its column, from the bottom
    lines: int  # number of boxes in a column of its layer
    side: float  # width and height
    low: float  # y coordinate of the lower end of its layer's columns
    high: float  # of their upper end


@dataclass(frozen=True)
class Layout:
    """All positions, in pixels from the top left."""

    width: float
    height: float
    left: float  # end of the layers
    right: float
    rows: Sequence[Row]  # from bottom to top
    places: Mapping[str, Point]  # centre of each drawn node and sub-node, by id
    boxes: Mapping[EdgeKey, Box]  # of the kept edges' curves
    lanes: Mapping[tuple[str, str], float]  # x coordinates beside the layers of the edges that pass some, by their ends
    tilted: bool  # whether names of features are tilted, because they are too many or too long
    name_length: int  # most characters of the name of a feature


def lay_out(topology: Topology, fold: bool, with_curves: bool = True) -> Layout:
    """Places the nodes of a network, and `with_curves` a box for the curve of each kept edge.

    Without curves layers are further apart, so that links can be distinguished. With `fold` pruned nodes are only
    counted beside their layer.
    """
    rows, wanted = _group_by_layer(topology, fold, with_curves), [MIN_WIDTH]
    for row in rows:
        pitch = FEATURE_PITCH if row.kind == "feature" else NODE_PITCH
        wanted.append(max(len(row.kept) * pitch + row.pruned_width, row.boxes_width))
    width = min(MAX_WIDTH, max(wanted))
    left, right = MARGIN + CAPTIONS, MARGIN + CAPTIONS + width
    for row in rows:
        row.pitch = min(MAX_PITCH, (width - row.pruned_width) / max(1, len(row.kept)))
    first = rows[0]
    longest = max((len(node.label) for node in first.kept), default=0)
    tilted = longest * CHARACTER > first.pitch
    room = left + (width - first.pruned_width - first.pitch * (len(first.kept) - 1)) / 2 - CHIP
    name_length = int(room / (CHARACTER * SLOPE)) if tilted else longest
    labels = CHIP + (min(longest, name_length) * CHARACTER * TILT if tilted else 0.0)
    links = any(edge.kind == "link" for edge in topology.edges)
    gaps = [_gap(below, above, width, with_curves, links) for below, above in pairwise(rows)]
    footer = FOOTER + (LINE if links else 0.0)
    height = HEADER + sum(gaps) + labels + footer
    for row, y in zip(rows, accumulate(gaps, sub, initial=height - footer - labels), strict=True):
        row.y = y
    places: dict[str, Point] = {}
    for row in rows:
        places |= _place_row(row, left, right, fold)
    places |= _place_factors(topology, places)
    boxes = {key: box for row in rows for key, box in _place_boxes(row, places, width, left, right)}
    level = {node.id: number for number, row in enumerate(rows) for node in (*row.kept, *row.pruned)}
    level |= {edge.source: level[edge.target] for edge in topology.edges if edge.kind == "product"}
    passing = [
        edge for edge in topology.edges if (edge.kept or not fold) and level[edge.target] > level[edge.source] + 1
    ]
    sources = list(dict.fromkeys(edge.source for edge in passing))
    beside_of = {node: right + LANES * (number + 1) / (len(sources) + 1) for number, node in enumerate(sources)}
    lanes = {(edge.source, edge.target): beside_of[edge.source] for edge in passing}
    right += LANES if lanes else 0.0
    beside = FOLDED if fold and any(row.pruned for row in rows) else 0.0
    return Layout(right + beside + MARGIN, height, left, right, rows, places, boxes, lanes, tilted, name_length)


def _group_by_layer(topology: Topology, fold: bool, with_curves: bool) -> list[Row]:
    """Layers from the features to the output; sub-nodes belong to the layer of their node."""
    nodes = [node for node in topology.nodes if node.kind != "subnode"]
    levels = topology.loaded.config.wiring.levels if topology.loaded.config.graph else None
    by_level: dict[Any, list[TopologyNode]] = {}
    for node in nodes:
        place = ("input" if node.kind == "feature" else node.kind, node.layer)
        by_level.setdefault(place if levels is None else levels[place], []).append(node)
    if levels is not None:
        by_level = dict(sorted(by_level.items()))
    level = {node.id: number for number, members in enumerate(by_level.values()) for node in members}
    level |= {edge.source: level[edge.target] for edge in topology.edges if edge.kind == "product"}
    entering: dict[str, dict[int, list[TopologyEdge]]] = {}  # by source and row below the target
    for edge in topology.kan_edges:
        if edge.kept and with_curves:
            entering.setdefault(edge.source, {}).setdefault(level[edge.target] - 1, []).append(edge)
    products = {edge.target for edge in topology.edges if edge.kind == "product"}
    rows = []
    for number, members in enumerate(by_level.values()):
        kept, pruned = ([node for node in members if node.kept == is_kept] for is_kept in (True, False))
        edges = [edge for node in nodes for edge in entering.get(node.id, {}).get(number, ())]
        has_factors = any(node.id in products for node in members)
        parts = list(dict.fromkeys((node.kind, node.layer) for node in members))
        rows.append(Row(parts, kept, pruned, edges, has_factors, 0.0 if fold else len(pruned) * PRUNED_PITCH))
    return rows


def _gap(below: Row, above: Row, width: float, with_curves: bool, links: bool) -> float:
    """Distance from the centre of one layer to that of the next."""
    if above.kind in READOUT_KINDS and not below.edges:
        return STEP_GAP if below.kind == "front" else INPUT_GAP
    if not with_curves:
        return BUNDLE_GAP
    if not below.edges and links:
        return INPUT_GAP
    boxes = below.lines(width) * (below.side + BOX_GAP)
    return CHIP + 2 * below.lead(width) + boxes + (FACTORS if above.has_factors else 0.0)


def _place_row(row: Row, left: float, right: float, fold: bool) -> dict[str, Point]:
    """Positions of the kept nodes, centred, then of the pruned ones, close together."""
    room = right - left - row.pruned_width
    first = left + (room - row.pitch * len(row.kept)) / 2 + row.pitch / 2
    places = {node.id: (first + index * row.pitch, row.y) for index, node in enumerate(row.kept)}
    pruned = () if fold else row.pruned
    return places | {node.id: (left + room + (n + 0.5) * PRUNED_PITCH, row.y) for n, node in enumerate(pruned)}


def _place_factors(topology: Topology, places: Mapping[str, Point]) -> dict[str, Point]:
    """Positions of sub-nodes, side by side below their product node."""
    factors: dict[str, list[str]] = {}
    for edge in topology.edges:
        if edge.kind == "product" and edge.target in places:
            factors.setdefault(edge.target, []).append(edge.source)
    return {
        member: (x + (index - (len(members) - 1) / 2) * FACTOR_PITCH, y + CHIP / 2 + FACTORS - 6)
        for (x, y), members in ((places[product], members) for product, members in factors.items())
        for index, member in enumerate(members)
    }


def _place_boxes(
    row: Row, places: Mapping[str, Point], width: float, left: float, right: float
) -> Iterator[tuple[EdgeKey, Box]]:
    """Places each curve as near as possible to the middle of its edge, in the order of the sources; many in columns."""
    edges = sorted(row.edges, key=lambda edge: (places[edge.source][0], places[edge.target][0]))
    side, lines, low = row.side, row.lines(right - left), row.y - CHIP / 2 - row.lead(width)
    columns = [edges[first : first + lines] for first in range(0, len(edges), max(1, lines))]
    middles = [(places[column[0].source][0] + places[column[-1].target][0]) / 2 for column in columns]
    first, last = left + side / 2, right - side / 2
    pitch = min(side + MAX_GAP, (last - first) / max(1, len(columns) - 1))
    high = low - lines * (side + BOX_GAP) + BOX_GAP
    for x, column in zip(spread(middles, pitch, first, last), columns, strict=True):
        for line, edge in enumerate(column):
            yield edge.key, Box(x, low - side / 2 - line * (side + BOX_GAP), line, lines, side, low, high)


def spread(wanted: Sequence[float], pitch: float, low: float, high: float) -> list[float]:
    """Positions between two, in the order wanted and at least `pitch` apart, nearest in least squares; if they fit."""
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
