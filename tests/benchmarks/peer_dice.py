"""Counterfactuals by dice-ml (Mothilal, Sharma and Tan 2020, arXiv 1905.07697), in its own environment.

    python peer_dice.py CHECKPOINT GOALS.npz

Its model takes a constant shift of each feature that may change, in training standard deviations, so
that its distances are those of `Counterfactual`. It prints the smallest distance that reaches each goal and the
processor seconds, as JSON; null if it found none within a minute.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import redirect_stdout
from pathlib import Path
from time import process_time
from typing import Any

import dice_ml
import numpy as np
import pandas as pd
import torch
from raiutils.exceptions import UserConfigValidationException

from kanmodel.alternatives.changeable import Goal, SearchOptions, ShiftableWindow
from kanmodel.arrays import Array
from kanmodel.checkpoint import load_checkpoint
from kanmodel.forecaster import Forecaster

METHODS = ("random", "genetic")
N_ROWS = 1000  # random shifts in place of training data
N_FOUND = 10  # counterfactuals per search, of which the nearest counts
FAR = 1e6  # in place of a missing bound
MINUTE = 60.0


class Regressor:
    """The interface of a scikit-learn regressor for dice-ml."""

    def __init__(self, shifts: ShiftableWindow) -> None:
        self._shifts = shifts

    def predict(self, rows: Any) -> Array:
        """The forecasts for shifts, (n,)."""
        moved = np.zeros((len(rows), len(self._shifts.low)))
        moved[:, self._shifts.movable] = np.asarray(rows, dtype=float)
        return self._shifts.predict(moved)


def search(model: Forecaster, window: Array, goal: Goal, method: str) -> float | None:
    """The smallest distance among its counterfactuals."""
    rng = np.random.default_rng(0)
    shifts = ShiftableWindow(model, window, 0, SearchOptions())
    names, forecaster = [model.config.feature_names[number] for number in shifts.movable], Regressor(shifts)
    low, high = shifts.low[shifts.movable], shifts.high[shifts.movable]
    rows = pd.DataFrame(rng.uniform(low, high, (N_ROWS, len(names))), columns=names)
    data = dice_ml.Data(
        dataframe=rows.assign(forecast=forecaster.predict(rows)), continuous_features=names, outcome_name="forecast"
    )
    explainer = dice_ml.Dice(data, dice_ml.Model(forecaster, backend="sklearn", model_type="regressor"), method=method)
    bounds = [max(goal.low, -FAR), min(goal.high, FAR)]
    query = pd.DataFrame(np.zeros((1, len(names))), columns=names)
    ranges = {name: [*pair] for name, *pair in zip(names, low, high, strict=True)}
    try:
        found = explainer.generate_counterfactuals(
            query, total_CFs=N_FOUND, desired_range=bounds, permitted_range=ranges
        )
    except (UserConfigValidationException, TimeoutError):
        return None
    (one,) = found.cf_examples_list
    places = one.final_cfs_df_sparse[names].to_numpy(float)
    reached = goal.miss(forecaster.predict(places)) <= 1e-6 * model.output_std[0]  # dice-ml rounds its results
    return float(np.abs(places[reached]).sum(axis=1).min()) if reached.any() else None


def end(*_: object) -> None:
    """Ends a search that takes too long: dice-ml does not return if no random shift reaches the goal."""
    raise TimeoutError


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, given = load_checkpoint(Path(sys.argv[1])), np.load(sys.argv[2])
    signal.signal(signal.SIGPROF, end)
    answers: dict[str, list[tuple[float | None, float]]] = {method: [] for method in METHODS}
    with redirect_stdout(sys.stderr):
        for window, bounds in zip(given["windows"], given["goals"], strict=True):
            for method, found in answers.items():
                start = process_time()
                signal.setitimer(signal.ITIMER_PROF, MINUTE)
                distance = search(model, window, Goal(*bounds), method)
                signal.setitimer(signal.ITIMER_PROF, 0)
                found.append((distance, process_time() - start))
    print(json.dumps(answers))
