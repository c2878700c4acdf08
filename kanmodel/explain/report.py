"""The questions that people have before the picture of a KAN, answered with numbers that hold.

Each answer is a sentence or a few; every number in it is in its evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.functions.curves import EdgeCurve, Shape, sample_edges
from kanmodel.explain.importance.attributions import REDUNDANT_CORRELATION, Attribution, Verdict, attribute_features
from kanmodel.explain.importance.bootstrap import CONFIDENCE
from kanmodel.explain.importance.faithfulness import Faithfulness, measure_faithfulness
from kanmodel.explain.importance.global_importance import Importance
from kanmodel.explain.importance.interactions import Interactions, measure_interactions
from kanmodel.explain.importance.ranks import rank_correlation
from kanmodel.explain.structure.ids import READOUT_KINDS
from kanmodel.explain.topology.graph import OPACITY_BETA, Topology, TopologyEdge, TopologyNode
from kanmodel.network.config import RecurrentConfig
from kanmodel.pausing import Pause, go_on

OUTSIDE = 0.05  # share of an edge's inputs beyond its grid from which it is named
NARROW = 0.5  # share of the grid's core interval that the support must cover not to count as narrow
INNER = (*READOUT_KINDS, "front", "head")  # kinds of nodes
N_NAMED = 3  # features, nodes or pairs that a sentence names


@dataclass(frozen=True)
class Finding:
    """One question.

    Attributes:
        id: sparsity, features, independence, opacity, depth, shapes or trust.
        question: as people ask it.
        answer: in words.
        evidence: every number of the answer, and those behind it.
    """

    id: str
    question: str
    answer: str
    evidence: Mapping[str, Any]


def write_report(
    model: LoadedModel, importance: Importance, topology: Topology, pause: Pause = go_on
) -> tuple[Finding, ...]:
    """The seven findings on one output of a model.

    Args:
        model: the model.
        importance: its contributions.
        topology: its graph, pruned by fidelity.
        pause: called between slices.
    """
    attributions = attribute_features(model, importance)
    unit = model.config.target_of(importance.output).unit or "target units"
    return (
        _sparsity(topology, unit),
        _features(attributions, model.config.recurrent),
        _independence(attributions, measure_interactions(model, importance.output, pause), unit),
        _opacity(topology),
        _depth(topology),
        _shapes(sample_edges(model, [edge for edge in topology.kan_edges if edge.kept])),
        _trust(importance, topology, measure_faithfulness(model, importance.output, pause=pause)),
    )


def markdown(output: str, findings: Sequence[Finding]) -> str:
    """The findings as prose."""
    sections = [f"## {finding.question}\n\n{finding.answer}" for finding in findings]
    return "\n\n".join([f"# How the model forecasts `{output}`", *sections]) + "\n"


def _sparsity(topology: Topology, unit: str) -> Finding:
    edges, fidelity = topology.kan_edges, topology.fidelity
    inner = [node for node in topology.nodes if node.kind in INNER]
    idle = [node.id for node in inner if not node.kept]
    masked, kept = sum(edge.masked for edge in edges), sum(edge.kept for edge in edges)
    answer = f"No: {masked} of {len(edges)} edges are masked in the checkpoint; those a picture does not show are weak."
    if masked:
        answer = f"Yes, in part: {masked} of {len(edges)} edges are masked in the checkpoint."
    answer += f" {kept} suffice: with them alone the forecasts keep an R2 of {fidelity.r2:.3f} against the full model"
    if fidelity.mae is not None and fidelity.mae_full is not None:
        answer += f", and the mean absolute error goes from {fidelity.mae_full:.3g} to {fidelity.mae:.3g} {unit}"
    answer += f". {len(idle)} of {len(inner)} inner nodes then have no connection left."
    evidence = asdict(fidelity) | {"masked": masked, "edges": len(edges), "kept": kept}
    evidence |= {"inner_nodes": len(inner), "n_unconnected": len(idle), "unconnected": idle}
    return Finding("sparsity", "Has the network pruned itself?", answer, evidence)


def _features(attributions: Sequence[Attribution], recurrent: RecurrentConfig | None) -> Finding:
    found = Counter(row.verdict for row in attributions)
    verdicts = {verdict: found[verdict] for verdict in get_args(Verdict)}
    gone = [row.name for row in attributions if not row.connected]
    counts = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
    named = ", ".join(f"`{row.name}` ({_percent(row.share)})" for row in attributions[:N_NAMED])
    answer = f"By verdict the features are: {counts}. The largest shares of all contributions have {named}."
    if gone:
        answer += f" No path leads from {_names(gone)} to the output, so there the contribution is exactly 0."
    else:
        answer += " No feature is cut off from the output."
    if recurrent is not None:
        answer += (
            f" After {'an LSTM' if recurrent.cell == 'lstm' else 'a GRU'} the inputs of the KAN are hidden units, each"
            " a mixture of all features: a unit without connections says nothing about any one feature."
        )
    evidence = {"verdicts": verdicts, "shares": {row.name: row.share for row in attributions}, "disconnected": gone}
    return Finding("features", "Are features without connections unimportant?", answer, evidence)


def _independence(attributions: Sequence[Attribution], interactions: Interactions, unit: str) -> Finding:
    pairs: dict[tuple[str, ...], float] = {}
    for row in attributions:
        for partner in row.redundant_with:
            pairs.setdefault(tuple(sorted((row.name, partner.name))), partner.correlation)
    ordered = sorted(pairs.items(), key=lambda pair: -abs(pair[1]))
    answer = (
        "That can't be read off connections; two things must be kept apart. In the data, "
        f"{len(ordered)} pairs of features have a correlation of {REDUNDANT_CORRELATION} or more in magnitude"
    )
    if ordered:
        (a, b), correlation = ordered[0]
        answer += f", first of all `{a}` and `{b}` with {correlation:.3f}: a model may use either in the other's place"
    answer += ". "
    if interactions.pairs:
        strongest = interactions.pairs[0]
        (a, b), (low, high) = strongest.features, strongest.interval
        answer += (
            f"In the model, of {interactions.n_screened} pairs of its {interactions.n_features} features that were "
            f"screened on {interactions.screening_windows} windows, `{a}` and `{b}` interact most: removing both moves "
            f"the forecast by {strongest.strength:.3g} {unit} on average beyond what removing each does (a local "
            f"second difference; {round(100 * CONFIDENCE)} % interval {low:.3g} to {high:.3g})."
        )
    else:
        answer += "In the model there is a single feature, which interacts with no other."
    evidence = {
        "threshold": REDUNDANT_CORRELATION,
        "n_correlated": len(ordered),
        "correlated": [{"features": list(names), "correlation": correlation} for names, correlation in ordered],
        "confidence_percent": round(100 * CONFIDENCE),
        "interactions": [asdict(interaction) for interaction in interactions.pairs],
        "features": interactions.n_features,
        "screened_pairs": interactions.n_screened,
        "screening_windows": interactions.screening_windows,
    }
    return Finding("independence", "Are features without common connections independent?", answer, evidence)


def _opacity(topology: Topology) -> Finding:
    edges = [edge for edge in topology.kan_edges if edge.scores is not None]
    evidence: dict[str, Any] = {"beta": OPACITY_BETA, "edges": len(edges)}
    answer = f"A lower score, not a lower weight: opacity is tanh({OPACITY_BETA:.0f} x backward score)."
    if edges:
        backward = np.array([edge.scores["backward"] for edge in edges if edge.scores])
        agreement = rank_correlation(backward, np.array([edge.contribution for edge in edges]))
        evidence["rank_correlation"] = agreement
        answer += (
            f" Scores are magnitudes, blind to cancellation. Over the {len(edges)} edges, their order and that of the"
            f" contributions have a rank correlation of {agreement:.2f}."
        )
    else:
        answer += " This checkpoint has too few reference windows for scores."
    return Finding("opacity", "What does a lighter edge mean?", answer, evidence)


def _depth(topology: Topology) -> Finding:
    inner = [node for node in topology.nodes if node.kept and node.profile and node.kind in INNER]
    inner.sort(key=lambda node: -(node.contribution or 0.0))
    answer = "There is no inner node: the edges act on features."
    if inner:
        told = "; ".join(_tell_profile(node) for node in inner[:N_NAMED])
        answer = f"By what moves each node's own value. {told}."
    evidence = {"profiles": {node.id: dict(node.profile) for node in inner}}
    return Finding("depth", "How are layers read whose inputs are already transformed?", answer, evidence)


def _tell_profile(node: TopologyNode) -> str:
    parts = [f"{_percent(share)} `{name}`" for name, share in list(node.profile.items())[:N_NAMED]]
    return f"`{node.id}` is {', '.join(parts)}"


def _shapes(curves: Sequence[EdgeCurve]) -> Finding:
    found = Counter(curve.shape for curve in curves)
    shapes = {shape: found[shape] for shape in get_args(Shape)}
    narrow = sum(curve.shape == "linear" and (curve.support.coverage or 1.0) < NARROW for curve in curves)
    percent = round(100 * NARROW)
    answer = (
        f"Of the {len(curves)} edges that are kept, {shapes['linear']} are straight where the data lies and"
        f" {shapes['curved']} are curved; {shapes['flat']} are flat. In {shapes['base_only']} most of what passes lies"
        f" outside the grid, where only the base function acts. {narrow} of the straight ones see less than {percent} %"
        " of their grid: any smooth function is straight when looked at closely enough."
    )
    evidence = {
        "kept": len(curves),
        "shapes": shapes,
        "linear_and_narrow": narrow,
        "narrow_percent": percent,
        "line_r2": {_name(curve.edge): curve.line.r2 for curve in curves},
    }
    return Finding("shapes", "Why do most edges look like a straight line?", answer, evidence)


def _trust(importance: Importance, topology: Topology, faithfulness: Sequence[Faithfulness]) -> Finding:
    ledger, share = importance.ledger, importance.share
    outside = {_name(edge): edge.outside_grid for edge in topology.kan_edges if (edge.outside_grid or 0.0) > OUTSIDE}
    low, high = share.bounds(int(np.argmax(share.high - share.low)))
    ours, chance = (next(row for row in faithfulness if row.method == method) for method in ("ledger", "random"))
    converged, percent = round(100 * float(ledger.converged.mean()), 1), round(100 * OUTSIDE)
    residual, windows = float(ledger.residual.max()), len(ledger.predictions)
    answer = (
        f"On {converged:g} % of the {windows} reference windows the contributions add up within {ledger.tolerance:.2g};"
        f" the largest gap is {residual:.2g}. The least certain share lies between {_percent(low)} and {_percent(high)}"
        f" ({round(100 * CONFIDENCE)} % interval). {len(outside)} edges get more than {percent} % of their inputs from"
        f" outside their grid. Taking features away in the ledger's order moves the forecast by {ours.deletion:.2f}"
        f" standard deviations on average, in random order by {chance.deletion:.2f}."
    )
    evidence = {
        "windows": windows,
        "converged_percent": converged,
        "largest_residual": residual,
        "tolerance": ledger.tolerance,
        "confidence_percent": round(100 * CONFIDENCE),
        "least_certain_share": [low, high],
        "outside_percent": percent,
        "n_outside": len(outside),
        "outside_grid": outside,
        "disagreements": _disagreements(topology),
        "faithfulness": [asdict(row) for row in faithfulness],
    }
    return Finding("trust", "How far can these numbers be trusted?", answer, evidence)


def _disagreements(topology: Topology) -> list[dict[str, Any]]:
    """The edges that score and contribution rank most differently."""
    edges = [edge for edge in topology.kan_edges if edge.scores is not None]
    by_score = sorted(edges, key=lambda edge: -(edge.scores or {})["backward"])
    by_contribution = sorted(edges, key=lambda edge: -(edge.contribution or 0.0))
    ranks = [(edge, by_score.index(edge) + 1, by_contribution.index(edge) + 1) for edge in edges]
    ranks.sort(key=lambda rank: -abs(rank[1] - rank[2]))
    return [
        {"edge": _name(edge), "rank_by_score": score, "rank_by_contribution": contribution}
        for edge, score, contribution in ranks[:N_NAMED]
        if score != contribution
    ]


def _name(edge: TopologyEdge) -> str:
    return f"{edge.source} -> {edge.target}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
