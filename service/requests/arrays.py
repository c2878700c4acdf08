"""Nested JSON lists to numpy arrays, with the path of each value that does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from kanmodel.data import N_LISTED, Array
from kanmodel.errors import DataError, Problem
from service.http.errors import unusable_values

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


def read_array(value: Any, axes: Sequence[Axis], path: str) -> Array:
    """An array of numbers with the given axes.

    Args:
        value: parsed JSON.
        axes: from the outermost list to the innermost; only the first may have any size. Empty for a single number.
        path: name of the value.

    Raises:
        DataError: at one level of nesting, the outermost first, lists are missing or have other sizes; or values are
            not numbers.
    """
    items = [value]
    for depth, axis in enumerate(axes):
        wrong = [n for n, item in enumerate(items) if type(item) is not list or axis.size not in (None, len(item))]
        if wrong:
            raise _refuse(items, wrong, axes, depth, path)
        items = list(chain.from_iterable(items))
    if not {*map(type, items)} <= {int, float}:
        raise _refuse(
            items, [n for n, item in enumerate(items) if type(item) not in (int, float)], axes, len(axes), path
        )
    return np.array(items, dtype=np.float64).reshape([-1 if axis.size is None else axis.size for axis in axes])


def _refuse(items: list[Any], wrong: list[int], axes: Sequence[Axis], depth: int, path: str) -> DataError:
    """The error of some of the items at one depth."""
    axis = axes[depth] if depth < len(axes) else None
    problems = []
    for n in wrong[:N_LISTED]:
        kind = _KINDS.get(type(items[n]), "a number")
        if axis is None:
            message = f"must be a number, but is {kind}"
        elif kind != "a list":
            message = f"must be a list of {axis}, but is {kind}"
        else:
            message = f"must have {axis}, but has {len(items[n])}"
        problems.append(Problem(path + _write_index(n, axes[:depth]), message))
    return unusable_values(problems, len(wrong))


def _write_index(n: int, axes: Sequence[Axis]) -> str:
    """The indices of the item that is number `n` of the flattened lists, such as ``[0][3]``."""
    index = ""
    for axis in reversed(axes):
        n, last = (0, n) if axis.size is None else divmod(n, axis.size)
        index = f"[{last}]{index}"
    return index
