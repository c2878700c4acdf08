"""Prometheus metrics of /metrics. Labels have bounded cardinality: routes, models, features, states; no client text."""

import os
import platform
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.values import MultiProcessValue

SHARED = "PROMETHEUS_MULTIPROC_DIR"  # folder through which the client library's processes share metrics
RESTARTS = "worker_restarts"
RESTARTS_HELP = "Worker processes that ended or hung by themselves, and were replaced."
Version = tuple[str, str]  # name and version of a model
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_DEVIATIONS = (1e-6, 1e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 1e-1)


class Metrics:
    """The metrics of one app; each app in a process has its own. Their help texts document them.

    `list_served` gives the versions that are served, and each model with the version "": series of others are left out
    and removed, after which `on_removed` is called with their versions. In files that processes share they remain.
    """

    def __init__(self, list_served: Callable[[], Collection[Version]] | None = None) -> None:
        registry, self._list_served = CollectorRegistry(), list_served
        self.on_removed: Callable[[Collection[Version]], None] = lambda versions: None
        counter = partial(Counter, namespace="kanscope", registry=registry)
        gauge = partial(Gauge, namespace="kanscope", registry=registry, multiprocess_mode="livesum")
        steady = partial(Gauge, namespace="kanscope", registry=registry, multiprocess_mode="livemax")
        histogram = partial(Histogram, namespace="kanscope", registry=registry)
        timed = partial(histogram, buckets=_SECONDS)
        requests = counter("requests", "Requests by route, status and code of the error.", ["route", "status", "code"])
        arrival = "Seconds from the arrival of a request to the end of its response."
        seconds = timed("request_seconds", arrival, ["route"])
        self.in_flight = gauge("requests_in_flight", "Requests being answered.")
        waiting = "Requests that wait for the models or are being computed."
        self.queue_depth = gauge("queue_depth", waiting, ["priority"])
        held = "Bytes of the bodies and answers that requests hold."
        self.pending_bytes = gauge("pending_bytes", held)
        self.batch_windows = histogram("batch_windows", "Windows forecast together.", buckets=_SIZES)
        self.slice_seconds = timed("slice_seconds", "Seconds of one slice of explanations.")
        forecasts = "Forecasts by version and use: an answer, those of a shadow, or skipped by a shadow."
        self._forecasts = counter("forecasts", forecasts, ["model", "version", "use"])
        self._forecasts_of = cache(self._forecasts.labels)
        residuals = "Residuals of explanations, in standard deviations of the output."
        self._residuals = histogram("explanation_residual", residuals, ["model"], buckets=_DEVIATIONS)
        self._unconverged = counter("explanations_unconverged", "Explanations that did not converge.", ["model"])
        outside = "Windows with a feature outside its training range."
        self._outside_range = counter("inputs_outside_range", outside, ["model", "feature"])
        unprepared = "Model outputs whose global results are still to be computed in advance."
        self.unprepared = gauge("unprepared_outputs", unprepared)
        self.models = gauge("models", "Models by state.", ["state"], multiprocess_mode="livemax")
        outdated = "1 while the models may not be those of the folder or the store, otherwise 0."
        self.models_outdated = steady("models_outdated", outdated)
        missing = "1 while the file or folder of the models does not exist, otherwise 0."
        self.models_missing = steady("models_missing", missing)
        bundled = "1 if the bundled model is served, since KANSCOPE_MODELS is not set, otherwise 0."
        self.bundled_model = steady("bundled_model", bundled)
        self.worker_restarts = counter(RESTARTS, RESTARTS_HELP)
        self.model_bytes = gauge("model_bytes", "Estimated bytes of the models in memory.")
        self.recorded = counter("recorded_events", "Events written to the record.")
        unwritten = "Events that wait to be written to the record."
        self.unwritten = gauge("unwritten_events", unwritten)
        unwritten = "Seconds since the record was last written, while events wait; otherwise 0."
        self.unwritten_seconds = steady("unwritten_seconds", unwritten)
        self.unrecorded = counter("unrecorded_events", "Events that were lost to the record, by reason.", ["reason"])
        for reason in ("full", "failed", "refused"):
            self.unrecorded.labels(reason)
        dropped = "Log lines that were not written, as nobody read them fast enough or that failed."
        self.dropped_lines = counter("log_lines_dropped", dropped)
        version_of = ["model", "version"]
        values = (
            "Values at the newest step, and forecasts, by bin: 0 is below those of the reference windows, 11 above."
        )
        self.watched_values = counter("watched_values", values, [*version_of, "of", "name", "bin"])
        values = "Reference windows by bin, of the newest step and of forecasts."
        self.reference_values = steady("watched_reference_values", values, [*version_of, "of", "name", "bin"])
        self.watched_explained = counter("watched_explained", "Served forecasts that were explained.", version_of)
        contributions = "Sums of their contributions that are positive, and of those that are negative, as magnitudes."
        self.watched_contributions = counter("watched_contributions", contributions, [*version_of, "name", "sign"])
        contributions = "Mean of the same over the reference windows."
        named = [*version_of, "name", "sign"]
        self.reference_contribution = steady("watched_reference_contribution", contributions, named)
        self.watched_known = counter("watched_known", "Served forecasts that have an outcome.", version_of)
        errors = "Sums of forecast minus outcome where positive, and where negative, as magnitudes."
        self.watched_errors = counter("watched_errors", errors, [*version_of, "sign"])
        self.reference_error = steady("watched_reference_error", "Mean of the same.", [*version_of, "sign"])
        covered = "Outcomes of forecasts with intervals, by level, and whether the interval holds them."
        self.watched_intervals = counter("watched_intervals", covered, [*version_of, "level", "holds"])
        outcomes = "Outcomes by what became of them: matched, repeated, unknown."
        self.outcomes = counter("outcomes", outcomes, ["model", "result"])
        self._of_models = (self._residuals, self._unconverged, self._outside_range, self.outcomes)
        watched = (self.watched_values, self.watched_explained, self.watched_contributions, self.watched_known)
        reference = (self.reference_values, self.reference_contribution, self.reference_error)
        self._of_versions = (self._forecasts, *watched, self.watched_errors, self.watched_intervals, *reference)
        unwatched = "Forecasts that are not in the hours of drift: the queue was full, or counting or writing failed."
        self.unwatched = counter("unwatched_forecasts", unwatched, ["reason"])
        for reason in ("full", "failed"):
            self.unwatched.labels(reason)
        build = Info("kanscope_build", "Versions of Kanscope, torch and Python.", registry=None)
        build.info({"version": version("kanscope"), "torch": version("torch"), "python": platform.python_version()})
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []
        # Finding a metric by its labels is slow.
        self._of_route = cache(lambda route, *answer: (requests.labels(route, *answer), seconds.labels(route)))
        folder = os.environ.get(SHARED)
        self._is_shared = folder is not None
        self._exposed = registry if folder is None else CollectorRegistry()
        self._exposed.register(build)
        self._exposed.register(ProcessCollector(registry=None) if folder is None else _Processes(Path(folder)))
        if folder is not None:
            MultiProcessCollector(self._exposed, folder)  # type: ignore[no-untyped-call]

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All metrics as text, of all processes that share a folder, and its media type: OpenMetrics if accepted."""
        self.refresh()
        encode, media_type = choose_encoder(accept)
        return encode(self), media_type  # which only collects

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics of what is served."""
        served, gone = None if self._list_served is None else self._list_served(), set[Version]()
        for metric in self._exposed.collect():
            samples, metric.samples = metric.samples, []
            for sample in samples:
                of = sample.labels.get("model", ""), sample.labels.get("version", "")
                if served is not None and of[0] and of not in served:
                    gone.add(of)
                else:
                    metric.samples.append(sample)
            yield metric
        if gone and not self._is_shared:
            self._remove(gone)

    def _remove(self, gone: Collection[Version]) -> None:
        for name, number in gone:
            for metric in self._of_versions if number else self._of_models:
                metric.remove_by_labels({"model": name, "version": number} if number else {"model": name})
        self._forecasts_of.cache_clear()
        self.on_removed(gone)

    def watch(self, gauge: Gauge, number: Callable[[], float]) -> None:
        """Sets a gauge to a number at each refresh."""
        self._watched.append((gauge, number))

    def refresh(self) -> None:
        """Sets the watched gauges, so that other processes see their current values."""
        for gauge, number in self._watched:
            gauge.set(number())

    def observe_request(self, route: str, status: int, code: str, seconds: float) -> None:
        """Records an answered request, with the code of its error, "" if there is none."""
        number, duration = self._of_route(route, status, code)
        number.inc()
        duration.observe(seconds)

    def observe_forecasts(self, model: str, version: str, use: str, n: int) -> None:
        """Counts forecasts of a version of a model, whose `use` is answer, explored, shadow or skipped."""
        self._forecasts_of(model, version, use).inc(n)

    def observe_explanation(self, model: str, residual: float, converged: bool) -> None:
        """Records an explanation of a model: its residual in standard deviations of the output, and its convergence."""
        self._residuals.labels(model).observe(residual)
        if not converged:
            self._unconverged.labels(model).inc()

    def observe_outside_range(self, model: str, counts: Mapping[str, int]) -> None:
        """Counts features outside their training ranges, each once per window."""
        for feature, n in counts.items():
            self._outside_range.labels(model, feature).inc(n)


def count_restarts() -> Callable[[], None]:
    """Counts a restart of a worker at each call, by the supervisor, in the folder that its workers share.

    The client library chose as it was imported, when there was no folder yet, that this process shares nothing.
    """
    name = f"kanscope_{RESTARTS}"
    value = MultiProcessValue()("counter", name, f"{name}_total", (), (), RESTARTS_HELP)  # type: ignore[no-untyped-call]
    return lambda: value.inc(1)


class _Processes(Collector):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Yields the usual ``process_*`` metrics, with a sample per process that shares the folder."""
        families: dict[str, Metric] = {}
        for file in sorted(self._folder.glob("gauge_livesum_*.db")):
            (pid,) = re.findall(r"(\d+)\.db", file.name)
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                family.samples += [sample._replace(labels={"pid": pid}) for sample in metric.samples]
        yield from families.values()
