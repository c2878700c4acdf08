"""The repository of models, as the Open Inference Protocol sees it."""

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

    ready: Annotated[bool, Field(description="Whether to list only those that answer.", strict=True)] = False


class LoadParameters(Closed):
    """Parameters of loading: there are none, since a model is what its file says."""


class LoadRequest(Closed):
    """A request to load."""

    parameters: LoadParameters | None = None


class UnloadParameters(Closed):
    """Parameters of unloading."""

    unload_dependents: Annotated[
        bool, Field(description="What Triton's client says; no model depends on another.", strict=True)
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
        Field(
            description="Why it does not, or why its file can't take the place of what does; empty where all is well."
        ),
    ]


def describe_entry(entry: Entry) -> RepositoryEntry:
    """A version of a model as the repository lists it."""
    unloaded = "unloaded by command" if entry.state == "unloaded" else ""
    return {
        "name": entry.name,
        "version": entry.version,
        "state": _STATES[entry.state],
        "reason": entry.reason or unloaded,
    }
