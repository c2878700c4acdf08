"""The instants of rows: read from what people write, local times of a zone among them, and written in the same form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from numbers import Real
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.errors import ConfigError, DataError, Positive, check_config, quote

MAX_STEP = 1.5  # usual steps; a longer one is a gap
ROUNDING = 1e-3  # of a step: instants that differ by less are the same
DAY = 86_400.0  # seconds
SEASONS = {"day": DAY, "week": 7 * DAY}  # whose persistence forecasts are compared with
NO_TIME = "must be a time in ISO 8601 or as 31.12.2023 23:00, a date or a number, but is"
FORMS = tuple(f"%Y-%m-%d{to}{of}{end}" for to in "T " for of in ("%H:%M", "%H:%M:%S") for end in ("Z", ""))
DOTTED = ("%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y")  # day first, which dots say and slashes do not


def window_ends(boundaries: Sequence[NDArray[np.generic]], n_rows: int, lookback: int) -> NDArray[np.int64]:
    """Row numbers, ascending, at which a window may end: its `lookback` rows are in one run of each boundary column.

    `boundaries` are columns (n_rows,) whose changes a window must not span, such as a segment number that changes at
    each gap in time, or the name of the split. Rows are ordered from oldest to newest.
    """
    breaks = np.zeros(n_rows, dtype=bool)  # whether a run begins at this row
    for column in boundaries:
        breaks[1:] |= column[1:] != column[:-1]
    run = np.cumsum(breaks)
    ends = np.arange(lookback - 1, n_rows)
    kept: NDArray[np.int64] = ends[run[ends] == run[ends - lookback + 1]]
    return kept


@dataclass(frozen=True)
class TimeColumn:
    """The time stamps of the rows that a forecaster was trained on.

    Attributes:
        name: the column's name.
        step: usual time from row to row: seconds if the column has dates, else in its own unit.
        max_step: longest step that is not a gap, in usual steps.
        dated: whether the column has dates.
    """

    name: str
    step: Positive
    max_step: Positive
    dated: bool

    def __post_init__(self) -> None:
        check_config(self)

    def is_gap(self, steps: Array) -> NDArray[np.bool_]:
        """Whether each step is a gap."""
        return steps > self.max_step * self.step

    def is_short(self, steps: Array) -> NDArray[np.bool_]:
        """Whether each step is shorter than the usual one by as large a factor as a gap is longer."""
        return steps < self.step / self.max_step

    @property
    def usual_step(self) -> str:
        """`step` in words."""
        return f"{self.step:g} seconds" if self.dated else f"{self.step:g}"


@dataclass(frozen=True)
class Clock:
    """The instants of a table's rows."""

    name: str
    seconds: Array  # (n_rows,), since 1970, UTC; or in the unit of a numeric column; ascending within a segment
    dated: bool  # whether the column has dates, so that a day is 86,400 seconds
    step: float  # the usual step, the median between neighbouring rows of a segment; 0 if there are none
    max_step: float  # longest step that is not a gap, in usual steps
    gaps: NDArray[np.bool_]  # (n_rows,), whether there is a gap before the row

    @classmethod
    def of(
        cls,
        values: Any,
        segment: NDArray[np.generic] | None = None,
        max_step: float = MAX_STEP,
        name: str = "time",
        zone: str | None = None,
        quoted: Mapping[str, Any] | None = None,
    ) -> Clock:
        """The clock of a time column (n_rows,), as `read_instants` takes it.

        `segment`, (n_rows,), changes where another series begins, whose times may start again. An error about an hour
        that is there twice has the values of the columns `quoted`, (n_rows,) each.

        Raises:
            DataError: a cell is not a time, a row is not later than the one above it, or `max_step` is below 1.
        """
        if not max_step >= 1:
            raise DataError(f"max_step must be at least 1 usual step, but is {max_step}")
        place = partial(_name_row, name)
        seconds, dated = read_instants(values, place, zone)
        steps = np.diff(seconds)
        within = np.ones(len(steps), dtype=bool) if segment is None else np.asarray(segment[1:] == segment[:-1])
        for row in np.flatnonzero(within & (steps <= 0)).tolist():
            relation = "earlier than" if steps[row] < 0 else "the same as in"
            message = f"is {relation} the row above it, but rows must be ordered from oldest to newest"
            if dated and (twice := _describe_repeated_hour(seconds, row + 1, quoted or {})):
                message = twice
            raise DataError.at(place(row + 1), message)
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
        return (
            f"{self.gaps.sum()} steps in time are gaps, longer than {self.max_step:g} times the usual {step} (max_step)"
        )


def read_instants(values: Any, place: Callable[[int], str], zone: str | None = None) -> tuple[Array, bool]:
    """The instants of a time column in seconds, (n_rows,), and whether its values are dates.

    A cell is a number, a date, or a string of either: ISO 8601, or a day with dots, as 31.12.2023 23:00. Dates without
    an offset are local times of `zone`, by default UTC. Of an hour that is there twice, as daylight saving ends, the
    first rows are before the clocks are put back.

    Raises:
        DataError: a cell is not a time, or a local time that does not exist, or one of an hour that the zone has twice
            and the column once; `place` names its row.
    """
    array = np.asarray(values)
    if array.dtype.kind == "M":
        instants, dated = array.astype("datetime64[us]").astype(np.int64) / 1e6, True
        instants[np.isnat(array)] = np.nan
        is_local = np.ones(len(array), dtype=bool)
    elif array.dtype.kind in "iuf":
        instants, dated, is_local = array.astype(np.float64), False, np.zeros(len(array), dtype=bool)
    else:
        cells = [_read_cell(cell, place, row) for row, cell in enumerate(array.tolist())]
        dated = bool(cells) and cells[0][1]
        for row, (_, is_date, _) in enumerate(cells):
            if is_date != dated:
                message = f"must be {'a date' if dated else 'a number'} as above, but is {array[row]}"
                raise DataError.at(place(row), message)
        instants = np.array([instant for instant, _, _ in cells], dtype=np.float64)
        is_local = np.array([local for _, _, local in cells], dtype=bool)
    for row in np.flatnonzero(~np.isfinite(instants)).tolist():
        raise DataError.at(place(row), f"{NO_TIME} {array[row]}")
    if zone is not None and is_local.any():
        instants -= _local_offsets(instants, np.flatnonzero(is_local), zone, place)
    return instants, dated


def read_index(frame: Any, time: str | None) -> tuple[str, NDArray[Any]] | None:
    """Name and times of a frame's index, if it has dates or is named `time`."""
    if not hasattr(frame, "index") or isinstance(frame, Sequence):
        return None
    name, index = getattr(frame.index, "name", None), frame.index.to_numpy()
    is_dated = len(index) and (index.dtype.kind == "M" or isinstance(index[0], datetime))
    return (str(name or "time"), index) if is_dated or (time is not None and name == time) else None


def _read_cell(cell: Any, place: Callable[[int], str], row: int) -> tuple[float, bool, bool]:
    """An instant in seconds, whether the cell is a date, and whether that is a local time: it has no offset."""
    instant = cell
    reads: tuple[Callable[[str], Any], ...] = (float, datetime.fromisoformat, *map(_dotted, DOTTED))
    for read in reads if isinstance(cell, str) else ():
        with suppress(ValueError):
            instant = read(cell.strip())
            break
    if isinstance(instant, date) and not isinstance(instant, datetime):
        instant = datetime(instant.year, instant.month, instant.day)
    if isinstance(instant, datetime) and instant == instant:  # pandas' NaT is a datetime that differs from itself
        is_local = instant.tzinfo is None
        return (instant.replace(tzinfo=UTC) if is_local else instant).timestamp(), True, is_local
    if isinstance(instant, Real):
        return float(instant), False, False
    raise DataError.at(place(row), f"{NO_TIME} {quote(cell)}")


@cache
def _dotted(form: str) -> Callable[[str], datetime]:
    return lambda text: datetime.strptime(text, form)


@cache
def find_zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name; raises `ConfigError` if there is none."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise ConfigError(f"zone must be a time zone such as Europe/Berlin, but is {quote(name)}") from error


def _local_offsets(seconds: Array, rows: NDArray[np.int64], zone: str, place: Callable[[int], str]) -> Array:
    """Seconds that local times are ahead of UTC, (n_rows,), 0 but in some rows; `seconds` are those as if of UTC."""
    local_zone, known, seen = find_zone(zone), dict[float, tuple[float, float]](), Counter[float]()
    rows = rows if seconds[rows[0]] <= seconds[rows[-1]] else rows[::-1]  # oldest first, as far as one can say
    offsets, count = np.zeros(len(seconds)), Counter(seconds[rows].tolist())
    for row, local in zip(rows.tolist(), seconds[rows].tolist(), strict=True):
        if (quarter := local // 900) not in known:  # no zone changes within one
            at = datetime.fromtimestamp(900 * quarter, UTC).replace(tzinfo=local_zone)
            of = (at.replace(fold=fold).utcoffset() or timedelta() for fold in (0, 1))
            first, second = (offset.total_seconds() for offset in of)
            known[quarter] = first, second
        first, second = known[quarter]
        if first < second:
            message = f"is {_as_text(local)}, which does not exist in {zone}, where the clocks are put forward"
            raise DataError.at(place(row), message)
        if first > second and count[local] % 2:
            message = f"is {_as_text(local)}, which {zone} has twice, as the clocks are put back, but the table "
            times = "once" if count[local] == 1 else f"{count[local]} times"
            message += f"{times}: give times with their offset, such as 2023-10-29T02:00+02:00"
            raise DataError.at(place(row), message)
        offsets[row] = second if seen[local] % 2 else first
        seen[local] += 1
    return offsets


def _describe_repeated_hour(seconds: Array, row: int, quoted: Mapping[str, Any]) -> str | None:
    """The error for a row that repeats an earlier time in a Sunday night, as daylight saving ends; None for others."""
    earlier = np.flatnonzero(seconds[:row] == seconds[row])
    at = datetime.fromtimestamp(seconds[row], UTC)
    if not len(earlier) or seconds[row - 1] - seconds[row] > 3600 or at.weekday() != 6 or at.hour > 3:
        return None
    first = int(earlier[-1])
    values = "".join(f", with {name} {of[first]} and {of[row]}" for name, of in quoted.items())
    hour = "the hour that is there twice when daylight saving ends, if these are local times"
    return (
        f"is {_as_text(seconds[row])} as in data row {first + 1}{values}: {hour}. Name their time zone (zone, such as "
        "Europe/Berlin), or give times with their offset"
    )


def _as_text(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def _name_row(name: str, row: int) -> str:
    return f"data row {row + 1}, column {name}"


def times_as_text(values: Any) -> tuple[str, ...]:
    """The time stamps of rows in the form in which a checkpoint stores them with its reference windows."""
    array = np.asarray(values)
    if array.dtype.kind == "M":
        seconds = array.astype("datetime64[s]")
        finer = np.datetime_data(array.dtype)[0] in ("ms", "us", "ns") and bool((seconds == array).all())
        return tuple(np.datetime_as_string(seconds if finer else array).tolist())
    cells: Sequence[Any] = array.tolist()
    return tuple(cell.isoformat() if isinstance(cell, date) else str(cell) for cell in cells)


def write_instants(instants: Array, stamps: Any, zone: str | None = None) -> tuple[str, ...]:
    """Instants of `read_instants` in the form in which `times_as_text` writes the time stamps of the same column.

    Local times are those of `zone`, by default UTC; texts of another form than those of `FORMS` become ISO 8601 in UTC.
    """
    array = np.asarray(stamps)
    if array.dtype.kind in "iuf":
        return tuple(f"{instant:.15g}" for instant in instants.tolist())
    sample = None if array.dtype.kind == "M" else array[-1:].tolist()[0]
    _, dated, is_local = (0.0, True, True) if sample is None else _read_cell(sample, str, 0)
    if not dated:
        return tuple(f"{instant:.15g}" for instant in instants.tolist())
    place = getattr(sample, "tzinfo", None) or (find_zone(zone) if zone and is_local else UTC)
    found = [datetime.fromtimestamp(instant, place) for instant in instants.tolist()]
    found = [at.replace(tzinfo=None) for at in found] if is_local else found
    if sample is None:
        return times_as_text(np.array(found, dtype="datetime64[us]").astype(array.dtype))
    for form in (*FORMS, "%Y-%m-%d", *DOTTED) if isinstance(sample, str) else ():
        with suppress(ValueError):
            datetime.strptime(sample.strip(), form)
            return tuple(at.strftime(form) for at in found)
    return times_as_text([at.date() if type(sample) is date else at for at in found])
