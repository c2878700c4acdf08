"""Layers of further libraries, RNNs and loops over cells, from files that the libraries wrote."""

import importlib
import subprocess
import sys
from contextlib import suppress
from functools import cache
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import kan
import numpy as np
import pytest
import torch
from glue_layers import KANLinear
from goldens import FOLDER
from thorough import few_of
from torch import nn

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.errors import CheckpointError
from kanmodel.importers.files.exported import open_file
from kanmodel.importers.files.manifest import ModelSpec
from kanmodel.importers.files.source import Source
from kanmodel.importers.from_file import describe_file, from_file
from kanmodel.importers.from_torch import from_torch, read_live
from kanmodel.importers.search.samples import state_call
from kanmodel.importers.search.structure import find_structure
from kanmodel.importers.tracing.leaves import N_PROBES
from kanmodel.onnx.export import export_onnx

LEAVES = FOLDER / "import" / "leaves"
ARRAYS = np.load(LEAVES / "windows.npz")
WINDOWS, FEATURES = ARRAYS["windows"], ["a", "b", "c"]
LIBRARIES = {
    "pykan_layer": "pykan, readout last, base silu",
    "flashkan": "flashkan, readout last, base silu",
    "flashkan_order2": "flashkan, readout last, base silu",
    "inkan": "inkan, readout last, base silu",
    "kanx": "kanx, readout last, base tanh",
    "torchkan": "torchkan, readout last, base gelu",
    "jacobikan": "JacobiKAN, readout last, parameter 1",
    "legendrekan": "LegendreKAN, readout last",
    "hermitekan": "HermiteKAN, readout last",
    "besselkan": "BesselKAN, readout last",
    "cheby2kan": "Cheby2KAN, readout last",
    "fibonaccikan": "FibonacciKAN, readout last",
    "lucaskan": "LucasKAN, readout last",
    "laguerrekan": "LaguerreKAN, readout last, parameter 2",
    "gegenbauerkan": "GegenbauerKAN, readout last, parameter 3",
    "unikan_shifted_softplus": "unikan, readout last, lshifted_softplus",
    "unikan_arctan": "unikan, readout last, larctan",
    "unikan_sin": "unikan, readout last, lsin",
    "keras_lstm": "torch, readout last",
    "keras_gru": "torch, readout last",
    "keras_rnn": "torch, relu before sequential_3.dense_4, readout last",
    "lstm_cell": "torch, readout last",
    "gru_cell": "torch, readout last",
    "rnn": "torch, readout last",
    "rnn_2_bi": "torch, readout last",
    "rnn_cell": "torch, readout last",
}
FEW = ["keras_gru", "pykan_layer", "inkan", "kanx", "torchkan", "jacobikan", "unikan_shifted_softplus", "lstm_cell"]
FEW += ["rnn_2_bi"]
EVERY = pytest.mark.parametrize("name", few_of(LIBRARIES, FEW, "the same with the layers of further libraries"))


def read_file(path, predictions):
    return from_file(path, windows=WINDOWS, predictions=predictions, features=FEATURES)


@cache
def read(name):
    return read_file(LEAVES / f"{name}.pt", ARRAYS[name])


def read_changed(folder, name, change, predictions=None):
    """The result of reading a file with changed or further tensors."""
    torch.save(load(name) | change, folder / "m.pt")
    return read_file(folder / "m.pt", ARRAYS[name] if predictions is None else predictions)


def read_live_module(module):
    return from_torch(module, windows=WINDOWS, features=FEATURES)


def load(name):
    return torch.load(LEAVES / f"{name}.pt", weights_only=True)


def find_parts_of(module):
    """The parts of a live module, as those of a file that keeps its modules."""
    tree = read_live(module)
    return find_structure(Source("m.pt", tree.state_dict(), tree), state_call(FEATURES, None, None, None, None, (), ()))


class Forecaster(nn.Module):
    """An LSTM and a head that reads its last step."""

    def __init__(self, head):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 5, batch_first=True), head

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


@EVERY
def test_files_of_further_libraries(name, tmp_path):
    """A file is read as its library computes it, to 1e-4 of the spread, as are its checkpoint and ONNX graph."""
    model = read(name)
    assert model.provenance.library.startswith(f"{LIBRARIES[name]}, read by")
    assert model.provenance.verified and model.provenance.relative_difference < 1e-4
    save_checkpoint(model, tmp_path / "m.safetensors")
    np.testing.assert_array_equal(load_checkpoint(tmp_path / "m.safetensors").predict(WINDOWS), model.predict(WINDOWS))
    assert describe_file(LEAVES / f"{name}.pt").unknown == ()
    assert export_onnx(model, tmp_path / "m.onnx").relative_difference < 1e-4


def heads():
    """Heads of the libraries that the tests install, with the dtype in which their own rounding is small."""
    flashkan, inkan, kan = (importlib.import_module(name) for name in ("flashkan", "inkan", "kan"))

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = kan.KANLayer(5, 4, num=4), kan.KANLayer(4, 2, num=3)

        def forward(self, x):
            return self.two(self.one(x)[0])[0]

    return {
        "pykan_layer": (Bare(), torch.float32),
        "flashkan": (flashkan.KANNetwork([5, 4, 2], grid_size=4), torch.float64),
        "inkan": (inkan.KANNetwork([5, 4, 2], grid_size=4, compile_basis=False), torch.float32),
    }


@pytest.mark.parametrize("name", few_of(["pykan_layer", "flashkan", "inkan"], {"pykan_layer"}, "with other libraries"))
def test_live_modules_of_further_libraries(name, monkeypatch):
    """A live module gives the model of its file, whose base function it states."""
    flashkan = importlib.import_module("flashkan")
    monkeypatch.setattr(flashkan.layer, "bspline_basis", flashkan.basis.bspline_basis_eager)  # else it is compiled
    head, dtype = heads()[name]
    module = Forecaster(head)
    module.load_state_dict(load(name))
    model = read_live_module(module.to(dtype))
    assert {layer.base for layer in model.config.head} == {"silu"}
    np.testing.assert_allclose(model.predict(WINDOWS), read(name).predict(WINDOWS), rtol=0, atol=1e-5)


class Loop(nn.Module):
    """A loop over a cell, from a state of zeros or another."""

    def __init__(self, cell, start=0.0):
        super().__init__()
        self.cell, self.fc, self.start = cell, nn.Linear(5, 2), start

    def forward(self, x):
        state = x.new_full((len(x), 5), self.start)
        both = isinstance(self.cell, nn.LSTMCell)
        state = (state, state) if both else state
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.fc(state[0] if both else state)


@pytest.mark.parametrize(("name", "cell"), [("lstm_cell", nn.LSTMCell), ("gru_cell", nn.GRUCell)])
def test_loops_over_a_cell(name, cell):
    """A loop over a cell is read as an LSTM or a GRU; one that starts elsewhere is a graph."""
    module = Loop(cell(3, 5))
    module.load_state_dict(load(name))
    model = read_live_module(module)
    np.testing.assert_array_equal(model.predict(WINDOWS), read(name).predict(WINDOWS))
    assert model.config.recurrent == read(name).config.recurrent
    module.start = 0.5
    assert read_live_module(module).config.graph


def test_gates_of_an_rnn_are_open():
    """An RNN with tanh is a GRU whose gates no input acts on, in value and gradient; one with relu is a graph."""
    module = Forecaster(nn.Sequential(nn.Linear(5, 2)))
    module.lstm = nn.RNN(3, 5, batch_first=True)
    module.load_state_dict(load("rnn"))
    module, x = module.double(), torch.from_numpy(WINDOWS[:8]).double()
    model = read_live_module(module)
    gradients = []
    for network in (module, model.network):
        of = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(network(of)[:, 0].sum(), of)[0])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
    module.lstm = nn.RNN(3, 5, batch_first=True, nonlinearity="relu").double()
    assert read_live_module(module).config.graph
    with pytest.raises(CheckpointError, match="has an RNN with relu at 'lstm'"):
        find_parts_of(module)


def skan(function=None, **attributes):
    """A module with the keys of a unikan layer."""
    module, nodes = nn.Module(), nn.Module()
    nodes.weight = nn.ParameterList([nn.Parameter(torch.randn(2, 6))])
    vars(nodes).update({"function": function} if function else {}, **attributes)
    module.nodes = nn.ModuleList([nodes])
    module.forward = lambda x: (nodes.weight[0] * torch.cat([x, torch.ones_like(x[:, :1])], 1)[:, None]).sum(2)
    return module


REFUSALS = {  # a file, the shapes of changed and further tensors, and the reason
    "a surface of inkan": (
        "inkan",
        {"head.layers.0.weight": (4, 51)},
        "inkan with a function of two inputs on each edge",
    ),
    "KAL_Net": ("torchkan", {"head.0.poly_weights.0": (4, 20)}, "KAL_Net of torchkan, which scales its inputs by"),
    "pykan 0.0": ("pykan_layer", {"head.one.scale_sp": (20,)}, "a bare KANLayer of pykan 0.0, whose flat tensors do"),
    "too few splines": (
        "flashkan",
        {"head.layers.0.grid_starts": (2,), "head.layers.0.spline_weight": (4, 5, 2)},
        "has 2 coefficients on 6 knots",
    ),
    "unikan's k": (
        "unikan_sin",
        {"head.layers.0.nodes.0.weight.1": (4, 6)},
        "functions of several parameters of unik",
    ),
    "an RNN of unequal tensors": (
        "rnn",
        {"lstm.weight_ih_l0": (5, 3), "lstm.weight_hh_l0": (5, 5), "lstm.bias_ih_l0": ()},
        r"lstm.bias_ih_l0 of shape \[\]",
    ),
    "TKAN": ("keras_lstm", {"_torch_params.x/tkan/tkan_cell/sub_tkan_kernel": (1, 6)}, "it is of a TKAN cell"),
    **{
        layer: ("keras_lstm", {f"_torch_params.x/{layer}": shape}, "a layer of Keras that is not read")
        for layer, shape in [
            ("batch_normalization/beta", (5,)),
            ("lstm_9/lstm_cell/kernel", ()),
            ("gru_9/gru_cell/recurrent_kernel", (2, 2, 2)),
        ]
    },
}


@pytest.mark.parametrize("case", REFUSALS)
def test_variants_that_are_refused(case, tmp_path):
    """A variant that is no sum of functions of one input, or that does not fit, is refused by its name."""
    name, shapes, message = REFUSALS[case]
    with pytest.raises(CheckpointError, match=message):
        change = {key: torch.ones(shape) for key, shape in shapes.items()}
        read_changed(tmp_path, name, change, ARRAYS[name] + name.startswith("keras"))


def lelu(x, k):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"function": lelu}, "has the function lelu of unikan"),
        ({"node_type": "mul"}, "has products of edges or functions of several"),
    ],
)
def test_functions_of_unikan_that_are_refused(options, message):
    """A function or a product that is not read is named."""
    with pytest.raises(CheckpointError, match=message):
        find_parts_of(Forecaster(skan(**options)))


@pytest.mark.parametrize("change", ["degree", "parameter", "edges", "scalar"])
def test_sizes_that_would_cost_too_much_are_refused(change):
    """Polynomials of a huge degree or parameter, millions of fixed edges, and tensors without axes are refused."""
    module = nn.Module()
    name, shape = {"edges": ("nodes", ()), "scalar": ("grid_starts", ())}.get(change, ("jacobi_coeffs", (2, 2, 100)))
    module.register_parameter(name, nn.Parameter(torch.zeros(shape if change != "parameter" else (2, 2, 3))))
    if change == "parameter":
        module.a = float("nan")
    if change == "edges":
        module = skan()
        module.nodes[0].weight[0] = nn.Parameter(torch.zeros(200, 300))
    module.forward = lambda x: x + sum(parameter.sum() for parameter in module.parameters())
    with pytest.raises(CheckpointError, match=r"polynomials of degree|59800 edges of unikan|which should have 1 axes"):
        find_parts_of(Forecaster(module))


def test_an_rnn_that_lacks_a_bias_is_refused(tmp_path):
    """As an LSTM is."""
    tensors = load("rnn")
    del tensors["lstm.bias_hh_l0"]
    torch.save(tensors, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"lacks lstm\.bias_hh_l0"):
        read_file(tmp_path / "m.pt", ARRAYS["rnn"])


def test_rnns_without_biases():
    """An RNN without biases is read as a GRU, which has some."""
    torch.manual_seed(0)
    module = Forecaster(nn.Linear(5, 2))
    module.lstm = nn.RNN(3, 5, bias=False, num_layers=2, batch_first=True)
    assert read_live_module(module).provenance.relative_difference < 1e-5


@pytest.mark.parametrize("key", ["net", "ema", "anything"])
def test_a_training_dictionary_has_its_weights_under_any_key(key, tmp_path):
    """The entry with the weights is found beside an optimizer and a scaler; of two, the refusal lists both."""
    weights, path = load("lstm_cell"), tmp_path / "m.pt"
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3, 2)}}, "param_groups": [{"lr": 0.1}]}
    scaler = {"mean": torch.zeros(3), "std": torch.ones(3)}
    rest = {"optimizer": optimizer, "loss_fn": nn.MSELoss(), "scaler": scaler, "epoch": 3}
    torch.save(rest | {key: weights}, path)
    assert describe_file(path).container == key
    assert read_file(path, ARRAYS["lstm_cell"]).provenance.verified
    torch.save(rest | {"model": weights, key: weights}, path)
    with pytest.raises(CheckpointError, match=f"m.pt holds more than one state_dict: model, {key}: save the one of"):
        read_file(path, ARRAYS["lstm_cell"])


def test_a_mask_is_not_the_reason_of_a_refusal(tmp_path):
    """A mask of 0 and -inf is dropped where the rest gives the predictions; other infinities are refused."""
    mask = torch.full((6, 6), -torch.inf).triu(1)
    assert read_changed(tmp_path, "lstm_cell", {"mask": mask}).provenance.unused == ("mask",)
    with pytest.raises(CheckpointError, match="a value that is not finite in tensor mask"):
        read_changed(tmp_path, "lstm_cell", {"mask": -mask})


FOREIGN = {  # what makes a module, how a loop reads through it, and how a live module and a file are refused
    "an Embedding": (
        lambda: nn.Embedding(24, 3),
        lambda emb, x: x + emb((x[..., 0] > 0).long()),
        "it is of a torch.nn.modules.sparse.Embedding",
        "emb .Linear without",
    ),
    "a convolution": (
        lambda: nn.Conv1d(3, 3, 1),
        lambda emb, x: emb(x.transpose(1, 2)).transpose(1, 2),
        "it is of a torch.nn.modules.conv.Conv1d",
        "a convolution or another",
    ),
    "attention": (
        lambda: nn.MultiheadAttention(3, 1),
        lambda emb, x: emb(x, x, x)[0],
        "it is of attention, in which every",
        "it is of attention, in",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_modules_that_are_no_layer_are_named(case, tmp_path):
    """A module is named by its class where that is known, else by what may have such tensors."""
    make, through, of_module, of_file = FOREIGN[case]

    class Foreign(Loop):
        def forward(self, x):
            return super().forward(through(self.emb, x))

    torch.manual_seed(0)
    module = Foreign(nn.LSTMCell(3, 5))
    module.emb = make()
    assert of_module in find_parts_of(module).doubt
    module.register_buffer("mask", torch.full((6, 6), -torch.inf).triu(1))
    predictions = module(torch.from_numpy(WINDOWS)).detach().numpy()
    torch.save(module.state_dict(), tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=of_file):
        read_file(tmp_path / "m.pt", predictions)


@pytest.mark.parametrize("start", [b"PK\x03\x04" + 30 * b"x" + b"model.weights.h5", b"\x89HDF\r\n\x1a\n"])
def test_files_of_keras_are_refused(start, tmp_path):
    """A file of Keras is refused with what to save in its place."""
    (tmp_path / "m.keras").write_bytes(start)
    with pytest.raises(CheckpointError, match=r"is a file of Keras: with Keras on torch, torch.save\(model.state_dict"):
        describe_file(tmp_path / "m.keras")


def test_a_model_of_darts_is_refused_with_the_file_that_has_its_weights(tmp_path):
    """The pickle that darts writes beside its weights is refused with the name of the file of the weights."""
    name = "darts.models.forecasting.block_rnn_model"
    model = type("BlockRNNModel", (), {"__module__": name})
    modules = {".".join(name.split(".")[:depth]): ModuleType(name) for depth in range(1, 5)}
    modules[name].BlockRNNModel = model
    with patch.dict(sys.modules, modules):
        torch.save(model(), tmp_path / "m.pt")
    line = r"readable file m.pt.ckpt beside it; with darts, kanmodel.from_darts\(.m.pt.\)"
    with pytest.raises(CheckpointError, match=line):
        describe_file(tmp_path / "m.pt")


@pytest.mark.parametrize("name", few_of(LIBRARIES, FEW[:3], "the same with the layers of further libraries"))
def test_damaged_files_of_further_libraries(name, tmp_path):
    """With tensors of other shapes or types, a file is read or refused, and nothing else happens."""
    random = np.random.default_rng(0)
    changes = (torch.flatten, lambda t: t[None], lambda t: t.long(), lambda t: t[:1], lambda t: t.transpose(0, -1))
    for _ in range(40):
        tensors = load(name)
        for key in random.choice(list(tensors), 2):
            change = changes[random.integers(len(changes))]
            shape = [int(n) for n in random.choice([0, 1, 2, 3, 8], random.integers(4))]
            anew = random.random() < 0.5 or not tensors[key].ndim
            tensors[key] = torch.zeros(shape) if anew else change(tensors[key])
        torch.save(tensors, tmp_path / "m.pt")
        with suppress(CheckpointError):
            for part in find_structure(open_file(tmp_path / "m.pt"), ModelSpec()).parts:
                assert part.items({})


def test_a_layer_that_computes_otherwise_in_a_later_call_is_entered():
    """What a part was matched with in its first call is compared again in each: a factor is drawn."""

    class Scaled(nn.Linear):
        def forward(self, x, factor=1.0):
            return super().forward(x) * factor

    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Scaled(3, 3)

        def forward(self, x):
            return sum(torch.tanh(self.layer(step, 1 + (t % 4 == 3) / 1000)) for t, step in enumerate(x.unbind(1)))

    torch.manual_seed(0)
    module = Steps().double()
    model = read_live_module(module)
    with torch.no_grad():
        expected = module(torch.from_numpy(WINDOWS).double()).numpy()
    np.testing.assert_allclose(model.predict(WINDOWS), expected, rtol=0, atol=1e-9)
    assert len(model.config.head) < WINDOWS.shape[1]


def test_a_layer_is_matched_once(monkeypatch):
    """A layer of a loop is given probes in its first step alone, and every step has the same one."""
    calls = []

    class Watched(nn.Linear):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Watched(5, 2)

        def forward(self, x):
            h = x.new_zeros(len(x), 2)
            for step in x.unbind(1):
                h = torch.tanh(self.layer(torch.cat([step, h], dim=1)))
            return h

    model = from_torch(Recurrent(), windows=WINDOWS, features=FEATURES)
    assert model.config.graph and calls.count(N_PROBES + 1) <= 2


def test_reading_does_not_import_the_compiler_of_torch():
    """Which takes seconds, and memory."""
    script = """
import sys, numpy, torch, kanmodel
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
kanmodel.from_torch(net, windows=numpy.random.default_rng(0).normal(size=(20, 3, 2)), features=["a", "b"])
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_kans_of_keras(tmp_path):
    """A KANLinear of keras_efficient_kan, named and laid out as there, from a file and where a live model calls it."""

    class Layer(nn.Module):
        """A layer of Keras: its tensors are those of the model, and it is no module of it."""

        def __init__(self, path, **tensors):
            super().__init__()
            self.path = path
            self.tensors = nn.ParameterDict({f"{path}/{name}": tensor for name, tensor in tensors.items()})

        def own(self, name):
            return self.tensors[f"{self.path}/{name}"]

    class Kan(Layer):
        def forward(self, x):
            x = nn.functional.layer_norm(x, [5], self.own("norm/gamma"), self.own("norm/beta"), eps=1e-3)
            bases = KANLinear.basis(SimpleNamespace(grid=self.own("grid")[0], spline_order=2), x).flatten(1)
            return x.relu() @ self.own("base_weight") + self.own("base_bias") + bases @ self.own("spline_weight")

    class Dense(Layer):
        def forward(self, x):
            return x @ self.own("kernel") + self.own("bias")

    class Keras(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, random = nn.LSTM(3, 5, batch_first=True), torch.randn
            tensors = {"norm/gamma": random(5), "norm/beta": random(5), "base_weight": random(5, 4)}
            grid = torch.linspace(-2, 2, 8).expand(1, 5, -1).clone()
            kan = Kan("net/kan", grid=grid, base_bias=random(4), spline_weight=random(25, 4), **tensors)
            self.layers = [kan, Dense("net/dense", kernel=random(4, 2), bias=random(2))]
            self._torch_params = nn.ParameterDict({k: v for each in self.layers for k, v in each.tensors.items()})

        def _flatten_layers(self, include_self):
            return self.layers

        def forward(self, x):
            h = self.lstm(x)[0][:, -1]
            return self.layers[1](self.layers[0](h)) + self.layers[1](self.layers[0](-h))

    torch.manual_seed(0)
    module = Keras()
    model = read_live_module(module)
    kans = [layer for layer in model.config.head if layer.basis.kind == "bspline"]
    assert len(kans) == 2 and all([step.kind for step in kan.before] == ["layer_norm"] for kan in kans)
    assert model.provenance.unused == () and "forward" not in {*vars(module.layers[0]), *vars(module.layers[1])}
    with torch.no_grad():
        expected = module(torch.from_numpy(WINDOWS)).double().numpy()
        chain = module.layers[1](module.layers[0](module.lstm(torch.from_numpy(WINDOWS))[0][:, -1])).double().numpy()
    np.testing.assert_allclose(model.predict(WINDOWS), expected, rtol=0, atol=1e-5 * expected.std())
    torch.save(module.state_dict(), tmp_path / "m.pt")
    found = read_file(tmp_path / "m.pt", chain)
    assert found.provenance.unused == () and "base relu" in found.provenance.library
    np.testing.assert_allclose(found.predict(WINDOWS), chain, rtol=0, atol=1e-5 * chain.std())


@pytest.mark.filterwarnings("ignore")
def test_a_function_that_some_probes_have_no_value_of_is_matched():
    """The logarithm of pykan's symbolic edges has values at a part of what a layer is probed with."""
    network = kan.KAN([2, 1, 1], base_fun="zero", auto_save=False, seed=0)
    for layer, source, function in ((0, 0, "log"), (0, 1, "log"), (1, 0, "exp")):
        network.fix_symbolic(layer, source, 0, function, fit_params_bool=False, verbose=False)
    windows = np.random.default_rng(0).uniform(0.1, 3, (64, 2)).astype(np.float32)
    model = from_torch(network, windows=windows, features=["x", "y"])
    with torch.no_grad():
        expected = network(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(model.predict(windows), expected, rtol=1e-4)
    assert model.config.head and not model.config.graph
