"""A backlog takes from any thread up to its bytes, and never waits for its own thread."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import monotonic

from waiting import poll

from service.telemetry.backlog import Backlog

SAID = "it fails", "it works again"


def test_items_of_many_threads_are_all_there():
    """Each once, and those of one thread in their order."""
    taken: list[tuple[int, int]] = []
    backlog: Backlog[tuple[int, int]] = Backlog(
        "test", 1 << 20, 0.001, lambda is_last: taken.extend(backlog.take()), *SAID
    )
    backlog.start()
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(lambda thread: [backlog.put(1, (thread, number)) for number in range(500)], range(8))]
    assert backlog.close() == []
    assert len(taken) == 4000
    for thread in range(8):
        assert [number for of, number in taken if of == thread] == [*range(500)]


def test_what_does_not_fit_is_refused_until_there_is_room():
    """What is taken holds its bytes until the next is; half of them wake the thread before its time."""
    going, taken = Event(), list[int]()

    def work(is_last: bool) -> None:
        taken.extend(backlog.take(2))
        going.wait(0 if is_last else 30)

    backlog: Backlog[int] = Backlog("test", 10, 60, work, *SAID)
    start = monotonic()
    assert [backlog.put(5, number) for number in range(3)] == [True, True, False]
    backlog.start()
    poll(lambda: taken == [0, 1])
    assert not backlog.put(1, 3) and monotonic() - start < 30
    going.set()
    poll(lambda: backlog.take() == [] and backlog.put(5, 4))
    assert taken + backlog.close() in ([0, 1, 4], [0, 1])


def test_a_flush_waits_for_the_thread_though_not_of_it():
    """What was put before is worked off; a round that flushes itself would wait in vain."""
    taken = list[int]()

    def work(is_last: bool) -> None:
        backlog.flush(60)
        while items := backlog.take():
            taken.extend(items)

    backlog: Backlog[int] = Backlog("test", 1000, 60, work, *SAID)
    backlog.start()
    for number in range(100):
        backlog.put(1, number)
    start = monotonic()
    backlog.flush(30)
    assert taken == [*range(100)] and monotonic() - start < 30
    backlog.close()


def test_a_round_that_fails_is_repeated_after_its_time_alone(caplog):
    """A queue that is half full does not wake a thread that cannot write; failing and going on are said once."""
    caplog.set_level(logging.INFO, "service.telemetry.backlog")
    rounds: list[float] = []
    broken = [True]

    def work(is_last: bool) -> None:
        rounds.append(monotonic())
        if broken:
            raise ValueError("of any kind")

    backlog: Backlog[int] = Backlog("test", 10, 0.2, work, *SAID)
    backlog.start()
    for number in range(8):
        backlog.put(1, number)
    poll(lambda: len(rounds) >= 2)
    n_rounds = len(rounds)
    backlog.put(1, 8)
    broken.clear()
    poll(lambda: "it works again" in caplog.text)
    assert len(backlog.close()) == 9 and len(rounds) <= n_rounds + 4
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("it ")]
    assert said == ["it fails: of any kind; mend that before too much waits", "it works again"]
