"""`Comparisons`: the difference of two forecasts, divided among features, data and model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kanmodel import html
from kanmodel.explain.alternatives.comparison import Comparison
from kanmodel.results.result import Result
from kanmodel.text import with_unit, write_facts, write_table


@dataclass(frozen=True, repr=False, eq=False)
class Comparisons(Result):
    """The difference of two forecasts for each pair of windows, divided into the parts of data and model.

    Attributes:
        output: name of the output.
        unit: of its forecasts; None if unknown.
        features: names of the features, in the order of the contributions.
        comparisons: in the order of the windows; see `kanmodel.explain.alternatives.comparison.Comparison`.
    """

    output: str
    unit: str | None
    features: tuple[str, ...]
    comparisons: tuple[Comparison, ...]

    def __len__(self) -> int:
        return len(self.comparisons)

    def __iter__(self) -> Iterator[Comparison]:
        return iter(self.comparisons)

    def __getitem__(self, window: int) -> Comparison:
        return self.comparisons[window]

    def table(self) -> list[dict[str, Any]]:
        """A row for each window and feature, the largest contribution first."""
        return [
            {
                "window": window,
                "feature": self.features[number],
                "data": float(one.data[number]),
                "model": float(one.model[number]),
            }
            for window, one in enumerate(self)
            for number in np.argsort(-np.abs(one.data + one.model), kind="stable").tolist()
        ]

    def _totals(self) -> list[dict[str, Any]]:
        return [
            {
                "window": window,
                "prediction": one.prediction,
                "against": one.against_prediction,
                "difference": one.difference,
                "data": one.data_total,
                "model": one.model_total,
                "baseline_shift": one.baseline_shift,
                "converged": one.converged,
            }
            for window, one in enumerate(self)
        ]

    def _title(self) -> str:
        return f"Why {with_unit(self.output, self.unit)} differs"

    def _details(self) -> str:
        totals = self._totals()
        columns = ["window", "feature", "data", "model"]
        return (
            html.write_heading(self._title())
            + html.write_table(totals, list(totals[0]))
            + html.write_table(self.table(), columns)
        )

    def __repr__(self) -> str:
        totals = self._totals()
        if len(totals) > 1:
            return f"{self._title()}\n{write_table(totals, list(totals[0]))}"
        facts = {name: f"{value:.4g}" for name, value in totals[0].items() if isinstance(value, float)}
        return f"{self._title()}\n{write_facts(facts)}\n{write_table(self.table(), ['feature', 'data', 'model'])}"
