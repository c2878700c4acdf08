"""Prometheus metrics of /metrics. Labels have bounded cardinality: routes, models, features, states; no client text."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.models.registry import Registry, State

SHARED = "PROMETHEUS_MULTIPROC_DIR"  # folder through which the client library's processes share metrics
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_DEVIATIONS = (1e-6, 1e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 1e-1)


class Metrics:
    """The metrics of one app; each app in a process has its own.

    Args:
        models: the models, counted by state at each scrape.
        replica: label of every sample, with its process, if a scrape reaches one of several replicas; empty for none.
    """

    def __init__(self, models: Registry, replica: str = "") -> None:
        registry = _OfReplica(replica) if replica else CollectorRegistry()
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []
        self._requests = Counter(
            "kanscope_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "kanscope_request_seconds",
            "Seconds from the arrival of a request to the end of its response.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._of_requests: dict[
            tuple[str, int], tuple[Counter, Histogram]
        ] = {}  # a cache: finding a metric by its labels is slow
        self._in_flight = Gauge(
            "kanscope_requests_in_flight", "Requests being answered.", registry=registry, multiprocess_mode="livesum"
        )
        self._queue_depth = Gauge(
            "kanscope_queue_depth",
            "Requests that wait for the models or are being computed.",
            ["priority"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._pending_bytes = Gauge(
            "kanscope_pending_bytes",
            "Bytes that requests hold while they are read, computed and answered.",
            ["priority"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._batch_windows = Histogram(
            "kanscope_batch_windows", "Windows forecast together.", buckets=_SIZES, registry=registry
        )
        self._slice_seconds = Histogram(
            "kanscope_slice_seconds",
            "Seconds of one slice of explanations.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._residuals = Histogram(
            "kanscope_explanation_residual",
            "Residuals of explanations, in standard deviations of the output.",
            ["model"],
            buckets=_DEVIATIONS,
            registry=registry,
        )
        self._unconverged = Counter(
            "kanscope_explanations_unconverged",
            "Explanations that did not converge.",
            ["model"],
            registry=registry,
        )
        self._outside_range = Counter(
            "kanscope_inputs_outside_range",
            "Windows with a feature outside its training range.",
            ["model", "feature"],
            registry=registry,
        )
        self._unprepared = Gauge(
            "kanscope_unprepared_outputs",
            "Model outputs whose global results are still to be computed in advance.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        by_state = Gauge(
            "kanscope_models", "Models by state.", ["state"], registry=registry, multiprocess_mode="livemax"
        )
        for state in get_args(State):
            self._watch(by_state.labels(state), partial(_count, models, state))
        in_memory = Gauge(
            "kanscope_model_bytes",
            "Estimated bytes of the models in memory.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._watch(in_memory, lambda: models.n_bytes)
        build = Info("kanscope_build", "Versions of Kanscope, torch and Python.", registry=None)
        build.info({"version": version("kanscope"), "torch": version("torch"), "python": platform.python_version()})
        folder = os.environ.get(SHARED)
        self._exposed = registry if folder is None else CollectorRegistry()
        self._exposed.register(build)
        self._exposed.register(ProcessCollector(registry=None) if folder is None else _Processes(Path(folder)))
        if folder is not None:
            MultiProcessCollector(self._exposed, folder)  # type: ignore[no-untyped-call]

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All metrics as text, and its media type: OpenMetrics if the Accept header asks for it.

        They cover all processes that share a folder (`SHARED`), otherwise this process.
        """
        self.refresh()
        encode, media_type = choose_encoder(accept)
        return encode(self._exposed), media_type

    def refresh(self) -> None:
        """Sets the watched gauges to their current values, so that other processes see them."""
        for gauge, number in self._watched:
            gauge.set(number())

    def watch_queue(self, priority: str, depth: Callable[[], int]) -> None:
        """Reports the queue depth of one priority, as of the last refresh."""
        self._watch(self._queue_depth.labels(priority), depth)

    def watch_pending_bytes(self, priority: str, n_bytes: Callable[[], int]) -> None:
        """Reports how many bytes requests of one priority hold, as of the last refresh."""
        self._watch(self._pending_bytes.labels(priority), n_bytes)

    def watch_preparation(self, count: Callable[[], int]) -> None:
        """Reports how many outputs wait for their global results, as of the last refresh."""
        self._watch(self._unprepared, count)

    def begin_request(self) -> None:
        """Counts a request in flight."""
        self._in_flight.inc()

    def end_request(self) -> None:
        """Ends the count of a request in flight."""
        self._in_flight.dec()

    def _watch(self, gauge: Gauge, number: Callable[[], float]) -> None:
        self._watched.append((gauge, number))

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Records an answered request."""
        counted = self._of_requests.get((route, status))
        if counted is None:
            counted = self._requests.labels(route, status), self._request_seconds.labels(route)
            self._of_requests[route, status] = counted
        number, duration = counted
        number.inc()
        duration.observe(seconds)

    def observe_batch(self, n_windows: int) -> None:
        """Records a batch of forecasts."""
        self._batch_windows.observe(n_windows)

    def observe_slice(self, seconds: float) -> None:
        """Records a slice of explanations."""
        self._slice_seconds.observe(seconds)

    def observe_explanation(self, model: str, residual: float, converged: bool) -> None:
        """Records an explanation.

        Args:
            model: name of the model.
            residual: its residual (convergence delta), in standard deviations of the output.
            converged: whether it has converged.
        """
        self._residuals.labels(model).observe(residual)
        if not converged:
            self._unconverged.labels(model).inc()

    def observe_outside_range(self, model: str, counts: Mapping[str, int]) -> None:
        """Counts features outside their training ranges, each once per window."""
        for feature, n in counts.items():
            self._outside_range.labels(model, feature).inc(n)


class _OfReplica(CollectorRegistry):
    """A registry that labels every sample with its replica, because each scrape reaches one of several.

    Args:
        replica: its id.
    """

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._labels = {"pid": str(os.getpid()), "replica": replica}

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics, each sample labelled with replica and process."""
        for metric in super().collect():
            metric.samples = [sample._replace(labels={**sample.labels, **self._labels}) for sample in metric.samples]
            yield metric


class _Processes(Collector):
    """The usual ``process_*`` metrics of each process that shares its metrics through a folder.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Yields each family once, with a sample per process, labelled with its id."""
        families: dict[str, Metric] = {}
        for file in sorted(self._folder.glob("gauge_livesum_*.db")):
            (pid,) = re.findall(r"(\d+)\.db", file.name)
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                family.samples += [sample._replace(labels={"pid": pid}) for sample in metric.samples]
        yield from families.values()


def _count(models: Registry, state: State) -> int:
    return sum(entry.state == state for entry in models.entries)
