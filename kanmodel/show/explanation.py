"""The picture of one explained forecast: a waterfall chart, and a heat map of features by steps.

`Forecast`: the data of one explained forecast that its pictures share.

The waterfall chart of one forecast: from the baseline's forecast, feature by feature, to the window's.

The heat map of one forecast: the contribution of each feature at each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from xml.etree.ElementTree import Element

import numpy as np

from kanmodel.data import Array, rows_of_steps, steps_of_rows
from kanmodel.explain.result import Theme
from kanmodel.show.svg import (
    Scale,
    add,
    add_group,
    new_picture,
    require_finite,
    scale_over,
    serialise,
    shorten,
    write_amount,
    write_change,
)

WIDTH = 760.0
LEFT, RIGHT = 190.0, 640.0  # ends of a plot; names are left and amounts right of it


@dataclass(frozen=True)
class Forecast:
    """Contributions of each feature at each step to one forecast, in the target's unit.

    Attributes:
        output: name of the output.
        unit: of all values; None if unknown.
        features: names of the features, or of groups of them.
        baseline_prediction: the forecast from which the contributions start.
        prediction: the forecast in which they end, up to the residual.
        contributions: (n_features,), the signed sum over the steps.
        steps: (lookback, n_features), oldest step first.
        segments: first and last step of those that are drawn together, by name; empty for each step alone.
        removed: what the forecast loses without each feature, (n_features,); None if unknown.
        alone: what each feature does alone, likewise.
    """

    output: str
    unit: str | None
    features: Sequence[str]
    baseline_prediction: float
    prediction: float
    contributions: Array
    steps: Array
    segments: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    removed: Array | None = None
    alone: Array | None = None


def split_features(magnitudes: Array, most: int) -> tuple[list[int], list[int]]:
    """The features to draw individually, largest first, and those to draw as one.

    Args:
        magnitudes: (n_features,).
        most: most features to draw individually, if more than one is left.
    """
    order = np.argsort(-magnitudes, kind="stable").tolist()
    n_named = most if len(order) > most + 1 else len(order)
    return order[:n_named], order[n_named:]


ROW, BAR = 22.0, 14.0  # heights
AXIS = 34.0  # height of the axis' labels
N_FEATURES = 15  # features drawn individually; the rest are one bar


@dataclass(frozen=True)
class _Step:
    """One bar: its name, the forecasts before and after it, and a note for its tooltip."""

    name: str
    before: float
    after: float
    note: str


def add_waterfall(root: Element, top: float, forecast: Forecast) -> float:
    """Draws the waterfall of one forecast below `top`, and returns the y coordinate of its end."""
    steps = _take_steps(forecast)
    unit, bottom = forecast.unit, top + ROW * (len(steps) + 2)
    ends = [forecast.prediction, *(end for step in steps for end in (step.before, step.after))]
    x = scale_over(ends, LEFT, RIGHT, 0.04)
    _draw_axis(root, x, top, bottom, unit)
    _draw_forecast(root, x, top, "baseline", forecast.baseline_prediction, unit)
    for number, step in enumerate(steps, start=1):
        _draw_step(root, x, top + ROW * number, step, unit)
    _draw_forecast(root, x, bottom - ROW, "forecast", forecast.prediction, unit)
    return bottom + AXIS


def _take_steps(forecast: Forecast) -> list[_Step]:
    """The bars, largest contribution first; features beyond `N_FEATURES` are one bar."""
    contributions, start = forecast.contributions, forecast.baseline_prediction
    named, rest = split_features(np.abs(contributions), N_FEATURES)
    parts = [(forecast.features[number], float(contributions[number]), _note(forecast, number)) for number in named]
    if rest:
        parts.append((f"{len(rest)} more features", float(contributions[rest].sum()), ""))
    steps = []
    for name, amount, note in parts:
        steps.append(_Step(name, start, start + amount, note))
        start += amount
    return steps


def _note(forecast: Forecast, number: int) -> str:
    if forecast.removed is None or forecast.alone is None:
        return ""
    removed, alone = (
        write_change(float(values[number]), forecast.unit) for values in (forecast.removed, forecast.alone)
    )
    return f"; removed {removed}, alone {alone}"


def _draw_axis(root: Element, x: Scale, top: float, bottom: float, unit: str | None) -> None:
    for value in x.ticks():
        at = x.at(value)
        add(root, "path", class_="rule", d=f"M{at:.2f} {top}V{bottom}")
        add(root, "text", f"{value:g}", x=at, y=bottom + 16, class_="middle muted")
    if unit:
        add(root, "text", unit, x=RIGHT + 12, y=bottom + 16, class_="muted")


def _draw_step(root: Element, x: Scale, y: float, step: _Step, unit: str | None) -> None:
    amount = step.after - step.before
    group = add_group(
        root, f"{step.name}: {write_change(amount, unit)}{step.note}", class_="step", data_feature=step.name
    )
    low, high = sorted((x.at(step.before), x.at(step.after)))
    color = "rise" if amount > 0 else "fall"
    add(group, "rect", class_=color, x=low, y=y + 4, width=max(high - low, 0.5), height=BAR)
    add(group, "path", class_="axis", d=f"M{x.at(step.after):.2f} {y + 4 + BAR}v{ROW - BAR}")
    add(group, "text", shorten(step.name), x=LEFT - 12, y=y + 15, class_="end")
    add(group, "text", write_change(amount, None), x=RIGHT + 12, y=y + 15)


def _draw_forecast(root: Element, x: Scale, y: float, name: str, value: float, unit: str | None) -> None:
    """A mark for the forecast at one end."""
    group = add_group(root, f"{name}: {write_amount(value, unit)}", class_=name)
    add(group, "circle", class_="dot", cx=x.at(value), cy=y + 4 + BAR / 2, r=4)
    add(group, "text", name, x=LEFT - 12, y=y + 15, class_="end muted")
    add(group, "text", f"{value:.3g}", x=RIGHT + 12, y=y + 15, class_="muted")


CELL = 15.0  # height
N_FEATURES_HEAT_MAP = 24  # features drawn individually; the rest are summed
N_COLUMNS = 48  # most columns; of more steps, neighbouring ones are summed
N_TICKS = 6
KEY, N_KEYS = 12.0, 13  # width and number of the legend's patches
AXIS_HEAT_MAP = 38.0  # height of the axis' labels
MIN_OPACITY = 0.004  # of a cell; fainter ones are invisible


@dataclass(frozen=True)
class _Grid:
    """The cells.

    Attributes:
        names: of the rows.
        columns: first and last step of each, relative to the newest: -3 is three steps before it.
        values: (rows, columns), the target's unit.
        segments: names of the columns; empty if they have none.
    """

    names: list[str]
    columns: list[tuple[int, int]]
    values: Array
    segments: list[str]

    @property
    def width(self) -> int:
        """Steps per column; the oldest column may have fewer."""
        first, last = self.columns[-1]
        return last - first + 1


def add_heat_map(root: Element, top: float, forecast: Forecast) -> float:
    """Draws the heat map of one forecast below `top`, and returns the y coordinate of its end."""
    grid = _make_grid(forecast)
    largest = float(np.abs(grid.values).max())
    require_finite(largest)
    together = f"; a column is {grid.width} steps together" if grid.width > 1 else ""
    title = "Feature by segment" if grid.segments else f"Feature by step{together}"
    add(root, "text", title, x=24.0, y=top + 12, class_="strong")
    _draw_legend(root, top, largest, forecast.unit)
    top += 28
    pitch, bottom = (RIGHT - LEFT) / len(grid.columns), top + CELL * len(grid.names)
    add(root, "rect", class_="band", x=LEFT, y=top, width=RIGHT - LEFT, height=bottom - top)
    for row, (name, values) in enumerate(zip(grid.names, grid.values.tolist(), strict=True)):
        y = top + CELL * row
        group = add_group(root, f"{name}: {write_change(sum(values), forecast.unit)}", class_="row", data_feature=name)
        add(group, "text", shorten(name), x=LEFT - 12, y=y + 11, class_="end")
        for column, value in enumerate(values):
            _draw_cell(group, LEFT + pitch * column, y, pitch, value, largest, grid.columns[column], forecast.unit)
    _draw_axis_heat_map(root, grid, bottom)
    return bottom + AXIS_HEAT_MAP


def _make_grid(forecast: Forecast) -> _Grid:
    """Rows by total magnitude over all steps; beyond the limits features and steps are summed, so that none is lost."""
    named, rest = split_features(np.abs(forecast.steps).sum(axis=0), N_FEATURES_HEAT_MAP)
    rows = [forecast.steps[:, number] for number in named]
    names = [forecast.features[number] for number in named]
    if rest:
        rows.append(forecast.steps[:, rest].sum(axis=1))
        names.append(f"{len(rest)} more features")
    lookback, segments = len(forecast.steps), dict(sorted(forecast.segments.items(), key=lambda one: one[1]))
    if segments:
        parts = [np.array(rows)[:, rows_of_steps(*ends, lookback)].sum(axis=1) for ends in segments.values()]
        return _Grid(names, [*segments.values()], np.stack(parts, axis=1), [*segments])
    width = ceil(lookback / N_COLUMNS)
    starts = [max(0, end - width) for end in range(lookback, 0, -width)][::-1]
    ends = [*starts[1:], lookback]
    columns = [steps_of_rows(slice(*rows), lookback) for rows in zip(starts, ends, strict=True)]
    return _Grid(names, columns, np.add.reduceat(np.array(rows), starts, axis=1), [])


def _draw_cell(
    group: Element,
    x: float,
    y: float,
    width: float,
    value: float,
    largest: float,
    steps: tuple[int, int],
    unit: str | None,
) -> None:
    opacity = abs(value) / largest if largest else 0.0
    if opacity < MIN_OPACITY:
        return
    color = "rise" if value > 0 else "fall"
    gap = 0.5 if width > 4 else 0.0
    cell = add(
        group, "rect", class_=color, x=x, y=y, width=width - gap, height=CELL - 0.5, fill_opacity=f"{opacity:.3f}"
    )
    first, last = steps
    add(cell, "title", f"step {first if first == last else f'{first} to {last}'}: {write_change(value, unit)}")


def _draw_axis_heat_map(root: Element, grid: _Grid, bottom: float) -> None:
    """Steps from the oldest to the newest, 0."""
    pitch, last = (RIGHT - LEFT) / len(grid.columns), len(grid.columns) - 1
    every = max(1, ceil(len(grid.columns) / N_TICKS))
    for column in range(last, -1, -every):
        x = LEFT + pitch * (column + 0.5)
        label = shorten(grid.segments[column]) if grid.segments else f"{grid.columns[column][1]}"
        add(root, "text", label, x=x, y=bottom + 14, class_="middle muted")
    if not grid.segments:
        add(root, "text", "step; 0 is the newest", x=RIGHT, y=bottom + 28, class_="end muted")


def _draw_legend(root: Element, top: float, largest: float, unit: str | None) -> None:
    """The legend of colours, from the most negative to the most positive contribution, aligned with the plot."""
    left = RIGHT - KEY * N_KEYS
    add(root, "text", write_change(-largest, None), x=left - 6, y=top + 11, class_="end muted")
    add(root, "text", write_change(largest, unit), x=RIGHT + 6, y=top + 11, class_="muted")
    add(root, "rect", class_="band", x=left, y=top + 2, width=RIGHT - left, height=KEY)
    for number, share in enumerate(np.linspace(-1, 1, N_KEYS).tolist()):
        color, x = "rise" if share > 0 else "fall", left + KEY * number
        add(root, "rect", class_=color, x=x, y=top + 2, width=KEY, height=KEY, fill_opacity=f"{abs(share):.3f}")


TOP = 78.0  # below the heading
GAP = 22.0  # between the two


def draw_explanation(forecast: Forecast, theme: Theme = "auto") -> bytes:
    """Draws one explanation as SVG; only the waterfall if there is only one step.

    Args:
        forecast: the explained forecast.
        theme: colours.
    """
    heading = f"{forecast.output}: {write_amount(forecast.prediction, forecast.unit)}"
    start = write_amount(forecast.baseline_prediction, forecast.unit)
    told = f"{start} for the baseline, and what each feature adds to it"
    body = add(None, "g")
    bottom = add_waterfall(body, TOP, forecast)
    if len(forecast.steps) > 1:
        bottom = add_heat_map(body, bottom + GAP, forecast)
    root = new_picture(WIDTH, bottom, heading, told, role="graphics-document document")
    add(root, "text", shorten(heading, 80), x=24.0, y=36.0, class_="heading")
    add(root, "text", told, x=24.0, y=57.0, class_="muted")
    root.append(body)
    return serialise(root, theme)
