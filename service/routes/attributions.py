"""GET /v1/models/{model}/attributions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from service.document.errors import describe_errors
from service.http.answers import answer_json
from service.http.negotiation import refuse_other_than_json
from service.http.security import READ
from service.requests.outputs import read_output
from service.routes.dependencies import MODEL, TheDeadline, TheModel, TheParts
from service.routes.precomputed import PrecomputedRoute
from service.schemas.attributions import AttributionsQuery, AttributionsResponse, describe_attributions

router = APIRouter(
    route_class=PrecomputedRoute, tags=["attributions"], dependencies=[READ, Depends(refuse_other_than_json)]
)


@router.get(
    f"{MODEL}/attributions",
    operation_id="get_attributions",
    response_model=AttributionsResponse,
    responses=describe_errors(404, 406, 422, 503),
)
async def get_attributions(
    served: TheModel, parts: TheParts, deadline: TheDeadline, query: Annotated[AttributionsQuery, Query()]
) -> Response:
    """Ranks the features by what they contribute over the reference windows, with intervals and a verdict on each.

    A small share says that this model does not use a feature, not that it is independent of others or useless.
    """
    output = read_output(query.output, served.model.config)
    importance = await deadline.wait(parts.results.importance(served, output))
    agreements = await deadline.wait(parts.results.agreements(served, output)) if query.baselines else None
    return answer_json(describe_attributions(served, importance, agreements))
