"""Errors of forecasts and of their intervals over some windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.tables.statistics.errors import covered, find_period, find_season, r2_scores


@pytest.mark.parametrize(
    ("lower", "upper", "actual", "held"),
    [(0, 2, 1, 1), (0, 2, 2, 1), (0, 2, 3, 0), (-np.inf, np.inf, 9, 1), (np.nan, 2, 1, np.nan), (0, 2, np.nan, np.nan)],
)
def test_an_interval_holds_what_is_between_its_bounds(lower, upper, actual, held):
    """The bounds themselves too; unknown where a bound or the value is."""
    np.testing.assert_equal(covered(np.array([lower]), np.array([upper]), np.array([actual])), [held])


def test_r2_is_one_for_the_truth_and_zero_for_the_mean():
    """R2 is computed per output, against the mean of the targets that it is measured on."""
    targets, series = np.array([[0.0, 5.0], [2.0, 9.0]]), np.zeros(2, dtype=int)
    assert r2_scores(targets, targets, series).tolist() == [1.0, 1.0]
    assert r2_scores(targets, np.array([[1.0, 7.0], [1.0, 7.0]]), series).tolist() == [0.0, 0.0]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=20), st.floats(-1e3, 1e3))
def test_r2_of_several_series_is_zero_for_the_mean_of_each(series, apart):
    """Of each output, however far the series are apart; of one series it is the usual one."""
    series, rng = np.array([*series, 5, 5]), np.random.default_rng(0)
    targets, noise = rng.normal(size=(len(series), 2)), rng.normal(size=(len(series), 2))
    far, means = targets + apart * series[:, None], targets.copy()
    for number in set(series.tolist()):
        means[series == number] = targets[series == number].mean(axis=0)
    assert r2_scores(far, far, series).tolist() == [1.0, 1.0]
    np.testing.assert_allclose(r2_scores(far, means + apart * series[:, None], series), 0, atol=1e-9)
    np.testing.assert_allclose(r2_scores(far, far + noise, series), r2_scores(targets, targets + noise, series))
    one = r2_scores(targets, noise, np.zeros_like(series))
    np.testing.assert_allclose(one, 1 - ((targets - noise) ** 2).mean(axis=0) / targets.var(axis=0))


def test_the_season_with_the_lowest_error_is_found():
    """One without known values is none."""
    errors = {24: 2.0, 168: 1.0, 8760: np.nan}
    assert find_season({"day": 24, "week": 168, "year": 8760}, errors.__getitem__) == ("week", 168)
    assert find_season({"year": 8760}, errors.__getitem__) is None and find_season({}, errors.__getitem__) is None


@pytest.mark.parametrize("period", [2, 5, 7, 12, 37])
def test_a_period_that_no_calendar_names_is_found(period):
    """Of a cycle in noise; noise, a constant and a few values have none."""
    rng, row = np.random.default_rng(0), np.arange(900)
    assert find_period(np.sin(2 * np.pi * row / period + 0.3) + 0.3 * rng.normal(size=900)) == period
    for values in (rng.normal(size=900), np.ones(900), np.arange(5.0), np.full(20, np.nan)):
        assert find_period(values) is None
