"""Everything that is forecast is counted once, as the library counts it, in bounded memory."""

from __future__ import annotations

import logging
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_model, make_windows, with_intervals
from prometheus_client.parser import text_string_to_metric_families as parse
from readmes import PAGES, READMES
from waiting import poll

from kanmodel.model import Model
from kanmodel.tables.statistics.tally import Tally
from service.models.registry import Served
from service.settings import Settings
from service.telemetry import monitor as module
from service.telemetry.metrics import Metrics
from service.telemetry.monitor import Monitor
from service.telemetry.receipts import Receipt, Receipts

Watch = Callable[..., Monitor]


@pytest.fixture(scope="module")
def served() -> Served:
    return Served("load", Model.of(with_intervals(make_model("lstm", targets=("a", "b"))), "load"))


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    return Metrics()


@pytest.fixture
def watch(metrics: Metrics) -> Iterator[Watch]:
    """Makes a monitor, whose thread is not started."""
    made: list[Monitor] = []

    def make(**settings: Any) -> Monitor:
        made.append(Monitor(Settings(**{"monitor_share": 0, **settings}), metrics))
        return made[-1]

    yield make
    for each in made:
        each.history.close()


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Values of one metric by its labels, sorted by their names, without 0."""
    text = metrics.expose("")[0].decode()
    found = [sample for family in parse(text) for sample in family.samples if sample.name == f"kanscope_{name}"]
    return {tuple(value for _, value in sorted(one.labels.items())): one.value for one in found if one.value}


def hours(monitor: Monitor, served: Served) -> Tally:
    monitor.flush()
    found = monitor.history.read(monitor.counter_of(served).of, 0)
    return Tally.join([*found.values()]).total()


def give_receipts(monitor: Monitor, served: Served, predictions: np.ndarray, *bounds: np.ndarray) -> list[Receipt]:
    """The receipts of forecasts (n, n_outputs) with bounds (n_levels, n, n_bounded)."""
    receipts, counter = Receipts("k" * 32), monitor.counter_of(served)
    intervals = np.stack([side[:, :, 0].T for side in bounds], axis=-1) if bounds else np.empty((len(predictions), 0))
    signed = receipts.sign(counter.of, counter.watched.output, "an id", predictions[:, counter.output], intervals)
    return [found for text in signed if (found := receipts.verify(text))]


def test_forecasts_are_counted_as_the_library_does(watch, metrics, served):
    """Requests of any size, together or one by one: the sums of an hour, and counters, are those of `Tally.of`."""
    monitor, windows = watch(), make_windows(served.model, 200)
    predictions, start = served.model.predict(windows), 0
    for number, size in enumerate((1, 1, 50, 1, 100, 47)):
        monitor.watch(served, windows[start : start + size], predictions[start : start + size])
        start += size
        if number % 2:
            monitor.flush()
    counter, nothing = monitor.counter_of(served), np.full((200, 1), np.nan)
    n_names, n_levels = len(counter.watched.names), len(counter.watched.levels)
    unknown = np.tile(nothing, n_names), nothing[:, 0], np.tile(nothing, n_levels)
    expected = Tally.of(counter.bins, windows[:, -1], predictions[:, 0], *unknown)
    for mine, theirs in zip(hours(monitor, served).arrays, expected.arrays, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    counts = samples(metrics, "watched_values_total")
    assert sum(counts.values()) == 200 * 5
    for number, name in enumerate(counter.watched.features):
        found = [counts.get((str(bin), "load", name, "input", "1"), 0) for bin in range(12)]
        assert found == expected.inputs[0, number].tolist()
    found = [counts.get((str(bin), "load", "a+1", "forecast", "1"), 0) for bin in range(12)]
    assert found == expected.forecasts[0, 0].tolist()
    reference = samples(metrics, "watched_reference_values")
    assert sum(reference.values()) == 5 * len(served.model.reference)


def test_four_monitors_count_as_one(watch, served, tmp_path):
    """The same traffic and outcomes, spread over monitors with one file, give the same hours."""
    windows = make_windows(served.model, 400)
    predictions = served.model.predict(windows)
    one, four = watch(), [watch(monitor=tmp_path / "file") for _ in range(4)]
    for number in range(400):
        for monitor in (one, four[number % 4]):
            monitor.watch(served, windows[[number]], predictions[[number]])
    for monitor in four:
        monitor.flush()
    outcomes = [(receipt, float(at)) for at, receipt in enumerate(give_receipts(one, served, predictions))]
    assert one.settle("load", outcomes) == (400, 0, 0)
    assert [four[at % 4].settle("load", [outcome]) for at, outcome in enumerate(outcomes)] == [(1, 0, 0)] * 400
    for mine, theirs in zip(hours(one, served).arrays, hours(four[1], served).arrays, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


def test_errors_and_coverage_are_those_of_the_forecasts(watch, metrics, served):
    """By sign in the metrics, so that sums and magnitudes add up; intervals only of forecasts that had them."""
    monitor, windows = watch(), make_windows(served.model, 60)
    predictions, lower, upper = served.model.predict_bounds(windows)
    actual = predictions[:, 0] + np.random.default_rng(0).normal(size=60) * (upper - lower)[0, :, 0]
    monitor.watch(served, windows, predictions)
    given = give_receipts(monitor, served, predictions[:40], lower[:, :40], upper[:, :40])
    given += give_receipts(monitor, served, predictions)[40:]
    outcomes = [*zip(given, actual.tolist(), strict=True)]
    assert monitor.settle("load", [*outcomes[:30], *outcomes[:30], *outcomes[30:]]) == (60, 0, 30)
    assert monitor.settle("load", [(outcomes[0][0], 1e9), *outcomes[1:3], (None, 1.0)]) == (0, 1, 3)
    found, errors = hours(monitor, served), predictions[:, 0] - actual
    held = ((lower <= actual[:, None]) & (actual[:, None] <= upper))[:, :40, 0].sum(axis=1)
    assert found.known == 60 and found.errors[0] == pytest.approx(errors.sum())
    assert found.sizes_of_errors[0] == pytest.approx(np.abs(errors).sum())
    assert found.intervals[0].tolist() == [40, 40] and found.covered[0].tolist() == held.tolist()
    sums = samples(metrics, "watched_errors_total")
    assert sums["load", "positive", "1"] - sums["load", "negative", "1"] == pytest.approx(errors.sum())
    assert sum(sums.values()) == pytest.approx(np.abs(errors).sum())
    intervals = samples(metrics, "watched_intervals_total")
    assert [intervals.get(("yes", level, "load", "1"), 0) for level in ("0.8", "0.95")] == held.tolist()
    assert sum(intervals.values()) == 80
    assert samples(metrics, "outcomes_total") == {
        ("load", "matched"): 60,
        ("load", "repeated"): 33,
        ("load", "unknown"): 1,
    }


def test_the_documents_say_how_many_receipts_are_remembered():
    """The page, and the description of the answer."""
    described = (Path(module.__file__).parents[1] / "answers" / "forecasts.py").read_text()
    for text in (READMES[PAGES / "how-to" / "monitoring.md"], described):
        assert f"last {module.N_RECENT:,} receipts" in " ".join(text.split())


def test_each_forecast_is_drawn_with_the_same_probability(watch, served):
    """Windows of large requests as those of small ones; at a share of 1 all, at 0 none."""
    windows = make_windows(served.model, 50)
    predictions, drawn = served.model.predict(windows), np.zeros(50)
    monitor = watch(monitor_share=0.1)
    for number in range(400):
        size = 50 if number % 2 else 1
        for start in range(0, 50, size):
            monitor.watch(served, windows[start : start + size], predictions[start : start + size])
            for sample in monitor.take_samples():
                drawn[np.flatnonzero((windows == sample.window).all(axis=(1, 2)))] += 1
        monitor.flush()
    assert drawn.sum() == pytest.approx(2000, abs=200) and drawn.min() > 15 and drawn.max() < 75
    for share, n in ((0, 0), (1, module.N_SAMPLES)):
        monitor = watch(monitor_share=share)
        monitor.watch(served, windows, predictions)
        assert len(monitor.take_samples()) == n and monitor.take_samples() == []


def test_memory_is_constant(watch, served, monkeypatch):
    """However many forecasts and outcomes there are."""
    monkeypatch.setattr(module, "N_RECENT", 100)
    monitor = watch()
    windows = np.repeat(make_windows(served.model, 50), 20, axis=0)
    predictions = served.model.predict(windows)
    receipts = give_receipts(monitor, served, predictions[:50])

    def feed(n: int) -> int:
        for number in range(n):
            monitor.watch(served, windows, predictions)
            monitor.flush()
            given = [receipt._replace(tag=b"%d" % number + receipt.tag) for receipt in receipts]
            assert monitor.settle("load", [(receipt, 1.0) for receipt in given]) == (50, 0, 0)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = feed(100)
        assert feed(200) - before < 100_000
    finally:
        tracemalloc.stop()


def test_what_does_not_fit_in_the_queue_is_counted(watch, metrics, served, monkeypatch):
    """A thread that is too slow delays no request: forecasts beyond the queue are not counted, which is said."""
    monkeypatch.setattr(module, "QUEUE_BYTES", 50_000)
    monitor, windows = watch(), make_windows(served.model, 10)
    predictions = served.model.predict(windows)
    for _ in range(100):
        monitor.watch(served, windows, predictions)
    lost = samples(metrics, "unwatched_forecasts_total")["full",]
    assert 0 < lost < 1000 and hours(monitor, served).forecasts.sum() == 1000 - lost


def test_a_file_that_cannot_be_written_loses_no_count(watch, served, caplog, monkeypatch):
    """What is counted waits, which the log says once; outcomes are not taken, and can be sent again."""
    caplog.set_level(logging.INFO, "service.telemetry.backlog")
    monitor, windows = watch(monitor_seconds=0.01), make_windows(served.model, 10)
    predictions, write, tried = served.model.predict(windows), monitor.history.write, []

    def fail(*_: Any) -> None:
        tried.append(1)
        raise sqlite3.OperationalError("disk is full")

    monkeypatch.setattr(monitor.history, "write", fail)
    monitor.start()
    for _ in range(2):
        monitor.watch(served, windows, predictions)
        n = len(tried)
        poll(lambda n=n: len(tried) > n + 1)
    outcomes = [(receipt, 1.0) for receipt in give_receipts(monitor, served, predictions)]
    with pytest.raises(sqlite3.OperationalError):
        monitor.settle("load", outcomes)
    monkeypatch.setattr(monitor.history, "write", write)
    poll(lambda: "writes again" in caplog.text)
    assert hours(monitor, served).forecasts.sum() == 20 and caplog.text.count("cannot write") == 1
    assert monitor.settle("load", outcomes) == (10, 0, 0) and hours(monitor, served).known == 10


def test_counts_that_wait_too_long_are_lost_and_counted(watch, metrics, served, tmp_path, monkeypatch):
    """Where the file cannot be written for many hours, memory stays bounded."""
    monkeypatch.setattr(module, "N_PENDING", 3)
    monkeypatch.setattr("service.telemetry.history.BUSY_SECONDS", 0.01)
    monitor, windows = watch(monitor=tmp_path / "file"), make_windows(served.model, 10)
    with closing(sqlite3.connect(tmp_path / "file", isolation_level=None)) as locking:
        locking.execute("BEGIN IMMEDIATE")
        for hour in range(500_000, 500_005):
            monkeypatch.setattr(module, "time", lambda hour=hour: 3600 * hour)
            monitor.watch(served, windows, served.model.predict(windows))
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                monitor.flush()
    assert hours(monitor, served).forecasts.sum() == 30
    assert samples(metrics, "unwatched_forecasts_total") == {("failed",): 20}


def test_a_model_that_cannot_be_counted_does_not_affect_others(watch, metrics, served, caplog, monkeypatch):
    """Its forecasts are lost to the counts, which is said."""
    other = Served("other", served.model, "1")
    monitor, windows, make = watch(), make_windows(served.model, 10), module.Counter.make

    def refuse(one: Any, metrics: Metrics) -> module.Counter:
        if one.name == "other":
            raise ValueError("no bins")
        return make(one, metrics)

    monkeypatch.setattr(module.Counter, "make", refuse)
    for one in (other, served, other):
        monitor.watch(one, windows, served.model.predict(windows))
    assert hours(monitor, served).forecasts.sum() == 10 and "other cannot be counted" in caplog.text
    assert samples(metrics, "unwatched_forecasts_total") == {("failed",): 20}


def test_a_model_of_many_features_has_some_in_the_metrics(watch, metrics):
    """The first 100, and all of them in the hours."""
    wide = Served("wide", Model.of(make_model("head", n_features=120, lookback=1, n_reference=20), "wide"))
    monitor, windows = watch(), make_windows(wide.model, 5)
    monitor.watch(wide, windows, wide.model.predict(windows))
    assert hours(monitor, wide).inputs.sum() == 5 * 120
    assert sum(samples(metrics, "watched_values_total").values()) == 5 * 101


def test_the_rest_is_counted_at_the_end(metrics, served, tmp_path):
    """Closing writes what waits, though the time between two writes is long."""
    settings = Settings(monitor=tmp_path / "file", monitor_share=0, monitor_seconds=1000)
    monitor, windows = Monitor(settings, metrics), make_windows(served.model, 10)
    monitor.start()
    monitor.watch(served, windows, served.model.predict(windows))
    monitor.close()
    again = Monitor(settings, metrics)
    assert hours(again, served).forecasts.sum() == 10
    again.history.close()
