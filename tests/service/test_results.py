from __future__ import annotations

import asyncio
import threading
import time

import pytest

from service.results import ResultCache


def test_a_result_is_computed_once_however_many_ask():
    """Callers that ask at the same time, and later ones, share one computation in another thread."""
    threads = []

    def compute():
        threads.append(threading.get_ident())
        time.sleep(0.05)
        return object()

    async def ask():
        cache = ResultCache(4)
        together = await asyncio.gather(*(cache.get("key", compute) for _ in range(8)))
        return [*together, await cache.get("key", compute)]

    results = asyncio.run(ask())
    assert len(set(map(id, results))) == 1
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


def test_a_failure_is_told_to_all_who_wait_and_not_kept():
    """Everyone who waits gets the error, and the next who asks a new computation."""
    calls = []

    def compute():
        calls.append(1)
        time.sleep(0.02)
        if len(calls) == 1:
            raise ValueError("once")
        return "result"

    async def ask():
        cache = ResultCache(4)
        first = await asyncio.gather(*(cache.get("key", compute) for _ in range(3)), return_exceptions=True)
        return first, await cache.get("key", compute)

    first, second = asyncio.run(ask())
    assert [str(error) for error in first] == ["once"] * 3
    assert second == "result"
    assert len(calls) == 2


def test_a_caller_that_leaves_does_not_take_the_result_with_it():
    """The computation goes on for the others."""
    go_on = threading.Event()

    def compute():
        assert go_on.wait(10)
        return "result"

    async def ask():
        cache = ResultCache(4)
        leaving = asyncio.create_task(cache.get("key", compute))
        staying = asyncio.create_task(cache.get("key", compute))
        await asyncio.sleep(0.01)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        go_on.set()
        return await staying

    assert asyncio.run(ask()) == "result"


def test_what_is_unused_for_longest_goes_first():
    """The cache is bounded, and a result that is asked for again stays."""
    calls = []

    async def ask():
        cache = ResultCache(2)
        for key in ("a", "b", "a", "c", "a", "b"):
            await cache.get(key, lambda key=key: calls.append(key))

    asyncio.run(ask())
    assert calls == ["a", "b", "c", "b"]
