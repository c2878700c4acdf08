"""Forecasts for windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NotRequired

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypedDict

from kanmodel.data import Array
from kanmodel.model import Model
from service.models.registry import Served
from service.schemas.closed import Closed
from service.schemas.models import Checkpoint, Name, Version

MAX_WARNINGS = 100
ROUNDING = 1e-6  # in standard deviations of the feature: the rounding of a value that was a float32

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
# Null, which means absent, is not documented, so that generated clients have one type per form.
# Below allOf, since openapi-python-client otherwise generates a class for each form.
ONE_FORM: JsonDict = {"allOf": [{"oneOf": [{"required": ["instances"]}, {"required": ["columns"]}]}]}


class PredictRequest(Closed):
    """Windows to forecast, in one of two forms."""

    model_config = ConfigDict(json_schema_extra=ONE_FORM)

    instances: Instances = None
    columns: Columns = None


class RangeWarning(TypedDict):
    """A value outside the training range; of several steps, the most extreme one."""

    code: Annotated[Literal["outside_training_range"], Field(description="Stable code, for programs.")]
    instance: Annotated[int, Field(description="Index of the instance.")]
    feature: Annotated[str, Field(description="Name of the feature.")]
    step: Annotated[int, Field(description="The step: 0 is the newest, -1 the one before it.")]
    value: Annotated[float, Field(description="The value, in the feature's unit.")]
    min: Annotated[float | None, Field(description="Smallest training value; null if unknown.")]
    max: Annotated[float | None, Field(description="Largest training value; null if unknown.")]
    message: Annotated[str, Field(description="The warning as a sentence.")]


@dataclass(frozen=True)
class RangeWarnings:
    """The values of a request outside the training range.

    Attributes:
        listed: warnings of the first `MAX_WARNINGS`.
        counts: by feature, the number of instances with such a value.
    """

    listed: list[RangeWarning]
    counts: Mapping[str, int]

    def __len__(self) -> int:
        return sum(self.counts.values())

    @property
    def n_omitted(self) -> int:
        """How many are not listed."""
        return len(self) - len(self.listed)


NO_WARNINGS = RangeWarnings([], {})

Warnings = Annotated[
    list[RangeWarning], Field(description=f"Values outside the training range, at most {MAX_WARNINGS}.")
]
WarningsOmitted = Annotated[int, Field(description="Number of further warnings; absent if there are none.")]


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
            Field(description="Logits of a classifier, n x n_outputs; absent otherwise."),
        ]
    ]
    warnings: Warnings
    warnings_omitted: NotRequired[WarningsOmitted]


def describe_predictions(
    served: Served, predictions: Array, logits: Array | None, warnings: RangeWarnings
) -> PredictResponse:
    """Describes forecasts.

    Args:
        served: the model.
        predictions: (n, n_outputs), original units.
        logits: (n, n_outputs); None unless the model is a classifier.
        warnings: of all its windows.
    """
    answer: PredictResponse = {
        "model_name": served.name,
        "version": served.version,
        "checkpoint": served.checkpoint,
        "outputs": list(served.outputs),
        "predictions": predictions.tolist(),
        "warnings": warnings.listed,
    }
    if logits is not None:
        answer["logits"] = logits.tolist()
    if warnings.n_omitted:
        answer["warnings_omitted"] = warnings.n_omitted
    return answer


def warn_of_range(model: Model, windows: Array) -> RangeWarnings:
    """Warnings of values outside the training range: the most extreme one per instance and feature.

    Args:
        model: the model.
        windows: (n, lookback, n_features), original units.
    """
    low, high = model.feature_range
    if (windows >= low).all() and (windows <= high).all():
        return NO_WARNINGS
    beyond = np.maximum(low - windows, windows - high)  # (n, lookback, n_features), positive outside
    beyond -= ROUNDING * model.scaling.feature_scale
    steps, is_outside = beyond.argmax(axis=1), beyond.max(axis=1) > 0  # (n, n_features)
    listed = [
        _describe_value(model, windows, instance, int(steps[instance, feature]), feature)
        for instance, feature in np.argwhere(is_outside)[:MAX_WARNINGS].tolist()
    ]
    counts = zip(model.config.feature_names, is_outside.sum(axis=0).tolist(), strict=True)
    return RangeWarnings(listed, {name: n for name, n in counts if n})


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
