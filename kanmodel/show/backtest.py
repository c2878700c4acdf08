"""The picture of a backtest: errors by step, hour and month beside persistence's, and the coverage of intervals."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from kanmodel.forecasts.backtest import Backtest
from kanmodel.result import Theme, draw
from kanmodel.show.style import N_COLORS
from kanmodel.show.svg import MARGIN, WIDTH, Element, new_picture, scale_over
from kanmodel.tables.statistics.errors import Errors
from kanmodel.text import write_amount, write_change

LEFT, RIGHT = 76.0, WIDTH - MARGIN  # ends of a plot
TOP, HEIGHT, PANEL = 84.0, 110.0, 176.0  # below the heading; of a plot; from one plot to the next
WIDEST = 40.0  # column
N_LABELS, N_TIMES = 14, 7  # below a plot
TITLES = {"horizon": "by steps ahead", "hour": "by hour of the day", "month": "by month"}

Groups = Mapping[int | str, Errors]  # by step, hour, week or month


@draw.register
def draw_backtest(result: Backtest, theme: Theme = "auto") -> bytes:
    """Draws a column for the MAE of each step, hour and month as SVG, with a line for that of persistence.

    Of one step, hour or month there is no plot, unless there is nothing else. Intervals have one of their coverage by
    week or month: a line for each level, and a dashed one where it should lie.
    """
    panels = {name: groups for name, groups in result.by.items() if len(groups) > 1 and name in TITLES}
    panels = panels or {"horizon": result.by["horizon"]}
    over_time = [name for name in ("week", "month") if result.levels and len(result.by[name]) > 1]
    unit, errors = result.unit, result.metrics
    heading = f"{result.target}: MAE {'unknown' if errors.mae is None else write_amount(errors.mae, unit)}"
    skill = "" if errors.skill is None else f"; skill {errors.skill:.3g}"
    caption = f"mean absolute error of {errors.count:,} forecasts; the dark lines are those of persistence{skill}"
    root = new_picture(WIDTH, TOP + PANEL * (len(panels) + bool(over_time)), heading, caption, result.source)
    for number, (name, groups) in enumerate(panels.items()):
        title = TITLES[name] if name == "horizon" else f"{TITLES[name]} ({result.clock})"
        _add_columns(root, TOP + PANEL * number, title, groups, unit)
    if over_time:
        _add_coverage(root, TOP + PANEL * len(panels), over_time[0], result)
    return root.serialise(theme)


def _add_columns(root: Element, top: float, title: str, groups: Groups, unit: str | None) -> None:
    """Adds a column for each group, with labels below and rules at round values."""
    root.add_text(title, LEFT, top, "strong")
    top, bottom = top + 14, top + 14 + HEIGHT
    known = (value for errors in groups.values() for value in (errors.mae, errors.persistence_mae))
    y = scale_over([0.0, *(value for value in known if value is not None)], bottom, top)
    root.add_levels(y, LEFT, RIGHT, 4)
    if unit:
        root.add_text(unit, LEFT - 8, top - 14, "end muted")
    pitch, every = (RIGHT - LEFT) / len(groups), ceil(len(groups) / N_LABELS)
    width = min(0.7 * pitch, WIDEST)
    for number, (value, errors) in enumerate(groups.items()):
        middle = LEFT + pitch * (number + 0.5)
        if number % every == 0:
            root.add_text(f"{value}", middle, bottom + 16, "middle muted")
        if errors.mae is None or errors.bias is None:
            continue
        label = f"{value}: MAE {write_amount(errors.mae, unit)}, bias {write_change(errors.bias, unit)}"
        if errors.persistence_mae is not None:
            label += f", persistence {write_amount(errors.persistence_mae, unit)}"
        group = root.add_group(f"{label}, {errors.count:,} forecasts", class_="column")
        high = y.at(errors.mae)
        group.add_rect("rise", middle - width / 2, high, width, bottom - high, fill_opacity=0.8)
        if errors.persistence_mae is not None:
            at, half = y.at(errors.persistence_mae), min(0.45 * pitch, WIDEST)
            group.add_path("whisker", f"M{middle - half:.2f} {at:.2f}H{middle + half:.2f}")


def _add_coverage(root: Element, top: float, by: str, result: Backtest) -> None:
    """Adds the coverage at each level over weeks or months, and the levels as dashed lines."""
    groups, levels = result.by[by], result.levels
    root.add_text(f"share of actual values within the intervals, by {by}", LEFT, top, "strong")
    top, bottom = top + 14, top + 14 + HEIGHT
    covered = [[errors.intervals[k].covered for errors in groups.values()] for k in range(len(levels))]
    y = scale_over([1.0, *levels, *(value for line in covered for value in line if value is not None)], bottom, top)
    root.add_levels(y, LEFT, RIGHT, 4)
    pitch, every = (RIGHT - LEFT) / len(groups), ceil(len(groups) / N_TIMES)
    for number, label in enumerate(groups):
        if number % every == 0:
            root.add_text(f"{label}", LEFT + pitch * (number + 0.5), bottom + 16, "middle muted")
    for k, level in enumerate(levels):
        root.add_path("dashed", f"M{LEFT} {y.at(level):.2f}H{RIGHT}")
        known = [(LEFT + pitch * (n + 0.5), y.at(value)) for n, value in enumerate(covered[k]) if value is not None]
        group = root.add_group(f"coverage of intervals at {level:g}", class_="panel")
        group.add_line(f"part s{1 + k % N_COLORS} main", *zip(*known, strict=True))
