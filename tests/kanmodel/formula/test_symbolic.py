"""Formulas of edges: the library of functions, the search for c f(a x + b) + d, and edges that are known."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import sympy
import torch
from factories import SHAPES, make_chain, make_model
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel.forecaster import Forecaster
from kanmodel.formula.symbolic import (
    FUNCTIONS,
    LIBRARY,
    find_exact_formula,
    suggest_edge_formulas,
    suggest_formulas,
)
from kanmodel.network import functions
from kanmodel.network.bases import Line
from kanmodel.network.config import SymbolicEdge, Transform, plain_layers
from kanmodel.network.functions import ACTIVATIONS
from kanmodel.result import draw
from kanmodel.structure.curves import sample_edges
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule
from kanmodel.structure.topology import build_topology

ARGUMENTS = np.concatenate([np.linspace(-3, 3, 61), [-200.0, 200.0]])
FROM_NUMPY = vars(np)  # the notation uses numpy's names
NOTATION = {
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "abs": np.abs,
    "sign": np.sign,
    "sin": np.sin,
    "tan": np.tan,
    "tanh": np.tanh,
    "asin": np.arcsin,
    "atan": np.arctan,
    "atanh": np.arctanh,
}
FRAMES = [(-1.0, 1.0), (2.0, 3.0), (-30.0, 10.0), (100.0, 101.0)]  # where the samples lie
POSITIVE = ("sqrt", "x^1.5", "1/sqrt(x)", "log", "1/x", "1/x^2")
seeds = st.integers(0, 2**32 - 1)


@st.composite
def argument_ranges(draw, name):
    """Ranges of a function's argument inside its domain and wide enough that it is not a line."""
    if name in POSITIVE:
        low = draw(st.floats(0.1, 2))
        ends = low, low * draw(st.floats(2, 6))
    elif name in ("abs", "sgn"):
        middle = draw(st.floats(-0.8, 0.8))
        ends = middle - 1, middle + 1
    elif name in ("arcsin", "arctanh", "tan"):
        middle, half = draw(st.floats(-0.3, 0.3)), draw(st.floats(0.4, 0.65))
        ends = middle - half, middle + half
    elif name == "sin":  # less of its top is no different from a parabola
        middle, half = draw(st.floats(-3, 3)), draw(st.floats(2, 5))
        ends = middle - half, middle + half
    elif name == "gaussian":  # nor is less of this one
        middle, half = draw(st.floats(-1, 1)), draw(st.floats(1.2, 2))
        ends = middle - half, middle + half
    else:
        middle, half = draw(st.floats(-1, 1)), draw(st.floats(0.6, 2))
        ends = middle - half, middle + half
    return ends[::-1] if draw(st.booleans()) else ends


@st.composite
def samples(draw, name, n=128):
    """Samples of c f(a x + b) + d."""
    (first, last), (low, high) = draw(st.sampled_from(FRAMES)), draw(argument_ranges(name))
    c = draw(st.sampled_from([-1, 1])) * draw(st.floats(0.05, 20))
    x = np.linspace(first, last, n)
    argument = low + (high - low) * (x - first) / (last - first)
    return x, c * LIBRARY[name].values(argument) + draw(st.floats(-5, 5))


@st.composite
def wide_argument_ranges(draw, name):
    """The same with ranges of up to 60 half-turns, and up to the ends of the domain."""
    run = np.exp(draw(st.floats(np.log(0.3), np.log(60 * np.pi))))
    if name in POSITIVE:
        low = np.exp(draw(st.floats(np.log(0.01), np.log(100))))
        ends = low, low + run
        if LIBRARY[name].mirrored and draw(st.booleans()):
            ends = -low - run, -low
    elif name in ("arcsin", "arctanh", "tan"):
        limit = {"arcsin": 1, "arctanh": 0.9999, "tan": 1.57}[name]
        low, high = draw(st.floats(-limit, limit)), draw(st.floats(-limit, limit))
        assume(abs(high - low) > 1e-3)
        return low, high
    elif name == "exp":
        middle = draw(st.floats(-3, 3))
        ends = middle - run / 2, middle + run / 2
    else:  # the argument is 0 within the samples or slightly beyond them
        share = draw(st.floats(-0.1, 1.1))
        ends = -share * run, (1 - share) * run
    return ends[::-1] if draw(st.booleans()) else ends


@st.composite
def positions(draw, n=128):
    """n ascending positions: even, uniformly random or normal."""
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(["even", "uniform", "normal"]))
    x = {"even": np.linspace(0, 1, n), "uniform": rng.uniform(size=n), "normal": rng.normal(size=n)}[kind]
    x = np.sort(x)
    first, last = draw(st.sampled_from([*FRAMES, (-3.0, 3.0), (0.0, 1e-3), (1e5, 1e5 + 7)]))
    return first + (last - first) * (x - x[0]) / (x[-1] - x[0])


def evaluate(expression, x):
    """The value of a formula in Python's notation at positions (n,)."""
    return np.broadcast_to(np.asarray(eval(expression, NOTATION | {"x": x}), dtype=float), x.shape)


def r2(y, found):
    return 1 - ((y - found) ** 2).sum() / ((y - y.mean()) ** 2).sum()


@pytest.mark.parametrize("name", LIBRARY)
@settings(max_examples=examples(15))
@given(st.data())
def test_planted_functions_are_found_over_sixty_half_turns(name, data):
    """c f(a x + b) + d is found for any a and b with f defined and not constant on the samples."""
    x, (first, last) = data.draw(positions()), data.draw(wide_argument_ranges(name))
    values = LIBRARY[name].values(first + (last - first) * (x - x[0]) / (x[-1] - x[0]))
    assume(np.ptp(values) > 1e-3 * np.abs(values).max())
    c = data.draw(st.sampled_from([-1, 1])) * data.draw(st.floats(0.05, 20)) / np.ptp(values)
    y = c * values + data.draw(st.floats(-5, 5))
    found = {candidate.function: candidate for candidate in suggest_formulas(x, y, (name,))}
    assert found[name].r2 >= 0.999
    assert r2(y, evaluate(found[name].expression, x)) >= 0.999


@pytest.mark.parametrize(
    ("y", "expression"), [(lambda x: np.sin(5 * x), "sin(5*x)"), (lambda x: np.exp(5 * x), "exp(5*x)")]
)
def test_functions_on_a_wide_support(y, expression):
    """On [-3, 3] a sine of ten half-turns and a steep exponential are ranked first."""
    x = np.linspace(-3, 3, 128)
    best = suggest_formulas(x, y(x))[0]
    assert best.expression == expression
    assert best.r2 == pytest.approx(1, abs=1e-9)


@settings(max_examples=examples(30))
@given(st.data())
def test_no_pole_lies_between_samples(data):
    """Between the smallest and the largest position every candidate is defined and bounded."""
    n = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(seeds))
    x, y = rng.choice([0.01, 1, 100]) * rng.normal(size=(2, n)).round(data.draw(st.integers(0, 6)))
    dense = np.unique(np.concatenate([x, np.linspace(x.min(), x.max(), 2001)]))
    for candidate in suggest_formulas(x, y):
        ends = candidate.a * np.array([x.min(), x.max()]) + candidate.b
        assert LIBRARY[candidate.function].is_defined_between(*ends)
        at_samples, between = candidate.values(x), candidate.values(dense)
        assert np.isfinite(between).all()
        if candidate.function in ("1/x", "1/x^2", "1/sqrt(x)", "tan", "arctanh", "log"):  # monotone, so ends suffice
            assert between.min() >= at_samples.min() - 1e-9 * abs(at_samples.min())
            assert between.max() <= at_samples.max() + 1e-9 * abs(at_samples.max())


@pytest.mark.parametrize("name", LIBRARY)
@settings(max_examples=examples(3))
@given(st.data())
def test_the_expression_is_what_was_measured(name, data):
    """R2 is the coefficient of determination of the printed expression with its digits, and at most 1."""
    x, y = data.draw(samples(name))
    y = y + 0.1 * np.ptp(y) * np.random.default_rng(data.draw(seeds)).normal(size=len(y))
    for candidate in suggest_formulas(x, y):
        values = evaluate(candidate.expression, x)
        assert candidate.r2 == pytest.approx(r2(y, values), abs=1e-9)
        assert candidate.r2 <= 1


@settings(max_examples=examples(20))
@given(st.sampled_from(FRAMES), st.floats(1e-6, 1e6), seeds)
def test_any_curve_has_a_straight_line(frame, size, seed):
    """The least-squares line is always among the candidates, all of which are defined at every sample."""
    x = np.linspace(*frame, 60)
    y = size * np.cumsum(np.random.default_rng(seed).normal(size=60))
    found = suggest_formulas(x, y)
    slope, intercept = np.polyfit(x, y, 1)
    (line,) = (candidate for candidate in found if candidate.function == "x")
    assert line.r2 == pytest.approx(r2(y, slope * x + intercept), abs=2e-5)
    for candidate in found:
        assert np.isfinite([candidate.a, candidate.b, candidate.c, candidate.d, candidate.r2]).all()
        with np.errstate(all="raise", under="ignore"):
            assert np.isfinite(LIBRARY[candidate.function].values(candidate.a * x + candidate.b)).all()
    names = [candidate.function for candidate in found]
    assert len(names) == len(set(names))
    assert set(names) <= set(LIBRARY)


@settings(max_examples=examples(20))
@given(st.sampled_from(FRAMES), st.floats(-3, 3).filter(lambda slope: abs(slope) > 0.01), st.floats(-5, 5))
def test_a_straight_line_comes_first(frame, slope, intercept):
    """For samples on a line, no candidate is better, and no simpler one is as good."""
    x = np.linspace(*frame, 50)
    first = suggest_formulas(x, slope * x + intercept)[0]
    assert (first.function, first.complexity) == ("x", 1)
    assert first.r2 == pytest.approx(1, abs=1e-4)


@given(st.floats(-1e3, 1e3), st.sampled_from(FRAMES))
@settings(max_examples=examples(20))
def test_a_constant(value, frame):
    """Constant samples give a constant with four digits, without a warning."""
    x = np.linspace(*frame, 30)
    with np.errstate(all="raise", under="ignore"):
        first = suggest_formulas(x, np.full(30, value))[0]
    assert first.r2 == 1
    np.testing.assert_allclose(evaluate(first.expression, x), value, rtol=1e-3)


@pytest.mark.parametrize("spread", [1e-320, 1e-170, 1e-151])
def test_values_whose_variance_is_0_are_a_straight_line(spread):
    """Values, or positions, whose differences have no square in float64 give only a straight line."""
    even = np.linspace(0, 1, 30)
    for x, y in ((even, spread * np.sin(even)), (spread * even, np.sin(even))):
        (found,) = suggest_formulas(x, y)
        assert found.function == "x"
        assert np.isfinite(found.r2)


def test_an_input_that_never_changes():
    """Samples at a single position give only constants."""
    found = suggest_formulas(np.full(30, 0.1), np.full(30, 0.3))
    assert found[0].function == "x"
    assert float(sympy.sympify(found[0].expression)) == pytest.approx(0.3)


def test_only_the_functions_that_are_asked_for():
    """Naming functions restricts the search to them and the line."""
    x = np.linspace(-1, 1, 40)
    assert {candidate.function for candidate in suggest_formulas(x, x**2, ["sin", "x^2"])} == {"x", "sin", "x^2"}


@settings(max_examples=examples(20))
@given(seeds)
def test_the_best_come_first(seed):
    """Candidates are sorted by R2, simpler ones first if equal."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.normal(size=64))
    y = rng.normal(size=4) @ [np.sin(x), x, x**2, np.exp(x)]
    assume(np.ptp(y) > 0)
    keys = [(-round(candidate.r2, 4), candidate.complexity) for candidate in suggest_formulas(x, y)]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("y", "expression"),
    [
        (lambda x: 2 * x - 0.5, "2*x - 0.5"),
        (lambda x: x, "x"),
        (lambda x: 3 * (x - 0.25) ** 2, "3*(x - 0.25)**2"),
        (lambda x: -np.exp(2 * x), "-1*exp(2*x)"),
        (lambda x: 0 * x + 1.5, "1.5"),
    ],
)
def test_expressions_are_short(y, expression):
    """Terms without effect are omitted, and exact numbers are written exactly."""
    x = np.linspace(-1, 1, 100)
    best = suggest_formulas(x, y(x))[0]
    assert best.expression == expression


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_is_that_of_the_network(name):
    """Values and text, evaluated with numpy's names, equal what the network computes, NaN included."""
    network = functions.FUNCTIONS | {"silu": ACTIVATIONS["silu"].function}
    expected = network[name](torch.from_numpy(ARGUMENTS)).numpy()
    with np.errstate(all="ignore"):
        text = eval(FUNCTIONS[name].pattern.format("u"), FROM_NUMPY | {"u": ARGUMENTS})
        np.testing.assert_allclose(FUNCTIONS[name].values(ARGUMENTS), expected, rtol=1e-12, atol=1e-300)
        rounding = 1e-15 if name == "softplus" else 1e-300  # the logarithm of 1 and a little is 0 in its text
        np.testing.assert_allclose(text, expected, rtol=1e-12, atol=rounding)


def test_no_symbolic_function_is_missing():
    """Every function of symbolic edges has its notation."""
    assert set(FUNCTIONS) == {*functions.FUNCTIONS, "silu"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_properties_of_each_function(name):
    """Functions are finite inside their domain, and the flags mirrored and homogeneous are right."""
    function = FUNCTIONS[name]
    low, high = (max(-5.0, function.domain[0]), min(5.0, function.domain[1]))
    u = np.linspace(low, high, 999)[1:-1]
    values = function.values(u)
    assert np.isfinite(values).all()
    assert function.is_defined_between(u[0], u[-1]) and function.is_defined_between(u[-1], u[0])
    if function.mirrored:
        mirrored = function.values(-u)
        assert np.allclose(mirrored, values) or np.allclose(mirrored, -values)
        assert function.is_defined_between(-u[0], -u[-1])
    if function.homogeneous:
        for scale in (0.5, 3.0):
            scaled = function.values(scale * u)
            slope, intercept = np.polyfit(values, scaled, 1)
            np.testing.assert_allclose(scaled, slope * values + intercept, atol=1e-6 * np.abs(scaled).max())


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("1/x", -1, 1),
        ("1/x^2", 1, -1),
        ("1/x^3", 0, 1),
        ("log", 0, 1),
        ("sqrt", -1e-9, 1),
        ("tan", 1, 2),
        ("arcsin", 0, 1.01),
        ("arctanh", 0, 1),
        ("exp", 0, 1000),
        ("sin", 0, math.inf),
    ],
)
def test_beyond_the_domain(name, first, last):
    """Poles, non-finite ends and parts beyond the domain are detected."""
    assert not FUNCTIONS[name].is_defined_between(first, last)


def test_the_library_is_what_a_search_tries():
    """The search contains no function twice under two names."""
    assert len({function.pattern for function in LIBRARY.values()}) == len(LIBRARY)


@cache
def tiny(shape, **options):
    model = make_model(shape, **{"n_features": 3, "n_hidden": 2, "lookback": 3} | options)
    return model, build_topology(model, measure_importance(model, 0), PruningRule(fidelity=0.9))


def with_config(model, **changes):
    """The model with another config and the tensors that both networks share."""
    network = type(model.network)(replace(model.config, **changes))
    tensors = model.network.state_dict()
    network.load_state_dict({name: tensors.get(name, tensor) for name, tensor in network.state_dict().items()})
    return Forecaster(network, model.reference, {}, model.provenance)


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


@pytest.mark.parametrize("shape", SHAPES)
def test_formulas_of_edges(shape):
    """Candidates are fitted to an edge's values between the 1st and the 99th percentile of its inputs."""
    model, topology = tiny(shape)
    stages = model.network.trace(model.reference.scaled).stages
    for edge in topology.kan_edges[:2] + topology.kan_edges[-1:]:
        found = suggest_edge_formulas(model, edge)
        trace = stages[edge.stage][edge.layer]
        x, y = trace.inputs[:, edge.i].numpy(), trace.edges[:, edge.j, edge.i].numpy()
        inside = (x >= np.percentile(x, 1)) & (x <= np.percentile(x, 99))
        assert (
            found[0].r2 >= max(candidate.r2 for candidate in found) - 1e-4
        )  # of nearly equal ones the simpler one comes first
        assert "x" in {candidate.function for candidate in found}
        exhaustive = suggest_formulas(x[inside], y[inside])[0]  # all inputs rather than 128 of them
        assert found[0].r2 == pytest.approx(exhaustive.r2, abs=0.05)


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


@pytest.mark.parametrize("kind", ["relu", "tanh", "leaky_relu"])
def test_an_activation_on_a_line_is_known(kind):
    """As of a Linear layer after a ReLU: its formula is the only one beside a line, and its picture has no spline.

    An activation that is no function of a formula is searched.
    """
    config = make_model("head", n_features=2, n_hidden=2).config
    after = replace(plain_layers([2, 1], Line(), base="zero")[0], before=(Transform(kind),))
    model = make_chain(replace(config, head=(*plain_layers([2, 2], Line(), base="zero"), after)), n_reference=130)
    exact = find_exact_formula(model.network.head[1], 1, 0)
    if kind == "leaky_relu":
        assert exact is None
        return
    measured = measure_importance(model, 0)
    edge = build_topology(model, measured, PruningRule()).edge("head", 1, 1, 0)
    x = torch.linspace(-2, 2, 21, dtype=torch.float64)
    expected = model.network.head[1].edges(torch.stack([x, x], dim=1))[:, 0, 1].detach().numpy()
    np.testing.assert_allclose(exact.values(x.numpy()), expected, rtol=1e-12)
    assert [one.function for one in suggest_edge_formulas(model, edge)] == [kind, "x"]
    (curve,) = sample_edges(model, [edge])
    picture = draw(curve, "light").decode()
    assert ">nearest line<" in picture and ">spline<" not in picture and ">base<" not in picture


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
