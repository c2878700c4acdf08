"""The layout of a network: layers rows from bottom to top or columns from left to right, and a box for each curve.

Everything is placed as if the layers were rows; `Layout.turn` then lays the picture on its side if they are columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from operator import sub
from typing import Any

from kanmodel.network.connections import READOUT_KINDS, EdgeKey
from kanmodel.show.svg import MARGIN
from kanmodel.structure.topology import Topology, TopologyEdge, TopologyNode
from kanmodel.text import shorten_names

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

# Of rows in a given width: what is not that far apart, or has longer names, becomes columns.
LEAST_FEATURE, LEAST_NODE, LEAST_ACROSS, MOST_LINES = 17.0, 48.0, 300.0, 3
# Of columns: from a feature and a node to the next; the margin, what is above the layers and below
FEATURE_LINE, NODE_LINE, MOST_LINE, MOST_NODE, EDGE, ABOVE, BELOW = 18.0, 34.0, 40.0, 90.0, 8.0, 34.0, 44.0
# The least room for the names of features and the output; beside the name of a node, and a feature; of a node
LEAST_NAME, LEAST_OUTPUT, CHIP_ROOM, DOT_ROOM, LEAST_CHIP = 70.0, 48.0, 14.0, 20.0, 34.0
# Room of the output before names of features have more; the share of the width that these have at most
NAMED_OUTPUT, NAME_SHARE = 64.0, 0.36
BENDS, MOST_BENDS = 18.0, 140.0  # least and most length of the links of a gap with boxes, both sides together
LINKS, MOST_LINKS = 30.0, 200.0  # of one without boxes
TIGHT_NAME, TIGHT_LINKS = 44.0, 12.0  # the least room for names, and of links, where the width has none to spare

Point = tuple[float, float]
Command = tuple[str, *tuple[float, ...]]  # of a path: M, L, C, H or V with absolute coordinates


@dataclass
class Row:
    """A layer of nodes of one kind; of a graph the nodes that are equally far from the features."""

    kinds: Sequence[tuple[str, int]]  # kind and layer of its nodes, one except in a graph
    kept: Sequence[TopologyNode]  # in the order of the data
    pruned: Sequence[TopologyNode]
    edges: Sequence[TopologyEdge]  # that enter the nodes of the next row and have a box
    has_factors: bool  # whether some of its nodes are products, with their factors below them
    pruned_width: float  # that the pruned nodes take; 0 if they are folded
    y: float = 0.0  # of its nodes' centres, set by `lay_out`, as are all that follow
    pitch: float = 0.0  # from one kept node to the next
    chip: float = CHIP  # height of its nodes; of a column their width
    lead: float = 0.0  # distance between nodes and boxes
    whole: float = 0.0  # of a column the width in which all names have room

    @property
    def kind(self) -> str:
        """The kind of its nodes, of several the first."""
        return self.kinds[0][0]

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

    def width(self, pitch: float) -> float:
        """Width of its nodes, the kept ones at a distance."""
        return len(self.kept) * pitch + self.pruned_width


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
    """All positions as in rows, in pixels from the top left; `turn` and `path` give those in the picture."""

    width: float  # of the picture
    height: float
    left: float  # ends of the layers
    right: float
    rows: Sequence[Row]  # from the features to the output
    places: Mapping[str, Point]  # centre of each drawn node and sub-node, by id
    boxes: Mapping[EdgeKey, Box]  # of the kept edges' curves
    lanes: Mapping[tuple[str, str], float]  # x coordinates beside the layers of the edges that pass some, by their ends
    tilted: bool  # whether names of features are tilted, because they are too many or too long
    names: Mapping[str, str]  # of features as far as there is room, by their labels
    columns: bool = False  # whether layers are columns

    def turn(self, x: float, y: float) -> Point:
        """A place in the picture."""
        return (self.width - y, x) if self.columns else (x, y)

    def path(self, *commands: Command) -> str:
        """A path in the picture."""
        turned = {"H": "V", "V": "H"} if self.columns else {}
        path = ""
        for name, *at in commands:
            if len(at) == 1:
                x, y = self.turn(*((at[0], 0.0) if name == "H" else (0.0, at[0])))
                name = turned.get(name, name)
                path += f"{name}{x if name == 'H' else y:.1f}"
            else:
                points = [self.turn(x, y) for x, y in zip(at[::2], at[1::2], strict=True)]
                path += name + " ".join(f"{x:.1f} {y:.1f}" for x, y in points)
        return path


def lay_out(topology: Topology, fold: bool, with_curves: bool = True, width: float | None = None) -> Layout:
    """Places the nodes of a network, and `with_curves` a box for the curve of each kept edge.

    Without curves layers are further apart, so that links can be distinguished. With `fold` pruned nodes are only
    counted beside their layer. In a given width layers are rows if names and nodes have room in these, and columns, as
    high as it takes, otherwise; a network of many layers may need more width.
    """
    rows, passing = _group_by_layer(topology, fold, with_curves)
    has_links = any(edge.kind == "link" for edge in topology.edges)
    beside = FOLDED if fold and any(row.pruned for row in rows) else 0.0
    footer = FOOTER + (LINE if has_links else 0.0)
    if width is None:
        pitches = (FEATURE_PITCH if row.kind == "feature" else NODE_PITCH for row in rows)
        wanted = (max(row.width(pitch), row.boxes_width) for row, pitch in zip(rows, pitches, strict=True))
        across = min(MAX_WIDTH, max(MIN_WIDTH, *wanted))
    else:
        across = min(MAX_WIDTH, width - 2 * MARGIN - CAPTIONS - beside - (LANES if passing else 0.0))
        if not _fit_rows(rows, across):
            return _lay_out_columns(topology, rows, passing, fold, footer, width)
    left, right = MARGIN + CAPTIONS, MARGIN + CAPTIONS + across
    for row in rows:
        row.pitch = min(MAX_PITCH, (across - row.pruned_width) / max(1, len(row.kept)))
        row.lead = max(MIN_LEAD, min(across, row.boxes_width) / LEAD_SHARE)  # wide fans need more
    first = rows[0]
    labels = [node.label for node in first.kept]
    tilted = max(map(len, labels), default=0) * CHARACTER > first.pitch
    room = left + (across - first.pruned_width - first.pitch * (len(labels) - 1)) / 2 - CHIP
    names = shorten_names(labels, int(room / (CHARACTER * SLOPE))) if tilted else {name: name for name in labels}
    below = CHIP + (max(map(len, names.values()), default=0) * CHARACTER * TILT if tilted else 0.0)

    def gap(below: Row, above: Row) -> float:
        """Distance from the centre of one layer to that of the next."""
        if above.kind in READOUT_KINDS and not below.edges:
            return STEP_GAP if below.kind == "front" else INPUT_GAP
        if not with_curves:
            return BUNDLE_GAP
        if not below.edges and has_links:
            return INPUT_GAP
        boxes = below.lines(across) * (below.side + BOX_GAP)
        return CHIP + 2 * below.lead + boxes + (FACTORS if above.has_factors else 0.0)

    gaps = [gap(*pair) for pair in pairwise(rows)]
    height = HEADER + sum(gaps) + below + footer
    for row, y in zip(rows, accumulate(gaps, sub, initial=height - footer - below), strict=True):
        row.y = y
    places, boxes, lanes = _place_all(topology, rows, passing, left, right, fold)
    right += LANES if passing else 0.0
    return Layout(right + beside + MARGIN, height, left, right, rows, places, boxes, lanes, tilted, names)


def _fit_rows(rows: Sequence[Row], across: float) -> bool:
    """Whether names and nodes of rows have room side by side, and curves are in few lines."""
    first, *others = rows
    longest = max((len(node.label) for node in first.kept), default=0)
    return (
        across >= LEAST_ACROSS
        and first.width(LEAST_FEATURE) <= across
        and longest * CHARACTER * SLOPE <= CAPTIONS
        and all(row.width(LEAST_NODE) <= across for row in others)
        and all(row.lines(across) <= MOST_LINES for row in rows)
    )


def _lay_out_columns(
    topology: Topology, rows: Sequence[Row], passing: Sequence[TopologyEdge], fold: bool, footer: float, width: float
) -> Layout:
    """The layers from left to right, in a width if that is possible, as high as their nodes and curves take."""
    (first, *others), last = rows, rows[-1]
    first.pitch, first.chip = FEATURE_LINE, DOT_ROOM
    for row in others:
        row.pitch, written = NODE_LINE, [node.label for node in row.kept] or [""]
        row.whole = max(map(len, written)) * (CHARACTER + 0.6) + CHIP_ROOM
        numbers = max(len(name.rsplit(" ", 1)[-1]) for name in written)
        row.chip = max(LEAST_CHIP, numbers * (CHARACTER + 0.6) + CHIP_ROOM)
    last.chip = min(last.whole, LEAST_OUTPUT)
    labels = [node.label for node in first.kept]
    longest = CHARACTER * max(map(len, labels), default=0)
    named, least = min(longest, LEAST_NAME), LINKS
    across = max(LEAST_ACROSS, *(row.width(row.pitch) for row in rows))

    def measure() -> list[float]:
        """The least distance of each layer to the next."""
        gaps = []
        for below, above in pairwise(rows):
            boxes = below.lines(across) * (below.side + BOX_GAP) - BOX_GAP + BENDS if below.edges else least
            gaps.append((below.chip + above.chip) / 2 + boxes + (FACTORS if above.has_factors else 0.0))
        return gaps

    def find_spare() -> float:
        return width - 2 * EDGE - named - (first.chip + last.chip) / 2 - sum(measure())

    while find_spare() < 0 and any(row.edges and row.lines(across) > 1 for row in rows):
        across += BOX + BOX_GAP  # higher columns, so that fewer are side by side
    if (spare := find_spare()) < 0:
        named = max(min(named, TIGHT_NAME), named + spare)
        bundles = sum(not below.edges for below in rows[:-1])
        least = max(TIGHT_LINKS, LINKS + min(0.0, find_spare()) / bundles) if bundles else LINKS
    last.chip += max(0.0, min(find_spare(), min(last.whole, NAMED_OUTPUT) - last.chip))
    # First the names of features have more room, then those of nodes.
    named += max(0.0, min(find_spare(), longest - named, NAME_SHARE * width - named))
    names = shorten_names(labels, int(named / CHARACTER) - (named < longest))
    named = min(named, CHARACTER * (1 + max(map(len, names.values()), default=0)))  # an ellipsis is wider than a letter
    for row in reversed(others):
        more = row.whole - row.chip
        row.chip += more if 0 < more <= find_spare() else 0.0
    most = [MOST_BENDS - BENDS if below.edges else MOST_LINKS - least for below in rows[:-1]]
    share, gaps = min(1.0, max(0.0, find_spare()) / sum(most)), measure()
    for row, more in zip(rows, most, strict=False):
        row.lead = (BENDS + more * share) / 2
    gaps = [gap + more * share for gap, more in zip(gaps, most, strict=True)]
    start = EDGE + named + first.chip / 2
    breadth = max(width, start + sum(gaps) + last.chip / 2 + EDGE)
    start += (breadth - EDGE - last.chip / 2 - sum(gaps) - start) / 2  # in the middle
    for row, x in zip(rows, accumulate(gaps, initial=start), strict=True):
        row.y = breadth - x
        most_pitch = MOST_LINE if row.kind == "feature" else MOST_NODE
        row.pitch = min(most_pitch, (across - row.pruned_width) / max(1, len(row.kept)))
    left = HEADER + ABOVE
    places, boxes, lanes = _place_all(topology, rows, passing, left, left + across, fold)
    right = left + across + (LANES if passing else 0.0)
    height = right + (BELOW if any(row.pruned for row in rows) else 0.0) + footer
    return Layout(breadth, height, left, right, rows, places, boxes, lanes, False, names, columns=True)


def _group_by_layer(topology: Topology, fold: bool, with_curves: bool) -> tuple[list[Row], list[TopologyEdge]]:
    """Layers from the features to the output, with sub-nodes in that of their node; and the edges that pass some."""
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
    entering: dict[tuple[str, int], list[TopologyEdge]] = {}  # by source and row below the target
    for edge in topology.kan_edges:
        if edge.kept and with_curves:
            entering.setdefault((edge.source, level[edge.target] - 1), []).append(edge)
    products = {edge.target for edge in topology.edges if edge.kind == "product"}
    rows = []
    for number, members in enumerate(by_level.values()):
        kept, pruned = ([node for node in members if node.kept == is_kept] for is_kept in (True, False))
        edges = [edge for node in nodes for edge in entering.get((node.id, number), ())]
        has_factors = any(node.id in products for node in members)
        kinds = list(dict.fromkeys((node.kind, node.layer) for node in members))
        rows.append(Row(kinds, kept, pruned, edges, has_factors, 0.0 if fold else len(pruned) * PRUNED_PITCH))
    drawn = (edge for edge in topology.edges if edge.kept or not fold)
    return rows, [edge for edge in drawn if level[edge.target] > level[edge.source] + 1]


def _place_all(
    topology: Topology, rows: Sequence[Row], passing: Sequence[TopologyEdge], left: float, right: float, fold: bool
) -> tuple[dict[str, Point], dict[EdgeKey, Box], dict[tuple[str, str], float]]:
    """The places of nodes, boxes and lanes, of rows that know where they are.

    Kept nodes are centred, pruned ones close together after them, sub-nodes side by side below their product node.
    """
    places: dict[str, Point] = {}
    for row in rows:
        room = right - left - row.pruned_width
        first = left + (room - row.pitch * len(row.kept)) / 2 + row.pitch / 2
        places |= {node.id: (first + index * row.pitch, row.y) for index, node in enumerate(row.kept)}
        pruned = () if fold else row.pruned
        places |= {node.id: (left + room + (n + 0.5) * PRUNED_PITCH, row.y) for n, node in enumerate(pruned)}
    chips = {node.id: row.chip for row in rows for node in row.kept}
    factors: dict[str, list[str]] = {}
    for edge in topology.edges:
        if edge.kind == "product" and edge.target in places:
            factors.setdefault(edge.target, []).append(edge.source)
    for product, members in factors.items():
        (x, y), chip = places[product], chips.get(product, CHIP)
        for index, member in enumerate(members):
            away = (index - (len(members) - 1) / 2) * FACTOR_PITCH
            places[member] = x + away, y + chip / 2 + FACTORS - 6
    boxes = {key: box for row in rows for key, box in _place_boxes(row, places, left, right)}
    sources = list(dict.fromkeys(edge.source for edge in passing))
    lanes = {node: right + LANES * (number + 1) / (len(sources) + 1) for number, node in enumerate(sources)}
    return places, boxes, {(edge.source, edge.target): lanes[edge.source] for edge in passing}


def _place_boxes(row: Row, places: Mapping[str, Point], left: float, right: float) -> Iterator[tuple[EdgeKey, Box]]:
    """Places each curve as near as possible to the middle of its edge, in the order of the sources; many in columns."""
    edges = sorted(row.edges, key=lambda edge: (places[edge.source][0], places[edge.target][0]))
    side, lines, low = row.side, row.lines(right - left), row.y - row.chip / 2 - row.lead
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
