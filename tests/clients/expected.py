"""What the program of each generated client prints, from plain HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2

WINDOW = Path(__file__).parents[1] / "examples" / "window.json"
MODEL = "/v1/models/nyc-weather"


def expect(server: httpx2.Client) -> dict[str, Any]:
    """The members that a program prints as one line of JSON, given the server and `WINDOW`.

    Returns:
        forecast: of the window.
        zero: contributions with the baseline ``zero``.
        values: contributions with the baseline 0.5 of each feature.
        groups: contributions by group, where ``hour`` is one.
        outputs: names and predictions of two outputs, explained in one request.
        lines: number of lines of a stream of three windows, and the prediction of the last.
        kept: number of edges that a topology keeps.
        nodes: number of its nodes.
        edge: shape, first value, source and target of its first edge of the KAN.
        report: answer of the finding ``sparsity``.
        error: status, code and path of the first error of a request without windows.
        unready: status and code of a model that could not be loaded.
    """
    instances = json.loads(WINDOW.read_bytes())["instances"]
    zero = _explain(server, MODEL, instances=instances, baseline="zero")["explanations"][0]
    half = {"values": dict.fromkeys(zero["contributions"], 0.5)}
    given = _explain(server, MODEL, instances=instances, baseline=half)["explanations"][0]
    hour = {"hour": ["hour_sin", "hour_cos"]}
    grouped = _explain(server, MODEL, instances=instances, groups=hour)["explanations"][0]

    pair = _get(server, "/v1/models/pair/reference/0")["instance"]
    both = _explain(server, "/v1/models/pair", instances=[pair], output=["load+1", "load+2"])

    body, lines = {"instances": instances * 3}, {"Accept": "application/x-ndjson"}
    streamed = server.post(f"{MODEL}:explain", json=body, headers=lines).text.splitlines()

    drawn = _get(server, f"{MODEL}/topology?metric=backward&fidelity=0.9")
    first = next(edge for edge in drawn["edges"] if edge["kind"] == "edge")
    curve = _get(server, f"{MODEL}/edges/{first['layer']}/{first['i']}/{first['j']}?stage={first['stage']}&points=11")
    findings = {finding["id"]: finding["answer"] for finding in _get(server, f"{MODEL}/report")["findings"]}

    refused = server.post(f"{MODEL}:predict", json={"instances": []})
    unready = server.post("/v1/models/broken:predict", json={"instances": instances})
    return {
        "forecast": server.post(f"{MODEL}:predict", json={"instances": instances}).json()["predictions"][0][0],
        "zero": zero["contributions"],
        "values": given["contributions"],
        "groups": grouped["contributions_by_group"],
        "outputs": [[one["output"], one["prediction"]] for one in both["explanations"]],
        "lines": [len(streamed), json.loads(streamed[-1])["prediction"]],
        "kept": drawn["graph"]["edges"]["kept"],
        "nodes": len(drawn["nodes"]),
        "edge": [curve["shape"], curve["y"][0], curve["source"], curve["target"]],
        "report": findings["sparsity"],
        "error": [refused.status_code, refused.json()["code"], refused.json()["errors"][0]["path"]],
        "unready": [unready.status_code, unready.json()["code"]],
    }


def _get(server: httpx2.Client, path: str) -> Any:
    return server.get(path).raise_for_status().json()


def _explain(server: httpx2.Client, model: str, **body: object) -> Any:
    return server.post(f"{model}:explain", json=body).raise_for_status().json()
