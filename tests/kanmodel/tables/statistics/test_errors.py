"""Errors of forecasts and of their intervals over some windows."""

import numpy as np
import pytest

from kanmodel.tables.statistics.errors import covered, measure_intervals, r2_scores


@pytest.mark.parametrize(
    ("lower", "upper", "actual", "held"),
    [(0, 2, 1, 1), (0, 2, 2, 1), (0, 2, 3, 0), (-np.inf, np.inf, 9, 1), (np.nan, 2, 1, np.nan), (0, 2, np.nan, np.nan)],
)
def test_an_interval_holds_what_is_between_its_bounds(lower, upper, actual, held):
    """The bounds themselves too; unknown where a bound or the value is."""
    np.testing.assert_equal(covered(np.array([lower]), np.array([upper]), np.array([actual])), [held])


def test_the_share_that_is_held_is_the_coverage():
    """Of the intervals that have a bound, and of the values that are known."""
    rng = np.random.default_rng(0)
    lower, actual = rng.normal(size=(1, 50)), np.where(rng.random(50) < 0.2, np.nan, rng.normal(size=50))
    ((found,),) = measure_intervals([0.8], lower, lower + 1, actual)
    assert found.covered == pytest.approx(np.nanmean(covered(lower, lower + 1, actual)))


def test_r2_is_one_for_the_truth_and_zero_for_the_mean():
    """R2 is computed per output, against the mean of the targets that it is measured on."""
    targets = np.array([[0.0, 5.0], [2.0, 9.0]])
    assert r2_scores(targets, targets).tolist() == [1.0, 1.0]
    assert r2_scores(targets, np.array([[1.0, 7.0], [1.0, 7.0]])).tolist() == [0.0, 0.0]
