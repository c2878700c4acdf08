"""What `kanmodel.model.Model` answers: named results in original units, as tables and as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.checkpoint import LoadedModel
from kanmodel.drawing.edge import draw_edge
from kanmodel.drawing.network import N_POINTS, draw_topology
from kanmodel.drawing.waterfall import draw_waterfall
from kanmodel.errors import DataError
from kanmodel.explain.functions.curves import EdgeCurve, sample_edges
from kanmodel.explain.importance.attributions import Attribution
from kanmodel.explain.importance.global_importance import ImportanceEstimates
from kanmodel.explain.paths.layers import LedgerLayer
from kanmodel.explain.paths.ledger import Ledger
from kanmodel.explain.topology.graph import NetworkGraph, TopologyEdge, TopologyNode
from kanmodel.html import wrap_picture, wrap_text
from kanmodel.prose import Answer, markdown
from kanmodel.scaling import Array
from kanmodel.text import with_unit, write_facts, write_table

if TYPE_CHECKING:
    from networkx import DiGraph

N_CURVES = 300  # of a network's picture


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """What each feature of each step added to the forecasts of one output for n windows, in the target's unit.

    Completeness: the contributions of a window sum to its prediction minus the baseline's, up to its residual.

    Attributes:
        output: name of the output.
        unit: of predictions and contributions; None where unknown.
        features: names of the features.
        predictions: (n,).
        baseline_prediction: forecast for the baseline; for ``reference`` the mean over the baselines.
        baseline: what the windows were compared with, (lookback, n_features), original units.
        contributions: (n, n_features), the signed sum over the steps.
        steps: (n, lookback, n_features), oldest step first.
        layers: what every node and edge adds, in the order of the data.
        error: largest estimated error of any contribution, (n,).
        residual: how far any layer is from completeness (convergence delta), (n,).
        tolerance: what both are compared with.
        converged: whether both are within it, and no node jumps along the path, (n,).
        path_nodes: nodes of the integration path, (n,).
        standard_error: of each contribution, (n, n_features), for the baseline ``reference``; else None.
    """

    output: str
    unit: str | None
    features: tuple[str, ...]
    predictions: Array
    baseline_prediction: float
    baseline: Array
    contributions: Array
    steps: Array
    layers: tuple[LedgerLayer, ...]
    error: Array
    residual: Array
    tolerance: float
    converged: NDArray[np.bool_]
    path_nodes: NDArray[np.int64]
    standard_error: Array | None = None

    @classmethod
    def of(cls, ledger: Ledger, features: tuple[str, ...], unit: str | None) -> Explanation:
        """A ledger with its names and its unit."""
        same = {name: getattr(ledger, name) for name in (f.name for f in fields(cls)) if hasattr(ledger, name)}
        return cls(**same | {"features": features, "unit": unit, "contributions": ledger.features})

    def __len__(self) -> int:
        return len(self.predictions)

    def __iter__(self) -> Iterator[Explanation]:
        return (self[window] for window in range(len(self)))

    def __getitem__(self, window: int | slice) -> Explanation:
        """One window as an explanation of length 1, or some of them."""
        if isinstance(window, slice):
            chosen = window
        else:
            number = range(len(self))[window]  # raises IndexError, and counts from the end where it is negative
            chosen = slice(number, number + 1)
        layers = tuple(
            replace(
                layer,
                nodes=None if layer.nodes is None else layer.nodes[chosen],
                edges=None if layer.edges is None else layer.edges[chosen],
            )
            for layer in self.layers
        )
        return replace(
            self,
            predictions=self.predictions[chosen],
            contributions=self.contributions[chosen],
            steps=self.steps[chosen],
            layers=layers,
            error=self.error[chosen],
            residual=self.residual[chosen],
            converged=self.converged[chosen],
            path_nodes=self.path_nodes[chosen],
            standard_error=None if self.standard_error is None else self.standard_error[chosen],
        )

    def table(self) -> list[dict[str, Any]]:
        """A row for each window and feature, features in the model's order; figures of the window are repeated."""
        return [
            {
                "window": window,
                "feature": feature,
                "contribution": float(self.contributions[window, number]),
                "prediction": float(self.predictions[window]),
                "baseline_prediction": self.baseline_prediction,
                "residual": float(self.residual[window]),
                "error": float(self.error[window]),
                "converged": bool(self.converged[window]),
            }
            for window in range(len(self))
            for number, feature in enumerate(self.features)
        ]

    def svg(self) -> str:
        """The waterfall of one window.

        Raises:
            DataError: there are several.
        """
        if len(self) != 1:
            raise DataError(f"a waterfall shows one window, but there are {len(self)}: take one, as e[0]")
        return draw_waterfall(
            self.features,
            self.contributions[0],
            self.baseline_prediction,
            float(self.predictions[0]),
            self.output,
            self.unit,
        ).decode()

    def html(self) -> str:
        """The waterfall of one window, or the table of several."""
        return wrap_picture(self.svg()) if len(self) == 1 else wrap_text(repr(self))

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        name = with_unit(self.output, self.unit)
        if len(self) != 1:
            rows = [
                {
                    "window": window,
                    "prediction": float(self.predictions[window]),
                    "largest contribution": self.features[int(np.abs(self.contributions[window]).argmax())],
                    "residual": float(self.residual[window]),
                    "error": float(self.error[window]),
                    "converged": bool(self.converged[window]),
                }
                for window in range(len(self))
            ]
            columns = ["window", "prediction", "largest contribution", "residual", "error", "converged"]
            head = f"Explanation of {name} for {len(self)} windows, baseline {self.baseline_prediction:.4g}"
            return f"{head}\n{write_table(rows, columns)}"
        ordered = sorted(self.table(), key=lambda row: -abs(row["contribution"]))
        facts = {
            "prediction": f"{self.predictions[0]:.4g}",
            "baseline": f"{self.baseline_prediction:.4g}",
            "residual": f"{self.residual[0]:.2g}, error {self.error[0]:.2g}, tolerance {self.tolerance:.2g}",
            "converged": "yes" if self.converged[0] else "no",
        }
        return f"Explanation of {name}\n{write_facts(facts)}\n{write_table(ordered, ['feature', 'contribution'])}"


@dataclass(frozen=True, repr=False, eq=False)
class Importance:
    """How much each feature counts over the reference windows, with intervals of 95 % and a verdict.

    Attributes:
        output: name of the output.
        unit: of the contributions; None where unknown.
        features: a row for each feature, most important first.
        measured: the estimates behind it, of steps, nodes and edges too.
    """

    output: str
    unit: str | None
    features: tuple[Attribution, ...]
    measured: ImportanceEstimates

    def table(self) -> list[dict[str, Any]]:
        """A row for each feature, most important first; intervals as two columns."""
        rows = []
        for feature in self.features:
            row = vars(feature) | {"redundant_with": ", ".join(partner.name for partner in feature.redundant_with)}
            for name in ("interval", "share_interval", "permutation_interval"):
                low, high = row.pop(name) or (None, None)
                row |= {f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
        return rows

    def __repr__(self) -> str:
        columns = [
            "rank",
            "name",
            "mean_abs_contribution",
            "share",
            "share_interval_low",
            "share_interval_high",
            "verdict",
        ]
        return f"Importance for {with_unit(self.output, self.unit)}\n{write_table(self.table(), columns)}"


@dataclass(frozen=True, repr=False, eq=False)
class Topology(NetworkGraph):
    """The graph of a model for one output, with what pruning keeps of it and what that costs.

    Attributes:
        unit: of the contributions; None where unknown.
        name: of the model, for the picture.
        loaded: the model, whose edges the picture samples.
    """

    unit: str | None = field(kw_only=True)
    name: str = field(kw_only=True)
    loaded: LoadedModel = field(kw_only=True)

    def svg(self) -> str:
        """The network as pykan draws it: a curve on each kept edge, what is pruned counted.

        Past `N_CURVES` kept edges only the strongest have a curve, which keeps the picture under 1 MB.
        """
        kept = sorted((edge for edge in self.kan_edges if edge.kept), key=lambda edge: -(edge.contribution or 0.0))
        curves = sample_edges(self.loaded, kept[:N_CURVES], N_POINTS)
        return draw_topology(self, curves, self.name, self.unit).decode()

    def html(self) -> str:
        """The picture, as a piece of HTML."""
        return wrap_picture(self.svg())

    def _repr_html_(self) -> str:
        return self.html()

    def networkx(self) -> DiGraph[str]:
        """A directed graph with the nodes' and edges' fields as attributes; pruned ones are in it with kept=False."""
        from networkx import DiGraph  # here, since few need it

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

    def __repr__(self) -> str:
        kept = [row for row in self.table() if row["kept"]]
        cost = self.fidelity
        errors = "" if cost.mae is None else f", MAE {cost.mae:.4g} (full model {cost.mae_full:.4g})"
        head = (
            f"Topology for {with_unit(self.output, self.unit)}: {len(kept)} of {len(self.kan_edges)} edges kept, "
            f"R2 {cost.r2:.4f} against the full model{errors}"
        )
        return f"{head}\n{write_table(kept, ['source', 'target', 'contribution', 'backward'])}"


@dataclass(frozen=True, repr=False, eq=False)
class Edge(EdgeCurve):
    """The function on one edge, model units, beside what the reference windows send through it.

    Attributes:
        name: of the model, for the picture.
    """

    name: str = field(kw_only=True)

    def svg(self) -> str:
        """The function with its parts, and below it what the data sends through it."""
        return draw_edge(self, self.name, f"layer {self.edge.layer} of the {self.edge.stage}", None).decode()

    def html(self) -> str:
        """The picture, as a piece of HTML."""
        return wrap_picture(self.svg())

    def _repr_html_(self) -> str:
        return self.html()

    def table(self) -> list[dict[str, Any]]:
        """A row for each position."""
        names = ["x", "y", "base", "spline", "symbolic", "slope", "x_original", "y_original"]
        columns = {name: getattr(self, name).tolist() for name in names if getattr(self, name) is not None}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def __repr__(self) -> str:
        outside, line = self.support.outside_grid, self.line
        facts = {
            "shape": self.shape,
            "line": f"slope {line.slope:.4g}, intercept {line.intercept:.4g}, R2 {line.r2:.4f}",
            "data": f"1st to 99th percentile {self.support.p01:.4g} to {self.support.p99:.4g}",
            "outside grid": "-" if outside is None else f"{outside:.1%}",
            "masked": "yes" if self.edge.masked else "no",
        }
        every = max(1, (len(self.x) - 1) // 4)
        rows = self.table()[::every]
        table = write_table(rows, ["x", "y", "base", "spline", "slope"])
        return f"Edge {self.edge.source} -> {self.edge.target}\n{write_facts(facts)}\n{table}"


@dataclass(frozen=True, repr=False)
class Formula:
    """A whole KAN as one expression.

    Attributes:
        output: name of the output.
        expression: of the features, original units, in Python's notation with numpy's names of functions.
        symbols: what stands for each feature in the expression, identifiers to names.
        r2: coefficient of determination against the model on the reference windows.
    """

    output: str
    expression: str
    symbols: dict[str, str]
    r2: float

    def table(self) -> list[dict[str, Any]]:
        """One row."""
        return [{"output": self.output, "expression": self.expression, "r2": self.r2}]

    def __repr__(self) -> str:
        renamed = [f"{symbol} is {name}" for symbol, name in self.symbols.items() if symbol != name]
        lines = [f"{self.output} = {self.expression}", f"R2 {self.r2:.4f} against the model", *renamed]
        return "\n".join(lines)


@dataclass(frozen=True, repr=False, eq=False)
class Report:
    """The questions that people have before the picture of a KAN, answered.

    Attributes:
        output: name of the output.
        findings: a question, its answer, and the evidence, each.
    """

    output: str
    findings: tuple[Answer, ...]

    def table(self) -> list[dict[str, Any]]:
        """A row for each question."""
        return [{"id": each.id, "question": each.question, "answer": each.answer} for each in self.findings]

    def markdown(self) -> str:
        """The report as Markdown."""
        return markdown(self.output, self.findings)

    def __repr__(self) -> str:
        return self.markdown().rstrip()


def _without(part: TopologyNode | TopologyEdge, *names: str) -> dict[str, Any]:
    """The fields of a node or an edge but for some; mappings are copied, since the part is shared."""
    kept = {name: value for name, value in vars(part).items() if name not in names}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in kept.items()}
