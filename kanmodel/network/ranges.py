"""Usual ranges of all nodes' values, with which paths compare moves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kanmodel.network.config import RecurrentConfig
from kanmodel.network.network import Network
from kanmodel.network.recurrent import CANDIDATE, KINDS

BATCH = 256  # windows of one pass
MARGIN = 0.5  # distance outside an interval in which moves still count, in its widths


@dataclass(frozen=True)
class MoveRanges:
    """Intervals of nodes, possibly several per node; moves outside them do not count. Tensors are (n_intervals,)."""

    node: Tensor | None  # index of the node of each interval; None if each node has exactly one
    low: Tensor
    high: Tensor
    width: Tensor  # unit of moves

    @classmethod
    def of(cls, low: Tensor, high: Tensor, n_units: int = 0) -> MoveRanges:
        """The intervals of nodes, (n_nodes,), the first of which are units, from -1 to 1; empty ones are left out."""
        node, ones = torch.cat([torch.arange(len(low)), torch.arange(n_units)]), torch.ones(n_units, dtype=low.dtype)
        low, high = torch.cat([low, -ones]), torch.cat([high, ones])
        varies = high > low
        node, low, high = node[varies], low[varies], high[varies]
        margin = MARGIN * (high - low)
        return cls(node, low - margin, high + margin, high - low)

    def bound_move(self, moves: Tensor) -> Tensor:
        """An upper bound of `largest_move` for any values, from the nodes' largest moves (batch, ..., n_nodes)."""
        if not len(self.width):
            return moves.new_zeros(len(moves))
        if moves.dim() > 2:
            moves = moves.flatten(1, -2).amax(dim=1)
        if self.node is not None:
            moves = moves.index_select(1, self.node)
        return (moves / self.width.to(moves.dtype)).amax(dim=1)

    def largest_move(self, values: Tensor) -> Tensor:
        """The largest move between neighbouring points of (batch, n_points, ..., n_nodes), (batch,), in widths."""
        return self.moves(values).amax(dim=1)

    def moves(self, values: Tensor) -> Tensor:
        """The largest move between each two neighbouring points, (batch, n_points - 1), in widths."""
        if not len(self.width):
            return values.new_zeros(len(values), values.shape[1] - 1)
        if self.node is not None:
            values = values.index_select(-1, self.node)
        low, high, width = (of.to(values.dtype) for of in (self.low, self.high, self.width))
        moves = values.clamp(low, high).diff(dim=1).abs_()
        return (moves.view(*moves.shape[:2], -1, len(width)).amax(dim=2) / width).amax(dim=2)


@dataclass(frozen=True)
class NodeRanges:
    """Usual intervals of a network's values, model units: their range on the reference windows, over all steps.

    A recurrent unit also has the range of its possible values, -1 to 1; a gate has the interval in which it is neither
    open nor closed. `half_bumps` are the moves of each layer's inputs that pass at most half a bump, (n_in,), NaN if
    unknown. `edges` are the largest sums of the magnitudes of the edges into each sub-node, (n_subnodes,) of each
    layer; float64, infinite where it is 0.
    """

    features: MoveRanges
    gates: tuple[MoveRanges, ...]  # pre-activations of the gates of each layer and direction, of each recurrent part
    watched: tuple[MoveRanges, ...]  # as `Trace.watched`
    half_bumps: tuple[Tensor, ...]
    edges: tuple[Tensor, ...]


def measure_ranges(network: Network, windows: Tensor) -> NodeRanges:
    """Measures the ranges of a network on its reference windows, (n, lookback, n_features), model units."""
    hulls: list[list[Tensor]] = []
    magnitudes: list[list[Tensor]] = []
    with torch.inference_mode():
        for some in torch.split(windows, BATCH):
            trace = network.trace(some)
            hulls.append([_hull(values.flatten(0, -2)) for values in (some, *trace.watched)])
            magnitudes.append([layer.edges.abs().sum(dim=2).amax(dim=0) for layer in trace.layers])
    features, *watched = (_hull(torch.cat(parts)) for parts in zip(*hulls, strict=True))
    largest = [torch.stack(parts).amax(dim=0).double() for parts in zip(*magnitudes, strict=True)]
    n_units = network.config.n_readout if network.config.recurrent is not None else 0  # which the last ones begin with
    return NodeRanges(
        MoveRanges.of(features[0], features[1]),
        tuple(map(_usual_gates, network.config.recurrent_parts)),
        (
            *(MoveRanges.of(low, high) for low, high in watched[:-1]),
            MoveRanges.of(watched[-1][0], watched[-1][1], n_units),
        ),
        tuple(layer.half_bump for layer in network.layers.values()),
        tuple(torch.where(magnitude > 0, magnitude, torch.inf) for magnitude in largest),
    )


def _usual_gates(part: RecurrentConfig) -> MoveRanges:
    """Where the tangent at 0 runs from closed to open: -2 to 2 for a sigmoid, -1 to 1 for a hyperbolic tangent."""
    high = torch.full((KINDS[part.cell].n_gates, part.hidden_size), 2.0)
    high[CANDIDATE] = 1.0
    high = high.flatten()
    return MoveRanges(None, -high, high, 2 * high)


def _hull(values: Tensor) -> Tensor:
    """The smallest and the largest, (n, ...) -> (2, ...)."""
    return torch.stack([values.amin(dim=0), values.amax(dim=0)])
