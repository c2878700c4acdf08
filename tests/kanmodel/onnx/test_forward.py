"""The ONNX graph, compared with the network from which it was traced."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from factories import make_chain, make_model, make_windows
from glue import CASES, FEATURES, load_glue
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import model_configs, networks
from thorough import examples, few_of
from wired import FEATURES as WALKED
from wired import PLANS, WIRED, Random, make_wired, random_walks

import kanmodel
from kanmodel.arrays import Array
from kanmodel.errors import ExportError
from kanmodel.forecaster import Forecaster, Reference
from kanmodel.network.bases import BSpline
from kanmodel.network.config import LayerConfig, ModelConfig, RecurrentConfig, SymbolicEdge
from kanmodel.network.functions import FUNCTIONS
from kanmodel.network.network import Network
from kanmodel.network.operations import OPERATIONS as NODES
from kanmodel.network.operations import Loop, Node, infer_shapes, runs_of
from kanmodel.onnx.export import ROUNDING, TOLERANCE
from kanmodel.onnx.forward import write_forward
from kanmodel.onnx.session import Session
from kanmodel.tables.columns import Feature, Target

FEW = ("lstm_relu_kan", "gru_softmax", "lstm_fourier", "multi_step")
TINY = 1e-30  # ONNX Runtime removes an Add whose constant is 0 in float32
MISSING = "which ONNX Runtime cannot compute in its type"


def open_session(model: Forecaster) -> Session:
    graph = write_forward(model)
    onnx.checker.check_model(graph, full_check=True)
    return Session(graph)


def compare(model: Forecaster, windows: Array) -> None:
    """The graph is as close to the float64 model as the model in its own type, and not finite where that is not.

    It is also not finite where the input of a recurrent part is infinite, for which torch may return a finite state.
    """
    outputs = open_session(model).predict(windows)
    scaled = model.scaling.features_to_model(windows)
    expected = model.scaling.outputs_to_original(model.frozen.forward(scaled))
    exact = model.scaling.outputs_to_original(model.frozen_float64.forward(scaled.double()))
    assert not np.isfinite(outputs[~np.isfinite(exact).all(axis=1)]).all(axis=1).any()
    finite = np.isfinite(expected + exact).all(axis=1)
    if model.config.recurrent is not None and model.config.front:
        read = model.network.trace(scaled).front[-1].nodes.reshape(len(windows), -1)
        finite &= np.isfinite(read.numpy()).all(axis=1)
    unit = np.nan_to_num(model.output_std) + np.abs(exact[finite]) + TINY
    rounding = (np.abs(expected[finite] - exact[finite]) / unit).max(initial=0)
    allowed = ROUNDING * rounding + TOLERANCE[model.config.dtype]
    assert (np.abs(outputs[finite] - exact[finite]) / unit).max(initial=0) <= allowed


def compare_unless_refused(model: Forecaster, windows: Array) -> None:
    """`compare`; in float64, where ONNX Runtime lacks some functions, a layer may be refused by its name."""
    try:
        compare(model, windows)
    except ExportError as error:
        assert (
            model.config.dtype == "float64"
            and MISSING in str(error)
            and str(error)[:5] in ("head.", "front", "graph", "outpu")
        )


@settings(max_examples=examples(80))
@given(model_configs(symbolic=True), st.integers(0, 999))
def test_the_graph_is_the_network(config, seed):
    """Any chain in either type predicts the same for windows near the reference and far outside every grid."""
    model = make_chain(config, seed)
    noise = torch.randn(4, *config.window_shape, generator=torch.Generator().manual_seed(seed))
    far = model.scaling.features_to_original(100 * noise)
    compare_unless_refused(model, np.concatenate([make_windows(model, 5), far]))


@settings(max_examples=examples(25))
@given(networks(), st.sampled_from(["float32", "float64"]), st.integers(0, 99))
def test_the_graph_is_a_sparse_network(network, dtype, seed):
    """This also holds with dead edges and nodes, adapted knots, layers without live inputs, and zero scales."""
    config = network.config
    network = network.to(getattr(torch, dtype))
    object.__setattr__(config, "dtype", dtype)
    generator = torch.Generator().manual_seed(seed)
    windows = torch.randn(6, *config.window_shape, generator=generator).to(getattr(torch, dtype))
    model = Forecaster(network, Reference(windows, network.config), {}, make_model().provenance)
    compare_unless_refused(model, model.scaling.features_to_original(windows))


@pytest.mark.parametrize("name", few_of(CASES, FEW, "the same of further forecasters"))
def test_imported_models_have_a_graph(name):
    """Models that `from_torch` imports are exported, and predict what the modules predict."""
    from kanmodel.importers.from_torch import from_torch

    glue = load_glue(name)
    model = from_torch(
        glue.module(), windows=glue.original, features=FEATURES, targets=glue.targets, scaling=glue.scaling
    )
    compare(model, glue.original)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_fixed_function_is_the_networks(function, dtype):
    """Each function of pykan's library agrees, also where it is undefined, which both refuse."""
    layer = LayerConfig(1, 1, BSpline(2, 1), "zero", symbolic=(SymbolicEdge(0, 0, function),))
    config = ModelConfig((Feature("x"),), (Target("y"),), 1, 1, (layer,), dtype=dtype)
    model = make_chain(config)
    model.network.head[0].symbolic_affine.copy_(torch.tensor([[1.0, 0.0, 1.0, 0.0]]))
    model = Forecaster(model.network, Reference(model.reference.scaled, model.network.config), {}, model.provenance)
    compare_unless_refused(model, np.linspace(-3, 3, 25).reshape(-1, 1, 1))


def near_and_far(n=6, seed=0):
    """Random walks, others with noise, and some a hundred times as far away."""
    walks = random_walks(n, seed)
    return np.concatenate([walks, walks + np.random.default_rng(seed).standard_normal(walks.shape), 100 * walks])


@pytest.mark.parametrize("name", few_of(WIRED, {"RevIN", "SkipAroundHead"}, "the same with other wirings"))
def test_modules_of_branches_and_skips_have_a_graph(name):
    """Networks that are graphs, as libraries build them, predict the same."""
    model = kanmodel.from_torch(make_wired(name), windows=random_walks(), features=list(WALKED))
    compare(model, near_and_far())


@settings(max_examples=examples(15))
@given(PLANS, st.integers(0, 99))
def test_the_graph_is_any_graph(plan, seed):
    """Random operations, layers and recurrent parts predict the same, in either type."""
    net, windows = Random(plan, seed).eval(), random_walks(40, seed) / 3
    for dtype in (torch.float32, torch.float64):
        model = kanmodel.from_torch(net.to(dtype), windows=windows, features=list(WALKED))
        compare_unless_refused(model, near_and_far(3, seed + 1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", [op for op in NODES if op != "given" and not op.startswith("quantile_")])
def test_every_operation_of_a_graph_is_the_networks(op, dtype):
    """Each agrees, of windows and with constants, and is not finite where the network is not."""
    window, swapped = Node("window"), Node("arrange", (0,), shape=(3, 2), runs=runs_of([0, 3, 1, 4, 2, 5]))
    given = {
        "window": (window,),
        "arrange": (window, Node("number", parameter=2.0), Node("arrange", (1, 0), shape=(2, 2), runs=((0, 2, 4),))),
        "constant": (window, Node("constant", shape=(3,)), Node("add", (1, 0))),
        "number": (window, Node("number", parameter=0.5), Node("sub", (1, 0))),
        "layer": (window, Node("layer", (0,))),
        "recurrent": (window, Node("recurrent", (0,))),
        "loop": (window, Node("constant", shape=(3,)), Node("loop", (0, 1))),
        "matmul": (window, swapped, Node("matmul", (0, 1))),
        "power": (window, Node("power", (0,), 3.0)),
    }
    if op in given:
        nodes = given[op]
    elif NODES[op].n_inputs == 2:
        nodes = (window, Node("arrange", (0,), shape=(3,), runs=((5, -1, 3),)), Node(op, (0, 1)))
    elif NODES[op].n_inputs == 3:
        nodes = (window, Node("step", (0,)), Node("exp", (0,)), Node(op, (1, 2, 0)))
    else:
        nodes = (window, Node(op, (0,)))
    head = (LayerConfig(3, 2),) if op == "layer" else ()
    recurrents = (RecurrentConfig("gru", 2),) if op == "recurrent" else ()
    body = (Node("given"), Node("given"), Node("sub", (0, 1)), Node("tanh", (2,)))
    loops = (Loop(2, 1, 0, body, (3,), 2),) if op == "loop" else ()
    n = np.prod(infer_shapes(nodes, (2, 3), head, recurrents, loops)[-1]).item()
    config = ModelConfig(
        *(tuple(Feature(name) for name in WALKED), (Target("y"),), 2, n, head),
        dtype=dtype,
        graph=(*nodes, Node("arrange", (len(nodes) - 1,), shape=(n,))),
        recurrents=recurrents,
        loops=loops,
    )
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(30, 2, 3, generator=generator).to(getattr(torch, dtype))
    windows = windows.abs() if op in ("log", "sqrt") else windows
    network = Network(config, generator)
    for constant in network.constants.buffers():
        constant.add_(0.5)
    model = Forecaster(network, Reference(windows, network.config), {}, make_model().provenance)
    given_windows = 10.0 ** torch.arange(-1, 2).repeat_interleave(10)[:, None, None] * windows
    given_windows[3, 1, 0], given_windows[5] = torch.nan, 0
    given_windows[4, 0, 2] = 1 if op == "recurrent" else torch.inf
    compare_unless_refused(model, given_windows.double().numpy())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_missing_values_stay_missing(cell, bidirectional, dtype):
    """A NaN or infinity in a window makes only its own forecast not finite."""
    model = make_model(cell=cell, bidirectional=bidirectional, num_layers=2, dtype=dtype)
    windows = make_windows(model, 4)
    expected = open_session(model).predict(windows)
    windows[1, 2, 0], windows[2, 0, 1] = np.nan, np.inf
    outputs = open_session(model).predict(windows)
    assert np.isnan(outputs[1:3]).all()
    np.testing.assert_allclose(outputs[[0, 3]], expected[[0, 3]], rtol=1e-6)


@pytest.mark.parametrize("shape", ["lstm", "head", "front", "flat"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_number_of_windows(shape, dtype):
    """A single window has the forecast that it has among others."""
    model = make_model(shape, product=True, dtype=dtype)
    session, windows = open_session(model), make_windows(model, 7)
    together = session.predict(windows)
    np.testing.assert_allclose(session.predict(windows[:1]), together[:1], rtol=1e-6)


@pytest.mark.thorough("starts a process, which takes two seconds")
def test_onnx_runtime_sends_nothing(tmp_path):
    """A process that runs a graph creates no telemetry store, and writes nothing to the user's folders."""
    home = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run([sys.executable, "-c", RUN_A_GRAPH], env={**kept, **home}, check=True)
    assert [*tmp_path.rglob("*")] == []


RUN_A_GRAPH = """
from onnx import TensorProto, helper
from kanmodel.onnx.session import Session
shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", shape[:1], shape[1:])
Session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
"""
