"""Nested JSON lists to numpy arrays, with the path of each value that does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np

from kanmodel.errors import Problem
from kanmodel.scaling import Array
from kanmodel.windows import N_LISTED

_KINDS = {str: "a string", bool: "a boolean", type(None): "null", dict: "an object", list: "a list"}


@dataclass(frozen=True)
class Axis:
    """One level of nesting.

    Attributes:
        size: how many items it must have; None for any number.
        items: what the items are called.
    """

    size: int | None
    items: str

    def __str__(self) -> str:
        return self.items if self.size is None else f"{self.size} {self.items}"


def read_array(value: Any, axes: Sequence[Axis], path: str) -> Array | list[Problem]:
    """An array of numbers with the given axes, or the problems, at most one more than an error lists.

    Args:
        value: parsed JSON.
        axes: from the outermost list to the innermost; only the first may have any size. Empty for a single number.
        path: name of the value.
    """
    numbers = _flatten(value, axes)
    if numbers is None:
        return list(islice(_find_problems(value, axes, path), N_LISTED + 1))
    shape = [-1 if axis.size is None else axis.size for axis in axes]
    return np.array(numbers, dtype=np.float64).reshape(shape)


def _flatten(value: Any, axes: Sequence[Axis]) -> list[Any] | None:
    """The numbers, flattened; None if a list, a length or a number is invalid."""
    items = [value]
    for axis in axes:
        if any(type(item) is not list or axis.size not in (None, len(item)) for item in items):
            return None
        items = list(chain.from_iterable(items))
    return items if {*map(type, items)} <= {int, float} else None


def _find_problems(value: Any, axes: Sequence[Axis], path: str) -> Iterator[Problem]:
    kind = _KINDS.get(type(value), "a number")
    if not axes:
        if kind != "a number":
            yield Problem(path, f"must be a number, but is {kind}")
    elif kind != "a list":
        yield Problem(path, f"must be a list of {axes[0]}, but is {kind}")
    elif axes[0].size not in (None, len(value)):
        yield Problem(path, f"must have {axes[0]}, but has {len(value)}")
    else:
        for index, item in enumerate(value):
            yield from _find_problems(item, axes[1:], f"{path}[{index}]")
