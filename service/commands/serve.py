"""``kanscope serve``: the HTTP service."""

import logging
import os
import re
import socket
from typing import Annotated

import uvicorn
from rich.markup import escape
from typer import Argument, Option

from kanmodel.errors import ConfigError
from service.app import create_app
from service.engines.workers import serve_workers
from service.settings import check_variables, choose_settings, describe_settings
from service.telemetry.logs import configure_logging
from service.wire.connections import server_options

EPILOG = "Settings, by environment variables; an option takes precedence:\n\n" + "\n".join(
    escape(f"{variable}={default}  {meaning}") for variable, default, meaning in describe_settings()
)


def serve(
    models: Annotated[
        str | None, Argument(help="KANSCOPE_MODELS: folder, file or URL; else the bundled model.")
    ] = None,
    host: Annotated[str | None, Option(help="KANSCOPE_HOST: address to listen on.")] = None,
    port: Annotated[
        int | None, Option("--port", "--http_port", min=0, max=65535, help="KANSCOPE_PORT: its port.")
    ] = None,
    workers: Annotated[int | None, Option(min=1, help="KANSCOPE_WORKERS: processes that answer.")] = None,
    no_auth: Annotated[bool | None, Option("--no-auth", help="Serve without API keys, also to other machines.")] = None,
    model_name: Annotated[
        str | None, Option("--model_name", help="KANSCOPE_MODEL_NAME: another name for the only model.")
    ] = None,
    _: Annotated[
        str | None, Option("--predictor_host", help="Of KServe; not asked, as an explainer here has the model itself.")
    ] = None,
) -> None:
    """Serve models over HTTP, by default the bundled one, at http://127.0.0.1:8000."""
    given = {"models": models, "host": host, "port": port, "workers": workers, "no_auth": no_auth}
    settings = choose_settings(**given, model_name=model_name)
    configure_logging(settings)
    app = create_app(settings)  # with several workers too, so that bad settings are reported once, by this process
    _check_address(settings.host, settings.port)
    logging.getLogger("uvicorn.error").addFilter(_add_explorer)
    for warning in check_variables(os.environ):
        logging.getLogger(__name__).warning("%s", warning)
    if settings.workers > 1:
        serve_workers(settings)
    else:
        uvicorn.run(app, **server_options(settings))


def _check_address(host: str, port: int) -> None:
    """Raises ConfigError if nothing can listen there, before the models are loaded."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]  # which Python adds
        message = f"{reason}: {host}, port {port}; choose another with --port or KANSCOPE_PORT, or with --host"
        raise ConfigError(message) from None


def _add_explorer(record: logging.LogRecord) -> bool:
    """Says where the explorer is in uvicorn's line with its address, which it knows once it listens."""
    if address := re.search(r" running on (http\S+)", record.getMessage()):
        record.msg, record.args = f"{record.getMessage()}; the explorer is at {address[1]}/explorer", ()
    return True
