"""All outputs of a table's windows are explained at once, beside what came, as frames and over time."""

import re
from dataclasses import replace
from datetime import date, datetime
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pytest
from factories import make_encoded, make_model, make_windows
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel import DataError, Model, UnknownNameError
from kanmodel.show.series import Panel, stack
from kanmodel.tables.instants import read_instants, times_as_text, write_instants
from kanmodel.tables.roles import Columns

LOOKBACK, AHEAD, HORIZON, ZONE = 4, 2, 3, "Europe/Berlin"
COLUMNS = Columns(("load", "price"), time="time", zone=ZONE, calendar=("hour", "weekend"), ahead=AHEAD)
GAP = (60, 61, 62, 63)
N_LAST = 60
OPTIONS = {"gaps": "skip", "detail": "features"}


def make_frame(n=100):
    """Hours of Berlin's local time over the end of daylight saving, with a gap, and a price without some values."""
    utc = pl.datetime_range(pl.datetime(2024, 10, 25), pl.datetime(2024, 10, 25) + pl.duration(hours=n - 1), "1h")
    frame = pl.select(utc=utc)
    local = pl.col("utc").dt.replace_time_zone("UTC").dt.convert_time_zone(ZONE).dt.replace_time_zone(None)
    rng, row = np.random.default_rng(0), pl.int_range(pl.len())
    load, price = 50 + 10 * np.sin(np.arange(n) / 4), rng.normal(40, 9, size=n)
    frame = frame.with_columns(time=local, load=pl.Series(load + rng.normal(size=n)), cost=pl.Series(price))
    frame = frame.with_columns(price=pl.when(row % 17 != 3).then("cost"), temp=pl.Series(rng.normal(8, 3, size=n)))
    return frame.filter(~row.is_in(GAP)).drop("cost")


FRAME = make_frame()
TABLE = FRAME.drop("utc")


@pytest.fixture(scope="module")
def model():
    """An hourly model of two targets at three steps."""
    columns = replace(COLUMNS, features=("load", "temp"), units={"load": "MW"})
    return Model.of(make_encoded(TABLE, columns, LOOKBACK, horizon=HORIZON))


@pytest.fixture(scope="module")
def explained(model):
    """Of the newest windows, rows in another order."""
    return model.explain(TABLE.reverse(), outputs="all", last=N_LAST, **OPTIONS, groups={"both": ["load", "temp"]})


def test_each_output_is_explained_as_alone(model, explained):
    """Every number is that of `explain` for the one output, contributions up to rounding, as passes are shared.

    Names, numbers and slices give parts.
    """
    assert explained.outputs == model.outputs and len(explained) == N_LAST - 3 == len(list(explained))
    for output in model.outputs:
        alone = model.explain(TABLE, output, last=N_LAST, **OPTIONS)
        for name in ("path_nodes", "converged", "actual", "instants", "windows"):
            np.testing.assert_array_equal(getattr(explained[output], name), getattr(alone, name))
        for name in ("predictions", "steps", "error", "residual"):
            found, slack = getattr(explained[output], name), 0.01 * alone.tolerance
            np.testing.assert_allclose(found, getattr(alone, name), rtol=1e-5, atol=slack)
        assert (explained[output].times, explained[output].target_times) == (alone.times, alone.target_times)
    some = model.explain(TABLE, outputs=["price+3", "load+2", "price+3"], last=2, detail="features")
    assert some.outputs == ("price+3", "load+2") and some.targets == ("price", "load")
    last = explained["load+2"][-2:].contributions
    np.testing.assert_allclose(some["load+2"].contributions, last, rtol=1e-9, atol=1e-12)
    assert explained[-1].times == explained.times[-1:] == explained[-1]["load+2"].times
    assert explained[5:7]["price+4"].predictions.tolist() == explained["price+4"].predictions[5:7].tolist()


@settings(max_examples=examples(12))
@given(
    grouped=st.booleans(), segments=st.sampled_from([None, {"new": (-1, 0)}]), by=st.sampled_from(["feature", "group"])
)
def test_a_wide_row_sums_to_its_forecast(model, grouped, segments, by):
    """Baseline and contributions are the forecast up to the residual, with nested groups and segments too."""
    groups = {"cycle": ["hour_sin", "hour_cos"], "calendar": ["cycle", "weekend"]} if grouped else None
    found = model.explain(TABLE, outputs="all", last=3, groups=groups, segments=segments)
    frame = pl.DataFrame(found.table(by, wide=True))
    known = ["output", "window", "time", "target_time", "prediction", "actual", "baseline_prediction"]
    assert frame.columns[:7] == known and frame.columns[-3:] == ["residual", "error", "converged"]
    parts = frame.columns[7:-3]
    n_parts = {"feature": 5, "group": (3 if grouped else 5) * (2 if segments else 1)}[by]
    assert len(parts) == n_parts and frame.height == 3 * len(model.outputs)
    gap = frame.select(pl.sum_horizontal("baseline_prediction", *parts) - pl.col("prediction")).to_series().abs()
    assert (gap <= frame["residual"] + 1e-9).all()
    long = pl.DataFrame(found.table(by))
    if not grouped:
        total = long.group_by("output", "window", maintain_order=True).agg(pl.col("contribution").sum())
        np.testing.assert_allclose(total["contribution"], frame.select(pl.sum_horizontal(parts)).to_series(), atol=1e-9)
    assert long.columns[:4] == known[:4] and pd.DataFrame(found.table(wide=True)).shape[0] == frame.height


def test_times_and_actual_values_are_those_of_a_join(model, explained):
    """The value an output's steps later, over the hour that is there twice and on the other side of a gap."""
    rows = FRAME.with_columns(at="utc").select("at", "load", "price")
    local = FRAME.with_columns(stamp=pl.col("time").dt.to_string("iso:strict").str.slice(0, 19))
    ends = FRAME["utc"].to_list()
    whole = [
        n
        for n in range(len(ends) - N_LAST, len(ends))
        if ends[n].timestamp() - ends[n - LOOKBACK + 1].timestamp() == 3600 * 3
    ]
    for output in model.outputs:
        target, _, steps = output.partition("+")
        asked = local[whole].select("utc", "stamp", at=pl.col("utc") + pl.duration(hours=int(steps)))
        joined = asked.join(rows, on="at", how="left", maintain_order="left")
        found = explained[output]
        assert list(found.times) == joined["stamp"].to_list()
        np.testing.assert_array_equal(found.actual, joined[target].cast(pl.Float64).fill_null(np.nan))
        clock = joined["at"].dt.replace_time_zone("UTC").dt.convert_time_zone(ZONE).dt.replace_time_zone(None)
        assert list(found.target_times) == [time.isoformat() for time in clock]
        assert (found.instants == joined["at"].dt.epoch("s").to_numpy()).all()
        np.testing.assert_array_equal(found.forecast_errors, found.predictions - found.actual)
    assert explained["load+2"].target_times.count("2024-10-27T02:00:00") == 2


def test_the_largest_errors_are_named_with_their_drivers(explained):
    """They are those of the wide table, sorted by polars; drivers are the largest contributions of parts."""
    wide = pl.DataFrame(explained.table("group", wide=True)).filter(pl.col("actual").is_not_nan())
    wide = wide.with_columns(forecast_error=pl.col("prediction") - pl.col("actual"))
    expected = wide.sort(pl.col("forecast_error").abs(), descending=True).head(7)
    found = explained.largest_errors(7)
    shared = ("output", "window", "time", "target_time", "prediction", "actual", "forecast_error")
    assert [{name: row[name] for name in shared} for row in found] == expected.select(shared).to_dicts()
    for row in found:
        contributions = expected.row(found.index(row), named=True)
        contributions["hour"] = contributions["hour_sin"] + contributions["hour_cos"]
        largest = sorted(("both", "hour", "weekend"), key=lambda part: -abs(contributions[part]))
        assert row["drivers"] == ", ".join(f"{part} {contributions[part]:+.3g}" for part in largest)
    assert (
        explained["load+2"].largest_errors(1)
        == [
            {name: value for name, value in row.items() if name != "output"}
            for row in explained.largest_errors(999)
            if row["output"] == "load+2"
        ][:1]
    )


def test_what_has_not_come_is_not_known(model):
    """Without the target's column, or of a model whose steps are unknown, there is no actual value and no error."""
    without = model.explain(TABLE.drop("price"), outputs=["price+2", "load+4"], last=2)
    assert without["price+2"].actual is None and np.isnan(without["load+4"].actual).all()
    assert "actual" not in without["price+2"].table()[0]
    with pytest.raises(DataError, match="no actual value is known"):
        without.largest_errors()
    plain = Model.of(make_model(targets=("f0", "y")))
    rows = pd.DataFrame(make_windows(plain, 1)[0], columns=plain.config.feature_names).assign(y=range(6))
    found = plain.explain(rows, outputs="all")
    assert found["f0+1"].actual is None and found["y+1"].actual.tolist() == [5] and found.times is None
    bad = TABLE.with_columns(price=pl.when(pl.int_range(pl.len()) == 95).then(np.inf).otherwise("price"))
    with pytest.raises(DataError, match=r"windows\['price'\], row 95 must be a finite number or empty, but is inf"):
        model.explain(bad, "price+2", last=4)


def test_names_of_features_do_not_hide_columns(model):
    """A feature that is called as another column has a name of its own in a wide table."""
    found = model.explain(TABLE, last=1)
    named = replace(found, features=("time", "actual", "actual (contribution)", "residual", "e"))
    (row,) = named.table(wide=True)
    names = ["time (contribution)", "actual (contribution)", "actual (contribution) (contribution)"]
    assert list(row)[6:] == [*names, "residual (contribution)", "e", "residual", "error", "converged"]
    assert [row[name] for name in names] == found.contributions[0, :3].tolist() and row["time"] == found.times[0]


@pytest.mark.parametrize(
    "stamps",
    [
        np.array(["2024-05-01T05", "2024-05-01T06"], "datetime64[h]"),
        np.array(["2024-05-01T05", "2024-05-01T06"], "datetime64[ns]"),
        ["01.05.2024 05:00", "01.05.2024 06:00"],
        ["2024-05-01T05:00Z", "2024-05-01T06:00Z"],
        ["2024-05-01 05:00:00", "2024-05-01 06:00:00"],
        ["2024-05-01", "2024-05-02"],
        [date(2024, 5, 1), date(2024, 5, 2)],
        [datetime(2024, 5, 1, 5, tzinfo=ZoneInfo(ZONE)), datetime(2024, 5, 1, 6, tzinfo=ZoneInfo(ZONE))],
        [7, 9],
        [0.25, 0.5],
        ["7", "9"],
    ],
)
@pytest.mark.parametrize("zone", [None, ZONE])
def test_times_to_come_are_written_as_those_of_the_table(stamps, zone):
    """The instants of a column become its texts again."""
    column = stamps if isinstance(stamps, np.ndarray) else np.array(stamps, dtype=None if stamps[0] == 7 else object)
    instants, _ = read_instants(column, "time", zone)
    assert write_instants(instants, column, zone) == times_as_text(column)


def test_times_of_another_form_are_utc():
    """They are ISO 8601 with an offset."""
    assert write_instants(np.array([1714539600.0]), ["2024-05-01T07:00+02:00"]) == ("2024-05-01T05:00:00+00:00",)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"outputs": []}, DataError, "outputs is empty"),
        ({"outputs": "every"}, DataError, 'outputs must be "all" or'),
        ({"outputs": ["load+9"]}, UnknownNameError, r"load\+9"),
        ({"outputs": "all", "output": "load+2"}, DataError, "outputs and output must not both be given"),
    ],
)
def test_what_does_not_fit_is_refused(model, arguments, error, message):
    """The error names the argument."""
    with pytest.raises(error, match=message):
        model.explain(TABLE, **arguments)


def test_results_show_themselves(explained):
    """One window lists its outputs, several list the errors of each; unknown values are dashes."""
    shown = repr(explained)
    assert "for 57 windows" in shown and "mean |forecast error|" in shown and "of 5" in shown
    one = repr(explained[-1])
    assert "2024-10-29T" in one and "nan" not in one and " - " in one and "largest contributions" not in one
    assert "Largest errors" in explained.html() and "Largest errors" in explained["load+2"].html()
    assert "actual values" in repr(explained["load+2"]) and "nan" not in repr(explained["price+4"])
    with pytest.raises(UnknownNameError, match="there is no output 'wind'"):
        explained["wind"]


def read_bars(svg):
    """The sums of the bars at each time in the unit of the ticks, the paths by class, and the unit of a pixel."""
    root = ElementTree.fromstring(svg)
    paths: dict[str, list[str]] = {}
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        paths.setdefault(path.get("class"), []).append(path.get("d"))
    texts = [text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    (below,) = (float(text.get("y")) for text in texts if (text.text or "").startswith("contributions"))
    ticks = [text for text in texts if text.get("class") == "end muted" and float(text.get("y")) > below]
    slope, _ = np.polyfit([float(text.get("y")) - 4 for text in ticks], [float(text.text) for text in ticks], 1)
    sums: dict[float, float] = {}
    for look in ("f0", "f1", "f2", "f3", "f4", "f5", "f6"):
        for path in paths.get(look, ()):
            for left, first, last in re.findall(r"M(\S+) (\S+)H\S+?V(\S+?)H\S+?z", path):
                sums[float(left)] = sums.get(float(left), 0.0) + slope * (float(last) - float(first))
    return np.array([total for _, total in sorted(sums.items())]), paths, abs(slope)


def test_bars_and_baseline_are_the_forecast(model, explained):
    """The bars that are drawn at each time sum to the forecast minus the baseline's, up to the rounding of pixels."""
    found = explained["load+3"]
    drawn, paths, pixel = read_bars(found.svg())
    expected = found.predictions - found.baseline_prediction
    np.testing.assert_allclose(drawn, expected, atol=float(found.residual.max()) + 0.1 * pixel)
    for look in ("curve", "net"):
        assert paths[look][-1].count("M") == 2, "a line crosses the gap"
    assert found.svg().count("no window from") == 1
    assert found.svg().count("actual value") == 1 + int((~np.isnan(found.actual)).sum())
    tomorrow = model.explain(TABLE, outputs=["load+2", "load+3", "load+4"])
    drawn, *_ = read_bars(tomorrow.svg())
    changes = [float(each.predictions[0]) - each.baseline_prediction for each in tomorrow.by_output]
    np.testing.assert_allclose(drawn, changes, atol=1e-2)


@settings(max_examples=examples(30))
@given(n=st.integers(1, 60), gap=st.integers(0, 60), most=st.integers(1, 30), seed=st.integers(0, 9))
def test_bars_of_several_windows_are_their_means(n, gap, most, seed):
    """No window is lost or counted twice, none is averaged across a gap, and stacked bars sum to the contributions."""
    rng = np.random.default_rng(seed)
    at = np.arange(n) + np.where(np.arange(n) >= gap, 9.0, 0.0)
    values = rng.normal(size=(n, 3))
    breaks = np.diff(at, prepend=at[0]) > 1.5
    flat = rng.normal(size=n)
    panel = Panel("y", None, (), tuple(map(str, at)), None, at, np.ones(n), breaks, flat, flat, flat, values, values)
    averaged, size = panel.average(most)
    np.testing.assert_allclose((averaged.contributions * averaged.widths[:, None]).sum(axis=0), values.sum(axis=0))
    assert averaged.widths.sum() == n and averaged.widths.max() <= size and averaged.breaks.sum() == breaks.sum()
    ends = averaged.at - averaged.widths / 2, averaged.at + averaged.widths / 2
    assert (np.isclose(ends[0][1:], ends[1][:-1]) | averaged.breaks[1:]).all()
    starts, stops = stack(values)
    np.testing.assert_allclose((stops - starts).sum(axis=1), values.sum(axis=1))
    np.testing.assert_allclose(stops.max(axis=1, initial=0), np.maximum(values, 0).sum(axis=1))
    np.testing.assert_allclose(stops.min(axis=1, initial=0), np.minimum(values, 0).sum(axis=1))


def test_several_windows_without_times_have_no_picture(model):
    """They have no order in time; one of them has its outputs side by side."""
    found = model.explain(make_windows(model, 2), outputs="all")
    for several in (found, found["load+2"]):
        with pytest.raises(DataError, match="shows one window, but there are 2 without times"):
            several.svg()
        assert "<svg" not in several.html()
    assert "load+4" in found[1].svg() and found[1].html().count("<svg") == 1
    assert "load+2" in model.explain(found["load+2"].windows[:1], outputs=["load+2"]).svg()


def test_the_order_of_windows_and_outputs_does_not_change_a_picture(model, explained):
    """Time runs from left to right, and some or no windows show themselves too."""
    found = explained["load+3"]
    assert found[::-1].svg() == found.svg().replace(
        f"windows of {found.times[0]} to {found.times[-1]}", f"windows of {found.times[-1]} to {found.times[0]}"
    )
    orders = (["load+2", "load+3", "load+4"], ["load+4", "load+2", "load+3"])
    pictures = [model.explain(TABLE, outputs=outputs).svg() for outputs in orders]
    assert pictures[0] == pictures[1]
    assert "<svg" not in explained[:0].html() and explained[:0].table(wide=True) == []
    assert explained[::20].svg().count("no window from") == 0
