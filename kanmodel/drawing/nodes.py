"""The nodes of a network: features as dots, other nodes as chips with the bar of their profile."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from xml.etree.ElementTree import Element

from kanmodel.drawing.layout import CHARACTER, CHIP, Point
from kanmodel.drawing.scene import Scene
from kanmodel.drawing.svg import add, add_group, shorten
from kanmodel.drawing.words import tell_node
from kanmodel.explain.topology.graph import TopologyNode

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
