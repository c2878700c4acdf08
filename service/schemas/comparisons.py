"""Schemas of `:compare` and `comparison`: differences of forecasts, and of models."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from kanmodel.explain.bootstrap import CONFIDENCE
from kanmodel.explain.comparison import Comparison, Comparisons
from kanmodel.explain.model_comparison import EdgeChange, ModelComparison
from service.models.registry import Served
from service.schemas.alternatives import Output, Shared
from service.schemas.closed import Closed, OutputQuery
from service.schemas.models import Checkpoint, Interval, Name, Version
from service.schemas.predictions import ONE_FORM, Columns, Instances
from service.schemas.reference import OnReference, describe_span

Contributions = Annotated[dict[str, float], Field(description="Contribution of each feature, in the target's unit.")]
Share = Annotated[float, Field(description="Share of all features' mean |contribution|.")]


class Against(Closed):
    """The other side of a comparison: other windows, another version or another model, or several of these."""

    instances: Annotated[
        list[list[list[float]]] | None,
        Field(description="As many windows as in the request; absent: the same windows."),
    ] = None
    version: Annotated[
        str | None,
        Field(description="Version of the other model; absent: that of the request, or the highest of another model."),
    ] = None
    model: Annotated[
        str | None,
        Field(description="Name of another model with the same features and lookback; absent: the same model."),
    ] = None


class CompareRequest(Closed):
    """Windows, and the other side of the comparison."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None
    output: Output = None
    against: Annotated[Against, Field(description="The other side.")]
    tolerance: Annotated[
        float,
        Field(
            description="Largest accepted residual and error of each ledger, in standard deviations of the output on "
            "the reference windows.",
            gt=0,
            strict=True,
        ),
    ] = 1e-3


class ComparedModel(TypedDict):
    """The model on the other side of a comparison."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint


class DataPart(TypedDict):
    """The part of the difference that is due to the windows."""

    total: Annotated[float, Field(description="The data part, in the target's unit.")]
    contributions: Contributions


class ModelPart(TypedDict):
    """The part of the difference that is due to the models."""

    total: Annotated[float, Field(description="The model part, in the target's unit.")]
    contributions: Contributions
    baseline_shift: Annotated[
        float, Field(description="Difference of the models at their common baseline: the rest of the total.")
    ]


class ComparisonInfo(TypedDict):
    """The difference of two forecasts: data + model = difference."""

    prediction: Annotated[float, Field(description="The forecast.")]
    against_prediction: Annotated[float, Field(description="The forecast that it is compared with.")]
    difference: Annotated[float, Field(description="The first minus the second.")]
    data: DataPart
    model: ModelPart
    residual: Annotated[float, Field(description="Largest gap between the contributions and the totals.")]
    error: Annotated[float, Field(description="Largest estimated error of a contribution.")]
    tolerance: Annotated[
        float, Field(description="Tolerance of residual and error of each ledger, in the target's unit.")
    ]
    converged: Annotated[bool, Field(description="Whether every ledger has converged.")]


class CompareResponse(Shared):
    """Why the forecasts differ."""

    against: ComparedModel
    comparisons: Annotated[list[ComparisonInfo], Field(description="One per instance.")]


class ComparisonQuery(OutputQuery):
    """Selects an output, and the model to compare with."""

    against_version: Annotated[
        str | None,
        Field(description="Version of the other model; absent: that of the request, or the highest of another model."),
    ] = None
    against_model: Annotated[
        str | None,
        Field(description="Name of another model with the same features and lookback; absent: the same model."),
    ] = None
    fidelity: Annotated[float, Field(description="R2 of the topologies that are compared.", ge=0, le=1)] = 0.99


class FeatureChangeInfo(TypedDict):
    """Change of the importance of a feature."""

    name: Annotated[str, Field(description="Name of the feature.")]
    share: Share
    against_share: Annotated[float, Field(description="The same for the other model.")]
    change: Annotated[float, Field(description="The first minus the second.")]
    interval: Annotated[Interval, Field(description="Interval of the change, by resampling windows jointly.")]


class EdgeChangeInfo(TypedDict):
    """One edge, matched by its place in both networks; members of a missing edge are null."""

    stage: Annotated[str, Field(description="`front` or `head`.")]
    layer: Annotated[int, Field(description="Layer of the source node.")]
    i: Annotated[int, Field(description="Index of the source node.")]
    j: Annotated[int, Field(description="Index of the target sub-node, in the next layer.")]
    source: Annotated[str, Field(description="Id of the source node.")]
    target: Annotated[str, Field(description="Id of the target node.")]
    kept: Annotated[bool | None, Field(description="Whether the topology of this model keeps it.")]
    against_kept: Annotated[bool | None, Field(description="The same for the other.")]
    contribution: Annotated[float | None, Field(description="Mean |contribution|, in the target's unit.")]
    against_contribution: Annotated[float | None, Field(description="The same for the other model.")]
    change: Annotated[float | None, Field(description="The first minus the second.")]
    interval: Annotated[Interval | None, Field(description="Interval of the change.")]
    curve_difference: Annotated[
        float | None,
        Field(
            description="Largest difference of the two curves over the joint support, model units; null if the "
            "supports do not overlap, and after a layer norm."
        ),
    ]


class ComparisonResponse(OnReference):
    """Comparison of this model with another one, on the reference windows of this one."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint
    output: Annotated[str, Field(description="Name of the output.")]
    unit: Annotated[str | None, Field(description="Unit of its forecasts; null if unknown.")]
    against: ComparedModel
    fidelity: Annotated[float, Field(description="R2 of the topologies.")]
    reference_windows: Annotated[int, Field(description="Number of reference windows.")]
    confidence: Annotated[float, Field(description="Confidence of the intervals.")]
    difference: Annotated[
        float, Field(description="Root mean square difference of the forecasts, in the target's unit.")
    ]
    mae: Annotated[float | None, Field(description="Mean absolute error; null if targets are unknown.")]
    against_mae: Annotated[float | None, Field(description="The same for the other model.")]
    features: Annotated[list[FeatureChangeInfo], Field(description="Largest change first.")]
    edges: Annotated[list[EdgeChangeInfo], Field(description="Edges of either network, by stage, layer, i and j.")]


def describe_against(other: Served) -> ComparedModel:
    """The model on the other side of a comparison."""
    return {"model_name": other.name, "version": other.version, "checkpoint": other.checkpoint}


def describe_comparisons(found: Comparisons) -> list[ComparisonInfo]:
    """The comparison of each window."""
    return [_describe(one, found.features) for one in found]


def _describe(one: Comparison, names: tuple[str, ...]) -> ComparisonInfo:
    return {
        "prediction": one.prediction,
        "against_prediction": one.against_prediction,
        "difference": one.difference,
        "data": {
            "total": one.data_total,
            "contributions": dict(zip(names, one.data.tolist(), strict=True)),
        },
        "model": {
            "total": one.model_total,
            "contributions": dict(zip(names, one.model.tolist(), strict=True)),
            "baseline_shift": one.baseline_shift,
        },
        "residual": one.residual,
        "error": one.error,
        "tolerance": one.tolerance,
        "converged": one.converged,
    }


def describe_model_comparison(served: Served, other: Served, found: ModelComparison) -> ComparisonResponse:
    """Describes a comparison of models."""
    return {
        "model_name": served.name,
        "version": served.version,
        "checkpoint": served.checkpoint,
        **describe_span(served),
        "output": found.output,
        "unit": found.unit,
        "against": describe_against(other),
        "fidelity": found.fidelity,
        "reference_windows": found.windows,
        "confidence": CONFIDENCE,
        "difference": found.difference,
        "mae": found.mae,
        "against_mae": found.against_mae,
        "features": [
            {
                "name": feature.name,
                "share": feature.share,
                "against_share": feature.against_share,
                "change": feature.change,
                "interval": list(feature.interval),
            }
            for feature in found.features
        ],
        "edges": [_describe_edge(edge) for edge in found.edges],
    }


def _describe_edge(edge: EdgeChange) -> EdgeChangeInfo:
    return {
        "stage": edge.stage,
        "layer": edge.layer,
        "i": edge.i,
        "j": edge.j,
        "source": edge.source,
        "target": edge.target,
        "kept": edge.kept,
        "against_kept": edge.against_kept,
        "contribution": edge.contribution,
        "against_contribution": edge.against_contribution,
        "change": edge.change,
        "interval": None if edge.interval is None else list(edge.interval),
        "curve_difference": edge.curve_difference,
    }
