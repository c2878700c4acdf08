"""Quantiles that are solved for, against scipy's distributions, sums of masses and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

from kanmodel.network.distributions import FAMILIES, quantile

levels = st.sampled_from([0.001, 0.05, 0.1, 0.5, 0.9, 0.95, 0.999])


def logs(low, high):
    return st.floats(np.log(low), np.log(high)).map(np.exp)


def solve(family, *parameters, level, weights=(1.0,)):
    """The quantile of a mixture, whose parameters are numbers, or lists with one for each component."""
    rows = [torch.tensor(np.atleast_1d(each)[None], dtype=torch.float64) for each in (weights, *parameters)]
    return float(quantile(family, *rows, level))


@settings(deadline=None, max_examples=40)
@given(logs(0.3, 1e6), st.floats(-100, 100), logs(1e-3, 1e3), levels)
def test_a_student_t_has_the_quantiles_of_scipy(df, loc, scale, level):
    """With few degrees of freedom, whose tails are far, and so many that it is a normal distribution."""
    expected = stats.t.ppf(level, df)
    assert (solve("student_t", df, loc, scale, level=level) - loc) / scale == pytest.approx(expected, 1e-8, 1e-8)


@settings(deadline=None, max_examples=40)
@given(logs(0.05, 1e6), logs(1e-6, 1e6), levels)
def test_a_gamma_has_the_quantiles_of_scipy(concentration, rate, level):
    """Also where nearly all lies at 0."""
    expected = stats.gamma.ppf(level, concentration, scale=1 / rate)
    assert solve("gamma", concentration, rate, level=level) == pytest.approx(expected, 1e-7, 1e-290)


@settings(deadline=None, max_examples=40)
@given(logs(0.1, 1e5), logs(0.1, 1e5), levels)
def test_a_beta_has_the_quantiles_of_scipy(one, zero, level):
    """By its probabilities, as a quantile may be nearer to 1 than a number can be."""
    found = solve("beta", one, zero, level=level)
    lower, upper = special.betainc(one, zero, found), special.betaincc(one, zero, found)
    expected = special.betaincinv(one, zero, level)
    assert found == pytest.approx(expected, 1e-7) or (lower, upper) == pytest.approx((level, 1 - level), 1e-6)


@settings(deadline=None, max_examples=60)
@given(logs(1e-3, 1e6), levels)
def test_the_quantile_of_a_poisson_is_within_half_a_count(rate, level):
    """It solves the incomplete gamma function of real counts; rounded it is scipy's quantile, but for ties."""
    found = solve("poisson", rate, level=level)
    assert abs(found - stats.poisson.ppf(level, rate)) <= 0.5 + 1e-6
    if found > 0:
        assert special.gammaincc(found + 0.5, rate) == pytest.approx(level, 1e-8)


@settings(deadline=None, max_examples=60)
@given(logs(0.05, 1e6), st.floats(-8, 8), levels)
def test_the_quantile_of_a_negative_binomial_is_within_half_a_count(count, logits, level):
    """It solves the incomplete beta function of real counts."""
    found = solve("negative_binomial", count, logits, level=level)
    assert abs(found - stats.nbinom.ppf(level, count, special.expit(-logits))) <= 0.5 + 1e-6 * found
    if found > 0:
        assert special.betainc(count, found + 0.5, special.expit(-logits)) == pytest.approx(level, 1e-7)


@settings(deadline=None, max_examples=25)
@given(st.floats(-2, 12), st.floats(1.1, 1.9), levels)
def test_the_quantile_of_a_tweedie_has_its_probability(log_mu, rho, level):
    """That of a Poisson number of gammas, summed over all numbers; it is 0 up to the probability of 0."""
    rate, shape = np.exp((2 - rho) * log_mu) / (2 - rho), (2 - rho) / (rho - 1)
    scale = (rho - 1) * np.exp((rho - 1) * log_mu)
    found = solve("tweedie", log_mu, rho, level=level)
    assert rate * shape * scale == pytest.approx(np.exp(log_mu))  # its mean
    if level <= np.exp(-rate):
        assert found < 1e-200
        return
    n = np.arange(max(1, int(rate - 12 * rate**0.5)), int(rate + 12 * rate**0.5 + 40))
    reached = np.exp(-rate) + stats.poisson.pmf(n, rate) @ special.gammainc(n * shape, found / scale)
    assert reached == pytest.approx(level, 1e-6)


def test_a_mixture_lies_between_its_components_and_solves_the_mixed_probability():
    """With components far apart too, where hardly anything lies between."""
    random = np.random.default_rng(0)
    for spread in (0.1, 3.0, 1e4):
        loc, scale, weights = spread * random.normal(size=5), random.gamma(2, 1, 5) + 0.1, random.dirichlet(np.ones(5))
        for level in (0.01, 0.3, 0.5, 0.99):
            found = solve("normal", loc, scale, level=level, weights=weights)
            assert weights @ stats.norm.cdf(found, loc, scale) == pytest.approx(level, 1e-9)
    rates, weights = np.array([0.5, 20.0, 400.0]), np.array([0.2, 0.5, 0.3])
    for level in (0.1, 0.5, 0.9):
        found = solve("poisson", rates, level=level, weights=weights)
        counts = np.arange(1000)
        expected = counts[(weights @ stats.poisson.cdf(counts, rates[:, None]) >= level).argmax()]
        assert abs(found - expected) <= 0.5


PARAMETERS = {
    "normal": ([1.0, -2.0], [0.5, 2.0]),
    "student_t": ([3.5, 40.0], [1.0, -2.0], [0.5, 2.0]),
    "gamma": ([0.7, 30.0], [2.0, 3.0]),
    "beta": ([0.7, 30.0], [2.0, 3.0]),
    "poisson": ([4.0, 90.0],),
    "negative_binomial": ([3.0, 40.0], [0.5, -1.0]),
    "tweedie": ([1.0, 3.0], [1.3, 1.6]),
}


@pytest.mark.parametrize("level", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("family", FAMILIES)
def test_slopes_are_those_of_finite_differences(family, level):
    """By all parameters and weights of a mixture, backwards and forwards."""
    theta = [torch.tensor([[0.4, 0.6]], dtype=torch.float64)]
    theta += [torch.tensor([each], dtype=torch.float64) for each in PARAMETERS[family]]
    moving = [each.clone().requires_grad_() for each in theta]
    slopes = torch.autograd.grad(quantile(family, *moving, level), moving)
    generator = torch.Generator().manual_seed(0)
    change = [torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in theta]
    change[0] -= change[0].mean()  # weights that sum to 1

    def at(step):
        return float(quantile(family, *(each + step * move for each, move in zip(theta, change, strict=True)), level))

    h = 1e-4
    expected = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    assert sum(float((slope * move).sum()) for slope, move in zip(slopes, change, strict=True)) == pytest.approx(
        expected, 1e-6, 1e-6
    )
    with dual_level():
        dual = [make_dual(each, move) for each, move in zip(theta, change, strict=True)]
        value, tangent = unpack_dual(quantile(family, *dual, level))
    assert float(tangent) == pytest.approx(expected, 1e-6, 1e-6) and float(value) == at(0.0)


def test_values_are_in_the_type_of_the_parameters_and_in_any_mode():
    """Also in inference mode, whose tensors autograd does not take."""
    with torch.inference_mode():
        found = quantile("poisson", torch.ones(3, 2, 1), torch.full((3, 2, 1), 7.0), 0.9)
    assert found.dtype == torch.float32 and found.shape == (3, 2)
    assert found[0, 0] == pytest.approx(solve("poisson", 7.0, level=0.9), rel=1e-6)
