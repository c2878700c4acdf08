"""Training beside seasonal naive, ridge, LightGBM, and the LSTMs of darts and neuralforecast, on four kinds of tables.

usage: PYTHONPATH=. .venv/libraries/bin/python tests/benchmarks/training.py
    [table ...] [--seeds 5] [--horizons 1,6,24,48] [--peers]

The tables are those of `training_tables`; the test part is the newest 15 % of the rows by time. Each model is trained
with default options, `ahead=1`, and windows of 24 steps, or as many as the horizon. Errors are mean absolute errors on
the test part, over all steps; of several seeds the median and the range. With one step ahead the contributions of what
was planted are compared with the truth: the share of its variance that a line through them explains. With `--peers`
the LSTMs of the libraries are trained once, on the same rows; LightGBM stands where Kanscope measures it (up to three
outputs).
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import torch

sys.path.insert(0, str(Path(__file__).parent))
from table import machine
from training_peers import PEERS
from training_tables import MATTER, N_SENSORS, TABLES, Planted

import kanmodel

WINDOW = 24
BASELINES = ("ridge", "seasonal_naive", "lightgbm")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", nargs="*", default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--horizons", default="1,6,24,48")
    parser.add_argument("--peers", action="store_true")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    peers = list(PEERS) if chosen.peers else []
    columns = ("table", "steps", "Kanscope", "beside ridge", "said", *BASELINES, *peers, "truth")
    print(f"{machine()}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name in chosen.tables:
        planted = TABLES[name]()
        for horizon in map(int, chosen.horizons.split(",")):
            models, said = [], 0
            for seed in range(chosen.seeds):
                with warnings.catch_warnings(record=True) as heard:
                    warnings.simplefilter("always")
                    models.append(train(planted, horizon, seed))
                said += any("is better on the test part" in str(each.message) for each in heard)
            errors = [model.metrics["test_mae"] for model in models]
            ratio = [model.metrics["test_mae"] / model.metrics["ridge_mae"] for model in models]
            figures = [
                f"{models[0].metrics[f'{name}_mae']:.3g}" if f"{name}_mae" in models[0].metrics else ""
                for name in BASELINES
            ]
            figures += [f"{PEERS[peer](planted, horizon, max(WINDOW, horizon)):.3g}" for peer in peers]
            truth = "; ".join(describe_truth(planted, models)) if horizon == 1 else ""
            warned = f"{said} of {len(models)}"
            row = (name, horizon, spread(errors), spread(ratio), warned, *figures, truth)
            print(f"| {' | '.join(map(str, row))} |", flush=True)


def train(planted: Planted, horizon: int, seed: int) -> kanmodel.Model:
    """A model of default options."""
    options: dict[str, Any] = {"ahead": 1, "horizon": horizon, "lookback": max(WINDOW, horizon), "seed": seed}
    return kanmodel.train(planted.frame, planted.target, progress=False, **options, **planted.options)


def spread(figures: list[float]) -> str:
    """The median and the range."""
    return f"{median(figures):.3g} ({min(figures):.3g} to {max(figures):.3g})"


def describe_truth(planted: Planted, models: list[kanmodel.Model]) -> list[str]:
    """R2 of what was planted by the contributions, and of sensors the share of those that do not matter."""
    said = list[str]()
    found = [model.explain(planted.frame, last=1000, gaps="skip") for model in models]
    for name, truth in planted.drivers.items():
        by_seed = []
        for explanation in found:
            rows = np.array([row_of(planted, time) for time in explanation.times or ()]) + 1
            is_there = rows < len(truth)
            values = explanation.contributions_by_group[:, explanation.group_names.index(name)]
            by_seed.append(float(np.corrcoef(values[is_there], truth[rows[is_there]])[0, 1] ** 2))
        said.append(f"{name} {spread(by_seed)}")
    if planted.target == "quality":
        others = {f"s{number:02d}" for number in range(N_SENSORS)} - set(MATTER)
        shares = []
        for model in models:
            size = {each.name: each.share for each in model.importance().features}
            shares.append(sum(size[name] for name in others) / sum(size.values()))
        said.append(f"share of those that do not matter {spread(shares)}")
    return said


def row_of(planted: Planted, time: str) -> int:
    """The row of a time as explanations write it."""
    times = planted.frame["time"]
    return int((times if times.dtype == pl.String else times.dt.strftime("%Y-%m-%dT%H:%M")).index_of(time[:16]) or 0)


if __name__ == "__main__":
    main()
