"""Formulas for edges of the head, compared with pykan's `suggest_symbolic` on the same edges and samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from table import Row, times_in_turn

from kanmodel.forecaster import Forecaster
from kanmodel.formula.symbolic import N_SAMPLES, suggest_edge_formulas
from kanmodel.network.bases import BSpline
from kanmodel.structure.edges import TopologyEdge
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule
from kanmodel.structure.topology import build_topology

try:
    from kan import KAN
except ImportError:
    KAN = None

N_EDGES = 3
ROUNDS = 3


def rows(model: Forecaster) -> Iterator[Row]:
    """The strongest edges that leave the head's inputs, one torch thread; ours includes the forward pass."""
    torch.set_num_threads(1)
    topology = build_topology(model, measure_importance(model, 0), PruningRule())
    edges = [edge for edge in topology.kan_edges if edge.stage == "head" and edge.layer == 0]
    for edge in sorted(edges, key=lambda edge: -(edge.contribution or 0.0))[:N_EDGES]:
        ours = partial(suggest_edge_formulas, model, edge)
        best = max(ours(), key=lambda candidate: candidate.r2)
        work = f"formulas of the edge {edge.source} to {edge.target}, {N_SAMPLES} samples"
        if KAN is None:
            (seconds,) = times_in_turn([ours], ROUNDS)
            yield Row(work, told(seconds, best.function, best.r2), "pykan is not installed")
            continue
        theirs = suggest_symbolic(model, edge)
        function, _, r2, _ = theirs()
        seconds, peer_seconds = times_in_turn([ours, theirs], ROUNDS)
        yield Row(
            work,
            told(seconds, best.function, best.r2),
            f"pykan 0.2.8 suggest_symbolic: {told(peer_seconds, function, float(r2))}",
            f"{np.median(peer_seconds) / np.median(seconds):.0f}x",
        )


def told(seconds: np.ndarray, function: str, r2: float) -> str:
    """The median and the best R2."""
    return f"{np.median(seconds) * 1e3:.1f} ms, best R2 {r2:.5f} ({function})"


def suggest_symbolic(model: Forecaster, edge: TopologyEdge) -> Callable[[], Any]:
    """pykan's search for one edge, by R2 alone, on the samples of `suggest_edge_formulas`."""
    warnings.filterwarnings("ignore", module="kan")
    inputs = model.network.encode(model.reference.scaled)
    order = inputs[:, edge.i].argsort(stable=True)
    ranks = np.linspace(0.01, 0.99, min(N_SAMPLES, len(inputs))) * (len(inputs) - 1)
    peer = as_pykan(model)
    with torch.no_grad():
        peer(inputs[order[np.unique(ranks.round().astype(int))]])
        return torch.no_grad()(partial(peer.suggest_symbolic, 0, edge.i, edge.j, verbose=False, weight_simple=0.0))


def as_pykan(model: Forecaster) -> Any:
    """The head as a pykan model, whose tensors over edges are (in, out)."""
    head, layers = model.network.head, model.config.head
    basis = layers[0].basis
    if not isinstance(basis, BSpline):
        raise TypeError("pykan has splines alone")
    width = [layers[0].n_in, *(layer.n_out for layer in layers)]
    peer = KAN(width=width, grid=basis.grid_size, k=basis.order, auto_save=False, seed=0)
    with torch.no_grad():
        for number, (layer, theirs) in enumerate(zip(head, peer.act_fun, strict=True)):
            theirs.grid.copy_(layer.grid)
            theirs.coef.copy_(layer.coef.transpose(0, 1))
            theirs.mask.copy_(layer.mask.T)
            theirs.scale_base.copy_(layer.scale_base.T)
            theirs.scale_sp.copy_(layer.scale_spline.T)
            for name in ("subnode_scale", "subnode_bias", "node_scale", "node_bias"):
                getattr(peer, f"{name}_{number}").copy_(getattr(layer, name))
        inputs = model.network.encode(model.reference.scaled)
        if not torch.allclose(peer(inputs), reduce(lambda x, layer: layer(x), head, inputs), atol=1e-4):
            raise RuntimeError("pykan's head does not give the forecasts of ours")
    return peer
