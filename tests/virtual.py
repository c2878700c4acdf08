"""An event loop whose clock moves on only where everybody waits, and threads that take time by that clock."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from threading import Semaphore, Thread
from typing import Any, TypeVar

from service.work.threads import Done

Result = TypeVar("Result")


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Never waits: the time that it was to wait has passed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits, and nothing will ever happen"
        self.now += max(timeout, 0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time is that of the selector."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run_virtually(scenario: Coroutine[Any, Any, Result]) -> Result:
    """What a coroutine returns on a loop of its own; takes no time, however long it waits."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario)


class VirtualWorker:
    """A worker whose functions take the seconds that they call `spend` with.

    A function runs on a thread of its own, on which it may pause, but only while the loop waits for it.

    Args:
        name: what it is called.
        nice: whether it gives way.
    """

    spent = 0.0  # by the function that runs

    def __init__(self, name: str, nice: bool) -> None:
        self.name, self.nice = name, nice
        self.is_busy = False
        self._turn, self._stopped = Semaphore(0), Semaphore(0)
        self._next: Callable[[], None] = self.close  # what happens once the time has passed that was spent

    @classmethod
    def spend(cls, seconds: float) -> None:
        """Called by a function: lets it take some time."""
        cls.spent += seconds

    def give(self, function: Callable[[], Any], done: Done) -> None:
        """Computes a function, and tells its result once its time has passed."""
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
                done(result, error)

            self._next = finish
            self._stopped.release()

        self._let(Thread(target=compute).start)

    def pause(self, is_wanted: Callable[[], bool], yield_turn: Callable[[], None]) -> None:
        """As that of a real worker, asked once the time has passed that was spent before."""
        self._next = lambda: yield_turn() if is_wanted() else self.resume()
        self._stopped.release()
        self._turn.acquire()

    def resume(self) -> None:
        """Lets the function go on that has paused."""
        self._let(self._turn.release)

    def close(self) -> None:
        """Nothing remains to be done."""

    def _let(self, go_on: Callable[[], None]) -> None:
        """Lets the function go on to its next pause or its end, and has the time pass that it takes."""
        VirtualWorker.spent = 0.0
        go_on()
        self._stopped.acquire()
        asyncio.get_running_loop().call_later(VirtualWorker.spent, lambda: self._next())
