"""The windows of a request, and warnings of their values outside the training range."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from service.answers.members import Answer, Closed, Whole, about
from service.answers.table import Gaps

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


WarningCode = TypeAliasType("WarningCode", Literal["outside_training_range", "filled", "new_series"])


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


class CutRequest(Windows):
    """Rows of a table, of which the windows are wanted."""

    ends: list[Whole] | None = None
    """Of a series only the windows whose newest row is one of these, by number from 0; rows without a window are left
    out."""
    echo: Annotated[bool, about("Whether the answer has `instances`.", strict=True)] = True


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


class LeftOut(TypedDict):
    """Windows of the series that are left out."""

    across_gaps: Annotated[int, about("Windows with a gap in time in them, or before their actual values.")]
    missing: Annotated[int, about("Windows with a missing value.")]
    missing_columns: Annotated[dict[str, int], about("Of these, by the columns with the most missing values.")]


class CutResponse(Answer, OfWindows):
    """The windows of a request."""

    outputs: Annotated[list[str], about("Names of the outputs, `{target}+{step}`.")]
    instances: NotRequired[list[list[list[float]]]]
    """The windows, n x lookback x n_features, original units, oldest step first; absent if `echo` is false."""
    ends: NotRequired[Annotated[list[int], about("The row of the series that is each one's newest, from 0.")]]
    actual: NotRequired[list[list[float | None]]]
    """What came, n x n_outputs, original units; null where unknown. Absent of instances, and of a series that has the
    column of no target."""
    left_out: NotRequired[Annotated[LeftOut, about("Only of a series; windows that `ends` leaves out do not count.")]]


class PredictionInterval(TypedDict):
    """That of one forecast at one level."""

    level: Annotated[float, about("Nominal coverage.")]
    lower: Annotated[float, about("Lower bound, in the target's unit.")]
    upper: Annotated[float, about("Upper bound.")]
