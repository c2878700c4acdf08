"""The time column of a table: timestamps, the median step, and gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.errors import DataError
from kanmodel.scaling import Array

MAX_STEP = 1.5  # usual steps; a longer one is a gap
ROUNDING = 1e-3  # of a step: instants that differ by less are the same
NONE_MISSING = "must be a time in ISO 8601, a date or a number, but is"


@dataclass(frozen=True)
class Clock:
    """The instants of a table's rows.

    Attributes:
        name: the column's name.
        seconds: (n_rows,), since 1970, UTC; or in the unit of a numeric column. Ascending within a segment.
        dated: whether the column has dates, so that a day is 86,400 seconds.
        step: the usual step, the median between neighbouring rows of a segment; 0 if there are none.
        max_step: longest step that is not a gap, in usual steps.
        gaps: (n_rows,), whether there is a gap before the row.
    """

    name: str
    seconds: Array
    dated: bool
    step: float
    max_step: float
    gaps: NDArray[np.bool_]

    @classmethod
    def of(
        cls, values: Any, segment: NDArray[np.generic] | None = None, max_step: float = MAX_STEP, name: str = "time"
    ) -> Clock:
        """The clock of a time column.

        Args:
            values: (n_rows,): numbers, dates, or strings of either, dates in ISO 8601. A time without a zone is UTC.
            segment: (n_rows,), changes where another series begins, whose times may start again.
            max_step: in usual steps.
            name: name of the column.

        Raises:
            DataError: a cell is not a time, a row is not later than the one above it, or `max_step` is below 1.
        """
        if not max_step >= 1:
            raise DataError(f"max_step must be at least 1 usual step, but is {max_step}")
        seconds, dated = read_instants(values, name)
        steps = np.diff(seconds)
        within = np.ones(len(steps), dtype=bool) if segment is None else np.asarray(segment[1:] == segment[:-1])
        for row in np.flatnonzero(within & (steps <= 0)).tolist():
            relation = "earlier than" if steps[row] < 0 else "the same as in"
            message = f"is {relation} the row above it, but rows must be ordered from oldest to newest"
            raise _refusal(name, row + 1, message)
        step = float(np.median(steps[within])) if within.any() else 0.0
        gaps = np.zeros(len(seconds), dtype=bool)
        gaps[1:] = within & (steps > max_step * step)
        return cls(name, seconds, dated, step, max_step, gaps)

    def rows_per(self, period: float) -> int | None:
        """Number of usual steps in a period of seconds; None if it is not a whole number of two or more."""
        if not self.dated or not self.step:
            return None
        steps = period / self.step
        return round(steps) if round(steps) >= 2 and abs(steps - round(steps)) <= ROUNDING else None

    def __str__(self) -> str:
        step = str(timedelta(seconds=self.step)) if self.dated else f"{self.step:g}"
        return f"{self.gaps.sum()} steps in time are gaps, longer than {self.max_step:g} times the usual {step}"


def read_instants(values: Any, name: str) -> tuple[Array, bool]:
    """The instants of a time column in seconds, (n_rows,), and whether its values are dates; see `Clock.of`."""
    array = np.asarray(values)
    if array.dtype.kind == "M":
        seconds = array.astype("datetime64[us]").astype(np.int64) / 1e6
        seconds[np.isnat(array)] = np.nan
        read, dated = seconds, True
    elif array.dtype.kind in "iuf":
        read, dated = array.astype(np.float64), False
    else:
        cells = [_read_cell(cell, name, row) for row, cell in enumerate(array.tolist())]
        kinds = {is_date for _, is_date in cells}
        if len(kinds) > 1:
            row = [is_date for _, is_date in cells].index(not cells[0][1])
            raise _refusal(
                name, row, f"must be {'a date' if cells[0][1] else 'a number'} as above, but is {array[row]}"
            )
        read, dated = np.array([instant for instant, _ in cells], dtype=np.float64), kinds == {True}
    for row in np.flatnonzero(~np.isfinite(read)).tolist():
        raise _refusal(name, row, f"{NONE_MISSING} {array[row]}")
    return read, dated


def _read_cell(cell: Any, name: str, row: int) -> tuple[float, bool]:
    """An instant in seconds, and whether the cell is a date."""
    instant = cell
    if isinstance(cell, str):
        for read in (float, datetime.fromisoformat):
            try:
                instant = read(cell.strip())
                break
            except ValueError:
                continue
    if isinstance(instant, date) and not isinstance(instant, datetime):
        instant = datetime(instant.year, instant.month, instant.day)
    if isinstance(instant, datetime) and instant == instant:  # pandas' NaT is a datetime that differs from itself
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp(), True
    if isinstance(instant, Real):
        return float(instant), False
    raise _refusal(name, row, f"{NONE_MISSING} {cell!r}")


def _refusal(name: str, row: int, message: str) -> DataError:
    place = f"data row {row + 1}, column {name}"
    return DataError.at(place, message)


def times_as_text(values: Any) -> tuple[str, ...]:
    """The time stamps of rows in the form in which a checkpoint stores them with its reference windows."""
    array = np.asarray(values)
    if array.dtype.kind == "M":
        seconds = array.astype("datetime64[s]")
        finer = np.datetime_data(array.dtype)[0] in ("ms", "us", "ns") and bool((seconds == array).all())
        return tuple(np.datetime_as_string(seconds if finer else array).tolist())
    cells: Sequence[Any] = array.tolist()
    return tuple(cell.isoformat() if isinstance(cell, date) else str(cell) for cell in cells)
