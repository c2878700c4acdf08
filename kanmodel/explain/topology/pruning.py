"""Pruning by what it costs: which edges of the KANs can go, and what the forecast loses.

A pruned edge is replaced by its mean on the reference windows in the full model (``fill="mean"``), or by zero as
pykan does. Replacing by the mean keeps far fewer edges for the same fidelity, since it takes away only what varies.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import InsufficientReferenceError, NonFiniteError
from kanmodel.explain.importance.global_importance import Importance
from kanmodel.explain.structure.connectivity import Kept, Place, connected_nodes, leading_subnodes
from kanmodel.explain.structure.replay import Fidelity, Fill, Replay, measure_fidelity, r2
from kanmodel.explain.structure.scores import MIN_INPUTS, score_traces
from kanmodel.network.chain import Network, Trace
from kanmodel.pausing import Pause, go_on

Metric = Literal["contribution", "backward", "forward_n", "forward_u"]


@dataclass(frozen=True)
class Thresholds:
    """Scores at or below which a part goes; pykan's defaults for the backward score, in model units.

    Attributes:
        node: for nodes of hidden layers. With other metrics than backward, a node scores as its strongest edge onward.
        edge: for edges, scored again without the nodes that went.
        input: for the input nodes of a KAN, scored again without the edges that went.
    """

    node: float = 0.01
    edge: float = 0.03
    input: float = 0.01


@dataclass(frozen=True)
class PruningRule:
    """How to prune: by fidelity, or by thresholds where they are given.

    Attributes:
        metric: what edges are ordered by; None takes, by fidelity, whichever keeps the fewest, and by thresholds
            backward.
        fidelity: the R2 against the full model, on the reference windows, that must be kept.
        thresholds: scores to cut at; they take the place of `fidelity`.
        fill: what stands for a pruned edge.
    """

    metric: Metric | None = None
    fidelity: float | None = 0.99
    thresholds: Thresholds | None = None
    fill: Fill = "mean"


@dataclass(frozen=True)
class Pruning:
    """What a rule keeps.

    Attributes:
        rule: the rule, its metric resolved.
        edges: whether an edge is kept, by (stage, layer).
        nodes: whether a node is kept, by (stage, layer).
        fidelity: what it costs.
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
        """A key that equal sets of edges and nodes share."""
        return b"".join(keep.numpy().tobytes() for kept in (self.edges, self.nodes) for keep in kept.values())


@dataclass(frozen=True)
class FidelityPoint:
    """One point of the curve of cost against size.

    Attributes:
        edges: number of edges that are kept.
        threshold: the score, model units, at or below which edges went.
        fidelity: what that costs.
    """

    edges: int
    threshold: float
    fidelity: Fidelity


def prune_by_rule(model: LoadedModel, importance: Importance, rule: PruningRule, pause: Pause = go_on) -> Pruning:
    """What a rule keeps of a model, for the output that `importance` is about.

    By fidelity: along the order that a metric gives, weakest edges first (ties by stage, layer, i, j), edges go as long
    as the R2 holds; within a KAN, what is cut off from either side goes with them. A network whose outputs are not
    finite holds no fidelity, so it is never what comes out. By thresholds, as pykan's `prune_node`, `prune_edge` and
    `prune_input` in turn: nodes, then edges, then inputs.
    Pauses between the networks that are tried.

    Raises:
        InsufficientReferenceError: the metric is a score, and there are too few reference windows for one.
        NonFiniteError: the thresholds leave a network whose outputs are not finite on the reference windows.
    """
    replay = Replay(model, rule.fill)
    if rule.thresholds is not None:
        metric = rule.metric or "backward"
        edges, nodes = _cut_at_thresholds(model, importance, replay, metric, rule.thresholds)
        fidelity = measure_fidelity(model, importance.output, replay, edges)
        return Pruning(replace(rule, metric=metric, fidelity=None), edges, nodes, fidelity)

    best: Pruning | None = None
    for metric, scores in _edge_scores(model, importance, replay).items():
        if rule.metric not in (None, metric):
            continue
        edges = _cut_by_fidelity(model, importance.output, replay, scores, rule.fidelity or 0.0, pause)
        if best is None or _count(edges) < best.n_edges:
            nodes = connected_nodes(model.network, importance.output, edges)
            fidelity = measure_fidelity(model, importance.output, replay, edges)
            best = Pruning(replace(rule, metric=metric), edges, nodes, fidelity)
    if best is None:
        raise InsufficientReferenceError(
            f"metric {rule.metric} needs at least {MIN_INPUTS} reference windows, "
            f"but the checkpoint holds {len(model.reference.windows)}"
        )
    return best


def trace_fidelity(
    model: LoadedModel,
    importance: Importance,
    metric: Metric = "contribution",
    fill: Fill = "mean",
    pause: Pause = go_on,
) -> tuple[FidelityPoint, ...]:
    """What each number of edges costs along one metric's order, from all edges to none.

    The curve ends before the first number of edges at which an output is not finite: no smaller one holds any fidelity.
    Pauses between the points.

    Raises:
        InsufficientReferenceError: the metric is a score, and there are too few reference windows for one.
    """
    replay = Replay(model, fill)
    scores = _edge_scores_of(model, importance, replay.run(replay.live), metric)
    points = []
    for threshold, kept in _sparser_sets(model, importance.output, replay, scores):
        pause()
        try:
            fidelity = measure_fidelity(model, importance.output, replay, kept)
        except NonFiniteError:
            break
        points.append(FidelityPoint(_count(kept), threshold, fidelity))
    return tuple(points)


def prune_network(model: LoadedModel, pruning: Pruning) -> Network:
    """A new network without the edges that `pruning` drops: masked, and their fill folded into the sub-nodes' bias."""
    fills = Replay(model, pruning.rule.fill).fills
    pruned = copy.deepcopy(model.network)
    for stage, layers in pruned.stages.items():
        for number, layer in enumerate(layers):
            dropped = ~pruning.edges[stage, number] & layer.live
            layer.subnode_bias += layer.subnode_scale * (fills[stage, number] * dropped).sum(dim=1)
            layer.mask_edges(dropped)
    return pruned


def _without_cut_off(model: LoadedModel, output: int, edges: Kept) -> Kept:
    """The edges that lie between connected nodes."""
    nodes = connected_nodes(model.network, output, edges)
    kept: Kept = {}
    for (stage, number), keep in edges.items():
        ends = leading_subnodes(model.network.stages[stage][number], nodes[stage, number + 1])
        kept[stage, number] = keep & ends[:, None] & nodes[stage, number]
    return kept


def _sparser_sets(
    model: LoadedModel, output: int, replay: Replay, scores: dict[Place, Tensor]
) -> Iterator[tuple[float, Kept]]:
    """From all live edges to none, the sets left when the weakest go one by one, and what is cut off with them.

    Yields the highest score of an edge that was removed for its score, and the edges that are kept.
    """
    order = sorted(  # weakest first; of equal ones the last first, so that ties are kept by (stage, layer, i, j)
        (float(scores[place][j, i]), -rank, -i, -j, place)
        for rank, place in enumerate(scores)
        for j, i in replay.live[place].nonzero().tolist()
    )
    remaining = {place: keep.clone() for place, keep in replay.live.items()}
    last = _without_cut_off(model, output, remaining)
    yield 0.0, last
    for score, _, minus_i, minus_j, place in order:
        remaining[place][-minus_j, -minus_i] = False
        sparser = _without_cut_off(model, output, remaining)
        if any(not torch.equal(sparser[place], last[place]) for place in last):
            last = sparser
            yield score, last


def _cut_by_fidelity(
    model: LoadedModel, output: int, replay: Replay, scores: dict[Place, Tensor], fidelity: float, pause: Pause
) -> Kept:
    """The smallest set along the order of `scores` whose R2, and that of every larger set, is at least `fidelity`."""
    full = replay.run(replay.live).outputs[:, output].double()
    best = replay.live  # what is cut off already may count too: a node that nothing enters is a constant
    for _, kept in _sparser_sets(model, output, replay, scores):
        pause()
        if r2(full, replay.run(kept).outputs[:, output].double()) < fidelity:
            break
        best = kept
    return best


def _cut_at_thresholds(
    model: LoadedModel, importance: Importance, replay: Replay, metric: Metric, thresholds: Thresholds
) -> tuple[Kept, Kept]:
    """pykan's `prune_node`, `prune_edge` and `prune_input` in turn, each on the scores of what the one before left.

    As in pykan, no threshold cuts an edge that holds a fixed function.

    Raises:
        NonFiniteError: what one of them leaves has no finite scores for the next.
    """
    edges = {place: keep.clone() for place, keep in replay.live.items()}
    nodes: Kept = {}

    def drop_nodes(stage: str, number: int, keep: Tensor) -> None:
        layers = model.network.stages[stage]
        nodes[stage, number] = keep
        if number > 0:
            edges[stage, number - 1] &= keep[list(layers[number - 1].config.node_of_subnode)][:, None]
        if number < len(layers):
            edges[stage, number] &= keep

    symbolic = {
        (stage, number): layer.is_symbolic
        for stage, layers in model.network.stages.items()
        for number, layer in enumerate(layers)
    }

    def scored(scores: dict[Place, Tensor], before: str) -> Iterator[tuple[Place, Tensor]]:
        for place, values in scores.items():
            if torch.isnan(values).any():
                raise NonFiniteError(
                    f"the {before} that the thresholds keep leave a network that is not finite on the reference "
                    "windows: a function of an edge has left its domain; lower the thresholds"
                )
            yield place, values

    scores = _node_scores(model, importance, replay.run(edges), metric)
    for (stage, number), values in scores.items():
        hidden = 0 < number < len(model.network.stages[stage])
        drop_nodes(stage, number, values > thresholds.node if hidden else torch.ones_like(values, dtype=torch.bool))
    for place, values in scored(_edge_scores_of(model, importance, replay.run(edges), metric), "nodes"):
        edges[place] &= (values > thresholds.edge) | symbolic[place]
    for (stage, number), values in scored(_node_scores(model, importance, replay.run(edges), metric), "edges"):
        if number == 0:
            drop_nodes(stage, 0, values > thresholds.input)
    return edges, nodes


def _edge_scores(model: LoadedModel, importance: Importance, replay: Replay) -> dict[Metric, dict[Place, Tensor]]:
    """Scores of the edges by every metric that there are reference windows enough for."""
    enough = len(model.reference.windows) >= MIN_INPUTS
    metrics: tuple[Metric, ...] = get_args(Metric) if enough else ("contribution",)
    trace = replay.run(replay.live)
    return {metric: _edge_scores_of(model, importance, trace, metric) for metric in metrics}


def _edge_scores_of(model: LoadedModel, importance: Importance, trace: Trace, metric: Metric) -> dict[Place, Tensor]:
    """Scores of edges, model units, (n_subnodes, n_in) by (stage, layer)."""
    if metric == "contribution":
        scale = float(model.scaling.output_scale[importance.output])
        return {
            (stage, number): torch.from_numpy(importance.edges[stage, number].value / scale)
            for stage, layers in model.config.stages.items()
            for number in range(len(layers))
        }
    return {
        (stage, number): values
        for stage, layers in model.network.stages.items()
        for number, values in enumerate(getattr(score_traces(layers, trace.stages[stage]), metric))
    }


def _node_scores(model: LoadedModel, importance: Importance, trace: Trace, metric: Metric) -> dict[Place, Tensor]:
    """Scores of nodes, model units, (n_nodes,) by (stage, layer), the last layer of nodes included."""
    scores: dict[Place, Tensor] = {}
    edge_scores = {} if metric == "backward" else _edge_scores_of(model, importance, trace, metric)
    for stage, layers in model.network.stages.items():
        if metric == "backward":
            values = score_traces(layers, trace.stages[stage]).nodes
            scores |= {(stage, number): value for number, value in enumerate(values)}
            continue
        for number in range(len(layers)):
            scores[stage, number] = edge_scores[stage, number].amax(dim=0)
        scores[stage, len(layers)] = torch.full((layers[-1].config.n_out,), float("inf"))
    return scores


def _count(edges: Kept) -> int:
    return sum(int(keep.sum()) for keep in edges.values())
