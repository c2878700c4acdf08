"""GET /v1/models/{model}/report: what a forecaster does, as JSON, as prose, and as a page to read and to print."""

from typing import Annotated, Any

from fastapi import Response
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.model import Model
from kanmodel.report import finding
from kanmodel.report.finding import Finding
from kanmodel.report.report import Report
from service.models.registry import Served
from service.operations.members import OutputQuery, ReportFormat, ThemeParameter, about, describe
from service.operations.reference import OnReference, describe_span
from service.operations.route import Call, result, stream_result
from service.wire.json import HTML, JSON, MARKDOWN, NDJSON, POLICY, answer_json

FindingId = TypeAliasType("FindingId", finding.FindingId)


class FindingInfo(TypedDict):
    """One question, answered."""

    id: Annotated[FindingId, about("Stable id of the question.")]
    question: Annotated[str, about("The question as people ask it.")]
    answer: Annotated[str, about("The answer in words, with names in backticks.")]
    brief: Annotated[str, about("A shorter answer; empty if the answer is short.")]
    headlines: Annotated[list[list[str]], about("Figures of the answer, each with what it is.")]
    pictures: Annotated[list[str], about("Pictures of the evidence, SVG.")]
    caption: Annotated[str, about("What the pictures show; empty if they say it.")]
    evidence: dict[str, Any]
    """Every number of the answer, and those behind it; each question has members of its own. The `interactions` of
    `independence` are mean magnitudes of local second differences, target's unit: the ten largest of `screened_pairs`
    pairs of all features, which were screened on `screening_windows` reference windows (of more than 24 features, first
    each against all others together)."""


class ReportQuery(OutputQuery):
    """Selects an output and a form."""

    format: Annotated[
        ReportFormat | None, about("`json`, `html` or `markdown`; takes precedence over the header `Accept`.")
    ] = None
    theme: ThemeParameter = "auto"


class ReportResponse(OnReference):
    """The report on one output of a model."""

    output: Annotated[str, about("Name of the output.")]
    findings: Annotated[list[FindingInfo], about("One per question.")]


class ReportPart(TypedDict):
    """One question, answered before the others."""

    finding: FindingInfo


def describe_finding(one: Finding) -> FindingInfo:
    """A question and its answer."""
    return describe(FindingInfo, one, pictures=one.draw())


def describe_report(served: Served, report: Report) -> ReportResponse:
    """The report."""
    findings = list(map(describe_finding, report.findings))
    return describe(ReportResponse, report, findings=findings, **describe_span(served))


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
            lambda finding: ReportPart(finding=describe_finding(finding)),
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
