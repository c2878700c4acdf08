"""What the record has of real requests: every forecast and explanation, and of inputs what the settings name."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from factories import make_model, make_shop, make_tensors, make_windows, with_intervals
from sockets import serving
from waiting import poll

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from service.operations.recorded import _encode_tensors
from service.telemetry.chain import verify
from service.telemetry.record import REQUEST, RESPONSE

NDJSON = {"Accept": "application/x-ndjson"}


def read(folder: Path, kind: str = RESPONSE) -> dict[str, dict[str, Any]]:
    """The data of the events of a type, by id."""
    lines = [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]
    events = [event for event in map(json.loads, lines) if event["type"] == kind]
    assert len({event["id"] for event in events}) == len(events)
    assert all(event["source"] == "/v2/models/two/versions/1" for event in events)
    return {event["id"]: event["data"] for event in events}


def ask(client: Any, windows: np.ndarray, **explained: Any) -> dict[str, Any]:
    """Answers to one request of each kind, by id."""
    body = {"instances": windows.tolist()}
    explain = {"output": "a+1", **explained}
    infer = make_tensors(windows.tolist())
    asked = {
        "predict": ("/v1/models/two:predict", body, {}),
        "explain": ("/v1/models/two:explain", {**body, **explain, "receipt": True}, {}),
        "stream": ("/v1/models/two:explain", {**body, **explain}, NDJSON),
        "infer": ("/v2/models/two/infer", infer, {}),
        "infer-explain": ("/v2/models/two/infer", {**infer, "parameters": {"explain": True}}, {}),
    }
    answers = {}
    for name, (path, document, headers) in asked.items():
        answer = client.post(path, json=document, headers={"X-Request-Id": name, "X-Tenant": "acme", **headers})
        assert answer.status_code == 200, answer.text
        answers[name] = [*map(json.loads, answer.text.splitlines())]
        client.post(path, json={**document, "instances": 1, "inputs": 1}, headers={"X-Request-Id": "wrong"})
    return answers


@pytest.fixture(scope="module")
def model(folder):
    return load_checkpoint(folder / "two.safetensors")


@pytest.fixture(scope="module")
def windows(model):
    """Enough for two parts of a stream, with values that no forecast has by chance, one outside the training range."""
    windows = make_windows(model, 33)
    windows[3, 2, 1] = 123456.789
    return windows


def numbers(values: Any) -> set[float]:
    """All numbers of a document."""
    if isinstance(values, dict | list):
        return set().union(*(numbers(value) for value in (values.values() if isinstance(values, dict) else values)))
    return {values} if isinstance(values, float) else set()


@pytest.mark.parametrize("n", [0, 1, 3])
def test_tensors_have_names_of_any_characters(n):
    """Also those of formats and of JSON, and a value that is no number is null."""
    names, columns = ("a%b", "%%d", '"],["ü'), np.arange(3.0 * n).reshape(n, 3).astype(np.float32) / 3
    columns[:1, 1] = np.nan
    tensors = json.loads(orjson.dumps(_encode_tensors(names, columns)))
    assert [tensor["name"] for tensor in tensors] == [*names]
    assert [tensor["shape"] for tensor in tensors] == [[n]] * 3
    values = np.array([tensor["data"] for tensor in tensors], np.float64)
    np.testing.assert_array_equal(values.T, columns.astype(np.float64))


def test_events_have_the_members_of_kserves_logger(serve, folder, tmp_path, windows):
    """A line is a CloudEvent in the JSON format, with the types and attributes of `pkg/logger/worker.go`."""
    settings = {"record": tmp_path, "record_headers": "X-Tenant", "record_inputs": "*"}
    with serve(models=folder / "two.safetensors", **settings) as client:
        headers = [(b"X-Tenant", b"a\xe9"), (b"Authorization", b"Bearer x"), (b"X-Request-Id", b"one")]
        headers.append((b"X-Tenant", b"b"))
        client.post("/v1/models/two:predict", json={"instances": windows.tolist()}, headers=headers).raise_for_status()
    (path,) = tmp_path.iterdir()
    opened, *events, closed = map(json.loads, path.read_text().splitlines())
    for number, (kind, event) in enumerate(zip((REQUEST, RESPONSE), events, strict=True), start=2):
        assert datetime.fromisoformat(event.pop("time")) <= datetime.fromisoformat(event.pop("recordedtime"))
        assert len(event.pop("chain")) == 64 and event.pop("data")["id"] == "one"
        assert event == {
            "specversion": "1.0",
            "type": kind,
            "id": "one",
            "source": "/v2/models/two/versions/1",
            "inferenceservicename": "two",
            "namespace": "default",
            "component": "predictor",
            "endpoint": "default",
            "metadata": '{"X-Tenant": ["a\\u00e9", "b"]}',
            "datacontenttype": "application/json",
            "sequence": f"{number:010}",
        }
    assert opened["data"]["settings"] == {"share": 1.0, "inputs": ["*"], "headers": ["X-Tenant"]}
    assert (opened["type"], closed["type"]) == ("kanscope.record.opened", "kanscope.record.closed")


def test_every_answer_is_recorded_with_a_receipt_and_without_inputs(serve, folder, tmp_path, windows):
    """By default: outputs, explanations as sent, and the hash of the windows; no value of theirs, and no header."""
    with serve(models=folder / "two.safetensors", record=tmp_path) as client:
        baseline = {"instance": windows[5].tolist()}
        answers = ask(client, windows, baseline=baseline)
    found = read(tmp_path)
    assert found.keys() == {*answers, "stream.32"} and read(tmp_path, REQUEST) == {}
    hashed = sha256(windows.astype("<f8").tobytes()).hexdigest()
    predictions = np.array(answers["predict"][0]["predictions"])
    for name, data in found.items():
        part = slice(32, None) if name == "stream.32" else slice(0, 32) if name == "stream" else slice(None)
        assert (data["model_name"], data["model_version"], data["id"]) == ("two", "1", name)
        assert data["parameters"] == {"checkpoint": answers["predict"][0]["checkpoint"]}
        assert [tensor["name"] for tensor in data["outputs"]] == answers["predict"][0]["outputs"]
        for column, tensor in enumerate(data["outputs"]):
            assert tensor["shape"] == [len(predictions[part])] and tensor["datatype"] == "FP64"
            np.testing.assert_allclose(tensor["data"], predictions[part, column], rtol=1e-5, atol=1e-6)
        receipt = data["receipt"] if "receipt" in data else data["answer"]["receipt"]
        assert receipt["checkpoint"] == data["parameters"]["checkpoint"] and "torch" in receipt["versions"]
        if part == slice(None):
            assert receipt["input"] == {"sha256": hashed, "shape": list(windows.shape)}
    assert found["explain"]["answer"]["explanations"] == answers["explain"][0]["explanations"]
    sent = [line for line in answers["stream"] if "contributions" in line]
    parts = [found[name]["answer"]["explanations"] for name in ("stream", "stream.32")]
    assert [{**one, "instance": number} for part in parts for number, one in enumerate(part)] == [
        {**one, "instance": one["instance"] % 32} for one in sent
    ]
    assert found["infer-explain"]["answer"]["output"] == ["a+1", "b+1", "a+2", "b+2"]
    assert not numbers(list(found.values())) & set(windows.ravel().tolist())
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"123456" not in written and b"acme" not in written and b"Tenant" not in written
    assert verify(tmp_path).problems == []


def test_named_inputs_are_recorded_as_columns(serve, folder, tmp_path, windows, model):
    """A tensor for each cell, as TrustyAI reads columns; hidden ones are nowhere, nor a hash that confirms a guess."""
    features = model.config.feature_names
    with serve(models=folder / "two.safetensors", record=tmp_path, record_inputs=f"*,-{features[1]}") as client:
        ask(client, windows)
    found, asked = read(tmp_path), read(tmp_path, REQUEST)
    assert asked.keys() == found.keys()
    shown = [0, 2, 3]
    for name in ("predict", "explain", "infer"):
        inputs = asked[name]["inputs"]
        cells = [f"{features[number]}[{step}]" for step in range(-5, 1) for number in shown]
        assert [tensor["name"] for tensor in inputs] == cells
        assert all(tensor["shape"] == [len(windows)] and tensor["datatype"] == "FP64" for tensor in inputs)
        values = np.array([tensor["data"] for tensor in inputs]).T.reshape(len(windows), 6, 3)
        np.testing.assert_array_equal(values, windows[..., shown])
    hidden = set(windows[..., 1].ravel().tolist())
    assert not numbers([list(found.values()), list(asked.values())]) & hidden
    assert all("input" not in (data.get("receipt") or data["answer"]["receipt"]) for data in found.values())


DAYS, HOURS = ("day+2=holiday", "day+2=strike", "day+2=weekend", "day+2=workday"), ("hour_sin", "hour_cos")
SKIES, PLAIN = ("sky=clear", "sky=cloudy"), ("sold", "temp+2", "open", "staff")


@pytest.mark.parametrize(
    ("names", "shown", "unknown"),
    [
        ("day,temp,hour,sky=clear,nothing,days", {*DAYS, *HOURS, "temp+2", "sky=clear"}, "days, nothing"),
        ("*,-day,-time,-nothing", {*SKIES, *PLAIN}, "-nothing"),
        ("*,-hour,-temp", {*DAYS, *SKIES, *PLAIN, "weekend"} - {"temp+2"}, None),
        ("day,-day+2=strike,open,-open", {*DAYS} - {"day+2=strike"}, None),
    ],
)
def test_a_column_means_the_features_that_are_made_of_it(serve, tmp_path, caplog, names, shown, unknown):
    """Shown or hidden; a name that means nothing of a model is said once, also if it was to be hidden."""
    model, windows = make_shop()
    save_checkpoint(model, tmp_path / "shop.safetensors")
    assert {*model.config.feature_names} == {*DAYS, *SKIES, *HOURS, *PLAIN, "weekend"}
    windows = windows[:2]
    with serve(models=tmp_path / "shop.safetensors", record=tmp_path / "record", record_inputs=names) as client:
        for _ in range(2):
            client.post("/v1/models/shop:predict", json={"instances": windows.tolist()}).raise_for_status()
    (path,) = (tmp_path / "record").iterdir()
    events = [event for event in map(json.loads, path.read_text().splitlines()) if event["type"] == REQUEST]
    assert len(events) == 2
    for event in events:
        found = {tensor["name"]: tensor["data"] for tensor in event["data"]["inputs"]}
        assert {name.rpartition("[")[0] for name in found} == shown
        for number, name in enumerate(model.config.feature_names):
            if name in shown:
                assert found[f"{name}[0]"] == windows[:, -1, number].tolist()
    assert all("input" not in json.loads(line)["data"].get("receipt", {}) for line in path.read_text().splitlines())
    said = [record.getMessage() for record in caplog.records if "KANSCOPE_RECORD_INPUTS" in record.getMessage()]
    why = "which is neither a feature of model shop nor a column that one is made of"
    assert said == ([] if unknown is None else [f"KANSCOPE_RECORD_INPUTS has {unknown}, {why}; mend the setting"])


def test_with_all_inputs_an_explanation_can_be_computed_again(serve, folder, tmp_path, windows, run, model):
    """`data.answer` is an answer with its receipt: `kanscope explain --receipt` agrees, for a part of a stream too."""
    file = folder / "two.safetensors"
    with serve(models=file, record=tmp_path / "record", record_inputs="*", record_headers="x-tenant") as client:
        ask(client, windows, baseline={"instance": windows[5].tolist()})
    asked = read(tmp_path / "record", REQUEST)
    for name, data in read(tmp_path / "record").items():
        cells = np.array([tensor["data"] for tensor in asked[name]["inputs"]]).T
        instances = cells.reshape(-1, *model.config.window_shape)
        if name == "predict":
            np.testing.assert_array_equal(instances, windows)
        if "answer" in data:
            (tmp_path / "answer.json").write_text(json.dumps(data["answer"]))
            (tmp_path / "asked.json").write_text(json.dumps({"instances": instances.tolist()}))
            options = ("--receipt", tmp_path / "answer.json", "--input", tmp_path / "asked.json")
            code, out, err = run("explain", file, *options)
            assert code == 0 and out.startswith("agrees"), (name, out, err)
    (path,) = (tmp_path / "record").iterdir()
    told = {json.loads(line).get("metadata") for line in path.read_text().splitlines()}
    assert told == {None, '{"x-tenant": ["acme"]}'}


def test_a_share_is_recorded_whole(serve, folder, tmp_path, windows):
    """A request that is drawn is recorded with its inputs and all its parts, another one not at all."""
    with serve(models=folder / "two.safetensors", record=tmp_path, record_share=0.5, record_inputs="*") as client:
        for number in range(12):
            body = {"instances": windows.tolist(), "output": "a+1"}
            asked = {"json": body, "headers": {**NDJSON, "X-Request-Id": str(number)}}
            assert client.post("/v1/models/two:explain", **asked).status_code == 200
    found = read(tmp_path).keys()
    assert found == read(tmp_path, REQUEST).keys()
    drawn = {name.split(".")[0] for name in found}
    assert 0 < len(drawn) < 12 and found == {name + part for name in drawn for part in ("", ".32")}


def test_forecasts_go_on_while_a_sink_hangs(serve, folder, windows):
    """They do not wait for it; what the queue does not hold is counted by reason in the metrics."""
    may_answer, received = threading.Event(), list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            may_answer.wait()
            received.append(self.headers["ce-type"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with (
        serving(Handler) as url,
        serve(models=folder / "two.safetensors", record_queue_bytes=20_000, record=url, record_seconds=0.01) as client,
    ):
        try:
            for _ in range(30):
                answer = client.post("/v1/models/two:predict", json={"instances": windows[:5].tolist()})
                assert answer.status_code == 200
            (lost,) = [line for line in client.get("/metrics").text.splitlines() if '{reason="full"}' in line][:1]
            n_lost = int(float(lost.split()[-1]))
            assert lost.startswith("kanscope_unrecorded_events_total") and 20 < n_lost < 30
            may_answer.set()
            poll(lambda: received.count(RESPONSE) == 30 - n_lost and "kanscope.record.lost" in received)
        finally:
            may_answer.set()


def test_intervals_are_recorded_as_they_were_answered(serve, tmp_path):
    """Beside the forecasts, which are columns alike with intervals and without; what trust says of inputs is not."""
    save_checkpoint(with_intervals(make_model("lstm", seed=2, n_reference=130)), tmp_path / "two.safetensors")
    with serve(models=tmp_path / "two.safetensors", record=tmp_path / "record") as client:
        windows = np.random.default_rng(0).normal(size=(2, 6, 4)).round(9).tolist()
        asked = {"instances": windows, "intervals": "all", "trust": True}
        answer = client.post("/v1/models/two:predict", json=asked, headers={"X-Request-Id": "v1"}).json()
        tensors = {**make_tensors(windows), "parameters": {"intervals": "all", "trust": True}}
        client.post("/v2/models/two/infer", json=tensors, headers={"X-Request-Id": "v2"}).raise_for_status()
        asked = {"instances": windows, "output": "all", "trust": True}
        client.post("/v1/models/two:explain", json=asked, headers={"X-Request-Id": "ex"}).raise_for_status()
    found = read(tmp_path / "record")
    for name in ("v1", "v2"):
        assert found[name]["intervals"] == answer["intervals"] != []
    for data in found.values():
        assert [tensor["name"] for tensor in data["outputs"]] == answer["outputs"]
    assert not numbers([*found.values()]) & set(np.ravel(windows).tolist()) and "trust" not in found["ex"]["answer"]
