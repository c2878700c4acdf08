"""Results that are computed once, however many threads ask for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar, cast

Result = TypeVar("Result")


@dataclass
class _Cell:
    """One result, or none yet; whoever holds the lock computes it."""

    lock: Lock = field(default_factory=Lock)
    results: list[Any] = field(default_factory=list)


class Once:
    """Results by key. Threads that ask for the same key wait for one computation; one that fails is not kept.

    Args:
        size: results that are kept; beyond it, the one unused for longest goes. None keeps all.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._lock = Lock()
        self._cells: OrderedDict[Hashable, _Cell] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """The result of `compute`, which must not ask for the same key."""
        with self._lock:
            cell = self._cells.setdefault(key, _Cell())
            self._cells.move_to_end(key)
            while self._size is not None and len(self._cells) > self._size:
                self._cells.popitem(last=False)
        with cell.lock:
            if not cell.results:
                cell.results.append(compute())
            return cast(Result, cell.results[0])
