"""Tables as people have them are encoded in training and in serving alike."""

import json
import sys
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
from kanmodel.tables.instants import Clock, read_instants
from kanmodel.tables.roles import Columns, make_table

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


def encode(encoding, columns, instants=None, gaps=()):
    cells = {name: np.array(column, dtype=object) for name, column in columns.items()}
    run = np.zeros(len(next(iter(cells.values()))), dtype=np.int64)
    for gap in gaps:
        run[gap:] += 1
    numbers, bad = encoding.read(cells)
    assert not bad
    return encoding.encode(numbers, instants, run)


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
    """What the checkpoint's JSON keeps encodes the same rows to the same features, bit for bit."""
    data, columns = given_table
    table = make_table(data, columns)
    document = json.loads(json.dumps(config_to_dict(make_encoded(data, columns).config)))
    encoding = config_from_dict(document).encoding
    again = make_table(data, columns, encoding)
    assert again.feature_names == table.feature_names and again.groups == table.groups
    assert again.features.tobytes() == table.features.tobytes()


@given(tables(), st.data())
def test_a_part_of_a_table_is_encoded_as_the_whole(given_table, data):
    """With as many rows around it as `reach`, a part has the features that it has in the whole, bit for bit."""
    cells, columns = given_table
    table = make_table(cells, columns)
    n_rows, reach = table.n_rows, table.encoding.reach
    first = data.draw(st.integers(0, n_rows - 1))
    last = data.draw(st.integers(first + 1, n_rows))
    start, end = max(first - reach, 0), min(last + reach, n_rows)
    part = {name: np.array(column, dtype=object)[start:end] for name, column in cells.items() if name != "time"}
    run = np.cumsum(table.clock.gaps)[start:end]
    encoded = table.encoding.encode(table.encoding.read(part)[0], table.clock.seconds[start:end], run)
    assert encoded.values[first - start : last - start].tobytes() == table.features[first:last].tobytes()


@given(tables(), st.data())
def test_no_later_row_acts_on_a_feature_that_is_filled_forward(given_table, data):
    """Where training has a value, the rows up to there, and those after of which known columns are read, give it."""
    cells, columns = given_table
    table = make_table(cells, columns)
    if columns.fill == "linear":
        return  # reads the next value
    end = data.draw(st.integers(1, table.n_rows))
    part = {name: np.array(column, dtype=object)[:end] for name, column in cells.items() if name != "time"}
    run = np.cumsum(table.clock.gaps)[:end]
    encoded = table.encoding.encode(table.encoding.read(part)[0], table.clock.seconds[:end], run)
    both = ~np.isnan(encoded.values) & ~np.isnan(table.features[:end])
    np.testing.assert_array_equal(encoded.values[both], table.features[:end][both])
    unknown = [number for number, name in enumerate(table.feature_names) if f"+{columns.ahead}" not in name]
    assert (both | np.isnan(table.features[:end]))[:, unknown].all()


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
    table = make_table(frame, Columns(("load",), **ROLES | {"known": ("temp",)}))
    window = table.features[N_ROWS - 9 : N_ROWS - 3]
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
        (lambda f: spoil(f, "temp", slice(716, None), None), r"\['temp'\], row 713 must be known 3 rows later, but is"),
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
    with pytest.warns(UserWarning, match=r"windows are left out: .*for missing values, of temp\+3 \("):
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
    texts = {"id": [f"m{row}" for row in range(N_ROWS)], "site": ["north"] * N_ROWS}
    frame = make_frame().assign(**texts)
    with pytest.warns(
        UserWarning, match=r"id \(720 different texts, more than 64\), site \(the same text in every row"
    ):
        kanmodel.train(frame, "load", time="time", ahead=1, fill=0.0, **QUICK)
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
        f"{N_ROWS - 5 - 6 - used:,.0f} of {N_ROWS - 5 - 6:,} windows are left out: 6 that would cross"
    )
    assert f"{metrics['left_out_windows']:.0f} for missing values, of temp" in text


def test_a_gap_is_filled_up_to_its_longest():
    """Forward, on a line, or with a number; a longer one, and one before all values, stay."""
    column = np.array([np.nan, 1, np.nan, np.nan, 4, np.nan, np.nan, np.nan, 8, np.nan])
    run, nan = np.zeros(10, dtype=np.int64), np.nan
    expected = {
        "forward": [nan, 1, 1, 1, 4, nan, nan, nan, 8, 8],
        "linear": [nan, 1, 2, 3, 4, nan, nan, nan, 8, 8],
        "value": [7, 1, 7, 7, 4, nan, nan, nan, 8, 7],
    }
    for how, filled in expected.items():
        np.testing.assert_array_equal(Fill(how, 7, 2).fill(column, run), filled)
    split = np.repeat([0, 1], [3, 7])
    np.testing.assert_array_equal(Fill("forward", longest=2).fill(column, split)[:5], [nan, 1, 1, nan, 4])
    np.testing.assert_array_equal(Fill("forward", longest=9).fill(column, run, to_end=False)[-3:], [4, 8, nan])


def test_levels_are_filled_forward_and_counted():
    """A text before all values stays missing, of all its levels; a number is filled as it was said."""
    encoding = Encoding((SourceColumn("c", ("x", "y")), SourceColumn("a")), fill=Fill("value", 0.5))
    encoded = encode(encoding, {"c": [None, "y", None, "x"], "a": [1, None, 2, "NA"]})
    np.testing.assert_array_equal(encoded.values, [[np.nan, np.nan, 1], [0, 1, 0.5], [0, 1, 2], [1, 0, 0.5]])
    assert {name: rows.nonzero()[0].tolist() for name, rows in encoded.filled.items()} == {"c": [2], "a": [1, 3]}


@given(
    st.lists(st.integers(0, 2**31), min_size=1, max_size=9), st.sampled_from(["Europe/Berlin", "UTC", "Asia/Kolkata"])
)
def test_the_calendar_is_that_of_local_time(hours, zone):
    """Each cycle is that of pandas' local time, and the forecast's instant is the one that counts."""
    instants = np.array(hours, dtype=np.float64)
    columns = Calendar(CALENDAR, 3600.0).encode(instants, zone)
    at = (pd.to_datetime(instants + 3600, unit="s", utc=True)).tz_convert(zone)
    seconds = at.hour * 3600 + at.minute * 60 + at.second
    cycles = [seconds / 86_400, at.day_of_week / 7, (at.day_of_year - 1) / (365 + at.is_leap_year)]
    expected = [f(2 * np.pi * np.asarray(cycle)) for cycle in cycles for f in (np.sin, np.cos)]
    np.testing.assert_allclose(columns[:6], expected, atol=1e-12)
    assert columns[6].tolist() == (at.day_of_week >= 5).astype(float).tolist()


def test_an_hour_that_is_there_twice_is_told_with_both_values():
    """Without a zone it is an error of its own; with one, or offsets, both are read, and one alone is an error."""
    hours = ["2023-10-29 01:00", "2023-10-29 02:00", "2023-10-29 02:00", "2023-10-29 03:00"]
    frame = {"time": hours, "load": [1.0, 2.5, 3.5, 4.0], "a": [1, 2, 3, 4]}
    said = "data row 3, column time is 2023-10-29 02:00 as in data row 2, with load 2.5 and 3.5: the hour that is there"
    with pytest.raises(DataError, match=said):
        make_table(frame, Columns(("load",), time="time", ahead=1))
    table = make_table(frame, Columns(("load",), time="time", ahead=1, zone="Europe/Berlin"))
    assert np.diff(table.clock.seconds).tolist() == [3600, 3600, 3600]
    back, _ = read_instants(np.array(hours[::-1]), str, "Europe/Berlin")
    assert back[::-1].tolist() == table.clock.seconds.tolist()
    with pytest.raises(DataError, match=r"is 2023-10-29 02:00, which Europe/Berlin has twice, .* but the table once"):
        read_instants(np.array(hours[2:]), str, "Europe/Berlin")
    with pytest.raises(DataError, match="is 2024-03-31 02:00, which does not exist in Europe/Berlin"):
        read_instants(np.array(["2024-03-31 02:00"]), str, "Europe/Berlin")
    offsets = [f"{hour}+0{2 if row < 2 else 1}:00" for row, hour in enumerate(hours)]
    assert Clock.of(offsets, zone="Europe/Berlin").seconds.tolist() == table.clock.seconds.tolist()
    with pytest.raises(DataError, match="column time is the same as in the row above it"):
        Clock.of(["2023-10-30 02:00", "2023-10-30 02:00"])


def test_days_with_dots_are_read_day_first():
    """31.12.2023 23:00 is a time; 12/31/2023, which could be read in two ways, is none."""
    seconds, dated = read_instants(np.array(["31.12.2023 23:00", "01.02.2024", "1.2.2024 00:00:01"]), str)
    assert dated and seconds.tolist() == [1704063600, 1706745600, 1706745601]
    with pytest.raises(DataError, match=r"must be a time in ISO 8601 or as 31.12.2023 23:00, .* is '01/02/2024'"):
        read_instants(np.array(["01/02/2024"]), str)


def test_holidays_of_a_country_are_a_feature():
    """They are those of the package holidays; without it, or with another country, an error says so."""
    pytest.importorskip("holidays")
    frame = make_frame()
    model = kanmodel.train(frame, "load", time="time", ahead=1, holidays="DE-BB", fill=0.0, **QUICK)
    assert model.features[-1].name == "holiday" and model.features[-1].max == 1
    days = 86_400.0 * (19_632 + np.arange(3))  # from 2 October 2023
    assert Calendar((), 0.0, "DE").encode(days, None)[0].tolist() == [0, 1, 0]
    with pytest.raises(ConfigError, match="holidays must name a country such as DE or DE-BY, but is 'Atlantis'"):
        public_holidays("Atlantis")


def test_holidays_without_their_package_are_an_error(monkeypatch):
    """It names the package."""
    monkeypatch.setitem(sys.modules, "holidays", None)
    with pytest.raises(ConfigError, match="holidays of DE need the package holidays: pip install holidays"):
        public_holidays("DE")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e["columns"].pop(), "encoding must give the features, in their order, but gives others"),
        (lambda e: e.update(zone="Mars"), "config.encoding: zone must be a time zone"),
        (lambda e: e["columns"][0].update(later=-1), "later must be a whole number from 0"),
        (lambda e: e["calendar"].update(parts=["minute"]), "parts.0. must be one of hour, weekday"),
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
