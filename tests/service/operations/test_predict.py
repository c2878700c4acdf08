from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from documents import leaves
from factories import make_tensors, make_windows

from kanmodel import Model


def columns_of(model, windows):
    return {name: windows[..., f].tolist() for f, name in enumerate(model.config.feature_names)}


@pytest.mark.parametrize("name", ["nyc-weather", "two", "front", "head"])
def test_predicts_what_the_model_predicts_in_either_form(service, name):
    """Instances and columns give the checkpoint's forecasts in original units."""
    model = service.models[name]
    windows = make_windows(model, 3)
    expected = model.predict(windows).tolist()
    for body in ({"instances": windows.tolist()}, {"columns": columns_of(model, windows)}):
        answer = service.post(f"/v1/models/{name}:predict", body)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["predictions"] == expected
        assert answer.json()["outputs"] == list(model.config.outputs)
        assert answer.json()["model_name"] == name
        assert answer.json()["checkpoint"] == f"sha256:{model.sha256}"


def test_warns_of_the_most_extreme_value_outside_the_training_range(service):
    """One warning per instance and feature, for the step furthest outside; :explain returns the same ones."""
    model = service.models["nyc-weather"]
    windows = model.scaling.features_to_original(model.reference.scaled[:2])
    windows[1, 3, 0], windows[1, 5, 0], windows[1, 7, 0] = 41.2, 45.5, -20.0
    low, high = model.config.features[0].min, model.config.features[0].max
    place = {"code": "outside_training_range", "instance": 1, "feature": "temp_c", "step": 7 - 23}
    message = f"-20 is outside the training range [{low:.6g}, {high:.6g}]"
    for verb in ("predict", "explain"):
        answer = service.post(f"/v1/models/nyc-weather:{verb}", {"instances": windows.tolist()}).json()
        assert answer["warnings"] == [{**place, "value": -20.0, "min": low, "max": high, "message": message}]


def test_counts_the_warnings_that_it_leaves_out(service):
    """At most 100 warnings are listed, and the rest are counted."""
    windows = np.full((30, 6, 4), 1e6)
    for verb, more in (("predict", {}), ("explain", {"output": "a+1"})):
        answer = service.post(f"/v1/models/two:{verb}", {"instances": windows.tolist(), **more}).json()
        assert len(answer["warnings"]) == 100
        assert answer["warnings_omitted"] == 20


@pytest.mark.parametrize("name", ["nyc-weather", "two", "head"])
def test_states_how_unlike_the_reference_windows_each_instance_is(service, name):
    """What the library says of each, for any form and number of windows; :explain says the same, without it nothing."""
    model = service.models[name]
    windows = make_windows(model, 8)
    far = windows[3, 0, 1] = model.config.features[1].max + 5 * model.config.features[1].std
    expected, found = Model.of(model).trust(windows), []
    for verb, body in (
        ("predict", {"instances": windows.tolist()}),
        ("predict", {"columns": columns_of(model, windows)}),
        ("explain", {"instances": windows.tolist(), "output": model.config.outputs[0]}),
    ):
        assert "trust" not in service.post(f"/v1/models/{name}:{verb}", body).json()
        found.append(service.post(f"/v1/models/{name}:{verb}", {**body, "trust": True}).json()["trust"])
    assert found[0] == found[1] == found[2] and len(found[0]) == 8
    for one, answer in zip(expected, found[0], strict=True):
        assert (answer["verdict"], answer["reliable"], answer["sentence"]) == (one.verdict, one.reliable, str(one))
        near = answer["nearest_reference"]
        assert near["distance"] == pytest.approx(one.nearest_reference.distance, rel=1e-9)
        assert near["index"] == one.nearest_reference.index and answer["p_value"] == one.p_value
        assert answer["shares"] == pytest.approx(one.shares, rel=1e-6, abs=1e-12)
        assert answer["steps"] == {key: [-lags.oldest, -lags.newest] for key, lags in one.lags.items()}
        assert answer["mean_abs_error"] == one.mean_abs_error
    outside = found[0][3]
    (most, *_) = outside["outside"]
    assert outside["verdict"] == "outside" and most["feature"] == model.config.feature_names[1]
    assert most["value"] == far and most["max"] == model.config.features[1].max
    assert most["steps"][0] == 1 - model.config.lookback


def test_an_unknown_way_to_ask_for_trust_is_refused(service):
    """It is true or false, and windows are checked as without."""
    windows = make_windows(service.models["two"], 1).tolist()
    for verb, members, path in (
        ("predict", {"instances": windows, "trust": "yes"}, "trust"),
        ("explain", {"instances": windows, "output": "a+1", "trust": 1}, "trust"),
        ("predict", {"instances": [[[1]]], "trust": True}, "instances[0]"),
    ):
        answer = service.post(f"/v1/models/two:{verb}", members)
        assert answer.status_code == 422 and answer.json()["errors"][0]["path"] == path, answer.text


def test_four_threads_get_the_results_of_one(service):
    """Concurrent requests do not affect each other."""
    bodies = [{"instances": make_windows(service.models["two"], 2, seed).tolist()} for seed in range(8)]

    def ask(body):
        return [
            service.post(f"/v1/models/two:{verb}", body | more).json()
            for verb, more in (("predict", {}), ("explain", {"output": "b+2", "detail": "flow"}))
        ]

    alone = [list(leaves(ask(body))) for body in bodies]
    with ThreadPoolExecutor(4) as pool:
        for answer, expected in zip(pool.map(ask, bodies * 4), alone * 4, strict=True):
            assert list(leaves(answer)) == expected


def test_the_hot_path_bypasses_the_router(serve, folder, service, monkeypatch):
    """`:predict`, `:explain` and infer bypass FastAPI's router; other methods do not."""

    async def fail(*_):
        raise AssertionError("FastAPI has looked for a route")

    windows = make_windows(service.models["two"], 2).tolist()
    with serve(models=folder / "two.safetensors") as client:
        monkeypatch.setattr("fastapi.routing.APIRoute.handle", fail)
        monkeypatch.setattr("fastapi.routing.APIRouter.app", fail)
        for path, body in (
            ("/v1/models/two:predict", {"instances": windows}),
            ("/v1/models/two:explain", {"instances": windows, "output": "a+1"}),
            ("/v2/models/two/infer", make_tensors(windows)),
        ):
            assert client.post(path, json=body).status_code == 200
            assert client.post(path, json={}).status_code in (400, 422)
        assert client.post("/v1/models/none:predict", json={}).json()["code"] == "model_not_found"
        monkeypatch.undo()
        assert client.get("/v1/models/two:predict").status_code == 405
