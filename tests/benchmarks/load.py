"""A client that keeps a number of connections busy, each with one request at a time."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np


@dataclass(frozen=True)
class Load:
    """What came of it.

    Attributes:
        seconds: of each request, from its first byte out to its last byte in.
        rate: requests a second, all connections together.
    """

    seconds: np.ndarray
    rate: float


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
        """Whether the answer is there; reads what has arrived, and has the whole of it checked."""
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


def get(path: str) -> bytes:
    """A request without a body, whose answer may be compressed, as clients ask for it."""
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
        requests: what to send; connection number c sends number c, and again.
        connections: how many are kept busy.
        duration: seconds.
        check: given each request and the body of its answer; raises where that is wrong.
    """
    seconds: list[float] = []
    with selectors.DefaultSelector() as selector:
        opened = []
        for number in range(connections):
            connected = socket.create_connection(("127.0.0.1", port))
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(connected, requests[number % len(requests)])
            selector.register(connected, selectors.EVENT_READ, connection)
            opened.append(connection)
        start = perf_counter()
        for connection in opened:
            connection.send()
        while (now := perf_counter()) < start + duration:
            for key, _ in selector.select(1.0):
                connection = key.data
                if connection.complete(check):
                    seconds.append(perf_counter() - connection.started)
                    connection.send()
        for connection in opened:
            connection.socket.close()
    return Load(np.array(seconds), len(seconds) / (now - start))
