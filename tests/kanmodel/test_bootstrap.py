import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.explain.bootstrap import Resampling, interval

counts = st.integers(1, 600)
seeds = st.integers(0, 2**32 - 1)


def runs(row):
    """Lengths of the stretches of neighbouring windows that one resample holds."""
    ends = np.flatnonzero(np.diff(np.concatenate([[0], row > 0, [0]])))
    return np.diff(ends)[::2]


@given(counts, seeds)
def test_weights_are_shares_of_windows(n, seed):
    """Every resample holds n windows, counted with repetition: weights are multiples of 1/n that sum to 1."""
    weights = Resampling.blocks(n, resamples=20, seed=seed).weights
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights * n, np.round(weights * n), atol=1e-9)
    assert (weights >= 0).all()


@pytest.mark.parametrize(("n", "length"), [(512, 16), (343, 14), (64, 8), (27, 6), (4, 2), (3, 1), (2, 1), (1, 1)])
def test_neighbours_stay_together(n, length):
    """Resamples consist of blocks of 2 n^(1/3) neighbours, of at most half of the windows."""
    stretches = [runs(row) for row in Resampling.blocks(n).weights]
    assert all((stretch < length).sum() <= 1 for stretch in stretches)  # the last block is cut so that n windows remain
    assert any(length in stretch for stretch in stretches)


@given(st.integers(8, 600), seeds)
def test_the_interval_holds_the_mean(n, seed):
    """The mean of the windows themselves lies in its interval, whose ends are in order."""
    values = np.random.default_rng(seed).normal(size=(n, 3))
    estimate = Resampling.blocks(n).estimate(values)
    np.testing.assert_allclose(estimate.value, values.mean(axis=0))
    assert (estimate.low < estimate.value).all()
    assert (estimate.value < estimate.high).all()
    assert estimate.bounds(1) == (estimate.low[1], estimate.high[1])


@given(counts, st.floats(-1e6, 1e6))
def test_constant_data_has_no_width(n, value):
    """What is the same in every window has an interval of no width, to rounding."""
    estimate = Resampling.blocks(n, resamples=50).estimate(np.full((n, 2), value))
    tolerance = 1e-12 * max(1.0, abs(value))
    np.testing.assert_allclose(estimate.low, value, rtol=0, atol=tolerance)
    np.testing.assert_allclose(estimate.high, value, rtol=0, atol=tolerance)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_windows_are_not_certain(n):
    """From a few windows that differ, an interval has a width: it does not claim to be certain."""
    estimate = Resampling.blocks(n).estimate(np.arange(float(n)))
    assert estimate.low < estimate.value < estimate.high


@given(st.integers(1, 100), seeds)
def test_means_are_of_the_resampled_windows(n, seed):
    """Means of any shape are those of the windows that a resample holds, and the same seed gives the same."""
    values = np.random.default_rng(seed).normal(size=(n, 2, 3))
    resampling = Resampling.blocks(n, resamples=10, seed=seed)
    means = resampling.means(values)
    assert means.shape == (10, 2, 3)
    rows = [np.repeat(np.arange(n), np.round(row * n).astype(int)) for row in resampling.weights]
    np.testing.assert_allclose(means, [values[chosen].mean(axis=0) for chosen in rows])
    np.testing.assert_array_equal(means, Resampling.blocks(n, resamples=10, seed=seed).means(values))


def test_the_interval_covers_the_true_mean():
    """For 100 autocorrelated series whose mean is known, at least 90 of the 95 % intervals hold it."""
    rng = np.random.default_rng(0)
    n, n_series, correlation = 512, 100, 0.5
    series = np.zeros((n + 100, n_series))
    for step in range(1, len(series)):
        series[step] = correlation * series[step - 1] + rng.normal(size=n_series)
    estimate = Resampling.blocks(n).estimate(series[100:] + 3)
    covered = (estimate.low <= 3) & (estimate.high >= 3)
    assert covered.sum() >= 90
    independent = interval(
        estimate.value, Resampling(rng.multinomial(n, [1 / n] * n, 1000) / n).means(series[100:] + 3)
    )
    assert ((independent.low <= 3) & (independent.high >= 3)).sum() < 80  # the blocks are what makes it so
