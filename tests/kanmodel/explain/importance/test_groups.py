"""Importance of groups over the reference windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_model

from kanmodel import DataError, Model
from kanmodel.explain import importance as permutation
from kanmodel.explain.importance import add_groups, measure_importance, permute_features

NESTED = {"pair": ("f0", "f3"), "three": ("pair", "f1")}


def group(model, groups):
    return model.with_config(replace(model.config, groups=groups))


def rows_of(model):
    return {row.name: row for row in add_groups(model, measure_importance(model, 0), model.config.groups).groups}


@pytest.mark.parametrize("shape", ["lstm", "front", "head"])
def test_a_group_of_one_is_its_feature(shape):
    """Every figure equals the feature's bitwise, whatever the order of the groups."""
    plain = make_model(shape, lookback=3, hidden_size=3, n_hidden=2, n_reference=60)
    importance = measure_importance(plain, 0)
    features = {row.name: row for row in importance.features}
    model = group(plain, {"last": ("f3",), "first": ("f0",)})
    rows = rows_of(model)
    assert set(rows) == {"last", "first", "f1", "f2"}
    same = {"last": "f3", "first": "f0", "f1": "f1", "f2": "f2"}
    for name, row in rows.items():
        assert row.members == (same[name],)
        expected = vars(features[same[name]])
        differ = {"name", "pykan_feature_score", "redundant_with", "members"}
        assert {key: value for key, value in vars(row).items() if key not in differ} == {
            key: value for key, value in expected.items() if key not in differ
        }


def test_a_group_is_the_signed_sum_of_its_members():
    """Its mean magnitude is that of the sum; shares of outermost names sum to 1."""
    model = group(make_model(), NESTED)
    importance, rows = measure_importance(model, 0), rows_of(model)
    assert set(rows) == {"pair", "three", "f2"} and rows["three"].members == ("f0", "f1", "f3")
    for row in rows.values():
        numbers = [int(name[1:]) for name in row.members]
        contribution = importance.explanation.contributions[:, numbers].sum(axis=1)
        assert row.mean_abs_contribution == pytest.approx(np.abs(contribution).mean(), rel=1e-12)
        assert row.mean_contribution == pytest.approx(contribution.mean(), rel=1e-9)
        assert row.interval[0] <= row.mean_abs_contribution <= row.interval[1]
    assert rows["three"].share + rows["f2"].share == pytest.approx(1)
    assert [row.rank for row in rows.values()] == [1, 2, 3]


def test_members_are_permuted_together():
    """In permuted windows all members come from the same other window."""
    model = make_model()
    growth = permute_features(model, 0, 7, [[1, 2], [0]])
    windows, targets = model.reference.windows, model.reference.targets[:, 0]

    def errors(given):
        return np.abs(model.scaling.outputs_to_original(model.network(given))[:, 0] - targets)

    generator, expected = np.random.default_rng([7, 1]), 0.0
    for _ in range(3):
        moved, permuted = generator.permutation(len(windows)).tolist(), windows.clone()
        permuted[:, :, 1:3] = windows[moved][:, :, 1:3]
        expected = expected + (errors(permuted) - errors(windows)) / 3
    np.testing.assert_allclose(growth[:, 0], expected, atol=1e-9)
    assert (growth[:, 1] == permute_features(model, 0, 7)[:, 0]).all()


def test_all_features_in_one_group():
    """If all features form one group, permuting it permutes the windows, and its share is 1."""
    model = group(make_model(), {"all": ("f0", "f1", "f2", "f3")})
    (row,) = rows_of(model).values()
    assert row.share == 1 and row.share_interval == (1, 1)
    change = measure_importance(model, 0).explanation.contributions.sum(axis=1)
    assert row.mean_abs_contribution == pytest.approx(np.abs(change).mean())


def test_a_group_that_nothing_reads_is_disconnected():
    """It is connected if one of its features is."""
    plain = make_model()
    with torch.no_grad():
        plain.network.recurrent.weight_ih_l0[:, [0, 3]] = 0
    model = group(plain, NESTED)
    rows = rows_of(model)
    assert rows["pair"].verdict == "disconnected" and rows["pair"].mean_abs_contribution == 0
    assert rows["pair"].permutation_mae_increase == 0
    assert rows["three"].connected


def test_effects_are_unknown_without_targets():
    """Without targets the permutation importance of groups is None."""
    rows = rows_of(group(make_model(with_targets=False), NESTED))
    assert all(row.permutation_mae_increase is None and row.permutation_interval is None for row in rows.values())


def test_the_model_shows_its_groups():
    """The importance table and the report have the groups; without groups there are none."""
    model = Model(group(make_model(), NESTED))
    importance = model.importance()
    assert [row["name"] for row in importance.table("group")] == [row.name for row in importance.groups]
    assert "three" in repr(importance) and "f0, f1, f3" in importance.html()
    answer = {each.id: each for each in model.report().findings}["features"]
    assert "`f0`, `f3` act as one, `pair`" in answer.answer
    assert set(answer.evidence["groups"]) == {"pair", "three"}
    assert Model(make_model()).importance().groups == ()


def test_the_importance_of_other_groups_is_that_of_a_checkpoint_with_them():
    """The call's `groups` replace those of the checkpoint; None disables groups."""
    model, other = group(make_model(), NESTED), {"last": ["f2", "f3"]}
    assert Model(model).importance(groups=other).groups == Model(group(make_model(), other)).importance().groups
    assert Model(model).importance(groups=None).groups == ()
    with pytest.raises(DataError, match=r"groups\.g has no feature 'z'"):
        Model(model).importance(groups={"g": ["z"]})


def test_groups_in_groups_share_their_figures(monkeypatch):
    """Names of the same features are measured once, so thousands of them cost no more than twice the features."""
    model = make_model()
    chain = {f"g{n}": [f"g{n + 1}"] for n in range(3000)} | {"g3000": ["f0", "f1"]}
    importance, permuted = measure_importance(model, 0), []
    counted = permutation.permute_features

    def count(model, output, seed, groups):
        permuted.append(len(groups))
        return counted(model, output, seed, groups)

    monkeypatch.setattr("kanmodel.explain.importance.permute_features", count)
    rows = {row.name: row for row in add_groups(model, importance, chain).groups}
    assert permuted == [len(model.config.features) - 1] and len(rows) == 3001 + len(model.config.features) - 2
    assert {replace(rows[name], name="", rank=0) for name in chain} == {replace(rows["g7"], name="", rank=0)}


def test_a_large_model_is_permuted_on_fewer_windows(monkeypatch):
    """A group of one feature has the feature's effect."""
    monkeypatch.setattr(permutation, "MULTIPLY_ADDS", 1)
    model = group(make_model(n_reference=200), {"one": ("f2",)})
    importance = measure_importance(model, 0)
    effects = {
        row.name: row.permutation_mae_increase for row in add_groups(model, importance, model.config.groups).groups
    }
    assert effects["one"] == next(row.permutation_mae_increase for row in importance.features if row.name == "f2")
