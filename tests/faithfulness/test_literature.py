"""The literature's sets are as their papers define them, and the tries' scores are those computed by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import kanmodel

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks" / "literature"))

import sets
from attributions import Squares, StateClassifier, as_subject, measure
from scoring import average_over_runs, price_runs, shapley, share_contributions_and_prices

FEATURES = ["x0", "x1"]


@pytest.mark.parametrize("name", sets.SEQUENCES)
def test_acting_points_decide_the_class(name):
    """What acts differs by class, and windows have their noise elsewhere; class 0 of SeqComb has nothing that acts."""
    found = sets.SEQUENCES[name](np.random.default_rng(0), 40)
    n_acting = found.acting.sum(axis=(1, 2))
    if name.startswith("SeqComb"):
        assert (n_acting[found.labels == 0] == 0).all() and (n_acting[found.labels > 0] >= 20).all()
        shown = found[found.labels > 0]
        for values, acting, label in zip(shown.values, shown.acting, shown.labels, strict=True):
            step, feature = np.argwhere(acting)[0]
            assert (values[step : step + 4, feature].mean() > 0) == (label == 1)  # a slope down starts high
    else:
        means = [
            found.values[(found.labels == label)][found.acting[found.labels == label]].mean() for label in range(4)
        ]
        assert np.sign(means).tolist() == [-1, 1, -1, 1]
        assert np.std(found.values[~found.acting]) < np.std(found.values)


def test_states_act_by_one_feature():
    """At each step of HMM and Switch-Feature one feature acts, and labels follow its sign."""
    for make in sets.STATES.values():
        found = make(np.random.default_rng(0), 20)
        chosen = found.values[found.acting].reshape(found.labels.shape)
        assert (found.acting.sum(axis=2) == 1).all()
        assert np.mean((chosen > 0) == found.labels) > 0.7


def test_price_of_runs():
    """One of four steps acts by its square: runs of two and of four contain it, and cost 9 / 2 and 9 / 4 per point."""
    acting = np.zeros((4, 2), bool)
    acting[1, 0] = True
    windows = np.stack([np.full((4, 2), 3), np.full((4, 2), 2)]).astype(np.float32)
    subject = as_subject(Squares(acting), windows, np.zeros(2, int), newest=False)
    prices = price_runs(subject)
    assert prices[0, :, 1] == pytest.approx(0)
    # runs of two start at 0, 1 and 2; a point's score is the mean over those with it, plus the run of four
    assert prices[0, :, 0] == pytest.approx([4.5 + 2.25, 4.5 + 2.25, 2.25 + 2.25, 2.25])
    assert price_runs(subject, alone=True) == pytest.approx(prices)  # a sum has no interactions
    assert average_over_runs(subject)[0, :, 1] == pytest.approx(0, abs=1e-6)
    assert shapley(subject)[0, :, 0] == pytest.approx([0, 9, 0, 0], abs=1e-4)
    shares = share_contributions_and_prices(subject)  # where prices reach beyond what acts, contributions do not
    assert shares == pytest.approx(np.broadcast_to(acting.astype(float), windows.shape))
    assert measure(subject, prices, np.broadcast_to(acting, windows.shape), pooled=True)["AUPRC"] == pytest.approx(
        1 / 2
    )


def test_changes_of_the_newest_row_are_its_contributions():
    """The earlier window has no newest row, so `changes` gives it what its contributions are."""
    torch.manual_seed(0)
    windows = np.lib.stride_tricks.sliding_window_view(np.random.default_rng(0).normal(size=(20, 2)), 6, axis=0)
    windows = np.ascontiguousarray(windows.transpose(0, 2, 1), np.float32)
    model = kanmodel.from_torch(StateClassifier(2).eval(), windows=windows, features=FEATURES)
    found = model.changes(windows, baseline="zero", tolerance=1e-5)
    exact = model.explain(windows[1:], baseline="zero", tolerance=1e-5).steps
    np.testing.assert_allclose(found.contributions[:, -1], exact[:, -1], atol=1e-4)
