"""Places and memory of requests: who gets in, who gives way, and that nothing is lost."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual import VirtualWorker, run_virtually

from kanmodel import DataError
from service.compute import Compute
from service.room import HOLD, PATIENCE, Deadline, Room
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.wire.errors import DeadlineError, OverloadedError, find_code
from service.wire.security import OWNER

LATE = 1e6  # seconds


def make_room(places=8, most=100, retry_after=lambda: 2.5):
    return Room(places, most, retry_after)


def fill(room, stack, owner, n, can_give_way=True, is_forecast=False):
    """Requests of a client that take places; the errors of those that later give way, with their numbers."""
    refused = []
    for number in range(n):
        hold = stack.enter_context(room.enter(owner, is_forecast))
        if can_give_way:
            hold.give_way = lambda error, number=number: refused.append((number, error))
    return refused


def refuses(room, owner, is_forecast=False):
    """The error of a request that gets no place."""
    with pytest.raises(OverloadedError) as refused:
        room.enter(owner, is_forecast)
    return refused.value


# Places


def test_a_lone_client_gets_all_places():
    """It is refused past the limit alone, with a time to retry; a place that is given back can be taken."""
    room = make_room()
    with ExitStack() as stack:
        first = stack.enter_context(room.enter("a"))
        refused = fill(room, stack, "a", 7)
        error = refuses(room, "a")
        assert (find_code(error), error.headers["Retry-After"]) == ("queue_full", "3")
        assert str(error) == "8 requests are being answered already (max_concurrent); retry later"
        with first:
            pass
        stack.enter_context(room.enter("a"))
        assert room.n_taken == 8 and refused == []
    assert room.n_taken == 0 and not room._holds


def test_a_newcomer_takes_the_place_of_the_newest_request_of_whoever_has_the_most():
    """It gets as many places as the others, and no more, whatever the order."""
    room = make_room(places=9)
    with ExitStack() as stack:
        of_a = fill(room, stack, "a", 6)
        of_b = fill(room, stack, "b", 3)
        fill(room, stack, "c", 3)
        assert [number for number, _ in of_a] == [5, 4, 3] and of_b == []
        assert {owner: len(holds) for owner, holds in room._holds.items()} == {"a": 3, "b": 3, "c": 3}
        assert find_code(refuses(room, "c")) == "queue_full"
        assert find_code(of_a[0][1]) == "queue_full" and of_a[0][1].headers["Retry-After"] == "3"
    assert room.n_taken == 0


def test_nothing_that_has_begun_gives_way():
    """Only a request of which nothing is computed is dropped; if there is none, the newcomer is refused."""
    room = make_room()
    with ExitStack() as stack:
        fill(room, stack, "a", 5, can_give_way=False)
        refused = fill(room, stack, "a", 1)
        fill(room, stack, "a", 2, can_give_way=False)
        stack.enter_context(room.enter("b"))
        assert len(refused) == 1
        refuses(room, "b")


def test_a_forecast_takes_the_place_of_another_request_of_its_client():
    """So explanations leave forecasts their places; a forecast gives way to none of its own client."""
    room = make_room()
    with ExitStack() as stack:
        forecasts = fill(room, stack, "a", 4, is_forecast=True)
        others = fill(room, stack, "a", 4)
        refuses(room, "a")
        fill(room, stack, "a", 4, is_forecast=True)
        assert len(others) == 4 and forecasts == []
        refuses(room, "a", is_forecast=True)


@pytest.mark.parametrize("n_clients", [1, 2, 10])
def test_every_client_gets_in_beside_others_that_have_filled_the_room(n_clients):
    """However many requests of others wait, each client has its part of the places at once."""
    room = make_room(places=512)
    with ExitStack() as stack:
        for number in range(n_clients):
            with suppress(OverloadedError):
                fill(room, stack, number, 512)
        for _ in range(512 // (n_clients + 1)):
            stack.enter_context(room.enter("newcomer"))
        assert room.n_taken == 512


def test_a_request_that_waits_to_be_computed_gives_way_and_one_that_is_computed_does_not():
    """Of a client that fills the room with computations, all but the one that runs make place."""

    async def scenario():
        compute = Compute(Settings(max_concurrent=4), Metrics())
        compute.start(VirtualWorker)

        async def ask(owner):
            OWNER.set(owner)
            with compute.room.enter(owner) as hold:
                HOLD.set(hold)
                return await compute.submit(lambda: VirtualWorker.spend(1), "explanation")

        greedy = [asyncio.create_task(ask("greedy")) for _ in range(4)]
        await asyncio.sleep(0.5)
        others = [asyncio.create_task(ask("other")) for _ in range(2)]
        results = await asyncio.gather(*greedy, *others, return_exceptions=True)
        assert compute.room.n_taken == 0
        return [isinstance(one, OverloadedError) for one in results]

    assert run_virtually(scenario()) == [False, False, True, True, False, False]


# Memory


def run(scenario, **options):
    """The result of a scenario, a coroutine that takes a room, on the virtual clock; nothing may be held after it."""

    async def start():
        room = make_room(**options)
        result = await scenario(room)
        await asyncio.sleep(LATE)
        assert room.n_taken == room.n_bytes == 0 and not room._holds and not room._waiting
        return result

    return run_virtually(start())


async def hold_bytes(room, owner, n_bytes, seconds=1.0, deadline=LATE, gives_way=False):
    """Takes bytes, keeps them for some seconds, and returns when it had them."""
    with room.enter(owner) as hold:
        await hold.take(n_bytes, Deadline.after(deadline))
        began = asyncio.get_running_loop().time()
        refused = asyncio.get_running_loop().create_future()
        if gives_way:  # as a body that arrives
            hold.give_way = refused.set_exception
        with suppress(TimeoutError):
            await asyncio.wait_for(refused, seconds)
        return began


def test_what_does_not_fit_waits():
    """It is served once enough is given back; what comes later does not overtake it."""

    async def scenario(room):
        asked = [hold_bytes(room, "a", n) for n in (60, 30, 60, 10)]
        return await asyncio.gather(*asked)

    assert run(scenario) == [0, 0, pytest.approx(1), pytest.approx(1)]


def test_who_holds_the_least_is_served_first():
    """A client of which little is held comes before one that holds much and came first."""

    async def scenario(room):
        holding = [asyncio.create_task(hold_bytes(room, "a", 40, s)) for s in (9, 1)]
        await asyncio.sleep(0.1)
        later = [asyncio.create_task(hold_bytes(room, owner, 50, 2)) for owner in ("a", "b")]
        return [await one for one in (*holding, *later)]

    assert run(scenario) == [0, 0, pytest.approx(3), pytest.approx(1)]


def test_what_never_fits_is_refused():
    """At once, as it could wait for ever."""

    async def scenario(room):
        with room.enter("a") as hold, pytest.raises(DataError) as refused:
            await hold.take(60_000_000, Deadline.after(1))
        return refused.value

    error = run(scenario, most=50_000_000)
    assert str(error) == "request would take 60 MB of memory, of at most 50 MB (max_work_bytes)"
    assert find_code(error) == "limit_exceeded"


def test_who_waits_for_memory_until_its_deadline_is_told_to_retry():
    """It holds nothing then, and what waits behind it has its turn."""

    async def scenario(room):
        asked = (hold_bytes(room, "a", 60, 9), hold_bytes(room, "a", 60, 1, deadline=2), hold_bytes(room, "a", 30, 1))
        return await asyncio.gather(*asked, return_exceptions=True)

    _, late, behind = run(scenario)
    assert isinstance(late, DeadlineError) and late.headers["Retry-After"] == "3"
    assert str(late) == "no memory was free for 2 s (max_work_bytes, request_timeout); retry later"
    assert behind == pytest.approx(2)


def test_who_leaves_while_it_waits_for_memory_holds_none():
    """A cancelled request gives its turn to what waits behind it."""

    async def scenario(room):
        tasks = [asyncio.create_task(hold_bytes(room, "a", n, 9)) for n in (60, 60, 30)]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert run(scenario)[2] == pytest.approx(0.5)


def test_bodies_that_still_arrive_make_room_for_who_holds_less():
    """After `PATIENCE` seconds the newest of them gives way, and no more of them than is needed."""

    async def scenario(room):
        slow = [asyncio.create_task(hold_bytes(room, "slow", n, 60, gives_way=True)) for n in (30, 30, 40)]
        await asyncio.sleep(1)
        began = await hold_bytes(room, "other", 35)
        return began, await asyncio.gather(*slow, return_exceptions=True)

    began, slow = run(scenario)
    assert began == pytest.approx(1 + PATIENCE)
    assert [isinstance(one, OverloadedError) for one in slow] == [False, False, True]


def test_bodies_of_who_holds_less_make_no_room():
    """A client that would hold more than another one waits for it, and what is computed never gives way."""

    async def scenario(room):
        holding = [hold_bytes(room, "a", 40, 60, gives_way=True), hold_bytes(room, "b", 40, 60)]
        return await asyncio.gather(*holding, hold_bytes(room, "c", 50))

    assert run(scenario) == [0, 0, pytest.approx(60)]


def test_an_answer_is_counted_beyond_the_limit():
    """What is there already is counted, not refused; bodies wait until it is sent."""

    async def scenario(room):
        async def answer():
            with room.enter("a") as hold:
                hold.add(150)
                await asyncio.sleep(3)
                hold.add(-50)
                assert room.n_bytes == 100
                await asyncio.sleep(1)

        answering = asyncio.create_task(answer())
        await asyncio.sleep(0.5)
        began = await hold_bytes(room, "b", 1)
        await answering
        return began

    assert run(scenario) == pytest.approx(4)


steps = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.floats(0, 1),  # seconds after the one before
        st.integers(0, 120),  # bytes of a body
        st.integers(0, 40),  # bytes of an answer
        st.floats(0, 3),  # seconds for which it has them
        st.sampled_from([0.5, 5.0, LATE]),  # its deadline
        st.sampled_from(["", "arrives", "leaves"]),
        st.booleans(),  # whether it is a forecast
    ),
    max_size=40,
)


@given(steps=steps)
def test_the_limits_hold_and_nobody_is_forgotten(steps):
    """Whatever comes: `take` never exceeds the limits, sums are those of what is held, and all are answered."""

    async def scenario(room):
        loop, n_answers = asyncio.get_running_loop(), 0

        def check():
            holds = [hold for of_owner in room._holds.values() for hold in of_owner]
            assert len(holds) == room.n_taken <= 4 and all(room._holds.values())
            assert all(hold in room._holds[hold.owner] for hold in holds)
            assert room.n_bytes >= sum(hold.n_bytes for hold in holds) >= 0
            for _, n_bytes, outcome in room._waiting:
                assert outcome.done() or room.n_bytes > 0, "it waits for nobody"
                assert n_bytes <= 100

        async def ask(owner, n_body, n_answer, seconds, patience, how, is_forecast):
            nonlocal n_answers
            arrived = loop.time()
            try:
                with room.enter(owner, is_forecast) as hold:
                    refused = loop.create_future()
                    before = room.n_bytes - n_answers
                    try:
                        await hold.take(n_body, Deadline.after(patience))
                    finally:
                        assert loop.time() <= arrived + patience + 1e-6
                    assert room.n_bytes - n_answers <= max(100, before)
                    if how == "arrives":
                        hold.give_way = refused.set_exception
                    with suppress(TimeoutError):
                        await asyncio.wait_for(refused, seconds)
                    hold.give_way = None
                    hold.add(n_answer)
                    n_answers += n_answer
                    check()
                    try:
                        await asyncio.sleep(seconds)
                    finally:
                        n_answers -= n_answer
            except (DataError, OverloadedError, DeadlineError):
                pass
            check()

        tasks = []
        for owner, gap, *asked in steps:
            await asyncio.sleep(gap)
            tasks.append(asyncio.create_task(ask(owner, *asked)))
            if asked[4] == "leaves":
                loop.call_later(asked[2] / 2, tasks[-1].cancel)
            check()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [one for one in done if isinstance(one, Exception)], done
        assert loop.time() < 40 * 8 + 1  # each has what it waits for once those before it are done

    run(scenario, places=4)
