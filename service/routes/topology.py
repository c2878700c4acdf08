"""GET /v1/models/{model}/topology and GET /v1/models/{model}/topology/fidelity."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Response

from service.answers import answer_json
from service.dependencies import MODEL, TheDeadline, TheModel, TheParts
from service.requests.negotiation import refuse_other_than_json
from service.requests.outputs import read_output
from service.routes.precomputed import PrecomputedRoute
from service.routes.versioned import VersionedRouter
from service.schemas.errors import describe_errors
from service.schemas.topology import (
    FidelityCurve,
    FidelityQuery,
    TopologyQuery,
    TopologyResponse,
    describe_fidelity_curve,
    describe_topology,
)

router = VersionedRouter(
    route_class=PrecomputedRoute, tags=["topology"], dependencies=[Depends(refuse_other_than_json)]
)


@router.get(
    f"{MODEL}/topology",
    operation_id="get_topology",
    response_model=TopologyResponse,
    responses=describe_errors(404, 406, 422, 503),
)
async def get_topology(
    served: TheModel, parts: TheParts, deadline: TheDeadline, query: Annotated[TopologyQuery, Query()]
) -> Response:
    """Shows the pruned network as a graph, with what pruning costs.

    Prune by `fidelity` (default 0.99) or by thresholds, not both.
    """
    output = read_output(query.output, served.model.config)
    topology = await deadline.wait(parts.results.topology(served, output, query.rule()))
    return answer_json(describe_topology(served, topology, query.pruned))


@router.get(
    f"{MODEL}/topology/fidelity",
    operation_id="get_fidelity_curve",
    response_model=FidelityCurve,
    responses=describe_errors(404, 406, 422, 503),
)
async def get_fidelity_curve(
    served: TheModel, parts: TheParts, deadline: TheDeadline, query: Annotated[FidelityQuery, Query()]
) -> Response:
    """Shows what each number of edges costs, from all to none, when the weakest go first."""
    output = read_output(query.output, served.model.config)
    points = await deadline.wait(parts.results.fidelity_curve(served, output, query.metric, query.fill))
    return answer_json(describe_fidelity_curve(served, output, query, points))
