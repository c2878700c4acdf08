"""A table of many series is read by series and time, in any form, and each series is on its own."""

import json
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import kanmodel
from kanmodel import DataError, UnknownNameError
from kanmodel.errors import CheckpointError, ConfigError
from kanmodel.network.config import config_from_dict, config_to_dict
from kanmodel.tables.roles import Columns, make_table
from kanmodel.tables.samples import split_samples

QUICK = {"lookback": 4, "hidden": 3, "width": (3, 2, 1), "grid": 3, "epochs": 1, "batch": 64, "grid_updates": 1}
ROLES = {"time": "time", "series": "shop", "ahead": 1}
SHOPS = {"east": 220, "west": 300, "hall": 160}
GROUPS = {"east": "small", "west": "large", "hall": "small"}


def make_frame(interleaved=False):
    """Hours of three shops of different lengths, which end at the same hour."""
    rng, parts = np.random.default_rng(0), []
    for shop, n in SHOPS.items():
        time = np.datetime64("2024-03-20T00", "s") + 3600 * np.arange(300 - n, 300)
        sales = 10 + 3 * np.sin(np.arange(n) / 4) + rng.normal(size=n) + len(parts)
        parts.append(pd.DataFrame({"time": time, "shop": shop, "group": GROUPS[shop], "sales": sales}))
    frame = pd.concat(parts, ignore_index=True)
    return frame.sort_values("time", kind="stable", ignore_index=True) if interleaved else frame


FRAME = make_frame()


@pytest.fixture(scope="module")
def model():
    """A model of the three shops, with the group of each."""
    return kanmodel.train(FRAME, "sales", static=["group"], **ROLES, **QUICK)


def weights(model):
    return torch.cat([tensor.flatten() for tensor in model.network.state_dict().values()])


def test_any_form_of_a_table_of_many_series_trains_and_is_forecast_alike(model):
    """One after another or by time, of polars, pandas and pyarrow, lazy, or a mapping."""
    mixed, wanted = make_frame(interleaved=True), model.backtest(FRAME)
    forms = [mixed, pl.from_pandas(FRAME), pl.from_pandas(mixed).lazy(), pa.Table.from_pandas(mixed)]
    forms += [{name: mixed[name].to_numpy() for name in mixed}, mixed.astype({"shop": "category"})]
    for form in forms:
        backtest = model.backtest(form)
        rows = sorted(zip(backtest.series, backtest.times, backtest.predictions[:, 0], strict=True))
        assert rows == sorted(zip(wanted.series, wanted.times, wanted.predictions[:, 0], strict=True))
    for form in forms[1:4]:
        assert len(kanmodel.train(form, "sales", static=["group"], **ROLES, **QUICK).config.series.known) == 3
    again = kanmodel.train(pl.from_pandas(FRAME), "sales", static=["group"], **ROLES, **QUICK)
    assert torch.equal(weights(again), weights(model))


@pytest.mark.filterwarnings("error")
def test_a_lazy_frame_is_asked_for_its_columns_without_a_warning(model):
    """Polars warns of a lazy frame whose `columns` are read, in each method that takes one."""
    lazy = pl.from_pandas(FRAME).lazy()
    for ask in (model.predict, model.backtest, model.calibrate, model.explain, model.what_if, model.trust):
        assert ask(lazy) is not None
    assert model.changes(lazy, series="hall") is not None and model.compare(None, lazy, lazy) is not None
    assert model.drift(lazy, lazy, explained=32, false_alarms=0.5) is not None


def test_no_window_crosses_from_one_series_to_the_next(model):
    """Each has rows of one series: as many windows as it has alone, with the features that it has alone."""
    assert model.config.series.name == "shop" and model.config.series.known == ("east", "west", "hall")
    backtest = model.backtest(FRAME)
    assert {shop: backtest.series.count(shop) for shop in SHOPS} == {shop: n - 4 for shop, n in SHOPS.items()}
    for shop in SHOPS:
        alone = model.backtest(FRAME[FRAME["shop"] == shop])
        own = np.array(backtest.series) == shop
        np.testing.assert_allclose(alone.predictions, backtest.predictions[own], rtol=1e-6)
        np.testing.assert_array_equal(alone.actual, backtest.actual[own])


def test_the_newest_windows_are_those_of_each_series(model):
    """One of each by default, so many, or those of a duration; some series by their names."""
    explained = model.explain(FRAME, detail="features")
    assert explained.series == tuple(SHOPS) and model.predict(FRAME, last=3).shape == (9, 1)
    assert model.predict(FRAME, last="5h").shape == (15, 1)
    one = model.predict(FRAME, series="west")
    np.testing.assert_allclose(one, model.predict(FRAME)[1:2], rtol=1e-6)
    assert model.backtest(FRAME, series=["hall", "east"]).series[0] == "east"
    assert set(model.changes(FRAME, series=["hall"]).series) == {"hall"}
    with pytest.raises(UnknownNameError, match="there is no series 'north'; the series are east, west, hall"):
        model.predict(FRAME, series="north")
    plain = kanmodel.train(FRAME[FRAME["shop"] == "west"][["time", "sales"]], "sales", time="time", ahead=1, **QUICK)
    with pytest.raises(DataError, match="series is given, but the model is of one series"):
        plain.predict(FRAME, series="west")


def test_rows_of_results_name_their_series_and_pictures_show_one(model):
    """A result of several series has tables and no picture, and says so; that of one series is drawn over time."""
    calibrated, three = model.calibrate(FRAME, intervals=(0.8,)), ["east", "east", "west", "west", "hall", "hall"]
    forecasts = calibrated.predict(FRAME, last=2, intervals="all")
    explained, changes = calibrated.explain(FRAME, last=2, outputs="all"), calibrated.changes(FRAME, last=2)
    for result in (forecasts, explained["sales+1"], calibrated.trust(FRAME, last=2)):
        rows = result.table(wide=True) if hasattr(result, "contributions") else result.table()
        assert [row["series"] for row in rows] == three
    assert [row["series"] for row in changes.table()] == [shop for shop in three for _ in model.features]
    assert explained[2].series == ("west",) and explained[2:5].series == ("west", "west", "hall")
    for result in (forecasts, explained, explained["sales+1"]):
        with pytest.raises(DataError, match="a picture shows one series"):
            result.svg()
        assert "<img" not in result._repr_html_()
    one = {"last": 3, "series": "west"}
    for result in (calibrated.predict(FRAME, **one, intervals="all"), calibrated.explain(FRAME, **one), explained[2]):
        assert result.svg().startswith("<svg") and "<img" in result._repr_html_()


def test_errors_are_measured_by_series(model):
    """The largest first; all rows together are those of all series."""
    found = model.backtest(FRAME)
    errors = found.by["series"]
    assert set(errors) == set(SHOPS) and sum(each.count for each in errors.values()) == found.metrics.count
    maes = [each.mae for each in errors.values()]
    assert maes == sorted(maes, reverse=True)
    own = np.array(found.series) == "west"
    assert errors["west"].mae == pytest.approx(np.abs(found.predictions - found.actual)[own].mean())
    assert found.rows()[0]["series"] == "east" and "By series" in found.html()


def test_a_new_series_is_forecast_with_a_warning(model):
    """It has none of the levels that only known series have."""
    new = FRAME[FRAME["shop"] == "hall"].assign(shop="dock", group="huge")
    with pytest.warns(UserWarning, match="training had no shop dock: forecasts of it rest on what others have in"):
        found = model.explain(pd.concat([FRAME, new]), detail="features")
    assert found.series == ("east", "west", "hall", "dock")
    of_group = [name.startswith("group=") for name in model.config.feature_names]
    assert sum(of_group) == 2 and not found.windows[3][:, of_group].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(FRAME)
    with pytest.raises(DataError, match=r"row \d+ \(shop hall\) has the unknown level 'huge'; the levels are large"):
        model.predict(FRAME.assign(group=np.where(FRAME["shop"] == "hall", "huge", FRAME["group"])))


def test_a_static_column_that_changes_is_refused():
    """One sentence names the row, the column and the series."""
    changed = FRAME.copy()
    changed.loc[300, "group"] = "small"
    with pytest.raises(DataError, match=r"^data row 301, column group \(shop west\) is another value than in the row"):
        kanmodel.train(changed, "sales", static=["group"], **ROLES, **QUICK)
    with pytest.raises(DataError, match="static needs series: static columns have one value for each of them"):
        kanmodel.train(FRAME, "sales", static=["group"], time="time", ahead=1, **QUICK)


def test_the_test_part_is_the_newest_rows_of_all_series_by_time():
    """Every test window is later than every window that is trained on, whatever series they are of."""
    table = make_table(FRAME, Columns(("sales",), **ROLES))
    parts, instants = split_samples(table, 4, 1, 0.15, 12), table.table.instants
    first = np.sort(instants)[round(0.85 * len(FRAME))]
    ends = {part: instants[parts.windows.ends[getattr(parts, part)]] for part in ("train", "validation", "test")}
    assert ends["test"].min() >= first > max(ends["train"].max(), ends["validation"].max())
    codes = parts.windows.table.codes[parts.windows.ends[parts.test]]
    assert np.unique(codes).tolist() == [0, 1, 2] and np.ptp(np.bincount(codes)) <= 1


def test_a_wide_table_is_a_long_one():
    """Naming its columns gives the windows of the table in which they stand one after another."""
    rng, n = np.random.default_rng(0), 120
    time = np.datetime64("2024-01-01T00", "s") + 3600 * np.arange(n)
    wide = pd.DataFrame({"time": time, "temp": rng.normal(size=n), **{shop: rng.normal(size=n) for shop in SHOPS}})
    long = wide.melt(["time", "temp"], [*SHOPS], "series", "sales")
    of_wide = kanmodel.train(wide, "sales", series=[*SHOPS], time="time", ahead=1, **QUICK)
    of_long = kanmodel.train(long, "sales", series="series", time="time", ahead=1, **QUICK)
    assert of_wide.config.series.columns == tuple(SHOPS) and torch.equal(weights(of_wide), weights(of_long))
    for model in (of_wide, of_long):
        found = of_wide.backtest(long), model.backtest(wide if model is of_wide else long)
        assert found[0].series == found[1].series
        np.testing.assert_array_equal(found[0].predictions, found[1].predictions)
    assert of_wide.predict(wide.tail(20)).shape == (3, 1)
    for change, message in (
        ({"target": ["a", "b"]}, "series must name the columns of one target"),
        ({"target": "temp"}, "there is a column temp, which is also the name of the target: rename it"),
        ({"series": ["east", "q"]}, "there is no column 'q'"),
    ):
        with pytest.raises((DataError, UnknownNameError), match=message):
            kanmodel.train(wide, **{"target": "sales", "series": [*SHOPS], "time": "time", "ahead": 1} | change)


def test_series_are_kept_in_the_checkpoint(model, tmp_path):
    """The table of the training, in which time starts again, is taken by the loaded model."""
    model.save(tmp_path / "m.safetensors")
    loaded = kanmodel.load(tmp_path / "m.safetensors")
    assert loaded.config.series == model.config.series and loaded.reference.series is not None
    np.testing.assert_array_equal(loaded.predict(FRAME), model.predict(FRAME))
    assert loaded.backtest(FRAME).series == model.backtest(FRAME).series
    assert kanmodel.fine_tune(loaded, FRAME, time="time", epochs=0).config.series == model.config.series
    with pytest.raises(DataError, match=r"windows\['shop'\] is missing: the series that each row is of"):
        loaded.predict(FRAME.drop(columns="shop"))
    with pytest.raises(DataError, match=r"windows\['shop'\], row 2 is empty"):
        loaded.predict(FRAME.assign(shop=FRAME["shop"].where(FRAME.index != 2)))


def test_without_times_a_series_ends_where_the_value_changes():
    """Its rows stand one after another."""
    table = make_table(FRAME.drop(columns="time"), Columns(("sales",), series="shop", ahead=1))
    assert np.bincount(table.table.codes).tolist() == [*SHOPS.values()] and table.spec.time is None


def test_a_row_out_of_order_is_named_with_its_series():
    """In training rows of each series are oldest first."""
    frame = FRAME.copy()
    frame.loc[[230, 231], "time"] = frame.loc[[231, 230], "time"].to_numpy()
    with pytest.raises(DataError, match=r"data row 232, column time \(shop west\) must be later than 2024-"):
        kanmodel.train(frame, "sales", **ROLES, **QUICK)


@pytest.mark.parametrize("spread", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("columns", ["features", "targets"])
def test_a_spread_that_cannot_be_is_refused(model, spread, columns, tmp_path):
    """A checkpoint whose standard deviation is negative, infinite or NaN does not load."""
    document = json.loads(json.dumps(config_to_dict(model.config)))
    document[columns][0]["std"] = spread
    with pytest.raises((ConfigError, CheckpointError), match=rf"config.{columns}\[0\].*std must be"):
        config_from_dict(document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"known": [1]}, r"known\[0\] must be printable text"),
        ({"columns": "ab"}, "config.series.columns must be a list, but is 'ab'"),
        ({"name": 3}, "name must be"),
        ({"more": 1}, "config.series has the unknown key 'more'"),
    ],
)
def test_a_checkpoint_with_other_series_is_refused(model, change, message):
    """The error names the place in its document."""
    document = json.loads(json.dumps(config_to_dict(model.config)))
    document["series"].update(change)
    with pytest.raises(ConfigError, match=message):
        config_from_dict(document)
