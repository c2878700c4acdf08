"""/v2/repository loads and unloads models on request."""

from __future__ import annotations

import shutil
import threading
from functools import partial

import numpy as np
import pytest
from documents import leaves
from factories import make_model, make_tensors, make_windows
from sockets import connect, head, read_answer
from waiting import poll, repeating

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from service.models import registry

ADMIN, EXPLAIN = "admi" * 8, "expl" * 8
WINDOWS = make_windows(make_model("head"), 2)
BODY = {"instances": WINDOWS.tolist()}
INDEX, LOAD, UNLOAD = "/v2/repository/index", "/v2/repository/models/m/load", "/v2/repository/models/m/unload"


def write(path, seed=0):
    """Writes a checkpoint that fits BODY, different for each seed, and replaces an existing one atomically."""
    path.parent.mkdir(exist_ok=True)
    save_checkpoint(make_model("head", seed=seed), path.with_name(".new"))
    path.with_name(".new").replace(path)
    return load_checkpoint(path)


def entry(state="READY", version="1", reason=""):
    return {"name": "m", "version": version, "state": state, "reason": reason}


GONE = entry("UNAVAILABLE", reason="unloaded by command")


def checkpoint(client):
    return client.get("/v1/models/m").json()["checkpoint"].removeprefix("sha256:")


@pytest.fixture
def client(serve, tmp_path):
    """A client of a server that does not scan its folder, which has one model."""
    write(tmp_path / "m.safetensors")
    with serve(models=tmp_path, poll_seconds=0, repository_api=True) as client:
        yield client


@pytest.mark.parametrize("path", [INDEX, LOAD, UNLOAD])
def test_it_is_off_by_default(service, path):
    """The error says how to enable it, and the server's metadata do not list the extension."""
    answer = service.client.post(path)
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/json")
    assert answer.json()["error"] == "the repository API is off; the setting repository_api turns it on"
    assert "model_repository" not in service.get("/v2").json()["extensions"]


@pytest.mark.parametrize("path", [INDEX, LOAD, UNLOAD])
def test_it_needs_the_scope_admin(serve, tmp_path, path):
    """A key with scope explain gets 403."""
    write(tmp_path / "m.safetensors")
    keys = f"analyst explain {EXPLAIN};operator admin {ADMIN}"
    with serve(models=tmp_path, repository_api=True, keys=keys) as client:
        assert client.post(path).status_code == 401
        refused = client.post(path, headers={"Authorization": f"Bearer {EXPLAIN}"})
        assert (refused.status_code, refused.json()["error"]) == (403, "this needs an API key with the scope admin")
        assert client.post(path, headers={"Authorization": f"Bearer {ADMIN}"}).status_code == 200


def test_the_index_lists_every_version_with_its_reason(serve, tmp_path):
    """Failed versions are listed too, unless only ready ones are requested."""
    write(tmp_path / "m" / "1.safetensors")
    (tmp_path / "m" / "2.safetensors").write_bytes(b"")
    with serve(models=tmp_path, repository_api=True) as client:
        failed = entry("UNAVAILABLE", "2", "2.safetensors is not a safetensors file")
        assert client.post(INDEX).json() == [failed, entry()]
        assert client.post(INDEX, json={"ready": False}).json() == [failed, entry()]
        assert client.post(INDEX, json={"ready": True}).json() == [entry()]
        assert "model_repository" in client.get("/v2").json()["extensions"]


def test_loading_reads_new_files(client, tmp_path):
    """Changed files, new versions and new models are served once the response has arrived, without a scan."""
    changed = write(tmp_path / "m.safetensors", 1)
    assert client.post(LOAD).json() == [entry()]
    assert checkpoint(client) == changed.sha256
    second = write(tmp_path / "m" / "2.safetensors", 2)
    assert client.post(LOAD, json={"parameters": {}}).json() == [entry(version="2"), entry()]
    assert checkpoint(client) == second.sha256
    write(tmp_path / "n.safetensors")
    assert client.get("/v1/models/n").status_code == 404
    assert client.post("/v2/repository/models/n/load").json() == [{**entry(), "name": "n"}]
    assert client.get("/v2/models/n/ready").status_code == 200


def test_a_failed_load_keeps_the_served_version(client, tmp_path):
    """The response and the index have the reason, and the served version stays."""
    before = checkpoint(client)
    (tmp_path / "m.safetensors").write_bytes(b"")
    answer = client.post(LOAD)
    reason = "m.safetensors is not a safetensors file"
    error = f"model 'm', version 1, cannot be loaded: {reason}"
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert client.post(INDEX).json() == [entry(reason=reason)]
    assert checkpoint(client) == before
    shutil.rmtree(tmp_path)
    answer = client.post(LOAD)
    assert (answer.status_code, answer.json()["error"].split(":")[0]) == (400, "the models cannot be read")
    assert checkpoint(client) == before


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_names_are_those_of_the_listing(client, verb):
    """An unlisted name is unknown, and never used as a path."""
    for name in ("n", "M", "m.safetensors", "..", "%2e%2e", "..%2fm", "%2fm", "m%00", "x" * 5000):
        assert client.post(f"/v2/repository/models/{name}/{verb}").status_code == 404
        assert client.post(INDEX).json() == [entry()]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (INDEX, {"ready": 1}, "ready must be a valid boolean"),
        (INDEX, [], "body must be a JSON object"),
        (LOAD, {"parameters": {"config": "{}"}}, "parameters.config is unknown"),
        (LOAD, {"parameters": {"file:1/model": "AAAA"}}, "parameters.file:1/model is unknown"),
        (UNLOAD, {"parameters": {"unload_dependents": "all"}}, "parameters.unload_dependents must be a valid boolean"),
    ],
)
def test_unsupported_parameters_are_refused(client, path, body, message):
    """Configurations and files sent over HTTP are refused, and nothing changes."""
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert answer.json()["error"].startswith(message)
    assert client.post(INDEX).json() == [entry()]


def test_an_unloaded_model_stays_so_until_it_is_loaded(serve, tmp_path, wait_until):
    """Scans reload neither the model nor its replacement."""
    write(tmp_path / "m.safetensors")
    write(tmp_path / "n.safetensors")
    with serve(models=tmp_path, poll_seconds=0.01, repository_api=True) as client:
        assert client.post(UNLOAD, json={"parameters": {"unload_dependents": False}}).json() == [GONE]
        changed = write(tmp_path / "m.safetensors", 1)
        seen = write(tmp_path / "n.safetensors", 2)
        wait_until(lambda: client.get("/v1/models/n").json()["checkpoint"] == f"sha256:{seen.sha256}")
        assert client.post(INDEX).json()[0] == GONE
        answers = [
            client.post("/v1/models/m:predict", json=BODY),
            client.post("/v2/models/m/infer", json=make_tensors(BODY["instances"])),
            client.get("/v1/models/m/ready"),
            client.get("/v2/models/m/ready"),
            client.get("/v1/models/m/topology"),
        ]
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["error"] for answer in answers} == {"model 'm' is unloaded"}
        assert client.get("/v2/health/ready").status_code == 200
        assert client.post(LOAD).json() == [entry()]
        assert checkpoint(client) == changed.sha256


def test_health_has_the_state_of_the_model(client):
    """Responses have both keys, also with an error status."""
    for path in ("live", "ready"):
        assert client.get(f"/v2/health/{path}").json() == {"live": True, "ready": True}
    client.post(UNLOAD)
    assert client.get("/v2/health/live").json() == {"live": True, "ready": False}
    answer = client.get("/v2/health/ready")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert {"live": True, "ready": False, "error": "m version 1 is unloaded"}.items() <= answer.json().items()


def test_loading_under_traffic_fails_no_request_and_mixes_no_answer(client, tmp_path):
    """Every response is complete and from a checkpoint that was loaded, and each checkpoint has answered."""
    first = load_checkpoint(tmp_path / "m.safetensors")
    models = {first.sha256: first}
    with repeating(lambda: client.post("/v2/models/m/infer", json=make_tensors(BODY["instances"]))) as answers:
        for seed in range(1, 6):
            model = write(tmp_path / "m.safetensors", seed)
            models[model.sha256] = model
            for _ in range(2):  # the second call changes nothing
                assert client.post(LOAD).status_code == 200
            enough = len(answers) + 20
            poll(lambda enough=enough: len(answers) >= enough)
    assert {answer.status_code for answer in answers} == {200}
    documents = [answer.json() for answer in answers]
    by_checkpoint = [one["parameters"]["checkpoint"].removeprefix("sha256:") for one in documents]
    assert set(by_checkpoint) == set(models)
    expected = {name: model.predict(WINDOWS).ravel() for name, model in models.items()}
    for document, name in zip(documents, by_checkpoint, strict=True):
        np.testing.assert_allclose(document["outputs"][0]["data"], expected[name], rtol=1e-12)


def test_unloading_under_traffic_gives_complete_responses_or_503(client):
    """During ten cycles every response is complete or 503, and both occur."""
    ask_once = partial(client.post, "/v1/models/m:predict", json=BODY)
    expected = list(leaves(ask_once().json()))
    with repeating(ask_once) as answers:
        for _ in range(10):
            assert client.post(UNLOAD).json() == [GONE]
            assert ask_once().status_code == 503
            assert client.post(LOAD).json() == [entry()]
            assert list(leaves(ask_once().json())) == expected
    for answer in answers:
        unloaded = answer.status_code == 503 and answer.json()["error"] == "model 'm' is unloaded"
        assert unloaded or (answer.status_code == 200 and list(leaves(answer.json())) == expected), answer.text


@pytest.mark.thorough("starts two processes")
def test_with_several_processes_the_folder_is_looked_at_instead(launch, tmp_path):
    """A command would reach only one process; the index is that of the process which answers."""
    write(tmp_path / "models" / "m.safetensors")
    with launch(tmp_path / "models", "--workers", 2, KANSCOPE_REPOSITORY_API="true") as process:
        for path in (LOAD, UNLOAD):
            answer = process.client.post(path)
            assert answer.status_code == 501
            assert "change the folder, which each process scans (poll_seconds)" in answer.json()["error"]
        assert process.client.post(INDEX).json() == [entry()]


def test_loading_continues_after_the_deadline(client, tmp_path, monkeypatch, wait_until):
    """The request ends at the deadline of its header, and the model is served once it is loaded."""
    go_on = threading.Event()
    load = registry.load

    def load_slowly(path):
        assert go_on.wait(300)
        return load(path)

    monkeypatch.setattr(registry, "load", load_slowly)
    changed = write(tmp_path / "m.safetensors", 1)
    answer = client.post(LOAD, headers={"X-Request-Timeout": "0.01"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "not changed within 0.01 s (request_timeout), and go on being changed" in answer.json()["error"]
    go_on.set()
    wait_until(lambda: checkpoint(client) == changed.sha256)
    answer = client.post(LOAD, headers={"X-Request-Timeout": "soon"})
    assert (answer.status_code, answer.json()["error"].split()[0]) == (400, "X-Request-Timeout")


def test_a_body_that_is_too_large_is_refused(client):
    """The limits of other operations apply."""
    with connect(client) as connection:
        connection.sendall(head("POST", LOAD, f"Content-Length: {10**9}"))
        assert read_answer(connection)[0].status == 413
