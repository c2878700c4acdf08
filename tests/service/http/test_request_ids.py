from __future__ import annotations

import re

import pytest

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
ULID = re.compile("[0-9A-HJKMNP-TV-Z]{26}")


@pytest.mark.smoke
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
    """The client's own id comes first, then the trace id; both come back in the header and in an error."""
    answer = service.get("/v1/nothing", headers=headers)
    assert answer.headers.get_list("x-request-id") == [expected]
    assert answer.json()["request_id"] == expected


@pytest.mark.smoke
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
def test_any_other_id_is_made_anew(service, headers):
    """What is not valid counts as absent."""
    answer = service.get("/v1/nothing", headers=headers)
    assert ULID.fullmatch(answer.headers["x-request-id"])
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


NAMES = ["Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Content-Encoding", "Content-Type", "Cookie"]
NAMES += ["Forwarded", "If-None-Match", "Origin", "Referer", "Tracestate", "Upgrade", "User-Agent", "X-Anything"]
NAMES += ["X-Correlation-Id", "X-Forwarded-Host", "X-Forwarded-Prefix", "X-Forwarded-Proto", "X-Request-Timeout"]


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/metrics", "/v1/models", "/v1/nothing", "/v1/models/two"])
def test_no_other_header_comes_back(service, path):
    """Whatever headers a request has, none of their values is in the answer."""
    check_for_echoes(service.get(path, headers={name: f"echo-{number}" for number, name in enumerate(NAMES)}))


@pytest.mark.parametrize("name", NAMES)
def test_no_header_comes_back_with_what_is_computed(service, name):
    """Nor is it in a forecast, an answer that is kept, or the error that says what is wrong with it."""
    headers = {"Content-Type": "application/json", name: "echo-1"}
    check_for_echoes(service.client.post("/v1/models/two:predict", content=b'{"instances": []}', headers=headers))
    for _ in range(2):
        check_for_echoes(service.get("/v1/models/head/topology", headers={name: "echo-1"}))


def check_for_echoes(answer):
    assert answer.status_code != 500
    assert "echo-" not in f"{answer.headers}{answer.text}"
