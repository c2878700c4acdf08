"""POST /v1/models/{model}:predict."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Depends, Request, Response

from kanmodel.data import Array
from service.document.errors import describe_errors
from service.document.operations import describe_body
from service.http.answers import answer_json
from service.http.negotiation import accept_json
from service.http.security import READ
from service.models.registry import Served
from service.requests.bodies import most_windows, read_body
from service.requests.predictions import read_prediction
from service.routes.dependencies import (
    MODEL,
    count_warnings,
    find_deadline,
    find_model,
    find_parts,
    get_deadline,
    get_served,
)
from service.routes.direct import DirectRoute
from service.schemas.predictions import (
    NO_WARNINGS,
    PredictRequest,
    PredictResponse,
    RangeWarnings,
    describe_predictions,
    warn_of_range,
)
from service.settings import Settings
from service.telemetry.observation import span
from service.work.estimates import estimate_describing, estimate_parsing
from service.work.forecasts import Answering

router = APIRouter(
    tags=["predictions"], route_class=DirectRoute, dependencies=[READ, Depends(get_served), Depends(get_deadline)]
)


@router.post(
    f"{MODEL}:predict",
    operation_id="predict",
    response_model=PredictResponse,
    responses=describe_errors(404, 406, 408, 413, 415, 422, 503),
    openapi_extra=describe_body(PredictRequest),
)
async def predict(request: Request) -> Response:
    """Forecasts every output for each instance, in original units."""
    parts, deadline = find_parts(request), find_deadline(request)
    served = await find_model(request, deadline)
    accept_json(request)
    with parts.work.claim("forecast", place=False) as held:
        body = await read_body(request, parts.settings, held)
        asked = _Prediction(body, served, parts.settings)
        answering = Answering(
            read=asked.read,
            describe=asked.describe,
            reading=estimate_parsing(body),
            describing=partial(estimate_describing, n_outputs=len(served.outputs)),
            most_windows=most_windows(body, served.model),
        )
        answer, n_windows, warnings = await parts.work.answer(served.model, answering, deadline)
    request.state.windows = n_windows
    if warnings:
        count_warnings(parts, served, warnings)
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
