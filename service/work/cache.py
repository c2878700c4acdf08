"""A cache that is bounded by what its entries weigh, and never lets go of what was prepared."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass
class _Entry(Generic[Value]):
    value: Value
    weight: int
    pinned: bool


class Cache(Generic[Value]):
    """The last values by key. Belongs to one event loop, so it needs no lock.

    Args:
        size: the weight of what is kept; beyond it, what is unused for longest goes, unless it is pinned.
    """

    def __init__(self, size: int) -> None:
        self._size, self._used = size, 0
        self._entries: OrderedDict[Hashable, _Entry[Value]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """The value, which counts as used now; None where there is none."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: Hashable, value: Value, weight: int = 1, pinned: bool = False) -> None:
        """Keeps a value in place of the key's, if there is room for it beside what is pinned."""
        before = self._entries.get(key)
        pinned = pinned or (before is not None and before.pinned)
        self._drop(key)
        self._entries[key] = _Entry(value, weight, pinned)
        self._used += weight
        while self._used > self._size:
            self._drop(next((other for other, entry in self._entries.items() if not entry.pinned), key))

    def pin(self, key: Hashable) -> None:
        """Keeps what is there until it is unpinned."""
        if key in self._entries:
            self._entries[key].pinned = True

    def unpin(self, chosen: Callable[[Hashable], bool]) -> None:
        """Lets the entries of chosen keys go like others."""
        for key, entry in self._entries.items():
            entry.pinned &= not chosen(key)

    def clear(self) -> None:
        """Lets go of everything."""
        self._entries.clear()
        self._used = 0

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        self._used -= entry.weight if entry else 0
