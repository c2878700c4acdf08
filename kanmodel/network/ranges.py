"""Usual ranges of all nodes' values, which the integration paths compare their moves with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kanmodel.network.chain import Network
from kanmodel.network.config import RecurrentConfig
from kanmodel.network.edges import Ends
from kanmodel.network.recurrent import KINDS

BATCH = 256  # windows of one pass
MARGIN = 0.5  # distance outside an interval in which moves still count, in its widths


@dataclass(frozen=True)
class Intervals:
    """Intervals of nodes, possibly several per node; moves outside them do not count.

    Attributes:
        node: index of the node of each interval, (n_intervals,); None if each node has exactly one.
        low: (n_intervals,).
        high: (n_intervals,).
        width: unit of moves, (n_intervals,).
    """

    node: Tensor | None
    low: Tensor
    high: Tensor
    width: Tensor

    @classmethod
    def of(cls, nodes: Sequence[Sequence[Ends]]) -> Intervals:
        """The intervals of groups of nodes, with consecutive node indices; empty intervals are left out."""
        numbers, lows, highs, first = [], [], [], 0
        for intervals in nodes:
            for low, high in intervals:
                numbers.append(torch.arange(first, first + len(low)))
                lows.append(low)
                highs.append(high)
            first += len(intervals[0][0])
        node, low, high = torch.cat(numbers), torch.cat(lows), torch.cat(highs)
        varies = high > low
        node, low, high = node[varies], low[varies], high[varies]
        margin = MARGIN * (high - low)
        return cls(node, low - margin, high + margin, high - low)

    def bound_move(self, moves: Tensor) -> Tensor:
        """An upper bound of `largest_move` from the moves alone, for any values of the nodes.

        Args:
            moves: largest move of each node between neighbouring points, (batch, ..., n_nodes), not negative.

        Returns:
            (batch,), in widths of the interval.
        """
        if not len(self.width):
            return moves.new_zeros(len(moves))
        if moves.dim() > 2:
            moves = moves.flatten(1, -2).amax(dim=1)
        if self.node is not None:
            moves = moves.index_select(1, self.node)
        return (moves / self.width.to(moves.dtype)).amax(dim=1)

    def largest_move(self, values: Tensor) -> Tensor:
        """The largest move between neighbouring points, over all nodes and their intervals.

        Args:
            values: (batch, n_points, ..., n_nodes).

        Returns:
            (batch,), in widths of the interval.
        """
        if not len(self.width):
            return values.new_zeros(len(values))
        if self.node is not None:
            values = values.index_select(-1, self.node)
        low, high, width = (ends.to(values.dtype) for ends in (self.low, self.high, self.width))
        moves = values.clamp(low, high).diff(dim=1).abs_().view(len(values), -1, len(width)).amax(dim=1)
        return (moves / width).amax(dim=1)


@dataclass(frozen=True)
class NodeRanges:
    """Usual intervals of a network's values, model units.

    Each node has the range of its values on the reference windows, over all steps if it has one value per step, and the
    grid of the layer that reads it, because a spline has its shape there even if the values spread further. A recurrent
    unit also has the range of its possible values, -1 to 1; a gate has the interval in which it is neither open nor
    closed.

    Attributes:
        features: inputs of the network.
        gates: pre-activations of the gates of each recurrent layer and direction; None without a recurrent part.
        front: nodes of the front's layers; None without a front.
        nodes: inputs of the head, and the nodes of its layers.
        edges: the largest sum of the magnitudes of the edges into each sub-node, (n_subnodes,) of each layer, front
            first; float64, infinite where it is 0.
    """

    features: Intervals
    gates: Intervals | None
    front: Intervals | None
    nodes: Intervals
    edges: tuple[Tensor, ...]


def measure_ranges(network: Network, windows: Tensor) -> NodeRanges:
    """Measures the ranges of a network.

    Args:
        network: the network.
        windows: the reference windows, (n, lookback, n_features), model units.
    """
    ends: list[list[Ends]] = []
    magnitudes: list[list[Tensor]] = []
    with torch.inference_mode():
        for part in torch.split(windows, BATCH):
            trace = network.trace(part)
            passed = (*trace.front, *trace.head)
            values = [part.flatten(0, 1), trace.readout, *(layer.nodes for layer in passed)]
            ends.append([(column.amin(dim=0), column.amax(dim=0)) for column in values])
            magnitudes.append([layer.edges.abs().sum(dim=2).amax(dim=0) for layer in passed])
    features, readout, *layers = (
        [(torch.stack([low for low, _ in parts]).amin(dim=0), torch.stack([high for _, high in parts]).amax(dim=0))]
        for parts in zip(*ends, strict=True)
    )
    depth, recurrent = len(network.front), network.config.recurrent
    gates = None
    if recurrent is not None:
        unit = torch.ones_like(readout[0][0])
        readout.append((-unit, unit))
        gates = _gate_intervals(recurrent)
    return NodeRanges(
        Intervals.of([features]),
        gates,
        Intervals.of(layers[:depth]) if depth else None,
        Intervals.of([readout, *layers[depth:]]),
        tuple(_largest(parts) for parts in zip(*magnitudes, strict=True)),
    )


def _largest(magnitudes: Sequence[Tensor]) -> Tensor:
    largest = torch.stack(list(magnitudes)).amax(dim=0).double()
    return torch.where(largest > 0, largest, torch.inf)


def _gate_intervals(config: RecurrentConfig) -> Intervals:
    """Where the tangent at 0 runs from closed to open: -2 to 2 for a sigmoid, -1 to 1 for a hyperbolic tangent."""
    kind = KINDS[config.cell]
    high = torch.full((kind.n_gates, config.hidden_size), 2.0)
    high[kind.candidate] = 1.0
    high = high.flatten()
    return Intervals(None, -high, high, 2 * high)
