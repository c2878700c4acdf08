"""Every basis equals its formula in numpy, in value and slope, and the library that it comes from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.interpolate import BSpline as ScipyBSpline
from scipy.special import eval_chebyt
from strategies import bases

from kanmodel.errors import ConfigError
from kanmodel.network.bases import BASES, BSpline, Chebyshev, Fourier, Gaussian, Line, MexicanHat, Sech2

seeds = st.integers(0, 2**32 - 1)


def random_tensors(basis, n_sub, n_in, seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: (n_sub, n_in, *rest) for name, rest in basis.per_edge().items()}
    shapes |= {name: (n_in, *rest) for name, rest in basis.per_input().items()}
    tensors = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    if "grid" in tensors:
        tensors["grid"] = tensors["grid"].sort(dim=1).values * 2
    if "scale" in tensors:
        tensors["scale"] = tensors["scale"].abs() + 0.3
    return tensors, torch.randn(20, n_in, generator=generator, dtype=torch.float64)


def evaluate_by_formula(basis, tensors, u):
    """The term of each edge, (batch, n_sub, n_in), computed edge by edge in numpy."""
    coef = tensors["coef"].numpy()
    edges = np.zeros((len(u), *coef.shape[:2]))
    for j, i in np.ndindex(*coef.shape[:2]):
        x = u[:, i].numpy()
        edges[:, j, i] = BY_FORMULA[type(basis)](basis, tensors, coef[j, i], i, j, x)
    return edges


def spline(basis, tensors, weights, i, j, x):
    knots = tensors["grid"][i].numpy()
    total = np.zeros(len(x))
    for c, weight in enumerate(weights):
        element = ScipyBSpline.basis_element(knots[c : c + basis.order + 2], extrapolate=False)
        total += weight * np.nan_to_num(element(x))
    return total


def gaussian(basis, tensors, weights, i, j, x):
    centres = tensors["grid"][i].numpy()
    return np.exp(-np.square((x[:, None] - centres) / basis.denominator)) @ weights


def sech2(basis, tensors, weights, i, j, x):
    centres = tensors["grid"][i].numpy()
    return np.cosh((x[:, None] - centres) / basis.denominator) ** -2.0 @ weights


def chebyshev(basis, tensors, weights, i, j, x):
    return sum(weight * eval_chebyt(d, np.tanh(x)) for d, weight in enumerate(weights))


def fourier(basis, tensors, weights, i, j, x):
    cosines, sines = np.split(weights, 2)
    k = np.arange(1, basis.frequencies + 1)
    return np.cos(np.outer(x, k)) @ cosines + np.sin(np.outer(x, k)) @ sines


def mexican_hat(basis, tensors, weights, i, j, x):
    t = (x - float(tensors["translation"][j, i])) / float(tensors["scale"][j, i])
    return weights[0] * 2 / (math.sqrt(3) * math.pi**0.25) * (t**2 - 1) * np.exp(-(t**2) / 2)


def line(basis, tensors, weights, i, j, x):
    return weights[0] * x


BY_FORMULA = {
    BSpline: spline,
    Gaussian: gaussian,
    Sech2: sech2,
    Chebyshev: chebyshev,
    Fourier: fourier,
    MexicanHat: mexican_hat,
    Line: line,
}


@given(bases, seeds, st.booleans())
def test_edges_are_the_formula(basis, seed, frozen):
    """Each edge equals its formula, and sub-nodes are the sums of their edges; frozen networks too."""
    tensors, u = random_tensors(basis, 2, 3, seed)
    functions = basis.freeze(tensors) if frozen else basis.functions(tensors)
    expected = evaluate_by_formula(basis, tensors, u)
    np.testing.assert_allclose(functions.edges(u), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(functions.sums(u), expected.sum(axis=2), rtol=1e-9, atol=1e-9)


@given(bases, seeds, st.booleans())
def test_slopes_are_gradients(basis, seed, frozen):
    """The slope of each edge, and unless frozen the gradient of the edges, equal autograd's derivative of the value."""
    tensors, u = random_tensors(basis, 2, 3, seed)
    functions = basis.freeze(tensors) if frozen else basis.functions(tensors)
    values, slopes = functions.edges_and_slopes(u)
    torch.testing.assert_close(values, functions.edges(u), rtol=0, atol=1e-12)
    for j in range(2):
        points = u.clone().requires_grad_()
        (expected,) = torch.autograd.grad(basis.functions(tensors).edges(points)[:, j].sum(), points)
        torch.testing.assert_close(slopes[:, j], expected, rtol=1e-7, atol=1e-7)
        if not frozen:
            (found,) = torch.autograd.grad(functions.edges(points)[:, j].sum(), points)
            torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@given(bases, st.integers(1, 3), st.integers(1, 3))
def test_a_new_layer_has_the_shapes_of_its_basis(basis, n_sub, n_in):
    """The tensors of a new layer have the names and shapes computed from its config."""
    shapes = {name: (n_sub, n_in, *rest) for name, rest in basis.per_edge().items()}
    shapes |= {name: (n_in, *rest) for name, rest in basis.per_input().items()}
    assert {name: tuple(tensor.shape) for name, tensor in basis.initial(n_sub, n_in).items()} == shapes
    assert next(iter(basis.per_edge())) == "coef"


@pytest.mark.parametrize("basis", [Gaussian(5, 0.5), Sech2(5, 0.5)])
def test_bumps_are_zero_far_away(basis):
    """Far inputs give exactly 0 with slope 0, and no NaN."""
    tensors, _ = random_tensors(basis, 1, 1, 0)
    u = torch.tensor([[-1e300], [-1e4], [1e4], [1e300]], dtype=torch.float64)
    values, slopes = basis.functions(tensors).edges_and_slopes(u)
    assert not values.any()
    assert not slopes.any()


@pytest.mark.parametrize("basis", [Gaussian(5, 0.5), Sech2(5, 0.5)])
def test_centres_of_a_new_layer(basis):
    """The centres of a new layer lie on [-1, 1], its core interval, and its functions are small."""
    tensors = basis.initial(3, 2)
    torch.testing.assert_close(tensors["grid"], torch.linspace(-1, 1, 5).expand(2, -1))
    assert [float(end[0]) for end in basis.core(tensors)] == [-1, 1]
    assert 0 < float(tensors["coef"].abs().max()) < 0.05


def test_the_table_has_every_basis_by_its_own_name():
    """The kind in a document selects the basis of that name."""
    assert all(basis.kind == kind for kind, basis in BASES.items())
    assert set(BASES.values()) == set(BY_FORMULA), "each basis has its formula in BY_FORMULA above"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BSpline(0), "grid_size must be a whole number from 1 to 65536, but is 0"),
        (lambda: BSpline(True), "grid_size must be a whole number from 1 to 65536, but is True"),
        (lambda: BSpline(5, -1), "order must be a whole number from 0 to 65536, but is -1"),
        (lambda: Gaussian(0, 1.0), "centres must be a whole number from 1 to 65536, but is 0"),
        (lambda: Gaussian(3, 0.0), "denominator must be a positive number, but is 0.0"),
        (lambda: Sech2(3, float("nan")), "denominator must be a positive number, but is nan"),
        (lambda: Sech2(3, float("inf")), "denominator must be a positive number, but is inf"),
        (lambda: Chebyshev(10**9), "degree must be a whole number from 0 to 65536, but is 1000000000"),
        (lambda: Fourier("3"), "frequencies must be a whole number from 1 to 65536, but is '3'"),
    ],
)
def test_invalid_options_are_refused(make, sentence):
    """An invalid option is refused with one sentence that begins with its name."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == sentence


@given(bases, seeds, st.floats(0, 0.5))
def test_half_a_bump_hides_no_basis_function(basis, seed, offset):
    """Positions in bumps ascend, and by at most half over the length that is half a bump everywhere.

    Some of those half a bump apart show at least 0.15 of a height where knots are equally far apart: with
    twice the distance to one side it may be 0.1.
    """
    tensors, _ = random_tensors(basis, 2, 2, seed)
    if isinstance(basis, (Gaussian, Sech2)):
        assume(basis.denominator > 0.01)
    u = torch.linspace(-12, 12, 24_001, dtype=torch.float64)[:, None].expand(-1, 2)
    positions = basis.in_bumps(u, tensors)
    assume(positions is not None)  # of lines
    assert (positions.diff(dim=0) >= 0).all()
    assert (basis.in_bumps(u + basis.half_bump(tensors), tensors) - positions <= 0.5 + 1e-9).all()
    if "grid" in tensors:
        tensors["grid"] = torch.linspace(-3, 3, tensors["grid"].shape[1], dtype=torch.float64).expand(2, -1)
        positions = basis.in_bumps(u, tensors)
    chosen = int(np.random.default_rng(seed).integers(tensors["coef"].shape[2]))
    tensors["coef"] = torch.zeros_like(tensors["coef"]).index_fill_(2, torch.tensor([chosen]), 1.0)
    values = basis.functions(tensors).edges(u).abs()
    for i in range(2):
        seen = (2 * (positions[:, i] + offset)).floor().diff().nonzero().flatten()
        seen = torch.cat([torch.tensor([0, len(u) - 1]), seen, seen + 1])
        assert (values[seen, :, i].amax(dim=0) >= 0.15 * values[:, :, i].amax(dim=0)).all()
