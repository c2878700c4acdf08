"""Global importance: mean magnitudes of contributions over the reference windows, with bootstrap intervals.

Computed once per checkpoint and output: it takes as long as explaining every reference window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.importance.bootstrap import Bootstrap, Estimate
from kanmodel.explain.importance.permutation import permute_features
from kanmodel.explain.importance.profiles import profile_nodes
from kanmodel.explain.paths.ledger import Ledger, explain_windows
from kanmodel.scaling import Array

SEED = 0


@dataclass(frozen=True)
class ImportanceEstimates:
    """Mean |contribution| to one output over the reference windows, baseline ``mean``, in the target's unit.

    A feature's contribution to a window is its signed sum over the steps, a step's the signed sum over the features; a
    front edge's is summed over the steps too.

    Attributes:
        output: number of the output.
        features: (n_features,).
        mean_contribution: signed mean per feature, (n_features,).
        share: of all features' mean |contribution|, (n_features,).
        steps: (lookback,), oldest first.
        nodes: by (stage, layer) as in `Ledger.layers`, (n_nodes,).
        edges: by (stage, layer), (n_subnodes, n_in).
        permutation: growth of the mean absolute error when a feature's series are permuted between windows,
            (n_features,), the target's unit; None where targets are unknown. Of a large model it is measured on fewer
            of the reference windows, see `plan_permutations`.
        profiles: what each node stands for, (n_nodes, n_features), as `Profiles.shares` has it.
        profile_errors: the largest estimated error of a share of each node, (n_nodes,).
        ledger: the ledger of the reference windows.
    """

    output: int
    features: Estimate
    mean_contribution: Array
    share: Estimate
    steps: Estimate
    nodes: Mapping[tuple[str, int], Estimate]
    edges: Mapping[tuple[str, int], Estimate]
    permutation: Estimate | None
    profiles: Mapping[tuple[str, int], Array]
    profile_errors: Mapping[tuple[str, int], Array]
    ledger: Ledger


def measure_importance(model: LoadedModel, output: int) -> ImportanceEstimates:
    """The importance of everything for output number `output`; pauses between slices.

    Raises:
        NonFiniteError: the ledger of a reference window is not finite.
    """
    ledger = explain_windows(model, model.reference.windows, output)
    bootstrap = Bootstrap(len(ledger.predictions))
    sizes = np.abs(ledger.features)
    growth = permute_features(model, output, SEED)
    profiles = profile_nodes(model)
    nodes = {(layer.stage, layer.layer): layer.nodes for layer in ledger.layers}
    edges = {(layer.stage, layer.layer): layer.edges for layer in ledger.layers}
    return ImportanceEstimates(
        output=output,
        features=bootstrap.mean(sizes),
        mean_contribution=ledger.features.mean(axis=0),
        share=bootstrap.share(sizes),
        steps=bootstrap.mean(np.abs(ledger.steps.sum(axis=2))),
        nodes={place: bootstrap.mean(np.abs(values)) for place, values in nodes.items() if values is not None},
        edges={place: bootstrap.mean(np.abs(values)) for place, values in edges.items() if values is not None},
        permutation=None if growth is None else Bootstrap(len(growth)).mean(growth),
        profiles=profiles.shares,
        profile_errors=profiles.errors,
        ledger=ledger,
    )
