"""Explanations of edges downstream of a layer norm, and of edges with fixed functions."""

from functools import cache

import numpy as np
import pytest
import torch
from goldens import FOLDER, PROVENANCE, load_arrays
from thorough import few_of

from kanmodel.attribution.ledger import explain_windows
from kanmodel.forecaster import Forecaster, Reference
from kanmodel.formula.symbolic import suggest_edge_formulas
from kanmodel.importers.files.manifest import ModelSpec
from kanmodel.importers.layers.known import find_parts
from kanmodel.importers.layers.submodules import Metadata
from kanmodel.importers.search.assembly import Chain, assemble
from kanmodel.network.bases import BSpline
from kanmodel.network.config import LayerConfig, ModelConfig, SymbolicEdge, plain_layers
from kanmodel.network.network import Network
from kanmodel.structure.curves import sample_edges
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule, Thresholds
from kanmodel.structure.topology import build_topology
from kanmodel.tables.columns import Feature, Target


def fast_kan_model(file, library):
    """An imported LSTM with a head of fast-kan or FasterKAN, on the library's own windows."""
    tensors = torch.load(FOLDER / "import" / "fast_head" / file, weights_only=True)
    parts, (recurrent,) = find_parts(tensors, Metadata(ModelSpec(library=library)))
    features = tuple(Feature(f"f{i}") for i in range(20))
    shapes = ModelConfig(features, (Target("y"),), 24, 1, plain_layers([20, 1]))
    head = tuple(item for part in parts for item in part.items({}))
    network = assemble(Chain((), recurrent, "last", head, None), shapes, torch.float32)
    reference = torch.from_numpy(load_arrays("import/fast_head/windows")["reference"][:160])
    return Forecaster(network, Reference(reference, network.config), {}, PROVENANCE)


def symbolic_model():
    """A small KAN with a fixed function on two edges, one of them in addition to its spline."""
    torch.manual_seed(0)
    head = (
        LayerConfig(3, 4, BSpline(4), symbolic=(SymbolicEdge(1, 2, "sin"),)),
        LayerConfig(4, 1, BSpline(4), symbolic=(SymbolicEdge(2, 0, "x^2"),)),
    )
    features = tuple(Feature(f"f{i}") for i in range(3))
    network = Network(ModelConfig(features, (Target("y"),), 1, 1, head, dtype="float64"))
    network.head[0].symbolic_affine.copy_(torch.tensor([[1.5, 0.25, 0.75, 0.125]]))
    network.head[1].symbolic_affine.copy_(torch.tensor([[0.7, -0.1, 0.5, 0.0]]))
    network.head[1].mask[0, 2] = 0
    return Forecaster(network, Reference(torch.randn(160, 1, 3, dtype=torch.float64), network.config), {}, PROVENANCE)


MODELS = {
    "fast_kan": lambda: fast_kan_model("state_dict.pt", "fast_kan"),
    "faster_kan": lambda: fast_kan_model("fasterkan_state_dict.pt", "faster_kan"),
    "symbolic": symbolic_model,
}


@cache
def measured(name):
    """A model and its importance."""
    model = MODELS[name]()
    return model, measure_importance(model, 0)


@pytest.mark.parametrize("name", few_of(["fast_kan", "faster_kan"], ["fast_kan"], "other functions of the same layers"))
def test_a_layer_norm_connects_all_it_reads(name):
    """Through a layer norm every node depends on all its inputs, so none of them is disconnected."""
    model, importance = measured(name)
    topology = build_topology(model, importance, PruningRule(fidelity=0.5))
    assert topology.fidelity.r2 >= 0.5
    assert all(node.kept for node in topology.nodes if node.kind in ("feature", "lstm", "head"))


def test_a_layer_norm_mixes_contributions():
    """Before a layer norm the edges out of a node differ from the node; both still sum to the forecast."""
    model = MODELS["fast_kan"]()
    ledger = explain_windows(model, model.reference.scaled[:4], 0)
    change = ledger.predictions - ledger.baseline_prediction
    layers = {layer.layer: layer for layer in ledger.layers if layer.stage == "head" and layer.layer}
    nodes, leaving = layers[1].nodes, layers[1].edges.sum(axis=1)
    assert np.abs(nodes - leaving).max() > 10 * ledger.residual.max()
    for parts in (nodes, leaving):
        np.testing.assert_array_less(np.abs(parts.sum(axis=1) - change), ledger.residual + 1e-6)


def test_no_threshold_cuts_a_fixed_function():
    """As in pykan, an edge with a symbolic part is kept at any threshold, and is live without other parts."""
    model, importance = measured("symbolic")
    rule = PruningRule("backward", None, Thresholds(node=-1, edge=1e9, input=-1), "zero")
    topology = build_topology(model, importance, rule)
    kept = {(edge.layer, edge.i, edge.j) for edge in topology.kan_edges if edge.kept}
    assert kept == {(0, 1, 2), (1, 2, 0)}
    assert not topology.edge("head", 1, 2, 0).masked


def test_curves_of_symbolic_edges():
    """Base, spline and symbolic part sum to the edge, and the fixed function is the given one."""
    model, importance = measured("symbolic")
    topology = build_topology(model, importance, PruningRule())
    edge, plain = (sample_edges(model, [topology.edge("head", 0, 1, j)])[0] for j in (2, 0))
    np.testing.assert_allclose(edge.base + edge.spline + edge.symbolic, edge.y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(edge.symbolic, 0.75 * np.sin(1.5 * edge.x + 0.25) + 0.125, rtol=0, atol=1e-12)
    assert plain.symbolic is None and plain.function_of == "input"


def test_curves_behind_a_layer_norm_are_of_the_normalised_input():
    """The curve is marked as one of the normalised input, equals the library's samples, and has no formula."""
    model, importance = measured("fast_kan")
    topology = build_topology(model, importance, PruningRule())
    edge = topology.edge("head", 0, 3, 1)
    curve = sample_edges(model, [edge])[0]
    layer = model.network.head[0]
    with torch.no_grad():
        _, normalised = layer.read(model.network.encode(model.reference.scaled))
        normalised = normalised[:, 3].double().numpy()
        x = torch.from_numpy(curve.x)[:, None].float()
        spline = layer.functions(torch.tensor([3])).parts(x, x)[0].basis[:, 1, 0].double().numpy()
    assert curve.function_of == "normalised input"
    np.testing.assert_allclose((curve.support.p01, curve.support.p99), np.percentile(normalised, (1, 99)), atol=1e-6)
    np.testing.assert_allclose(curve.y, spline, rtol=0, atol=1e-6)
    assert not curve.base.any()
    assert suggest_edge_formulas(model, edge) == []
