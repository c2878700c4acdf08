"""The picture of a network, as in pykan's plot: features at the bottom, the output on top, a curve on each edge."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from kanmodel.drawing.layout import CHIP, FOLDED, MARGIN, STEP_GAP, Layout, Row
from kanmodel.drawing.links import draw_links
from kanmodel.drawing.nodes import draw_nodes
from kanmodel.drawing.scene import Color, Scene, set_scene
from kanmodel.drawing.style import Theme
from kanmodel.drawing.svg import add, add_group, new_picture, serialise, shorten
from kanmodel.drawing.words import tell_cost
from kanmodel.explain.functions.curves import EdgeCurve
from kanmodel.explain.structure.ids import READOUT_KINDS
from kanmodel.explain.topology.graph import NetworkGraph

N_POINTS = 25  # of a curve: enough for its box
LINE = 16.0  # of text
BAND = 8.0  # of the ground under units, beyond them
CAPTIONS = {
    "feature": "features",
    "front": "front layer {}",
    "lstm": "LSTM units",
    "gru": "GRU units",
    "cell": "all steps",
    "head": "hidden layer {}",
    "output": "output",
}


def draw_topology(
    topology: NetworkGraph,
    curves: Sequence[EdgeCurve],
    name: str,
    unit: str | None,
    pruned: bool = True,
    color: Color = "score",
    theme: Theme = "auto",
) -> bytes:
    """The picture of a network, SVG.

    Args:
        topology: the network.
        curves: its kept edges, sampled.
        name: of the model.
        unit: of the contributions.
        pruned: whether what the rule does not keep is folded into one counted group a layer; else it stands there
            faintly.
        color: what a strong edge is: one of a high score, in opacity, as pykan draws it; or of a large contribution,
            in width. Without scores it is the contribution.
        theme: its colours.
    """
    topology = topology.upstream()
    scene = set_scene(topology, curves, unit, fold=pruned, color=color)
    layout, heading, cost = scene.layout, f"{name}: {topology.output}", tell_cost(topology, unit)
    # As role "img" it would hide its nodes and edges from a screen reader.
    root = new_picture(layout.width, layout.height, heading, cost, role="graphics-document document")
    add(root, "text", shorten(heading, 80), x=MARGIN, y=36.0, class_="heading")
    add(root, "text", cost, x=MARGIN, y=57.0, class_="cost muted")
    for row in layout.rows:
        _draw_caption(root, layout, row)
    if scene.has_front and any(row.kind in READOUT_KINDS for row in layout.rows):
        _draw_steps(root, layout)
    draw_links(root, scene)
    draw_nodes(root, scene)
    if scene.fold:
        for row in layout.rows:
            _draw_folded(root, layout, row)
    _draw_legend(root, scene)
    return serialise(root, theme)


def _draw_caption(root: Element, layout: Layout, row: Row) -> None:
    """The name of a layer, how much of it is kept, and the ground under what the head reads."""
    if row.kind in READOUT_KINDS:
        top, width, height = row.y - CHIP / 2 - BAND, layout.right - MARGIN, CHIP + 2 * BAND
        add(root, "rect", class_="band", x=MARGIN, y=top, width=width, height=height, rx=8)
    add(root, "text", CAPTIONS[row.kind].format(row.layer), x=MARGIN + 8, y=row.y - 2)
    kept = f"{len(row.kept)} of {len(row.kept) + len(row.pruned)} kept"
    add(root, "text", kept, x=MARGIN + 8, y=row.y + 12, class_="muted")


def _draw_steps(root: Element, layout: Layout) -> None:
    """The way from a front, which acts at every step, to what the head reads."""
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


def _draw_legend(root: Element, scene: Scene) -> None:
    """How to read it."""
    strength = "Opacity is pykan's score of an edge." if scene.by_score else "Width is an edge's mean |contribution|."
    lines = [f"A box is the function on an edge, over the 1st to 99th percentile of the data. {strength}"]
    if any(node.profile for node in scene.topology.nodes):
        lines.append("A bar is what a node is made of, in the colours of the features; a larger dot contributes more.")
    first = scene.layout.height - MARGIN - LINE * (len(lines) - 1)
    for index, line in enumerate(lines):
        add(root, "text", line, x=MARGIN, y=first + LINE * index, class_="legend muted")
