"""GET /v1/models/{model}/reference and GET /v1/models/{model}/reference/{index}."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from service.document.errors import describe_errors
from service.http.answers import answer_json
from service.http.errors import ForbiddenError, UnknownValueError
from service.http.negotiation import refuse_other_than_json
from service.http.security import EXPLAIN
from service.requests.outputs import read_output
from service.routes.dependencies import MODEL, Parts, TheDeadline, TheModel, TheParts
from service.routes.precomputed import PrecomputedRoute
from service.schemas.closed import VersionQuery
from service.schemas.reference import (
    ReferenceList,
    ReferencesQuery,
    ReferenceWindow,
    describe_reference_window,
    describe_references,
)
from service.work.estimates import estimate_description

router = APIRouter(
    tags=["models"], dependencies=[EXPLAIN, Depends(refuse_other_than_json)], route_class=PrecomputedRoute
)


@router.get(
    f"{MODEL}/reference",
    operation_id="list_reference_windows",
    response_model=ReferenceList,
    responses=describe_errors(404, 406, 422, 503),
)
async def list_reference_windows(
    served: TheModel, parts: TheParts, deadline: TheDeadline, query: Annotated[ReferencesQuery, Query()]
) -> Response:
    """Lists the windows that global explanations are computed on, with times, forecasts and actual values.

    They are training data, so a key needs the scope explain; the setting `reference_windows` turns this off, and the
    answer is then 403.
    """
    _refuse_hidden(parts)
    config = served.model.config
    contributions = None
    if query.contributions:
        output = read_output(query.output, config)
        importance = await deadline.wait(parts.results.importance(served, output))
        contributions = importance.explanation.contributions
    elif query.output is not None:
        read_output(query.output, config)
    n_entries = min(query.limit, len(served.model.reference)) * (2 * len(config.features) if query.contributions else 1)

    def describe() -> Response:
        return answer_json(describe_references(served, query, contributions))

    return await parts.work.run(describe, "explanation", estimate_description(n_entries), deadline=deadline)


@router.get(
    f"{MODEL}/reference/{{index}}",
    operation_id="get_reference_window",
    response_model=ReferenceWindow,
    responses=describe_errors(404, 406, 422, 503),
)
async def get_reference_window(
    served: TheModel,
    parts: TheParts,
    index: Annotated[int, Path(description="Index of the window, from 0.")],
    _: Annotated[VersionQuery, Query()],
) -> Response:
    """Returns one of the windows on which global explanations are computed, ready for `:predict` and `:explain`.

    It is training data, so a key needs the scope explain; the setting `reference_windows` turns this off, and the
    answer is then 403.
    """
    _refuse_hidden(parts)
    count = len(served.model.reference)
    if not 0 <= index < count:
        raise UnknownValueError("index", f"{index} does not exist: there are 0 to {count - 1}", "window_not_found")
    return answer_json(describe_reference_window(served, index))


def _refuse_hidden(parts: Parts) -> None:
    if not parts.settings.reference_windows:
        raise ForbiddenError("reference windows are not shown here (reference_windows)")
