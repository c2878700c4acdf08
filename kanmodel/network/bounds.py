"""Bounds of a network's outputs over whole sets of windows, by interval arithmetic from layer to layer.

The bounds hold for each window between two others, up to rounding. They are the wider, the farther these are apart, and
tend to the outputs as they come together; where a function has a pole or is not defined, they are infinite or NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kanmodel.network.activations import ACTIVATIONS, TURNS, activate
from kanmodel.network.chain import Network, reduce_steps
from kanmodel.network.edges import Ends
from kanmodel.network.layer import Before, KANLayer


def bound_outputs(network: Network, low: Tensor, high: Tensor) -> Ends:
    """The bounds of a network without a recurrent part.

    Args:
        network: the network.
        low: smallest value of each cell, (batch, lookback, n_features), model units.
        high: the largest.

    Returns:
        Two of (batch, n_outputs).
    """
    ends = low, high
    if network.front:
        ends = low.flatten(0, 1), high.flatten(0, 1)
        for layer in network.stages["front"]:
            ends = _bound_layer(layer, ends)
        ends = ends[0].view(*low.shape[:2], -1), ends[1].view(*low.shape[:2], -1)
    ends = reduce_steps(network.config, ends[0]), reduce_steps(network.config, ends[1])
    for layer in network.stages["head"]:
        ends = _bound_layer(layer, ends)
    function = network.config.output_function
    if function == "softmax":
        return _share(ends[0], ends[1]), _share(ends[1], ends[0])
    return ends if function is None else _activate(function, ACTIVATIONS[function].parameter, ends)


def _bound_layer(layer: KANLayer, ends: Ends) -> Ends:
    v = u = ends
    for number, step in enumerate(layer.before):
        u = _take_step(step, u)
        v = u if number < layer.config.steps_of_base else v
    moves = torch.stack([(end != low[:1]).any(dim=0) for low, high in (v, u) for end in (low, high)]).any(dim=0)
    moves[0] |= ~moves.any()
    some, still = moves.nonzero().flatten(), (~moves).nonzero().flatten()
    of_some = [(low[:, some], high[:, some]) for low, high in (v, u)]
    low, high = layer.functions(some).bound_sums(*of_some)
    if len(still):  # inputs that are the same in all windows are computed once
        constant = layer.functions(still).sums(v[0][:1, still], u[0][:1, still])
        low, high = low + constant, high + constant
    low, high = _scale((low, high), layer.subnode_scale, layer.subnode_bias)
    if layer.config.mult_arity:
        arity = [layer.config.n_sum, *layer.config.mult_arity]
        (low_sums, *lows), (high_sums, *highs) = torch.split(low, arity, dim=1), torch.split(high, arity, dim=1)
        products = [_multiply(*factors) for factors in zip(lows, highs, strict=True)]
        low = torch.cat([low_sums, *(product[0] for product in products)], dim=1)
        high = torch.cat([high_sums, *(product[1] for product in products)], dim=1)
    return _scale((low, high), layer.node_scale, layer.node_bias)


def _take_step(step: nn.Module, ends: Ends) -> Ends:
    assert isinstance(step, Before)
    if step.weight is None or step.bias is None:
        return _activate(step.step.kind, step.step.parameter, ends)
    if step.step.mixes:
        ends = _normalise(ends, step.step.parameter or 0.0)
    return _scale(ends, step.weight, step.bias)


def _activate(kind: str, parameter: float | None, ends: Ends) -> Ends:
    """An activation is monotone on both sides of its turn."""
    turn = ends[0].clamp_min(TURNS.get(kind, 0.0)).minimum(ends[1])
    values = torch.stack([activate(kind, parameter, x) for x in (*ends, turn)])
    return values.amin(dim=0), values.amax(dim=0)


def _scale(ends: Ends, weight: Tensor, bias: Tensor) -> Ends:
    scaled = torch.addcmul(bias, weight, ends[0]), torch.addcmul(bias, weight, ends[1])
    return torch.minimum(*scaled), torch.maximum(*scaled)


def _multiply(lows: Tensor, highs: Tensor) -> Ends:
    """The products of intervals, (batch, n_factors) each -> (batch, 1)."""
    low, high = lows[:, :1], highs[:, :1]
    for factor in zip(torch.split(lows, 1, dim=1)[1:], torch.split(highs, 1, dim=1)[1:], strict=True):
        corners = torch.stack([one * other for one in (low, high) for other in factor])
        low, high = corners.amin(dim=0), corners.amax(dim=0)
    return low, high


def _normalise(ends: Ends, eps: float) -> Ends:
    """A layer norm before its scale and bias."""
    low, high = ends
    n = low.shape[1]
    low, high = (  # of the distances from the mean, which a node's own value is part of
        low - (high.sum(dim=1, keepdim=True) - high + low) / n,
        high - (low.sum(dim=1, keepdim=True) - low + high) / n,
    )
    least, most = torch.maximum(low, -high).clamp_min(0), torch.maximum(-low, high)
    factors = [(distance.square().mean(dim=1, keepdim=True) + eps).rsqrt() for distance in (least, most)]
    return torch.minimum(*(low * factor for factor in factors)), torch.maximum(*(high * factor for factor in factors))


def _share(own: Tensor, others: Tensor) -> Tensor:
    """The softmax of each logit among the others, (batch, n_outputs)."""
    ratios = (others.unsqueeze(1) - own.unsqueeze(2)).exp()
    ratios.diagonal(dim1=1, dim2=2).fill_(1)
    return 1 / ratios.sum(dim=2)
