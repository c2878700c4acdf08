"""The chunks of a table have its windows, bit for bit, however it is read and cut."""

import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from factories import make_encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel import Model
from kanmodel.errors import DataError
from kanmodel.tables.roles import Columns
from kanmodel.tables.table import CellNames, Selection, Table
from kanmodel.tables.windows import Windows, read_table
from service.batch.chunks import Plan, read_chunks

N_ROWS, AHEAD, LOOKBACK = 70, 2, 4
PLACES = CellNames("rows")


def make_rows(seed, minutes=30, n=N_ROWS, shops=("",)):
    """Local times around the end of daylight saving, with rows and cells missing, of one series or several."""
    rng, parts = np.random.default_rng(seed), []
    for number, shop in enumerate(shops):
        instants = [datetime(2023, 10, 28, 18 + number) + timedelta(minutes=minutes * at) for at in range(n)]
        local = pl.Series("time", instants).dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Berlin")
        temp, load = rng.normal(size=(2, n))
        frame = pl.DataFrame({"time": local.dt.strftime("%d.%m.%Y %H:%M"), "shop": shop, "temp": temp, "load": load})
        frame = frame.with_columns(sky=pl.Series(rng.choice(["clear", "none"], n)), at=pl.Series(instants))
        for name in ("temp", "load", "sky"):
            is_empty = pl.Series(np.repeat(rng.random(n // 2 + 1) < 0.1, 2)[:n] | (rng.random(n) < 0.1))
            frame = frame.with_columns(pl.when(is_empty).then(None).otherwise(name).alias(name))
        parts.append(frame.filter(pl.Series(rng.random(n) > 0.04)))
    return pl.concat(parts)


def make(frame, **options):
    roles = {"time": "time", "ahead": AHEAD, "known": ("temp", "sky"), "zone": "Europe/Berlin"}
    columns = Columns(("load",), **roles | {"calendar": ["hour"], "max_fill": 2, "fill": "linear"} | options)
    return Model.of(make_encoded(frame.drop("at", "shop" if columns.series is None else "at"), columns, LOOKBACK))


def cut(model, frame, cuts=(), **options):
    """Window, series and values of all windows of a table that is written as several files."""
    with tempfile.TemporaryDirectory() as place:
        for number, (first, end) in enumerate(zip([0, *cuts], [*cuts, len(frame)], strict=True)):
            frame[first:end].write_csv(Path(place) / f"{number}.csv")
        chunks = list(read_chunks(Plan(model, Path(place), model.outputs[0], "time", **options), {}))
    rows = pl.concat([chunk.windows for chunk in chunks])
    return rows, np.concatenate([chunk.values[chunk.index] for chunk in chunks]), chunks


@settings(max_examples=examples(20))
@given(data=st.data())
def test_windows_do_not_depend_on_how_the_table_is_read(data):
    """Small parts of several files give the windows of the whole; of an unfinished table, the first of the same."""
    fill = data.draw(st.sampled_from(["linear", "forward", 0.0, None]), label="fill")
    seed, minutes = data.draw(st.integers(0, 99), label="seed"), data.draw(st.sampled_from([10, 30, 60]), label="min")
    frame = make_rows(seed, minutes)
    model = make(frame, fill=fill)
    chosen = Selection(reach=model.config.table.encoding.later)
    whole = Windows.cut(Table.read(model.config.table, frame, PLACES, chosen), strict=False)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(frame) - 1), max_size=3), label="cuts"))
    rows, windows, chunks = cut(model, frame, cuts, part_windows=data.draw(st.integers(1, 40), label="part_windows"))
    assert rows["window"].to_list() == whole.table.order[whole.ends].tolist()
    assert windows.tobytes() == whole.take().tobytes()
    counts = [chunk.left_out for chunk in chunks]
    assert sum(each.lost for each in counts) == whole.missing.windows
    assert sum(each.across_gaps for each in counts) == whole.across_gaps
    end = data.draw(st.integers(30, len(frame)), label="rows of the beginning")
    few, begun, _ = cut(model, frame[:end], part_windows=17)
    assert few.select("window", "time").equals(rows.select("window", "time")[: len(few)])
    assert begun.tobytes() == windows[: len(few)].tobytes()


@settings(max_examples=examples(10))
@given(data=st.data())
def test_windows_of_many_series_do_not_depend_on_the_order_of_rows(data):
    """One series after another, or interleaved by time, in any files and parts, each window is in one series."""
    frame = make_rows(data.draw(st.integers(0, 99), label="seed"), shops=("north", "east", "007"))
    model = make(frame, series="shop")
    whole = read_table(model.config.table, frame, PLACES, Selection())
    if data.draw(st.booleans(), label="interleaved"):
        frame = frame.sort("at", maintain_order=True)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(frame) - 1), max_size=3), label="cuts"))
    rows, windows, _ = cut(model, frame, cuts, part_windows=data.draw(st.integers(1, 90), label="part_windows"))
    assert sorted(rows["series"]) == sorted(whole.series)
    for name in ("north", "east", "007"):
        of, there = rows["series"] == name, np.array(whole.series) == name
        assert frame["shop"][rows["window"].to_numpy()[of]].to_list() == [name] * of.sum()
        assert windows[of].tobytes() == whole.take(there).tobytes()
    some, alone, _ = cut(model, frame, series=("east",))
    assert {*some["series"]} == {"east"} and alone.tobytes() == windows[rows["series"] == "east"].tobytes()


def test_the_columns_of_a_wide_table_are_series(tmp_path):
    """A row ends a window of each series; a bad cell is named by its column."""
    hours = [(datetime(2024, 1, 1) + timedelta(hours=hour)).isoformat() for hour in range(40)]
    values = np.random.default_rng(0).normal(size=(3, 40))
    frame = pl.DataFrame({"time": hours, "temp": values[0], "a": values[1], "b": values[2]})
    model = Model.of(make_encoded(frame, Columns(("load",), series=("a", "b"), time="time", ahead=1), LOOKBACK))
    rows, windows, _ = cut(model, frame, (10,), part_windows=15)
    assert rows["series"].to_list() == ["a"] * 37 + ["b"] * 37 and rows["window"].to_list() == 2 * [*range(3, 40)]
    assert windows[37, :, -1].tolist() == values[2, :4].tolist()
    bad = frame.with_columns(b=pl.when(pl.int_range(40) == 20).then(pl.lit("x")).otherwise(pl.col("b").cast(pl.String)))
    rows, _, chunks = cut(model, bad)
    assert len(rows) == 37 + 37 - LOOKBACK
    (rejected,) = [row for chunk in chunks for row in chunk.rejected.rows()]
    assert rejected == ("0.csv", 22, "column b must be a finite number or empty, but is 'x'")
    with pytest.raises(DataError, match=r"^0\.csv, row 22, column b must be a finite number"):
        cut(model, bad, strict=True)


def test_a_row_without_a_place_is_listed(tmp_path):
    """A time that cannot be read, or no name of a series; the windows around it cross a gap."""
    frame = make_rows(0, shops=("north", "east"))
    model = make(frame, series="shop")
    at = pl.int_range(len(frame))
    changed = frame.with_columns(
        time=pl.when(at == 20).then(pl.lit("soon")).otherwise("time"),
        shop=pl.when(at == 100).then(None).otherwise("shop"),
    )
    rows, _, chunks = cut(model, changed)
    rejected = [row for chunk in chunks for row in chunk.rejected.rows()]
    assert ("0.csv", 22, "column time must be a date, as in training, but is 'soon'") in rejected
    assert ("0.csv", 102, "column shop is empty") in rejected
    assert not {*range(20, 20 + LOOKBACK), *range(100, 100 + LOOKBACK)} & set(rows["window"])


@pytest.mark.parametrize("shops", [("",), ("north", "east")])
def test_a_model_without_times_has_gaps_by_the_rhythm_of_the_table(shops):
    """As the library, which finds it in a column of times; without the column, rows stand one after another."""
    frame = make_rows(3, 60, shops=shops).drop_nulls("temp").with_columns(time="at")
    options = {"series": "shop"} if len(shops) > 1 else {}
    columns = Columns(("load",), ("temp",), ahead=1, **options)
    model = Model.of(make_encoded(frame.drop("at", "time", *([] if options else ["shop"])), columns, LOOKBACK))
    whole = read_table(model.config.table, frame, PLACES, Selection())
    rows, windows, _ = cut(model, frame, (20,), part_windows=9)
    assert whole.across_gaps and rows["window"].to_list() == whole.table.order[whole.ends].tolist()
    assert windows.tobytes() == whole.take().tobytes()
