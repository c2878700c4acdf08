"""The service compared with its alternatives, each in one process on the same core, with the client on another.

python tests/benchmarks/serving.py
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from shutil import which
from statistics import median
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import polars
import torch
from captum.attr import IntegratedGradients
from explanations import STEPS
from load import drive, get, keep_busy, post, post_windows
from models import LARGE, NAME, large_model, original_windows, save_large_model, small_models
from servers import (
    CLIENT_CORE,
    DURATION,
    WARM_UP,
    Measured,
    Server,
    finish_background,
    free_server,
    get_status,
    measure,
    other_server,
    our_server,
    pin,
    read_gauge,
)
from table import Row, name_model, print_table, times_in_turn

from kanmodel.attribution.baseline import Baseline, baseline_windows
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from service.models.repository import BUNDLED

ROUNDS = 3  # rounds in which all servers take turns; the median counts
BUNDLED_NAME = "nyc-weather"
STYLES = ("threads", "coroutine")  # variants of the hand-written operations
PEERS = Path(__file__).parents[2] / ".venv" / "peers" / "bin" / "python"
LIMIT = "the limit"  # a bound, not a peer
N_BODIES = 64
EXPLAINED = 32  # windows of the concurrent explanations
N_WEEK, LOOKBACK = 168, 24  # windows of a series, and their steps


class Work(NamedTuple):
    """What is asked of all servers."""

    verb: str
    windows: int  # of a request
    connections: int

    def __str__(self) -> str:
        return f":{self.verb} of {_count(self.windows, 'window')}, {_count(self.connections, 'connection')}"


ONE_PROCESS = (
    *(Work("predict", 1, 1), Work("predict", 1, 64), Work("predict", EXPLAINED, 8), Work("predict", EXPLAINED, 64)),
    *(Work("explain", 1, 1), Work("explain", 1, 8), Work("explain", EXPLAINED, 1)),
)
TWO_PROCESSES = (Work("predict", 1, 64), Work("predict", EXPLAINED, 8), Work("explain", 1, 8))


@dataclass(frozen=True, eq=False)
class Contender:
    """A server with the format of its requests and responses.

    Attributes:
        name: in the table.
        server: the server.
        paths: of its operations, by verb.
        body: encodes windows as a request's body, for a verb.
        read: decodes the forecasts of a response.
    """

    name: str
    server: Server
    paths: Mapping[str, str]
    body: Callable[[np.ndarray, str], dict[str, Any]] = lambda windows, _: {"instances": windows.tolist()}
    read: Callable[[dict[str, Any]], Any] = lambda answer: answer["predictions"]

    def requests(self, windows: np.ndarray, work: Work) -> list[bytes]:
        """Requests of so many windows each, all different."""
        bodies = [self.body(windows[i : i + work.windows], work.verb) for i in range(N_BODIES)]
        return [post(self.paths[work.verb], json.dumps(body).encode()) for body in bodies]

    def check(self, windows: np.ndarray, expected: np.ndarray) -> None:
        """Raises if a response differs from the model's forecasts."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=120)
        for i in range(N_BODIES):
            body = json.dumps(self.body(windows[i : i + 1], "predict"))
            connection.request("POST", self.paths["predict"], body, {"Content-Type": "application/json"})
            found = np.array(self.read(json.loads(connection.getresponse().read())), dtype=float).reshape(1, -1)
            np.testing.assert_allclose(found, expected[i : i + 1], rtol=1e-4, atol=1e-5)
        connection.close()


def rows() -> Iterator[Row]:
    """Requests to a model of realistic size, then to small ones and the bundled one, which each row names."""
    pin(0, CLIENT_CORE)
    try:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = save_large_model(Path(folder))
            with other_server("peer.py", checkpoint, "/empty") as by_hand:
                yield from name_model(LARGE, large_model_rows(checkpoint, by_hand))
                yield from small_model_rows()
                yield from name_model("bundled model", bundled_model_rows(by_hand))
    finally:
        pin(0, None)


def large_model_rows(checkpoint: Path, by_hand: Server) -> Iterator[Row]:
    """All servers with the same model: rates, start and memory, other forms of a request, and several processes."""
    model = large_model()
    windows = original_windows(model)
    yield from first_rows(checkpoint, windows)
    with ExitStack() as stack:
        ours = stack.enter_context(our_server(checkpoint.parent))
        finish_background(ours.port, NAME)
        contenders = [
            _kanscope(ours),
            *(
                Contender(f"FastAPI ({style})", by_hand, {v: f"/{style}/{v}" for v in ("predict", "explain")})
                for style in STYLES
            ),
            *_start_others(stack, checkpoint, 1),
            Contender(LIMIT, stack.enter_context(other_server("limit.py", checkpoint, "/")), {"predict": "/"}),
        ]
        for one in contenders:
            one.check(windows, model.predict(windows))
        alone = {}
        for work in ONE_PROCESS:
            alone[work] = compare(contenders, work, windows)
            yield rate_row(str(work), alone[work])
        yield from footprint_rows(contenders)
        yield from form_rows(ours, windows)
        yield fairness_row(ours, windows)
        yield from two_process_rows(checkpoint, windows, alone)


def bundled_model_rows(by_hand: Server) -> Iterator[Row]:
    """The start, a week as a series, and answers from the cache."""
    with our_server(BUNDLED) as bundled:
        finish_background(bundled.port, BUNDLED_NAME)
        yield Row("start of the process until ready", f"{bundled.start:.2f} s")
        yield from series_rows(bundled)
        yield from cached_rows(bundled, by_hand)


def _kanscope(server: Server) -> Contender:
    return Contender("Kanscope", server, {verb: f"/v1/models/{NAME}:{verb}" for verb in ("predict", "explain")})


def _start_others(stack: ExitStack, checkpoint: Path, workers: int) -> Iterator[Contender]:
    """The servers with environments of their own, if installed."""
    if not PEERS.exists():
        return
    kserve = stack.enter_context(other_server("peer_kserve.py", checkpoint, "/v2/health/ready", PEERS, workers))
    yield Contender("KServe", kserve, {"predict": f"/v1/models/{NAME}:predict"})
    if workers == 1:
        mlserver = stack.enter_context(other_server("peer_mlserver.py", checkpoint, "/v2/health/ready", PEERS))
        yield Contender("MLServer", mlserver, {"predict": f"/v2/models/{NAME}/infer"}, _as_tensors, _read_tensors)
    if which("java"):
        torchserve = stack.enter_context(other_server("peer_torchserve.py", checkpoint, "/ping", PEERS, workers))
        wait_for_worker(torchserve)
        path = f"/predictions/{NAME}"
        yield Contender("TorchServe", torchserve, {"predict": path, "explain": path}, _with_verb)


def _as_tensors(windows: np.ndarray, _: str) -> dict[str, Any]:
    tensor = {"name": "windows", "shape": windows.shape, "datatype": "FP64", "data": windows.ravel().tolist()}
    return {"inputs": [tensor]}


def _read_tensors(answer: dict[str, Any]) -> Any:
    return answer["outputs"][0]["data"]


def _with_verb(windows: np.ndarray, verb: str) -> dict[str, Any]:
    return {"instances": windows.tolist(), "explain": verb == "explain"}


def compare(contenders: Sequence[Contender], work: Work, windows: np.ndarray) -> dict[str, Measured]:
    """The same windows to all servers that do such work, in turn."""
    requests = {one: one.requests(windows, work) for one in contenders if work.verb in one.paths}
    longer = 2 if work.windows * work.connections > 1000 else 1  # for the slowest to answer each connection
    for one, of_one in requests.items():
        drive(one.server.port, of_one, work.connections, longer * WARM_UP)
    rounds = [
        {
            one.name: measure(one.server, of_one, work.connections, longer * DURATION, warm_up=0)
            for one, of_one in requests.items()
        }
        for _ in range(ROUNDS)
    ]
    return {name: summarize([of[name] for of in rounds]) for name in rounds[0]}


def rate_row(work: str, found: Mapping[str, Measured], alone: Mapping[str, Measured] | None = None) -> Row:
    """Kanscope beside the peer that answers most requests; the others by their rates. `alone` are single processes."""

    def tell(name: str) -> str:
        gain = f", {found[name].load.rate / alone[name].load.rate:.2f} times one process" if alone else ""
        return f"{found[name]}{gain}"

    ours, *others = found
    peers = sorted((name for name in others if name != LIMIT), key=lambda name: -found[name].load.rate)
    if not peers:
        return Row(work, tell(ours))
    (best, *rest), one = peers, found[ours]
    peer = found[best]
    rates = "; ".join(f"{name}: {found[name].load.rate:.4g}/s" for name in (*rest, *{LIMIT} & {*others}))
    ratio = f"{one.load.rate / peer.load.rate:.1f}x, p99 {peer.load.p99 / one.load.p99:.1f}x, "
    ratio += f"processor {peer.cpu / one.cpu:.1f}x"
    return Row(work, tell(ours), f"{best}: {tell(best)}{'; ' if rates else ''}{rates}", ratio)


def two_process_rows(
    checkpoint: Path, windows: np.ndarray, alone: Mapping[Work, Mapping[str, Measured]]
) -> Iterator[Row]:
    """Two processes of each server on both cores, shared with the client."""
    pin(0, None)
    with ExitStack() as stack:
        ours = stack.enter_context(free_server(checkpoint.parent, 2))
        finish_background(ours.port, NAME, 2)
        contenders = [_kanscope(ours), *_start_others(stack, checkpoint, 2)]
        for work in TWO_PROCESSES:
            yield rate_row(f"{work}, 2 processes", compare(contenders, work, windows), alone[work])
    pin(0, CLIENT_CORE)


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
        "instances": post_windows(f"/v1/models/{NAME}:predict", windows, EXPLAINED, N_BODIES),
        "FP64": [_post_binary(part, "FP64") for part in parts],
        "FP32": [_post_binary(part.astype(np.float32), "FP32") for part in parts],
    }
    found = {form: measure(ours, of, 8) for form, of in requests.items()}
    for form in ("FP64", "FP32"):
        ratio = f"processor {found['instances'].cpu / found[form].cpu:.1f}x"
        work = f"infer of {EXPLAINED} windows as binary {form}, 8 connections"
        yield Row(work, str(found[form]), f"instances: {found['instances']}", ratio)


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
                windows = original_windows(model)
                requests = post_windows(f"/v1/models/{name}:explain", windows, EXPLAINED, N_BODIES)
                measured = measure(server, requests, 1)
                attribute = IntegratedGradients(lambda x, model=model: model.network(x)[:, 0]).attribute
                start = model.to_model_units(baseline_windows(model, Baseline()))
                scaled = model.to_model_units(windows[:EXPLAINED])
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
    predict = post_windows(f"{path}:predict", windows, 1, N_BODIES)
    alone = measure(ours, predict, 64).load
    explain = post_windows(f"{path}:explain", windows, EXPLAINED, 1)
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
        cpu = {form: measure(ours, of, 1).cpu * len(of) * 1e3 for form, of in requests.items()}
        yield Row(
            f":{verb} of {N_WEEK} windows of {LOOKBACK} steps as a series of {len(rows)} rows, 1 connection",
            f"{cpu['series']:.1f} ms of the processor, {len(requests['series'][0]) / 1e3:.0f} kB",
            f"in one request: {cpu['instances']:.1f} ms, {len(requests['instances'][0]) / 1e3:.0f} kB; "
            f"in {N_WEEK} requests: {cpu['apart']:.1f} ms",
            f"{cpu['instances'] / cpu['series']:.1f}x; {cpu['apart'] / cpu['series']:.1f}x",
        )


def footprint_rows(contenders: Sequence[Contender]) -> Iterator[Row]:
    """Start and memory of each server with the same model, after the load."""
    ours, *others = {one.server.pid: one for one in contenders}.values()
    started = [one for one in others if one.name != "TorchServe"]  # it is ready before its worker is
    for work, among, unit, figure in (
        ("start of the process until ready", started, "s", lambda server: server.start),
        ("processor time of the start until ready", started, "s", lambda server: server.start_cpu),
        ("memory (PSS)", others, "MB", lambda server: server.memory()),
    ):
        found = {one.name: figure(one.server) for one in (ours, *among)}
        best, *rest = sorted({*found} - {ours.name, LIMIT}, key=found.__getitem__)
        digits = 0 if unit == "MB" else 2
        told = {name: f"{value:.{digits}f} {unit}" for name, value in found.items()}
        beside = "; ".join(f"{name}: {told[name]}" for name in (best, *rest, LIMIT))
        yield Row(work, told[ours.name], beside, f"{found[best] / found[ours.name]:.2f}x")


def first_rows(checkpoint: Path, windows: np.ndarray) -> Iterator[Row]:
    """Requests in the first seconds after a start, while results are computed in advance, beside the same later."""
    kinds = [("predict", 1), ("predict", 64), ("explain", 1)]
    requests = {verb: post_windows(f"/v1/models/{NAME}:{verb}", windows, 1, N_BODIES) for verb, _ in kinds}
    with our_server(checkpoint.parent) as server:
        first = [measure(server, requests[verb], connections) for verb, connections in kinds]
        if read_gauge(server.port, "kanscope_unprepared_outputs") == 0:
            raise RuntimeError("the results were computed before the end of what was measured beside them")
        finish_background(server.port, NAME)
        later = [measure(server, requests[verb], connections) for verb, connections in kinds]
    for (verb, connections), one, other in zip(kinds, first, later, strict=True):
        ratio = f"{one.load.rate / other.load.rate:.2f}x, processor {other.cpu / one.cpu:.2f}x"
        yield Row(
            f"{Work(verb, 1, connections)}, in the first 10 s after the start", str(one), f"later: {other}", ratio
        )


def cached_rows(ours: Server, peer: Server) -> Iterator[Row]:
    """Cached responses, beside a route that returns `{}`."""
    empty = measure(peer, [get("/empty")], 64)
    for resource in ("topology", "edges", "attributions", "report"):
        path = f"/v1/models/{BUNDLED_NAME}/{resource}"
        if get_status(ours.port, path) != 200:
            raise RuntimeError(f"there is no {path}")
        found = {"Kanscope": measure(ours, [get(path)], 64), "an empty FastAPI route": empty}
        yield rate_row(f"GET {resource}, cached, 64 connections", found)


def summarize(runs: Sequence[Measured]) -> Measured:
    """The medians of several rounds."""
    ordered = sorted((run.load for run in runs), key=lambda load: load.rate)
    return Measured(ordered[len(ordered) // 2], median(run.cpu for run in runs))


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n > 1 else ''}"


if __name__ == "__main__":
    print_table(rows())
