"""Worker threads: each runs one function at a time and reports the result to the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Semaphore, Thread, get_native_id
from typing import Any

NICE = 10  # how much less urgent: forecasts get nine tenths of a shared core

Done = Callable[[Any, BaseException | None], None]


class Worker(Thread):
    """A thread that passes each result or error to a callback on the event loop that started it.

    Args:
        name: its name in a debugger.
        nice: whether it has a lower priority.
    """

    def __init__(self, name: str, nice: bool = False) -> None:
        super().__init__(name=name, daemon=True)
        self._nice = nice
        self._inbox: SimpleQueue[tuple[Callable[[], Any], Done] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._turn = Semaphore(0)
        self.start()

    def give(self, function: Callable[[], Any], done: Done) -> None:
        """Queues a function."""
        self._inbox.put((function, done))

    def run(self) -> None:
        """Runs queued functions until it is closed."""
        if self._nice:
            give_way()
        while (given := self._inbox.get()) is not None:
            function, done = given
            try:
                result, error = function(), None
            except BaseException as raised:
                result, error = None, raised
            with suppress(RuntimeError):  # the loop is closed, so nothing waits for the result
                self._loop.call_soon_threadsafe(done, result, error)
            del given, function, done, result, error  # an idle thread keeps no references

    def pause(self, is_wanted: Callable[[], bool], yield_turn: Callable[[], None]) -> None:
        """Called by the running function: if another job is due, waits until it is resumed.

        Args:
            is_wanted: whether another job should run first.
            yield_turn: called on the event loop, which later calls `resume`.
        """
        if is_wanted():
            self._loop.call_soon_threadsafe(yield_turn)
            self._turn.acquire()

    def resume(self) -> None:
        """Resumes the paused function."""
        self._turn.release()

    def close(self) -> None:
        """Ends the thread after the queued functions."""
        self._inbox.put(None)


def give_way() -> None:
    """Lowers the priority of the calling thread permanently."""
    with suppress(AttributeError, OSError):  # only Linux has thread priorities, and may deny this
        thread = get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)


class StoppedError(Exception):
    """A computation was cancelled at a pause."""
