"""A table as numbered chunks of windows, the same whichever engine explains them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kanmodel.data import Array, TimeColumn, read_instants, window_ends
from kanmodel.errors import DataError, quote
from kanmodel.explain.attribution import LedgerOptions
from kanmodel.explain.baseline import Baseline
from kanmodel.model import Model
from service.batch import PART_WINDOWS
from service.batch.tables import (
    DISORDER,
    Frame,
    describe_cell,
    find_disorder,
    find_files,
    parse_columns,
    read_frames,
    read_schema,
)


@dataclass(frozen=True)
class Plan:
    """A table to explain, and how. It can be pickled.

    Attributes:
        model: the model, whose features are columns of the table.
        table: a file, or a folder of files.
        output: index of the output.
        time: the column of time stamps; None if there is none.
        segment: the column that changes at each gap, which no window crosses; None if there is none.
        part_windows: rows of the table per file.
        strict: whether a bad row ends the run.
        effects: whether to add the effects of removing each feature, and of each alone, to the contributions.
    """

    model: Model
    table: Path
    output: int = 0
    time: str | None = None
    segment: str | None = None
    part_windows: int = PART_WINDOWS
    strict: bool = False
    effects: bool = False

    @property
    def clock(self) -> TimeColumn | None:
        """The time step of the model, if the table has times."""
        return self.model.config.time if self.time is not None else None

    @property
    def special(self) -> dict[str, str]:
        """The columns of times and segments, by their names in `read_rows`."""
        named = (("time", self.time), ("segment", self.segment))
        return {kind: name for kind, name in named if name is not None}

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read."""
        return tuple(dict.fromkeys((*self.model.config.feature_names, *self.special.values())))

    def describe(self) -> dict[str, Any]:
        """Everything that determines the results: a folder is resumed only if all of it is the same."""
        config = self.model.config
        return {
            "checkpoint": self.model.checkpoint,
            "output": config.outputs[self.output],
            "unit": config.target_of(self.output).unit,
            "features": {feature.name: feature.unit for feature in config.features},
            "groups": {name: list(features) for name, features in config.groups.items()},
            "lookback": config.lookback,
            "baseline": Baseline().kind,
            "tolerance": LedgerOptions().tolerance,
            "time_column": self.time,
            "segment_column": self.segment,
            "part_windows": self.part_windows,
            "effects": self.effects,
        }


@dataclass(frozen=True)
class Summary:
    """Counts of one part, or of all parts.

    Attributes:
        windows: explained windows.
        lost: windows that are not explained, because of bad rows or because their results are not finite.
        rejected: entries in the list of rejected rows.
        unconverged: windows whose ledgers have not converged.
        across_gaps: windows that are left out because they cross a gap in time.
        gap: the times around one such gap; empty if there is none.
    """

    windows: int = 0
    lost: int = 0
    rejected: int = 0
    unconverged: int = 0
    across_gaps: int = 0
    gap: str = ""

    def __add__(self, other: Summary) -> Summary:
        counts = {name: count + getattr(other, name) for name, count in vars(self).items() if name != "gap"}
        return Summary(**counts, gap=self.gap or other.gap)


@dataclass(frozen=True)
class Chunk:
    """Windows that are explained together and written to one file.

    Attributes:
        number: number of the chunk, from 0.
        values: (n_steps, n_features), original units; the series that the windows are cut from.
        ends: index in `values` of the last step of each window, (n,).
        windows: a row for each window: ``window``, its number in the table, that of the row that holds it, or its last
            step, from 0; ``time`` of that row, with a time column; its place, ``file`` and ``row``.
        rejected: ``file``, ``row`` and ``reason`` of each bad row.
        left_out: counts of the windows left out because of bad rows or gaps in time.
        read: bytes of the table up to the end of the chunk, roughly.
        digest: hash of everything that is explained.
    """

    number: int
    values: Array
    ends: NDArray[np.int64]
    windows: pl.DataFrame
    rejected: pl.DataFrame
    left_out: Summary
    read: int
    digest: str


def read_chunks(plan: Plan, finished: Mapping[int, str]) -> Iterator[Chunk]:
    """Yields the chunks of a table, except the finished ones.

    Args:
        plan: the table.
        finished: digests of the chunks to skip, by number.

    Raises:
        DataError: as `read_rows`; the table has no window; a finished chunk has another digest now.
        UnknownNameError: as `read_rows`.
    """
    number, n_windows, table = 0, 0, plan.table.name
    for chunk in _cut_chunks(plan):
        number, left_out = chunk.number, chunk.left_out
        n_windows += len(chunk.ends) + left_out.lost + left_out.across_gaps
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
    first = earlier = 0  # number of the first row whose window is due, and the rows kept before it
    rows = None
    for frame in read_rows(plan):
        rows = frame if rows is None else pl.concat([rows, frame])
        while len(rows) >= earlier + plan.part_windows:
            end = earlier + plan.part_windows
            yield _cut_chunk(rows[:end], earlier, first, plan)
            first += plan.part_windows
            earlier = min(end, plan.model.config.lookback - _count_steps(rows, plan))
            rows = rows[end - earlier :]
    if rows is not None and len(rows) > earlier:
        yield _cut_chunk(rows, earlier, first, plan)


def _count_steps(rows: pl.DataFrame, plan: Plan) -> int:
    """Steps of a row: one, or `lookback` if it is a window."""
    return len(rows["values"][0]) // len(plan.model.config.features)


def _cut_chunk(rows: pl.DataFrame, earlier: int, first: int, plan: Plan) -> Chunk:
    """The chunk of the windows that end after the `earlier` rows, in the rows from number `first`."""
    lookback, steps, n_rows = plan.model.config.lookback, _count_steps(rows, plan), len(rows)
    good = rows["reason"].is_null().to_numpy()
    across_gaps, gap = 0, ""
    if steps == lookback:
        ends, whole = np.arange(n_rows), good
    else:
        ends = window_ends([] if plan.segment is None else [_segments(rows)], n_rows, lookback)
        ends = ends[ends >= earlier]
        if plan.clock is not None:
            crosses, gap = _find_gaps(rows, ends, plan, plan.clock)
            across_gaps, ends = int(crosses.sum()), ends[~crosses]
        whole = _count(~good, ends + 1, lookback) == 0
    lost, ends = int((~whole).sum()), ends[whole]
    time = [] if plan.time is None else ["time"]
    windows = rows[ends].select(pl.Series("window", ends + first - earlier), *time, "file", "row")
    rejected = rows[earlier:].filter(pl.col("reason").is_not_null()).select("file", "row", "reason")
    values = rows["values"].to_numpy().reshape(n_rows * steps, -1)
    ends = ends * steps + steps - 1
    texts = [windows.select("file", "row").write_csv(), rejected.write_csv()]
    texts += [windows.select(time).write_csv()] if time else []
    hashed = hashlib.sha256("".join(texts).encode())
    for array in (values, ends, windows["window"].to_numpy()):
        hashed.update(np.ascontiguousarray(array).tobytes())
    return Chunk(
        number=first // plan.part_windows,
        values=values,
        ends=ends,
        windows=windows,
        rejected=rejected,
        left_out=Summary(lost=lost, across_gaps=across_gaps, gap=gap),
        read=int(rows["read"][-1]),
        digest=hashed.hexdigest(),
    )


def _count(found: NDArray[np.bool_], ends: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """How many of the `length` entries before each end are True."""
    total: NDArray[np.int64] = np.append(0, np.cumsum(found))
    counts: NDArray[np.int64] = total[ends] - total[ends - length]
    return counts


def _find_gaps(
    rows: pl.DataFrame, ends: NDArray[np.int64], plan: Plan, clock: TimeColumn
) -> tuple[NDArray[np.bool_], str]:
    """Whether each window crosses a gap in time, and the times around the first such gap.

    Raises:
        DataError: most steps of a window are shorter than those of the training, or it repeats a time.
    """
    n_steps = plan.model.config.lookback - 1
    steps = np.diff(rows["instant"].to_numpy(), append=np.nan)  # to the next row
    is_mostly_short = 2 * _count(clock.is_short(steps), ends, n_steps) > n_steps
    wrong = np.flatnonzero(is_mostly_short | (_count(steps == 0, ends, n_steps) > 0))
    if len(wrong):
        reason = f"has repeated times, or mostly steps shorter than those of the training, {clock.usual_step}"
        place = _place(rows, int(ends[wrong[0]]))
        raise DataError(f"{place}, column {plan.time}: the window that ends here {reason}")
    is_gap = clock.is_gap(steps)
    crosses = _count(is_gap, ends, n_steps) > 0
    if not crosses.any():
        return crosses, ""
    row = int(np.flatnonzero(is_gap[: ends[crosses.argmax()]])[-1])
    before, after = rows["time"][row : row + 2]
    return crosses, f"{before} to {after}"


def read_rows(plan: Plan) -> Iterator[pl.DataFrame]:
    """Yields the rows of a table in order.

    Columns: ``values``, the steps of a row, one if it is of a series or `lookback`, of n_features each, in original
    units, NaN where a row is bad; ``file`` and ``row``, its position, counted as in a spreadsheet; ``reason`` why it is
    rejected, null if it is not; ``read``, bytes of the table up to its end, roughly; ``time`` and ``segment``, if the
    plan has such columns; ``instant``, the time in the unit of the plan's clock, if it has one.

    Raises:
        DataError: a file cannot be read, rows and windows are mixed, or a row is earlier than the one above it; a row
            is bad, and the plan is strict.
        UnknownNameError: a column does not exist.
    """
    as_windows = hold_windows(plan)
    width = len(plan.columns) * (plan.model.config.lookback if as_windows else 1)
    before, above = 0, None
    for path in find_files(plan.table):
        read = before
        for frame in read_frames(path, plan.columns, width):
            numbers = np.linspace(read, before + frame.read, len(frame.cells) + 1)[1:]
            rows = _parse(frame, plan, as_windows, path.name).with_columns(read=numbers)
            if plan.time is not None:
                marks = rows.drop("values")
                marks = marks if above is None else pl.concat([above, marks])
                row = find_disorder(marks["time"], None if plan.segment is None else _segments(marks))
                if row is not None:
                    raise DataError(f"{_place(marks, row)}, column {plan.time} {DISORDER}")
                above = marks[-1:]
            bad = rows["reason"].is_not_null().arg_true()
            if plan.strict and len(bad):
                raise DataError(f"{_place(rows, bad[0])}, {rows['reason'][bad[0]]}")
            read = before + frame.read
            yield rows
        before += path.stat().st_size


def _place(rows: pl.DataFrame, row: int) -> str:
    return f"{rows['file'][row]}, row {rows['row'][row]}"


def _segments(rows: pl.DataFrame) -> NDArray[np.str_]:
    return rows["segment"].fill_null("").to_numpy().astype(str)


def hold_windows(plan: Plan) -> bool:
    """Whether each row of the table is a window; reads the schema of every file.

    Raises:
        DataError: a file cannot be read, rows and windows are mixed, or a column has an unusable type.
        UnknownNameError: a column does not exist.
    """
    features, kinds = plan.model.config.feature_names, {}
    for path in find_files(plan.table):
        schema = read_schema(path, plan.columns)
        for name in plan.special.values():
            if schema[name].is_nested():
                raise DataError(f"column {name} of {path.name} holds {schema[name]}, not single values")
        lists = [isinstance(schema[name], pl.List | pl.Array) for name in features]
        if any(lists) and not all(lists):
            a, b = (features[lists.index(holds)] for holds in (True, False))
            raise DataError(f"{path.name} has lists in column {a}, but not in column {b}")
        kinds[path.name] = all(lists), schema[plan.time] if plan.time is not None else None
    first, (as_windows, time) = next(iter(kinds.items()))
    for name, (is_other, other) in kinds.items():
        if is_other != as_windows:
            windows, rows = (name, first) if is_other else (first, name)
            raise DataError(f"{windows} holds windows, but {rows} rows of a series, so they are not one table")
        if other != time:
            raise DataError(f"column {plan.time} is {time} in {first}, but {other} in {name}")
    return as_windows


def _parse(frame: Frame, plan: Plan, as_windows: bool, file: str) -> pl.DataFrame:
    """The columns of `read_rows`, except ``read``."""
    values, reasons = _read_values(frame, plan, as_windows)
    special = {kind: frame.cells[name] for kind, name in plan.special.items()}
    if plan.segment is not None:
        special["segment"] = special["segment"].cast(pl.String)
    for kind, column in special.items():
        for row in column.is_null().arg_true():
            reasons.setdefault(row, f"column {plan.special[kind]} is empty")
    if plan.clock is not None and not as_windows:
        special["instant"] = pl.Series(_read_instants(special["time"], plan.clock, reasons))
    values[list(reasons)] = np.nan
    rows = range(len(values))
    return pl.DataFrame(
        {
            "values": values.reshape(len(values), -1),
            "file": pl.repeat(file, len(values), eager=True),
            "row": pl.int_range(frame.first_row, frame.first_row + len(values), eager=True),
            "reason": pl.Series([reasons.get(row) for row in rows], dtype=pl.String),
            **special,
        }
    )


def _read_values(frame: Frame, plan: Plan, as_windows: bool) -> tuple[Array, dict[int, str]]:
    """(n, steps, n_features), and the reasons for rejected rows, by index."""
    features = plan.model.config.feature_names
    columns, n_rows = [frame.cells[name] for name in features], len(frame.cells)
    steps, fits, reasons = 1, np.ones(n_rows, dtype=bool), {}
    if as_windows:
        steps = plan.model.config.lookback
        columns = [column.arr.to_list() if column.dtype == pl.Array else column for column in columns]
        lengths = np.stack([column.list.len().fill_null(-1).to_numpy().astype(np.int64) for column in columns], axis=1)
        fits = (lengths == steps).all(axis=1)
        for row, number in _first_true(lengths != steps):
            length = lengths[row, number]
            wrong = "is empty" if length < 0 else f"must hold {steps} numbers, but holds {length}"
            reasons[row] = f"column {features[number]} {wrong}"
        columns = [column.filter(pl.Series(fits)).explode() for column in columns]
    values, rows = np.full((n_rows, steps, len(features)), np.nan), np.flatnonzero(fits).tolist()
    values[fits] = parse_columns(columns).reshape(-1, steps, len(features))
    for index, cell in _first_true(~np.isfinite(values[fits]).reshape(len(rows), steps * len(features))):
        step, number = divmod(cell, len(features))
        name = f"{features[number]}[{step}]" if as_windows else features[number]
        reasons[rows[index]] = f"column {name} {describe_cell(columns[number][index * steps + step])}"
    return values, reasons


def _first_true(wrong: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yields each row that has a True, with the first column that does."""
    rows = np.flatnonzero(wrong.any(axis=1))
    return zip(rows.tolist(), wrong[rows].argmax(axis=1).tolist(), strict=True)


def _read_instants(times: pl.Series, clock: TimeColumn, reasons: dict[int, str]) -> Array:
    """Times as numbers; NaN where a cell is not a time as in training, which is a reason to reject its row."""
    instants = np.full(len(times), np.nan)

    def read(rows: list[int]) -> bool:
        try:
            found, dated = read_instants(times[rows].to_numpy(), clock.name)
        except DataError:
            return False
        if dated == clock.dated:
            instants[rows] = found
        return dated == clock.dated

    known = times.is_not_null().arg_true().to_list()
    if known and not read(known):
        for row in known:
            if not read([row]):
                kind = "a date" if clock.dated else "a number"
                found = f"column {times.name} must be {kind}, as in training, but is {quote(times[row])}"
                reasons.setdefault(row, found)
    return instants
