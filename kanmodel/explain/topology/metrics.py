"""Pruning metrics: mean |contribution|, or one of pykan's edge and node scores."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import InsufficientReferenceError
from kanmodel.explain.importance.global_importance import ImportanceEstimates
from kanmodel.explain.structure.scores import MIN_INPUTS, KANScores, score_traces
from kanmodel.network.chain import Place, Trace

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
