"""Simple forecasts, which a model has to beat, and a sparse linear path that may stand beside its network.

A recurrent layer hands on as many numbers as it has units, too few for a curve of 24 steps of which each needs the
known values of its own time. What lines through a window can say need not go through it: each output reads a few
values of the window, chosen by orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993), and the network
is trained on what these lines leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.tables.encoding import Rows
from kanmodel.tables.roles import TrainingTable
from kanmodel.tables.samples import Samples
from kanmodel.tables.skill import Moments, Skill
from kanmodel.tables.statistics.choose import choose_evenly
from kanmodel.tables.windows import Windows

CHUNK = 4096  # windows flattened at a time
RIDGE_INPUTS = 2048  # most values of a window, of which the matrix of a ridge regression takes seconds
MOST_READ = 12  # values of a window that an output of a linear path reads
PATH_RIDGE = 1e-4  # of the variance of the values, so that equal ones share their weight
BOOSTED_VALUES = 4_000_000  # of the windows, for each output, on which LightGBM is fitted, chosen evenly
MOST_BOOSTED = 3  # outputs, beyond which it would take more than seconds
TREES = 200
LEAST_SPREAD = 0.1  # of forecasts, in standard deviations of what came, below which they are called constant

Forecast = Callable[[Rows], Array]
"""Forecasts (n, n_outputs), model units, for windows by their numbers."""


def persistence(table: TrainingTable, windows: Windows) -> Array:
    """The persistence forecast, (n, horizon * n_targets), original units; NaN where there is no such value.

    Each target keeps the last value known at the window's last row: of the feature that `Roles.last_value` names, or
    else of the target's column, unless it is already shifted (`ahead` 0) and so has future values.
    """
    columns = []
    for number, name in enumerate(table.target_names):
        source = table.last_value.get(name)
        if source is None:
            columns.append(windows.persistence(number))
        elif source == 0:
            columns.append(np.zeros(len(windows)))
        else:
            columns.append(windows.newest[:, table.feature_names.index(str(source))])
    return np.tile(np.column_stack(columns), windows.horizon)


def seasonal_naive(table: TrainingTable, windows: Windows, season: int) -> Array:
    """`Windows.seasonal_naive` of all targets, (n, horizon * n_targets), original units; NaN if no value is known.

    Where a series is too young for it, as a shop that has just opened, the persistence forecast stands in.
    """
    targets = range(len(windows.table.spec.targets))
    naive = np.stack([windows.seasonal_naive(number, season) for number in targets], axis=2).reshape(len(windows), -1)
    lacks = np.isnan(naive)
    return naive if lacks.all() else np.where(lacks, persistence(table, windows), naive)


@dataclass(frozen=True)
class LinearPath:
    """Lines from values of a window to the outputs, model units."""

    places: Rows  # of the values that any output reads, in the flattened window, oldest step first, (n_read,)
    weights: Tensor  # of each output, (n_outputs, n_read); 0 of values that it does not read
    intercept: Tensor  # (n_outputs,)

    @classmethod
    def fit(cls, moments: Moments, may_read: NDArray[np.bool_], dtype: torch.dtype) -> LinearPath:
        """The path of up to `MOST_READ` values for each output, of those that it may read, (n_inputs,) bool."""
        n_inputs, n_outputs = moments.xy.shape
        weights, scale = np.zeros((n_outputs, n_inputs)), np.sqrt(np.diag(moments.xx))
        usable = may_read & (scale > 0)
        for output in range(n_outputs):
            chosen, left = list[int](), moments.xy[:, output]
            for _ in range(min(MOST_READ, int(usable.sum()))):
                score = np.divide(np.abs(left), scale, out=np.zeros(n_inputs), where=usable)
                score[chosen] = 0
                chosen.append(int(score.argmax()))
                among = moments.xx[np.ix_(chosen, chosen)]
                found = np.linalg.solve(among + PATH_RIDGE * np.diag(np.diag(among)), moments.xy[chosen, output])
                left = moments.xy[:, output] - moments.xx[:, chosen] @ found
                weights[output, chosen] = found
        intercept = moments.mean_y - weights @ moments.mean_x
        places = np.flatnonzero((weights != 0).any(axis=0))
        return cls(places, torch.from_numpy(weights[:, places]).to(dtype), torch.from_numpy(intercept).to(dtype))

    def forecast(self, windows: Tensor) -> Tensor:
        """Of windows (n, lookback, n_features), the outputs (n, n_outputs)."""
        return windows.flatten(1)[:, self.places] @ self.weights.T + self.intercept


def boosted_trees(samples: Samples, train: Rows, validation: Rows) -> Forecast | None:
    """Gradient-boosted trees on the flattened window (Ke et al. 2017, "LightGBM").

    The number of trees is that with the lowest error on `validation`, at most 200. None where LightGBM is not
    installed, or would take longer than seconds, as of more than 3 outputs.
    """
    n_values = samples.source.lookback * samples.rows.shape[1]
    if find_spec("lightgbm") is None or samples.targets.shape[1] > MOST_BOOSTED or n_values > RIDGE_INPUTS:
        return None
    train = train[choose_evenly(len(train), BOOSTED_VALUES // n_values)]
    lightgbm, fitted = import_module("lightgbm"), []
    (x, y), (x_held, y_held) = (next(flatten(samples, of, len(of))) for of in (train, validation))
    options: dict[str, float] = {"verbosity": -1, "seed": 0, "deterministic": True, "force_row_wise": True}
    options |= {"max_bin": 63, "feature_fraction": 0.5}  # a third of the time, and as good here
    for output in range(y.shape[1]):
        data = lightgbm.Dataset(x, y[:, output])
        held = lightgbm.Dataset(x_held, y_held[:, output], reference=data)
        stop = lightgbm.early_stopping(20, verbose=False)
        fitted.append(lightgbm.train(options, data, TREES, valid_sets=[held], callbacks=[stop]))

    def forecast(numbers: Rows) -> Array:
        x = next(flatten(samples, numbers, len(numbers)))[0]
        return np.column_stack([trees.predict(x) for trees in fitted])

    return forecast


def flatten(samples: Samples, numbers: Rows, most: int = CHUNK) -> Iterator[tuple[Array, Array]]:
    """Windows as rows (n, lookback * n_features), and their targets (n, n_outputs), some at a time."""
    for start in range(0, len(numbers), most):
        chunk = numbers[start : start + most]
        yield samples.windows(chunk).double().flatten(1).numpy(), samples.outputs(chunk).double().numpy()


def measure_moments(samples: Samples, numbers: Rows) -> Moments | None:
    """Those of some windows; None of windows of more than 2,048 values, whose matrix would take minutes."""
    is_small = samples.source.lookback * samples.rows.shape[1] <= RIDGE_INPUTS
    return Moments.of(flatten(samples, numbers)) if is_small else None


def find_weaknesses(metrics: Mapping[str, float], skill: Skill, table: TrainingTable) -> list[str]:
    """Sentences about the test part: the model is constant, or no better than a simple forecast."""
    found = list[str]()
    if not table.spec.ahead and not table.last_value:
        found.append(
            "ahead is 0, so the target's value in each row is forecast from that very row: give ahead, unless the "
            "column is shifted already; then last_value says what is known of it"
        )
    if metrics["test_spread"] < LEAST_SPREAD:
        found.append(
            "the forecasts are nearly constant: on the test part their standard deviation is "
            f"{metrics['test_spread']:.2g} of that of the actual values"
        )
    is_weak = skill.verdict == "red" or (skill.verdict == "amber" and (skill.better_by or 0.0) <= 0)
    return [*found, *([str(skill)] if is_weak else [])]
