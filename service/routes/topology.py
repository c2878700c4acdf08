"""GET /v1/models/{model}/topology and GET /v1/models/{model}/topology/fidelity."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from kanmodel.errors import UnknownNameError
from kanmodel.explain.topology import Topology
from kanmodel.show.network import N_POINTS, count_links, curved_edges, draw_topology
from service.document.errors import describe_errors
from service.document.operations import describe_picture
from service.http.answers import SVG, answer_json, answer_svg
from service.http.errors import unusable
from service.http.negotiation import choose_format, refuse_other_than_json
from service.http.security import READ
from service.models.registry import Served
from service.requests.outputs import read_output
from service.routes.dependencies import MODEL, TheDeadline, TheModel, TheParts
from service.routes.precomputed import PrecomputedRoute
from service.schemas.topology import (
    FidelityCurve,
    FidelityQuery,
    TopologyQuery,
    TopologyResponse,
    describe_fidelity_curve,
    describe_topology,
)
from service.work.estimates import estimate_description, estimate_graph

router = APIRouter(tags=["topology"], route_class=PrecomputedRoute, dependencies=[READ])
N_LINKS = 5000  # most links of each kind in a picture; of more, only the strongest are drawn
_PICTURE = describe_picture("The network; with at most 300 kept edges, the curve of each.")


@router.get(
    f"{MODEL}/topology",
    operation_id="get_topology",
    response_model=TopologyResponse,
    responses={200: _PICTURE, **describe_errors(404, 406, 422, 503)},
)
async def get_topology(
    request: Request,
    served: TheModel,
    parts: TheParts,
    deadline: TheDeadline,
    query: Annotated[TopologyQuery, Query()],
) -> Response:
    """Returns the pruned network as a graph with its fidelity; as a picture with `Accept: image/svg+xml`.

    Prune by `fidelity` (default 0.99) or by thresholds, not both. `through` leaves only the paths through one node.
    """
    media_type = choose_format(request, query.format)
    output = read_output(query.output, served.model.config)
    topology = await deadline.wait(parts.results.topology(served, output, query.rule(served.model)))
    part = _select(topology, query)

    def describe() -> Response:
        if media_type == SVG:
            return answer_svg(_draw(served, topology, part, query))
        return answer_json(describe_topology(served, topology, part, query.pruned))

    is_drawn = media_type == SVG
    n_nodes = sum(node.kept or not query.pruned for node in part.nodes)
    n_edges = (
        count_links(part, query.pruned, N_LINKS)
        if is_drawn
        else sum(edge.kept or not query.pruned for edge in part.edges)
    )
    cost = estimate_graph(n_nodes + n_edges, len(curved_edges(part)) if is_drawn else 0, N_POINTS, is_drawn)
    return await parts.work.run(describe, "explanation", cost, deadline=deadline)


@router.get(
    f"{MODEL}/topology/fidelity",
    operation_id="get_fidelity_curve",
    response_model=FidelityCurve,
    dependencies=[Depends(refuse_other_than_json)],
    responses=describe_errors(404, 406, 422, 503),
)
async def get_fidelity_curve(
    served: TheModel, parts: TheParts, deadline: TheDeadline, query: Annotated[FidelityQuery, Query()]
) -> Response:
    """Returns the fidelity against the number of edges, from all towards none, removing the weakest first."""
    output = read_output(query.output, served.model.config)
    points = await deadline.wait(parts.results.fidelity_curve(served, output, query.metric, query.fill))
    describe = partial(describe_fidelity_curve, served, output, query, points)
    cost = estimate_description(len(points))
    return await parts.work.run(lambda: answer_json(describe()), "explanation", cost, deadline=deadline)


def _select(topology: Topology, query: TopologyQuery) -> Topology:
    """What the query wants to see of a network.

    Raises:
        DataError: it names a node that does not exist.
    """
    part = topology.upstream()
    try:
        return part if query.through is None else part.through(query.through, only_kept=query.pruned)
    except UnknownNameError as error:
        raise unusable("through", f"must be the id of a node: {error}") from error


def _draw(served: Served, topology: Topology, part: Topology, query: TopologyQuery) -> bytes:
    return draw_topology(
        replace(topology, name=served.name),
        query.theme,
        curves=served.model.curves(curved_edges(part), N_POINTS),
        pruned=query.pruned,
        color=query.color,
        through=query.through,
        n_links=N_LINKS,
    )
