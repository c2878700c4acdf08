import numpy as np
import pytest

from kanmodel.show.svg import Scale


@pytest.mark.parametrize(("low", "high", "count", "expected"), [(-4, 4, 2, [-4, 0, 4]), (1, 9.04, 4, [4, 8])])
def test_an_axis_has_two_ticks_or_more(low, high, count, expected):
    """Where the usual steps leave one tick, a shorter one is taken, of few values too."""
    assert Scale(low, high, 0, 100).ticks(count) == expected
    rng = np.random.default_rng(0)
    for length, start in zip(10 ** rng.uniform(-6, 6, 500), rng.standard_normal(500), strict=True):
        assert 2 <= len(Scale(start * length, (start + 1) * length, 0, 100).ticks(count)) <= count + 1
