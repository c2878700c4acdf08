"""Windows and baselines in any accepted form (arrays, mappings, data frames) -> checked arrays in original units."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from numbers import Real
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from kanmodel.arrays import Array, refuse_non_finite
from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import DataError, Problem, UnknownNameError, check_lowest, quote, refuse_unknown
from kanmodel.explain.backtest import Outcomes
from kanmodel.explain.baseline import DEFAULT_COUNT, Baseline, ReferenceBaselines
from kanmodel.network.config import QUANTILE, ModelConfig
from kanmodel.network.intervals import forecasts_of
from kanmodel.tables.encoding import Cells, Encoding, SourceColumn, as_cells, describe_bad, read_cells, zone_offsets
from kanmodel.tables.instants import (
    DAY,
    MAX_STEP,
    ROUNDING,
    TimeColumn,
    read_index,
    read_instants,
    times_as_text,
    window_ends,
    write_instants,
)
from kanmodel.training.baselines import persistence
from kanmodel.training.samples import leave_out
from kanmodel.training.tables import TrainingTable, read_columns

Rows = NDArray[np.int64]
Gaps = Literal["error", "skip"]
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(min|h|d|w)")
_SECONDS = {"min": 60, "h": 3600, "d": 86400, "w": 604800}
BASELINES = (
    '"mean", "zero", "reference", {"reference": count, "seed": number}, '
    '{"values": {feature: a number or one per step}} or {"instance": window}'
)


class Places(NamedTuple):
    """Names of a table, its columns and its cells in errors: those of a data frame, or of a JSON document."""

    rows: str
    time: str = "time"  # name of the column of times
    last: str = "last"
    is_frame: bool = True

    def column(self, name: str) -> str:
        """``windows['load']``, or ``series.load``."""
        return f"{self.rows}[{name!r}]" if self.is_frame else f"{self.rows}.{name}"

    def cell(self, name: str, row: int) -> str:
        """``windows['load'], row 17``, or ``series.load[17]``."""
        return f"{self.column(name)}, row {row}" if self.is_frame else f"{self.column(name)}[{row}]"


class Ends(NamedTuple):
    """Where windows end among the rows of a table in the order of time."""

    rows: Rows  # of the newest row of each window, (n,)
    order: Rows  # the row of the table at each place, (n_rows,)
    instants: Array | None  # in order, (n_rows,); None if the rows have no times
    stamps: Cells | None  # times as the table has them, in order; None likewise
    run: Rows  # a number that changes at a gap in time, (n_rows,)


@dataclass(frozen=True)
class Series:
    """Windows that are cut from the rows of a table, each a run of rows without a gap in time.

    Attributes:
        windows: (n, lookback, n_features), original units, oldest first, every value finite.
        times: of the newest row of each window, as the checkpoint writes them; None if the rows have none.
        ends: where they end among the rows.
        rows: the rows that are in a window, (n_rows, n_features), oldest first.
        numbers: their numbers in the table as it was given, (n_rows,).
        filled: by column, how many cells that each window reads were filled, (n,); without columns of which none were.
        n_left_out: number of windows that are left out, as they span a gap.
    """

    windows: Array
    times: tuple[str, ...] | None
    ends: Ends
    rows: Array
    numbers: Rows
    filled: Mapping[str, Rows]
    n_left_out: int


def find_actual(config: ModelConfig, frame: Any, ends: Ends, output: int, path: str = "windows") -> dict[str, Any]:
    """For which times windows of a data frame forecast an output, and what came: attributes of an `Explanation`.

    That is the row so many rows later if there is no gap in time between, else the time so many usual steps later, and
    the row of that time. Of a target that was shifted before training (`ahead` 0) it is the row in which the frame has
    the shifted value, and if its past is a feature as well, no value is known to be the one that is forecast.

    Returns:
        ``actual``, the values of the target's column, (n,), NaN where there is none yet, if there is such a column; if
        rows have times, ``instants``, (n,), seconds or the unit of the time column, ``zone``, and unless the target is
        shifted, ``target_times``.

    Raises:
        DataError: a value is not a finite number.
    """
    target, columns = config.target_of(output).name, list(frame.columns)
    column = find_target_column(target, columns)
    later = config.ahead + output // len(config.targets)
    n_rows, rows = len(ends.run), ends.rows + later
    at = np.minimum(rows, n_rows - 1)
    is_there = (rows < n_rows) & (ends.run[at] == ends.run[ends.rows])
    found: dict[str, Any] = {}
    if config.time is not None and ends.instants is not None and ends.stamps is not None:
        step = config.time.step
        instants = np.where(is_there, ends.instants[at], ends.instants[ends.rows] + later * step)
        at = np.where(is_there, at, np.minimum(np.searchsorted(ends.instants, instants - ROUNDING * step), n_rows - 1))
        is_there |= np.abs(ends.instants[at] - instants) <= ROUNDING * step
        found["instants"] = instants
        found["zone"] = zone = config.encoding.zone if config.encoding else None
        if config.ahead:
            texts = np.array(times_as_text(ends.stamps[at]), dtype=object)
            texts[~is_there] = write_instants(instants[~is_there], ends.stamps, zone)
            found["target_times"] = tuple(texts.tolist())
    if columns.count(column) == 1 and (config.ahead or column not in encoding_of(config).names):
        cells = as_cells(frame[column])[ends.order[at]]
        found["actual"] = actual = np.where(is_there, read_cells(cells), np.nan)
        for window in np.flatnonzero(np.isinf(actual)).tolist():
            place = Places(path).cell(column, int(ends.order[at[window]]))
            raise DataError.at(place, describe_bad(cells[[window]].tolist()[0]))
    return found


def read_windows(model: LoadedModel, windows: Any, path: str = "windows") -> Array:
    """Windows in any of the forms that `kanmodel.model.Model` takes.

    Args:
        model: determines shape and names.
        windows: an array (n, lookback, n_features) or (lookback, n_features), at a lookback of 1 also (n, n_features)
            or (n_features,); a mapping of feature name to array (n, lookback) or (lookback,); or a data frame, whose
            last `lookback` rows are one window. They are the newest, in order of time, if the frame has the time
            column of the training or an index of dates, else the last as they stand.
        path: name of the argument in an error.

    Returns:
        (n, lookback, n_features), original units, oldest step first, every value finite.

    Raises:
        DataError: another shape, no window, a missing or repeated column, a value that is not a finite number, or a gap
            or a repeated time within the window of a frame.
        UnknownNameError: a mapping names a feature that does not exist.
    """
    if is_frame(windows):
        read = read_series(model, windows, path=path).windows
    elif isinstance(windows, Mapping):
        read = _read_mapping(model, windows, path)
    else:
        read = read_numbers(windows, path)
        refuse_non_finite(read, path)
    lookback, n_features = model.config.window_shape
    given = read.shape
    if lookback == 1 and given[-1:] == (n_features,) and read.ndim <= 2:
        read = read.reshape(-1, 1, n_features)
    elif read.ndim == 2:
        read = read[None]
    if read.shape[1:] != (lookback, n_features):
        many, f = f"(n, {lookback}, {n_features})", n_features
        expected = f"{many}, (n, {f}) or ({f},)" if lookback == 1 else f"{many} or {(lookback, f)}"
        raise DataError.at(path, f"must have shape {expected}, but has {given}")
    if not len(read):
        raise DataError.at(path, "is empty")
    return read


def read_baseline(model: LoadedModel, baseline: Any) -> Baseline | ReferenceBaselines:
    """A baseline in any of the forms that the HTTP API accepts too.

    Args:
        model: determines shape and names.
        baseline: ``"mean"``, ``"zero"``, ``"reference"``, ``{"reference": count, "seed": number}``,
            ``{"values": {feature: a number or one per step}}`` or ``{"instance": window}``; or a returned baseline.

    Raises:
        DataError: another form, or a value that does not fit.
        UnknownNameError: a feature that does not exist.
    """
    match baseline:
        case Baseline() | ReferenceBaselines():
            return baseline
        case str() if baseline in ("mean", "zero"):
            return Baseline("mean" if baseline == "mean" else "zero")
        case str() if baseline == "reference":
            return ReferenceBaselines(min(DEFAULT_COUNT, len(model.reference.windows)))
        case {"reference": count, **rest} if set(rest) <= {"seed"}:
            seed: Any = rest.get("seed", 0)
            check_lowest("baseline.reference", count, 2)
            check_lowest("baseline.seed", seed, 0)
            return ReferenceBaselines(int(count), int(seed))
        case {"values": Mapping() as values, **rest} if not rest:
            read = {name: read_numbers(value, f"baseline.values.{name}") for name, value in values.items()}
            for name, value in read.items():
                refuse_non_finite(value, f"baseline.values.{name}")
            return Baseline("values", values={name: value.tolist() for name, value in read.items()})
        case {"instance": instance, **rest} if not rest:
            window = read_windows(model, instance, "baseline.instance")
            if len(window) != 1:
                message = f"must be one window, but has {len(window)}"
                raise DataError.at("baseline.instance", message)
            return Baseline("instance", instance=window[0])
    raise DataError(f"baseline must be {BASELINES}, but is {quote(baseline)}", [Problem("baseline", "is unknown")])


def read_numbers(values: Any, path: str) -> Array:
    """Converts an array, tensor, column or nested lists to float64; masked values and None become NaN.

    Raises:
        DataError: a value is not a number, or nested lists differ in length.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    if type(values) is not np.ndarray and isinstance(values, np.ma.MaskedArray):  # `np.ma` is slow to import
        values = np.where(np.ma.getmaskarray(values), np.array(None), values.data)
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError.at(path, "must be an array, but its rows differ in length") from None
    if array.dtype.kind == "O":
        for place in np.ndindex(array.shape):
            if not (array[place] is None or isinstance(array[place], Real | np.bool_)):
                where = path + "".join(f"[{index}]" for index in place)
                raise DataError.at(where, f"must be a number, but is {quote(array[place])}")
    elif array.dtype.kind not in "biuf":
        raise DataError(f"{path} must hold numbers, but holds {array.dtype.name}", [Problem(path, "must hold numbers")])
    try:
        with np.errstate(over="ignore"):
            numbers: Array = array.astype(np.float64)
    except OverflowError:  # a whole number without limit
        raise DataError.at(path, "must hold numbers that float64 has") from None
    return numbers


def is_frame(windows: Any) -> bool:
    """Whether windows are given as a data frame."""
    return hasattr(windows, "columns") and hasattr(windows, "to_numpy")


def read_series(
    model: LoadedModel, frame: Any, last: int | str = 1, gaps: Gaps = "error", before: int = 0, path: str = "windows"
) -> Series:
    """The newest windows of a data frame, one for each row that is the newest of a window.

    Columns that the model does not read are ignored. Rows are in order of time if the frame has the time column of the
    training or an index of dates, else as they stand.

    Args:
        model: determines columns, time and lookback.
        frame: the data frame; its columns are those of the table in training if the checkpoint keeps how they become
            features.
        last: number of windows; or a duration, such as ``7d``, ``36h``, ``15min`` or ``2w``, before the newest row.
        gaps: ``error`` raises for a gap in time among their rows, ``skip`` leaves out the windows that span one.
        before: number of further windows before those.
        path: name of the argument in an error.

    Raises:
        DataError: a missing or repeated column, too few rows, a repeated time, a gap, or a value that is no number.
        UnknownNameError: `gaps` is another text.
    """
    refuse_unknown("gaps", gaps, get_args(Gaps))
    config, columns = model.config, Counter(frame.columns)
    names = encoding_of(config).names
    _refuse_missing(names, list(columns), f"{path} has no column")
    for name in names:
        if columns[name] > 1:
            raise DataError(f"{path} has {columns[name]} columns {name!r}", [Problem(path, f"repeats column {name!r}")])
    cells = {name: as_cells(frame[name]) for name in names}
    places = Places(path, config.time.name if config.time else "time")
    return cut_windows(config, cells, _find_times(config, frame), places, last, gaps, before)


def cut_windows(
    config: ModelConfig,
    cells: Mapping[str, Cells],
    stamps: Cells | None,
    places: Places,
    last: int | str | None = None,
    gaps: Gaps = "error",
    before: int = 0,
    is_ordered: bool = False,
) -> Series:
    """The windows of the rows of a table, one for each row that is the newest of a window.

    Args:
        config: that of the model.
        cells: the columns of the table in training, (n_rows,) each, numbers or any objects.
        stamps: the times of the rows, (n_rows,), by which they are put in order; None if they are in order.
        places: names in errors.
        last: as in `read_series`; None for as many windows as there are.
        gaps: likewise.
        before: likewise.
        is_ordered: whether times that are not in order are refused.

    Raises:
        DataError: too few rows, a bad cell, a value that is missing and cannot be filled, or times that are missing or
            bad, are repeated or have a gap.
    """
    encoding, lookback = encoding_of(config), config.lookback
    n_rows, later = len(cells[encoding.names[0]]), encoding.later
    order, instants, is_dated = _order_rows(config, stamps, n_rows, places, is_ordered)
    n_windows = n_rows - later - lookback + 1
    if last is not None:
        dated = instants[: n_rows - later] if instants is not None and is_dated else None
        n_windows = _count_windows(last, dated, places.last) + before
    n_needed = lookback - 1 + max(n_windows, 1) + later
    if n_rows < n_needed:
        steps = f"the {lookback} steps of a window" if n_windows <= 1 else f"{n_needed - later} for {n_windows} windows"
        after = f", and the {later} after {'it' if n_windows <= 1 else 'them'}, of which known columns are read"
        raise DataError.at(places.rows, f"has {n_rows} rows, but needs {steps}{after if later else ''}")
    run = _find_runs(config, instants, stamps, order, n_needed, gaps, places)
    if instants is None and encoding.calendar is not None:
        message = "is missing: the times of the rows, from which the calendar is"
        raise DataError.at(places.column(places.time), message)
    first = n_rows - n_needed
    ends = window_ends([run[first:]], n_needed, lookback + later) - later  # among the needed rows
    if not len(ends):
        raise DataError.at(places.rows, "has no window without a gap")
    found = Ends(first + ends, order, instants, None if stamps is None else stamps[order], run)
    known = slice(max(first - encoding.reach, 0), n_rows)  # beyond these rows, nothing acts on the needed ones
    first -= known.start
    numbers, bad = encoding.read({name: column[order[known]] for name, column in cells.items()})
    order = order[known]
    _refuse_bad(bad, first, order, places)
    encoded = encoding.encode(numbers, None if instants is None else instants[known], run[known])
    within = first + ends[:, None] + np.arange(1 - lookback, 1)
    is_read = np.zeros(len(order), dtype=bool)
    is_read[within.ravel()] = True
    for row, number in np.argwhere(np.isnan(encoded.values) & is_read[:, None]).tolist():
        name, problem = encoding.describe_missing(config.feature_names[number], len(order) - 1 - row)
        raise DataError.at(places.cell(name, int(order[row])), problem)
    filled = dict[str, Rows]()
    for column in encoding.columns:
        if column.name in encoded.filled:
            total = np.append(0, np.cumsum(encoded.filled[column.name]))
            newest = first + ends + column.later
            if (counts := total[newest + 1] - total[newest + 1 - lookback]).any():
                filled[column.name] = counts
    times = None if found.stamps is None else times_as_text(found.stamps[found.rows])
    read = np.flatnonzero(is_read)
    values, n_left_out = encoded.values, n_windows - len(ends)
    return Series(values[within], times, found, values[read], order[read], filled, n_left_out)


def read_outcomes(
    model: LoadedModel,
    frame: Any,
    target: str | None = None,
    last: int | str | None = None,
    gaps: Gaps = "skip",
    places: Places | None = None,
    is_ordered: bool = False,
    needs_actual: bool = True,
) -> Outcomes:
    """The windows of a table whose targets are rows of it as well, and these.

    As in training, windows with a missing value are left out, and so are those across a gap if it is skipped; a window
    of whose actual values some are missing is there.

    Args:
        model: determines columns, time, lookback and horizon.
        frame: a data frame, or a mapping of name to column, with the columns of the training, its time if it had one,
            and the target. Of a model without a time, rows have times if there is a column ``time``, or an index of
            dates, and gaps are those of their median step.
        target: its name; None for the first.
        last: as of `read_series`, of the windows whose actual values the table reaches; None for all.
        gaps: as of `read_series`.
        places: names in errors; by default those of a data frame.
        is_ordered: whether times that are not in order are refused.
        needs_actual: whether windows end where the table has the whole horizon, and an actual value is known. If not,
            there are windows up to the newest row, and actual values as far as they are known, without their times.

    Raises:
        DataError: a missing or repeated column, too few rows, a bad or repeated time, a gap unless it is skipped, a
            value that is no finite number, an unknown level, no complete window, or no actual value; or the target's
            own past is a feature, and the checkpoint does not have by how many rows it is forecast ahead.
        UnknownNameError: there is no such target.
    """
    config, time, path = model.config, model.config.time, "frame" if places is None else places.rows
    encoding = encoding_of(config)
    names = tuple(of.name for of in config.targets)
    target = names[0] if target is None else target
    refuse_unknown("target", target, names)
    data = read_columns(frame)
    column = find_target_column(target, data)
    places = places or Places(path, time.name if time else "time")
    _refuse_missing((*encoding.names, *[column] * needs_actual), list(data), f"{path} has no column")
    is_known = column in data and (column not in encoding.names or config.ahead > 0)
    if needs_actual and not is_known:
        raise DataError.at(
            places.rows, f"cannot be compared: the checkpoint does not have how many rows ahead {column} is"
        )
    stamps = _find_times(config, frame) if is_frame(frame) else data.get(time.name) if time else None
    if time is not None and stamps is None:
        raise DataError.at(places.rows, f"has no column {time.name!r}, the times of its rows")
    if time is None and "time" not in (*encoding.names, column):
        index = None if "time" in data else read_index(frame, None)
        stamps = data.get("time") if index is None else index[1]
    lookback, last_step = config.lookback, config.ahead + config.horizon - 1 if needs_actual else 0
    reach, n_rows = max(encoding.later, last_step), len(data[encoding.names[0]])
    if n_rows < lookback + reach:
        needed = f"the {lookback} steps of a window and the {reach} after it"
        raise DataError.at(places.rows, f"has {n_rows} rows, but needs {needed}")
    order, instants, is_dated = _order_rows(config, stamps, n_rows, places, is_ordered)
    if time is None and instants is not None:
        time = TimeColumn("time", float(np.median(np.diff(instants))) or 1.0, MAX_STEP, is_dated)
        config = replace(config, time=time)
    n_windows = n_rows - reach - lookback + 1
    if last is not None:
        dated = instants[: n_rows - reach] if instants is not None and is_dated else None
        n_windows = _count_windows(last, dated, places.last)
    n_needed = lookback - 1 + n_windows + reach
    if n_rows < n_needed:
        message = f"has {n_rows} rows, but needs {n_needed} for {n_windows} windows and what came after them"
        raise DataError.at(places.rows, message)
    first = n_rows - n_needed
    run = _find_runs(config, instants, stamps, order, n_needed, gaps, places)
    numbers, bad = encoding.read({name: data[name][order] for name in encoding.names})
    actual = read_cells(data[column][order]) if is_known else np.full(n_rows, np.nan)
    infinite = np.flatnonzero(np.isinf(actual)).tolist()
    for row in infinite:
        bad.setdefault(row, (column, describe_bad(data[column][order[row]])))
    _refuse_bad(bad, first, order, places)
    actual[infinite] = np.nan
    values = encoding.encode(numbers, instants, run).values
    table = TrainingTable(values, actual[:, None], config.feature_names, (column,), ahead=config.ahead)
    whole = window_ends([run], n_rows, lookback + reach) - reach
    whole = whole[whole >= first + lookback - 1]
    ends, missing = leave_out(table, whole, lookback, horizon=0)
    if not len(ends):
        reasons = [f"{n_windows - len(whole)} cross a gap"] * (len(whole) < n_windows)
        reasons += [f"{missing.windows} have a missing value, of {', '.join(missing.worst)}"] * bool(missing.windows)
        raise DataError.at(places.rows, f"has no window to forecast: of {n_windows}, {' and '.join(reasons)}")
    rows = ends[:, None] + config.ahead + np.arange(config.horizon)
    is_there = rows < n_rows
    rows = np.minimum(rows, n_rows - 1)
    is_there &= run[rows] == run[ends][:, None]
    of_windows = np.where(is_there, actual[rows], np.nan)
    if needs_actual and np.isnan(of_windows).all():
        raise DataError.at(places.rows, f"has no value of {column} that one of its {len(ends)} windows forecasts")
    texts = None if stamps is None else np.array(times_as_text(stamps[order]), dtype=object)
    local = None
    if needs_actual and instants is not None and time is not None and time.dated:
        local = (instants + zone_offsets(instants, encoding.zone))[rows]
    return Outcomes(
        target=target,
        rows=values,
        ends=ends,
        actual=of_windows,
        persistence=persistence(table, ends, 1)[:, 0],
        times=None if texts is None else tuple(texts[ends].tolist()),
        is_shifted=not config.ahead,
        target_times=texts[rows] if texts is not None and needs_actual else None,
        local=local,
        zone=encoding.zone,
        within_day=time is not None and time.step < DAY,
        across_gaps=n_windows - len(whole),
        missing=missing.windows,
        missing_columns=missing.worst,
    )


def read_stretch(
    model: LoadedModel, windows: Any, target: str | None = None, path: str = "windows", gaps: Gaps = "skip"
) -> Outcomes:
    """Windows in order of time, in any form of `Windows` or as a table, with the actual values that are known.

    Of a data frame, or of a mapping of name to column, there is a window for each row at which one ends, as of
    `read_outcomes`. Other windows have no actual values.

    Raises:
        DataError: as `read_outcomes`, or `read_windows`.
        UnknownNameError: there is no such target.
    """
    is_table = isinstance(windows, Mapping) and all(np.ndim(column) == 1 for column in windows.values())
    if is_table or is_frame(windows):
        places = Places(path, model.config.time.name if model.config.time else "time")
        return read_outcomes(model, windows, target, None, gaps, places, needs_actual=False)
    read = read_windows(model, windows, path)
    n, lookback, n_features = read.shape
    unknown = np.full((n, model.config.horizon), np.nan)
    ends = lookback - 1 + lookback * np.arange(n)
    about: dict[str, Any] = {"times": None, "target_times": None, "local": None, "zone": None, "missing_columns": {}}
    about |= {"is_shifted": False, "within_day": False, "across_gaps": 0, "missing": 0}
    rows = read.reshape(-1, n_features)
    return Outcomes(target or model.config.targets[0].name, rows, ends, unknown, unknown[:, 0], **about)


def read_pairs(
    model: LoadedModel, windows: Any, targets: Any, last: int | str | None, gaps: Gaps, places: Places | None = None
) -> tuple[Iterable[Array], Array, tuple[str, ...] | None]:
    """Windows with the actual values of the forecasts that have intervals, as `Model.calibrate` takes them.

    Returns:
        Parts of the windows, (n_part, lookback, n_features), oldest step first; the actual values, (n, n_forecasts),
        NaN where one is unknown; and the time of each window, None if unknown. All in original units.

    Raises:
        DataError: the windows or the targets do not fit, or there are no targets.
    """
    config, kept, path = model.config, list(forecasts_of(model.config)), "targets"
    if windows is not None and targets is None:
        names = dict.fromkeys(config.target_of(output).name for output in kept)
        read = [read_outcomes(model, windows, name, last, gaps, places) for name in names]
        of_targets = np.stack([outcomes.actual for outcomes in read], axis=2)
        return read[0].parts(config.lookback), of_targets.reshape(len(of_targets), -1), read[0].times
    if last is not None:
        raise DataError.at("last", "is of a data frame, but the windows are no frame")
    if targets is not None:
        if windows is None:
            raise DataError.at(path, "is given without windows")
        given, actual, times = read_windows(model, windows), read_numbers(targets, path), None
        actual = actual[:, None] if actual.ndim == 1 else actual
        if actual.ndim != 2 or len(actual) != len(given) or actual.shape[1] not in (len(kept), len(config.outputs)):
            shapes = " or ".join(f"{(len(given), n)}" for n in sorted({len(kept), len(config.outputs)}))
            raise DataError.at(path, f"must have shape {shapes}, but has {actual.shape}")
        for row, column in np.argwhere(np.isinf(actual)).tolist():
            raise DataError.at(f"{path}[{row}][{column}]", "must be finite, or empty where it is unknown")
    else:
        known = model.reference
        if known.targets is None:
            raise DataError.at(path, "of the reference windows are unknown: give a table, or windows with targets")
        given, actual, times = model.scaling.features_to_original(known.windows), known.targets, known.times
    return [given], actual if actual.shape[1] == len(kept) else actual[:, kept], times


def _refuse_bad(bad: Mapping[int, tuple[str, str]], first: int, order: Rows, places: Places) -> None:
    """Raises `DataError` for the first bad cell from a row on, of those that `Encoding.read` found in some order."""
    for row, (name, problem) in sorted(bad.items()):
        if row >= first:
            raise DataError.at(places.cell(name, int(order[row])), problem)


def find_target_column(target: str, names: Container[str]) -> str:
    """The column of a target's actual values; a quantile without its own has that of what it is a quantile of."""
    found = QUANTILE.fullmatch(target)
    return found[1] if found and target not in names else target


@cache
def _plain_encoding(names: tuple[str, ...]) -> Encoding:
    return Encoding(tuple(map(SourceColumn, names)))


def encoding_of(config: ModelConfig) -> Encoding:
    """How columns become features; without such a rule they are features as they stand."""
    return config.encoding or _plain_encoding(config.feature_names)


def read_duration(text: str) -> float | None:
    """The seconds of a duration such as ``7d``, ``36h`` or ``15min``; None if it is none, or 0."""
    found = _DURATION.fullmatch(text.strip())
    return float(found[1]) * _SECONDS[found[2]] or None if found else None


def _count_windows(last: int | str, instants: Array | None, place: str) -> int:
    """The number of windows that `last` asks for, by the dates of the rows at which one may end, in seconds."""
    if not isinstance(last, str):
        check_lowest(place, last, 1)
        return int(last)
    seconds = read_duration(last)
    if seconds is None:
        raise DataError.at(place, f"must be a number of windows, or a duration such as 7d or 36h, but is {quote(last)}")
    if instants is None:
        raise DataError.at(place, f"must be a number of windows, as the rows have no dates, but is {quote(last)}")
    return max(1, int((instants > instants[-1] - seconds).sum())) if len(instants) else 1


def _find_times(config: ModelConfig, frame: Any) -> Cells | None:
    """The times of a frame's rows, if the model has a time and the frame its column, or such an index."""
    if config.time is not None and config.time.name in frame.columns:
        return as_cells(frame[config.time.name])
    index = read_index(frame, config.time.name) if config.time is not None and config.time.dated else None
    return None if index is None else index[1]


def _order_rows(
    config: ModelConfig, stamps: Cells | None, n_rows: int, places: Places, is_ordered: bool
) -> tuple[Rows, Array | None, bool]:
    """The rows in order of time, and their instants in it, if they have times, and whether these are dates."""
    if stamps is None:
        return np.arange(n_rows), None, False
    zone, place = config.encoding.zone if config.encoding else None, partial(places.cell, places.time)
    instants, dated = read_instants(stamps, place, zone)
    if config.time is not None and dated != config.time.dated:
        kind = "dates" if config.time.dated else "numbers"
        raise DataError.at(places.column(places.time), f"must hold {kind}, as in training")
    for row in np.flatnonzero(np.diff(instants) <= 0).tolist() if is_ordered else ():
        before, after = times_as_text(stamps[row : row + 2])
        raise DataError.at(place(row + 1), f"must be later than {before} in the row before it, but is {after}")
    order = np.argsort(instants, kind="stable")
    return order, instants[order], dated


def _find_runs(
    config: ModelConfig,
    instants: Array | None,
    stamps: Cells | None,
    order: Rows,
    n_needed: int,
    gaps: Gaps,
    places: Places,
) -> Rows:
    """A number for each row in the order of time, which changes at a gap, after `_check_steps` of the newest."""
    if config.time is None or instants is None or stamps is None:
        return np.zeros(len(order), dtype=np.int64)
    _check_steps(config.time, instants, stamps, order, n_needed, gaps, places)
    return np.cumsum(config.time.is_gap(np.diff(instants, prepend=instants[0])))


def _check_steps(
    time: TimeColumn, instants: Array, stamps: Cells, order: Rows, n_needed: int, gaps: Gaps, places: Places
) -> None:
    """Raises `DataError` for a repeated time or, unless skipped, a gap in the newest rows, which are in order."""
    steps = np.diff(instants[-n_needed - 1 :])  # with the row before them, which may repeat a time
    first = len(instants) - len(steps)
    for step in np.flatnonzero(steps == 0).tolist():
        row = order[first + step]
        message = f"must not repeat a time, but has {times_as_text(stamps[[row]])[0]} twice"
        raise DataError.at(places.cell(places.time, int(row)), message)
    within = steps[len(steps) - n_needed + 1 :]
    if 2 * time.is_short(within).sum() > len(within):
        message = f"has mostly steps shorter than those of the training, {time.usual_step}: give rows at that distance"
        raise DataError.at(places.column(places.time), message)
    for step in np.flatnonzero(time.is_gap(within)).tolist() if gaps == "error" else ():
        rows = order[len(order) - n_needed + step :][:2]
        before, after = times_as_text(stamps[rows])
        message = (
            f"must have no gap before it, but goes from {before} to {after}; gaps skip leaves out windows across it"
        )
        raise DataError.at(places.cell(places.time, int(rows[1])), message)


def _read_mapping(model: LoadedModel, mapping: Mapping[Any, Any], path: str) -> Array:
    """A mapping of feature name to (n, lookback) or (lookback,)."""
    names, lookback = model.config.feature_names, model.config.lookback
    for name in mapping:
        if name not in names:
            known = ", ".join(names)
            raise UnknownNameError(f"{path} has {quote(name)}, which is not a feature; the features are {known}")
    _refuse_missing(names, list(mapping), f"{path} lacks feature")
    columns = [read_numbers(mapping[name], f"{path}[{name!r}]") for name in names]
    shape = columns[0].shape
    for name, column in zip(names, columns, strict=True):
        place = f"{path}[{name!r}]"
        if column.ndim not in (1, 2) or column.shape[-1] != lookback:
            raise DataError.at(place, f"must have shape (n, {lookback}) or ({lookback},), but has {column.shape}")
        if column.shape != shape:
            raise DataError.at(place, f"must have shape {shape} as {names[0]!r} has, but has {column.shape}")
        refuse_non_finite(column, place)
    return np.stack(columns, axis=-1)


def _refuse_missing(names: Sequence[str], found: Sequence[Any], what: str) -> None:
    missing = [name for name in names if name not in found]
    if missing:
        problems = [Problem(name, "is missing") for name in missing]
        raise DataError(f"{what} {', '.join(map(str.__repr__, missing))}", problems)
