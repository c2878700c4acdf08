"""GET /v1/models/{model}/report: answers to the questions that people ask about the plot of a KAN."""

from typing import Annotated, Any

from fastapi import Response
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.explain import report
from kanmodel.explain.report import Report
from kanmodel.model import Model
from service.models.registry import Served
from service.operations.members import OutputQuery, about, describe
from service.operations.reference import OnReference, describe_span
from service.operations.route import Call, result
from service.wire.json import JSON, MARKDOWN, answer_json

FindingId = TypeAliasType("FindingId", report.FindingId)


class FindingInfo(TypedDict):
    """One question, answered."""

    id: Annotated[FindingId, about("Stable id of the question.")]
    question: Annotated[str, about("The question as people ask it.")]
    answer: Annotated[str, about("The answer in words, with names in backticks.")]
    evidence: dict[str, Any]
    """Every number of the answer, and those behind it; each question has members of its own. The `interactions` of
    `independence` are mean magnitudes of local second differences, target's unit: the ten largest of `screened_pairs`
    pairs of all features, which were screened on `screening_windows` reference windows (of more than 24 features, first
    each against all others together)."""


class ReportResponse(OnReference):
    """The report on one output of a model."""

    output: Annotated[str, about("Name of the output.")]
    findings: Annotated[list[FindingInfo], about("One per question.")]


def describe_report(served: Served, report: Report) -> ReportResponse:
    """The report."""
    return describe(ReportResponse, report, **describe_span(served))


@result("report", "report", ReportResponse, OutputQuery, {MARKDOWN: "The questions and answers as prose."})
async def get_report(call: Call) -> Response:
    """Answers the questions that people ask about the plot of a KAN, in words and with the numbers behind them.

    With `Accept: text/markdown` as prose.
    """
    report = await call.deadline.wait(call.parts.results.find(call.served, call.output, Model.report))
    if call.media_type == JSON:
        return answer_json(describe_report(call.served, report))
    return Response(report.markdown(), media_type=MARKDOWN)
