"""From a data frame, or a mapping of names to arrays, to the table that a model is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.data import MAX_STEP, Array, Clock, refuse_non_finite, times_as_text
from kanmodel.errors import DataError, UnknownNameError, quote
from kanmodel.network.config import Groups, resolve_groups

Labels = NDArray[np.generic]

PARTS = ("train", "validation", "test")
MISSING = ("", "na", "nan", "<na>", "nat", "none", "null")  # cells without a value, case-insensitive


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What is known of columns by their names; the fields are arguments of `kanmodel.train`."""

    ahead: int = 0
    units: Mapping[str, str] = field(default_factory=dict)
    last_value: Mapping[str, str | float] = field(default_factory=dict)
    groups: Groups = field(default_factory=dict)
    integer: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Columns(Roles):
    """The roles of a frame's columns; the fields are arguments of `kanmodel.train`."""

    targets: tuple[str, ...]
    features: tuple[str, ...] | None = None
    split: str | None = None
    segment: str | None = None
    time: str | None = None
    max_step: float = MAX_STEP

    @property
    def special(self) -> tuple[str, ...]:
        """The columns of labels and times."""
        return tuple(name for name in (self.split, self.segment, self.time) if name is not None)

    @property
    def no_features(self) -> set[str]:
        """Columns that are not features unless they are named as such."""
        return {*self.special, *(() if self.ahead else self.targets)}


@dataclass(frozen=True)
class TrainingTable(Roles):
    """The columns of a table, as arrays; rows oldest first, NaN where a value is missing.

    Raises:
        DataError: a value is infinite, or not whole in an integer feature; `ahead`, the split or a group is invalid, or
            a shifted target is a feature.
        UnknownNameError: a name is not one of the columns.
    """

    features: Array  # (n_rows, n_features), original units
    targets: Array  # (n_rows, n_targets), original units
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    split: Labels | None = None  # (n_rows,), one of `PARTS`; None if the newest 15 % are for the test
    segment: Labels | None = None  # (n_rows,), changes where another series begins; None if there is only one
    clock: Clock | None = None  # the instant of each row, if known; no window spans one of its gaps
    times: tuple[str, ...] | None = None  # each row's time stamp, if known
    left_out: Mapping[str, str] = field(default_factory=dict)  # why a column is not a feature, if none were named

    def __post_init__(self) -> None:
        for path, values in (("features", self.features), ("targets", self.targets)):
            refuse_non_finite(np.where(np.isnan(values), 0.0, values), path)
        if type(self.ahead) is not int or self.ahead < 0:
            raise DataError(f"ahead must be a whole number from 0, but is {self.ahead!r}")
        names, targets = self.feature_names, self.target_names
        for name in targets:
            if name in names and not self.ahead:
                raise DataError(f"{name} is a target and a feature, so the model would see the value to forecast")
        for what, given, known in (
            ("unit", self.units, (*names, *targets)),
            ("last value", self.last_value, targets),
            ("last value", [str(source) for source in self.last_value.values() if source != 0], names),
            ("fixed feature", self.fixed, names),
            ("integer feature", self.integer, names),
        ):
            for name in given:
                if name not in known:
                    raise UnknownNameError(f"{what} given for {name!r}, which is not one of {list(known)}")
        resolve_groups(self.groups, names)
        for name in self.integer:
            values = self.features[:, names.index(name)]
            for row in np.flatnonzero((values != np.rint(values)) & ~np.isnan(values)).tolist():
                raise DataError.at(_place(row, name), f"must be a whole number, but is {values[row]}")
        for row, label in enumerate([] if self.split is None else self.split.tolist()):
            if label not in PARTS:
                raise DataError(f"the split of data row {row + 1} must be one of {list(PARTS)}, but is {label!r}")

    @property
    def n_rows(self) -> int:
        """Rows of the table."""
        return len(self.features)

    @property
    def segments(self) -> list[tuple[int, int]]:
        """First row of each segment, and the row after its last."""
        changes = [] if self.segment is None else (np.flatnonzero(self.segment[1:] != self.segment[:-1]) + 1).tolist()
        return list(pairwise([0, *changes, self.n_rows]))


def make_table(frame: Any, columns: Columns) -> TrainingTable:
    """Converts a frame to a table for training.

    The frame is anything with ``.columns`` whose columns have ``.to_numpy()``, or a mapping of name to array; rows
    oldest first. None, NaN and masked values are missing. Raises as `TrainingTable`, and DataError if columns differ in
    length, a value is neither a number nor missing, or a time is invalid or not later than the one above it.
    """
    if not columns.targets:
        raise DataError.at("target", "must name at least one column")
    data = _read_columns(frame)
    for name in (*columns.targets, *(columns.features or ()), *columns.special):
        if name not in data:
            raise UnknownNameError(f"there is no column {name!r}; the columns are {', '.join(map(str, data))}")
    if columns.features == ():
        raise DataError.at("features", "must name at least one column")
    candidates = columns.features or tuple(name for name in data if name not in columns.no_features)
    left_out = {} if columns.features else {name: why for name in candidates if (why := _why_no_numbers(data[name]))}
    features = tuple(name for name in candidates if name not in left_out)
    if not features:
        beside = ", ".join((*columns.targets, *columns.special))
        named = f"; {describe_left_out(left_out)}" if left_out else ""
        raise DataError(f"there is no numeric column besides {beside}{named}")
    segment, time = _labels(data, columns.segment), columns.time
    return TrainingTable(
        features=np.column_stack([_numbers(data[name], name) for name in features]),
        targets=np.column_stack([_numbers(data[name], name) for name in columns.targets]),
        feature_names=features,
        target_names=columns.targets,
        split=_labels(data, columns.split),
        segment=segment,
        clock=None if time is None else Clock.of(data[time], segment, columns.max_step, time),
        times=None if time is None else times_as_text(data[time]),
        left_out=left_out,
        **{role.name: getattr(columns, role.name) for role in fields(Roles)},
    )


def describe_left_out(left_out: Mapping[str, str]) -> str:
    """One sentence about columns that are not features."""
    return "not used as features: " + ", ".join(f"{name} ({why})" for name, why in left_out.items())


def _read_columns(frame: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The columns by name, one-dimensional and of equal length."""
    if not isinstance(frame, Mapping) and not hasattr(frame, "columns"):
        kind = type(frame).__name__
        raise DataError(f"the table must be a data frame or a mapping of name to array, but is a {kind}")
    names = list(frame) if isinstance(frame, Mapping) else list(frame.columns)
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(f"there is more than one column {repeated[0]!r}")
    data = {name: _as_array(frame[name]) for name in names}
    for name, values in data.items():
        if values.ndim != 1 or values.shape != data[names[0]].shape:
            expected = data[names[0]].shape if data[names[0]].ndim == 1 else "(n,)"
            raise DataError(f"column {name} must have the shape {expected}, but has {values.shape}")
    return data


def _as_array(values: Any) -> np.ndarray[Any, Any]:
    array = values.to_numpy() if hasattr(values, "to_numpy") else values
    if isinstance(array, np.ma.MaskedArray):
        array = np.where(np.ma.getmaskarray(array), np.array(None), array.data)
    read = np.asarray(array)
    # a list of numbers and words keeps the type of each cell
    return np.array(array, dtype=object) if read.dtype.kind == "U" and isinstance(array, list | tuple) else read


def _why_no_numbers(values: np.ndarray[Any, Any]) -> str | None:
    """Why a column is not a feature; None if it holds a number, or a boolean, which is 0 or 1."""
    if values.dtype.kind in "biu":
        return None
    if values.dtype.kind == "f":
        return "no value" if np.isnan(values).all() else None
    if values.dtype.kind != "O":
        return "text" if values.dtype.kind in "US" else str(values.dtype)
    cells = [cell for cell in values.tolist() if not _is_missing(cell)]
    if any(map(_is_number, cells)):
        return None
    return type(cells[0]).__name__.replace("str", "text") if cells else "no value"


def _numbers(values: np.ndarray[Any, Any], name: str) -> Array:
    """A column in float64, NaN where a value is missing."""
    if values.dtype.kind in "biuf":
        numbers = values.astype(np.float64)
    else:

        def read(cell: Any) -> float:
            return np.nan if _is_missing(cell) else float(cell) if _is_number(cell) else np.inf

        numbers = np.array([read(cell) for cell in values.tolist()])
    for row in np.flatnonzero(np.isinf(numbers)).tolist():
        raise DataError.at(_place(row, name), f"must be a finite number or empty, but is {quote(values.tolist()[row])}")
    return numbers


def _labels(data: Mapping[str, np.ndarray[Any, Any]], name: str | None) -> Labels | None:
    """A column of labels as text."""
    if name is None:
        return None
    labels: Labels = np.array([str(cell) for cell in data[name].tolist()])
    for row, cell in enumerate(labels.tolist()):
        if _is_missing(cell):
            raise DataError(f"{_place(row, name)} is empty")
    return labels


def _is_number(cell: Any) -> bool:
    return isinstance(cell, Real | Decimal | np.bool_)


def _is_missing(cell: Any) -> bool:
    return str(cell).strip().lower() in MISSING


def _place(row: int, name: str) -> str:
    return f"data row {row + 1}, column {name}"
