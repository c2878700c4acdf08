import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.errors import DataError, UnknownNameError
from kanmodel.scaling import Scaling
from kanmodel.training.samples import MIN_SAMPLES, Samples, TrainingTable, covered_rows, split_samples


def table(n_rows, **options):
    """Row r holds the features r and -r and the target 10 r."""
    rows = np.arange(n_rows, dtype=float)
    return TrainingTable(np.stack([rows, -rows], axis=1), 10 * rows[:, None], ("up", "down"), ("y",), **options)


def rows_of(ends, lookback, horizon):
    return set(covered_rows(ends, 1 - lookback, horizon - 1).tolist())


@st.composite
def split_tables(draw):
    """Tables of several segments, with a split in stretches of 30 to 60 rows, with or without validation rows."""
    parts = draw(st.sampled_from([("train", "test"), ("train", "validation", "test")]))
    lengths = draw(st.lists(st.integers(30, 60), min_size=6, max_size=9))
    split = np.repeat([parts[block % len(parts)] for block in range(len(lengths))], lengths)
    segment = np.cumsum(np.isin(np.arange(len(split)), draw(st.lists(st.integers(1, len(split) - 1), max_size=3))))
    return table(len(split), split=split, segment=segment)


@given(split_tables(), st.integers(1, 6), st.integers(1, 3))
def test_no_row_is_in_two_parts_and_no_sample_crosses_a_gap(rows, lookback, horizon):
    """The parts share no row, targets included, and each sample lies in one segment and one split."""
    parts = split_samples(rows, lookback, horizon, 0.2)
    covered = [rows_of(ends, lookback, horizon) for ends in (parts.train, parts.validation, parts.test)]
    assert not covered[0] & covered[1] and not covered[0] & covered[2] and not covered[1] & covered[2]
    for ends in (parts.train, parts.validation, parts.test):
        assert len(ends) >= MIN_SAMPLES and (np.diff(ends) > 0).all()
        for column in (rows.split, rows.segment):
            assert (column[ends - lookback + 1] == column[ends + horizon - 1]).all()
    assert (rows.split[parts.test] == "test").all()


def test_without_validation_rows_blocks_over_the_whole_time_are_held_out():
    """A fifth of the training samples is held out, from early, middle and late rows, and never from test."""
    split = np.repeat(["train", "test"], [900, 100])
    parts = split_samples(table(1000, split=split), 4, 1, 0.2)
    assert len(parts.validation) == pytest.approx(0.2 * 897, abs=10)
    assert parts.validation.min() < 150 and parts.validation.max() > 750 and (split[parts.validation] == "train").all()


def test_without_a_split_the_last_rows_are_test():
    """70 % of the rows are for training, the next 15 % for validation, the last 15 % for the test."""
    parts = split_samples(table(200), 3, 1, 0.15)
    assert (parts.train[0], parts.train[-1]) == (2, 139)
    assert (parts.validation[0], parts.validation[-1]) == (142, 169)
    assert (parts.test[0], parts.test[-1]) == (172, 199)


def test_step_one_is_the_target_of_the_window_s_last_row():
    """The window that ends at row e has the targets of the rows e, e+1, ... in that order."""
    rows = table(10)
    one = np.ones(2)
    scaling = Scaling(0 * one, one, 0 * one, one, torch.float64)
    samples = Samples.of(rows, scaling, lookback=3, horizon=2)
    ends = np.array([2, 7])
    assert samples.windows(ends)[:, :, 0].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert samples.outputs(ends).tolist() == [[20, 30], [70, 80]]


def test_too_few_rows_for_one_window_are_counted():
    """The error says how many rows there are and how many a window needs."""
    with pytest.raises(DataError, match="has 5 rows, but one window with its targets needs 9"):
        split_samples(table(5), 8, 2, 0.15)


def test_segments_shorter_than_a_window_are_named_with_the_longest():
    """Where no run of rows is as long as a window, the error says how long the longest is."""
    with pytest.raises(DataError, match=r"train part has 0 windows of 24 rows, but needs 8; its longest run .* is 20"):
        split_samples(table(400, segment=np.arange(400) // 20), 24, 1, 0.15)


def test_a_part_without_rows_is_named():
    """A split that marks no row as test is refused, since there would be nothing to measure on."""
    with pytest.raises(DataError, match=r"test part has 0 windows .* is 0$"):
        split_samples(table(200, split=np.full(200, "train")), 4, 1, 0.15)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": np.array(["train", "dev"])}, DataError, "data row 2 must be one of .* but is 'dev'"),
        ({"units": {"sideways": "m"}}, UnknownNameError, "unit given for 'sideways', which is none of .*'up'"),
        ({"last_value": {"z": "up"}}, UnknownNameError, "last value given for 'z'"),
        ({"last_value": {"y": "z"}}, UnknownNameError, "last value given for 'z', which is none of .*'down'"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(options, error, message):
    """Unknown split values and names that belong to no column are refused by name."""
    with pytest.raises(error, match=message):
        table(2, **options)


def test_a_target_is_not_its_own_feature():
    """A column cannot be both, since the window would hold what is to be forecast."""
    with pytest.raises(DataError, match="y is a target and a feature"):
        TrainingTable(np.zeros((2, 1)), np.zeros((2, 1)), ("y",), ("y",))
