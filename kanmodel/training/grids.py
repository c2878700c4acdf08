"""Grid extension of trained B-splines (Liu et al. 2024, section 2.4; pykan's `refine`)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kanmodel.errors import ConfigError
from kanmodel.forecaster import Forecaster, Provenance
from kanmodel.network import splines
from kanmodel.network.bases import BSpline
from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.network.network import Network

PROVED = 1e-4  # of an output's standard deviation: models that differ by less forecast the same, in float32 too


def refine_model(model: Forecaster, grid_size: int) -> Forecaster:
    """The same model on finer grids; raises as `refine_grids`.

    Its provenance states the largest difference between the predictions of both for the reference windows. The metrics
    and intervals are kept if that is below 1e-4 of the output's standard deviation.
    """
    network = refine_grids(model.network, grid_size)
    with torch.no_grad():
        differences = (network(model.reference.scaled) - model.reference_outputs).double().abs()
    of_output = differences.amax(dim=0).numpy() * model.scaling.output_scale
    relative = float((of_output / model.output_std).max())
    provenance = replace(
        Provenance.now("refine_grid", verified=relative <= PROVED, parent=model),
        difference=float(of_output.max()),
        relative_difference=relative,
    )
    kept = replace(model, network=network, provenance=provenance, sha256="", name="model")
    return kept if provenance.verified else replace(kept, metrics={}, intervals=None, tested=None)


def refine_grids(network: Network, grid_size: int) -> Network:
    """Grid extension: a new network whose B-splines have `grid_size` intervals and are nearest to the old ones.

    The new knots are between the old ones, evenly by index as in pykan; those beyond the core interval do not move. If
    the new number of intervals is a multiple of the old one, no function changes anywhere, up to rounding (Boehm 1980,
    knot insertion). Otherwise each spline is fitted by least squares (Liu et al. 2024, arXiv 2404.19756, eq. 2.16).

    Raises ConfigError if there is no B-spline, or one already has as many intervals.
    """
    refined = Network(refine_config(network.config, grid_size))
    tensors = network.state_dict()
    for (stage, number), layer in network.layers.items():
        basis = layer.config.basis
        if isinstance(basis, BSpline):
            grid, coef = (f"{stage}.{number}.{name}" for name in ("grid", "coef"))
            finer = refine_knots(tensors[grid], basis.order, grid_size)
            tensors[coef] = refit(tensors[grid], tensors[coef], finer, basis.order)
            tensors[grid] = finer
    refined.load_state_dict(tensors)
    return refined.eval().requires_grad_(False)


def refine_config(config: ModelConfig, grid_size: int) -> ModelConfig:
    """The architecture with `grid_size` intervals in every B-spline; raises the errors of `refine_grids`."""

    def refine(layer: LayerConfig) -> LayerConfig:
        basis = layer.basis
        if not isinstance(basis, BSpline):
            return layer
        if grid_size <= basis.grid_size:
            raise ConfigError(f"a finer grid needs more than {basis.grid_size} intervals, but grid_size is {grid_size}")
        return replace(layer, basis=replace(basis, grid_size=grid_size))

    refuse_without_knots(config)
    return replace(config, front=tuple(map(refine, config.front)), head=tuple(map(refine, config.head)))


def refuse_without_knots(config: ModelConfig) -> None:
    """Raises ConfigError if no layer of the model has a B-spline basis."""
    layers = (*config.front, *config.head)
    if not any(layer.basis.has_knots for layer in layers):
        bases = " and ".join(dict.fromkeys(layer.basis.kind for layer in layers))
        raise ConfigError(f"the model has no knots to move: its basis is {bases}, and only B-splines have knots")


def refine_knots(grid: Tensor, order: int, grid_size: int) -> Tensor:
    """Knots (n_in, G'+2k+1) from (n_in, G+2k+1), k the order: G' core intervals, evenly by index between the old."""
    size = grid.shape[1] - 2 * order - 1
    places = torch.arange(grid_size + 1) * size  # indices of the new knots among the old, times G'
    left = (places // grid_size).clamp_max(size - 1)
    fraction = (places - left * grid_size).to(grid.dtype) / grid_size
    core = torch.lerp(grid[:, order + left], grid[:, order + left + 1], fraction)
    return torch.cat([grid[:, :order], core, grid[:, order + size + 1 :]], dim=1)


def refit(grid: Tensor, coef: Tensor, finer: Tensor, order: int) -> Tensor:
    """Coefficients (n_out, n_in, G'+k) on finer knots (n_in, G'+2k+1) of the splines nearest to the old ones.

    Those are `coef` (n_out, n_in, G+k) on `grid` (n_in, G+2k+1), k the order; nearest between the outermost knots.
    """
    knots = torch.cat([grid, finer], dim=1).double().sort(dim=1).values
    fractions = (torch.arange(order + 2, dtype=torch.float64) + 0.5) / (order + 2)  # enough for a piece of order k
    x = (knots[:, :-1, None] + knots.diff(dim=1)[:, :, None] * fractions).flatten(1).T  # (n_points, n_in)
    curves = splines.curve(x, grid.double(), coef.double(), order)
    return splines.fit_coefficients(x, curves, finer, order).to(coef.dtype)
