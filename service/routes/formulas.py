"""GET /v1/models/{model}/formula."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.document.errors import describe_errors
from service.http.answers import JSON, TEXT, answer_json
from service.http.negotiation import choose_media_type
from service.http.security import READ
from service.requests.outputs import read_output
from service.routes.dependencies import MODEL, TheDeadline, TheModel, TheParts
from service.routes.precomputed import PrecomputedRoute
from service.schemas.formulas import FormulaQuery, FormulaResponse, describe_formulas

router = APIRouter(route_class=PrecomputedRoute, tags=["formula"], dependencies=[READ])
_TEXT = {"content": {TEXT: {"schema": {"type": "string", "description": "One formula as Python or LaTeX."}}}}


@router.get(
    f"{MODEL}/formula",
    operation_id="get_formula",
    response_model=FormulaResponse,
    responses={200: _TEXT, **describe_errors(404, 406, 422, 503)},
)
async def get_formula(
    request: Request,
    served: TheModel,
    parts: TheParts,
    deadline: TheDeadline,
    query: Annotated[FormulaQuery, Query()],
) -> Response:
    """Writes the head as formulas of its inputs, from a constant to the whole network, each with its error.

    Inputs are LSTM units, or features if there is no LSTM; everything is in original units.
    """
    media_type = JSON if query.format == "json" else TEXT
    choose_media_type(request.headers.get("accept"), (media_type,))
    output = read_output(query.output, served.model.config)
    found = await deadline.wait(parts.results.formulas(served, output))
    chosen = [one for one in found if query.complexity is None or one.complexity <= query.complexity]
    if query.format == "json":
        return answer_json(describe_formulas(served, found, chosen if query.complexity is None else chosen[-1:]))
    return Response(getattr(chosen[-1], query.format), media_type=TEXT)
