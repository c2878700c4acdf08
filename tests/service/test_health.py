from __future__ import annotations

import threading

from kanmodel.checkpoint import load_checkpoint


def test_lives_as_soon_as_it_listens(service):
    """/healthz says ok."""
    answer = service.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_is_ready_although_one_file_failed(service):
    """/readyz is 200 once loading is over and a model answers, and names the file that failed."""
    answer = service.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    states = {model["name"]: model["state"] for model in answer.json()["models"]}
    assert states["broken"] == "failed"
    assert states["nyc-weather"] == "ready"


def test_is_not_ready_where_no_model_is(serve, tmp_path):
    """/readyz is 503 and names the reason where every file failed."""
    (tmp_path / "bad.safetensors").write_bytes(b"no checkpoint")
    with serve(models=tmp_path) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["errors"][0]["path"] == "bad"
        assert "is not a safetensors file" in answer.json()["errors"][0]["message"]
        assert client.get("/healthz").status_code == 200


def test_answers_while_it_loads(serve, folder, monkeypatch):
    """While a model loads the process lives, is not ready, and says that the model is loading."""
    go_on = threading.Event()

    def load_slowly(path):
        go_on.wait(30)
        return load_checkpoint(path)

    monkeypatch.setattr("service.registry.load_checkpoint", load_slowly)
    try:
        with serve(models=folder / "two.safetensors", wait=False) as client:
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").status_code == 503
            assert client.get("/v1/models").json()["details"][0]["state"] == "loading"
            answer = client.get("/v1/models/two")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["error"] == "model 'two' is loading"
            go_on.set()
    finally:
        go_on.set()
