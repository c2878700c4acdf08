"""Tables as people have them are encoded in training and in serving alike."""

import json
import sys
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from factories import make_encoded
from hypothesis import given
from hypothesis import strategies as st

import kanmodel
from kanmodel.errors import ConfigError, DataError, UnknownNameError
from kanmodel.network.config import config_from_dict, config_to_dict
from kanmodel.tables.encoding import CALENDAR, Calendar, Encoding, Fill, SourceColumn, public_holidays
from kanmodel.tables.instants import to_local
from kanmodel.tables.roles import Columns, make_table
from kanmodel.tables.table import CellNames, Selection, Table, TableSpec
from kanmodel.tables.windows import Windows, read_windows

N_ROWS = 24 * 30
QUICK = {"lookback": 6, "hidden": 3, "width": (3, 2, 1), "grid": 3, "epochs": 1, "batch": 64, "grid_updates": 1}
ROLES = {"time": "time", "ahead": 3, "known": ["temp"], "calendar": True, "fill": "linear", "max_fill": 4}


def make_frame():
    """Hours of a load in Berlin with its tariff and a temperature, of which some values are missing."""
    rng = np.random.default_rng(0)
    time = pd.date_range("2023-10-10", periods=N_ROWS, freq="h", tz="Europe/Berlin")
    temp = 10 + 5 * np.sin(np.arange(N_ROWS) / 50) + rng.normal(size=N_ROWS)
    load = 100 + 20 * np.sin(2 * np.pi * time.hour / 24) - temp
    temp[rng.random(N_ROWS) < 0.02] = np.nan
    return pd.DataFrame({"time": time, "tariff": np.where(time.hour < 6, "night", "day"), "temp": temp, "load": load})


@pytest.fixture(scope="module")
def model():
    return kanmodel.train(make_frame(), "load", **ROLES, **QUICK)


def cut(frame, columns, spec=None, last=None):
    """The windows of four steps that a frame with these columns has, by a spec or as training reads it."""
    spec = replace(spec or make_table(frame, columns).spec, lookback=4)
    return Windows.cut(Table.read(spec, frame, CellNames("frame"), Selection(last)))


@st.composite
def tables(draw):
    """Tables of numbers, levels and times with missing cells and gaps, and the options of their encoding."""
    n_rows = draw(st.integers(3, 30))

    def column(values):
        return draw(st.lists(st.none() | values, min_size=n_rows, max_size=n_rows))

    steps = draw(st.lists(st.sampled_from([1, 1, 1, 5]), min_size=n_rows, max_size=n_rows))
    start = datetime(2024, 3, 30) + timedelta(hours=draw(st.integers(0, 5000)))
    times = [start + timedelta(hours=int(hours)) for hours in np.cumsum(steps)]
    data = {"time": np.array(times, dtype="datetime64[s]"), "a": [1.5, *column(st.floats(-9, 9))[1:]]}
    data |= {"b": [2.5, *column(st.integers(-3, 3))[1:]], "c": ["x", "y", *column(st.sampled_from("xyz"))[2:]]}
    data["y"] = np.arange(n_rows, dtype=float)
    fill = draw(st.sampled_from([None, "forward", "linear", 7.0]))
    known = draw(st.sampled_from([(), ("a",), ("b", "c")]))
    ahead, max_fill = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    options = {"time": "time", "known": known, "calendar": True, "zone": draw(st.sampled_from([None, "UTC"]))}
    return data, Columns(("y",), ahead=ahead, fill=fill, max_fill=max_fill, **options)


@given(tables())
def test_the_rows_of_training_are_encoded_alike_in_serving(given_table):
    """What the checkpoint's JSON keeps encodes the same windows to the same features, bit for bit."""
    data, columns = given_table
    document = json.loads(json.dumps(config_to_dict(make_encoded(data, columns).config)))
    spec = config_from_dict(document).table
    try:
        windows = cut(data, columns)
    except DataError as error:
        assert "has no window" in str(error) or "rows, but needs" in str(error)
        return
    again = cut(data, columns, spec)
    assert spec.encoding.features == windows.table.spec.encoding.features
    assert again.take().tobytes() == windows.take().tobytes() and again.times == windows.times


@given(tables(), st.integers(1, 5))
def test_the_newest_windows_are_encoded_as_the_whole(given_table, last):
    """With as many rows before them as `reach`, they have the features that they have in the whole, bit for bit."""
    data, columns = given_table
    try:
        windows, newest = cut(data, columns), cut(data, columns, last=last)
    except DataError:
        return
    by_time = dict(zip(windows.times, windows.take(), strict=True))
    for time, window in zip(newest.times, newest.take(), strict=True):
        assert window.tobytes() == by_time[time].tobytes()


def test_a_table_as_people_have_it_is_all_a_model_takes(model, tmp_path):
    """Pandas, polars, an index of dates and local times give one forecast, explained under the columns' names."""
    frame = make_frame()
    names = [feature.name for feature in model.features]
    assert names[:4] == ["tariff=day", "tariff=night", "temp+3", "load"] and names[-1] == "weekend"
    assert "left_out_windows" not in model.metrics
    expected = model.predict(frame)
    local = frame.assign(time=frame["time"].dt.tz_localize(None))
    texts = local.assign(time=local["time"].dt.strftime("%d.%m.%Y %H:%M"))
    others = [pl.from_pandas(frame), frame.set_index("time"), local, texts, frame.astype({"tariff": "category"})]
    others.append(frame.sample(frac=1, random_state=0))
    for other in others:
        assert (model.predict(other) == expected).all()
    loaded = kanmodel.load(model.save(tmp_path / "m.safetensors") and tmp_path / "m.safetensors")
    assert loaded.config.encoding == model.config.encoding and (loaded.predict(frame) == expected).all()
    parts = ("hour", "weekday", "day_of_year", "weekend")
    assert sorted(model.explain(frame).group_names) == sorted(("tariff", "temp", "load", *parts))
    fixed = {feature.name for feature in model.features if feature.fixed}
    assert fixed == {*names} - {"temp+3", "load"}


def test_the_window_of_a_frame_ends_where_the_future_is_known(model):
    """The last `ahead` rows give the known columns alone; other columns may be empty there."""
    frame = make_frame()
    ended = frame.copy()
    ended.loc[N_ROWS - 3 :, ["load", "tariff"]] = None
    assert (model.predict(ended) == model.predict(frame)).all()
    window = read_windows(model.config.table, frame)[0]
    assert window[0, -1, 3] == frame["load"][N_ROWS - 4]
    assert (model.predict(window) == model.predict(frame)).all()


def test_fine_tuning_encodes_as_the_training_did(model):
    """The columns are those of the table, and an unknown level is refused."""
    frame = make_frame()
    tuned = kanmodel.fine_tune(model, frame, time="time", epochs=0)
    assert tuned.config.encoding == model.config.encoding
    assert tuned.metrics["test_r2"] == pytest.approx(model.metrics["test_r2"])
    with pytest.raises(DataError, match="data row 8, column tariff has the unknown level 'peak'; the levels are day"):
        kanmodel.fine_tune(model, frame.assign(tariff=["day"] * 7 + ["peak"] * (N_ROWS - 7)), time="time", epochs=0)
    with pytest.raises(UnknownNameError, match="there is no column 'temp'"):
        kanmodel.fine_tune(model, frame.drop(columns="temp"), time="time")


def spoil(frame, column, rows, value):
    frame[column] = frame[column].astype(object)
    frame.loc[rows, column] = value
    return frame


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: spoil(f, "tariff", 713, "peak"), r"\['tariff'\], row 713 has the unknown level 'peak'; the levels"),
        (
            lambda f: spoil(f, "temp", slice(715, None), None),
            r"\['temp'\], row 712 is empty 3 rows later and cannot .* 4",
        ),
        (lambda f: spoil(f, "load", slice(709, 715), None), r"\['load'\], row 711 is empty and cannot be filled: .* 4"),
        (lambda f: spoil(f, "load", 712, "much"), r"\['load'\], row 712 must be a finite number or empty, .* 'much'"),
        (
            lambda f: spoil(f, "time", 712, "noon"),
            r"windows\['time'\], row 712 must be a time in ISO 8601 .* 'noon'",
        ),
        (
            lambda f: spoil(f, "time", 712, f["time"][711]),
            r"\['time'\], row 712 must not repeat a time, but has 2023-11-08T",
        ),
        (lambda f: f.drop(index=714), r"\['time'\], row 714 must have no gap before it"),
        (lambda f: f.drop(columns=["temp"]), "windows has no column 'temp'"),
        (lambda f: f.drop(columns=["time"]), r"windows\['time'\] is missing: the times of the rows"),
        (lambda f: f[-8:], "windows has 8 rows, but needs the 6 steps of a window, and the 3 after it"),
    ],
)
def test_each_damage_of_a_frame_has_its_sentence(model, damage, message):
    """An error names the column, the row, and what must be there."""
    with pytest.raises(DataError, match=message):
        model.predict(damage(make_frame()))


def test_a_model_without_fill_says_so():
    """A missing value of the window is then refused."""
    frame = make_frame()
    with pytest.warns(UserWarning, match=r"windows are left out: .*for missing values, of temp \("):
        model = kanmodel.train(frame, "load", **ROLES | {"fill": None, "known": ["temp"]}, **QUICK)
    frame.loc[712, "load"] = None
    with pytest.raises(DataError, match=r"\['load'\], row 712 is empty, and the model was trained without fill"):
        model.predict(frame)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"known": ["load"]}, "load is a target, so its future is not known"),
        ({"known": ["temp"], "features": ["load"]}, "temp is known, but not one of the features"),
        ({"known": ["temp"], "ahead": 0}, "known needs ahead"),
        ({"known": ["q"]}, "there is no column 'q'"),
        ({"calendar": True, "time": None}, "calendar needs time: a column, or an index, of dates"),
        ({"calendar": ["minute"]}, "there is no calendar part 'minute'; the calendar parts are hour, weekday"),
        ({"fill": "backward"}, "fill must be forward, linear or a number, but is 'backward'"),
        ({"fill": "linear", "max_fill": 0}, "longest must be a whole number from 1"),
        ({"zone": "Europe/Atlantis"}, "zone must be a time zone such as Europe/Berlin, but is 'Europe/Atlantis'"),
        ({"zone": "../../etc/passwd"}, "zone must be a time zone such as Europe/Berlin, but is"),
    ],
)
def test_an_invalid_option_is_refused(options, message):
    """One sentence names the option."""
    with pytest.raises((DataError, ConfigError, UnknownNameError), match=message):
        kanmodel.train(make_frame(), "load", **{"time": "time", "ahead": 3} | options, **QUICK)


def test_columns_that_are_left_out_are_named_before_training():
    """Texts that differ too much, and those that do not differ, with their reasons; a calendar's names are taken."""
    texts = {"id": [f"m{row}" for row in range(N_ROWS)], "site": ["north"] * N_ROWS, "a\x1b[31m": ["red"] * N_ROWS}
    frame = make_frame().assign(**texts)
    with pytest.warns(
        UserWarning, match=r"id \(720 different texts, more than 64\), site \(the same text in every row\), a�\[31m \("
    ):
        kanmodel.train(frame, "load", time="time", ahead=1, fill=0.0, **QUICK)
    told = "time \\(times, but no time is given: windows are cut across gaps in them\\), id \\(720 different texts"
    with pytest.warns(UserWarning, match=told):
        kanmodel.train(frame, "load", ahead=1, fill=0.0, **QUICK)
    with pytest.raises(DataError, match="column id cannot be a feature: 720 different texts"):
        kanmodel.train(frame, "load", features=["id"], ahead=1, **QUICK)
    with pytest.raises(DataError, match="there is a column hour, which is also the name of a calendar feature"):
        kanmodel.train(frame.assign(hour=1.0), "load", time="time", ahead=1, calendar=True, **QUICK)


def test_windows_that_are_left_out_are_counted_before_training():
    """Those across a gap in time, for missing values, and in two parts sum to the rest of all windows."""
    frame = make_frame().drop(index=range(300, 305)).reset_index(drop=True)
    with pytest.warns(UserWarning, match="windows are left out") as warned:
        metrics = kanmodel.train(frame, "load", time="time", ahead=1, **QUICK).metrics
    (text,) = [str(one.message) for one in warned if "windows are left out" in str(one.message)]
    used = sum(metrics[f"{part}_windows"] for part in ("train", "validation", "test"))
    assert text.startswith(
        f"{N_ROWS - 5 - 6 - used:,.0f} of {N_ROWS - 5 - 6:,} windows are left out: 5 that would cross"
    )
    assert f"{metrics['left_out_windows']:.0f} for missing values, of temp" in text and "load (target) (1)" in text


@pytest.mark.parametrize(
    ("how", "closed", "opened"),
    [
        ("forward", [1, 1, 1, 4], [1, 1, 1, 4, 4]),
        ("linear", [1, 2, 3, 4], [1, 1, 1, 4, 4]),
        ("value", [1, 7, 7, 4], [1, 7, 7, 4, 7]),
    ],
)
def test_a_gap_is_filled_up_to_its_longest(how, closed, opened):
    """Once it has closed on a line, before it forward; a longer one, and one before all values, stay."""
    nan, has_cell = np.nan, np.ones(10, dtype=bool)
    column = np.array([nan, 1, nan, nan, 4, nan, nan, nan, 8, nan])
    found = Fill(how, 7, 2).apply(column, np.zeros(10, dtype=np.int64), has_cell)
    first, newest = (7, 7) if how == "value" else (nan, 8)
    np.testing.assert_array_equal(found.closed, [first, *closed, nan, nan, nan, 8, nan])
    np.testing.assert_array_equal(
        found.open[[0, 2, 3, 5, 6, 7, 9]], [first, *opened[1:3], opened[4], opened[4], nan, newest]
    )
    assert found.missing.tolist() == np.isnan(column).tolist() and found.seen[[2, 3, 5, 9]].tolist() == [1, 1, 4, 8]
    split = Fill("forward", longest=2).apply(column, np.repeat([0, 1], [3, 7]), has_cell)
    np.testing.assert_array_equal(split.open[[2, 3]], [1, nan])
    cells = has_cell & (np.arange(10) != 3)  # a row that the table does not have ends what is filled
    assert np.isnan(Fill("forward", longest=2).apply(column, np.zeros(10, dtype=np.int64), cells).open[3])


def test_levels_are_filled_forward_and_counted():
    """A text before all values stays missing, of all its levels; a number is filled as it was said."""
    frame = {"c": [None, "y", None, "x"], "a": [1, None, 2, "NA"], "y": np.arange(4.0)}
    encoding = Encoding((SourceColumn("c", ("x", "y")), SourceColumn("a")), fill=Fill("value", 0.5))
    spec = TableSpec(encoding, ("y",), 1)
    windows = Windows.cut(Table.read(spec, frame, CellNames("frame")))
    np.testing.assert_array_equal(windows.take()[:, 0], [[0, 1, 0.5], [0, 1, 2], [1, 0, 0.5]])
    assert windows.missing.by_column == {"c": 1}
    assert {name: counts.tolist() for name, counts in windows.filled.items()} == {"c": [0, 1, 0], "a": [1, 0, 1]}


@given(
    st.lists(st.integers(0, 2**31), min_size=1, max_size=9), st.sampled_from(["Europe/Berlin", "UTC", "Asia/Kolkata"])
)
def test_the_calendar_is_that_of_local_time(hours, zone):
    """Each cycle is that of pandas' local time."""
    instants = np.array(hours, dtype=np.float64)
    columns = Calendar(CALENDAR, 0).encode(to_local(instants, zone)).T
    at = pd.to_datetime(instants, unit="s", utc=True).tz_convert(zone)
    seconds = at.hour * 3600 + at.minute * 60 + at.second
    cycles = [seconds / 86_400, at.day_of_week / 7, (at.day_of_year - 1) / (365 + at.is_leap_year)]
    expected = [f(2 * np.pi * np.asarray(cycle)) for cycle in cycles for f in (np.sin, np.cos)]
    np.testing.assert_allclose(columns[:6], expected, atol=1e-12)
    assert columns[6].tolist() == (at.day_of_week >= 5).astype(float).tolist()


def test_an_hour_that_is_there_twice_names_the_remedy():
    """Without a zone it is an error of its own; with one both are read."""
    hours = ["2023-10-29 01:00", "2023-10-29 02:00", "2023-10-29 02:00", "2023-10-29 03:00"]
    frame = {"time": hours, "load": [1.0, 2.5, 3.5, 4.0], "a": [1, 2, 3, 4]}
    said = "data row 3, column time must not repeat a time, .* it is the hour that is there twice .* Europe/Berlin"
    with pytest.raises(DataError, match=said):
        make_table(frame, Columns(("load",), time="time", ahead=1))
    table = make_table(frame, Columns(("load",), time="time", ahead=1, zone="Europe/Berlin"))
    assert np.diff(table.table.instants).tolist() == [3600, 3600, 3600]
    days = frame | {"time": ["2023-10-30 02:00", "2023-10-30 02:00", "2023-10-30 03:00", "2023-10-30 04:00"]}
    with pytest.raises(DataError, match=r"column time must not repeat a time, but has 2023-10-30 02:00 twice$"):
        make_table(days, Columns(("load",), time="time", ahead=1))


def test_holidays_of_a_country_are_a_feature():
    """They are those of the package holidays; without it, or with another country, an error says so."""
    pytest.importorskip("holidays")
    frame = make_frame()
    model = kanmodel.train(frame, "load", time="time", ahead=1, holidays="DE-BB", fill=0.0, **QUICK)
    assert model.features[-1].name == "holiday" and model.features[-1].max == 1
    days = 86_400.0 * (19_632 + np.arange(3))  # from 2 October 2023
    assert Calendar((), 0, "DE").encode(days).ravel().tolist() == [0, 1, 0]
    with pytest.raises(ConfigError, match="holidays must name a country such as DE or DE-BY, but is 'Atlantis'"):
        public_holidays("Atlantis")


def test_holidays_without_their_package_are_an_error(monkeypatch):
    """It names the package."""
    monkeypatch.setitem(sys.modules, "holidays", None)
    with pytest.raises(ConfigError, match=r"the calendar of DE needs a package: pip install 'kanscope\[holidays\]'"):
        public_holidays("DE")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e["columns"].pop(), "encoding must give the features, in their order, but gives others"),
        (lambda e: e.update(zone="Mars"), "config.encoding has the unknown key 'zone'"),
        (lambda e: e["columns"][0].update(later=-1), "later must be a whole number from 0"),
        (lambda e: e["calendar"].update(parts=["minute"]), "parts.0. must be one of hour, weekday"),
        (lambda e: e["calendar"].pop("later"), "later"),
        (lambda e: e["fill"].update(how="back"), "how must be one of forward, linear, value"),
        (lambda e: e.update(more=1), "config.encoding has the unknown key 'more'"),
    ],
)
def test_a_checkpoint_with_another_encoding_is_refused(model, change, message):
    """The error names the place in its document."""
    document = json.loads(json.dumps(config_to_dict(model.config)))
    change(document["encoding"])
    with pytest.raises(ConfigError, match=message):
        config_from_dict(document)


def test_a_model_of_plain_columns_has_no_encoding():
    """Its document is as it was before there were encodings."""
    model = kanmodel.train(make_frame()[["load"]], "load", ahead=1, **QUICK)
    assert model.config.encoding is None and "encoding" not in config_to_dict(model.config)


def test_numbers_among_words_for_missing_values_are_numbers(model):
    """Readers of CSV give a column with such a word as texts; in training and in forecasts they are its numbers."""
    frame = make_frame()
    texts = frame.assign(temp=frame["temp"].map(str).replace("nan", "n/a"))
    assert texts["temp"].nunique() > 64
    np.testing.assert_array_equal(model.predict(texts), model.predict(frame))
    trained = kanmodel.train(texts, "load", **ROLES, **QUICK)
    assert trained.config.encoding == model.config.encoding


def test_an_index_with_the_name_of_the_time_column_has_the_times(model):
    """Also one of texts, as `set_index` gives it."""
    frame = make_frame()
    texts = frame.assign(time=frame["time"].dt.strftime("%Y-%m-%dT%H:%M%z")).set_index("time")
    np.testing.assert_array_equal(model.predict(texts, last=9), model.predict(frame, last=9))


def test_windows_whose_known_future_lies_after_a_gap_are_skipped(model):
    """A gap costs the windows that span it, and those that need a known column's value from beyond it."""
    lookback, later = model.lookback, model.config.encoding.later
    frame = make_frame().drop(index=N_ROWS - 30)
    skipped = model.predict(frame, last=40, gaps="skip")
    assert len(skipped) == 40 - (lookback - 1) - later
    np.testing.assert_allclose(skipped[-5:], model.predict(frame, last=5), rtol=1e-5)
