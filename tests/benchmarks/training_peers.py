"""The LSTMs of darts and neuralforecast on the tables of `training_tables`, on the rows that Kanscope is judged on.

Both are trained with their defaults and as many units and steps of optimization as Kanscope has, on windows of as many
steps, with known columns as future covariates where they take them (neuralforecast) or as past ones shifted by the
horizon (darts' BlockRNNModel takes no others). Their tables are made regular first: hours without a row and missing
values repeat the row before, and a day on which a shop is closed has no sales; neither is judged.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype
from training_tables import Planted

STEPS, UNITS, TEST_SHARE = 1000, 12, 0.15
os.environ["NIXTLA_ID_AS_COL"] = "1"
for name in ("pytorch_lightning", "lightning.pytorch", "darts"):
    logging.getLogger(name).setLevel(logging.ERROR)


def measure_neuralforecast(planted: Planted, horizon: int, lookback: int) -> float:
    """The mean absolute error of neuralforecast's LSTM."""
    from neuralforecast import NeuralForecast
    from neuralforecast.models import LSTM

    table, known, past, freq = make_regular(planted)
    quiet: dict[str, Any] = {"enable_progress_bar": False, "logger": False, "enable_model_summary": False}
    model = LSTM(
        h=horizon,
        input_size=lookback,
        encoder_hidden_size=UNITS,
        encoder_n_layers=1,
        max_steps=STEPS,
        futr_exog_list=known,
        hist_exog_list=past,
        scaler_type="identity",
        **quiet,
    )
    n_test = round(TEST_SHARE * table["ds"].nunique())
    forecasts = NeuralForecast([model], freq, local_scaler_type="standard").cross_validation(
        table.drop(columns="has"), n_windows=None, test_size=n_test, step_size=1, val_size=n_test, refit=False
    )
    judged = forecasts.merge(table[["unique_id", "ds", "has"]], on=["unique_id", "ds"])
    judged = judged[judged["has"]]
    return float((judged["LSTM"] - judged["y"]).abs().mean())


def measure_darts(planted: Planted, horizon: int, lookback: int) -> float:
    """The mean absolute error of darts' BlockRNNModel with an LSTM."""
    from darts import TimeSeries
    from darts.dataprocessing.transformers import Scaler
    from darts.models import BlockRNNModel

    table, known, past, freq = make_regular(planted)
    errors, all_targets, all_covariates, trained_on = list[float](), [], [], []
    names = known + past
    for _, of in table.groupby("unique_id", sort=False):
        of = of.copy()
        of[known] = of[known].shift(-horizon).ffill()  # what is known then is in the window
        all_targets.append(TimeSeries.from_dataframe(of, "ds", "y", freq=freq).astype(np.float32))
        all_covariates.append(TimeSeries.from_dataframe(of, "ds", names, freq=freq).astype(np.float32))
    first = np.sort(table["ds"].unique())[round((1 - TEST_SHARE) * table["ds"].nunique())]
    trained_on = [series.split_before(pd.Timestamp(first))[0] for series in all_targets]
    scaler, of_covariates = Scaler(global_fit=False), Scaler(global_fit=False)
    scaled = scaler.fit_transform(trained_on)
    covariates = of_covariates.fit_transform(all_covariates)
    options: dict[str, Any] = {"enable_progress_bar": False, "logger": False, "enable_model_summary": False}
    model = BlockRNNModel(
        lookback,
        horizon,
        model="LSTM",
        hidden_dim=UNITS,
        batch_size=256,
        n_epochs=60,
        random_state=0,
        pl_trainer_kwargs=options | {"max_steps": STEPS},
    )
    model.fit(scaled, past_covariates=covariates)
    has = table.set_index(["unique_id", "ds"])["has"]
    for number, (name, _) in enumerate(table.groupby("unique_id", sort=False)):
        whole = scaler.transform(all_targets)[number]
        found = model.historical_forecasts(
            whole,
            past_covariates=covariates[number],
            start=pd.Timestamp(first),
            forecast_horizon=horizon,
            retrain=False,
            last_points_only=False,
            verbose=False,
        )
        actual = all_targets[number].to_series()
        for forecast in found:
            values = scaler.inverse_transform([forecast] * len(all_targets))[number].to_series()
            is_there = np.array([has.get((name, time), False) for time in values.index])
            errors += (values - actual.reindex(values.index)).abs()[is_there].tolist()
    return float(np.mean(errors))


PEERS: dict[str, Callable[[Planted, int, int], float]] = {
    "neuralforecast": measure_neuralforecast,
    "darts": measure_darts,
}


def make_regular(planted: Planted) -> tuple[pd.DataFrame, list[str], list[str], str]:
    """A long table (unique_id, ds, y, has, columns), the known columns, the others, and the step of its times."""
    frame, options = planted.frame.to_pandas(), planted.options
    times = frame[options["time"]]
    if not is_datetime64_any_dtype(times) and isinstance(times.iloc[0], str):
        local = pd.to_datetime(times, format="%d.%m.%Y %H:%M")
        times = local.dt.tz_localize(options["zone"], ambiguous=~local.duplicated().to_numpy())
        times = times.dt.tz_convert("UTC").dt.tz_localize(None)
    frame = frame.assign(ds=pd.to_datetime(times), y=frame[planted.target].astype(float), has=True)
    frame["unique_id"] = frame[options["series"]] if "series" in options else "one"
    step = frame[frame["unique_id"] == frame["unique_id"].iloc[0]]["ds"].diff().mode().iloc[0]
    columns = [name for name in frame if name not in {"ds", "y", "has", "unique_id", planted.target, options["time"]}]
    columns = [name for name in columns if name not in {options.get("series"), "note"}]
    encoded = pd.get_dummies(frame[columns], columns=[name for name in columns if not is_numeric_dtype(frame[name])])
    frame = pd.concat([frame[["unique_id", "ds", "y", "has"]], encoded.astype(float)], axis=1)
    parts = []
    for name, of in frame.groupby("unique_id", sort=False):
        of = of.drop_duplicates("ds").set_index("ds").asfreq(step)
        of["has"] = of["has"].notna()
        of["unique_id"] = name
        of["y"] = of["y"].fillna(0.0) if "series" in options else of["y"].ffill()
        parts.append(of.ffill().bfill().reset_index())
    table = pd.concat(parts, ignore_index=True)
    hour = table["ds"].dt.hour + table["ds"].dt.minute / 60
    for called, phase in (("hour", hour / 24), ("weekday", table["ds"].dt.dayofweek / 7)):
        table[f"{called}_sin"], table[f"{called}_cos"] = np.sin(2 * np.pi * phase), np.cos(2 * np.pi * phase)
    calendar = ["hour_sin", "hour_cos", "weekday_sin", "weekday_cos"]
    given = options.get("known", [])
    known = [name for name in encoded if name in given or any(name.startswith(f"{each}_") for each in given)] + calendar
    return table, known, [name for name in encoded if name not in known], pd.tseries.frequencies.to_offset(step).freqstr
