"""Measures from the literature for attributions of time series, on plain arrays.

A point is one feature at one step. `scores` are attributions, (n, lookback, n_features); `forecast` maps windows of
that shape to (n,) outputs in standard deviations; a removed point takes the value of `start`, (lookback, n_features).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.metrics import auc, precision_recall_curve

Array = np.ndarray
Forecast = Callable[[Array], Array]

EPSILON = 1e-5  # time_interpret's, in the normalisation of scores
FRACTIONS = np.arange(0.05, 1.0, 0.05)  # fractions of the points over which deletion and insertion are averaged


def cumulative_difference(forecast: Forecast, windows: Array, start: Array, scores: Array, share: float) -> Array:
    """CPD of TIMING (Jang et al. 2025, arXiv 2506.05035): more is better.

    The sum of |F(x without k points) - F(x without k + 1)| as points are removed by descending |score|, up to
    a share of them. Opposite effects do not cancel, as they do in |F(x) - F(x without all)|.

    Returns:
        (n,).
    """
    return _cumulate(forecast, windows, start, _ranks(np.abs(scores)), share)


def cumulative_preservation(forecast: Forecast, windows: Array, start: Array, scores: Array, share: float) -> Array:
    """CPP of TIMING: the same sum with the smallest |score| first; less is better; (n,)."""
    return _cumulate(forecast, windows, start, _ranks(-np.abs(scores)), share)


def deletion(forecast: Forecast, windows: Array, start: Array, scores: Array) -> Array:
    """|F(x without the points of largest |score|) - F(x)|, averaged over `FRACTIONS`; more is better; (n,).

    Petsiuk et al. 2018, arXiv 1806.07421, for a regression.
    """
    return _change(forecast, windows, start, _ranks(np.abs(scores)), lambda rank, k: rank < k)


def insertion(forecast: Forecast, windows: Array, start: Array, scores: Array) -> Array:
    """|F(x0 with the points of largest |score| from x) - F(x)|, averaged over `FRACTIONS`; less is better; (n,)."""
    return _change(forecast, windows, start, _ranks(np.abs(scores)), lambda rank, k: rank >= k)


def completeness_error(forecast: Forecast, windows: Array, start: Array, scores: Array) -> Array:
    """|sum of scores - (F(x) - F(x0))|; less is better; (n,)."""
    change = forecast(windows) - forecast(start[None])
    return np.abs(scores.sum(axis=(1, 2)) - change)


def precision_and_recall(scores: Array, truth: Array) -> tuple[float, float]:
    """AUP and AUR as in time_interpret (Enguehard 2023, arXiv 2306.05552); more is better.

    The areas under precision and recall over the threshold, for the points of all windows together, with each
    window's scores scaled to [0, 1].

    Args:
        scores: (n, ...), higher for likelier true points.
        truth: which points have an effect, bool, the same shape.
    """
    flat = scores.reshape(len(scores), -1)
    low, high = flat.min(axis=1, keepdims=True), flat.max(axis=1, keepdims=True)
    scaled = (flat - low) / (high + EPSILON)
    precision, recall, thresholds = precision_recall_curve(truth.reshape(-1), scaled.reshape(-1))
    return float(auc(thresholds, precision[:-1])), float(auc(thresholds, recall[:-1]))


def signed_precision_and_recall(scores: Array, truth: Array) -> tuple[float, float]:
    """AUP and AUR of points that raise the output by positive scores, and of those that lower it by negative ones.

    Args:
        scores: (n, ...), signed.
        truth: the sign of each point's effect, 0 for none, the same shape.

    Returns:
        The means over the two signs.
    """
    both = [precision_and_recall(np.maximum(sign * scores, 0), sign * truth > 0) for sign in (1, -1)]
    return tuple(np.mean(both, axis=0).tolist())


def sum_segments(values: Array, length: int) -> Array:
    """Sums over segments of steps, the newest step last in the last segment: (n, n_segments, n_features).

    The oldest segment may be shorter.
    """
    lookback = values.shape[1]
    firsts = np.arange(lookback % length, lookback, length)
    firsts = firsts if lookback % length == 0 else np.insert(firsts, 0, 0)
    return np.add.reduceat(values, firsts, axis=1)


def max_sensitivity(
    attribute: Callable[[Array], Array], windows: Array, scores: Array, radius: float, n: int, seed: int
) -> Array:
    """The largest relative change of the scores as a window moves by up to a radius; less is better; (n_windows,).

    Yeh et al. 2019, arXiv 1901.09392, definition 3, relative to the norm of the scores, as in Captum.

    Args:
        attribute: windows -> scores.
        windows: model units.
        scores: those of the windows.
        radius: largest change of each value, model units.
        n: how many moves are tried.
        seed: of the moves.
    """
    generator = np.random.default_rng(seed)
    length = np.linalg.norm(scores.reshape(len(scores), -1), axis=1)
    largest = np.zeros(len(windows))
    for _ in range(n):
        moved = attribute(windows + generator.uniform(-radius, radius, windows.shape).astype(windows.dtype))
        change = np.linalg.norm((moved - scores).reshape(len(scores), -1), axis=1)
        largest = np.maximum(largest, change / np.maximum(length, 1e-12))
    return largest


def _ranks(importance: Array) -> Array:
    """Rank of each point in its window, 0 for the most important, the same shape."""
    flat = importance.reshape(len(importance), -1)
    return np.argsort(np.argsort(-flat, axis=1, kind="stable"), axis=1).reshape(importance.shape)


def _cumulate(forecast: Forecast, windows: Array, start: Array, rank: Array, share: float) -> Array:
    before, total = forecast(windows), np.zeros(len(windows))
    for k in range(1, max(round(share * start.size), 1) + 1):
        after = forecast(np.where(rank < k, start, windows))
        total += np.abs(after - before)
        before = after
    return total


def _change(
    forecast: Forecast, windows: Array, start: Array, rank: Array, gone: Callable[[Array, int], Array]
) -> Array:
    full, counts = forecast(windows), sorted({max(round(fraction * start.size), 1) for fraction in FRACTIONS})
    return np.mean([np.abs(forecast(np.where(gone(rank, k), start, windows)) - full) for k in counts], axis=0)
