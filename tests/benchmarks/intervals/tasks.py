"""The series, with their forecasting tasks: those of the benchmark of faithfulness, and four whose test part drifts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.append(str(Path(__file__).resolve().parents[1] / "faithfulness"))

from data import make_processes

import kanmodel
from kanmodel import Model
from service.models.repository import BUNDLED

Array = np.ndarray

TEST_SHARE = 0.25  # of the rows, the newest
CALIBRATION_SHARE = 0.2  # of the rows before, the newest, that peers calibrate on
N_PLANTED = 4000  # rows of a generated series
VALIDATION_SHARE = 0.15  # of the rows before these, the newest, for early stopping


@dataclass(frozen=True)
class Task:
    """A series, and what is forecast of it.

    Attributes:
        name: in the tables.
        frame: the target, then features; a row a time step.
        lookback, horizon: rows of a window, and the rows after it whose target is forecast.
        hidden: units of the LSTMs.
        options: of `kanmodel.train`.
        first: row of the first test value; by default three quarters of the rows are before it.
        drift: whether the test part is meant to differ from the rows before.
    """

    name: str
    frame: pd.DataFrame
    lookback: int
    horizon: int
    hidden: int
    options: Mapping[str, Any] = field(default_factory=dict)
    first: int = 0
    drift: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", self.first or round((1 - TEST_SHARE) * len(self.frame)))

    @property
    def target(self) -> str:
        """Name of the target."""
        return str(self.frame.columns[0])

    @property
    def calibration(self) -> int:
        """Row of the first calibration value of peers."""
        return round((1 - CALIBRATION_SHARE) * self.first)

    @property
    def validation(self) -> int:
        """Row of the first validation value of peers."""
        return round((1 - VALIDATION_SHARE) * self.calibration)

    @property
    def scale(self) -> float:
        """Standard deviation of the target before the test part."""
        return float(self.frame[self.target][: self.first].std())

    def ends(self, first: int, last: int) -> Array:
        """Last rows of the windows whose targets all lie in the rows from `first` to before `last`."""
        return np.arange(first - 1, last - self.horizon)

    def windows(self, ends: Array) -> Array:
        """(n, lookback, n_features), oldest row first."""
        return self.frame.to_numpy()[ends[:, None] + np.arange(1 - self.lookback, 1)]

    def actual(self, ends: Array) -> Array:
        """What came, (n, horizon)."""
        return self.frame[self.target].to_numpy()[ends[:, None] + np.arange(1, self.horizon + 1)]

    @property
    def tested(self) -> Array:
        """Last rows of the windows of the test part."""
        return self.ends(self.first, len(self.frame))

    def train(self, seed: int, first: int, **options: Any) -> Model:
        """A Kanscope model of the rows before `first`."""
        parts = np.where(np.arange(len(self.frame)) < first, "train", "test")
        sizes = {"lookback": self.lookback, "horizon": self.horizon, "hidden": self.hidden}
        given = {"epochs": 60, "lamb": 0.0, "noise": 0.05, "seed": seed, "progress": False, **sizes, **self.options}
        return kanmodel.train(self.frame.assign(split=parts), self.target, ahead=1, split="split", **given, **options)


def make_tasks(seed: int) -> list[Task]:
    """Five series, then four whose test part drifts: two of the five again, with planted drift, and two real ones."""
    frames = {process.name: pd.DataFrame(process.frame) for process in make_processes(seed)}
    arma, switching = (_delay_target(frames[name]) for name in ("ARMA", "switching features"))
    weather = pd.read_csv(BUNDLED / "nyc-weather.csv.gz", parse_dates=["time"]).set_index("time").asfreq("h")
    weather = weather.filter(regex="^(temp|dewp|humid|wind|precip|pressure|visib|hour)").interpolate()
    market = frames["stock market"][["range", "return", "volume", "oil"]]
    longer = {"batch": 64, "epochs": 120}
    july, year_2007 = 24 * 181, 2006  # rows
    since = np.clip(
        np.arange(N_PLANTED) / N_PLANTED / TEST_SHARE - (1 / TEST_SHARE - 1), 0, 1
    )  # share of the test part
    noise = 0.5 * arma["y"].std() * np.random.default_rng(seed).normal(size=N_PLANTED) * (since > 1 / 3)
    louder = arma.assign(y=arma["y"] + noise)
    growing = switching.assign(y=switching["y"] * (1 + since))
    return [
        Task("ARMA", arma, 10, 1, 16, longer),
        Task("switching features", switching, 8, 1, 16, longer),
        Task("weather", weather, 24, 3, 12),
        Task("stock market", market, 15, 3, 8),
        Task("El Niño", frames["El Niño"], 12, 3, 8, longer),
        Task("ARMA, noise from a third on", louder, 10, 1, 16, longer, drift=True),
        Task("switching features, growing", growing, 8, 1, 16, longer, drift=True),
        Task("weather, July to September", weather[: 24 * 273], 24, 3, 12, first=july, drift=True),
        Task("stock market, 2007 to 2012", market[:3516], 15, 3, 8, first=year_2007, drift=True),
    ]


def _delay_target(frame: pd.DataFrame) -> pd.DataFrame:
    """`y` of a row, which its features decide, as the first column of the next row, so that it is forecast."""
    return pd.concat([frame["y"].shift(), frame.drop(columns="y")], axis=1)[1 : 1 + N_PLANTED]
