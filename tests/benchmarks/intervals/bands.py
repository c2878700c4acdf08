"""`Bands`, their scores, and adaptive conformal inference (ACI, Gibbs and Candès 2021, arXiv 2106.00170) of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

Array = np.ndarray

LEVELS = (0.8, 0.9, 0.95)
GAMMAS = (0.005, 0.05)  # steps of ACI: its authors' (section 2), and ten times that
MEMORY, FIRST = 500, 100  # scores that ACI takes the quantile of, and from how many it does


@dataclass(frozen=True)
class Bands:
    """Lower and upper bounds of the test windows at each level, (n_levels, n, horizon)."""

    lower: Array
    upper: Array
    learns: bool = False  # whether the outcomes of earlier test windows were used


def covers(bands: Bands, actual: Array) -> Array:
    """Whether each value lies within the bounds, (n_levels, n, horizon)."""
    inside: Array = (bands.lower <= actual) & (actual <= bands.upper)
    return inside


def winkler(bands: Bands, actual: Array) -> Array:
    """Interval scores, (n_levels, n, horizon): less is better (Gneiting and Raftery 2007, equation 43).

    The width, and 2 / (1 - level) times the distance of a value outside to the nearer bound.
    """
    alpha = 1 - np.array(LEVELS)[:, None, None]
    beyond = np.maximum(bands.lower - actual, 0) + np.maximum(actual - bands.upper, 0)
    scores: Array = bands.upper - bands.lower + 2 / alpha * beyond
    return scores


def adapt_level(scores: Array, alpha: float, delay: int, gamma: float) -> Array:
    """Thresholds that a share `alpha` of the scores exceeds in the long run, (n,), by adaptive conformal inference.

    The threshold is a quantile of the newest `MEMORY` known scores, at a level that moves by `gamma` (1 - alpha) or
    `gamma` alpha: their largest where that passes 1, and 1 until `FIRST` are known.

    Args:
        scores: in time order, (n,).
        alpha: share of scores above the threshold.
        delay: how many windows later a score is known; 1 for the next one.
        gamma: step of the level.
    """
    thresholds, level = np.ones(len(scores)), alpha
    for number in range(delay, len(scores)):
        known = number - delay
        level += gamma * (alpha - float(scores[known] > thresholds[known]))
        if known >= FIRST:
            pool = np.sort(scores[max(0, known + 1 - MEMORY) : known + 1])
            thresholds[number] = pool[ceil(min(max(1 - level, 0), 1) * (len(pool) - 1))]
    return thresholds


def adapt(bands: Bands, points: Array, actual: Array, gamma: float) -> Bands:
    """Bands whose bounds ACI moves away from the point forecasts, or nearer, each side, level and step alone.

    A score is the distance of the value from the point forecast, in units of that of the bound.
    """
    sides = []
    for bounds, sign in ((bands.lower, -1), (bands.upper, 1)):
        distance = np.maximum(sign * (bounds - points), 1e-9)
        scores, factors = sign * (actual - points) / distance, np.empty_like(distance)
        for level, step in np.ndindex(len(LEVELS), actual.shape[1]):
            factors[level, :, step] = adapt_level(scores[level, :, step], (1 - LEVELS[level]) / 2, step + 1, gamma)
        sides.append(points + sign * factors * distance)
    return Bands(*sides, learns=True)
