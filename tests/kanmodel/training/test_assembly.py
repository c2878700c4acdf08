"""A network that is worse than a ridge regression gets a linear path, whose edges are edges like any other."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from factories import make_rows
from hypothesis import given
from hypothesis import strategies as st

import kanmodel
from kanmodel import Model
from kanmodel.network.network import Network
from kanmodel.tables import roles
from kanmodel.tables.roles import Columns
from kanmodel.tables.skill import Moments
from kanmodel.training.assembly import LinearSamples, RelativeSamples, assemble
from kanmodel.training.baselines import MOST_READ, LinearPath, measure_moments
from kanmodel.training.optimization import TrainingOptions
from kanmodel.training.training import TrainingData, fine_tune, fit

OPTIONS = TrainingOptions(lookback=6, horizon=4, hidden=2, width=(2, 2, 4), epochs=4, batch=64, noise=0.0)


def make_table(n_rows=900, seed=0, features=("x",)):
    """The target of each step is a line of one value of the window, which two units cannot remember."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n_rows)
    y = np.concatenate([np.zeros(5), x[:-5]]) + 0.3 * rng.normal(size=n_rows)
    frame = {"x": x, "y": y, "time": np.arange(n_rows).astype("datetime64[h]")}
    return roles.make_table(frame, Columns(("y",), features, ahead=1, time="time"))


def fit_path(table, options):
    data = TrainingData(table, options, ())
    moments = data.moments
    may_read = np.ones(options.lookback * len(table.feature_names), dtype=bool)
    return data, moments, LinearPath.fit(moments, may_read, torch.float64)


def test_a_path_finds_the_values_that_matter():
    """Of each output the first value is the one of the window that it is a line of."""
    table = make_table()
    data, _, path = fit_path(table, OPTIONS)
    strongest = path.places[path.weights.abs().argmax(dim=1).numpy()]
    assert strongest.tolist() == [1, 2, 3, 4]  # x of 5 rows before the target
    model = fit(table, OPTIONS)
    assert model.metrics["test_r2"] > 0.98 * model.metrics["ridge_r2"]
    assert data.config.lookback == 6


@given(st.integers(0, 50), st.integers(1, 3))
def test_more_values_never_fit_worse(seed, n_outputs):
    """A path that may read all values is no better than least squares, and one of fewer is no better than that."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(300, 5)), rng.normal(size=(300, n_outputs))
    xx, xy = x.T @ x, x.T @ y
    moments = Moments(300, np.zeros(5), np.zeros(n_outputs), xx, xy)

    def measure(may_read):
        path = LinearPath.fit(moments, np.array(may_read), torch.float64)
        return ((y - x[:, path.places] @ path.weights.T.numpy()) ** 2).sum()

    least = ((y - x @ np.linalg.solve(xx, xy)) ** 2).sum()
    few, all_of_them = measure([True, True, False, False, False]), measure([True] * 5)
    assert least <= all_of_them * (1 + 1e-9) and all_of_them <= few * (1 + 1e-3)


def test_the_assembled_network_adds_the_path():
    """Its forecasts are those of the chain on the same windows plus those of the path, to rounding."""
    table = make_table()
    data, _, path = fit_path(table, OPTIONS)
    path = replace(path, weights=path.weights.float(), intercept=path.intercept.float())
    samples = LinearSamples.of(data.samples, path)
    chain = Network(data.config, torch.Generator().manual_seed(0))
    windows = samples.windows(data.parts.test)
    with torch.no_grad():
        torch.testing.assert_close(assemble(chain, samples)(windows), chain(windows) + path.forecast(windows))
        left = samples.outputs(data.parts.test)
    torch.testing.assert_close(left + path.forecast(windows), data.samples.outputs(data.parts.test))


def test_its_edges_are_explained_pruned_and_tuned():
    """Contributions sum to the forecast through them; at most so many values are read; fine-tuning goes on."""
    said = []
    table = make_table()
    trained = fit(table, OPTIONS, announce=said.append)
    assert any(sentence.startswith("a linear path is beside the network") for sentence in said)
    model = Model.of(trained)
    lines = model.network.stages["head"][0]
    assert (lines.mask.sum(dim=1) <= MOST_READ).all()
    windows = model.reference.windows[:3]
    found = model.explain(windows, "y+3")
    total = found.baseline_prediction + found.contributions.sum(axis=1)
    np.testing.assert_allclose(total, found.predictions, atol=float(found.residual.max()) + 1e-6)
    assert found.converged.all()
    assert model.topology("y+3").kan_edges
    tuned = fine_tune(trained, table, replace(OPTIONS, epochs=1)).after
    assert tuned.network.stages["head"][0].mask.equal(lines.mask)


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_and_series_go_with_a_path(seed):
    """Bounds surround the forecasts of a path, also relative to the level of a window."""
    rng = np.random.default_rng(seed)
    rows = []
    for shop, size in (("kiosk", 1.0), ("mall", 30.0)):
        known = rng.normal(size=400)
        sales = size * (10 + np.concatenate([np.zeros(3), known[:-3]]) + 0.2 * rng.normal(size=400))
        rows += [(shop, hour, *each) for hour, each in enumerate(zip(known, sales, strict=True))]
    table = pl.DataFrame(rows, schema=["shop", "hour", "known", "sales"], orient="row")
    model = kanmodel.train(
        table,
        "sales",
        series="shop",
        time="hour",
        ahead=1,
        horizon=3,
        lookback=6,
        hidden=2,
        width=(2, 2, 3),
        epochs=3,
        intervals=0.8,
        progress=False,
        seed=seed,
    )
    lines = [layer for layer in model.network.stages["head"] if layer.config.basis.is_line]
    assert lines and model.metrics["test_r2"] > 0.9 * model.metrics["ridge_r2"]
    tuned = kanmodel.fine_tune(model, table, time="hour", epochs=1, progress=False)
    assert tuned.levels == (0.8,) and tuned.intervals.kind == "constant"
    found = model.predict(table, last=5, intervals="all")
    assert (found.lower[0] < found.predictions).all() and (found.predictions < found.upper[0]).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"num_layers": 2},
        {"num_layers": 2, "bidirectional": True, "cell": "gru", "width": (4, 2, 4)},
        {"front": (2, 3)},
        {"hidden": 0, "lookback": 1, "width": (2, 2, 4)},
    ],
)
@pytest.mark.parametrize("scaled", [False, True])
def test_every_architecture_is_assembled(changes, scaled):
    """With a path, or relative to a level, the network forecasts the same, and can be explained and pruned."""
    options, table = replace(OPTIONS, **changes), make_table(features=("x", "y"))
    data = TrainingData(table, options, ())
    samples = data.samples
    if scaled and options.lookback > 1:
        samples = RelativeSamples.of_samples(samples, data.config, data.parts.train)
    moments = measure_moments(samples, data.parts.train)
    path = LinearPath.fit(moments, np.ones(len(moments.mean_x), dtype=bool), torch.float32)
    chain, linear = Network(data.config, torch.Generator().manual_seed(0)), LinearSamples.of(samples, path)
    numbers = data.parts.test[:30]
    with torch.no_grad():
        relative = chain(linear.windows(numbers)) + path.forecast(linear.windows(numbers))
        found = assemble(chain, linear)(data.samples.windows(numbers))
        if isinstance(samples, RelativeSamples):
            _, levels = samples._levels(data.samples.windows(numbers))
            relative = (1 + samples.spread * relative) * levels
            scaling = data.config.scaling
            relative = ((relative.double() - scaling.output_mean[0]) / scaling.output_scale[0]).float()
    torch.testing.assert_close(found, relative, rtol=1e-4, atol=1e-4)
    model = Model.of(fit(table, replace(options, epochs=1)))
    explained = model.explain(model.reference.windows[:2])
    assert explained.converged.all() and model.prune(fidelity=0.9).size.edges <= model.size.edges


def test_a_network_that_is_good_stays_alone():
    """No path is added where the network is better than the ridge, nor where it is not wanted."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1200, 1))
    table = make_rows(x, np.abs(x), ("x",), ("y",), last_value={"y": 0})
    options = replace(OPTIONS, lookback=1, horizon=1, hidden=4, width=(4, 3, 1), epochs=30, learning_rate=0.03)
    alone = fit(table, options)
    assert not alone.config.graph and alone.metrics["test_r2"] > 0.9 > alone.metrics["ridge_r2"]
    assert not fit(make_table(), replace(OPTIONS, linear=False)).config.graph
