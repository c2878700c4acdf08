"""Operations on nested tuples of arrays, such as contributions by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Nested = TypeVar("Nested")


def map_arrays(function: Callable[..., Any], first: Nested, *others: Nested) -> Nested:
    """Maps a function over the arrays of equally nested tuples.

    Args:
        function: takes one array of each argument.
        first: arrays, tensors or None, in (named) tuples of any depth.
        others: results of the same form.

    Returns:
        The same form; None where there is None.
    """
    mapped: Any
    if first is None:
        mapped = None
    elif isinstance(first, np.ndarray | Tensor):
        mapped = function(first, *others)
    else:
        parts = [map_arrays(function, *each) for each in zip(first, *others, strict=True)]  # type: ignore[call-overload]
        mapped = first._make(parts) if hasattr(first, "_make") else tuple(parts)
    result: Nested = mapped
    return result


def take(values: Nested, chosen: NDArray[np.bool_] | slice) -> Nested:
    """The chosen rows of all arrays; the arrays themselves if all are chosen."""
    if isinstance(chosen, np.ndarray) and chosen.all():
        return values
    return map_arrays(lambda array: array[chosen], values)


def concatenate(results: Sequence[Nested]) -> Nested:
    """Concatenates the rows of several results."""
    return results[0] if len(results) == 1 else map_arrays(lambda *arrays: np.concatenate(arrays), *results)


def replace_rows(values: Nested, chosen: NDArray[np.bool_], others: Nested) -> Nested:
    """Replaces the chosen rows by others; returns the others themselves if all are chosen."""
    if chosen.all():
        return others

    def replace(array: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
        replaced = array.copy()
        replaced[chosen] = rows
        return replaced

    return map_arrays(replace, values, others)
