"""`ModelComparison`: the changes from one model to another, with intervals of paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kanmodel import html
from kanmodel.explain.alternatives.model_comparison import EdgeChange, FeatureChange
from kanmodel.results.result import GlobalResult
from kanmodel.text import Row, printable, with_unit, write_facts, write_table, write_value

N_SHOWN = 10  # features and edges in the text for a pull request
_OF_FEATURES = ("name", "against_share", "share", "change", "interval_low", "interval_high")
_OF_EDGES = ("source", "target", "state", "against_contribution", "contribution", "change", "curve_difference")


@dataclass(frozen=True, repr=False, eq=False)
class ModelComparison(GlobalResult):
    """The changes from another model to this one, on this model's reference windows.

    Attributes:
        output: name of the output.
        unit: of its forecasts; None if unknown.
        fidelity: the R2 to which both models are pruned.
        name: name of this model.
        against_name: name of the other.
        windows: number of reference windows.
        difference: root mean square difference of the forecasts, the target's unit.
        mae: mean absolute error of this model there; None if targets are unknown.
        against_mae: the other's.
        features: the largest change of share first, with 95 % intervals.
        edges: the edges of either network, by place.
    """

    output: str
    unit: str | None
    fidelity: float
    name: str
    against_name: str
    windows: int
    difference: float
    mae: float | None
    against_mae: float | None
    features: tuple[FeatureChange, ...]
    edges: tuple[EdgeChange, ...]

    @property
    def came(self) -> tuple[EdgeChange, ...]:
        """The edges that pruning keeps in this model, but not in the other."""
        return tuple(edge for edge in self.edges if edge.kept and not edge.against_kept)

    @property
    def went(self) -> tuple[EdgeChange, ...]:
        """The edges that pruning keeps in the other model, but not in this one."""
        return tuple(edge for edge in self.edges if edge.against_kept and not edge.kept)

    def table(self) -> list[dict[str, Any]]:
        """A row for each feature; intervals as two columns."""
        return [_spread(vars(feature)) for feature in self.features]

    def edge_table(self) -> list[dict[str, Any]]:
        """A row for each edge; intervals as two columns."""
        return [_spread(vars(edge) | {"state": _state(edge)}) for edge in self.edges]

    def markdown(self) -> str:
        """The comparison as Markdown, for a pull request with a new model."""
        facts = [f"- {name}: {_escape(value)}" for name, value in self._facts().items()]
        edges = [row for row in self.edge_table() if row["state"] in ("came", "went")]
        changed = sorted((row for row in self.edge_table() if row["change"]), key=lambda row: -abs(row["change"]))
        return "\n".join(
            [
                f"## {_escape(self._title())}\n",
                *facts,
                f"- reference: {_escape(str(self.reference))}",
                "\n### Features, by the change of their share\n",
                _write_markdown(self.table()[:N_SHOWN], _OF_FEATURES),
                f"\n### Edges that came and went, of those that keep R2 {self.fidelity:g}\n",
                _write_markdown(edges, _OF_EDGES) if edges else "None.",
                "\n### Edges, by the change of their contribution\n",
                _write_markdown(changed[:N_SHOWN], _OF_EDGES) if changed else "None differs.",
                "",
            ]
        )

    def _facts(self) -> dict[str, str]:
        def error(mae: float | None) -> str:
            return "unknown" if mae is None else f"{mae:.4g}"

        return {
            "windows": f"{self.windows} reference windows of {self.name}",
            "forecasts": f"differ by {self.difference:.4g}{f' {self.unit}' if self.unit else ''}, root mean square",
            "mean absolute error": f"{error(self.against_mae)} -> {error(self.mae)}",
            "edges kept": f"{sum(bool(edge.against_kept) for edge in self.edges)} -> "
            f"{sum(bool(edge.kept) for edge in self.edges)}, {len(self.came)} came, {len(self.went)} went",
        }

    def _title(self) -> str:
        return f"{self.against_name} -> {self.name}, {with_unit(self.output, self.unit)}"

    def _details(self) -> str:
        edges = html.write_table(self.edge_table(), _OF_EDGES) if self.edges else ""
        return (
            html.write_heading(self._title())
            + html.write_facts(self._facts())
            + html.write_table(self.table(), _OF_FEATURES)
            + html.fold("Edges", edges)
        )

    def _text(self) -> str:
        table = write_table(self.table(), _OF_FEATURES)
        moved = [row for row in self.edge_table() if row["state"] in ("came", "went")]
        edges = [write_table(moved, _OF_EDGES)] if moved else []
        return "\n".join([printable(self._title()), write_facts(self._facts()), table, *edges])


def _state(edge: EdgeChange) -> str:
    if edge.kept:
        return "stayed" if edge.against_kept else "came"
    return "went" if edge.against_kept else "pruned"


def _spread(row: dict[str, Any]) -> dict[str, Any]:
    low, high = row["interval"] or (None, None)
    return {name: value for name, value in row.items() if name != "interval"} | {
        "interval_low": low,
        "interval_high": high,
    }


def _write_markdown(rows: Sequence[Row], columns: Sequence[str]) -> str:
    lines = [
        f"| {' | '.join(column.replace('_', ' ') for column in columns)} |",
        "|" + " --- |" * len(columns),
        *(f"| {' | '.join(_escape(write_value(row[column])) for column in columns)} |" for row in rows),
    ]
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Escapes characters that are markup or cell separators in Markdown."""
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in plain)
