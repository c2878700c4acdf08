"""B-spline basis functions, and extension of their knots beyond the core interval, as in pykan 0.2.8.

A grid of G intervals and order k has G + 2k + 1 knots: the core interval [knot k, knot k+G] and k knots beyond each
end. A curve is zero beyond the outermost knots. Source: de Boor 1978, "A Practical Guide to Splines", ch. IX;
Liu et al. 2024, arXiv 2404.19756, section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor


def extend_grid(core: Tensor, order: int) -> Tensor:
    """Adds `order` knots beyond each end, at the core's mean spacing.

    Args:
        core: knots of the core interval, (n_in, G+1), ascending.
        order: spline order k.

    Returns:
        Knots (n_in, G+2k+1).
    """
    spacing = (core[:, -1:] - core[:, :1]) / (core.shape[1] - 1)  # (n_in, 1)
    steps = torch.arange(1, order + 1, dtype=core.dtype)  # (k,)
    before = core[:, :1] - spacing * steps.flip(0)
    after = core[:, -1:] + spacing * steps
    return torch.cat([before, core, after], dim=1)


def count_intervals(x: Tensor, grid: Tensor) -> Tensor:
    """How many intervals of the knots (n_in, n_knots) lie below values (..., n_in), with the share of their own."""
    values = x.movedim(-1, 0).flatten(1).contiguous()  # (n_in, n_values)
    above = torch.searchsorted(grid.contiguous(), values, right=True).clamp(1, grid.shape[1] - 1)
    low, high = grid.gather(1, above - 1), grid.gather(1, above)
    share = ((values - low) / (high - low)).nan_to_num(0).clamp(0, 1)
    return (above - 1 + share).view(x.shape[-1], *x.shape[:-1]).movedim(0, -1)


def basis(x: Tensor, grid: Tensor, order: int) -> Tensor:
    """Values of every basis function, by the Cox-de Boor recursion (de Boor 1978, eq. IX.14).

    A quotient 0/0 counts as 0, so repeated knots are allowed.

    Args:
        x: positions, (batch, n_in).
        grid: knots, (n_in, G+2k+1), ascending.
        order: spline order k.

    Returns:
        (batch, n_in, G+k).
    """
    x, grid = x.T.contiguous(), grid.T.unsqueeze(-1)  # (n_in, batch), (G+2k+1, n_in, 1): long rows are the fastest
    values = ((x >= grid[:-1]) & (x < grid[1:])).to(x.dtype)  # order 0: (G+2k, n_in, batch)
    beyond = x - grid
    for k in range(1, order + 1):
        span = grid[k:] - grid[:-k]
        inverse = torch.where(span > 0, 1 / span.clamp_min(torch.finfo(span.dtype).tiny), 0)
        values = beyond[: -k - 1] * inverse[:-1] * values[:-1] - beyond[k + 1 :] * inverse[1:] * values[1:]
    if order == 0:
        values = values + (x - x)  # step functions alone would have no gradient
    return values.permute(2, 1, 0)


def basis_slopes(x: Tensor, grid: Tensor, order: int) -> Tensor:
    """First derivatives of the basis functions (de Boor 1978, eq. X.12), in the shape of `basis`; 0 at order 0."""
    if order == 0:
        return torch.zeros_like(basis(x, grid, 0))
    span = grid[:, order:] - grid[:, :-order]  # (n_in, G+k+1)
    inverse = torch.where(span > 0, order / span.clamp_min(torch.finfo(span.dtype).tiny), 0)
    lower = basis(x, grid, order - 1) * inverse
    return lower[..., :-1] - lower[..., 1:]


def curve(x: Tensor, grid: Tensor, coef: Tensor, order: int) -> Tensor:
    """Values of splines.

    Args:
        x: positions, (batch, n_in).
        grid: knots, (n_in, G+2k+1).
        coef: coefficients, (n_out, n_in, G+k).
        order: spline order k.

    Returns:
        (batch, n_out, n_in).
    """
    return torch.einsum("big,oig->boi", basis(x, grid, order), coef)


def fit_coefficients(x: Tensor, y: Tensor, grid: Tensor, order: int) -> Tensor:
    """Least-squares coefficients of the splines nearest to sampled curves, solved in float64.

    If the samples do not determine a coefficient (an interval without data), this is the minimum-norm solution.

    Args:
        x: positions, (batch, n_in).
        y: values there, (batch, n_out, n_in).
        grid: knots, (n_in, G+2k+1).
        order: spline order k.

    Returns:
        Coefficients (n_out, n_in, G+k), in the type of `y`.
    """
    design = basis(x.double(), grid.double(), order).transpose(0, 1)  # (n_in, batch, G+k)
    values = y.double().permute(2, 0, 1)  # (n_in, batch, n_out)
    solution: Tensor = torch.linalg.lstsq(design, values, driver="gelsd").solution  # (n_in, G+k, n_out)
    return solution.permute(2, 0, 1).to(y.dtype)
