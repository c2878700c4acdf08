import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.tables.instants import SEASONS, Clock
from kanmodel.training import baselines
from kanmodel.tables.samples import Samples
from kanmodel.tables.roles import TrainingTable


def test_r2_is_one_for_the_truth_and_zero_for_the_mean():
    """R2 is computed per output, against the mean of the targets that it is measured on."""
    targets = np.array([[0.0, 5.0], [2.0, 9.0]])
    assert baselines.r2_scores(targets, targets).tolist() == [1.0, 1.0]
    assert baselines.r2_scores(targets, np.array([[1.0, 7.0], [1.0, 7.0]])).tolist() == [0.0, 0.0]


def test_persistence_forecasts_no_change():
    """A target that is a change is forecast as 0, one with a known last value as that value."""
    features = np.array([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]])
    table = TrainingTable(
        features, np.ones((3, 2)), ("a", "level"), ("change", "next"), last_value={"change": 0, "next": "level"}
    )
    assert baselines.persistence(table, np.array([0, 2]), horizon=2).tolist() == [[0, 5, 0, 5], [0, 7, 0, 7]]


@pytest.mark.parametrize("n_train", [40, 5000])
def test_ridge_is_the_solution_of_its_normal_equations(n_train):
    """Forecasts equal the solution of the penalised least-squares problem for the chosen penalty."""
    rng = np.random.default_rng(0)
    rows = rng.normal(loc=[5.0, 0.0, -1.0], size=(n_train + 60, 3))
    targets = rows @ rng.normal(size=(3, 2)) + rng.normal(size=(n_train + 60, 2)) + 4
    samples = Samples(torch.from_numpy(rows), torch.from_numpy(targets), lookback=2, horizon=1)
    ends = np.arange(1, n_train + 60)
    train, validation, test = ends[:n_train], ends[n_train : n_train + 30], ends[n_train + 30 :]

    def solve(penalty, wanted):
        x = samples.windows(train).flatten(1).numpy()
        y = targets[train]
        centred = x - x.mean(axis=0)
        weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(6), centred.T @ (y - y.mean(axis=0)))
        return (samples.windows(wanted).flatten(1).numpy() - x.mean(axis=0)) @ weights + y.mean(axis=0)

    errors = {p: ((solve(p, validation) - targets[validation]) ** 2).mean() for p in baselines.PENALTIES}
    expected = solve(min(errors, key=errors.get), test)
    np.testing.assert_allclose(baselines.ridge(samples, train, validation, test), expected, atol=1e-8)


def test_ridge_works_with_more_inputs_than_windows():
    """If a window has more cells than there are training windows, the penalised problem still has a unique solution."""
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.normal(size=(60, 20)))
    samples = Samples(rows, rows[:, :1] * 2, lookback=4, horizon=1)
    ends = np.arange(3, 60)
    forecasts = baselines.ridge(samples, ends[:30], ends[30:45], ends[45:])
    assert forecasts.shape == (12, 1) and np.isfinite(forecasts).all()


HOUR = 3600.0


def series(values, ahead, hours=None, **options):
    """A table with one target, by default with one row per hour."""
    instants = np.arange(len(values)) if hours is None else hours
    clock = Clock.of(np.datetime64("2026-01-01", "s") + (HOUR * instants).astype("timedelta64[s]"))
    targets = np.array(values, dtype=float)[:, None]
    return TrainingTable(np.zeros((len(values), 1)), targets, ("x",), ("y",), ahead=ahead, clock=clock, **options)


def test_persistence_is_the_last_value_that_is_known():
    """With `ahead` each step is the target's value at the window's last row, or the latest before it if missing."""
    table = series([1, 2, np.nan, 4, 5, 6, 7, 8], ahead=3)
    assert baselines.persistence(table, np.array([1, 2, 4]), horizon=2).tolist() == [[2, 2], [2, 2], [5, 5]]


def test_persistence_does_not_look_into_another_segment():
    """If no value is known in the segment yet, there is no forecast."""
    table = series([1, 2, np.nan, 4], ahead=1, segment=np.array([0, 0, 1, 1]))
    np.testing.assert_array_equal(baselines.persistence(table, np.array([0, 2]), horizon=1), [[1], [np.nan]])
    assert baselines.persistence(table, np.array([0, 3]), horizon=1).tolist() == [[1], [4]]


def test_a_column_that_was_shifted_before_has_no_persistence():
    """Its value at the window's last row is the answer, so that persistence needs a named feature."""
    table = series([1, 2, 3, 4], ahead=0)
    assert np.isnan(baselines.persistence(table, np.array([1, 2]), 1)).all()
    assert baselines.seasonal_persistence(table, np.array([1, 2]), 1, 24 * HOUR) is None


@pytest.mark.parametrize(("season", "period"), [("day", 24), ("week", 168)])
@pytest.mark.parametrize("ahead", [1, 6, 24, 25, 170])
def test_a_season_that_repeats_is_forecast_exactly(season, period, ahead):
    """The value a whole number of periods earlier is exact for a periodic series, also across gaps in time."""
    pattern = np.random.default_rng(0).normal(size=period)
    hours = np.delete(np.arange(900), slice(600, 640))
    table = series(pattern[hours % period], ahead, hours)
    ends = np.arange(400, 600 - ahead - 2)
    forecasts = baselines.seasonal_persistence(table, ends, 3, SEASONS[season])
    np.testing.assert_array_equal(forecasts, table.targets[ends[:, None] + ahead + np.arange(3), 0])


@given(st.data(), st.integers(1, 60), st.integers(1, 3))
def test_the_seasonal_forecast_is_its_definition(data, ahead, horizon):
    """Of the values a whole number of days before the target, it uses the latest known at the window's last row."""
    n_rows = 200
    rows = st.integers(0, n_rows - 1)
    steps = np.ones(n_rows)
    steps[data.draw(st.lists(rows, max_size=3))] = data.draw(st.sampled_from([1.5, 5, 24, 31]))
    values = np.arange(n_rows, dtype=float)
    values[data.draw(st.lists(rows, max_size=20))] = np.nan
    table = series(values, ahead, np.cumsum(steps))
    seconds = table.clock.seconds

    def latest(end, row):
        known = [
            before
            for before in range(end + 1)
            if (seconds[row] - seconds[before]) % (24 * HOUR) == 0 and not np.isnan(values[before])
        ]
        return values[max(known)] if known else np.nan

    ends = np.arange(data.draw(st.integers(20, 100)), n_rows - ahead - horizon + 1)
    expected = [[latest(end, end + ahead + step) for step in range(horizon)] for end in ends]
    found = baselines.seasonal_persistence(table, ends, horizon, 24 * HOUR)
    if np.isnan(expected).any():
        assert found is None
    else:
        np.testing.assert_array_equal(found, expected)


def test_nothing_after_the_window_changes_a_forecast():
    """Persistence and the seasonal forecast do not depend on rows after the window's last."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=300)
    ends = np.array([200])
    for ahead in (1, 5, 24, 30):
        for change in (np.nan, 1e9):
            changed = values.copy()
            changed[201:] = change
            for forecast in (
                lambda table: baselines.persistence(table, ends, 2),
                lambda table: baselines.seasonal_persistence(table, ends, 2, 24 * HOUR),
                lambda table: baselines.seasonal_persistence(table, ends, 2, 168 * HOUR),
            ):
                np.testing.assert_array_equal(forecast(series(values, ahead)), forecast(series(changed, ahead)))


def test_a_season_needs_a_clock_that_shows_it():
    """Steps of 7 hours, daily steps for a daily season, numeric times and tables without times have none."""
    ends = np.array([30])
    assert baselines.seasonal_persistence(series(np.ones(60), 1, 7 * np.arange(60)), ends, 1, 24 * HOUR) is None
    daily = series(np.ones(60), 1, 24 * np.arange(60))
    assert baselines.seasonal_persistence(daily, ends, 1, 24 * HOUR) is None
    assert baselines.seasonal_persistence(daily, ends, 1, 168 * HOUR).tolist() == [[1]]
    numbers = Clock.of(np.arange(60) * HOUR)
    assert numbers.rows_per(24 * HOUR) is None
