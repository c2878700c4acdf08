"""Outcomes find the forecasts of real requests by id or time; those that do not, are repeated or wrong are told so."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

import httpx2
import numpy as np
import pytest
from factories import make_model, make_tensors, make_windows, with_intervals

from kanmodel.checkpoint import load_checkpoint, save_checkpoint

PATH = "/v1/models/two"
NDJSON = {"Accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def model(folder):
    return load_checkpoint(folder / "two.safetensors")


def send(client: Any, *outcomes: dict[str, Any], path: str = PATH) -> httpx2.Response:
    answer: httpx2.Response = client.post(f"{path}:outcomes", json={"outcomes": outcomes})
    return answer


def counts(answer: httpx2.Response) -> tuple[int, int, int]:
    """Outcomes that were matched, unknown, and repeated."""
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return found["matched"], found["unknown"], found["repeated"]


def test_each_kind_of_forecast_has_its_outcome(serve, folder, model):
    """By the id of the answer and the number of the instance: of :predict, :explain in both forms, and infer."""
    windows = make_windows(model, 3)
    instances, value = {"instances": windows.tolist()}, {"a+1": 1.0}
    with serve(models=folder / "two.safetensors") as client:
        for name, path, body, headers in (
            ("predict", f"{PATH}:predict", instances, {}),
            ("explain", f"{PATH}:explain", {**instances, "output": "b+2"}, {}),
            ("stream", f"{PATH}:explain", {**instances, "output": "a+1"}, NDJSON),
            ("infer", "/v2/models/two/infer", make_tensors(windows.tolist()), {}),
            ("explained", "/v2/models/two/infer", make_tensors(windows.tolist(), explain=True), {}),
        ):
            answer = client.post(path, json=body, headers={"X-Request-Id": name, **headers})
            assert answer.status_code == 200 and answer.headers["X-Request-Id"] == name
            found = [send(client, {"id": name, "instance": at, "values": value}) for at in (0, 2, 2, 3)]
            assert [*map(counts, found)] == [(1, 0, 0), (1, 0, 0), (0, 0, 1), (0, 1, 0)], name
        client.post("/v2/models/two/infer", json={**make_tensors(windows.tolist()), "id": "of the body"})
        assert counts(send(client, {"id": "of the body", "values": value})) == (1, 0, 0)
        answer = client.post(f"{PATH}:predict", json=instances)
        found = send(client, {"id": answer.headers["X-Request-Id"], "values": value})
        assert counts(found) == (1, 0, 0) and found.json()["output"] == "a+1"
        refused = client.post(f"{PATH}:predict", json={"instances": 1}, headers={"X-Request-Id": "refused"})
        whatif = {"instances": windows[:1].tolist(), "features": ["f0"], "output": "a+1"}
        shifted = client.post(f"{PATH}:whatif", json=whatif, headers={"X-Request-Id": "shifted"})
        assert (refused.status_code, shifted.status_code) == (422, 200)
        unknown = [{"id": name, "values": value} for name in ("refused", "shifted", "never", "predict.1")]
        assert counts(send(client, *unknown)) == (0, 4, 0)
        assert counts(send(client, *([{"id": "predict", "instance": 1, "values": value}] * 3))) == (1, 0, 2)


def test_forecasts_of_a_series_have_outcomes_by_time(serve):
    """As the answer writes times, in another zone, or by id; of one time the first forecast alone."""
    rows = load_rows(40)
    path, value = "/v1/models/nyc-weather", {"dtemp_6h+1": 1.0}
    with serve() as client:
        answer = client.post(f"{path}:predict", json={"series": rows, "last": 5}, headers={"X-Request-Id": "first"})
        times = answer.json()["times"]
        client.post(f"{path}:predict", json={"series": rows, "last": 2}, headers={"X-Request-Id": "second"})
        found = send(client, *({"time": time, "values": value} for time in times), path=path)
        assert counts(found) == (5, 0, 0)
        later = times[-1].replace("Z", "+00:00")
        assert counts(send(client, {"time": later, "values": value}, path=path)) == (0, 0, 1)
        assert counts(send(client, {"id": "first", "instance": 4, "values": value}, path=path)) == (0, 0, 1)
        assert counts(send(client, {"id": "second", "values": value}, path=path)) == (1, 0, 0)
        assert counts(send(client, {"time": "2030-01-01", "values": value}, path=path)) == (0, 1, 0)


def load_rows(n: int) -> dict[str, Any]:
    """Rows of the bundled model with hourly times."""
    from service.models.repository import BUNDLED

    model = load_checkpoint(BUNDLED / "nyc-weather.safetensors")
    values = make_windows(model, -(-n // model.config.lookback)).reshape(-1, len(model.config.features))[:n]
    columns = dict(zip(model.config.feature_names, values.T.tolist(), strict=True))
    return {**columns, "time": [f"2026-03-{1 + hour // 24:02d}T{hour % 24:02d}:00Z" for hour in range(n)]}


@pytest.mark.parametrize(
    ("outcome", "place", "reason"),
    [
        ({"values": {"a+1": 1}}, "outcomes[0]", "must have an id or a time"),
        ({"id": "a", "time": 1, "values": {"a+1": 1}}, "outcomes[0]", "must have an id or a time, not both"),
        ({"id": "a"}, "outcomes[0].values", "is missing"),
        ({"id": "a", "values": {}}, "outcomes[0].values", "must have what came for a+1"),
        ({"id": "a", "values": {"a": 1}}, "outcomes[0].values.a", "is unknown: give what came for a+1"),
        ({"id": "a", "values": {"b+2": 1}}, "outcomes[0].values.b+2", "is not compared: give what came for a+1"),
        ({"id": "a", "values": {"a+1": "1"}}, "outcomes[0].values.a+1", "must be a"),
        ({"id": "a", "values": {"a+1": None}}, "outcomes[0].values.a+1", "must be a"),
        ({"id": "a", "values": {"a+1": True}}, "outcomes[0].values.a+1", "must be a"),
        ({"id": "a", "values": {"a+1": 1e300}}, "outcomes[0].values.a+1", "must be at most"),
        ({"id": "", "values": {"a+1": 1}}, "outcomes[0].id", "must"),
        ({"id": "a" * 129, "values": {"a+1": 1}}, "outcomes[0].id", "must"),
        ({"id": 7, "values": {"a+1": 1}}, "outcomes[0].id", "must"),
        ({"id": "a", "instance": -1, "values": {"a+1": 1}}, "outcomes[0].instance", "must be"),
        ({"id": "a", "instance": 2**63, "values": {"a+1": 1}}, "outcomes[0].instance", "must be"),
        ({"time": 1, "instance": 0, "values": {"a+1": 1}}, "outcomes[0].instance", "must be given only with an id"),
        ({"time": "soon", "values": {"a+1": 1}}, "outcomes[0].time", "must be a time"),
        ({"id": "a", "values": {"a+1": 1}, "value": 1}, "outcomes[0].value", "is unknown"),
    ],
)
def test_a_wrong_outcome_is_refused_with_its_place(local_service, outcome, place, reason):
    """Nothing of the request is taken then."""
    service = local_service
    windows = make_windows(service.models["two"], 1)
    service.post(f"{PATH}:predict", {"instances": windows.tolist()}, headers={"X-Request-Id": "kept"})
    answer = send(service.client, outcome, {"id": "kept", "values": {"a+1": 1.0}})
    error = answer.json()
    assert answer.status_code == 422 and error["errors"][0]["path"] == place
    assert reason in error["errors"][0]["message"], error
    client_answer = send(service.client, {"id": "kept", "values": {"a+1": 1.0}})
    assert counts(client_answer) in ((1, 0, 0), (0, 0, 1))


def test_too_many_outcomes_are_refused(local_service):
    """As many as a request may have windows, in bodies that would hold far more too."""
    for n, status in ((50, 200), (51, 422), (1000, 422)):
        answer = send(local_service.client, *[{"id": "x", "values": {"a+1": 1}}] * n)
        assert answer.status_code == status, answer.text
    assert send(local_service.client).json()["errors"][0]["path"] == "outcomes"


def test_a_forecast_of_another_version_has_its_outcome(serve, tmp_path):
    """One that was made by a version before, unless the request names a version."""
    (tmp_path / "load").mkdir()
    model = make_model("lstm", n_reference=40)
    save_checkpoint(model, tmp_path / "load" / "1.safetensors")
    save_checkpoint(make_model("lstm", n_reference=40, seed=1), tmp_path / "load" / "2.safetensors")
    body, value = {"instances": make_windows(model, 1).tolist()}, {"y+1": 1.0}
    with serve(models=tmp_path) as client:
        for version in ("1", "2"):
            path = f"/v1/models/load:predict?version={version}"
            assert client.post(path, json=body, headers={"X-Request-Id": version}).status_code == 200
        outcome = {"outcomes": [{"id": "1", "values": value}]}
        assert counts(client.post("/v1/models/load:outcomes?version=2", json=outcome)) == (0, 1, 0)
        assert counts(client.post("/v1/models/load:outcomes", json=outcome)) == (1, 0, 0)


def test_outcomes_last_over_a_restart(serve, tmp_path):
    """Where the setting names a file: forecasts wait for their outcomes, and intervals are compared as they were."""
    model = with_intervals(make_model("lstm", n_reference=40))
    save_checkpoint(model, tmp_path / "load.safetensors")
    windows = make_windows(model, 4)
    body = {"instances": windows.tolist(), "intervals": "all"}
    settings = {"models": tmp_path / "load.safetensors", "monitor": tmp_path / "monitor"}
    with serve(**settings) as client:
        answer = client.post("/v1/models/load:predict", json=body, headers={"X-Request-Id": "before"}).json()
    middle = np.array(answer["predictions"])[:, 0]
    with serve(**settings) as client:
        outcomes = [{"id": "before", "instance": at, "values": {"y+1": value}} for at, value in enumerate(middle)]
        outcomes[3]["values"] = {"y+1": middle[3] + 1e6}
        assert counts(send(client, *outcomes, path="/v1/models/load")) == (4, 0, 0)
        found = client.get("/v1/models/load/drift").json()
    assert found["forecasts"] == 4 and found["errors"]["known"] == 4
    assert found["errors"]["mae"] == pytest.approx(250_000) and found["errors"]["bias"] == pytest.approx(-250_000)
    assert [(one["level"], one["covered"]) for one in found["coverage"]] == [(0.8, 0.75), (0.95, 0.75)]


def test_coverage_is_of_the_intervals_that_the_service_makes(serve, tmp_path):
    """Of those that a client's own adaptation has changed, errors count, and coverage does not."""
    model = make_model("lstm", n_reference=40)
    model = with_intervals(model.with_config(replace(model.config, ahead=1)))
    save_checkpoint(model, tmp_path / "load.safetensors")
    rng = np.random.default_rng(0)
    series = {name: rng.normal(size=60).tolist() for name in model.config.feature_names}
    body, path = {"instances": make_windows(model, 4).tolist(), "intervals": "all"}, "/v1/models/load"
    with serve(models=tmp_path / "load.safetensors") as client:
        table = {**series, "y": rng.normal(scale=30, size=60).tolist()}
        adaptation = client.post(f"{path}:backtest", json={"series": table, "adapt": True}).json()["adaptation"]
        answers = {}
        for name, more in (("adapted", {"adaptation": adaptation}), ("own", {})):
            answer = client.post(f"{path}:predict", json=body | more, headers={"X-Request-Id": name})
            answers[name] = answer.json()["intervals"]
        assert answers["adapted"] != answers["own"]
        outcomes = [{"id": name, "instance": at, "values": {"y+1": 0.0}} for name in answers for at in range(4)]
        assert counts(send(client, *outcomes, path=path)) == (8, 0, 0)
        found = client.get(f"{path}/drift").json()
    assert (found["forecasts"], found["errors"]["known"]) == (8, 8)
    for one, own in zip(found["coverage"], answers["own"], strict=True):
        holds = [low[0] <= 0 <= high[0] for low, high in zip(own["lower"], own["upper"], strict=True)]
        assert (one["level"], one["covered"]) == (own["level"], np.mean(holds))


def test_without_the_monitor_there_are_no_outcomes(serve, folder):
    """The answer says which setting turns it off."""
    with serve(models=folder / "two.safetensors", monitor="off") as client:
        for answer in (send(client, {"id": "x", "values": {"a+1": 1}}), client.get(f"{PATH}/drift")):
            assert answer.status_code == 403 and answer.json()["code"] == "disabled"
            assert "monitor" in answer.json()["error"]


def test_a_file_that_is_locked_is_a_clear_answer(serve, folder, tmp_path, monkeypatch):
    """The client may try again; forecasts go on."""
    monkeypatch.setattr("service.telemetry.history.BUSY_SECONDS", 0.1)
    body = {"instances": make_windows(load_checkpoint(folder / "two.safetensors"), 1).tolist()}
    with serve(models=folder / "two.safetensors", monitor=tmp_path / "file") as client:
        locking = sqlite3.connect(tmp_path / "file", isolation_level=None)
        locking.execute("BEGIN IMMEDIATE")
        assert client.post(f"{PATH}:predict", json=body).status_code == 200
        answer = send(client, {"id": "x", "values": {"a+1": 1}})
        assert answer.status_code == 503 and answer.headers["Retry-After"] == "60" and "locked" in answer.text
        locking.execute("ROLLBACK")
        locking.close()
        assert counts(send(client, {"id": "x", "values": {"a+1": 1}})) == (0, 1, 0)
