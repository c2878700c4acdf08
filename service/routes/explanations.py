"""POST /v1/models/{model}:explain."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from service.document.errors import describe_errors
from service.document.operations import describe_body
from service.http.answers import JSON, NDJSON, answer_json, encode_json
from service.http.error_answers import describe_error
from service.http.errors import unusable
from service.http.negotiation import choose_media_type
from service.http.security import EXPLAIN
from service.requests.bodies import read_body
from service.requests.explanations import read_question
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
from service.schemas.explanations import ExplainHeader, ExplainRequest, ExplainResponse
from service.telemetry.traces import span
from service.work.explanations import Advance, compute_explanations, describe_question
from service.work.questions import Question

logger = logging.getLogger(__name__)
router = APIRouter(
    tags=["explanations"], route_class=DirectRoute, dependencies=[EXPLAIN, Depends(get_served), Depends(get_deadline)]
)
_LINES = {
    "content": {
        NDJSON: {
            "schema": {
                "type": "string",
                "description": "One JSON object a line: the members of `ExplainResponse` but `explanations`, then each "
                "`Explanation`; where `progress` is asked for, objects with that one member between them; or an "
                "`ErrorResponse` as the last line.",
            }
        }
    }
}


@router.post(
    f"{MODEL}:explain",
    operation_id="explain",
    response_model=ExplainResponse,
    responses={200: _LINES, **describe_errors(404, 406, 408, 413, 415, 422, 503)},
    openapi_extra=describe_body(ExplainRequest),
)
async def explain(request: Request) -> Response:
    """Explains forecasts: contributions that add up at every layer, each explanation with its own residual.

    With `Accept: application/x-ndjson` the first line holds what all explanations share, and each further line
    one explanation, sent as soon as it is ready. Should one fail, or the deadline pass, the last line is an error.
    """
    parts, served, deadline = find_parts(request), find_model(request), find_deadline(request)
    media_type = choose_media_type(request.headers.get("accept"), (JSON, NDJSON))
    body = await read_body(request, parts.settings)
    with span("parse"):
        question = read_question(body, served, parts.settings)
    if question.progress and media_type != NDJSON:
        raise unusable("progress", f"needs Accept: {NDJSON}, whose lines can tell it")
    request.state.windows = len(question.windows)
    predictions = await parts.scheduler.predict(served.model, question.windows, deadline)
    warnings = find_warnings(parts, served, question.windows)
    header = describe_question(question, predictions, warnings)
    advances = compute_explanations(question, parts.scheduler, parts.metrics, deadline, request.is_disconnected)
    if media_type == NDJSON:
        lines = _stream(question, header, advances, request.state.request_id)
        return StreamingResponse(lines, media_type=NDJSON)
    answer: ExplainResponse = {**header, "explanations": [one async for now in advances for one in now.explanations]}
    with span("encode"):
        return answer_json(answer)


async def _stream(
    question: Question, header: ExplainHeader, advances: AsyncIterator[Advance], request_id: str
) -> AsyncIterator[bytes]:
    """The answer line by line. Its status is sent already, so an error can only be its last line."""
    yield encode_json(header) + b"\n"
    slices = 0
    try:
        async for advance in advances:
            slices += 1
            lines: list[object] = [*advance.explanations]
            if question.progress:
                lines.insert(0, {"progress": {"done": advance.done, "total": question.total, "slices": slices}})
            if lines:
                with span("encode"):
                    data = b"".join(encode_json(line) + b"\n" for line in lines)
                yield data
    except Exception as error:
        logger.warning("request %s failed in its stream", request_id, exc_info=error)
        yield encode_json(describe_error(error, request_id)) + b"\n"
