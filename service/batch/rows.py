"""Frames -> arrays of numbers, with the reasons for rejected rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kanmodel.data import Array, TimeColumn, read_instants
from kanmodel.errors import DataError, quote
from service.batch.plan import Plan
from service.batch.sources import Frame, find_files, read_frames, read_types
from service.batch.tables import DISORDER, describe_cell, find_disorder, parse_numbers

TIME, SEGMENT, INSTANT = "time", "segment", "instant"  # columns of `Rows.marks`, whatever the names in the table are


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of the table.

    Attributes:
        values: (n, steps, n_features), original units: one step a row of a series, `lookback` where a row is a window;
            NaN where a row is bad.
        marks: one row for each: ``file`` and ``row``, its position, counted as in a spreadsheet; ``reason`` why it is
            rejected, null if it is not; ``read``, bytes of the table up to its end, roughly; ``time`` and ``segment``,
            if the plan has such columns; ``instant``, the time in the unit of the plan's clock, if it has one.
    """

    values: Array
    marks: pl.DataFrame

    def __len__(self) -> int:
        return len(self.marks)

    def take(self, first: int, last: int) -> Rows:
        """The rows from `first` to `last`."""
        return Rows(self.values[first:last], self.marks[first:last])

    @staticmethod
    def join(parts: Sequence[Rows]) -> Rows:
        """Concatenates rows."""
        if len(parts) == 1:
            return parts[0]
        return Rows(np.concatenate([rows.values for rows in parts]), pl.concat([rows.marks for rows in parts]))


def read_rows(plan: Plan) -> Iterator[Rows]:
    """Yields the rows of a table in order, parsed to numbers.

    Raises:
        DataError: a file cannot be read, rows and windows are mixed, or a row is earlier than the one above it; a row
            is bad, and the plan is strict.
        UnknownNameError: a column does not exist.
    """
    files = find_files(plan.table)
    holds_windows = hold_windows(plan)
    width, before, last = len(plan.columns) * (plan.lookback if holds_windows else 1), 0, None
    for path in files:
        read = 0
        for frame in read_frames(path, plan.columns, width):
            rows = _read(frame, plan, holds_windows, (before + read, before + frame.read))
            _refuse_disorder(rows, last, plan)
            if plan.strict:
                _refuse_bad(rows)
            last, read = rows.marks[-1:], frame.read
            yield rows
        before += path.stat().st_size


def hold_windows(plan: Plan) -> bool:
    """Whether each row of the table is a window; reads the schema of every file.

    Raises:
        DataError: a file cannot be read, rows and windows are mixed, or a column has an unusable type.
        UnknownNameError: a column does not exist.
    """
    files = find_files(plan.table)
    kinds = [_holds_windows(path, plan) for path in files]
    if any(kinds) and not all(kinds):
        windows, rows = files[kinds.index(True)], files[kinds.index(False)]
        raise DataError(f"{windows.name} holds windows, but {rows.name} rows of a series, so they are not one table")
    if plan.time is not None:
        times = [read_types(path, [plan.time])[0] for path in files]
        for path, kind in zip(files, times, strict=True):
            if kind != times[0]:
                raise DataError(f"column {plan.time} is {times[0]} in {files[0].name}, but {kind} in {path.name}")
    return all(kinds)


def _holds_windows(path: Path, plan: Plan) -> bool:
    names = [name for name in (plan.time, plan.segment) if name is not None]
    for name, kind in zip(names, read_types(path, names), strict=True):
        if kind.is_nested():
            raise DataError(f"column {name} of {path.name} holds {kind}, not single values")
    lists = [isinstance(kind, pl.List | pl.Array) for kind in read_types(path, plan.features)]
    if any(lists) and not all(lists):
        a, b = (plan.features[lists.index(holds)] for holds in (True, False))
        raise DataError(f"{path.name} has lists in column {a}, but not in column {b}")
    return all(lists)


def _read(frame: Frame, plan: Plan, holds_windows: bool, read: tuple[int, int]) -> Rows:
    columns = [frame.frame[name] for name in plan.features]
    values, reasons = (_read_windows if holds_windows else _read_series)(columns, plan.lookback)
    marks = {
        "file": pl.repeat(frame.file, len(values), eager=True),
        "row": pl.int_range(frame.first_row, frame.first_row + len(values), eager=True),
        "read": pl.Series(np.linspace(*read, len(values) + 1)[1:]),
    }
    if plan.time is not None:
        marks[TIME] = frame.frame[plan.time]
    if plan.segment is not None:
        marks[SEGMENT] = frame.frame[plan.segment].cast(pl.String)
    for name, kind in ((plan.time, TIME), (plan.segment, SEGMENT)):
        if name is not None:
            for row in np.flatnonzero(marks[kind].is_null()).tolist():
                reasons.setdefault(row, f"column {name} is empty")
    if plan.clock is not None and not holds_windows:
        marks[INSTANT] = _read_instants(marks[TIME], plan.clock, reasons)
    values[list(reasons)] = np.nan
    reason = pl.Series([reasons.get(row) for row in range(len(values))], dtype=pl.String)
    return Rows(values, pl.DataFrame({**marks, "reason": reason}))


def _read_instants(times: pl.Series, clock: TimeColumn, reasons: dict[int, str]) -> pl.Series:
    """Times as numbers; NaN where a cell is not a time as in training, which is a reason to reject its row."""
    instants = np.full(len(times), np.nan)
    known = np.flatnonzero(times.is_not_null().to_numpy())

    def read(rows: NDArray[np.int64]) -> bool:
        try:
            found, dated = read_instants(times[rows].to_numpy(), clock.name)
        except DataError:
            return False
        instants[rows] = found
        return dated == clock.dated

    if len(known) and not read(known):
        for row in known.tolist():  # one by one
            if not read(np.array([row])):
                instants[row] = np.nan
                kind = "a date" if clock.dated else "a number"
                reasons.setdefault(
                    row, f"column {times.name} must be {kind}, as in training, but is {quote(times[row])}"
                )
    return pl.Series(instants)


def _read_series(columns: Sequence[pl.Series], lookback: int) -> tuple[Array, dict[int, str]]:
    """(n, 1, n_features), and the reasons for rejected rows, by index."""
    values = np.stack([parse_numbers(column).to_numpy().astype(np.float64) for column in columns], axis=1)
    reasons = {}
    for row, number in _first_bad(values):
        column = columns[number]
        reasons[row] = f"column {column.name} {describe_cell(column[row])}"
    return values[:, None], reasons


def _read_windows(columns: Sequence[pl.Series], lookback: int) -> tuple[Array, dict[int, str]]:
    """(n, lookback, n_features), and the reasons for rejected rows, by index."""
    lists = [column.arr.to_list() if column.dtype == pl.Array else column for column in columns]
    lengths = np.stack([column.list.len().fill_null(-1).to_numpy().astype(np.int64) for column in lists], axis=1)
    values = np.full((len(lengths), lookback, len(lists)), np.nan)
    fits = (lengths == lookback).all(axis=1)
    reasons = {}
    for row, number in _first_true(lengths != lookback):
        length = lengths[row, number]
        wrong = "is empty" if length < 0 else f"must hold {lookback} numbers, but holds {length}"
        reasons[row] = f"column {lists[number].name} {wrong}"
    kept = [column.filter(pl.Series(fits)).explode() for column in lists]
    if fits.any():
        numbers = [parse_numbers(column).to_numpy().astype(np.float64) for column in kept]
        values[fits] = np.stack(numbers, axis=1).reshape(-1, lookback, len(lists))
    rows = np.flatnonzero(fits)
    for index, place in _first_bad(values[fits].reshape(len(rows), lookback * len(lists))):
        step, number = divmod(place, len(lists))
        reasons[int(rows[index])] = (
            f"column {lists[number].name}[{step}] {describe_cell(kept[number][index * lookback + step])}"
        )
    return values, dict(sorted(reasons.items()))


def _first_bad(values: Array) -> Iterator[tuple[int, int]]:
    return _first_true(~np.isfinite(values))


def _first_true(wrong: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yields each row that has a True, with the first column that does."""
    rows = np.flatnonzero(wrong.any(axis=1))
    return zip(rows.tolist(), wrong[rows].argmax(axis=1).tolist(), strict=True)


def _refuse_disorder(rows: Rows, last: pl.DataFrame | None, plan: Plan) -> None:
    if plan.time is None:
        return
    marks = rows.marks if last is None else pl.concat([last, rows.marks])
    segment = None if plan.segment is None else marks[SEGMENT].fill_null("").to_numpy().astype(str)
    row = find_disorder(marks[TIME], segment)
    if row is not None:
        raise DataError(f"{place_of(marks, row)}, column {plan.time} {DISORDER}")


def _refuse_bad(rows: Rows) -> None:
    bad = rows.marks["reason"].is_not_null().arg_true()
    if len(bad):
        raise DataError(f"{place_of(rows.marks, bad[0])}, {rows.marks['reason'][bad[0]]}")


def place_of(marks: pl.DataFrame, row: int) -> str:
    """File and row of a row, for errors."""
    return f"{marks['file'][row]}, row {marks['row'][row]}"
