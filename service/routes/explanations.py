"""POST /v1/models/{model}:explain."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from functools import partial

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from starlette.requests import ClientDisconnect

from kanmodel.data import Array
from service.document.errors import describe_errors
from service.document.operations import describe_body
from service.http.answers import JSON, NDJSON, encode_json
from service.http.error_answers import describe_error
from service.http.errors import unusable
from service.http.headers import find_header
from service.http.negotiation import choose_media_type
from service.http.security import EXPLAIN
from service.requests.bodies import read_body
from service.requests.explanations import read_question
from service.routes.connections import ClosingStream, while_connected
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
from service.schemas.explanations import ExplainRequest, ExplainResponse
from service.schemas.predictions import RangeWarnings, warn_of_range
from service.telemetry.observation import span
from service.work.estimates import estimate_describing, estimate_explanations, estimate_joining, estimate_parsing
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
                "description": "One JSON object per line: the members of `ExplainResponse` except `explanations`, then "
                "each `Explanation`; with `progress`, objects with that one member between them; after a failure, an "
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
    """Explains forecasts: contributions that are complete at every layer, with residual and estimated error.

    With `Accept: application/x-ndjson` the first line has what all explanations share, and each further line one
    explanation, sent as soon as it is ready. If one fails, or the deadline passes, the last line is an error.
    """
    parts, deadline = find_parts(request), find_deadline(request)
    served = await find_model(request, deadline)
    media_type = choose_media_type(find_header(request.scope, b"accept"), (JSON, NDJSON))
    with parts.work.claim("explanation", place=False) as held:
        body = await read_body(request, parts.settings, held)
        read = partial(read_question, body, served, parts.settings)
        with span("parse"):
            question = await parts.work.run(read, "explanation", estimate_parsing(body), deadline=deadline)
    if question.progress and media_type != NDJSON:
        raise unusable("progress", f"needs Accept: {NDJSON}")
    request.state.windows = len(question.windows)
    n_bytes = estimate_explanations(question, "lines" if media_type == NDJSON else "json")
    advances = compute_explanations(question, parts.work, parts.metrics, deadline, n_bytes, encoded=True)
    n_outputs = len(served.model.outputs)

    async def describe(predictions: Array) -> bytes:
        cost = estimate_describing(question.windows, n_outputs)
        header, warnings = await parts.work.run(
            partial(_describe, question, predictions), "explanation", cost, deadline=deadline
        )
        count_warnings(parts, served, warnings)
        return header

    if media_type == NDJSON:
        header = await describe(await parts.work.predict(served.model, question.windows, deadline))
        return ClosingStream(_stream(request, question, header, advances), NDJSON)
    if n_outputs == 1:  # the forecast of a window is the end of its path
        explanations, forecasts = await while_connected(request, _collect(advances))
        header = await describe(np.array(forecasts)[:, None])
    else:
        header = await describe(await parts.work.predict(served.model, question.windows, deadline))
        explanations, _ = await while_connected(request, _collect(advances))
    cost = estimate_joining(sum(map(len, explanations)))
    with span("encode"):
        joined = await parts.work.run(partial(_join, header, explanations), "explanation", cost)
    return Response(joined, media_type=JSON)


def _describe(question: Question, predictions: Array) -> tuple[bytes, RangeWarnings]:
    """The members that all explanations share, in JSON, and its warnings."""
    warnings = warn_of_range(question.served.model, question.windows)
    return encode_json(describe_question(question, predictions, warnings)), warnings


async def _collect(advances: AsyncIterator[Advance]) -> tuple[list[bytes], list[float]]:
    """All explanations in JSON, and their forecasts."""
    encoded: list[bytes] = []
    forecasts: list[float] = []
    async for advance in advances:
        encoded += advance.encoded
        forecasts += [one["prediction"] for one in advance.explanations]
    return encoded, forecasts


def _join(header: bytes, explanations: Sequence[bytes]) -> bytes:
    """An `ExplainResponse` from its encoded parts."""
    return b"".join((header[:-1], b',"explanations":[', b",".join(explanations), b"]}"))


async def _stream(
    request: Request, question: Question, header: bytes, advances: AsyncGenerator[Advance, None]
) -> AsyncGenerator[bytes, None]:
    """The answer line by line. Its status has been sent, so an error can only be the last line."""
    yield header + b"\n"
    slices, request_id = 0, request.state.request_id
    try:
        while (advance := await while_connected(request, anext(advances, None))) is not None:
            slices += 1
            lines = [*advance.encoded]
            if question.progress:
                told = {"progress": {"done": advance.done, "total": question.total, "slices": slices}}
                lines.insert(0, encode_json(told))
            if lines:
                yield b"\n".join([*lines, b""])
    except GeneratorExit:  # the client has gone while a line was sent
        await advances.aclose()
        raise
    except ClientDisconnect:
        return
    except Exception as error:
        logger.warning("request %s failed in its stream", request_id, exc_info=error)
        yield encode_json(describe_error(error, request_id)) + b"\n"
