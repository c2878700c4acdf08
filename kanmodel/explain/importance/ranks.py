"""Spearman's rank correlation."""

from __future__ import annotations

import numpy as np

from kanmodel.scaling import Array


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's rank correlation of two arrays (n,), ties sharing their mean rank; 0 where one is constant."""
    ranks = [_ranks(values) for values in (a, b)]
    centred = [rank - rank.mean() for rank in ranks]
    size = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float(centred[0] @ centred[1]) / size if size > 0 else 0.0


def _ranks(values: Array) -> Array:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank: Array = last - (counts - 1) / 2
    return mean_rank[place]
