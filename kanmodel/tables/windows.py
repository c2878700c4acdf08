"""`Windows`: the windows of a table, what each reads, when it is due, which rows it forecasts, and what came.

A window is a function of the rows up to its end, of known columns up to what it forecasts, and of nothing else: the
rest of the table may be cut off, and no bit of the window changes. What it forecasts is never filled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from kanmodel.arrays import Array, count_before, refuse_non_finite, without_mask
from kanmodel.computing import tracked
from kanmodel.errors import DataError, UnknownNameError, quote, refuse_unknown
from kanmodel.tables.columns import column_of
from kanmodel.tables.encoding import Rows
from kanmodel.tables.frames import is_frame, is_number, names_of
from kanmodel.tables.rhythm import FAR
from kanmodel.tables.table import CellNames, Gaps, Selection, Table, TableSpec, refuse_missing

CHUNK = 1024  # windows that are taken at a time
N_NAMED = 5  # columns that a message names
MASKLESS = "the model has no mask for a missing value there"


@dataclass(frozen=True)
class Missing:
    """Windows left out for a missing value or target."""

    windows: int = 0  # their number
    # number of those with a missing value in each such column, the most first
    by_column: Mapping[str, int] = field(default_factory=dict)

    @property
    def worst(self) -> dict[str, int]:
        """The columns with the most missing values."""
        return dict(list(self.by_column.items())[:N_NAMED])

    def __str__(self) -> str:
        worst = ", ".join(f"{name} ({count})" for name, count in self.worst.items())
        return f"{self.windows} windows are left out for missing values, of {worst}"


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows that end at some rows of a table."""

    table: Table  # the table
    ends: Rows  # row of the newest step of each window, (n,), by series and then by time, unless they are put in order
    across_gaps: int  # number of windows that are left out for a gap in time in them, or before their known future
    missing: Missing  # those that are left out for a missing value
    # features, (n_rows + n_further, n_features), original units: of the table's rows as they are once all gaps are
    # closed, and further ones, of the rows in gaps that are open at the end of a window
    rows: Array = field(repr=False)
    tail: Rows = field(repr=False)  # number of such further rows at the end of each window, (n,)
    first: Rows = field(repr=False)  # the first of these among all rows, (n,)
    # by column, how many cells that each window reads were filled, (n,); without columns of which none were
    filled: Mapping[str, Rows] = field(default_factory=dict)

    @classmethod
    def cut(
        cls, table: Table, *, gaps: Gaps = "skip", skip: bool = True, targets: bool = False, strict: bool = True
    ) -> Windows:
        """The windows that end at the rows of a table at which one may.

        A gap in time is an error, or windows across it, or whose known columns are, are left out (`gaps`); so are those
        with a missing value, or it is an error (`skip`), and with `targets` those without the values of all targets,
        of which those beyond the table's end do not count. Unless `strict`, windows with a bad cell are left out too.

        Raises DataError if there is no window, a value is missing or bad, or times are repeated or have a gap.
        """
        table.check_times(gaps)
        if strict:
            table.check_cells()
        oldest = 1 - table.spec.lookback
        asked = np.flatnonzero(table.may_end)
        asked = asked[asked + oldest >= np.searchsorted(table.codes, table.codes[asked])]
        if targets:
            newest = np.searchsorted(table.codes, table.codes[asked], "right") - 1
            asked = asked[table.position[asked] + table.spec.reach <= table.position[newest]]
        is_whole = (table.run[asked] == table.run[asked + oldest]) & ~table.lacks_future(asked)
        ends = asked[is_whole]
        found = cls._make(table, ends)
        lacks, counts = found._find_missing(targets)
        if not skip:
            found._refuse_missing(lacks)
        missing = Missing(int(lacks.sum()), dict((+counts).most_common()))
        found = replace(found.choose(np.flatnonzero(~lacks)), across_gaps=len(asked) - len(ends), missing=missing)
        if not len(found) and strict and not targets:
            reasons = [f"{found.across_gaps} cross a gap"] if found.across_gaps else []
            if missing.windows:
                reasons.append(f"{missing.windows} have a missing value, of {', '.join(missing.worst)}")
            message = f"has no window to forecast: of {len(asked)}, {' and '.join(reasons)}"
            raise DataError.at(table.cell_names.table, message if reasons else "has no window without a gap")
        return found

    @classmethod
    def of(cls, spec: TableSpec, windows: Array, target: int | None = None) -> Windows:
        """Windows (n, lookback, n_features) without a table; see `Table.of_windows`."""
        table = Table.of_windows(spec, windows, target)
        return cls._make(table, np.flatnonzero(table.may_end))

    @classmethod
    def _make(cls, table: Table, ends: Rows) -> Windows:
        """The windows that end at some rows, of which values may be missing."""
        lookback, tail = table.spec.lookback, np.zeros(len(ends), dtype=np.int64)
        opens = list[NDArray[np.bool_]]()  # of each column, whether its gap is open at the end of a window
        for column in table.columns:
            opened = column.open[ends]
            opens.append(~np.isnan(opened) & ~(column.closed[ends] == opened))
            tail = np.maximum(tail, np.where(opens[-1], ends - column.seen[ends], 0))
        tail = np.minimum(tail, lookback)
        first = len(table) + np.cumsum(tail) - tail
        window = np.repeat(np.arange(len(ends)), tail)  # of each further row
        row = ends[window] - tail[window] + 1 + np.arange(len(window)) - (first - len(table))[window]
        columns = np.empty((len(table) + len(row), len(table.columns)))
        filled = dict[str, Rows]()
        for number, (column, of) in enumerate(zip(table.columns, table.spec.encoding.columns, strict=True)):
            is_open = opens[number][window] & (row > column.seen[ends[window]])
            columns[: len(table), number] = column.closed
            columns[len(table) :, number] = np.where(is_open, column.open[ends[window]], column.closed[row])
            counted = count_before(column.missing)
            counts = counted[ends + 1] - counted[ends + 1 - lookback]
            if counts.any():
                filled[of.name] = counts
        calendar = table.calendar
        calendar = None if calendar is None else np.concatenate([calendar, calendar[row]])
        rows = table.spec.encoding.expand(columns, calendar)
        return cls(table, ends, 0, Missing(), rows, tail, first, filled)

    def _find_missing(self, targets: bool) -> tuple[NDArray[np.bool_], Counter[str]]:
        """Whether each window lacks a value, (n,), and the number of those that do by column."""
        lacks, counts = np.zeros(len(self), dtype=bool), Counter[str]()
        for column, of in zip(self.table.columns, self.table.spec.encoding.columns, strict=True):
            before = count_before(np.isnan(column.closed))
            is_open = ~np.isnan(column.open[self.ends])
            last = np.where(is_open, column.seen[self.ends], self.ends) + 1
            start = self.ends + 1 - self.lookback
            lacking = before[np.maximum(last, start)] > before[start]
            counts[of.name] += int(lacking.sum())
            lacks |= lacking
        if targets:
            for number, name in enumerate(self.table.spec.targets):
                lacking = np.isnan(self.actual(number)).any(axis=1)
                counts[f"{name} (target)"] += int(lacking.sum())
                lacks |= lacking
        return lacks, counts

    def _refuse_missing(self, lacks: NDArray[np.bool_]) -> None:
        """Raises `DataError` for the first value that a window lacks."""
        if not lacks.any():
            return
        window, encoding = int(lacks.argmax()), self.table.spec.encoding
        step, feature = np.argwhere(np.isnan(self.take([window])[0]))[0].tolist()
        row = int(self.ends[window]) + step - self.lookback + 1
        column = next(one for one in encoding.columns if encoding.features[feature] in one.features)
        has_row = bool(self.table.find(self.table.position[row] + column.later) >= 0)
        raise DataError.at(self.table.cell(column.name, row), encoding.describe_missing(column, has_row))

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lookback(self) -> int:
        """Steps of a window."""
        return self.table.spec.lookback

    @property
    def horizon(self) -> int:
        """Steps that it forecasts."""
        return self.table.spec.horizon

    def choose(self, numbers: Any) -> Windows:
        """Some of the windows, by their numbers."""
        filled = {name: of[numbers] for name, of in self.filled.items() if of[numbers].any()}
        about = {name: getattr(self, name)[numbers] for name in ("ends", "tail", "first")}
        return replace(self, **about, filled=filled)

    def span(self, numbers: Any) -> tuple[str | None, str | None]:
        """The `times` of the earliest and the latest of some windows; None if the rows have none."""
        ends = self.ends[numbers]
        if self.table.instants is None or self.table.stamps is None or not len(ends):
            return None, None
        at = self.table.instants[ends]
        first, last = self.table.times(ends[[at.argmin(), at.argmax()]])
        return first, last

    def by_time(self) -> Windows:
        """The windows in order of time, and of those of the same time by series."""
        if self.table.instants is None or not self.table.names:
            return self
        return self.choose(np.argsort(self.table.instants[self.ends], kind="stable"))

    def with_earlier(self, steps: int) -> tuple[Windows, Rows, Rows]:
        """The windows with those that end so many rows before each, and the numbers of both.

        Raises DataError if there is none, or a value of it is missing.
        """
        ends, run = self.ends - steps, self.table.run
        oldest = ends - self.lookback + 1
        for number in np.flatnonzero((oldest < 0) | (run[ends] != run[np.maximum(oldest, 0)])).tolist():
            when = f" of {self.times[number]}" if self.times else ""
            raise DataError.at(self.table.cell_names.table, f"has no window {steps} rows before that{when}")
        found = Windows._make(self.table, np.unique(np.concatenate([self.ends, ends])))
        found._refuse_missing(found._find_missing(targets=False)[0])
        return found, np.searchsorted(found.ends, self.ends), np.searchsorted(found.ends, ends)

    def index(self, numbers: Any = slice(None)) -> Rows:
        """The rows of some windows, oldest first, (n, lookback), among `rows`."""
        steps = np.arange(1 - self.lookback, 1)
        ends, tail, first = (each[numbers][:, None] for each in (self.ends, self.tail, self.first))
        index: Rows = np.where(steps > -tail, first + tail - 1 + steps, ends + steps)
        return index

    def take(self, numbers: Any = slice(None)) -> Array:
        """Some windows, (n, lookback, n_features), original units, oldest step first."""
        return self.rows[self.index(numbers)]

    def source(self, index: Rows) -> Rows:
        """The rows of the table that some of `rows` are of, (n,)."""
        window = np.maximum(np.searchsorted(self.first, index, "right") - 1, 0)
        found: Rows = self.ends[window] - self.tail[window] + 1 + index - self.first[window]
        return np.where(index < len(self.table), index, found)

    @property
    def newest(self) -> Array:
        """The newest step of each window, (n, n_features), original units."""
        return self.rows[self.index()[:, -1]]

    def parts(self) -> Iterator[Array]:
        """All windows, some at a time."""
        for start in tracked(range(0, len(self), CHUNK)):
            yield self.take(slice(start, start + CHUNK))

    @cached_property
    def times(self) -> tuple[str, ...] | None:
        """Of the newest row of each window, as the checkpoint writes them; None if the rows have none."""
        return self.table.times(self.ends) if self.table.stamps is not None else None

    @cached_property
    def series(self) -> tuple[str, ...] | None:
        """The series of each window; None of one series."""
        names = self.table.names
        return tuple(names[code] for code in self.table.codes[self.ends].tolist()) if names else None

    @property
    def named(self) -> dict[str, Any]:
        """The `times` and the `series` of each window, for the results on them."""
        return {"times": self.times, "series": self.series}

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps from a window's last row to each that it forecasts, at least 1 in the names of outputs."""
        return tuple(max(1, self.table.spec.ahead) + step for step in range(self.horizon))

    def find_rows(self, step: int) -> Rows:
        """The rows that are forecast at a step from 0, (n,); -1 where the table has none."""
        return self.table.find(self.table.position[self.ends] + self.table.spec.ahead + step)

    def actual(self, target: int) -> Array:
        """What came, of a target by its number, (n, horizon), original units; NaN where it is missing."""
        found = np.full((len(self), self.horizon), np.nan)
        for step in range(self.horizon):
            rows = self.find_rows(step)
            found[:, step] = np.where(rows >= 0, self.table.targets[rows, target], np.nan)
        return found

    def instants(self, step: int) -> Array | None:
        """The instants that are forecast at a step from 0, (n,), also after the table; None if rows have no times."""
        table, rows = self.table, self.find_rows(step)
        if table.instants is None or table.spec.time is None:
            return None
        later = table.spec.time.later(table.instants[self.ends], table.spec.ahead + step)
        return np.where(rows >= 0, table.instants[rows], later)

    def target_times(self, step: int) -> tuple[str, ...]:
        """The same as texts; empty if the rows have no times."""
        instants, rows = self.instants(step), self.find_rows(step)
        if instants is None:
            return ()
        texts = np.array(self.table.times(np.maximum(rows, 0)), dtype=object)
        texts[rows < 0] = self.table.write_times(instants[rows < 0])
        return tuple(texts.tolist())

    def outcome(self, target: int, step: int) -> dict[str, Any]:
        """What is known of one forecast of each window: attributes of an `Explanation`.

        ``actual``, (n,), if the table has the target's column; if rows have times, ``instants``, ``zone``, ``rhythm``,
        ``newest``, and unless the target is shifted, ``target_times``.
        """
        spec, time = self.table.spec, self.table.spec.time
        found: dict[str, Any] = {"actual": self.actual(target)[:, step]} if self.table.has[target] else {}
        if (instants := self.instants(step)) is not None and time is not None:
            newest = tuple(later - spec.ahead - step for later in spec.encoding.steps_later)
            found |= {"instants": instants, "zone": time.zone, "rhythm": time, "newest": newest}
            found |= {"target_times": self.target_times(step)} if spec.ahead else {}
        return found

    def local(self) -> Array | None:
        """The times that are forecast in seconds of the local clock, (n, horizon); None if they are no dates."""
        time = self.table.spec.time
        if time is None or not time.dated or self.table.instants is None:
            return None
        return np.stack([time.local(self.instants(step)) for step in range(self.horizon)], axis=1)  # type: ignore[arg-type]

    def persistence(self, target: int) -> Array:
        """The last value of a target known at each window's last row, (n,); NaN for none, as of one shifted by hand."""
        values, codes = self.table.targets[:, target], self.table.codes
        if not self.table.spec.ahead:
            return np.full(len(self), np.nan)
        known = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))))
        return np.where((known >= 0) & (codes[known] == codes), values[known], np.nan)[self.ends]

    def seasonal_naive(self, target: int, season: int) -> Array:
        """The latest known value a whole number of seasons before each step that is forecast, (n, horizon).

        A season has so many steps (Hyndman and Athanasopoulos 2021, "Forecasting: Principles and Practice", section
        5.2). NaN where there is no such value.
        """
        table, found = self.table, np.full((len(self), self.horizon), np.nan)
        position, values = table.position, table.targets[:, target]
        known = np.flatnonzero(~np.isnan(values))
        if not table.spec.ahead or not len(known):
            return found
        is_first = np.diff(position, prepend=-FAR) >= FAR  # of rows that are in step
        start, n_positions = np.maximum.accumulate(np.where(is_first, position, 0))[self.ends], int(position[-1]) + 1
        keys = position[known] % season * n_positions + position[known]
        order = np.argsort(keys)
        keys, known = keys[order], known[order]
        for step in range(self.horizon):
            lead = table.spec.ahead + step
            wanted = position[self.ends] + lead - ceil(lead / season) * season
            rows = known[np.searchsorted(keys, wanted % season * n_positions + wanted, "right") - 1]
            at = position[rows]
            is_one = (start <= at) & (at <= wanted) & ((wanted - at) % season == 0)
            found[:, step] = np.where(is_one, values[rows], np.nan)
        return found


def name_windows(windows: Windows | None) -> dict[str, Any]:
    """What a result states of the windows of a table, see `Windows.named`; nothing of others."""
    return {} if windows is None else windows.named


def actual_outputs(windows: Windows) -> Array:
    """The actual values of all targets, (n, horizon * n_targets), steps outermost, original units."""
    actual = [windows.actual(number) for number in range(len(windows.table.spec.targets))]
    return np.stack(actual, axis=2).reshape(len(windows), windows.horizon * len(actual))


def read_windows(
    spec: TableSpec,
    windows: Any,
    path: str = "windows",
    *,
    last: int | str | None = None,
    gaps: Gaps = "error",
    series: Sequence[str] | str | None = None,
    before: int = 0,
) -> tuple[Array, Windows | None]:
    """Windows in any form that `kanmodel.model.Model` takes, and those of a table if they are given as a data frame.

    They are an array or a mapping, as of `read_arrays`; or a data frame, of which the newest windows of each series are
    taken, by default one, without a gap. Its rows are in order of time if it has the time column of the training or an
    index of dates, else as they stand. `path` is the argument's name in errors; others are as of `Selection` and
    `Windows.cut`, and raise as these.
    """
    refuse_unknown("gaps", gaps, get_args(Gaps))
    if is_frame(windows):
        chosen = Selection(1 if last is None else last, before, spec.encoding.later, series)
        table = Table.read(spec, windows, CellNames.of(path, spec), chosen)
        found = Windows.cut(table, gaps=gaps, skip=False)
        return found.take(), found
    for name, given in (("last", last), ("series", series)):
        if given is not None:
            raise DataError.at(name, "is of a data frame, but the windows are no frame")
    return read_arrays(windows, spec, path), None


def read_table(
    spec: TableSpec,
    frame: Any,
    cell_names: CellNames,
    chosen: Selection,
    gaps: Gaps = "skip",
    target: str | None = None,
) -> Windows:
    """The windows of a table whose actual values are rows of it too; those with a missing value are left out.

    Of a `target` actual values must be there, and windows have their whole horizon in the table; for None they go up to
    the newest row. Raises as `Table.read` and `Windows.cut`, and DataError if there is no actual value.
    """
    reach = spec.encoding.later
    if target is not None:
        column = column_of(target, names_of(frame))
        if not spec.knows(column):
            message = f"cannot be compared: the checkpoint does not have how many rows ahead {column} is"
            raise DataError.at(cell_names.table, message)
        chosen, reach = replace(chosen, needs=(column,), needs_time=True), max(reach, spec.reach)
    found = Windows.cut(Table.read(spec, frame, cell_names, replace(chosen, reach=reach)), gaps=gaps)
    if target is not None and np.isnan(found.actual(spec.targets.index(target))).all():
        message = f"has no value of {column} that one of its {len(found)} windows forecasts"
        raise DataError.at(cell_names.table, message)
    return found


def read_all_windows(
    spec: TableSpec, windows: Any, path: str = "windows", gaps: Gaps = "skip", series: Sequence[str] | str | None = None
) -> Windows:
    """Windows in order of time: all of a table, with known actual values, or those in any form of `read_windows`."""
    is_table = isinstance(windows, Mapping) and all(np.ndim(column) == 1 for column in windows.values())
    if is_table or is_frame(windows):
        return read_table(spec, windows, CellNames.of(path, spec), Selection(series=series), gaps)
    return Windows.of(spec, read_windows(spec, windows, path, series=series)[0])


def read_numbers(values: Any, path: str) -> Array:
    """Converts an array, tensor, column or nested lists to float64; masked values and None become NaN."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    values = without_mask(values)
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError.at(path, "must be an array, but its rows differ in length") from None
    if array.dtype.kind == "O":
        for place in np.ndindex(array.shape):
            if not (array[place] is None or is_number(array[place])):
                where = path + "".join(f"[{index}]" for index in place)
                raise DataError.at(where, f"must be a number, but is {quote(array[place])}")
    elif array.dtype.kind not in "biuf":
        raise DataError.at(path, f"must hold numbers, but holds {array.dtype.name}")
    try:
        with np.errstate(over="ignore"):
            numbers: Array = array.astype(np.float64)
    except OverflowError:  # a whole number without limit
        raise DataError.at(path, "must hold numbers that float64 has") from None
    return numbers


def read_arrays(windows: Any, spec: TableSpec, path: str = "windows") -> Array:
    """Windows (n, lookback, n_features), original units, oldest step first, of an array, or of one for each feature.

    An array is (n, lookback, n_features) or (lookback, n_features), at a lookback of 1 also (n, n_features) or
    (n_features,); in a mapping by feature (n, lookback) or (lookback,). Raises DataError for another shape, no window,
    or a value that is not a finite number and has no mask, and UnknownNameError for a feature that does not exist.
    """
    features, lookback = spec.encoding.features, spec.lookback
    if isinstance(windows, Mapping):
        read = _read_mapping(windows, spec, path)
    else:
        read = read_numbers(windows, path)
        read = spec.fill_masked(read) if read.shape[-1:] == (len(features),) else read
        refuse_non_finite(read, path, MASKLESS)
    f, given = len(features), read.shape
    if lookback == 1 and given[-1:] == (f,) and read.ndim <= 2:
        read = read.reshape(-1, 1, f)
    elif read.ndim == 2:
        read = read[None]
    if read.shape[1:] != (lookback, f):
        expected = f"(n, {lookback}, {f})" + (f", (n, {f}) or ({f},)" if lookback == 1 else f" or {(lookback, f)}")
        raise DataError.at(path, f"must have shape {expected}, but has {given}")
    if not len(read):
        raise DataError.at(path, "is empty")
    return read


def _read_mapping(mapping: Mapping[Any, Any], spec: TableSpec, path: str) -> Array:
    """A mapping of feature name to (n, lookback) or (lookback,)."""
    features, lookback = spec.encoding.features, spec.lookback
    for name in mapping:
        if name not in features:
            message = f"which is not a feature; the features are {', '.join(features)}"
            raise UnknownNameError(f"{path} has {quote(name)}, {message}")
    absent = {mask for mask, _ in spec.masks.values() if mask not in mapping}
    refuse_missing([name for name in features if name not in absent], list(mapping), f"{path} lacks feature")
    columns = [read_numbers(mapping[name], f"{path}[{name!r}]") for name in features if name not in absent]
    for number in (number for number, name in enumerate(features) if name in absent):
        columns.insert(number, np.full_like(columns[0], np.nan))
    shape = columns[0].shape
    for name, column in zip(features, columns, strict=True):
        place = f"{path}[{name!r}]"
        if column.ndim not in (1, 2) or column.shape[-1] != lookback:
            raise DataError.at(place, f"must have shape (n, {lookback}) or ({lookback},), but has {column.shape}")
        if column.shape != shape:
            raise DataError.at(place, f"must have shape {shape} as {features[0]!r} has, but has {column.shape}")
    read = spec.fill_masked(np.stack(columns, axis=-1))
    for number, name in enumerate(features):
        refuse_non_finite(read[..., number], f"{path}[{name!r}]", MASKLESS)
    return read
