"""Items are chosen evenly, and not in step with a season."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.tables.statistics.choose import choose_evenly


@given(st.integers(0, 3000), st.integers(1, 500))
def test_one_of_each_stratum_is_chosen(n, most):
    """All if there are no more than wanted; else ascending, and none further from the next than two strata."""
    found = choose_evenly(n, most)
    assert len(found) == min(n, most) and (np.diff(found) > 0).all()
    if n <= most:
        assert found.tolist() == [*range(n)]
    else:
        assert found[0] >= 0 and found[-1] < n and (np.diff(found, prepend=0, append=n) <= 2 * -(-n // most)).all()


def test_every_hour_of_the_day_is_seen():
    """Of every eighth row on average a constant stride would see three hours."""
    hours = choose_evenly(24 * 200, 600) % 24
    assert np.bincount(hours, minlength=24).min() >= 15
