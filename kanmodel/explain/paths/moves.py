"""How far features, gates and nodes move between neighbouring points of a path: what a rule's error can't tell.

A rule knows nothing of what happens wholly between two of its points. Where a value moves by a large part of the
interval in which it usually lies, that part of the path is to be halved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kanmodel.network.chain import Trace
from kanmodel.network.frozen import FrozenNetwork
from kanmodel.network.ranges import Intervals, NodeRanges
from kanmodel.network.recurrent import FrozenRecurrent, RecurrentTrace
from kanmodel.scaling import Array

MAX_MOVE = 0.5  # of a node between two neighbouring points, in widths of its intervals


class PassedNodes(NamedTuple):
    """Values of the network's nodes at the points of paths.

    Attributes:
        front: behind each layer of the front, (n, n_points, lookback, n_out).
        readout: what the head sees, (n, n_points, n_units).
        head: behind each layer of the head, (n, n_points, 1, n_out).
        recurrent: steps and states, (n, n_points, lookback, ...); None without a recurrent part.
    """

    front: tuple[Tensor, ...]
    readout: Tensor
    head: tuple[Tensor, ...]
    recurrent: RecurrentTrace | None

    @classmethod
    def of(cls, trace: Trace, recurrent: RecurrentTrace | None, paths: Sequence[int]) -> PassedNodes:
        """Those of a trace of all points of paths, (n, n_points) together."""
        front = tuple(by_path(layer.nodes, paths, -1) for layer in trace.front)
        head = tuple(by_path(layer.nodes, paths, -1) for layer in trace.head)
        if recurrent is not None:
            steps, *states = (by_path(values, paths) for values in (recurrent.steps, *recurrent.states))
            recurrent = RecurrentTrace(steps, tuple(states))
        return cls(front, by_path(trace.readout, paths), head, recurrent)


def by_path(values: Tensor, paths: Sequence[int], *rows: int) -> Tensor:
    """(n * n_points, ...) -> (n, n_points, *rows, ...), without gradients."""
    return values.detach().reshape(*paths, *rows, *values.shape[1:])


def largest_move(
    network: FrozenNetwork, ranges: NodeRanges, points: Tensor, nodes: Array, passed: PassedNodes
) -> Array:
    """The largest move of anything between two neighbouring points of each path, (n,).

    Args:
        network: the network.
        ranges: of its nodes.
        points: of the paths, (n, n_points, lookback, n_features).
        nodes: their positions on the paths, (n_points,).
        passed: what passes there.

    Returns:
        In widths of the node's interval; where it is at most `MAX_MOVE`, it may be an upper bound.
    """
    moves = [_largest_feature_move(ranges.features, points, nodes)]
    if ranges.gates is not None and network.recurrent is not None and passed.recurrent is not None:
        moves.append(_largest_gate_move(network.recurrent, ranges.gates, passed.recurrent))
    if ranges.front is not None:
        moves.append(ranges.front.largest_move(torch.cat(passed.front, dim=-1)))
    behind = torch.cat([passed.readout, *(values.squeeze(2) for values in passed.head)], dim=-1)
    moves.append(ranges.nodes.largest_move(behind))
    return torch.stack(moves).amax(dim=0).double().numpy()


def _largest_feature_move(features: Intervals, points: Tensor, nodes: Array) -> Tensor:
    """That of the features, which move evenly, (n,)."""
    if features.node is None or not len(features.width):
        return points.new_zeros(len(points))
    whole = (points[:, -1] - points[:, 0]).abs().amax(dim=1)  # (n, n_features)
    bound = float(np.diff(nodes).max()) * (whole[:, features.node] / features.width).amax(dim=1)
    if not bool((bound <= MAX_MOVE).all()):
        return features.largest_move(points)
    return bound


def _largest_gate_move(recurrent: FrozenRecurrent, gates: Intervals, trace: RecurrentTrace) -> Tensor:
    """That of the gates, (n,): themselves are computed only where what they read moves far enough for a large one."""
    steps, *states = (values.diff(dim=1).abs_().amax(dim=1) for values in (trace.steps, *trace.states))
    bounds = recurrent.bound_gate_moves(RecurrentTrace(steps, tuple(states)))
    if bounds is None:
        return _exact_gate_move(recurrent, gates, trace)
    move = torch.stack([(bound.amax(dim=1) / gates.width).amax(dim=1) for bound in bounds]).amax(dim=0)
    unsure = ~(move <= MAX_MOVE)
    if bool(unsure.any()):
        of_unsure = RecurrentTrace(trace.steps[unsure], tuple(states[unsure] for states in trace.states))
        move[unsure] = _exact_gate_move(recurrent, gates, of_unsure)
    return move


def _exact_gate_move(recurrent: FrozenRecurrent, gates: Intervals, trace: RecurrentTrace) -> Tensor:
    n, n_points = trace.steps.shape[:2]
    rows = RecurrentTrace(trace.steps.flatten(0, 1), tuple(states.flatten(0, 1) for states in trace.states))
    values = [gate.view(n, n_points, *gate.shape[1:]) for gate in recurrent.gates(rows)]
    return torch.stack([gates.largest_move(gate) for gate in values]).amax(dim=0)
