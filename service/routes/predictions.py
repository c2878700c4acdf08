"""POST /v1/models/{model}:predict."""

from __future__ import annotations

from fastapi import Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from service.answers import answer_json
from service.dependencies import MODEL, TheModel, TheParts
from service.registry import Served
from service.requests.bodies import parse_object, read_body
from service.requests.negotiation import accept_json
from service.requests.windows import read_windows
from service.routes.versioned import VersionedRouter
from service.schemas.errors import describe_errors
from service.schemas.predictions import PredictRequest, PredictResponse, describe_predictions
from service.schemas.requests import describe_body, validate_request

router = VersionedRouter(tags=["predictions"], dependencies=[Depends(accept_json)])


@router.post(
    f"{MODEL}:predict",
    operation_id="predict",
    response_model=PredictResponse,
    responses=describe_errors(404, 406, 413, 415, 422, 503),
    openapi_extra=describe_body(PredictRequest),
)
async def predict(request: Request, served: TheModel, parts: TheParts) -> Response:
    """Forecasts every output for each instance, in original units."""
    body = await read_body(request, parts.settings.max_body_bytes)
    return await run_in_threadpool(_answer, body, served, parts.settings.max_windows)


def _answer(body: bytes, served: Served, max_windows: int) -> Response:
    document = parse_object(body)
    validate_request(PredictRequest, document, unread=("instances", "columns"))
    windows = read_windows(document, served.model, max_windows)
    predictions = served.model.predict(windows.original)
    return answer_json(describe_predictions(served, predictions, windows.original))
