"""Metadata of the server and its models in the Open Inference Protocol (V2)."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Depends, Response

from service.document.errors import describe_errors
from service.http.answers import answer_json
from service.http.negotiation import refuse_other_than_json
from service.http.security import READ
from service.routes.dependencies import MODEL_V2, VERSION_V2, TheModelV2, TheNameV2, TheParts
from service.schemas.inference import ModelMetadata, ServerMetadata, describe_tensors
from service.schemas.models import ModelReadiness, describe_readiness

router = APIRouter(tags=["inference"], dependencies=[READ, Depends(refuse_other_than_json)])


@router.get("/v2", operation_id="get_server_metadata", response_model=ServerMetadata, responses=describe_errors(406))
async def get_server_metadata(parts: TheParts) -> Response:
    """The name and version of the service, and the protocol extensions that it supports."""
    extensions = ["binary_tensor_data", "parameters"]
    if parts.settings.repository_api:
        extensions.append("model_repository")
    metadata: ServerMetadata = {"name": "kanscope", "version": version("kanscope"), "extensions": extensions}
    return answer_json(metadata)


@router.get(VERSION_V2, response_model=ModelMetadata, include_in_schema=False)
@router.get(
    MODEL_V2,
    operation_id="get_model_metadata",
    response_model=ModelMetadata,
    responses=describe_errors(400, 404, 406, 503),
)
async def get_model_metadata(served: TheModelV2, parts: TheParts) -> Response:
    """Describes the tensors of a model, and the names along their last axes.

    `/v2/models/{model}/versions/{version}` selects a version, and so do `ready` and `infer` below it.
    """
    return answer_json(describe_tensors(served, parts.registry.index().get(served.name, ())))


@router.get(f"{VERSION_V2}/ready", response_model=ModelReadiness, include_in_schema=False)
@router.get(
    f"{MODEL_V2}/ready",
    operation_id="get_model_ready",
    response_model=ModelReadiness,
    responses=describe_errors(404, 406, 503),
)
async def get_model_ready(name: TheNameV2) -> Response:
    """Readiness of a model; one that is not ready answers 503."""
    return answer_json(describe_readiness(name))
