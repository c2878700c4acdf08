"""GET /v1/models/{model}/reference and one of them: the windows on which global explanations are computed."""

from collections.abc import Sequence
from math import isfinite

import numpy as np
from fastapi import Response

from kanmodel.arrays import Array
from kanmodel.forecaster import Reference
from kanmodel.model import Model
from kanmodel.network.intervals import BOUNDS
from service.answers.forms import describe, describe_all
from service.answers.members import head_of
from service.answers.reference import (
    OnReference,
    ReferenceList,
    ReferencePath,
    ReferenceRow,
    ReferenceSpan,
    ReferencesQuery,
    ReferenceWarning,
    ReferenceWindow,
    WindowLabel,
)
from service.answers.windows import PredictionInterval
from service.models.registry import Served
from service.operations.route import MODEL, Call, Operation
from service.wire.errors import NotFoundError, RequestError
from service.wire.json import answer_json
from service.wire.windows import read_output


def describe_span(served: Served) -> OnReference:
    """The first members of an answer on reference windows, with a warning where they are unlike the training rows."""
    span = served.model.reference.span
    warnings: list[ReferenceWarning] = []
    if span.unlike_training:
        features = [each.feature for each in span.unlike_training]
        message = f"the reference windows are unlike the training rows: {span.differences}"
        warnings.append({"code": "reference_unlike_training", "features": features, "message": message})
    return {**head_of(served), "reference": describe(ReferenceSpan, span), "warnings": warnings}


def _describe_label(reference: Reference, index: int) -> WindowLabel:
    time = None if reference.times is None else reference.times[index]
    target = None
    if reference.targets is not None:  # NaN of parameters
        target = [value if isfinite(value) else None for value in reference.targets[index].tolist()]
    label: WindowLabel = {"index": index, "time": time, "target": target}
    return label if reference.series is None else {**label, "series": reference.series[index]}


def _find_bounds(model: Model, output: str) -> Array | None:
    """Lower and upper bounds of an output at each level, (n, n_levels, 2), original units; None if it has none."""
    if output not in model.bounded_outputs:
        return None
    number = model.bounded_outputs.index(output)
    names = model.bounds[number * (n := len(BOUNDS) * len(model.levels)) : (number + 1) * n]
    forecast, bounds = np.split(model.find_output(names[0])[0].reference_predictions, [1], axis=1)
    bounds = bounds - forecast + model.reference_predictions[:, [model.outputs.index(output)]]
    return bounds.reshape(len(bounds), len(model.levels), len(BOUNDS))[..., [0, 1]]


def _describe_row(served: Served, index: int, contributions: Array | None, bounds: Array | None) -> ReferenceRow:
    """One of the listed windows, with its contributions (n, n_features) and bounds if the query asks for them."""
    windows, prediction = served.model.reference.windows, served.model.reference_predictions[index].tolist()
    label = _describe_label(served.model.reference, index)
    added = None if contributions is None else contributions[index].tolist()
    newest = None if contributions is None else windows[index, -1].tolist()
    intervals = None if bounds is None else _name_bounds(served.model.levels, bounds[index].tolist())
    known = {"prediction": prediction, "contributions": added, "newest": newest, "intervals": intervals}
    return describe(ReferenceRow, None, **{"series": None, **label}, **known)


def _name_bounds(levels: Sequence[float], bounds: Sequence[Sequence[float]]) -> list[PredictionInterval]:
    return [{"level": of, "lower": low, "upper": high} for of, (low, high) in zip(levels, bounds, strict=True)]


@Operation("GET", f"{MODEL}/reference", "models", "explain", ReferenceList, query=ReferencesQuery, is_cached=True)
async def list_reference_windows(call: Call) -> Response:
    """Lists the windows that global explanations are computed on, with times, forecasts and actual values.

    They are training data, so a key needs the scope explain; the setting `reference_windows` turns this off, and the
    answer is then 403.
    """
    _refuse_hidden(call)
    served, query, reference = call.served, call.query, call.served.model.reference
    contributions = None
    if query.contributions:
        importance = await call.find(Model.importance)
        contributions = importance.contributions
    elif query.output is not None:
        read_output(query.output, served.model)

    def describe_rows() -> Response:
        numbers = range(len(reference))[query.offset : query.offset + query.limit]
        bounds = _find_bounds(served.model, call.output) if query.intervals else None
        rows = [_describe_row(served, index, contributions, bounds) for index in numbers]
        head = head_of(served)
        return answer_json(ReferenceList(**head, reference_windows=len(reference), offset=query.offset, windows=rows))

    return await call.make(describe_rows)


@Operation(
    "GET", f"{MODEL}/reference/{{index}}", "models", "explain", ReferenceWindow, place=ReferencePath, is_cached=True
)
async def get_reference_window(call: Call) -> Response:
    """Returns one of the windows on which global explanations are computed, ready for `:predict` and `:explain`.

    It is training data, so a key needs the scope explain; the setting `reference_windows` turns this off, and the
    answer is then 403.
    """
    _refuse_hidden(call)
    index, reference = call.place.index, call.served.model.reference
    if not 0 <= index < len(reference):
        message = f"{index} does not exist: there are 0 to {len(reference) - 1}"
        raise NotFoundError(message, "window_not_found", "index")

    def describe_window() -> Response:
        head, label = head_of(call.served), _describe_label(reference, index)
        instance, values = (
            reference.windows[index].tolist(),
            call.served.model.inputs.decode(reference.windows[[index], -1])[0],
        )
        size, described = len(reference), describe_all(values)
        return answer_json(
            ReferenceWindow(**head, **label, reference_windows=size, instance=instance, values=described)
        )

    return await call.make(describe_window)


def _refuse_hidden(call: Call) -> None:
    if not call.parts.settings.reference_windows:
        raise RequestError("reference windows are not shown here (reference_windows)", code="disabled")
