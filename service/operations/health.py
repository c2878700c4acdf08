"""What is asked of the process: whether it lives and is ready, in both protocols, and its metrics.

GET /healthz, /readyz, /v2/health/live and /v2/health/ready. /metrics, for Prometheus, is not part of the API for which
clients are generated.
"""

import asyncio
from typing import Annotated, Literal, NotRequired

from fastapi import Response
from typing_extensions import TypedDict

from kanmodel.errors import Problem
from service.answers.members import about
from service.answers.models import ModelSummary
from service.document import describe_error_answer
from service.operations.models import summarise_model
from service.operations.route import Call, Operation
from service.wire.errors import ErrorResponse, NotReadyError, answer_body, describe_error
from service.wire.headers import find_header
from service.wire.json import answer_json


class Health(TypedDict):
    """The process is alive."""

    status: Annotated[Literal["ok"], about("Always `ok`.")]


class Readiness(TypedDict):
    """At least one model answers."""

    ready: Annotated[bool, about("Always true: until then the answer is a 503.")]
    models: NotRequired[
        Annotated[
            list[ModelSummary],
            about("Every model of the folder, with the reason of a failure; absent where a key is needed and missing."),
        ]
    ]


class ServerHealth(TypedDict):
    """Liveness and readiness."""

    live: Annotated[bool, about("Always true.")]
    ready: Annotated[bool, about("Whether a model answers.")]


class UnreadyResponse(ErrorResponse):
    """The error of a service that is not ready."""

    live: Annotated[bool, about("Always true.")]
    ready: Annotated[bool, about("Always false.")]


@Operation("GET", "/healthz", "health", None, Health)
async def get_health(call: Call) -> Response:
    """Liveness: the process answers."""
    return answer_json(Health(status="ok"))


@Operation("GET", "/readyz", "health", None, Readiness)
async def get_readiness(call: Call) -> Response:
    """Readiness: at least one model answers; a request for one that is not loaded waits for that.

    Where the service has keys, models and the reasons of failures are named to those with the scope `read`.
    """
    _refuse_unready(call)
    if not _may_see_names(call):
        return answer_json(Readiness(ready=True))
    summaries = list(map(summarise_model, call.parts.registry.index().values()))
    return answer_json(Readiness(ready=True, models=summaries))


@Operation("GET", "/v2/health/live", "health", None, ServerHealth)
async def get_server_health(call: Call) -> Response:
    """Liveness of the process, and whether a model answers."""
    return answer_json(ServerHealth(live=True, ready=call.parts.registry.ready))


_UNREADY = {"503": describe_error_answer(503, "UnreadyResponse", live=True, ready=False)}


@Operation("GET", "/v2/health/ready", "health", None, ServerHealth, others=(UnreadyResponse,), responses=_UNREADY)
async def get_server_readiness(call: Call) -> Response:
    """Readiness: at least one model answers; a request for one that is not loaded waits for that.

    Where the service has keys, the error names models and reasons to those with the scope `read`.
    """
    try:
        _refuse_unready(call)
    except NotReadyError as error:
        body = describe_error(error, call.state.request_id)
        return answer_body(call, UnreadyResponse(**body, live=True, ready=False), error.headers)
    return answer_json(ServerHealth(live=True, ready=True))


def _may_see_names(call: Call) -> bool:
    return bool(call.state.caller.may("read"))


def _refuse_unready(call: Call) -> None:
    registry, entries = call.parts.registry, call.parts.registry.entries
    if not any(entry.state == "ready" for entry in entries):
        if not _may_see_names(call):
            raise NotReadyError("the service is not ready")
        problems = [Problem(entry.name, f"version {entry.version} {entry.condition}") for entry in entries]
        reason = "" if problems else f": {registry.problem or 'there is no model in the folder yet'}"
        raise NotReadyError(f"the service is not ready{reason}", problems)


@Operation("GET", "/metrics", "health", "metrics", None, media_types=(), is_documented=False)
async def get_metrics(call: Call) -> Response:
    """All metrics of this process."""
    accept = find_header(call.scope, b"accept") or ""
    content, media_type = await asyncio.to_thread(call.parts.metrics.expose, accept)
    return Response(content, media_type=media_type)
