import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline
from thorough import examples

from kanmodel.network import splines

orders = st.integers(0, 4)
grid_sizes = st.integers(1, 8)
seeds = st.integers(0, 2**32 - 1)


def random_knots(seed, grid_size, order, smallest_step=0.05):
    """Knots for two inputs, (2, G+2k+1), and 60 positions around them but on none, (60, 2)."""
    rng = np.random.default_rng(seed)
    steps = rng.uniform(smallest_step, 1, size=(2, grid_size + 2 * order + 1))
    knots = rng.normal() + steps.cumsum(axis=1)
    x = rng.uniform(knots[:, 0] - 0.5, knots[:, -1] + 0.5, size=(60, 2))
    return torch.from_numpy(knots), torch.from_numpy(x)


def basis_by_scipy(x, knots, order, derivative=0):
    """Every basis function of one input, (batch, G+k), by scipy; zero outside its own knots."""
    columns = []
    for first in range(len(knots) - order - 1):
        own = knots[first : first + order + 2]
        if own[0] == own[-1]:
            columns.append(np.zeros(len(x)))
            continue
        element = BSpline.basis_element(own, extrapolate=False)
        columns.append(np.nan_to_num((element.derivative(derivative) if derivative else element)(x)))
    return np.stack(columns, axis=1)


@settings(max_examples=examples(40))
@given(orders, grid_sizes, seeds)
def test_basis_values(order, grid_size, seed):
    """Every basis function has scipy's value between the knots, in their extension and beyond."""
    knots, x = random_knots(seed, grid_size, order)
    values = splines.basis(x, knots, order)
    assert values.shape == (60, 2, grid_size + order)
    for i in range(2):
        np.testing.assert_allclose(values[:, i], basis_by_scipy(x[:, i].numpy(), knots[i].numpy(), order), atol=1e-12)


@settings(max_examples=examples(40))
@given(orders, grid_sizes, seeds)
def test_curve_values_and_slopes(order, grid_size, seed):
    """A curve and its slope by autograd equal scipy's spline and its derivative."""
    knots, x = random_knots(seed, grid_size, order)
    coef = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 2, grid_size + order)))
    x.requires_grad_()
    y = splines.curve(x, knots, coef, order)
    for j in range(3):
        slope = torch.zeros_like(x)
        if order:  # steps have slope 0 and no graph
            (slope,) = torch.autograd.grad(y[:, j].sum(), x, retain_graph=True)
        for i in range(2):
            at, own, weights = x[:, i].detach().numpy(), knots[i].numpy(), coef[j, i].numpy()
            np.testing.assert_allclose(y[:, j, i].detach(), basis_by_scipy(at, own, order) @ weights, atol=1e-11)
            expected = basis_by_scipy(at, own, order, derivative=1) @ weights if order else np.zeros(60)
            np.testing.assert_allclose(slope[:, i], expected, atol=1e-9)


@settings(max_examples=examples(40))
@given(orders, grid_sizes, seeds)
def test_partition_of_unity(order, grid_size, seed):
    """Inside the core interval the basis functions sum to 1."""
    knots, _ = random_knots(seed, grid_size, order)
    first, last = knots[:, order], knots[:, -order - 1]
    fractions = torch.linspace(0, 1 - 1e-9, 50, dtype=torch.float64)[:, None]
    sums = splines.basis(first + (last - first) * fractions, knots, order).sum(dim=2)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-12)


@settings(max_examples=examples(40))
@given(orders, grid_sizes, seeds, st.floats(0, 1e6))
def test_zero_beyond_the_outermost_knots(order, grid_size, seed, distance):
    """Before the first knot, and from the last knot on, every basis function is exactly 0."""
    knots, _ = random_knots(seed, grid_size, order)
    outside = torch.stack([torch.nextafter(knots[:, 0], torch.tensor(-np.inf)) - distance, knots[:, -1] + distance])
    assert not splines.basis(outside, knots, order).any()


@settings(max_examples=examples(60))
@given(st.integers(1, 4), st.lists(st.integers(0, 3), min_size=3, max_size=8), seeds)
def test_repeated_knots(order, repeats, seed):
    """With repeated knots 0/0 counts as 0: values equal scipy's, and gradients are finite."""
    rng = np.random.default_rng(seed)
    distinct = rng.normal() + rng.uniform(0.1, 1, size=len(repeats)).cumsum()
    knots = np.repeat(distinct, np.array(repeats) + 1)
    knots = np.concatenate([knots, knots[-1] + np.arange(1, max(0, 2 * order + 2 - len(knots)) + 1)])
    x = torch.from_numpy(rng.uniform(knots[0] - 0.5, knots[-1] + 0.5, size=(40, 1))).requires_grad_()
    values = splines.basis(x, torch.from_numpy(knots)[None], order)
    np.testing.assert_allclose(
        values[:, 0].detach(), basis_by_scipy(x[:, 0].detach().numpy(), knots, order), atol=1e-10
    )
    (slope,) = torch.autograd.grad(values.square().sum(), x)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_knots(dtype):
    """A grid of equal knots, as a constant input gives, has basis functions and slopes of 0."""
    knots = torch.full((1, 12), 0.5, dtype=dtype)
    x = torch.tensor([[0.0], [0.5], [1.0]], dtype=dtype, requires_grad=True)
    values = splines.basis(x, knots, 3)
    (slope,) = torch.autograd.grad(values.sum(), x)
    assert not values.any()
    assert not slope.any()


@settings(max_examples=examples(40))
@given(orders, grid_sizes, seeds)
def test_fit_recovers_a_curve_in_the_span(order, grid_size, seed):
    """A curve that is a spline on the grid is fitted by its own coefficients."""
    core = random_knots(seed, grid_size, 0, smallest_step=0.2)[0]
    knots = splines.extend_grid(core, order)
    coef = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 2, grid_size + order)))
    fractions = torch.linspace(1e-6, 1 - 1e-6, 40 * (grid_size + order), dtype=torch.float64)[:, None]
    x = core[:, 0] + (core[:, -1] - core[:, 0]) * fractions
    fitted = splines.fit_coefficients(x, splines.curve(x, knots, coef, order), knots, order)
    torch.testing.assert_close(fitted, coef, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        splines.curve(x, knots, fitted, order), splines.curve(x, knots, coef, order), rtol=0, atol=1e-11
    )


def test_fit_without_data_in_an_interval():
    """Without samples in an interval the fit passes through all others, with the smallest coefficients."""
    knots = splines.extend_grid(torch.linspace(-1, 1, 9, dtype=torch.float64)[None], 3)
    x = torch.linspace(-1, -0.5, 20, dtype=torch.float64)[:, None]
    y = x.sin()[:, None]  # (batch, 1, 1)
    coef = splines.fit_coefficients(x, y, knots, 3)
    torch.testing.assert_close(splines.curve(x, knots, coef, 3), y, rtol=0, atol=1e-5)
    assert not coef[0, 0, 6:].any()  # functions that begin after the data


def test_fit_keeps_the_type():
    """Curves in float32 have coefficients in float32, although the system is solved in float64."""
    knots = splines.extend_grid(torch.linspace(-1, 1, 6)[None], 3)
    x = torch.linspace(-1, 1, 50)[:, None]
    assert splines.fit_coefficients(x, x[:, None] ** 2, knots, 3).dtype == torch.float32


@settings(max_examples=examples(40))
@given(orders, grid_sizes, seeds)
def test_extend_grid(order, grid_size, seed):
    """The core knots stay, with k knots at their mean spacing added on either side."""
    core = random_knots(seed, grid_size, 0)[0]
    knots = splines.extend_grid(core, order)
    assert knots.shape == (2, grid_size + 2 * order + 1)
    assert torch.equal(knots[:, order : order + grid_size + 1], core)
    spacing = (core[:, -1] - core[:, 0]) / grid_size
    for step in range(1, order + 1):
        torch.testing.assert_close(knots[:, order - step], core[:, 0] - step * spacing)
        torch.testing.assert_close(knots[:, order + grid_size + step], core[:, -1] + step * spacing)
