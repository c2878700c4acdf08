"""The picture of explained forecasts over time: forecasts and actual values, and below them stacked contributions.

At each time the contributions above the baseline's line are the positive ones, those below it the negative ones; the
line through them is their sum, the forecast minus the baseline's. Of one window it is over the outputs of each target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray

from kanmodel.data import MAX_STEP, Array
from kanmodel.encoding import zone_offsets
from kanmodel.explain.attribution import Explanation
from kanmodel.explain.explanations import Explanations
from kanmodel.explain.result import Theme, draw
from kanmodel.show.style import N_COLORS
from kanmodel.show.svg import MARGIN, Part, Scale, new_picture, scale_over, write_amount, write_change
from kanmodel.text import abbreviate, with_unit

WIDTH = 760.0
LEFT, RIGHT = 78.0, 736.0  # ends of the plots
TOP, LINE = 82.0, 18.0  # below the heading; height of a line of the legend
LETTER, KEY = 6.2, 30.0  # width of a letter, roughly; of a legend's sample with its space
TITLE, FORECASTS, BETWEEN, STACKS, AXIS = 24.0, 130.0, 16.0, 170.0, 52.0  # heights in a panel, from top to bottom
N_PANELS = 4  # of several outputs; others are left out
N_COLUMNS = 336  # bars in a panel, or half as many in each of several; of more windows, neighbouring ones are averaged
N_TICKS = 8
N_NAMED = 3  # contributions in a tooltip
STRIDES = {"Y": (1, 10), "M": (1, 3, 6), "D": (1, 2, 7, 14), "h": (1, 3, 6, 12), "m": (1, 5, 15, 30)}  # of ticks
LEVELS = {"Y": 4, "M": 7, "D": 10, "h": 16, "m": 16}  # letters of a time at ticks of years, months, days, …


@dataclass(frozen=True)
class Panel:
    """What is drawn over one time axis.

    Attributes:
        title: the output, or the target.
        unit: of the target.
        times: of the n points, as texts.
        local: the same by the local clock, (n,); None without dates.
        at: the same in seconds, or in the unit of the time column, (n,), ascending.
        widths: of the bars, likewise.
        breaks: whether there is a gap in time before each point, (n,).
        predictions, actual, baseline: (n,) each; NaN where there is no actual value.
        contributions: (n, n_parts); they sum to the predictions minus the baseline, up to the residual.
    """

    title: str
    unit: str | None
    times: tuple[str, ...]
    local: NDArray[np.datetime64] | None
    at: Array
    widths: Array
    breaks: NDArray[np.bool_]
    predictions: Array
    actual: Array
    baseline: Array
    contributions: Array

    @classmethod
    def of(cls, title: str, points: Sequence[Explanation]) -> Panel:
        """That of one explanation of several windows, or of several explanations of one."""
        first, moments = points[0], [each.instants for each in points if each.instants is not None]
        if len(points) == 1:
            names = first.target_times or first.times or (abbreviate(first.output),)
        else:
            names = tuple((each.target_times or (abbreviate(each.output),))[0] for each in points)
        at = np.concatenate(moments) if moments else np.arange(len(names), dtype=np.float64)
        order = np.argsort(at, kind="stable")
        at, names = at[order], tuple(names[number] for number in order.tolist())
        is_dated = bool(moments) and first.times is not None and not _is_number(first.times[0])
        step = float(np.median(np.diff(at))) if len(at) > 1 else 1.0
        actual = [np.full(len(each), np.nan) if each.actual is None else each.actual for each in points]
        return cls(
            title,
            first.unit,
            names,
            (at + zone_offsets(at, first.zone)).astype("datetime64[s]") if is_dated else None,
            at,
            np.full(len(at), step),
            np.diff(at, prepend=at[0]) > MAX_STEP * step,
            np.concatenate([each.predictions for each in points])[order],
            np.concatenate(actual)[order],
            np.concatenate([np.full(len(each), each.baseline_prediction) for each in points])[order],
            np.concatenate([each.contributions_by_part for each in points])[order],
        )

    def average(self, most: int) -> tuple[Panel, int]:
        """About `most` points, each the mean of neighbours without a gap between them; and of how many, at most."""
        size = ceil(len(self.at) / most)
        run = np.cumsum(self.breaks)
        starts = np.flatnonzero(np.diff(run, prepend=-1))
        firsts = np.flatnonzero((np.arange(len(run)) - starts[run]) % size == 0)
        counts = np.diff(firsts, append=len(run)).astype(np.float64)

        def mean(values: Array) -> Array:
            total: Array = np.add.reduceat(values, firsts, axis=0)
            return total / counts.reshape(-1, *[1] * (values.ndim - 1))

        times, breaks = tuple(self.times[first] for first in firsts.tolist()), self.breaks[firsts]
        local = None if self.local is None else self.local[firsts]
        values = (mean(each) for each in (self.predictions, self.actual, self.baseline, self.contributions))
        widths = self.widths[firsts] * counts
        return Panel(self.title, self.unit, times, local, mean(self.at), widths, breaks, *values), size


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def stack(contributions: Array) -> tuple[Array, Array]:
    """Where the bar of each contribution starts and ends, (n, n_parts) each: positive ones up from 0, others down."""
    positive = np.maximum(contributions, 0).cumsum(axis=1)
    ends = np.where(contributions > 0, positive, np.minimum(contributions, 0).cumsum(axis=1))
    return ends - contributions, ends


def draw_series(result: Explanation, theme: Theme = "auto") -> bytes:
    """Draws several windows of one output as SVG."""
    heading = f"{with_unit(result.output, result.unit)} over time"
    return _draw_panels(heading, "", result.parts, [Panel.of(result.output, [result])], result.source, theme)


@draw.register
def draw_explanations(result: Explanations, theme: Theme = "auto") -> bytes:
    """Draws one window as SVG, a panel for each target, or several windows, a panel for each of some outputs."""
    all_of, parts = result.by_output, result.by_output[0].parts
    if len(result) == 1:
        names = tuple(dict.fromkeys(result.targets))
        of = {
            name: [one for one, target in zip(all_of, result.targets, strict=True) if target == name] for name in names
        }
        panels = [Panel.of(name, points) for name, points in of.items()]
        kind, heading = (
            "targets",
            f"{', '.join(names)}: the forecasts of {result.times[0] if result.times else 'one window'}",
        )
    else:
        panels = [Panel.of(each.output, [each]) for each in all_of]
        kind, heading = "outputs", f"{', '.join(dict.fromkeys(result.targets))} over time"
    chosen = np.unique(np.linspace(0, len(panels) - 1, N_PANELS).round().astype(int)).tolist()
    note = f", {len(chosen)} of {len(panels)} {kind}" if len(chosen) < len(panels) else ""
    return _draw_panels(heading, note, parts, [panels[number] for number in chosen], result.source, theme)


def _draw_panels(
    heading: str, note: str, names: Sequence[str], panels: Sequence[Panel], source: str, theme: Theme
) -> bytes:
    drawn = [panel.average(N_COLUMNS // min(2, len(panels))) for panel in panels]
    magnitude = sum(np.abs(panel.contributions).mean(axis=0) for panel, _ in drawn)
    order = np.argsort(-np.asarray(magnitude), kind="stable").tolist()
    n_named = N_COLORS if len(order) > N_COLORS + 1 else len(order)
    rest = order[n_named:]
    shown = [names[part] for part in order[:n_named]] + ([f"{len(rest)} more features"] if rest else [])
    largest = max(size for _, size in drawn)
    each = f"; a bar is the mean of {largest} windows" if largest > 1 else ""
    caption = f"what each feature adds to the forecast for the baseline{note}{each}"
    legend = Part("g")
    has_actual = any(not np.isnan(panel.actual).all() for panel, _ in drawn)
    top = _add_legend(legend, shown, has_actual)
    bottom = top + sum((TITLE + FORECASTS + BETWEEN + STACKS + AXIS for _ in drawn), start=0.0)
    root = new_picture(WIDTH, bottom, heading, caption, source)
    root.add_heading(heading, caption)
    root.append(legend)
    for panel, _ in drawn:
        values = panel.contributions
        kept = [values[:, order[:n_named]], *([values[:, rest].sum(axis=1, keepdims=True)] if rest else [])]
        _add_panel(root, top, panel, np.concatenate(kept, axis=1), shown)
        top += TITLE + FORECASTS + BETWEEN + STACKS + AXIS
    return root.serialise(theme)


def _add_legend(root: Part, names: Sequence[str], has_actual: bool) -> float:
    """A sample of each line and bar, in lines; returns the y coordinate of its end."""
    x, y = MARGIN, TOP
    lines = [("forecast", "curve"), ("actual value", "actual"), ("baseline", "dashed")]
    samples = [(name, look, "path") for name, look in lines if has_actual or name != "actual value"]
    samples += [(name, f"f{number}", "rect") for number, name in enumerate(names, start=1)]
    for name, look, tag in samples:
        text = abbreviate(name)
        if x > MARGIN and x + KEY + LETTER * len(text) > RIGHT:
            x, y = MARGIN, y + LINE
        if tag == "path":
            root.add("path", class_=look, d=f"M{x} {y - 4}h20")
        else:
            root.add("rect", class_=_color(look), x=x + 6, y=y - 10, width=12, height=12)
        entry = root.add("text", text, x=x + 24, y=y)
        if text != name:
            entry.add("title", name)
        x += KEY + LETTER * len(text) + 10
    return y + 10


def _color(look: str) -> str:
    """The class of a bar; those beyond the palette are the rest."""
    return look if int(look[1:]) <= N_COLORS else "f0"


def _add_panel(root: Part, top: float, panel: Panel, values: Array, names: Sequence[str]) -> None:
    """The plots of forecasts and of contributions `values`, (n, n_names), over one axis of time."""
    half = panel.widths / 2
    x = Scale(float(panel.at[0] - half[0]), float(panel.at[-1] + half[-1]), LEFT, RIGHT)
    lefts, rights = x.all_at(panel.at - half), x.all_at(panel.at + half)
    first, second = top + TITLE, top + TITLE + FORECASTS + BETWEEN
    known = panel.actual[~np.isnan(panel.actual)]
    y = scale_over([*panel.predictions, *panel.baseline, *known], first + FORECASTS, first, 0.05)
    starts, ends = stack(values)
    change = panel.predictions - panel.baseline
    below = scale_over([0.0, *starts.ravel(), *ends.ravel(), *change], second + STACKS, second, 0.03)
    root.add("text", abbreviate(with_unit(panel.title, panel.unit), 60), x=LEFT, y=top + 14, class_="strong")
    root.add(
        "text",
        "contributions" + (f" ({abbreviate(panel.unit)})" if panel.unit else ""),
        x=LEFT,
        y=second - 4,
        class_="muted",
    )
    root.add_levels(y, LEFT, RIGHT, 4)
    root.add_levels(below, LEFT, RIGHT, 7)
    breaks = [0, *np.flatnonzero(panel.breaks).tolist(), len(panel.at)]
    for after in breaks[1:-1]:
        gap = {"x": rights[after - 1], "width": lefts[after] - rights[after - 1], "height": second + STACKS - first}
        label = f"no window from {panel.times[after - 1]} to {panel.times[after]}"
        root.add("rect", class_="shade", y=first, **gap).add("title", label)
    for number, (name, start, end) in enumerate(zip(names, starts.T, ends.T, strict=True), start=1):
        bars = zip(lefts, rights, below.all_at(start), below.all_at(end), strict=True)
        path = "".join(f"M{a:.2f} {s:.2f}H{b:.2f}V{e:.2f}H{a:.2f}z" for a, b, s, e in bars if s != e)
        root.add("path", class_=_color(f"f{number}"), d=path, data_feature=name)
    root.add("path", class_="axis", d=f"M{LEFT} {below.at(0.0):.2f}H{RIGHT}")
    lines = (
        (y, panel.baseline, "dashed"),
        (y, panel.actual, "actual"),
        (y, panel.predictions, "curve"),
        (below, change, "net"),
    )
    for scale, line, look in lines:
        path = "".join(_trace(lefts, rights, scale.all_at(line), *run) for run in pairwise(breaks))
        if path:
            root.add("path", class_=look, d=path)
    for number, time in enumerate(panel.times):
        largest = np.argsort(-np.abs(values[number]), kind="stable")[:N_NAMED].tolist()
        drivers = ", ".join(f"{names[part]} {write_change(float(values[number, part]), None)}" for part in largest)
        came = "" if np.isnan(panel.actual[number]) else f", actual value {panel.actual[number]:.3g}"
        label = f"{time}: forecast {write_amount(float(panel.predictions[number]), panel.unit)}{came}; {drivers}"
        place = {"x": lefts[number], "width": rights[number] - lefts[number]}
        hit = root.add("rect", class_="hit", y=first, **place, height=second + STACKS - first)
        hit.add("title", label)
    _add_times(root, x, panel, second + STACKS)


def _trace(lefts: Sequence[float], rights: Sequence[float], ys: Sequence[float], start: int, end: int) -> str:
    """The line through points without a gap between them, as far as these are known; a dash for one alone."""
    path, is_open = "", False
    for number in range(start, end):
        if np.isnan(ys[number]):
            is_open = False
            continue
        alone = not is_open and (number + 1 == end or np.isnan(ys[number + 1]))
        middle = (lefts[number] + rights[number]) / 2
        path += (
            f"M{lefts[number]:.2f} {ys[number]:.2f}H{rights[number]:.2f}"
            if alone
            else f"{'L' if is_open else 'M'}{middle:.2f} {ys[number]:.2f}"
        )
        is_open = True
    return path


def _add_times(root: Part, x: Scale, panel: Panel, y: float) -> None:
    """Ticks of the time axis, and labels of those that have the room."""
    end = 0.0
    for place, label in _list_ticks(panel):
        lines = label.split(" ")
        half = LETTER / 2 * max(map(len, lines))
        root.add("path", class_="tick", d=f"M{x.at(place):.2f} {y}v5")
        if x.at(place) - half < end:
            continue
        end = x.at(place) + half
        for number, line in enumerate(lines):
            root.add("text", line, x=x.at(place), y=y + 17 + 13 * number, class_="middle muted")


def _list_ticks(panel: Panel) -> list[tuple[float, str]]:
    """Where years, months, days, hours or minutes begin, as many as there is room for; without dates, some points."""
    local = panel.local
    if local is None:
        every = ceil(len(panel.times) / N_TICKS)
        return [(float(panel.at[number]), panel.times[number]) for number in range(0, len(panel.times), every)]
    chosen, length = np.arange(0, len(local), ceil(len(local) / N_TICKS)), LEVELS["m"]
    most = 0
    for level, strides in STRIDES.items():
        begun = local.astype(f"datetime64[{level}]")
        count = begun.astype(np.int64)
        is_first = np.diff(count, prepend=count[0] - 1) != 0
        is_first &= (local - begun).astype(np.float64) < panel.widths  # not where the data begin after that
        for stride in strides:
            found = np.flatnonzero(is_first & (count % stride == 0))
            if most < len(found) <= N_TICKS:
                chosen, length, most = found, LEVELS[level], len(found)
    return [(float(panel.at[number]), str(local[number]).replace("T", " ")[:length]) for number in chosen.tolist()]
