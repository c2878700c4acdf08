"""What pytorch-forecasting has fitted, on its own forecasts: every kind of model, variable, normalizer and loss."""

import lightning.pytorch as lightning
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from pytorch_forecasting import TimeSeriesDataSet, metrics, models
from pytorch_forecasting.data import EncoderNormalizer, GroupNormalizer, TorchNormalizer
from sklearn.preprocessing import MinMaxScaler, RobustScaler

import kanmodel
from kanmodel import CheckpointError, UnreadableModelError

LOOKBACK, HORIZON, ROWS = 12, 4, 120
LENGTHS = {
    f"{end}_{part}_length": n for part, n in (("encoder", LOOKBACK), ("prediction", HORIZON)) for end in ("min", "max")
}
QUIET = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False)
BY_SITE = GroupNormalizer(groups=["site"])
BLOCKS = {"widths": [8, 8], "num_blocks": [1, 1], "num_block_layers": [1, 1]}
COLUMNS = ["load", "temp", "site=A", "site=B"]
MODELS = {  # class, its options, and those of its dataset
    "nhits": ("NHiTS", {"hidden_size": 8}, {"categories": ["day"], "unknown": ["wind", "load"]}),
    "mlp": (
        "DecoderMLP",
        {"hidden_size": 8},
        {"categories": ["day"], "add_target_scales": True, "add_encoder_length": True},
    ),
    "lstm": ("RecurrentNetwork", {"hidden_size": 6, "rnn_layers": 1}, {"categories": ["day"]}),
    "gru": ("RecurrentNetwork", {"hidden_size": 6, "cell_type": "GRU"}, {"lags": {"load": [6]}}),
    "short_lag": ("RecurrentNetwork", {"hidden_size": 6, "rnn_layers": 1}, {"lags": {"load": [2, 6]}}),
    "tide": ("TiDEModel", {"hidden_size": 8}, {"categories": ["day"], "normalizer": EncoderNormalizer()}),
    "tft": (
        "TemporalFusionTransformer",
        {"hidden_size": 8, "attention_head_size": 2},
        {"unknown": ["wind", "load"], "add_relative_time_idx": True, "add_target_scales": True},
    ),
    "no_categories": ("NHiTS", {"hidden_size": 8}, {"static": [], "known": ["temp", "time"]}),
    "target_is_not_read": ("DecoderMLP", {"hidden_size": 8}, {"unknown": ["wind"]}),
    "timexer": (
        "TimeXer",
        {"hidden_size": 8, "n_heads": 2, "e_layers": 1, "d_ff": 8, "patch_length": 4},
        {"static": [], "normalizer": TorchNormalizer()},
    ),
}
NORMALIZERS = {
    "encoder": EncoderNormalizer(),
    "encoder_robust": EncoderNormalizer(method="robust", max_length=8),
    "encoder_log": EncoderNormalizer(transformation="log1p"),
    "torch": TorchNormalizer(),
    "softplus": GroupNormalizer(groups=["site"], transformation="softplus"),
    "relu": GroupNormalizer(groups=["site"], transformation="relu", center=False),
    "one_group": GroupNormalizer(),
}


def make_frame():
    random, hours, frames = np.random.default_rng(0), np.arange(ROWS), []
    for site, level in (("A", 10.0), ("B", 50.0)):
        temp = np.sin(hours / 24) + random.normal(0, 0.1, ROWS)
        load = level * (3 + np.sin(hours / 12) + 0.3 * temp + random.normal(0, 0.1, ROWS))
        day = np.where(hours // 24 % 7 < 2, "work", "free")
        frame = {"time": hours, "site": site, "temp": temp, "wind": random.normal(size=ROWS), "day": day, "load": load}
        frames.append(pd.DataFrame(frame))
    return pd.concat(frames, ignore_index=True)


FRAME = make_frame()


def make_dataset(normalizer=BY_SITE, categories=(), known=("temp",), unknown=("load",), static=("site",), **options):
    lengths = {**LENGTHS, **{name: options.pop(name) for name in LENGTHS if name in options}}
    return TimeSeriesDataSet(
        options.pop("frame", FRAME),
        **{"time_idx": "time", "target": options.pop("target", "load"), "group_ids": ["site"], **lengths},
        static_categoricals=[*static],
        time_varying_known_categoricals=[*categories],
        time_varying_known_reals=[*known],
        time_varying_unknown_reals=[*unknown],
        target_normalizer=normalizer,
        **options,
    )


def fit(kind, dataset, **options):
    lightning.seed_everything(1, verbose=False)
    model = getattr(models, kind).from_dataset(dataset, **options)
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", limit_train_batches=5, **QUIET)
    trainer.fit(model, dataset.to_dataloader(train=True, batch_size=32))
    return model


def predict(model, dataset, frame=FRAME, **ways):
    """The library's forecasts of the last windows of both series, (2, n_outputs)."""
    last = TimeSeriesDataSet.from_dataset(dataset, frame, predict=True)
    return model.predict(last, trainer_kwargs={"accelerator": "cpu", **QUIET}, **ways).numpy().reshape(2, -1)


def check(model, dataset, **ways):
    """The model, whose forecasts for the last windows of both series are those of `predict`."""
    found = kanmodel.from_pytorch_forecasting(model, dataset)
    windows = found.scaling.features_to_original(found.reference.scaled)[-2:]  # sorted by time
    np.testing.assert_allclose(found.predict(windows), predict(model, dataset, **ways), rtol=2e-5)
    assert found.provenance.verified
    assert found.provenance.library.startswith("pytorch-forecasting 1.")
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_model_forecasts_what_predict_returns(name):
    """Windows are in original units, with the rows of the forecast, and a column for each category."""
    kind, options, variables = MODELS[name]
    dataset = make_dataset(**variables)
    model = fit(kind, dataset, loss=metrics.MAE(), **options)
    found = check(model, dataset)
    assert found.lookback == LOOKBACK + HORIZON and found.outputs == tuple(f"load+{step}" for step in range(1, 5))
    names = [feature.name for feature in found.features]
    if name == "nhits":
        assert names == ["load", "temp", "wind", *COLUMNS[2:], "day=free", "day=work", "load_center", "load_scale"]
        assert found.config.groups["day"] == ["day=free", "day=work"]
        first = found.scaling.features_to_original(found.reference.scaled)[0]
        np.testing.assert_allclose(first[:LOOKBACK, 0], FRAME["load"].to_numpy()[:LOOKBACK], rtol=1e-5)
        np.testing.assert_allclose(first[:, 1], FRAME["temp"].to_numpy()[: LOOKBACK + HORIZON], rtol=1e-4)
        assert (first[:, 3:5] == [1, 0]).all()


@pytest.mark.parametrize("kind", ["NBeats", "NBeatsKAN"])
def test_a_model_of_the_target_alone_has_windows_of_the_encoder(kind):
    """Without known variables there are no rows of the forecast; the edges of a KAN are layers of the graph."""
    dataset = make_dataset(EncoderNormalizer(), known=(), static=())
    found = check(fit(kind, dataset, **BLOCKS), dataset)
    assert found.lookback == LOOKBACK and [feature.name for feature in found.features] == ["load"]
    assert ("pykan" in found.provenance.library) == (kind == "NBeatsKAN")


def test_a_table_is_backtested_with_the_forecasts_of_the_library():
    """The first forecast is one row after a window's end; windows with rows of the forecast do not end before it."""
    dataset = make_dataset(EncoderNormalizer(), known=(), static=())
    model = fit("NBeats", dataset, **BLOCKS)
    found, history = kanmodel.from_pytorch_forecasting(model, dataset), FRAME[FRAME["site"] == "A"]
    of_site = TimeSeriesDataSet.from_dataset(dataset, history)
    expected = model.predict(of_site, trainer_kwargs={"accelerator": "cpu", **QUIET}).numpy()
    backtest = found.backtest(history)
    np.testing.assert_allclose(backtest.predictions, expected, rtol=2e-5)
    actual = np.lib.stride_tricks.sliding_window_view(history["load"].to_numpy()[LOOKBACK:], HORIZON)
    assert backtest.metrics.mae == pytest.approx(np.abs(expected - actual).mean(), rel=1e-4)
    dataset = make_dataset()
    assert kanmodel.from_pytorch_forecasting(fit("NHiTS", dataset, hidden_size=8), dataset).config.ahead == 0


@pytest.mark.parametrize("name", NORMALIZERS)
def test_the_normalizer_of_the_target_is_part_of_the_network(name):
    """By window, by series or for all, with its transformation and its inverse."""
    dataset = make_dataset(NORMALIZERS[name])
    found = check(fit("RecurrentNetwork", dataset, hidden_size=6), dataset)
    scale = ["load_center", "load_scale"] if name in ("softplus", "relu") else []
    assert [feature.name for feature in found.features] == [*COLUMNS, *scale]


def test_scalers_of_covariates_are_part_of_the_network():
    """By window, robust, or none; one that is no center and scale, or by series, is refused."""
    unknown = ["wind", "load"]
    scalers = {"temp": EncoderNormalizer(), "wind": RobustScaler()}
    dataset = make_dataset(scalers=scalers, unknown=unknown)
    check(fit("NHiTS", dataset, hidden_size=8), dataset)
    for scaler, problem in ((MinMaxScaler(), "no center and scale"), (BY_SITE, "wind is scaled by series")):
        dataset = make_dataset(
            scalers={"wind": scaler}, unknown=unknown, frame=FRAME.assign(wind=FRAME["wind"] + FRAME["load"])
        )
        with pytest.raises(UnreadableModelError, match=problem):
            kanmodel.from_pytorch_forecasting(fit("NHiTS", dataset, hidden_size=8), dataset)


def test_quantiles_are_outputs():
    """Each step has one for each quantile of the loss, and its truth."""
    dataset = make_dataset(categories=["day"])
    model = fit("NHiTS", dataset, hidden_size=8, loss=metrics.QuantileLoss([0.1, 0.5, 0.9]))
    found = check(model, dataset, mode="quantiles")
    assert found.outputs[:3] == ("load+1@0.1", "load+1@0.5", "load+1@0.9")
    assert found.reference.targets.shape == (2 * (ROWS - LOOKBACK - HORIZON + 1), 3 * HORIZON)


def test_groups_of_categorical_variables_share_an_embedding():
    """Each variable has its own columns, and their embeddings are added."""
    frame = FRAME.assign(last=FRAME["day"])
    dataset = make_dataset(
        EncoderNormalizer(), categories=["days"], static=(), frame=frame, variable_groups={"days": ["day", "last"]}
    )
    model = fit("NHiTS", dataset, hidden_size=8)
    names = [feature.name for feature in kanmodel.from_pytorch_forecasting(model, dataset).features]
    assert names == ["load", "temp", "day=free", "day=work", "last=free", "last=work"]


@pytest.mark.parametrize("name", ["nhits", "mlp", "lstm", "tft", "deepar"])
def test_the_ledger_is_complete_and_a_deletion_is_that_of_the_library(name):
    """At every cut; and the forecasts change as those of the library do where the temperature is its mean."""
    kind, options, variables = MODELS.get(name, ("DeepAR", {"hidden_size": 6}, {"categories": ["day"]}))
    dataset = make_dataset(**variables)
    model = fit(kind, dataset, **options)
    found = kanmodel.from_pytorch_forecasting(model, dataset)
    windows = found.scaling.features_to_original(found.reference.scaled)[-2:]
    explanation = found.explain(windows)
    assert explanation.converged.all()
    change = explanation.predictions - explanation.baseline_prediction
    for layer in explanation.layers:
        if layer.inside:  # a loop, in which it is no cut
            continue
        summed = layer.nodes.sum(axis=1) + (0 if layer.around is None else layer.around.sum(axis=1))
        np.testing.assert_allclose(summed, change, atol=2 * np.abs(explanation.residual).max() + 1e-4)
    ways = {"mode": ("raw", "prediction"), **({"n_samples": None} if name == "deepar" else {})}
    frame, deleted, at = FRAME.copy(), windows.copy(), COLUMNS.index("temp")
    mean = FRAME["temp"].mean()
    frame.loc[frame["time"] >= ROWS - LOOKBACK - HORIZON, "temp"] = deleted[:, :, at] = mean
    before, after = (predict(model, dataset, of, **ways).reshape(2, HORIZON, -1) for of in (FRAME, frame))
    moved = found.predict(deleted) - found.predict(windows)
    if name == "deepar":  # the mean of the first step: center + scale * loc
        before, after = ((each[:, :1, 0] + each[:, :1, 1] * each[:, :1, 2]) for each in (before, after))
        moved = moved[:, :1]
    assert np.abs(moved).max() > 1e-3
    np.testing.assert_allclose(moved, (after - before).reshape(2, -1), atol=1e-4 * np.abs(before).max())


def test_attention_of_a_fusion_transformer_is_that_of_the_library():
    """The weights of its variables and of its steps, in heads, of which the wiring says what they are of."""
    kind, options, variables = MODELS["tft"]
    dataset = make_dataset(categories=["day"], **variables)
    model = fit(kind, dataset, **options)
    found = kanmodel.from_pytorch_forecasting(model, dataset)
    last = TimeSeriesDataSet.from_dataset(dataset, FRAME, predict=True)
    raw = model.predict(last, mode="raw", trainer_kwargs={"accelerator": "cpu", **QUIET})
    attention = found.attention(found.scaling.features_to_original(found.reference.scaled)[-1:])
    *selections, first, second = attention.softmaxes
    heads = np.concatenate([raw["encoder_attention"], raw["decoder_attention"]], axis=3)[
        1:
    ]  # (n, queries, heads, keys)
    steps = tuple(range(1 - LOOKBACK - HORIZON, 1))
    for head, one in enumerate((first, second)):
        np.testing.assert_allclose(one.weights[:, 0], heads[:, :, head], atol=1e-5)
        assert one.over == "steps" and one.keys == steps and one.queries == steps[-HORIZON:]
    for part, one in zip(("static", "encoder", "decoder"), selections, strict=True):
        weights = raw[f"{part}_variables"][1:].reshape(one.weights[:, 0].shape)
        np.testing.assert_allclose(one.weights[:, 0], weights, atol=1e-5)
        made = {"relative_time_idx": None}
        assert one.over == "features"
        assert one.keys == tuple(made.get(name, name) for name in getattr(model, f"{part}_variables"))


@pytest.mark.parametrize("name", ["lstm", "gru", "nhits", "tft", "log"])
def test_a_distribution_is_explained_and_not_its_samples(name):
    """Mean, quantiles and parameters are those of the library's own parameters; of DeepAR those of the first step."""
    loss = metrics.LogNormalDistributionLoss if name == "log" else metrics.NormalDistributionLoss
    kind = {"nhits": "NHiTS", "tft": "TemporalFusionTransformer"}.get(name, "DeepAR")
    scale = {"gru": "softplus", "log": "log"}.get(name)
    dataset = make_dataset(GroupNormalizer(groups=["site"], transformation=scale))
    options = {"cell_type": "GRU" if name == "gru" else "LSTM"} if kind == "DeepAR" else {}
    model = fit(kind, dataset, hidden_size=6, loss=loss(quantiles=[0.1, 0.9]), **options)
    found = kanmodel.from_pytorch_forecasting(model, dataset)
    horizon = 1 if kind == "DeepAR" else HORIZON
    windows = found.scaling.features_to_original(found.reference.scaled)[-2:]
    ways = {"n_samples": None} if kind == "DeepAR" else {}
    given = predict(model, dataset, mode=("raw", "prediction"), **ways).reshape(2, HORIZON, -1)[:, :horizon]
    outputs = dict(zip(found.outputs, found.predict(windows).T, strict=True))
    if name == "log":
        known = scipy.stats.lognorm(given[..., 1], scale=np.exp(given[..., 0]))
        quantiles, mean = {level: known.ppf(level) for level in (0.1, 0.9)}, known.mean()
    else:
        center, spread, loc, deviation = np.moveaxis(given, 2, 0)
        known = scipy.stats.norm(center + spread * loc, spread * deviation)
        softplus = (lambda values: np.log1p(np.exp(values))) if name == "gru" else np.asarray
        quantiles = {level: softplus(known.ppf(level)) for level in (0.1, 0.9)}
        mean = None if name == "gru" else known.mean()
    for step in range(horizon):
        for level, values in quantiles.items():
            np.testing.assert_allclose(outputs[f"load+{step + 1}@{level}"], values[:, step], rtol=2e-5)
        if mean is not None:
            np.testing.assert_allclose(outputs[f"load+{step + 1}"], mean[:, step], rtol=2e-5)
    assert (mean is None) == ("load+1" not in outputs) and "load+1:scale" in outputs
    assert f"load+{horizon + 1}@0.1" not in outputs
    known_ahead = found.lookback == LOOKBACK + horizon
    assert known_ahead and np.isnan(found.reference.targets).any() and found.explain(windows[:1]).converged.all()


def test_a_lightning_checkpoint_is_read_by_the_line_of_its_refusal(tmp_path):
    """The file alone is refused, with what reads it."""
    dataset = make_dataset(categories=["day"])
    model = fit("NHiTS", dataset, hidden_size=8)
    model.trainer.save_checkpoint(tmp_path / "m.ckpt")
    given = {"windows": np.random.default_rng(0).normal(size=(40, LOOKBACK, 2)), "features": ["load", "temp"]}
    line = r"from_pytorch_forecasting\(<class>\.load_from_checkpoint\('m\.ckpt', weights_only=False\), dataset\)"
    with pytest.raises(CheckpointError, match=line):
        kanmodel.from_file(tmp_path / "m.ckpt", predictions=np.ones((40, HORIZON)), **given)
    again = models.NHiTS.load_from_checkpoint(tmp_path / "m.ckpt", weights_only=False)
    one, other = (kanmodel.from_pytorch_forecasting(each, dataset) for each in (model, again))
    windows = one.scaling.features_to_original(one.reference.scaled[:3])
    np.testing.assert_array_equal(other.predict(windows), one.predict(windows))


def test_what_cannot_be_read_is_refused():
    """Each with one sentence that names it, and the model is as before."""
    dataset = make_dataset()
    model = fit("NHiTS", dataset, hidden_size=8)
    attributes = sorted(vars(model))
    kanmodel.from_pytorch_forecasting(model, dataset)
    assert sorted(vars(model)) == attributes
    two = make_dataset("auto", unknown=["load", "wind"], target=["load", "wind"])
    with pytest.raises(UnreadableModelError, match="several targets, load, wind, not one"):
        kanmodel.from_pytorch_forecasting(model, two)
    short = make_dataset(frame=FRAME.query("time < 10"), min_encoder_length=2, min_prediction_length=1)
    for other, problem in (
        (FRAME, "dataset must be a TimeSeriesDataSet of the library, but is a DataFrame"),
        (short, "no windows of 16 rows without a gap"),
        (make_dataset(known=()), "NHiTS cannot forecast the dataset"),
        (make_dataset(randomize_length=True, min_encoder_length=2), "no windows of a fixed length"),
    ):
        with pytest.raises(CheckpointError, match=problem):
            kanmodel.from_pytorch_forecasting(model, other)
    with pytest.raises(CheckpointError, match="model must be a BaseModel of the library, but is a dict"):
        kanmodel.from_pytorch_forecasting({}, dataset)
    several = fit("DeepAR", dataset, hidden_size=6, loss=metrics.MultivariateNormalDistributionLoss())
    with pytest.raises(UnreadableModelError, match="MultivariateNormalDistributionLoss is a distribution of several"):
        kanmodel.from_pytorch_forecasting(several, dataset)
