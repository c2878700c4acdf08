"""What stands around a proxy of Ray Serve, tried with apps that do what a proxy does."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from starlette.responses import PlainTextResponse, Response

from service.engines.proxies import OneShape, make_middlewares, proxy_variables
from service.settings import Settings


def ask(app, headers=None, path="/v1/models", limit=2048):
    """The answer of an app with the middleware around it."""

    async def run():
        transport = httpx2.ASGITransport(OneShape(app, limit))
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
def test_what_a_replica_answers_passes_with_one_id(status):
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
def test_what_a_proxy_answers_itself_takes_the_one_shape(status, message):
    """Its own errors are 503 that say when to come back, under the id of the request, not the one it was given."""
    answer = ask(proxy(PlainTextResponse("of Ray", status), by_replica=False), headers={"X-Request-Id": "not valid"})
    document = answer.json()
    assert (answer.status_code, document["status"], document["error"]) == (503, 503, message)
    assert answer.headers["retry-after"] == "1"
    assert answer.headers.get_list("x-request-id") == [document["request_id"]] != ["not valid"]


def test_where_a_proxy_answers_nothing_that_is_said():
    """As where the replica died that had the request."""

    async def silent(scope, receive, send):
        pass

    answer = ask(silent)
    assert (answer.status_code, answer.json()["error"]) == (503, "the replica that had the request is gone")


def test_the_routes_of_the_proxy_itself_are_left_alone():
    """Its health is not the service's."""
    assert ask(proxy(PlainTextResponse("success"), by_replica=False), path="/-/healthz").text == "success"


def test_large_headers_go_no_further():
    """The replica is not asked, as a single process's app is not."""

    async def never(scope, receive, send):
        raise AssertionError

    answer = ask(never, headers={"X": "x" * 3000})
    assert answer.status_code == 431
    assert answer.json()["error"] == "the headers are larger than 2048 bytes (max_header_bytes)"


def test_proxies_take_it_with_the_settings_of_the_service(monkeypatch):
    """The variables that Serve is started with lead to the middleware, with the limit that was set."""
    for name, value in proxy_variables(Settings(max_header_bytes=4096)).items():
        monkeypatch.setenv(name, value)
    (middleware,) = make_middlewares()
    assert (middleware.cls, middleware.args) == (OneShape, (4096,))
