"""Formulas for the edges of a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.symbolic import Candidate, suggest_formulas
from kanmodel.explain.topology import TopologyEdge
from kanmodel.network.layer import LayerTrace
from kanmodel.scaling import Array

N_SAMPLES = 128


def suggest_edge_formulas(model: LoadedModel, edges: Sequence[TopologyEdge]) -> list[list[Candidate]]:
    """The best formula of each function for each edge, best first, on the reference inputs between p01 and p99.

    None for an edge behind a layer norm, which is no function of one number.

    Args:
        model: the model.
        edges: KAN edges of its topology.
    """
    with torch.no_grad():
        stages = model.network.trace(model.reference.windows).stages
    layers = [model.network.stages[edge.stage][edge.layer] for edge in edges]
    return [
        [] if layer.config.mixes else suggest_formulas(*sample_edge_data(stages[edge.stage][edge.layer], edge))
        for edge, layer in zip(edges, layers, strict=True)
    ]


def sample_edge_data(trace: LayerTrace, edge: TopologyEdge) -> tuple[Array, Array]:
    """Inputs and outputs of an edge, evenly by rank between the 1st and the 99th percentile of its inputs."""
    x = trace.inputs[:, edge.i].double().numpy()
    y = trace.edges[:, edge.j, edge.i].double().numpy()
    order = np.argsort(x, kind="stable")
    ranks = np.linspace(0.01, 0.99, min(N_SAMPLES, len(x))) * (len(x) - 1)
    chosen = order[np.unique(ranks.round().astype(int))]
    return x[chosen], y[chosen]
