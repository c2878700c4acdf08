import subprocess
import sys

import numpy as np
import pytest
import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel.explain.symbolic import LIBRARY, suggest_formulas

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
def test_every_function_is_found(name, data):
    """For samples of c f(a x + b) + d, f is among the candidates with an R2 of at least 0.999."""
    x, y = data.draw(samples(name))
    found = {candidate.function: candidate for candidate in suggest_formulas(x, y, (name,))}
    assert found[name].r2 >= 0.999
    assert found[name].complexity == LIBRARY[name].complexity


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
        assert candidate.is_defined_between(x.min(), x.max())
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


@pytest.mark.parametrize(
    ("name", "low", "high"), [("log", -1, 2), ("sqrt", -3, 1), ("arcsin", -2, 2), ("1/x", -1, 1), ("arctanh", -1, 1)]
)
def test_no_candidate_leaves_its_domain(name, low, high):
    """A function that is undefined at some samples is shifted or narrowed until it is defined at all."""
    x = np.linspace(low, high, 81)  # 0 is among the samples
    found = {candidate.function: candidate for candidate in suggest_formulas(x, np.exp(x), (name,))}
    assert "x" in found
    with np.errstate(all="raise"):
        values = evaluate(found[name].expression, x)
    assert np.isfinite(values).all()
    assert found[name].r2 == pytest.approx(r2(np.exp(x), values), abs=1e-9)


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


def test_scipy_is_imported_where_a_search_needs_it():
    """Importing formulas or the service's routes does not import scipy; the first search does."""
    program = (
        "import sys, numpy, kanmodel.explain.symbolic, service.routes.edges\n"
        "from kanmodel.explain.symbolic import suggest_formulas\n"
        "before = 'scipy' in sys.modules\n"
        "suggest_formulas(numpy.arange(9.0), numpy.arange(9.0) ** 2)\n"
        "print(before, 'scipy.optimize' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "False True\n"
