"""`Encoding`: how the columns of a table as people have it become a forecaster's features, in training and serving.

A table's numbers, texts and times -> gaps filled -> known columns taken later -> levels one-hot, calendar -> features.
A row depends on no row further away than the longest filled gap and the steps by which a known column is taken later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from importlib import import_module
from itertools import chain
from math import cos, pi, sin
from numbers import Real
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.errors import ConfigError, DataError, Index, check_choice, check_config, quote
from kanmodel.tables.instants import DAY, find_zone

MISSING = ("", "na", "n/a", "#n/a", "nan", "<na>", "nat", "none", "null")  # cells without a value, case-insensitive
MAX_LEVELS = 64  # of a column of texts
MAX_FILL = 24  # rows without a value in a row that are filled, unless the user says more or fewer
CYCLES = ("hour", "weekday", "day_of_year")  # a sine and a cosine each
CALENDAR = (*CYCLES, "weekend")
DAYS_OF = {"hour": 1, "weekday": 7, "weekend": 7, "day_of_year": 365}  # the length of each; longer steps lack it
HOLIDAY = "holiday"
Cells = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SourceColumn:
    """One column of a table, which becomes one feature, or one for each of its levels.

    Attributes:
        name: the column's name.
        levels: the texts that it may hold, each a feature that is 1 where it is the text and 0 elsewhere; empty for a
            column of numbers.
        later: rows after a window's step from which its value is taken; 0 unless its future is known at the forecast.
    """

    name: str
    levels: tuple[str, ...] = ()
    later: Index = 0

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def features(self) -> tuple[str, ...]:
        """``temp``, ``temp+24`` if it is taken 24 rows later, or ``tariff=night`` of each level."""
        name = f"{self.name}+{self.later}" if self.later else self.name
        return tuple(f"{name}={level}" for level in self.levels) or (name,)


@dataclass(frozen=True)
class Fill:
    """How missing values are filled: of levels always forward.

    Attributes:
        how: ``forward``, the last value; ``linear``, on a line to the next, and the last value if there is no next; or
            ``value``.
        value: the one of ``value``.
        longest: rows without a value, one after another, up to which they are filled; more stay missing.
    """

    how: Literal["forward", "linear", "value"]
    value: float = 0.0
    longest: int = MAX_FILL

    def __post_init__(self) -> None:
        check_config(self)

    @classmethod
    def of(cls, fill: str | float | None, longest: int | None = None) -> Fill | None:
        """That of the arguments of `kanmodel.train`."""
        longest = MAX_FILL if longest is None else longest
        if fill is None:
            return None
        if isinstance(fill, str):
            if fill not in ("forward", "linear"):
                raise ConfigError(f"fill must be forward, linear or a number, but is {quote(fill)}")
            return cls(fill, longest=longest)  # type: ignore[arg-type]
        return cls("value", float(fill), longest)

    def fill(self, values: Array, run: NDArray[np.int64], forward: bool = False, to_end: bool = True) -> Array:
        """A column (n_rows,) with its missing values, NaN, filled within each `run` of rows without a gap in time.

        `forward` overrules `how`. Without `to_end` missing values after the last of a run stay.
        """
        rows, missing = np.arange(len(values)), np.isnan(values)
        if not missing.any():
            return values
        before = np.maximum.accumulate(np.where(missing, -1, rows))
        after = np.minimum.accumulate(np.where(missing, len(values), rows)[::-1])[::-1]
        has_before = (before >= 0) & (run[before] == run)
        has_after = (after < len(values)) & (run[np.minimum(after, len(values) - 1)] == run)
        starts = missing & (np.diff(run, prepend=-1) != 0) | missing & ~np.roll(missing, 1)
        stretch = np.cumsum(starts)
        filled = missing & (np.bincount(stretch[missing], minlength=stretch[-1] + 1)[stretch] <= self.longest)
        filled &= has_after if not to_end else True
        if self.how == "value" and not forward:
            return np.where(filled, self.value, values)
        filled &= has_before
        if self.how == "linear" and not forward:
            filled_between = filled & has_after
            first, last = values[before], values[np.minimum(after, len(values) - 1)]
            line = first + (last - first) * ((rows - before) / np.maximum(after - before, 1))
            values = np.where(filled_between, line, values)
            filled &= ~filled_between
        return np.where(filled, values[before], values)


@dataclass(frozen=True)
class Calendar:
    """Features of the time of the forecast's first step, which is known whatever happens.

    Attributes:
        parts: ``hour``, ``weekday`` and ``day_of_year``, as a sine and a cosine each, and ``weekend``, 0 or 1.
        later: seconds from a row to the instant whose calendar is taken.
        holidays: the country, such as ``DE`` or ``DE-BY``, whose public holidays are a feature, 0 or 1; or None.
    """

    parts: tuple[Annotated[str, partial(check_choice, choices=CALENDAR)], ...]
    later: Annotated[float, lambda value, place: None] = 0.0
    holidays: str | None = None

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The features of each part."""
        parts = (*self.parts, *([HOLIDAY] if self.holidays else []))
        return {part: (f"{part}_sin", f"{part}_cos") if part in CYCLES else (part,) for part in parts}

    def encode(self, instants: Array, zone: str | None) -> list[Array]:
        """The columns of its features, (n_rows,) each, of instants in seconds; local times are those of `zone`."""
        instants = instants + self.later
        at = instants + zone_offsets(instants, zone)
        day = np.floor(at / DAY)
        columns: list[Array] = []
        for part in self.parts:
            if part == "weekend":
                columns.append(((day + 3) % 7 >= 5).astype(np.float64))  # 1970 began on a Thursday
                continue
            if part == "hour":
                phase = (at - day * DAY) / DAY
            elif part == "weekday":
                phase = (day + 3) % 7 / 7
            else:
                days = day.astype("datetime64[D]")
                first = days.astype("datetime64[Y]")
                length = (first + 1).astype("datetime64[D]") - first.astype("datetime64[D]")
                phase = (days - first.astype("datetime64[D]")) / length
            # Scalar functions, once for each phase: NumPy's may differ in a bit with the length of an array
            phases, inverse = np.unique(phase, return_inverse=True)
            columns += [np.array([f(2 * pi * each) for each in phases.tolist()])[inverse] for f in (sin, cos)]
        if self.holidays:
            columns.append(_find_holidays(day, self.holidays))
        return columns


def zone_offsets(instants: Array, zone: str | None) -> Array:
    """Seconds that local time is ahead of UTC at instants, (n_rows,)."""
    if zone is None:
        return np.zeros(len(instants))
    local, known = find_zone(zone), dict[float, float]()
    quarters = np.floor(instants / 900).tolist()  # no zone changes within one
    for quarter in dict.fromkeys(quarters):
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=900 * quarter)
        known[quarter] = at.astimezone(local).utcoffset().total_seconds()  # type: ignore[union-attr]
    return np.array([known[quarter] for quarter in quarters])


def _find_holidays(day: Array, country: str) -> Array:
    """Whether each local day, numbered from 1970, is a public holiday of a country, (n_rows,)."""
    of = public_holidays(country)
    found = {each: float(date.fromordinal(719_163 + int(each)) in of) for each in np.unique(day).tolist()}
    return np.array([found[each] for each in day.tolist()])


def public_holidays(country: str) -> Any:
    """The calendar of a country, ``DE``, or of a part of it, ``DE-BY``; it holds dates.

    Raises:
        ConfigError: the package `holidays` is missing, or knows no such country.
    """
    try:
        package = import_module("holidays")
    except ImportError:
        raise ConfigError(f"holidays of {country} need the package holidays: pip install holidays") from None
    code, _, part = country.partition("-")
    try:
        return package.country_holidays(code, subdiv=part or None)
    except (NotImplementedError, AttributeError) as error:
        raise ConfigError(f"holidays must name a country such as DE or DE-BY, but is {quote(country)}") from error


@dataclass(frozen=True)
class Encoded:
    """The features of a table's rows.

    Attributes:
        values: (n_rows, n_features), original units; NaN where a value is missing, or its cell is bad.
        filled: by column, the cells that were filled, (n_rows,); columns without such cells are left out.
    """

    values: Array
    filled: Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Encoding:
    """The columns of a table, and how they become a forecaster's features, in this order, the calendar last.

    Attributes:
        columns: those of the table that are read.
        calendar: features of the time; None without.
        fill: how missing values are filled; None if they are not.
        zone: name of the time zone of local times, and of the calendar; None for UTC, or times as they stand.
    """

    columns: tuple[SourceColumn, ...]
    calendar: Calendar | None = None
    fill: Fill | None = None
    zone: str | None = None

    def __post_init__(self) -> None:
        check_config(self)
        if self.zone is not None:
            find_zone(self.zone)

    @property
    def is_plain(self) -> bool:
        """Whether the features are the columns as they stand."""
        changed = any(column.levels or column.later for column in self.columns)
        return not (changed or self.calendar or self.fill or self.zone)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of a table that are read, without that of time."""
        return tuple(column.name for column in self.columns)

    @property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """The features of each column, and of each part of the calendar."""
        sources = {column.name: column.features for column in self.columns}
        return sources | (self.calendar.groups if self.calendar else {})

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        parts = self.calendar.groups.values() if self.calendar else ()
        return tuple(chain(*(column.features for column in self.columns), *parts))

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The features of each column, or part of the calendar, that has other features than itself."""
        return {name: features for name, features in self.sources.items() if features != (name,)}

    @property
    def fixed(self) -> tuple[str, ...]:
        """The features that a counterfactual leaves unchanged: the calendar, and levels."""
        levels = chain(*(column.features for column in self.columns if column.levels))
        return (*levels, *chain(*(self.calendar.groups.values() if self.calendar else ())))

    @property
    def later(self) -> int:
        """Rows after a window's last one that it needs."""
        return max((column.later for column in self.columns), default=0)

    @property
    def reach(self) -> int:
        """Rows before and after a row, beyond which nothing acts on its features."""
        return self.later + (self.fill.longest + 1 if self.fill else 0)

    def describe(self) -> dict[str, Any]:
        """What is read, for people: the columns with their levels, the calendar and the filling."""
        fill = self.fill and (f"{self.fill.value:g}" if self.fill.how == "value" else self.fill.how)
        return {
            "columns": [
                {"name": one.name, "levels": list(one.levels), "later": one.later, "features": list(one.features)}
                for one in self.columns
            ],
            "calendar": [*self.calendar.groups] if self.calendar else [],
            "holidays": self.calendar.holidays if self.calendar else None,
            "zone": self.zone,
            "fill": fill,
            "max_fill": self.fill.longest if self.fill else None,
        }

    def read(self, cells: Mapping[str, Cells]) -> tuple[Array, dict[int, tuple[str, str]]]:
        """The cells of a table's rows as numbers, and which are bad.

        Args:
            cells: the columns by name, (n_rows,) each, numbers or any objects.

        Returns:
            (n_rows, n_columns): the value, or the number of the level; NaN where there is none, inf of a bad cell.
            By row, the first column with a bad cell and what is wrong with it.
        """
        columns, bad = list[Array](), dict[int, tuple[str, str]]()
        for column in self.columns:
            found = cells[column.name]
            columns.append(read_levels(found, column.levels) if column.levels else read_cells(found))
            for row in np.flatnonzero(np.isinf(columns[-1])).tolist():
                if row not in bad:
                    bad[row] = column.name, describe_bad(found[[row]].tolist()[0], column.levels)
        return np.array(columns).reshape(len(self.columns), -1).T, dict(sorted(bad.items()))

    def encode(self, numbers: Array, instants: Array | None, run: NDArray[np.int64]) -> Encoded:
        """The features of a table's rows, oldest first.

        Args:
            numbers: (n_rows, n_columns), as `read` gives them.
            instants: seconds, (n_rows,); needed for a calendar.
            run: (n_rows,), a number that changes where a gap is before a row.
        """
        rows, filled, parts = np.arange(len(run)), dict[str, NDArray[np.bool_]](), list[Array]()
        for column, values in zip(self.columns, numbers.T, strict=True):
            is_bad = np.isinf(values)
            values = np.where(is_bad, np.nan, values)
            if self.fill is not None:
                missing = np.isnan(values)
                values = np.where(is_bad, np.nan, self.fill.fill(values, run, bool(column.levels), not column.later))
                if (found := missing & ~np.isnan(values)).any():
                    filled[column.name] = found
            if column.later:
                source = np.minimum(rows + column.later, len(rows) - 1)
                is_there = (rows + column.later < len(rows)) & (run[source] == run)
                values = np.where(is_there, values[source], np.nan)
            if column.levels:
                is_level = (values[:, None] == np.arange(len(column.levels))).astype(np.float64)
                parts.append(np.where(np.isnan(values)[:, None], np.nan, is_level))
            else:
                parts.append(values[:, None])
        if self.calendar is not None:
            if instants is None:
                raise DataError("the calendar of this model needs the times of the rows")
            parts += [column[:, None] for column in self.calendar.encode(instants, self.zone)]
        return Encoded(np.concatenate(parts, axis=1), filled)

    def describe_missing(self, feature: str, n_after: int) -> tuple[str, str]:
        """The column for which a feature has no value, and why; its row has `n_after` rows of the table after it."""
        column = next(one for one in self.columns if feature in one.features)
        if column.later:
            where = "the table ends before" if n_after < column.later else "is empty there, or after a gap"
            return column.name, f"must be known {column.later} rows later, but {where}"
        if self.fill is None:
            return column.name, "is empty, and the model was trained without fill"
        limit = f"more than {self.fill.longest} rows without a value (max_fill), or none before that has one"
        return column.name, f"is empty and cannot be filled: there are {limit}"


def describe_bad(cell: Any, levels: Sequence[str] = ()) -> str:
    """What is wrong with a cell of a column of numbers, or of these levels."""
    if levels:
        return f"has the unknown level {quote(level_of(cell))}; the levels are {', '.join(levels)}"
    return f"must be a finite number or empty, but is {quote(cell)}"


def read_cells(values: Cells) -> Array:
    """A column in float64, numbers in texts too: NaN where a value is missing, inf where it is not a finite number."""
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)

    def read(cell: Any) -> float:
        if is_missing(cell):
            return np.nan
        try:
            return float(cell) if is_number(cell) or isinstance(cell, str) else np.inf
        except (ValueError, OverflowError):
            return np.inf

    return np.array([read(cell) for cell in values.tolist()], dtype=np.float64)


def read_levels(values: Cells, levels: Sequence[str]) -> Array:
    """The number of each cell's level: NaN where it is missing, inf where it is unknown."""
    numbers = {level: float(number) for number, level in enumerate(levels)}
    cells = values.tolist()
    return np.array([np.nan if is_missing(cell) else numbers.get(level_of(cell), np.inf) for cell in cells], np.float64)


def level_of(cell: Any) -> str:
    """The level of a cell: its text, of a whole number without a fraction."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def is_number(cell: Any) -> bool:
    """Whether a cell is a number or a boolean."""
    return isinstance(cell, Real | Decimal | np.bool_)


def is_missing(cell: Any) -> bool:
    """Whether a cell has no value."""
    return cell is None or str(cell).strip().lower() in MISSING


def as_cells(values: Any) -> np.ndarray[Any, Any]:
    """A column of a frame as an array; None where a masked value is, times with their zone, categories as texts."""
    dtype = getattr(values, "dtype", None)
    if getattr(dtype, "time_zone", None):  # of polars, which converts to UTC and leaves that out
        return np.array(values.to_list(), dtype=object)
    array = values.to_numpy() if hasattr(values, "to_numpy") else values
    if hasattr(dtype, "categories"):  # of pandas and polars
        return np.array([None if is_missing(cell) else level_of(cell) for cell in array.tolist()], dtype=object)
    if isinstance(array, np.ma.MaskedArray):
        array = np.where(np.ma.getmaskarray(array), np.array(None), array.data)
    read = np.asarray(array)
    # a list of numbers and words keeps the type of each cell
    return np.array(array, dtype=object) if read.dtype.kind == "U" and isinstance(array, list | tuple) else read
