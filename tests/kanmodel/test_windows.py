import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.data import refuse_non_finite, take_windows, window_ends
from kanmodel.errors import DataError

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
