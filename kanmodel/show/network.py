"""The picture of a network, as in pykan's plot: features at the bottom, the output on top, a curve on each edge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from textwrap import wrap
from typing import Literal

import numpy as np

from kanmodel.arrays import Array
from kanmodel.network.connections import READOUT_KINDS, EdgeKey
from kanmodel.result import Theme, draw
from kanmodel.show.edge import describe_shape, list_worth, name_edge
from kanmodel.show.layout import BOX_GAP, CHARACTER, CHIP, EDGE, FOLDED, LINE, STEP_GAP, Box, Layout, Point, lay_out
from kanmodel.show.style import N_COLORS
from kanmodel.show.svg import MARGIN, Part, new_picture, write_amount, write_points
from kanmodel.structure.curves import Edge
from kanmodel.structure.edges import TopologyEdge
from kanmodel.structure.topology import N_CURVES, Topology, TopologyNode
from kanmodel.text import abbreviate

Color = Literal["score", "contribution"]

N_LINKS = 1300  # most links of each kind, so that a notebook stays small; of more, only the strongest are drawn
N_SHARES = 3  # features of a profile in a title
HEADING = 8.6  # width of a character of the heading
UNITS, SHORT = ("lstm", "gru"), {"cell": "steps", "glue": "computed", "output": "output"}  # in a row of several kinds
N_CAPTION = 16  # characters of a caption
CAPTION = 4.0  # from the captions of columns to these
LETTER = 5.7  # width of a character of a line of text, roughly
BEND = 46.0  # height of the curve to a lane
BAND = 8.0  # margin of the background of units
PADDING = 4.0  # between a curve and its box
LINK = 1.4  # width, if opacity shows the score
THIN, THICK = 0.5, 5.0  # width by contribution
INPUT_THICK, INPUT_OPACITY = 9.0, 0.45  # width and opacity of a link from a feature with a share of 1
BEHIND_OPACITY = 0.12  # opacity of such links if there is a front in between
FAINT, FAINT_OPACITY, FAINT_INPUT_OPACITY = 0.6, 0.3, 0.07  # of pruned links
BUNDLED, WEAKEST = 3.0, 0.1  # width of the strongest of many links without curves, and opacity of the weakest
FLOOR = 0.25  # opacity of a kept link with a low score
MIN_CURVE = 0.4  # and of its curve, so that it stays legible
DOT, MIN_DOT = 8.0, 2.0  # radius of the feature that contributes most, and the smallest radius
FOLDED_COLUMN = 58.0  # width of the count of folded nodes below a column
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
NARROW = CAPTIONS | {  # of a column
    "front": ("front {}", "node"),
    "lstm": ("LSTM", "unit"),
    "gru": ("GRU", "unit"),
    "glue": ("computed", "input"),
    "head": ("hidden {}", "node"),
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
    width: float | None = None,
) -> bytes:
    """Draws the part of a network upstream of its output as SVG.

    Args:
        topology: the network.
        theme: colours.
        curves: its `curved_edges`, sampled, or none of them; by default the strongest `N_CURVES` kept edges.
        pruned: whether pruned nodes are folded into one counted group per layer; otherwise they are drawn faintly.
        color: what the strength of an edge shows: its score, by opacity, as in pykan, relative to the strongest edge of
            its layer; or its contribution, by width, which also replaces scores that are unknown.
        through: id of a node; only the paths through it are drawn, or UnknownNameError is raised.
        n_links: most links of each kind that are drawn.
        width: of the picture, pixels, in which texts keep their size: layers are columns from left to right if they
            have no room as rows. By default they are rows, and the picture is as wide as they take.
    """
    if curves is None:
        curves = topology.curves
    upstream = topology.upstream()
    whole = upstream if through is None else upstream.through(through, only_kept=pruned)
    part = limit_links(whole, pruned, n_links)
    scene = _Scene.of(part, curves, pruned, color, width)
    layout, heading, cost = scene.layout, f"{topology.name}: {topology.output}", describe_cost(upstream)
    if through is not None:
        heading += f", the paths through {scene.nodes[through].label}"
    n_letters = int((layout.width - 2 * MARGIN) / LETTER)
    legend = [
        line for text in _write_legend(scene, None if part is whole else n_links) for line in wrap(text, n_letters)
    ]
    height = layout.height + LINE * (len(legend) - 2)
    root = new_picture(layout.width, height, heading, cost, topology.source)
    first, *more = wrap(cost, n_letters)
    root.add_heading(heading, first, int(layout.width / HEADING)).set("class", "cost muted")
    for index, line in enumerate(more[:1]):
        root.add("text", line, x=MARGIN, y=71.0 + LINE * index, class_="cost muted")
    _add_captions(root, scene, of_all=through is None)
    _add_links(root, scene)
    _add_nodes(root, scene)
    if pruned:
        _add_folded(root, layout)
    for index, line in enumerate(legend):
        y = height - MARGIN - LINE * (len(legend) - 1 - index)
        root.add("text", line, x=MARGIN, y=y, class_="legend muted")
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
    chips: Mapping[str, float]  # heights of the nodes as in rows, by id
    bundled: bool  # whether kept edges are drawn as links without curves, because there are too many

    @classmethod
    def of(cls, topology: Topology, curves: Sequence[Edge], fold: bool, color: Color, width: float | None) -> _Scene:
        """Computes the layout and assigns colours."""
        bundled = not curves and any(edge.kept for edge in topology.kan_edges)
        layout = lay_out(topology, fold, not bundled, width)
        features = [node for node in topology.nodes if node.kind == "feature" and node.kept]
        features.sort(key=lambda node: -(node.contribution or 0.0))
        return cls(
            topology=topology,
            layout=layout,
            nodes={node.id: node for node in topology.nodes},
            curves={curve.edge.key: curve for curve in curves},
            colors={node.label: number for number, node in enumerate(features[:N_COLORS], start=1)},
            by_score=color == "score" and any(edge.opacity is not None for edge in topology.kan_edges),
            fold=fold,
            chips={node.id: row.chip for row in layout.rows for node in (*row.kept, *row.pruned)},
            bundled=bundled,
        )

    def chip(self, node: TopologyNode) -> float:
        """The height of a node as in rows: 0 of a dot."""
        return self.chips[node.id] if self.is_chip(node) else 0.0

    def is_chip(self, node: TopologyNode) -> bool:
        """Whether a node is a chip with name and profile; otherwise it is a dot."""
        return node.kept and node.kind not in ("feature", "subnode")

    def ends(self, edge: TopologyEdge) -> tuple[Point, Point]:
        """The ends of an edge: the top of its source, and the bottom of its target."""
        (x, y), (x_target, y_target) = self.layout.places[edge.source], self.layout.places[edge.target]
        above, below = (self.chip(self.nodes[end]) / 2 for end in (edge.source, edge.target))
        return (x, y - above), (x_target, y_target + below)

    def worth(self, edge: TopologyEdge) -> float:
        """The value shown by the strength of a link without a curve."""
        if self.by_score:
            return edge.scores["backward"] if edge.scores else 0.0
        return edge.contribution or 0.0


def _add_captions(root: Part, scene: _Scene, of_all: bool) -> None:
    """The name of each layer, its number of kept nodes, and the background of the head's inputs."""
    layout = scene.layout
    for number, row in enumerate(layout.rows):
        low, high = row.y + row.chip / 2 + BAND, row.y - row.chip / 2 - BAND
        if row.kind in READOUT_KINDS:
            start = layout.left - CAPTION if layout.columns else MARGIN
            (x, y), (x_end, y_end) = layout.turn(start, high), layout.turn(layout.right, low)
            corner = {"x": min(x, x_end), "y": min(y, y_end), "width": abs(x_end - x), "height": abs(y_end - y)}
            root.add("rect", class_="band", **corner, rx=8)
        caption = (NARROW if layout.columns else CAPTIONS)[row.kind][0].format(row.parts[0][1])
        if len(row.parts) > 1:
            names = [kind.upper() if kind in UNITS else SHORT.get(kind, f"layer {layer}") for kind, layer in row.parts]
            caption = abbreviate(", ".join(dict.fromkeys(names)), N_CAPTION)
        kept = f"{len(row.kept)} of {len(row.kept) + len(row.pruned)} kept" if of_all else f"{len(row.kept)} kept"
        if not layout.columns:
            root.add("text", caption, x=MARGIN + 8, y=row.y - 2)
            root.add("text", kept, x=MARGIN + 8, y=row.y + 12, class_="muted")
            continue
        x, y = layout.turn(layout.left - CAPTION, row.y)
        first, last = number == 0, number == len(layout.rows) - 1
        anchor = "end " if last else "" if first else "middle "
        x = x + row.chip / 2 if last else EDGE if first else x
        near = [abs(row.y - other.y) for other in layout.rows[max(0, number - 1) : number + 2] if other is not row]
        caption, kept = (
            abbreviate(text, max(6, int(min(near) / CHARACTER))) for text in (caption, kept[: -len(" kept")])
        )
        root.add("text", caption, x=x, y=y - 18, class_=anchor.strip() or None)
        root.add("text", kept, x=x, y=y - 5, class_=f"{anchor}muted")
    fronts = [row for row in layout.rows if row.kind == "front"]
    if fronts and any(row.kind in READOUT_KINDS for row in layout.rows):
        front, after = fronts[-1], layout.rows[layout.rows.index(fronts[-1]) + 1]
        for node in front.kept:  # the front is applied at every step: arrows to the head's inputs
            x, y = layout.places[node.id]
            start, end = y - front.chip / 2, after.y + after.chip / 2 + BAND
            arrow = ("M", x - 3, end + 4), ("L", x, end), ("L", x + 3, end + 4)
            root.add("path", class_="axis", d=layout.path(("M", x, start), ("V", end), *arrow))
        if not layout.columns:
            root.add("text", "at every step", x=MARGIN + 8, y=front.y - STEP_GAP / 2 + 4, class_="muted")


def _add_links(root: Part, scene: _Scene) -> None:
    """All edges except folded ones: kept above pruned ones, and of many links the strong above the weak."""

    def depth(edge: TopologyEdge) -> tuple[bool, bool, float]:
        of_layer = scene.bundled and edge.kind == "edge" and edge.kept
        share = scene.worth(edge) / (strongest[edge.stage, edge.layer] or 1.0) if of_layer else 0.0
        return edge.kept, edge.kind != "input", share

    kept, unit = [edge for edge in scene.topology.kan_edges if edge.kept], scene.topology.unit
    has_front = any(row.kind == "front" for row in scene.layout.rows)
    weighed = [*kept, *(edge for edge in scene.topology.edges if edge.kind == "link")]
    largest = max((edge.contribution or 0.0 for edge in weighed), default=0.0)
    strongest = _largest(kept, scene.worth)  # of each layer, as scores are of other sizes in each
    clearest = _largest(kept, lambda edge: edge.opacity or 0.0)
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
            part = scene.worth(edge) / (strongest[edge.stage, edge.layer] or 1.0)
            width, opacity = THIN + (BUNDLED - THIN) * part, WEAKEST + (1 - WEAKEST) * part**2
        elif box is not None and scene.by_score:
            opacity = max(FLOOR, (edge.opacity or 0.0) / (clearest[edge.stage, edge.layer] or 1.0))
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
        commands = _join(*scene.ends(edge), lane) if box is None else _join_through(*scene.ends(edge), box, lane)
        path = scene.layout.path(*commands)
        dashes = {"stroke_dasharray": "5 4"} if edge.kind == "link" else {}
        group.add("path", class_=class_, d=path, stroke_width=width, opacity=opacity, **dashes)
        if box is not None and curve is not None:
            x, y = scene.layout.turn(box.x, box.y)
            _add_curve(group, replace(box, x=x, y=y), curve, opacity)


def _largest(edges: Sequence[TopologyEdge], value: Callable[[TopologyEdge], float]) -> dict[tuple[str, int], float]:
    """The largest value of the edges of each layer, by stage and layer."""
    largest: dict[tuple[str, int], float] = {}
    for edge in edges:
        key = edge.stage, edge.layer
        largest[key] = max(largest.get(key, 0.0), value(edge))
    return largest


Command = tuple[str, *tuple[float, ...]]


def _join(source: Point, target: Point, lane: float | None = None) -> list[Command]:
    """A path from one place to the other that is upright at its ends, along a lane beside the layers that it passes."""
    (x, y), (x_target, y_target) = source, target
    if lane is not None:
        up, down = y - BEND, y_target + BEND
        begin, end = ("C", x, up, lane, y, lane, up), ("C", lane, y_target, x_target, down, x_target, y_target)
        return [("M", x, y), begin, ("V", down), end]
    middle = (y + y_target) / 2
    return [("M", x, y), ("C", x, middle, x_target, middle, x_target, y_target)]


def _join_through(source: Point, target: Point, box: Box, lane: float | None = None) -> list[Command]:
    """A path through a box; in a column it passes the boxes below and above on the side, and enters from the left."""
    if box.lines == 1:
        return _join(source, (box.x, box.low), lane) + _join((box.x, box.high), target)
    gap, start, end = BOX_GAP / 2 / (box.lines + 1), box.x - box.side / 2, box.x + box.side / 2
    left, right = start - gap * (box.line + 1), end + gap * (box.lines - box.line)
    through: list[Command] = [("V", box.y), ("H", start), ("M", end, box.y), ("H", right), ("V", box.high)]
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
        node.id: row.chip + CHIP_GAP
        if layout.columns
        else (layout.right - layout.left) / len(row.kept)
        if row.kind == "output"
        else row.pitch
        for row in layout.rows
        for node in row.kept
    }
    products = {edge.target for edge in scene.topology.edges if edge.kind == "product"}
    largest = max((node.contribution or 0.0 for node in scene.topology.nodes if node.kind == "feature"), default=0.0)
    for node in scene.topology.nodes:
        if scene.fold and not node.kept:
            continue
        x, y = layout.turn(*layout.places[node.id])
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
        place: dict[str, object] = {"class_": "middle", "x": x, "y": y + 24}
        if layout.columns:
            place = {"class_": "end", "x": x - DOT - 4, "y": y + 4}
        elif layout.tilted:
            place = {"class_": "end", "transform": f"translate({x + 4:.1f} {y + 18:.1f}) rotate(-42)"}
        group.add("text", layout.names[node.label], **place)


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
    for row in layout.rows:
        if row.pruned:
            text = f"{len(row.pruned)} more {CAPTIONS[row.kind][1]}{'s' * (len(row.pruned) > 1)}"
            label = f"{text}, pruned: {', '.join(node.label for node in row.pruned)}"
            group = root.add_group(label, class_="folded", data_folded=len(row.pruned))
            width = FOLDED - 12
            x, y = layout.right + 12 + width / 2, row.y
            if layout.columns:
                text, width = f"{len(row.pruned)} more", FOLDED_COLUMN
                x, y = layout.turn(layout.right + 12 + CHIP / 2, row.y)
                x = min(max(x, EDGE + width / 2), layout.width - EDGE - width / 2)
            height = CHIP + 6
            group.add("rect", class_="dashed", x=x - width / 2, y=y - height / 2, width=width, height=height, rx=8)
            group.add("text", f"{text},", x=x, y=y - 2, class_="middle muted")
            group.add("text", "pruned", x=x, y=y + 11, class_="middle muted")


def _write_legend(scene: _Scene, n_links: int | None) -> list[str]:
    """What the style of a link shows, and where its function is drawn; `n_links` is the limit if there are more."""
    value = "Width is an edge's mean |contribution|."
    if scene.by_score:
        value = "Opacity is pykan's score of an edge, relative to the strongest of its layer."
    text = f"A box is the function on an edge, over the 1st to 99th percentile of the data. {value}"
    if scene.bundled:
        value = "pykan's score" if scene.by_score else "the mean |contribution|"
        text = f"Width and opacity are {value} of an edge, relative to the strongest of its layer."
        if sum(edge.kept for edge in scene.topology.kan_edges) > N_CURVES:
            text += f" Of more than {N_CURVES} edges no functions are drawn."
    lines = [text + (f" Of more than {n_links} links only the strongest are drawn." if n_links is not None else "")]
    if any(edge.kind == "link" for edge in scene.topology.edges):
        lines.append("A dashed line is what operations between layers lead on; its width is its mean |contribution|.")
    if any(node.profile for node in scene.topology.nodes):
        lines.append("A bar is what a node is made of, in the colours of the features; a larger dot contributes more.")
    return lines


def describe_cost(topology: Topology) -> str:
    """The number of kept edges, and the fidelity with these."""
    edges, cost = topology.kan_edges, topology.fidelity
    kept = f"{sum(edge.kept for edge in edges)} of {len(edges)} edges keep an R2 of {cost.r2:.3f}"
    if cost.mae is None or cost.mae_full is None:
        return f"{kept} against the full model."
    errors = f"the mean absolute error goes from {cost.mae_full:.3g} to {write_amount(cost.mae, topology.unit)}"
    return f"{kept} against the full model; {errors}."
