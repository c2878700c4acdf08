"""Dependencies of handlers: the parts of the service, the model of the path, and the deadline."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request
from starlette.convertors import Convertor, register_url_convertor

from service.http.errors import unusable
from service.http.headers import find_header
from service.models.registry import Registry, Served
from service.schemas.closed import VERSION
from service.schemas.predictions import RangeWarnings
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.work.answers import Answers
from service.work.deadlines import Deadline
from service.work.executor import Executor
from service.work.jobs import SLICE
from service.work.results import GlobalResults


class ModelName(Convertor[str]):
    """A path segment up to a colon, so that ``GET …:predict`` is a wrong method and not an unknown model."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        """The name, unchanged; the registry knows whether it exists."""
        return value

    def to_string(self, value: str) -> str:
        """The name, unchanged."""
        return value


register_url_convertor("name", ModelName())
OF_A_MODEL = "/models/{model:name}"
MODEL = "/v1" + OF_A_MODEL
MODEL_V2 = "/v2" + OF_A_MODEL  # of the Open Inference Protocol
VERSION_V2 = MODEL_V2 + "/versions/{version:name}"
TIMEOUT_HEADER = "X-Request-Timeout"
_TIMEOUT = TIMEOUT_HEADER.lower().encode()
Name = Annotated[str, Path(description="Name of the model.")]
VersionParameter = Annotated[str | None, Query(description=VERSION)]


@dataclass(frozen=True)
class Parts:
    """The components of a running service, built once by `create_app`.

    Attributes:
        settings: the settings.
        registry: the models.
        results: global results of the models.
        work: the executor.
        answers: the cache of answers.
        metrics: the Prometheus metrics.
    """

    settings: Settings
    registry: Registry
    results: GlobalResults
    work: Executor
    answers: Answers
    metrics: Metrics


def find_parts(request: Request) -> Parts:
    """The components of the service."""
    parts: Parts = request.app.state.parts
    return parts


async def find_model(request: Request, deadline: Deadline) -> Served:
    """The model of the path, in the version of the query or the highest that is ready; noted for the log.

    Raises:
        DataError: the query has an unknown parameter.
    """
    query = request.query_params if request.scope["query_string"] else {}
    served = await _find_version(request, query.get("version"), deadline)
    for name in query:
        if name != "version":
            raise unusable(name, "is unknown; expected one of version")
    return served


async def find_model_v2(request: Request, deadline: Deadline) -> Served:
    """The model of the path under V2, in the version of the path or the highest that is ready."""
    return await _find_version(request, request.path_params.get("version"), deadline)


async def _find_version(request: Request, version: str | None, deadline: Deadline) -> Served:
    served = await load_model(find_parts(request), request.path_params["model"], version, deadline)
    request.state.model, request.state.checkpoint = served.name, served.checkpoint
    return served


async def load_model(parts: Parts, name: str, version: str | None, deadline: Deadline) -> Served:
    """A model; if it is not in memory, it is loaded off the event loop. See `Registry.get`.

    Raises:
        DeadlineError: it is still being loaded at the deadline; loading continues.
    """
    served = parts.registry.find(name, version)
    if served is None:
        get = partial(parts.registry.get, name, version)
        served = await parts.work.run(get, "forecast", SLICE, ("load", name, version), deadline)
    return served


def find_deadline(request: Request) -> Deadline:
    """The deadline of a request, by its header or else the setting, and at most `max_request_timeout`.

    Raises:
        DataError: the header is not a number of seconds.
    """
    given, settings = find_header(request.scope, _TIMEOUT), find_parts(request).settings
    seconds = settings.request_timeout if given is None else _read_seconds(given)
    return Deadline.after(min(seconds, settings.max_request_timeout))


def _read_seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0
    if not 0 < seconds < inf:
        raise unusable(TIMEOUT_HEADER, "must be a number of seconds above 0")
    return seconds


def count_warnings(parts: Parts, served: Served, warnings: RangeWarnings) -> None:
    """Counts windows with values outside the training range, by feature."""
    parts.metrics.observe_outside_range(served.name, warnings.counts)


async def get_parts(request: Request) -> Parts:
    """Dependency: the components of the service."""
    return find_parts(request)


async def describe_name(model: Name) -> None:
    """Dependency: documents the path parameter, where the handler itself reads it."""


async def get_deadline(
    request: Request,
    timeout: Annotated[
        float | None,
        Header(
            alias=TIMEOUT_HEADER,
            description="Seconds to wait for a result, at most the setting `max_request_timeout`; then the answer is "
            "503. Absent: the setting `request_timeout`.",
            gt=0,
        ),
    ] = None,
) -> Deadline:
    """Dependency: the deadline of the request."""
    return find_deadline(request)


TheDeadline = Annotated[Deadline, Depends(get_deadline)]


async def get_served(request: Request, model: Name, deadline: TheDeadline, version: VersionParameter = None) -> Served:
    """Dependency: the model of the path, in the version of the query."""
    return await _find_version(request, version, deadline)


async def get_served_v2(request: Request, model: Name, deadline: TheDeadline) -> Served:
    """Dependency: the model and version of the path."""
    return await find_model_v2(request, deadline)


async def get_name(request: Request, model: Name, version: VersionParameter = None) -> str:
    """Dependency: the name of the path, if that model is ready in the version of the query; it is not loaded."""
    entry = find_parts(request).registry.choose(model, version)
    request.state.model, request.state.checkpoint = entry.name, entry.checkpoint
    return entry.name


async def get_name_v2(request: Request, model: Name) -> str:
    """Dependency: the same in the version of the path."""
    return await get_name(request, model, request.path_params.get("version"))


TheParts = Annotated[Parts, Depends(get_parts)]
TheModel = Annotated[Served, Depends(get_served)]
TheModelV2 = Annotated[Served, Depends(get_served_v2)]
TheName = Annotated[str, Depends(get_name)]
TheNameV2 = Annotated[str, Depends(get_name_v2)]
