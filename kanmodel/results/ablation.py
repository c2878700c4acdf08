"""Forecasts of a network without some of its edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kanmodel import html
from kanmodel.explain.structure.replay import Fidelity
from kanmodel.explain.topology.graph import NetworkGraph
from kanmodel.explain.topology.pruning import PruningRule
from kanmodel.results.result import Result
from kanmodel.scaling import Array
from kanmodel.text import with_unit, write_table

_COLUMNS = ("window", "prediction", "ablated_prediction", "difference")


@dataclass(frozen=True, repr=False, eq=False)
class Ablation(Result):
    """Forecasts of one output by the whole network, and by the edges that a rule keeps.

    Attributes:
        output: name of the output.
        unit: of its forecasts; None where unknown.
        rule: the pruning rule, its metric resolved.
        fidelity: what it costs on the reference windows.
        n_kept: edges that hold functions and are left.
        n_edges: edges that lead to the output, removed ones too.
        predictions: of the whole network, (n,), as `Model.predict` gives them.
        ablated_predictions: of the kept edges, (n,); the same numbers if no edge is removed.
    """

    output: str
    unit: str | None
    rule: PruningRule
    fidelity: Fidelity
    n_kept: int
    n_edges: int
    predictions: Array
    ablated_predictions: Array

    @classmethod
    def of(cls, graph: NetworkGraph, unit: str | None, predictions: Array, ablated: Array) -> Ablation:
        """The forecasts, with edge counts and fidelity from the graph."""
        edges = [edge.kept for edge in graph.upstream().kan_edges]
        return cls(graph.output, unit, graph.rule, graph.fidelity, sum(edges), len(edges), predictions, ablated)

    def __len__(self) -> int:
        return len(self.predictions)

    def table(self) -> list[dict[str, Any]]:
        """A row for each window."""
        pairs = zip(self.predictions.tolist(), self.ablated_predictions.tolist(), strict=True)
        return [
            dict(zip(_COLUMNS, (window, prediction, ablated, ablated - prediction), strict=True))
            for window, (prediction, ablated) in enumerate(pairs)
        ]

    def _title(self) -> str:
        return f"Ablation of {with_unit(self.output, self.unit)}"

    def _cost(self) -> str:
        return f"{self.n_kept} of {self.n_edges} edges kept, R2 {self.fidelity.r2:.4f} against the full model"

    def _details(self) -> str:
        table = html.write_table(self.table(), _COLUMNS, self._cost())
        return html.write_heading(self._title()) + table

    def __repr__(self) -> str:
        return f"{self._title()}: {self._cost()}\n{write_table(self.table(), _COLUMNS)}"
