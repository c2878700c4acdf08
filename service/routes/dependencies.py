"""What handlers ask for: the parts of the service, the model that the path names, and how long to wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request
from starlette.convertors import Convertor, register_url_convertor

from service.http.errors import unusable
from service.http.headers import find_header
from service.models.registry import Registry, Served
from service.schemas.closed import VERSION
from service.schemas.predictions import RangeWarning
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.work.answers import Answers
from service.work.deadlines import Deadline
from service.work.executor import Executor
from service.work.results import GlobalResults


class ModelName(Convertor[str]):
    """A path segment up to the colon, so that ``GET …:predict`` is a wrong method and no model's name."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        """The name as it stands; the registry says whether it exists."""
        return value

    def to_string(self, value: str) -> str:
        """The name as it stands."""
        return value


register_url_convertor("name", ModelName())
OF_A_MODEL = "/models/{model:name}"
MODEL = "/v1" + OF_A_MODEL
MODEL_V2 = "/v2" + OF_A_MODEL  # of the Open Inference Protocol
VERSION_V2 = MODEL_V2 + "/versions/{version:name}"
TIMEOUT_HEADER = "X-Request-Timeout"
_TIMEOUT = TIMEOUT_HEADER.lower().encode()
MAX_TIMEOUT = 3600  # seconds
Name = Annotated[str, Path(description="Name of the model.")]
VersionParameter = Annotated[str | None, Query(description=VERSION)]


@dataclass(frozen=True)
class Parts:
    """The parts of a running service, built once by `create_app`.

    Attributes:
        settings: the settings.
        registry: the models.
        results: global results of the models.
        work: what computes.
        answers: what was answered, where that is the same each time.
        metrics: what Prometheus reads.
    """

    settings: Settings
    registry: Registry
    results: GlobalResults
    work: Executor
    answers: Answers
    metrics: Metrics


def find_parts(request: Request) -> Parts:
    """The parts of the service."""
    parts: Parts = request.app.state.parts
    return parts


def find_model(request: Request) -> Served:
    """The model that the path names, in the version that the query names or the highest, ready to answer.

    The log of the request names it.

    Raises:
        DataError: the query names something else.
    """
    query = request.query_params if request.scope["query_string"] else {}
    served = _find_version(request, query.get("version"))
    for name in query:
        if name != "version":
            raise unusable(name, "is unknown; there are version")
    return served


def find_model_v2(request: Request) -> Served:
    """The model that the path names, in the version that it names or the highest, as the V2 protocol has it."""
    return _find_version(request, request.path_params.get("version"))


def _find_version(request: Request, version: str | None) -> Served:
    served = find_parts(request).registry.get(request.path_params["model"], version)
    request.state.model, request.state.checkpoint = served.name, served.checkpoint
    return served


def find_deadline(request: Request) -> Deadline:
    """How long the request waits, as its header or else the setting says.

    Raises:
        DataError: the header is not a number of seconds.
    """
    given = find_header(request.scope, _TIMEOUT)
    seconds = find_parts(request).settings.request_timeout if given is None else _read_seconds(given)
    return Deadline.after(seconds)


def _read_seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= MAX_TIMEOUT:
        raise unusable(TIMEOUT_HEADER, f"must be a number above 0 and up to {MAX_TIMEOUT}")
    return seconds


def count_warnings(parts: Parts, served: Served, warnings: Sequence[RangeWarning]) -> None:
    """Counts, by feature, what windows have outside the training range."""
    parts.metrics.observe_outside_range(served.name, (warning["feature"] for warning in warnings))


async def get_parts(request: Request) -> Parts:
    """Dependency: the parts of the service."""
    return find_parts(request)


async def get_served(request: Request, model: Name, version: VersionParameter = None) -> Served:
    """Dependency: the model that the path names, in the version that the query names."""
    return _find_version(request, version)


async def get_served_v2(request: Request, model: Name) -> Served:
    """Dependency: the model, and the version, that the path names."""
    return find_model_v2(request)


async def describe_name(model: Name) -> None:
    """Dependency: says what the path of a model consists of, where the handler reads it."""


async def get_deadline(
    request: Request,
    timeout: Annotated[
        float | None,
        Header(
            alias=TIMEOUT_HEADER,
            description="Seconds to wait for a result that is still being computed; then 503. A setting says how many "
            "where it is absent.",
            gt=0,
            le=MAX_TIMEOUT,
        ),
    ] = None,
) -> Deadline:
    """Dependency: how long the request waits."""
    return find_deadline(request)


TheParts = Annotated[Parts, Depends(get_parts)]
TheModel = Annotated[Served, Depends(get_served)]
TheModelV2 = Annotated[Served, Depends(get_served_v2)]
TheDeadline = Annotated[Deadline, Depends(get_deadline)]
