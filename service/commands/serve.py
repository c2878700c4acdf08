"""``kanscope serve``: the HTTP service."""

import logging
import os
from pathlib import Path
from typing import Annotated, Literal

import uvicorn
from typer import Argument, Option

from kanmodel.errors import ConfigError
from service.settings import check_variables, choose_settings

# Read by Ray when it is imported: no usage reports, and no deduplication of the replicas' log lines.
RAY_VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0"}


def serve(
    models: Annotated[Path | None, Argument(help="Folder or file; KANSCOPE_MODELS, or the bundled model.")] = None,
    host: Annotated[str | None, Option(help="Address to listen on. Default: KANSCOPE_HOST, or 127.0.0.1.")] = None,
    port: Annotated[int | None, Option(min=0, max=65535, help="Its port. Default: KANSCOPE_PORT, or 8000.")] = None,
    workers: Annotated[int | None, Option(min=1, help="Worker processes. Default: KANSCOPE_WORKERS, or 1.")] = None,
    engine: Annotated[Literal["process", "ray"] | None, Option(help="Default: KANSCOPE_ENGINE, or process.")] = None,
    no_auth: Annotated[bool | None, Option("--no-auth", help="Serve without API keys, also to other machines.")] = None,
) -> None:
    """Serve models over HTTP, by default, and while the folder is empty, the bundled one at http://127.0.0.1:8000."""
    from service.app import create_app
    from service.engines.workers import serve_workers
    from service.telemetry.logs import configure_logging
    from service.wire.connections import server_options

    settings = choose_settings(models=models, host=host, port=port, workers=workers, engine=engine, no_auth=no_auth)
    app = create_app(settings)  # with several workers too, so that bad settings are reported once, by this process
    configure_logging(settings)
    for warning in check_variables(os.environ):
        logging.getLogger(__name__).warning(warning)
    if settings.engine == "ray":
        for name, value in RAY_VARIABLES.items():
            os.environ.setdefault(name, value)
        try:
            from service.engines.ray import serve_on_ray
        except ModuleNotFoundError as error:
            raise ConfigError("the engine ray needs Ray: pip install 'kanscope[ray]'") from error
        serve_on_ray(settings)
    elif settings.workers > 1:
        serve_workers(settings)
    else:
        uvicorn.run(app, **server_options(settings))
