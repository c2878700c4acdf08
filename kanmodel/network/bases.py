"""Bases: the families of functions on edges.

A basis is linear in its coefficients: the function of the edge from input i to sub-node j is sum_c coef_jic B_ic(u_i),
or coef_ji B_ji(u_i) if every edge has its own function. Masks and scales are factors of the coefficients.

To add a basis, write a subclass of `Basis` and add it to `BASES`; nothing else depends on the kind of basis. In
evaluation, u is (batch, n_in) and tensors are those of `Basis.per_edge` and `per_input`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, pi, sqrt
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from kanmodel.errors import Index, Positive, check_config
from kanmodel.network import splines

Shape = tuple[int, ...]
Tensors = Mapping[str, Tensor]
RADIUS = 2.5  # of a radial bump, in denominators; at half of it, it is down to a fifth or a quarter
RADIAL_REACH = 10  # in denominators; beyond it, a radial bump is below 1e-8
HAT_REACH = 8  # in scales; beyond it, a Mexican hat is below 1e-11
HAT_HEIGHT = 2 / (sqrt(3) * pi**0.25)


class Basis(ABC):
    """A family of functions on edges, with its options; immutable."""

    kind: ClassVar[str]  # its name in a document
    scaled: ClassVar[bool] = False  # whether each edge has a scale besides its coefficients, like pykan's splines
    is_line: ClassVar[bool] = False  # whether an edge is its first coefficient times its input
    has_knots: ClassVar[bool] = False  # whether it has knots that can be moved, see `refit`

    def __post_init__(self) -> None:
        check_config(self)

    @abstractmethod
    def per_edge(self) -> Mapping[str, Shape]:
        """Shapes of the tensors of each edge, ``coef`` first."""

    def per_input(self) -> Mapping[str, Shape]:
        """Shapes of the tensors that all edges of an input share."""
        return {}

    @abstractmethod
    def initial(self, n_sub: int, n_in: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Tensors before training: (n_sub, n_in, ...) per edge, (n_in, ...) per input; None for torch's generator."""

    def values(self, u: Tensor, tensors: Tensors) -> Tensor:
        """The basis functions, if all edges of an input share them, (batch, n_in) -> (batch, n_in, n_basis)."""
        raise NotImplementedError

    def slopes(self, u: Tensor, tensors: Tensors) -> Tensor:
        """Their first derivatives, of the same shape."""
        raise NotImplementedError

    def edges(self, u: Tensor, tensors: Tensors) -> Tensor:
        """Values of all edges, (batch, n_sub, n_in); differentiable with respect to `u`."""
        return torch.einsum("big,oig->boi", self.values(u, tensors), tensors["coef"])

    def sums(self, u: Tensor, tensors: Tensors) -> Tensor:
        """Sums over the inputs, (batch, n_sub), without materializing the edges."""
        return self.values(u, tensors).flatten(1) @ tensors["coef"].flatten(1).T

    def edges_and_slopes(self, u: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """Values and first derivatives of all edges, both (batch, n_sub, n_in)."""
        slopes = torch.einsum("big,oig->boi", self.slopes(u, tensors), tensors["coef"])
        return self.edges(u, tensors), slopes

    def functions(self, tensors: Tensors) -> EdgeFunctions:
        """The functions with the given tensors."""
        return EdgeFunctions(self, tensors)

    def freeze(self, tensors: Tensors) -> EdgeFunctions | splines.PiecewisePolynomial:
        """The same as `functions`, prepared for many calls; its `sums` need not be differentiable."""
        return self.functions(tensors)

    def varies(self, coef: Tensor) -> Tensor:
        """Whether edges with coefficients (n_sub, n_in, n_basis) are not constant, (n_sub, n_in)."""
        return (coef != 0).any(dim=2)

    def in_bumps(self, u: Tensor, tensors: Tensors) -> Tensor | None:
        """Values u, (..., n_in), as positions: the narrowest bump that the functions can have is 1 long everywhere.

        Positions ascend with u, and do not change where the functions do not vary. None if they have no bumps.
        """
        return None

    def half_bump(self, tensors: Tensors) -> Tensor | float:
        """A length over which positions rise by at most 1/2, for each input, (n_in,), or for all."""
        return inf

    def core(self, tensors: Tensors) -> tuple[Tensor, Tensor] | None:
        """Ends of each input's interval beyond which its functions decay to zero, two of (n_in,); None without."""
        return None

    def refit(self, u: Tensor, tensors: Tensors, grid_eps: float) -> Tensors:
        """Moves the knots to the values u, (batch, n_in), and returns the tensors that change; none without knots.

        `tensors` are without masks and scales. `grid_eps` mixes knots at quantiles of the values (0) and uniform ones
        (1).
        """
        return {}


class EdgeFunctions(NamedTuple):
    """The functions of the edges between n_in inputs and n_sub sub-nodes: a basis with its tensors; see there."""

    basis: Basis
    tensors: Tensors

    def edges(self, u: Tensor) -> Tensor:
        return self.basis.edges(u, self.tensors)

    def sums(self, u: Tensor) -> Tensor:
        return self.basis.sums(u, self.tensors)

    def edges_and_slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.basis.edges_and_slopes(u, self.tensors)


@dataclass(frozen=True)
class Line(Basis):
    """coef u: the edges of a Linear layer, whose bias is added to the sub-nodes."""

    kind: ClassVar[str] = "line"
    is_line: ClassVar[bool] = True

    def per_edge(self) -> Mapping[str, Shape]:
        return {"coef": (1,)}

    def initial(self, n_sub: int, n_in: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {"coef": (torch.rand(n_sub, n_in, 1, generator=generator) * 2 - 1) / sqrt(n_in)}

    def edges(self, u: Tensor, tensors: Tensors) -> Tensor:
        return tensors["coef"].squeeze(-1) * u.unsqueeze(1)

    def sums(self, u: Tensor, tensors: Tensors) -> Tensor:
        return u @ tensors["coef"].squeeze(-1).T

    def edges_and_slopes(self, u: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor]:
        edges = self.edges(u, tensors)
        return edges, tensors["coef"].squeeze(-1).expand_as(edges)


@dataclass(frozen=True)
class MexicanHat(Basis):
    """coef psi((u - translation) / scale), psi(t) = 2 / (sqrt(3) pi^(1/4)) (t^2 - 1) exp(-t^2 / 2), for each edge.

    Source: Wav-KAN (Bozorgasl and Chen 2024, arXiv 2405.12832), whose hat is negative at 0. Its batch norm is folded
    into the nodes' affine maps.
    """

    kind: ClassVar[str] = "mexican_hat"

    def per_edge(self) -> Mapping[str, Shape]:
        return {"coef": (1,), "translation": (), "scale": ()}

    def initial(self, n_sub: int, n_in: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        coef = (torch.rand(n_sub, n_in, 1, generator=generator) * 2 - 1) / sqrt(n_in)
        return {"coef": coef, "translation": torch.zeros(n_sub, n_in), "scale": torch.ones(n_sub, n_in)}

    def in_bumps(self, u: Tensor, tensors: Tensors) -> Tensor:
        scale, at = tensors["scale"].abs(), tensors["translation"]
        low, high = (at - HAT_REACH * scale).amin(dim=0), (at + HAT_REACH * scale).amax(dim=0)
        return u.clamp(low, high) / (2 * self.half_bump(tensors))

    def half_bump(self, tensors: Tensors) -> Tensor:
        return tensors["scale"].abs().amin(dim=0)  # half of the middle, between two zeros

    def edges(self, u: Tensor, tensors: Tensors) -> Tensor:
        t = (u.unsqueeze(1) - tensors["translation"]) / tensors["scale"]  # (batch, n_sub, n_in)
        hat: Tensor = HAT_HEIGHT * (t**2 - 1) * torch.exp(-(t**2) / 2)
        return tensors["coef"].squeeze(-1) * hat

    def sums(self, u: Tensor, tensors: Tensors) -> Tensor:
        return self.edges(u, tensors).sum(dim=2)

    def edges_and_slopes(self, u: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor]:
        t = (u.unsqueeze(1) - tensors["translation"]) / tensors["scale"]
        bell = HAT_HEIGHT * tensors["coef"].squeeze(-1) * torch.exp(-(t**2) / 2)
        return bell * (t**2 - 1), bell * t * (3 - t**2) / tensors["scale"]


@dataclass(frozen=True)
class BSpline(Basis):
    """Splines on knots ``grid``, (n_in, G+2k+1), as in pykan and efficient-kan (Liu et al. 2024, arXiv 2404.19756)."""

    grid_size: int = 5  # intervals G of the core
    order: Index = 3  # k; 3: cubic
    kind: ClassVar[str] = "bspline"
    scaled: ClassVar[bool] = True
    has_knots: ClassVar[bool] = True

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

    def freeze(self, tensors: Tensors) -> splines.PiecewisePolynomial:
        return splines.PiecewisePolynomial(tensors["grid"], tensors["coef"], self.order)

    def in_bumps(self, u: Tensor, tensors: Tensors) -> Tensor:
        """A basis function lies over order + 1 intervals."""
        grid, values = tensors["grid"].contiguous(), u.flatten(0, -2).T.contiguous()  # (n_in, n_values)
        above = torch.searchsorted(grid, values, right=True).clamp(1, grid.shape[1] - 1)
        low, high = grid.gather(1, above - 1), grid.gather(1, above)
        share = ((values - low) / (high - low)).nan_to_num(0).clamp(0, 1)
        return ((above - 1 + share) / (self.order + 1)).T.view(u.shape)

    def half_bump(self, tensors: Tensors) -> Tensor:
        """Half of a bump's intervals, rounded down, where they are shortest; no length for steps, of one interval."""
        grid, half = tensors["grid"], (self.order + 1) // 2
        return (grid[:, half:] - grid[:, : grid.shape[1] - half]).amin(dim=1)

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
        refitted = {"grid": grid, "coef": splines.fit_coefficients(ordered, curves, grid, self.order)}
        varies = ordered[-1] > ordered[0]  # (n_in,): equal knots would make the splines of a constant input vanish
        return {name: torch.where(varies[:, None], tensor, tensors[name]) for name, tensor in refitted.items()}


@dataclass(frozen=True)
class _Radial(Basis):
    """Bumps around the centres in ``grid``, all of the width `denominator`."""

    centres: int
    denominator: Positive
    scaled: ClassVar[bool] = True

    def per_edge(self) -> Mapping[str, Shape]:
        return {"coef": (self.centres,)}

    def per_input(self) -> Mapping[str, Shape]:
        return {"grid": (self.centres,)}

    def initial(self, n_sub: int, n_in: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        coef = (torch.rand(n_sub, n_in, self.centres, generator=generator) - 0.5) * 0.3 / self.centres
        return {"coef": coef, "grid": torch.linspace(-1, 1, self.centres).expand(n_in, -1).contiguous()}

    def in_bumps(self, u: Tensor, tensors: Tensors) -> Tensor:
        first, last = self.core(tensors)
        reach = RADIAL_REACH * self.denominator
        return u.clamp(first - reach, last + reach) / (2 * self.half_bump(tensors))

    def half_bump(self, tensors: Tensors) -> float:
        return RADIUS * self.denominator

    def core(self, tensors: Tensors) -> tuple[Tensor, Tensor]:
        return tensors["grid"][:, 0], tensors["grid"][:, -1]

    def _position(self, u: Tensor, tensors: Tensors) -> Tensor:
        """Signed distance of each value from each centre, in widths, (batch, n_in, centres)."""
        return (u.unsqueeze(-1) - tensors["grid"]) / self.denominator


class Gaussian(_Radial):
    """exp(-((u - centre) / denominator)^2), as in fast-kan (Li 2024, arXiv 2405.06721, eq. 5)."""

    kind: ClassVar[str] = "gaussian"

    def values(self, u: Tensor, tensors: Tensors) -> Tensor:
        return torch.exp(-(self._position(u, tensors) ** 2))

    def slopes(self, u: Tensor, tensors: Tensors) -> Tensor:
        position = self._position(u, tensors)
        return -2 / self.denominator * position * torch.exp(-(position**2))


class Sech2(_Radial):
    """1 - tanh((u - centre) / denominator)^2, as in FasterKAN (Delis 2024).

    Its denominator was 0.33 until its checkpoints had an `inv_denominator`, which its forward pass ignores: since then
    it is 1.
    """

    kind: ClassVar[str] = "sech2"

    def values(self, u: Tensor, tensors: Tensors) -> Tensor:
        return 1 - torch.tanh(self._position(u, tensors)) ** 2

    def slopes(self, u: Tensor, tensors: Tensors) -> Tensor:
        tanh = torch.tanh(self._position(u, tensors))
        return -2 / self.denominator * tanh * (1 - tanh**2)


@dataclass(frozen=True)
class Chebyshev(Basis):
    """T_0 ... T_degree at tanh(u): ChebyKAN (SynodicMonth 2024; Sidharth 2024, arXiv 2405.07200, eq. 5)."""

    degree: Index
    kind: ClassVar[str] = "chebyshev"

    def per_edge(self) -> Mapping[str, Shape]:
        return {"coef": (self.degree + 1,)}

    def initial(self, n_sub: int, n_in: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        n = self.degree + 1
        return {"coef": torch.randn(n_sub, n_in, n, generator=generator) / (n_in * n)}

    def varies(self, coef: Tensor) -> Tensor:
        return (coef[..., 1:] != 0).any(dim=2)  # T_0 is a constant

    def in_bumps(self, u: Tensor, tensors: Tensors) -> Tensor:
        """T_n(cos angle) = cos(n angle)."""
        return self.degree / pi * (pi - torch.acos(torch.tanh(u)))

    def half_bump(self, tensors: Tensors) -> float:
        return pi / 2 / self.degree if self.degree else inf

    def values(self, u: Tensor, tensors: Tensors) -> Tensor:
        s = torch.tanh(u)
        values = [1 + 0 * s, s]  # T_n = 2 s T_(n-1) - T_(n-2); a plain constant would have no gradient
        while len(values) <= self.degree:
            values.append(2 * s * values[-1] - values[-2])
        return torch.stack(values[: self.degree + 1], dim=-1)

    def slopes(self, u: Tensor, tensors: Tensors) -> Tensor:
        values, s = self.values(u, tensors), torch.tanh(u)
        slopes = [torch.zeros_like(s), torch.ones_like(s)]
        while len(slopes) <= self.degree:
            slopes.append(2 * values[..., len(slopes) - 1] + 2 * s * slopes[-1] - slopes[-2])
        return torch.stack(slopes[: self.degree + 1], dim=-1) * (1 - s**2).unsqueeze(-1)


@dataclass(frozen=True)
class Fourier(Basis):
    """cos(k u), k = 1 ... frequencies, then sin(k u): FourierKAN (GistNoesis 2024), its bias that of the sub-nodes."""

    frequencies: int
    kind: ClassVar[str] = "fourier"

    def per_edge(self) -> Mapping[str, Shape]:
        return {"coef": (2 * self.frequencies,)}

    def initial(self, n_sub: int, n_in: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        coef = torch.randn(n_sub, n_in, 2 * self.frequencies, generator=generator)
        return {"coef": coef / sqrt(n_in * self.frequencies)}

    def in_bumps(self, u: Tensor, tensors: Tensors) -> Tensor:
        return self.frequencies / pi * u

    def half_bump(self, tensors: Tensors) -> float:
        return pi / 2 / self.frequencies

    def values(self, u: Tensor, tensors: Tensors) -> Tensor:
        angle = u.unsqueeze(-1) * self._k(u)
        return torch.cat([angle.cos(), angle.sin()], dim=-1)

    def slopes(self, u: Tensor, tensors: Tensors) -> Tensor:
        k = self._k(u)
        angle = u.unsqueeze(-1) * k
        return torch.cat([-k * angle.sin(), k * angle.cos()], dim=-1)

    def _k(self, like: Tensor) -> Tensor:
        return torch.arange(1, self.frequencies + 1, dtype=like.dtype)


BASES: dict[str, type[Basis]] = {
    basis.kind: basis for basis in (BSpline, Gaussian, Sech2, Chebyshev, Fourier, MexicanHat, Line)
}
