"""A table as numbered chunks of windows, the same whichever engine explains them."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.errors import DataError, quote
from kanmodel.explain.attribution import LedgerOptions, Method
from kanmodel.explain.baseline import Baseline
from kanmodel.model import Model
from kanmodel.tables.encoding import Encoding, as_cells
from kanmodel.tables.instants import TimeColumn, read_instants, window_ends
from service.batch import PART_WINDOWS, tables


@dataclass(frozen=True)
class Plan:
    """A table to explain, and how. It can be pickled."""

    model: Model  # its features are columns of the table
    table: Path  # a file, or a folder of files
    output: str  # its name, or that of a bound
    time: str | None = None  # the column of time stamps
    segment: str | None = None  # the column that changes at each gap, which no window crosses
    part_windows: int = PART_WINDOWS  # rows of the table per file
    strict: bool = False  # whether a bad row ends the run
    effects: bool = False  # whether to add the effects of removing each feature, and of each alone
    method: Method = "path"  # `shapley` adds Shapley values

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(dict.fromkeys((*self.sources, *filter(None, (self.time, self.segment)))))

    @property
    def has_instants(self) -> bool:
        """Whether the times are read as those of the training."""
        return self.time is not None and self.model.config.time is not None

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns from which the features are made."""
        config = self.model.config
        return config.encoding.names if config.encoding else config.feature_names

    def describe(self) -> dict[str, Any]:
        """Everything that determines the results: a folder is resumed only if all of it is the same."""
        config, unit = self.model.config, self.model.unit_of(self.output)
        described: dict[str, Any] = {"checkpoint": self.model.checkpoint, "output": self.output}
        described |= {"unit": unit, "features": {feature.name: feature.unit for feature in config.features}}
        described["groups"] = {name: list(features) for name, features in config.groups.items()}
        described |= {"lookback": config.lookback, "baseline": Baseline().kind, "tolerance": LedgerOptions().tolerance}
        described |= {"time_column": self.time, "segment_column": self.segment, "part_windows": self.part_windows}
        return described | {"effects": self.effects, "method": self.method}


@dataclass(frozen=True)
class Summary:
    """Counts of one part, or of all parts."""

    windows: int = 0  # explained windows
    lost: int = 0  # windows that are not explained, because of bad rows or because their results are not finite
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
    values: Array  # (n_steps, n_features), original units; the series that the windows are cut from
    ends: NDArray[np.int64]  # index in `values` of the last step of each window, (n,)
    # For each window: `window`, the number from 0 of the row that holds it, or its last step; `time`, `file` and `row`.
    windows: pl.DataFrame
    rejected: pl.DataFrame  # `file`, `row` and `reason` of each bad row
    left_out: Summary  # counts of windows left out because of bad rows or gaps in time
    read: int  # bytes of the table up to the end of the chunk, roughly
    digest: str  # hash of everything that is explained


def read_chunks(plan: Plan, finished: Mapping[int, str]) -> Iterator[Chunk]:
    """Yields the chunks of a table, except the `finished` ones, given with their digests by number.

    Raises as `read_rows`, and DataError if the table has no window, or a finished chunk has another digest now.
    """
    number, n_windows, table = 0, 0, plan.table.name
    for chunk in _cut_chunks(plan):
        number = chunk.number
        n_windows += len(chunk.ends) + chunk.left_out.lost + chunk.left_out.across_gaps
        if number not in finished:
            yield chunk
        elif finished[number] != chunk.digest:
            raise DataError(f"{table} has changed since part {number} was made: choose another output folder")
    if n_windows == 0:
        raise DataError(f"{table} has no window of {plan.model.config.lookback} rows")
    if any(known > number for known in finished):
        raise DataError(f"{table} ends before part {max(finished)}: choose another output folder")


def _cut_chunks(plan: Plan) -> Iterator[Chunk]:
    """Yields the windows of the table, those together that end in the same `part_windows` rows."""
    number, earlier, rows = 0, 0, None  # the next chunk, and rows before it that its windows reach back to
    for read in read_rows(plan):
        rows = read if rows is None else pl.concat([rows, read])
        while len(rows) >= (end := earlier + plan.part_windows):
            yield _cut_chunk(rows[:end], earlier, number, plan)
            number += 1
            earlier = min(end, plan.model.config.lookback - _steps_of(rows, plan))
            rows = rows[end - earlier :]
    if rows is not None and len(rows) > earlier:
        yield _cut_chunk(rows, earlier, number, plan)


def _steps_of(rows: pl.DataFrame, plan: Plan) -> int:  # of each row: one, or `lookback` if it is a window
    return len(rows["values"][0]) // len(plan.model.config.features)


def _cut_chunk(rows: pl.DataFrame, earlier: int, number: int, plan: Plan) -> Chunk:
    """The chunk of the windows that end after the `earlier` rows."""
    lookback, steps = plan.model.config.lookback, _steps_of(rows, plan)
    ends, left_out = np.arange(len(rows)), Summary()
    if steps < lookback:
        segment = [] if plan.segment is None else [rows["segment"].fill_null("").to_numpy().astype(str)]
        ends = window_ends(segment, len(rows), lookback)
        ends, left_out = _leave_out_gaps(rows, ends[ends >= earlier], plan)
    is_whole = _count(rows["reason"].is_not_null().to_numpy(), ends + 1, lookback // steps) == 0
    ends = ends[is_whole]
    time = [] if plan.time is None else [rows["time"][ends]]
    windows = rows[ends].select(pl.Series("window", ends + number * plan.part_windows - earlier), *time, "file", "row")
    rejected = rows[earlier:].filter(pl.col("reason").is_not_null()).select("file", "row", "reason")
    values, ends = rows["values"].to_numpy().reshape(len(rows) * steps, -1), ends * steps + steps - 1
    texts = windows.select("file", "row"), rejected, *(column.to_frame() for column in time)
    hashed = hashlib.sha256("".join(text.write_csv() for text in texts).encode())
    for array in (values, ends, windows["window"].to_numpy()):
        hashed.update(np.ascontiguousarray(array).tobytes())
    left_out += Summary(lost=int((~is_whole).sum()))
    return Chunk(number, values, ends, windows, rejected, left_out, int(rows["read"][-1]), hashed.hexdigest())


def _count(found: NDArray[np.bool_], ends: NDArray[np.int64], length: int) -> Any:
    """How many of the `length` entries before each end are True."""
    total = np.append(0, np.cumsum(found))
    return total[ends] - total[ends - length]


def _leave_out_gaps(rows: pl.DataFrame, ends: NDArray[np.int64], plan: Plan) -> tuple[NDArray[np.int64], Summary]:
    """The ends of the windows that cross no gap in time, if that is known, and the count of the others.

    Raises DataError if most steps of a window are shorter than those of the training, or it repeats a time.
    """
    n_steps, clock = plan.model.config.lookback - 1, plan.model.config.time
    if plan.time is None or clock is None:
        return ends, Summary()
    steps = np.diff(rows["instant"].to_numpy(), append=np.nan)  # to the next row
    is_mostly_short = 2 * _count(clock.is_short(steps), ends, n_steps) > n_steps
    for end in ends[is_mostly_short | (_count(steps == 0, ends, n_steps) > 0)].tolist():
        reason = f"has repeated times, or mostly steps shorter than those of the training, {clock.usual_step}"
        raise DataError(f"{_place(rows, end)}, column {plan.time}: the window that ends here {reason}")
    is_gap = clock.is_gap(steps)
    crosses = _count(is_gap, ends, n_steps) > 0
    if not crosses.any():
        return ends, Summary()
    row = int(np.flatnonzero(is_gap[: ends[crosses.argmax()]])[-1])
    before, after = rows["time"][row : row + 2]
    return ends[~crosses], Summary(across_gaps=int(crosses.sum()), gap=f"{before} to {after}")


def read_rows(plan: Plan) -> Iterator[pl.DataFrame]:
    """Yields the rows of a table in order.

    Columns: ``values``, the steps of a row, one if it is of a series or `lookback`, of n_features each, in original
    units, NaN where they are bad; ``file`` and ``row``, its position, counted as in a spreadsheet; ``reason`` why it is
    rejected, or null; ``read``, bytes of the table up to its end, roughly; ``time`` and ``segment``, if the plan has
    such columns; ``instant``, the time in the unit of the model's, if it has one.

    Raises as `hold_windows`, and DataError if a row is earlier than the one above it, or bad and the plan is strict.
    """
    encoding = plan.model.config.encoding
    for rows in _read_files(plan) if encoding is None else _encode_rows(_read_files(plan), plan, encoding):
        for row in rows["reason"].is_not_null().arg_true() if plan.strict else ():
            raise DataError(f"{_place(rows, row)}, {rows['reason'][row]}")
        yield rows


def _encode_rows(read: Iterator[pl.DataFrame], plan: Plan, encoding: Encoding) -> Iterator[pl.DataFrame]:
    """The rows with features as ``values``: those of `_read_files` are the numbers of their columns' cells.

    Each row is encoded among as many as act on it, however the table is read. The last rows of a table with columns
    whose future is known are read for these alone, and left out.
    """
    held, before = None, 0  # rows that are not yet encoded, after some before them
    for rows in chain(read, [None]):
        if rows is not None:
            held = rows if held is None else pl.concat([held, rows])
        if held is None:
            return
        end = len(held) - (encoding.later if rows is None else encoding.reach)
        if end > before:
            yield _encode(held, plan, encoding)[before:end]
            held, before = held[max(end - encoding.reach, 0) :], min(end, encoding.reach)


def _encode(rows: pl.DataFrame, plan: Plan, encoding: Encoding) -> pl.DataFrame:
    clock, breaks = plan.model.config.time, np.zeros(len(rows), dtype=bool)
    if plan.segment is not None:
        breaks |= rows["segment"].ne_missing(rows["segment"].shift(1)).to_numpy()
    instants = rows["instant"].fill_nan(None).forward_fill().fill_null(0).to_numpy() if plan.has_instants else None
    if instants is not None and clock is not None:
        breaks |= clock.is_gap(np.diff(instants, prepend=instants[0]))
    values = encoding.encode(rows["values"].to_numpy(), instants, np.cumsum(breaks)).values
    reasons = rows["reason"].to_list()
    for row in np.flatnonzero(np.isnan(values).any(axis=1)).tolist():
        if reasons[row] is None:
            feature = plan.model.config.feature_names[int(np.isnan(values[row]).argmax())]
            reasons[row] = " ".join(("column", *encoding.describe_missing(feature, len(rows) - 1 - row)))
    return rows.with_columns(values=values, reason=pl.Series(reasons, dtype=pl.String))


def _read_files(plan: Plan) -> Iterator[pl.DataFrame]:
    """As `read_rows`, but with the numbers of cells as ``values``, if the model has an encoding; bad rows pass."""
    as_windows = hold_windows(plan)
    width = len(plan.columns) * (plan.model.config.lookback if as_windows else 1)
    before = 0
    above: list[pl.DataFrame] = []  # the last row, once there is one
    for path in tables.find_files(plan.table):
        read = before
        for frame in tables.read_frames(path, plan.columns, width):
            until = np.linspace(read, before + frame.read, len(frame.cells) + 1)[1:]
            rows = _parse(frame, plan, as_windows).with_columns(file=pl.lit(path.name), read=until)
            marks = pl.concat([row.drop("values") for row in (*above, rows)])
            if plan.has_instants and not as_windows:  # which are in order where local times are not
                marks = marks.with_columns(time=marks["instant"].fill_nan(None))
            row = None if plan.time is None else tables.find_disorder(marks, plan.segment is not None)
            if row is not None:
                raise DataError(f"{_place(marks, row)}, column {plan.time} {tables.DISORDER}")
            above, read = [rows[-1:]], before + frame.read
            yield rows
        before += path.stat().st_size


def _place(rows: pl.DataFrame, row: int) -> str:
    return f"{rows['file'][row]}, row {rows['row'][row]}"


def hold_windows(plan: Plan) -> bool:
    """Whether each row of the table is a window; reads the schema of every file.

    Raises as `tables.read_schema`, and DataError if rows and windows, or types of times, are mixed.
    """
    by_form: dict[bool, str] = {}  # a place for lists, and one for single values
    by_time: dict[str, str] = {}
    for path in tables.find_files(plan.table):
        schema = tables.read_schema(path, plan.columns, tuple(filter(None, (plan.time, plan.segment))))
        for name in plan.sources:
            if plan.model.config.encoding is not None and schema[name].is_nested():
                raise DataError(f"column {name} of {path.name} holds {schema[name]}, but this model reads rows")
            by_form.setdefault(isinstance(schema[name], pl.List | pl.Array), f"column {name} of {path.name}")
        if plan.time is not None:
            by_time.setdefault(str(schema[plan.time]), path.name)
    if len(by_form) > 1:
        raise DataError(f"{by_form[True]} holds lists, but {by_form[False]} single values, so they are not one table")
    if len(by_time) > 1:
        (kind, file), (other, another) = list(by_time.items())[:2]
        raise DataError(f"column {plan.time} is {kind} in {file}, but {other} in {another}")
    return True in by_form


def _parse(frame: tables.Frame, plan: Plan, as_windows: bool) -> pl.DataFrame:
    """The columns of `read_rows`, except ``file`` and ``read``."""
    if (encoding := plan.model.config.encoding) is not None:
        values, bad = encoding.read({name: tables.parse_cells(frame.cells[name]) for name in encoding.names})
        reasons = {row: f"column {name} {problem}" for row, (name, problem) in bad.items()}
    else:
        values, reasons = _read_values(frame.cells, plan, as_windows)
    columns = {"time": frame.cells[plan.time]} if plan.time is not None else {}
    if plan.segment is not None:
        columns["segment"] = frame.cells[plan.segment].cast(pl.String)
    for column in columns.values():
        for row in column.is_null().arg_true():
            reasons.setdefault(row, f"column {column.name} is empty")
    if plan.has_instants and not as_windows:
        zone = encoding.zone if encoding else None
        columns["instant"] = _read_instants(columns["time"], plan.model.config.time, reasons, zone)  # type: ignore[arg-type]
    reason = pl.Series([reasons.get(row) for row in range(len(values))], dtype=pl.String)
    numbers = np.arange(len(values)) + frame.first_row
    return pl.DataFrame({"values": values, "row": numbers, "reason": reason, **columns})


def _read_values(cells: pl.DataFrame, plan: Plan, as_windows: bool) -> tuple[Array, dict[int, str]]:
    """(n, steps * n_features), and the reasons for rejected rows, by index."""
    features, steps = plan.model.config.feature_names, plan.model.config.lookback if as_windows else 1
    values = np.full((len(cells), steps, len(features)), np.nan)
    for number, name in enumerate(features):
        column, fits = cells[name], np.ones(len(cells), dtype=bool)
        if as_windows:
            column = column.arr.to_list() if column.dtype == pl.Array else column
            fits = (column.list.len() == steps).fill_null(False).to_numpy()
            column = column.filter(pl.Series(fits)).explode()
        values[fits, :, number] = tables.parse_numbers(column).to_numpy().reshape(-1, steps)
    reasons = {}
    for row in np.flatnonzero(~np.isfinite(values).all(axis=(1, 2))).tolist():
        step, number = np.argwhere(~np.isfinite(values[row]))[0].tolist()
        name, cell = features[number], cells[features[number]][row]
        if not as_windows or cell is None:
            reasons[row] = f"column {name} {tables.describe_cell(cell)}"
        elif len(cell) != steps:
            reasons[row] = f"column {name} must hold {steps} numbers, but holds {len(cell)}"
        else:
            reasons[row] = f"column {name}[{step}] {tables.describe_cell(cell[step])}"
    return values.reshape(len(values), steps * len(features)), reasons


def _read_instants(times: pl.Series, clock: TimeColumn, reasons: dict[int, str], zone: str | None) -> pl.Series:
    """Times as numbers; NaN where a cell is not a time as in training, which is a reason to reject its row."""
    instants = np.full(len(times), np.nan)
    known = times.is_not_null().arg_true().to_list()
    for rows in (known, *([row] for row in known)):  # together, or if that fails one by one
        with suppress(DataError):
            found, dated = read_instants(as_cells(times[rows]), str, zone)
            instants[rows] = found if dated == clock.dated else np.nan
            if rows is known and dated == clock.dated:
                break
    kind = "a date" if clock.dated else "a number"
    for row in set(known).intersection(np.flatnonzero(np.isnan(instants)).tolist()):
        reasons.setdefault(row, f"column {times.name} must be {kind}, as in training, but is {quote(times[row])}")
    return pl.Series(instants)
