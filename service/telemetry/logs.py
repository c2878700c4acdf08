"""The log: one line for each request, and the lines of every library, in JSON or for people, on stderr."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import Processor

from service.settings import Settings

STATED = ("client", "model", "checkpoint", "windows")  # of a request's state, what its line says where it is there
PIPE_BUF = 4096  # bytes that are written as a whole where several processes write to one pipe (POSIX)
CLOCK = "%H:%M:%S"  # the time of a line for people


class RequestLog:
    """One line on each answered request: never what it held.

    It writes by itself, since the standard library's logging takes several times as long, and what was answered in one
    turn of the event loop at once.

    Args:
        settings: format and level.
        stream: where to; None for stderr.
    """

    def __init__(self, settings: Settings, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._is_wanted = logging.getLevelNamesMapping()[settings.log_level.upper()] <= logging.INFO
        self._stated = {"event": "request", "level": "info", **_stated_process(settings)}
        self._dump = _dump_line if _is_json(settings, self._stream) else _console_dump(self._stream)
        self._lines: list[bytes] = []

    def write(self, state: Mapping[str, Any], method: str, route: str, status: int, seconds: float) -> None:
        """Adds the line on one request.

        Args:
            state: the request's; its id, and what handlers put there under the names of `STATED`.
            method: its method.
            route: template of its path.
            status: status of the answer.
            seconds: from its arrival to the end of the answer.
        """
        if not self._is_wanted:
            return
        line = {
            **self._stated,
            "timestamp": datetime.now(UTC),
            "id": state["request_id"],
            "method": method,
            "route": route,
            "status": status,
            "seconds": round(seconds, 6),
        }
        for name in STATED:
            if name in state:
                line[name] = state[name]
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self._lines.append(self._dump(line))

    def flush(self) -> None:
        """Writes the lines that were added."""
        lines, self._lines = self._lines, []
        text = bytearray()
        for line in lines:
            if len(text) + len(line) > PIPE_BUF:
                self._write(text)
                text.clear()
            text += line
        self._write(text)

    def _write(self, text: bytes | bytearray) -> None:
        self._stream.buffer.write(text)
        self._stream.buffer.flush()


def _dump_line(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def _console_dump(stream: TextIO) -> Callable[[dict[str, Any]], bytes]:
    """What makes a line for people."""
    render = _console_renderer(stream)

    def dump(line: dict[str, Any]) -> bytes:
        local = line["timestamp"].astimezone().strftime(CLOCK)
        return (render(None, "info", {**line, "timestamp": local}) + "\n").encode()

    return dump


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
                structlog.processors.JSONRenderer(_dump_text) if json else _console_renderer(sys.stderr),
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
    return structlog.processors.TimeStamper(fmt="iso") if json else structlog.processors.TimeStamper(CLOCK, utc=False)


def _dump_text(line: Any, **options: Any) -> str:
    return orjson.dumps(line, **options).decode()


def _console_renderer(stream: TextIO) -> structlog.dev.ConsoleRenderer:
    """Lines for people. Their tracebacks are plain, since the richer ones show the values of variables."""
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0, sort_keys=False
    )
