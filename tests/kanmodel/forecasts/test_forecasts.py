"""Forecasts have their intervals, what came, and pictures of both; explanations say the same, and widths why."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import polars as pl
import pytest
from factories import make_encoded, make_model, make_windows, with_intervals

from kanmodel import Model
from kanmodel.attribution.profiles import find_lags
from kanmodel.tables.roles import Columns

SVG = "{http://www.w3.org/2000/svg}"
N = 40
COLUMNS = Columns(("load", "price"), time="time", ahead=2, features=("load", "temp"), units={"load": "MW"})


def make_table(n=60):
    """Hours with a gap, the price missing in some."""
    rng, row = np.random.default_rng(0), np.arange(n)
    time = pl.datetime_range(pl.datetime(2024, 3, 1), pl.datetime(2024, 3, 1, 0) + pl.duration(hours=n - 1), "1h")
    frame = pl.select(time=time).with_columns(
        load=pl.Series(np.sin(row / 4) + rng.normal(size=n)),
        price=pl.Series([None if at % 17 == 3 else value for at, value in enumerate(rng.normal(size=n).tolist())]),
        temp=pl.Series(rng.normal(8, 3, size=n)),
    )
    return frame.filter(~pl.int_range(pl.len()).is_in([40, 41]))


TABLE = make_table()


@pytest.fixture(scope="module")
def model():
    """An hourly model of two targets at three steps, with a network of intervals at two levels."""
    return Model.of(with_intervals(make_encoded(TABLE, COLUMNS, 4, horizon=3)))


@pytest.fixture(scope="module")
def forecasts(model):
    return model.predict(TABLE, intervals="all", last=N, gaps="skip")


@pytest.fixture(scope="module")
def explained(model):
    return model.explain(TABLE, outputs="all", last=N, gaps="skip", detail="features")


def test_forecasts_and_explanations_say_the_same(model, forecasts, explained):
    """Of every output: prediction, bounds, times and actual values, of all windows and of some."""
    assert forecasts.outputs == explained.outputs == model.outputs and forecasts.times == explained.times
    assert forecasts.targets == explained.targets
    for number, each in enumerate(explained.by_output):
        np.testing.assert_allclose(forecasts.predictions[:, number], each.predictions, rtol=1e-9)
        np.testing.assert_array_equal(forecasts.actual[:, number], each.actual)
        assert tuple(forecasts.target_times[:, number]) == each.target_times
        np.testing.assert_array_equal(forecasts.instants[:, number], each.instants)
        assert list(each.intervals) == list(forecasts.levels) == [0.8, 0.95]
        for level, (low, high) in enumerate(each.intervals.values()):
            np.testing.assert_array_equal(low, forecasts.lower[level, :, number])
            np.testing.assert_array_equal(high, forecasts.upper[level, :, number])
        assert [bound[0] for bound in each[-1].intervals[0.95]] == [
            bound[1, -1, number] for bound in (forecasts.lower, forecasts.upper)
        ]
    bound = model.explain(TABLE, "load+2:upper@0.8")
    assert bound.intervals == {} and bound.usual_width is None


def test_tables_have_the_bounds_and_what_they_cover(forecasts, explained):
    """A column for each bound, and whether it holds what came: as Polars counts, and unknown where that is."""
    frame = pl.DataFrame(forecasts.table())
    assert frame.height == len(forecasts) * len(forecasts.outputs) and len(forecasts) == N - 3
    inside = frame.select(
        pl.col("actual").fill_nan(None).is_between(pl.col(f"lower@{level}"), pl.col(f"upper@{level}")).alias(str(level))
        for level in (0.8, 0.95)
    )
    for level in forecasts.levels:
        assert inside[str(level)].to_list() == frame[f"covered@{level}"].to_list()
        assert forecasts.coverage[level] == pytest.approx(inside[str(level)].mean())
    assert np.isnan(forecasts.covered).sum() == 2 * np.isnan(forecasts.actual).sum() > 0
    assert f"of {frame.height - inside['0.8'].null_count()} actual values" in repr(forecasts)
    wide = pl.DataFrame(explained.table(wide=True)).sort("window", maintain_order=True)
    for name in ("lower@0.8", "upper@0.8", "lower@0.95", "upper@0.95"):
        assert wide[name].to_list() == frame[name].to_list()
    unknown = replace(forecasts, actual=None)
    assert unknown.covered is None and unknown.coverage == {} and "covered" not in repr(unknown)


def read_area(path):
    """The corners of an area, (n, 2) in pixels: along its lower bound and back along its upper one."""
    corners = [pair.split() for piece in path.get("d").split("M")[1:] for pair in piece.strip("Z").split("L")]
    return np.array(corners, dtype=float)


@pytest.mark.parametrize("n", [1, N])
def test_bands_lie_at_their_bounds(model, n):
    """In the picture of forecasts and in that of their explanation: of one window by target, else of some outputs."""
    forecasts = model.predict(TABLE, intervals="all", last=n, gaps="skip")
    explained = model.explain(TABLE, outputs="all", last=n, gaps="skip", detail="features")
    shown = [("load", [0, 2, 4]), ("price", [1, 3, 5])] if n == 1 else [(model.outputs[k], [k]) for k in (0, 2, 3, 5)]
    for result in (forecasts, explained):
        root = ElementTree.fromstring(result.svg(theme="light"))
        areas = [path for path in root.iter(f"{SVG}path") if path.get("data-level")]
        assert [area.get("data-level") for area in areas] == ["0.95", "0.8"] * len(shown)
        for panel, (_, outputs) in enumerate(shown):
            pixels, values = [], []
            for area, level in zip(areas[2 * panel : 2 * panel + 2], (1, 0), strict=True):
                found = read_area(area)[:, 1]
                low, high = (of[level][:, outputs].ravel() for of in (forecasts.lower, forecasts.upper))
                instants = forecasts.instants[:, outputs].ravel()
                runs = np.split(np.arange(len(low)), np.flatnonzero(np.diff(instants) > 1.5 * 3600) + 1)
                values += [value for run in runs for value in (*low[run], *high[run][::-1])]
                pixels += found.tolist()
            line = np.polyfit(values, pixels, 1)
            np.testing.assert_allclose(np.poly1d(line)(values), pixels, atol=0.02)
            assert line[0] < 0


def test_pictures_without_times_are_by_number():
    """Of an array; one output of one window is drawn too, and a waterfall says the interval."""
    model = Model.of(with_intervals(make_model(), "constant"))
    windows = make_windows(model, 3)
    assert ">2</text>" in model.predict(windows, intervals="all").svg()
    one = model.predict(windows[0], intervals=(0.8,))
    assert "80 % interval" in one.svg() and "95 %" not in one.svg()
    (row,) = one.table()
    picture = model.explain(windows[0]).svg()
    (shown,) = re.findall(r"between (\S+) and (\S+) \(80 %\)", picture.partition("<desc>")[2].partition("</desc>")[0])
    assert [float(end) for end in shown] == pytest.approx([row["lower@0.8"], row["upper@0.8"]], abs=0.06)


def test_a_width_says_how_it_compares_and_why(model):
    """With the median of the reference windows, and by shares of the difference or, where it cancels, by amounts."""
    name = "load+3:width@0.8"
    explained = model.explain(TABLE, name, last=N, gaps="skip", detail="steps")
    usual = np.median(model.predict(model.reference.windows, intervals=(0.8,)).width[0, :, 2])
    assert explained.usual_width == pytest.approx(usual) and explained.width_summary is None
    seen = set()
    for one in explained:
        said = one.width_summary
        assert float(said.split()[0]) == pytest.approx(one.predictions[0] / usual, rel=1e-2) and said in repr(one)
        parts = dict(zip(one.parts, one.contributions_by_part[0], strict=True))
        change, cancels = sum(parts.values()), abs(sum(parts.values())) < sum(map(abs, parts.values())) / 2
        found = re.findall(r"([-+]?[\d.]+)( %)? is (\w+) at (lags? [\d to]+)", said)
        assert found and [part for *_, part, _ in found] == sorted(parts, key=lambda part: -abs(parts[part]))[:3]
        for amount, percent, part, lags in found:
            assert bool(percent) is not cancels
            expected = 100 * parts[part] / change if percent else parts[part]
            assert float(amount) == pytest.approx(expected, rel=5e-3, abs=0.5 if percent else 0)
            by_lag = np.abs(one.steps[0, ::-1, one.features.index(part)])
            assert lags == str(find_lags(by_lag[None].astype(np.float32))[0])
        seen.add(cancels)
    assert seen == {True, False}
    assert one.width_summary[:40] in one.svg()
    far = model.explain(model.reference.windows[:1] * 1e30, name)  # whose contributions do not converge
    (change,) = re.findall(r"; (\S+).* from the baseline's", far.width_summary)
    assert not far.converged and float(change) == pytest.approx(far.predictions[0] - far.baseline_prediction, rel=5e-3)
    constant = Model.of(with_intervals(model, "constant")).explain(TABLE, name, groups=None)
    assert constant.width_summary.startswith("1.00 times") and "nothing" in constant.width_summary


def test_bounds_of_a_shifted_target_have_the_times_of_their_forecast():
    """Without `ahead` a bound is explained with the time and the actual value of the row that the forecast has."""
    rows = {"time": np.datetime64("2024-01-01T00", "s") + 3600 * np.arange(40), "x": np.sin(np.arange(40.0))}
    frame = pd.DataFrame(rows | {"y": np.arange(40.0)})
    model = Model.of(with_intervals(make_encoded(frame, Columns(("y",), ("x",), time="time"))))
    forecast, bound = (model.explain(frame, name, last=3) for name in ("y+1", "y+1:upper@0.8"))
    np.testing.assert_array_equal(bound.instants, forecast.instants)
    assert bound.times == forecast.times and bound.instants is not None


def test_many_forecasts_are_listed_by_their_ends(model):
    """A notebook's cell has the first five forecasts and the last five, and says how many there are."""
    found = model.predict(make_windows(model, 40), intervals="all")
    n, rows = found.predictions.size, found.table()
    page = found._repr_html_()
    assert page.count("<tr><td") == 10 and f"{n:,}, here the first 5 and the last 5" in page
    (table,) = found._tables()
    assert table.rows == rows[:5] + rows[-5:] and f"{n:,}, here" in repr(found)
    few = model.predict(make_windows(model, 1), intervals="all")
    assert "here the first" not in repr(few) and few._tables()[0].rows == few.table()
