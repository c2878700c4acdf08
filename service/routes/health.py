"""GET /healthz and GET /readyz, and their counterparts in the Open Inference Protocol."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from kanmodel.errors import Problem
from service.document.errors import describe_errors, describe_unreadiness
from service.http.answers import answer_json
from service.http.error_answers import describe_error
from service.http.errors import NotReadyError
from service.http.negotiation import refuse_other_than_json
from service.models.registry import Registry
from service.routes.dependencies import TheParts
from service.schemas.health import Health, Readiness, ServerHealth, UnreadyResponse
from service.schemas.models import summarise_model

router = APIRouter(tags=["health"], dependencies=[Depends(refuse_other_than_json)])


@router.get("/healthz", operation_id="get_health", response_model=Health, responses=describe_errors(406))
async def get_health() -> Response:
    """Liveness: the process answers."""
    health: Health = {"status": "ok"}
    return answer_json(health)


@router.get("/readyz", operation_id="get_readiness", response_model=Readiness, responses=describe_errors(406, 503))
async def get_readiness(parts: TheParts) -> Response:
    """Readiness: at least one model answers; a request for one that is not loaded waits for that."""
    _refuse_unready(parts.registry)
    index = parts.registry.index()
    readiness: Readiness = {"ready": True, "models": [summarise_model(entries) for entries in index.values()]}
    return answer_json(readiness)


@router.get(
    "/v2/health/live", operation_id="get_server_health", response_model=ServerHealth, responses=describe_errors(406)
)
async def get_server_health(parts: TheParts) -> Response:
    """Liveness of the process, and whether a model answers."""
    health: ServerHealth = {"live": True, "ready": parts.registry.ready}
    return answer_json(health)


@router.get(
    "/v2/health/ready",
    operation_id="get_server_readiness",
    response_model=ServerHealth,
    responses={**describe_errors(406, 503), 503: describe_unreadiness()},
)
async def get_server_readiness(request: Request, parts: TheParts) -> Response:
    """Readiness: at least one model answers; a request for one that is not loaded waits for that."""
    try:
        _refuse_unready(parts.registry)
    except NotReadyError as error:
        body = describe_error(error, request.state.request_id)
        unready: UnreadyResponse = {**body, "live": True, "ready": False}
        return answer_json(unready, body["status"], error.headers)
    health: ServerHealth = {"live": True, "ready": True}
    return answer_json(health)


def _refuse_unready(registry: Registry) -> None:
    if not registry.ready:
        waited_for = [entry for entry in registry.entries if entry.state != "ready"]
        problems = [Problem(entry.name, f"version {entry.version} {entry.condition}") for entry in waited_for]
        raise NotReadyError("the service is not ready", problems)
