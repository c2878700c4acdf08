from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_model
from goldens import load_case

from kanmodel.explain.attribution import explain_windows
from kanmodel.explain.importance import measure_importance

SHAPES = ["lstm", "head", "front"]


def figures(importance, name):
    """A figure of each feature, in the order of the model."""
    order = importance.explanation.features
    return np.array([getattr(row, name) for row in sorted(importance.features, key=lambda row: order.index(row.name))])


@pytest.mark.parametrize("shape", SHAPES)
def test_importance_is_the_mean_size_of_the_ledger(shape):
    """Each importance is the mean magnitude of a ledger entry over the reference windows."""
    model = make_model(shape, product=True, targets=("a", "b"), n_features=3, lookback=3)
    for output in (0, 1):
        importance = measure_importance(model, output)
        ledger = explain_windows(model, model.reference.windows, output)
        assert importance.output_index == output
        np.testing.assert_allclose(
            figures(importance, "mean_abs_contribution"), np.abs(ledger.steps.sum(axis=1)).mean(axis=0)
        )
        np.testing.assert_allclose(figures(importance, "mean_contribution"), ledger.steps.sum(axis=1).mean(axis=0))
        np.testing.assert_allclose(importance.steps.value, np.abs(ledger.steps.sum(axis=2)).mean(axis=0))
        for layer in ledger.layers:
            place = layer.stage, layer.layer
            for kind in ("nodes", "edges"):
                values = getattr(layer, kind)
                assert (place in getattr(importance, kind)) == (values is not None)
                if values is not None:
                    np.testing.assert_allclose(getattr(importance, kind)[place].value, np.abs(values).mean(axis=0))
        np.testing.assert_array_equal(importance.explanation.steps, ledger.steps)


@pytest.mark.parametrize("shape", SHAPES)
def test_shares_sum_to_1(shape):
    """Shares sum to 1, and every estimate lies within its bounds."""
    importance = measure_importance(make_model(shape, n_features=3, lookback=3), 0)
    share, magnitude = figures(importance, "share"), figures(importance, "mean_abs_contribution")
    assert share.sum() == pytest.approx(1)
    np.testing.assert_allclose(share, magnitude / magnitude.sum())
    for estimate in (importance.steps, *importance.nodes.values(), *importance.edges.values()):
        assert (estimate.low <= estimate.value).all()
        assert (estimate.value <= estimate.high).all()
    for row in importance.features:
        assert row.interval[0] <= row.mean_abs_contribution <= row.interval[1]
        assert 0 <= row.share_interval[0] <= row.share <= row.share_interval[1] <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_dead_feature_counts_for_exactly_0(shape):
    """A feature that is not read has contribution, share, interval and permutation effect of exactly 0."""
    model = make_model(shape, n_features=3, lookback=3)
    with torch.no_grad():
        network = model.network
        if network.front:
            network.front[0].mask[:, 1] = 0
        elif network.recurrent is not None:
            network.recurrent.weight_ih_l0[:, 1] = 0
        else:
            network.head[0].mask[:, 1] = 0
    importance = measure_importance(replace(model, reference=model.reference), 0)
    for name, interval in (
        ("mean_abs_contribution", "interval"),
        ("share", "share_interval"),
        ("permutation_mae_increase", "permutation_interval"),
    ):
        assert (figures(importance, name)[1], *figures(importance, interval)[1]) == (0, 0, 0)
        assert figures(importance, name)[0] != 0
    behind = {
        place: profile for place, profile in importance.profiles.shares.items() if shape != "head" or place[1] > 0
    }
    assert behind
    assert all(profile[:, 1].max() == 0 for profile in behind.values())


def test_a_forecast_that_never_changes():
    """If no feature matters all shares are 0 rather than NaN."""
    model = make_model("head", n_features=2)
    with torch.no_grad():
        model.network.head[1].mask[:] = 0
    importance = measure_importance(replace(model, reference=model.reference), 0)
    assert all((row.share, row.share_interval) == (0, (0, 0)) for row in importance.features)


def test_unknown_targets_have_no_permutation_effect():
    """Without targets everything except the permutation effect is measured."""
    importance = measure_importance(make_model("head", with_targets=False), 0)
    assert all(row.permutation_mae_increase is None and row.mean_abs_contribution > 0 for row in importance.features)


def test_important_features_of_the_synthetic_series():
    """The five of twenty features that make up the target rank first, ahead of their decoys."""
    features = figures(measure_importance(load_case("synthetic_gt").model, 0), "mean_abs_contribution")
    assert set(np.argsort(-features)[:5]) == {2, 7, 10, 13, 18}
    assert np.sort(features)[:15].max() < 0.02 * features.max()
