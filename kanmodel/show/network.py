"""The picture of a network, as in pykan's plot: features at the bottom, the output on top, a curve on each edge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from textwrap import wrap
from typing import Literal

import numpy as np

from kanmodel.arrays import Array
from kanmodel.network.connections import READOUT_KINDS
from kanmodel.network.network import LayerKey
from kanmodel.result import Theme, draw
from kanmodel.show.edge import describe_shape, list_worth, name_edge
from kanmodel.show.layout import BOX_GAP, CHARACTER, CHIP, EDGE, FOLDED, LINE, STEP_GAP, Box, Command, Point, lay_out
from kanmodel.show.style import N_COLORS
from kanmodel.show.svg import MARGIN, Element, new_canvas
from kanmodel.structure.curves import Edge
from kanmodel.structure.edges import TopologyEdge
from kanmodel.structure.topology import N_CURVES, Topology, TopologyNode
from kanmodel.text import abbreviate, write_amount, write_figure

Color = Literal["score", "contribution"]
CurveScale = Literal["layer", "own"]
"""Whether the curves of a layer have one y-scale, or each its own."""

N_LINKS = 1300  # most links of each kind, so that a notebook stays small; of more, only the strongest are drawn
N_SHARES = 3  # features of a profile in a title
HEADING, LETTER = 8.6, 5.7  # width of a character of the heading, and of a line of text, roughly
UNITS = ("lstm", "gru")
SHORT = {"loop": "cell", "cell": "steps", "glue": "computed", "output": "output"}  # in a row of several kinds
N_CAPTION, N_NAME = 16, 8  # characters of a caption, and of an abbreviated name at least
CAPTION = 4.0  # from the captions of columns to these
BEND = 46.0  # height of the curve to a lane
BAND = 8.0  # margin of the background of units
PADDING = 4.0  # between a curve and its box
LINK = 1.4  # width, if opacity shows the score
THIN, THICK = 0.5, 5.0  # width by contribution
INPUT_THICK, INPUT_OPACITY = 9.0, 0.45  # width and opacity of a link from a feature with a share of 1
BEHIND_OPACITY = 0.12  # opacity of such links if there is a front in between
FAINT, FAINT_OPACITY, FAINT_INPUT_OPACITY = 0.6, 0.3, 0.07  # of pruned links
BUNDLED, BUNDLE_OPACITY = 3.0, 0.5  # of many links without curves: width of the strongest, opacity if width shows them
OUTLINE = 0.4  # width of the outline of a box, which is there where the score leaves nothing else
DOT, MIN_DOT = 8.0, 2.0  # radius of the feature that contributes most, and the smallest radius
FOLDED_COLUMN = 58.0  # width of the count of folded nodes below a column
SMALL_DOT = 3.0  # radius of sub-nodes and pruned nodes
BAR = 5.0  # height of a profile
MIN_CHIP, CHIP_GAP = 46.0, 6.0  # usual width of a chip, and distance to the next
CHIP_PADDING, CHIP_CHARACTER = 14.0, CHARACTER + 0.6  # padding of both sides together, and width of a character
EDGE_DATA = ("source", "target", "kind", "stage", "layer", "i", "j", "kept")  # attributes of a link
CAPTIONS = {  # of a layer, of a column, and what its nodes are called
    "feature": ("features", "features", "feature"),
    "front": ("front layer {}", "front {}", "node"),
    "lstm": ("LSTM units", "LSTM", "unit"),
    "gru": ("GRU units", "GRU", "unit"),
    "loop": ("units of the cell", "cell", "unit"),
    "cell": ("all steps", "all steps", "cell"),
    "glue": ("computed inputs", "computed", "input"),
    "head": ("hidden layer {}", "hidden {}", "node"),
    "output": ("output", "output", "output"),
}


def curved_edges(part: Topology) -> list[TopologyEdge]:
    """The edges whose functions are drawn: the kept ones, or none if there are more than `N_CURVES`."""
    kept = [edge for edge in part.kan_edges if edge.kept]
    return kept if len(kept) <= N_CURVES else []


def count_links(part: Topology, pruned: bool, n_links: int) -> int:
    """How many edges of a part are drawn, of which `limit_links` chooses the strongest."""
    counts = Counter(edge.kind for edge in part.edges if edge.kept or not pruned)
    return sum(min(count, n_links) for count in counts.values())


def limit_links(part: Topology, pruned: bool, n_links: int) -> Topology:
    """A part of a network with at most `n_links` edges of each kind: kept ones first, by contribution or share.

    If it is `pruned`, only kept edges are drawn, and counted.
    """
    drawn = [edge for edge in part.edges if edge.kept or not pruned]
    counts = Counter(edge.kind for edge in drawn)
    if all(count <= n_links for count in counts.values()):
        return part
    drawn.sort(key=lambda edge: (edge.kept, edge.contribution or edge.share or 0.0), reverse=True)
    strongest = {id(edge) for kind in counts for edge in [edge for edge in drawn if edge.kind == kind][:n_links]}
    return replace(part, edges=tuple(edge for edge in part.edges if id(edge) in strongest))


@draw.register
def draw_topology(
    topology: Topology,
    theme: Theme = "auto",
    *,
    curves: Sequence[Edge] | None = None,
    pruned: bool = True,
    color: Color = "score",
    scale: CurveScale = "layer",
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
        color: what the strength of an edge shows: its score, by opacity, which is `TopologyEdge.opacity`, as in pykan;
            or its contribution, by width, which also replaces scores that are unknown.
        scale: whether the curves of a layer have one y-scale, so that a flat curve looks flat, or each its ``own``.
        through: id of a node; only the paths through it are drawn, or UnknownNameError is raised.
        n_links: most links of each kind that are drawn.
        width: of the picture, pixels, in which texts keep their size: layers are columns from left to right if they
            have no room as rows. By default they are rows, and the picture is as wide as they take.
    """
    curves = topology.curves if curves is None else curves
    upstream = topology.upstream()
    whole = upstream if through is None else upstream.through(through, only_kept=pruned)
    part = limit_links(whole, pruned, n_links)
    picture = _Picture(part, curves, pruned, color, scale, width)
    layout, heading, cost = picture.layout, f"{topology.name}: {topology.output}", describe_cost(upstream)
    if through is not None:
        heading += f", the paths through {picture.nodes[through].label}"
    n_letters = int((layout.width - 2 * MARGIN) / LETTER)
    texts = picture.write_legend(None if part is whole else n_links)
    legend = [line for text in texts for line in wrap(text, n_letters)]
    height = layout.height + LINE * (len(legend) - 2)
    first, *more = wrap(cost, n_letters)
    root = picture.root = new_canvas(layout.width, height, heading, cost, topology.source)
    root.add_heading(heading, first, int(layout.width / HEADING), look="cost muted")
    if more:
        root.add_text(more[0], MARGIN, 71.0, "cost muted")
    picture.add_captions(of_all=through is None)
    picture.add_links()
    picture.add_nodes()
    if pruned:
        picture.add_folded()
    for index, line in enumerate(legend):
        root.add_text(line, MARGIN, height - MARGIN - LINE * (len(legend) - 1 - index), "legend muted")
    return root.serialise(theme)


class _Picture:
    """A network with its layout and colours, and what is drawn of it; with `fold` pruned parts are only counted."""

    root: Element

    def __init__(
        self,
        topology: Topology,
        curves: Sequence[Edge],
        fold: bool,
        color: Color,
        scale: CurveScale,
        width: float | None,
    ) -> None:
        self.topology, self.fold = topology, fold
        self.kept = [edge for edge in topology.kan_edges if edge.kept]
        self.bundled = bool(self.kept) and not curves  # kept edges are links without curves, because they are too many
        self.layout = lay_out(topology, fold, not self.bundled, width)
        self.nodes = {node.id: node for node in topology.nodes}
        self.curves = {curve.edge.key: curve for curve in curves}
        self.spans = {} if scale == "own" else span_layers(curves)
        self.chips = {node.id: row.chip for row in self.layout.rows for node in (*row.kept, *row.pruned)}  # heights
        self.products = {edge.target for edge in topology.edges if edge.kind == "product"}
        # A link's opacity shows its score, or its width its contribution.
        self.by_score = color == "score" and any(edge.opacity is not None for edge in topology.kan_edges)
        features = [node for node in topology.nodes if node.kind == "feature" and node.kept]
        features.sort(key=lambda node: -(node.contribution or 0.0))
        self.colors = {node.label: number for number, node in enumerate(features[:N_COLORS], start=1)}  # others have 0

    def is_chip(self, node: TopologyNode) -> bool:
        """Whether a node is a chip with name and profile; otherwise it is a dot."""
        return node.kept and node.kind not in ("feature", "subnode")

    def add_captions(self, of_all: bool) -> None:
        """The name of each layer, its number of kept nodes, and the background of the head's inputs."""
        root, layout, rows = self.root, self.layout, self.layout.rows
        for number, row in enumerate(rows):
            if row.kind in READOUT_KINDS:
                start, away = layout.left - CAPTION if layout.columns else MARGIN, row.chip / 2 + BAND
                (x, y), (x_end, y_end) = layout.turn(start, row.y - away), layout.turn(layout.right, row.y + away)
                root.add_rect("band", min(x, x_end), min(y, y_end), abs(x_end - x), abs(y_end - y), rx=8)
            caption = CAPTIONS[row.kind][layout.columns].format(row.kinds[0][1])
            if len(row.kinds) > 1:
                names = (kind.upper() if kind in UNITS else SHORT.get(kind, f"layer {at}") for kind, at in row.kinds)
                caption = abbreviate(", ".join(dict.fromkeys(names)), N_CAPTION)
            count = f"{len(row.kept)} of {len(row.kept) + len(row.pruned)}" if of_all else f"{len(row.kept)}"
            if not layout.columns:
                root.add_text(caption, MARGIN + 8, row.y - 2)
                root.add_text(f"{count} kept", MARGIN + 8, row.y + 12, "muted")
                continue
            x, y = layout.turn(layout.left - CAPTION, row.y)
            x, anchor = (EDGE, "") if number == 0 else (x, "middle ")
            x, anchor = (x + row.chip / 2, "end ") if row is rows[-1] else (x, anchor)
            near = min(abs(row.y - other.y) for other in rows[max(0, number - 1) : number + 2] if other is not row)
            most = max(6, int(near / CHARACTER))
            root.add_text(abbreviate(caption, most), x, y - 18, anchor.strip() or None)
            root.add_text(abbreviate(count, most), x, y - 5, f"{anchor}muted")
        fronts = [number for number, row in enumerate(rows) if row.kind == "front"]
        if fronts and any(row.kind in READOUT_KINDS for row in rows):
            front, after = rows[fronts[-1]], rows[fronts[-1] + 1]
            end = after.y + after.chip / 2 + BAND
            for node in front.kept:  # the front is applied at every step: arrows to the head's inputs
                x, y = layout.places[node.id]
                arrow = ("M", x - 3, end + 4), ("L", x, end), ("L", x + 3, end + 4)
                root.add_path("axis", layout.path(("M", x, y - front.chip / 2), ("V", end), *arrow))
            if not layout.columns:
                root.add_text("at every step", MARGIN + 8, front.y - STEP_GAP / 2 + 4, "muted")

    def add_links(self) -> None:
        """All edges except folded ones: kept above pruned ones, and of many links the strong above the weak."""

        def worth(edge: TopologyEdge) -> float:
            """What the strength of a link without a curve shows."""
            if self.by_score:
                return edge.opacity or 0.0
            return edge.contribution or 0.0

        has_front = any(row.kind == "front" for row in self.layout.rows)
        weighed = [*self.kept, *(edge for edge in self.topology.edges if edge.kind == "link")]
        largest = max((edge.contribution or 0.0 for edge in weighed), default=0.0) or 1.0
        drawn = [edge for edge in self.topology.edges if edge.kept or not self.fold]
        for edge in sorted(
            drawn, key=lambda edge: (edge.kept, edge.kind != "input", worth(edge) if edge.kind == "edge" else 0.0)
        ):
            curve = self.curves.get(edge.key) if edge.kind == "edge" else None
            has_box = edge.kept and curve is not None
            by_contribution = THIN + (THICK - THIN) * ((edge.contribution or 0.0) / largest)
            width, opacity, look = LINK, 1.0, "link"
            if not edge.kept:
                width, look = FAINT, "link pale-link"
                opacity = FAINT_INPUT_OPACITY if edge.kind == "input" else FAINT_OPACITY
            elif edge.kind == "link":
                width = by_contribution
            elif edge.kind == "input":
                width, opacity = INPUT_THICK * (edge.share or 0.0), BEHIND_OPACITY if has_front else INPUT_OPACITY
            elif edge.kind == "edge" and self.by_score:
                opacity = edge.opacity or 0.0
            elif self.bundled and edge.kind == "edge":
                width = THIN + (BUNDLED - THIN) * ((edge.contribution or 0.0) / largest)
                opacity = BUNDLE_OPACITY
            elif has_box:
                width = by_contribution
            if edge.kept and (edge.kind == "input" or (edge.kind == "link" and edge.share is not None)):
                look = f"link s{self.colors.get(self.nodes[edge.source].label, 0)}"
            self._add_link(edge, curve, look, width, opacity)

    def _add_link(self, edge: TopologyEdge, curve: Edge | None, look: str, width: float, opacity: float) -> None:
        """An edge with its function, if that is drawn."""
        layout, lane = self.layout, self.layout.lanes.get((edge.source, edge.target))
        box = layout.boxes[edge.key] if edge.kept and curve is not None else None
        share = "" if edge.share is None else f"{edge.share:.1%} of the target's profile"
        reads = f"reads {edge.reads}" if edge.reads else ""
        worth = list_worth(edge, self.topology.unit)
        lines = (name_edge(edge), share, reads, *worth, describe_shape(curve) if curve else "")
        group = self.root.add_group(
            "\n".join(filter(None, lines)),
            class_=f"edge {edge.kind}" if edge.kept else f"edge {edge.kind} pruned",
            **{f"data_{name}": getattr(edge, name) for name in EDGE_DATA},
            tabindex=0 if edge.kind == "edge" else -1,  # a feature has a link to every unit
        )
        (x, y), (x_end, y_end) = layout.places[edge.source], layout.places[edge.target]
        above, below = (
            self.chips[end] / 2 if self.is_chip(self.nodes[end]) else 0 for end in (edge.source, edge.target)
        )
        ends = (x, y - above), (x_end, y_end + below)
        path = layout.path(*(_join(*ends, lane) if box is None else _join_through(*ends, box, lane)))
        dashes = {"stroke_dasharray": "5 4"} if edge.kind == "link" else {}
        group.add_path(look, path, stroke_width=width, opacity=opacity, **dashes)
        if box is None or curve is None:
            return
        (x, y), side, inner = layout.turn(box.x, box.y), box.side, box.side - 2 * PADDING
        x, y = x - side / 2, y - side / 2
        group.add_rect("box", x, y, side, side, rx=4, stroke_width=OUTLINE)
        span = self.spans.get((edge.stage, edge.layer))
        xs = x + PADDING + _fit(curve.x) * inner
        ys = y + side - PADDING - _fit(curve.y, span and span[0]) * inner
        group.add_line("curve", xs.tolist(), ys.tolist(), opacity=opacity)

    def add_nodes(self) -> None:
        """All nodes except folded ones: features as named dots, others as chips, sub-nodes and pruned ones small."""
        layout, nodes = self.layout, self.topology.nodes
        rooms: dict[str, float] = {}
        for row in layout.rows:
            room = (layout.right - layout.left) / len(row.kept) if row.kind == "output" and row.kept else row.pitch
            rooms |= dict.fromkeys((node.id for node in row.kept), row.chip + CHIP_GAP if layout.columns else room)
        largest = max((node.contribution or 0.0 for node in nodes if node.kind == "feature"), default=0.0)
        for node in nodes:
            if self.fold and not node.kept:
                continue
            x, y = layout.turn(*layout.places[node.id])
            at = {name: f" at {lags}" for name, lags in node.lags.items()}
            shares = [f"{share:.0%} {name}{at.get(name, '')}" for name, share in node.profile.items()]
            lines = (node.label, *list_worth(node, self.topology.unit), ", ".join(shares[:N_SHARES]))
            class_ = f"node {node.kind}" if node.kept else f"node {node.kind} pruned"
            data = {"data_node": node.id, "data_kept": node.kept, "tabindex": 0}
            group = self.root.add_group("\n".join(filter(None, lines)), class_=class_, **data)
            if self.is_chip(node):
                self._add_chip(group, node, x, y, rooms[node.id])
                continue
            group.add_circle("hit", x, y, DOT + 2)  # larger, for pointers
            if not node.kept or node.kind != "feature":
                group.add_circle("dot" if node.kept else "dot pale", x, y, SMALL_DOT)
                continue
            radius = max(MIN_DOT, DOT * sqrt((node.contribution or 0.0) / largest)) if largest else SMALL_DOT
            group.add_circle(f"f{self.colors.get(node.label, 0)}", x, y, radius)
            place: dict[str, object] = {"class_": "middle", "x": x, "y": y + 24}
            if layout.columns:
                place = {"class_": "end", "x": x - DOT - 4, "y": y + 4}
            elif layout.tilted:
                place = {"class_": "end", "transform": f"translate({x + 4:.1f} {y + 18:.1f}) rotate(-42)"}
            group.add("text", layout.names[node.label], **place)

    def _add_chip(self, group: Element, node: TopologyNode, x: float, y: float, room: float) -> None:
        """A node with its name, and a stacked bar of its profile: the coloured features, then all others."""
        is_output = node.kind == "output"
        name = f"× {node.label}" if node.id in self.products else node.label
        if is_output:
            name = abbreviate(name, int((room - CHIP_GAP - CHIP_PADDING) / CHIP_CHARACTER))
        elif len(name) * CHARACTER > room - CHIP_GAP:
            most = int((room - CHIP_GAP) / CHARACTER)
            name = abbreviate(name, most) if most >= N_NAME else abbreviate(node.id.split(":", 1)[1])  # its numbers
        width = min(max(MIN_CHIP, len(name) * CHIP_CHARACTER + CHIP_PADDING), room - CHIP_GAP)
        shares = [(number, node.profile.get(name, 0.0)) for name, number in self.colors.items()]
        shares = [*shares, (0, 1 - sum(share for _, share in shares))] if node.profile and not is_output else []
        left, top = x - width / 2, y - CHIP / 2
        group.add_rect("chip solid" if is_output else "chip", left, top, width, CHIP, rx=6)
        look = "middle on-solid" if is_output else "middle"
        group.add("text", name, class_=look, x=x, y=y + (1 if shares else 4))
        left, top = left + 5, y + CHIP / 2 - BAR - 3
        for number, share in shares:
            group.add_rect(f"f{number}", left, top, max(0.0, share * (width - 10)), BAR)
            left += share * (width - 10)

    def add_folded(self) -> None:
        """The pruned nodes of each layer as one group that counts them."""
        layout, height = self.layout, CHIP + 6
        for row in layout.rows:
            if not row.pruned:
                continue
            text = f"{len(row.pruned)} more {CAPTIONS[row.kind][2]}{'s' * (len(row.pruned) > 1)}"
            label = f"{text}, pruned: {', '.join(node.label for node in row.pruned)}"
            group = self.root.add_group(label, class_="folded", data_folded=len(row.pruned))
            width = FOLDED - 12
            x, y = layout.right + 12 + width / 2, row.y
            if layout.columns:
                text, width = f"{len(row.pruned)} more", FOLDED_COLUMN
                x, y = layout.turn(layout.right + 12 + CHIP / 2, row.y)
                x = min(max(x, EDGE + width / 2), layout.width - EDGE - width / 2)
            group.add_rect("dashed", x - width / 2, y - height / 2, width, height, rx=8)
            group.add_text(f"{text},", x, y - 2, "middle muted")
            group.add_text("pruned", x, y + 11, "middle muted")

    def _write_scale(self) -> str:
        """What the heights of curves show."""
        if not self.spans:
            return "Each curve has a scale of its own: a flat one looks as high as a steep one."
        heights = list[str]()
        for (stage, layer), (span, text) in self.spans.items():
            unit = f" {self.topology.unit}" if self.topology.unit else ""
            into = f"{stage} layer {layer + 1}" if text is None else "the output"
            heights.append(f"{write_figure(span) if text is None else text + unit} into {into}")
        return f"All curves of a layer have one scale. The height of a box is {', '.join(sorted(heights))}."

    def write_legend(self, n_links: int | None) -> list[str]:
        """What the style of a link shows, and where its function is drawn; `n_links` is the limit if there are more."""
        value = "Width is an edge's mean |contribution|."
        if self.by_score:
            value = "Darker: higher score; opacity tanh(3 x score), as in pykan."
        text = f"A box is the function on an edge, over the 1st to 99th percentile of the data. {value}"
        if self.bundled:
            text = value
            text += f" Of more than {N_CURVES} edges no functions are drawn." if len(self.kept) > N_CURVES else ""
        text += "" if n_links is None else f" Of more than {n_links} links only the strongest are drawn."
        lines = [text] if self.bundled else [text, self._write_scale()]
        if any(edge.kind == "link" for edge in self.topology.edges):
            lines += ["A dashed line is what operations between layers lead on; its width is its mean |contribution|."]
        if any(node.profile for node in self.topology.nodes):
            lines += ["A bar is what a node is made of, in the colours of the features; a larger dot contributes more."]
        return lines


def span_layers(curves: Sequence[Edge]) -> dict[LayerKey, tuple[float, str | None]]:
    """The height of all boxes of a layer, by stage and layer: the largest span of its curves, with its unit if known.

    In the units of `Edge.y`; of edges into the output whose unit is known beside it, as text, in that unit.
    """
    spans: dict[LayerKey, tuple[float, str | None]] = {}
    for curve in curves:
        key, span = (curve.edge.stage, curve.edge.layer), float(np.ptp(curve.y))
        if key not in spans or span > spans[key][0]:
            text = None if curve.y_original is None else write_figure(float(np.ptp(curve.y_original)))
            spans[key] = span, text
    return spans


def _join(source: Point, target: Point, lane: float | None = None) -> list[Command]:
    """A path from one place to the other that is upright at its ends, along a lane beside the layers that it passes."""
    (x, y), (x_end, y_end) = source, target
    if lane is not None:
        up, down = y - BEND, y_end + BEND
        end: Command = ("C", lane, y_end, x_end, down, x_end, y_end)
        return [("M", x, y), ("C", x, up, lane, y, lane, up), ("V", down), end]
    middle = (y + y_end) / 2
    return [("M", x, y), ("C", x, middle, x_end, middle, x_end, y_end)]


def _join_through(source: Point, target: Point, box: Box, lane: float | None) -> list[Command]:
    """A path through a box; in a column it passes the boxes below and above on the side, and enters from the left."""
    if box.lines == 1:
        return _join(source, (box.x, box.low), lane) + _join((box.x, box.high), target)
    gap, start, end = BOX_GAP / 2 / (box.lines + 1), box.x - box.side / 2, box.x + box.side / 2
    left, right = start - gap * (box.line + 1), end + gap * (box.lines - box.line)
    through: list[Command] = [("V", box.y), ("H", start), ("M", end, box.y), ("H", right), ("V", box.high)]
    return _join(source, (left, box.low), lane) + through + _join((right, box.high), target)


def _fit(values: Array, span: float | None = None) -> Array:
    """Values scaled to 0 to 1, or so that a span is 1, around 0.5; 0.5 if they are all equal."""
    span = span or float(np.ptp(values))
    return 0.5 + (values - (values.min() + values.max()) / 2) / span if span > 0 else np.full_like(values, 0.5)


def describe_cost(topology: Topology) -> str:
    """The number of kept edges, and the fidelity with these."""
    edges, cost = topology.kan_edges, topology.fidelity
    kept = (
        f"{sum(edge.kept for edge in edges)} of {len(edges)} edges keep an R2 of {cost.r2:.3f} against the full model"
    )
    if cost.mae is None or cost.mae_full is None:
        return f"{kept}."
    change = f"from {cost.mae_full:.3g} to {write_amount(cost.mae, topology.unit)}"
    return f"{kept}; the mean absolute error goes {change}."
