"""B-splines in piecewise-polynomial form: the same curves as `splines`, several times as fast.

Between two knots a spline of order k is a polynomial of degree k (de Boor 1978, ch. IX). A table holds its coefficients
in u = (x - knot) / (next knot - knot), for every input, interval and curve. A value then needs one comparison with the
knots and k + 1 rows of the table, for any spacing of the knots.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from kanmodel.network import splines


class Pieces:
    """The splines on all edges from n_in inputs to n_out sub-nodes.

    Args:
        grid: knots, (n_in, G+2k+1), ascending; equal knots have no interval between them.
        weights: coefficients, (n_out, n_in, G+k).
        order: spline order k.

    Attributes:
        knots: (n_knots, 1, n_in).
        first: row in the table of each input's first interval, (n_in,). Interval b is after b knots; before the first
            knot and after the last the splines are zero.
        start: knot at which each interval begins, (n_rows,).
        inverse_width: of each interval, (n_rows,).
        table: coefficients, the constant first, (n_rows, k+1, n_out).
        order: spline order k.
    """

    def __init__(self, grid: Tensor, weights: Tensor, order: int) -> None:
        n_in, n_knots = grid.shape
        coefficients, width = _polynomials(grid.double(), weights.double(), order)
        self.knots = grid.T.unsqueeze(1).contiguous()
        self.first = torch.arange(n_in) * (n_knots + 1)
        self.start = _with_outer(grid.double()[:, :-1].contiguous()).flatten().to(grid.dtype)
        self.inverse_width = _with_outer(torch.where(width > 0, 1 / width, 0)).flatten().to(grid.dtype)
        self.table = _with_outer(coefficients).flatten(0, 1).to(weights.dtype)
        self._rows = self.table.flatten(0, 1).contiguous()  # (n_in * (n_knots+1) * (k+1), n_out)
        self.order = order
        self._powers = torch.arange(order + 1)

    def sums(self, x: Tensor) -> Tensor:
        """Sums over the inputs, (batch, n_in) -> (batch, n_out); not differentiable."""
        if has_torch_function_unary(x):  # for ONNX export, whose graph computes sums differently
            return handle_torch_function(Pieces.sums, (x,), self, x)
        interval, u = self._locate(x)
        powers = [torch.ones_like(u), u]
        while len(powers) <= self.order:
            powers.append(powers[-1] * u)
        weights = torch.stack(powers[: self.order + 1], dim=2).flatten(1)  # (batch, n_in * (k+1))
        rows = (interval.unsqueeze(2) * (self.order + 1) + self._powers).flatten()
        starts = torch.arange(x.shape[0]) * weights.shape[1]
        return torch.embedding_bag(self._rows, rows, starts, per_sample_weights=weights.flatten())[0]

    def edges(self, x: Tensor) -> Tensor:
        """All values, (batch, n_in) -> (batch, n_out, n_in); the gradient is the slope of the same polynomials."""
        values: Tensor = _Edges.apply(x, self)  # type: ignore[no-untyped-call]
        return values

    def edges_and_slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and first derivatives at (batch, n_in), both (batch, n_out, n_in), by Horner's rule."""
        interval, u = self._locate(x)
        terms = self.table[interval]  # (batch, n_in, k+1, n_out)
        u = u.unsqueeze(2)
        values, slopes = terms[:, :, -1], torch.zeros_like(terms[:, :, -1])
        for power in range(self.order - 1, -1, -1):
            slopes = torch.addcmul(values, slopes, u)
            values = torch.addcmul(terms[:, :, power], values, u)
        return values.transpose(1, 2), (slopes * self.inverse_width[interval].unsqueeze(2)).transpose(1, 2)

    def _locate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The interval of each position, as a row of the table, and the position in it: two of (batch, n_in)."""
        below = (x >= self.knots).sum(0)
        interval = below + self.first
        return interval, (x - self.start.take(interval)) * self.inverse_width.take(interval)


class _Edges(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pieces: Pieces) -> Tensor:
        values, slopes = pieces.edges_and_slopes(x)
        ctx.save_for_backward(slopes)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return (gradient * slopes).sum(dim=1), None


def _polynomials(grid: Tensor, weights: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Polynomial coefficients of every curve on every interval, and the widths of the intervals, in float64.

    Each polynomial interpolates the curve at k + 1 Chebyshev points inside the interval.

    Returns:
        (n_in, G+2k, k+1, n_out), the constant first; and (n_in, G+2k).
    """
    n_in, n_intervals = grid.shape[0], grid.shape[1] - 1
    points = (1 - torch.cos((torch.arange(order + 1, dtype=grid.dtype) + 0.5) * torch.pi / (order + 1))) / 2
    width = grid.diff(dim=1)
    positions = grid[:, :-1, None] + width[:, :, None] * points  # (n_in, n_intervals, k+1)
    basis = splines.basis(positions.flatten(1).T, grid, order)  # (n_intervals * (k+1), n_in, G+k)
    values = torch.einsum("pig,oig->ipo", basis, weights).view(n_in, n_intervals, order + 1, len(weights))
    vandermonde = points[:, None] ** torch.arange(order + 1)
    coefficients = torch.linalg.solve(vandermonde, values)
    return torch.where(width[:, :, None, None] > 0, coefficients, 0), width


def _with_outer(values: Tensor) -> Tensor:
    """Adds zeros before the first and after the last interval, (n_in, n_intervals, ...)."""
    outer = torch.zeros_like(values[:, :1])
    return torch.cat([outer, values, outer], dim=1)
