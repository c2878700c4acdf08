import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kanmodel import radial
from kanmodel.config import KANConfig
from kanmodel.errors import ConfigError
from kanmodel.kan import KAN, KANLayer

BASES = {"gaussian": radial.gaussian, "sech2": radial.sech2}
bases = st.sampled_from(sorted(BASES))
seeds = st.integers(0, 2**32 - 1)
denominators = st.floats(0.2, 3)


def by_hand(basis, distance):
    """The bump in numpy, sech as the exponentials it is made of."""
    if basis == "gaussian":
        return np.exp(-np.square(distance))
    return 4 / np.square(np.exp(distance) + np.exp(-distance))


def random_network(basis, seed, denominator, layer_norm=(True, False), base_activation="silu"):
    """A KAN [3, 2, 2] in float64 with random numbers in every tensor and some edges masked, and inputs for it."""
    config = KANConfig(
        width=((3, 0), (2, 0), (2, 0)),
        grid_size=(4, 6),
        spline_order=0,
        base_activation=base_activation,
        basis=basis,
        layer_norm=layer_norm,
        denominator=(denominator, denominator / 2),
    )
    generator = torch.Generator().manual_seed(seed)
    network = KAN(config).double().requires_grad_(False)
    for layer in network:
        for name, tensor in layer.state_dict().items():
            if name == "mask":
                tensor.copy_(torch.rand(tensor.shape, generator=generator) > 0.2)
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return network, torch.randn(20, 3, generator=generator, dtype=torch.float64)


@given(bases, denominators, seeds)
def test_values_and_slopes(basis, denominator, seed):
    """A bump has its formula's value at every distance, and its slope is that of small differences."""
    generator = torch.Generator().manual_seed(seed)
    x = (3 * torch.randn(30, 2, generator=generator, dtype=torch.float64)).requires_grad_()
    centres = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    values = BASES[basis](x, centres, denominator)
    distance = (x.detach().numpy()[:, :, None] - centres.numpy()) / denominator
    np.testing.assert_allclose(values.detach(), by_hand(basis, distance), rtol=1e-9, atol=1e-12)
    (slopes,) = torch.autograd.grad(values.sum(), x)
    step = 1e-5 / denominator
    differences = (by_hand(basis, distance + step) - by_hand(basis, distance - step)).sum(axis=2) / 2e-5
    np.testing.assert_allclose(slopes, differences, rtol=1e-6, atol=1e-6)


@given(bases, seeds)
def test_far_from_every_centre(basis, seed):
    """Bumps fade to exactly zero with a slope of zero, and to nothing else, however far an input is."""
    centres = torch.randn(1, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = torch.tensor([[-1e300], [-1e4], [1e4], [1e300]], dtype=torch.float64, requires_grad=True)
    values = BASES[basis](x, centres, 0.5)
    assert not values.any()
    assert not torch.autograd.grad(values.sum(), x)[0].any()


@given(
    bases,
    denominators,
    st.sampled_from(["silu", "identity", "zero"]),
    st.tuples(st.booleans(), st.booleans()),
    seeds,
)
def test_a_network_is_its_definition(basis, denominator, base_activation, layer_norm, seed):
    """The bumps see the normalised inputs, the base the inputs themselves, each layer with its own denominator."""
    network, x = random_network(basis, seed, denominator, layer_norm, base_activation)
    base = {"silu": lambda v: v / (1 + np.exp(-v)), "identity": lambda v: v, "zero": np.zeros_like}[base_activation]
    values = x.numpy()
    for layer, width in zip(network, (denominator, denominator / 2), strict=True):
        tensors = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
        u = values
        if layer.layer_norm:
            centred = values - values.mean(axis=1, keepdims=True)
            u = centred / np.sqrt(values.var(axis=1, keepdims=True) + 1e-5)
            u = u * tensors["norm_weight"] + tensors["norm_bias"]
        bumps = by_hand(basis, (u[:, :, None] - tensors["grid"]) / width)
        splines = tensors["scale_spline"] * np.einsum("big,jig->bji", bumps, tensors["coef"])
        edges = tensors["mask"] * (tensors["scale_base"] * base(values)[:, None] + splines)
        subnodes = tensors["subnode_scale"] * edges.sum(axis=2) + tensors["subnode_bias"]
        values = tensors["node_scale"] * subnodes + tensors["node_bias"]
    np.testing.assert_allclose(network(x), values, rtol=1e-9, atol=1e-9)


@given(bases, denominators, seeds)
def test_edges_sum_to_the_subnodes(basis, denominator, seed):
    """The edges of a trace add up to its sub-nodes, and a trace ends in what `forward` gives."""
    network, x = random_network(basis, seed, denominator)
    traces = network.trace(x)
    torch.testing.assert_close(traces[-1].nodes, network(x), rtol=1e-12, atol=1e-12)
    for layer, trace in zip(network, traces, strict=True):
        torch.testing.assert_close(trace.edges.sum(dim=2), layer.subnodes(trace.inputs), rtol=1e-12, atol=1e-12)


@given(bases, denominators, seeds)
def test_one_edge_at_normalised_positions(basis, denominator, seed):
    """An edge alone is what it adds to the whole, where its spline is given the input that the norm has passed."""
    network, x = random_network(basis, seed, denominator)
    layer = network[0]
    u = layer.normalise(x)
    base, spline, _ = layer.edge_parts(x)
    inputs = [2, 0]
    torch.testing.assert_close(layer.edge_parts_at(u[:, inputs], inputs)[1], spline[:, :, inputs], rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.edge_parts_at(x[:, inputs], inputs)[0], base[:, :, inputs], rtol=0, atol=1e-12)


def test_a_normalised_edge_depends_on_its_neighbours():
    """Behind a layer norm another input moves an edge; without one it does not."""
    network, x = random_network("gaussian", 3, 0.8)
    moved = x.clone()
    moved[:, 1] += 1
    for layer, depends in ((network[0], True), (random_network("gaussian", 3, 0.8, (False, False))[0][0], False)):
        layer.mask.fill_(1)
        assert torch.equal(layer.edges(x)[:, :, 0], layer.edges(moved)[:, :, 0]) is not depends


@given(bases)
def test_a_new_network(basis):
    """A network that was not loaded starts with centres on [-1, 1] and small splines."""
    config = KANConfig.uniform([2, 1], grid_size=5, basis=basis, spline_order=0, denominator=(0.5,))
    layer = KANLayer(config, 0)
    torch.testing.assert_close(layer.grid, torch.linspace(-1, 1, 5).expand(2, -1))
    assert [float(end[0]) for end in layer.core] == [-1, 1]
    assert 0 < float(layer.coef.detach().abs().max()) < 0.05


@given(bases)
def test_no_grid_to_update(basis):
    """Centres are not moved as knots are."""
    network = KAN(KANConfig.uniform([2, 1], basis=basis, spline_order=0, denominator=(0.5,)))
    with pytest.raises(ConfigError, match=f"only B-splines have knots to move, but the basis is {basis}"):
        network.update_grid(torch.randn(10, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"basis": "sech"}, "basis must be bspline, gaussian or sech2, but is 'sech'"),
        ({"basis": "gaussian", "denominator": (1.0, 1.0)}, "spline_order belongs to B-splines and must be 0, but is 3"),
        ({"basis": "gaussian", "spline_order": 0}, r"denominator must be 2 positive numbers, but is \[\]"),
        ({"basis": "sech2", "spline_order": 0, "denominator": (1.0,)}, "denominator must be 2 positive numbers"),
        ({"basis": "sech2", "spline_order": 0, "denominator": (1.0, 0.0)}, "denominator must be 2 positive numbers"),
        ({"basis": "sech2", "spline_order": 0, "denominator": (1.0, float("nan"))}, "denominator must be 2 positive"),
        ({"basis": "sech2", "spline_order": 0, "denominator": (1.0, float("inf"))}, "denominator must be 2 positive"),
        ({"denominator": (1.0, 1.0)}, "denominator must be 0 positive numbers"),
        ({"layer_norm": (True,)}, r"layer_norm must be one flag for each of 2 layers, but is \[True\]"),
    ],
)
def test_configs_that_cannot_exist(options, message):
    """A basis with the options of another is refused."""
    with pytest.raises(ConfigError, match=message):
        KANConfig.uniform([3, 2, 1], **options)
