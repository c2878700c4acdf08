from copy import deepcopy

import pytest
import torch
from factories import make_model
from goldens import load_case

from kanmodel.errors import DataError
from kanmodel.network.bases import Gaussian, Line
from kanmodel.network.config import LayerConfig, ModelConfig, RecurrentConfig, Transform, plain_layers
from kanmodel.network.layer import KANLayer, pass_layers
from kanmodel.network.network import Network
from kanmodel.tables.columns import Feature, Target
from kanmodel.training.optimization import TrainingOptions, sparsity_penalty, update_grids

# pykan 0.2.8: get_reg("edge_forward_spline_n", lamb_l1=1, lamb_entropy=2, lamb_coef=0, lamb_coefdiff=0), float64
PYKAN_PENALTIES = {
    "interp4": 5.689760160688618,
    "proxy20": 8.260985740461432,
    "mult": 8.50212525956912,
    "mult_arity3": 7.993148211209879,
    "mult_arity_lists": 6.7941381847112154,
    "constant_input": 6.387125003585872,
    "pykan_head": 8.875831160995826,
}


@pytest.mark.parametrize("name", PYKAN_PENALTIES)
def test_the_penalty_is_that_of_pykan(name):
    """The regulariser equals pykan's for trained networks, also with product nodes and constant inputs."""
    case = load_case(name)
    trace = case.model.network.trace(case.windows("reference"))
    assert sparsity_penalty(trace.head).item() == pytest.approx(PYKAN_PENALTIES[name], abs=1e-9)


def test_the_penalty_has_a_gradient_where_an_input_never_changes():
    """A constant input, with standard deviation 0, has finite gradients."""
    layer = KANLayer(LayerConfig(2, 3))
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 0.5
    sparsity_penalty((layer.trace(x),)).backward()
    assert all(torch.isfinite(weight.grad).all() for weight in layer.parameters())


@pytest.mark.parametrize("shape", ["lstm", "front"])
def test_a_grid_update_moves_every_kan_to_its_own_data(shape):
    """After an update the core interval of each layer ends where the layer's data ends."""
    network = make_model(shape).network
    windows = torch.randn(64, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    update_grids(network, windows)
    trace = network.trace(windows)
    for stage, layers in network.stages.items():
        for layer, passed in zip(layers, trace.stages[stage], strict=True):
            low, high = layer.core
            torch.testing.assert_close(low, passed.inputs.amin(dim=0), atol=1e-6, rtol=0)
            torch.testing.assert_close(high, passed.inputs.amax(dim=0), atol=1e-6, rtol=0)


def test_a_grid_update_follows_the_layer_norm():
    """Downstream of a layer norm the knots span the normalised inputs, and each curve is the nearest spline to the old.

    Within the old grid, edges stay the same up to what the new knots can represent.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [
            KANLayer(config).double()
            for config in plain_layers([3, 4, 2], before=(Transform("layer_norm"),), base_after=0)
        ]
        x = 40 + 10 * torch.randn(300, 3, dtype=torch.float64)  # far outside the grids
        for layer in layers:
            layer.before[0].weight.uniform_(0.5, 1.5)
            layer.before[0].bias.uniform_(-0.5, 0.5)
            layer.grid.mul_(4)  # so wide that all normalised inputs lie inside
    before, reaching = pass_layers(layers, x), x
    for layer in layers:
        layer.update_grid(reaching)
        _, normalised = layer.read(reaching)
        torch.testing.assert_close(layer.core[0], normalised.amin(dim=0))
        torch.testing.assert_close(layer.core[1], normalised.amax(dim=0))
        reaching = layer(reaching)
    assert ((reaching - before) ** 2).mean() < 1e-3 * before.var()


def test_layers_without_knots_stay():
    """A grid update moves B-splines only, not radial bases or linear edges."""
    features = tuple(Feature(name) for name in "abc")
    network = Network(
        ModelConfig(
            features=features,
            targets=(Target("y"),),
            lookback=2,
            horizon=1,
            head=(LayerConfig(4, 2, Gaussian(5, 0.5)), LayerConfig(2, 1, Line(), "zero")),
            recurrent=RecurrentConfig("lstm", 4),
            front=plain_layers([3, 3]),
        )
    )
    front, head = (deepcopy(layers.state_dict()) for layers in (network.front, network.head))
    update_grids(network, 40 + 10 * torch.randn(150, 2, 3))
    assert not torch.equal(network.front[0].grid, front["0.grid"])
    assert all(torch.equal(tensor, head[name]) for name, tensor in network.head.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs must be at least 0, but is -1"),
        ({"lamb": -1.0}, "lamb must lie between 0 and 1000000000, but is -1.0"),
        ({"noise": float("nan")}, "noise must be a finite number, but is nan"),
        ({"validation_share": 1.0}, "validation_share must lie between 0 and 1, but is 1.0"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options, message):
    """The error has the option, its bound and its value."""
    with pytest.raises(DataError, match=message):
        TrainingOptions(**options)


def test_the_penalty_is_that_of_a_mean_over_outputs():
    """A last layer of the same edges into each of many nodes is penalised as one of one node; one output as pykan's."""
    one, many = (KANLayer(plain_layers([3, n])[0]) for n in (1, 4))
    with torch.no_grad():
        for name, tensor in many.state_dict().items():
            of_one = one.state_dict()[name]
            tensor.copy_(of_one.expand_as(tensor) if of_one.shape != tensor.shape else of_one)
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    scales = [(layer.trace(x).edges.std(dim=0) / (x.std(dim=0) + 0.1)).detach() for layer in (one, many)]
    of_one, of_many = (scale.sum() for scale in scales)
    assert of_many == pytest.approx(4 * of_one.item(), rel=1e-5)
    alone = sparsity_penalty((many.trace(x),), 1) - sparsity_penalty((many.trace(x),), 4)
    assert alone.item() == pytest.approx(0.75 * of_many.item(), rel=1e-4)
