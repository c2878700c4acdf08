"""The Kolmogorov-Arnold network: the readable definition, and the one that trains.

A layer holds a function on every edge from its inputs i to its sub-nodes j:

    edge_ji(x) = mask_ji * (scale_base_ji * base(x) + scale_spline_ji * sum_c coef_jic B_ic(x))
    subnode_j  = sum_i edge_ji(x_i)
    node       = an affine map of one sub-node, or of the product of several

Tensors over edges are (out, in) always. Source: Liu et al. 2024, arXiv 2404.19756, eq. 2.5 and 2.10; product nodes
Liu et al. 2024, arXiv 2408.10205, section 2. Numerically equal to pykan 0.2.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import Tensor, nn

from kanmodel import bspline
from kanmodel.config import BaseActivation, KANConfig

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

    def __init__(self, config: KANConfig, layer: int) -> None:
        super().__init__()
        n_in, n_sub, n_out = config.n_nodes[layer], config.n_subnodes[layer + 1], config.n_nodes[layer + 1]
        grid_size = config.grid_size[layer]
        self.spline_order = config.spline_order
        self.base = BASE_FUNCTIONS[config.base_activation]
        self.n_sum, _ = config.width[layer + 1]
        self.mult_arity = config.mult_arity[layer + 1]

        core = torch.linspace(-1, 1, grid_size + 1).expand(n_in, -1)  # (n_in, G+1)
        grid = bspline.extend_grid(core, self.spline_order)
        noise = (torch.rand(grid_size + 1, n_sub, n_in) - 0.5) * 0.3 / grid_size
        self.coef = nn.Parameter(bspline.fit_coefficients(core.T, noise, grid, self.spline_order))
        self.scale_base = nn.Parameter((torch.rand(n_sub, n_in) * 2 - 1) / sqrt(n_in))
        self.scale_spline = nn.Parameter(torch.full((n_sub, n_in), 1 / sqrt(n_in)))
        self.register_buffer("grid", grid)
        self.register_buffer("mask", torch.ones(n_sub, n_in))
        self.register_buffer("subnode_scale", torch.ones(n_sub))
        self.register_buffer("subnode_bias", torch.zeros(n_sub))
        self.register_buffer("node_scale", torch.ones(n_out))
        self.register_buffer("node_bias", torch.zeros(n_out))

    @property
    def core(self) -> tuple[Tensor, Tensor]:
        """Ends of each input's core interval, beyond which its splines fade to zero: two of (n_in,)."""
        k = self.spline_order
        return self.grid[:, k], self.grid[:, -k - 1]

    def edge_parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Base part and spline part of every edge, masks and scales included; their sum is the edge.

        Args:
            x: inputs, (batch, n_in).

        Returns:
            Two tensors (batch, n_subnodes, n_in).
        """
        base = self.mask * self.scale_base * self.base(x).unsqueeze(1)
        weights = (self.mask * self.scale_spline).unsqueeze(-1) * self.coef
        return base, bspline.curve(x, self.grid, weights, self.spline_order)

    def edge_parts_at(self, x: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
        """`edge_parts` of the edge from input i to sub-node j alone, at positions (points,): two of (points,)."""
        one = self.coef[j, i][None, None]  # (1, 1, G+k)
        spline = bspline.curve(x[:, None], self.grid[i][None], one, self.spline_order)[:, 0, 0]
        return self.mask[j, i] * self.scale_base[j, i] * self.base(x), self.mask[j, i] * self.scale_spline[
            j, i
        ] * spline

    def edges(self, x: Tensor) -> Tensor:
        """What every edge adds, (batch, n_in) -> (batch, n_subnodes, n_in)."""
        base, spline = self.edge_parts(x)
        return base + spline

    def subnodes(self, x: Tensor) -> Tensor:
        """Sums of edges, (batch, n_in) -> (batch, n_subnodes), without making the edges one by one."""
        weights = (self.mask * self.scale_spline).unsqueeze(-1) * self.coef  # (n_sub, n_in, G+k)
        splines = bspline.basis(x, self.grid, self.spline_order).flatten(1) @ weights.flatten(1).T
        return self.base(x) @ (self.mask * self.scale_base).T + splines

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
        """Moves the knots to where the data is, and refits the coefficients so that every edge stays the same there.

        The coefficients are those of the bare spline: `scale_spline` is not in them, before or after. Source: Liu et
        al. 2024, arXiv 2404.19756, section 2.4 and pykan's `update_grid_from_samples`.

        Args:
            x: inputs of the layer, (batch, n_in).
            grid_eps: 0 for knots at quantiles of the data, 1 for uniform knots, a mixture between.
        """
        n_intervals = self.grid.shape[1] - 1 - 2 * self.spline_order
        ordered = x.sort(dim=0).values
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
        """`KANLayer.update_grid` for every layer, each on what reaches it from `x` (batch, n_inputs)."""
        for layer in self:
            layer.update_grid(x, grid_eps)
            x = layer(x)


def tensor_shapes(config: KANConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a `KAN` of this config, by arithmetic alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, grid_size in enumerate(config.grid_size):
        n_in, n_sub, n_out = config.n_nodes[layer], config.n_subnodes[layer + 1], config.n_nodes[layer + 1]
        per_edge, k = (n_sub, n_in), config.spline_order
        for name, shape in {
            "coef": (*per_edge, grid_size + k),
            "scale_base": per_edge,
            "scale_spline": per_edge,
            "grid": (n_in, grid_size + 2 * k + 1),
            "mask": per_edge,
            "subnode_scale": (n_sub,),
            "subnode_bias": (n_sub,),
            "node_scale": (n_out,),
            "node_bias": (n_out,),
        }.items():
            shapes[f"layers.{layer}.{name}"] = shape
    return shapes


def n_edges(config: KANConfig) -> int:
    """Edges of a KAN of this config."""
    return sum(prod(pair) for pair in zip(config.n_nodes[:-1], config.n_subnodes[1:], strict=True))
