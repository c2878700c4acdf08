"""Training measures, scales and chooses on the right rows, and repeats."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from factories import WIND_POWER, make_rows, make_wind_power, with_rows
from hypothesis import given
from hypothesis import strategies as st
from thorough import few_of

import kanmodel
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.errors import ConfigError, DataError, NonFiniteError
from kanmodel.network.bases import Gaussian, Sech2
from kanmodel.network.config import Transform, plain_layers
from kanmodel.network.network import Network
from kanmodel.tables import roles
from kanmodel.tables.roles import Columns
from kanmodel.tables.samples import covered_rows, split_samples
from kanmodel.tables.windows import Windows
from kanmodel.training.optimization import TrainingOptions
from kanmodel.training.training import fine_tune, fit

QUICK = TrainingOptions(
    lookback=3, hidden=4, width=(4, 2, 1), grid=3, epochs=3, batch=32, linear=False, lamb=0.001, noise=0.0
)


def make_table(n_rows=400, constant=False, seed=0, **options):
    """Two features that determine the target; `constant` adds a feature that never changes."""
    options = {"last_value": {"y": 0}} | options
    rng = np.random.default_rng(seed)
    features = rng.normal(loc=[0.0, 100.0], scale=[1.0, 20.0], size=(n_rows, 2))
    targets = 3 * np.sin(features[:, :1]) + features[:, 1:2] / 20 + 7
    names = ("a", "b")
    if constant:
        features, names = np.column_stack([features, np.full(n_rows, 0.1)]), ("a", "b", "c")
    return make_rows(features, targets, names, ("y",), **options)


def ends_of(table, part):
    """The rows at which the windows of a part end."""
    parts = split_samples(table, 3, 1, 0.15, 12)
    return parts.windows.ends[getattr(parts, part)]


def make_radial_model(table, basis):
    """A random model with layer norms and radial bases for `make_table`, with the scaling of the table."""
    trained = fit(table, replace(QUICK, epochs=1))
    kind = {"gaussian": Gaussian, "sech2": Sech2}[basis]
    head = plain_layers([4, 2, 1], kind(5, 0.5), before=(Transform("layer_norm"),), base_after=0)
    return replace(trained, network=Network(replace(trained.config, head=head)).requires_grad_(False))


def weights(model):
    return torch.cat([tensor.flatten() for tensor in model.network.state_dict().values()])


@pytest.mark.parametrize(("max_steps", "epochs"), [(1, 5), (6, 6), (7.9, 7), (80, 8)])
def test_large_tables_have_fewer_epochs(max_steps, epochs):
    """There are as many whole epochs as the most batches allow, but at least 5, and no more than were asked for."""
    table, reports = make_table(), []
    n_batches = fit(table, replace(QUICK, epochs=1)).metrics["train_windows"] // QUICK.batch
    fit(table, replace(QUICK, epochs=8, max_steps=int(max_steps * n_batches)), reports.append)
    assert [(each.epoch, each.epochs) for each in reports] == [(number + 1, epochs) for number in range(epochs)]


@pytest.mark.thorough("trains for 60 epochs")
def test_a_kan_learns_what_ridge_cannot():
    """A head alone forecasts 3 sin(a) + b far better than ridge and persistence on the same test rows."""
    options = replace(QUICK, lookback=1, hidden=0, width=(2, 1), epochs=60, learning_rate=0.03, weight_decay=0.0)
    metrics = fit(make_table(800), options).metrics
    assert metrics["test_r2"] > 0.98
    assert metrics["test_r2"] > metrics["ridge_r2"] + 0.02
    assert metrics["persistence_r2"] < 0
    assert metrics["test_mae"] < 0.4


def test_metrics_are_those_of_the_test_rows_in_original_units():
    """R2 and mean absolute error equal those of predictions for windows of the last 15 % of the rows."""
    table = make_table()
    model = fit(table, QUICK)
    ends = ends_of(table, "test")
    predictions = model.predict(np.stack([table.table.numbers[end - 2 : end + 1] for end in ends]))
    errors = table.table.targets[ends] - predictions
    spread = ((table.table.targets[ends] - table.table.targets[ends].mean()) ** 2).sum()
    assert model.metrics["test_r2"] == pytest.approx(1 - (errors**2).sum() / spread, abs=1e-6)
    assert model.metrics["test_mae"] == pytest.approx(np.abs(errors).mean(), abs=1e-6)
    assert model.metrics["test_windows"] == len(ends)


def test_the_same_seed_gives_the_same_model_and_leaves_no_trace():
    """Weights and metrics repeat in four threads with global seeds of their own, and no global state is changed."""
    table = make_table()
    states, threads = (torch.get_rng_state(), np.random.get_state()), torch.get_num_threads()
    first, other = (fit(table, replace(QUICK, noise=0.1, seed=seed)) for seed in (1, 2))
    assert not torch.equal(weights(first), weights(other))
    assert torch.equal(torch.get_rng_state(), states[0]) and torch.get_num_threads() == threads
    np.testing.assert_equal(np.random.get_state(), states[1])

    def disturb_and_fit(number):
        """Trains while each epoch of each thread seeds torch's and numpy's global generators anew."""

        def disturb(progress):
            torch.manual_seed(number)
            np.random.seed(number)

        disturb(None)
        return fit(table, replace(QUICK, noise=0.1, seed=1), disturb)

    try:
        with ThreadPoolExecutor(4) as pool:
            models = list(pool.map(disturb_and_fit, range(4)))
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
    assert all(torch.equal(weights(model), weights(first)) and model.metrics == first.metrics for model in models)


def test_reference_windows_are_spread_over_the_validation_part():
    """The model has the requested number of validation windows with their targets and the times of their last steps."""
    table = make_table(times=np.arange(400))
    model = fit(table, replace(QUICK, reference_windows=20))
    ends = [int(time) for time in model.reference.times]
    validation = ends_of(table, "validation")
    assert set(ends) <= set(validation.tolist()) and ends == sorted(set(ends)) and len(ends) == 20
    assert (ends[0], ends[-1]) == (validation[0], validation[-1])
    assert max(np.diff(np.searchsorted(validation, ends))) <= 4
    np.testing.assert_array_equal(model.reference.targets, table.table.targets[ends])
    windows = model.scaling.features_to_original(model.reference.scaled)
    np.testing.assert_allclose(windows[:, -1], table.table.numbers[ends], rtol=1e-5, atol=1e-5)


def test_the_weights_are_those_of_the_best_epoch():
    """Training beyond the best epoch returns that epoch's weights, and `patience` stops it."""
    table = make_table(150)
    reports = []
    model = fit(table, replace(QUICK, epochs=80, patience=5, learning_rate=0.05, grid_updates=8), reports.append)
    errors = [report.validation_error for report in reports]
    best = int(np.argmin(errors))
    assert len(errors) == min(80, best + 6) and best < len(errors) - 1
    ends = ends_of(table, "validation")
    predictions = model.predict(np.stack([table.table.numbers[end - 2 : end + 1] for end in ends]))
    scaled = (predictions - table.table.targets[ends]) / model.config.targets[0].std
    assert (scaled**2).mean() == pytest.approx(errors[best], rel=1e-4)
    assert [report.best_error for report in reports] == np.minimum.accumulate(errors).tolist()


def test_scaling_uses_training_rows_only():
    """Means, deviations and ranges of features are those of the rows in training windows."""
    table = make_table()
    features = table.table.numbers.copy()
    parts = split_samples(table, 3, 1, 0.15, 12)
    trained = covered_rows(parts.windows, parts.train)
    features[~trained] += 1000
    titles = {"b": "air pressure", "y": "warming of the hall"}
    model = fit(replace(with_rows(table, features), units={"b": "hPa", "y": "K"}, titles=titles), QUICK)
    for column, feature in zip(features[trained].T, model.config.features, strict=True):
        figures = (feature.mean, feature.std, feature.min, feature.max)
        assert figures == pytest.approx((column.mean(), column.std(), column.min(), column.max()))
    assert [feature.unit for feature in model.config.features] == [None, "hPa"]
    assert [feature.title for feature in model.config.features] == [None, "air pressure"]
    assert (model.config.targets[0].unit, model.config.targets[0].title) == ("K", "warming of the hall")


def test_a_constant_feature_does_no_harm():
    """A constant feature has deviation 0, and all weights stay finite, also if a KAN reads it."""
    for shape in (QUICK, replace(QUICK, lookback=1, hidden=0, width=(3, 2, 1)), replace(QUICK, front=(3, 2))):
        model = fit(make_table(constant=True), shape)
        assert model.config.features[2].std == 0.0
        assert torch.isfinite(weights(model)).all() and np.isfinite(list(model.metrics.values())).all()


def test_every_shape_trains_saves_and_loads(tmp_path):
    """Models with front, products, two layers, directions, targets and steps give a checkpoint that loads."""
    table = make_table()
    rows, targets = table.table.numbers, np.column_stack([table.table.targets, -table.table.targets])
    table = make_rows(rows, targets, table.feature_names, ("y", "z"))
    options = replace(QUICK, front=(2, 3), num_layers=2, bidirectional=True, width=(8, (2, 1), 4), horizon=2, hidden=4)
    model = fit(table, options)
    save_checkpoint(model, tmp_path / "m.safetensors")
    loaded = load_checkpoint(tmp_path / "m.safetensors")
    assert loaded.config.outputs == ("y+1", "z+1", "y+2", "z+2")
    assert torch.equal(loaded.reference_outputs, model.reference_outputs)
    per_output = [loaded.metrics[f"test_r2 {name}"] for name in loaded.config.outputs]
    assert loaded.metrics["test_r2"] == pytest.approx(np.mean(per_output))
    assert loaded.provenance.source == "train"


@pytest.mark.parametrize(
    ("changes", "targets", "error", "message"),
    [
        ({}, 4.0, DataError, r"target y is 4\.0 in every training row"),
        ({}, 1e300, ConfigError, r"^column y must be at most 1e\+75 in magnitude, but is 1e\+300$"),
        ({"width": (5, 1)}, None, ConfigError, r"head\[0\]\.n_in must be 4, which reach it, but is 5"),
        ({"learning_rate": 1e9}, None, NonFiniteError, "diverged in epoch"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, targets, error, message):
    """A target that is constant or too large, a head that does not fit its input, and weights that would be NaN."""
    table = make_table()
    table = table if targets is None else with_rows(table, targets=np.full((400, 1), targets))
    with pytest.raises(error, match=message):
        fit(table, replace(QUICK, **changes))


@pytest.mark.parametrize("value", [4.0, 0.1, 1e9 + 0.3])
@pytest.mark.parametrize("horizon", [1, 2])
@pytest.mark.filterwarnings("error")
def test_a_constant_test_target_is_refused_before_training(value, horizon):
    """A target that is constant in the test part has no R2: it is refused before training, without warnings."""
    table = make_table()
    model = fit(table, replace(QUICK, horizon=horizon, width=(4, 2, horizon), epochs=1))
    targets = table.table.targets.copy()
    targets[330:] = value
    constant, epochs = with_rows(table, targets=targets), []
    refusal = rf"output y\+1 is {value} in every test window"
    with pytest.raises(DataError, match=refusal):
        fit(constant, replace(QUICK, horizon=horizon, width=(4, 2, horizon)), epochs.append)
    with pytest.raises(DataError, match=refusal):
        fine_tune(model, constant, QUICK, epochs.append)
    assert not epochs


@pytest.mark.parametrize(
    "shape", [QUICK, replace(QUICK, lookback=1, hidden=0, width=(2, (2, 1), 1)), replace(QUICK, front=(2, 3))]
)
def test_fine_tuning_without_epochs_measures_the_model(shape):
    """Weights and metrics stay exactly the same, and the original model is unchanged."""
    table = make_table()
    model = replace(fit(table, shape), sha256="f" * 64)
    before = weights(model)
    tuning = fine_tune(model, table, replace(QUICK, epochs=0))
    assert torch.equal(weights(tuning.after), before) and torch.equal(weights(model), before)
    assert tuning.after.metrics == tuning.before.metrics == model.metrics
    assert torch.equal(tuning.after.reference.scaled, model.reference.scaled)
    assert tuning.after.provenance.parent == "sha256:" + "f" * 64 and model.provenance.parent is None
    assert not any(weight.requires_grad for weight in tuning.after.network.parameters())


@cache
def outdated():
    """A table, and a model whose grids are those of its untrained weights."""
    table = make_table(600)
    return table, fit(table, replace(QUICK, grid_updates=0, epochs=15))


@pytest.mark.parametrize("epochs", [0, 3])
def test_grids_end_where_the_data_is(epochs):
    """Outdated grids move to the range of the training windows, also after epochs that change this range.

    Without epochs the forecasts change little.
    """
    table, model = outdated()
    after = fine_tune(model, table, replace(QUICK, epochs=epochs, learning_rate=0.001), move_grids=True).after
    ends = ends_of(table, "train")
    windows = after.to_model_units(np.stack([table.table.numbers[end - 2 : end + 1] for end in ends]))
    for layer, trace in zip(after.network.head, after.network.trace(windows).head, strict=True):
        torch.testing.assert_close(layer.core[0], trace.inputs.amin(dim=0), rtol=0, atol=1e-2)
        torch.testing.assert_close(layer.core[1], trace.inputs.amax(dim=0), rtol=0, atol=1e-2)
    stale = model.network.trace(windows).head[0].inputs
    assert (model.network.head[0].core[0] - stale.amin(dim=0)).abs().max() > 0.1
    assert not torch.equal(weights(after), weights(model))
    full, moved = model.reference_outputs, after.reference_outputs
    assert epochs or ((full - moved) ** 2).mean() < 1e-3 * full.var()


@pytest.mark.thorough("trains for 40 epochs")
def test_fine_tuning_with_a_penalty_reduces_the_variation_of_edges():
    """Fine-tuning with a penalty reduces the variation of edges, and the model still forecasts."""
    table = make_table(500)
    options = replace(QUICK, lookback=1, hidden=0, width=(2, 5, 1), epochs=20, learning_rate=0.03, lamb=0.0)
    tuning = fine_tune(fit(table, options), table, replace(options, lamb=0.03))

    def size(model):
        return float(sum(t.edges.std(dim=0).sum() for t in model.network.trace(model.reference.scaled).head))

    assert size(tuning.after) < 0.8 * size(tuning.before)
    assert tuning.after.metrics["test_r2"] > 0.8


@pytest.mark.parametrize("basis", few_of(["gaussian", "sech2"], ["gaussian"], "trains once more"))
def test_a_radial_model_is_fine_tuned(basis):
    """A radial model is fine-tuned with default options; its centres stay, and grid updates are refused."""
    table = make_table()
    model = make_radial_model(table, basis)
    reports = []
    tuning = fine_tune(model, table, report=reports.append)
    after = tuning.after
    assert reports and after.metrics["test_r2"] > tuning.before.metrics["test_r2"]
    for layer, old in zip(after.network.head, model.network.head, strict=True):
        assert torch.equal(layer.grid, old.grid) and not torch.equal(layer.coef, old.coef)
    with pytest.raises(ConfigError, match=f"no knots to move: its basis is {basis}"):
        fine_tune(model, table, QUICK, move_grids=True)


def test_fine_tuning_keeps_what_is_not_trained():
    """Masked edges stay masked, and features keep the scaling of the original training for a table of other means.

    If no epoch lowers validation error plus penalty, the initial weights are kept.
    """
    table = make_table(units={"a": "K"})
    model = fit(table, QUICK)
    worse = fine_tune(model, table, replace(QUICK, learning_rate=10.0, epochs=1, grid_updates=0)).after
    assert torch.equal(weights(worse), weights(model))
    model.network.head[0].mask[0, 1] = 0
    after = fine_tune(replace(model), table, QUICK).after
    assert after.network.head[0].mask[0, 1] == 0
    assert not after.network.trace(model.reference.scaled).head[0].edges[:, 0, 1].any()
    shifted = replace(with_rows(table, table.table.numbers + np.array([1.0, 0.0])), units={})
    assert fine_tune(model, shifted, QUICK).after.config == model.config


@pytest.mark.parametrize(
    ("names", "target", "ahead", "message"),
    [
        (("a", "c"), "y", 0, "the table's features are a, c, but the model's are a, b"),
        (("a", "b"), "y", 2, "the table's targets are 2 rows ahead, but the model's are 0"),
        (("b", "a"), "y", 0, "the table's features are b, a, but the model's are a, b"),
        (("a", "b"), "z", 0, "the table's targets are z, but the model's are y"),
    ],
)
def test_other_columns_are_refused(names, target, ahead, message):
    """Fine-tuning needs the model's features in the same order, and its targets."""
    table = make_table()
    model = fit(table, QUICK)
    other = make_rows(table.table.numbers, table.table.targets, names, (target,), ahead=ahead)
    with pytest.raises(DataError, match=message):
        fine_tune(model, other, QUICK)


def test_known_columns_need_windows_of_as_many_steps():
    """A window has what is known at each step that is forecast, so it must be as long; without known columns not."""
    with pytest.raises(DataError, match="lookback must be at least the horizon, 30, as a window has what is known"):
        kanmodel.train(make_wind_power(400), "power", horizon=30, **WIND_POWER)
    kanmodel.train(make_wind_power(600), "power", horizon=30, epochs=1, hidden=2, time="time", ahead=1, progress=False)


@given(st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_what_is_known_is_that_of_its_step(ahead, horizon, calendar):
    """A window's rows have known values and the calendar up to the last step that is forecast, one an hour."""
    frame = make_wind_power(60)
    parts = ["hour"] if calendar else False
    table = roles.make_table(
        frame, Columns(("power",), time="time", known=("wind",), ahead=ahead, horizon=horizon, calendar=parts)
    )
    spec = replace(table.spec, lookback=5, horizon=horizon)
    windows = Windows.cut(replace(table.table, spec=spec), targets=True)
    values, wind = windows.rows[windows.index()], frame["wind"].to_numpy()
    names = table.feature_names
    for end, window in zip(windows.ends.tolist(), values, strict=True):
        rows = np.arange(end - 4, end + 1) + ahead + horizon - 1
        np.testing.assert_array_equal(window[:, names.index(f"wind+{ahead + horizon - 1}")], wind[rows])
        if calendar:
            expected = np.sin(2 * np.pi * (rows % 24) / 24)
            np.testing.assert_allclose(window[:, names.index("hour_sin")], expected, atol=1e-12)


@pytest.mark.parametrize(("ahead", "horizon"), [(1, 1), (1, 6), (3, 2)])
def test_explanations_name_the_time_of_each_value(ahead, horizon):
    """A row for each step of each feature has the time that its value is of, and the value of the table at it."""
    frame = make_wind_power(400)
    model = kanmodel.train(
        frame, "power", lookback=8, horizon=horizon, calendar=["hour"], epochs=1, **WIND_POWER | {"ahead": ahead}
    )
    found = model.explain(frame, model.outputs[-1], last=3)
    rows = pl.DataFrame(found.table("step"))
    assert len(rows) == 3 * 8 * len(model.features)
    assert rows.group_by("window").agg(pl.col("contribution").sum()).sort("window")[
        "contribution"
    ].to_list() == pytest.approx(
        (found.predictions - found.baseline_prediction).tolist(), abs=found.residual.max() + 1e-9
    )
    at = {str(time)[:16].replace(" ", "T"): number for number, time in enumerate(frame["time"])}
    for feature, column in ((f"wind+{ahead + horizon - 1}", "wind"), ("power", "power")):
        of = rows.filter(pl.col("feature") == feature)
        numbers = [at[time[:16]] for time in of["value_time"]]
        np.testing.assert_allclose(of["value"], frame[column][numbers], rtol=1e-6, atol=1e-6)
    hours = rows.filter(pl.col("feature") == "hour_cos")
    clock = [int(time[11:13]) for time in hours["value_time"]]
    np.testing.assert_allclose(hours["value"], np.cos(2 * np.pi * np.array(clock) / 24), atol=1e-6)
    newest = rows.filter((pl.col("feature") == "hour_cos") & (pl.col("lag") == 0))
    assert newest["value_time"].to_list() == newest["target_time"].to_list()
    drawn = set(re.findall(r"<title>(20[^ ]+): ", found[0].svg()))
    assert drawn and drawn <= {time for of_step in found.value_times(0) for time in of_step}
    with pytest.raises(DataError, match="wide is for contributions by feature or group"):
        found.table("step", wide=True)
    without = model.explain(found.windows)
    assert without.value_times(0) == [] and "value_time" not in without.table("step")[0]


def test_each_step_is_told_what_is_known_at_it():
    """White noise that is known ahead is forecast at each step, which reads its own value of it."""
    frame = make_wind_power()
    model = kanmodel.train(frame, "power", horizon=6, lookback=8, epochs=40, **WIND_POWER)
    r2 = [model.metrics[f"test_r2 {output}"] for output in model.outputs]
    assert min(r2) > 0.6, r2
    feature = [each.name for each in model.features].index("wind+6")
    for step in range(6):
        found = model.explain(frame, f"power+{step + 1}", last=200)
        moved = np.abs(found.steps[:, :, feature]).mean(axis=0)  # by the window's steps, oldest first
        assert moved.argmax() == 8 - 6 + step
