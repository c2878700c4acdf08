"""GET /v1/models/{model}/edges and GET /v1/models/{model}/edges/{layer}/{i}/{j}."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from kanmodel.explain.topology import Topology
from kanmodel.show.edge import draw_edge
from service.document.errors import describe_errors
from service.document.operations import describe_picture
from service.http.answers import SVG, answer_json, answer_svg
from service.http.errors import unusable
from service.http.negotiation import choose_format, refuse_other_than_json
from service.http.security import READ
from service.models.registry import Served
from service.requests.outputs import read_output
from service.routes.dependencies import MODEL, Parts, TheDeadline, TheModel, TheParts
from service.routes.precomputed import PrecomputedRoute
from service.schemas.edges import (
    CurveQuery,
    CurvesQuery,
    EdgeList,
    EdgeResponse,
    describe_edge,
    describe_edges,
)
from service.work.deadlines import Deadline
from service.work.estimates import FORMULAS, estimate_curves

router = APIRouter(tags=["edges"], route_class=PrecomputedRoute, dependencies=[READ])
_PICTURE = describe_picture(
    "The curve of the edge over its grid, with a histogram of its inputs on the reference windows."
)


@router.get(
    f"{MODEL}/edges",
    operation_id="list_edges",
    response_model=EdgeList,
    dependencies=[Depends(refuse_other_than_json)],
    responses=describe_errors(404, 406, 422, 503),
)
async def list_edges(
    served: TheModel, parts: TheParts, deadline: TheDeadline, query: Annotated[CurvesQuery, Query()]
) -> Response:
    """Samples the functions on all edges that the rule keeps."""
    topology = await _get_topology(served, parts, deadline, query)
    kept = [edge for edge in topology.kan_edges if edge.kept]

    def sample() -> Response:
        return answer_json(describe_edges(served, topology, served.model.curves(kept, query.points, query.range)))

    return await parts.work.run(sample, "explanation", estimate_curves(len(kept), query.points), deadline=deadline)


@router.get(
    f"{MODEL}/edges/{{layer}}/{{i}}/{{j}}",
    operation_id="get_edge",
    response_model=EdgeResponse,
    responses={200: _PICTURE, **describe_errors(404, 406, 422, 503)},
)
async def get_edge(
    request: Request,
    served: TheModel,
    parts: TheParts,
    deadline: TheDeadline,
    layer: Annotated[int, Path(description="Layer of the edge's source node.")],
    i: Annotated[int, Path(description="Index of that node.")],
    j: Annotated[int, Path(description="Index of the target sub-node, in the next layer.")],
    query: Annotated[CurveQuery, Query()],
) -> Response:
    """Samples the function on one edge, with the distribution of its inputs on the reference windows.

    With `Accept: image/svg+xml` as a picture.
    """
    media_type = choose_format(request, query.format)
    topology = await _get_topology(served, parts, deadline, query)
    edge = topology.edge(query.stage, layer, i, j)

    def sample() -> Response:
        (curve,) = served.model.curves([edge], query.points, query.range)
        formulas = served.model.edge_formulas(edge) if query.formulas else []
        if media_type == SVG:
            unit = served.model.config.target_of(read_output(query.output, served.model.config)).unit
            named = replace(curve, name=served.name)
            return answer_svg(draw_edge(named, query.theme, output=topology.output, unit=unit, formulas=formulas))
        return answer_json(describe_edge(served, topology, curve, formulas))

    cost = FORMULAS if query.formulas else estimate_curves(1, query.points)
    return await parts.work.run(sample, "explanation", cost, deadline=deadline)


async def _get_topology(served: Served, parts: Parts, deadline: Deadline, query: CurvesQuery) -> Topology:
    if query.points > parts.settings.max_points:
        message = f"must be at most {parts.settings.max_points} (max_points), but is {query.points}"
        raise unusable("points", message, "limit_exceeded")
    output = read_output(query.output, served.model.config)
    return await deadline.wait(parts.results.topology(served, output, query.rule(served.model)))
