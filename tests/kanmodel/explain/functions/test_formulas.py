import ast
from dataclasses import replace
from functools import cache
from itertools import islice

import numpy as np
import pytest
import sympy
import torch
from factories import make_model
from goldens import load_case
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import ConfigError
from kanmodel.explain.functions.expressions import compose_formula
from kanmodel.explain.functions.formulas import find_exact_formula, suggest_edge_formulas
from kanmodel.explain.functions.library import FUNCTIONS
from kanmodel.explain.functions.symbolic import suggest_formulas
from kanmodel.explain.importance.global_importance import measure_importance
from kanmodel.explain.topology.construction import build_topology
from kanmodel.explain.topology.graph import TopologyEdge
from kanmodel.explain.topology.pruning import PruningRule
from kanmodel.explain.topology.thresholds import Thresholds
from kanmodel.network.config import SymbolicEdge

HOSTILE = ("lambda", "wind-speed", "2m temp", "température", "I", "E", "S", "sin", "abs", "x", "温度", "wind_speed", "")
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


def evaluate_as_python(model, formula):
    """A formula as a reader of Python does it: parsed, with numpy's functions and the map of symbols alone."""
    tree = ast.parse(formula.expression, mode="eval")
    windows = model.scaling.features_to_original(model.reference.windows)[:, -1]
    columns = dict(zip(model.config.feature_names, windows.T, strict=True))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    functions = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert names - functions <= set(formula.symbols)
    scope = {name: getattr(np, name) for name in functions} | {
        symbol: columns[name] for symbol, name in formula.symbols.items()
    }
    assert len(scope) == len(functions) + len(formula.symbols)
    found = eval(compile(tree, "formula", "eval"), {"__builtins__": {}}, scope)
    return np.broadcast_to(np.asarray(found, dtype=float), (len(windows),))


def with_config(model, **changes):
    """The model with another config, and the tensors that the network then has in common with it."""
    network = type(model.network)(replace(model.config, **changes))
    tensors = model.network.state_dict()
    network.load_state_dict({name: tensors.get(name, tensor) for name, tensor in network.state_dict().items()})
    return LoadedModel(network, model.reference, {}, model.provenance)


def with_names(model, names):
    return with_config(
        model, features=tuple(replace(f, name=name) for f, name in zip(model.config.features, names, strict=True))
    )


def with_symbolic(model, edges):
    """The model with edges of the first layer fixed: (i, j) to (function, (a, b, c, d))."""
    symbolic = tuple(SymbolicEdge(i, j, function) for (i, j), (function, _) in edges.items())
    model = with_config(model, head=(replace(model.config.head[0], symbolic=symbolic), *model.config.head[1:]))
    layer = model.network.head[0]
    with torch.no_grad():
        for number, ((i, j), (_, affine)) in enumerate(edges.items()):
            layer.mask[j, i] = 0
            layer.symbolic_mask[number] = 1
            layer.symbolic_affine[number] = torch.tensor(affine, dtype=torch.float64)
    return replace(model, reference=model.reference)


def compose(model, rule=ALL, output=0):
    topology = build_topology(model, measure_importance(model, output), rule)
    return topology, compose_formula(model, topology)


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


@pytest.mark.parametrize("options", [{"product": True}, {"dtype": "float32", "n_hidden": 1}])
def test_hostile_names(options):
    """Whatever features are called, what is printed parses in Python and has the R2 that is stated."""
    names = [name for name in HOSTILE if name] + ["wind speed"]
    model = with_names(make_model("head", n_features=len(names), **{"n_hidden": 2} | options), names)
    _, formula = compose(model, PruningRule(fidelity=0.9))
    assert list(formula.symbols.values()) == names
    assert formula.r2 == pytest.approx(r2(model, evaluate_as_python(model, formula)), abs=1e-9)
    parsed = sympy.sympify(formula.expression)
    assert {str(symbol) for symbol in parsed.free_symbols} <= set(formula.symbols)


@settings(max_examples=examples(5))
@given(
    st.lists(st.text(min_size=1, max_size=4) | st.sampled_from(HOSTILE[:-1]), min_size=2, max_size=3, unique=True),
    st.integers(0, 2**16),
    st.sampled_from(["mean", "zero"]),
    st.booleans(),
)
def test_any_names_any_model(names, seed, fill, product):
    """The text of a formula of any model with features of any names has the R2 that is stated."""
    model = make_model("head", seed, n_features=len(names), n_hidden=1, product=product, n_reference=130)
    model = with_names(model, names)
    _, formula = compose(model, PruningRule(fidelity=0.9, fill=fill))
    found = evaluate_as_python(model, formula)
    assert np.isfinite(found).all()
    assert formula.r2 == pytest.approx(r2(model, found), abs=1e-6)


def test_functions_that_are_known_are_kept():
    """Symbolic edges, even those that no search tries, are written as they are: the formula is the model."""
    model = make_model("head", n_features=3, n_hidden=1, base_activation="identity")
    with torch.no_grad():
        for layer in model.network.head:
            layer.mask[:] = 1
            layer.coef[:] = 0
    edges = {(0, 0): ("cos", (40.0, 0.5, 2.0, 1.0)), (1, 0): ("1/x^3", (0.1, 2.0, 3.0, 0.0))}
    model = with_symbolic(model, edges)
    topology, formula = compose(model)
    assert formula.r2 == pytest.approx(1, abs=1e-5)
    assert "cos(" in formula.expression and ")**3" in formula.expression
    np.testing.assert_allclose(r2(model, evaluate_as_python(model, formula)), formula.r2, atol=1e-9)
    for (i, j), (function, affine) in edges.items():
        (found,) = suggest_edge_formulas(model, [topology.edge("head", 0, i, j)])
        assert (found[0].function, (found[0].a, found[0].b, found[0].c, found[0].d)) == (function, affine)
        assert found[0].r2 == 1 and "x" in {candidate.function for candidate in found}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_exact_formula_is_the_edge(name):
    """For every function, a known formula has the values that the layer computes, its mask included."""
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
    edge = TopologyEdge("a", "b", "edge", "head", 0, 1, 0, kept=True)
    exact = find_exact_formula(layer, edge)
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
    """An identity base alone is a line through 0, and where nothing acts the function is 0."""
    model = make_model("head", n_features=2, n_hidden=1, base_activation=change.pop("base_activation", "silu"))
    layer = model.network.head[0]
    with torch.no_grad():
        layer.mask[:] = 1
        if layer.scale_base is not None:
            layer.scale_base[:] = 0.25
        for name, value in change.items():
            getattr(layer, name)[:] = value
    edge = TopologyEdge("a", "b", "edge", "head", 0, 1, 0, kept=True)
    assert find_exact_formula(layer, edge).expression == expression


def test_a_sum_of_parts_is_searched():
    """An edge on which a spline acts, or a base and a symbolic function together, has no known formula."""
    model = with_symbolic(make_model("head", n_features=2, n_hidden=1), {(1, 0): ("sin", (1.0, 0.0, 1.0, 0.0))})
    edge = TopologyEdge("a", "b", "edge", "head", 0, 1, 0, kept=True)
    layer = model.network.head[0]
    assert find_exact_formula(layer, edge) is not None
    with torch.no_grad():
        layer.mask[:] = 1
    assert find_exact_formula(layer, edge) is None
    with torch.no_grad():
        layer.scale_spline[:] = 0
    assert find_exact_formula(layer, edge) is None
    assert find_exact_formula(layer, replace(edge, i=0)).function == "silu"


@pytest.mark.parametrize("fill", ["mean", "zero"])
def test_pruned_edges_are_filled_as_the_rule_says(fill):
    """With known edges alone, the R2 of the formula is that of the pruned model, for either fill."""
    model = make_model("head", n_features=4, n_hidden=2)
    with torch.no_grad():
        for layer in model.network.head:
            layer.mask[:] = 1
            layer.scale_spline[:] = 0
            layer.scale_base += 0.5
    rule = PruningRule(thresholds=Thresholds(-1, 0.15, -1), fill=fill)
    topology, formula = compose(replace(model, reference=model.reference), rule)
    assert any(not edge.kept for edge in topology.kan_edges) and topology.fidelity.r2 < 0.999
    assert formula.r2 == pytest.approx(topology.fidelity.r2, abs=2e-5)


def test_a_formula_stays_in_the_domain_of_its_functions():
    """Where formulas of the first layer move what reaches the second, no root there is taken of a negative number."""
    for seed in islice(range(1000), examples(6)):
        model = make_model("head", seed, n_features=2, n_hidden=2, base_activation="zero", grid_size=8)
        last = model.network.head[1]
        with torch.no_grad():
            inputs = model.network.head[0](model.reference.windows[:, -1])
            low, high = inputs.amin(dim=0), inputs.amax(dim=0)
            steps = torch.linspace(0, 1, last.coef.shape[2], dtype=torch.float64)
            last.mask[:] = last.scale_spline[:] = 1
            knots = torch.arange(last.grid.shape[1], dtype=torch.float64) - last.config.basis.order
            last.grid[:] = low[:, None] + (high - low)[:, None] * knots / (knots[-1] - last.config.basis.order)
            last.coef[:] = torch.sqrt(steps)
        model = replace(model, reference=model.reference)
        _, formula = compose(model)
        assert np.isfinite(formula.r2)
        assert formula.r2 == pytest.approx(r2(model, evaluate_as_python(model, formula)), abs=1e-6)
