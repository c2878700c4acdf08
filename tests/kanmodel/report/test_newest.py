"""What a report says of the windows that are given: their forecasts, and of a single one the reasons."""

import json

import numpy as np
import pandas as pd
import pytest
from factories import make_encoded, make_model, make_windows, with_intervals
from figures import unfounded

from kanmodel import DataError, Model
from kanmodel.tables.roles import Columns

N = 40


@pytest.fixture(scope="module")
def frame():
    """Hours of a load, of which the last four have no value yet."""
    hours = pd.date_range("2024-01-01", periods=N, freq="h").strftime("%Y-%m-%dT%H:%MZ")
    load = [*(np.arange(N - 4) % 5.0), *[np.nan] * 4]
    return pd.DataFrame({"time": hours, "load": load, "temp": np.arange(N) % 7.0})


def model_of(frame, horizon, **more):
    columns = Columns(("load",), ("load", "temp"), time="time", ahead=1, units={"load": "MW"}, **more)
    return Model.of(make_encoded(frame.dropna(), columns, lookback=3, horizon=horizon))


def find(report):
    finding = report["forecast"].findings[0]
    evidence = json.loads(json.dumps(finding.evidence, allow_nan=False))
    return finding, evidence.get("newest")


@pytest.mark.parametrize("horizon", [1, 3, 6])
def test_forecasts_and_reasons_are_those_of_the_newest_window(frame, horizon):
    """Of all outputs; the reasons lead from the baseline to the forecast, and the figures are in the evidence."""
    model, known = model_of(frame, horizon), frame.dropna()
    output = model.outputs[-1]
    report = model.report(output, known)
    assert [each.id for each in report.findings[:3]] == ["skill", "forecast", "accuracy"]
    finding, rows = find(report)
    assert [row["prediction"] for row in rows] == pytest.approx(model.predict(known)[0])
    example = finding.panels[-1]
    assert example.prediction == rows[-1]["prediction"]
    assert example.start + sum(example.contributions.values()) == pytest.approx(example.prediction, abs=1e-6)
    assert len(finding.panels) == (1 if horizon == 1 else 2)
    if horizon > 1:
        assert [*finding.panels[0].forecast] == [row["prediction"] for row in rows]
    last = f"2024-01-0{1 + (N - 5 + horizon) // 24}T{(N - 5 + horizon) % 24:02}:00Z"
    assert last in finding.answer and rows[-1]["target_time"] == last
    assert unfounded(finding.headlines[0][0], rows) == []
    assert f"`load` for {rows[0]['target_time']}" in report.markdown() and finding.answer in report.markdown()


def test_a_report_is_kept_without_the_windows(frame):
    """Who gives none afterwards, or others, gets none of the forecasts before."""
    model = model_of(frame, 2)
    early = find(model.report(windows=frame.dropna()[:-10]))[1]
    late = find(model.report(windows=frame.dropna()))[1]
    assert early[0]["target_time"] < late[0]["target_time"]
    assert find(model.report())[1] is None


def test_intervals_and_what_came_are_told():
    """The band is that of the lowest level, and an unknown actual value is none."""
    model = Model.of(with_intervals(make_model(horizon=3, n_reference=130)))
    finding, rows = find(model.report(windows=make_windows(model, 1)))
    bounds = model.predict(make_windows(model, 1), intervals="all")
    band = finding.panels[0]
    assert [*band.lower] == pytest.approx(bounds.lower[0, 0]) and [*band.upper] == pytest.approx(bounds.upper[0, 0])
    assert band.actual is None and "actual" not in rows[0]


def test_each_series_has_a_sentence():
    """Of many series there are no reasons, which are of one window each."""
    shops = [f"s{number}" for number in range(10)]
    frame = pd.DataFrame({"shop": np.repeat(shops, 12), "load": np.arange(120) % 9.0})
    columns = Columns(("load",), ("load",), ahead=1, series="shop")
    model = Model.of(make_encoded(frame, columns, lookback=3, horizon=2))
    finding, rows = find(model.report(windows=frame))
    assert len(rows) == 20 and not finding.panels and not finding.headlines
    assert [f"`load` of {name}:" in finding.answer for name in shops] == [True] * 8 + [False] * 2
    assert "2 more windows are forecast." in finding.answer
    with pytest.raises(DataError, match="windows"):
        model.report(windows=[[1.0]])
