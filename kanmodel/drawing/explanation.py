"""The picture of one explained forecast: a waterfall chart, and a heat map of features by steps."""

from __future__ import annotations

from kanmodel.drawing.forecast import WIDTH, Forecast
from kanmodel.drawing.heat_map import add_heat_map
from kanmodel.drawing.style import Theme
from kanmodel.drawing.svg import add, new_picture, serialise, shorten
from kanmodel.drawing.waterfall import add_waterfall
from kanmodel.drawing.words import write_amount

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
