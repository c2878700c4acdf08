import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.tables.statistics import bootstrap
from kanmodel.tables.statistics.bootstrap import Bootstrap, block_lengths

counts = st.integers(1, 600)
seeds = st.integers(0, 2**32 - 1)
lengths = st.sampled_from([1, 2, 3, 4, 6, 8, 12])


def autoregressive(n, correlation, n_series=1, seed=0):
    """Gaussian AR(1) series of mean 0, (n, n_series), after a burn-in of 200 steps."""
    rng = np.random.default_rng(seed)
    series = np.zeros((n + 200, n_series))
    for step in range(1, len(series)):
        series[step] = correlation * series[step - 1] + rng.normal(size=n_series)
    return series[200:]


@given(counts, lengths, seeds)
def test_weights_are_shares_of_windows(n, length, seed):
    """Each resample has n windows with repetition: weights are multiples of 1/n that sum to 1."""
    weights = Bootstrap(n, resamples=20, seed=seed).weights(min(length, n))
    assert weights.shape == (20, n)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights * n, np.round(weights * n), atol=1e-9)
    assert (weights >= 0).all()


@given(st.integers(13, 600), lengths, seeds)
def test_neighbours_stay_together(n, length, seed):
    """Resamples consist of circular blocks of neighbouring windows, of which one may be shorter."""
    for row in Bootstrap(n, resamples=5, seed=seed).weights(length):
        starts = np.maximum(np.round(n * (row - np.roll(row, 1))), 0).sum()  # at most one per block
        assert starts <= -(-n // length)
        assert (np.round(n * row) > 0).sum() >= min(n, length)


def test_columns_in_groups_have_the_same_intervals(monkeypatch):
    """Columns are resampled in groups with the same result as each alone."""
    values = np.concatenate([autoregressive(200, correlation, 4, seed=3) for correlation in (0, 0.5, 0.9)], axis=1)
    sizes = np.abs(values)
    at_once = Bootstrap(200).mean(values.reshape(200, 3, 4)), Bootstrap(200).share(sizes)
    monkeypatch.setattr(bootstrap, "COLUMNS", 5)
    in_groups = Bootstrap(200).mean(values.reshape(200, 3, 4)), Bootstrap(200).share(sizes)
    for one, other in zip(at_once, in_groups, strict=True):
        np.testing.assert_allclose(one.low, other.low, rtol=1e-12)
        np.testing.assert_allclose(one.high, other.high, rtol=1e-12)


SIZES, CORRELATIONS = (20, 64, 100, 512, 1500), (-0.5, 0, 0.5, 0.8, 0.9, 0.99)
ARCH = """
import sys
import numpy as np
from arch.bootstrap import optimal_block_length
with np.load(sys.argv[1]) as file:
    lengths = {name: optimal_block_length(series)["circular"].to_numpy() for name, series in file.items()}
np.savez(sys.argv[2], **lengths)
"""


def make_series(n, correlation):
    return 1e5 + 7 * autoregressive(n, correlation, n_series=30)


@pytest.fixture(scope="module")
def lengths_of_arch(tmp_path_factory):
    """The block lengths by `arch`, in a separate process, as it imports pandas and statsmodels."""
    folder = tmp_path_factory.mktemp("arch")
    np.savez(folder / "series", **{f"{n},{c}": make_series(n, c) for n in SIZES for c in CORRELATIONS})
    subprocess.run([sys.executable, "-c", ARCH, folder / "series.npz", folder / "lengths.npz"], check=True)
    with np.load(folder / "lengths.npz") as file:
        return dict(file)


@pytest.mark.thorough("starts a process that imports statsmodels")
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_block_lengths_are_those_of_politis_and_white(lengths_of_arch, n, correlation):
    """The automatic block length of each series equals that of `arch` for the circular bootstrap."""
    found = block_lengths(make_series(n, correlation))
    np.testing.assert_allclose(found, lengths_of_arch[f"{n},{correlation}"], rtol=1e-6)


@given(counts, st.floats(-1e6, 1e6))
def test_lengths_of_any_series(n, value):
    """Block lengths are finite and at most a third of the windows, also for constant or huge values."""
    rng = np.random.default_rng(n)
    series = np.column_stack([np.full(n, value), np.zeros(n), rng.normal(size=n) * 1e300, np.arange(n)])
    found = block_lengths(series)
    assert (found >= 0).all()
    assert (found <= max(1, np.ceil(n / 3))).all()
    assert n <= 12 or found[1] == 0


@given(st.integers(8, 600), seeds)
def test_the_interval_holds_the_mean(n, seed):
    """The interval contains the mean over the windows, and its ends are in order."""
    values = np.random.default_rng(seed).normal(size=(n, 3))
    estimate = Bootstrap(n).mean(values)
    np.testing.assert_allclose(estimate.value, values.mean(axis=0))
    assert (estimate.low < estimate.value).all()
    assert (estimate.value < estimate.high).all()
    assert estimate.bounds(1) == (estimate.low[1], estimate.high[1])


@pytest.mark.parametrize("n", [64, 512])
def test_the_interval_of_a_trend_holds_its_mean(n):
    """Each window has the same expected weight, the first and the last included."""
    values = np.arange(n) ** 4.0
    estimate = Bootstrap(n).mean(values)
    assert estimate.low < values.mean() < estimate.high
    for length in (1, 16):
        mean = np.mean([Bootstrap(n, seed=seed).weights(length).mean(axis=0) for seed in range(20)], axis=0)
        np.testing.assert_allclose(mean, 1 / n, rtol=0.15)


@given(counts, st.floats(-1e6, 1e6))
def test_constant_data_has_no_width(n, value):
    """A value that is the same in every window has an interval of width 0, up to rounding."""
    estimate = Bootstrap(n, resamples=50).mean(np.full((n, 2), value))
    tolerance = 1e-12 * max(1.0, abs(value))
    np.testing.assert_allclose(estimate.low, value, rtol=0, atol=tolerance)
    np.testing.assert_allclose(estimate.high, value, rtol=0, atol=tolerance)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_windows_are_not_certain(n):
    """With few windows that differ, the interval has positive width."""
    estimate = Bootstrap(n).mean(np.arange(float(n)))
    assert estimate.low < estimate.value < estimate.high


@given(st.integers(1, 100), seeds)
def test_means_are_of_the_resampled_windows(n, seed):
    """Bounds are quantiles of the means of resampled windows in any shape, and determined by the seed."""
    values = np.random.default_rng(seed).normal(size=(n, 2, 3))
    first, again = (Bootstrap(n, resamples=10, seed=seed).mean(values) for _ in range(2))
    assert first.low.shape == first.high.shape == (2, 3)
    np.testing.assert_array_equal(first.low, again.low)
    np.testing.assert_array_equal(first.high, again.high)
    assert (values.min(axis=0) - 1e-12 <= first.low).all()
    assert (first.high <= values.max(axis=0) + 1e-12).all()


@given(st.integers(1, 200), st.integers(1, 5), seeds)
def test_shares_stay_shares(n, n_columns, seed):
    """Shares and bounds are between 0 and 1, and shares sum to 1; a single column's are 1."""
    sizes = np.abs(np.random.default_rng(seed).normal(size=(n, n_columns)))
    estimate = Bootstrap(n, resamples=50).share(sizes)
    assert estimate.value.sum() == pytest.approx(1)
    assert (estimate.low >= 0).all()
    assert (estimate.high <= 1 + 1e-12).all()
    if n_columns == 1:
        assert (estimate.low, estimate.high) == (pytest.approx(1), pytest.approx(1))
    nothing = Bootstrap(n, resamples=50).share(0 * sizes)
    assert not np.any([nothing.value, nothing.low, nothing.high])


STATED = re.search(r"autocorrelation +(.+)\n +coverage +(.+)\n", bootstrap.__doc__)
COVERAGE = dict(zip(map(float, STATED[1].split()), map(float, STATED[2].split()), strict=True))


@pytest.mark.thorough("a statistic of 4,000 series")
@pytest.mark.parametrize("correlation", COVERAGE)
def test_coverage(correlation):
    """95 % intervals contain the known mean in the stated share of 4,000 autocorrelated series."""
    mean = 3
    estimate = Bootstrap(512).mean(autoregressive(512, correlation, n_series=4000) + mean)
    covered = 100 * ((estimate.low <= mean) & (mean <= estimate.high)).mean()
    print(f"autocorrelation {correlation}: {covered:.1f} of 100 intervals hold the mean")
    assert covered == pytest.approx(COVERAGE[correlation], abs=0.3)
    assert correlation > 0.8 or covered >= 90
