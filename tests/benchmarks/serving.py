"""The service beside the app that a user would write, each in one process on the same core, the client on another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread

import numpy as np
from load import Load, get, keep_busy, post
from models import NAME, large_model, save_large_model
from servers import CLIENT_CORE, Server, finish_background, get_status, our_server, peer_server, pin, resident_memory
from table import Row, milliseconds

from kanmodel.checkpoint import LoadedModel
from service.models.repository import BUNDLED

DURATION, WARM_UP = 4.0, 1.0  # seconds
BUNDLED_NAME = "nyc-weather"
STYLES = ("threads", "coroutine")  # of the peer's operations: the faster one counts
EXPLAINED = 32  # windows of the explanations that run beside forecasts


def rows() -> Iterator[Row]:
    """Requests to a model of the size that people forecast with; then what the bundled one takes and answers."""
    pin(0, CLIENT_CORE)
    try:
        with tempfile.TemporaryDirectory() as folder, peer_server(save_large_model(Path(folder))) as peer:
            with our_server(Path(folder)) as ours:
                finish_background(ours.port, NAME)
                yield from request_rows(ours, peer, large_model())
            with our_server(BUNDLED) as bundled:
                finish_background(bundled.port, BUNDLED_NAME)
                yield Row("start of the process until ready, bundled model", f"{bundled.start:.2f} s")
                yield from cached_rows(bundled, peer)
                yield memory_row(bundled)
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def memory_row(server: Server) -> Row:
    """Resident memory beside that of a process which has imported torch and nothing else."""
    code = "import sys, torch; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as empty:
        assert empty.stdout is not None
        empty.stdout.readline()
        bare = resident_memory(empty.pid)
        empty.kill()
    used = server.memory()
    return Row(
        "memory, bundled model",
        f"{used:.0f} MB",
        f"a process that imported torch: {bare:.0f} MB",
        f"+{used - bare:.0f} MB",
    )


def request_rows(ours: Server, peer: Server, model: LoadedModel) -> Iterator[Row]:
    """Requests of the same windows to both."""
    original = model.scaling.features_to_original(model.reference.windows).round(6)
    bodies = {n: [json.dumps({"instances": original[i : i + n].tolist()}).encode() for i in range(64)] for n in (1, 32)}
    path = f"/v1/models/{NAME}"
    for verb, n, connections in (("predict", 1, 1), ("predict", 1, 64), ("predict", 32, 8), ("explain", 1, 1)):
        load, cpu = measure(ours, [post(f"{path}:{verb}", body) for body in bodies[n]], connections)
        peers = [measure(peer, [post(f"/{style}/{verb}", body) for body in bodies[n]], connections) for style in STYLES]
        peer_load, peer_cpu = max(peers, key=lambda measured: measured[0].rate)
        work = f":{verb} of {n} window{'s' if n > 1 else ''}, {connections} connection{'s' if connections > 1 else ''}"
        beside = "FastAPI + torch + Captum, 50 steps" if verb == "explain" else "FastAPI + torch"
        yield Row(work, told(load), f"{beside}: {told(peer_load)}", f"{load.rate / peer_load.rate:.1f}x")
        if connections == 64:
            yield Row(
                f"processor time of the server per request of {work}",
                f"{cpu * 1e3:.2f} ms",
                f"{beside}: {peer_cpu * 1e3:.2f} ms",
                f"{peer_cpu / cpu:.1f}x",
            )
    yield fairness_row(ours, path, bodies)


def cached_rows(ours: Server, peer: Server) -> Iterator[Row]:
    """What stays the same, beside a route that answers `{}`."""
    empty, _ = measure(peer, [get("/empty")], 64)
    for resource in ("topology", "edges", "attributions", "report"):
        path = f"/v1/models/{BUNDLED_NAME}/{resource}"
        if get_status(ours.port, path) != 200:
            raise RuntimeError(f"there is no {path}")
        load, _ = measure(ours, [get(path)], 64)
        work = f"GET {resource}, cached, 64 connections"
        yield Row(work, told(load), f"an empty FastAPI route: {told(empty)}", f"{load.rate / empty.rate:.0%}")


def fairness_row(ours: Server, path: str, bodies: dict[int, list[bytes]]) -> Row:
    """Forecasts while one connection has windows explained without pause, beside forecasts alone."""
    predict = [post(f"{path}:predict", body) for body in bodies[1]]
    alone, _ = measure(ours, predict, 64)
    explain = [post(f"{path}:explain", bodies[EXPLAINED][0])]
    explaining = Thread(target=keep_busy, args=(ours.port, explain, 1, WARM_UP + DURATION + 1))
    explaining.start()
    beside, _ = measure(ours, predict, 64)
    explaining.join()
    ratio = np.percentile(beside.seconds, 99) / np.percentile(alone.seconds, 99)
    work = f":predict of 1 window, 64 connections, while {EXPLAINED} windows are explained without pause"
    return Row(work, told(beside), f"without: {told(alone)}", f"p99 {ratio:.1f}x")


def measure(server: Server, requests: Sequence[bytes], connections: int) -> tuple[Load, float]:
    """What came of requests for some seconds, and the processor time of the server for each."""
    keep_busy(server.port, requests, connections, WARM_UP)
    before = server.cpu_seconds()
    load = keep_busy(server.port, requests, connections, DURATION)
    return load, (server.cpu_seconds() - before) / len(load.seconds)


def told(load: Load) -> str:
    """Requests a second, the median and the 99th percentile."""
    return f"{load.rate:.0f}/s, {milliseconds(load.seconds)}"
