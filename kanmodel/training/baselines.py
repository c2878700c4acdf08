"""Baseline forecasts on the same windows: persistence, seasonal persistence (day, week) and ridge regression."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kanmodel.arrays import Array
from kanmodel.tables.instants import ROUNDING
from kanmodel.training.samples import Ends, Samples
from kanmodel.training.tables import TrainingTable

PENALTIES = np.logspace(-1, 6, 15)
CHUNK = 4096  # windows flattened at a time


def r2_scores(targets: Array, forecasts: Array) -> Array:
    """R2 of each output, (n_outputs,): 1 - squared error / squared distance from the mean of these targets.

    Targets and forecasts are (n, n_outputs) in the same units; no column of targets may be constant.
    """
    spread = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    scores: Array = 1 - ((targets - forecasts) ** 2).sum(axis=0) / spread
    return scores


def persistence(table: TrainingTable, ends: Ends, horizon: int) -> Array:
    """The persistence forecast, (len(ends), horizon * n_targets), original units; NaN where there is no such value.

    Each target keeps the last value known at the window's last row: of the feature that `TrainingTable.last_value`
    names, or else of the target's column in the segment. A column that is already shifted (`ahead` 0) has future values
    and gives none.
    """
    columns = []
    for number, name in enumerate(table.target_names):
        source = table.last_value.get(name)
        if source is None:
            known = np.full(table.n_rows, np.nan)
            for first, last in table.segments if table.ahead else ():
                column = table.targets[first:last, number]
                at = np.maximum.accumulate(np.where(np.isnan(column), 0, np.arange(last - first)))
                known[first:last] = column[at]  # NaN before the first value
            columns.append(known[ends])
        elif source == 0:
            columns.append(np.zeros(len(ends)))
        else:
            columns.append(table.features[ends, table.feature_names.index(str(source))])
    return np.tile(np.column_stack(columns), horizon)


def seasonal_persistence(table: TrainingTable, ends: Ends, horizon: int, period: float) -> Array | None:
    """The seasonal naive forecast, (len(ends), horizon * n_targets), original units; `period` is in seconds.

    Each output is the latest value of its target a whole number of periods before it that is known at the window's last
    row (Hyndman and Athanasopoulos 2021, "Forecasting: Principles and Practice", section 5.2). None if the clock has no
    such season, `ahead` is 0, so that it is unknown which values are known, or a window has no such value.
    """
    clock = table.clock
    if clock is None or clock.rows_per(period) is None or not table.ahead:
        return None
    forecasts = np.full((len(ends), horizon, len(table.target_names)), np.nan)
    for first, last in table.segments:
        own = np.flatnonzero((first <= ends) & (ends < last))
        seconds, targets = clock.seconds[first:last], table.targets[first:last]
        for step in range(horizon):
            forecasts[own, step] = _repeat(seconds, targets, ends[own] - first, table.ahead + step, period, clock.step)
    return None if np.isnan(forecasts).any() else forecasts.reshape(len(ends), -1)


def _repeat(seconds: Array, targets: Array, ends: Ends, ahead: int, period: float, step: float) -> Array:
    """The value of each target a whole number of periods before the row `ahead` after `ends`; NaN if there is none.

    Instants (n_rows,) and targets (n_rows, n_targets) of a segment and n `ends` give (n, n_targets); `period` and
    `step`, the usual step, are in seconds.
    """
    found, tolerance = np.full((len(ends), targets.shape[1]), np.nan), ROUNDING * step
    instants = seconds[ends + ahead]
    periods = np.ceil((instants - seconds[ends] - tolerance) / period)
    left = np.arange(len(ends))  # windows without a value so far
    while len(left):
        wanted = instants[left] - periods[left] * period
        rows = np.minimum(np.searchsorted(seconds, wanted - tolerance), ends[left])  # no later than the window's last
        exists = np.abs(seconds[rows] - wanted) <= tolerance
        values = np.where(exists[:, None], targets[rows], np.nan)
        found[left] = np.where(np.isnan(found[left]), values, found[left])
        left = left[np.isnan(found[left]).any(axis=1) & (wanted - period >= seconds[0] - tolerance)]
        periods[left] += 1
    return found


def ridge(samples: Samples, train: Ends, validation: Ends, test: Ends) -> Array:
    """Forecasts of a ridge regression on the flattened window (Hoerl and Kennard 1970), in closed form.

    It is fitted on the windows `train`, with the penalty that has the lowest error on `validation`; the forecasts for
    `test` are (len(test), n_outputs), model units.
    """
    n_inputs, n_outputs = samples.lookback * samples.rows.shape[1], samples.horizon * samples.targets.shape[1]
    gram, moment = np.zeros((n_inputs + 1, n_inputs + 1)), np.zeros((n_inputs + 1, n_outputs))
    for x, y in _flattened(samples, train):
        gram += x.T @ x
        moment += x.T @ y
    # centred with the sums in the column of ones, so that the intercept is not penalised
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
