"""The executor by a virtual clock: admission, order, sharing and cancellation, independent of the machine."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sys
import threading
from dataclasses import dataclass, field, replace
from itertools import pairwise
from time import monotonic, thread_time
from typing import Any

import numpy as np
import pytest
from factories import make_model, make_windows
from hypothesis import given
from hypothesis import strategies as st
from thorough import examples
from virtual import VirtualWorker, run_virtually

from kanmodel import DataError, Model, NonFiniteError
from kanmodel.computing import pause
from service.telemetry.metrics import Metrics
from service.wire.errors import DeadlineError, NotReadyError, OverloadedError
from service.wire.security import OWNER
from service.work.budget import EXPLAINING_SHARE, Bounds
from service.work.executor import N_RUNNING, OVERTAKING, Executor
from service.work.jobs import BACKGROUND_SHARE, NICE, QUIET, SLICE, UNKNOWN, Cost, Deadline

MB = 1_000_000
QUICK = Cost(0.02)
BOUNDS = Bounds(requests=50, forecasts=20, explanations=10, n_bytes=100 * MB)
ALONE = 7  # explanations of one owner, of 10


def make_executor(bounds=BOUNDS):
    return Executor(bounds, Metrics())


def run(scenario, bounds=BOUNDS):
    """The result of a scenario, a coroutine that takes an executor, on the virtual clock."""

    async def start():
        work = make_executor(bounds)
        work.start(VirtualWorker)
        return await scenario(work)

    return run_virtually(start())


def run_really(scenario, bounds=BOUNDS):
    """The same with threads and real time."""

    async def start():
        work = make_executor(bounds)
        work.start()
        try:
            return await scenario(work)
        finally:
            await work.close()

    return asyncio.run(start())


def taking(seconds, log=None, name=None, error=None):
    """A function that takes some virtual seconds and returns its name."""

    def compute():
        if log is not None:
            log.append(name)
        VirtualWorker.spend(seconds)
        if error is not None:
            raise error
        return name

    return compute


def in_slices(n, function):
    """A computation of n equal slices with pauses between them."""

    def compute():
        for number in range(n):
            if number:
                pause()
            result = function()
        return result

    return compute


async def run_in_turns(work, function, n_bytes=0, deadline=None):
    """Runs a function as the part of a request that has a claim."""
    with work.claim("explanation", n_bytes) as held:
        return await work.run(function, "explanation", SLICE, None, deadline, held)


def now():
    return asyncio.get_running_loop().time()


async def start_all(*coroutines):
    """Starts a task for each coroutine and lets it run up to its first wait."""
    tasks = [asyncio.create_task(one) for one in coroutines]
    await asyncio.sleep(0)
    return tasks


def test_one_key_is_computed_once_however_many_ask():
    """Callers of the same key share one computation, and each gets its result."""
    log = []

    async def scenario(work):
        together = [work.run(taking(1, log, "a"), "explanation", UNKNOWN, "key") for _ in range(50)]
        return await asyncio.gather(*together)

    assert run(scenario) == ["a"] * 50
    assert log == ["a"]


def test_a_failure_is_raised_for_all_and_not_cached():
    """Failures are not cached."""
    log = []

    async def scenario(work):
        failing = taking(1, log, "bad", ValueError("once"))
        first = await asyncio.gather(
            *(work.run(failing, "explanation", UNKNOWN, "key") for _ in range(3)), return_exceptions=True
        )
        return first, await work.run(taking(1, log, "good"), "explanation", UNKNOWN, "key")

    first, second = run(scenario)
    assert [str(error) for error in first] == ["once"] * 3
    assert (second, log) == ("good", ["bad", "good"])


def test_a_cancelled_request_does_not_cancel_a_shared_computation():
    """A computation continues while at least one request waits for it."""

    async def scenario(work):
        leaving, staying = await start_all(
            *(work.run(taking(1, None, "a"), "explanation", UNKNOWN, "key") for _ in range(2))
        )
        await asyncio.sleep(0.1)
        leaving.cancel()
        return await staying

    assert run(scenario) == "a"


def test_expired_requests_are_not_computed():
    """300 requests with deadlines of half a millisecond leave no work, so the next one is computed at once."""
    log = []

    async def scenario(work):
        async def ask(number):
            deadline = Deadline.after(5e-4)
            await work.run(taking(0.2, log, number), "explanation", UNKNOWN, ("fidelity", number), deadline)

        answers = []
        for number in range(300):
            answers += await asyncio.gather(ask(number), return_exceptions=True)
        begun = now()
        await work.run(taking(0.02), "explanation", QUICK, "honest")
        return answers, now() - begun

    answers, seconds = run(scenario)
    assert {type(answer) for answer in answers} <= {DeadlineError, OverloadedError}
    assert len(log) <= 2  # one is running, and only its own pause can end it
    assert seconds == pytest.approx(0.02)


def test_explanations_take_no_places_of_forecasts():
    """While explanations fill their queue, a forecast is computed at once and another explanation is refused."""
    model = Model.of(make_model("head"))

    async def scenario(work):
        slow = await start_all(*(work.run(taking(100), "explanation", UNKNOWN, number) for number in range(ALONE)))
        share = "7 explanations are waiting already (max_explanations), 7 of them of this client, which is its share"
        with pytest.raises(OverloadedError, match=f"^{re.escape(share)}; retry later$"):
            await work.run(taking(1), "explanation", QUICK, "one more")
        begun = now()
        await work.predict(model, make_windows(model, 1), Deadline.after(1))
        for one in slow:
            one.cancel()
        return now() - begun

    assert run(scenario) == 0


def test_forecasts_past_their_places_are_refused():
    """A request beyond the limit is refused with a time to retry; a place that is freed can be taken."""
    model = Model.of(make_model("head"))

    async def scenario(work):
        many = [work.predict(model, make_windows(model, 1), Deadline.after(9)) for _ in range(BOUNDS.forecasts + 2)]
        answers = await asyncio.gather(*many, return_exceptions=True)
        return answers, await work.predict(model, make_windows(model, 1), Deadline.after(9))

    answers, again = run(scenario)
    refused = [answer for answer in answers if isinstance(answer, OverloadedError)]
    assert len(refused) == 8 and again.shape == (1, 1)
    share = "14 of them of this client, which is its share"
    assert str(refused[0]) == f"14 requests are waiting already (max_queue), {share}; retry later"
    assert refused[0].headers == {"Retry-After": "1"}


def test_bytes_are_bounded_and_explanations_have_half():
    """A request that never fits is 422, one that does not fit now 503; explanations take at most half.

    One owner takes three quarters of either.
    """

    async def scenario(work):
        half = int(EXPLAINING_SHARE * BOUNDS.n_bytes)
        with pytest.raises(
            DataError, match=r"^request would take 60 MB of memory, of at most 38 MB \(max_work_bytes\)$"
        ):
            await work.run(taking(1), "explanation", Cost(1, half + 10 * MB))
        with work.claim("explanation", 36 * MB):
            held = "requests hold 36 MB already, those of this client 36 MB (max_work_bytes); retry later"
            with pytest.raises(OverloadedError, match=f"^{re.escape(held)}$"):
                await work.run(taking(1), "explanation", Cost(1, 2 * MB))
            await work.run(taking(1), "forecast", Cost(1, 39 * MB))
        with work.claim("forecast", place=False) as held:
            held.grow(60 * MB)
            with pytest.raises(OverloadedError):
                held.grow(60 * MB)
        await work.run(taking(1), "explanation", Cost(1, 37 * MB))

    run(scenario)


def test_a_short_job_does_not_wait_for_a_long_one():
    """A short job is not delayed by a long computation, background work and other waiting jobs."""

    async def scenario(work):
        slow = await start_all(
            *(work.run(taking(100), "explanation", UNKNOWN, number) for number in range(4)),
            *(work.run(taking(100), "background", UNKNOWN, number) for number in range(4, 8)),
        )
        begun = now()
        await work.run(taking(0.02), "explanation", QUICK, "short")
        seconds = now() - begun
        for one in slow:
            one.cancel()
        return seconds

    assert run(scenario) == pytest.approx(0.02)


def test_a_background_job_is_promoted_by_a_request():
    """A background job is promoted when a request asks for its key, and computed once."""
    log = []

    async def scenario(work):
        await start_all(
            work.run(taking(50, log, "first"), "background", UNKNOWN, "first"),
            work.run(taking(1, log, "wanted"), "background", UNKNOWN, "wanted"),
        )
        await work.run(taking(1, log, "twice"), "explanation", UNKNOWN, "wanted")
        return now()

    assert run(scenario) == pytest.approx(1)
    assert log == ["first", "wanted"]


def test_slices_of_many_requests_take_turns():
    """No request waits for another to end: slices of all requests alternate."""
    log = []

    async def scenario(work):
        async def explain(name):
            await run_in_turns(work, in_slices(20, taking(0.01, log, name)))

        await asyncio.gather(*map(explain, "abcdef"))

    run(scenario)
    for start in range(0, len(log), 6):
        assert sorted(log[start : start + 6]) == [*"abcdef"]


def test_background_work_does_not_starve():
    """Background work progresses while short explanations keep every thread busy."""

    async def scenario(work):
        async def flood(number):
            while not done.is_set():
                await work.run(taking(0.05), "explanation", Cost(0.05), ("flood", number, now()))

        done = asyncio.Event()
        floods = [asyncio.create_task(flood(number)) for number in range(ALONE)]
        await asyncio.sleep(0.01)
        await work.run(taking(0.05), "background", Cost(0.05), "prepared")
        done.set()
        await asyncio.gather(*floods)
        return now()

    assert run(scenario) < OVERTAKING + 1


async def ask_steadily(work, seconds, every=0.01):
    """Requests that take a place, one after the other, for some seconds."""
    end = now() + seconds
    while now() < end:
        with work.claim("request"):
            await asyncio.sleep(every)


@pytest.mark.parametrize(("n_seconds", "most"), [(0, 0.2), (60, 2.0)])
def test_background_work_takes_a_tenth_of_a_core_while_requests_come(n_seconds, most):
    """Without requests it takes all of it; either way it ends."""

    async def scenario(work):
        asking = asyncio.create_task(ask_steadily(work, n_seconds))
        await asyncio.sleep(0)
        await work.run(in_slices(40, taking(0.005)), "background", UNKNOWN, "prepared")
        ended = now()
        await asking
        return ended

    assert run(scenario) == pytest.approx(most, rel=0.05)


def test_background_work_of_several_jobs_takes_no_more():
    """Each begins after the rest of the one before."""

    async def scenario(work):
        asking = asyncio.create_task(ask_steadily(work, 10))
        await asyncio.sleep(0)
        for number in range(20):
            await work.run(taking(0.01), "background", SLICE, ("prepared", number))
        ended = now()
        await asking
        return ended

    assert run(scenario) == pytest.approx(2.0, rel=0.1)


def test_background_work_goes_on_once_no_requests_come():
    """Half a second after the last of them it takes all of a core again."""

    async def scenario(work):
        asking = asyncio.create_task(ask_steadily(work, 1))
        await asyncio.sleep(0)
        await work.run(in_slices(200, taking(0.005)), "background", UNKNOWN, "prepared")
        await asking
        return now()

    assert run(scenario) == pytest.approx(1 + QUIET + 0.85, abs=0.1)


def test_background_work_that_a_request_waits_for_does_not_rest():
    """It is promoted in the middle of a rest, and then takes as long as it takes."""

    async def scenario(work):
        asking = asyncio.create_task(ask_steadily(work, 10))
        await start_all(work.run(in_slices(40, taking(0.05)), "background", UNKNOWN, "wanted"))
        await asyncio.sleep(0.1)
        begun = now()
        await work.run(taking(1), "explanation", UNKNOWN, "wanted")
        seconds = now() - begun
        asking.cancel()
        return seconds

    assert run(scenario) == pytest.approx(39 * 0.05, abs=0.051)


def test_rests_are_measured_by_processor_time():
    """A slice rests nine times what it has computed, however long it took on a busy machine."""
    slices = []

    def compute():
        for number in range(8):
            if number:
                pause()
            begun = thread_time()
            while thread_time() < begun + 0.002:
                pass
            slices.append((begun, thread_time(), monotonic()))

    async def scenario(work):
        asking = asyncio.create_task(ask_steadily(work, 60, every=0.001))
        await asyncio.sleep(0)
        await work.run(compute, "background", UNKNOWN, "prepared")
        asking.cancel()

    run_really(scenario)
    for (begun, ended, at), (_, _, later) in pairwise(slices):
        assert later - at >= (1 / BACKGROUND_SHARE - 1) * (ended - begun)


def test_a_quick_job_is_computed_at_once():
    """A job of less than a millisecond is computed on the event loop within one turn."""

    async def scenario(work):
        return await asyncio.gather(*(work.run(threading.get_ident, "forecast", Cost(1e-4)) for _ in range(3)))

    assert run_really(scenario) == [threading.get_ident()] * 3


@dataclass
class Seen:
    """The life of a piece of work.

    Attributes:
        kind: its priority class.
        arrived: time of its arrival.
        patience: the longest time that it waits.
        result: its result or error.
        ended: time of the result.
    """

    kind: str
    arrived: float
    patience: float
    result: Any = None
    ended: float = field(default=-1.0)


arrivals = st.lists(
    st.tuples(
        st.sampled_from(["explanation", "background", "forecast", "sliced"]),
        st.floats(0, 0.3),  # seconds after the previous one
        st.floats(0.001, 2.0),  # seconds that it takes
        st.sampled_from([0.0, 0.5, 1.0, 3.0]),  # how many of them are estimated
        st.integers(0, 30) | st.none(),  # its key
        st.integers(0, 40),  # MB
        st.sampled_from([0.0005, 0.5, 3.0, 1e9]),  # how long it waits at most
        st.sampled_from(["", "", "", "fails", "leaves"]),
        st.sampled_from("abc"),  # its owner
    ),
    max_size=60,
)


def draw_arrivals(seed, n):
    """Random work, of more items than hypothesis would draw."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        kind = rng.choice(["explanation", "background", "forecast", "sliced"])
        key = int(rng.integers(60))
        yield (
            *(str(kind), rng.exponential(0.05), rng.exponential(0.3), rng.choice([0.0, 0.5, 1.0, 3.0])),
            *(None if key < 20 else key, int(rng.integers(40)), rng.choice([0.0005, 0.5, 3.0, 1e9])),
            *(rng.choice(["", "", "", "fails", "leaves"]), str(rng.choice([*"abc"]))),
        )


@given(arrivals=arrivals)
def test_the_bounds_hold_and_no_request_is_lost(arrivals):
    """Random work, deadlines, failures and cancellations keep the bounds, the order, sharing and cleanup."""
    check_arrivals(arrivals)


@pytest.mark.parametrize("seed", range(3))
def test_the_bounds_hold_for_as_long_as_work_arrives(seed):
    """The same for thousands of items, most of which arrive while others are waiting."""
    n_refused = check_arrivals(draw_arrivals(seed, examples(600)))
    assert n_refused > 10  # the limits were reached


def check_arrivals(arrivals):
    """Runs the items and returns how many were refused."""
    log, most, seen = [], {"bytes": 0, "explanation": 0, "forecast": 0, "threads": 0}, []

    async def scenario(work):
        budget = work._budget

        def check():
            most["bytes"] = max(most["bytes"], sum(budget.pools[kind].taken for kind in ("explanation", "forecast")))
            for kind in ("explanation", "forecast"):
                most[kind] = max(most[kind], budget.places[kind].taken)
            assert budget.pools["explanation"].taken <= EXPLAINING_SHARE * BOUNDS.n_bytes
            most["threads"] = max(most["threads"], len(work._running))
            lanes = [job.lane for job in work._running]
            assert lanes.count("long") <= 1 and lanes.count("background") <= 1
            keys = [job.key for job in (*work._waiting, *work._running) if job.waiters and job.key is not None]
            assert len(keys) == len({*keys}), "one key is computed twice"

        async def ask(one, kind, seconds, estimated, key, megabytes, how, owner):
            OWNER.set(owner)
            with work.claim("request"):  # so background work rests
                pass
            error = ValueError("failed") if how == "fails" else None
            function, cost = taking(seconds, log, key, error), Cost(0.01 + estimated * seconds, megabytes * MB)
            deadline = Deadline.after(one.patience)
            try:
                if kind == "sliced":
                    one.result = await run_in_turns(work, in_slices(3, function), cost.n_bytes, deadline)
                else:
                    name = None if key is None else (kind == "forecast", key)
                    one.result = await work.run(function, kind, cost, name, deadline)
            except Exception as raised:
                one.result = raised
            finally:
                one.ended = now()
                check()

        tasks = []
        for kind, gap, seconds, estimated, key, megabytes, patience, how, owner in arrivals:
            await asyncio.sleep(gap)
            one = Seen(kind, now(), patience)
            seen.append(one)
            task = asyncio.create_task(ask(one, kind, seconds, estimated, key, megabytes, how, owner))
            if how == "leaves":
                asyncio.get_running_loop().call_later(seconds / 2, task.cancel)
            tasks.append(task)
            check()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(3)  # cancelled while it ran
        assert {share.taken for share in (*budget.places.values(), *budget.pools.values())} == {0}
        assert (
            not work._waiting
            and not work._running
            and not work._ending
            and not work._by_key
            and len(work._idle) == N_RUNNING
        )

    run(scenario)
    assert most["bytes"] <= BOUNDS.n_bytes and most["threads"] <= N_RUNNING
    assert most["explanation"] <= BOUNDS.explanations and most["forecast"] <= BOUNDS.forecasts
    for one in seen:
        assert one.ended >= one.arrived, "somebody is still waiting"
        assert one.ended <= one.arrived + one.patience + 1e-6 or one.patience > 1e6
        if isinstance(one.result, Exception):
            assert isinstance(one.result, (DeadlineError, NotReadyError, OverloadedError, DataError, ValueError)), (
                one.result
            )
    return sum(isinstance(one.result, OverloadedError) for one in seen)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_only_forecasts_have_normal_priority():
    """The threads of explanations have a lower priority than the event loop."""

    def priority():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert run_really(lambda work: work.run(priority, "explanation", UNKNOWN)) == min(priority() + NICE, 19)


def test_the_threads_work_where_they_may_not_be_nice(monkeypatch):
    """Where the system denies a lower priority, the threads still work."""

    def refuse(*_):
        raise PermissionError("not here")

    monkeypatch.setattr("os.setpriority", refuse)
    assert run_really(lambda work: work.run(lambda: "done", "explanation", UNKNOWN)) == "done"


def never_end(started, ended):
    """A computation that never ends, with pauses."""

    def compute():
        try:
            while True:
                pause()
                started.set()
        finally:
            ended.set()

    return compute


def test_cancelling_the_last_request_ends_a_long_computation():
    """A running job without waiting requests ends at its next pause, and its place is free."""
    started, ended = threading.Event(), threading.Event()

    async def scenario(work):
        (one,) = await start_all(work.run(never_end(started, ended), "explanation", UNKNOWN, "key"))
        await asyncio.to_thread(started.wait, 30)
        one.cancel()
        assert await asyncio.to_thread(ended.wait, 30)
        return await work.run(lambda: "next", "explanation", UNKNOWN, "key")

    assert run_really(scenario, replace(BOUNDS, explanations=1)) == "next"


def test_closing_ends_an_endless_computation():
    """Closing ends the running job at its next pause and refuses waiting and later ones."""
    started, ended = threading.Event(), threading.Event()

    async def scenario(work):
        tasks = await start_all(
            work.run(never_end(started, ended), "explanation", UNKNOWN),
            work.run(lambda: "waits", "explanation", UNKNOWN),
        )
        await asyncio.to_thread(started.wait, 30)
        await work.close()
        assert ended.is_set()
        for refused in (*tasks, work.run(lambda: "too late", "explanation", UNKNOWN)):
            with pytest.raises(NotReadyError, match="the service is stopping"):
                await refused

    run_really(scenario)


def test_no_forecast_waits_for_other_work():
    """Forecasts are computed while every other thread is busy."""
    model = Model.of(make_model("head"))
    go_on = threading.Event()

    async def scenario(work):
        busy = await start_all(
            *(work.run(lambda: go_on.wait(300), "explanation", Cost(0.05)) for _ in range(N_RUNNING + 2))
        )
        found = await work.predict(model, make_windows(model, 2), Deadline.after(30))
        assert not go_on.is_set()
        go_on.set()
        await asyncio.gather(*busy)
        return found

    np.testing.assert_allclose(run_really(scenario), model.predict(make_windows(model, 2)))


def test_an_error_of_any_class_reaches_the_caller():
    """An exception of a function is raised in the caller."""

    def fail():
        raise NonFiniteError("outputs[0] must be finite")

    with pytest.raises(NonFiniteError, match=r"outputs\[0\] must be finite"):
        run_really(lambda work: work.run(fail, "explanation", UNKNOWN))


def of(owner, working):
    """A task of an owner."""

    async def work():
        OWNER.set(owner)
        return await working

    return asyncio.create_task(work())


@pytest.mark.parametrize("paused", [True, False])
def test_long_jobs_of_one_owner_make_way_for_those_of_another(paused):
    """Another owner's long job has half of the time at once: it does not wait for any of eight that were there."""

    async def scenario(work):
        def long(name, seconds):
            slices = in_slices(round(seconds / 0.05), taking(0.05 if paused else 0.0))
            return work.run(slices if paused else taking(seconds), "explanation", UNKNOWN, name)

        greedy = [of("greedy", long(number, 20 if paused else 2)) for number in range(ALONE)]
        await asyncio.sleep(0.5)
        begun = now()
        others = [of("other", long(name, 1)) for name in ("one", "two")]
        await asyncio.gather(*others)
        seconds = now() - begun
        for one in greedy:
            one.cancel()
        return seconds

    # Without pauses it waits for the one that runs, and the second for one more.
    assert run(scenario, replace(BOUNDS, explanations=20)) <= (2 * 2 + 0.2 if paused else 1.5 + 1 + 2 + 1 + 0.2)


def test_short_jobs_and_slices_of_one_owner_make_way_for_another():
    """A job that is short, or has slices, waits only for those that run while hundreds of another owner wait."""

    async def scenario(work):
        async def explain(n):
            await run_in_turns(work, in_slices(n, taking(0.01)))

        async def flood(number):
            while not done.is_set():
                await (explain(20) if number % 2 else work.run(taking(0.05), "explanation", Cost(0.05)))

        done = asyncio.Event()
        greedy = [of("greedy", flood(number)) for number in range(ALONE - 1)]
        await asyncio.sleep(3)  # longer than `OVERTAKING`
        begun = now()
        await of("other", work.run(taking(0.02), "explanation", QUICK))
        short = now() - begun
        await of("other", explain(10))
        done.set()
        await asyncio.gather(*greedy)
        return short, now() - begun

    short, sliced = run(scenario)
    assert short <= 0.05 + 0.02 + 1e-9
    assert sliced <= 1


def test_a_shared_computation_has_the_turns_of_everyone_who_waits_for_it():
    """An owner that joins a job which waits behind its owner's others has it computed in its own turn.

    The first owner may leave; its place is held until the job ends.
    """
    log = []

    async def scenario(work):
        jobs = [
            of("greedy", work.run(taking(1, log, number), "explanation", UNKNOWN, number)) for number in range(ALONE)
        ]
        await asyncio.sleep(0.5)
        joined = of("other", work.run(taking(1, log, "twice"), "explanation", UNKNOWN, ALONE - 1))
        await asyncio.sleep(0)
        jobs[-1].cancel()
        assert await joined == ALONE - 1
        places = work._budget.places["explanation"]
        assert (places.held_by("greedy"), places.held_by("other")) == (ALONE - 2, 0)
        for job in jobs:
            job.cancel()

    run(scenario)
    assert log[:2] == [0, ALONE - 1] and "twice" not in log


def test_a_refused_request_leaves_no_timer(caplog):
    """The deadline of a request that had no place is not waited for."""

    async def scenario(work):
        jobs = await start_all(*(work.run(taking(100), "explanation", UNKNOWN, number) for number in range(ALONE)))
        with pytest.raises(OverloadedError):
            await work.run(taking(1), "explanation", UNKNOWN, "refused", Deadline.after(5))
        await asyncio.sleep(10)
        gc.collect()
        for job in jobs:
            job.cancel()

    run(scenario)
    assert "never retrieved" not in caplog.text


def test_a_request_does_not_join_a_computation_that_is_cancelled():
    """A request for the key of a paused job that nobody waits for any more has it computed anew."""
    log = []

    async def scenario(work):
        with work.claim("explanation") as held:
            part = in_slices(50, taking(0.01))
            parts = [asyncio.create_task(work.run(part, "explanation", SLICE, None, None, held)) for _ in range(4)]
            slow = asyncio.create_task(work.run(in_slices(50, taking(0.01, log, "a")), "explanation", SLICE, "key"))
            await asyncio.sleep(0.3)
            slow.cancel()
            await asyncio.sleep(0)
            again = await work.run(taking(0.01, log, "b"), "explanation", SLICE, "key")
            await asyncio.gather(*parts)
        return again

    assert run(scenario) == "b" and "b" in log
