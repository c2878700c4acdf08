"""The monitor: what is forecast is counted in bins of the reference windows, for /metrics and drift, and its outcomes.

Forecasts wait in a backlog of bounded size, and are counted together by a thread of its own; none is kept after that.
What it counts adds up over processes, replicas and hours; see `kanmodel.tables.statistics.tally`.
"""

from __future__ import annotations

import logging
import math
import os
import random
from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kanmodel.arrays import Array
from kanmodel.model import Model
from kanmodel.monitoring.tallies import TallySchema
from kanmodel.network.intervals import forecasts_of
from kanmodel.tables.statistics.tally import Bins, Tally
from service.settings import Settings
from service.telemetry.backlog import Backlog
from service.telemetry.history import HOUR, Counted, History
from service.telemetry.metrics import SHARED, Metrics
from service.telemetry.receipts import Receipt

if TYPE_CHECKING:
    from service.models.registry import Served

logger = logging.getLogger(__name__)
FILE = "monitor.sqlite"  # that the processes of one service share
QUEUE_BYTES = 32 << 20
ITEM_BYTES = 1000  # that a request takes in the queue beside its arrays
N_SAMPLES = 32  # forecasts that may wait to be explained
N_NAMES = 100  # features, and names of contributions, that /metrics has of a model; drift has all
N_VERSIONS = 256  # of models, whose bins are held
N_PENDING = 1000  # tallies that wait while the file cannot be written; the oldest are lost
SIGNS = ("positive", 1), ("negative", -1)
N_RECENT = 1 << 15  # receipts whose outcomes are remembered, to find those that are sent again

Asked = tuple["Counter | Served", bytes, Array]
"""The forecasts of one request, in the queue: what its model counts in, or the model if it has not been counted before
(a model in the queue could not be dropped from memory); values of the features at the newest step, (n, n_features) as
bytes; and forecasts (n, n_outputs)."""


class Sample(NamedTuple):
    """A forecast that is drawn to be explained."""

    served: Served
    window: Array  # (lookback, n_features)


@dataclass(frozen=True)
class Counter:
    """What one version of a model counts in.

    Attributes:
        of: which it is, in the history.
        output: number of the output that is watched: the first forecast of a target or its median.
        watched: names and units of the columns.
        bins: of the features, and then of the forecasts.
        values: counters of the metrics, by column of `bins`, of the first `N_NAMES` features and the forecast.
    """

    of: Counted
    output: int
    watched: TallySchema
    bins: Bins
    values: Mapping[int, Sequence[Any]]

    @classmethod
    def make(cls, served: Served, metrics: Metrics) -> Counter:
        """That of a model, whose reference windows the metrics state from then on."""
        model, output = served.model, watched_output(served.model)
        watched = TallySchema.of(model, output)
        of = describe_counted(served, watched)
        values = reference_values(model, output)
        bins, children = Bins.of(values), dict[int, list[Any]]()
        counts = bins.count(values)[0].reshape(len(bins.edges), -1)
        columns = [("input", name) for name in watched.features[:N_NAMES]]
        for column, kind in [*enumerate(columns), (len(bins.edges) - 1, ("forecast", watched.output))]:
            names = [(of.name, of.version, *kind, str(number)) for number in range(counts.shape[1])]
            children[column] = [metrics.watched_values.labels(*each) for each in names]
            for each, count in zip(names, counts[column].tolist(), strict=True):
                metrics.reference_values.labels(*each).set(count)
        return cls(of, output, watched, bins, children)


class Monitor:
    """Counts forecasts that `watch` is told of, on the event loop; everything else may be called by any thread.

    Raises ConfigError if its file cannot be used.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        assert settings.monitor != "off"
        path, folder = settings.monitor, os.environ.get(SHARED)
        if path is None and folder is not None:
            path = Path(folder) / FILE
        self.history = History(path, settings.monitor_hours, settings.monitor_bytes)
        self._metrics, self._share = metrics, settings.monitor_share
        texts = "the monitor cannot write", "the monitor writes again"
        self._backlog = Backlog[Asked]("monitor", QUEUE_BYTES, settings.monitor_seconds, lambda _: self.flush(), *texts)
        self._lock = RLock()  # of all that follows
        self._counters: dict[tuple[str, str, str], Counter] = {}  # by name, version and checkpoint
        self._woken: set[Hashable] = set()  # versions for whose first forecast the thread was woken
        self._pending: dict[tuple[Counted, int], Tally] = {}
        self._recent: OrderedDict[bytes, None] = OrderedDict()  # tags of receipts that have their outcome
        self._samples: deque[Sample] = deque(maxlen=N_SAMPLES)
        self._until = self._draw() - 1  # forecasts until the next sample
        self.stated: dict[
            tuple[str, str], str
        ] = {}  # checkpoints whose reference windows the metrics state, by version
        metrics.on_removed = self._forget

    def start(self) -> None:
        """Starts counting."""
        self._backlog.start()

    def close(self) -> None:
        """Counts and writes the rest."""
        if left := self._backlog.close():
            logger.error("the process ends before %d requests are counted; see whether its disk is full", len(left))
        self.history.close()

    def watch(self, served: Served, windows: Array, predictions: Array) -> None:
        """Counts forecasts (n, n_outputs) of windows (n, lookback, n_features), original units; takes microseconds."""
        n, newest = len(predictions), windows[:, -1].tobytes()  # the windows themselves are let go
        if self._until < n:
            self._sample(served, windows)
        self._until -= n
        key = served.name, served.version, served.checkpoint
        counted = self._counters.get(key, served)
        if not self._backlog.put(ITEM_BYTES + len(newest) + predictions.nbytes, (counted, newest, predictions)):
            self._metrics.unwatched.labels("full").inc(n)
        if counted is served and key not in self._woken:  # once, also of a model that cannot be counted
            self._woken = {*self._woken, key} if len(self._woken) < N_VERSIONS else {key}
            self._backlog.wake()

    def take_samples(self) -> list[Sample]:
        """The samples that wait to be explained; they are forgotten here."""
        return [self._samples.popleft() for _ in range(len(self._samples))]

    def count_explained(self, served: Served, contributions: Array) -> None:
        """Counts the contributions of samples, (n, n_names)."""
        with self._lock:
            of, n_names = self.counter_of(served).of, min(contributions.shape[1], N_NAMES)
            tally, names = of.empty(), self.counter_of(served).watched.names
            tally.explained[0] += len(contributions)
            tally.contributions[0] += contributions.sum(axis=0)
            tally.sizes[0] += np.abs(contributions).sum(axis=0)
            self._add(of, int(time() // HOUR), tally)
            labels = of.name, of.version
            self._metrics.watched_explained.labels(*labels).inc(len(contributions))
            for sign, factor in SIGNS:
                sums = np.maximum(factor * contributions, 0).sum(axis=0).tolist()
                for name, of_sign in zip(names[:n_names], sums, strict=False):
                    self._metrics.watched_contributions.labels(*labels, name, sign).inc(of_sign)

    def state_reference(self, served: Served, reference: Tally) -> None:
        """States what the reference windows have beside bins in the metrics: contributions and errors."""
        of, total = (served.name, served.version), reference.total()
        for sign, factor in SIGNS:
            means = (total.sizes[0] + factor * total.contributions[0]) / 2 / total.explained[0]
            for name, mean in zip(self.counter_of(served).watched.names[:N_NAMES], means.tolist(), strict=False):
                self._metrics.reference_contribution.labels(*of, name, sign).set(mean)
            if total.known[0]:
                mean = (total.sizes_of_errors[0] + factor * total.errors[0]) / 2 / total.known[0]
                self._metrics.reference_error.labels(*of, sign).set(mean)
        self.stated[of] = served.checkpoint

    def counter_of(self, served: Served) -> Counter:
        """What a version of a model counts in, made at first."""
        key = (served.name, served.version, served.checkpoint)
        with self._lock:
            if key not in self._counters:
                while len(self._counters) >= N_VERSIONS:
                    del self._counters[next(iter(self._counters))]
                self._counters[key] = Counter.make(served, self._metrics)
            return self._counters[key]

    def _forget(self, versions: Collection[tuple[str, str]]) -> None:
        """Forgets what the metrics no longer have, so that it is made anew if a version comes back."""
        with self._lock:
            self._counters = {key: one for key, one in self._counters.items() if key[:2] not in versions}
        for of in versions:
            self.stated.pop(of, None)

    def settle(self, name: str, outcomes: Sequence[tuple[Receipt | None, float]]) -> tuple[int, int, int]:
        """Compares forecasts with what came, None of those that are unknown, in the hours of the forecasts.

        Returns how many outcomes were matched, unknown, and repeated: of receipts that this process remembers. Raises
        `sqlite3.Error`, and then counts nothing.
        """
        new: dict[bytes, tuple[Receipt, float]] = {}
        tallies: dict[tuple[Counted, int], Tally] = {}
        with self._lock:
            for one, actual in outcomes:
                if one is not None and one.tag not in self._recent:
                    new.setdefault(one.tag, (one, actual))
            for one, actual in new.values():
                tally, error = tallies.setdefault((one.of, one.hour), one.of.empty()), one.forecast - actual
                tally.known[0] += 1
                tally.errors[0] += error
                tally.sizes_of_errors[0] += abs(error)
                for number, (low, high) in enumerate(one.intervals):
                    tally.intervals[0, number] += 1
                    tally.covered[0, number] += low <= actual <= high
            self.history.write(tallies, int(time() // HOUR))
            self._recent.update(dict.fromkeys(new))
            while len(self._recent) > N_RECENT:
                self._recent.popitem(last=False)
        for (of, _), tally in tallies.items():
            labels = of.name, of.version
            self._metrics.watched_known.labels(*labels).inc(tally.known[0])
            for sign, factor in SIGNS:
                of_sign = (tally.sizes_of_errors[0] + factor * tally.errors[0]) / 2
                self._metrics.watched_errors.labels(*labels, sign).inc(max(of_sign, 0))  # 0 but for rounding
            for level, n_all, n_held in zip(of.levels.split(), tally.intervals[0], tally.covered[0], strict=True):
                for holds, n_of in (("yes", n_held), ("no", n_all - n_held)) if n_all else ():
                    self._metrics.watched_intervals.labels(*labels, level, holds).inc(n_of)
        n_unknown = sum(one is None for one, _ in outcomes)
        counts = {"matched": len(new), "unknown": n_unknown, "repeated": len(outcomes) - n_unknown - len(new)}
        for result, n in counts.items():
            self._metrics.outcomes.labels(name, result).inc(n)
        return counts["matched"], counts["unknown"], counts["repeated"]

    def flush(self) -> None:
        """Counts what waits, and writes it; raises `sqlite3.Error` if that fails, and what is counted waits."""
        with self._lock:
            by_model: dict[int, list[Asked]] = {}
            for one in self._backlog.take():
                by_model.setdefault(id(one[0]), []).append(one)
            for group in by_model.values():
                try:
                    self._count(group)
                except Exception:  # of one model, which does not affect the others
                    counted = group[0][0]
                    name = (counted.of if isinstance(counted, Counter) else counted).name
                    logger.exception("forecasts of model %s cannot be counted; please report this", name)
                    self._metrics.unwatched.labels("failed").inc(sum(len(one[-1]) for one in group))
            self.history.write(self._pending, int(time() // HOUR))
            self._pending.clear()

    def _count(self, asked: Sequence[Asked]) -> None:
        """Counts requests to one model."""
        (counted, *_), newest, predictions = zip(*asked, strict=True)
        counter = counted if isinstance(counted, Counter) else self.counter_of(counted)
        forecasts = np.concatenate(predictions)[:, [counter.output]]
        values = np.frombuffer(b"".join(newest)).reshape(len(forecasts), -1)
        counts, sums = counter.bins.count(np.hstack([values, forecasts]))
        tally = counter.of.empty()
        tally.inputs[:], tally.forecasts[:] = counts[:, :-1], counts[:, -1:]
        tally.input_sums[:], tally.forecast_sums[:] = sums[:, :-1], sums[:, -1:]
        self._add(counter.of, int(time() // HOUR), tally)
        for column, children in counter.values.items():
            for number in np.flatnonzero(counts[0, column]).tolist():
                children[number].inc(counts[0, column, number])

    def _sample(self, served: Served, windows: Array) -> None:
        while self._until < len(windows):
            self._samples.append(Sample(served, windows[int(self._until)].copy()))
            self._until += self._draw()

    def _add(self, of: Counted, hour: int, tally: Tally) -> None:
        key = of, hour
        self._pending[key] = self._pending[key] + tally if key in self._pending else tally
        while len(self._pending) > N_PENDING:
            lost = self._pending.pop(next(iter(self._pending)))
            self._metrics.unwatched.labels("failed").inc(lost.forecasts.sum())

    def _draw(self) -> float:
        """How many forecasts further the next sample is, from 1: a geometric distribution, as each is drawn alone."""
        if self._share <= 0:
            return math.inf
        if self._share >= 1:
            return 1
        return 1 + int(math.log(1 - random.random()) / math.log(1 - self._share))  # nosec B311


def describe_counted(served: Served, watched: TallySchema) -> Counted:
    """Which version of a model a served one is, and what its tallies have."""
    levels = " ".join(f"{one:g}" for one in watched.levels)
    names = served.name, served.version, served.checkpoint
    return Counted(*names, len(watched.features), len(watched.names), levels)


def watched_output(model: Model) -> int:
    """The number of the output that is watched: the first forecast of the first target, or of its median."""
    return forecasts_of(model.config)[0]


def reference_values(model: Model, output: int) -> Array:
    """Values of the reference windows at the newest step, and forecasts, (n, n_features + 1), original units."""
    newest = model.scaling.features_to_original(model.reference.scaled[:, -1])
    return np.column_stack([newest, model.reference_predictions[:, output]])
