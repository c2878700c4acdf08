"""What is counted is that of all processes of a service, and a killed one loses only what it had not written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from factories import make_windows
from processes import Process, run_process
from prometheus_client.parser import text_string_to_metric_families as parse
from waiting import poll

from kanmodel.checkpoint import load_checkpoint

PATH = "/v1/models/two"
N_REQUESTS = 120


@pytest.fixture(scope="module")
def bodies(folder: Path) -> list[dict[str, Any]]:
    windows = make_windows(load_checkpoint(folder / "two.safetensors"), N_REQUESTS)
    return [{"instances": windows[[number]].tolist(), "receipts": True} for number in range(N_REQUESTS)]


def on_new_connection(process: Process, method: str, path: str, **options: Any) -> httpx2.Response:
    """An answer of any of the processes."""
    with httpx2.Client(base_url=process.client.base_url, timeout=300) as client:
        return client.request(method, path, **options)


def counters(process: Process) -> dict[tuple[Any, ...], float]:
    """The counters of the monitor, and what they are compared with, by name and labels."""
    text = on_new_connection(process, "GET", "/metrics").text
    return {
        (one.name, *sorted(one.labels.items())): one.value
        for family in parse(text)
        for one in family.samples
        if "watched" in one.name or "outcomes" in one.name
        if not one.name.endswith("_created") and "_request" not in one.name
    }


def is_counted(process: Process) -> bool:
    """Whether every forecast and outcome is in the metrics, and in the hours."""
    found, drift = counters(process), on_new_connection(process, "GET", f"{PATH}/drift").json()
    n_of = {
        name: sum(n for (metric, *labels), n in found.items() if metric == name and ("of", "input") not in labels)
        for name in ("kanscope_watched_values_total", "kanscope_watched_known_total")
    }
    return {*n_of.values(), drift["forecasts"], drift["errors"] and drift["errors"]["known"]} == {N_REQUESTS}


@pytest.mark.thorough("starts five processes")
def test_four_processes_count_as_one(folder, tmp_path, bodies):
    """Metrics, hours and errors of the same traffic are equal, and each process knows the receipts of the others."""
    settings = {"KANSCOPE_CACHED_RESULTS": "4", "KANSCOPE_MONITOR_SHARE": "0", "KANSCOPE_MONITOR_SECONDS": "0.2"}
    found, drifts = [], []
    for number, workers in enumerate((1, 4)):
        with run_process(
            tmp_path / f"{number}", folder / "two.safetensors", "--workers", workers, **settings
        ) as process:
            receipts = []
            for body in bodies:
                receipts += on_new_connection(process, "POST", f"{PATH}:predict", json=body).json()["receipts"]
            for at in range(0, N_REQUESTS, 3):
                outcomes = [{"receipt": one, "values": {"a+1": float(at)}} for one in receipts[at : at + 3]]
                answer = on_new_connection(process, "POST", f"{PATH}:outcomes", json={"outcomes": outcomes})
                assert answer.json()["matched"] == 3, answer.text
            poll(lambda process=process: is_counted(process))
            found.append(counters(process))
            drifts.append([on_new_connection(process, "GET", f"{PATH}/drift").json() for _ in range(3)])
    one, four = found
    assert one.keys() == four.keys() and len(one) > 100
    for key, value in one.items():
        assert four[key] == pytest.approx(value, rel=1e-12), key
    for drift in (*drifts[0], *drifts[1]):
        assert drift["forecasts"] == drift["errors"]["known"] == N_REQUESTS
        for mine, theirs in zip(drift["inputs"], drifts[0][0]["inputs"], strict=True):
            assert mine["psi"] == theirs["psi"] and mine["shift"] == pytest.approx(theirs["shift"])


@pytest.mark.thorough("starts two servers")
def test_a_killed_process_loses_at_most_what_it_had_not_written(launch: Callable[..., Any], folder, tmp_path, bodies):
    """What is older is in the file, and outcomes of its forecasts count in the next process, with the same key."""
    settings = {"KANSCOPE_MONITOR": str(tmp_path / "monitor"), "KANSCOPE_RECEIPT_KEY": "k" * 32}
    with launch(folder / "two.safetensors", **settings) as process:
        answers = [process.client.post(f"{PATH}:predict", json=body).json() for body in bodies]
        assert process.client.get(f"{PATH}/drift").json()["forecasts"] == N_REQUESTS  # it writes what waits
        for body in bodies[:10]:
            process.client.post(f"{PATH}:predict", json=body)
        process.popen.kill()
        process.popen.wait()
    with launch(folder / "two.safetensors", **settings) as process:
        found = process.client.get(f"{PATH}/drift").json()
        assert N_REQUESTS <= found["forecasts"] <= N_REQUESTS + 10
        outcomes = [{"receipt": answer["receipts"][0], "values": {"a+1": 0.0}} for answer in answers]
        answer = process.client.post(f"{PATH}:outcomes", json={"outcomes": outcomes}).json()
        assert (answer["matched"], answer["unknown"], answer["repeated"]) == (N_REQUESTS, 0, 0)
