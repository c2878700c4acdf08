"""Imports that state how many steps ahead their first forecast is, so that tables have its actual values."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch import nn

import kanmodel
from kanmodel import DataError, KanscopeError
from kanmodel.importers.files.manifest import read_manifest
from kanmodel.importers.from_file import describe_file, import_checkpoint

LOOKBACK, ROWS, FEATURES = 5, 160, ["load", "temp"]
TABLE = np.array([50, 10]) + np.cumsum(np.random.default_rng(0).normal(size=(ROWS, 2)), axis=0)
SCALING = {"mean": TABLE.mean(axis=0), "std": TABLE.std(axis=0)}


class Forecaster(nn.Module):
    """Reads the past of what it forecasts."""

    def __init__(self, n_outputs):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, n_outputs)

    def forward(self, window):
        return self.head(self.lstm(window)[0][:, -1])


def make_module(n_outputs=1):
    torch.manual_seed(0)
    return Forecaster(n_outputs).double()


def cut(reach=0):
    """The windows of the table with so many rows after them, (n, lookback, n_features), and their newest rows."""
    ends = np.arange(LOOKBACK - 1, ROWS - reach)
    return np.stack([TABLE[end - LOOKBACK + 1 : end + 1] for end in ends]), ends


def scale(n_targets=1):
    """The scaling of both features, and of as many targets."""
    return {**SCALING, **{f"target_{name}": values[:n_targets] for name, values in SCALING.items()}}


def read(module, **options):
    options = {"outputs": ["load"], "scaling": scale(), **options}
    return kanmodel.from_torch(module, windows=cut()[0], features=FEATURES, **options)


def forecast(module, windows, targets=1):
    """What the module forecasts in original units, (n, n_outputs), steps outermost."""
    scaled = torch.from_numpy((windows - SCALING["mean"]) / SCALING["std"])
    outputs = module(scaled).detach().numpy()
    steps = outputs.shape[1] // targets
    return outputs * np.tile(SCALING["std"][:targets], steps) + np.tile(SCALING["mean"][:targets], steps)


def make_frame(library, *columns):
    hours = pd.date_range("2026-01-01", periods=ROWS, freq="h")
    frame = pd.DataFrame({"time": hours, **{name: TABLE[:, FEATURES.index(name)] for name in columns or FEATURES}})
    return pl.from_pandas(frame) if library == "polars" else frame


@pytest.mark.parametrize("library", ["polars", "pandas"])
@pytest.mark.parametrize(("ahead", "horizon"), [(1, 1), (1, 3), (6, 2)])
def test_a_backtest_compares_each_forecast_with_the_row_that_is_so_many_steps_later(library, ahead, horizon):
    """Errors are those of windows cut by hand; the horizon is that of the module's outputs."""
    module = make_module(horizon)
    model = read(module, ahead=ahead)
    names = tuple(f"load+{step}" for step in range(ahead, ahead + horizon))
    assert (model.config.ahead, model.config.horizon, model.outputs) == (ahead, horizon, names)
    windows, ends = cut(reach=ahead + horizon - 1)
    actual = TABLE[ends[:, None] + ahead + np.arange(horizon), 0]
    expected = forecast(module, windows) - actual
    found = model.backtest(make_frame(library))
    np.testing.assert_allclose(found.actual, actual)
    np.testing.assert_allclose(found.predictions, forecast(module, windows))
    assert found.metrics.mae == pytest.approx(np.abs(expected).mean())
    assert found.metrics.bias == pytest.approx(expected.mean())
    for step, column in zip(range(ahead, ahead + horizon), expected.T, strict=True):
        assert found.by["horizon"][step].mae == pytest.approx(np.abs(column).mean())
    np.testing.assert_allclose(found.persistence[:, 0], TABLE[ends, 0])
    assert found.target_times[0, 0] == f"2026-01-01T{LOOKBACK - 1 + ahead:02}:00:00"


def test_several_targets_are_forecast_for_several_steps():
    """Outputs have the steps outermost, and each target its own backtest."""
    module = make_module(4)
    model = read(module, ahead=2, outputs=FEATURES, scaling=scale(2))
    assert model.outputs == ("load+2", "temp+2", "load+3", "temp+3")
    windows, ends = cut(reach=3)
    by_hand = forecast(module, windows, targets=2).reshape(-1, 2, 2)
    for number, target in enumerate(FEATURES):
        found = model.backtest(make_frame("polars"), target)
        actual = TABLE[ends[:, None] + 2 + np.arange(2), number]
        assert found.metrics.mae == pytest.approx(np.abs(by_hand[:, :, number] - actual).mean())


def test_tables_calibrate_are_compared_for_drift_and_explained_with_what_came():
    """All that reads actual values from a table, of a module that reads the target's past, has them."""
    module, frame = make_module(), make_frame("polars")
    model = read(module, ahead=1)
    calibrated = model.calibrate(frame, intervals=0.8)
    (band,) = calibrated.backtest(frame).metrics.intervals
    assert band.level == 0.8 and 0.75 < band.covered < 0.85
    drift = calibrated.drift(frame.head(110), frame.tail(50))
    errors = np.abs(forecast(module, cut(reach=1)[0])[:, 0] - TABLE[LOOKBACK:, 0])
    now = errors[-(50 - LOOKBACK) :]
    assert (drift.errors.reference_known, drift.errors.known) == (110 - LOOKBACK, len(now))
    assert drift.errors.mae.now == pytest.approx(now.mean())
    explained = model.explain(frame, last=3)
    np.testing.assert_allclose(explained.actual, [*TABLE[-2:, 0], np.nan])


def test_without_ahead_the_targets_own_past_cannot_be_compared():
    """As before: the first output is one step ahead by name, and a table is refused with its reason."""
    model = read(make_module())
    assert model.config.ahead == 0 and model.outputs == ("load+1",)
    with pytest.raises(DataError, match="the checkpoint does not have how many rows ahead load is"):
        model.backtest(make_frame("polars"))


def test_a_checkpoint_has_it(tmp_path):
    """After saving and loading, forecasts are compared with the same rows."""
    model, frame = read(make_module(2), ahead=3), make_frame("polars")
    model.save(tmp_path / "m.safetensors")
    loaded = kanmodel.load(tmp_path / "m.safetensors")
    assert loaded.config.ahead == 3 and loaded.outputs == ("load+3", "load+4")
    assert loaded.backtest(frame).metrics == model.backtest(frame).metrics


@pytest.mark.parametrize("kind", ["state_dict", "program"])
def test_a_file_of_weights_and_a_program_have_it(tmp_path, kind):
    """`from_file` is told it as `from_torch` is."""
    module, windows = make_module(2), cut()[0]
    if kind == "program":
        sample = (torch.from_numpy(windows),)
        program = torch.export.export(module, sample, dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, tmp_path / "m.pt2")
    else:
        torch.save(module.state_dict(), tmp_path / "m.pt")
    file = tmp_path / ("m.pt2" if kind == "program" else "m.pt")
    given = {"windows": windows, "predictions": forecast(module, windows), "features": FEATURES, "scaling": scale()}
    model = kanmodel.from_file(file, outputs=["load"], ahead=4, **given)
    live = read(module, ahead=4)
    assert model.outputs == live.outputs == ("load+4", "load+5")
    frame = make_frame("polars")
    assert model.backtest(frame).metrics.mae == pytest.approx(live.backtest(frame).metrics.mae, rel=1e-5)


def test_a_manifest_has_it_and_a_description_gives_it_back(tmp_path):
    """The key is read, described where it is stated, and a comment where it is not."""
    module, windows = make_module(), cut()[0]
    torch.save(module.state_dict(), tmp_path / "m.pt")
    np.savez(tmp_path / "w.npz", x=windows, y=forecast(module, windows))
    columns = (
        f"features: {FEATURES}\ntargets: [load]\nreference: w.npz:x\ncheck: {{inputs: w.npz:x, outputs: w.npz:y}}\n"
    )
    scaling = {name: values.tolist() for name, values in scale().items()}
    for ahead in (None, 0, 2):
        text = f"{columns}scaling: {scaling}\n" + ("" if ahead is None else f"ahead: {ahead}\n")
        (tmp_path / "m.yaml").write_text(text)
        known = read_manifest(tmp_path / "m.yaml")
        imported = import_checkpoint(tmp_path / "m.pt", known)
        assert imported.model.config.ahead == known.ahead == (ahead or 0)
        described = describe_file(tmp_path / "m.pt", imported, known).manifest
        assert ("\nahead: 2\n" in described) == (ahead == 2) and ("ahead" in described) == bool(ahead)
    assert "\n# ahead: 1 " in describe_file(tmp_path / "m.pt").manifest


@pytest.mark.parametrize("ahead", [-1, 1.0, 1.5, True, "1", None, 10**6, np.int64(-1)])
def test_another_value_than_a_whole_number_from_0_is_refused(tmp_path, ahead):
    """In one sentence, before anything is read."""
    problem = r"^(the call: )?ahead must be a whole number( from 0 to 65536)?, but is [^ ]{1,12}$"
    with pytest.raises(KanscopeError, match=problem):
        read(make_module(), ahead=ahead)
    with pytest.raises(KanscopeError, match=problem):
        kanmodel.from_file(tmp_path / "none.pt", windows=cut()[0], predictions=[1], features=FEATURES, ahead=ahead)
