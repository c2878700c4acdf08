"""Request ids, content negotiation, and HEAD."""

from __future__ import annotations

import re
from time import process_time

import pytest
from sockets import connect, head, read_answer

from service.wire.headers import choose_media_type

OFFERED = ("application/json", "application/x-ndjson")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("Application/X-NDJSON", "application/x-ndjson"),
        ("application/x-ndjson, */*", "application/x-ndjson"),
        ("application/x-ndjson;q=0.5, application/json", "application/json"),
        ("application/json;q=0.5, application/x-ndjson;q=0.6", "application/x-ndjson"),
        ("application/json;q=0, */*", "application/x-ndjson"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("application/x-ndjson;q=none", "application/x-ndjson"),
    ],
)
def test_the_best_acceptable_type_is_chosen(accept, chosen):
    """The highest quality wins, then the most specific type, then the server's order."""
    assert choose_media_type(accept, OFFERED) == chosen


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "*/*;q=0", "json", ","])
def test_no_type_is_chosen_that_is_not_acceptable(accept):
    """None is chosen for a client that accepts none of the types."""
    assert choose_media_type(accept, ("application/json",)) is None


def measure(connection, path, name, value):
    """Least processor time of a request with a header, which differs each time, as caches would hold it."""
    seconds = []
    for number in range(10):
        start = process_time()
        connection.sendall(head("GET", path, f"{name}: {number}{value}"))
        assert read_answer(connection)[0].status in (200, 406)
        seconds.append(process_time() - start)
    return min(seconds)


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/v1/models", "Accept", ",*/*" + "," * 58_000),
        ("/healthz", "Accept", ",a" * 29_000),
        ("/v1/models/two/topology?output=a%2B1", "Accept", ",*/*" + "," * 58_000),
        ("/v1/models/two/topology?output=a%2B1", "Accept-Encoding", ",a" * 29_000),
        ("/v1/models/two/topology?output=a%2B1", "If-None-Match", ",a" * 29_000),
        ("/healthz", "Cookie", ";a" * 29_000),
    ],
)
def test_a_long_list_takes_no_time(service, path, name, value):
    """A header of 58 KB that would be parsed item by item takes no longer than one that is not read."""
    with connect(service.client) as connection:
        of_other = measure(connection, path, "X-Other", value)
        assert measure(connection, path, name, value) < 3 * of_other + 0.001


def test_a_long_list_is_disregarded(service):
    """Beyond 1024 bytes a list counts as absent; up to them it is read."""
    ranges = "text/html," * 102
    assert service.get("/v1/models", headers={"Accept": f"{ranges}a/b"}).status_code == 406
    assert service.get("/v1/models", headers={"Accept": f"{ranges}a/bcd"}).status_code == 200


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
ULID = re.compile("[0-9A-HJKMNP-TV-Z]{26}")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceparent": PARENT}, TRACE),
        ({"traceparent": PARENT, "X-Request-Id": "mine"}, "mine"),
        ({"X-Request-Id": "mine", "traceparent": PARENT}, "mine"),
        ({"traceparent": PARENT, "X-Request-Id": "not valid"}, TRACE),
        ({"traceparent": f"01-{TRACE}-00f067aa0ba902b7-01-later"}, TRACE),
        ({"X-Request-Id": "job_7.window-12"}, "job_7.window-12"),
        ({"X-Request-Id": "a" * 128}, "a" * 128),
        ({"traceparent": "no", "X-Request-Id": "mine"}, "mine"),
    ],
)
def test_a_valid_id_of_the_client_is_that_of_the_answer(service, headers, expected):
    """The client's X-Request-Id is used first, then its trace id, in the response header and in errors."""
    answer = service.get("/v1/nothing", headers=headers)
    assert answer.headers.get_list("x-request-id") == [expected]
    assert answer.json()["request_id"] == expected


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Request-Id": ""},
        {"X-Request-Id": "a" * 129},
        {"X-Request-Id": "two words"},
        {"X-Request-Id": "<script>"},
        {"X-Request-Id": b"\xff"},
        {"traceparent": f"ff-{TRACE}-00f067aa0ba902b7-01"},
        {"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"},
        {"traceparent": f"00-{TRACE}-{'0' * 16}-01"},
        {"traceparent": f"{PARENT}-later"},
        {"traceparent": PARENT.upper()},
        {"traceparent": PARENT[:-1]},
    ],
)
def test_an_invalid_id_is_replaced(service, headers):
    """An invalid id is ignored."""
    answer = service.get("/v1/nothing", headers=headers)
    assert ULID.fullmatch(answer.headers["x-request-id"])
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


NAMES = ["Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Content-Encoding", "Content-Type", "Cookie"]
NAMES += ["Forwarded", "If-None-Match", "Origin", "Referer", "Tracestate", "Upgrade", "User-Agent", "X-Anything"]
NAMES += ["X-Correlation-Id", "X-Forwarded-Host", "X-Forwarded-Prefix", "X-Forwarded-Proto", "X-Request-Timeout"]


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/metrics", "/v1/models", "/v1/nothing", "/v1/models/two"])
def test_no_other_header_is_echoed(service, path):
    """The values of other request headers never appear in the response."""
    check_for_echoes(service.get(path, headers={name: f"echo-{number}" for number, name in enumerate(NAMES)}))


@pytest.mark.parametrize("name", NAMES)
def test_no_header_is_echoed_in_results(service, name):
    """This also holds for forecasts, cached responses and validation errors."""
    headers = {"Content-Type": "application/json", name: "echo-1"}
    check_for_echoes(service.client.post("/v1/models/two:predict", content=b'{"instances": []}', headers=headers))
    for _ in range(2):
        check_for_echoes(service.get("/v1/models/head/topology", headers={name: "echo-1"}))


def check_for_echoes(answer):
    assert answer.status_code != 500
    assert "echo-" not in f"{answer.headers}{answer.text}"


@pytest.mark.parametrize(
    "path", ["/healthz", "/v1/models", "/v1/models/two", "/v1/models/two/report?output=a%2B1", "/docs"]
)
def test_head_is_get_without_the_body(service, path):
    """HEAD returns the status and the headers of GET, without a body."""
    head, get = service.client.head(path), service.get(path)
    own = {"date", "x-request-id"}
    assert head.status_code == get.status_code == 200
    assert {name: value for name, value in head.headers.items() if name not in own} == {
        name: value for name, value in get.headers.items() if name not in own
    }
    assert head.content == b""


def test_head_is_refused_as_get_is(service):
    """HEAD has the status of GET for unknown paths and unsupported methods."""
    assert service.client.head("/v1/models/none").status_code == 404
    refused = service.client.head("/v1/models/two:predict")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
