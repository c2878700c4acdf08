"""Makes load.csv: a year of hourly load, computed from real weather, as tables of a utility look.

The weather is that of the bundled data. The load follows the temperature (heating below 15 °C, cooling above 19 °C),
the hour, and the kind of the day; what is added is noise of which half is left after an hour. So it is known what
drives it, and that the wind does not. Times are local, an hour is there twice as daylight saving ends, some hours and
1.1 % of the temperatures are missing, and each tenth row has a note that no other has.
"""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

WEATHER = Path(__file__).parents[2] / "service/bundled/nyc-weather.csv.gz"
ZONE = "America/New_York"
HOLIDAYS = [(1, 1), (1, 21), (2, 18), (5, 27), (7, 4), (9, 2), (10, 14), (11, 11), (11, 28), (12, 25)]
BY_HOUR = (
    np.array([-9, -11, -12, -12, -11, -8, -3, 2, 5, 6, 6, 6, 6, 6, 5, 5, 6, 9, 11, 10, 7, 3, -2, -6]) * 100.0
)  # MW


def make_load() -> pl.DataFrame:
    """A row an hour: time, load_mw, temp_c, wind_ms, daytype, school, note."""
    random = np.random.default_rng(2013)
    weather = pl.read_csv(WEATHER, infer_schema_length=None)
    local = weather["time"].str.to_datetime("%Y-%m-%dT%H:%MZ", time_zone="UTC").dt.convert_time_zone(ZONE)
    n, temp, hour = len(local), weather["temp_c"].to_numpy(), local.dt.hour().to_numpy()
    is_holiday = local.dt.date().is_in([date(2013, *day) for day in HOLIDAYS]).to_numpy()
    is_workday = (local.dt.weekday() <= 5).to_numpy() & ~is_holiday
    noise = np.zeros(n)
    for row in range(1, n):
        noise[row] = 0.5 * noise[row - 1] + random.normal(0, 60)
    load = 6000 + 75 * np.maximum(15 - temp, 0) + 140 * np.maximum(temp - 19, 0)
    load += np.where(is_workday, 1.0, 0.5) * BY_HOUR[hour] - 500 * ~is_workday + noise
    daytype = np.where(is_holiday, "holiday", np.where(is_workday, "workday", "weekend"))
    table = pl.DataFrame({"time": local.dt.strftime("%d.%m.%Y %H:%M"), "load_mw": load.round(0), "temp_c": temp})
    table = table.with_columns(
        pl.when(pl.Series(random.random(n) > 0.011)).then(pl.col("temp_c")).alias("temp_c"),
        weather["wind_ms"].round(1),
        daytype=daytype,
        school=is_workday & ~local.dt.month().is_in([7, 8]).to_numpy(),
        note=pl.when(pl.int_range(n) % 10 == 0).then(pl.format("meter read {}", pl.int_range(n))),
    )
    return table


if __name__ == "__main__":
    make_load().write_csv(Path(__file__).parent / "load.csv")
