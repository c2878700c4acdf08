"""The report in plain language: each finding as a question and an answer, the same in Python, CLI and HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kanmodel.explain.report import Finding, FindingId
from kanmodel.network.config import ModelConfig

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
        "sparsity": ("Has the network pruned itself?", lambda found: _sparsity(found, unit)),
        "features": ("Are features without connections unimportant?", lambda found: _features(found, cell)),
        "independence": (
            "Are features without common connections independent?",
            lambda found: _independence(found, unit),
        ),
        "opacity": ("What does a lighter edge mean?", _opacity),
        "depth": ("How are layers read whose inputs are already transformed?", _depth),
        "shapes": ("Why do most edges look like a straight line?", _shapes),
        "trust": ("How far can these numbers be trusted?", lambda found: _trust(found, unit)),
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


def _sparsity(found: Mapping[str, Any], unit: str) -> str:
    masked = f"{found['masked']} of {found['edges']} edges are masked in the checkpoint"
    answer = (
        f"Yes, in part: {masked}." if found["masked"] else f"No: {masked}; edges that a picture does not show are weak."
    )
    answer += f" {found['kept']} suffice: with them alone the forecasts keep an R2 of {found['r2']:.3f} against the"
    answer += " full model"
    if found["mae"] is not None:
        answer += f", and the mean absolute error goes from {found['mae_full']:.3g} to {found['mae']:.3g} {unit}"
    return answer + (f". {found['n_unconnected']} of {found['inner_nodes']} inner nodes then have no connection left.")


def _features(found: Mapping[str, Any], cell: str | None) -> str:
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


def _independence(found: Mapping[str, Any], unit: str) -> str:
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
        f" feature does where all others are at the baseline. {_acting_together(found['acting_together'], unit)}"
    )


def _acting_together(rows: Sequence[Mapping[str, Any]], unit: str) -> str:
    named = [f"`{row['feature']}` ({row['mean_abs_together']:.3g} {unit})" for row in rows[:N_NAMED]]
    return f"They differ most, which is due to interactions with other features, for {', '.join(named)}."


def _opacity(found: Mapping[str, Any]) -> str:
    answer = f"A lower score, not a lower weight: opacity is tanh({found['beta']:.0f} x backward score)."
    if not found["edges"]:
        return f"{answer} This checkpoint has too few reference windows for scores."
    return (
        f"{answer} Scores are magnitudes, blind to cancellation. Over the {found['edges']} edges, their order and that"
        f" of the contributions have a rank correlation of {found['rank_correlation']:.2f}."
    )


def _depth(found: Mapping[str, Any]) -> str:
    if not found["profiles"]:
        return "There is no inner node: the edges act on features."
    nodes = [
        f"`{node}` is " + ", ".join(f"{_percent(share)} `{name}`" for name, share in list(profile.items())[:N_NAMED])
        for node, profile in list(found["profiles"].items())[:N_NAMED]
    ]
    return f"By the share of each feature in a node's own value: {'; '.join(nodes)}."


def _shapes(found: Mapping[str, Any]) -> str:
    shapes = found["shapes"]
    return (
        f"Of the {found['kept']} edges that are kept, {shapes['linear']} are straight where the data lies and"
        f" {shapes['curved']} are curved; {shapes['flat']} are flat. In {shapes['base_only']}, most inputs lie"
        f" outside the grid, where only the base function acts. {found['linear_and_narrow']} of the straight ones see"
        f" less than {found['narrow_percent']} % of their grid: any smooth function is straight when looked at closely"
        " enough."
    )


def _trust(found: Mapping[str, Any], unit: str) -> str:
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
