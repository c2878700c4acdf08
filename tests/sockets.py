"""HTTP over raw sockets, for requests that client libraries cannot send; and servers of a test's own."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from http.server import ThreadingHTTPServer
from pathlib import Path
from random import randrange
from typing import Any, get_args

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from service.compute import Kind


@contextmanager
def serving(handler: Callable[..., Any]) -> Iterator[str]:
    """The URL of a server on this machine, each of whose connections has a thread and a handler of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def free_port() -> int:
    """A port that nothing listens to, and that the system gives to no other program meanwhile."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = randrange(first // 2, first)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def connect(client: httpx2.Client) -> socket.socket:
    """A new connection to the server of a client."""
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=300)


def head(method: str, path: str, *headers: str) -> bytes:
    """A request without body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def read_answer(connection: socket.socket) -> tuple[HTTPResponse, dict[str, Any]]:
    """Reads a response and its JSON."""
    answer = HTTPResponse(connection)
    answer.begin()
    return answer, json.loads(answer.read())


def read_all(connection: socket.socket) -> bytes:
    """Reads all answers until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes the connection without sending anything."""
    return connection.recv(1) == b""


def is_at_rest(client: httpx2.Client, headers: dict[str, str] | None = None) -> bool:
    """Whether this request is the only one in flight and no work waits."""
    text = client.get("/metrics", headers=headers).text
    waiting = [sum_samples(text, "queue_depth", priority=kind) for kind in get_args(Kind)]
    return sum_samples(text, "requests_in_flight") == 1 and not any(waiting)


def pending_bytes(client: httpx2.Client, headers: dict[str, str] | None = None) -> float:
    """Bytes of the bodies and answers that requests hold."""
    return sum_samples(client.get("/metrics", headers=headers).text, "pending_bytes")


def sum_samples(text: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels in the text of ``/metrics``; only a gauge must have one."""
    families = {f"kanscope_{name.removesuffix(end)}" for end in ("_total", "_count")}
    (family,) = (one for one in text_string_to_metric_families(text) if one.name in families)
    samples = [one for one in family.samples if one.name == f"kanscope_{name}"]
    found = [one.value for one in samples if labels.items() <= one.labels.items()]
    assert found or family.type != "gauge"
    return sum(found)


async def converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, dict[str, str], Any] | None:
    """Status, headers and JSON of the response to a request; None if the connection is closed instead."""
    try:
        writer.write(request)
        received = await reader.readuntil(b"\r\n\r\n")
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        assert not getattr(error, "partial", b"")
        return None
    status, *lines = received.decode().rstrip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(status.split()[1]), headers, json.loads(body)
