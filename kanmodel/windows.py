"""Sliding windows over the rows of a table, and a check that windows are finite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kanmodel.errors import DataError, Problem
from kanmodel.scaling import Array

N_LISTED = 20  # bad values named in one error; the message counts them all


def window_ends(boundaries: Sequence[NDArray[np.generic]], n_rows: int, lookback: int) -> NDArray[np.int64]:
    """Rows at which a window may end: those whose last `lookback` rows are in one run of every boundary column.

    Args:
        boundaries: columns (n_rows,) whose changes a window must not span, such as a segment number that changes at
            each gap in time, or the name of the split.
        n_rows: rows of the table, oldest first.
        lookback: steps of a window.

    Returns:
        Row numbers, ascending.
    """
    breaks = np.zeros(n_rows, dtype=bool)  # whether a run begins at this row
    for column in boundaries:
        breaks[1:] |= column[1:] != column[:-1]
    run = np.cumsum(breaks)
    ends = np.arange(lookback - 1, n_rows)
    kept: NDArray[np.int64] = ends[run[ends] == run[ends - lookback + 1]]
    return kept


def take_windows(rows: Array, ends: NDArray[np.int64], lookback: int) -> Array:
    """The windows that end at the given rows.

    Args:
        rows: (n_rows, n_features), oldest first.
        ends: row numbers of the windows' last steps.
        lookback: steps of a window.

    Returns:
        (len(ends), lookback, n_features), oldest step first.
    """
    offsets = np.arange(1 - lookback, 1)
    taken: Array = rows[ends[:, None] + offsets]
    return taken


def rows_of_steps(first: int, last: int, lookback: int) -> slice:
    """The rows of a window, oldest first, from one step to another, inclusive; 0 is the newest step."""
    return slice(first + lookback - 1, last + lookback)


def steps_of_rows(rows: slice, lookback: int) -> tuple[int, int]:
    """The first and the last step of some rows; the inverse of `rows_of_steps`."""
    return rows.start - lookback + 1, rows.stop - lookback


def refuse_non_finite(values: Array, path: str) -> None:
    """Raises if an array contains NaN or infinity, naming each place.

    Args:
        values: array of any shape.
        path: name of the array, prefixed to the indices.

    Raises:
        DataError: at least one value is not finite.
    """
    finite = np.isfinite(values)
    if finite.all():
        return
    places = np.argwhere(~finite)
    problems = [
        Problem(path + "".join(f"[{index}]" for index in place), "must be finite") for place in places[:N_LISTED]
    ]
    count = f"{len(places)} of {values.size} values {'is' if len(places) == 1 else 'are'} not finite"
    raise DataError(f"{problems[0].path} must be finite; {count}", problems)
