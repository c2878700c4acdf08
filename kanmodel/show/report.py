"""The small pictures of a report: errors and intervals, drivers, one forecast, and responses to a driver."""

from __future__ import annotations

from itertools import accumulate, pairwise
from math import ceil

import numpy as np

from kanmodel.report.finding import Band, Bars, Drivers, Example, Response
from kanmodel.result import Theme, draw
from kanmodel.show.svg import Part, Scale, enclose, new_picture, scale_over, write_points
from kanmodel.text import abbreviate_words, shorten_names, write_figure

WIDE, NARROW = 340.0, 240.0  # of one of two pictures in a row, and of three
HEIGHT, BELOW, PAD = 168.0, 34.0, 8.0  # of a plot with axes: its height, the room of the lower axis and on the right
LOW = 150.0  # height of one of three that show errors or intervals
TOP = 34.0  # room of the title
ROW, BAR = 18.9, 12.0  # of a picture with a row for each driver
NAMES, N_NAME = 138.0, 21  # of these: where the names end, and their most characters
LETTER, BOLD = 6.1, 7.6  # width of a letter, roughly


@draw.register
def draw_bars(panel: Bars, theme: Theme = "auto", *, n_beside: int = 2) -> bytes:
    """Draws a bar for each figure, with a line where the other is."""
    (width, height), rows = (WIDE, HEIGHT) if n_beside < 3 else (NARROW, LOW), panel.rows
    root = _start(f"{panel.title} by {panel.by}", panel.unit, f"by {panel.axis}; line: {panel.simple}", width, height)
    largest = max(row[name] for row in rows for name in panel.figures)
    y = Scale(0.0, (largest or 1.0) * 1.05, height - BELOW, TOP + 16)
    start = _add_levels(root, y, width)
    pitch = (width - PAD - start) / len(rows)
    every = ceil(len(rows) * max(20, 6 + 8 * max(len(panel.name(row)) for row in rows)) / (width - PAD - start))
    for number, row in enumerate(rows):
        left = start + pitch * (number + 0.12)
        figure, other = (row[name] for name in panel.figures)
        label = f"{panel.name(row)}: {_amount(figure, panel.unit)} in {row['windows']} situations"
        group = root.add_group(f"{label}; {panel.simple}: {_amount(other, panel.unit)}", class_="bin")
        top, line, bar = y.at(figure), y.at(other), 0.76 * pitch
        group.add("rect", class_="amount", x=left, y=top, width=bar, height=y.start - top)
        group.add("path", class_="whisker", d=f"M{left:.2f} {line:.2f}h{bar:.2f}")
        if number % every == 0:
            root.add("text", panel.name(row), x=left + bar / 2, y=y.start + 14, class_="middle muted")
    root.add("path", class_="axis", d=f"M{start:g} {y.start}H{width}")
    root.add("text", abbreviate_words(panel.axis, int(width / LETTER)), x=width, y=height - 5, class_="end muted")
    root.add("path", class_="whisker", d=f"M0 {TOP - 6}h14")
    root.add("text", abbreviate_words(panel.simple, int((width - 20) / 5.6)), x=20, y=TOP - 2, class_="muted")
    return root.serialise(theme)


@draw.register
def draw_band(panel: Band, theme: Theme = "auto", *, n_beside: int = 2) -> bytes:
    """Draws forecasts as a line in their band, with a dot for each actual value."""
    width, height = (WIDE, HEIGHT) if n_beside < 3 else (NARROW, LOW)
    root = _start(
        panel.title, panel.unit, "forecasts, their interval and actual values, in the order of time", width, height
    )
    known = [*panel.lower, *panel.upper, *(panel.actual or ())]
    y = scale_over(known, height - BELOW, TOP, 0.04)
    start = _add_levels(root, y, width)
    x = Scale(-0.5, len(panel.forecast) - 0.5, start, width - PAD)
    xs = [x.at(number) for number in range(len(panel.forecast))]
    root.add(
        "path", class_="amount", d=enclose(xs, [*map(y.at, panel.lower)], [*map(y.at, panel.upper)]), fill_opacity=0.25
    )
    root.add("polyline", class_="curve", points=write_points(xs, [y.at(value) for value in panel.forecast]))
    for at, actual, low, high in zip(xs, panel.actual or (), panel.lower, panel.upper, strict=False):
        root.add("circle", class_="pale" if low <= actual <= high else "dot", cx=at, cy=y.at(actual), r=2.2)
    root.add("text", panel.first, x=start, y=height - 18, class_="muted")
    root.add("text", panel.last, x=width, y=height - 18, class_="end muted")
    dots = "; dots: actual, dark outside" if panel.actual else ""
    root.add("text", f"line: forecast{dots}", x=width, y=height - 5, class_="end muted")
    return root.serialise(theme)


@draw.register
def draw_drivers(panel: Drivers, theme: Theme = "auto", *, n_beside: int = 2) -> bytes:
    """Draws a bar for how far each driver moves the forecast, with its interval and share."""
    n_rest, share = panel.rest
    height = TOP + ROW * (len(panel.rows) + bool(n_rest)) + 20
    root = _start("How far each input moves the forecast", panel.unit, "on average", WIDE, height)
    first = panel.rows[0]["mean_abs_contribution"]
    ends = [max(row["interval"][1], row["mean_abs_contribution"]) for row in panel.rows]
    x = scale_over([0.0, *ends], NAMES + 8, WIDE - 42 - LETTER * len(write_figure(first)))
    root.add("text", "share", x=WIDE, y=TOP - 4, class_="end muted")
    names = shorten_names([row["name"] for row in panel.rows], N_NAME)
    for number, row in enumerate(panel.rows):
        middle, (low, high) = TOP + ROW * (number + 0.5), row["interval"]
        label = f"{row['name']}: {_amount(row['mean_abs_contribution'], panel.unit)} (95 % interval {low:.3g} to"
        group = root.add_group(f"{label} {high:.3g}), {row['share']:.0%} of all movement", class_="feature")
        length = x.at(row["mean_abs_contribution"]) - x.start
        group.add("rect", class_="amount", x=x.start, y=middle - BAR / 2, width=length, height=BAR)
        group.add("path", class_="whisker", d=f"M{x.at(low):.2f} {middle:g}H{x.at(high):.2f}")
        group.add("text", names[row["name"]], x=NAMES, y=middle + 4, class_="end")
        group.add("text", f"{row['share']:.0%}", x=WIDE, y=middle + 4, class_="end strong")
        group.add(
            "text", write_figure(row["mean_abs_contribution"], first), x=WIDE - 32, y=middle + 4, class_="end muted"
        )
    if n_rest:
        y = height - 20 - ROW / 2 + 4
        root.add("text", f"{n_rest} others", x=NAMES, y=y, class_="end muted")
        root.add("text", f"{share:.0%}", x=WIDE, y=y, class_="end muted")
    root.add("text", "line: 95 % interval", x=x.start, y=height - 5, class_="muted")
    return root.serialise(theme)


@draw.register
def draw_example(panel: Example, theme: Theme = "auto", *, n_beside: int = 2) -> bytes:
    """Draws the way from average conditions to one forecast, and the actual value."""
    n_rows = len(panel.contributions) + 2 + (panel.actual is not None)
    ends = list(accumulate(panel.contributions.values(), initial=panel.start))
    known = [panel.prediction, *ends, *([] if panel.actual is None else [panel.actual])]
    height, largest = TOP + ROW * n_rows + 8, max(map(abs, known))
    root = _start(panel.title, panel.unit, "how its inputs lead to it", WIDE, height)
    x = scale_over(known, NAMES + 14, WIDE - 16 - LETTER * (1 + len(write_figure(largest))), 0.03)
    marks = [(0, "average conditions", panel.start), (len(ends), "forecast", panel.prediction)]
    marks += [] if panel.actual is None else [(len(ends) + 1, "actual value", panel.actual)]
    for number, name, value in marks:
        middle = TOP + ROW * (number + 0.5)
        root.add("circle", class_="dot" if name != "actual value" else "box", cx=x.at(value), cy=middle, r=4)
        root.add("text", name, x=NAMES, y=middle + 4, class_="end strong")
        root.add("text", write_figure(value, largest), x=WIDE, y=middle + 4, class_="end strong")
    names = shorten_names([*panel.contributions], N_NAME)
    for number, (name, (before, after)) in enumerate(zip(panel.contributions, pairwise(ends), strict=True), start=1):
        middle, (low, high) = TOP + ROW * (number + 0.5), sorted((x.at(before), x.at(after)))
        amount = write_figure(after - before, largest)
        amount = f"+{amount}" if after > before and amount != "0" else amount
        group = root.add_group(f"{name}: {amount}{f' {panel.unit}' if panel.unit else ''}", class_="step")
        look = {"class_": "rise" if after > before else "fall", "width": max(high - low, 0.5), "height": BAR}
        group.add("rect", **look, x=low, y=middle - BAR / 2)
        group.add("path", class_="axis", d=f"M{x.at(after):.2f} {middle + BAR / 2:g}v{ROW - BAR:g}")
        group.add("text", names[name], x=NAMES, y=middle + 4, class_="end")
        group.add("text", amount, x=WIDE, y=middle + 4, class_="end muted")
    return root.serialise(theme)


@draw.register
def draw_response(panel: Response, theme: Theme = "auto", *, n_beside: int = 3) -> bytes:
    """Draws the mean change of the forecast over the shift, with a band for eight of ten windows.

    It is dashed where more than half of the windows leave the training range.
    """
    width = WIDE if n_beside < 3 else NARROW
    root = _start(panel.label, None, "change of the forecast", width, HEIGHT)
    unit = f" ({panel.unit})" if panel.unit else ""
    root.add(
        "text", abbreviate_words(f"change of the forecast{unit}", int(width / 5.9)), x=0, y=TOP - 4, class_="muted"
    )
    y = scale_over([*panel.low, *panel.high, *panel.change, 0.0], HEIGHT - BELOW, TOP + 8, 0.04)
    start = _add_levels(root, y, width)
    x = scale_over(panel.shift, start + 4, width - PAD)
    for value in x.ticks(4 if max(map(len, map(_signed, x.ticks(4)))) < 6 else 2):
        over = x.at(value) + LETTER * len(_signed(value)) / 2 - width  # beyond the picture
        root.add("text", _signed(value), x=x.at(value) - max(0.0, over), y=y.start + 14, class_="middle muted")
    root.add("path", class_="axis", d=f"M{start:g} {y.at(0.0):.2f}H{width}")
    xs = [x.at(value) for value in panel.shift]
    path = enclose(xs, [*map(y.at, panel.low)], [*map(y.at, panel.high)])
    group = root.add_group(f"{panel.feature}: the band holds eight of ten situations", class_="band-of-eight")
    group.add("path", class_="amount", d=path, fill_opacity=0.25)
    inside = np.array(panel.outside) <= 0.5
    points = [(at, y.at(value)) for at, value in zip(xs, panel.change, strict=True)]
    root.add("polyline", class_="curve line", points=write_points(*map(list, zip(*points, strict=True))))
    known = [point for point, is_inside in zip(points, inside.tolist(), strict=True) if is_inside]
    if len(known) > 1:
        root.add("polyline", class_="curve main", points=write_points(*map(list, zip(*known, strict=True))))
    label = "lower or higher by" + (f" ({panel.feature_unit})" if panel.feature_unit else "")
    root.add("text", abbreviate_words(label, int(width / 5.9)), x=width, y=HEIGHT - 5, class_="end muted")
    return root.serialise(theme)


def _start(title: str, unit: str | None, description: str, width: float, height: float) -> Part:
    """A picture with its title."""
    heading = f"{title} ({unit})" if unit else title
    root = new_picture(width, height, heading, description, role="img")
    shown = root.add("text", abbreviate_words(heading, int(width / BOLD)), x=0, y=14, class_="strong", font_size="12")
    shown.add("title", heading)
    return root


def _add_levels(root: Part, y: Scale, width: float) -> float:
    """The y axis, a rule for each tick; returns where its labels end."""
    labels = {value: f"{value:,.10g}" for value in y.ticks(4)}
    start = 10 + LETTER * max(map(len, labels.values()), default=1)
    for value, label in labels.items():
        root.add("path", class_="rule", d=f"M{start:g} {y.at(value):.2f}H{width}")
        root.add("text", label, x=start - 6, y=y.at(value) + 4, class_="end muted")
    return start


def _amount(value: float, unit: str | None) -> str:
    return f"{write_figure(value)} {unit}" if unit else write_figure(value)


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{value:,.10g}"
