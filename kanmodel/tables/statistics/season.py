"""The season of a series: after how many steps it repeats itself best."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from kanmodel.arrays import Array

LEAST = 0.3  # autocorrelation of a season that no calendar names
NEAR = 0.9  # of the highest peak: the first that is as high is the period, and others its multiples
MOST_ROWS = 20_000  # of which autocorrelations are computed, the newest


def find_season(seasons: Mapping[str, int], errors: Callable[[int], float]) -> tuple[str, int] | None:
    """The name and the steps of the season whose seasonal naive forecast has the lowest error; None without seasons.

    `errors` gives the mean absolute error of a season of so many steps, NaN where there is none.
    """
    found = {(name, steps): errors(steps) for name, steps in seasons.items()}
    known = {season: error for season, error in found.items() if error == error}
    return min(known, key=lambda season: known[season]) if known else None


def find_period(values: Array) -> int | None:
    """The lag from 2 of the first of the highest peaks of the autocorrelation of a series (n,); None below 0.3."""
    series = values[np.isfinite(values)][-MOST_ROWS:]
    n, most = len(series), len(series) // 3
    if most < 3 or np.ptp(series) == 0:
        return None
    spectrum = np.abs(np.fft.rfft(series - series.mean(), 2 * n)) ** 2
    correlations = np.fft.irfft(spectrum)[: most + 2]
    correlations = correlations / correlations[0]
    inner = correlations[1:-1]
    peaks = np.flatnonzero((inner > correlations[:-2]) & (inner >= correlations[2:])) + 1
    peaks = peaks[peaks >= 2]
    if not len(peaks) or correlations[peaks].max() < LEAST:
        return None
    return int(peaks[correlations[peaks] >= NEAR * correlations[peaks].max()][0])
