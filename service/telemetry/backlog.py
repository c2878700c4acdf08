"""A backlog: what any thread gives, and one thread of its own works off in rounds, within bounded bytes."""

import logging
from collections import deque
from collections.abc import Callable
from threading import Event as Flag
from threading import RLock, Thread, current_thread
from time import monotonic, sleep
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)
CLOSE_SECONDS = 5.0  # in which the rest is worked off as the process ends
Item = TypeVar("Item")


class Backlog(Generic[Item]):
    """A queue and its thread. To give something takes microseconds, however slow the thread is.

    Args:
        name: of the thread.
        n_bytes: most that may wait, with what is taken and not yet done.
        seconds: between two rounds; one begins sooner where half of the bytes wait, unless the last one failed.
        work: a round, called with whether it is the last. What it raises is logged once, until a round succeeds.
        failed: what is logged then, before the error.
        again: what is logged when a round succeeds after that.
    """

    def __init__(
        self, name: str, n_bytes: int, seconds: float, work: Callable[[bool], None], failed: str, again: str
    ) -> None:
        self._most, self._seconds, self._work, self._failed, self._again = n_bytes, seconds, work, failed, again
        self._lock, self._wake = RLock(), Flag()  # R: a signal, or what is collected, may log while a line is put
        self._queue: deque[tuple[int, Item]] = deque()
        self._held = self._taken = 0  # bytes: all, and those of them that are taken
        self._is_ending = self._is_failing = False
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> list[Item]:
        """Ends the thread after a last round, or after `CLOSE_SECONDS`; returns what is left in the queue."""
        self._is_ending = True
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)
        return [item for _, item in tuple(self._queue)]

    def put(self, n_bytes: int, item: Item) -> bool:
        """Gives something that holds so many bytes; returns whether there was room for it."""
        with self._lock:
            if self._held + n_bytes > self._most:
                return False
            self._held += n_bytes
            self._queue.append((n_bytes, item))
            if 2 * self._held > self._most and not self._is_failing:
                self._wake.set()
        return True

    def wake(self) -> None:
        """Begins a round now, unless the last one failed."""
        if not self._is_failing:
            self._wake.set()

    def flush(self, seconds: float) -> None:
        """Waits until all is taken and worked off, or for so many seconds."""
        until = monotonic() + seconds
        self._wake.set()
        while self._held and monotonic() < until and current_thread() is not self._thread:
            sleep(0.001)

    def take(self, n: int | None = None) -> list[Item]:
        """The next `n`, by default all; those that were taken before are done, so their bytes are free."""
        with self._lock:
            self._held -= self._taken
            n_taken = len(self._queue) if n is None else min(n, len(self._queue))
            taken = [self._queue.popleft() for _ in range(n_taken)]
            self._taken = sum(n_bytes for n_bytes, _ in taken)
        return [item for _, item in taken]

    def _run(self) -> None:
        while True:
            self._wake.wait(self._seconds)
            is_last = self._is_ending
            if not is_last:
                self._wake.clear()
            self._try(is_last)
            if is_last:
                return

    def _try(self, is_last: bool) -> None:
        try:
            self._work(is_last)
        except Exception as error:  # of any kind: the thread goes on
            if not self._is_failing:
                logger.warning("%s: %s; mend that before too much waits", self._failed, error)
            self._is_failing = True
        else:
            if self._is_failing:
                logger.info("%s", self._again)
            self._is_failing = False
