"""Stability of importance across trainings: the bundled model and models trained with other seeds.

`python tests/benchmarks/faithfulness/retraining.py`: two trainings with other seeds; `--epochs 2` for a quick run.
"""

from __future__ import annotations

import argparse
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import kanmodel
from kanmodel import Importance, Model
from service.models.repository import BUNDLED

NAME = "nyc-weather"
SEEDS = (5, 6)  # the bundled model has 4
# As service/bundled/README.md has it.
RECIPE = {
    "target": "dtemp_6h",
    "last_value": {"dtemp_6h": 0},
    "time": "time",
    "split": "split",
    "lookback": 24,
    "hidden": 12,
    "width": [12, 5, 1],
    "grid": 5,
    "grid_updates": 5,
    "lamb": 0.012,
    "noise": 0.5,
    "weight_decay": 0.05,
    "learning_rate": 0.01,
    "batch": 256,
    "validation_blocks": 9,
}


def main() -> None:
    """Trains, compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=25)
    chosen = parser.parse_args()
    table = pd.read_csv(BUNDLED / f"{NAME}.csv.gz").drop(columns=["segment"])
    models = [kanmodel.load(BUNDLED / f"{NAME}.safetensors")]
    models += [kanmodel.train(table, **RECIPE, epochs=chosen.epochs, seed=seed, progress=False) for seed in SEEDS]
    names = ["bundled", *(f"seed {seed}" for seed in SEEDS)]
    found = [model.importance() for model in models]
    print_shares(names, models, found)
    print_agreement(names, models, found)
    print_profiles(names, models)


def print_shares(names: list[str], models: list[Model], found: list[Importance]) -> None:
    """Share and verdict of each feature by model."""
    by_name = [{row.name: row for row in importance.features} for importance in found]
    heads = [f"{name}, R2 {model.metrics['test_r2']:.3f}" for name, model in zip(names, models, strict=True)]
    print(f"| feature | {' | '.join(heads)} | largest difference |\n|---|{'---|' * (len(names) + 1)}")
    for first in found[0].features:
        rows = [rows[first.name] for rows in by_name]
        cells = [f"{100 * row.share:.1f} %, {row.verdict}" for row in rows]
        spread = max(row.share for row in rows) - min(row.share for row in rows)
        print(f"| {first.name} | {' | '.join(cells)} | {100 * spread:.1f} |")


def print_agreement(names: list[str], models: list[Model], found: list[Importance]) -> None:
    """For each pair of models: order and sum of the shares, intervals, verdicts, and windows."""
    features = list(models[0].config.feature_names)
    by_name = [{row.name: row for row in importance.features} for importance in found]
    shares = np.array([[rows[name].share for name in features] for rows in by_name])
    low, high = (np.array([[rows[name].share_interval[k] for name in features] for rows in by_name]) for k in (0, 1))
    windows = models[0].reference.windows[::4]
    explained = [model.explain(windows).contributions for model in models]
    heads = "rank correlation of shares | share that moves | intervals of a share that overlap | same verdict |"
    print(f"\n| pair | {heads} correlation of contributions, by window |\n|---|---|---|---|---|---|")
    for a, b in combinations(range(len(models)), 2):
        rank = spearmanr(shares[a], shares[b]).statistic
        moved = np.abs(shares[a] - shares[b]).sum() / 2
        overlapping = int(np.sum((low[a] <= high[b]) & (low[b] <= high[a])))
        same = sum(by_name[a][name].verdict == by_name[b][name].verdict for name in features)
        pairs = np.corrcoef(explained[a].ravel(), explained[b].ravel())[0, 1]
        cells = [f"{names[a]}, {names[b]}", f"{rank:.2f}", f"{100 * moved:.1f} %", f"{overlapping} of {len(features)}"]
        print(f"| {' | '.join(cells)} | {same} of {len(features)} | {pairs:.2f} |")


def print_profiles(names: list[str], models: list[Model]) -> None:
    """The distance of each unit's profile to the nearest one of another model, as units have no order."""
    print("\n| pair | mean over units of the share that the nearest profile has in common |\n|---|---|")
    profiles = [_profiles(model) for model in models]
    for a, b in combinations(range(len(models)), 2):
        common = np.minimum(profiles[a][:, None], profiles[b][None]).sum(axis=2)  # (units, units)
        nearest = (common.max(axis=1).mean() + common.max(axis=0).mean()) / 2
        print(f"| {names[a]}, {names[b]} | {100 * nearest:.0f} % |")


def _profiles(model: Model) -> np.ndarray:
    """The profile of each LSTM unit, (n_units, n_features)."""
    units = [node for node in model.topology().nodes if node.kind == "lstm" and node.profile]
    return np.array([[node.profile.get(name, 0.0) for name in model.config.feature_names] for node in units])


if __name__ == "__main__":
    main()
