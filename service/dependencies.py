"""What handlers ask for: the parts of the service, the model that the path names, and how long to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Path, Request
from starlette.convertors import Convertor, register_url_convertor

from service.errors import NotReadyError
from service.metrics import Metrics
from service.registry import Registry, Served
from service.results import GlobalResults
from service.settings import Settings


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
MODEL = "/v1/models/{model:name}"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Parts:
    """The parts of a running service, built once by `create_app`.

    Attributes:
        settings: the settings.
        registry: the models.
        results: global results of the models.
        metrics: what Prometheus reads.
    """

    settings: Settings
    registry: Registry
    results: GlobalResults
    metrics: Metrics


@dataclass(frozen=True)
class Deadline:
    """When a request has waited long enough.

    Attributes:
        seconds: how long it waits, from its arrival.
        time: when that is over, by the clock of the event loop.
    """

    seconds: float
    time: float

    async def wait(self, result: Awaitable[Result]) -> Result:
        """A global result, if it is there in time; whatever computes it goes on.

        Raises:
            NotReadyError: it is not.
        """
        try:
            async with asyncio.timeout_at(self.time) as timeout:
                return await result
        except TimeoutError:
            if not timeout.expired():
                raise
            message = f"the result is still being computed after {self.seconds:g} s (request_timeout); ask again"
            raise NotReadyError(message, headers={"Retry-After": "1"}) from None


async def get_parts(request: Request) -> Parts:
    """Dependency: the parts of the service."""
    parts: Parts = request.app.state.parts
    return parts


async def get_served(
    request: Request,
    parts: Annotated[Parts, Depends(get_parts)],
    model: Annotated[str, Path(description="Name of the model.")],
) -> Served:
    """Dependency: the model that the path names, ready to answer. The log of the request names it."""
    served = parts.registry.get(model)
    request.state.model, request.state.checkpoint = served.name, served.checkpoint
    return served


async def get_deadline(
    parts: Annotated[Parts, Depends(get_parts)],
    timeout: Annotated[
        float | None,
        Header(
            alias="X-Request-Timeout",
            description="Seconds to wait for a result that is still being computed; then 503. A setting says how many "
            "where it is absent.",
            gt=0,
            le=3600,
        ),
    ] = None,
) -> Deadline:
    """Dependency: how long the request waits."""
    seconds = parts.settings.request_timeout if timeout is None else timeout
    return Deadline(seconds, asyncio.get_running_loop().time() + seconds)


TheParts = Annotated[Parts, Depends(get_parts)]
TheModel = Annotated[Served, Depends(get_served)]
TheDeadline = Annotated[Deadline, Depends(get_deadline)]
