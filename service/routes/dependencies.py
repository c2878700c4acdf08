"""What handlers ask for: the parts of the service, the model that the path names, and how long to wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Path, Request
from starlette.convertors import Convertor, register_url_convertor

from service.http.errors import unusable
from service.models.registry import Registry, Served
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
TIMEOUT_HEADER = "X-Request-Timeout"
MAX_TIMEOUT = 3600  # seconds
Name = Annotated[str, Path(description="Name of the model.")]


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
    """The model that the path names, in the version that it names or the highest, ready to answer.

    The log of the request names it.
    """
    served = find_parts(request).registry.get(request.path_params["model"], request.path_params.get("version"))
    request.state.model, request.state.checkpoint = served.name, served.checkpoint
    return served


def find_deadline(request: Request) -> Deadline:
    """How long the request waits, as its header or else the setting says.

    Raises:
        DataError: the header is not a number of seconds.
    """
    given = request.headers.get(TIMEOUT_HEADER)
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


async def get_parts(request: Request) -> Parts:
    """Dependency: the parts of the service."""
    return find_parts(request)


async def get_served(request: Request, model: Name) -> Served:
    """Dependency: the model that the path names."""
    return find_model(request)


async def describe_name(model: Name) -> None:
    """Dependency: says what the path of a model consists of, where the handler reads it."""


async def describe_version(
    model: Name, version: Annotated[str, Path(description="Version of the model, such as `1`.")]
) -> None:
    """Dependency: says what the path of a version consists of; `find_model` reads it."""


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
TheDeadline = Annotated[Deadline, Depends(get_deadline)]
