"""A cache bounded by the weights of its entries."""

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
    """The last values by key. Belongs to one event loop, so it needs no lock.

    Args:
        size: the weight of what is kept; beyond it, what is unused for longest goes.
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

    def put(self, key: Hashable, value: Value, weight: int) -> None:
        """Keeps a value in place of the key's, if there is room for it."""
        self._drop(key)
        self._entries[key] = _Entry(value, weight)
        self._used += weight
        while self._used > self._size:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Lets go of everything."""
        self._entries.clear()
        self._used = 0

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        self._used -= entry.weight if entry else 0
