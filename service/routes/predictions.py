"""POST /v1/models/{model}:predict."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from service.answers import answer_json
from service.dependencies import MODEL, Parts, TheModel, TheParts
from service.registry import Served
from service.requests.bodies import parse_object, read_body
from service.requests.negotiation import accept_json
from service.requests.windows import read_windows
from service.schemas.errors import describe_errors
from service.schemas.predictions import PredictRequest, PredictResponse, describe_predictions, warn_of_range
from service.schemas.requests import describe_body, validate_request

router = APIRouter(tags=["predictions"], dependencies=[Depends(accept_json)])


@router.post(
    f"{MODEL}:predict",
    operation_id="predict",
    response_model=PredictResponse,
    responses=describe_errors(404, 406, 408, 413, 415, 422, 503),
    openapi_extra=describe_body(PredictRequest),
)
async def predict(request: Request, served: TheModel, parts: TheParts) -> Response:
    """Forecasts every output for each instance, in original units."""
    body = await read_body(request, parts.settings)
    return await run_in_threadpool(_answer, request, body, served, parts)


def _answer(request: Request, body: bytes, served: Served, parts: Parts) -> Response:
    document = parse_object(body, parts.settings.max_json_depth)
    validate_request(PredictRequest, document, unread=("instances", "columns"))
    windows = read_windows(document, served.model, parts.settings.max_windows)
    request.state.windows = len(windows.original)
    predictions = served.model.predict(windows.original)
    warnings = warn_of_range(served.model, windows.original)
    parts.metrics.observe_outside_range(served.name, (warning["feature"] for warning in warnings))
    return answer_json(describe_predictions(served, predictions, warnings))
