"""Four kinds of tables of which it is known what drives the target: load, prices, shops and sensors.

The load is the example's, computed from real weather; the others are generated. `Planted.drivers` has for columns, by
the name of their group in explanations, what they add to the target at its time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
Values = NDArray[np.float64]
N_SENSORS, MATTER = 40, ("s03", "s08", "s15", "s21", "s30", "s37")


@dataclass(frozen=True)
class Planted:
    """A table, its target, the options of a training, and what each driver adds to the target in each row."""

    frame: pl.DataFrame
    target: str
    options: dict[str, Any]
    drivers: Mapping[str, Values] = field(default_factory=dict)


def make_load() -> Planted:
    """A year of hourly load: heating and cooling by the temperature, the hour, the kind of the day."""
    frame = import_module("load").make_load()
    temp = frame.with_columns(pl.col("temp_c").interpolate())["temp_c"].to_numpy()
    options = {"known": ["temp_c", "daytype"], "calendar": True, "fill": "linear", "time": "time"}
    drivers = {"temp_c": 75 * np.maximum(15 - temp, 0) + 140 * np.maximum(temp - 19, 0)}
    return Planted(frame, "load_mw", options | {"zone": "America/New_York"}, drivers)


def make_prices(n_days: int = 400, seed: int = 1) -> Planted:
    """Hourly prices: gas, and a bent curve of the demand that wind and sun leave, whose forecasts are known."""
    random, n = np.random.default_rng(seed), 24 * n_days
    hour, day = np.arange(n) % 24, np.arange(n) // 24
    demand = 50 + 8 * np.sin(2 * np.pi * (hour - 8) / 24) + 4 * np.sin(4 * np.pi * (hour - 7) / 24)
    demand += -6 * (day % 7 >= 5) + _wander(random, n, 0.95, 0.8)
    wind = np.clip(15 + _wander(random, n, 0.97, 2.2), 0, 40)
    height = np.clip(np.sin(2 * np.pi * (hour - 6) / 24), 0, None) * (12 + 8 * np.sin(2 * np.pi * (day - 80) / 365))
    sun = height * np.clip(0.7 + _wander(random, n, 0.9, 0.12), 0.1, 1.2)
    gas = 30 + np.repeat(_wander(random, n_days, 0.98, 0.8), 24)
    left = demand - wind - sun
    bent = left - 25 + 0.09 * np.clip(left - 35, 0, None) ** 2 - 0.12 * np.clip(12 - left, 0, None) ** 2
    times = [datetime(2023, 1, 1) + timedelta(hours=row) for row in range(n)]
    columns = {"demand": demand, "wind": wind, "sun": sun, "gas": gas}
    frame = pl.DataFrame({"time": times, "price": gas + bent + _wander(random, n, 0.85, 3.0), **columns})
    options = {"known": ["demand", "wind", "sun"], "calendar": True, "time": "time"}
    options["groups"] = {"left": ["demand", "wind", "sun"]}
    return Planted(frame, "price", options, {"left": bent})


def make_shops() -> Planted:
    """Two years of daily sales of twelve shops: by weekday, promotion and price."""
    frame = import_module("shops").make_shops()
    known = ["promo", "price"]
    options = {"series": "shop", "static": ["kind"], "time": "day", "known": known, "calendar": True, "fill": "forward"}
    return Planted(frame, "units", options)


def make_sensors(n: int = 6000, seed: int = 2) -> Planted:
    """Forty sensors every ten minutes, of which six matter, at lags of 0 to 5 steps, two of them only together."""
    random = np.random.default_rng(seed)
    x = np.stack([_wander(random, n, random.uniform(0.6, 0.95), 1.0) for _ in range(N_SENSORS)], axis=1)
    x /= x.std(axis=0)
    a, b, c, d, e, f = (np.roll(x[:, int(name[1:])], lag) for name, lag in zip(MATTER, (1, 3, 2, 0, 0, 5), strict=True))
    parts = {"s03": a, "s08": 0.8 * np.tanh(2 * b), "s15": 0.5 * (c**2 - 1)}
    quality = sum(parts.values()) + 0.7 * d * (e > 0) + 0.6 * np.abs(f) + _wander(random, n, 0.5, 0.5)
    times = [datetime(2024, 1, 1) + timedelta(minutes=10 * row) for row in range(n)]
    sensors = {f"s{number:02d}": x[:, number] for number in range(N_SENSORS)}
    return Planted(pl.DataFrame({"time": times, **sensors, "quality": quality}), "quality", {"time": "time"}, parts)


TABLES: dict[str, Callable[[], Planted]] = {
    "load": make_load,
    "prices": make_prices,
    "shops": make_shops,
    "sensors": make_sensors,
}


def _wander(random: np.random.Generator, n: int, kept: float, spread: float) -> Values:
    """Noise of which a share is kept from one step to the next, (n,)."""
    noise = random.normal(0, spread, n)
    for row in range(1, n):
        noise[row] += kept * noise[row - 1]
    return noise
