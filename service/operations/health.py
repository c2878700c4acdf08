"""Liveness and readiness.

GET /healthz and GET /readyz, and their counterparts in the Open Inference Protocol.

GET /metrics, for Prometheus; not part of the API for which clients are generated.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import Response
from typing_extensions import TypedDict

from kanmodel.errors import Problem
from service.document.description import describe_unreadiness
from service.models.registry import Registry
from service.operations.members import about
from service.operations.models import ModelSummary, summarise_model
from service.operations.route import Call, operation
from service.wire.errors import ErrorResponse, NotReadyError, answer_body, describe_error
from service.wire.headers import find_header
from service.wire.json import answer_json


class Health(TypedDict):
    """The process is alive."""

    status: Annotated[Literal["ok"], about("Always `ok`.")]


class Readiness(TypedDict):
    """At least one model answers."""

    ready: Annotated[Literal[True], about("Always true: until then the answer is a 503.")]
    models: Annotated[list[ModelSummary], about("Every model of the folder, with the reason of a failure.")]


class ServerHealth(TypedDict):
    """Liveness and readiness."""

    live: Annotated[Literal[True], about("Always true.")]
    ready: Annotated[bool, about("Whether a model answers.")]


class UnreadyResponse(ErrorResponse):
    """The error of a service that is not ready."""

    live: Annotated[Literal[True], about("Always true.")]
    ready: Annotated[Literal[False], about("Always false.")]


@operation("GET", "/healthz", "health", None, Health)
async def get_health(call: Call) -> Response:
    """Liveness: the process answers."""
    health: Health = {"status": "ok"}
    return answer_json(health)


@operation("GET", "/readyz", "health", None, Readiness)
async def get_readiness(call: Call) -> Response:
    """Readiness: at least one model answers; a request for one that is not loaded waits for that."""
    _refuse_unready(call.parts.registry)
    index = call.parts.registry.index()
    readiness: Readiness = {"ready": True, "models": [summarise_model(entries) for entries in index.values()]}
    return answer_json(readiness)


@operation("GET", "/v2/health/live", "health", None, ServerHealth)
async def get_server_health(call: Call) -> Response:
    """Liveness of the process, and whether a model answers."""
    health: ServerHealth = {"live": True, "ready": call.parts.registry.ready}
    return answer_json(health)


@operation(
    "GET",
    "/v2/health/ready",
    "health",
    None,
    ServerHealth,
    responses={503: {**describe_unreadiness(), "model": UnreadyResponse}},
)
async def get_server_readiness(call: Call) -> Response:
    """Readiness: at least one model answers; a request for one that is not loaded waits for that."""
    try:
        _refuse_unready(call.parts.registry)
    except NotReadyError as error:
        body = describe_error(error, call.state.request_id)
        unready: UnreadyResponse = {**body, "live": True, "ready": False}
        return answer_body(call, unready, error.headers)
    health: ServerHealth = {"live": True, "ready": True}
    return answer_json(health)


def _refuse_unready(registry: Registry) -> None:
    if not registry.ready:
        waited_for = [entry for entry in registry.entries if entry.state != "ready"]
        problems = [Problem(entry.name, f"version {entry.version} {entry.condition}") for entry in waited_for]
        raise NotReadyError("the service is not ready", problems)


@operation("GET", "/metrics", "health", "metrics", None, media_types=(), is_documented=False)
async def get_metrics(call: Call) -> Response:
    """All metrics of this process."""
    accept = find_header(call.scope, b"accept") or ""
    content, media_type = await asyncio.to_thread(call.parts.metrics.expose, accept)
    return Response(content, media_type=media_type)
