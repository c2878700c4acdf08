"""The links between nodes, and the curve of each kept edge in its box."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np

from kanmodel.drawing.layout import BOX_GAP, Box, Point, edge_key
from kanmodel.drawing.scene import Scene
from kanmodel.drawing.svg import add, add_group, write_points
from kanmodel.drawing.words import tell_edge
from kanmodel.explain.functions.curves import EdgeCurve
from kanmodel.explain.topology.graph import TopologyEdge
from kanmodel.scaling import Array

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
