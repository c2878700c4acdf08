from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel.explain.connectivity import connected_features, live_edges
from kanmodel.explain.importance import measure_importance


def thin_out(model, seed, share):
    """Masks a share of all edges, and cuts some features off from the LSTM."""
    rng = np.random.default_rng(seed)
    network = model.network
    with torch.no_grad():
        for layers in network.stages.values():
            for layer in layers:
                layer.mask[:] = torch.from_numpy((rng.random(layer.mask.shape) > share).astype(float))
        if network.recurrent is not None:
            unread = torch.from_numpy(rng.random(network.recurrent.input_size) < share / 2)
            for name, weight in network.recurrent.named_parameters():
                if name.startswith("weight_ih_l0"):
                    weight[:, unread] = 0


def moved_by(model, feature, output):
    """Whether an output changes when a feature takes other values, at any step of any window."""
    generator = torch.Generator().manual_seed(0)
    windows = model.reference.windows
    other = windows.clone()
    other[:, :, feature] = torch.randn(windows.shape[:2], generator=generator, dtype=windows.dtype)
    before, after = model.network(windows)[:, output], model.network(other)[:, output]
    return not torch.equal(before, after)


@settings(max_examples=examples(60))
@given(
    st.sampled_from(["lstm", "head", "front"]),
    st.integers(0, 2**32 - 1),
    st.floats(0.2, 0.95),
    st.booleans(),
    st.sampled_from(["silu", "zero"]),
)
def test_connected_is_what_moves_the_output(shape, seed, share, product, base_activation):
    """By brute force: a feature that is changed moves an output if and only if it is connected with it."""
    small = {"n_features": 3, "lookback": 3, "hidden_size": 3, "n_reference": 12, "targets": ("a", "b")}
    model = make_model(shape, seed % 50, product=product, base_activation=base_activation, **small)
    thin_out(model, seed, share)
    for output in range(2):
        expected = [moved_by(model, feature, output) for feature in range(3)]
        assert connected_features(model.network, output) == expected


@pytest.mark.parametrize("shape", ["lstm", "head", "front"])
def test_a_random_model_is_connected(shape):
    """Without masks every feature is connected with every output, through both directions of two layers too."""
    model = make_model(shape, n_features=3, num_layers=2, bidirectional=True, targets=("a", "b"))
    assert connected_features(model.network, 0) == connected_features(model.network, 1) == [True] * 3


def test_one_direction_suffices():
    """A feature that only the backward direction of an LSTM reads is connected; one that neither reads is not."""
    model = make_model("lstm", n_features=3, bidirectional=True, readout="mean")
    with torch.no_grad():
        model.network.recurrent.weight_ih_l0[:, :2] = 0
        model.network.recurrent.weight_ih_l0_reverse[:, 0] = 0
    assert connected_features(model.network, 0) == [False, True, True] == [moved_by(model, i, 0) for i in range(3)]


@pytest.mark.parametrize("shape", ["lstm", "head", "front"])
def test_what_is_disconnected_contributes_exactly_0(shape):
    """For whatever is masked, the ledger of a feature without a path is 0 in every window, at every step."""
    seen = 0
    for seed in range(6):
        model = make_model(shape, seed, n_features=4, lookback=3, n_reference=10)
        thin_out(model, seed, 0.6)
        importance = measure_importance(replace(model, reference=model.reference), 0)
        for feature, connected in enumerate(connected_features(model.network, 0)):
            contributions = importance.ledger.steps[:, :, feature]
            assert connected or (contributions == 0).all()
            seen += not connected
    assert seen


@pytest.mark.parametrize("base_activation", ["silu", "zero"])
def test_live_edges(base_activation):
    """An edge lives unless it is masked, or has neither a base nor a spline that is not zero everywhere."""
    model = make_model("head", n_features=4, n_hidden=2, base_activation=base_activation)
    layer = model.network.head[0]
    with torch.no_grad():
        layer.mask[:] = 1
        layer.mask[1, 0] = 0
        layer.scale_spline[0, 1] = 0
        layer.coef[0, 2] = 0
        layer.coef[0, 3] = 0
        if layer.scale_base is not None:
            layer.scale_base[0, 3] = 0
    expected = torch.ones(2, 4, dtype=torch.bool)
    expected[1, 0] = expected[0, 3] = False
    if base_activation == "zero":
        expected[0, 1] = expected[0, 2] = False
    assert torch.equal(live_edges(model.network)["head", 0], expected)
    acts = layer.edges(model.reference.windows[:, 0]).abs().amax(dim=0) > 0
    assert torch.equal(acts, expected)
