"""The outermost middleware: request ids, access log and metrics for every response."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.error_answers import answer_failure, send_error
from service.http.errors import unusable
from service.http.headers import address_of
from service.http.ids import HEADER, choose_request_id
from service.telemetry.logs import RequestLog
from service.telemetry.metrics import Metrics
from service.telemetry.traces import describe_request

NOSNIFF = (b"x-content-type-options", b"nosniff")  # browsers must not guess another media type
_ID = HEADER.lower().encode()
MAX_PARAMETERS = 1000  # of a query: to parse more takes long
OTHER = "other"  # label of requests that match no route template, such as static files


class Observation:
    """Middleware that assigns request ids, and records each request in the access log and metrics.

    It also turns unexpected exceptions into error responses, so that these are recorded too.

    Args:
        app: the wrapped app.
        metrics: counts the requests.
        log: the access log.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, log: RequestLog) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        state = scope.setdefault("state", {})
        state["request_id"] = choose_request_id(scope["headers"])
        state["address"] = address_of(scope)
        id_header = (_ID, state["request_id"].encode())
        status = 0  # of the response, once it has started

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                describe_request(scope["method"], find_route(scope), state)  # before the span ends with the response
                message["headers"] = [*message.get("headers", ()), id_header, NOSNIFF]
            await send(message)

        self._metrics.begin_request()
        try:
            await self._answer(scope, receive, send_with_id)
        except Exception as error:
            if status:  # the response has started: the server closes the connection
                raise
            response = await answer_failure(Request(scope), error)
            await response(scope, receive, send_with_id)
        finally:
            self._metrics.end_request()
            seconds = perf_counter() - start
            route = find_route(scope) or OTHER
            record_request(self._metrics, self._log, route, state, scope["method"], status or 500, seconds)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (n := scope["query_string"].count(b"&")) >= MAX_PARAMETERS:
            reason = f"must have at most {MAX_PARAMETERS} parameters, but has {n + 1}"
            await send_error(unusable("query", reason, "limit_exceeded"), scope, receive, send)
        else:
            await self._app(scope, receive, send)


def find_route(scope: Scope) -> str | None:
    """The route template of a request; None if it matched none, or has not been routed."""
    route: str | None = getattr(scope.get("route"), "path_format", None)
    return route


def record_request(
    metrics: Metrics,
    log: RequestLog,
    route: str,
    state: Mapping[str, Any],
    method: str,
    status: int,
    seconds: float,
) -> None:
    """Records a finished request in the metrics and the access log; see `RequestLog`."""
    metrics.observe_request(route, status, seconds)
    log.write(state, method, route, status, seconds)
