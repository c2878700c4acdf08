"""What matters over the reference windows: the mean size of the ledger's entries.

Computed once per checkpoint and output: it takes as long as explaining every reference window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.ledger import explain_windows
from kanmodel.explain.profiles import profile_nodes
from kanmodel.scaling import Array


@dataclass(frozen=True)
class Importance:
    """Mean |contribution| to one output over the reference windows, baseline ``mean``, in the target's unit.

    A feature's contribution to a window is its signed sum over the steps; a front edge's likewise.

    Attributes:
        output: number of the output.
        features: (n_features,).
        nodes: by (stage, layer) as in `Ledger.layers`, (n_nodes,).
        edges: by (stage, layer), (n_subnodes, n_in).
        profiles: what each node stands for, (n_nodes, n_features), as `profile_nodes` gives it.
        converged: share of the windows whose ledger is within the default tolerance.
    """

    output: int
    features: Array
    nodes: Mapping[tuple[str, int], Array]
    edges: Mapping[tuple[str, int], Array]
    profiles: Mapping[tuple[str, int], Array]
    converged: float


def measure_importance(model: LoadedModel, output: int) -> Importance:
    """The importance of everything for output number `output`.

    Raises:
        NonFiniteError: the ledger of a reference window is not finite.
    """
    ledger = explain_windows(model, model.reference.windows, output)
    nodes = {(layer.stage, layer.layer): layer.nodes for layer in ledger.layers}
    edges = {(layer.stage, layer.layer): layer.edges for layer in ledger.layers}
    return Importance(
        output=output,
        features=np.abs(ledger.features).mean(axis=0),
        nodes={place: np.abs(values).mean(axis=0) for place, values in nodes.items() if values is not None},
        edges={place: np.abs(values).mean(axis=0) for place, values in edges.items() if values is not None},
        profiles=profile_nodes(model),
        converged=float(ledger.converged.mean()),
    )
