"""Choosing some of n items in order of time, evenly, so that no season is missed.

A constant stride that shares a factor with a season sees few of its phases: every eighth of hourly rows are only three
hours of the day. So one item is taken from each of equal strata (Cochran 1977, "Sampling Techniques", section 8), at a
place that follows the golden-ratio sequence (Niederreiter 1992, "Random Number Generation and Quasi-Monte Carlo
Methods").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = (5**0.5 - 1) / 2


def choose_evenly(n: int, most: int) -> NDArray[np.int64]:
    """Indices of at most `most` of n items, ascending, one from each of as many strata; all if there are no more."""
    strata = np.arange(min(n, most) + 1, dtype=np.int64) * n // max(1, min(n, most))
    places = np.arange(len(strata) - 1) * GOLDEN % 1
    return strata[:-1] + (places * np.diff(strata)).astype(np.int64)
