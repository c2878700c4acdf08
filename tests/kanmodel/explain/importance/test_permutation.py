from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_model

from kanmodel.computing import pausing
from kanmodel.data import Feature
from kanmodel.explain import importance as permutation
from kanmodel.explain.importance import (
    MIN_WINDOWS,
    N_PERMUTATIONS,
    measure_importance,
    permute_features,
    plan_permutations,
)
from kanmodel.network.config import RecurrentConfig, plain_layers


@pytest.mark.parametrize("shape", ["lstm", "head", "front"])
def test_a_feature_that_nothing_reads_has_no_effect(shape):
    """The error increases by exactly 0 in every window for a disconnected feature, on average for others."""
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
    """The only feature that is read has a positive effect, all others exactly 0."""
    model = make_model(shape, n_features=3, lookback=4)
    with torch.no_grad():
        for feature in (0, 1):
            cut_off(model.network, feature)
    effect = permute_features(targets_of_its_own(model), 0, seed=0).mean(axis=0)
    np.testing.assert_array_equal(effect[:2], 0)
    assert effect[2] > 0


def test_it_is_the_growth_of_the_error():
    """For exact forecasts, the effect is the mean distance between forecasts before and after."""
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
    """Without targets there is no permutation importance."""
    assert permute_features(make_model("head", with_targets=False), 0, seed=0) is None


def test_a_large_model_has_fewer_permutations_of_fewer_windows():
    """Models of usual size get 3 permutations of all windows, larger ones fewer, down to 64 windows."""
    config = make_model("lstm").config
    plans = [
        plan_permutations(
            replace(
                config,
                features=tuple(Feature(f"x{number}") for number in range(64)),
                lookback=168,
                recurrent=RecurrentConfig("lstm", units),
                head=plain_layers([units, len(config.outputs)]),
            ),
            512,
        )
        for units in (64, 192, 512, 2048)
    ]
    assert [len(windows) for _, windows in plans[:2]] == [512, 512]
    assert plans[0][0] == N_PERMUTATIONS > plans[1][0]
    assert plans[2][0] == plans[3][0] == 1
    assert 512 > len(plans[2][1]) > len(plans[3][1]) == MIN_WINDOWS
    for _, windows in plans:
        assert (windows[0], windows[-1]) == (0, 511)
        gaps = windows.diff()
        assert gaps.max() - gaps.min() <= 1


def test_fewer_windows_have_the_effects_of_those_windows(monkeypatch):
    """Above the budget the effect is that of one permutation of the chosen windows, with its own interval."""
    model = targets_of_its_own(make_model("lstm", n_features=3, lookback=3, n_reference=200))
    with torch.no_grad():
        cut_off(model.network, 1)
    monkeypatch.setattr(permutation, "MULTIPLY_ADDS", 1)
    chosen = plan_permutations(model.config, 200)[1]
    reference = model.reference
    fewer = replace(
        model, reference=replace(reference, windows=reference.windows[chosen], targets=reference.targets[chosen])
    )
    growth = permute_features(model, 0, seed=0)
    assert growth.shape == (MIN_WINDOWS, 3)
    np.testing.assert_array_equal(growth, permute_features(fewer, 0, seed=0))
    np.testing.assert_array_equal(growth[:, 1], 0)
    for row in measure_importance(model, 0).features:
        low, high = row.permutation_interval
        assert row.permutation_mae_increase == pytest.approx(growth[:, int(row.name[1:])].mean())
        assert low <= row.permutation_mae_increase <= high


def test_batches_change_nothing(monkeypatch):
    """The effect does not depend on the batch size, and is exactly 0 for a feature that is not read."""
    model = targets_of_its_own(make_model("lstm", n_features=3, lookback=3))
    with torch.no_grad():
        cut_off(model.network, 1)
    growth = permute_features(model, 0, seed=0)
    monkeypatch.setattr(permutation, "BATCH_BYTES", 1000)
    slices = []
    with pausing(lambda: slices.append(1)):
        in_batches = permute_features(model, 0, seed=0)
    np.testing.assert_allclose(in_batches, growth, atol=1e-12)
    np.testing.assert_array_equal(in_batches[:, 1], 0)
    assert len(slices) > 3 * N_PERMUTATIONS + 1


def cut_off(network, feature):
    """Disconnects a feature from the layer that reads it."""
    if network.front:
        network.front[0].mask[:, feature] = 0
    elif network.recurrent is not None:
        network.recurrent.weight_ih_l0[:, feature] = 0
    else:
        network.head[0].mask[:, feature] = 0


def targets_of_its_own(model):
    """The model with its own forecasts as targets of the reference windows."""
    model = replace(model, reference=model.reference)
    outputs = model.scaling.outputs_to_original(model.reference_outputs)
    return replace(model, reference=replace(model.reference, targets=outputs))
