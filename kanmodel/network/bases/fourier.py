"""The Fourier basis: cosines and sines of integer frequencies.

Source: FourierKAN (GistNoesis 2024), whose bias is here that of the sub-nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi, sqrt
from typing import ClassVar

import torch
from torch import Tensor

from kanmodel.checks import check_count
from kanmodel.network.bases.basis import Shape, SharedBasis, Tensors


@dataclass(frozen=True)
class Fourier(SharedBasis):
    """cos(k u) for k = 1 ... frequencies, then sin(k u).

    Attributes:
        frequencies: number of frequencies.
    """

    frequencies: int

    kind: ClassVar[str] = "fourier"

    def __post_init__(self) -> None:
        check_count(self.frequencies, "frequencies")

    def per_edge(self) -> Mapping[str, Shape]:
        return {"coef": (2 * self.frequencies,)}

    def initial(self, n_sub: int, n_in: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        coef = torch.randn(n_sub, n_in, 2 * self.frequencies, generator=generator)
        return {"coef": coef / sqrt(n_in * self.frequencies)}

    def in_bumps(self, u: Tensor, tensors: Tensors) -> Tensor:
        return self.frequencies / pi * u

    def values(self, u: Tensor, tensors: Tensors) -> Tensor:
        angle = u.unsqueeze(-1) * self._k(u)
        return torch.cat([angle.cos(), angle.sin()], dim=-1)

    def slopes(self, u: Tensor, tensors: Tensors) -> Tensor:
        k = self._k(u)
        angle = u.unsqueeze(-1) * k
        return torch.cat([-k * angle.sin(), k * angle.cos()], dim=-1)

    def vary(self, low: Tensor, high: Tensor, tensors: Tensors) -> Tensor:
        return (high - low).unsqueeze(1) * (tensors["coef"].abs() @ self._k(low).repeat(2))

    def _k(self, like: Tensor) -> Tensor:
        return torch.arange(1, self.frequencies + 1, dtype=like.dtype)
