"""`Basis`, the interface of every basis: the shapes of its tensors, and the edge functions that they parametrise.

A basis is linear in its coefficients: the function of the edge from input i to sub-node j is sum_c coef_jic B_ic(u_i),
or coef_ji B_ji(u_i) if every edge has its own function. Masks and scales are factors of the coefficients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Protocol

import torch
from torch import Tensor

Shape = tuple[int, ...]
Tensors = Mapping[str, Tensor]


class EdgeFunctions(Protocol):
    """The functions of the edges between n_in inputs and n_sub sub-nodes, of values u, (batch, n_in)."""

    def edges(self, u: Tensor) -> Tensor:
        """Values of all edges, (batch, n_sub, n_in); differentiable with respect to `u`."""

    def sums(self, u: Tensor) -> Tensor:
        """Sums over the inputs, (batch, n_sub), without materializing the edges."""

    def edges_and_slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Values and first derivatives of all edges, both (batch, n_sub, n_in)."""


class Basis(ABC):
    """A family of functions on edges, with its options; immutable.

    Attributes:
        kind: its name in a document.
        scaled: whether each edge has a scale besides its coefficients, like pykan's splines.
        is_line: whether an edge is its first coefficient times its input.
        has_knots: whether it has knots that can be moved, see `refit`.
    """

    kind: ClassVar[str]
    scaled: ClassVar[bool] = False
    is_line: ClassVar[bool] = False
    has_knots: ClassVar[bool] = False

    @abstractmethod
    def per_edge(self) -> Mapping[str, Shape]:
        """Shapes of the tensors of each edge, ``coef`` first."""

    def per_input(self) -> Mapping[str, Shape]:
        """Shapes of the tensors that all edges of an input share."""
        return {}

    @abstractmethod
    def initial(self, n_sub: int, n_in: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Tensors of a new layer, before training: (n_sub, n_in, ...) per edge, (n_in, ...) per input.

        Random ones are drawn from the generator; None for torch's own.
        """

    @abstractmethod
    def functions(self, tensors: Tensors) -> EdgeFunctions:
        """The functions with the given tensors, those of `per_edge` and `per_input`."""

    def freeze(self, tensors: Tensors) -> EdgeFunctions:
        """The same as `functions`, prepared for many calls; its `sums` need not be differentiable."""
        return self.functions(tensors)

    def varies(self, coef: Tensor) -> Tensor:
        """Whether edges with coefficients (n_sub, n_in, n_basis) are not constant, (n_sub, n_in)."""
        return (coef != 0).any(dim=2)

    @abstractmethod
    def vary(self, low: Tensor, high: Tensor, tensors: Tensors) -> Tensor:
        """Upper bounds of the edges' total variation between two values, (batch, n_in) -> (batch, n_sub, n_in)."""

    def in_bumps(self, u: Tensor, tensors: Tensors) -> Tensor | None:
        """Values u, (..., n_in), as positions: the narrowest bump that the functions can have is 1 long everywhere.

        Positions ascend with u, and do not change where the functions do not vary. None if they have no bumps.
        """
        return None

    def core(self, tensors: Tensors) -> tuple[Tensor, Tensor] | None:
        """Ends of each input's interval beyond which its functions decay to zero, two of (n_in,); None without."""
        return None

    def refit(self, u: Tensor, tensors: Tensors, grid_eps: float) -> Tensors:
        """Moves the knots to the values.

        Args:
            u: the values, (batch, n_in).
            tensors: of the basis, without masks and scales.
            grid_eps: 0 for knots at quantiles of the values, 1 for uniform knots, a mixture between.

        Returns:
            The tensors that change; none if there are no knots.
        """
        return {}


class SharedBasis(Basis):
    """A basis whose functions are shared by all edges of an input."""

    @abstractmethod
    def values(self, u: Tensor, tensors: Tensors) -> Tensor:
        """The basis functions, (batch, n_in) -> (batch, n_in, n_basis)."""

    @abstractmethod
    def slopes(self, u: Tensor, tensors: Tensors) -> Tensor:
        """Their first derivatives, of the same shape."""

    def functions(self, tensors: Tensors) -> EdgeFunctions:
        """Weighted sums of the basis functions."""
        return _WeightedSums(self, tensors)


class _WeightedSums:
    def __init__(self, basis: SharedBasis, tensors: Tensors) -> None:
        self._basis, self._tensors, self._coef = basis, tensors, tensors["coef"]

    def edges(self, u: Tensor) -> Tensor:
        return torch.einsum("big,oig->boi", self._basis.values(u, self._tensors), self._coef)

    def sums(self, u: Tensor) -> Tensor:
        return self._basis.values(u, self._tensors).flatten(1) @ self._coef.flatten(1).T

    def edges_and_slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        slopes = torch.einsum("big,oig->boi", self._basis.slopes(u, self._tensors), self._coef)
        return self.edges(u), slopes
