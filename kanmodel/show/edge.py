"""The picture of an edge: its curve, base and spline over the grid, and a histogram of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from textwrap import wrap

import numpy as np

from kanmodel.arrays import Array
from kanmodel.formula.symbolic import Candidate
from kanmodel.network.connections import label_of
from kanmodel.result import Theme, draw
from kanmodel.show.svg import LETTER, MARGIN, WIDTH, Element, Scale, new_canvas, scale_over
from kanmodel.structure.curves import Edge
from kanmodel.structure.topology import TopologyEdge, TopologyNode
from kanmodel.text import abbreviate, write_amount, write_figure

LEFT = 92.0  # of the plot
TOP, BOTTOM, LOW_TOP, LOW = 152.0, 392.0, 402.0, 452.0  # of the plot, and of the histogram below it
AXIS = 66.0  # height of the axis' labels
LINE = 18.0  # height of a line of text
KEY = 108.0  # width of an entry of the legend
TICK = 60.0  # pixels of the x axis for a tick
KNOT = 9.0  # length of a knot's tick
N_FORMULAS = 5
N_ALONG, N_UP = 66, 40  # most characters of a node's name along the x axis, of the usual width, and the y axis

Line = tuple[str, str, Array, Array]  # name, class, and values in model units


@draw.register
def draw_edge(
    curve: Edge,
    theme: Theme = "auto",
    *,
    output: str | None = None,
    unit: str | None = None,
    formulas: Sequence[Candidate] = (),
    width: float = WIDTH,
) -> bytes:
    """Draws the function on an edge as SVG, with the output to which it contributes, and formulas, best first.

    In another width, pixels, texts keep their size.
    """
    edge, shown, n_letters = curve.edge, formulas[:N_FORMULAS], int((width - 2 * MARGIN) / LETTER)
    lines = _list_lines(curve)
    keys = {name: (look, "h24") for name, look, *_ in lines}
    keys |= {"knot": ("knot", f"m18 {KNOT / 2:g}v{-KNOT:g}")} if len(curve.grid) else {}
    n_beside = max(1, int((width - MARGIN - LEFT + LINE) // KEY))  # entries of the legend side by side
    n_rows = ceil(len(keys) / n_beside)
    place = output or f"layer {edge.layer} of the {edge.stage}"
    heading, shape, worth = name_edge(edge), describe_shape(curve), " · ".join(list_worth(edge, unit))
    reads = f" {label_of(edge.source)} reads {edge.reads}." if edge.reads else ""
    facts = [line for text in (shape, worth) for line in wrap(text, n_letters)]
    down = LINE * (len(facts) - 2 + n_rows - 1)  # by which the plot is lower
    height = LOW + AXIS + (LINE * (len(shown) + 1.5) if shown else 0.0) + down
    root = new_canvas(width, height, heading, f"{shape}. {worth}.{reads}", curve.source, is_image=True)
    root.add_heading(heading, f"{curve.name}: {place}", int(84 * width / WIDTH), n_letters - 10)
    for index, fact in enumerate(facts):
        root.add_text(fact, MARGIN, 82.0 + LINE * index)
    plot = root.add("g", transform=f"translate(0 {down:g})") if down else root
    support, end = curve.support, width - MARGIN
    x = scale_over([*curve.x, support.histogram_edges[0], support.histogram_edges[-1]], LEFT, end)
    y = scale_over([value for *_, ys in lines for value in ys], BOTTOM, TOP, margin=0.06)
    _shade_outside(plot, curve, x)
    _add_axes(plot, curve, x, y)
    _add_histogram(plot, curve, x)
    for index, (name, (look, path)) in enumerate(keys.items()):
        if index < len(lines):
            *_, xs, ys = lines[index]
            plot.add_line(look, x.all_at(xs), y.all_at(ys))
        at, up = LEFT + index % n_beside * KEY, LINE * (index // n_beside - (n_rows - 1))
        plot.add_path(look, f"M{at} {TOP - 18 + up}{path}")
        plot.add_text(name, at + 30, TOP - 14 + up)
    for index, candidate in enumerate(shown):
        at = down + LOW + AXIS + LINE * (index + 0.5)
        fit = f"R2 {candidate.r2:.4f}, complexity {candidate.complexity}"
        root.add_text(abbreviate(candidate.expression, 80), LEFT, at)
        root.add_text(fit, width - MARGIN, at, "end muted")
    return root.serialise(theme)


def _list_lines(curve: Edge) -> list[Line]:
    """The lines to draw, the function last and so on top."""
    ends = np.array([curve.support.p01, curve.support.p99])
    parts = [
        ("symbolic", "part s5", curve.x, curve.symbolic),
        ("base", "part s2", curve.x, curve.base),
        ("spline", "part s6", curve.x, curve.spline),
    ]
    acting = [(name, look, xs, ys) for name, look, xs, ys in parts if ys is not None and ys.any()]
    return [
        *(acting if len(acting) > 1 else ()),  # a single one is the function
        ("nearest line", "part axis line", ends, curve.line.slope * ends + curve.line.intercept),
        ("function", "curve main", curve.x, curve.y),
    ]


def _shade_outside(root: Element, curve: Edge, x: Scale) -> None:
    """The regions outside the grid, where the basis decays to zero."""
    if curve.core is None:
        return
    low, high = (min(max(x.at(end), LEFT), x.end) for end in curve.core)
    for start, end in ((LEFT, low), (high, x.end)):
        if end > start:
            root.add_rect("shade", start, TOP, end - start, LOW - TOP).add("title", "outside the grid")
            if end - start > 90:
                root.add_text("outside the grid", (start + end) / 2, TOP + 14, "middle muted")


def _add_axes(root: Element, curve: Edge, x: Scale, y: Scale) -> None:
    """Both axes with ticks and names; x also in original units if it is a feature."""
    root.add_levels(y, LEFT, x.end)
    original, length = curve.x_original, curve.x[-1] - curve.x[0]
    if original is not None and np.allclose(curve.x, original):
        original = None
    slope = (original[-1] - original[0]) / length if original is not None and length > 0 else 0.0
    for value in x.ticks(min(6, int((x.end - LEFT) / TICK))):
        at = x.at(value)
        root.add_path("tick", f"M{at:.2f} {LOW}v5")
        root.add_text(f"{value:g}", at, LOW + LINE, "middle muted")
        if original is not None:
            amount = write_figure(float(original[0] + slope * (value - curve.x[0])), float(np.abs(original).max()))
            root.add_text(f"{amount} {curve.unit}" if curve.unit else amount, at, LOW + 2 * LINE, "middle muted")
    for bottom in (BOTTOM, LOW):
        root.add_path("axis", f"M{LEFT} {bottom}H{x.end}")
    source, target = (label_of(end) for end in (curve.edge.source, curve.edge.target))
    along = abbreviate(source, int(N_ALONG * (x.end - LEFT) / (WIDTH - MARGIN - LEFT)))
    along += ("" if curve.function_of == "input" else ", normalised") + " (model units)"
    reads = f" reads {curve.edge.reads}" if curve.edge.reads else ""
    root.add_text(along, x.end, LOW + (2 if original is None else 3) * LINE, "end").add("title", source + reads)
    up = f"what it adds to {abbreviate(target, N_UP)} (model units)"
    turned = f"translate(22 {(TOP + BOTTOM) / 2}) rotate(-90)"
    root.add("text", up, class_="middle", transform=turned).add("title", target)
    root.add_text("data", LEFT - 8, LOW - 18, "end")


def _add_histogram(root: Element, curve: Edge, x: Scale) -> None:
    """The inputs in bins below the plot, and the knots on its lower axis."""
    edges, counts = curve.support.histogram_edges, curve.support.histogram_counts
    heights = (counts / counts.max() * (LOW - LOW_TOP)).tolist()
    for low, high, count, height in zip(edges[:-1], edges[1:], counts, heights, strict=True):
        label = f"{count:.0f} values from {low:.3g} to {high:.3g}"
        bar, left = root.add_group(label, class_="bin", data_count=int(count)), x.at(low)
        bar.add_rect("bar", left, LOW - height, x.at(high) - left - 0.5, height)
    for knot in curve.grid.tolist():
        if x.low <= knot <= x.high:
            tick = root.add_path("knot", f"M{x.at(knot):.2f} {BOTTOM}v{-KNOT}", data_knot=f"{knot:.6g}")
            tick.add("title", f"knot at {knot:.3g}")


def name_edge(edge: TopologyEdge) -> str:
    """``lstm 3 → head 1:0``."""
    return f"{label_of(edge.source)} → {label_of(edge.target)}"


def list_worth(part: TopologyNode | TopologyEdge, unit: str | None) -> list[str]:
    """Contribution with its interval, backward score, and whether it is pruned, as far as known."""
    worth = []
    if part.contribution is not None:
        interval = "" if part.interval is None else " (95 % interval {:.3g} to {:.3g})".format(*part.interval)
        worth.append(f"mean |contribution| {write_amount(part.contribution, unit)}{interval}")
    if part.scores is not None:
        worth.append(f"backward score {part.scores['backward']:.3g}")
    if isinstance(part, TopologyEdge) and part.masked:
        worth.append("masked in the checkpoint")
    elif not part.kept:
        worth.append("pruned")
    return worth


def describe_shape(curve: Edge) -> str:
    """The verdict on the function of an edge."""
    line = f"a straight line has an R2 of {curve.line.r2:.3f} where the data lies"
    outside = curve.support.outside_grid or 0.0
    return {
        "linear": f"linear: {line}",
        "curved": f"curved: {line}",
        "flat": "flat: it moves what it enters by less than 1 %",
        "base_only": f"outside the grid lies {outside:.0%} of the data, where only the base acts",
    }[curve.shape]
