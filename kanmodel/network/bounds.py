"""Usual ranges of all nodes' values, with which paths compare moves, and bounds of the outputs over sets of windows.

The bounds, by interval arithmetic, hold for each window between two others, up to rounding. They tend to the outputs as
these come together; where a function has a pole or is not defined, they are infinite or NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kanmodel.network.chain import Network, reduce_steps
from kanmodel.network.config import RecurrentConfig
from kanmodel.network.functions import ACTIVATIONS, TURNS, activate
from kanmodel.network.layer import Ends, InputTransform, KANLayer
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
        if not len(self.width):
            return values.new_zeros(len(values))
        if self.node is not None:
            values = values.index_select(-1, self.node)
        low, high, width = (of.to(values.dtype) for of in (self.low, self.high, self.width))
        moves = values.clamp(low, high).diff(dim=1).abs_().view(len(values), -1, len(width)).amax(dim=1)
        return (moves / width).amax(dim=1)


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


def bound_outputs(network: Network, low: Tensor, high: Tensor) -> Ends:
    """The bounds of a network without a recurrent part, two of (batch, n_outputs), in model units.

    `low` and `high` are the smallest and the largest value of each cell, (batch, lookback, n_features).
    """
    shape, ends = low.shape, torch.stack([low, high])
    if network.front:
        ends = ends.flatten(1, 2)
        for layer in network.stages["front"]:
            ends = _bound_layer(layer, ends)
        ends = ends.view(2, *shape[:2], -1)
    ends = torch.stack([reduce_steps(network.config, end) for end in ends])
    for layer in network.stages["head"]:
        ends = _bound_layer(layer, ends)
    function = network.config.output_function
    if function == "softmax":
        return _share(ends[0], ends[1]), _share(ends[1], ends[0])
    low, high = ends if function is None else _activate(function, ACTIVATIONS[function].parameter, ends)
    return low, high


def _hull(values: Tensor) -> Tensor:
    """The smallest and the largest, (n, ...) -> (2, ...). Intervals of nodes are (2, batch, n_nodes) here."""
    return torch.stack([values.amin(dim=0), values.amax(dim=0)])


def _bound_layer(layer: KANLayer, ends: Tensor) -> Tensor:
    v = u = ends
    for number, transform in enumerate(layer.before):
        assert isinstance(transform, InputTransform)
        kind, parameter = transform.config.kind, transform.config.parameter
        if transform.weight is None or transform.bias is None:
            u = _activate(kind, parameter, u)
        else:
            u = _scale(
                _normalise(u, parameter or 0.0) if transform.config.mixes else u, transform.weight, transform.bias
            )
        v = u if number < layer.config.n_before_base else v
    moves = torch.stack([(end != low[:1]).any(dim=0) for low, high in (v, u) for end in (low, high)]).any(dim=0)
    moves[0] |= ~moves.any()
    some, still = moves.nonzero().flatten(), (~moves).nonzero().flatten()
    bounds = torch.stack(layer.functions(some).bound_sums(*((at[0][:, some], at[1][:, some]) for at in (v, u))))
    if len(still):  # inputs that are the same in all windows are computed once
        bounds = bounds + layer.functions(still).sums(v[0][:1, still], u[0][:1, still])
    bounds = _scale(bounds, layer.subnode_scale, layer.subnode_bias)
    if layer.config.mult_arity:
        sums, *factors = torch.split(bounds, [layer.config.n_sum, *layer.config.mult_arity], dim=2)
        bounds = torch.cat([sums, *map(_multiply, factors)], dim=2)
    return _scale(bounds, layer.node_scale, layer.node_bias)


def _activate(kind: str, parameter: float | None, ends: Tensor) -> Tensor:
    """An activation is monotone on both sides of its turn."""
    turn = ends[0].clamp_min(TURNS.get(kind, 0.0)).minimum(ends[1])
    return _hull(torch.stack([activate(kind, parameter, x) for x in (*ends, turn)]))


def _scale(ends: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _hull(torch.addcmul(bias, weight, ends))


def _multiply(ends: Tensor) -> Tensor:
    """The product of the intervals of a node's factors, (2, batch, n_factors) -> (2, batch, 1)."""
    product, *factors = torch.split(ends, 1, dim=2)
    for factor in factors:
        product = _hull(torch.stack([one * other for one in product for other in factor]))
    return product


def _normalise(ends: Tensor, eps: float) -> Tensor:
    """A layer norm before its scale and bias."""
    low, high = ends
    n = low.shape[1]
    # Distances from the mean, which a node's own value is part of.
    least_mean, largest_mean = ((x.sum(dim=1, keepdim=True) - x + own) / n for x, own in ((low, high), (high, low)))
    low, high = low - largest_mean, high - least_mean
    least, most = torch.maximum(low, -high).clamp_min(0), torch.maximum(-low, high)
    factors = [(distance.square().mean(dim=1, keepdim=True) + eps).rsqrt() for distance in (least, most)]
    return torch.stack([torch.minimum(*(low * by for by in factors)), torch.maximum(*(high * by for by in factors))])


def _share(own: Tensor, others: Tensor) -> Tensor:
    """The softmax of each logit among the others, (batch, n_outputs)."""
    ratios = (others.unsqueeze(1) - own.unsqueeze(2)).exp()
    ratios.diagonal(dim1=1, dim2=2).fill_(1)
    return 1 / ratios.sum(dim=2)
