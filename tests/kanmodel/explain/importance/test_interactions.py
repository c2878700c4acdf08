from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch
from factories import PROVENANCE, make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel.checkpoint import LoadedModel, Reference
from kanmodel.data import Feature, Target
from kanmodel.explain.effects import measure_interactions
from kanmodel.explain.importance import measure_importance
from kanmodel.network.bases import BSpline
from kanmodel.network.chain import Network
from kanmodel.network.config import ModelConfig, plain_layers


@cache
def tiny(shape, **options):
    return make_model(shape, **{"n_features": 3, "lookback": 3, "n_reference": 60} | options)


def kan_alone(config, seed, change):
    """A KAN alone with this config, features in their own units, modified by `change`."""
    rng = np.random.default_rng(seed)
    n = config[0].n_in
    features = tuple(Feature(f"x{i}", None, float(rng.normal()), float(rng.uniform(0.5, 3))) for i in range(n))
    whole = ModelConfig(features, (Target("y", "K", 2.0, 3.0),), 1, 1, config, dtype="float64")
    network = Network(whole, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        change(network.head)
    windows = torch.from_numpy(rng.normal(size=(200, 1, n)))
    return LoadedModel(network, Reference(windows), {}, PROVENANCE)


@settings(max_examples=examples(20))
@given(st.integers(0, 1000), st.integers(2, 6))
def test_an_additive_model_has_none(seed, n_features):
    """In a KAN without hidden layer no features interact: every strength is 0 up to rounding."""
    config = plain_layers([n_features, 1])
    model = kan_alone(config, seed, lambda head: head[0].coef.mul_(10))
    found = measure_interactions(model, 0).pairs
    assert len(found) == min(n_features * (n_features - 1) // 2, 10)
    for interaction in found:
        assert interaction.strength < 1e-12
        assert max(interaction.interval) < 1e-12


def multiply(head):
    """Makes a head with one product node: x0 times x1, with x2 added to the first factor's output."""
    for layer in head:
        layer.mask[:] = 0
        layer.scale_base[:] = 1
        layer.scale_spline[:] = 0
    head[0].mask[0, 2] = 1  # the sum node is x2
    head[0].mask[1, 0] = head[0].mask[2, 1] = 1  # the factors are x0 and x1
    head[1].mask[:] = 1


@settings(max_examples=examples(20))
@given(st.integers(0, 1000))
def test_a_product(seed):
    """For x0 x1 + x2 the strength of x0 and x1 is mean |(x0 - m0)(x1 - m1)|, and x2 has none."""
    config = plain_layers([3, (1, 1), 1], BSpline(3), base="identity")
    model = kan_alone(config, seed, multiply)
    x = model.reference.windows[:, 0].numpy()
    exact = 3.0 * np.abs((x[:, 0] - x[:, 0].mean()) * (x[:, 1] - x[:, 1].mean())).mean()  # 3: the target's scale
    found = {frozenset(pair.features): pair for pair in measure_interactions(model, 0).pairs}
    together = found[frozenset({"x0", "x1"})]
    assert together.strength == pytest.approx(exact)
    assert together.interval[0] < exact < together.interval[1]
    assert found[frozenset({"x0", "x2"})].strength < 1e-12
    assert found[frozenset({"x1", "x2"})].strength < 1e-12


@pytest.mark.parametrize("shape", ["lstm", "head", "front"])
def test_it_is_the_second_difference(shape):
    """Every strength follows from four forecasts, with the mean in place of an absent feature at all steps."""
    model = tiny(shape)
    windows = model.scaling.features_to_original(model.reference.windows)

    def forecast(*gone):
        changed = windows.copy()
        changed[:, :, list(gone)] = model.reference_mean[list(gone)]
        return model.predict(changed)[:, 0]

    found = measure_interactions(model, 0).pairs
    names = model.config.feature_names
    assert {frozenset(pair.features) for pair in found} == {frozenset(pair) for pair in combinations(names, 2)}
    for pair in found:
        i, j = (names.index(name) for name in pair.features)
        expected = np.abs(forecast() - forecast(i) - forecast(j) + forecast(i, j)).mean()
        assert pair.strength == pytest.approx(expected)
        assert pair.interval[0] <= pair.strength <= pair.interval[1]
    assert [pair.strength for pair in found] == sorted((pair.strength for pair in found), reverse=True)


def product_of(n_features, i, j, scale=1.0):
    """A KAN that adds n features, and multiplies x_i and x_j."""

    def change(head):
        for layer in head:
            layer.mask[:] = 0
            layer.scale_base[:] = 1
            layer.scale_spline[:] = 0
        head[0].mask[0] = 1
        head[0].mask[1, i] = head[0].mask[2, j] = 1
        head[1].mask[:] = 1
        head[1].scale_base[0, 1] = scale

    return kan_alone(plain_layers([n_features, (1, 1), 1], BSpline(3), base="identity"), 0, change)


@pytest.mark.parametrize("n_features", [8, 20, 40])
def test_pairs_are_taken_from_all_features(n_features):
    """The only interacting pair is found among any number of features, even if both have the lowest importance."""
    i, j = n_features - 3, n_features - 1
    model = product_of(n_features, i, j, scale=0.01)
    with torch.no_grad():
        model.network.head[0].scale_base[0, [i, j]] = 1e-3
    model = replace(model, reference=model.reference)
    importance = measure_importance(model, 0)
    assert set(np.argsort(importance.nodes["input", 0].value)[:2]) == {i, j}
    found = measure_interactions(model, 0)
    assert len(found.pairs) == 10
    assert found.pairs[0].features == (f"x{i}", f"x{j}")
    assert found.pairs[0].strength > 1e6 * found.pairs[1].strength


@pytest.mark.parametrize(("n_features", "pairs"), [(1, 0), (2, 1), (5, 10), (24, 276), (25, 276), (100, 276)])
def test_the_cost_is_bounded(n_features, pairs):
    """For any number of features at most 276 pairs are screened, on 64 windows, and 10 are measured."""
    model = make_model("head", n_features=n_features, n_reference=70)
    calls = []
    model.network.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    found = measure_interactions(model, 0)
    assert (found.n_features, found.n_screened, found.screening_windows) == (n_features, pairs, 64)
    assert len(found.pairs) == min(10, pairs)
    assert sum(calls) <= 64 * (3 * n_features + pairs + 1) + 70 * 31


def test_correlation_is_not_interaction():
    """Two identical features have no strength if the model adds them."""
    model = kan_alone(plain_layers([2, 1]), 0, lambda head: None)
    windows = model.reference.windows.clone()
    windows[:, :, 1] = windows[:, :, 0]
    model = replace(model, reference=replace(model.reference, windows=windows))
    (pair,) = measure_interactions(model, 0).pairs
    assert pair.strength < 1e-12


def test_one_feature_has_no_pair():
    """With a single feature there are no pairs."""
    model = make_model("head", n_features=1, n_reference=20)
    assert measure_interactions(model, 0).pairs == ()
