"""Requests that only look, as those of the explorer, are no production: they say so in a header."""

from __future__ import annotations

import json
import re

import pytest
from factories import make_model, make_tensors, make_windows, with_intervals
from waiting import poll

import kanmodel
from kanmodel.checkpoint import save_checkpoint
from service.telemetry.chain import verify
from service.telemetry.record import REQUEST, RESPONSE

EXPLORE = {"X-Request-Purpose": "explore"}
NDJSON = {"Accept": "application/x-ndjson"}


@pytest.fixture
def folder(tmp_path):
    """Two versions of a model with intervals, of which the second forecasts what the first does, as a shadow."""
    folder = tmp_path / "models"
    (folder / "load").mkdir(parents=True)
    for version in (1, 2):
        model = with_intervals(make_model("lstm", seed=version, n_reference=130))
        save_checkpoint(model, folder / "load" / f"{version}.safetensors")
    (folder / "load" / "versions.json").write_text('{"default": "1", "shadow": {"2": 1.0}}')
    return folder


def requests_of(windows):
    """A request of each kind that forecasts or changes windows, by its id."""
    body, tensors = {"instances": windows.tolist()}, make_tensors(windows.tolist())
    path = "/v1/models/load"
    return {
        "predict": (f"{path}:predict", body | {"intervals": "all"}, {}),
        "explain": (f"{path}:explain", body, {}),
        "stream": (f"{path}:explain", body, NDJSON),
        "infer": ("/v2/models/load/infer", tensors, {}),
        "infer-explain": ("/v2/models/load/infer", {**tensors, "parameters": {"explain": True}}, {}),
        "whatif": (f"{path}:whatif", body | {"features": ["f0"]}, {}),
    }


def counted(client, metric):
    """The values of a metric of the model, by its labels."""
    found = re.findall(rf"^{metric}{{(.*)}} (.+)$", client.get("/metrics").text, re.M)
    return {labels: float(value) for labels, value in found}


def forecasts(client, version, use):
    return counted(client, "kanscope_forecasts_total").get(f'model="load",use="{use}",version="{version}"', 0)


def test_what_is_explored_is_counted_by_nothing_else(serve, folder, tmp_path):
    """Not in drift, by shadows, or as inputs outside the training range, and it gets no receipts; what follows is."""
    model = kanmodel.load(folder / "load" / "1.safetensors")
    windows = make_windows(model, 4)
    windows[:, 0, 0] = 1e6
    with serve(models=folder, poll_seconds=0.05, record=tmp_path / "record", record_inputs="*") as client:
        poll(lambda: client.get("/v1/models/load").json()["chosen"].get("shadow") == {"2": 1.0})
        for name, (path, body, headers) in requests_of(windows).items():
            answer = client.post(path, json=body, headers={"X-Request-Id": name, **EXPLORE, **headers})
            assert answer.status_code == 200, answer.text
        path, body, _ = requests_of(windows)["predict"]
        assert "receipts" not in client.post(path, json={**body, "receipts": True}, headers=EXPLORE).json()
        assert client.get("/v1/models/load/drift").json()["forecasts"] == 0
        assert counted(client, "kanscope_inputs_outside_range_total") == {}
        assert forecasts(client, "1", "explored") == 6 * 4 and forecasts(client, "1", "answer") == 0

        path, body, _ = requests_of(windows[:3])["predict"]
        for headers in ({}, {"X-Request-Purpose": "production"}):
            assert client.post(path, json=body, headers={"X-Request-Id": "counted", **headers}).status_code == 200
        poll(lambda: forecasts(client, "2", "shadow") >= 6)
        assert forecasts(client, "2", "shadow") == 6 and forecasts(client, "2", "skipped") == 0
        assert client.get("/v1/models/load/drift").json()["forecasts"] == 6
        assert forecasts(client, "1", "answer") == 6 and forecasts(client, "1", "explored") == 6 * 4
        assert [*counted(client, "kanscope_inputs_outside_range_total").values()] == [6.0]


def test_what_is_explored_is_recorded_and_marked(serve, folder, tmp_path):
    """No header keeps an answer out of the record: its events say `purpose`, those of other requests do not."""
    windows = make_windows(kanmodel.load(folder / "load" / "1.safetensors"), 33)
    asked = {name: one for name, one in requests_of(windows).items() if name != "whatif"}
    with serve(models=folder, record=tmp_path / "record", record_inputs="*") as client:
        for prefix, purpose in (("looked-", EXPLORE), ("asked-", {})):
            for name, (path, body, headers) in asked.items():
                answer = client.post(path, json=body, headers={"X-Request-Id": prefix + name, **purpose, **headers})
                assert answer.status_code == 200, answer.text
    lines = [line for path in (tmp_path / "record").iterdir() for line in path.read_text().splitlines()]
    events = [event for event in map(json.loads, lines) if event["type"] in (REQUEST, RESPONSE)]
    ids = {f"{prefix}{name}" for prefix in ("looked-", "asked-") for name in (*asked, "stream.32")}
    assert sorted(event["id"] for event in events) == sorted([*ids, *ids])  # a request and an answer each
    for event in events:
        assert event.get("purpose") == ("explore" if event["id"].startswith("looked-") else None)
    assert verify(tmp_path / "record").problems == []


def test_a_page_of_an_allowed_origin_may_say_that_it_explores(serve):
    """Its browser asks first whether the header may be sent."""
    asks = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    with serve(allowed_origins="https://example.org") as client:
        for name, status in (("x-request-purpose", 200), ("x-other", 400)):
            headers = {**asks, "Access-Control-Request-Headers": name}
            assert client.options("/v1/models/nyc-weather:predict", headers=headers).status_code == status
