import numpy as np
import pytest
import torch
from factories import make_model
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.errors import ConfigError
from kanmodel.network import splines
from kanmodel.network.bases import Gaussian
from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.network.network import Network
from kanmodel.tables.columns import Feature, Target
from kanmodel.training.grids import refine_grids, refine_knots, refine_model, refit


@st.composite
def random_splines(draw):
    """Uneven knots, as after training, and coefficients: (grid, coef, order)."""
    order, size, n_in, n_out = draw(st.integers(0, 4)), draw(st.integers(1, 7)), draw(st.integers(1, 3)), 2
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    steps = 0.05 + torch.rand(n_in, size, generator=generator, dtype=torch.float64)
    core = torch.cat([torch.zeros(n_in, 1, dtype=torch.float64), steps.cumsum(dim=1)], dim=1) - 3
    coef = torch.randn(n_out, n_in, size + order, generator=generator, dtype=torch.float64)
    return splines.extend_grid(core, order), coef, order


def positions(grid, n=400):
    """Positions everywhere, also beyond the outermost knots, (n, n_in)."""
    fractions = torch.linspace(-0.1, 1.1, n, dtype=grid.dtype)[:, None]
    return grid[:, 0] + (grid[:, -1] - grid[:, 0]) * fractions


@given(random_splines(), st.integers(2, 5))
def test_a_nested_grid_holds_every_spline_exactly(given_splines, times):
    """On a grid with a multiple of the intervals each function is the old one, also beyond the core interval."""
    grid, coef, order = given_splines
    size = coef.shape[2] - order
    finer = refine_knots(grid, order, times * size)
    assert finer.shape == (len(grid), times * size + 2 * order + 1) and (finer.diff(dim=1) > 0).all()
    assert all(torch.isin(knots, more).all() for knots, more in zip(grid, finer, strict=True))
    x = positions(grid)
    refined = splines.curve(x, finer, refit(grid, coef, finer, order), order)
    torch.testing.assert_close(refined, splines.curve(x, grid, coef, order), atol=1e-9, rtol=0)


@given(random_splines(), st.integers(1, 9))
def test_no_spline_on_the_finer_grid_is_nearer(given_splines, more):
    """The new coefficients solve the least-squares problem: changing any of them increases the distance."""
    grid, coef, order = given_splines
    finer = refine_knots(grid, order, coef.shape[2] - order + more)
    found = refit(grid, coef, finer, order)
    knots = torch.cat([grid, finer], dim=1).sort(dim=1).values  # as many points between two knots as `refit` uses
    fractions = (torch.arange(order + 2, dtype=torch.float64) + 0.5) / (order + 2)
    x = (knots[:, :-1, None] + knots.diff(dim=1)[:, :, None] * fractions).flatten(1).T
    errors = splines.curve(x, finer, found, order) - splines.curve(x, grid, coef, order)
    slopes = torch.einsum("boi,big->oig", errors, splines.basis(x, finer, order))
    assert slopes.abs().max() < 1e-8


@pytest.mark.parametrize("shape", ["head", "lstm", "front"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_on_a_nested_grid_forecasts_the_same(shape, dtype):
    """Forecasts agree to rounding, with product nodes, masks and scales; the original model is not changed."""
    model = make_model(shape, product=True, dtype=dtype)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    refined = refine_model(model, 20)  # from 4 and 5
    assert all(layer.basis.grid_size == 20 for layers in refined.config.stages.values() for layer in layers)
    windows = 3 * model.reference.scaled  # also outside the grids
    tolerance = {"float32": 1e-4, "float64": 1e-10}[dtype]
    torch.testing.assert_close(refined.network(windows), model.network(windows), atol=tolerance, rtol=tolerance)
    provenance = refined.provenance
    assert (provenance.source, provenance.verified) == (
        "refine_grid",
        True,
    ) and provenance.relative_difference < tolerance
    assert refined.metrics == model.metrics
    assert all(torch.equal(before[name], tensor) for name, tensor in model.network.state_dict().items())


def test_the_difference_of_a_grid_that_is_not_nested_is_stated():
    """The largest difference of a forecast is given in its unit and in standard deviations; metrics are dropped."""
    model = make_model("head", dtype="float64")
    refined = refine_model(model, 7)
    windows = model.scaling.features_to_original(model.reference.scaled)
    differences = np.abs(refined.predict(windows) - model.predict(windows))
    assert refined.provenance.difference == pytest.approx(differences.max(), rel=1e-6)
    relative = (differences / model.output_std).max()
    assert refined.provenance.relative_difference == pytest.approx(relative, rel=1e-6)
    assert relative > 1e-5 and not refined.provenance.verified and refined.metrics == {}


def test_a_finer_grid_is_nearer():
    """If grids are not nested, more knots give a smaller distance to the old functions."""
    model = make_model("head", dtype="float64")
    differences = [refine_model(model, size).provenance.relative_difference for size in (7, 27, 107)]
    assert differences[0] > 4 * differences[1] > 16 * differences[2]


def test_a_grid_that_is_not_finer_is_refused():
    model = make_model("head")
    with pytest.raises(ConfigError, match="a finer grid needs more than 5 intervals, but grid_size is 5"):
        refine_model(model, 5)


def test_a_model_without_knots_is_refused_and_lines_stay():
    """Radial bases have no knots; in a mixed model only the B-splines get a finer grid."""
    options = {"features": (Feature("a"), Feature("b")), "targets": (Target("y"),), "lookback": 1, "horizon": 1}
    bumps = LayerConfig(2, 2, Gaussian(5, 0.5))
    with pytest.raises(ConfigError, match="the model has no knots to move: its basis is gaussian"):
        refine_grids(Network(ModelConfig(head=(bumps, LayerConfig(2, 1, Gaussian(5, 0.5))), **options)), 10)
    network = Network(ModelConfig(head=(bumps, LayerConfig(2, 1)), **options))
    refined = refine_grids(network, 10)
    assert refined.config.head[0] == bumps and refined.config.head[1].basis.grid_size == 10
    x = torch.randn(50, 1, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(refined(x), network(x), atol=1e-5, rtol=1e-5)
