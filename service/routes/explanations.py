"""POST /v1/models/{model}:explain."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from service.answers import JSON, NDJSON, answer_json, encode_json
from service.dependencies import MODEL, TheModel, TheParts
from service.errors import describe_error
from service.explanations import Question, describe_question, explain_all, explain_slices, read_question
from service.requests.bodies import read_body
from service.requests.negotiation import choose_media_type
from service.schemas.errors import describe_errors
from service.schemas.explanations import ExplainHeader, ExplainRequest, ExplainResponse
from service.schemas.requests import describe_body

logger = logging.getLogger(__name__)
router = APIRouter(tags=["explanations"])
_LINES = {
    "content": {
        NDJSON: {
            "schema": {
                "type": "string",
                "description": "One JSON object a line: the members of `ExplainResponse` but `explanations`, then each "
                "`Explanation`; or an `ErrorResponse` as the last line.",
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
async def explain(request: Request, served: TheModel, parts: TheParts) -> Response:
    """Explains forecasts: contributions that add up at every layer, each explanation with its own residual.

    With `Accept: application/x-ndjson` the first line holds what all explanations share, and each further line
    one explanation, sent as soon as it is ready. Should one fail, the last line is an error.
    """
    media_type = choose_media_type(request.headers.get("accept"), (JSON, NDJSON))
    body = await read_body(request, parts.settings)
    question = await run_in_threadpool(read_question, body, served, parts.settings)
    request.state.windows = len(question.windows.original)
    if media_type == JSON:
        return await run_in_threadpool(lambda: answer_json(explain_all(question)))
    header = await run_in_threadpool(describe_question, question)
    return StreamingResponse(_stream(header, question, request.state.request_id), media_type=NDJSON)


async def _stream(header: ExplainHeader, question: Question, request_id: str) -> AsyncIterator[bytes]:
    """The answer line by line. Its status is sent already, so an error can only be its last line."""
    yield encode_json(header) + b"\n"
    try:
        async for explanations in iterate_in_threadpool(explain_slices(question)):
            yield b"".join(encode_json(explanation) + b"\n" for explanation in explanations)
    except Exception as error:
        logger.warning("request %s failed in its stream", request_id, exc_info=error)
        yield encode_json(describe_error(error, request_id)) + b"\n"
