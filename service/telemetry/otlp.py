"""Metrics and logs by OTLP, beside traces, where OpenTelemetry's standard environment variables say so.

Its SDK, of the extra `otel`, is imported only then. Metrics are those of /metrics, read from the same registry.
"""

import atexit
import fcntl
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from time import time_ns
from typing import TYPE_CHECKING, Any, Literal

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import get_current
from prometheus_client import Metric

from service.telemetry.metrics import SHARED, Metrics

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, MetricsData
    from opentelemetry.sdk.metrics.export import Metric as OtlpMetric
    from opentelemetry.sdk.resources import Resource

logger = logging.getLogger(__name__)
NAME = "kanscope"
INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"  # milliseconds
CLOSE_SECONDS = 2.0  # in which the rest is sent as the process ends
_SEVERITIES = {
    "DEBUG": SeverityNumber.DEBUG,
    "WARNING": SeverityNumber.WARN,
    "ERROR": SeverityNumber.ERROR,
    "CRITICAL": SeverityNumber.FATAL,
}
_PROTOCOL = "http/protobuf"
_OWN_LOGS = ("opentelemetry", "urllib3", "requests")  # of who sends: a record of theirs would be sent, and so on
_ELSEWHERE = {"METRICS": {"prometheus"}, "LOGS": set[str]()}  # exporters that are there anyway


def is_sent(signal: Literal["METRICS", "LOGS"]) -> bool:
    """Whether the variables say that a signal is sent; a warning says why not, where they ask for what is not there."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    asked = os.environ.get(f"OTEL_{signal}_EXPORTER", "").lower()
    exporters = {name.strip() for name in asked.split(",")} - {""}
    endpoint, protocol = (
        os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_{of}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{of}", "")
        for of in ("ENDPOINT", "PROTOCOL")
    )
    if unknown := exporters - {"otlp", "none"} - _ELSEWHERE[signal]:
        text = "OTEL_%s_EXPORTER names %s, which is not known here; put otlp or none there"
        logger.warning(text, signal, ", ".join(unknown))
    if "otlp" not in exporters and (exporters or not endpoint):
        return False
    if protocol not in ("", _PROTOCOL):
        reason = f"the protocol is {protocol}; put {_PROTOCOL} into OTEL_EXPORTER_OTLP_PROTOCOL, and its port"
    elif find_spec("opentelemetry.sdk") is None:
        reason = f"the SDK is not installed: pip install 'kanscope[otel]', or OTEL_{signal}_EXPORTER=none"
    else:
        return True
    logger.warning("%s are not sent by OTLP; see why: %s", signal.lower(), reason)
    return False


def describe_resource() -> "Resource":
    """What the service is, as `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, by default named kanscope."""
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource

    given = OTELResourceDetector().detect().attributes
    own = {SERVICE_NAME: NAME, SERVICE_VERSION: version("kanscope")}
    return Resource.create({name: value for name, value in own.items() if name not in given})


class Logs:
    """Where this process sends its logs: a queue of the SDK's, of bounded size."""

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

        self._provider = LoggerProvider(describe_resource(), shutdown_on_exit=False)
        self._provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
        self._logger = self._provider.get_logger(NAME, version("kanscope"))
        self._wanted, self._done = Event(), Event()
        Thread(target=self._run, name="otlp-flush", daemon=True).start()  # now: none can start as Python ends
        atexit.register(self.flush)

    def emit(self, time: float, severity: SeverityNumber, body: str, attributes: Mapping[str, Any]) -> None:
        """Adds a record, of `time` in seconds since 1970, with the span of the request, if there is one."""
        record = LogRecord(
            timestamp=int(time * 1e9),
            context=get_current(),
            severity_number=severity,
            severity_text=severity.name,
            body=body,
            attributes=attributes,
        )
        self._logger.emit(record)

    def emit_request(self, line: Mapping[str, Any]) -> None:
        """Adds a line of the access log, whose members are attributes."""
        attributes = {name: value for name, value in line.items() if name not in ("event", "level", "timestamp")}
        self.emit(line["timestamp"].timestamp(), SeverityNumber.INFO, line["event"], attributes)

    def flush(self) -> None:
        """Sends what waits, for at most `CLOSE_SECONDS`."""
        self._done.clear()
        self._wanted.set()
        self._done.wait(CLOSE_SECONDS)

    def _run(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            self._provider.force_flush()
            self._done.set()


@cache
def find_logs() -> Logs | None:
    """Those of this process; None if the variables do not say that they are sent."""
    return Logs() if is_sent("LOGS") else None


class LogSender(logging.Handler):
    """Sends the records of the standard library's logging; a traceback shows no variables."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs, self._format = logs, logging.Formatter()
        self.addFilter(lambda record: record.name.partition(".")[0] not in _OWN_LOGS)

    def emit(self, record: logging.LogRecord) -> None:
        """Gives a record to the SDK's queue."""
        attributes: dict[str, Any] = {"logger": record.name, "process": os.getpid()}
        try:
            if record.exc_info and record.exc_info[0] is not None:
                attributes["exception.type"] = record.exc_info[0].__name__
                attributes["exception.stacktrace"] = self._format.formatException(record.exc_info)
            self._logs.emit(
                record.created, _SEVERITIES.get(record.levelname, SeverityNumber.INFO), record.getMessage(), attributes
            )
        except Exception:
            self.handleError(record)


class MetricSender:
    """Sends the metrics of /metrics at an interval, and once more as it is closed.

    Of several processes, of which each knows the metrics of all, one sends: that which has locked a file of theirs.
    """

    def __init__(self, metrics: Metrics) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        self._metrics, self._resource, self._exporter = metrics, describe_resource(), OTLPMetricExporter()
        self._seconds, self._ending, self._start = _read_interval(), Event(), time_ns()
        self._lock, folder = -1, os.environ.get(SHARED)
        if folder is not None:
            self._lock = os.open(Path(folder) / "otlp.lock", os.O_RDWR | os.O_CREAT, 0o600)
            self._start = os.fstat(self._lock).st_mtime_ns  # that of the first process
        self._thread = Thread(target=self._run, name="otlp", daemon=True)

    def start(self) -> None:
        """Starts sending."""
        self._thread.start()

    def close(self) -> None:
        """Sends a last time, for at most `CLOSE_SECONDS`."""
        self._ending.set()
        self._thread.join(CLOSE_SECONDS)
        self._exporter.shutdown()
        self._thread.join(CLOSE_SECONDS)
        if self._lock >= 0:
            os.close(self._lock)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._ending.wait(self._seconds)
            try:
                if self._lock >= 0:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._exporter.export(self._collect())
            except BlockingIOError:  # another process sends
                continue
            except Exception:  # of any kind: the thread goes on
                logger.exception("metrics were not sent by OTLP; see /metrics for them, and please report this")

    def _collect(self) -> "MetricsData":
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._metrics.refresh()
        now = time_ns()
        found = [one for family in self._metrics.collect() for one in convert(family, self._start, now)]
        scope = ScopeMetrics(InstrumentationScope(NAME, version("kanscope")), found, "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])


def convert(family: Metric, start: int, now: int) -> Iterable["OtlpMetric"]:
    """Yields a metric of Prometheus as one of OTLP, by the specification of their compatibility, with its own name.

    Sums and histograms are cumulative since `start`, in nanoseconds since 1970, as `now` is.
    """
    from opentelemetry.sdk.metrics import export as otlp

    total = otlp.AggregationTemporality.CUMULATIVE
    name, samples = family.name, family.samples
    data: otlp.Gauge | otlp.Sum | otlp.Histogram
    if family.type == "histogram":
        data = otlp.Histogram(_convert_histograms(family, start, now), total)
    else:
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        name += suffix
        points = [otlp.NumberDataPoint(one.labels, start, now, one.value) for one in samples if one.name == name]
        data = otlp.Gauge(points) if family.type == "gauge" else otlp.Sum(points, total, family.type == "counter")
    if data.data_points:
        yield otlp.Metric(name, family.documentation, family.unit, data)


def _convert_histograms(family: Metric, start: int, now: int) -> list["HistogramDataPoint"]:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    buckets, sums = defaultdict[tuple[tuple[str, str], ...], dict[float, int]](dict), dict[Any, float]()
    for one in family.samples:
        key = tuple((name, label) for name, label in sorted(one.labels.items()) if name != "le")
        if one.name.endswith("_bucket"):
            buckets[key][float(one.labels["le"])] = int(one.value)
        elif one.name.endswith("_sum"):
            sums[key] = one.value
    points = []
    for key, below in buckets.items():
        *bounds, _ = sorted(below)  # the last is infinity
        counts = [after - before for before, after in pairwise([0, *(below[bound] for bound in sorted(below))])]
        unknown: Any = None  # extremes, which OTLP may leave out
        point = HistogramDataPoint(dict(key), start, now, sum(counts), sums[key], counts, bounds, unknown, unknown)
        points.append(point)
    return points


def _read_interval() -> float:
    """The seconds between two sendings; a minute by default."""
    given = os.environ.get(INTERVAL) or "60000"
    try:
        if (milliseconds := float(given)) > 0:
            return min(milliseconds, 1e9) / 1000
    except ValueError:
        pass
    text = "%s is %s, so metrics are sent each minute; put a number of milliseconds above 0 there"
    logger.warning(text, INTERVAL, given)
    return 60.0
