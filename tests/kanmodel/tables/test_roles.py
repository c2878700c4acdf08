"""A frame becomes a table for training by the roles of its columns."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest

from kanmodel.errors import DataError, UnknownNameError
from kanmodel.tables.roles import Columns, make_table

COLUMNS = {
    "time": np.array(["2026-01-01", "2026-01-02", "2026-01-03"], dtype="datetime64[us]"),
    "split": ["train", "train", "test"],
    "station": ["EWR", "JFK", "LGA"],
    "wind": [1.5, None, 3.0],
    "rain": [True, False, True],
    "load": [10, 20, 30],
}
EVERYTHING = Columns(targets=("load",), ahead=1, split="split", time="time", units={"load": "MW"})


def masked(columns):
    wind = np.ma.masked_array([1.5, 0.0, 3.0], mask=[False, True, False])
    return columns | {"wind": wind, "rain": np.array(columns["rain"])}


@pytest.mark.parametrize(
    "make",
    [
        dict,
        masked,
        pd.DataFrame,
        lambda columns: pd.DataFrame(columns).astype({"wind": "Float64", "load": "Int64"}),
        lambda columns: pd.DataFrame(columns).set_index(np.array([7, 5, 9])),
        lambda columns: pl.DataFrame(columns, strict=False),
        lambda columns: {**columns, "wind": [Decimal("1.5"), float("nan"), 3]},
    ],
    ids=["mapping", "masked", "pandas", "nullable", "index", "polars", "decimals"],
)
def test_every_kind_of_frame_is_the_same_table(make):
    """For any kind of frame numbers, booleans and each text are features, and missing values NaN."""
    table = make_table(make(COLUMNS), EVERYTHING)
    assert table.feature_names == ("station=EWR", "station=JFK", "station=LGA", "wind", "rain", "load")
    assert table.target_names == ("load",) and table.groups == {"station": table.feature_names[:3]}
    np.testing.assert_array_equal(table.table.numbers, [[0, 1.5, 1, 10], [1, np.nan, 0, 20], [2, 3, 1, 30]])
    assert table.table.targets.tolist() == [[10], [20], [30]]
    assert table.split.tolist() == ["train", "train", "test"] and table.spec.series is None
    time = table.spec.time
    assert (time.step, time.unit, time.dated) == (1, "day", True) and table.units == {"load": "MW"}
    assert table.table.times([0])[0].startswith("2026-01-01")


def test_a_title_of_a_column_is_that_of_its_feature():
    """Of a known column it is that of its later value; a column of levels has many features, which are named."""
    columns = Columns(("load",), ahead=1, split="split", time="time", known=("wind",))
    titles = {"wind": "wind at the site", "load": "load of the grid", "station=JFK": "whether it is at JFK"}
    table = make_table(COLUMNS, replace(columns, titles=titles))
    assert table.titles == {"wind+1" if name == "wind" else name: title for name, title in titles.items()}
    with pytest.raises(UnknownNameError, match="title given for 'station', which is not one of"):
        make_table(COLUMNS, replace(columns, titles={"station": "place"}))


def test_features_are_those_that_are_named():
    """Features have the given order; the target is one only if it is named, or if `ahead` makes its past known."""
    assert make_table(COLUMNS, Columns(("load",), ("load", "wind"), ahead=2)).feature_names == ("load", "wind")
    numbers = {name: COLUMNS[name] for name in ("wind", "rain", "load")}
    assert make_table(numbers, Columns(("load",))).feature_names == ("wind", "rain")
    with pytest.raises(DataError, match="load is a target and a feature"):
        make_table(COLUMNS, Columns(("load",), ("load", "wind")))


@pytest.mark.parametrize(
    ("frame", "columns", "error", "message"),
    [
        (
            COLUMNS,
            Columns(("q",)),
            UnknownNameError,
            "there is no column 'q'; the columns are time, split, station, wind, rain",
        ),
        (COLUMNS, Columns(("load",), ("q",)), UnknownNameError, "there is no column 'q'"),
        (COLUMNS, Columns(("load",), time="q"), UnknownNameError, "there is no column 'q'"),
        (COLUMNS, Columns(("station",)), DataError, "data row 1, column station must be a finite number .* is 'EWR'"),
        (COLUMNS, Columns(("load",), ("wind", "time")), DataError, "column time cannot be a feature: datetime64"),
        (COLUMNS | {"wind": [1, "x", 2]}, Columns(("load",)), DataError, "data row 2, column wind .* but is 'x'"),
        (COLUMNS | {"wind": [1, np.inf, 2]}, Columns(("load",)), DataError, "data row 2, column wind .* but is inf"),
        (COLUMNS | {"wind": [1, 2]}, Columns(("load",)), DataError, r"column wind must have the shape \(3,\), but has"),
        (COLUMNS | {"split": ["train", None, "test"]}, EVERYTHING, DataError, "data row 2, column split is empty"),
        (
            COLUMNS | {"split": ["train", "dev", "test"]},
            EVERYTHING,
            DataError,
            "the split of data row 2 must be one of",
        ),
        (COLUMNS | {"time": ["x", "y", "z"]}, EVERYTHING, DataError, "data row 1, column time must be a time"),
        ({"load": [1]}, Columns(("load",)), DataError, "there is no column of numbers or texts besides load"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), Columns(("a",)), DataError, "a is the name of 2 columns"),
        ([[1, 2]], Columns(("a",)), DataError, "must be a data frame or a mapping of name to array, but is a list"),
        (COLUMNS, Columns(("load",), ahead=-1), DataError, "ahead must be a whole number from 0, but is -1"),
        (COLUMNS, Columns(("load",), ahead=1.5), DataError, "ahead must be a whole number from 0, but is 1.5"),
    ],
)
def test_an_invalid_table_is_refused_with_its_place(frame, columns, error, message):
    """A bad cell gives one sentence with the column and the row below the header."""
    with pytest.raises(error, match=message):
        make_table(frame, columns)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"units": {"sideways": "m"}}, UnknownNameError, "unit given for 'sideways', which is not one of .*'wind'"),
        ({"last_value": {"z": "wind"}}, UnknownNameError, "last value given for 'z'"),
        ({"last_value": {"load": "z"}}, UnknownNameError, "last value given for 'z', which is not one of .*'wind'"),
        ({"last_value": {"load": 0}, "fixed": ("z",)}, UnknownNameError, "fixed feature given for 'z'"),
        ({"integer": ("wind",)}, DataError, "data row 1, column wind must be a whole number, but is 1.5"),
    ],
)
def test_roles_of_other_columns_are_refused(options, error, message):
    """The error names the role and the column."""
    with pytest.raises(error, match=message):
        make_table(COLUMNS, replace(Columns(("load",), time="time"), **options))


def test_a_level_may_be_called_none():
    """It is neither missing nor filled from the row before."""
    columns = {"rain": ["snow", "none", "NA", "snow"], "y": range(4)}
    table = make_table(columns, Columns(("y",), fill="forward"))
    assert table.feature_names == ("rain=NA", "rain=none", "rain=snow")
    assert table.table.numbers[:, 0].tolist() == [2, 1, 0, 2]
