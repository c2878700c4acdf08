"""Conformal calibration: ranks as defined, and the coverage that they guarantee."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.errors import DataError
from kanmodel.network.conformal import calibrate, count_needed

LEVELS = (0.5, 0.8, 0.95)


@given(n=st.integers(39, 90), seed=st.integers(0, 1000), unknown=st.integers(0, 20))
def test_a_factor_is_the_least_that_holds_enough_actual_values(n, seed, unknown):
    """Of each level, side and forecast: one score less and fewer than ceil((n + 1)(1 + p) / 2) are within the bound."""
    rng = np.random.default_rng(seed)
    residuals = rng.normal(size=(n + unknown, 2))
    residuals[rng.permutation(n + unknown)[:unknown], 1] = np.nan
    increments = rng.uniform(0.1, 2, (2, 3, n + unknown, 2))
    factors = calibrate(LEVELS, residuals, *increments)
    for side, sign in ((0, -1), (1, 1)):
        for forecast in range(2):
            known = ~np.isnan(residuals[:, forecast])
            excess, distance = sign * residuals[known, forecast], np.zeros(known.sum())
            for k, level in enumerate(LEVELS):
                needed = ceil((len(excess) + 1) * (1 + Fraction(str(level))) / 2)
                factor, increment = factors[side][k, forecast], increments[side, k, known, forecast]
                # written so that the window which decides is not lost to rounding
                assert (excess <= distance + factor * increment + 1e-9).sum() >= needed
                assert factor == 0 or (excess <= distance + factor * increment - 1e-9).sum() < needed
                distance = distance + factor * increment


@pytest.mark.parametrize("n", [39, 40, 99, 123])
def test_over_all_choices_of_the_new_window_coverage_is_as_the_ranks_say(n):
    """Of n + 1 exchangeable windows each is left out once: a share of rank / (n + 1) is within each bound, exactly."""
    residuals = np.random.default_rng(n).permutation(n + 1) - n / 2
    ones = np.ones((3, n, 1))
    within = np.zeros((2, 3))
    for left_out in range(n + 1):
        factors = calibrate(LEVELS, np.delete(residuals, left_out)[:, None], ones, ones)
        for side, sign in ((0, -1), (1, 1)):
            within[side] += sign * residuals[left_out] <= np.cumsum(factors[side][:, 0])
    expected = [ceil((n + 1) * (1 + Fraction(str(level))) / 2) for level in LEVELS]
    assert within.tolist() == [expected, expected]


def test_too_few_windows_are_refused_with_how_many_are_needed():
    """One fewer than needed is an error, as many are not."""
    for level in (0.5, 0.8, 0.9, 0.95, 0.99):
        n = count_needed(level)
        residuals, ones = np.arange(n, dtype=float)[:, None], np.ones((1, n, 1))
        above = calibrate((level,), residuals, ones, ones)[1]
        assert above.tolist() == [[n - 1]]  # the largest
        with pytest.raises(DataError, match=f"need at least {n} windows with their actual values, but have {n - 1}"):
            calibrate((level,), residuals[1:], ones[:, 1:], ones[:, 1:])
    assert [count_needed(level) for level in (0.8, 0.9, 0.95, 0.9996)] == [9, 19, 39, 4999]


def test_increments_of_zero_hold_only_what_is_within():
    """They are no matter where enough actual values are on the other side, and refused where none would reach."""
    residuals, increments = np.arange(20.0)[:, None], np.ones((1, 20, 1))
    below, above = calibrate((0.8,), residuals, np.zeros_like(increments), increments)
    assert below.tolist() == [[0]]
    assert above.tolist() == [[18]]
    with pytest.raises(DataError, match="increments are 0"):
        calibrate((0.8,), residuals, increments, np.zeros_like(increments))
