from __future__ import annotations

import threading

import pytest

from kanmodel.structure.importance import measure_importance

PATHS = ("attributions", "topology", "topology/fidelity", "edges", "edges/0/0/0", "report")


@pytest.fixture
def blocked(monkeypatch):
    """Global results block until this event is set."""
    go_on = threading.Event()

    def measure_late(*arguments):
        assert go_on.wait(300)
        return measure_importance(*arguments)

    monkeypatch.setattr("kanmodel.structure.questions.measure_importance", measure_late)
    yield go_on
    go_on.set()


@pytest.mark.parametrize("path", PATHS)
def test_a_result_after_the_deadline_is_503(serve, folder, blocked, path):
    """After the deadline of the header the response is 503 with Retry-After; the computation continues."""
    with serve(models=folder / "head.safetensors") as client:
        answer = client.get(f"/v1/models/head/{path}", headers={"X-Request-Timeout": "0.05"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        reason = "the result is not computed within 0.05 s (request_timeout), and goes on being computed; retry later"
        assert answer.json()["error"] == reason
        blocked.set()
        assert client.get(f"/v1/models/head/{path}").status_code == 200


def test_the_setting_is_the_default_deadline(serve, folder, blocked):
    """Without the header, request_timeout applies; other operations are answered meanwhile."""
    with serve(models=folder / "head.safetensors", request_timeout=0.05) as client:
        answer = client.get("/v1/models/head/report")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert client.get("/v1/models/head").status_code == 200
        blocked.set()
        assert client.get("/v1/models/head/report", headers={"X-Request-Timeout": "60"}).status_code == 200


def test_a_cached_result_is_returned_whatever_the_deadline(service):
    """A cached result is returned whatever the deadline."""
    assert service.get("/v1/models/head/report").status_code == 200
    assert service.get("/v1/models/head/report", headers={"X-Request-Timeout": "1e-9"}).status_code == 200


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "inf"])
def test_an_invalid_deadline_is_refused(service, value):
    """A timeout that is not a positive number of seconds gives 422."""
    answer = service.get("/v1/models/head/report", headers={"X-Request-Timeout": value})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "X-Request-Timeout"


def test_no_header_asks_for_more_than_the_longest_deadline(serve, folder, blocked):
    """A longer timeout than max_request_timeout, of the header or of the other setting, is shortened to it."""
    with serve(models=folder / "head.safetensors", max_request_timeout=0.05) as client:
        for headers in ({"X-Request-Timeout": "3600"}, {}):
            answer = client.get("/v1/models/head/report", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "deadline_exceeded")
            assert "within 0.05 s (request_timeout)" in answer.json()["error"]


def test_shutdown_does_not_wait_for_a_result(serve, folder, blocked):
    """Shutdown does not wait for a blocked computation."""
    with serve(models=folder / "head.safetensors") as client:
        assert client.get("/v1/models/head/report", headers={"X-Request-Timeout": "0.05"}).status_code == 503
    assert not blocked.is_set()
