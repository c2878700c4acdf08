import gzip
import os
from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.errors import DataError, UnknownNameError
from kanmodel.tables.roles import Columns, make_table
from service.batch.tables import read_columns, read_table

CSV = "time,shop,split,a,b,station,y\n2026-01-01,01,train, 1.5,2,EWR,3\n2026-01-02,01,test,-1e3,4,JFK,5\n"
EVERYTHING = Columns(targets=("y",), split="split", series="shop", time="time", units={"a": "m"})

ONE_TEXT = "the same text in every row"


def read_training_table(path, columns):
    """Reads a file as `kanscope train` does."""
    names = (*columns.targets, *(columns.features or ()), *columns.special)
    return make_table(read_table(path, names, columns.special), columns)


def features(table):
    """The values of a table's features as they stand, or of levels their numbers."""
    return table.table.numbers


def write(path, text):
    path.write_text(text)
    return path


def test_a_csv_becomes_arrays(tmp_path):
    """Columns of numbers, and each text of the others, are the features, if they have no other purpose."""
    table = read_training_table(write(tmp_path / "t.csv", CSV), EVERYTHING)
    assert table.feature_names == ("a", "b", "station=EWR", "station=JFK")
    assert features(table).tolist() == [[1.5, 2.0, 0.0], [-1000.0, 4.0, 1.0]]
    assert table.table.targets.tolist() == [[3.0], [5.0]]
    assert table.split.tolist() == ["train", "test"] and table.table.names == ("01",)
    assert table.table.times(np.arange(2)) == ("2026-01-01", "2026-01-02") and table.units == {"a": "m"}


def test_compressed_csv_and_parquet_hold_the_same(tmp_path):
    """A table gives the same arrays as .csv, .csv.gz and .parquet with typed columns."""
    plain = write(tmp_path / "t.csv", CSV.replace(" 1.5", "1.5"))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    pl.read_csv(plain, try_parse_dates=True).write_parquet(tmp_path / "t.parquet")
    tables = [read_training_table(tmp_path / name, EVERYTHING) for name in ("t.csv", "t.csv.gz", "t.parquet")]
    for table in tables[1:]:
        assert table.feature_names == tables[0].feature_names and len(table.table) == 2
        np.testing.assert_array_equal(features(table), features(tables[0]))
        np.testing.assert_array_equal(table.split, tables[0].split)


def test_a_name_may_have_a_line_break(tmp_path):
    """In quotes, as in any other cell."""
    path = write(tmp_path / "t.csv", '"a\n(m)",y\n1,2\n')
    assert list(read_table(path, ["y"])) == ["a\n(m)", "y"]


def test_booleans_are_0_and_1(tmp_path):
    """Written in any case, with gaps, among numbers, or as a boolean column of parquet."""
    path = write(tmp_path / "t.csv", "a,b,y\nTrue,1,0\n false,TRUE,1\n,0,2\n")
    table = read_training_table(path, Columns(targets=("y",)))
    np.testing.assert_array_equal(features(table), [[1, 1], [0, 1], [np.nan, 0]])
    pl.DataFrame({"a": [True, False, None], "y": [0, 1, 2]}).write_parquet(tmp_path / "t.parquet")
    table = read_training_table(tmp_path / "t.parquet", Columns(targets=("y",)))
    np.testing.assert_array_equal(features(table), [[1], [0], [np.nan]])


def test_columns_left_out_are_named_with_the_reason(tmp_path):
    """One text, dates, lists and empty columns are left out and named; columns that have a role are not."""
    path = write(tmp_path / "t.csv", "time,station,note,a,y\n1,EWR,,1,1\n2,EWR,NaN,2,2\n")
    table = read_training_table(path, Columns(targets=("y",), time="time"))
    assert table.feature_names == ("a",) and table.left_out == {"station": ONE_TEXT, "note": "no value"}
    day = [date(2026, 1, 1)] * 2
    frame = pl.DataFrame({"day": day, "pair": [[1.0, 2.0]] * 2, "none": [None, None], "a": [1, 2], "y": [1, 2]})
    frame.write_parquet(tmp_path / "t.parquet")
    table = read_training_table(tmp_path / "t.parquet", Columns(targets=("y",)))
    of_day = "times, but no time is given: windows are cut across gaps in them"
    assert table.left_out == {"day": of_day, "pair": "list", "none": "no value"}
    with pytest.raises(DataError, match=r"column pair of t\.parquet holds"):
        read_training_table(tmp_path / "t.parquet", Columns(targets=("y",), series="pair"))
    with pytest.raises(DataError, match=rf"no column of numbers or texts besides y; not .*: station \({ONE_TEXT}\)$"):
        read_training_table(write(tmp_path / "u.csv", "station,y\nEWR,1\n"), Columns(targets=("y",)))
    assert not read_training_table(path, Columns(targets=("y",), features=("a",))).left_out


@given(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.integers(-9, 9)), min_size=1))
def test_every_number_is_read_exactly(tmp_path_factory, rows):
    """A float64 written as text is read back exactly."""
    text = "a,y\n" + "".join(f"{a!r},{y}\n" for a, y in rows)
    path = write(tmp_path_factory.mktemp("tables") / "t.csv", text)
    table = read_training_table(path, Columns(targets=("y",)))
    assert features(table)[:, 0].tolist() == [a for a, _ in rows]


def test_all_bad_cells_are_counted(tmp_path):
    """Where no cell may be empty, the error names the first bad cell and its row in the file, and counts all."""
    path = write(tmp_path / "t.csv", "a,b\nx,1\n2,\n")
    with pytest.raises(DataError, match=r"^row 2, column a must be .* but is 'x' \(2 such cells in all\)$") as caught:
        read_columns(path, ("a", "b"))
    assert [str(problem) for problem in caught.value.problems][1:] == ["row 3, column b is empty"]


@pytest.mark.parametrize("cell", ["", " ", "NaN", "nan", "NA", "null", "None"])
def test_a_cell_without_a_value_is_missing(tmp_path, cell):
    """Empty cells and the usual names for missing values are NaN in features and targets, and are not an error."""
    table = read_training_table(write(tmp_path / "t.csv", f"a,b,y\n1,2,{cell}\n{cell},2,3\n"), Columns(targets=("y",)))
    np.testing.assert_array_equal(features(table), [[1, 2], [np.nan, 2]])
    np.testing.assert_array_equal(table.table.targets, [[np.nan], [3]])


def test_rows_of_a_parquet_file_count_from_one(tmp_path):
    """A parquet file has no header line."""
    pl.DataFrame({"a": [1.0, float("inf")], "y": [1, 2]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"^row 2, column a must be a finite number, but is 'inf'"):
        read_columns(tmp_path / "t.parquet", ("a", "y"))
    with pytest.raises(DataError, match="data row 2, column a must be a finite number or empty, but is inf"):
        read_training_table(tmp_path / "t.parquet", Columns(targets=("y",)))


@pytest.mark.parametrize("role", ["targets", "features", "split", "series", "time"])
def test_a_column_that_does_not_exist_is_named_with_those_that_do(tmp_path, role):
    """For every kind of column the error lists the columns that the table has."""
    columns = Columns(**{"targets": ("y",), role: ("q",) if role in ("targets", "features") else "q"})
    with pytest.raises(UnknownNameError, match="no column 'q', but has time, shop, split, a, b, station, y"):
        read_training_table(write(tmp_path / "t.csv", CSV), columns)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", r"^t\.csv is empty$"),
        ("t.csv", b"a,y\n", r"^t\.csv has a header, but no rows$"),
        ("t.csv", b"a,y\n1,2,3\n", r"^cannot read t\.csv: found more fields than"),
        ("t.csv", b'a,y\n1,"2\n', r"^cannot read t\.csv: "),
        ("t.csv", "a,é\n1,é\n".encode("latin-1"), r"^cannot read t\.csv: invalid utf-8 sequence$"),
        ("t.csv", b"a,a,y\n1,2,3\n", r"^t\.csv has more than one column 'a'$"),
        ("t.csv", b"y\n1\n", r"^there is no column of numbers or texts besides y$"),
        ("t.csv.gz", gzip.compress(b"a,y\n" + os.urandom(900).hex().encode())[:400], r"^cannot read t\.csv\.gz: "),
        ("t.parquet", b"PAR1 but not really", r"^cannot read t\.parquet: "),
        ("t.xlsx", b"PK", r"^t\.xlsx must end in \.csv, \.csv\.gz or \.parquet$"),
        ("none.csv", None, r"^cannot read none\.csv: "),
        ("none.parquet", None, r"^cannot read none\.parquet: "),
        ("folder.csv", None, r"^cannot read folder\.csv: "),
    ],
)
def test_an_invalid_file_is_refused_in_one_sentence(tmp_path, name, content, message):
    """Empty, damaged, foreign, ambiguous and missing files raise a one-line error that names the file."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=message) as caught:
        read_training_table(path, Columns(targets=("y",)))
    assert "\n" not in str(caught.value)
