"""The middleware of Ray Serve's proxies, tested with apps that behave as a proxy does."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from starlette.responses import PlainTextResponse, Response

from service.engines.proxies import ProxyErrorMiddleware, make_middlewares, proxy_variables
from service.settings import Settings


def ask(app, headers=None, path="/v1/models", limit=2048):
    """The answer of an app with the middleware around it."""

    async def run():
        transport = httpx2.ASGITransport(ProxyErrorMiddleware(app, limit))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(run())


def proxy(answer, by_replica):
    """Adds the id of the request, as Serve's own middleware does; the app in a replica has put it there already."""

    async def app(scope, receive, send):
        request_id = dict(scope["headers"])[b"x-request-id"].decode()

        async def send_with_id(message):
            if message["type"] == "http.response.start":
                ids = [(b"x-request-id", request_id.encode())] * (1 + by_replica)
                message = {**message, "headers": [*message["headers"], *ids]}
            await send(message)

        await answer(scope, receive, send_with_id)

    return app


@pytest.mark.parametrize("status", [200, 404, 500, 503])
def test_a_response_of_a_replica_passes_with_one_request_id(status):
    """Any status passes through; the id is the client's if valid, and is in the response once."""
    answer = ask(proxy(Response(b"{}", status), by_replica=True), headers={"X-Request-Id": "mine"})
    assert (answer.status_code, answer.content) == (status, b"{}")
    assert answer.headers.get_list("x-request-id") == ["mine"]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "the service is starting or stopping"),
        (500, "the replica that had the request is gone"),
        (503, "no replica can take the request"),
    ],
)
def test_an_error_of_the_proxy_itself_has_the_format_of_the_service(status, message):
    """It is a 503 with Retry-After and one valid request id, in place of the invalid one of the client."""
    answer = ask(proxy(PlainTextResponse("of Ray", status), by_replica=False), headers={"X-Request-Id": "not valid"})
    document = answer.json()
    assert (answer.status_code, document["status"], document["error"]) == (503, 503, message)
    assert answer.headers["retry-after"] == "1"
    assert answer.headers.get_list("x-request-id") == [document["request_id"]] != ["not valid"]


def test_a_proxy_without_a_response_is_a_503():
    """For example because the replica died."""

    async def silent(scope, receive, send):
        pass

    answer = ask(silent)
    assert (answer.status_code, answer.json()["error"]) == (503, "the replica that had the request is gone")


def test_the_routes_of_the_proxy_itself_are_left_alone():
    """Its health is not the service's."""
    assert ask(proxy(PlainTextResponse("success"), by_replica=False), path="/-/healthz").text == "success"


def test_oversized_headers_are_refused():
    """The request does not reach the replica, as without Ray."""

    async def never(scope, receive, send):
        raise AssertionError

    answer = ask(never, headers={"X": "x" * 3000})
    assert answer.status_code == 431
    assert answer.json()["error"] == "the headers are larger than 2048 bytes (max_header_bytes)"


def test_proxies_use_the_middleware_with_the_settings_of_the_service(monkeypatch):
    """The environment variables of Serve select the middleware and its header limit."""
    for name, value in proxy_variables(Settings(max_header_bytes=4096)).items():
        monkeypatch.setenv(name, value)
    (middleware,) = make_middlewares()
    assert (middleware.cls, middleware.args) == (ProxyErrorMiddleware, (4096,))
