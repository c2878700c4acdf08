"""Intervals of darts, MAPIE and neuralforecast: LSTMs as large as Kanscope's, and settings of the libraries' guides.

All see the rows before the test part alone: they fit on the first 68 % of these, stop on the next 12 %, and calibrate
on the newest 20 %. What then learns from outcomes, forecast by forecast, is marked so: it knows those of the windows
whose last target is not later than the last row of the window that is forecast.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from bands import GAMMAS, LEVELS, Array, Bands
from tasks import Task

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
PATIENCE = 5  # epochs, or checks of neuralforecast, without a better validation loss
EPOCHS, BATCH, RATE = 50, 128, 0.01  # of darts: at most, windows a step, learning rate; half that of neuralforecast
MAX_STEPS, CHECK_STEPS, WINDOWS = 1000, 50, 128  # of neuralforecast: at most, between checks, windows a step
QUANTILES = sorted({0.5, *(round(tail, 4) for level in LEVELS for tail in ((1 - level) / 2, (1 + level) / 2))})
NEWEST = 250  # windows that darts calibrates on where the series drifts, beside all
SAMPLES = 200  # of each forecast with quantiles, for darts to calibrate on
RESAMPLINGS = 10  # of the block bootstrap of MAPIE
STRIDE = 20  # windows after which MAPIE updates its scores


def pick(values: Mapping[float, Array], learns: bool) -> Bands:
    """The bounds among quantiles, each (n, horizon)."""
    lower, upper = (np.stack([values[round((1 + sign * level) / 2, 4)] for level in LEVELS]) for sign in (-1, 1))
    return Bands(lower, upper, learns)


def darts(task: Task, seed: int) -> Iterator[tuple[str, Bands]]:
    """Conformal models around a BlockRNNModel, on all scores that are known at a window, or the newest 250."""
    from darts import TimeSeries
    from darts.models import BlockRNNModel, ConformalNaiveModel, ConformalQRModel
    from darts.utils.likelihood_models.torch import QuantileRegression
    from pytorch_lightning.callbacks import EarlyStopping

    fitted = task.frame[: task.validation]
    scaled = ((task.frame - fitted.mean()) / fitted.std()).astype(np.float32)
    target = TimeSeries.from_values(scaled.to_numpy()[:, :1])
    covariates = TimeSeries.from_values(scaled.to_numpy()[:, 1:])
    before, rest = task.validation - task.lookback, task.calibration - task.lookback

    def fit(folder: str, **options: Any) -> Any:
        stop = EarlyStopping("val_loss", patience=PATIENCE)
        model = BlockRNNModel(
            model="LSTM",
            hidden_dim=task.hidden,
            input_chunk_length=task.lookback,
            output_chunk_length=task.horizon,
            n_epochs=EPOCHS,
            batch_size=BATCH,
            optimizer_kwargs={"lr": RATE},
            pl_trainer_kwargs={"accelerator": "cpu", "callbacks": [stop], **QUIET},
            random_state=seed,
            work_dir=folder,
            model_name="model",
            force_reset=True,
            save_checkpoints=True,
            **options,
        )
        return model.fit(
            target[: task.validation],
            past_covariates=covariates[: task.validation],
            val_series=target[before : task.calibration],
            val_past_covariates=covariates[before : task.calibration],
            load_best=True,
        )

    def forecast(model: Any) -> Bands:
        found = model.historical_forecasts(
            target[rest:],
            past_covariates=covariates[rest:],
            forecast_horizon=task.horizon,
            start=task.first - rest,
            start_format="position",
            last_points_only=False,
            retrain=False,
            predict_likelihood_parameters=True,
        )
        values = np.stack([one.values() for one in found]) * fitted.iloc[:, 0].std() + fitted.iloc[:, 0].mean()
        return pick({q: values[:, :, number] for number, q in enumerate(QUANTILES)}, learns=True)

    with tempfile.TemporaryDirectory() as folder:
        model = fit(folder)
        for length in (None, NEWEST) if task.drift else (None,):
            ending = "" if length is None else f", newest {length}"
            conformal = ConformalNaiveModel(model, QUANTILES, cal_length=length)
            yield f"darts ConformalNaiveModel{ending}", forecast(conformal)
        if not task.drift:
            model = fit(folder, likelihood=QuantileRegression(QUANTILES))
            yield "darts ConformalQRModel", forecast(ConformalQRModel(model, QUANTILES, cal_num_samples=SAMPLES))


def neuralforecast(task: Task, seed: int) -> Iterator[tuple[str, Bands]]:
    """An LSTM with MQLoss, and one with MAE and conformal intervals, whose functions are given its forecasts.

    `NeuralForecast.predict` adds the same intervals to one window at a time.
    """
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MAE, MQLoss
    from neuralforecast.models import LSTM
    from neuralforecast.utils import PredictionIntervals, get_prediction_interval_method

    if task.drift:
        return  # learns nothing from outcomes
    table = task.frame.rename(columns={task.target: "y"}).assign(unique_id="series", ds=np.arange(len(task.frame)))
    levels = [round(100 * level) for level in LEVELS]
    n_validation = task.calibration - task.validation

    def fit(loss: Any, n_rows: int, **options: Any) -> Any:
        model = LSTM(
            h=task.horizon,
            input_size=task.lookback,
            encoder_n_layers=1,
            encoder_hidden_size=task.hidden,
            decoder_hidden_size=task.hidden,
            hist_exog_list=list(task.frame.columns[1:]),
            loss=loss,
            max_steps=MAX_STEPS,
            learning_rate=RATE / 2,
            val_check_steps=CHECK_STEPS,
            early_stop_patience_steps=PATIENCE,
            windows_batch_size=WINDOWS,
            scaler_type="identity",
            random_seed=seed,
            accelerator="cpu",
            **QUIET,
        )
        library = NeuralForecast([model], freq=1, local_scaler_type="standard")
        library.fit(table[:n_rows], val_size=n_validation, **options)
        return library

    def forecast(library: Any) -> pd.DataFrame:
        n_test = len(table) - task.first
        return library.cross_validation(table, n_windows=None, test_size=n_test, step_size=1, use_fitted=True)

    def shape(values: Any) -> Array:
        return np.asarray(values).reshape(-1, task.horizon)

    found = forecast(fit(MQLoss(level=levels), task.first))
    sides = {side: np.stack([shape(found[f"LSTM-{side}-{level}"]) for level in levels]) for side in ("lo", "hi")}
    yield "neuralforecast MQLoss", Bands(sides["lo"], sides["hi"])
    n_windows = task.first - task.calibration - task.horizon + 1
    library = fit(MAE(), task.first, prediction_intervals=PredictionIntervals(n_windows))
    library.prediction_intervals, scores = None, library._cs_df
    points = shape(forecast(library)["LSTM"])
    add = get_prediction_interval_method("conformal_distribution")
    options = {"cs_n_windows": n_windows, "n_series": 1, "horizon": task.horizon, "quantiles": QUANTILES}
    bounds = np.stack([add(of_window[:, None], scores, "LSTM", **options)[0][:, 1:] for of_window in points])
    yield "neuralforecast conformal", pick(dict(zip(QUANTILES, np.moveaxis(bounds, -1, 0), strict=True)), learns=False)


def mapie(task: Task, seed: int) -> Iterator[tuple[str, Bands]]:
    """EnbPI of what forecasts the validation part best, and ACI on a Kanscope model without intervals.

    Bounds of ACI that are infinite are counted as the largest error until then.
    """
    from mapie.regression import TimeSeriesRegressor
    from mapie.subsample import BlockBootstrap
    from sklearn.base import BaseEstimator, RegressorMixin, clone
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    class Given(RegressorMixin, BaseEstimator):
        """Forecasts that are already there, as the only feature."""

        def fit(self, X: Array, y: Array) -> Given:
            return self

        def predict(self, X: Array) -> Array:
            return X[:, 0]

        def __sklearn_is_fitted__(self) -> bool:
            return True

    def run(regressor: Any, inputs: Array, actual: Array, step: int, gamma: float | None = None) -> Array:
        """Bounds at a step, (n, 2, n_levels), with updates every `STRIDE` windows by the outcomes known then."""
        ensemble, told, found = gamma is None, 0, []
        options = {"ensemble": ensemble, "confidence_level": list(LEVELS), "allow_infinite_bounds": True}
        for start in range(0, len(inputs), STRIDE):
            known = max(0, start - step)
            if known > told:
                new = inputs[told:known], actual[told:known]
                if gamma is not None:
                    regressor.adapt_conformal_inference(*new, gamma=gamma, confidence_level=list(LEVELS))
                regressor.update(*new, ensemble=ensemble)
                told = known
            found.append(regressor.predict(inputs[start : start + STRIDE], **options)[1])
        return np.concatenate(found)

    def collect(of_steps: list[Array]) -> Bands:
        return Bands(*(np.stack([found[:, side].T for found in of_steps], axis=-1) for side in (0, 1)), learns=True)

    starts = (task.lookback, task.validation, task.calibration, task.first)
    fitted, validated, calibrated = map(task.ends, starts, starts[1:])
    before, tested = task.ends(task.lookback, task.first), task.tested
    sizes = {"hidden_layer_sizes": (task.hidden,), "learning_rate_init": RATE, "early_stopping": True}
    bases = (
        make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 6))),
        make_pipeline(StandardScaler(), MLPRegressor(**sizes, max_iter=500, random_state=seed)),
        HistGradientBoostingRegressor(max_iter=60, random_state=seed),
    )

    def flat(ends: Array) -> Array:
        return task.windows(ends).reshape(len(ends), -1)

    def score(base: Any) -> float:
        last = [task.actual(ends)[:, -1] for ends in (fitted, validated)]
        return float(clone(base).fit(flat(fitted), last[0]).score(flat(validated), last[1]))

    base, actual, bounds = max(bases, key=score), task.actual(tested), []
    for step in range(task.horizon):
        blocks = BlockBootstrap(n_resamplings=RESAMPLINGS, length=task.lookback, overlapping=True, random_state=seed)
        regressor = TimeSeriesRegressor(base, method="enbpi", cv=blocks, random_state=seed)
        regressor.fit(flat(before), task.actual(before)[:, step])
        bounds.append(run(regressor, flat(tested), actual[:, step], step))
    yield "MAPIE EnbPI", collect(bounds)
    model = task.train(seed, task.calibration)
    given, known = [model.predict(task.windows(ends)) for ends in (calibrated, tested)], task.actual(calibrated)
    for gamma in GAMMAS if task.drift else GAMMAS[:1]:
        bounds = []
        for step in range(task.horizon):
            regressor = TimeSeriesRegressor(Given(), method="aci", cv="prefit").fit(given[0][:, [step]], known[:, step])
            found = run(regressor, given[1][:, [step]], actual[:, step], step, gamma)
            errors = [np.abs(pair[0][:, step] - pair[1][:, step]) for pair in zip(given, (known, actual), strict=True)]
            earlier = np.concatenate([np.full(step + 1, errors[0].max()), errors[1]])[: len(actual)]
            largest = np.maximum.accumulate(earlier)  # of the errors known at each window
            points = given[1][:, step]
            ends = np.stack([points - largest, points + largest], axis=1)[..., None]
            bounds.append(found.clip(ends[:, :1], ends[:, 1:]))
        yield f"MAPIE ACI, gamma {gamma}", collect(bounds)
