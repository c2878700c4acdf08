"""Windows and baselines in any accepted form (arrays, mappings, data frames) -> checked arrays in original units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel
from kanmodel.data import Array, read_instants, refuse_non_finite, times_as_text
from kanmodel.encoding import Encoding, as_cells
from kanmodel.errors import DataError, Problem, UnknownNameError, check_lowest, quote
from kanmodel.explain.baseline import DEFAULT_COUNT, Baseline, ReferenceBaselines
from kanmodel.network.config import ModelConfig

BASELINES = (
    '"mean", "zero", "reference", {"reference": count, "seed": number}, '
    '{"values": {feature: a number or one per step}} or {"instance": window}'
)


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
    if hasattr(windows, "columns") and hasattr(windows, "to_numpy"):
        read = _read_frame(model, windows, path)
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
    if isinstance(values, np.ma.MaskedArray):
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


def _read_frame(model: LoadedModel, frame: Any, path: str) -> Array:
    """The newest rows of a frame as one window, columns by name; columns that are not features are ignored."""
    config, columns = model.config, list(frame.columns)
    names, lookback = (config.encoding.names if config.encoding else config.feature_names), config.lookback
    _refuse_missing(names, columns, f"{path} has no column")
    count = Counter(columns)
    for name in names:
        if count[name] > 1:
            raise DataError(f"{path} has {count[name]} columns {name!r}", [Problem(path, f"repeats column {name!r}")])
    if config.encoding is not None:
        return _encode_frame(config, config.encoding, frame, path)
    rows = np.asarray(frame.to_numpy())
    if rows.ndim != 2 or len(rows) < lookback:
        raise DataError.at(path, f"has {len(rows)} rows, but a window has {lookback} steps")
    newest = _order_rows(config, frame, len(rows), lookback, path)[0][-lookback:]
    window = [read_numbers(rows[newest, columns.index(name)], f"{path}[{name!r}]") for name in names]
    for name, column in zip(names, window, strict=True):
        for step in np.flatnonzero(~np.isfinite(column)):
            raise DataError.at(f"{path}[{name!r}], row {newest[step]}", "must be finite")
    return np.stack(window, axis=1)


def _encode_frame(config: ModelConfig, encoding: Encoding, frame: Any, path: str) -> Array:
    """The newest window of a frame whose columns are those of the training, which `encoding` makes features."""
    cells, n_needed = {name: as_cells(frame[name]) for name in encoding.names}, config.lookback + encoding.later
    n_rows = len(frame)
    if n_rows < n_needed:
        after = f", and the {encoding.later} after it, of which known columns are read" if encoding.later else ""
        raise DataError.at(path, f"has {n_rows} rows, but needs the {config.lookback} steps of a window{after}")
    order, instants = _order_rows(config, frame, n_rows, n_needed, path)
    cells, run = {name: column[order] for name, column in cells.items()}, np.zeros(n_rows, dtype=np.int64)
    if config.time is not None:
        if instants is None:
            raise DataError.at(
                path, f"has no column {config.time.name!r}, the times of the rows, nor an index of dates"
            )
        run = np.cumsum(config.time.is_gap(np.diff(instants, prepend=instants[0])))
    numbers, bad = encoding.read(cells)
    first = n_rows - n_needed
    for row, (name, problem) in bad.items():
        if row >= first:
            raise DataError.at(f"{path}[{name!r}], row {order[row]}", problem)
    encoded = encoding.encode(numbers, instants, run)
    window = encoded.values[first : first + config.lookback]
    for step, number in np.argwhere(np.isnan(window)).tolist():
        name, problem = encoding.describe_missing(config.feature_names[number], n_rows - 1 - first - step)
        raise DataError.at(f"{path}[{name!r}], row {order[first + step]}", problem)
    return window


def _order_rows(
    config: ModelConfig, frame: Any, n_rows: int, n_needed: int, path: str
) -> tuple[NDArray[np.int64], Array | None]:
    """The rows of a frame in order of time, and their instants, if the model and the frame have a time.

    Raises `DataError` for a gap in the newest `n_needed` rows.
    """
    time, values = config.time, None
    if time is not None and time.name in frame.columns:
        values = as_cells(frame[time.name])
    elif time is not None and time.dated and hasattr(frame, "index"):
        index = frame.index.to_numpy()
        values = index if len(index) and (index.dtype.kind == "M" or isinstance(index[0], datetime)) else None
    if time is None or values is None:
        return np.arange(n_rows), None
    column = f"{path}[{time.name!r}]"
    instants, dated = read_instants(values, time.name, config.encoding.zone if config.encoding else None)
    if dated != time.dated:
        raise DataError.at(column, f"must hold {'dates' if time.dated else 'numbers'}, as in training")
    order = np.argsort(instants, kind="stable")
    steps = np.diff(instants[order[-n_needed - 1 :]])  # with the row before the window, which may repeat a time
    if (steps == 0).any():
        row = order[len(order) - len(steps) + int(np.flatnonzero(steps == 0)[0])]
        raise DataError.at(column, f"must not repeat a time, but has {times_as_text(values[[row]])[0]} twice")
    within = steps[len(steps) - n_needed + 1 :]
    if 2 * time.is_short(within).sum() > len(within):
        message = f"has mostly steps shorter than those of the training, {time.usual_step}: give rows at that distance"
        raise DataError.at(column, message)
    for place in np.flatnonzero(time.is_gap(within)).tolist():
        before, after = times_as_text(values[order[len(order) - n_needed + place :][:2]])
        message = f"must have no gap in the window's {n_needed} rows, but goes from {before} to {after}"
        raise DataError.at(column, message)
    return order, instants[order]


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
