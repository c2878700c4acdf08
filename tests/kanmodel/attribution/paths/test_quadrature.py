import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import Polynomial

from kanmodel.attribution.paths.quadrature import (
    clenshaw_curtis,
    estimate_errors,
    interpolation,
    measure_gaps,
    nested_clenshaw_curtis,
)

counts = st.integers(2, 64)
seeds = st.integers(0, 2**32 - 1)


@given(counts, seeds)
def test_integrates_polynomials_exactly(n, seed):
    """Polynomials up to degree n - 1 are integrated exactly over [0, 1]; weights are positive and sum to 1."""
    rule = clenshaw_curtis(n)
    assert (rule.weights > 0).all()
    assert rule.weights.sum() == pytest.approx(1, abs=1e-13)
    assert (rule.weights * rule.nodes ** (n - 1)).sum() == pytest.approx(1 / n, abs=1e-13)
    polynomial = Polynomial(np.random.default_rng(seed).normal(size=min(n, 12)))
    integral = polynomial.integ()
    found = (rule.weights * polynomial(rule.nodes)).sum()
    assert found == pytest.approx(integral(1) - integral(0), abs=1e-12)


@given(counts, seeds)
def test_differentiates_polynomials_exactly(n, seed):
    """The derivative at the nodes is exact for polynomials up to degree n - 1, and 0 for constants."""
    rule = clenshaw_curtis(n)
    polynomial = Polynomial(np.random.default_rng(seed).normal(size=min(n, 12)))
    np.testing.assert_allclose(rule.derivative @ polynomial(rule.nodes), polynomial.deriv()(rule.nodes), atol=1e-9)
    np.testing.assert_allclose(rule.derivative.sum(axis=1), 0, atol=1e-10)


@given(st.integers(2, 400))
def test_nodes_ascend_from_end_to_end(n):
    """Nodes ascend from exactly 0 to exactly 1, and nodes and weights are symmetric."""
    rule = clenshaw_curtis(n)
    assert (rule.nodes[0], rule.nodes[-1]) == (0, 1)
    assert (np.diff(rule.nodes) > 0).all()
    np.testing.assert_allclose(rule.nodes, 1 - rule.nodes[::-1], atol=1e-15)
    np.testing.assert_allclose(rule.weights, rule.weights[::-1], atol=1e-15)


def test_known_rule():
    """The rule of three nodes is Simpson's."""
    rule = clenshaw_curtis(3)
    np.testing.assert_allclose(rule.nodes, [0, 1 / 2, 1], atol=1e-15)
    np.testing.assert_allclose(rule.weights, [1 / 6, 4 / 6, 1 / 6], atol=1e-15)
    np.testing.assert_allclose(rule.derivative, [[-3, 4, -1], [-1, 0, 1], [1, -4, 3]], atol=1e-14)


@pytest.mark.parametrize("n", [5, 9, 13, 17, 65, 257])
def test_coarser_rules_reuse_the_nodes(n):
    """From values at n nodes, the integrals of u and of u v' by three rules equal those of each rule alone."""
    nested = nested_clenshaw_curtis(n)
    u, v = np.random.default_rng(n).normal(size=(2, n))
    for number, every in enumerate((1, 2, 4)):
        rule = clenshaw_curtis((n - 1) // every + 1)
        some_u, some_v = u[::every], v[::every]
        assert nested.weights[number] @ u == pytest.approx(rule.weights @ some_u)
        by_parts = (nested.adjoints @ u).reshape(3, n)[number] @ v
        assert by_parts == pytest.approx(rule.weights @ (some_u * (rule.derivative @ some_v)))
        np.testing.assert_array_equal(nested.nodes[::every], rule.nodes)


@pytest.mark.parametrize("steepness", [1, 3, 10, 30])
@pytest.mark.parametrize("place", [0.1, 0.37, 0.5, 0.8])
def test_the_estimate_is_above_the_error(steepness, place):
    """For steps from gentle to as steep as the distance of nodes, the estimate is at least the error."""
    nested = nested_clenshaw_curtis(17)
    slope = steepness / np.cosh(steepness * (nested.nodes - place)) ** 2
    exact = np.tanh(steepness * (1 - place)) + np.tanh(steepness * place)
    integrals = (nested.weights @ slope)[:, None, None]
    ((error,),), _ = estimate_errors(17, integrals, np.abs(integrals[:, :, 0] - exact))
    assert abs(integrals[0, 0, 0] - exact) <= 3 * error + 1e-12


def test_nothing_to_integrate_has_no_error():
    """If all three rules agree the estimate is 0, without division by zero."""
    errors, rate = estimate_errors(9, np.zeros((3, 2, 4)), np.zeros((3, 2)))
    assert not errors.any()
    assert (rate == 1).all()


@given(st.integers(2, 33), st.integers(1, 8), seeds)
def test_interpolates_polynomials_exactly(n, factor, seed):
    """Values at the nodes give those at the nodes of a finer rule, exactly for polynomials up to degree n - 1."""
    polynomial = Polynomial(np.random.default_rng(seed).normal(size=min(n, 12)))
    found = interpolation(n, factor) @ polynomial(clenshaw_curtis(n).nodes)
    fine = clenshaw_curtis(factor * (n - 1) + 1).nodes
    np.testing.assert_allclose(found, polynomial(fine), atol=1e-11)
    np.testing.assert_array_equal(found[::factor], polynomial(clenshaw_curtis(n).nodes))


@given(st.sampled_from([5, 9, 17, 33]), seeds)
def test_gaps_of_polynomials(n, seed):
    """A rule has no gap for what it integrates exactly, and the coarser rules have one for what they do not."""
    polynomial, nodes = Polynomial(np.random.default_rng(seed).normal(size=n)), clenshaw_curtis(n).nodes
    fine, coarse, coarsest = measure_gaps(polynomial(nodes)[None], polynomial.deriv()(nodes)[None])
    assert fine[0] <= 1e-12 * np.abs(polynomial.coef).sum()
    low = Polynomial(polynomial.coef[: (n + 1) // 2])
    assert measure_gaps(low(nodes)[None], low.deriv()(nodes)[None])[1] <= 1e-12 * np.abs(low.coef).sum()
    assert coarse[0] > fine[0] and coarsest[0] > fine[0]


def test_the_rate_is_that_of_known_errors_or_of_the_entries():
    """Entries fall as fast as known errors do, but not where their own differences do not fall."""
    falling = np.array([[[1.001]], [[1.01]], [[0.5]]])
    _, rate = estimate_errors(65, falling, np.array([[0.001], [0.01], [0.5]]))
    assert rate[0] == pytest.approx(0.1, rel=0.5)
    standing = np.array([[[1.0]], [[1.4]], [[1.0]]])
    (error,), rate = estimate_errors(65, standing, np.array([[1e-9], [1.0], [1.0]]))
    assert rate[0] == 1 and error[0] >= 0.4


def test_rules_that_agree_by_chance():
    """Where the two finer rules agree and the coarsest does not, the error is a share of that difference."""
    entries = np.array([[[2.0, 3.0]], [[2.0, 3.0]], [[1.0, 3.0]]])
    errors, _ = estimate_errors(9, entries, np.zeros((3, 1)))
    np.testing.assert_allclose(errors, [[0.003, 0]])
