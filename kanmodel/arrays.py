"""Arrays: their type, checks of what is in them, and windows and steps of rows."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from kanmodel.errors import DataError, Problem

Array = NDArray[np.float64]
K = TypeVar("K")
V = TypeVar("V")
N_LISTED = 20  # bad values named in one error; the message counts them all


def read_only(values: Array) -> Array:
    """The same array, which can no longer be changed: several callers share it."""
    values.setflags(write=False)
    return values


def count_before(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of the flags (n,) before each place are set, (n + 1,): those in [a, b) are count[b] - count[a]."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(flags, dtype=np.int64)])


def without_mask(values: Any) -> Any:
    """Values whose masked ones are None; others as they are."""
    if type(values) is not np.ndarray and isinstance(values, np.ma.MaskedArray):  # `np.ma` is slow to import
        return np.where(np.ma.getmaskarray(values), np.array(None), values.data)
    return values


def take_windows(rows: Array, ends: NDArray[np.int64], lookback: int) -> Array:
    """The windows that end at row numbers (n,), (n, lookback, n_features), of rows (n_rows, n_features) in order."""
    taken: Array = rows[ends[:, None] + np.arange(1 - lookback, 1)]
    return taken


def rows_of_steps(first: int, last: int, lookback: int) -> slice:
    """The rows of a window, oldest first, from one step to another, inclusive; 0 is the newest step."""
    return slice(first + lookback - 1, last + lookback)


def steps_of_rows(rows: slice, lookback: int) -> tuple[int, int]:
    """The first and the last step of some rows; the inverse of `rows_of_steps`."""
    return rows.start - lookback + 1, rows.stop - lookback


def refuse_non_finite(values: Array, path: str, missing: str = "") -> None:
    """Raises `DataError` unless all values of an array are finite; `path` is its name, before the indices of each.

    `missing` says why none may be missing.
    """
    finite = np.isfinite(values)
    if finite.all():
        return
    places = np.argwhere(~finite)
    names = [path + "".join(f"[{index}]" for index in place) for place in places[:N_LISTED]]
    problems = [Problem(name, "must be finite") for name in names]
    count = f"{len(places)} of {values.size} values {'is' if len(places) == 1 else 'are'} not finite"
    reason = f"; {missing}" if missing and np.isnan(values).any() else ""
    raise DataError(f"{problems[0].path} must be finite; {count}{reason}", problems)


class ReadOnlyDict(dict[K, V]):
    """A dictionary that cannot be changed; ``dict(d)`` and ``d | other`` are copies that can."""

    def _refuse(self, *given: Any, **named: Any) -> NoReturn:
        raise TypeError("results are read-only; dict(...) makes a copy that can be changed")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)
