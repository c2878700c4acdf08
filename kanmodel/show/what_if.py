"""The picture of a what-if analysis: a panel for each feature, with the forecast over its values or shifts."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isfinite

import numpy as np

from kanmodel.alternatives.what_if import Curve, WhatIf
from kanmodel.arrays import Array
from kanmodel.network.config import BOUND
from kanmodel.result import Theme, draw
from kanmodel.show.style import VEIL
from kanmodel.show.svg import (
    LETTER,
    Part,
    Scale,
    enclose,
    new_picture,
    scale_over,
    write_amount,
    write_points,
)
from kanmodel.text import abbreviate, abbreviate_words

WIDTH, LEFT, RIGHT = 760.0, 76.0, 736.0
TOP = 122.0  # of the first panels
GAP, HEIGHT, BELOW = 26.0, 132.0, 58.0  # between panels in a row; of a panel; between rows, for axis and name
END = 22.0  # less below the last row
N_ALONG, N_PANELS = 3, 24  # panels in a row; those drawn, of the features that move the forecast most
N_LINES = 30  # windows drawn
BOLD = 7.2  # width of a letter of a name, roughly
ALONE, ALONE_HEIGHT = 1, 240.0  # a single panel is as wide as the picture, and higher


@draw.register
def draw_what_if(result: WhatIf, theme: Theme = "auto") -> bytes:
    """Draws the curves of the first output as SVG, a panel for each feature; of several windows with their mean.

    All panels have one scale of forecasts, the features that move them most first. Values outside the training range
    are shaded, and the curve there is dashed. Dashed rules are the actual value and the forecast of the window. Of one
    window intervals are bands, if their bounds are outputs. Levels have a ring each.
    """
    panels = [tuple(curves) for curves in zip(*result.curves, strict=True)]
    moves = [float(np.mean([np.ptp(curve.predictions[:, 0]) for curve in panel])) for panel in panels]
    drawn = [panels[number] for number in np.argsort(-np.array(moves), kind="stable").tolist()[:N_PANELS]]
    n_along = min(N_ALONG, len(drawn))
    height = ALONE_HEIGHT if n_along == ALONE else HEIGHT
    heading = f"{result.outputs[0]}: what if a feature were different"
    caption = _describe(result, len(panels) - len(drawn))
    bottom = TOP + ceil(len(drawn) / n_along) * (height + BELOW) - END
    root = new_picture(WIDTH, bottom, heading, caption, result.source)
    root.add_heading(heading, caption, n_caption=120)
    ranges = [curve for panel in drawn for curve in panel if not curve.levels]
    _add_key(root, len(result) > 1, any(curve.outside_training_range.any() for curve in ranges))
    bounds = (
        {name: number for number, name in enumerate(result.outputs) if BOUND.fullmatch(name)}
        if len(result) == 1
        else {}
    )
    lower, upper = ([at for name, at in bounds.items() if f":{side}@" in name] for side in ("lower", "upper"))
    shown = [0, *lower, *upper]
    forecasts = [float(value) for panel in drawn for one in panel for value in one.predictions[:, shown].ravel()]
    forecasts += [float(one.prediction[0]) for panel in drawn for one in panel]
    pitch = (RIGHT - LEFT + GAP) / n_along
    for number, panel in enumerate(drawn):
        row, column = divmod(number, n_along)
        top, left = TOP + row * (height + BELOW), LEFT + column * pitch
        y = scale_over(forecasts, top + height, top, margin=0.06)
        intervals = [*zip(lower, upper, strict=True)]
        _add_panel(root, panel, left, left + pitch - GAP, y, result.units[0], intervals, is_first=column == 0)
    return root.serialise(theme)


def _describe(result: WhatIf, n_left_out: int) -> str:
    """The caption: what is forecast, and what is not drawn."""
    unit, n_outputs = result.units[0], len(result.outputs)
    parts = [f"forecast{f' in {unit}' if unit else ''} with one feature changed and all others as they are"]
    if any(BOUND.fullmatch(name) for name in result.outputs):
        parts += ["bands are its intervals"] if len(result) == 1 else []
    elif n_outputs > 1:
        parts += [f"the first of {n_outputs} outputs"]
    parts += [f"{n_left_out} more features move it less"] if n_left_out else []
    return "; ".join(parts)


def _add_key(root: Part, are_several: bool, is_shaded: bool) -> None:
    """The legend."""
    of_one = [("curve main", "forecast"), ("dashed", "the window as it is")]
    names = [("curve main", "mean of the windows"), ("part s0", "each window")] if are_several else of_one
    at = LEFT
    for class_, name in [*names, *([("shade", "outside the training range")] if is_shaded else [])]:
        if class_ == "shade":
            root.add("rect", class_=class_, x=at, y=75.0, width=24.0, height=14.0)
        else:
            root.add("path", class_=class_, d=f"M{at:.2f} 82h24")
        root.add("text", name, x=at + 30, y=86.0)
        at += 54 + LETTER * len(name)


def _add_panel(
    root: Part,
    curves: Sequence[Curve],
    left: float,
    right: float,
    y: Scale,
    of_target: str | None,
    intervals: Sequence[tuple[int, int]],
    is_first: bool,
) -> None:
    """One feature: its axes, the range of training, a line for each window with its intervals, and what it is now."""
    one, several = curves[0], len(curves) > 1
    drawn = [curves[number] for number in np.linspace(0, len(curves) - 1, min(N_LINES, len(curves))).astype(int)]
    present = [curve.actual for curve in drawn if isfinite(curve.actual)]
    x = scale_over([-0.5, len(one.levels) - 0.5] if one.levels else [*one.values, *present], left, right)
    name = f"shift of {one.feature}" if one.kind == "shift" else one.feature
    group = root.add_group(_summarise(curves, of_target), class_="panel", data_feature=one.feature)
    top, bottom = y.end, y.start
    low, high = min(curve.within[0] for curve in curves), max(curve.within[1] for curve in curves)
    ends = np.clip([low, high], x.low, x.high).tolist() if low <= high else [x.high, x.high]
    for start, end in ((x.low, ends[0]), (ends[1], x.high)):
        if end > start:
            at = {"x": x.at(start), "y": top, "width": x.at(end) - x.at(start), "height": bottom - top}
            group.add("rect", class_="shade", **at).add("title", "outside the training range")
    group.add_levels(y, left, right, 4, is_first)
    ticks = {value: f"{value:g}" for value in x.ticks(4 if right - left < 300 else 8)}
    if one.levels:
        most = max(3, int((right - left) / len(one.levels) / LETTER) - 1)
        ticks = {float(place): abbreviate(level, most) for place, level in enumerate(one.levels)}
    for value, label in ticks.items():
        group.add("path", class_="tick", d=f"M{x.at(value):.2f} {bottom}v4")
        group.add("text", label, x=x.at(value), y=bottom + 16, class_="middle muted")
    group.add("path", class_="axis", d=f"M{left:.2f} {bottom}H{right:.2f}")
    unit = "" if one.unit is None else f" ({abbreviate_words(one.unit, 8)})"
    now = (
        ""
        if several or one.kind == "shift" or not present
        else f"now {_write_actual(one, _round(one.actual, x), None)}"
    )
    length = int((right - left - LETTER * len(now)) / BOLD) - len(unit) - 1
    group.add("text", abbreviate(name, length) + unit, x=left, y=top - 6, class_="strong")
    if now:
        group.add("text", now, x=right, y=top - 6, class_="end muted")
    for of in reversed(intervals):  # the widest below the others
        ends = (y.all_at(one.predictions[:, number]) for number in of)
        group.add("path", class_="rise", d=enclose(x.all_at(one.values), *ends), fill_opacity=VEIL)
    if several:
        for curve in drawn:
            group.add("polyline", class_="part s0", points=_place(x, y, curve.values, curve.predictions[:, 0]))
        mean = np.mean([curve.predictions[:, 0] for curve in curves], axis=0)
        group.add("polyline", class_="curve main", points=_place(x, y, one.values, mean))
        if one.levels:
            _add_rings(group, one, x, y, mean)
        return
    forecast = float(one.prediction[0])
    group.add("path", class_="dashed", d=f"M{left:.2f} {y.at(forecast):.2f}H{right:.2f}")
    if present:
        group.add("path", class_="dashed", d=f"M{x.at(one.actual):.2f} {bottom}V{top}")
    if one.levels:
        _add_rings(group, one, x, y, one.predictions[:, 0])
    else:
        _add_curve(group, one, x, y, low, high)
    if present:
        group.add("circle", class_="dot", cx=x.at(one.actual), cy=y.at(forecast), r=3.5)


def _add_curve(group: Part, one: Curve, x: Scale, y: Scale, low: float, high: float) -> None:
    """The forecasts over the values of one window, dashed outside the training range from low to high."""
    predictions = one.predictions[:, 0]
    group.add("polyline", class_="curve line", points=_place(x, y, one.values, predictions))
    inside = one.values[(one.values > low) & (one.values < high)]
    bounds = np.clip([low, high], one.values[0], one.values[-1]) if low <= high else np.zeros(0)
    known = np.unique([*bounds, *inside])
    group.add("polyline", class_="curve main", points=_place(x, y, known, np.interp(known, one.values, predictions)))


def _add_rings(group: Part, one: Curve, x: Scale, y: Scale, forecasts: Array) -> None:
    """A ring for the forecast with each level."""
    for level, place, forecast in zip(one.points, one.values.tolist(), forecasts.tolist(), strict=True):
        ring = group.add("circle", class_="chip", cx=x.at(place), cy=y.at(forecast), r=4.5)
        ring.add("title", f"{level}: {forecast:.4g}")


def _write_actual(one: Curve, value: float, unit: str | None) -> str:
    """The value, or the level, of the window as it is."""
    return abbreviate(one.levels[int(value)]) if one.levels else write_amount(value, unit)


def _place(x: Scale, y: Scale, values: Array, forecasts: Array) -> str:
    return write_points(x.all_at(values), y.all_at(forecasts))


def _round(value: float, x: Scale) -> float:
    """Zero for what is too small to be seen, such as a rounding error."""
    return value if abs(value) > 1e-6 * (x.high - x.low) else 0.0


def _summarise(curves: Sequence[Curve], unit: str | None) -> str:
    """The tooltip of a panel."""
    one = curves[0]
    low, high = float(one.predictions[:, 0].min()), float(one.predictions[:, 0].max())
    first, last = one.points[0], one.points[-1]
    span = f"{first} to {last}" if one.levels else f"{first:.3g} to {write_amount(last, one.unit)}"
    what = f"{'shift of ' if one.kind == 'shift' else ''}{one.feature} from {span}"
    if len(curves) > 1:
        return f"{what}, {len(curves)} windows"
    is_known = one.kind != "shift" and isfinite(one.actual)
    now = f"; now {_write_actual(one, one.actual, one.unit)}" if is_known else ""
    return f"{what}: forecast {low:.3g} to {write_amount(high, unit)}, {float(one.prediction[0]):.3g} as it is{now}"
