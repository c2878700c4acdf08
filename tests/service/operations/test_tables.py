"""Requests may hold the columns of a table as people have them, for a model that was trained on such a table."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from factories import make_encoded

from kanmodel import Model
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.training.tables import Columns
from service.commands.repeat import repeat

N_ROWS, ROWS = 90, 10
COLUMNS = Columns(
    ("load",), time="time", ahead=3, known=("temp",), calendar=True, fill="linear", max_fill=2, zone="Europe/Berlin"
)


def make_frame():
    """Hours with the end of daylight saving among them."""
    rng = np.random.default_rng(0)
    time = pd.date_range("2023-10-28", periods=N_ROWS, freq="h", tz="Europe/Berlin")
    sky = rng.choice(["clear", "cloudy"], N_ROWS)
    return pd.DataFrame({"time": time, "temp": rng.normal(size=N_ROWS), "sky": sky, "load": rng.normal(size=N_ROWS)})


FRAME = make_frame()


@pytest.fixture(scope="module")
def client(serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_checkpoint(make_encoded(FRAME, COLUMNS), folder / "load.safetensors")
    filled = Columns(("load",), ahead=1, fill="forward")
    save_checkpoint(make_encoded(FRAME[["temp", "load"]], filled), folder / "filled.safetensors")
    with serve(models=folder, max_windows=50) as client:
        client.model = Model(load_checkpoint(folder / "load.safetensors"))
        yield client


def ask(client, operation="predict", model="load", **body):
    return client.post(f"/v1/models/{model}:{operation}", json=body)


def tables_of(frame, ends):
    """The members of a request for windows of `ROWS` rows each."""
    parts = [frame[end - ROWS : end] for end in ends]
    columns = {name: [part[name].astype(object).tolist() for part in parts] for name in ("temp", "sky", "load")}
    return {"columns": columns, "times": [[each.isoformat() for each in part["time"]] for part in parts]}


def test_the_columns_of_a_table_are_forecast_as_in_the_library(client):
    """Predictions and contributions are those of the frame, and of its encoded windows as instances."""
    ends = range(ROWS, N_ROWS, 9)
    body = tables_of(FRAME, ends)
    answer = ask(client, **body)
    assert answer.status_code == 200, answer.text
    answer = answer.json()
    expected = [client.model.predict(FRAME[:end])[0].tolist() for end in ends]
    np.testing.assert_allclose(answer["predictions"], expected, rtol=0, atol=1e-9)
    assert not [each for each in answer["warnings"] if each["code"] == "filled"]
    explained = ask(client, "explain", **body).json()
    contributions = explained["explanations"][0]["contributions_by_group"]
    assert set(contributions) >= {"sky", "temp", "hour", "load"}
    local = [[each[:16] for each in times] for times in body["times"][-1:]]
    last = {name: lists[-1:] for name, lists in body["columns"].items()}
    assert ask(client, columns=last, times=local).json()["predictions"] == answer["predictions"][-1:]
    what_if = ask(client, "whatif", features=["load"], shift={"from": -1, "to": 1}, **body)
    assert what_if.status_code == 200, what_if.text


def test_null_is_filled_and_counted(client):
    """Each column of an instance with filled cells has a warning, in every answer about windows."""
    body = tables_of(FRAME, [40, 50])
    frame = FRAME[:50].copy()
    for row, name in ((46, "load"), (45, "load"), (44, "sky"), (47, "temp")):
        body["columns"][name][1][row - 40] = None
        frame.loc[row, name] = None
    for operation in ("predict", "explain"):
        answer = ask(client, operation, **body).json()
        assert answer["predictions"][1][0] == pytest.approx(client.model.predict(frame)[0, 0], abs=1e-9)
        filled = [each for each in answer["warnings"] if each["code"] == "filled"]
        assert [(each["instance"], each["column"], each["count"]) for each in filled] == [
            (1, "temp", 1),
            (1, "sky", 1),
            (1, "load", 2),
        ]
        assert filled[2]["message"] == "2 cells of load without a value were filled"


def test_a_receipt_of_tables_repeats(client, tmp_path, capsys):
    """It is of the encoded windows, which the same body gives again."""
    body = tables_of(FRAME, [40])
    answer = ask(client, "explain", receipt=True, **body)
    (tmp_path / "answer.json").write_bytes(answer.content)
    (tmp_path / "body.json").write_bytes(answer.request.content)
    save_checkpoint(client.model.loaded, tmp_path / "m.safetensors")
    repeat(tmp_path / "answer.json", tmp_path / "body.json", tmp_path / "m.safetensors", True)
    assert '"agrees": true' in capsys.readouterr().out


def test_a_model_that_fills_alone_needs_no_times(client):
    """Its columns have the names of its features, of which null is filled; without null nothing is different."""
    columns = {"temp": [[1.0, None, 2.0, 3.0]], "load": [[4.0, 5.0, 6.0, 7.0]]}
    answer = ask(client, model="filled", columns=columns)
    assert answer.status_code == 200, answer.text


def test_the_document_of_a_model_lists_the_columns(client):
    """With levels, calendar, zone and the number of rows; a model of plain columns has no such member."""
    table = client.get("/v1/models/load").json()["table"]
    assert table == {
        "columns": [
            {"name": "temp", "levels": [], "later": 3, "features": ["temp+3"]},
            {"name": "sky", "levels": ["clear", "cloudy"], "later": 0, "features": ["sky=clear", "sky=cloudy"]},
            {"name": "load", "levels": [], "later": 0, "features": ["load"]},
        ],
        "rows": 4 + 3,
        "max_rows": 4 + 3 + 3,
        "calendar": ["hour", "weekday", "day_of_year", "weekend"],
        "holidays": None,
        "zone": "Europe/Berlin",
        "fill": "linear",
        "max_fill": 2,
    }


def spoil(name, row, value):
    def change(body):
        of = body["times"] if name == "times" else body["columns"][name]
        of[1][row] = value

    return change


def stop_early(body):
    for lists in (*body["columns"].values(), body["times"]):
        del lists[1][-4:]


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        (spoil("sky", 5, "foggy"), "columns.sky[1][5]", "has the unknown level 'foggy'; the levels are clear, cloudy"),
        (spoil("load", 5, "much"), "columns.load[1][5]", "must be a finite number or empty, but is 'much'"),
        (spoil("load", 5, [1]), "columns.load[1][5]", "must be a number, a string, a boolean or null"),
        (spoil("temp", 9, None), "columns.temp[1][6]", "must be known 3 rows later, but is empty there"),
        (spoil("times", 5, "noon"), "data row 6, column times[1]", "must be a time in ISO 8601"),
        (spoil("times", 9, "2023-10-31T00:00+01:00"), "times[1]", "must have no gap in the window's 7 rows"),
        (lambda body: body.pop("times"), "times[0]", "is missing: the times of the rows"),
        (lambda body: body["columns"].pop("sky"), "columns.sky", "is missing"),
        (lambda body: body["columns"].update(wind=[[1], [1]]), "columns.wind", "is unknown; the columns are temp, sky"),
        (lambda body: body["columns"]["sky"].pop(), "columns.sky", "must be a list of instances, as many as"),
        (lambda body: body["columns"]["sky"][1].pop(), "columns.sky[1]", "must have 10 rows, as columns.temp has, but"),
        (lambda body: body["columns"].update(temp=None), "columns.temp", "must be a list of instances"),
        (lambda body: body["columns"]["temp"][0].append(1), "columns.temp[0]", "must be a list of at most 10 rows"),
        (lambda body: body["times"].pop(), "times", "must be a list of instances, as many as the other columns"),
        (stop_early, "columns.temp[1]", "has 6 rows, but needs the 4 steps of a window, and the 3 after it"),
        (lambda body: body["columns"].update({name: [] for name in body["columns"]}), "columns.temp", "1 to 50 inst"),
    ],
)
def test_each_damage_has_its_place(client, change, path, message):
    """The error names the cell, and what must be there."""
    body = tables_of(FRAME, [40, 50])
    change(body)
    answer = ask(client, **body)
    assert answer.status_code == 422
    assert message in answer.json()["error"] and answer.json()["errors"][0]["path"] == path


def test_a_gap_that_is_too_long_is_not_filled(client):
    """Three cells without a value are more than two."""
    body = tables_of(FRAME, [50])
    body["columns"]["load"][0][3:6] = [None] * 3
    answer = ask(client, **body)
    assert (
        answer.status_code == 422 and "is empty and cannot be filled: there are more than 2" in answer.json()["error"]
    )


def test_times_go_with_columns_alone(client, service):
    """They are refused beside instances, and by a model whose features are columns as they stand."""
    windows = np.zeros((1, 4, len(client.model.features))).tolist()
    for answer in (
        ask(client, instances=windows, times=[["2024-01-01"]]),
        service.post("/v1/models/two:predict", {"columns": {}, "times": [[1]]}),
    ):
        assert answer.status_code == 422 and answer.json()["errors"][0]["path"] == "times"
    assert ask(client, instances=windows).status_code == 200


def test_the_largest_request_of_tables_is_within_the_limits(client):
    """As many windows as may be, each of the most rows, with a time in every row."""
    time = [(datetime(2024, 1, 1) + timedelta(hours=hour)).isoformat() for hour in range(ROWS)]
    columns = {"temp": [[0.5] * ROWS] * 50, "sky": [["cloudy"] * ROWS] * 50, "load": [[0.25] * ROWS] * 50}
    answer = ask(client, columns=columns, times=[time] * 50)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["predictions"]) == 50
