"""The service compared with its alternatives, each in one process on the same core, with the client on another.

python tests/benchmarks/serving.py
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from shutil import which
from statistics import median
from threading import Thread
from typing import Any

import numpy as np
import polars
import torch
from captum.attr import IntegratedGradients
from explanations import STEPS
from load import Load, drive, get, keep_busy, post
from models import NAME, large_model, save_large_model, small_models
from servers import (
    CLIENT_CORE,
    Server,
    finish_background,
    free_server,
    get_status,
    other_server,
    our_server,
    pin,
    read_gauge,
)
from table import Row, print_table, times_in_turn

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.explain.baseline import Baseline, baseline_windows
from service.models.repository import BUNDLED

DURATION, WARM_UP = 4.0, 1.0  # seconds
ROUNDS = 3  # rounds in which all servers take turns; the median counts
BUNDLED_NAME = "nyc-weather"
STYLES = ("threads", "coroutine")  # variants of the hand-written operations, of which the faster counts
PEERS = Path(__file__).parents[2] / ".venv" / "peers" / "bin" / "python"
WORK = ((1, 1), (1, 8), (1, 64), (32, 1), (32, 8))  # windows, connections
WORK_OF_TWO = ((1, 64), (32, 8))  # the same for servers with two processes
N_BODIES = 64
EXPLAINED = 32  # windows of the concurrent explanations
N_WEEK, LOOKBACK = 168, 24  # windows of a series, and their steps


@dataclass(frozen=True)
class Contender:
    """A server with the format of its requests and responses.

    Attributes:
        name: in the table.
        server: the server.
        path: of the operation.
        body: encodes windows as a request's body.
        read: decodes the forecasts of a response.
    """

    name: str
    server: Server
    path: str
    body: Callable[[np.ndarray], dict[str, Any]] = lambda windows: {"instances": windows.tolist()}
    read: Callable[[dict[str, Any]], Any] = lambda answer: answer["predictions"]

    def requests(self, windows: np.ndarray, n: int) -> list[bytes]:
        """Requests of n windows each, all different."""
        return [post(self.path, json.dumps(self.body(windows[i : i + n])).encode()) for i in range(N_BODIES)]

    def check(self, windows: np.ndarray, n: int, expected: np.ndarray) -> None:
        """Raises if a response differs from the model's forecasts."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        for i in range(N_BODIES):
            body = json.dumps(self.body(windows[i : i + n]))
            connection.request("POST", self.path, body, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            found = np.array(self.read(answer), dtype=float).reshape(n, -1)
            np.testing.assert_allclose(found, expected[i : i + n], rtol=1e-4, atol=1e-5)
        connection.close()


@dataclass(frozen=True)
class Measured:
    """The medians of all rounds.

    Attributes:
        load: of the round with the median rate.
        cpu: processor seconds of the server per request.
    """

    load: Load
    cpu: float


def rows() -> Iterator[Row]:
    """Requests to a model of realistic size, then to the bundled one."""
    pin(0, CLIENT_CORE)
    try:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            checkpoint, model = save_large_model(Path(folder)), large_model()
            ours = stack.enter_context(our_server(Path(folder)))
            finish_background(ours.port, NAME)
            by_hand = stack.enter_context(other_server("peer.py", checkpoint, "/empty"))
            others = list(_start_others(stack, checkpoint))
            contenders = [
                Contender("Kanscope", ours, f"/v1/models/{NAME}:predict"),
                *(Contender(f"FastAPI + torch ({style})", by_hand, f"/{style}/predict") for style in STYLES),
                *others,
            ]
            windows = model.scaling.features_to_original(model.reference.windows).round(6)
            yield from forecast_rows(contenders, windows, model.predict(windows))
            yield from form_rows(ours, windows)
            yield from explanation_rows(ours, by_hand, windows)
            yield fairness_row(ours, windows)
            yield from two_process_rows(checkpoint, windows, model.predict(windows))
            yield from small_model_rows()
            yield from footprint_rows(contenders)
            yield from first_rows(checkpoint, windows)
            with our_server(BUNDLED) as bundled:
                finish_background(bundled.port, BUNDLED_NAME)
                yield Row("start of the process until ready, bundled model", f"{bundled.start:.2f} s")
                yield from series_rows(bundled)
                yield from cached_rows(bundled, by_hand)
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _start_others(stack: ExitStack, checkpoint: Path) -> Iterator[Contender]:
    """The servers with environments of their own, if installed, and the lower bound."""
    if PEERS.exists():
        kserve = stack.enter_context(other_server("peer_kserve.py", checkpoint, "/v2/health/ready", PEERS))
        yield Contender("KServe", kserve, f"/v1/models/{NAME}:predict")
        mlserver = stack.enter_context(other_server("peer_mlserver.py", checkpoint, "/v2/health/ready", PEERS))
        yield Contender("MLServer", mlserver, f"/v2/models/{NAME}/infer", _as_tensors, _read_tensors)
        if which("java"):
            torchserve = stack.enter_context(other_server("peer_torchserve.py", checkpoint, "/ping", PEERS))
            wait_for_worker(torchserve)
            yield Contender("TorchServe", torchserve, f"/predictions/{NAME}")
    limit = stack.enter_context(other_server("limit.py", checkpoint, "/"))
    yield Contender("the limit", limit, "/")


def _as_tensors(windows: np.ndarray) -> dict[str, Any]:
    tensor = {"name": "windows", "shape": windows.shape, "datatype": "FP64", "data": windows.ravel().tolist()}
    return {"inputs": [tensor]}


def _read_tensors(answer: dict[str, Any]) -> Any:
    return answer["outputs"][0]["data"]


def forecast_rows(
    contenders: Sequence[Contender],
    windows: np.ndarray,
    expected: np.ndarray,
    kinds: Sequence[tuple[int, int]] = WORK,
    note: str = "",
) -> Iterator[Row]:
    """The same windows to all servers in turn, as each row notes."""
    for n, connections in kinds:
        for one in contenders:
            one.check(windows, n, expected)
        runs: dict[str, list[Measured]] = {one.name: [] for one in contenders}
        requests = {one.name: one.requests(windows, n) for one in contenders}
        for _ in range(ROUNDS):
            for one in contenders:
                runs[one.name].append(measure(one.server, requests[one.name], connections))
        ours, *others = ((name, summarize(measured)) for name, measured in runs.items())
        work = f":predict of {_count(n, 'window')}, {_count(connections, 'connection')}{note}"
        for name, other in others:
            ratio = f"{ours[1].load.rate / other.load.rate:.2f}x"
            yield Row(work, str(ours[1].load), f"{name}: {other.load}", ratio)
        if connections == max(connections for _, connections in kinds):
            for name, other in others:
                told = f"{ours[1].cpu * 1e3:.3f} ms"
                beside = f"{name}: {other.cpu * 1e3:.3f} ms"
                yield Row(f"processor time of the server, {work}", told, beside, f"{other.cpu / ours[1].cpu:.2f}x")


def two_process_rows(checkpoint: Path, windows: np.ndarray, expected: np.ndarray) -> Iterator[Row]:
    """Two processes per server on both cores, shared with the client."""
    if not PEERS.exists():
        return
    with (
        free_server(checkpoint.parent, 2, 1) as ours,
        other_server("peer_kserve.py", checkpoint, "/v2/health/ready", PEERS, 2) as kserve,
        other_server("peer_torchserve.py", checkpoint, "/ping", PEERS, 2) if which("java") else nullcontext() as torch_,
    ):
        finish_background(ours.port, NAME)
        contenders = [
            Contender("Kanscope", ours, f"/v1/models/{NAME}:predict"),
            Contender("KServe, two workers", kserve, f"/v1/models/{NAME}:predict"),
        ]
        if torch_:
            wait_for_worker(torch_)
            contenders.append(Contender("TorchServe, two workers", torch_, f"/predictions/{NAME}"))
        yield from forecast_rows(contenders, windows, expected, WORK_OF_TWO, ", two processes")


def wait_for_worker(server: Server) -> None:
    """Waits until a worker answers, as TorchServe reports that it is ready before its workers are."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("POST", f"/predictions/{NAME}", b"{}", {"Content-Type": "application/json"})
    connection.getresponse().read()
    connection.close()


def form_rows(ours: Server, windows: np.ndarray) -> Iterator[Row]:
    """32 windows as binary tensors of the Open Inference Protocol, beside the same as JSON."""
    parts = [windows[i : i + EXPLAINED] for i in range(N_BODIES)]
    requests = {
        "instances": [
            post(f"/v1/models/{NAME}:predict", json.dumps({"instances": w.tolist()}).encode()) for w in parts
        ],
        "FP64": [_post_binary(part, "FP64") for part in parts],
        "FP32": [_post_binary(part.astype(np.float32), "FP32") for part in parts],
    }
    rounds = [{form: measure(ours, of, 8) for form, of in requests.items()} for _ in range(ROUNDS)]
    found = {form: summarize([of[form] for of in rounds]) for form in requests}
    beside = f"instances: {found['instances'].load}, {found['instances'].cpu * 1e3:.2f} ms of the processor"
    for form in ("FP64", "FP32"):
        told = f"{found[form].load}, {found[form].cpu * 1e3:.2f} ms of the processor"
        ratio = f"{found['instances'].cpu / found[form].cpu:.2f}x"
        yield Row(f"infer of {EXPLAINED} windows as binary {form}, 8 connections", told, beside, ratio)


def _post_binary(windows: np.ndarray, datatype: str) -> bytes:
    size = {"binary_data_size": windows.nbytes}
    tensor = {"name": "instances", "shape": windows.shape, "datatype": datatype, "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    request = post(f"/v2/models/{NAME}/infer", head + windows.tobytes())
    return request.replace(
        b"Content-Type: application/json",
        b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d" % len(head),
        1,
    )


def explanation_rows(ours: Server, by_hand: Server, windows: np.ndarray) -> Iterator[Row]:
    """Explanations compared with Captum's with 50 steps."""
    for n, connections in ((1, 1), (1, 8), (32, 1)):
        bodies = [json.dumps({"instances": windows[i : i + n].tolist()}).encode() for i in range(N_BODIES)]
        load = measure(ours, [post(f"/v1/models/{NAME}:explain", body) for body in bodies], connections).load
        peers = [
            measure(by_hand, [post(f"/{style}/explain", body) for body in bodies], connections) for style in STYLES
        ]
        peer = max((measured.load for measured in peers), key=lambda load: load.rate)
        work = f":explain of {_count(n, 'window')}, {_count(connections, 'connection')}"
        yield Row(work, str(load), f"FastAPI + torch + Captum, 50 steps: {peer}", f"{load.rate / peer.rate:.1f}x")


def small_model_rows() -> Iterator[Row]:
    """Explanations of 32 windows by small models over HTTP, beside Captum's with 50 steps in process."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        models = small_models()
        for name, model in models.items():
            save_checkpoint(model, Path(folder) / f"{name}.safetensors")
        with our_server(Path(folder)) as server:
            for name, model in models.items():
                finish_background(server.port, name)
                windows = model.scaling.features_to_original(model.reference.windows).round(6)
                parts = [windows[i : i + EXPLAINED] for i in range(N_BODIES)]
                requests = [
                    post(f"/v1/models/{name}:explain", json.dumps({"instances": part.tolist()}).encode())
                    for part in parts
                ]
                measured = measure(server, requests, 1)
                attribute = IntegratedGradients(lambda x, model=model: model.network(x)[:, 0]).attribute
                start = model.to_model_units(baseline_windows(model, Baseline()))
                scaled = model.to_model_units(parts[0])
                (seconds,) = times_in_turn([partial(attribute, scaled, start, n_steps=STEPS)], 20)
                yield Row(
                    f":explain of {EXPLAINED} windows, 1 connection, LSTM of {model.config.n_readout} units",
                    f"p50 {measured.load.median * 1e3:.1f} ms, of which {measured.cpu * 1e3:.1f} ms of the processor",
                    f"Captum, {STEPS} steps, in process: {np.median(seconds) * 1e3:.1f} ms",
                    f"{np.median(seconds) / measured.load.median:.1f}x",
                )


def fairness_row(ours: Server, windows: np.ndarray) -> Row:
    """Forecasts during continuous explanations on one connection, beside forecasts alone."""
    path = f"/v1/models/{NAME}"
    bodies = {n: [json.dumps({"instances": windows[i : i + n].tolist()}).encode() for i in range(64)] for n in (1, 32)}
    predict = [post(f"{path}:predict", body) for body in bodies[1]]
    alone = measure(ours, predict, 64).load
    explain = [post(f"{path}:explain", bodies[EXPLAINED][0])]
    explaining = Thread(target=keep_busy, args=(ours.port, explain, 1, WARM_UP + DURATION + 1))
    explaining.start()
    beside = measure(ours, predict, 64).load
    explaining.join()
    work = f":predict of 1 window, 64 connections, while {EXPLAINED} windows are explained without pause"
    return Row(work, str(beside), f"without: {alone}", f"p99 {beside.p99 / alone.p99:.1f}x")


def series_rows(ours: Server) -> Iterator[Row]:
    """The windows of a week as a series, beside the same windows in one request and one by one, by processor time."""
    table = polars.read_csv(BUNDLED / f"{BUNDLED_NAME}.csv.gz", infer_schema_length=None)
    table = table.filter(polars.len().over("segment") >= N_WEEK + LOOKBACK - 1)[: N_WEEK + LOOKBACK - 1]
    names = [feature.name for feature in load_checkpoint(BUNDLED / f"{BUNDLED_NAME}.safetensors").config.features]
    rows = table.select(names).to_numpy()
    windows = [rows[first : first + LOOKBACK].tolist() for first in range(N_WEEK)]
    series = {"time": table["time"].to_list(), **{name: table[name].to_list() for name in names}}
    bodies: dict[str, list[dict[str, Any]]] = {
        "series": [{"series": series}],
        "instances": [{"instances": windows}],
        "apart": [{"instances": [window]} for window in windows],
    }
    for verb in ("predict", "explain"):
        path = f"/v1/models/{BUNDLED_NAME}:{verb}"
        requests = {form: [post(path, json.dumps(body).encode()) for body in of] for form, of in bodies.items()}
        rounds = [
            {form: measure(ours, of, 1).cpu * len(of) * 1e3 for form, of in requests.items()} for _ in range(ROUNDS)
        ]
        cpu = {form: median(of[form] for of in rounds) for form in requests}
        yield Row(
            f":{verb} of {N_WEEK} windows of {LOOKBACK} steps as a series of {len(rows)} rows, 1 connection",
            f"{cpu['series']:.1f} ms of the processor, {len(requests['series'][0]) / 1e3:.0f} kB",
            f"in one request: {cpu['instances']:.1f} ms, {len(requests['instances'][0]) / 1e3:.0f} kB; "
            f"in {N_WEEK} requests: {cpu['apart']:.1f} ms",
            f"{cpu['instances'] / cpu['series']:.1f}x; {cpu['apart'] / cpu['series']:.1f}x",
        )


def footprint_rows(contenders: Sequence[Contender]) -> Iterator[Row]:
    """Start time and memory of each server with the same model, after the load."""
    ours, *others = {one.server.pid: one for one in contenders}.values()
    for other in others:
        if other.name == "TorchServe":
            continue  # it reports that it is ready before its worker is
        work, beside = "start of the process until ready", other.server.start
        yield Row(
            work, f"{ours.server.start:.2f} s", f"{other.name}: {beside:.2f} s", f"{beside / ours.server.start:.1f}x"
        )
        told, beside = f"{ours.server.start_cpu:.2f} s", f"{other.name}: {other.server.start_cpu:.2f} s"
        ratio = f"{other.server.start_cpu / ours.server.start_cpu:.2f}x"
        yield Row("processor time of the start until ready", told, beside, ratio)
    for other in others:
        held, beside = ours.server.memory(), other.server.memory()
        yield Row("memory (PSS)", f"{held:.0f} MB", f"{other.name}: {beside:.0f} MB", f"{beside / held:.1f}x")


def first_rows(checkpoint: Path, windows: np.ndarray) -> Iterator[Row]:
    """Requests in the first seconds after a start, while results are computed in advance, beside the same later."""
    bodies = [json.dumps({"instances": windows[i : i + 1].tolist()}).encode() for i in range(N_BODIES)]
    kinds = [("predict", 1), ("predict", 64), ("explain", 1)]
    requests = {verb: [post(f"/v1/models/{NAME}:{verb}", body) for body in bodies] for verb in ("predict", "explain")}
    with our_server(checkpoint.parent) as server:
        first = [measure(server, requests[verb], connections) for verb, connections in kinds]
        if read_gauge(server.port, "kanscope_unprepared_outputs") == 0:
            raise RuntimeError("the results were computed before the end of what was measured beside them")
        finish_background(server.port, NAME)
        later = [measure(server, requests[verb], connections) for verb, connections in kinds]
    for (verb, connections), one, other in zip(kinds, first, later, strict=True):
        work = f":{verb} of 1 window, {_count(connections, 'connection')}, in the first 15 s after the start"
        yield Row(work, str(one.load), f"later: {other.load}", f"{one.load.rate / other.load.rate:.2f}x")
        told, beside = f"{one.cpu * 1e3:.3f} ms", f"later: {other.cpu * 1e3:.3f} ms"
        yield Row(f"processor time of the server, {work}", told, beside, f"{other.cpu / one.cpu:.2f}x")


def cached_rows(ours: Server, peer: Server) -> Iterator[Row]:
    """Cached responses, beside a route that returns `{}`."""
    empty = measure(peer, [get("/empty")], 64).load
    for resource in ("topology", "edges", "attributions", "report"):
        path = f"/v1/models/{BUNDLED_NAME}/{resource}"
        if get_status(ours.port, path) != 200:
            raise RuntimeError(f"there is no {path}")
        load = measure(ours, [get(path)], 64).load
        work = f"GET {resource}, cached, 64 connections"
        yield Row(work, str(load), f"an empty FastAPI route: {empty}", f"{load.rate / empty.rate:.0%}")


def measure(server: Server, requests: Sequence[bytes], connections: int) -> Measured:
    """Load for some seconds, with the server's processor time per request."""
    drive(server.port, requests, connections, WARM_UP)
    before = server.cpu_seconds()
    load = drive(server.port, requests, connections, DURATION)
    return Measured(load, (server.cpu_seconds() - before) / load.n_requests)


def summarize(runs: Sequence[Measured]) -> Measured:
    """The medians of several rounds."""
    ordered = sorted((run.load for run in runs), key=lambda load: load.rate)
    return Measured(ordered[len(ordered) // 2], median(run.cpu for run in runs))


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n > 1 else ''}"


if __name__ == "__main__":
    print_table(rows())
