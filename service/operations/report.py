"""GET /v1/models/{model}/report: what a forecaster does, as JSON, as prose, and as a page to read and to print."""

from fastapi import Response

from kanmodel.model import Model
from kanmodel.report.report import Report
from service.answers.forms import describe, describe_one
from service.answers.report import ReportPart, ReportQuery, ReportResponse
from service.models.registry import Served
from service.operations.reference import describe_span
from service.operations.route import Call, result, stream_result
from service.wire.json import HTML, JSON, MARKDOWN, NDJSON, POLICY, answer_json


def describe_report(served: Served, report: Report) -> ReportResponse:
    """The report."""
    return describe(ReportResponse, report, **describe_span(served))


@result(
    "report",
    "report",
    ReportResponse,
    ReportQuery,
    media_types=(JSON, MARKDOWN, HTML, NDJSON),
)
async def get_report(call: Call) -> Response:
    """Says what is forecast and how well, what drives it, what to read with care, and answers questions about the KAN.

    Every answer is in words, with the numbers behind it. With `Accept: text/markdown` or `?format=markdown` as prose,
    with `text/html` or `?format=html` as a page that runs and loads nothing, two sheets of A4 when printed. With
    `application/x-ndjson` there is one JSON object per line: while the report is computed `{"finding": …}`
    for each question as it is answered; at last the `ReportResponse`, or after a failure an `ErrorResponse`.
    """
    if call.media_type == NDJSON:
        return await stream_result(
            call,
            Model.report,
            lambda finding: ReportPart(finding=describe_one(finding)),
            lambda report: describe_report(call.served, report),
        )
    found = await call.find(Model.report)

    def write() -> Response:
        if call.media_type == JSON:
            return answer_json(describe_report(call.served, found))
        if call.media_type == HTML:
            return Response(found.html(theme=call.query.theme), headers=POLICY, media_type=HTML)
        return Response(found.markdown(), media_type=MARKDOWN)

    return await call.make(write)
