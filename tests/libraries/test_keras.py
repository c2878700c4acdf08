"""Keras on torch: its layers are no modules of their models, but are found where they are called."""

import os

import numpy as np
import torch

import kanmodel

os.environ["KERAS_BACKEND"] = "torch"
import keras
import tkan

FEATURES, LOOKBACK = ["a", "b", "c"], 6
WINDOWS = np.random.default_rng(0).standard_normal((60, LOOKBACK, 3)).cumsum(axis=1)


def forecast(net, windows):
    """The forecasts of a model of Keras, (n, n_outputs)."""
    with torch.no_grad():
        return net(torch.from_numpy(windows).float()).double().numpy()


def test_the_kans_of_tkan_are_layers():
    """One KAN in a loop, with the norm that it begins with; the forecasts are Keras' own, its model is unchanged."""
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.layers.Input((LOOKBACK, 3)), tkan.TKAN(4), keras.layers.Dense(2)])
    model = kanmodel.from_torch(net, windows=WINDOWS, features=FEATURES)
    assert not any("forward" in vars(layer) for layer in net._flatten_layers())
    assert model.provenance.unused == () and model.provenance.library.startswith("efficient-kan")
    assert [(loop.steps, loop.n_layers) for loop in model.config.loops] == [(LOOKBACK, 1)]
    (kan,) = (layer for layer in model.config.head if layer.basis.kind == "bspline")
    assert [step.kind for step in kan.before] == ["layer_norm"]
    windows = 2 * np.random.default_rng(1).standard_normal((30, LOOKBACK, 3)).cumsum(axis=1)
    expected = forecast(net, windows)
    np.testing.assert_allclose(model.predict(windows), expected, rtol=0, atol=1e-5 * expected.std())
    assert model.explain(windows[:2]).converged.all()


def test_a_state_dict_with_a_kan(tmp_path):
    """A file of weights, with the predictions, is read as a chain."""
    from keras_efficient_kan import KANLinear

    keras.utils.set_random_seed(0)
    kan = KANLinear(4, grid_size=4, base_activation="silu")
    net = keras.Sequential([keras.layers.Input((LOOKBACK, 3)), keras.layers.Flatten(), kan, keras.layers.Dense(2)])
    torch.save(net.state_dict(), tmp_path / "m.pt")
    expected = forecast(net, WINDOWS)
    model = kanmodel.from_file(tmp_path / "m.pt", windows=WINDOWS, predictions=expected, features=FEATURES)
    assert not model.config.graph and model.provenance.unused == ()
    np.testing.assert_allclose(model.predict(WINDOWS), expected, rtol=0, atol=1e-5 * expected.std())
