"""`TrainingTable`: the rows that a model is trained on, from a table and the roles of its columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
from kanmodel.tables.instants import DAY, Times, find_zone_of, holds_times, read_index
from kanmodel.tables.rhythm import MAX_STEP, TimeColumn
from kanmodel.tables.table import CellNames, Selection, SeriesColumn, Table, TableSpec
from kanmodel.text import printable

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


@dataclass(frozen=True, kw_only=True)
class TrainingTable(Roles):
    """The rows of a table that a model is trained on, in the order of `Table`.

    Raises:
        DataError: a value is not whole in an integer feature, the split is invalid, or a shifted target is a feature.
        UnknownNameError: a name is not one of the columns.
    """

    table: Table  # the rows
    split: Labels | None = None  # one of `PARTS` of each row, (n_rows,); None if the newest 15 % are for the test
    left_out: Mapping[str, str] = field(default_factory=dict)  # why a column is not a feature, if none were named

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
                    message = f"must be a whole number, but is {values[row]}"
                    raise DataError.at(self.table.cell(column.name, row), message)
            if column.static:
                rows = np.flatnonzero(~np.isnan(values))
                codes, values = self.table.codes[rows], values[rows]
                for row in rows[1:][(codes[1:] == codes[:-1]) & (values[1:] != values[:-1])].tolist():
                    message = "is another value than in the row before it, but a static column has one for each series"
                    raise DataError.at(self.table.cell(column.name, row), message)
        for row, label in enumerate([] if self.split is None else self.split.tolist()):
            if label not in PARTS:
                place = f"the split of data row {self.table.order[row] + 1}"
                raise DataError(f"{place} must be one of {list(PARTS)}, but is {label!r}")

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


def make_table(frame: Any, columns: Columns, spec: TableSpec | None = None) -> TrainingTable:
    """Converts a frame, of any form that `read_columns` takes, to a table for training.

    Rows of each series are oldest first. An index of dates is the time, if no column is named as such. How the columns
    become features is that of `spec`, or by default a new one, see `kanmodel.train`.

    Raises as `TrainingTable` and `Table.read`, and ConfigError for options of the encoding that cannot be.
    """
    data, columns = _gather(frame, columns)
    zone = columns.zone or (spec.time.zone if spec and spec.time else None)
    if zone is None and columns.time is not None:
        zone = find_zone_of(frame, columns.time)
    cell_names = CellNames("the table", columns.time or "time", kind="file")
    labels, series, times, time, left_out = None, None, None, None, dict[str, str]()
    if columns.series_column is not None:
        labels = read_labels(data[columns.series_column], partial(cell_names.cell, columns.series_column))
        wide = () if isinstance(columns.series, str) else tuple(columns.series or ())
        series = SeriesColumn(columns.series_column, tuple(dict.fromkeys(labels.tolist())), wide)
    if not columns.max_step >= 1:
        raise DataError(f"max_step must be at least 1 usual step, but is {columns.max_step}")
    if columns.time is not None:
        name_cell = partial(cell_names.cell, columns.time)
        times = Times.parse(data[columns.time], name_cell)
        instants = times.instants(name_cell, zone, labels)
        time = TimeColumn.of(columns.time, instants, labels, times.dated, columns.max_step, zone)
    if spec is None:
        encoding, left_out = _plan_encoding(data, columns, time)
        spec = TableSpec(encoding, columns.targets, columns.ahead, time, series)
    else:
        _refuse_unknown(spec.encoding.names, data)
        spec = replace(spec, time=time, series=series)
    chosen = Selection(needs=columns.targets, is_ordered=True, finds_times=False)
    table = Table.read(spec, data, cell_names, chosen, times)
    table.check_times(has_own_rhythm=True)
    table.check_cells()
    split = None
    if columns.split is not None:
        split = read_labels(data[columns.split], partial(cell_names.cell, columns.split))[table.order]
    roles = _of_features(columns, spec.encoding)
    return TrainingTable(table=table, split=split, left_out=left_out, **roles)


def _gather(frame: Any, columns: Columns) -> tuple[dict[str, Cells], Columns]:
    """The columns of a frame, of a wide one those of a long one, with the index if it is the time; all must exist."""
    if not columns.targets:
        raise DataError.at("target", "must name at least one column")
    if type(columns.ahead) is not int or columns.ahead < 0:
        raise DataError(f"ahead must be a whole number from 0, but is {columns.ahead!r}")
    data, (target, *others) = read_columns(frame), columns.targets
    if columns.series is not None and not isinstance(columns.series, str):
        _refuse_unknown(columns.series, data)
        for name, what in ((target, "the target"), (SERIES, "the column of series")):
            if name in data and name not in columns.series:
                raise DataError(f"there is a column {name}, which is also the name of {what}: rename it")
        if others or not columns.series:
            message = "must name the columns of one target, as a wide table has one for each series"
            raise DataError.at("series", message)
        data = melt(data, columns.series, SERIES, target)
    index = None if columns.time in data else read_index(frame, columns.time)
    if index is not None and columns.time in (None, index[0]):
        columns = replace(columns, time=columns.time or index[0])
        data[str(columns.time)] = np.tile(index[1], len(data[target]) // max(len(index[1]), 1))
    _refuse_unknown(
        (*columns.targets, *(columns.features or ()), *columns.special, *columns.known, *columns.static), data
    )
    if columns.features == ():
        raise DataError.at("features", "must name at least one column")
    return data, columns


def _refuse_unknown(names: Iterable[str], data: Mapping[str, Cells]) -> None:
    for name in names:
        if name not in data:
            raise UnknownNameError(f"there is no column {name!r}; the columns are {', '.join(map(str, data))}")


def _of_features(columns: Columns, encoding: Encoding) -> dict[str, Any]:
    """The roles of columns as those of their features."""
    roles = {role.name: getattr(columns, role.name) for role in fields(Roles)}
    if encoding.is_plain:
        return roles
    sources = encoding.sources
    for role in ("integer", "fixed"):
        roles[role] = tuple(of for name in roles[role] for of in sources.get(name, (name,)))
    roles["fixed"] = tuple(dict.fromkeys((*roles["fixed"], *encoding.fixed)))
    units = {of: unit for name, unit in columns.units.items() for of in sources.get(name, (name,))}
    targets = {name: unit for name, unit in columns.units.items() if name in columns.targets}
    alone = {name: of[0] for name, of in sources.items() if len(of) == 1}
    titles = {alone.get(name, name): title for name, title in columns.titles.items()}
    return roles | {"units": units | targets, "titles": titles, "groups": {**encoding.groups, **columns.groups}}


def _plan_encoding(
    data: Mapping[str, Cells], columns: Columns, time: TimeColumn | None
) -> tuple[Encoding, dict[str, str]]:
    """The encoding of a frame by the options, and why columns are not features."""
    known, left_out, sources = columns.known, dict[str, str](), list[SourceColumn]()
    if known and not columns.ahead:
        raise DataError.at("known", "needs ahead: values are taken later, where the target is")
    if columns.static and columns.series is None:
        raise DataError.at("static", "needs series: static columns have one value for each of them")
    later = columns.ahead + columns.horizon - 1  # a window reads what is known up to the last step that is forecast
    beside = {*columns.special, *(() if columns.ahead else columns.targets)}  # no features unless they are named
    named = columns.features or [name for name in data if name not in beside]
    for name in dict.fromkeys((*named, *columns.static)):
        levels, why = plan_levels(data[name], MAX_LEVELS)
        if why and why != NO_VALUE and (columns.features or name in (*known, *columns.static)):
            raise DataError(f"column {name} cannot be a feature: {why}")
        if why and not columns.features:
            are_times = time is None and holds_times(data[name])
            left_out[name] = "times, but no time is given: windows are cut across gaps in them" if are_times else why
            continue
        is_static = name in columns.static
        sources.append(SourceColumn(name, levels, later if name in known else 0, static=is_static))
    for name in known:
        if name in columns.targets:
            raise DataError(f"{name} is a target, so its future is not known")
        if name not in (source.name for source in sources):
            raise DataError(f"{name} is known, but not one of the features")
    if not sources:
        more = f"; {describe_left_out(left_out)}" if left_out else ""
        raise DataError(
            f"there is no column of numbers or texts besides {', '.join((*columns.targets, *columns.special))}{more}"
        )
    encoding = Encoding(tuple(sources), _plan_calendar(columns, time, later), Fill.of(columns.fill, columns.max_fill))
    names = Counter((*encoding.features, *encoding.groups))
    for name in (*encoding.groups, *encoding.features):
        if names[name] > 1:
            message = f"there is a column {quote(name)[1:-1]}, which is also the name of a calendar feature: rename it"
            raise DataError(message)
    return encoding, left_out


def _plan_calendar(columns: Columns, time: TimeColumn | None, later: int) -> Calendar | None:
    """The calendar's features by the options: those of cycles that are longer than a step, or those that are named."""
    wanted = columns.calendar
    if not (wanted or columns.holidays):
        return None
    if time is None or not time.dated:
        raise DataError.at("calendar", "needs time: a column, or an index, of dates")
    if isinstance(wanted, bool):
        days = time.step / DAY if time.unit == "second" else time.step * (1 if time.unit == "day" else 30)
        wanted = [part for part in CALENDAR if days < DAYS_OF[part]] if wanted else []
    for part in wanted:
        refuse_unknown("calendar part", part, CALENDAR)
    if columns.holidays:
        public_holidays(columns.holidays)
    return Calendar(tuple(dict.fromkeys(wanted)), later, columns.holidays)


def describe_left_out(left_out: Mapping[str, str]) -> str:
    """One printable sentence about columns that are not features."""
    return "not used as features: " + ", ".join(f"{printable(name)} ({why})" for name, why in left_out.items())
