import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import kanmodel
from kanmodel.errors import ConfigError, DataError, UnknownNameError
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.statistics.errors import r2_scores

QUICK = {"lookback": 6, "hidden": 3, "width": (3, 2, 1), "grid": 3, "epochs": 2, "batch": 64, "grid_updates": 1}
QUICK |= {"linear": False}


def make_frame(n_rows=900, seed=0):
    """Hours of a load with a daily cycle, and the wind that affects it."""
    rng = np.random.default_rng(seed)
    hours = np.arange(n_rows)
    wind = rng.normal(size=n_rows)
    load = 100 + 20 * np.sin(2 * np.pi * hours / 24) + 2 * wind
    time = np.datetime64("2026-01-01T00", "s") + hours.astype("timedelta64[h]")
    return pd.DataFrame({"time": time, "wind": wind, "load": load})


def weights(model):
    return torch.cat([tensor.flatten() for tensor in model.network.state_dict().values()])


def test_a_frame_becomes_a_model():
    """Outputs are named by their horizon, the load is a feature, and windows of the frame are forecast."""
    frame = make_frame()
    model = kanmodel.train(frame, "load", ahead=6, time="time", horizon=2, **QUICK | {"width": (3, 2, 2)})
    assert model.outputs == ("load+6", "load+7") and model.lookback == 6
    assert [feature.name for feature in model.features] == ["wind", "load"]
    assert model.predict(frame).shape == (1, 2)
    assert model.explain(frame, "load+7").converged.all()
    assert model.reference.times[0].startswith("2026-01-0")


def test_intervals_are_trained_at_one_level_or_several():
    """The model gives bounds of a frame, tuning keeps the levels, and takes no others."""
    frame = make_frame()
    one = kanmodel.train(frame, "load", ahead=6, time="time", intervals=0.8, **QUICK)
    assert one.levels == (0.8,) and one.predict(frame, intervals="all").lower.shape == (1, 1, 1)
    model = kanmodel.train(frame, "load", ahead=6, time="time", intervals=[0.9, 0.5], **QUICK)
    assert torch.equal(weights(model), weights(one))
    assert model.bounds[:2] == ("load+6:lower@0.5", "load+6:upper@0.5")
    tuned = kanmodel.fine_tune(model, frame, time="time", epochs=1)
    assert tuned.levels == (0.5, 0.9) and "test_coverage 0.9" in tuned.metrics
    with pytest.raises(ConfigError, match="intervals cannot be given, because it is taken from the model"):
        kanmodel.fine_tune(model, frame, time="time", epochs=1, intervals=(0.9,))


def test_persistence_is_measured():
    """Persistence and the seasonal forecast of a day before are measured on the test windows by default."""
    frame = make_frame()
    metrics = kanmodel.train(frame, "load", ahead=6, time="time", **QUICK).metrics
    load = frame["load"].to_numpy()
    ends = np.arange(900 - 135 + 5, 900 - 6)
    truth, one = load[ends + 6][:, None], np.zeros(len(ends), dtype=int)
    assert metrics["test_windows"] == len(ends)
    assert metrics["persistence_r2"] == pytest.approx(r2_scores(truth, load[ends][:, None], one)[0])
    assert metrics["persistence_mae"] == pytest.approx(np.abs(truth[:, 0] - load[ends]).mean())
    season = metrics["season"]
    assert season in (24, 168)
    naive = load[ends + 6 - int(season)]
    assert metrics["seasonal_naive_r2"] == pytest.approx(r2_scores(truth, naive[:, None], one)[0])
    assert metrics["seasonal_naive_mae"] == pytest.approx(np.abs(truth[:, 0] - naive).mean())
    assert metrics["seasonal_naive_r2"] > 0.9 > 0 > metrics["persistence_r2"]
    assert metrics["ridge_r2"] > 0.9 and metrics["ridge_mae"] > 0


def test_a_column_that_was_shifted_by_hand_trains():
    """The empty cells at its end are excluded and counted, and persistence is given only where it is known."""
    frame = make_frame()
    shifted = frame.assign(next=frame["load"].shift(-6))
    options = {"time": "time", **QUICK}
    model = kanmodel.train(shifted, "next", **options)
    assert model.outputs == ("next+1",) and [feature.name for feature in model.features] == ["wind", "load"]
    assert "persistence_r2" not in model.metrics
    assert model.metrics["left_out_windows"] == model.metrics["left_out_windows next (target)"] == 6
    named = kanmodel.train(shifted, "next", last_value={"next": "load"}, **options).metrics
    ahead = kanmodel.train(frame, "load", ahead=6, **options).metrics
    assert named["persistence_r2"] == pytest.approx(ahead["persistence_r2"])
    assert named["test_windows"] == ahead["test_windows"] == 124
    change = kanmodel.train(shifted, "next", last_value={"next": 0}, **options).metrics
    assert change["persistence_r2"] < -10


def test_a_model_is_fine_tuned():
    """Fine-tuning keeps columns and horizon, returns a model with new weights, and leaves the original unchanged."""
    frame = make_frame()
    model = kanmodel.train(frame, "load", ahead=6, **QUICK)
    before = weights(model)
    tuned = kanmodel.fine_tune(model, frame, epochs=2, lamb=0.05, time="time")
    assert tuned.outputs == model.outputs and not torch.equal(weights(tuned), before)
    assert torch.equal(weights(model), before)
    assert "seasonal_naive_r2" in tuned.metrics
    finer = kanmodel.fine_tune(model, frame, epochs=0, grid_size=6)
    assert finer.config.head[0].basis.grid_size == 6
    assert finer.metrics["test_r2"] == pytest.approx(model.metrics["test_r2"], abs=1e-4)
    refined = model.refine_grid(6)
    assert torch.equal(weights(refined), weights(finer)) and refined.metrics == model.metrics
    with pytest.raises(ConfigError, match="a finer grid needs more than 3 intervals, but grid_size is 2"):
        kanmodel.fine_tune(model, frame, epochs=0, grid_size=2)
    with pytest.raises(ConfigError, match="grid cannot be given, because it is taken from the model; grid_size sets a"):
        kanmodel.fine_tune(model, frame, epochs=0, grid=6)
    with pytest.raises(UnknownNameError, match="there is no column 'wind'; the columns are time, load"):
        kanmodel.fine_tune(model, frame.drop(columns="wind"))


def test_progress_is_reported_after_each_epoch(capsys, monkeypatch):
    """Progress goes to a function, or with progress=True to stdout as text that ends with the result."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # another test may have run a notebook
    frame, reports = make_frame(400), []
    kanmodel.train(frame, "load", ahead=1, progress=reports.append, **QUICK)
    assert [(report.epoch, report.epochs) for report in reports] == [(1, 2), (2, 2)]
    kanmodel.train(frame, "load", ahead=1, progress=False, **QUICK)
    kanmodel.train(frame, "load", ahead=1, **QUICK)
    assert capsys.readouterr().out == ""
    frame.loc[5, "wind"] = np.nan
    metrics = kanmodel.train(frame, "load", ahead=1, time="time", progress=True, **QUICK).metrics
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("epoch 2/2  train ")
    assert lines[-1].startswith(f"test R2 {metrics['test_r2']:.3f}, persistence {metrics['persistence_r2']:.3f}, seas")
    assert f"ridge {metrics['ridge_r2']:.3f}" in lines[-1]
    assert lines[-1].endswith("; 6 windows left out for missing values")


def test_properties_of_features_are_saved(tmp_path):
    """Groups, integer and fixed features are saved in the file and kept by fine-tuning."""
    frame = make_frame(300).assign(wind=lambda rows: rows["wind"].round())
    said = {"groups": {"weather": ["wind", "load"]}, "integer": ["wind"], "fixed": ["load"]}
    model = kanmodel.train(frame, "load", ahead=1, time="time", **said, **QUICK).save(tmp_path / "m.safetensors")
    tuned = kanmodel.fine_tune(model, frame, time="time", epochs=1)
    for one in (kanmodel.load(tmp_path / "m.safetensors"), tuned, model.prune()):
        assert [(f.name, f.integer, f.fixed) for f in one.features] == [("wind", True, False), ("load", False, True)]
        assert one.group_names == ("weather",)
    regrouped = model.with_groups({"other": ["wind"]})
    assert regrouped.checkpoint is None and regrouped.group_names == ("other", "load")
    assert regrouped.save(tmp_path / "n.safetensors").checkpoint != model.checkpoint
    assert kanmodel.load(tmp_path / "n.safetensors").group_names == ("other", "load")
    assert (regrouped.predict(frame) == model.predict(frame)).all()
    with pytest.raises(ConfigError, match=r"groups\.g has no feature 'q'"):
        model.with_groups({"g": ["q"]})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": "q"}, UnknownNameError, "there is no column 'q'; the columns are time, wind, load"),
        ({"depth": 3}, UnknownNameError, "there is no option 'depth'; the options are lookback, horizon, hidden"),
        ({"epochs": 0}, DataError, "epochs must be at least 1 for a new model, but is 0"),
        ({"lookback": 200}, DataError, "part has 0 windows of 201 rows, but needs 8"),
        ({"max_step": 0}, DataError, "max_step must be at least 1 usual step, but is 0"),
        ({"groups": {"g": ["q"]}}, DataError, "groups.g has no feature 'q'; the features are wind, load"),
        ({"fixed": ["q"]}, UnknownNameError, "fixed feature"),
        ({"integer": ["q"]}, UnknownNameError, "integer feature"),
        ({"integer": ["wind"]}, DataError, "data row 1, column wind must be a whole number, but is "),
    ],
)
def test_invalid_training_arguments_are_refused(arguments, error, message):
    """The error is one sentence that names the argument."""
    with pytest.raises(error, match=message):
        kanmodel.train(**{"frame": make_frame(300), "target": "load", "ahead": 1, "time": "time"} | arguments)


def test_a_column_whose_name_cannot_be_shown_is_refused():
    """Training refuses it before the first epoch, in the words of a checkpoint's config."""
    frame = make_frame().rename(columns={"wind": "wind\x1b[31m"})
    with pytest.raises(ConfigError, match=r"^name must be printable text of at most 200 characters, but is 'wind\\x1b"):
        kanmodel.train(frame, "load", ahead=6, time="time", **QUICK, progress=lambda epoch: pytest.fail("trained"))


def index_by_time(frame):
    return frame.set_index("time")


@pytest.fixture(scope="module")
def hourly():
    """A model of hours with a time column, and 40 hours in order."""
    frame = make_frame()
    return kanmodel.train(frame, "load", ahead=1, time="time", **QUICK), frame[-40:]


@pytest.mark.parametrize(
    "form", [lambda frame: frame, pl.from_pandas, index_by_time], ids=["pandas", "polars", "index"]
)
def test_rows_of_a_frame_are_put_in_order_of_time(hourly, form, tmp_path):
    """Whatever their order, the newest rows are the window, also after a save and for what other methods take."""
    model, frame = hourly
    expected = model.predict(frame[["wind", "load"]])
    model.save(tmp_path / "m.safetensors")
    loaded = kanmodel.load(tmp_path / "m.safetensors")
    assert loaded.config.time == TimeColumn("time", 3600.0, 1.5, True)
    for shuffled in (frame, frame[::-1], frame.sample(frac=1, random_state=0)):
        given = form(shuffled)
        np.testing.assert_array_equal(loaded.predict(given), expected)
        np.testing.assert_allclose(loaded.explain(given).predictions, expected[:, 0], rtol=1e-6)
    assert not np.array_equal(model.predict(frame[::-1][["wind", "load"]]), expected)  # without time as they stand


@pytest.mark.parametrize(
    "form", [lambda frame: frame, pl.from_pandas, index_by_time], ids=["pandas", "polars", "index"]
)
def test_a_gap_or_a_repeated_time_in_the_window_of_a_frame_is_refused(hourly, form):
    """The error names the times; before the window both are harmless."""
    model, frame = hourly
    gap = pd.concat([frame[:-5], frame[-2:]])
    with pytest.raises(
        DataError, match=r"'time'\], row \d+ must have no gap before it, but goes from .*T06.* to .*T10"
    ):
        model.predict(form(gap))
    with pytest.raises(DataError, match=r"must not repeat a time, but has 2026-02-07T07:00:00.* twice"):
        model.explain(form(pd.concat([frame, frame[-5:-4]])))
    with pytest.raises(DataError, match="must not repeat a time"):  # which of both rows would begin the window?
        model.predict(form(pd.concat([frame, frame[-6:-5]])))
    early = pd.concat([frame[:3], frame[:20], frame[30:]])
    np.testing.assert_array_equal(model.predict(form(early)), model.predict(form(frame)))


def test_times_of_a_frame_are_of_the_kind_of_the_training(hourly):
    """Numbers for dates are refused; a model without time orders rows by a column `time`, or takes them as they are."""
    model, frame = hourly
    with pytest.raises(DataError, match="must hold dates, as in training"):
        model.predict(frame.assign(time=np.arange(40)))
    with pytest.warns(UserWarning, match="time"):
        plain = kanmodel.train(make_frame(), "load", ahead=1, **QUICK)
    assert plain.config.time is None
    np.testing.assert_array_equal(plain.predict(frame[::-1]), plain.predict(frame))
    bare = frame.drop(columns="time").reset_index(drop=True)
    assert not np.array_equal(plain.predict(bare[::-1]), plain.predict(bare))


def test_rows_closer_in_time_than_those_of_the_training_are_refused(hourly):
    """Rows of 15 minutes for an hourly model are an error; single early rows are not."""
    model, frame = hourly
    quarter = frame.assign(time=frame["time"].iloc[0] + (frame["time"] - frame["time"].iloc[0]) / 4)
    with pytest.raises(DataError, match=r"mostly steps shorter than those of the training, 1 hour: give"):
        model.predict(quarter)
    early = frame.assign(time=frame["time"] - np.timedelta64(25, "m") * (np.arange(len(frame)) == len(frame) - 2))
    np.testing.assert_array_equal(model.predict(early), model.predict(frame))


def test_reference_windows_unlike_the_training_are_named():
    """The model's card has the span of the reference windows, and the features that differ from training in them."""
    frame = make_frame()
    split = np.repeat(["train", "validation", "test"], 300)
    warm = frame.assign(temp=np.where(split == "validation", 30.0, 10.0) + frame["wind"], split=split)
    options = QUICK | {"ahead": 1, "time": "time", "split": "split"}
    model = kanmodel.train(warm, "load", **options)
    assert [feature.feature for feature in model.reference.unlike_training] == ["temp"]
    assert "temp (mean shifted by +2" in repr(model) and "unlike training: temp" in str(model.reference)
    assert f"{len(model.reference)} windows, {model.reference.times[0]} to {model.reference.times[-1]}" in repr(model)
    spread = kanmodel.train(frame, "load", **QUICK, ahead=1, time="time")
    assert not spread.reference.unlike_training and "unlike" not in repr(spread)
