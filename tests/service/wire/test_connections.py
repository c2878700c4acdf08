"""Attacks on connections over real sockets: none holds memory, time or a connection past the limits."""

from __future__ import annotations

import asyncio
import ctypes
import json
import re
import socket
import struct
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from itertools import pairwise
from random import Random

import httpx2
import pytest
import uvicorn
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from sockets import connect, head, is_closed, read_all, read_answer, sum_samples
from thorough import examples
from waiting import poll

from service.app import create_app
from service.settings import Settings
from service.wire import connections as module
from service.wire.connections import server_options

BODY = json.dumps({"instances": [[[0.5, 1.5, 2.5, 3.5]] * 6]}).encode()  # fits model "two"
PREDICT = ("POST", "/v1/models/two:predict", "Content-Type: application/json")
CHUNKED = "Transfer-Encoding: chunked"
ANSWERED = head("GET", "/healthz", CHUNKED)  # this is answered at once, whatever follows
AWAITED = head(*PREDICT, CHUNKED)  # the body of this is awaited
MOST = 32 << 20  # bytes that fit in the buffers of the two sockets, and more
SO_ATTACH_FILTER = 26  # of Linux; Python has no name for it
KEY = "0mBq3bTzY1sD5vX8kPnR"


@pytest.fixture(scope="module")
def strict(serve, folder):
    """A server with short timeouts and small limits."""
    limits = {"max_header_bytes": 2048, "max_body_bytes": 100_000}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LINGER", 0.5)
        with serve(models=folder / "two.safetensors", header_timeout=0.5, **limits) as client:
            yield client


@pytest.fixture(scope="module")
def patient(serve, folder):
    """A server with small limits, which only bytes can reach while a test runs."""
    limits = {"max_header_bytes": 2048, "max_body_bytes": 100_000}
    timeouts = {"header_timeout": 300, "body_timeout": 300, "send_timeout": 300}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LINGER", 300.0)
        with serve(models=folder / "two.safetensors", **limits, **timeouts) as client:
            yield client


def check_flood(client, start, piece):
    """A connection ends although its client goes on sending a piece, and others are answered."""
    pieces = piece * (64 * 1024 // len(piece))
    with connect(client) as connection:
        connection.sendall(start)
        with pytest.raises(ConnectionError):
            for _ in range(MOST // len(pieces)):
                connection.sendall(pieces)
    assert client.get("/healthz").status_code == 200


def check_trickle(connection, piece=b"x"):
    """A connection ends although its client sends a piece again and again."""
    connection.settimeout(0.05)
    for _ in range(600):
        try:
            connection.sendall(piece)
            assert connection.recv(1) == b"", "there is a second answer"
        except TimeoutError:
            continue
        except ConnectionError:
            pass
        return
    raise AssertionError("the connection stays open")


FLOODS = {
    "a trailer": (b"0\r\nx: ", b"x"),
    "the name of a trailer": (b"0\r\n", b"x"),
    "trailers": (b"0\r\n", b"a:b\r\n"),
    "a chunk extension": (b"5;x=", b"x"),
    "zeros before a chunk size": (b"", b"0"),
    "chunks of one byte": (b"", b"1\r\nx\r\n"),
}


@pytest.mark.parametrize("start", [ANSWERED, AWAITED], ids=["answered", "awaited"])
@pytest.mark.parametrize("flood", FLOODS)
def test_what_frames_a_body_is_bounded(patient, flood, start):
    """Trailers, chunk extensions and chunk sizes have the limit of headers, and chunks one of their own."""
    begin, piece = FLOODS[flood]
    check_flood(patient, start + begin, piece)


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"\r\n"),
        (head("GET", "/healthz"), b"\r\n"),
        (b"GET /", b"x"),
        (b"GET /healthz HTTP/1.1\r\n", b"a:b\r\n"),
        (b"GET /healthz HTTP/1.1\r\nX: ", b"x"),
    ],
    ids=["empty lines", "empty lines after a request", "a target", "short headers", "a long header"],
)
def test_what_comes_before_a_body_is_bounded(patient, start, piece):
    """Empty lines between requests, targets and headers, short or without end, have the same limit."""
    check_flood(patient, start, piece)


@pytest.mark.parametrize("trailers", [b"x: " + b"x" * 5000, b"a:b\r\n" * 1000])
def test_large_trailers_are_refused(patient, trailers):
    """While its body is awaited, a message with large trailers gives 431, and the connection is closed."""
    with connect(patient) as connection:
        connection.sendall(head(*PREDICT, CHUNKED, "Expect: 100-continue"))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 100")
        connection.sendall(b"0\r\n" + trailers)
        answer, body = read_answer(connection)
        assert (answer.status, body["code"]) == (431, "headers_too_large")
        assert "trailers" in body["error"]
        assert "(max_header_bytes)" in body["error"]
        assert is_closed(connection)


@pytest.mark.parametrize("at_once", [True, False])
def test_trailers_are_not_headers(serve, folder, at_once):
    """Trailers are dropped: they authorize nothing, and name no request."""
    trailers = b"0\r\nAuthorization: Bearer " + KEY.encode() + b"\r\nX-Request-Id: a-trailer\r\n\r\n"
    start = head("GET", "/v1/models", CHUNKED)
    with serve(models=folder / "two.safetensors", keys=f"name read {KEY}") as client, connect(client) as connection:
        connection.sendall(start + trailers if at_once else start)
        answer, body = read_answer(connection)
        assert (answer.status, body["code"]) == (401, "key_missing")
        assert answer.headers["x-request-id"] != "a-trailer"
        connection.sendall(b"" if at_once else trailers)
        connection.sendall(head("GET", "/v1/models", f"Authorization: Bearer {KEY}"))
        assert read_answer(connection)[0].status == 200


def test_a_body_of_too_many_chunks_is_refused(patient, monkeypatch):
    """A body in more than `MAX_CHUNKS` chunks gives 413, and the connection is closed."""
    monkeypatch.setattr(module, "MAX_CHUNKS", 10)
    monkeypatch.setattr(module, "MIN_CHUNK", 1 << 30)
    with connect(patient) as connection:
        connection.sendall(AWAITED + b"1\r\n \r\n" * 11)
        answer, body = read_answer(connection)
        assert (answer.status, body["error"]) == (413, "the body has more than 10 chunks (max_body_bytes)")
        assert is_closed(connection)


def test_a_body_may_have_trailers_and_extensions(strict):
    """Small trailers and chunk extensions are allowed, and change nothing."""
    chunks = b"".join(b"%x;name=value\r\n%c\r\n" % (1, byte) for byte in BODY)  # more of these than max_header_bytes
    with connect(strict) as connection:
        for _ in range(2):
            connection.sendall(AWAITED + chunks + b"0\r\nx: y\r\n\r\n")
            answer, body = read_answer(connection)
            assert (answer.status, body["model_name"]) == (200, "two")


@pytest.mark.parametrize(
    "rest", ["Content-Length: 1000000000", CHUNKED, "Content-Length: 9999\r\nExpect: 100-continue"]
)
@pytest.mark.parametrize("piece", [b"", b"1"])
def test_an_answered_message_has_to_end(strict, rest, piece):
    """After its answer a connection has `LINGER` seconds to end its message, however it sends it."""
    with connect(strict) as connection:
        connection.sendall(head("POST", "/healthz", rest))
        assert read_answer(connection)[0].status == 405
        check_trickle(connection, piece)


@pytest.mark.parametrize("rest", ["Content-Length: 1000000000", CHUNKED])
def test_an_answered_message_has_few_bytes(patient, rest):
    """After its answer a message may have `LINGER_BODIES` times `max_body_bytes` more."""
    with connect(patient) as connection:
        connection.sendall(head("POST", "/healthz", rest))
        assert read_answer(connection)[0].status == 405
        with pytest.raises(ConnectionError):
            for _ in range(MOST >> 16):
                connection.sendall((b"8000\r\n" if rest == CHUNKED else b"") + b"x" * 0x8000 + b"\r\n")


def test_an_answered_message_gets_no_second_answer(patient):
    """What follows an answer and is not HTTP closes the connection, for the client would take an answer for another."""
    with connect(patient) as connection:
        connection.sendall(ANSWERED)
        assert read_answer(connection)[0].status == 200
        connection.sendall(b"zz\r\n")
        assert is_closed(connection)


def test_a_message_that_ends_after_its_answer_leaves_the_connection_fine(strict):
    """The connection takes the next request, and is closed if none comes."""
    with connect(strict) as connection:
        connection.sendall(head("POST", "/healthz", "Content-Length: 10"))
        assert read_answer(connection)[0].status == 405
        connection.sendall(b"x" * 10 + head("GET", "/healthz"))
        assert read_answer(connection)[0].status == 200
        connection.sendall(head("POST", "/healthz", "Content-Length: 10"))
        assert read_answer(connection)[0].status == 405
        connection.sendall(b"x" * 10)
        assert is_closed(connection)


@pytest.mark.parametrize("start", [b"", head("GET", "/healthz")], ids=["new", "kept"])
def test_empty_lines_keep_no_connection_open(strict, start):
    """Empty lines are no request: the timeout of the next head goes on."""
    with connect(strict) as connection:
        if start:
            connection.sendall(start)
            assert read_answer(connection)[0].status == 200
        check_trickle(connection, b"\r\n")


def test_a_connection_to_upgrade_is_closed(strict):
    """A request to change the protocol is answered as any other, and what follows has the timeouts of any other."""
    with connect(strict) as connection:
        connection.sendall(head("GET", "/healthz", "Connection: Upgrade", "Upgrade: websocket"))
        assert read_answer(connection)[0].status == 200
        check_trickle(connection, b"\r\n")


def test_a_thousand_requests_at_once_are_answered_in_part(patient):
    """Requests that arrive before earlier ones are answered wait, up to `MAX_PIPELINED`; then the connection ends."""
    with connect(patient) as connection:
        connection.sendall(head("GET", "/healthz") * 1000)
        received = b""
        try:
            while part := connection.recv(1 << 16):
                received += part
        except ConnectionResetError:  # by what was not read
            pass
    assert received.count(b"HTTP/1.1 200") <= module.MAX_PIPELINED + 1


def test_a_head_that_is_not_read_yet_is_not_late(serve_app, folder):
    """While earlier requests are answered, nothing is read: the head that follows them has its timeout afterwards."""
    app = create_app(Settings(models=folder / "two.safetensors", header_timeout=0.5))
    go_on, arrived = threading.Event(), []

    def wait() -> bool:
        arrived.append(1)
        return go_on.wait(300)

    app.add_api_route("/wait", wait)
    request = head("GET", "/healthz")
    with serve_app(app) as client, connect(client) as connection:
        connection.sendall(head("GET", "/wait") + request + request[:10])
        poll(lambda: len(arrived) == 1)
        for _ in range(2):
            with connect(client) as later:
                assert is_closed(later)  # by the same timeout
        connection.sendall(request[10:])
        go_on.set()
        received = b""
        while received.count(b"HTTP/1.1 200") < 3:
            part = connection.recv(1 << 16)
            assert part, received
            received += part


def drip(connection, n_bytes, seconds):
    """Reads so many bytes in every so many seconds until the connection ends; how many it read."""
    n_read, pace = 0, threading.Event()
    try:
        while part := connection.recv(n_bytes - n_read % n_bytes):
            n_read += len(part)
            pace.wait(0 if n_read % n_bytes else seconds)
    except ConnectionError:
        pass
    return n_read


@contextmanager
def serve_large(folder, **settings):
    """A server with small buffers, and an event that says when its route /large has made an answer."""
    app = create_app(Settings(models=folder / "two.safetensors", monitor_share=0, cached_results=4, **settings))
    made = threading.Event()

    def large(n_bytes: int = MOST) -> Response:
        made.set()
        return Response(b"x" * n_bytes)

    app.add_api_route("/large", large)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)  # or the kernel takes much of an answer
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, **server_options(app.state.parts.settings)))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            poll(lambda: server.started)
            with httpx2.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=300) as client:
                yield client, made
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def connect_narrow(client):
    """A connection that buffers little of what is sent to it."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(300)
        connection.connect((client.base_url.host, client.base_url.port))
        yield connection


@pytest.mark.parametrize("end", ["", "Connection: close"])
def test_an_answer_has_to_be_read_as_a_whole(folder, caplog, end):
    """A client that reads a little again and again is disconnected, however often it reads."""
    with serve_large(folder, send_timeout=1) as (client, _), connect_narrow(client) as connection:
        connection.sendall(head("GET", "/large", *filter(None, [end])))
        assert drip(connection, 32 << 10, 0.2) < MOST / 10  # 160 KB a second, where `MIN_RATE` has 262
        assert "a client has not read its answer within 1 seconds (send_timeout)" in caplog.text


def test_what_is_left_of_an_answer_has_to_be_read(folder, caplog):
    """A connection that is to be closed is not held by the end of an answer that its client leaves unread."""
    with serve_large(folder, send_timeout=0.5) as (client, _), connect_narrow(client) as connection:
        connection.sendall(head("GET", "/openapi.json", "Connection: close"))
        poll(lambda: "a client has not read its answer within 0.5 seconds (send_timeout)" in caplog.text)


def test_a_client_that_reads_has_the_time_that_it_takes(folder, caplog, monkeypatch):
    """An answer may take longer than `send_timeout` if its client reads on."""
    monkeypatch.setattr(module, "MIN_RATE", 16 << 10)
    with serve_large(folder, send_timeout=0.2) as (client, _), connect_narrow(client) as connection:
        connection.sendall(head("GET", "/large?n_bytes=2000000", "Connection: close"))
        assert drip(connection, 8 << 10, 0.01) > 2_000_000
        assert "send_timeout" not in caplog.text


def test_a_request_lasts_until_its_answer_is_read(folder):
    """What a request holds, it holds until its client has read all but the end of the answer."""
    with serve_large(folder, send_timeout=300) as (client, made), connect_narrow(client) as connection:
        connection.sendall(head("GET", "/large", "Connection: close"))
        made.wait(300)
        for _ in range(50):
            assert sum_samples(client.get("/metrics").text, "requests_in_flight") == 2
        while connection.recv(1 << 20):
            pass
        poll(lambda: sum_samples(client.get("/metrics").text, "requests_in_flight") == 1)


def silence(connection):
    """Has the kernel drop whatever comes for a socket, as if its machine had lost the network (socket(7))."""
    drop_all = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET: keep 0 bytes
    instructions = ctypes.create_string_buffer(drop_all)
    connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(instructions)))


def count_left(client, path, status):
    """How many requests the metrics say clients have left."""
    labels = {"code": "client_gone", "route": path, "status": str(status)}
    return sum_samples(client.get("/metrics").text, "requests_total", **labels)


@pytest.mark.parametrize("how", ["closes", "sends no more", "loses its network"])
def test_a_client_that_has_gone_is_no_slow_reader(folder, caplog, how):
    """Its request ends with the code client_gone, and the log does not say later that it reads too slowly."""
    with serve_large(folder, send_timeout=1) as (client, _), connect_narrow(client) as connection:
        connection.sendall(head("GET", "/large"))
        assert connection.recv(1)  # its answer has begun
        if how == "closes":
            connection.close()
        elif how == "sends no more":  # as a tunnel does whose client has gone
            connection.shutdown(socket.SHUT_WR)
        else:
            silence(connection)
        poll(lambda: count_left(client, "/large", 200) == 1)
        with connect_narrow(client) as slow:  # whose time is over later than that of the first would be
            slow.sendall(head("GET", "/large"))
            poll(lambda: "a client has not read its answer within 1 seconds (send_timeout)" in caplog.text)
        assert caplog.text.count("(send_timeout)") == 1


def test_a_client_that_has_gone_while_the_loop_was_busy_is_noticed(serve_app, folder):
    """What is sent to it before the loop has noticed is dropped, and its request is client_gone."""
    app = create_app(Settings(models=folder / "two.safetensors", monitor_share=0, cached_results=4))
    has_gone = threading.Event()

    async def make_parts() -> AsyncIterator[bytes]:
        yield b"begun"
        await asyncio.sleep(0)  # by when that is sent
        has_gone.wait(300)
        yield bytes(10 * module.PIECE)

    app.add_api_route("/parts", lambda: StreamingResponse(make_parts()))
    with serve_app(app) as client:
        with connect(client) as connection:
            connection.sendall(head("GET", "/parts"))
            assert connection.recv(1)  # what is not read makes of the end a reset
        has_gone.set()
        poll(lambda: count_left(client, "/parts", 200) == 1)


def test_a_client_that_leaves_before_its_answer_has_a_status_of_its_own(serve_app, folder, capfd):
    """Its request is 499 and client_gone in the log and the metrics, whatever the answer would have been."""
    app = create_app(Settings(models=folder / "two.safetensors", monitor_share=0, cached_results=4))
    arrived, go_on = threading.Event(), threading.Event()

    def wait() -> bool:
        arrived.set()
        return go_on.wait(300)

    app.add_api_route("/wait", wait)
    with serve_app(app) as client:
        with connect(client) as connection:
            connection.sendall(head("GET", "/wait", "X-Request-Id: left"))
            arrived.wait(300)
        assert client.get("/healthz").status_code == 200  # by when the server has seen the end of the connection
        go_on.set()
        poll(lambda: count_left(client, "/wait", 499) == 1)
        assert client.get("/wait").json() is True
        assert sum_samples(client.get("/metrics").text, "requests_total", code="", route="/wait", status="200") == 1
    (line,) = (line for line in capfd.readouterr().err.splitlines() if '"id":"left"' in line)
    assert (json.loads(line)["status"], json.loads(line)["code"]) == (499, "client_gone")


UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA")


@pytest.mark.parametrize("parts", [1, 2, 1000], ids=["at once", "head and body", "byte by byte"])
@pytest.mark.parametrize("length", [f"Content-Length: {len(BODY)}", CHUNKED])
def test_a_request_to_upgrade_keeps_its_body(strict, length, parts):
    """Clients that would change to HTTP/2, as Java's and curl's, are answered in HTTP/1.1, again and again."""
    start = head(*PREDICT, *UPGRADE, length)
    body = BODY if length != CHUNKED else b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    with connect(strict) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            pieces = {1: [start + body], 2: [start, body]}.get(parts, [bytes([byte]) for byte in start + body])
            for piece in pieces:
                connection.sendall(piece)
            answer, document = read_answer(connection)
            assert (answer.status, document["model_name"]) == (200, "two")


def test_requests_to_upgrade_wait_for_each_other(strict):
    """Each of several requests that arrive at once has its own answer, in their order."""
    one = head(*PREDICT, *UPGRADE, f"Content-Length: {len(BODY)}") + BODY
    with connect(strict) as connection:
        connection.sendall(one + head("GET", "/healthz", *UPGRADE) + one + head("GET", "/none", "Connection: close"))
        received = read_all(connection)
    assert re.findall(rb"HTTP/1.1 (...)|(model_name|status)", received) == [
        *((b"200", b""), (b"", b"model_name"), (b"200", b""), (b"", b"status")),
        *((b"200", b""), (b"", b"model_name"), (b"404", b""), (b"", b"status")),
    ]


def make_request(rng, number):
    """A request with any body, headers and framing, and what the route /echo answers."""
    body = (
        rng.randbytes(rng.choice([1, 10, 1000, 70_000, 300_000])) if rng.random() < 0.7 else head("GET", "/", *UPGRADE)
    )
    headers = [f"X-{number}: a", *(UPGRADE if rng.random() < 0.4 else ())]
    framed, trailers = body, b""
    if rng.random() < 0.5:
        headers.append(f"Content-Length: {len(body)}")
    else:
        headers.append(CHUNKED)
        length = max(1, rng.choice([len(body), len(body) // 3, len(body) // 2000]))
        chunks = [body[start : start + length] for start in range(0, len(body), length)]
        framed = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), rng.choice([b"", b";a=b"]), chunk) for chunk in chunks)
        trailers = b"0\r\n" + rng.choice([b"", b"Upgrade: h2c\r\nX-Other: a\r\n"]) + b"\r\n"
    rng.shuffle(headers)
    return head("POST", "/echo", *headers) + framed + trailers, f'"{sha256(body).hexdigest()} x-{number}"'.encode()


def test_requests_are_the_same_however_they_are_framed_and_cut(serve_app, folder):
    """Any requests on one connection, in any parts, are answered one after the other, with their bodies and headers."""
    app, rng = create_app(Settings(models=folder / "two.safetensors")), Random(0)

    async def echo(request: Request) -> str:
        names = [name for name in request.headers if name.startswith("x-")]
        return f"{sha256(await request.body()).hexdigest()} {' '.join(names)}"

    app.add_api_route("/echo", echo, methods=["POST"])
    with serve_app(app) as client:
        for _ in range(examples(100)):
            requests, answers = zip(*(make_request(rng, number) for number in range(rng.randint(1, 6))), strict=True)
            data = b"\r\n".join(requests) + head("GET", "/healthz", "Connection: close")
            cuts = sorted(rng.choices(range(len(data)), k=rng.choice([0, 3, 100])))
            with connect(client) as connection, ThreadPoolExecutor(1) as pool:
                pieces = [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]
                sending = pool.submit(lambda: [connection.sendall(piece) for piece in pieces])  # noqa: B023
                received = read_all(connection)
                sending.result()
            assert re.findall(rb'"[0-9a-f]{64}.*?"', received) == [*answers]


@pytest.mark.parametrize("start", ["CONNECT localhost:80 HTTP/1.1\r\n\r\n", "GET http://localhost HTTP/1.1\r\n\r\n"])
def test_a_request_to_a_proxy_is_refused(strict, start):
    """What only a proxy could answer is malformed, in the form of all errors."""
    with connect(strict) as connection:
        connection.sendall(start.encode())
        answer, body = read_answer(connection)
        assert (answer.status, body["code"]) == (400, "malformed_request")
        assert is_closed(connection)
