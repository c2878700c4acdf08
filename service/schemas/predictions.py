"""Forecasts for windows."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypedDict

from kanmodel.model import Model
from kanmodel.scaling import Array
from service.models.registry import Served
from service.schemas.closed import Closed
from service.schemas.models import Checkpoint, Name, Version

MAX_WARNINGS = 100
ROUNDING = 1e-6  # of a feature's standard deviation: a value that has been a float32 is that far from its decimal

Instances = Annotated[
    list[list[list[float]]] | SkipJsonSchema[None],
    Field(
        description="Windows as arrays, n x lookback x n_features, original units, oldest step first, features in "
        "the order of the model's `features`. Give either this or `columns`.",
    ),
]
Columns = Annotated[
    dict[str, list[list[float]]] | SkipJsonSchema[None],
    Field(
        description="Windows as named columns: for each feature of the model n x lookback values, original "
        "units, oldest step first. Give either this or `instances`.",
    ),
]
Predictions = Annotated[
    list[list[float]],
    Field(description="n x n_outputs, in the order of the model's `outputs`, original units."),
]
# Null, which is taken for absent, is left out: a generated client has then one type for each form.
# Below allOf, as openapi-python-client else makes a class for each form.
ONE_FORM: JsonDict = {"allOf": [{"oneOf": [{"required": ["instances"]}, {"required": ["columns"]}]}]}


class PredictRequest(Closed):
    """Windows to forecast, in one of two forms."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None


class RangeWarning(TypedDict):
    """A value beyond what the model was trained on; of several steps, the one furthest out."""

    code: Annotated[
        Literal["outside_training_range"], Field(description="What it is about, for programs; it stays as it is.")
    ]
    instance: Annotated[int, Field(description="Number of the instance, from 0.")]
    feature: Annotated[str, Field(description="Name of the feature.")]
    step: Annotated[int, Field(description="The step: 0 is the newest, -1 the one before it.")]
    value: Annotated[float, Field(description="The value, in the feature's unit.")]
    min: Annotated[float | None, Field(description="Smallest training value; null where unknown.")]
    max: Annotated[float | None, Field(description="Largest training value; null where unknown.")]
    message: Annotated[str, Field(description="The same in a sentence.")]


Warnings = Annotated[
    list[RangeWarning], Field(description=f"Values outside the training range, at most {MAX_WARNINGS}.")
]
WarningsOmitted = Annotated[int, Field(description="How many more there are; absent where none.")]


class PredictResponse(TypedDict):
    """The forecasts of a request."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint
    outputs: Annotated[list[str], Field(description="Names of the outputs, `{target}+{step}`.")]
    predictions: Predictions
    logits: NotRequired[
        Annotated[
            list[list[float]],
            Field(description="Of a classifier: what the probabilities are made of, n x n_outputs; absent otherwise."),
        ]
    ]
    warnings: Warnings
    warnings_omitted: NotRequired[WarningsOmitted]


def describe_predictions(
    served: Served, predictions: Array, logits: Array | None, warnings: list[RangeWarning]
) -> PredictResponse:
    """The answer to a request.

    Args:
        served: the model.
        predictions: (n, n_outputs), original units.
        logits: (n, n_outputs); None but for a classifier.
        warnings: of all its windows.
    """
    answer: PredictResponse = {
        "model_name": served.name,
        "version": served.version,
        "checkpoint": served.checkpoint,
        "outputs": list(served.outputs),
        "predictions": predictions.tolist(),
        "warnings": warnings[:MAX_WARNINGS],
    }
    if logits is not None:
        answer["logits"] = logits.tolist()
    if len(warnings) > MAX_WARNINGS:
        answer["warnings_omitted"] = len(warnings) - MAX_WARNINGS
    return answer


def warn_of_range(model: Model, windows: Array) -> list[RangeWarning]:
    """The most extreme value of each instance and feature that lies outside the feature's training range.

    Args:
        model: the model.
        windows: (n, lookback, n_features), original units.
    """
    low, high = model.feature_range
    if (windows >= low).all() and (windows <= high).all():
        return []
    beyond = np.maximum(low - windows, windows - high)  # (n, lookback, n_features), positive outside
    beyond -= ROUNDING * model.scaling.feature_scale
    steps = beyond.argmax(axis=1)
    return [
        _describe_value(model, windows, instance, int(steps[instance, feature]), feature)
        for instance, feature in np.argwhere(beyond.max(axis=1) > 0).tolist()
    ]


def _describe_value(model: Model, windows: Array, instance: int, step: int, feature: int) -> RangeWarning:
    known, value = model.config.features[feature], float(windows[instance, step, feature])
    low, high = (bounds[feature] for bounds in model.feature_range)
    return {
        "code": "outside_training_range",
        "instance": instance,
        "feature": known.name,
        "step": step - windows.shape[1] + 1,
        "value": value,
        "min": known.min,
        "max": known.max,
        "message": f"{value:.6g} is outside the training range [{low:.6g}, {high:.6g}]",
    }
