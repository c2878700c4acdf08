"""Load generators: a closed loop that keeps connections busy, and an open loop that waits for no response."""

from __future__ import annotations

import json
import math
import selectors
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from random import Random
from shutil import which
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np


@dataclass(frozen=True)
class Load:
    """The results of a load.

    Attributes:
        rate: requests per second, all connections together.
        n_requests: number of responses.
        median: seconds from the first byte sent to the last byte received.
        p99: their 99th percentile.
    """

    rate: float
    n_requests: int
    median: float
    p99: float

    def __str__(self) -> str:
        return f"{self.rate:.0f}/s, p50 {self.median * 1e3:.2f} ms, p99 {self.p99 * 1e3:.2f} ms"


@dataclass
class _Connection:
    socket: socket.socket
    request: bytes
    started: float = 0.0
    received: bytes = b""

    def send(self) -> None:
        self.started, self.received = perf_counter(), b""
        self.socket.sendall(self.request)

    def complete(self, check: Callable[[bytes, bytes], None] | None) -> bool:
        """Whether the response is complete; reads what has arrived and checks a complete response."""
        arrived = self.socket.recv(1 << 20)
        if not arrived:
            raise RuntimeError("the server has closed the connection")
        self.received += arrived
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server answered {head[:80]!r} {body[:200]!r}")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        is_whole = len(body) >= int(length.split(b":")[1])
        if is_whole and check is not None:
            check(self.request, body)
        return is_whole


def post(path: str, body: bytes) -> bytes:
    """A request with a JSON body."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def post_windows(path: str, windows: np.ndarray, size: int, n: int) -> list[bytes]:
    """Different requests of so many windows each: the first of each is one later than that of the one before."""
    bodies = [json.dumps({"instances": windows[first : first + size].tolist()}).encode() for first in range(n)]
    return [post(path, body) for body in bodies]


def get(path: str) -> bytes:
    """A request without body, with compressed responses accepted, as clients do."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n\r\n".encode()


def keep_busy(
    port: int,
    requests: Sequence[bytes],
    connections: int,
    duration: float,
    check: Callable[[bytes, bytes], None] | None = None,
) -> Load:
    """Sends requests for some seconds, each connection its own in turn.

    Args:
        port: of the server on 127.0.0.1.
        requests: the requests; connection number c repeats number c.
        connections: how many are kept busy.
        duration: seconds.
        check: called with each request and the response's body; raises if it is wrong.
    """
    seconds, elapsed = repeat_requests(port, requests, connections, duration, check)
    median, p99 = np.percentile(seconds, (50, 99))
    return Load(len(seconds) / elapsed, len(seconds), float(median), float(p99))


def repeat_requests(
    port: int,
    requests: Sequence[bytes],
    connections: int,
    duration: float,
    check: Callable[[bytes, bytes], None] | None = None,
) -> tuple[list[float], float]:
    """As `keep_busy`, but returns the seconds of each request, and those that all took."""
    seconds: list[float] = []
    with selectors.DefaultSelector() as selector, _open(port, requests, connections, selector) as opened:
        start = perf_counter()
        for connection in opened:
            connection.send()
        while (now := perf_counter()) < start + duration:
            for key, _ in selector.select(1.0):
                connection = key.data
                if connection.complete(check):
                    seconds.append(perf_counter() - connection.started)
                    connection.send()
    return seconds, now - start


def offer(
    port: int, requests: Sequence[bytes], connections: int, arrivals: Sequence[float], seed: int = 0
) -> list[float]:
    """Sends requests at given times (an open loop), whether or not earlier ones have been answered.

    Each is sent when it arrives, on an idle connection chosen at random, or else as soon as one is idle.

    Args:
        port: of the server on 127.0.0.1.
        requests: sent in turn.
        connections: how many are open.
        arrivals: seconds from the start, in order.
        seed: of the choices.

    Returns:
        Seconds from each arrival, not from its sending, to its response, so that no wait is left out.
    """
    random, seconds = Random(seed), []
    # The timeout of epoll is a whole number of milliseconds.
    with selectors.SelectSelector() as selector, _open(port, requests, connections, selector) as opened:
        idle, start = [*opened], perf_counter()
        coming = ((start + arrival, request) for arrival, request in zip(arrivals, cycle(requests), strict=False))
        due, request = next(coming)
        while len(seconds) < len(arrivals):
            while idle and due <= perf_counter():
                connection = idle.pop(random.randrange(len(idle)))
                connection.request = request
                connection.send()
                connection.started = due
                due, request = next(coming, (math.inf, b""))
            wait = max(due - perf_counter(), 0.0) if idle else 1.0
            for key, _ in selector.select(min(wait, 1.0)):
                if key.data.complete(None):
                    seconds.append(perf_counter() - key.data.started)
                    idle.append(key.data)
    return seconds


@contextmanager
def _open(
    port: int, requests: Sequence[bytes], connections: int, selector: selectors.BaseSelector
) -> Iterator[list[_Connection]]:
    """Connections that the selector watches, each with one of the requests."""
    with ExitStack() as stack:
        opened = []
        for number in range(connections):
            connected = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(connected, requests[number % len(requests)])
            selector.register(connected, selectors.EVENT_READ, connection)
            opened.append(connection)
        yield opened


# The requests are sent in turn, so that a cache of responses would not help.
_SCRIPT = """
local file = io.open("{file}", "rb")
local requests = {{}}
for _, size in ipairs({{ {sizes} }}) do requests[#requests + 1] = file:read(size) end
local n = 0
request = function()
  n = n % #requests + 1
  return requests[n]
end
done = function(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print("result", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), failed)
end
"""


def drive(port: int, requests: Sequence[bytes], connections: int, duration: float) -> Load:
    """Like `keep_busy` but with wrk, if installed, as a Python client is slower than some servers.

    Connections share the requests in turn.
    """
    if which("wrk") is None:
        return keep_busy(port, requests, connections, duration)
    with TemporaryDirectory() as folder:
        file, script = Path(folder) / "requests", Path(folder) / "script.lua"
        file.write_bytes(b"".join(requests))
        script.write_text(_SCRIPT.format(file=file, sizes=", ".join(str(len(request)) for request in requests)))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{math.ceil(duration)}s", "--timeout", "30s", "-s", str(script)]
        told = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True).stdout
    result = next(line.split("\t")[1:] for line in told.splitlines() if line.startswith("result"))
    n_requests, microseconds, median, p99, failed = map(float, result)
    if failed:
        raise RuntimeError(f"{failed:.0f} of {n_requests:.0f} requests failed")
    return Load(n_requests / microseconds * 1e6, int(n_requests), median / 1e6, p99 / 1e6)
