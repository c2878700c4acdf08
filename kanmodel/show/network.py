"""The picture of a network, as in pykan's plot: features at the bottom, the output on top, a curve on each edge.

The links between nodes, and the curve of each kept edge in its box.

The nodes of a network: features as dots, other nodes as chips with the bar of their profile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from xml.etree.ElementTree import Element

import numpy as np

from kanmodel.data import Array
from kanmodel.explain.curves import EdgeCurve
from kanmodel.explain.result import Theme
from kanmodel.explain.structure import READOUT_KINDS
from kanmodel.explain.topology import NetworkGraph, TopologyEdge, TopologyNode
from kanmodel.show.layout import (
    BOX_GAP,
    CHARACTER,
    CHIP,
    FOLDED,
    MARGIN,
    STEP_GAP,
    Box,
    Color,
    Layout,
    Point,
    Row,
    Scene,
    edge_key,
    set_scene,
)
from kanmodel.show.svg import (
    add,
    add_group,
    add_name,
    new_picture,
    serialise,
    shorten,
    tell_cost,
    tell_edge,
    tell_node,
    write_points,
)

PADDING = 4.0  # between a curve and its box
LINK = 1.4  # width, if opacity shows the score
THIN, THICK = 0.5, 5.0  # width by contribution
INPUT_THICK, INPUT_OPACITY = 9.0, 0.45  # width and opacity of a link from a feature with a share of 1
BEHIND_OPACITY = 0.12  # opacity of such links if there is a front in between
FAINT, FAINT_OPACITY, FAINT_INPUT_OPACITY = 0.6, 0.3, 0.07  # of pruned links
WEAKEST = 0.06  # opacity of the weakest of many links without curves
MIN_CURVE = 0.4  # opacity of a curve with a low score, so that it stays legible


def draw_links(root: Element, scene: Scene) -> None:
    """Draws all edges except folded ones, kept edges on top."""
    kept = [edge for edge in scene.topology.kan_edges if edge.kept]
    largest = max((edge.contribution or 0.0 for edge in kept), default=0.0)
    strongest = max((_worth(edge, scene.by_score) for edge in kept), default=0.0)
    for edge in sorted(scene.topology.edges, key=lambda edge: _depth(edge, scene)):
        if scene.fold and not edge.kept:
            continue
        curve = scene.curves.get(edge_key(edge)) if edge.kind == "edge" else None
        group = _add_edge(root, edge, curve, scene.unit)
        source, target = scene.ends(edge)
        if not edge.kept:
            opacity = FAINT_INPUT_OPACITY if edge.kind == "input" else FAINT_OPACITY
            _draw_link(group, _join(source, target), FAINT, opacity, "link pale-link")
        elif edge.kind == "input":
            color = scene.colors.get(scene.nodes[edge.source].label, 0)
            opacity = BEHIND_OPACITY if scene.has_front else INPUT_OPACITY
            _draw_link(group, _join(source, target), INPUT_THICK * (edge.share or 0.0), opacity, f"link s{color}")
        elif scene.bundled and edge.kind == "edge":
            part = _worth(edge, scene.by_score) / strongest if strongest else 0.0
            _draw_link(group, _join(source, target), THIN + (THICK - THIN) * part, WEAKEST + (1 - WEAKEST) * part)
        elif curve is None:
            _draw_link(group, _join(source, target), LINK, 1.0)
        else:
            box = scene.layout.boxes[edge_key(edge)]
            width, opacity = _strength(edge, scene.by_score, largest)
            _draw_link(group, _join_through(source, box, target), width, opacity)
            _draw_box(group, box, curve, opacity)


def _depth(edge: TopologyEdge, scene: Scene) -> tuple[bool, bool, float]:
    """Sort key of drawing: kept edges above pruned ones, and of many links the strong above the weak."""
    worth = _worth(edge, scene.by_score) if scene.bundled and edge.kind == "edge" else 0.0
    return edge.kept, edge.kind != "input", worth


def _worth(edge: TopologyEdge, by_score: bool) -> float:
    """The value shown by the strength of a link without a curve."""
    if by_score:
        return edge.scores["backward"] if edge.scores else 0.0
    return edge.contribution or 0.0


def _add_edge(root: Element, edge: TopologyEdge, curve: EdgeCurve | None, unit: str | None) -> Element:
    """The group of an edge. Only edges with a function can be focused, because a feature has a link to every unit."""
    return add_group(
        root,
        tell_edge(edge, curve, unit),
        class_=f"edge {edge.kind}" if edge.kept else f"edge {edge.kind} pruned",
        data_source=edge.source,
        data_target=edge.target,
        data_kind=edge.kind,
        data_stage=edge.stage,
        data_layer=edge.layer,
        data_i=edge.i,
        data_j=edge.j,
        data_kept=edge.kept,
        tabindex=0 if edge.kind == "edge" else -1,
    )


def _strength(edge: TopologyEdge, by_score: bool, largest: float) -> tuple[float, float]:
    """Width and opacity of a kept edge."""
    if by_score:
        return LINK, 1.0 if edge.opacity is None else edge.opacity
    return THIN + (THICK - THIN) * ((edge.contribution or 0.0) / largest if largest else 0.0), 1.0


def _draw_link(group: Element, path: str, width: float, opacity: float, class_: str = "link") -> None:
    add(group, "path", class_=class_, d=path, stroke_width=width, opacity=opacity)


def _join(source: Point, target: Point) -> str:
    """A path with vertical ends from one place to the other."""
    (x, y), (x_target, y_target) = source, target
    middle = (y + y_target) / 2
    return f"M{x:.1f} {y:.1f}C{x:.1f} {middle:.1f} {x_target:.1f} {middle:.1f} {x_target:.1f} {y_target:.1f}"


def _join_through(source: Point, box: Box, target: Point) -> str:
    """A path through a box; in a column it passes the boxes below and above on the side, and enters from the left."""
    if box.lines == 1:
        return _join(source, (box.x, box.low)) + _join((box.x, box.high), target)
    lane = BOX_GAP / 2 / (box.lines + 1)
    left = box.x - box.side / 2 - lane * (box.line + 1)
    right = box.x + box.side / 2 + lane * (box.lines - box.line)
    inward = f"V{box.y:.1f}H{box.x - box.side / 2:.1f}"
    outward = f"M{box.x + box.side / 2:.1f} {box.y:.1f}H{right:.1f}V{box.high:.1f}"
    return _join(source, (left, box.low)) + inward + outward + _join((right, box.high), target)


def _draw_box(group: Element, box: Box, curve: EdgeCurve, opacity: float) -> None:
    """Draws the function of an edge, fitted into its box."""
    side, inner = box.side, box.side - 2 * PADDING
    x, y = box.x - side / 2, box.y - side / 2
    add(group, "rect", class_="box", x=x, y=y, width=side, height=side, rx=4, stroke_opacity=max(opacity, MIN_CURVE))
    xs = x + PADDING + _fit(curve.x) * inner
    ys = y + side - PADDING - _fit(curve.y) * inner
    opacity = MIN_CURVE + (1 - MIN_CURVE) * opacity
    add(group, "polyline", class_="curve", points=write_points(xs.tolist(), ys.tolist()), opacity=opacity)


def _fit(values: Array) -> Array:
    """Values scaled to 0 to 1; 0.5 if they are all equal."""
    span = float(np.ptp(values))
    return (values - values.min()) / span if span > 0 else np.full_like(values, 0.5)


DOT, MIN_DOT = 8.0, 2.0  # radius of the feature that contributes most, and the smallest radius
SMALL_DOT = 3.0  # radius of sub-nodes and pruned nodes
BAR = 5.0  # height of a profile
MIN_CHIP, CHIP_GAP = 46.0, 6.0  # usual width of a chip, and distance to the next
CHIP_PADDING, CHIP_CHARACTER = 14.0, CHARACTER + 0.6  # padding of both sides together, and width of a character


def draw_nodes(root: Element, scene: Scene) -> None:
    """Draws all nodes except folded ones."""
    layout = scene.layout
    rooms = {
        node.id: (layout.right - layout.left) / len(row.kept) if row.kind == "output" else row.pitch
        for row in layout.rows
        for node in row.kept
    }
    products = {edge.target for edge in scene.topology.edges if edge.kind == "product"}
    largest = max((node.contribution or 0.0 for node in scene.topology.nodes if node.kind == "feature"), default=0.0)
    for node in scene.topology.nodes:
        if scene.fold and not node.kept:
            continue
        place = scene.layout.places[node.id]
        group = _add_node(root, node, scene.unit)
        if scene.is_chip(node):
            _draw_chip(group, node, place, rooms[node.id], node.id in products, scene.colors)
        elif node.kind == "feature" and node.kept:
            radius = DOT * sqrt((node.contribution or 0.0) / largest) if largest else SMALL_DOT
            _draw_dot(group, place, max(radius, MIN_DOT), f"f{scene.colors.get(node.label, 0)}")
            _draw_name(group, shorten(node.label, scene.layout.name_length), place, scene.layout.tilted)
        else:
            _draw_dot(group, place, SMALL_DOT, "dot" if node.kept else "dot pale")


def _add_node(root: Element, node: TopologyNode, unit: str | None) -> Element:
    return add_group(
        root,
        tell_node(node, unit),
        class_=f"node {node.kind}" if node.kept else f"node {node.kind} pruned",
        data_node=node.id,
        data_kept=node.kept,
        tabindex=0,
    )


def _draw_dot(group: Element, place: Point, radius: float, class_: str) -> None:
    """A dot, with a larger invisible target for pointers."""
    add(group, "circle", class_="hit", cx=place[0], cy=place[1], r=DOT + 2)
    add(group, "circle", class_=class_, cx=place[0], cy=place[1], r=radius)


def _draw_name(group: Element, name: str, place: Point, tilted: bool) -> None:
    x, y = place
    if tilted:
        add(group, "text", name, class_="end", transform=f"translate({x + 4:.1f} {y + 18:.1f}) rotate(-42)")
    else:
        add(group, "text", name, class_="middle", x=x, y=y + 24)


def _draw_chip(
    group: Element, node: TopologyNode, place: Point, room: float, product: bool, colors: Mapping[str, int]
) -> None:
    x, y = place
    name = f"× {node.label}" if product else node.label
    if node.kind == "output":
        name = shorten(name, int((room - CHIP_GAP - CHIP_PADDING) / CHIP_CHARACTER))
    elif len(name) * CHARACTER > room - CHIP_GAP:
        name = shorten(node.label.rsplit(" ", 1)[-1])  # its numbers
    width = min(max(MIN_CHIP, len(name) * CHIP_CHARACTER + CHIP_PADDING), room - CHIP_GAP)
    solid, bar = node.kind == "output", bool(node.profile) and node.kind != "output"
    chip, text = ("chip solid", "middle on-solid") if solid else ("chip", "middle")
    add(group, "rect", class_=chip, x=x - width / 2, y=y - CHIP / 2, width=width, height=CHIP, rx=6)
    add(group, "text", name, class_=text, x=x, y=y + (1 if bar else 4))
    if bar:
        _draw_profile(group, node.profile, (x - width / 2 + 5, y + CHIP / 2 - BAR - 3), width - 10, colors)


def _draw_profile(
    group: Element, profile: Mapping[str, float], corner: Point, width: float, colors: Mapping[str, int]
) -> None:
    """A stacked bar of the shares of the coloured features, then of all others."""
    x, y = corner
    shares = [(number, profile.get(name, 0.0)) for name, number in colors.items()]
    shares.append((0, 1 - sum(share for _, share in shares)))
    for number, share in shares:
        add(group, "rect", class_=f"f{number}", x=x, y=y, width=max(0.0, share * width), height=BAR)
        x += share * width


N_POINTS = 25  # points of a curve, enough for its box
N_CURVES = 300  # most curves of a picture: of more kept edges only links are drawn
N_LINKS = 5000  # most links of each kind; of more, only the strongest are drawn
LINE = 16.0  # height of a line of text
HEADING = 8.6  # width of a character of the heading
BAND = 8.0  # margin of the background of units
CAPTIONS = {
    "feature": "features",
    "front": "front layer {}",
    "lstm": "LSTM units",
    "gru": "GRU units",
    "cell": "all steps",
    "head": "hidden layer {}",
    "output": "output",
}


def select_part(topology: NetworkGraph, through: str | None, pruned: bool) -> NetworkGraph:
    """The part of a network upstream of its output, or of that the part on the paths through a node.

    Args:
        topology: the network.
        through: id of the node; None for all.
        pruned: whether paths follow only kept edges.

    Raises:
        UnknownNameError: there is no such node.
    """
    part = topology.upstream()
    return part if through is None else part.through(through, only_kept=pruned)


def curved_edges(part: NetworkGraph) -> list[TopologyEdge]:
    """The edges whose functions are drawn: the kept ones, or none if there are more than `N_CURVES`."""
    kept = [edge for edge in part.kan_edges if edge.kept]
    return kept if len(kept) <= N_CURVES else []


def count_links(part: NetworkGraph, pruned: bool) -> int:
    """How many edges of a part are drawn, of which `limit_links` chooses the strongest."""
    return sum(min(count, N_LINKS) for count in _drawn_by_kind(part, pruned).values())


def limit_links(part: NetworkGraph, pruned: bool, n_links: int = N_LINKS) -> NetworkGraph:
    """A part of a network with at most `n_links` edges of each kind: kept ones first, by contribution or share.

    Args:
        part: the part.
        pruned: whether only kept edges are drawn.
        n_links: most edges of a kind.
    """
    counts = _drawn_by_kind(part, pruned)
    if all(count <= n_links for count in counts.values()):
        return part
    drawn = [edge for edge in part.edges if edge.kept or not pruned]
    drawn.sort(key=lambda edge: (edge.kept, edge.contribution or edge.share or 0.0), reverse=True)
    strongest = {id(edge) for kind in counts for edge in [edge for edge in drawn if edge.kind == kind][:n_links]}
    return replace(part, edges=tuple(edge for edge in part.edges if id(edge) in strongest))


def _drawn_by_kind(part: NetworkGraph, pruned: bool) -> Counter[str]:
    return Counter(edge.kind for edge in part.edges if edge.kept or not pruned)


def draw_topology(
    topology: NetworkGraph,
    curves: Sequence[EdgeCurve],
    name: str,
    unit: str | None,
    pruned: bool = True,
    color: Color = "score",
    theme: Theme = "auto",
    through: str | None = None,
    n_links: int = N_LINKS,
) -> bytes:
    """Draws a network as SVG.

    Args:
        topology: the network.
        curves: its `curved_edges`, sampled.
        name: name of the model.
        unit: of the contributions.
        pruned: whether pruned nodes are folded into one counted group per layer; otherwise they are drawn faintly.
        color: what the strength of an edge shows: its score, by opacity, as in pykan; or its contribution, by width.
            Without scores it is the contribution.
        theme: colours.
        through: id of a node; only the paths through it are drawn.
        n_links: most links of each kind that are drawn.

    Raises:
        UnknownNameError: there is no such node.
    """
    whole = select_part(topology, through, pruned)
    part = limit_links(whole, pruned, n_links)
    scene = set_scene(part, curves, unit, fold=pruned, color=color)
    layout, heading, cost = scene.layout, f"{name}: {topology.output}", tell_cost(topology.upstream(), unit)
    if through is not None:
        heading += f", the paths through {scene.nodes[through].label}"
    # The role "img" would hide nodes and edges from screen readers.
    root = new_picture(layout.width, layout.height, heading, cost, role="graphics-document document")
    add_name(root, heading, int(layout.width / HEADING), x=MARGIN, y=36.0, class_="heading")
    add(root, "text", cost, x=MARGIN, y=57.0, class_="cost muted")
    for row in layout.rows:
        _draw_caption(root, layout, row, of_all=through is None)
    if scene.has_front and any(row.kind in READOUT_KINDS for row in layout.rows):
        _draw_steps(root, layout)
    draw_links(root, scene)
    draw_nodes(root, scene)
    if scene.fold:
        for row in layout.rows:
            _draw_folded(root, layout, row)
    _draw_legend(root, scene, None if part is whole else n_links)
    return serialise(root, theme)


def _draw_caption(root: Element, layout: Layout, row: Row, of_all: bool) -> None:
    """The name of a layer, its number of kept nodes, and the background of the head's inputs."""
    if row.kind in READOUT_KINDS:
        top, width, height = row.y - CHIP / 2 - BAND, layout.right - MARGIN, CHIP + 2 * BAND
        add(root, "rect", class_="band", x=MARGIN, y=top, width=width, height=height, rx=8)
    add(root, "text", CAPTIONS[row.kind].format(row.layer), x=MARGIN + 8, y=row.y - 2)
    kept = f"{len(row.kept)} of {len(row.kept) + len(row.pruned)} kept" if of_all else f"{len(row.kept)} kept"
    add(root, "text", kept, x=MARGIN + 8, y=row.y + 12, class_="muted")


def _draw_steps(root: Element, layout: Layout) -> None:
    """The arrow from a front, which is applied at every step, to the head's inputs."""
    front = [row for row in layout.rows if row.kind == "front"][-1]
    for node in front.kept:
        x, y = layout.places[node.id]
        length = STEP_GAP - CHIP - BAND
        add(root, "path", class_="axis", d=f"M{x:.1f} {y - CHIP / 2:.1f}v{-length:.1f}m-3 4l3 -4l3 4")
    add(root, "text", "at every step", x=MARGIN + 8, y=front.y - STEP_GAP / 2 + 4, class_="muted")


def _draw_folded(root: Element, layout: Layout, row: Row) -> None:
    """The pruned nodes of a layer as one group that counts them."""
    if not row.pruned:
        return
    what = {"feature": "feature", "lstm": "unit", "gru": "unit", "cell": "cell", "output": "output"}.get(
        row.kind, "node"
    )
    text = f"{len(row.pruned)} more {what}{'s' * (len(row.pruned) > 1)}"
    label = f"{text}, pruned: {', '.join(node.label for node in row.pruned)}"
    group = add_group(root, label, class_="folded", data_folded=len(row.pruned))
    x, width = layout.right + 12, FOLDED - 12
    add(group, "rect", class_="dashed", x=x, y=row.y - CHIP / 2 - 3, width=width, height=CHIP + 6, rx=8)
    add(group, "text", f"{text},", x=x + width / 2, y=row.y - 2, class_="middle muted")
    add(group, "text", "pruned", x=x + width / 2, y=row.y + 11, class_="middle muted")


def _draw_legend(root: Element, scene: Scene, n_links: int | None) -> None:
    """The legend; `n_links` is the limit if there are more links."""
    lines = [_tell_links(scene)]
    if n_links is not None:
        lines[0] += f" Of more than {n_links} links only the strongest are drawn."
    if any(node.profile for node in scene.topology.nodes):
        lines.append("A bar is what a node is made of, in the colours of the features; a larger dot contributes more.")
    first = scene.layout.height - MARGIN - LINE * (len(lines) - 1)
    for index, line in enumerate(lines):
        add(root, "text", line, x=MARGIN, y=first + LINE * index, class_="legend muted")


def _tell_links(scene: Scene) -> str:
    """Explains what the style of a link shows, and where its function is drawn."""
    if scene.bundled:
        value = "pykan's score" if scene.by_score else "the mean |contribution|"
        return f"Width and opacity are {value} of an edge. Of more than {N_CURVES} edges no functions are drawn."
    strength = "Opacity is pykan's score of an edge." if scene.by_score else "Width is an edge's mean |contribution|."
    return f"A box is the function on an edge, over the 1st to 99th percentile of the data. {strength}"
