"""`TrainingTable`: the rows that a model is trained on, from a table and the roles of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.errors import DataError, UnknownNameError, quote, refuse_unknown
from kanmodel.tables.encoding import (
    CALENDAR,
    DAYS_OF,
    MAX_FILL,
    MAX_LEVELS,
    Calendar,
    Encoding,
    Fill,
    SourceColumn,
    public_holidays,
)
from kanmodel.tables.frames import NO_VALUE, Cells, melt, plan_levels, read_columns, read_labels
from kanmodel.tables.instants import DAY, find_zone_of, read_index
from kanmodel.tables.rhythm import MAX_STEP, TimeColumn
from kanmodel.tables.table import Places, Selection, SeriesColumn, Table, TableSpec, find_rhythm

Labels = NDArray[np.object_]
Groups = Mapping[str, Sequence[str]]
PARTS = ("train", "validation", "test")
SERIES = "series"  # the name of the column of series of a wide table


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What is known of columns by their names; the fields are arguments of `kanmodel.train`."""

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
    series: str | tuple[str, ...] | None = None
    static: tuple[str, ...] = ()
    time: str | None = None
    max_step: float = MAX_STEP
    zone: str | None = None
    calendar: bool | Sequence[str] = False
    holidays: str | None = None
    known: tuple[str, ...] = ()
    fill: str | float | None = None
    max_fill: int = MAX_FILL
    ahead: int = 0
    horizon: int = 1

    @property
    def series_column(self) -> str | None:
        """The name of the column of series."""
        return self.series if self.series is None or isinstance(self.series, str) else SERIES

    @property
    def special(self) -> tuple[str, ...]:
        """The columns of labels and times."""
        return tuple(name for name in (self.split, self.series_column, self.time) if name is not None)

    @property
    def no_features(self) -> set[str]:
        """Columns that are not features unless they are named as such."""
        return {*self.special, *(() if self.ahead else self.targets)}


@dataclass(frozen=True, kw_only=True)
class TrainingTable(Roles):
    """The rows of a table that a model is trained on, in the order of `Table`.

    Attributes:
        table: the rows.
        split: one of `PARTS` of each row, (n_rows,); None if the newest 15 % are for the test.
        left_out: why a column is not a feature, if none were named.

    Raises:
        DataError: a value is not whole in an integer feature, the split is invalid, or a shifted target is a feature.
        UnknownNameError: a name is not one of the columns.
    """

    table: Table
    split: Labels | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names, targets, spec = self.feature_names, self.target_names, self.table.spec
        for name in targets:
            if name in spec.encoding.names and not spec.ahead:
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
        for number, column in enumerate(spec.encoding.columns):
            values = self.table.numbers[:, number]
            if not column.levels and column.features[0] in self.integer:
                for row in np.flatnonzero((values != np.rint(values)) & ~np.isnan(values)).tolist():
                    raise DataError.at(
                        self.table.cell(column.name, row), f"must be a whole number, but is {values[row]}"
                    )
            if column.static:
                self._refuse_changes(column, values)
        for row, label in enumerate([] if self.split is None else self.split.tolist()):
            if label not in PARTS:
                place = f"the split of data row {self.table.order[row] + 1}"
                raise DataError(f"{place} must be one of {list(PARTS)}, but is {label!r}")

    def _refuse_changes(self, column: SourceColumn, values: NDArray[np.float64]) -> None:
        """Raises `DataError` unless a static column has one value in each series."""
        rows = np.flatnonzero(~np.isnan(values))
        codes = self.table.codes[rows]
        changes = (codes[1:] == codes[:-1]) & (values[rows][1:] != values[rows][:-1])
        for place in np.flatnonzero(changes).tolist():
            message = "is another value than in the row before it, but a static column has one for each series"
            raise DataError.at(self.table.cell(column.name, int(rows[place + 1])), message)

    @property
    def spec(self) -> TableSpec:
        """What the columns are."""
        return self.table.spec

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features."""
        return self.table.spec.encoding.features

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets."""
        return self.table.spec.targets

    @property
    def n_rows(self) -> int:
        """Rows of the table."""
        return len(self.table)


def make_table(frame: Any, columns: Columns, spec: TableSpec | None = None) -> TrainingTable:
    """Converts a frame to a table for training.

    The frame is any that `read_columns` takes; rows of each series oldest first. None, NaN and masked values are
    missing. An index of dates is the time, if no column is named as such. How the columns become features is that of
    `spec`, or by default a new one, see `kanmodel.train`.

    Raises as `TrainingTable` and `Table.read`, and ConfigError for other options of the encoding.
    """
    if not columns.targets:
        raise DataError.at("target", "must name at least one column")
    if type(columns.ahead) is not int or columns.ahead < 0:
        raise DataError(f"ahead must be a whole number from 0, but is {columns.ahead!r}")
    data, zone = read_columns(frame), columns.zone
    if columns.series is not None and not isinstance(columns.series, str):
        data = _melt(data, columns)
    index = None if columns.time in data else read_index(frame, columns.time)
    if index is not None and columns.time in (None, index[0]):
        columns = replace(columns, time=columns.time or index[0])
        data[str(columns.time)] = np.tile(index[1], len(data[columns.targets[0]]) // max(len(index[1]), 1))
    for name in (*columns.targets, *(columns.features or ()), *columns.special, *columns.known, *columns.static):
        if name not in data:
            raise UnknownNameError(f"there is no column {name!r}; the columns are {', '.join(map(str, data))}")
    if columns.features == ():
        raise DataError.at("features", "must name at least one column")
    zone = zone or (spec.time.zone if spec and spec.time else None)
    if zone is None and columns.time is not None:
        zone = find_zone_of(frame, columns.time)
    places, left_out, series = Places("the table", columns.time or "time", kind="file"), dict[str, str](), None
    if columns.series_column is not None:
        labels = read_labels(data[columns.series_column], partial(places.cell, columns.series_column))
        wide = () if isinstance(columns.series, str) else tuple(columns.series or ())
        series = SeriesColumn(columns.series_column, tuple(dict.fromkeys(labels.tolist())), wide)
    if not columns.max_step >= 1:
        raise DataError(f"max_step must be at least 1 usual step, but is {columns.max_step}")
    time = None
    if columns.time is not None:
        time = find_rhythm(data, places, columns.series_column, columns.max_step, zone)
    if spec is None:
        encoding, left_out = _plan_encoding(data, columns, time)
        spec = TableSpec(encoding, columns.targets, columns.ahead, time, series)
    else:
        if missing := [name for name in spec.encoding.names if name not in data]:
            raise UnknownNameError(f"there is no column {missing[0]!r}; the columns are {', '.join(map(str, data))}")
        spec = replace(spec, time=time, series=series)
    table = Table.read(spec, data, places, Selection(needs=columns.targets, is_ordered=True, finds_times=False))
    table.check_times(has_own_rhythm=True)
    table.check_cells()
    roles = {role.name: getattr(columns, role.name) for role in fields(Roles)}
    encoding = spec.encoding
    if not encoding.is_plain:  # the options of a column are those of its features
        for role in ("integer", "fixed"):
            roles[role] = tuple(of for name in roles[role] for of in encoding.sources.get(name, (name,)))
        roles["fixed"] = tuple(dict.fromkeys((*roles["fixed"], *encoding.fixed)))
        of_features = {of: unit for name, unit in columns.units.items() for of in encoding.sources.get(name, (name,))}
        targets = {name: unit for name, unit in columns.units.items() if name in columns.targets}
        roles |= {"units": of_features | targets, "groups": {**encoding.groups, **columns.groups}}
        alone = {name: of[0] for name, of in encoding.sources.items() if len(of) == 1}
        roles["titles"] = {alone.get(name, name): title for name, title in columns.titles.items()}
    split = None
    if columns.split is not None:
        split = read_labels(data[columns.split], partial(places.cell, columns.split))[table.order]
    return TrainingTable(table=table, split=split, left_out=left_out, **roles)


def _melt(data: dict[str, Cells], columns: Columns) -> dict[str, Cells]:
    """The long table of a wide one."""
    target = columns.targets[0]
    for name in columns.series or ():
        if name not in data:
            raise UnknownNameError(f"there is no column {name!r}; the columns are {', '.join(map(str, data))}")
    for name in (target, SERIES):
        if name in data and name not in (columns.series or ()):
            what = "the target" if name == target else "the column of series"
            raise DataError(f"there is a column {name}, which is also the name of {what}: rename it")
    if len(columns.targets) > 1 or not columns.series:
        raise DataError.at("series", "must name the columns of one target, as a wide table has one for each series")
    return melt(data, tuple(columns.series), SERIES, target)


def _plan_encoding(
    data: Mapping[str, Cells], columns: Columns, time: TimeColumn | None
) -> tuple[Encoding, dict[str, str]]:
    """The encoding of a frame by the options, and why columns are not features."""
    known, left_out, sources = columns.known, dict[str, str](), list[SourceColumn]()
    if known and not columns.ahead:
        raise DataError.at("known", "needs ahead: values are taken later, where the target is")
    later = columns.ahead + columns.horizon - 1  # a window reads what is known up to the last step that is forecast
    if columns.static and columns.series is None:
        raise DataError.at("static", "needs series: static columns have one value for each of them")
    named = columns.features or [name for name in data if name not in columns.no_features]
    for name in dict.fromkeys((*named, *columns.static)):
        levels, why = plan_levels(data[name], MAX_LEVELS)
        if why and why != NO_VALUE and (columns.features or name in (*known, *columns.static)):
            raise DataError(f"column {name} cannot be a feature: {why}")
        if why and not columns.features:
            left_out[name] = why
            continue
        is_static = name in columns.static
        sources.append(SourceColumn(name, levels, later if name in known else 0, static=is_static))
    for name in known:
        if name in columns.targets:
            raise DataError(f"{name} is a target, so its future is not known")
        if name not in (source.name for source in sources):
            raise DataError(f"{name} is known, but not one of the features")
    if not sources:
        beside = ", ".join((*columns.targets, *columns.special))
        more = f"; {describe_left_out(left_out)}" if left_out else ""
        raise DataError(f"there is no column of numbers or texts besides {beside}{more}")
    parts, calendar = columns.calendar, None
    if parts or columns.holidays:
        if time is None or not time.dated:
            raise DataError.at("calendar", "needs time: a column, or an index, of dates")
        if isinstance(parts, bool):
            days = time.step / DAY if time.unit == "second" else time.step * (1 if time.unit == "day" else 30)
            parts = [part for part in CALENDAR if days < DAYS_OF[part]] if parts else []
        for part in parts:
            refuse_unknown("calendar part", part, CALENDAR)
        if columns.holidays:
            public_holidays(columns.holidays)
        calendar = Calendar(tuple(dict.fromkeys(parts)), later, columns.holidays)
    encoding = Encoding(tuple(sources), calendar, Fill.of(columns.fill, columns.max_fill))
    features = encoding.features
    for name in (*encoding.groups, *features):
        if features.count(name) > 1 or (name in encoding.groups and name in features):
            raise DataError(
                f"there is a column {quote(name)[1:-1]}, which is also the name of a calendar feature: rename it"
            )
    return encoding, left_out


def describe_left_out(left_out: Mapping[str, str]) -> str:
    """One sentence about columns that are not features."""
    return "not used as features: " + ", ".join(f"{name} ({why})" for name, why in left_out.items())
