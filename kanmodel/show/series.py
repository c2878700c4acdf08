"""The picture of forecasts over time: with their intervals and actual values, and if explained the contributions below.

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

from kanmodel.arrays import Array
from kanmodel.attribution.explanation import Explanation
from kanmodel.attribution.explanations import Explanations
from kanmodel.forecasts.forecasts import Forecasts
from kanmodel.result import Theme, draw
from kanmodel.show.style import N_COLORS, VEIL
from kanmodel.show.svg import MARGIN, Part, Scale, enclose, new_picture, scale_over, write_amount, write_change
from kanmodel.tables.instants import to_local
from kanmodel.tables.rhythm import MAX_STEP
from kanmodel.text import abbreviate, with_unit

WIDTH = 760.0
LEFT, RIGHT = 78.0, 736.0  # ends of the plots
TOP, LINE = 82.0, 18.0  # below the heading; height of a line of the legend
LETTER, KEY = 6.2, 30.0  # width of a letter, roughly; of a legend's sample with its space
TITLE, FORECASTS, BETWEEN, STACKS, AXIS = 24.0, 130.0, 16.0, 170.0, 52.0  # heights in a panel, from top to bottom
ALONE = 190.0  # of the forecasts where nothing is below them
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
        levels: of the intervals, ascending.
        times: of the n points, as texts.
        local: the same by the local clock, (n,); None without dates.
        at: the same in seconds, or in the unit of the time column, (n,), ascending.
        widths: of the bars, likewise.
        breaks: whether there is a gap in time before each point, (n,).
        predictions, actual, baseline: (n,) each; NaN where there is no actual value.
        contributions: (n, n_parts); they sum to the predictions minus the baseline, up to the residual. Of forecasts
            that are not explained there are no parts.
        bounds: the lower and the upper bound of the interval at each level, (n, 2 n_levels).
    """

    title: str
    unit: str | None
    levels: tuple[float, ...]
    times: tuple[str, ...]
    local: NDArray[np.datetime64] | None
    at: Array
    widths: Array
    breaks: NDArray[np.bool_]
    predictions: Array
    actual: Array
    baseline: Array
    contributions: Array
    bounds: Array

    @classmethod
    def of(cls, title: str, points: Sequence[Explanation]) -> Panel:
        """That of one explanation of several windows, or of several explanations of one."""
        first, moments = points[0], [each.instants for each in points if each.instants is not None]
        if len(points) == 1:
            names = first.target_times or first.times or (abbreviate(first.output),)
        else:
            names = tuple((each.target_times or (abbreviate(each.output),))[0] for each in points)
        at = np.concatenate(moments) if moments else np.arange(len(names), dtype=np.float64)
        levels = tuple(level for level in first.intervals if all(level in each.intervals for each in points))
        bounds = [[bound for level in levels for bound in each.intervals[level]] for each in points]
        columns = (
            [each.predictions for each in points],
            [np.full(len(each), np.nan) if each.actual is None else each.actual for each in points],
            [np.full(len(each), each.baseline_prediction) for each in points],
            [each.contributions_by_part for each in points],
            [np.reshape(of, (-1, len(each))).T for of, each in zip(bounds, points, strict=True)],
        )
        clock = first.zone, bool(moments) and first.times is not None and not _is_number(first.times[0])
        return cls._over(at, names, *clock, title, first.unit, levels, *(np.concatenate(parts) for parts in columns))

    @classmethod
    def of_forecasts(cls, title: str, result: Forecasts, outputs: Sequence[int]) -> Panel:
        """That of some outputs of one window, or of one output of several."""
        names: Sequence[str] = [abbreviate(result.outputs[output]) for output in outputs]
        if len(result) > 1:
            names = result.times or [str(window) for window in range(len(result))]
        if result.target_times is not None:
            names = result.target_times[:, outputs].ravel().tolist()
        unknown = np.full(len(names), np.nan)
        actual, instants = (None if of is None else of[:, outputs].ravel() for of in (result.actual, result.instants))
        bounds = np.stack([result.lower, result.upper], axis=1)[..., outputs]  # (n_levels, 2, n, n_outputs)
        columns = (
            result.predictions[:, outputs].ravel(),
            unknown if actual is None else actual,
            unknown,
            np.empty((len(names), 0)),
            bounds.reshape(-1, len(names)).T,
        )
        at = np.arange(len(names), dtype=np.float64) if instants is None else instants
        clock = result.zone, instants is not None and result.times is not None and not _is_number(result.times[0])
        return cls._over(at, names, *clock, title, result.units[outputs[0]], result.levels, *columns)

    @classmethod
    def _over(
        cls,
        at: Array,
        times: Sequence[str],
        zone: str | None,
        is_dated: bool,
        title: str,
        unit: str | None,
        levels: tuple[float, ...],
        *columns: Array,
    ) -> Panel:
        """The panel of points in any order; columns are predictions, actual, baseline, contributions and bounds."""
        order = np.argsort(at, kind="stable")
        at = at[order]
        step = float(np.median(np.diff(at))) if len(at) > 1 else 1.0
        return cls(
            title,
            unit,
            levels,
            tuple(times[number] for number in order.tolist()),
            to_local(at, zone).astype("datetime64[s]") if is_dated else None,
            at,
            np.full(len(at), step),
            np.diff(at, prepend=at[0]) > MAX_STEP * step,
            *(column[order] for column in columns),
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
        columns = self.predictions, self.actual, self.baseline, self.contributions, self.bounds
        widths, values = self.widths[firsts] * counts, map(mean, columns)
        return Panel(self.title, self.unit, self.levels, times, local, mean(self.at), widths, breaks, *values), size


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
    all_of = result.by_output
    heading, note, chosen = _divide(result)
    panels = [Panel.of(title, [all_of[output] for output in outputs]) for title, outputs in chosen.items()]
    return _draw_panels(heading, note, all_of[0].parts, panels, result.source, theme)


@draw.register
def draw_forecasts(result: Forecasts, theme: Theme = "auto") -> bytes:
    """Draws one window as SVG, a panel for each target, or several windows, a panel for each of some outputs."""
    heading, note, chosen = _divide(result)
    panels = [Panel.of_forecasts(title, result, outputs) for title, outputs in chosen.items()]
    return _draw_panels(heading, note, (), panels, result.source, theme)


def _divide(result: Explanations | Forecasts) -> tuple[str, str, dict[str, list[int]]]:
    """The heading, what is left out, and what has a panel: of one window the outputs of a target, else each output."""
    names, of = ", ".join(dict.fromkeys(result.targets)), dict[str, list[int]]()
    for number, title in enumerate(result.targets if len(result) == 1 else result.outputs):
        of.setdefault(title, []).append(number)
    kind, heading = "outputs", f"{names} over time"
    if len(result) == 1:
        kind, heading = "targets", f"{names}: the forecasts of {result.times[0] if result.times else 'one window'}"
    titles = list(of)
    kept = np.unique(np.linspace(0, len(titles) - 1, N_PANELS).round().astype(int)).tolist()
    note = f", {len(kept)} of {len(titles)} {kind}" if len(kept) < len(titles) else ""
    return heading, note, {titles[number]: of[titles[number]] for number in kept}


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
    if not names:
        caption = f"forecasts, and the interval in which the actual value lies as often as the level says{note}{each}"
    legend = Part("g")
    has_actual = any(not np.isnan(panel.actual).all() for panel, _ in drawn)
    top = _add_legend(legend, shown, has_actual, drawn[0][0].levels)
    height = TITLE + AXIS + (FORECASTS + BETWEEN + STACKS if names else ALONE)
    bottom = top + height * len(drawn)
    root = new_picture(WIDTH, bottom, heading, caption, source)
    root.add_heading(heading, caption)
    root.append(legend)
    for panel, _ in drawn:
        values = panel.contributions
        kept = [values[:, order[:n_named]], *([values[:, rest].sum(axis=1, keepdims=True)] if rest else [])]
        _add_panel(root, top, panel, np.concatenate(kept, axis=1), shown)
        top += height
    return root.serialise(theme)


def _add_legend(root: Part, names: Sequence[str], has_actual: bool, levels: Sequence[float]) -> float:
    """A sample of each line, interval and bar, in lines; returns the y coordinate of its end."""
    x, y = MARGIN, TOP
    lines = {"forecast": "curve"} | ({"actual value": "actual"} if has_actual else {})
    samples = [(name, look, "path") for name, look in (lines | ({"baseline": "dashed"} if names else {})).items()]
    samples += [
        (f"{100 * level:g} % interval", str(len(levels) - number), "band") for number, level in enumerate(levels)
    ]
    samples += [(name, f"f{number}", "rect") for number, name in enumerate(names, start=1)]
    for name, look, tag in samples:
        text = abbreviate(name)
        if x > MARGIN and x + KEY + LETTER * len(text) > RIGHT:
            x, y = MARGIN, y + LINE
        if tag == "path":
            root.add("path", class_=look, d=f"M{x} {y - 4}h20")
        elif tag == "band":  # as many veils as lie there
            root.add(
                "rect", class_="rise", x=x, y=y - 10, width=20, height=12, fill_opacity=1 - (1 - VEIL) ** int(look)
            )
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
    """The plots of forecasts and, if explained, of contributions `values`, (n, n_names), over one axis of time."""
    half = panel.widths / 2
    x = Scale(float(panel.at[0] - half[0]), float(panel.at[-1] + half[-1]), LEFT, RIGHT)
    lefts, rights = x.all_at(panel.at - half), x.all_at(panel.at + half)
    first = top + TITLE
    end = first + FORECASTS + BETWEEN + STACKS if names else first + ALONE
    of_forecasts = [panel.predictions, panel.baseline, panel.actual, panel.bounds.ravel()]
    known = np.concatenate([of[~np.isnan(of)] for of in of_forecasts])
    y = scale_over(known.tolist(), first + FORECASTS if names else end, first, 0.05)
    root.add("text", abbreviate(with_unit(panel.title, panel.unit), 60), x=LEFT, y=top + 14, class_="strong")
    root.add_levels(y, LEFT, RIGHT, 4)
    breaks = [0, *np.flatnonzero(panel.breaks).tolist(), len(panel.at)]
    for after in breaks[1:-1]:
        gap = {"x": rights[after - 1], "width": lefts[after] - rights[after - 1], "height": end - first}
        label = f"no window from {panel.times[after - 1]} to {panel.times[after]}"
        root.add("rect", class_="shade", y=first, **gap).add("title", label)
    lines = [(y, panel.baseline, "dashed"), (y, panel.actual, "actual"), (y, panel.predictions, "curve")]
    for number, level in reversed([*enumerate(panel.levels)]):  # the widest below the others
        low, high = (y.all_at(panel.bounds[:, 2 * number + side]) for side in (0, 1))
        path = "".join(_surround(lefts, rights, low, high, *run) for run in pairwise(breaks))
        root.add("path", class_="rise", d=path, fill_opacity=VEIL, data_level=f"{level:g}")
    if names:
        lines.append(_add_stacks(root, end, panel, values, names, lefts, rights))
    for scale, line, look in lines:
        path = "".join(_trace(lefts, rights, scale.all_at(line), *run) for run in pairwise(breaks))
        if path:
            root.add("path", class_=look, d=path)
    for number, time in enumerate(panel.times):
        largest = np.argsort(-np.abs(values[number]), kind="stable")[:N_NAMED].tolist()
        drivers = ", ".join(f"{names[part]} {write_change(float(values[number, part]), None)}" for part in largest)
        came = "" if np.isnan(panel.actual[number]) else f", actual value {panel.actual[number]:.3g}"
        label = f"{time}: forecast {write_amount(float(panel.predictions[number]), panel.unit)}{came}"
        pairs = zip(panel.levels, panel.bounds[number].reshape(-1, 2).tolist(), strict=True)
        label += "".join(f", {100 * p:g} % {write_amount(a, None)} to {write_amount(b, None)}" for p, (a, b) in pairs)
        label += f"; {drivers}" if names else ""
        place = {"x": lefts[number], "width": rights[number] - lefts[number]}
        hit = root.add("rect", class_="hit", y=first, **place, height=end - first)
        hit.add("title", label)
    _add_times(root, x, panel, end)


def _add_stacks(
    root: Part,
    end: float,
    panel: Panel,
    values: Array,
    names: Sequence[str],
    lefts: Sequence[float],
    rights: Sequence[float],
) -> tuple[Scale, Array, str]:
    """The bars of contributions, down to `end`; returns the line of their sums with its scale and look."""
    starts, ends = stack(values)
    change, top = panel.predictions - panel.baseline, end - STACKS
    below = scale_over([0.0, *starts.ravel(), *ends.ravel(), *change], end, top, 0.03)
    title = "contributions" + (f" ({abbreviate(panel.unit)})" if panel.unit else "")
    root.add("text", title, x=LEFT, y=top - 4, class_="muted")
    root.add_levels(below, LEFT, RIGHT, 7)
    for number, (name, start, stop) in enumerate(zip(names, starts.T, ends.T, strict=True), start=1):
        bars = zip(lefts, rights, below.all_at(start), below.all_at(stop), strict=True)
        path = "".join(f"M{a:.2f} {s:.2f}H{b:.2f}V{e:.2f}H{a:.2f}z" for a, b, s, e in bars if s != e)
        root.add("path", class_=_color(f"f{number}"), d=path, data_feature=name)
    root.add("path", class_="axis", d=f"M{LEFT} {below.at(0.0):.2f}H{RIGHT}")
    return below, change, "net"


def _surround(
    lefts: Sequence[float], rights: Sequence[float], low: Sequence[float], high: Sequence[float], start: int, end: int
) -> str:
    """The area between two lines through points without a gap between them; a bar for one point alone."""
    xs = [(lefts[number] + rights[number]) / 2 for number in range(start, end)]
    lower, upper = [*low[start:end]], [*high[start:end]]
    if len(xs) == 1:
        xs, lower, upper = [lefts[start], rights[start]], lower * 2, upper * 2
    return enclose(xs, lower, upper)


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
    most = 1  # a single tick says less than some points
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
