"""The integration path between two windows, and the contributions of each part of the network along it.

    sample_path   forward and backward passes at some points of paths
    integrate     contributions from the samples, by a rule and by the two coarser ones inside it

Computations come in slices of one pass each, a few milliseconds, and pause between them; see `kanmodel.computing`.
Everything is in model units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kanmodel.explain.paths.arrays import map_arrays
from kanmodel.explain.paths.moves import PassedNodes, by_path
from kanmodel.explain.paths.quadrature import NestedQuadrature
from kanmodel.network.config import ModelConfig
from kanmodel.network.frozen import FrozenNetwork
from kanmodel.network.recurrent import KINDS
from kanmodel.scaling import Array

PASS_BYTES = 5_500_000  # of the largest tensors of a pass; beyond this size, memory is mapped anew in each pass


class PathSamples(NamedTuple):
    """Values of the network along n paths, and the gradients of one output there.

    Rows are the steps in a layer of the front; elsewhere there is one.

    Attributes:
        outputs: the output, (n, n_points).
        gradient: by the features, (n, n_points, lookback, n_features).
        readout_gradient: by what the head sees, (n, n_points, n_units).
        logits_gradient: by the last layer's nodes, (n, n_points, n_outputs).
        edges: what each edge of a KAN layer adds, front first, (n, n_points, rows, n_subnodes, n_in).
        subnodes_gradient: by the sub-nodes of each layer, (n, n_points, rows, n_subnodes).
        passed: values of nodes.
    """

    outputs: Tensor
    gradient: Tensor
    readout_gradient: Tensor
    logits_gradient: Tensor
    edges: tuple[Tensor, ...]
    subnodes_gradient: tuple[Tensor, ...]
    passed: PassedNodes

    def interleave(self, between: PathSamples) -> PathSamples:
        """Merges the samples at the points between each two of these."""
        return map_arrays(_interleave, self, between)


class Contributions(NamedTuple):
    """Contributions to one output along n paths, or parts of them; float64. Those of adjacent parts add up.

    Attributes:
        change: F(end) - F(start), (n,).
        steps: of each feature at each step, (n, lookback, n_features).
        readout: of the input of the head, (n, n_units).
        logits: of the last layer's nodes, before an output function, (n, n_outputs).
        edges: of each KAN layer, front first and summed over the steps, (n, n_subnodes, n_in).
    """

    change: Array
    steps: Array
    readout: Array
    logits: Array
    edges: tuple[Array, ...]


def paths_per_pass(config: ModelConfig, n_points: int) -> int:
    """How many paths are sampled per pass: about `PASS_BYTES` of features, edges and gates."""
    values = len(config.features) + sum(layer.n_in * layer.n_subnodes for layer in config.front)
    if config.recurrent is not None:
        values += KINDS[config.recurrent.cell].n_gates * config.recurrent.n_units * config.recurrent.num_layers
    point: int = config.lookback * values * getattr(torch, config.dtype).itemsize
    return max(1, PASS_BYTES // (n_points * point))


def points_along(starts: Tensor, ends: Tensor, nodes: Array) -> Tensor:
    """Points of paths, (n, n_nodes, lookback, n_features).

    Args:
        starts: where the paths begin, (n, lookback, n_features), or (1, ...) for all of them.
        ends: where they end, (n, lookback, n_features).
        nodes: positions on a path, (n_nodes,), 0 at its start and 1 at its end.
    """
    return torch.lerp(starts[:, None], ends[:, None], torch.from_numpy(nodes).to(ends.dtype)[:, None, None])


def sample_path(network: FrozenNetwork, starts: Tensor, ends: Tensor, nodes: Array, output: int) -> PathSamples:
    """A forward and a backward pass over all points of paths.

    Args:
        network: the network.
        starts: as for `points_along`.
        ends: likewise.
        nodes: likewise.
        output: index of the output.
    """
    with torch.inference_mode(False), torch.enable_grad():
        batch = points_along(starts, ends, nodes).flatten(0, 1).requires_grad_()
        trace, recurrent = network.trace_with_states(batch)
        outputs = trace.outputs[:, output]
        layers = (*trace.front, *trace.head)
        of_points, of_readout, of_logits, *of_subnodes = torch.autograd.grad(
            outputs.sum(), [batch, trace.readout, trace.logits, *(layer.subnodes for layer in layers)]
        )
    paths = (len(ends), len(nodes))
    return PathSamples(
        outputs=by_path(outputs, paths),
        gradient=by_path(of_points, paths),
        readout_gradient=by_path(of_readout, paths),
        logits_gradient=by_path(of_logits, paths),
        edges=tuple(by_path(layer.edges, paths, -1) for layer in layers),
        subnodes_gradient=tuple(by_path(gradient, paths, -1) for gradient in of_subnodes),
        passed=PassedNodes.of(trace, recurrent, paths),
    )


@np.errstate(over="ignore", invalid="ignore")  # the ledger refuses what is not finite
def integrate(change: Tensor, samples: PathSamples, rule: NestedQuadrature) -> Contributions:
    """Contributions to one output along n paths, by each of the three rules, in float64.

    Args:
        change: end - start of each path, (n, lookback, n_features).
        samples: the samples along the paths.
        rule: the rule at whose nodes they were taken.

    Returns:
        Contributions of 3 n paths: all by the finest rule, then all by each coarser one.
    """
    n, outputs = len(change), _float64(samples.outputs)
    gradients = rule.weights @ _float64(samples.gradient.flatten(2))  # (n, 3, lookback * n_features)
    steps = _float64(change)[:, None] * gradients.reshape(n, 3, *change.shape[1:])
    readout, logits = _float64(samples.passed.readout), _float64(samples.passed.head[-1].squeeze(2))
    of_readout, of_logits, *of_subnodes = _adjoints(
        rule, [samples.readout_gradient, samples.logits_gradient, *samples.subnodes_gradient]
    )
    by_rule = (
        np.repeat((outputs[:, -1] - outputs[:, 0])[:, None], 3, axis=1),  # by any rule
        steps,
        (of_readout * readout[:, None]).sum(axis=2),
        (of_logits * logits[:, None]).sum(axis=2),
        tuple(map(_integrate_edges, of_subnodes, samples.edges)),
    )
    return Contributions._make(map_arrays(lambda values: values.swapaxes(0, 1).reshape(-1, *values.shape[2:]), by_rule))


def _adjoints(rule: NestedQuadrature, gradients: Sequence[Tensor]) -> list[Array]:
    """Turns gradients along the path into weights of the values themselves, (n, n_nodes, ...) -> (n, 3, n_nodes, ...).

    sum_k w_k g(a_k) h'(a_k) = sum_m (D^T w g)_m h(a_m), with D the differentiation matrix: by each of the rules.
    """
    n, n_nodes = gradients[0].shape[:2]
    matrix = rule.products.transpose(0, 2, 1).reshape(3 * n_nodes, n_nodes)
    adjoint = matrix @ _float64(torch.cat([gradient.flatten(2) for gradient in gradients], dim=2))
    ends = np.cumsum([gradient[0, 0].numel() for gradient in gradients])
    return [
        part.reshape(n, 3, n_nodes, *gradient.shape[2:])
        for part, gradient in zip(np.split(adjoint, ends[:-1], axis=2), gradients, strict=True)
    ]


def _integrate_edges(adjoint: Array, values: Tensor) -> Array:
    """(n, 3, n_nodes, rows, n_subnodes) and (n, n_nodes, rows, n_subnodes, n_in) -> (n, 3, n_subnodes, n_in)."""
    n, _, _, _, n_subnodes = adjoint.shape
    by_subnode = adjoint.transpose(0, 4, 1, 2, 3).reshape(n, n_subnodes, 3, -1)
    edges = _float64(values.permute(0, 3, 1, 2, 4).reshape(n, n_subnodes, -1, values.shape[-1]))
    return (by_subnode @ edges).transpose(0, 2, 1, 3)  # matrices so small that numpy multiplies them faster than torch


def _float64(values: Tensor) -> Array:
    array: Array = values.double().numpy()
    return array


def _interleave(values: Tensor, between: Tensor) -> Tensor:
    """(n, m, ...) and (n, m - 1, ...) -> (n, 2 m - 1, ...)."""
    both = values.new_empty(len(values), values.shape[1] + between.shape[1], *values.shape[2:])
    both[:, ::2], both[:, 1::2] = values, between
    return both
