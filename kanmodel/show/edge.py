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
from kanmodel.show.svg import LETTER, MARGIN, Part, Scale, new_picture, scale_over, write_amount, write_points
from kanmodel.structure.curves import Edge
from kanmodel.structure.edges import TopologyEdge
from kanmodel.structure.topology import TopologyNode
from kanmodel.text import abbreviate, write_figure

WIDTH = 760.0
LEFT = 92.0  # of the plot
TOP, BOTTOM = 152.0, 392.0
HISTOGRAM_TOP, HISTOGRAM_BOTTOM = 402.0, 452.0
AXIS = 66.0  # height of the axis' labels
LINE = 18.0  # height of a line of text
KEY = 108.0  # width of an entry of the legend
TICK = 60.0  # pixels of the x axis for a tick
KNOT = 9.0  # length of a knot's tick
N_FORMULAS = 5
N_ALONG, N_UP = 66, 40  # most characters of a node's name along the x axis, of the usual width, and the y axis


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
    shown = formulas[:N_FORMULAS]
    lines, n_letters = _list_lines(curve), int((width - 2 * MARGIN) / LETTER)
    n_beside = max(1, int((width - MARGIN - LEFT + LINE) // KEY))  # entries of the legend side by side
    rows = ceil((len(lines) + bool(len(curve.grid))) / n_beside)
    height = HISTOGRAM_BOTTOM + AXIS + (LINE * (len(shown) + 1.5) if shown else 0.0)
    place = output or f"layer {curve.edge.layer} of the {curve.edge.stage}"
    heading, shape, worth = name_edge(curve.edge), describe_shape(curve), " · ".join(list_worth(curve.edge, unit))
    reads = f" {label_of(curve.edge.source)} reads {curve.edge.reads}." if curve.edge.reads else ""
    facts = [line for text in (shape, worth) for line in wrap(text, n_letters)]
    down = LINE * (len(facts) - 2 + rows - 1)  # by which the plot is lower
    height += down
    root = new_picture(width, height, heading, f"{shape}. {worth}.{reads}", curve.source, role="img")
    root.add_heading(heading, f"{curve.name}: {place}", int(84 * width / WIDTH), n_letters - 10)
    for index, fact in enumerate(facts):
        root.add("text", fact, x=MARGIN, y=82.0 + LINE * index)
    plot = root.add("g", transform=f"translate(0 {down:g})") if down else root
    _add_plot(plot, curve, lines, width, n_beside)
    for index, candidate in enumerate(shown):
        y, fit = down + HISTOGRAM_BOTTOM + AXIS + LINE * (index + 0.5), f"R2 {candidate.r2:.4f}"
        root.add("text", abbreviate(candidate.expression, 80), x=LEFT, y=y)
        root.add("text", f"{fit}, complexity {candidate.complexity}", x=width - MARGIN, y=y, class_="end muted")
    return root.serialise(theme)


Line = tuple[str, str, Array, Array]


def _list_lines(curve: Edge) -> list[Line]:
    """Name, class, and values of each line in model units, the function last and so on top."""
    ends = np.array([curve.support.p01, curve.support.p99])
    parts = [
        ("symbolic", "part s5", curve.x, curve.symbolic),
        ("base", "part s2", curve.x, curve.base),
        ("spline", "part s6", curve.x, curve.spline),
    ]
    acting = [(name, class_, xs, ys) for name, class_, xs, ys in parts if ys is not None and ys.any()]
    return [
        *(acting if len(acting) > 1 else ()),  # a single one is the function
        ("nearest line", "part axis line", ends, curve.line.slope * ends + curve.line.intercept),
        ("function", "curve main", curve.x, curve.y),
    ]


def _add_plot(root: Part, curve: Edge, drawn: Sequence[Line], width: float, n_beside: int) -> None:
    """The lines with axes, knots, legend, and the histogram of the inputs below."""
    support = curve.support
    x = scale_over([*curve.x, support.histogram_edges[0], support.histogram_edges[-1]], LEFT, width - MARGIN)
    y = scale_over([value for *_, ys in drawn for value in ys], BOTTOM, TOP, margin=0.06)
    _shade_outside(root, curve, x)
    _add_axes(root, curve, x, y)

    counts = support.histogram_counts
    heights = counts / counts.max() * (HISTOGRAM_BOTTOM - HISTOGRAM_TOP)
    bounds = zip(support.histogram_edges, support.histogram_edges[1:], strict=False)
    for (low, high), count, height in zip(bounds, counts, heights.tolist(), strict=True):
        label = f"{count:.0f} values from {low:.3g} to {high:.3g}"
        bar = root.add_group(label, class_="bin", data_count=int(count))
        left, right = x.at(low), x.at(high)
        bar.add("rect", class_="bar", x=left, y=HISTOGRAM_BOTTOM - height, width=right - left - 0.5, height=height)
    for knot in curve.grid.tolist():
        if x.low <= knot <= x.high:
            tick = root.add("path", class_="knot", d=f"M{x.at(knot):.2f} {BOTTOM}v{-KNOT}", data_knot=f"{knot:.6g}")
            tick.add("title", f"knot at {knot:.3g}")

    n_keys = len(drawn) + bool(len(curve.grid))

    def add_key(place: int, name: str, class_: str, path: str) -> None:
        """An entry of the legend: a sample of a line, and its name."""
        at, up = LEFT + place % n_beside * KEY, LINE * (place // n_beside - (n_keys - 1) // n_beside)
        root.add("path", class_=class_, d=f"M{at} {TOP - 18 + up}{path}")
        root.add("text", name, x=at + 30, y=TOP - 14 + up)

    for index, (name, class_, xs, ys) in enumerate(drawn):
        root.add("polyline", class_=class_, points=write_points(x.all_at(xs), y.all_at(ys)))
        add_key(index, name, class_, "h24")
    if len(curve.grid):
        add_key(len(drawn), "knot", "knot", f"m18 {KNOT / 2:g}v{-KNOT:g}")


def _shade_outside(root: Part, curve: Edge, x: Scale) -> None:
    """The regions outside the grid, where the basis decays to zero."""
    if curve.core is None:
        return
    low, high = (min(max(x.at(end), LEFT), x.end) for end in curve.core)
    for start, end in ((LEFT, low), (high, x.end)):
        if end > start:
            shade = root.add("rect", class_="shade", x=start, y=TOP, width=end - start, height=HISTOGRAM_BOTTOM - TOP)
            shade.add("title", "outside the grid")
            if end - start > 90:
                root.add("text", "outside the grid", x=(start + end) / 2, y=TOP + 14, class_="middle muted")


def _add_axes(root: Part, curve: Edge, x: Scale, y: Scale) -> None:
    """Both axes with ticks and names; x also in original units if it is a feature."""
    root.add_levels(y, LEFT, x.end)
    original, length = curve.x_original, curve.x[-1] - curve.x[0]
    if original is not None and np.allclose(curve.x, original):
        original = None
    slope = (original[-1] - original[0]) / length if original is not None and length > 0 else 0.0
    for value in x.ticks(min(6, int((x.end - LEFT) / TICK))):
        at = x.at(value)
        root.add("path", class_="tick", d=f"M{at:.2f} {HISTOGRAM_BOTTOM}v5")
        root.add("text", f"{value:g}", x=at, y=HISTOGRAM_BOTTOM + LINE, class_="middle muted")
        if original is not None:
            amount = write_figure(float(original[0] + slope * (value - curve.x[0])), float(np.abs(original).max()))
            amount += f" {curve.unit}" if curve.unit else ""
            root.add("text", amount, x=at, y=HISTOGRAM_BOTTOM + 2 * LINE, class_="middle muted")
    for bottom in (BOTTOM, HISTOGRAM_BOTTOM):
        root.add("path", class_="axis", d=f"M{LEFT} {bottom}H{x.end}")
    source, target = (label_of(end) for end in (curve.edge.source, curve.edge.target))
    along = (
        abbreviate(source, int(N_ALONG * (x.end - LEFT) / (WIDTH - MARGIN - LEFT)))
        + ("" if curve.function_of == "input" else ", normalised")
        + " (model units)"
    )
    y_along = HISTOGRAM_BOTTOM + (2 if original is None else 3) * LINE
    reads = f" reads {curve.edge.reads}" if curve.edge.reads else ""
    root.add("text", along, x=x.end, y=y_along, class_="end").add("title", source + reads)
    up = f"what it adds to {abbreviate(target, N_UP)} (model units)"
    turned = f"translate(22 {(TOP + BOTTOM) / 2}) rotate(-90)"
    root.add("text", up, class_="middle", transform=turned).add("title", target)
    root.add("text", "data", x=LEFT - 8, y=HISTOGRAM_BOTTOM - 18, class_="end")


def name_edge(edge: TopologyEdge) -> str:
    """``lstm 3 → head 1:0``."""
    return f"{label_of(edge.source)} → {label_of(edge.target)}"


def list_worth(part: TopologyNode | TopologyEdge, unit: str | None) -> list[str]:
    """Contribution with its interval, backward score, and whether it is pruned, as far as known."""
    worth = []
    if part.contribution is not None:
        worth.append(f"mean |contribution| {write_amount(part.contribution, unit)}")
        if part.interval is not None:
            worth[-1] += " (95 % interval {:.3g} to {:.3g})".format(*part.interval)
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
