from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pytest

from kanmodel.data import Clock, times_as_text
from kanmodel.errors import DataError

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
    assert str(Clock.of(weekdays)) == "1 steps in time are gaps, longer than 1.5 times the usual 1 day, 0:00:00"


def test_one_row_has_no_step():
    """A table with one row, or one row per segment, has no step and no gap."""
    for clock in (Clock.of([5]), Clock.of([5, 1], np.array(["a", "b"]))):
        assert clock.step == 0 and not clock.gaps.any() and clock.rows_per(86_400) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 2, 1], "data row 3, column time is earlier than the row above it"),
        ([0, 1, 1], "data row 3, column time is the same as in the row above it"),
        ([0, np.nan], "data row 2, column time must be a time in ISO 8601, a date or a number, but is nan"),
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
