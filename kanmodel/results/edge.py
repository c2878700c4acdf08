"""`Edge`: the function on one edge, with a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kanmodel import html
from kanmodel.drawing.edge import draw_edge
from kanmodel.drawing.style import Theme
from kanmodel.explain.functions.curves import EdgeCurve
from kanmodel.results.result import GlobalResult, Pictured
from kanmodel.text import write_facts, write_table

_COLUMNS = ("x", "y", "base", "spline", "symbolic", "slope", "x_original", "y_original")


@dataclass(frozen=True, repr=False, eq=False)
class Edge(GlobalResult, Pictured, EdgeCurve):
    """The function on one edge, model units, with the distribution of its inputs on the reference windows.

    Attributes:
        name: name of the model, for the picture.
    """

    name: str = field(kw_only=True)

    def table(self) -> list[dict[str, Any]]:
        """A row for each position."""
        columns = {name: getattr(self, name).tolist() for name in self._columns()}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _draw(self, theme: Theme) -> bytes:
        return draw_edge(self, self.name, f"layer {self.edge.layer} of the {self.edge.stage}", None, theme=theme)

    def _title(self) -> str:
        return f"Edge {self.edge.source} -> {self.edge.target}"

    def _details(self) -> str:
        return html.write_facts(self._facts()) + html.fold("Samples", html.write_table(self._some(20), self._columns()))

    def _facts(self) -> dict[str, str]:
        outside, line = self.support.outside_grid, self.line
        return {
            "shape": self.shape,
            "line": f"slope {line.slope:.4g}, intercept {line.intercept:.4g}, R2 {line.r2:.4f}",
            "data": f"1st to 99th percentile {self.support.p01:.4g} to {self.support.p99:.4g}",
            "outside grid": "-" if outside is None else f"{outside:.1%}",
            "masked": "yes" if self.edge.masked else "no",
        }

    def _some(self, count: int) -> list[dict[str, Any]]:
        """About `count` of the positions, evenly spaced."""
        return self.table()[:: max(1, (len(self.x) - 1) // count)]

    def _columns(self) -> list[str]:
        return [name for name in _COLUMNS if getattr(self, name) is not None]

    def _text(self) -> str:
        table = write_table(self._some(4), ["x", "y", "base", "spline", "slope"])
        return f"{self._title()}\n{write_facts(self._facts())}\n{table}"
