"""Many series: one model of sixty shops beside sixty models, on two years of daily sales.

usage: python tests/benchmarks/series.py [shops]

The sales are computed by `tests/examples/shops.py`, a week ahead, with the promotion and the price of that day. All
are judged on the same days, the newest 15 %, by the mean absolute error over shops of each shop's own mean, so that a
large shop counts as much as a small one. Prints processor seconds of the trainings and errors; takes a few minutes.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import polars as pl
import torch
from table import machine

import kanmodel

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
make_shops = import_module("shops").make_shops

LOOKBACK, EPOCHS = 28, 60
OPTIONS: dict[str, Any] = {"time": "day", "ahead": 7, "known": ["promo", "price"], "calendar": True, "fill": "forward"}
TRAINING: dict[str, Any] = {"lookback": LOOKBACK, "epochs": EPOCHS, "progress": False}


def main(n_shops: int) -> None:
    """Prints the table."""
    warnings.simplefilter("ignore")  # of windows that are left out
    torch.set_num_threads(1)
    sales = make_shops(n_shops)
    days = np.sort(sales["day"].to_numpy())
    first = days[round(0.85 * len(days))]  # of the test part, as of training
    sizes = dict(sales.filter(pl.col("day") < first).group_by("shop").agg(pl.col("units").mean()).iter_rows())
    print(f"{machine()}\n{n_shops} shops, {len(sales):,} rows\n\n| | processor seconds | mean relative error |")
    print("|---|---|---|")
    by_model: dict[str, Mapping[str, float]] = {}

    def show(name: str, seconds: float, errors: Mapping[str, float]) -> None:
        by_model[name] = errors
        print(f"| {name} | {seconds:.1f} | {np.mean(list(errors.values())):.1%} |", flush=True)

    def measure(model: kanmodel.Model, table: pl.DataFrame) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for row in model.backtest(table).rows():
            if row["actual"] is not None and np.datetime64(row["target_time"]) >= first + np.timedelta64(
                LOOKBACK + 6, "D"
            ):
                found.setdefault(row.get("series", ""), []).append(abs(row["error"]))
        return found

    few = sales.filter(pl.col("shop").is_in(list(sizes)[:2]))  # a training that is not counted imports what it needs
    kanmodel.train(few, "units", series="shop", **OPTIONS, **TRAINING | {"epochs": 1})
    for scaling in ("series", "all"):
        start = process_time()
        model = kanmodel.train(sales, "units", series="shop", static=["kind"], scaling=scaling, **OPTIONS, **TRAINING)
        seconds = process_time() - start
        found = {shop: float(np.mean(of)) / sizes[shop] for shop, of in measure(model, sales).items()}
        show(f"one model, scaled by {scaling}", seconds, found)
    start, alone = process_time(), {}
    for (shop,), table in sales.group_by("shop", maintain_order=True):
        of = kanmodel.train(table.drop("shop", "kind"), "units", **OPTIONS, **TRAINING)
        alone[shop] = float(np.mean(measure(of, table)[""])) / sizes[shop]
    show(f"{n_shops} models", process_time() - start, alone)
    one = by_model["one model, scaled by series"]
    better = sum(one[shop] <= error for shop, error in alone.items())
    print(f"\nOne model is at least as good as the shop's own for {better} of {n_shops} shops.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
