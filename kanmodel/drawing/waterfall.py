"""The waterfall chart of one forecast: from the baseline's forecast, feature by feature, to the window's."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from kanmodel.drawing.axes import Scale, scale_over
from kanmodel.drawing.forecast import LEFT, RIGHT, Forecast, split_features
from kanmodel.drawing.svg import add, add_group, shorten
from kanmodel.drawing.words import write_amount, write_change

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
