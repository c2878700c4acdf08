"""POST /v1/models/{model}:predict."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from service.document.errors import describe_errors
from service.document.operations import describe_body
from service.http.answers import answer_json
from service.http.negotiation import accept_json
from service.http.security import READ
from service.requests.bodies import parse_windows, read_body, validate_request
from service.requests.windows import read_windows
from service.routes.dependencies import (
    MODEL,
    find_deadline,
    find_model,
    find_parts,
    find_warnings,
    get_deadline,
    get_served,
)
from service.routes.direct import DirectRoute
from service.schemas.predictions import PredictRequest, PredictResponse, describe_predictions
from service.telemetry.traces import span

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
    parts, served, deadline = find_parts(request), find_model(request), find_deadline(request)
    accept_json(request)
    body = await read_body(request, parts.settings)
    with span("parse"):
        document = parse_windows(body, served.model.config.window_shape, parts.settings.max_json_depth)
        validate_request(PredictRequest, document, unread=("instances", "columns"))
        windows = read_windows(document, served.model, parts.settings.max_windows)
    request.state.windows = len(windows)
    predictions = await parts.scheduler.predict(served.model, windows, deadline)
    warnings = find_warnings(parts, served, windows)
    with span("encode"):
        return answer_json(describe_predictions(served, predictions, warnings))
