"""POST /v1/models/{model}:whatif: forecasts with one feature, or one column of levels, changed."""

from typing import Any

from kanmodel.alternatives.changeable import Levels, find_columns
from kanmodel.alternatives.what_if import DEFAULT_POINTS, Curve
from kanmodel.model import Model
from service.answers.alternatives import ResponseCurve, WhatIfRequest, WhatIfResponse
from service.answers.forms import describe
from service.operations.alternative import Plan, Reading, question, read_range
from service.wire.errors import invalid_value
from service.wire.json import HELD_NUMBER_BYTES

N_ARRAYS = 3  # of a curve


@question("whatif", WhatIfResponse, WhatIfRequest)
def what_if(reading: Reading[WhatIfRequest]) -> Plan:
    """Forecasts each instance with one feature changed and everything else as given: a curve per feature.

    Every number is what `:predict` returns for the changed window, up to rounding.
    """
    asked, windows, config = reading.asked, reading.windows, reading.call.served.model.config
    most = reading.call.parts.settings.max_points
    shift = None if asked.shift is None else (asked.shift.from_, asked.shift.to, asked.shift.points)
    points = DEFAULT_POINTS if shift is None else shift[2]
    if points > most and shift is not None:
        raise invalid_value("shift.points", f"must be at most {most} (max_points), but is {points}", "limit_exceeded")
    columns = read_range(find_columns, config, asked.features, asked.steps)
    # Held: the curves, and the changed windows of one of them.
    n_points = [len(one.chosen) if isinstance(one, Levels) else points for one in columns]
    n_forecasts = len(windows) * sum(n_points)
    n_bytes = n_forecasts * (N_ARRAYS * HELD_NUMBER_BYTES + 8 * len(reading.model.outputs))

    def find(model: Model) -> dict[str, Any]:
        found = model.what_if(windows, asked.features, asked.steps, shift, output=reading.output, points=points)
        number = found.outputs.index(reading.output)
        return {"curves": [[describe_curve(curve, number) for curve in of_window] for of_window in found]}

    def describe_curve(curve: Curve, number: int) -> ResponseCurve:
        return describe(ResponseCurve, curve, predictions=curve.predictions[:, number].tolist())

    return Plan(n_forecasts, n_bytes + 3 * max(n_points) * int(windows[0].nbytes), find)
