"""Rows of a table are read by series and time, and each cell keeps its place in what was given."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from kanmodel.errors import DataError
from kanmodel.tables.encoding import Encoding, Fill, SourceColumn, plain_encoding
from kanmodel.tables.instants import read_instants, write_instants
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.samples import covered_rows
from kanmodel.tables.table import CellNames, Selection, SeriesColumn, Table, TableSpec
from kanmodel.tables.windows import Windows, read_windows

WIDE = TableSpec(plain_encoding(["load"]), ("load",), 1, None, SeriesColumn("series", ("a", "b"), ("a", "b")), 2)
JSON = CellNames("series", kind="json")
ORDERED = Selection(is_ordered=True)


def test_an_error_in_a_wide_table_names_its_column_and_row():
    """Not those of the long table that it becomes; and the series."""
    rows = {"time": np.arange(4), "a": [1.0, 2.0, 3.0, 4.0], "b": [1.0, 2.0, np.nan, 4.0]}
    with pytest.raises(DataError, match=r"^series\.b\[2\] \(series b\) is empty"):
        Windows.cut(Table.read(WIDE, rows, JSON, ORDERED), skip=False)


def test_the_index_of_a_wide_frame_has_the_times_of_each_series():
    """As in training, where its dates are repeated as well."""
    index = pd.date_range("2024-03-01", periods=4, freq="h")
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [5.0, 6.0, 7.0, 8.0]}, index=index)
    _, found = read_windows(WIDE, frame)
    assert found.times == ("2024-03-01T03:00:00",) * 2 and found.series == ("a", "b")


def test_rows_out_of_order_are_refused_whether_or_not_the_rhythm_is_known():
    """In a sentence that names the row; the rhythm of the rows alone does not run backwards."""
    spec = TableSpec(plain_encoding(["load"]), ("load",), lookback=2)
    rows = {"time": np.arange(6)[::-1], "load": np.zeros(6)}
    for finds_rhythm in (True, False):
        with pytest.raises(DataError, match=r"^series\.time\[1\] must be later than 5 in the row before it, but is 4$"):
            Windows.cut(Table.read(spec, rows, JSON, Selection(is_ordered=True, finds_rhythm=finds_rhythm)))


def test_without_a_rhythm_no_step_is_a_gap():
    """Of a model that was trained without times only the order of rows is checked where a request says so."""
    spec = TableSpec(plain_encoding(["load"]), ("load",), lookback=2)
    rows = {"time": np.array([0, 1, 2, 50, 51]), "load": np.zeros(5)}
    counts = [
        (len(found), found.across_gaps)
        for finds_rhythm in (True, False)
        for found in [Windows.cut(Table.read(spec, rows, JSON, Selection(is_ordered=True, finds_rhythm=finds_rhythm)))]
    ]
    assert counts == [(3, 1), (4, 0)]


def test_a_gap_that_may_be_skipped_takes_the_windows_along_whose_known_rows_it_lacks():
    """They are across it, as those with rows on both sides are; without leave to skip the gap is refused."""
    encoding = Encoding((SourceColumn("temp", later=3),))
    spec = TableSpec(encoding, ("load",), 3, TimeColumn("time", 1.0, 1.5, False), None, 4)
    time = np.delete(np.arange(30), 15)
    table = Table.read(spec, {"time": time, "temp": np.arange(29.0)}, JSON, Selection(reach=3, is_ordered=True))
    found = Windows.cut(table, gaps="skip", skip=False)
    assert found.across_gaps == 3 + 3 and len(found) == 29 - 3 - 3 - 6
    with pytest.raises(DataError, match="must have no gap before it, but goes from 14 to 16"):
        Windows.cut(table, gaps="error", skip=False)


def test_each_row_of_windows_is_traced_to_the_table():
    """Also those that were made for a gap that is open at the end of a window."""
    encoding = Encoding((SourceColumn("load"),), fill=Fill("linear", longest=3))
    values = np.array([1.0, 2, np.nan, np.nan, 5, 6, np.nan, 8, np.nan])
    table = Table.read(TableSpec(encoding, ("load",), 1, lookback=3), {"load": values}, JSON)
    found = Windows.cut(table)
    for window, end in enumerate(found.ends.tolist()):
        index = found.index(np.array([window]))[0]
        np.testing.assert_array_equal(found.source(index), np.arange(end - 2, end + 1))
    covered = np.flatnonzero(covered_rows(found, np.arange(len(found))))
    assert np.isfinite(found.rows[covered]).all() and len(covered) > len(values)


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
