"""Other windows and other models: what if, what must change, and what has changed."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, StrictFloat, StrictInt
from typing_extensions import TypeAliasType, TypedDict

from kanmodel import terms
from kanmodel.results import Counterfactual as Found
from kanmodel.results import Counterfactuals, WhatIf
from kanmodel.terms import DEFAULT_POINTS, Neighbour
from service.models.registry import Served
from service.schemas.closed import Closed
from service.schemas.models import Checkpoint, Name, Version
from service.schemas.predictions import (
    MAX_WARNINGS,
    ONE_FORM,
    Columns,
    Instances,
    RangeWarning,
    Warnings,
    WarningsOmitted,
)

WhatIfKind = TypeAliasType("WhatIfKind", Literal["shift", "value"])
Output = Annotated[str | None, Field(description="Name of an output; may be left out where the model has one.")]
Features = Annotated[
    list[str] | None, Field(description="Names of the features that change; all where absent.", min_length=1)
]
Steps = Annotated[
    list[StrictInt] | None,
    Field(
        description="The first and the last step that change, 0 the newest: `[-5, 0]` for six; all where absent.",
        min_length=2,
        max_length=2,
    ),
]
UnitOf = Annotated[str | None, Field(description="Its unit; null where unknown.")]


class Shift(Closed):
    """Constants that are added to a feature, in its own unit, evenly spaced."""

    from_: Annotated[float, Field(alias="from", description="The first.", strict=True)]
    to: Annotated[float, Field(description="The last.", strict=True)]
    points: Annotated[int, Field(description="How many, at most `max_points`.", ge=2, strict=True)] = DEFAULT_POINTS


class WhatIfRequest(Closed):
    """Windows, and what should be different in them."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None
    output: Output = None
    features: Features = None
    steps: Steps = None
    shift: Annotated[
        Shift | None,
        Field(
            description="What is added. Absent, each feature takes constant values from its training minimum to its "
            f"maximum, {DEFAULT_POINTS} of them."
        ),
    ] = None


class Target(Closed):
    """Where the forecast shall lie, in the target's unit: one of the three."""

    # Below allOf, as openapi-python-client else makes a class for each form.
    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [{"oneOf": [{"required": ["at_least"]}, {"required": ["at_most"]}, {"required": ["between"]}]}]
        }
    )

    at_least: Annotated[StrictFloat | None, Field(description="It is at least this.")] = None
    at_most: Annotated[StrictFloat | None, Field(description="It is at most this.")] = None
    between: Annotated[
        list[StrictFloat] | None,
        Field(description="It is from the first to the second of these.", min_length=2, max_length=2),
    ] = None


class CounterfactualRequest(Closed):
    """Windows, what their forecasts should be, and what may change for that."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None
    output: Output = None
    target: Target
    features: Features = None
    steps: Steps = None
    max_features: Annotated[int, Field(description="How many features may change together.", ge=1, strict=True)] = (
        terms.Search.max_features
    )
    within_training_range: Annotated[
        bool,
        Field(
            description="Whether changed values keep within the smallest and the largest of training; else a feature "
            "shifts by at most 10 standard deviations.",
            strict=True,
        ),
    ] = True


class Shared(TypedDict):
    """What every answer of this kind says first."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint
    output: Annotated[str, Field(description="Name of the output.")]
    unit: Annotated[str | None, Field(description="Unit of its forecasts; null where unknown.")]
    warnings: Warnings
    warnings_omitted: NotRequired[WarningsOmitted]


class ResponseCurve(TypedDict):
    """Forecasts of one instance in which one feature is different."""

    feature: Annotated[str, Field(description="Name of the feature.")]
    unit: UnitOf
    kind: Annotated[
        WhatIfKind, Field(description="`shift`: the values are added to the feature; `value`: they take its place.")
    ]
    values: Annotated[list[float], Field(description="In the feature's unit.")]
    predictions: Annotated[list[float], Field(description="The forecast for each, as `:predict` gives it.")]
    outside_training_range: Annotated[
        list[bool], Field(description="For each, whether a changed value leaves the feature's training range.")
    ]


class WhatIfResponse(Shared):
    """What the forecasts would be."""

    curves: Annotated[
        list[list[ResponseCurve]], Field(description="By instance, then by feature in the order of the request.")
    ]


class ChangeInfo(TypedDict):
    """What is added to one feature."""

    feature: Annotated[str, Field(description="Name of the feature.")]
    unit: UnitOf
    steps: Annotated[list[int], Field(description="The first and the last step that change; 0 is the newest.")]
    shift: Annotated[float, Field(description="What is added at each of them, in the feature's unit.")]
    shift_in_std: Annotated[float, Field(description="The same in training standard deviations.")]


class SingleFeatureInfo(TypedDict):
    """What one feature can do alone, by the exhaustive search of its range."""

    feature: Annotated[str, Field(description="Name of the feature.")]
    unit: UnitOf
    shift: Annotated[
        float | None, Field(description="The smallest shift that reaches the target; null where none does.")
    ]
    shift_in_std: Annotated[float | None, Field(description="The same in training standard deviations.")]
    best_prediction: Annotated[
        float, Field(description="The forecast that comes nearest to the target, over its whole range.")
    ]


class NearestReference(TypedDict):
    """The reference window that is nearest to the changed window.

    Distances are root mean square differences of all cells, in training standard deviations.
    """

    index: Annotated[int, Field(description="Number of the reference window, from 0.")]
    distance: Annotated[float, Field(description="How far it is from the changed window.")]
    typical: Annotated[
        float | None,
        Field(
            description="Median distance of the reference windows from the nearest other; null where there is only one."
        ),
    ]


class CounterfactualInfo(TypedDict):
    """The smallest change found; where the target is not reached, the one that misses it by least."""

    prediction: Annotated[float, Field(description="The forecast as it is.")]
    reached: Annotated[bool, Field(description="Whether the target is reached.")]
    changes: Annotated[
        list[ChangeInfo],
        Field(description="Largest first; none where the forecast reaches the target as it is."),
    ]
    new_prediction: Annotated[float, Field(description="The forecast of `instance`, as `:predict` gives it.")]
    distance: Annotated[float, Field(description="Sum of the magnitudes of `shift_in_std`.")]
    nearest_reference: NearestReference
    instance: Annotated[list[list[float]], Field(description="The changed window, lookback x n_features.")]
    single_features: Annotated[
        list[SingleFeatureInfo], Field(description="Of each feature that may change, in the order of the model.")
    ]


class CounterfactualResponse(Shared):
    """What must change."""

    counterfactuals: Annotated[list[CounterfactualInfo], Field(description="One for each instance.")]


def describe_shared(served: Served, output: int, warnings: list[RangeWarning]) -> Shared:
    """What every answer says first."""
    config = served.model.config
    shared: Shared = {
        "model_name": served.name,
        "version": served.version,
        "checkpoint": served.checkpoint,
        "output": config.outputs[output],
        "unit": config.target_of(output).unit,
        "warnings": warnings[:MAX_WARNINGS],
    }
    if len(warnings) > MAX_WARNINGS:
        shared["warnings_omitted"] = len(warnings) - MAX_WARNINGS
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
                "best_prediction": single.best_prediction,
            }
            for single in found.single_features
        ],
    }


def _describe_neighbour(nearest: Neighbour) -> NearestReference:
    return {"index": nearest.index, "distance": nearest.distance, "typical": nearest.typical}
