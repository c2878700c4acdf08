"""The table of features: importance, permutation importance, intervals and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.importance.global_importance import ImportanceEstimates
from kanmodel.explain.structure.connectivity import connected_features
from kanmodel.explain.structure.scores import MIN_INPUTS, score_layers

Verdict = Literal["disconnected", "negligible", "important", "weak"]
IMPORTANT = 0.5  # times the even share 1 / n_features: the least that an important feature has
NEGLIGIBLE = 0.2  # times the even share: what a negligible feature stays below
REDUNDANT_CORRELATION = 0.9


@dataclass(frozen=True)
class Partner:
    """A feature that is nearly collinear with another on the reference windows.

    Attributes:
        name: its name.
        correlation: Pearson's, over all windows and steps; |correlation| >= 0.9.
    """

    name: str
    correlation: float


@dataclass(frozen=True)
class Attribution:
    """One feature's row; contributions, intervals and errors in the target's unit, intervals of 95 %.

    Attributes:
        name: the feature.
        rank: 1 for the largest mean |contribution|.
        verdict: the first that holds, where the even share is 1 / n_features: ``disconnected``, no path of live edges
            and nonzero weights leads to the output, and its contribution is exactly 0; ``important``, the lower bound
            of its share is at least 0.5 even shares, and that of its permutation effect above 0 where targets are
            known; ``negligible``, the upper bound of its share is below 0.2 even shares, and the interval of its
            permutation effect includes 0 where targets are known; else ``weak``.
        connected: whether such a path exists.
        mean_abs_contribution: mean magnitude of its contribution, summed over steps.
        interval: of that mean.
        mean_contribution: signed mean.
        share: of all features' mean |contribution|.
        share_interval: of the share.
        permutation_mae_increase: growth of the mean absolute error when its series are permuted between windows; None
            where targets are unknown.
        permutation_interval: of that growth.
        pykan_feature_score: pykan's `feature_score`, where the features themselves enter the head KAN; else None, since
            it would be about LSTM units.
        redundant_with: features with |correlation| >= 0.9: the model may use either in the other's place.
    """

    name: str
    rank: int
    verdict: Verdict
    connected: bool
    mean_abs_contribution: float
    interval: tuple[float, float]
    mean_contribution: float
    share: float
    share_interval: tuple[float, float]
    permutation_mae_increase: float | None
    permutation_interval: tuple[float, float] | None
    pykan_feature_score: float | None
    redundant_with: tuple[Partner, ...]


def attribute_features(model: LoadedModel, importance: ImportanceEstimates) -> tuple[Attribution, ...]:
    """The rows of all features, most important first."""
    names = model.config.feature_names
    connected = connected_features(model.network, importance.output)
    redundant = _partners(model)
    scores = None
    if model.config.reads_features and len(model.reference.windows) >= MIN_INPUTS:
        scores = score_layers(model.network.stages["head"], model.network.encode(model.reference.windows)).feature_score
    order = np.argsort(-importance.features.value, kind="stable")
    rows = []
    for rank, feature in enumerate(order.tolist(), start=1):
        rows.append(
            Attribution(
                name=names[feature],
                rank=rank,
                connected=connected[feature],
                pykan_feature_score=None if scores is None else float(scores[feature]),
                redundant_with=redundant[feature],
                **describe_figures(importance, feature, connected[feature], len(names)),
            )
        )
    return tuple(rows)


def describe_figures(estimates: ImportanceEstimates, number: int, connected: bool, n_shares: int) -> dict[str, Any]:
    """The figures of one feature or group, and its verdict, by the names of `Attribution`'s fields.

    Args:
        estimates: of all features or groups.
        number: the index of this one.
        connected: whether a path leads from it to the output.
        n_shares: see `judge`.
    """
    share, effect = estimates.share.bounds(number), estimates.permutation
    effect_interval = None if effect is None else effect.bounds(number)
    return {
        "verdict": judge(connected, share, n_shares, effect_interval),
        "mean_abs_contribution": float(estimates.features.value[number]),
        "interval": estimates.features.bounds(number),
        "mean_contribution": float(estimates.mean_contribution[number]),
        "share": float(estimates.share.value[number]),
        "share_interval": share,
        "permutation_mae_increase": None if effect is None else float(effect.value[number]),
        "permutation_interval": effect_interval,
    }


def judge(connected: bool, share: tuple[float, float], n_shares: int, effect: tuple[float, float] | None) -> Verdict:
    """The verdict on a feature, as `Attribution` has it.

    Args:
        connected: whether a path leads from it to the output.
        share: interval of its share.
        n_shares: the number of features or groups whose shares sum to 1; the even share is 1 / n_shares.
        effect: interval of its permutation effect; None where targets are unknown.
    """
    if not connected:
        return "disconnected"
    if share[0] >= IMPORTANT / n_shares and (effect is None or effect[0] > 0):
        return "important"
    no_effect = effect is None or effect[0] <= 0 <= effect[1]
    return "negligible" if share[1] < NEGLIGIBLE / n_shares and no_effect else "weak"


def _partners(model: LoadedModel) -> Sequence[tuple[Partner, ...]]:
    """For each feature those it correlates with; a constant feature correlates with none."""
    values = model.reference.windows.double().flatten(0, 1).numpy()
    centred = values - values.mean(axis=0)
    size = np.sqrt((centred**2).sum(axis=0))
    varies = np.ptp(values, axis=0) > 0  # the size of a constant one is not 0 but the rounding of its mean
    scaled = np.divide(centred, size, out=np.zeros_like(centred), where=varies)
    correlation = scaled.T @ scaled
    names = model.config.feature_names
    return [
        tuple(
            Partner(names[other], float(correlation[feature, other]))
            for other in np.argsort(-np.abs(correlation[feature]), kind="stable").tolist()
            if other != feature and abs(correlation[feature, other]) >= REDUNDANT_CORRELATION
        )
        for feature in range(len(names))
    ]
