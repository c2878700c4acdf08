"""The pruning rule, in queries and in answers."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel import terms
from kanmodel.terms import PruningRule, Thresholds
from service.http.errors import unusable
from service.schemas.closed import OutputQuery

# Named, so that generated clients have one type for each.
Stage = TypeAliasType("Stage", Literal["front", "head"])
Metric = TypeAliasType("Metric", terms.Metric)
Fill = TypeAliasType("Fill", terms.Fill)
Threshold = Annotated[float | None, Field(ge=0)]


class RuleQuery(OutputQuery):
    """Selects an output and a pruning rule."""

    metric: Annotated[
        Metric | None,
        Field(
            description="The metric that ranks edges. Absent with `fidelity`: the one that keeps the fewest edges; "
            "absent with thresholds: backward.",
        ),
    ] = None
    fidelity: Annotated[
        float | None,
        Field(description="Smallest R2 against the full model; 0.99 if no threshold is given.", ge=0, le=1),
    ] = None
    node_threshold: Annotated[
        Threshold,
        Field(description="Score that a hidden node must exceed, model units; 0.01 if another is given."),
    ] = None
    edge_threshold: Annotated[
        Threshold, Field(description="Score that an edge must exceed, model units; 0.03 if another is given.")
    ] = None
    input_threshold: Annotated[
        Threshold,
        Field(description="Score that an input must exceed, model units; 0.01 if another is given."),
    ] = None
    fill: Annotated[
        Fill,
        Field(
            description="Replacement of a pruned edge: its `mean` on the reference windows (mean ablation), or `zero`."
        ),
    ] = "mean"

    def rule(self) -> PruningRule:
        """The pruning rule.

        Raises:
            DataError: both a fidelity and a threshold are given.
        """
        thresholds = {"node": self.node_threshold, "edge": self.edge_threshold, "input": self.input_threshold}
        given = {name: value for name, value in thresholds.items() if value is not None}
        if given and self.fidelity is not None:
            raise unusable("fidelity", f"and {next(iter(given))}_threshold are both given: give one")
        if given:
            return PruningRule(self.metric, None, Thresholds(**given), self.fill)
        return PruningRule(self.metric, 0.99 if self.fidelity is None else self.fidelity, None, self.fill)


class Rule(TypedDict):
    """The applied pruning rule, in the form of the query."""

    metric: Annotated[Metric, Field(description="The metric that ranked the edges.")]
    fidelity: NotRequired[Annotated[float, Field(description="Smallest R2; absent with thresholds.")]]
    node_threshold: NotRequired[Annotated[float, Field(description="Model units; absent with `fidelity`.")]]
    edge_threshold: NotRequired[Annotated[float, Field(description="Model units; absent with `fidelity`.")]]
    input_threshold: NotRequired[Annotated[float, Field(description="Model units; absent with `fidelity`.")]]
    fill: Annotated[Fill, Field(description="Replacement of a pruned edge.")]


def describe_rule(rule: PruningRule) -> Rule:
    """Describes a rule whose metric is known."""
    assert rule.metric is not None, "the rule of a topology has its metric"
    described: Rule = {"metric": rule.metric, "fill": rule.fill}
    if rule.thresholds is not None:
        described["node_threshold"] = rule.thresholds.node
        described["edge_threshold"] = rule.thresholds.edge
        described["input_threshold"] = rule.thresholds.input
    elif rule.fidelity is not None:
        described["fidelity"] = rule.fidelity
    return described
