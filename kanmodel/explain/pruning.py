"""Pruning of KAN edges by fidelity: the weakest are removed while the forecasts keep an R2 against the full model.

A pruned edge is replaced by its mean over the reference windows in the full model (``fill="mean"``, mean ablation), or
by zero as in pykan. Mean ablation usually needs fewer edges for the same fidelity, since it removes only the variation.

Removing edges one at a time takes one forward pass per edge, so the time grows with the square of their number. Large
networks therefore lose edges in groups of equal size; see `count_at_once`.

The forward pass over the reference windows with some edges replaced (mean ablation), and its fidelity.

Pruning metrics: mean |contribution|, or one of pykan's edge and node scores.

Pruning by thresholds, as in pykan 0.2.8: `prune_node`, `prune_edge` and `prune_input` in turn.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.computing import pause
from kanmodel.errors import InsufficientReferenceError, NonFiniteError
from kanmodel.explain.importance import ImportanceEstimates
from kanmodel.explain.scores import MIN_INPUTS, KANScores, score_traces
from kanmodel.explain.structure import Kept, connected_nodes, leading_subnodes, passing_by_layer
from kanmodel.network.chain import Network, Place, Trace, trace_chain
from kanmodel.network.layer import LayerTrace

Fill = Literal["mean", "zero"]


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


class Replay:
    """A forward pass over the reference windows in which masked edges are replaced by a constant.

    Args:
        model: the model; it is not changed.
        fill: the value of an edge that is not kept.

    Attributes:
        live: the edges that the model itself has not masked.
        fills: the value of each edge when it is not kept, (n_subnodes, n_in) by (stage, layer).
    """

    def __init__(self, model: LoadedModel, fill: Fill = "mean") -> None:
        self._network, self._windows = model.network, model.reference.windows
        self._layers = model.network.layers
        self._first = next(iter(self._layers))  # the layer whose inputs no edge changes
        with torch.no_grad():
            self._full = model.network.trace(self._windows)
        self.live: Kept = {place: layer.live for place, layer in self._layers.items()}
        self.fills = {
            (stage, number): trace.edges.mean(dim=0) if fill == "mean" else torch.zeros_like(trace.edges[0])
            for stage, traces in self._full.stages.items()
            for number, trace in enumerate(traces)
        }

    @torch.no_grad()
    def run(self, kept: Kept) -> Trace:
        """The activations with the kept edges alone; edges that are not kept are 0 in the trace."""

        def through(stage: str, number: int, x: Tensor) -> LayerTrace:
            layer, full, keep = self._layers[stage, number], self._full.stages[stage][number], kept[stage, number]
            edges = full.edges if (stage, number) == self._first else layer.edges(x)
            edges = torch.where(keep, edges, 0 * x[:, None])  # NaN where an input is, as behind a mask of 0
            subnodes = edges.sum(dim=2) + (self.fills[stage, number] * ~keep).sum(dim=1)
            return LayerTrace(x, edges, subnodes, layer.nodes(subnodes))

        def read_out(steps: Tensor) -> Tensor:
            return self._full.readout if self._first == ("head", 0) else self._network.read_out(steps)

        return trace_chain(self._network.config, self._windows, through, read_out)


def measure_fidelity(model: LoadedModel, output: int, replay: Replay, edges: Kept) -> Fidelity:
    """The fidelity of one output with these edges alone.

    Raises:
        NonFiniteError: an output without the other edges is not finite.
    """
    return compare_outputs(model, output, replay.run(replay.live).outputs, replay.run(edges).outputs)


def compare_outputs(model: LoadedModel, output: int, full: Tensor, pruned: Tensor) -> Fidelity:
    """The fidelity of one output, from all outputs for the reference windows, (n, n_outputs), model units.

    Raises:
        NonFiniteError: the pruned output is not finite for a window, or too large for an R2.
    """
    full, pruned = full[:, output].double(), pruned[:, output].double()
    kept = r2(full, pruned)
    if not isfinite(kept):
        n_lost = int((~torch.isfinite(pruned)).sum())
        raise NonFiniteError(
            f"the pruned network's output {model.config.outputs[output]} is not finite for {n_lost} of {len(pruned)} "
            "reference windows: a function of an edge has left its domain; keep more edges"
            if n_lost
            else f"the pruned network's output {model.config.outputs[output]} is too large for an R2; keep more edges"
        )
    if model.reference.targets is None:
        return Fidelity(kept, None, None)
    targets = torch.from_numpy(model.reference.targets)[:, output]
    scale, mean = float(model.scaling.output_scale[output]), float(model.scaling.output_mean[output])
    errors = [float((outputs * scale + mean - targets).abs().mean()) for outputs in (pruned, full)]
    return Fidelity(kept, *errors)


def r2(full: Tensor, pruned: Tensor) -> float:
    """Coefficient of determination of pruned outputs against full ones, (n,).

    Of constant full outputs it is 1 if the pruned ones are equal, else 0. It is minus infinity where a pruned output is
    not finite, so that no fidelity is ever held.
    """
    if not torch.isfinite(pruned).all():
        return float("-inf")
    deviation = full - full.mean()
    size = float(deviation.abs().max())
    if size == 0:
        return float(torch.equal(pruned, full))
    lost, spread = (float(((values / size) ** 2).sum()) for values in (pruned - full, deviation))
    return 1 - lost / spread


Metric = Literal["contribution", "backward", "forward_n", "forward_u"]


def usable_metrics(model: LoadedModel) -> tuple[Metric, ...]:
    """The metrics that the number of reference windows is sufficient for."""
    metrics: tuple[Metric, ...] = get_args(Metric)
    return metrics if len(model.reference.windows) >= MIN_INPUTS else ("contribution",)


def score_edges(
    model: LoadedModel, importance: ImportanceEstimates, trace: Trace, metric: Metric
) -> dict[Place, Tensor]:
    """Scores of edges, model units, (n_subnodes, n_in) by (stage, layer).

    Args:
        model: the model.
        importance: its contributions to an output.
        trace: activations on the reference windows, for pykan's scores.
        metric: which score.

    Raises:
        InsufficientReferenceError: the metric is a score of pykan, and there are too few reference windows for one.
    """
    if metric == "contribution":
        scale = float(model.scaling.output_scale[importance.output])
        return {place: torch.from_numpy(importance.edges[place].value / scale) for place in model.network.layers}
    return {
        (stage, number): values
        for stage, scores in _pykan_scores(model, trace, metric).items()
        for number, values in enumerate(getattr(scores, metric))
    }


def score_nodes(
    model: LoadedModel, importance: ImportanceEstimates, trace: Trace, metric: Metric
) -> dict[Place, Tensor]:
    """Scores of nodes, model units, (n_nodes,) by (stage, layer), the last layer of nodes included.

    The backward metric scores nodes directly. With any other metric, the score of a node is that of its strongest
    outgoing edge, and infinity in the last layer of a stage. Arguments and errors as in `score_edges`.
    """
    if metric == "backward":
        scores = _pykan_scores(model, trace, metric)
        return {(stage, number): values for stage in scores for number, values in enumerate(scores[stage].nodes)}
    strongest = {place: edges.amax(dim=0) for place, edges in score_edges(model, importance, trace, metric).items()}
    last = {(stage, len(layers)): layers[-1].node_bias for stage, layers in model.network.stages.items()}
    return strongest | {place: torch.full_like(nodes, float("inf")) for place, nodes in last.items()}


def _pykan_scores(model: LoadedModel, trace: Trace, metric: Metric) -> dict[str, KANScores]:
    n_windows = len(model.reference.windows)
    if n_windows < MIN_INPUTS:
        raise InsufficientReferenceError(
            f"metric {metric} needs at least {MIN_INPUTS} reference windows, but the checkpoint holds {n_windows}"
        )
    return {stage: score_traces(layers, trace.stages[stage]) for stage, layers in model.network.stages.items()}


@dataclass(frozen=True)
class Thresholds:
    """Scores at or below which a part is removed, model units; the defaults are pykan's for the backward score.

    Attributes:
        node: for nodes of hidden layers. With a metric other than backward, the score of a node is that of its
            strongest outgoing edge.
        edge: for edges, scored again without the removed nodes.
        input: for the input nodes of a KAN, scored again without the removed edges.
    """

    node: float = 0.01
    edge: float = 0.03
    input: float = 0.01


def cut_at_thresholds(
    model: LoadedModel, importance: ImportanceEstimates, replay: Replay, metric: Metric, thresholds: Thresholds
) -> tuple[Kept, Kept]:
    """Removes nodes, then edges, then inputs, scoring each on the network that the step before left.

    As in pykan, the edge threshold does not apply to edges with a symbolic function.

    Returns:
        The kept edges and the kept nodes.

    Raises:
        InsufficientReferenceError: the metric is a score of pykan, and there are too few reference windows for one.
        NonFiniteError: the scores of the network that a step leaves are NaN.
    """
    network = model.network
    scores = score_nodes(model, importance, replay.run(replay.live), metric)
    nodes = {(stage, layer): values > thresholds.node for (stage, layer), values in scores.items()}
    for stage, layers in network.stages.items():  # only hidden nodes are removed
        nodes |= {(stage, end): torch.ones_like(nodes[stage, end]) for end in (0, len(layers))}
    edges = edges_between(network, replay.live, nodes)

    scores = score_edges(model, importance, replay.run(edges), metric)
    _refuse_nan(scores, "nodes")
    for place, layer in network.layers.items():
        edges[place] &= (scores[place] > thresholds.edge) | layer.is_symbolic

    scores = score_nodes(model, importance, replay.run(edges), metric)
    _refuse_nan(scores, "edges")
    nodes |= {(stage, 0): scores[stage, 0] > thresholds.input for stage in network.stages}
    return edges_between(network, edges, nodes), nodes


def edges_between(network: Network, edges: Kept, nodes: Kept) -> Kept:
    """The edges whose source and target are both among the nodes."""
    return {
        (stage, number): edges[stage, number]
        & nodes[stage, number + 1][list(layer.config.node_of_subnode)][:, None]
        & nodes[stage, number]
        for (stage, number), layer in network.layers.items()
    }


def _refuse_nan(scores: Mapping[Place, Tensor], left: str) -> None:
    if any(bool(torch.isnan(values).any()) for values in scores.values()):
        raise NonFiniteError(
            f"the {left} that the thresholds keep leave a network that is not finite on the reference windows: a "
            "function of an edge has left its domain; lower the thresholds"
        )


EdgePlace = tuple[str, int, int, int]  # stage, layer, i, j
EVALUATIONS = 4e9  # budget of edge function evaluations per metric


@dataclass(frozen=True)
class PruningRule:
    """How to prune: by fidelity, or by thresholds where they are given.

    Attributes:
        metric: the order of edges; None stands for the metric that keeps the fewest edges at the fidelity, and for
            backward with thresholds.
        fidelity: the smallest accepted R2 against the full model on the reference windows.
        thresholds: scores at or below which parts are removed; if given, `fidelity` is ignored.
        fill: what replaces a pruned edge: its mean over the reference windows, or zero.
        without: edges to remove in any case, after the rest of the rule; sorted, without duplicates.
    """

    metric: Metric | None = None
    fidelity: float | None = 0.99
    thresholds: Thresholds | None = None
    fill: Fill = "mean"
    without: tuple[EdgePlace, ...] = ()


@dataclass(frozen=True)
class Pruning:
    """The edges and nodes that a rule keeps.

    Attributes:
        rule: the rule, its metric resolved.
        edges: whether an edge is kept, by (stage, layer).
        nodes: whether a node is kept, by (stage, layer).
        fidelity: of the pruned network.
    """

    rule: PruningRule
    edges: Kept
    nodes: Kept
    fidelity: Fidelity

    @property
    def n_edges(self) -> int:
        """Number of edges that are kept."""
        return _count(self.edges)

    @property
    def kept(self) -> bytes:
        """A cache key: equal for equal sets of edges and nodes."""
        return b"".join(keep.numpy().tobytes() for kept in (self.edges, self.nodes) for keep in kept.values())


@dataclass(frozen=True)
class FidelityPoint:
    """One point of the curve of fidelity against the number of edges.

    Attributes:
        edges: number of edges that are kept.
        threshold: the highest score of an edge that was removed by its score, model units; 0 if none was.
        fidelity: of the network with these edges.
    """

    edges: int
    threshold: float
    fidelity: Fidelity


def prune_by_rule(model: LoadedModel, importance: ImportanceEstimates, rule: PruningRule) -> Pruning:
    """Prunes a model by a rule, for the output of `importance`.

    By fidelity: removes edges in the order of a metric, weakest first, as long as the R2 is at least `rule.fidelity`;
    of edges with equal scores, the last by (stage, layer, i, j) goes first. Edges and nodes of a KAN that are then cut
    off from its inputs or outputs are removed too. Large networks lose edges in groups (`count_at_once`) until a group
    lowers the R2 too far, and then the edges of that group one at a time. A network with an output that is not finite
    is below any fidelity.

    By thresholds: removes nodes, then edges, then inputs, as pykan's `prune_node`, `prune_edge` and `prune_input`.

    The edges of `rule.without` are removed last, whatever the fidelity; see `remove_edges`. Calls `pause` between the
    networks that are tried.

    Raises:
        InsufficientReferenceError: the metric is a score, and there are too few reference windows for one.
        NonFiniteError: the thresholds, or the edges of `without`, leave a network whose output is not finite on the
            reference windows.
    """
    if rule.without:
        pruning = prune_by_rule(model, importance, replace(rule, without=()))
        return remove_edges(model, importance.output, pruning, rule.without)
    replay, output = Replay(model, rule.fill), importance.output
    if rule.thresholds is not None:
        metric = rule.metric or "backward"
        edges, nodes = cut_at_thresholds(model, importance, replay, metric, rule.thresholds)
        rule = replace(rule, metric=metric, fidelity=None)
    else:
        trace, kept = replay.run(replay.live), {}
        for metric in (rule.metric,) if rule.metric else usable_metrics(model):
            scores = score_edges(model, importance, trace, metric)
            kept[metric] = _cut_by_fidelity(model, output, replay, scores, rule.fidelity or 0.0)
        metric = min(kept, key=lambda metric: _count(kept[metric]))
        edges, nodes = kept[metric], connected_nodes(model.network, output, kept[metric])
        rule = replace(rule, metric=metric)
    return Pruning(rule, edges, nodes, measure_fidelity(model, output, replay, edges))


def remove_edges(model: LoadedModel, output: int, pruning: Pruning, without: tuple[EdgePlace, ...]) -> Pruning:
    """Removes more edges from a pruning.

    Nodes that this disconnects from the inputs or the outputs of their KAN are removed with their edges. Nodes that
    `pruning` keeps although they are not connected stay.

    Raises:
        NonFiniteError: the output is then not finite on the reference windows.
    """
    edges = {place: keep.clone() for place, keep in pruning.edges.items()}
    for stage, layer, i, j in without:
        edges[stage, layer][j, i] = False
    before, after = (connected_nodes(model.network, output, kept) for kept in (pruning.edges, edges))
    cut_off = {place: before[place] & ~after[place] for place in before}
    edges = edges_between(model.network, edges, {place: ~nodes for place, nodes in cut_off.items()})
    nodes = {place: keep & ~cut_off[place] for place, keep in pruning.nodes.items()}
    fidelity = measure_fidelity(model, output, Replay(model, pruning.rule.fill), edges)
    return Pruning(replace(pruning.rule, without=without), edges, nodes, fidelity)


def trace_fidelity(
    model: LoadedModel,
    importance: ImportanceEstimates,
    metric: Metric = "contribution",
    fill: Fill = "mean",
) -> tuple[FidelityPoint, ...]:
    """Fidelity against the number of kept edges, removed in the order of one metric, from all edges to none.

    Large networks lose edges in groups of `count_at_once`. The curve ends before the first network whose output is not
    finite, as pruning by fidelity does. Calls `pause` between the points.

    Raises:
        InsufficientReferenceError: the metric is a score, and there are too few reference windows for one.
    """
    replay, output = Replay(model, fill), importance.output
    full = replay.run(replay.live)
    weakest_first = _order_edges(replay, score_edges(model, importance, full, metric))
    points = []
    for cut in _cut_weakest(model, output, replay, weakest_first, count_at_once(model)):
        pause()
        try:
            fidelity = compare_outputs(model, output, full.outputs, replay.run(cut.edges).outputs)
        except NonFiniteError:
            break
        points.append(FidelityPoint(_count(cut.edges), cut.threshold, fidelity))
    return tuple(points)


def count_at_once(model: LoadedModel) -> int:
    """The number of edges removed per step, so that all steps together take about `EVALUATIONS` at most.

    One up to about 2,800 edges of a head without a front over 512 reference windows.
    """
    config = model.config
    front, head = (sum(layer.n_in * layer.n_subnodes for layer in layers) for layers in (config.front, config.head))
    of_network = len(model.reference.windows) * (config.lookback * front + head)
    return math.ceil((front + head) * of_network / EVALUATIONS)


def prune_network(model: LoadedModel, pruning: Pruning) -> Network:
    """A new network with the pruned edges masked and their fill added to the bias of their sub-nodes."""
    fills = Replay(model, pruning.rule.fill).fills
    pruned = copy.deepcopy(model.network)
    for place, layer in pruned.layers.items():
        dropped = ~pruning.edges[place] & layer.live
        layer.subnode_bias += layer.subnode_scale * (fills[place] * dropped).sum(dim=1)
        layer.mask_edges(dropped)
    return pruned


def _without_cut_off(model: LoadedModel, output: int, edges: Kept, passing: Kept) -> Kept:
    """The edges between connected nodes; `passing` is from `passing_by_layer`."""
    nodes = connected_nodes(model.network, output, edges, passing)
    return {
        (stage, number): edges[stage, number]
        & leading_subnodes(layer, nodes[stage, number + 1], passing[stage, number])[:, None]
        & nodes[stage, number]
        for (stage, number), layer in model.network.layers.items()
    }


class _Cut(NamedTuple):
    """The edges kept after the weakest are removed.

    Attributes:
        n_weakest: number of edges removed by their score.
        threshold: the highest score among these, 0 if there are none.
        edges: the kept edges, without those that are cut off from the inputs or the output.
    """

    n_weakest: int
    threshold: float
    edges: Kept


_Scored = tuple[float, Place, int, int]  # score, place, i, j


def _order_edges(replay: Replay, scores: Mapping[Place, Tensor]) -> list[_Scored]:
    """The live edges, weakest first; of edges with equal scores, the last by (stage, layer, i, j) first."""
    live = [(place, i, j) for place in scores for i, j in replay.live[place].T.nonzero().tolist()]
    scored = [(float(scores[place][j, i]), place, i, j) for place, i, j in live]
    return sorted(scored, key=lambda edge: edge[0], reverse=True)[::-1]  # sorting is stable


def _cut_weakest(
    model: LoadedModel, output: int, replay: Replay, weakest_first: Sequence[_Scored], at_once: int, start: int = 0
) -> Iterator[_Cut]:
    """Yields a cut per `at_once` edges, from all live edges but the `start` weakest to none; each set of edges once."""
    remaining = {place: keep.clone() for place, keep in replay.live.items()}
    last: Kept | None = None
    n_weakest, passing = 0, passing_by_layer(model.network)
    for end in (*range(start, len(weakest_first), at_once), len(weakest_first)):
        for _, place, i, j in weakest_first[n_weakest:end]:
            remaining[place][j, i] = False
        n_weakest = end
        edges = _without_cut_off(model, output, remaining, passing)
        if last is None or any(not torch.equal(edges[place], last[place]) for place in last):
            last = edges
            yield _Cut(end, weakest_first[end - 1][0] if end else 0.0, edges)


def _cut_by_fidelity(
    model: LoadedModel, output: int, replay: Replay, scores: Mapping[Place, Tensor], fidelity: float
) -> Kept:
    """The smallest set along the order of `scores` such that it and every larger set tried keep the fidelity.

    Tries every set if `count_at_once` is 1.
    """
    weakest_first = _order_edges(replay, scores)
    full = replay.run(replay.live).outputs[:, output].double()
    # Edges that are cut off already may have an effect: a node without inputs is a constant.
    best, n_weakest = replay.live, 0
    for at_once in sorted({count_at_once(model), 1}, reverse=True):
        for cut in _cut_weakest(model, output, replay, weakest_first, at_once, n_weakest):
            pause()
            if r2(full, replay.run(cut.edges).outputs[:, output].double()) < fidelity:
                break
            best, n_weakest = cut.edges, cut.n_weakest
    return best


def _count(edges: Kept) -> int:
    return sum(int(keep.sum()) for keep in edges.values())
