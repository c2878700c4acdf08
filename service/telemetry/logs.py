"""Logging on stderr, as JSON or as plain text: an access log, and the records of every library."""

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from service.settings import Settings

LOGGED = ("address", "client", "model", "checkpoint", "windows")  # of a request's state, if they are set
PIPE_BUF = 4096  # bytes that are written atomically when several processes share a pipe (POSIX)
CONSOLE, CLOCK = "%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"  # format of plain text


class RequestLog:
    """The access log: one line per request, without any of its data, on stderr if no other stream is given.

    It does not use the standard library's logging, which takes several times as long, and writes the lines of one turn
    of the event loop together.
    """

    def __init__(self, settings: Settings, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._is_wanted = settings.log_level in ("debug", "info")
        is_json, process = _choose_form(settings, self._stream)
        self._shared = {"event": "request", "level": "info", **process}
        self._dump = _dump_json if is_json else _dump_for_console
        self._lines: list[bytes] = []

    def write(self, state: Mapping[str, Any], method: str, route: str, status: int, seconds: float) -> None:
        """Adds the line of one request: its state and method, its path's template, and the answer's status and time."""
        if not self._is_wanted:
            return
        line = {**self._shared, "timestamp": datetime.now(UTC), "id": state["request_id"], "method": method}
        line |= {"route": route, "status": status, "seconds": round(seconds, 6)}
        line |= {name: state[name] for name in LOGGED if name in state}
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self._lines.append(self._dump(line))

    def flush(self) -> None:
        """Writes the lines that were added, in pieces of at most `PIPE_BUF` where no line is longer."""
        pieces = [bytearray()]
        for line in self._lines:
            if len(pieces[-1]) + len(line) > PIPE_BUF:
                pieces.append(bytearray())
            pieces[-1] += line
        self._lines.clear()
        for piece in pieces:
            self._stream.buffer.write(piece)
            self._stream.buffer.flush()


def configure_logging(settings: Settings) -> None:
    """Formats the records of the standard library's logging like the access log."""
    logging.basicConfig(format=CONSOLE, datefmt=CLOCK, level=settings.log_level.upper(), force=True)
    is_json, process = _choose_form(settings, sys.stderr)
    if is_json:
        logging.root.handlers[0].setFormatter(_JsonFormatter(process))
    logging.captureWarnings(True)


class _JsonFormatter(logging.Formatter):
    def __init__(self, shared: dict[str, int]) -> None:
        super().__init__()
        self._shared = shared

    def format(self, record: logging.LogRecord) -> str:
        """A line of JSON, without its end, with the members shared by all lines; a traceback shows no variables."""
        texts = {"event": record.getMessage(), "level": record.levelname.lower(), "logger": record.name}
        if record.exc_info:
            texts["exception"] = self.formatException(record.exc_info)
        # JSON has no lone surrogates, as of a file name that is not valid UTF-8.
        line = {name: text.encode(errors="replace").decode() for name, text in texts.items()}
        time = datetime.fromtimestamp(record.created, UTC)
        return _dump_json({**self._shared, **line, "timestamp": time}).decode().removesuffix("\n")


def _dump_json(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def _dump_for_console(line: dict[str, Any]) -> bytes:
    clock = line.pop("timestamp").astimezone().strftime(CLOCK)
    level, event = line.pop("level").upper(), line.pop("event")
    members = " ".join(f"{name}={value}" for name, value in line.items())
    return f"{clock} {level} {event} {members}\n".encode()


def _choose_form(settings: Settings, stream: TextIO) -> tuple[bool, dict[str, int]]:
    """Whether lines are JSON, and the process id for each of them, if there are several processes."""
    is_json = settings.log_format == "json" or (settings.log_format == "auto" and not stream.isatty())
    return is_json, {"process": os.getpid()} if settings.is_shared else {}
