"""The service in its own process: how soon it is ready, and how long one request takes end to end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from time import perf_counter, sleep

import numpy as np
from table import Row, milliseconds

from kanmodel.checkpoint import LoadedModel

N_REQUESTS = 500
PATIENCE = 60.0  # seconds until a server that is not ready counts as failed


def rows(model: LoadedModel, name: str) -> Iterator[Row]:
    """Start-up, and one window by :predict and :explain on one connection."""
    with running_server() as (port, seconds):
        yield Row("start of the process until ready", f"{seconds:.2f} s")
        finish_background(port, name)
        window = model.scaling.features_to_original(model.reference.windows[:1]).tolist()
        for verb, extra in (("predict", {}), ("explain", {"detail": "flow"})):
            body = json.dumps({"instances": window, **extra}).encode()
            latencies = request_seconds(port, f"/v1/models/{name}:{verb}", body)
            asked = " ".join((verb, *extra.values()))
            yield Row(f":{asked} of one window, end to end", milliseconds(latencies))


@contextmanager
def running_server() -> Iterator[tuple[int, float]]:
    """A server with the bundled model: its port, and the seconds from its start until it was ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = perf_counter()
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not is_ready(port):
            if server.poll() is not None or perf_counter() - start > PATIENCE:
                raise RuntimeError("the server did not become ready")
            sleep(0.01)
        yield port, perf_counter() - start
    finally:
        server.terminate()
        server.wait(10)


def finish_background(port: int, name: str) -> None:
    """Waits for the report, the last of what the service computes once after loading."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", f"/v1/models/{name}/report")
    if connection.getresponse().status != 200:
        raise RuntimeError("the server has no report")
    connection.close()


def is_ready(port: int) -> bool:
    """Whether GET /readyz answers 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def request_seconds(port: int, path: str, body: bytes) -> np.ndarray:
    """Seconds of each of `N_REQUESTS` requests in a row on one connection."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    seconds = []
    for _ in range(N_REQUESTS + 20):
        start = perf_counter()
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        seconds.append(perf_counter() - start)
        if response.status != 200:
            raise RuntimeError(f"{path} answered {response.status}: {answer[:200]!r}")
    connection.close()
    return np.array(seconds[20:])
