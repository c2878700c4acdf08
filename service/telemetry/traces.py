"""OpenTelemetry child spans of a request, below the span of FastAPI's own instrumentation.

The parent span continues the trace of the client's ``traceparent`` (W3C Trace Context), and is exported as the
environment variables of OpenTelemetry say. If tracing is off there is no parent span, and nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, Literal

from opentelemetry import trace

from kanmodel.errors import ConfigError

NAME = "kanscope"
Part = Literal["parse", "wait", "forecast", "slice", "encode"]
_NOTHING = nullcontext()


_is_on = False  # asking OpenTelemetry takes longer than many of the operations that a span would time


def switch_on() -> None:
    """Records spans of the apps in this process from now on.

    Raises:
        ConfigError: OpenTelemetry's SDK is not installed; its API alone discards all spans.
    """
    if find_spec("opentelemetry.sdk") is None:
        raise ConfigError("tracing needs OpenTelemetry: pip install 'kanscope[otel]'")
    global _is_on
    _is_on = True


def span(part: Part, **attributes: int) -> AbstractContextManager[object]:
    """Opens a child span for a part of the current request; does nothing if the request is not recorded.

    Args:
        part: name of the span.
        attributes: amounts, such as ``windows=32``; never a client's data.
    """
    if not _is_on or not trace.get_current_span().is_recording():
        return _NOTHING
    return trace.get_tracer(NAME).start_as_current_span(part, attributes=attributes)


def describe_request(method: str, route: str | None, state: Mapping[str, Any]) -> None:
    """Sets attributes of the request's span that FastAPI does not know: id, model, and the route of a cached answer."""
    if not _is_on:
        return
    current = trace.get_current_span()
    if not current.is_recording():
        return
    for name in ("request_id", "client", "model", "checkpoint", "windows"):
        if name in state:
            current.set_attribute(f"{NAME}.{name}", state[name])
    if route is not None:
        current.update_name(f"{method} {route}")
        current.set_attribute("http.route", route)
