"""GET /v1/models/{model}/topology."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from service.answers import answer_json
from service.dependencies import MODEL, TheModel, TheParts
from service.requests.negotiation import accept_json
from service.requests.outputs import read_output
from service.schemas.errors import describe_errors
from service.schemas.topology import TopologyQuery, TopologyResponse, describe_topology

router = APIRouter(tags=["topology"], dependencies=[Depends(accept_json)])


@router.get(
    f"{MODEL}/topology",
    operation_id="get_topology",
    response_model=TopologyResponse,
    responses=describe_errors(404, 406, 422, 503),
)
async def get_topology(served: TheModel, parts: TheParts, query: Annotated[TopologyQuery, Query()]) -> Response:
    """Shows the pruned network as a graph, with what pruning costs.

    Prune by `fidelity` (default 0.99) or by thresholds, not both.
    """
    output = read_output(query.output, served.model.config)
    topology = await parts.results.topology(served, output, query.rule())
    return answer_json(describe_topology(served, topology, query.pruned))
