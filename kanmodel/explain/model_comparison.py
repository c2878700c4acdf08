"""Comparison of two models: feature shares, edges and errors on the reference windows of the first.

Both models explain the same windows, in original units and from the same baseline, so the differences are paired:
their confidence intervals come from a bootstrap over windows, not over models.

`ModelComparison`: the changes from one model to another, with intervals of paired differences.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kanmodel import html
from kanmodel.checkpoint import LoadedModel
from kanmodel.data import Array
from kanmodel.explain.attribution import Explanation, explain_windows
from kanmodel.explain.baseline import Baseline
from kanmodel.explain.bootstrap import Bootstrap, Estimate, share_of
from kanmodel.explain.comparison import match_outputs
from kanmodel.explain.importance import ImportanceEstimates
from kanmodel.explain.result import GlobalResult
from kanmodel.explain.structure import node_id
from kanmodel.explain.topology import NetworkGraph, TopologyEdge
from kanmodel.text import Row, printable, with_unit, write_facts, write_table, write_value

N_POINTS = 201  # points of the joint support at which two curves are compared

Place = tuple[str, int, int, int]  # stage, layer, i, j


@dataclass(frozen=True)
class FeatureChange:
    """Difference of the shares of one feature in two models.

    Attributes:
        name: the feature.
        share: its share of all features' mean |contribution|.
        against_share: its share in the other model.
        change: share - against_share.
        interval: of the change, 95 %.
    """

    name: str
    share: float
    against_share: float
    change: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class EdgeChange:
    """Difference of the edges at one place of two networks. Separately trained models may use a place differently.

    Attributes:
        stage: front or head.
        layer: layer of the node it leaves.
        i: number of that node.
        j: number of the sub-node it enters.
        source: id of the node it leaves.
        target: id of the node, or of a product node's sub-node, that it enters.
        kept: whether the topology of this model keeps it; None if this network has no such edge.
        against_kept: the same for the other model.
        contribution: mean |contribution|, the target's unit; None if this network has no such edge.
        against_contribution: the same for the other model.
        change: contribution - against_contribution; None if either network has no such edge.
        interval: of the change, 95 %.
        curve_difference: the largest |difference| of the two curves over the intersection of their supports, model
            units. A support is the 1st to the 99th percentile of the edge's inputs on the windows, in the feature's
            unit if the edge leaves a feature. None if the supports do not intersect, if either layer has a layer norm,
            or if either network has no such edge.
    """

    stage: str
    layer: int
    i: int
    j: int
    source: str
    target: str
    kept: bool | None
    against_kept: bool | None
    contribution: float | None
    against_contribution: float | None
    change: float | None
    interval: tuple[float, float] | None
    curve_difference: float | None


@dataclass(frozen=True)
class ModelChange:
    """Differences of two models for one output, this model minus the other.

    Attributes:
        output: name of the output.
        windows: number of reference windows of this model, on which both are compared.
        difference: root mean square difference of the two models' forecasts, the target's unit.
        mae: mean absolute error of this model's forecasts on these windows; None if the targets are unknown.
        against_mae: mean absolute error of the other model.
        features: sorted by |change|, largest first.
        edges: the edges of either network, sorted by stage, layer, i and j.
    """

    output: str
    windows: int
    difference: float
    mae: float | None
    against_mae: float | None
    features: tuple[FeatureChange, ...]
    edges: tuple[EdgeChange, ...]


def compare_models(
    model: LoadedModel,
    measured: ImportanceEstimates,
    graph: NetworkGraph,
    against: LoadedModel,
    against_graph: NetworkGraph,
) -> ModelChange:
    """Compares two models. Compared with the same object, all differences are exactly 0.

    Args:
        model: this model.
        measured: its importance for one output.
        graph: its topology for that output.
        against: the other model.
        against_graph: its topology for the output of the same name.

    Raises:
        DataError: the models differ in their features, lookback or output.
        NonFiniteError: the ledger of a window is not finite.
    """
    theirs = match_outputs(model, against, measured.output)
    windows = model.scaling.features_to_original(model.reference.windows.double())
    ledger = other = measured.ledger
    if against is not model:
        baseline = Baseline("instance", instance=np.broadcast_to(model.reference_mean, windows.shape[1:]))
        other = explain_windows(against, against.to_model_units(windows), theirs, baseline)
    bootstrap = Bootstrap(len(windows))
    targets = None if model.reference.targets is None else model.reference.targets[:, measured.output]
    apart = ledger.predictions - other.predictions
    return ModelChange(
        output=model.config.outputs[measured.output],
        windows=len(windows),
        difference=float(np.sqrt((apart**2).mean())),
        mae=None if targets is None else float(np.abs(ledger.predictions - targets).mean()),
        against_mae=None if targets is None else float(np.abs(other.predictions - targets).mean()),
        features=_compare_features(model, bootstrap, ledger, other),
        edges=tuple(
            _compare_edges(
                bootstrap, _Side(model, ledger, graph, windows), _Side(against, other, against_graph, windows)
            )
        ),
    )


def _compare_features(
    model: LoadedModel, bootstrap: Bootstrap, ledger: Explanation, other: Explanation
) -> tuple[FeatureChange, ...]:
    sizes, others = np.abs(ledger.contributions), np.abs(other.contributions)
    share, against_share = share_of(sizes), share_of(others)
    change = bootstrap.share_difference(sizes, others)
    order = np.argsort(-np.abs(change.value), kind="stable").tolist()
    names = model.config.feature_names
    return tuple(
        FeatureChange(names[f], float(share[f]), float(against_share[f]), float(change.value[f]), change.bounds(f))
        for f in order
    )


class _Side:
    """Edges of one of the two models: contributions, supports and curves.

    Args:
        model: the model.
        ledger: its ledger of the windows.
        graph: its topology.
        windows: (n, lookback, n_features), original units.
    """

    def __init__(self, model: LoadedModel, ledger: Explanation, graph: NetworkGraph, windows: Array) -> None:
        self.edges = {(edge.stage, edge.layer, edge.i, edge.j): edge for edge in graph.kan_edges}
        self.sizes = {
            (layer.stage, layer.layer): np.abs(layer.edges) for layer in ledger.layers if layer.edges is not None
        }
        self._model = model
        with torch.no_grad():
            self._stages = model.network.trace(model.to_model_units(windows)).stages

    def mean(self, place: Place) -> float | None:
        """Mean |contribution| of an edge; None if there is no such edge."""
        stage, layer, i, j = place
        return float(self.sizes[stage, layer][:, j, i].mean()) if place in self.edges else None

    def support(self, stage: str, layer: int) -> Array | None:
        """1st and 99th percentile of a layer's inputs, (2, n_in); features in original units. None with layer norm."""
        if self._model.network.stages[stage][layer].config.mixes:
            return None
        mean, scale = self._units(stage, layer)
        percentiles: Array = np.percentile(self._stages[stage][layer].inputs.double().numpy(), (1, 99), axis=0)
        return percentiles * scale + mean

    def curves(self, stage: str, layer: int, x: Array) -> Array:
        """Values of the edges of a layer at inputs x (points, n_in), (points, n_subnodes, n_in), model units."""
        mean, scale = self._units(stage, layer)
        of_network = self._model.network.stages[stage][layer]
        with torch.no_grad():
            inputs = torch.from_numpy((x - mean) / scale).to(self._stages[stage][layer].inputs.dtype)
            curves: Array = of_network.edges(inputs).double().numpy()
        return curves

    def _units(self, stage: str, layer: int) -> tuple[Array, Array]:
        """Mean and scale of the inputs of a layer, (n_in,) each; 0 and 1 for inputs that are not features."""
        config, scaling = self._model.config, self._model.scaling
        n_in = self._model.network.stages[stage][layer].config.n_in
        mean, scale = np.zeros(n_in), np.ones(n_in)
        for i in range(n_in):
            kind, *rest = node_id(config, stage, layer, i).split(":", 2)
            if kind in ("feature", "cell"):
                name = ":".join(rest) if kind == "feature" else rest[-1]
                number = config.feature_names.index(name)
                mean[i], scale[i] = scaling.feature_mean[number], scaling.feature_scale[number]
        return mean, scale


def _compare_edges(bootstrap: Bootstrap, one: _Side, other: _Side) -> Iterator[EdgeChange]:
    changes, differences = _changes(bootstrap, one, other), _curve_differences(one, other)
    places: Collection[Place] = {*one.edges, *other.edges}
    for place in sorted(places):
        stage, layer, i, j = place
        edge, against = one.edges.get(place), other.edges.get(place)
        known: TopologyEdge | None = edge or against
        assert known is not None, "places are from either network"
        change = changes[stage, layer] if edge and against else None
        difference = differences.get((stage, layer)) if edge and against else None
        curve = None if difference is None or np.isnan(difference[j, i]) else float(difference[j, i])
        yield EdgeChange(
            *place,
            source=known.source,
            target=known.target,
            kept=edge.kept if edge else None,
            against_kept=against.kept if against else None,
            contribution=one.mean(place),
            against_contribution=other.mean(place),
            change=float(change.value[j, i]) if change else None,
            interval=change.bounds(j, i) if change else None,
            curve_difference=curve,
        )


def _changes(bootstrap: Bootstrap, one: _Side, other: _Side) -> dict[tuple[str, int], Estimate]:
    """Change of mean |contribution| of the edges in both networks, (n_subnodes, n_in) by (stage, layer)."""
    changes = {}
    for layer in one.sizes.keys() & other.sizes.keys():
        a, b = one.sizes[layer], other.sizes[layer]
        n_sub, n_in = min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2])
        changes[layer] = bootstrap.mean(a[:, :n_sub, :n_in] - b[:, :n_sub, :n_in])
    return changes


def _curve_differences(one: _Side, other: _Side) -> dict[tuple[str, int], Array]:
    """Largest |difference| of curves in both networks, by (stage, layer); NaN where the supports do not intersect."""
    differences = {}
    for stage, layer in one.sizes.keys() & other.sizes.keys():
        support, against = one.support(stage, layer), other.support(stage, layer)
        if support is None or against is None:
            continue
        n_in = min(support.shape[1], against.shape[1])
        low = np.maximum(support[0, :n_in], against[0, :n_in])
        high = np.minimum(support[1, :n_in], against[1, :n_in])
        x = np.linspace(low, np.maximum(low, high), N_POINTS)  # (points, n_in)
        curves = []
        for side, reached in ((one, support), (other, against)):
            whole = np.repeat(reached[:1], N_POINTS, axis=0)  # fills inputs that only one of the networks has
            whole[:, :n_in] = x
            curves.append(side.curves(stage, layer, whole)[:, :, :n_in])
        n_sub = min(curve.shape[1] for curve in curves)
        largest = np.abs(curves[0][:, :n_sub] - curves[1][:, :n_sub]).max(axis=0)
        differences[stage, layer] = np.where(low <= high, largest, np.nan)
    return differences


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
