"""Global results of a model on its reference windows (importance, topology, formulas, report), cached."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.ablation import extract_pruned
from kanmodel.explain.comparison import match_outputs
from kanmodel.explain.counterfactual import measure_typical_distance
from kanmodel.explain.faithfulness import Agreement, compare_baselines
from kanmodel.explain.formula import Formulas
from kanmodel.explain.importance import (
    Importance,
    ImportanceEstimates,
    attribute_features,
    attribute_groups,
    measure_importance,
)
from kanmodel.explain.model_comparison import ModelChange, compare_models
from kanmodel.explain.pruning import (
    FidelityPoint,
    Fill,
    Metric,
    Pruning,
    PruningRule,
    prune_by_rule,
    remove_edges,
    trace_fidelity,
)
from kanmodel.explain.report import Report, answer_findings, collect_findings
from kanmodel.explain.topology import NetworkGraph, assemble_topology
from kanmodel.network.config import Groups

Result = TypeVar("Result")


class Results(Protocol):
    """A cache of results; see `kanmodel.computing.Once`."""

    def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Returns the result of a key, computed if there is none."""


@dataclass(frozen=True)
class Overall:
    """The global results of one model. Outputs are given by index.

    Attributes:
        loaded: the model.
        results: the cache; keys start with the hash of the checkpoint and the index of the output.
    """

    loaded: LoadedModel
    results: Results

    def measure(self, output: int) -> ImportanceEstimates:
        """Mean contributions of features, nodes and edges, with bootstrap intervals."""
        return self._once(output, "measured", lambda: measure_importance(self.loaded, output))

    def attribute(self, output: int, groups: Groups) -> Importance:
        """Importance of the features and of groups, by their contributions."""

        def compute() -> Importance:
            measured = self.measure(output)
            config = self.loaded.config
            rows = attribute_features(self.loaded, measured)
            of_groups = attribute_groups(self.loaded, measured, groups)
            return Importance(
                config.outputs[output],
                config.target_of(output).unit,
                rows,
                measured,
                of_groups,
                reference=self.loaded.reference_span,
            )

        named = tuple((name, *members) for name, members in groups.items())
        return self._once(output, ("importance", named), compute)

    def compare_baselines(self, output: int) -> tuple[Agreement, ...]:
        """Agreement of baselines on the features, for each pair."""

        def compute() -> tuple[Agreement, ...]:
            return compare_baselines(self.loaded, self.measure(output))

        return self._once(output, "agreement", compute)

    def prune(self, output: int, rule: PruningRule) -> Pruning:
        """The edges that a rule keeps. Rules that differ in `without` alone share one search."""

        def compute() -> Pruning:
            if rule.without:
                rest = self.prune(output, replace(rule, without=()))
                return remove_edges(self.loaded, output, rest, rule.without)
            return prune_by_rule(self.loaded, self.measure(output), rule)

        return self._once(output, rule, compute)

    def ablate(self, output: int, rule: PruningRule) -> LoadedModel:
        """The model with the edges that a rule keeps; this one if it keeps every live edge."""
        pruning = self.prune(output, rule)
        if all(torch.equal(pruning.edges[place], layer.live) for place, layer in self.loaded.network.layers.items()):
            return self.loaded
        kept = ("ablated", pruning.kept, rule.fill)
        return self._once(output, kept, lambda: extract_pruned(self.loaded, [pruning]))

    def lay_out(self, output: int, rule: PruningRule) -> NetworkGraph:
        """The graph pruned by a rule; rules that keep the same edges share it."""
        pruning = self.prune(output, rule)
        kept = ("graph", pruning.kept, rule.fill)
        graph = self._once(output, kept, lambda: assemble_topology(self.loaded, self.measure(output), pruning))
        return replace(graph, rule=pruning.rule)

    def trace_fidelity(self, output: int, metric: Metric, fill: Fill) -> tuple[FidelityPoint, ...]:
        """Fidelity against the number of kept edges, in the order of one metric."""

        def compute() -> tuple[FidelityPoint, ...]:
            return trace_fidelity(self.loaded, self.measure(output), metric, fill)

        return self._once(output, ("fidelity", metric, fill), compute)

    def formulas(self, output: int) -> Formulas:
        """The head as formulas."""
        from kanmodel.explain.formula import find_front
        from kanmodel.explain.written import write_formulas  # here, since sympy is slow to import

        def compute() -> Formulas:
            config, front = self.loaded.config, find_front(self.loaded, output)
            written = write_formulas(front)
            return Formulas(
                config.outputs[output],
                config.target_of(output).unit,
                written,
                *front.parts,
                reference=self.loaded.reference_span,
            )

        return self._once(output, "formulas", compute)

    def compare(self, output: int, against: Overall, rule: PruningRule) -> ModelChange:
        """The changes from another model to this one."""
        number = match_outputs(self.loaded, against.loaded, output)

        def compute() -> ModelChange:
            graph, other = self.lay_out(output, rule), against.lay_out(number, rule)
            return compare_models(self.loaded, self.measure(output), graph, against.loaded, other)

        identity = against.loaded.sha256 or object()  # a model that was never saved has a key that nothing else equals
        return self._once(output, ("comparison", identity, rule), compute)

    def measure_typical_distance(self) -> float | None:
        """Typical distance of a reference window to its nearest neighbour."""
        return self._once(0, "typical distance", lambda: measure_typical_distance(self.loaded))

    def report(self, output: int) -> Report:
        """The findings of the report, on the default topology."""

        def compute() -> Report:
            measured, graph = self.measure(output), self.lay_out(output, PruningRule())
            config = self.loaded.config
            groups = self.attribute(output, config.groups).groups
            found = collect_findings(self.loaded, measured, graph, groups)
            return Report(
                config.outputs[output], answer_findings(config, output, found), reference=self.loaded.reference_span
            )

        return self._once(output, "report", compute)

    def _once(self, output: int, question: Hashable, compute: Callable[[], Result]) -> Result:
        return self.results.get((self.loaded.sha256, output, question), compute)
