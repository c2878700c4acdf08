"""Expected gradients: ledgers averaged over several baselines.

Source: Erion et al. 2019, arXiv 1906.10670; the baselines are reference windows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.computing import pause
from kanmodel.errors import DataError
from kanmodel.explain.paths.baseline import Baseline
from kanmodel.explain.paths.layers import LedgerLayer
from kanmodel.explain.paths.ledger import Ledger, LedgerOptions, explain_windows
from kanmodel.scaling import Array

DEFAULT_COUNT = 16


@dataclass(frozen=True)
class ReferenceBaselines:
    """Reference windows as baselines, over which the ledger is averaged.

    Attributes:
        count: number of windows drawn without replacement.
        seed: of the draw.
    """

    count: int = DEFAULT_COUNT
    seed: int = 0


def explain_expected(
    model: LoadedModel,
    windows: Tensor,
    output: int,
    count: int = DEFAULT_COUNT,
    seed: int = 0,
    options: LedgerOptions | None = None,
) -> Ledger:
    """The mean of the ledgers from `count` reference windows, drawn without replacement.

    Args:
        model: the model.
        windows: (n, lookback, n_features), model units.
        output: index of the output.
        count: number of baselines, from 2 to the number of reference windows.
        seed: of the draw.
        options: tolerance and path nodes of each ledger.

    Returns:
        Means of all entries; `residual`, `error` and `path_nodes` are the largest, `converged` holds if all do,
        `baseline` is the mean of the baselines, and `standard_error` is that of the mean contribution of each feature.

    Raises:
        DataError: `count` is out of range.
    """
    instances = draw_baselines(model, count, seed)
    ledgers: list[Ledger] = []
    for instance in instances:
        if ledgers:
            pause()
        ledgers.append(explain_windows(model, windows, output, Baseline("instance", instance=instance), options))
    features = np.stack([ledger.features for ledger in ledgers])  # (count, n, n_features)
    return replace(
        ledgers[0],
        baseline=instances.mean(axis=0),
        baseline_prediction=float(np.mean([ledger.baseline_prediction for ledger in ledgers])),
        steps=np.mean([ledger.steps for ledger in ledgers], axis=0),
        layers=tuple(_mean_layer(layers) for layers in zip(*(ledger.layers for ledger in ledgers), strict=True)),
        residual=np.max([ledger.residual for ledger in ledgers], axis=0),
        error=np.max([ledger.error for ledger in ledgers], axis=0),
        converged=np.all([ledger.converged for ledger in ledgers], axis=0),
        path_nodes=np.max([ledger.path_nodes for ledger in ledgers], axis=0),
        standard_error=features.std(axis=0, ddof=1) / np.sqrt(count),
    )


def draw_baselines(model: LoadedModel, count: int, seed: int = 0) -> Array:
    """Reference windows drawn without replacement, (count, lookback, n_features), original units.

    Raises:
        DataError: `count` is out of range.
    """
    available = len(model.reference.windows)
    if not 2 <= count <= available:
        message = f"must lie between 2 and {available}, the number of reference windows, but is {count}"
        raise DataError.at("baseline.reference", message)
    chosen = np.random.default_rng(seed).choice(available, count, replace=False)
    return model.scaling.features_to_original(model.reference.windows[chosen.tolist()])


def _mean_layer(layers: tuple[LedgerLayer, ...]) -> LedgerLayer:
    first = layers[0]
    return replace(
        first,
        nodes=None if first.nodes is None else _mean([layer.nodes for layer in layers]),
        edges=None if first.edges is None else _mean([layer.edges for layer in layers]),
    )


def _mean(arrays: list[Array | None]) -> Array:
    mean: Array = np.mean([array for array in arrays if array is not None], axis=0)
    return mean
