"""Formulas of a model's edges: the exact one where it is known, and the best fit of every library function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.functions.library import FUNCTIONS
from kanmodel.explain.functions.symbolic import Candidate, suggest_formulas
from kanmodel.explain.topology.graph import TopologyEdge
from kanmodel.network.layer import KANLayer, LayerTrace
from kanmodel.scaling import Array

N_SAMPLES = 128


def suggest_edge_formulas(model: LoadedModel, edges: Sequence[TopologyEdge]) -> list[list[Candidate]]:
    """The best formula of each function for each edge, best first, on the reference inputs between p01 and p99.

    Where the function of an edge is known, it comes first; a line is among the candidates. An edge after a layer norm
    has no formulas, since it is not a function of a single node.

    Args:
        model: the model.
        edges: KAN edges of its topology.
    """
    with torch.no_grad():
        stages = model.network.trace(model.reference.windows).stages
    layers = [model.network.stages[edge.stage][edge.layer] for edge in edges]
    return [
        [] if layer.config.mixes else _suggest(layer, stages[edge.stage][edge.layer], edge)
        for edge, layer in zip(edges, layers, strict=True)
    ]


def _suggest(layer: KANLayer, trace: LayerTrace, edge: TopologyEdge) -> list[Candidate]:
    found = suggest_formulas(*sample_edge_data(trace, edge))
    exact = find_exact_formula(layer, edge.i, edge.j)
    if exact is None:
        return found
    return [exact, *(candidate for candidate in found if candidate.function != exact.function)]


def find_exact_formula(layer: KANLayer, i: int, j: int) -> Candidate | None:
    """The function of an edge with only a symbolic part, only a base, or no part; None for a spline or several parts.

    Args:
        layer: the layer that the edge is of.
        i: number of the node that it leaves.
        j: number of the sub-node that it enters.
    """
    config = layer.config
    weights = layer.weights()[j, i]
    base = 0.0 if layer.scale_base is None else float(layer.mask[j, i] * layer.scale_base[j, i])
    slope = base if config.base == "identity" else 0.0
    if config.basis.is_line:
        slope += float(weights[0])
    symbolic = [
        (held.function, float(layer.symbolic_mask[number]), layer.symbolic_affine[number].tolist())
        for number, held in enumerate(config.symbolic)
        if (held.i, held.j) == (i, j) and layer.symbolic_mask[number] != 0
    ]
    curved = base if config.base != "identity" else 0.0  # a base that is no line
    if config.before or (weights.any() and not config.basis.is_line) or len(symbolic) + bool(slope) + bool(curved) > 1:
        return None
    if symbolic:
        ((name, scale, (a, b, c, d)),) = symbolic
        return Candidate(name, a, b, scale * c, scale * d, 1.0, FUNCTIONS[name].complexity)
    name = config.base if curved else "x"
    if name not in FUNCTIONS:
        return None
    return Candidate(name, 1.0, 0.0, curved or slope, 0.0, 1.0, FUNCTIONS[name].complexity)


def sample_edge_data(trace: LayerTrace, edge: TopologyEdge) -> tuple[Array, Array]:
    """Inputs and outputs of an edge, evenly by rank between the 1st and the 99th percentile of its inputs.

    Args:
        trace: what the reference windows send through the layer of the edge.
        edge: a KAN edge.

    Returns:
        Two arrays of at most `N_SAMPLES`, inputs ascending, model units.
    """
    x = trace.inputs[:, edge.i].double().numpy()
    y = trace.edges[:, edge.j, edge.i].double().numpy()
    order = np.argsort(x, kind="stable")
    ranks = np.linspace(0.01, 0.99, min(N_SAMPLES, len(x))) * (len(x) - 1)
    chosen = order[np.unique(ranks.round().astype(int))]
    return x[chosen], y[chosen]
