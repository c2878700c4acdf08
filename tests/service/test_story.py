"""A forecaster's year, from a table as people have it to the page that a manager reads.

`tests/examples/load.csv.gz` has texts, local times with an hour that is there twice, gaps, missing temperatures and a
column of notes; what drives its load is known, since `load.py` beside it computes it.
"""

from __future__ import annotations

import json
import re
import runpy
import warnings

import numpy as np
import polars as pl
import pytest
from readmes import README

import kanmodel

ZONE, AHEAD, LOOKBACK = "America/New_York", 24, 24
LATER = 26  # steps to the last forecast, up to which known columns are read
WEEK = 7 * 24


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The names that the first example of the README leaves, the warnings that it gave, and its folder."""
    lines = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1]
    folder, names = tmp_path_factory.mktemp("story"), {}
    (folder / "tests").symlink_to(README.parent / "tests")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as raised:
        patch.chdir(folder)
        warnings.simplefilter("always")
        exec(lines, names)
    return {**names, "folder": folder, "told": " ".join(str(warning.message) for warning in raised)}


@pytest.fixture(scope="module")
def table(story):
    return story["table"]


@pytest.fixture(scope="module")
def models(story, tmp_path_factory):
    """The folder that is served."""
    folder = tmp_path_factory.mktemp("models")
    story["model"].save(folder / "load.safetensors")
    return folder


@pytest.fixture(scope="module")
def model(models):
    return kanmodel.load(models / "load.safetensors")


@pytest.fixture(scope="module")
def week(story):
    return story["week"]


@pytest.fixture(scope="module")
def hours(table):
    """The table in order of time, by polars alone: UTC, of the hour that is there twice the earlier one first."""
    naive = pl.col("time").str.to_datetime("%d.%m.%Y %H:%M")
    again = naive == naive.shift(1)
    ambiguous = pl.when(again).then(pl.lit("latest")).otherwise(pl.lit("earliest"))
    utc = naive.dt.replace_time_zone(ZONE, ambiguous=ambiguous).dt.convert_time_zone("UTC")
    return table.with_columns(utc=utc, local=naive)


def test_the_table_is_what_its_program_makes(table):
    """An hour is there twice, others are missing, and so is one of a hundred temperatures."""
    made = runpy.run_path(str(README.parent / "tests/examples/load.py"))["make_load"]()
    assert made.write_csv() == table.write_csv()
    assert table["time"].is_duplicated().sum() == 2
    assert 0.005 < table["temp_c"].null_count() / len(table) < 0.015


def test_what_is_left_out_is_said_before_the_training(story):
    """The column of notes, and the windows that gaps cost; none for missing temperatures, which are filled."""
    told = story["told"]
    assert "note (869 different texts, more than 64)" in told
    assert "windows are left out" in told and "would cross a gap in time" in told
    assert "temp_c" not in told


def test_the_drivers_of_the_load_are_found(model):
    """Temperature, hour and kind of the day lead, the wind does not matter, and the forecasts beat persistence."""
    rows = model.importance().table("group")
    assert {row["name"] for row in rows[:4]} == {"temp_c", "hour", "daytype", "weekend"}  # which both tell of weekends
    assert {row["name"]: row["verdict"] for row in rows}["wind_ms"] == "negligible"
    assert model.metrics["test_r2"] > model.metrics["persistence_r2"] + 0.2


def test_errors_are_those_of_plain_arithmetic(model, table, hours):
    """MAE, bias and skill, overall and by hour and month, from forecasts and a join of the table with itself."""
    found = model.backtest(table, last="30d")
    rows = pl.DataFrame(found.rows()).with_columns(made=pl.col("time").str.to_datetime("%d.%m.%Y %H:%M"))
    by_step = {name: AHEAD + step for step, name in enumerate(model.outputs)}
    came = hours.select("local", actual_value="load_mw")
    rows = rows.with_columns(local=pl.col("made") + pl.duration(hours=pl.col("output").replace_strict(by_step)))
    rows = rows.join(came, on="local", how="left").join(
        came.rename({"actual_value": "last"}), left_on="made", right_on="local"
    )
    rows = rows.filter(pl.col("actual_value").is_not_null())
    error, before = rows["prediction"] - rows["actual_value"], rows["last"] - rows["actual_value"]
    assert found.metrics.count == len(rows)
    assert found.metrics.mae == pytest.approx(error.abs().mean())
    assert found.metrics.bias == pytest.approx(error.mean())
    assert found.metrics.rmse == pytest.approx((error**2).mean() ** 0.5)
    assert found.metrics.skill == pytest.approx(1 - error.abs().mean() / before.abs().mean())
    of_hours = rows.with_columns(error=error.abs()).group_by(pl.col("local").dt.hour()).agg(pl.col("error").mean())
    for hour, mae in of_hours.iter_rows():
        assert found.by["hour"][hour].mae == pytest.approx(mae)
    of_months = (
        rows.with_columns(error=error.abs()).group_by(pl.col("local").dt.strftime("%Y-%m")).agg(pl.col("error").mean())
    )
    for month, mae in of_months.iter_rows():
        assert found.by["month"][month].mae == pytest.approx(mae)


def test_the_contributions_of_a_week_are_the_forecasts(model, table, week, hours):
    """Each row of the wide table sums to its forecast, beside what came at that time."""
    assert week.outputs == model.outputs
    np.testing.assert_allclose(model.predict(table, last="7d")[:, 0], week[model.outputs[0]].predictions, rtol=1e-6)
    for step, name in enumerate(model.outputs):
        explained = week[name]
        wide = pl.DataFrame(explained.table("group", wide=True))
        total = wide.select(pl.sum_horizontal("baseline_prediction", *explained.parts)).to_series()
        assert explained.converged.all()
        assert ((total - wide["prediction"]).abs() <= explained.residual.max() + 1e-9).all()
        local = wide["time"].str.to_datetime("%d.%m.%Y %H:%M") + pl.duration(hours=AHEAD + step)
        known = dict(hours.select("local", "load_mw").iter_rows())
        assert wide["actual"].fill_nan(None).to_list() == [known.get(time) for time in wide.select(local).to_series()]


def test_a_change_is_divided_among_rows_and_features(model, table):
    """Since the same hour yesterday: what new rows, aged ones and those that are gone add is the change."""
    change = model.changes(table, ago=24)
    (newer, earlier) = model.predict(table, last=25)[[-1, 0], 0]
    assert change.change[0] == pytest.approx(newer - earlier)
    assert (change.new + change.aged + change.gone).sum() == pytest.approx(newer - earlier, abs=change.error[0] + 0.01)
    assert change.converged.all()


def test_the_page_shifts_what_can_be_shifted(model):
    """Temperature, load and wind, but not whether there is school."""
    curves = model.report()["response"].findings[0].evidence["curves"]
    assert [curve["feature"] for curve in curves] == ["temp_c+26", "load_mw", "wind_ms"]


def test_library_http_and_command_line_say_the_same(model, models, table, week, serve, run, tmp_path):
    """Forecasts and contributions of the week, errors, and the report."""
    (tmp_path / "rows.csv").write_text(table.tail(WEEK + LOOKBACK + LATER).write_csv())
    columns = table.select("time", *model.config.encoding.names).tail(WEEK - 1 + LOOKBACK + LATER)
    series = {"series": columns.to_dict(as_series=False), "last": WEEK}
    with serve(models=models) as client:
        forecast = client.post("/v1/models/load:predict", json=series).raise_for_status().json()
        asked = series | {"output": "all", "detail": "flow"}
        explained = client.post("/v1/models/load:explain", json=asked).raise_for_status().json()
        report = client.get("/v1/models/load/report?output=load_mw%2B24").raise_for_status().json()
    assert forecast["times"] == list(week.times)
    np.testing.assert_allclose(forecast["predictions"], model.predict(table, last="7d"), rtol=1e-5)
    for name in model.outputs:
        given = [one["contributions_by_group"] for one in explained["explanations"] if one["output"] == name]
        np.testing.assert_allclose(
            [[one[part]["all steps"] for part in week[name].group_names] for one in given],
            week[name].contributions_by_group,
            atol=week[name].tolerance,
        )
    assert [finding["answer"] for finding in report["findings"]] == [one.answer for one in model.report().findings]
    code, _, error = run("explain", models / "load.safetensors", tmp_path / "rows.csv", "-o", tmp_path / "out")
    assert code == 0, error
    parts = pl.read_parquet(tmp_path / "out" / "*.parquet").sort("window").tail(WEEK)
    np.testing.assert_allclose(parts["prediction"], week[model.outputs[0]].predictions, rtol=1e-6)
    code, printed, _ = run("backtest", models / "load.safetensors", tmp_path / "rows.csv", "--json")
    assert code == 0
    assert json.loads(printed)["metrics"]["mae"] == pytest.approx(
        model.backtest(pl.read_csv(tmp_path / "rows.csv")).metrics.mae
    )
