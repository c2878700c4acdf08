"""The walk from one window to another, and what each part of the network adds on the way.

    sample_path   forward and backward passes at some points of paths
    tally         the samples as contributions; those of two paths, one behind the other, add up
    balance       what follows from them: contributions of nodes, and how far the layers are from agreeing

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

from kanmodel.explain.quadrature import Quadrature
from kanmodel.network.chain import Network
from kanmodel.network.config import Layers
from kanmodel.network.frozen import FrozenNetwork
from kanmodel.scaling import Array

Result = TypeVar("Result")

# (stage, layer, kind) -> values, paths first. Kinds: steps, nodes, edges; of "path": start, end, residual, n_nodes.
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
        logits: before the output function, (n, n_nodes, 1, n_outputs).
        logits_gradient: the same shape.
        edges: of each KAN layer, front first, (n, n_nodes, rows, n_subnodes, n_in).
        subnodes_gradient: of each KAN layer, (n, n_nodes, rows, n_subnodes).
    """

    outputs: Tensor
    points_gradient: Tensor
    readout: Tensor
    readout_gradient: Tensor
    logits: Tensor
    logits_gradient: Tensor
    edges: tuple[Tensor, ...]
    subnodes_gradient: tuple[Tensor, ...]

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> PathSamples:
        """Of the attributes in their order, those of the edges before those of the sub-nodes."""
        outputs, points_gradient, readout, readout_gradient, logits, logits_gradient, *layers = tensors
        edges, subnodes_gradient = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        nodes = (outputs, points_gradient, readout, readout_gradient, logits, logits_gradient)
        return cls(*nodes, tuple(edges), tuple(subnodes_gradient))


def sample_path(network: FrozenNetwork, starts: Tensor, ends: Tensor, output: int, nodes: Array) -> Slices[PathSamples]:
    """Forward and backward passes over paths x nodes, a slice of at most `POINTS` at a time.

    Args:
        network: the network.
        starts: where the paths begin, (n, lookback, n_features), or (1, ...) for all of them.
        ends: where they end, (n, lookback, n_features).
        output: number of the output.
        nodes: positions on a path, (n_nodes,), 0 at its start and 1 at its end.
    """
    along = torch.from_numpy(nodes).to(ends.dtype)[:, None, None]
    points = torch.lerp(starts[:, None], ends[:, None], along).flatten(0, 1)  # (n * n_nodes, lookback, n_features)
    passed: list[list[Tensor]] = []
    for part in torch.split(points, POINTS):
        if passed:
            yield
        passed.append(_pass(network, part, output))
    joined = passed[0] if len(passed) == 1 else [torch.cat(parts) for parts in zip(*passed, strict=True)]
    return PathSamples.of([values.reshape(len(ends), len(nodes), -1, *values.shape[1:]) for values in joined])


def _pass(network: FrozenNetwork, points: Tensor, output: int) -> list[Tensor]:
    """What passes at points (batch, lookback, n_features), and the gradients there, as `PathSamples` orders them."""
    with torch.enable_grad():
        trace = network.trace(points.requires_grad_())
        layers = (*trace.front, *trace.head)
        watched = [points, trace.readout, trace.logits, *(layer.subnodes for layer in layers)]
        gradients = torch.autograd.grad(trace.outputs[:, output].sum(), watched)
    passed = [trace.outputs[:, output], gradients[0], trace.readout, gradients[1], trace.logits, gradients[2]]
    return [values.detach() for values in (*passed, *(layer.edges for layer in layers), *gradients[3:])]


def tally(change: Tensor, samples: PathSamples, rule: Quadrature) -> Entries:
    """Contributions to one output along paths, in float64: of the steps, the LSTM's units and the edges.

    Args:
        change: end - start of each path, (n, lookback, n_features).
        samples: what passed along the paths.
        rule: at whose nodes.

    Returns:
        Entries for `balance`.
    """
    outputs = samples.outputs[:, :, 0].double().numpy()  # (n, n_nodes)
    mean_gradient = torch.from_numpy(rule.weights) @ samples.points_gradient.double().flatten(2)  # (n, lookback * f)
    readout = (_adjoint(rule, samples.readout_gradient) * samples.readout.double()).sum(dim=(1, 2))
    logits = (_adjoint(rule, samples.logits_gradient) * samples.logits.double()).sum(dim=(1, 2))
    edges = [
        (_adjoint(rule, gradient).unsqueeze(-1) * values).sum(dim=(1, 2)).numpy()
        for gradient, values in zip(samples.subnodes_gradient, samples.edges, strict=True)
    ]
    return {
        ("path", 0, "start"): outputs[:, 0],
        ("path", 0, "end"): outputs[:, -1],
        ("input", 0, "steps"): (change.double() * mean_gradient.view(change.shape)).numpy(),
        ("readout", 0, "nodes"): readout.numpy(),
        ("logits", 0, "nodes"): logits.numpy(),
        **{("kan", layer, "edges"): contributions for layer, contributions in enumerate(edges)},
    }


def balance(network: Network, output: int, tallied: Entries) -> Entries:
    """Contributions of all nodes and edges, and the residual: how far what must be equal is not.

    Args:
        network: the network.
        output: number of the output.
        tallied: what `tally` says of paths, or the sums of that over the parts of each.

    Returns:
        Entries in the order of the data: path, input, front, lstm, head, output.
    """
    start, end, steps = (tallied[key] for key in (("path", 0, "start"), ("path", 0, "end"), ("input", 0, "steps")))
    change = end - start
    entries: Entries = {("path", 0, "start"): start, ("path", 0, "end"): end, ("input", 0, "steps"): steps}
    entries["input", 0, "nodes"] = reaching = steps.sum(axis=1)  # of the nodes that the next KAN reads
    edges = [values for (stage, _, _), values in tallied.items() if stage == "kan"]  # front first
    residuals = [reaching.sum(axis=1) - change]
    config = network.config
    if config.front:
        residuals += _add_layers(entries, "front", config.front, edges, reaching, change)
        reaching = entries["front", len(config.front), "nodes"]
    if config.readout_stage is not None:
        reaching = tallied["readout", 0, "nodes"]
        entries[config.readout_stage, 0, "nodes"] = reaching
        residuals.append(reaching.sum(axis=1) - change)
    depth = len(config.head)
    residuals += _add_layers(entries, "head", config.head, edges[-depth:], reaching, change)
    entered = entries.pop(("head", depth, "nodes"))
    if config.output_function is not None:
        entries["head", depth, "nodes"] = logits = tallied["logits", 0, "nodes"]
        residuals += [logits.sum(axis=1) - change, np.abs(logits - entered).max(axis=1)]
    # What enters the output, stated as what it is:
    entries["output", depth, "nodes"] = change[:, None] * np.eye(len(config.outputs))[output]
    entries["path", 0, "residual"] = np.abs(np.stack(residuals)).max(axis=0)
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


def _add_layers(
    entries: Entries, stage: str, layers: Layers, edges: Sequence[Array], reaching: Array, change: Array
) -> list[Array]:
    """Adds the layers of one stage, and tells how far their sums are from what they must be.

    Args:
        entries: the table to add to.
        stage: front or head.
        layers: of the stage.
        edges: contributions of its edges, (n, n_subnodes, n_in) a layer, from its first on.
        reaching: contributions of its input nodes, (n, n_in), listed by the stage before.
        change: F(x) - F(x0), (n,).

    Returns:
        Residuals, (n,) each: of every layer's sum, and of what leaves each node against what enters it.
    """
    residuals = []
    for number, (layer, contributions) in enumerate(zip(layers, edges, strict=False)):
        entries[stage, number, "edges"] = contributions
        residuals.append(contributions.sum(axis=(1, 2)) - change)
        if not layer.mixes:  # what is read depends on all nodes then: only the layer's sum is claimed
            residuals.append(np.abs(contributions.sum(axis=1) - reaching).max(axis=1))
        node_of_subnode = np.eye(layer.n_out)[list(layer.node_of_subnode)]
        reaching = contributions.sum(axis=2) @ node_of_subnode  # (n, n_nodes): a product node has its sub-nodes' sum
        entries[stage, number + 1, "nodes"] = reaching
    return residuals
