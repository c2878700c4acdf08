"""The heat map of one forecast: the contribution of each feature at each step."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from xml.etree.ElementTree import Element

import numpy as np

from kanmodel.drawing.forecast import LEFT, RIGHT, Forecast, split_features
from kanmodel.drawing.svg import add, add_group, require_finite, shorten
from kanmodel.drawing.words import write_change
from kanmodel.scaling import Array
from kanmodel.windows import rows_of_steps, steps_of_rows

CELL = 15.0  # height
N_FEATURES = 24  # features drawn individually; the rest are summed
N_COLUMNS = 48  # most columns; of more steps, neighbouring ones are summed
N_TICKS = 6
KEY, N_KEYS = 12.0, 13  # width and number of the legend's patches
AXIS = 38.0  # height of the axis' labels
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
    _draw_axis(root, grid, bottom)
    return bottom + AXIS


def _make_grid(forecast: Forecast) -> _Grid:
    """Rows by total magnitude over all steps; beyond the limits features and steps are summed, so that none is lost."""
    named, rest = split_features(np.abs(forecast.steps).sum(axis=0), N_FEATURES)
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


def _draw_axis(root: Element, grid: _Grid, bottom: float) -> None:
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
