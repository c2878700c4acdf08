"""GET /v1/models/{model}/attributions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.document.errors import describe_errors
from service.document.operations import describe_picture
from service.http.answers import SVG, answer_json, answer_svg
from service.http.negotiation import choose_format
from service.http.security import READ
from service.requests.bodies import find_limits
from service.requests.groups import parse_groups, read_groups
from service.requests.outputs import read_output
from service.routes.dependencies import MODEL, TheDeadline, TheModel, TheParts
from service.routes.precomputed import PrecomputedRoute
from service.schemas.attributions import AttributionsQuery, AttributionsResponse, describe_attributions

router = APIRouter(route_class=PrecomputedRoute, tags=["attributions"], dependencies=[READ])
_PICTURE = describe_picture("The features as bars with their intervals, shares and verdicts.")


@router.get(
    f"{MODEL}/attributions",
    operation_id="get_attributions",
    response_model=AttributionsResponse,
    responses={200: _PICTURE, **describe_errors(404, 406, 422, 503)},
)
async def get_attributions(
    request: Request,
    served: TheModel,
    parts: TheParts,
    deadline: TheDeadline,
    query: Annotated[AttributionsQuery, Query()],
) -> Response:
    """Ranks the features, and groups of them, by their mean contribution over the reference windows.

    Each has intervals and a verdict.

    A small share means that this model does not use a feature, not that it is independent of others or useless.
    With `Accept: image/svg+xml` as a picture, without `baselines`.
    """
    media_type = choose_format(request, query.format)
    output = read_output(query.output, served.model.config)
    parsed = parse_groups({"groups": query.groups}, find_limits(served.model, parts.settings))
    groups, _ = read_groups(parsed, served.model)
    importance = await deadline.wait(parts.results.group_importance(served, output, groups))
    if media_type == SVG:
        return answer_svg(importance.svg(theme=query.theme).encode())
    agreements = await deadline.wait(parts.results.agreements(served, output)) if query.baselines else None
    return answer_json(describe_attributions(served, importance, agreements))
