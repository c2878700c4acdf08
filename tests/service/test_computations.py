from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest
import torch

from service.http.errors import NotReadyError
from service.work.computations import NICE, Computations


def test_a_computation_has_a_thread_of_its_own_and_gives_back_its_result():
    """The result is that of the function, in another thread, and an error is the caller's."""

    def fail():
        raise ValueError("wrong")

    async def run():
        computations = Computations()
        with pytest.raises(ValueError, match="wrong"):
            await computations.run(fail)
        return await computations.run(threading.get_ident)

    assert asyncio.run(run()) != threading.get_ident()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_a_computation_gives_way_to_forecasts():
    """Its thread has a lower priority than the one that asked."""
    priority = asyncio.run(Computations().run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    assert priority == NICE


def test_closing_ends_a_computation_that_would_never_end():
    """What runs in torch is broken off at its next operation, and what comes later does not begin."""
    ended = threading.Event()

    def compute(started):
        try:
            while True:
                torch.ones(3).sum()
                started.set()
        finally:
            ended.set()

    async def run():
        computations = Computations()
        started = threading.Event()
        running = asyncio.create_task(computations.run(lambda: compute(started)))
        await asyncio.to_thread(started.wait)
        await computations.close()
        assert ended.is_set()
        for refused in (running, computations.run(lambda: "too late")):
            with pytest.raises(NotReadyError, match="the service is stopping"):
                await refused

    asyncio.run(run())


def test_a_caller_that_leaves_does_not_break_a_computation_off():
    """The function goes on to its end when nobody waits any more."""
    started, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def compute():
        started.set()
        assert go_on.wait(10)
        torch.ones(3).sum()
        done.set()

    async def run():
        running = asyncio.create_task(Computations().run(compute))
        await asyncio.to_thread(started.wait)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        go_on.set()
        assert await asyncio.to_thread(done.wait, 10)

    asyncio.run(run())
