"""Worker threads: each runs one function at a time and reports the result to the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Semaphore, Thread, get_native_id
from typing import Any

NICE = 10  # where forecasts want the same core, they have nine tenths of it

Done = Callable[[Any, BaseException | None], None]


class Worker(Thread):
    """A thread that gives each result, or error, to a callback on the event loop that it was started from.

    Args:
        name: what it is called in a debugger.
        nice: whether it gives way to other threads that want the same core.
    """

    def __init__(self, name: str, nice: bool = False) -> None:
        super().__init__(name=name, daemon=True)
        self._nice = nice
        self._inbox: SimpleQueue[tuple[Callable[[], Any], Done] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._turn = Semaphore(0)
        self.start()

    def give(self, function: Callable[[], Any], done: Done) -> None:
        """Has a function computed, after those that were given before."""
        self._inbox.put((function, done))

    def run(self) -> None:
        """Goes on until it is closed."""
        if self._nice:
            give_way()
        while (given := self._inbox.get()) is not None:
            function, done = given
            try:
                result, error = function(), None
            except BaseException as raised:
                result, error = None, raised
            with suppress(RuntimeError):  # the loop is closed: nobody is left who could be told
                self._loop.call_soon_threadsafe(done, result, error)
            del given, function, done, result, error  # while it waits, it keeps nothing alive

    def pause(self, is_wanted: Callable[[], bool], yield_turn: Callable[[], None]) -> None:
        """Called by the function that it computes: where the thread is wanted, waits until it is resumed.

        Args:
            is_wanted: whether somebody else should go on first.
            yield_turn: called on the event loop, which then sees to it that `resume` is called.
        """
        if is_wanted():
            self._loop.call_soon_threadsafe(yield_turn)
            self._turn.acquire()

    def resume(self) -> None:
        """Lets the function go on that has paused."""
        self._turn.release()

    def close(self) -> None:
        """Ends it after what it was given."""
        self._inbox.put(None)


def give_way() -> None:
    """Lowers the priority of the thread that calls, for good."""
    with suppress(AttributeError, OSError):  # only Linux knows priorities of threads, and it may not allow this
        os.setpriority(os.PRIO_PROCESS, get_native_id(), NICE)


class StoppedError(Exception):
    """A computation has ended at a pause, since nobody waits for it."""
