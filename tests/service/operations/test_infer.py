"""POST /v2/models/{model}/infer: the tensors of the Open Inference Protocol."""

from __future__ import annotations

import json

import numpy as np
import pytest
from factories import make_model, make_tensors, make_windows
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples
from waiting import poll

from kanmodel import Model
from kanmodel.attribution.baseline import Baseline
from kanmodel.attribution.ledger import explain_windows
from kanmodel.checkpoint import save_checkpoint

LENGTH = "Inference-Header-Content-Length"
INFER = "/v2/models/two/infer"
N = 3
READ, EXPLAIN = "read" * 8, "expl" * 8
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def model(service):
    return service.models["two"]


@pytest.fixture(scope="module")
def windows(model):
    return make_windows(model, N)


def tensor(values, datatype="FP64", name="instances", **others):
    return {"name": name, "shape": list(np.shape(values)), "datatype": datatype, "data": values, **others}


def binary(values, dtype, datatype, name="instances"):
    """A tensor with its binary size, and its bytes."""
    content = np.asarray(values).astype(dtype).tobytes()
    parameters = {"binary_data_size": len(content)}
    return {"name": name, "shape": list(np.shape(values)), "datatype": datatype, "parameters": parameters}, content


def send(client, head, *buffers, path=INFER, **headers):
    """Sends a request with binary data after its JSON."""
    content = json.dumps(head).encode()
    headers = {LENGTH: str(len(content)), "Content-Type": "application/octet-stream", **headers}
    return client.post(path, content=b"".join([content, *buffers]), headers=headers)


def read(answer):
    """The tensors of a response, from JSON or binary data, by name."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(LENGTH, len(answer.content)))
    start, tensors = length, {}
    for output in json.loads(answer.content[:length])["outputs"]:
        assert output["datatype"] == "FP64"
        size = output.get("parameters", {}).get("binary_data_size")
        assert ("data" in output) == (size is None)
        values = output["data"] if size is None else np.frombuffer(answer.content[start : start + size], "<f8")
        start += size or 0
        tensors[output["name"]] = np.reshape(values, output["shape"])
    assert start == len(answer.content)
    return tensors


def refused(answer, status=400):
    """The error message of a response with status 400."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()["error"]


def test_json_tensors_are_forecast_as_instances_are(service, model, windows):
    """Nested or in a row; the response has model, version, checkpoint and id, or else the request id, for the log."""
    answer = service.post(INFER, {"id": "mine", **make_tensors(windows.tolist())})
    document = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert [document[name] for name in ("model_name", "model_version", "id")] == ["two", "1", "mine"]
    assert document["parameters"] == {"checkpoint": f"sha256:{model.sha256}", "outside_range": 0}
    predictions = service.post("/v1/models/two:predict", {"instances": windows.tolist()}).json()["predictions"]
    np.testing.assert_array_equal(read(answer)["predictions"], predictions)
    in_a_row = tensor(windows.tolist()) | {"data": windows.ravel().tolist()}
    for given_id in ({}, {"id": ""}, {"id": None}):
        answer = service.post(INFER, {**given_id, "inputs": [in_a_row]})
        assert answer.json()["id"] == answer.headers["x-request-id"]
        np.testing.assert_array_equal(read(answer)["predictions"], predictions)


def test_a_tensor_for_each_feature_is_its_column(service, model, windows):
    """Features may be sent as separate tensors, in any order, in JSON or binary."""
    names = model.config.feature_names
    in_json = [tensor(windows[..., f].tolist(), name=name) for f, name in reversed(list(enumerate(names)))]
    in_bytes = [binary(windows[..., f], "<f8", "FP64", name) for f, name in enumerate(names)]
    mixed = [in_bytes[0][0], *in_json[:-1]]
    expected = model.predict(windows)
    np.testing.assert_array_equal(read(service.post(INFER, {"inputs": in_json}))["predictions"], expected)
    for answer in (
        send(service.client, {"inputs": [one for one, _ in in_bytes]}, *(content for _, content in in_bytes)),
        send(service.client, {"inputs": mixed}, in_bytes[0][1]),
    ):
        np.testing.assert_array_equal(read(answer)["predictions"], expected)


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [("FP16", "<f2"), ("FP32", "<f4"), ("FP64", "<f8"), ("INT8", "i1"), ("INT32", "<i4"), ("UINT64", "<u8")],
)
def test_a_datatype_is_the_same_in_json_and_in_bytes(service, model, windows, datatype, dtype):
    """Values are converted to the datatype alike in JSON and in binary data."""
    values = np.abs(np.round(windows)).clip(0, 100) if np.dtype(dtype).kind in "iu" else windows
    values = values.astype(dtype)
    head, content = binary(values, dtype, datatype)
    in_bytes = read(send(service.client, {"inputs": [head]}, content))["predictions"]
    in_json = read(service.post(INFER, {"inputs": [tensor(values.tolist(), datatype)]}))["predictions"]
    np.testing.assert_array_equal(in_bytes, in_json)
    np.testing.assert_array_equal(in_bytes, model.predict(values.astype(np.float64)))


BYTES = {"explain": True, "binary_data_output": True}
CHOSEN = [{"name": "residual", "parameters": {"binary_data": False}}, {"name": "contributions"}]


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"parameters": BYTES}, ["predictions", "contributions", "residual", "error"]),
        ({"outputs": [{"name": "predictions", "parameters": {"binary_data": True}}]}, ["predictions"]),
        ({"parameters": BYTES, "outputs": CHOSEN}, ["residual", "contributions"]),
    ],
)
def test_outputs_are_chosen_and_may_be_bytes(service, windows, asked, names):
    """Outputs are returned in the order requested; their own binary flag takes precedence over the request's."""
    answer = service.post(INFER, {**make_tensors(windows.tolist()), **asked})
    assert answer.headers["content-type"] == "application/octet-stream"
    tensors = read(answer)
    assert list(tensors) == names
    whole = read(service.post(INFER, make_tensors(windows.tolist(), explain=True)))
    for name in names:
        np.testing.assert_array_equal(tensors[name], whole[name])


@pytest.mark.parametrize(("detail", "name"), [("features", "contributions"), ("steps", "steps")])
def test_explanations_are_those_of_the_ledger(service, model, windows, detail, name):
    """One per window and output, by features or by steps, from the given baseline."""
    answer = service.post(INFER, make_tensors(windows.tolist(), explain=True, detail=detail, baseline="zero"))
    scaled, tensors = model.to_model_units(windows), read(answer)
    ledgers = [explain_windows(model, scaled, output, Baseline("zero"), detail=detail) for output in range(4)]
    for tensor_name, attribute in (("contributions", name), ("residual", "residual"), ("error", "error")):
        expected = np.stack([getattr(ledger, attribute) for ledger in ledgers], axis=1)
        np.testing.assert_allclose(tensors[tensor_name], expected, rtol=0, atol=1e-9)
    assert answer.json()["parameters"]["converged"] is True


def test_a_version_is_reached_by_its_path(serve, tmp_path):
    """Without a version the highest one answers; metadata and readiness have the same paths."""
    models = {version: make_model("head", seed=version) for version in (1, 2)}
    (tmp_path / "m").mkdir()
    for version, model in models.items():
        save_checkpoint(model, tmp_path / "m" / f"{version}.safetensors")
    windows = make_windows(models[1], 2)
    body = make_tensors(windows.tolist())
    with serve(models=tmp_path) as client:
        for path, version in (("m", 2), ("m/versions/1", 1), ("m/versions/2", 2)):
            answer = client.post(f"/v2/models/{path}/infer", json=body)
            np.testing.assert_array_equal(read(answer)["predictions"], models[version].predict(windows))
            assert answer.json()["model_version"] == str(version)
            metadata = client.get(f"/v2/models/{path}").json()
            assert metadata["versions"] == ["2", "1"]
            assert metadata["parameters"]["checkpoint"] == answer.json()["parameters"]["checkpoint"]
            assert client.get(f"/v2/models/{path}/ready").json() == {"name": "m", "ready": True}
        for path in ("m/versions/3", "m/versions/01", "m/versions/%2e%2e", "n", "..%2fm", "%2e%2e"):
            assert client.post(f"/v2/models/{path}/infer", json=body).status_code == 404
            assert client.get(f"/v2/models/{path}/ready").status_code == 404
        assert refused(client.post("/v2/models/m/versions/3/infer", json=body), 404) == (
            "model 'm' has no version '3'; the versions are 2, 1"
        )


@pytest.mark.parametrize("is_binary", [False, True])
def test_distances_and_p_values_are_those_of_the_library(service, model, windows, is_binary):
    """One of each for each window, beside the forecasts alone or with explanations; without `trust` none."""
    found = Model.of(model).trust(windows)
    asked = {"trust": True, "binary_data_output": is_binary}
    for more in ({}, {"explain": True}):
        answer = read(service.post(INFER, make_tensors(windows.tolist(), **asked, **more)))
        assert answer["distance"] == pytest.approx([one.nearest_reference.distance for one in found])
        assert answer["p_value"].tolist() == [one.p_value for one in found]
        assert ("contributions" in answer) == bool(more)
    body = make_tensors(windows.tolist(), trust=True) | {"outputs": [{"name": "p_value"}]}
    assert [*read(service.post(INFER, body))] == ["p_value"]
    del body["parameters"]
    assert refused(service.post(INFER, body)) == "outputs[0].name p_value needs parameters.trust"


@pytest.mark.parametrize(("asked", "name"), [({"explain": True}, "contributions"), ({"trust": True}, "distance")])
def test_explanations_need_their_scope(serve, folder, windows, asked, name):
    """A key with scope read gets forecasts but no explanation, whatever the body requests."""
    plain, body = make_tensors(windows.tolist()), make_tensors(windows.tolist(), **asked)
    with serve(models=folder / "two.safetensors", keys=f"reader read {READ};analyst explain {EXPLAIN}") as client:
        poll(lambda: client.get("/readyz").status_code == 200)
        reader, analyst = ({"Authorization": f"Bearer {key}"} for key in (READ, EXPLAIN))
        assert client.post(INFER, json=plain).status_code == 401
        assert client.post(INFER, json=plain, headers=reader).status_code == 200
        needs = "this needs an API key with the scope explain"
        assert refused(client.post(INFER, json=body, headers=reader), 403) == needs
        assert name in read(client.post(INFER, json=body, headers=analyst))


def test_requests_are_counted_and_logged(launch, folder, service, model, windows):
    """Metrics and log lines are the same as for :predict and :explain."""
    windows = windows.copy()
    windows[0, 0, 0] = 1e6
    with launch(folder / "two.safetensors") as process:
        client = process.client
        assert client.post(INFER, json=make_tensors(windows.tolist(), explain=True)).status_code == 200
        assert client.post(INFER, json={"inputs": []}).status_code == 400
        text = client.get("/metrics").text
        poll(lambda: process.log.read_text().count("/infer") == 2)  # the line is written after the response
        lines = [line for line in process.lines() if line.get("route") == "/v2/models/{model}/infer"]
    stated = {"model": "two", "checkpoint": f"sha256:{model.sha256}"}
    assert [line["status"] for line in lines] == [200, 400]
    assert stated.items() <= lines[1].items() and {**stated, "windows": N}.items() <= lines[0].items()
    assert 'kanscope_requests_total{code="",route="' in text
    assert 'kanscope_inputs_outside_range_total{feature="f0",model="two"' in text
    count = next(line for line in text.splitlines() if line.startswith("kanscope_explanation_residual_count"))
    assert float(count.split()[-1]) == N * len(model.config.outputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [-1, 6, 4]}, "inputs[0].shape[0] must be greater than or equal to 0"),
        ({"shape": [0, 6, 4], "data": []}, "inputs[0].shape[0] must be 1 to 50 (max_windows), but is 0"),
        ({"shape": [10**18, 6, 4]}, "inputs[0].shape[0] must be 1 to 50 (max_windows), but is 1000000000000000000"),
        ({"shape": [2**40, 2**40, 4]}, f"inputs[0].shape must be [n, 6, 4], but is [{2**40}, {2**40}, 4]"),
        ({"shape": [10**30, 6, 4]}, "inputs[0].shape[0] must be a valid integer"),
        ({"shape": [1.0, 6, 4]}, "inputs[0].shape[0] must be a valid integer"),
        ({"shape": [True, 6, 4]}, "inputs[0].shape[0] must be a valid integer"),
        ({"shape": [4, 6, 3]}, "inputs[0].shape must be [n, 6, 4], but is [4, 6, 3]"),
        ({"shape": []}, "inputs[0].shape must be [n, 6, 4], but is []"),
        ({"shape": [1] * 1000}, "inputs[0].shape must have at most 8 items"),
        ({"shape": "3,6,4"}, "inputs[0].shape must be a valid list"),
        ({"shape": [2, 6, 4]}, "inputs[0].data must have 2 items, but has 3"),
        ({"data": [1.0] * 71}, "inputs[0].data must have 72 values, but has 71"),
        ({"data": [None] * 72}, "inputs[0].data[0] must be a number, but is null"),
        ({"data": ["1"] * 72}, "inputs[0].data[0] must be a number, but is a string"),
        ({"data": [1.0] * 71 + [1e39], "datatype": "FP32"}, "inputs[0].data[2][5][3] must be finite"),
        ({"data": [1.5] * 72, "datatype": "INT8"}, "inputs[0].data[0] must be a whole number from -128 to 127, as"),
        ({"data": [1] * 71 + [300], "datatype": "INT8"}, "inputs[0].data[71] must be a whole number from -128"),
        ({"data": [1] * 71 + [2**64], "datatype": "UINT64"}, "inputs[0].data[71] must be a whole number from 0 to"),
        ({"data": [1] * 71 + [2**63], "datatype": "INT64"}, "inputs[0].data[71] must be a whole number from -9223"),
        ({"data": [1.0] * 71 + [1e6], "datatype": "FP16"}, "inputs[0].data[2][5][3] must be finite"),
        ({"data": {"x": 1}}, "inputs[0].data must be a list of 72 values, but is an object"),
        ({"data": None}, "inputs[0].data is missing; give it, or parameters.binary_data_size"),
        ({"datatype": "BYTES"}, "inputs[0].datatype must be 'FP16', 'FP32'"),
        ({"datatype": "BOOL"}, "inputs[0].datatype must be 'FP16', 'FP32'"),
        ({"datatype": 1}, "inputs[0].datatype must be 'FP16', 'FP32'"),
        ({"name": "other"}, "inputs[0].name is unknown; expected instances alone, or the features f0, f1, f2, f3"),
        ({"name": 1}, "inputs[0].name must be a valid string"),
        ({"parameters": {"shared_memory_region": "r"}}, "inputs[0].parameters.shared_memory_region is unknown"),
        ({"parameters": {"binary_data_size": 576}}, "inputs[0].data and parameters.binary_data_size are both given"),
        ({"parameters": {"binary_data_size": -1}}, "inputs[0].parameters.binary_data_size must be greater than"),
        ({"unknown": 1}, "inputs[0].unknown is unknown; expected one of name, shape, datatype, parameters, data"),
    ],
)
def test_an_invalid_tensor_is_refused_in_one_sentence(service, windows, change, message):
    """An invalid tensor gives 400 with its path in one sentence."""
    body = {"inputs": [{**tensor(windows.tolist()), **change}]}
    assert refused(service.post(INFER, body)).startswith(message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "body must be a JSON object"),
        ({}, "inputs is missing"),
        ({"inputs": {}}, "inputs must be a valid list"),
        ({"inputs": []}, "inputs must have at least 1 item"),
        ({"inputs": [{}] * 20_000}, "inputs must be 1 tensor, or 4, one per feature, but there are 20000"),
        ({"inputs": [1]}, "inputs[0] must be a valid dictionary"),
        ({"outputs": [{"name": "predictions"}] * 2}, "outputs[1].name is given twice"),
        (
            {"outputs": [{"name": "other"}]},
            "outputs[0].name must be 'predictions', 'contributions', 'contributions_by_group', 'residual', 'error',",
        ),
        ({"outputs": [{"name": "residual"}]}, "outputs[0].name residual needs parameters.explain"),
        ({"outputs": [{"name": "predictions", "parameters": {"classification": 3}}]}, "outputs[0].parameters.class"),
        ({"parameters": {"explain": "yes"}}, "parameters.explain must be a valid boolean"),
        ({"parameters": {"explain": True, "detail": "flow"}}, "parameters.detail must be 'features' or 'steps'"),
        ({"parameters": {"explain": True, "baseline": "median"}}, "parameters.baseline must be 'mean', 'zero' or"),
        ({"parameters": {"sequence_id": 1}}, "parameters.sequence_id is unknown; expected one of explain, detail"),
        ({"id": 1}, "id must be a valid string"),
        ({"id": "x" * 129}, "id must have at most 128 characters"),
        ({"other": 1}, "other is unknown; expected one of id, model_name, parameters, inputs, outputs"),
    ],
)
def test_an_invalid_request_is_refused_in_one_sentence(service, windows, body, message):
    """An invalid member of the request gives 400 with its path."""
    if isinstance(body, dict) and body and "inputs" not in body:
        body = {**make_tensors(windows.tolist()), **body}
    assert refused(service.post(INFER, body)).startswith(message)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("f0", "f1", "f2"), "inputs must have one tensor for each feature, but lacks f3"),
        (("f0", "f1", "f2", "f2"), "inputs[3].name is given twice"),
        (("f0", "f1", "f2", "instances"), "inputs[3].name is unknown; expected instances alone, or the features"),
        (("f0", "f1", "f2", "f3"), "inputs[3].shape[0] must be 3 as in inputs[0], but is 2"),
    ],
)
def test_features_that_do_not_make_a_window_are_refused(service, windows, names, message):
    """A missing, repeated or unknown feature is refused, or one of another number of windows."""
    inputs = [tensor(windows[: N - f // 3, :, 0].tolist(), name=name) for f, name in enumerate(names)]
    assert refused(service.post(INFER, {"inputs": inputs})).startswith(message)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_in_bytes_too(service, windows, value):
    """The error names window, step and feature, as it does for JSON."""
    spoiled = windows.copy()
    spoiled[1, 2, 3] = value
    head, content = binary(spoiled, "<f8", "FP64")
    assert refused(send(service.client, {"inputs": [head]}, content)).startswith("inputs[0].data[1][2][3] must be")
    named = [binary(spoiled[..., f], "<f8", "FP64", f"f{f}") for f in range(4)]
    answer = send(service.client, {"inputs": [one for one, _ in named]}, *(content for _, content in named))
    assert refused(answer).startswith("inputs[3].data[1][2] must be finite")
    text = json.dumps({"inputs": [tensor(spoiled.tolist())]})
    assert refused(service.client.post(INFER, content=text, headers=JSON)).startswith("inputs[0].data[1][2][3] must be")


@pytest.mark.parametrize(
    ("size", "sent", "length", "message"),
    [
        (0, 576, None, "inputs[0].parameters.binary_data_size must be 576, the bytes of FP64 [3, 6, 4], but is 0"),
        (10**18, 576, None, "inputs[0].parameters.binary_data_size must be 576"),
        (576, 575, None, "inputs[0].parameters.binary_data_size is 576, but the body has 575 more bytes"),
        (576, 577, None, "body must have 576 bytes after its JSON, as its inputs say, but has 577"),
        (None, 576, None, "inputs[0].data is missing; give it, or parameters.binary_data_size"),
        (576, 576, "99999", "Inference-Header-Content-Length must be at most the"),
        (576, 576, "-1", "Inference-Header-Content-Length must be a whole number of bytes"),
        (576, 576, "1e3", "Inference-Header-Content-Length must be a whole number of bytes"),
        (576, 576, "", "Inference-Header-Content-Length must be a whole number of bytes"),
        (576, 576, "9" * 5000, "Inference-Header-Content-Length must be a whole number of bytes"),
        (576, 576, "0", "body must be JSON"),
        (576, 576, "40", "body must be JSON"),
    ],
)
def test_wrong_binary_sizes_are_refused(service, windows, size, sent, length, message):
    """Sizes, shapes, the header and the body must agree exactly."""
    head, content = binary(windows, "<f8", "FP64")
    head["parameters"] = {} if size is None else {"binary_data_size": size}
    headers = {} if length is None else {LENGTH: length}
    answer = send(service.client, {"inputs": [head]}, (content + b"\0")[:sent], **headers)
    assert refused(answer).startswith(message)


def test_a_binary_part_without_its_header_is_refused(service, windows):
    """Without the header, the whole body is parsed as JSON."""
    head, content = binary(windows, "<f8", "FP64")
    body = json.dumps({"inputs": [head]}).encode()
    answer = service.client.post(INFER, content=body + content, headers=JSON)
    assert refused(answer).startswith("body must be JSON")
    answer = service.client.post(INFER, content=body, headers=JSON)
    assert "has 0 more bytes after its JSON (Inference-Header-Content-Length)" in refused(answer)


def test_the_limits_of_v1_hold(service, windows):
    """Media type, compression, size, depth, windows, deadline and Accept are limited as in V1, but with 400."""
    body, post = json.dumps(make_tensors(windows.tolist())), service.client.post
    assert post(INFER, content=body).status_code == 200  # Triton's client sends no media type
    assert refused(post(INFER, content=body, headers={"Content-Type": "text/plain"}), 415)
    assert refused(post(INFER, content=body, headers={**JSON, "Content-Encoding": "gzip"}), 415)
    assert refused(post(INFER, content=" " * 100_001, headers=JSON), 413)
    assert refused(post(INFER, content="[" * 10_000, headers=JSON)).startswith("body must be nested at most 64 deep")
    assert refused(post(INFER, content=body, headers={**JSON, "X-Request-Timeout": "0"})).startswith("X-Request-Time")
    assert refused(post(INFER, content=body, headers={**JSON, "Accept": "text/html"}), 406)
    many = service.post(INFER, make_tensors(np.repeat(windows, 17, axis=0).tolist()))
    assert refused(many) == "inputs[0].shape[0] must be 1 to 50 (max_windows), but is 51"


anything = st.recursive(
    st.none() | st.booleans() | st.text(max_size=4) | st.floats() | st.integers(-(2**70), 2**70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=examples(60))
@given(part=st.data())
def test_any_value_in_any_place_is_answered_or_refused(service, windows, part):
    """A request with one value replaced by any other is answered, or refused with 400."""
    whole = {"id": "1", **make_tensors(windows.tolist(), explain=True, detail="steps", baseline="mean")}
    whole |= {"outputs": [{"name": "contributions", "parameters": {"binary_data": False}}]}
    whole["inputs"][0]["parameters"] = {"binary_data_size": None}
    owner, key = whole, part.draw(st.sampled_from(sorted(whole)))
    while isinstance(owner[key], (dict, list)) and owner[key] and part.draw(st.booleans()):
        owner = owner[key]
        key = part.draw(st.sampled_from(sorted(owner) if isinstance(owner, dict) else range(len(owner))))
    owner[key] = part.draw(anything)
    answer = service.client.post(INFER, content=json.dumps(whole), headers=JSON)
    assert answer.status_code == 200 or refused(answer)


@settings(max_examples=examples(60))
@given(start=st.floats(0, 1), cut=st.integers(0, 40), other=st.binary(max_size=40), length=st.integers(-2, 2))
def test_any_splice_of_a_binary_request_is_answered_or_refused(service, windows, start, cut, other, length):
    """The request is answered or refused with 400, also if bytes are cut or inserted, or the header length is wrong."""
    head, content = binary(windows, "<f4", "FP32")
    text = json.dumps({"inputs": [head]}).encode()
    body = text + content
    at = int(start * len(body))
    headers = {LENGTH: str(len(text) + length), "Content-Type": "application/octet-stream"}
    answer = service.client.post(INFER, content=body[:at] + other + body[at + cut :], headers=headers)
    assert answer.status_code == 200 or refused(answer)
