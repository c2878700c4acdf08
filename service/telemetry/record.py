"""The record: what was forecast and explained, as CloudEvents in chained files, or sent to another service.

Types, attributes and the binary mode of HTTP are those of KServe's logger (`pkg/logger/worker.go`), which TrustyAI and
other consumers of KServe read. Events are made and written by a thread of their own, from a queue of bounded size.
"""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
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
from cachetools import LRUCache
from pydantic import HttpUrl, SecretStr

from kanmodel.errors import ConfigError
from kanmodel.network.config import ModelConfig
from service.settings import Settings
from service.telemetry.backlog import Backlog
from service.telemetry.chain import LOST, OPENED, OWN, ChainedFiles, Event, to_text
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
        self._inputs = frozenset(_split(settings.record_inputs))
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
            self._sink = HttpSink(settings.record, settings.record_token, self._refuse)
        self._backlog: Backlog[tuple[int, Described]] = Backlog(
            "record",
            settings.record_queue_bytes,
            settings.record_seconds,
            self._write_all,
            "the record cannot be written, and requests wait to be recorded",
            "the record is written again",
        )
        self._shown: LRUCache[str, list[int]] = LRUCache(256)  # features whose values are recorded, by checkpoint
        self._warned: set[str] = set()  # models of which names in the settings mean nothing
        self._lock = Lock()  # of what is lost
        self._events: deque[Any] = deque()  # which are being written, as the sink encodes them
        self._lost: Counter[str] = Counter()  # events by reason, since that was last said
        self._said = -SAY_SECONDS  # when
        self._n_queued, self._since = 0, 0.0  # events in the queue; when events were last written, or began to wait
        metrics.watch(metrics.unwritten, lambda: float(self._n_waiting))
        metrics.watch(metrics.unwritten_seconds, lambda: monotonic() - self._since if self._n_waiting else 0.0)
        self._n_refused, self._refusal = 0, ""  # events that the sink refused in this round; its last reason

    def start(self) -> None:
        """Starts writing."""
        self._backlog.start()

    def close(self) -> None:
        """Writes the rest, as far as `Backlog.close` waits for it."""
        waiting = sum(n_events for n_events, _ in self._backlog.close())
        if left := len(self._events) + waiting:
            logger.error("the process ends before %d events are recorded; see whether KANSCOPE_RECORD takes them", left)

    def draw(self) -> bool:
        """Whether the next request is among the share that is recorded."""
        return self._share >= 1 or random() < self._share  # nosec B311

    def choose_features(self, model: str, checkpoint: str, config: ModelConfig) -> list[int]:
        """The indices of the features whose values are recorded: those that are named, or made of a named column.

        Names that mean nothing of a model are logged, once for each model.
        """
        if checkpoint not in self._shown:
            means = _name_features(config)
            shown = {feature for name in self._inputs for feature in means.get(name, ())}
            shown -= {feature for name in self._inputs if name[0] == "-" for feature in means.get(name[1:], ())}
            numbers = [number for number, feature in enumerate(config.feature_names) if feature in shown]
            self._shown[checkpoint] = numbers
            unknown = [name for name in sorted(self._inputs) if name.removeprefix("-") not in means]
            if unknown and model not in self._warned:
                self._warned.add(model)
                text = (
                    "KANSCOPE_RECORD_INPUTS has %s, which is neither a feature of model %s nor a column that one is "
                    "made of; mend the setting"
                )
                logger.warning(text, ", ".join(unknown), model)
        return self._shown[checkpoint]

    def choose_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
        """The headers that are recorded, by the names in the settings."""
        chosen: dict[str, list[str]] = {}
        for key, value in headers if self._headers else ():
            if key in self._headers:
                chosen.setdefault(self._headers[key], []).append(value.decode("latin-1"))
        return chosen

    def put(self, n_bytes: int, n_events: int, describe: Described) -> None:
        """Records events that `describe` makes, on the thread; `n_bytes` is what it holds until then."""
        with self._lock:
            if not self._n_waiting:
                self._since = monotonic()
            self._n_queued += n_events
        if not self._backlog.put(n_bytes + ITEM_BYTES, (n_events, describe)):
            with self._lock:
                self._n_queued -= n_events
            self._lose("full", n_events)

    def describe(self, kind: str, data: object, attributes: Mapping[str, str]) -> Event:
        """An event with the members that KServe's logger has."""
        of_all = {"namespace": self._namespace, "endpoint": "default", "datacontenttype": JSON}
        return {"specversion": "1.0", "type": kind, **attributes, **of_all, "data": data}

    def _describe_itself(self, kind: str, data: Mapping[str, Any]) -> Event:
        if kind == OPENED:
            settings = {"share": self._share, "inputs": sorted(self._inputs), "headers": [*self._headers.values()]}
            data = {**data, "version": version("kanscope"), "settings": settings}
        own = {"id": new_request_id(), "source": "kanscope", "time": to_text(datetime.now(UTC))}
        return {"specversion": "1.0", "type": kind, **own, "datacontenttype": JSON, "data": data}

    def _write_all(self, is_last: bool) -> None:
        """Writes what is in the queue; raises OSError if it can't."""
        try:
            while True:
                if not self._events:
                    self._take(is_last)
                n_events, self._n_refused = len(self._events), 0
                try:
                    self._sink.write(self._events)  # without any it looks for old files
                finally:
                    if len(self._events) < n_events:
                        self._since = monotonic()
                    self._metrics.recorded.inc(n_events - len(self._events) - self._n_refused)
                if not n_events:
                    return
        finally:
            if is_last:
                self._sink.close()

    def _refuse(self, kind: str, status: int) -> None:
        """Counts an event that the sink refuses as lost, unless it is one of the record itself."""
        self._n_refused += 1
        self._refusal = f", as the sink answers {status}"
        if not kind.startswith(OWN):
            self._lose("refused", 1)

    def _take(self, is_last: bool) -> None:
        """Makes the next events from the queue, after one about those that were lost."""
        taken, lost = self._backlog.take(ITEMS), Counter[str]()
        if is_last or monotonic() - self._said >= SAY_SECONDS:
            with self._lock:
                lost, self._lost = self._lost, lost
        if lost:
            self._said = monotonic()
            told = ", ".join(f"{n} {reason}" for reason, n in lost.items())
            refusal = self._refusal if "refused" in lost else ""
            logger.warning("events were not recorded: %s%s; see whether KANSCOPE_RECORD takes them", told, refusal)
            self._events.append(self._sink.encode(self._describe_itself(LOST, lost)))
        for n_events, describe in taken:
            try:
                self._events.extend([self._sink.encode(event) for event in describe()])
            except Exception:  # of one request, which does not affect the others
                logger.exception("an event could not be made; please report this")
                self._lose("failed", n_events)
            with self._lock:
                self._n_queued -= n_events
        sleep(0)  # lets the event loop run

    @property
    def _n_waiting(self) -> int:
        """Events in the queue, and those that are being written."""
        return self._n_queued + len(self._events)

    def _lose(self, reason: str, n_events: int) -> None:
        with self._lock:
            self._lost[reason] += n_events
        self._metrics.unrecorded.labels(reason).inc(n_events)


class HttpSink:
    """Sends each event as a POST in the binary mode of CloudEvents: attributes as headers, data as the body.

    `refuse` is called with the type of an event that is refused, and the status.
    """

    def __init__(self, url: HttpUrl, token: SecretStr | None, refuse: Callable[[str, int], None]) -> None:
        if url.username or url.password:
            raise ConfigError("KANSCOPE_RECORD may not have a user and a password; give KANSCOPE_RECORD_TOKEN")
        self._refuse = refuse
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
        """Sends encoded events, and removes those that have arrived or are refused from the left.

        Raises OSError if the sink is down or overloaded.
        """
        while events:
            status = self._send(*events[0])
            if status >= 500 or status in _RETRIED:
                raise OSError(f"the sink answers {status}")
            headers, _ = events.popleft()
            if status >= 300:
                self._refuse(headers["ce-type"], status)

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


def _name_features(config: ModelConfig) -> dict[str, set[str]]:
    """The features that a name in the settings means: one, those of a column of the table, or, by `*`, all."""
    means: dict[str, set[str]] = {name: {name} for name in config.feature_names}
    means["*"] = {*config.feature_names}
    encoding = config.table.encoding
    made = [(column.name, column.features) for column in encoding.columns]
    if encoding.calendar is not None and config.time is not None:
        parts = encoding.calendar.groups
        made += [*parts.items(), *((config.time.name, features) for features in parts.values())]
    for name, features in made:
        means.setdefault(name, set()).update(features)
    return means


def _prepare(folder: Path) -> None:
    """Makes the folder, in one that exists; raises ConfigError if it cannot be written to."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"KANSCOPE_RECORD is {folder}, which cannot be a folder: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"KANSCOPE_RECORD is {folder}, which cannot be written to")
