from __future__ import annotations

import json
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

import httpx2
import pytest
import torch
from factories import make_model, make_tensors, make_windows
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


BAD_WINDOWS = {  # name: (body, path of the first bad value, a part of its message)
    "a list": ([1, 2], "body", "must be a JSON object"),
    "neither form": ({}, "instances", "give instances, columns or a series"),
    "both forms": ({"instances": [WINDOW], "columns": COLUMNS}, "instances", "both given"),
    "null for both": ({"instances": None, "columns": None}, "instances", "is missing: give instances, columns"),
    "null series": ({"series": None}, "instances", "is missing: give instances, columns or a series"),
    "unknown member": (
        {"instances": [WINDOW], "instnaces": 1},
        "instnaces",
        "is unknown; expected one of instances, columns, series, last, gaps",
    ),
    "no instances": ({"instances": []}, "instances", "must have 1 to 50 instances (max_windows), but has 0"),
    "too many instances": (
        {"instances": [WINDOW] * 51},
        "instances",
        "must have 1 to 50 instances (max_windows), but has 51",
    ),
    "a string of instances": ({"instances": "all"}, "instances", "must be a list of instances, but is a string"),
    "one window, not a list of them": ({"instances": WINDOW}, "instances[0]", "must have 6 steps, but has 4"),
    "too few steps": ({"instances": [WINDOW, WINDOW[:5]]}, "instances[1]", "must have 6 steps, but has 5"),
    "ragged row": ({"instances": [window(3, row=[1, 2, 3])]}, "instances[0][3]", "must have 4 features, but has 3"),
    "row too long": ({"instances": [window(3, row=[1] * 5)]}, "instances[0][3]", "must have 4 features, but has 5"),
    "a number for a row": ({"instances": [window(3, row=7)]}, "instances[0][3]", "must be a list of 4 features"),
    "a list for a number": (
        {"instances": [window(3, 2, [1])]},
        "instances[0][3][2]",
        "must be a number, but is a list",
    ),
    "a string": ({"instances": [window(3, 2, "4.5")]}, "instances[0][3][2]", "must be a number, but is a string"),
    "a boolean": ({"instances": [window(3, 2, True)]}, "instances[0][3][2]", "must be a number, but is a boolean"),
    "null": ({"instances": [window(3, 2, None)]}, "instances[0][3][2]", "must be a number, but is null"),
    "an object": ({"instances": [window(3, 2, {})]}, "instances[0][3][2]", "must be a number, but is an object"),
    "columns that are none": ({"columns": [1]}, "columns", "must be an object"),
    "unknown feature": ({"columns": columns(tmep=[[1.0] * 6])}, "columns.tmep", "the features are f0, f1, f2, f3"),
    "missing feature": ({"columns": columns(f2=None)}, "columns.f2", "is missing"),
    "unequal columns": ({"columns": columns(f2=[[1.0] * 6] * 2)}, "columns.f2", "must have 1 instances, but has 2"),
    "a number for a column": ({"columns": columns(f0=3)}, "columns.f0", "must be a list of instances"),
    "short column": ({"columns": columns(f2=[[1.0] * 5])}, "columns.f2[0]", "must have 6 steps, but has 5"),
    "a string in a column": ({"columns": columns(f2=[[1, 1, 1, "x", 1, 1]])}, "columns.f2[0][3]", "must be a number"),
    "empty columns": (
        {"columns": {f"f{f}": [] for f in range(4)}},
        "columns.f0",
        "must have 1 to 50 instances (max_windows)",
    ),
}
BAD_TEXTS = {  # name: (text, path, a part of the message); texts that json.dumps cannot or need not write
    "no body": ("", "body", "must be JSON"),
    "half a body": ('{"instances": [[', "body", "must be JSON"),
    "a trailing comma": ('{"instances": [],}', "body", "must be JSON"),
    "invalid UTF-8": (b'{"instances": "\xff"}', "body", "must be JSON"),
    "nested without end": ("[" * 50_000, "body", "must be nested at most 64 deep (max_json_depth)"),
    "nested deeply": ('{"instances":' + "[" * 63 + "]" * 63 + "}", "instances[0]", "must have 6 steps, but has 1"),
    "nested too deeply": ('{"instances":' + "[" * 64 + "]" * 64 + "}", "body", "must be nested at most 64 deep"),
    "nested 10,000 deep": ('{"instances":' + "[" * 10_000 + "]" * 10_000 + "}", "body", "must be nested at most 64"),
    "objects nested 10,000 deep": ('{"a":' * 10_000 + "1" + "}" * 10_000, "body", "must be nested at most 64 deep"),
    "NaN": (json.dumps({"instances": [window(3, 2, float("nan"))]}), "instances[0][3][2]", "must be finite"),
    "Infinity": (json.dumps({"columns": columns(f1=[[float("-inf")] * 6])}), "columns.f1[0][0]", "must be finite"),
    "a number too large": ('{"instances": [[[1e400]]]}', "instances[0][0][0]", "must be finite"),
    "half a surrogate pair": ('{"\\ud800": 1}', "body", "must be JSON"),
    "half a surrogate pair and NaN": ('{"\\ud800": NaN}', "?", "must be finite"),
    "NaN alone": ("NaN", "body", "must be finite"),
}
BAD_EXPLAIN = {  # name: (body, path, a part of the message)
    "output left out": ({"instances": [WINDOW]}, "output", "is missing; the outputs are a+1, b+1, a+2, b+2"),
    "an output that is no name": (explain(output=3), "output", "must be the name of an output: a+1"),
    "no outputs": (explain(output=[]), "output", "is missing; the outputs are a+1"),
    "the same output twice": (explain(output=["a+1", "a+1"]), "output[1]", "is given twice"),
    "unknown detail": (explain(detail="all"), "detail", "must be 'features', 'steps', 'flow' or 'links'"),
    "a tolerance of zero": (explain(tolerance=0), "tolerance", "must be greater than 0"),
    "a string for tolerance": (explain(tolerance="0.1"), "tolerance", "must be a valid number"),
    "a boolean for tolerance": (explain(tolerance=True), "tolerance", "must be a valid number"),
    "unknown member": (
        explain(basline="mean"),
        "basline",
        "is unknown; expected one of instances, columns, series, last, gaps, output",
    ),
    "bad window": (explain(instances=[window(3, 2, "x")]), "instances[0][3][2]", "must be a number"),
    "unknown baseline": (explain(baseline="median"), "baseline.kind", "must be 'mean', 'zero'"),
    "too few reference windows": (explain(baseline={"reference": 1}), "baseline.reference", "equal to 2"),
    "too many reference windows": (explain(baseline={"reference": 131}), "baseline.reference", "from 2 to 130"),
    "half a reference window": (explain(baseline={"reference": 2.5}), "baseline.reference", "must be a valid integer"),
    "a boolean of reference windows": (explain(baseline={"reference": True}), "baseline.reference", "valid integer"),
    "a negative seed": (explain(baseline={"reference": 4, "seed": -1}), "baseline.seed", "greater than or equal to 0"),
    "a seed that is no number": (explain(baseline={"reference": 4, "seed": "1"}), "baseline.seed", "valid integer"),
    "a seed of another kind": (
        explain(baseline={"kind": "mean", "seed": 1}),
        "baseline.seed",
        "must not be given with the kind mean",
    ),
    "reference and more": (
        explain(baseline={"reference": 4, "sede": 1}),
        "baseline.sede",
        "is unknown; expected one of kind, reference, seed, values",
    ),
    "reference and values": (
        explain(baseline={"reference": 4, "values": VALUES}),
        "baseline.values",
        "must not be given with the kind reference",
    ),
    "two baselines": (
        explain(baseline={"values": VALUES, "instance": WINDOW}),
        "baseline.instance",
        "must not be given with the kind values",
    ),
    "no window": (explain(baseline={"kind": "instance"}), "baseline.instance", "is missing"),
    "a value twice": (
        explain(baseline={"values": VALUES, "values_by_step": {"f1": [0] * 6}}),
        "baseline.values_by_step.f1",
        "is given in values too",
    ),
    "a number for a baseline": (explain(baseline=0), "baseline", "must be"),
    "baseline lacks a feature": (explain(baseline={"values": {"f0": 1}}), "baseline.values.f1", "is missing"),
    "baseline of an unknown feature": (
        explain(baseline={"values": {**VALUES, "temp": 1}}),
        "baseline.values.temp",
        "is unknown; the features are f0, f1, f2, f3",
    ),
    "baseline that is a string": (
        explain(baseline={"values": {**VALUES, "f1": "1"}}),
        "baseline.values.f1",
        "must be a valid number",
    ),
    "baseline of too few steps": (
        explain(baseline={"values": OTHERS, "values_by_step": {"f1": [1, 2]}}),
        "baseline.values_by_step.f1",
        "must have 6 steps, but has 2",
    ),
    "baseline with a bad step": (
        explain(baseline={"values": OTHERS, "values_by_step": {"f1": [1, 2, 3, None, 5, 6]}}),
        "baseline.values_by_step.f1[3]",
        "must be a valid number",
    ),
    "values that are none": (explain(baseline={"values": [1]}), "baseline.values", "must be"),
    "baseline window too short": (
        explain(baseline={"instance": WINDOW[:5]}),
        "baseline.instance",
        "must have 6 steps, but has 5",
    ),
    "baseline window with a string": (
        explain(baseline={"instance": window(3, 2, "x")}),
        "baseline.instance[3][2]",
        "must be a valid number",
    ),
}
BAD_QUERIES = {  # name: (path below the model, path of the bad value, a part of the message)
    "output left out": ("topology", "output", "is missing; the outputs are a+1"),
    "unknown parameter": (
        "topology?output=a%2B1&treshold=1",
        "treshold",
        "is unknown; expected one of version, output, metric",
    ),
    "output left out of the table": ("attributions", "output", "is missing; the outputs are a+1"),
    "output left out of the report": ("report", "output", "is missing; the outputs are a+1"),
    "output left out of the curve": ("topology/fidelity", "output", "is missing; the outputs are a+1"),
    "unknown parameter of the table": (
        "attributions?outptu=1",
        "outptu",
        "is unknown; expected one of version, output, baselines",
    ),
    "unknown parameter of the report": ("report?metric=size", "metric", "is unknown; expected one of version, output"),
    "unknown parameter of the curve": (
        "topology/fidelity?fidelity=0.9",
        "fidelity",
        "is unknown; expected one of version, output, metric, fill",
    ),
    "baselines that are neither": ("attributions?baselines=mean", "baselines", "must be a valid boolean"),
    "unknown metric of the curve": ("topology/fidelity?metric=size", "metric", "must be 'contribution', 'backward'"),
    "unknown fill of the curve": ("topology/fidelity?fill=one", "fill", "must be 'mean' or 'zero'"),
    "formulas that are neither": ("edges/0/0/0?formulas=some", "formulas", "must be a valid boolean"),
    "formulas of all": ("edges?formulas=true", "formulas", "is unknown"),
    "unknown metric": ("topology?metric=size", "metric", "must be 'contribution', 'backward'"),
    "unknown fill": ("topology?fill=one", "fill", "must be 'mean' or 'zero'"),
    "a fidelity beyond 1": ("topology?fidelity=1.1", "fidelity", "must be less than or equal to 1"),
    "a fidelity of NaN": ("topology?fidelity=nan", "fidelity", "must be"),
    "a fidelity that is no number": ("topology?fidelity=high", "fidelity", "must be a valid number"),
    "a negative threshold": ("topology?edge_threshold=-1", "edge_threshold", "must be greater than or equal to 0"),
    "an infinite threshold": ("topology?node_threshold=inf", "node_threshold", "must be a finite number"),
    "both rules": (
        "topology?output=a%2B1&fidelity=0.9&edge_threshold=0.1",
        "fidelity",
        "and edge_threshold are both given",
    ),
    "pruned that is neither": ("topology?pruned=perhaps", "pruned", "must be a valid boolean"),
    "too few points": ("edges/0/0/0?output=a%2B1&points=1", "points", "must be greater than or equal to 2"),
    "too many points": (
        "edges/0/0/0?output=a%2B1&points=501",
        "points",
        "must be at most 500 (max_points), but is 501",
    ),
    "too many points for all": (
        "edges?output=a%2B1&points=501",
        "points",
        "must be at most 500 (max_points), but is 501",
    ),
    "unknown range": ("edges/0/0/0?range=all", "range", "must be 'support', 'reference' or 'grid'"),
    "unknown stage": ("edges/0/0/0?stage=tail", "stage", "must be 'front' or 'head'"),
    "a stage for all": ("edges?stage=head", "stage", "is unknown"),
    "a layer that is no number": ("edges/first/0/0", "layer", "must be a valid integer"),
}
JSON = {"Content-Type": "application/json"}
STATUS_CASES = {  # name: (method, path, options, status, a part of the message)
    "unknown path": ("GET", "/v1/nothing", {}, 404, "there is no route /v1/nothing"),
    "unknown verb": ("POST", "/v1/models/two:train", {}, 404, "there is no route"),
    "a slash at the end": ("GET", "/v1/models/", {}, 404, "there is no route"),
    "unknown model": ("GET", "/v1/models/tow", {}, 404, "there is no model 'tow'; the models are broken, front, head"),
    "a path for a model": ("GET", "/v1/models/..%2Ftwo", {}, 404, "there is n"),
    "unknown model to predict": ("POST", "/v1/models/tow:predict", {"json": {}}, 404, "there is no model 'tow'"),
    "unknown output of a graph": (
        "GET",
        "/v1/models/two/topology?output=c",
        {},
        404,
        "output does not exist: 'c'",
    ),
    "unknown output to explain": (
        "POST",
        "/v1/models/two:explain",
        {"json": {"instances": [WINDOW], "output": ["a+1", "c+1"]}},
        404,
        "output[1] does not exist: 'c+1'; the outputs are a+1, b+1, a+2, b+2",
    ),
    "unknown output of the table": ("GET", "/v1/models/two/attributions?output=c", {}, 404, "does not exist: 'c'"),
    "unknown output of the curve": ("GET", "/v1/models/two/topology/fidelity?output=c", {}, 404, "does not exist: 'c'"),
    "unknown output of the report": ("GET", "/v1/models/two/report?output=c", {}, 404, "does not exist: 'c'"),
    "unknown model of the table": ("GET", "/v1/models/none/attributions", {}, 404, "there is no model 'none'"),
    "a failed model to report on": ("GET", "/v1/models/broken/report", {}, 503, "model 'broken' failed"),
    "a table in csv": (
        "GET",
        "/v1/models/two/attributions",
        {"headers": {"Accept": "text/csv"}},
        406,
        "which Accept excludes",
    ),
    "a report as a picture": (
        "GET",
        "/v1/models/two/report",
        {"headers": {"Accept": "image/svg+xml"}},
        406,
        "application/json or text/markdown or text/html",
    ),
    "unknown edge": ("GET", "/v1/models/two/edges/0/99/0?output=a%2B1", {}, 404, "head layer 0: i 0 to 4, j 0 to 2"),
    "a negative edge": ("GET", "/v1/models/two/edges/0/-1/0?output=a%2B1", {}, 404, "there is no edge"),
    "a huge edge": ("GET", f"/v1/models/two/edges/0/{10**30}/0?output=a%2B1", {}, 422, "i must be below 2^63"),
    "a stage that the model lacks": ("GET", "/v1/models/two/edges/0/0/0?output=a%2B1&stage=front", {}, 404, "no edge"),
    "wrong method on a list": ("DELETE", "/v1/models", {}, 405, "DELETE is not allowed at /v1/models; use GET"),
    "wrong method on a verb": ("GET", "/v1/models/two:predict", {}, 405, "use POST"),
    "wrong method on a model": ("PUT", "/v1/models/two", {}, 405, "use GET"),
    "csv wanted": ("GET", "/v1/models", {"headers": {"Accept": "text/csv"}}, 406, "the response is application/json"),
    "a picture wanted": (
        "GET",
        "/v1/models/two/edges",
        {"headers": {"Accept": "image/svg+xml"}},
        406,
        "which Accept excludes",
    ),
    "json refused": (
        "GET",
        "/healthz",
        {"headers": {"Accept": "application/json;q=0, text/*"}},
        406,
        "which Accept excludes",
    ),
    "html of an explanation": (
        "POST",
        "/v1/models/two:explain",
        {"json": {}, "headers": {"Accept": "text/html"}},
        406,
        "application/json or application/x-ndjson",
    ),
    "a form": ("POST", "/v1/models/two:predict", {"data": {"a": "b"}}, 415, "must be application/json"),
    "no content type": ("POST", "/v1/models/two:predict", {"content": b"{}"}, 415, "must be application/json"),
    "compressed": (
        "POST",
        "/v1/models/two:predict",
        {"content": b"{}", "headers": {**JSON, "Content-Encoding": "gzip"}},
        415,
        "must not be compressed",
    ),
    "too large": (
        "POST",
        "/v1/models/two:predict",
        {"content": b" " * 100_001, "headers": JSON},
        413,
        "the body is larger than 100000 bytes (max_body_bytes)",
    ),
    "too large, of unstated length": (
        "POST",
        "/v1/models/two:explain",
        {"content": [b" " * 60_000] * 2, "headers": JSON},
        413,
        "the body is larger than 100000 bytes (max_body_bytes)",
    ),
    "a failed model": ("GET", "/v1/models/broken", {}, 503, "model 'broken' failed: broken.safetensors is truncated"),
    "a failed model to predict": ("POST", "/v1/models/broken:predict", {"json": {}}, 503, "model 'broken' failed"),
}


CODES = {  # codes of the cases above; cases that are missing here have "invalid_value"
    404: "path_not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "body_too_large",
    415: "unsupported_media_type",
    503: "model_failed",
    "unknown model": "model_not_found",
    "unknown model to predict": "model_not_found",
    "unknown model of the table": "model_not_found",
    "unknown output of a graph": "output_not_found",
    "unknown output to explain": "output_not_found",
    "unknown output of the table": "output_not_found",
    "unknown output of the curve": "output_not_found",
    "unknown output of the report": "output_not_found",
    "unknown edge": "edge_not_found",
    "a negative edge": "edge_not_found",
    "a stage that the model lacks": "edge_not_found",
    "compressed": "unsupported_encoding",
    "too many instances": "limit_exceeded",
    "too many points": "limit_exceeded",
    "too many points for all": "limit_exceeded",
    "no body": "invalid_json",
    "half a body": "invalid_json",
    "a trailing comma": "invalid_json",
    "invalid UTF-8": "invalid_json",
    "half a surrogate pair": "invalid_json",
    "nested without end": "limit_exceeded",
    "nested too deeply": "limit_exceeded",
    "nested 10,000 deep": "limit_exceeded",
    "objects nested 10,000 deep": "limit_exceeded",
    "NaN": "not_finite",
    "Infinity": "not_finite",
    "a number too large": "not_finite",
    "half a surrogate pair and NaN": "not_finite",
    "NaN alone": "not_finite",
}


def check_error(answer: httpx2.Response, status: int, message: str, path: str | None = None) -> None:
    """The response has the common error schema, the expected status, code, paths and message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error", "code", "type", "title", "status", "detail", "errors", "request_id"}
    assert (body["type"], body["title"], body["status"]) == ("about:blank", TITLES[status], status)
    assert re.fullmatch("[0-9A-HJKMNP-TV-Z]{26}", body["request_id"])
    assert body["request_id"] == answer.headers["x-request-id"]
    assert message in f"{body['error']} {body['detail']}"
    if path is not None:
        assert body["errors"][0]["path"] == path
        assert message in body["errors"][0]["message"]
        assert body["error"] == f"{path} {body['errors'][0]['message']}"


@pytest.mark.parametrize("name", STATUS_CASES)
def test_each_kind_of_wrong_request_has_its_status(service, name):
    """Each unsupported path, method, media type, encoding or size has its documented status."""
    method, path, options, status, message = STATUS_CASES[name]
    answer = service.client.request(method, path, **options)
    check_error(answer, status, message)
    assert answer.json()["code"] == CODES.get(name, CODES.get(status, "invalid_value"))


@pytest.mark.parametrize("verb", ["predict", "explain"])
@pytest.mark.parametrize("name", BAD_WINDOWS)
def test_each_bad_window_is_named_by_its_place(service, verb, name):
    """:predict and :explain refuse the same windows with 422 and the path of the first bad value."""
    body, path, message = BAD_WINDOWS[name]
    if verb == "explain" and isinstance(body, dict):
        body = {**body, "output": "a+1"}
    answer = service.post(f"/v1/models/two:{verb}", body)
    check_error(answer, 422, message, path)
    assert answer.json()["code"] == CODES.get(name, "invalid_value")


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_each_invalid_json_body_is_refused(service, name):
    """Invalid JSON is 422: a syntax error has line and column, NaN and infinities have their path."""
    text, path, message = BAD_TEXTS[name]
    answer = service.client.post("/v1/models/two:predict", content=text, headers=JSON)
    check_error(answer, 422, message, path)
    assert answer.json()["code"] == CODES.get(name, "invalid_value")


@pytest.mark.parametrize("name", BAD_EXPLAIN)
def test_each_bad_option_of_an_explanation_is_named(service, name):
    """:explain refuses an unknown or invalid option with 422 and lists the valid ones."""
    body, path, message = BAD_EXPLAIN[name]
    check_error(service.post("/v1/models/two:explain", body), 422, message, path)


@pytest.mark.parametrize("name", BAD_QUERIES)
def test_each_bad_parameter_is_named(service, name):
    """An unknown or invalid query parameter is refused with 422, and the error lists the valid ones."""
    tail, path, message = BAD_QUERIES[name]
    answer = service.get(f"/v1/models/two/{tail}")
    check_error(answer, 422, message, path)
    assert answer.json()["code"] == CODES.get(name, "invalid_value")


@pytest.mark.parametrize(
    ("verb", "members", "path"),
    [
        ("predict", {"instances": "window"}, "instances[0][0][2]"),
        ("explain", {"instances": "window"}, "instances[0][0][2]"),
        ("predict", {"columns": "columns"}, "columns.f2[0][0]"),
        ("predict", {"series": "series"}, "series.f2[0]"),
        ("explain", {"instances": "good", "baseline": {"values": "number"}}, "baseline.values.f2"),
        (
            "explain",
            {"instances": "good", "baseline": {"values": "others", "values_by_step": "steps"}},
            "baseline.values_by_step.f2[0]",
        ),
        ("explain", {"instances": "good", "baseline": {"instance": "row"}}, "baseline.instance[0][2]"),
    ],
)
def test_finite_is_judged_after_scaling(service, verb, members, path):
    """1e39 is valid JSON and a finite double, but infinite in float32: it is refused with its path."""
    parts = {
        "good": [[[0.0] * 4]],
        "window": [[[0.0, 0.0, 1e39, 0.0]]],
        "columns": {f"f{f}": [[1e39 if f == 2 else 0.0]] for f in range(4)},
        "series": {f"f{f}": [1e39 if f == 2 else 0.0] for f in range(4)},
        "number": {f"f{f}": 1e39 if f == 2 else 0.0 for f in range(4)},
        "steps": {"f2": [1e39]},
        "others": {f"f{f}": 0.0 for f in range(4) if f != 2},
        "row": [[0.0, 0.0, 1e39, 0.0]],
    }
    body = {
        key: {kind: parts[part] for kind, part in value.items()} if isinstance(value, dict) else parts[value]
        for key, value in members.items()
    }
    answer = service.post(f"/v1/models/head:{verb}", body)
    check_error(answer, 422, "must be finite", path)
    assert answer.json()["code"] == "not_finite"


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


def test_a_503_has_retry_after(service):
    """A model that is not available gives 503 with the header Retry-After."""
    assert int(service.get("/v1/models/broken").headers["retry-after"]) > 0


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
    """A 500 response has the request id, under which the log has the traceback, and no details."""
    app = create_app(Settings(models=folder, cached_results=4))

    async def fail() -> None:
        raise ZeroDivisionError("a secret")

    app.add_api_route("/boom", fail)
    with serve_app(app) as client, caplog.at_level(logging.ERROR, logger="service.wire.errors"):
        answer = client.get("/boom")
    check_error(answer, 500, "internal error")
    assert "secret" not in answer.text
    assert answer.json()["errors"] == []
    assert f"request {answer.json()['request_id']} failed" in caplog.text
    assert "a secret" in caplog.text


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
            poll(lambda: 'kanscope_queue_depth{priority="forecast"} 1.0' in client.get("/metrics").text)
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
        assert (answer.status_code, answer.headers["retry-after"].isdecimal()) == (503, True)
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
