import numpy as np
import pytest
import torch
from factories import make_model
from goldens import VARIANTS, load_case
from hypothesis import given, settings
from strategies import model_configs
from thorough import examples

from kanmodel import network
from kanmodel.network import LSTMKAN

SHAPES = ["lstm", "head", "front"]


def run_lstm_by_hand(lstm, x):
    """The recurrence of an LSTM (Hochreiter and Schmidhuber 1997), step by step in numpy: (batch, steps, n_units)."""
    weights = {name: tensor.numpy() for name, tensor in lstm.state_dict().items()}

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    def run_direction(steps, end):
        hidden = cell = np.zeros((len(steps), lstm.hidden_size))
        outputs = []
        for t in range(steps.shape[1]):
            gates = steps[:, t] @ weights[f"weight_ih_{end}"].T + hidden @ weights[f"weight_hh_{end}"].T
            if lstm.bias:
                gates = gates + weights[f"bias_ih_{end}"] + weights[f"bias_hh_{end}"]
            enter, forget, candidate, out = np.split(gates, 4, axis=1)
            cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(candidate)
            hidden = sigmoid(out) * np.tanh(cell)
            outputs.append(hidden)
        return np.stack(outputs, axis=1)

    for layer in range(lstm.num_layers):
        directions = [run_direction(x, f"l{layer}")]
        if lstm.bidirectional:
            directions.append(run_direction(x[:, ::-1], f"l{layer}_reverse")[:, ::-1])
        x = np.concatenate(directions, axis=2)
    return x


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_lstm_readout(num_layers, bidirectional, bias, readout):
    """The head sees the recurrence's output at the last step, or its mean over steps, both directions in a row."""
    model = make_model(num_layers=num_layers, bidirectional=bidirectional, bias=bias, readout=readout)
    windows = model.reference.windows[:8]
    states = run_lstm_by_hand(model.network.lstm, windows.numpy())
    expected = states[:, -1] if readout == "last" else states.mean(axis=1)
    np.testing.assert_allclose(model.network.encode(windows), expected, rtol=0, atol=1e-12)


def test_shape_head_alone():
    """A KAN alone reads the features of the one step."""
    model = make_model("head")
    windows = model.reference.windows
    assert torch.equal(model.network(windows), model.network.head(windows[:, 0]))


def test_shape_front():
    """A front KAN acts on each step's features by itself, and the LSTM reads its outputs."""
    model = make_model("front", bidirectional=True)
    windows = model.reference.windows[:8]
    steps = torch.stack([model.network.front(windows[:, t]) for t in range(windows.shape[1])], dim=1)
    states = run_lstm_by_hand(model.network.lstm, steps.numpy())
    torch.testing.assert_close(model.network.encode(windows), torch.from_numpy(states[:, -1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, {"product": True, "targets": ("a", "b"), "horizon": 2}])
def test_trace_is_forward(shape, options):
    """A trace ends in the outputs, and its parts are those that the stages compute."""
    model = make_model(shape, **options)
    windows = model.reference.windows[:9]
    trace, outputs = model.network.trace(windows), model.network(windows)
    assert outputs.shape == (9, len(model.config.outputs))
    torch.testing.assert_close(trace.outputs, outputs, rtol=0, atol=1e-12)
    torch.testing.assert_close(trace.readout, model.network.encode(windows), rtol=0, atol=1e-12)
    assert len(trace.front) == (model.config.front.depth if model.config.front else 0)
    for layer in trace.front:
        assert len(layer.nodes) == 9 * model.config.lookback


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-6)])
@pytest.mark.parametrize("name", ["pykan_head", "tiny", *VARIANTS])
def test_golden_predictions(name, dtype, tolerance):
    """An LSTM of any kind with pykan's head predicts what it predicted where it was trained."""
    case = load_case(name, dtype)
    expected = case.expected("predictions")
    difference = case.model.network(case.windows("eval")) - expected
    assert (difference.abs() <= tolerance * expected.abs().clamp_min(1)).all()


def test_golden_predictions_of_synthetic_gt():
    """The model of the synthetic series predicts what it predicted where it was trained."""
    case = load_case("synthetic_gt")
    assert (case.model.network(case.windows("eval")) - case.expected("predictions")).abs().max() < 1e-9


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-6)])
def test_golden_hidden_units(dtype, tolerance):
    """The LSTM's units, and predictions for windows five times as large, are those of the original."""
    case = load_case("pykan_head", dtype)
    windows = case.windows("eval")
    assert (case.model.network.encode(windows) - case.expected("hidden")).abs().max() < tolerance
    large = case.model.network(windows[:16] * 5) - case.expected("predictions_of_eval_times_5")
    assert large.abs().max() < tolerance


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_leaves_nothing_on_the_module(shape):
    """After a forward, a trace and a gradient every module has the attributes and the numbers that it had before."""
    model = make_model(shape, product=True)

    def everything():
        attributes = [{key: id(value) for key, value in vars(module).items()} for module in model.network.modules()]
        return attributes, [tensor.clone() for tensor in model.network.state_dict().values()]

    attributes, tensors = everything()
    windows = model.reference.windows[:4].clone().requires_grad_()
    model.network(windows)
    model.network.trace(windows).outputs.sum().backward()
    assert everything()[0] == attributes
    assert all(torch.equal(now, before) for now, before in zip(everything()[1], tensors, strict=True))
    assert all(parameter.grad is None for parameter in model.network.parameters())


@settings(max_examples=examples(60))
@given(model_configs())
def test_tensor_shapes_by_arithmetic(config):
    """Names and shapes of all tensors are known without making the network, and all have the config's type."""
    tensors = LSTMKAN(config).state_dict()
    assert network.tensor_shapes(config) == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, config.dtype)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, {"product": True, "num_layers": 2, "bidirectional": True, "bias": False}])
def test_tensor_shapes_of_the_factories(shape, options):
    """The tiny models of these tests have the shapes that their configs imply."""
    model = make_model(shape, **options)
    tensors = model.network.state_dict()
    assert network.tensor_shapes(model.config) == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
