"""Scores of the benchmark of intervals, and ACI, beside what is known of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks" / "intervals"))

from bands import LEVELS, Bands, adapt, covers, winkler

SCALES = np.array([0.5, 1.0, 2.0])  # of bounds


def make_bands(z):
    """Bounds at -z and z, of one window and step."""
    bounds = np.asarray(z, dtype=float)[:, None, None]
    return Bands(-bounds, bounds)


def test_a_value_outside_costs_its_distance_by_the_share_that_may_be_outside():
    """Inside only the width counts: 2; a value 1 above costs 2 / 0.2, 2 / 0.1 and 2 / 0.05 more."""
    actual = np.array([[0.5], [2.0], [-1.0]])
    found = winkler(make_bands([1, 1, 1]), actual)
    np.testing.assert_allclose(found[:, :, 0], [[2, 12, 2], [2, 22, 2], [2, 42, 2]])
    np.testing.assert_array_equal(covers(make_bands([1, 1, 1]), actual)[0, :, 0], [True, False, True])


@pytest.mark.parametrize("scale", SCALES)
def test_scores_of_normal_values_are_as_in_closed_form(scale):
    """2 z + 4 / alpha (pdf(z) - z (1 - cdf(z))) for bounds at -z and z; least where z is the true quantile."""
    actual = norm.ppf((np.arange(200_000) + 0.5) / 200_000)[:, None]
    alpha = 1 - np.array(LEVELS)
    quantile = norm.isf(alpha / 2)
    z = scale * quantile
    exact = 2 * z + 4 / alpha * (norm.pdf(z) - z * norm.sf(z))
    np.testing.assert_allclose(winkler(make_bands(z), actual).mean(axis=(1, 2)), exact, rtol=1e-3)
    least = 4 / alpha * norm.pdf(quantile)
    assert (exact > least - 1e-9).all()


@pytest.mark.parametrize("delay", [1, 3])
def test_coverage_recovers_after_a_shift_and_knows_nothing_of_the_future(delay):
    """Errors are three times as large from the middle on; bounds are right at first."""
    random = np.random.default_rng(0)
    actual = random.normal(size=(4000, delay)) * np.where(np.arange(4000) < 2000, 1, 3)[:, None]
    points = np.zeros_like(actual)
    z = norm.isf((1 - np.array(LEVELS)) / 2)[:, None, None] * np.ones_like(actual)
    fixed = Bands(-z, z)
    found = adapt(fixed, points, actual, 0.02)
    assert covers(fixed, actual)[:, 2000:].mean(axis=(1, 2)) == pytest.approx([0.331, 0.417, 0.486], abs=0.03)
    assert covers(found, actual).mean(axis=(1, 2)) == pytest.approx(LEVELS, abs=0.02)
    changed = actual.copy()
    changed[3000:] += 10
    again = adapt(fixed, points, changed, 0.02)
    for step in range(delay):
        until = 3000 + step + 1  # the first window that knows a changed value at this step
        np.testing.assert_array_equal(again.upper[:, :until, step], found.upper[:, :until, step])
        assert (again.upper[:, until:, step] > found.upper[:, until:, step]).any()
