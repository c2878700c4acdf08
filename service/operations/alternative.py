"""Questions what a forecast would be, would need or why it differs: what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NotRequired, TypeVar

from fastapi import Response
from typing_extensions import TypedDict

from kanmodel.data import Array
from kanmodel.errors import quote
from kanmodel.network.config import ModelConfig
from service.models.registry import Served
from service.operations.members import Checkpoint, Name, Version, about
from service.operations.route import Call, Parts
from service.operations.windows import RangeWarnings, Warnings, WarningsOmitted, warn_of_range
from service.settings import Settings
from service.telemetry.observation import span
from service.wire.bodies import read_body
from service.wire.connections import while_connected
from service.wire.errors import unusable
from service.wire.json import JSON, encode_json
from service.work.estimates import estimate_parsing


class Shared(TypedDict):
    """Members that all answers of this kind share."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint
    output: Annotated[str, about("Name of the output.")]
    unit: Annotated[str | None, about("Unit of its forecasts; null if unknown.")]
    warnings: Warnings
    warnings_omitted: NotRequired[WarningsOmitted]


def describe_shared(served: Served, output: int, warnings: RangeWarnings) -> Shared:
    """The shared members of an answer."""
    config = served.model.config
    shared: Shared = {
        "model_name": served.name,
        "version": served.version,
        "checkpoint": served.checkpoint,
        "output": config.outputs[output],
        "unit": config.target_of(output).unit,
        "warnings": warnings.listed,
    }
    if warnings.n_omitted:
        shared["warnings_omitted"] = warnings.n_omitted
    return shared


@dataclass(frozen=True)
class Alternative(ABC):
    """Base of the four kinds of question.

    Attributes:
        served: the model.
        windows: (n, lookback, n_features), original units.
        output: index of the output.
    """

    served: Served
    windows: Array
    output: int

    @property
    @abstractmethod
    def forecasts(self) -> int:
        """Number of forecasts, or nodes of integration paths, that it takes; known before it starts."""

    @property
    @abstractmethod
    def n_bytes(self) -> int:
        """Upper bound of the memory that it holds, apart from long names."""

    @abstractmethod
    def answer(self) -> dict[str, Any]:
        """The members of the answer besides the shared ones."""


def refuse_costly(question: Alternative, limit: int) -> None:
    """Refuses a question that would take too long.

    Raises:
        DataError: it takes more than `max_path_nodes` forecasts or path nodes.
    """
    if question.forecasts > limit:
        reason = f"would take {question.forecasts} forecasts, of at most {limit} (max_path_nodes)"
        raise unusable("body", f"{reason}: send fewer windows, features or points at a time", "limit_exceeded")


def answer_alternative(question: Alternative) -> tuple[bytes, RangeWarnings]:
    """The answer as JSON, and its warnings.

    Raises:
        DataError: the question has no answer, such as a comparison of models with different features.
        NonFiniteError: a result is not finite.
    """
    warnings = warn_of_range(question.served.model, question.windows)
    shared = describe_shared(question.served, question.output, warnings)
    return encode_json({**shared, **question.answer()}), warnings


_WINDOWS = frozenset({"instances", "columns"})


def _read_features(names: list[str] | None, config: ModelConfig) -> tuple[str, ...]:
    """The features that may change; all of them if none are named."""
    if names is None:
        return tuple(config.feature_names)
    if len(names) > len(config.features):
        message = f"must be at most {len(config.features)} names, one per feature, but are {len(names)}"
        raise unusable("features", message)
    for number, name in enumerate(names):
        if name not in config.feature_names:
            message = f"is unknown: {quote(name)}; the features are {', '.join(config.feature_names)}"
            raise unusable(f"features[{number}]", message)
        if name in names[:number]:
            raise unusable(f"features[{number}]", "is given twice")
    return tuple(names)


def _read_steps(steps: list[int] | None, config: ModelConfig) -> tuple[int, ...] | None:
    oldest = 1 - config.lookback
    if steps is not None and not oldest <= steps[0] <= steps[1] <= 0:
        raise unusable("steps", f"must be a first and a last step from {oldest}, the oldest, to 0, but is {steps}")
    return None if steps is None else tuple(steps)


Question = TypeVar("Question", bound=Alternative)


async def answer(
    call: Call,
    read: Callable[[bytes, Served, Settings], Question],
    prepare: Callable[[Parts, Question], Awaitable[Question]] | None = None,
    may_load: bool = False,
) -> Response:
    """Reads a question, prepares it if it needs global results, and answers it in turn with others.

    Args:
        call: the request.
        read: parses its body.
        prepare: computes what it needs.
        may_load: whether reading may load another model, so that it must not run on the event loop.
    """
    parts, deadline, served = call.parts, call.deadline, call.served
    with parts.work.claim("explanation", place=False) as held:
        body = await read_body(call, parts.settings, held)
        with span("parse"):
            reading, key = partial(read, body, served, parts.settings), object() if may_load else None
            question = await parts.work.run(reading, "explanation", estimate_parsing(body), key, deadline)
    call.state.windows = len(question.windows)
    if prepare is not None:
        question = await while_connected(call, deadline.wait(prepare(parts, question)))
    with parts.work.claim("explanation", question.n_bytes):
        answering = parts.work.run_in_turns(partial(answer_alternative, question))
        described, warnings = await while_connected(call, deadline.wait(answering))
    call.count_warnings(warnings)
    return Response(described, media_type=JSON)
