"""OpenTelemetry child spans of a request, below the span of FastAPI's own instrumentation.

That one continues the trace of the client's ``traceparent`` (W3C Trace Context), and goes where the environment says.
Where tracing is off there is none, so nothing is recorded here either.
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


_is_on = False  # to ask OpenTelemetry takes longer than what a span of nothing is of


def switch_on() -> None:
    """Lets what apps of this process do be recorded from now on.

    Raises:
        ConfigError: OpenTelemetry's SDK is not installed; its API alone discards all.
    """
    if find_spec("opentelemetry.sdk") is None:
        raise ConfigError("tracing needs OpenTelemetry: pip install 'kanscope[otel]'")
    global _is_on
    _is_on = True


def span(part: Part, **attributes: int) -> AbstractContextManager[object]:
    """Times a part of the request that the current context is of; where nothing records it, this does nothing.

    Args:
        part: what is done.
        attributes: how much of it, such as ``windows=32``; never values of a client.
    """
    if not _is_on or not trace.get_current_span().is_recording():
        return _NOTHING
    return trace.get_tracer(NAME).start_as_current_span(part, attributes=attributes)


def describe_request(method: str, route: str | None, state: Mapping[str, Any]) -> None:
    """Says on the request's own span what only we know of it: its id and model, and the route of a kept answer."""
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
