"""How much the importance of the features depends on the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.importance.global_importance import ImportanceEstimates
from kanmodel.explain.importance.ranks import rank_correlation
from kanmodel.explain.paths.baseline import Baseline
from kanmodel.explain.paths.expected import explain_expected
from kanmodel.explain.paths.ledger import Ledger, explain_windows
from kanmodel.scaling import Array

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
    ledgers: dict[ComparedBaseline, Ledger] = {
        "zero": explain_windows(model, windows, output, Baseline("zero")),
        "reference": explain_expected(model, windows, output, min(N_BASELINES, len(windows))),
    }
    sizes: dict[ComparedBaseline, Array] = {"mean": importance.features.value}
    sizes |= {kind: np.abs(ledger.features).mean(axis=0) for kind, ledger in ledgers.items()}
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
