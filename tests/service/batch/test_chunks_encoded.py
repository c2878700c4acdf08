"""Tables as people have them are explained as the library forecasts them, however they are read."""

import subprocess
import sys
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from factories import make_encoded
from polars.testing import assert_frame_equal

from kanmodel import Model
from kanmodel.errors import DataError, UnknownNameError
from kanmodel.tables.roles import Columns
from kanmodel.tables.table import CellNames, Selection
from kanmodel.tables.windows import read_table
from service.batch import Csv, tables
from service.batch.chunks import Plan
from service.batch.run import explain_table, use_threads

N_ROWS, AHEAD, LOOKBACK = 120, 3, 4
COLUMNS = Columns(
    ("load",), time="time", ahead=AHEAD, known=("temp", "sky"), calendar=True, fill="linear", max_fill=2, zone="UTC"
)


def make_rows():
    """Hours with an hour that is missing, and cells without a value, of which three together are not filled."""
    rng = np.random.default_rng(0)
    hours = [hour for hour in range(N_ROWS + 1) if hour != 60]
    columns = {"time": [(datetime(2024, 3, 30) + timedelta(hours=hour)).strftime("%d.%m.%Y %H:%M") for hour in hours]}
    columns |= {"temp": rng.normal(size=N_ROWS).tolist(), "load": rng.normal(size=N_ROWS).tolist()}
    columns["sky"] = rng.choice(["clear", "cloudy"], N_ROWS).tolist()
    for name, rows in (("temp", (7, 8, 40)), ("load", (20, 21, 22, 90)), ("sky", (33, 100))):
        for row in rows:
            columns[name][row] = None
    return pl.DataFrame(columns)


ROWS = make_rows()
MODEL = Model.of(make_encoded(ROWS, COLUMNS, LOOKBACK))


def explain(path, folder, model=MODEL, **options):
    """The parts of a run, and its rejected rows."""
    plan = Plan(model, path, model.outputs[0], time="time", **options)
    list(explain_table(plan, folder, use_threads, 1))
    return pl.read_parquet(folder / "*.parquet").sort("window"), pl.read_csv(folder / "_rejected.csv").rows()


def test_every_window_is_explained_as_the_library_forecasts_it(tmp_path):
    """The features are those of the training; rows that have none are listed with what is missing."""
    ROWS.write_csv(tmp_path / "rows.csv")
    found, rejected = explain(tmp_path / "rows.csv", tmp_path / "out")
    windows = read_table(MODEL.config.table, ROWS, CellNames("rows"), Selection())
    assert found["window"].to_list() == windows.table.order[windows.ends].tolist()
    assert len(windows) + windows.missing.windows + windows.across_gaps == N_ROWS - AHEAD - LOOKBACK + 1
    np.testing.assert_allclose(found["prediction"], MODEL.predict(windows.take())[:, 0], atol=1e-9)
    np.testing.assert_allclose(
        found["contribution_hour"], found["contribution_hour_sin"] + found["contribution_hour_cos"], atol=1e-12
    )
    reasons = {row - 2: reason for _, row, reason in rejected}
    assert reasons[22] == (  # the third row without a value: at the two before it, the last value is carried on
        "column load is empty and cannot be filled: there are more than 2 rows without a value (max_fill), or none "
        "before that has one"
    )
    assert reasons[57] == "column temp must be known 3 rows later, but the table has no such row"
    last = MODEL.predict(ROWS)
    assert found["prediction"][-1] == pytest.approx(last[0, 0])


def test_the_parts_of_a_table_are_encoded_as_the_whole(tmp_path, monkeypatch):
    """Blocks of a few rows, small parts, several files and parquet give the same windows."""
    ROWS.write_csv(tmp_path / "rows.csv")
    expected, rejected = explain(tmp_path / "rows.csv", tmp_path / "whole")
    (tmp_path / "folder").mkdir()
    for number in range(3):
        ROWS[50 * number : 50 * number + 50].write_parquet(tmp_path / "folder" / f"{number}.parquet")
    found, _ = explain(tmp_path / "folder", tmp_path / "files", part_windows=17)
    assert_frame_equal(found, expected, abs_tol=1e-9)
    monkeypatch.setattr(tables, "BLOCK_BYTES", 60)
    found, again = explain(tmp_path / "rows.csv", tmp_path / "blocks", part_windows=5)
    assert_frame_equal(found, expected, abs_tol=1e-9)
    assert again == rejected


@pytest.mark.parametrize(
    ("change", "reason", "first"),
    [
        ({"sky": "foggy"}, "column sky has the unknown level 'foggy'; the levels are clear, cloudy", 70 - AHEAD),
        ({"temp": "warm"}, "column temp must be a finite number or empty, but is 'warm'", 70 - AHEAD),
        ({"load": "much"}, "column load must be a finite number or empty, but is 'much'", 70),
        ({"time": "12"}, "column time must be a date, as in training, but is '12'", 70),
        ({"time": "noon"}, "column time must be a date, as in training, but is 'noon'", 70),
    ],
)
def test_a_bad_cell_is_named(tmp_path, change, reason, first):
    """Its row is listed, and the windows that read it are left out: of known columns, those that end earlier."""
    ((name, cell),) = change.items()
    cells = ROWS[name].cast(pl.String).to_list()
    ROWS.with_columns(pl.Series(name, [*cells[:70], cell, *cells[71:]])).write_csv(tmp_path / "rows.csv")
    found, rejected = explain(tmp_path / "rows.csv", tmp_path / "out")
    assert ("rows.csv", 72, reason) in rejected
    assert not set(range(first, first + LOOKBACK)) & set(found["window"].to_list())


def test_the_command_reads_the_columns_of_the_training(run, tmp_path):
    """Its time column is found by its name; a missing column, and lists, are refused by name."""
    model = MODEL.save(tmp_path / "m.safetensors")
    ROWS.write_csv(tmp_path / "rows.csv")
    code, said, err = run("explain", tmp_path / "m.safetensors", tmp_path / "rows.csv", "-o", tmp_path / "out")
    assert code == 0, err
    assert "windows left out that cross a gap in time, such as 01.04.2024 11:00 to 01.04.2024 13:00" in said
    for frame, message in (
        (ROWS.drop("sky"), "rows.parquet has no column 'sky', but has time, temp, load"),
        (ROWS.drop("time"), "column time is missing: the times of the rows, from which the calendar is"),
        (ROWS.with_columns(pl.concat_list("load")), "column load of rows.parquet holds List(Float64), but this model"),
    ):
        frame.write_parquet(tmp_path / "rows.parquet")
        code, _, err = run("explain", tmp_path / "m.safetensors", tmp_path / "rows.parquet", "-o", tmp_path / "no")
        assert code == 2 and message in err
    assert model.config.encoding is not None


READING = """
import resource, sys
from pathlib import Path
import kanmodel
from service.batch.chunks import Plan, read_chunks

model = kanmodel.load(sys.argv[1])
chunks = read_chunks(Plan(model, Path(sys.argv[2]), model.outputs[0], time="time"), {})
n_windows, before = len(next(chunks).index), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
n_windows += sum(len(chunk.index) for chunk in chunks)
print(n_windows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.thorough("reads a million rows in a process of its own")
def test_a_table_of_a_million_rows_needs_little_more_memory_than_its_beginning(tmp_path):
    """All windows are cut, with texts, the calendar and filled cells, within 150 MB above those of the first part."""
    n_rows, block, start = 1_000_000, 100_000, np.datetime64("1900-01-01T00", "ms")
    with (tmp_path / "rows.csv").open("wb") as file:
        for first in range(0, n_rows, block):
            hours = np.arange(first, first + block)
            time = pl.Series(start + hours * np.timedelta64(1, "h")).dt.strftime("%d.%m.%Y %H:%M")
            values = {"load": np.sin(hours / 7).round(3), "temp": pl.Series(hours / 9 % 30).round(1)}
            values["temp"] = values["temp"].set(pl.Series(hours % 97 == 5), None)
            columns = {"time": time, "sky": np.where(hours % 9 < 5, "clear", "cloudy")} | values
            pl.DataFrame(columns).write_csv(file, include_header=not first)
    MODEL.save(tmp_path / "model.safetensors")
    words = [sys.executable, "-c", READING, tmp_path / "model.safetensors", tmp_path / "rows.csv"]
    n_windows, kilobytes = map(int, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert n_windows == n_rows - AHEAD - LOOKBACK + 1
    assert kilobytes < 150_000


def test_semicolons_and_decimal_commas_are_read_where_they_are_named(tmp_path):
    """Numbers with a comma are numbers, texts with one stay; else the error says which option is missing."""
    rows = ROWS.with_columns(pl.col("sky").replace("cloudy", "cloudy, grey"))
    model = Model.of(make_encoded(rows, COLUMNS, LOOKBACK))
    (tmp_path / "plain").mkdir()
    rows.write_csv(tmp_path / "plain" / "rows.csv")
    rows.write_csv(tmp_path / "rows.csv", separator=";", decimal_comma=True)
    path, csv = tmp_path / "rows.csv", Csv(";", ",")
    wanted, _ = explain(tmp_path / "plain" / "rows.csv", tmp_path / "wanted", model)
    found, _ = explain(path, tmp_path / "found", model, csv=csv)
    assert_frame_equal(found, wanted)
    assert tables.read_table(path, special={"sky", "time"}, csv=csv)["load"].dtype == np.float64
    with pytest.raises(UnknownNameError, match="if ';' separates its columns, give --separator ';'"):
        tables.read_table(path, ["load"])
    for wrong in ((";;", "."), (",", ","), ('"', "."), (";", "-")):
        with pytest.raises(DataError, match=r"--separator|--decimal"):
            Csv(*wrong)
