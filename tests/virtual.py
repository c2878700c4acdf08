"""An event loop with a virtual clock, which advances only when all tasks wait, and threads on that clock."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from threading import Semaphore, Thread
from typing import Any, TypeVar

from service.compute import Finished

Result = TypeVar("Result")


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Never waits: the clock advances by the timeout instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits, and nothing will ever happen"
        self.now += max(timeout, 0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is that of the selector."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run_virtually(scenario: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine on a virtual loop, without real waiting."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario)


class VirtualWorker:
    """A thread whose functions take the virtual seconds that they pass to `spend`.

    A function runs on its own thread and may pause there, but only while the loop waits for it.

    Args:
        name: its name in errors.
        nice: whether it has a lower priority.
    """

    spent = 0.0  # set by the running function
    used = 0.0  # by all of them so far

    def __init__(self, name: str, nice: bool) -> None:
        self.name, self.nice = name, nice
        self.is_busy = False
        self._turn, self._stopped = Semaphore(0), Semaphore(0)
        self._next: Callable[[], None] = self.close  # what to do once the spent time has passed

    @classmethod
    def spend(cls, seconds: float) -> None:
        """Called by a function: takes virtual time."""
        cls.spent += seconds
        cls.used += seconds

    def clock(self) -> float:
        """The processor time of all functions, of which one runs at a time."""
        return self.used

    def give(self, function: Callable[[], Any], deliver: Finished) -> None:
        """Computes a function, and delivers its result once its time has passed."""
        assert not self.is_busy, f"{self.name} does one thing at a time"
        self.is_busy = True

        def compute() -> None:
            result, error = None, None
            try:
                result = function()
            except Exception as raised:
                error = raised

            def finish() -> None:
                self.is_busy = False
                deliver(result, error)

            self._next = finish
            self._stopped.release()

        self._let(Thread(target=compute).start)

    def pause(self, is_wanted: Callable[[], bool], yield_turn: Callable[[], None]) -> None:
        """Like that of a real worker, called once the time spent before has passed."""
        self._next = lambda: yield_turn() if is_wanted() else self.resume()
        self._stopped.release()
        self._turn.acquire()

    def resume(self) -> None:
        """Resumes a paused function."""
        self._let(self._turn.release)

    def close(self) -> None:
        """Does nothing, as no thread remains."""

    def _let(self, go_on: Callable[[], None]) -> None:
        """Runs the function until its next pause or its end, and schedules the time that it takes."""
        VirtualWorker.spent = 0.0
        go_on()
        self._stopped.acquire()
        asyncio.get_running_loop().call_later(VirtualWorker.spent, lambda: self._next())
