"""How far feature rankings are to be trusted: their faithfulness to the model, and their dependence on the baseline.

Deletion and insertion (Petsiuk et al. 2018, arXiv 1806.07421) and infidelity (Yeh et al. 2019, arXiv 1901.09392).
A feature is removed by mean ablation, that is replaced by its mean over the reference windows; zero may lie outside the
data and the grids.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import Baseline, ReferenceBaselines, scaled_baselines, spread_windows
from kanmodel.attribution.effects import forecast_without
from kanmodel.attribution.ledger import explain_windows
from kanmodel.computing import progress_share, tracked
from kanmodel.forecaster import Forecaster
from kanmodel.structure.importance import Importance, rank_correlation, score_features

ComparedBaseline = Literal["mean", "zero", "reference"]
N_BASELINES = 16  # reference windows whose explanations are averaged
N_WINDOWS = 128  # taken evenly from the reference
N_SUBSETS = 16  # of the features, for infidelity


@dataclass(frozen=True)
class Agreement:
    """How far two baselines agree on the features' mean |contribution| over the reference windows.

    Attributes:
        baselines: their kinds; ``reference`` averages over 16 reference windows.
        rank_correlation: Spearman's, of the features' mean |contribution|.
        share_difference: the largest difference between a feature's shares of all mean |contribution|.
        feature: the one with that difference.
    """

    baselines: tuple[ComparedBaseline, ComparedBaseline]
    rank_correlation: float
    share_difference: float
    feature: str


def compare_baselines(model: Forecaster, importance: Importance) -> tuple[Agreement, ...]:
    """Each pair of the baselines ``mean``, ``zero`` and ``reference``, for the output that `importance` is about.

    It takes as long as explaining every reference window many times; with fewer than 16 reference windows, all of them
    are baselines. Pauses between slices.

    Raises:
        DataError: there are fewer than 2 reference windows.
        NonFiniteError: the explanation of a reference window is not finite.
    """
    windows, output = model.reference.scaled, importance.output_index
    several = ReferenceBaselines(min(N_BASELINES, len(windows)))
    with progress_share(1 / (1 + several.count)):
        zero = explain_windows(model, windows, output, Baseline("zero"), detail="features")
    reference = explain_windows(model, windows, output, several, detail="features")
    found: dict[ComparedBaseline, Array] = {"mean": importance.contributions}
    found |= {"zero": zero.contributions, "reference": reference.contributions}
    magnitudes = {kind: np.abs(contributions).mean(axis=0) for kind, contributions in found.items()}
    shares = {kind: magnitude / (magnitude.sum() or 1.0) for kind, magnitude in magnitudes.items()}
    agreements = []
    for a, b in combinations(found, 2):
        difference = np.abs(shares[a] - shares[b])
        largest = int(difference.argmax())
        correlation, name = rank_correlation(magnitudes[a], magnitudes[b]), model.config.feature_names[largest]
        agreements.append(Agreement((a, b), correlation, float(difference[largest]), name))
    return tuple(agreements)


@dataclass(frozen=True)
class Faithfulness:
    """How one way of weighing features does, on windows of the reference; errors in the output's standard deviations.

    Attributes:
        method: ledger; gradient, the magnitude of the plain gradient; random; or pykan_score, where the features
            themselves enter the head KAN (downstream of an LSTM there is no score of a feature).
        deletion: mean change of the forecast while features are removed, most important first; more is better. The mean
            over all numbers of removed features but none and all; of a single feature, the change without it.
        insertion: mean distance to the forecast while they come back, most important first; less is better.
        infidelity: mean squared error of predicting the change when a set of features is removed; less is better; None
            where a method gives an order alone.
    """

    method: str
    deletion: float
    insertion: float
    infidelity: float | None


def measure_faithfulness(model: Forecaster, output: int, seed: int = 0) -> tuple[Faithfulness, ...]:
    """The ledger beside other ways of weighing features; the seed is of the random order and of sets of features."""
    generator = np.random.default_rng(seed)
    windows = spread_windows(model, N_WINDOWS)
    subsets = generator.random((N_SUBSETS, windows.shape[2])) < 0.5
    scale = float(model.scaling.output_scale[output])
    spread = float(model.output_std[output]) / scale  # of the output, model units

    def outputs(gone: NDArray[np.bool_]) -> Array:
        return forecast_without(model, windows, output, gone) / spread

    def judge(method: str, importance: Array, contributions: Array | None) -> Faithfulness:
        """One method: importance is its order, contributions the changes that it predicts, (n, n_features) each."""
        rank = np.argsort(np.argsort(-importance, axis=1, kind="stable"), axis=1)  # (n, n_features), 0 first
        full = outputs(np.zeros(rank.shape, dtype=bool))
        numbers = range(1, max(windows.shape[2], 2))  # removing all says nothing about the order
        with progress_share(0.5):
            gone = [np.abs(outputs(rank < k) - full).mean() for k in tracked(numbers)]
        with progress_share(0.5):
            back = [np.abs(outputs(rank >= k) - full).mean() for k in tracked(numbers)]
        infidelity = None
        if contributions is not None:
            errors = [full - outputs(subset) - contributions @ subset.astype(float) for subset in tracked(subsets)]
            infidelity = float(np.square(errors).mean())
        return Faithfulness(method, float(np.mean(gone)), float(np.mean(back)), infidelity)

    with progress_share(0.4):
        ledger = explain_windows(model, windows, output, detail="features").contributions / (spread * scale)
    with torch.enable_grad():
        points = windows.clone().requires_grad_()
        (slopes,) = torch.autograd.grad(model.network(points)[:, output].sum(), points)
    gradient = slopes.double().numpy() / spread
    by_gradient = (gradient * (windows - scaled_baselines(model)).double().numpy()).sum(axis=1)
    asked: list[tuple[str, Array, Array | None]] = [
        ("ledger", np.abs(ledger), ledger),
        ("gradient", np.abs(gradient).sum(axis=1), by_gradient),
        ("random", generator.random(ledger.shape), generator.permuted(ledger, axis=1)),
    ]
    if (score := score_features(model)) is not None:
        asked.append(("pykan_score", np.broadcast_to(score, ledger.shape), None))
    return tuple(judge(*one) for one in tracked(asked))
