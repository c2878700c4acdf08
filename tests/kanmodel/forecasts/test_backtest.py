"""A backtest's errors are those that polars and numpy compute from forecasts, actual values and last known values."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from factories import make_encoded, make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from thorough import examples

import kanmodel
from kanmodel import DataError, Model, UnknownNameError
from kanmodel.forecasts.backtest import Backtest
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.roles import Columns
from kanmodel.tables.windows import Missing

LOOKBACK, AHEAD, HORIZON, ZONE = 4, 3, 2, "Europe/Berlin"
COLUMNS = Columns(("load",), time="time", zone=ZONE, calendar=True, known=("sky",), fill="forward", max_fill=2)
COLUMNS = replace(COLUMNS, ahead=AHEAD, units={"load": "MW"})


def make_frame(n=430):
    """Hours of Berlin's local time over the end of daylight saving, with gaps and missing values."""
    utc = pl.datetime_range(pl.datetime(2024, 10, 20), pl.datetime(2024, 10, 20) + pl.duration(hours=n - 1), "1h")
    frame = pl.select(utc=utc)
    local = pl.col("utc").dt.replace_time_zone("UTC").dt.convert_time_zone(ZONE).dt.replace_time_zone(None)
    rng, row = np.random.default_rng(0), pl.int_range(pl.len())
    frame = frame.with_columns(
        time=local,
        load=pl.Series(50 + 10 * np.sin(np.arange(n) / 4) + rng.normal(size=n)),
        temp=pl.Series(rng.normal(8, 3, size=n)),
        sky=pl.Series(rng.choice(["calm", "windy"], size=n)),
    )
    frame = frame.with_columns(
        load=pl.when((row % 37 != 5) & ~row.is_between(300, 306)).then("load"),
        temp=pl.when((row % 53 != 7) & ~row.is_between(200, 204)).then("temp"),
    )
    return frame.filter(~row.is_in([60, 61, 150]))


FRAME = make_frame()


@pytest.fixture(scope="module")
def model():
    """An hourly model of two steps, from three hours ahead."""
    return Model.of(make_encoded(FRAME.drop("utc"), COLUMNS, LOOKBACK, horizon=HORIZON))


@pytest.fixture(scope="module")
def backtest(model):
    """Over the whole table, newest row first."""
    return model.backtest(FRAME.drop("utc").reverse())


def forecast_by_hand(model):
    """A row for each forecast that was possible when it was due, from the table cut off there.

    With its actual value, the last known one, those whole days and weeks before, and both times.
    """
    rows, hour = [], timedelta(hours=1)
    aware = FRAME.with_columns(time=pl.col("utc").dt.replace_time_zone("UTC"))  # a slice may halve the hour
    load, sky = (dict(FRAME.select("utc", name).iter_rows()) for name in ("load", "sky"))
    hours = list(load)
    for number, end in enumerate(hours[LOOKBACK - 1 :], LOOKBACK - 1):
        if end + (AHEAD + HORIZON - 1) * hour > hours[-1] or end - hours[number - LOOKBACK + 1] > (LOOKBACK - 1) * hour:
            continue  # after which the table ends, or across a gap
        if end + AHEAD * hour not in sky:
            continue  # whose known future is not there
        cut = aware.filter(pl.col("utc") <= end + AHEAD * hour)
        after = pl.col("utc") > end
        cut = cut.with_columns(pl.when(~after).then("load").alias("load"), pl.when(~after).then("temp").alias("temp"))
        try:
            predicted = model.predict(cut.drop("utc"))[0].tolist()
        except DataError:
            continue  # a value that cannot be filled
        known = [at for at in hours[: number + 1] if load[at] is not None]
        for step in range(AHEAD, AHEAD + HORIZON):
            at = end + step * hour
            facts = {"end": end, "step": step, "time": at, "prediction": predicted[step - AHEAD]}
            facts |= {"actual": load.get(at), "persistence": load[known[-1]] if known else None}
            for season in (24, 168):
                same = [before for before in known if (at - before) % (season * hour) == timedelta()]
                facts[f"naive {season}"] = load[same[-1]] if same else None
            rows.append(facts)
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return frame.with_columns(local=pl.col("time").dt.replace_time_zone("UTC").dt.convert_time_zone(ZONE))


@pytest.fixture(scope="module")
def by_hand(model):
    """The forecasts of every window of the table."""
    return forecast_by_hand(model)


def measure(rows):
    """The errors of some of these rows."""
    error = rows["prediction"] - rows["actual"]
    of_persistence = (rows["persistence"] - rows["actual"]).abs().mean()
    return {
        "count": len(error.drop_nulls()),
        "mae": error.abs().mean(),
        "rmse": (error**2).mean() ** 0.5,
        "bias": error.mean(),
        "persistence_mae": of_persistence,
        "seasonal_naive_mae": (rows["naive 24"] - rows["actual"]).abs().mean(),
        "skill": 1 - error.abs().mean() / of_persistence,
    }


def test_every_forecast_is_beside_its_actual_value(backtest, by_hand):
    """Each is what `predict` says of its window; gaps and values that cannot be filled leave windows out, by number."""
    assert len(backtest) == len(by_hand) // HORIZON
    np.testing.assert_allclose(backtest.predictions.ravel(), by_hand["prediction"].to_numpy(), atol=1e-9)
    np.testing.assert_array_equal(backtest.actual.ravel(), by_hand["actual"].to_numpy())
    assert backtest.season == (24, "day")
    np.testing.assert_array_equal(backtest.seasonal_naive.ravel(), by_hand["naive 24"].to_numpy())
    np.testing.assert_array_equal(backtest.persistence.ravel(), by_hand["persistence"].to_numpy())
    assert backtest.outputs == ("load+3", "load+4") and backtest.unit == "MW"
    rows = backtest.rows()
    assert [row["error"] for row in rows] == [
        None if row["actual"] is None else row["prediction"] - row["actual"] for row in rows
    ]
    times = by_hand["local"].dt.replace_time_zone(None).cast(pl.String).to_list()
    assert [row["target_time"].replace("T", " ") for row in rows] == [time.removesuffix(".000000") for time in times]
    all_windows = len(FRAME) - LOOKBACK - AHEAD - HORIZON + 2
    assert all_windows - len(backtest) == backtest.across_gaps + backtest.missing.windows
    assert f"{by_hand['actual'].null_count()} forecasts without an actual value" in backtest.left_out
    assert backtest.across_gaps == 2 * (LOOKBACK - 1 + AHEAD) and backtest.missing.windows > 0


def test_errors_are_those_of_polars(backtest, by_hand):
    """Overall, by step, and by hour, month and week of the time that is forecast on Berlin's clock, with 2 twice."""
    hour, month = by_hand["local"].dt.hour(), by_hand["local"].dt.strftime("%Y-%m")
    week = by_hand["local"].dt.date().dt.truncate("1w").cast(pl.String)
    assert backtest.metrics.row() == pytest.approx(measure(by_hand), rel=1e-9)
    keys = {"horizon": by_hand["step"], "hour": hour, "month": month, "week": week}
    assert list(backtest.by) == list(keys)
    for name, of_rows in keys.items():
        groups = backtest.by[name]
        assert list(groups) == sorted(of_rows.unique())
        for value, errors in groups.items():
            expected = measure(by_hand.filter(of_rows == value))
            if expected["seasonal_naive_mae"] is None:  # of the first day
                assert errors.row()["seasonal_naive_mae"] is expected.pop("seasonal_naive_mae")
            found = {key: errors.row()[key] for key in expected}
            assert found == pytest.approx(expected, rel=1e-9), (name, value)
    assert (backtest.local == 2 * 3600 + 1729987200).sum() == 2 * HORIZON  # 27 October, at 2 o'clock
    table = backtest.table()
    assert table[0] == {"by": "all", "value": None} | backtest.metrics.row()
    assert len(table) == 1 + HORIZON + 24 + 2 + 4 and table[-1]["value"] == "2024-11-04"


def test_the_newest_windows_are_those_of_the_whole_table(model, backtest, by_hand):
    """A duration counts from the newest row whose whole horizon the table has."""
    recent = model.backtest(FRAME.drop("utc"), last="3d")
    newest = FRAME["utc"][len(FRAME) - AHEAD - HORIZON]
    chosen = by_hand.filter(pl.col("end") > newest - pl.duration(days=3))
    assert len(recent) == len(chosen) // HORIZON <= 72
    np.testing.assert_allclose(recent.predictions, backtest.predictions[-len(recent) :], rtol=1e-5)
    for name in ("persistence", "seasonal_naive"):
        np.testing.assert_array_equal(getattr(recent, name), getattr(backtest, name)[-len(recent) :])
    assert recent.metrics.row() == pytest.approx(measure(chosen), rel=1e-9)


def test_it_shows_itself(backtest):
    """As text with a table for each, and as a picture with a panel for each; both name clock and unit."""
    text, picture = repr(backtest), backtest.svg()
    assert text.startswith("Backtest of load (MW)\n") and "of the time that is forecast, in Europe/Berlin" in text
    assert all(f"\n{name} " in text for name in ("horizon", "hour", "month")) and "\n  23 " in text
    assert picture.count('class="column"') == HORIZON + 24 + 2 and "MW" in picture
    assert "By month" in backtest.html() and "<img" in backtest._repr_html_()


@settings(max_examples=examples(60))
@given(data=st.data(), n=st.integers(1, 30), horizon=st.integers(1, 4))
def test_errors_hold_for_any_numbers(data, n, horizon):
    """Means over what is known; nothing known is None, and so is skill where persistence has no error."""
    some = st.floats(-100, 100) | st.just(np.nan)
    actual = data.draw(arrays.arrays(float, (n, horizon), elements=some))
    last = data.draw(arrays.arrays(float, n, elements=some))
    predictions = data.draw(arrays.arrays(float, (n, horizon), elements=st.floats(-100, 100)))
    local = data.draw(arrays.arrays(float, (n, horizon), elements=st.integers(0, 10**8)))
    result = Backtest(
        target="y",
        unit=None,
        outputs=tuple(f"y+{s}" for s in range(horizon)),
        steps=tuple(range(horizon)),
        predictions=predictions,
        actual=actual,
        persistence=np.repeat(last[:, None], horizon, axis=1),
        seasonal_naive=np.full((n, horizon), np.nan),
        season=None,
        is_shifted=False,
        target_times=None,
        local=local,
        zone=None,
        within_day=True,
        across_gaps=0,
        missing=Missing(),
    )
    for step, errors in result.by["horizon"].items():
        known = ~np.isnan(actual[:, step])
        both = known & ~np.isnan(last)
        error, theirs = (predictions - actual)[:, step], np.abs(last - actual[:, step])[both]
        assert errors.count == known.sum()
        for value, of in ((errors.mae, np.abs(error)), (errors.bias, error)):
            assert value == (pytest.approx(of[known].mean(), abs=1e-9) if known.any() else None)
        assert errors.persistence_mae == (pytest.approx(theirs.mean(), abs=1e-9) if both.any() else None)
        skill = 1 - np.abs(error[both]).sum() / theirs.sum() if theirs.sum() else None
        assert errors.skill == (skill if skill is None else pytest.approx(skill, rel=1e-9, abs=1e-9))
    for groups in result.by.values():
        assert sum(errors.count for errors in groups.values()) == result.metrics.count
    repr(result), result.svg()


def test_without_dates_there_are_no_hours_and_months():
    """Rows without times, and times in numbers, have errors by step alone; rows of a day have months, and no hours."""
    loaded = make_model()
    rows = {name: np.arange(40.0) % 7 for name in loaded.config.feature_names} | {"y": np.arange(40.0)}
    plain = Model.of(loaded).backtest(rows)
    assert plain.by["hour"] == plain.by["month"] == {} and plain.times is None
    assert "time" not in plain.rows()[0] and plain.metrics.skill is None  # the column was shifted before
    assert len(plain) == 40 - loaded.config.lookback + 1
    np.testing.assert_array_equal(plain.actual[:, 0], rows["y"][loaded.config.lookback - 1 :])
    assert plain.svg().count('class="column"') == 1
    timed = rows | {
        "time": [f"2024-01-01T{row:02d}:00" for row in range(20)] + [f"2024-02-02T0{row}:30" for row in range(9)]
    }
    timed = {name: column[:29] for name, column in timed.items()}
    dated = Model.of(loaded).backtest(timed)  # of a model without times a column of this name, gaps by its median step
    assert list(dated.by["month"]) == ["2024-01", "2024-02"] and dated.rows()[0]["target_time"] == "2024-01-01T05:00"
    assert "of the row with the actual value, in UTC" in repr(dated)
    assert dated.across_gaps == loaded.config.lookback - 1
    daily = {"time": np.datetime64("2024-03-20") + np.arange(40), "y": rows["y"], "x": rows["f0"]}
    of_days = Model.of(make_encoded(daily, Columns(("y",), time="time", ahead=1))).backtest(daily)
    assert of_days.by["hour"] == {} and list(of_days.by["month"]) == ["2024-03", "2024-04"]
    assert "2024-03-24" in of_days.rows()[0]["target_time"]
    numbered = daily | {"time": np.arange(40)}
    of_numbers = Model.of(make_encoded(numbered, Columns(("y",), time="time", ahead=1))).backtest(numbered)
    assert of_numbers.by["month"] == {} and of_numbers.rows()[0]["target_time"] == "4"


def test_targets_are_named_apart():
    """Each target's column is compared with its own outputs; of a quantile, the column of what it is a quantile of."""
    loaded = make_model(targets=("a", "b@0.9"), horizon=2)
    rows = {name: np.arange(30.0) % 5 for name in loaded.config.feature_names} | {"a": np.ones(30), "b": np.zeros(30)}
    model = Model.of(loaded)
    assert model.backtest(rows).outputs == ("a+1", "a+2")
    second = model.backtest(rows, "b@0.9")
    assert second.outputs == ("b+1@0.9", "b+2@0.9") and not second.actual.any()
    windows = np.stack([rows[name][:6] for name in loaded.config.feature_names], axis=1)
    np.testing.assert_allclose(second.predictions[0], model.predict(windows)[0, [1, 3]], atol=1e-12)
    with pytest.raises(UnknownNameError, match="c"):
        model.backtest(rows, "c")


TABLE = FRAME.drop("utc")
MANY = pl.lit(None, dtype=pl.Float64)


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (TABLE.drop("load"), {}, "frame has no column 'load'"),
        (TABLE.drop("time"), {}, "frame has no column 'time', the times of its rows"),
        (TABLE.head(7), {}, "frame has 7 rows, but needs the 4 steps of a window, and the 4 after it"),
        (TABLE.with_columns(load=MANY), {}, "frame has no window to forecast: .* missing value, of load"),
        (TABLE.head(50).with_columns(load=pl.when(pl.int_range(50) < 4).then("load")), {"last": 30}, "no window"),
        (TABLE[100:140][::3], {}, r"frame has no window to forecast: of 9, 9 cross a gap"),
        (TABLE[::3], {}, "frame has no window to forecast: of 138, 138 cross a gap"),
        (TABLE, {"gaps": "error"}, r"frame\['time'\], row 60 must have no gap before it, but goes from"),
        (TABLE, {"last": "soon"}, "last must be a number of windows, or a duration"),
        (TABLE, {"last": 425}, "frame has 427 rows, but needs 428 for 425 windows, and the 4 after them"),
        (TABLE.with_columns(sky=pl.lit("dusty")), {}, r"frame\['sky'\], row 0 has the unknown level 'dusty'"),
        (TABLE.with_columns(load=pl.lit(np.inf)), {}, r"frame\['load'\], row 0 must be a finite number or empty"),
        (pl.concat([TABLE, TABLE.tail(1)]), {}, "must not repeat a time"),
        (np.zeros((4, 3)), {}, "must be a data frame or a mapping of name to array, but is a ndarray"),
    ],
)
def test_what_cannot_be_compared_is_refused(model, frame, options, message):
    """One sentence, which names the place."""
    with pytest.raises(DataError, match=message):
        model.backtest(frame, **options)


def test_all_actual_values_missing_is_refused():
    """Of a target that is no feature, nothing else is missing."""
    loaded = make_model()
    rows = {name: np.zeros(20) for name in loaded.config.feature_names} | {"y": np.full(20, np.nan)}
    with pytest.raises(DataError, match="frame has no value of y that one of its 15 windows forecasts"):
        Model.of(loaded).backtest(rows)
    own = make_model(targets=("f0",))
    with pytest.raises(DataError, match="does not have how many rows ahead f0 is"):
        Model.of(own).backtest(rows)


def test_training_measures_the_same(tmp_path):
    """On the rows of the test, MAE is that of training."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"time": np.datetime64("2024-01-01T00", "ms") + 3_600_000 * np.arange(300)})
    frame = frame.with_columns(load=np.sin(np.arange(300) / 4) + rng.normal(size=300) / 9, temp=rng.normal(size=300))
    options = {"ahead": 2, "horizon": 2, "time": "time", "lookback": 6, "hidden": 4, "epochs": 1, "progress": False}
    trained = kanmodel.train(frame, "load", **options)
    test = frame.tail(45)  # the newest 15 %
    found = trained.backtest(test)
    assert len(found) == trained.metrics["test_windows"]
    assert found.metrics.mae == pytest.approx(trained.metrics["test_mae"], rel=1e-6)
    error, mean = found.persistence - found.actual, found.actual - found.actual.mean(axis=0)
    r2 = 1 - (error**2).sum(axis=0) / (mean**2).sum(axis=0)
    assert r2.mean() == pytest.approx(trained.metrics["persistence_r2"], rel=1e-9)
    assert found.by["horizon"][2].mae == pytest.approx(trained.metrics["test_mae load+2"], rel=1e-6)
    beside = {name: trained.metrics[f"{of}_mae"] for name, of in (("model", "test"), ("ridge", "ridge"))}
    assert found.tested.items() >= beside.items() and ", when it was trained" in repr(found)
    assert replace(trained.config.time) == TimeColumn("time", 3600.0, 1.5, True)


@pytest.mark.filterwarnings("ignore:.*windows are left out")
def test_windows_in_the_time_of_the_training_are_counted(model, tmp_path):
    """A checkpoint has the times that it was fitted to, and the backtest says how many windows lie there."""
    frame = FRAME.drop("utc")
    assert model.backtest(frame).in_training is None
    trained = kanmodel.train(frame, "load", ahead=AHEAD, time="time", zone=ZONE, lookback=4, epochs=1, max_steps=2)
    read = kanmodel.load(trained.save(tmp_path / "m.safetensors") and tmp_path / "m.safetensors")
    origin, found = read.provenance, read.backtest(frame)
    assert origin.fitted_from in found.times and origin.fitted_to in found.times
    first, last = (found.times.index(at) for at in (origin.fitted_from, origin.fitted_to))
    assert found.in_training == last - first + 1 < len(found)
    assert f"{found.in_training:,} of {len(found):,} windows lie in the time of the training" in repr(found)
    newest = read.backtest(frame, last=5)
    assert newest.in_training == 0 and "training" not in repr(newest)
    assert (read.prune().provenance.fitted_to, read.calibrate().provenance.fitted_to) == (origin.fitted_to,) * 2
