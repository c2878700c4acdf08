"""The outermost middleware: request ids, concurrency, access log and metrics, whatever answers."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.error_answers import answer_failure, send_error
from service.http.errors import BusyError
from service.http.ids import HEADER, choose_request_id
from service.http.security import is_health
from service.telemetry.logs import RequestLog
from service.telemetry.metrics import Metrics
from service.telemetry.traces import describe_request

NOSNIFF = (b"x-content-type-options", b"nosniff")  # a browser takes an answer for what its media type says
_ID = HEADER.lower().encode()
OTHER = "other"  # what stands for a route where none was found, or none was looked for, as of static files


class Observation:
    """Middleware that gives each request an id, a place among those that run, a line in the log and its metrics.

    It also answers what nobody expected, so that this is counted as well.

    Args:
        app: what answers the request.
        metrics: where requests are counted.
        log: where their lines go.
        max_concurrent: most requests that are answered at once.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, log: RequestLog, max_concurrent: int) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log
        self._max_concurrent = max_concurrent
        self._running = 0
        metrics.watch_requests(lambda: self._running)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        state = scope.setdefault("state", {})
        state["request_id"] = choose_request_id(scope["headers"])
        id_header = (_ID, state["request_id"].encode())
        status = 0  # of the answer, once it has begun

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                describe_request(scope["method"], find_route(scope), state)  # whose span ends with the answer
                message["headers"] = [*message.get("headers", ()), id_header, NOSNIFF]
            await send(message)

        self._running += 1
        try:
            await self._answer(scope, receive, send_with_id)
        except Exception as error:
            if status:  # it is too late for another answer: the server breaks the connection off
                raise
            response = await answer_failure(Request(scope), error)
            await response(scope, receive, send_with_id)
        finally:
            self._running -= 1
            seconds = perf_counter() - start
            route = find_route(scope) or OTHER
            record_request(self._metrics, self._log, route, state, scope["method"], status or 500, seconds)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._running > self._max_concurrent and not is_health(scope):
            message = f"the service is answering {self._max_concurrent} requests, which is all it may (max_concurrent)"
            await send_error(BusyError(message), scope, receive, send)
        else:
            await self._app(scope, receive, send)


def find_route(scope: Scope) -> str | None:
    """The template of the route of a request; None where none was found, or is looked for."""
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
    """Counts one request that is over, and writes its line; see `RequestLog`."""
    metrics.observe_request(route, status, seconds)
    log.write(state, method, route, status, seconds)
