"""From a data frame, or a mapping of names to arrays, to the table that a model is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array, refuse_non_finite
from kanmodel.errors import ConfigError, DataError, UnknownNameError, refuse_unknown
from kanmodel.network.config import Groups, resolve_groups
from kanmodel.tables.encoding import (
    CALENDAR,
    DAYS_OF,
    MAX_FILL,
    MAX_LEVELS,
    Calendar,
    Encoding,
    Fill,
    SourceColumn,
    as_cells,
    describe_bad,
    is_missing,
    is_number,
    level_of,
    public_holidays,
    read_cells,
)
from kanmodel.tables.instants import DAY, MAX_STEP, Clock, find_zone, read_index, times_as_text

Labels = NDArray[np.generic]

NO_VALUE = "no value"
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What is known of columns by their names; the fields are arguments of `kanmodel.train`."""

    ahead: int = 0
    units: Mapping[str, str] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
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
    zone: str | None = None
    calendar: bool | Sequence[str] = False
    holidays: str | None = None
    known: tuple[str, ...] = ()
    fill: str | float | None = None
    max_fill: int = MAX_FILL

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
    encoding: Encoding | None = None  # from which the features are computed; None if they are columns as they stand

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
            ("title", self.titles, (*names, *targets)),
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


def make_table(frame: Any, columns: Columns, encoding: Encoding | None = None) -> TrainingTable:
    """Converts a frame to a table for training.

    The frame is anything with ``.columns`` whose columns have ``.to_numpy()``, or a mapping of name to array; rows
    oldest first. None, NaN and masked values are missing. An index of dates is the time, if no column is named as such.
    The features are those of `encoding`, or by default of a new one, see `kanmodel.train`.

    Raises as `TrainingTable`, and DataError if columns differ in length, a value is neither a number nor a text nor
    missing, or a time is invalid or not later than the one above it; ConfigError for other options of the encoding.
    """
    if not columns.targets:
        raise DataError.at("target", "must name at least one column")
    data = read_columns(frame)
    index = None if columns.time in data else read_index(frame, columns.time)
    if index is not None and columns.time in (None, index[0]):
        columns = replace(columns, time=columns.time or index[0])
        data[str(columns.time)] = index[1]
    time, known = columns.time, columns.known
    for name in (*columns.targets, *(columns.features or ()), *columns.special, *known):
        if name not in data:
            raise UnknownNameError(f"there is no column {name!r}; the columns are {', '.join(map(str, data))}")
    if columns.features == ():
        raise DataError.at("features", "must name at least one column")
    segment, left_out, clock = _labels(data, columns.segment), dict[str, str](), None
    zone = columns.zone or (encoding.zone if encoding else None)
    if time is not None:
        quoted = {name: data[name] for name in columns.targets}
        clock = Clock.of(data[time], segment, columns.max_step, time, zone, quoted)
    if encoding is not None:
        if missing := [name for name in encoding.names if name not in data]:
            raise UnknownNameError(f"there is no column {missing[0]!r}; the columns are {', '.join(map(str, data))}")
    else:
        encoding, left_out = _plan_encoding(frame, data, columns, clock)
    breaks = np.zeros(len(data[columns.targets[0]]), dtype=bool) if clock is None else clock.gaps.copy()
    if segment is not None:
        breaks[1:] |= segment[1:] != segment[:-1]
    numbers, bad = encoding.read(data)
    for row, (name, problem) in bad.items():
        raise DataError.at(_place(row, name), problem)
    encoded = encoding.encode(numbers, None if clock is None else clock.seconds, np.cumsum(breaks))
    roles = {role.name: getattr(columns, role.name) for role in fields(Roles)}
    if not encoding.is_plain:  # the options of a column are those of its features
        for role in ("integer", "fixed"):
            roles[role] = tuple(of for name in roles[role] for of in encoding.sources.get(name, (name,)))
        roles["fixed"] = tuple(dict.fromkeys((*roles["fixed"], *encoding.fixed)))
        of_features = {of: unit for name, unit in columns.units.items() for of in encoding.sources.get(name, (name,))}
        targets = {name: unit for name, unit in columns.units.items() if name in columns.targets}
        roles |= {"units": of_features | targets, "groups": {**encoding.groups, **columns.groups}}
        alone = {name: of[0] for name, of in encoding.sources.items() if len(of) == 1}
        roles["titles"] = {alone.get(name, name): title for name, title in columns.titles.items()}
    return TrainingTable(
        features=encoded.values,
        targets=np.column_stack([_numbers(data[name], name) for name in columns.targets]),
        feature_names=encoding.features,
        target_names=columns.targets,
        split=_labels(data, columns.split),
        segment=segment,
        clock=clock,
        times=None if time is None else times_as_text(data[time]),
        left_out=left_out,
        encoding=None if encoding.is_plain else encoding,
        **roles,
    )


def _plan_encoding(
    frame: Any, data: Mapping[str, np.ndarray[Any, Any]], columns: Columns, clock: Clock | None
) -> tuple[Encoding, dict[str, str]]:
    """The encoding of a frame by the options, and why columns are not features."""
    known, left_out, sources = columns.known, dict[str, str](), list[SourceColumn]()
    if known and not columns.ahead:
        raise DataError.at("known", "needs ahead: values are taken so many rows later, where the target is")
    for name in columns.features or (name for name in data if name not in columns.no_features):
        levels, why = _plan(data[name])
        if why and why != NO_VALUE and (columns.features or name in known):
            raise DataError(f"column {name} cannot be a feature: {why}")
        if why and not columns.features:
            left_out[name] = why
            continue
        sources.append(SourceColumn(name, levels, columns.ahead if name in known else 0))
    for name in known:
        if name in columns.targets:
            raise DataError(f"{name} is a target, so its future is not known")
        if name not in (source.name for source in sources):
            raise DataError(f"{name} is known, but not one of the features")
    parts = columns.calendar
    if not sources:
        beside = ", ".join((*columns.targets, *columns.special))
        named = f"; {describe_left_out(left_out)}" if left_out else ""
        raise DataError(f"there is no column of numbers or texts besides {beside}{named}")
    calendar = None
    if parts or columns.holidays:
        if clock is None or not clock.dated:
            raise DataError.at("calendar", "needs time: a column, or an index, of dates")
        if isinstance(parts, bool):
            parts = [part for part in CALENDAR if clock.step < DAYS_OF[part] * DAY] if parts else []
        for part in parts:
            refuse_unknown("calendar part", part, CALENDAR)
        if columns.holidays:
            public_holidays(columns.holidays)
        calendar = Calendar(tuple(dict.fromkeys(parts)), columns.ahead * clock.step, columns.holidays)
    zone = columns.zone
    if zone is None and calendar is not None and columns.time is not None:
        zone = find_zone_of(frame, columns.time)
    encoding = Encoding(tuple(sources), calendar, Fill.of(columns.fill, columns.max_fill), zone)
    features = encoding.features
    for name in (*encoding.groups, *features):
        if features.count(name) > 1 or (name in encoding.groups and name in features):
            raise DataError(f"there is a column {name}, which is also the name of a calendar feature: rename it")
    return encoding, left_out


def find_zone_of(frame: Any, time: str) -> str | None:
    """The time zone of a frame's times, by its IANA name; None if they have none, or another one."""
    column = frame[time] if time in list(getattr(frame, "columns", frame)) else frame.index
    dtype = getattr(column, "dtype", None)
    zone = getattr(dtype, "tz", None) or getattr(dtype, "time_zone", None)
    try:
        return None if zone is None else find_zone(str(zone)).key
    except ConfigError:  # of an offset
        return None


def describe_left_out(left_out: Mapping[str, str]) -> str:
    """One sentence about columns that are not features."""
    return "not used as features: " + ", ".join(f"{name} ({why})" for name, why in left_out.items())


def read_columns(frame: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The columns by name, one-dimensional and of equal length."""
    if not isinstance(frame, Mapping) and not hasattr(frame, "columns"):
        kind = type(frame).__name__
        raise DataError(f"the table must be a data frame or a mapping of name to array, but is a {kind}")
    names = list(frame) if isinstance(frame, Mapping) else list(frame.columns)
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(f"there is more than one column {repeated[0]!r}")
    data = {name: as_cells(frame[name]) for name in names}
    for name, values in data.items():
        if values.ndim != 1 or values.shape != data[names[0]].shape:
            expected = data[names[0]].shape if data[names[0]].ndim == 1 else "(n,)"
            raise DataError(f"column {name} must have the shape {expected}, but has {values.shape}")
    return data


def _plan(values: np.ndarray[Any, Any]) -> tuple[tuple[str, ...], str | None]:
    """The levels of a column of texts, none of one of numbers or booleans; or why it is not a feature."""
    kind = values.dtype.kind
    if kind in "biu":
        return (), None
    if kind == "f":
        return (), NO_VALUE if np.isnan(values).all() else None
    if kind not in "OUS":
        return (), str(values.dtype)
    cells = [cell for cell in values.tolist() if not is_missing(cell)]
    if not cells or any(map(is_number, cells)):
        return (), None if cells else NO_VALUE
    if not all(isinstance(cell, str) for cell in cells):
        return (), type(cells[0]).__name__
    levels = tuple(sorted({level_of(cell) for cell in cells}))
    if len(levels) == 1:
        return (), "the same text in every row"
    if len(levels) > MAX_LEVELS and np.isfinite(read_cells(np.array(cells, dtype=object))).all():
        return (), None  # numbers that were read as texts, since some cells have a word for a missing value
    if len(levels) > MAX_LEVELS:
        return (), f"{len(levels)} different texts, more than {MAX_LEVELS}"
    return levels, None


def _numbers(values: np.ndarray[Any, Any], name: str) -> Array:
    """A column in float64, NaN where a value is missing."""
    numbers = read_cells(values)
    for row in np.flatnonzero(np.isinf(numbers)).tolist():
        raise DataError.at(_place(row, name), describe_bad(values[[row]].tolist()[0]))
    return numbers


def _labels(data: Mapping[str, np.ndarray[Any, Any]], name: str | None) -> Labels | None:
    """A column of labels as text."""
    if name is None:
        return None
    labels: Labels = np.array([str(cell) for cell in data[name].tolist()])
    for row, cell in enumerate(labels.tolist()):
        if is_missing(cell):
            raise DataError(f"{_place(row, name)} is empty")
    return labels


def _place(row: int, name: str) -> str:
    return f"data row {row + 1}, column {name}"
