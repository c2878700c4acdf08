"""`Encoding`: how the columns of a table as people have it become a forecaster's features, in training and serving.

A table's numbers, texts and times -> known columns taken later -> missing values filled -> levels one-hot, calendar.
A value is filled as of a window's end: only by values that were known then. So the same row may have another value in
the next window, after a gap in it has closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from importlib import import_module
from math import cos, pi, sin
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array, count_before
from kanmodel.errors import ConfigError, Index, check_choice, check_config, needs_package, quote
from kanmodel.tables.frames import Cells, describe_bad, read_levels, read_numbers
from kanmodel.tables.instants import DAY

MAX_LEVELS = 64  # of a column of texts
MAX_FILL = 24  # rows without a value in a row that are filled, unless the user says more or fewer
CYCLES = ("hour", "weekday", "day_of_year")  # a sine and a cosine each
CALENDAR = (*CYCLES, "weekend")
DAYS_OF = {"hour": 1, "weekday": 7, "weekend": 7, "day_of_year": 365}  # the length of each; longer steps lack it
HOLIDAY = "holiday"
Rows = NDArray[np.int64]
BadCells = dict[int, tuple[str, str]]
"""By row, the first column with a cell that cannot be used, and what is wrong with it."""


@dataclass(frozen=True)
class SourceColumn:
    """One column of a table, which becomes one feature, or one for each of its levels.

    Attributes:
        name: the column's name.
        levels: the texts that it may hold, each a feature that is 1 where it is the text and 0 elsewhere; empty for a
            column of numbers.
        later: steps after a window's step from which its value is taken; 0 unless its future is known at the forecast.
        static: whether it has one value for each series.
    """

    name: str
    levels: tuple[str, ...] = ()
    later: Index = 0
    static: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def features(self) -> tuple[str, ...]:
        """What it becomes: ``temp``, ``temp+24`` if it is taken 24 steps later, or ``tariff=night`` of each level."""
        name = f"{self.name}+{self.later}" if self.later else self.name
        return tuple(f"{name}={level}" for level in self.levels) or (name,)


class AsOf(NamedTuple):
    """A column whose missing values are filled as of each row e, by values of the rows up to e.

    For a window that ends at e, the values of rows up to `seen[e]` are those of `closed`, and those of the rows after
    it `open[e]`, since their gap is not closed at e.
    """

    closed: Array  # (n_rows,), filled in gaps that have a value after them; NaN where it is missing
    seen: Rows  # (n_rows,), the last row up to each that has a value, in its run; the row before the run without
    open: Array  # (n_rows,), NaN where the gap is too long, or there is no value before it
    missing: NDArray[np.bool_]  # (n_rows,), the cells that had no value


@dataclass(frozen=True)
class Fill:
    """How missing values are filled: of levels always forward."""

    # ``forward``, the last value; ``linear``, on a line to the next, which must be known at the window's end, or else
    # the last value; or ``value``
    how: Literal["forward", "linear", "value"]
    value: float = 0.0  # the one of ``value``
    # rows without a value, one after another and up to the window's end, that are filled; more stay missing
    longest: int = MAX_FILL

    def __post_init__(self) -> None:
        check_config(self)

    @classmethod
    def of(cls, fill: str | float | None, longest: int | None = None) -> Fill | None:
        """That of the arguments of `kanmodel.train`."""
        longest = MAX_FILL if longest is None else longest
        if fill is None or not isinstance(fill, str):
            return None if fill is None else cls("value", float(fill), longest)
        if fill not in ("forward", "linear"):
            raise ConfigError(f"fill must be forward, linear or a number, but is {quote(fill)}")
        return cls(fill, longest=longest)  # type: ignore[arg-type]

    def apply(self, values: Array, run: Rows, has_cell: NDArray[np.bool_], forward: bool = False) -> AsOf:
        """A column (n_rows,) with its missing values, NaN, filled within each `run` of rows without a gap in time.

        Bad cells, infinite, stay missing, and so do the newest rows up to a window's end that have no cell. `forward`
        overrules `how`.
        """
        is_bad = np.isinf(values)
        values = np.where(is_bad, np.nan, values)
        rows, n, missing = np.arange(len(values)), len(values), np.isnan(values)
        starts = np.concatenate([[0], np.flatnonzero(np.diff(run)) + 1]) if n else np.zeros(0, np.int64)
        first = starts[np.searchsorted(starts, rows, "right") - 1]  # of the row's run
        seen = np.maximum(np.maximum.accumulate(np.where(missing, -1, rows)), first - 1)
        after = np.minimum.accumulate(np.where(missing, n, rows)[::-1])[::-1]
        ahead = np.minimum(after, n - 1)
        is_closed = missing & (after < n) & (run[ahead] == run)
        bad, absent = map(count_before, (is_bad, ~has_cell))
        is_known = seen >= first
        last = np.where(is_known, values[np.maximum(seen, 0)], np.nan)
        opened = np.full(n, self.value) if self.how == "value" and not forward else last
        fits = (rows - seen <= self.longest) & ((bad + absent)[rows + 1] == (bad + absent)[seen + 1])
        between = opened
        if self.how == "linear" and not forward:
            slope = (values[ahead] - last) / np.maximum(ahead - seen, 1)
            between = last + slope * (rows - seen)
        closes = is_closed & (after - seen - 1 <= self.longest) & (bad[ahead + 1] == bad[seen + 1])
        closed = np.where(missing, np.where(closes, between, np.nan), values)
        return AsOf(closed, seen, np.where(missing & fits, opened, np.nan), missing)


@dataclass(frozen=True)
class Calendar:
    """Features of times up to that of the last step that is forecast, which are known whatever happens."""

    # ``hour``, ``weekday`` and ``day_of_year``, as a sine and a cosine each, and ``weekend``, 0 or 1
    parts: tuple[Annotated[str, partial(check_choice, choices=CALENDAR)], ...]
    later: Index  # steps after a window's step whose time it is, so that the window's last step has the last forecast's
    # the country, such as ``DE`` or ``DE-BY``, whose public holidays are a feature, 0 or 1; or None
    holidays: str | None = None

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The features of each part."""
        parts = (*self.parts, *([HOLIDAY] if self.holidays else []))
        return {part: (f"{part}_sin", f"{part}_cos") if part in CYCLES else (part,) for part in parts}

    def encode(self, local: Array) -> Array:
        """Its features, (n_rows, n), of instants in seconds of the local clock, (n_rows,)."""
        day = np.floor(local / DAY)
        columns: list[Array] = []
        for part in self.parts:
            if part == "weekend":
                columns.append(((day + 3) % 7 >= 5).astype(np.float64))  # 1970 began on a Thursday
                continue
            if part == "hour":
                phase = (local - day * DAY) / DAY
            elif part == "weekday":
                phase = (day + 3) % 7 / 7
            else:
                days, year = day.astype("datetime64[D]"), day.astype("datetime64[D]").astype("datetime64[Y]")
                first, last = (each.astype("datetime64[D]") for each in (year, year + 1))
                phase = (days - first) / (last - first)
            # Scalar functions, once for each phase: NumPy's may differ in a bit with the length of an array
            phases, inverse = np.unique(phase, return_inverse=True)
            columns += [np.array([f(2 * pi * each) for each in phases.tolist()])[inverse] for f in (sin, cos)]
        if self.holidays:
            of, (numbers, inverse) = public_holidays(self.holidays), np.unique(day, return_inverse=True)
            dates = (date.fromordinal(719_163 + int(number)) for number in numbers.tolist())  # that of day 0
            columns.append(np.array([float(each in of) for each in dates])[inverse])
        return np.stack(columns, axis=1)


def public_holidays(country: str) -> Any:
    """The calendar of a country, ``DE``, or of a part of it, ``DE-BY``; it holds dates.

    Raises ConfigError if the package `holidays` is missing, or knows no such country.
    """
    with needs_package(f"the calendar of {country}", "kanscope[holidays]"):
        package = import_module("holidays")
    code, _, part = country.partition("-")
    try:
        return package.country_holidays(code, subdiv=part or None)
    except (NotImplementedError, AttributeError) as error:
        raise ConfigError(f"holidays must name a country such as DE or DE-BY, but is {quote(country)}") from error


@dataclass(frozen=True)
class Encoding:
    """The columns of a table, and how they become a forecaster's features, in this order, the calendar last.

    Attributes:
        columns: the columns of the table that are read.
        calendar: features of the time; None without.
        fill: how missing values are filled; None if they are not.
    """

    columns: tuple[SourceColumn, ...]
    calendar: Calendar | None = None
    fill: Fill | None = None

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def is_plain(self) -> bool:
        """Whether the features are the columns as they stand."""
        changed = any(column.levels or column.later or column.static for column in self.columns)
        return not (changed or self.calendar or self.fill)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of a table that are read, without those of time and series."""
        return tuple(column.name for column in self.columns)

    @property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """The features of each column, and of each part of the calendar."""
        return {column.name: column.features for column in self.columns} | self._of_calendar

    @property
    def feature_numbers(self) -> dict[str, range]:
        """Their numbers, likewise."""
        sizes, n = {name: len(features) for name, features in self.sources.items()}, 0
        return {name: range(n, n := n + size) for name, size in sizes.items()}

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        columns = (column.features for column in self.columns)
        return tuple(name for features in (*columns, *self._of_calendar.values()) for name in features)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The features of each column, or part of the calendar, that has other features than itself."""
        return {name: features for name, features in self.sources.items() if features != (name,)}

    @property
    def fixed(self) -> tuple[str, ...]:
        """The features that a counterfactual leaves unchanged: the calendar, levels, and what a series always has."""
        columns = (column.features for column in self.columns if column.levels or column.static)
        return tuple(name for features in (*columns, *self._of_calendar.values()) for name in features)

    @property
    def _of_calendar(self) -> dict[str, tuple[str, ...]]:
        return self.calendar.groups if self.calendar else {}

    @property
    def steps_later(self) -> tuple[int, ...]:
        """Of each feature, the steps after a window's step at which its value is taken."""
        of_columns = [column.later for column in self.columns for _ in column.features]
        of_calendar = [self.calendar.later] * (len(self.features) - len(of_columns)) if self.calendar else []
        return (*of_columns, *of_calendar)

    @property
    def later(self) -> int:
        """Steps after a window's last row that it needs."""
        return max((column.later for column in self.columns), default=0)

    @property
    def reach(self) -> int:
        """Rows before a window beyond which nothing acts on its features, but those of a series as a whole."""
        return self.fill.longest + 1 if self.fill else 0

    def read(self, cells: Mapping[str, Cells], new: NDArray[np.bool_]) -> tuple[Array, BadCells]:
        """The cells of columns by name, (n_rows,) each, as numbers (n_rows, n_columns), and those that are bad.

        A number is the value, or that of the level; NaN where there is none, inf of a bad cell. Rows of a `new` series,
        (n_rows,), which training did not have, may have other levels in columns that are static, of number -1.
        """
        numbers, bad = np.empty((len(new), len(self.columns))), BadCells()
        for place, column in enumerate(self.columns):
            found = cells[column.name]
            values = read_levels(found, column.levels) if column.levels else read_numbers(found)
            if column.static and column.levels:
                values = np.where(np.isinf(values) & new, -1.0, values)
            numbers[:, place] = values
            note_bad(bad, column.name, found, values, column.levels)
        return numbers, bad

    def fill_column(self, place: int, values: Array, run: Rows, has_cell: NDArray[np.bool_]) -> AsOf:
        """A column by its place, (n_rows,) numbers as of `read`, taken later already, with missing values filled."""
        column = self.columns[place]
        fill = Fill("forward", longest=len(values) or 1) if column.static else self.fill
        if fill is None or np.isfinite(values).all():
            values = np.where(np.isinf(values), np.nan, values)
            return AsOf(values, np.arange(len(values)), np.full(len(values), np.nan), np.isnan(values))
        return fill.apply(values, run, has_cell, bool(column.levels) or column.static)

    def expand(self, columns: Array, calendar: Array | None) -> Array:
        """The features, (n_rows, n_features), of filled columns (n_rows, n_columns) and those of the calendar."""
        found = list[Array]()
        for column, values in zip(self.columns, columns.T, strict=True):
            values = values[:, None]
            if column.levels:
                values = np.where(np.isnan(values), np.nan, values == np.arange(len(column.levels)))
            found.append(values)
        return np.concatenate([*found, *([] if calendar is None else [calendar])], axis=1)

    def describe_missing(self, column: SourceColumn, has_row: bool) -> str:
        """Why a column has no value in a row of a window, or in the row later of which it is taken, if there is one."""
        if column.later and not has_row:
            return f"must be known {column.later} rows later, but the table has no such row"
        place = f"is empty {column.later} rows later" if column.later else "is empty"
        if self.fill is None:
            return f"{place}, and the model was trained without fill"
        longest = f"there are more than {self.fill.longest} rows without a value (max_fill)"
        return f"{place} and cannot be filled: {longest}, or none before that has one"


def note_bad(bad: BadCells, name: str, cells: Cells, values: Array, levels: Sequence[str] = ()) -> None:
    """Adds the cells of a column, of numbers or of levels, whose values are infinite."""
    for row in np.flatnonzero(np.isinf(values)).tolist():
        bad.setdefault(row, (name, describe_bad(cells[[row]].tolist()[0], levels)))


def plain_encoding(names: Sequence[str]) -> Encoding:
    """Of features that are columns as they stand."""
    return Encoding(tuple(map(SourceColumn, names)))
