"""Windows hold what was known when their forecasts were due; the newest of a data frame are cut by number or time."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from factories import make_encoded, make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel import Model, UnknownNameError
from kanmodel.errors import DataError
from kanmodel.forecaster import Forecaster
from kanmodel.network.network import Network
from kanmodel.tables.encoding import Encoding, Fill, SourceColumn, plain_encoding
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.roles import Columns, make_table
from kanmodel.tables.samples import covered_rows
from kanmodel.tables.table import CellNames, Selection, SeriesColumn, Table, TableSpec
from kanmodel.tables.windows import Windows, read_all_windows, read_windows

HOUR = 3600
PLACES = CellNames("frame")


@st.composite
def tables(draw, least=12, most=40):
    """Hours of one or more series with gaps and missing cells, their columns, and the rows in some order."""
    rng, n_series = np.random.default_rng(draw(st.integers(0, 9999))), draw(st.integers(1, 3))
    zone = draw(st.sampled_from([None, "Europe/Berlin"]))
    parts = []
    for number in range(n_series):
        n = draw(st.integers(least, most))

        def holes(values, share, n=n):
            return np.where(rng.random(n) < share, None, values.astype(object))

        steps = np.where(rng.random(n) < 0.08, rng.integers(2, 5, n), 1)
        at = pd.to_datetime(1_700_000_000 // HOUR * HOUR + np.cumsum(steps) * HOUR, unit="s", utc=True)
        columns = {"time": at, "utc": at, "shop": f"s{number}", "region": ["north", "south", "north"][number]}
        columns |= {"a": holes(rng.normal(size=n), 0.35), "k": holes(rng.normal(size=n), 0.1)}
        columns |= {"c": holes(rng.choice(["x", "y"], n), 0.2), "y": holes(rng.normal(size=n), 0.2)}
        frame = pd.DataFrame(columns)
        frame.loc[[0, 1], "c"] = ["x", "y"]  # all levels
        parts.append(frame)
    frame = pd.concat(parts, ignore_index=True)
    if zone:
        frame["time"] = frame["time"].dt.tz_convert(zone)
    many = {"series": "shop", "static": ("region",)} if n_series > 1 else {}
    given_fill = draw(st.sampled_from([None, "forward", "linear", 1.5]))
    roles = Columns(
        ("y",),
        ("a", "k", "c", "y"),
        time="time",
        zone=zone,
        ahead=draw(st.integers(1, 3)),
        known=draw(st.sampled_from([(), ("k",), ("k", "c")])),
        calendar=draw(st.sampled_from([False, ["hour", "weekend"]])),
        fill=given_fill,
        max_fill=draw(st.integers(1, 6)),
        **many,
    )
    if draw(st.booleans()):
        frame = frame.sort_values("utc", kind="stable", ignore_index=True)
    return frame, roles


def forget(frame, roles, origin, how, seed=0):
    """The table as it was at an instant, with known columns up to `ahead` hours later: the rest is cut or spoiled."""
    end = origin + pd.Timedelta(hours=roles.ahead if roles.known else 0)
    after, unknown = frame["utc"] > origin, [name for name in ("a", "k", "c", "y") if name not in roles.known]
    changed = frame.copy()
    rng = np.random.default_rng(seed)
    for name in unknown:
        values = {"blank": None, "cut": None, "replace": "x" if name == "c" else 1e6}.get(how)
        if how == "shuffle":
            values = rng.permutation(frame.loc[after, name].to_numpy(copy=True))
        changed.loc[after, name] = values
    if how == "cut":
        return changed[frame["utc"] <= end].reset_index(drop=True)
    beyond = frame["utc"] > end
    for name in roles.known:
        values = frame.loc[beyond, name].to_numpy(copy=True)
        changed.loc[beyond, name] = None if how == "blank" else rng.permutation(values)
    return changed


def cut(spec, frame):
    """The windows of a table by series and time."""
    windows = Windows.cut(Table.read(spec, frame.drop(columns="utc"), PLACES))
    names = windows.series or [""] * len(windows)
    return windows, dict(zip(zip(names, windows.times, strict=True), range(len(windows)), strict=True))


@settings(max_examples=examples(150))
@given(
    tables(), st.data(), st.integers(1, 5), st.integers(1, 3), st.sampled_from(["cut", "blank", "replace", "shuffle"])
)
def test_no_later_row_changes_a_window(given_table, data, lookback, horizon, how):
    """Of any columns and fills, whether later rows are cut off, emptied, replaced or shuffled."""
    frame, roles = given_table
    spec = replace(make_table(frame.drop(columns="utc"), roles).spec, lookback=lookback, horizon=horizon)
    try:
        windows, numbers = cut(spec, frame)
    except DataError as error:
        assert "has no window" in str(error) or "rows, but needs" in str(error)
        return
    key = data.draw(st.sampled_from(sorted(numbers)))
    origin = pd.Timestamp(float(windows.table.instants[windows.ends[numbers[key]]]), unit="s", tz="UTC")
    again, others = cut(spec, forget(frame, roles, origin, how))
    one, other = (of.take([at[key]]) for of, at in ((windows, numbers), (again, others)))
    assert np.isfinite(one).all() and one.tobytes() == other.tobytes()
    for forecast in (lambda of: of.persistence(0), lambda of: of.seasonal_naive(0, 24)):
        np.testing.assert_array_equal(forecast(windows)[numbers[key]], forecast(again)[others[key]])


@settings(max_examples=examples(12))
@given(tables(20, 30), st.data(), st.sampled_from(["cut", "blank", "shuffle"]))
def test_no_later_row_changes_a_forecast_or_what_is_said_of_it(given_table, data, how):
    """`predict`, `explain`, `backtest`, `changes` and `drift` have the same windows, and so the same forecasts."""
    frame, roles = given_table
    table = frame.drop(columns="utc")
    model = Model.of(make_encoded(table, roles, lookback=3))
    try:
        backtest = model.backtest(table)
    except DataError as error:
        assert "frame has" in str(error)
        return
    names = backtest.series or ("",) * len(backtest)
    at = dict(zip(zip(names, backtest.times, strict=True), backtest.predictions[:, 0], strict=True))
    stretch = read_all_windows(model.config.table, table)  # of drift
    numbers = {key: number for number, key in enumerate(zip(stretch.series or names, stretch.times, strict=False))}
    name, time = key = data.draw(st.sampled_from(sorted(at)))
    window, origin = stretch.take([numbers[key]]), pd.Timestamp(time).tz_convert("UTC")
    known, one = forget(frame, roles, origin, "cut").drop(columns="utc"), {"series": name} if name else {}
    assert read_windows(model.config.table, known, **one)[0].tobytes() == window.tobytes()
    assert model.predict(known, **one).tobytes() == model.predict(window).tobytes()
    assert model.predict(window)[0, 0] == pytest.approx(at[key], abs=1e-9)
    explained, expected = model.explain(known, detail="steps", **one), model.explain(window, detail="steps")
    assert explained.times == (time,) and explained.steps.tobytes() == expected.steps.tobytes()
    try:
        changes = model.changes(known, **one)
    except DataError as error:
        assert "gap" in str(error) or "empty" in str(error) or "rows, but needs" in str(error)
    else:
        before = (name, (pd.Timestamp(time) - pd.Timedelta(hours=1)).isoformat())
        assert changes.predictions[0] == pytest.approx(at[key], abs=1e-9)
        assert before not in at or changes.earlier_predictions[0] == pytest.approx(at[before], abs=1e-9)
    spoiled = forget(frame, roles, origin, how).drop(columns="utc")
    if how != "cut":
        again = read_all_windows(model.config.table, spoiled)
        keys = [*zip(again.series or ("",) * len(again), again.times, strict=True)]
        assert again.take([keys.index(key)]).tobytes() == window.tobytes()


@pytest.mark.parametrize("fill", ["linear", "forward"])
def test_a_long_outage_is_judged_as_it_was_lived(fill):
    """The windows that a backtest has are exactly those for which there was a forecast when they were due."""
    rng, n = np.random.default_rng(0), 120
    frame = pl.DataFrame({"time": np.datetime64("2024-01-01T00", "ms") + HOUR * 1000 * np.arange(n)})
    frame = frame.with_columns(load=rng.normal(size=n), temp=rng.normal(size=n))
    row = pl.int_range(pl.len())
    frame = frame.with_columns(
        temp=pl.when(~row.is_between(40, 59) & ~row.is_in([80, 81, 90])).then("temp"),
        load=pl.when(~row.is_between(45, 52)).then("load"),
    )
    columns = Columns(("load",), time="time", ahead=2, fill=fill, max_fill=3)
    model = Model.of(make_encoded(frame, columns, lookback=4))
    live = {}
    for end in range(4, n - 2 + 1):
        try:
            live[str(frame["time"][end - 1]).replace(" ", "T")] = model.predict(frame[:end])[0, 0]
        except DataError as error:
            assert "cannot be filled" in str(error)
    backtest = model.backtest(frame)
    assert [time.removesuffix(".000") for time in backtest.times] == list(live)
    np.testing.assert_allclose(backtest.predictions[:, 0], list(live.values()), rtol=0, atol=1e-9)
    assert 60 < len(live) < n - 40 + 20 and backtest.missing.windows == n - 5 - len(live)


def test_what_is_forecast_is_found_by_the_clock():
    """Over the end of daylight saving a day later is the same local hour, and Monday is no weekend."""
    days = pd.date_range("2024-10-01", periods=60, freq="D", tz="Europe/Berlin")
    frame = pd.DataFrame({"time": days, "load": np.arange(60.0)})
    model = Model.of(
        make_encoded(frame, Columns(("load",), time="time", ahead=1, calendar=["weekend", "weekday"]), lookback=2)
    )
    windows = read_all_windows(model.config.table, frame)
    weekend = windows.take()[:, -1, list(model.config.feature_names).index("weekend")]
    forecast = days[1:] + pd.DateOffset(days=1)
    assert weekend.tolist() == (forecast.dayofweek >= 5).astype(float).tolist()
    assert windows.instants(0).tolist() == (forecast.as_unit("s").asi8).astype(float).tolist()
    np.testing.assert_array_equal(windows.actual(0)[:-1, 0], np.arange(2.0, 60.0))


def test_the_day_after_friday_is_monday_where_weekends_have_no_rows():
    """The calendar of its forecast is Monday's; a holiday is no gap."""
    days = pd.bdate_range("2024-01-01", periods=80).delete(20)
    frame = pd.DataFrame({"time": days, "price": np.arange(79.0)})
    columns = Columns(("price",), time="time", ahead=1, calendar=["weekend", "weekday"])
    model = Model.of(make_encoded(frame, columns, lookback=3))
    windows = read_all_windows(model.config.table, frame)
    assert len(windows) == 77 and not windows.across_gaps
    weekend, sine = (
        windows.take()[:, -1, model.config.feature_names.index(name)] for name in ("weekend", "weekday_sin")
    )
    assert not weekend.any()
    fridays = days[2:].dayofweek == 4
    np.testing.assert_allclose(sine[fridays], 0, atol=1e-12)  # of Monday
    assert model.backtest(frame).rows()[2]["target_time"].startswith("2024-01-08")


def test_no_day_is_lost_over_the_ends_of_months():
    """Dates as 20240131, texts or whole numbers, are steps of a day."""
    days = pd.date_range("2024-01-01", periods=300, freq="D").strftime("%Y%m%d")
    for column in (days.to_numpy(dtype=object), days.astype(int).to_numpy()):
        frame = {"time": column, "load": np.arange(300.0)}
        model = Model.of(make_encoded(frame, Columns(("load",), time="time", ahead=1), lookback=5))
        assert len(model.backtest(frame)) == 295
        assert model.backtest(frame).rows()[0]["target_time"] == "20240106"


LOADED = make_model()
NAMES, LOOKBACK = LOADED.config.feature_names, LOADED.config.lookback


@pytest.fixture(scope="module")
def model():
    """A model of hourly rows."""
    network = Network(replace(LOADED.config, time=TimeColumn("time", 3600.0, 1.5, True)))
    network.load_state_dict(LOADED.network.state_dict())
    return Model.of(Forecaster(network, LOADED.reference, {}, LOADED.provenance))


def make_frame(n=200, leave_out=()):
    """Hourly rows from 1 May 2024, in a shuffled order, without some of them."""
    rows = np.random.default_rng(0).normal(size=(n, len(NAMES)))
    time = pd.date_range("2024-05-01", periods=n, freq="h")
    frame = pd.DataFrame(rows, columns=NAMES).assign(time=time).drop(index=[*leave_out])
    return frame.sample(frac=1, random_state=0)


@settings(max_examples=examples(30))
@given(hours=st.integers(1, 190), unit=st.sampled_from(["h", "min", "d", None]))
def test_windows_are_cut_by_time(model, hours, unit):
    """One for each row within the duration before the newest row; the forecasts are those of windows cut by hand."""
    last = {"h": f"{hours}h", "min": f"{60 * hours} min", "d": f"{hours / 24!r}d", None: hours}[unit]
    frame = make_frame()
    ordered = frame.sort_values("time")
    rows = ordered[list(NAMES)].to_numpy()
    windows = np.array([rows[end - LOOKBACK : end] for end in range(201 - hours, 201)])
    if "e" in str(last):  # a float that is written with an exponent is no duration
        return
    for table in (frame, pl.DataFrame(frame)):
        np.testing.assert_array_equal(model.predict(table, last=last), model.predict(windows))
    explained = model.explain(frame, last=last, detail="features")
    times = [str(time).replace(" ", "T") for time in ordered["time"][-hours:]]
    assert list(explained.times) == times and explained[0].times == (times[0],)
    assert [row["time"] for row in explained.table()[:: len(NAMES)]] == times


def test_one_window_by_default(model):
    """A frame is its newest window, as always."""
    frame = make_frame()
    assert model.predict(frame).shape == (1, 1) and len(model.explain(frame)) == 1
    assert model.explain(frame).times == ("2024-05-09T07:00:00",)
    assert "2024-05-09T07:00:00" in repr(model.explain(frame))


def test_a_gap_is_refused_or_its_windows_are_left_out(model):
    """The error names the gap; with `skip`, the forecasts are those of the windows on one side of it."""
    frame = make_frame(leave_out=[150])
    with pytest.raises(DataError, match="goes from 2024-05-07T05:00:00 to 2024-05-07T07:00:00"):
        model.predict(frame, last="3d")
    assert len(model.predict(frame, last=49 - LOOKBACK + 1)) == 44  # the rows since the gap
    explained = model.explain(frame, last="3d", gaps="skip", detail="features")
    kept = 71 - (LOOKBACK - 1)
    assert len(explained) == kept
    np.testing.assert_allclose(explained.predictions[:, None], model.predict(explained.windows), atol=1e-9)
    complete = make_frame()
    of_complete = model.explain(complete, last="3d", detail="features")
    common = [of_complete.times.index(time) for time in explained.times]
    np.testing.assert_array_equal(of_complete.windows[common], explained.windows)


@pytest.mark.parametrize(
    ("frame", "options", "error", "message"),
    [
        (make_frame(), {"last": "soon"}, DataError, "last must be a number of windows, or a duration such as 7d"),
        (make_frame(), {"last": "0d"}, DataError, "last must be a number of windows, or a duration"),
        (make_frame(), {"last": 0}, DataError, "last must be"),
        (make_frame(), {"last": 199}, DataError, r"has 200 rows, but needs 204 for 199 windows"),
        (make_frame(), {"last": "3w"}, DataError, r"has 200 rows, but needs 205 for 200 windows"),
        (make_frame(), {"gaps": "fill"}, UnknownNameError, "gaps"),
        (make_frame().drop(columns="time").reset_index(drop=True), {"last": "3d"}, DataError, "the rows have no dates"),
        (np.zeros((6, 4)), {"last": 3}, DataError, "last is of a data frame"),
        (
            make_frame(leave_out=range(3, 200, 4)),
            {"last": 20, "gaps": "skip"},
            DataError,
            "of 20, 20 cross a gap",
        ),
    ],
)
def test_what_does_not_fit_is_refused(model, frame, options, error, message):
    """The error names the option, or how many rows are needed."""
    with pytest.raises(error, match=message):
        model.predict(frame, **options)


WIDE = TableSpec(plain_encoding(["load"]), ("load",), 1, None, SeriesColumn("series", ("a", "b"), ("a", "b")), 2)


JSON = CellNames("series", kind="json")


ORDERED = Selection(is_ordered=True)


def test_an_error_in_a_wide_table_names_its_column_and_row():
    """Not those of the long table that it becomes; and the series."""
    rows = {"time": np.arange(4), "a": [1.0, 2.0, 3.0, 4.0], "b": [1.0, 2.0, np.nan, 4.0]}
    with pytest.raises(DataError, match=r"^series\.b\[2\] \(series b\) is empty"):
        Windows.cut(Table.read(WIDE, rows, JSON, ORDERED), skip=False)


def test_the_index_of_a_wide_frame_has_the_times_of_each_series():
    """As in training, where its dates are repeated as well."""
    index = pd.date_range("2024-03-01", periods=4, freq="h")
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [5.0, 6.0, 7.0, 8.0]}, index=index)
    _, found = read_windows(WIDE, frame)
    assert found.times == ("2024-03-01T03:00:00",) * 2 and found.series == ("a", "b")


def test_rows_out_of_order_are_refused_whether_or_not_the_rhythm_is_known():
    """In a sentence that names the row; the rhythm of the rows alone does not run backwards."""
    spec = TableSpec(plain_encoding(["load"]), ("load",), lookback=2)
    rows = {"time": np.arange(6)[::-1], "load": np.zeros(6)}
    for finds_rhythm in (True, False):
        with pytest.raises(DataError, match=r"^series\.time\[1\] must be later than 5 in the row before it, but is 4$"):
            Windows.cut(Table.read(spec, rows, JSON, Selection(is_ordered=True, finds_rhythm=finds_rhythm)))


def test_without_a_rhythm_no_step_is_a_gap():
    """Of a model that was trained without times only the order of rows is checked where a request says so."""
    spec = TableSpec(plain_encoding(["load"]), ("load",), lookback=2)
    rows = {"time": np.array([0, 1, 2, 50, 51]), "load": np.zeros(5)}
    counts = [
        (len(found), found.across_gaps)
        for finds_rhythm in (True, False)
        for found in [Windows.cut(Table.read(spec, rows, JSON, Selection(is_ordered=True, finds_rhythm=finds_rhythm)))]
    ]
    assert counts == [(3, 1), (4, 0)]


def test_a_gap_that_may_be_skipped_takes_the_windows_along_whose_known_rows_it_lacks():
    """They are across it, as those with rows on both sides are; without leave to skip the gap is refused."""
    encoding = Encoding((SourceColumn("temp", later=3),))
    spec = TableSpec(encoding, ("load",), 3, TimeColumn("time", 1.0, 1.5, False), None, 4)
    time = np.delete(np.arange(30), 15)
    table = Table.read(spec, {"time": time, "temp": np.arange(29.0)}, JSON, Selection(reach=3, is_ordered=True))
    found = Windows.cut(table, gaps="skip", skip=False)
    assert found.across_gaps == 3 + 3 and len(found) == 29 - 3 - 3 - 6
    with pytest.raises(DataError, match="must have no gap before it, but goes from 14 to 16"):
        Windows.cut(table, gaps="error", skip=False)


def test_each_row_of_windows_is_traced_to_the_table():
    """Also those that were made for a gap that is open at the end of a window."""
    encoding = Encoding((SourceColumn("load"),), fill=Fill("linear", longest=3))
    values = np.array([1.0, 2, np.nan, np.nan, 5, 6, np.nan, 8, np.nan])
    table = Table.read(TableSpec(encoding, ("load",), 1, lookback=3), {"load": values}, JSON)
    found = Windows.cut(table)
    for window, end in enumerate(found.ends.tolist()):
        index = found.index(np.array([window]))[0]
        np.testing.assert_array_equal(found.source(index), np.arange(end - 2, end + 1))
    covered = np.flatnonzero(covered_rows(found, np.arange(len(found))))
    assert np.isfinite(found.rows[covered]).all() and len(covered) > len(values)


@pytest.mark.parametrize("zone", [None, "UTC"], ids=["rows", "times"])
def test_a_forecast_of_what_the_table_has_warns_of_it(zone):
    """Of the newest window where columns are known in advance, at the caller's line; not of windows asked for."""
    n = 30
    frame = pd.DataFrame({"a": np.arange(n) % 5.0, "k": np.arange(n) % 7.0, "y": np.arange(n) % 3.0})
    if zone:
        frame["time"] = pd.date_range("2024-01-01", periods=n, freq="h", tz=zone)
    coming = frame.assign(**{name: [*np.zeros(n - 1), np.nan] for name in ("a", "y")})

    def model_of(known):
        roles = Columns(("y",), ("a", "k", "y"), time=zone and "time", zone=zone, ahead=1, known=known)
        return Model.of(make_encoded(frame, roles, lookback=3))

    model, at = model_of(("k",)), r" of 2024-01-02T05:00:00\+00:00" if zone else ""
    message = f"begins with a row{at} whose actual value the table has: to forecast what follows, append the rows"
    for ask in (model.predict, model.explain):
        with pytest.warns(UserWarning, match=message) as caught:
            ask(frame)
        assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(coming)
        model.predict(frame, last=1)
        model_of(()).predict(frame)
