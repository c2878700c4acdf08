from __future__ import annotations

import re

import pytest

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
def test_a_valid_id_of_the_client_is_that_of_the_answer(each_service, headers, expected):
    """The client's X-Request-Id is used first, then its trace id, in the response header and in errors."""
    answer = each_service.get("/v1/nothing", headers=headers)
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
def test_an_invalid_id_is_replaced(each_service, headers):
    """An invalid id is ignored."""
    answer = each_service.get("/v1/nothing", headers=headers)
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
