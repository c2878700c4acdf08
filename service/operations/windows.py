"""The windows of a request, and warnings of their values outside the training range."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, NotRequired

import numpy as np
from pydantic import ConfigDict
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypedDict

from kanmodel.data import Array
from kanmodel.model import Model
from service.models.registry import Served
from service.operations.members import Closed, about
from service.wire.windows import Filled, Given, refuse_infinite_windows

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
    columns: dict[str, list[list[float | str | bool | None]]] | SkipJsonSchema[None] = None
    """Windows as named columns: for each feature of the model n x lookback values, original units, oldest step first.
    Give either this or `instances`. Of a model with a `table` also the columns of that table, as they are: n lists of
    rows, oldest first, with null where a value is missing and `fill` says how it is filled."""
    times: list[list[str | float]] | SkipJsonSchema[None] = None
    """The times of the rows in `columns`, n lists of as many: strings as in ISO 8601 or 31.12.2023 23:00, or numbers.
    Only for the columns of a model's `table`; needed if that has a `calendar`."""


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


class FilledWarning(TypedDict):
    """Cells of a column without a value, which were filled as in training."""

    code: Annotated[Literal["filled"], about("Stable code, for programs.")]
    instance: Annotated[int, about("Index of the instance.")]
    column: Annotated[str, about("Name of the column.")]
    count: Annotated[int, about("Number of filled cells that the window reads.")]
    message: Annotated[str, about("The warning as a sentence.")]


class Warned(TypedDict):
    """What an answer about windows says of their values."""

    warnings: list[RangeWarning | FilledWarning]
    """Values outside the training range, and cells that were filled; at most 100 together."""
    warnings_omitted: NotRequired[Annotated[int, about("Number of further warnings; absent if there are none.")]]


@dataclass(frozen=True)
class RangeWarnings:
    """The values of a request outside the training range."""

    listed: list[RangeWarning]  # the first `MAX_WARNINGS`
    counts: Mapping[str, int]  # by feature, the number of instances with such a value
    filled: Sequence[Filled] = ()  # what was filled, which is listed first

    def __len__(self) -> int:
        return sum(self.counts.values())

    def describe(self) -> Warned:
        """The members of an answer."""
        filled: list[FilledWarning] = [
            {
                "code": "filled",
                "instance": instance,
                "column": column,
                "count": n_cells,
                "message": f"{n_cells} {'cell' if n_cells == 1 else 'cells'} of {column} without a value were filled",
            }
            for instance, column, n_cells in self.filled[:MAX_WARNINGS]
        ]
        warnings = (list[RangeWarning | FilledWarning]() + filled + self.listed)[:MAX_WARNINGS]
        omitted = len(self) + len(self.filled) - len(warnings)
        return {"warnings": warnings, "warnings_omitted": omitted} if omitted else {"warnings": warnings}


NO_WARNINGS = RangeWarnings([], {})


def check_values(given: Given, served: Served) -> RangeWarnings:
    """Warns of values outside the training range, and of filled cells.

    Raises `DataError`, which names each value that is not finite after scaling.
    """
    (low, high), windows = served.usual_values, given.windows
    if ((windows >= low) & (windows <= high)).all():  # most requests pass this single check
        return replace(NO_WARNINGS, filled=given.filled) if given.filled else NO_WARNINGS
    refuse_infinite_windows(windows, served.model, given.paths)
    return warn_of_range(served.model, windows, given.filled)


def warn_of_range(model: Model, windows: Array, filled: Sequence[Filled] = ()) -> RangeWarnings:
    """The most extreme value per instance and feature; windows are (n, lookback, n_features), original units."""
    low, high = model.feature_range
    beyond = np.maximum(low - windows, windows - high)  # (n, lookback, n_features), positive outside
    beyond -= ROUNDING * model.scaling.feature_scale
    is_outside = beyond.max(axis=1) > 0  # (n, n_features)
    if not is_outside.any():
        return replace(NO_WARNINGS, filled=filled) if filled else NO_WARNINGS
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
    return RangeWarnings(listed, {name: n for name, n in counts if n}, filled)
