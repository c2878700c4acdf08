"""A layer, compared with its definition, with torch's own modules, and with pykan."""

import numpy as np
import pytest
import torch
from goldens import PLAIN, load_case
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import layer_configs
from torch import nn

from kanmodel.network import splines
from kanmodel.network.bases import BSpline, Line
from kanmodel.network.config import LayerConfig, Transform, plain_layers
from kanmodel.network.functions import ACTIVATIONS, FUNCTIONS
from kanmodel.network.layer import KANLayer, pass_layers

seeds = st.integers(0, 2**32 - 1)
MODULES = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
}


def random_layer(config, seed):
    """A layer in float64 with random tensors, some masked edges, and inputs for it."""
    generator = torch.Generator().manual_seed(seed)
    layer = KANLayer(config).double().requires_grad_(False)
    for name, tensor in layer.state_dict().items():
        if "mask" in name:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) > 0.2)
        elif name == "grid":
            tensor.mul_(1.5).add_(torch.randn(len(tensor), 1, generator=generator) * 0.2)
        else:
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
            if name == "scale":
                tensor.abs_().add_(0.3)
    return layer, torch.randn(20, config.n_in, generator=generator, dtype=torch.float64)


def trace_in_a_row(layers, x):
    traces = []
    for layer in layers:
        traces.append(layer.trace(x))
        x = traces[-1].nodes
    return traces


def activation(kind, parameter):
    module = MODULES[kind]
    return module() if parameter is None else module(parameter)


def evaluate_by_hand(layer, x):
    """The definition of a layer, edge by edge, with torch's modules for the steps before it."""
    config, tensors = layer.config, layer.state_dict()
    of_base = of_basis = x
    for number, step in enumerate(config.before):
        if step.kind == "layer_norm":
            norm = nn.LayerNorm(config.n_in, eps=step.parameter).double()
        elif step.kind == "affine":
            norm = nn.BatchNorm1d(config.n_in, eps=0).double().eval()  # of mean 0 and variance 1
        if step.has_tensors:
            norm.load_state_dict(
                {key: tensors[f"before.{number}.{key}"] for key in ("weight", "bias")}, strict=step.kind == "layer_norm"
            )
            of_basis = norm(of_basis)
        else:
            of_basis = activation(step.kind, step.parameter)(of_basis)
        if config.base_after is None or number < config.base_after:
            of_base = of_basis
    names = (*config.basis.per_edge(), *config.basis.per_input())
    functions = config.basis.functions({name: tensors[name] for name in names}).edges(of_basis)
    subnodes = []
    for j in range(config.n_subnodes):
        total = torch.zeros(len(x), dtype=torch.float64)
        for i in range(config.n_in):
            edge = functions[:, j, i] * tensors.get("scale_spline", torch.ones_like(tensors["mask"]))[j, i]
            if config.base != "zero":
                base = activation(config.base, None)(of_base[:, i])
                edge = edge + tensors["scale_base"][j, i] * base
            total = total + tensors["mask"][j, i] * edge
            for number, fixed in enumerate(config.symbolic):
                if (fixed.i, fixed.j) == (i, j):
                    a, b, c, d = tensors["symbolic_affine"][number]
                    value = c * FUNCTIONS[fixed.function](a * of_base[:, i] + b) + d
                    total = total + tensors["symbolic_mask"][number] * value
        subnodes.append(tensors["subnode_scale"][j] * total + tensors["subnode_bias"][j])
    nodes, rest = subnodes[: config.n_sum], subnodes[config.n_sum :]
    for arity in config.mult_arity:
        nodes.append(torch.stack(rest[:arity]).prod(dim=0))
        rest = rest[arity:]
    return torch.stack(nodes, dim=1) * tensors["node_scale"] + tensors["node_bias"]


@given(layer_configs(3, symbolic=True), seeds)
def test_forward_is_the_definition(config, seed):
    """Any layer equals its formula, with any preceding steps, masks, products and fixed functions.

    In a trace the edges sum to sub-nodes; the parts of edges sum to them, and their slopes equal autograd's.
    """
    layer, x = random_layer(config, seed)
    expected = evaluate_by_hand(layer, x).detach()
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)
    trace, functions, (of_base, of_basis) = layer.trace(x), layer.functions(), layer.read(x)
    torch.testing.assert_close(trace.nodes, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(trace.inputs, x)
    assert trace.edges.shape == (20, config.n_subnodes, config.n_in)
    torch.testing.assert_close(trace.edges.sum(dim=2), trace.subnodes, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(functions.sums(of_base, of_basis), trace.subnodes, rtol=1e-9, atol=1e-9)
    parts, slopes = functions.parts(of_base, of_basis)
    torch.testing.assert_close(parts.total, trace.edges, rtol=1e-9, atol=1e-9)
    for j in range(config.n_subnodes):
        v, u = (values.clone().requires_grad_() for values in (of_base, of_basis))
        total = functions.edges(v, u)[:, j].sum()
        by_v, by_u = torch.autograd.grad(total, (v, u), allow_unused=True, materialize_grads=True)
        torch.testing.assert_close(slopes.base[:, j] + slopes.symbolic[:, j], by_v, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(slopes.basis[:, j], by_u, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", sorted(ACTIVATIONS))
def test_a_layer_after_an_activation_is_torchs(kind):
    """A linear layer after a LayerNorm and an activation, with biases, equals torch's in value and gradient."""
    torch.manual_seed(0)
    linear, norm = nn.Linear(4, 3).double(), nn.LayerNorm(4, eps=1e-3).double()
    for tensor in (norm.weight, norm.bias):
        nn.init.normal_(tensor)
    steps = Transform("layer_norm", 1e-3), Transform(kind)
    layer = KANLayer(LayerConfig(4, 3, Line(), "zero", steps)).double().requires_grad_(False)
    layer.coef.copy_(linear.weight[:, :, None])
    layer.subnode_bias.copy_(linear.bias)
    layer.before[0].weight.copy_(norm.weight)
    layer.before[0].bias.copy_(norm.bias)
    x = 2 * torch.randn(30, 4, dtype=torch.float64, requires_grad=True)
    expected = nn.Sequential(norm, MODULES[kind](), linear)(x)
    weights = torch.randn_like(expected)
    (slope,) = torch.autograd.grad((expected * weights).sum(), x)
    for found in (layer(x), layer.trace(x).nodes):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), x)[0], slope, rtol=1e-9, atol=1e-9)


@given(layer_configs(3, symbolic=True), seeds)
def test_a_trace_of_frozen_functions_is_that_of_the_layer(config, seed):
    """Values are equal, and so are the gradients of nodes by inputs and by sub-nodes."""
    layer, x = random_layer(config, seed)
    x = x.requires_grad_()
    expected, found = layer.trace(x), layer.trace(x, layer.functions(frozen=True))
    weights = torch.arange(1.0, config.n_out + 1, dtype=x.dtype)
    for name in ("edges", "subnodes", "nodes"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-7, atol=1e-7)
    of_each = [torch.autograd.grad((trace.nodes @ weights).sum(), (x, trace.subnodes)) for trace in (expected, found)]
    for one, other in zip(*of_each, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-6)


@given(layer_configs(3, symbolic=True, mixes=False), seeds, st.booleans())
def test_functions_of_some_edges(config, seed, frozen):
    """Edges selected by input and sub-node, at given positions, equal those among all."""
    layer, x = random_layer(config, seed)
    inputs, subnodes = torch.tensor([2, 0]), torch.arange(config.n_subnodes).flip(0)[:2]
    scale = torch.linspace(0.5, 2, len(subnodes), dtype=torch.float64)
    some = layer.functions(inputs, subnodes, scale, frozen).edges(*layer.read(x[:, inputs], inputs))
    expected = layer.edges(x)[:, subnodes][:, :, inputs] * scale[:, None]
    torch.testing.assert_close(some, expected, rtol=1e-9, atol=1e-9)


@given(layer_configs(3, mixes=False), seeds)
def test_a_masked_edge_adds_exactly_nothing(config, seed):
    """An edge with mask 0 is 0 everywhere, and an input without live edges changes nothing."""
    layer, x = random_layer(config, seed)
    layer.mask_edges(torch.tensor([False, True, False]).expand(config.n_subnodes, -1))
    assert not layer.edges(x)[:, :, 1].any()
    assert not layer.acts[:, 1].any()
    moved = x.clone()
    moved[:, 1] += 0.7
    assert torch.equal(layer(moved), layer(x))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-6)])
@pytest.mark.parametrize("name", PLAIN)
def test_predictions_of_pykan(name, dtype, tolerance):
    """Predictions equal pykan's in float64 and float32."""
    if name in ("proxy20", "mult_arity3") and dtype == "float32":
        tolerance = 2e-6  # sums of 140 terms and products of three sums: rounding depends on the processor
    case = load_case(name, dtype)
    expected = case.expected("predictions")
    inputs = case.windows("eval")[:, -1]
    for outputs in (pass_layers(case.model.network.head, inputs), case.model.network.trace(inputs[:, None]).outputs):
        assert outputs.dtype == expected.dtype
        assert ((outputs - expected).abs() <= tolerance * expected.abs().clamp_min(1)).all()


@pytest.mark.parametrize("name", ["pykan_head", "constant_input"])
def test_curves_of_pykan(name):
    """Base part, spline part and sum of edges equal pykan's on, between and beyond the knots."""
    case = load_case(name)
    for number, edge in enumerate(case.document["curves"]):
        stored = {key: case.arrays[f"curves/{number}/{key}"] for key in ("x", "base", "spline", "total", "scales")}
        mask, scale_base, scale_spline = stored["scales"]
        layer = case.model.network.head[edge["layer"]]
        x = torch.zeros(len(stored["x"]), layer.grid.shape[0], dtype=torch.float64)
        x[:, edge["i"]] = torch.from_numpy(stored["x"])
        parts, _ = layer.functions().parts(*layer.read(x))
        base, spline = (part[:, edge["j"], edge["i"]].numpy() for part in (parts.base, parts.basis))
        np.testing.assert_allclose(base, mask * scale_base * stored["base"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(spline, mask * scale_spline * stored["spline"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(base + spline, stored["total"], rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 8), seeds)
def test_a_grid_update_to_the_same_knots_keeps_every_edge(order, grid_size, seed):
    """Data uniform over the core interval keeps the knots and thus the edges, for any spline scale."""
    layer, _ = random_layer(LayerConfig(2, 2, BSpline(grid_size, order)), seed)
    low, high = layer.core
    x = low + (high - low) * torch.linspace(0, 1, 20 * grid_size + 1, dtype=torch.float64)[:, None]
    inside = x[1:-1]
    knots, edges = layer.grid.clone(), layer.trace(inside).edges
    layer.update_grid(x, grid_eps=1.0)
    torch.testing.assert_close(layer.grid, knots, rtol=0, atol=1e-6)
    torch.testing.assert_close(layer.trace(inside).edges, edges, rtol=0, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 8), st.floats(0, 1), seeds)
def test_a_grid_update_follows_the_data(grid_size, grid_eps, seed):
    """Knots move to each layer's inputs, and curves that any grid can represent, cubics, stay the same there."""
    layers = [random_layer(config, seed)[0] for config in plain_layers([2, 3, 1], BSpline(grid_size))]
    x = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, size=(200, 2)))
    for layer in layers:
        layer.grid.mul_(4)
        layer.mask.fill_(1)
        low, high = layer.core
        sample = low + (high - low) * torch.linspace(0, 1, 400, dtype=torch.float64)[:, None]
        cubics = torch.stack([sample**3 / 20 - sample, 0.3 * sample**2, 1 - sample**3 / 9], dim=1)
        layer.coef.copy_(splines.fit_coefficients(sample, cubics[:, : len(layer.coef)], layer.grid, 3))
        layer.scale_base.mul_(0.1)
        layer.scale_spline.uniform_(0.2, 0.5)
    before = trace_in_a_row(layers, x)
    assume((before[1].inputs.abs() < 5).all())  # within the old grid
    reaching = x
    for layer in layers:
        layer.update_grid(reaching, grid_eps)
        reaching = layer(reaching)
    for layer, old, new in zip(layers, before, trace_in_a_row(layers, x), strict=True):
        torch.testing.assert_close(layer.core[0], old.inputs.min(dim=0).values, rtol=0, atol=1e-5)
        torch.testing.assert_close(layer.core[1], old.inputs.max(dim=0).values, rtol=0, atol=1e-5)
        torch.testing.assert_close(new.edges, old.edges, rtol=0, atol=1e-4)


def test_a_grid_update_leaves_the_edges_of_a_constant_input():
    """An input that never varies keeps its knots and edges, since equal knots would make the edges vanish."""
    layer, x = random_layer(LayerConfig(2, 3), seed=4)
    x[:, 1] = 0.3
    before, knots = layer.edges(x), layer.grid.clone()
    layer.update_grid(x)
    assert torch.equal(layer.grid[1], knots[1])
    assert torch.equal(layer.edges(x)[:, :, 1], before[:, :, 1])
    assert not torch.equal(layer.grid[0], knots[0])


@given(seeds)
def test_a_linear_layer_makes_its_edges_when_they_are_asked_for(seed):
    """Its sums and gradients are products with its weights; its edges are those of its function."""
    torch.manual_seed(seed)
    steps = (Transform("tanh"),)
    layer = KANLayer(LayerConfig(5, 3, Line(), "zero", steps)).double().requires_grad_(False)
    layer.mask.copy_(torch.rand_like(layer.mask).round())
    x, by_nodes = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    trace, pull_back = layer.linearise(x, layer.functions(frozen=True))
    assert "edges" not in vars(trace)
    torch.testing.assert_close(trace.edges, layer.edges(x))
    torch.testing.assert_close(trace.subnodes, trace.edges.sum(dim=2))
    moving = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(layer(moving), moving, by_nodes)
    torch.testing.assert_close(pull_back(by_nodes)[1], expected)
