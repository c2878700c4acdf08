"""Contributions that add up at every layer: from the features of each step, through the LSTM, to the forecast.

For a window x, a baseline x0 and one output F, walk the straight path x(a) = x0 + a (x - x0) at the nodes a_k of a
Clenshaw-Curtis rule with weights w_k. One batched forward and one backward pass give, at every node of the path, the
values h of all nodes and edges of the network, and the gradients of F.

    feature f at step t     C = (x - x0) sum_k w_k dF/dx(a_k)                Integrated Gradients,
                                                                            Sundararajan 2017, arXiv 1703.01365, eq. 1
    node i of a layer       C_i = sum_k w_k dF/dh_i(a_k) h_i'(a_k)           conductance, Dhamdhere 2018,
                                                                            arXiv 1805.12233, eq. 3
    edge into sub-node j    C_ji = sum_k w_k dF/ds_j(a_k) edge_ji'(a_k)      the same, since s_j = sum_i edge_ji

The derivatives along the path come from the rule's differentiation matrix. Each layer sums to F(x) - F(x0); how far it
does not, and how far what enters a KAN node is not what leaves it, is the ledger's `residual`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.checkpoint import LoadedModel, refuse_non_finite_outputs
from kanmodel.errors import DataError
from kanmodel.explain.baseline import Baseline, baseline_window
from kanmodel.explain.bisection import BATCH, Walk, explain_paths
from kanmodel.explain.path import Entries, Slices, complete, concatenate
from kanmodel.scaling import Array


@dataclass(frozen=True)
class LedgerOptions:
    """How exact a ledger must be.

    Attributes:
        tolerance: largest accepted residual, in standard deviations of the output on the reference windows.
        path_nodes: nodes of the path, and of each part of it.
        halvings: how often a part of a path may be halved where the residual is above the tolerance.
    """

    tolerance: float = 1e-3
    path_nodes: int = 17
    halvings: int = 12


@dataclass(frozen=True)
class LedgerLayer:
    """Contributions of one layer.

    Attributes:
        stage: input, front, lstm, head or output.
        layer: number of the layer within its stage.
        nodes: contributions of its nodes, (n, n_nodes); None where another stage lists the same nodes.
        edges: contributions of the edges that leave them, (n, n_subnodes, n_nodes); None where there are none.
    """

    stage: str
    layer: int
    nodes: Array | None
    edges: Array | None


@dataclass(frozen=True)
class Ledger:
    """Contributions to one output for n windows, in the target's unit.

    Attributes:
        output: name of the output.
        baseline: what the windows were compared with, (lookback, n_features), original units.
        predictions: F(x), (n,).
        baseline_prediction: F(x0).
        steps: contribution of each feature at each step, (n, lookback, n_features), oldest step first.
        layers: in the order input, front, lstm, head, output; a front edge is summed over the steps.
        residual: largest of |layer sum - (F(x) - F(x0))| and of |in - out| at a KAN node, (n,).
        tolerance: what the residual was held against.
        converged: whether it is within it, (n,).
        path_nodes: nodes of the path that were used, (n,).
        standard_error: of each feature's contribution, (n, n_features), where the ledger is an average over baselines;
            None for a single baseline.
    """

    output: str
    baseline: Array
    predictions: Array
    baseline_prediction: float
    steps: Array
    layers: tuple[LedgerLayer, ...]
    residual: Array
    tolerance: float
    converged: NDArray[np.bool_]
    path_nodes: NDArray[np.int64]
    standard_error: Array | None = None

    @property
    def features(self) -> Array:
        """Contribution of each feature, (n, n_features): the signed sum over steps."""
        total: Array = self.steps.sum(axis=1)
        return total


def explain_windows(
    model: LoadedModel,
    windows: Tensor,
    output: int,
    baseline: Baseline | None = None,
    options: LedgerOptions | None = None,
) -> Ledger:
    """The ledger of one output for windows.

    Args:
        model: the model.
        windows: (n, lookback, n_features), model units, as `LoadedModel.to_model_units` gives them.
        output: number of the output.
        baseline: what to compare with; default ``mean``.
        options: tolerance and path nodes.

    Returns:
        Contributions in the target's unit.

    Raises:
        DataError: there is no window, or the baseline cannot be used.
        UnknownNameError: the baseline names a feature that does not exist.
        NonFiniteError: a forecast or a residual is not finite.
    """
    return complete(explain_in_slices(model, windows, output, baseline, options))


def explain_in_slices(
    model: LoadedModel,
    windows: Tensor,
    output: int,
    baseline: Baseline | None = None,
    options: LedgerOptions | None = None,
) -> Slices[Ledger]:
    """`explain_windows`, pausing after every few milliseconds of work."""
    if not len(windows):
        raise DataError("windows is empty")
    options = options or LedgerOptions()
    start = baseline_window(model, baseline or Baseline())
    scaled_start = model.to_model_units(start[None], "baseline")[0]
    scale, mean = float(model.scaling.output_scale[output]), float(model.scaling.output_mean[output])
    tolerance = options.tolerance * float(model.output_std[output])

    batches: list[Entries] = []
    for batch in torch.split(windows, BATCH):
        if batches:
            yield
        walk = Walk(model.frozen, batch, scaled_start, output, options.path_nodes)
        batches.append((yield from explain_paths(walk, tolerance / scale, options.halvings)))
    entries = concatenate(batches)
    residual = entries["path", 0, "residual"] * scale
    predictions = entries["path", 0, "end"] * scale + mean
    refuse_non_finite_outputs(predictions)
    refuse_non_finite_outputs(residual)
    return Ledger(
        output=model.config.outputs[output],
        baseline=start,
        predictions=predictions,
        baseline_prediction=float(entries["path", 0, "start"][0]) * scale + mean,
        steps=entries["input", 0, "steps"] * scale,
        layers=_scaled_layers(entries, scale),
        residual=residual,
        tolerance=tolerance,
        converged=residual <= tolerance,
        path_nodes=entries["path", 0, "n_nodes"].astype(np.int64),
    )


def _scaled_layers(entries: Entries, scale: float) -> tuple[LedgerLayer, ...]:
    """The entries as layers, in the order of the data, which is the order they were made in."""
    places = dict.fromkeys((stage, layer) for stage, layer, kind in entries if kind in ("nodes", "edges"))
    scaled = {key: values * scale for key, values in entries.items()}
    return tuple(
        LedgerLayer(stage, layer, scaled.get((stage, layer, "nodes")), scaled.get((stage, layer, "edges")))
        for stage, layer in places
    )
