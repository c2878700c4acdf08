"""GET /v1/models/{model}/comparison: what has changed from another version or model."""

from fastapi import Response

from kanmodel.structure.model_comparison import ModelComparison
from kanmodel.tables.statistics.bootstrap import CONFIDENCE
from service.answers.alternatives import ComparisonQuery, ModelComparisonResponse
from service.answers.forms import describe
from service.answers.members import head_of
from service.models.registry import Served
from service.operations.reference import describe_span
from service.operations.route import Call, result
from service.wire.json import answer_json


def describe_model_comparison(served: Served, other: Served, found: ModelComparison) -> ModelComparisonResponse:
    """A comparison of models."""
    head = {**describe_span(served), "against": head_of(other)}
    return describe(ModelComparisonResponse, found, **head, reference_windows=found.windows, confidence=CONFIDENCE)


@result("comparison", "alternatives", ModelComparisonResponse, ComparisonQuery)
async def get_comparison(call: Call) -> Response:
    """Compares a model with another version or model: shares of features, edges and their curves, and errors.

    Both explain the reference windows of this model, so intervals are those of paired differences.
    """
    served, query, output = call.served, call.query, call.output
    other = served
    if query.against_model is not None or query.against_version is not None:
        name = served.name if query.against_model is None else query.against_model
        other = await call.load(name, query.against_version)
    found = await call.parts.results.comparison(served, output, other, query.fidelity, call.deadline)
    return await call.make(lambda: answer_json(describe_model_comparison(served, other, found)))
