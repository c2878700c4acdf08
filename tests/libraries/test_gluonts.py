"""What GluonTS has fitted with torch, on its own forecasts: distributions, quantiles, one step of DeepAR, masks."""

import numpy as np
import pandas as pd
import pytest
import torch
from gluonts.dataset.common import ListDataset
from gluonts.torch import DeepAREstimator, SimpleFeedForwardEstimator
from gluonts.torch import TemporalFusionTransformerEstimator as TFTEstimator
from gluonts.torch.distributions import NegativeBinomialOutput, NormalOutput
from gluonts.transform import LastValueImputation

import kanmodel
from kanmodel import CheckpointError, DataError, UnreadableModelError

PAST, HORIZON, ROWS = 12, 3, 80
TFT = {"hidden_dim": 4, "variable_dim": 4, "num_heads": 2}
DEEPAR = {"hidden_size": 6, "num_layers": 1, "lags_seq": [1, 2, 5]}


def make_series(missing=(), counts=False):
    """Two series of hours, with a column that is known ahead and a category."""
    random, hours, entries = np.random.default_rng(0), np.arange(ROWS), []
    for number in range(2):
        temp = np.sin(hours / 5) + random.normal(0, 0.1, ROWS)
        load = (number + 1) * 10 * (3 + np.sin(hours / 4) + 0.3 * temp + random.normal(0, 0.1, ROWS))
        load = np.round(load) if counts else load
        load[[*missing]] = np.nan
        known = {"feat_dynamic_real": temp[None].astype(np.float32), "feat_static_cat": [number]}
        entries.append({"start": pd.Period("2026-01-01", "h"), "target": load.astype(np.float32), **known})
    return ListDataset(entries, freq="h")


SERIES = make_series()


@pytest.fixture
def fit(tmp_path):
    """Fits an estimator of a kind for a moment."""
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "logger"), False)
    trainer = {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": str(tmp_path), **quiet}

    def fit(kind, dataset=SERIES, **options):
        torch.manual_seed(0)
        by_frequency = {"freq": "h"} if kind in (DeepAREstimator, TFTEstimator) else {}
        lengths = {"context_length": PAST, "prediction_length": HORIZON}
        estimator = kind(**by_frequency, **lengths, num_batches_per_epoch=2, trainer_kwargs=trainer, **options)
        return estimator.train(dataset)

    return fit


def forecast(predictor, dataset=SERIES):
    """What the library forecasts after all rows but the last `HORIZON`, of each series."""
    cut = [{**entry, "target": entry["target"][:-HORIZON]} for entry in dataset]
    return [*predictor.predict(cut)]


def last_windows(model):
    """Those of both series that end there: the newest of the reference."""
    newest = max(model.reference.times)
    chosen = [number for number, time in enumerate(model.reference.times) if time == newest]
    return model.scaling.features_to_original(model.reference.scaled)[chosen]


def check(model, windows):
    """An explanation is complete at each layer and has converged."""
    e = model.explain(windows, model.outputs[0])
    assert e.converged.all()
    change = e.predictions - e.baseline_prediction
    for layer in e.layers:
        around = 0 if layer.around is None else layer.around.sum(axis=1)
        assert (np.abs(layer.nodes.sum(axis=1) + around - change) <= e.residual + 1e-6).all()


@pytest.mark.parametrize("name", ["feedforward", "normal", "counts", "tft"])
def test_a_distribution_is_that_of_the_predictor(name, fit):
    """Its mean and its quantiles, by scipy in the library, after the scale of each window."""
    kind, options = {
        "feedforward": (SimpleFeedForwardEstimator, {"hidden_dimensions": [8, 8]}),
        "normal": (SimpleFeedForwardEstimator, {"batch_norm": True, "distr_output": NormalOutput()}),
        "counts": (SimpleFeedForwardEstimator, {"distr_output": NegativeBinomialOutput()}),
        "tft": (TFTEstimator, {**TFT, "dynamic_dims": [1], "distr_output": NormalOutput()}),
    }[name]
    series = make_series(counts=name == "counts")
    predictor = fit(kind, series, **options)
    model = kanmodel.from_gluonts(predictor, series, target="load", units={"load": "MW"})
    assert model.provenance.library.startswith("gluonts ") and model.config.horizon == HORIZON
    names = [f.name for f in model.features]
    if name == "tft":
        calendar = ["hour_of_day", "day_of_week", "day_of_month", "day_of_year"]
        assert names == ["load", "load_observed", *calendar, "feat_dynamic_real"]
        assert (model.lookback, model.config.ahead) == (PAST + HORIZON, 0)
    else:
        assert names == ["load"]
        assert (model.lookback, model.config.ahead) == (PAST, 1)
    windows = last_windows(model)
    predictions = dict(zip(model.outputs, model.predict(windows).T, strict=True))
    expected = forecast(predictor, series)
    for step in range(1, HORIZON + 1):
        mean = [each.mean[step - 1] for each in expected]
        np.testing.assert_allclose(predictions[f"load+{step}"], mean, rtol=2e-5)
        for level in (0.1, 0.5, 0.9):
            quantile = np.array([each.quantile(level)[step - 1] for each in expected])
            found = predictions[f"load+{step}@{level}"]
            tolerance = {"rtol": 1e-4} if name != "counts" else {"atol": 0.5 + 1e-3, "rtol": 1e-4}
            np.testing.assert_allclose(found, quantile, **tolerance)
    check(model, windows[:1])


def test_quantiles_of_a_tft_are_those_of_the_predictor(fit):
    """With categories of the series, which are whole numbers."""
    options = {**TFT, "quantiles": [0.1, 0.5, 0.9], "dynamic_dims": [1], "static_cardinalities": [2]}
    predictor = fit(TFTEstimator, **options)
    model = kanmodel.from_gluonts(predictor, SERIES, target="load")
    category = next(feature for feature in model.features if feature.name == "feat_static_cat")
    assert category.integer
    windows = last_windows(model)
    found = model.predict(windows).reshape(2, HORIZON, 3)
    expected = [np.stack([each.quantile(level) for level in (0.1, 0.5, 0.9)], axis=1) for each in forecast(predictor)]
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    check(model, windows[:1])


def test_the_first_step_of_deepar_is_explained(fit):
    """Its samples have the mean and the quantiles of the distribution, up to their errors."""
    predictor = fit(DeepAREstimator, **DEEPAR, num_feat_dynamic_real=1, num_feat_static_cat=1, cardinality=[2])
    model = kanmodel.from_gluonts(predictor, SERIES, target="load")
    assert model.config.horizon == 1 and model.lookback == PAST + 4 + 1
    windows = last_windows(model)
    found = dict(zip(model.outputs, model.predict(windows).T, strict=True))
    torch.manual_seed(1)
    predictor.prediction_net.model.num_parallel_samples = 10_000
    for number, each in enumerate(forecast(predictor)):
        first = each.samples[:, 0]
        error = first.std() / np.sqrt(len(first))
        assert abs(first.mean() - found["load+1"][number]) < 5 * error
        for level in (0.1, 0.5, 0.9):
            assert abs((first <= found[f"load+1@{level}"][number]).mean() - level) < 0.02
    check(model, windows[:1])


@pytest.mark.parametrize("kind", [DeepAREstimator, TFTEstimator])
def test_missing_values_are_those_of_the_predictor(kind, fit):
    """They are filled as the library does, and the mask is 0: in arrays, in mappings without it, and in the library."""
    series = make_series(missing=[20, 41, 60, ROWS - HORIZON - 2])
    predictor = fit(kind, series, **(DEEPAR if kind is DeepAREstimator else {**TFT, "distr_output": NormalOutput()}))
    model = kanmodel.from_gluonts(predictor, series, target="load")
    names = [feature.name for feature in model.features]
    load, mask = names.index("load"), names.index("load_observed")
    windows = last_windows(model)
    missing = windows[:, :, mask] == 0
    assert missing.any() and (windows[missing][:, load] == 0).all()
    given = windows.copy()
    given[missing, load] = np.nan
    given[:, :, mask] = 1.0
    expected = model.predict(windows)
    np.testing.assert_array_equal(model.predict(given), expected)
    columns = {name: given[:, :, number] for number, name in enumerate(names) if number != mask}
    np.testing.assert_array_equal(model.predict(columns), expected)
    if kind is TFTEstimator:
        mean = np.array([each.mean for each in forecast(predictor, series)])
        steps = [model.outputs.index(f"load+{step}") for step in range(1, HORIZON + 1)]
        np.testing.assert_allclose(expected[:, steps], mean, rtol=2e-5)
    given[:, :, names.index("day_of_week")] = np.nan
    with pytest.raises(DataError, match="the model has no mask for a missing value there"):
        model.predict(given)


def test_another_imputation_has_no_mask(fit):
    """The last value that stands for a missing one is no fixed one."""
    series = make_series(missing=[20])
    predictor = fit(DeepAREstimator, series, **DEEPAR, imputation_method=LastValueImputation())
    model = kanmodel.from_gluonts(predictor, series)
    assert not model.config.table.masks and "target_observed" in [feature.name for feature in model.features]


def test_what_is_refused_says_why(fit):
    predictor = fit(DeepAREstimator, **DEEPAR, nonnegative_pred_samples=True)
    with pytest.raises(UnreadableModelError, match="samples of DeepARModel are changed"):
        kanmodel.from_gluonts(predictor, SERIES)
    predictor = fit(SimpleFeedForwardEstimator)
    with pytest.raises(CheckpointError, match="predictor must be a PyTorchPredictor of GluonTS, but is a"):
        kanmodel.from_gluonts(predictor.prediction_net, SERIES)
    short = [{"start": pd.Period("2026-01-01", "h"), "target": np.ones(5, np.float32)}]
    with pytest.raises(CheckpointError, match=r"no windows of 12 \+ 3 rows of one target"):
        kanmodel.from_gluonts(predictor, short)
