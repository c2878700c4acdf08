"""Requests may hold the rows of a table once, as a series, from which the windows are cut."""

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import pandas as pd
import pytest
from factories import columns_of, make_encoded, make_model, make_windows
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel import DataError, Model
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.roles import Columns
from service.commands.repeat import repeat

N_ROWS = 90
COLUMNS = Columns(
    ("load",), time="time", ahead=3, known=("temp",), calendar=True, fill="linear", max_fill=2, zone="Europe/Berlin"
)
OPERATIONS = {
    "predict": {},
    "explain": {"output": "all", "detail": "steps", "receipt": True},
    "whatif": {"output": "b+1", "features": ["f1"], "shift": {"from": -1, "to": 1}},
    "counterfactual": {"output": "a+1", "target": {"at_least": 0.0}, "max_features": 1},
    "ablate": {"output": "a+1", "fidelity": 0.9},
    "compare": {"output": "a+1", "against": {"version": "1"}},
}


def make_frame():
    """Hours with the end of daylight saving among them."""
    rng = np.random.default_rng(0)
    time = pd.date_range("2023-10-28", periods=N_ROWS, freq="h", tz="Europe/Berlin")
    sky = rng.choice(["clear", "cloudy"], N_ROWS)
    return pd.DataFrame({"time": time, "temp": rng.normal(size=N_ROWS), "sky": sky, "load": rng.normal(size=N_ROWS)})


FRAME = make_frame()
PLAIN = make_model(targets=("a", "b"), n_reference=60)
NAMES, LOOKBACK = PLAIN.config.feature_names, PLAIN.config.lookback
ROWS = make_windows(PLAIN, 8).reshape(-1, len(NAMES))  # 48


@pytest.fixture(scope="module")
def client(serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_checkpoint(make_encoded(FRAME, COLUMNS), folder / "load.safetensors")
    filled = Columns(("load",), ahead=1, fill="forward")
    save_checkpoint(make_encoded(FRAME[["temp", "load"]], filled), folder / "filled.safetensors")
    save_checkpoint(PLAIN, folder / "plain.safetensors")
    hourly = PLAIN.with_config(replace(PLAIN.config, time=TimeColumn("hour", 3600.0, 1.5, True)))
    save_checkpoint(hourly, folder / "hourly.safetensors")
    with serve(models=folder, max_windows=100) as client:
        client.model = Model.of(load_checkpoint(folder / "load.safetensors"))
        client.hourly = Model.of(load_checkpoint(folder / "hourly.safetensors"))
        yield client


def ask(client, operation="predict", model="load", **body):
    return client.post(f"/v1/models/{model}:{operation}", json=body)


def series_of(frame):
    """The columns of a frame, with times in ISO 8601."""
    return columns_of(frame) | {"time": [each.isoformat() for each in frame["time"]]}


def plain_series(rows=ROWS):
    return {name: rows[:, number].tolist() for number, name in enumerate(NAMES)}


def cut(rows, n=None):
    windows = np.stack([rows[first : first + LOOKBACK] for first in range(len(rows) - LOOKBACK + 1)])
    return windows[-n:] if n else windows


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_series_is_answered_as_its_windows(client, operation):
    """Every operation answers the same to the bit, and states the time of each window where the rows have times."""
    members = OPERATIONS[operation]
    expected = ask(client, operation, "plain", instances=cut(ROWS, 9).tolist(), **members)
    found = ask(client, operation, "plain", series=plain_series(), last=9, **members)
    assert found.status_code == expected.status_code == 200, (found.text, expected.text)
    assert found.json() == expected.json()
    times = [(datetime(2024, 3, 1) + timedelta(hours=row)).isoformat() for row in range(len(ROWS))]
    timed = ask(client, operation, "plain", series={"time": times, **plain_series()}, last=9, **members).json()
    assert timed.pop("times") == times[-9:]
    assert timed == expected.json()


def test_a_whole_number_may_have_a_decimal_point(client):
    """As JSON Schema says of 2.0, and as some libraries write it."""
    series = series_of(FRAME)
    assert ask(client, series=series, last=2.0).json() == ask(client, series=series, last=2).json()
    asked = {"instances": cut(ROWS, 1).tolist(), "output": "a+1", "features": ["f1"]}
    shifts = [{"from": 0, "to": 1, "points": points} for points in (3, 3.0)]
    found = [ask(client, "whatif", "plain", **asked, shift=shift) for shift in shifts]
    assert found[0].json() == found[1].json() and found[1].status_code == 200, found[1].text


def test_both_sides_of_a_comparison_may_be_series(client):
    """They are compared as their windows are, and have times of their own; another number of windows is refused."""
    other = ROWS + 1
    sides = ({"instances": cut(ROWS, 5).tolist()}, {"instances": cut(other, 5).tolist()})
    expected = ask(client, "compare", "plain", output="a+1", **sides[0], against=sides[1]).json()
    against = {"series": {"time": [*range(len(ROWS))], **plain_series(other)}, "last": 5}
    found = ask(client, "compare", "plain", output="a+1", series=plain_series(), last=5, against=against).json()
    assert found["against"].pop("times") == [str(row) for row in range(len(ROWS))][-5:]
    assert found == expected
    for members, path, message in (
        ({"last": 4}, "against.series", "must have 5 windows, as the request has, but has 4"),
        ({"last": "soon"}, "against.last", "must be a number of windows, or a duration such as 7d"),
        ({"series": {**against["series"], "f1": [None] * len(ROWS)}}, "against.series.f1[38]", "is empty"),
        ({"instances": [[[0.0]]]}, "against.instances", "and series are both given: give one"),
        ({"series": None}, "against.last", "must be given only with a series"),
        ({"series": None, "last": None, "gaps": "skip"}, "against.gaps", "must be given only with a series"),
    ):
        refused = ask(
            client, "compare", "plain", output="a+1", series=plain_series(), last=5, against=against | members
        )
        assert refused.status_code == 422 and refused.json()["errors"][0]["path"] == path, refused.text
        assert message in refused.json()["error"]


def test_an_explanation_is_streamed_with_its_times(client):
    """The first line of NDJSON has the times, and the others the explanations of the windows."""
    members = {"series": {"hour": [*FRAME["time"].map(str)][: len(ROWS)], **plain_series()}, "output": ["b+1", "a+1"]}
    answer = ask(client, "explain", "hourly", **members)
    lines = client.post(
        "/v1/models/hourly:explain", json=members, headers={"Accept": "application/x-ndjson"}
    ).text.splitlines()
    whole = answer.json()
    explanations = whole.pop("explanations")
    decoded = [json.loads(line) for line in lines]
    assert decoded[0]["times"] == whole["times"] == members["series"]["hour"][LOOKBACK - 1 :]
    assert len(decoded) == 1 + len(explanations) == 1 + 2 * (len(ROWS) - LOOKBACK + 1)
    assert [one["output"] for one in explanations[:2]] == ["b+1", "a+1"]


def test_all_outputs_are_explained_in_one_answer(client):
    """`all` is the list of all of them, in the order of the model."""
    one = {"instances": cut(ROWS, 2).tolist()}
    answers = [ask(client, "explain", "plain", output=output, **one).json() for output in ("all", ["a+1", "b+1"])]
    assert answers[0]["output"] == ["a+1", "b+1"] and answers[0] == answers[1]


@settings(max_examples=examples(40), deadline=None)
@given(
    n_rows=st.integers(LOOKBACK, len(ROWS)),
    gaps=st.sets(st.integers(1, len(ROWS) - 1), max_size=4),
    last=st.one_of(st.none(), st.integers(1, len(ROWS)), st.integers(1, 60).map("{}h".format)),
)
def test_windows_are_those_of_the_library(client, n_rows, gaps, last):
    """Of any rows, gaps and `last`, forecasts and times are those of the data frame, and so are the refusals."""
    hours = np.cumsum([2 if row in gaps else 1 for row in range(n_rows)])
    times = [(datetime(2024, 3, 1) + timedelta(hours=int(hour))).isoformat() for hour in hours]
    series, frame = {"hour": times, **plain_series(ROWS[:n_rows])}, pd.DataFrame(ROWS[:n_rows], columns=NAMES)
    frame["hour"] = pd.to_datetime(times)
    options = {} if last is None else {"last": last}
    for how in ("error", "skip"):
        answer = ask(client, "predict", "hourly", series=series, gaps=how, **options)
        try:
            explained = client.hourly.explain(frame, last=last or n_rows - LOOKBACK + 1, gaps=how, detail="features")
        except DataError as error:
            assert answer.status_code == 422
            expected = re.sub(r"^windows\['hour'\], row (\d+)", r"series.hour[\1]", str(error))
            assert answer.json()["error"] == re.sub("^windows", "series", expected)
            continue
        assert answer.status_code == 200, answer.text
        assert answer.json()["times"] == list(explained.times)
        np.testing.assert_allclose(answer.json()["predictions"], client.hourly.predict(explained.windows), rtol=1e-5)
        n_asked = {int: last, type(None): n_rows - LOOKBACK + 1}.get(type(last))
        if n_asked is not None:
            assert answer.json().get("windows_omitted", 0) == n_asked - len(explained)


def test_the_columns_of_a_table_are_forecast_as_in_the_library(client):
    """Texts, a calendar and known columns become the features of the frame."""
    answer = ask(client, series=series_of(FRAME), last=30)
    assert answer.status_code == 200, answer.text
    answer = answer.json()
    explained = client.model.explain(FRAME, last=30, detail="features")
    np.testing.assert_allclose(answer["predictions"], client.model.predict(FRAME, last=30), rtol=1e-5)
    assert answer["times"] == [time.replace(" ", "T") for time in explained.times]
    assert not [each for each in answer["warnings"] if each["code"] == "filled"]
    contributions = ask(client, "explain", series=series_of(FRAME), last=1).json()["explanations"][0]
    assert set(contributions["contributions_by_group"]) >= {"sky", "temp", "hour", "load"}
    local = series_of(FRAME) | {"time": [each.isoformat()[:16] for each in FRAME["time"]]}
    assert ask(client, series=local, last=30).json()["predictions"] == answer["predictions"]


def test_null_is_filled_and_counted(client):
    """Each instance that reads filled cells has a warning for their column, in every answer about windows."""
    frame = FRAME[:50].copy()
    for row, name in ((43, "load"), (44, "load"), (45, "sky"), (47, "temp")):
        frame.loc[row, name] = None
    for operation in ("predict", "explain", "ablate"):
        answer = ask(client, operation, series=series_of(frame), last=3).json()
        filled = [each for each in answer["warnings"] if each["code"] == "filled"]
        assert [(each["instance"], each["column"], each["count"]) for each in filled] == [
            *[(0, "temp", 1), (0, "load", 2)],
            *[(1, "temp", 1), (1, "sky", 1), (1, "load", 2)],
            *[(2, "temp", 1), (2, "sky", 1), (2, "load", 2)],
        ]
        assert filled[1]["message"] == "2 cells of load without a value were filled"
    answer = ask(client, series=series_of(frame), last=3).json()
    np.testing.assert_allclose(answer["predictions"], client.model.predict(frame, last=3), rtol=1e-5)


def test_filled_cells_beyond_those_listed_are_counted(client):
    """Of more than a hundred warnings the others are counted; here each window reads filled cells of two columns."""
    frame = FRAME.copy()
    frame.loc[2:86:2, "load"] = None
    frame.loc[5:88:2, "temp"] = None
    answer = ask(client, series=series_of(frame)).json()
    assert len(answer["warnings"]) == 100
    assert answer["warnings_omitted"] == 2 * len(answer["predictions"]) - 100


def test_a_value_outside_the_training_range_is_a_warning_of_each_window_with_it(client):
    """It has the instance and the step."""
    low, high = PLAIN.feature_low[2], PLAIN.feature_high[2]
    rows = np.tile((PLAIN.feature_low + PLAIN.feature_high) / 2, (20, 1))
    rows[9, 2] = high + (high - low)
    answer = ask(client, model="plain", series=plain_series(rows)).json()
    found = [(each["instance"], each["step"]) for each in answer["warnings"]]
    assert found == [(9 - LOOKBACK + 1 + age, -age) for age in range(LOOKBACK)]


def test_a_receipt_of_a_series_repeats(client, tmp_path, capsys):
    """It is of the windows, which the same body gives again."""
    answer = ask(client, "explain", receipt=True, series=series_of(FRAME), last=2, gaps="skip")
    (tmp_path / "answer.json").write_bytes(answer.content)
    (tmp_path / "body.json").write_bytes(answer.request.content)
    save_checkpoint(client.model, tmp_path / "m.safetensors")
    repeat(tmp_path / "answer.json", tmp_path / "body.json", tmp_path / "m.safetensors", True)
    assert '"agrees": true' in capsys.readouterr().out


def test_a_gap_leaves_out_the_windows_that_need_rows_of_both_sides(client):
    """Also those whose known columns are taken across it; they are counted."""
    frame = FRAME.drop(index=[50]).reset_index(drop=True)
    answer = ask(client, series=series_of(frame), gaps="skip").json()
    assert answer["windows_omitted"] == 4 + 3 - 1
    assert len(answer["predictions"]) == 90 - 1 - (4 + 3 - 1) - answer["windows_omitted"]
    refused = ask(client, series=series_of(frame)).json()
    assert refused["errors"][0]["path"] == "series.time[50]"
    assert "must have no gap before it, but goes from 2023-10-30T00:00:00+01:00 to 2023-10-30T02" in refused["error"]


def test_a_model_that_fills_alone_needs_no_times(client):
    """Its columns have the names of its features, of which null is filled."""
    series = {"temp": [1.0, None, 2.0, 3.0], "load": [4.0, 5.0, 6.0, 7.0]}
    answer = ask(client, model="filled", series=series)
    assert answer.status_code == 200 and "times" not in answer.json(), answer.text


def test_the_document_of_a_model_lists_the_columns(client):
    """With levels, calendar, zone and the number of rows; a model of plain columns has no such member."""
    document = client.get("/v1/models/load").json()
    assert document["table"] == {
        "columns": [
            {"name": "temp", "levels": [], "later": 3, "features": ["temp+3"]},
            {"name": "sky", "levels": ["clear", "cloudy"], "later": 0, "features": ["sky=clear", "sky=cloudy"]},
            {"name": "load", "levels": [], "later": 0, "features": ["load"]},
        ],
        "rows": 4 + 3,
        "calendar": ["hour", "weekday", "day_of_year", "weekend"],
        "holidays": None,
        "step": "1 hour",
        "zone": "Europe/Berlin",
        "fill": "linear",
        "max_fill": 2,
    }
    assert document["time"] == {"name": "time", "step": 3600, "max_step": 1.5, "dated": True}
    assert not client.get("/v1/models/plain").json().keys() & {"table", "time"}


def spoil(name, row, value):
    def change(body):
        body["series"][name][row] = value

    return change


def empty(name, first):
    def change(body):
        body["series"][name][first:] = [None] * (N_ROWS - first)

    return change


def shorten(n):
    def change(body):
        for cells in body["series"].values():
            del cells[n:]

    return change


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        (spoil("sky", 55, "foggy"), "series.sky[55]", "has the unknown level 'foggy'; the levels are clear, cloudy"),
        (spoil("load", 55, "much"), "series.load[55]", "must be a finite number or empty, but is 'much'"),
        (spoil("load", 55, [1]), "series.load[55]", "must be a number, a string, a boolean or null, but is a list"),
        (spoil("sky", 55, {"a": 1}), "series.sky[55]", "must be a number, a string, a boolean or null, but is an obj"),
        (empty("temp", 87), "series.temp[84]", "is empty 3 rows later and cannot be filled: there are"),
        (spoil("load", 0, None), "series.load[0]", "is empty and cannot be filled"),
        (spoil("time", 55, "noon"), "series.time[55]", "must be a time in ISO 8601 or as 31.12.2023 23:00"),
        (spoil("time", 55, 1), "series.time[55]", "must be a date as above, but is 1"),
        (spoil("time", 55, None), "series.time[55]", "must be a string or a number, but is null"),
        (spoil("time", 55, "2023-10-29T00:00+02:00"), "series.time[55]", "must be later than 2023-10-30T05:00:00+01:0"),
        (spoil("time", 55, "2023-10-30T05:00+01:00"), "series.time[55]", "must not repeat a time, but has 2023-10-30T"),
        (spoil("time", 89, "2023-11-30T00:00+01:00"), "series.time[89]", "must have no gap before it, but goes from"),
        (lambda body: body["series"].update(time=[*range(90)]), "series.time", "must hold dates, as in training"),
        (lambda body: body["series"].pop("time"), "series.time", "is missing: the times of the rows"),
        (lambda body: body["series"].pop("sky"), "series.sky", "is missing"),
        (lambda body: body["series"].update(wind=[1]), "series.wind", "is unknown; the columns are time, temp, sky"),
        (lambda body: body["series"]["sky"].pop(), "series.sky", "must have 90 cells, as time has, but has 89"),
        (lambda body: body["series"].update(load=None), "series.load", "must be a list of cells, but is null"),
        (lambda body: body["series"].update(load=3), "series.load", "must be a list of cells, but is a number"),
        (lambda body: body.update(series=[1]), "series", "must be an object with a list of cells for each column"),
        (lambda body: body.update(series=None), "instances", "is missing: give instances, columns or a series"),
        (lambda body: body.update(columns={"load": []}), "columns", "and series are both given: give one"),
        (lambda body: body.update(series={"time": ["x"] * 107} | {n: [0] * 107 for n in ("temp", "sky", "load")}),
         "series.time", "must have 1 to 106 cells (max_windows, max_body_bytes), but has 107"),
        (shorten(6), "series", "has 6 rows, but needs the 4 steps of a window, and the 3 after it, of which known"),
        (shorten(0), "series.time", "must have 1 to 106 cells (max_windows, max_body_bytes), but has 0"),
        (lambda body: body.update(last=85), "series", "has 90 rows, but needs 88 for 85 windows, and the 3 after them"),
        (lambda body: body.update(last=0), "last", "must be a whole number from 1"),
        (lambda body: body.update(last=True), "last", "must be a number of windows, or a duration, but is a boolean"),
        (lambda body: body.update(last=1.5), "last", "must be a number of windows, or a duration, but is 1.5"),
        (lambda body: body.update(last="soon"), "last", "must be a number of windows, or a duration such as 7d"),
        (lambda body: body.update(gaps="fill"), "gaps", "must be 'error' or 'skip'"),
        (lambda body: body.update(instances=[0], **{"series": 0}), "instances", "and series are both given"),
    ],
)  # fmt: skip
def test_each_damage_has_its_place(client, change, path, message):
    """The error names the cell or the option, and what must be there."""
    body = {"series": series_of(FRAME)}
    change(body)
    answer = ask(client, **body)
    assert answer.status_code == 422
    assert message in answer.json()["error"] and answer.json()["errors"][0]["path"] == path, answer.text


@pytest.mark.parametrize("option", [{"last": 1}, {"gaps": "skip"}])
def test_options_of_a_series_need_one(client, option):
    """They say nothing about windows that are given as such."""
    answer = ask(client, model="plain", instances=cut(ROWS, 1).tolist(), **option)
    assert answer.status_code == 422 and "must be given only with a series" in answer.json()["error"]


def test_a_feature_may_be_called_time(serve, tmp_path):
    """A series then has a column of that name, and no times unless the model knows their column."""
    features = (replace(PLAIN.config.features[0], name="time"), *PLAIN.config.features[1:])
    save_checkpoint(PLAIN.with_config(replace(PLAIN.config, features=features)), tmp_path / "m.safetensors")
    series = plain_series()
    series["time"] = series.pop("f0")
    with serve(models=tmp_path) as client:
        answer = partial(ask, client, "predict", "m")
        assert answer(series=series).json()["predictions"] == answer(instances=cut(ROWS).tolist()).json()["predictions"]
        assert "times" not in answer(series=series).json()


def test_the_memory_of_windows_is_bounded(serve, tmp_path):
    """A small body of many windows counts as these, and has no more than a body of instances could."""
    save_checkpoint(PLAIN, tmp_path / "m.safetensors")
    series = {name: [0] * 5004 for name in NAMES}
    with serve(models=tmp_path, max_work_bytes=1 << 20, max_windows=6000) as client:
        refused = ask(client, "predict", "m", series=series)
        assert refused.status_code == 422 and refused.json()["code"] == "limit_exceeded"
        assert refused.json()["error"].endswith(" MB of memory, of at most 1.0 MB (max_work_bytes)")
        assert ask(client, "predict", "m", series={name: [0] * 1000 for name in NAMES}).status_code == 200
    with serve(models=tmp_path, max_body_bytes=50_000) as client:
        n = 50_000 // (2 * LOOKBACK * len(NAMES)) + LOOKBACK - 1
        accepted = {name: [0] * n for name in NAMES}
        assert ask(client, "predict", "m", series=accepted).status_code == 200
        refused = ask(client, "predict", "m", series=series).json()
        assert refused["error"] == f"series.f0 must have 1 to {n} cells (max_windows, max_body_bytes), but has 5004"


def test_the_windows_of_a_series_are_echoed(client):
    """With `echo` the answer has the windows as they are read, which alone give the same forecasts."""
    series = dict(zip(NAMES, ROWS.T.tolist(), strict=True))
    asked = client.post("/v1/models/plain:predict", json={"series": series, "last": 2, "echo": True}).json()
    np.testing.assert_array_equal(asked["instances"], [ROWS[-LOOKBACK - 1 : -1], ROWS[-LOOKBACK:]])
    again = client.post("/v1/models/plain:predict", json={"instances": asked["instances"]}).json()
    np.testing.assert_allclose(again["predictions"], asked["predictions"], rtol=1e-12)
    assert "instances" not in again


def test_a_column_of_levels_is_set_as_a_whole(client):
    """By its name in the table, with one level set and the others unset; what cannot be is refused by its place."""
    path, body = "/v1/models/load", {"series": series_of(FRAME), "output": "load+3", "last": 1}
    answer = client.post(f"{path}:whatif", json={**body, "features": ["sky", "sky=cloudy"]}).json()
    whole, one = answer["curves"][0]
    assert whole["kind"] == one["kind"] == "level" and whole["levels"] == one["levels"] == ["clear", "cloudy"]
    assert (whole["values"], one["values"]) == ([0.0, 1.0], [1.0])
    assert whole["predictions"][1:] == pytest.approx(one["predictions"])
    target = {"between": [2 * whole["predictions"][0] - 1e-9, 2 * whole["predictions"][0] + 1e-9]}
    answer = client.post(f"{path}:counterfactual", json={**body, "features": ["sky"], "target": target}).json()
    (found,) = answer["counterfactuals"]
    names = [single["feature"] for single in found["single_features"]]
    assert names == ["sky=clear", "sky=cloudy"] and found["single_features"][0]["label"] == "sky clear"
    assert all((one["feature"], one["shift"]) == ("sky", None) for one in found["changes"])
    assert all({one["level"], one["level_before"]} == {"clear", "cloudy"} for one in found["changes"])
    places = [client.model.config.feature_names.index(name) for name in names]
    assert {tuple(row) for row in np.array(found["instance"])[:, places].tolist()} <= {(1.0, 0.0), (0.0, 1.0)}
    for question, name, says in (
        ("whatif", "sky=fog", "features[0] is unknown: 'sky=fog'; the levels of sky are clear, cloudy"),
        ("whatif", "hour_cos", "features[0] is 'hour_cos', a part of hour, which changes as a whole: name that"),
        ("counterfactual", "hour_sin", "features[0] is 'hour_sin', a part of hour, which changes as a whole: name"),
    ):
        asked = {**body, "features": [name]} | ({} if question == "whatif" else {"target": target})
        refused = client.post(f"{path}:{question}", json=asked)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_value")
        assert refused.json()["error"].startswith(says)


def test_values_are_told_in_the_terms_of_the_table(client):
    """A client decodes and encodes windows by `inputs` alone, and `values` says the same of the newest step."""
    described = client.get("/v1/models/load").json()
    inputs, names = described["inputs"], [feature["name"] for feature in described["features"]]
    assert [name for one in inputs for name in one["features"]] == names
    assert [(one["name"], one["kind"], one["label"]) for one in inputs][:4] == [
        ("temp", "number", "temp 3 hours later"),
        ("sky", "level", "sky"),
        ("load", "number", "load"),
        ("hour", "hour", "hour"),
    ]
    body = {"series": series_of(FRAME), "last": 3}
    windows = np.array(client.post("/v1/models/load:predict", json={**body, "echo": True}).json()["instances"])
    answer = client.post("/v1/models/load:explain", json=body).json()
    for window, values, time in zip(windows, answer["values"], answer["times"], strict=True):
        told = {one["input"]: one for one in values}
        assert told["hour"]["text"] == f"{pd.Timestamp(time) + pd.Timedelta(3, 'h'):%H:%M}"
        for one in inputs:
            own, value = [window[-1][names.index(name)] for name in one["features"]], told[one["name"]]["value"]
            if one["period"]:
                phase = np.arctan2(own[0], own[1]) / (2 * np.pi) % 1
                assert abs((one["period"] * phase + one["offset"] - value + 1) % one["period"] - 1) < 1
                angle = 2 * np.pi * (value - one["offset"]) / one["period"]
                assert [np.sin(angle), np.cos(angle)] == pytest.approx(own, abs=0.02)
            else:
                expected = own.index(1.0) if one["kind"] == "level" else own[0]
                assert value == pytest.approx(expected)
            if one["levels"]:
                assert told[one["name"]]["text"] == one["levels"][round(value)]
    window = client.get("/v1/models/load/reference/0").json()
    assert [one["input"] for one in window["values"]] == [one["name"] for one in inputs]
    (curve,) = client.post("/v1/models/load:whatif", json={**body, "last": 1, "features": ["hour"]}).json()["curves"][0]
    assert curve["levels"] == next(one["levels"] for one in inputs if one["name"] == "hour")
    assert curve["values"] == list(range(24)) and len(curve["predictions"]) == 24
