"""Edge functions between the inputs and sub-nodes of a layer: basis, base and symbolic parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kanmodel.network.activations import ACTIVATIONS, TURNS, activate, value_and_slope, vary
from kanmodel.network.bases import EdgeFunctions
from kanmodel.network.config import LayerConfig
from kanmodel.network.functions import FUNCTIONS

Ends = tuple[Tensor, Tensor]  # the smallest and the largest value of some nodes, of one shape


@dataclass(frozen=True)
class SymbolicFunctions:
    """The symbolic parts c f(a v + b) + d of edges, grouped by function.

    Attributes:
        groups: f; inputs and sub-nodes, as indices into the chosen ones, (n,) each; and a to d, (4, n).
    """

    groups: tuple[tuple[Callable[[Tensor], Tensor], Tensor, Tensor, Tensor], ...]

    @classmethod
    def of(
        cls,
        config: LayerConfig,
        mask: Tensor,
        affine: Tensor,
        inputs: Sequence[int] | None,
        subnodes: Sequence[int] | None,
        scale: Tensor | None,
    ) -> SymbolicFunctions | None:
        """The unmasked symbolic parts of a layer between some inputs and sub-nodes; None if there are none.

        Args:
            config: the layer.
            mask: of each symbolic edge, (n_symbolic,).
            affine: its a, b, c and d, (n_symbolic, 4).
            inputs: indices of the inputs; None for all.
            subnodes: indices of the sub-nodes; None for all.
            scale: a factor for the edges into each of these sub-nodes.
        """
        column = {i: place for place, i in enumerate(range(config.n_in) if inputs is None else inputs)}
        row = {j: place for place, j in enumerate(range(config.n_subnodes) if subnodes is None else subnodes)}
        members: dict[str, list[tuple[int, int, Tensor]]] = {}
        for edge, weight, numbers in zip(config.symbolic, mask, affine, strict=True):
            if weight != 0 and edge.i in column and edge.j in row:
                i, j = column[edge.i], row[edge.j]
                factor = weight if scale is None else weight * scale[j]
                members.setdefault(edge.function, []).append((i, j, torch.cat([numbers[:2], factor * numbers[2:]])))
        groups = tuple(
            (
                FUNCTIONS[name],
                torch.tensor([i for i, _, _ in group]),
                torch.tensor([j for _, j, _ in group]),
                torch.stack([numbers for _, _, numbers in group], dim=1),
            )
            for name, group in members.items()
        )
        return cls(groups) if groups else None

    def edges(self, v: Tensor, n_subnodes: int) -> Tensor:
        """(batch, n_in) -> (batch, n_subnodes, n_in), zero for edges without a symbolic part."""
        edges = v.new_zeros(len(v), n_subnodes, v.shape[1])
        for function, i, j, (a, b, c, d) in self.groups:
            edges[:, j, i] = c * function(a * v[:, i] + b) + d
        return edges

    def add_to(self, sums: Tensor, v: Tensor) -> Tensor:
        """Adds the symbolic parts at inputs (batch, n_in) to sums (batch, n_subnodes)."""
        for function, i, j, (a, b, c, d) in self.groups:
            sums = sums.index_add(1, j, c * function(a * v[:, i] + b) + d)
        return sums

    def vary(self, low: Tensor, high: Tensor, n_subnodes: int) -> Tensor:
        """Upper bounds of their total variation between two inputs, as `edges`; infinite or NaN at poles."""
        edges = low.new_zeros(len(low), n_subnodes, low.shape[1])
        for function, i, j, (a, b, c, _) in self.groups:
            ends = a * low[:, i] + b, a * high[:, i] + b
            below, above = torch.minimum(*ends), torch.maximum(*ends)
            if function in (FUNCTIONS["sin"], FUNCTIONS["cos"]):
                varied = above - below
            elif function is FUNCTIONS["tan"]:
                varied = torch.full_like(below, torch.inf)
            else:  # monotone on both sides of 0
                varied = vary(function, below, above)
            edges[:, j, i] = c.abs() * varied
        return edges

    def slopes(self, v: Tensor, n_subnodes: int) -> Tensor:
        """First derivatives, as `edges`."""
        slopes = v.new_zeros(len(v), n_subnodes, v.shape[1])
        for function, i, j, (a, b, c, _) in self.groups:
            slopes[:, j, i] = c * a * value_and_slope(function, a * v[:, i] + b)[1]
        return slopes


@dataclass(frozen=True)
class EdgeParts:
    """Values or slopes of the parts of edges, masks and scales included; each (batch, n_subnodes, n_in)."""

    base: Tensor
    basis: Tensor
    symbolic: Tensor

    @property
    def total(self) -> Tensor:
        """The sum of the parts."""
        return self.base + self.basis + self.symbolic


class Edges:
    """The functions on edges, of the base's inputs v and the basis' inputs u, each (batch, n_in).

    Args:
        functions: the functions of the basis.
        vary: upper bounds of their total variation, see `Basis.vary`.
        base: name of the base function.
        base_weights: the base's weight on each edge, (n_subnodes, n_in); None without a base.
        symbolic: the symbolic parts; None if there are none.
    """

    def __init__(
        self,
        functions: EdgeFunctions,
        vary: Callable[[Tensor, Tensor], Tensor],
        base: str,
        base_weights: Tensor | None,
        symbolic: SymbolicFunctions | None,
    ) -> None:
        self._functions, self._vary, self._base, self._symbolic = functions, vary, base, symbolic
        self._weights = base_weights

    def edges(self, v: Tensor, u: Tensor) -> Tensor:
        """Values of all edges, (batch, n_subnodes, n_in); differentiable."""
        edges = self._functions.edges(u)
        if self._weights is not None:
            edges = torch.addcmul(edges, self._base_of(v).unsqueeze(1), self._weights)
        return edges if self._symbolic is None else edges + self._symbolic.edges(v, edges.shape[1])

    def sums(self, v: Tensor, u: Tensor) -> Tensor:
        """Sums of the edges into each sub-node, (batch, n_subnodes)."""
        sums = self._functions.sums(u)
        if self._weights is not None:
            sums = torch.addmm(sums, self._base_of(v), self._weights.T)
        return sums if self._symbolic is None else self._symbolic.add_to(sums, v)

    def bound_sums(self, v: Ends, u: Ends) -> Ends:
        """Bounds of `sums` over intervals of the inputs: an edge f lies in (f(low) + f(high) -+ its variation) / 2."""
        varied = self._vary(*u)
        if self._weights is not None:
            turns = (TURNS.get(self._base, 0.0),)
            varied = varied + self._weights.abs() * vary(self._base_of, *v, turns).unsqueeze(1)
        if self._symbolic is not None:
            varied = varied + self._symbolic.vary(*v, varied.shape[1])
        both = self.sums(v[0], u[0]) + self.sums(v[1], u[1])
        return (both - varied.sum(dim=2)) / 2, (both + varied.sum(dim=2)) / 2

    def parts(self, v: Tensor, u: Tensor) -> tuple[EdgeParts, EdgeParts]:
        """The parts of each edge, and their slopes: of base and symbolic part with respect to v, of the basis to u."""
        basis, basis_slope = self._functions.edges_and_slopes(u)
        base = base_slope = symbolic = symbolic_slope = torch.zeros_like(basis)
        if self._weights is not None:
            value, slope = value_and_slope(self._base_of, v)
            base, base_slope = (self._weights * part.unsqueeze(1) for part in (value, slope))
        if self._symbolic is not None:
            symbolic = self._symbolic.edges(v, basis.shape[1])
            symbolic_slope = self._symbolic.slopes(v, basis.shape[1])
        return EdgeParts(base, basis, symbolic), EdgeParts(base_slope, basis_slope, symbolic_slope)

    def _base_of(self, v: Tensor) -> Tensor:
        return activate(self._base, ACTIVATIONS[self._base].parameter, v)
