"""Pictures of other values of features: the forecast over each, and the changes that would move it to a goal."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isfinite

import numpy as np

from kanmodel.alternatives.counterfactual import Counterfactual, Counterfactuals
from kanmodel.alternatives.what_if import Curve, WhatIf
from kanmodel.network.config import BOUND
from kanmodel.result import Theme, draw
from kanmodel.show.style import VEIL
from kanmodel.show.svg import LETTER, MARGIN, WIDTH, Element, Scale, enclose, new_picture, scale_over
from kanmodel.text import abbreviate, abbreviate_words, with_unit, write_amount, write_change

LEFT, RIGHT = 76.0, 736.0  # ends of the panels of a what-if analysis
TOP = 122.0  # of the first panels
GAP, HEIGHT, BELOW = 26.0, 132.0, 58.0  # between panels in a row; of a panel; between rows, for axis and name
END = 22.0  # less below the last row
N_ALONG, N_PANELS = 3, 24  # panels in a row; those drawn, of the features that move the forecast most
N_LINES = 30  # windows drawn
BOLD = 7.2  # width of a letter of a name, roughly
ALONE_HEIGHT = 240.0  # of a single panel, which is as wide as the picture
START, STOP = 190.0, 520.0  # ends of the plots of counterfactuals; values before and after are right of them
FIRST, HEAD, BETWEEN = 74.0, 24.0, 26.0  # of the first window; height of its heading; between windows
ROW = 22.0  # height of a row, and of an axis
N_LEVEL = 6  # letters of a level that its label has room for, if there are many levels
ROUNDED = 1e-6  # of a change or a scale: a smaller value is shown as 0
N_WINDOWS = 5  # drawn with their counterfactuals


@draw.register
def draw_what_if(result: WhatIf, theme: Theme = "auto") -> bytes:
    """Draws the curves of the first output as SVG, a panel for each feature; of several windows with their mean.

    All panels have one scale of forecasts, the features that move them most first. Values outside the training range
    are shaded, and the curve there is dashed. Dashed rules are the actual value and the forecast of the window. Of one
    window intervals are bands, if their bounds are outputs. Levels have a ring each.
    """
    panels = [*zip(*result.curves, strict=True)]
    moves = [float(np.mean([np.ptp(curve.predictions[:, 0]) for curve in panel])) for panel in panels]
    drawn = [panels[number] for number in np.argsort(-np.array(moves), kind="stable").tolist()[:N_PANELS]]
    n_along = min(N_ALONG, len(drawn))
    height = HEIGHT if n_along > 1 else ALONE_HEIGHT
    bottom = TOP + ceil(len(drawn) / n_along) * (height + BELOW) - END
    heading, caption = f"{result.outputs[0]}: what if a feature were different", _describe(result, len(panels))
    root = new_picture(WIDTH, bottom, heading, caption, result.source, n_caption=120)
    is_shaded = any(one.outside_training_range.any() for panel in drawn for one in panel if not one.levels)
    _add_key(root, len(result) > 1, is_shaded)
    bounds = [name for name in result.outputs if BOUND.fullmatch(name)] if len(result) == 1 else []
    sides = ([result.outputs.index(name) for name in bounds if f":{side}@" in name] for side in ("lower", "upper"))
    intervals = [*zip(*sides, strict=True)]
    shown = [0, *(number for ends in intervals for number in ends)]
    forecasts = [float(value) for panel in drawn for one in panel for value in one.predictions[:, shown].ravel()]
    forecasts += [float(one.prediction[0]) for panel in drawn for one in panel]
    pitch = (RIGHT - LEFT + GAP) / n_along
    for number, panel in enumerate(drawn):
        row, column = divmod(number, n_along)
        top, left = TOP + row * (height + BELOW), LEFT + column * pitch
        y = scale_over(forecasts, top + height, top, margin=0.06)
        _add_panel(root, panel, left, left + pitch - GAP, y, result.units[0], intervals)
    return root.serialise(theme)


def _describe(result: WhatIf, n_panels: int) -> str:
    """The caption: what is forecast, and what is not drawn."""
    unit, n_outputs = result.units[0], len(result.outputs)
    caption = f"forecast{f' in {unit}' if unit else ''} with one feature changed and all others as they are"
    if any(BOUND.fullmatch(name) for name in result.outputs):
        caption += "; bands are its intervals" if len(result) == 1 else ""
    elif n_outputs > 1:
        caption += f"; the first of {n_outputs} outputs"
    return caption + (f"; {n_panels - N_PANELS} more features move it less" if n_panels > N_PANELS else "")


def _add_key(root: Element, are_several: bool, is_shaded: bool) -> None:
    """The legend."""
    entries = {"curve main": "forecast", "dashed": "the window as it is"}
    entries = {"curve main": "mean of the windows", "part s0": "each window"} if are_several else entries
    at = LEFT
    for look, name in (entries | ({"shade": "outside the training range"} if is_shaded else {})).items():
        if look == "shade":
            root.add_rect(look, at, 75.0, 24.0, 14.0)
        else:
            root.add_path(look, f"M{at:.2f} 82h24")
        root.add_text(name, at + 30, 86.0)
        at += 54 + LETTER * len(name)


def _add_panel(
    root: Element,
    curves: Sequence[Curve],
    left: float,
    right: float,
    y: Scale,
    of_target: str | None,
    intervals: Sequence[tuple[int, ...]],
) -> None:
    """One feature: its axes, the range of training, a line for each window with its intervals, and what it is now."""
    one, several, top, bottom = curves[0], len(curves) > 1, y.end, y.start
    drawn = [curves[number] for number in np.linspace(0, len(curves) - 1, min(N_LINES, len(curves))).astype(int)]
    present = [curve.actual for curve in drawn if isfinite(curve.actual)]
    x = scale_over([-0.5, len(one.levels) - 0.5] if one.levels else [*one.values, *present], left, right)
    group = root.add_group(_summarise(curves, of_target), class_="panel", data_feature=one.feature)
    low, high = min(curve.within[0] for curve in curves), max(curve.within[1] for curve in curves)
    ends = np.clip([low, high], x.low, x.high).tolist() if low <= high else [x.high, x.high]
    for start, end in ((x.low, ends[0]), (ends[1], x.high)):
        if end > start:
            shade = group.add_rect("shade", x.at(start), top, x.at(end) - x.at(start), bottom - top)
            shade.add("title", "outside the training range")
    group.add_levels(y, left, right, 4, is_labelled=left == LEFT)
    ticks = {value: f"{value:g}" for value in x.ticks(4 if right - left < 300 else 8)}
    if one.levels:
        apart = ceil(len(one.levels) / ((right - left) / (LETTER * N_LEVEL)))  # levels to each label
        most = max(3, int((right - left) / len(one.levels) * apart / LETTER) - 1)
        ticks = {float(place): abbreviate(one.levels[place], most) for place in range(0, len(one.levels), apart)}
    for value, label in ticks.items():
        group.add_path("tick", f"M{x.at(value):.2f} {bottom}v4")
        group.add_text(label, x.at(value), bottom + 16, "middle muted")
    group.add_path("axis", f"M{left:.2f} {bottom}H{right:.2f}")
    now = ""
    if not several and one.kind != "shift" and present:
        is_seen = abs(one.actual) > ROUNDED * (x.high - x.low)  # not a rounding error
        now = f"now {_write_actual(one, one.actual if is_seen else 0.0)}"
    unit = "" if one.unit is None else f" ({abbreviate_words(one.unit, 8)})"
    name = abbreviate(_name(one), int((right - left - LETTER * len(now)) / BOLD) - len(unit) - 1)
    group.add_text(name + unit, left, top - 6, "strong")
    if now:
        group.add_text(now, right, top - 6, "end muted")
    for of in reversed(intervals):  # the widest below the others
        area = enclose(x.all_at(one.values), *(y.all_at(one.predictions[:, number]) for number in of))
        group.add_path("rise", area, fill_opacity=VEIL)
    forecasts = np.mean([curve.predictions[:, 0] for curve in curves], axis=0)
    forecast = y.at(float(one.prediction[0]))
    if several:
        for curve in drawn:
            group.add_line("part s0", x.all_at(curve.values), y.all_at(curve.predictions[:, 0]))
        group.add_line("curve main", x.all_at(one.values), y.all_at(forecasts))
    else:
        group.add_path("dashed", f"M{left:.2f} {forecast:.2f}H{right:.2f}")
        if present:
            group.add_path("dashed", f"M{x.at(one.actual):.2f} {bottom}V{top}")
    if one.levels:
        for level, place, value in zip(one.points, one.values.tolist(), forecasts.tolist(), strict=True):
            group.add_circle("chip", x.at(place), y.at(value), 4.5).add("title", f"{level}: {value:.4g}")
    elif not several:  # dashed outside the training range
        group.add_line("curve line", x.all_at(one.values), y.all_at(forecasts))
        inside = one.values[(one.values > low) & (one.values < high)]
        bounds = np.clip([low, high], one.values[0], one.values[-1]) if low <= high else np.zeros(0)
        known = np.unique([*bounds, *inside])
        group.add_line("curve main", x.all_at(known), y.all_at(np.interp(known, one.values, forecasts)))
    if present and not several:
        group.add_circle("dot", x.at(one.actual), forecast, 3.5)


def _name(curve: Curve) -> str:
    return f"shift of {curve.label}" if curve.kind == "shift" else curve.label


def _write_actual(one: Curve, value: float, unit: str | None = None) -> str:
    """The value, or the level, of the window as it is."""
    return abbreviate(one.levels[round(value) % len(one.levels)]) if one.levels else write_amount(value, unit)


def _summarise(curves: Sequence[Curve], unit: str | None) -> str:
    """The tooltip of a panel."""
    one = curves[0]
    low, high = float(one.predictions[:, 0].min()), float(one.predictions[:, 0].max())
    first, last = one.points[0], one.points[-1]
    span = f"{first} to {last}" if one.levels else f"{first:.3g} to {write_amount(last, one.unit)}"
    if len(curves) > 1:
        return f"{_name(one)} from {span}, {len(curves)} windows"
    is_known = one.kind != "shift" and isfinite(one.actual)
    now = f"; now {_write_actual(one, one.actual, one.unit)}" if is_known else ""
    forecasts = f"forecast {low:.3g} to {write_amount(high, unit)}, {float(one.prediction[0]):.3g} as it is"
    return f"{_name(one)} from {span}: {forecasts}{now}"


@draw.register
def draw_counterfactuals(result: Counterfactuals, theme: Theme = "auto") -> bytes:
    """Draws as SVG how the forecast moves to the goal in the first windows, and with it each feature that changes.

    The features of all have one scale, training standard deviations.
    """
    drawn = result.counterfactuals[:N_WINDOWS]
    more, (first, last) = len(result) - len(drawn), result.steps
    heading = f"{with_unit(result.output, result.unit)}: what would make the forecast {result.goal}"
    caption = f"smallest change found, added at steps {first} to {last}; features in training standard deviations"
    caption += f"; {more} of {len(result)} windows are not drawn" if more else ""
    heights = [HEAD + ROW * (3 + len(one.changes)) + BETWEEN for one in drawn]
    root = new_picture(WIDTH, FIRST + sum(heights), heading, caption, result.source, n_caption=120)
    shifts = scale_over([0.0, *(change.shift_in_std for one in drawn for change in one.changes)], START, STOP, 0.06)
    top = FIRST
    for number, (one, height) in enumerate(zip(drawn, heights, strict=True)):
        name = result.times[number] if result.times else f"window {number}" if len(result) > 1 else ""
        _add_counterfactual(root, result, one, name, top, shifts)
        top += height
    return root.serialise(theme)


def _add_counterfactual(
    root: Element, result: Counterfactuals, one: Counterfactual, name: str, top: float, shifts: Scale
) -> None:
    """The forecast on a scale of its own, then a row for each change."""
    unit, bounds = result.unit, (result.goal.low, result.goal.high)
    found = "the goal is reached" if one.reached else "the goal is not reached"
    found = "nothing needs to change" if one.reached and not one.changes else found
    found = f"{name}: {found}" if name else found
    moved = _write_move(one.prediction, one.new_prediction, unit)
    group = root.add_group(f"{found}, {moved}")
    group.set("class", "window")
    group.add_text(abbreviate_words(found, 90), MARGIN, top + 12, "strong")
    y = top + HEAD
    x = scale_over([one.prediction, one.new_prediction, *filter(isfinite, bounds)], START, STOP, 0.12)
    start, end = (x.at(min(max(bound, x.low), x.high)) for bound in bounds)
    group.add_rect("shade", start, y, max(end - start, 1.0), ROW).add("title", f"goal: {result.goal}")
    for bound in filter(isfinite, bounds):
        group.add_path("dashed", f"M{x.at(bound):.2f} {y}v{ROW}")
    _add_move(group, "forecast", x, y, one.prediction, one.new_prediction, moved)
    _add_axis(group, x, y + ROW, unit)
    y += 2 * ROW + 4
    for change in one.changes:
        if change.shift is None or change.level:
            moved = amount = f"{change.level_before} → {change.level}"
        else:
            before = change.before if abs(change.before) > ROUNDED * abs(change.shift) else 0.0
            amount = write_change(change.shift, change.unit)
            moved = _write_move(before, before + change.shift, change.unit)
        label = f"{change.label}: {amount}, {change.shift_in_std:+.2g} std"
        line = group.add_group(label, class_="change", data_feature=change.feature)
        _add_move(line, change.label, shifts, y, 0.0, change.shift_in_std, moved)
        y += ROW
    if one.changes:
        _add_axis(group, shifts, y, "std")


def _add_move(group: Element, name: str, x: Scale, y: float, before: float, after: float, text: str) -> None:
    """A line from a ring, the value before, to a dot, the one after, with both as text."""
    middle = y + ROW / 2
    group.add_path("curve", f"M{x.at(before):.2f} {middle:g}H{x.at(after):.2f}")
    group.add_circle("chip", x.at(before), middle, 4)
    group.add_circle("dot", x.at(after), middle, 4)
    group.add_text(abbreviate(name), START - 12, y + 15, "end")
    group.add_text(text, STOP + 16, y + 15)


def _add_axis(group: Element, x: Scale, y: float, unit: str | None) -> None:
    """The ticks below the forecast, or below all features."""
    group.add_path("axis", f"M{START} {y:g}H{STOP}")
    for value in x.ticks():
        group.add_path("tick", f"M{x.at(value):.2f} {y:g}v4")
        group.add_text(f"{value:g}", x.at(value), y + 15, "middle muted")
    if unit:
        group.add_text(abbreviate(unit, 12), STOP + 16, y + 15, "muted")


def _write_move(before: float, after: float, unit: str | None) -> str:
    return f"{write_amount(before)} → {write_amount(after, None if unit is None else abbreviate(unit, 12))}"
