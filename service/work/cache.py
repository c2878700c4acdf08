"""An LRU cache bounded by the total weight of its entries."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass
class _Entry(Generic[Value]):
    value: Value
    weight: int


class Cache(Generic[Value]):
    """Values by key. It belongs to one event loop, so it needs no lock.

    Args:
        size: largest total weight; the least recently used values are evicted beyond it.
    """

    def __init__(self, size: int) -> None:
        self._size, self._used = size, 0
        self._entries: OrderedDict[Hashable, _Entry[Value]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """The value, marked as most recently used; None if absent."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: Hashable, value: Value, weight: int) -> None:
        """Inserts or replaces a value, evicting others; one that is too large itself is not kept."""
        self._drop(key)
        self._entries[key] = _Entry(value, weight)
        self._used += weight
        while self._used > self._size:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Evicts everything."""
        self._entries.clear()
        self._used = 0

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        self._used -= entry.weight if entry else 0
