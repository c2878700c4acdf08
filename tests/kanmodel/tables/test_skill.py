"""The verdict on skill: closed forms, models that know nothing, and simple forecasts that have seen nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_chain, make_model
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.errors import ConfigError
from kanmodel.network.bases import BSpline
from kanmodel.network.config import ModelConfig, plain_layers
from kanmodel.tables.columns import Feature, Target
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.skill import Skill, find_positions, forecast_blocks, measure_skill, repeat_values

RED = "This model has learned nothing that {} does not know; do not read its reasons."
LOOKBACK = 4


def measure(forecasts, actual, horizon=1, **simple):
    """The skill of forecasts (n,) beside simple ones by name, in the target's unit, on test windows."""
    named = {(name, None): np.broadcast_to(of, actual.shape)[:, None] for name, of in simple.items()}
    ones = np.ones(1)
    positions = np.arange(float(len(actual)))
    return measure_skill(forecasts[:, None], actual[:, None], named, positions, horizon, ones, "K", "test")


def make_forecaster(values, others=None, source="import", unit="MW", hourly=True):
    """A model of the next value of a series (n,), and its reference windows, which have its past and another column."""
    others = np.zeros(len(values)) if others is None else others
    columns = np.column_stack([values, others])
    time = TimeColumn("time", 3600.0, 3600.0, dated=True) if hourly else None
    config = ModelConfig(
        features=tuple(Feature(name, "MW", 0.0, 1.0) for name in ("load", "other")),
        targets=(Target("load", unit, 0.0, 1.0),),
        lookback=LOOKBACK,
        horizon=1,
        head=plain_layers((2, 1), BSpline(3, 3)),
        ahead=1,
        time=time,
        dtype="float64",
    )
    model, ends = make_chain(config), np.arange(LOOKBACK - 1, len(values) - 1)
    windows = columns[ends[:, None] + np.arange(1 - LOOKBACK, 1)]
    start = np.datetime64("2026-01-01T00:00:00")
    times = tuple(f"{start + np.timedelta64(int(end), 'h')}Z" for end in ends) if hourly else None
    reference = replace(model.reference, scaled=torch.tensor(windows), targets=values[ends + 1][:, None], times=times)
    return replace(model, reference=reference, provenance=replace(model.provenance, source=source))


def forecasting(model, forecasts):
    """The model, as if these (n,) were what it forecasts for its reference windows."""
    model = replace(model)
    vars(model)["reference_predictions"] = forecasts[:, None]
    return model


def autoregressive(n=600, seed=0, phi=0.9):
    rng, values = np.random.default_rng(seed), np.zeros(n)
    for row in range(1, n):
        values[row] = phi * values[row - 1] + rng.normal()
    return values


def test_gains_are_those_of_the_definition():
    """MAE, and 1 - MAE / MAE of each simple forecast, best first, with an interval around it."""
    rng = np.random.default_rng(0)
    actual = rng.normal(size=400)
    ours, ridge = actual + rng.normal(0, 0.5, 400), actual + rng.normal(0, 1.0, 400)
    found = measure(ours, actual, average=0.0, ridge=ridge)
    assert [of.name for of in found.baselines] == sorted(
        ("average", "ridge"),
        key=lambda name: {"average": np.abs(actual).mean(), "ridge": np.abs(ridge - actual).mean()}[name],
    )
    of_average = next(of for of in found.baselines if of.name == "average")
    assert found.mae == pytest.approx(np.abs(ours - actual).mean()) and found.windows == 400
    assert of_average.better_by == pytest.approx(1 - np.abs(ours - actual).mean() / np.abs(actual).mean())
    assert of_average.interval[0] < of_average.better_by < of_average.interval[1]
    assert found.verdict == "green" and found.better_by == found.best.better_by


@pytest.mark.parametrize(
    ("name", "words"), [("persistence", "repeating the last value"), ("average", "always forecasting the average")]
)
def test_a_model_that_is_a_simple_forecast_is_red(name, words):
    """Equal up to the rounding of float32, whichever way it falls, it gains nothing, and the sentence names it."""
    rng = np.random.default_rng(1)
    actual = 1000 + np.cumsum(rng.normal(size=500))
    simple = {"persistence": actual + rng.normal(size=500), "average": np.full(500, actual.mean() + 300)}
    if name == "average":
        simple = {"average": np.full(500, 1000.0)}
    same = simple[name].astype(np.float32).astype(float)
    for forecasts in (same, simple[name], simple[name] + 1e-7 * np.sign(actual - simple[name])):
        found = measure(forecasts, actual, **simple)
        assert found.verdict == "red" and found.reason == RED.format(words)
        assert abs(found.better_by) < 1e-3 and found.is_doubtful


@pytest.mark.parametrize(
    ("noise", "verdict", "winner"),
    [(0.0, "green", None), (0.45, "amber", None), (0.95, "red", "a ridge regression"), (1.2, "red", None)],
)
def test_a_model_beside_a_good_ridge_regression(noise, verdict, winner):
    """With ridge at R2 0.81: far better is green, R2 0.79 amber, hardly better than the average or worse red."""
    rng = np.random.default_rng(2)
    actual = rng.normal(size=3000)
    ridge = actual + 0.44 * rng.normal(size=3000)
    found = measure(actual + noise * rng.normal(size=3000), actual, average=0.0, ridge=ridge)
    assert found.verdict == verdict, found
    if verdict == "amber":
        assert found.reason.startswith(
            "This model is better than always forecasting the average, not better than a ridge"
        )
    if winner:
        assert found.reason == RED.format(winner)


def test_a_red_verdict_names_no_forecast_that_the_model_beats():
    """Of one that may be no better than the average, and is clearly worse than a ridge regression, it names that."""
    rng = np.random.default_rng(2)
    actual = rng.normal(size=60) + 0.4
    found = measure(actual + 0.95 * rng.normal(size=60), actual, average=0.0, ridge=actual + 0.1 * rng.normal(size=60))
    of = {each.name: each for each in found.baselines}["average"]
    assert of.better_by > 0.01 and of.interval[0] < 0
    assert found.verdict == "red" and found.reason == RED.format("a ridge regression")


def test_an_exact_model_ties_with_an_exact_ridge_regression():
    """Errors that are rounding are no errors: the gain is 0, and not 1 or -100."""
    actual = autoregressive()
    found = measure(actual + 1e-9, actual, average=0.0, ridge=actual + 1e-12)
    assert found.verdict == "amber" and found.better_by == 0


def test_few_independent_windows_tell_nothing():
    """30 windows are too few where each shares what it forecasts with 23 others, or errors drift; 300 are enough."""
    rng = np.random.default_rng(3)
    for n, horizon, verdict in ((30, 1, "green"), (30, 24, "unknown"), (7, 1, "unknown"), (300, 24, "green")):
        actual = rng.normal(size=n)
        found = measure(actual + 0.1, actual, horizon, average=0.0, ridge=rng.normal(size=n))
        assert found.verdict == verdict and (found.interval is None) is (verdict == "unknown"), (n, horizon)
    drifting = np.linspace(0, 1, 60)
    assert measure(np.zeros(60), drifting, average=0.5, ridge=drifting**2).verdict == "unknown"


def test_windows_of_several_series_at_one_time_are_not_independent():
    """A hundred copies of a series make the interval no narrower, and no more blocks."""
    rng = np.random.default_rng(4)
    actual, error, n = rng.normal(size=40), rng.normal(size=40), 100

    def judge(copies):
        given = [np.repeat(each, copies)[:, None] for each in (actual + 0.7 * error, actual, np.zeros(40))]
        simple = {("average", None): given[2], ("ridge", None): given[2] + 0.01}
        return measure_skill(*given[:2], simple, np.repeat(np.arange(40.0), copies), 1, np.ones(1), None, "test")

    one, many = judge(1), judge(n)
    assert many.blocks == one.blocks and many.interval == pytest.approx(one.interval)


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_reference_windows_does_not_matter(seed):
    """Windows have times, so a permutation gives the same errors, interval and verdict, up to rounding."""
    values = autoregressive(120)
    model = make_forecaster(values, np.sin(np.arange(120.0)))
    order = np.random.default_rng(seed).permutation(len(model.reference))
    of = model.reference
    shuffled = replace(
        of, scaled=of.scaled[order], targets=of.targets[order], times=tuple(of.times[number] for number in order)
    )
    one, other = model.skill, replace(model, reference=shuffled).skill
    assert (one.verdict, one.blocks) == (other.verdict, other.blocks) and one.mae == pytest.approx(other.mae)
    for ours, theirs in zip(one.baselines, other.baselines, strict=True):
        assert ours.name == theirs.name and ours.mae == pytest.approx(theirs.mae)
        assert ours.interval == pytest.approx(theirs.interval, abs=1e-6)


def test_on_reference_windows():
    """Persistence, constants and noise are red, the truth is green, and a linear series ties with ridge."""
    values = autoregressive()
    model = make_forecaster(values)
    actual, last = model.reference.targets[:, 0], model.reference.windows[:, -1, 0]
    assert model.reference_simple["persistence", None][:, 0] == pytest.approx(last)
    rng = np.random.default_rng(5)
    red = {
        "persistence": last,
        "median": np.full(len(actual), np.median(actual)),
        "zero": np.zeros(len(actual)),
        "noise": rng.permutation(actual),
    }
    for name, forecasts in red.items():
        found = forecasting(model, forecasts).skill
        assert found.verdict == "red" and found.reason.startswith("This model has learned nothing"), name
    assert forecasting(model, last).skill.reason == RED.format("repeating the last value")
    best = forecasting(model, 0.9 * last).skill
    assert best.verdict == "amber" and best.best.name == "ridge" and abs(best.better_by) < 0.05
    assert "may have been rows of its training" in best.reason and best.measured_on == "reference"
    assert forecasting(model, actual + rng.normal(0, 0.1, len(actual))).skill.verdict == "green"


def test_a_constant_is_red_where_errors_are_skewed():
    """The median misses by less than the mean, but a model that forecasts it knows nothing either."""
    values = np.random.default_rng(6).exponential(size=800) ** 2
    model = make_forecaster(values)
    actual = model.reference.targets[:, 0]
    assert np.abs(actual - np.median(actual)).mean() < 0.9 * np.abs(actual - actual.mean()).mean()
    assert forecasting(model, np.full(len(actual), np.median(actual))).skill.verdict == "red"


def test_a_nonlinear_series_is_learned_by_a_better_model():
    """Of y' = |x|, of which lines know nothing, the truth with noise is green; the average of training is not."""
    rng = np.random.default_rng(7)
    other = rng.normal(size=600)
    values = np.concatenate([[0.0], np.abs(other[:-1])])
    model = make_forecaster(values, other)
    actual, newest = model.reference.targets[:, 0], model.reference.windows[:, -1, 1]
    assert np.abs(newest) == pytest.approx(actual)
    assert forecasting(model, np.abs(newest) + rng.normal(0, 0.2, len(actual))).skill.verdict == "green"
    assert forecasting(model, np.full(len(actual), 0.8)).skill.verdict == "red"


def test_nothing_is_known_without_actual_values():
    """Neither of a model without targets, nor of quantiles alone, nor of classes."""
    model = make_forecaster(autoregressive(100))
    without = replace(model, reference=replace(model.reference, targets=None)).skill
    assert without.verdict == "unknown" and without.mae is None and without.baselines == ()
    assert without.reason.endswith("is unknown: actual values are not known.") and not without.figures
    quantile = replace(model.config, targets=(replace(model.config.targets[0], name="load@0.9"),))
    assert model.with_config(quantile).skill.verdict == "unknown"
    assert make_model().with_config(replace(make_model().config, output_function="sigmoid")).skill.verdict == "unknown"


def test_units():
    """Errors of targets with the same unit are averaged in it, of others in standard deviations of the training."""
    model = make_model(targets=("a", "b"))
    missed = np.abs(model.reference_predictions - model.reference.targets)
    assert model.skill.unit == "K" and model.skill.mae == pytest.approx(missed.mean())
    a, b = model.config.targets
    other = model.with_config(replace(model.config, targets=(a, replace(b, unit="MW"))))
    assert other.skill.unit == "standard deviations"
    assert other.skill.mae == pytest.approx((missed / [a.std, b.std]).mean())
    quantiles = model.with_config(replace(model.config, targets=(replace(a, name="b@0.9"), b)))
    assert quantiles.skill.mae == pytest.approx(missed[:, 1].mean())


@given(st.integers(2, 6), st.integers(0, 50))
def test_repeated_values_know_nothing_after_the_window(season, seed):
    """Windows alone give persistence and the seasonal naive forecast; another future changes no bit of them."""
    values, others = np.random.default_rng(seed).normal(size=(2, 40))
    one, other = make_forecaster(values, hourly=False), make_forecaster(np.append(values[:20], others), hourly=False)
    n = 20 - LOOKBACK + 1
    found = [repeat_values(of.config.table, of.reference.windows[:n], [season]) for of in (one, other)]
    for name, forecasts in found[0].items():
        assert np.array_equal(forecasts, found[1][name], equal_nan=True)
    ends = np.arange(LOOKBACK - 1, 20)
    back = ends + 1 - season
    wanted = np.where(season <= LOOKBACK, values[np.maximum(back, 0)], np.nan)
    assert np.array_equal(found[0]["seasonal naive", season][:, 0], wanted, equal_nan=True)


def test_no_block_is_forecast_by_itself():
    """Other targets of a block, and of the windows that overlap with it, change no forecast of it."""
    rng = np.random.default_rng(8)
    model = make_forecaster(rng.normal(size=204), rng.normal(size=204))
    spec, n = model.config.table, len(model.reference)
    x, y = model.reference.scaled.numpy().reshape(n, -1), model.reference.targets
    before = forecast_blocks(spec, np.arange(float(n)), x, y)
    changed = y.copy()
    changed[50 - LOOKBACK : 75 + LOOKBACK] += 100
    after = forecast_blocks(spec, np.arange(float(n)), x, changed)
    assert n == 200 and np.isfinite(before["ridge", None]).all()
    for simple, forecasts in before.items():
        assert np.array_equal(forecasts[50:75], after[simple][50:75]) and not np.allclose(forecasts, after[simple])


def test_many_values_are_as_good_in_fewer_coordinates():
    """A ridge regression on more values than windows is that on all of them: with its zeros it is the same."""
    rng = np.random.default_rng(9)
    model = make_forecaster(rng.normal(size=104), rng.normal(size=104))
    x, y = rng.normal(size=(100, 80)), rng.normal(size=(100, 1))
    wide = np.column_stack([x, np.zeros((100, 40))])
    few, many = (forecast_blocks(model.config.table, np.arange(100.0), each, y)["ridge", None] for each in (x, wide))
    assert few == pytest.approx(many)


def test_positions():
    """In steps of the time, or else of the shortest distance; without times one after another."""
    spec = make_forecaster(autoregressive(20)).config.table
    times = ("2026-01-01T00:00Z", "2026-01-01T03:00Z", "2026-01-01T03:00Z", "2026-01-02T00:00Z")
    assert find_positions(spec, times, 4).tolist() == [0, 3, 3, 24]
    assert find_positions(replace(spec, time=None), times, 4).tolist() == [0, 1, 1, 8]
    for unknown in (None, ("a", "b", "c", "d")):
        assert find_positions(spec, unknown, 4).tolist() == [0, 1, 2, 3]


def test_a_record_must_be_whole():
    """A checkpoint cannot say that it has skill without errors."""
    with pytest.raises(ConfigError, match="skill must have errors"):
        Skill("test", 100, 50)
    with pytest.raises(ConfigError, match="measured_on"):
        Skill("luck", 100, lacking="nothing")
