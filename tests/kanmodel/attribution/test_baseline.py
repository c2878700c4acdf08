import numpy as np
import pytest
from factories import make_model

from kanmodel.attribution.baseline import Baseline, baseline_windows
from kanmodel.errors import DataError


@pytest.fixture(scope="module")
def model():
    return make_model(n_features=3, lookback=4)


def test_mean(model):
    """The mean baseline has each feature's mean over reference windows and steps, at every step."""
    window = baseline_windows(model, Baseline())[0]
    reference = model.scaling.features_to_original(model.reference.scaled)
    np.testing.assert_allclose(window, np.tile(reference.reshape(-1, 3).mean(axis=0), (4, 1)))


def test_zero(model):
    """The zero baseline is zero in model units: the training mean in original units."""
    window = baseline_windows(model, Baseline("zero"))[0]
    np.testing.assert_array_equal(window, np.tile([feature.mean for feature in model.config.features], (4, 1)))
    np.testing.assert_array_equal(model.to_model_units(window[None]), 0)


def test_values(model):
    """Values are one number per feature or one per step, in original units."""
    window = baseline_windows(model, Baseline("values", {"f1": [1, 2, 3, 4], "f0": 7.5, "f2": 0}))[0]
    np.testing.assert_array_equal(window, [[7.5, 1, 0], [7.5, 2, 0], [7.5, 3, 0], [7.5, 4, 0]])


def test_instance(model):
    """An instance is another window, used as given."""
    instance = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(baseline_windows(model, Baseline("instance", instance=instance))[0], instance)


@pytest.mark.parametrize(
    ("baseline", "path", "message"),
    [
        (Baseline("values", {"f0": 1, "f2": 1}), "baseline.values.f1", "is missing"),
        (Baseline("values"), "baseline.values.f0", "is missing"),
        (
            Baseline("values", {"f0": 1, "f1": [1, 2], "f2": 1}),
            "baseline.values.f1",
            "must be a number or 4 numbers, one per step",
        ),
        (
            Baseline("instance", instance=np.zeros((3, 4))),
            "baseline.instance",
            "must have shape [4, 3], but has [3, 4]",
        ),
    ],
)
def test_refusals(model, baseline, path, message):
    """A baseline with a missing value or another shape is refused with its path."""
    with pytest.raises(DataError) as caught:
        baseline_windows(model, baseline)[0]
    assert str(caught.value) == f"{path} {message}"
    assert [(problem.path, problem.message) for problem in caught.value.problems] == [(path, message)]
