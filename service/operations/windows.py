"""The windows of a request, and warnings of their values outside the training range."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, NotRequired

import numpy as np
from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.arrays import Array
from kanmodel.model import Model
from kanmodel.monitoring import trust
from kanmodel.tables import table
from service.models.registry import ROUNDING, Served
from service.operations.members import Closed, UnitOf, Whole, about, describe
from service.wire.windows import Given, refuse_infinite_values

MAX_WARNINGS = 100

Cell = TypeAliasType(
    "Cell",
    Annotated[float | str | bool | None, about("A cell of a table: a number, a text, or null where it has none.")],
)
Series = dict[str, list[Cell]]
Last = TypeAliasType(
    "Last",
    Annotated[
        Annotated[Whole, Field(ge=1, strict=True)] | str,
        about("A number of windows, or a duration such as `7d`, `36h` or `15min`."),
    ],
)
Gaps = TypeAliasType("Gaps", table.Gaps)
WarningCode = TypeAliasType("WarningCode", Literal["outside_training_range", "filled", "new_series"])
TrustVerdict = TypeAliasType("TrustVerdict", trust.TrustVerdict)
AskTrust = Annotated[
    bool, about("Whether to add `trust`: how unlike the reference windows each instance is.", strict=True)
]


class Windows(Closed):
    """Windows, in one of three forms."""

    instances: list[list[list[float]]] | None = None
    """Windows as arrays, n x lookback x n_features, original units, oldest step first, features in the order of the
    model's `features`. Give this, `columns` or `series`."""
    columns: dict[str, list[list[float]]] | None = None
    """Windows as named columns: for each feature of the model n x lookback values, original units, oldest step first.
    Give this, `instances` or `series`."""
    series: Series | None = None
    """Rows of a table, once, as named columns with a cell for each row, oldest first: the features in original units,
    or of a model with a `table` the columns of that table as they are, with null where a value is missing and `fill`
    says how it is filled. Each row that is the newest of a whole window gives that window. `time`, or the name of the
    model's time column, has the times of the rows: strings as in ISO 8601 or 31.12.2023 23:00, or numbers. They must
    be in order and without a gap, and may be left out unless the table has a `calendar`. Of a model over many series
    the column that its `table` names says of which each row is, and rows are in order within each. Give this,
    `instances` or `columns`."""
    last: Last | None = None
    """Of a series only the newest windows, of many those of each: so many, or those whose newest row is within a
    duration, such as `7d`, `36h` or `15min`, before the newest row of all."""
    gaps: Annotated[
        Gaps, about("Of a series, whether a gap in time is an error, or windows across it are left out.")
    ] = "error"


class DataWarning(TypedDict):
    """A warning of the values of an instance; the members that a code does not name are absent."""

    code: WarningCode
    """`outside_training_range`: a value is, of several steps the most extreme one, with `feature`, `step`, `value`,
    `min` and `max`; `filled`: cells without a value were filled as in training, with `column` and `count`;
    `new_series`: training did not have this series, with `series`, so its forecasts rest on what the others have in
    common."""
    instance: Annotated[int, about("Index of the instance; of a new series that of its first.")]
    message: Annotated[str, about("The warning as a sentence.")]
    feature: NotRequired[Annotated[str, about("Name of the feature.")]]
    step: NotRequired[Annotated[int, about("The step: 0 is the newest, -1 the one before it.")]]
    value: NotRequired[Annotated[float, about("The value, in the feature's unit.")]]
    min: NotRequired[Annotated[float | None, about("Smallest training value; null if unknown.")]]
    max: NotRequired[Annotated[float | None, about("Largest training value; null if unknown.")]]
    column: NotRequired[Annotated[str, about("Name of the column.")]]
    count: NotRequired[Annotated[int, about("Number of filled cells that the window reads.")]]
    series: NotRequired[Annotated[str, about("Name of the series.")]]


class OfWindows(TypedDict):
    """What an answer about windows says of them."""

    times: NotRequired[Annotated[list[str], about("The time of each instance's newest row, if a series has times.")]]
    series: NotRequired[Annotated[list[str], about("The series of each instance; absent of a model of one series.")]]
    windows_omitted: NotRequired[int]
    """Number of windows of a series that span a gap in time, left out with `"gaps": "skip"`; absent if there are
    none."""
    warnings: list[DataWarning]
    """Series that training did not have, cells that were filled, and values outside the training range; at most 100
    together."""
    warnings_omitted: NotRequired[Annotated[int, about("Number of further warnings; absent if there are none.")]]


class NearestReference(TypedDict):
    """The reference window nearest to a window.

    Distances are root mean square differences over all cells, in training standard deviations.
    """

    index: Annotated[int, about("Index of the reference window.")]
    distance: Annotated[float, about("Its distance from the window.")]
    typical: float | None
    """Median distance between a reference window and the nearest one of another block, which is a run of neighbouring
    reference windows; null if all overlap."""


class OutsideInfo(TypedDict):
    """The values of a feature outside its training range."""

    feature: Annotated[str, about("Name of the feature.")]
    unit: UnitOf
    steps: Annotated[list[int], about("The steps of these values, 0 the newest, ascending.")]
    value: Annotated[float, about("The one farthest outside.")]
    min: Annotated[float | None, about("Smallest training value; null if unknown.")]
    max: Annotated[float | None, about("Largest training value; null if unknown.")]
    excess: Annotated[float, about("How far outside it is, in training standard deviations.")]


class LevelCoverage(TypedDict):
    """How many actual values the intervals of a level hold."""

    level: Annotated[float, about("Nominal coverage of the intervals.")]
    covered: Annotated[float, about("Share of the actual values that they hold.")]


class TrustInfo(TypedDict):
    """How unlike the reference windows an instance is, and whether what holds for them can be relied on here."""

    verdict: TrustVerdict
    """`outside`: a value is more than 0.1 training standard deviations outside the training range, and farther than in
    99 % of the reference windows; `unusual`: else, `p_value` is at most 0.01; `usual`: neither; `unknown`: all
    reference windows overlap in time. Of fewer than 99 reference windows, all must be exceeded."""
    reliable: bool
    """Whether the verdict is `usual`: nothing speaks against it that the coverage of intervals, and errors, are as on
    the reference windows."""
    sentence: Annotated[str, about("The verdict with its reasons, as a sentence.")]
    nearest_reference: NearestReference
    p_value: float | None
    """Conformal p-value: the share of the reference windows, this one counted, that are at least as far from the
    nearest one of another block; null if all overlap. Of a reference without times or of one block, those that overlap
    are left out alone, and more new windows than that share have such a p-value."""
    shares: dict[str, float]
    """Share of each feature in the square of the distance; they sum to 1, or are 0 at a distance of 0."""
    steps: dict[str, list[int]]
    """Of the features with the largest shares, at most 3: the first and the last step, 0 the newest, of the shortest
    run that holds 80 % of the share."""
    outside: Annotated[list[OutsideInfo], about("Features outside their training range, farthest first.")]
    mean_abs_error: dict[str, float] | None
    """Mean absolute error of each output on that third of the reference windows, by distance, to which this one
    belongs; null if unknown."""
    error_ratio: float | None
    """The same over the mean of the thirds, as a mean over the outputs; null if unknown."""
    coverage: list[LevelCoverage] | None
    """Of the intervals, ascending by level, on the actual values of that third; null if unknown, or without
    intervals."""


def describe_trust(model: Model, windows: Array) -> list[TrustInfo]:
    """How far the forecasts of windows (n, lookback, n_features), original units, can be relied on."""
    return [describe_window_trust(one) for one in model.trust(windows)]


def describe_window_trust(one: trust.WindowTrust) -> TrustInfo:
    """The same of one window."""
    steps = {name: [-lags.oldest, -lags.newest] for name, lags in one.lags.items()}
    outside = [describe(OutsideInfo, each, min=each.low, max=each.high) for each in one.outside]
    levels = None if one.coverage is None else [LevelCoverage(level=of, covered=c) for of, c in one.coverage.items()]
    return describe(TrustInfo, one, sentence=str(one), steps=steps, outside=outside, coverage=levels)


@dataclass(frozen=True)
class CheckedWindows:
    """The windows of a request, and their values outside the training range."""

    given: Given
    listed: Sequence[DataWarning] = ()  # the first `MAX_WARNINGS`
    counts: Mapping[str, int] = field(default_factory=dict)  # by feature, the number of instances with such a value

    @property
    def windows(self) -> Array:
        """(n, lookback, n_features), original units."""
        return self.given.windows

    def describe(self) -> OfWindows:
        """The members of an answer."""
        new = warn_of_new(self.given.new_series, self.given.series or ())
        warnings = [*new, *self._describe_filled(), *self.listed]
        described: OfWindows = {"warnings": warnings[:MAX_WARNINGS]}
        if self.given.times is not None:
            described["times"] = [*self.given.times]
        if self.given.series is not None:
            described["series"] = [*self.given.series]
        if self.given.n_left_out:
            described["windows_omitted"] = self.given.n_left_out
        n_filled = int(sum(map(np.count_nonzero, self.given.filled.values())))
        if omitted := len(new) + sum(self.counts.values()) + n_filled - len(described["warnings"]):
            described["warnings_omitted"] = omitted
        return described

    def _describe_filled(self) -> Iterator[DataWarning]:
        """The first warnings of filled cells, by instance."""
        names, counts = [*self.given.filled], [*self.given.filled.values()]
        for instance, column in np.argwhere(np.array(counts).T)[:MAX_WARNINGS].tolist() if counts else ():
            n, name = int(counts[column][instance]), names[column]
            message = f"{n} {'cell' if n == 1 else 'cells'} of {name} without a value were filled"
            yield {"code": "filled", "instance": instance, "column": name, "count": n, "message": message}


def warn_of_new(names: Sequence[str], series: Sequence[str]) -> list[DataWarning]:
    """A warning of each of the names, which training did not have; `series` are those of the instances."""
    first = {name: instance for instance, name in reversed([*enumerate(series)])} if names else {}
    message = "was not in the training: forecasts of it rest on what the others have in common"
    return [
        {"code": "new_series", "instance": first[name], "series": name, "message": f"{name} {message}"}
        for name in names
    ]


def check_values(given: Given, served: Served) -> CheckedWindows:
    """Warns of values outside the training range, and of filled cells.

    Raises `DataError`, which names each value that is not finite after scaling.
    """
    (low, high), values = served.usual_values, given.values
    if values.ndim == 2:  # rows
        low, high = low[0], high[0]
    if ((values >= low) & (values <= high)).all():  # most requests pass this single check
        return CheckedWindows(given)
    refuse_infinite_values(given, served.model)
    return warn_of_range(served.model, given)


def warn_of_range(model: Model, given: Given) -> CheckedWindows:
    """The most extreme value per instance and feature."""
    windows, (low, high) = given.windows, model.feature_range
    beyond = np.maximum(low - windows, windows - high)  # (n, lookback, n_features), positive outside
    beyond -= ROUNDING * model.scaling.feature_scale
    is_outside = beyond.max(axis=1) > 0  # (n, n_features)
    if not is_outside.any():
        return CheckedWindows(given)
    steps, features, listed = beyond.argmax(axis=1), model.config.features, list[DataWarning]()
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
    return CheckedWindows(given, listed, {name: n for name, n in counts if n})
