"""Faithfulness of feature rankings: deletion, insertion and infidelity.

Deletion and insertion (Petsiuk et al. 2018, arXiv 1806.07421) and infidelity (Yeh et al. 2019, arXiv 1901.09392).
A feature is removed by mean ablation, that is replaced by its mean over the reference windows; zero may lie outside the
data and the grids.

How much the importance of the features depends on the baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.computing import pause
from kanmodel.data import Array
from kanmodel.explain.attribution import Explanation, explain_windows
from kanmodel.explain.baseline import Baseline, ReferenceBaselines, scaled_baselines, spread_windows
from kanmodel.explain.importance import ImportanceEstimates, rank_correlation
from kanmodel.explain.scores import MIN_INPUTS, score_layers

ComparedBaseline = Literal["mean", "zero", "reference"]
N_BASELINES = 16  # reference windows whose ledgers are averaged


@dataclass(frozen=True)
class Agreement:
    """How far two baselines agree on the features, over the reference windows.

    Attributes:
        baselines: their kinds.
        rank_correlation: Spearman's, of the features' mean |contribution|.
        share_difference: largest difference between a feature's shares of all mean |contribution|.
        feature: the feature with that difference.
    """

    baselines: tuple[ComparedBaseline, ComparedBaseline]
    rank_correlation: float
    share_difference: float
    feature: str


def compare_baselines(model: LoadedModel, importance: ImportanceEstimates) -> tuple[Agreement, ...]:
    """Each pair of the baselines ``mean``, ``zero`` and ``reference``, for the output that `importance` is about.

    It takes as long as explaining every reference window many times; with fewer than 16 reference windows, all of them
    are baselines. Pauses between slices.

    Raises:
        DataError: there are fewer than 2 reference windows.
        NonFiniteError: the ledger of a reference window is not finite.
    """
    windows, output = model.reference.windows, importance.output
    ledgers: dict[ComparedBaseline, Explanation] = {
        "zero": explain_windows(model, windows, output, Baseline("zero")),
        "reference": explain_windows(model, windows, output, ReferenceBaselines(min(N_BASELINES, len(windows)))),
    }
    sizes: dict[ComparedBaseline, Array] = {"mean": importance.features.value}
    sizes |= {kind: np.abs(ledger.contributions).mean(axis=0) for kind, ledger in ledgers.items()}
    shares = {kind: size / (size.sum() or 1.0) for kind, size in sizes.items()}
    agreements = []
    for a, b in combinations(sizes, 2):
        difference = np.abs(shares[a] - shares[b])
        largest = int(difference.argmax())
        agreements.append(
            Agreement(
                baselines=(a, b),
                rank_correlation=rank_correlation(sizes[a], sizes[b]),
                share_difference=float(difference[largest]),
                feature=model.config.feature_names[largest],
            )
        )
    return tuple(agreements)


N_WINDOWS = 128  # taken evenly from the reference
N_SUBSETS = 16  # of the features, for infidelity


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


def measure_faithfulness(model: LoadedModel, output: int, seed: int = 0) -> tuple[Faithfulness, ...]:
    """The ledger beside other ways of weighing features.

    Args:
        model: the model.
        output: number of the output.
        seed: of the random order and of the sets of features.
    """
    generator = np.random.default_rng(seed)
    reference = model.reference.windows
    windows = spread_windows(model, N_WINDOWS)
    start = scaled_baselines(model)
    spread = float(model.output_std[output]) / float(model.scaling.output_scale[output])
    trial = _Trial(model, output, windows, start, spread, generator.random((N_SUBSETS, windows.shape[2])) < 0.5)

    ledger = explain_windows(model, windows, output).contributions / (spread * model.scaling.output_scale[output])
    gradient = _gradient(model, windows, output) / spread
    by_gradient = (gradient * (windows - start).double().numpy()).sum(axis=1)
    rows = [
        trial.judge("ledger", np.abs(ledger), ledger),
        trial.judge("gradient", np.abs(gradient).sum(axis=1), by_gradient),
        trial.judge("random", generator.random(ledger.shape), generator.permuted(ledger, axis=1)),
    ]
    if model.config.reads_features and len(reference) >= MIN_INPUTS:
        score = (
            score_layers(model.network.stages["head"], model.network.encode(reference)).feature_score.double().numpy()
        )
        rows.append(trial.judge("pykan_score", np.broadcast_to(score, ledger.shape), None))
    return tuple(rows)


def _gradient(model: LoadedModel, windows: Tensor, output: int) -> Array:
    """Gradient of an output at each window, (n, lookback, n_features), model units."""
    with torch.enable_grad():
        points = windows.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model.network(points)[:, output].sum(), points)
    values: Array = gradient.double().numpy()
    return values


@dataclass(frozen=True)
class _Trial:
    """The windows, the values of removed features, and the sets of features (n_subsets, n_features)."""

    model: LoadedModel
    output: int
    windows: Tensor
    start: Tensor
    spread: float
    subsets: np.ndarray[tuple[int, int], np.dtype[np.bool_]]

    def judge(self, method: str, importance: Array, contributions: Array | None) -> Faithfulness:
        """One method: importance is its order, contributions the changes that it predicts, (n, n_features) each."""
        n_features = self.windows.shape[2]
        rank = np.argsort(np.argsort(-importance, axis=1, kind="stable"), axis=1)  # (n, n_features), 0 first
        full = self.outputs(np.zeros(rank.shape, dtype=bool))
        numbers = range(1, max(n_features, 2))  # removing all says nothing about the order
        gone = [np.abs(self.outputs(rank < k) - full).mean() for k in numbers]
        back = [np.abs(self.outputs(rank >= k) - full).mean() for k in numbers]
        infidelity = None
        if contributions is not None:
            errors = [
                full - self.outputs(np.broadcast_to(subset, rank.shape)) - contributions @ subset.astype(float)
                for subset in self.subsets
            ]
            infidelity = float(np.square(errors).mean())
        return Faithfulness(method, float(np.mean(gone)), float(np.mean(back)), infidelity)

    def outputs(self, gone: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Array:
        """The output without the features marked (n, n_features), in its standard deviations."""
        pause()
        mask = torch.from_numpy(gone.copy())[:, None, :]
        with torch.inference_mode():
            outputs = self.model.network(torch.where(mask, self.start, self.windows))
        values: Array = outputs[:, self.output].double().numpy() / self.spread
        return values
