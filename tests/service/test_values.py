"""Odd numbers and texts in every place of every request: an answer, or a refusal that names the place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from factories import make_encoded, make_model, make_tensors, make_windows, with_intervals
from thorough import few_of

from kanmodel.checkpoint import save_checkpoint
from kanmodel.errors import MAX_MAGNITUDE
from kanmodel.tables.roles import Columns
from service.document.__main__ import DOCUMENT

N_ROWS = 60
COLUMNS = Columns(("load",), time="time", ahead=2, known=("temp",), calendar=True, zone="Europe/Berlin")
# In a query or a path, as they are; in a body as JSON, and as strings.
TEXTS = [
    *("", "-0", "-1", "1.5", "1e308", "5e-324", "NaN", "null", "[]", "٣", "\0", "9223372036854775808", "9" * 30),
    *("9" * 400, "9" * 5000, "9" * 400 + "h", "9" * 18 + "min", "9999-12-31T23:59:59-14:00", "0001-01-01"),
]
NUMBERS = [
    *("-0", "-1", "1.5", "3.5e38", "1e308", "1e309", "5e-324", "NaN", "null", "true", "[]", "{}", "9007199254740993"),
    *("9223372036854775808", "-9223372036854775809", "18446744073709551616", "9" * 400, "9" * 5000),
]
QUICK = {"9" * 400, "9" * 400 + "h", '"9999-12-31T23:59:59-14:00"'}
WHY = "asks every operation with the value in each of hundreds of places"
PATHS = json.loads(DOCUMENT.read_text())["paths"]
SHARED = json.loads(DOCUMENT.read_text())["components"]["parameters"]
IDS = {  # but of those that load and unload models
    operation["operationId"]: (path, method)
    for path, one in PATHS.items()
    for method, operation in one.items()
    if "/repository" not in path
}
PLACE = {"version": "1", "index": "0", "stage": "head", "layer": "0", "i": "0", "j": "0", "model": "plain"}


@pytest.fixture(scope="module")
def client(serve, tmp_path_factory):
    """A model with intervals, and one of a table with times; the adaptation of the first is in `client.bodies`."""
    folder = tmp_path_factory.mktemp("models")
    plain = make_model("lstm", n_reference=130)
    plain = with_intervals(plain.with_config(replace(plain.config, ahead=1)))
    save_checkpoint(plain, folder / "plain.safetensors")
    rng = np.random.default_rng(0)
    time = pd.date_range("2023-10-28", periods=N_ROWS, freq="h", tz="Europe/Berlin")
    frame = pd.DataFrame({"time": time, "temp": rng.normal(size=N_ROWS), "load": rng.normal(size=N_ROWS)})
    save_checkpoint(make_encoded(frame, COLUMNS), folder / "load.safetensors")
    rows = {name: rng.normal(size=N_ROWS).tolist() for name in plain.config.feature_names}
    table = {
        "time": [each.isoformat() for each in time],
        "temp": frame["temp"].tolist(),
        "load": frame["load"].tolist(),
    }
    with serve(models=folder, max_windows=100) as client:
        known = {"series": rows | {"y": rng.normal(size=N_ROWS).tolist()}, "adapt": True}
        adaptation = client.post("/v1/models/plain:backtest", json=known).json()["adaptation"]
        client.bodies = {**bodies_of(make_windows(plain, 2).tolist(), rows, known["series"], table, adaptation)}
        yield client


def bodies_of(instances: Any, rows: Any, known: Any, table: Any, adaptation: Any) -> dict[str, list[tuple[str, Any]]]:
    """Requests with all members, by operation: the model and the body."""
    one = {"instances": instances}
    last = {"series": table, "last": 2, "gaps": "error"}
    inputs, whole = make_tensors(instances), np.round(instances).astype(int).tolist()
    parameters = {
        "explain": True,
        "intervals": "[0.8]",
        "segments": '{"late": [-2, 0]}',
        "groups": '{"both": ["f0", "f1"]}',
    }
    outputs = [{"name": "predictions", "parameters": {"binary_data": False}}, {"name": "contributions"}]
    explained = {
        "output": ["y+1"],
        "detail": "flow",
        "tolerance": 0.01,
        "trust": True,
        "receipt": True,
        "effects": True,
    }
    by_step = {"values_by_step": {"f1": [0.0] * 6}}
    grouped = {"groups": {"both": ["f0", "f1"]}, "segments": {"late": [-2, 0]}}
    return {
        "predict": [
            ("plain", one | {"intervals": [0.8], "adaptation": adaptation, "trust": True, "echo": True}),
            ("plain", {"columns": {f"f{at}": np.array(instances)[:, :, at].tolist() for at in range(4)}}),
            ("load", last),
            ("load", {**last, "last": "3h"}),
        ],
        "cut_windows": [
            ("load", {**last, "ends": [0, 30], "echo": False}),
            ("plain", one),
        ],
        "send_outcomes": [
            ("plain", {"outcomes": [{"receipt": "A" * 80, "values": {"y+1": 1.0}}]}),
        ],
        "backtest": [
            ("load", {**last, "target": "load", "detail": "rows"}),
            ("plain", {"series": known, "adaptation": adaptation}),
        ],
        "explain": [
            ("plain", one | explained | grouped | {"baseline": {"reference": 4, "seed": 0}}),
            ("plain", one | {"method": "shapley", "orders": 4, "seed": 1, "baseline": {"instance": instances[0]}}),
            ("plain", one | {"baseline": {"values": dict.fromkeys(("f0", "f2", "f3"), 1.0), **by_step}}),
            ("load", last | {"effects": True, "detail": "steps"}),
        ],
        "what_if": [
            ("plain", one | {"features": ["f0"], "steps": [-2, 0], "shift": {"from": -1.0, "to": 1.0, "points": 3}}),
        ],
        "counterfactual": [
            (
                "plain",
                one | {"features": ["f0"], "steps": [-2, 0], "target": {"between": [0.0, 1.0]}, "max_features": 1},
            ),
            ("plain", one | {"target": {"at_least": 0.0}, "max_features": 1}),
        ],
        "ablate": [
            ("plain", one | {"fidelity": 0.9}),
            (
                "plain",
                one | {"node_threshold": 0.1, "edge_threshold": 0.1, "input_threshold": 0.1, "without": ["head:0:0:0"]},
            ),
        ],
        "compare": [("plain", one | {"against": {"version": "1", **one}, "tolerance": 0.01})],
        "infer": [
            ("plain", inputs | {"id": "a", "parameters": parameters, "outputs": outputs}),
            ("plain", {"inputs": [inputs["inputs"][0] | {"datatype": "INT64", "data": whole}]}),
        ],
    }


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a document, of a list its first and last item."""
    yield path
    keys = (
        value if isinstance(value, dict) else sorted({0, len(value) - 1}) if isinstance(value, list) and value else ()
    )
    for key in keys:
        yield from places_in(value[key], (*path, key))


def put(value: Any, path: tuple[Any, ...], text: str) -> str:
    """The JSON of a document with a text in the place of one of its values."""
    if not path:
        return text
    copy = value.copy()
    copy[path[0]] = None
    marked = {key: put(item, path[1:], text) if key == path[0] else json.dumps(item) for key, item in items(value)}
    if isinstance(value, list):
        return f"[{','.join(marked.values())}]"
    return "{" + ",".join(f"{json.dumps(key)}:{item}" for key, item in marked.items()) + "}"


def items(value: Any) -> Any:
    return value.items() if isinstance(value, dict) else enumerate(value)


def is_wrong(answer: Any) -> bool:
    """Whether an answer is an error of the service, or a refusal that names no place."""
    return answer.status_code >= 500 or (answer.status_code in (400, 422) and not answer.json()["errors"])


def find_parameters(operation: str) -> list[dict[str, Any]]:
    path, method = IDS[operation]
    found = PATHS[path][method].get("parameters", [])
    return [SHARED[one["$ref"].rpartition("/")[2]] if "$ref" in one else one for one in found]


def test_a_checkpoint_whose_numbers_overflow_is_refused(serve, tmp_path):
    """It says what is wrong; one at the limit is served, and every GET about it answers."""
    model = make_model("lstm", n_reference=130)
    target = replace(model.config.targets[0], std=MAX_MAGNITUDE)
    save_checkpoint(model.with_config(replace(model.config, targets=(target,))), tmp_path / "limit.safetensors")
    written = (tmp_path / "limit.safetensors").read_bytes()
    assert written.count(b": 1e+75}") == 1
    (tmp_path / "beyond.safetensors").write_bytes(written.replace(b": 1e+75}", b": 9e307}"))
    with serve(models=tmp_path) as client:
        states = {one["name"]: one for one in client.get("/v1/models").json()["details"]}
        assert (states["limit"]["state"], states["beyond"]["state"]) == ("ready", "failed")
        assert "config.targets[0]: std must be at most 1e+75 in magnitude, but is 9e+307" in states["beyond"]["reason"]
        for path, method in IDS.values():
            if method == "get":
                answer = client.get(path.format(**{**PLACE, "model": "limit"}))
                assert answer.status_code < 500, (path, answer.text)


@pytest.mark.parametrize("text", few_of(TEXTS, QUICK, WHY), ids=lambda text: ascii(text)[:30])
def test_every_parameter_of_every_operation(client, text):
    """In queries and paths: the other parameters have their defaults, and bodies are valid."""
    wrong = []
    for operation, (path, method) in IDS.items():
        model, body = client.bodies.get(operation, [("plain", None)])[0]
        for parameter in find_parameters(operation):
            if parameter["in"] == "header":
                continue
            name = parameter["name"]
            values = {**PLACE, "model": model, **({name: quote(text, safe="")} if parameter["in"] == "path" else {})}
            query = {name: text} if parameter["in"] == "query" else None
            answer = client.request(method, path.format(**values), params=query, json=body)
            wrong += [(operation, name, answer.text)] if is_wrong(answer) else []
    assert wrong == []


@pytest.mark.parametrize("text", few_of([*NUMBERS, *map(json.dumps, TEXTS)], QUICK, WHY), ids=lambda text: text[:30])
def test_every_member_of_every_body(client, text):
    """In each place of requests that have all members."""
    documented = {operation for operation, (path, method) in IDS.items() if "requestBody" in PATHS[path][method]}
    assert documented == client.bodies.keys()
    wrong = []
    for operation, bodies in client.bodies.items():
        path, method = IDS[operation]
        for model, body in bodies:
            for place in places_in(body):
                content = put(body, place, text).encode()
                headers = {"Content-Type": "application/json"}
                answer = client.request(method, path.format(model=model), content=content, headers=headers)
                wrong += [(operation, place, answer.text)] if is_wrong(answer) else []
    assert wrong == []


def test_the_bodies_are_valid(client):
    """Or what is put into them would be refused for another reason."""
    for operation, bodies in client.bodies.items():
        path, method = IDS[operation]
        for model, body in bodies:
            answer = client.request(method, path.format(model=model), json=body)
            assert answer.status_code == 200, (operation, answer.text[:300])
