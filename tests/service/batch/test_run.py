"""`kanscope explain MODEL TABLE -o OUT` explains every window exactly once, also after interruptions."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from factories import make_model
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from processes import Command, start
from thorough import examples
from waiting import poll

import kanmodel
from kanmodel import Model
from kanmodel.arrays import take_windows
from kanmodel.attribution.ledger import explain_windows
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.forecaster import Forecaster
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.table import SeriesColumn
from service.batch.chunks import Plan
from service.batch.run import explain_table, use_threads

N_ROWS = 90
MODEL = make_model("lstm", with_targets=False)
LOOKBACK, NAMES = MODEL.config.lookback, MODEL.config.feature_names


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_checkpoint(MODEL, path)
    return path


def make_rows(model: Forecaster = MODEL, n: int = N_ROWS, seed: int = 3) -> pl.DataFrame:
    """A series within the model's range, with hourly time stamps."""
    walk = np.random.default_rng(seed).normal(size=(n, len(model.config.features)))
    for row in range(1, n):
        walk[row] = 0.8 * walk[row - 1] + 0.6 * walk[row]
    rows = model.scaling.features_to_original(torch.from_numpy(walk))
    hours = [(datetime(2026, 1, 1) + timedelta(hours=hour)).isoformat() for hour in range(n)]
    return pl.DataFrame(dict(zip(model.config.feature_names, rows.T, strict=True)) | {"time": hours})


def make_windows(rows: pl.DataFrame) -> pl.DataFrame:
    """The same series as windows, one per row."""
    values = rows.select(NAMES).to_numpy()
    windows = take_windows(values, np.arange(LOOKBACK - 1, len(rows)), LOOKBACK)
    columns = {name: windows[:, :, number].tolist() for number, name in enumerate(NAMES)}
    return pl.DataFrame(columns | {"time": rows["time"][LOOKBACK - 1 :]})


def expected(rows: pl.DataFrame, model: Forecaster = MODEL, output: int = 0) -> pl.DataFrame:
    """The expected result for every window of a series."""
    names, lookback = list(model.config.feature_names), model.config.lookback
    ends = np.arange(lookback - 1, len(rows))
    windows = take_windows(rows.select(names).to_numpy(), ends, lookback)
    ledger = explain_windows(model, model.to_model_units(windows), output, detail="features")
    return pl.DataFrame(
        {
            "window": ends,
            "time": rows["time"][lookback - 1 :],
            "prediction": ledger.predictions,
            "baseline": np.full(len(ends), ledger.baseline_prediction),
            **{f"contribution_{name}": ledger.contributions[:, number] for number, name in enumerate(names)},
            "residual": ledger.residual,
            "error": ledger.error,
            "converged": ledger.converged,
        }
    )


def result(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "*.parquet").sort("window")


def rejected(folder: Path) -> list[tuple[str, int, str]]:
    return pl.read_csv(folder / "_rejected.csv").rows()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def explain(run, file, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Explains rows, which are written as a file of the given name, or a table; the result is in ``out``."""

    def explain(table: pl.DataFrame | Path, *options: object, name: str = "rows.csv", model: Path = file):
        if isinstance(table, pl.DataFrame):
            path = tmp_path / name
            table.write_csv(path) if path.suffix == ".csv" else table.write_parquet(path)
            table = path
        return run("explain", model, table, *(() if "-o" in options else ("-o", tmp_path / "out")), *options)

    return explain


TIMED = ("--time-column", "time")


@pytest.mark.parametrize(("shape", "name"), [("lstm", "rows.csv"), ("head", "rows.csv"), ("lstm", "rows.parquet")])
def test_every_window_of_a_series_is_explained(explain, tmp_path, shape, name):
    """Each window has its ledger and the time, as it is, of its last row; contributions sum to the change."""
    model, out = make_model(shape, with_targets=False), tmp_path / "out"
    save_checkpoint(model, tmp_path / "model.safetensors")
    rows, count = make_rows(model), N_ROWS - model.config.lookback + 1
    if name == "rows.parquet":
        rows = rows.with_columns(pl.col("time").str.to_datetime())
    code, said, _ = explain(rows, *TIMED, name=name, model=tmp_path / "model.safetensors")
    assert (code, said) == (0, f"{out}: {count} windows, 0 not within the tolerance\n")
    found = result(out)
    assert_frame_equal(found, expected(rows, model), abs_tol=1e-9)
    total = found["baseline"] + sum(found[f"contribution_{name}"] for name in NAMES)
    assert ((total - found["prediction"]).abs() <= found["residual"] + 1e-9).all()
    assert rejected(out) == []


@pytest.mark.parametrize("option", ["effects", "shapley"])
def test_further_figures_are_columns_beside_contributions(explain, tmp_path, option):
    """With the library's values: --effects `removed_` and `alone_`, --shapley `shapley_`; the others stay the same."""
    rows = make_rows(n=30)
    explain(rows, *TIMED, f"--{option}")
    found = result(tmp_path / "out")
    windows = take_windows(rows.select(NAMES).to_numpy(), np.arange(LOOKBACK - 1, 30), LOOKBACK)
    if option == "effects":
        effects = Model.of(MODEL).explain(windows, effects=True).effects
        figures = {"removed": effects.removed, "alone": effects.alone}
    else:
        figures = {"shapley": Model.of(MODEL).explain(windows, method="shapley").shapley.values}
    for name, values in figures.items():
        columns = found.select(f"{name}_{feature}" for feature in NAMES).to_numpy()
        np.testing.assert_allclose(columns, values, atol=1e-9)
    others = [name for name in found.columns if not name.startswith((*figures,))]
    assert_frame_equal(found.select(others), expected(rows), abs_tol=1e-9)
    code, _, error = explain(rows, *TIMED)
    assert code == 2 and option in error


@pytest.mark.parametrize("nested", [pl.List(pl.Float64), pl.Array(pl.Float64, LOOKBACK), pl.List(pl.String)])
def test_a_row_may_hold_a_window(explain, tmp_path, nested):
    """A row with one list of values per feature gives the same result as the series it was cut from."""
    rows = make_rows()
    windows = make_windows(rows).cast(dict.fromkeys(NAMES, nested))
    assert explain(windows, *TIMED, "--part-windows", 32, name="windows.parquet")[0] == 0
    wanted = expected(rows).with_columns(pl.col("window") - LOOKBACK + 1)
    assert_frame_equal(result(tmp_path / "out"), wanted, abs_tol=1e-9)


def test_others_read_the_folder_as_one_table(explain, file, tmp_path):
    """pandas reads all parts as one table, and each part records the model, the versions and the units."""
    out = tmp_path / "out"
    explain(make_rows(), "--part-windows", 20, "--output-name", "y+1")
    assert len(list(out.glob("part-*.parquet"))) == 5
    count = "import sys, pandas; print(len(pandas.read_parquet(sys.argv[1])))"  # pandas takes 100 MB
    found = subprocess.run([sys.executable, "-c", count, out], capture_output=True, text=True, check=True).stdout
    assert int(found) == len(result(out)) == N_ROWS - LOOKBACK + 1
    about = json.loads(pl.read_parquet_metadata(out / "part-00003.parquet")["kanscope"])
    sha256 = load_checkpoint(file).sha256
    assert (about["checkpoint"], about["output"], about["unit"]) == (f"sha256:{sha256}", "y+1", "K")
    assert about["features"] == {"f0": "K", "f1": "hPa", "f2": None, "f3": "K"}
    manifest = json.loads((out / "_manifest.json").read_text())
    assert manifest["run"].items() <= about.items()
    counts = {"windows": 85, "lost": 0, "rejected": 0, "unconverged": 0, "across_gaps": 0, "gap": ""}
    assert manifest["complete"] == counts


def write_files(rows: pl.DataFrame, folder: Path, cuts: list[int], kind: str, row_group: int) -> Path:
    """The series, split into several files."""
    folder.mkdir()
    for number, (first, last) in enumerate(zip([0, *cuts], [*cuts, len(rows)], strict=True)):
        piece, path = rows[first:last], folder / f"{number:03d}{kind}"
        if kind == ".parquet":
            piece.write_parquet(path, row_group_size=row_group)
        else:
            text = piece.write_csv().encode()
            path.write_bytes(gzip.compress(text) if kind == ".csv.gz" else text)
    return folder


@settings(max_examples=examples(10))
@given(
    cuts=st.sets(st.integers(1, N_ROWS - 1), max_size=3),
    kind=st.sampled_from([".csv", ".csv.gz", ".parquet"]),
    group=st.integers(1, N_ROWS),
    size=st.integers(1, N_ROWS + 10),
    interruptions=st.lists(st.integers(0, 5), max_size=2),
)
@example(cuts={31, 60}, kind=".parquet", group=7, size=20, interruptions=[2, 0])
def test_files_chunks_and_interruptions_change_nothing(cuts, kind, group, size, interruptions):
    """However the series is split into files and chunks, and after however many parts a run is interrupted."""
    rows = make_rows()
    with tempfile.TemporaryDirectory() as place:
        table = write_files(rows, Path(place) / "table", sorted(cuts), kind, group)
        plan = Plan(Model.of(MODEL), table, MODEL.config.outputs[0], time="time", part_windows=size)
        for number in [*interruptions, None]:
            advances = explain_table(plan, Path(place) / "out", use_threads, 2)
            for done, _ in enumerate(advances):
                if done == number:
                    break
            advances.close()
        assert_frame_equal(result(Path(place) / "out"), expected(rows), abs_tol=1e-9)
        assert len(list((Path(place) / "out").glob("part-*"))) == -(-N_ROWS // size)


def test_threads_are_as_many_as_the_cores_that_may_be_used(monkeypatch):
    """Polars counts them, and minds the quota of a cgroup, which the mask of the process does not show."""
    monkeypatch.setattr(pl, "thread_pool_size", lambda: 3)
    with use_threads(Plan(Model.of(MODEL), Path("table.csv"), MODEL.config.outputs[0]), None) as (_, at_most):
        assert at_most == 6  # two chunks for each


def test_bad_rows_are_listed_and_their_windows_left_out(explain, tmp_path):
    """A cell that is not a finite number excludes exactly the windows that contain it."""
    rows = make_rows().cast(dict.fromkeys(NAMES, pl.String))
    wrong = {10: ("f1", "x y"), 11: ("f0", None), 40: ("f3", "nan"), 60: ("f2", "-inf")}
    for row, (name, cell) in wrong.items():
        rows[row, name] = cell
    code, said, _ = explain(rows, *TIMED, "--part-windows", 17)
    lost = {row + step for row in wrong for step in range(LOOKBACK)}
    assert code == 0 and f"4 bad rows; {len(lost)} windows left out because of them" in said
    assert rejected(tmp_path / "out") == [
        ("rows.csv", 12, "column f1 must be a finite number or empty, but is 'x y'"),
        ("rows.csv", 13, "column f0 is empty, and the model was trained without fill"),
        ("rows.csv", 42, "column f3 is empty, and the model was trained without fill"),
        ("rows.csv", 62, "column f2 must be a finite number or empty, but is -inf"),
    ]
    wanted = expected(make_rows()).filter(~pl.col("window").is_in(lost))
    assert_frame_equal(result(tmp_path / "out"), wanted, abs_tol=1e-9)
    code, _, error = explain(rows, "-o", tmp_path / "strict", "--strict")
    assert code == 2
    assert error.endswith("kanscope: rows.csv, row 12, column f1 must be a finite number or empty, but is 'x y'\n")


def test_bad_windows_are_listed(explain, tmp_path):
    """In tables of lists, only windows of the wrong length or with a bad value are excluded."""
    windows = make_windows(make_rows())
    columns = windows.to_dict(as_series=False)
    columns["f1"][3].pop()
    columns["f2"][5] = None
    columns["f3"][7][-1] = float("nan")
    columns["f0"][9][0] = None
    explain(pl.DataFrame(columns), name="windows.parquet")
    assert rejected(tmp_path / "out") == [
        ("windows.parquet", 4, f"column f1 must hold {LOOKBACK} numbers, but holds {LOOKBACK - 1}"),
        ("windows.parquet", 6, "column f2 is empty"),
        ("windows.parquet", 8, f"column f3[{LOOKBACK - 1}] must be a finite number, but is 'nan'"),
        ("windows.parquet", 10, "column f0[0] is empty"),
    ]
    assert sorted(set(range(len(windows))) - set(result(tmp_path / "out")["window"])) == [3, 5, 7, 9]


def test_a_window_without_a_finite_forecast_is_listed(explain, tmp_path):
    """Windows with finite values whose forecast overflows are listed as rejected."""
    model = make_model("lstm", dtype="float32")
    save_checkpoint(model, tmp_path / "model.safetensors")
    rows = make_rows(model).with_columns(f2=pl.when(pl.int_range(N_ROWS) == 50).then(1e300).otherwise("f2"))
    code, said, _ = explain(rows, name="rows.parquet", model=tmp_path / "model.safetensors")
    assert code == 0 and f"{LOOKBACK} windows left out because of them" in said
    assert [row for _, row, _ in rejected(tmp_path / "out")] == list(range(51, 51 + LOOKBACK))
    reason = "the window that ends here cannot be explained: windows[0]"
    assert all(reason in why for _, _, why in rejected(tmp_path / "out"))
    assert len(result(tmp_path / "out")) == N_ROWS - LOOKBACK + 1 - LOOKBACK


def test_no_window_has_rows_of_two_series(explain, tmp_path):
    """Without times, a series ends where the value changes, also where a file or a chunk begins."""
    starts, lengths = np.array([0, 33, 53]), [33, 20, N_ROWS - 53]
    rows = make_rows().with_columns(shop=pl.Series(np.repeat(["b", "a", "c"], lengths)))
    table = write_files(rows, tmp_path / "table", [40], ".parquet", 10)
    model = tmp_path / "model.safetensors"
    save_checkpoint(MODEL.with_config(replace(MODEL.config, series=SeriesColumn("shop"))), model)
    code, _, error = explain(table, "--part-windows", 16, model=model)
    assert code == 0, error
    wanted = [row for row in range(N_ROWS) if row - starts[starts <= row].max() >= LOOKBACK - 1]
    found = result(tmp_path / "out")
    assert found["window"].to_list() == wanted
    assert found["series"].to_list() == rows["shop"][wanted].to_list()
    code, _, error = explain(table, "-o", tmp_path / "some", "--series", "c", "--series", "a", model=model)
    assert code == 0, error
    assert_frame_equal(result(tmp_path / "some"), found.filter(pl.col("series") != "b"), abs_tol=1e-9)


@pytest.fixture(scope="module")
def hourly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows that its rows are an hour apart."""
    path = tmp_path_factory.mktemp("hourly") / "model.safetensors"
    save_checkpoint(MODEL.with_config(replace(MODEL.config, time=TimeColumn("time", 3600.0, 1.5, True))), path)
    return path


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_no_window_crosses_a_gap_in_time(explain, hourly, tmp_path, ending):
    """Windows across a gap are left out and counted, in any file, row group or chunk; the time column is found."""
    rows = make_rows().filter(~pl.int_range(N_ROWS).is_in([30, 31, 60]))
    table = write_files(rows, tmp_path / "table", [29, 31], ending, 7)
    code, said, _ = explain(table, "--part-windows", 16, model=hourly)
    found = result(tmp_path / "out")
    wanted = [
        end for end in range(LOOKBACK - 1, len(rows)) if not any(end - LOOKBACK + 1 < at <= end for at in (30, 58))
    ]
    assert code == 0 and found["window"].to_list() == wanted
    assert found["time"].to_list() == rows["time"][wanted].to_list()
    lost = 2 * (LOOKBACK - 1)
    assert f"{lost} windows left out that cross a gap in time, such as 2026-01-02T05:00:00 to 2026-01-02T08:00" in said
    about = json.loads((tmp_path / "out" / "_manifest.json").read_text())["complete"]
    assert (about["across_gaps"], about["lost"], about["windows"]) == (lost, 0, len(wanted))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda at: at / 4, r"column time has mostly steps shorter than those of the training, 1 hour"),
        (lambda at: at - (at >= 40), r"row 41, column time must not repeat a time, but has 2026-01-02T15:00:00 twice"),
        (lambda at: at - 2 * (at == 40), r"row 41, column time must be later than 2026-01-02T15:00:00 in the row befo"),
    ],
)
def test_times_unlike_those_of_the_training_are_refused(explain, hourly, change, reason):
    """Rows of 15 minutes for an hourly model, a time twice, and rows out of order are refused with the first row."""
    hours = [datetime(2026, 1, 1) + timedelta(hours=change(at)) for at in range(N_ROWS)]
    rows = make_rows().with_columns(time=pl.Series(hours))
    code, _, error = explain(rows, name="rows.parquet", model=hourly)
    assert code == 2 and re.search(reason, " ".join(error.split())), error


def test_files_are_in_any_dialect_or_without_rows(explain, tmp_path):
    """A byte order mark, CRLF, quoted line breaks and a missing last line break; a header alone adds nothing."""
    rows = make_rows().with_columns(note=pl.lit('two\nlines, "quoted"'))
    table = write_files(rows, tmp_path / "table", [40], ".csv", 1)
    text = b"\xef\xbb\xbf" + rows[:40].write_csv(line_terminator="\r\n").encode().rstrip()
    (table / "000.csv").write_bytes(text)
    header = ",".join(rows.columns)
    (table / "000a.csv").write_text(header)
    (table / "00.csv").write_text(f"{header}\n")
    code, _, error = explain(table, *TIMED)
    assert code == 0, error
    assert_frame_equal(result(tmp_path / "out"), expected(rows), abs_tol=1e-9)
    assert rejected(tmp_path / "out") == []


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "other options": (lambda place: None, "was made with time_column None, not time: give a new folder"),
    "other rows": (
        lambda place: make_rows(seed=4).write_csv(place / "rows.csv"),
        "rows.csv has changed since part 0 was made: choose another output folder",
    ),
    "fewer rows": (
        lambda place: make_rows()[:40].write_csv(place / "rows.csv"),
        "rows.csv ends before part 4: choose another output folder",
    ),
    "another checkpoint": (
        lambda place: save_checkpoint(make_model("lstm", seed=9), place / "model.safetensors"),
        "was made with checkpoint sha256:",
    ),
    "a manifest that is none": (lambda place: (place / "out" / "_manifest.json").write_text("{"), "is damaged"),
    "no manifest": (
        lambda place: (place / "out" / "_manifest.json").unlink(),
        "contains other files: give a new folder",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_folder_of_another_run_is_refused(explain, file, tmp_path, case):
    """With another checkpoint, rows or options the run is refused in one sentence, and no file changes."""
    change, reason = REFUSALS[case]
    model = tmp_path / "model.safetensors"
    model.write_bytes(file.read_bytes())
    explain(make_rows(), "--part-windows", 20, model=model)
    change(tmp_path)
    before = contents(tmp_path / "out")
    options = TIMED if case == "other options" else ()
    code, _, error = explain(tmp_path / "rows.csv", "--part-windows", 20, *options, model=model)
    assert code == 2 and reason in error
    assert contents(tmp_path / "out") == before


def test_a_finished_table_is_left_as_it_is(explain, tmp_path):
    """A second run computes and writes nothing, and prints the same summary."""
    _, first, _ = explain(make_rows(), "--json")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    code, second, _ = explain(make_rows(), "--json")
    assert code == 0 and json.loads(first) == json.loads(second)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")} == times


def truncate(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-100])


def flip_a_bit(part: Path) -> None:
    data = bytearray(part.read_bytes())
    data[100] ^= 0x10
    part.write_bytes(data)


def change_a_value(part: Path) -> None:
    about = pl.read_parquet_metadata(part)["kanscope"]
    pl.read_parquet(part).with_columns(prediction=0.0).write_parquet(part, metadata={"kanscope": about})


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, change_a_value])
def test_a_damaged_part_is_named_and_made_again(explain, tmp_path, damage):
    """A damaged part stops the run; after it is deleted, a run completes the table."""
    rows, out = make_rows(), tmp_path / "out"
    explain(rows, "--part-windows", 20)
    whole, part = result(out), out / "part-00002.parquet"
    damage(part)
    code, _, error = explain(rows, "--part-windows", 20)
    assert code == 2 and f"{part} is damaged" in error and "delete it to have it made again" in error
    part.unlink()
    assert explain(rows, "--part-windows", 20)[0] == 0
    assert result(out).equals(whole)


def test_an_unreadable_file_among_good_ones_is_named(explain, tmp_path):
    """Windows before the unreadable file are explained and kept; once the file is repaired, a run adds the rest."""
    rows, out = make_rows(), tmp_path / "out"
    table = write_files(rows, tmp_path / "table", [30, 60], ".csv.gz", 1)
    good = (table / "001.csv.gz").read_bytes()
    (table / "001.csv.gz").write_bytes(good[: len(good) // 2])
    code, _, error = explain(table, *TIMED, "--part-windows", 8)
    kept = len(result(out))
    assert code == 2 and "cannot read 001.csv.gz" in error
    assert f"({kept} explained windows are saved; run the same command again to resume)" in error
    assert kept == 24 - LOOKBACK + 1 and not (out / "_rejected.csv").exists()
    (table / "001.csv.gz").write_bytes(good)
    assert explain(table, *TIMED, "--part-windows", 8)[0] == 0
    assert_frame_equal(result(out), expected(rows), abs_tol=1e-9)


def test_a_file_that_cannot_be_opened_is_named_before_anything_is_done(explain, tmp_path):
    """The beginning of each file is read before the first window is explained."""
    table = write_files(make_rows(), tmp_path / "table", [30], ".parquet", 1)
    (table / "001.parquet").write_bytes(b"PAR1 no more")
    code, _, error = explain(table)
    assert code == 2 and "cannot read 001.parquet" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.csv", None, "none.csv: it does not exist"),
        ("model.txt", "", "model.txt must end in .csv, .csv.gz or .parquet"),
        ("a.csv", "", "a.csv is empty"),
        ("a.csv", "f0,f0\n", "a.csv has more than one column 'f0'"),
        ("a.csv", "f0,f1,f2,f3\n1,2,3,4,5\n", "cannot read a.csv: "),
        ("", None, "has no file that ends in .csv, .csv.gz, .parquet"),
        ("a.csv", "f0,f1,f2\n1,2,3\n", "a.csv has no column 'f3', but has f0"),
        ("a.csv", "f0,f1,f2,f3\n1,2,3,4\n", f"a.csv has 1 rows, but needs the {LOOKBACK} steps of a window"),
        ("a.csv", 'f0,f1,f2,f3\n"' + "1,2,3,4\n" * (1 << 22), "or its quotes do not close"),
    ],
    ids=[
        *("no file", "another ending", "an empty file", "two columns of a name", "a cell too many", "an empty folder"),
        *("a column too few", "too few rows", "open quotes"),
    ],
)
def test_a_table_that_cannot_be_explained_is_refused(explain, tmp_path, name, content, reason):
    """The error is one sentence that names the place."""
    if content is not None:
        (tmp_path / name).write_text(content)
    code, _, error = explain(tmp_path / name)
    assert code == 2 and reason in error


def test_lists_and_numbers_are_no_table(explain):
    """Where one column holds windows and another single values, both are named."""
    code, _, error = explain(make_windows(make_rows()).with_columns(f1=1.0), name="a.parquet")
    both = "column f0 of a.parquet holds lists, but column f1 of a.parquet single values, so they are not one table"
    assert code == 2 and both in error


def test_a_table_of_which_nothing_is_explained_is_an_error(explain, tmp_path):
    """If every window has a bad row, the reasons are listed and the exit code is 2, also with --json."""
    for flags in ([], ["--json"]):
        code, said, error = explain(make_rows().with_columns(f1=pl.lit("calm")), *flags)
        assert code == 2 and str(N_ROWS) in said
        assert f"no window of rows.csv is explained; {tmp_path / 'out' / '_rejected.csv'} has the reasons" in error
    assert len(rejected(tmp_path / "out")) == N_ROWS


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_booleans_are_numbers_for_library_and_commands(run, tmp_path, ending):
    """A boolean column is the same feature, 0 and 1, for `kanmodel.train`, `kanscope train` and `kanscope explain`."""
    options = {"lookback": 3, "hidden": 3, "width": (3, 2, 1), "epochs": 1}
    rng = np.random.default_rng(0)
    rain = rng.random(500) < 0.3
    frame = pl.DataFrame(
        {"rain": rain, "wind": rng.normal(size=500), "station": "EWR", "y": rain + rng.normal(size=500)}
    )
    table = tmp_path / f"table{ending}"
    frame.write_csv(table) if ending == ".csv" else frame.write_parquet(table)
    with pytest.warns(UserWarning, match=r"^not used as features: station \(the same text in every row\)$"):
        expected = kanmodel.train(frame, "y", **options)
    flags = [str(word) for name, value in options.items() for word in (f"--{name}", value) if name != "width"]
    saved, out = tmp_path / "model.safetensors", tmp_path / "out"
    code, _, error = run("train", table, "--target", "y", *flags, "--width", "3,2,1", "-o", saved)
    assert code == 0 and f"table{ending}: not used as features: station (the same text in every row)" in error
    model = kanmodel.load(saved)
    assert [feature.name for feature in model.features] == ["rain", "wind"]
    assert run("explain", saved, table, "-o", out)[0] == 0
    found = result(out)
    assert len(found) == 498 and not rejected(out)
    np.testing.assert_allclose(found["prediction"][-1], expected.predict(frame)[0, 0], rtol=1e-5)
    np.testing.assert_allclose(found["prediction"][-1], model.predict(frame)[0, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (pl.col("time").str.to_datetime(), "column time is String in 000.parquet, but Datetime"),
        (pl.concat_list("time"), "column time of 001.parquet holds List(String), not single values"),
    ],
)
def test_times_are_of_one_type(explain, tmp_path, other, reason):
    """Time columns of different types are refused before anything is computed."""
    table = write_files(make_rows(), tmp_path / "table", [40], ".parquet", 9)
    make_rows().with_columns(time=other).write_parquet(table / "001.parquet")
    code, _, error = explain(table, *TIMED)
    assert code == 2 and reason in error


def test_rows_must_run_from_oldest_to_newest(explain, tmp_path):
    """Times must ascend, as in training, also from one file to the next."""
    rows = make_rows()
    table = write_files(rows[[*range(40, 60), *range(40)]], tmp_path / "table", [20], ".csv", 1)
    code, _, error = explain(table, *TIMED)
    assert code == 2 and "001.csv, row 2, column time must be later than" in " ".join(error.split())
    code, _, error = explain(make_windows(rows.reverse()), *TIMED, "-o", tmp_path / "w", name="windows.parquet")
    assert code == 2 and "windows.parquet, row 2, column time is earlier than the row above it" in error


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("-o out", "TABLE and -o go together"),
        ("rows.csv", "TABLE and -o go together"),
        ("--series a", "--series, --strict, --engine, --workers and --part-windows need TABLE"),
        ("--part-windows 9", "--strict, --engine, --workers and --part-windows need TABLE"),
        ("rows.csv -o out --window 1", "all windows of TABLE are explained"),
        ("--faithfulness --effects", "so --window, --effects and --shapley cannot be given with it"),
        ("--effects --receipt a --input b", "--receipt takes all its options from the receipt"),
        ("rows.csv -o out --receipt a --input b", "--receipt takes all its options from the receipt"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run, file, options, reason):
    code, _, error = run("explain", file, *options.split())
    assert code == 2 and reason in error


def test_without_ray_the_error_says_what_to_install(explain, monkeypatch):
    """Without the extra, the error says in one sentence how to install Ray."""
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, error = explain(make_rows(), "--engine", "ray")
    assert code == 2 and error.endswith("kanscope: --engine ray needs a package: pip install 'kanscope[ray]'\n")


def explaining(log: Path, file: Path, table: Path, out: Path) -> Command:
    """The command in its own process."""
    return start(log, "explain", file, table, "-o", out, "--part-windows", 100, "--workers", 2)


@contextmanager
def running(log: Path, file: Path, table: Path, out: Path) -> Iterator[Command]:
    """The running command, once it has written some parts."""
    process = explaining(log, file, table, out)
    try:
        poll(lambda: len(list(out.glob("part-*"))) >= 2 or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.thorough("runs a long table in processes that are killed")
def test_a_run_that_is_killed_is_finished_by_the_next(file, tmp_path):
    """After SIGKILL, the next run completes the table, which equals that of an uninterrupted run."""
    log, table = tmp_path / "log", tmp_path / "rows.parquet"
    make_rows(n=3000).write_parquet(table)
    with running(log, file, table, tmp_path / "out") as process:
        process.kill()
    assert not (tmp_path / "out" / "_rejected.csv").exists()
    (tmp_path / "out" / ".writing-left").write_text("by a run that was killed")
    for name in ("out", "whole"):
        assert explaining(log, file, table, tmp_path / name).wait(300) == 0, log.read_text()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert len(result(tmp_path / "out")) == 3000 - LOOKBACK + 1


INTERRUPTED = "kanscope: interrupted; {} parts of the result are saved; run the same command again to resume"


@pytest.mark.thorough("explains a long table in a process of its own")
def test_ctrl_c_says_how_to_resume(file, tmp_path):
    """SIGINT prints one line without a traceback and exits with 130; parts already written are complete."""
    log, table, out = tmp_path / "log", tmp_path / "rows.parquet", tmp_path / "out"
    make_rows(n=30_000).write_parquet(table)  # takes too long to be finished before the signal
    with running(log, file, table, out) as process:
        process.send_signal(signal.SIGINT)
        code, printed = process.wait(300), log.read_text()
    parts = list(out.glob("part-*"))
    assert code == 130 and printed.splitlines()[-1] == INTERRUPTED.format(len(parts)) and "Traceback" not in printed
    assert 0 < len(result(out)) <= 100 * len(parts)


@pytest.mark.parametrize("written", [False, True])
def test_an_interrupt_while_a_part_is_written(explain, tmp_path, monkeypatch, written):
    """Whether the part has its name yet or not, the number of saved parts is right, and no other file remains."""
    replace_file, out = os.replace, tmp_path / "out"

    def interrupt(source, target):
        interrupted = Path(target).name == "part-00002.parquet"
        if written or not interrupted:
            replace_file(source, target)
        if interrupted:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    code, _, error = explain(make_rows(), "--part-windows", 20, "--workers", 1)
    saved = ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"][: 2 + written]
    assert code == 130 and error.splitlines()[-1] == INTERRUPTED.format(len(saved))
    assert sorted(path.name for path in out.iterdir()) == ["_manifest.json", *saved]


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A file system of 144 KiB."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=144k", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.mark.thorough("fills a file system")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system")
def test_a_full_disk_is_named_and_nothing_is_lost(explain, tmp_path):
    """A full disk stops the run with one sentence; with more space the same command completes the table."""
    rows = make_rows(n=3000)
    with small_disk(tmp_path / "disk") as disk:
        options = (*TIMED, "-o", disk / "out", "--part-windows", 500)
        code, _, error = explain(rows, *options, name="rows.parquet")
        kept = len(result(disk / "out"))
        assert code == 2 and "No space left on device" in error
        assert 0 < kept < 3000 and f"({kept:,} explained windows are saved" in error
        assert not list((disk / "out").glob(".*"))
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert explain(rows, *options, name="rows.parquet")[0] == 0
        assert_frame_equal(result(disk / "out"), expected(rows), abs_tol=1e-9)
