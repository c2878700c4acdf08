import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.tables.statistics.choose import choose_evenly


@given(st.integers(0, 5000), st.integers(1, 5000))
def test_each_stratum_has_one_item(n, most):
    """Indices are distinct and ascending, one in each of equal strata; all items are kept where there are no more."""
    chosen = choose_evenly(n, most)
    count = min(n, most)
    assert len(chosen) == count and (np.diff(chosen) > 0).all()
    if n <= most:
        assert chosen.tolist() == list(range(n))
    starts = np.arange(count + 1) * n // max(count, 1)
    assert (chosen >= starts[:-1]).all() and (chosen < starts[1:]).all()


@pytest.mark.parametrize("season", [2, 7, 12, 24, 168])
@pytest.mark.parametrize("stride", [2, 3, 4, 6, 7, 8, 12, 23, 24, 25, 48, 84, 168, 7.3])
def test_every_phase_of_a_season_is_seen(stride, season):
    """Also where the stride is a multiple of the season: each has between 0.5 and 2 times its even share."""
    chosen = choose_evenly(round(50 * season * stride), 50 * season)
    shares = np.bincount(chosen % season, minlength=season) / len(chosen) * season
    assert shares.min() > 0.5 and shares.max() < 2
