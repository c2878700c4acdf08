"""Batching of forecasts, tested by counting batches and by a virtual clock."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field, replace
from itertools import cycle
from types import SimpleNamespace

import numpy as np
import pytest
from factories import make_model, make_windows
from hypothesis import given
from hypothesis import strategies as st
from virtual import VirtualWorker, run_virtually

from kanmodel import Model, NonFiniteError
from kanmodel.forecaster import refuse_non_finite_outputs
from service.compute import Compute
from service.room import Deadline
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.wire.errors import DeadlineError
from service.wire.security import OWNER
from service.work import forecasts
from service.work.forecasts import BATCH_WINDOWS, ForecastRequest, Forecasts, Plain

MODEL = Plain(Model.of(replace(make_model("head"), sha256="a")))
OTHER = Plain(Model.of(replace(make_model("head", seed=1), sha256="b")))
LATE = Deadline(1e9, 1e9)


def run(scenario, on_loop=None, make_thread=None, run=asyncio.run, observe=lambda n_windows: None):
    """The result of a scenario, a coroutine that takes forecasts.

    Args:
        scenario: the coroutine.
        on_loop: windows that may be computed on the loop, by checkpoint; None to have them measured.
        make_thread: makes a thread; None for a real one.
        run: runs the loop.
        observe: called with the windows of each batch.
    """

    async def start():
        compute = Compute(Settings(), Metrics())
        under_test = Forecasts(compute, observe)
        under_test._on_loop.update(on_loop or {})
        compute.start(make_thread)
        try:
            return await scenario(under_test)
        finally:
            assert not compute._waiting and not [*compute._running] and not compute.room.n_bytes
            await compute.close()

    return run(start())


def run_virtual(scenario, on_loop, observe=lambda n_windows: None):
    """The same on the virtual clock."""
    return run(scenario, on_loop, VirtualWorker, run_virtually, observe)


@pytest.fixture
def batches(monkeypatch):
    """The sizes of the requests of each batch, in order."""
    sizes = []
    forecast = Forecasts._forecast

    def count(self, model, windows):
        sizes.append([*map(len, windows)])
        return forecast(self, model, windows)

    monkeypatch.setattr(Forecasts, "_forecast", count)
    return sizes


NAMES = ("a", "b", MODEL.checkpoint, OTHER.checkpoint)
ON_THREAD, ON_LOOP = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 10**9)


@pytest.mark.parametrize("on_loop", [ON_THREAD, ON_LOOP, None])
def test_everyone_gets_the_forecasts_of_their_own_windows(on_loop):
    """Requests of two models and several sizes at once, on the loop and on the thread, get their own forecasts."""
    asked = [((MODEL, OTHER)[n % 2], make_windows((MODEL, OTHER)[n % 2].model, 1 + n % 5, seed=n)) for n in range(40)]

    async def scenario(under_test):
        return await asyncio.gather(*(under_test.predict(*one, LATE) for one in asked))

    for (model, windows), found in zip(asked, run(scenario, on_loop=on_loop), strict=True):
        np.testing.assert_allclose(found, model.predict(windows), rtol=1e-12)


def test_requests_of_one_turn_form_a_batch(batches):
    """After two have arrived together, requests of one turn form one batch per model."""

    async def scenario(under_test):
        await asyncio.gather(*(under_test.predict(MODEL, make_windows(MODEL.model, 1), LATE) for _ in range(2)))
        batches.clear()
        await asyncio.gather(*(under_test.predict(MODEL, make_windows(MODEL.model, 1 + n), LATE) for n in range(3)))
        await asyncio.gather(
            *(under_test.predict(model, make_windows(model.model, 2), LATE) for model in (MODEL, OTHER))
        )

    run(scenario, on_loop=ON_LOOP)
    assert batches == [[1, 2, 3], [2], [2]]


def test_a_lone_forecast_is_computed_without_waiting_for_the_loop():
    """A single request needs neither a future nor a turn of the loop: its coroutine never suspends."""

    async def scenario(under_test):
        for _ in range(3):
            await asyncio.sleep(0)
            running = under_test.predict(MODEL, make_windows(MODEL.model, 2), LATE)
            with pytest.raises(StopIteration) as ended:
                running.send(None)
            np.testing.assert_allclose(ended.value.value, MODEL.predict(make_windows(MODEL.model, 2)))
            await asyncio.sleep(0)

    run(scenario, on_loop=ON_LOOP)


def test_waiting_requests_form_a_batch(monkeypatch):
    """30 requests 1 ms apart on a model of 20 ms form a few batches: the first alone, then those that waited."""
    sizes = []
    forecast = Forecasts._forecast

    def take_long(self, model, windows):
        sizes.append(sum(map(len, windows)))
        VirtualWorker.spend(0.020)
        return forecast(self, model, windows)

    monkeypatch.setattr(Forecasts, "_forecast", take_long)

    async def scenario(under_test):
        async def ask(number):
            await asyncio.sleep(number * 0.001)
            return await under_test.predict(MODEL, make_windows(MODEL.model, 1, seed=number), LATE)

        return await asyncio.gather(*map(ask, range(30)))

    found = run_virtual(scenario, on_loop=ON_THREAD)
    assert len(sizes) <= 3 and sizes[0] == 1 and sum(sizes) == 30
    for number, forecast_ in enumerate(found):
        np.testing.assert_allclose(forecast_, MODEL.predict(make_windows(MODEL.model, 1, seed=number)), rtol=1e-12)


def test_a_batch_does_not_grow_with_the_queue(monkeypatch, batches):
    """Many waiting requests form several batches; one that is larger than a batch is forecast in several."""
    monkeypatch.setattr(forecasts, "BATCH_WINDOWS", 5)
    sizes = (2, 3, 1, 2, 12, 1, 1)

    async def scenario(under_test):
        return await asyncio.gather(*(under_test.predict(MODEL, make_windows(MODEL.model, n), LATE) for n in sizes))

    found = run(scenario, on_loop=ON_THREAD)
    assert batches == [[2, 3], [1, 2, 1, 1], [5], [5], [2]]
    for n, forecast in zip(sizes, found, strict=True):
        np.testing.assert_allclose(forecast, MODEL.predict(make_windows(MODEL.model, n)), rtol=1e-12)


@dataclass(eq=False)
class TimedModel:
    """A model whose forecasts take virtual time and are the sums of the windows."""

    checkpoint: str
    seconds: float
    config: object = field(default_factory=lambda: SimpleNamespace())

    def predict(self, windows):
        VirtualWorker.spend(self.seconds)
        if (windows < 0).any():
            raise NonFiniteError("a forecast is not finite")
        return windows.sum(axis=(1, 2))[:, None]


arrivals = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.floats(0, 0.03),  # seconds after the previous one
        st.integers(1, 300),  # windows
        st.sampled_from([0.001, 0.05, 1e9]),  # how long it waits at most
        st.sampled_from(["", "", "", "", "fails", "leaves"]),
    ),
    max_size=60,
)


@given(arrivals)
def test_each_request_gets_its_own_forecast_in_time(arrivals):
    """Random models, sizes, deadlines, failures and cancellations: each request gets its own result."""
    models = {name: TimedModel(name, seconds) for name, seconds in zip("abc", (0.002, 0.02, 0.1), strict=True)}
    most = max((n for _, _, n, _, _ in arrivals), default=0)

    async def scenario(under_test):
        loop = asyncio.get_running_loop()

        async def ask(number, model, n, patience, how):
            begun = loop.time()
            windows = np.full((n, 1, 1), -1.0 if how == "fails" else float(number))
            try:
                found = await under_test.predict(models[model], windows, Deadline.after(patience))
            except NonFiniteError:
                assert how == "fails"
            except DeadlineError:
                assert loop.time() - begun == pytest.approx(patience)
            else:
                assert (found == number).all() and len(found) == n
                assert loop.time() - begun <= patience + 1e-9

        tasks = []
        for number, (model, pause, n, patience, how) in enumerate(arrivals):
            await asyncio.sleep(pause)
            tasks.append(asyncio.create_task(ask(number, model, n, patience, how)))
            if how == "leaves":
                loop.call_later(0.01, tasks[-1].cancel)
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [error for error in done if isinstance(error, Exception)], done
        await asyncio.sleep(1)

    def observe(n_windows):
        assert n_windows <= max(BATCH_WINDOWS, most)

    on_loop = {"a": 5, "b": 0, "c": 0}
    run_virtual(scenario, on_loop=on_loop, observe=observe)


def test_a_large_request_names_its_own_window(monkeypatch):
    """What is not finite in one of its batches has its place among all windows of the request."""
    monkeypatch.setattr(forecasts, "BATCH_WINDOWS", 4)

    class Broken:
        checkpoint = "broken"

        def predict(self, windows):
            outputs = windows.sum(axis=(1, 2))[:, None]
            refuse_non_finite_outputs(outputs)
            return outputs

    windows = np.ones((10, 1, 1))
    windows[6] = np.inf
    with pytest.raises(NonFiniteError, match=r"outputs\[6\]"):
        run(lambda under_test: under_test.predict(Broken(), windows, LATE), on_loop={"broken": 0})


def test_another_owner_waits_for_a_part_of_a_large_request(monkeypatch):
    """Between the batches of a large request others have their turn."""
    monkeypatch.setattr(forecasts, "BATCH_WINDOWS", 4)
    model = TimedModel("a", 0.02)

    async def scenario(under_test):
        loop = asyncio.get_running_loop()
        OWNER.set("greedy")
        large = asyncio.create_task(under_test.predict(model, np.ones((400, 1, 1)), LATE))
        await asyncio.sleep(0.001)
        OWNER.set("other")
        begun = loop.time()
        await under_test.predict(model, np.ones((1, 1, 1)), LATE)
        seconds = loop.time() - begun
        assert len(await large) == 400
        return seconds

    seconds = run_virtual(scenario, on_loop=ON_THREAD)
    assert seconds <= 3 * 0.02


@pytest.mark.parametrize("n_models", [1, 40])
def test_owners_take_turns(n_models):
    """Hundreds of full batches of one owner, for one model or many, delay another's forecast by two at most."""
    models = [TimedModel(str(number), 0.02) for number in range(n_models)]

    async def scenario(under_test):
        loop = asyncio.get_running_loop()

        async def ask(owner, model, n):
            OWNER.set(owner)
            await under_test.predict(model, np.ones((n, 1, 1)), LATE)

        flood = [asyncio.create_task(ask("greedy", models[n % n_models], BATCH_WINDOWS)) for n in range(400)]
        await asyncio.sleep(0.001)
        begun = loop.time()
        for _ in range(3):
            await ask("other", models[-1], 1)
        seconds = loop.time() - begun
        await asyncio.gather(*flood)
        return seconds

    seconds = run_virtual(scenario, on_loop=dict.fromkeys(map(str, range(40)), 0))
    assert seconds <= 3 * 2 * 0.02 + 1e-9


@pytest.fixture
def busy(monkeypatch):
    """A forecast of seven windows that blocks the thread: an event that it has begun, and one to end it."""
    begun, go_on = threading.Event(), threading.Event()
    forecast = Forecasts._forecast

    def wait(self, model, windows):
        if len(windows[0]) == 7:
            begun.set()
            assert go_on.wait(300)
        return forecast(self, model, windows)

    monkeypatch.setattr(Forecasts, "_forecast", wait)
    return begun, go_on


def test_a_failing_request_does_not_affect_the_others():
    """Each request of a batch has its own result or its own error with its own paths."""

    def predict(windows):
        if not (windows < 1e6).all():
            raise NonFiniteError("outputs[0][0] must be finite")
        return MODEL.predict(windows)

    model = SimpleNamespace(checkpoint=MODEL.checkpoint, model=MODEL.model, predict=predict)
    good, bad = make_windows(MODEL.model, 2), np.full((1, *MODEL.model.config.window_shape), 1e9)

    async def scenario(under_test):
        together = (under_test.predict(model, windows, LATE) for windows in (good, bad, good))
        return await asyncio.gather(*together, return_exceptions=True)

    for on_loop in (ON_LOOP, ON_THREAD):
        first, error, last = run(scenario, on_loop=on_loop)
        np.testing.assert_allclose(first, MODEL.predict(good), rtol=1e-12)
        np.testing.assert_allclose(first, last, rtol=1e-12)
        assert isinstance(error, NonFiniteError)


def test_an_error_of_a_batch_is_raised_for_all(monkeypatch):
    """An error of the whole batch is raised for each request that waits."""

    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(Forecasts, "_forecast", fail)

    async def scenario(under_test):
        deadline = Deadline.after(30)
        together = (under_test.predict(MODEL, make_windows(MODEL.model, 1), deadline) for _ in range(3))
        return await asyncio.gather(*together, return_exceptions=True)

    assert [type(error) for error in run(scenario)] == [MemoryError] * 3


def test_the_size_for_the_loop_is_measured_by_the_processor_time_of_the_thread(monkeypatch):
    """A new model is timed by processor time, so that other load does not count."""
    clock = [0.0]
    per_window, beside = 1e-4, cycle([3.0, 0.0, 7.0])

    def predict(windows):
        clock[0] += 5e-5 + per_window * len(windows) + next(beside)
        return windows[:, 0, :1]

    model = SimpleNamespace(model=MODEL.model, predict=predict)
    monkeypatch.setattr(forecasts, "thread_time", lambda: clock[0])
    expected = (forecasts.ON_LOOP - 5e-5) / per_window
    assert forecasts._measure_on_loop(model) == pytest.approx(expected, abs=1)


def asking(windows, describe=lambda windows, predictions: predictions, is_quick=False, most_windows=1):
    """A request that is read and described, in no time if it is quick; `windows` may be an error."""

    def read():
        if isinstance(windows, Exception):
            raise windows
        return windows

    return ForecastRequest(MODEL, read, describe, most_windows, 8, is_quick, lambda _: is_quick)


@pytest.mark.parametrize(
    ("is_quick", "most_windows", "where"),
    [
        (False, 3, ["forecasts", "forecasts"]),
        (True, 3, ["loop", "loop"]),
        (False, BATCH_WINDOWS + 1, ["work", "forecasts"]),
    ],
)
def test_a_large_request_is_read_and_answered_where_it_is_forecast(is_quick, most_windows, where):
    """A large request is parsed, computed and encoded on one thread, a small one on the event loop.

    One that may exceed a batch is parsed on another thread.
    """
    threads, windows = [], make_windows(MODEL.model, 3)

    def read():
        threads.append(threading.current_thread().name)
        return windows

    def describe(of, predictions):
        threads.append(threading.current_thread().name)
        return len(of), predictions

    request = asking(windows, describe, is_quick, most_windows)._replace(read=read)
    n, predictions = run(lambda under_test: under_test.answer(request, LATE), ON_LOOP)
    loop = threading.current_thread().name
    assert n == 3 and threads == [loop if name == "loop" else name for name in where]
    np.testing.assert_allclose(predictions, MODEL.predict(windows), rtol=1e-12)


def test_large_requests_go_together_and_those_that_fail_alone(busy, batches):
    """A parse or encoding error of one request does not affect the others in its batch."""
    begun, go_on = busy

    def fail(*_):
        raise ArithmeticError

    good = asking(make_windows(MODEL.model, 2))

    async def scenario(under_test):
        long = asyncio.create_task(under_test.predict(MODEL, make_windows(MODEL.model, 7), LATE))
        await asyncio.to_thread(begun.wait)
        requests = (good, asking(KeyError("x")), asking(make_windows(MODEL.model, 1), fail), good)
        asked = [asyncio.create_task(under_test.answer(one, LATE)) for one in requests]
        await asyncio.sleep(0)
        go_on.set()
        await long
        return await asyncio.gather(*asked, return_exceptions=True)

    first, unread, undescribed, last = run(scenario, ON_THREAD)
    assert batches == [[7], [2, 1, 2]]
    assert (type(unread), type(undescribed)) == (KeyError, ArithmeticError)
    for found in (first, last):
        np.testing.assert_allclose(found, MODEL.predict(make_windows(MODEL.model, 2)), rtol=1e-12)
