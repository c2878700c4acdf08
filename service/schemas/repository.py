"""Schemas of the model repository extension of the Open Inference Protocol."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from service.models.registry import Entry, State
from service.schemas.closed import Closed
from service.schemas.models import Name, Version

RepositoryState = TypeAliasType("RepositoryState", Literal["LOADING", "READY", "UNAVAILABLE"])
_STATES: dict[State, RepositoryState] = {
    "loading": "LOADING",
    "ready": "READY",
    "failed": "UNAVAILABLE",
    "unloaded": "UNAVAILABLE",
}


class IndexRequest(Closed):
    """Which models to list."""

    ready: Annotated[bool, Field(description="Whether to list only ready ones.", strict=True)] = False


class LoadParameters(Closed):
    """Parameters of loading: none, since the file defines the model."""


class LoadRequest(Closed):
    """A request to load."""

    parameters: LoadParameters | None = None


class UnloadParameters(Closed):
    """Parameters of unloading."""

    unload_dependents: Annotated[
        bool, Field(description="Sent by Triton's client; ignored, since no model depends on another.", strict=True)
    ] = False


class UnloadRequest(Closed):
    """A request to unload."""

    parameters: UnloadParameters | None = None


class RepositoryEntry(TypedDict):
    """A version of a model in the repository."""

    name: Name
    version: Version
    state: Annotated[RepositoryState, Field(description="Whether it answers.")]
    reason: Annotated[
        str,
        Field(description="Why it is not ready, or why its changed file cannot be loaded; empty if all is well."),
    ]


def describe_entry(entry: Entry) -> RepositoryEntry:
    """Describes a version of a model in the repository."""
    unloaded = "unloaded by command" if entry.state == "unloaded" else ""
    return {
        "name": entry.name,
        "version": entry.version,
        "state": _STATES[entry.state],
        "reason": entry.reason or unloaded,
    }
