from __future__ import annotations

import threading

import pytest
from waiting import poll

import kanmodel


def test_is_ready_although_one_file_failed(service):
    """/healthz is ok; /readyz is 200 once a model is ready, and names the file that failed."""
    assert service.get("/healthz").json() == {"status": "ok"}
    answer = service.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    states = {model["name"]: model["state"] for model in answer.json()["models"]}
    assert (states["broken"], states["nyc-weather"]) == ("failed", "ready")


def test_is_not_ready_where_no_model_is(serve, tmp_path):
    """/readyz is 503 with the reason if every file failed."""
    (tmp_path / "bad.safetensors").write_bytes(b"no checkpoint")
    with serve(models=tmp_path) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["errors"][0]["path"] == "bad"
        assert "is not a safetensors file" in answer.json()["errors"][0]["message"]
        assert client.get("/healthz").status_code == 200


METER, READER = {"Authorization": f"Bearer {'m' * 16}"}, {"Authorization": f"Bearer {'r' * 16}"}
KEYS = f"prometheus metrics {'m' * 16};reader read {'r' * 16}"
STRANGERS = ({}, METER, {"Authorization": f"Bearer {'x' * 16}"})  # without a key that may know names


def test_only_keys_learn_names_when_ready(serve, folder):
    """Where the service has keys, /readyz says to others that it is ready, and names no model, version or reason."""
    with serve(models=folder, keys=KEYS) as client:
        for headers in STRANGERS:
            answer = client.get("/readyz", headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"ready": True})
        states = {one["name"]: one["state"] for one in client.get("/readyz", headers=READER).json()["models"]}
        assert (states["broken"], states["nyc-weather"]) == ("failed", "ready")


@pytest.mark.parametrize("path", ["/readyz", "/v2/health/ready"])
def test_only_keys_learn_names_when_not_ready(serve, tmp_path, path):
    """The 503 of both protocols likewise: its error, detail and errors name nothing to those without a key."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "17.safetensors").write_bytes(b"no checkpoint")
    with serve(models=tmp_path, keys=KEYS, wait=False) as client:
        poll(lambda: "is not a safetensors file" in client.get(path, headers=READER).text)
        named = client.get(path, headers=READER).json()
        assert (named["code"], named["errors"][0]["path"]) == ("not_ready", "secret")
        for headers in STRANGERS:
            answer = client.get(path, headers=headers)
            body = answer.json()
            assert (answer.status_code, body["code"], body["errors"]) == (503, "not_ready", [])
            assert body["error"] == body["detail"] == "the service is not ready"
            assert "secret" not in answer.text and "17" not in answer.text.replace(body["request_id"], "")


@pytest.fixture
def slow_version(monkeypatch):
    """Files named 1 block until this is set."""
    go_on = threading.Event()

    def load_slowly(path):
        if path.stem == "1":
            go_on.wait(60)
        return kanmodel.load(path)

    monkeypatch.setattr("service.models.registry.load", load_slowly)
    yield go_on
    go_on.set()


def test_answers_while_it_loads(serve, folder, tmp_path, slow_version):
    """While the only model loads, /healthz is 200, /readyz is 503 and names it, and a request for it waits."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1.safetensors").write_bytes((folder / "two.safetensors").read_bytes())
    with serve(models=tmp_path, wait=False) as client:
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["errors"] == [{"path": "m", "message": "version 1 is loading"}]
        assert client.get("/v1/models").json()["details"][0]["state"] == "loading"
        answer = client.get("/v1/models/m/ready")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"] == "model 'm' is loading"
        answer = client.get("/v1/models/m", headers={"X-Request-Timeout": "0.05"})
        assert (answer.status_code, answer.json()["code"]) == (503, "deadline_exceeded")
        slow_version.set()
        assert client.get("/v1/models/m").status_code == 200


def test_is_ready_before_every_version_is_loaded(serve, folder, tmp_path, wait_until, slow_version):
    """/readyz is 200 once one version is loaded; a request for the other waits until that is loaded too."""
    (tmp_path / "m").mkdir()
    for version in ("1", "2"):
        (tmp_path / "m" / f"{version}.safetensors").write_bytes((folder / "two.safetensors").read_bytes())
    with serve(models=tmp_path, wait=False) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        versions = client.get("/readyz").json()["models"][0]["versions"]
        assert [(one["version"], one["state"], one["loaded"]) for one in versions] == [
            ("2", "ready", True),
            ("1", "loading", False),
        ]
        assert client.get("/v1/models/m").json()["version"] == "2"
        slow_version.set()
        assert client.get("/v1/models/m?version=1").json()["version"] == "1"


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/v2"])
def test_a_query_is_refused_where_none_is_expected(service, path):
    """An operation without parameters refuses a query, naming its member."""
    answer = service.get(path, params={"x": "1"})
    assert answer.status_code == (400 if path == "/v2" else 422)
    assert answer.json()["error"] == "x is unknown; none is expected"
