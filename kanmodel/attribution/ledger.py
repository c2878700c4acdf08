"""The ledger of forecasts: the contribution of each feature, step, node and edge, complete at every layer.

For a window x, a baseline x0 and one output F, walk the straight path x(a) = x0 + a (x - x0) at the nodes a_k of a
Clenshaw-Curtis rule with weights w_k. One batched forward and one backward pass give, at every node of the path, the
values h of all nodes and edges of the network, and the gradients of F.

    feature f at step t     C = (x - x0) sum_k w_k dF/dx(a_k)                Integrated Gradients,
                                                                            Sundararajan 2017, arXiv 1703.01365, eq. 1
    node i of a layer       C_i = sum_k w_k dF/dh_i(a_k) h_i'(a_k)           conductance, Dhamdhere 2018,
                                                                            arXiv 1805.12233, eq. 3
    edge into sub-node j    C_ji = sum_k w_k dF/ds_j(a_k) edge_ji'(a_k)      the same, since s_j = sum_i edge_ji

Derivatives along the path come from the rule's differentiation matrix. Each layer sums to F(x) - F(x0) (completeness).
Errors of opposite sign cancel in sums, so each contribution also has an error of its own, from the coarser rules inside
the one. Averaged over reference windows as baselines, these are expected gradients (Erion 2019, arXiv 1906.10670).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import (
    Baseline,
    Baselines,
    ReferenceBaselines,
    baseline_windows,
    scaled_baselines,
    spread_windows,
)
from kanmodel.attribution.paths import path
from kanmodel.attribution.paths.bisection import BATCH, Integrals, Walk
from kanmodel.attribution.paths.path import Contributions, Detail, LedgerLayer, concatenate, map_arrays, take
from kanmodel.computing import progress_share, tracked
from kanmodel.errors import DataError, check_lowest, quote, refuse_unknown
from kanmodel.forecaster import Forecaster, refuse_non_finite_outputs
from kanmodel.network.network import FrozenNetwork

PATH_NODES, USUAL_NODES, MORE_NODES = 9, 17, 33  # with which a path starts: the first that is enough for most,
MOST, N_TRIED = 2 / 3, 16  # of so many reference windows: of one window a second pass costs more than nodes do
FLOAT32_TOLERANCE = 2e-4  # tighter ones are taken to float64 at once: rounding alone may be a third of this
FLOAT32_HALVINGS = 10  # points of a shorter part are too close to each other for float32
MAX_TOLERANCE = 1e6  # within which is everything
FAR = 8  # times a feature's largest magnitude in the reference windows: beyond it float32 rounds too coarsely
FAR_SHARE = 0.1  # of the tolerance that paths to there must reach: large entries cancel, and rules agree too early
OUTSIDE, OUTSIDE_SHARE = 2, 0.9  # times that magnitude: estimates there may be a few percent too small


@dataclass(frozen=True)
class LedgerOptions:
    """How exact a ledger must be.

    A path, and each part of it, starts with `path_nodes`, a multiple of 4, and one; a path with 17 or 33 at least where
    fewer are too few for two thirds of the reference windows, and with 17 at least in a network with kinks, such as
    relu's, to find them. Where more nodes do not reach the tolerance, a part is divided.
    """

    tolerance: float = 1e-3  # largest residual and error, in standard deviations of the output on the reference windows
    path_nodes: int = PATH_NODES
    halvings: int = 20  # most of a part; with 0, every path has just `path_nodes`

    def __post_init__(self) -> None:
        if not 0 < self.tolerance <= MAX_TOLERANCE:
            raise DataError.at(
                "tolerance", f"must be above 0, at most {MAX_TOLERANCE:g}, but is {quote(self.tolerance)}"
            )
        check_lowest("halvings", self.halvings, 0)
        if self.path_nodes < 5 or self.path_nodes % 4 != 1:
            message = f"must be a multiple of 4 and one, such as 17, but is {self.path_nodes}"
            raise DataError.at("path_nodes", message)


@dataclass(frozen=True, repr=False, eq=False)
class Ledger:
    """Contributions to the forecasts of one output for n windows, in the target's unit.

    Completeness: the contributions of a window sum to its prediction minus the baseline's, up to its residual.

    Attributes:
        output, features: their names.
        unit: of predictions and contributions; None if unknown.
        predictions: F(x), (n,).
        baseline_prediction: F(x0); for ``reference`` the mean over the baselines.
        baseline: x0, (lookback, n_features), original units; for ``reference`` the mean of the baselines.
        contributions: (n, n_features), the signed sum over the steps.
        steps: (n, lookback, n_features), oldest step first.
        layers: contributions of all nodes and edges, in the order input, front, lstm (or gru, or cell), head, output; a
            front edge is summed over the steps. Without the flow only input and output.
        error: largest estimated error of any contribution of `detail`, (n,), not below the residual.
        residual: largest of |layer sum - (F(x) - F(x0))| and of |in - out| at a KAN node (convergence delta), (n,).
        tolerance: accepted error and residual.
        converged: whether both are within the tolerance, and no node jumps along the path, (n,).
        path_nodes: points at which the network was evaluated along the path, (n,).
        detail: what `error` is of: ``features``; their ``steps`` too; all nodes and edges as well, ``flow``; or
            also ``links``, the edges from features (or the last nodes of a front) to the units of a recurrent chain.
        standard_error: of each contribution, (n, n_features), for the baseline ``reference``; else None.
    """

    output: str
    unit: str | None
    features: tuple[str, ...]
    predictions: Array
    baseline_prediction: float
    baseline: Array
    contributions: Array
    steps: Array
    layers: tuple[LedgerLayer, ...]
    error: Array
    residual: Array
    tolerance: float
    converged: NDArray[np.bool_]
    path_nodes: NDArray[np.int64]
    detail: Detail
    standard_error: Array | None = None

    def __len__(self) -> int:
        return len(self.predictions)


def explain_windows(
    model: Forecaster,
    windows: Tensor,
    output: int,
    baseline: Baselines | None = None,
    options: LedgerOptions | None = None,
    detail: Detail = "flow",
) -> Ledger:
    """The ledger of one output, by its number; see `explain_outputs`."""
    return explain_outputs(model, windows, [output], baseline, options, detail)[0]


def explain_outputs(
    model: Forecaster,
    windows: Tensor,
    outputs: Sequence[int],
    baseline: Baselines | None = None,
    options: LedgerOptions | None = None,
    detail: Detail = "flow",
) -> list[Ledger]:
    """The ledgers of outputs, by their numbers, for windows (n, lookback, n_features) in model units.

    They share passes of the network.

    The baseline is ``mean`` by default. Of `ReferenceBaselines`, the contributions are means over the baselines,
    `residual`, `error` and `path_nodes` are the largest, and `converged` holds if all do.

    Raises:
        DataError: there is no window, or the baseline cannot be used.
        UnknownNameError: a detail, or a feature in the baseline, that does not exist.
        NonFiniteError: a prediction, a residual or an error is not finite.
    """
    if not len(windows):
        raise DataError("windows is empty")
    refuse_unknown("detail", detail, get_args(Detail))
    starts, options = baseline_windows(model, baseline or Baseline()), options or LedgerOptions()
    of_starts = [_explain_from(model, windows, outputs, start, options, detail) for start in tracked(starts)]
    if not isinstance(baseline, ReferenceBaselines):
        return of_starts[0]
    return [_average(ledgers) for ledgers in zip(*of_starts, strict=True)]


def find_incomplete(ledger: Ledger, output_std: float) -> NDArray[np.bool_]:
    """Whether a window's residual is above both F(x) - F(x0) and the output's deviation on the reference, (n,)."""
    return ledger.residual > np.maximum(np.abs(ledger.predictions - ledger.baseline_prediction), output_std)


def sum_groups(contributions: Array, groups: Iterable[Sequence[int]]) -> Array:
    """The contribution of each group of features, which are given by numbers, (..., n_features) -> (..., n_groups)."""
    return np.stack([contributions[..., list(members)].sum(axis=-1) for members in groups], axis=-1)


def _average(ledgers: Sequence[Ledger]) -> Ledger:
    """Expected gradients, with the standard error of each feature's mean contribution."""

    def of(name: str) -> Array:
        return np.array([getattr(each, name) for each in ledgers])  # (n_baselines, ...)

    steps: Array = of("steps").mean(axis=0)
    return replace(
        ledgers[0],
        baseline=of("baseline").mean(axis=0),
        baseline_prediction=float(of("baseline_prediction").mean()),
        contributions=steps.sum(axis=1),
        steps=steps,
        layers=map_arrays(lambda *arrays: np.mean(arrays, axis=0), *(each.layers for each in ledgers)),
        **{name: of(name).max(axis=0) for name in ("residual", "error", "path_nodes")},
        converged=np.asarray(of("converged").all(axis=0)),
        standard_error=of("contributions").std(axis=0, ddof=1) / np.sqrt(len(ledgers)),
    )


def _explain_from(
    model: Forecaster, windows: Tensor, outputs: Sequence[int], start: Array, options: LedgerOptions, detail: Detail
) -> list[Ledger]:
    """The ledgers from one baseline (lookback, n_features), original units."""
    scaled_start = model.to_model_units(start[None], "baseline")[0]
    n, whole = len(windows), list[Integrals[Contributions]]()
    for batch in tracked(np.split(np.arange(n * len(outputs)), range(BATCH, n * len(outputs), BATCH))):
        of = np.array(outputs)[batch // n]
        whole.append(_integrate(model, windows[torch.from_numpy(batch % n)], of, scaled_start, options, detail))
    integrals = concatenate(whole)
    rows = [slice(first, first + n) for first in range(0, n * len(outputs), n)]
    of_outputs = [take(integrals, of) for of in rows] if len(rows) > 1 else [integrals]
    return [
        _write_ledger(model, output, of_output, start, options, detail)
        for output, of_output in zip(outputs, of_outputs, strict=True)
    ]


def _write_ledger(
    model: Forecaster,
    output: int,
    integrals: Integrals[Contributions],
    start: Array,
    options: LedgerOptions,
    detail: Detail,
) -> Ledger:
    """The ledger of an output, in the target's unit, from integrals in model units."""
    scale, mean = float(model.scaling.output_scale[output]), float(model.scaling.output_mean[output])
    residual, error = integrals.residual * scale, integrals.error * scale
    contributions = map_arrays(lambda values: values * scale, integrals.values._replace(places=None))
    predictions = (integrals.values.start + integrals.values.change) * scale + mean
    for values in (predictions, residual, error):
        refuse_non_finite_outputs(values)
    output_std = float(model.output_std[output])
    layers = path.list_layers(model.network, output, contributions)
    return Ledger(
        output=model.config.outputs[output],
        unit=model.config.target_of(output).unit,
        features=model.config.feature_names,
        predictions=predictions,
        baseline_prediction=float(integrals.values.start[0]) * scale + mean,
        baseline=start,
        contributions=contributions.steps.sum(axis=1),
        steps=contributions.steps,
        layers=path.add_places(model.network, layers, integrals.values.places),
        error=error,
        residual=residual,
        tolerance=options.tolerance * output_std,
        converged=integrals.within(options.tolerance * (output_std / scale)),
        path_nodes=integrals.n_nodes,
        detail=detail,
    )


def _integrate(
    model: Forecaster, windows: Tensor, of: NDArray[np.int64], start: Tensor, options: LedgerOptions, detail: Detail
) -> Integrals[Contributions]:
    """Contributions in model units, computed in the model's type, and in float64 what float32 cannot hold.

    `of` is the output that is explained of each window, (n,).
    """
    spread, has_kinks = _spread_of(model, of), model.config.has_kinks
    largest = torch.maximum(windows.abs(), start.abs())

    def beyond(times: float) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (largest > times * model.reference.magnitude).flatten(1).any(dim=1).numpy()
        return found  # (n,)

    is_far = beyond(FAR)
    share = np.where(is_far, FAR_SHARE, np.where(beyond(OUTSIDE), OUTSIDE_SHARE, 1))
    accepted = options.tolerance * spread * share

    def integrate(
        network: FrozenNetwork, chosen: NDArray[np.bool_], dtype: torch.dtype, halvings: int
    ) -> Integrals[Contributions]:
        few, found = take(windows, chosen).to(dtype), None
        outputs, spreads, tolerances = of[chosen], spread[chosen], accepted[chosen]
        n_nodes = np.full(len(few), options.path_nodes)
        if halvings:
            usual = USUAL_NODES if has_kinks else _usual_nodes(model, outputs, detail)
            n_nodes = np.maximum(n_nodes, usual)
        done = np.zeros(0, dtype=np.int64)
        for n in np.unique(n_nodes).tolist():
            at = np.flatnonzero(n_nodes == n)
            asked = few[torch.from_numpy(at)], start.to(dtype), outputs[at], spreads[at], detail, n
            walk = Walk(network, model.node_ranges, *asked, options.path_nodes, halvings)
            walked = walk.explain(tolerances[at])
            done, found = np.append(done, at), walked if found is None else concatenate([found, walked])
        assert found is not None
        return found if len(few) == 1 else take(found, np.argsort(done))

    # A path far from the data: rounding its points to float32 moves gates and nodes. No estimate sees this error, since
    # the rules agree on the rounded points, and sums hold there too.
    if windows.dtype == torch.float64 or options.tolerance < FLOAT32_TOLERANCE or is_far.all():
        return integrate(model.frozen_float64, np.ones_like(is_far), torch.float64, options.halvings)
    with progress_share(0.6):  # the rest may be windows that need float64
        near = integrate(model.frozen, ~is_far, windows.dtype, min(options.halvings, FLOAT32_HALVINGS))
    converged, tried, again = near.within(accepted[~is_far]), np.zeros(len(windows), dtype=np.int64), is_far.copy()
    tried[~is_far], again[~is_far] = near.n_nodes, ~converged
    if not again.any():
        return near
    far = integrate(model.frozen_float64, again, torch.float64, options.halvings)
    far = far._replace(n_nodes=far.n_nodes + tried[again])
    return path.merge_rows(again, far, take(near, converged))


def _spread_of(model: Forecaster, of: NDArray[np.int64]) -> Array:
    """Standard deviations of outputs on the reference windows, model units, (n,)."""
    spread: Array = np.asarray(model.output_std)[of] / np.asarray(model.scaling.output_scale)[of]
    return spread


def _usual_nodes(model: Forecaster, of: NDArray[np.int64], detail: Detail) -> NDArray[np.int64]:
    """With how many nodes a path to each of some outputs starts, (n,)."""

    @cache
    def find_usual_nodes() -> dict[int, int]:
        few, mean = spread_windows(model, N_TRIED), scaled_baselines(model)[0]
        usual, left = dict[int, int](), np.unique(of)
        for n_nodes in (PATH_NODES, USUAL_NODES):
            above = []
            for outputs in np.split(left, range(at_once := max(1, BATCH // len(few)), len(left), at_once)):
                asked, spread = np.repeat(outputs, len(few)), np.repeat(_spread_of(model, outputs), len(few))
                windows = few.repeat(len(outputs), 1, 1)
                options = detail, n_nodes, n_nodes, 0
                walk = Walk(model.frozen, model.node_ranges, windows, mean, asked, spread, *options)
                accepted = LedgerOptions.tolerance * spread
                above.append((walk.explain(accepted).error > accepted).reshape(len(outputs), -1).mean(axis=1))
            usual |= dict.fromkeys(left.tolist(), n_nodes)
            left = left[np.concatenate(above) > MOST]
            if not len(left):
                return usual
        return usual | dict.fromkeys(left.tolist(), MORE_NODES)

    def known(output: int) -> int:
        return model.derived.get(("nodes", output, detail), lambda: find_usual_nodes()[output])

    outputs, places = np.unique(of, return_inverse=True)
    found: NDArray[np.int64] = np.array([known(output) for output in outputs.tolist()])[places]
    return found
