from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_chain, make_model
from goldens import VARIANTS, load_case
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import model_configs, networks
from thorough import examples

from kanmodel.network.config import plain_layers
from kanmodel.network.layer import KANLayer, pass_layers
from kanmodel.network.network import FrozenLayers, FrozenNetwork, Network, tensor_shapes

SHAPES = ["lstm", "head", "front"]


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def step_lstm(weights, bias, x, state):
    """One step of an LSTM (Hochreiter and Schmidhuber 1997)."""
    hidden, cell = state
    enter, forget, candidate, out = np.split(x @ weights[0].T + bias[0] + hidden @ weights[1].T + bias[1], 4, axis=1)
    cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(candidate)
    return sigmoid(out) * np.tanh(cell), cell


def step_gru(weights, bias, x, state):
    """One step of a GRU (Cho et al. 2014), with torch's reset gate after the hidden weights."""
    hidden, _ = state
    of_x, of_hidden = (
        np.split(values @ w.T + b, 3, axis=1) for values, w, b in zip((x, hidden), weights, bias, strict=True)
    )
    reset, update = sigmoid(of_x[0] + of_hidden[0]), sigmoid(of_x[1] + of_hidden[1])
    new = np.tanh(of_x[2] + reset * of_hidden[2])
    return (1 - update) * new + update * hidden, None


def run_by_hand(module, x):
    """The recurrence step by step in numpy: (batch, steps, n_units)."""
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    step = step_gru if isinstance(module, torch.nn.GRU) else step_lstm

    def run_direction(steps, end):
        weights = [tensors[f"weight_{kind}_{end}"] for kind in ("ih", "hh")]
        bias = [tensors.get(f"bias_{kind}_{end}", np.zeros(len(weights[0]))) for kind in ("ih", "hh")]
        state = (np.zeros((len(steps), module.hidden_size)),) * 2
        outputs = []
        for t in range(steps.shape[1]):
            state = step(weights, bias, steps[:, t], state)
            outputs.append(state[0])
        return np.stack(outputs, axis=1)

    for layer in range(module.num_layers):
        directions = [run_direction(x, f"l{layer}")]
        if module.bidirectional:
            directions.append(run_direction(x[:, ::-1], f"l{layer}_reverse")[:, ::-1])
        x = np.concatenate(directions, axis=2)
    return x


def read_out_by_hand(states, readout):
    return {"last": states[:, -1], "mean": states.mean(axis=1), "flatten": states.reshape(len(states), -1)}[readout]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("readout", ["last", "mean", "flatten"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_readout(num_layers, bidirectional, bias, readout, cell):
    """The head reads the outputs at the last step, their mean or all of them, with both directions concatenated."""
    model = make_model(num_layers=num_layers, bidirectional=bidirectional, bias=bias, readout=readout, cell=cell)
    windows = model.reference.scaled[:8]
    expected = read_out_by_hand(run_by_hand(model.network.recurrent, windows.numpy()), readout)
    np.testing.assert_allclose(model.network.encode(windows), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.frozen.trace(windows).readout, expected, rtol=0, atol=1e-12)


@given(model_configs("float64"), st.integers(0, 99))
def test_a_chain_is_its_parts(config, seed):
    """The chain is the composition of front, cell, readout, head and output function, and so is its trace."""
    model = make_chain(config, seed)
    network, windows = model.network, model.reference.scaled[:3]
    steps = torch.stack([pass_layers(network.front, windows[:, t]) for t in range(config.lookback)], dim=1)
    if network.recurrent is not None:
        steps = torch.from_numpy(run_by_hand(network.recurrent.requires_grad_(False), steps.numpy()))
    readout = torch.from_numpy(read_out_by_hand(steps.numpy(), config.readout))
    logits = pass_layers(network.head, readout)
    functions = {None: lambda v: v, "softmax": lambda v: v.exp() / v.exp().sum(dim=1, keepdim=True)}
    functions |= {"sigmoid": lambda v: 1 / (1 + (-v).exp()), "tanh": torch.tanh}
    expected = functions[config.output_function](logits - (logits.max() if config.output_function == "softmax" else 0))
    outputs, trace = network(windows), network.trace(windows)
    torch.testing.assert_close(outputs, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(trace.logits, logits, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(trace.outputs, outputs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(trace.readout, network.encode(windows), rtol=0, atol=1e-12)
    assert [len(layer.nodes) for layer in trace.front] == [3 * config.lookback] * len(config.front)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-6)])
@pytest.mark.parametrize("name", ["pykan_head", "tiny", *VARIANTS])
def test_golden_predictions(name, dtype, tolerance):
    """An LSTM of any kind with pykan's head has the predictions recorded in training."""
    case = load_case(name, dtype)
    expected = case.expected("predictions")
    difference = case.model.network(case.windows("eval")) - expected
    assert (difference.abs() <= tolerance * expected.abs().clamp_min(1)).all()


def test_golden_predictions_of_synthetic_gt():
    """The model of the synthetic series has the predictions recorded in training."""
    case = load_case("synthetic_gt")
    assert (case.model.network(case.windows("eval")) - case.expected("predictions")).abs().max() < 1e-9


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-6)])
def test_golden_hidden_units(dtype, tolerance):
    """LSTM states, and predictions for windows scaled by five, equal those of the original."""
    case = load_case("pykan_head", dtype)
    windows = case.windows("eval")
    assert (case.model.network.encode(windows) - case.expected("hidden")).abs().max() < tolerance
    large = case.model.network(windows[:16] * 5) - case.expected("predictions_of_eval_times_5")
    assert large.abs().max() < tolerance


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_leaves_nothing_on_the_module(shape):
    """Forward, trace and gradient change no attribute and no number of any module."""
    model = make_model(shape, product=True)

    def everything():
        attributes = [{key: id(value) for key, value in vars(module).items()} for module in model.network.modules()]
        return attributes, [tensor.clone() for tensor in model.network.state_dict().values()]

    attributes, tensors = everything()
    windows = model.reference.scaled[:4].clone().requires_grad_()
    model.network(windows)
    model.network.trace(windows).outputs.sum().backward()
    assert everything()[0] == attributes
    assert all(torch.equal(now, before) for now, before in zip(everything()[1], tensors, strict=True))
    assert all(parameter.grad is None for parameter in model.network.parameters())


@settings(max_examples=examples(60))
@given(model_configs(symbolic=True))
def test_tensor_shapes_by_arithmetic(config):
    """Names and shapes of all tensors are computed without building the network, and all have the config's type."""
    tensors = Network(config).state_dict()
    assert tensor_shapes(config) == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, config.dtype)}


def draw_windows(network, seed, n=5):
    shape = (n, *network.config.window_shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(networks(), st.integers(0, 99))
def test_a_frozen_trace_is_the_trace(network, seed):
    """For any chain, forecasts and traced values are the same, and so are gradients by inputs and sub-nodes.

    This holds with dead, scaled, normalised or fixed parts.
    """
    windows, frozen = draw_windows(network, seed).requires_grad_(), FrozenNetwork(network)
    torch.testing.assert_close(frozen.forward(windows), network(windows), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(frozen.logits(windows), network.logits(windows), rtol=1e-9, atol=1e-9)
    found, expected = frozen.trace(windows), network.trace(windows)
    torch.testing.assert_close(found.outputs, network(windows), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.readout, expected.readout, rtol=1e-9, atol=1e-9)
    layers = [(*trace.front, *trace.head) for trace in (found, expected)]
    for ours, theirs in zip(*layers, strict=True):
        for name in ("inputs", "edges", "subnodes", "nodes"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-9)
    slopes = [gradients(windows, trace, of) for trace, of in zip((found, expected), layers, strict=True)]
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


@given(networks(), st.integers(0, 99))
def test_linearised_passes_have_the_gradients_of_autograd(network, seed):
    """Without autograd values are the same, and so are the gradients by inputs, readout and sub-nodes."""
    windows, frozen = draw_windows(network, seed).requires_grad_(), FrozenNetwork(network)
    expected, (found, pull_back) = frozen.trace(windows), frozen.linearise(windows.detach())
    torch.testing.assert_close(found.outputs, expected.outputs, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        torch.testing.assert_close(ours.edges, theirs.edges, rtol=1e-9, atol=1e-9)
    one = torch.zeros_like(found.outputs)
    one[:, 0] = 1
    ours = pull_back(one)
    watched = gradients(windows, expected, expected.layers)
    for own, theirs in zip((ours.window, *ours.values, *ours.subnodes), watched, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-7, atol=1e-7)


def gradients(windows, trace, layers):
    watched = [windows, trace.readout, *(layer.subnodes for layer in layers)]
    return torch.autograd.grad(trace.outputs[:, 0].sum(), watched, allow_unused=True, materialize_grads=True)


def test_unused_nodes_are_not_computed():
    """A hidden node whose edges are all masked is not computed by the layer before."""
    layers = [KANLayer(config).eval().requires_grad_(False) for config in plain_layers([4, 3, 1])]
    layers[1].mask[:, 1] = 0
    layers[0].mask[0, 3] = layers[0].mask[2, 3] = 0  # only input 3 reaches node 1
    frozen = FrozenLayers(layers)
    x = torch.randn(6, 4)
    assert [layer.inputs.tolist() for layer in frozen.layers] == [[0, 1, 2], [0, 2]]
    torch.testing.assert_close(frozen.forward(x), pass_layers(layers, x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_rounds_to_a_millionth(shape):
    """In float32, forecasts are as close to float64 as the network's own, to a millionth of a sub-node's sum."""
    model = make_model(shape, dtype="float32", product=True)
    exact = Network(replace(model.config, dtype="float64"))
    exact.load_state_dict(model.network.state_dict())
    exact.requires_grad_(False)
    expected = exact.trace(model.reference.scaled.double())
    added = max(float(trace.edges.abs().sum(dim=2).max()) for trace in expected.head)
    windows = model.reference.scaled
    found, plain = (
        (forward(windows) - expected.outputs).abs().max() for forward in (model.frozen.forward, model.network)
    )
    assert found <= plain + 1e-6 * max(added, 1)
