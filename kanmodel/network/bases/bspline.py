"""The B-spline basis on grids of knots, as in pykan and efficient-kan.

Source: Liu et al. 2024, arXiv 2404.19756, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from kanmodel.checks import check_count
from kanmodel.network import splines
from kanmodel.network.bases.basis import EdgeFunctions, Shape, SharedBasis, Tensors
from kanmodel.network.pieces import Pieces


@dataclass(frozen=True)
class BSpline(SharedBasis):
    """Splines on the knots in ``grid``, (n_in, G+2k+1).

    Attributes:
        grid_size: intervals G of the core.
        order: order k; 3: cubic.
    """

    grid_size: int = 5
    order: int = 3

    kind: ClassVar[str] = "bspline"
    scaled: ClassVar[bool] = True
    has_knots: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count(self.grid_size, "grid_size")
        check_count(self.order, "order", lowest=0)

    def per_edge(self) -> Mapping[str, Shape]:
        return {"coef": (self.grid_size + self.order,)}

    def per_input(self) -> Mapping[str, Shape]:
        return {"grid": (self.grid_size + 2 * self.order + 1,)}

    def initial(self, n_sub: int, n_in: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """A uniform grid on [-1, 1] and small random splines, as in pykan."""
        core = torch.linspace(-1, 1, self.grid_size + 1).expand(n_in, -1)  # (n_in, G+1)
        grid = splines.extend_grid(core, self.order)
        noise = (torch.rand(self.grid_size + 1, n_sub, n_in, generator=generator) - 0.5) * 0.3 / self.grid_size
        return {"coef": splines.fit_coefficients(core.T, noise, grid, self.order), "grid": grid}

    def values(self, u: Tensor, tensors: Tensors) -> Tensor:
        return splines.basis(u, tensors["grid"], self.order)

    def slopes(self, u: Tensor, tensors: Tensors) -> Tensor:
        return splines.basis_slopes(u, tensors["grid"], self.order)

    def vary(self, low: Tensor, high: Tensor, tensors: Tensors) -> Tensor:
        """Differences of a spline that rises: its coefficients sum the magnitudes of the curve's differences.

        A slope sums differences of neighbouring coefficients by functions that are not negative (de Boor 1978, X.12).
        More knots, and coefficients as large as the last, let it go on beyond the curve's end.
        """
        grid, k = tensors["grid"], self.order
        more = grid[:, -1:] + torch.arange(1, k + 2, dtype=grid.dtype)
        sums = pad(tensors["coef"], (1, 1)).diff().abs().cumsum(dim=2)
        sums = torch.cat([sums, sums[:, :, -1:].expand(-1, -1, k)], dim=2)
        ends = [splines.curve(x.minimum(grid[:, -1]), torch.cat([grid, more], dim=1), sums, k) for x in (low, high)]
        return ends[1] - ends[0]

    def freeze(self, tensors: Tensors) -> EdgeFunctions:
        return Pieces(tensors["grid"], tensors["coef"], self.order)

    def in_bumps(self, u: Tensor, tensors: Tensors) -> Tensor:
        """A basis function lies over order + 1 intervals."""
        return splines.count_intervals(u, tensors["grid"]) / (self.order + 1)

    def core(self, tensors: Tensors) -> tuple[Tensor, Tensor]:
        return tensors["grid"][:, self.order], tensors["grid"][:, -self.order - 1]

    def refit(self, u: Tensor, tensors: Tensors, grid_eps: float) -> Tensors:
        """Moves the knots to the values, and refits each spline there by least squares.

        A curve that the new knots can represent does not change at the values; any other becomes the nearest spline. An
        input that does not vary keeps its knots. Source: Liu et al. 2024, arXiv 2404.19756, section 2.4, and pykan's
        `update_grid_from_samples`.
        """
        ordered = u.sort(dim=0).values
        curves = splines.curve(ordered, tensors["grid"], tensors["coef"], self.order)
        fractions = torch.linspace(0, 1, self.grid_size + 1, dtype=u.dtype)
        quantiles = ordered[(fractions * (len(u) - 1)).long()].T  # (n_in, G+1)
        uniform = quantiles[:, :1] + (quantiles[:, -1:] - quantiles[:, :1]) * fractions
        grid = splines.extend_grid(grid_eps * uniform + (1 - grid_eps) * quantiles, self.order)
        coef = splines.fit_coefficients(ordered, curves, grid, self.order)
        varies = ordered[-1] > ordered[0]  # (n_in,): equal knots would make the splines of a constant input vanish
        return {
            "grid": torch.where(varies[:, None], grid, tensors["grid"]),
            "coef": torch.where(varies[:, None], coef, tensors["coef"]),
        }
