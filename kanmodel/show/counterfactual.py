"""The picture of counterfactuals: the forecast moves to the goal, and the features that change, before and after."""

from __future__ import annotations

from math import isfinite

from kanmodel.alternatives.counterfactual import Counterfactual, Counterfactuals
from kanmodel.result import Theme, draw
from kanmodel.show.svg import MARGIN, Part, Scale, new_picture, scale_over, write_amount, write_change
from kanmodel.text import abbreviate, abbreviate_words, with_unit

WIDTH = 760.0
LEFT, RIGHT = 190.0, 520.0  # ends of a plot; values before and after are right of it
TOP, HEAD, GAP = 74.0, 24.0, 26.0  # of the first window; height of its heading; between windows
ROW, AXIS = 22.0, 22.0
ROUNDED = 1e-6  # of a change: a smaller value is shown as 0
N_BLOCKS = 5  # windows drawn


@draw.register
def draw_counterfactuals(result: Counterfactuals, theme: Theme = "auto") -> bytes:
    """Draws the first windows as SVG. The features of all have one scale, training standard deviations."""
    drawn = result.counterfactuals[:N_BLOCKS]
    more = len(result) - len(drawn)
    first, last = result.steps
    heading = f"{with_unit(result.output, result.unit)}: what would make the forecast {result.goal}"
    caption = f"smallest change found, added at steps {first} to {last}; features in training standard deviations"
    caption += f"; {more} of {len(result)} windows are not drawn" if more else ""
    heights = [HEAD + ROW * (1 + len(one.changes)) + 2 * AXIS + GAP for one in drawn]
    root = new_picture(WIDTH, TOP + sum(heights), heading, caption, result.source)
    root.add_heading(heading, caption, n_caption=120)
    shifts = scale_over([0.0, *(change.shift_in_std for one in drawn for change in one.changes)], LEFT, RIGHT, 0.06)
    top = TOP
    for number, (one, height) in enumerate(zip(drawn, heights, strict=True)):
        name = result.times[number] if result.times else f"window {number}" if len(result) > 1 else ""
        _add_window(root, result, one, name, top, shifts)
        top += height
    return root.serialise(theme)


def _add_window(root: Part, result: Counterfactuals, one: Counterfactual, name: str, top: float, shifts: Scale) -> None:
    """The forecast on a scale of its own, then a row for each change."""
    unit, (low, high) = result.unit, (result.goal.low, result.goal.high)
    found = "the goal is reached" if one.reached else "the goal is not reached"
    found = "nothing needs to change" if one.reached and not one.changes else found
    group = root.add_group(
        f"{name + ': ' if name else ''}{found}, {_write_move(one.prediction, one.new_prediction, unit)}"
    )
    group.set("class", "window")
    group.add(
        "text", abbreviate_words(f"{name}: {found}" if name else found, 90), x=MARGIN, y=top + 12, class_="strong"
    )
    y = top + HEAD
    x = scale_over([one.prediction, one.new_prediction, *filter(isfinite, (low, high))], LEFT, RIGHT, 0.12)
    start, end = (x.at(min(max(bound, x.low), x.high)) for bound in (low, high))
    band = group.add("rect", class_="shade", x=start, y=y, width=max(end - start, 1.0), height=ROW)
    band.add("title", f"goal: {result.goal}")
    for bound in filter(isfinite, (low, high)):
        group.add("path", class_="dashed", d=f"M{x.at(bound):.2f} {y}v{ROW}")
    _add_move(group, "forecast", x, y, one.prediction, one.new_prediction, unit, "forecast")
    _add_axis(group, x, y + ROW, unit)
    y += ROW + AXIS + 4
    for change in one.changes:
        before = change.before if abs(change.before) > ROUNDED * abs(change.shift) else 0.0
        label = f"{change.feature}: {write_change(change.shift, change.unit)}, {change.shift_in_std:+.2g} std"
        line = group.add_group(label, class_="change", data_feature=change.feature)
        _add_move(line, change.feature, shifts, y, 0.0, change.shift_in_std, None, "")
        line.add("text", _write_move(before, before + change.shift, change.unit), x=RIGHT + 16, y=y + 15)
        y += ROW
    if one.changes:
        _add_axis(group, shifts, y, "std")


def _add_move(
    group: Part, name: str, x: Scale, y: float, before: float, after: float, unit: str | None, what: str
) -> None:
    """A line from a ring, the value before, to a dot, the one after."""
    middle = y + ROW / 2
    group.add("path", class_="curve", d=f"M{x.at(before):.2f} {middle:g}H{x.at(after):.2f}")
    group.add("circle", class_="chip", cx=x.at(before), cy=middle, r=4)
    group.add("circle", class_="dot", cx=x.at(after), cy=middle, r=4)
    group.add("text", abbreviate(name), x=LEFT - 12, y=y + 15, class_="end")
    if what:
        group.add("text", _write_move(before, after, unit), x=RIGHT + 16, y=y + 15)


def _add_axis(group: Part, x: Scale, y: float, unit: str | None) -> None:
    """The ticks of a row of its own, or below all features."""
    group.add("path", class_="axis", d=f"M{LEFT} {y:g}H{RIGHT}")
    for value in x.ticks():
        group.add("path", class_="tick", d=f"M{x.at(value):.2f} {y:g}v4")
        group.add("text", f"{value:g}", x=x.at(value), y=y + 15, class_="middle muted")
    if unit:
        group.add("text", abbreviate(unit, 12), x=RIGHT + 16, y=y + 15, class_="muted")


def _write_move(before: float, after: float, unit: str | None) -> str:
    return f"{write_amount(before, None)} → {write_amount(after, None if unit is None else abbreviate(unit, 12))}"
