"""`Table`: the rows of a table in order, by series and then by time, with what is known of each, and their positions.

Positions count the steps of the table's rhythm: the row that a window forecasts is found by its position, also across a
gap or where a day is missing, and rows of two series are never in step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array, count_before
from kanmodel.errors import DataError, Problem, UnknownNameError, check_config, check_count, check_lowest, quote
from kanmodel.tables.columns import column_of
from kanmodel.tables.encoding import AsOf, BadCells, Encoding, Rows, note_bad, plain_encoding
from kanmodel.tables.frames import Cells, melt, read_columns, read_labels, read_numbers
from kanmodel.tables.instants import (
    Times,
    describe_repeated_hour,
    holds_times,
    read_duration,
    read_index,
    times_as_text,
    write_instants,
)
from kanmodel.tables.rhythm import FAR, TimeColumn
from kanmodel.text import list_some

MAX_SERIES = 100_000  # of which a checkpoint has the names
N_NAMED = 5  # names in a message
Gaps = Literal["error", "skip"]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class SeriesColumn:
    """The column that says of which series a row is.

    Attributes:
        name: the column's name.
        known: the series of the training, in order.
        columns: of a wide table, those with the target's values, one for each series; empty of a long one.
    """

    name: str
    known: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_config(self)
        for names in (self.known, self.columns):
            check_count(len(names), "the number of series", lowest=0, highest=MAX_SERIES)


@dataclass(frozen=True)
class TableSpec:
    """What the columns of a table are, and how they become the features and targets of windows."""

    encoding: Encoding  # how columns become features
    targets: tuple[str, ...]  # the columns with the values that are forecast
    # steps from a window's last row to its first forecast; 0 if the targets' columns are already shifted
    ahead: int = 0
    time: TimeColumn | None = None  # the column of times and its rhythm; None if there is none, or it is to be found
    series: SeriesColumn | None = None  # the column of series; None of one series
    lookback: int = 1  # steps of a window
    horizon: int = 1  # steps that it forecasts
    masks: Mapping[str, tuple[str, float]] = field(default_factory=dict)  # see `Feature`, of the features that have one

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that a table must have: all that are read but masks, which `fill_masked` makes."""
        masks = {mask for mask, _ in self.masks.values()}
        return tuple(name for name in self.encoding.names if name not in masks)

    def fill_masked(self, values: Array) -> Array:
        """Values (..., n_features) without those that are missing and have a mask, which is 0 there.

        A mask that is missing itself is 1 where there is a value.
        """
        if not self.masks or not np.isnan(values).any():
            return values
        filled, names = values.copy(), self.encoding.features
        for name, (mask, fill) in self.masks.items():
            own, of = filled[..., names.index(name)], filled[..., names.index(mask)]
            lacks = np.isnan(own)
            of[np.isnan(of)] = 1.0
            own[lacks], of[lacks] = fill, 0.0
        return filled

    @property
    def reach(self) -> int:
        """Steps from a window's last row to the last that it forecasts."""
        return self.ahead + self.horizon - 1

    def knows(self, target: str) -> bool:
        """Whether the column of a target has its values at their times: it does not if it is shifted and a feature."""
        return self.ahead > 0 or target not in self.encoding.names


class CellNames(NamedTuple):
    """What a table, its columns and its cells are called in errors: of a data frame, a JSON document, or a file."""

    table: str
    time: str = "time"  # name of the column of times
    last: str = "last"
    kind: Literal["frame", "json", "file"] = "frame"
    melted: tuple[str, tuple[str, ...], int] | None = None  # of a wide table: target, its columns, and rows of each
    name_row: Callable[[int], str] | None = None  # of a file

    @classmethod
    def of(cls, table: str, spec: TableSpec) -> CellNames:
        """Those of a data frame."""
        return cls(table, spec.time.name if spec.time else "time")

    def column(self, name: str) -> str:
        """``windows['load']``, ``series.load``, or ``column load``."""
        return {"file": f"column {name}", "frame": f"{self.table}[{name!r}]", "json": f"{self.table}.{name}"}[self.kind]

    def find(self, name: str, row: int) -> tuple[str, int]:
        """The column and the row of a cell in a table as it was given, which may be wide."""
        if self.melted is None:
            return name, row
        target, columns, n_rows = self.melted
        return columns[row // n_rows] if name == target else name, row % n_rows

    def cell(self, name: str, row: int) -> str:
        """``windows['load'], row 17``, ``series.load[17]``, ``data row 18, column load``, or with its name."""
        name, row = self.find(name, row)
        if self.kind == "file":
            return f"{self.name_row(row) if self.name_row else f'data row {row + 1}'}, column {name}"
        return f"{self.column(name)}, row {row}" if self.kind == "frame" else f"{self.column(name)}[{row}]"


@dataclass(frozen=True)
class Selection:
    """Which rows of a table are read, and what must be there."""

    # of each series, how many rows at which a window may end, the newest; or those of a duration, such as ``7d``,
    # ``36h`` or ``15min``; None for all
    last: int | str | None = None
    before: int = 0  # steps before the oldest of these windows that are read too
    reach: int = 0  # steps after a window that the table must have
    series: Sequence[str] | str | None = None  # names of those that are read; None for all
    # columns besides the features that must be there, with all values before, which simple forecasts repeat
    needs: Sequence[str] = ()
    needs_time: bool = False  # whether the times must be there, if the model has them
    is_ordered: bool = False  # whether rows of a series that are not in order of time are refused, or else put in order
    # whether a spec without a time takes a column ``time`` or an index of dates, if there is one
    finds_times: bool = True
    # whether these have a rhythm of their own, and gaps by it; else only their order is checked
    finds_rhythm: bool = True


@dataclass(frozen=True, eq=False)
class Table:
    """Rows by series and time."""

    spec: TableSpec  # what the columns are; its time is the rhythm of the rows, if they have times
    cell_names: CellNames  # names in errors
    order: Rows  # the number of each row in the table as it was given, (n_rows,)
    codes: Rows  # the number of each row's series, (n_rows,), ascending
    names: tuple[str, ...]  # of the series, by these numbers; empty if the table has one series without a name
    # seconds, or in the unit of a column of numbers, (n_rows,), ascending in a series; None without times
    instants: Array | None
    stamps: Cells | None  # times as the table has them, (n_rows,); None likewise
    position: Rows  # steps of the rhythm, ascending, (n_rows,); rows of two series are `FAR` apart
    run: Rows  # a number that changes at a gap in time, (n_rows,)
    numbers: Array  # of the columns that are read, (n_rows, n_columns), as `Encoding.read` gives them
    targets: Array  # (n_rows, n_targets), NaN where a value is missing
    has: tuple[bool, ...]  # whether it has the column of each target, with its values at their times
    bad: BadCells  # the cells that cannot be used
    may_end: Flags  # the rows at which a window that is asked for may end, (n_rows,)
    needed: Flags  # the rows that these windows may read, (n_rows,)
    new: tuple[str, ...] = ()  # the series that training did not have

    def __len__(self) -> int:
        return len(self.order)

    @classmethod
    def read(
        cls,
        spec: TableSpec,
        frame: Any,
        cell_names: CellNames,
        chosen: Selection = Selection(),
        times: Times | None = None,
    ) -> Table:
        """The rows of a data frame, or of a mapping of name to column, of which other columns are ignored.

        A spec without a time takes a column ``time`` or an index of dates, if there is one, with its own rhythm.
        `times` are those of all rows, if they are parsed already.

        Raises:
            DataError: a missing or repeated column, times that cannot be read, a series without a name, rows that are
                not in order, or too few.
            UnknownNameError: there is no such series.
        """
        data, cell_names = _choose_columns(spec, frame, cell_names, chosen.needs)
        of = _order_rows(spec, frame, data, cell_names, chosen, times)
        spec, is_first = replace(spec, time=of.time), np.diff(of.codes, prepend=-1) != 0
        position, run = np.cumsum(np.where(is_first, FAR, 1)) - FAR, np.cumsum(is_first) - 1
        if spec.time is not None and of.instants is not None:
            position, run = spec.time.number(of.instants, is_first)
        may_end, n_wanted = _choose_ends(position, run, of, spec, chosen, cell_names)
        n_wanted = 1 if of.names else n_wanted
        if may_end.sum() < n_wanted or (chosen.before and may_end.argmax() < spec.lookback - 1 + chosen.before):
            raise _too_few(spec, len(of.rows), n_wanted, chosen, cell_names)
        needed, kept = _find_needed(may_end, of.codes, spec, chosen)
        known = of.names if spec.series is None or not spec.series.known else spec.series.known
        new = tuple(name for name in dict.fromkeys(of.names) if name not in frozenset(known))
        is_new = np.isin(of.codes, [code for code, name in enumerate(of.names) if name in new])[kept]
        order = of.rows[kept]
        absent = np.full(len(order), np.nan)
        given = {name: data[name][order] if name in data else absent for name in spec.encoding.names}
        numbers, bad = spec.encoding.read(given, is_new)
        numbers = spec.fill_masked(numbers)
        columns = [column_of(target, data) for target in spec.targets]
        targets = np.full((len(order), len(columns)), np.nan)
        has = tuple(name in data and spec.knows(name) for name in columns)
        for number in np.flatnonzero(has).tolist():
            cells = data[columns[number]][order]
            values = read_numbers(cells)
            note_bad(bad, columns[number], cells, values)
            targets[:, number] = np.where(np.isinf(values), np.nan, values)
        return cls(
            spec,
            cell_names,
            order,
            of.codes[kept],
            of.names,
            instants=None if of.instants is None else of.instants[kept],
            stamps=None if of.stamps is None else of.stamps[order],
            position=position[kept],
            run=run[kept],
            numbers=numbers,
            targets=targets,
            has=has,
            bad=dict(sorted(bad.items())),
            may_end=may_end[kept],
            needed=needed[kept],
            new=new,
        )

    @classmethod
    def of_windows(cls, spec: TableSpec, windows: Array, target: int | None = None) -> Table:
        """The rows of windows (n, lookback, n_features) without times, each a series of its own.

        `target` is the number of the feature that is the target's own past; None if none is.
        """
        n, lookback, n_features = windows.shape
        rows, flat = np.arange(n * lookback), windows.reshape(-1, n_features)
        codes, at = rows // lookback, rows % lookback
        targets = np.full((len(rows), 1), np.nan) if target is None else flat[:, [target]]
        plain = plain_encoding([str(number) for number in range(n_features)])
        spec = replace(spec, encoding=plain, targets=spec.targets[:1], time=None, series=None)
        known = flat, targets, (target is not None,), BadCells(), at == lookback - 1, np.ones(len(rows), dtype=bool)
        return cls(spec, CellNames("windows"), rows, codes, (), None, None, rows + (FAR - 1) * codes, codes, *known)

    def find(self, positions: Rows) -> Rows:
        """The rows at some positions, of any shape; -1 where there is none."""
        rows = _next_rows(self.position, positions)
        return np.where(self.position[rows] == positions, rows, -1)

    def lacks_future(self, ends: Rows) -> Flags:
        """Whether windows that end at some rows read known columns in a gap in time, or after the table's end, (n,)."""
        lacks = np.zeros(len(self), dtype=bool)
        for later in {column.later for column in self.spec.encoding.columns} - {0}:
            next_row = _next_rows(self.position, self.position + later)
            after = self.position[next_row] - self.position - later  # 0 of the row itself, more after closed days
            lacks |= (after < 0) | ((after > 0) & (self.run[next_row] != self.run))
        counted = count_before(lacks)
        return np.greater(counted[ends + 1], counted[ends + 1 - self.spec.lookback])

    def cell(self, name: str, row: int) -> str:
        """What a cell is called in errors, with its series if there are many."""
        of = f" ({self.spec.series.name} {self.names[self.codes[row]]})" if self.spec.series and self.names else ""
        return self.cell_names.cell(name, int(self.order[row])) + of

    def times(self, rows: Rows) -> tuple[str, ...]:
        """The times of some rows in the form in which a checkpoint has them; empty without times."""
        return () if self.stamps is None else times_as_text(self.stamps[rows])

    def write_times(self, instants: Array) -> tuple[str, ...]:
        """Instants in the form of the table's times."""
        return write_instants(instants, self.stamps, self.spec.time.zone if self.spec.time else None)

    @cached_property
    def columns(self) -> tuple[AsOf, ...]:
        """The columns that are read, taken later where their future is known, and filled as of each row."""
        encoding, found = self.spec.encoding, list[AsOf]()
        for number, column in enumerate(encoding.columns):
            values, has_row = self.numbers[:, number], np.ones(len(self), dtype=bool)
            if column.later:
                source = self.find(self.position + column.later)
                has_row = source >= 0
                values = np.where(has_row, values[source], np.nan)
            found.append(encoding.fill_column(number, values, self.codes if column.static else self.run, has_row))
        return tuple(found)

    @cached_property
    def calendar(self) -> Array | None:
        """The features of the calendar, (n_rows, n); None without."""
        calendar, time = self.spec.encoding.calendar, self.spec.time
        if calendar is None:
            return None
        if self.instants is None or time is None:
            message = "is missing: the times of the rows, from which the calendar is"
            raise DataError.at(self.cell_names.column(self.cell_names.time), message)
        return calendar.encode(time.local(time.later(self.instants, calendar.later)))

    def check_cells(self) -> None:
        """Raises `DataError` for a bad cell in the needed rows."""
        for row, (name, problem) in self.bad.items():
            if self.needed[row]:
                raise DataError.at(self.cell(name, row), problem)

    def check_times(self, gaps: Gaps = "skip", has_own_rhythm: bool = False) -> None:
        """Raises `DataError` for a repeated or wrong time, or unless skipped a gap, in the needed rows.

        Mostly short steps are wrong too, unless the rhythm is the table's own.
        """
        time, instants, name = self.spec.time, self.instants, self.cell_names.time
        if instants is None or len(self) < 2:
            return
        within = (self.codes[1:] == self.codes[:-1]) & self.needed[1:]
        for row in np.flatnonzero(within & (np.diff(instants) <= 0)).tolist():
            before, at = self.times(np.array([row, row + 1]))
            message = f"must be later than {before} in the row before it, but is {at}"
            if instants[row] == instants[row + 1]:
                message = f"must not repeat a time, but has {at} twice"
            hint = describe_repeated_hour(instants, row + 1) if time and time.dated and time.zone is None else ""
            raise DataError.at(self.cell(name, row + 1), message + hint)
        if time is None:
            return
        steps, within = time.count_steps(instants), within & self.needed[:-1]
        if not has_own_rhythm and 2 * (within & time.is_short(steps)).sum() > within.sum():
            message = f"has mostly steps shorter than those of the training, {time.usual_step}"
            raise DataError.at(self.cell_names.column(name), f"{message}: give rows at that distance")
        for row in np.flatnonzero(within & time.is_gap(steps)).tolist() if gaps == "error" else ():
            before, at = self.times(np.array([row, row + 1]))
            message = f"must have no gap before it, but goes from {before} to {at}"
            raise DataError.at(self.cell(name, row + 1), f"{message}; gaps skip leaves out windows across it")


def refuse_missing(names: Sequence[str], found: Any, what: str) -> None:
    """Raises `DataError` for names that are not among others, after some words."""
    if missing := [name for name in names if name not in found]:
        problems = [Problem(name, "is missing") for name in missing]
        raise DataError(f"{what} {', '.join(map(repr, missing))}", problems)


def _choose_columns(
    spec: TableSpec, frame: Any, cell_names: CellNames, needs: Sequence[str]
) -> tuple[dict[str, Cells], CellNames]:
    """The columns that are read, and what they are called; of a wide table they become those of a long one."""
    series, named = spec.series, (spec.time, spec.series)
    names = {*spec.encoding.names, *needs, *spec.targets, "time", *(column_of(target, ()) for target in spec.targets)}
    names |= {each.name for each in named if each is not None} | {*(series.columns if series else ())}
    data, lacks = read_columns(frame, names), f"{cell_names.table} has no column"
    if series is not None and series.columns and series.name not in data:
        refuse_missing(series.columns, data, lacks)
        cell_names = cell_names._replace(melted=(spec.targets[0], series.columns, len(data[series.columns[0]])))
        data = melt(data, series.columns, series.name, spec.targets[0])
    refuse_missing((*spec.needed, *needs), data, lacks)
    if series is not None and series.name not in data:
        raise DataError.at(cell_names.column(series.name), "is missing: the series that each row is of")
    return data, cell_names


class _Order(NamedTuple):
    """The rows that are read, by series and then by time."""

    rows: Rows  # their numbers in the table as it was given, (n_rows,)
    codes: Rows
    names: tuple[str, ...]
    stamps: Cells | None = None  # of all rows of the table
    instants: Array | None = None
    dated: bool = False
    time: TimeColumn | None = None


def _order_rows(
    spec: TableSpec,
    frame: Any,
    data: Mapping[str, Cells],
    cell_names: CellNames,
    chosen: Selection,
    times: Times | None,
) -> _Order:
    time, labels, rows = spec.time, None, np.arange(len(data[spec.needed[0]]))
    stamps = _find_times(spec, frame, data, cell_names, chosen) if time is not None or chosen.finds_times else None
    if spec.series is not None:
        labels = read_labels(data[spec.series.name], partial(cell_names.cell, spec.series.name))
    if chosen.series is not None:
        rows = _choose_series(labels, chosen.series)
    codes, names = _number_series(None if labels is None else labels[rows], len(rows), stamps is not None)
    if stamps is None:
        by_series = np.argsort(codes, kind="stable")
        return _Order(rows[by_series], codes[by_series], names, time=time)

    def name_cell(row: int) -> str:
        return cell_names.cell(cell_names.time, int(rows[row]))

    times = times or Times.parse(stamps[rows], name_cell)
    step = time.step if time and time.unit == "second" else None
    instants = times.instants(name_cell, time.zone if time else None, codes, step)
    if time is not None and times.dated != time.dated:
        kind = "dates" if time.dated else "numbers"
        raise DataError.at(cell_names.column(cell_names.time), f"must hold {kind}, as in training")
    if time is None and chosen.finds_rhythm:
        time = TimeColumn.of(cell_names.time, instants, codes, times.dated)
    by_series = np.argsort(codes, kind="stable") if chosen.is_ordered else np.lexsort((instants, codes))
    return _Order(rows[by_series], codes[by_series], names, stamps, instants[by_series], times.dated, time)


def _find_times(
    spec: TableSpec, frame: Any, data: Mapping[str, Cells], cell_names: CellNames, chosen: Selection
) -> Cells | None:
    """The times of the rows: the column of the training, or else a column ``time``, if it has times, or an index."""
    name = "time" if spec.time is None else spec.time.name
    is_other = spec.time is None and name in (*spec.encoding.names, *spec.targets)
    if name in data and not is_other and (spec.time is not None or holds_times(data[name])):
        return data[name]
    index = read_index(frame, name) if spec.time is None or spec.time.dated else None
    n_rows, n_times = len(data[spec.needed[0]]), 0 if index is None else len(index[1])
    if index is not None and n_times * (1 if cell_names.melted is None else len(cell_names.melted[1])) == n_rows:
        return np.tile(index[1], n_rows // max(n_times, 1))
    if spec.time is not None and chosen.needs_time:
        raise DataError.at(cell_names.table, f"has no column {name!r}, the times of its rows")
    return None


def _choose_series(labels: Any, series: Sequence[str] | str) -> Rows:
    """The rows of some series."""
    if labels is None:
        raise DataError.at("series", "is given, but the model is of one series")
    wanted, known = [series] if isinstance(series, str) else list(series), dict.fromkeys(labels.tolist())
    for name in wanted:
        if name not in known:
            raise UnknownNameError(f"there is no series {quote(name)}; the series are {list_some([*known], N_NAMED)}")
    return np.flatnonzero(np.isin(labels, wanted))


def _number_series(labels: Any, n_rows: int, has_times: bool) -> tuple[Rows, tuple[str, ...]]:
    """The number of each row's series, in the order in which they begin, and their names.

    Without times, a series ends where the name changes.
    """
    if labels is None:
        return np.zeros(n_rows, dtype=np.int64), ()
    if not has_times:
        changes = np.concatenate([[False], labels[1:] != labels[:-1]])
        return np.cumsum(changes), tuple(labels[np.concatenate([[True], changes[1:]])].tolist())
    known = {name: number for number, name in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([known[name] for name in labels.tolist()], dtype=np.int64), tuple(known)


def _next_rows(position: Rows, wanted: Rows) -> Rows:
    """The first rows at these positions or after them, or else the last row."""
    return np.minimum(np.searchsorted(position, wanted), len(position) - 1)


def _choose_ends(
    position: Rows, run: Rows, of: _Order, spec: TableSpec, chosen: Selection, cell_names: CellNames
) -> tuple[Flags, int]:
    """The rows at which a window that is asked for may end, (n_rows,), and how many of one series must be there.

    Where known columns are read, none may whose newest would be of a closed day, for which no forecast is due.
    """
    first, newest = np.searchsorted(of.codes, of.codes), np.searchsorted(of.codes, of.codes, "right") - 1
    has_future = position + chosen.reach <= position[newest]
    if spec.encoding.later:
        next_row = _next_rows(position, position + spec.encoding.later)
        has_future &= (position[next_row] <= position + spec.encoding.later) | (run[next_row] != run)
    eligible = has_future & (np.arange(len(position)) - first >= spec.lookback - 1)
    if chosen.last is None:
        return eligible, 1
    passed = np.cumsum(eligible)
    after: Rows = passed[newest] - passed  # eligible rows after each, of its series
    if not isinstance(chosen.last, str):
        check_lowest(cell_names.last, chosen.last, 1)
        return eligible & (after < int(chosen.last)), int(chosen.last)
    if (seconds := read_duration(chosen.last)) is None:
        message = f"must be a number of windows, or a duration such as 7d or 36h, but is {quote(chosen.last)}"
        raise DataError.at(cell_names.last, message)
    if of.instants is None or not of.dated:
        message = f"must be a number of windows, as the rows have no dates, but is {quote(chosen.last)}"
        raise DataError.at(cell_names.last, message)
    latest = np.full(len(position), -np.inf)  # of the eligible rows of each series
    np.maximum.at(latest, of.codes[eligible], of.instants[eligible])
    is_recent = (of.instants > latest[of.codes] - seconds) | (after == 0)
    return eligible & is_recent, max(int((has_future & is_recent).sum()), 1)


def _find_needed(may_end: Flags, codes: Rows, spec: TableSpec, chosen: Selection) -> tuple[Flags, Flags]:
    """The rows that windows may read, from the first one's on, and those that act on what is in these, (n_rows,)."""
    rows, first = np.arange(len(codes)), np.full(len(codes), len(codes))
    np.minimum.at(first, codes[may_end], rows[may_end])
    from_first = rows - first[codes] + spec.lookback - 1 + chosen.before
    is_whole = bool(chosen.needs) or any(column.static for column in spec.encoding.columns)
    reach = max(spec.encoding.reach, 1)  # the row before must not have the time of the first
    return from_first >= 0, (from_first >= -reach) | is_whole


def _too_few(spec: TableSpec, n_rows: int, n_wanted: int, chosen: Selection, cell_names: CellNames) -> DataError:
    n = n_wanted + chosen.before
    steps = f"{spec.lookback - 1 + n} for {n} windows" if n > 1 else f"the {spec.lookback} steps of a window"
    if chosen.reach:
        steps += f", and the {chosen.reach} after {'it' if n <= 1 else 'them'}"
        steps += ", of which known columns are read" if chosen.reach == spec.encoding.later else ""
    return DataError.at(cell_names.table, f"has {n_rows} rows, but needs {steps}")
