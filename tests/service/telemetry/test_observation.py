"""Spans of real requests, read from memory and from an OTLP collector."""

from __future__ import annotations

import pytest
from factories import make_tensors, make_windows
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from waiting import poll

from kanmodel.errors import ConfigError
from service.app import create_app
from service.settings import Settings
from service.telemetry import observation
from service.telemetry.observation import span

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture(scope="module")
def exporter():
    """The spans that the process has recorded; a process has one provider."""
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    trace.set_tracer_provider(provider)
    return memory


@pytest.fixture
def ask(exporter, serve, folder, service):
    """Sends a request to a traced service and returns the spans of its trace by name."""
    bodies = {"instances": make_windows(service.models["two"], 3).tolist()}
    with serve(models=folder / "two.safetensors", tracing=True) as client:

        def finished():  # without that of the start, which may end after its answer
            return [one for one in exporter.get_finished_spans() if one.name != "GET /readyz"]

        def ask(method, path, **options):
            exporter.clear()
            more = {"json": bodies | options.pop("more", {})} if method == "POST" and "json" not in options else {}
            answer = client.request(method, path, **{"headers": TRACEPARENT, **more, **options})
            assert answer.status_code == options.get("status", 200), answer.text
            poll(lambda: any(one.kind is trace.SpanKind.SERVER for one in finished()))
            found = finished()
            return answer, {one.name: one for one in found}, found

        yield ask


def parents(spans):
    """The name of the parent of each span."""
    by_id = {one.context.span_id: one.name for one in spans}
    return {one.name: by_id.get(one.parent.span_id) for one in spans if one.parent}


def test_a_forecast_has_its_parts_below_the_request_that_continues_the_clients_trace(ask):
    """The request span is a child of the client's; parse, wait, forecast and encode are children of it."""
    answer, by_name, spans = ask("POST", "/v1/models/two:predict")
    request = by_name["POST /v1/models/{model}:predict"]
    assert {format(one.context.trace_id, "032x") for one in spans} == {TRACE}
    assert format(request.parent.span_id, "016x") == PARENT
    assert parents(spans) == {
        "parse": request.name,
        "wait": request.name,
        "forecast": request.name,
        "encode": request.name,
        request.name: None,
    }
    assert by_name["forecast"].attributes["windows"] == 3
    assert request.attributes["http.route"] == "/v1/models/{model}:predict"
    assert request.attributes["kanscope.request_id"] == answer.headers["x-request-id"] == TRACE
    assert (request.attributes["kanscope.model"], request.attributes["kanscope.windows"]) == ("two", 3)
    assert all(one.start_time <= one.end_time <= request.end_time for one in spans)


def test_an_explanation_has_a_span_for_each_slice(ask):
    """In JSON and in lines, whichever thread computes the slice."""
    for headers in ({}, {"Accept": "application/x-ndjson"}):
        _, by_name, spans = ask(
            "POST", "/v1/models/two:explain", more={"output": "a+1"}, headers={**TRACEPARENT, **headers}
        )
        assert {"parse", "wait", "forecast", "slice", "encode", "POST /v1/models/{model}:explain"} <= by_name.keys()
        assert {format(one.context.trace_id, "032x") for one in spans} == {TRACE}
        slices = [one for one in spans if one.name == "slice"]
        assert slices and all(parents(spans)[one.name] in ("wait", "POST /v1/models/{model}:explain") for one in slices)


def test_tensors_and_cached_responses_are_named_by_their_route(ask):
    """Responses that bypass the router have spans with the name of their route."""
    _, by_name, _ = ask("POST", "/v2/models/two/infer", json=make_tensors([[[0.5] * 4] * 6]))
    assert {"parse", "wait", "forecast", "encode", "POST /v2/models/{model}/infer"} <= by_name.keys()
    for parts in ({"wait", "encode"}, set()):
        _, by_name, _ = ask("GET", "/v1/models/two/report?output=a%2B1")
        assert by_name.keys() >= {*parts, "GET /v1/models/{model}/report"}
    assert by_name.keys() == {"GET /v1/models/{model}/report"}


def test_an_explicit_id_is_the_requests_and_the_trace_stays_the_clients(ask):
    """X-Request-Id sets the request id, traceparent the trace; the span has both."""
    answer, by_name, _ = ask("GET", "/v1/models", headers={**TRACEPARENT, "X-Request-Id": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    request = by_name["GET /v1/models"]
    assert (format(request.context.trace_id, "032x"), request.attributes["kanscope.request_id"]) == (TRACE, "mine")


def test_without_tracing_nothing_is_recorded(exporter, serve, folder):
    """Even with a provider, each part gets the same no-op object."""
    exporter.clear()
    with serve(models=folder / "two.safetensors") as client:
        assert client.get("/v1/models", headers=TRACEPARENT).status_code == 200
    assert exporter.get_finished_spans() == ()
    assert span("parse") is span("forecast", windows=3)


def test_tracing_without_the_sdk_is_refused_at_the_start(monkeypatch):
    """The API alone would discard every span."""
    monkeypatch.setattr(observation, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'kanscope\[otel\]'"):
        create_app(Settings(tracing=True))
