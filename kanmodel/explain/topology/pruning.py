"""Pruning by fidelity: how many KAN edges can be removed, and what the forecast loses.

A pruned edge is replaced by its mean over the reference windows in the full model (``fill="mean"``, mean ablation), or
by zero as in pykan. Mean ablation needs far fewer edges for the same fidelity, since it removes only the variation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import NonFiniteError
from kanmodel.explain.importance.global_importance import ImportanceEstimates
from kanmodel.explain.structure.connectivity import Kept, connected_nodes, leading_subnodes
from kanmodel.explain.structure.replay import Fidelity, Fill, Replay, measure_fidelity, r2
from kanmodel.explain.topology.metrics import Metric, score_edges, usable_metrics
from kanmodel.explain.topology.thresholds import Thresholds, cut_at_thresholds
from kanmodel.network.chain import Network, Place
from kanmodel.pausing import Pause, go_on


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


def prune_by_rule(
    model: LoadedModel, importance: ImportanceEstimates, rule: PruningRule, pause: Pause = go_on
) -> Pruning:
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
    replay, output = Replay(model, rule.fill), importance.output
    if rule.thresholds is not None:
        metric = rule.metric or "backward"
        edges, nodes = cut_at_thresholds(model, importance, replay, metric, rule.thresholds)
        rule = replace(rule, metric=metric, fidelity=None)
    else:
        trace, kept = replay.run(replay.live), {}
        for metric in (rule.metric,) if rule.metric else usable_metrics(model):
            scores = score_edges(model, importance, trace, metric)
            kept[metric] = _cut_by_fidelity(model, output, replay, scores, rule.fidelity or 0.0, pause)
        metric = min(kept, key=lambda metric: _count(kept[metric]))
        edges, nodes = kept[metric], connected_nodes(model.network, output, kept[metric])
        rule = replace(rule, metric=metric)
    return Pruning(rule, edges, nodes, measure_fidelity(model, output, replay, edges))


def trace_fidelity(
    model: LoadedModel,
    importance: ImportanceEstimates,
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
    scores = score_edges(model, importance, replay.run(replay.live), metric)
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
    for place, layer in pruned.layers.items():
        dropped = ~pruning.edges[place] & layer.live
        layer.subnode_bias += layer.subnode_scale * (fills[place] * dropped).sum(dim=1)
        layer.mask_edges(dropped)
    return pruned


def _without_cut_off(model: LoadedModel, output: int, edges: Kept) -> Kept:
    """The edges that lie between connected nodes."""
    nodes = connected_nodes(model.network, output, edges)
    return {
        (stage, number): edges[stage, number]
        & leading_subnodes(layer, nodes[stage, number + 1])[:, None]
        & nodes[stage, number]
        for (stage, number), layer in model.network.layers.items()
    }


def _sparser_sets(
    model: LoadedModel, output: int, replay: Replay, scores: Mapping[Place, Tensor]
) -> Iterator[tuple[float, Kept]]:
    """The sets of edges left while the weakest are removed one by one, with what is cut off by it, from all to none.

    Of equally strong edges the last by (stage, layer, i, j) goes first. Yields the highest score of an edge that was
    removed for its score, and the edges that are kept.
    """
    live = [(place, i, j) for place in scores for i, j in replay.live[place].T.nonzero().tolist()]
    scored = [(float(scores[place][j, i]), place, i, j) for place, i, j in live]
    strongest_first = sorted(scored, key=lambda edge: edge[0], reverse=True)  # equal ones stay in their order
    remaining = {place: keep.clone() for place, keep in replay.live.items()}
    last = _without_cut_off(model, output, remaining)
    yield 0.0, last
    for score, place, i, j in reversed(strongest_first):
        remaining[place][j, i] = False
        sparser = _without_cut_off(model, output, remaining)
        if any(not torch.equal(sparser[place], last[place]) for place in last):
            last = sparser
            yield score, last


def _cut_by_fidelity(
    model: LoadedModel, output: int, replay: Replay, scores: Mapping[Place, Tensor], fidelity: float, pause: Pause
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


def _count(edges: Kept) -> int:
    return sum(int(keep.sum()) for keep in edges.values())
