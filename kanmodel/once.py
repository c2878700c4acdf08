"""Single flight: results that are computed once, however many threads ask for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar, cast

from kanmodel.pausing import Pause, go_on

Result = TypeVar("Result")
POLL = 0.05  # seconds after which who waits for another's computation pauses again


@dataclass
class _Cell:
    """One result, or none yet; whoever holds the lock computes it."""

    lock: Lock = field(default_factory=Lock)
    results: list[Any] = field(default_factory=list)
    pinned: bool = False


class Once:
    """Results by key. Threads that ask for the same key wait for one computation; one that fails is not kept.

    Args:
        size: results that are kept; beyond it, the one unused for longest goes, unless it is pinned.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = Lock()
        self._cells: OrderedDict[Hashable, _Cell] = OrderedDict()

    def __reduce__(self) -> tuple[type[Once], tuple[int]]:
        """A copy in another process begins without results."""
        return Once, (self._size,)

    def get(self, key: Hashable, compute: Callable[[], Result], pause: Pause = go_on, pinned: bool = False) -> Result:
        """The result of `compute`, which must not ask for the same key.

        Args:
            key: what the result is known by.
            compute: called where there is none.
            pause: called before that, and again and again while another thread computes it; not for a known result.
            pinned: whether the result stays until it is unpinned.
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
        """Lets the results of chosen keys go like others."""
        with self._lock:
            for key, cell in self._cells.items():
                cell.pinned &= not chosen(key)

    def _settle(self, key: Hashable, cell: _Cell) -> None:
        """Keeps a result as the one used last, if there is room for it beside what is pinned; forgets a failure."""
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
    """Results whose every answer stays until it is unpinned: another way into the same ones."""

    results: Once

    def get(self, key: Hashable, compute: Callable[[], Result], pause: Pause = go_on) -> Result:
        """As `Once.get`."""
        return self.results.get(key, compute, pause, pinned=True)
