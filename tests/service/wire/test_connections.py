"""Attacks on connections over real sockets: none holds memory, time or a connection past the limits."""

from __future__ import annotations

import asyncio
import json
import threading
from unittest.mock import Mock

import pytest
import uvicorn
from sockets import connect, head, is_closed, read_answer
from uvicorn.server import ServerState
from waiting import poll

from service.app import create_app
from service.settings import Settings
from service.wire import connections as module
from service.wire.connections import BoundedProtocol

BODY = json.dumps({"instances": [[[0.5, 1.5, 2.5, 3.5]] * 6]}).encode()  # fits model "two"
PREDICT = ("POST", "/v1/models/two:predict", "Content-Type: application/json")
CHUNKED = "Transfer-Encoding: chunked"
ANSWERED = head("GET", "/healthz", CHUNKED)  # this is answered at once, whatever follows
AWAITED = head(*PREDICT, CHUNKED)  # the body of this is awaited
MOST = 32 << 20  # bytes that fit in the buffers of the two sockets, and more
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
    [(b"", b"\r\n"), (head("GET", "/healthz"), b"\r\n"), (b"GET /", b"x"), (b"GET /healthz HTTP/1.1\r\n", b"a:b\r\n")],
    ids=["empty lines", "empty lines after a request", "a target", "short headers"],
)
def test_what_comes_before_a_body_is_bounded(patient, start, piece):
    """Empty lines between requests, targets and short headers have the same limit."""
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
    """After its answer a message may have `max_body_bytes` more."""
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


def test_a_closing_connection_is_not_held_by_what_is_unread():
    """A connection that is closed while its client reads nothing is aborted after `send_timeout`."""

    async def close() -> Mock:
        settings = Settings(header_timeout=1, send_timeout=0.01)
        protocol = BoundedProtocol(uvicorn.Config(Mock()), ServerState(), {}, settings=settings)
        transport = Mock(spec=asyncio.Transport)
        transport.get_extra_info.return_value = None
        transport.get_write_buffer_size.return_value = 10_000
        protocol.connection_made(transport)
        protocol.timeout_keep_alive_handler()
        transport.close.assert_called_once_with()
        while not transport.abort.called:
            await asyncio.sleep(0.01)
        return transport

    asyncio.run(asyncio.wait_for(close(), 60))
