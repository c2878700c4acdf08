"""Windows are cut from the rows of a table as every other operation on windows cuts them, with what came after them."""

import numpy as np
import pandas as pd
import pytest
from factories import columns_of, make_encoded, make_model

from kanmodel import load
from kanmodel.checkpoint import save_checkpoint
from kanmodel.tables.roles import Columns

N_ROWS, AHEAD, ZONE = 120, 3, "Europe/Berlin"
COLUMNS = Columns(("load",), time="at", zone=ZONE, calendar=True, known=("sky",), fill="forward", ahead=AHEAD)
rng, row = np.random.default_rng(0), np.arange(N_ROWS)
FRAME = pd.DataFrame({"at": pd.date_range("2024-10-26", periods=N_ROWS, freq="h", tz=ZONE)})
FRAME["load"] = np.where(row % 41 == 7, np.nan, 50 + 10 * np.sin(row / 4) + rng.normal(size=N_ROWS))
FRAME["sky"] = rng.choice(["calm", "windy"], N_ROWS)
FRAME = FRAME.drop(index=[60, 61, 62]).reset_index(drop=True)
PLAIN = make_model(targets=("a", "b"), n_reference=60)
ROWS = np.random.default_rng(1).normal(size=(20, 4)).round(3)
PLAIN_SERIES = {f"f{number}": ROWS[:, number].tolist() for number in range(4)}


def series_of(frame):
    return columns_of(frame) | {"at": [each.isoformat() for each in frame["at"]]}


SERIES = series_of(FRAME)


@pytest.fixture(scope="module")
def client(serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_checkpoint(make_encoded(FRAME, COLUMNS, horizon=2), folder / "load.safetensors")
    save_checkpoint(PLAIN, folder / "plain.safetensors")
    with serve(models=folder) as client:
        client.model = load(folder / "load.safetensors")
        yield client


def ask(client, operation="windows", model="load", **body):
    return client.post(f"/v1/models/{model}:{operation}", json=body).json()


def test_they_are_those_that_are_forecast(client):
    """:predict of the series and of the instances has the same bits; times, omitted windows and warnings agree."""
    found = ask(client, series=SERIES, gaps="skip")
    asked = ask(client, "predict", series=SERIES, gaps="skip", echo=True)
    assert found["instances"] == asked["instances"] and len(found["instances"]) > 90
    assert ask(client, "predict", instances=found["instances"])["predictions"] == asked["predictions"]
    for name in ("times", "windows_omitted", "warnings", "warnings_omitted"):
        assert found.get(name) == asked.get(name)
    assert [SERIES["at"][end] for end in found["ends"]] == found["times"]
    assert found["left_out"]["across_gaps"] == found["windows_omitted"] > 0


def test_what_came_is_as_of_the_backtest(client):
    """By output, null beyond the table's end and where it is missing; without the target's column it is absent."""
    found = ask(client, series=SERIES, gaps="skip", echo=False)
    rows = ask(client, "backtest", series=SERIES, detail="rows")["rows"]
    actual = {
        (time, output): value
        for time, values in zip(found["times"], found["actual"], strict=True)
        for output, value in zip(found["outputs"], values, strict=True)
    }
    assert found["outputs"] == ["load+3", "load+4"] and "instances" not in found and rows
    assert all(actual[one["time"], one["output"]] == one["actual"] for one in rows)
    assert found["actual"][-1] == [SERIES["load"][-1], None]
    plain = ask(client, model="plain", series=PLAIN_SERIES)
    assert "actual" not in plain and "ends" not in ask(client, model="plain", instances=plain["instances"])


def test_windows_are_chosen_by_their_newest_row(client):
    """The same windows as among all; rows without a window are left out."""
    found, some = ask(client, series=SERIES, gaps="skip"), ask(client, series=SERIES, gaps="skip", ends=[0, 70, 90])
    assert some["ends"] == [70, 90]
    for name in ("instances", "times", "actual"):
        assert some[name] == [found[name][found["ends"].index(end)] for end in (70, 90)]
    none = ask(client, series=SERIES, gaps="skip", ends=[0])
    assert none["instances"] == none["ends"] == none["actual"] == none["times"] == []
    assert "only with a series" in ask(client, instances=found["instances"][:1], ends=[3])["error"]


def test_a_missing_value_is_an_error_or_left_out(client):
    """As in :predict it is an error, and where gaps are skipped windows with one are counted, by column."""
    series = PLAIN_SERIES | {"f2": [*PLAIN_SERIES["f2"]]}
    series["f2"][8] = None
    assert "series.f2[8]" in ask(client, model="plain", series=series)["error"]
    found = ask(client, model="plain", series=series, gaps="skip")
    lookback = PLAIN.config.lookback
    assert found["left_out"] == {"across_gaps": 0, "missing": lookback, "missing_columns": {"f2": lookback}}
    assert found["ends"] == [*range(lookback - 1, 8), *range(8 + lookback, 20)]
    series["f2"][8] = "bad"
    assert "series.f2[8]" in ask(client, model="plain", series=series, gaps="skip")["error"]
