from __future__ import annotations

import json
import signal
import socket
import threading

import pytest
from factories import make_windows
from sockets import connect, head, is_closed, read_all, read_answer, sum_samples
from waiting import poll

from service.app import create_app
from service.settings import Settings

WINDOW = [[0.5, 1.5, 2.5, 3.5]] * 6  # fits model "two"
BODY = json.dumps({"instances": [WINDOW]}).encode()
PREDICT = ("POST", "/v1/models/two:predict", "Content-Type: application/json")


@pytest.fixture(scope="module")
def strict(serve, folder):
    """A server with short timeouts and a small limit on headers."""
    settings = {"header_timeout": 0.5, "body_timeout": 0.5, "max_header_bytes": 2048}
    with serve(models=folder / "two.safetensors", **settings) as client:
        yield client


@pytest.fixture
def waiting(serve_app, folder):
    """Starts a server with a route /wait that blocks until the event is set, and lists the waiting requests."""

    def start(**settings):
        app = create_app(Settings(models=folder / "two.safetensors", **settings))
        go_on, arrived = threading.Event(), []

        def wait() -> bool:
            arrived.append(1)
            return go_on.wait(300)

        app.add_api_route("/wait", wait)
        return serve_app(app), go_on, arrived

    return start


def check_refusal(connection, status, message):
    """The response has the common error schema, and the connection is closed."""
    answer, body = read_answer(connection)
    assert (answer.status, body["status"]) == (status, status)
    assert message in body["error"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert (answer.headers["connection"], answer.headers["x-content-type-options"]) == ("close", "nosniff")
    assert is_closed(connection)


def metric(client, name, **labels):
    return sum_samples(client.get("/metrics").text, name, **labels)


def test_ten_thousand_tiny_chunks_are_one_body(service):
    """A body in ten thousand chunks is read like any other."""
    chunks = [bytes([byte]) for byte in b" " * (10_000 - len(BODY)) + BODY]
    answer = service.client.post(
        "/v1/models/two:predict", content=iter(chunks), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200, answer.text


def test_too_large_a_body_leaves_the_connection_fine(service):
    """The server sends 413 before the whole body has arrived, and the connection stays usable."""
    with connect(service.client) as connection:
        connection.sendall(head(*PREDICT, "Content-Length: 100001"))
        answer, body = read_answer(connection)
        assert (answer.status, body["error"]) == (413, "the body is larger than 100000 bytes (max_body_bytes)")
        connection.sendall(b" " * 100_001 + head("GET", "/healthz"))
        assert read_answer(connection)[0].status == 200


def test_the_refusal_of_too_large_a_body_is_read_after_it(service):
    """By clients that send all of a body before they read, of many times `max_body_bytes`."""
    with connect(service.client) as connection:
        for _ in range(2):
            connection.sendall(head(*PREDICT, "Content-Length: 3000000") + b" " * 3_000_000)
            assert read_answer(connection)[0].status == 413


def test_a_slow_body_times_out(strict):
    """A body that does not arrive in time gives 408."""
    with connect(strict) as connection:
        connection.sendall(head(*PREDICT, f"Content-Length: {len(BODY)}") + BODY[:10])
        check_refusal(connection, 408, "the body did not arrive within 0.5 seconds (body_timeout)")


@pytest.mark.parametrize("start", [b"GET", b"GET /healthz HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\nHost: local"])
def test_slow_headers_time_out(strict, start):
    """Headers that do not arrive in time give 408, on new and on kept connections."""
    with connect(strict) as connection:
        connection.sendall(start)
        check_refusal(connection, 408, "the headers did not arrive within 0.5 seconds (header_timeout)")
    with connect(strict) as connection:
        connection.sendall(head("GET", "/healthz"))
        assert read_answer(connection)[0].status == 200
        connection.sendall(start)
        check_refusal(connection, 408, "(header_timeout)")


def test_an_idle_connection_is_closed(strict):
    """A connection without a request is closed without a response."""
    with connect(strict) as connection:
        assert is_closed(connection)


@pytest.mark.parametrize("header", ["X: " + "x" * 3000, "\r\n".join(f"X{n}: x" for n in range(700))])
def test_large_headers_are_refused(strict, header):
    """A single long header and many short ones give 431."""
    with connect(strict) as connection:
        connection.sendall(head("GET", "/healthz", header))
        check_refusal(connection, 431, "the headers are larger than 2048 bytes (max_header_bytes)")


@pytest.mark.parametrize("size", [3000, 70_000])
def test_long_addresses_are_refused(strict, size):
    """As headers are, and not as what is no HTTP."""
    with connect(strict) as connection:
        connection.sendall(head("GET", "/" + "x" * size))
        check_refusal(connection, 431, "the headers are larger than 2048 bytes (max_header_bytes)")


def test_bytes_that_are_not_http_are_refused(strict):
    """Bytes that are not HTTP give 400 with the common error schema."""
    with connect(strict) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        check_refusal(connection, 400, "the request is not HTTP/1.1")


def test_a_refused_head_is_counted_and_logged(serve, folder, capfd):
    """Requests that are refused before they reach the app are logged and counted as well."""
    starts = {400: b"\x16\x03\x01\r\n\r\n", 408: b"GET /he", 431: head("GET", "/healthz", "X: " + "x" * 3000)}
    codes = {400: "malformed_request", 408: "headers_timeout", 431: "headers_too_large"}
    ids = {}
    with serve(models=folder / "two.safetensors", header_timeout=0.5, max_header_bytes=2048) as client:
        for status, start in starts.items():
            with connect(client) as connection:
                connection.sendall(start)
                ids[read_answer(connection)[0].headers["x-request-id"]] = status
        for status in starts:
            labels = {"code": codes[status], "route": "other", "status": str(status)}
            assert metric(client, "requests_total", **labels) == 1
        assert metric(client, "request_seconds_count", route="other") == 3
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    refused = [line for line in lines if line.get("id") in ids]
    assert {line["id"]: line["status"] for line in refused} == ids
    assert {line["status"]: line["code"] for line in refused} == codes
    assert [line["method"] for line in refused] == ["other"] * 3


def test_an_invalid_chunk_is_refused_at_once(serve, folder):
    """An invalid chunk gives 400 at once, which is counted once."""
    with serve(models=folder / "two.safetensors") as client:
        with connect(client) as connection:
            connection.sendall(head(*PREDICT, "Transfer-Encoding: chunked") + b"5\r\nabcde\r\nzz\r\n")
            check_refusal(connection, 400, "the request is not HTTP/1.1")
        poll(lambda: metric(client, "requests_in_flight") == 1)
        assert metric(client, "requests_total", route="/v1/models/{model}:predict", status="400") == 1
        assert metric(client, "requests_total", route="other") == 0


@pytest.mark.parametrize("what", ["a stream", "answers"])
def test_a_client_that_does_not_read_is_disconnected(serve, folder, service, caplog, what):
    """If the client does not read, the connection is closed after `send_timeout` and the request's place is free."""
    model = service.models["two"]
    asked = {"instances": make_windows(model, 2000).tolist(), "output": list(model.config.outputs)}  # 20 MB of lines
    body = json.dumps({**asked, "detail": "flow", "tolerance": 1.0}).encode()
    ask = head(
        *("POST", "/v1/models/two:explain", "Accept: application/x-ndjson"),
        *("Content-Type: application/json", f"Content-Length: {len(body)}"),
    )
    edges = "/v1/models/two/edges?output=a%2B1&points=1001"
    begin = ask + body if what == "a stream" else head("GET", edges) * 1000
    with serve(models=folder / "two.safetensors", send_timeout=0.5) as client:
        client.get(edges)
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(300)
            connection.connect((client.base_url.host, client.base_url.port))
            connection.sendall(begin)
            poll(lambda: "a client has not read its answer within 0.5 seconds (send_timeout)" in caplog.text)
            poll(lambda: metric(client, "requests_in_flight") == 1)
            poll(lambda: metric(client, "queue_depth", priority="explanation") == 0)
            assert metric(client, "explanation_residual_count") < 4 * 2000
            assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_half_a_request_behind_another_does_not_disturb_its_answer(waiting):
    """The first request is answered, then the second one is refused because it is too slow."""
    server, go_on, arrived = waiting(header_timeout=0.5)
    with server as client, connect(client) as connection:
        connection.sendall(head("GET", "/wait") + b"GET /wai")
        poll(lambda: len(arrived) == 1)
        with connect(client) as later:  # the timeout of the incomplete second request
            assert is_closed(later)
        go_on.set()
        first, second = read_all(connection).split(b"HTTP/1.1 ")[1:]
        assert first.startswith(b"200 OK") and first.endswith(b"true")
        assert second.startswith(b"408 ") and b"(header_timeout)" in second


def test_a_client_that_vanishes_leaves_nothing_behind(serve, folder):
    """A body whose sender disconnects ends the request, and the server stays responsive."""
    with serve(models=folder / "two.safetensors") as client:
        for _ in range(20):
            with connect(client) as connection:
                connection.sendall(head(*PREDICT, f"Content-Length: {len(BODY)}") + BODY[:10])
        left = {"code": "client_gone", "route": "/v1/models/{model}:predict", "status": "499"}
        poll(lambda: metric(client, "requests_total", **left) == 20)
        assert metric(client, "requests_in_flight") == 1  # the request that asks
        assert client.post("/v1/models/two:predict", json=json.loads(BODY)).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), -signal.SIGTERM),
        pytest.param(("--workers", "2"), 0, marks=pytest.mark.thorough("starts two more processes")),
    ],
)
def test_sigterm_lets_accepted_requests_end(launch, folder, arguments, code):
    """After SIGTERM the server closes its socket, answers accepted requests, and exits."""
    with launch(folder / "two.safetensors", *arguments) as process, connect(process.client) as connection:
        connection.sendall(head(*PREDICT, f"Content-Length: {len(BODY)}") + BODY[:10])
        poll(lambda: metric(process.client, "requests_in_flight") == 2)
        process.popen.send_signal(signal.SIGTERM)
        poll(lambda: not accepts(process.client))
        connection.sendall(BODY[10:])
        answer, body = read_answer(connection)
        assert (answer.status, body["model_name"]) == (200, "two")
        process.client.close()
        assert process.popen.wait(300) == code


def test_a_kept_connection_is_answered_once_during_shutdown(serve, folder, monkeypatch):
    """During shutdown a kept connection is answered once more and then closed."""
    monkeypatch.setattr("service.wire.connections.STOPPING", 20.0)
    said = []

    def ask_late(client, connection):
        poll(lambda: not accepts(client))
        connection.sendall(head("GET", "/v1/models/two"))
        answer, body = read_answer(connection)
        said.append((answer.status, body["name"], answer.headers["connection"], is_closed(connection)))

    with serve(models=folder / "two.safetensors") as client:
        connection = connect(client)
        connection.sendall(head("GET", "/v1/models/two"))
        assert read_answer(connection)[0].status == 200
        client.close()
        late = threading.Thread(target=ask_late, args=(client, connection))
        late.start()
    late.join()
    connection.close()
    assert said == [(200, "two", "close", True)]


def accepts(client):
    """Whether a server accepts new connections; a connection may also be reset while it stops."""
    try:
        connect(client).close()
    except ConnectionError:
        return False
    return True


def test_the_forecasts_of_effects_are_bounded(serve, folder):
    """Effects cost 2 path nodes per window, output, baseline and feature or cell, checked before any computation."""
    with serve(models=folder / "two.safetensors", max_path_nodes=2 * (17 + 2 * 4)) as client:
        for n, members, status in (
            (2, {}, 200),
            (3, {}, 422),
            (1, {"baseline": {"reference": 2}}, 200),
            (1, {"baseline": {"reference": 3}}, 422),
            (1, {"groups": {"pair": ["f0", "f1"]}, "segments": {"new": [0, 0], "old": [-5, -1]}}, 200),
            (1, {"segments": {str(step): [step, step] for step in (0, -1, -2, -3)}}, 422),
            (1, {"detail": "steps"}, 422),  # 17 + 2 (4 + 6 x 4)
        ):
            body = {"instances": [WINDOW] * n, "output": "a+1", "effects": True, **members}
            answer = client.post("/v1/models/two:explain", json=body)
            assert answer.status_code == status, members
            if status == 422:
                assert "of at most 50 (max_path_nodes)" in answer.json()["error"]
                assert "or leave out effects" in answer.json()["error"]
        assert "would take 73 path nodes" in answer.json()["error"]


def test_the_forecasts_of_shapley_values_are_bounded(serve, folder):
    """All coalitions of at most 12 parts, else those of the random orders, count as path nodes."""
    body = {"instances": [WINDOW], "output": "a+1", "method": "shapley"}
    sixteen = {"segments": {str(step): [step, step] for step in (0, -1, -2)}, "orders": 4}
    for members, n_nodes in (({}, 17 + 2**4), (sixteen, 17 + 4 * 15 + 2)):
        for missing in (0, 1):
            with serve(models=folder / "two.safetensors", max_path_nodes=n_nodes - missing) as client:
                answer = client.post("/v1/models/two:explain", json={**body, **members})
            assert answer.status_code == (422 if missing else 200), members
        assert f"would take {n_nodes} path nodes" in answer.json()["error"]
        assert "or Shapley values" in answer.json()["error"]


def test_the_path_nodes_of_an_explanation_are_bounded(serve, folder):
    """Windows, outputs and baselines count; the error states the limit, which also holds for receipts."""

    def status(client, n, outputs, baseline, **members):
        body = {"instances": [WINDOW] * n, "output": outputs, "baseline": baseline, **members}
        answer = client.post("/v1/models/two:explain", json=body)
        if answer.status_code != 200:
            assert "of at most 68 (max_path_nodes)" in answer.json()["error"]
        return answer.status_code

    with serve(models=folder / "two.safetensors", max_path_nodes=68) as client:
        assert status(client, 4, "a+1", "mean") == 200
        assert status(client, 2, ["a+1", "b+2"], "mean") == 200
        assert status(client, 1, ["a+1", "b+2"], {"reference": 2}) == 200
        assert status(client, 5, "a+1", "mean") == 422
        assert status(client, 3, ["a+1", "b+2"], "mean", receipt=True) == 422
        assert status(client, 1, "a+1", {"reference": 5}) == 422
        tensor = {"name": "instances", "shape": [3, 6, 4], "datatype": "FP64", "data": [WINDOW] * 3}
        body = {"inputs": [tensor], "parameters": {"explain": True}}  # of all four outputs
        refused = client.post("/v2/models/two/infer", json=body)
        assert refused.status_code == 400
        assert "would take 204 path nodes" in refused.json()["error"]
