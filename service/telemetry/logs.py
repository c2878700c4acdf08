"""Logging on stderr, as JSON or as plain text: an access log, and the records of every library.

Lines are written by a thread, so that nothing waits for a reader of stderr that is slow or gone.
"""

import atexit
import logging
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, TextIO

import orjson

from service.settings import Settings
from service.telemetry.backlog import Backlog
from service.telemetry.otlp import LogSender, find_logs

logger = logging.getLogger(__name__)
LOGGED = ("code", "address", "client", "model", "checkpoint", "windows")  # of a request's state, if they are set
PIPE_BUF = 4096  # bytes that are written atomically when several processes share a pipe (POSIX)
QUEUE_BYTES = 1 << 20  # of lines that wait to be written
WRITE_SECONDS = 0.1  # by which a line may be late
FLUSH_SECONDS = 1.0  # in which the rest is written as the process ends
CONSOLE, CLOCK = "%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"  # format of plain text


class LogWriter:
    """Writes lines to a stream on a thread of its own.

    Those that do not fit in its queue, because the stream takes no more, or that cannot be written, are dropped:
    `on_drop` is called with their number, and a line says so once there is room.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.on_drop: Callable[[int], None] = lambda n: None
        self._is_ending = self._has_dropped = False  # dropped: since that was last said
        self._backlog: Backlog[bytes] = Backlog(
            "log", QUEUE_BYTES, WRITE_SECONDS, self._write, "the log cannot be written", "the log is written again"
        )
        self._backlog.start()
        atexit.register(self.close)

    def put(self, line: bytes) -> None:
        """Adds a line, which ends with a line feed; takes microseconds."""
        if not self._backlog.put(len(line), line):
            self._drop(1)

    def hurry(self) -> None:
        """Has what waits written now; once the process is ending, waits for that, for at most `FLUSH_SECONDS`."""
        if self._is_ending:
            self._backlog.flush(FLUSH_SECONDS)
        else:
            self._backlog.wake()

    def close(self) -> None:
        """Writes what waits, as far as that is possible in time; lines may still be put."""
        self._is_ending = True
        self.hurry()

    def _write(self, _: bool) -> None:
        while lines := self._backlog.take():
            left = len(lines)
            if self._stream.closed:  # nobody could be told
                self.on_drop(left)
                continue
            try:
                for piece in _group(lines):
                    self._stream.buffer.write(b"".join(piece))
                    self._stream.buffer.flush()
                    left -= len(piece)
            except Exception:
                self._drop(left)
                raise
        if self._has_dropped:
            self._has_dropped = False
            text = "lines of the log are missing here, and kanscope_log_lines_dropped_total counts them"
            logger.warning("%s; raise KANSCOPE_LOG_LEVEL, or read stderr faster", text)

    def _drop(self, n: int) -> None:
        self._has_dropped = True
        self.on_drop(n)


class RequestLog:
    """The access log: one line per request, without any of its data, on stderr if no other stream is given.

    It does not use the standard library's logging, which takes several times as long. `on_drop` as in `LogWriter`.
    """

    def __init__(
        self, settings: Settings, on_drop: Callable[[int], None] | None = None, stream: TextIO | None = None
    ) -> None:
        stream = sys.stderr if stream is None else stream
        self._writer = find_writer(stream)
        self.close = self._writer.close
        if on_drop is not None:
            self._writer.on_drop = on_drop
        self._is_wanted = settings.log_level in ("debug", "info")
        is_json, process = _choose_form(settings, stream)
        self._shared = {"event": "request", "level": "info", **process}
        self._sent = find_logs()
        self._dump = _dump_json if is_json else _dump_for_console

    def write(self, state: Mapping[str, Any], method: str, route: str, status: int, seconds: float) -> None:
        """Adds the line of one request: its state and method, its path's template, and the answer's status and time."""
        if not self._is_wanted:
            return
        line = {**self._shared, "timestamp": datetime.now(UTC), "id": state["request_id"], "method": method}
        line |= {"route": route, "status": status, "seconds": round(seconds, 6)}
        line |= {name: state[name] for name in LOGGED if name in state}
        if self._sent is not None:
            self._sent.emit_request(line)
        self._writer.put(self._dump(line))


def configure_logging(settings: Settings) -> None:
    """Formats the records of the standard library's logging like the access log, and sends both by OTLP if asked to."""
    is_json, process = _choose_form(settings, sys.stderr)
    handler: logging.Handler = _Handler(find_writer(sys.stderr))
    handler.setFormatter(_JsonFormatter(process) if is_json else logging.Formatter(CONSOLE, CLOCK))
    sent = find_logs()
    handlers = [handler] if sent is None else [handler, LogSender(sent)]
    logging.basicConfig(handlers=handlers, level=settings.log_level.upper(), force=True)
    logging.captureWarnings(True)


@cache
def find_writer(stream: TextIO) -> LogWriter:
    """The only writer of a stream in this process."""
    return LogWriter(stream)


class _Handler(logging.Handler):
    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Gives a record to the writer."""
        try:
            line = self.format(record)
        except Exception:
            return self.handleError(record)
        self._writer.put(f"{line}\n".encode(errors="replace"))
        self._writer.hurry()


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


def _group(lines: list[bytes]) -> list[list[bytes]]:
    """Lines in pieces of at most `PIPE_BUF` where no line is longer: other processes' lines cannot split them."""
    pieces, room = list[list[bytes]](), 0
    for line in lines:
        if len(line) > room or not pieces:
            pieces.append([])
            room = PIPE_BUF
        pieces[-1].append(line)
        room -= len(line)
    return pieces


def _choose_form(settings: Settings, stream: TextIO) -> tuple[bool, dict[str, int]]:
    """Whether lines are JSON, and the process id for each of them, if there are several processes."""
    is_json = settings.log_format == "json" or (settings.log_format == "auto" and not stream.isatty())
    return is_json, {"process": os.getpid()} if settings.is_shared else {}
