"""A table as numbered chunks of windows, the same whichever engine explains them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import polars as pl

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import Baseline
from kanmodel.attribution.explanation import Method
from kanmodel.attribution.ledger import LedgerOptions
from kanmodel.errors import DataError, quote
from kanmodel.model import Model
from kanmodel.tables.encoding import Rows
from kanmodel.tables.frames import Cells, as_cells, is_blank
from kanmodel.tables.instants import read_instants
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.table import CellNames, Selection, Table, TableSpec
from kanmodel.tables.windows import Windows
from service.batch import PART_WINDOWS, PLAIN, Csv, tables

LISTS = "windows"  # the cells of rows that are windows
CLOCK_CHANGE = 3 * 3600  # seconds of rows from which one sees whether a local time is there for the second time


@dataclass(frozen=True)
class Plan:
    """A table to explain, and how. It can be pickled."""

    model: Model  # its features are columns of the table
    table: Path  # a file, or a folder of files
    output: str  # its name, or that of a bound
    time: str | None = None  # the column of time stamps
    series: tuple[str, ...] = ()  # names of the series that are explained; empty for all
    part_windows: int = PART_WINDOWS  # rows of the table per file
    strict: bool = False  # whether a bad row ends the run
    effects: bool = False  # whether to add the effects of removing each feature, and of each alone
    method: Method = "path"  # `shapley` adds Shapley values
    csv: Csv = PLAIN  # how its files are written that are csv
    rhythm: TimeColumn | None = None  # of the times, if the model was trained without

    @cached_property
    def spec(self) -> TableSpec:
        """What the columns are, those of the training; without times unless the plan has their column."""
        spec = self.model.config.table
        return replace(spec, time=replace(spec.time, name=self.time) if spec.time and self.time else self.rhythm)

    def find_rhythm(self) -> Self:
        """The plan with the rhythm of the table's times, as `Table.read` finds it, if the model was trained without.

        Times of which one cannot be read have none.
        """
        if self.time is None or self.model.config.time is not None:
            return self
        series, parts, label = self.spec.series, list[pl.DataFrame](), None
        with suppress(DataError):  # of a file that cannot be read, which is named when its rows are
            for path in tables.find_files(self.table):
                label = series.name if series and series.name in tables.read_schema(path, csv=self.csv) else None
                names = [self.time] if label is None else [self.time, label]
                for frame in tables.read_frames(path, names, len(names), self.csv):
                    parts.append(frame.cells)
        with suppress(DataError):
            cells = {column.name: as_cells(column) for column in pl.concat(parts)} if parts else {}
            if not cells:
                return self
            codes = None if label is None else cells[label].astype(str)
            name_cell = partial(CellNames(self.table.name, self.time).cell, self.time)
            instants, dated = read_instants(cells[self.time], name_cell)
            return replace(self, rhythm=TimeColumn.of(self.time, instants, codes, dated))
        return self

    def find_columns(self, schema: Mapping[str, Any]) -> list[str]:
        """The columns of a file that are read: of a wide table those with the target's values in place of it."""
        names, series = self.spec.encoding.names, self.spec.series
        if series is not None and series.columns and series.name not in schema:
            names = (*(name for name in names if name != self.spec.targets[0]), *series.columns)
        elif series is not None:
            names = (*names, series.name)
        return list(dict.fromkeys((*names, *filter(None, [self.time]))))

    def describe(self) -> dict[str, Any]:
        """Everything that determines the results: a folder is resumed only if all of it is the same."""
        config, unit = self.model.config, self.model.unit_of(self.output)
        described: dict[str, Any] = {"checkpoint": self.model.checkpoint, "output": self.output}
        described |= {"unit": unit, "features": {feature.name: feature.unit for feature in config.features}}
        described["groups"] = {name: list(features) for name, features in config.groups.items()}
        described |= {"lookback": config.lookback, "baseline": Baseline().kind, "tolerance": LedgerOptions().tolerance}
        described |= {"time_column": self.time, "series": [*self.series], "part_windows": self.part_windows}
        return described | {"effects": self.effects, "method": self.method}


@dataclass(frozen=True)
class Summary:
    """Counts of one part, or of all parts."""

    windows: int = 0  # explained windows
    lost: int = 0  # windows that are not explained, for a bad or missing value, or since their results are not finite
    rejected: int = 0  # entries in the list of rejected rows
    unconverged: int = 0  # windows whose ledgers have not converged
    across_gaps: int = 0  # windows that are left out because they cross a gap in time
    gap: str = ""  # the times around one such gap

    def __add__(self, other: Self) -> Self:
        counts = {name: count + getattr(other, name) for name, count in vars(self).items() if name != "gap"}
        gaps = [gap for gap in (self.gap, other.gap) if gap]  # parts end in any order: the earliest
        return replace(self, **counts, gap=min(gaps, default=""))


@dataclass(frozen=True)
class Chunk:
    """Windows that are explained together and written to one file."""

    number: int  # from 0
    values: Array  # (n_rows, n_features), original units; the rows of all windows
    index: Rows  # (n, lookback): the rows of each window in `values`, oldest first
    # For each window: `window`, the number from 0 of the row that holds it, or its last step; `series`, `time`, `file`
    # and `row`.
    windows: pl.DataFrame
    rejected: pl.DataFrame  # `file`, `row` and `reason` of each bad row
    left_out: Summary  # counts of windows left out because of bad rows or gaps in time
    read: int  # bytes of the table up to the end of the chunk, roughly
    digest: str  # hash of everything that is explained


@dataclass(frozen=True)
class Stretch:
    """Some rows of the table, in order."""

    cells: Mapping[str, Cells]  # the columns by name
    # For each row: `window`, its number from 0; `file` and `row`, its position, counted as in a spreadsheet; `reason`
    # why it cannot be read, or null; `read`, bytes of the table up to its end, roughly; `time`, if the plan has it.
    about: pl.DataFrame

    def __len__(self) -> int:
        return len(self.about)

    def take(self, rows: Any) -> Self:
        """Some of the rows: a slice, or their numbers."""
        return replace(self, cells={name: of[rows] for name, of in self.cells.items()}, about=self.about[rows])

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Parts of a table, one after another."""
        cells = {name: np.concatenate([part.cells[name] for part in parts]) for name in parts[0].cells}
        return cls(cells, pl.concat([part.about for part in parts]))

    @cached_property
    def usable(self) -> Rows:
        """The rows that can be read."""
        return np.flatnonzero(self.about["reason"].is_null().to_numpy())

    def name(self, row: int) -> str:
        """``rows.csv, row 17``."""
        file, number = self.about.select("file", "row").row(row)
        return f"{file}, row {number}"


def read_chunks(plan: Plan, finished: Mapping[int, str]) -> Iterator[Chunk]:
    """Yields the chunks of a table, except the `finished` ones, given with their digests by number.

    Raises as `hold_windows`, `Table.read` and `Windows.cut`; and DataError if a row is bad and the plan is strict, the
    table has no window, or a finished chunk has another digest now.
    """
    number, n_windows, table = 0, 0, plan.table.name
    for chunk in _cut_lists(plan) if hold_windows(plan) else _cut_rows(plan.find_rhythm()):
        number = chunk.number
        n_windows += len(chunk.index) + chunk.left_out.lost + chunk.left_out.across_gaps + len(chunk.rejected)
        for file, row, reason in chunk.rejected.rows() if plan.strict else ():
            raise DataError(f"{file}, row {row}, {reason}")
        if number not in finished:
            yield chunk
        elif finished[number] != chunk.digest:
            raise DataError(f"{table} has changed since part {number} was made: choose another output folder")
    if n_windows == 0:
        raise DataError(f"{table} has no window of {plan.model.config.lookback} rows")
    if any(known > number for known in finished):
        raise DataError(f"{table} ends before part {max(finished)}: choose another output folder")


def _cut_lists(plan: Plan) -> Iterator[Chunk]:
    """Yields the rows of a table that are windows, `part_windows` together."""
    lookback = plan.spec.lookback
    for number, (near, start, end) in enumerate(_walk(plan, _read_files(plan, as_windows=True), 1, 1)):
        instants = np.zeros(0)
        with suppress(DataError):  # times that cannot be read have no order
            instants = read_instants(as_cells(near.about["time"]), str)[0] if plan.time else instants
        for row in np.flatnonzero(np.diff(instants) < 0).tolist():
            message = "is earlier than the row above it, but rows must be ordered from oldest to newest"
            raise DataError(f"{near.name(row + 1)}, column {plan.time} {message}")
        rows = near.take(slice(start, end))
        values = rows.cells[LISTS][rows.usable].reshape(len(rows.usable) * lookback, -1)
        index = np.arange(len(values)).reshape(-1, lookback)
        left_out = Summary(lost=len(rows) - len(index))
        yield _make_chunk(number, values, index, _name_windows(rows.about[rows.usable]), rows.about, left_out)


def _cut_rows(plan: Plan) -> Iterator[Chunk]:
    """Yields the windows of a table whose rows are steps.

    Those of one series that end in `part_windows` rows are cut together, from these and the rows that act on them. Of
    many series the whole table is read, and each chunk has the windows that end in as many rows by series and time.
    """
    spec, read = plan.spec, _read_files(plan, as_windows=False)
    if spec.series is not None:
        rows = Stretch.join(list(read) or [Stretch({}, pl.DataFrame({"reason": []}))])
        unread = rows.about.filter(pl.col("reason").is_not_null())
        if len(known := rows.take(rows.usable)):
            windows = _cut(plan, known)
            for number, first in enumerate(range(0, len(windows.table), plan.part_windows)):
                own = np.arange(first, min(first + plan.part_windows, len(windows.table)))
                yield _choose(number, windows, own, known.about, unread)
                unread = unread[:0]  # those that cannot be read are listed once
        return
    after = spec.encoding.later + bool(spec.encoding.later)
    before = spec.lookback + after + spec.encoding.reach
    if spec.time is not None and spec.time.zone is not None:
        before += 2 + (ceil(CLOCK_CHANGE / spec.time.step) if spec.time.unit == "second" else 0)
    least = spec.lookback + spec.encoding.later
    for number, (rows, start, end) in enumerate(_walk(plan, read, before, after, least)):
        unread = rows.about[start:end]
        if len(known := rows.take(rows.usable)):
            windows = _cut(plan, known)
            is_own = (rows.usable >= start) & (rows.usable < end)
            yield _choose(number, windows, np.flatnonzero(is_own[windows.table.order]), known.about, unread)
        else:
            empty = np.empty((0, len(spec.encoding.features))), np.empty((0, spec.lookback), dtype=np.int64)
            yield _make_chunk(number, *empty, _name_windows(unread[:0]), unread, Summary())


def _walk(
    plan: Plan, read: Iterator[Stretch], before: int, after: int, least: int = 1
) -> Iterator[tuple[Stretch, int, int]]:
    """Yields each `part_windows` rows among so many usable ones before and after them, with their first and end.

    Together they are at least so many, unless the table has fewer.
    """
    held, start = None, 0
    for rows in chain(read, [None]):
        if rows is not None:
            held = rows if held is None else Stretch.join([held, rows])
        while held is not None and len(held) > start:
            full = start + plan.part_windows
            end = min(full, len(held))
            earlier, later = held.usable[held.usable < end], held.usable[held.usable >= end]
            extra = max(after, least - len(earlier))
            if full <= len(held) and len(later) >= extra:
                yield held.take(slice(max(end, int(held.usable[len(earlier) + extra - 1]) + 1))), start, end
            elif rows is None:
                yield held, start, end
            else:
                break
            kept = int(earlier[-before]) if len(earlier) >= before else 0
            held, start = held.take(slice(kept, None)), end - kept


def _cut(plan: Plan, rows: Stretch) -> Windows:
    """The windows of a stretch; cells that cannot be used are missing."""
    cell_names = CellNames(plan.table.name, plan.time or "time", kind="file", name_row=rows.name)
    chosen = Selection(reach=plan.spec.encoding.later, series=plan.series or None, is_ordered=True)
    table = Table.read(plan.spec, rows.cells, cell_names, chosen)
    return Windows.cut(table, strict=False)


def _choose(number: int, windows: Windows, own: Rows, about: pl.DataFrame, unread: pl.DataFrame) -> Chunk:
    """The chunk of the windows that end in some rows of their table.

    Args:
        number: its number.
        windows: those of a stretch.
        own: the rows of the table.
        about: those of the stretch.
        unread: rows among which those that cannot be read are listed too.
    """
    table = windows.table
    asked = own[table.may_end[own]]
    holds_gap = table.run[asked] != table.run[asked - windows.lookback + 1]
    crosses, gap = holds_gap | table.lacks_future(asked), ""
    if crosses.any():
        first = int(crosses.argmax())
        side: Literal["left", "right"] = "left" if holds_gap[first] else "right"  # the gap begins its run, or ends it
        before = int(np.searchsorted(table.run, table.run[asked[first]], side)) - 1
        gap = " to ".join(table.times(np.array([before, before + 1])))
    first, last = np.searchsorted(windows.ends, [own[0], own[-1] + 1]) if len(own) else (0, 0)
    chosen = windows.choose(slice(first, last))
    used, index = np.unique(chosen.index(), return_inverse=True)
    named = _name_windows(about[table.order[chosen.ends] % len(about)], chosen.series)
    found = about[table.order[own] % len(about)].with_columns(reason=pl.Series(_find_bad(table, own), dtype=pl.String))
    left_out = Summary(lost=len(asked) - len(chosen) - int(crosses.sum()), across_gaps=int(crosses.sum()), gap=gap)
    rejected = pl.concat([unread, found]).sort("window", maintain_order=True)
    return _make_chunk(number, chosen.rows[used], index.reshape(-1, windows.lookback), named, rejected, left_out)


def _find_bad(table: Table, own: Rows) -> list[str | None]:
    """Why rows have no value for windows that hold them; of a gap that is too long, the first that is not filled."""
    encoding, reasons = table.spec.encoding, dict(table.bad)
    for of, column in zip(encoding.columns, table.columns, strict=True):
        source = table.find(table.position + of.later)
        for row in own[column.missing[own] & np.isnan(column.open[own])].tolist():
            if int(source[row]) not in table.bad:
                problem = encoding.describe_missing(of, bool(source[row] >= 0))
                reasons.setdefault(row, (of.name, problem))

    def describe(row: int) -> str | None:
        if row not in reasons:
            return None
        name, problem = reasons[row]
        return f"column {table.cell_names.find(name, int(table.order[row]))[0]} {problem}"

    return [describe(row) for row in own.tolist()]


def _make_chunk(
    number: int, values: Array, index: Rows, windows: pl.DataFrame, about: pl.DataFrame, left_out: Summary
) -> Chunk:
    """A chunk, of whose rows those with a reason are rejected."""
    rejected = about.filter(pl.col("reason").is_not_null()).select("file", "row", "reason")
    hashed = hashlib.sha256("".join(text.write_csv() for text in (windows, rejected)).encode())
    for array in (values, index):
        hashed.update(np.ascontiguousarray(array).tobytes())
    read = int(about["read"].to_numpy().max())
    return Chunk(number, values, index, windows, rejected, left_out, read, hashed.hexdigest())


def _name_windows(about: pl.DataFrame, series: Sequence[str] | None = None) -> pl.DataFrame:
    """`Chunk.windows` of the rows at which they end."""
    named = about.select("window", pl.col("^time$"), "file", "row")
    return named if series is None else named.insert_column(1, pl.Series("series", series, dtype=pl.String))


def hold_windows(plan: Plan) -> bool:
    """Whether each row of the table is a window; reads the schema of every file.

    Raises as `tables.read_schema`, and DataError if rows and windows, or types of times, are mixed.
    """
    by_form: dict[bool, str] = {}  # a place for lists, and one for single values
    by_time: dict[str, str] = {}
    for path in tables.find_files(plan.table):
        columns = plan.find_columns(tables.read_schema(path, csv=plan.csv))
        schema = tables.read_schema(path, columns, [plan.time] if plan.time else [], plan.csv)
        for name in columns:
            form = schema[name].is_nested()
            if plan.model.config.encoding is not None and form:
                raise DataError(f"column {name} of {path.name} holds {schema[name]}, but this model reads rows")
            if name != plan.time:
                by_form.setdefault(isinstance(schema[name], pl.List | pl.Array), f"column {name} of {path.name}")
        if plan.time is not None:
            by_time.setdefault(str(schema[plan.time]), path.name)
    if len(by_form) > 1:
        raise DataError(f"{by_form[True]} holds lists, but {by_form[False]} single values, so they are not one table")
    if len(by_time) > 1:
        (kind, file), (other, another) = list(by_time.items())[:2]
        raise DataError(f"column {plan.time} is {kind} in {file}, but {other} in {another}")
    return True in by_form


def _read_files(plan: Plan, as_windows: bool) -> Iterator[Stretch]:
    """Yields the rows of a table in order, with the columns of `Table.read`, or windows (n, lookback * n_features).

    Raises as `tables.read_frames`.
    """
    spec, before, n_rows, special = plan.spec, 0, 0, tables.list_texts(plan.spec)
    for path in tables.find_files(plan.table):
        read, columns = before, plan.find_columns(tables.read_schema(path, csv=plan.csv))
        width = len(columns) * (spec.lookback if as_windows else 1)
        for frame in tables.read_frames(path, columns, width, plan.csv):
            n, cells = len(frame.cells), dict[str, Cells]()
            times = None if plan.time is None else frame.cells[plan.time]
            about: dict[str, Any] = {"window": np.arange(n) + n_rows, "row": np.arange(n) + frame.first_row}
            about |= {"read": np.linspace(read, before + frame.read, n + 1)[1:]}
            if as_windows:
                cells[LISTS], reasons = _read_lists(frame.cells, plan)
            else:
                cells = tables.as_columns(frame.cells, special)
                if spec.time is None and plan.time not in spec.encoding.names:
                    cells.pop(plan.time or "", None)  # times without a rhythm are labels
                reasons = {} if spec.time is None else _find_unreadable(cells, spec)
            reason = pl.Series([reasons.get(row) for row in range(n)], dtype=pl.String)
            marks = {} if times is None else {"time": times}
            yield Stretch(cells, pl.DataFrame({**about, **marks, "file": [path.name] * n, "reason": reason}))
            n_rows, read = n_rows + n, before + frame.read
        before += path.stat().st_size


def _read_lists(cells: pl.DataFrame, plan: Plan) -> tuple[Array, dict[int, str]]:
    """Windows of a row each, (n, lookback * n_features), and the reasons for rejected rows, by index."""
    features, steps = plan.model.config.feature_names, plan.spec.lookback
    values = np.full((len(cells), steps, len(features)), np.nan)
    for number, name in enumerate(features):
        column = cells[name].arr.to_list() if cells[name].dtype == pl.Array else cells[name]
        fits = (column.list.len() == steps).fill_null(False).to_numpy()
        column = column.filter(pl.Series(fits)).explode()
        values[fits, :, number] = tables.parse_numbers(column).to_numpy().reshape(-1, steps)
    reasons = {}
    for row in np.flatnonzero(~np.isfinite(values).all(axis=(1, 2))).tolist():
        step, number = np.argwhere(~np.isfinite(values[row]))[0].tolist()
        name, cell = features[number], cells[features[number]][row]
        if cell is None:
            reasons[row] = f"column {name} {tables.describe_cell(cell)}"
        elif len(cell) != steps:
            reasons[row] = f"column {name} must hold {steps} numbers, but holds {len(cell)}"
        else:
            reasons[row] = f"column {name}[{step}] {tables.describe_cell(cell[step])}"
    return values.reshape(len(values), steps * len(features)), reasons


def _find_unreadable(cells: Mapping[str, Cells], spec: TableSpec) -> dict[int, str]:
    """Why rows have no place in a table: their time is not one as in training, or their series has no name."""
    time, reasons = spec.time, dict[int, str]()
    if time is None:
        return reasons
    if spec.series is not None and spec.series.name in cells:
        blank = [row for row, cell in enumerate(cells[spec.series.name].tolist()) if is_blank(cell)]
        reasons = dict.fromkeys(blank, f"column {spec.series.name} is empty")
    column, kind = cells[time.name], "a date" if time.dated else "a number"
    with suppress(DataError):  # all together, or else one by one
        if read_instants(column, str, time.zone)[1] == time.dated:
            return reasons
    for row, cell in enumerate(column.tolist()):
        with suppress(DataError):
            if read_instants(column[[row]], str, time.zone)[1] == time.dated:
                continue
        wrong = "is empty" if is_blank(cell) else f"must be {kind}, as in training, but is {quote(cell)}"
        reasons.setdefault(row, f"column {time.name} {wrong}")
    return reasons
