"""The Kolmogorov-Arnold network: the readable definition, and the one that trains.

A layer holds a function on every edge from its inputs i to its sub-nodes j:

    edge_ji(x) = mask_ji * (scale_base_ji * base(x) + scale_spline_ji * sum_c coef_jic B_ic(x)) [+ c f(a x + b) + d]
    subnode_j  = sum_i edge_ji(x_i)
    node       = an affine map of one sub-node, or of the product of several

Tensors over edges are (out, in) always. Source: Liu et al. 2024, arXiv 2404.19756, eq. 2.5 and 2.10; product nodes
Liu et al. 2024, arXiv 2408.10205, section 2. Numerically equal to pykan 0.2.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import Tensor, nn

from kanmodel import bspline, radial
from kanmodel.config import BaseActivation, KANConfig
from kanmodel.errors import ConfigError
from kanmodel.functions import FUNCTIONS

BASE_FUNCTIONS: dict[BaseActivation, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "identity": lambda x: x,
    "zero": lambda x: x - x,  # with a gradient, which splines of order 0 have not
}


@dataclass(frozen=True)
class LayerTrace:
    """Everything that passes through one layer of a KAN.

    Attributes:
        inputs: (batch, n_in).
        edges: what each edge adds, (batch, n_subnodes, n_in).
        subnodes: sums of edges, before any affine map, (batch, n_subnodes).
        nodes: what the layer hands on, (batch, n_out).
    """

    inputs: Tensor
    edges: Tensor
    subnodes: Tensor
    nodes: Tensor


class KANLayer(nn.Module):
    """One layer of edges with the sum and product nodes behind it.

    Args:
        config: the network the layer belongs to.
        layer: its number, from 0.

    A new layer has a uniform grid on [-1, 1], small random splines and random base scales, as pykan starts one.
    """

    coef: Tensor
    scale_base: Tensor
    scale_spline: Tensor
    grid: Tensor
    mask: Tensor
    subnode_scale: Tensor
    subnode_bias: Tensor
    node_scale: Tensor
    node_bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    symbolic_mask: Tensor
    symbolic_affine: Tensor

    def __init__(self, config: KANConfig, layer: int) -> None:
        super().__init__()
        shapes = layer_shapes(config, layer)
        n_sub, n_in, _ = shapes["coef"]
        self.config, self.number = config, layer
        self.spline_order = config.spline_order
        self.base = BASE_FUNCTIONS[config.base_activation]
        self.n_sum, _ = config.width[layer + 1]
        self.mult_arity = config.mult_arity[layer + 1]
        self.layer_norm = config.layer_norm[layer]
        self.symbolic = tuple(edge for edge in config.symbolic if edge.layer == layer)

        grid, coef = self._initial_splines(shapes)
        self.coef = nn.Parameter(coef)
        self.scale_base = nn.Parameter((torch.rand(n_sub, n_in) * 2 - 1) / sqrt(n_in))
        self.scale_spline = nn.Parameter(torch.full((n_sub, n_in), 1 / sqrt(n_in)))
        self.register_buffer("grid", grid)
        for name in shapes.keys() - {"coef", "scale_base", "scale_spline", "grid"}:
            initial = torch.zeros if name.endswith("bias") else torch.ones
            self.register_buffer(name, initial(shapes[name]))

    def _initial_splines(self, shapes: dict[str, tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """A uniform grid on [-1, 1] and small random coefficients."""
        n_sub, n_in, n_basis = shapes["coef"]
        if self.config.basis != "bspline":
            centres = torch.linspace(-1, 1, n_basis).expand(n_in, -1).contiguous()
            return centres, (torch.rand(n_sub, n_in, n_basis) - 0.5) * 0.3 / n_basis
        grid_size = n_basis - self.spline_order
        core = torch.linspace(-1, 1, grid_size + 1).expand(n_in, -1)  # (n_in, G+1)
        grid = bspline.extend_grid(core, self.spline_order)
        noise = (torch.rand(grid_size + 1, n_sub, n_in) - 0.5) * 0.3 / grid_size
        return grid, bspline.fit_coefficients(core.T, noise, grid, self.spline_order)

    @property
    def core(self) -> tuple[Tensor, Tensor]:
        """Ends of each input's core interval, beyond which its splines fade to zero: two of (n_in,)."""
        k = self.spline_order
        return self.grid[:, k], self.grid[:, -k - 1]

    @property
    def live(self) -> Tensor:
        """Edges that are not masked, in their spline or their symbolic part, (n_subnodes, n_in), bool."""
        return (self.mask != 0) | self.is_symbolic

    @property
    def is_symbolic(self) -> Tensor:
        """Edges with a symbolic part that is not masked, (n_subnodes, n_in), bool."""
        symbolic = torch.zeros_like(self.mask, dtype=torch.bool)
        for number, edge in enumerate(self.symbolic):
            symbolic[edge.j, edge.i] = bool(self.symbolic_mask[number] != 0)
        return symbolic

    def silence(self, edges: Tensor) -> None:
        """Masks edges, (n_subnodes, n_in), bool, in place."""
        self.mask[edges] = 0
        for number, edge in enumerate(self.symbolic):
            if edges[edge.j, edge.i]:
                self.symbolic_mask[number] = 0

    def normalise(self, x: Tensor) -> Tensor:
        """What the splines act on: the inputs (batch, n_in), layer-normalised where the layer has a norm."""
        if not self.layer_norm:
            return x
        return nn.functional.layer_norm(x, x.shape[-1:], self.norm_weight, self.norm_bias)

    def basis(self, u: Tensor, inputs: slice | Tensor | list[int] = slice(None)) -> Tensor:
        """The basis functions at `normalise`d inputs, (batch, n_in) -> (batch, n_in, n_basis); of some inputs alone."""
        grid = self.grid[inputs]
        if self.config.basis == "bspline":
            return bspline.basis(u, grid, self.spline_order)
        bump = radial.gaussian if self.config.basis == "gaussian" else radial.sech2
        return bump(u, grid, self.config.denominator[self.number])

    def edge_parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Base, spline and symbolic part of every edge, masks and scales included; their sum is the edge.

        Args:
            x: inputs, (batch, n_in).

        Returns:
            Three tensors (batch, n_subnodes, n_in).
        """
        base = self.mask * self.scale_base * self.base(x).unsqueeze(1)
        spline = torch.einsum("big,oig->boi", self.basis(self.normalise(x)), self.weights())
        return base, spline, self._symbolic_part(x)

    def edge_parts_at(self, x: Tensor, inputs: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """`edge_parts` of the edges that leave some inputs, each input at positions of its own.

        Where the layer has a norm, the spline part is taken at the positions as if they were normalised already.

        Args:
            x: positions, (points, len(inputs)).
            inputs: numbers of the inputs.

        Returns:
            Three tensors (points, n_subnodes, len(inputs)).
        """
        base = (self.mask * self.scale_base)[:, inputs] * self.base(x).unsqueeze(1)
        spline = torch.einsum("big,oig->boi", self.basis(x, inputs), self.weights()[:, inputs])
        return base, spline, self._symbolic_part(x, inputs)

    def edges(self, x: Tensor) -> Tensor:
        """What every edge adds, (batch, n_in) -> (batch, n_subnodes, n_in)."""
        base, spline, symbolic = self.edge_parts(x)
        return base + spline + symbolic if self.symbolic else base + spline

    def subnodes(self, x: Tensor) -> Tensor:
        """Sums of edges, (batch, n_in) -> (batch, n_subnodes), without making the edges one by one."""
        splines = self.basis(self.normalise(x)).flatten(1) @ self.weights().flatten(1).T
        subnodes = self.base(x) @ (self.mask * self.scale_base).T + splines
        return subnodes + self._symbolic_part(x).sum(dim=2) if self.symbolic else subnodes

    def weights(self) -> Tensor:
        """Coefficients with masks and scales, (n_subnodes, n_in, n_basis)."""
        return (self.mask * self.scale_spline).unsqueeze(-1) * self.coef

    def _symbolic_part(self, x: Tensor, inputs: Sequence[int] | None = None) -> Tensor:
        """mask * (c f(a x + b) + d) of the symbolic edges, zero elsewhere; of some inputs alone."""
        inputs = range(self.mask.shape[1]) if inputs is None else inputs
        part = x.new_zeros(len(x), len(self.mask), len(inputs))
        for number, edge in enumerate(self.symbolic):
            if edge.i in inputs and self.symbolic_mask[number] != 0:  # 0 times what leaves its domain is NaN
                column = inputs.index(edge.i)
                a, b, c, d = self.symbolic_affine[number]
                value = c * FUNCTIONS[edge.function](a * x[:, column] + b) + d
                part[:, edge.j, column] = self.symbolic_mask[number] * value
        return part

    def nodes(self, subnodes: Tensor) -> Tensor:
        """The affine maps and products behind the sub-nodes, (batch, n_subnodes) -> (batch, n_out)."""
        factors = self.subnode_scale * subnodes + self.subnode_bias
        columns, start = [factors[:, : self.n_sum]], self.n_sum
        for arity in self.mult_arity:
            columns.append(factors[:, start : start + arity].prod(dim=1, keepdim=True))
            start += arity
        return self.node_scale * torch.cat(columns, dim=1) + self.node_bias

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in) -> (batch, n_out)."""
        return self.nodes(self.subnodes(x))

    def trace(self, x: Tensor) -> LayerTrace:
        """The same as `forward`, keeping what passes."""
        edges = self.edges(x)
        subnodes = edges.sum(dim=2)
        return LayerTrace(x, edges, subnodes, self.nodes(subnodes))

    @torch.no_grad()
    def update_grid(self, x: Tensor, grid_eps: float = 0.02) -> None:
        """Moves the knots to where the data is, and refits each spline there by least squares.

        The data is what the splines act on: the inputs, layer-normalised where the layer has a norm. A curve that the
        new knots can represent stays the same on the data; any other becomes the spline nearest to it. The coefficients
        are those of the bare spline, without `scale_spline`. An input that never varies keeps its knots. Source: Liu et
        al. 2024, arXiv 2404.19756, section 2.4 and pykan's `update_grid_from_samples`.

        Args:
            x: inputs of the layer, (batch, n_in).
            grid_eps: 0 for knots at quantiles of the data, 1 for uniform knots, a mixture between.

        Raises:
            ConfigError: the basis is not made of B-splines.
        """
        if not self.config.has_knots:
            raise ConfigError(f"only B-splines have knots to move, but the basis is {self.config.basis}")
        n_intervals = self.grid.shape[1] - 1 - 2 * self.spline_order
        ordered = self.normalise(x).sort(dim=0).values
        curves = bspline.curve(ordered, self.grid, self.coef, self.spline_order)
        fractions = torch.linspace(0, 1, n_intervals + 1, dtype=x.dtype)
        quantiles = ordered[(fractions * (len(x) - 1)).long()].T  # (n_in, G+1)
        uniform = quantiles[:, :1] + (quantiles[:, -1:] - quantiles[:, :1]) * fractions
        grid = bspline.extend_grid(grid_eps * uniform + (1 - grid_eps) * quantiles, self.spline_order)
        coef = bspline.fit_coefficients(ordered, curves, grid, self.spline_order)
        varies = ordered[-1] > ordered[0]  # (n_in,): equal knots would make the splines of a constant input vanish
        self.grid.copy_(torch.where(varies[:, None], grid, self.grid))
        self.coef.copy_(torch.where(varies[:, None], coef, self.coef))


class KAN(nn.Module):
    """A stack of `KANLayer`.

    Args:
        config: widths, grids, order and base activation.
    """

    def __init__(self, config: KANConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(KANLayer(config, layer) for layer in range(config.depth))

    def __iter__(self) -> Iterator[KANLayer]:
        """The layers, first to last."""
        return (self[layer] for layer in range(len(self.layers)))

    def __getitem__(self, layer: int) -> KANLayer:
        """Layer number `layer`."""
        found = self.layers[layer]
        assert isinstance(found, KANLayer)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_inputs) -> (batch, n_outputs)."""
        for layer in self.layers:
            x = layer(x)
        return x

    def trace(self, x: Tensor) -> tuple[LayerTrace, ...]:
        """The same as `forward`, keeping what passes; the last trace's nodes are the outputs."""
        traces: list[LayerTrace] = []
        for layer in self:
            traces.append(layer.trace(x))
            x = traces[-1].nodes
        return tuple(traces)

    @torch.no_grad()
    def update_grid(self, x: Tensor, grid_eps: float = 0.02) -> None:
        """`KANLayer.update_grid` for every layer, each on what reaches it from `x` (batch, n_inputs).

        Raises:
            ConfigError: the basis is not made of B-splines.
        """
        for layer in self:
            layer.update_grid(x, grid_eps)
            x = layer(x)


def tensor_shapes(config: KANConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a `KAN` of this config, by arithmetic alone."""
    return {
        f"layers.{layer}.{name}": shape
        for layer in range(config.depth)
        for name, shape in layer_shapes(config, layer).items()
    }


def layer_shapes(config: KANConfig, layer: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of one `KANLayer`."""
    n_in, n_sub, n_out = config.n_nodes[layer], config.n_subnodes[layer + 1], config.n_nodes[layer + 1]
    per_edge, k = (n_sub, n_in), config.spline_order
    n_knots = config.grid_size[layer] + (2 * k + 1 if config.basis == "bspline" else 0)
    shapes: dict[str, tuple[int, ...]] = {
        "coef": (*per_edge, config.grid_size[layer] + k),
        "scale_base": per_edge,
        "scale_spline": per_edge,
        "grid": (n_in, n_knots),
        "mask": per_edge,
        "subnode_scale": (n_sub,),
        "subnode_bias": (n_sub,),
        "node_scale": (n_out,),
        "node_bias": (n_out,),
    }
    if config.layer_norm[layer]:
        shapes |= {"norm_weight": (n_in,), "norm_bias": (n_in,)}
    n_symbolic = sum(edge.layer == layer for edge in config.symbolic)
    if n_symbolic:
        shapes |= {"symbolic_mask": (n_symbolic,), "symbolic_affine": (n_symbolic, 4)}
    return shapes


def n_edges(config: KANConfig) -> int:
    """Edges of a KAN of this config."""
    return sum(prod(pair) for pair in zip(config.n_nodes[:-1], config.n_subnodes[1:], strict=True))
