"""Liveness and readiness."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from service.http.error_answers import ErrorResponse
from service.schemas.models import ModelSummary


class Health(TypedDict):
    """The process is alive."""

    status: Annotated[Literal["ok"], Field(description="Always `ok`.")]


class Readiness(TypedDict):
    """At least one model answers."""

    ready: Annotated[Literal[True], Field(description="Always true: until then the answer is a 503.")]
    models: Annotated[list[ModelSummary], Field(description="Every model of the folder, with the reason of a failure.")]


class ServerHealth(TypedDict):
    """Liveness and readiness."""

    live: Annotated[Literal[True], Field(description="Always true.")]
    ready: Annotated[bool, Field(description="Whether a model answers.")]


class UnreadyResponse(ErrorResponse):
    """The error of a service that is not ready."""

    live: Annotated[Literal[True], Field(description="Always true.")]
    ready: Annotated[Literal[False], Field(description="Always false.")]
