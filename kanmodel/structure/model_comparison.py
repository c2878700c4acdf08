"""`ModelComparison`: two models compared in their feature shares, edges and errors, on one set of reference windows.

Both models explain the reference windows of the first, in original units and from the same baseline, so the differences
are paired: their confidence intervals come from a bootstrap over windows, not over models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import Baseline
from kanmodel.attribution.comparison import match_outputs
from kanmodel.attribution.ledger import Ledger, explain_windows
from kanmodel.computing import progress_share
from kanmodel.forecaster import Forecaster
from kanmodel.network.connections import node_id, read_place
from kanmodel.network.network import LayerKey
from kanmodel.result import GlobalResult, Pictured, Table
from kanmodel.structure.edges import TopologyEdge
from kanmodel.structure.importance import spread_intervals
from kanmodel.structure.topology import Topology
from kanmodel.tables.statistics.bootstrap import Bootstrap, Estimate, share_of
from kanmodel.text import escape_markdown, with_unit, write_markdown

N_POINTS = 201  # points of the joint support at which two curves are compared
N_SHOWN = 10  # features and edges in the text for a pull request
_OF_FEATURES = ("name", "against_share", "share", "change", "interval_low", "interval_high")
_OF_EDGES = ("source", "target", "state", "against_contribution", "contribution", "change", "curve_difference")


@dataclass(frozen=True)
class FeatureChange:
    """The share of a feature in all features' mean |contribution| in two models.

    Attributes:
        name: name of the feature.
        share: its share in this model.
        against_share: its share in the other model.
        change: `share` - `against_share`.
        interval: 95 % interval of the change, by resampling windows jointly.
    """

    name: str
    share: float
    against_share: float
    change: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class EdgeChange:
    """Difference of the edges with one id in two networks. Separately trained models may use an edge differently.

    What needs an edge that this network, the other or either does not have is None.

    Attributes:
        stage: ``front`` or ``head``.
        layer: layer of the source node.
        i: number of the source node.
        j: number of the target sub-node, in the next layer.
        source: id of the source node.
        target: id of the target node.
        kept: whether the topology of this model keeps it.
        against_kept: the same for the other model.
        contribution: mean |contribution| in this model, the target's unit.
        against_contribution: the same for the other model.
        change: `contribution` - `against_contribution`.
        interval: 95 % interval of the change.
        curve_difference: the largest |difference| of the two curves over the intersection of their supports, model
            units. A support is the 1st to the 99th percentile of the edge's inputs on the windows, in the feature's
            unit if the edge leaves a feature. Also None if supports do not intersect or a layer has a layer norm.
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

    @property
    def state(self) -> str:
        """``stayed``, ``came``, ``went`` or ``pruned``: what pruning keeps in this model and in the other."""
        if self.kept:
            return "stayed" if self.against_kept else "came"
        return "went" if self.against_kept else "pruned"


@dataclass(frozen=True, repr=False, eq=False)
class ModelComparison(GlobalResult, Pictured):
    """The changes from another model to this one, on this model's reference windows.

    Attributes:
        output: name of the output.
        unit: unit of the forecasts; None if unknown.
        fidelity: the R2 to which both models are pruned.
        name: of this model; `against_name` is the other's.
        windows: number of reference windows.
        difference: root mean square difference of the forecasts, the target's unit.
        mae: mean absolute error of this model there; None if targets are unknown.
        against_mae: the same for the other model.
        features: the largest change of share first, with 95 % intervals.
        edges: the edges of either network, sorted by stage, layer, i and j.
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

    @classmethod
    def of(
        cls, model: Forecaster, other: Forecaster, output: int, topology: Topology, against: Topology
    ) -> ModelComparison:
        """Compares two models and their topologies for an output, which is number `output` of the first.

        Both are pruned by fidelity. Compared with the same object, all differences are exactly 0.

        Raises:
            DataError: the models differ in their features, lookback or output.
            NonFiniteError: the ledger of a window is not finite.
        """
        number = match_outputs(model, other, output)
        windows = model.scaling.features_to_original(model.reference.scaled.double())
        with progress_share(0.5):
            ledger = explained = explain_windows(model, model.reference.scaled, output)
        if other is not model:
            baseline = Baseline("instance", instance=np.broadcast_to(model.reference.mean, windows.shape[1:]))
            explained = explain_windows(other, other.to_model_units(windows), number, baseline)
        targets = model.reference.actual(output)
        forecasts = [ledger.predictions, explained.predictions]
        mae, against_mae = (None if targets is None else float(np.abs(f - targets).mean()) for f in forecasts)
        bootstrap = Bootstrap(len(windows))
        one, another = _Side(model, topology, ledger, windows), _Side(other, against, explained, windows)
        return cls(
            output=topology.output,
            unit=topology.unit,
            fidelity=topology.rule.fidelity or 0.0,
            name=model.name,
            against_name=other.name,
            windows=len(windows),
            difference=float(np.sqrt(((forecasts[0] - forecasts[1]) ** 2).mean())),
            mae=mae,
            against_mae=against_mae,
            features=_compare_features(model.config.feature_names, bootstrap, ledger, explained),
            edges=tuple(_compare_edges(bootstrap, one, another)),
            reference=model.reference.span,
            origin=model.origin_against(other),
            model_inputs=model.inputs,
        )

    @property
    def came(self) -> tuple[EdgeChange, ...]:
        """The edges that pruning keeps in this model, but not in the other."""
        return tuple(edge for edge in self.edges if edge.state == "came")

    @property
    def went(self) -> tuple[EdgeChange, ...]:
        """The edges that pruning keeps in the other model, but not in this one."""
        return tuple(edge for edge in self.edges if edge.state == "went")

    def _moved(self) -> list[dict[str, Any]]:
        return [row for row in self.edge_table() if row["state"] in ("came", "went")]

    def table(self) -> list[dict[str, Any]]:
        """A row for each feature; intervals as two columns."""
        return [spread_intervals(vars(feature), "interval") for feature in self.features]

    def edge_table(self) -> list[dict[str, Any]]:
        """A row for each edge; intervals as two columns."""
        return [spread_intervals(vars(edge) | {"state": edge.state}, "interval") for edge in self.edges]

    def markdown(self) -> str:
        """The comparison as Markdown, for a pull request with a new model."""
        facts, moved = self._facts() | {"reference": str(self.reference)}, self._moved()
        changed = sorted((row for row in self.edge_table() if row["change"]), key=lambda row: -abs(row["change"]))
        return "\n".join(
            [
                f"## {escape_markdown(self._title())}\n",
                *(f"- {name}: {escape_markdown(value)}" for name, value in facts.items()),
                "\n### Features, by the change of their share\n",
                write_markdown(self.table()[:N_SHOWN], _OF_FEATURES),
                f"\n### Edges that came and went, of those that keep R2 {self.fidelity:g}\n",
                write_markdown(moved, _OF_EDGES) if moved else "None.",
                "\n### Edges, by the change of their contribution\n",
                write_markdown(changed[:N_SHOWN], _OF_EDGES) if changed else "None differs.",
                "",
            ]
        )

    def _title(self) -> str:
        return f"{self.against_name} -> {self.name}, {with_unit(self.output, self.unit)}"

    def _facts(self) -> dict[str, str]:
        before, after = ("unknown" if mae is None else f"{mae:.4g}" for mae in (self.against_mae, self.mae))
        n_before, n_after = sum(bool(e.against_kept) for e in self.edges), sum(bool(e.kept) for e in self.edges)
        return {
            "windows": f"{self.windows} reference windows of {self.name}",
            "forecasts": f"differ by {self.difference:.4g}{f' {self.unit}' if self.unit else ''}, root mean square",
            "mean absolute error": f"{before} -> {after}",
            "edges kept": f"{n_before} -> {n_after}, {len(self.came)} came, {len(self.went)} went",
        }

    def _tables(self) -> list[Table]:
        edges = Table(self.edge_table(), _OF_EDGES, "Edges", in_text=False)
        tables = [edges, Table(self._moved(), _OF_EDGES, in_html=False)]
        return [Table(self.table(), _OF_FEATURES), *(table for table in tables if table.rows)]


def _compare_features(
    names: Sequence[str], bootstrap: Bootstrap, ledger: Ledger, other: Ledger
) -> tuple[FeatureChange, ...]:
    sizes, others = np.abs(ledger.contributions), np.abs(other.contributions)
    share, against_share = share_of(sizes), share_of(others)
    change = bootstrap.share_difference(sizes, others)
    return tuple(
        FeatureChange(names[f], float(share[f]), float(against_share[f]), float(change.value[f]), change.bounds(f))
        for f in np.argsort(-np.abs(change.value), kind="stable").tolist()
    )


class _Side:
    """One of the two models: its KAN edges, and their |contribution|, (n, n_subnodes, n_in) by (stage, layer)."""

    def __init__(self, model: Forecaster, topology: Topology, ledger: Ledger, windows: Array) -> None:
        self.edges = {edge.key: edge for edge in topology.kan_edges}
        self.contributions = {
            (layer.stage, layer.layer): np.abs(layer.edges) for layer in ledger.layers if layer.edges is not None
        }
        self._model, self._layers = model, model.network.layers
        with torch.no_grad():
            stages = model.network.trace(model.to_model_units(windows)).stages
        self._inputs = {(stage, n): trace.inputs for stage in stages for n, trace in enumerate(stages[stage])}

    def mean(self, edge: TopologyEdge | None) -> float | None:
        """Mean |contribution| of an edge; None of none."""
        return None if edge is None else float(self.contributions[edge.key[:2]][:, edge.j, edge.i].mean())

    def support(self, key: LayerKey) -> Array | None:
        """1st and 99th percentile of a layer's inputs, (2, n_in); features in original units. None with layer norm."""
        if self._layers[key].config.mixes:
            return None
        mean, scale = self._units(key)
        return np.asarray(np.percentile(self._inputs[key].double().numpy(), (1, 99), axis=0) * scale + mean)

    def curves(self, key: LayerKey, x: Array) -> Array:
        """Values of the edges of a layer at inputs x (points, n_in), (points, n_subnodes, n_in), model units."""
        mean, scale = self._units(key)
        with torch.no_grad():
            edges = self._layers[key].edges(torch.from_numpy((x - mean) / scale).to(self._inputs[key].dtype))
        return np.asarray(edges.double().numpy())

    def _units(self, key: LayerKey) -> tuple[Array, Array]:
        """Mean and scale of the inputs of a layer, (n_in,) each; 0 and 1 for inputs that are not features."""
        config, scaling, n_in = self._model.config, self._model.scaling, self._layers[key].config.n_in
        mean, scale = np.zeros(n_in), np.ones(n_in)
        for i in range(n_in):
            kind, *name = node_id(config, *read_place(config, key), i).split(":", 1)
            if kind == "cell" and (config.graph or config.has_plain_steps):  # other cells are units at a step
                kind, name = "feature", name[0].split(":", 1)[1:]
            if kind == "feature":
                feature = config.feature_names.index(name[0])
                mean[i], scale[i] = scaling.feature_mean[feature], scaling.feature_scale[feature]
        return mean, scale


def _compare_edges(bootstrap: Bootstrap, one: _Side, other: _Side) -> Iterator[EdgeChange]:
    changes, differences = dict[LayerKey, Estimate](), dict[LayerKey, Array]()
    for layer in one.contributions.keys() & other.contributions.keys():
        a, b = one.contributions[layer], other.contributions[layer]
        n_sub, n_in = min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2])
        changes[layer] = bootstrap.mean(a[:, :n_sub, :n_in] - b[:, :n_sub, :n_in])
        differences[layer] = _compare_curves(one, other, layer, n_sub, n_in)
    for key in sorted({*one.edges, *other.edges}):
        stage, number, i, j = key
        edge, against = one.edges.get(key), other.edges.get(key)
        known = edge or other.edges[key]
        change, interval, curve = None, None, np.nan
        if edge and against:
            estimate, curve = changes[stage, number], float(differences[stage, number][j, i])
            change, interval = float(estimate.value[j, i]), estimate.bounds(j, i)
        yield EdgeChange(
            *(*key, known.source, known.target),
            kept=edge.kept if edge else None,
            against_kept=against.kept if against else None,
            contribution=one.mean(edge),
            against_contribution=other.mean(against),
            change=change,
            interval=interval,
            curve_difference=None if np.isnan(curve) else curve,
        )


def _compare_curves(one: _Side, other: _Side, layer: LayerKey, n_sub: int, n_in: int) -> Array:
    """Largest |difference| of curves that both have, (n_sub, n_in); NaN where supports do not intersect or are None."""
    support, against = one.support(layer), other.support(layer)
    if support is None or against is None:
        return np.full((n_sub, n_in), np.nan)
    low, high = np.maximum(support[0, :n_in], against[0, :n_in]), np.minimum(support[1, :n_in], against[1, :n_in])
    x = np.linspace(low, np.maximum(low, high), N_POINTS)  # (points, n_in)
    curves = []
    for side, reached in ((one, support), (other, against)):
        whole = np.repeat(reached[:1], N_POINTS, axis=0)  # fills inputs that only one of the networks has
        whole[:, :n_in] = x
        curves.append(side.curves(layer, whole)[:, :n_sub, :n_in])
    return np.where(low <= high, np.abs(curves[0] - curves[1]).max(axis=0), np.nan)
