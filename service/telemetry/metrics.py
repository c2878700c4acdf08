"""What Prometheus reads at /metrics. Every label has few values: routes, models, features, states, never a client's."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from service.models.registry import Registry, State

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_DEVIATIONS = (1e-6, 1e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 1e-1)


class Metrics:
    """The metrics of one app. Those of another app in the same process are its own.

    Args:
        models: the models, counted by state whenever somebody asks.
        replica: what every sample says beside its process, where the same id may be one of another machine.
    """

    def __init__(self, models: Registry, replica: str = "") -> None:
        self._registry = registry = _OfThisProcess(replica)
        self._requests = Counter(
            "kanscope_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "kanscope_request_seconds",
            "Seconds from the arrival of a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge("kanscope_requests_in_flight", "Requests being answered.", registry=registry)
        self._queue_depth = Gauge(
            "kanscope_queue_depth", "Requests that wait for the models.", ["priority"], registry=registry
        )
        self._pending_bytes = Gauge(
            "kanscope_pending_bytes",
            "Bytes that requests hold while they are read, computed and answered.",
            ["priority"],
            registry=registry,
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
            "Explanations that have not converged.",
            ["model"],
            registry=registry,
        )
        self._outside_range = Counter(
            "kanscope_inputs_outside_range",
            "Windows to forecast with a feature outside its training range.",
            ["model", "feature"],
            registry=registry,
        )
        self._unprepared = Gauge(
            "kanscope_unprepared_outputs",
            "Outputs of models whose global results are still to be computed, before anybody asks.",
            registry=registry,
        )
        by_state = Gauge("kanscope_models", "Models by state.", ["state"], registry=registry)
        for state in get_args(State):
            by_state.labels(state).set_function(partial(_count, models, state))
        Info("kanscope_build", "Versions of what runs.", registry=registry).info(
            {"version": version("kanscope"), "torch": version("torch"), "python": platform.python_version()}
        )
        ProcessCollector(registry=registry)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All metrics as text, and its media type: OpenMetrics where the Accept header asks for it."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def watch_requests(self, count: Callable[[], int]) -> None:
        """Reports a number of requests, whenever somebody asks."""
        self._in_flight.set_function(count)

    def watch_queue(self, priority: str, depth: Callable[[], int]) -> None:
        """Reports how much waits at one priority, whenever somebody asks."""
        self._queue_depth.labels(priority).set_function(depth)

    def watch_pending_bytes(self, priority: str, n_bytes: Callable[[], int]) -> None:
        """Reports how many bytes requests of one priority hold, whenever somebody asks."""
        self._pending_bytes.labels(priority).set_function(n_bytes)

    def watch_preparation(self, count: Callable[[], int]) -> None:
        """Reports how many outputs wait for their global results, whenever somebody asks."""
        self._unprepared.set_function(count)

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """One answered request."""
        self._requests.labels(route, status).inc()
        self._request_seconds.labels(route).observe(seconds)

    def observe_batch(self, n_windows: int) -> None:
        """One batch of forecasts."""
        self._batch_windows.observe(n_windows)

    def observe_slice(self, seconds: float) -> None:
        """One slice of explanations."""
        self._slice_seconds.observe(seconds)

    def observe_explanation(self, model: str, residual: float, converged: bool) -> None:
        """One explanation.

        Args:
            model: name of the model.
            residual: in standard deviations of the output.
            converged: whether the explanation has.
        """
        self._residuals.labels(model).observe(residual)
        if not converged:
            self._unconverged.labels(model).inc()

    def observe_outside_range(self, model: str, features: Iterable[str]) -> None:
        """The features, one for each window that has it, outside their training ranges."""
        for feature in features:
            self._outside_range.labels(model, feature).inc()


class _OfThisProcess(CollectorRegistry):
    """A registry that says of every sample which process it is of: several may answer at one address."""

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._labels = {"replica": replica} if replica else {}

    def collect(self) -> Iterable[Metric]:
        labels = {"pid": str(os.getpid()), **self._labels}
        for metric in super().collect():
            metric.samples = [sample._replace(labels={**sample.labels, **labels}) for sample in metric.samples]
            yield metric


def _count(models: Registry, state: State) -> int:
    return sum(entry.state == state for entry in models.entries)
