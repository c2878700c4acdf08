"""TODO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Response
from pydantic import ConfigDict
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.explain.what_if import DEFAULT_POINTS
from kanmodel.explain.what_if import WhatIf as Curves
from service.models.registry import Served
from service.operations.alternative import (
    _WINDOWS,
    Alternative,
    Shared,
    _read_features,
    _read_steps,
    answer,
    refuse_costly,
)
from service.operations.members import Closed, Features, Output, Steps, UnitOf, about
from service.operations.route import MODEL, Call, operation
from service.operations.windows import ONE_FORM, Columns, Instances
from service.settings import Settings
from service.wire.bodies import find_limits, parse_windows, validate_request
from service.wire.errors import unusable
from service.wire.windows import read_output, read_windows
from service.work.estimates import NUMBER, OBJECTS

WhatIfKind = TypeAliasType("WhatIfKind", Literal["shift", "value"])


class Shift(Closed):
    """Evenly spaced constants that are added to a feature, in its own unit."""

    from_: Annotated[float, about("The first.", alias="from", strict=True)]
    to: Annotated[float, about("The last.", strict=True)]
    points: Annotated[int, about("Number of constants, at most `max_points`.", ge=2, strict=True)] = DEFAULT_POINTS


class WhatIfRequest(Closed):
    """Windows, and the changes to try."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None
    output: Output = None
    features: Features = None
    steps: Steps = None
    shift: Annotated[
        Shift | None,
        about(
            "Constants to add. Absent: each feature is set to constant values from its training minimum to "
            f"its maximum, {DEFAULT_POINTS} of them."
        ),
    ] = None


class ResponseCurve(TypedDict):
    """Forecasts of one instance with one feature changed."""

    feature: Annotated[str, about("Name of the feature.")]
    unit: UnitOf
    kind: Annotated[WhatIfKind, about("`shift`: the values are added to the feature; `value`: they replace it.")]
    values: Annotated[list[float], about("Shifts or values, in the feature's unit.")]
    predictions: Annotated[list[float], about("The forecast for each, as `:predict` returns it.")]
    outside_training_range: list[bool]
    """For each, whether a changed value is outside the feature's training range."""


class WhatIfResponse(Shared):
    """Forecasts of changed windows."""

    curves: Annotated[list[list[ResponseCurve]], about("By instance, then by feature in the order of the request.")]


def describe_curves(found: Curves, output: int) -> list[list[ResponseCurve]]:
    """The curves of one output."""
    return [
        [
            {
                "feature": curve.feature,
                "unit": curve.unit,
                "kind": curve.kind,
                "values": curve.values.tolist(),
                "predictions": curve.predictions[:, output].tolist(),
                "outside_training_range": curve.outside_training_range.tolist(),
            }
            for curve in curves
        ]
        for curves in found
    ]


_OF_CURVE = 3  # arrays of a curve


@dataclass(frozen=True)
class WhatIf(Alternative):
    """Forecasts with one feature changed; see `kanmodel.model.Model.what_if`."""

    features: tuple[str, ...]
    steps: tuple[int, ...] | None
    shift: tuple[float, float, int] | None
    points: int

    @property
    def forecasts(self) -> int:
        """One for each window, feature and point."""
        return len(self.windows) * len(self.features) * self.points

    @property
    def n_bytes(self) -> int:
        """The curves as objects and as JSON, and the changed windows of one of them."""
        n_outputs = len(self.served.model.outputs)
        curves = self.forecasts * (_OF_CURVE * NUMBER * (1 + OBJECTS) + 8 * n_outputs)
        return curves + 3 * self.points * int(self.windows[0].nbytes)

    def answer(self) -> dict[str, Any]:
        """The curves."""
        found = self.served.model.what_if(self.windows, self.features, self.steps, self.shift, points=self.points)
        return {"curves": describe_curves(found, self.output)}


def read_what_if(body: bytes, served: Served, settings: Settings) -> WhatIf:
    """Parses and validates the body of a `:whatif` request.

    Raises:
        DataError: the body is invalid; the error names each place.
        UnknownValueError: there is no such output.
    """
    document = parse_windows(body, find_limits(served.model, settings))
    request = validate_request(WhatIfRequest, document, unread=_WINDOWS)
    config, shift = served.model.config, request.shift
    if shift is not None and shift.points > settings.max_points:
        message = f"must be at most {settings.max_points} (max_points), but is {shift.points}"
        raise unusable("shift.points", message, "limit_exceeded")
    question = WhatIf(
        served=served,
        windows=read_windows(document, served.model, settings.max_windows),
        output=read_output(request.output, config),
        features=_read_features(request.features, config),
        steps=_read_steps(request.steps, config),
        shift=None if shift is None else (shift.from_, shift.to, shift.points),
        points=DEFAULT_POINTS if shift is None else shift.points,
    )
    refuse_costly(question, settings.max_path_nodes)
    return question


@operation("POST", f"{MODEL}:whatif", "alternatives", "explain", WhatIfResponse, body=WhatIfRequest)
async def what_if(call: Call) -> Response:
    """Forecasts each instance with one feature changed and everything else as given: a curve per feature.

    Every number is what `:predict` returns for the changed window, up to rounding.
    """
    return await answer(call, read_what_if)
