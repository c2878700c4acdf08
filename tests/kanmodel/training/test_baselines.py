"""Simple forecasts know what was known at the end of a window, and nothing else."""

from dataclasses import replace
from datetime import datetime
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch
from factories import WIND_POWER, make_wind_power
from hypothesis import given
from hypothesis import strategies as st

import kanmodel
from kanmodel.tables.columns import Scaling
from kanmodel.tables.roles import Columns, make_table
from kanmodel.tables.samples import Samples
from kanmodel.tables.skill import PENALTIES, Baseline, Skill, ridge
from kanmodel.tables.windows import Windows
from kanmodel.training import baselines
from kanmodel.training.baselines import find_weaknesses

DAY, WEEK = 24, 168  # steps


def cut(table, lookback=1, horizon=1):
    """A table's windows up to its newest row."""
    rows = replace(table.table, spec=replace(table.spec, lookback=lookback, horizon=horizon))
    return Windows.cut(rows)


def sample(rows, targets, lookback):
    """Samples of rows (n, n_features) and targets (n, n_targets) as they stand, window by window."""
    features = [f"f{number}" for number in range(rows.shape[1])]
    names = [f"y{number}" for number in range(targets.shape[1])]
    frame = dict(zip([*features, *names], np.concatenate([rows, targets], axis=1).T, strict=True))
    table = make_table(frame, Columns(tuple(names), tuple(features)))
    (mean, scale), (target_mean, target_scale) = ((np.zeros(n), np.ones(n)) for n in (len(features), len(names)))
    return Samples.of(cut(table, lookback), Scaling(mean, scale, target_mean, target_scale, torch.float64))


def fit_ridge(samples, train, validation):
    """The ridge regression on some windows."""
    moments, flat = baselines.measure_moments(samples, train), partial(baselines.flatten, samples)
    return None if moments is None else ridge(moments, flat, validation)


def series(values, ahead, hours=None, series=None):
    """A table with one target, by default with one row per hour."""
    instants = np.arange(len(values)) if hours is None else hours
    steps = (3600 * instants).astype("timedelta64[s]")
    frame = {"time": np.datetime64("2026-01-01", "s") + steps, "x": np.zeros(len(values)), "y": np.array(values, float)}
    of = {} if series is None else {"series": series}
    return make_table(frame | of, Columns(("y",), ("x",), ahead=ahead, time="time", **dict.fromkeys(of, "series")))


def forecast(table, ends, horizon, season=None):
    """The persistence or seasonal naive forecast of the windows that end at some rows, (len(ends), horizon)."""
    windows = cut(table, horizon=horizon)
    chosen = windows.choose(np.searchsorted(windows.ends, ends))
    return baselines.persistence(table, chosen) if season is None else chosen.seasonal_naive(0, season)


@pytest.mark.parametrize("n_train", [40, 5000])
def test_ridge_is_the_solution_of_its_normal_equations(n_train):
    """Forecasts equal the solution of the penalised least-squares problem for the chosen penalty."""
    rng = np.random.default_rng(0)
    rows = rng.normal(loc=[5.0, 0.0, -1.0], size=(n_train + 60, 3))
    targets = rows @ rng.normal(size=(3, 2)) + rng.normal(size=(n_train + 60, 2)) + 4
    samples = sample(rows, targets, lookback=2)
    numbers = np.arange(n_train + 59)
    train, validation, test = numbers[:n_train], numbers[n_train : n_train + 30], numbers[n_train + 30 :]
    targets = targets[1:]  # of windows, by their numbers

    def solve(penalty, wanted):
        x = samples.windows(train).flatten(1).numpy()
        y = targets[train]
        centred = x - x.mean(axis=0)
        weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(6), centred.T @ (y - y.mean(axis=0)))
        return (samples.windows(wanted).flatten(1).numpy() - x.mean(axis=0)) @ weights + y.mean(axis=0)

    errors = {p: ((solve(p, validation) - targets[validation]) ** 2).mean() for p in PENALTIES}
    expected = solve(min(errors, key=errors.get), test)
    forecast = fit_ridge(samples, train, validation)
    np.testing.assert_allclose(forecast(test), expected, atol=1e-8)


def test_ridge_works_with_more_inputs_than_windows():
    """If a window has more cells than there are training windows, the penalised problem still has a unique solution."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 20))
    samples, numbers = sample(rows, rows[:, :1] * 2, lookback=4), np.arange(57)
    forecasts = fit_ridge(samples, numbers[:30], numbers[30:45])(numbers[45:])
    assert forecasts.shape == (12, 1) and np.isfinite(forecasts).all()


def test_ridge_is_left_out_for_large_windows():
    """The matrix of more than 2,048 values would take minutes."""
    rows = np.random.default_rng(0).normal(size=(60, 103))
    samples, numbers = sample(rows, rows[:, :1], lookback=20), np.arange(41)
    assert fit_ridge(samples, numbers[:20], numbers[20:30]) is None


def test_persistence_is_the_last_value_that_is_known():
    """With `ahead` each step is the target's value at the window's last row, or the latest before it if missing.

    If none is known in the series, or the column was shifted before, there is no forecast. A target that is a change
    is forecast as 0, one with a known last value as that value.
    """
    table = series([1, 2, np.nan, 4, 5, 6, 7, 8], ahead=3)
    assert forecast(table, [1, 2, 4], horizon=2).tolist() == [[2, 2], [2, 2], [5, 5]]
    table = series([1, 2, np.nan, 4], ahead=1, series=["a", "a", "b", "b"])
    np.testing.assert_array_equal(forecast(table, [0, 2, 3], horizon=1), [[1], [np.nan], [4]])
    table = series([1, 2, 3, 4], ahead=0)
    assert np.isnan(forecast(table, [1, 2], 1)).all() and np.isnan(forecast(table, [1, 2], 1, DAY)).all()
    frame = {"a": [1.0, 2.0, 3.0], "level": [5.0, 6.0, 7.0], "change": np.ones(3), "next": np.ones(3)}
    table = make_table(frame, Columns(("change", "next"), last_value={"change": 0, "next": "level"}))
    assert forecast(table, [0, 2], horizon=2).tolist() == [[0, 5, 0, 5], [0, 7, 0, 7]]


@given(st.data(), st.integers(1, 60), st.integers(1, 3))
def test_the_seasonal_forecast_is_its_definition(data, ahead, horizon):
    """Of the values a whole number of days before the target, it uses the latest known at the window's last row."""
    n_rows = 200
    rows = st.integers(0, n_rows - 1)
    steps = np.ones(n_rows)
    gaps = data.draw(st.sampled_from([[2.5], [5] * 3, [24] * 3, [31] * 3]))  # half a step ends what is in step
    steps[data.draw(st.lists(rows, max_size=len(gaps)))] = gaps[0]
    values = np.arange(n_rows, dtype=float)
    values[data.draw(st.lists(rows, max_size=20))] = np.nan
    hours = np.cumsum(steps)
    table = series(values, ahead, hours)

    def latest(end, step):
        same = (hours[end] + ahead + step - hours[: end + 1]) % 24 == 0
        known = values[: end + 1][same & ~np.isnan(values[: end + 1])]
        return known[-1] if len(known) else np.nan

    ends = np.arange(data.draw(st.integers(20, 100)), n_rows)
    expected = [[latest(end, step) for step in range(horizon)] for end in ends]
    np.testing.assert_array_equal(forecast(table, ends, horizon, DAY), expected)


@given(st.integers(1, 30), st.integers(1, 3), st.integers(0, 60))
def test_persistence_stands_in_where_a_series_is_too_young_for_a_season(ahead, horizon, n_young):
    """In each of its forecasts for which no value a season before is known, and in no other."""
    values, n_old = np.random.default_rng(0).normal(size=100 + n_young), 100
    table = series(values, ahead, series=["a"] * n_old + ["b"] * n_young)
    windows = cut(table, horizon=horizon)
    naive, last = windows.seasonal_naive(0, DAY), baselines.persistence(table, windows)
    found = baselines.seasonal_naive(table, windows, DAY)
    np.testing.assert_array_equal(found, np.where(np.isnan(naive), last, naive))
    assert np.isfinite(found).all() and np.isnan(naive).any()
    assert np.isnan(baselines.seasonal_naive(table, windows, 10_000)).all()


@pytest.mark.parametrize("opens", ["2022-01-01", "2022-12-10"])
def test_a_series_that_opens_in_the_test_part_hides_no_simple_forecast(opens):
    """With a third one, of any age, two series with a week's pattern are as badly forecast as without it."""
    rng, parts = np.random.default_rng(0), []
    for shop, start in (("a", "2022-01-01"), ("b", "2022-01-01"), ("c", opens)):
        days = pl.date_range(datetime.fromisoformat(start), datetime(2022, 12, 31), eager=True)
        sales = 10.0 * (days.dt.weekday() * 3 % 7) + rng.normal(size=len(days))
        parts.append(pl.DataFrame({"day": days, "shop": shop, "sales": sales}))
    roles = {"time": "day", "series": "shop", "ahead": 1, "lookback": 3}
    with pytest.warns(UserWarning, match="red: This model has learned nothing that repeating the value of 7 steps"):
        kanmodel.train(pl.concat(parts), "sales", hidden=2, epochs=1, linear=False, progress=False, **roles)


def test_to_know_how_large_each_series_is_explains_nothing():
    """Of noise around the level of each series R2 is not above 0, and the average of each is the best forecast."""
    rng, parts = np.random.default_rng(0), []
    for number, shop in enumerate("abcd"):
        sales = 10.0**number * (1 + 0.05 * rng.normal(size=300))
        parts.append(pl.DataFrame({"day": np.arange(300), "shop": shop, "size": 10.0**number, "sales": sales}))
    roles = {"time": "day", "series": "shop", "static": ["size"], "ahead": 1, "lookback": 3}
    with pytest.warns(UserWarning, match="red: This model has learned nothing that always forecasting the average"):
        model = kanmodel.train(pl.concat(parts), "sales", hidden=3, epochs=5, progress=False, **roles)
    assert max(value for name, value in model.metrics.items() if "_r2" in name) <= 0


def test_the_period_of_a_table_without_dates_is_that_of_its_longest_series():
    """A short one in front hides it not."""
    rows = np.concatenate([np.arange(20), np.arange(400)])
    shop = np.repeat(["a", "b"], [20, 400])
    load = 10 * np.sin(2 * np.pi * rows / 10) + np.random.default_rng(0).normal(size=len(rows))
    frame = pl.DataFrame({"at": rows, "shop": shop, "load": load})
    with pytest.warns(UserWarning):
        options = {"hidden": 2, "epochs": 1, "linear": False, "progress": False, "lookback": 3}
        model = kanmodel.train(frame, "load", time="at", series="shop", ahead=1, **options)
    assert model.metrics["season"] == 10


def test_weak_models_are_announced():
    """A constant one, one that seasonal naive or ridge beats, by figures; and one whose target is of the same row."""
    frame = make_wind_power(500)
    with pytest.warns(UserWarning, match="the forecasts are nearly constant: on the test part"):
        kanmodel.train(frame, "power", lamb=5.0, linear=False, epochs=3, **WIND_POWER)
    hours = np.arange(3000)
    load = np.sin(2 * np.pi * hours / 24) + 0.01 * np.random.default_rng(0).normal(size=3000)
    table = pl.DataFrame({"time": np.datetime64("2024-01-01", "ms") + 3_600_000 * hours, "load": load})
    with pytest.warns(UserWarning, match="red: This model has learned nothing that repeating the value of 24"):
        kanmodel.train(table, "load", time="time", ahead=1, hidden=2, epochs=1, linear=False, progress=False)
    with pytest.warns(
        UserWarning, match="ahead is 0, so the target's value in each row is forecast from that very row"
    ):
        kanmodel.train(frame, "power", time="time", features=["wind"], epochs=1, progress=False)


def test_a_good_model_is_not_announced():
    """No sentence where it is better than each, or where nothing is known of them."""
    table = make_table(make_wind_power(50), Columns(("power",), ("wind",), ahead=1))
    ridge, average = Baseline("ridge", None, 1.02, 0.02, (-0.1, 0.1)), Baseline("average", None, 2.0, 0.5, (0.4, 0.6))
    good = Skill("test", 500, 100, 1.0, "kW", (ridge, average))
    assert good.verdict == "amber" and find_weaknesses({"test_spread": 0.9}, good, table) == []
    assert find_weaknesses({"test_spread": 0.9}, Skill("test", 500, lacking="classes"), table) == []
    weak = replace(good, baselines=(replace(average, better_by=-0.1),))
    assert len(find_weaknesses({"test_spread": 0.01}, weak, table)) == 2
