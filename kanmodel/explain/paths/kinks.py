"""Kinks of activations along a path: divided at a kink, a quadrature rule converges fast on both sides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from kanmodel.explain.paths.moves import PassedNodes
from kanmodel.network.chain import Network
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
