"""The instants of rows: read from what people write, local times of a zone among them, and written in the same form."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from numbers import Real
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.errors import ConfigError, DataError, quote
from kanmodel.tables.frames import Cells

DAY = 86_400.0  # seconds
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
YEARS = 2, 9998  # of dates: a local clock, and forecasts, may be in the year before or after
FIRST, LAST = datetime(YEARS[0], 1, 1, tzinfo=UTC).timestamp(), datetime(YEARS[1] + 1, 1, 1, tzinfo=UTC).timestamp()
NO_TIME = "must be a time in ISO 8601 or as 31.12.2023 23:00, a date or a number, but is"
FORMS = tuple(f"%Y-%m-%d{to}{of}{end}" for to in "T " for of in ("%H:%M", "%H:%M:%S") for end in ("Z", ""))
DOTTED = ("%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y", "%Y-%m")  # day first, which dots say and slashes do not
COMPACT = "%Y%m%d"
N_QUARTERS = 1 << 16  # of an hour whose offsets are held, so that a long table takes no more memory
_COMPACT = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(min|h|d|w)", re.IGNORECASE)
_SECONDS = {"min": 60, "h": 3600, "d": 86400, "w": 604800}
_READERS: tuple[Callable[[str], Any], ...] = (
    float,
    datetime.fromisoformat,
    *(lambda text, form=form: datetime.strptime(text, form) for form in DOTTED),
)


@dataclass(frozen=True, eq=False)
class Times:
    """A column of times as it is written."""

    seconds: Array  # since 1970, of local times as if they were UTC, (n_rows,); or numbers in a unit of their own
    is_local: NDArray[np.bool_]  # which have no offset, (n_rows,)
    dated: bool  # whether they are dates

    @classmethod
    def parse(cls, values: Any, place: Callable[[int], str]) -> Times:
        """Of cells that are numbers, dates, or strings of either: ISO 8601, 31.12.2023 23:00, or 20231231.

        Raises DataError for one that is not a time; `place` names its row.
        """
        array = np.asarray(values)
        if array.dtype.kind in "iuO" and (compact := _read_compact(array)) is not None:
            array = compact
        if array.dtype.kind == "M":
            seconds, dated = array.astype("datetime64[us]").astype(np.int64) / 1e6, True
            seconds[np.isnat(array)] = np.nan
            is_local = np.ones(len(array), dtype=bool)
        elif array.dtype.kind in "biuf":
            seconds, dated, is_local = array.astype(np.float64), False, np.zeros(len(array), dtype=bool)
        else:
            cells = _read_cells(array.tolist(), place)
            dated = bool(cells) and cells[0].is_date
            for row, cell in enumerate(cells):
                if cell.is_date != dated:
                    message = f"must be {'a date' if dated else 'a number'} as above, but is {array[row]}"
                    raise DataError.at(place(row), message)
            seconds = np.array([cell.seconds for cell in cells], dtype=np.float64)
            is_local = np.array([cell.is_local for cell in cells], dtype=bool)
        for row in np.flatnonzero(~np.isfinite(seconds)).tolist():
            raise DataError.at(place(row), f"{NO_TIME} {array[row]}")
        return cls(seconds, is_local, dated)

    def instants(
        self, place: Callable[[int], str], zone: str | None, series: Any = None, step: float | None = None
    ) -> Array:
        """Seconds since 1970, (n_rows,); local times are those of `zone`, by default UTC.

        A day without a time is its first instant, also where there is no midnight. A time that is there twice, as the
        clocks are put back, is the first that is later than the row before it of its series, by the label in `series`,
        or, if the usual `step` in seconds is known, the one that is nearer to it.

        Raises DataError for a local time that does not exist; `place` names its row.
        """
        if zone is None or not self.is_local.any():
            return self.seconds
        return self.seconds - _local_offsets(self.seconds, np.flatnonzero(self.is_local), zone, place, series, step)


def read_instants(
    values: Any, place: Callable[[int], str], zone: str | None = None, series: Any = None
) -> tuple[Array, bool]:
    """The instants of a time column, see `Times`, and whether its values are dates."""
    times = Times.parse(values, place)
    return times.instants(place, zone, series), times.dated


def holds_times(cells: Cells) -> bool:
    """Whether a column begins with a time."""
    with suppress(DataError):
        return bool(len(read_instants(cells[:1], str)[0]))
    return False


def _read_compact(array: Cells) -> Cells | None:
    """The days of a column of texts or whole numbers that all are as 20231231; None of another column."""
    if not len(array) or not _COMPACT.fullmatch(str(array[0]).strip()):
        return None
    texts = [str(cell).strip() for cell in array.tolist()]
    if not all(map(_COMPACT.fullmatch, texts)):
        return None
    with suppress(ValueError):
        return np.array([f"{text[:4]}-{text[4:6]}-{text[6:]}" for text in texts], dtype="datetime64[D]")
    return None


class _Instant(NamedTuple):
    seconds: float  # since 1970, of a local time as if it were UTC
    is_date: bool
    is_local: bool  # whether it has no offset


def _read_cells(cells: Sequence[Any], place: Callable[[int], str]) -> list[_Instant]:
    known, found = dict[str, _Instant](), list[_Instant]()  # a long table has each text many times
    for row, cell in enumerate(cells):
        is_text = isinstance(cell, str)  # dates of an hour that is there twice are equal
        found.append(known[cell] if is_text and cell in known else _read_cell(cell, place, row))
        if is_text:
            known[cell] = found[-1]
    return found


def _read_cell(cell: Any, place: Callable[[int], str], row: int) -> _Instant:
    instant = cell
    for read in _READERS if isinstance(cell, str) else ():
        with suppress(ValueError):
            instant = read(cell.strip())
            break
    if isinstance(instant, date) and not isinstance(instant, datetime):
        instant = datetime(instant.year, instant.month, instant.day)
    if isinstance(instant, datetime) and instant == instant:  # pandas' NaT is a datetime that differs from itself
        is_local = instant.tzinfo is None
        seconds = (instant.replace(tzinfo=UTC) if is_local else instant).timestamp()
        if not FIRST <= seconds < LAST:
            years = "a date of the years {} to {}".format(*YEARS)
            raise DataError.at(place(row), f"must be {years}, but is {quote(cell)}")
        return _Instant(seconds, True, is_local)
    if isinstance(instant, Real):
        return _Instant(float(instant), False, False)
    raise DataError.at(place(row), f"{NO_TIME} {quote(cell)}")


@cache
def find_zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name; raises `ConfigError` if there is none."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise ConfigError(f"zone must be a time zone such as Europe/Berlin, but is {quote(name)}") from error


def find_zone_of(frame: Any, time: str) -> str | None:
    """The time zone of a frame's times, by its IANA name; None if they have none, or another one."""
    known = nw.from_native(frame, pass_through=True)
    if isinstance(known, nw.DataFrame | nw.LazyFrame) and time in (schema := known.collect_schema()):
        dtype: Any = schema[time]
    else:
        column = frame[time] if time in list(getattr(frame, "columns", frame)) else getattr(frame, "index", None)
        dtype = getattr(column, "dtype", None)
    zone = getattr(dtype, "tz", None) or getattr(dtype, "time_zone", None)
    with suppress(ConfigError):  # of an offset
        return None if zone is None else find_zone(str(zone)).key
    return None


def _local_offsets(
    seconds: Array, rows: NDArray[np.int64], zone: str, place: Callable[[int], str], series: Any, step: float | None
) -> Array:
    """Seconds that local times are ahead of UTC, (n_rows,), 0 but in some rows; `seconds` are those as if of UTC."""
    codes = np.zeros(len(seconds), dtype=np.int64) if series is None else np.unique(series, return_inverse=True)[1]
    first, last = (np.zeros(len(seconds)) for _ in range(2))  # local time of the first and the last row of each series
    first[codes[rows[::-1]]], last[codes[rows]] = seconds[rows[::-1]], seconds[rows]
    ranks = np.where((first > last)[codes[rows]], -rows, rows)
    rows = rows[np.lexsort((ranks, codes[rows]))]  # by series, oldest first, as far as one can say
    offsets, local = np.zeros(len(seconds)), seconds[rows]
    known = _by_quarter(_folds, local, zone)
    offsets[rows] = known[:, 0]
    if not (local % DAY).any():  # of days the first instant
        return offsets
    for number in np.flatnonzero(known[:, 0] < known[:, 1]).tolist():
        written = f"{EPOCH + timedelta(seconds=local[number]):%Y-%m-%d %H:%M}"
        message = f"is {written}, which does not exist in {zone}, where the clocks are put forward"
        message += "; without a zone, or with one such as Etc/GMT-1, times are of a clock that is not"
        raise DataError.at(place(int(rows[number])), message)
    for number in np.flatnonzero(known[:, 0] > known[:, 1]).tolist():
        row, before = rows[number], rows[number - 1]
        one, other = seconds[row] - known[number]
        newest = seconds[before] - offsets[before] if number and codes[before] == codes[row] else -np.inf
        is_nearer = step is not None and abs(other - newest - step) < abs(one - newest - step)
        offsets[row] = known[number, int(one <= newest or is_nearer)]
    return offsets


def _by_quarter(find: Callable[[float, str], Any], seconds: Array, zone: str) -> Array:
    """What is found for the quarter of an hour of each time, in which no zone changes, (seconds.size, ...)."""
    quarters, places = np.unique(np.floor(seconds / 900), return_inverse=True)
    return np.array([find(quarter, zone) for quarter in quarters.tolist()])[places.ravel()]


@lru_cache(N_QUARTERS)
def _folds(quarter: float, zone: str) -> tuple[float, float]:
    """Seconds that a local time is ahead of UTC, before and after the clocks change."""
    at = (EPOCH + timedelta(seconds=900 * quarter)).replace(tzinfo=find_zone(zone))
    first, second = ((at.replace(fold=fold).utcoffset() or timedelta()).total_seconds() for fold in (0, 1))
    return first, second


@lru_cache(N_QUARTERS)
def _offset(quarter: float, zone: str) -> float:
    at = (EPOCH + timedelta(seconds=900 * quarter)).astimezone(find_zone(zone))
    return (at.utcoffset() or timedelta()).total_seconds()


def to_local(instants: Array, zone: str | None) -> Array:
    """Instants in seconds of the local clock of a zone, as if that were UTC; any shape."""
    if zone is None:
        return instants
    local: Array = instants + _by_quarter(_offset, instants, zone).reshape(instants.shape)
    return local


def from_local(local: Array, zone: str | None) -> Array:
    """The inverse of `to_local`: of a time that is there twice the first; of one that is not, as much later."""
    if zone is None:
        return local
    instants: Array = local - _by_quarter(lambda *of: _folds(*of)[0], local, zone).reshape(local.shape)
    return instants


def read_duration(text: str) -> float | None:
    """The seconds of a duration such as ``7d``, ``36h`` or ``15min``; None if it is none, or 0."""
    found = _DURATION.fullmatch(text.strip())
    return float(found[1]) * _SECONDS[found[2].lower()] or None if found else None


def describe_repeated_hour(seconds: Array, row: int) -> str:
    """The hint for a row that repeats an earlier time in a Sunday night, as daylight saving ends; empty for others."""
    at = EPOCH + timedelta(seconds=float(seconds[row]))
    if seconds[row] not in seconds[:row] or seconds[row - 1] - seconds[row] > 3600 or at.weekday() != 6 or at.hour > 3:
        return ""
    return (
        "; if these are local times, it is the hour that is there twice as daylight saving ends: name their time zone "
        "(zone, such as Europe/Berlin), or give times with their offset"
    )


def read_index(frame: Any, time: str | None) -> tuple[str, NDArray[Any]] | None:
    """Name and times of a frame's index, if it has dates or is named `time`."""
    if not hasattr(frame, "index") or isinstance(frame, Sequence):
        return None
    name, index = getattr(frame.index, "name", None), frame.index.to_numpy()
    is_dated = len(index) and (index.dtype.kind == "M" or isinstance(index[0], datetime))
    return (str(name or "time"), index) if is_dated or (time is not None and name == time) else None


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

    Local times are those of `zone`, by default UTC; texts of another form than those of `FORMS` become ISO 8601 there.
    """
    array = np.asarray(stamps)
    if array.dtype.kind in "iuO" and _read_compact(array[-1:]) is not None:
        local = to_local(instants, zone).tolist()
        return tuple((EPOCH + timedelta(seconds=at)).strftime(COMPACT) for at in local)
    if array.dtype.kind in "iuf":
        return tuple(f"{instant:.15g}" for instant in instants.tolist())
    sample = None if array.dtype.kind == "M" else array[-1:].tolist()[0]
    _, is_date, is_local = _Instant(0.0, True, True) if sample is None else _read_cell(sample, str, 0)
    if not is_date:
        return tuple(f"{instant:.15g}" for instant in instants.tolist())
    is_utc = isinstance(sample, str) and sample.strip().endswith("Z")
    place = getattr(sample, "tzinfo", None) or (find_zone(zone) if zone and not is_utc else UTC)
    found = [datetime.fromtimestamp(instant, place) for instant in instants.tolist()]
    found = [at.replace(tzinfo=None) for at in found] if is_local else found
    if sample is None:
        return times_as_text(np.array(found, dtype="datetime64[us]").astype(array.dtype))
    for form in (*FORMS, "%Y-%m-%d", *DOTTED) if isinstance(sample, str) else ():
        with suppress(ValueError):
            datetime.strptime(sample.strip(), form)
            return tuple(at.strftime(form) for at in found)
    return times_as_text([at.date() if type(sample) is date else at for at in found])
