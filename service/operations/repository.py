"""The model repository extension of the Open Inference Protocol: index, load and unload."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar, cast

from fastapi import Response

from kanmodel.errors import CheckpointError
from service.answers.forms import describe
from service.answers.members import Closed
from service.answers.models import Entries, IndexRequest, RepositoryEntry, RepositoryRequest, RepositoryState
from service.models.registry import Entry, Registry, State
from service.models.watching import Watch
from service.operations.route import OF_A_MODEL, Call, Operation
from service.wire.bodies import Limits, parse_object, validate_request
from service.wire.errors import DeadlineError, RequestError
from service.wire.json import JSON, answer_json

_STATES: dict[State, RepositoryState] = {"loading": "LOADING", "ready": "READY"}  # all others: UNAVAILABLE
REPOSITORY = "/v2/repository"
Body = TypeVar("Body", bound=Closed)


def describe_entry(entry: Entry) -> RepositoryEntry:
    """Describes a version of a model in the repository."""
    reason = entry.reason or ("unloaded by command" if entry.state == "unloaded" else "")
    return describe(RepositoryEntry, entry, state=_STATES.get(entry.state, "UNAVAILABLE"), reason=reason)


@Operation("POST", f"{REPOSITORY}/index", "repository", "admin", Entries, body=IndexRequest)
async def list_repository(call: Call) -> Response:
    """Lists every version of every model, with its state and the reason of a failure."""
    _refuse_off(call)
    asked = await _read(call, IndexRequest)
    entries = call.parts.registry.entries
    return answer_json([describe_entry(entry) for entry in entries if entry.state == "ready" or not asked.ready])


@Operation("POST", f"{REPOSITORY}{OF_A_MODEL}/load", "repository", "admin", Entries, body=RepositoryRequest)
async def load_model(call: Call) -> Response:
    """Loads new and changed files of a model, also after unload, and answers once they are served.

    If the highest version cannot be loaded, the version served before stays, and the error has the reason. Loading
    continues if the deadline passes first.
    """
    try:
        entries = await _change(call, Registry.load_model)
    except (CheckpointError, OSError) as error:
        raise RequestError(f"the models cannot be read: {error}", code="load_failed") from error
    for entry in entries[:1]:
        if entry.reason is not None:
            message = f"model {entry.name!r}, version {entry.version}, cannot be loaded: {entry.reason}"
            raise RequestError(message, code="load_failed")
    return answer_json(list(map(describe_entry, entries)))


@Operation("POST", f"{REPOSITORY}{OF_A_MODEL}/unload", "repository", "admin", Entries, body=RepositoryRequest)
async def unload_model(call: Call) -> Response:
    """Takes every version of a model out of service until it is loaded again; its files stay.

    Requests in flight finish.
    """
    return answer_json(list(map(describe_entry, await _change(call, Registry.unload_model))))


def _refuse_off(call: Call) -> None:
    if not call.parts.settings.repository_api:
        raise RequestError("the repository API is off; the setting repository_api turns it on", code="disabled")


async def _change(call: Call, change: Callable[[Registry, str], tuple[str, ...] | None]) -> Sequence[Entry]:
    """Loads or unloads the model of the path, waits until the deadline, and returns its versions.

    Each process has its own models, and a request reaches only one process, so there must be only one.
    """
    _refuse_off(call)
    if call.parts.settings.is_shared:
        reason = "with several processes (workers) models cannot be loaded or unloaded over HTTP: "
        advice = "change the folder, which each process scans (poll_seconds)"
        raise RequestError(reason + advice, code="not_supported")
    await _read(call, RepositoryRequest)
    name, watch = call.path_params["model"], cast(Watch, call.app.state.watch)
    changing = asyncio.ensure_future(watch.apply(partial(change, call.parts.registry, name)))
    try:
        async with asyncio.timeout_at(call.deadline.time):
            await asyncio.shield(changing)
    except TimeoutError:
        seconds = f"{call.deadline.seconds:g} s (request_timeout)"
        raise DeadlineError(f"the models are not changed within {seconds}, and go on being changed") from None
    call.state.model = name
    return call.parts.registry.index().get(name, ())


async def _read(call: Call, cls: type[Body]) -> Body:
    """The body, if there is one; Triton's client sends no Content-Type."""
    body = await call.read_body((JSON, ""))
    limits = Limits(call.parts.settings.max_json_depth, windows=0, window_shape=(1, 1))
    return await call.parse(lambda: validate_request(cls, parse_object(body, limits) if body else {}), body)
