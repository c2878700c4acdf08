"""Moves of features, gates and nodes between neighbouring points of a path, which a rule's error estimate misses.

A quadrature rule cannot see what happens entirely between two of its points. If a value moves by a large part of its
usual interval, that part of the path is bisected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kanmodel.network.chain import Trace
from kanmodel.network.frozen import FrozenNetwork
from kanmodel.network.ranges import Intervals, NodeRanges
from kanmodel.network.recurrent import FrozenRecurrent, RecurrentTrace
from kanmodel.scaling import Array

MAX_MOVE = 0.5  # largest accepted move of a node between neighbouring points, in widths of its usual interval


class PassedNodes(NamedTuple):
    """Values of the network's nodes at the points of paths.

    Attributes:
        front: after each layer of the front, (n, n_points, lookback, n_out).
        readout: the input of the head, (n, n_points, n_units).
        head: after each layer of the head, (n, n_points, 1, n_out).
        recurrent: steps and states, (n, n_points, lookback, ...); None without a recurrent part.
    """

    front: tuple[Tensor, ...]
    readout: Tensor
    head: tuple[Tensor, ...]
    recurrent: RecurrentTrace | None

    @classmethod
    def of(cls, trace: Trace, recurrent: RecurrentTrace | None, paths: Sequence[int]) -> PassedNodes:
        """The values of a trace of all points of paths, flattened over (n, n_points)."""
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
    """The largest move of any value between neighbouring points of each path, (n,).

    Args:
        network: the network.
        ranges: usual ranges of its nodes.
        points: points of the paths, (n, n_points, lookback, n_features).
        nodes: their positions on the paths, (n_points,).
        passed: values of the nodes there.

    Returns:
        In widths of the node's interval; up to `MAX_MOVE` it may be an upper bound.
    """
    gap = float(np.diff(nodes).max())
    whole = (points[:, -1] - points[:, 0]).abs_()  # features move linearly
    behind = torch.cat([passed.readout, *(values.squeeze(2) for values in passed.head)], dim=-1)
    moves = [
        _bounded(gap * ranges.features.bound_move(whole), lambda paths: ranges.features.largest_move(points[paths])),
        _largest_node_move(ranges.nodes, behind),
    ]
    if ranges.front is not None:
        moves.append(_largest_node_move(ranges.front, torch.cat(passed.front, dim=-1)))
    if ranges.gates is not None and network.recurrent is not None and passed.recurrent is not None:
        moves.append(_largest_gate_move(network.recurrent, ranges.gates, passed.recurrent))
    return torch.stack(moves).amax(dim=0).double().numpy()


def _largest_node_move(intervals: Intervals, values: Tensor) -> Tensor:
    """The largest move of nodes (n, n_points, ..., n_nodes), (n,)."""
    bound = intervals.bound_move(_largest_steps(values))
    return _bounded(bound, lambda paths: intervals.largest_move(values[paths]))


def _largest_gate_move(recurrent: FrozenRecurrent, gates: Intervals, trace: RecurrentTrace) -> Tensor:
    """The largest move of the gates, (n,), computed only if their inputs move far enough for a large one."""
    steps, states = _largest_steps(trace.steps), tuple(_largest_steps(states) for states in trace.states)

    def exact(paths: Tensor) -> Tensor:
        steps, *states = (values[paths] for values in (trace.steps, *trace.states))
        rows = RecurrentTrace(steps.flatten(0, 1), tuple(values.flatten(0, 1) for values in states))
        values = (gate.view(*steps.shape[:2], *gate.shape[1:]) for gate in recurrent.gates(rows))
        return torch.stack([gates.largest_move(value) for value in values]).amax(dim=0)

    def bounded(paths: Tensor) -> Tensor:
        """By bounds per step, where those of the whole window are too loose."""
        chosen = paths.nonzero().squeeze(1)
        bound = _bound_gates(recurrent, gates, [values[chosen] for values in (steps, *states)])
        return _bounded(bound, lambda unsure: exact(chosen[unsure]))

    if not recurrent.has_affine_gates:
        return exact(torch.ones(len(trace.steps), dtype=torch.bool))
    # Two steps with the largest move of all: the first step has no state before it.
    whole = [values.amax(dim=1, keepdim=True).expand(-1, 2, -1) for values in (steps, *states)]
    return _bounded(_bound_gates(recurrent, gates, whole), bounded)


def _bound_gates(recurrent: FrozenRecurrent, gates: Intervals, moves: Sequence[Tensor]) -> Tensor:
    """Upper bounds (n,), from those of steps and states, (n, n_steps, ...) each."""
    steps, *states = moves
    bounds = recurrent.bound_gate_moves(RecurrentTrace(steps, tuple(states)))
    return torch.stack([gates.bound_move(bound) for bound in bounds]).amax(dim=0)


def _largest_steps(values: Tensor) -> Tensor:
    """The largest move between two neighbouring points, (n, n_points, ...) -> (n, ...)."""
    return values.diff(dim=1).abs_().amax(dim=1)


def _bounded(bound: Tensor, exact: Callable[[Tensor], Tensor]) -> Tensor:
    """Upper bounds (n,) where they are small enough, and exact moves of the paths where they are not."""
    unsure = ~(bound <= MAX_MOVE)
    if bool(unsure.any()):
        bound[unsure] = exact(unsure)
    return bound
