"""POST /v2/models/{model}/infer, of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from service.document.errors import describe_errors
from service.document.operations import describe_body
from service.http.answers import BYTES, JSON, answer_json, encode_json
from service.http.headers import find_header
from service.http.negotiation import choose_media_type
from service.http.security import READ, require_scope
from service.requests.bodies import read_body
from service.requests.inference import read_inference
from service.requests.tensors import HEADER_LENGTH
from service.routes.connections import while_connected
from service.routes.dependencies import (
    MODEL_V2,
    VERSION_V2,
    count_warnings,
    find_deadline,
    find_model_v2,
    find_parts,
    get_deadline,
    get_served_v2,
)
from service.routes.direct import ProtocolRoute
from service.schemas.explanations import Explanation
from service.schemas.inference import InferRequest, InferResponse, describe_inference
from service.schemas.predictions import warn_of_range
from service.telemetry.observation import span
from service.work.estimates import estimate_describing, estimate_explanations, estimate_parsing
from service.work.explanations import Advance, compute_explanations
from service.work.jobs import Kind

_LENGTH = "Length of the JSON in bytes, if binary tensor data follows it."
_BINARY = {"schema": {"type": "string", "format": "binary", "description": "JSON, followed by binary tensor data."}}
_ANSWER: dict[str, Any] = {
    "content": {BYTES: _BINARY},
    "headers": {HEADER_LENGTH: {"description": _LENGTH, "schema": {"type": "integer"}}},
}


async def describe_length(
    length: Annotated[int | None, Header(alias=HEADER_LENGTH, description=_LENGTH, ge=0)] = None,
) -> None:
    """Dependency: documents the header, which the handler reads itself."""


router = APIRouter(
    tags=["inference"],
    route_class=ProtocolRoute,
    dependencies=[READ, Depends(get_served_v2), Depends(get_deadline), Depends(describe_length)],
)


@router.post(f"{VERSION_V2}/infer", response_model=InferResponse, include_in_schema=False)
@router.post(
    f"{MODEL_V2}/infer",
    operation_id="infer",
    response_model=InferResponse,
    responses={200: _ANSWER, **describe_errors(400, 404, 406, 408, 413, 415, 503)},
    openapi_extra=describe_body(InferRequest, {BYTES: _BINARY}),
)
async def infer(request: Request) -> Response:
    """Forecasts every output for each instance, and explains the forecasts if requested, as tensors."""
    parts, deadline = find_parts(request), find_deadline(request)
    served = await find_model_v2(request, deadline)
    choose_media_type(find_header(request.scope, b"accept"), (JSON, BYTES))
    kind: Kind = "forecast"
    with parts.work.claim(kind, place=False) as held:
        body = await read_body(request, parts.settings, held, (JSON, BYTES, ""))  # Triton's client sends none of them
        read = partial(read_inference, body, request.headers.get(HEADER_LENGTH), served, parts.settings)
        with span("parse"):
            inference = await parts.work.run(read, kind, estimate_parsing(body), deadline=deadline)
    if inference.question is not None:
        require_scope(request.scope["state"], "explain")
    windows = inference.windows
    request.state.windows = len(windows)
    predictions = await parts.work.predict(served.model, windows, deadline)
    cost = estimate_describing(windows, predictions.shape[1])
    warnings = await parts.work.run(partial(warn_of_range, served.model, windows), "forecast", cost)
    count_warnings(parts, served, warnings)
    explanations: list[Explanation] = []
    if inference.question is not None:
        kind, n_bytes = "explanation", estimate_explanations(inference.question, "objects")
        advances = compute_explanations(inference.question, parts.work, parts.metrics, deadline, n_bytes, encoded=False)
        explanations = await while_connected(request, _collect(advances))
    answer_id = inference.id or request.state.request_id

    def describe() -> Response:
        return _answer(
            *describe_inference(served, answer_id, inference.outputs, predictions, explanations, len(warnings))
        )

    with span("encode"):
        return await parts.work.run(describe, kind, cost)


async def _collect(advances: AsyncIterator[Advance]) -> list[Explanation]:
    return [one async for advance in advances for one in advance.explanations]


def _answer(answer: InferResponse, buffers: list[bytes]) -> Response:
    """A response of JSON, or of JSON followed by binary data."""
    if not buffers:
        return answer_json(answer)
    head = encode_json(answer)
    return Response(b"".join([head, *buffers]), headers={HEADER_LENGTH: str(len(head))}, media_type=BYTES)
