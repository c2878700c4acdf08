from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from factories import make_model

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.importance import measure_importance
from kanmodel.explain.pruning import PruningRule, Thresholds
from kanmodel.explain.symbolic import FUNCTIONS, find_exact_formula, suggest_edge_formulas, suggest_formulas
from kanmodel.explain.topology import build_topology
from kanmodel.network.config import SymbolicEdge

HOSTILE = ("lambda", "wind-speed", "2m temp", "température", "I", "E", "S", "sin", "abs", "x", "温度", "wind_speed", "")
ALL = PruningRule(thresholds=Thresholds(-1, -1, -1))


@cache
def tiny(shape, **options):
    model = make_model(shape, **{"n_features": 3, "n_hidden": 2, "lookback": 3} | options)
    return model, build_topology(model, measure_importance(model, 0), PruningRule(fidelity=0.9))


def with_config(model, **changes):
    """The model with another config and the tensors that both networks share."""
    network = type(model.network)(replace(model.config, **changes))
    tensors = model.network.state_dict()
    network.load_state_dict({name: tensors.get(name, tensor) for name, tensor in network.state_dict().items()})
    return LoadedModel(network, model.reference, {}, model.provenance)


def with_symbolic(model, edges):
    """The model with symbolic edges in the first layer: (i, j) to (function, (a, b, c, d))."""
    symbolic = tuple(SymbolicEdge(i, j, function) for (i, j), (function, _) in edges.items())
    model = with_config(model, head=(replace(model.config.head[0], symbolic=symbolic), *model.config.head[1:]))
    layer = model.network.head[0]
    with torch.no_grad():
        for number, ((i, j), (_, affine)) in enumerate(edges.items()):
            layer.mask[j, i] = 0
            layer.symbolic_mask[number] = 1
            layer.symbolic_affine[number] = torch.tensor(affine, dtype=torch.float64)
    return replace(model, reference=model.reference)


@pytest.mark.parametrize("shape", ["lstm", "head", "front"])
def test_formulas_of_edges(shape):
    """Candidates are fitted to an edge's values between the 1st and the 99th percentile of its inputs."""
    model, topology = tiny(shape)
    edges = topology.kan_edges[:2] + topology.kan_edges[-1:]
    stages = model.network.trace(model.reference.windows).stages
    for edge, found in zip(edges, suggest_edge_formulas(model, edges), strict=True):
        trace = stages[edge.stage][edge.layer]
        x, y = trace.inputs[:, edge.i].numpy(), trace.edges[:, edge.j, edge.i].numpy()
        inside = (x >= np.percentile(x, 1)) & (x <= np.percentile(x, 99))
        assert (
            found[0].r2 >= max(candidate.r2 for candidate in found) - 1e-4
        )  # of nearly equal ones the simpler one comes first
        assert "x" in {candidate.function for candidate in found}
        exhaustive = suggest_formulas(x[inside], y[inside])[0]  # all inputs rather than 128 of them
        assert found[0].r2 == pytest.approx(exhaustive.r2, abs=0.05)


def test_no_edges_have_no_formulas():
    """An empty list of edges gives an empty result."""
    assert suggest_edge_formulas(tiny("head")[0], []) == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_exact_formula_is_the_edge(name):
    """For every function, a known formula equals what the layer computes, mask included."""
    affine = (0.3, 0.4, -2.5, 0.7)
    if name == "silu":
        model = make_model("head", n_features=2, n_hidden=1)
        with torch.no_grad():
            model.network.head[0].scale_spline[:] = 0
    else:
        model = with_symbolic(make_model("head", n_features=2, n_hidden=1), {(1, 0): (name, affine)})
        with torch.no_grad():
            model.network.head[0].symbolic_mask[:] = 0.5
    layer = model.network.head[0]
    exact = find_exact_formula(layer, 1, 0)
    x = torch.linspace(-1, 1, 21, dtype=torch.float64)
    expected = layer.edges(torch.stack([x, x], dim=1))[:, 0, 1].detach().numpy()
    np.testing.assert_allclose(exact.values(x.numpy()), expected, rtol=1e-12)
    assert exact.function == name


@pytest.mark.parametrize(
    ("change", "expression"),
    [
        ({"base_activation": "identity", "scale_spline": 0.0}, "0.25*x"),
        ({"base_activation": "zero", "coef": 0.0}, "0"),
        ({"scale_base": 0.0, "scale_spline": 0.0}, "0"),
        ({"mask": 0.0}, "0"),
    ],
)
def test_edges_without_a_spline_are_known(change, expression):
    """An identity base alone is a line through 0, and an edge without active parts is 0."""
    model = make_model("head", n_features=2, n_hidden=1, base_activation=change.pop("base_activation", "silu"))
    layer = model.network.head[0]
    with torch.no_grad():
        layer.mask[:] = 1
        if layer.scale_base is not None:
            layer.scale_base[:] = 0.25
        for name, value in change.items():
            getattr(layer, name)[:] = value
    assert find_exact_formula(layer, 1, 0).expression == expression


def test_a_sum_of_parts_is_searched():
    """An edge with an active spline, or with both a base and a symbolic function, has no known formula."""
    model = with_symbolic(make_model("head", n_features=2, n_hidden=1), {(1, 0): ("sin", (1.0, 0.0, 1.0, 0.0))})
    layer = model.network.head[0]
    assert find_exact_formula(layer, 1, 0) is not None
    with torch.no_grad():
        layer.mask[:] = 1
    assert find_exact_formula(layer, 1, 0) is None
    with torch.no_grad():
        layer.scale_spline[:] = 0
    assert find_exact_formula(layer, 1, 0) is None
    assert find_exact_formula(layer, 0, 0).function == "silu"
