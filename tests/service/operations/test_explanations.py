"""Long explanations: progress, disconnects and deadlines, tested by counting slices."""

from __future__ import annotations

import json
import threading

import pytest
from factories import make_model, make_windows
from sockets import connect, head, sum_samples
from waiting import poll

from kanmodel import computing
from kanmodel.attribution import explanation as attribution
from kanmodel.attribution.ledger import explain_outputs
from kanmodel.checkpoint import save_checkpoint
from kanmodel.computing import pause
from kanmodel.errors import NonFiniteError
from kanmodel.report import report
from service.operations import explanations

EXPLAIN = "/v1/models/two:explain"
NDJSON = {"Accept": "application/x-ndjson"}


def make_body(service, n, **members):
    return {"instances": make_windows(service.models["two"], n).tolist(), "output": "a+1", **members}


def read_lines(answer):
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("baseline", ["mean", {"reference": 3}])
@pytest.mark.parametrize("output", ["a+1", ["a+1", "b+2", "b+1"]])
def test_progress_lines_follow_the_slices(service, baseline, output):
    """A progress line follows each slice; without those lines the response is the same."""
    n = explanations.PART_WINDOWS + 3
    body = make_body(service, n, output=output, baseline=baseline)
    header, *lines = read_lines(service.post(EXPLAIN, {**body, "progress": True}, headers=NDJSON))
    told = [line["progress"] for line in lines if "progress" in line]
    total = n * (1 if output == "a+1" else 3)
    assert [one["slices"] for one in told] == [*range(1, len(told) + 1)]
    assert {one["total"] for one in told} == {total}
    done = [one["done"] for one in told]
    assert done == sorted(done) and done[-1] == total
    assert len(set(done)) > (1 if output == "a+1" else 4)  # each output counts
    sent, counted = 0, 0
    for line in lines:
        counted = line["progress"]["done"] if "progress" in line else counted
        sent += "progress" not in line
        assert sent <= counted
    plain = read_lines(service.post(EXPLAIN, body, headers=NDJSON))
    assert [header, *(line for line in lines if "progress" not in line)] == plain


def test_progress_needs_lines(service):
    """A single JSON object cannot contain progress, so the request is refused."""
    answer = service.post(EXPLAIN, make_body(service, 1, progress=True))
    assert answer.status_code == 422
    assert answer.json()["error"] == "progress needs Accept: application/x-ndjson"


@pytest.fixture
def slices(monkeypatch):
    """Makes explanations of many slices, of which the fourth waits for `go_on`; lists the slices that have begun."""
    begun, waiting, go_on = [], threading.Event(), threading.Event()

    def explain_slowly(*arguments):
        for number in range(1000 if computing._hook.get() else 0):  # warms up the model in one pass
            begun.append(number)
            if number == 3:
                waiting.set()
                assert go_on.wait(300)
            pause()
        return explain_outputs(*arguments)

    monkeypatch.setattr(attribution, "explain_outputs", explain_slowly)
    yield begun, waiting, go_on
    go_on.set()


@pytest.mark.parametrize(
    ("accept", "progress"),
    [("application/json", False), ("application/x-ndjson", False), ("application/x-ndjson", True)],
)
def test_a_disconnect_stops_the_work_within_one_slice(serve, folder, service, slices, caplog, accept, progress):
    """Of a thousand slices the current one is the last, and no failure is logged."""
    begun, waiting, go_on = slices
    body = json.dumps(make_body(service, 1, progress=progress)).encode()
    headers = ["Content-Type: application/json", f"Content-Length: {len(body)}", f"Accept: {accept}"]
    with serve(models=folder / "two.safetensors") as client:
        with connect(client) as connection:
            connection.sendall(head("POST", EXPLAIN, *headers) + body)
            assert waiting.wait(300)
        # it has seen the disconnect
        poll(lambda: sum_samples(client.get("/metrics").text, "requests_in_flight") == 1)
        go_on.set()
        poll(lambda: is_idle(client))
    assert len(begun) == 4
    assert not [record for record in caplog.records if record.exc_info]


def is_idle(client):
    """Whether no explanation is computed or waiting, and no memory is held."""
    text = client.get("/metrics").text
    return sum_samples(text, "queue_depth", priority="explanation") == sum_samples(text, "pending_bytes") == 0


@pytest.mark.parametrize("by_header", [True, False])
def test_finished_windows_are_sent_before_the_deadline(serve, folder, service, monkeypatch, by_header):
    """The stream has the finished windows and then an error, for the deadline of the header or the setting."""
    calls, go_on = [], threading.Event()

    def explain_slowly(*arguments):
        if computing._hook.get():
            calls.append(arguments)
            assert len(calls) == 1 or go_on.wait(300)
        return explain_outputs(*arguments)

    monkeypatch.setattr(attribution, "explain_outputs", explain_slowly)
    body = make_body(service, explanations.PART_WINDOWS + 1)
    try:
        with serve(models=folder / "two.safetensors", request_timeout=30 if by_header else 3) as client:
            headers = {**NDJSON, **({"X-Request-Timeout": "3"} if by_header else {})}
            answer = client.post(EXPLAIN, json=body, headers=headers)
            go_on.set()
    finally:
        go_on.set()
    _, *lines, last = read_lines(answer)
    assert answer.status_code == 200
    assert [line["instance"] for line in lines] == [*range(explanations.PART_WINDOWS)]
    assert last["status"] == 503
    assert last["error"].startswith("the result was not computed within 3 s (request_timeout): ask for less, or give ")


@pytest.fixture
def fresh(serve, tmp_path):
    """A server whose results are not computed in advance."""
    save_checkpoint(make_model("lstm", seed=414, n_reference=60), tmp_path / "m.safetensors")
    with serve(models=tmp_path, cached_results=4) as client:
        yield client


@pytest.mark.parametrize(("path", "part"), [("formula", "formula"), ("report", "finding")])
def test_parts_of_a_result_come_while_it_is_computed(fresh, path, part):
    """Each is a line, and the last line is the answer as JSON, which alone is sent where it is cached."""
    parts = f"{part}s"
    *lines, last = read_lines(fresh.get(f"/v1/models/m/{path}", headers=NDJSON))
    assert last == fresh.get(f"/v1/models/m/{path}").json()
    assert len(lines) >= len(last[parts]) - 1  # the network itself is no formula of the search
    assert all([*line] == [part] for line in lines)
    found = [line[part] for line in lines]
    assert [one for one in last[parts] if one not in found] in ([], last[parts][-1:])
    assert last[parts] and read_lines(fresh.get(f"/v1/models/m/{path}", headers=NDJSON)) == [last]


def test_what_fails_is_an_error_before_the_first_part_and_a_line_after_it(fresh, monkeypatch):
    """The status is that of the error as long as nothing was sent."""

    def fail(*arguments):
        raise NonFiniteError("outputs[0] must be finite")

    answer = fresh.get("/v1/models/m/formula", headers={**NDJSON, "X-Request-Timeout": "0.0005"})
    assert (answer.status_code, answer.json()["status"]) == (503, 503)
    monkeypatch.setattr(report, "_trust", fail)
    *lines, last = read_lines(fresh.get("/v1/models/m/report", headers=NDJSON))
    assert [*lines[0]] == ["finding"] and last["error"] == "outputs[0] must be finite"


def test_a_report_goes_on_after_its_reader_has_gone(fresh, monkeypatch):
    """What has begun is computed to its end, and is there for who asks again."""
    waiting, go_on, found = threading.Event(), threading.Event(), []
    answer = report._independence

    def wait(*arguments):
        waiting.set()
        assert go_on.wait(300)
        pause()
        found.append(answer(*arguments))
        return found[-1]

    monkeypatch.setattr(report, "_independence", wait)
    try:
        with connect(fresh) as connection:
            connection.sendall(head("GET", "/v1/models/m/report", "Accept: application/x-ndjson"))
            assert waiting.wait(300)
            poll(lambda: b"finding" in connection.recv(1 << 16))
        poll(lambda: is_idle(fresh))
    finally:
        go_on.set()
    poll(lambda: len(found) == 1)
    assert fresh.get("/v1/models/m/report").status_code == 200
    assert len(found) == 1
