import numpy as np
import pytest
from factories import make_tally
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from kanmodel.tables.statistics.tally import (
    ABOVE,
    BELOW,
    N_BINS,
    Bins,
    Tally,
    population_stability,
    wasserstein,
)

SHAPES = st.sampled_from(["normal", "skewed", "discrete", "binary", "constant", "far", "zero", "steps"])
seeds = st.integers(0, 2**32 - 1)


def draw(shape, n, seed):
    """Values (n,) of one shape."""
    rng = np.random.default_rng(seed)
    return {
        "normal": lambda: rng.normal(size=n),
        "skewed": lambda: np.exp(rng.normal(size=n)),
        "discrete": lambda: rng.integers(0, 7, n).astype(float),
        "binary": lambda: (rng.random(n) < 0.05).astype(float),
        "constant": lambda: np.full(n, -3.7),
        "far": lambda: 1013.25 + rng.normal(size=n),
        "zero": lambda: np.zeros(n),
        "steps": lambda: np.repeat(rng.normal(size=-(-n // 9)), 9)[:n],
    }[shape]()


def assert_equal(one, other):
    for mine, theirs in zip(one.arrays, other.arrays, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, atol=1e-9)


@given(SHAPES, st.integers(1, 300), seeds)
def test_no_value_of_the_reference_is_beyond_its_bins(shape, n, seed):
    """Nor is one that was rounded to float32, and each other value is counted where it was before."""
    values = draw(shape, n, seed)[:, None]
    counts, sums = Bins.of(values).count(values)
    assert counts.shape == sums.shape == (1, 1, N_BINS)
    assert counts.sum() == n and counts[0, 0, BELOW] == counts[0, 0, ABOVE] == 0
    np.testing.assert_allclose(sums.sum(), values.sum(), atol=1e-9)
    rounded = values.astype(np.float32).astype(float)
    if len(np.unique(rounded)) == len(np.unique(values)):
        np.testing.assert_array_equal(Bins.of(values).count(rounded)[0], counts)


@given(SHAPES, st.integers(1, 300), seeds)
def test_values_beyond_the_reference_are_in_the_outer_bins(shape, n, seed):
    """However far they are, and with their mean."""
    values = draw(shape, n, seed)[:, None]
    bins, spread = Bins.of(values), 1 + np.ptp(values)
    for place, far in ((BELOW, values.min() - spread), (ABOVE, values.max() + spread)):
        counts, sums = bins.count(np.full((5, 1), far))
        assert counts[0, 0, place] == 5
        np.testing.assert_allclose(sums.sum() / counts.sum(), far)


def test_deciles_hold_a_tenth_each():
    """Of distinct values each inner bin has as many as any other."""
    values = np.random.default_rng(0).permutation(1000.0 * np.arange(200))[:, None]
    counts, _ = Bins.of(values).count(values)
    assert counts[0, 0].tolist() == [0, *[20] * 10, 0]


@given(st.integers(1, 60), st.integers(1, 12), seeds)
def test_tallies_add_up(n, n_blocks, seed):
    """The tally of all forecasts is the sum of its blocks, and of those of any division of the forecasts."""
    tally, bins, blocks, counted = make_tally(n, seed, n_blocks)
    assert len(tally) == n_blocks
    whole = Tally.of(bins, *counted)
    assert_equal(tally.total(), whole)
    mine = np.random.default_rng(seed).random(n) < 0.5
    parts = [Tally.of(bins, *(each[of] for each in counted), blocks[of], n_blocks) for of in (mine, ~mine)]
    assert_equal(parts[0] + parts[1], tally)
    assert_equal(Tally.join([tally, parts[0]]).total(), tally.total() + parts[0].total())
    assert_equal(Tally.empty(3, 2, 1, n_blocks) + tally, tally)


@given(st.integers(1, 60), st.integers(1, 12), st.data(), seeds)
def test_spans_are_runs_of_blocks_and_the_rest_is_without_them(n, n_blocks, data, seed):
    """Each span is the sum of its blocks, and a span with what is without it is the whole."""
    tally, *_ = make_tally(n, seed, n_blocks)
    length = data.draw(st.integers(1, n_blocks))
    spans = tally.spans(length)
    assert len(spans) == n_blocks - length + 1
    for start in range(len(spans)):
        run = Tally(*(each[start : start + length] for each in tally.arrays)).total()
        assert_equal(Tally(*(each[[start]] for each in spans.arrays)), run)
    assert_equal(tally.without(spans) + spans, Tally.join([tally.total()] * len(spans)))


counts = st.lists(st.integers(0, 500), min_size=N_BINS, max_size=N_BINS).map(np.array).map(lambda each: each * 1.0)


@given(counts, counts)
def test_stability_is_a_symmetric_divergence(one, other):
    """It is never negative, 0 for equal counts, the same in both directions, and 0 without forecasts."""
    index = population_stability(one, other)
    assert index >= 0 and np.isfinite(index)
    assert population_stability(one, one) == 0
    assert population_stability(other, one) == pytest.approx(index, abs=1e-12)
    assert population_stability(np.zeros(N_BINS), one) == pytest.approx(0, abs=1e-12)


def test_stability_of_many_forecasts_is_the_plain_one():
    """What is smoothed by a few forecasts approaches the textbook's sum as there are more."""
    p, q = np.array([0.3, *[0.07] * 10, 0.0]), np.array([0.1, *[0.09] * 10, 0.0])
    plain = ((p - q)[:11] * np.log(p[:11] / q[:11])).sum()
    assert population_stability(1e9 * p, 1e9 * q) == pytest.approx(plain, rel=1e-6)


@given(SHAPES, SHAPES, st.integers(1, 200), st.integers(1, 200), seeds)
def test_distance_is_as_near_to_the_values_as_is_said(shape, other_shape, n, n_other, seed):
    """It is at least the shift, and off by the mean absolute deviation within bins, of both together, at most."""
    values, others = draw(shape, n, seed)[:, None], draw(other_shape, n_other, seed + 1)[:, None]
    bins = Bins.of(values)
    (count, sums), (count2, sums2) = bins.count(values), bins.count(others)
    found = wasserstein(count[0, 0], sums[0, 0], count2[0, 0], sums2[0, 0])
    bound = 0.0
    for each, of, totals in ((values, count, sums), (others, count2, sums2)):
        means = np.divide(totals[0, 0], of[0, 0], out=np.zeros(N_BINS), where=of[0, 0] > 0)
        bound += np.abs(each[:, 0] - means[np.searchsorted(bins.edges[0], each[:, 0])]).mean()
    true = wasserstein_distance(values[:, 0], others[:, 0])
    assert abs(found - true) <= bound + 1e-9 * (1 + true)
    assert found >= abs(values.mean() - others.mean()) - 1e-9 * (1 + true)


def test_distance_of_nothing_is_unknown():
    """A side without forecasts has no distance."""
    nothing, one = np.zeros(N_BINS), np.eye(N_BINS)[3]
    assert np.isnan(wasserstein(nothing, nothing, one, one))
