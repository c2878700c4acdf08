"""`Input`: what a forecaster reads in the terms of its table: a column, or a part of the calendar, whole.

A column of levels is one feature a level, and an hour a sine and a cosine; readers know ``workday`` and ``16:00``. The
checkpoint of a model that was trained on a table has its `Encoding`. Of others, features ``hour_sin`` and ``hour_cos``
whose squares sum to 1 on the reference windows are one input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import cos, isnan, pi, sin
from typing import Any, Literal

import numpy as np

from kanmodel.arrays import Array, ReadOnlyDict
from kanmodel.tables.columns import Feature
from kanmodel.tables.encoding import Encoding, SourceColumn
from kanmodel.tables.instants import DAY
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.text import Row, write_amount

InputKind = Literal["number", "integer", "flag", "level", "hour", "weekday", "month", "day_of_year", "cycle"]
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PERIODS = {"hour": 24, "weekday": 7, "month": 12, "day_of_year": 365, "cycle": 12}
LEAP_DAY = 58.5  # 29 February, between 28 February and 1 March of other years
_DAYS = np.arange("2001-01-01", "2002-01-01", dtype="datetime64[D]").tolist()  # of a year without 29 February
LEVELS: Mapping[str, tuple[str, ...]] = {
    "flag": ("no", "yes"),
    "hour": tuple(f"{hour:02}:00" for hour in range(24)),
    "weekday": WEEKDAYS,
    "month": MONTHS,
    "cycle": tuple(f"{part}/12 of its cycle" for part in range(12)),
    "day_of_year": tuple(f"{day.day} {MONTHS[day.month - 1]}" for day in _DAYS),
}
# Names X of X_sin and X_cos of models without an encoding
_KINDS: Mapping[str, InputKind] = {
    **dict.fromkeys(("hour", "hr", "hour_of_day"), "hour"),
    **dict.fromkeys(("weekday", "dow", "day_of_week", "dayofweek"), "weekday"),
    **dict.fromkeys(("month", "mon", "month_of_year"), "month"),
    **dict.fromkeys(("day_of_year", "doy", "yday", "season", "dayofyear"), "day_of_year"),
}
_PARTS: Mapping[str, InputKind] = {"hour": "hour", "weekday": "weekday", "day_of_year": "day_of_year"}
ROUND = 0.01  # by which squares of a sine and a cosine sum to 1, and levels to one, as of values that were rounded
AGREEING = 0.75  # share of the reference windows whose times agree with a weekday or a month
ROUNDING = 1e-6  # of a standard deviation: a value that was a float32
DIGITS = 3  # of a cycle's value


@dataclass(frozen=True)
class Input:
    """What a model reads, in the terms of its table: a column, or a part of the calendar, however it is encoded.

    Of a cycle, `sin(2π phase)` and `cos(2π phase)` are its features, and its value is `period * phase + offset`, modulo
    `period`.

    Attributes:
        name: that of the column, such as ``temp_c``, or the part of the calendar, such as ``hour``.
        features: names of the features that it is encoded in.
        kind: ``number``; ``integer``, whole numbers; ``flag``, 0 for no and 1 for yes; ``level``, texts, each of which
            has a feature that is 1 where it holds; or a cycle: ``hour`` of the day, ``weekday`` from 0 for Monday,
            ``month`` from 0 for January, ``day_of_year`` from 0 for 1 January of a year without 29 February, which is
            58.5, and ``cycle`` of an unknown meaning, in twelfths.
        title: what it is in words, if it has more than its name.
        unit: of its values; None if unknown.
        levels: of a level, a flag and a cycle, what its values are called, by value: ``workday``, ``yes``, ``16:00``;
            empty for numbers.
        later: steps after a window's step whose value it is; 0 unless its future is known at the forecast.
        label: for people: the title or the name, and how much later it is, as ``load_mw 24 hours later``. The calendar
            is that of the time that is forecast.
        period: of a cycle, how many of its values it has; None of others.
        offset: of a cycle, the value of phase 0.
        numbers: places of its features among those of the model.
        noise: magnitude of a value that was rounded from 0, in its unit.
        fixed: whether nobody can change it, even if it is named: what a series always has, or a fixed column.
    """

    name: str
    features: tuple[str, ...]
    kind: InputKind
    title: str | None = None
    unit: str | None = None
    levels: tuple[str, ...] = ()
    later: int = 0
    label: str = ""
    period: float | None = None
    offset: float = 0.0
    numbers: tuple[int, ...] = field(default=(), kw_only=True)
    noise: float = field(default=0.0, kw_only=True)
    fixed: bool = field(default=False, kw_only=True)

    @property
    def is_encoded(self) -> bool:
        """Whether it changes as a whole, through its levels."""
        return len(self.features) > 1 or self.kind == "level"

    @property
    def values(self) -> tuple[int, ...]:
        """The values through which it changes as a whole: all of `levels`, of days of the year one a week."""
        return tuple(range(0, len(self.levels), 7 if self.kind == "day_of_year" else 1))

    def encode(self, value: float) -> Array:
        """Its features, (n,), for a value as of `decode`."""
        if self.kind == "level":
            return np.array([float(place == value) for place in range(len(self.levels))])
        if self.period is None:
            return np.array([value], np.float64)
        phase = (value - self.offset) / self.period
        return np.array([sin(2 * pi * phase), cos(2 * pi * phase)])

    def decode(self, rows: Array) -> Array:
        """Its values, (...), in rows (..., n_features) of the model: the number, or the place among `levels`.

        Hours and unknown cycles have decimals. NaN where the features are none of it, such as half of two levels.
        """
        own = np.asarray(rows, np.float64)[..., list(self.numbers)]
        if self.kind == "level":
            first, is_one = own.argmax(axis=-1), np.abs(own.max(axis=-1) - 1) < ROUND
            return np.asarray(np.where(is_one & (np.abs(own.sum(axis=-1) - 1) < ROUND), first, np.nan))
        if self.period is None:
            value, whole = own[..., 0], np.rint(own[..., 0])
            near = self.noise if self.kind == "number" else ROUND / 10
            return np.asarray(np.where(np.abs(value - whole) <= near, whole + 0.0, value))
        phase = np.arctan2(own[..., 0], own[..., 1]) / (2 * pi) % 1
        values = phase * self.period + self.offset
        if self.kind == "day_of_year":
            values = _find_days(phase, self.offset)
        values = np.round(values, DIGITS) % self.period
        return np.where(np.abs((own**2).sum(axis=-1) - 1) < 2 * ROUND, values, np.nan)

    def write(self, value: float) -> str:
        """A value in words: ``16:00``, ``workday``, ``29 Jun``, ``yes``, ``29.1 °C``."""
        if isnan(value):
            return "none"
        if self.kind == "hour":
            minutes = round(60 * value) % 1440
            return f"{minutes // 60:02}:{minutes % 60:02}"
        if self.kind == "day_of_year" and value == LEAP_DAY:
            return "29 Feb"
        if self.kind == "cycle" and value != int(value):
            return f"{value / len(self.levels):.2f} of its cycle"
        if self.levels and (value in self.values or self.period is not None):
            return self.levels[round(value) % len(self.levels)]
        return write_amount(value, self.unit)

    def tell(self, row: Array) -> str:
        """Its value in one row (n_features,) with its label: ``hour 16:00``."""
        return f"{self.label} {self.write(float(self.decode(row)))}"


@dataclass(frozen=True)
class InputValue:
    """The value of an input of a window, in the terms of the table.

    Attributes:
        input: name of the input.
        value: the number, or the place among its levels; None where its features are none of them.
        text: the value in words, such as ``16:00``, ``workday`` or ``29.1 °C``.
    """

    input: str
    value: float | None
    text: str


@dataclass(frozen=True)
class Inputs:
    """The inputs of a model, in the order of their first features; each feature is of one.

    Attributes:
        all: each of them.
    """

    all: tuple[Input, ...]

    def __iter__(self) -> Iterator[Input]:
        return iter(self.all)

    @cached_property
    def of_feature(self) -> Mapping[str, Input]:
        """The input of each feature, by its name."""
        return ReadOnlyDict({feature: one for one in self.all for feature in one.features})

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The features of each input that has several, or one with another name."""
        return {one.name: one.features for one in self.all if one.features != (one.name,)}

    def label(self, name: str) -> str:
        """What people call an input or a feature: ``daytype workday``, ``hour (sine)``; other names are their own."""
        return self._labels.get(name, name)

    @cached_property
    def _labels(self) -> Mapping[str, str]:
        labels = dict[str, str]()
        for one in self.all:
            parts = [f" {level}" for level in one.levels] if one.kind == "level" else [" (sine)", " (cosine)"]
            parts = parts if len(one.features) > 1 or one.kind == "level" else [""]
            labels |= {feature: f"{one.label}{part}" for feature, part in zip(one.features, parts, strict=True)}
        return labels | {one.name: one.label for one in self.all}

    def merge(self, features: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The places of the features of each input among some, by its label: what is by feature is summed by these."""
        places = dict[str, tuple[int, ...]]()
        for place, feature in enumerate(features):
            label = one.label if (one := self.of_feature.get(feature)) else feature
            places[label] = (*places.get(label, ()), place)
        return places

    def merge_rows(self, rows: Sequence[Row], sums: Sequence[str], key: str = "feature") -> list[dict[str, Any]]:
        """The rows of a table by feature as those of inputs: some columns are summed, others that differ are None."""
        merged = dict[tuple[Any, ...], dict[str, Any]]()
        for row in rows:
            one = self.of_feature.get(row[key])
            label = one.label if one else self.label(row[key])
            place = (label, *(row.get(name) for name in ("window", "forecast", "segment", "output")))
            if (before := merged.get(place)) is None:
                merged[place] = {**row, key: label}
                continue
            for name, value in row.items():
                if name in sums:
                    before[name] += value
                elif name != key and before[name] != value:
                    before[name] = None
        return [*merged.values()]

    def decode(self, rows: Array) -> list[tuple[InputValue, ...]]:
        """The values in each of some rows (n, n_features), original units."""
        columns = [
            [InputValue(one.name, None if isnan(of) else of, one.write(of)) for of in one.decode(rows).tolist()]
            for one in self.all
        ]
        return list(zip(*columns, strict=True))

    @classmethod
    def of(
        cls,
        features: Sequence[Feature],
        encoding: Encoding | None,
        time: TimeColumn | None,
        groups: Mapping[str, Sequence[str]],
        rows: Array,
        local: Array | None,
    ) -> Inputs:
        """The inputs of a model by its features, how they were encoded, and their `groups`.

        Without an encoding, a sine and a cosine are found by their names and the newest `rows` of the reference
        windows, (n, n_features), whose times are `local` seconds, (n,), or unknown.
        """
        numbers = {feature.name: number for number, feature in enumerate(features)}
        found = list[Input]()

        def add(name: str, names: Sequence[str], kind: InputKind, label: str, **known: Any) -> None:
            known = {"levels": LEVELS.get(kind, ()), "period": PERIODS.get(kind)} | known
            found.append(
                Input(name, (*names,), kind, label=label, numbers=tuple(map(numbers.__getitem__, names)), **known)
            )

        def add_column(feature: Feature, column: SourceColumn) -> None:
            kind: InputKind = "flag" if feature.is_binary else "integer" if feature.integer else "number"
            known: dict[str, Any] = {"title": feature.title, "unit": feature.unit, "later": column.later}
            known |= {"noise": ROUNDING * feature.std, "fixed": column.static or (feature.fixed and not column.levels)}
            if column.levels:
                kind, known["levels"] = "level", column.levels
            label = feature.title or column.name
            if column.later:
                label += f" {time.describe_steps(column.later) if time else f'{column.later} steps'} later"
            add(column.name, column.features, kind, label, **known)

        if encoding is not None:
            for column in encoding.columns:
                add_column(features[numbers[column.features[0]]], column)
            for part, names in (encoding.calendar.groups if encoding.calendar else {}).items():
                later = encoding.calendar.later if encoding.calendar else 0
                add(part, names, _PARTS.get(part, "flag"), part.replace("_", " "), later=later)
            return cls(tuple(found))
        named, pairs = {frozenset(members): name for name, members in groups.items()}, dict[str, tuple[str, str]]()
        for sine in (name for name in numbers if name.endswith("_sin")):
            pair = (sine, f"{sine.removesuffix('_sin')}_cos")
            if pair[1] in numbers and sine.removesuffix("_sin") not in numbers:
                squares = (rows[:, [numbers[each] for each in pair]] ** 2).sum(axis=1)
                pairs |= dict.fromkeys(pair, pair) if np.all(np.abs(squares - 1) < 2 * ROUND) else {}
        for feature in features:
            if (own := pairs.get(feature.name)) is None:
                add_column(feature, SourceColumn(feature.name))
            elif all(one.features != own for one in found):
                stem = own[0].removesuffix("_sin")
                name, at = named.get(frozenset(own), stem), [numbers[each] for each in own]
                kind, offset = _find_cycle(_KINDS.get(stem.lower(), "cycle"), rows[:, at], local)
                add(name, own, kind, name.replace("_", " "), offset=offset)
        return cls(tuple(found))


def _find_days(phase: Array, offset: float) -> Array:
    """The days from 0 of a year without 29 February, (...), by their share of a year of 365 or of 366 days."""
    leap, common = phase * 366, phase * 365 + offset
    is_leap = np.abs(leap - np.rint(leap)) < np.minimum(np.abs(common - np.rint(common)), ROUND)
    leap = np.rint(leap) + offset
    of_leap = np.where(leap == LEAP_DAY + 0.5, LEAP_DAY, leap - (leap > LEAP_DAY))
    return np.where(is_leap, of_leap, np.rint(common))


def _find_cycle(kind: InputKind, values: Array, local: Array | None) -> tuple[InputKind, float]:
    """What sines and cosines (n, 2) with such a name are, and the offset of their values.

    Months and days of the year are mostly counted from 1. A weekday or a month with which the windows' times, `local`
    seconds, do not agree is an unknown cycle.
    """
    counted_from_one = kind in ("month", "day_of_year")
    if local is None or kind not in ("weekday", "month", "day_of_year"):
        return kind, -1.0 if counted_from_one else 0.0
    dates = local.astype("datetime64[s]")
    if kind == "weekday":
        actual = (np.floor(local / DAY) + 3) % 7
    elif kind == "month":
        actual = dates.astype("datetime64[M]").astype(np.int64) % 12
    else:
        actual = (dates.astype("datetime64[D]") - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(
            np.int64
        )
    period = PERIODS[kind]
    told = np.arctan2(values[:, 0], values[:, 1]) / (2 * pi) % 1 * period
    shares = {
        offset: float((np.abs((told + offset - actual + period / 2) % period - period / 2) < 0.5).mean())
        for offset in ((-1.0, 0.0) if counted_from_one else (0.0,))
    }
    best = max(shares, key=shares.__getitem__)
    return (kind, best) if kind == "day_of_year" or shares[best] >= AGREEING else ("cycle", 0.0)
