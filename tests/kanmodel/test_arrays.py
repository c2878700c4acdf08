"""Windows over rows, and the values that they must not have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.arrays import refuse_non_finite, take_windows
from kanmodel.errors import DataError


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 8))
def test_windows_give_back_the_rows_they_were_cut_from(n_rows, n_features, lookback):
    """Step t of the window that ends at row e is row e - lookback + 1 + t, so the last steps are the rows again."""
    rows = np.arange(n_rows * n_features, dtype=float).reshape(n_rows, n_features)
    ends = np.arange(lookback - 1, n_rows)
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
