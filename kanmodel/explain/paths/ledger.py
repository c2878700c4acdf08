"""Ledgers: integrated gradients of features and conductance of all nodes and edges, with completeness at every layer.

For a window x, a baseline x0 and one output F, walk the straight path x(a) = x0 + a (x - x0) at the nodes a_k of a
Clenshaw-Curtis rule with weights w_k. One batched forward and one backward pass give, at every node of the path, the
values h of all nodes and edges of the network, and the gradients of F.

    feature f at step t     C = (x - x0) sum_k w_k dF/dx(a_k)                Integrated Gradients,
                                                                            Sundararajan 2017, arXiv 1703.01365, eq. 1
    node i of a layer       C_i = sum_k w_k dF/dh_i(a_k) h_i'(a_k)           conductance, Dhamdhere 2018,
                                                                            arXiv 1805.12233, eq. 3
    edge into sub-node j    C_ji = sum_k w_k dF/ds_j(a_k) edge_ji'(a_k)      the same, since s_j = sum_i edge_ji

The derivatives along the path come from the rule's differentiation matrix. Each layer sums to F(x) - F(x0)
(completeness); how far it does not, and how far what enters a KAN node is not what leaves it, is the ledger's
`residual` (convergence delta). Errors of opposite sign cancel in sums, so each contribution also has an error of its
own, from the coarser rules inside the one; the largest is the ledger's `error`.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.checkpoint import LoadedModel, refuse_non_finite_outputs
from kanmodel.computing import pause
from kanmodel.errors import DataError
from kanmodel.explain.paths.arrays import concatenate, map_arrays, take
from kanmodel.explain.paths.baseline import Baseline, baseline_window
from kanmodel.explain.paths.bisection import BATCH
from kanmodel.explain.paths.layers import LedgerLayer, list_layers
from kanmodel.explain.paths.walk import PathLedger, Walk, explain_paths
from kanmodel.network.frozen import FrozenNetwork
from kanmodel.scaling import Array

PATH_NODES = 17
FLOAT32_TOLERANCE = 2e-4  # tighter ones are taken to float64 at once: rounding alone may be a third of this
FLOAT32_HALVINGS = 10  # points of a shorter part are too close to each other for float32
FLOAT32_REACH = 8  # times a feature's largest magnitude in the reference windows: beyond it float32 rounds too coarsely
TYPICAL_WINDOWS = 16  # by which the number of the first nodes is chosen

# By network and output; two threads that ask at once compute the same number.
_typical_errors: WeakKeyDictionary[FrozenNetwork, dict[int, float]] = WeakKeyDictionary()


@dataclass(frozen=True)
class LedgerOptions:
    """How exact a ledger must be.

    Attributes:
        tolerance: largest accepted residual and error, in standard deviations of the output on the reference windows.
        path_nodes: nodes of the path, and of each part of it, at least: a multiple of 4, and one. Of the usual 17 only
            every other is taken where 9 reach the tolerance, if they mostly do for this model.
        halvings: how often a part of a path may be halved where the residual or the error is above the tolerance; with
            0, every path has just `path_nodes`.

    Raises:
        DataError: another number of path nodes.
    """

    tolerance: float = 1e-3
    path_nodes: int = PATH_NODES
    halvings: int = 20

    def __post_init__(self) -> None:
        if self.path_nodes < 5 or self.path_nodes % 4 != 1:
            message = f"must be a multiple of 4 and one, such as 17, but is {self.path_nodes}"
            raise DataError.at("path_nodes", message)


@dataclass(frozen=True)
class Ledger:
    """Contributions to one output for n windows, in the target's unit.

    Attributes:
        output: name of the output.
        baseline: what the windows were compared with, (lookback, n_features), original units.
        predictions: F(x), (n,).
        baseline_prediction: F(x0).
        steps: contribution of each feature at each step, (n, lookback, n_features), oldest step first.
        layers: in the order input, front, lstm (or gru, or cell), head, output; a front edge is summed over the steps.
        residual: largest of |layer sum - (F(x) - F(x0))| and of |in - out| at a KAN node, (n,).
        error: largest estimated error of any entry, (n,), not below the residual.
        tolerance: what both are compared with.
        converged: whether both are within it, and no node jumps between two neighbouring points of the path, (n,).
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
    error: Array
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
        NonFiniteError: a prediction, a residual or an error is not finite.
    """
    if not len(windows):
        raise DataError("windows is empty")
    options = options or LedgerOptions()
    start = baseline_window(model, baseline or Baseline())
    scaled_start = model.to_model_units(start[None], "baseline")[0]
    scale, mean = float(model.scaling.output_scale[output]), float(model.scaling.output_mean[output])
    tolerance = options.tolerance * float(model.output_std[output])

    first_nodes = _choose_first_nodes(model, output, options)
    batches: list[PathLedger] = []
    for batch in torch.split(windows, BATCH):
        if batches:
            pause()
        batches.append(_explain_batch(model, batch, scaled_start, output, options, first_nodes))
    explained = concatenate(batches)
    residual, error = explained.residual * scale, explained.error * scale
    contributions = map_arrays(lambda values: values * scale, explained.contributions)
    predictions = (explained.start + explained.contributions.change) * scale + mean
    refuse_non_finite_outputs(predictions)
    refuse_non_finite_outputs(residual)
    refuse_non_finite_outputs(error)
    return Ledger(
        output=model.config.outputs[output],
        baseline=start,
        predictions=predictions,
        baseline_prediction=float(explained.start[0]) * scale + mean,
        steps=contributions.steps,
        layers=list_layers(model.network, output, contributions),
        residual=residual,
        error=error,
        tolerance=tolerance,
        converged=explained.converged,
        path_nodes=explained.n_nodes,
    )


def _explain_batch(
    model: LoadedModel,
    windows: Tensor,
    start: Tensor,
    output: int,
    options: LedgerOptions,
    first_nodes: int,
) -> PathLedger:
    """Explains in the model's type, and in float64 what float32 cannot hold."""
    spread = float(model.output_std[output]) / float(model.scaling.output_scale[output])
    tolerance = options.tolerance * spread
    last_nodes = 2 * options.path_nodes - 1 if options.halvings else options.path_nodes

    def explain(network: FrozenNetwork, windows: Tensor, halvings: int, first_nodes: int) -> PathLedger:
        n_nodes = (options.path_nodes, first_nodes, last_nodes)
        walk = Walk(network, model.node_ranges, windows, start.to(windows.dtype), output, spread, *n_nodes)
        return explain_paths(walk, tolerance, halvings)

    if windows.dtype == torch.float64 or options.tolerance < FLOAT32_TOLERANCE:
        return explain(model.frozen_float64, windows.double(), options.halvings, first_nodes)
    again = _beyond_float32(model, windows, start)
    found: list[PathLedger] = []
    if not again.all():
        near, halvings = take(windows, ~again), min(options.halvings, FLOAT32_HALVINGS)
        found.append(explain(model.frozen, near, halvings, first_nodes))
        again[~again] = ~found[0].converged
        if not again.any():
            return found[0]
        found[0] = take(found[0], found[0].converged)
    of_again = take(windows, again).double()
    found.append(explain(model.frozen_float64, of_again, options.halvings, options.path_nodes))
    order = np.argsort(np.append(np.flatnonzero(~again), np.flatnonzero(again)))
    return map_arrays(lambda values: values[order], concatenate(found))


def _beyond_float32(model: LoadedModel, windows: Tensor, start: Tensor) -> NDArray[np.bool_]:
    """Whether a path leads so far from the data that rounding its points to float32 moves gates and nodes, (n,).

    No estimate sees this error: the rules agree on the rounded points, and sums hold there too.
    """
    largest = torch.maximum(windows.abs(), start.abs())
    beyond: NDArray[np.bool_] = (largest > FLOAT32_REACH * model.reference_magnitude).flatten(1).any(dim=1).numpy()
    return beyond


def _choose_first_nodes(model: LoadedModel, output: int, options: LedgerOptions) -> int:
    """Every other of the usual path nodes where they mostly suffice on reference windows, else all."""
    if options.path_nodes != PATH_NODES or not options.halvings:
        return options.path_nodes
    half = (PATH_NODES + 1) // 2
    known = _typical_errors.setdefault(model.frozen, {})
    if output not in known:
        known[output] = _typical_error(model, output, half)
    return half if known[output] <= options.tolerance else PATH_NODES


def _typical_error(model: LoadedModel, output: int, n_nodes: int) -> float:
    """The median error of paths to reference windows by one rule, in standard deviations; infinite where a node jumps.

    Every window is explained with the same nodes whatever stands beside it, so this may not be learnt from requests.
    """
    reference = model.reference.windows
    windows = reference[torch.linspace(0, len(reference) - 1, min(TYPICAL_WINDOWS, len(reference))).long()]
    start = model.to_model_units(baseline_window(model, Baseline())[None], "baseline")[0]
    spread = float(model.output_std[output]) / float(model.scaling.output_scale[output])
    walk = Walk(model.frozen, model.node_ranges, windows, start, output, spread, n_nodes, n_nodes, n_nodes)
    found = explain_paths(walk, np.inf, halvings=0)
    return float(np.median(np.where(found.converged, found.error, np.inf)) / spread)
