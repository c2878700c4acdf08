"""Every explanation, report and picture of the smallest models is finite and computed without warnings."""

from __future__ import annotations

import warnings
from dataclasses import fields, is_dataclass
from functools import cache

import numpy as np
import pytest
import torch
from factories import make_model

from kanmodel.attribution.baseline import Baseline, ReferenceBaselines
from kanmodel.attribution.effects import measure_interactions
from kanmodel.attribution.ledger import explain_windows
from kanmodel.attribution.profiles import profile_nodes
from kanmodel.forecaster import Forecaster
from kanmodel.formula.symbolic import suggest_edge_formulas
from kanmodel.report.faithfulness import compare_baselines, measure_faithfulness
from kanmodel.report.report import write_report
from kanmodel.show.edge import draw_edge
from kanmodel.show.network import draw_topology
from kanmodel.structure.ablation import extract_subnetwork, measure_size
from kanmodel.structure.curves import sample_edges
from kanmodel.structure.importance import measure_importance, permute_features
from kanmodel.structure.pruning import PruningRule, Thresholds, prune_by_rule, prune_network, trace_fidelity
from kanmodel.structure.scores import MIN_INPUTS, score_layers
from kanmodel.structure.topology import build_topology

MODELS = {
    "one feature": {"n_features": 1},
    "one step": {"lookback": 1},
    "one unit": {"hidden_size": 1},
    "one hidden node": {"n_hidden": 1},
    "one interval": {"grid_size": 1, "spline_order": 0},
    "one of all": {"n_features": 1, "lookback": 1, "hidden_size": 1, "n_hidden": 1, "grid_size": 1},
    "one window": {"n_reference": 1},
    "one window of one feature": {"n_reference": 1, "n_features": 1},
    "two windows": {"n_reference": 2},
    "too few windows for scores": {"n_reference": MIN_INPUTS - 1},
    "just enough windows": {"n_reference": MIN_INPUTS},
    "one window more": {"n_reference": MIN_INPUTS + 1},
    "no targets": {"with_targets": False, "n_features": 1},
}


@cache
def small(shape, name):
    model = make_model(shape, **{"n_features": 3, "lookback": 3, "n_reference": 130} | MODELS[name])
    importance = measure_importance(model, 0)
    return model, importance, build_topology(model, importance, PruningRule())


def explain_with(model, *_):
    return [explain_windows(model, model.reference.scaled, 0, Baseline(kind)) for kind in ("mean", "zero")]


def several_references(model, *_):
    return (
        explain_windows(model, model.reference.scaled[:2], 0, ReferenceBaselines(2))
        if len(model.reference.scaled) > 1
        else None
    )


def agreements(model, importance, _):
    return compare_baselines(model, importance) if len(model.reference.scaled) > 1 else None


def rules(model, importance, _):
    some = [PruningRule(fidelity=fidelity, fill=fill) for fidelity in (0.0, 0.9, 1.0) for fill in ("mean", "zero")]
    if len(model.reference.scaled) >= MIN_INPUTS:
        some.append(PruningRule(thresholds=Thresholds()))
    return [(prune_by_rule(model, importance, rule), rule) for rule in some]


def extracts(model, importance, _):
    smaller = extract_subnetwork(model, [importance], PruningRule())
    return smaller.reference_outputs, smaller.metrics, measure_size(smaller.network)


def prunes(model, importance, topology):
    network = prune_network(model, prune_by_rule(model, importance, PruningRule()))
    return network(model.reference.scaled)


def scores(model, *_):
    enough = len(model.reference.scaled) >= MIN_INPUTS
    return score_layers(model.network.stages["head"], model.network.encode(model.reference.scaled)) if enough else None


def curves(model, _, topology):
    return [sample_edges(model, topology.kan_edges, 5, span) for span in ("support", "reference", "grid")]


def report(model, importance, topology):
    written = write_report(model, importance, topology)
    assert "nan" not in written.markdown().replace("`", " ").split()
    return written.findings


def draw_network(model, _, topology):
    kept = sample_edges(model, [edge for edge in topology.kan_edges if edge.kept], 5)
    for color in ("score", "contribution"):
        draw_topology(topology, curves=kept, color=color)
    draw_topology(topology, curves=sample_edges(model, topology.kan_edges, 5), pruned=False)


def draw_edges(model, _, topology):
    for curve in sample_edges(model, topology.kan_edges, 5, "reference"):
        draw_edge(curve, output="y", unit="K")


OPERATIONS = {
    "importance": lambda model, importance, topology: importance,
    "attributions": lambda model, importance, topology: importance.features,
    "ledgers": explain_with,
    "expected": several_references,
    "agreement": agreements,
    "topology": lambda model, importance, topology: topology,
    "pruning": rules,
    "pruned network": prunes,
    "fidelity curve": lambda model, importance, topology: trace_fidelity(model, importance),
    "subnetwork": extracts,
    "scores": scores,
    "curves": curves,
    "formulas": lambda model, importance, topology: [suggest_edge_formulas(model, e) for e in topology.kan_edges[:2]],
    "faithfulness": lambda model, importance, topology: measure_faithfulness(model, 0),
    "interactions": lambda model, importance, topology: measure_interactions(model, 0),
    "permutation": lambda model, importance, topology: permute_features(model, 0, 0),
    "profiles": lambda model, importance, topology: profile_nodes(model),
    "report": report,
    "picture of the network": draw_network,
    "picture of an edge": draw_edges,
}


def check_finite(value, path=""):
    """Raises if a number in a result is not finite, at any depth."""
    if isinstance(value, Forecaster | str | bytes | bool) or value is None:
        return
    if isinstance(value, torch.Tensor):
        value = value.detach().double().numpy()
    if isinstance(value, np.ndarray | float | int):
        assert np.isfinite(value).all(), path
    elif is_dataclass(value):
        for field in fields(value):
            check_finite(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_finite(item, f"{path}[{key}]")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            check_finite(item, f"{path}[{place}]")


MORE = pytest.mark.thorough("every operation for fifteen more models")


@pytest.mark.parametrize(
    ("shape", "name"),
    [pytest.param("lstm", name, marks=() if name in ("one of all", "one window") else MORE) for name in MODELS]
    + [
        pytest.param(shape, name, marks=() if (shape, name) == ("head", "one of all") else MORE)
        for shape in ("head", "front")
        for name in ("one of all", "one window of one feature", "no targets")
    ],
)
def test_small_models(shape, name):
    """Each operation gives finite numbers without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = small(shape, name)
        for operation, compute in OPERATIONS.items():
            check_finite(compute(*found), operation)
