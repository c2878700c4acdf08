"""What handlers ask for: the parts of the service, and the model that the path names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request
from starlette.convertors import Convertor, register_url_convertor

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


@dataclass(frozen=True)
class Parts:
    """The parts of a running service, built once by `create_app`.

    Attributes:
        settings: the settings.
        registry: the models.
        results: global results of the models.
    """

    settings: Settings
    registry: Registry
    results: GlobalResults


async def get_parts(request: Request) -> Parts:
    """Dependency: the parts of the service."""
    parts: Parts = request.app.state.parts
    return parts


async def get_served(
    parts: Annotated[Parts, Depends(get_parts)],
    model: Annotated[str, Path(description="Name of the model.")],
) -> Served:
    """Dependency: the model that the path names, ready to answer."""
    return parts.registry.get(model)


TheParts = Annotated[Parts, Depends(get_parts)]
TheModel = Annotated[Served, Depends(get_served)]
