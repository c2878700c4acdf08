"""Makes shops.csv: two years of daily sales of twelve shops, one long table as a cash register writes it.

It is known what drives the sales: the weekday, in another way for each kind of shop, the season, a promotion (+35 %),
the price (elasticity -1.2), and noise of which 80 % is left after a day. Shops differ in size twentyfold, some opened
later, those in villages are closed on Sundays and all of them at Christmas; a day without sales has no row, and 1 % of
the prices are missing.
"""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

TOWNS = ("berlin", "hamburg", "munich", "cologne")
BY_WEEKDAY = {
    "city": (1.0, 1.0, 1.0, 1.05, 1.2, 1.3, 0.5),
    "mall": (0.9, 0.9, 0.95, 1.0, 1.15, 1.5, 1.1),
    "village": (1.1, 1.0, 1.0, 1.0, 1.1, 0.9, 0.0),
}
CLOSED = ((12, 25), (12, 26), (1, 1))


def make_shops(n_shops: int = 12, n_days: int = 730, seed: int = 0) -> pl.DataFrame:
    """A row a day and shop, by day: day, shop, kind, promo, price, units."""
    random = np.random.default_rng(seed)
    days = [date(2023, 1, 1) + timedelta(days=number) for number in range(n_days)]
    weekday, of_year = np.array([(day.weekday(), day.timetuple().tm_yday) for day in days]).T
    tables = []
    for shop in range(n_shops):
        kind = list(BY_WEEKDAY)[shop % 3]
        size = np.exp(random.normal(4.5, 1.0))
        season = 1 + (0.15 if kind != "city" else -0.08) * np.sin(2 * np.pi * (of_year - 80) / 365)
        promo = random.random(n_days) < 0.12
        price = (10 + random.normal(0, 0.6, n_days) - 1.5 * promo).round(2)
        noise = np.zeros(n_days)
        for day in range(1, n_days):
            noise[day] = 0.8 * noise[day - 1] + random.normal(0, 0.08)
        units = size * np.array(BY_WEEKDAY[kind])[weekday] * season * (1 + 0.35 * promo) * (price / 10) ** -1.2
        units = (units * np.exp(noise + random.normal(0, 0.06, n_days))).round()
        is_open = np.array([(day.month, day.day) not in CLOSED for day in days]) & (units > 0)
        is_open &= np.arange(n_days) >= (0 if shop % 4 else random.integers(0, n_days // 3))
        known = pl.when(pl.Series(random.random(n_days) > 0.01)).then(pl.col("price")).alias("price")
        table = pl.DataFrame({"day": days, "price": price, "promo": promo, "units": units})
        names = {"shop": f"{TOWNS[shop % 4]}-{shop // 4 + 1}", "kind": kind}
        table = table.with_columns(known, **{name: pl.lit(text) for name, text in names.items()})
        tables.append(table.filter(pl.Series(is_open)).select("day", "shop", "kind", "promo", "price", "units"))
    return pl.concat(tables).sort("day", "shop")


if __name__ == "__main__":
    make_shops().write_csv(Path(__file__).parent / "shops.csv")
