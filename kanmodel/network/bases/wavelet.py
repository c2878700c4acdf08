"""The Mexican-hat wavelet basis, with a shift and a scale per edge.

Source: Wav-KAN (Bozorgasl and Chen 2024, arXiv 2405.12832), whose hat is negative at 0. Its batch norm is folded into
the nodes' affine maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi, sqrt
from typing import ClassVar

import torch
from torch import Tensor

from kanmodel.network.bases.basis import Basis, EdgeFunctions, Shape, Tensors
from kanmodel.network.functions import vary

REACH = 8  # in scales; beyond it, a hat is below 1e-11
HEIGHT = 2 / (sqrt(3) * pi**0.25)


@dataclass(frozen=True)
class MexicanHat(Basis):
    """coef psi((u - translation) / scale), psi(t) = 2 / (sqrt(3) pi^(1/4)) (t^2 - 1) exp(-t^2 / 2)."""

    kind: ClassVar[str] = "mexican_hat"

    def per_edge(self) -> Mapping[str, Shape]:
        return {"coef": (1,), "translation": (), "scale": ()}

    def initial(self, n_sub: int, n_in: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        coef = (torch.rand(n_sub, n_in, 1, generator=generator) * 2 - 1) / sqrt(n_in)
        return {"coef": coef, "translation": torch.zeros(n_sub, n_in), "scale": torch.ones(n_sub, n_in)}

    def in_bumps(self, u: Tensor, tensors: Tensors) -> Tensor:
        scale, at = tensors["scale"].abs(), tensors["translation"]
        low, high = (at - REACH * scale).amin(dim=0), (at + REACH * scale).amax(dim=0)
        return u.clamp(low, high) / (2 * scale.amin(dim=0))  # the middle, between two zeros

    def functions(self, tensors: Tensors) -> EdgeFunctions:
        return _Hats(tensors["coef"].squeeze(-1), tensors["translation"], tensors["scale"])

    def vary(self, low: Tensor, high: Tensor, tensors: Tensors) -> Tensor:
        ends = [(u.unsqueeze(1) - tensors["translation"]) / tensors["scale"] for u in (low, high)]
        below, above = torch.minimum(*ends), torch.maximum(*ends)  # a negative scale turns them around
        varied: Tensor = tensors["coef"].squeeze(-1).abs() * vary(_hat, below, above, (-sqrt(3), 0, sqrt(3)))
        return varied


class _Hats:
    def __init__(self, coef: Tensor, translation: Tensor, scale: Tensor) -> None:
        self._coef, self._translation, self._scale = coef, translation, scale

    def edges(self, u: Tensor) -> Tensor:
        return self._coef * _hat(self._position(u))

    def sums(self, u: Tensor) -> Tensor:
        return self.edges(u).sum(dim=2)

    def edges_and_slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        t = self._position(u)
        bell = HEIGHT * self._coef * torch.exp(-(t**2) / 2)
        return bell * (t**2 - 1), bell * t * (3 - t**2) / self._scale

    def _position(self, u: Tensor) -> Tensor:
        """(batch, n_sub, n_in), in widths."""
        return (u.unsqueeze(1) - self._translation) / self._scale


def _hat(t: Tensor) -> Tensor:
    hat: Tensor = HEIGHT * (t**2 - 1) * torch.exp(-(t**2) / 2)
    return hat
