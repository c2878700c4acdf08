"""Columns and their scaling, windows over rows, and their times."""

import warnings
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from factories import make_model
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.arrays import refuse_non_finite, take_windows
from kanmodel.errors import ConfigError, DataError
from kanmodel.tables.columns import Feature, Target
from kanmodel.tables.instants import Clock, times_as_text, window_ends

moderate = st.floats(-1e3, 1e3)
spreads = st.floats(1e-2, 1e3)


def scaling_of(features, targets, dtype="float64", horizon=1):
    config = make_model("head", n_features=len(features), targets=("y0", "y1"), horizon=horizon).config
    return replace(config, features=features, targets=targets, dtype=dtype).scaling


def columns(mean, std):
    features = (Feature("a", mean=mean, std=std), Feature("b", mean=-mean, std=2 * std))
    return features, (Target("y0", mean=mean, std=std), Target("y1", mean=0.0, std=1.0))


@given(moderate, spreads, st.lists(st.tuples(moderate, moderate), min_size=1, max_size=5))
def test_scaling_and_back_is_identity(mean, std, rows):
    """Scaling to model units and back returns the original features and outputs."""
    scaling = scaling_of(*columns(mean, std))
    values = np.array(rows)
    np.testing.assert_allclose(scaling.features_to_original(scaling.features_to_model(values)), values, atol=1e-8)
    outputs = torch.from_numpy((values - scaling.output_mean) / scaling.output_scale)
    np.testing.assert_allclose(scaling.outputs_to_original(outputs), values, atol=1e-8)


def test_read_only_windows_are_scaled_without_a_warning():
    """Arrays of buffers and of data frames are often read-only; they are not changed."""
    scaling, windows = scaling_of(*columns(1.0, 2.0)), np.array([[1.0, 2.0]])
    windows.flags.writeable = False
    torch.set_warn_always(True)  # or torch warns only once per process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert scaling.features_to_model(windows).tolist() == [[0.0, 0.75]]
    finally:
        torch.set_warn_always(False)
    assert windows.tolist() == [[1.0, 2.0]]


@given(moderate, spreads)
def test_the_mean_becomes_zero_and_one_deviation_one(mean, std):
    """Model units are standard deviations from the mean."""
    scaling = scaling_of(*columns(mean, std))
    scaled = scaling.features_to_model(np.array([[mean, -mean], [mean + std, -mean + 2 * std]]))
    np.testing.assert_allclose(scaled, [[0, 0], [1, 1]], atol=1e-6)


def test_a_constant_column_is_not_divided_by_zero():
    """A column of standard deviation 0 is only shifted, and restored exactly."""
    features = (Feature("a", mean=7.0, std=0.0), Feature("b"))
    scaling = scaling_of(features, (Target("y0", mean=3.0, std=0.0), Target("y1")))
    scaled = scaling.features_to_model(np.array([[7.0, 1.0], [9.0, 1.0]]))
    assert scaled.tolist() == [[0.0, 1.0], [2.0, 1.0]]
    assert scaling.features_to_original(scaled)[1, 0] == 9.0
    assert scaling.outputs_to_original(torch.zeros(1, 2, dtype=torch.float64)).tolist() == [[3.0, 0.0]]


def test_outputs_are_scaled_by_their_target_at_every_step():
    """With two targets and two steps, outputs run y0+1, y1+1, y0+2, y1+2."""
    scaling = scaling_of(*columns(10.0, 4.0), horizon=2)
    assert scaling.output_mean.tolist() == [10.0, 0.0, 10.0, 0.0]
    assert scaling.output_scale.tolist() == [4.0, 1.0, 4.0, 1.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_model_units_have_the_type_of_the_network(dtype):
    """Scaled values are handed over in the network's own type."""
    scaling = scaling_of(*columns(0.0, 1.0), dtype=dtype)
    assert scaling.features_to_model(np.zeros((1, 2))).dtype == getattr(torch, dtype)


def test_a_value_beyond_float32_becomes_infinite_without_a_warning(recwarn):
    """A finite value that the network's type cannot hold is left to be refused by name."""
    scaled = scaling_of(*columns(0.0, 1.0), dtype="float32").features_to_model(np.array([[1e39, 0.0]]))
    assert torch.isinf(scaled[0, 0])
    assert not recwarn.list


runs = st.lists(st.integers(1, 12), min_size=1, max_size=6)  # rows of each stretch without a gap


def label(lengths):
    return np.repeat(np.arange(len(lengths)), lengths)


@given(runs, runs, st.integers(1, 6))
def test_no_window_crosses_a_change_of_any_boundary(segments, splits, lookback):
    """Every window lies in one segment and one split, and every such window is found."""
    n_rows = min(sum(segments), sum(splits))
    columns = [label(segments)[:n_rows], label(splits)[:n_rows]]
    expected = [
        end
        for end in range(lookback - 1, n_rows)
        if all(len(set(column[end - lookback + 1 : end + 1].tolist())) == 1 for column in columns)
    ]
    assert window_ends(columns, n_rows, lookback).tolist() == expected


@given(st.integers(0, 20), st.integers(1, 8))
def test_a_table_without_gaps_gives_a_window_for_every_row_but_the_first(n_rows, lookback):
    """Without boundaries there are n_rows - lookback + 1 windows, and none if there are too few rows."""
    assert len(window_ends([], n_rows, lookback)) == max(0, n_rows - lookback + 1)


def test_a_label_that_returns_later_is_another_run():
    """A split of train, test, train gives no window across the test rows."""
    split = np.array(["train", "train", "test", "train", "train"])
    assert window_ends([split], 5, 2).tolist() == [1, 4]


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 8))
def test_windows_give_back_the_rows_they_were_cut_from(n_rows, n_features, lookback):
    """Step t of the window that ends at row e is row e - lookback + 1 + t, so the last steps are the rows again."""
    rows = np.arange(n_rows * n_features, dtype=float).reshape(n_rows, n_features)
    ends = window_ends([], n_rows, lookback)
    windows = take_windows(rows, ends, lookback)
    assert windows.shape == (len(ends), lookback, n_features)
    np.testing.assert_array_equal(windows[:, -1], rows[ends])
    for step in range(lookback):
        np.testing.assert_array_equal(windows[:, step], rows[ends - lookback + 1 + step])


def test_values_that_are_not_finite_are_named_and_counted():
    """The error names each place and counts them all."""
    values = np.zeros((2, 3))
    values[0, 2], values[1, 0] = np.nan, np.inf
    with pytest.raises(DataError, match=r"^windows\[0\]\[2\] must be finite; 2 of 6 values are not finite$") as caught:
        refuse_non_finite(values, "windows")
    assert [problem.path for problem in caught.value.problems] == ["windows[0][2]", "windows[1][0]"]


HOURS = [datetime(2026, 3, 29, hour) for hour in range(4)]
SECONDS = [datetime(2026, 3, 29, hour, tzinfo=UTC).timestamp() for hour in range(4)]


@pytest.mark.parametrize(
    "values",
    [
        HOURS,
        [time.replace(tzinfo=UTC) for time in HOURS],
        [(time + timedelta(hours=2)).replace(tzinfo=timezone(timedelta(hours=2))) for time in HOURS],
        [time.isoformat() for time in HOURS],
        [f" {time.isoformat()}Z" for time in HOURS],
        [str(time) for time in HOURS],
        np.array(HOURS, dtype="datetime64[ns]"),
        pd.Series(HOURS).to_numpy(),
        pd.Series(HOURS).dt.tz_localize("UTC").to_numpy(),
        pl.Series(HOURS).to_numpy(),
        pl.Series(HOURS).dt.replace_time_zone("UTC").to_numpy(),
    ],
    ids=range(11),
)
def test_every_form_of_a_time_is_the_same_instant(values):
    """Times of Python, numpy, pandas and polars and ISO 8601 agree, with and without a time zone."""
    clock = Clock.of(values)
    assert clock.seconds.tolist() == SECONDS and clock.dated and clock.step == 3600


def test_numbers_and_days_are_times():
    """Numbers are times in their own unit; dates without a time are midnights."""
    for values in (np.arange(3), [0.0, 1.0, 2.0], ["0", "1", "2"]):
        clock = Clock.of(values)
        assert (clock.seconds.tolist(), clock.dated, clock.step) == ([0, 1, 2], False, 1)
    assert Clock.of([date(2026, 1, 1), date(2026, 1, 2)]).step == 86_400
    assert Clock.of(["2026-01-01", "2026-01-02"]).rows_per(7 * 86_400) == 7


def test_a_gap_is_a_step_longer_than_usual():
    """A missing row is a gap, months of different lengths are not, and `max_step` can allow weekends."""
    assert np.flatnonzero(Clock.of([0, 1, 2, 4, 5]).gaps).tolist() == [3]
    months = [date(2026, month, 1) for month in range(1, 13)]
    assert not Clock.of(months).gaps.any()
    weekdays = [day for day in (date(2026, 1, 5) + timedelta(days=n) for n in range(14)) if day.weekday() < 5]
    assert np.flatnonzero(Clock.of(weekdays).gaps).tolist() == [5]
    assert not Clock.of(weekdays, max_step=3).gaps.any()
    assert (
        str(Clock.of(weekdays)) == "1 steps in time are gaps, longer than 1.5 times the usual 1 day, 0:00:00 (max_step)"
    )


@pytest.mark.parametrize("title", ["", " ", "<b>load</b>", "`load`", "load_mw", "*load*", "[a](b)", "a\nb", 3])
def test_a_title_is_words_without_markup(title):
    """It stands in prose, in Markdown and HTML alike; letters of any alphabet, digits and punctuation are words."""
    assert Target("y", title="Newark's load, Δ 6 h (°C/h): 50 % & more!").title
    with pytest.raises(ConfigError, match=r"^title must be"):
        Target("y", title=title)


def test_one_row_has_no_step():
    """A table with one row, or one row per segment, has no step and no gap."""
    for clock in (Clock.of([5]), Clock.of([5, 1], np.array(["a", "b"]))):
        assert clock.step == 0 and not clock.gaps.any() and clock.rows_per(86_400) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 2, 1], "data row 3, column time is earlier than the row above it"),
        ([0, 1, 1], "data row 3, column time is the same as in the row above it"),
        (
            [0, np.nan],
            "data row 2, column time must be a time in ISO 8601 or as 31.12.2023 23:00, .* but is nan",
        ),
        (["2026-01-01", "Monday"], "data row 2, column time must be a time .* but is 'Monday'"),
        (["2026-01-01", None], "data row 2, column time must be a time .* but is None"),
        (["2026-01-01", "5"], "data row 2, column time must be a date as above, but is 5"),
        (["5", "2026-01-01"], "data row 2, column time must be a number as above, but is 2026-01-01"),
        (np.array(["2026-01-01", "NaT"], dtype="datetime64[s]"), "data row 2, .* but is NaT"),
        ([pd.Timestamp("2026-01-01", tz="UTC"), pd.NaT], "data row 2, .* but is NaT"),
    ],
)
def test_invalid_or_unordered_times_are_named(values, message):
    """An invalid time is named with its row, counted from 1 below the header."""
    with pytest.raises(DataError, match=message):
        Clock.of(values)


def test_times_start_again_in_another_segment():
    """Times must increase only within a segment."""
    segment = np.array(["a", "a", "b", "b"])
    clock = Clock.of([9, 10, 9, 10], segment)
    assert clock.step == 1 and not clock.gaps.any()


def test_a_longest_step_below_the_usual_is_refused():
    """A `max_step` below 1 is refused, because it would make every step a gap."""
    with pytest.raises(DataError, match=r"max_step must be at least 1 usual step, but is 0\.5"):
        Clock.of([0, 1], max_step=0.5)


def test_time_stamps_as_text():
    """Dates are written in ISO 8601; strings and numbers stay as they are."""
    assert times_as_text(np.array(HOURS[:1], dtype="datetime64[us]")) == ("2026-03-29T00:00:00",)
    assert times_as_text(np.array(["2026-03-29"], dtype="datetime64[D]")) == ("2026-03-29",)
    assert times_as_text([HOURS[1]]) == ("2026-03-29T01:00:00",)
    assert times_as_text(["a", "b"]) == ("a", "b") and times_as_text([1, 2]) == ("1", "2")
