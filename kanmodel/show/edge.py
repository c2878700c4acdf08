"""The picture of an edge: its curve, base and spline over the grid, and a histogram of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from kanmodel.data import Array
from kanmodel.explain.curves import EdgeCurve
from kanmodel.explain.result import Theme
from kanmodel.explain.structure import label_of
from kanmodel.explain.symbolic import Candidate
from kanmodel.show.svg import (
    Scale,
    add,
    add_group,
    add_name,
    name_edge,
    new_picture,
    scale_over,
    serialise,
    shorten,
    tell_shape,
    tell_worth,
    write_amount,
    write_points,
)

WIDTH = 760.0
LEFT, RIGHT = 92.0, 736.0  # ends of the plot
TOP, BOTTOM = 152.0, 392.0
HISTOGRAM_TOP, HISTOGRAM_BOTTOM = 402.0, 452.0
AXIS = 66.0  # height of the axis' labels
LINE = 18.0  # height of a line of text
KEY = 108.0  # width of an entry of the legend
KNOT = 9.0  # length of a knot's tick
N_FORMULAS = 5
N_ALONG, N_UP = 66, 40  # most characters of a node's name along the x axis and the y axis


@dataclass(frozen=True)
class _Line:
    """A line of the plot: its name, its style, and its values, model units."""

    name: str
    class_: str
    x: Array
    y: Array


def draw_edge(
    curve: EdgeCurve,
    name: str,
    output: str,
    unit: str | None,
    formulas: Sequence[Candidate] = (),
    theme: Theme = "auto",
) -> bytes:
    """Draws the function on an edge as SVG.

    Args:
        curve: the sampled edge.
        name: name of the model.
        output: output to which it contributes.
        unit: of the contribution.
        formulas: formulas of the edge, best first.
        theme: colours.
    """
    shown = formulas[:N_FORMULAS]
    height = HISTOGRAM_BOTTOM + AXIS + (LINE * (len(shown) + 1.5) if shown else 0.0)
    heading, verdict, worth = name_edge(curve.edge), tell_shape(curve), " · ".join(tell_worth(curve.edge, unit))
    root = new_picture(WIDTH, height, heading, f"{verdict}. {worth}.", role="img")
    add_name(root, heading, 84, x=24.0, y=36.0, class_="heading")
    add_name(root, f"{name}: {output}", 108, x=24.0, y=57.0, class_="muted")
    add(root, "text", verdict, x=24.0, y=82.0)
    add(root, "text", worth, x=24.0, y=82.0 + LINE)
    _draw_plot(root, curve)
    for index, candidate in enumerate(shown):
        _draw_formula(root, candidate, HISTOGRAM_BOTTOM + AXIS + LINE * (index + 0.5))
    return serialise(root, theme)


def _draw_plot(root: Element, curve: EdgeCurve) -> None:
    lines, support = _find_lines(curve), curve.support.histogram_edges
    x = scale_over([*curve.x, support[0], support[-1]], LEFT, RIGHT)
    y = scale_over([value for line in lines for value in line.y], BOTTOM, TOP, margin=0.06)
    _draw_ground(root, curve, x)
    _draw_axes(root, curve, x, y)
    _draw_histogram(root, curve, x)
    _draw_knots(root, curve, x)
    for index, line in enumerate(lines):
        add(root, "polyline", class_=line.class_, points=write_points(x.all_at(line.x), y.all_at(line.y)))
        _draw_key(root, index, line.name, line.class_, "h24")
    if len(curve.grid):
        _draw_key(root, len(lines), "knot", "knot", f"m18 {KNOT / 2:g}v{-KNOT:g}")


def _find_lines(curve: EdgeCurve) -> list[_Line]:
    """The lines of the plot, the function last, and so on top."""
    ends = np.array([curve.support.p01, curve.support.p99])
    lines = [
        _Line("base", "part s2", curve.x, curve.base),
        _Line("spline", "part s6", curve.x, curve.spline),
        _Line("nearest line", "part line s4", ends, curve.line.slope * ends + curve.line.intercept),
        _Line("function", "curve main", curve.x, curve.y),
    ]
    if curve.symbolic is not None:
        lines.insert(0, _Line("symbolic", "part s5", curve.x, curve.symbolic))
    return lines


def _draw_ground(root: Element, curve: EdgeCurve, x: Scale) -> None:
    """The regions outside the grid, where the basis decays to zero."""
    if curve.core is None:
        return
    low, high = (min(max(x.at(end), LEFT), RIGHT) for end in curve.core)
    for start, end in ((LEFT, low), (high, RIGHT)):
        if end > start:
            shade = add(root, "rect", class_="shade", x=start, y=TOP, width=end - start, height=HISTOGRAM_BOTTOM - TOP)
            add(shade, "title", "outside the grid")
            if end - start > 90:
                add(root, "text", "outside the grid", x=(start + end) / 2, y=TOP + 14, class_="middle muted")


def _draw_axes(root: Element, curve: EdgeCurve, x: Scale, y: Scale) -> None:
    """Both axes with ticks and names; x also in original units if it is a feature."""
    has_original = curve.x_original is not None and not np.allclose(curve.x, curve.x_original)
    for value in y.ticks():
        at = y.at(value)
        add(root, "path", class_="rule", d=f"M{LEFT} {at:.2f}H{RIGHT}")
        add(root, "text", f"{value:g}", x=LEFT - 8, y=at + 4, class_="end muted")
    for value in x.ticks():
        at = x.at(value)
        add(root, "path", class_="tick", d=f"M{at:.2f} {HISTOGRAM_BOTTOM}v5")
        add(root, "text", f"{value:g}", x=at, y=HISTOGRAM_BOTTOM + LINE, class_="middle muted")
        if has_original:
            original = write_amount(_to_original(curve, value), curve.unit)
            add(root, "text", original, x=at, y=HISTOGRAM_BOTTOM + 2 * LINE, class_="middle muted")
    for bottom in (BOTTOM, HISTOGRAM_BOTTOM):
        add(root, "path", class_="axis", d=f"M{LEFT} {bottom}H{RIGHT}")
    source, target = (label_of(end) for end in (curve.edge.source, curve.edge.target))
    rows = 3 if has_original else 2
    shown = shorten(source, N_ALONG) + ("" if curve.function_of == "input" else ", normalised")
    below = add(root, "text", f"{shown} (model units)", x=RIGHT, y=HISTOGRAM_BOTTOM + rows * LINE, class_="end")
    turned = f"translate(22 {(TOP + BOTTOM) / 2}) rotate(-90)"
    beside = f"what it adds to {shorten(target, N_UP)} (model units)"
    for text, name in ((below, source), (add(root, "text", beside, class_="middle", transform=turned), target)):
        add(text, "title", name)
    add(root, "text", "data", x=LEFT - 8, y=HISTOGRAM_BOTTOM - 18, class_="end")


def _to_original(curve: EdgeCurve, value: float) -> float:
    """A value of x in the feature's original unit."""
    assert curve.x_original is not None
    x, original = curve.x, curve.x_original
    scale = (original[-1] - original[0]) / (x[-1] - x[0]) if x[-1] > x[0] else 0.0
    return float(original[0] + scale * (value - x[0]))


def _draw_histogram(root: Element, curve: EdgeCurve, x: Scale) -> None:
    """The histogram of the edge's inputs on the reference windows."""
    bounds, counts = curve.support.histogram_edges, curve.support.histogram_counts
    heights = counts / counts.max() * (HISTOGRAM_BOTTOM - HISTOGRAM_TOP)
    for low, high, count, height in zip(bounds, bounds[1:], counts, heights.tolist(), strict=False):
        label = f"{count:.0f} values from {low:.3g} to {high:.3g}"
        bar = add_group(root, label, class_="bin", data_count=int(count))
        left, right = x.at(low), x.at(high)
        add(bar, "rect", class_="bar", x=left, y=HISTOGRAM_BOTTOM - height, width=right - left - 0.5, height=height)


def _draw_knots(root: Element, curve: EdgeCurve, x: Scale) -> None:
    """The knots within the plot, as ticks at its bottom."""
    for knot in curve.grid.tolist():
        if x.low <= knot <= x.high:
            tick = add(root, "path", class_="knot", d=f"M{x.at(knot):.2f} {BOTTOM}v{-KNOT}", data_knot=f"{knot:.6g}")
            add(tick, "title", f"knot at {knot:.3g}")


def _draw_key(root: Element, place: int, name: str, class_: str, path: str) -> None:
    """An entry of the legend: a sample of a line, and its name."""
    x = LEFT + place * KEY
    add(root, "path", class_=class_, d=f"M{x} {TOP - 18}{path}")
    add(root, "text", name, x=x + 30, y=TOP - 14)


def _draw_formula(root: Element, candidate: Candidate, y: float) -> None:
    add(root, "text", shorten(candidate.expression, 80), x=LEFT, y=y)
    add(root, "text", f"R2 {candidate.r2:.4f}, complexity {candidate.complexity}", x=RIGHT, y=y, class_="end muted")
