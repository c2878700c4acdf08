"""Three series with their forecasting tasks, and the faults that are planted in them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.append(str(Path(__file__).resolve().parents[1] / "faithfulness"))

from data import make_processes

import kanmodel
from kanmodel import Model
from kanmodel.arrays import take_windows
from service.models.repository import BUNDLED

Array = np.ndarray

PIECE = 504  # rows of a piece: three weeks of hours
CYCLE = ("train", "reference", "reference", "after")  # parts of neighbouring pieces, again and again
BEFORE, UNTIL = 168, 168  # rows of a stream before a fault starts, and after
BETWEEN = 41  # rows from one start to the next, so that faults start at any hour of the day
LEVEL = 0.8  # of the intervals
WEEK, SAME = 168, 1e-6  # rows of a week of hours, and difference of equal values
CHUNK = 512  # windows explained at a time
TOLERANCE = 0.01  # of explanations, standard deviations of the output; its default is a tenth of it
SHIFT = 2  # standard deviations by which the feature that is used least moves


@dataclass(frozen=True)
class Stream:
    """Forecasts in order of time, a row each.

    Attributes:
        newest: values of the features at the newest step, (n, n_features).
        forecasts: (n,).
        contributions: from the mean reference window, (n, n_features).
        errors: forecast minus actual value, (n,); NaN where that is unknown.
        inside: 1 where the interval holds the actual value, else 0, (n, 1); NaN likewise.
    """

    newest: Array
    forecasts: Array
    contributions: Array
    errors: Array
    inside: Array

    def __len__(self) -> int:
        return len(self.forecasts)

    def __getitem__(self, rows: slice | Array) -> Stream:
        return Stream(*(getattr(self, each.name)[rows] for each in fields(self)))

    @classmethod
    def join(cls, *streams: Stream) -> Stream:
        """One after another."""
        return cls(*(np.concatenate([getattr(one, each.name) for one in streams]) for each in fields(cls)))

    def delay_outcomes(self, delay: int) -> Stream:
        """The same with each error at the row at which the actual value is known, `delay` rows later."""
        late = [np.concatenate([np.full_like(of[:delay], np.nan), of])[: len(of)] for of in (self.errors, self.inside)]
        return Stream(self.newest, self.forecasts, self.contributions, *late)


@dataclass(frozen=True)
class Series:
    """A series, what is forecast of it, and where each fault acts.

    Attributes:
        name: in the tables.
        frame: features, and the target if it is a column of its own.
        actual: what the forecast from each row is compared with, (n,); NaN at the end.
        delay: rows after which it is known.
        train: arguments of `kanmodel.train` other than the frame.
        stuck: the feature whose sensor gets stuck.
        unit: the feature whose unit changes, with the factor and what is added.
        swapped: two features.
        late: the features that arrive a row late.
        relation: `actual` if the target depended on the features in another way.
        unseen: rows of a season that neither the training nor the reference has; None where `amplify` makes it.
        amplify: factors of features and target in an unseen season.
        clock: features that repeat by the week; a season that is not seen follows without a jump of them.
    """

    name: str
    frame: pd.DataFrame
    actual: Array
    delay: int
    train: Mapping[str, Any]
    stuck: str
    unit: tuple[str, float, float]
    swapped: tuple[str, str]
    late: tuple[str, ...]
    relation: Array
    unseen: slice | None = None
    amplify: tuple[float, float] = (1, 1)
    clock: tuple[str, ...] = ()
    features: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        is_column = not self.train.get("ahead")  # the target, which is then no feature
        names = [name for name in self.frame if not (is_column and name == self.train["target"])]
        object.__setattr__(self, "features", tuple(names))

    @cached_property
    def parts(self) -> Array:
        """Of each row: ``train``, ``reference``, ``after``, or ``unseen``; what no piece holds is ``train``."""
        parts, number = np.full(len(self.frame), "train", dtype=object), 0
        edges = [0, len(parts)] if self.unseen is None else [0, self.unseen.start, self.unseen.stop, len(parts)]
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            for first in range(start, stop - PIECE + 1, PIECE):
                parts[first : first + PIECE] = CYCLE[number % len(CYCLE)]
                number += 1
        if self.unseen is not None:
            parts[self.unseen] = "unseen"
        return parts

    @property
    def values(self) -> Array:
        """The features, (n, n_features)."""
        return self.frame[list(self.features)].to_numpy(dtype=float)

    def pieces(self, part: str) -> list[Array]:
        """Rows of a part whose outcomes are known, by stretch without a gap."""
        rows = np.flatnonzero((self.parts == part) & np.isfinite(self.actual))
        rows = rows[rows >= self.train["lookback"] - 1]
        return np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)

    @property
    def starts(self) -> list[int]:
        """Rows at which faults start: `BEFORE` rows of the same piece are before each, and `UNTIL` from it on."""
        return [int(row) for piece in self.pieces("after") for row in piece[BEFORE : len(piece) - UNTIL + 1 : BETWEEN]]

    def find_season(self, start: int, place: float) -> int:
        """First of `UNTIL` rows of the unseen season, at a place from 0 to 1 or the next with the clock of `start`."""
        assert self.unseen is not None
        room = self.unseen.stop - self.unseen.start - UNTIL - (WEEK if self.clock else 0)
        row, clock = self.unseen.start + round(place * room), self.frame[list(self.clock)].to_numpy()
        same = np.abs(clock[row : row + WEEK] - clock[start]).max(axis=1, initial=0) < SAME
        return row + int(same.argmax())

    def fit(self, seed: int) -> Model:
        """A model of the training rows."""
        split = np.where(self.parts == "train", "train", "test")
        split[~np.isfinite(self.actual)] = "train"
        options = {"split": "split", "intervals": (LEVEL,), "validation_share": 0.3, "progress": False, "seed": seed}
        return kanmodel.train(self.frame.assign(split=split), **self.train, **options)

    def watch(self, model: Model, rows: Array, values: Array | None = None, actual: Array | None = None) -> Stream:
        """What the model forecasts from each of some rows, with its explanations and errors."""
        values, actual = self.values if values is None else values, self.actual if actual is None else actual
        parts = []
        for part in np.array_split(rows, -(-len(rows) // CHUNK)):
            found = model.explain(take_windows(values, part, model.lookback), detail="features", tolerance=TOLERANCE)
            lower, upper = (side.reshape(len(part)) for side in found.intervals[LEVEL])
            inside = (lower <= actual[part]) & (actual[part] <= upper)
            errors = found.predictions - actual[part]
            parts.append(
                Stream(values[part], found.predictions, found.contributions, errors, inside[:, None].astype(float))
            )
        return Stream.join(*parts)


def make_series(seed: int) -> list[Series]:
    """All three."""
    return [_weather(), _arma(seed), _market(seed)]


def _weather() -> Series:
    """Hours of the bundled weather; July and August are the season that is not seen."""
    table = pd.read_csv(BUNDLED / "nyc-weather.csv.gz", parse_dates=["time"]).set_index("time").asfreq("h")
    frame = table.drop(columns=["segment", "split", "dtemp_6h"]).interpolate()
    change = frame["temp_c"].shift(-6) - frame["temp_c"]
    calendar = ("hour_", "dow_", "doy_")
    noise = {"noise": 0.5, "weight_decay": 0.05, "epochs": 15, "last_value": {"dtemp_6h": 0}}
    first, last = (int(frame.index.searchsorted(pd.Timestamp(day, tz="UTC"))) for day in ("2013-07-01", "2013-09-01"))
    return Series(
        "weather",
        frame.assign(dtemp_6h=change).reset_index(drop=True),
        change.to_numpy(),
        delay=6,
        train={"target": "dtemp_6h", "lookback": 24, "hidden": 12} | noise,
        stuck="temp_c",
        unit=("temp_c", 1.8, 32),
        swapped=("wind_u_ms", "wind_v_ms"),
        late=tuple(name for name in frame if not str(name).startswith(calendar)),
        relation=1.5 * change.to_numpy(),
        unseen=slice(first, last),
        clock=("hour_sin", "hour_cos", "dow_sin", "dow_cos"),
    )


def _arma(seed: int) -> Series:
    """18 pieces of the generated series: squares of two of five features, one up and one down."""
    frames = [pd.DataFrame(make_processes(number)[0].frame) for number in (2 * seed, 2 * seed + 1)]
    frame = pd.concat(frames, ignore_index=True)[: 18 * PIECE]
    up = sum(frame["x0"].shift(lag, fill_value=0) ** 2 for lag in (1, 2, 3)).to_numpy()
    return Series(
        "ARMA",
        frame,
        frame["y"].to_numpy(),
        delay=1,
        train={"target": "y", "lookback": 10, "hidden": 16, "batch": 64, "epochs": 20, "lamb": 0.0, "noise": 0.0},
        stuck="x0",
        unit=("x0", 10, 0),
        swapped=("x0", "x1"),
        late=tuple(f"x{number}" for number in range(5)),
        relation=frame["y"].to_numpy() - up / 2,
        amplify=(2, 4),
    )


def _market(seed: int) -> Series:
    """Days of the stock market; the year from July 2008 is the season that is not seen."""
    frame = pd.DataFrame(make_processes(seed)[3].frame).drop(columns="split")
    ahead = frame["volatility"].shift(-5).to_numpy()
    mean = np.nanmean(ahead)
    return Series(
        "stock market",
        frame,
        ahead,
        delay=5,
        train={"target": "volatility", "ahead": 5, "lookback": 15, "hidden": 8, "batch": 64, "lamb": 0.0},
        stuck="range",
        unit=("return", 0.01, 0),
        swapped=("return", "oil"),
        late=tuple(frame),
        relation=mean + 1.5 * (ahead - mean),
        unseen=slice(2378, 2378 + 252),
    )


NO_FAULT, LEAST_USED = "no fault", "least used feature moves"


def plant(series: Series, fault: str, row: int, unused: str) -> Array:
    """The features with a fault of the inputs from a row on, (n, n_features)."""
    values, names = series.values, list(series.features)
    changed = values.copy()
    match fault:
        case "stuck sensor":
            changed[row:, names.index(series.stuck)] = values[row - 1, names.index(series.stuck)]
        case "unit change":
            name, factor, offset = series.unit
            changed[row:, names.index(name)] = factor * values[row:, names.index(name)] + offset
        case "one row late":
            columns = [names.index(name) for name in series.late]
            changed[row:, columns] = values[row - 1 : -1, columns]
        case "swapped columns":
            columns = [names.index(name) for name in series.swapped]
            changed[row:, columns] = values[row:, columns[::-1]]
        case _ if fault == LEAST_USED:
            column = names.index(unused)
            changed[row:, column] += SHIFT * values[:, column].std()
        case _:
            raise ValueError(fault)
    return changed


INPUT_FAULTS = ("stuck sensor", "unit change", "one row late", "swapped columns", LEAST_USED)
FAULTS = (NO_FAULT, *INPUT_FAULTS, "retrained model", "season not seen", "changed relation")


def streams(series: Series, model: Model, other: Model, unused: str) -> Iterator[tuple[str, list[Stream]]]:
    """For each fault what is forecast around each of its starts: `BEFORE` rows before it, `UNTIL` from it on."""
    starts = series.starts
    usual = series.watch(model, np.arange(model.lookback - 1, np.flatnonzero(np.isfinite(series.actual))[-1] + 1))
    first = model.lookback - 1  # row of the first forecast of `usual`

    def follow(start: int, faulty: Stream) -> Stream:
        before = usual[slice(start - BEFORE - first, start - first)]
        return Stream.join(before, faulty).delay_outcomes(series.delay)

    for fault in FAULTS:
        found = []
        for number, start in enumerate(starts):
            rows = np.arange(start, start + UNTIL)
            if fault == NO_FAULT:
                faulty = usual[rows - first]
            elif fault in INPUT_FAULTS:
                faulty = series.watch(model, rows, plant(series, fault, start, unused))
            elif fault == "retrained model":
                faulty = series.watch(other, rows)
            elif fault == "changed relation":
                faulty = series.watch(model, rows, actual=series.relation)
            elif series.unseen is None:
                of_features, of_target = series.amplify
                values, actual = series.values.copy(), series.actual.copy()
                values[start - model.lookback :] *= of_features
                actual[start:] *= of_target
                faulty = series.watch(model, rows, values, actual)
            else:
                faulty = usual[series.find_season(start, number / len(starts)) + np.arange(UNTIL) - first]
            found.append(follow(start, faulty))
        yield fault, found
