"""B-splines: their basis functions as in pykan 0.2.8, least-squares fits, and a faster piecewise-polynomial form.

A grid of G intervals and order k has G + 2k + 1 knots, ascending: the core interval [knot k, knot k+G] and k knots
beyond each end. A curve is zero beyond the outermost knots. In all functions x is (batch, n_in), grid (n_in, G+2k+1),
coef (n_out, n_in, G+k), and order is k.

Source: de Boor 1978, "A Practical Guide to Splines", ch. IX; Liu et al. 2024, arXiv 2404.19756, section 2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from kanmodel.arrays import Array

FEW = 4  # rows up to which a product for each is faster than one sum over rows of the table
ROUNDING = 8  # times the precision of the type: by so much of their distance knots may lie off an even grid


def extend_grid(core: Tensor, order: int) -> Tensor:
    """Adds `order` knots beyond each end of core knots (n_in, G+1), at their mean spacing; (n_in, G+2k+1)."""
    spacing = (core[:, -1:] - core[:, :1]) / (core.shape[1] - 1)  # (n_in, 1)
    steps = torch.arange(1, order + 1, dtype=core.dtype)  # (k,)
    return torch.cat([core[:, :1] - spacing * steps.flip(0), core, core[:, -1:] + spacing * steps], dim=1)


def basis(x: Tensor, grid: Tensor, order: int) -> Tensor:
    """Values of every basis function, (batch, n_in, G+k), by the Cox-de Boor recursion (de Boor 1978, eq. IX.14).

    A quotient 0/0 counts as 0, so repeated knots are allowed.
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
    """Values of splines, (batch, n_out, n_in)."""
    return torch.einsum("big,oig->boi", basis(x, grid, order), coef)


def fit_coefficients(x: Tensor, y: Tensor, grid: Tensor, order: int) -> Tensor:
    """Least-squares coefficients of the splines nearest to values y, (batch, n_out, n_in), at x; solved in float64.

    If the samples do not determine a coefficient (an interval without data), this is the minimum-norm solution.
    """
    design = basis(x.double(), grid.double(), order).transpose(0, 1)  # (n_in, batch, G+k)
    values = y.double().permute(2, 0, 1)  # (n_in, batch, n_out)
    solution: Tensor = torch.linalg.lstsq(design, values, driver="gelsd").solution  # (n_in, G+k, n_out)
    return solution.permute(2, 0, 1).to(y.dtype)


class Even(NamedTuple):
    """Knots at even distances: their positions are whole numbers there, 0 in the middle or just below it."""

    origin: Array  # the knot with position 0, (n_in,)
    inverse_width: Array  # (n_in,)
    first: int  # the position of the interval before the first knot
    last: int  # of that after the last one
    rows: NDArray[np.int32]  # of the table, of each input's interval after position 0, (n_in,)


class PiecewisePolynomial:
    """The splines on all edges from n_in inputs to n_out sub-nodes, several times as fast as `curve`.

    Between two knots a spline of order k is a polynomial of degree k. A table holds its coefficients in
    u = (x - knot) / (next knot - knot) for every input, interval and curve, so a value needs its interval and k + 1
    rows of the table; equal knots have no interval between them. Interval b is after b knots; before the first knot and
    after the last the splines are zero. Rounding a position down finds its interval where the knots are `even`, for
    k > 1: there neither values nor slopes jump at a knot. Elsewhere positions are compared with all knots.
    """

    def __init__(self, grid: Tensor, coef: Tensor, order: int) -> None:
        def in_rows(values: Tensor, like: Tensor) -> Tensor:
            """(n_in, n_intervals, ...), with zeros before the first and after the last interval, -> (n_rows, ...)."""
            outer = torch.zeros_like(values[:, :1])
            return torch.cat([outer, values, outer], dim=1).flatten(0, 1).to(like.dtype)

        self.knots, self.order = grid.T.unsqueeze(1).contiguous(), order  # (n_knots, 1, n_in)
        self.first = torch.arange(len(grid)) * (grid.shape[1] + 1)  # row of each input's first interval, (n_in,)
        self.even = _find_even(grid) if order > 1 else None
        width = grid.double().diff(dim=1)
        self.start = in_rows(grid.double()[:, :-1], grid)  # knot at which each interval begins, (n_rows,)
        self.inverse_width = in_rows(torch.where(width > 0, 1 / width, 0), grid)  # (n_rows,)
        self.table = in_rows(_polynomials(grid.double(), coef.double(), order), coef)  # (n_rows, k+1, n_out)
        self._rows = self.table.flatten(0, 1).contiguous()  # (n_rows * (k+1), n_out)
        self._columns = self.table.permute(1, 2, 0).flatten(0, 1).contiguous()  # ((k+1) * n_out, n_rows)
        places = self.knots.transpose(1, 2).contiguous(), self.first.int(), self.start, self.inverse_width
        self._places = [part.numpy() for part in places]
        self._of_interval = self.table.flatten(1).numpy()
        self._degrees = np.arange(order + 1, dtype=np.int32)[:, None, None]

    def sums(self, x: Tensor) -> Tensor:
        """Sums over the inputs, (batch, n_in) -> (batch, n_out); not differentiable."""
        if has_torch_function_unary(x):  # for ONNX export, whose graph computes sums differently
            return handle_torch_function(PiecewisePolynomial.sums, (x,), self, x)
        return self._sum(*self._locate(x.detach().numpy()))

    def edges(self, x: Tensor) -> Tensor:
        """All values, (batch, n_in) -> (batch, n_out, n_in); not differentiable."""
        return self.edges_and_slopes(x)[0]

    @np.errstate(over="ignore", invalid="ignore")
    def edges_and_slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and first derivatives at (batch, n_in), both (batch, n_out, n_in), by Horner's rule."""
        interval, u = self._locate(x.detach().T.contiguous().numpy(), axis=0)  # long rows are the fastest
        terms = self._columns.index_select(1, torch.from_numpy(interval).flatten())
        *lower, values = terms.numpy().reshape(self.order + 1, -1, *u.shape)  # (n_out, n_in, batch) each
        slopes = np.zeros_like(values)
        for term in reversed(lower):
            slopes *= u
            slopes += values
            values *= u
            values += term
        slopes *= self.inverse_width.numpy().take(interval)
        return torch.from_numpy(values).permute(2, 0, 1), torch.from_numpy(slopes).permute(2, 0, 1)

    def _sum(self, interval: NDArray[np.int32], u: Array) -> Tensor:
        n_terms, n, n_in = self.order + 1, *u.shape
        if n <= FEW:
            powers = np.empty((n, n_in, n_terms), u.dtype)
            powers[..., 0] = 1
            powers[..., 1:] = u[..., None]
            np.multiply.accumulate(powers, axis=2, out=powers)
            terms = self._of_interval.take(interval, axis=0).reshape(n, n_in * n_terms, self.table.shape[2])
            return torch.from_numpy((powers.reshape(n, 1, n_in * n_terms) @ terms)[:, 0])
        powers = np.empty((n_terms, n, n_in), u.dtype)
        powers[0] = 1
        for degree in range(1, n_terms):
            np.multiply(powers[degree - 1], u, out=powers[degree])
        rows = torch.from_numpy((interval * n_terms + self._degrees).reshape(-1))
        starts, weights = torch.arange(0, powers.size, n_in, dtype=torch.int32), torch.from_numpy(powers.reshape(-1))
        by_degree: Tensor = torch.embedding_bag(self._rows, rows, starts, per_sample_weights=weights)[0]
        return by_degree.view(n_terms, n, -1).sum(dim=0)

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite is found in the results
    def _locate(self, x: Array, axis: int = 1) -> tuple[NDArray[np.int32], Array]:
        """The intervals of positions, as rows of the table, and the positions in them; `axis` is that of the inputs."""

        def of_input(values: NDArray[Any]) -> NDArray[Any]:
            return values if axis == 1 else values[..., None]

        if self.even is None:
            knots, first, start, inverse_width = self._places
            if axis == 1:
                beyond = torch.empty(len(knots), *x.shape, dtype=self.knots.dtype)  # as bools they are not vectorised
                rows = torch.ge(torch.from_numpy(x), self.knots, out=beyond).sum(0).numpy().astype(np.int32)
            else:
                rows = (x >= knots).view(np.int8).sum(axis=0, dtype=np.int32)
            rows += of_input(first)
            return rows, (x - start.take(rows)) * inverse_width.take(rows)
        position = (x - of_input(self.even.origin)) * of_input(self.even.inverse_width)
        below = np.floor(position)
        position -= below
        rows = below.astype(np.int32)  # of NaN, and of numbers that are too large, the smallest one or 0
        np.minimum(np.maximum(rows, self.even.first, out=rows), self.even.last, out=rows)
        rows += of_input(self.even.rows)
        return rows, position


def _find_even(grid: Tensor) -> Even | None:
    """The knots as `Even`; None where distances differ by more than rounding, or are 0, for some input."""
    n_knots, middle = grid.shape[1], (grid.shape[1] - 1) // 2
    first, last = grid.double()[:, :1], grid.double()[:, -1:]
    width = (last - first) / (n_knots - 1)
    even = first + width * torch.arange(n_knots)
    if not bool(((grid - even).abs() <= ROUNDING * torch.finfo(grid.dtype).eps * width).all() and (width > 0).all()):
        return None
    origin, inverse_width = (values.to(grid.dtype).numpy() for values in (even[:, middle], 1 / width[:, 0]))
    rows = np.arange(len(grid), dtype=np.int32) * (n_knots + 1) + middle + 1
    return Even(origin, inverse_width, -middle - 1, n_knots - 1 - middle, rows)


def _polynomials(grid: Tensor, coef: Tensor, order: int) -> Tensor:
    """Coefficients of each curve's polynomial on each interval, the constant first, (n_in, G+2k, k+1, n_out).

    Each interpolates the curve at k + 1 Chebyshev points inside the interval.
    """
    n_in, n_intervals = grid.shape[0], grid.shape[1] - 1
    points = (1 - torch.cos((torch.arange(order + 1, dtype=grid.dtype) + 0.5) * torch.pi / (order + 1))) / 2
    width = grid.diff(dim=1)[:, :, None]
    positions = grid[:, :-1, None] + width * points  # (n_in, n_intervals, k+1)
    of_basis = basis(positions.flatten(1).T, grid, order)  # (n_intervals * (k+1), n_in, G+k)
    values = torch.einsum("pig,oig->ipo", of_basis, coef).view(n_in, n_intervals, order + 1, len(coef))
    coefficients = torch.linalg.solve(points[:, None] ** torch.arange(order + 1), values)
    return torch.where(width[..., None] > 0, coefficients, 0)
