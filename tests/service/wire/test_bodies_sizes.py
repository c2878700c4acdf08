"""A request of a wrong size is refused in one short sentence, while other clients are answered."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path

import pytest
from processes import run_process
from sockets import sum_samples

LARGE, SMALL = (8 << 20) - 1024, 40_000  # bytes of a body; a small one is read on the event loop
SLOWEST = 3.0  # seconds of a processor that another request waits for; for some of these it were 14
LONGEST = 16_000  # bytes of a refusal
NAME = "nyc-weather"
ROW = json.dumps([0.5] * 20).encode()
WINDOW = b"[%s]" % b",".join([ROW] * 24)
ONE = b'{"instances": [%s], ' % WINDOW
TOO_MANY = (
    r"body holds \d+ (names and strings, more than the (1720|9958) of a request to this model|"
    r"(values|lists and objects), more than 4096 instances \(max_windows\) of \[24, 20\] have)"
)
LONG = r"x{40}x*(\.\.\.|…)x*x{40}"  # a name of many x, shortened

NO_STRING = r"\w+\[0\] must be a valid string|body holds \d+ .*"

# Operation, body as start, repeated unit and end, and the error.
ATTACKS = {
    "features": ("whatif", ONE + b'"features": [', b'"temp_c",', b'"temp_c"]}', TOO_MANY),
    "numbers as features": ("whatif", ONE + b'"features": [', b"0,", b"0]}", NO_STRING),
    "lists as features": (
        *("counterfactual", ONE + b'"target": {"at_least": 1}, "features": [', b"[],", b"0]}"),
        NO_STRING,
    ),
    "strings of a baseline": ("explain", ONE + b'"baseline": {"values": {', b'"x%d":0,', b'"x":0}}}', TOO_MANY),
    "members": ("predict", ONE, b'"x%d":0,', b'"x":0}', TOO_MANY),
    "members of infer": ("infer", b"{", b'"x%d":0,', b'"x":0}', TOO_MANY),
    "groups": ("explain", ONE + b'"groups": {', b'"x%d":["temp_c"],', b'"x":["temp_c"]}}', TOO_MANY),
    "groups in a string": ("infer", b'{"parameters": {"groups": "{', rb"\"x%d\":[],", rb'\"x\":[]}"}}', TOO_MANY),
    "columns": ("predict", b'{"columns": {', b'"x%d":[],', b'"x":[]}}', TOO_MANY),
    "series": ("predict", b'{"series": {', b'"x%d":[],', b'"x":[]}}', TOO_MANY),
    "cells": ("predict", b'{"series": {"temp_c": [', b"0,", b"0]}}", rf"series\.\w+ (is missing|must .*)|{TOO_MANY}"),
    "cells of strings": ("predict", b'{"series": {"temp_c": [', b'"x",', b"0]}}", rf"series\.\w+ is .*|{TOO_MANY}"),
    "times": ("explain", b'{"series": {"time": [', b'"31.12.2023 23:00",', b"0]}}", rf"series\.\w+ .*|{TOO_MANY}"),
    "groups beside a series": (
        *("explain", b'{"series": {"temp_c": [0]}, "groups": {', b'"x%d":["temp_c"],', b'"x":["temp_c"]}}'),
        TOO_MANY,
    ),
    "nested cells": ("predict", b'{"series": {"temp_c": [', b"[0],", b"0]}}", rf"series\.\w+ is missing|{TOO_MANY}"),
    "a long column": ("predict", b'{"series": {"', b"x", b'": [0]}}', rf"series\.{LONG} is unknown; the columns .*"),
    "a long last": ("predict", b'{"series": {}, "last": "', b"x", b'"}', r"series\.\w+ is missing.*"),
    "outputs": ("explain", ONE + b'"output": [', b'"y",', b'"y"]}', TOO_MANY),
    "segments": ("explain", ONE + b'"segments": {', b'"x%d":[0,0],', b'"x":[0,0]}}', TOO_MANY),
    "edges": ("ablate", ONE + b'"without": [', b'"head:0:0:0",', b'"head:0:0:0"]}', TOO_MANY),
    "numbers as edges": ("ablate", ONE + b'"without": [', b"0,", b"0]}", NO_STRING),
    "inputs": ("infer", b'{"inputs": [', b'{"name":"temp_c"},', b"{}]}", TOO_MANY),
    "null inputs": ("infer", b'{"inputs": [', b"null,", b"null]}", r"inputs must be 1 tensor, or 20, .* are \d+"),
    "a shape": (
        *("infer", b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [', b"1,", b"1]}]}"),
        r"inputs\[0\].shape must have at most 8 items, not \d+|body holds .*",
    ),
    "a long member": ("predict", ONE + b'"', b"x", b'": 0}', f"{LONG} is unknown; expected one of .*"),
    "a member of escapes": ("predict", ONE + b'"', rb"\u0000", b'": 0}', r"\0+…\0+ is unknown; expected one of .*"),
    "a long feature": ("whatif", ONE + b'"features": ["', b"x", b'"]}', rf"features\[0\] is unknown: '{LONG}'; .*"),
    "a long output": ("explain", ONE + b'"output": "', b"x", b'"}', f"output does not exist: '{LONG}'; the outputs .*"),
    "a long baseline": ("explain", ONE + b'"baseline": "', b"x", b'"}', "baseline.kind must be 'mean', .*"),
    "a member of a baseline": ("explain", ONE + b'"baseline": {"', b"x", b'": 0}}', rf"baseline\.{LONG} is unkn.*"),
    "a value of a baseline": (
        *("explain", ONE + b'"baseline": {"values": {"', b"x", b'": 0}}}'),
        rf"baseline\.values\.{LONG} is unknown; the features are temp_c, .*",
    ),
    "a long group": ("explain", ONE + b'"groups": {"', b"x", b'": []}}', "groups cannot be used: .* 200 characters.*"),
    "a long member of a group": (
        *("explain", ONE + b'"groups": {"g": ["', b"x", b'"]}}'),
        rf"groups\.g has no feature '{LONG}'; the features are .*",
    ),
    "a long segment": ("explain", ONE + b'"segments": {"', b"x", b'": 0}}', rf"segments\.{LONG} must be 2 values, .*"),
    "a long edge": ("ablate", ONE + b'"without": ["', b"x", b'"]}', rf"without\[0\] .* there is no edge '{LONG}': .*"),
    "a long version": ("compare", ONE + b'"against": {"version": "', b"x", b'"}}', f"model .* no version '{LONG}'; .*"),
    "a long model": ("compare", ONE + b'"against": {"model": "', b"x", b'"}}', f"there is no model '{LONG}'; .*"),
    "a long tensor": (
        *("infer", b'{"inputs": [{"name": "', b"x", b'", "datatype": "FP64", "shape": [1, 24]}]}'),
        r"inputs\[0\]\.name is unknown; expected instances alone, or the features .*",
    ),
    "a string of no groups": (
        *(
            "infer",
            b'{"parameters": {"groups": "',
            b"x",
            b'"}, "inputs": [{"name": "instances", "datatype": "FP64", "shape": [1, 24, 20], "data": [%s]}]}' % WINDOW,
        ),
        r"parameters\.groups must be a string of JSON: unexpected character.*",
    ),
    "a string of a number": ("whatif", ONE + b'"steps": ["', b"1", b'", 0]}', r"steps\[0\] must be a valid integer"),
    "a string of a window": (
        "predict",
        b'{"instances": "',
        b"1",
        b'"}',
        "instances must be a list .*, but is a string",
    ),
    "a ragged last row": (
        *("predict", b'{"instances": [%s,[' % b",".join([WINDOW] * 9), ROW + b",", b"[0]]]}"),
        r"instances\[9\] must have 24 steps, but has \d+",
    ),
    "a ragged last window": (
        *("predict", b'{"instances": [', WINDOW + b",", b"[%s[0]]]}" % (23 * (ROW + b","))),
        r"instances\[\d+\]\[23\] must have 20 features, but has 1",
    ),
    "depth": ("predict", ONE + b'"x": ', b"[", b"", "body must be nested at most 64 deep .*|body holds .*"),
    "depth of members": ("predict", b"", b'{"a":', b"", "body must be nested at most 64 deep .*|body holds .*"),
    "depth in a string": ("predict", ONE + b'"x": "', rb"[", b'"}', "x is unknown; .*|body holds .*"),
    "empty lists": ("predict", b'{"instances": [', b"[],", b"[]]}", "body holds .*|instances must have 1 to .*"),
    "empty objects": ("predict", b'{"instances": [', b'{"a":{}},', b"{}]}", TOO_MANY),
    "nulls": ("predict", b'{"instances": [[[', b"null,", b"null]]]}", r"instances\[0\] must have 24 steps, but has 1"),
    "a long number": ("predict", b'{"instances": [[[', b"1", b"]]]}", r"instances\[0\]\[0\]\[0\] must be finite"),
    "a long exponent": ("predict", b'{"tolerance": 1e', b"1", b"}", "tolerance must be finite.*"),
    "zeros": ("predict", b'{"instances": [[[', b"0e9999,", b"0]]]}", r"instances\[0\] must have 24 steps, but has 1"),
    "numbers that are none": ("predict", b'{"instances": [[[', b"1.1.1e999,", b"0]]]}", "body must be JSON: .*"),
    "colons": ("predict", b'{"instances": ', b":", b"NaN}", "body must be JSON: .*"),
    "repeated members": (
        *("predict", b'{"instances": [], "a": [', b"0.25000,", b'0], "b": {"c": 0, "\\u0063": 1}}'),
        r"b\.c is given twice",
    ),
}


def fill(start, unit, end, n_bytes):
    """A body of a given size that repeats a unit, in which `%d` counts."""
    room = n_bytes - len(start) - len(end)
    if b"%d" not in unit:
        return start + unit * (room // len(unit)) + end
    return start + b"".join(unit % number for number in range(room // (len(unit) + 5))) + end


@pytest.fixture(scope="module")
def process(folder, tmp_path_factory):
    """A served model in a process of its own."""
    log, patience = tmp_path_factory.mktemp("sizes") / "log", {"KANSCOPE_REQUEST_TIMEOUT": "60"}
    with run_process(log, folder / f"{NAME}.safetensors", **patience) as process:
        yield process


def seconds_of(pid):
    """Processor time that a process has used, which does not depend on what else runs on the machine."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def ask(process):
    """Sends a request while another client asks for the health of the service; returns the answer."""

    def ask(method, path, longest=LONGEST, **content):
        waits, ended = [], threading.Event()

        def watch():
            while not ended.is_set():
                before = seconds_of(process.popen.pid)
                assert process.client.get("/healthz").status_code == 200
                waits.append(seconds_of(process.popen.pid) - before)

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            answer = process.client.request(method, path, **content)
        finally:
            ended.set()
            watching.join()
        assert max(waits) < SLOWEST
        assert len(answer.content) < longest
        return answer

    return ask


@pytest.mark.parametrize("n_bytes", [pytest.param(LARGE, marks=pytest.mark.thorough("47 bodies of 8 MB")), SMALL])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_body_of_a_wrong_size_is_refused_briefly(ask, name, n_bytes):
    """A body of the largest size and one that is read on the event loop are refused in one sentence with its place."""
    verb, start, unit, end, message = ATTACKS[name]
    path = f"/v2/models/{NAME}/infer" if verb == "infer" else f"/v1/models/{NAME}:{verb}"
    answer = ask("POST", path, content=fill(start, unit, end, n_bytes), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 if verb == "infer" else answer.status_code in (404, 422), answer.text
    assert re.fullmatch(message, answer.json()["error"]), answer.json()["error"]


X = "x" * 50_000
MODEL = f"/v1/models/{NAME}"


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        (f"{MODEL}/topology?" + "a&" * 25_000, 422, "query must have at most 1000 parameters, but has 25001"),
        (f"{MODEL}/topology?" + "without=head:0:0:0&" * 999, 422, "without must have at most 500 items, not 999"),
        (f"/v2/models/{NAME}?" + "&" * 50_000, 400, "query must have at most 1000 parameters, but has 50001"),
        (f"{MODEL}/topology?{X}=1", 422, f"{LONG} is unknown; expected one of .*"),
        (f"{MODEL}/topology?without={X}", 422, rf"without\[0\] .* there is no edge '{LONG}': .*"),
        (f"{MODEL}/topology?fidelity={X}", 422, "fidelity must be a valid number, .*"),
        (f"{MODEL}/topology?output={X}", 404, f"output does not exist: '{LONG}'; the outputs are .*"),
        (f"{MODEL}/attributions?groups={X}", 422, "groups must be a string of JSON: unexpected character.*"),
        (f'{MODEL}/attributions?groups={{"a":[],"a":[]}}', 422, "groups must be a string of JSON: a is given twice"),
        (f"{MODEL}/attributions?groups={'[' * 50_000}", 422, "groups must .*: body must be nested at most 64 deep .*"),
        (f"{MODEL}/comparison?against_model={X}", 404, f"there is no model '{LONG}'; .*"),
        (f"{MODEL}/edges/{'1' * 50_000}/0/0", 422, "layer must be an integer of fewer digits"),
        (f"{MODEL}?version={X}", 404, f"model '{NAME}' has no version '{LONG}'; .*"),
        (f"/v1/models/{X}", 404, f"there is no model '{LONG}'; .*"),
        (f"/{X}", 404, f"there is no route /{LONG}; .*"),
    ],
)
def test_a_long_query_is_refused_briefly(ask, path, status, message):
    """Many parameters, and long names and values in a query or a path, are refused in one sentence."""
    answer = ask("GET", path)
    assert answer.status_code == status, answer.text
    assert re.fullmatch(message, answer.json()["error"]), answer.json()["error"]


def test_a_long_header_is_refused_briefly(ask):
    """A header with another value than it should have is not repeated."""
    answer = ask("GET", f"{MODEL}/report", headers={"X-Request-Timeout": X})
    assert answer.json()["error"] == "X-Request-Timeout must be a number of seconds above 0"


def test_warnings_are_counted_and_the_first_made(ask, process):
    """Of 40,000 values outside the training range a hundred are listed, and all are counted in answer and metrics."""

    def count():
        return sum_samples(process.client.get("/metrics").text, "inputs_outside_range_total")

    before = count()
    body = b'{"instances": [%s]}' % b",".join([re.sub(rb"0\.5", b"9e3", WINDOW)] * 2000)
    answer = ask(
        "POST", f"{MODEL}:predict", content=body, headers={"Content-Type": "application/json"}, longest=500_000
    )
    assert answer.status_code == 200, answer.text[:300]
    document = answer.json()
    assert len(document["warnings"]) == 100
    assert document["warnings_omitted"] == 39_900
    assert count() - before == 40_000
