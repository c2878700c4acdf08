"""The picture of forecasts over time: with their intervals and actual values, and if explained the contributions below.

At each time the contributions above the baseline's line are the positive ones, those below it the negative ones; the
line through them is their sum, the forecast minus the baseline's. Of one window it is over the outputs of each target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.attribution.explanation import Explanation
from kanmodel.attribution.explanations import Explanations
from kanmodel.forecasts.forecasts import Forecasts
from kanmodel.result import Theme, draw
from kanmodel.show.style import N_COLORS, VEIL
from kanmodel.show.svg import MARGIN, WIDTH, Element, Scale, enclose, fold_rest, new_picture, scale_over
from kanmodel.tables.instants import to_local
from kanmodel.tables.rhythm import MAX_STEP
from kanmodel.text import abbreviate, with_unit, write_amount, write_change

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
LETTERS = {"Y": 4, "M": 7, "D": 10, "h": 16, "m": 16}  # of a time at ticks of years, months, days, …


@dataclass(frozen=True)
class Panel:
    """What is drawn over one time axis: n points in order, of one output or, for one window, of those of a target."""

    title: str  # the output, or the target
    unit: str | None  # of the target
    levels: tuple[float, ...]  # of the intervals, ascending
    times: tuple[str, ...]  # of the points, as texts
    local: NDArray[np.datetime64] | None  # the same by the local clock, (n,); None without dates
    at: Array  # the same in seconds, or in the unit of the time column, (n,), ascending
    widths: Array  # of the bars, likewise
    breaks: NDArray[np.bool_]  # whether there is a gap in time before each point, (n,)
    predictions: Array  # (n,)
    actual: Array  # (n,), NaN where there is none
    baseline: Array  # (n,), NaN of forecasts that are not explained
    contributions: Array  # (n, n_parts), which sum to predictions minus baseline; no parts if not explained
    bounds: Array  # the lower and the upper bound of the interval at each level, (n, 2 n_levels)

    @classmethod
    def of(cls, title: str, points: Sequence[Explanation]) -> Panel:
        """That of one explanation of several windows, or of several explanations of one."""
        first, instants = points[0], [each.instants for each in points if each.instants is not None]
        of_windows = first.times if len(points) == 1 else None
        times = [time for each in points for time in each.target_times or of_windows or (abbreviate(each.output),)]
        levels = tuple(level for level in first.intervals if all(level in each.intervals for each in points))
        bounds = [np.array([each.intervals[level] for level in levels]).reshape(-1, len(each)).T for each in points]
        columns = (
            [each.predictions for each in points],
            [np.full(len(each), np.nan) if each.actual is None else each.actual for each in points],
            [np.full(len(each), each.baseline_prediction) for each in points],
            [each.contributions_shown for each in points],
            bounds,
        )
        at = np.concatenate(instants) if instants else None
        return cls._over(first, title, first.unit, levels, times, at, *(np.concatenate(column) for column in columns))

    @classmethod
    def of_forecasts(cls, title: str, result: Forecasts, outputs: Sequence[int]) -> Panel:
        """That of some outputs of one window, or of one output of several."""
        times = [abbreviate(result.outputs[output]) for output in outputs]
        if len(result) > 1:
            times = [*(result.times or map(str, range(len(result))))]
        if result.target_times is not None:
            times = result.target_times[:, outputs].ravel().tolist()
        unknown = np.full(len(times), np.nan)
        actual, at = (None if of is None else of[:, outputs].ravel() for of in (result.actual, result.instants))
        bounds = np.stack([result.lower, result.upper], axis=1)[..., outputs]  # (n_levels, 2, n, n_outputs)
        columns = (
            result.predictions[:, outputs].ravel(),
            unknown if actual is None else actual,
            unknown,
            np.empty((len(times), 0)),
            bounds.reshape(-1, len(times)).T,
        )
        return cls._over(result, title, result.units[outputs[0]], result.levels, times, at, *columns)

    @classmethod
    def _over(
        cls,
        of: Explanation | Forecasts,
        title: str,
        unit: str | None,
        levels: tuple[float, ...],
        times: Sequence[str],
        instants: Array | None,
        *columns: Array,
    ) -> Panel:
        """The panel of points in any order; columns are predictions, actual, baseline, contributions and bounds."""
        is_dated = instants is not None and of.times is not None and not _is_number(of.times[0])
        at = np.arange(len(times), dtype=np.float64) if instants is None else instants
        order = np.argsort(at, kind="stable")
        at = at[order]
        local = to_local(at, of.zone).astype("datetime64[s]") if is_dated else None
        step = float(np.median(np.diff(at))) if len(at) > 1 else 1.0
        breaks = np.diff(at, prepend=at[0]) > MAX_STEP * step
        named = tuple(times[number] for number in order.tolist())
        ordered = (column[order] for column in columns)
        return cls(title, unit, levels, named, local, at, np.full(len(at), step), breaks, *ordered)

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

        averaged = ("at", "predictions", "actual", "baseline", "contributions", "bounds")
        columns: dict[str, Any] = {name: mean(getattr(self, name)) for name in averaged}
        local = None if self.local is None else self.local[firsts]
        times, widths = tuple(self.times[first] for first in firsts.tolist()), self.widths[firsts] * counts
        return replace(self, times=times, local=local, widths=widths, breaks=self.breaks[firsts], **columns), size


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
    return _draw_panels(heading, "", [*result.shown], [Panel.of(result.output, [result])], result.source, theme)


@draw.register
def draw_explanations(result: Explanations, theme: Theme = "auto") -> bytes:
    """Draws one window as SVG, a panel for each target, or several windows, a panel for each of some outputs."""
    all_of = result.by_output
    heading, note, chosen = _divide(result)
    panels = [Panel.of(title, [all_of[output] for output in outputs]) for title, outputs in chosen.items()]
    return _draw_panels(heading, note, [*all_of[0].shown], panels, result.source, theme)


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
    """The panels below each other; of more parts than colours the least are drawn as one."""
    drawn = [panel.average(N_COLUMNS // min(2, len(panels))) for panel in panels]
    magnitudes = np.sum([np.abs(panel.contributions).mean(axis=0) for panel, _ in drawn], axis=0)
    folded = fold_rest(names, magnitudes, N_COLORS)
    shown = [name for name, _ in folded]
    largest = max(size for _, size in drawn)
    caption = "what each feature adds to the forecast for the baseline"
    if not names:
        caption = "forecasts, and the interval in which the actual value lies as often as the level says"
    caption += note + (f"; a bar is the mean of {largest} windows" if largest > 1 else "")
    legend = Element("g")
    has_actual = any(not np.isnan(panel.actual).all() for panel, _ in drawn)
    top = _add_legend(legend, shown, has_actual, drawn[0][0].levels)
    height = TITLE + AXIS + (FORECASTS + BETWEEN + STACKS if names else ALONE)
    root = new_picture(WIDTH, top + height * len(drawn), heading, caption, source)
    root.append(legend)
    for number, (panel, _) in enumerate(drawn):
        values = np.array([panel.contributions[:, of].sum(axis=1) for _, of in folded]).reshape(-1, len(panel.at)).T
        _add_panel(root, top + height * number, replace(panel, contributions=values), shown)
    return root.serialise(theme)


def _add_legend(root: Element, names: Sequence[str], has_actual: bool, levels: Sequence[float]) -> float:
    """A sample of each line, interval and bar, in lines; returns the y coordinate of its end."""
    samples = [("forecast", "curve"), *([("actual value", "actual")] if has_actual else [])]
    samples += [("baseline", "dashed")] if names else []
    samples += [(f"{100 * level:g} % interval", "rise") for level in levels]
    samples += [(name, _color(number)) for number, name in enumerate(names, start=1)]
    x, y, n_veils = MARGIN, TOP, len(levels)
    for name, look in samples:
        text = abbreviate(name)
        if x > MARGIN and x + KEY + LETTER * len(text) > RIGHT:
            x, y = MARGIN, y + LINE
        if look in ("curve", "actual", "dashed"):
            root.add_path(look, f"M{x} {y - 4}h20")
        elif look == "rise":  # as many veils as lie there
            root.add_rect(look, x, y - 10, 20, 12, fill_opacity=1 - (1 - VEIL) ** n_veils)
            n_veils -= 1
        else:
            root.add_rect(look, x + 6, y - 10, 12, 12)
        entry = root.add_text(text, x + 24, y)
        if text != name:
            entry.add("title", name)
        x += KEY + LETTER * len(text) + 10
    return y + 10


def _color(number: int) -> str:
    """The class of the bars of a part; those beyond the palette are the rest."""
    return f"f{number}" if number <= N_COLORS else "f0"


def _add_panel(root: Element, top: float, panel: Panel, names: Sequence[str]) -> None:
    """The plots of forecasts and, if they are explained, of contributions to them over one axis of time."""
    half, values = panel.widths / 2, panel.contributions
    x = Scale(float(panel.at[0] - half[0]), float(panel.at[-1] + half[-1]), LEFT, RIGHT)
    lefts, rights = x.all_at(panel.at - half), x.all_at(panel.at + half)
    first = top + TITLE
    end = first + FORECASTS + BETWEEN + STACKS if names else first + ALONE
    known = np.concatenate([panel.predictions, panel.baseline, panel.actual, panel.bounds.ravel()])
    y = scale_over(known[~np.isnan(known)].tolist(), first + FORECASTS if names else end, first, 0.05)
    root.add_text(abbreviate(with_unit(panel.title, panel.unit), 60), LEFT, top + 14, "strong")
    root.add_levels(y, LEFT, RIGHT, 4)
    for after in np.flatnonzero(panel.breaks).tolist():
        label = f"no window from {panel.times[after - 1]} to {panel.times[after]}"
        gap = {"x": rights[after - 1], "width": lefts[after] - rights[after - 1], "height": end - first}
        root.add("rect", class_="shade", y=first, **gap).add("title", label)
    for number, level in reversed([*enumerate(panel.levels)]):  # the widest below the others
        bounds = [y.all_at(panel.bounds[:, 2 * number + side]) for side in (0, 1)]
        path = _trace(lefts, rights, panel.breaks, *bounds)
        root.add_path("rise", path, fill_opacity=VEIL, data_level=f"{level:g}")
    lines = [(y, panel.baseline, "dashed"), (y, panel.actual, "actual"), (y, panel.predictions, "curve")]
    if names:
        starts, ends = stack(values)
        change, high = panel.predictions - panel.baseline, end - STACKS
        below = scale_over([0.0, *starts.ravel(), *ends.ravel(), *change], end, high, 0.03)
        title = "contributions" + (f" ({abbreviate(panel.unit)})" if panel.unit else "")
        root.add_text(title, LEFT, high - 4, "muted")
        root.add_levels(below, LEFT, RIGHT, 7)
        for number, (name, start, stop) in enumerate(zip(names, starts.T, ends.T, strict=True), start=1):
            bars = zip(lefts, rights, below.all_at(start), below.all_at(stop), strict=True)
            path = "".join(f"M{a:.2f} {s:.2f}H{b:.2f}V{e:.2f}H{a:.2f}z" for a, b, s, e in bars if s != e)
            root.add_path(_color(number), path, data_feature=name)
        root.add_path("axis", f"M{LEFT} {below.at(0.0):.2f}H{RIGHT}")
        lines.append((below, change, "net"))
    for scale, line, look in lines:
        if path := _trace(lefts, rights, panel.breaks, scale.all_at(line)):
            root.add_path(look, path)
    for number, time in enumerate(panel.times):
        largest = np.argsort(-np.abs(values[number]), kind="stable")[:N_NAMED].tolist()
        drivers = ", ".join(f"{names[part]} {write_change(float(values[number, part]))}" for part in largest)
        came = "" if np.isnan(panel.actual[number]) else f", actual value {panel.actual[number]:.3g}"
        label = f"{time}: forecast {write_amount(float(panel.predictions[number]), panel.unit)}{came}"
        pairs = zip(panel.levels, panel.bounds[number].reshape(-1, 2).tolist(), strict=True)
        label += "".join(f", {100 * p:g} % {write_amount(a)} to {write_amount(b)}" for p, (a, b) in pairs)
        place = {"x": lefts[number], "width": rights[number] - lefts[number]}
        hit = root.add("rect", class_="hit", y=first, **place, height=end - first)
        hit.add("title", f"{label}; {drivers}" if names else label)
    _add_times(root, x, panel, end)


def _trace(
    lefts: Sequence[float], rights: Sequence[float], breaks: NDArray[np.bool_], ys: Sequence[float], *upper: list[float]
) -> str:
    """A line through each run of known points without a gap between them, or the area up to another line.

    A point alone has a dash, or a bar, as wide as the point.
    """
    known = ~np.isnan(ys)
    starts = np.flatnonzero(known & (breaks | ~np.append(False, known[:-1])))
    ends = np.flatnonzero(known & np.append(breaks[1:] | ~known[1:], True)) + 1
    path = ""
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        middles = [(left + right) / 2 for left, right in zip(lefts[start:end], rights[start:end], strict=True)]
        xs = [lefts[start], rights[start]] if end == start + 1 else middles
        if upper:
            lower, higher = (list(side[start:end]) * (len(xs) // (end - start)) for side in (ys, *upper))
            path += enclose(xs, lower, higher)
        elif end == start + 1:
            path += f"M{xs[0]:.2f} {ys[start]:.2f}H{xs[1]:.2f}"
        else:
            path += "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in zip(xs, ys[start:end], strict=True))
    return path


def _add_times(root: Element, x: Scale, panel: Panel, y: float) -> None:
    """Ticks of the time axis, and labels of those that have the room."""
    end = 0.0
    for place, label in _list_ticks(panel):
        lines, at = label.split(" "), x.at(place)
        half = LETTER / 2 * max(map(len, lines))
        root.add_path("tick", f"M{at:.2f} {y}v5")
        if at - half >= end:
            end = at + half
            for number, line in enumerate(lines):
                root.add_text(line, at, y + 17 + 13 * number, "middle muted")


def _list_ticks(panel: Panel) -> list[tuple[float, str]]:
    """Where years, months, days, hours or minutes begin, as many as there is room for; without dates, some points."""
    local, every = panel.local, ceil(len(panel.times) / N_TICKS)
    if local is None:
        return [(float(panel.at[number]), panel.times[number]) for number in range(0, len(panel.times), every)]
    chosen, length = np.arange(0, len(local), every), LETTERS["m"]
    most = 1  # a single tick says less than some points
    for level, strides in STRIDES.items():
        begun = local.astype(f"datetime64[{level}]")
        count = begun.astype(np.int64)
        is_first = np.diff(count, prepend=count[0] - 1) != 0
        is_first &= (local - begun).astype(np.float64) < panel.widths  # not where the data begin after that
        for stride in strides:
            found = np.flatnonzero(is_first & (count % stride == 0))
            if most < len(found) <= N_TICKS:
                chosen, length, most = found, LETTERS[level], len(found)
    return [(float(panel.at[number]), str(local[number]).replace("T", " ")[:length]) for number in chosen.tolist()]
