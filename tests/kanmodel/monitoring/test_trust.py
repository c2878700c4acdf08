"""How unlike the reference windows a window is, by what, and when that is said to be unusual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_model, make_windows, with_intervals
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel import Model
from kanmodel.errors import DataError, InsufficientReferenceError
from kanmodel.forecaster import Reference
from kanmodel.monitoring.trust import LEVEL, NEGLIGIBLE, ReferenceDistances, Trust, find_neighbours
from kanmodel.tables.rhythm import TimeColumn

MODEL = make_model(targets=("a", "b"))
SCALE = MODEL.scaling.feature_scale
REFERENCE = MODEL.scaling.features_to_original(MODEL.reference.scaled)
WINDOWS = make_windows(MODEL, 40)


def with_reference(model, windows, times=None, targets=None, **config):
    """The model with other reference windows, model units, and members of its config."""
    network = make_model(targets=("a", "b")).network
    network.config = replace(model.config, **config)
    reference = Reference(torch.as_tensor(windows), network.config, targets, times)
    return replace(model, network=network, reference=reference)


UNTIMED = with_reference(MODEL, MODEL.reference.scaled)  # windows of which none overlaps with another


def distances_of(windows, others, scale=SCALE):
    """All distances by brute force, (n, n_others)."""
    return np.sqrt((((windows[:, None] - others) / scale) ** 2).mean(axis=(2, 3)))


def test_the_distance_is_that_of_the_nearest_reference_window():
    """By brute force over all pairs, in training standard deviations."""
    apart = distances_of(WINDOWS, REFERENCE)
    for one, row in zip(Trust.of(MODEL, WINDOWS), apart, strict=True):
        assert one.nearest_reference.index == row.argmin()
        assert one.nearest_reference.distance == pytest.approx(row.min(), rel=1e-9)


@settings(max_examples=examples(30))
@given(seed=st.integers(0, 1000), size=st.sampled_from([0.0, 1e-9, 1.0, 1e12, 1e200]))
def test_shares_sum_to_one(seed, size):
    """Of cells and of features, at any distance but 0, where all are 0; none is negative or undefined."""
    windows = REFERENCE[:3] + size * np.random.default_rng(seed).normal(size=REFERENCE[:3].shape)
    for one in Trust.of(MODEL, windows):
        shares = np.array([*one.shares.values()])
        assert shares == pytest.approx(one.cells.sum(axis=0), rel=1e-12)
        assert (one.cells >= 0).all() and np.isfinite(one.nearest_reference.distance)
        if one.nearest_reference.distance > 0:
            assert shares.sum() == pytest.approx(1, rel=1e-12)
        else:
            assert not shares.any() and not one.lags


@settings(max_examples=examples(20))
@given(seed=st.integers(0, 1000))
def test_the_order_of_the_reference_windows_does_not_matter(seed):
    """With them permuted, everything but the index of the nearest is the same."""
    order = np.random.default_rng(seed).permutation(len(REFERENCE))
    permuted = with_reference(MODEL, MODEL.reference.scaled[order], targets=MODEL.reference.targets[order])
    before = Trust.of(with_reference(MODEL, MODEL.reference.scaled, targets=MODEL.reference.targets), WINDOWS)
    for one, other in zip(before, Trust.of(permuted, WINDOWS), strict=True):
        assert one.nearest_reference.index == order[other.nearest_reference.index]
        assert (one.verdict, one.p_value) == (other.verdict, other.p_value)
        assert one.nearest_reference.distance == pytest.approx(other.nearest_reference.distance)
        assert one.mean_abs_error == pytest.approx(other.mean_abs_error)


@pytest.mark.parametrize("factor", [1e-3, 1.8, 1e6])
@pytest.mark.parametrize("is_trained", [True, False])
def test_the_unit_of_a_feature_does_not_matter(factor, is_trained):
    """In degrees Fahrenheit, distances, shares and ranks are those in Celsius, with known scaling or without."""

    def make(factor, offset):
        features = [*MODEL.config.features]
        if is_trained:
            change = {name: getattr(features[1], name) * factor + offset for name in ("mean", "min", "max")}
            features[1] = replace(features[1], std=features[1].std * factor, **change)
            return with_reference(MODEL, MODEL.reference.scaled, features=tuple(features))
        plain = tuple(replace(one, mean=0.0, std=1.0, min=None, max=None) for one in features)
        windows = REFERENCE.copy()
        windows[..., 1] = windows[..., 1] * factor + offset
        return with_reference(MODEL, windows, features=plain)

    changed = WINDOWS.copy()
    changed[..., 1] = changed[..., 1] * factor + 32.0
    for one, other in zip(Trust.of(make(1.0, 0.0), WINDOWS), Trust.of(make(factor, 32.0), changed), strict=True):
        assert one.nearest_reference.index == other.nearest_reference.index
        assert one.nearest_reference.distance == pytest.approx(other.nearest_reference.distance, rel=1e-6)
        assert one.shares == pytest.approx(other.shares, rel=1e-5, abs=1e-9)
        assert (one.verdict, one.p_value) == (other.verdict, other.p_value)


@pytest.mark.parametrize("feature", [1, 3])
def test_a_planted_outlier_is_named(feature):
    """Far away in one feature at two steps, within its range, a window is unusual by that feature at these steps."""
    wide = tuple(
        replace(one, min=one.mean - 20 * one.std, max=one.mean + 20 * one.std) for one in MODEL.config.features
    )
    window, column = REFERENCE[:1].copy(), wide[feature]
    window[0, 1:3, feature] = column.mean + 12 * column.std
    (one,) = Trust.of(with_reference(MODEL, MODEL.reference.scaled, features=wide), window)
    assert one.verdict == "unusual" and not one.reliable and not one.outside
    assert one.p_value == pytest.approx(1 / 161)
    assert max(one.shares, key=lambda name: one.shares[name]) == column.name and one.shares[column.name] > 0.9
    assert (one.lags[column.name].newest, one.lags[column.name].oldest) == (3, 4)
    assert f"mostly by {column.name} (" in str(one) and "at lags 3 to 4" in str(one)
    assert "not guaranteed" in str(one)


def test_values_outside_the_training_range_are_named():
    """By feature and steps, with the farthest value and how far it is outside, in standard deviations."""
    window = REFERENCE[:1].copy()
    high, low = MODEL.config.features[2].max, MODEL.config.features[0].min
    window[0, [0, 4], 2] = high + 0.5 * SCALE[2], high + 2 * SCALE[2]
    window[0, 5, 0] = low - SCALE[0]
    (one,) = Trust.of(MODEL, window)
    assert one.verdict == "outside" and [each.feature for each in one.outside] == ["f2", "f0"]
    above, below = one.outside
    assert (above.steps, below.steps) == ((-5, -1), (0,))
    assert above.value == pytest.approx(high + 2 * SCALE[2]) and (above.low, above.high)[1] == high
    assert (above.excess, below.excess) == (pytest.approx(2), pytest.approx(1))
    assert "f2 above its training maximum" in str(one) and "by 2 standard deviations and 1 more" in str(one)


def test_what_reference_windows_exceed_too_is_not_called_outside():
    """If 3 % of them are as far outside, or it is a twentieth of a standard deviation, the verdict is usual."""
    window = REFERENCE[:1].copy()
    high = MODEL.config.features[1].max
    window[0, 3, 1] = high + 0.5 * NEGLIGIBLE * SCALE[1]
    (one,) = Trust.of(MODEL, window)
    assert one.verdict == "usual" and one.outside[0].excess == pytest.approx(0.5 * NEGLIGIBLE)
    scaled = MODEL.reference.scaled.clone()
    scaled[:5, 3, 1] = (high + SCALE[1] - MODEL.config.features[1].mean) / SCALE[1]
    window[0, 3, 1] = high + 0.5 * SCALE[1]
    (one,) = Trust.of(with_reference(MODEL, scaled), window)
    assert one.verdict == "usual" and one.outside[0].excess == pytest.approx(0.5)


def test_p_values_of_exchangeable_windows_are_valid_and_nearly_uniform():
    """Of 2,000 such windows, at most a share a has a p-value of a or below, up to sampling, and not much less."""
    found = []
    for seed in range(20):
        drawn = make_windows(MODEL, len(REFERENCE) + 100, seed + 7)
        model = with_reference(MODEL, MODEL.to_model_units(drawn[: len(REFERENCE)]))
        found += [one.p_value for one in Trust.of(model, drawn[len(REFERENCE) :])]
    for level in (LEVEL, 0.05, 0.1, 0.25, 0.5, 0.75):
        share = np.mean(np.array(found) <= level)
        deviation = np.sqrt(level * (1 - level) * (1 / len(found) + 1 / (20 * len(REFERENCE))))
        assert -1 / 161 - 4 * deviation < share - level < 4 * deviation


def test_reference_windows_are_compared_with_the_others():
    """Without windows, each is left out of its own neighbours, and their p-values are their ranks."""
    apart = distances_of(REFERENCE, REFERENCE)
    np.fill_diagonal(apart, np.inf)
    found = Trust.of(UNTIMED)
    nearest = np.array([one.nearest_reference.distance for one in found])
    assert nearest == pytest.approx(apart.min(axis=1), rel=1e-6)
    assert [one.p_value for one in found] == pytest.approx([(nearest >= one).mean() for one in nearest])
    assert found[0].nearest_reference.typical == pytest.approx(np.median(nearest))
    assert sum(one.verdict == "unusual" for one in found) == 1


def slide(n, stride, lookback, rng):
    """Windows over one series, (n, lookback, n_features), model units, and the number of the last row of each."""
    rows = rng.normal(size=(n * stride + lookback, len(MODEL.config.features)))
    ends = np.arange(n) * stride + lookback - 1
    return rows[ends[:, None] + np.arange(1 - lookback, 1)], ends


@pytest.mark.parametrize("stride", [1, 2, 4, 7])
@pytest.mark.parametrize("form", ["dates", "dates and step", "numbers", "none", "unreadable"])
def test_windows_that_overlap_in_time_are_no_neighbours(stride, form):
    """Whether times say so, or rows that they share, where times are unknown."""
    windows, ends = slide(30, stride, 6, np.random.default_rng(stride))
    ends = ends[:, None]
    times, config = None, {}
    if form.startswith("dates"):
        times = tuple(str(np.datetime64("2026-01-01T00") + hour) + ":00Z" for hour in ends[:, 0])
    elif form != "none":
        times = tuple(f"{'at ' if form == 'unreadable' else ''}{row}" for row in ends[:, 0])
    if form == "dates and step":
        config["time"] = TimeColumn("time", 3600.0, 1.5, dated=True)
    model = with_reference(MODEL, windows, times, **config)
    apart, shared = np.abs(ends - ends.T), 6
    if form in ("dates", "numbers"):
        shared = 6 * stride  # the step is taken to be that between two windows
    elif form in ("none", "unreadable"):
        shared = 5  # a single row is shared by chance too
    expected = apart < shared
    assert (find_neighbours(model) == expected).all()
    nearest = np.where(expected, np.inf, distances_of(windows, windows, 1.0)).min(axis=1)
    assert ReferenceDistances.of(model).ranked == pytest.approx(np.sort(nearest), rel=1e-6)


def test_rows_that_repeat_are_no_overlap():
    """Windows that end and begin in the same row again and again, such as nights without sun, are neighbours."""
    windows = np.random.default_rng(0).normal(size=(20, 6, 4))
    windows[:, [0, 1, 2, -2, -1]] = 0.0
    assert (find_neighbours(with_reference(MODEL, windows)) == np.eye(20, dtype=bool)).all()


def test_where_all_overlap_nothing_is_called_usual():
    """The distance and its shares are known, its rank is not; the reference windows themselves have none."""
    for windows in (slide(4, 1, 6, np.random.default_rng(0))[0], MODEL.reference.scaled[:1]):
        model = with_reference(MODEL, windows)
        (one,) = Trust.of(model, WINDOWS[:1])
        assert (one.verdict, one.p_value, one.nearest_reference.typical) == ("unknown", None, None)
        assert sum(one.shares.values()) == pytest.approx(1) and not one.reliable and str(one)
        with pytest.raises(InsufficientReferenceError, match="reference window 0 overlaps"):
            Trust.of(model)


def test_errors_are_those_of_windows_as_far():
    """Thirds of the reference windows by distance have their own mean absolute errors, by output."""
    model = with_reference(MODEL, MODEL.reference.scaled, targets=MODEL.reference.targets)
    found = Trust.of(model)
    order = np.argsort([one.nearest_reference.distance for one in found])
    misses = np.abs(model.predict(REFERENCE) - model.reference.targets)
    means = [misses[third].mean(axis=0) for third in np.array_split(order, 3)]
    for third, expected in zip(np.array_split(order, 3), means, strict=True):
        for number in third:
            assert [*found[number].mean_abs_error.values()] == pytest.approx(expected)
            assert found[number].error_ratio == pytest.approx((expected / np.mean(means, axis=0)).mean())
        assert all(found[number].coverage is None for number in third)
    assert Trust.of(UNTIMED, WINDOWS[:1])[0].mean_abs_error is None


def test_intervals_cover_what_they_do_on_windows_as_far():
    """Thirds of the reference windows have the share of their actual values that the intervals hold, by level."""
    model = with_intervals(with_reference(MODEL, MODEL.reference.scaled, targets=MODEL.reference.targets))
    found = Trust.of(model)
    forecasts = Model.of(model).predict(REFERENCE, intervals="all")
    inside = (forecasts.lower <= model.reference.targets) & (model.reference.targets <= forecasts.upper)
    order = np.argsort([one.nearest_reference.distance for one in found])
    for third in np.array_split(order, 3):
        expected = dict(zip(forecasts.levels, inside[:, third].mean(axis=(1, 2)), strict=True))
        for number in third:
            assert found[number].coverage == pytest.approx(expected)
        held = " and ".join(f"{100 * share:.0f} % at {100 * level:g} %" for level, share in expected.items())
        assert f"intervals that hold {held}" in str(found[third[0]])


def test_constant_features_and_unknown_ranges_leave_no_number_undefined():
    """A feature that never varied counts in its own unit; without a training range none is exceeded."""
    features = tuple(
        replace(one, std=0.0 if number == 1 else one.std, min=None, max=None)
        for number, one in enumerate(MODEL.config.features)
    )
    windows = MODEL.reference.scaled.clone()
    windows[..., 1] = 0.0
    model = with_reference(MODEL, windows, features=features)
    given = model.scaling.features_to_original(windows[:2])
    given[1, :, 1] += 3.0
    same, other = Trust.of(model, given)
    assert same.nearest_reference.distance == pytest.approx(0, abs=1e-6)
    assert other.nearest_reference.distance == pytest.approx(1.5) and other.shares["f1"] == pytest.approx(1)
    assert not other.outside
    plain = tuple(replace(one, mean=0.0, std=1.0) for one in features)
    windows = torch.full((50, 6, 4), 0.1, dtype=torch.float64)  # whose mean is rounded
    windows[..., 0] = MODEL.reference.scaled[:50, :, 0]
    (one,) = Trust.of(with_reference(MODEL, windows, features=plain), windows[:1].numpy() + np.array([0, 3.0, 0, 0]))
    assert one.nearest_reference.distance == pytest.approx(1.5) and one.shares["f1"] == pytest.approx(1)
    (one,) = Trust.of(with_reference(MODEL, MODEL.reference.scaled * 1e200), make_windows(MODEL, 1))
    assert np.isfinite(one.nearest_reference.distance) and sum(one.shares.values()) == pytest.approx(1)


def test_a_model_states_it_for_any_form_of_windows():
    """One window, a mapping or a frame with times; wrong shapes are refused, and a table has a row for each."""
    model = Model.of(MODEL, "load")
    found = model.trust(WINDOWS)
    rows = found.table()
    assert [row["verdict"] for row in rows] == [one.verdict for one in found]
    assert [row["distance"] for row in rows] == [one.nearest_reference.distance for one in found]
    assert "40 usual" in repr(found) and str(found[0]) in repr(model.trust(WINDOWS[0]))
    assert model.trust({f"f{f}": WINDOWS[0, :, f] for f in range(4)})[0].shares == found[0].shares
    assert model.trust().times == MODEL.reference.times and "load" in model.trust().source
    with pytest.raises(DataError, match="must have shape"):
        model.trust(WINDOWS[:, :3])


@pytest.mark.parametrize("n_series", [1, 3])
def test_windows_of_the_same_block_are_no_neighbours_to_compare_with(n_series):
    """A block ends at a long gap; several series have the same times; the nearest is of another block."""
    starts = np.repeat(np.array([0, 500, 1400]), 10) + np.tile(np.arange(10) * 7, 3)
    ends = np.tile(starts, n_series)
    windows = np.random.default_rng(0).normal(size=(len(ends), 6, 4))
    times = tuple(str(np.datetime64("2026-01-01T00") + int(hour)) + ":00Z" for hour in ends)
    model = with_reference(MODEL, windows, times, time=TimeColumn("time", 3600.0, 1.5, dated=True))
    blocks = np.searchsorted([500, 1400], ends, "right")
    expected = blocks[:, None] == blocks
    assert (find_neighbours(model) == expected).all()
    nearest = np.where(expected, np.inf, distances_of(windows, windows, 1.0)).min(axis=1)
    assert ReferenceDistances.of(model).ranked == pytest.approx(np.sort(nearest), rel=1e-6)
    assert (blocks[[one.nearest_reference.index for one in Trust.of(model)]] != blocks).all()


@pytest.mark.parametrize("gap", [6, 27])
def test_a_gap_that_is_not_long_ends_no_block(gap):
    """Of a window's length, or of four times the usual distance; then only windows that overlap are left out."""
    ends = np.concatenate([np.arange(10) * 7, 9 * 7 + gap + np.arange(10) * 7])
    windows = np.random.default_rng(0).normal(size=(20, 6, 4))
    model = with_reference(MODEL, windows, tuple(map(str, ends)), time=TimeColumn("time", 1.0, 1.5, dated=False))
    assert (find_neighbours(model) == (np.abs(ends[:, None] - ends) < 6)).all()


def test_of_equal_distances_the_first_window_is_named():
    """With each reference window twice, the first of the two is the nearest."""
    half = MODEL.reference.scaled[: len(REFERENCE) // 2]
    model = with_reference(MODEL, half.repeat(2, 1, 1))
    assert ReferenceDistances.of(model).find_neighbour(model, REFERENCE[3] + 0.1).index < len(half)
