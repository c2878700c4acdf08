"""GET /v1/models, and the description and readiness of one model."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from service.document.errors import describe_errors
from service.http.answers import answer_json
from service.http.negotiation import refuse_other_than_json
from service.http.security import READ
from service.routes.dependencies import MODEL, TheModel, TheName, TheParts
from service.schemas.closed import VersionQuery
from service.schemas.models import (
    ModelInfo,
    ModelList,
    ModelReadiness,
    describe_model,
    describe_readiness,
    summarise_model,
)

router = APIRouter(tags=["models"], dependencies=[READ, Depends(refuse_other_than_json)])


@router.get("/v1/models", operation_id="list_models", response_model=ModelList, responses=describe_errors(406))
async def list_models(parts: TheParts) -> Response:
    """Lists the models and their versions, with the state of each and the reason of a failure."""
    index = parts.registry.index()
    models: ModelList = {
        "models": list(index),
        "details": [summarise_model(entries) for entries in index.values()],
    }
    return answer_json(models)


@router.get(MODEL, operation_id="get_model", response_model=ModelInfo, responses=describe_errors(404, 406, 422, 503))
async def get_model(served: TheModel, parts: TheParts, _: Annotated[VersionQuery, Query()]) -> Response:
    """Describes a model: features with units and ranges, outputs, architecture, training metrics."""
    return answer_json(describe_model(served, parts.registry.index().get(served.name, ())))


@router.get(
    f"{MODEL}/ready",
    operation_id="get_model_readiness",
    response_model=ModelReadiness,
    responses=describe_errors(404, 406, 422, 503),
)
async def get_model_readiness(name: TheName, _: Annotated[VersionQuery, Query()]) -> Response:
    """Readiness of a model; one that is not ready answers 503."""
    return answer_json(describe_readiness(name))
