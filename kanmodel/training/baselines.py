"""Simple forecasts of the same windows, which a model has to beat: seasonal naive, ridge regression and LightGBM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from kanmodel.arrays import Array
from kanmodel.tables.encoding import Rows
from kanmodel.tables.roles import TrainingTable
from kanmodel.tables.samples import Samples
from kanmodel.tables.statistics.choose import choose_evenly
from kanmodel.tables.windows import Windows

PENALTIES = np.logspace(-1, 6, 15)
CHUNK = 4096  # windows flattened at a time
RIDGE_INPUTS = 2048  # most values of a window, of which the matrix of a ridge regression takes seconds
BOOSTED_VALUES = 4_000_000  # of the windows, for each output, on which LightGBM is fitted, chosen evenly
MOST_BOOSTED = 3  # outputs, beyond which it would take more than seconds
TREES = 200


def persistence(table: TrainingTable, windows: Windows) -> Array:
    """The persistence forecast, (n, horizon * n_targets), original units; NaN where there is no such value.

    Each target keeps the last value known at the window's last row: of the feature that `Roles.last_value` names, or
    else of the target's column in the series. A column that is already shifted (`ahead` 0) has future values and gives
    none.
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


def seasonal_naive(windows: Windows, season: int) -> Array:
    """`Windows.seasonal_naive` of all targets, (n, horizon * n_targets), original units."""
    targets = range(len(windows.table.spec.targets))
    return np.stack([windows.seasonal_naive(number, season) for number in targets], axis=2).reshape(len(windows), -1)


Forecast = Callable[[Rows], Array]
"""Forecasts (n, n_outputs), model units, for windows by their numbers."""


class Moments(NamedTuple):
    """Means of flattened windows and targets, and their centred products, summed over windows."""

    n: int
    mean_x: Array  # (n_inputs,)
    mean_y: Array  # (n_outputs,)
    xx: Array  # (n_inputs, n_inputs)
    xy: Array  # (n_inputs, n_outputs)

    @classmethod
    def of(cls, samples: Samples, numbers: Rows) -> Moments | None:
        """Those of some windows; None of windows of more than 2,048 values, whose matrix would take minutes."""
        n_inputs, n_outputs = samples.source.lookback * samples.rows.shape[1], samples.targets.shape[1]
        if n_inputs > RIDGE_INPUTS:
            return None
        gram, moment, n = np.zeros((n_inputs + 1, n_inputs + 1)), np.zeros((n_inputs + 1, n_outputs)), len(numbers)
        for x, y in _flattened(samples, numbers):
            gram += x.T @ x
            moment += x.T @ y
        mean_x, mean_y = gram[-1, :-1] / n, moment[-1] / n  # by the column of ones
        xx, xy = gram[:-1, :-1] - n * np.outer(mean_x, mean_x), moment[:-1] - n * np.outer(mean_x, mean_y)
        return cls(n, mean_x, mean_y, xx, xy)


def ridge(samples: Samples, train: Rows, validation: Rows) -> Forecast | None:
    """A ridge regression on the flattened window (Hoerl and Kennard 1970), in closed form.

    It is fitted on the windows `train`, with the penalty that has the lowest error on `validation`. None where
    `Moments` has none.
    """
    moments = Moments.of(samples, train)
    if moments is None:
        return None
    values, vectors = np.linalg.eigh(moments.xx)
    rotated = vectors.T @ moments.xy  # (n_inputs, n_outputs)

    def forecast(penalty: float, numbers: Rows) -> Array:
        weights = vectors @ (rotated / (values.clip(0)[:, None] + penalty))
        intercept = moments.mean_y - moments.mean_x @ weights
        return np.concatenate([x[:, :-1] @ weights + intercept for x, _ in _flattened(samples, numbers)])

    truth = samples.outputs(validation).double().numpy()
    errors = [np.mean((forecast(penalty, validation) - truth) ** 2) for penalty in PENALTIES]
    return partial(forecast, PENALTIES[int(np.argmin(errors))])


def boosted_trees(samples: Samples, train: Rows, validation: Rows) -> Forecast | None:
    """Gradient-boosted trees on the flattened window (Ke et al. 2017, "LightGBM"), as of `ridge`.

    The number of trees is that with the lowest error on `validation`, at most 200. None where LightGBM is not
    installed, or would take longer than seconds, as of more than 3 outputs.
    """
    n_values = samples.source.lookback * samples.rows.shape[1]
    if find_spec("lightgbm") is None or samples.targets.shape[1] > MOST_BOOSTED or n_values > RIDGE_INPUTS:
        return None
    train = train[choose_evenly(len(train), BOOSTED_VALUES // n_values)]
    lightgbm = import_module("lightgbm")
    (x, y), (x_held, y_held) = (next(_flattened(samples, of, len(of))) for of in (train, validation))
    options: dict[str, float] = {"verbosity": -1, "seed": 0, "deterministic": True, "force_row_wise": True}
    options |= {"max_bin": 63, "feature_fraction": 0.5}  # a third of the time, and as good here
    fitted = []
    for output in range(y.shape[1]):
        data = lightgbm.Dataset(x, y[:, output])
        held = lightgbm.Dataset(x_held, y_held[:, output], reference=data)
        stop = lightgbm.early_stopping(20, verbose=False)
        fitted.append(lightgbm.train(options, data, TREES, valid_sets=[held], callbacks=[stop]))

    def forecast(numbers: Rows) -> Array:
        x = next(_flattened(samples, numbers, len(numbers)))[0]
        return np.column_stack([trees.predict(x) for trees in fitted])

    return forecast


def _flattened(samples: Samples, numbers: Rows, most: int = CHUNK) -> Iterator[tuple[Array, Array]]:
    """Windows as rows (n, lookback * n_features + 1), the last column 1, and their targets (n, n_outputs)."""
    for start in range(0, len(numbers), most):
        chunk = numbers[start : start + most]
        flat = samples.windows(chunk).double().flatten(1).numpy()
        yield np.column_stack([flat, np.ones(len(flat))]), samples.outputs(chunk).double().numpy()
