"""GET /v1/models/{model}/reference and one of them: the windows on which global explanations are computed."""

from typing import Annotated, Literal, NotRequired

from typing_extensions import TypedDict

from kanmodel.tables.inputs import InputValue
from service.answers.forms import Answered
from service.answers.members import Answer, Closed, OutputQuery, Whole, about
from service.answers.windows import PredictionInterval

MAX_LISTED = 1000  # windows of one answer


_OBSERVED = "What was to be forecast, in the order of the model's `outputs`; null where unknown."


class ReferenceSpan(TypedDict):
    """The reference windows that an answer describes."""

    windows: Annotated[int, about("Number of reference windows.")]
    first: Annotated[str | None, about("Time stamp of the first; null if unknown.")]
    last: Annotated[str | None, about("That of the last.")]


class ReferenceWarning(TypedDict):
    """The reference windows are unlike the training rows, so the answer may not hold for other windows."""

    code: Annotated[Literal["reference_unlike_training"], about("Stable code, for programs.")]
    features: list[str]
    """Features that span less than 0.8 of their range in training, or whose mean is shifted by more than half their
    standard deviation, or whose spread is less than half or more than twice as large."""
    message: Annotated[str, about("The warning as a sentence.")]


ReferenceWarnings = Annotated[
    list[ReferenceWarning], about("At most one: that the reference windows are unlike the training rows.")
]


class OnReference(Answer):
    """Members of every answer about a model as a whole."""

    reference: ReferenceSpan
    warnings: ReferenceWarnings


class ReferencesQuery(OutputQuery):
    """Which windows are listed, and with what."""

    offset: Annotated[Whole, about("Number of the first window.", ge=0)] = 0
    limit: Annotated[int, about("How many windows are listed at most.", ge=1, le=MAX_LISTED)] = MAX_LISTED
    contributions: bool = False
    """Whether to list each window's contributions to `output`, beside its newest values."""
    intervals: bool = False
    """Whether to list the prediction intervals of each window's `output`, if it has any."""


class WindowLabel(TypedDict):
    """Which reference window, and what was observed after it."""

    index: Annotated[int, about("Number of the window, from 0, in the order of time.")]
    time: Annotated[str | None, about("Time stamp of the last step; null where unknown.")]
    series: NotRequired[Annotated[str, about("Its series; absent of a model of one series.")]]
    target: Annotated[list[float | None] | None, about(_OBSERVED)]


class ReferenceRow(WindowLabel):
    """What is known of one reference window."""

    prediction: Annotated[list[float], about("Its forecast, in the order of the model's `outputs`.")]
    contributions: NotRequired[list[float]]
    """Of each feature, in the order of the model's `features`, as `:explain` gives with the baseline `mean`; where the
    query asks for them."""
    newest: NotRequired[Annotated[list[float], about("Values of the features at the newest step, likewise.")]]
    intervals: NotRequired[list[PredictionInterval]]
    """Of the forecast of `output`, by level, ascending; where the query asks for them and that output has any."""


class ReferenceList(Answer):
    """Reference windows in the order of time, without their values."""

    reference_windows: Annotated[int, about("How many there are.")]
    offset: Annotated[int, about("Number of the first window listed.")]
    windows: Annotated[list[ReferenceRow], about("None where `offset` is beyond the last.")]


class ReferenceWindow(Answer, WindowLabel):
    """One reference window, in original units."""

    reference_windows: Annotated[int, about("How many there are.")]
    instance: list[list[float]]
    """lookback x n_features, oldest step first; can be sent to :predict and :explain."""
    values: Annotated[list[Answered[InputValue]], about("Of the model's `inputs`, at the newest step.")]


class ReferencePath(Closed):
    """Which window."""

    index: Annotated[int, about("Index of the window, from 0.")]
