"""Forecasters of sktime as models, on their own forecasts, and a model as a forecaster, by sktime's own tests."""

import numpy as np
import pandas as pd
import pytest
import torch
from sktime.forecasting.ltsf import LTSFDLinearForecaster, LTSFLinearForecaster, LTSFNLinearForecaster
from sktime.forecasting.naive import NaiveForecaster
from sktime.forecasting.neuralforecast import NeuralForecastLSTM
from sktime.utils.estimator_checks import check_estimator
from torch import nn

import kanmodel
from kanmodel import CheckpointError, DataError, UnreadableModelError
from kanmodel.sktime import KanscopeForecaster

ROWS, LOOKBACK, HORIZON = 90, 8, 3
SKTIME = (  # tests of a forecaster, some more of which take a minute
    "test_clone",
    "test_constructor",
    "test_set_params_sklearn",
    "test_fit_idempotent",
    "test_fit_updates_state_and_cutoff",
    "test_non_state_changing_method_contract",
    "test_predict_series_name_preserved",
    "test_predict_time_index",
    "test_predict_time_index_with_X",
    "test_raises_not_fitted_error",
    "test_update_predict_single",
    "test_hierarchical_with_exogenous",
)
pytestmark = pytest.mark.filterwarnings("ignore")  # of sktime, about its next version


def make_series(columns=("load", "price")):
    random, hours = np.random.default_rng(0), np.arange(ROWS)
    waves = {name: np.sin(hours / (4 + k)) + random.normal(0, 0.1, ROWS) for k, name in enumerate(columns)}
    return pd.DataFrame(waves, index=pd.period_range("2026-01-01", periods=ROWS, freq="h"))


@pytest.mark.parametrize("kind", [LTSFLinearForecaster, LTSFDLinearForecaster, LTSFNLinearForecaster])
def test_a_linear_forecaster_forecasts_what_predict_returns(kind):
    """Of several columns at once, after the newest rows."""
    torch.manual_seed(0)
    y, steps = make_series(), [*range(1, HORIZON + 1)]
    forecaster = kind(seq_len=LOOKBACK, pred_len=HORIZON, num_epochs=1).fit(y, fh=steps)
    model = kanmodel.from_sktime(forecaster, units={"load": "MW"})
    assert model.outputs[:3] == ("load+1", "price+1", "load+2") and model.provenance.source == "from_sktime"
    assert [feature.unit for feature in model.features] == ["MW", None]
    found = model.predict(y.to_numpy()[-LOOKBACK:]).reshape(HORIZON, 2)
    np.testing.assert_allclose(found, forecaster.predict(steps).to_numpy(), rtol=1e-5, atol=1e-6)
    assert model.explain(y.to_numpy()[-LOOKBACK:], "load+1").converged.all()


def test_a_forecaster_of_neuralforecast_forecasts_what_predict_returns():
    y = make_series(["load"])["load"]
    trainer = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    sizes = {"input_size": LOOKBACK, "encoder_n_layers": 1, "encoder_hidden_size": 6, "decoder_hidden_size": 6}
    options = {**sizes, "max_steps": 2, "trainer_kwargs": trainer}
    forecaster = NeuralForecastLSTM("h", **options).fit(y, fh=[1, 2, 3])
    model = kanmodel.from_sktime(forecaster)
    windows = model.scaling.features_to_original(model.reference.scaled)
    newest = np.concatenate([windows[:1, :0], y.to_numpy()[-model.lookback :].reshape(1, -1, 1)], axis=1)
    np.testing.assert_allclose(model.predict(newest)[0], forecaster.predict().to_numpy(), rtol=1e-5, atol=1e-6)


def test_others_are_refused_with_what_to_give():
    y = make_series(["load"])["load"]
    with pytest.raises(UnreadableModelError, match=r"network of a NaiveForecaster is not reached.*from_torch"):
        kanmodel.from_sktime(NaiveForecaster().fit(y, fh=[1]))
    with pytest.raises(CheckpointError, match="must be a fitted forecaster of sktime, but is a NaiveForecaster"):
        kanmodel.from_sktime(NaiveForecaster())


class Autoregressive(nn.Module):
    """Five steps of the first column of three rows, and of a second one if there is one."""

    def __init__(self, n_features=1):
        super().__init__()
        self.fc = nn.Linear(3 * n_features, 5)

    def forward(self, x):
        return self.fc(torch.tanh(x.flatten(1)))


def make_model(features=("y",), **options):
    torch.manual_seed(0)
    windows = np.random.default_rng(0).normal(size=(50, 3, len(features)))
    options = {"outputs": ["y"], "horizon": 5, "ahead": 1, **options}
    return kanmodel.from_torch(Autoregressive(len(features)), windows=windows, features=features, **options)


class Adapter(KanscopeForecaster):
    @classmethod
    def get_test_params(cls, parameter_set="default"):
        return [{"model": make_model()}, {"model": make_model(), "target": "y"}]


def test_a_model_is_a_forecaster_by_the_tests_of_sktime():
    """Those of forecasters; of all others it fails the one that compares a model with a copy, which is another one."""
    results = check_estimator(Adapter, verbose=False, tests_to_run=[*SKTIME])
    assert len(results) > 50 and set(results.values()) == {"PASSED"}


def test_a_forecaster_predicts_what_the_model_does():
    """Of columns by their names, before and after rows were added, at some of the steps."""
    model = make_model(("y", "temp"))
    rows = make_series(["y", "temp"])
    y, X = rows["y"].rename("demand"), rows[["temp"]]
    forecaster = KanscopeForecaster(model).fit(y[:-4], X[:-4])
    for n in (4, 0):
        known = rows[: len(rows) - n]
        found = forecaster.predict(fh=[2, 5])
        np.testing.assert_allclose(found, model.predict(known.to_numpy()[-3:])[0, [1, 4]], rtol=1e-6)
        assert found.name == "demand" and found.index[0] == known.index[-1] + 2
        if n:
            forecaster.update(y[-4:], X[-4:])
    with pytest.raises(DataError, match="fh must be of the steps 1, 2, 3, 4, 5, but has 6"):
        forecaster.predict(fh=[1, 6])
    with pytest.raises(DataError, match="has no column 'temp'"):
        KanscopeForecaster(model).fit(y).predict(fh=[1])


def test_a_forecaster_needs_one_target_and_windows_before_the_forecast():
    y = make_series(["y"])["y"]
    for model, target, message in (
        (make_model(ahead=0), None, "model has windows with rows of the forecast"),
        (make_model(), "load", "target must be one of y, but is 'load'"),
    ):
        with pytest.raises(DataError, match=message):
            KanscopeForecaster(model, target).fit(y)
