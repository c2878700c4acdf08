"""What neuralforecast has fitted, on its own forecasts: every kind of model, scaler, column and loss that is read."""

import json
import re
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from neuralforecast import NeuralForecast, models
from neuralforecast.losses.pytorch import GMM, NBMM, PMM, DistributionLoss, HuberMQLoss, IQLoss, MQLoss
from readmes import PAGES, READMES

import kanmodel
from kanmodel import CheckpointError, UnknownNameError, UnreadableModelError
from service.cli import main

LOOKBACK, HORIZON, ROWS, SERIES = 12, 4, 120, ("north", "south")
TRAINING = {
    **{"max_steps": 3, "accelerator": "cpu", "logger": False},
    **dict.fromkeys(("enable_progress_bar", "enable_model_summary"), False),
}
SMALL = {"h": HORIZON, "input_size": LOOKBACK, **TRAINING}
EXOGENOUS = {"hist_exog_list": ["wind"], "futr_exog_list": ["temp"], "stat_exog_list": ["area"]}
UNITS = {"encoder_hidden_size": 6}
DECODED = {**UNITS, "decoder_hidden_size": 6}
ATTENTION = {"hidden_size": 8, "n_heads": 2, "e_layers": 1, "d_ff": 8}
BLOCKS = {"mlp_units": [[8, 8]] * 3}
UNIVARIATE = {
    "LSTM": DECODED,
    "GRU": DECODED,
    "RNN": DECODED,
    "DilatedRNN": {**DECODED, "dilations": [[1, 2], [4]]},
    "TCN": DECODED,
    "MLP": {"hidden_size": 8},
    "KAN": {"hidden_size": 6},
    "NBEATSx": BLOCKS,
    "BiTCN": {"hidden_size": 4},
    "TiDE": {"hidden_size": 8, "decoder_output_dim": 4, "temporal_decoder_dim": 4, "temporal_width": 2},
    "TFT": {"hidden_size": 4, "n_head": 1},
    "DeepNPTS": {"hidden_size": 6},
    "NHITS": BLOCKS,
}
WITHOUT_COLUMNS = {"NBEATS": BLOCKS, "DLinear": {"moving_avg_window": 5}, "NLinear": {}}
WITHOUT_COLUMNS["PatchTST"] = {"hidden_size": 8, "n_heads": 2, "patch_len": 4, "stride": 4, "linear_hidden_size": 8}
WITHOUT_COLUMNS["PatchTST"] |= {"encoder_layers": 1}
RECURRENT = {"LSTM": {**UNITS, "recurrent": True}, "GRU": {**UNITS, "recurrent": True}}
RECURRENT |= {"DeepAR": {"lstm_hidden_size": 6, "lstm_n_layers": 1}}
MULTIVARIATE = {
    "MLPMultivariate": {"hidden_size": 8},
    "RMoK": {"taylor_order": 2, "jacobi_degree": 2, "wavelet_function": "mexican_hat"},
    "TSMixer": {"n_block": 1, "ff_dim": 6},
    "iTransformer": ATTENTION,
    "SOFTS": {"hidden_size": 8, "d_core": 8, "e_layers": 1, "d_ff": 8},
    "TimeXer": {**ATTENTION, "patch_len": 4},
    "TimeMixer": {"d_model": 8, "d_ff": 8, "e_layers": 1, "down_sampling_layers": 1},
    "XLinear": {},
}


def make_frame():
    random, hours = np.random.default_rng(0), np.arange(ROWS)
    frames = []
    for number, name in enumerate(SERIES):
        temp = 15 + 8 * np.sin(hours / 24 + number) + random.normal(0, 1, ROWS)
        load = 100 + 60 * number + 20 * np.sin(hours * np.pi / 12) + 2 * temp + random.normal(0, 3, ROWS)
        frame = {"unique_id": name, "ds": hours, "load": load, "temp": temp, "wind": random.gamma(2, 2, ROWS)}
        frames.append(pd.DataFrame({**frame, "holiday": (hours % 50 > 40).astype(float)}))
    return pd.concat(frames, ignore_index=True)


FRAME, STATIC = make_frame(), pd.DataFrame({"unique_id": SERIES, "area": [1.0, 2.5]})


def fit(kind, local=None, **options):
    nf = NeuralForecast([getattr(models, kind)(**SMALL, **options)], freq=1, local_scaler_type=local)
    nf.fit(FRAME, static_df=STATIC, target_col="load")
    return nf


def predict(nf, series):
    """What `predict` returns for the hours after the data, (h, outputs of a step), and the window that it reads."""
    future = nf.make_future_dataframe()
    future["temp"] = np.linspace(10, 20, len(future))
    last = pd.concat([FRAME, future]).query("unique_id == @series").merge(STATIC, on="unique_id").fillna(0)
    return nf.predict(futr_df=future).query("unique_id == @series").drop(columns=["unique_id", "ds"]).to_numpy(), last


def check(nf, hours_of="north", **options):
    """The model, which forecasts what `predict` returns for the hours after the data too."""
    model = kanmodel.from_neuralforecast(nf, **options)
    expected, last = predict(nf, hours_of)
    rows = last.iloc[len(last) - model.lookback - (0 if nf.models[0].futr_exog_list else HORIZON) :]
    window = rows[[feature.name for feature in model.features]].to_numpy()[: model.lookback]
    n = len(model.outputs) // HORIZON
    found = model.predict(window[None]).reshape(HORIZON, n)
    spread = np.ptp(FRAME["load"])
    n = 1 if any(target.parameter for target in model.config.targets) else n  # quantiles of samples are not exact
    np.testing.assert_allclose(found[:, :n], expected[:, :n], atol=1e-5 * spread, rtol=1e-6)
    assert model.provenance.verified
    assert model.provenance.library.startswith("neuralforecast ")
    return model


@pytest.mark.parametrize("kind", UNIVARIATE)
def test_a_model_with_columns_of_three_kinds_and_scaled_windows_forecasts_what_predict_returns(kind):
    """Past, future and static columns are features, and what scales each window is part of the network."""
    model = check(fit(kind, scaler_type="standard", **EXOGENOUS, **UNIVARIATE[kind]))
    assert [feature.name for feature in model.features] == ["load", "wind", "temp", "area"]
    assert model.lookback == LOOKBACK + HORIZON
    assert list(model.outputs) == [f"load+{step}" for step in range(1, HORIZON + 1)]


@pytest.mark.parametrize("kind", WITHOUT_COLUMNS)
def test_a_model_of_the_target_alone_forecasts_what_predict_returns(kind):
    """Without future columns a window has the rows of input_size."""
    assert check(fit(kind, **WITHOUT_COLUMNS[kind])).lookback == LOOKBACK


@pytest.mark.parametrize(
    ("kind", "options"), [("NHITS", {**BLOCKS, "hist_exog_list": ["wind"]}), ("LSTM", RECURRENT["LSTM"])]
)
def test_a_table_is_backtested_with_the_forecasts_of_the_library(kind, options):
    """The first forecast is one row after a window's end; windows with rows of the future do not end before it."""
    nf = fit(kind, **options)
    model, history = kanmodel.from_neuralforecast(nf), FRAME[FRAME["unique_id"] == "north"]
    found = model.backtest(history)
    assert model.config.ahead == 1 and len(found) == ROWS - model.lookback - HORIZON + 1
    load = history["load"].to_numpy()
    for window in (0, 40, len(found) - 1):
        end = model.lookback + window
        expected = nf.predict(df=history[:end], static_df=STATIC[:1])[kind].to_numpy()
        np.testing.assert_allclose(found.predictions[window], expected, rtol=1e-5)
        np.testing.assert_allclose(found.actual[window], load[end : end + HORIZON])
    assert found.metrics.mae == pytest.approx(np.abs(found.predictions - found.actual).mean())
    assert model.drift(history[:70], history[70:]).errors is not None
    assert kanmodel.from_neuralforecast(fit("NHITS", futr_exog_list=["temp"], **BLOCKS)).config.ahead == 0


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_recurrent_forecast_is_read_with_its_steps(kind):
    """A forecast that is fed back is unrolled, and reads one row more."""
    options = {"futr_exog_list": ["temp"], "scaler_type": "robust", **RECURRENT[kind]}
    assert check(fit(kind, **options)).lookback == LOOKBACK + 1 + HORIZON


@pytest.mark.parametrize("kind", MULTIVARIATE)
def test_a_multivariate_model_reads_and_forecasts_all_series_at_once(kind):
    """The targets of all series are its features, and each has its outputs."""
    nf = fit(kind, local="standard", n_series=2, **MULTIVARIATE[kind])
    model = kanmodel.from_neuralforecast(nf)
    assert [feature.name for feature in model.features] == [*SERIES]
    assert model.outputs[:3] == ("north+1", "south+1", "north+2")
    window = FRAME.pivot(index="ds", columns="unique_id", values="load")[[*SERIES]].to_numpy()[-LOOKBACK:]
    expected = nf.predict().pivot(index="ds", columns="unique_id", values=kind)[[*SERIES]].to_numpy()
    np.testing.assert_allclose(model.predict(window[None]).reshape(HORIZON, 2), expected, rtol=1e-5)


def test_columns_of_a_multivariate_model_are_named_by_their_series():
    """Each column stands once for each series; static columns are constants."""
    model = kanmodel.from_neuralforecast(fit("TSMixerx", n_series=2, n_block=1, ff_dim=4, **EXOGENOUS))
    of_columns = [f"{column}[{name}]" for column in ("wind", "temp") for name in SERIES]
    assert [feature.name for feature in model.features] == [*SERIES, *of_columns]


@pytest.mark.parametrize("kind", ["standard", "robust", "minmax", "minmax1", "revin", "invariant"])
def test_the_scaler_of_each_window_is_part_of_the_network(kind):
    """With a column that is constant in most windows too, whose scale is then 0."""
    check(fit("MLP", hidden_size=8, scaler_type=kind, hist_exog_list=["wind", "holiday"]))


@pytest.mark.parametrize("local", ["standard", "robust", "robust-iqr", "minmax"])
def test_the_scaler_of_a_series_is_the_scaling_of_its_model(local):
    """Windows and forecasts are in original units; each series has a model of its own."""
    nf = fit("MLP", local, hidden_size=8, scaler_type="standard", hist_exog_list=["wind"])
    for series in SERIES:
        assert check(nf, series, series=series).features[0].std > 0
    with pytest.raises(UnknownNameError, match=r"series must be one of \['north', 'south'\], because"):
        kanmodel.from_neuralforecast(nf)
    with pytest.raises(UnreadableModelError, match="boxcox"):
        kanmodel.from_neuralforecast(fit("MLP", "boxcox", hidden_size=8), series="north")


@pytest.mark.parametrize("loss", [MQLoss(quantiles=[0.1, 0.9]), HuberMQLoss(level=[80]), IQLoss()], ids=str)
def test_quantiles_are_outputs_named_by_their_level(loss):
    """Each step has an output for each quantile of the loss; an implicit quantile is the median that predict gives."""
    model = check(fit("MLP", hidden_size=8, loss=loss, valid_loss=loss, scaler_type="standard"))
    names = {2: ("load+1@0.1", "load+1@0.9"), 3: ("load+1@0.5", "load+1@0.1", "load+1@0.9"), 1: ("load+1",)}
    n = len(model.outputs) // HORIZON
    assert model.outputs[:n] == names[n]


FAMILIES = ("Normal", "StudentT", "Poisson", "NegativeBinomial")
LOSSES = [DistributionLoss(name, level=[80], return_params=True) for name in FAMILIES]
LOSSES += [DistributionLoss("Tweedie", level=[80], rho=1.5), GMM(n_components=2, level=[80], weighted=True)]
LOSSES += [PMM(n_components=2, level=[80]), NBMM(level=[80])]


def name_loss(loss):
    return getattr(loss, "distribution", type(loss).__name__)


@pytest.mark.parametrize("loss", LOSSES, ids=name_loss)
def test_the_distribution_is_read_where_the_library_samples(loss):
    """Mean and quantiles differ from those of its samples as these differ from each other; parameters are exact."""
    nf = fit("MLP", hidden_size=8, num_layers=1, loss=loss, scaler_type="standard")
    model = kanmodel.from_neuralforecast(nf, units={"load": "MW"})
    n = len(model.outputs) // HORIZON
    assert model.outputs[:4] == ("load+1", "load+1@0.5", "load+1@0.1", "load+1@0.9")
    assert [target.parameter for target in model.config.targets] == [False] * 4 + [True] * (n - 4)
    window = FRAME.query("unique_id == 'north'")[["load"]].to_numpy()[-LOOKBACK:]
    sampled, _ = predict(nf, "north")
    found = model.predict(window[None])[0].reshape(HORIZON, n)
    np.testing.assert_allclose(found[:, :4], sampled[:, :4], rtol=0.15)
    if isinstance(loss, DistributionLoss) and loss.return_params:
        np.testing.assert_allclose(found[:, 4:], sampled[:, 4:], rtol=1e-4)
    explained = model.explain(window, output="load+1@0.9")
    assert explained.converged.all() and explained.predictions[0] == pytest.approx(found[0, 3], rel=1e-6)


def test_the_distribution_of_a_recurrent_forecast_is_read_with_its_steps():
    """DeepAR feeds its mean back; its quantiles are calibrated as others are."""
    loss = DistributionLoss("StudentT", level=[80])
    nf = fit("DeepAR", "standard", lstm_hidden_size=4, lstm_n_layers=1, loss=loss, trajectory_samples=500)
    model = kanmodel.from_neuralforecast(nf, series="north")
    assert model.outputs[:4] == ("load+1", "load+1@0.5", "load+1@0.1", "load+1@0.9")
    calibrated = model.calibrate(FRAME[FRAME["unique_id"] == "north"])
    assert str(calibrated.intervals).startswith("0.8 (quantiles)")


def test_a_distribution_whose_quantiles_are_unknown_is_refused():
    """The refusal names it."""
    with pytest.raises(UnreadableModelError, match="quantiles of the distribution BaseISQF are not known"):
        kanmodel.from_neuralforecast(fit("MLP", hidden_size=8, loss=DistributionLoss("ISQF")))


def test_a_saved_folder_is_read_as_what_was_saved(tmp_path):
    """A folder of tensors and JSON gives the same model; one of pickles is refused with the line to write."""
    nf = fit("MLP", hidden_size=8, scaler_type="robust")
    nf.save(str(tmp_path / "new"))
    model, window = kanmodel.from_neuralforecast(nf), FRAME[["load"]].to_numpy()[:LOOKBACK]
    again = kanmodel.from_neuralforecast(tmp_path / "new", "MLP", units={"load": "MW"})
    np.testing.assert_array_equal(again.predict(window), model.predict(window))
    assert again.features[0].unit == "MW"
    (tmp_path / "old").mkdir()
    (tmp_path / "old/configuration.pkl").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"pickles, which may run code.*NeuralForecast\.load\('.*old'"):
        kanmodel.from_neuralforecast(tmp_path / "old")
    with pytest.raises(CheckpointError, match=r"it has no configuration\.json"):
        kanmodel.from_neuralforecast(tmp_path)


def test_a_forecaster_is_named_and_unchanged():
    """Of several models one must be named; the object forecasts as before, and is as before."""
    nf = NeuralForecast([models.NLinear(**SMALL), models.MLP(hidden_size=8, alias="mine", **SMALL)], freq=1)
    with pytest.raises(CheckpointError, match="nf must be a fitted NeuralForecast, but this one is not"):
        kanmodel.from_neuralforecast(nf, "mine")
    with pytest.raises(CheckpointError, match="but is dict"):
        kanmodel.from_neuralforecast({})
    nf.fit(FRAME, target_col="load")
    before, attributes = nf.predict(), [sorted(vars(model)) for model in nf.models]
    assert kanmodel.from_neuralforecast(nf, "mine").name == "mine"
    for name in (None, "other"):
        with pytest.raises(UnknownNameError, match="NLinear, mine"):
            kanmodel.from_neuralforecast(nf, name)
    pd.testing.assert_frame_equal(nf.predict(), before)
    assert [sorted(vars(model)) for model in nf.models] == attributes
    with pytest.raises(UnknownNameError, match="there is no series 'west'"):
        kanmodel.from_neuralforecast(nf, "mine", series="west")


def test_windows_of_a_constant_target_are_no_reference():
    """The library takes 1 for the deviation of such a window; with no other windows the import is refused."""
    frame = FRAME.assign(load=FRAME["load"].where(FRAME["ds"] < 50, 7.0))
    nf = NeuralForecast([models.MLP(hidden_size=8, scaler_type="standard", **SMALL)], freq=1)
    nf.fit(frame, target_col="load")
    model = kanmodel.from_neuralforecast(nf)
    windows = model.reference.scaled[:, :, 0]
    assert len(windows) == 2 * 50 and bool((windows.amax(dim=1) > windows.amin(dim=1)).all())
    nf.fit(frame.assign(load=7.0), target_col="load")
    with pytest.raises(CheckpointError, match="no series has input_size \\+ h = 16 rows without a gap whose target"):
        kanmodel.from_neuralforecast(nf)


@pytest.mark.parametrize("kind", ["standard", "robust", "minmax"])
def test_scaled_windows_are_explained_from_a_constant_baseline(kind):
    """From the mean window, whose scale is 0, contributions converge and sum to the forecast at every cut."""
    model = kanmodel.from_neuralforecast(fit("KAN", hidden_size=6, scaler_type=kind, hist_exog_list=["wind"]))
    windows = model.scaling.features_to_original(model.reference.scaled[:3])
    explanation = model.explain(windows)
    assert explanation.converged.all()
    for layer in explanation.layers:
        summed = layer.nodes.sum(axis=1) + (0 if layer.around is None else layer.around.sum(axis=1))
        np.testing.assert_allclose(summed, explanation.predictions - explanation.baseline_prediction, atol=0.1)


def test_windows_of_another_frame_have_its_scalers():
    """Without a dataset its windows are given, and are scaled as `predict` does; the object keeps its own scalers."""
    nf, shifted = fit("MLP", "standard", hidden_size=8), FRAME.assign(load=3 * FRAME["load"])
    expected, own = nf.predict(shifted).query("unique_id == 'south'")["MLP"], nf.scalers_
    del nf.dataset
    with pytest.raises(CheckpointError, match="nf has no dataset in memory: give frame"):
        kanmodel.from_neuralforecast(nf, series="south")
    model = kanmodel.from_neuralforecast(nf, frame=shifted, static=STATIC, series="south")
    window = shifted.query("unique_id == 'south'")[["load"]].to_numpy()[-LOOKBACK:]
    np.testing.assert_allclose(model.predict(window)[0], expected, rtol=1e-5)
    assert nf.scalers_ is own


def test_categories_and_mixed_windows_are_refused():
    """The refusal names what the model does."""
    frame = FRAME.assign(kind=(FRAME["ds"] % 3).astype(str))
    columns = {"hist_exog_list": ["kind"], "cat_exog_list": ["kind"]}
    nf = NeuralForecast([models.MLP(hidden_size=8, categorical_cardinalities={"kind": 3}, **columns, **SMALL)], freq=1)
    nf.fit(frame, target_col="load")
    with pytest.raises(UnreadableModelError, match="MLP embeds the categories of kind, which no graph does"):
        kanmodel.from_neuralforecast(nf)
    with pytest.raises(UnreadableModelError, match="the windows of a batch are mixed"):
        kanmodel.from_neuralforecast(fit("StemGNN", n_series=2))


def test_the_command_reads_a_saved_folder(tmp_path, monkeypatch, capsys):
    """`kanscope import` of a folder writes the checkpoint of one model and series."""
    fit("MLP", "standard", hidden_size=8).save(str(tmp_path / "folder"))
    written = tmp_path / "north.safetensors"

    def run(*more):
        arguments = ["kanscope", "import", tmp_path / "folder", "--series", "north", "-o", written, *more]
        monkeypatch.setattr("sys.argv", [*map(str, arguments)])
        with suppress(SystemExit):
            main()
        return capsys.readouterr().out

    assert "read: neuralforecast" in run()
    assert kanmodel.load(written).features[0].std > 0
    assert json.loads(run("--json"))["provenance"]["source"] == "from_neuralforecast"


def test_the_lines_of_the_page_explain_a_forecast():
    """They explain what `predict` returns for the last hour of the horizon."""
    (lines,) = re.findall(
        r"^nf\.fit.*?(?=^abs)", READMES[PAGES / "how-to" / "neuralforecast.md"], re.DOTALL | re.MULTILINE
    )
    nf = NeuralForecast([models.NHITS(**{**SMALL, "h": 24, "input_size": 36}, **BLOCKS, scaler_type="robust")], freq=1)
    names = {"nf": nf, "frame": FRAME, "kanmodel": kanmodel}
    exec(lines, names)
    expected = nf.predict().query("unique_id == 'north'")["NHITS"].to_numpy()[-1]
    assert names["explained"].predictions[0] == pytest.approx(expected, rel=1e-5)
    assert names["explained"].converged.all() and names["model"].features[0].unit == "MW"
