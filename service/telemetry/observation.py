"""The outermost middleware: request ids, access log, metrics and spans for every response."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from time import perf_counter
from typing import Any, Literal

from opentelemetry import trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kanmodel.errors import missing_package
from service.telemetry.logs import RequestLog
from service.telemetry.metrics import Metrics
from service.telemetry.otlp import NAME, describe_resource
from service.wire.connections import GUARD, PIECE, REFUSAL, Guard, send_held
from service.wire.errors import STATUSES, find_code, invalid_value, send_error
from service.wire.headers import HEADER, address_of, choose_request_id

NOSNIFF = (b"x-content-type-options", b"nosniff")  # browsers must not guess another media type
MAX_PARAMETERS = 1000  # of a query: to parse more takes long
OTHER = "other"  # label of requests that match no route template, such as static files
Part = Literal["parse", "wait", "forecast", "slice", "encode"]
_NOTHING = nullcontext()
GONE = "client_gone"
_ID = HEADER.lower().encode()

_is_tracing = False  # asking OpenTelemetry takes longer than many of the operations that a span would time


class Observation:
    """Assigns request ids, records each request, and turns unexpected exceptions into responses, recorded too."""

    def __init__(self, app: ASGIApp, metrics: Metrics, log: RequestLog) -> None:
        self._app, self._metrics, self._log, self._in_flight = app, metrics, log, 0
        metrics.watch(metrics.in_flight, lambda: float(self._in_flight))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start = perf_counter()
        state = scope.setdefault("state", {})
        state["request_id"] = choose_request_id(scope["headers"])
        state["address"] = address_of(scope)
        id_header = (_ID, state["request_id"].encode())
        guard: Guard | None = state.get(GUARD)
        status = 0  # of the response, once it has started
        is_sent = False  # whether the client was there until its end

        def is_left() -> bool:
            return guard is not None and guard.is_left

        async def send_with_id(message: Message) -> None:
            nonlocal status, is_sent
            if is_start := message["type"] == "http.response.start":
                status = STATUSES[GONE] if is_left() else message["status"]
                _describe_request(scope, state)  # before the span ends with the response
                message["headers"] = [*message.get("headers", ()), id_header, NOSNIFF]
            await (send_held(send, message) if len(message.get("body", b"")) > PIECE else send(message))
            is_sent = not (message.get("more_body", is_start) or is_left())

        self._in_flight += 1
        try:
            if (refusal := state.get(REFUSAL)) is not None:
                raise refusal
            if (n := scope["query_string"].count(b"&")) >= MAX_PARAMETERS:
                reason = f"must have at most {MAX_PARAMETERS} parameters, but has {n + 1}"
                await send_error(invalid_value("query", reason, "limit_exceeded"), scope, receive, send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
        except Exception as error:
            if status:  # the response has started: the server closes the connection
                state["code"] = find_code(error) or "internal_error"
                raise
            await send_error(error, scope, receive, send_with_id)
        finally:
            self._in_flight -= 1
            seconds, route = perf_counter() - start, getattr(scope.get("route"), "path_format", OTHER)
            if not is_sent and is_left():
                state["code"] = GONE
            self._metrics.observe_request(route, status or 500, state.get("code", ""), seconds)
            self._log.write(state, scope["method"], route, status or 500, seconds)


def start_tracing() -> None:
    """Records spans from now on; raises ConfigError if OpenTelemetry's SDK is not installed, which its API needs."""
    if find_spec("opentelemetry.sdk") is None:
        raise missing_package("tracing", "kanscope[otel]")
    from opentelemetry.sdk.trace import TracerProvider

    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # else someone has chosen one
        trace.set_tracer_provider(TracerProvider(resource=describe_resource(), shutdown_on_exit=False))
    global _is_tracing
    _is_tracing = True


def span(part: Part, **attributes: int) -> AbstractContextManager[object]:
    """Opens a child span of FastAPI's own, which continues the client's W3C ``traceparent``, if the request has one.

    `attributes` are amounts, such as ``windows=32``; never a client's data.
    """
    if not _is_tracing or not trace.get_current_span().is_recording():
        return _NOTHING
    return trace.get_tracer(NAME).start_as_current_span(part, attributes=attributes)


def _describe_request(scope: Scope, state: Mapping[str, Any]) -> None:
    """Sets what FastAPI does not know on the request's span: id, model, and the route of a cached answer."""
    if _is_tracing and (current := trace.get_current_span()).is_recording():
        for name in ("request_id", "client", "model", "checkpoint", "windows"):
            if name in state:
                current.set_attribute(f"{NAME}.{name}", state[name])
        if (route := getattr(scope.get("route"), "path_format", None)) is not None:  # if it has matched one
            current.update_name(f"{scope['method']} {route}")
            current.set_attribute("http.route", route)
