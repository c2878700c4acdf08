from __future__ import annotations

import json
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import get_args

import httpx2
import pytest
import torch
from factories import make_model, make_tensors, make_windows
from sockets import sum_samples
from waiting import poll

import kanmodel
import service
from kanmodel.checkpoint import save_checkpoint
from kanmodel.errors import CheckpointError, KanscopeError
from kanmodel.tables.columns import Target
from service.app import create_app
from service.settings import Settings
from service.wire.errors import CAUSES, STATUSES, ErrorCode, describe_error
from service.work import forecasts
from service.work.forecasts import Forecasts

SERVICE = Path(service.__file__).parent
TITLES = {
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
WINDOW = [[0.5, 1.5, 2.5, 3.5] for _ in range(6)]  # must fit model "two": lookback 6, features f0 to f3
COLUMNS = {f"f{f}": [[1.0] * 6] for f in range(4)}
VALUES = {f"f{f}": 1.0 for f in range(4)}
OTHERS = {name: 1.0 for name in VALUES if name != "f1"}
NAN, INFINITY = float("nan"), float("inf")


def window(step=None, feature=None, value=None, *, row=None):
    """A window with one value, or one row, replaced."""
    changed = [list(steps) for steps in WINDOW]
    if row is not None:
        changed[step] = row
    else:
        changed[step][feature] = value
    return changed


def columns(**changes):
    return {name: value for name, value in {**COLUMNS, **changes}.items() if value is not None}


def explain(**members):
    return {"instances": [WINDOW], "output": "a+1", **members}


# A body, the path of its first bad value, a part of the message, and the code if that is not invalid_value.
BAD_WINDOWS = [
    ([1, 2], "body", "must be a JSON object"),
    ({}, "instances", "is missing: give instances, columns or a series"),
    ({"instances": [WINDOW], "columns": COLUMNS}, "instances", "both given"),
    ({"instances": None, "columns": None}, "instances", "is missing"),
    ({"series": None}, "instances", "is missing"),
    ({"instances": [WINDOW], "instnaces": 1}, "instnaces", "is unknown; expected one of instances, columns, series"),
    ({"instances": []}, "instances", "must have 1 to 50 instances (max_windows), but has 0"),
    ({"instances": [WINDOW] * 51}, "instances", "(max_windows), but has 51", "limit_exceeded"),
    ({"instances": "all"}, "instances", "must be a list of instances, but is a string"),
    ({"instances": WINDOW}, "instances[0]", "must have 6 steps, but has 4"),
    ({"instances": [WINDOW, WINDOW[:5]]}, "instances[1]", "must have 6 steps, but has 5"),
    ({"instances": [window(3, row=[1, 2, 3])]}, "instances[0][3]", "must have 4 features, but has 3"),
    ({"instances": [window(3, row=[1] * 5)]}, "instances[0][3]", "must have 4 features, but has 5"),
    ({"instances": [window(3, row=7)]}, "instances[0][3]", "must be a list of 4 features"),
    ({"instances": [window(3, 2, [1])]}, "instances[0][3][2]", "must be a number, but is a list"),
    ({"instances": [window(3, 2, "4.5")]}, "instances[0][3][2]", "but is a string"),
    ({"instances": [window(3, 2, True)]}, "instances[0][3][2]", "but is a boolean"),
    ({"instances": [window(3, 2, None)]}, "instances[0][3][2]", "but is null"),
    ({"instances": [window(3, 2, {})]}, "instances[0][3][2]", "but is an object"),
    ({"columns": [1]}, "columns", "must be an object"),
    ({"columns": columns(tmep=[[1.0] * 6])}, "columns.tmep", "the features are f0, f1, f2, f3"),
    ({"columns": columns(f2=None)}, "columns.f2", "is missing"),
    ({"columns": columns(f2=[[1.0] * 6] * 2)}, "columns.f2", "must have 1 instances, but has 2"),
    ({"columns": columns(f0=3)}, "columns.f0", "must be a list of instances"),
    ({"columns": columns(f2=[[1.0] * 5])}, "columns.f2[0]", "must have 6 steps, but has 5"),
    ({"columns": columns(f2=[[1, 1, 1, "x", 1, 1]])}, "columns.f2[0][3]", "must be a number"),
    ({"columns": {name: [] for name in COLUMNS}}, "columns.f0", "must have 1 to 50 instances (max_windows)"),
]
BAD_TEXTS = [  # the same, of texts that json.dumps cannot or need not write
    ("", "body", "must be JSON", "invalid_json"),
    ('{"instances": [[', "body", "must be JSON", "invalid_json"),
    ('{"instances": [],}', "body", "must be JSON", "invalid_json"),
    (b'{"instances": "\xff"}', "body", "must be JSON", "invalid_json"),
    ("[" * 50_000, "body", "must be nested at most 64 deep (max_json_depth)", "limit_exceeded"),
    ('{"instances":' + "[" * 63 + "]" * 63 + "}", "instances[0]", "must have 6 steps, but has 1"),
    ('{"instances":' + "[" * 64 + "]" * 64 + "}", "body", "must be nested at most 64", "limit_exceeded"),
    ('{"instances":' + "[" * 10_000 + "]" * 10_000 + "}", "body", "must be nested at most 64", "limit_exceeded"),
    ('{"a":' * 10_000 + "1" + "}" * 10_000, "body", "must be nested at most 64", "limit_exceeded"),
    (json.dumps({"instances": [window(3, 2, NAN)]}), "instances[0][3][2]", "must be finite", "not_finite"),
    (json.dumps({"columns": columns(f1=[[-INFINITY] * 6])}), "columns.f1[0][0]", "must be finite", "not_finite"),
    ('{"instances": [[[1e400]]]}', "instances[0][0][0]", "must be finite", "not_finite"),
    ('{"\\ud800": 1}', "body", "must be JSON", "invalid_json"),
    ('{"\\ud800": NaN}', "?", "must be finite", "not_finite"),
    ("NaN", "body", "must be finite", "not_finite"),
]
BAD_EXPLAIN = [
    ({"instances": [WINDOW]}, "output", "is missing; the outputs are a+1, b+1, a+2, b+2"),
    (explain(output=3), "output", "must be the name of an output: a+1"),
    (explain(output=[]), "output", "is missing"),
    (explain(output=["a+1", "a+1"]), "output[1]", "is given twice"),
    (explain(detail="all"), "detail", "must be 'features', 'steps', 'flow' or 'links'"),
    (explain(tolerance=0), "tolerance", "must be greater than 0"),
    (explain(tolerance="0.1"), "tolerance", "must be a valid number"),
    (explain(tolerance=True), "tolerance", "must be a valid number"),
    (explain(basline="mean"), "basline", "is unknown; expected one of instances, columns, series, last, gaps, output"),
    (explain(instances=[window(3, 2, "x")]), "instances[0][3][2]", "must be a number"),
    (explain(baseline="median"), "baseline.kind", "must be 'mean', 'zero'"),
    (explain(baseline={"reference": 1}), "baseline.reference", "equal to 2"),
    (explain(baseline={"reference": 131}), "baseline.reference", "from 2 to 130"),
    (explain(baseline={"reference": 2.5}), "baseline.reference", "must be a valid integer"),
    (explain(baseline={"reference": True}), "baseline.reference", "must be a valid integer"),
    (explain(baseline={"reference": 4, "seed": -1}), "baseline.seed", "greater than or equal to 0"),
    (explain(baseline={"reference": 4, "seed": "1"}), "baseline.seed", "must be a valid integer"),
    (explain(baseline={"kind": "mean", "seed": 1}), "baseline.seed", "must not be given with the kind mean"),
    (explain(baseline={"reference": 4, "sede": 1}), "baseline.sede", "is unknown; expected one of kind, reference"),
    (explain(baseline={"reference": 4, "values": VALUES}), "baseline.values", "with the kind reference"),
    (explain(baseline={"values": VALUES, "instance": WINDOW}), "baseline.instance", "with the kind values"),
    (explain(baseline={"kind": "instance"}), "baseline.instance", "is missing"),
    (explain(baseline={"values": VALUES, "values_by_step": {"f1": [0] * 6}}), "baseline.values_by_step.f1", "too"),
    (explain(baseline=0), "baseline", "must be"),
    (explain(baseline={"values": {"f0": 1}}), "baseline.values.f1", "is missing"),
    (explain(baseline={"values": {**VALUES, "temp": 1}}), "baseline.values.temp", "the features are f0, f1, f2, f3"),
    (explain(baseline={"values": {**VALUES, "f1": "1"}}), "baseline.values.f1", "must be a valid number"),
    (explain(baseline={"values": OTHERS, "values_by_step": {"f1": [1, 2]}}), "baseline.values_by_step.f1", "6 steps"),
    (
        explain(baseline={"values": OTHERS, "values_by_step": {"f1": [1, 2, 3, None, 5, 6]}}),
        "baseline.values_by_step.f1[3]",
        "must be a valid number",
    ),
    (explain(baseline={"values": [1]}), "baseline.values", "must be"),
    (explain(baseline={"instance": WINDOW[:5]}), "baseline.instance", "must have 6 steps, but has 5"),
    (explain(baseline={"instance": window(3, 2, "x")}), "baseline.instance[3][2]", "must be a valid number"),
]
BAD_QUERIES = [  # the same, of paths below the model
    ("topology", "output", "is missing; the outputs are a+1"),
    ("attributions", "output", "is missing"),
    ("report", "output", "is missing"),
    ("topology/fidelity", "output", "is missing"),
    ("topology?output=a%2B1&treshold=1", "treshold", "is unknown; expected one of version, output, metric"),
    ("attributions?outptu=1", "outptu", "is unknown; expected one of version, output, baselines"),
    ("report?metric=size", "metric", "is unknown; expected one of version, output"),
    ("topology/fidelity?fidelity=0.9", "fidelity", "is unknown; expected one of version, output, metric, fill"),
    ("attributions?baselines=mean", "baselines", "must be a valid boolean"),
    ("topology/fidelity?metric=size", "metric", "must be 'contribution', 'backward'"),
    ("topology/fidelity?fill=one", "fill", "must be 'mean' or 'zero'"),
    ("edges/0/0/0?formulas=some", "formulas", "must be a valid boolean"),
    ("edges?formulas=true", "formulas", "is unknown"),
    ("topology?metric=size", "metric", "must be 'contribution', 'backward'"),
    ("topology?fill=one", "fill", "must be 'mean' or 'zero'"),
    ("topology?fidelity=1.1", "fidelity", "must be less than or equal to 1"),
    ("topology?fidelity=nan", "fidelity", "must be"),
    ("topology?fidelity=high", "fidelity", "must be a valid number"),
    ("topology?edge_threshold=-1", "edge_threshold", "must be greater than or equal to 0"),
    ("topology?node_threshold=inf", "node_threshold", "must be a finite number"),
    ("topology?output=a%2B1&fidelity=0.9&edge_threshold=0.1", "fidelity", "and edge_threshold are both given"),
    ("topology?pruned=perhaps", "pruned", "must be a valid boolean"),
    ("edges/0/0/0?output=a%2B1&points=1", "points", "must be greater than or equal to 2"),
    ("edges/0/0/0?output=a%2B1&points=501", "points", "must be at most 500 (max_points)", "limit_exceeded"),
    ("edges?output=a%2B1&points=501", "points", "must be at most 500 (max_points)", "limit_exceeded"),
    ("edges/0/0/0?range=all", "range", "must be 'support', 'reference' or 'grid'"),
    ("edges/0/0/0?stage=tail", "stage", "must be 'front' or 'head'"),
    ("edges?stage=head", "stage", "is unknown"),
    ("edges/first/0/0", "layer", "must be a valid integer"),
]
JSON = {"Content-Type": "application/json"}
PREDICT, EXPLAIN = ("POST", "/v1/models/two:predict"), ("POST", "/v1/models/two:explain")
TWO = "/v1/models/two"
STATUS_CASES = [  # method, path, options, status, code and a part of the message
    ("GET", "/v1/nothing", {}, 404, "path_not_found", "there is no route /v1/nothing"),
    ("POST", f"{TWO}:train", {}, 404, "path_not_found", "there is no route"),
    ("GET", "/v1/models/", {}, 404, "path_not_found", "there is no route"),
    (
        "GET",
        "/v1/models/tow",
        {},
        404,
        "model_not_found",
        "there is no model 'tow'; the models are broken, front, head",
    ),
    ("GET", "/v1/models/..%2Ftwo", {}, 404, "path_not_found", "there is n"),
    ("POST", "/v1/models/tow:predict", {"json": {}}, 404, "model_not_found", "there is no model 'tow'"),
    ("GET", "/v1/models/tow/attributions", {}, 404, "model_not_found", "there is no model 'tow'"),
    ("GET", f"{TWO}/edges/0/99/0?output=a%2B1", {}, 404, "edge_not_found", "head layer 0: i 0 to 4, j 0 to 2"),
    ("GET", f"{TWO}/edges/0/-1/0?output=a%2B1", {}, 404, "edge_not_found", "there is no edge"),
    ("GET", f"{TWO}/edges/0/0/0?output=a%2B1&stage=front", {}, 404, "edge_not_found", "no edge"),
    ("GET", f"{TWO}/edges/0/{10**30}/0?output=a%2B1", {}, 422, "invalid_value", "i must be below 2^63"),
    ("DELETE", "/v1/models", {}, 405, "method_not_allowed", "DELETE is not allowed at /v1/models; use GET"),
    ("GET", f"{TWO}:predict", {}, 405, "method_not_allowed", "use POST"),
    ("PUT", TWO, {}, 405, "method_not_allowed", "use GET"),
    ("GET", "/v1/models", {"headers": {"Accept": "text/csv"}}, 406, "not_acceptable", "the response is application/js"),
    ("GET", f"{TWO}/edges", {"headers": {"Accept": "image/svg+xml"}}, 406, "not_acceptable", "which Accept excludes"),
    ("GET", f"{TWO}/report", {"headers": {"Accept": "image/svg+xml"}}, 406, "not_acceptable", "json or text/markdown"),
    ("GET", "/healthz", {"headers": {"Accept": "application/json;q=0, text/*"}}, 406, "not_acceptable", "Accept"),
    (*EXPLAIN, {"json": {}, "headers": {"Accept": "text/html"}}, 406, "not_acceptable", "application/x-ndjson"),
    (*PREDICT, {"data": {"a": "b"}}, 415, "unsupported_media_type", "must be application/json"),
    (*PREDICT, {"content": b"{}"}, 415, "unsupported_media_type", "must be application/json"),
    (
        *PREDICT,
        {"content": b"{}", "headers": {**JSON, "Content-Encoding": "gzip"}},
        *(415, "unsupported_encoding", "must not be compressed"),
    ),
    (
        *PREDICT,
        {"content": b" " * 100_001, "headers": JSON},
        *(413, "body_too_large", "the body is larger than 100000 bytes (max_body_bytes)"),
    ),
    (*EXPLAIN, {"content": [b" " * 60_000] * 2, "headers": JSON}, 413, "body_too_large", "(max_body_bytes)"),
    ("GET", "/v1/models/broken", {}, 503, "model_failed", "model 'broken' failed: broken.safetensors is truncated"),
    ("POST", "/v1/models/broken:predict", {"json": {}}, 503, "model_failed", "model 'broken' failed"),
    ("GET", "/v1/models/broken/report", {}, 503, "model_failed", "model 'broken' failed"),
]


def check_error(
    answer: httpx2.Response, status: int, message: str, path: str | None = None, code: str | None = None
) -> None:
    """The response has the common error schema, the expected status, code, paths and message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error", "code", "type", "title", "status", "detail", "errors", "request_id"}
    assert (body["type"], body["title"], body["status"]) == ("about:blank", TITLES[status], status)
    assert re.fullmatch("[0-9A-HJKMNP-TV-Z]{26}", body["request_id"])
    assert body["request_id"] == answer.headers["x-request-id"]
    assert message in f"{body['error']} {body['detail']}"
    assert code is None or body["code"] == code
    if path is not None:
        assert body["errors"][0]["path"] == path
        assert message in body["errors"][0]["message"]
        assert body["error"] == f"{path} {body['errors'][0]['message']}"


def refuses(answer: httpx2.Response, path: str, message: str, code: str = "invalid_value") -> None:
    check_error(answer, 422, message, path, code)


@pytest.mark.parametrize(("method", "path", "options", "status", "code", "message"), STATUS_CASES)
def test_each_kind_of_wrong_request_has_its_status(service, method, path, options, status, code, message):
    """Each unsupported path, method, media type, encoding or size has its documented status."""
    check_error(service.client.request(method, path, **options), status, message, code=code)


def test_an_unknown_output_is_404(service):
    """In a query or a body, of every operation on an output."""
    paths = ("attributions", "topology", "topology/fidelity", "edges", "edges/0/0/0", "report", "formula", "comparison")
    answers = [service.get(f"{TWO}/{path}", params={"output": "c"}) for path in paths]
    asked = {"whatif": {}, "ablate": {}, "counterfactual": {"target": {"at_least": 1}}, "compare": {"against": {}}}
    answers += [service.post(f"{TWO}:{verb}", explain(**more, output="c")) for verb, more in asked.items()]
    for answer in answers:
        check_error(answer, 404, "does not exist: 'c'", code="output_not_found")
    answer = service.post(f"{TWO}:explain", explain(output=["a+1", "c+1"]))
    message = "output[1] does not exist: 'c+1'; the outputs are a+1, b+1, a+2, b+2"
    check_error(answer, 404, message, code="output_not_found")


@pytest.mark.parametrize("verb", ["predict", "explain"])
@pytest.mark.parametrize("case", BAD_WINDOWS, ids=itemgetter(1))
def test_each_bad_window_is_named_by_its_place(service, verb, case):
    """:predict and :explain refuse the same windows with 422 and the path of the first bad value."""
    body, *expected = case
    if verb == "explain" and isinstance(body, dict):
        body = {**body, "output": "a+1"}
    refuses(service.post(f"{TWO}:{verb}", body), *expected)


@pytest.mark.parametrize("case", BAD_TEXTS, ids=lambda case: case[0][:20])
def test_each_invalid_json_body_is_refused(service, case):
    """Invalid JSON is 422: a syntax error has line and column, NaN and infinities have their path."""
    text, *expected = case
    refuses(service.client.post(f"{TWO}:predict", content=text, headers=JSON), *expected)


@pytest.mark.parametrize("case", BAD_EXPLAIN, ids=itemgetter(1))
def test_each_bad_option_of_an_explanation_is_named(service, case):
    """:explain refuses an unknown or invalid option with 422 and lists the valid ones."""
    body, *expected = case
    refuses(service.post(f"{TWO}:explain", body), *expected)


@pytest.mark.parametrize("case", BAD_QUERIES, ids=itemgetter(0))
def test_each_bad_parameter_is_named(service, case):
    """An unknown or invalid query parameter is refused with 422, and the error lists the valid ones."""
    tail, *expected = case
    refuses(service.get(f"{TWO}/{tail}"), *expected)


HUGE = [0.0, 0.0, 1e39, 0.0]
BY_NAME = dict(zip(VALUES, HUGE, strict=True))


@pytest.mark.parametrize(
    ("verb", "body", "path"),
    [
        ("predict", {"instances": [[HUGE]]}, "instances[0][0][2]"),
        ("explain", {"instances": [[HUGE]]}, "instances[0][0][2]"),
        ("predict", {"columns": {name: [[value]] for name, value in BY_NAME.items()}}, "columns.f2[0][0]"),
        ("predict", {"series": {name: [value] for name, value in BY_NAME.items()}}, "series.f2[0]"),
        ("explain", {"baseline": {"values": BY_NAME}}, "baseline.values.f2"),
        (
            "explain",
            {"baseline": {"values": dict.fromkeys(("f0", "f1", "f3"), 0.0), "values_by_step": {"f2": [1e39]}}},
            "baseline.values_by_step.f2[0]",
        ),
        ("explain", {"baseline": {"instance": [HUGE]}}, "baseline.instance[0][2]"),
    ],
)
def test_finite_is_judged_after_scaling(service, verb, body, path):
    """1e39 is valid JSON and a finite double, but infinite in float32: it is refused with its path."""
    good = {"instances": [[[0.0] * 4]]} if "baseline" in body else {}
    refuses(service.post(f"/v1/models/head:{verb}", {**good, **body}), path, "must be finite", "not_finite")


def test_all_bad_values_are_listed_up_to_twenty(service):
    """An error lists the first 20 bad values, and says how many there are."""
    bad = {"instances": [[[None] * 4] * 6]}
    answer = service.post("/v1/models/two:predict", bad)
    check_error(answer, 422, "24 values cannot be used", None)
    assert [error["path"] for error in answer.json()["errors"][:5]] == [
        *(f"instances[0][0][{f}]" for f in range(4)),
        "instances[0][1][0]",
    ]
    assert len(answer.json()["errors"]) == 20
    few = service.post("/v1/models/two:predict", {"instances": [window(3, row=[None, 1, None, "x"])]})
    assert few.json()["detail"] == "3 values cannot be used"
    infinite = json.dumps({"instances": [window(3, row=[1, float("nan"), float("inf"), 1])]})
    answer = service.client.post("/v1/models/two:predict", content=infinite, headers=JSON)
    assert answer.json()["detail"] == "2 values are not finite"


@pytest.mark.parametrize("path", ["/v1/models/none", "/v1/nothing", "/v2/models/none", "/v1/models/two:predict"])
@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/problem+json", "application/problem+json"),
        ("text/html, Application/Problem+JSON;q=0.1", "application/problem+json"),
        ("application/problem+json;q=0, */*", "application/json"),
        ("text/html", "application/json"),
    ],
)
def test_an_error_is_a_problem_document_where_accept_names_it(service, path, accept, media_type):
    """Errors of an operation, of the router and of V2 have the media type of RFC 9457, or else that of JSON."""
    answer = service.get(path, headers={"Accept": accept})
    assert answer.headers["content-type"] == media_type
    assert answer.status_code == answer.json()["status"] >= 404


def test_a_405_lists_the_allowed_methods(service):
    """405 responses have the header Allow."""
    assert service.client.delete("/v1/models").headers["allow"] == "GET, HEAD"


def test_results_that_are_not_finite_are_named(serve, tmp_path):
    """A forecast that overflows gives 422 with its path in outputs; no response replaces it by null."""
    model = make_model("head", targets=("y", "z"))
    config = replace(model.config, targets=(model.config.targets[0], Target("z", std=1e75)))
    model.network.config = config
    with torch.no_grad():
        dict(model.network.named_parameters())["head.1.scale_base"][1] *= 1e70
    save_checkpoint(replace(model, reference=replace(model.reference, targets=None)), tmp_path / "huge.safetensors")
    body = {"instances": (1e170 * make_windows(model, 2)).tolist()}
    with serve(models=tmp_path) as client:
        answer = client.post("/v1/models/huge:predict", json=body)
        check_error(answer, 422, "must be finite", "outputs[0][1]")
        assert answer.json()["code"] == "result_not_finite"
        for accept in ("application/json", "application/x-ndjson"):
            answer = client.post("/v1/models/huge:explain", json={**body, "output": "z+1"}, headers={"Accept": accept})
            check_error(answer, 422, "must be finite", "outputs[0][1]")


def test_an_unexpected_error_reveals_only_the_request_id(folder, serve_app, caplog):
    """A 500 has the request id, under which the log has the traceback, and no details; it is counted."""
    app = create_app(Settings(models=folder, cached_results=4))

    async def fail() -> None:
        raise ZeroDivisionError("a secret")

    app.add_api_route("/boom", fail)
    with serve_app(app) as client, caplog.at_level(logging.ERROR, logger="service.wire.errors"):
        answer = client.get("/boom")
        counted = client.get("/metrics").text
    check_error(answer, 500, "internal error")
    assert "secret" not in answer.text
    assert answer.json()["errors"] == []
    assert f"request {answer.json()['request_id']} failed" in caplog.text
    assert "a secret" in caplog.text
    assert 'kanscope_requests_total{code="internal_error",route="/boom",status="500"} 1.0' in counted


def test_every_error_of_the_model_core_has_a_status():
    """Every class of kanmodel.errors has a status, and a broken checkpoint is a server error."""
    unmapped = {cls for cls in KanscopeError.__subclasses__() if cls not in CAUSES}
    assert not unmapped
    body = describe_error(CheckpointError("has a secret"), "01J")
    assert (body["status"], body["error"]) == (500, "internal error")


def test_the_kinds_of_503_have_different_codes(serve, folder, monkeypatch, capfd):
    """The code, also in the log and the metrics, is the cause: model loading, failed, unloaded; server full; late."""
    go_on = threading.Event()
    real = Forecasts._forecast
    monkeypatch.setattr("service.models.registry.load", lambda path: go_on.wait(300) and kanmodel.load(path))
    with serve(wait=False, models=folder, repository_api=True) as client:
        soon = {"X-Request-Timeout": "0.05"}
        codes = {"loading": client.get("/v1/models/two", headers=soon), "readiness": client.get("/readyz")}
        go_on.set()
        poll(lambda: client.get("/v1/models/two").status_code == 200)
        poll(lambda: client.get("/v1/models/broken").json().get("code") == "model_failed")
        codes["failed"] = client.get("/v1/models/broken")
        asks = {"json": {"instances": [WINDOW]}}
        block = threading.Event()
        monkeypatch.setattr(forecasts, "_measure_on_loop", lambda model: 0)  # all go to the thread, which is blocked
        monkeypatch.setattr(Forecasts, "_forecast", lambda *them: block.wait(300) and real(*them))
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.post, "/v1/models/two:predict", **asks)
            poll(lambda: sum_samples(client.get("/metrics").text, "queue_depth", priority="forecast") == 1)
            codes["late"] = client.post("/v1/models/two:predict", **asks, headers=soon)
            block.set()
            assert first.result().status_code == 200
        client.post("/v2/repository/models/two/unload")
        codes["unloaded"] = client.get("/v1/models/two")
        counted = client.get("/metrics").text
    with serve(models=folder / "two.safetensors", max_concurrent=1) as client, ThreadPoolExecutor(1) as pool:
        block.clear()
        first = pool.submit(client.post, "/v1/models/two:predict", **asks)
        poll(lambda: client.get("/v1/models").status_code == 503)
        codes["full"] = client.get("/v1/models")
        block.set()
        assert first.result().status_code == 200
        counted += client.get("/metrics").text
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    logged = {line["id"]: (line["status"], line.get("code")) for line in lines if line["event"] == "request"}
    for answer in codes.values():
        assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)
        assert logged[answer.headers["x-request-id"]] == (503, code := answer.json()["code"])
        assert re.search(f'^kanscope_requests_total{{code="{code}",route="[^"]+",status="503"}}', counted, re.M)
    assert {code for status, code in logged.values() if status == 200} == {None}
    assert {name: answer.json()["code"] for name, answer in codes.items()} == {
        "loading": "deadline_exceeded",  # it waits for the model
        "readiness": "not_ready",
        "failed": "model_failed",
        "late": "deadline_exceeded",
        "unloaded": "model_unloaded",
        "full": "queue_full",
    }


def test_every_error_has_a_code_of_the_document():
    """Only codes of the enum in the document are used."""
    known = set(get_args(ErrorCode.__value__))
    assert set(CAUSES.values()) <= known == STATUSES.keys()
    text = "".join(path.read_text() for path in SERVICE.rglob("*.py"))
    assert [name for name in known if text.count(f'"{name}"') < 2] == []  # its enum occurs once


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v2/models/two/infer", make_tensors([[[0.5] * 4] * 5]), "invalid_value"),
        ("/v2/models/two/infer", make_tensors([[[0.5] * 4] * 6] * 51), "limit_exceeded"),
        ("/v2/models/head/infer", make_tensors([[[1e39] * 4]]), "not_finite"),
    ],
)
def test_the_codes_of_v2_are_those_of_v1(service, path, body, code):
    """V2 uses the codes of V1; only the status differs."""
    answer = service.post(path, body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
