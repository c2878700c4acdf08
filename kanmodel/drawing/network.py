"""The picture of a network, as in pykan's plot: features at the bottom, the output on top, a curve on each edge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from xml.etree.ElementTree import Element

from kanmodel.drawing.layout import CHIP, FOLDED, MARGIN, STEP_GAP, Layout, Row
from kanmodel.drawing.links import draw_links
from kanmodel.drawing.nodes import draw_nodes
from kanmodel.drawing.scene import Color, Scene, set_scene
from kanmodel.drawing.style import Theme
from kanmodel.drawing.svg import add, add_group, add_name, new_picture, serialise
from kanmodel.drawing.words import tell_cost
from kanmodel.explain.functions.curves import EdgeCurve
from kanmodel.explain.structure.ids import READOUT_KINDS
from kanmodel.explain.topology.graph import NetworkGraph, TopologyEdge

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
