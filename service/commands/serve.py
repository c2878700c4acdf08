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
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that answer. Default: KANSCOPE_WORKERS, or 1.")
    ] = None,
    no_auth: Annotated[
        bool | None,
        typer.Option("--no-auth", help="Serve without API keys on an address that others reach.", show_default=False),
    ] = None,
) -> None:
    """Serve models over HTTP, by default the bundled one at http://127.0.0.1:8000."""
    # Here, since the other commands start faster without FastAPI.
    from service.app import create_app
    from service.logs import configure_logging
    from service.server import server_options
    from service.workers import serve_workers

    settings = choose_settings(models=models, host=host, port=port, workers=workers, no_auth=no_auth)
    app = create_app(settings)  # of several workers' settings too, what is wrong is said here and once
    configure_logging(settings)
    if settings.workers > 1:
        serve_workers(settings)
    else:
        uvicorn.run(app, **server_options(settings))


def choose_settings(**given: object) -> Settings:
    """The settings of the environment, under those of the command line that are not None.

    Raises:
        ConfigError: a variable of the environment has a value that it can't have.
    """
    try:
        return Settings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "KANSCOPE_" + "_".join(map(str, first["loc"])).upper()
        raise ConfigError(f"{name} is {first['input']!r}: {first['msg'].lower()}") from error
