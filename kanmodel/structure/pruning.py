"""Pruning of KAN edges: by fidelity, the R2 of the forecasts against the full model, or by thresholds as in pykan.

A pruned edge is replaced by its mean over the reference windows in the full model (``fill="mean"``, mean ablation), or
by zero as in pykan. Mean ablation usually needs fewer edges for the same fidelity, since it removes only the variation.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from kanmodel.computing import tracked
from kanmodel.errors import DataError, InsufficientReferenceError, NonFiniteError, Problem, quote, refuse_unknown
from kanmodel.forecaster import Forecaster
from kanmodel.network.connections import (
    EdgeKey,
    Kept,
    connected_nodes,
    edges_between,
    passing_edges,
    read_place,
    rows_of_layers,
    set_place,
)
from kanmodel.network.layer import LayerTrace
from kanmodel.network.network import Network, Trace
from kanmodel.structure.importance import Importance, count_edges
from kanmodel.structure.scores import MIN_INPUTS, Scores, score_rows

Fill = Literal["mean", "zero"]
Metric = Literal["contribution", "backward", "forward_n", "forward_u"]  # mean |contribution|, or a score of pykan
EVALUATIONS = 4e9  # budget of edge function evaluations per metric
DEFAULT_FIDELITY = 0.99


@dataclass(frozen=True)
class Thresholds:
    """Scores at or below which nodes and edges are removed, model units; pykan's defaults for the backward score.

    Attributes:
        node: of hidden nodes, which go first. Unless the metric is backward, it is that of the strongest outgoing edge.
        edge: of edges, scored again without these nodes.
        input: of the input nodes of a KAN, scored again without these edges.
    """

    node: float = 0.01
    edge: float = 0.03
    input: float = 0.01


@dataclass(frozen=True)
class PruningRule:
    """How to prune: by fidelity, or by thresholds where they are given.

    Attributes:
        metric: the order of edges; None for the metric that keeps the fewest edges at the fidelity, or for backward
            with thresholds.
        fidelity: the smallest accepted R2 against the full model on the reference windows; ignored with thresholds.
        fill: what replaces a pruned edge: its mean over the reference windows, or zero.
        without: edges to remove in any case, after the rest of the rule; sorted, without duplicates.
    """

    metric: Metric | None = None
    fidelity: float | None = DEFAULT_FIDELITY
    thresholds: Thresholds | None = None
    fill: Fill = "mean"
    without: tuple[EdgeKey, ...] = ()

    @classmethod
    def of(
        cls,
        fidelity: float | None = None,
        metric: Metric | None = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
        fill: Fill = "mean",
        without: tuple[EdgeKey, ...] = (),
    ) -> PruningRule:
        """The rule of a call, checked; with a fidelity of 0.99 if there is neither fidelity nor thresholds."""
        if thresholds is None:
            kept = DEFAULT_FIDELITY if fidelity is None else float(fidelity)
            if not 0 <= kept <= 1:
                raise DataError.at("fidelity", f"must be a number from 0 to 1, but is {quote(fidelity)}")
            return cls(metric, kept, None, fill, without)
        if fidelity is not None:
            raise DataError("fidelity and thresholds are both given: give one", [Problem("fidelity", "is given twice")])
        given = vars(thresholds) if isinstance(thresholds, Thresholds) else thresholds
        for name, value in given.items():
            refuse_unknown("threshold", name, [field.name for field in fields(Thresholds)])
            if value < 0:
                raise DataError.at(f"thresholds.{name}", f"must be a number from 0, but is {quote(value)}")
        return cls(metric, None, Thresholds(**given), fill, without)


@dataclass(frozen=True)
class Fidelity:
    """How well a pruned network forecasts, on the reference windows.

    Attributes:
        r2: coefficient of determination of the pruned outputs against the full model's.
        mae: mean absolute error of the pruned outputs against the targets, the target's unit; None where unknown.
        mae_full: the same of the full model.
    """

    r2: float
    mae: float | None
    mae_full: float | None

    @classmethod
    def of(cls, model: Forecaster, output: int, full: Tensor, pruned: Tensor) -> Fidelity:
        """The fidelity of one output, from all outputs for the reference windows, (n, n_outputs), model units.

        Raises `NonFiniteError` if the pruned output is not finite for a window, or too large for an R2.
        """
        full, pruned = full[:, output].double(), pruned[:, output].double()
        kept = r2(full, pruned)
        if not math.isfinite(kept):
            n_lost, name = int((~torch.isfinite(pruned)).sum()), model.config.outputs[output]
            windows = f"{n_lost} of {len(pruned)} reference windows: a function of an edge has left its domain"
            reason = f"not finite for {windows}" if n_lost else "too large for an R2"
            raise NonFiniteError(f"the pruned network's output {name} is {reason}; keep more edges")
        if (actual := model.reference.actual(output)) is None:
            return cls(kept, None, None)
        targets = torch.tensor(actual)
        scale, mean = float(model.scaling.output_scale[output]), float(model.scaling.output_mean[output])
        return cls(kept, *(float((outputs * scale + mean - targets).abs().mean()) for outputs in (pruned, full)))

    def __str__(self) -> str:
        errors = "" if self.mae is None else f", MAE {self.mae:.4g} (full model {self.mae_full:.4g})"
        return f"R2 {self.r2:.4f} against the full model{errors}"


def r2(full: Tensor, pruned: Tensor) -> float:
    """Coefficient of determination of pruned outputs against full ones, (n,); minus infinity if one is not finite.

    Of constant full outputs it is 1 if the pruned ones are equal, else 0.
    """
    if not torch.isfinite(pruned).all():
        return float("-inf")
    deviation = full - full.mean()
    largest = float(deviation.abs().max())
    if largest == 0:
        return float(torch.equal(pruned, full))
    lost, spread = (float(((values / largest) ** 2).sum()) for values in (pruned - full, deviation))
    return 1 - lost / spread


@dataclass(frozen=True)
class Pruning:
    """What a rule, its metric resolved, keeps of a network: edges by (stage, layer), nodes by place."""

    rule: PruningRule
    edges: Kept
    nodes: Kept
    fidelity: Fidelity

    @property
    def n_edges(self) -> int:
        """Number of kept edges."""
        return count_kept(self.edges)

    @property
    def kept(self) -> bytes:
        """A cache key, equal for equal sets of edges and nodes."""
        return b"".join(keep.numpy().tobytes() for kept in (self.edges, self.nodes) for keep in kept.values())


@dataclass(frozen=True)
class FidelityPoint:
    """The fidelity with some of the edges.

    Attributes:
        edges: number of kept edges.
        threshold: the highest score of an edge that was removed by its score, model units; 0 if none was.
        fidelity: of the network with these edges.
    """

    edges: int
    threshold: float
    fidelity: Fidelity


class MaskedForward:
    """Forward passes over the reference windows of a model in which masked edges are replaced by a constant.

    Attributes:
        live: the edges that the model itself has not masked.
        fills: what replaces each edge when it is masked, (n_subnodes, n_in) by (stage, layer).
    """

    def __init__(self, model: Forecaster, fill: Fill = "mean") -> None:
        self.model, self._layers = model, model.network.layers
        with torch.no_grad():
            self._unmasked = model.network.trace(model.reference.scaled)
        is_first = bool(self._layers) and len(self._unmasked.calls[0]) == 1  # not in a loop, which its edges change
        self._first = next(iter(self._layers)) if is_first else None  # the layer whose inputs no edge changes
        self.live = live_edges(model.network)
        self._last: tuple[Tensor, Tensor] | None = None  # kept edges of the first layer, and its sub-nodes with them
        self.fills = {
            (stage, number): trace.edges.mean(dim=0) if fill == "mean" else torch.zeros_like(trace.edges[0])
            for stage, traces in self._unmasked.stages.items()
            for number, trace in enumerate(traces)
        }

    def trace(self, kept: Kept) -> Trace:
        """The activations with the kept edges alone; masked edges are 0 in the trace."""
        return self._retrace(kept, sum_again=True)

    def outputs(self, kept: Kept) -> Tensor:
        """The outputs of `trace`, up to rounding; first-layer sub-nodes whose edges stay are not summed again."""
        return self._retrace(kept, sum_again=False).outputs

    @torch.no_grad()
    def _retrace(self, kept: Kept, sum_again: bool) -> Trace:
        def through(stage: str, number: int, x: Tensor) -> LayerTrace:
            key, layer = (stage, number), self._layers[stage, number]
            edges = self._unmasked.stages[stage][number].edges if key == self._first else layer.edges(x)
            if key == self._first and not sum_again:
                subnodes = self._sum_changed(kept[key], x, edges)
            else:
                edges = torch.where(kept[key], edges, 0 * x[:, None])  # NaN where an input is, as behind a mask of 0
                subnodes = edges.sum(dim=2) + (self.fills[key] * ~kept[key]).sum(dim=1)
            return LayerTrace(x, lambda: edges, subnodes, layer.nodes(subnodes))

        return self.model.network.retrace(self._unmasked, self.model.reference.scaled, through)

    def _sum_changed(self, kept: Tensor, x: Tensor, edges: Tensor) -> Tensor:
        """The sub-nodes of the first layer, of which those with other edges than the last time are summed."""
        assert self._first is not None
        last, sums = self._last or (~kept, edges.new_empty(edges.shape[:2]))
        for j in (kept != last).any(dim=1).nonzero().flatten().tolist():
            of_subnode = torch.where(kept[j], edges[:, j], 0 * x).sum(dim=1)
            sums[:, j] = of_subnode + (self.fills[self._first][j] * ~kept[j]).sum()
        self._last = kept.clone(), sums
        return sums

    @cached_property
    def full(self) -> Trace:
        """The activations with all live edges."""
        return self.trace(self.live)

    def fidelity(self, output: int, edges: Kept) -> Fidelity:
        """The fidelity of one output with these edges alone. Raises as `Fidelity.of`."""
        return Fidelity.of(self.model, output, self.full.outputs, self.trace(edges).outputs)


def live_edges(network: Network) -> Kept:
    """The edges that are not masked."""
    return {key: layer.live for key, layer in network.layers.items()}


def count_kept(edges: Kept) -> int:
    """Number of edges that are kept."""
    return sum(int(keep.sum()) for keep in edges.values())


def score_network(model: Forecaster, importance: Importance, trace: Trace, metric: Metric) -> tuple[Scores, Scores]:
    """Scores of the edges, and of the nodes, from contributions or from activations on the reference windows.

    Except with the backward metric, the score of a node is that of its strongest outgoing edge, and infinity in the
    last layer of a row. Raises `InsufficientReferenceError` for a score of pykan on too few reference windows.
    """
    network, n_windows = model.network, len(model.reference.scaled)
    if metric == "contribution":
        scale = float(model.scaling.output_scale[importance.output_index])
        edges = {key: torch.from_numpy(importance.edges[key].value / scale) for key in network.layers}
    elif n_windows < MIN_INPUTS:
        needed = f"metric {metric} needs at least {MIN_INPUTS} reference windows"
        raise InsufficientReferenceError(f"{needed}, but the checkpoint holds {n_windows}")
    else:
        by_score, nodes = score_rows(network, trace)
        edges = by_score[metric]
        if metric == "backward":
            return edges, nodes
    nodes = {}
    for row in rows_of_layers(network.config):
        after = torch.full_like(network.layers[row[-1]].node_bias, float("inf"))
        for key in reversed(row):
            nodes[set_place(key)] = after
            nodes[read_place(network.config, key)] = after = edges[key].amax(dim=0)
    return edges, nodes


def prune_by_rule(model: Forecaster, importance: Importance, rule: PruningRule) -> Pruning:
    """Prunes a model by a rule, for the output of `importance`; pauses between the networks that are tried.

    By fidelity, edges go in the order of a metric, weakest first, as long as the R2 is held, and with them what is then
    cut off from the inputs or outputs of its KAN. Large networks lose edges in groups; the group that lowers the R2 too
    far is then removed edge by edge. By thresholds it is what pykan's `prune_node`, `prune_edge` and `prune_input` do.

    Raises:
        InsufficientReferenceError: the metric is a score, and there are too few reference windows for one.
        NonFiniteError: thresholds or `without` leave a network whose output is not finite on the reference windows.
    """
    if rule.without:
        pruning = prune_by_rule(model, importance, replace(rule, without=()))
        return remove_edges(model, importance.output_index, pruning, rule.without)
    masked, output = MaskedForward(model, rule.fill), importance.output_index
    if rule.thresholds is not None:
        metric = rule.metric or "backward"
        edges, nodes = _cut_at_thresholds(masked, importance, metric, rule.thresholds)
        return Pruning(replace(rule, metric=metric, fidelity=None), edges, nodes, masked.fidelity(output, edges))
    usable = get_args(Metric) if len(model.reference.scaled) >= MIN_INPUTS else ("contribution",)
    metrics: tuple[Metric, ...] = (rule.metric,) if rule.metric else usable
    kept: dict[Metric, Kept] = {}
    for metric in tracked(metrics):
        removal = _RemovalOrder(masked, importance, metric)
        if not kept or removal.may_keep_fewer(min(map(count_kept, kept.values())), rule.fidelity or 0.0):
            kept[metric] = removal.cut(rule.fidelity or 0.0)
    metric = min(kept, key=lambda metric: count_kept(kept[metric]))
    nodes = connected_nodes(model.network, output, passing_edges(model.network, kept[metric]))
    return Pruning(replace(rule, metric=metric), kept[metric], nodes, masked.fidelity(output, kept[metric]))


def remove_edges(model: Forecaster, output: int, pruning: Pruning, without: tuple[EdgeKey, ...]) -> Pruning:
    """Removes more edges from a pruning, and the nodes that this disconnects from inputs or outputs of their KAN."""
    network, edges = model.network, {key: keep.clone() for key, keep in pruning.edges.items()}
    for stage, layer, i, j in without:
        edges[stage, layer][j, i] = False
    before, after = (connected_nodes(network, output, passing_edges(network, kept)) for kept in (pruning.edges, edges))
    staying = {key: after[key] | ~before[key] for key in before}
    edges = edges_between(network, edges, staying)
    nodes = {key: keep & staying[key] for key, keep in pruning.nodes.items()}
    fidelity = MaskedForward(model, pruning.rule.fill).fidelity(output, edges)
    return Pruning(replace(pruning.rule, without=without), edges, nodes, fidelity)


def trace_fidelity(
    model: Forecaster, importance: Importance, metric: Metric = "contribution", fill: Fill = "mean"
) -> tuple[FidelityPoint, ...]:
    """Fidelity against the number of kept edges, removed in the order of one metric, with pauses between the points.

    From all edges to none, or to before the first network whose output is not finite.
    """
    masked = MaskedForward(model, fill)
    removal, points = _RemovalOrder(masked, importance, metric), list[FidelityPoint]()
    for n_removed, edges in removal.steps(count_at_once(model)):
        try:
            fidelity = masked.fidelity(importance.output_index, edges)
        except NonFiniteError:
            break
        points.append(FidelityPoint(count_kept(edges), removal.scores[n_removed - 1] if n_removed else 0.0, fidelity))
    return tuple(points)


def count_at_once(model: Forecaster) -> int:
    """The number of edges removed per step, a forward pass, so that all steps take about `EVALUATIONS` at most.

    It is one up to about 2,800 edges of a head without a front over 512 reference windows.
    """
    config = model.config
    front, head = count_edges(config.front), count_edges(config.head)
    of_network = len(model.reference.scaled) * (config.lookback * front + head + config.graph_size)
    return max(1, math.ceil((front + head) * of_network / EVALUATIONS))


def prune_network(model: Forecaster, pruning: Pruning) -> Network:
    """A new network with the pruned edges masked and their fill added to the bias of their sub-nodes."""
    fills = MaskedForward(model, pruning.rule.fill).fills
    pruned = copy.deepcopy(model.network)
    for key, layer in pruned.layers.items():
        dropped = ~pruning.edges[key] & layer.live
        layer.subnode_bias += layer.subnode_scale * (fills[key] * dropped).sum(dim=1)
        layer.mask_edges(dropped)
    return pruned


def _cut_at_thresholds(
    masked: MaskedForward, importance: Importance, metric: Metric, thresholds: Thresholds
) -> tuple[Kept, Kept]:
    """The edges and nodes left when nodes, then edges, then inputs go, each scored on what the step before leaves."""

    def score(trace: Trace, left: str) -> tuple[Scores, Scores]:
        edges, nodes = score_network(masked.model, importance, trace, metric)
        if left and any(bool(torch.isnan(values).any()) for values in (*edges.values(), *nodes.values())):
            reason = "is not finite on the reference windows: a function of an edge has left its domain"
            raise NonFiniteError(
                f"the {left} that the thresholds keep leave a network that {reason}; lower the thresholds"
            )
        return edges, nodes

    network = masked.model.network
    _, scores = score(masked.full, "")
    nodes = {key: values > thresholds.node for key, values in scores.items()}
    rows = rows_of_layers(network.config)
    firsts = [read_place(network.config, row[0]) for row in rows]
    for end in (*firsts, *(set_place(row[-1]) for row in rows)):  # only hidden nodes are removed
        nodes[end] = torch.ones_like(nodes[end])
    edges = edges_between(network, masked.live, nodes)
    scores, _ = score(masked.trace(edges), "nodes")
    for key, layer in network.layers.items():  # as in pykan, the threshold is not for edges with a symbolic function
        edges[key] &= (scores[key] > thresholds.edge) | layer.is_symbolic
    _, scores = score(masked.trace(edges), "edges")
    nodes |= {first: scores[first] > thresholds.input for first in firsts}
    return edges_between(network, edges, nodes), nodes


class _RemovalOrder:
    """The live edges in the order in which a metric removes them, weakest first; of equal scores the last goes first.

    Attributes:
        scores: of the edges, ascending.
    """

    def __init__(self, masked: MaskedForward, importance: Importance, metric: Metric) -> None:
        self._masked, self._output, self._network = masked, importance.output_index, masked.model.network
        self._full = masked.full.outputs[:, self._output].double()
        self._passing = passing_edges(self._network, masked.live)
        self._places = {key: torch.zeros_like(live, dtype=torch.long) for key, live in masked.live.items()}  # in order
        of_edges, _ = score_network(masked.model, importance, masked.full, metric)
        edges = [
            (float(of[j, i]), key, j, i)
            for key, of in of_edges.items()
            for i, j in masked.live[key].T.nonzero().tolist()
        ]
        edges = sorted(edges, key=lambda edge: edge[0], reverse=True)[::-1]  # sorting is stable
        self.scores = [score for score, *_ in edges]
        for place, (_, key, j, i) in enumerate(edges):
            self._places[key][j, i] = place

    def without(self, n_removed: int) -> Kept:
        """The edges that are left without the weakest, and without those that are then cut off."""
        remaining = {key: edges & (self._places[key] >= n_removed) for key, edges in self._passing.items()}
        return edges_between(self._network, remaining, connected_nodes(self._network, self._output, remaining))

    def steps(self, at_once: int, start: int = 0) -> Iterator[tuple[int, Kept]]:
        """Yields how many of the weakest are removed, from `start` to all, and the edges then left, each set once."""
        last: Kept = {}
        for n_removed in tracked([*range(start, len(self.scores), at_once), len(self.scores)]):
            edges = self.without(n_removed)
            if not last or any(not torch.equal(edges[key], last[key]) for key in last):
                last = edges
                yield n_removed, edges

    def cut(self, fidelity: float) -> Kept:
        """The smallest set along the order such that it and every larger set tried keep the fidelity."""
        # Edges that are cut off already may have an effect: a node without inputs is a constant.
        best, n_best = self._masked.live, 0
        for at_once in tracked(sorted({count_at_once(self._masked.model), 1}, reverse=True)):
            for n_removed, edges in self.steps(at_once, n_best):
                if not self._keeps(edges, fidelity):
                    break
                best, n_best = edges, n_removed
        return best

    def may_keep_fewer(self, n_edges: int, fidelity: float) -> bool:
        """Whether `cut` may keep fewer edges: not if the first set with fewer does not keep the fidelity."""
        if count_at_once(self._masked.model) > 1:  # then it does not try every set
            return True
        sizes = range(len(self.scores) + 1)
        n_removed = bisect_left(sizes, True, key=lambda n: count_kept(self.without(n)) < n_edges)
        return n_removed in sizes and self._keeps(self.without(n_removed), fidelity)

    def _keeps(self, edges: Kept, fidelity: float) -> bool:
        return r2(self._full, self._masked.outputs(edges)[:, self._output].double()) >= fidelity
