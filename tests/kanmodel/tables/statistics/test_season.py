"""The season of a series is the one whose values repeat themselves best."""

import numpy as np
import pytest

from kanmodel.tables.statistics.season import find_period, find_season


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
