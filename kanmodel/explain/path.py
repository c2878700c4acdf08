"""The walk from a baseline to a window, and what each part of the network adds on the way.

    sample_path   forward and backward passes at some points of the path
    refine_path   the same at the points between, without repeating any
    tally         the samples as contributions

The passes come in slices of a few milliseconds, between which whoever runs them may do something else: gradients are
per point, and the rule is applied once all are there. Everything is in model units.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kanmodel.config import KANConfig
from kanmodel.explain.quadrature import Quadrature, clenshaw_curtis
from kanmodel.frozen import FrozenNetwork
from kanmodel.network import LSTMKAN
from kanmodel.scaling import Array

Result = TypeVar("Result")

# (stage, layer, kind) -> values, windows first. Kinds: steps, nodes, edges; of "path": start, end, residual, n_nodes.
Entries = dict[tuple[str, int, str], Array]

# A computation in slices: it yields between them, and returns its result.
Slices = Generator[None, None, Result]
POINTS = 384  # points of one pass: a few milliseconds; more gain little, as they no longer fit the cache


@dataclass(frozen=True)
class PathSamples:
    """What passes through the network along the paths of n windows, and the gradients of one output there.

    Each tensor is (n, n_nodes, rows, ...); rows are the steps in a front KAN, elsewhere there is one.

    Attributes:
        outputs: the output, (n, n_nodes, 1).
        points_gradient: (n, n_nodes, 1, lookback, n_features).
        readout: what the head sees, (n, n_nodes, 1, n_units).
        readout_gradient: the same shape.
        edges: of each KAN layer, front first, (n, n_nodes, rows, n_subnodes, n_in).
        subnodes_gradient: of each KAN layer, (n, n_nodes, rows, n_subnodes).
    """

    outputs: Tensor
    points_gradient: Tensor
    readout: Tensor
    readout_gradient: Tensor
    edges: tuple[Tensor, ...]
    subnodes_gradient: tuple[Tensor, ...]

    @property
    def n_nodes(self) -> int:
        """Nodes of the path."""
        return self.outputs.shape[1]

    @property
    def tensors(self) -> list[Tensor]:
        """All of them in the order of the attributes."""
        single = [self.outputs, self.points_gradient, self.readout, self.readout_gradient]
        return [*single, *self.edges, *self.subnodes_gradient]

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> PathSamples:
        """The samples whose `tensors` these are."""
        outputs, points_gradient, readout, readout_gradient, *layers = tensors
        edges, subnodes_gradient = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        return cls(outputs, points_gradient, readout, readout_gradient, tuple(edges), tuple(subnodes_gradient))


def sample_path(
    network: FrozenNetwork, windows: Tensor, start: Tensor, output: int, nodes: Array
) -> Slices[PathSamples]:
    """Forward and backward passes over windows x path nodes, a slice of at most `POINTS` at a time.

    Args:
        network: the network.
        windows: (n, lookback, n_features).
        start: the baseline, (lookback, n_features).
        output: number of the output.
        nodes: positions on the path, (n_nodes,), 0 at the baseline and 1 at the window.
    """
    along = torch.from_numpy(nodes).to(windows.dtype)[:, None, None]
    points = torch.lerp(start, windows[:, None], along).flatten(0, 1)  # (n * n_nodes, lookback, n_features)
    passed: list[list[Tensor]] = []
    for part in torch.split(points, POINTS):
        if passed:
            yield
        passed.append(_pass(network, part, output))
    joined = passed[0] if len(passed) == 1 else [torch.cat(parts) for parts in zip(*passed, strict=True)]
    return PathSamples.of([values.reshape(len(windows), len(nodes), -1, *values.shape[1:]) for values in joined])


def refine_path(
    network: FrozenNetwork, windows: Tensor, start: Tensor, output: int, samples: PathSamples
) -> Slices[PathSamples]:
    """Samples at 2n - 1 Clenshaw-Curtis nodes from those at n, which are every other one of them."""
    between = clenshaw_curtis(2 * samples.n_nodes - 1).nodes[1::2]
    added = yield from sample_path(network, windows, start, output, between)
    refined = []
    for old, new in zip(samples.tensors, added.tensors, strict=True):
        both = old.new_empty(old.shape[0], old.shape[1] + new.shape[1], *old.shape[2:])
        both[:, ::2], both[:, 1::2] = old, new
        refined.append(both)
    return PathSamples.of(refined)


def _pass(network: FrozenNetwork, points: Tensor, output: int) -> list[Tensor]:
    """What passes at points (batch, lookback, n_features), and the gradients there, as `PathSamples` orders them."""
    with torch.enable_grad():
        trace = network.trace(points.requires_grad_())
        layers = (*trace.front, *trace.head)
        watched = [points, trace.readout, *(layer.subnodes for layer in layers)]
        gradients = torch.autograd.grad(trace.outputs[:, output].sum(), watched)
    passed = [trace.outputs[:, output], gradients[0], trace.readout, gradients[1]]
    return [values.detach() for values in (*passed, *(layer.edges for layer in layers), *gradients[2:])]


def tally(network: LSTMKAN, change_of_window: Tensor, output: int, samples: PathSamples) -> Entries:
    """Contributions to one output from samples at Clenshaw-Curtis nodes, in float64.

    Args:
        network: the network.
        change_of_window: window - baseline, (n, lookback, n_features).
        output: number of the output.
        samples: what passed along the path.

    Returns:
        Entries in the order of the data: input, front, lstm, head, output.
    """
    rule = clenshaw_curtis(samples.n_nodes)
    outputs = samples.outputs[:, :, 0].double().numpy()  # (n, n_nodes)
    change = outputs[:, -1] - outputs[:, 0]
    mean_gradient = torch.from_numpy(rule.weights) @ samples.points_gradient.double().flatten(2)  # (n, lookback * f)
    steps = (change_of_window.double() * mean_gradient.view(change_of_window.shape)).numpy()
    readout = (_adjoint(rule, samples.readout_gradient) * samples.readout.double()).sum(dim=(1, 2)).numpy()
    edges = [
        (_adjoint(rule, gradient).unsqueeze(-1) * values).sum(dim=(1, 2)).numpy()
        for gradient, values in zip(samples.subnodes_gradient, samples.edges, strict=True)
    ]

    entries: Entries = {("input", 0, "steps"): steps, ("input", 0, "nodes"): steps.sum(axis=1)}
    reaching = entries["input", 0, "nodes"]  # contributions of the nodes that the next KAN reads
    residuals = [reaching.sum(axis=1) - change]
    if network.front is not None:
        residuals += _add_kan(entries, "front", network.front.config, edges, reaching, change)
    if network.lstm is not None:
        entries["lstm", 0, "nodes"] = reaching = readout
        residuals.append(reaching.sum(axis=1) - change)
    head = network.head.config
    residuals += _add_kan(entries, "head", head, edges[-head.depth :], reaching, change)
    del entries["head", head.depth, "nodes"]  # what enters the output, stated as what it is:
    entries["output", head.depth, "nodes"] = change[:, None] * np.eye(head.n_nodes[-1])[output]
    entries["path", 0, "residual"] = np.abs(np.stack(residuals)).max(axis=0)
    entries["path", 0, "start"], entries["path", 0, "end"] = outputs[:, 0], outputs[:, -1]
    entries["path", 0, "n_nodes"] = np.full(len(outputs), float(samples.n_nodes))
    return entries


def complete(slices: Slices[Result]) -> Result:
    """The result of a computation in slices, one after the other."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            result: Result = end.value
            return result


def concatenate(batches: Sequence[Entries]) -> Entries:
    """Entries of several batches of windows as those of one."""
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def _adjoint(rule: Quadrature, gradient: Tensor) -> Tensor:
    """Turns gradients along the path into weights of the values themselves, (n, n_nodes, ...) -> the same shape.

    sum_k w_k g(a_k) h'(a_k) = sum_m (D^T w g)_m h(a_m), with D the differentiation matrix.
    """
    matrix = torch.from_numpy(rule.derivative.T * rule.weights)  # (n_nodes of values, n_nodes of gradients)
    return (matrix @ gradient.double().flatten(2)).view(gradient.shape)


def _add_kan(
    entries: Entries, stage: str, config: KANConfig, edges: Sequence[Array], reaching: Array, change: Array
) -> list[Array]:
    """Adds the layers of one KAN, and tells how far their sums are from what they must be.

    Args:
        entries: the table to add to.
        stage: front or head.
        config: of the KAN.
        edges: contributions of its edges, (n, n_subnodes, n_in) a layer, from its first on.
        reaching: contributions of its input nodes, (n, n_in), listed by the stage before.
        change: F(x) - F(x0), (n,).

    Returns:
        Residuals, (n,) each: of every layer's sum, and of what leaves each node against what enters it.
    """
    residuals = []
    for layer, contributions in enumerate(edges[: config.depth]):
        entries[stage, layer, "edges"] = contributions
        residuals.append(contributions.sum(axis=(1, 2)) - change)
        if not config.layer_norm[layer]:  # a normalised input depends on all nodes: only the layer's sum is claimed
            residuals.append(np.abs(contributions.sum(axis=1) - reaching).max(axis=1))
        node_of_subnode = np.eye(config.n_nodes[layer + 1])[list(config.node_of_subnode(layer + 1))]
        reaching = contributions.sum(axis=2) @ node_of_subnode  # (n, n_nodes): a product node has its sub-nodes' sum
        entries[stage, layer + 1, "nodes"] = reaching
    return residuals
