from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import sympy
import torch
from factories import make_model
from goldens import load_case

from kanmodel.errors import ConfigError
from kanmodel.explain.expressions import compose_formula
from kanmodel.explain.formulas import suggest_edge_formulas
from kanmodel.explain.importance import measure_importance
from kanmodel.explain.pruning import PruningRule, Thresholds
from kanmodel.explain.symbolic import suggest_formulas
from kanmodel.explain.topology import build_topology

ALL = PruningRule(thresholds=Thresholds(-1, -1, -1))


@cache
def golden(name):
    model = load_case(name).model
    return model, build_topology(model, measure_importance(model, 0), PruningRule())


@cache
def tiny(shape, **options):
    model = make_model(shape, **{"n_features": 3, "n_hidden": 2, "lookback": 3} | options)
    return model, build_topology(model, measure_importance(model, 0), PruningRule(fidelity=0.9))


def evaluate(model, expression):
    """A formula of the features, read back from its text, on the reference windows."""
    names = model.config.feature_names
    parsed = sympy.sympify(expression, locals={name: sympy.Symbol(name) for name in names})
    values = model.scaling.features_to_original(model.reference.windows)[:, -1]
    found = sympy.lambdify(sympy.symbols(names), parsed, "numpy")(*values.T)
    return np.broadcast_to(np.asarray(found, dtype=float), (len(values),))


def r2(model, found, output=0):
    full = model.scaling.outputs_to_original(model.reference_outputs)[:, output]
    return 1 - ((full - found) ** 2).sum() / ((full - full.mean()) ** 2).sum()


@pytest.mark.parametrize(
    ("name", "used"), [("interp4", {"x0", "x1", "x2"}), ("proxy20", {"x1", "x4", "x9", "x12", "x17"})]
)
def test_a_trained_kan_in_one_expression(name, used):
    """What pykan trained becomes an expression of the true features alone, with the R2 that it says."""
    model, topology = golden(name)
    formula = compose_formula(model, topology)
    assert formula.output == "y+1"
    assert formula.r2 >= 0.99
    assert {str(symbol) for symbol in sympy.sympify(formula.expression).free_symbols} == used
    assert formula.r2 == pytest.approx(r2(model, evaluate(model, formula.expression)), abs=1e-9)


@pytest.mark.parametrize("options", [{}, {"product": True}, {"targets": ("a", "b")}, {"dtype": "float32"}])
def test_r2_is_that_of_the_expression(options):
    """Even where the edges have no good formula the R2 is honest: it is that of the text, in original units."""
    model, topology = tiny("head", **options)
    formula = compose_formula(model, topology)
    assert formula.output == topology.output
    assert formula.r2 == pytest.approx(r2(model, evaluate(model, formula.expression)), abs=1e-6)
    assert formula.r2 < 0.99


def test_a_formula_of_another_output():
    """The formula is of the output that the topology is about."""
    model = make_model("head", n_features=2, targets=("a", "b"), n_hidden=1)
    for output, name in enumerate(model.config.outputs):
        topology = build_topology(model, measure_importance(model, output), PruningRule(fidelity=0.9))
        formula = compose_formula(model, topology)
        assert formula.output == name
        assert formula.r2 == pytest.approx(r2(model, evaluate(model, formula.expression), output), abs=1e-6)


def test_a_formula_that_is_known():
    """A KAN whose edges are straight lines is, in original units, exactly a straight line of its features."""
    model = make_model("head", n_features=2, base_activation="identity")
    with torch.no_grad():
        for layer in model.network.head:
            layer.scale_spline[:] = 0
            layer.mask[:] = 1
    model = replace(model, reference=model.reference)
    topology = build_topology(model, measure_importance(model, 0), ALL)
    formula = compose_formula(model, topology)
    expected = np.linalg.lstsq(
        np.column_stack([model.scaling.features_to_original(model.reference.windows)[:, 0], np.ones(160)]),
        model.scaling.outputs_to_original(model.reference_outputs)[:, 0],
    )[0]
    found = sympy.Poly(sympy.sympify(formula.expression), *sympy.symbols("f0 f1")).as_expr().as_coefficients_dict()
    coefficients = [float(found[symbol]) for symbol in (*sympy.symbols("f0 f1"), sympy.Integer(1))]
    np.testing.assert_allclose(coefficients, expected, rtol=5e-3)
    assert formula.r2 == pytest.approx(1, abs=2e-4)


def test_every_reference_window_has_a_value():
    """An edge's formula is defined for all reference inputs, beyond those it was fitted on too."""
    model = make_model("head", n_features=1, n_hidden=1, base_activation="zero", spline_order=1, grid_size=8)
    with torch.no_grad():
        first = model.network.head[0]
        first.mask[:] = first.scale_spline[:] = 1
        first.grid[:] = torch.linspace(-5, 5, first.grid.shape[1], dtype=torch.float64)
        first.coef[0, 0] = torch.log(torch.linspace(0.02, 6, first.coef.shape[2], dtype=torch.float64))
    model = replace(model, reference=model.reference)
    formula = compose_formula(model, build_topology(model, measure_importance(model, 0), ALL))
    assert np.isfinite(formula.r2)
    assert np.isfinite(evaluate(model, formula.expression)).all()


@pytest.mark.parametrize("shape", ["lstm", "front"])
def test_an_lstm_has_no_formula(shape):
    """A model with an LSTM is refused, since its units are no functions of a few features."""
    model, topology = tiny(shape)
    with pytest.raises(ConfigError, match="needs layers that read the features of one step"):
        compose_formula(model, topology)


@pytest.mark.parametrize("shape", ["lstm", "head", "front"])
def test_formulas_of_edges(shape):
    """Each edge's candidates are those of its values between the 1st and the 99th percentile of its inputs."""
    model, topology = tiny(shape)
    edges = topology.kan_edges[:3] + topology.kan_edges[-2:]
    stages = model.network.trace(model.reference.windows).stages
    for edge, found in zip(edges, suggest_edge_formulas(model, edges), strict=True):
        trace = stages[edge.stage][edge.layer]
        x, y = trace.inputs[:, edge.i].numpy(), trace.edges[:, edge.j, edge.i].numpy()
        inside = (x >= np.percentile(x, 1)) & (x <= np.percentile(x, 99))
        assert (
            found[0].r2 >= max(candidate.r2 for candidate in found) - 1e-4
        )  # of nearly equal ones the simpler is first
        assert "x" in {candidate.function for candidate in found}
        exhaustive = suggest_formulas(x[inside], y[inside])[0]  # every input rather than 128 of them
        assert found[0].r2 == pytest.approx(exhaustive.r2, abs=0.05)


def test_no_edges_have_no_formulas():
    """Asked about no edge, the answer is empty."""
    assert suggest_edge_formulas(tiny("head")[0], []) == []
