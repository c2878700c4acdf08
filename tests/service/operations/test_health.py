from __future__ import annotations

import threading

import pytest

import kanmodel


def test_health_is_ok(service):
    """/healthz returns ok."""
    answer = service.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_is_ready_although_one_file_failed(each_service):
    """/readyz is 200 once a model is ready, and names the file that failed."""
    answer = each_service.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    states = {model["name"]: model["state"] for model in answer.json()["models"]}
    assert states["broken"] == "failed"
    assert states["nyc-weather"] == "ready"


def test_is_not_ready_where_no_model_is(serve, tmp_path):
    """/readyz is 503 with the reason if every file failed."""
    (tmp_path / "bad.safetensors").write_bytes(b"no checkpoint")
    with serve(models=tmp_path) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["errors"][0]["path"] == "bad"
        assert "is not a safetensors file" in answer.json()["errors"][0]["message"]
        assert client.get("/healthz").status_code == 200


@pytest.fixture
def slow_version(monkeypatch):
    """Files named 1 block until this is set."""
    go_on = threading.Event()

    def load_slowly(path):
        if path.stem == "1":
            go_on.wait(30)
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
