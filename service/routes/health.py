"""GET /healthz and GET /readyz."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from kanmodel.errors import Problem
from service.answers import answer_json
from service.dependencies import TheParts
from service.errors import NotReadyError
from service.registry import choose_default
from service.requests.negotiation import refuse_other_than_json
from service.schemas.errors import describe_errors
from service.schemas.health import Health, Readiness
from service.schemas.models import summarise_model

router = APIRouter(tags=["health"], dependencies=[Depends(refuse_other_than_json)])


@router.get("/healthz", operation_id="get_health", response_model=Health, responses=describe_errors(406))
async def get_health() -> Response:
    """Says that the process lives."""
    health: Health = {"status": "ok"}
    return answer_json(health)


@router.get("/readyz", operation_id="get_readiness", response_model=Readiness, responses=describe_errors(406, 503))
async def get_readiness(parts: TheParts) -> Response:
    """Says whether loading is over and a model answers; failed models don't keep the others back."""
    index = parts.registry.index()
    if not parts.registry.ready:
        defaults = map(choose_default, index.values())
        problems = [Problem(entry.name, entry.reason or f"is {entry.state}") for entry in defaults]
        raise NotReadyError("the service is not ready", problems, headers={"Retry-After": "1"})
    readiness: Readiness = {"ready": True, "models": [summarise_model(entries) for entries in index.values()]}
    return answer_json(readiness)
