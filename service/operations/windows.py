"""TODO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.config import JsonDict
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypedDict

from kanmodel.data import Array
from kanmodel.model import Model
from service.operations.members import about

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


# Null, which means absent, is not documented, so that generated clients have one type per form.
# Below allOf, since openapi-python-client otherwise generates a class for each form.
ONE_FORM: JsonDict = {"allOf": [{"oneOf": [{"required": ["instances"]}, {"required": ["columns"]}]}]}


class RangeWarning(TypedDict):
    """A value outside the training range; of several steps, the most extreme one."""

    code: Annotated[Literal["outside_training_range"], about("Stable code, for programs.")]
    instance: Annotated[int, about("Index of the instance.")]
    feature: Annotated[str, about("Name of the feature.")]
    step: Annotated[int, about("The step: 0 is the newest, -1 the one before it.")]
    value: Annotated[float, about("The value, in the feature's unit.")]
    min: Annotated[float | None, about("Smallest training value; null if unknown.")]
    max: Annotated[float | None, about("Largest training value; null if unknown.")]
    message: Annotated[str, about("The warning as a sentence.")]


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


WarningsOmitted = Annotated[int, about("Number of further warnings; absent if there are none.")]


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
