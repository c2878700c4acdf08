"""A model over many series is asked with their column, and answers by series."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from factories import columns_of, make_encoded
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel import Model
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.tables.roles import Columns

N_DAYS, AHEAD, HORIZON, LOOKBACK = 60, 1, 2, 4
SHOPS = ("north", "south", "west")
LONG = Columns(
    *(("sold",),),
    time="day",
    series="shop",
    static=("size",),
    known=("promo",),
    calendar=True,
    fill="linear",
    max_fill=2,
    ahead=AHEAD,
)
WIDE = Columns(("load",), series=("a", "b"), time="at", ahead=1)


def make_frame():
    """Days of three shops, by shop, with missing values."""
    rng = np.random.default_rng(0)
    frames = []
    for number, shop in enumerate(SHOPS):
        frame = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=N_DAYS)})
        frame["shop"], frame["size"] = shop, ["small", "large", "small"][number]
        frame["promo"] = rng.integers(0, 2, N_DAYS).astype(float)
        frame["sold"] = 10 * (number + 1) + 5 * np.sin(np.arange(N_DAYS) * 2 * np.pi / 7) + rng.normal(size=N_DAYS)
        frame.loc[rng.choice(N_DAYS - 10, 4, replace=False), "sold"] = np.nan
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


FRAME = make_frame()
TABLE = pd.DataFrame({"at": pd.date_range("2024-03-01", periods=30, freq="h"), "a": np.arange(30.0), "b": np.ones(30)})
OPERATIONS = {
    "predict": {},
    "explain": {"output": "sold+1", "detail": "steps"},
    "whatif": {"output": "sold+1", "features": ["sold"], "shift": {"from": -1, "to": 1}},
    "counterfactual": {"output": "sold+1", "target": {"at_least": 0.0}, "max_features": 1},
    "ablate": {"output": "sold+1", "fidelity": 0.9},
    "compare": {"output": "sold+1", "against": {"version": "1"}},
}


@pytest.fixture(scope="module")
def client(serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_checkpoint(make_encoded(FRAME, LONG, LOOKBACK, horizon=HORIZON), folder / "shops.safetensors")
    save_checkpoint(make_encoded(TABLE, WIDE), folder / "wide.safetensors")
    with serve(models=folder, max_windows=200) as client:
        client.model = Model.of(load_checkpoint(folder / "shops.safetensors"))
        client.wide = Model.of(load_checkpoint(folder / "wide.safetensors"))
        yield client


def ask(client, operation="predict", model="shops", **body):
    return client.post(f"/v1/models/{model}:{operation}", json=body)


def series_of(frame):
    """The columns of a frame, with days as texts."""
    return {
        name: [str(cell)[:16] for cell in cells] if name in ("day", "at") else cells
        for name, cells in columns_of(frame).items()
    }


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_answers_by_series(client, operation):
    """`last` is of each, and the answer names the series and the time of each instance."""
    answer = ask(client, operation, series=series_of(FRAME), last=2, **OPERATIONS[operation])
    assert answer.status_code == 200, answer.text
    answer = answer.json()
    explained = client.model.explain(FRAME, "sold+1", last=2, detail="features")
    assert answer["series"] == list(explained.series) == [shop for shop in SHOPS for _ in range(2)]
    assert answer["times"] == [f"{day[:10]} 00:00"[:16] for day in explained.times]


def test_forecasts_are_those_of_the_library(client):
    """In any order of the series among each other, such as day by day."""
    by_day = FRAME.sort_values(["day", "shop"], kind="stable")
    expected = client.model.predict(FRAME, last=3)
    for frame in (FRAME, by_day):
        answer = ask(client, series=series_of(frame), last=3).json()
        np.testing.assert_allclose(answer["predictions"], expected, rtol=1e-5)
        assert answer["series"] == [shop for shop in SHOPS for _ in range(3)]
    assert ask(client, series=series_of(FRAME), last="7D").json()["series"] == [s for s in SHOPS for _ in range(7)]


def test_a_new_series_is_forecast_with_a_warning(client):
    """It is named once, with its first instance; a level that training did not have is allowed in it."""
    frame = FRAME[FRAME["shop"] == "west"].assign(shop="east", size="huge")
    answer = ask(client, series=series_of(pd.concat([FRAME, frame])), last=2).json()
    assert answer["series"][-2:] == ["east", "east"]
    found = [each for each in answer["warnings"] if each["code"] == "new_series"]
    message = "east was not in the training: forecasts of it rest on what the others have in common"
    assert found == [{"code": "new_series", "instance": 6, "series": "east", "message": message}]
    compared = ask(client, "backtest", series=series_of(pd.concat([FRAME, frame]))).json()
    assert [each["series"] for each in compared["warnings"]] == ["east"]


def test_errors_are_by_series_and_beside_the_seasonal_naive_forecast(client):
    """As of the library, the largest first; each row names its series."""
    found = client.model.backtest(FRAME)
    answer = ask(client, "backtest", series=series_of(FRAME), detail="rows").json()
    assert [one["series"] for one in answer["by"]["series"]] == list(found.by["series"])
    for one, errors in zip(answer["by"]["series"], found.by["series"].values(), strict=True):
        assert (one["mae"], one["seasonal_naive_mae"]) == pytest.approx(
            (errors.mae, errors.seasonal_naive_mae), rel=1e-5
        )
    assert [one["mae"] for one in answer["by"]["series"]] == sorted(
        (e["mae"] for e in answer["by"]["series"]), reverse=True
    )
    assert answer["season"] == {"steps": 7, "name": "week"}
    assert answer["metrics"]["seasonal_naive_mae"] == pytest.approx(found.metrics.seasonal_naive_mae)
    assert {row["series"] for row in answer["rows"]} == set(SHOPS) and "warnings" not in answer


def test_the_document_of_a_model_names_its_series(client):
    """With their number, and the rhythm in words."""
    document = client.get("/v1/models/shops").json()
    assert document["table"]["series"] == {"column": "shop", "columns": [], "count": 3, "names": list(SHOPS)}
    assert document["table"]["step"] == "1 day"
    assert document["time"] == {"name": "day", "step": 86400, "max_step": 3.5, "dated": True}
    assert client.get("/v1/models/wide").json()["table"]["series"]["columns"] == ["a", "b"]
    windows = client.get("/v1/models/shops/reference").json()["windows"]
    assert "series" not in windows[0]  # of a checkpoint that does not name them


def test_a_wide_table_is_taken_as_it_is(client):
    """Or as a long one; an error names its own column."""
    wide = ask(client, model="wide", series=series_of(TABLE), last=2).json()
    assert wide["series"] == ["a", "a", "b", "b"]
    np.testing.assert_allclose(wide["predictions"], client.wide.predict(TABLE, last=2), rtol=1e-5)
    long = {"at": series_of(TABLE)["at"] * 2, "series": ["a"] * 30 + ["b"] * 30, "load": [*TABLE["a"], *TABLE["b"]]}
    assert ask(client, model="wide", series=long, last=2).json()["predictions"] == wide["predictions"]
    assert ask(client, "backtest", "wide", series=series_of(TABLE)).json()["by"]["series"][0]["series"] == "a"
    bad = series_of(TABLE) | {"b": ["x" if row == 29 else 1.0 for row in range(30)]}
    refused = ask(client, model="wide", series=bad).json()
    assert refused["error"] == "series.b[29] (series b) must be a finite number or empty, but is 'x'"


def spoil(name, row, value):
    def change(series):
        series[name][row] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil("shop", 3, None), "series.shop[3] is empty"),
        (spoil("sold", 119, "much"), "series.sold[119] (shop south) must be a finite number or empty, but is 'much'"),
        (spoil("size", 60, "huge"), "series.size[60] (shop south) has the unknown level 'huge'; the levels are large"),
        (spoil("day", 119, "2024-02-28"), "series.day[119] (shop south) must not repeat a time, but has 2024-02-28"),
        (spoil("day", 179, "2024-05-01"), "series.day[179] (shop west) must have no gap before it, but goes from"),
        (lambda series: series.pop("shop"), "series.shop is missing"),
    ],
)
def test_each_damage_names_its_row_column_and_series(client, change, message):
    """In one sentence."""
    series = series_of(FRAME)
    change(series)
    answer = ask(client, series=series)
    assert answer.status_code == 422 and answer.json()["error"].startswith(message), answer.text


def test_windows_of_all_series_together_are_limited(client):
    """As many as a body may hold as instances."""
    of_one = FRAME[:N_DAYS].assign(sold=1.0)
    series = series_of(pd.concat([of_one.assign(shop=f"{number}") for number in range(4)]))
    refused = ask(client, series=series)
    assert refused.status_code == 422 and refused.json()["code"] == "limit_exceeded", refused.text
    assert "windows, of at most 200 (max_windows, max_body_bytes)" in refused.json()["error"]
    assert ask(client, series=series, last=5).status_code == 200


def test_each_series_has_outcomes(client):
    """A receipt is of one window, so forecasts of one time are told apart."""
    answer = ask(client, series=series_of(FRAME), last=1, receipts=True).json()
    outcomes = [{"receipt": receipt, "values": {"sold+1": 1.0}} for receipt in answer["receipts"]]
    found = ask(client, "outcomes", outcomes=outcomes).json()
    assert (found["matched"], found["unknown"], found["repeated"]) == (len(SHOPS), 0, 0)


@settings(max_examples=examples(25), deadline=None)
@given(
    origin=st.integers(12, N_DAYS - 1 - AHEAD - HORIZON),
    missing=st.sets(st.tuples(st.integers(0, N_DAYS - 1), st.sampled_from(SHOPS)), max_size=6),
    value=st.sampled_from([None, 0.0, 1e3]),
)
def test_what_comes_after_an_origin_changes_no_bit_of_its_forecast(client, origin, missing, value):
    """Of :predict, :explain and :backtest, whatever is missing; what is known of later rows is left."""
    frame = FRAME.copy()
    for day, of in missing:
        frame.loc[(frame["shop"] == of) & (frame["day"] == frame["day"][day]), "sold"] = np.nan
    time, day = frame["day"][origin], pd.Timedelta(days=1)
    is_later = frame["day"] > time
    cut = frame.assign(sold=frame["sold"].mask(is_later))[frame["day"] <= time + AHEAD * day]
    whole, n_later = series_of(frame), N_DAYS - 1 - origin
    found = ask(client, series=whole, last=n_later, echo=True).json()
    short = ask(client, series=series_of(cut), last=1, echo=True).json()
    assume("error" not in found and "error" not in short)  # too many missing one after another
    places = [number for number, at in enumerate(found["times"]) if at == str(time)[:16]]
    assert short["instances"] == [found["instances"][place] for place in places] and len(places) == len(SHOPS)
    for operation, more in (("predict", {}), ("explain", {"output": "sold+2", "detail": "steps"})):
        ours = ask(client, operation, series=series_of(cut), last=1, **more).json()
        theirs = ask(client, operation, instances=[found["instances"][place] for place in places], **more).json()
        assert all(ours[name] == theirs[name] for name in ("predictions", "explanations") if name in ours)
    until = frame[frame["day"] <= time + (AHEAD + HORIZON - 1) * day]
    actual = until["sold"] if value is None else until["sold"].where(until["day"] <= time, value)
    compared = [
        ask(client, "backtest", series=series_of(until.assign(sold=sold)), last=1, detail="rows").json()["rows"]
        for sold in (until["sold"], actual)
    ]
    assert [row["prediction"] for row in compared[0]] == [row["prediction"] for row in compared[1]]
    of_all = ask(client, "backtest", series=whole, detail="rows").json()["rows"]
    at_origin = [row["prediction"] for row in of_all if row["time"] == str(time)[:16]]
    np.testing.assert_allclose([row["prediction"] for row in compared[0]], at_origin, rtol=1e-12)  # in other batches
    np.testing.assert_allclose(np.ravel(short["predictions"]), at_origin, rtol=1e-5)
