"""The report: what a forecaster does, for those who use its forecasts, and answers to questions about its network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from json import dumps
from typing import Any, get_args

import numpy as np

from kanmodel import html
from kanmodel.arrays import Array
from kanmodel.attribution.baseline import Baseline, spread_windows
from kanmodel.attribution.effects import each_feature, measure_effects, measure_interactions
from kanmodel.attribution.profiles import RUN_SHARE
from kanmodel.computing import progress_share, publish
from kanmodel.errors import UnknownNameError
from kanmodel.forecaster import Forecaster
from kanmodel.monitoring.trust import ReferenceDistances
from kanmodel.network.connections import READOUT_KINDS
from kanmodel.report.faithfulness import measure_faithfulness
from kanmodel.report.finding import Finding, Subject, SummaryId, quote_names, write_percent
from kanmodel.report.summary import summarise
from kanmodel.result import GlobalResult, Theme
from kanmodel.structure.curves import CurveShape, sample_edges
from kanmodel.structure.edges import TopologyEdge
from kanmodel.structure.importance import REDUNDANT_CORRELATION, Importance, Verdict, rank_correlation
from kanmodel.structure.topology import OPACITY_BETA, Topology
from kanmodel.tables.inputs import Inputs
from kanmodel.tables.statistics.bootstrap import CONFIDENCE
from kanmodel.text import printable, write_figure

OUTSIDE = 0.05  # share of an edge's inputs beyond its grid from which it is named
NARROW = 0.5  # share of the grid's core interval that the support must cover not to count as narrow
INNER = (*READOUT_KINDS, "front", "glue", "head")  # kinds of nodes
N_EFFECTS = 128  # reference windows, taken evenly, on which features are removed and stand alone
N_DISAGREEMENTS = 3  # edges that score and contribution rank differently, which are named
N_NAME = 34  # most characters of a name on the page
N_NAMED = 3  # features or nodes named in a sentence, at most


@dataclass(frozen=True, repr=False, eq=False)
class Report(GlobalResult):
    """What a forecaster does, and answers to common questions about the picture of a KAN, for one output.

    As HTML it is a page for readers who do not know the network, two sheets of A4 when printed.

    Attributes:
        output: name of the output.
        unit: its unit; None if unknown.
        findings: questions with their answers and evidence.
    """

    output: str
    unit: str | None
    findings: tuple[Finding, ...]

    def __getitem__(self, id: str) -> Report:
        """One of the questions, by its id, such as ``drivers`` or ``shapes``.

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
        sections = [f"## {each.question}\n\n{each.answer}" for each in self.findings]
        about = [f"{self._about()}.", *([self.caution] if self.caution else [])]
        return "\n\n".join([f"# How the model forecasts `{self.output}`", *about, *sections]) + "\n"

    @property
    def caution(self) -> str:
        """As of other results, unless the first question says it."""
        return "" if self.findings[0].id == "skill" else super().caution

    def _about(self) -> str:
        return ", ".join(filter(None, (self.origin, f"unit {self.unit}" if self.unit else "unit unknown")))

    def _title(self) -> str:
        return f"How the model forecasts {self.output}"

    def _body(self, theme: Theme, show: Callable[[str], str]) -> str:
        """A page of all questions, those about the network last and in brief; one question with its whole answer."""
        of_network = [each for each in self.findings if each.id not in get_args(SummaryId)]
        is_page, parts, folded = len(self.findings) > 1, list[str](), list[str]()
        if is_page:
            span = self["forecast"].findings[0].evidence["span"]
            windows = f"{self.reference.windows} reference windows{f', {span}' if span else ''}"
            about = [*([] if self.skill is None else [self.skill.brief]), f"{self._about()}, {windows}"]
            headlines = [headline for each in self.findings for headline in each.headlines]
            parts.append(html.write_banner(self._title(), about, headlines))
        elif self.caution:
            parts.append(html.write_prose(self.caution))
        for each in self._sections() if is_page else self.findings:
            if is_page and each.id == "skill":
                continue  # it stands on top
            pictures = [show(picture) for picture in each.draw(theme)]
            if each not in of_network or not is_page:
                prose = html.write_prose(each.answer, N_NAME if is_page else None)
                parts.append(html.write_section(each.question, prose, pictures, each.caption))
        if is_page:
            brief = [(each.question, html.write_prose(each.brief or each.answer, N_NAME)) for each in of_network]
            terms = html.write_columns([html.write_term(*one) for one in brief])
            parts.append(html.write_section("Questions about the network", terms))
            whole = [each for each in self.findings if each in of_network or each.id in ("skill", "intervals")]
            folded = [html.write_term(each.question, html.write_prose(each.answer)) for each in whole]
        evidence = {each.id: each.evidence for each in self.findings}
        folded += [html.write_code(dumps(evidence, indent=1, ensure_ascii=False)), self._note()]
        return html.write_sheet("".join(parts) + html.fold("All answers and figures", "".join(folded)))

    def _sections(self) -> Iterator[Finding]:
        """The findings as the page has them: errors and intervals in one section, so that two sheets suffice."""
        found = {each.id: each for each in self.findings}
        if (intervals := found.pop("intervals", None)) is not None:
            accuracy = found["accuracy"]
            found["accuracy"] = replace(
                accuracy,
                question=f"{accuracy.question[:-1]}, and how sure?",
                answer=f"{accuracy.answer} {intervals.brief}",
                panels=(*accuracy.panels[-2:], *intervals.panels[:1]),
            )
        yield from found.values()

    def _text(self) -> str:
        return "\n".join(map(printable, self.markdown().rstrip().split("\n")))


def write_report(model: Forecaster, importance: Importance, topology: Topology) -> Report:
    """The report on one output, from its importance with groups and its topology, pruned by fidelity."""
    subject, unit = Subject(model, importance), importance.unit or "target units"

    def publish_all(*findings: Finding) -> tuple[Finding, ...]:
        """Passes on what is found before the rest is."""
        for finding in findings:
            publish(lambda finding=finding: finding)  # type: ignore[misc]
        return findings

    summary = publish_all(*summarise(subject))
    of_picture = publish_all(_opacity(topology), _depth(topology, model.inputs), _shapes(model, topology))
    of_features = publish_all(_sparsity(topology, unit), _features(subject))
    with progress_share(0.5):
        independence = publish_all(_independence(subject, unit))
    trust = publish_all(_trust(subject, topology, unit))
    findings = (*summary, *of_features, *independence, *of_picture, *trust)
    return Report(importance.output, importance.unit, findings, reference=model.reference.span, skill=model.skill)


def _sparsity(topology: Topology, unit: str) -> Finding:
    edges, fidelity = topology.kan_edges, topology.fidelity
    inner = [node for node in topology.nodes if node.kind in INNER]
    idle = [node.id for node in inner if not node.kept]
    n_masked, n_kept = sum(edge.masked for edge in edges), sum(edge.kept for edge in edges)
    evidence = asdict(fidelity) | {
        "masked": n_masked,
        "edges": len(edges),
        "kept": n_kept,
        "inner_nodes": len(inner),
        "n_unconnected": len(idle),
        "unconnected": idle,
    }
    masked = f"{n_masked} of {len(edges)} edges are masked in the checkpoint"
    brief = f"Yes, in part: {masked}." if n_masked else f"No: {masked}; edges that a picture does not show are weak."
    brief += f" {n_kept} suffice: with them alone the forecasts keep an R2 of {fidelity.r2:.3f} against the full model"
    if fidelity.mae is not None:
        before, after = (write_figure(mae or 0.0) for mae in (fidelity.mae_full, fidelity.mae))
        brief += f", and the mean absolute error goes from {before} to {after} {unit}"
    brief += "."
    answer = f"{brief} {len(idle)} of {len(inner)} inner nodes then have no connection left."
    return Finding("sparsity", "Has the network pruned itself?", answer, evidence, brief)


def _features(subject: Subject) -> Finding:
    model, features = subject.model, subject.importance.features
    verdicts = Counter(row.verdict for row in features)
    shares = {row.name: row.share for row in features}  # most important first
    groups = [row for row in subject.importance.groups if row.members != (row.name,)]
    disconnected = [row.name for row in features if not row.connected]
    evidence = {
        "verdicts": {verdict: verdicts[verdict] for verdict in get_args(Verdict)},
        "shares": shares,  # of features alone; those of groups and inputs, as the answer has them, are `shown`
        "disconnected": disconnected,
        "groups": {g.name: {"features": list(g.members), "share": g.share, "verdict": g.verdict} for g in groups},
    }
    counts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in get_args(Verdict))
    merge = model.inputs.merge
    shown = evidence["shown"] = {row.name: row.share for row in subject.drivers}
    named = ", ".join(f"`{name}` ({write_percent(share, 1)})" for name, share in list(shown.items())[:N_NAMED])
    brief = f"Features by verdict: {counts}."
    answer = f"{brief} Largest shares of all contributions: {named}."
    for row in groups:
        if len(members := merge(row.members)) == 1:
            continue
        act = "act"
        answer += f" {quote_names(members)} {act} as one, `{row.name}`, with {write_percent(row.share, 1)} of all"
        answer += f" contributions once groups are summed ({row.verdict})."
    if disconnected:
        cut_off = f" No path leads from {quote_names(merge(disconnected))} to the output, so there the contribution is"
        brief, answer = (f"{text}{cut_off} exactly 0." for text in (brief, answer))
    else:
        brief, answer = f"{brief} None is cut off.", f"{answer} No feature is cut off from the output."
    if mixer := model.config.mixer:
        reader = "head" if all(layer.is_linear for layer in model.config.head) else "KAN"
        answer += f" After {mixer} the inputs of the {reader} are hidden units, each a mixture of all features: a unit"
        answer += " without connections says nothing about any one feature."
    return Finding("features", "Are features without connections unimportant?", answer, evidence, brief)


def _independence(subject: Subject, unit: str) -> Finding:
    model, output, correlated = subject.model, subject.output, subject.correlated
    interactions, together = measure_interactions(model, output), _acting_together(model, output)
    percent, label = round(100 * CONFIDENCE), model.inputs.label
    evidence = {
        "threshold": REDUNDANT_CORRELATION,
        "n_correlated": len(correlated),
        "correlated": [{"features": list(names), "correlation": correlation} for names, correlation in correlated],
        "confidence_percent": percent,
        "interactions": [asdict(interaction) for interaction in interactions.pairs],
        "features": interactions.n_features,
        "screened_pairs": interactions.n_screened,
        "screening_windows": interactions.screening_windows,
        "acting_together": together,
    }
    brief = "Connections do not answer that: correlation in the data and interaction in the model are different. In the"
    brief += f" data, {len(correlated)} pairs of features have a correlation of {REDUNDANT_CORRELATION} or more in"
    brief += " magnitude"
    if correlated:
        (a, b), correlation = correlated[0]
        brief += f", first of all `{label(a)}` and `{label(b)}` with {correlation:.3f}: a model may"
        brief += " use either in the other's place"
    answer = brief = f"{brief}."
    if not interactions.pairs:
        answer += " In the model there is a single feature, which interacts with no other."
    else:
        strongest = interactions.pairs[0]
        (a, b), (low, high) = map(label, strongest.features), strongest.interval
        named = [f"`{label(row['feature'])}` ({row['mean_abs_together']:.3g} {unit})" for row in together[:N_NAMED]]
        brief += f" In the model, `{a}` and `{b}` interact most ({strongest.strength:.3g} {unit})."
        answer += (
            f" In the model, of {interactions.n_screened} pairs of its {interactions.n_features} features that were"
            f" screened on {interactions.screening_windows} windows, `{a}` and `{b}` interact most: removing both moves"
            f" the forecast by {strongest.strength:.3g} {unit} on average beyond what removing each does (a local"
            f" second difference; {percent} % interval {low:.3g} to {high:.3g}). Contributions"
            " divide the change of the forecast among the features; `removed` says what the forecast loses without a"
            " feature, `alone` what the feature does where all others are at the baseline. They differ most, which is"
            f" due to interactions with other features, for {', '.join(named)}."
        )
    return Finding("independence", "Are features without common connections independent?", answer, evidence, brief)


def _acting_together(model: Forecaster, output: int) -> list[dict[str, Any]]:
    """All features, those first whose effects with and without the others differ most, on average over windows."""
    effects = measure_effects(model, spread_windows(model, N_EFFECTS), output, Baseline(), each_feature(model.config))
    means = {name: np.abs(getattr(effects, name)).mean(axis=0).tolist() for name in ("removed", "alone", "together")}
    rows = [
        {"feature": feature, **{f"mean_abs_{name}": values[number] for name, values in means.items()}}
        for number, feature in enumerate(model.config.feature_names)
    ]
    return sorted(rows, key=lambda row: -row["mean_abs_together"])


def _opacity(topology: Topology) -> Finding:
    scores, contributions = _weigh(edges := _scored(topology))
    evidence: dict[str, Any] = {"beta": OPACITY_BETA, "edges": len(edges)}
    brief = answer = f"A lower score, not a lower weight: opacity is tanh({OPACITY_BETA:.0f} x backward score)."
    if edges:
        correlation = evidence["rank_correlation"] = rank_correlation(scores, contributions)
        answer += f" Scores are magnitudes, blind to cancellation. Over the {len(edges)} edges, their order and that"
        answer += f" of the contributions have a rank correlation of {correlation:.2f}."
    else:
        answer += " This checkpoint has too few reference windows for scores."
    return Finding("opacity", "What does a lighter edge mean?", answer, evidence, brief)


def _depth(topology: Topology, inputs: Inputs) -> Finding:
    question, percent = "How are layers read whose inputs are already transformed?", round(100 * RUN_SHARE)
    inner = [node for node in topology.nodes if node.kept and node.profile and node.kind in INNER]
    inner.sort(key=lambda node: -(node.contribution or 0.0))
    evidence: dict[str, Any] = {
        "profiles": {node.id: dict(node.profile) for node in inner},
        "lags": {node.id: {name: [of.newest, of.oldest] for name, of in node.lags.items()} for node in inner},
        "lag_percent": percent,
        "shown": {},  # of the nodes that are named, by input
    }
    if not inner:
        return Finding("depth", question, "There is no inner node: the edges act on features.", evidence)
    nodes = []
    for node in inner[:N_NAMED]:
        merged, of_features = inputs.merge([*node.profile]), [*node.profile.values()]
        sizes = {name: sum(of_features[place] for place in places) for name, places in merged.items()}
        largest = sorted(sizes.items(), key=lambda each: -each[1])[:N_NAMED]
        evidence["shown"][node.id] = {"shares": dict(largest), "reads": [*map(int, re.findall(r"\d+", node.reads))]}
        shares = [f"{write_percent(share, 1)} `{name}`" for name, share in largest]
        shares[-1] += f" ({node.reads})" if node.reads else ""
        nodes.append(f"`{node.id}` is {', '.join(shares)}")
    shown = "By the share of each feature in a node's own value:"
    brief, answer = f"{shown} {nodes[0]}.", f"{shown} {'; '.join(nodes)}."
    if any(node.lags for node in inner[:N_NAMED]):
        answer += f" Most of a share, {percent} %, is at these lags, counted back from the newest step."
    return Finding("depth", question, answer, evidence, brief)


def _shapes(model: Forecaster, topology: Topology) -> Finding:
    curves = sample_edges(model, [edge for edge in topology.kan_edges if edge.kept])
    found, percent = Counter(curve.shape for curve in curves), round(100 * NARROW)
    n_narrow = sum(c.shape == "linear" and (c.support.coverage or 1.0) < NARROW for c in curves)
    evidence = {
        "kept": len(curves),
        "shapes": {shape: found[shape] for shape in get_args(CurveShape)},
        "linear_and_narrow": n_narrow,
        "narrow_percent": percent,
        "line_r2": {_name_edge(curve.edge): curve.line.r2 for curve in curves},
    }
    brief = f"Of the {len(curves)} edges that are kept, {found['linear']} are straight where the data lies and"
    brief += f" {found['curved']} are curved; {found['flat']} are flat."
    answer = f"{brief} In {found['base_only']}, most inputs lie outside the grid, where only the base function acts."
    answer += f" {n_narrow} of the straight ones see less than {percent} % of their grid: any smooth function is"
    answer += " straight when looked at closely enough."
    return Finding("shapes", "Why do most edges look like a straight line?", answer, evidence, brief)


def _trust(subject: Subject, topology: Topology, unit: str) -> Finding:
    model, importance, span = subject.model, subject.importance, subject.model.reference.span
    shares = sorted(importance.features, key=lambda row: model.config.feature_names.index(row.name))
    low, high = max((row.share_interval for row in shares), key=lambda interval: interval[1] - interval[0])
    outside = {_name_edge(e): e.outside_grid for e in topology.kan_edges if (e.outside_grid or 0.0) > OUTSIDE}
    faithfulness = measure_faithfulness(model, subject.output)
    deletion = {row.method: row.deletion for row in faithfulness}
    unlike = [each.feature for each in span.unlike_training]
    evidence = {
        "windows": len(importance.predictions),
        "converged_percent": round(100 * float(importance.converged.mean()), 1),
        "largest_residual": float(importance.residual.max()),
        "tolerance": importance.tolerance,
        "confidence_percent": round(100 * CONFIDENCE),
        "least_certain_share": [low, high],
        "outside_percent": round(100 * OUTSIDE),
        "n_outside": len(outside),
        "outside_grid": outside,
        "disagreements": _disagreements(topology),
        "faithfulness": [asdict(row) for row in faithfulness],
        "reference": vars(span) | {"unlike_training": unlike, "n_unlike": len(unlike)},
    }
    brief = (
        f"On {evidence['converged_percent']:g} % of the {evidence['windows']} reference windows the contributions sum"
        f" to the change of the forecast within {importance.tolerance:.2g} {unit} (completeness); the largest residual"
        f" is {evidence['largest_residual']:.2g} {unit}."
    )
    answer = (
        f"{brief} The least certain share lies between {write_percent(low, 1)} and {write_percent(high, 1)}"
        f" ({evidence['confidence_percent']} % interval). {len(outside)} edges get more than"
        f" {evidence['outside_percent']} % of their inputs from outside their grid. Removing features in the ledger's"
        f" order changes the forecast by {deletion['ledger']:.2f} standard deviations on average, in random order by"
        f" {deletion['random']:.2f}."
    )
    if (errors := ReferenceDistances.of(model).errors) is not None:
        near, _, far = evidence["mae_by_distance"] = errors[:, subject.output].tolist()
        answer += f" The mean absolute error is {write_figure(near)} {unit} on the third of the windows that are"
        answer += f" nearest to another, {write_figure(far)} {unit} on the farthest third."
    if span.first is not None:
        answer += f" The reference windows go from `{span.first}` to `{span.last}`."
    if unlike:
        named = quote_names(map(model.inputs.label, unlike[:N_NAMED]))
        answer += f" Features that differ in them from the training rows in range, mean or spread: {len(unlike)},"
        answer += f" first of all {named}; for other windows these numbers may be different."
    answer += " All of this describes this model, not the data: another training on the same data may give other shares"
    answer += " and verdicts."
    return Finding("trust", "How far can these numbers be trusted?", answer, evidence, brief)


def _disagreements(topology: Topology) -> list[dict[str, Any]]:
    """The edges that score and contribution rank most differently, 1 for the largest, equal ones in their order."""
    edges = _scored(topology)
    ranks = [np.argsort(np.argsort(-values, kind="stable")) + 1 for values in _weigh(edges)]
    rows = [
        {"edge": _name_edge(edge), "rank_by_score": score, "rank_by_contribution": contribution}
        for edge, score, contribution in zip(edges, *(rank.tolist() for rank in ranks), strict=True)
        if score != contribution
    ]
    rows.sort(key=lambda row: -abs(row["rank_by_score"] - row["rank_by_contribution"]))
    return rows[:N_DISAGREEMENTS]


def _scored(topology: Topology) -> list[TopologyEdge]:
    return [edge for edge in topology.kan_edges if edge.scores is not None]


def _weigh(edges: Sequence[TopologyEdge]) -> tuple[Array, Array]:
    """Their scores and their contributions, (n,) each."""
    scores = np.array([edge.scores["backward"] for edge in edges if edge.scores])
    return scores, np.array([edge.contribution or 0.0 for edge in edges])


def _name_edge(edge: TopologyEdge) -> str:
    return f"{edge.source} -> {edge.target}"
