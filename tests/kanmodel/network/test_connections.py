from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel.attribution.ledger import explain_windows
from kanmodel.network.config import LayerConfig, ModelConfig, SymbolicEdge
from kanmodel.network.connections import connected_features
from kanmodel.network.network import Network
from kanmodel.structure.importance import measure_importance
from kanmodel.tables.columns import Feature, Target


def thin_out(model, seed, share):
    """Masks a share of all edges, and disconnects some features from the LSTM."""
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
    """Whether an output changes when a feature changes, at any step of any window."""
    generator = torch.Generator().manual_seed(0)
    windows = model.reference.scaled
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
def test_connected_features_change_the_output(shape, seed, share, product, base_activation):
    """By brute force, changing a feature changes an output if and only if they are connected."""
    small = {"n_features": 3, "lookback": 3, "hidden_size": 3, "n_reference": 12, "targets": ("a", "b")}
    model = make_model(shape, seed % 50, product=product, base_activation=base_activation, **small)
    thin_out(model, seed, share)
    for output in range(2):
        expected = [moved_by(model, feature, output) for feature in range(3)]
        assert connected_features(model.network, output) == expected


@pytest.mark.parametrize("shape", ["lstm", "head", "front"])
def test_a_random_model_is_connected(shape):
    """Without masks every feature is connected with every output, also for two bidirectional layers."""
    model = make_model(shape, n_features=3, num_layers=2, bidirectional=True, targets=("a", "b"))
    assert connected_features(model.network, 0) == connected_features(model.network, 1) == [True] * 3


def test_one_direction_suffices():
    """A feature that only the backward LSTM reads is connected; one that neither direction reads is not."""
    model = make_model("lstm", n_features=3, bidirectional=True, readout="mean")
    with torch.no_grad():
        model.network.recurrent.weight_ih_l0[:, :2] = 0
        model.network.recurrent.weight_ih_l0_reverse[:, 0] = 0
    assert connected_features(model.network, 0) == [False, True, True] == [moved_by(model, i, 0) for i in range(3)]


@pytest.mark.parametrize("base_activation", ["silu", "zero"])
def test_live_edges(base_activation):
    """An edge is live unless it is masked, or its base and its spline are zero everywhere."""
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
    assert torch.equal(model.network.head[0].varies, expected)
    acts = layer.edges(model.reference.scaled[:, 0]).abs().amax(dim=0) > 0
    assert torch.equal(acts, expected)


def zero_some(model, seed, share):
    """Sets random scales, biases, coefficients and LSTM weights to 0: rows, columns or entries of tensors."""
    rng = np.random.default_rng(seed)

    def drop(tensor, *axes):
        """Sets entries to 0; those that differ only along these axes are set together."""
        shape = [1 if axis in axes else n for axis, n in enumerate(tensor.shape)]
        tensor *= torch.from_numpy(rng.random(shape) > share)

    with torch.no_grad():
        for layers in model.network.stages.values():
            for layer in layers:
                for tensor in (layer.scale_base, layer.scale_spline, layer.subnode_scale, layer.node_scale, layer.mask):
                    drop(tensor)
                for bias in (layer.subnode_bias, layer.node_bias):
                    drop(bias)
                drop(layer.coef, 2)
                drop(layer.mask, 1)
        if model.network.recurrent is not None:
            for weight in model.network.recurrent.parameters():
                gates = weight.unflatten(0, (4, -1))
                for axes in [(0, 1), (1, 2), (2,)] if weight.ndim > 1 else [(), (1,)]:
                    drop(gates, *axes)


@settings(max_examples=examples(40))
@given(
    st.sampled_from(["lstm", "head", "front"]),
    st.integers(0, 2**32 - 1),
    st.floats(0.05, 0.5),
    st.sampled_from(["last", "mean"]),
    st.integers(1, 3),
    st.booleans(),
)
def test_disconnected_features_change_nothing(shape, seed, share, readout, lookback, two):
    """For any zero weights, changing a disconnected feature leaves every forecast bitwise the same."""
    small = {"n_features": 4, "hidden_size": 3, "n_reference": 6, "targets": ("a", "b"), "product": True}
    small |= {"readout": readout, "lookback": lookback, "num_layers": 1 + two, "bidirectional": seed % 2 == 0}
    model = make_model(shape, seed % 50, **small)
    zero_some(model, seed, share)
    model = replace(model, reference=model.reference)
    windows = model.reference.scaled
    generator = torch.Generator().manual_seed(seed % 1000)
    networks = (model.network.forward, model.frozen.forward)
    before = [network(windows) for network in networks]
    for output in range(2):
        still = np.flatnonzero(~np.array(connected_features(model.network, output)))
        for feature in still.tolist():
            for size in (1, 1e3, 1e6):
                other = windows.clone()
                other[:, :, feature] = size * torch.randn(windows.shape[:2], generator=generator, dtype=windows.dtype)
                for network, outputs in zip(networks, before, strict=True):
                    assert torch.equal(network(other)[:, output], outputs[:, output])
        if still.size:
            assert (explain_windows(model, windows, output).steps[:, :, still] == 0).all()


def disconnect(model, where):
    """Removes all paths from the first feature or unit at one place of a model with a product of two factors."""
    head, lstm = model.network.head, model.network.recurrent
    first, last = head[0], head[1]
    with torch.no_grad():
        match where:
            case "subnode_scale":
                first.subnode_scale[:] = 0
            case "node_scale":
                first.node_scale[:] = 0
            case "scales":
                first.scale_base[:, 0] = first.scale_spline[:, 0] = 0
            case "coef":
                first.scale_base[:, 0] = first.coef[:, 0] = 0
            case "output":
                last.subnode_scale[:] = 0
            case "product":  # sum nodes lead nowhere, and a factor of each product is 0
                last.mask[:, : first.config.n_sum] = 0
                for factor in (first.config.n_sum, first.config.n_sum + 2):
                    first.subnode_scale[factor] = first.subnode_bias[factor] = 0
            case "empty factor":
                last.mask[:, : first.config.n_sum] = 0
                for factor in (first.config.n_sum + 1, first.config.n_sum + 4):
                    first.mask[factor] = first.subnode_bias[factor] = 0
            case "candidate":
                for parameter in lstm.parameters():
                    parameter.unflatten(0, (4, -1))[2] = 0
            case "units":  # only unit 0 reads the feature, and nothing reads unit 0
                lstm.weight_ih_l0.unflatten(0, (4, -1))[:, 1:, 0] = 0
                lstm.weight_hh_l0[:, 0] = 0
                first.mask[:, 0] = 0


@pytest.mark.parametrize(
    ("shape", "where"),
    [
        ("head", place)
        for place in ("subnode_scale", "node_scale", "scales", "coef", "output", "product", "empty factor")
    ]
    + [("lstm", place) for place in ("subnode_scale", "product", "candidate", "units")]
    + [("front", place) for place in ("node_scale", "empty factor", "candidate")],
)
def test_zero_weights_disconnect(shape, where):
    """A feature all of whose paths pass through a zero is disconnected, wherever the zero is."""
    model = make_model(shape, n_features=3, lookback=3, product=True, n_reference=20)
    for layer in model.network.head:
        layer.mask[:] = 1
    assert connected_features(model.network, 0)[0]
    disconnect(model, where)
    assert not connected_features(model.network, 0)[0]
    assert not moved_by(model, 0, 0)
    importance = measure_importance(replace(model, reference=model.reference), 0)
    assert (importance.contributions[:, 0] == 0).all()
    assert (importance.nodes["input", 0].value[0], importance.nodes["input", 0].bounds(0)) == (0, (0, 0))


@pytest.mark.parametrize("where", ["product", "empty factor"])
def test_a_factor_with_a_bias_does_not_vanish(where):
    """A product whose zero factor has a bias still depends on its other factors."""
    model = make_model("head", n_features=3, product=True, n_reference=20)
    for layer in model.network.head:
        layer.mask[:] = 1
    disconnect(model, where)
    with torch.no_grad():
        model.network.head[0].subnode_bias[:] = 0.5
    assert connected_features(model.network, 0)[0]
    assert moved_by(model, 0, 0)


def test_one_step_has_nothing_to_forget():
    """A feature that only the forget gates read is disconnected with one step, and connected with two."""
    for lookback in (1, 2):
        model = make_model("lstm", n_features=3, lookback=lookback, n_reference=20)
        with torch.no_grad():
            model.network.recurrent.weight_ih_l0.unflatten(0, (4, -1))[[0, 2, 3], :, 0] = 0
        assert connected_features(model.network, 0)[0] == moved_by(model, 0, 0) == (lookback > 1)


def test_a_constant_function_disconnects():
    """An edge with a fixed function is constant if its factor a or c is 0, and then no path passes through it."""
    for affine, varies in (([1.0, 0.0, 1.0, 0.5], True), ([0.0, 0.3, 1.0, 0.5], False), ([1.0, 0.0, 0.0, 0.5], False)):
        head = (LayerConfig(1, 1, symbolic=(SymbolicEdge(0, 0, "sin"),)),)
        network = Network(ModelConfig((Feature("x"),), (Target("y"),), 1, 1, head))
        with torch.no_grad():
            network.head[0].mask[:] = 0
            network.head[0].symbolic_affine[:] = torch.tensor(affine)
        assert connected_features(network, 0) == [varies]
