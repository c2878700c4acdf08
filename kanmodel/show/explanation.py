"""The picture of one explained forecast: a waterfall of its features, and a heat map of features by steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from math import ceil
from textwrap import wrap

import numpy as np

from kanmodel.arrays import Array, rows_of_steps, steps_of_rows
from kanmodel.attribution.explanation import Explanation, describe_intervals
from kanmodel.attribution.ledger import sum_groups
from kanmodel.result import Theme, draw
from kanmodel.show.series import draw_series
from kanmodel.show.style import VEIL
from kanmodel.show.svg import (
    MARGIN,
    Part,
    Scale,
    new_picture,
    require_finite,
    scale_over,
    write_amount,
    write_change,
)
from kanmodel.text import abbreviate, abbreviate_words

WIDTH = 760.0
N_UNIT = 6  # most letters of a unit beside a feature's value
LEFT, RIGHT = 250.0, 640.0  # ends of a plot; names are left and amounts right of it
VALUES = 78.0  # width of the features' values, between their names and the plot
ROUNDED = 1e-6  # of a feature's mean magnitude in window and baseline: a smaller value is shown as 0
TOP, GAP = 78.0, 22.0  # below the heading; between waterfall and heat map
ROW, BAR, AXIS = 22.0, 14.0, 34.0  # heights in the waterfall; AXIS is that of the axis' labels
N_CAPTION = 116  # most letters of one of two lines
N_BARS = 15  # features with a bar of their own; the rest are one
CELL, STEP_AXIS = 15.0, 38.0  # heights in the heat map
N_ROWS = 24  # features with a row of their own; the rest are summed
N_COLUMNS = 48  # most columns; of more steps, neighbouring ones are summed
N_TICKS = 6
KEY, N_KEYS = 12.0, 13  # width and number of the legend's patches
MIN_OPACITY = 0.004  # of a cell; fainter ones are invisible


@draw.register
def draw_explanation(result: Explanation, theme: Theme = "auto") -> bytes:
    """Draws one window as SVG, outermost groups for their features; only the waterfall if there is one step.

    Several are drawn over time.
    """
    if len(result) > 1:
        return draw_series(result, theme)
    whole, members = list(result.grouping.whole), result.grouping.members
    names = [result.group_names[number] for number in whole]
    steps = sum_groups(result.steps[0], members)[:, whole]
    prediction, unit = float(result.predictions[0]), result.unit
    heading = f"{result.output}: {write_amount(prediction, unit)}"
    caption = f"{write_amount(result.baseline_prediction, unit)} for the baseline, and what each feature adds to it"
    first = describe_intervals(result.intervals) if result.intervals else result.width_summary
    lines = [*(wrap(first, N_CAPTION) if first else ()), caption][:2]
    body = Part("g")
    bottom = _add_waterfall(body, result, names)
    if len(steps) > 1:
        bottom = _add_heat_map(body, bottom + GAP, names, steps, result.segments, unit, _find_times(result))
    root = new_picture(WIDTH, bottom, heading, "; ".join(filter(None, (first, caption))), result.source)
    root.add_heading(heading, lines[0])
    if lines[1:]:
        root.add("text", abbreviate_words(lines[1], N_CAPTION), x=MARGIN, y=TOP - 6, class_="muted")
    root.append(body)
    return root.serialise(theme)


def _add_waterfall(root: Part, result: Explanation, names: Sequence[str]) -> float:
    """Draws a bar for each feature, largest first, from baseline to forecast; returns the y coordinate of its end."""
    whole, members, unit = list(result.grouping.whole), result.grouping.members, result.unit
    contributions = sum_groups(result.contributions[0], members)[whole]
    effects = result.effects if not result.is_grouped else None if result.segments else result.effects_by_group
    notes = [""] * len(whole)
    if effects is not None:
        pairs = zip(effects.removed[0][whole].tolist(), effects.alone[0][whole].tolist(), strict=True)
        notes = [f"; removed {write_change(r, unit)}, alone {write_change(a, unit)}" for r, a in pairs]
    values = _write_values(result)
    named, rest = _split_features(np.abs(contributions), N_BARS)
    bars = [(names[number], float(contributions[number]), notes[number], *values[number]) for number in named]
    if rest:
        bars.append((f"{len(rest)} more features", float(contributions[rest].sum()), "", "", ""))

    start, prediction = result.baseline_prediction, float(result.predictions[0])
    ends = list(accumulate((amount for _, amount, *_ in bars), initial=start))
    bounds = [(level, float(low[0]), float(high[0])) for level, (low, high) in reversed([*result.intervals.items()])]
    known = [prediction, *ends, *(end for _, *interval in bounds for end in interval)]
    x, bottom = scale_over(known, LEFT, RIGHT, 0.04), TOP + ROW * (len(bars) + 2)
    root.add_rules(x, TOP, bottom, unit)
    left = LEFT - 12 - (VALUES if any(value for value, _ in values) else 0.0)
    if left < LEFT - 12:
        root.add(
            "text", "value" if result.steps.shape[1] == 1 else "newest", x=LEFT - 12, y=TOP + 15, class_="end muted"
        )
    _add_forecast(root, x, TOP, "baseline", start, unit, left)
    for number, ((name, _, note, value, of_window), (before, after)) in enumerate(
        zip(bars, pairwise(ends), strict=True), start=1
    ):
        y, amount = TOP + ROW * number, after - before
        label = f"{name}: {write_change(amount, unit)}{note}{of_window}"
        group = root.add_group(label, class_="step", data_feature=name)
        low, high = sorted((x.at(before), x.at(after)))
        group.add("rect", class_=_color(amount), x=low, y=y + 4, width=max(high - low, 0.5), height=BAR)
        group.add("path", class_="axis", d=f"M{x.at(after):.2f} {y + 4 + BAR}v{ROW - BAR}")
        group.add("text", abbreviate(name), x=left, y=y + 15, class_="end")
        if value:
            group.add("text", value, x=LEFT - 12, y=y + 15, class_="end muted")
        group.add("text", write_change(amount, None), x=RIGHT + 12, y=y + 15)
    for level, low, high in bounds:
        label = f"{100 * level:g} % interval: {write_amount(low, unit)} to {write_amount(high, unit)}"
        place = {"x": x.at(low), "y": bottom - ROW + 4, "width": x.at(high) - x.at(low), "height": BAR}
        root.add_group(label, class_="interval").add("rect", class_="rise", **place, fill_opacity=VEIL)
    _add_forecast(root, x, bottom - ROW, "forecast", prediction, unit, left)
    return bottom + AXIS


def _write_values(result: Explanation) -> list[tuple[str, str]]:
    """The newest value of each feature that is no group, and for its tooltip that and its mean over the window."""
    found = []
    for number in result.grouping.whole:
        members = result.grouping.members[number]
        if result.windows is None or len(members) != 1:
            found.append(("", ""))
            continue
        values, unit = result.windows[0, :, members[0]], result.feature_units[members[0]]
        size = np.abs([values, result.baseline[:, members[0]]]).mean()
        rounded = np.where(np.abs(values) > ROUNDED * size, values, 0.0)
        newest, mean = float(rounded[-1]), float(values.mean())
        over = "" if len(values) == 1 else f", mean {write_amount(mean, unit)} over {len(values)} steps"
        short = unit if unit is not None and len(unit) <= N_UNIT else None
        found.append((write_amount(newest, short), f"; newest value {write_amount(newest, unit)}{over}"))
    return found


def _add_forecast(root: Part, x: Scale, y: float, name: str, value: float, unit: str | None, left: float) -> None:
    """A mark for the forecast at one end of the waterfall."""
    group = root.add_group(f"{name}: {write_amount(value, unit)}", class_=name)
    group.add("circle", class_="dot", cx=x.at(value), cy=y + 4 + BAR / 2, r=4)
    group.add("text", name, x=left, y=y + 15, class_="end muted")
    group.add("text", write_amount(value, None), x=RIGHT + 12, y=y + 15, class_="muted")


def _add_heat_map(
    root: Part,
    top: float,
    names: Sequence[str],
    steps: Array,
    segments: Mapping[str, tuple[int, int]],
    unit: str | None,
    times: Sequence[Sequence[str]],
) -> float:
    """Draws a cell for each feature and step, or segment; returns the y coordinate of its end.

    The contributions `steps` are (lookback, n_features), oldest step first; `segments` have their first and last step,
    0 the newest; `times` are those of the values, by step and feature, or empty. Rows are ordered by total magnitude.
    Beyond the limits features and steps are summed, so that none is lost.
    """
    named, rest = _split_features(np.abs(steps).sum(axis=0), N_ROWS)
    rows = np.array([*(steps[:, number] for number in named), *([steps[:, rest].sum(axis=1)] if rest else [])])
    names = [*(names[number] for number in named), *([f"{len(rest)} more features"] if rest else [])]
    lookback, title = len(steps), "Feature by segment"
    if segments:
        ordered = sorted(segments.items(), key=lambda segment: segment[1])
        columns, labels = [ends for _, ends in ordered], [abbreviate(name) for name, _ in ordered]
        values = np.stack([rows[:, rows_of_steps(*ends, lookback)].sum(axis=1) for ends in columns], axis=1)
    else:
        width = ceil(lookback / N_COLUMNS)  # the oldest column may have fewer steps
        starts = [max(0, end - width) for end in range(lookback, 0, -width)][::-1]
        columns = [steps_of_rows(slice(*ends), lookback) for ends in pairwise([*starts, lookback])]
        labels, values = [f"{last}" for _, last in columns], np.add.reduceat(rows, starts, axis=1)
        title = "Feature by step" + (f"; a column is {width} steps together" if width > 1 else "")
    largest = float(np.abs(values).max())
    require_finite(largest)
    root.add("text", title, x=MARGIN, y=top + 12, class_="strong")
    left = RIGHT - KEY * N_KEYS  # of the legend: the most negative to the most positive contribution
    root.add("text", write_change(-largest, None), x=left - 6, y=top + 11, class_="end muted")
    right = abbreviate_words(write_change(largest, unit), int((WIDTH - RIGHT - 6) / 6.3))
    root.add("text", right, x=RIGHT + 6, y=top + 11, class_="muted")
    root.add("rect", class_="band", x=left, y=top + 2, width=RIGHT - left, height=KEY)
    for number, share in enumerate(np.linspace(-1, 1, N_KEYS).tolist()):
        patch = {"x": left + KEY * number, "y": top + 2, "width": KEY, "height": KEY}
        root.add("rect", class_=_color(share), **patch, fill_opacity=f"{abs(share):.3f}")

    top += 28
    pitch, bottom = (RIGHT - LEFT) / len(columns), top + CELL * len(rows)
    gap = 0.5 if pitch > 4 else 0.0
    root.add("rect", class_="band", x=LEFT, y=top, width=RIGHT - LEFT, height=bottom - top)
    for row, (name, of_row) in enumerate(zip(names, values.tolist(), strict=True)):
        y = top + CELL * row
        group = root.add_group(f"{name}: {write_change(sum(of_row), unit)}", class_="row", data_feature=name)
        group.add("text", abbreviate(name), x=LEFT - 12, y=y + 11, class_="end")
        for column, ((first, last), value) in enumerate(zip(columns, of_row, strict=True)):
            opacity = abs(value) / largest if largest else 0.0
            if opacity >= MIN_OPACITY:
                place = {"x": LEFT + pitch * column, "y": y, "width": pitch - gap, "height": CELL - 0.5}
                cell = group.add("rect", class_=_color(value), **place, fill_opacity=f"{opacity:.3f}")
                step = f"{first}" if first == last else f"{first} to {last}"
                when = times[lookback - 1 + first][named[row]] if times and first == last and row < len(named) else ""
                cell.add("title", f"step {step}{when and f', {when}'}: {write_change(value, unit)}")
    for column in range(len(columns) - 1, -1, -max(1, ceil(len(columns) / N_TICKS))):
        root.add("text", labels[column], x=LEFT + pitch * (column + 0.5), y=bottom + 14, class_="middle muted")
    if not segments:
        root.add("text", "step; 0 is the newest", x=RIGHT, y=bottom + 28, class_="end muted")
    return bottom + STEP_AXIS


def _find_times(result: Explanation) -> list[list[str]]:
    """The times of the values of one window, by step and part; of a part whose features are of several times none."""
    parts = [result.grouping.members[part] for part in result.grouping.whole]
    is_one = [len({result.newest[member] for member in part}) == 1 for part in parts] if result.newest else []
    return [
        [of_step[part[0]] if one else "" for part, one in zip(parts, is_one, strict=True)]
        for of_step in result.value_times(0)
    ]


def _color(amount: float) -> str:
    return "rise" if amount > 0 else "fall"


def _split_features(magnitudes: Array, most: int) -> tuple[list[int], list[int]]:
    """The features (n_features,) to draw individually, `most` and largest first, and those, if several, to sum."""
    order = np.argsort(-magnitudes, kind="stable").tolist()
    n_named = most if len(order) > most + 1 else len(order)
    return order[:n_named], order[n_named:]
