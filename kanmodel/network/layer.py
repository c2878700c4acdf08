"""One KAN layer, the reference definition used in training: edges, sub-nodes, sum and product nodes.

A layer has a function on every edge from its inputs i to its sub-nodes j:

    u_i, v_i   = inputs of basis and base: the input x_i after the transforms before the layer
    edge_ji(x) = mask_ji (scale_base_ji base(v_i) + scale_spline_ji sum_c coef_jic B_ic(u_i)) [+ c f(a v_i + b) + d]
    subnode_j  = sum_i edge_ji(x_i)
    node       = an affine map of one sub-node, or of the product of several

Tensors over edges are always (out, in). Source: Liu et al. 2024, arXiv 2404.19756, eq. 2.5 and 2.10; product nodes
Liu et al. 2024, arXiv 2408.10205, section 2. Numerically equal to pykan 0.2.8.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import nan, sqrt
from typing import Any, cast

import torch
from torch import Tensor, nn

from kanmodel.network.bases import EdgeFunctions
from kanmodel.network.config import LayerConfig, Transform
from kanmodel.network.functions import (
    ACTIVATIONS,
    BOUNDED,
    FUNCTIONS,
    IN_BUMPS,
    activate,
    pull_back,
    value_and_slope,
)
from kanmodel.network.splines import PiecewisePolynomial


@dataclass(frozen=True)
class SymbolicFunctions:
    """The symbolic parts c f(a v + b) + d of edges between inputs v, (batch, n_in), and sub-nodes, by function.

    A group is f; inputs and sub-nodes, (n,) each; and a to d, (4, n).
    """

    groups: tuple[tuple[Callable[[Tensor], Tensor], Tensor, Tensor, Tensor], ...]

    def edges(self, v: Tensor, n_subnodes: int, slopes: bool = False) -> Tensor:
        """Their values or first derivatives, (batch, n_subnodes, n_in), zero for edges without a symbolic part."""
        placed = v.new_zeros(len(v), n_subnodes, v.shape[1])
        for function, i, j, (a, b, c, d) in self.groups:
            u = a * v[:, i] + b
            placed[:, j, i] = c * a * value_and_slope(function, u)[1] if slopes else c * function(u) + d
        return placed

    def add_to(self, sums: Tensor, v: Tensor) -> Tensor:
        """Adds them to sums (batch, n_subnodes)."""
        for function, i, j, (a, b, c, d) in self.groups:
            sums = sums.index_add(1, j, c * function(a * v[:, i] + b) + d)
        return sums


MakeEdges = Callable[[], Tensor]
PullBack = Callable[[Tensor], tuple[Tensor, Tensor]]


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


@dataclass(frozen=True)
class Edges:
    """The functions on edges, of inputs v of the base and u of the basis, each (batch, n_in)."""

    functions: EdgeFunctions | PiecewisePolynomial  # of the basis
    base: str
    weights: Tensor | None  # the base's weight on each edge, (n_subnodes, n_in); None without a base
    symbolic: SymbolicFunctions | None
    lines: Tensor | None  # the weights of a Linear layer, (n_subnodes, n_in); None of another

    def edges(self, v: Tensor, u: Tensor) -> Tensor:
        """Values of all edges, (batch, n_subnodes, n_in); differentiable, unless frozen."""
        edges = self.functions.edges(u)
        if self.weights is not None:
            edges = torch.addcmul(edges, self._base_of(v).unsqueeze(1), self.weights)
        return edges if self.symbolic is None else edges + self.symbolic.edges(v, edges.shape[1])

    def trace(self, v: Tensor, u: Tensor) -> tuple[MakeEdges, Tensor]:
        """`edges` without a gradient, and their sums with one: it takes the slopes, which come with the values."""
        if self.lines is not None:
            return self._edges_later(v, u), self.sums(v, u)
        edges, sums = _Sums.apply(v, u, self)  # type: ignore[no-untyped-call]
        return lambda: edges, sums

    def linearise(self, v: Tensor, u: Tensor) -> tuple[MakeEdges, Tensor, PullBack]:
        """`edges`, their sums, (batch, n_subnodes), and the map of gradients by these to those by v and u; no autograd.

        Edges of a Linear layer are made when they are asked for: there are as many for each row as weights.
        """
        if (lines := self.lines) is not None:
            return self._edges_later(v, u), self.sums(v, u), lambda gradient: (torch.zeros_like(v), gradient @ lines)
        edges, pull_back = self.linearise_edges(v, u)
        return lambda: edges, edges.sum(dim=2), pull_back

    def _edges_later(self, v: Tensor, u: Tensor) -> MakeEdges:
        v, u = v.detach(), u.detach()

        def make_edges() -> Tensor:
            with torch.no_grad():
                return self.edges(v, u)

        return make_edges

    def linearise_edges(self, v: Tensor, u: Tensor) -> tuple[Tensor, PullBack]:
        """`edges`, and the map of `linearise`, from the slopes of each edge."""
        edges, slopes = self.functions.edges_and_slopes(u)
        of_base = of_symbolic = None
        if self.weights is not None:
            base, of_base = value_and_slope(self._activation, in_columns(v))
            edges = torch.addcmul(edges, base.unsqueeze(1), self.weights)
        if self.symbolic is not None:
            edges = edges + self.symbolic.edges(v, edges.shape[1])
            of_symbolic = self.symbolic.edges(v, edges.shape[1], slopes=True)

        def pull_back(gradient: Tensor) -> tuple[Tensor, Tensor]:
            gradient = in_columns(gradient)
            by_u = (gradient.unsqueeze(2) * slopes).sum(dim=1)
            if of_base is None or self.weights is None:
                by_v = torch.zeros_like(by_u)
            else:
                by_v = (self.weights.T @ gradient.T).T.mul_(of_base)
            return by_v if of_symbolic is None else by_v + (gradient.unsqueeze(1) @ of_symbolic).squeeze(1), by_u

        return edges, pull_back

    def sums(self, v: Tensor, u: Tensor) -> Tensor:
        """Sums of the edges into each sub-node, (batch, n_subnodes)."""
        sums = self.functions.sums(u)
        if self.weights is not None:
            sums = torch.addmm(sums, self._base_of(v), self.weights.T)
        return sums if self.symbolic is None else self.symbolic.add_to(sums, v)

    def parts(self, v: Tensor, u: Tensor) -> tuple[EdgeParts, EdgeParts]:
        """The parts of each edge, and their slopes: of base and symbolic part with respect to v, of the basis to u."""
        basis, basis_slope = self.functions.edges_and_slopes(u)
        base = base_slope = symbolic = symbolic_slope = torch.zeros_like(basis)
        if self.weights is not None:
            base, base_slope = (self.weights * part.unsqueeze(1) for part in value_and_slope(self._activation, v))
        if self.symbolic is not None:
            symbolic, symbolic_slope = (self.symbolic.edges(v, basis.shape[1], slopes) for slopes in (False, True))
        return EdgeParts(base, basis, symbolic), EdgeParts(base_slope, basis_slope, symbolic_slope)

    @property
    def _activation(self) -> Callable[[Tensor], Tensor]:
        function, parameter = ACTIVATIONS[self.base]
        return function if parameter is None else self._base_of

    def _base_of(self, v: Tensor) -> Tensor:
        return activate(self.base, ACTIVATIONS[self.base].parameter, v)


def in_columns(values: Tensor) -> Tensor:
    """The same values, (batch, n), stored in rows of the batch, as those of splines are: long rows are the fastest."""
    return values.T.contiguous().T


class _Sums(torch.autograd.Function):
    """Values of edges, (batch, n_subnodes, n_in), and their sums, (batch, n_subnodes), which have a gradient."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, u: Tensor, of: Edges) -> tuple[Tensor, Tensor]:
        edges, ctx.pull_back = of.linearise_edges(v.detach(), u.detach())
        ctx.mark_non_differentiable(edges)
        return edges, edges.sum(dim=2)

    @staticmethod
    def backward(ctx: Any, _: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return *ctx.pull_back(gradient), None


@dataclass(frozen=True)
class LayerTrace:
    """All activations of one KAN layer."""

    inputs: Tensor  # (batch, n_in), before the transforms of the layer
    make_edges: MakeEdges = field(repr=False)
    subnodes: Tensor  # sums of edges, before any affine map, (batch, n_subnodes)
    nodes: Tensor  # outputs of the layer, (batch, n_out)

    @cached_property
    def edges(self) -> Tensor:
        """The value of each edge, (batch, n_subnodes, n_in)."""
        return self.make_edges()

    def map(self, function: Callable[[Tensor], Tensor]) -> LayerTrace:
        """The trace with all its values changed."""
        return LayerTrace(
            function(self.inputs), lambda: function(self.edges), function(self.subnodes), function(self.nodes)
        )


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
        kind, parameter, weight, bias = self.config.kind, self.config.parameter, self.weight, self.bias
        if weight is None or bias is None:
            return activate(kind, parameter, x)
        if self.config.mixes:
            return nn.functional.layer_norm(x, weight.shape, weight, bias, cast(float, parameter))
        return torch.addcmul(bias, x, weight) if inputs is None else torch.addcmul(bias[inputs], x, weight[inputs])


class KANLayer(nn.Module):
    """One layer of edges with the sum and product nodes they enter; initialized like pykan's.

    The initial functions of its basis and its base scales are drawn from the generator; None for torch's own.
    """

    coef: Tensor
    mask: Tensor
    scale_base: Tensor | None
    scale_spline: Tensor | None
    subnode_scale: Tensor
    subnode_bias: Tensor
    node_scale: Tensor
    node_bias: Tensor
    symbolic_mask: Tensor
    symbolic_affine: Tensor

    def __init__(self, config: LayerConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        size = config.n_subnodes, config.n_in
        initial = config.basis.initial(*size, generator)
        initial["scale_base"] = (torch.rand(size, generator=generator) * 2 - 1) / sqrt(config.n_in)
        initial["scale_spline"] = torch.full(size, 1 / sqrt(config.n_in))
        for name in ("scale_base", "scale_spline"):
            self.register_parameter(name, None)  # of layers without
        for name, shape in own_shapes(config).items():
            tensor = initial.get(name, torch.zeros(shape) if name.endswith("bias") else torch.ones(shape))
            if name in (*config.basis.per_edge(), "scale_base", "scale_spline"):
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        self.before = nn.ModuleList(InputTransform(transform, config.n_in) for transform in config.before)

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
        """Edges that are not masked, and not zero or constant by their weights, (n_subnodes, n_in), bool."""
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

    @torch.no_grad()
    def silence(self) -> None:
        """Makes all edges 0, in place; they can be trained from there."""
        self.coef.zero_()
        if self.scale_base is not None:
            self.scale_base.zero_()

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

        If `inputs` are given, x has only those; a layer with a layer norm needs all.
        """
        if not self.config.before:
            return x, x
        of_base = x
        for number, transform in enumerate(self.before):
            x = transform(x, inputs)
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
        """The functions of the edges between some inputs and sub-nodes, by their indices; of all by default.

        `scale` are factors of the edges into these sub-nodes, (n_subnodes,). `frozen` ones are prepared for many calls;
        their sums are not differentiable.
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
        weights = None if self.scale_base is None else choose(self.mask * self.scale_base)
        if scale is not None:
            tensors["coef"] = scale[:, None, None] * tensors["coef"]
            weights = None if weights is None else scale[:, None] * weights
        if frozen and weights is not None:
            weights = weights.T.contiguous().T  # the memory layout of frozen functions
        symbolic = self._symbolic_functions(inputs, subnodes, scale) if config.symbolic else None
        functions = basis.freeze(tensors) if frozen else basis.functions(tensors)
        lines = tensors["coef"].squeeze(-1) if config.is_linear else None
        return Edges(functions, config.base, weights, symbolic, lines)

    def _symbolic_functions(
        self, inputs: Tensor | None, subnodes: Tensor | None, scale: Tensor | None
    ) -> SymbolicFunctions | None:
        """The unmasked symbolic parts, as for `functions`; None if there are none."""
        config, groups = self.config, defaultdict[str, list[tuple[int, int, Tensor]]](list)
        column = {i: place for place, i in enumerate(range(config.n_in) if inputs is None else inputs.tolist())}
        row = {j: place for place, j in enumerate(range(config.n_subnodes) if subnodes is None else subnodes.tolist())}
        for edge, mask, affine in zip(config.symbolic, self.symbolic_mask, self.symbolic_affine, strict=True):
            if mask != 0 and edge.i in column and edge.j in row:
                i, j = column[edge.i], row[edge.j]
                factor = mask if scale is None else mask * scale[j]
                groups[edge.function].append((i, j, torch.cat([affine[:2], factor * affine[2:]])))
        of_groups = []
        for name, group in groups.items():
            i_s, j_s, affines = zip(*group, strict=True)
            of_groups.append((FUNCTIONS[name], torch.tensor(i_s), torch.tensor(j_s), torch.stack(affines, dim=1)))
        return SymbolicFunctions(tuple(of_groups)) if of_groups else None

    def in_bumps(self, x: Tensor) -> Iterator[Tensor]:
        """Node values (..., n_in) as positions in the functions on the edges, see `Basis.in_bumps`."""
        v, u = self.read(x)
        positions = self.config.basis.in_bumps(u, self._tensors())
        if positions is not None:
            yield positions
        for name, argument in self._symbolic_arguments(v, IN_BUMPS):
            yield IN_BUMPS[name](argument)

    def bounded(self, x: Tensor) -> Iterator[Tensor]:
        """Values of functions in `BOUNDED` of node values (..., n_in), which may move where these hardly do."""
        v, u = self.read(x)
        if not BOUNDED.isdisjoint(transform.kind for transform in self.config.before):
            yield u
        if self.config.base in BOUNDED:
            yield activate(self.config.base, ACTIVATIONS[self.config.base].parameter, v)
        for name, argument in self._symbolic_arguments(v, BOUNDED):
            yield FUNCTIONS[name](argument)

    def _symbolic_arguments(self, v: Tensor, functions: Container[str]) -> Iterator[tuple[str, Tensor]]:
        """The name and the arguments (..., 1) of each symbolic edge whose function is one of these."""
        for number, edge in enumerate(self.config.symbolic):
            if edge.function in functions and self.symbolic_mask[number] != 0:
                a, b, *_ = self.symbolic_affine[number]
                yield edge.function, a * v[..., edge.i, None] + b

    @property
    def half_bump(self) -> Tensor:
        """See `Basis.half_bump`, (n_in,); NaN where transforms or formulas change the positions."""
        length = nan if self.config.before or self.config.symbolic else self.config.basis.half_bump(self._tensors())
        return torch.as_tensor(length, dtype=self.mask.dtype).expand(self.config.n_in)

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
        if functions is not None:
            make_edges, subnodes = functions.trace(*self.read(x))
        else:
            edges = self.functions().edges(*self.read(x))
            make_edges, subnodes = lambda: edges, edges.sum(dim=2)
        return LayerTrace(x, make_edges, subnodes, self.nodes(subnodes))

    def linearise(self, x: Tensor, functions: Edges) -> tuple[LayerTrace, Callable[[Tensor], tuple[Tensor, Tensor]]]:
        """A trace, and the map of gradients by its nodes to those by sub-nodes and inputs; without autograd."""
        make_edges, subnodes, pull_back_edges = functions.linearise(*self.read(x))

        def of_nodes(by_nodes: Tensor) -> tuple[Tensor, Tensor]:
            if self.config.mult_arity:
                by_subnodes = pull_back(self.nodes, subnodes, by_nodes)
            else:
                by_subnodes = by_nodes * (self.node_scale * self.subnode_scale)
            by_v, by_u = pull_back_edges(by_subnodes)
            return by_subnodes, pull_back(self.read, x, (by_v, by_u)) if self.config.before else by_v.add_(by_u)

        return LayerTrace(x, make_edges, subnodes, self.nodes(subnodes)), of_nodes

    @torch.no_grad()
    def update_grid(self, x: Tensor, grid_eps: float = 0.02) -> None:
        """Moves the knots to the layer's inputs (batch, n_in), see `Basis.refit`; `grid_eps` is pykan's by default."""
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
    transforms = [number for number, transform in enumerate(config.before) if transform.has_tensors]
    of_transforms = {f"before.{number}.{name}": (config.n_in,) for number in transforms for name in ("weight", "bias")}
    return own_shapes(config) | of_transforms


def own_shapes(config: LayerConfig) -> dict[str, tuple[int, ...]]:
    """`layer_shapes` without the transforms."""
    size, n_symbolic = (config.n_subnodes, config.n_in), len(config.symbolic)
    shapes: dict[str, tuple[int, ...]] = {name: size + rest for name, rest in config.basis.per_edge().items()}
    shapes |= {name: (config.n_in, *rest) for name, rest in config.basis.per_input().items()}
    has = {"scale_base": config.base != "zero", "scale_spline": config.basis.scaled, "mask": True}
    shapes |= {name: size for name, present in has.items() if present}
    for name, n in (("subnode", config.n_subnodes), ("node", config.n_out)):
        shapes |= {f"{name}_scale": (n,), f"{name}_bias": (n,)}
    return shapes | ({"symbolic_mask": (n_symbolic,), "symbolic_affine": (n_symbolic, 4)} if n_symbolic else {})
