"""One KAN layer, the reference definition used in training: edges, sub-nodes, sum and product nodes.

A layer has a function on every edge from its inputs i to its sub-nodes j:

    u_i, v_i   = inputs of basis and base: the input x_i after the steps before the layer
    edge_ji(x) = mask_ji (scale_base_ji base(v_i) + scale_spline_ji sum_c coef_jic B_ic(u_i)) [+ c f(a v_i + b) + d]
    subnode_j  = sum_i edge_ji(x_i)
    node       = an affine map of one sub-node, or of the product of several

Tensors over edges are always (out, in). Source: Liu et al. 2024, arXiv 2404.19756, eq. 2.5 and 2.10; product nodes
Liu et al. 2024, arXiv 2408.10205, section 2. Numerically equal to pykan 0.2.8.

Edge functions between the inputs and sub-nodes of a layer: basis, base and symbolic parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt

import torch
from torch import Tensor, nn

from kanmodel.network.bases import EdgeFunctions
from kanmodel.network.config import LayerConfig, Transform
from kanmodel.network.functions import ACTIVATIONS, FUNCTIONS, IN_BUMPS, TURNS, activate, value_and_slope, vary

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


@dataclass(frozen=True)
class LayerTrace:
    """All activations of one KAN layer.

    Attributes:
        inputs: (batch, n_in), before the steps of the layer.
        edges: value of each edge, (batch, n_subnodes, n_in).
        subnodes: sums of edges, before any affine map, (batch, n_subnodes).
        nodes: outputs of the layer, (batch, n_out).
    """

    inputs: Tensor
    edges: Tensor
    subnodes: Tensor
    nodes: Tensor


class InputTransform(nn.Module):
    """A transform of a layer's inputs: an activation, an affine map or a layer norm."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, config: Transform, n_in: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("weight", torch.ones(n_in) if config.has_tensors else None)
        self.register_buffer("bias", torch.zeros(n_in) if config.has_tensors else None)

    def forward(self, x: Tensor, inputs: Tensor | None = None) -> Tensor:
        """(batch, n_in) -> the same shape; `inputs` are the indices of a subset of inputs."""
        if self.weight is None or self.bias is None:
            return activate(self.config.kind, self.config.parameter, x)
        if self.config.mixes:
            assert self.config.parameter is not None
            return nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.config.parameter)
        weight, bias = (self.weight, self.bias) if inputs is None else (self.weight[inputs], self.bias[inputs])
        return torch.addcmul(bias, x, weight)


class KANLayer(nn.Module):
    """One layer of edges with the sum and product nodes they enter.

    Args:
        config: its shapes and functions.
        generator: of its random numbers; None for torch's own.

    A new layer is initialized like pykan's, with the initial functions of its basis and random base scales.
    """

    coef: Tensor
    scale_base: Tensor | None
    scale_spline: Tensor | None
    mask: Tensor
    subnode_scale: Tensor
    subnode_bias: Tensor
    node_scale: Tensor
    node_bias: Tensor
    symbolic_mask: Tensor
    symbolic_affine: Tensor

    def __init__(self, config: LayerConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        n_sub, n_in = config.n_subnodes, config.n_in
        for name, initial in config.basis.initial(n_sub, n_in, generator).items():
            if name in config.basis.per_edge():
                self.register_parameter(name, nn.Parameter(initial))
            else:
                self.register_buffer(name, initial)
        has_base = config.base != "zero"
        base = (torch.rand(n_sub, n_in, generator=generator) * 2 - 1) / sqrt(n_in)
        self.register_parameter("scale_base", nn.Parameter(base) if has_base else None)
        scale = torch.full((n_sub, n_in), 1 / sqrt(n_in))
        self.register_parameter("scale_spline", nn.Parameter(scale) if config.basis.scaled else None)
        self.register_buffer("mask", torch.ones(n_sub, n_in))
        for name, size in (("subnode", n_sub), ("node", config.n_out)):
            self.register_buffer(f"{name}_scale", torch.ones(size))
            self.register_buffer(f"{name}_bias", torch.zeros(size))
        if config.symbolic:
            self.register_buffer("symbolic_mask", torch.ones(len(config.symbolic)))
            self.register_buffer("symbolic_affine", torch.ones(len(config.symbolic), 4))
        self.before = nn.ModuleList(InputTransform(step, n_in) for step in config.before)

    @property
    def core(self) -> tuple[Tensor, Tensor] | None:
        """Ends of each input's core interval, beyond which its basis decays to zero, two of (n_in,); None without."""
        return self.config.basis.core(self._tensors())

    @property
    def live(self) -> Tensor:
        """Edges with an unmasked basis or symbolic part, (n_subnodes, n_in), bool."""
        return (self.mask != 0) | self.is_symbolic

    @property
    def acts(self) -> Tensor:
        """Edges that are neither masked nor zero everywhere, (n_subnodes, n_in), bool."""
        acts = (self.weights() != 0).any(dim=2) | self.is_symbolic
        return acts if self.scale_base is None else acts | (self.mask * self.scale_base != 0)

    @property
    def varies(self) -> Tensor:
        """Edges that are not masked, and not zero or constant by their weights, (n_subnodes, n_in), bool.

        A symbolic part c f(a x + b) + d varies unless a or c is 0.
        """
        varies = self.config.basis.varies(self.weights())
        if self.scale_base is not None:
            varies = varies | (self.mask * self.scale_base != 0)
        for number, edge in enumerate(self.config.symbolic):
            a, _, c, _ = self.symbolic_affine[number]
            if edge.function != "0" and bool((self.symbolic_mask[number] != 0) & (a != 0) & (c != 0)):
                varies[edge.j, edge.i] = True
        return varies

    @property
    def is_symbolic(self) -> Tensor:
        """Edges with an unmasked symbolic part, (n_subnodes, n_in), bool."""
        symbolic = torch.zeros_like(self.mask, dtype=torch.bool)
        for number, edge in enumerate(self.config.symbolic):
            symbolic[edge.j, edge.i] = bool(self.symbolic_mask[number] != 0)
        return symbolic

    def mask_edges(self, edges: Tensor) -> None:
        """Masks edges, (n_subnodes, n_in), bool, in place."""
        self.mask[edges] = 0
        for number, edge in enumerate(self.config.symbolic):
            if edges[edge.j, edge.i]:
                self.symbolic_mask[number] = 0

    def weights(self) -> Tensor:
        """Coefficients with masks and scales, (n_subnodes, n_in, n_basis)."""
        scale = self.mask if self.scale_spline is None else self.mask * self.scale_spline
        return scale.unsqueeze(-1) * self.coef

    def read(self, x: Tensor, inputs: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inputs of the base and of the basis for node values (batch, n_in): two of the same shape.

        Args:
            x: the values; if `inputs` is given, of those inputs only.
            inputs: indices of some inputs; a layer with a layer norm needs all.
        """
        of_base = x
        if not self.config.before:
            return x, x
        for number, step in enumerate(self.before):
            x = step(x, inputs)
            if number < self.config.n_before_base:
                of_base = x
        return of_base, x

    def functions(
        self,
        inputs: Tensor | None = None,
        subnodes: Tensor | None = None,
        scale: Tensor | None = None,
        frozen: bool = False,
    ) -> Edges:
        """The functions of the edges.

        Args:
            inputs: indices of their inputs; all by default.
            subnodes: indices of their sub-nodes; all by default.
            scale: a factor for the edges into each of these sub-nodes, (n_subnodes,).
            frozen: whether to prepare them for many calls; sums are then not differentiable.
        """

        def choose(edges: Tensor) -> Tensor:
            edges = edges if subnodes is None else edges[subnodes]
            return edges if inputs is None else edges[:, inputs]

        basis, config = self.config.basis, self.config
        tensors = {name: choose(getattr(self, name)) for name in basis.per_edge()}
        tensors |= {name: getattr(self, name) for name in basis.per_input()}
        if inputs is not None:
            tensors |= {name: tensors[name][inputs] for name in basis.per_input()}
        tensors["coef"] = choose(self.weights())
        base_weights = None if self.scale_base is None else choose(self.mask * self.scale_base)
        if scale is not None:
            tensors["coef"] = scale[:, None, None] * tensors["coef"]
            base_weights = None if base_weights is None else scale[:, None] * base_weights
        symbolic = None
        if config.symbolic:
            symbolic = SymbolicFunctions.of(
                config, self.symbolic_mask, self.symbolic_affine, _numbers(inputs), _numbers(subnodes), scale
            )
        vary = partial(basis.vary, tensors=tensors)
        if not frozen:
            return Edges(basis.functions(tensors), vary, config.base, base_weights, symbolic)
        by_input = (
            None if base_weights is None else base_weights.T.contiguous().T
        )  # the memory layout of frozen functions
        return Edges(basis.freeze(tensors), vary, config.base, by_input, symbolic)

    def in_bumps(self, x: Tensor) -> Iterator[Tensor]:
        """Node values (..., n_in) as positions in the functions on the edges, see `Basis.in_bumps`."""
        v, u = self.read(x)
        positions = self.config.basis.in_bumps(u, self._tensors())
        if positions is not None:
            yield positions
        for number, edge in enumerate(self.config.symbolic):
            if edge.function in IN_BUMPS and self.symbolic_mask[number] != 0:
                a, b, *_ = self.symbolic_affine[number]
                yield IN_BUMPS[edge.function](a * v[..., edge.i, None] + b)

    def nodes(self, subnodes: Tensor) -> Tensor:
        """Affine maps and products after the sub-nodes, (batch, n_subnodes) -> (batch, n_out)."""
        factors = torch.addcmul(self.subnode_bias, self.subnode_scale, subnodes)
        if self.config.mult_arity:
            sums, *of_products = torch.split(factors, [self.config.n_sum, *self.config.mult_arity], dim=1)
            factors = torch.cat([sums, *(product.prod(dim=1, keepdim=True) for product in of_products)], dim=1)
        return torch.addcmul(self.node_bias, self.node_scale, factors)

    def edges(self, x: Tensor) -> Tensor:
        """Values of all edges, (batch, n_in) -> (batch, n_subnodes, n_in)."""
        return self.functions().edges(*self.read(x))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in) -> (batch, n_out)."""
        return self.nodes(self.functions().sums(*self.read(x)))

    def trace(self, x: Tensor, functions: Edges | None = None) -> LayerTrace:
        """Like `forward`, but returns all activations; uses prepared functions if they are given."""
        edges = (functions or self.functions()).edges(*self.read(x))
        subnodes = edges.sum(dim=2)
        return LayerTrace(x, edges, subnodes, self.nodes(subnodes))

    @torch.no_grad()
    def update_grid(self, x: Tensor, grid_eps: float = 0.02) -> None:
        """Moves the knots to the inputs of the basis; a basis without knots does not change.

        Args:
            x: inputs of the layer, (batch, n_in).
            grid_eps: see `Basis.refit`; pykan's by default.
        """
        for name, tensor in self.config.basis.refit(self.read(x)[1], self._tensors(), grid_eps).items():
            getattr(self, name).copy_(tensor)

    def _tensors(self) -> dict[str, Tensor]:
        """Tensors of the basis, without masks and scales."""
        basis = self.config.basis
        return {name: getattr(self, name) for name in (*basis.per_edge(), *basis.per_input())}


def pass_layers(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """(batch, n_in) -> (batch, n_out) through consecutive layers."""
    for layer in layers:
        x = layer(x)
    return x


def layer_shapes(config: LayerConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a `KANLayer`, computed without building it."""
    n_sub, n_in = config.n_subnodes, config.n_in
    shapes: dict[str, tuple[int, ...]] = {name: (n_sub, n_in, *rest) for name, rest in config.basis.per_edge().items()}
    shapes |= {name: (n_in, *rest) for name, rest in config.basis.per_input().items()}
    if config.base != "zero":
        shapes["scale_base"] = (n_sub, n_in)
    if config.basis.scaled:
        shapes["scale_spline"] = (n_sub, n_in)
    shapes |= {"mask": (n_sub, n_in), "subnode_scale": (n_sub,), "subnode_bias": (n_sub,)}
    shapes |= {"node_scale": (config.n_out,), "node_bias": (config.n_out,)}
    if config.symbolic:
        shapes |= {"symbolic_mask": (len(config.symbolic),), "symbolic_affine": (len(config.symbolic), 4)}
    for number, step in enumerate(config.before):
        if step.has_tensors:
            shapes |= {f"before.{number}.weight": (n_in,), f"before.{number}.bias": (n_in,)}
    return shapes


def _numbers(chosen: Tensor | None) -> Sequence[int] | None:
    return None if chosen is None else chosen.tolist()
