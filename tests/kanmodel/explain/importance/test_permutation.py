from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_model

from kanmodel.explain.importance.permutation import permute_features


@pytest.mark.parametrize("shape", ["lstm", "head", "front"])
def test_a_feature_that_nothing_reads_has_no_effect(shape):
    """The error grows by exactly 0 in every window for a feature that is cut off, and on average for others."""
    model = make_model(shape, n_features=3, lookback=4)
    with torch.no_grad():
        cut_off(model.network, 1)
    model = targets_of_its_own(model)
    growth = permute_features(model, 0, seed=0)
    assert growth.shape == (len(model.reference.windows), 3)
    np.testing.assert_array_equal(growth[:, 1], 0)
    assert growth[:, 0].mean() > 0
    assert growth[:, 2].mean() > 0


@pytest.mark.parametrize("shape", ["lstm", "head", "front"])
def test_the_only_feature_that_is_read(shape):
    """Where one feature alone is read, its effect is positive and that of all others exactly 0."""
    model = make_model(shape, n_features=3, lookback=4)
    with torch.no_grad():
        for feature in (0, 1):
            cut_off(model.network, feature)
    effect = permute_features(targets_of_its_own(model), 0, seed=0).mean(axis=0)
    np.testing.assert_array_equal(effect[:2], 0)
    assert effect[2] > 0


def test_it_is_the_growth_of_the_error():
    """With forecasts that are right, the effect is the mean distance between forecasts before and after."""
    model = targets_of_its_own(make_model("lstm", n_features=2, lookback=3))
    growth = permute_features(model, 0, seed=4)
    windows, targets = model.reference.windows, model.reference.targets[:, 0]
    for feature in range(2):
        generator = np.random.default_rng([4, feature])
        expected = np.zeros(len(windows))
        for _ in range(3):
            permuted = windows.clone()
            permuted[:, :, feature] = windows[generator.permutation(len(windows)).tolist(), :, feature]
            expected += np.abs(model.scaling.outputs_to_original(model.network(permuted))[:, 0] - targets) / 3
        np.testing.assert_allclose(growth[:, feature], expected, atol=1e-9)


def test_unknown_targets_have_no_errors():
    """Without targets there is no effect to tell."""
    assert permute_features(make_model("head", with_targets=False), 0, seed=0) is None


def cut_off(network, feature):
    """Takes a feature out of the layer that reads it."""
    if network.front:
        network.front[0].mask[:, feature] = 0
    elif network.recurrent is not None:
        network.recurrent.weight_ih_l0[:, feature] = 0
    else:
        network.head[0].mask[:, feature] = 0


def targets_of_its_own(model):
    """The model with its own forecasts as the targets of the reference windows."""
    model = replace(model, reference=model.reference)
    outputs = model.scaling.outputs_to_original(model.reference_outputs)
    return replace(model, reference=replace(model.reference, targets=outputs))
