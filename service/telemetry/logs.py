"""Logging on stderr, as JSON or as plain text: an access log, and the records of every library."""

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

# Members of a request's state that its line has, if they are set.
STATED = ("address", "client", "model", "checkpoint", "windows")
PIPE_BUF = 4096  # bytes that are written atomically when several processes share a pipe (POSIX)
PEOPLE, CLOCK = "%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"  # format of plain text


class RequestLog:
    """The access log: one line per request, without any of its data.

    It does not use the standard library's logging, which takes several times as long, and writes the lines of one turn
    of the event loop together.

    Args:
        settings: format and level.
        stream: where it writes; None for stderr.
    """

    def __init__(self, settings: Settings, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._is_wanted = logging.getLevelNamesMapping()[settings.log_level.upper()] <= logging.INFO
        self._stated = {"event": "request", "level": "info", **_stated_process(settings)}
        self._dump = _dump_line if _is_json(settings, self._stream) else _dump_for_people
        self._lines: list[bytes] = []

    def write(self, state: Mapping[str, Any], method: str, route: str, status: int, seconds: float) -> None:
        """Adds the line of one request.

        Args:
            state: the request's state: its id, and the members of `STATED` that are set.
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
    """Formats the records of the standard library's logging like the access log."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(settings) if _is_json(settings, sys.stderr) else logging.Formatter(PEOPLE, CLOCK))
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    logging.captureWarnings(True)


class _JsonLines(logging.Formatter):
    """Formats a record as one line of JSON, with a traceback without values of variables.

    Args:
        settings: determine whether lines state their process.
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
    """The text without lone surrogates, as in a file name that is not valid UTF-8."""
    return text.encode(errors="replace").decode()


def _stated_process(settings: Settings) -> dict[str, int]:
    """The process id for each line, if there are several processes."""
    return {"process": os.getpid()} if settings.is_shared else {}


def _is_json(settings: Settings, stream: TextIO) -> bool:
    return settings.log_format == "json" or (settings.log_format == "auto" and not stream.isatty())
