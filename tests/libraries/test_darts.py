"""What darts has fitted, on its own forecasts: every kind of model, covariate, likelihood and scaler that is read."""

import numpy as np
import pandas as pd
import pytest
from darts import TimeSeries, models
from darts.dataprocessing.transformers import Scaler
from darts.utils.likelihood_models.torch import GaussianLikelihood, QuantileRegression
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer
from torch import nn

import kanmodel
from kanmodel import CheckpointError, UnknownNameError, UnreadableModelError

LOOKBACK, HORIZON, ROWS = 12, 6, 220
QUIET = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False)
TRAINING = {"n_epochs": 1, "random_state": 0, "pl_trainer_kwargs": {"accelerator": "cpu", **QUIET}}
SIZES = {"input_chunk_length": LOOKBACK, "output_chunk_length": HORIZON, **TRAINING}
BLOCKS = {"num_stacks": 2, "num_blocks": 1, "layer_widths": 8}
PAST = {  # models of past covariates
    "BlockRNNModel": {"model": "LSTM", "hidden_dim": 6},
    "NBEATSModel": BLOCKS,
    "NHiTSModel": BLOCKS,
    "TCNModel": {"kernel_size": 3, "num_filters": 3},
    "TransformerModel": {"d_model": 8, "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 1},
}
BOTH = {  # of future ones too
    "TiDEModel": {"hidden_size": 8, "decoder_output_dim": 4, "temporal_decoder_hidden": 4},
    "TSMixerModel": {"hidden_size": 8, "ff_size": 8, "num_blocks": 1},
    "DLinearModel": {"kernel_size": 5},
    "NLinearModel": {},
    "TFTModel": {"hidden_size": 8, "num_attention_heads": 2, "likelihood": None, "loss_fn": nn.MSELoss()},
}
TIDE = BOTH["TiDEModel"]


def make_series(name, n, seed):
    random, hours = np.random.default_rng(seed), np.arange(n)
    values = np.sin(hours / (5 + seed)) + random.normal(0, 0.2, n)
    return TimeSeries.from_times_and_values(
        pd.date_range("2026-01-01", periods=n, freq="h"), values.astype(np.float32)[:, None], columns=[name]
    )


LOAD, WIND, TEMP = make_series("load", ROWS, 1), make_series("wind", ROWS + 40, 2), make_series("temp", ROWS + 40, 3)
COVARIATES = {"past_covariates": WIND, "future_covariates": TEMP}


def fit(kind, *covariates, **options):
    sizes = SIZES if kind != "RNNModel" else {**TRAINING, "input_chunk_length": LOOKBACK, "training_length": 18}
    model = getattr(models, kind)(**sizes, **options)
    return model.fit(LOAD, **{name: COVARIATES[name] for name in covariates})


def check(model, expected, rows, **options):
    """The model, which forecasts what `predict` returned for rows that are no reference window."""
    found = kanmodel.from_darts(model, **options)
    assert found.provenance.verified and found.provenance.library.startswith("darts 0.")
    forecast = found.predict(rows[None])[0]
    np.testing.assert_allclose(forecast, expected.ravel(), atol=1e-5 * np.ptp(expected) + 1e-5)
    return found


def last_rows(*names, n=LOOKBACK):
    """The last rows of the series with its covariates, and of these those of a forecast; others are repeated."""
    columns = {"load": LOAD, "wind": WIND, "temp": TEMP}
    first, at = ROWS - LOOKBACK, np.arange(n)
    taken = [first + (at if name == "temp" else np.minimum(at, LOOKBACK - 1)) for name in names]
    return np.stack([columns[name].values()[rows, 0] for name, rows in zip(names, taken, strict=True)], axis=1)


@pytest.mark.parametrize("kind", PAST)
def test_a_model_of_past_covariates_forecasts_what_predict_returns(kind):
    """A window has the rows of input_chunk_length, the target first."""
    model = fit(kind, "past_covariates", **PAST[kind])
    found = check(model, model.predict(HORIZON).values(), last_rows("load", "wind"))
    assert [feature.name for feature in found.features] == ["load", "wind"]
    assert (found.lookback, found.outputs) == (LOOKBACK, tuple(f"load+{step}" for step in range(1, HORIZON + 1)))


def test_a_table_is_backtested_with_the_forecasts_of_the_library():
    """The first forecast is one row after a window's end; windows with rows of the forecast do not end before it."""
    model = fit("NBEATSModel", "past_covariates", **BLOCKS)
    found, frame = kanmodel.from_darts(model), LOAD.to_dataframe().join(WIND.to_dataframe())
    quiet = {"verbose": False, "show_warnings": False}
    chunks = {"start": LOOKBACK, "forecast_horizon": HORIZON, "retrain": False, "last_points_only": False, **quiet}
    expected = np.stack([each.values()[:, 0] for each in model.historical_forecasts(LOAD, WIND, **chunks)])
    backtest = found.backtest(frame)
    np.testing.assert_allclose(backtest.predictions, expected, atol=1e-5)
    actual = np.lib.stride_tricks.sliding_window_view(LOAD.values()[LOOKBACK:, 0], HORIZON)
    assert backtest.metrics.mae == pytest.approx(np.abs(expected - actual).mean(), rel=1e-4)
    assert found.calibrate(frame, intervals=0.8).levels == (0.8,)
    assert kanmodel.from_darts(fit("NLinearModel", "future_covariates")).config.ahead == 0


@pytest.mark.parametrize("kind", BOTH)
def test_future_covariates_are_read_in_rows_of_the_forecast(kind):
    """Other columns of these rows have no effect."""
    model = fit(kind, *COVARIATES, **BOTH[kind])
    rows = last_rows("load", "wind", "temp", n=LOOKBACK + HORIZON)
    found = check(model, model.predict(HORIZON).values(), rows)
    changed = rows.copy()
    changed[LOOKBACK:, :2] += 1
    np.testing.assert_array_equal(found.predict(changed[None]), found.predict(rows[None]))
    changed[LOOKBACK:, 2] += 1
    assert (found.predict(changed[None]) != found.predict(rows[None])).any()


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_a_horizon_above_that_of_the_model_is_forecast_from_forecasts(cell):
    """With the covariate of each next step, and the state of the step before."""
    model = fit("RNNModel", "future_covariates", model=cell, hidden_dim=6)
    found = check(model, model.predict(5).values(), last_rows("load", "temp", n=LOOKBACK + 5), horizon=5)
    assert len(found.outputs) == 5
    longer = fit("TiDEModel", *COVARIATES, **TIDE)
    rows = last_rows("load", "wind", "temp", n=LOOKBACK + 15)
    rows[:, 1] = WIND.values()[ROWS - LOOKBACK : ROWS + 15, 0]
    check(longer, longer.predict(15).values(), rows, horizon=15)


def test_parameters_of_a_likelihood_are_outputs():
    """Quantiles are named by their level, others as darts names them; a further horizon would sample."""
    quantile = fit("BlockRNNModel", likelihood=QuantileRegression([0.1, 0.5, 0.9]), use_reversible_instance_norm=True)
    expected = quantile.predict(HORIZON, predict_likelihood_parameters=True).values()
    found = check(quantile, expected, last_rows("load"), units={"load": "MW"})
    assert found.outputs[:3] == ("load+1@0.1", "load+1@0.5", "load+1@0.9")
    assert [target.unit for target in found.config.targets] == ["MW"] * 3
    assert found.reference.targets is not None
    normal = fit("RNNModel", model="GRU", likelihood=GaussianLikelihood())
    found = check(normal, normal.predict(1, predict_likelihood_parameters=True).values(), last_rows("load"))
    assert found.outputs == ("load_mu+1", "load_sigma+1") and found.reference.targets is None
    with pytest.raises(UnreadableModelError, match="a horizon above 1, output_chunk_length, samples"):
        kanmodel.from_darts(normal, horizon=2)
    with pytest.raises(CheckpointError, match="scaler is for forecasts and quantiles"):
        kanmodel.from_darts(normal, scaler=Scaler().fit(LOAD))


def test_windows_and_forecasts_are_in_the_units_before_a_scaler():
    """Of the target and of covariates; one that is not linear, or that differs by series, is refused."""
    scalers = Scaler(MinMaxScaler((-1, 1))), Scaler()
    raw = 1000 + 50 * LOAD
    model = models.NLinearModel(**SIZES).fit(
        scalers[0].fit_transform(raw), future_covariates=scalers[1].fit_transform(TEMP)
    )
    rows = last_rows("load", "temp", n=LOOKBACK + HORIZON)
    rows[:, 0] = 1000 + 50 * rows[:, 0]
    options = {"scaler": scalers[0], "future_covariates_scaler": scalers[1]}
    found = check(model, scalers[0].inverse_transform(model.predict(HORIZON)).values(), rows, **options)
    assert 900 < found.features[0].mean < 1100
    trained = scalers[0].inverse_transform(model.training_series).values()
    for feature, values in zip(found.features, (trained, TEMP.values()), strict=True):
        assert (feature.min, feature.max) == pytest.approx((values.min(), values.max()), rel=1e-5)
    coverage = found.reference.coverage
    assert [(each.shift, each.spread) for each in coverage] == [(None, None)] * 2 and coverage[0].range > 0.8
    assert not found.reference.span.unlike_training or coverage[1].range < 0.8
    bent = Scaler(QuantileTransformer(n_quantiles=50))
    bent.fit(raw)
    both = [raw, 2 * raw]
    for same in (True, False):
        scaler = Scaler(global_fit=same)
        scaled, given = scaler.fit_transform(both), {"future_covariates": [scalers[1].transform(TEMP)] * 2}
        if same:
            shared = kanmodel.from_darts(model, scaled, scaler=scaler, **given)
            assert shared.reference.targets.max() > 1500
        else:
            with pytest.raises(CheckpointError, match="scaler must be the same for all series"):
                kanmodel.from_darts(model, scaled, scaler=scaler, **given)
    for scaler, problem in ((bent, "scaler must be linear"), (1, "scaler cannot be inverted")):
        with pytest.raises(CheckpointError, match=problem):
            kanmodel.from_darts(model, scaler=scaler)


def test_a_model_of_float64_is_read_in_float64():
    """Also one that was made so after its fit, of series of float32."""
    precise = {"accelerator": "cpu", "precision": "64-true", **QUIET}
    for series, options in ((LOAD, {}), (LOAD, {"pl_trainer_kwargs": precise}), (LOAD.astype(np.float64), {})):
        model = models.NLinearModel(**{**SIZES, **options}).fit(series, future_covariates=TEMP.astype(series.dtype))
        model.model.double()
        found = kanmodel.from_darts(model)
        assert found.config.dtype == "float64" and found.provenance.relative_difference < 1e-10
    single = models.NLinearModel(**SIZES).fit(LOAD)
    assert kanmodel.from_darts(single, LOAD.astype(np.float64)).config.dtype == "float32"


def test_encodings_and_static_covariates_are_columns():
    """Columns that darts makes of the time are read with those given, and a series has its static values."""
    encoders = {"cyclic": {"future": ["hour"]}, "datetime_attribute": {"past": ["dayofweek"]}}
    found = kanmodel.from_darts(models.TiDEModel(**SIZES, **TIDE, add_encoders=encoders).fit(LOAD))
    made = ["darts_enc_pc_dta_dayofweek", "darts_enc_fc_cyc_hour_sin", "darts_enc_fc_cyc_hour_cos"]
    assert [feature.name for feature in found.features] == ["load", *made]
    every = [
        series.with_static_covariates(pd.DataFrame({"area": [area]})) for series, area in ((LOAD, 1.0), (2 * LOAD, 3.0))
    ]
    model = models.TiDEModel(**SIZES, **TIDE).fit(every)
    rows = np.column_stack([2 * last_rows("load"), np.full(LOOKBACK, 3.0)])
    found = check(model, model.predict(HORIZON, series=every[1]).values(), rows, series=every)
    assert [feature.name for feature in found.features] == ["load", "area"]
    times = found.reference.times
    assert times[0].startswith("2026-01-01 11:00") and list(times) == sorted(times)


def test_several_components_are_forecast_together():
    """Each is a feature and has its outputs."""
    both = LOAD.stack(WIND[:ROWS])
    model = models.NBEATSModel(**SIZES, **BLOCKS).fit(both)
    found = check(model, model.predict(HORIZON).values(), last_rows("load", "wind"))
    assert found.outputs[:3] == ("load+1", "wind+1", "load+2")


def test_the_file_of_a_model_gives_the_same(tmp_path):
    """darts loads it; a clean one is given the series, and its files say what reads them."""
    model = fit("NBEATSModel", "past_covariates", **BLOCKS)
    file = tmp_path / "m.pt"
    model.save(str(file), clean=True)
    with pytest.raises(CheckpointError, match="holds no series, as it was fitted to several or saved clean"):
        kanmodel.from_darts(file)
    again = kanmodel.from_darts(file, LOAD, past_covariates=WIND)
    windows = last_rows("load", "wind")[None]
    np.testing.assert_array_equal(again.predict(windows), kanmodel.from_darts(model).predict(windows))
    given = {"windows": np.random.default_rng(0).normal(size=(40, LOOKBACK, 2)), "features": ["load", "wind"]}
    for name in ("m.pt", "m.pt.ckpt"):
        with pytest.raises(CheckpointError, match=r"with darts, kanmodel\.from_darts\('m\.pt'\)"):
            kanmodel.from_file(tmp_path / name, predictions=np.ones((40, HORIZON)), **given)
    with pytest.raises(CheckpointError, match="darts cannot load"):
        kanmodel.from_darts(tmp_path / "m.pt.ckpt")


def test_what_cannot_be_read_is_refused():
    """Each with one sentence of what is missing, and the model forecasts as before."""
    model = fit("NBEATSModel", "past_covariates", **BLOCKS)
    before = model.predict(HORIZON).values()
    for series, options, problem in (
        (None, {"units": {"sun": "W"}}, "units has no column 'sun'; there are load, wind"),
        (LOAD[:10], {}, "no series has the 18 rows of a window and its forecast"),
        (None, {"past_covariates": WIND[:50]}, "darts cannot make windows of the series: For the given"),
        (None, {"past_covariates": WIND.stack(TEMP)}, "darts cannot forecast the series: The provided"),
        (None, {"future_covariates": TEMP}, "darts cannot make windows of the series: The model does not support"),
        (None, {"horizon": 2}, "horizon must be a whole number from 6"),
    ):
        with pytest.raises((CheckpointError, UnknownNameError, kanmodel.ConfigError), match=problem):
            kanmodel.from_darts(model, series, **options)
    np.testing.assert_array_equal(model.predict(HORIZON).values(), before)
    with pytest.raises(CheckpointError, match="NLinearModel is not fitted: call its fit"):
        kanmodel.from_darts(models.NLinearModel(**SIZES))
    with pytest.raises(CheckpointError, match="takes a model of darts on torch, but this is a NaiveMean"):
        kanmodel.from_darts(models.NaiveMean())
    shifted = models.NLinearModel(**SIZES, output_chunk_shift=2).fit(LOAD)
    with pytest.raises(UnreadableModelError, match="output_chunk_shift of 2"):
        kanmodel.from_darts(shifted)


TFTS = {
    "quantiles": ({}, COVARIATES),
    "relative": ({"add_relative_index": True, "full_attention": True, "feed_forward": "GLU"}, {}),
    "categories": ({"categorical_embedding_sizes": {"site": 2}, "lstm_layers": 2, "norm_type": "RMSNorm"}, COVARIATES),
}


@pytest.mark.parametrize("name", TFTS)
def test_a_deletion_from_a_fusion_transformer_is_that_of_darts(name):
    """Its quantiles, which change as those of darts do where a value is another; the ledger is complete."""
    options, covariates = TFTS[name]
    series = LOAD
    if name == "categories":
        series = LOAD.with_static_covariates(pd.DataFrame({"site": [1.0], "area": [3.0]}))
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "hidden_continuous_size": 4}
    model = models.TFTModel(**SIZES, **sizes, likelihood=QuantileRegression([0.1, 0.5, 0.9]), **options)
    model.fit(series, **covariates)
    found = kanmodel.from_darts(model, integer=["site"] if name == "categories" else [])
    names = [feature.name for feature in found.features]
    columns = {"site": 1.0, "area": 3.0}
    rows = last_rows(*[each for each in names if each not in columns], n=found.lookback)
    rows = np.column_stack([rows, *(np.full(found.lookback, columns[each]) for each in names if each in columns)])
    deleted = rows.copy()
    deleted[LOOKBACK - 3 : LOOKBACK, 0] = LOAD.values().mean()
    values = np.where(np.arange(ROWS)[:, None, None] >= ROWS - 3, LOAD.values().mean(), LOAD.all_values())
    changed = series.with_values(values)
    before, after = (
        model.predict(HORIZON, of.astype(np.float32), predict_likelihood_parameters=True, **covariates).values().ravel()
        for of in (series, changed)
    )
    ours = found.predict(np.stack([rows, deleted]))
    np.testing.assert_allclose(ours, [before, after], atol=2e-5)
    assert np.abs(after - before).max() > 1e-3
    explanation = found.explain(rows[None], found.outputs[1])
    assert explanation.converged.all()


@pytest.mark.parametrize("kind", ["BlockRNNModel", "NHiTSModel"])
def test_contributions_sum_to_the_forecast_at_every_cut(kind):
    """The normalisation of each window is part of the graph that is explained."""
    found = kanmodel.from_darts(fit(kind, "past_covariates", use_reversible_instance_norm=True, **PAST[kind]))
    explanation = found.explain(np.stack([last_rows("load", "wind")]))
    assert explanation.converged.all()
    change = explanation.predictions - explanation.baseline_prediction
    for layer in explanation.layers:
        summed = layer.nodes.sum(axis=1) + (0 if layer.around is None else layer.around.sum(axis=1))
        np.testing.assert_allclose(summed, change, atol=2 * np.abs(explanation.residual).max() + 1e-6)
