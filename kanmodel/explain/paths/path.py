"""The integration path from one window to another, and what each part of the network contributes along it.

    sample_path   forward and backward passes at some points of paths
    integrate     contributions from the samples, by a rule and by the two coarser ones inside it

Computations come in slices of one pass each, a few milliseconds, and pause between them; see `kanmodel.pausing`.
Everything is in model units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kanmodel.explain.paths.quadrature import NestedQuadrature
from kanmodel.network.config import ModelConfig
from kanmodel.network.frozen import FrozenNetwork
from kanmodel.network.recurrent import KINDS
from kanmodel.scaling import Array

PASS_BYTES = 2_500_000  # of the largest values of one pass: of more, memory is mapped anew in each pass


@dataclass(frozen=True)
class PassedNodes:
    """Values of the network's nodes at the points of paths, (n, n_points, rows, ...) each.

    Attributes:
        readout: what the head sees, (n, n_points, 1, n_units).
        front: nodes behind each layer of the front, (n, n_points, lookback, n_out).
        head: nodes behind each layer of the head, (n, n_points, 1, n_out).
        gates: `FrozenRecurrent.gates` of each layer and direction, (n, n_points, 1, lookback, n_gates * hidden_size).
    """

    readout: Tensor
    front: tuple[Tensor, ...]
    head: tuple[Tensor, ...]
    gates: tuple[Tensor, ...]


@dataclass(frozen=True)
class PathSamples:
    """What passes through the network along the paths of n windows, and the gradients of one output there.

    Each tensor is (n, n_nodes, rows, ...); rows are the steps in a front KAN, elsewhere there is one.

    Attributes:
        outputs: the output, (n, n_nodes, 1).
        points_gradient: (n, n_nodes, 1, lookback, n_features).
        readout: what the head sees, (n, n_nodes, 1, n_units).
        readout_gradient: the same shape.
        logits_gradient: of the last layer's nodes, (n, n_nodes, 1, n_outputs).
        edges: of each KAN layer, front first, (n, n_nodes, rows, n_subnodes, n_in).
        subnodes_gradient: of each KAN layer, (n, n_nodes, rows, n_subnodes).
        passed: nodes and gates.
    """

    outputs: Tensor
    points_gradient: Tensor
    readout: Tensor
    readout_gradient: Tensor
    logits_gradient: Tensor
    edges: tuple[Tensor, ...]
    subnodes_gradient: tuple[Tensor, ...]
    passed: PassedNodes

    @classmethod
    def of(cls, tensors: Sequence[Tensor], n_front: int, n_head: int) -> PathSamples:
        """Of the attributes in their order, with so many layers in front and head."""
        left = iter(tensors)
        outputs, points_gradient, readout, readout_gradient, logits_gradient = (next(left) for _ in range(5))
        edges, gradients = (tuple(next(left) for _ in range(n_front + n_head)) for _ in range(2))
        front, head = (tuple(next(left) for _ in range(depth)) for depth in (n_front, n_head))
        passed = PassedNodes(readout, front, head, tuple(left))
        return cls(outputs, points_gradient, readout, readout_gradient, logits_gradient, edges, gradients, passed)


@dataclass(frozen=True)
class Contributions:
    """Contributions to one output along n paths, or parts of them; float64. Those of adjacent parts add up.

    Attributes:
        change: F(end) - F(start), (n,).
        steps: of each feature at each step, (n, lookback, n_features).
        readout: of what the head sees, (n, n_units).
        logits: of the last layer's nodes, before an output function, (n, n_outputs).
        edges: of each KAN layer, front first and summed over the steps, (n, n_subnodes, n_in).
    """

    change: Array
    steps: Array
    readout: Array
    logits: Array
    edges: tuple[Array, ...]

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All of them, in the order of the attributes."""
        return (self.change, self.steps, self.readout, self.logits, *self.edges)

    @classmethod
    def of(cls, arrays: Sequence[Array]) -> Contributions:
        """Of `arrays`."""
        change, steps, readout, logits, *edges = arrays
        return cls(change, steps, readout, logits, tuple(edges))

    def __getitem__(self, paths: slice) -> Contributions:
        """Those of some paths."""
        return Contributions.of([values[paths] for values in self.arrays])

    def __mul__(self, factor: float) -> Contributions:
        """In another unit."""
        return Contributions.of([values * factor for values in self.arrays])


def paths_per_pass(config: ModelConfig, n_nodes: int) -> int:
    """How many paths of so many points are sampled together: of about `PASS_BYTES` of features, edges and gates."""
    values = len(config.features) + sum(layer.n_in * layer.n_subnodes for layer in config.front)
    if config.recurrent is not None:
        values += KINDS[config.recurrent.cell].n_gates * config.recurrent.n_units * config.recurrent.num_layers
    point: int = config.lookback * values * getattr(torch, config.dtype).itemsize
    return max(1, PASS_BYTES // (n_nodes * point))


def sample_path(network: FrozenNetwork, starts: Tensor, ends: Tensor, output: int, nodes: Array) -> PathSamples:
    """A forward and a backward pass over paths x nodes.

    Args:
        network: the network.
        starts: where the paths begin, (n, lookback, n_features), or (1, ...) for all of them.
        ends: where they end, (n, lookback, n_features).
        output: number of the output.
        nodes: positions on a path, (n_nodes,), 0 at its start and 1 at its end.
    """
    along = torch.from_numpy(nodes).to(ends.dtype)[:, None, None]
    points = torch.lerp(starts[:, None], ends[:, None], along).flatten(0, 1)  # (n * n_nodes, lookback, n_features)
    config = network.network.config
    passed = _pass(network, points, output)
    shaped = [values.reshape(len(ends), len(nodes), -1, *values.shape[1:]) for values in passed]
    return PathSamples.of(shaped, len(config.front), len(config.head))


def _pass(network: FrozenNetwork, points: Tensor, output: int) -> list[Tensor]:
    """What passes at points (batch, lookback, n_features), and the gradients there, as `PathSamples` orders them."""
    with torch.enable_grad():
        trace, gates = network.trace_with_gates(points.requires_grad_())
        layers = (*trace.front, *trace.head)
        watched = [points, trace.readout, trace.logits, *(layer.subnodes for layer in layers)]
        gradients = torch.autograd.grad(trace.outputs[:, output].sum(), watched)
    passed = [trace.outputs[:, output], gradients[0], trace.readout, *gradients[1:3]]
    edges, nodes = [layer.edges for layer in layers], [layer.nodes for layer in layers]
    return [values.detach() for values in (*passed, *edges, *gradients[3:], *nodes, *gates)]


def integrate(change: Tensor, samples: PathSamples, rule: NestedQuadrature) -> Contributions:
    """Contributions to one output along n paths, by each of the three rules, in float64.

    Args:
        change: end - start of each path, (n, lookback, n_features).
        samples: what passed along the paths.
        rule: at whose nodes.

    Returns:
        Those of 3 n paths: of all by the finest rule, then by the coarser ones.
    """
    outputs = samples.outputs[:, :, 0].double()  # (n, n_nodes)
    gradients = torch.from_numpy(rule.weights) @ samples.points_gradient.double().flatten(2)  # (n, 3, lookback * f)
    steps = change.double()[:, None] * gradients.view(len(change), 3, *change.shape[1:])
    readout = (_adjoint(rule, samples.readout_gradient) * samples.readout.double()[:, None]).sum(dim=(2, 3))
    logits = (_adjoint(rule, samples.logits_gradient) * samples.passed.head[-1].double()[:, None]).sum(dim=(2, 3))
    edges = [
        torch.einsum("nkprs,nprsi->nksi", _adjoint(rule, gradient), values.double())
        for gradient, values in zip(samples.subnodes_gradient, samples.edges, strict=True)
    ]
    moved = (outputs[:, -1] - outputs[:, 0])[:, None].expand(-1, 3)  # by any rule
    return Contributions.of(
        [values.transpose(0, 1).flatten(0, 1).numpy() for values in (moved, steps, readout, logits, *edges)]
    )


def _adjoint(rule: NestedQuadrature, gradient: Tensor) -> Tensor:
    """Turns gradients along the path into weights of the values themselves, (n, n_nodes, ...) -> (n, 3, n_nodes, ...).

    sum_k w_k g(a_k) h'(a_k) = sum_m (D^T w g)_m h(a_m), with D the differentiation matrix: by each of the rules.
    """
    n_nodes = len(rule.nodes)
    matrix = torch.from_numpy(rule.products.transpose(0, 2, 1).reshape(3 * n_nodes, n_nodes))
    return (matrix @ gradient.double().flatten(2)).view(len(gradient), 3, *gradient.shape[1:])
