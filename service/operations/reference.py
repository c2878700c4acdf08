"""The windows on which global explanations are computed.

GET /v1/models/{model}/reference and GET /v1/models/{model}/reference/{index}.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from fastapi import Response
from pydantic import Field
from typing_extensions import TypedDict

from kanmodel.data import Array
from service.models.registry import Served
from service.operations.members import Answer, Closed, OutputQuery, about, head_of
from service.operations.route import MODEL, Call, operation
from service.wire.errors import NotFoundError, RequestError
from service.wire.json import answer_json
from service.wire.windows import read_output
from service.work.jobs import LIST_ENTRY

MAX_LISTED = 1000  # windows of one answer
Index = Annotated[int, about("Number of the window, from 0, in the order of time.")]
Time = Annotated[str | None, about("Time stamp of the last step; null where unknown.")]
Observed = Annotated[
    list[float] | None,
    Field(description="What was to be forecast, in the order of the model's `outputs`; null where unknown."),
]


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
    list[ReferenceWarning], Field(description="At most one: that the reference windows are unlike the training rows.")
]


class OnReference(Answer):
    """Members of every answer about a model as a whole."""

    reference: ReferenceSpan
    warnings: ReferenceWarnings


class ReferencesQuery(OutputQuery):
    """Which windows are listed, and with what."""

    offset: Annotated[int, about("Number of the first window.", ge=0)] = 0
    limit: Annotated[int, about("How many windows are listed at most.", ge=1, le=MAX_LISTED)] = MAX_LISTED
    contributions: bool = False
    """Whether to list each window's contributions to `output`, beside its newest values."""


class ReferenceRow(TypedDict):
    """What is known of one reference window."""

    index: Index
    time: Time
    target: Observed
    prediction: Annotated[list[float], about("Its forecast, in the order of the model's `outputs`.")]
    contributions: NotRequired[list[float]]
    """Of each feature, in the order of the model's `features`, as `:explain` gives with the baseline `mean`; where the
    query asks for them."""
    newest: NotRequired[Annotated[list[float], about("Values of the features at the newest step, likewise.")]]


class ReferenceList(Answer):
    """Reference windows in the order of time, without their values."""

    reference_windows: Annotated[int, about("How many there are.")]
    offset: Annotated[int, about("Number of the first window listed.")]
    windows: Annotated[list[ReferenceRow], about("None where `offset` is beyond the last.")]


class ReferenceWindow(Answer):
    """One reference window, in original units."""

    index: Index
    reference_windows: Annotated[int, about("How many there are.")]
    instance: list[list[float]]
    """lookback x n_features, oldest step first; can be sent to :predict and :explain."""
    target: Observed
    time: Time


def describe_span(served: Served) -> OnReference:
    """The first members of an answer on reference windows, with a warning where they are unlike the training rows."""
    span = served.model.loaded.reference_span
    warnings: list[ReferenceWarning] = []
    if span.unlike_training:
        features = [each.feature for each in span.unlike_training]
        message = f"the reference windows are unlike the training rows: {span.differences}"
        warnings.append({"code": "reference_unlike_training", "features": features, "message": message})
    return {
        **head_of(served),
        "reference": {"windows": span.windows, "first": span.first, "last": span.last},
        "warnings": warnings,
    }


def describe_reference_window(served: Served, index: int) -> ReferenceWindow:
    """One of a model's reference windows.

    Args:
        served: the model.
        index: number of the window, which exists.
    """
    reference = served.model.reference
    return {
        **head_of(served),
        "index": index,
        "reference_windows": len(reference.windows),
        "instance": reference.windows[index].tolist(),
        "target": _target_of(served, index),
        "time": _time_of(served, index),
    }


def describe_references(served: Served, query: ReferencesQuery, contributions: Array | None = None) -> ReferenceList:
    """The reference windows that a query names.

    Args:
        served: the model.
        query: which of them.
        contributions: of all reference windows to one output, (n, n_features); None where nobody asks for them.
    """
    model = served.model
    numbers = range(len(model.reference))[query.offset : query.offset + query.limit]
    return {
        **head_of(served),
        "reference_windows": len(model.reference),
        "offset": query.offset,
        "windows": [_describe_row(served, index, contributions) for index in numbers],
    }


def _describe_row(served: Served, index: int, contributions: Array | None) -> ReferenceRow:
    row: ReferenceRow = {
        "index": index,
        "time": _time_of(served, index),
        "target": _target_of(served, index),
        "prediction": served.model.reference_predictions[index].tolist(),
    }
    if contributions is not None:
        row["contributions"] = contributions[index].tolist()
        row["newest"] = served.model.reference.windows[index, -1].tolist()
    return row


def _target_of(served: Served, index: int) -> list[float] | None:
    targets = served.model.reference.targets
    return None if targets is None else targets[index].tolist()


def _time_of(served: Served, index: int) -> str | None:
    times = served.model.reference.times
    return None if times is None else times[index]


class ReferencePath(Closed):
    """Which window."""

    index: Annotated[int, about("Index of the window, from 0.")]


@operation(
    "GET",
    f"{MODEL}/reference",
    "models",
    "explain",
    ReferenceList,
    query=ReferencesQuery,
    is_cached=True,
)
async def list_reference_windows(call: Call) -> Response:
    """Lists the windows that global explanations are computed on, with times, forecasts and actual values.

    They are training data, so a key needs the scope explain; the setting `reference_windows` turns this off, and the
    answer is then 403.
    """
    _refuse_hidden(call)
    served, query = call.served, call.query
    contributions = None
    if query.contributions:
        importance = await call.deadline.wait(call.parts.results.importance(served, call.output))
        contributions = importance.explanation.contributions
    elif query.output is not None:
        read_output(query.output, served.model.config)
    n_features = len(served.model.config.features)
    n_entries = min(query.limit, len(served.model.reference)) * (2 * n_features if query.contributions else 1)

    def describe() -> Response:
        return answer_json(describe_references(served, query, contributions))

    cost = LIST_ENTRY * n_entries
    return await call.parts.work.run(describe, "explanation", cost, deadline=call.deadline)


@operation(
    "GET",
    f"{MODEL}/reference/{{index}}",
    "models",
    "explain",
    ReferenceWindow,
    place=ReferencePath,
    is_cached=True,
)
async def get_reference_window(call: Call) -> Response:
    """Returns one of the windows on which global explanations are computed, ready for `:predict` and `:explain`.

    It is training data, so a key needs the scope explain; the setting `reference_windows` turns this off, and the
    answer is then 403.
    """
    _refuse_hidden(call)
    index, count = call.place.index, len(call.served.model.reference)
    if not 0 <= index < count:
        raise NotFoundError(f"{index} does not exist: there are 0 to {count - 1}", "window_not_found", "index")
    return answer_json(describe_reference_window(call.served, index))


def _refuse_hidden(call: Call) -> None:
    if not call.parts.settings.reference_windows:
        raise RequestError("reference windows are not shown here (reference_windows)", code="disabled")
