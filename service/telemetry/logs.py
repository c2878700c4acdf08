"""Logging: a line per request and the lines of every library, as JSON or for people, on stderr."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from service.settings import Settings

STATED = ("client", "model", "checkpoint", "windows")  # of a request's state, what its line says where it is there
PIPE_BUF = 4096  # bytes that are written as a whole where several processes write to one pipe (POSIX)
PEOPLE, CLOCK = "%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"  # of lines for people


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
        self._dump = _dump_line if _is_json(settings, self._stream) else _dump_for_people
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


def configure_logging(settings: Settings) -> None:
    """Makes what the service and its libraries log by the standard library look like the lines of requests."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(settings) if _is_json(settings, sys.stderr) else logging.Formatter(PEOPLE, CLOCK))
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    logging.captureWarnings(True)


class _JsonLines(logging.Formatter):
    """A record as one line of JSON; its traceback shows no values of variables.

    Args:
        settings: which say whether there are several processes.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._stated = _stated_process(settings)

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            **self._stated,
            "event": _as_unicode(record.getMessage()),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": datetime.fromtimestamp(record.created, UTC),
        }
        if record.exc_info:
            line["exception"] = _as_unicode(self.formatException(record.exc_info))
        return orjson.dumps(line, option=orjson.OPT_UTC_Z).decode()


def _dump_line(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def _dump_for_people(line: dict[str, Any]) -> bytes:
    clock = line.pop("timestamp").astimezone().strftime(CLOCK)
    level, event = line.pop("level").upper(), line.pop("event")
    members = " ".join(f"{name}={value}" for name, value in line.items())
    return f"{clock} {level} {event} {members}\n".encode()


def _as_unicode(text: str) -> str:
    """The text without halves of surrogate pairs, such as a file name that is no UTF-8 has."""
    return text.encode(errors="replace").decode()


def _stated_process(settings: Settings) -> dict[str, int]:
    """Which process a line is of, where there are several."""
    return {"process": os.getpid()} if settings.is_shared else {}


def _is_json(settings: Settings, stream: TextIO) -> bool:
    return settings.log_format == "json" or (settings.log_format == "auto" and not stream.isatty())
