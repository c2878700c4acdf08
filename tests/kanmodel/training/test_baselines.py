import numpy as np
import pytest
import torch

from kanmodel.training import baselines
from kanmodel.training.samples import Samples, TrainingTable


def test_r2_is_one_for_the_truth_and_zero_for_the_mean():
    """R2 is counted per output, against the mean of the very targets it is measured on."""
    targets = np.array([[0.0, 5.0], [2.0, 9.0]])
    assert baselines.r2_scores(targets, targets).tolist() == [1.0, 1.0]
    assert baselines.r2_scores(targets, np.array([[1.0, 7.0], [1.0, 7.0]])).tolist() == [0.0, 0.0]


def test_persistence_forecasts_no_change():
    """A target that is a change is forecast as 0, one with a last value as that feature at the window's last row."""
    features = np.array([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]])
    table = TrainingTable(features, np.zeros((3, 2)), ("a", "level"), ("change", "next"), last_value={"next": "level"})
    assert baselines.persistence(table, np.array([0, 2]), horizon=2).tolist() == [[0, 5, 0, 5], [0, 7, 0, 7]]


@pytest.mark.parametrize("n_train", [40, 5000])
def test_ridge_is_the_solution_of_its_normal_equations(n_train):
    """Forecasts equal those of the penalised least squares problem, solved by itself for the penalty chosen."""
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


def test_ridge_bears_more_inputs_than_windows():
    """A window of more cells than there are training windows still has one best penalised solution."""
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.normal(size=(60, 20)))
    samples = Samples(rows, rows[:, :1] * 2, lookback=4, horizon=1)
    ends = np.arange(3, 60)
    forecasts = baselines.ridge(samples, ends[:30], ends[30:45], ends[45:])
    assert forecasts.shape == (12, 1) and np.isfinite(forecasts).all()
