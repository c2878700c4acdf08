"""Radial bases: Gaussian and sech² bumps around centres.

Source: fast-kan (Li 2024, arXiv 2405.06721, eq. 5) for the Gaussian; FasterKAN (Delis 2024) for sech². FasterKAN's
denominator was 0.33 until its checkpoints had an `inv_denominator`, which its forward pass ignores: since then it is 1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kanmodel.checks import check_count, check_number
from kanmodel.network.bases.basis import Shape, SharedBasis, Tensors
from kanmodel.network.functions import vary

RADIUS = 2.5  # of a bump, in denominators; at half of it, it is down to a fifth or a quarter
REACH = 10  # in denominators; beyond it, a bump is below 1e-8


@dataclass(frozen=True)
class _Radial(SharedBasis):
    """Bumps of one width around the centres in ``grid``.

    Attributes:
        centres: number of centres.
        denominator: width of every bump.
    """

    centres: int
    denominator: float

    scaled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count(self.centres, "centres")
        check_number(self.denominator, "denominator", positive=True)

    def per_edge(self) -> Mapping[str, Shape]:
        return {"coef": (self.centres,)}

    def per_input(self) -> Mapping[str, Shape]:
        return {"grid": (self.centres,)}

    def initial(self, n_sub: int, n_in: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        coef = (torch.rand(n_sub, n_in, self.centres, generator=generator) - 0.5) * 0.3 / self.centres
        return {"coef": coef, "grid": torch.linspace(-1, 1, self.centres).expand(n_in, -1).contiguous()}

    def in_bumps(self, u: Tensor, tensors: Tensors) -> Tensor:
        first, last = self.core(tensors)
        reach = REACH * self.denominator
        return u.clamp(first - reach, last + reach) / (2 * RADIUS * self.denominator)

    def core(self, tensors: Tensors) -> tuple[Tensor, Tensor]:
        return tensors["grid"][:, 0], tensors["grid"][:, -1]

    @abstractmethod
    def bump(self, position: Tensor) -> Tensor:
        """A bump at distances from its centre, in widths."""

    def values(self, u: Tensor, tensors: Tensors) -> Tensor:
        return self.bump(self._position(u, tensors))

    def vary(self, low: Tensor, high: Tensor, tensors: Tensors) -> Tensor:
        varied = vary(self.bump, self._position(low, tensors), self._position(high, tensors))
        return torch.einsum("big,oig->boi", varied, tensors["coef"].abs())

    def _position(self, u: Tensor, tensors: Tensors) -> Tensor:
        """Signed distance of each value from each centre, in widths, (batch, n_in, centres)."""
        return (u.unsqueeze(-1) - tensors["grid"]) / self.denominator


class Gaussian(_Radial):
    """exp(-((u - centre) / denominator)^2), as in fast-kan."""

    kind: ClassVar[str] = "gaussian"

    def bump(self, position: Tensor) -> Tensor:
        return torch.exp(-(position**2))

    def slopes(self, u: Tensor, tensors: Tensors) -> Tensor:
        position = self._position(u, tensors)
        return -2 / self.denominator * position * torch.exp(-(position**2))


class Sech2(_Radial):
    """1 - tanh((u - centre) / denominator)^2, as in FasterKAN."""

    kind: ClassVar[str] = "sech2"

    def bump(self, position: Tensor) -> Tensor:
        return 1 - torch.tanh(position) ** 2

    def slopes(self, u: Tensor, tensors: Tensors) -> Tensor:
        tanh = torch.tanh(self._position(u, tensors))
        return -2 / self.denominator * tanh * (1 - tanh**2)
