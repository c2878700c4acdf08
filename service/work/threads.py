"""The threads that compute: each does one function at a time, and tells the event loop what came of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Event, Thread, get_native_id
from typing import Any

from torch.overrides import TorchFunctionMode

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

    def close(self) -> None:
        """Ends it after what it was given."""
        self._inbox.put(None)


def give_way() -> None:
    """Lowers the priority of the thread that calls, for good."""
    with suppress(AttributeError, OSError):  # only Linux knows priorities of threads, and it may not allow this
        os.setpriority(os.PRIO_PROCESS, get_native_id(), NICE)


class StoppedError(Exception):
    """A computation was broken off, since nobody waits for it."""


class BreakOff(TorchFunctionMode):
    """Within it each operation of torch first looks whether to go on.

    Else a thread inside of torch would compute what nobody awaits, or take the process down when the interpreter ends.

    Args:
        stopped: set once the computation is to end.
    """

    def __init__(self, stopped: Event) -> None:
        super().__init__()
        self._stopped = stopped

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The operation itself, unless it is too late."""
        if self._stopped.is_set():
            raise StoppedError
        return func(*args, **(kwargs or {}))
