import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.errors import DataError, UnknownNameError
from kanmodel.tables.columns import Scaling
from kanmodel.tables.instants import Clock
from kanmodel.tables.samples import MIN_SAMPLES, Samples, covered_rows, split_samples
from kanmodel.tables.roles import TrainingTable


def table(n_rows, **options):
    """Row r holds the features r and -r and the target 10 r."""
    rows = np.arange(n_rows, dtype=float)
    return TrainingTable(np.stack([rows, -rows], axis=1), 10 * rows[:, None], ("up", "down"), ("y",), **options)


def rows_of(ends, lookback, horizon):
    return set(covered_rows(ends, 1 - lookback, horizon - 1).tolist())


@st.composite
def split_tables(draw):
    """Tables of several segments with a split in runs of 30 to 60 rows, with or without validation rows."""
    parts = draw(st.sampled_from([("train", "test"), ("train", "validation", "test")]))
    lengths = draw(st.lists(st.integers(30, 60), min_size=6, max_size=9))
    split = np.repeat([parts[block % len(parts)] for block in range(len(lengths))], lengths)
    segment = np.cumsum(np.isin(np.arange(len(split)), draw(st.lists(st.integers(1, len(split) - 1), max_size=3))))
    return table(len(split), split=split, segment=segment)


@given(split_tables(), st.integers(1, 6), st.integers(1, 3))
def test_no_row_is_in_two_parts_and_no_sample_crosses_a_gap(rows, lookback, horizon):
    """Parts share no row, targets included, and each sample lies in one segment and one split."""
    parts = split_samples(rows, lookback, horizon, 0.2, 12)
    covered = [rows_of(ends, lookback, horizon) for ends in (parts.train, parts.validation, parts.test)]
    assert not covered[0] & covered[1] and not covered[0] & covered[2] and not covered[1] & covered[2]
    for ends in (parts.train, parts.validation, parts.test):
        assert len(ends) >= MIN_SAMPLES and (np.diff(ends) > 0).all()
        for column in (rows.split, rows.segment):
            assert (column[ends - lookback + 1] == column[ends + horizon - 1]).all()
    assert (rows.split[parts.test] == "test").all()


def test_without_validation_rows_blocks_are_held_out():
    """A fifth of the training samples is held out, from early, middle and late rows, none of them test rows."""
    split = np.repeat(["train", "test"], [900, 100])
    parts = split_samples(table(1000, split=split), 4, 1, 0.2, 12)
    assert len(parts.validation) == pytest.approx(0.2 * 897, abs=12)
    assert parts.validation.min() < 150 and parts.validation.max() > 750 and (split[parts.validation] == "train").all()


def test_without_a_split_the_last_rows_are_test():
    """The newest 15 % of the rows are for the test, and blocks of the rows before them for validation."""
    parts = split_samples(table(200), 3, 1, 0.15, 12)
    assert (parts.train[0], parts.train[-1]) == (2, 169)
    assert parts.validation.min() < 20 and parts.validation.max() > 150
    assert (parts.test[0], parts.test[-1]) == (172, 199)


@given(st.integers(400, 2000), st.integers(1, 12), st.integers(1, 3), st.integers(0, 6), st.integers(1, 15))
def test_validation_is_blocks_all_over_the_rows_before_the_test(n_rows, lookback, horizon, ahead, most):
    """They are as many as wanted where each can be one sample long, evenly spread, and no row is trained on."""
    parts = split_samples(table(n_rows, ahead=ahead), lookback, horizon, 0.15, most)
    span = lookback + ahead + horizon - 1
    starts = np.flatnonzero(np.diff(parts.validation, prepend=-span) > 1)
    n_samples = round(0.85 * n_rows) - span + 1
    assert len(starts) == max(1, min(most, round(0.15 * n_samples) // span))
    covered, trained = (
        covered_rows(ends, 1 - lookback, ahead + horizon - 1) for ends in (parts.validation, parts.train)
    )
    assert not set(covered) & set(trained) and covered.max() < round(0.85 * n_rows)
    distances = np.diff(parts.validation[starts])
    assert not len(distances) or np.ptp(distances) <= 1


@given(split_tables(), st.integers(1, 6), st.integers(1, 3))
def test_calibration_shares_no_row_with_another_part(rows, lookback, horizon):
    """With or without validation rows in the split, and it has rows of training alone."""
    try:
        parts = split_samples(rows, lookback, horizon, 0.3, 12, 9)
    except DataError as error:
        assert "part has" in str(error)
        return
    own = rows_of(parts.calibration, lookback, horizon)
    assert len(parts.calibration) >= 9 and (np.diff(parts.calibration) > 0).all()
    assert (rows.split[parts.calibration] == "train").all()
    for ends in (parts.train, parts.validation, parts.test):
        assert len(ends) >= MIN_SAMPLES and not own & rows_of(ends, lookback, horizon)


@given(st.integers(600, 2000), st.integers(1, 12), st.integers(1, 3), st.integers(0, 6), st.integers(2, 15))
def test_every_second_held_out_block_is_for_calibration(n_rows, lookback, horizon, ahead, most):
    """The other half is for validation, and what is trained on is the same as without calibration."""
    rows, span = table(n_rows, ahead=ahead), lookback + ahead + horizon - 1
    without = split_samples(rows, lookback, horizon, 0.15, most)
    parts = split_samples(rows, lookback, horizon, 0.15, most, 9)
    if np.count_nonzero(np.diff(without.validation) > 1):  # at least two blocks
        np.testing.assert_array_equal(parts.train, without.train)
        assert sorted([*parts.validation, *parts.calibration]) == without.validation.tolist()
    both = np.sort(np.concatenate([parts.validation, parts.calibration]))
    starts = both[np.flatnonzero(np.diff(both, prepend=-span) > 1)]
    assert np.isin(starts, parts.calibration).tolist() == [bool(number % 2) for number in range(len(starts))]


def test_step_one_is_the_target_of_the_window_s_last_row():
    """The window that ends at row e has the targets of rows e, e+1, ... in this order."""
    rows = table(10)
    one = np.ones(2)
    scaling = Scaling(0 * one, one, 0 * one, one, torch.float64)
    samples = Samples.of(rows, scaling, lookback=3, horizon=2)
    ends = np.array([2, 7])
    assert samples.windows(ends)[:, :, 0].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert samples.outputs(ends).tolist() == [[20, 30], [70, 80]]


def test_too_few_rows_for_one_window_are_counted():
    """The error has the number of rows and the number that a window needs."""
    with pytest.raises(DataError, match="has 5 rows, but one window with its targets needs 9"):
        split_samples(table(5), 8, 2, 0.15, 12)


def test_segments_shorter_than_a_window_are_named_with_the_longest():
    """If no run of rows is as long as a window, the error has the longest run."""
    with pytest.raises(DataError, match=r"train part has 0 windows of 24 rows, but needs 8; its longest run .* is 20"):
        split_samples(table(400, segment=np.arange(400) // 20), 24, 1, 0.15, 12)


def test_a_part_without_rows_is_named():
    """A split without test rows is refused."""
    with pytest.raises(DataError, match=r"test part has 0 windows .* is 0$"):
        split_samples(table(200, split=np.full(200, "train")), 4, 1, 0.15, 12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": np.array(["train", "dev"])}, DataError, "data row 2 must be one of .* but is 'dev'"),
        ({"units": {"sideways": "m"}}, UnknownNameError, "unit given for 'sideways', which is not one of .*'up'"),
        ({"last_value": {"z": "up"}}, UnknownNameError, "last value given for 'z'"),
        ({"last_value": {"y": "z"}}, UnknownNameError, "last value given for 'z', which is not one of .*'down'"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(options, error, message):
    """Unknown split values and column names are refused by name."""
    with pytest.raises(error, match=message):
        table(2, **options)


def test_a_target_is_not_its_own_feature():
    """A column cannot be both, since the window would contain the target."""
    with pytest.raises(DataError, match="y is a target and a feature"):
        TrainingTable(np.zeros((2, 1)), np.zeros((2, 1)), ("y",), ("y",))


@st.composite
def holed_tables(draw):
    """Tables with gaps in time, segments, a split, and some missing values and targets."""
    n_rows = draw(st.integers(150, 220))
    rows = st.integers(0, n_rows - 1)
    steps = np.ones(n_rows)
    steps[draw(st.lists(rows, max_size=4))] = draw(st.sampled_from([1.4, 2.0, 30.0]))
    segment = draw(st.sampled_from([None, np.cumsum(np.isin(np.arange(n_rows), draw(st.lists(rows, max_size=2))))]))
    bounds = draw(st.integers(40, 75)), draw(st.integers(90, 120))
    holed = table(
        n_rows,
        ahead=draw(st.integers(0, 5)),
        clock=Clock.of(np.cumsum(steps), segment),
        segment=segment,
        split=np.repeat(["train", "validation", "test"], np.diff([0, *bounds, n_rows])),
    )
    for values in (holed.features, holed.targets):
        for row in draw(st.lists(rows, max_size=4)):
            values[row, draw(st.integers(0, values.shape[1] - 1))] = np.nan
    return holed


def is_sample(rows, end, lookback, horizon):
    """Whether a window may end at a row, and whether it is complete: the definition, row by row."""
    first, last = end - lookback + 1, end + rows.ahead + horizon - 1
    if first < 0 or last >= rows.n_rows:
        return False, False
    for row in range(first + 1, last + 1):
        step = rows.clock.seconds[row] - rows.clock.seconds[row - 1]
        if step > 1.5 * rows.clock.step or rows.split[row] != rows.split[row - 1]:
            return False, False
        if rows.segment is not None and rows.segment[row] != rows.segment[row - 1]:
            return False, False
    values = [*rows.features[first : end + 1].ravel(), *rows.targets[end + rows.ahead : last + 1].ravel()]
    return True, not any(np.isnan(value) for value in values)


@given(holed_tables(), st.integers(1, 6), st.integers(1, 3))
def test_samples_are_exactly_those_without_a_gap_and_a_missing_value(rows, lookback, horizon):
    """Each part has exactly the windows of the definition, and excluded windows are counted by column."""
    found = [is_sample(rows, end, lookback, horizon) for end in range(rows.n_rows)]
    expected = {
        part: [end for end, (_, whole) in enumerate(found) if whole and rows.split[end] == part]
        for part in ("train", "validation", "test")
    }
    if min(map(len, expected.values())) < MIN_SAMPLES:
        with pytest.raises(DataError, match="part has"):
            split_samples(rows, lookback, horizon, 0.2, 12)
        return
    parts = split_samples(rows, lookback, horizon, 0.2, 12)
    assert {part: getattr(parts, part).tolist() for part in expected} == expected
    left_out = [end for end, (unbroken, whole) in enumerate(found) if unbroken and not whole]
    assert parts.missing.windows == len(left_out)
    for number, name in enumerate(rows.feature_names):
        lacking = [np.isnan(rows.features[end - lookback + 1 : end + 1, number]).any() for end in left_out]
        assert parts.missing.by_column.get(name, 0) == sum(lacking)
    lacking = [np.isnan(rows.targets[end + rows.ahead : end + rows.ahead + horizon]).any() for end in left_out]
    assert parts.missing.by_column.get("y (target)", 0) == sum(lacking)
    assert list(parts.missing.by_column.values()) == sorted(parts.missing.by_column.values(), reverse=True)


@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))
def test_ahead_is_the_column_shifted_by_hand(ahead, lookback, horizon):
    """Both give the same windows and targets, except that a column shifted by hand crosses the borders of the split."""
    split = np.repeat(["train", "validation", "test"], [140, 30, 30])
    shifted, rows = table(200, split=split), table(200, split=split, ahead=ahead)
    shifted.targets[:, 0] = np.append(rows.targets[ahead:, 0], np.full(ahead, np.nan))
    one = np.ones(2)
    scaling = Scaling(0 * one, one, 0 * one, one, torch.float64)
    parts, by_hand = (split_samples(each, lookback, horizon, 0.2, 12) for each in (rows, shifted))
    for part in ("train", "validation", "test"):
        ends, wider = getattr(parts, part), getattr(by_hand, part)
        assert set(ends) <= set(wider)
        assert set(wider) - set(ends) <= set(range(ends[-1] + 1, ends[-1] + ahead + 1))
        of_table, of_shifted = (Samples.of(each, scaling, lookback, horizon) for each in (rows, shifted))
        assert torch.equal(of_table.windows(ends), of_shifted.windows(ends))
        assert torch.equal(of_table.outputs(ends), of_shifted.outputs(ends))
    assert not parts.missing.windows and by_hand.missing.by_column == {"y (target)": ahead}
    assert set(by_hand.test) == set(parts.test)


def test_too_few_windows_are_explained():
    """The error counts gaps and missing values, and names the columns with the most."""
    hours = np.arange(200.0)
    hours[100:] += 50
    rows = table(200, clock=Clock.of(hours))
    rows.features[::5, 1] = rows.features[::50, 0] = np.nan
    with pytest.raises(DataError) as caught:
        split_samples(rows, 6, 1, 0.15, 12)
    message = str(caught.value)
    assert message.startswith("the train part has 0 windows of 6 rows, but needs 8; its longest run of rows without a ")
    assert "1 steps in time are gaps, longer than 1.5 times the usual 1" in message
    assert "windows are left out for missing values, of down (185), up (" in message


def test_infinite_values_are_refused():
    """Infinite values raise an error; they do not count as missing."""
    with pytest.raises(DataError, match=r"features\[1\]\[0\] must be finite; 1 of 2 values is not finite"):
        TrainingTable(np.array([[np.nan], [np.inf]]), np.zeros((2, 1)), ("a",), ("y",))


def test_validation_covers_the_seasons_of_training():
    """Of 18 months with a yearly cycle, validation windows have 95 % of the range of the training windows."""
    rows = table(13_000)
    temperature = 15 - 10 * np.cos(2 * np.pi * np.arange(13_000) / 8766)
    parts = split_samples(rows, 24, 24, 0.15, 12)
    of_validation, of_training = (temperature[covered_rows(ends, -23, 0)] for ends in (parts.validation, parts.train))
    assert np.ptp(of_validation) >= 0.95 * np.ptp(of_training)
