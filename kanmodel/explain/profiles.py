"""What each node stands for: the share of every feature in the node's own value.

Deep in a network, and behind an LSTM already in its first layer, a node's value is a mixture of features. Its profile
is the ledger of that value instead of the forecast's: Integrated Gradients of the node, from the mean baseline.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.baseline import Baseline, baseline_window
from kanmodel.explain.quadrature import clenshaw_curtis
from kanmodel.network.chain import Trace
from kanmodel.network.config import ModelConfig
from kanmodel.scaling import Array

MAX_WINDOWS = 128  # taken evenly from the reference: a share needs no more
N_NODES = 17
PART = 22  # windows whose gradients are taken together: about as many points as fit the cache


def profile_nodes(model: LoadedModel) -> Mapping[tuple[str, int], Array]:
    """Profiles of all nodes that are no features.

    Args:
        model: the model.

    Returns:
        By (stage, layer), the outputs as the last layer of the head, unless an output function stands between:
        (n_nodes, n_features), the mean |contribution| of a feature to the node over the reference windows, as a share
        of all features'. A node that no feature moves has 0 everywhere. A front node's value is its sum over the steps.
    """
    reference = model.reference.windows
    chosen = torch.linspace(0, len(reference) - 1, min(MAX_WINDOWS, len(reference))).long()
    start = model.to_model_units(baseline_window(model, Baseline())[None], "baseline")[0]
    sizes: dict[tuple[str, int], list[Array]] = {}
    for windows in torch.split(reference[chosen], PART):
        for place, contributions in _contributions(model, windows, start).items():
            sizes.setdefault(place, []).append(np.abs(contributions))
    return {place: _shares(np.concatenate(parts, axis=1).mean(axis=1)) for place, parts in sizes.items()}


def _contributions(model: LoadedModel, windows: Tensor, start: Tensor) -> dict[tuple[str, int], Array]:
    """Of features to the values of nodes, by (stage, layer): (n_nodes, n, n_features)."""
    rule = clenshaw_curtis(N_NODES)
    along = torch.from_numpy(rule.nodes).to(windows.dtype)[:, None, None]
    points = torch.lerp(start, windows[:, None], along).flatten(0, 1).requires_grad_()
    change = (windows - start).double().numpy()

    def contributions(node: Tensor) -> Array:
        """To one node's value at every point, (n * n_nodes,)."""
        (gradient,) = torch.autograd.grad(node.sum(), points, retain_graph=True)
        along_path = gradient.double().reshape(len(windows), N_NODES, -1)
        mean_gradient = (torch.from_numpy(rule.weights) @ along_path).view(change.shape).numpy()
        summed: Array = (change * mean_gradient).sum(axis=1)
        return summed

    with torch.enable_grad():
        layers = _node_values(model.config, model.frozen.trace(points))
        return {place: np.stack([contributions(node) for node in nodes.unbind(1)]) for place, nodes in layers.items()}


def _shares(sizes: Array) -> Array:
    """Sizes (n_nodes, n_features) as shares that sum to 1; all 0 where nothing has a size."""
    total = sizes.sum(axis=1, keepdims=True)
    shares: Array = np.divide(sizes, total, out=np.zeros_like(sizes), where=total > 0)
    return shares


def _node_values(config: ModelConfig, trace: Trace) -> dict[tuple[str, int], Tensor]:
    """Values of the nodes, (batch, n_nodes) by (stage, layer)."""
    values = {
        ("front", number + 1): layer.nodes.view(-1, config.lookback, layer.nodes.shape[1]).sum(dim=1)
        for number, layer in enumerate(trace.front)
    }
    if config.readout_stage is not None:
        values[config.readout_stage, 0] = trace.readout
    values |= {("head", number + 1): layer.nodes for number, layer in enumerate(trace.head)}
    if config.output_function is not None:
        values["output", len(config.head)] = trace.outputs
    return values
