"""The findings of a report: the numbers that answer common questions about a model.

They are data; `kanmodel.explain.report` has the sentences.

The report in plain language: each finding as a question and an answer, the same in Python, CLI and HTTP.

`Report`: answers to common questions about the picture of a KAN, with their evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from json import dumps
from typing import Any, Literal, get_args

import numpy as np
import torch

from kanmodel import html
from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import UnknownNameError
from kanmodel.explain.baseline import Baseline
from kanmodel.explain.bootstrap import CONFIDENCE
from kanmodel.explain.curves import CurveShape, Edge, sample_edges
from kanmodel.explain.effects import Effects, each_feature, measure_effects
from kanmodel.explain.faithfulness import Faithfulness, measure_faithfulness
from kanmodel.explain.importance import (
    REDUNDANT_CORRELATION,
    Attribution,
    GroupAttribution,
    ImportanceEstimates,
    Verdict,
    attribute_features,
    rank_correlation,
)
from kanmodel.explain.interactions import Interactions, measure_interactions
from kanmodel.explain.result import GlobalResult
from kanmodel.explain.structure import READOUT_KINDS
from kanmodel.explain.topology import OPACITY_BETA, Topology, TopologyEdge
from kanmodel.network.config import ModelConfig
from kanmodel.text import printable

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
    topology: Topology,
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


def _sparsity(topology: Topology) -> Evidence:
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


def _opacity(topology: Topology) -> Evidence:
    edges = [edge for edge in topology.kan_edges if edge.scores is not None]
    evidence: Evidence = {"beta": OPACITY_BETA, "edges": len(edges)}
    if edges:
        backward = np.array([edge.scores["backward"] for edge in edges if edge.scores])
        evidence["rank_correlation"] = rank_correlation(backward, np.array([edge.contribution for edge in edges]))
    return evidence


def _depth(topology: Topology) -> Evidence:
    inner = [node for node in topology.nodes if node.kept and node.profile and node.kind in INNER]
    inner.sort(key=lambda node: -(node.contribution or 0.0))
    return {"profiles": {node.id: dict(node.profile) for node in inner}}


def _shapes(curves: Sequence[Edge]) -> Evidence:
    found = Counter(curve.shape for curve in curves)
    return {
        "kept": len(curves),
        "shapes": {shape: found[shape] for shape in get_args(CurveShape)},
        "linear_and_narrow": sum(c.shape == "linear" and (c.support.coverage or 1.0) < NARROW for c in curves),
        "narrow_percent": round(100 * NARROW),
        "line_r2": {_name(curve.edge): curve.line.r2 for curve in curves},
    }


def _trust(importance: ImportanceEstimates, topology: Topology, faithfulness: Sequence[Faithfulness]) -> Evidence:
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


def _disagreements(topology: Topology) -> list[dict[str, Any]]:
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


N_NAMED = 3  # features or nodes named in a sentence, at most


@dataclass(frozen=True)
class Answer:
    """A question of the report and its answer.

    Attributes:
        id: sparsity, features, independence, opacity, depth, shapes or trust.
        question: the question.
        answer: the answer, as Markdown with names in backticks.
        evidence: the values from which the answer is written, and further details.
    """

    id: FindingId
    question: str
    answer: str
    evidence: Mapping[str, Any]


def answer_findings(config: ModelConfig, output: int, findings: Sequence[Finding]) -> tuple[Answer, ...]:
    """Questions and answers on output number `output` of a model, one per finding."""
    unit = config.target_of(output).unit or "target units"
    cell = None if config.recurrent is None else config.recurrent.cell
    write: dict[FindingId, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
        "sparsity": ("Has the network pruned itself?", lambda found: _sparsity_prose(found, unit)),
        "features": ("Are features without connections unimportant?", lambda found: _features_prose(found, cell)),
        "independence": (
            "Are features without common connections independent?",
            lambda found: _independence_prose(found, unit),
        ),
        "opacity": ("What does a lighter edge mean?", _opacity_prose),
        "depth": ("How are layers read whose inputs are already transformed?", _depth_prose),
        "shapes": ("Why do most edges look like a straight line?", _shapes_prose),
        "trust": ("How far can these numbers be trusted?", lambda found: _trust_prose(found, unit)),
    }
    return tuple(
        Answer(finding.id, question, sentences(finding.evidence), finding.evidence)
        for finding in findings
        for question, sentences in (write[finding.id],)
    )


def markdown(output: str, answers: Sequence[Answer]) -> str:
    """The answers on the output named `output` as a Markdown document."""
    sections = [f"## {each.question}\n\n{each.answer}" for each in answers]
    return "\n\n".join([f"# How the model forecasts `{output}`", *sections]) + "\n"


def _sparsity_prose(found: Mapping[str, Any], unit: str) -> str:
    masked = f"{found['masked']} of {found['edges']} edges are masked in the checkpoint"
    answer = (
        f"Yes, in part: {masked}." if found["masked"] else f"No: {masked}; edges that a picture does not show are weak."
    )
    answer += f" {found['kept']} suffice: with them alone the forecasts keep an R2 of {found['r2']:.3f} against the"
    answer += " full model"
    if found["mae"] is not None:
        answer += f", and the mean absolute error goes from {found['mae_full']:.3g} to {found['mae']:.3g} {unit}"
    return answer + (f". {found['n_unconnected']} of {found['inner_nodes']} inner nodes then have no connection left.")


def _features_prose(found: Mapping[str, Any], cell: str | None) -> str:
    counts = ", ".join(f"{number} {verdict}" for verdict, number in found["verdicts"].items())
    named = ", ".join(f"`{name}` ({_percent(share)})" for name, share in list(found["shares"].items())[:N_NAMED])
    answer = f"Features by verdict: {counts}. Largest shares of all contributions: {named}."
    for name, group in found["groups"].items():
        members = ", ".join(f"`{feature}`" for feature in group["features"])
        act = "act" if len(group["features"]) > 1 else "acts"
        answer += f" {members} {act} as one, `{name}`, with {_percent(group['share'])} of all contributions once groups"
        answer += f" are summed ({group['verdict']})."
    if found["disconnected"]:
        names = ", ".join(f"`{name}`" for name in found["disconnected"])
        answer += f" No path leads from {names} to the output, so there the contribution is exactly 0."
    else:
        answer += " No feature is cut off from the output."
    if cell is not None:
        answer += (
            f" After {'an LSTM' if cell == 'lstm' else 'a GRU'} the inputs of the KAN are hidden units, each a mixture"
            " of all features: a unit without connections says nothing about any one feature."
        )
    return answer


def _independence_prose(found: Mapping[str, Any], unit: str) -> str:
    answer = (
        "Connections do not answer that. Correlation in the data and interaction in the model are different. In the"
        " data, "
        f"{found['n_correlated']} pairs of features have a correlation of {found['threshold']} or more in magnitude"
    )
    if found["correlated"]:
        (a, b), correlation = found["correlated"][0].values()
        answer += f", first of all `{a}` and `{b}` with {correlation:.3f}: a model may use either in the other's place"
    answer += ". "
    if not found["interactions"]:
        return answer + "In the model there is a single feature, which interacts with no other."
    strongest = found["interactions"][0]
    (a, b), (low, high) = strongest["features"], strongest["interval"]
    return answer + (
        f"In the model, of {found['screened_pairs']} pairs of its {found['features']} features that were screened on"
        f" {found['screening_windows']} windows, `{a}` and `{b}` interact most: removing both moves the forecast by"
        f" {strongest['strength']:.3g} {unit} on average beyond what removing each does (a local second difference;"
        f" {found['confidence_percent']} % interval {low:.3g} to {high:.3g}). Contributions divide the change of the"
        " forecast among the features; `removed` says what the forecast loses without a feature, `alone` what the"
        f" feature does where all others are at the baseline. {_acting_together_prose(found['acting_together'], unit)}"
    )


def _acting_together_prose(rows: Sequence[Mapping[str, Any]], unit: str) -> str:
    named = [f"`{row['feature']}` ({row['mean_abs_together']:.3g} {unit})" for row in rows[:N_NAMED]]
    return f"They differ most, which is due to interactions with other features, for {', '.join(named)}."


def _opacity_prose(found: Mapping[str, Any]) -> str:
    answer = f"A lower score, not a lower weight: opacity is tanh({found['beta']:.0f} x backward score)."
    if not found["edges"]:
        return f"{answer} This checkpoint has too few reference windows for scores."
    return (
        f"{answer} Scores are magnitudes, blind to cancellation. Over the {found['edges']} edges, their order and that"
        f" of the contributions have a rank correlation of {found['rank_correlation']:.2f}."
    )


def _depth_prose(found: Mapping[str, Any]) -> str:
    if not found["profiles"]:
        return "There is no inner node: the edges act on features."
    nodes = [
        f"`{node}` is " + ", ".join(f"{_percent(share)} `{name}`" for name, share in list(profile.items())[:N_NAMED])
        for node, profile in list(found["profiles"].items())[:N_NAMED]
    ]
    return f"By the share of each feature in a node's own value: {'; '.join(nodes)}."


def _shapes_prose(found: Mapping[str, Any]) -> str:
    shapes = found["shapes"]
    return (
        f"Of the {found['kept']} edges that are kept, {shapes['linear']} are straight where the data lies and"
        f" {shapes['curved']} are curved; {shapes['flat']} are flat. In {shapes['base_only']}, most inputs lie"
        f" outside the grid, where only the base function acts. {found['linear_and_narrow']} of the straight ones see"
        f" less than {found['narrow_percent']} % of their grid: any smooth function is straight when looked at closely"
        " enough."
    )


def _trust_prose(found: Mapping[str, Any], unit: str) -> str:
    low, high = found["least_certain_share"]
    deletion = {row["method"]: row["deletion"] for row in found["faithfulness"]}
    return (
        f"On {found['converged_percent']:g} % of the {found['windows']} reference windows the contributions sum"
        f" to the change of the forecast within {found['tolerance']:.2g} {unit} (completeness); the largest residual is"
        f" {found['largest_residual']:.2g} {unit}. The least certain share"
        f" lies between {_percent(low)} and {_percent(high)} ({found['confidence_percent']} % interval)."
        f" {found['n_outside']} edges get more than {found['outside_percent']} % of their inputs from outside their"
        f" grid. Removing features in the ledger's order changes the forecast by {deletion['ledger']:.2f} standard"
        f" deviations on average, in random order by {deletion['random']:.2f}.{_reference(found['reference'])}"
        " All of this describes this model, not the data: another training on the same data may give other shares and"
        " verdicts."
    )


def _reference(span: Mapping[str, Any]) -> str:
    answer = "" if span["first"] is None else f" The reference windows go from `{span['first']}` to `{span['last']}`."
    unlike = span["unlike_training"]
    if unlike:
        named = ", ".join(f"`{name}`" for name in unlike[:N_NAMED])
        answer += f" Features that differ in them from the training rows in range, mean or spread: {span['n_unlike']},"
        answer += f" first of all {named}; for other windows these numbers may be different."
    return answer


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


@dataclass(frozen=True, repr=False, eq=False)
class Report(GlobalResult):
    """Answers to common questions about the picture of a KAN.

    Attributes:
        output: name of the output.
        findings: questions with their answers and evidence.
    """

    output: str
    findings: tuple[Answer, ...]

    def __getitem__(self, id: str) -> Report:
        """One of the questions: sparsity, features, independence, opacity, depth, shapes or trust.

        Raises:
            UnknownNameError: there is no such question.
        """
        found = tuple(finding for finding in self.findings if finding.id == id)
        if not found:
            known = ", ".join(finding.id for finding in self.findings)
            raise UnknownNameError(f"there is no question {id!r}; the questions are {known}")
        return replace(self, findings=found)

    def table(self) -> list[dict[str, Any]]:
        """A row for each question."""
        return [{"id": each.id, "question": each.question, "answer": each.answer} for each in self.findings]

    def markdown(self) -> str:
        """The report as Markdown."""
        return markdown(self.output, self.findings)

    def _title(self) -> str:
        return f"How the model forecasts {self.output}"

    def _details(self) -> str:
        title = html.write_heading(self._title()) if len(self.findings) > 1 else ""
        return title + "".join(
            html.write_heading(finding.question)
            + html.write_prose(finding.answer)
            + html.fold("Evidence", html.write_code(dumps(finding.evidence, indent=1, ensure_ascii=False)))
            for finding in self.findings
        )

    def _text(self) -> str:
        return "\n".join(map(printable, self.markdown().rstrip().split("\n")))
