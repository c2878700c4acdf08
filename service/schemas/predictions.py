"""Forecasts for windows."""

from __future__ import annotations

from typing import Annotated, NotRequired

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from kanmodel.checkpoint import LoadedModel
from kanmodel.scaling import Array
from service.models.registry import Served
from service.schemas.closed import Closed
from service.schemas.models import Checkpoint, Name

MAX_WARNINGS = 100
ROUNDING = 1e-6  # of a feature's standard deviation: a value that has been a float32 is that far from its decimal

Instances = Annotated[
    list[list[list[float]]] | None,
    Field(
        description="Windows as arrays, n x lookback x n_features, original units, oldest step first, features in "
        "the order of the model's `features`. Give either this or `columns`.",
    ),
]
Columns = Annotated[
    dict[str, list[list[float]]] | None,
    Field(
        description="Windows as named columns: for each feature of the model n x lookback values, original "
        "units, oldest step first. Give either this or `instances`.",
    ),
]
ModelName = Annotated[str, Field(description="Name of the model.")]
Predictions = Annotated[
    list[list[float]],
    Field(description="n x n_outputs, in the order of the model's `outputs`, original units."),
]


class PredictRequest(Closed):
    """Windows to forecast, in one of two forms."""

    instances: Instances = None
    columns: Columns = None


class RangeWarning(TypedDict):
    """A value beyond what the model was trained on; of several steps, the one furthest out."""

    instance: Annotated[int, Field(description="Number of the instance, from 0.")]
    feature: Annotated[str, Field(description="Name of the feature.")]
    message: Annotated[str, Field(description="The value and the training range, in the feature's unit.")]


class PredictResponse(TypedDict):
    """The forecasts of a request."""

    model_name: Name
    checkpoint: Checkpoint
    outputs: Annotated[list[str], Field(description="Names of the outputs, `{target}+{step}`.")]
    predictions: Predictions
    logits: NotRequired[
        Annotated[
            list[list[float]],
            Field(description="Of a classifier: what the probabilities are made of, n x n_outputs; absent otherwise."),
        ]
    ]
    warnings: Annotated[
        list[RangeWarning],
        Field(description=f"Values outside the training range, at most {MAX_WARNINGS}."),
    ]
    warnings_omitted: NotRequired[Annotated[int, Field(description="How many more there are; absent where none.")]]


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
        "checkpoint": served.checkpoint,
        "outputs": list(served.model.config.outputs),
        "predictions": predictions.tolist(),
        "warnings": warnings[:MAX_WARNINGS],
    }
    if logits is not None:
        answer["logits"] = logits.tolist()
    if len(warnings) > MAX_WARNINGS:
        answer["warnings_omitted"] = len(warnings) - MAX_WARNINGS
    return answer


def warn_of_range(model: LoadedModel, windows: Array) -> list[RangeWarning]:
    """The most extreme value of each instance and feature that lies outside the feature's training range.

    Args:
        model: the model.
        windows: (n, lookback, n_features), original units.
    """
    low, high = model.feature_low, model.feature_high
    if (windows >= low).all() and (windows <= high).all():
        return []
    features = model.config.features
    beyond = np.maximum(low - windows, windows - high)  # (n, lookback, n_features), positive outside
    beyond -= ROUNDING * model.scaling.feature_scale
    steps = beyond.argmax(axis=1)
    return [
        {
            "instance": instance,
            "feature": features[number].name,
            "message": f"{windows[instance, steps[instance, number], number]:.6g} is outside the training "
            f"range [{low[number]:.6g}, {high[number]:.6g}]",
        }
        for instance, number in np.argwhere(beyond.max(axis=1) > 0).tolist()
    ]
