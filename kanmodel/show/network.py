"""The picture of a network, as in pykan's plot: features at the bottom, the output on top, a curve on each edge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Literal

import numpy as np

from kanmodel.data import Array
from kanmodel.explain.curves import Edge, sample_edges
from kanmodel.explain.result import Theme, draw
from kanmodel.explain.structure import READOUT_KINDS, EdgeKey
from kanmodel.explain.topology import Topology, TopologyEdge, TopologyNode
from kanmodel.show.edge import describe_shape, list_worth, name_edge
from kanmodel.show.layout import BOX_GAP, CHARACTER, CHIP, FOLDED, LINE, STEP_GAP, Box, Layout, Point, lay_out
from kanmodel.show.style import N_COLORS
from kanmodel.show.svg import MARGIN, Part, new_picture, write_amount, write_points
from kanmodel.text import abbreviate

Color = Literal["score", "contribution"]

N_POINTS = 25  # points of a curve, enough for its box
N_CURVES = 300  # most curves of a picture
N_LINKS = 1300  # most links of each kind, so that a notebook stays small; of more, only the strongest are drawn
N_SHARES = 3  # features of a profile in a title
HEADING = 8.6  # width of a character of the heading
UNITS, SHORT = ("lstm", "gru"), {"cell": "steps", "glue": "computed", "output": "output"}  # in a row of several kinds
N_CAPTION = 16  # characters of a caption
BEND = 46.0  # height of the curve to a lane
BAND = 8.0  # margin of the background of units
PADDING = 4.0  # between a curve and its box
LINK = 1.4  # width, if opacity shows the score
THIN, THICK = 0.5, 5.0  # width by contribution
INPUT_THICK, INPUT_OPACITY = 9.0, 0.45  # width and opacity of a link from a feature with a share of 1
BEHIND_OPACITY = 0.12  # opacity of such links if there is a front in between
FAINT, FAINT_OPACITY, FAINT_INPUT_OPACITY = 0.6, 0.3, 0.07  # of pruned links
WEAKEST = 0.06  # opacity of the weakest of many links without curves
MIN_CURVE = 0.4  # opacity of a curve with a low score, so that it stays legible
DOT, MIN_DOT = 8.0, 2.0  # radius of the feature that contributes most, and the smallest radius
SMALL_DOT = 3.0  # radius of sub-nodes and pruned nodes
BAR = 5.0  # height of a profile
MIN_CHIP, CHIP_GAP = 46.0, 6.0  # usual width of a chip, and distance to the next
CHIP_PADDING, CHIP_CHARACTER = 14.0, CHARACTER + 0.6  # padding of both sides together, and width of a character
EDGE_DATA = ("source", "target", "kind", "stage", "layer", "i", "j", "kept")  # attributes of a link
CAPTIONS = {  # of a layer, and what its nodes are called
    "feature": ("features", "feature"),
    "front": ("front layer {}", "node"),
    "lstm": ("LSTM units", "unit"),
    "gru": ("GRU units", "unit"),
    "cell": ("all steps", "cell"),
    "glue": ("computed inputs", "input"),
    "head": ("hidden layer {}", "node"),
    "output": ("output", "output"),
}


def curved_edges(part: Topology) -> list[TopologyEdge]:
    """The edges whose functions are drawn: the kept ones, or none if there are more than `N_CURVES`."""
    kept = [edge for edge in part.kan_edges if edge.kept]
    return kept if len(kept) <= N_CURVES else []


def count_links(part: Topology, pruned: bool, n_links: int) -> int:
    """How many edges of a part are drawn, of which `limit_links` chooses the strongest."""
    return sum(min(count, n_links) for count in _drawn_by_kind(part, pruned).values())


def limit_links(part: Topology, pruned: bool, n_links: int) -> Topology:
    """A part of a network with at most `n_links` edges of each kind: kept ones first, by contribution or share.

    If it is `pruned`, only kept edges are drawn, and counted.
    """
    counts = _drawn_by_kind(part, pruned)
    if all(count <= n_links for count in counts.values()):
        return part
    drawn = [edge for edge in part.edges if edge.kept or not pruned]
    drawn.sort(key=lambda edge: (edge.kept, edge.contribution or edge.share or 0.0), reverse=True)
    strongest = {id(edge) for kind in counts for edge in [edge for edge in drawn if edge.kind == kind][:n_links]}
    return replace(part, edges=tuple(edge for edge in part.edges if id(edge) in strongest))


def _drawn_by_kind(part: Topology, pruned: bool) -> Counter[str]:
    return Counter(edge.kind for edge in part.edges if edge.kept or not pruned)


@draw.register
def draw_topology(
    topology: Topology,
    theme: Theme = "auto",
    *,
    curves: Sequence[Edge] | None = None,
    pruned: bool = True,
    color: Color = "score",
    through: str | None = None,
    n_links: int = N_LINKS,
) -> bytes:
    """Draws the part of a network upstream of its output as SVG.

    Args:
        topology: the network.
        theme: colours.
        curves: its `curved_edges`, sampled; by default the strongest `N_CURVES` kept edges.
        pruned: whether pruned nodes are folded into one counted group per layer; otherwise they are drawn faintly.
        color: what the strength of an edge shows: its score, by opacity, as in pykan; or its contribution, by width,
            which also replaces scores that are unknown.
        through: id of a node; only the paths through it are drawn, or UnknownNameError is raised.
        n_links: most links of each kind that are drawn.
    """
    if curves is None:
        kept = sorted((edge for edge in topology.kan_edges if edge.kept), key=lambda edge: -(edge.contribution or 0.0))
        curves = sample_edges(topology.loaded, kept[:N_CURVES], N_POINTS)
    upstream = topology.upstream()
    whole = upstream if through is None else upstream.through(through, only_kept=pruned)
    part = limit_links(whole, pruned, n_links)
    scene = _Scene.of(part, curves, pruned, color)
    layout, heading, cost = scene.layout, f"{topology.name}: {topology.output}", describe_cost(upstream)
    if through is not None:
        heading += f", the paths through {scene.nodes[through].label}"
    root = new_picture(layout.width, layout.height, heading, cost, topology.source)
    root.add_heading(heading, cost, n_heading=int(layout.width / HEADING)).set("class", "cost muted")
    _add_captions(root, scene, of_all=through is None)
    _add_links(root, scene)
    _add_nodes(root, scene)
    if pruned:
        _add_folded(root, layout)
    _add_legend(root, scene, None if part is whole else n_links)
    return root.serialise(theme)


@dataclass(frozen=True)
class _Scene:
    """A network, ready to be drawn."""

    topology: Topology
    layout: Layout
    nodes: Mapping[str, TopologyNode]  # by id
    curves: Mapping[EdgeKey, Edge]  # its kept edges, sampled
    colors: Mapping[str, int]  # indices for the features that contribute most; the others share colour 0
    by_score: bool  # whether a link's opacity shows its score; otherwise its width shows its contribution
    fold: bool  # whether pruned parts are left out and counted
    bundled: bool  # whether kept edges are drawn as links without curves, because there are too many

    @classmethod
    def of(cls, topology: Topology, curves: Sequence[Edge], fold: bool, color: Color) -> _Scene:
        """Computes the layout and assigns colours."""
        bundled = not curves and any(edge.kept for edge in topology.kan_edges)
        features = [node for node in topology.nodes if node.kind == "feature" and node.kept]
        features.sort(key=lambda node: -(node.contribution or 0.0))
        return cls(
            topology=topology,
            layout=lay_out(topology, fold, with_curves=not bundled),
            nodes={node.id: node for node in topology.nodes},
            curves={curve.edge.key: curve for curve in curves},
            colors={node.label: number for number, node in enumerate(features[:N_COLORS], start=1)},
            by_score=color == "score" and any(edge.opacity is not None for edge in topology.kan_edges),
            fold=fold,
            bundled=bundled,
        )

    def is_chip(self, node: TopologyNode) -> bool:
        """Whether a node is a chip with name and profile; otherwise it is a dot."""
        return node.kept and node.kind not in ("feature", "subnode")

    def ends(self, edge: TopologyEdge) -> tuple[Point, Point]:
        """The ends of an edge: the top of its source, and the bottom of its target."""
        (x, y), (x_target, y_target) = self.layout.places[edge.source], self.layout.places[edge.target]
        above, below = (CHIP / 2 if self.is_chip(self.nodes[end]) else 0.0 for end in (edge.source, edge.target))
        return (x, y - above), (x_target, y_target + below)

    def worth(self, edge: TopologyEdge) -> float:
        """The value shown by the strength of a link without a curve."""
        if self.by_score:
            return edge.scores["backward"] if edge.scores else 0.0
        return edge.contribution or 0.0


def _add_captions(root: Part, scene: _Scene, of_all: bool) -> None:
    """The name of each layer, its number of kept nodes, and the background of the head's inputs."""
    layout = scene.layout
    for row in layout.rows:
        if row.kind in READOUT_KINDS:
            top, width, height = row.y - CHIP / 2 - BAND, layout.right - MARGIN, CHIP + 2 * BAND
            root.add("rect", class_="band", x=MARGIN, y=top, width=width, height=height, rx=8)
        caption = CAPTIONS[row.kind][0].format(row.parts[0][1])
        if len(row.parts) > 1:
            names = [kind.upper() if kind in UNITS else SHORT.get(kind, f"layer {layer}") for kind, layer in row.parts]
            caption = abbreviate(", ".join(dict.fromkeys(names)), N_CAPTION)
        root.add("text", caption, x=MARGIN + 8, y=row.y - 2)
        kept = f"{len(row.kept)} of {len(row.kept) + len(row.pruned)} kept" if of_all else f"{len(row.kept)} kept"
        root.add("text", kept, x=MARGIN + 8, y=row.y + 12, class_="muted")
    fronts = [row for row in layout.rows if row.kind == "front"]
    if fronts and any(row.kind in READOUT_KINDS for row in layout.rows):
        for node in fronts[-1].kept:  # the front is applied at every step: arrows to the head's inputs
            x, y = layout.places[node.id]
            length = STEP_GAP - CHIP - BAND
            root.add("path", class_="axis", d=f"M{x:.1f} {y - CHIP / 2:.1f}v{-length:.1f}m-3 4l3 -4l3 4")
        root.add("text", "at every step", x=MARGIN + 8, y=fronts[-1].y - STEP_GAP / 2 + 4, class_="muted")


def _add_links(root: Part, scene: _Scene) -> None:
    """All edges except folded ones: kept above pruned ones, and of many links the strong above the weak."""

    def depth(edge: TopologyEdge) -> tuple[bool, bool, float]:
        return edge.kept, edge.kind != "input", scene.worth(edge) if scene.bundled and edge.kind == "edge" else 0.0

    kept, unit = [edge for edge in scene.topology.kan_edges if edge.kept], scene.topology.unit
    has_front = any(row.kind == "front" for row in scene.layout.rows)
    weighed = [*kept, *(edge for edge in scene.topology.edges if edge.kind == "link")]
    largest = max((edge.contribution or 0.0 for edge in weighed), default=0.0)
    strongest = max((scene.worth(edge) for edge in kept), default=0.0)
    for edge in sorted(scene.topology.edges, key=depth):
        if scene.fold and not edge.kept:
            continue
        curve = scene.curves.get(edge.key) if edge.kind == "edge" else None
        box = scene.layout.boxes[edge.key] if edge.kept and curve is not None else None
        width, opacity, class_ = LINK, 1.0, "link"
        if not edge.kept:
            width, class_ = FAINT, "link pale-link"
            opacity = FAINT_INPUT_OPACITY if edge.kind == "input" else FAINT_OPACITY
        elif edge.kind == "link":
            width = THIN + (THICK - THIN) * ((edge.contribution or 0.0) / largest if largest else 0.0)
            class_ = (
                f"link s{scene.colors.get(scene.nodes[edge.source].label, 0)}" if edge.share is not None else class_
            )
        elif edge.kind == "input":
            width, opacity = INPUT_THICK * (edge.share or 0.0), BEHIND_OPACITY if has_front else INPUT_OPACITY
            class_ = f"link s{scene.colors.get(scene.nodes[edge.source].label, 0)}"
        elif scene.bundled and edge.kind == "edge":
            part = scene.worth(edge) / strongest if strongest else 0.0
            width, opacity = THIN + (THICK - THIN) * part, WEAKEST + (1 - WEAKEST) * part
        elif box is not None and scene.by_score:
            opacity = 1.0 if edge.opacity is None else edge.opacity
        elif box is not None:
            width = THIN + (THICK - THIN) * ((edge.contribution or 0.0) / largest if largest else 0.0)
        share = "" if edge.share is None else f"{edge.share:.1%} of the target's profile"
        reads = f"reads {edge.reads}" if edge.reads else ""
        lines = (name_edge(edge), share, reads, *list_worth(edge, unit), describe_shape(curve) if curve else "")
        group = root.add_group(
            "\n".join(filter(None, lines)),
            class_=f"edge {edge.kind}" if edge.kept else f"edge {edge.kind} pruned",
            **{f"data_{name}": getattr(edge, name) for name in EDGE_DATA},
            tabindex=0 if edge.kind == "edge" else -1,  # a feature has a link to every unit
        )
        lane = scene.layout.lanes.get((edge.source, edge.target))
        path = _join(*scene.ends(edge), lane) if box is None else _join_through(*scene.ends(edge), box, lane)
        dashes = {"stroke_dasharray": "5 4"} if edge.kind == "link" else {}
        group.add("path", class_=class_, d=path, stroke_width=width, opacity=opacity, **dashes)
        if box is not None and curve is not None:
            _add_curve(group, box, curve, opacity)


def _join(source: Point, target: Point, lane: float | None = None) -> str:
    """A path with vertical ends from one place to the other, along a lane beside the layers that it passes."""
    (x, y), (x_target, y_target) = source, target
    if lane is not None:
        up, down = y - BEND, y_target + BEND
        begin, end = f"C{x:.1f} {up:.1f} {lane:.1f} {y:.1f} {lane:.1f} {up:.1f}", f"{x_target:.1f} {y_target:.1f}"
        return f"M{x:.1f} {y:.1f}{begin}V{down:.1f}C{lane:.1f} {y_target:.1f} {x_target:.1f} {down:.1f} {end}"
    middle = (y + y_target) / 2
    return f"M{x:.1f} {y:.1f}C{x:.1f} {middle:.1f} {x_target:.1f} {middle:.1f} {x_target:.1f} {y_target:.1f}"


def _join_through(source: Point, target: Point, box: Box, lane: float | None = None) -> str:
    """A path through a box; in a column it passes the boxes below and above on the side, and enters from the left."""
    if box.lines == 1:
        return _join(source, (box.x, box.low), lane) + _join((box.x, box.high), target)
    gap, start, end = BOX_GAP / 2 / (box.lines + 1), box.x - box.side / 2, box.x + box.side / 2
    left, right = start - gap * (box.line + 1), end + gap * (box.lines - box.line)
    through = f"V{box.y:.1f}H{start:.1f}M{end:.1f} {box.y:.1f}H{right:.1f}V{box.high:.1f}"
    return _join(source, (left, box.low), lane) + through + _join((right, box.high), target)


def _add_curve(group: Part, box: Box, curve: Edge, opacity: float) -> None:
    """The function of an edge, fitted into its box."""

    def fit(values: Array) -> Array:
        """Values scaled to 0 to 1; 0.5 if they are all equal."""
        span = float(np.ptp(values))
        return (values - values.min()) / span if span > 0 else np.full_like(values, 0.5)

    side, inner = box.side, box.side - 2 * PADDING
    x, y = box.x - side / 2, box.y - side / 2
    group.add("rect", class_="box", x=x, y=y, width=side, height=side, rx=4, stroke_opacity=max(opacity, MIN_CURVE))
    xs, ys = x + PADDING + fit(curve.x) * inner, y + side - PADDING - fit(curve.y) * inner
    opacity = MIN_CURVE + (1 - MIN_CURVE) * opacity
    group.add("polyline", class_="curve", points=write_points(xs.tolist(), ys.tolist()), opacity=opacity)


def _add_nodes(root: Part, scene: _Scene) -> None:
    """All nodes except folded ones: features as dots with a name, others as chips, sub-nodes and pruned ones small."""
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
        x, y = layout.places[node.id]
        shares = list(node.profile.items())[:N_SHARES]
        at = {name: f" at {lags}" for name, lags in node.lags.items()}
        profile = ", ".join(f"{share:.0%} {name}{at.get(name, '')}" for name, share in shares)
        label = "\n".join(filter(None, (node.label, *list_worth(node, scene.topology.unit), profile)))
        class_ = f"node {node.kind}" if node.kept else f"node {node.kind} pruned"
        group = root.add_group(label, class_=class_, data_node=node.id, data_kept=node.kept, tabindex=0)
        if scene.is_chip(node):
            _add_chip(group, node, (x, y), rooms[node.id], node.id in products, scene.colors)
            continue
        group.add("circle", class_="hit", cx=x, cy=y, r=DOT + 2)  # larger, for pointers
        if not node.kept or node.kind != "feature":
            group.add("circle", class_="dot" if node.kept else "dot pale", cx=x, cy=y, r=SMALL_DOT)
            continue
        radius = max(MIN_DOT, DOT * sqrt((node.contribution or 0.0) / largest)) if largest else SMALL_DOT
        group.add("circle", class_=f"f{scene.colors.get(node.label, 0)}", cx=x, cy=y, r=radius)
        turned = f"translate({x + 4:.1f} {y + 18:.1f}) rotate(-42)"
        place = {"class_": "end", "transform": turned} if layout.tilted else {"class_": "middle", "x": x, "y": y + 24}
        group.add("text", abbreviate(node.label, layout.name_length), **place)


def _add_chip(
    group: Part, node: TopologyNode, place: Point, room: float, product: bool, colors: Mapping[str, int]
) -> None:
    """A node with its name, and a stacked bar of its profile: the coloured features, then all others."""
    (x, y), is_output = place, node.kind == "output"
    name = f"× {node.label}" if product else node.label
    if is_output:
        name = abbreviate(name, int((room - CHIP_GAP - CHIP_PADDING) / CHIP_CHARACTER))
    elif len(name) * CHARACTER > room - CHIP_GAP:
        name = abbreviate(node.label.rsplit(" ", 1)[-1])  # its numbers
    width = min(max(MIN_CHIP, len(name) * CHIP_CHARACTER + CHIP_PADDING), room - CHIP_GAP)
    chip, text = ("chip solid", "middle on-solid") if is_output else ("chip", "middle")
    shares = [(number, node.profile.get(name, 0.0)) for name, number in colors.items()]
    shares = [*shares, (0, 1 - sum(share for _, share in shares))] if node.profile and not is_output else []
    group.add("rect", class_=chip, x=x - width / 2, y=y - CHIP / 2, width=width, height=CHIP, rx=6)
    group.add("text", name, class_=text, x=x, y=y + (1 if shares else 4))
    left, top, length = x - width / 2 + 5, y + CHIP / 2 - BAR - 3, width - 10
    for number, share in shares:
        group.add("rect", class_=f"f{number}", x=left, y=top, width=max(0.0, share * length), height=BAR)
        left += share * length


def _add_folded(root: Part, layout: Layout) -> None:
    """The pruned nodes of each layer as one group that counts them."""
    x, width = layout.right + 12, FOLDED - 12
    for row in layout.rows:
        if row.pruned:
            text = f"{len(row.pruned)} more {CAPTIONS[row.kind][1]}{'s' * (len(row.pruned) > 1)}"
            label = f"{text}, pruned: {', '.join(node.label for node in row.pruned)}"
            group = root.add_group(label, class_="folded", data_folded=len(row.pruned))
            group.add("rect", class_="dashed", x=x, y=row.y - CHIP / 2 - 3, width=width, height=CHIP + 6, rx=8)
            group.add("text", f"{text},", x=x + width / 2, y=row.y - 2, class_="middle muted")
            group.add("text", "pruned", x=x + width / 2, y=row.y + 11, class_="middle muted")


def _add_legend(root: Part, scene: _Scene, n_links: int | None) -> None:
    """What the style of a link shows, and where its function is drawn; `n_links` is the limit if there are more."""
    value = "Opacity is pykan's score of an edge." if scene.by_score else "Width is an edge's mean |contribution|."
    text = f"A box is the function on an edge, over the 1st to 99th percentile of the data. {value}"
    if scene.bundled:
        value = "pykan's score" if scene.by_score else "the mean |contribution|"
        text = f"Width and opacity are {value} of an edge. Of more than {N_CURVES} edges no functions are drawn."
    lines = [text + (f" Of more than {n_links} links only the strongest are drawn." if n_links is not None else "")]
    if any(edge.kind == "link" for edge in scene.topology.edges):
        lines.append("A dashed line is what operations between layers lead on; its width is its mean |contribution|.")
    if any(node.profile for node in scene.topology.nodes):
        lines.append("A bar is what a node is made of, in the colours of the features; a larger dot contributes more.")
    first = scene.layout.height - MARGIN - LINE * (len(lines) - 1)
    for index, line in enumerate(lines):
        root.add("text", line, x=MARGIN, y=first + LINE * index, class_="legend muted")


def describe_cost(topology: Topology) -> str:
    """The number of kept edges, and the fidelity with these."""
    edges, cost = topology.kan_edges, topology.fidelity
    kept = f"{sum(edge.kept for edge in edges)} of {len(edges)} edges keep an R2 of {cost.r2:.3f}"
    if cost.mae is None or cost.mae_full is None:
        return f"{kept} against the full model."
    errors = f"the mean absolute error goes from {cost.mae_full:.3g} to {write_amount(cost.mae, topology.unit)}"
    return f"{kept} against the full model; {errors}."
