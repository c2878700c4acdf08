"""Errors over a table are the same from the library, over HTTP and on the command line."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import polars as pl
import pytest
from factories import make_encoded, make_model

from kanmodel import Model, load
from kanmodel.checkpoint import save_checkpoint
from kanmodel.tables.roles import Columns

N_ROWS, AHEAD, ZONE = 400, 3, "Europe/Berlin"
COLUMNS = Columns(("load",), time="at", zone=ZONE, calendar=True, known=("sky",), fill="forward", ahead=AHEAD)


def make_frame():
    """Hours over the end of daylight saving, with a gap and missing values."""
    rng, row = np.random.default_rng(0), np.arange(N_ROWS)
    frame = pd.DataFrame({"at": pd.date_range("2024-10-20", periods=N_ROWS, freq="h", tz=ZONE)})
    frame["load"] = np.where(row % 41 == 7, np.nan, 50 + 10 * np.sin(row / 4) + rng.normal(size=N_ROWS))
    frame["sky"] = rng.choice(["calm", "windy"], N_ROWS)
    return frame.drop(index=[100, 101]).reset_index(drop=True)


FRAME = make_frame()
PLAIN = make_model(targets=("a", "b"), n_reference=60)
SERIES = {
    "at": [time.isoformat() for time in FRAME["at"]],
    "load": [None if np.isnan(value) else value for value in FRAME["load"].tolist()],
    "sky": FRAME["sky"].tolist(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The models, and the table as files."""
    folder = tmp_path_factory.mktemp("models")
    save_checkpoint(make_encoded(FRAME, COLUMNS, horizon=2), folder / "load.safetensors")
    save_checkpoint(PLAIN, folder / "plain.safetensors")
    load(folder / "load.safetensors").calibrate(FRAME).save(folder / "sure.safetensors")
    FRAME.to_csv(folder / "table.csv", index=False)
    pl.DataFrame(FRAME.to_dict(orient="list")).with_columns(
        at=pl.Series(FRAME["at"].dt.tz_convert("UTC").dt.tz_localize(None).to_list())
        .dt.replace_time_zone("UTC")
        .dt.convert_time_zone(ZONE)
    ).write_parquet(folder / "table.parquet")
    return folder


@pytest.fixture(scope="module")
def client(serve, folder):
    with serve(models=folder, max_windows=50) as client:
        yield client


def ask(client, model="load", **body):
    """The answer, or the error."""
    return client.post(f"/v1/models/{model}:backtest", json=body).json()


def agree(one, other):
    """Whether answers are equal, their numbers up to rounding: the service may compute forecasts by ONNX Runtime."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(agree(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(agree, one, other))
    return one == (pytest.approx(other, rel=1e-5, abs=1e-5) if isinstance(other, float) else other)


def test_the_answer_has_the_numbers_of_the_library(client, folder):
    """Each error, and each forecast beside its actual value; more windows than `max_windows` are compared."""
    found = load(folder / "load.safetensors").backtest(FRAME)
    answer = ask(client, series=SERIES, detail="rows")
    assert answer["windows"] == len(found) > 300 and answer["zone"] == ZONE
    assert answer["outputs"] == ["load+3", "load+4"] and answer["target"] == "load"
    parts = [answer["metrics"], *(one for groups in answer["by"].values() for one in groups)]
    table = found.table()
    assert len(parts) == len(table) == 1 + 2 + 24 + 2 + 4
    for one, row in zip(parts, table, strict=True):
        assert all(agree(one[name], row[name]) for name in ("count", "mae", "rmse", "bias", "persistence_mae"))
        assert agree(one["skill"], {"persistence": row["skill"]})
        assert row["by"] == "all" or one[row["by"]] == row["value"]
    assert [one["output"] for one in answer["by"]["horizon"]] == ["load+3", "load+4"]
    assert agree(answer["rows"], found.rows()) and answer["rows"][0]["time"] == "2024-10-20T03:00:00+02:00"
    lost = answer["left_out"]
    assert (lost["across_gaps"], lost["missing"]) == (found.across_gaps, found.missing.windows)
    short = ask(client, series=SERIES, last="2d")
    assert "rows" not in short and short["windows"] == len(load(folder / "load.safetensors").backtest(FRAME, last="2d"))


def test_intervals_are_measured_and_adapted_as_by_the_library(client, folder, run, tmp_path):
    """Coverage by level, over all and by part; an adaptation goes on over HTTP and on the command line."""
    model = load(folder / "sure.safetensors")
    fixed, adapted = model.backtest(FRAME), model.backtest(FRAME, adapt=True)
    answer = ask(client, "sure", series=SERIES, detail="rows")
    for one, errors in zip(answer["coverage"], fixed.metrics.intervals, strict=True):
        assert agree(one, asdict(errors)) and one["covered"] > one["level"] - 0.02
    weeks = list(fixed.by["week"].values())
    assert agree(answer["by"]["week"][0]["coverage"][1], asdict(weeks[0].intervals[1])) and "adaptation" not in answer
    row, expected = answer["rows"][0], fixed.rows()[0]
    assert agree([one["upper"] for one in row["intervals"]], [expected["upper@0.8"], expected["upper@0.95"]])
    found = ask(client, "sure", series=SERIES, adapt=True)
    assert agree(found["adaptation"], dict(adapted.adaptation))
    assert agree(found["coverage"], [asdict(each) for each in adapted.metrics.intervals])
    later = ask(client, "sure", series=SERIES, adaptation=found["adaptation"])
    assert later["adaptation"] == found["adaptation"] and later["coverage"][0]["count"] == 0
    state = tmp_path / "state.json"
    for _ in range(2):
        code, _, error = run("backtest", folder / "sure.safetensors", folder / "table.csv", "--adaptation", state)
        assert code == 0, error
        assert agree(json.loads(state.read_text()) | {"last": None}, adapted.adaptation | {"last": None})
    code, out, _ = run("backtest", folder / "sure.safetensors", folder / "table.csv", "--adapt")
    assert code == 0 and "adapted" in out and "interval 0.95" in out
    state.write_text("[]")
    code, _, error = run("backtest", folder / "sure.safetensors", folder / "table.csv", "--adaptation", state)
    assert code == 2 and "state.json must hold a JSON object" in error
    wrong = client.post(
        "/v1/models/sure:backtest", json={"series": SERIES, "adaptation": found["adaptation"] | {"levels": [0.5]}}
    )
    assert wrong.status_code == 422 and "adaptation.levels must be" in wrong.json()["error"]


def test_an_adaptation_is_predicted_and_explained_with(client, folder, run, tmp_path):
    """As by the library's adapted model, beside forecasts that stay; of another checkpoint it is refused."""
    model = load(folder / "sure.safetensors")
    document = ask(client, "sure", series=SERIES, adapt=True)["adaptation"]
    adapted, series = model.adapt(document), {name: column[:30] for name, column in SERIES.items()}
    expected = adapted.predict(FRAME[:30], last=1, intervals=(0.8,))

    def ask_of(operation, **body):
        return client.post(f"/v1/models/sure:{operation}", json={"series": series, "last": 1} | body).json()

    answers = [ask_of("predict", intervals=[0.8], **more) for more in ({"adaptation": document}, {})]
    np.testing.assert_allclose(answers[0]["intervals"][0]["upper"], expected.upper[0], rtol=1e-5)
    assert answers[0]["predictions"] == answers[1]["predictions"] and answers[0]["intervals"] != answers[1]["intervals"]
    asked = {"output": "load+3:upper@0.8", "receipt": True}
    found, other = (ask_of("explain", **asked, **more) for more in ({"adaptation": document}, {}))
    assert found["explanations"][0]["prediction"] == pytest.approx(expected.upper[0, 0, 0], rel=1e-5)
    assert found["explanations"][0]["prediction"] != other["explanations"][0]["prediction"]
    saved, request = tmp_path / "answer.json", tmp_path / "request.json"
    saved.write_text(json.dumps(found))
    request.write_text(json.dumps({"series": series, "last": 1, "adaptation": document}))
    code, out, error = run("explain", folder / "sure.safetensors", "--receipt", saved, "--input", request)
    assert code == 0 and "agrees" in out, out + error
    for operation in ("predict", "explain"):
        answer = ask_of(operation, output="load+3:upper@0.8") if operation == "explain" else ask_of(operation)
        assert "error" not in answer
        wrong = document | {"checkpoint": "sha256:0"}
        body = {"adaptation": wrong} | ({"output": "load+3"} if operation == "explain" else {})
        assert "adaptation.checkpoint is sha256:0" in ask_of(operation, **body)["error"]


def test_the_command_calibrates_as_the_library(folder, run, tmp_path):
    """Levels as a list; the written checkpoint has them, and a column that is missing is named with the file."""
    out = tmp_path / "out.safetensors"
    words = ("calibrate", folder / "load.safetensors", folder / "table.csv", "-o", out, "--intervals")
    code, text, error = run(*words, "0.5,0.9")
    assert code == 0, error
    assert str(out) in text and "intervals at 0.5, 0.9 (constant), calibrated on" in text
    expected = load(folder / "load.safetensors").calibrate(FRAME, intervals=(0.5, 0.9)).intervals
    np.testing.assert_allclose(load(out).intervals.below, expected.below)
    code, text, _ = run("inspect", out)
    assert code == 0 and "(constant), calibrated on" in text and "(constant)" in repr(load(out))
    code, _, error = run(*words, "x")
    assert code == 2 and "'x' is not levels such as 0.8,0.95" in error
    FRAME.drop(columns="load").to_csv(tmp_path / "short.csv", index=False)
    code, _, error = run("calibrate", folder / "load.safetensors", tmp_path / "short.csv", "-o", out)
    assert code == 2 and "short.csv has no column 'load'" in error


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_the_command_prints_the_same(client, folder, run, name):
    """`--json` prints the answer; without it, the tables of the library."""
    code, out, _ = run("backtest", folder / "load.safetensors", folder / name, "--last", "10d", "--json")
    assert code == 0 and agree(json.loads(out), ask(client, series=SERIES, last="10d"))
    code, out, _ = run("backtest", folder / "load.safetensors", folder / name, "--last", "50")
    shown = repr(load(folder / "load.safetensors").backtest(FRAME, last=50)).splitlines()
    assert [line for line in out.splitlines() if line[:4] != "time"] == [line for line in shown if line[:4] != "time"]


def test_a_target_is_named_where_there_are_several(client):
    """Without a name the first is not taken; a series without times has errors by step alone."""
    rows = {name: [float(row % 5) for row in range(20)] for name in PLAIN.config.feature_names}
    rows |= {"a": [1.0] * 20, "b": [0.0] * 20}
    of_b = {name: column for name, column in rows.items() if name != "a"}
    assert ask(client, "plain", series=of_b)["error"] == "target is missing; the targets are a, b"
    answer = ask(client, "plain", series=of_b, target="b", detail="rows")
    found = Model.of(PLAIN).backtest(rows, "b")
    assert answer["metrics"]["mae"] == pytest.approx(found.metrics.mae) and answer["metrics"]["skill"] == {
        "persistence": None
    }
    assert answer["by"]["hour"] == answer["by"]["month"] == [] and "time" not in answer["rows"][0]
    timed = ask(client, "plain", series=of_b | {"time": SERIES["at"][:20]}, target="b")
    assert [one["month"] for one in timed["by"]["month"]] == ["2024-10"] and timed["metrics"] == answer["metrics"]
    assert asdict(found.metrics)["count"] == answer["metrics"]["count"] == 15


WITHOUT = {name: column for name, column in SERIES.items() if name != "load"}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "series is missing: give the rows of a table"),
        ({"series": [1]}, "series must be an object"),
        ({"series": SERIES, "instances": []}, "instances is unknown"),
        ({"series": WITHOUT}, "series.load is missing"),
        ({"series": SERIES | {"rain": SERIES["load"]}}, "series.rain is unknown"),
        ({"series": {name: column[:6] for name, column in SERIES.items()}}, "series has 6 rows, but needs"),
        ({"series": SERIES | {"load": [None] * len(FRAME)}}, "series has no window to forecast: of 391"),
        ({"series": SERIES | {"load": ["x", *SERIES["load"][1:]]}}, "series.load[0] must be a finite number or empty"),
        ({"series": SERIES, "gaps": "error"}, "series.at[100] must have no gap before it"),
        ({"series": SERIES, "last": "soon"}, "last must be a number of windows, or a duration"),
        ({"series": SERIES, "adapt": True}, "adapt needs intervals, but the model has none"),
        ({"series": SERIES, "target": "b"}, "target is unknown; the targets are load"),
        ({"series": {name: column[::-1] for name, column in SERIES.items()}}, "must be later than"),
    ],
)
def test_what_cannot_be_compared_is_refused(client, body, error):
    """With status 422 and one sentence that names the place."""
    answer = client.post("/v1/models/load:backtest", json=body)
    assert answer.status_code == 422 and error in answer.json()["error"], answer.json()["error"]
