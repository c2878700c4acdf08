"""Conformal calibration: the factors of intervals with which these hold as many actual values as their level says.

With residuals e = actual value - forecast, increments r_1, ..., r_L of the distance above, and levels p_1 < ... < p_L,
the factors are found level by level, each side alone, as split conformal prediction does for nested sets (Gupta et al.
2022, arXiv 1910.10562, section 2), here scaled intervals (Kivaranovic et al. 2020, arXiv 1905.10634): the score

    s = (e - sum_{j < k} f_j r_j) / r_k

of a window is the factor at which its actual value is on the bound, and f_k is the ceil((n + 1)(1 + p_k) / 2)-th
smallest of n scores, at least 0. Of windows exchangeable with these, an actual value is above a first level's upper
bound with a probability of at most (1 - p) / 2, and inside the interval with at least p; of higher levels too where the
increments are constant. Windows of a series are exchangeable only as far as the series does not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from kanmodel.arrays import Array
from kanmodel.errors import DataError


def count_needed(level: float) -> int:
    """The smallest number of windows from which an interval of a level can be calibrated: 9 of 0.8, 39 of 0.95."""
    return ceil(round(2 / (1 - level), 6)) - 1


def calibrate(levels: Sequence[float], residuals: Array, below: Array, above: Array) -> tuple[Array, Array]:
    """The factors of the increments below and above, (n_levels, n_forecasts) each.

    Args:
        levels: nominal coverages, ascending.
        residuals: actual value minus forecast, (n, n_forecasts), model units; NaN where the actual value is unknown.
        below: the increments of the lower bound at each level, (n_levels, n, n_forecasts), model units, at least 0.
        above: those of the upper bound, likewise.

    Raises:
        DataError: fewer windows with an actual value than the highest level needs, or increments that are 0 where
            actual values lie beyond, so that no factor reaches them.
    """
    n, needed = int((~np.isnan(residuals)).sum(axis=0).min()), count_needed(levels[-1])
    if n < needed:
        raise DataError(
            f"intervals at {levels[-1]:g} need at least {needed} windows with their actual values, but have {n}"
        )
    return _calibrate_side(levels, -residuals, below), _calibrate_side(levels, residuals, above)


def _calibrate_side(levels: Sequence[float], excess: Array, increments: Array) -> Array:
    """The factors, (n_levels, n_forecasts); `excess` is how far the actual values lie beyond the forecast."""
    counts = (~np.isnan(excess)).sum(axis=0)
    factors = np.empty((len(levels), excess.shape[1]))
    for number, level in enumerate(levels):
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = np.where(excess <= 0, 0.0, excess / increments[number])
        ranks = np.ceil(np.round((counts + 1) * (1 + level) / 2, 9)).astype(np.int64)
        factors[number] = np.take_along_axis(np.sort(scores, axis=0), ranks[None] - 1, axis=0)[0]
        if not np.isfinite(factors[number]).all():
            raise DataError(
                f"intervals at {level:g} cannot be calibrated: their increments are 0 in too many windows whose actual "
                "values lie beyond"
            )
        excess = excess - factors[number] * increments[number]
    return factors
