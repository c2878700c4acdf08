"""The small pictures of a report: errors and intervals, drivers, one forecast, and responses to a driver."""

from __future__ import annotations

from itertools import accumulate, pairwise
from math import ceil

import numpy as np

from kanmodel.report.finding import Band, Bars, Drivers, Example, Response
from kanmodel.result import Theme, draw
from kanmodel.show.svg import Element, Scale, enclose, look_of, new_canvas, scale_over
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
        left, bar = start + pitch * (number + 0.12), 0.76 * pitch
        figure, other = (row[name] for name in panel.figures)
        label = f"{panel.name(row)}: {_write(figure, panel.unit)} in {row['windows']} situations"
        group = root.add_group(f"{label}; {panel.simple}: {_write(other, panel.unit)}", class_="bin")
        group.add_rect("amount", left, y.at(figure), bar, y.start - y.at(figure))
        group.add_path("whisker", f"M{left:.2f} {y.at(other):.2f}h{bar:.2f}")
        if number % every == 0:
            root.add_text(panel.name(row), left + bar / 2, y.start + 14, "middle muted")
    root.add_path("axis", f"M{start:g} {y.start}H{width}")
    root.add_text(abbreviate_words(panel.axis, int(width / LETTER)), width, height - 5, "end muted")
    root.add_path("whisker", f"M0 {TOP - 6}h14")
    root.add_text(abbreviate_words(panel.simple, int((width - 20) / 5.6)), 20, TOP - 2, "muted")
    return root.serialise(theme)


@draw.register
def draw_band(panel: Band, theme: Theme = "auto", *, n_beside: int = 2) -> bytes:
    """Draws forecasts as a line in their band, with a dot for each actual value."""
    width, height = (WIDE, HEIGHT) if n_beside < 3 else (NARROW, LOW)
    description = "forecasts, their interval and actual values, in the order of time"
    root = _start(panel.title, panel.unit, description, width, height)
    y = scale_over([*panel.lower, *panel.upper, *(panel.actual or ())], height - BELOW, TOP, 0.04)
    start = _add_levels(root, y, width)
    x = Scale(-0.5, len(panel.forecast) - 0.5, start, width - PAD)
    xs = x.all_at(range(len(panel.forecast)))
    root.add_path("amount", enclose(xs, y.all_at(panel.lower), y.all_at(panel.upper)), fill_opacity=0.25)
    root.add_line("curve", xs, y.all_at(panel.forecast))
    for at, actual, low, high in zip(xs, panel.actual or (), panel.lower, panel.upper, strict=False):
        root.add_circle("pale" if low <= actual <= high else "dot", at, y.at(actual), 2.2)
    root.add_text(panel.first, start, height - 18, "muted")
    root.add_text(panel.last, width, height - 18, "end muted")
    dots = f"; dots: actual{', dark outside' if panel.upper != panel.lower else ''}" if panel.actual else ""
    root.add_text(f"line: forecast{dots}", width, height - 5, "end muted")
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
    root.add_text("share", WIDE, TOP - 4, "end muted")
    names = shorten_names([row["name"] for row in panel.rows], N_NAME)
    for number, row in enumerate(panel.rows):
        middle, amount = TOP + ROW * (number + 0.5), row["mean_abs_contribution"]
        interval = "95 % interval {:.3g} to {:.3g}".format(*row["interval"])
        label = f"{row['name']}: {_write(amount, panel.unit)} ({interval}), {row['share']:.0%} of all movement"
        group = root.add_group(label, class_="feature")
        group.add_rect("amount", x.start, middle - BAR / 2, x.at(amount) - x.start, BAR)
        group.add_whisker(x, row["interval"], middle)
        group.add_text(names[row["name"]], NAMES, middle + 4, "end")
        group.add_text(f"{row['share']:.0%}", WIDE, middle + 4, "end strong")
        group.add_text(write_figure(amount, first), WIDE - 32, middle + 4, "end muted")
    if n_rest:
        y = height - 20 - ROW / 2 + 4
        root.add_text(f"{n_rest} others", NAMES, y, "end muted")
        root.add_text(f"{share:.0%}", WIDE, y, "end muted")
    root.add_text("line: 95 % interval", x.start, height - 5, "muted")
    return root.serialise(theme)


@draw.register
def draw_example(panel: Example, theme: Theme = "auto", *, n_beside: int = 2) -> bytes:
    """Draws the way from average conditions to one forecast, and the actual value."""
    ends = list(accumulate(panel.contributions.values(), initial=panel.start))
    marks = [(0, "average conditions", panel.start), (len(ends), "forecast", panel.prediction)]
    marks += [] if panel.actual is None else [(len(ends) + 1, "actual value", panel.actual)]
    known = [*(value for *_, value in marks), *ends]
    height, largest = TOP + ROW * (len(panel.contributions) + len(marks)) + 8, max(map(abs, known))
    root = _start(panel.title, panel.unit, "how its inputs lead to it", WIDE, height)
    x = scale_over(known, NAMES + 14, WIDE - 16 - LETTER * (1 + len(write_figure(largest))), 0.03)
    for number, name, value in marks:
        middle = TOP + ROW * (number + 0.5)
        root.add_circle("dot" if name != "actual value" else "box", x.at(value), middle, 4)
        root.add_text(name, NAMES, middle + 4, "end strong")
        root.add_text(write_figure(value, largest), WIDE, middle + 4, "end strong")
    names = shorten_names([*panel.contributions], N_NAME)
    for number, (name, (before, after)) in enumerate(zip(panel.contributions, pairwise(ends), strict=True), start=1):
        middle, (low, high) = TOP + ROW * (number + 0.5), sorted((x.at(before), x.at(after)))
        amount = write_figure(after - before, largest)
        amount = f"+{amount}" if after > before and amount != "0" else amount
        group = root.add_group(f"{name}: {amount}{f' {panel.unit}' if panel.unit else ''}", class_="step")
        size = {"width": max(high - low, 0.5), "height": BAR}
        group.add("rect", class_=look_of(after - before), **size, x=low, y=middle - BAR / 2)
        group.add_path("axis", f"M{x.at(after):.2f} {middle + BAR / 2:g}v{ROW - BAR:g}")
        group.add_text(names[name], NAMES, middle + 4, "end")
        group.add_text(amount, WIDE, middle + 4, "end muted")
    return root.serialise(theme)


@draw.register
def draw_response(panel: Response, theme: Theme = "auto", *, n_beside: int = 3) -> bytes:
    """Draws the mean change of the forecast over the shift, with a band for eight of ten windows.

    It is dashed where more than half of the windows leave the training range.
    """
    width = WIDE if n_beside < 3 else NARROW
    n_letters, unit = int(width / 5.9), f" ({panel.unit})" if panel.unit else ""
    root = _start(panel.label, None, "change of the forecast", width, HEIGHT)
    root.add_text(abbreviate_words(f"change of the forecast{unit}", n_letters), 0, TOP - 4, "muted")
    y = scale_over([*panel.low, *panel.high, *panel.change, 0.0], HEIGHT - BELOW, TOP + 8, 0.04)
    start = _add_levels(root, y, width)
    x = scale_over(panel.shift, start + 4, width - PAD)
    for value in x.ticks(4 if max(len(_signed(tick)) for tick in x.ticks(4)) < 6 else 2):
        over = x.at(value) + LETTER * len(_signed(value)) / 2 - width  # beyond the picture
        root.add_text(_signed(value), x.at(value) - max(0.0, over), y.start + 14, "middle muted")
    root.add_path("axis", f"M{start:g} {y.at(0.0):.2f}H{width}")
    xs, ys, is_inside = x.all_at(panel.shift), y.all_at(panel.change), np.array(panel.outside) <= 0.5
    group = root.add_group(f"{panel.title}: the band holds eight of ten situations", class_="band-of-eight")
    group.add_path("amount", enclose(xs, y.all_at(panel.low), y.all_at(panel.high)), fill_opacity=0.25)
    root.add_line("curve line", xs, ys)
    if is_inside.sum() > 1:
        root.add_line("curve main", np.array(xs)[is_inside].tolist(), np.array(ys)[is_inside].tolist())
    label = "lower or higher by" + (f" ({panel.feature_unit})" if panel.feature_unit else "")
    root.add_text(abbreviate_words(label, n_letters), width, HEIGHT - 5, "end muted")
    return root.serialise(theme)


def _start(title: str, unit: str | None, description: str, width: float, height: float) -> Element:
    """A picture with its title."""
    heading = f"{title} ({unit})" if unit else title
    root = new_canvas(width, height, heading, description, is_image=True)
    shown = root.add("text", abbreviate_words(heading, int(width / BOLD)), x=0, y=14, class_="strong", font_size="12")
    shown.add("title", heading)
    return root


def _add_levels(root: Element, y: Scale, width: float) -> float:
    """The y axis, a rule for each tick; returns where its labels end."""
    labels = {value: f"{value:,.10g}" for value in y.ticks(4)}
    start = 10 + LETTER * max(map(len, labels.values()), default=1)
    for value, label in labels.items():
        root.add_path("rule", f"M{start:g} {y.at(value):.2f}H{width}")
        root.add_text(label, start - 6, y.at(value) + 4, "end muted")
    return start


def _write(value: float, unit: str | None) -> str:
    return f"{write_figure(value)} {unit}" if unit else write_figure(value)


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{value:,.10g}"
