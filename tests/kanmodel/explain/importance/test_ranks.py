import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.explain.importance import rank_correlation

columns = st.integers(3, 30).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-5, 5), min_size=n, max_size=n).filter(lambda v: len(set(v)) > 1)] * 2)
)


@given(columns)
def test_it_is_spearmans(pair):
    """The correlation is scipy's, with and without ties."""
    a, b = (np.array(values, dtype=float) for values in pair)
    from scipy.stats import spearmanr  # imported here, as it is large

    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20, unique=True))
def test_only_the_order_counts(values):
    """Measures in the same order have correlation 1, in opposite order -1."""
    a = np.array(values)
    order = np.argsort(np.argsort(a)).astype(float)
    assert rank_correlation(a, order**3) == pytest.approx(1)
    assert rank_correlation(a, -order) == pytest.approx(-1)


def test_a_constant_measure_agrees_with_nothing():
    """For a constant measure the correlation is 0 rather than NaN."""
    assert rank_correlation(np.ones(4), np.arange(4.0)) == 0
