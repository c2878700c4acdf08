"""The tables against the readable definition: the same forecasts, the same traces, the same gradients."""

from dataclasses import replace

import pytest
import torch
from factories import make_model
from hypothesis import given
from hypothesis import strategies as st
from strategies import kan_configs, model_configs

from kanmodel import bspline
from kanmodel.config import KANConfig, SymbolicEdge
from kanmodel.frozen import FrozenKAN, FrozenNetwork, TracedKAN
from kanmodel.kan import KAN
from kanmodel.network import LSTMKAN
from kanmodel.pieces import Pieces

EVERY_SHAPE = pytest.mark.parametrize("shape", ["lstm", "head", "front"])
ALMOST_ALL_FUNCTIONS = ("x", "x^2", "sin", "tanh", "exp", "gaussian", "abs", "sin")


@st.composite
def grids(draw: st.DrawFn, order: int) -> torch.Tensor:
    """Ascending knots of one to three inputs, some of them equal."""
    n_in, n_intervals = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    steps = st.lists(
        st.sampled_from([0.0, 0.01, 0.3, 1.0]), min_size=n_intervals + 2 * order, max_size=n_intervals + 2 * order
    )
    knots = torch.tensor([draw(steps) for _ in range(n_in)], dtype=torch.float64).cumsum(dim=1) - 1
    return torch.cat([torch.full((n_in, 1), -1.0, dtype=torch.float64), knots], dim=1)


@st.composite
def splines(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]:
    """A grid, coefficients, an order, and positions: on each knot, next to it, within and far beyond the grid."""
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
    """At any order, on any grid and anywhere, each curve and their sum are those of the recursion."""
    grid, coef, order, x = drawn
    grid, coef, x = (values.to(getattr(torch, dtype)) for values in (grid, coef, x))
    expected = bspline.curve(x, grid, coef, order)  # (batch, n_out, n_in)
    pieces = Pieces(grid, coef, order)
    tolerance = {"rtol": 0, "atol": 1e-9 if dtype == "float64" else 1e-5}
    torch.testing.assert_close(pieces.curves(x).transpose(1, 2), expected, **tolerance)
    torch.testing.assert_close(pieces.sums(x), expected.sum(dim=2), **tolerance)


@given(splines())
def test_slopes_are_the_splines_gradients(drawn):
    """The gradient of each curve is what autograd finds by way of the recursion."""
    grid, coef, order, x = drawn
    x = x.requires_grad_()
    curves = (
        bspline.curve(x, grid, coef, max(order, 1))[:, 0] if order else bspline.curve(x, grid, coef, 0)[:, 0] + 0 * x
    )
    (expected,) = torch.autograd.grad(curves.sum(), x)
    (slopes,) = torch.autograd.grad(Pieces(grid, coef, order).curves(x)[:, :, 0].sum(), x)
    torch.testing.assert_close(slopes, expected, rtol=1e-6, atol=1e-6)


@st.composite
def kans(draw: st.DrawFn) -> KAN:
    """KANs with dead edges and nodes, adaptive grids, scales of any sign, zeros among them, and fixed functions."""
    config = draw(kan_configs(3, draw(st.integers(1, 2))))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    symbolic = {}
    for layer in range(config.depth):
        for _ in range(draw(st.integers(0, 3))):
            i = draw(st.integers(0, config.n_nodes[layer] - 1))
            j = draw(st.integers(0, config.n_subnodes[layer + 1] - 1))
            symbolic[layer, i, j] = draw(st.sampled_from(ALMOST_ALL_FUNCTIONS))
    edges = tuple(SymbolicEdge(*place, function) for place, function in symbolic.items())
    norms = tuple(draw(st.booleans()) for _ in range(config.depth))
    if draw(st.booleans()):
        centres = {"basis": draw(st.sampled_from(["gaussian", "sech2"])), "spline_order": 0}
        config = replace(config, **centres, denominator=(0.5,) * config.depth)
    kan = KAN(replace(config, symbolic=edges, layer_norm=norms)).double()
    with torch.no_grad():
        for name, values in kan.state_dict().items():
            if "grid" not in name:
                noise = torch.randn(values.shape, generator=generator, dtype=values.dtype)
                sparse = torch.rand(values.shape, generator=generator) < 0.4
                values.copy_(torch.where(sparse, 0, 1) if "mask" in name else torch.where(sparse, 0, 0.5 * noise))
        if config.basis == "bspline" and draw(st.booleans()):
            kan.update_grid(torch.randn(40, 3, generator=generator, dtype=torch.float64))
    return kan.eval().requires_grad_(False)


@given(kans(), st.integers(0, 99))
def test_a_frozen_kan_is_the_kan(kan, seed):
    """Whatever is dead, scaled, shifted, multiplied, normalised or fixed, forecasts stay the same."""
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(FrozenKAN(kan).forward(x), kan(x), rtol=1e-9, atol=1e-9)


@given(kans(), st.integers(0, 99))
def test_a_traced_kan_is_the_kan(kan, seed):
    """What passes is the same, and so are the gradients of the outputs with respect to inputs and sub-nodes."""
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    found, expected = TracedKAN(kan).trace(x), kan.trace(x)
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("inputs", "edges", "subnodes", "nodes"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(gradients(x, found), gradients(x, expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


def gradients(x, traces):
    watched = [x, *(trace.subnodes for trace in traces)]
    return torch.autograd.grad(traces[-1].nodes.sum(), watched, allow_unused=True, materialize_grads=True)


@given(model_configs(), st.integers(0, 99))
def test_a_frozen_network_is_the_network(config, seed):
    """Forecasters of every shape, with fronts, several layers, both directions and products, forecast the same."""
    torch.manual_seed(seed)
    network = LSTMKAN(config).eval().requires_grad_(False)
    window = torch.randn(3, config.lookback, len(config.features), dtype=getattr(torch, config.dtype))
    expected = network(window)
    frozen = FrozenNetwork(network)
    tolerance = 1e-6 if config.dtype == "float32" else 1e-12
    for found in (frozen.forward(window), frozen.trace(window).outputs):
        assert ((found - expected).abs() <= tolerance * expected.abs().clamp_min(1)).all()


def test_what_acts_on_nothing_is_left_out():
    """A hidden node whose edges are all masked costs nothing: the layer before doesn't compute it."""
    kan = KAN(KANConfig.uniform([4, 3, 1])).eval().requires_grad_(False)
    kan[1].mask[:, 1] = 0
    kan[0].mask[0, 3] = kan[0].mask[2, 3] = 0  # input 3 reaches node 1 alone
    frozen = FrozenKAN(kan)
    x = torch.randn(6, 4)
    assert [layer.inputs.tolist() for layer in frozen.layers] == [[0, 1, 2], [0, 2]]
    torch.testing.assert_close(frozen.forward(x), kan(x), rtol=0, atol=1e-6)


@EVERY_SHAPE
def test_float32_rounds_to_a_millionth(shape):
    """In float32, forecasts are as near to float64 as the network's own, to a millionth of a sub-node's sum."""
    model = make_model(shape, dtype="float32", product=True)
    exact = LSTMKAN(replace(model.config, dtype="float64"))
    exact.load_state_dict(model.network.state_dict())
    exact.requires_grad_(False)
    expected = exact.trace(model.reference.windows.double())
    added = max(float(trace.edges.abs().sum(dim=2).max()) for trace in expected.head)
    windows = model.reference.windows
    found, plain = (
        (forward(windows) - expected.outputs).abs().max() for forward in (model.frozen.forward, model.network)
    )
    assert found <= plain + 1e-6 * max(added, 1)
