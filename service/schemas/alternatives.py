"""Schemas of `:whatif`, `:counterfactual` and `:ablate`, and the members that these share with `:compare`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, StrictFloat, StrictInt
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.explain.ablation import Ablation
from kanmodel.explain.counterfactual import Counterfactual as Found
from kanmodel.explain.counterfactual import Counterfactuals, Neighbour
from kanmodel.explain.shifts import Search
from kanmodel.explain.what_if import DEFAULT_POINTS, WhatIf
from service.models.registry import Served
from service.schemas.closed import Closed
from service.schemas.models import Checkpoint, Name, Version
from service.schemas.predictions import (
    ONE_FORM,
    Columns,
    Instances,
    RangeWarnings,
    Warnings,
    WarningsOmitted,
)
from service.schemas.rules import Rule, RuleMembers, describe_rule
from service.schemas.topology import Count, FidelityInfo, describe_fidelity

WhatIfKind = TypeAliasType("WhatIfKind", Literal["shift", "value"])
Output = Annotated[str | None, Field(description="Name of an output; optional if the model has one.")]
Features = Annotated[
    list[str] | None,
    Field(description="Names of the features that may change; absent: all.", min_length=1, fail_fast=True),
]
Steps = Annotated[
    list[StrictInt] | None,
    Field(
        description="First and last step that change, 0 the newest: `[-5, 0]` for six steps; absent: all.",
        min_length=2,
        max_length=2,
    ),
]
UnitOf = Annotated[str | None, Field(description="Its unit; null if unknown.")]


class Shift(Closed):
    """Evenly spaced constants that are added to a feature, in its own unit."""

    from_: Annotated[float, Field(alias="from", description="The first.", strict=True)]
    to: Annotated[float, Field(description="The last.", strict=True)]
    points: Annotated[int, Field(description="Number of constants, at most `max_points`.", ge=2, strict=True)] = (
        DEFAULT_POINTS
    )


class WhatIfRequest(Closed):
    """Windows, and the changes to try."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None
    output: Output = None
    features: Features = None
    steps: Steps = None
    shift: Annotated[
        Shift | None,
        Field(
            description="Constants to add. Absent: each feature is set to constant values from its training minimum to "
            f"its maximum, {DEFAULT_POINTS} of them."
        ),
    ] = None


class Target(Closed):
    """The desired range of the forecast, in the target's unit: one of the three members."""

    # Below allOf, since openapi-python-client otherwise generates a class for each form.
    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [{"oneOf": [{"required": ["at_least"]}, {"required": ["at_most"]}, {"required": ["between"]}]}]
        }
    )

    at_least: Annotated[StrictFloat | None, Field(description="Lower bound.")] = None
    at_most: Annotated[StrictFloat | None, Field(description="Upper bound.")] = None
    between: Annotated[
        list[StrictFloat] | None,
        Field(description="Lower and upper bound.", min_length=2, max_length=2),
    ] = None


class CounterfactualRequest(Closed):
    """Windows, a target for their forecasts, and what may change."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None
    output: Output = None
    target: Target
    features: Features = None
    steps: Steps = None
    max_features: Annotated[int, Field(description="Most features that change together.", ge=1, strict=True)] = (
        Search.max_features
    )
    within_training_range: Annotated[
        bool,
        Field(
            description="Whether changed values must stay in the feature's training range. A feature shifts by at most "
            "10 standard deviations in any case.",
            strict=True,
        ),
    ] = True


class AblateRequest(RuleMembers):
    """Windows, and the rule by which the network is pruned; the forecast of the rest is asked for."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM, strict=True)

    instances: Instances = None
    columns: Columns = None
    output: Output = None


class Shared(TypedDict):
    """Members that all answers of this kind share."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint
    output: Annotated[str, Field(description="Name of the output.")]
    unit: Annotated[str | None, Field(description="Unit of its forecasts; null if unknown.")]
    warnings: Warnings
    warnings_omitted: NotRequired[WarningsOmitted]


class ResponseCurve(TypedDict):
    """Forecasts of one instance with one feature changed."""

    feature: Annotated[str, Field(description="Name of the feature.")]
    unit: UnitOf
    kind: Annotated[
        WhatIfKind, Field(description="`shift`: the values are added to the feature; `value`: they replace it.")
    ]
    values: Annotated[list[float], Field(description="Shifts or values, in the feature's unit.")]
    predictions: Annotated[list[float], Field(description="The forecast for each, as `:predict` returns it.")]
    outside_training_range: Annotated[
        list[bool], Field(description="For each, whether a changed value is outside the feature's training range.")
    ]


class WhatIfResponse(Shared):
    """Forecasts of changed windows."""

    curves: Annotated[
        list[list[ResponseCurve]], Field(description="By instance, then by feature in the order of the request.")
    ]


class ChangeInfo(TypedDict):
    """A constant added to one feature."""

    feature: Annotated[str, Field(description="Name of the feature.")]
    unit: UnitOf
    steps: Annotated[list[int], Field(description="First and last step that change; 0 is the newest.")]
    shift: Annotated[float, Field(description="The constant added at each of these steps, in the feature's unit.")]
    shift_in_std: Annotated[float, Field(description="The same in training standard deviations.")]


class SingleFeatureInfo(TypedDict):
    """The effect of changing one feature alone, by sampling its range, and by bounds if there is no recurrent part."""

    feature: Annotated[str, Field(description="Name of the feature.")]
    unit: UnitOf
    shift: Annotated[float | None, Field(description="The smallest shift found that reaches the target; null if none.")]
    shift_in_std: Annotated[float | None, Field(description="The same in training standard deviations.")]
    proven: Annotated[
        bool,
        Field(
            description="True if bounds of the forecasts prove that no shift with a `shift_in_std` nearer to 0 by more "
            "than 0.001 reaches the target, or none over its range if `shift` is null. False if only samples stand "
            "behind it: the model has a recurrent part, or 4,096 intervals of the range were not enough."
        ),
    ]
    best_prediction: Annotated[float, Field(description="The sampled forecast nearest to the target.")]
    searched: Annotated[
        int, Field(description="Samples over its range. Unless `proven`, the target may be reached unseen between two.")
    ]


class NearestReference(TypedDict):
    """The reference window nearest to the changed window.

    Distances are root mean square differences over all cells, in training standard deviations.
    """

    index: Annotated[int, Field(description="Index of the reference window.")]
    distance: Annotated[float, Field(description="Its distance from the changed window.")]
    typical: Annotated[
        float | None,
        Field(
            description="Median distance between a reference window and its nearest other; null if there is only one."
        ),
    ]


class CounterfactualInfo(TypedDict):
    """The smallest change found; if the target is not reached, the change that comes nearest to it."""

    prediction: Annotated[float, Field(description="The forecast of the instance as given.")]
    reached: Annotated[bool, Field(description="Whether the target is reached.")]
    changes: Annotated[
        list[ChangeInfo],
        Field(description="Largest first; empty if the forecast already reaches the target."),
    ]
    new_prediction: Annotated[float, Field(description="The forecast of `instance`, as `:predict` returns it.")]
    distance: Annotated[float, Field(description="Sum of the magnitudes of `shift_in_std`.")]
    nearest_reference: NearestReference
    instance: Annotated[list[list[float]], Field(description="The changed window, lookback x n_features.")]
    single_features: Annotated[
        list[SingleFeatureInfo], Field(description="One entry per feature that may change, in the order of the model.")
    ]


class CounterfactualResponse(Shared):
    """The smallest changes that reach the target."""

    counterfactuals: Annotated[list[CounterfactualInfo], Field(description="One per instance.")]


class AblationInfo(TypedDict):
    """The forecast of one instance with and without the removed edges."""

    prediction: Annotated[float, Field(description="Of the full network, as `:predict` returns it.")]
    ablated_prediction: Annotated[
        float, Field(description="Of the pruned network; equal to `prediction` if nothing is removed.")
    ]


class AblateResponse(Shared):
    """Forecasts of the pruned network beside those of the full one."""

    rule: Rule
    fidelity: FidelityInfo
    edges: Annotated[Count, Field(description="Edges that hold functions.")]
    ablations: Annotated[list[AblationInfo], Field(description="One per instance.")]


def describe_shared(served: Served, output: int, warnings: RangeWarnings) -> Shared:
    """The shared members of an answer."""
    config = served.model.config
    shared: Shared = {
        "model_name": served.name,
        "version": served.version,
        "checkpoint": served.checkpoint,
        "output": config.outputs[output],
        "unit": config.target_of(output).unit,
        "warnings": warnings.listed,
    }
    if warnings.n_omitted:
        shared["warnings_omitted"] = warnings.n_omitted
    return shared


def describe_curves(found: WhatIf, output: int) -> list[list[ResponseCurve]]:
    """The curves of one output."""
    return [
        [
            {
                "feature": curve.feature,
                "unit": curve.unit,
                "kind": curve.kind,
                "values": curve.values.tolist(),
                "predictions": curve.predictions[:, output].tolist(),
                "outside_training_range": curve.outside_training_range.tolist(),
            }
            for curve in curves
        ]
        for curves in found
    ]


def describe_counterfactuals(found: Counterfactuals) -> list[CounterfactualInfo]:
    """The counterfactual of each window."""
    return [_describe_counterfactual(one, list(found.steps)) for one in found]


def describe_ablation(found: Ablation) -> dict[str, Any]:
    """The members of the answer to `:ablate` besides the shared ones."""
    pairs = zip(found.predictions.tolist(), found.ablated_predictions.tolist(), strict=True)
    return {
        "rule": describe_rule(found.rule),
        "fidelity": describe_fidelity(found.fidelity),
        "edges": Count(kept=found.n_kept, total=found.n_edges),
        "ablations": [AblationInfo(prediction=full, ablated_prediction=ablated) for full, ablated in pairs],
    }


def _describe_counterfactual(found: Found, steps: list[int]) -> CounterfactualInfo:
    return {
        "prediction": found.prediction,
        "reached": found.reached,
        "changes": [
            {
                "feature": change.feature,
                "unit": change.unit,
                "steps": steps,
                "shift": change.shift,
                "shift_in_std": change.shift_in_std,
            }
            for change in found.changes
        ],
        "new_prediction": found.new_prediction,
        "distance": found.distance,
        "nearest_reference": _describe_neighbour(found.nearest_reference),
        "instance": found.window.tolist(),
        "single_features": [
            {
                "feature": single.feature,
                "unit": single.unit,
                "shift": single.shift,
                "shift_in_std": single.shift_in_std,
                "proven": single.proven,
                "best_prediction": single.best_prediction,
                "searched": single.searched,
            }
            for single in found.single_features
        ],
    }


def _describe_neighbour(nearest: Neighbour) -> NearestReference:
    return {"index": nearest.index, "distance": nearest.distance, "typical": nearest.typical}
