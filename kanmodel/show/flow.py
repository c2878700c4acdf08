"""The signature picture: one forecast that flows from the features through the curves of a chain into its value.

A ribbon is as wide as the magnitude of a contribution, in one scale for the whole picture, and has the tone of its
sign; those that enter and leave a node are stacked there, and sum, with their signs, to the node's contribution (not
at the inputs of a layer norm, where only layers sum). The last sum is the change from the baseline's forecast.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from kanmodel.attribution.explanation import Explanation, FlowPicture
from kanmodel.attribution.paths.path import LedgerLayer
from kanmodel.errors import DataError
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import ModelConfig
from kanmodel.network.network import LayerKey
from kanmodel.result import Theme, draw
from kanmodel.show.network import span_layers
from kanmodel.show.svg import MARGIN, Element, Scale, enclose, look_of, new_canvas
from kanmodel.structure.curves import Edge, sample_edges
from kanmodel.structure.pruning import PruningRule
from kanmodel.structure.questions import lay_out
from kanmodel.text import abbreviate, abbreviate_words, write_amount, write_change, write_figure

Size = Literal["slide", "page"]

SIZES: dict[Size, tuple[float, float]] = {"slide": (1600.0, 900.0), "page": (1123.0, 794.0)}  # 16:9, A4 at 96 dpi
N_NODES, N_BOXES = {"slide": 10, "page": 8}, {"slide": 6, "page": 5}  # of a column, of a gap; of more, the rest is one
TOP, BOTTOM, LEFT, RIGHT = 116.0, 74.0, 190.0, 200.0  # around the columns
SOURCE = 20.0  # height of the line that `new_canvas` adds below
NODE, FILL = 12.0, 0.82  # width of a node's bar; share of a slot that ribbons take at most
MOST_BOX, BOX_SHARE = 128.0, 0.46  # largest side of a box, and its share of the distance between two columns
POINTS, PADDING, DENSITY = 61, 7.0, 0.24  # of a curve; inside a box; share of its height for the density of the data
VEIL, BEAD, LINE, LETTER = 0.5, 4.6, 15.0, 6.3
JUNCTION = 26.0  # side of a junction
REST = "rest"  # what is folded

End = tuple[str, int, int]  # ``node`` or ``box``, its column or gap, and its number there
Named = tuple[str, str, tuple[int, ...]]  # id, label and members of a node


@dataclass(frozen=True)
class FlowNode:
    """A node of the picture: an input, unit or node of the network, the output, or all that are folded.

    Attributes:
        id: of the node, ``input:{name}`` of merged features, ``rest:{column}`` of what is folded, ``output``.
        label: its name.
        members: its numbers in the layer, several of merged features and of what is folded.
        x, y: its middle, pixels.
        room: height of its slot, pixels.
    """

    id: str
    label: str
    members: tuple[int, ...]
    x: float
    y: float
    room: float


@dataclass(frozen=True)
class FlowBox:
    """A curve of the picture, or with no `curve` the junction of all other edges of its gap.

    Attributes:
        x, y: its middle, pixels.
        side: of the square, pixels.
        span: height of a box, in the units of `curve.y`: the same for all boxes of the gap.
        edges: how many it stands for.
        source, target: numbers of its nodes in their columns; None of a junction.
        key: (i, j) of the edge in its layer; None of a junction.
        curve: the function on the edge.
    """

    x: float
    y: float
    side: float
    span: float
    edges: int = 1
    source: int | None = None
    target: int | None = None
    key: tuple[int, int] | None = None
    curve: Edge | None = None


@dataclass(frozen=True)
class FlowLayout:
    """Where all is, which depends on the model, the output and the size alone, and not on the window.

    Attributes:
        width, height: of the picture, pixels.
        columns: of nodes, from the features to the output.
        boxes: of each gap between two columns; empty where edges have no curves.
    """

    width: float
    height: float
    columns: tuple[tuple[FlowNode, ...], ...]
    boxes: tuple[tuple[FlowBox, ...], ...]


def lay_out_flow(model: Forecaster, output: int, layers: Sequence[LedgerLayer], size: Size) -> FlowLayout:
    """The places of nodes and curves, and the common scales; `layers` are those of a ledger that have edges.

    A column has the sources of each such layer, the last one the output. Its nodes are ordered by their importance
    (`TopologyNode.contribution`, that of merged features summed), the largest on top, in slots from `TOP` to `BOTTOM`,
    of whose height half is shared evenly and half in proportion to the importance; of more than `N_NODES` the least
    important are one, the last. Columns are evenly spaced. In the middle of a gap whose edges have curves are boxes for
    the most important `N_BOXES` edges between nodes that are not folded, ordered by the mean number of their ends, and
    below them the junction of all others, if there are any. Boxes are squares; all of a gap show one span of y, the
    largest of the layer's curves, each around its own middle, and x from the 1st to the 99th percentile of the
    reference windows.
    """
    config, topology = model.config, lay_out(model, output, PruningRule())
    upstream = topology.upstream().kan_edges
    (width, height), most = SIZES[size], N_NODES[size]
    by_id = {node.id: node for node in topology.nodes}
    sampled: dict[LayerKey, list[Edge]] = {}
    of_layers = [edge for edge in upstream if (edge.stage, edge.layer) in {layer[:2] for layer in layers}]
    for curve in sample_edges(model, of_layers, POINTS):
        sampled.setdefault((curve.edge.stage, curve.edge.layer), []).append(curve)
    spans = span_layers([curve for curves in sampled.values() for curve in curves])
    bottom, pitch = height - BOTTOM, (width - LEFT - RIGHT) / len(layers)
    columns = list[tuple[FlowNode, ...]]()
    for number, layer in enumerate(layers):
        ids = list_ids(config, layer)
        merged: list[Named] = [(identity, by_id[identity].label, (n,)) for n, identity in enumerate(ids)]
        if ids[0].startswith("feature:"):
            at = {identity.removeprefix("feature:"): n for n, identity in enumerate(ids)}
            merged = [
                (f"input:{one.name}", one.label, tuple(at[name] for name in one.features)) for one in model.inputs
            ]
        worth = [sum(by_id[ids[member]].contribution or 0.0 for member in of) for *_, of in merged]
        order = sorted(range(len(merged)), key=lambda n: (-worth[n], n))
        shown = [merged[n] for n in (order if len(order) <= most else order[: most - 1])]
        shares = [worth[n] for n in order[: len(shown)]]
        if len(shown) < len(order):
            shares.append(sum(worth[n] for n in order[len(shown) :]))
            rest = tuple(sorted(member for n in order[most - 1 :] for member in merged[n][2]))
            shown.append((f"{REST}:{number}", f"{len(order) - most + 1} more", rest))
        columns.append(_place(shown, shares, LEFT + pitch * number, bottom))
    columns.append(_place([("output", config.outputs[output], ())], [1.0], LEFT + pitch * len(layers), bottom))
    boxes = list[tuple[FlowBox, ...]]()
    for number, layer in enumerate(layers):
        key = (layer.stage, layer.layer)
        chosen = sampled.get(key, [])
        chosen.sort(key=lambda curve: (-(curve.edge.contribution or 0.0), curve.edge.i, curve.edge.j))
        sources = _find_homes(columns[number])
        targets = _find_targets(config, key, columns[number + 1])
        ends = [(curve, sources[curve.edge.i], targets[curve.edge.j]) for curve in chosen]
        inner = [
            (source + target, curve, source, target)
            for curve, source, target in ends
            if not (is_rest(columns[number][source]) or is_rest(columns[number + 1][target]))
        ][: N_BOXES[size]]
        inner.sort(key=lambda box: box[0])
        n_boxes = len(inner) + (len(inner) < len(ends))
        if not ends:
            boxes.append(())
            continue
        slot = (bottom - TOP) / n_boxes
        side, x = min(MOST_BOX, slot - LINE - 6, BOX_SHARE * pitch), columns[number][0].x + pitch / 2
        span = spans[key][0] or 1.0
        of_gap = [
            FlowBox(x, TOP + slot * (n + 0.5), side, span, 1, source, target, (curve.edge.i, curve.edge.j), curve)
            for n, (_, curve, source, target) in enumerate(inner)
        ]
        if len(inner) < len(ends):
            y = TOP + slot * (n_boxes - 0.5)
            of_gap.append(FlowBox(x, y, min(side, JUNCTION), span, len(ends) - len(inner)))
        boxes.append(tuple(of_gap))
    return FlowLayout(width, height, tuple(columns), tuple(boxes))


def is_rest(node: FlowNode) -> bool:
    """Whether it is all that are folded."""
    return node.id.startswith(f"{REST}:")


def list_ids(config: ModelConfig, layer: LedgerLayer) -> Sequence[str]:
    """Ids of the nodes that the edges of a layer of a chain leave."""
    if layer.stage == "input":
        return [f"feature:{name}" for name in config.feature_names]
    return config.wiring.ids[layer.stage, layer.layer]


def _place(nodes: Sequence[Named], shares: Sequence[float], x: float, bottom: float) -> tuple[FlowNode, ...]:
    """A column of nodes, each with its slot."""
    whole, total = bottom - TOP, sum(shares)
    rooms = [whole * (0.5 / len(nodes) + 0.5 * (share / total if total > 0 else 1 / len(nodes))) for share in shares]
    middles = [TOP + sum(rooms[:n]) + room / 2 for n, room in enumerate(rooms)]
    return tuple(FlowNode(*node, x, y, room) for node, y, room in zip(nodes, middles, rooms, strict=True))


def _find_homes(column: Sequence[FlowNode]) -> dict[int, int]:
    """The number in its column of each member."""
    return {member: n for n, node in enumerate(column) for member in node.members}


def _find_targets(config: ModelConfig, key: LayerKey, column: Sequence[FlowNode]) -> Mapping[int, int]:
    """The number in the next column of the node of each sub-node; all are in the output's."""
    layer = config.stages[key[0]][key[1]] if key[0] in config.stages and key[1] < len(config.stages[key[0]]) else None
    homes = _find_homes(column)
    if layer is None:
        return homes
    members = layer.node_of_subnode or range(layer.n_out)
    return {j: homes.get(node, 0) for j, node in enumerate(members)}


@dataclass(frozen=True)
class Ribbon:
    """What flows from one place to another: nodes by their column and number, or boxes by their gap and number.

    Attributes:
        value: the contribution, with its sign, the target's unit.
    """

    source: End
    target: End
    value: float


def list_ribbons(layout: FlowLayout, config: ModelConfig, layers: Sequence[LedgerLayer]) -> Iterator[Ribbon]:
    """Yields the ribbons of the first window, those through a box one before and one after it."""
    for gap, layer in enumerate(layers):
        assert layer.edges is not None
        edges, sources = layer.edges[0], _find_homes(layout.columns[gap])  # (n_targets, n_sources)
        targets = _find_targets(config, (layer.stage, layer.layer), layout.columns[gap + 1])
        boxed = {box.key: n for n, box in enumerate(layout.boxes[gap]) if box.key is not None}
        junction = len(layout.boxes[gap]) - 1
        sums: dict[tuple[End, End], float] = {}
        for j, i in np.ndindex(edges.shape):
            if edges[j, i] == 0 and (i, j) not in boxed:
                continue  # such as an edge into another output
            ends: list[End] = [("node", gap, sources[i]), ("node", gap + 1, targets[j])]
            if layout.boxes[gap]:
                ends.insert(1, ("box", gap, boxed.get((i, j), junction)))
            for step in pairwise(ends):
                sums[step] = sums.get(step, 0.0) + float(edges[j, i])
        for (source, target), value in sums.items():
            yield Ribbon(source, target, value)


@draw.register
def draw_flow(picture: FlowPicture, theme: Theme = "light", *, size: Size = "slide") -> bytes:
    """Draws one window of an explanation as it flows through the network, SVG."""
    return _Flow(picture.explanation, size).draw(theme)


class _Flow:
    def __init__(self, explanation: Explanation, size: Size) -> None:
        model = explanation.model
        if len(explanation) != 1 or model is None:
            raise DataError("a flow is drawn of one window that a model has explained: take one, as e[0]")
        self.explanation, self.model, config = explanation, model, model.config
        if config.graph:
            why = "a flow is drawn of a chain of layers, but this model is a graph"
            raise DataError(f"{why}; training with linear=False makes a chain")
        self.layers = [layer for layer in explanation.layers if layer.edges is not None]
        self.layout = lay_out_flow(model, config.outputs.index(explanation.output), self.layers, size)
        self.ribbons = [*list_ribbons(self.layout, config, self.layers)]
        self.before, self.after = defaultdict[End, list[Ribbon]](list), defaultdict[End, list[Ribbon]](list)
        for ribbon in sorted(self.ribbons, key=lambda one: self._place(one.target)[1]):
            self.after[ribbon.source].append(ribbon)
        for ribbon in sorted(self.ribbons, key=lambda one: self._place(one.source)[1]):
            self.before[ribbon.target].append(ribbon)
        limits: list[tuple[float, float]] = []
        for column, nodes in enumerate(self.layout.columns):
            limits += [(self._stack(("node", column, n)), FILL * node.room) for n, node in enumerate(nodes)]
        for gap, boxes in enumerate(self.layout.boxes):
            limits += [(self._stack(("box", gap, n)), max(box.side, 40.0)) for n, box in enumerate(boxes)]
        self.scale = min((room / stack for stack, room in limits if stack > 0), default=1.0)  # pixels per unit

    def _place(self, end: End) -> tuple[float, float, float]:
        """Middle and half width of a node or a box."""
        kind, at, number = end
        if kind == "node":
            node = self.layout.columns[at][number]
            return node.x, node.y, NODE / 2
        box = self.layout.boxes[at][number]
        return box.x, box.y, box.side / 2

    def _stack(self, end: End) -> float:
        """The larger sum of magnitudes of what enters and what leaves."""
        return max(sum(abs(one.value) for one in side[end]) for side in (self.before, self.after))

    def draw(self, theme: Theme) -> bytes:
        explained, layout, unit = self.explanation, self.layout, self.explanation.unit
        value, start = float(explained.predictions[0]), explained.baseline_prediction
        target = explained.target_times or explained.times
        heading = f"{explained.output}: {write_amount(value, unit)}" + (f", {target[0]}" if target else "")
        change = f"{write_amount(start, unit)} for the baseline, {write_change(value - start, unit)} by this window"
        source = ", ".join(filter(None, (explained.source, f"made {self.model.provenance.created[:10]}")))
        root = new_canvas(layout.width, layout.height - SOURCE, heading, change, source)
        root.add_heading(heading, change, int(layout.width / 9), int(layout.width / LETTER))
        for number in range(len(self.layers)):
            self._add_caption(root, number)
        for ribbon in sorted(self.ribbons, key=lambda one: abs(one.value)):
            self._add_ribbon(root, ribbon)
        for gap, boxes in enumerate(layout.boxes):
            for number, box in enumerate(boxes):
                self._add_box(root, gap, number, box)
        for column, nodes in enumerate(layout.columns):
            for number, node in enumerate(nodes):
                self._add_node(root, column, number, node)
        self._add_legend(root, layout.height - SOURCE - MARGIN)
        return root.serialise(theme)

    def _edges_of(self, ribbon: Ribbon) -> tuple[float, float]:
        """The upper ends of a ribbon in the stacks of its source and its target, pixels."""
        tops = []
        for end, side in ((ribbon.source, self.after), (ribbon.target, self.before)):
            stack = side[end]
            at = self._place(end)[1] - self.scale * sum(abs(one.value) for one in stack) / 2
            tops.append(at + self.scale * sum(abs(one.value) for one in stack[: stack.index(ribbon)]))
        return tops[0], tops[1]

    def _add_ribbon(self, root: Element, ribbon: Ribbon) -> None:
        (x, _, half), (x_end, _, half_end) = self._place(ribbon.source), self._place(ribbon.target)
        x, x_end, size = x + half, x_end - half_end, abs(ribbon.value) * self.scale
        y, y_end = self._edges_of(ribbon)
        middle = (x + x_end) / 2
        path = (
            f"M{x:.2f} {y:.2f}C{middle:.2f} {y:.2f} {middle:.2f} {y_end:.2f} {x_end:.2f} {y_end:.2f}"
            f"v{size:.3f}C{middle:.2f} {y_end + size:.2f} {middle:.2f} {y + size:.2f} {x:.2f} {y + size:.2f}Z"
        )
        label = f"{self._name(ribbon.source)} → {self._name(ribbon.target)}: "
        group = root.add_group(label + write_change(ribbon.value, self.explanation.unit), class_="ribbon")
        ends = {"data_source": "-".join(map(str, ribbon.source)), "data_target": "-".join(map(str, ribbon.target))}
        size_of = {"data_value": repr(ribbon.value), "data_height": f"{size:.4f}"}
        group.add_path(look_of(ribbon.value), path, fill_opacity=VEIL, **ends, **size_of)

    def _name(self, end: End) -> str:
        kind, at, number = end
        if kind == "node":
            return self.layout.columns[at][number].label
        box = self.layout.boxes[at][number]
        if box.source is None or box.target is None:
            return "other edges"
        source, target = self.layout.columns[at][box.source], self.layout.columns[at + 1][box.target]
        return f"curve from {source.label} to {target.label}"

    def _add_node(self, root: Element, column: int, number: int, node: FlowNode) -> None:
        end, explained = ("node", column, number), self.explanation
        amount = sum(one.value for one in (self.after[end] or self.before[end]))
        height = max(2.0, self.scale * self._stack(end))
        change = write_change(amount, explained.unit)
        note = f" ({node.id})" if ":" in node.id else ""
        group = root.add_group(
            f"{node.label}{note}: {change}", class_="node", data_node=node.id, data_value=repr(amount)
        )
        group.add_rect("solid", node.x - NODE / 2, node.y - height / 2, NODE, height, rx=2)
        if column == 0:
            value = write_input(explained, self.model, node)
            n_letters = int((node.x - 2 * NODE - 10) / LETTER)
            x = node.x - NODE
            group.add_text(abbreviate(node.label, n_letters), x, node.y - 1, "end strong")
            told = abbreviate_words(f"{value}, {change}" if value else change, n_letters)
            group.add_text(told, x, node.y + LINE - 2, "end muted")
        elif node.id == "output":
            x, whole = node.x + NODE, float(explained.predictions[0])
            start = explained.baseline_prediction
            group.add_text(write_amount(whole, explained.unit), x, node.y - LINE, "heading")
            group.add_text(f"{change} by this window", x, node.y + 4, "strong")
            group.add_text(f"from {write_amount(start, explained.unit)},", x, node.y + LINE + 4, "muted")
            group.add_text("the baseline's forecast", x, node.y + 2 * LINE + 4, "muted")
        else:
            y = node.y - height / 2 - 5
            group.add_text(node.label, node.x, y, "middle strong halo")
            group.add_text(change, node.x, node.y + height / 2 + LINE - 3, "middle muted halo")

    def _add_box(self, root: Element, gap: int, number: int, box: FlowBox) -> None:
        end = ("box", gap, number)
        ribbons = self.before[end]
        change = write_change(sum(one.value for one in ribbons), self.explanation.unit)
        left, top = box.x - box.side / 2, box.y - box.side / 2
        group = root.add_group(f"{self._name(end)}: {change}", class_="curve-box")
        if box.curve is None or box.key is None:
            group.add_rect("dashed", left, top, box.side, box.side, rx=4)
            group.add_text(f"{box.edges} more: {change}", box.x, top + box.side + LINE - 2, "middle muted")
            return
        layer, (i, j), curve = self.layers[gap], box.key, box.curve
        assert layer.values is not None and layer.y is not None
        group.add_rect("box", left, top, box.side, box.side, rx=5)
        middle, span = float(curve.y.min() + curve.y.max()) / 2, box.span or 1.0
        low, high = float(curve.x[0]), float(curve.x[-1])
        high = high if high > low else low + 1.0
        x = Scale(low, high, left + PADDING, left + box.side - PADDING)
        room = box.side * (1 - DENSITY) - 2 * PADDING
        y = Scale(middle - span / 2, middle + span / 2, top + PADDING + room, top + PADDING)
        counts, ends = curve.support.histogram_counts, np.clip(curve.support.histogram_edges, low, high)
        floor, tallest = top + box.side - 2, max(float(counts.max()), 1.0)
        steps = np.repeat(ends, 2)[1:-1]
        heights = floor - np.repeat(counts, 2) / tallest * box.side * DENSITY
        group.add_path("bar", enclose(x.all_at(steps), [floor] * len(steps), heights.tolist()), fill_opacity=0.45)
        group.add_line("curve", x.all_at(curve.x), y.all_at(curve.y))
        value, of_value = float(layer.values[0, i]), float(layer.y[0, j, i])
        at = min(max(x.at(value), left + PADDING / 2), left + box.side - PADDING / 2)
        height = min(max(y.at(of_value), top + PADDING / 2), floor)
        bead = group.add_circle(look_of(sum(one.value for one in ribbons)), at, height, BEAD)
        bead.set("stroke-width", "1.4")
        bead.set("class", f"{bead.get('class')} bead")
        bead.set("data-x", repr(value))
        bead.set("data-y", repr(of_value))
        group.add_text(change, box.x, top + box.side + LINE - 4, "middle muted")

    def _add_caption(self, root: Element, number: int) -> None:
        if not (boxes := [box for box in self.layout.boxes[number] if box.curve is not None]):
            return
        curve, span = boxes[0].curve, write_figure(boxes[0].span)
        if curve is not None and curve.y_original is not None and float(np.ptp(curve.y)):
            ratio = float(np.ptp(curve.y_original)) / float(np.ptp(curve.y))
            span = write_amount(boxes[0].span * ratio, self.explanation.unit)
        root.add_text(f"height of a box: {span}", boxes[0].x, TOP - 18, "middle muted")

    def _add_legend(self, root: Element, y: float) -> None:
        """What widths and tones mean."""
        per = 10 ** np.floor(np.log10(28 / self.scale)) if self.scale else 1.0
        root.add_rect("rise", MARGIN, y - 9, 18, 10, fill_opacity=VEIL)
        root.add_text("raises", MARGIN + 23, y, "muted")
        root.add_rect("fall", MARGIN + 72, y - 9, 18, 10, fill_opacity=VEIL)
        root.add_text("lowers", MARGIN + 95, y, "muted")
        height = float(per) * self.scale
        root.add_rect("bar", MARGIN + 150, y - height, 6, height)
        text = f"{write_amount(float(per), self.explanation.unit)} of a ribbon's width; ribbons sum at every node, with"
        text += (
            " their signs. Curves of one column have one scale; grey is where the data are, the bead is this window."
        )
        root.add_text(abbreviate_words(text, int((self.layout.width - 220) / 5.6)), MARGIN + 164, y, "muted")


def write_input(explanation: Explanation, model: Forecaster, node: FlowNode) -> str:
    """The newest value of an input in words; empty for what is folded."""
    if explanation.windows is None or not node.id.startswith("input:"):
        return ""
    one = model.inputs.of_feature[model.config.feature_names[node.members[0]]]
    return one.write(float(one.decode(explanation.windows[0, -1])))
