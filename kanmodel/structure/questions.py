"""The questions of this room: importance, topology, ablation, fidelity, edges, and the difference of two models.

What takes long, the measurement of importance and the search of a pruning, is kept by the model and shared by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch

from kanmodel.attribution.comparison import Comparisons, match_outputs
from kanmodel.attribution.explanation import Explanation
from kanmodel.attribution.ledger import LedgerOptions
from kanmodel.attribution.questions import ExplanationQuestion, choose_groups
from kanmodel.computing import progress_share
from kanmodel.errors import DataError
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import Groups
from kanmodel.network.connections import EdgeKey
from kanmodel.question import MANY, Question, SeriesNames, Windows
from kanmodel.structure import pruning
from kanmodel.structure.ablation import Ablation, extract_pruned
from kanmodel.structure.attention import Attention
from kanmodel.structure.curves import Edge, Span, sample_edges
from kanmodel.structure.edges import find_edge, find_edge_key
from kanmodel.structure.importance import Importance, add_groups, measure_importance
from kanmodel.structure.model_comparison import ModelComparison
from kanmodel.structure.pruning import FidelityPoint, Fill, Metric, Pruning, PruningRule, Thresholds
from kanmodel.structure.topology import Topology
from kanmodel.tables.table import Gaps
from kanmodel.tables.windows import name_windows, read_windows

EdgeName = str | tuple[Any, ...]
"""An edge, as `Model.edge` takes it."""


@dataclass(frozen=True)
class ImportanceQuestion(Question[Importance]):
    """Global importance of features and groups over the reference windows, with bootstrap intervals and verdicts.

    Attributes:
        output: its name; None for the first.
        groups: as in `explain`.
    """

    output: str | None = None
    _: KW_ONLY
    groups: Groups | Literal["checkpoint"] | None = "checkpoint"

    def answer(self, model: Forecaster) -> Importance:
        """The measured importance, with the groups."""
        holder, output = model.find_output(self.output)
        groups = choose_groups(model, self.groups)[0]
        key = tuple((name, *members) for name, members in groups.items())

        def compute() -> Importance:
            return add_groups(holder, measure(holder, output), groups)

        return replace(holder.keep(output, "importance", key, compute=compute), origin=model.origin)


def measure(model: Forecaster, output: int) -> Importance:
    """The importance without groups, computed once for a model, or as it was prepared."""
    find = measure_importance if model.prepared is None else model.prepared.importance
    return model.keep(output, "measured", compute=lambda: find(model, output))


@dataclass(frozen=True)
class PruningParameters(Question[Any]):
    """The parameters of a pruning.

    Attributes:
        fidelity: R2 against the full model to keep on the reference windows; 0.99 if there are no thresholds.
        metric: score that ranks the edges; by default whichever keeps the fewest, and with thresholds ``backward``.
        thresholds: prune at scores instead, as pykan does: ``{"node": 0.01, "edge": 0.03, "input": 0.01}``, or
            some of them.
        fill: value of a pruned edge: its mean on the reference windows (mean ablation), or ``"zero"`` as in pykan.
        without: further edges to remove, in any form of `edge`: ``["head:0:7:3"]``, ``[("lstm:7", "head:1:3")]``.
            Nodes that only they connected are removed too; `fidelity` holds before their removal.
    """

    _: KW_ONLY
    fidelity: float | None = None
    metric: Metric | None = None
    thresholds: Thresholds | Mapping[str, float] | None = None
    fill: Fill = "mean"
    without: Sequence[EdgeName] = ()

    def rule(self, model: Forecaster) -> PruningRule:
        """The rule, with its edges by number."""
        without = find_edges(model, self.without)
        return PruningRule.of(self.fidelity, self.metric, self.thresholds, self.fill, without)


@dataclass(frozen=True)
class TopologyQuestion(PruningParameters):
    """The graph of the network for one output, pruned.

    Attributes:
        output: its name; None for the first.
    """

    output: str | None = None

    def answer(self, model: Forecaster) -> Topology:
        """The pruned graph."""
        return lay_out(*model.find_output(self.output), self.rule(model))


def prune(model: Forecaster, output: int, rule: PruningRule) -> Pruning:
    """The edges that a rule keeps, computed once. Rules that differ in `without` alone share one search."""

    def compute() -> Pruning:
        if rule.without:
            rest = prune(model, output, replace(rule, without=()))
            return pruning.remove_edges(model, output, rest, rule.without)
        if model.prepared is not None and rule == PruningRule():
            return model.prepared.pruning(output)
        with progress_share(0.5):
            measured = measure(model, output)
        return pruning.prune_by_rule(model, measured, rule)

    return model.keep(output, "pruning", rule, compute=compute)


def lay_out(model: Forecaster, output: int, rule: PruningRule) -> Topology:
    """The graph pruned by a rule; rules that keep the same edges share one."""
    with progress_share(0.9):
        pruned = prune(model, output, rule)

    def compute() -> Topology:
        return Topology.of(model, measure(model, output), pruned)

    graph = model.keep(output, "graph", model.name, pruned.kept, rule.fill, compute=compute)  # its curves have the name
    return replace(graph, rule=pruned.rule, fidelity=pruned.fidelity)


@dataclass(frozen=True)
class AblationQuestion(PruningParameters):
    """Forecasts of the pruned network that `topology` shows, beside those of the whole network (mean ablation).

    Attributes:
        windows: in any form of `Windows`, original units.
        output: its name; None for the first.
    """

    windows: Windows
    output: str | None = None

    def answer(self, model: Forecaster) -> Ablation:
        """Both forecasts."""
        (holder, output), rule = model.find_output(self.output), self.rule(model)
        read, _ = model.read(self.windows)
        predictions = Forecaster.predict(holder, read)[:, output]
        topology, network = lay_out(holder, output, rule), _ablate(holder, output, rule)
        ablated = predictions if network is holder else network.predict_output(read, output)
        return Ablation.of(topology, predictions, ablated)


def _ablate(model: Forecaster, output: int, rule: PruningRule) -> Forecaster:
    """The model with the edges that a rule keeps; this one if it keeps every live edge."""
    pruned = prune(model, output, rule)
    if all(torch.equal(pruned.edges[place], layer.live) for place, layer in model.network.layers.items()):
        return model
    return model.keep(output, "ablated", pruned.kept, rule.fill, compute=lambda: extract_pruned(model, [pruned]))


@dataclass(frozen=True)
class FidelityCurveQuestion(Question[tuple[FidelityPoint, ...]]):
    """Fidelity against the number of kept edges, from all towards none, removing the weakest first.

    Edges that are cut off go at once, and those of a large network in groups, so that some numbers have no point.

    Attributes:
        output: its name; None for the first.
        metric: the order of the edges, as in `topology`.
        fill: value of a pruned edge, as in `topology`.
    """

    output: str | None = None
    _: KW_ONLY
    metric: Metric = "contribution"
    fill: Fill = "mean"

    def answer(self, model: Forecaster) -> tuple[FidelityPoint, ...]:
        """The points of the curve."""
        holder, output = model.find_output(self.output)

        def compute() -> tuple[FidelityPoint, ...]:
            with progress_share(0.6):
                measured = measure(holder, output)
            return pruning.trace_fidelity(holder, measured, self.metric, self.fill)

        return holder.keep(output, "fidelity curve", self.metric, self.fill, compute=compute)


@dataclass(frozen=True)
class EdgeQuestion(Question[Edge]):
    """The function on an edge, sampled, with the distribution of its inputs on the reference windows.

    Attributes:
        place: its id, such as ``"head:0:7:3"``; the ids of its ends, such as ``"lstm:7", "head:1:3"``; or the
            numbers ``layer, i, j``: from node i of the layer to sub-node j of the next.
        stage: ``head`` or ``front``, if numbers are given.
        points: number of samples, from 2.
        span: range of the samples: ``support``, 1st to 99th percentile of the reference inputs; ``reference``,
            their smallest to largest; ``grid``, the core interval of the grid.
    """

    place: tuple[Any, ...] = field(metadata=MANY)
    _: KW_ONLY
    stage: str = "head"
    points: int = 101
    span: Span = "support"

    def answer(self, model: Forecaster) -> Edge:
        """The edge."""
        place = self.place[0] if len(self.place) == 1 else self.place
        return sample_edges(model, [find_edge(model.network, place, self.stage)], self.points, self.span)[0]


def find_edges(model: Forecaster, edges: Sequence[EdgeName]) -> tuple[EdgeKey, ...]:
    """The (stage, layer, i, j) of edges in any form that `edge` takes, sorted, each once."""
    names = [edges] if isinstance(edges, str) else edges
    return tuple(sorted({find_edge_key(model.network, name) for name in names}))


@dataclass(frozen=True)
class AttentionQuestion(Question[Attention]):
    """The attention weights of a graph for some windows, beside the contributions, which they are not.

    They are those of each softmax that is multiplied with values, as in a GRU with attention, in a Transformer, or
    where a TFT selects variables. A chain has none. `kanmodel.structure.attention` has what they say.

    Attributes:
        windows: in any form of `Windows`, original units.
        output: whose contributions stand beside them; None for the first.
        last: of a data frame, how many windows, as in `predict`.
        gaps: what is done with a gap in time among their rows, as in `predict`.
        series: which of many series, as in `predict`.
        baseline: of the contributions, as in `explain`.
        tolerance: likewise.
    """

    windows: Windows
    output: str | None = None
    _: KW_ONLY
    last: int | str | None = None
    gaps: Gaps = "error"
    series: SeriesNames = None
    baseline: Any = "mean"
    tolerance: float = LedgerOptions.tolerance

    def answer(self, model: Forecaster) -> Attention:
        """The weights, and the contributions of each feature at each step."""
        asked = {name: getattr(self, name) for name in ("windows", "output", "last", "gaps", "series", "baseline")}
        explanation = ExplanationQuestion(**asked, tolerance=self.tolerance, detail="steps").answer(model)
        assert isinstance(explanation, Explanation)
        return Attention.of(model.find_output(self.output)[0], explanation)


@dataclass(frozen=True)
class ComparisonQuestion(Question[Comparisons | ModelComparison]):
    """Explains the difference of forecasts of two windows, two models, or both; without windows, of two models.

    Attributes:
        other: the model to compare with; None for this one.
        windows: in any form of `Windows`, original units; None to compare the models on this one's reference
            windows.
        against_windows: as many windows, which the other model forecasts; None for the same.
        output: its name, in both models; None for the first.
        tolerance: of each ledger, as for `explain`.
        fidelity: without windows: the R2 to which both models are pruned before their edges are compared; 0.99 by
            default.
    """

    with_answer: ClassVar = ("windows", Comparisons)
    other: Forecaster | None = None
    windows: Windows | None = None
    against_windows: Windows | None = None
    output: str | None = None
    _: KW_ONLY
    tolerance: float = LedgerOptions.tolerance
    fidelity: float | None = None

    def answer(self, model: Forecaster) -> Comparisons | ModelComparison:
        """Of windows `Comparisons`, of the models as a whole a `ModelComparison`."""
        other = model if self.other is None else self.other
        mine, output = model.find_output(self.output)
        theirs = mine if other is model else other.find_output(self.output)[0] if self.output in other.bounds else other
        number = match_outputs(mine, theirs, output)
        if self.windows is None:
            if self.against_windows is not None:
                raise DataError.at("against_windows", "is given without windows")
            rule = PruningRule.of(self.fidelity)

            def compute() -> ModelComparison:
                with progress_share(0.4):
                    topology = lay_out(mine, output, rule)
                with progress_share(0.7):
                    against = lay_out(theirs, number, rule)
                return ModelComparison.of(mine, theirs, output, topology, against)

            identity = other.checkpoint or object()  # a model that was never saved has a key that nothing else equals
            found = mine.keep(output, "comparison", identity, rule, compute=compute)
            names = model.name, other.name  # which models with the same checkpoints do not share
            return replace(found, origin=model.origin_against(other), name=names[0], against_name=names[1])
        if self.fidelity is not None:
            raise DataError.at("fidelity", "compares models as a whole, but windows are given")
        given, of_table = model.read(self.windows)
        against_windows = given
        if self.against_windows is not None:
            against_windows, _ = read_windows(other.config.table, self.against_windows, "against_windows")
        if len(against_windows) != len(given):
            message = f"must have {len(given)} windows as windows has, but has {len(against_windows)}"
            raise DataError.at("against_windows", message)
        options, named = LedgerOptions(self.tolerance), name_windows(of_table)
        return Comparisons.of(mine, given, theirs, against_windows, output, options, **named)
