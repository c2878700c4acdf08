"""POST /v1/models/{model}:whatif: forecasts with one feature, or one column of levels, changed."""

from typing import Annotated, Any, Literal, NotRequired

from typing_extensions import TypeAliasType, TypedDict

from kanmodel.alternatives.changeable import Levels, find_columns
from kanmodel.alternatives.what_if import DEFAULT_POINTS, Curve
from kanmodel.model import Model
from service.operations.alternative import Plan, Reading, WindowsAnswer, WindowsRequest, question, read_range
from service.operations.members import Closed, Features, Steps, UnitOf, Whole, about, describe
from service.wire.errors import invalid_value
from service.wire.json import HELD_NUMBER_BYTES

N_ARRAYS = 3  # of a curve
WhatIfKind = TypeAliasType("WhatIfKind", Literal["shift", "value", "level"])


class Shift(Closed):
    """Evenly spaced constants that are added to a feature, in its own unit."""

    from_: Annotated[float, about("The first.", alias="from", strict=True)]
    to: Annotated[float, about("The last.", strict=True)]
    points: Annotated[Whole, about("Number of constants, at most `max_points`.", ge=2, strict=True)] = DEFAULT_POINTS


class WhatIfRequest(WindowsRequest):
    """Windows, and the changes to try."""

    features: Features = None
    steps: Steps = None
    shift: Annotated[
        Shift | None,
        about(
            "Constants to add. Absent: each feature is set to constant values from its training minimum to "
            f"its maximum, {DEFAULT_POINTS} of them or whole numbers among them, and a column of levels to each level."
        ),
    ] = None


class ResponseCurve(TypedDict):
    """Forecasts of one instance with one feature, or one column of levels, changed."""

    feature: Annotated[str, about("Name of the feature, or of the column.")]
    unit: UnitOf
    kind: WhatIfKind
    """`shift`: the values are added to the feature; `value`: they replace it; `level`: they are indices of `levels`,
    each of which is set, with the others unset."""
    values: Annotated[list[float], about("Shifts or values, in the feature's unit, or indices of levels.")]
    levels: NotRequired[Annotated[list[str], about("All levels of the column.")]]
    predictions: Annotated[list[float], about("The forecast for each, as `:predict` returns it.")]
    outside_training_range: list[bool]
    """For each, whether a changed value is outside the feature's training range."""


class WhatIfResponse(WindowsAnswer):
    """Forecasts of changed windows."""

    curves: Annotated[list[list[ResponseCurve]], about("By instance, then by feature in the order of the request.")]


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
