"""The record takes from any thread, never waits for where it is written to, and says what it has lost."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from factories import make_model
from sockets import serving
from waiting import poll

from kanmodel.errors import ConfigError
from kanmodel.tables.columns import Feature
from service.settings import Settings, choose_settings
from service.telemetry import record as module
from service.telemetry.chain import to_text, verify
from service.telemetry.metrics import Metrics
from service.telemetry.record import REQUEST, RESPONSE, Record

TIME = datetime(2026, 11, 29, 1, 2, 3, tzinfo=UTC)


@pytest.fixture(autouse=True)
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.setattr(module, "SAY_SECONDS", 0.0)
    return Metrics()


def counts(metrics: Metrics) -> tuple[float, dict[str, float]]:
    """How many events were written, and how many were lost, by reason."""
    (written,) = (one.value for one in metrics.recorded.collect()[0].samples if one.name.endswith("_total"))
    lost = [one for one in metrics.unrecorded.collect()[0].samples if one.name.endswith("_total")]
    return written, {one.labels["reason"]: one.value for one in lost if one.value}


def put(record: Record, name: object, n_bytes: int = 0, kind: str = RESPONSE) -> None:
    record.put(n_bytes, 1, lambda: [record.describe(kind, {"id": str(name)}, members(str(name)))])


def members(name: str) -> dict[str, str]:
    of_model = {"source": "/v2/models/load/versions/1", "inferenceservicename": "load", "component": "predictor"}
    return {"id": name, "time": to_text(TIME), **of_model, "metadata": "{}"}


def events(folder: Path) -> list[dict[str, Any]]:
    """Those in its files, in the order of the files."""
    return [json.loads(line) for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]


def ids(folder: Path) -> list[str]:
    return [event["id"] for event in events(folder) if "kanscope" not in event["type"]]


class Sink:
    """A server that keeps what it is sent, and answers with a status that a test chooses."""

    def __init__(self) -> None:
        self.status: Callable[[dict[str, str]], int] = lambda headers: 200
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.connections = 0

    @contextmanager
    def serve(self) -> Iterator[str]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                sink.connections += 1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sink.may_answer.wait()
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = sink.status(headers)
                if status == 200:
                    sink.received.append((headers, body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with serving(Handler) as url:
            try:
                yield f"{url}/events?source=kanscope"
            finally:
                self.may_answer.set()


def test_events_of_many_threads_are_all_there(tmp_path, metrics):
    """Each once, and those of one thread in their order; the files verify."""
    record = Record(Settings(record=tmp_path, record_seconds=0.01, record_file_bytes=20_000), metrics)
    record.start()
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(lambda thread: [put(record, f"{thread} {number}") for number in range(200)], range(8))]
    record.close()
    found = ids(tmp_path)
    assert len(found) == len(set(found)) == 1600 == counts(metrics)[0]
    for thread in range(8):
        assert [one for one in found if one[0] == str(thread)] == [f"{thread} {number}" for number in range(200)]
    assert verify(tmp_path).problems == [] and verify(tmp_path).events == 1600


def test_a_sink_gets_events_as_kserve_sends_them(metrics):
    """By HTTP in the binary mode, over one connection, with a token, attributes encoded as the binding says."""
    sink = Sink()
    with sink.serve() as url:
        record = Record(Settings(record=url, record_token="se/cret"), metrics)
        record.start()
        for number in range(5):
            put(record, f"{number} %ü", kind=(REQUEST, RESPONSE)[number % 2])
        record.close()
    headers, body = sink.received[1]
    assert (headers["ce-id"], headers["ce-type"]) == ("1%20%25%C3%BC", RESPONSE)
    assert headers["ce-specversion"] == "1.0" and headers["content-type"] == "application/json"
    assert headers["ce-inferenceservicename"] == "load" and headers["ce-metadata"] == "{}"
    assert headers["authorization"] == "Bearer se/cret" and "ce-data" not in headers
    assert json.loads(body) == {"id": "1 %ü"}
    assert len(sink.received) == 5 and sink.connections == 1 and counts(metrics) == (5, {})


def test_a_sink_that_is_down_loses_nothing_that_the_queue_holds(metrics, caplog):
    """Requests wait, each is sent once when it is back, and the log says both."""
    caplog.set_level(logging.INFO, "service.telemetry.backlog")
    sink = Sink()
    with sink.serve() as url:
        sink.status = lambda headers: 503
        record = Record(Settings(record=url, record_seconds=0.01), metrics)
        record.start()
        for number in range(100):
            put(record, number)
        poll(lambda: "the record cannot be written" in caplog.text)
        sink.status = lambda headers: 200
        poll(lambda: counts(metrics)[0] == 100)
        record.close()
    assert [headers["ce-id"] for headers, _ in sink.received] == [str(number) for number in range(100)]
    assert caplog.text.count("the record cannot be written") == 1 and "503" in caplog.text
    assert counts(metrics) == (100, {}) and "written again" in caplog.text


def test_what_does_not_fit_in_the_queue_is_counted_and_said(metrics, caplog):
    """While a sink hangs, `put` does not wait for it; once it answers, an event says how many are missing."""
    sink = Sink()
    with sink.serve() as url:
        sink.may_answer.clear()
        record = Record(Settings(record=url, record_seconds=0.01, record_queue_bytes=100_000), metrics)
        record.start()
        for number in range(1000):
            put(record, number, n_bytes=3000)
        assert counts(metrics) == (0, {"full": 980})
        sink.may_answer.set()
        poll(lambda: sum(said(sink)) == 980 and len(sink.received) == 20 + len(said(sink)))  # in one event or two
        for number in range(10):
            put(record, f"later {number}", n_bytes=3000)
        record.close()
    assert "full" in caplog.text and len(said(sink)) < 3
    assert len(sink.received) == 30 + len(said(sink)) == counts(metrics)[0] and counts(metrics)[1] == {"full": 980}


def said(sink: Sink) -> list[int]:
    """How many events were lost, as the sink was told."""
    return [json.loads(body)["full"] for headers, body in sink.received if headers["ce-type"] == "kanscope.record.lost"]


def test_refused_events_are_lost_alone(metrics, caplog):
    """An event that a sink refuses is not sent again, and neither is the report of that loss if it is refused too."""
    sink = Sink()
    sink.status = lambda headers: 400 if headers["ce-id"] in "135" or "kanscope" in headers["ce-type"] else 200
    with sink.serve() as url:
        record = Record(Settings(record=url, record_seconds=0.01), metrics)
        record.start()
        for number in range(6):
            put(record, number)
        poll(lambda: counts(metrics) == (3, {"refused": 3}))
        record.close()
    assert [headers["ce-id"] for headers, _ in sink.received] == ["0", "2", "4"]
    assert "refused, as the sink answers 400" in caplog.text


def test_an_event_that_cannot_be_made_is_lost_alone(tmp_path, metrics, caplog):
    """The others are written, and one says that it is missing."""
    record = Record(Settings(record=tmp_path), metrics)
    record.start()
    put(record, "a")
    record.put(0, 2, lambda: [{"type": object()}])
    put(record, "b")
    record.close()
    assert ids(tmp_path) == ["a", "b"] and counts(metrics)[1] == {"failed": 2}
    assert verify(tmp_path).lost == {"failed": 2} and "could not be made" in caplog.text


def test_a_folder_that_is_gone_and_back(tmp_path, metrics, caplog):
    """Events wait for it, as for a disk that is full; at the end what is left is counted in the log."""
    folder = tmp_path / "record"
    record = Record(Settings(record=folder, record_seconds=0.01), metrics)
    folder.rename(tmp_path / "away")
    record.start()
    put(record, "a")
    poll(lambda: "the record cannot be written" in caplog.text)
    (tmp_path / "away").rename(folder)
    poll(lambda: counts(metrics)[0] == 1)
    record.close()
    assert ids(folder) == ["a"] and verify(folder).problems == []
    second = Record(Settings(record=folder), metrics)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    second.start()
    put(second, "a")
    put(second, "b")
    second.close()
    assert "ends before 2 events are recorded" in caplog.text


def test_nothing_is_written_before_it_starts_or_without_events(tmp_path, metrics):
    """The process that supervises workers makes no file, and neither does one that is asked nothing."""
    record = Record(Settings(record=tmp_path), metrics)
    record.start()
    record.close()
    assert [*tmp_path.iterdir()] == []


def test_a_share_of_the_requests_is_drawn(tmp_path, metrics):
    """All by default, else about as many as the setting says."""
    assert all(Record(Settings(record=tmp_path), metrics).draw() for _ in range(100))
    record = Record(Settings(record=tmp_path, record_share=0.25), metrics)
    assert 800 < sum(record.draw() for _ in range(4000)) < 1200


@pytest.mark.parametrize(
    ("names", "shown"),
    [("", []), ("*", [0, 1, 2]), ("b", [1]), ("b, c,none", [1, 2]), ("*,-b", [0, 2]), ("a,-a", []), ("-b", [])],
)
def test_inputs_are_recorded_by_name(tmp_path, metrics, names, shown):
    """None by default; `-name` takes precedence, and alone records nothing."""
    config = make_model("lstm", n_features=3).config
    config = replace(config, features=tuple(map(Feature, "abc")))
    assert Record(Settings(record=tmp_path, record_inputs=names), metrics).choose_features("m", "1", config) == shown


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"record_headers": "X-Tenant,Authorization"}, "authorization, which may hold a key"),
        ({"record": "none/there"}, "none/there, which cannot be a folder: No such file"),
        ({"record": "htps://example.org/events"}, "cannot be a folder"),
        ({"record": __file__}, "cannot be a folder: File exists"),
        ({"record": "http://user:secret@example.org"}, "may not have a user and a password"),
    ],
)
def test_what_cannot_be_recorded_is_refused_at_the_start(tmp_path, metrics, settings, reason):
    """With one sentence that names the setting, and holds no password."""
    with pytest.raises(ConfigError, match=reason) as refused:
        Record(choose_settings(**{"record": str(tmp_path), **settings}), metrics)
    assert "KANSCOPE_RECORD" in str(refused.value) and "secret" not in str(refused.value)


def test_the_log_has_the_hash_of_each_file(tmp_path, metrics, caplog):
    """A line of the log, which is kept elsewhere, shows later that a file was not written anew."""
    caplog.set_level(logging.INFO)
    record = Record(Settings(record=tmp_path), metrics)
    record.start()
    put(record, "a")
    record.close()
    (end,) = verify(tmp_path).ends
    assert f"{end.file} of the record ends with line 3, hash {end.chain}" in caplog.text


def test_what_waits_is_counted_at_once_and_for_how_long(metrics):
    """Events that a sink does not take are seen while they wait, long before the queue is full; then nothing waits."""

    def waiting() -> tuple[float, float]:
        metrics.refresh()
        return tuple(one.collect()[0].samples[0].value for one in (metrics.unwritten, metrics.unwritten_seconds))

    sink = Sink()
    with sink.serve() as url:
        record = Record(choose_settings(record=url, record_seconds=0.05), metrics)
        assert waiting() == (0, 0)
        sink.may_answer.clear()
        record.start()
        for number in range(300):  # more than are sent at a time
            put(record, number)
        assert waiting()[0] == 300
        poll(lambda: waiting()[1] > 0.3)
        assert counts(metrics) == (0, {})
        sink.may_answer.set()
        poll(lambda: waiting() == (0, 0))
        assert counts(metrics) == (300, {})
        record.close()


def test_files_are_bounded_and_their_owners_alone(tmp_path, metrics):
    """Whatever the process's mask is; without settings there is a bound in size and one in age."""
    assert Settings().record_bytes == 10 << 30 and Settings().record_days == 90
    assert choose_settings(record_days="inf").record_days == float("inf")
    before = os.umask(0)
    try:
        record = Record(Settings(record=tmp_path, record_file_bytes=1000, record_bytes=5000), metrics)
        record.start()
        for number in range(300):
            put(record, number)
        record.close()
    finally:
        os.umask(before)
    files = [*tmp_path.iterdir()]
    assert files and {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert sum(file.stat().st_size for file in files) < 5000 + 2 * 2000  # and one that is written
    assert verify(tmp_path).removed > 0
