"""POST /v1/models/{model}:explain.

Reads `:explain` requests.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from functools import partial

import numpy as np
from fastapi import Response
from starlette.requests import ClientDisconnect

from kanmodel.data import Array
from kanmodel.explain.attribution import LedgerOptions
from service.document.description import describe_text
from service.models.registry import Served
from service.operations.baselines import read_baseline
from service.operations.explanations import (
    Advance,
    ExplainRequest,
    ExplainResponse,
    Question,
    compute_explanations,
    describe_question,
    estimate_explanations,
)
from service.operations.route import MODEL, Call, operation
from service.operations.windows import RangeWarnings, warn_of_range
from service.settings import Settings
from service.telemetry.observation import span
from service.wire.bodies import find_limits, parse_windows, read_body, validate_request
from service.wire.connections import ClosingStream, while_connected
from service.wire.errors import describe_error, unusable
from service.wire.json import JSON, NDJSON, encode_json
from service.wire.windows import read_groups, read_outputs, read_windows
from service.work.estimates import estimate_describing, estimate_joining, estimate_parsing

logger = logging.getLogger(__name__)
UNREAD = ("instances", "columns", "output", "baseline", "groups", "segments")  # by pydantic


def read_question(body: bytes, served: Served, settings: Settings) -> Question:
    """Parses and validates the body of an `:explain` request.

    Raises:
        DataError: the body is invalid; the error names each place.
        UnknownNameError: there is no such output.
    """
    document = parse_windows(body, find_limits(served.model, settings))
    request = validate_request(ExplainRequest, document, unread=UNREAD)
    output = document.get("output")
    groups, segments = read_groups(document, served.model)
    question = Question(
        served=served,
        windows=read_windows(document, served.model, settings.max_windows),
        outputs=tuple(read_outputs(output, served.model.config)),
        as_list=isinstance(output, list),
        detail=request.detail,
        baseline=read_baseline(document.get("baseline"), served.model),
        groups=groups,
        segments=segments,
        options=LedgerOptions(tolerance=request.tolerance),
        effects=request.effects,
        receipt=request.receipt,
        progress=request.progress,
    )
    question.refuse_costly(settings.max_path_nodes)
    return question


logger = logging.getLogger(__name__)


_LINES = describe_text(
    NDJSON,
    "One JSON object per line: the members of `ExplainResponse` except `explanations`, then each `Explanation`; with "
    "`progress`, objects with that one member between them; after a failure, an `ErrorResponse` as the last line.",
)


@operation(
    "POST",
    f"{MODEL}:explain",
    "explanations",
    "explain",
    ExplainResponse,
    body=ExplainRequest,
    media_types=(JSON, NDJSON),
    responses={200: _LINES},
)
async def explain(call: Call) -> Response:
    """Explains forecasts: contributions that are complete at every layer, with residual and estimated error.

    With `Accept: application/x-ndjson` the first line has what all explanations share, and each further line one
    explanation, sent as soon as it is ready. If one fails, or the deadline passes, the last line is an error.
    """
    parts, served, deadline = call.parts, call.served, call.deadline
    is_stream = call.media_type == NDJSON
    with parts.work.claim("explanation", place=False) as held:
        body = await read_body(call, parts.settings, held)
        read = partial(read_question, body, served, parts.settings)
        with span("parse"):
            question = await parts.work.run(read, "explanation", estimate_parsing(body), deadline=deadline)
    if question.progress and not is_stream:
        raise unusable("progress", f"needs Accept: {NDJSON}")
    call.state.windows = len(question.windows)
    n_bytes = estimate_explanations(question, "lines" if is_stream else "json")
    advances = compute_explanations(question, parts.work, parts.metrics, deadline, n_bytes, encoded=True)
    n_outputs = len(served.model.outputs)

    async def describe(predictions: Array) -> bytes:
        cost = estimate_describing(question.windows, n_outputs)
        header, warnings = await parts.work.run(
            partial(_describe, question, predictions), "explanation", cost, deadline=deadline
        )
        call.count_warnings(warnings)
        return header

    if is_stream:
        header = await describe(await parts.work.predict(served.model, question.windows, deadline))
        return ClosingStream(_stream(call, question, header, advances), NDJSON)
    if n_outputs == 1:  # the forecast of a window is the end of its path
        explanations, forecasts = await while_connected(call, _collect(advances))
        header = await describe(np.array(forecasts)[:, None])
    else:
        header = await describe(await parts.work.predict(served.model, question.windows, deadline))
        explanations, _ = await while_connected(call, _collect(advances))
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
    call: Call, question: Question, header: bytes, advances: AsyncGenerator[Advance, None]
) -> AsyncGenerator[bytes, None]:
    """The answer line by line. Its status has been sent, so an error can only be the last line."""
    yield header + b"\n"
    slices, request_id = 0, call.state.request_id
    try:
        while (advance := await while_connected(call, anext(advances, None))) is not None:
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
