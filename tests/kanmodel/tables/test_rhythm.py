"""The rhythm of a table's rows: steps of a fixed time, of days, open days and months of the local calendar."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from kanmodel.errors import ConfigError
from kanmodel.tables.instants import DAY, Times, read_instants
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.roles import Columns, make_table

ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/Havana",
    "America/Santiago",
    "Asia/Beirut",
]
STEPS = {  # of pandas, with the rows, the unit, the count and the seasons
    "h": (9000, "second", 3600, {"day": 24, "week": 168}),
    "30min": (18_000, "second", 1800, {"day": 48, "week": 336}),
    "D": (900, "day", 1, {"week": 7, "year": 365}),
    "B": (900, "day", 1, {"week": 5}),
    "W-MON": (110, "day", 7, {"year": 52}),
    "MS": (60, "month", 1, {"year": 12}),
    "ME": (60, "month end", 1, {"year": 12}),
    "QS": (30, "month", 3, {"year": 4}),
    "YS": (20, "month", 12, {}),
}


def rhythm_of(values, codes=None, max_step=1.5, zone=None):
    """The rhythm of times in order of series, their instants, and where a series begins."""
    instants, dated = read_instants(np.asarray(values), str, zone, codes)
    is_first = np.ones(len(instants), dtype=bool)
    is_first[1:] = False if codes is None else np.asarray(codes)[1:] != np.asarray(codes)[:-1]
    return TimeColumn.of("time", instants, codes, dated, max_step, zone), instants, is_first


def find_gaps(values, max_step=1.5):
    """The rows before which there is a gap."""
    time, instants, is_first = rhythm_of(values, max_step=max_step)
    return np.flatnonzero(np.diff(time.number(instants, is_first)[1])).tolist()


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("step", STEPS)
def test_steps_are_those_of_pandas_over_every_change_of_clocks(step, zone):
    """Each row is one step after the one before it, and `later` finds the rows that follow, as pandas' offsets do."""
    n_rows, unit, count, seasons = STEPS[step]
    times = pd.date_range("2019-12-25", periods=n_rows, freq=step)
    if unit == "second":
        times = times.tz_localize("UTC").tz_convert(zone)
    else:
        times = times.tz_localize(zone, nonexistent="shift_forward", ambiguous=True)
    seconds = times.tz_convert("UTC").tz_localize(None).as_unit("s").asi8.astype(float)
    is_first = np.arange(n_rows) == 0
    time = TimeColumn.of("time", seconds, None, True, zone=zone)
    assert (time.unit, time.step, time.seasons) == (unit, count, seasons)
    places, run = time.number(seconds, is_first)
    assert (np.diff(places) == 1).all() and not run.any()
    for ahead in (1, 3, 7):
        assert time.later(seconds[:-ahead], ahead).tolist() == seconds[ahead:].tolist()
    known = (
        time.step if unit == "second" else None
    )  # as of a model; where an hour returns half an hour later, it decides
    naive = Times.parse(times.tz_localize(None).to_numpy(), str).instants(str, zone, None, known)
    assert naive.tolist() == seconds.tolist()


def test_a_gap_is_a_step_longer_than_usual():
    """A missing row is one, months of different lengths are not, and open days have none but a holiday of weeks."""
    assert find_gaps([0, 1, 2, 4, 5]) == [2]
    assert not find_gaps([date(2026, month, 1) for month in range(1, 13)])
    assert find_gaps([date(2026, month, 1) for month in range(1, 13) if month != 4]) == [2]
    weekdays = [day for day in (date(2026, 1, 5) + timedelta(days=n) for n in range(60)) if day.weekday() < 5]
    assert not find_gaps(weekdays) and not find_gaps(weekdays[:8] + weekdays[9:])
    assert find_gaps(weekdays[:12] + weekdays[22:]) == [11]
    assert find_gaps([0, 1, 2, 4, 5], max_step=3) == []


def test_business_days_count_neither_weekends_nor_holidays():
    """The row after Friday is Monday's, and three steps later is Wednesday's, whatever the calendar of the days."""
    weekdays = pd.bdate_range("2026-01-05", periods=40)
    time, instants, _ = rhythm_of(weekdays.to_numpy())
    assert time.weekdays == "1111100" and time.usual_step == "1 business day"
    friday = instants[4:5]
    assert (time.later(friday, 1) - friday) / DAY == 3 and (time.later(friday, 3) - friday) / DAY == 5
    assert time.describe_steps(3) == "3 business days"


def test_one_row_has_no_step():
    """A table with one row, or one row per series, has no rhythm."""
    assert rhythm_of([5])[0] is None and rhythm_of([5, 1], ["a", "b"])[0] is None


def test_times_start_again_in_another_series():
    """Steps are counted only within a series, and the series are in no step with each other."""
    time, instants, is_first = rhythm_of([9, 10, 9, 10], ["a", "a", "b", "b"])
    places, run = time.number(instants, is_first)
    assert time.step == 1 and np.diff(places).tolist()[::2] == [1, 1] and places[2] - places[1] > 1 << 20
    assert run.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("time", "seasons"),
    [
        (TimeColumn("time", 7 * 3600.0, 1.5, True), {"week": 24}),
        (TimeColumn("time", 5 * 3600.0, 1.5, True), {}),
        (TimeColumn("time", 3600.0, 1.5, False), {}),
        (TimeColumn("time", 1.0, 1.5, True, "day"), {"week": 7, "year": 365}),
    ],
)
def test_seasons_are_whole_numbers_of_steps(time, seasons):
    """Numeric times have none, nor has a step that does not fit."""
    assert time.seasons == seasons


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zone": "Mars"}, "zone must be a time zone such as Europe/Berlin, but is 'Mars'"),
        ({"zone": "../../etc/passwd"}, "zone must be a time zone"),
        ({"unit": "week"}, "unit must be one of second, day, month, month end"),
        ({"weekdays": "0000000"}, "weekdays must be 7 digits, 1 for a weekday that has rows"),
        ({"unit": "day", "step": 1.5}, "time has steps of 1.5 days at 0.0 seconds after midnight"),
        ({"unit": "day", "at": 1e6}, "time has steps of 1.0 days"),
        ({"step": 0.0}, "step must be"),
        ({"max_step": float("nan")}, "max_step must be"),
    ],
)
def test_a_rhythm_that_cannot_be_is_refused(options, message):
    """One sentence names the field."""
    with pytest.raises(ConfigError, match=message):
        TimeColumn(**{"name": "time", "step": 1.0, "max_step": 1.5, "dated": True} | options)


def test_a_table_of_hours_where_clocks_change_by_half_an_hour_has_its_rhythm():
    """The rhythm of local times is found although one of them, read alone, is the wrong one of two."""
    times = pd.date_range("2020-01-01", periods=3000, freq="h", tz="UTC").tz_convert("Australia/Lord_Howe")
    frame = {"time": times.tz_localize(None).to_numpy(), "y": np.arange(3000.0)}
    columns = Columns(("y",), ahead=1, time="time", zone="Australia/Lord_Howe")
    table = make_table(frame, columns).table
    assert table.spec.time.step == 3600 and table.instants.tolist() == (times.as_unit("s").asi8).astype(float).tolist()
