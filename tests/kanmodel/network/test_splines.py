import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import interpolate
from thorough import examples

from kanmodel.network import splines
from kanmodel.network.bases import BSpline
from kanmodel.network.splines import PiecewisePolynomial

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
        element = interpolate.BSpline.basis_element(own, extrapolate=False)
        columns.append(np.nan_to_num((element.derivative(derivative) if derivative else element)(x)))
    return np.stack(columns, axis=1)


@settings(max_examples=examples(40))
@given(orders, grid_sizes, seeds)
def test_curve_values_and_slopes(order, grid_size, seed):
    """A curve and its slope by autograd equal scipy's spline and its derivative, also beyond the outermost knots."""
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


@st.composite
def grids(draw: st.DrawFn, order: int) -> torch.Tensor:
    """Ascending knots for one to three inputs: at even distances of each input's own, or any, some of them equal."""
    n_in, n_intervals = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    if draw(st.booleans()):
        widths = torch.tensor([[draw(st.sampled_from([0.01, 0.3, 1.0]))] for _ in range(n_in)], dtype=torch.float64)
        return widths * torch.arange(n_intervals + 2 * order + 1) - 1
    steps = st.lists(
        st.sampled_from([0.0, 0.01, 0.3, 1.0]), min_size=n_intervals + 2 * order, max_size=n_intervals + 2 * order
    )
    knots = torch.tensor([draw(steps) for _ in range(n_in)], dtype=torch.float64).cumsum(dim=1) - 1
    return torch.cat([torch.full((n_in, 1), -1.0, dtype=torch.float64), knots], dim=1)


@st.composite
def drawn_splines(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]:
    """A grid, coefficients, an order, and positions: on knots, next to them, inside and far outside the grid."""
    order = draw(st.integers(0, 5))
    grid = draw(grids(order))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    coef = torch.randn(2, len(grid), grid.shape[1] - 1 - order, generator=generator, dtype=torch.float64)
    within = torch.rand(len(grid), 20, generator=generator, dtype=torch.float64) * 8 - 2
    far = torch.tensor([[-1e30, -1e3, 1e3, 1e30]], dtype=torch.float64).expand(len(grid), -1)
    positions = torch.cat([grid, grid + 1e-7, grid - 1e-7, within, far], dim=1).T
    return grid, coef, order, positions


@given(drawn_splines(), st.sampled_from(["float64", "float32"]))
def test_pieces_are_the_splines(drawn, dtype):
    """For any order, grid and position, each curve, its slope and their sum equal those of the recursion."""
    grid, coef, order, x = drawn
    x.requires_grad_()
    (slope,) = torch.autograd.grad(splines.curve(x, grid, coef, order)[:, 0].sum(), x)
    _, slopes = PiecewisePolynomial(grid, coef, order).edges_and_slopes(x.detach())
    torch.testing.assert_close(slopes[:, 0], slope, rtol=1e-6, atol=1e-6)
    grid, coef, x = (values.detach().to(getattr(torch, dtype)) for values in (grid, coef, x))
    expected = splines.curve(x, grid, coef, order)  # (batch, n_out, n_in)
    pieces = PiecewisePolynomial(grid, coef, order)
    tolerance = {"rtol": 0, "atol": 1e-9 if dtype == "float64" else 1e-5}
    torch.testing.assert_close(pieces.edges(x), expected, **tolerance)
    torch.testing.assert_close(pieces.sums(x), expected.sum(dim=2), **tolerance)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 9])
@pytest.mark.parametrize("is_even", [True, False])
def test_what_is_not_finite_stays_so(is_even, n, order):
    """A spline above order 0 is NaN at NaN and infinities, as by the recursion, on any grid; other rows are not."""
    grid = splines.extend_grid(torch.linspace(-1, 1, 6)[None], order)
    grid[:, order + 2] += 0 if is_even else 0.1
    coef = torch.ones(1, 1, grid.shape[1] - 1 - order)
    frozen = PiecewisePolynomial(grid, coef, order)
    assert (frozen.even is not None) == (is_even and order > 1)
    for value in (torch.nan, torch.inf, -torch.inf):
        x = torch.full((n, 1), 0.5)
        x[0] = value
        expected = splines.curve(x, grid, coef, order)[:, :, 0]
        assert expected[0].isnan()
        torch.testing.assert_close(frozen.sums(x), expected, equal_nan=True)
        torch.testing.assert_close(frozen.edges(x)[:, :, 0], expected, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grids_that_are_even(dtype):
    """Initial grids and those in other ranges are even; one knot a thousandth of a distance away makes it uneven."""
    tensors = {name: tensor.to(dtype) for name, tensor in BSpline(5, 3).initial(2, 4).items()}
    for low, high in ((-1, 1), (-2.5, 0.3), (0, 1e-3)):
        core = torch.linspace(low, high, 6, dtype=torch.float64).expand(4, -1)
        grid = splines.extend_grid(core, 3).to(dtype)
        assert PiecewisePolynomial(grid, tensors["coef"], 3).even is not None
        grid[2, 4] += 1e-3 * (grid[2, 5] - grid[2, 4])
        assert PiecewisePolynomial(grid, tensors["coef"], 3).even is None
