"""Who uses the models when, told by counting: nothing here depends on how long anything takes."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest
from factories import make_model, make_windows

from kanmodel.errors import NonFiniteError
from service.http.errors import DeadlineError, OverloadedError
from service.models.registry import Registry
from service.telemetry.metrics import Metrics
from service.work import scheduler
from service.work.deadlines import Deadline
from service.work.scheduler import Scheduler

MODEL = replace(make_model("head"), sha256="a")
OTHER = replace(make_model("head", seed=1), sha256="b")
LATE = Deadline(1e9, 1e9)


def run(scenario, max_queue=100):
    """What a scenario, a coroutine of a scheduler, returns."""

    async def start():
        under_test = Scheduler(max_queue, Metrics(Registry(None)))
        under_test.start()
        try:
            return await scenario(under_test)
        finally:
            under_test.close()

    return asyncio.run(start())


@pytest.fixture
def batches(monkeypatch):
    """The sizes of the batches that reach a network, in order."""
    sizes = []
    forecast = scheduler._forecast

    def count(model, windows):
        sizes.append([len(of_request) for of_request in windows])
        return forecast(model, windows)

    monkeypatch.setattr(scheduler, "_forecast", count)
    return sizes


@pytest.mark.parametrize("in_place", [0.0, 1e9])
def test_everyone_gets_the_forecasts_of_their_own_windows(monkeypatch, in_place):
    """Requests of two models and of different sizes, all at once, on the loop and on the thread."""
    monkeypatch.setattr(scheduler, "IN_PLACE", in_place)
    asked = [((MODEL, OTHER)[n % 2], make_windows((MODEL, OTHER)[n % 2], 1 + n % 5, seed=n)) for n in range(40)]

    async def scenario(under_test):
        await under_test.predict(*asked[0], LATE)
        return await asyncio.gather(*(under_test.predict(*one, LATE) for one in asked))

    for (model, windows), found in zip(asked, run(scenario), strict=True):
        np.testing.assert_allclose(found, model.predict(windows), rtol=1e-12)


def test_what_waits_goes_together(batches):
    """Requests that are there before the network is free are one batch, each model's apart."""

    async def scenario(under_test):
        for model in (MODEL, OTHER):  # how long a model takes is measured once
            await under_test.predict(model, make_windows(model, 1), LATE)
        batches.clear()
        await asyncio.gather(*(under_test.predict(MODEL, make_windows(MODEL, 1 + n), LATE) for n in range(3)))
        await asyncio.gather(*(under_test.predict(model, make_windows(model, 2), LATE) for model in (MODEL, OTHER)))

    run(scenario)
    assert batches == [[1, 2, 3], [2], [2]]


def test_a_batch_does_not_grow_with_the_queue(monkeypatch, batches):
    """What waits goes in several batches where it is much, and each request whole."""
    monkeypatch.setattr(scheduler, "IN_PLACE", 0.0)
    monkeypatch.setattr(scheduler, "TOGETHER", 5)
    sizes = (2, 3, 1, 2, 12, 1, 1)

    async def scenario(under_test):
        await under_test.predict(MODEL, make_windows(MODEL, 1), LATE)
        batches.clear()
        return await asyncio.gather(*(under_test.predict(MODEL, make_windows(MODEL, n), LATE) for n in sizes))

    found = run(scenario)
    assert batches == [[2, 3], [1, 2], [12], [1, 1]]
    for n, forecasts in zip(sizes, found, strict=True):
        np.testing.assert_allclose(forecasts, MODEL.predict(make_windows(MODEL, n)), rtol=1e-12)


def test_no_forecast_waits_for_a_slice(monkeypatch):
    """Forecasts on their thread are answered while a slice of an explanation is being computed, and others wait."""
    monkeypatch.setattr(scheduler, "IN_PLACE", 0.0)
    begun, go_on, computed = threading.Event(), threading.Event(), []

    def first():
        begun.set()
        assert go_on.wait(30)
        computed.append("slice")

    async def scenario(under_test):
        slices = [asyncio.create_task(under_test.run(first))]
        await asyncio.to_thread(begun.wait)
        slices += [asyncio.create_task(under_test.run(lambda: computed.append("slice"))) for _ in range(5)]
        for _ in range(3):
            await under_test.predict(MODEL, make_windows(MODEL, 2), LATE)
            computed.append("forecast")
        go_on.set()
        await asyncio.gather(*slices)

    run(scenario)
    assert computed == ["forecast"] * 3 + ["slice"] * 6


@pytest.fixture
def busy(monkeypatch):
    """A forecast of seven windows that keeps the thread until it may go on: has it begun, and may it go on."""
    monkeypatch.setattr(scheduler, "IN_PLACE", 0.0)
    begun, go_on = threading.Event(), threading.Event()
    forecast = scheduler._forecast

    def wait(model, windows):
        if len(windows[0]) == 7:
            begun.set()
            assert go_on.wait(30)
        return forecast(model, windows)

    monkeypatch.setattr(scheduler, "_forecast", wait)
    return begun, go_on


def test_one_that_fails_spoils_no_other(monkeypatch):
    """Each request of a batch has its own answer, or its own error with its own places."""

    def predict(windows):
        if not (windows < 1e6).all():
            raise NonFiniteError("outputs[0][0] must be finite")
        return MODEL.predict(windows)

    model = replace(MODEL)
    object.__setattr__(model, "predict", predict)
    good, bad = make_windows(MODEL, 2), np.full((1, *MODEL.config.window_shape), 1e9)

    async def scenario(under_test):
        together = (under_test.predict(model, windows, LATE) for windows in (good, bad, good))
        return await asyncio.gather(*together, return_exceptions=True)

    first, error, last = run(scenario)
    np.testing.assert_allclose(first, MODEL.predict(good), rtol=1e-12)
    np.testing.assert_array_equal(first, last)
    assert isinstance(error, NonFiniteError)


def test_past_its_bound_the_queue_refuses():
    """The request that finds every place taken is refused with when to come again; a place given back is free."""

    async def scenario(under_test):
        answers = await asyncio.gather(
            *(under_test.predict(MODEL, make_windows(MODEL, 1), LATE) for _ in range(5)), return_exceptions=True
        )
        again = await under_test.predict(MODEL, make_windows(MODEL, 1), LATE)
        return answers, again

    answers, again = run(scenario, max_queue=3)
    refused = [answer for answer in answers if isinstance(answer, OverloadedError)]
    assert len(refused) == 2 and again.shape == (1, 1)
    assert str(refused[0]) == "3 requests wait already (max_queue); ask again"
    assert refused[0].headers == {"Retry-After": "1"}


def test_who_has_gone_is_not_computed_for():
    """A slice whose request was given up before its turn is never begun, and its place is free."""
    begun, go_on, computed = threading.Event(), threading.Event(), []

    def first():
        begun.set()
        assert go_on.wait(30)

    async def scenario(under_test):
        busy = asyncio.create_task(under_test.run(first))
        await asyncio.to_thread(begun.wait)
        gone = asyncio.create_task(under_test.run(lambda: computed.append("gone")))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        go_on.set()
        await busy
        await under_test.run(lambda: computed.append("here"))

    run(scenario)
    assert computed == ["here"]


def test_a_forecast_that_is_not_there_by_its_deadline_is_refused(busy):
    """Behind a batch that takes longer it fails by its own deadline, while others that wait go on."""
    begun, go_on = busy

    async def scenario(under_test):
        long = asyncio.create_task(under_test.predict(MODEL, make_windows(MODEL, 7), LATE))
        await asyncio.to_thread(begun.wait)
        windows = make_windows(MODEL, 1)
        patient = asyncio.create_task(under_test.predict(MODEL, windows, LATE))
        with pytest.raises(DeadlineError, match=r"still being computed after 0.01 s \(request_timeout\); ask again"):
            await under_test.predict(MODEL, windows, Deadline.after(0.01))
        go_on.set()
        await long
        return await patient

    np.testing.assert_allclose(run(scenario), MODEL.predict(make_windows(MODEL, 1)))


def test_no_forecast_is_computed_for_who_has_gone(busy, batches):
    """Of a batch behind a long one only what still waits is computed: neither what is late nor what was given up."""
    begun, go_on = busy

    async def scenario(under_test):
        for model in (MODEL, OTHER):
            await under_test.predict(model, make_windows(model, 1), LATE)
        batches.clear()
        long = asyncio.create_task(under_test.predict(MODEL, make_windows(MODEL, 7), LATE))
        await asyncio.to_thread(begun.wait)
        late = [under_test.predict(model, make_windows(MODEL, 3), Deadline.after(0.01)) for model in (MODEL, OTHER)]
        given_up = asyncio.create_task(under_test.predict(MODEL, make_windows(MODEL, 4), LATE))
        patient = asyncio.create_task(under_test.predict(MODEL, make_windows(MODEL, 2), LATE))
        errors = await asyncio.gather(*late, return_exceptions=True)
        given_up.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await long
        return errors, await patient

    errors, forecasts = run(scenario)
    assert [type(error) for error in errors] == [DeadlineError] * 2
    np.testing.assert_allclose(forecasts, MODEL.predict(make_windows(MODEL, 2)))
    assert batches == [[7], [2]]


def test_a_batch_that_fails_as_a_whole_is_told_to_all(monkeypatch):
    """Whatever goes wrong on the thread, nobody waits for a forecast that will never come."""

    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(scheduler, "_forecast", fail)

    async def scenario(under_test):
        deadline = Deadline.after(30)
        together = (under_test.predict(MODEL, make_windows(MODEL, 1), deadline) for _ in range(3))
        return await asyncio.gather(*together, return_exceptions=True)

    assert [type(error) for error in run(scenario)] == [MemoryError] * 3


def test_the_thread_works_where_it_may_not_be_nice(monkeypatch):
    """A system that refuses another priority, as some sandboxes do, takes no forecast away."""

    def refuse(*_):
        raise PermissionError("not here")

    monkeypatch.setattr("os.setpriority", refuse)

    async def scenario(under_test):
        return await under_test.predict(MODEL, make_windows(MODEL, 1), Deadline.after(30))

    np.testing.assert_allclose(run(scenario), MODEL.predict(make_windows(MODEL, 1)))
