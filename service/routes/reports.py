"""GET /v1/models/{model}/report."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.document.errors import describe_errors
from service.http.answers import JSON, MARKDOWN, answer_json
from service.http.negotiation import choose_media_type
from service.http.security import READ
from service.requests.outputs import read_output
from service.routes.dependencies import MODEL, TheDeadline, TheModel, TheParts
from service.routes.precomputed import PrecomputedRoute
from service.schemas.closed import OutputQuery
from service.schemas.reports import ReportResponse, describe_report

router = APIRouter(route_class=PrecomputedRoute, tags=["report"], dependencies=[READ])
_PROSE = {"content": {MARKDOWN: {"schema": {"type": "string", "description": "The questions and answers as prose."}}}}


@router.get(
    f"{MODEL}/report",
    operation_id="get_report",
    response_model=ReportResponse,
    responses={200: _PROSE, **describe_errors(404, 406, 422, 503)},
)
async def get_report(
    request: Request,
    served: TheModel,
    parts: TheParts,
    deadline: TheDeadline,
    query: Annotated[OutputQuery, Query()],
) -> Response:
    """Answers the questions that people ask about the plot of a KAN, in words and with the numbers behind them.

    With `Accept: text/markdown` as prose.
    """
    media_type = choose_media_type(request.headers.get("accept"), (JSON, MARKDOWN))
    output = read_output(query.output, served.model.config)
    report = await deadline.wait(parts.results.report(served, output))
    if media_type == JSON:
        return answer_json(describe_report(served, report))
    return Response(report.markdown(), media_type=MARKDOWN)
