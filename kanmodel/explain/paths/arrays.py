"""Results that are nested tuples of arrays, such as contributions by layer: one operation on all of their arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Nested = TypeVar("Nested")


def map_arrays(function: Callable[..., Any], first: Nested, *others: Nested) -> Nested:
    """The result of a function of the arrays in each place.

    Args:
        function: of as many arrays as there are results.
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
    """The chosen rows of all arrays; the same arrays where all are chosen."""
    if isinstance(chosen, np.ndarray) and chosen.all():
        return values
    return map_arrays(lambda array: array[chosen], values)


def concatenate(results: Sequence[Nested]) -> Nested:
    """The rows of several results, one after the other."""
    return results[0] if len(results) == 1 else map_arrays(lambda *arrays: np.concatenate(arrays), *results)


def replace_rows(values: Nested, chosen: NDArray[np.bool_], others: Nested) -> Nested:
    """With other rows in place of the chosen ones; the others themselves where all are chosen."""
    if chosen.all():
        return others

    def replace(array: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
        replaced = array.copy()
        replaced[chosen] = rows
        return replaced

    return map_arrays(replace, values, others)
