"""Samples of a table: windows with their targets, in parts that share no row and no time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.errors import DataError
from kanmodel.tables.columns import Scaling
from kanmodel.tables.roles import PARTS, Columns, make_table
from kanmodel.tables.samples import MIN_SAMPLES, Samples, covered_rows, split_samples
from kanmodel.tables.windows import Windows


def table(n_rows, ahead=0, change=None, **columns):
    """Row r holds the features r and -r and the target 10 r; columns may be `split`, `series` and `time`."""
    rows = np.arange(n_rows, dtype=float)
    data = {"up": rows, "down": -rows, "y": 10 * rows} | (change or {}) | columns
    return make_table(data, Columns(("y",), ("up", "down"), ahead=ahead, **{name: name for name in columns}))


def scale(horizon):
    """A scaling that changes nothing."""
    return Scaling(np.zeros(2), np.ones(2), np.zeros(horizon), np.ones(horizon), torch.float64)


def split_into(rows, lookback, horizon, share, blocks, n_calibration=0):
    """The parts, and the rows at which their windows end, by part."""
    parts = split_samples(rows, lookback, horizon, share, blocks, n_calibration)
    return parts, {part: parts.windows.ends[getattr(parts, part)] for part in (*PARTS, "calibration")}


def rows_of(ends, lookback, reach):
    """The rows of windows, up to the last that they forecast."""
    return set((ends[:, None] + np.arange(1 - lookback, reach + 1)).ravel().tolist())


@st.composite
def split_tables(draw):
    """Tables of several series with a split in runs of 30 to 60 rows, with or without validation rows."""
    parts = draw(st.sampled_from([("train", "test"), ("train", "validation", "test")]))
    lengths = draw(st.lists(st.integers(30, 60), min_size=6, max_size=9))
    split = np.repeat([parts[block % len(parts)] for block in range(len(lengths))], lengths)
    rows = np.arange(len(split))
    series = np.cumsum(np.isin(rows, draw(st.lists(st.integers(1, len(split) - 1), max_size=3))))
    return table(len(split), split=split, series=series, time=rows)


@given(split_tables(), st.integers(1, 6), st.integers(1, 3))
def test_no_row_is_in_two_parts_and_no_sample_crosses_a_gap(rows, lookback, horizon):
    """Parts share no row, targets included, and each sample lies in one series and one split."""
    _, ends_of = split_into(rows, lookback, horizon, 0.2, 12)
    covered = [rows_of(ends_of[part], lookback, horizon - 1) for part in PARTS]
    assert not covered[0] & covered[1] and not covered[0] & covered[2] and not covered[1] & covered[2]
    for part in PARTS:
        ends = ends_of[part]
        assert len(ends) >= MIN_SAMPLES and (np.diff(ends) > 0).all()
        for column in (rows.split, rows.table.codes):
            assert (column[ends - lookback + 1] == column[ends + horizon - 1]).all()
    assert (rows.split[ends_of["test"]] == "test").all()


def test_without_validation_rows_blocks_are_held_out():
    """A fifth of the training samples is held out, from early, middle and late rows, none of them test rows."""
    split = np.repeat(["train", "test"], [900, 100])
    validation = split_into(table(1000, split=split), 4, 1, 0.2, 12)[1]["validation"]
    assert len(validation) == pytest.approx(0.2 * 897, abs=12)
    assert validation.min() < 150 and validation.max() > 750 and (split[validation] == "train").all()


def test_without_a_split_the_last_rows_are_test():
    """The newest 15 % of the rows are for the test, and blocks of the rows before them for validation."""
    ends = split_into(table(200), 3, 1, 0.15, 12)[1]
    assert (ends["train"][0], ends["train"][-1]) == (2, 169)
    assert ends["validation"].min() < 20 and ends["validation"].max() > 150
    assert (ends["test"][0], ends["test"][-1]) == (172, 199)


@given(st.integers(400, 2000), st.integers(1, 12), st.integers(1, 3), st.integers(0, 6), st.integers(1, 15))
def test_validation_is_blocks_all_over_the_rows_before_the_test(n_rows, lookback, horizon, ahead, most):
    """They are as many as wanted where each can be one sample long, evenly spread, and no row is trained on."""
    ends = split_into(table(n_rows, ahead=ahead), lookback, horizon, 0.15, most)[1]
    span, validation = lookback + ahead + horizon - 1, ends["validation"]
    starts = np.flatnonzero(np.diff(validation, prepend=-span) > 1)
    n_samples = round(0.85 * n_rows) - span + 1
    assert len(starts) == max(1, min(most, round(0.15 * n_samples) // span))
    covered, trained = (rows_of(ends[part], lookback, ahead + horizon - 1) for part in ("validation", "train"))
    assert not covered & trained and max(covered) < round(0.85 * n_rows)
    distances = np.diff(validation[starts])
    assert not len(distances) or np.ptp(distances) <= 1


@given(split_tables(), st.integers(1, 6), st.integers(1, 3))
def test_calibration_shares_no_row_with_another_part(rows, lookback, horizon):
    """With or without validation rows in the split, and it has rows of training alone."""
    try:
        ends_of = split_into(rows, lookback, horizon, 0.3, 12, 9)[1]
    except DataError as error:
        assert "part has" in str(error)
        return
    calibration = ends_of["calibration"]
    own = rows_of(calibration, lookback, horizon - 1)
    assert len(calibration) >= 9 and (np.diff(calibration) > 0).all()
    assert (rows.split[calibration] == "train").all()
    for part in PARTS:
        assert len(ends_of[part]) >= MIN_SAMPLES and not own & rows_of(ends_of[part], lookback, horizon - 1)


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
    rows = table(10).table
    windows = Windows.cut(replace(rows, spec=replace(rows.spec, lookback=3, horizon=2)), targets=True)
    samples, numbers = Samples.of(windows, scale(2)), np.searchsorted(windows.ends, [2, 7])
    assert samples.windows(numbers)[:, :, 0].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert samples.outputs(numbers).tolist() == [[20, 30], [70, 80]]


def test_too_few_rows_for_one_window_are_counted():
    """The error has the number of rows and the number that a window needs."""
    with pytest.raises(DataError, match="has 5 rows, but one window with its targets needs 9"):
        split_samples(table(5), 8, 2, 0.15, 12)


def test_series_shorter_than_a_window_are_named_with_the_longest():
    """If no run of rows is as long as a window, the error has the longest run."""
    with pytest.raises(DataError, match=r"train part has 0 windows of 24 rows, but needs 8; its longest run .* is 17$"):
        split_samples(table(400, series=np.arange(400) // 20), 24, 1, 0.15, 12)


def test_a_part_without_rows_is_named():
    """A split without test rows is refused."""
    with pytest.raises(DataError, match=r"test part has 0 windows .* is 0$"):
        split_samples(table(200, split=np.full(200, "train")), 4, 1, 0.15, 12)


@st.composite
def holed_tables(draw):
    """Tables with gaps in time, series, a split, and some missing values and targets."""
    n_rows = draw(st.integers(150, 220))
    rows = st.integers(0, n_rows - 1)
    steps = np.ones(n_rows)
    steps[draw(st.lists(rows, max_size=4))] = draw(st.sampled_from([1.4, 2.0, 30.0]))
    series = draw(st.sampled_from([None, np.cumsum(np.isin(np.arange(n_rows), draw(st.lists(rows, max_size=2))))]))
    bounds = draw(st.integers(40, 75)), draw(st.integers(90, 120))
    values = {"up": np.arange(n_rows, dtype=float), "down": -np.arange(n_rows, dtype=float)}
    values["y"] = 10 * values["up"]
    for names in (("up", "down"), ("y",)):
        for row in draw(st.lists(rows, max_size=4)):
            values[draw(st.sampled_from(names))][row] = np.nan
    return table(
        n_rows,
        ahead=draw(st.integers(0, 5)),
        change=values,
        time=np.cumsum(steps),
        split=np.repeat(["train", "validation", "test"], np.diff([0, *bounds, n_rows])),
        **({} if series is None else {"series": series}),
    )


def find_rows(rows, end, lookback, horizon):
    """The rows of the window that ends at a row, and of the targets, None where the table has none: row by row."""
    time, codes = rows.table.instants, rows.table.codes
    step, row, found = 0, end, {0: end}
    while row + 1 < len(rows.table) and codes[row + 1] == codes[end] and step < rows.spec.ahead + horizon:
        row += 1
        step += max(1, round(time[row] - time[row - 1] - 0.1))  # a step of 1.4 is one, and one of 30 is 30
        found[step] = row
    targets = [found.get(step) for step in range(rows.spec.ahead, rows.spec.ahead + horizon)]
    return list(range(end - lookback + 1, end + 1)), targets


def is_sample(rows, end, lookback, horizon):
    """Whether a window without a gap ends at a row, and whether the sample is complete and in one split."""
    window, targets = find_rows(rows, end, lookback, horizon)
    time, codes = rows.table.instants, rows.table.codes
    if window[0] < 0 or codes[window[0]] != codes[end]:
        return False, False
    if any(time[row] - time[row - 1] > 1.5 for row in window[1:]):
        return False, False
    if None in targets:
        return True, False
    is_one = rows.split[window[0]] == rows.split[targets[-1]]
    values = [*rows.table.numbers[window].ravel(), *rows.table.targets[targets].ravel()]
    return True, bool(is_one) and not np.isnan(values).any()


@given(holed_tables(), st.integers(1, 6), st.integers(1, 3))
def test_samples_are_exactly_those_without_a_gap_and_a_missing_value(rows, lookback, horizon):
    """Each part has exactly the windows of the definition, and excluded windows are counted by column."""
    found = [is_sample(rows, end, lookback, horizon) for end in range(len(rows.table))]
    expected = {
        part: [end for end, (_, whole) in enumerate(found) if whole and rows.split[end] == part] for part in PARTS
    }
    if min(map(len, expected.values())) < MIN_SAMPLES:
        with pytest.raises(DataError, match="part has"):
            split_samples(rows, lookback, horizon, 0.2, 12)
        return
    parts, ends = split_into(rows, lookback, horizon, 0.2, 12)
    assert {part: ends[part].tolist() for part in PARTS} == expected
    lacking = dict.fromkeys(("up", "down", "y (target)"), 0)
    n_windows, codes, reach = 0, rows.table.codes, rows.spec.ahead + horizon - 1
    for end, (unbroken, _) in enumerate(found):
        last = np.flatnonzero(codes == codes[end])[-1]
        if not unbroken or rows.table.position[end] + reach > rows.table.position[last]:
            continue  # of which the targets may come yet
        window, targets = find_rows(rows, end, lookback, horizon)
        lacks = dict(zip(("up", "down"), np.isnan(rows.table.numbers[window]).any(axis=0), strict=True))
        lacks["y (target)"] = any(row is None or np.isnan(rows.table.targets[row, 0]) for row in targets)
        lacking = {name: count + lacks[name] for name, count in lacking.items()}
        n_windows += any(lacks.values())
    assert parts.windows.missing.windows == n_windows
    assert parts.windows.missing.by_column == {name: count for name, count in lacking.items() if count}
    counts = list(parts.windows.missing.by_column.values())
    assert counts == sorted(counts, reverse=True)


@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))
def test_ahead_is_the_column_shifted_by_hand(ahead, lookback, horizon):
    """Both give the same windows and targets, except that a column shifted by hand crosses the borders of the split."""
    split = np.repeat(["train", "validation", "test"], [140, 30, 30])
    shifted = {"y": np.append(10 * np.arange(ahead, 200.0), np.full(ahead, np.nan))}
    rows, by_hand = table(200, split=split, ahead=ahead), table(200, split=split, change=shifted)
    (parts, ends), (others, wider) = (split_into(each, lookback, horizon, 0.2, 12) for each in (rows, by_hand))
    of_table, of_shifted = (Samples.of(each.windows, scale(horizon)) for each in (parts, others))
    for part in PARTS:
        assert set(ends[part]) <= set(wider[part])
        last = ends[part][-1]
        assert set(wider[part]) - set(ends[part]) <= set(range(last + 1, last + ahead + 1))
        numbers, same = (np.searchsorted(each.windows.ends, ends[part]) for each in (parts, others))
        assert torch.equal(of_table.windows(numbers), of_shifted.windows(same))
        assert torch.equal(of_table.outputs(numbers), of_shifted.outputs(same))
    assert not parts.windows.missing.windows and others.windows.missing.by_column == {"y (target)": ahead}
    assert set(wider["test"]) == set(ends["test"])


def test_too_few_windows_are_explained():
    """The error counts gaps and missing values, and names the columns with the most."""
    hours, values = np.arange(200.0), {"up": np.arange(200.0), "down": -np.arange(200.0)}
    hours[100:] += 50
    values["down"][::5] = values["up"][::50] = np.nan
    with pytest.raises(DataError) as caught:
        split_samples(table(200, change=values, time=hours), 6, 1, 0.15, 12)
    message = str(caught.value)
    assert message.startswith("the train part has 0 windows of 6 rows, but needs 8; its longest run of rows without a ")
    assert "1 steps in time are gaps, longer than 1.5 times the usual 1" in message
    assert "windows are left out for missing values, of down (190), up (" in message


def test_validation_covers_the_seasons_of_training():
    """Of 18 months with a yearly cycle, validation windows have 95 % of the range of the training windows."""
    temperature = 15 - 10 * np.cos(2 * np.pi * np.arange(13_000) / 8766)
    parts = split_samples(table(13_000), 24, 24, 0.15, 12)
    of_validation, of_training = (
        temperature[covered_rows(parts.windows, numbers)] for numbers in (parts.validation, parts.train)
    )
    assert np.ptp(of_validation) >= 0.95 * np.ptp(of_training)


@pytest.mark.parametrize("days", [60, 100, 150, 200, 300])
def test_blocks_do_not_fall_in_step_with_the_week(days):
    """12 blocks of 200 days of hours begin on the same day of the week; fewer have all days about as often."""
    hours = np.datetime64("2025-03-01", "h") + np.arange(24 * days)
    _, ends_of = split_into(table(24 * days, time=hours.astype(str)), 24, 1, 0.15, 12)
    weekday = hours.astype("datetime64[D]").astype(int) % 7
    found, usual = (np.bincount(weekday[of], minlength=7) / len(of) for of in (ends_of["validation"], ends_of["train"]))
    assert np.abs(found - 1 / 7).sum() / 2 < 0.2
    assert np.abs(found - usual).sum() / 2 < 0.25


def test_blocks_of_dates_are_as_many_as_are_asked_for_where_these_are_even():
    """A year of hours has 12, as rows without dates have."""
    hours = np.datetime64("2025-01-01", "h") + np.arange(24 * 365)
    dated, plain = (
        split_into(table(24 * 365, **time), 24, 1, 0.15, 12)[1]["validation"]
        for time in ({"time": hours.astype(str)}, {})
    )
    np.testing.assert_array_equal(dated, plain)
    assert (np.diff(dated) > 1).sum() == 11
