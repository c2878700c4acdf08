"""The model repository extension of the Open Inference Protocol: index, load and unload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from fastapi import APIRouter, Depends, Request, Response

from kanmodel.errors import CheckpointError
from service.document.errors import describe_errors
from service.document.operations import describe_body
from service.http.answers import JSON, answer_json
from service.http.errors import BadRequestError, ForbiddenError, UnsupportedError
from service.http.negotiation import accept_json
from service.http.security import ADMIN
from service.models.registry import Entry, Registry
from service.models.watching import Watch
from service.requests.bodies import Limits, parse_object, read_body, validate_request
from service.routes.dependencies import OF_A_MODEL, Parts, describe_name, find_deadline, find_parts, get_deadline
from service.routes.direct import ProtocolRoute
from service.schemas.closed import Closed
from service.schemas.repository import IndexRequest, LoadRequest, RepositoryEntry, UnloadRequest, describe_entry
from service.work.estimates import estimate_parsing

Body = TypeVar("Body", bound=Closed)
router = APIRouter(tags=["repository"], route_class=ProtocolRoute, dependencies=[ADMIN])
OF_REPOSITORY = "/v2/repository" + OF_A_MODEL


@router.post(
    "/v2/repository/index",
    operation_id="list_repository",
    response_model=list[RepositoryEntry],
    responses=describe_errors(400, 406, 408, 413, 415),
    openapi_extra=describe_body(IndexRequest, required=False),
)
async def list_repository(request: Request) -> Response:
    """Lists every version of every model, with its state and the reason of a failure."""
    parts = _admit(request)
    asked = await _read(request, IndexRequest)
    return answer_json([describe_entry(entry) for entry in parts.registry.entries if entry.is_ready or not asked.ready])


@router.post(
    f"{OF_REPOSITORY}/load",
    operation_id="load_model",
    response_model=list[RepositoryEntry],
    responses=describe_errors(400, 404, 406, 408, 413, 415, 501),
    openapi_extra=describe_body(LoadRequest, required=False),
    dependencies=[Depends(describe_name), Depends(get_deadline)],
)
async def load_model(request: Request) -> Response:
    """Loads new and changed files of a model, also after unload, and answers once they are served.

    If the highest version cannot be loaded, the version served before stays, and the error has the reason. Loading
    continues if the deadline passes first.
    """
    try:
        entries = await _change(request, LoadRequest, Registry.load_model)
    except (CheckpointError, OSError) as error:
        raise BadRequestError(f"the models cannot be read: {error}", code="load_failed") from error
    for entry in entries[:1]:
        if entry.reason is not None:
            message = f"model {entry.name!r}, version {entry.version}, cannot be loaded: {entry.reason}"
            raise BadRequestError(message, code="load_failed")
    return answer_json(list(map(describe_entry, entries)))


@router.post(
    f"{OF_REPOSITORY}/unload",
    operation_id="unload_model",
    response_model=list[RepositoryEntry],
    responses=describe_errors(400, 404, 406, 408, 413, 415, 501),
    openapi_extra=describe_body(UnloadRequest, required=False),
    dependencies=[Depends(describe_name), Depends(get_deadline)],
)
async def unload_model(request: Request) -> Response:
    """Takes every version of a model out of service until it is loaded again; its files stay.

    Requests in flight finish.
    """
    entries = await _change(request, UnloadRequest, Registry.unload_model)
    return answer_json(list(map(describe_entry, entries)))


def _admit(request: Request) -> Parts:
    parts = find_parts(request)
    if not parts.settings.repository_api:
        raise ForbiddenError("the repository API is off; the setting repository_api turns it on")
    accept_json(request)
    return parts


async def _change(
    request: Request, cls: type[Closed], change: Callable[[Registry, str], tuple[str, ...] | None]
) -> Sequence[Entry]:
    """Loads or unloads the model of the path, waits until the deadline, and returns its versions.

    Each process has its own models, and a request reaches only one process, so there must be only one.
    """
    parts = _admit(request)
    if parts.settings.is_shared:
        raise UnsupportedError(
            "with several processes (workers, or the engine ray) models cannot be loaded or unloaded over HTTP: change "
            "the folder, which each process scans (poll_seconds)"
        )
    deadline = find_deadline(request)
    await _read(request, cls)
    name = request.path_params["model"]
    watch: Watch = request.app.state.watch
    changing = asyncio.ensure_future(watch.apply(partial(change, parts.registry, name)))
    await deadline.wait(asyncio.shield(changing))
    request.state.model = name
    return parts.registry.index().get(name, ())


async def _read(request: Request, cls: type[Body]) -> Body:
    """The body, if there is one; Triton's client sends no Content-Type."""
    parts = find_parts(request)
    with parts.work.claim("explanation", place=False) as held:
        body = await read_body(request, parts.settings, held, (JSON, ""))
        limits = Limits(parts.settings.max_json_depth, windows=0, window_shape=(1, 1))

        def read() -> Body:
            return validate_request(cls, parse_object(body, limits) if body else {}, unread=())

        return await parts.work.run(read, "explanation", estimate_parsing(body))
