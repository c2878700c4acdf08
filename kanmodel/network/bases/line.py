"""The linear basis: the edges of a Linear layer, whose bias is added to the sub-nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor

from kanmodel.network.bases.basis import Basis, EdgeFunctions, Shape, Tensors


@dataclass(frozen=True)
class Line(Basis):
    """coef u."""

    kind: ClassVar[str] = "line"
    is_line: ClassVar[bool] = True

    def per_edge(self) -> Mapping[str, Shape]:
        return {"coef": (1,)}

    def initial(self, n_sub: int, n_in: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {"coef": (torch.rand(n_sub, n_in, 1, generator=generator) * 2 - 1) / sqrt(n_in)}

    def functions(self, tensors: Tensors) -> EdgeFunctions:
        return _Lines(tensors["coef"].squeeze(-1))

    def vary(self, low: Tensor, high: Tensor, tensors: Tensors) -> Tensor:
        return tensors["coef"].squeeze(-1).abs() * (high - low).unsqueeze(1)


class _Lines:
    def __init__(self, weight: Tensor) -> None:
        self._weight = weight  # (n_sub, n_in)

    def edges(self, u: Tensor) -> Tensor:
        return self._weight * u.unsqueeze(1)

    def sums(self, u: Tensor) -> Tensor:
        return u @ self._weight.T

    def edges_and_slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        edges = self.edges(u)
        return edges, self._weight.expand_as(edges)
