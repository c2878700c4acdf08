"""Versions over HTTP, and models that are replaced during requests."""

from __future__ import annotations

import os
from urllib.parse import unquote

import pytest
from factories import make_model, make_tensors, make_windows

from kanmodel.checkpoint import load_checkpoint, save_checkpoint

MODEL = make_model("head")
WINDOWS = make_windows(MODEL, 3)
BODY = {"instances": WINDOWS.tolist()}
GETS = ("", "/attributions", "/topology", "/topology/fidelity", "/edges", "/edges/0/1/0", "/reference/0", "/report")


def write(path, seed=0):
    """Writes a checkpoint that fits BODY, different for each seed."""
    path.parent.mkdir(exist_ok=True)
    save_checkpoint(make_model("head", seed=seed), path)
    return load_checkpoint(path)


def checkpoint(model):
    return f"sha256:{model.sha256}"


def ask_all(client, path, **query):
    """The response of every operation on a model, by name."""
    answers = {f"GET {get}": client.get(path + get, params=query) for get in GETS}
    answers |= {f"POST {verb}": client.post(path + verb, json=BODY, params=query) for verb in (":predict", ":explain")}
    assert {answer.status_code for answer in answers.values()} == {200}
    return {name: answer.json() for name, answer in answers.items()}


def checkpoint_of(answer):
    return answer.get("graph", answer)["checkpoint"]


def test_every_operation_reaches_every_version(serve, tmp_path):
    """The query selects the version, by default the highest; every response names it."""
    models = {version: write(tmp_path / "m" / f"{version}.safetensors", version) for version in (1, 2, 10)}
    with serve(models=tmp_path) as client:
        for version, model in models.items():
            answers = ask_all(client, "/v1/models/m", version=str(version))
            assert {checkpoint_of(answer) for answer in answers.values()} == {checkpoint(model)}
            assert {answer.get("graph", answer)["version"] for answer in answers.values()} == {str(version)}
            assert answers["POST :predict"]["predictions"] == model.predict(make_windows(MODEL, 3)).tolist()
        assert ask_all(client, "/v1/models/m") == answers


def test_the_list_and_the_model_show_all_versions(serve, tmp_path):
    """The model has the details of its highest ready version; a failed one has its reason."""
    good = write(tmp_path / "m" / "1.safetensors")
    (tmp_path / "m" / "2.safetensors").write_bytes(b"")
    ready = {"version": "1", "state": "ready", "ready": True, "loaded": True, "checkpoint": checkpoint(good)}
    ready |= {"prepared": False, "unprepared": "there is no 1.results", "skill": good.skill.verdict}
    failed = {"version": "2", "state": "failed", "ready": False, "loaded": False, "checkpoint": None, "prepared": False}
    failed["reason"] = "2.safetensors is not a safetensors file"
    with serve(models=tmp_path) as client:
        answer = client.get("/v1/models").json()
        assert answer == {"models": ["m"], "details": [{"name": "m", **ready, "versions": [failed, ready]}]}
        assert client.get("/v1/models/m").json()["versions"] == [failed, ready]
        assert client.get("/v1/models/m?version=2").status_code == 503
        assert client.get("/readyz").json()["models"] == answer["details"]


@pytest.mark.parametrize("version", ["2", "0", "01", "latest", "%2e%2e", "1%2f1", "1 ", "¹"])
def test_a_version_that_does_not_exist_is_404(service, version):
    """The error lists the existing versions; in V2 this also holds for unknown paths below them."""
    answers = [service.get(f"/v1/models/head{path}?version={version}") for path in ("", "/topology", "/report")]
    answers += [service.post(f"/v1/models/head:{verb}?version={version}", BODY) for verb in ("predict", "explain")]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (404, "version_not_found")
        known = f"model 'head' has no version {unquote(version)!r}; the versions are 1"
        assert answer.json()["error"] == known
    answers = [service.get(f"/v2/models/head/versions/{version}{path}") for path in ("", "/ready")]
    answers.append(service.post(f"/v2/models/head/versions/{version}/infer", make_tensors(BODY["instances"])))
    for answer in answers:
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")


@pytest.mark.parametrize("path", ["", "/ready", "/topology", "/reference/0", ":predict", ":explain"])
def test_a_misspelt_version_is_refused(service, path):
    """A misspelt parameter is refused rather than ignored, which would select the highest version."""
    method, options = ("POST", {"json": BODY}) if path.startswith(":") else ("GET", {})
    answer = service.client.request(method, f"/v1/models/head{path}", params={"versoin": "1"}, **options)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "versoin")


def test_versions_are_in_the_path_of_v2_alone(service):
    """As the Open Inference Protocol specifies; under /v1 each resource has a single path."""
    for path in ("", "/ready"):
        assert service.get(f"/v2/models/head/versions/1{path}").status_code == 200
        assert service.get(f"/v1/models/head/versions/1{path}").status_code == 404
    assert service.post("/v1/models/head/versions/1:predict", BODY).json()["code"] == "path_not_found"
    answer = service.get("/v1/models/head:predict?version=1")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_models_of_one_checkpoint_answer_under_their_own_names(serve, tmp_path):
    """Global results are cached by the hash of the checkpoint and contain no model name."""
    write(tmp_path / "a.safetensors")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "7.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    with serve(models=tmp_path) as client:
        answers = {name: ask_all(client, f"/v1/models/{name}") for name in "ab"}
    for operation, of_a in answers["a"].items():
        of_b = answers["b"][operation]
        key = "name" if operation == "GET " else "model_name"
        assert (of_a.get("graph", of_a).pop("version"), of_b.get("graph", of_b).pop("version")) == ("1", "7")
        assert (of_a.get("graph", of_a).pop(key), of_b.get("graph", of_b).pop(key)) == ("a", "b")
        if operation == "GET ":
            assert of_a.pop("versions") != of_b.pop("versions")
        assert of_a == of_b


def test_models_that_get_equal_bodies_never_share_an_answer(serve, tmp_path):
    """Each model answers from its own checkpoint, whichever was asked before."""
    models = {name: write(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate("abc")}
    with serve(models=tmp_path) as client:
        answers = {name: ask_all(client, f"/v1/models/{name}") for _ in range(2) for name in models}
        for get in GETS[1:]:
            etags = [client.get(f"/v1/models/{name}{get}").headers["etag"] for name in models]
            known = {"If-None-Match": ", ".join(etags[1:])}
            assert len(set(etags)) == 3
            assert client.get(f"/v1/models/a{get}", headers=known).status_code == 200
    for name, model in models.items():
        assert {checkpoint_of(answer) for answer in answers[name].values()} == {checkpoint(model)}
    for operation in answers["a"]:
        assert len({str(answers[name][operation]) for name in models}) == 3


def test_a_checkpoint_truncated_in_place_is_still_served(serve, tmp_path):
    """The checkpoint was read into memory, so neither the process nor a response depends on the file."""
    write(tmp_path / "m.safetensors")
    with serve(models=tmp_path, poll_seconds=0) as client:
        before = ask_all(client, "/v1/models/m")
        for size in (1000, 0):
            os.truncate(tmp_path / "m.safetensors", size)
            assert ask_all(client, "/v1/models/m") == before
