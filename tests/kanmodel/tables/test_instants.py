"""Times in any form that people write, those of a zone among them, are instants, and are written in the same form."""

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.errors import DataError
from kanmodel.tables.frames import as_cells
from kanmodel.tables.instants import DAY, from_local, read_instants, times_as_text, to_local, write_instants

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Kolkata", "Asia/Beirut"]
HOURS = [datetime(2026, 3, 29, hour) for hour in range(4)]
SECONDS = [datetime(2026, 3, 29, hour, tzinfo=UTC).timestamp() for hour in range(4)]


def read(values, zone=None, series=None):
    """The instants of a column, of which rows are called by their numbers."""
    return read_instants(as_cells(values), lambda row: f"row {row}", zone, series)


def seconds_of(times):
    """Seconds since 1970 of an index of pandas."""
    return times.as_unit("s").asi8.astype(float).tolist()


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
        pd.Series(HOURS),
        pd.Series(HOURS).dt.tz_localize("UTC").to_numpy(),
        pd.Series(HOURS).dt.tz_localize("UTC"),
        pl.Series(HOURS).to_numpy(),
        pl.Series(HOURS),
        pl.Series(HOURS).dt.replace_time_zone("UTC").to_numpy(),
        pl.Series(HOURS).dt.replace_time_zone("UTC"),
    ],
    ids=range(15),
)
def test_every_form_of_a_time_is_the_same_instant(values):
    """Times of Python, numpy, pandas and polars and ISO 8601 agree, with and without a time zone."""
    instants, dated = read(values)
    assert instants.tolist() == SECONDS and dated


def test_numbers_and_days_are_times():
    """Numbers are times in their own unit; dates without a time are midnights."""
    for values in (np.arange(3), [0.0, 1.0, 2.0], ["0", "1", "2"]):
        instants, dated = read(values)
        assert instants.tolist() == [0, 1, 2] and not dated
    for days in ([date(2026, 1, 1), date(2026, 1, 2)], ["2026-01-01", "2026-01-02"]):
        instants, dated = read(days)
        assert dated and np.diff(instants).tolist() == [DAY]


@pytest.mark.parametrize("as_given", [str, int])
def test_days_without_a_hyphen_are_dates(as_given):
    """20240131 is the last of January, as a text and as a whole number, and is written so again."""
    days = pd.date_range("2024-01-30", periods=40, freq="D")
    column = np.array([as_given(day) for day in days.strftime("%Y%m%d")], dtype=object if as_given is str else None)
    instants, dated = read(column)
    assert dated and instants.tolist() == seconds_of(days)
    assert write_instants(instants[-1:] + DAY, column) == ("20240310",)
    assert not read(np.array([20240131, 20241331]))[1]  # which is no month


def test_days_with_dots_are_read_day_first():
    """31.12.2023 23:00 is a time; 12/31/2023, which could be read in two ways, is none."""
    seconds, dated = read(["31.12.2023 23:00", "01.02.2024", "1.2.2024 00:00:01"])
    assert dated and seconds.tolist() == [1704063600, 1706745600, 1706745601]
    with pytest.raises(DataError, match=r"must be a time in ISO 8601 or as 31.12.2023 23:00, .* is '01/02/2024'"):
        read(["01/02/2024"])


@pytest.mark.parametrize("zone", ["America/Havana", "America/Santiago", "Asia/Beirut"])
def test_a_day_whose_midnight_is_skipped_begins_with_its_first_instant(zone):
    """Clocks are put forward at midnight there: plain dates are read, and are the first instants of their days."""
    days = pd.date_range("2023-01-01", "2024-12-31", freq="D")
    expected = seconds_of(days.tz_localize(zone, nonexistent="shift_forward", ambiguous=True))
    assert (np.diff(expected) != DAY).any()
    for column in (days.strftime("%Y-%m-%d").to_numpy(dtype=object), days.to_numpy(), [day.date() for day in days]):
        assert read(column, zone)[0].tolist() == expected


def test_the_hour_that_is_there_twice_is_told_by_the_rows_before_it():
    """The same of offsets, and of rows in the opposite order; a time that does not exist is refused."""
    hours = ["2023-10-29 01:00", "2023-10-29 02:00", "2023-10-29 02:00", "2023-10-29 03:00"]
    seconds, _ = read(hours, "Europe/Berlin")
    assert np.diff(seconds).tolist() == [3600, 3600, 3600]
    back, _ = read(hours[::-1], "Europe/Berlin")
    assert back[::-1].tolist() == seconds.tolist()
    offsets = [f"{hour}+0{2 if row < 2 else 1}:00" for row, hour in enumerate(hours)]
    assert read(offsets, "Europe/Berlin")[0].tolist() == seconds.tolist()
    with pytest.raises(DataError, match="row 0 is 2024-03-31 02:00, which does not exist in Europe/Berlin"):
        read(["2024-03-31 02:00"], "Europe/Berlin")


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_repeated_hour_is_told_apart_in_each_series(interleaved):
    """Of several sites with local times each has the hour twice, whether they stand by time or one after another."""
    utc = pd.date_range("2023-10-28 20:00", periods=12, freq="h", tz="UTC")
    local = utc.tz_convert("Europe/Berlin").tz_localize(None).to_numpy()
    order = np.tile(np.arange(12), 3) if not interleaved else np.repeat(np.arange(12), 3)
    series = np.repeat(list("abc"), 12) if not interleaved else np.tile(list("abc"), 12)
    assert read(local[order], "Europe/Berlin", series)[0].tolist() == np.array(seconds_of(utc))[order].tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, np.nan], "row 1 must be a time in ISO 8601 or as 31.12.2023 23:00, .* but is nan"),
        (["2026-01-01", "Monday"], "row 1 must be a time .* but is 'Monday'"),
        (["2026-01-01", None], "row 1 must be a time .* but is None"),
        (["2026-01-01", "5"], "row 1 must be a date as above, but is 5"),
        (["5", "2026-01-01"], "row 1 must be a number as above, but is 2026-01-01"),
        (np.array(["2026-01-01", "NaT"], dtype="datetime64[s]"), "row 1 .* but is NaT"),
        (np.array([pd.Timestamp("2026-01-01", tz="UTC"), pd.NaT]), "row 1 .* but is NaT"),
    ],
)
def test_an_invalid_time_is_named(values, message):
    """With its row."""
    with pytest.raises(DataError, match=message):
        read(values)


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=9), st.sampled_from(ZONES))
def test_local_times_are_those_of_pandas(seconds, zone):
    """And back again, but for the hour that is there twice, of which the first is meant."""
    instants = np.array(seconds, dtype=np.float64)
    expected = pd.to_datetime(instants, unit="s", utc=True).tz_convert(zone).tz_localize(None)
    local = to_local(instants, zone)
    assert local.tolist() == seconds_of(expected)
    again = from_local(local, zone)
    assert to_local(again, zone).tolist() == local.tolist() and (again <= instants).all()


def test_time_stamps_as_text():
    """Dates are written in ISO 8601; strings and numbers stay as they are."""
    assert times_as_text(np.array(HOURS[:1], dtype="datetime64[us]")) == ("2026-03-29T00:00:00",)
    assert times_as_text(np.array(["2026-03-29"], dtype="datetime64[D]")) == ("2026-03-29",)
    assert times_as_text([HOURS[1]]) == ("2026-03-29T01:00:00",)
    assert times_as_text(["a", "b"]) == ("a", "b") and times_as_text([1, 2]) == ("1", "2")


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("2024-03-01T00:00:00+01:00", "2024-07-01T02:00:00+02:00"),
        ("2024-03-01T00:00:00Z", "2024-07-01T00:00:00Z"),
        ("2024-03-01T00:00:00", "2024-07-01T02:00:00"),
    ],
)
def test_instants_are_written_by_the_clock_of_the_zone(sample, expected):
    """With the offset that they have there where the column has offsets, but in UTC where it is in UTC."""
    instants, _ = read_instants(["2024-07-01T00:00:00Z"], str)
    assert write_instants(instants, np.array([sample], dtype=object), "Europe/Berlin") == (expected,)


def test_a_repeated_hour_is_told_apart_in_series_that_end_before_others_begin():
    """A table may list the newest series first; the rows of each are oldest first all the same."""
    utc = pd.date_range("2023-10-28 22:00", periods=20, freq="15min", tz="UTC")
    local = utc.tz_convert("Europe/Berlin").tz_localize(None).to_numpy()
    times, series = np.concatenate([local + np.timedelta64(365, "D"), local]), np.repeat(["new", "old"], 20)
    seconds, _ = read_instants(times, str, "Europe/Berlin", series)
    assert seconds[20:].tolist() == [at.timestamp() for at in utc]


def test_dates_with_a_zone_in_the_hour_that_is_there_twice_are_two_instants():
    """Python takes them for equal."""
    zone = ZoneInfo("Europe/Berlin")
    twice = [datetime(2024, 10, 27, 2, tzinfo=zone, fold=fold) for fold in (0, 1)]
    instants, dated = read_instants(np.array(twice, dtype=object), str)
    assert dated and np.diff(instants).tolist() == [3600.0]
