"""What a forecaster must beat: persistence and ridge regression, on the very same windows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kanmodel.scaling import Array
from kanmodel.training.samples import Ends, Samples, TrainingTable

PENALTIES = np.logspace(-1, 6, 15)
CHUNK = 4096  # windows flattened at a time


def r2_scores(targets: Array, forecasts: Array) -> Array:
    """R2 of each output: 1 - squared error / squared distance from the mean of these targets.

    Args:
        targets: (n, n_outputs), none of them constant.
        forecasts: (n, n_outputs), same units.

    Returns:
        (n_outputs,).
    """
    spread = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    scores: Array = 1 - ((targets - forecasts) ** 2).sum(axis=0) / spread
    return scores


def persistence(table: TrainingTable, ends: Ends, horizon: int) -> Array:
    """The forecast that nothing changes.

    A target that is itself a change is forecast as 0. A target whose last known value is in a feature
    (`TrainingTable.last_value`) is forecast as that value at the window's last row, at every step.

    Args:
        table: the rows.
        ends: rows at which the windows end.
        horizon: forecast steps.

    Returns:
        (len(ends), horizon * n_targets), original units.
    """
    forecasts = np.zeros((len(ends), len(table.target_names)))
    for target, feature in table.last_value.items():
        column = table.features[ends, table.feature_names.index(feature)]
        forecasts[:, table.target_names.index(target)] = column
    return np.tile(forecasts, horizon)


def ridge(samples: Samples, train: Ends, validation: Ends, test: Ends) -> Array:
    """Forecasts of a ridge regression on the flattened window (Hoerl and Kennard 1970), in closed form.

    Args:
        samples: windows and targets, model units.
        train: windows it is fitted on.
        validation: windows on which the penalty is chosen.
        test: windows to forecast.

    Returns:
        (len(test), n_outputs), model units.
    """
    n_inputs, n_outputs = samples.lookback * samples.rows.shape[1], samples.horizon * samples.targets.shape[1]
    gram, moment = np.zeros((n_inputs + 1, n_inputs + 1)), np.zeros((n_inputs + 1, n_outputs))
    for x, y in _flattened(samples, train):
        gram += x.T @ x
        moment += x.T @ y
    # centred by what the column of ones holds, so that the intercept is not penalised
    mean_x, mean_y = gram[-1, :-1] / len(train), moment[-1] / len(train)
    centred = gram[:-1, :-1] - len(train) * np.outer(mean_x, mean_x)
    values, vectors = np.linalg.eigh(centred)
    rotated = vectors.T @ (moment[:-1] - len(train) * np.outer(mean_x, mean_y))  # (n_inputs, n_outputs)

    def forecast(penalty: float, ends: Ends) -> Array:
        weights = vectors @ (rotated / (values.clip(0)[:, None] + penalty))
        intercept = mean_y - mean_x @ weights
        return np.concatenate([x[:, :-1] @ weights + intercept for x, _ in _flattened(samples, ends)])

    truth = samples.outputs(validation).double().numpy()
    errors = [np.mean((forecast(penalty, validation) - truth) ** 2) for penalty in PENALTIES]
    return forecast(PENALTIES[int(np.argmin(errors))], test)


def _flattened(samples: Samples, ends: Ends) -> Iterator[tuple[Array, Array]]:
    """Windows as rows (n, lookback * n_features + 1), the last column 1, and their targets (n, n_outputs)."""
    for start in range(0, len(ends), CHUNK):
        chunk = ends[start : start + CHUNK]
        flat = samples.windows(chunk).double().flatten(1).numpy()
        yield np.column_stack([flat, np.ones(len(flat))]), samples.outputs(chunk).double().numpy()
