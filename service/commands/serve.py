"""``kanscope serve``: the HTTP service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from pydantic import ValidationError

from kanmodel.errors import ConfigError
from service.settings import Settings


def serve(
    models: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of checkpoints, or one file. Default: KANSCOPE_MODELS, or the bundled model where "
            "that is unset or the folder is empty."
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: KANSCOPE_HOST, or 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on. Default: KANSCOPE_PORT, or 8000."),
    ] = None,
) -> None:
    """Serve models over HTTP, by default the bundled one at http://127.0.0.1:8000."""
    from service.app import create_app  # here, since the other commands start faster without FastAPI

    settings = choose_settings(models, host, port)
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, root_path=settings.root_path)


def choose_settings(models: Path | None, host: str | None, port: int | None) -> Settings:
    """The settings of the environment, under those of the command line.

    Raises:
        ConfigError: a variable of the environment has a value that it can't have.
    """
    given = {"models": models, "host": host, "port": port}
    try:
        return Settings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "KANSCOPE_" + "_".join(map(str, first["loc"])).upper()
        raise ConfigError(f"{name} is {first['input']!r}: {first['msg'].lower()}") from error
