"""Whether the process lives, and whether it can answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from service.http.error_answers import ErrorResponse
from service.schemas.models import ModelSummary


class Health(TypedDict):
    """The process answers."""

    status: Annotated[Literal["ok"], Field(description="Always `ok`.")]


class Readiness(TypedDict):
    """Loading is over, and at least one model answers."""

    ready: Annotated[Literal[True], Field(description="Always true: until then the answer is a 503.")]
    models: Annotated[list[ModelSummary], Field(description="Every wanted model; those that failed say why.")]


class ServerHealth(TypedDict):
    """Whether the process lives, and whether it can answer."""

    live: Annotated[Literal[True], Field(description="Always true.")]
    ready: Annotated[bool, Field(description="Whether loading is over and a model answers.")]


class UnreadyResponse(ErrorResponse):
    """The error of a service that is not ready."""

    live: Annotated[Literal[True], Field(description="Always true.")]
    ready: Annotated[Literal[False], Field(description="Always false.")]
