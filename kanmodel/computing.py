"""Long computations: pauses between slices of their work, and results that are computed once (single flight).

Within `pausing` a hook is called between slices, mostly of a few milliseconds, and before what may take longer. It may
wait, to let more urgent work run first, or raise, to cancel the computation: no partial result is cached.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar, cast

_hook: ContextVar[Callable[[], None] | None] = ContextVar("hook", default=None)


def pause() -> None:
    """Calls the hook of the computation's context, if it has one."""
    if (hook := _hook.get()) is not None:
        hook()


@contextmanager
def pausing(hook: Callable[[], None]) -> Iterator[None]:
    """Computations within call `hook` between slices of their work; `pause` within the hook calls the outer one."""
    outer = _hook.get()

    def call() -> None:
        with _set(outer):
            hook()

    with _set(call):
        yield


def unpaused() -> AbstractContextManager[None]:
    """Computations within do not pause, so that nothing outside ends them."""
    return _set(None)


@contextmanager
def _set(hook: Callable[[], None] | None) -> Iterator[None]:
    token = _hook.set(hook)
    try:
        yield
    finally:
        _hook.reset(token)


Result = TypeVar("Result")
POLL = 0.05  # seconds between two pauses of a thread that waits for another's computation


@dataclass
class _Cell:
    """One result, or none yet; the thread that holds the lock computes it."""

    lock: Lock = field(default_factory=Lock)
    results: list[Any] = field(default_factory=list)
    pinned: bool = False


class Once:
    """An LRU cache with single flight: threads that ask for the same key wait for one computation.

    A computation that fails is not cached.

    Args:
        size: most results; beyond it the least recently used one is evicted, unless it is pinned.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = Lock()
        self._cells: OrderedDict[Hashable, _Cell] = OrderedDict()

    def __reduce__(self) -> tuple[type[Once], tuple[int]]:
        """Pickles without results: a copy in another process starts empty."""
        return Once, (self._size,)

    def get(self, key: Hashable, compute: Callable[[], Result], pinned: bool = False) -> Result:
        """Returns the cached result of a key, or that of `compute`, which must not ask for the same key.

        Args:
            key: key of the result.
            compute: called if there is no result, after a pause.
            pinned: whether the result is never evicted until it is unpinned.
        """
        with self._lock:
            known = self._cells.get(key)
            if known is not None and known.results:
                known.pinned |= pinned
                self._cells.move_to_end(key)
                return cast(Result, known.results[0])
        pause()
        with self._lock:
            cell = self._cells.setdefault(key, _Cell())
            cell.pinned |= pinned
        while not cell.lock.acquire(timeout=POLL):
            pause()
        try:
            if not cell.results:
                cell.results.append(compute())
            return cast(Result, cell.results[0])
        finally:
            cell.lock.release()
            self._settle(key, cell)

    def unpin(self, chosen: Callable[[Hashable], bool]) -> None:
        """Makes the results of chosen keys evictable again."""
        with self._lock:
            for key, cell in self._cells.items():
                cell.pinned &= not chosen(key)

    def _settle(self, key: Hashable, cell: _Cell) -> None:
        """Marks a result as most recently used, and evicts others beyond `size`; forgets a failed computation."""
        with self._lock:
            if not cell.results:
                if self._cells.get(key) is cell:
                    del self._cells[key]
                return
            self._cells[key] = cell
            self._cells.move_to_end(key)
            kept = [key for key, cell in self._cells.items() if cell.results]
            unpinned = [key for key in kept if not self._cells[key].pinned]
            for oldest in [*unpinned, *kept][: max(0, len(kept) - self._size)]:
                self._cells.pop(oldest, None)


@dataclass(frozen=True)
class Pinned:
    """A view of a cache that pins every result that it returns."""

    results: Once

    def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """As `Once.get`."""
        return self.results.get(key, compute, pinned=True)
