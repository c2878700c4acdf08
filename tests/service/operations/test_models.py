from __future__ import annotations

from dataclasses import fields

import pytest
from factories import make_model, make_windows
from waiting import poll

from kanmodel.checkpoint import save_checkpoint
from kanmodel.network.bases import BASES
from service.answers.models import BasisInfo


def test_lists_every_model_with_the_reason_of_a_failure(service):
    """Failed models are listed with their reason, the others as ready."""
    answer = service.get("/v1/models").json()
    assert answer["models"] == ["broken", "front", "head", "nyc-weather", "two"]
    details = {detail["name"]: detail for detail in answer["details"]}
    assert details["broken"]["state"] == "failed"
    assert details["broken"]["reason"].startswith("broken.safetensors is truncated")
    assert (details["broken"]["ready"], details["broken"]["checkpoint"]) == (False, None)
    for name, model in service.models.items():
        version = {"version": "1", "state": "ready", "ready": True, "loaded": True}
        version |= {"checkpoint": f"sha256:{model.sha256}", "prepared": False}
        version |= {"unprepared": f"there is no {name}.results", "skill": model.skill.verdict}
        assert details[name] == {"name": name, **version, "versions": [version]}


@pytest.mark.parametrize("name", ["nyc-weather", "two", "front", "head"])
def test_describes_inputs_and_outputs(service, name):
    """A model's features, outputs and shapes are those of its checkpoint."""
    config = service.models[name].config
    answer = service.get(f"/v1/models/{name}").json()
    assert [feature["name"] for feature in answer["features"]] == list(config.feature_names)
    known = vars(config.features[0])
    unsaid = {"mask", "fill"} | ({"title"} if known["title"] is None else set())
    assert answer["features"][0] == {key: value for key, value in known.items() if key not in unsaid}
    titled = {target.name: target.title for target in config.targets if target.title is not None}
    assert {target["name"]: target["title"] for target in answer["targets"] if "title" in target} == titled
    assert bool(titled) == (name == "nyc-weather")
    assert answer["outputs"] == list(config.outputs)
    assert (answer["lookback"], answer["horizon"]) == (config.lookback, config.horizon)
    assert answer["checkpoint"] == f"sha256:{service.models[name].sha256}"
    assert answer["metrics"] == dict(service.models[name].metrics)
    provenance = vars(service.models[name].provenance)
    lists = {key: list(provenance[key]) for key in ("not_told_apart", "unused")}
    assert answer["provenance"] == provenance | lists


def test_describes_an_architecture_in_the_names_of_pykan(service):
    """Width counts the nodes, product nodes among them, whose factors are listed; an absent stage is null."""
    front = service.get("/v1/models/front").json()["architecture"]
    assert "graph" not in front
    assert front["front"]["width"] == [4, 5, 5]
    assert front["front"]["mult_arity"] == [[], [2, 3], []]
    assert "grid_size" not in front["front"]
    assert [layer["basis"]["grid_size"] for layer in front["front"]["layers"]] == [4, 5]
    assert front["lstm"] == {"hidden_size": 5, "num_layers": 1, "bidirectional": False, "readout": "last"}
    head = service.get("/v1/models/head").json()["architecture"]
    assert head["front"] is head["lstm"] is None and "mult_arity" not in head["head"]


def test_skill_is_that_of_the_library(service):
    """A model states its skill, with the figures of the core; the list has the verdict of what is in memory."""
    details = {one["name"]: one for one in service.get("/v1/models").json()["details"]}
    for name, model in service.models.items():
        found, skill = service.get(f"/v1/models/{name}").json()["skill"], model.skill
        assert (found["verdict"], found["reason"]) == (skill.verdict, skill.reason)
        assert found["mae"] == (skill.mae and pytest.approx(skill.mae))
        assert found["interval"] == (skill.interval and pytest.approx([*skill.interval]))
        assert [one["name"] for one in found["baselines"]] == [of.name for of in skill.baselines]
        assert all("season" not in one for one in found["baselines"])
        assert details[name]["skill"] == details[name]["versions"][0]["skill"] == skill.verdict
    assert service.models["nyc-weather"].skill.verdict == "green"
    assert service.models["front"].skill.verdict == "unknown"  # without targets


def test_every_option_of_a_basis_is_described():
    """The document describes exactly the options that the bases of layers have."""
    options = {field.name for basis in BASES.values() for field in fields(basis)}
    assert set(BasisInfo.__annotations__) == {"kind", *options}


def test_the_bundled_model_is_served_where_no_models_are_given(serve):
    """The bundled model is served if no folder is named."""
    with serve(models=None) as client:
        assert client.get("/v1/models").json()["models"] == ["nyc-weather"]
        assert client.get("/v1/models/nyc-weather").json()["metrics"]["test_r2"] >= 0.70


@pytest.mark.parametrize("is_broken", [False, True])
def test_an_empty_folder_has_no_model_until_there_is_one(serve, tmp_path, is_broken):
    """Not the bundled one either, nor under the second name: the service is not ready and says why."""
    model = make_model("head")
    with serve(models=tmp_path, model_name="gas", poll_seconds=0.05) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert answer.json()["error"] == "the service is not ready: there is no model in the folder yet"
        assert client.get("/v2/health/ready").status_code == 503
        listing = client.get("/v1/models")
        assert (listing.status_code, listing.json()["models"], listing.json()["details"]) == (200, [], [])
        for name in ("gas", "nyc-weather"):
            for answer in (client.get(f"/v1/models/{name}"), client.post(f"/v1/models/{name}:predict", json={})):
                assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")
                assert answer.json()["error"] == f"there is no model '{name}'; the models are none"
        if is_broken:
            (tmp_path / "broken.safetensors").write_bytes(b"no checkpoint")
            poll(lambda: "broken" in client.get("/readyz").text)
            assert client.get("/readyz").status_code == 503
            (tmp_path / "broken.safetensors").unlink()
        save_checkpoint(model, tmp_path / "a.safetensors")
        poll(lambda: client.get("/readyz").status_code == 200)
        poll(lambda: client.get("/v1/models/gas").status_code == 200)
        assert client.get("/v1/models/gas").json()["name"] == "a"


def test_the_only_model_has_a_second_name(serve, tmp_path):
    """The setting `model_name` stands for a model while there is no other; a model of that name goes before."""
    save_checkpoint(model := make_model("head"), tmp_path / "a.safetensors")
    body = {"instances": make_windows(model, 1).tolist()}
    with serve(models=tmp_path, model_name="gas", poll_seconds=0.05) as client:
        assert client.get("/v1/models/gas").json()["name"] == client.get("/v1/models").json()["models"][0] == "a"
        answers = [client.post(f"/v1/models/{name}:predict", json=body).json() for name in ("gas", "a")]
        assert answers[0] == answers[1]
        assert client.get("/v2/models/gas/ready").status_code == 200
        assert client.get("/v1/models/oil").status_code == 404
        save_checkpoint(model, tmp_path / "b.safetensors")
        poll(lambda: client.get("/v1/models/gas").status_code == 404)
        save_checkpoint(model, tmp_path / "gas.safetensors")
        poll(lambda: client.get("/v1/models/gas").status_code == 200)
        assert client.get("/v1/models/gas").json()["name"] == "gas"
