"""Whether the process lives, and whether it can answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from service.schemas.models import ModelSummary


class Health(TypedDict):
    """The process answers."""

    status: Annotated[Literal["ok"], Field(description="Always `ok`.")]


class Readiness(TypedDict):
    """Loading is over, and at least one model answers."""

    ready: Annotated[Literal[True], Field(description="Always true: until then the answer is a 503.")]
    models: Annotated[list[ModelSummary], Field(description="Every wanted model; those that failed say why.")]
