"""POST /v1/models/{model}:whatif, :counterfactual, :ablate and :compare."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from fastapi import APIRouter, Depends, Request, Response

from service.document.errors import describe_errors
from service.document.operations import describe_body
from service.http.answers import JSON
from service.http.negotiation import accept_json
from service.http.security import EXPLAIN
from service.models.registry import Served
from service.requests.alternatives import read_ablate, read_compare, read_counterfactual, read_what_if
from service.requests.bodies import read_body
from service.routes.connections import while_connected
from service.routes.dependencies import (
    MODEL,
    Parts,
    count_warnings,
    find_deadline,
    find_model,
    find_parts,
    get_deadline,
    get_served,
)
from service.routes.direct import DirectRoute
from service.schemas.alternatives import (
    AblateRequest,
    AblateResponse,
    CounterfactualRequest,
    CounterfactualResponse,
    WhatIfRequest,
    WhatIfResponse,
)
from service.schemas.comparisons import CompareRequest, CompareResponse
from service.settings import Settings
from service.telemetry.observation import span
from service.work.alternatives import Ablate, Alternative, Compare, answer_alternative
from service.work.estimates import estimate_parsing

router = APIRouter(
    tags=["alternatives"], route_class=DirectRoute, dependencies=[EXPLAIN, Depends(get_served), Depends(get_deadline)]
)
_ERRORS = describe_errors(404, 406, 408, 413, 415, 422, 503)
Question = TypeVar("Question", bound=Alternative)


@router.post(
    f"{MODEL}:whatif",
    operation_id="what_if",
    response_model=WhatIfResponse,
    responses=_ERRORS,
    openapi_extra=describe_body(WhatIfRequest),
)
async def what_if(request: Request) -> Response:
    """Forecasts each instance with one feature changed and everything else as given: a curve per feature.

    Every number is what `:predict` returns for the changed window, up to rounding.
    """
    return await _answer(request, read_what_if)


@router.post(
    f"{MODEL}:counterfactual",
    operation_id="counterfactual",
    response_model=CounterfactualResponse,
    responses=_ERRORS,
    openapi_extra=describe_body(CounterfactualRequest),
)
async def counterfactual(request: Request) -> Response:
    """Finds the smallest change of a few features that moves each forecast to a target, verified by a forecast.

    The range of each single feature is sampled, and `proven` says whether bounds show that no smaller shift reaches the
    target; several together are searched by gradient descent from many starts, so that a smaller change may exist.
    """
    return await _answer(request, read_counterfactual)


@router.post(
    f"{MODEL}:ablate",
    operation_id="ablate",
    response_model=AblateResponse,
    responses=_ERRORS,
    openapi_extra=describe_body(AblateRequest),
)
async def ablate(request: Request) -> Response:
    """Forecasts each instance with the full network and with the edges that a pruning rule keeps (mean ablation).

    The rule is that of the topology, which shows the pruned network; `without` names further edges to remove.
    """
    return await _answer(request, read_ablate, _with_topology)


@router.post(
    f"{MODEL}:compare",
    operation_id="compare",
    response_model=CompareResponse,
    responses=_ERRORS,
    openapi_extra=describe_body(CompareRequest),
)
async def compare(request: Request) -> Response:
    """Explains why forecasts differ from those of other windows, of another version or model, or of both.

    The difference is divided into a data part and a model part, feature by feature, independently of their order.
    Exchanging the two sides reverses the signs of both parts.
    """
    registry = find_parts(request).registry

    def read(body: bytes, served: Served, settings: Settings) -> Compare:
        return read_compare(body, served, registry, settings)

    return await _answer(request, read, may_load=True)


async def _answer(
    request: Request,
    read: Callable[[bytes, Served, Settings], Question],
    prepare: Callable[[Parts, Question], Awaitable[Question]] | None = None,
    may_load: bool = False,
) -> Response:
    """Reads a question, prepares it if it needs global results, and answers it in turn with others.

    Args:
        request: the request.
        read: parses its body.
        prepare: computes what it needs.
        may_load: whether reading may load another model, so that it must not run on the event loop.
    """
    parts, deadline = find_parts(request), find_deadline(request)
    served = await find_model(request, deadline)
    accept_json(request)
    with parts.work.claim("explanation", place=False) as held:
        body = await read_body(request, parts.settings, held)
        with span("parse"):
            reading, key = partial(read, body, served, parts.settings), object() if may_load else None
            question = await parts.work.run(reading, "explanation", estimate_parsing(body), key, deadline)
    request.state.windows = len(question.windows)
    if prepare is not None:
        question = await while_connected(request, deadline.wait(prepare(parts, question)))
    with parts.work.claim("explanation", question.n_bytes):
        answering = parts.work.run_in_turns(partial(answer_alternative, question))
        answer, warnings = await while_connected(request, deadline.wait(answering))
    count_warnings(parts, served, warnings)
    return Response(answer, media_type=JSON)


async def _with_topology(parts: Parts, question: Ablate) -> Ablate:
    """The question to a model that knows the topology."""
    await parts.results.topology(question.served, question.output, question.rule)
    return replace(question, served=parts.results.share(question.served))
