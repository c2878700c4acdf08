"""Columns of any library are read as the same cells, and texts as levels or numbers."""

import math
from datetime import date, datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from kanmodel.errors import DataError
from kanmodel.tables.frames import Category, describe_bad, plan_levels, read_columns, read_levels, read_numbers

CELLS = {
    "a": [1, 2, None],
    "text": ["x", "none", None],
    "numbers": ["1", "n/a", "3"],
    "flag": [True, False, None],
    "time": [datetime(2024, 1, 1), datetime(2024, 1, 2), None],
    "day": [date(2024, 1, 1)] * 3,
}


@pytest.mark.parametrize(
    "make",
    [dict, pd.DataFrame, pl.DataFrame, pl.LazyFrame, pa.table],
    ids=["mapping", "pandas", "polars", "lazy", "arrow"],
)
def test_every_library_has_the_same_cells(make):
    """Numbers with NaN where one is missing, booleans as 0 and 1, texts as they are."""
    found = read_columns(make(CELLS))
    assert list(found) == list(CELLS)
    np.testing.assert_array_equal(read_numbers(found["a"]), [1, 2, np.nan])
    np.testing.assert_array_equal(read_numbers(found["numbers"]), [1, np.nan, 3])
    np.testing.assert_array_equal(read_numbers(found["flag"]), [1, 0, np.nan])
    assert plan_levels(found["text"], 9) == (("none", "x"), None) and plan_levels(found["numbers"], 9) == ((), None)
    np.testing.assert_array_equal(read_levels(found["text"], ("none", "x")), [1, 0, np.nan])


@pytest.mark.parametrize("word", ["none", "NA", "null", "nan", "n/a"])
def test_a_word_for_a_missing_value_is_a_level_among_texts(word):
    """Of a column of texts, such as a kind of rain that is called none; an empty cell is missing."""
    cells = read_columns({"c": [word, "snow", "", None, word]})["c"]
    levels, why = plan_levels(cells, 9)
    assert why is None and set(levels) == {word, "snow"}
    np.testing.assert_array_equal(np.isnan(read_levels(cells, levels)), [False, False, True, True, False])


def test_such_a_word_is_missing_where_it_is_no_level():
    """An unknown text is none of the levels."""
    cells = read_columns({"c": ["NA", "x", "z"]})["c"]
    np.testing.assert_array_equal(read_levels(cells, ("x", "y")), [np.nan, 0, np.inf])


@pytest.mark.parametrize("make", [list, pd.Series, pl.Series])
def test_whole_numbers_with_words_for_missing_ones_are_numbers(make):
    """One numeric column, whatever library read the file."""
    cells = read_columns({"c": make([str(number) for number in range(90)] + ["n/a", "NA"])})["c"]
    assert plan_levels(cells, 64) == ((), None)
    np.testing.assert_array_equal(read_numbers(cells), [*range(90), np.nan, np.nan])


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2, 1], dtype="category"),
        pl.Series(["1", "2", "1"], dtype=pl.Categorical),
        pl.Series(["1", "2", "1"], dtype=pl.Enum(["1", "2"])),
        [Category("1"), Category("2"), Category("1")],
    ],
    ids=["pandas", "categorical", "enum", "cells"],
)
def test_categories_are_levels_even_if_they_look_like_numbers(column):
    """Their text is the level."""
    cells = read_columns({"c": column})["c"]
    assert plan_levels(cells, 9) == (("1", "2"), None)
    assert read_levels(cells, ("1", "2")).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (["a", "b", "c"], "3 different texts, more than 2"),
        (["a", "a"], "the same text in every row"),
        ([None, ""], "no value"),
        ([np.nan, np.nan], "no value"),
        (["n/a", "NA"], "no value"),
        (["1,5", "-2,25", "3", "n/a"], "numbers written with a comma"),
        (["1,234,567", "12", "7"], "numbers written with a comma"),
        (["1,5", "x", "y"], "3 different texts, more than 2"),
        ([date(2024, 1, 1), None], "date"),
        (np.array(["2024-01-01"], dtype="datetime64[D]"), "datetime64[D]"),
    ],
)
def test_what_can_be_no_feature_has_its_reason(cells, why):
    """In words, for the warning that names the column."""
    assert plan_levels(read_columns({"c": cells})["c"], 2) == ((), why)


def test_a_number_with_a_comma_is_called_one():
    """As tools write it in many languages; other texts are only quoted."""
    assert describe_bad("1,5") == "must be a finite number or empty, but is '1,5', a number written with a comma"
    assert describe_bad("1,5 km") == "must be a finite number or empty, but is '1,5 km'"
    assert describe_bad(math.inf) == "must be a finite number or empty, but is inf"


@pytest.mark.parametrize("text", ["1_000", "٣", "1 000", "0x10", "inf", "1e999"])
def test_texts_that_are_numbers_to_python_alone_are_none(text):
    """They are refused as any other text is, and not read as 1000 or 3."""
    assert np.isinf(read_numbers(read_columns({"c": [1, text]})["c"])[1])


def test_numbers_among_texts_stay_numbers():
    """A text beside them is no number, and so infinite, which is refused by its place."""
    cells = read_columns({"c": [1, "x", 2.5, True]})["c"]
    assert plan_levels(cells, 9) == ((), None)
    np.testing.assert_array_equal(read_numbers(cells), [1, np.inf, 2.5, 1])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "a is the name of 2 columns"),
        (pd.DataFrame([[1, 2]]), "the name of a column must be text, but is 0"),
        (
            pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])),
            r"the name of a column must be text, but is \('a', 'b'\)",
        ),
        (3, "must be a data frame or a mapping of name to array, but is a int"),
        ([[1]], "must be a data frame or a mapping of name to array, but is a list"),
        ({"a": [1, 2], "b": [1]}, r"column b must have the shape \(2,\), but has \(1,\)"),
        ({"a": np.zeros((2, 2))}, r"column a must have the shape \(n,\), but has \(2, 2\)"),
    ],
)
def test_what_is_no_table_is_refused(frame, message):
    """The error names the column."""
    with pytest.raises(DataError, match=message):
        read_columns(frame)
