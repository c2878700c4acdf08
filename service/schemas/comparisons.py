"""Why forecasts differ, and how models do."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from kanmodel.results import Comparisons, ModelComparison
from kanmodel.terms import CONFIDENCE, Comparison, EdgeChange
from service.models.registry import Served
from service.schemas.alternatives import Output, Shared
from service.schemas.closed import Closed, OutputQuery
from service.schemas.models import Checkpoint, Interval, Name, Version
from service.schemas.predictions import ONE_FORM, Columns, Instances

Contributions = Annotated[dict[str, float], Field(description="Of each feature, in the target's unit.")]
Share = Annotated[float, Field(description="Of all features' mean |contribution|.")]


class Against(Closed):
    """The other side: other windows, another version, another model, or several of these."""

    instances: Annotated[
        list[list[list[float]]] | None,
        Field(description="As many windows; those of the request where absent."),
    ] = None
    version: Annotated[
        str | None,
        Field(description="Version of the other model; absent, that of the request, or of another model its highest."),
    ] = None
    model: Annotated[
        str | None,
        Field(description="Name of another model with the same features and lookback; absent, the same."),
    ] = None


class CompareRequest(Closed):
    """Windows, and what their forecasts are compared with."""

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
    """The model on the other side."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint


class DataPart(TypedDict):
    """What the forecasts differ by since the windows do."""

    total: Annotated[float, Field(description="The data part, in the target's unit.")]
    contributions: Contributions


class ModelPart(TypedDict):
    """What the forecasts differ by since the models do."""

    total: Annotated[float, Field(description="The model part, in the target's unit.")]
    contributions: Contributions
    baseline_shift: Annotated[
        float, Field(description="What the models differ by at the baseline that they share: the rest of the total.")
    ]


class ComparisonInfo(TypedDict):
    """The difference of two forecasts, divided: data + model = difference."""

    prediction: Annotated[float, Field(description="The forecast.")]
    against_prediction: Annotated[float, Field(description="The one it is compared with.")]
    difference: Annotated[float, Field(description="The first less the second.")]
    data: DataPart
    model: ModelPart
    residual: Annotated[float, Field(description="How far the contributions may be from the totals.")]
    error: Annotated[float, Field(description="Largest estimated error of a contribution.")]
    tolerance: Annotated[float, Field(description="What each ledger's are compared with, in the target's unit.")]
    converged: Annotated[bool, Field(description="Whether every ledger has converged.")]


class CompareResponse(Shared):
    """Why the forecasts differ."""

    against: ComparedModel
    comparisons: Annotated[list[ComparisonInfo], Field(description="One for each instance.")]


class ComparisonQuery(OutputQuery):
    """Which output is meant, and which model it is compared with."""

    against_version: Annotated[
        str | None,
        Field(description="Version of the other model; absent, that of the request, or of another model its highest."),
    ] = None
    against_model: Annotated[
        str | None, Field(description="Name of another model with the same features and lookback; absent, the same.")
    ] = None
    fidelity: Annotated[
        float, Field(description="R2 that the topologies keep, whose edges come and go.", ge=0, le=1)
    ] = 0.99


class FeatureChangeInfo(TypedDict):
    """How much more, or less, the model uses a feature than the other."""

    name: Annotated[str, Field(description="Name of the feature.")]
    share: Share
    against_share: Annotated[float, Field(description="The same of the other model.")]
    change: Annotated[float, Field(description="The first less the second.")]
    interval: Annotated[Interval, Field(description="Of the change; windows are resampled for both together.")]


class EdgeChangeInfo(TypedDict):
    """One edge, by its place in both networks; what one of them lacks is null."""

    stage: Annotated[str, Field(description="`front` or `head`.")]
    layer: Annotated[int, Field(description="Layer of the node that the edge leaves.")]
    i: Annotated[int, Field(description="Number of that node.")]
    j: Annotated[int, Field(description="Number of the sub-node, in the next layer, that it enters.")]
    source: Annotated[str, Field(description="Id of the node that it leaves.")]
    target: Annotated[str, Field(description="Id of the node that it enters.")]
    kept: Annotated[bool | None, Field(description="Whether the topology of this model keeps it.")]
    against_kept: Annotated[bool | None, Field(description="The same of the other.")]
    contribution: Annotated[float | None, Field(description="Mean |contribution|, in the target's unit.")]
    against_contribution: Annotated[float | None, Field(description="The same of the other model.")]
    change: Annotated[float | None, Field(description="The first less the second.")]
    interval: Annotated[Interval | None, Field(description="Of the change.")]
    curve_difference: Annotated[
        float | None,
        Field(
            description="Largest difference of the two curves over the joint support, model units; null where the "
            "supports do not meet, and after a layer norm."
        ),
    ]


class ComparisonResponse(TypedDict):
    """What has changed from another model to this one, on the reference windows of this one."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint
    output: Annotated[str, Field(description="Name of the output.")]
    unit: Annotated[str | None, Field(description="Unit of its forecasts; null where unknown.")]
    against: ComparedModel
    fidelity: Annotated[float, Field(description="R2 that the topologies keep.")]
    reference_windows: Annotated[int, Field(description="How many there are.")]
    confidence: Annotated[float, Field(description="Of the intervals.")]
    difference: Annotated[
        float, Field(description="Root mean square difference of the forecasts, in the target's unit.")
    ]
    mae: Annotated[float | None, Field(description="Mean absolute error; null where targets are unknown.")]
    against_mae: Annotated[float | None, Field(description="The same of the other model.")]
    features: Annotated[list[FeatureChangeInfo], Field(description="The largest change first.")]
    edges: Annotated[list[EdgeChangeInfo], Field(description="Those of either network, by stage, layer, i and j.")]


def describe_against(other: Served) -> ComparedModel:
    """The model on the other side."""
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
    """What has changed."""
    return {
        "model_name": served.name,
        "version": served.version,
        "checkpoint": served.checkpoint,
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
