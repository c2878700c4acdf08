"""Several steps are learned with default options, from what is known at each of them; weak models are announced."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import kanmodel
from kanmodel.errors import DataError
from kanmodel.network.config import plain_layers
from kanmodel.network.layer import KANLayer
from kanmodel.tables.roles import Columns, make_table
from kanmodel.tables.skill import Baseline, Skill
from kanmodel.tables.windows import Windows
from kanmodel.training.baselines import find_weaknesses
from kanmodel.training.optimization import sparsity_penalty

OPTIONS = {"time": "time", "known": ["wind"], "ahead": 1, "progress": False}


def make_frame(n=1500, seed=0):
    """Hours of a target that is a bent curve of the wind at the same time, which is known ahead."""
    random = np.random.default_rng(seed)
    wind = random.normal(size=n)
    times = [datetime(2024, 1, 1) + timedelta(hours=row) for row in range(n)]
    return pl.DataFrame({"time": times, "wind": wind, "power": np.maximum(wind, 0) * 10 + random.normal(0, 0.5, n)})


def test_each_step_is_told_what_is_known_at_it():
    """White noise that is known ahead is forecast at each step, which reads its own value of it."""
    frame = make_frame()
    model = kanmodel.train(frame, "power", horizon=6, lookback=8, epochs=40, **OPTIONS)
    r2 = [model.metrics[f"test_r2 {output}"] for output in model.outputs]
    assert min(r2) > 0.6, r2
    feature = [each.name for each in model.features].index("wind+6")
    for step in range(6):
        found = model.explain(frame, f"power+{step + 1}", last=200)
        moved = np.abs(found.steps[:, :, feature]).mean(axis=0)  # by the window's steps, oldest first
        assert moved.argmax() == 8 - 6 + step


def test_known_columns_need_windows_of_as_many_steps():
    """A window has what is known at each step that is forecast, so it must be as long; without known columns not."""
    with pytest.raises(DataError, match="lookback must be at least the horizon, 30, as a window has what is known"):
        kanmodel.train(make_frame(400), "power", horizon=30, **OPTIONS)
    kanmodel.train(make_frame(600), "power", horizon=30, epochs=1, hidden=2, time="time", ahead=1, progress=False)


@given(st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_what_is_known_is_that_of_its_step(ahead, horizon, calendar):
    """A window's rows have known values and the calendar up to the last step that is forecast, one an hour."""
    frame = make_frame(60)
    parts = ["hour"] if calendar else False
    table = make_table(
        frame, Columns(("power",), time="time", known=("wind",), ahead=ahead, horizon=horizon, calendar=parts)
    )
    spec = replace(table.spec, lookback=5, horizon=horizon)
    windows = Windows.cut(replace(table.table, spec=spec), targets=True)
    values, wind = windows.rows[windows.index()], frame["wind"].to_numpy()
    names = table.feature_names
    for end, window in zip(windows.ends.tolist(), values, strict=True):
        rows = np.arange(end - 4, end + 1) + ahead + horizon - 1
        np.testing.assert_array_equal(window[:, names.index(f"wind+{ahead + horizon - 1}")], wind[rows])
        if calendar:
            expected = np.sin(2 * np.pi * (rows % 24) / 24)
            np.testing.assert_allclose(window[:, names.index("hour_sin")], expected, atol=1e-12)


def test_the_penalty_is_that_of_a_mean_over_outputs():
    """A last layer of the same edges into each of many nodes is penalised as one of one node; one output as pykan's."""
    one, many = (KANLayer(plain_layers([3, n])[0]) for n in (1, 4))
    with torch.no_grad():
        for name, tensor in many.state_dict().items():
            of_one = one.state_dict()[name]
            tensor.copy_(of_one.expand_as(tensor) if of_one.shape != tensor.shape else of_one)
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    scales = [(layer.trace(x).edges.std(dim=0) / (x.std(dim=0) + 0.1)).detach() for layer in (one, many)]
    of_one, of_many = (scale.sum() for scale in scales)
    assert of_many == pytest.approx(4 * of_one.item(), rel=1e-5)
    alone = sparsity_penalty((many.trace(x),), 1) - sparsity_penalty((many.trace(x),), 4)
    assert alone.item() == pytest.approx(0.75 * of_many.item(), rel=1e-4)


def test_weak_models_are_announced():
    """A constant one, one that seasonal naive or ridge beats, by figures; and one whose target is of the same row."""
    frame = make_frame(500)
    with pytest.warns(UserWarning, match="the forecasts are nearly constant: on the test part"):
        kanmodel.train(frame, "power", lamb=5.0, linear=False, epochs=3, **OPTIONS)
    hours = np.arange(3000)
    table = pl.DataFrame(
        {
            "time": [datetime(2024, 1, 1) + timedelta(hours=int(hour)) for hour in hours],
            "load": np.sin(2 * np.pi * hours / 24) + 0.01 * np.random.default_rng(0).normal(size=3000),
        }
    )
    with pytest.warns(UserWarning, match="red: This model has learned nothing that repeating the value of 24"):
        kanmodel.train(table, "load", time="time", ahead=1, hidden=2, epochs=1, linear=False, progress=False)
    with pytest.warns(
        UserWarning, match="ahead is 0, so the target's value in each row is forecast from that very row"
    ):
        kanmodel.train(frame, "power", time="time", features=["wind"], epochs=1, progress=False)


def test_a_good_model_is_not_announced():
    """No sentence where it is better than each, or where nothing is known of them."""
    table = make_table(make_frame(50), Columns(("power",), ("wind",), ahead=1))
    ridge, average = Baseline("ridge", None, 1.02, 0.02, (-0.1, 0.1)), Baseline("average", None, 2.0, 0.5, (0.4, 0.6))
    good = Skill("test", 500, 100, 1.0, "kW", (ridge, average))
    assert good.verdict == "amber" and find_weaknesses({"test_spread": 0.9}, good, table) == []
    assert find_weaknesses({"test_spread": 0.9}, Skill("test", 500, lacking="classes"), table) == []
    weak = replace(good, baselines=(replace(average, better_by=-0.1),))
    assert len(find_weaknesses({"test_spread": 0.01}, weak, table)) == 2


@pytest.mark.parametrize(("ahead", "horizon"), [(1, 1), (1, 6), (3, 2)])
def test_explanations_name_the_time_of_each_value(ahead, horizon):
    """A row for each step of each feature has the time that its value is of, and the value of the table at it."""
    frame = make_frame(400)
    model = kanmodel.train(
        frame, "power", lookback=8, horizon=horizon, calendar=["hour"], epochs=1, **OPTIONS | {"ahead": ahead}
    )
    found = model.explain(frame, model.outputs[-1], last=3)
    rows = pl.DataFrame(found.table("step"))
    assert len(rows) == 3 * 8 * len(model.features)
    assert rows.group_by("window").agg(pl.col("contribution").sum()).sort("window")[
        "contribution"
    ].to_list() == pytest.approx(
        (found.predictions - found.baseline_prediction).tolist(), abs=found.residual.max() + 1e-9
    )
    at = {str(time)[:16].replace(" ", "T"): number for number, time in enumerate(frame["time"])}
    for feature, column in ((f"wind+{ahead + horizon - 1}", "wind"), ("power", "power")):
        of = rows.filter(pl.col("feature") == feature)
        numbers = [at[time[:16]] for time in of["value_time"]]
        np.testing.assert_allclose(of["value"], frame[column][numbers], rtol=1e-6, atol=1e-6)
    hours = rows.filter(pl.col("feature") == "hour_cos")
    clock = [int(time[11:13]) for time in hours["value_time"]]
    np.testing.assert_allclose(hours["value"], np.cos(2 * np.pi * np.array(clock) / 24), atol=1e-6)
    newest = rows.filter((pl.col("feature") == "hour_cos") & (pl.col("lag") == 0))
    assert newest["value_time"].to_list() == newest["target_time"].to_list()
    assert "step 0, 20" in found[0].svg()
    with pytest.raises(DataError, match="wide is for contributions by feature or group"):
        found.table("step", wide=True)
    without = model.explain(found.windows)
    assert without.value_times(0) == [] and "value_time" not in without.table("step")[0]
