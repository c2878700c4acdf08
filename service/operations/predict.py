"""Forecasts for windows.

Reads `:predict` requests.

POST /v1/models/{model}:predict.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, NotRequired

from fastapi import Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from kanmodel.data import Array
from service.models.registry import Served
from service.operations.members import Checkpoint, Closed, Name, Version, about
from service.operations.route import MODEL, Call, operation
from service.operations.windows import (
    NO_WARNINGS,
    ONE_FORM,
    Columns,
    Instances,
    RangeWarnings,
    Warnings,
    WarningsOmitted,
    warn_of_range,
)
from service.settings import Settings
from service.telemetry.observation import span
from service.wire.bodies import find_limits, most_windows, parse_windows, read_body, validate_request
from service.wire.json import answer_json
from service.wire.windows import refuse_infinite_windows, take_windows
from service.work.estimates import estimate_describing, estimate_parsing
from service.work.forecasts import Answering

Predictions = Annotated[
    list[list[float]],
    Field(description="n x n_outputs, in the order of the model's `outputs`, original units."),
]


class PredictRequest(Closed):
    """Windows to forecast, in one of two forms."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None


class PredictResponse(TypedDict):
    """The forecasts of a request."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint
    outputs: Annotated[list[str], about("Names of the outputs, `{target}+{step}`.")]
    predictions: Predictions
    logits: NotRequired[Annotated[list[list[float]], about("Logits of a classifier, n x n_outputs; absent otherwise.")]]
    warnings: Warnings
    warnings_omitted: NotRequired[WarningsOmitted]


def describe_predictions(
    served: Served, predictions: Array, logits: Array | None, warnings: RangeWarnings
) -> PredictResponse:
    """Describes forecasts.

    Args:
        served: the model.
        predictions: (n, n_outputs), original units.
        logits: (n, n_outputs); None unless the model is a classifier.
        warnings: of all its windows.
    """
    answer: PredictResponse = {
        "model_name": served.name,
        "version": served.version,
        "checkpoint": served.checkpoint,
        "outputs": list(served.model.outputs),
        "predictions": predictions.tolist(),
        "warnings": warnings.listed,
    }
    if logits is not None:
        answer["logits"] = logits.tolist()
    if warnings.n_omitted:
        answer["warnings_omitted"] = warnings.n_omitted
    return answer


_WINDOWS = frozenset({"instances", "columns"})


def read_prediction(body: bytes, served: Served, settings: Settings) -> tuple[Array, bool]:
    """The windows to forecast, (n, lookback, n_features) in original units, and whether all are in the training range.

    Raises:
        DataError: the request is invalid; the error names each place.
    """
    document = parse_windows(body, find_limits(served.model, settings))
    if document.keys() - _WINDOWS:
        validate_request(PredictRequest, document, unread=_WINDOWS)
    windows, paths = take_windows(document, served.model, settings.max_windows)
    low, high = served.usual_values
    is_usual = bool(((windows >= low) & (windows <= high)).all())  # most requests pass this single check
    if not is_usual:
        refuse_infinite_windows(windows, served.model, paths)
    return windows, is_usual


@operation("POST", f"{MODEL}:predict", "predictions", "read", PredictResponse, body=PredictRequest)
async def predict(call: Call) -> Response:
    """Forecasts every output for each instance, in original units."""
    parts, served = call.parts, call.served
    with parts.work.claim("forecast", place=False) as held:
        body = await read_body(call, parts.settings, held)
        asked = _Prediction(body, served, parts.settings)
        answering = Answering(
            read=asked.read,
            describe=asked.describe,
            reading=estimate_parsing(body),
            describing=partial(estimate_describing, n_outputs=len(served.model.outputs)),
            most_windows=most_windows(body, served.model),
        )
        answer, n_windows, warnings = await parts.work.answer(served.model, answering, call.deadline)
    call.state.windows = n_windows
    call.count_warnings(warnings)
    return answer


class _Prediction:
    """A request to predict: parsed, and answered when its forecasts are ready.

    Args:
        body: its body.
        served: the model.
        settings: the limits.
    """

    def __init__(self, body: bytes, served: Served, settings: Settings) -> None:
        self._body, self._served, self._settings = body, served, settings
        self._is_usual = False

    def read(self) -> Array:
        """Parses its windows; see `read_prediction`."""
        with span("parse"):
            windows, self._is_usual = read_prediction(self._body, self._served, self._settings)
        return windows

    def describe(self, windows: Array, predictions: Array) -> tuple[Response, int, RangeWarnings]:
        """The response, and the numbers for metrics: windows and warnings."""
        model = self._served.model
        with span("encode"):
            warnings = NO_WARNINGS if self._is_usual else warn_of_range(model, windows)
            logits = model.logits(windows) if model.config.is_classifier else None
            answer = answer_json(describe_predictions(self._served, predictions, logits, warnings))
        return answer, len(windows), warnings
