"""The windows of a request, and warnings of their values outside the training range."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NotRequired

import numpy as np
from pydantic import ConfigDict
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypedDict

from kanmodel.data import Array
from kanmodel.model import Model
from service.models.registry import Served
from service.operations.members import Closed, about
from service.wire.windows import refuse_infinite_windows

MAX_WARNINGS = 100
ROUNDING = 1e-6  # in standard deviations of the feature: the rounding of a value that was a float32


class Windows(Closed):
    """Windows, in one of two forms."""

    # Below allOf, since openapi-python-client otherwise generates a class for each form. Null, as which an absent form
    # is read, is refused in a request.
    model_config = ConfigDict(
        json_schema_extra={"allOf": [{"oneOf": [{"required": ["instances"]}, {"required": ["columns"]}]}]}
    )

    instances: list[list[list[float]]] | SkipJsonSchema[None] = None
    """Windows as arrays, n x lookback x n_features, original units, oldest step first, features in the order of the
    model's `features`. Give either this or `columns`."""
    columns: dict[str, list[list[float]]] | SkipJsonSchema[None] = None
    """Windows as named columns: for each feature of the model n x lookback values, original units, oldest step first.
    Give either this or `instances`."""


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


class Warned(TypedDict):
    """What an answer about windows says of their values."""

    warnings: Annotated[list[RangeWarning], about(f"Values outside the training range, at most {MAX_WARNINGS}.")]
    warnings_omitted: NotRequired[Annotated[int, about("Number of further warnings; absent if there are none.")]]


@dataclass(frozen=True)
class RangeWarnings:
    """The values of a request outside the training range."""

    listed: list[RangeWarning]  # the first `MAX_WARNINGS`
    counts: Mapping[str, int]  # by feature, the number of instances with such a value

    def __len__(self) -> int:
        return sum(self.counts.values())

    def describe(self) -> Warned:
        """The members of an answer."""
        omitted = len(self) - len(self.listed)
        return {"warnings": self.listed, "warnings_omitted": omitted} if omitted else {"warnings": self.listed}


NO_WARNINGS = RangeWarnings([], {})


def check_values(windows: Array, paths: str | Sequence[str], served: Served) -> RangeWarnings:
    """Warns of values outside the training range; raises `DataError` that names each value not finite after scaling.

    Windows are (n, lookback, n_features), original units; `paths` is that of all, or those of each feature's values.
    """
    low, high = served.usual_values
    if ((windows >= low) & (windows <= high)).all():  # most requests pass this single check
        return NO_WARNINGS
    refuse_infinite_windows(windows, served.model, paths)
    return warn_of_range(served.model, windows)


def warn_of_range(model: Model, windows: Array) -> RangeWarnings:
    """The most extreme value per instance and feature; windows are (n, lookback, n_features), original units."""
    low, high = model.feature_range
    beyond = np.maximum(low - windows, windows - high)  # (n, lookback, n_features), positive outside
    beyond -= ROUNDING * model.scaling.feature_scale
    is_outside = beyond.max(axis=1) > 0  # (n, n_features)
    if not is_outside.any():
        return NO_WARNINGS
    steps, features, listed = beyond.argmax(axis=1), model.config.features, list[RangeWarning]()
    for instance, number in np.argwhere(is_outside)[:MAX_WARNINGS].tolist():
        feature, step = features[number], int(steps[instance, number])
        value = float(windows[instance, step, number])
        listed.append(
            {
                "code": "outside_training_range",
                "instance": instance,
                "feature": feature.name,
                "step": step - windows.shape[1] + 1,
                "value": value,
                "min": feature.min,
                "max": feature.max,
                "message": f"{value:.6g} is outside the training range [{low[number]:.6g}, {high[number]:.6g}]",
            }
        )
    counts = zip(model.config.feature_names, is_outside.sum(axis=0).tolist(), strict=True)
    return RangeWarnings(listed, {name: n for name, n in counts if n})
