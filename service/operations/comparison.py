"""GET /v1/models/{model}/comparison: what has changed from another version or model."""

from typing import Annotated

from fastapi import Response
from typing_extensions import TypedDict

from kanmodel.structure.model_comparison import ModelComparison
from kanmodel.tables.statistics.bootstrap import CONFIDENCE
from service.models.registry import Served
from service.operations.compare import ComparedModel
from service.operations.members import Interval, OutputQuery, about, describe, head_of
from service.operations.reference import OnReference, describe_span
from service.operations.route import Call, result
from service.wire.json import answer_json

Share = Annotated[float, about("Share of all features' mean |contribution|.")]


class ComparisonQuery(OutputQuery):
    """Selects an output, and the model to compare with."""

    against_version: str | None = None
    """Version of the other model; absent: that of the request, or the highest of another model."""
    against_model: str | None = None
    """Name of another model with the same features and lookback; absent: the same model."""
    fidelity: Annotated[float, about("R2 of the topologies that are compared.", ge=0, le=1)] = 0.99


class FeatureChangeInfo(TypedDict):
    """Change of the importance of a feature."""

    name: Annotated[str, about("Name of the feature.")]
    share: Share
    against_share: Annotated[float, about("The same for the other model.")]
    change: Annotated[float, about("The first minus the second.")]
    interval: Annotated[Interval, about("Interval of the change, by resampling windows jointly.")]


class EdgeChangeInfo(TypedDict):
    """One edge, matched by its place in both networks; members of a missing edge are null."""

    stage: Annotated[str, about("`front` or `head`.")]
    layer: Annotated[int, about("Layer of the source node.")]
    i: Annotated[int, about("Index of the source node.")]
    j: Annotated[int, about("Index of the target sub-node, in the next layer.")]
    source: Annotated[str, about("Id of the source node.")]
    target: Annotated[str, about("Id of the target node.")]
    kept: Annotated[bool | None, about("Whether the topology of this model keeps it.")]
    against_kept: Annotated[bool | None, about("The same for the other.")]
    contribution: Annotated[float | None, about("Mean |contribution|, in the target's unit.")]
    against_contribution: Annotated[float | None, about("The same for the other model.")]
    change: Annotated[float | None, about("The first minus the second.")]
    interval: Annotated[Interval | None, about("Interval of the change.")]
    curve_difference: float | None
    """Largest difference of the two curves over the joint support, model units; null if the supports do not overlap,
    and after a layer norm."""


class ModelComparisonResponse(OnReference):
    """Comparison of this model with another one, on the reference windows of this one."""

    output: Annotated[str, about("Name of the output.")]
    unit: Annotated[str | None, about("Unit of its forecasts; null if unknown.")]
    against: ComparedModel
    fidelity: Annotated[float, about("R2 of the topologies.")]
    reference_windows: Annotated[int, about("Number of reference windows.")]
    confidence: Annotated[float, about("Confidence of the intervals.")]
    difference: Annotated[float, about("Root mean square difference of the forecasts, in the target's unit.")]
    mae: Annotated[float | None, about("Mean absolute error; null if targets are unknown.")]
    against_mae: Annotated[float | None, about("The same for the other model.")]
    features: Annotated[list[FeatureChangeInfo], about("Largest change first.")]
    edges: Annotated[list[EdgeChangeInfo], about("Edges of either network, by stage, layer, i and j.")]


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
