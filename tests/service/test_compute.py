"""Everything is computed by a virtual clock: order, turns, sharing and cancellation, independent of the machine."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from time import monotonic, thread_time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thorough import examples
from virtual import VirtualWorker, run_virtually

from kanmodel.computing import pause, tracked
from service.compute import BACKGROUND_SHARE, LANES, MOST_LEFT, N_KNOWN, NICE, QUIET, SHORT, Compute, Turns
from service.room import HOLD, Deadline
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.wire.errors import DeadlineError, NotReadyError, OverloadedError
from service.wire.security import OWNER

MB = 1 << 20
LONG = 3600.0  # seconds, by when everything has ended


def make_compute(**settings):
    return Compute(Settings(**settings), Metrics())


def run(scenario, **settings):
    """The result of a scenario, a coroutine that takes a `Compute`, on the virtual clock; nothing may be left of it."""

    async def start():
        compute = make_compute(**settings)
        compute.start(VirtualWorker)
        result = await scenario(compute)
        await asyncio.sleep(LONG)
        assert_empty(compute)
        return result

    return run_virtually(start())


def run_really(scenario, **settings):
    """The same with threads and real time."""

    async def start():
        compute = make_compute(**settings)
        compute.start()
        try:
            return await scenario(compute)
        finally:
            await compute.close()

    return asyncio.run(start())


def assert_empty(compute):
    assert not (compute._waiting or compute._running or compute._begun or compute._by_key)
    assert compute.room.n_taken == compute.room.n_bytes == 0 and not compute.room._holds


def taking(seconds, name=None, log=None, n=1, error=None):
    """A function that takes some virtual seconds in n slices, each of which it logs, and returns its name."""

    def compute():
        for number in range(n):
            if number:
                pause()
            if log is not None:
                log.append(name)
            VirtualWorker.spend(seconds / n)
        if error is not None:
            raise error
        return name

    return compute


def sliced(seconds, name=None, log=None):
    """The same in slices of 10 ms."""
    return taking(seconds, name, log, n=max(1, round(seconds / 0.01)))


def now():
    return asyncio.get_running_loop().time()


def of(owner, working):
    """A task of a client."""

    async def work():
        OWNER.set(owner)
        return await working

    return asyncio.create_task(work())


async def start_all(*coroutines):
    """Starts a task for each coroutine and lets it run up to its first wait."""
    tasks = [asyncio.create_task(one) for one in coroutines]
    await asyncio.sleep(0)
    return tasks


async def seconds_of(working):
    begun = now()
    await working
    return now() - begun


# Sharing


def test_one_key_is_computed_once_however_many_ask():
    """Who asks for the same joins one computation, and each gets its result."""
    log = []

    async def scenario(compute):
        asking = [compute.submit(taking(1, "a", log), "explanation", key="key") for _ in range(50)]
        return await asyncio.gather(*asking)

    assert run(scenario) == ["a"] * 50
    assert log == ["a"]


def test_a_failure_is_raised_for_all_and_not_kept():
    """The next request for the key has it computed anew, and only that result is handed to `keep`."""
    log, kept = [], []

    async def scenario(compute):
        def submit(function):
            return compute.submit(function, "explanation", key="key", keep=kept.append)

        failing = taking(1, "bad", log, error=ValueError("once"))
        first = await asyncio.gather(*(submit(failing) for _ in range(3)), return_exceptions=True)
        return first, await submit(taking(1, "good", log))

    first, second = run(scenario)
    assert [str(error) for error in first] == ["once"] * 3
    assert (second, log, kept) == ("good", ["bad", "good"], ["good"])


def test_a_cancelled_request_does_not_cancel_a_shared_computation():
    """A computation continues while at least one request waits for it."""

    async def scenario(compute):
        asking = (compute.submit(sliced(1, "a"), "explanation", key="key") for _ in range(2))
        leaving, staying = await start_all(*asking)
        await asyncio.sleep(0.1)
        leaving.cancel()
        return await staying

    assert run(scenario) == "a"


def test_a_request_does_not_join_a_computation_that_is_cancelled():
    """Its key is computed anew, although the cancelled one has not come to its next pause."""
    log = []

    async def scenario(compute):
        (leaving,) = await start_all(compute.submit(taking(10, "a", log, n=2), "explanation", key="key"))
        await asyncio.sleep(1)
        leaving.cancel()
        await asyncio.sleep(0)
        return await compute.submit(taking(1, "b", log), "explanation", key="key")

    assert run(scenario) == "b" and log == ["a", "b"]


def test_a_shared_computation_has_the_turns_of_everyone_who_waits_for_it():
    """A client that joins what waits behind others of its first client has it computed in its own turn.

    The first client may leave.
    """
    log = []

    async def scenario(compute):
        jobs = [of("greedy", compute.submit(taking(1, n, log), "explanation", key=n)) for n in range(7)]
        await asyncio.sleep(0.5)
        joined = of("other", compute.submit(taking(1, "twice", log), "explanation", key=6))
        await asyncio.sleep(0)
        jobs[-1].cancel()
        assert await joined == 6
        for job in jobs:
            job.cancel()

    run(scenario)
    assert log[:2] == [0, 6] and "twice" not in log


# What nobody waits for any more


def test_a_kept_result_goes_on_though_nobody_waits():
    """Once begun it is computed to its end, handed to `keep`, and joined by who asks again."""
    log, kept = [], []

    async def scenario(compute):
        def submit(deadline=None):
            return compute.submit(sliced(2, "a", log), "explanation", deadline, key="key", keep=kept.append)

        (leaving,) = await start_all(submit())
        await asyncio.sleep(0.5)
        leaving.cancel()
        await asyncio.sleep(0.5)
        with pytest.raises(DeadlineError):
            await submit(Deadline.after(0.5))
        assert kept == []
        assert await submit() == "a"
        return now()

    assert run(scenario) == pytest.approx(2)
    assert len(log) == 200 and kept == ["a"]


def test_what_is_not_kept_ends_at_its_next_pause():
    """Without `keep` nothing more is computed, and what has not begun never is, with `keep` or without."""
    log = []

    async def scenario(compute):
        one = of("", compute.submit(taking(9, "begun", log, n=3), "explanation"))
        others = [of("", compute.submit(taking(1, "waits", log), "explanation", keep=keep)) for keep in (None, repr)]
        await asyncio.sleep(1)
        for task in (one, *others):
            task.cancel()
        await asyncio.sleep(0)
        return await compute.submit(taking(1, "next", log), "explanation")

    assert run(scenario) == "next" and log == ["begun", "next"]


def test_only_a_few_computations_of_a_client_go_on_without_it():
    """Beyond `MOST_LEFT` they end at their next pause; those of another client are counted by themselves."""
    kept = []

    async def scenario(compute):
        def submit(owner, n):
            return of(owner, compute.submit(sliced(10, (owner, n)), "explanation", keep=kept.append))

        asking = [submit(owner, n) for n in range(MOST_LEFT + 3) for owner in "ab"]
        await asyncio.sleep(9)  # of each some slices are computed
        assert len(compute._begun) == len(asking)
        for task in asking:
            task.cancel()

    run(scenario)
    assert [sum(owner == one for owner, _ in kept) for one in "ab"] == [MOST_LEFT] * 2


# Deadlines


def test_a_deadline_too_short_to_begin_blames_no_other_request():
    """Where nothing else is computed or waits, retrying would not help, and the error does not advise it."""

    async def scenario(compute):
        with pytest.raises(DeadlineError) as late:
            await compute.submit(taking(1), "explanation", Deadline.after(0))
        return late.value

    error = run(scenario)
    assert str(error) == "the request was not begun within 0 s (request_timeout): give X-Request-Timeout more"
    assert "Retry-After" not in error.headers


@pytest.mark.parametrize(
    ("case", "message", "retry_after"),
    [
        ("waits", "other requests were before this one, which was not begun within 2 s (request_timeout)", "2"),
        ("goes on", "the result is not computed within 2 s (request_timeout), and goes on being computed", "20"),
        ("ends", "the result was not computed within 2 s (request_timeout)", None),
    ],
)
def test_an_error_at_the_deadline_says_what_to_do(monkeypatch, case, message, retry_after):
    """To retry what has not begun or goes on, with a time, and otherwise to ask for less, or with more time."""
    monkeypatch.setattr("kanmodel.computing.monotonic", lambda: VirtualWorker.used)

    def compute_long():
        for number in tracked(range(20)):
            taking(1)()
            if number < 19:
                pause()

    async def scenario(compute):
        if case == "waits":
            before = of("", compute.submit(taking(10, n=2), "explanation"))
            await asyncio.sleep(1)
            asked = compute.submit(taking(1), "explanation", Deadline.after(2))
        else:
            before = asyncio.create_task(asyncio.sleep(0))
            keep = repr if case == "goes on" else None
            asked = compute.submit(compute_long, "explanation", Deadline.after(2), keep=keep)
        with pytest.raises(DeadlineError) as late:
            await asked
        before.cancel()
        return late.value

    error = run(scenario, max_request_timeout=600)
    advice = ": ask for less, or give X-Request-Timeout, of at most 600 (max_request_timeout)"
    assert str(error) == message + (advice if retry_after is None else "; retry later")
    found = error.headers.get("Retry-After")
    assert found is None if retry_after is None else abs(int(found) - int(retry_after)) <= 1


def test_expired_requests_are_not_computed():
    """300 requests with deadlines of half a millisecond leave no work, so the next one is computed at once."""
    log = []

    async def scenario(compute):
        for number in range(300):
            with pytest.raises(DeadlineError):
                deadline = Deadline.after(5e-4)
                await compute.submit(taking(0.2, number, log), "explanation", deadline, key=number, keep=repr)
        return await seconds_of(compute.submit(taking(0.02), "explanation"))

    assert run(scenario) <= 0.2 + 0.02
    assert len(log) <= 2  # one is running, which has no pauses


# Order


@pytest.mark.parametrize("kind", ["forecast", "explanation", "load", "background"])
def test_lanes_do_not_wait_for_each_other(kind):
    """While a computation without pauses runs in each other lane, and more wait there, one is computed at once."""

    async def scenario(compute):
        (long,) = await start_all(compute.submit(taking(200, n=2), "explanation"))
        await asyncio.sleep(101)
        assert [*compute._running] == ["long"]
        others = [one for one in ("forecast", "load", "background", "explanation") if one != kind]
        busy = await start_all(*(compute.submit(taking(50), one) for one in others * 3))
        await asyncio.sleep(1)
        assert {*compute._running} | {kind.replace("explanation", "short")} == {*LANES}
        seconds = await seconds_of(compute.submit(taking(0.02), kind))
        for task in (long, *busy):
            task.cancel()
        return seconds

    assert run(scenario) == pytest.approx(0.02)


def test_what_is_short_does_not_wait_for_what_is_long():
    """A computation leaves the lane of short ones at the first pause after `SHORT` seconds."""

    async def scenario(compute):
        slow = await start_all(*(compute.submit(sliced(100), "explanation") for _ in range(5)))
        in_time = [await seconds_of(compute.submit(taking(0.05), "explanation"))]
        await asyncio.sleep(2)
        in_time.append(await seconds_of(compute.submit(taking(0.05), "explanation")))
        for one in slow:
            one.cancel()
        return in_time

    early, later = run(scenario)
    assert early <= 5 * SHORT + 0.06 + 1e-9  # none of them was known to be long
    assert later == pytest.approx(0.05)


def test_of_one_client_goes_first_what_has_run_for_less_time():
    """A computation of a second is not held up by those that have run for longer, and those go on where they were."""

    async def scenario(compute):
        slow = await start_all(*(compute.submit(sliced(100), "explanation") for _ in range(3)))
        await asyncio.sleep(60)
        seconds = await seconds_of(compute.submit(sliced(1), "explanation"))
        for one in slow:
            one.cancel()
        return seconds

    assert run(scenario) <= 1.1


def test_one_client_is_served_in_the_order_of_arrival():
    """What has run for as long is not interrupted, and ends in the order in which it came."""
    log = []

    async def scenario(compute):
        await asyncio.gather(*(compute.submit(taking(0.05, name, log, n=5), "explanation") for name in "abcd"))
        return now()

    assert run(scenario) == pytest.approx(0.2)
    assert log == [*"aaaaabbbbbcccccddddd"]


def test_clients_take_turns_at_every_pause():
    """Of several clients with long computations, all have had as much time at any moment."""
    log = []

    async def scenario(compute):
        await asyncio.gather(*(of(name, compute.submit(sliced(2, name, log), "explanation")) for name in "abc"))

    run(scenario)
    long = log[3 * round(SHORT / 0.01 + 1) :]
    for end in range(len(long)):
        counts = [long[:end].count(name) for name in "abc"]
        assert max(counts) - min(counts) <= 3


@pytest.mark.parametrize("paused", [True, False])
def test_long_computations_of_one_client_make_way_for_those_of_another(paused):
    """Another client has half of the time at once: it does not wait for any of eight that were there."""

    async def scenario(compute):
        def long(seconds):
            return compute.submit(sliced(seconds) if paused else taking(seconds), "explanation")

        greedy = [of("greedy", long(20 if paused else 2)) for _ in range(8)]
        await asyncio.sleep(0.5)
        seconds = await seconds_of(asyncio.gather(*(of("other", long(1)) for _ in range(2))))
        for one in greedy:
            one.cancel()
        return seconds

    # Without pauses it waits for the one that runs, and the second for one more.
    assert run(scenario) <= (2 * 2 + 0.2 if paused else 1.5 + 1 + 2 + 1 + 0.2)


def test_a_flood_of_short_computations_makes_way_for_another_client():
    """Hundreds that one client always has waiting delay another's by the one that runs, each time it asks."""

    async def scenario(compute):
        async def flood():
            while not done.is_set():
                await compute.submit(taking(0.05), "explanation")

        done = asyncio.Event()
        greedy = [of("greedy", flood()) for _ in range(300)]
        await asyncio.sleep(3)
        times = [await of("other", seconds_of(compute.submit(taking(0.02), "explanation"))) for _ in range(20)]
        done.set()
        await asyncio.gather(*greedy)
        return max(times)

    assert run(scenario) <= 0.05 + 0.05 + 0.02 + 1e-9


def test_who_was_away_has_saved_nothing_up():
    """A client that comes after another has computed for a minute does not have the next minute alone."""
    log = []

    async def scenario(compute):
        early = of("early", compute.submit(sliced(70, "early", log), "explanation"))
        await asyncio.sleep(60)
        log.clear()
        late = of("late", compute.submit(sliced(5, "late", log), "explanation"))
        await asyncio.gather(early, late)

    run(scenario)
    first = log[: round(4 / 0.01)]
    assert first.count("early") >= 0.4 * len(first)


uses = st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 5)), min_size=1, max_size=5)


@given(owners=uses, data=st.data())
def test_clients_that_wait_get_equal_time(owners, data):
    """While two clients wait, neither gets more than the other by more than the longest computations of both.

    That holds from the moment when the later one arrives, whatever the earlier one has used before.
    """
    turns, clock, used, since = Turns(), 0.0, {}, {}
    for _ in range(60):
        for number, (arrival, _) in enumerate(owners):
            if number not in used and (arrival <= clock or not number):
                used[number] = 0.0
                since[number] = dict(used)
        owner = turns.next(used)
        seconds = data.draw(st.floats(0.001, owners[owner][1]))
        turns.charge(owner, seconds)
        clock += seconds
        used[owner] += seconds
        for late, before in since.items():
            for other in before:
                gained = used[other] - before[other] - used[late]
                assert abs(gained) <= owners[other][1] + owners[late][1] + 1e-9


def test_few_clients_are_remembered():
    """What a million past clients have used takes no memory."""
    turns = Turns()
    for number in range(5 * N_KNOWN):
        turns.charge(turns.next([str(number)]), 1)
    assert len(turns._times) <= N_KNOWN + 1


# Batches


def doubling(batches, seconds=1.0, n=1):
    """Doubles numbers batch by batch, in slices that take virtual time; negative numbers fail."""

    def compute(items):
        batches.append([*items])
        taking(seconds, n=n)()
        return [ValueError(str(item)) if item < 0 else 2 * item for item in items]

    return compute


def double(compute, function, item, size=1, group="group", most=32, **more):
    """Submits one item."""
    return compute.submit_together(function, "explanation", None, item=item, size=size, group=group, most=most, **more)


def test_items_that_wait_go_together():
    """Those that have come at once form the first batch, and those that come meanwhile the next."""
    batches = []

    async def scenario(compute):
        first = await start_all(*(double(compute, doubling(batches), item) for item in range(3)))
        await asyncio.sleep(0.5)
        later = await start_all(*(double(compute, doubling(batches), item) for item in range(3, 10)))
        return await asyncio.gather(*first, *later)

    assert run(scenario) == [2 * item for item in range(10)]
    assert batches == [[0, 1, 2], [*range(3, 10)]]


def test_batches_have_a_largest_size_and_groups_of_their_own():
    """What exceeds it waits for the next batch, a larger item is computed alone, and so is another group."""
    batches = []

    async def scenario(compute):
        function, sizes = doubling(batches), [1, 16, 16, 1, 33, 1]
        asking = [double(compute, function, item, size) for item, size in enumerate(sizes)]
        return await asyncio.gather(*asking, double(compute, function, 7, group="other"))

    assert run(scenario) == [0, 2, 4, 6, 8, 10, 14]
    assert batches == [[0, 1, 3, 5], [2], [4], [7]]


def test_each_client_has_a_part_of_the_next_batch():
    """The next batch has as much of each client as it has room for, whoever came first."""
    batches = []

    async def scenario(compute):
        first = await start_all(double(compute, doubling(batches), -1))
        greedy = [of("greedy", double(compute, doubling(batches), item)) for item in range(64)]
        others = [of("other", double(compute, doubling(batches), item)) for item in (100, 101)]
        await asyncio.gather(*first, *greedy, *others, return_exceptions=True)

    run(scenario)
    assert {100, 101} <= {*batches[1]} and [item for item in batches[1] if item < 100] == [*range(30)]


def test_a_failing_item_does_not_affect_the_others_in_its_batch():
    """An item that fails has its own error; if the batch fails, all items get the error."""

    async def scenario(compute):
        def fail(items):
            raise ValueError("all")

        return [
            await asyncio.gather(*(double(compute, one, item) for item in (1, -2, 3)), return_exceptions=True)
            for one in (doubling([]), fail)
        ]

    assert [[*map(str, results)] for results in run(scenario)] == [["2", "-2", "6"], ["all"] * 3]


@pytest.mark.parametrize("leaving", [[0], [1], [1, 2, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("after", [0.0, 0.5])
def test_items_that_leave_do_not_stop_the_others(leaving, after):
    """Each of the others has its own result; a batch that nobody waits for is cancelled at its next pause."""
    batches = []

    async def scenario(compute):
        tasks = await start_all(*(double(compute, doubling(batches, n=10), item) for item in range(4)))
        await asyncio.sleep(after)
        for number in leaving:
            tasks[number].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return results, VirtualWorker.used

    before = VirtualWorker.used
    results, used = run(scenario)
    for number, result in enumerate(results):
        assert isinstance(result, asyncio.CancelledError) if number in leaving else result == 2 * number
    if len(leaving) == 4:
        assert used - before < 1


def test_a_long_batch_does_not_hold_up_the_next():
    """What comes while a batch is paused or runs in the long lane forms the next, and nothing is computed twice."""
    batches = []

    async def scenario(compute):
        first = await start_all(double(compute, doubling(batches, seconds=2, n=200), 1))
        times = []
        for item in (2, 3, 4):
            await asyncio.sleep(0.3)
            times.append(await seconds_of(double(compute, doubling(batches, seconds=0.05), item)))
        second = await start_all(*(double(compute, doubling(batches, seconds=2, n=200), item) for item in (5, 6)))
        await asyncio.sleep(0.3)
        await asyncio.gather(double(compute, doubling(batches, seconds=0.05), 7), *first, *second)
        return times

    assert run(scenario) == pytest.approx([0.05] * 3)
    assert batches == [[1], [2], [3], [4], [5, 6], [7]]


# Memory


def test_what_needs_memory_begins_once_it_is_free():
    """Until then others that fit are computed."""
    log = []

    async def scenario(compute):
        async def ask(name, megabytes, seconds):
            await compute.submit(sliced(seconds, name), "explanation", n_bytes=megabytes * MB)
            log.append(name)

        large = await start_all(ask("first", 6, 5))
        await asyncio.sleep(1)
        await asyncio.gather(*large, ask("second", 6, 1), ask("small", 3, 0.05))

    run(scenario, max_work_bytes=10 * MB)
    assert log == ["small", "first", "second"]


# Background work


def test_background_work_is_promoted_by_a_request():
    """What a request asks for is computed at once, and once; the request has its result."""
    log = []

    async def scenario(compute):
        await start_all(
            compute.submit(taking(50, "first", log), "background"),
            compute.submit(taking(1, "wanted", log), "background", key="wanted"),
        )
        await compute.submit(taking(1, "again", log), "explanation", key="wanted")
        return now()

    assert run(scenario) == pytest.approx(1)
    assert sorted(log) == ["first", "wanted"]


async def ask_steadily(compute, seconds, every=0.01):
    """Requests that take a place, one after the other, for some seconds."""
    end = now() + seconds
    while now() < end:
        with compute.room.enter("somebody"):
            await asyncio.sleep(every)


@pytest.mark.parametrize(("n_seconds", "most"), [(0, 0.2), (60, 2.0)])
def test_background_work_takes_a_tenth_of_a_core_while_requests_come(n_seconds, most):
    """Without requests it takes all of it; either way it ends."""

    async def scenario(compute):
        asking = asyncio.create_task(ask_steadily(compute, n_seconds))
        await asyncio.sleep(0)
        await compute.submit(taking(0.2, n=40), "background")
        ended = now()
        await asking
        return ended

    assert run(scenario) == pytest.approx(most, rel=0.05)


def test_background_work_of_several_jobs_takes_no_more():
    """Each begins after the rest of the one before."""

    async def scenario(compute):
        asking = asyncio.create_task(ask_steadily(compute, 10))
        await asyncio.sleep(0)
        for _ in range(20):
            await compute.submit(taking(0.01), "background")
        ended = now()
        await asking
        return ended

    assert run(scenario) == pytest.approx(2.0, rel=0.1)


def test_background_work_goes_on_once_no_requests_come():
    """Half a second after the last of them it takes all of a core again."""

    async def scenario(compute):
        asking = asyncio.create_task(ask_steadily(compute, 1))
        await asyncio.sleep(0)
        await compute.submit(taking(1, n=200), "background")
        await asking
        return now()

    assert run(scenario) == pytest.approx(1 + QUIET + 0.85, abs=0.1)


def test_background_work_that_a_request_waits_for_does_not_rest():
    """It is promoted in the middle of a rest, and then takes as long as it takes."""

    async def scenario(compute):
        asking = asyncio.create_task(ask_steadily(compute, 10))
        await start_all(compute.submit(taking(2, n=40), "background", key="wanted"))
        await asyncio.sleep(0.1)
        seconds = await seconds_of(compute.submit(taking(1), "explanation", key="wanted"))
        asking.cancel()
        return seconds

    assert run(scenario) == pytest.approx(39 * 0.05, abs=0.051)


def test_rests_are_measured_by_processor_time():
    """A slice rests nine times what it has computed, however long it took on a busy machine."""
    slices = []

    def compute_in_slices():
        for number in range(8):
            if number:
                pause()
            begun = thread_time()
            while thread_time() < begun + 0.002:
                pass
            slices.append((begun, thread_time(), monotonic()))

    async def scenario(compute):
        asking = asyncio.create_task(ask_steadily(compute, 60, every=0.001))
        await asyncio.sleep(0)
        await compute.submit(compute_in_slices, "background")
        asking.cancel()

    run_really(scenario)
    for (begun, ended, at), (_, _, later) in pairwise(slices):
        assert later - at >= (1 / BACKGROUND_SHARE - 1) * (ended - begun)


# Everything together


@dataclass
class Seen:
    """The life of a request: when it came, how long it waits at most, its result or error, and when it had that."""

    arrived: float
    patience: float
    result: Any = None
    ended: float = -1.0


PATIENCE = (0.0005, 0.5, 3.0, inf)
ENDS = ("", "", "", "fails", "leaves")
arrivals = st.lists(
    st.tuples(
        st.sampled_from(["explanation", "background", "forecast", "load", "batch"]),
        st.floats(0, 0.3),  # seconds after the previous one
        st.floats(0.001, 2.0),  # seconds that it takes
        st.integers(1, 20),  # slices
        st.integers(0, 30) | st.none(),  # its key
        st.booleans(),  # whether it is kept
        st.integers(0, 40),  # MB
        st.sampled_from(PATIENCE),
        st.sampled_from(ENDS),
        st.sampled_from("abc"),  # its client
    ),
    max_size=60,
)


def draw_arrivals(seed, n):
    """Random work, of more items than hypothesis would draw."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        key = int(rng.integers(60))
        yield (
            str(rng.choice(["explanation", "explanation", "background", "forecast", "load", "batch"])),
            *(rng.exponential(0.05), rng.exponential(0.3), int(rng.integers(1, 20)), None if key < 20 else key),
            *(bool(rng.integers(2)), int(rng.integers(40)), rng.choice(PATIENCE), rng.choice(ENDS)),
            str(rng.choice([*"abc"])),
        )


@given(arrivals=arrivals)
def test_everyone_is_answered_in_time_and_nothing_is_left(arrivals):
    """Random work, deadlines, failures and cancellations keep the limits, sharing and cleanup."""
    check_arrivals(arrivals)


@pytest.mark.parametrize("seed", range(3))
def test_that_holds_for_as_long_as_work_arrives(seed):
    """The same for thousands of items, most of which arrive while others are waiting."""
    seen = check_arrivals(draw_arrivals(seed, examples(600)))
    errors = {type(one.result) for one in seen if isinstance(one.result, Exception)}
    assert {DeadlineError, OverloadedError, ValueError} <= errors  # the limits were reached


def check_arrivals(arrivals):
    """Runs the items, and returns what became of them."""
    seen = []

    async def scenario(compute):
        def check():
            running = [*compute._running.values()]
            assert {*running} <= compute._begun and len({*running}) == len(running)
            assert len({job.thread for job in compute._begun}) == len(compute._begun)
            assert not {*compute._waiting} & {*running}
            keys = [job.key for job in {*compute._waiting, *compute._begun} if not job.is_stopped]
            keys = [key for key in keys if isinstance(key, tuple)]
            assert len(keys) == len({*keys}), "one key is computed twice"
            assert len(compute._begun) == 1 or sum(job.n_bytes for job in compute._begun) <= 100 * MB
            assert compute.room.n_taken <= 8

        async def ask(one, kind, seconds, n, key, is_kept, megabytes, how, owner):
            OWNER.set(owner)
            error = ValueError("failed") if how == "fails" else None
            try:
                with compute.room.enter(owner, kind == "forecast") as hold:
                    HOLD.set(hold)
                    deadline = None if one.patience == inf else Deadline.after(one.patience)
                    if kind == "batch":
                        function = doubling([], seconds, n)
                        item = -1 if error else 1
                        asked = double(compute, function, item, n, group=n % 3)
                        one.result = await asyncio.wait_for(asked, deadline and deadline.seconds)
                    else:
                        function = taking(seconds, key, n=n, error=error)
                        name = None if key is None else (kind == "forecast", key)
                        more = {"key": name, "keep": repr if is_kept else None, "n_bytes": megabytes * MB}
                        one.result = await compute.submit(function, kind, deadline, **more)
            except Exception as raised:
                one.result = raised
            finally:
                one.ended = now()
                check()

        tasks = []
        for kind, gap, seconds, n, key, is_kept, megabytes, patience, how, owner in arrivals:
            await asyncio.sleep(gap)
            one = Seen(now(), patience)
            seen.append(one)
            task = asyncio.create_task(ask(one, kind, seconds, n, key, is_kept, megabytes, how, owner))
            if how == "leaves":
                asyncio.get_running_loop().call_later(seconds / 2, task.cancel)
            tasks.append(task)
            check()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(scenario, max_concurrent=8, max_work_bytes=100 * MB)
    for one in seen:
        assert one.ended >= one.arrived, "somebody is still waiting"
        assert one.ended <= one.arrived + one.patience + 1e-6
        if isinstance(one.result, Exception):
            assert isinstance(one.result, (DeadlineError, TimeoutError, OverloadedError, ValueError)), one.result
    return seen


# Threads


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_only_forecasts_have_normal_priority():
    """The threads of other work have a lower priority than the event loop."""

    def priority():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    async def scenario(compute):
        return [await compute.submit(priority, kind) for kind in ("forecast", "explanation", "background", "load")]

    own = priority()
    assert run_really(scenario) == [own, *[min(own + NICE, 19)] * 3]


def test_the_threads_work_where_they_may_not_be_nice(monkeypatch):
    """Where the system denies a lower priority, the threads still work."""

    def refuse(*_):
        raise PermissionError("not here")

    monkeypatch.setattr("os.setpriority", refuse)
    assert run_really(lambda compute: compute.submit(lambda: "done", "explanation")) == "done"


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
    """It ends at its next pause, and what waited for its thread is computed."""
    started, ended = threading.Event(), threading.Event()

    async def scenario(compute):
        (one,) = await start_all(compute.submit(never_end(started, ended), "explanation", key="key"))
        await asyncio.to_thread(started.wait, 30)
        one.cancel()
        assert await asyncio.to_thread(ended.wait, 30)
        return await compute.submit(lambda: "next", "explanation", key="key")

    assert run_really(scenario) == "next"


def test_closing_ends_endless_computations():
    """Closing ends what runs at its next pause and what is paused, and refuses what waits and what comes later."""
    started, ended = [(threading.Event(), threading.Event()) for _ in range(2)]

    async def scenario(compute):
        tasks = await start_all(
            *(compute.submit(never_end(*events), "explanation") for events in (started, ended)),
            *(compute.submit(lambda: "waits", "load") for _ in range(3)),
        )
        for events in (started, ended):
            await asyncio.to_thread(events[0].wait, 30)
        await asyncio.gather(*tasks[2:])
        await compute.close()
        assert started[1].is_set() and ended[1].is_set()
        for refused in (*tasks[:2], compute.submit(lambda: "too late", "explanation")):
            with pytest.raises(NotReadyError, match="the service is stopping"):
                await refused

    run_really(scenario)


def test_an_ended_request_leaves_nothing_that_fails_later(caplog):
    """Neither its deadline nor what refused it is logged as an exception that nobody has retrieved."""

    async def scenario(compute):
        blocking = of("", compute.submit(taking(100), "explanation"))
        await asyncio.sleep(1)
        leaving = of("", compute.submit(taking(1), "explanation", Deadline.after(5)))
        await asyncio.sleep(1)
        leaving.cancel()
        with pytest.raises(DeadlineError):
            await compute.submit(taking(1), "explanation", Deadline.after(5))
        await blocking

    run(scenario)
    gc.collect()
    assert "never retrieved" not in caplog.text
