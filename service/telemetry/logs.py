"""The log: one line for each request, and the lines of every library, in JSON or for people, on stderr."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import FilteringBoundLogger, Processor

from service.settings import Settings

STATED = ("client", "model", "checkpoint", "windows")  # of a request's state, what its line says where it is there


def make_request_log(settings: Settings, stream: TextIO | None = None) -> FilteringBoundLogger:
    """The logger of requests. It writes by itself, since the standard library's logging takes several times as long.

    Args:
        settings: format and level.
        stream: where to; None for stderr.
    """
    stream = sys.stderr if stream is None else stream
    json = _is_json(settings, stream)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.BytesLogger(stream.buffer) if json else structlog.WriteLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            _stamper(json),
            _renderer(orjson.dumps if json else None, stream),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
    ).bind(**_stated_process(settings))
    return logger


def log_request(
    log: FilteringBoundLogger, state: Mapping[str, Any], method: str, route: str, status: int, seconds: float
) -> None:
    """One line on an answered request: never what it held.

    Args:
        log: the logger of requests.
        state: the request's; its id, and what handlers put there under the names of `STATED`.
        method: its method.
        route: template of its path.
        status: status of the answer.
        seconds: from its arrival to the end of the answer.
    """
    stated = {name: state[name] for name in STATED if name in state}
    log.info(
        "request",
        id=state["request_id"],
        method=method,
        route=route,
        status=status,
        seconds=round(seconds, 6),
        **stated,
    )


def configure_logging(settings: Settings) -> None:
    """Makes what the service and its libraries log by the standard library look like the lines of requests."""
    json = _is_json(settings, sys.stderr)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                lambda _, __, line: {**line, **_stated_process(settings)},
                _stamper(json),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([structlog.processors.format_exc_info] if json else []),
                _renderer(_dump_text if json else None, sys.stderr),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    logging.captureWarnings(True)


def _stated_process(settings: Settings) -> dict[str, int]:
    """Which process a line is of, where there are several."""
    return {"process": os.getpid()} if settings.is_shared else {}


def _is_json(settings: Settings, stream: TextIO) -> bool:
    return settings.log_format == "json" or (settings.log_format == "auto" and not stream.isatty())


def _stamper(json: bool) -> Processor:
    return structlog.processors.TimeStamper(fmt="iso") if json else structlog.processors.TimeStamper("%H:%M:%S", False)


def _dump_text(line: Any, **options: Any) -> str:
    return orjson.dumps(line, **options).decode()


def _renderer(dump: Callable[..., str | bytes] | None, stream: TextIO) -> Processor:
    """The last processor: JSON, or lines for people where `dump` is None.

    Their tracebacks are plain, since the richer ones show the values of variables.
    """
    if dump is not None:
        return structlog.processors.JSONRenderer(dump)
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0, sort_keys=False
    )
