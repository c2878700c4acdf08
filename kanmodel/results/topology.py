"""`Topology`: the pruned graph of a model, with a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kanmodel import html
from kanmodel.checkpoint import LoadedModel
from kanmodel.drawing.network import N_CURVES, N_POINTS, draw_topology
from kanmodel.drawing.style import Theme
from kanmodel.explain.functions.curves import sample_edges
from kanmodel.explain.topology.graph import NetworkGraph, TopologyEdge, TopologyNode
from kanmodel.results.result import GlobalResult, Pictured
from kanmodel.text import with_unit, write_table

if TYPE_CHECKING:
    from networkx import DiGraph

N_LINKS = 1300  # most links of each kind in a picture
_COLUMNS = ("source", "target", "contribution", "backward")


@dataclass(frozen=True, repr=False, eq=False)
class Topology(GlobalResult, Pictured, NetworkGraph):
    """The graph of a model for one output, with the kept edges and nodes, and the fidelity of the pruned model.

    Attributes:
        unit: of the contributions; None if unknown.
        name: name of the model, for the picture.
        loaded: the model, whose edges are sampled for the picture.
    """

    unit: str | None = field(kw_only=True)
    name: str = field(kw_only=True)
    loaded: LoadedModel = field(kw_only=True)

    def networkx(self) -> DiGraph[str]:
        """A directed graph with the fields of nodes and edges as attributes, including pruned ones with kept=False."""
        from networkx import DiGraph  # here, because it is rarely needed

        graph = DiGraph(output=self.output)
        graph.add_nodes_from((node.id, _without(node, "id")) for node in self.nodes)
        graph.add_edges_from((edge.source, edge.target, _without(edge, "source", "target")) for edge in self.edges)
        return graph

    def table(self) -> list[dict[str, Any]]:
        """A row for each edge that holds a function, largest contribution first."""
        rows = []
        for edge in sorted(self.kan_edges, key=lambda edge: -(edge.contribution or 0.0)):
            row = _without(edge, "scores", "interval", "kind", "share")
            low, high = edge.interval or (None, None)
            scores = edge.scores or dict.fromkeys(("backward", "forward_n", "forward_u"))
            rows.append(row | {"interval_low": low, "interval_high": high} | dict(scores))
        return rows

    def _draw(self, theme: Theme) -> bytes:
        """The network as in pykan's plot: a curve on each kept edge; pruned nodes are counted.

        Of more than `N_CURVES` kept edges only the strongest have a curve, and of more than `N_LINKS` edges of a kind
        only the strongest are drawn, so that a notebook stays small.
        """
        kept = sorted((edge for edge in self.kan_edges if edge.kept), key=lambda edge: -(edge.contribution or 0.0))
        curves = sample_edges(self.loaded, kept[:N_CURVES], N_POINTS)
        return draw_topology(self, curves, self.name, self.unit, theme=theme, n_links=N_LINKS)

    def _title(self) -> str:
        return f"Topology for {with_unit(self.output, self.unit)}"

    def _details(self) -> str:
        kept = [row for row in self.table() if row["kept"]]
        return html.fold("Kept edges", html.write_table(kept, _COLUMNS))

    def _text(self) -> str:
        kept = [row for row in self.table() if row["kept"]]
        cost = self.fidelity
        errors = "" if cost.mae is None else f", MAE {cost.mae:.4g} (full model {cost.mae_full:.4g})"
        head = (
            f"{self._title()}: {len(kept)} of {len(self.kan_edges)} edges kept, "
            f"R2 {cost.r2:.4f} against the full model{errors}"
        )
        return f"{head}\n{write_table(kept, _COLUMNS)}"


def _without(part: TopologyNode | TopologyEdge, *names: str) -> dict[str, Any]:
    """The fields of a node or an edge except some; mappings are copied, because the part is shared."""
    kept = {name: value for name, value in vars(part).items() if name not in names}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in kept.items()}
