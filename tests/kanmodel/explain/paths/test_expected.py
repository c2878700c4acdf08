from functools import cache

import numpy as np
import pytest
import torch
from factories import PROVENANCE, make_model, make_windows
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel.checkpoint import LoadedModel, Reference
from kanmodel.data import Feature, Target
from kanmodel.errors import DataError
from kanmodel.explain.attribution import explain_windows
from kanmodel.explain.baseline import Baseline, ReferenceBaselines
from kanmodel.network.chain import Network
from kanmodel.network.config import ModelConfig, plain_layers

SHAPES = ["lstm", "head", "front"]
N = 400


@cache
def tiny(shape):
    model = make_model(shape, n_features=3, lookback=3, n_reference=8, product=True)
    return model, model.to_model_units(make_windows(model, 4))


@cache
def linear():
    """y = 3 (2 x0 - x1) in model units, with standard normal reference windows."""
    config = ModelConfig(
        (Feature("x0"), Feature("x1")),
        (Target("y", std=3.0),),
        1,
        1,
        plain_layers([2, 1], base="identity"),
        dtype="float64",
    )
    network = Network(config)
    with torch.no_grad():
        network.head[0].scale_base[:] = torch.tensor([[2.0, -1.0]])
        network.head[0].scale_spline[:] = 0
    windows = torch.from_numpy(np.random.default_rng(0).normal(size=(N, 1, 2)))
    return LoadedModel(network, Reference(windows), {}, PROVENANCE)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [2, 5, 8])
def test_it_is_the_mean_of_single_ledgers(shape, count):
    """Every entry is the mean of the ledgers from the baselines of the seed, drawn without replacement."""
    model, windows = tiny(shape)
    found = explain_windows(model, windows, 0, ReferenceBaselines(count, seed=7))
    chosen = np.random.default_rng(7).choice(8, count, replace=False)
    assert len(set(chosen.tolist())) == count
    instances = model.scaling.features_to_original(model.reference.windows)[chosen]
    singles = [explain_windows(model, windows, 0, Baseline("instance", instance=instance)) for instance in instances]
    np.testing.assert_allclose(found.steps, np.mean([single.steps for single in singles], axis=0))
    np.testing.assert_allclose(found.baseline, instances.mean(axis=0))
    for number, layer in enumerate(found.layers):
        for kind in ("nodes", "edges"):
            values = getattr(layer, kind)
            if values is not None:
                expected = np.mean([getattr(single.layers[number], kind) for single in singles], axis=0)
                np.testing.assert_allclose(values, expected)
    features = [single.contributions for single in singles]
    np.testing.assert_allclose(found.standard_error, np.std(features, axis=0, ddof=1) / np.sqrt(count))
    np.testing.assert_array_equal(found.residual, np.max([single.residual for single in singles], axis=0))
    np.testing.assert_allclose(found.predictions, singles[0].predictions, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_layer_adds_up(shape):
    """In every layer contributions sum to the forecast minus the mean forecast of the baselines."""
    model, windows = tiny(shape)
    ledger = explain_windows(model, windows, 0, ReferenceBaselines(6))
    change = ledger.predictions - ledger.baseline_prediction
    assert (np.abs(ledger.contributions.sum(axis=1) - change) <= ledger.residual + 1e-9).all()
    for layer in ledger.layers:
        for values in (layer.nodes, layer.edges):
            if values is not None:
                total = values.reshape(len(values), -1).sum(axis=1)
                assert (np.abs(total - change) <= ledger.residual + 1e-9).all()
    assert (ledger.residual <= ledger.tolerance)[ledger.converged].all()


@settings(max_examples=examples(20))
@given(st.integers(2, 60), st.integers(0, 1000))
def test_a_linear_model(count, seed):
    """For y = w x contributions are w (x - mean x0), and their standard error is |w| std(x0) / sqrt(count)."""
    model = linear()
    windows = torch.tensor([[[1.0, 2.0]], [[0.0, -1.0]]], dtype=torch.float64)
    ledger = explain_windows(model, windows, 0, ReferenceBaselines(count, seed))
    chosen = np.random.default_rng(seed).choice(N, count, replace=False)
    baselines = model.reference.windows[chosen.tolist(), 0].numpy()
    weights = 3 * np.array([2.0, -1.0])
    np.testing.assert_allclose(
        ledger.contributions, weights * (windows[:, 0].numpy() - baselines.mean(axis=0)), atol=1e-9
    )
    expected = np.abs(weights) * baselines.std(axis=0, ddof=1) / np.sqrt(count)
    np.testing.assert_allclose(ledger.standard_error, [expected, expected], atol=1e-9)


def test_the_standard_error_is_the_error():
    """Over many draws contributions vary by their standard error, which four times the baselines halve."""
    model = linear()
    window = torch.ones(1, 1, 2, dtype=torch.float64)
    stated = {}
    for count in (4, 16):
        ledgers = [explain_windows(model, window, 0, ReferenceBaselines(count, seed)) for seed in range(60)]
        stated[count] = np.sqrt(np.mean([ledger.standard_error[0] ** 2 for ledger in ledgers], axis=0))
        scatter = np.std([ledger.contributions[0] for ledger in ledgers], axis=0)
        np.testing.assert_allclose(scatter, stated[count], rtol=0.25)
    np.testing.assert_allclose(stated[4] / stated[16], 2, rtol=0.1)


def test_the_same_seed_gives_the_same():
    """The seed determines the draw."""
    model, windows = tiny("lstm")
    first, second, other = (explain_windows(model, windows, 0, ReferenceBaselines(4, seed)).steps for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 0


@pytest.mark.parametrize("count", [-1, 0, 1, 9])
def test_a_count_out_of_range(count):
    """A count below 2, which has no standard error, or above the number of reference windows is refused."""
    model, windows = tiny("head")
    with pytest.raises(DataError) as caught:
        explain_windows(model, windows, 0, ReferenceBaselines(count))
    message = f"must lie between 2 and 8, the number of reference windows, but is {count}"
    assert str(caught.value) == f"baseline.reference {message}"
    assert [(problem.path, problem.message) for problem in caught.value.problems] == [("baseline.reference", message)]
