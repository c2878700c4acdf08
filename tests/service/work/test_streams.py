"""Long explanations: progress, disconnects and deadlines, tested by counting slices."""

from __future__ import annotations

import json
import threading
from time import sleep

import pytest
from factories import make_windows
from sockets import connect, head
from waiting import poll

from kanmodel import computing
from kanmodel import model as core
from kanmodel.computing import pause
from kanmodel.explain.attribution import explain_windows
from service.operations import explanations

EXPLAIN = "/v1/models/two:explain"
NDJSON = {"Accept": "application/x-ndjson"}


def make_body(service, n, **members):
    return {"instances": make_windows(service.models["two"], n).tolist(), "output": "a+1", **members}


def read_lines(answer):
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("baseline", ["mean", {"reference": 3}])
@pytest.mark.parametrize("output", ["a+1", ["a+1", "b+2", "b+1"]])
def test_progress_lines_follow_the_slices(each_service, baseline, output):
    """A progress line follows each slice; without those lines the response is the same."""
    n = explanations.PART_WINDOWS + 3
    body = make_body(each_service, n, output=output, baseline=baseline)
    header, *lines = read_lines(each_service.post(EXPLAIN, {**body, "progress": True}, headers=NDJSON))
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
    plain = read_lines(each_service.post(EXPLAIN, body, headers=NDJSON))
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
            elif number > 3:
                sleep(0.01)  # about as long as a slice takes
            pause()
        return explain_windows(*arguments)

    monkeypatch.setattr(core, "explain_windows", explain_slowly)
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
        for _ in range(20):  # once these are answered, the event loop has seen the disconnect
            client.get("/healthz")
        go_on.set()
        poll(lambda: is_idle(client))
    assert len(begun) <= 5
    assert not [record for record in caplog.records if record.exc_info]


def is_idle(client):
    """Whether no explanation is computed or waiting, or reserves memory."""
    lines = client.get("/metrics").text.splitlines()
    return [float(line.split()[-1]) for line in lines if 'priority="explanation"' in line] == [0.0, 0.0]


@pytest.mark.parametrize("by_header", [True, False])
def test_finished_windows_are_sent_before_the_deadline(serve, folder, service, monkeypatch, by_header):
    """The stream has the finished windows and then an error, for the deadline of the header or the setting."""
    calls, go_on = [], threading.Event()

    def explain_slowly(*arguments):
        if computing._hook.get():
            calls.append(arguments)
            assert len(calls) == 1 or go_on.wait(300)
        return explain_windows(*arguments)

    monkeypatch.setattr(core, "explain_windows", explain_slowly)
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
    assert (last["status"], last["error"]) == (
        503,
        "the result is still being computed after 3 s (request_timeout); retry later",
    )
