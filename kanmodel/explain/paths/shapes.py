"""What is known of functions along a path: where activations have kinks, and bumps on edges between its points.

Divided at a kink, a quadrature rule converges fast on both sides. A bump that lies between two points is invisible to
every rule, and to what its errors are estimated from: all values are the same with and without it. But the functions on
edges are known, and take one number each, so they are evaluated between the points as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from kanmodel.explain.paths.moves import MAX_MOVE, PassedNodes
from kanmodel.explain.paths.path import PathSamples
from kanmodel.explain.paths.quadrature import clenshaw_curtis, interpolation
from kanmodel.network.chain import Network
from kanmodel.network.frozen import FrozenNetwork
from kanmodel.network.layer import Before, KANLayer
from kanmodel.scaling import Array

# Arguments at which the slope of an activation jumps.
KINKS = {
    "relu": (0.0,),
    "leaky_relu": (0.0,),
    "elu": (0.0,),
    "selu": (0.0,),
    "relu6": (0.0, 6.0),
    "hardtanh": (-1.0, 1.0),
    "hardsigmoid": (-3.0, 3.0),
    "hardswish": (-3.0, 3.0),
}
MIDDLE = 0.5
MARGIN = 1e-4  # a kink this close to an end is at the end, up to the error of interpolation
AT_ONCE = 1_000_000  # values of edges between points
FINER = 8  # intervals in each between two points at whose ends functions are evaluated


def measure_crossings(network: Network, points: Tensor, passed: PassedNodes) -> Tensor:
    """The largest part of a bump on an edge of each KAN layer that lies between two points, (n_layers, n).

    Args:
        network: the network.
        points: points of the paths, (n, n_points, lookback, n_features).
        passed: values of the nodes there.
    """
    crossed = []
    for layer, inputs in zip(network.layers.values(), _inputs(points, passed), strict=True):
        moves = [at.diff(dim=1).abs_().flatten(1).amax(dim=1) for at in layer.in_bumps(inputs)]
        crossed.append(torch.stack(moves).amax(dim=0) if moves else inputs.new_zeros(len(inputs)))
    return torch.stack(crossed)


def largest_beyond(crossings: Tensor) -> Array:
    """The largest crossing of each path that not even functions at `FINER` times as many points show, or 0, (n,)."""
    return torch.where(crossings <= FINER * MAX_MOVE, 0, crossings).amax(dim=0).double().numpy()


def measure_hidden(
    network: FrozenNetwork, slopes: Sequence[Tensor], points: Tensor, samples: PathSamples, crossings: Tensor
) -> Array:
    """The mean effect on the output of what the functions on edges do between the points, (n,).

    Where a large part of a bump may lie between two points, each function is evaluated at `FINER` times as many, and
    compared with the polynomial through its values at the points, by which the rule replaces it.

    Args:
        network: the network.
        slopes: the least gradients of the output by each layer's sub-nodes that are assumed, (n_subnodes,): it may be 0
            at all points and not between them.
        points: points of the paths, (n, n_points, lookback, n_features).
        samples: the samples there.
        crossings: from `measure_crossings`.
    """
    effect = torch.zeros(len(points), dtype=torch.float64)
    doubtful = (crossings > MAX_MOVE) & (crossings <= FINER * MAX_MOVE)
    if not bool(doubtful.any()):
        return effect.numpy()
    between = torch.from_numpy(interpolation(points.shape[1], FINER))
    weights = torch.from_numpy(clenshaw_curtis(len(between)).weights)
    layers = zip(
        network.network.layers,
        _inputs(points, samples.passed),
        samples.edges,
        samples.subnodes_gradient,
        slopes,
        doubtful,
        strict=True,
    )
    for (stage, number), inputs, edges, gradient, least, chosen in layers:
        size = max(1, AT_ONCE // (FINER * edges[0].numel()))
        for paths in chosen.nonzero().flatten().split(size) if bool(chosen.any()) else ():
            along = (between @ inputs[paths].double().flatten(2)).to(inputs.dtype).view(-1, inputs.shape[3])
            found = network.edges(stage, number, along).double().reshape(len(paths), len(between), -1)
            hidden = (found - between @ edges[paths].double().flatten(2)).abs_()
            mean = (weights @ hidden).view(len(paths), *edges.shape[2:]).sum(dim=3)  # (n_paths, rows, n_subnodes)
            slope = torch.maximum(gradient[paths].double().abs().amax(dim=1), least)
            effect[paths] += (mean * slope).sum(dim=(1, 2))
    return effect.numpy()


def _inputs(points: Tensor, passed: PassedNodes) -> Sequence[Tensor]:
    """The inputs of each KAN layer, front first, (n, n_points, rows, n_in)."""
    front = (points, *passed.front[:-1]) if passed.front else ()
    return (*front, passed.readout.unsqueeze(2), *passed.head[:-1])


def divide_at_kinks(network: Network, passed: PassedNodes, nodes: Array) -> Array:
    """Where to divide each part of a path: at the kink nearest to its middle, or else in the middle.

    Args:
        network: the network.
        passed: values of the nodes at the points.
        nodes: their positions on the part, 0 to 1, (n_points,).

    Returns:
        (n,), between 0 and 1.
    """
    at = np.full(len(passed.readout), MIDDLE)
    farthest = np.full(len(at), MIDDLE - MARGIN)
    low, gap = torch.from_numpy(nodes[:-1]), torch.from_numpy(np.diff(nodes))
    for values in _arguments_of_kinks(network, passed):
        before, after = values[:, :-1], values[:, 1:]
        share = (before / (before - after)).transpose(1, -1)  # (n, ..., n_points - 1)
        crossing = torch.where((before * after < 0).transpose(1, -1), low + gap * share, torch.nan).flatten(1).numpy()
        distance = np.where(np.isnan(crossing), np.inf, np.abs(crossing - MIDDLE))
        nearest = distance.argmin(axis=1)[:, None]
        distance, crossing = (np.take_along_axis(each, nearest, axis=1)[:, 0] for each in (distance, crossing))
        at = np.where(distance < farthest, crossing, at)
        farthest = np.minimum(farthest, distance)
    return at


def _arguments_of_kinks(network: Network, passed: PassedNodes) -> Iterator[Tensor]:
    """Arguments of activations minus the positions of their kinks, (n, n_points, ..., n_in), float64."""
    stages = network.stages
    reads = list(zip(stages["head"], (passed.readout, *passed.head[:-1]), strict=True))
    if passed.front:  # of which the first layer reads the features, which move evenly
        reads += zip(stages["front"][1:], passed.front[:-1], strict=True)
    for layer, values in reads:
        yield from _before_kinks(layer, values)


def _before_kinks(layer: KANLayer, values: Tensor) -> Iterator[Tensor]:
    for step in layer.before:
        assert isinstance(step, Before)
        for place in KINKS.get(step.step.kind, ()):
            yield values.double() - place
        values = step(values)
