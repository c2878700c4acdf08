"""The picture of one explained forecast: a waterfall of its features, and a heat map of features by steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import ceil
from textwrap import wrap
from typing import Literal

import numpy as np

from kanmodel.arrays import Array, rows_of_steps
from kanmodel.attribution.explanation import Explanation, describe_intervals
from kanmodel.attribution.ledger import sum_groups
from kanmodel.result import Theme, draw
from kanmodel.show.series import draw_series
from kanmodel.show.style import VEIL
from kanmodel.show.svg import (
    LETTER,
    LINE,
    MARGIN,
    WIDTH,
    Element,
    fold_rest,
    look_of,
    new_canvas,
    require_finite,
    scale_over,
)
from kanmodel.text import abbreviate, abbreviate_words, write_amount, write_change

N_UNIT = 6  # most letters of a unit beside a feature's value
LEFT, RIGHT = 250.0, 640.0  # ends of a plot; names are left and amounts right of it
VALUES = 78.0  # width of the features' values, between their names and the plot
ROUNDED = 1e-6  # of a feature's mean magnitude in window and baseline: a smaller value is shown as 0
TOP, GAP = 78.0, 22.0  # below the heading; between waterfall and heat map
ROW, BAR, AXIS = 22.0, 14.0, 34.0  # heights in the waterfall; AXIS is that of the axis' labels
N_CAPTION = 116  # most letters of one of two lines
N_BARS = 15  # features with a bar of their own; the rest are one
CELL, STEP_AXIS = 15.0, 38.0  # heights in the heat map
N_ROWS, N_COLUMNS = 24, 48  # features and steps with cells of their own; of more, the least or neighbours are summed
N_TICKS = 6  # of the heat map
KEY, N_KEYS = 12.0, 13  # width and number of the legend's patches
MIN_OPACITY = 0.004  # of a cell; fainter ones are invisible


@draw.register
def draw_explanation(result: Explanation, theme: Theme = "auto") -> bytes:
    """Draws one window as SVG, outermost groups for their features; only the waterfall if there is one step.

    Several are drawn over time.
    """
    if len(result) > 1:
        return draw_series(result, theme)
    names, unit = [*result.shown], result.unit
    of = f" of {result.target_times[0]}" if result.target_times else ""
    heading = f"{result.output}{of}: {write_amount(float(result.predictions[0]), unit)}"
    caption = f"{write_amount(result.baseline_prediction, unit)} for the baseline, and what each feature adds to it"
    first = describe_intervals(result.intervals) if result.intervals else result.width_summary
    lines = [*(wrap(first, N_CAPTION) if first else ()), caption][:2]
    body = Element("g")
    bottom = _add_waterfall(body, result, names)
    if result.steps.shape[1] > 1:
        bottom = _add_heat_map(body, result, names, bottom + GAP)
    whole = "; ".join(filter(None, (first, caption)))
    root = new_canvas(WIDTH, bottom, heading, whole, result.source)
    root.add_heading(heading, lines[0])
    if lines[1:]:
        root.add_text(abbreviate_words(lines[1], N_CAPTION), MARGIN, TOP - 6, "muted")
    root.append(body)
    return root.serialise(theme)


def _add_waterfall(root: Element, result: Explanation, names: Sequence[str]) -> float:
    """Draws a bar for each feature, largest first, from baseline to forecast; returns the y coordinate of its end."""
    whole, unit = list(result.grouping.whole), result.unit
    contributions = result.contributions_shown[0]
    effects = result.effects if not result.is_grouped else None if result.segments else result.effects_by_group
    notes = [""] * len(names)
    if effects is not None and len(names) == len(whole):
        pairs = zip(effects.removed[0][whole].tolist(), effects.alone[0][whole].tolist(), strict=True)
        notes = [f"; removed {write_change(r, unit)}, alone {write_change(a, unit)}" for r, a in pairs]
    values = _write_values(result)
    bars = [
        (name, float(contributions[of].sum()), *(("", "", "") if len(of) > 1 else (notes[of[0]], *values[of[0]])))
        for name, of in fold_rest(names, np.abs(contributions), N_BARS)
    ]
    start, prediction = result.baseline_prediction, float(result.predictions[0])
    ends = list(accumulate((amount for _, amount, *_ in bars), initial=start))
    bounds = [(level, float(low[0]), float(high[0])) for level, (low, high) in reversed([*result.intervals.items()])]
    known = [prediction, *ends, *(end for _, *interval in bounds for end in interval)]
    x, bottom = scale_over(known, LEFT, RIGHT, 0.04), TOP + ROW * (len(bars) + 2)
    root.add_rules(x, TOP, bottom, unit)
    left = LEFT - 12
    if any(value for value, _ in values):
        root.add_text("value" if result.steps.shape[1] == 1 else "newest", left, TOP + 15, "end muted")
        left -= VALUES

    def add_forecast(y: float, name: str, value: float) -> None:
        """A mark for the forecast at one end of the waterfall."""
        group = root.add_group(f"{name}: {write_amount(value, unit)}", class_=name)
        group.add_circle("dot", x.at(value), y + ROW / 2, 4)
        group.add_text(name, left, y + 15, "end muted")
        group.add_text(write_amount(value), RIGHT + 12, y + 15, "muted")

    add_forecast(TOP, "baseline", start)
    for number, ((name, _, note, value, of_window), (before, after)) in enumerate(
        zip(bars, pairwise(ends), strict=True), start=1
    ):
        y, amount = TOP + ROW * number, after - before
        label = f"{name}: {write_change(amount, unit)}{note}{of_window}"
        group = root.add_group(label, class_="step", data_feature=name)
        group.add_step(x, before, after, y, ROW, BAR)
        group.add_text(abbreviate(name), left, y + 15, "end")
        if value:
            group.add_text(value, LEFT - 12, y + 15, "end muted")
        group.add_text(write_change(amount), RIGHT + 12, y + 15)
    for level, low, high in bounds:
        label = f"{100 * level:g} % interval: {write_amount(low, unit)} to {write_amount(high, unit)}"
        group, y = root.add_group(label, class_="interval"), bottom - ROW + 4
        group.add_rect("rise", x.at(low), y, x.at(high) - x.at(low), BAR, fill_opacity=VEIL)
    add_forecast(bottom - ROW, "forecast", prediction)
    return bottom + AXIS


def _write_values(result: Explanation) -> list[tuple[str, str]]:
    """The newest value of each feature that is no group, and for its tooltip that and its mean over the window."""
    found, of = [], {tuple(sorted(one.numbers)): one for one in result.model_inputs}
    for members in map(tuple, map(sorted, result.shown.values())):
        if result.windows is None or (one := of.get(members)) is None:
            found.append(("", ""))
            continue
        if one.kind not in ("number", "integer"):
            told = one.write(float(one.decode(result.windows[0, -1])))
            found.append((told, f"; newest value {told}"))
            continue
        values, unit = result.windows[0, :, members[0]], one.unit
        size = np.abs([values, result.baseline[:, members[0]]]).mean()
        newest, mean = float(values[-1]), float(values.mean())
        newest = newest if abs(newest) > ROUNDED * size else 0.0
        over = "" if len(values) == 1 else f", mean {write_amount(mean, unit)} over {len(values)} steps"
        short = unit if unit is not None and len(unit) <= N_UNIT else None
        found.append((write_amount(newest, short), f"; newest value {write_amount(newest, unit)}{over}"))
    return found


def _add_heat_map(root: Element, result: Explanation, names: Sequence[str], top: float) -> float:
    """Draws a cell for each feature and step, or segment; returns the y coordinate of its end.

    Rows are ordered by total magnitude. Beyond the limits features and steps are summed, so that none is lost.
    """
    (steps, moments, by), unit, lookback = _lay_out(result), result.unit, result.steps.shape[1]
    drawn = fold_rest(names, np.abs(steps).sum(axis=0), N_ROWS)
    rows = np.array([steps[:, of].sum(axis=1) for _, of in drawn])
    columns: Sequence[tuple[int | str, int | str]]  # the first and last of each
    if result.segments:
        ordered = sorted(result.segments.items(), key=lambda segment: segment[1])
        columns, labels = [ends for _, ends in ordered], [abbreviate(name) for name, _ in ordered]
        values = np.stack([rows[:, rows_of_steps(*ends, lookback)].sum(axis=1) for _, ends in ordered], axis=1)
        title, axis = "Feature by segment", ""
    else:
        width = ceil(len(moments) / N_COLUMNS)  # the oldest column may have fewer steps
        starts = [max(0, end - width) for end in range(len(moments), 0, -width)][::-1]
        columns = [(moments[start], moments[end - 1]) for start, end in pairwise([*starts, len(moments)])]
        labels, values = [str(last) for _, last in columns], np.add.reduceat(rows, starts, axis=1)
        title = f"Feature by {by}" + (f"; a column is {width} steps together" if width > 1 else "")
        axis = f"time; the window ends {result.times[0]}" if by == "time" and result.times else by
        axis += "; 0 is the newest" if by == "step" else ""
    told = [" to ".join(dict.fromkeys(map(str, ends))) for ends in columns]
    largest = float(np.abs(values).max())
    require_finite(largest)
    root.add_text(title, MARGIN, top + 12, "strong")
    left = RIGHT - KEY * N_KEYS  # of the legend: the most negative to the most positive contribution
    root.add_text(write_change(-largest), left - 6, top + 11, "end muted")
    right = abbreviate_words(write_change(largest, unit), int((WIDTH - RIGHT - 6) / 6.3))
    root.add_text(right, RIGHT + 6, top + 11, "muted")
    root.add_rect("band", left, top + 2, RIGHT - left, KEY)
    for number, share in enumerate(np.linspace(-1, 1, N_KEYS).tolist()):
        root.add_rect(look_of(share), left + KEY * number, top + 2, KEY, KEY, fill_opacity=f"{abs(share):.3f}")

    top += 28
    pitch, bottom = (RIGHT - LEFT) / len(told), top + CELL * len(rows)
    cell_width = pitch - (0.5 if pitch > 4 else 0.0)
    root.add_rect("band", LEFT, top, RIGHT - LEFT, bottom - top)
    for row, ((name, _), of_row) in enumerate(zip(drawn, values.tolist(), strict=True)):
        y = top + CELL * row
        group = root.add_group(f"{name}: {write_change(sum(of_row), unit)}", class_="row", data_feature=name)
        group.add_text(abbreviate(name), LEFT - 12, y + 11, "end")
        for column, (when, value) in enumerate(zip(told, of_row, strict=True)):
            opacity = abs(value) / largest if largest else 0.0
            if opacity >= MIN_OPACITY:
                at, veil = LEFT + pitch * column, f"{opacity:.3f}"
                cell = group.add_rect(look_of(value), at, y, cell_width, CELL - 0.5, fill_opacity=veil)
                cell.add("title", f"{'step ' if by == 'step' else ''}{when}: {write_change(value, unit)}")
    return _add_moments(root, labels, axis, pitch, bottom)


def _add_moments(root: Element, labels: Sequence[str], axis: str, pitch: float, bottom: float) -> float:
    """Labels some columns of the heat map, a time's date above its hour; returns the y coordinate of their end."""
    texts = [re.split("[ T]", label) if label[:1].isdigit() else [label] for label in labels]
    n_lines, room = max(map(len, texts)), LETTER * max(1 + len(line) for lines in texts for line in lines)
    for column in range(len(texts) - 1, -1, -max(ceil(room / pitch), ceil(len(texts) / N_TICKS))):
        for number, line in enumerate(texts[column]):
            root.add_text(line, LEFT + pitch * (column + 0.5), bottom + 14 + LINE * number, "middle muted")
    root.add_text(axis, RIGHT, bottom + 14 + LINE * n_lines, "end muted")
    return bottom + STEP_AXIS + LINE * (n_lines - 1)


def _lay_out(result: Explanation) -> tuple[Array, Sequence[int | str], Literal["step", "time"]]:
    """Contributions by moment and outermost group, oldest first, and each moment's time, or without times its step.

    A column that is known in advance is at the times of its values, which are later than the window's rows.
    """
    steps, groups, times = result.steps[0], result.shown.values(), result.value_times(0)
    if result.segments or not times:
        return sum_groups(steps, groups), range(1 - len(steps), 1), "step"
    moments, at = np.unique(np.arange(len(steps))[:, None] + result.newest, return_inverse=True)
    at, names = at.reshape(steps.shape), np.empty(len(moments), dtype=object)
    laid, names[at] = np.zeros((len(moments), steps.shape[1])), times
    laid[at, np.arange(steps.shape[1])] = steps
    return sum_groups(laid, groups), names.tolist(), "time"
