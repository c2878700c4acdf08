"""The record: what was forecast and explained, as CloudEvents in chained files, or sent to another service.

Types, attributes and the binary mode of HTTP are those of KServe's logger (`pkg/logger/worker.go`), which TrustyAI and
other consumers of KServe read. Events are made and written by a thread of their own, from a queue of bounded size.
"""

import json
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib.metadata import version
from pathlib import Path
from random import random
from threading import Lock
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

import orjson
from pydantic import HttpUrl, SecretStr

from kanmodel.errors import ConfigError
from service.settings import Settings
from service.telemetry.backlog import Backlog
from service.telemetry.chain import LOST, OWN, ChainedFiles, Event, to_text
from service.telemetry.metrics import Metrics
from service.wire.headers import new_request_id
from service.wire.json import JSON

logger = logging.getLogger(__name__)
REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"
SECRET = frozenset({"authorization", "cookie", "proxy-authorization"})  # headers that are not recorded
ITEMS = 256  # requests whose events are made, written and synchronised together: a disk may take 10 ms for that
ITEM_BYTES = 2000  # that each takes in the queue beside its arrays
SINK_SECONDS = 10.0  # in which a sink must answer
SAY_SECONDS = 5.0  # between two events about lost ones
_RETRIED = frozenset({408, 425, 429})  # and all from 500
_HEADER_SAFE = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"  # that HTTP's binding of CloudEvents, section 3.1.3.2, leaves as it is

Described = Callable[[], Iterable[Event]]


class Record:
    """Takes what is to be recorded from any thread, and writes it on its own, once it is started.

    Where writing fails or is slow, requests wait in the queue; those that do not fit in it are counted as lost.

    Raises ConfigError if its folder or address cannot be used, or headers are to be recorded that hold keys.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        assert settings.record is not None
        self._share = settings.record_share
        self.names = frozenset(_split(settings.record_inputs))  # of features, as in the settings
        self._headers = {name.lower().encode(): name for name in _split(settings.record_headers)}
        if kept := SECRET & {name.lower() for name in self._headers.values()}:
            raise ConfigError(f"KANSCOPE_RECORD_HEADERS has {', '.join(sorted(kept))}, which may hold a key")
        self._metrics = metrics
        self._namespace = os.environ.get("POD_NAMESPACE", "default")
        self._sink: ChainedFiles | HttpSink
        if isinstance(settings.record, Path):
            _prepare(settings.record)
            limits = settings.record_file_bytes, settings.record_days, settings.record_bytes
            self._sink = ChainedFiles(settings.record, self._describe_itself, *limits)
        else:
            self._sink = HttpSink(settings.record, settings.record_token)
        self._backlog: Backlog[tuple[int, Described]] = Backlog(
            "record",
            settings.record_queue_bytes,
            settings.record_seconds,
            self._write_all,
            "the record cannot be written, and requests wait to be recorded",
            "the record is written again",
        )
        self._lock = Lock()  # of what is lost
        self._events: deque[Any] = deque()  # which are being written, as the sink encodes them
        self._lost: Counter[str] = Counter()  # events by reason, since that was last said
        self._said = -SAY_SECONDS  # when
        self._refusal = ""  # the last of the sink

    def start(self) -> None:
        """Starts writing."""
        self._backlog.start()

    def close(self) -> None:
        """Writes the rest, as far as `Backlog.close` waits for it."""
        waiting = sum(n_events for n_events, _ in self._backlog.close())
        if left := len(self._events) + waiting:
            logger.error("the process ends before %d events are recorded", left)

    def draw(self) -> bool:
        """Whether the next request is among the share that is recorded."""
        return self._share >= 1 or random() < self._share  # nosec B311

    def show(self, features: Sequence[str]) -> list[int]:
        """The indices of the features whose values are recorded."""
        is_all = "*" in self.names
        return [
            number
            for number, name in enumerate(features)
            if (is_all or name in self.names) and f"-{name}" not in self.names
        ]

    def choose_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
        """The headers that are recorded, by the names in the settings."""
        chosen: dict[str, list[str]] = {}
        for key, value in headers if self._headers else ():
            if key in self._headers:
                chosen.setdefault(self._headers[key], []).append(value.decode("latin-1"))
        return chosen

    def put(self, n_bytes: int, n_events: int, describe: Described) -> None:
        """Records events that `describe` makes, on the thread; `n_bytes` is what it holds until then."""
        if not self._backlog.put(n_bytes + ITEM_BYTES, (n_events, describe)):
            self._lose("full", n_events)

    def describe(
        self,
        kind: str,
        data: object,
        id: str,
        source: str,
        time: datetime,
        name: str,
        component: str,
        headers: Mapping[str, list[str]],
    ) -> Event:
        """An event about the model of a name; members are as KServe's logger has them."""
        return {
            "specversion": "1.0",
            "type": kind,
            "id": id,
            "source": source,
            "time": to_text(time),
            "inferenceservicename": name,
            "namespace": self._namespace,
            "component": component,
            "endpoint": "default",
            "metadata": json.dumps(headers) if headers else "{}",
            "datacontenttype": JSON,
            "data": data,
        }

    def _describe_itself(self, kind: str, data: Mapping[str, Any]) -> Event:
        more: dict[str, Any] = {"specversion": "1.0", "type": kind, "id": new_request_id(), "source": "kanscope"}
        more |= {"time": to_text(datetime.now(UTC)), "datacontenttype": JSON, "data": data}
        if "ends" in data:
            settings = {"share": self._share, "inputs": sorted(self.names), "headers": [*self._headers.values()]}
            more["data"] = {**data, "version": version("kanscope"), "settings": settings}
        return more

    def _write_all(self, is_last: bool) -> None:
        """Writes what is in the queue; raises OSError if it can't."""
        try:
            while self._events or self._take(is_last):
                self._write()
            self._sink.write(self._events)
        finally:
            if is_last:
                self._sink.close()

    def _write(self) -> None:
        """Writes the events that are made, up to one that is refused."""
        n_events, refused = len(self._events), 0
        try:
            self._sink.write(self._events)
        except RefusedError as error:
            refused, self._refusal = 1, f", as the sink {error}"
            if error.is_lost:
                self._lose("refused", 1)
        finally:
            self._metrics.recorded.inc(n_events - len(self._events) - refused)

    def _take(self, is_last: bool) -> bool:
        """Makes the next events from the queue, after one about those that were lost; returns whether there are any."""
        taken = self._backlog.take(ITEMS)
        is_said = bool(self._lost) and (is_last or monotonic() - self._said >= SAY_SECONDS)
        with self._lock:
            lost = dict(self._lost) if is_said else {}
            if is_said:
                self._lost.clear()
        if lost:
            self._said = monotonic()
            told = ", ".join(f"{n} {reason}" for reason, n in lost.items())
            logger.warning("events were not recorded: %s%s", told, self._refusal if "refused" in lost else "")
            self._events.append(self._sink.encode(self._describe_itself(LOST, lost)))
        for n_events, describe in taken:
            try:
                self._events.extend([self._sink.encode(event) for event in describe()])
            except Exception:  # of one request, which does not affect the others
                logger.exception("an event could not be made")
                self._lose("failed", n_events)
        sleep(0)  # lets the event loop run
        return bool(self._events)

    def _lose(self, reason: str, n_events: int) -> None:
        with self._lock:
            self._lost[reason] += n_events
        self._metrics.unrecorded.labels(reason).inc(n_events)


class RefusedError(Exception):
    """A sink does not want an event; `is_lost` unless it is one of the record itself."""

    def __init__(self, reason: str, is_lost: bool) -> None:
        super().__init__(reason)
        self.is_lost = is_lost


class HttpSink:
    """Sends each event as a POST in the binary mode of CloudEvents: attributes as headers, data as the body."""

    def __init__(self, url: HttpUrl, token: SecretStr | None) -> None:
        if url.username or url.password:
            raise ConfigError("KANSCOPE_RECORD may not have a user and a password; give KANSCOPE_RECORD_TOKEN")
        connect = HTTPSConnection if url.scheme == "https" else HTTPConnection
        self._connection = connect(url.host or "", url.port, timeout=SINK_SECONDS)
        self._target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}

    def encode(self, event: Event) -> tuple[dict[str, str], bytes]:
        """The headers and the body of an event."""
        attributes = {**event, "recordedtime": to_text(datetime.now(UTC))}
        data, media_type = attributes.pop("data"), attributes.pop("datacontenttype")
        headers = {f"ce-{name}": quote(value, _HEADER_SAFE) for name, value in attributes.items()}
        return {**headers, "Content-Type": media_type, **self._headers}, orjson.dumps(data)

    def write(self, events: deque[tuple[dict[str, str], bytes]]) -> None:
        """Sends encoded events, and removes those that have arrived from the left.

        Raises OSError if the sink is down or overloaded, and `RefusedError` if it refuses an event, which is removed.
        """
        while events:
            status = self._send(*events[0])
            if status >= 500 or status in _RETRIED:
                raise OSError(f"the sink answers {status}")
            headers, _ = events.popleft()
            if status >= 300:
                raise RefusedError(f"answers {status}", is_lost=not headers["ce-type"].startswith(OWN))

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def _send(self, headers: dict[str, str], body: bytes) -> int:
        """Sends an event, twice if the connection was closed in the meantime, and returns the answer's status."""
        for is_last in (self._connection.sock is None, True):
            try:
                self._connection.request("POST", self._target, body, headers)
                with self._connection.getresponse() as answer:
                    answer.read()
                    return answer.status
            except (OSError, HTTPException) as error:
                self._connection.close()
                if is_last:
                    raise OSError(f"the sink does not answer: {error}") from error
        raise AssertionError


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _prepare(folder: Path) -> None:
    """Makes the folder, in one that exists; raises ConfigError if it cannot be written to."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"KANSCOPE_RECORD is {folder}, which cannot be a folder: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"KANSCOPE_RECORD is {folder}, which cannot be written to")
