"""Ledgers, graphs and pruning for any chain: every basis, cell, readout and output function."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_chain
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import model_configs
from thorough import examples
from torch import nn

from kanmodel.attribution.baseline import Baseline
from kanmodel.attribution.ledger import explain_windows
from kanmodel.forecaster import Forecaster, Provenance, Reference
from kanmodel.network.bases import BSpline, Line
from kanmodel.network.config import LayerConfig, ModelConfig, RecurrentConfig, Transform, plain_layers
from kanmodel.network.connections import ledger_key
from kanmodel.network.network import Network
from kanmodel.structure.ablation import extract_subnetwork
from kanmodel.structure.curves import sample_edges
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule, Thresholds, prune_by_rule, prune_network
from kanmodel.structure.topology import build_topology
from kanmodel.tables.columns import Feature, Target

PROVENANCE = Provenance("import", "torch", "2026-01-01T00:00:00Z", verified=True)
ALL = PruningRule("contribution", None, Thresholds(-1, -1, -1))


@settings(max_examples=examples(25))
@given(model_configs("float64", smooth=True), st.integers(0, 99))
def test_the_ledger_of_any_chain_is_complete(config, seed):
    """Every layer sums to F(x) - F(x0), and each node conserves its sum unless a layer norm mixes the nodes."""
    plain = replace(config, targets=tuple(replace(target, mean=0.0, std=1.0) for target in config.targets))
    model = make_chain(plain, seed)
    ledger = explain_windows(model, model.reference.scaled[:2], len(config.outputs) - 1)
    change = ledger.predictions - ledger.baseline_prediction
    slack = 1e-9 * (1 + np.abs(ledger.predictions)) + ledger.residual
    listed = {(layer.stage, layer.layer): layer for layer in ledger.layers}
    assert (np.abs(ledger.steps.sum(axis=(1, 2)) - change) <= slack).all()
    for layer in ledger.layers:
        for values in (layer.nodes, layer.edges):
            if values is not None:
                assert (np.abs(values.reshape(len(change), -1).sum(axis=1) - change) <= slack).all()
    for stage, layers in config.stages.items():
        for number, layer in enumerate(layers):
            edges = listed[stage, number].edges
            if not layer.mixes:
                entering = listed[ledger_key(config, stage, number)].nodes
                assert (np.abs(edges.sum(axis=1) - entering).max(axis=1) <= slack).all()
            node_of_subnode = np.eye(layer.n_out)[list(layer.node_of_subnode)]
            leaving = listed[ledger_key(config, stage, number + 1)].nodes
            assert (np.abs(edges.sum(axis=2) @ node_of_subnode - leaving).max(axis=1) <= slack).all()


@settings(max_examples=examples(8))
@given(model_configs("float64", smooth=True), st.integers(0, 99))
def test_the_graph_of_any_chain(config, seed):
    """Ids are unique, each edge joins two nodes and has its curve, and pruning has the stated fidelity."""
    model = make_chain(config, seed, n_reference=12)
    if not torch.isfinite(model.reference_outputs).all():
        return
    importance = measure_importance(model, 0)
    topology = build_topology(model, importance, ALL)
    ids = [node.id for node in topology.nodes]
    assert len(set(ids)) == len(ids)
    assert {end for edge in topology.edges for end in (edge.source, edge.target)} <= set(ids)
    n_edges = sum(layer.n_subnodes * layer.n_in for layers in config.stages.values() for layer in layers)
    assert len(topology.kan_edges) == n_edges
    stages = model.network.trace(model.reference.scaled).stages
    for curve in sample_edges(model, list(topology.kan_edges)[:8], points=2, span="reference"):
        edge, layer = curve.edge, config.stages[curve.edge.stage][curve.edge.layer]
        if layer.mixes:
            continue
        trace = stages[edge.stage][edge.layer]
        for end, row in ((0, trace.inputs[:, edge.i].argmin()), (1, trace.inputs[:, edge.i].argmax())):
            assert curve.x[end] == pytest.approx(float(trace.inputs[row, edge.i]), abs=1e-12)
            assert curve.y[end] == pytest.approx(float(trace.edges[row, edge.j, edge.i]), rel=1e-6, abs=1e-6)
    pruning = prune_by_rule(model, importance, PruningRule("contribution", 0.9))
    outputs = prune_network(model, pruning)(model.reference.scaled)[:, 0].double()
    full = model.reference_outputs[:, 0].double()
    if float(full.std()) > 1e-9:
        r2 = 1 - float(((outputs - full) ** 2).sum() / ((full - full.mean()) ** 2).sum())
        assert r2 == pytest.approx(pruning.fidelity.r2, abs=1e-6) and r2 >= 0.9 - 1e-9


class LSTMWithMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)
        self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 1)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.second(torch.tanh(self.first(out[:, -1])))


def as_chain(module):
    """An LSTM with a head of Linear layers as a chain."""
    head = (LayerConfig(5, 4, Line(), "zero"), LayerConfig(4, 1, Line(), "zero", (Transform("tanh"),)))
    features = tuple(Feature(name) for name in "abc")
    recurrent = RecurrentConfig("lstm", 5)
    network = Network(ModelConfig(features, (Target("y"),), 4, 1, head, recurrent, dtype="float64"))
    network.recurrent.load_state_dict(module.lstm.state_dict())
    with torch.no_grad():
        for layer, linear in zip(network.head, (module.first, module.second), strict=True):
            layer.coef.copy_(linear.weight[:, :, None])
            layer.subnode_bias.copy_(linear.bias)
    windows = torch.randn(160, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Forecaster(network, Reference(windows, network.config), {}, PROVENANCE)


@pytest.fixture(scope="module")
def lstm_with_mlp():
    torch.manual_seed(3)
    module = LSTMWithMLP().double().eval()
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.7)
    return module, as_chain(module)


def test_an_lstm_with_an_mlp_predicts_the_same(lstm_with_mlp):
    """The chain predicts what the module does."""
    module, model = lstm_with_mlp
    torch.testing.assert_close(model.frozen.forward(model.reference.scaled), module(model.reference.scaled))


def test_the_ledger_of_an_mlp_is_captum_s(lstm_with_mlp):
    """Contributions of steps, units and hidden nodes equal Captum's Integrated Gradients and layer conductance."""
    from captum.attr import IntegratedGradients, LayerConductance  # imports matplotlib, which other workers do not need

    module, model = lstm_with_mlp
    windows = model.reference.scaled[:6]
    ledger = explain_windows(model, windows, 0, Baseline("zero"))
    zero = torch.zeros_like(windows)
    steps = IntegratedGradients(module).attribute(windows, zero, n_steps=200).numpy()
    np.testing.assert_allclose(ledger.steps, steps, atol=ledger.tolerance)
    nodes = {(layer.stage, layer.layer): layer.nodes for layer in ledger.layers}
    conductance = LayerConductance(module, module.first)  # sums of differences between points, of which many are needed
    hidden = conductance.attribute(windows, zero, n_steps=2000, method="riemann_middle").detach().numpy()
    np.testing.assert_allclose(nodes["head", 1], hidden, atol=ledger.tolerance)


def test_an_mlp_prunes_with_its_fidelity_stated(lstm_with_mlp):
    """The pruned network of an MLP is smaller and keeps the requested R2."""
    _, model = lstm_with_mlp
    importance = measure_importance(model, 0)
    pruning = prune_by_rule(model, importance, PruningRule(fidelity=0.9))
    smaller = extract_subnetwork(model, [importance], PruningRule(fidelity=0.9))
    assert pruning.n_edges < 24 and smaller.metrics["fidelity_r2"] >= 0.9
    assert smaller.metrics["fidelity_r2"] == pytest.approx(pruning.fidelity.r2, abs=1e-9)
    topology = build_topology(model, importance, PruningRule())
    curves = sample_edges(model, [edge for edge in topology.kan_edges if edge.kept and edge.layer == 0])
    assert {curve.shape for curve in curves} <= {"linear", "flat"}
    assert all(not len(curve.grid) and curve.core is None for curve in curves)


def ids_of(config):
    model = make_chain(config, n_reference=20)
    topology = build_topology(model, measure_importance(model, 0), ALL)
    return [node.id for node in topology.nodes], topology


def plain_config(**options):
    two = {"features": (Feature("a"), Feature("b")), "targets": (Target("y"),), "lookback": 2, "horizon": 1}
    return ModelConfig(**two, dtype="float64", **options)


def test_ids_of_a_gru():
    """The units of a GRU are gru:{u}."""
    ids, topology = ids_of(plain_config(head=plain_layers([3, 2, 1]), recurrent=RecurrentConfig("gru", 3)))
    units = [f"gru:{u}" for u in range(3)]
    assert ids == ["feature:a", "feature:b", *units, "head:1:0", "head:1:1", "output:y+1"]
    assert {edge.stage for edge in topology.edges if edge.kind == "input"} == {"gru"}
    assert topology.edge("head", 0, 2, 1).source == "gru:2"


def test_ids_of_a_flattened_window():
    """The cells of a flattened window are cell:{step}:{name}, with step 0 the newest, each joined to its feature."""
    ids, topology = ids_of(plain_config(head=plain_layers([4, 1]), readout="flatten"))
    cells = ["cell:-1:a", "cell:-1:b", "cell:0:a", "cell:0:b"]
    assert ids == ["feature:a", "feature:b", *cells, "output:y+1"]
    joined = {(edge.source, edge.target) for edge in topology.edges if edge.kind == "input"}
    assert joined == {(f"feature:{cell[-1]}", cell) for cell in cells}


def test_ids_of_layers_per_step_without_a_recurrent_part():
    """The head follows the layers per step, and each node is listed once."""
    ids, _ = ids_of(plain_config(front=plain_layers([2, 3]), head=plain_layers([3, 1]), readout="mean"))
    assert ids == ["feature:a", "feature:b", *(f"front:1:{j}" for j in range(3)), "output:y+1"]


def test_ids_of_a_classifier():
    """Before a softmax, the nodes of the last layer are listed, each with an edge to the explained output."""
    head = plain_layers([2, 3], BSpline(3))
    classes = tuple(Target(name) for name in ("up", "same", "down"))
    config = replace(plain_config(head=plain_layers([2, 1])), head=head, targets=classes, output_function="softmax")
    ids, topology = ids_of(config)
    logits = [f"head:1:{j}" for j in range(3)]
    assert ids == ["feature:a", "feature:b", *logits, "output:up+1", "output:same+1", "output:down+1"]
    leading = [(edge.source, edge.target) for edge in topology.edges if edge.kind == "output"]
    assert leading == [(logit, "output:up+1") for logit in logits]
