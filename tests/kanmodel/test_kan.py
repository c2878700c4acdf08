import numpy as np
import pytest
import torch
from goldens import PLAIN, SCORED, load_case
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline
from strategies import kan_configs
from thorough import examples

from kanmodel import bspline, kan
from kanmodel.config import KANConfig
from kanmodel.kan import KAN

seeds = st.integers(0, 2**32 - 1)


def random_kan(config, seed):
    """A KAN in float64 with random numbers in every tensor, some edges masked."""
    generator = torch.Generator().manual_seed(seed)
    network = KAN(config).double().requires_grad_(False)
    for layer in network:
        for name, tensor in layer.state_dict().items():
            if name == "mask":
                tensor.copy_(torch.rand(tensor.shape, generator=generator) > 0.2)
            elif name == "grid":
                tensor.mul_(1.5).add_(torch.randn(len(tensor), 1, generator=generator) * 0.2)
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return network, torch.randn(20, config.n_nodes[0], generator=generator, dtype=torch.float64)


def evaluate_by_hand(network, x):
    """The definition, edge by edge in numpy with scipy's splines."""
    base = {"silu": lambda v: v / (1 + np.exp(-v)), "identity": lambda v: v, "zero": np.zeros_like}
    config = network.config
    for number, layer in enumerate(network):
        tensors = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
        order, subnodes = config.spline_order, []
        for j in range(config.n_subnodes[number + 1]):
            total = np.zeros(len(x))
            for i in range(config.n_nodes[number]):
                spline = np.zeros(len(x))
                for c, weight in enumerate(tensors["coef"][j, i]):
                    element = BSpline.basis_element(tensors["grid"][i, c : c + order + 2], extrapolate=False)
                    spline += weight * np.nan_to_num(element(x[:, i]))
                edge = tensors["scale_base"][j, i] * base[config.base_activation](x[:, i])
                total += tensors["mask"][j, i] * (edge + tensors["scale_spline"][j, i] * spline)
            subnodes.append(tensors["subnode_scale"][j] * total + tensors["subnode_bias"][j])
        n_sum, nodes = config.width[number + 1][0], []
        nodes, rest = subnodes[:n_sum], subnodes[n_sum:]
        for arity in config.mult_arity[number + 1]:
            nodes.append(np.prod(rest[:arity], axis=0))
            rest = rest[arity:]
        x = np.stack(nodes, axis=1) * tensors["node_scale"] + tensors["node_bias"]
    return x


@settings(max_examples=examples(30))
@given(kan_configs(n_in=2, n_out=2), seeds)
def test_forward_is_the_definition(config, seed):
    """Any KAN gives what its formula gives, with sum nodes, product nodes of any arity, masks and affine maps."""
    network, x = random_kan(config, seed)
    expected = evaluate_by_hand(network, x.numpy())
    np.testing.assert_allclose(network(x), expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=examples(30))
@given(kan_configs(n_in=3, n_out=1), seeds)
def test_trace_is_forward(config, seed):
    """A trace holds what passes: each layer reads the one before, and the last hands on the output."""
    network, x = random_kan(config, seed)
    traces = network.trace(x)
    torch.testing.assert_close(traces[-1].nodes, network(x), rtol=1e-12, atol=1e-12)
    for number, (layer, trace) in enumerate(zip(network, traces, strict=True)):
        assert torch.equal(trace.inputs, traces[number - 1].nodes if number else x)
        assert trace.edges.shape == (20, config.n_subnodes[number + 1], config.n_nodes[number])
        torch.testing.assert_close(trace.edges.sum(dim=2), layer.subnodes(trace.inputs), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sum(layer.edge_parts(trace.inputs)), trace.edges, rtol=0, atol=0)


@settings(max_examples=examples(20))
@given(kan_configs(n_in=3, n_out=1), seeds)
def test_a_masked_edge_adds_exactly_nothing(config, seed):
    """An edge whose mask is 0 is 0 everywhere, and an input without live edges changes nothing."""
    network, x = random_kan(config, seed)
    network[0].mask[:, 1] = 0
    assert not network.trace(x)[0].edges[:, :, 1].any()
    moved = x.clone()
    moved[:, 1] += 0.7
    assert torch.equal(network(moved), network(x))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-6)])
@pytest.mark.parametrize("name", PLAIN)
def test_predictions_of_pykan(name, dtype, tolerance):
    """Predictions are pykan's, in float64 and in float32."""
    if name in ("proxy20", "mult_arity3") and dtype == "float32":
        tolerance = 2e-6  # sums of 140 terms, products of three sums: rounding differs by the processor
    case = load_case(name, dtype)
    expected = case.expected("predictions")
    inputs = case.windows("eval")[:, -1]
    for outputs in (case.model.network.head(inputs), case.model.network.head.trace(inputs)[-1].nodes):
        assert outputs.dtype == expected.dtype
        assert ((outputs - expected).abs() <= tolerance * expected.abs().clamp_min(1)).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-6)])
def test_predictions_of_pykan_outside_the_grid(dtype, tolerance):
    """Inputs three times as large, far outside the grid, give what pykan gives."""
    case = load_case("pykan_head", dtype)
    expected = case.expected("head_of_hidden_times_3")
    outputs = case.model.network.head(case.expected("hidden")[:16] * 3)
    assert ((outputs - expected).abs() <= tolerance * expected.abs().clamp_min(1)).all()


@pytest.mark.parametrize("name", ["pykan_head", "constant_input"])
def test_curves_of_pykan(name):
    """Edges sampled on, between and beyond their knots have pykan's base part, spline part and sum."""
    case = load_case(name)
    for number, edge in enumerate(case.document["curves"]):
        stored = {key: case.arrays[f"curves/{number}/{key}"] for key in ("x", "base", "spline", "total", "scales")}
        mask, scale_base, scale_spline = stored["scales"]
        layer = case.model.network.head[edge["layer"]]
        x = torch.zeros(len(stored["x"]), layer.grid.shape[0], dtype=torch.float64)
        x[:, edge["i"]] = torch.from_numpy(stored["x"])
        base, spline, _ = (part[:, edge["j"], edge["i"]].numpy() for part in layer.edge_parts(x))
        np.testing.assert_allclose(base, mask * scale_base * stored["base"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(spline, mask * scale_spline * stored["spline"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(base + spline, stored["total"], rtol=0, atol=1e-12)


@settings(max_examples=examples(40))
@given(st.integers(1, 4).flatmap(lambda n: kan_configs(n_in=n, n_out=2)))
def test_tensor_shapes_by_arithmetic(config):
    """Names and shapes of tensors, and the number of edges, are known without making the network."""
    network = KAN(config)
    assert kan.tensor_shapes(config) == {name: tuple(t.shape) for name, t in network.state_dict().items()}
    assert kan.n_edges(config) == sum(layer.mask.numel() for layer in network)


@pytest.mark.parametrize("name", SCORED)
def test_number_of_edges(name):
    """A KAN of pykan's widths has as many edges as pykan's tensors."""
    case = load_case(name)
    assert kan.n_edges(case.model.config.head) == sum(layer.mask.numel() for layer in case.model.network.head)


@settings(max_examples=examples(20))
@given(st.integers(1, 4), st.integers(1, 8), seeds)
def test_a_grid_update_to_the_same_knots_keeps_every_edge(order, grid_size, seed):
    """Uniform data over the core leaves the knots, and so the edges stay, whatever scales the splines."""
    network, _ = random_kan(KANConfig.uniform([2, 2], grid_size, spline_order=order), seed)
    layer = network[0]
    low, high = layer.core
    x = low + (high - low) * torch.linspace(0, 1, 20 * grid_size + 1, dtype=torch.float64)[:, None]
    inside = x[1:-1]
    knots, edges = layer.grid.clone(), layer.trace(inside).edges
    network.update_grid(x, grid_eps=1.0)
    torch.testing.assert_close(layer.grid, knots, rtol=0, atol=1e-6)
    torch.testing.assert_close(layer.trace(inside).edges, edges, rtol=0, atol=1e-5)


@settings(max_examples=examples(20))
@given(st.integers(3, 8), st.floats(0, 1), seeds)
def test_a_grid_update_follows_the_data(grid_size, grid_eps, seed):
    """Knots move to what reaches each layer, and curves that fit on any grid, cubics, stay the same there."""
    network, _ = random_kan(KANConfig.uniform([2, 3, 1], grid_size), seed)
    x = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, size=(200, 2)))
    for layer in network:
        layer.grid.mul_(4)
        layer.mask.fill_(1)
        low, high = layer.core
        sample = low + (high - low) * torch.linspace(0, 1, 400, dtype=torch.float64)[:, None]
        cubics = torch.stack([sample**3 / 20 - sample, 0.3 * sample**2, 1 - sample**3 / 9], dim=1)
        layer.coef.copy_(bspline.fit_coefficients(sample, cubics[:, : len(layer.coef)], layer.grid, 3))
        layer.scale_base.mul_(0.1)
        layer.scale_spline.uniform_(0.2, 0.5)
    before = network.trace(x)
    assume((before[1].inputs.abs() < 5).all())  # within the old grid
    network.update_grid(x, grid_eps)
    for layer, old, new in zip(network, before, network.trace(x), strict=True):
        torch.testing.assert_close(layer.core[0], old.inputs.min(dim=0).values, rtol=0, atol=1e-5)
        torch.testing.assert_close(layer.core[1], old.inputs.max(dim=0).values, rtol=0, atol=1e-5)
        torch.testing.assert_close(new.edges, old.edges, rtol=0, atol=1e-4)


def test_a_grid_update_leaves_the_edges_of_a_constant_input():
    """An input that never varies keeps its knots and its edges: knots that are all equal would make them vanish."""
    network, x = random_kan(KANConfig.uniform([2, 3], 5), seed=4)
    x[:, 1] = 0.3
    layer = network[0]
    before, knots = layer.edges(x), layer.grid.clone()
    network.update_grid(x)
    assert torch.equal(layer.grid[1], knots[1])
    assert torch.equal(layer.edges(x)[:, :, 1], before[:, :, 1])
    assert not torch.equal(layer.grid[0], knots[0])
