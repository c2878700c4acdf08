"""Metrics and logs, decoded by a receiver of OTLP over HTTP."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families as parse
from sockets import serving
from waiting import poll

from service.telemetry import otlp
from service.telemetry.otlp import is_sent

BODY = {"instances": [[[0.5] * 4] * 6]}
KINDS = {
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/traces": ExportTraceServiceRequest,
}
FAST = {"OTEL_METRIC_EXPORT_INTERVAL": "200", "OTEL_BLRP_SCHEDULE_DELAY": "100", "OTEL_BSP_SCHEDULE_DELAY": "100"}
CHANGING = ("process_", "kanscope_requests", "kanscope_request_seconds")  # /metrics is a request too


class Collector:
    """What has arrived, by its path."""

    def __init__(self) -> None:
        self.received: dict[str, list[Any]] = {path: [] for path in KINDS}
        self.url = ""

    def resources(self, path: str) -> list[Any]:
        kind = path.rpartition("/")[2].removesuffix("s").replace("trace", "span")
        return [one for request in tuple(self.received[path]) for one in getattr(request, f"resource_{kind}s")]

    def metrics(self) -> dict[Any, float]:
        """The numbers of the newest request, named as in /metrics."""
        (of_one,) = self.received["/v1/metrics"][-1].resource_metrics
        found = dict[Any, float]()
        for metric in of_one.scope_metrics[0].metrics:
            for point in getattr(metric, metric.WhichOneof("data")).data_points:
                key = tuple(sorted((one.key, one.value.string_value) for one in point.attributes))
                if metric.WhichOneof("data") == "histogram":
                    found[f"{metric.name}_sum", key], below = point.sum, 0
                    found[f"{metric.name}_count", key] = point.count
                    for le, n in zip([*point.explicit_bounds, float("inf")], point.bucket_counts, strict=True):
                        below += n
                        found[f"{metric.name}_bucket", le, key] = below
                else:
                    found[metric.name, key] = point.as_double
        return found

    def spans(self) -> set[str]:
        return {span.name for of in self.resources("/v1/traces") for scope in of.scope_spans for span in scope.spans}

    def logs(self) -> list[Any]:
        return [record for of in self.resources("/v1/logs") for scope in of.scope_logs for record in scope.log_records]


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            found.received[self.path].append(KINDS[self.path].FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as found.url:
        yield found


def exposed(client: Any) -> dict[Any, float]:
    """The numbers of /metrics."""
    found = dict[Any, float]()
    for family in parse(client.get("/metrics").text):
        for sample in family.samples:
            key = tuple(sorted((name, label) for name, label in sample.labels.items() if name != "le"))
            le = (float(sample.labels["le"]),) if "le" in sample.labels else ()
            if not sample.name.endswith("_created"):
                found[sample.name, *le, key] = sample.value
    return found


def steady(found: dict[Any, float]) -> dict[Any, float]:
    """Without what changes from one reading to the next."""
    return {key: value for key, value in found.items() if not key[0].startswith(CHANGING)}


def attributes(of: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in of.attributes}


def test_metrics_are_the_numbers_of_the_scrape_and_logs_are_the_lines(launch, folder, collector):
    """All three signals have the same resource; a request's record is in its trace."""
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "KANSCOPE_TRACING": "true", **FAST}
    with launch(folder / "two.safetensors", KANSCOPE_LOG_FORMAT="json", **settings) as process:
        headers = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
        assert process.client.post("/v1/models/two:predict", json=BODY, headers=headers).status_code == 200
        poll(lambda: exposed(process.client)["kanscope_batch_windows_count", ()] == 1)
        poll(
            lambda: collector.received["/v1/metrics"] and steady(collector.metrics()) == steady(exposed(process.client))
        )
        sent, read = collector.metrics(), exposed(process.client)
        assert {key for key in sent if "/metrics" not in str(key)} <= read.keys()
        predict = (("code", ""), ("route", "/v1/models/{model}:predict"), ("status", "200"))
        assert sent["kanscope_requests_total", predict] == read["kanscope_requests_total", predict] == 1
        poll(lambda: any(attributes(one).get("windows") == 1 for one in collector.logs()))
        (request,) = (one for one in collector.logs() if attributes(one).get("windows") == 1)
        assert request.body.string_value == "request" and request.severity_text == "INFO"
        assert attributes(request)["status"] == 200 and request.trace_id.hex() == "ab" * 16
        assert any("running on" in one.body.string_value for one in collector.logs())
        poll(lambda: {"POST /v1/models/{model}:predict", "forecast"} <= collector.spans())
        for path in KINDS:
            resource = attributes(collector.resources(path)[-1].resource)
            assert resource["service.name"] == "kanscope" and "service.version" in resource


def test_variables_name_the_service_and_where_each_signal_goes(launch, folder, collector):
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win; what waits is sent as the process ends."""
    settings = {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{collector.url}/v1/metrics",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,deployment.environment=test,service.version=mine",
        "OTEL_SERVICE_NAME": "load",
    }
    with launch(folder / "two.safetensors", **settings) as process:  # each minute
        assert process.client.post("/v1/models/two:predict", json=BODY).status_code == 200
        process.popen.send_signal(15)
        process.popen.wait(60)
    assert collector.metrics()["kanscope_batch_windows_count", ()] == 1
    resource = attributes(collector.resources("/v1/metrics")[-1].resource)
    assert resource["service.name"] == "load" and resource["service.version"] == "mine"
    assert resource["deployment.environment"] == "test"
    assert collector.received["/v1/logs"] == collector.received["/v1/traces"] == []


@pytest.mark.thorough("starts two processes")
def test_one_of_several_processes_sends_the_metrics_of_all(launch, folder, collector):
    """Those of one scrape, once; another takes over when it is killed, and the restart is counted."""
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "KANSCOPE_LOG_FORMAT": "json", **FAST}
    with launch(folder / "two.safetensors", "--workers", "2", **settings) as process:
        n_asked, pids = 0, set[int]()

        def are_asked() -> bool:
            nonlocal n_asked, pids
            with type(process.client)(base_url=process.client.base_url, timeout=60) as client:
                assert client.post("/v1/models/two:predict", json=BODY).status_code == 200
            n_asked += 1
            pids = {line["process"] for line in process.lines() if line["event"] == "request"}
            return len(pids) == 2

        poll(are_asked)  # one may still be starting when the other one is ready
        poll(lambda: collector.metrics().get(("kanscope_batch_windows_sum", ())) == n_asked)
        assert collector.metrics()["kanscope_worker_restarts_total", ()] == 0
        for n_killed, pid in enumerate(pids, 1):
            os.kill(pid, 9)
            poll(lambda n=n_killed: collector.metrics()["kanscope_worker_restarts_total", ()] == n)
        poll(lambda: exposed(process.client)["kanscope_worker_restarts_total", ()] == 2)
        starts = {
            point.start_time_unix_nano
            for of in collector.resources("/v1/metrics")
            for metric in of.scope_metrics[0].metrics
            for point in metric.sum.data_points
        }
        assert len(starts) == 1  # whichever sends, what is cumulative began once
        supervisor = {attributes(one).get("process") for one in collector.logs()}
        assert process.popen.pid in supervisor


def test_a_collector_that_is_down_stops_nothing(launch, folder):
    """Requests are answered, its failure is not sent to itself, and the process ends in seconds."""
    with launch(folder / "two.safetensors", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", **FAST) as process:
        assert process.client.post("/v1/models/two:predict", json=BODY).status_code == 200
        process.popen.send_signal(15)
        process.popen.wait(30)


@pytest.mark.parametrize(
    ("variables", "expected", "said"),
    [
        ({}, (False, False), ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, (True, True), ""),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c:4318/v1/logs"}, (False, True), ""),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, (True, False), ""),  # to the default address
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_METRICS_EXPORTER": "none"}, (False, True), ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "TRUE"}, (False, False), ""),
        ({"OTEL_METRICS_EXPORTER": "otlp,prometheus"}, (True, False), ""),
        ({"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1"}, (False, True), ""),
        ({"OTEL_LOGS_EXPORTER": "console"}, (False, False), "OTEL_LOGS_EXPORTER names console"),
        (
            {"OTEL_LOGS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            (False, False),
            "put http/protobuf into OTEL_EXPORTER_OTLP_PROTOCOL",
        ),
    ],
)
def test_the_standard_variables_say_what_is_sent(monkeypatch, caplog, variables, expected, said):
    """Each signal by its own variables, then those of all; what is not sent although it is asked for is a warning."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (is_sent("METRICS"), is_sent("LOGS")) == expected
    assert said in caplog.text and bool(said) == bool(caplog.text)


def test_without_the_sdk_a_warning_says_what_to_do(monkeypatch, caplog):
    """A variable of the whole cluster must not keep the service from starting."""
    nothing: Callable[[str], None] = lambda name: None  # noqa: E731
    monkeypatch.setattr(otlp, "find_spec", nothing)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")
    assert not is_sent("METRICS")
    assert "pip install 'kanscope[otel]', or OTEL_METRICS_EXPORTER=none" in caplog.text
