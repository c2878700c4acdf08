"""One forecast as a waterfall: from the baseline's forecast, feature by feature, to the window's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from kanmodel.drawing.axes import Scale, scale_over
from kanmodel.drawing.svg import add, add_group, new_picture, serialise, shorten
from kanmodel.drawing.words import write_amount
from kanmodel.scaling import Array

WIDTH = 760.0
LEFT, RIGHT = 190.0, 640.0  # ends of the plot; amounts stand beyond it
TOP = 88.0
ROW, BAR = 22.0, 14.0  # heights
AXIS = 34.0  # room of what stands below
N_FEATURES = 15  # drawn one by one; the rest together


@dataclass(frozen=True)
class _Step:
    """One bar: what it is called, and the forecasts before and after it."""

    name: str
    before: float
    after: float


def draw_waterfall(
    features: Sequence[str],
    contributions: Array,
    baseline_prediction: float,
    prediction: float,
    output: str,
    unit: str | None,
) -> bytes:
    """The picture of one explanation, SVG.

    Args:
        features: their names.
        contributions: (n_features,), the target's unit.
        baseline_prediction: the forecast from which they start.
        prediction: the forecast in which they end, up to the residual.
        output: that they contribute to.
        unit: of all of them.
    """
    steps = _take_steps(features, contributions, baseline_prediction)
    bottom = TOP + ROW * (len(steps) + 2)
    heading = f"{output}: {write_amount(prediction, unit)}"
    told = f"{write_amount(baseline_prediction, unit)} for the baseline, and what each feature adds to it"
    root = new_picture(WIDTH, bottom + AXIS, heading, told, role="graphics-document document")
    add(root, "text", shorten(heading, 80), x=24.0, y=36.0, class_="heading")
    add(root, "text", told, x=24.0, y=57.0, class_="muted")
    x = scale_over([prediction, *(end for step in steps for end in (step.before, step.after))], LEFT, RIGHT, 0.04)
    _draw_axis(root, x, bottom, unit)
    _draw_forecast(root, x, TOP, "baseline", baseline_prediction, unit)
    for number, step in enumerate(steps, start=1):
        _draw_step(root, x, TOP + ROW * number, step, unit)
    _draw_forecast(root, x, bottom - ROW, "forecast", prediction, unit)
    return serialise(root)


def _take_steps(features: Sequence[str], contributions: Array, start: float) -> list[_Step]:
    """The bars, largest contribution first; beyond `N_FEATURES` the rest is one bar."""
    order = np.argsort(-np.abs(contributions), kind="stable")
    n_named = N_FEATURES if len(order) > N_FEATURES + 1 else len(order)
    parts = [(features[number], float(contributions[number])) for number in order[:n_named].tolist()]
    if n_named < len(order):
        parts.append((f"{len(order) - n_named} more features", float(contributions[order[n_named:]].sum())))
    steps = []
    for name, amount in parts:
        steps.append(_Step(name, start, start + amount))
        start += amount
    return steps


def _draw_axis(root: Element, x: Scale, bottom: float, unit: str | None) -> None:
    for value in x.ticks():
        at = x.at(value)
        add(root, "path", class_="rule", d=f"M{at:.2f} {TOP}V{bottom}")
        add(root, "text", f"{value:g}", x=at, y=bottom + 16, class_="middle muted")
    if unit:
        add(root, "text", unit, x=RIGHT + 12, y=bottom + 16, class_="muted")


def _draw_step(root: Element, x: Scale, y: float, step: _Step, unit: str | None) -> None:
    amount = step.after - step.before
    sign = "+" if amount > 0 else ""
    group = add_group(root, f"{step.name}: {sign}{write_amount(amount, unit)}", class_="step", data_feature=step.name)
    low, high = sorted((x.at(step.before), x.at(step.after)))
    add(group, "rect", class_="f4" if amount > 0 else "f1", x=low, y=y + 4, width=max(high - low, 0.5), height=BAR)
    add(group, "path", class_="axis", d=f"M{x.at(step.after):.2f} {y + 4 + BAR}v{ROW - BAR}")
    add(group, "text", shorten(step.name), x=LEFT - 12, y=y + 15, class_="end")
    add(group, "text", f"{sign}{amount:.3g}", x=RIGHT + 12, y=y + 15)


def _draw_forecast(root: Element, x: Scale, y: float, name: str, value: float, unit: str | None) -> None:
    """The forecast at one end, as a mark."""
    group = add_group(root, f"{name}: {write_amount(value, unit)}", class_=name)
    add(group, "circle", class_="dot", cx=x.at(value), cy=y + 4 + BAR / 2, r=4)
    add(group, "text", name, x=LEFT - 12, y=y + 15, class_="end muted")
    add(group, "text", f"{value:.3g}", x=RIGHT + 12, y=y + 15, class_="muted")
