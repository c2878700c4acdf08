"""The tables of a frozen network, compared with the readable definition: same forecasts, traces and gradients."""

from dataclasses import replace

import pytest
import torch
from factories import make_model
from hypothesis import given
from hypothesis import strategies as st
from strategies import networks

from kanmodel.network import splines as curves
from kanmodel.network.bases import BSpline
from kanmodel.network.config import plain_layers
from kanmodel.network.layer import KANLayer, pass_layers
from kanmodel.network.network import FrozenLayers, FrozenNetwork, Network
from kanmodel.network.splines import PiecewisePolynomial

EVERY_SHAPE = pytest.mark.parametrize("shape", ["lstm", "head", "front"])


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
def splines(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]:
    """A grid, coefficients, an order, and positions: on knots, next to them, inside and far outside the grid."""
    order = draw(st.integers(0, 5))
    grid = draw(grids(order))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    coef = torch.randn(2, len(grid), grid.shape[1] - 1 - order, generator=generator, dtype=torch.float64)
    within = torch.rand(len(grid), 20, generator=generator, dtype=torch.float64) * 8 - 2
    far = torch.tensor([[-1e30, -1e3, 1e3, 1e30]], dtype=torch.float64).expand(len(grid), -1)
    positions = torch.cat([grid, grid + 1e-7, grid - 1e-7, within, far], dim=1).T
    return grid, coef, order, positions


@given(splines(), st.sampled_from(["float64", "float32"]))
def test_pieces_are_the_splines(drawn, dtype):
    """For any order, grid and position, each curve and their sum equal those of the recursion."""
    grid, coef, order, x = drawn
    grid, coef, x = (values.to(getattr(torch, dtype)) for values in (grid, coef, x))
    expected = curves.curve(x, grid, coef, order)  # (batch, n_out, n_in)
    splines = PiecewisePolynomial(grid, coef, order)
    tolerance = {"rtol": 0, "atol": 1e-9 if dtype == "float64" else 1e-5}
    torch.testing.assert_close(splines.edges(x), expected, **tolerance)
    torch.testing.assert_close(splines.sums(x), expected.sum(dim=2), **tolerance)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 9])
@pytest.mark.parametrize("is_even", [True, False])
def test_what_is_not_finite_stays_so(is_even, n, order):
    """A spline above order 0 is NaN at NaN and infinities, as by the recursion, on any grid; other rows are not."""
    grid = curves.extend_grid(torch.linspace(-1, 1, 6)[None], order)
    grid[:, order + 2] += 0 if is_even else 0.1
    coef = torch.ones(1, 1, grid.shape[1] - 1 - order)
    frozen = PiecewisePolynomial(grid, coef, order)
    assert (frozen.even is not None) == (is_even and order > 1)
    for value in (torch.nan, torch.inf, -torch.inf):
        x = torch.full((n, 1), 0.5)
        x[0] = value
        expected = curves.curve(x, grid, coef, order)[:, :, 0]
        assert expected[0].isnan()
        torch.testing.assert_close(frozen.sums(x), expected, equal_nan=True)
        torch.testing.assert_close(frozen.edges(x)[:, :, 0], expected, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grids_that_are_even(dtype):
    """Initial grids and those in other ranges are even; one knot a thousandth of a distance away makes it uneven."""
    tensors = {name: tensor.to(dtype) for name, tensor in BSpline(5, 3).initial(2, 4).items()}
    for low, high in ((-1, 1), (-2.5, 0.3), (0, 1e-3)):
        core = torch.linspace(low, high, 6, dtype=torch.float64).expand(4, -1)
        grid = curves.extend_grid(core, 3).to(dtype)
        assert PiecewisePolynomial(grid, tensors["coef"], 3).even is not None
        grid[2, 4] += 1e-3 * (grid[2, 5] - grid[2, 4])
        assert PiecewisePolynomial(grid, tensors["coef"], 3).even is None


@given(splines())
def test_slopes_are_the_splines_gradients(drawn):
    """The slope of each curve equals autograd's gradient through the recursion."""
    grid, coef, order, x = drawn
    x = x.requires_grad_()
    (expected,) = torch.autograd.grad(curves.curve(x, grid, coef, order)[:, 0].sum(), x)
    _, slopes = PiecewisePolynomial(grid, coef, order).edges_and_slopes(x.detach())
    torch.testing.assert_close(slopes[:, 0], expected, rtol=1e-6, atol=1e-6)


def draw_windows(network, seed, n=5):
    shape = (n, *network.config.window_shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(networks(), st.integers(0, 99))
def test_a_frozen_network_is_the_network(network, seed):
    """For any chain, with dead, scaled, normalised or fixed parts, forecasts are the same."""
    windows, frozen = draw_windows(network, seed), FrozenNetwork(network)
    torch.testing.assert_close(frozen.forward(windows), network(windows), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(frozen.logits(windows), network.logits(windows), rtol=1e-9, atol=1e-9)


@given(networks(), st.integers(0, 99))
def test_a_frozen_trace_is_the_trace(network, seed):
    """Traced values are the same, and so are the gradients with respect to inputs and sub-nodes."""
    windows = draw_windows(network, seed).requires_grad_()
    found, expected = FrozenNetwork(network).trace(windows), network.trace(windows)
    torch.testing.assert_close(found.outputs, network(windows), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.readout, expected.readout, rtol=1e-9, atol=1e-9)
    pairs = list(zip((*found.front, *found.head), (*expected.front, *expected.head), strict=True))
    for ours, theirs in pairs:
        for name in ("inputs", "edges", "subnodes", "nodes"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(
        gradients(windows, found, [ours for ours, _ in pairs]),
        gradients(windows, expected, [theirs for _, theirs in pairs]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


@given(networks(), st.integers(0, 99))
def test_linearised_passes_have_the_gradients_of_autograd(network, seed):
    """Without autograd values are the same, and so are the gradients by inputs, readout and sub-nodes."""
    windows, frozen = draw_windows(network, seed).requires_grad_(), FrozenNetwork(network)
    expected, (found, pull_back) = frozen.trace(windows), frozen.linearise(windows.detach())
    torch.testing.assert_close(found.outputs, expected.outputs, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        torch.testing.assert_close(ours.edges, theirs.edges, rtol=1e-9, atol=1e-9)
    one = torch.zeros_like(found.outputs)
    one[:, 0] = 1
    ours = pull_back(one)
    watched = gradients(windows, expected, expected.layers)
    for own, theirs in zip((ours.window, *ours.values, *ours.subnodes), watched, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-7, atol=1e-7)


def gradients(windows, trace, layers):
    watched = [windows, trace.readout, *(layer.subnodes for layer in layers)]
    return torch.autograd.grad(trace.outputs[:, 0].sum(), watched, allow_unused=True, materialize_grads=True)


def test_unused_nodes_are_not_computed():
    """A hidden node whose edges are all masked is not computed by the layer before."""
    layers = [KANLayer(config).eval().requires_grad_(False) for config in plain_layers([4, 3, 1])]
    layers[1].mask[:, 1] = 0
    layers[0].mask[0, 3] = layers[0].mask[2, 3] = 0  # only input 3 reaches node 1
    frozen = FrozenLayers(layers)
    x = torch.randn(6, 4)
    assert [layer.inputs.tolist() for layer in frozen.layers] == [[0, 1, 2], [0, 2]]
    torch.testing.assert_close(frozen.forward(x), pass_layers(layers, x), rtol=0, atol=1e-6)


@EVERY_SHAPE
def test_float32_rounds_to_a_millionth(shape):
    """In float32, forecasts are as close to float64 as the network's own, to a millionth of a sub-node's sum."""
    model = make_model(shape, dtype="float32", product=True)
    exact = Network(replace(model.config, dtype="float64"))
    exact.load_state_dict(model.network.state_dict())
    exact.requires_grad_(False)
    expected = exact.trace(model.reference.scaled.double())
    added = max(float(trace.edges.abs().sum(dim=2).max()) for trace in expected.head)
    windows = model.reference.scaled
    found, plain = (
        (forward(windows) - expected.outputs).abs().max() for forward in (model.frozen.forward, model.network)
    )
    assert found <= plain + 1e-6 * max(added, 1)
