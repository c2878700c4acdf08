"""GET /v1/models/{model}/comparison."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from service.document.errors import describe_errors
from service.http.answers import answer_json
from service.http.negotiation import refuse_other_than_json
from service.http.security import READ
from service.requests.outputs import read_output
from service.routes.dependencies import MODEL, TheDeadline, TheModel, TheParts, load_model
from service.routes.precomputed import PrecomputedRoute
from service.schemas.comparisons import ComparisonQuery, ComparisonResponse, describe_model_comparison

router = APIRouter(
    route_class=PrecomputedRoute, tags=["alternatives"], dependencies=[READ, Depends(refuse_other_than_json)]
)


@router.get(
    f"{MODEL}/comparison",
    operation_id="get_comparison",
    response_model=ComparisonResponse,
    responses=describe_errors(404, 406, 422, 503),
)
async def get_comparison(
    served: TheModel, parts: TheParts, deadline: TheDeadline, query: Annotated[ComparisonQuery, Query()]
) -> Response:
    """Compares a model with another version or model: shares of features, edges and their curves, and errors.

    Both explain the reference windows of this model, so intervals are those of paired differences.
    """
    output = read_output(query.output, served.model.config)
    other = served
    if query.against_model is not None or query.against_version is not None:
        name = served.name if query.against_model is None else query.against_model
        other = await load_model(parts, name, query.against_version, deadline)
    found = await deadline.wait(parts.results.comparison(served, output, other, query.fidelity))
    return answer_json(describe_model_comparison(served, other, found))
