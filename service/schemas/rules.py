"""The pruning rule, in queries and in answers."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.errors import UnknownNameError
from kanmodel.explain import pruning
from kanmodel.explain.pruning import PruningRule, Thresholds
from kanmodel.model import Model
from service.http.errors import unusable
from service.schemas.closed import Closed, OutputQuery

# Named, so that generated clients have one type for each.
Stage = TypeAliasType("Stage", Literal["front", "head"])
Metric = TypeAliasType("Metric", pruning.Metric)
Fill = TypeAliasType("Fill", pruning.Fill)
Threshold = Annotated[float | None, Field(ge=0)]
MAX_WITHOUT = 500  # edges that a request names


class RuleMembers(Closed):
    """A pruning rule."""

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
    without: Annotated[
        list[str] | None,
        Field(
            description="Ids of edges that go in any case, `{stage}:{layer}:{i}:{j}`, such as `head:0:7:3`; what they "
            "alone connected goes with them. The fidelity that is asked for holds before that.",
            max_length=MAX_WITHOUT,
            fail_fast=True,
        ),
    ] = None

    def rule(self, model: Model) -> PruningRule:
        """The pruning rule, for a model.

        Raises:
            DataError: both a fidelity and a threshold are given, or an edge does not exist.
        """
        without = _find_edges(model, self.without or [])
        thresholds = {"node": self.node_threshold, "edge": self.edge_threshold, "input": self.input_threshold}
        given = {name: value for name, value in thresholds.items() if value is not None}
        if given and self.fidelity is not None:
            raise unusable("fidelity", f"and {next(iter(given))}_threshold are both given: give one")
        if given:
            return PruningRule(self.metric, None, Thresholds(**given), self.fill, without)
        fidelity = 0.99 if self.fidelity is None else self.fidelity
        return PruningRule(self.metric, fidelity, None, self.fill, without)


class RuleQuery(RuleMembers, OutputQuery):
    """Selects an output and a pruning rule."""


class Rule(TypedDict):
    """The applied pruning rule, in the form of the query."""

    metric: Annotated[Metric, Field(description="The metric that ranked the edges.")]
    fidelity: NotRequired[Annotated[float, Field(description="Smallest R2; absent with thresholds.")]]
    node_threshold: NotRequired[Annotated[float, Field(description="Model units; absent with `fidelity`.")]]
    edge_threshold: NotRequired[Annotated[float, Field(description="Model units; absent with `fidelity`.")]]
    input_threshold: NotRequired[Annotated[float, Field(description="Model units; absent with `fidelity`.")]]
    fill: Annotated[Fill, Field(description="Replacement of a pruned edge.")]
    without: NotRequired[
        Annotated[list[str], Field(description="Ids of the edges that go in any case; absent without such.")]
    ]


def _find_edges(model: Model, names: list[str]) -> tuple[tuple[str, int, int, int], ...]:
    """The edges of these names, sorted, each once; an error says which name is none."""
    found: set[tuple[str, int, int, int]] = set()
    for number, name in enumerate(names):
        try:
            found.update(model.find_edges([name]))
        except UnknownNameError as error:
            raise unusable(f"without[{number}]", f"must be the id of an edge, but {error}") from error
    return tuple(sorted(found))


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
    if rule.without:
        described["without"] = [":".join(map(str, edge)) for edge in rule.without]
    return described
