"""The Chebyshev basis: polynomials of tanh(u).

Source: ChebyKAN (SynodicMonth 2024); Sidharth 2024, arXiv 2405.07200, eq. 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi
from typing import ClassVar

import torch
from torch import Tensor

from kanmodel.checks import check_count
from kanmodel.network.bases.basis import Shape, SharedBasis, Tensors


@dataclass(frozen=True)
class Chebyshev(SharedBasis):
    """T_0 ... T_degree at tanh(u), by T_n = 2 s T_(n-1) - T_(n-2).

    Attributes:
        degree: the highest degree.
    """

    degree: int

    kind: ClassVar[str] = "chebyshev"

    def __post_init__(self) -> None:
        check_count(self.degree, "degree", lowest=0)

    def per_edge(self) -> Mapping[str, Shape]:
        return {"coef": (self.degree + 1,)}

    def initial(self, n_sub: int, n_in: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        coef = torch.randn(n_sub, n_in, self.degree + 1, generator=generator)
        return {"coef": coef / (n_in * (self.degree + 1))}

    def varies(self, coef: Tensor) -> Tensor:
        return (coef[..., 1:] != 0).any(dim=2)  # T_0 is a constant

    def in_bumps(self, u: Tensor, tensors: Tensors) -> Tensor:
        """T_n(cos angle) = cos(n angle)."""
        return self.degree / pi * (pi - torch.acos(torch.tanh(u)))

    def vary(self, low: Tensor, high: Tensor, tensors: Tensors) -> Tensor:
        angle = torch.acos(torch.tanh(low)) - torch.acos(torch.tanh(high))
        steepest = tensors["coef"].abs() @ torch.arange(self.degree + 1, dtype=low.dtype)  # by angle
        return angle.unsqueeze(1) * steepest

    def values(self, u: Tensor, tensors: Tensors) -> Tensor:
        s = torch.tanh(u)
        values = [1 + 0 * s, s]  # a plain constant would have no gradient
        while len(values) <= self.degree:
            values.append(2 * s * values[-1] - values[-2])
        return torch.stack(values[: self.degree + 1], dim=-1)

    def slopes(self, u: Tensor, tensors: Tensors) -> Tensor:
        values, s = self.values(u, tensors), torch.tanh(u)
        slopes = [torch.zeros_like(s), torch.ones_like(s)]
        while len(slopes) <= self.degree:
            slopes.append(2 * values[..., len(slopes) - 1] + 2 * s * slopes[-1] - slopes[-2])
        return torch.stack(slopes[: self.degree + 1], dim=-1) * (1 - s**2).unsqueeze(-1)
