"""Why two forecasts differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import make_chain, make_model, make_windows
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel.attribution.baseline import Baseline
from kanmodel.attribution.comparison import Comparisons
from kanmodel.attribution.ledger import explain_windows
from kanmodel.computing import pausing
from kanmodel.errors import DataError

MODEL = make_model(targets=("a", "b"))
OTHER = make_chain(MODEL.config, seed=7)  # the same shape with other weights and other reference windows
SEEDS = st.integers(0, 200)


def rename(config):
    return replace(config, features=(replace(config.features[0], name="g"), *config.features[1:]))


def compare(model, window, against, against_window, output):
    (found,) = Comparisons.of(model, window[None], against, against_window[None], output)
    return found


@settings(max_examples=examples(25))
@given(SEEDS, SEEDS, st.integers(0, 1))
def test_the_parts_sum_to_the_difference(seed, other_seed, output):
    """data + model is the difference of the two forecasts exactly, and so are the features' up to the residual."""
    x, y = make_windows(MODEL, 1, seed)[0], make_windows(MODEL, 1, other_seed)[0]
    found = compare(MODEL, x, OTHER, y, output)
    assert found.prediction == pytest.approx(MODEL.predict(x[None])[0, output])
    assert found.against_prediction == pytest.approx(OTHER.predict(y[None])[0, output])
    assert found.data_total + found.model_total == pytest.approx(found.difference, abs=1e-9)
    assert abs(found.data.sum() - found.data_total) <= found.residual + 1e-9
    assert abs(found.model.sum() + found.baseline_shift - found.model_total) <= found.residual + 1e-9


@settings(max_examples=examples(25))
@given(SEEDS, SEEDS)
def test_exchanging_the_sides_changes_every_sign_exactly(seed, other_seed):
    """Which forecast is called the first decides nothing but the sign, to the last bit."""
    x, y = make_windows(MODEL, 1, seed)[0], make_windows(MODEL, 1, other_seed)[0]
    one, other = compare(MODEL, x, OTHER, y, 0), compare(OTHER, y, MODEL, x, 0)
    assert (one.data == -other.data).all() and (one.model == -other.model).all()
    assert (one.data_total, one.model_total, one.baseline_shift, one.difference) == (
        -other.data_total,
        -other.model_total,
        -other.baseline_shift,
        -other.difference,
    )
    assert (one.residual, one.error, one.tolerance, one.converged) == (
        other.residual,
        other.error,
        other.tolerance,
        other.converged,
    )


@given(SEEDS)
def test_a_forecast_does_not_differ_from_itself(seed):
    """The same model and window: 0 everywhere, exactly."""
    x = make_windows(MODEL, 1, seed)[0]
    found = compare(MODEL, x, MODEL, x.copy(), 0)
    assert not found.data.any() and not found.model.any()
    assert (found.data_total, found.model_total, found.baseline_shift, found.difference) == (0, 0, 0, 0)


@given(SEEDS, SEEDS)
def test_one_model_differs_by_the_data_alone(seed, other_seed):
    """With one model the data part is its ledger from the other window."""
    x, y = make_windows(MODEL, 1, seed)[0], make_windows(MODEL, 1, other_seed)[0]
    found = compare(MODEL, x, MODEL, y, 1)
    assert not found.model.any() and found.model_total == 0
    ledger = explain_windows(
        MODEL, MODEL.to_model_units(x[None]), 1, Baseline("instance", instance=y), detail="features"
    )
    assert found.data == pytest.approx(ledger.contributions[0], abs=2 * ledger.tolerance)


@given(SEEDS)
def test_one_window_differs_by_the_model_alone(seed):
    """With one window the model part is all, and the features' is the difference of the two ledgers."""
    x = make_windows(MODEL, 1, seed)[0]
    found = compare(MODEL, x, OTHER, x, 0)
    assert not found.data.any() and found.data_total == 0
    assert found.model_total == pytest.approx(found.difference)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda c: replace(c, features=tuple(replace(f, unit=None) for f in c.features)),
            "f0 in K, but .* without a unit",
        ),
        (lambda c: replace(c, features=c.features[::-1]), "in the same order, f0, .* begins with f3"),
        (rename, "the same features, but reads g and not f0"),
        (lambda c: replace(c, lookback=c.lookback + 1), "must read 6 steps, but reads 7"),
        (lambda c: replace(c, targets=(replace(c.targets[0], name="z"), c.targets[1])), "has no output 'a"),
        (
            lambda c: replace(c, targets=(replace(c.targets[0], unit="m"), c.targets[1])),
            "must forecast a.1 in K, but forecasts it in m",
        ),
    ],
)
def test_models_that_read_or_forecast_something_else_are_refused(change, says):
    """The error names the difference."""
    x = make_windows(MODEL, 1)[0]
    with pytest.raises(DataError, match=says) as error:
        compare(MODEL, x, make_chain(change(MODEL.config)), x, 0)
    assert error.value.problems[0].path == "against"


def test_it_pauses_between_the_ledgers():
    """A comparison calls `pause` between its ledgers."""
    calls: list[int] = []
    x = make_windows(MODEL, 2)
    with pausing(lambda: calls.append(1)):
        compare(MODEL, x[0], OTHER, x[1], 0)
    assert len(calls) >= 2


def test_contributions_of_equal_windows_are_the_same_number_not_nearly():
    """Where one feature alone differs, no other contributes to the data part."""
    x = make_windows(MODEL, 1)[0]
    y = x.copy()
    y[:, 2] += 1.5
    found = compare(MODEL, x, OTHER, y, 0)
    assert np.flatnonzero(found.data).tolist() == [2]
