"""The findings of a report: the numbers that answer common questions about a model.

They are data; `kanmodel.prose` has the sentences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.alternatives.effects import Effects, each_feature, measure_effects
from kanmodel.explain.functions.curves import CurveShape, EdgeCurve, sample_edges
from kanmodel.explain.importance.attributions import REDUNDANT_CORRELATION, Attribution, Verdict, attribute_features
from kanmodel.explain.importance.bootstrap import CONFIDENCE
from kanmodel.explain.importance.faithfulness import Faithfulness, measure_faithfulness
from kanmodel.explain.importance.global_importance import ImportanceEstimates
from kanmodel.explain.importance.groups import GroupAttribution
from kanmodel.explain.importance.interactions import Interactions, measure_interactions
from kanmodel.explain.importance.ranks import rank_correlation
from kanmodel.explain.paths.baseline import Baseline
from kanmodel.explain.structure.ids import READOUT_KINDS
from kanmodel.explain.topology.construction import OPACITY_BETA
from kanmodel.explain.topology.graph import NetworkGraph, TopologyEdge

OUTSIDE = 0.05  # share of an edge's inputs beyond its grid from which it is named
NARROW = 0.5  # share of the grid's core interval that the support must cover not to count as narrow
INNER = (*READOUT_KINDS, "front", "head")  # kinds of nodes
N_EFFECTS = 128  # reference windows, taken evenly, on which features are removed and stand alone
N_DISAGREEMENTS = 3  # edges that score and contribution rank differently, which are named

FindingId = Literal["sparsity", "features", "independence", "opacity", "depth", "shapes", "trust"]
Evidence = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """The numbers that answer one question.

    Attributes:
        id: which question.
        evidence: every number of the answer, and those behind it, by name; JSON values.
    """

    id: FindingId
    evidence: Mapping[str, Any]


def collect_findings(
    model: LoadedModel,
    importance: ImportanceEstimates,
    topology: NetworkGraph,
    groups: Sequence[GroupAttribution] = (),
) -> tuple[Finding, ...]:
    """The seven findings on one output of a model.

    Args:
        model: the model.
        importance: its contributions.
        topology: its graph, pruned by fidelity.
        groups: the rows of its groups.
    """
    attributions = attribute_features(model, importance)
    interactions = measure_interactions(model, importance.output)
    effects = _measure_effects(model, importance.output)
    reference = vars(model.reference_span) | {
        "unlike_training": [each.feature for each in model.reference_span.unlike_training],
        "n_unlike": len(model.reference_span.unlike_training),
    }
    faithfulness = measure_faithfulness(model, importance.output)
    return (
        Finding("sparsity", _sparsity(topology)),
        Finding("features", _features(attributions, groups)),
        Finding("independence", _independence(attributions, interactions, _acting_together(model, effects))),
        Finding("opacity", _opacity(topology)),
        Finding("depth", _depth(topology)),
        Finding("shapes", _shapes(sample_edges(model, [edge for edge in topology.kan_edges if edge.kept]))),
        Finding("trust", _trust(importance, topology, faithfulness) | {"reference": reference}),
    )


def _sparsity(topology: NetworkGraph) -> Evidence:
    edges = topology.kan_edges
    inner = [node for node in topology.nodes if node.kind in INNER]
    idle = [node.id for node in inner if not node.kept]
    return asdict(topology.fidelity) | {
        "masked": sum(edge.masked for edge in edges),
        "edges": len(edges),
        "kept": sum(edge.kept for edge in edges),
        "inner_nodes": len(inner),
        "n_unconnected": len(idle),
        "unconnected": idle,
    }


def _features(attributions: Sequence[Attribution], groups: Sequence[GroupAttribution]) -> Evidence:
    found = Counter(row.verdict for row in attributions)
    return {
        "verdicts": {verdict: found[verdict] for verdict in get_args(Verdict)},
        "shares": {row.name: row.share for row in attributions},  # most important first
        "disconnected": [row.name for row in attributions if not row.connected],
        "groups": {
            row.name: {"features": list(row.members), "share": row.share, "verdict": row.verdict}
            for row in groups
            if row.members != (row.name,)
        },
    }


def _measure_effects(model: LoadedModel, output: int) -> Effects:
    reference = model.reference.windows
    windows = reference[torch.linspace(0, len(reference) - 1, min(N_EFFECTS, len(reference))).long()]
    return measure_effects(model, windows, output, Baseline(), each_feature(model.config))


def _acting_together(model: LoadedModel, effects: Effects) -> list[dict[str, Any]]:
    """All features, those first whose effects with and without the others differ most, on average over windows."""
    means = {
        name: np.abs(values).mean(axis=0).tolist()
        for name, values in (
            ("removed", effects.removed),
            ("alone", effects.alone),
            ("together", effects.together),
        )
    }
    rows = [
        {"feature": feature, **{f"mean_abs_{name}": values[number] for name, values in means.items()}}
        for number, feature in enumerate(model.config.feature_names)
    ]
    return sorted(rows, key=lambda row: -row["mean_abs_together"])


def _independence(
    attributions: Sequence[Attribution], interactions: Interactions, acting_together: list[dict[str, Any]]
) -> Evidence:
    pairs: dict[tuple[str, ...], float] = {}
    for row in attributions:
        for partner in row.redundant_with:
            pairs.setdefault(tuple(sorted((row.name, partner.name))), partner.correlation)
    ordered = sorted(pairs.items(), key=lambda pair: -abs(pair[1]))
    return {
        "threshold": REDUNDANT_CORRELATION,
        "n_correlated": len(ordered),
        "correlated": [{"features": list(names), "correlation": correlation} for names, correlation in ordered],
        "confidence_percent": round(100 * CONFIDENCE),
        "interactions": [asdict(interaction) for interaction in interactions.pairs],
        "features": interactions.n_features,
        "screened_pairs": interactions.n_screened,
        "screening_windows": interactions.screening_windows,
        "acting_together": acting_together,
    }


def _opacity(topology: NetworkGraph) -> Evidence:
    edges = [edge for edge in topology.kan_edges if edge.scores is not None]
    evidence: Evidence = {"beta": OPACITY_BETA, "edges": len(edges)}
    if edges:
        backward = np.array([edge.scores["backward"] for edge in edges if edge.scores])
        evidence["rank_correlation"] = rank_correlation(backward, np.array([edge.contribution for edge in edges]))
    return evidence


def _depth(topology: NetworkGraph) -> Evidence:
    inner = [node for node in topology.nodes if node.kept and node.profile and node.kind in INNER]
    inner.sort(key=lambda node: -(node.contribution or 0.0))
    return {"profiles": {node.id: dict(node.profile) for node in inner}}


def _shapes(curves: Sequence[EdgeCurve]) -> Evidence:
    found = Counter(curve.shape for curve in curves)
    return {
        "kept": len(curves),
        "shapes": {shape: found[shape] for shape in get_args(CurveShape)},
        "linear_and_narrow": sum(c.shape == "linear" and (c.support.coverage or 1.0) < NARROW for c in curves),
        "narrow_percent": round(100 * NARROW),
        "line_r2": {_name(curve.edge): curve.line.r2 for curve in curves},
    }


def _trust(importance: ImportanceEstimates, topology: NetworkGraph, faithfulness: Sequence[Faithfulness]) -> Evidence:
    ledger, share = importance.ledger, importance.share
    outside = {_name(edge): edge.outside_grid for edge in topology.kan_edges if (edge.outside_grid or 0.0) > OUTSIDE}
    return {
        "windows": len(ledger.predictions),
        "converged_percent": round(100 * float(ledger.converged.mean()), 1),
        "largest_residual": float(ledger.residual.max()),
        "tolerance": ledger.tolerance,
        "confidence_percent": round(100 * CONFIDENCE),
        "least_certain_share": list(share.bounds(int(np.argmax(share.high - share.low)))),
        "outside_percent": round(100 * OUTSIDE),
        "n_outside": len(outside),
        "outside_grid": outside,
        "disagreements": _disagreements(topology),
        "faithfulness": [asdict(row) for row in faithfulness],
    }


def _disagreements(topology: NetworkGraph) -> list[dict[str, Any]]:
    """The edges that score and contribution rank most differently."""
    edges = [edge for edge in topology.kan_edges if edge.scores is not None]
    by_score = _ranks([(edge.scores or {})["backward"] for edge in edges])
    by_contribution = _ranks([edge.contribution or 0.0 for edge in edges])
    ranks = [*zip(edges, by_score, by_contribution, strict=True)]
    ranks.sort(key=lambda rank: -abs(rank[1] - rank[2]))
    return [
        {"edge": _name(edge), "rank_by_score": score, "rank_by_contribution": contribution}
        for edge, score, contribution in ranks[:N_DISAGREEMENTS]
        if score != contribution
    ]


def _ranks(values: Sequence[float]) -> list[int]:
    """The rank of each value, 1 for the largest, equal ones in their order."""
    ranks = [0] * len(values)
    for rank, number in enumerate(sorted(range(len(values)), key=lambda number: -values[number]), start=1):
        ranks[number] = rank
    return ranks


def _name(edge: TopologyEdge) -> str:
    return f"{edge.source} -> {edge.target}"
