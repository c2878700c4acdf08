from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from factories import PROVENANCE, SHAPES, disconnect, make_model, make_rows
from goldens import load_case
from hypothesis import given
from hypothesis import strategies as st
from wired import read

from kanmodel import DataError, Model
from kanmodel.attribution.baseline import Baseline
from kanmodel.attribution.ledger import LedgerOptions, explain_windows
from kanmodel.computing import pausing
from kanmodel.forecaster import Forecaster, Reference
from kanmodel.network.config import ModelConfig, RecurrentConfig, plain_layers
from kanmodel.network.network import Network
from kanmodel.structure import importance as permutation
from kanmodel.structure.importance import (
    MIN_WINDOWS,
    N_PERMUTATIONS,
    add_groups,
    judge,
    measure_importance,
    permute_features,
    plan_permutations,
    rank_correlation,
)
from kanmodel.structure.scores import score_layers
from kanmodel.tables.columns import Feature, Target
from kanmodel.tables.statistics.choose import choose_evenly
from kanmodel.training.optimization import TrainingOptions
from kanmodel.training.training import fit


def test_nodes_of_a_large_graph_are_those_of_fewer_windows(monkeypatch):
    """Features are explained for all windows, within the tolerance; their errors are those of both explanations."""
    model, options = read("RevIN"), LedgerOptions(tolerance=permutation.GRAPH_TOLERANCE)
    whole, windows = measure_importance(model, 0), model.reference.scaled
    monkeypatch.setattr(permutation, "FLOW_VALUES", 0)
    chosen = permutation.choose_flow_windows(model.config, len(windows))
    found = measure_importance(model, 0)
    assert len(chosen) == MIN_WINDOWS < len(windows) == len(found.contributions) and found.converged.all()
    np.testing.assert_allclose(found.contributions, whole.contributions, atol=2 * found.tolerance)
    assert found.tolerance == whole.tolerance == options.tolerance * float(model.output_std[0])
    flow = explain_windows(model, windows[chosen], 0, options=options)
    np.testing.assert_allclose(found.steps.value, np.abs(flow.steps.sum(axis=2)).mean(axis=0))
    for layer in flow.layers:
        if layer.edges is not None:
            np.testing.assert_allclose(found.edges[layer.stage, layer.layer].value, np.abs(layer.edges).mean(axis=0))
    assert (found.residual[chosen] >= flow.residual).all()
    np.testing.assert_array_equal(found.predictions, whole.predictions)


def figures(importance, name):
    """A figure of each feature, in the order of the model."""
    return np.array([getattr(row, name) for row in sorted(importance.features, key=lambda row: row.name)])


@pytest.mark.parametrize("shape", SHAPES)
def test_importance_is_the_mean_size_of_the_ledger(shape):
    """Each importance is the mean magnitude of a ledger entry over the reference windows."""
    model = make_model(shape, product=True, targets=("a", "b"), n_features=3, lookback=3)
    for output in (0, 1):
        importance = measure_importance(model, output)
        ledger = explain_windows(model, model.reference.scaled, output)
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
        for name in ("predictions", "baseline_prediction", "contributions", "residual", "converged", "tolerance"):
            np.testing.assert_array_equal(getattr(importance, name), getattr(ledger, name))


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


def test_a_forecast_that_never_changes():
    """If no feature matters all shares are 0 rather than NaN."""
    model = make_model("head", n_features=2)
    with torch.no_grad():
        model.network.head[1].mask[:] = 0
    importance = measure_importance(replace(model, reference=model.reference), 0)
    assert all((row.share, row.share_interval) == (0, (0, 0)) for row in importance.features)


SYNTHETIC = "explains a series of known truth; the quick tests find the drivers of the example table"
RELEVANT = [
    7,
    13,
    2,
    10,
    18,
]  # of synthetic_gt, by mean |contribution| in descending order; the last two are factors of one term
DECOYS = [5, 14, 3, 11, 19]
KAN = TrainingOptions(
    lookback=1, hidden=0, batch=128, learning_rate=0.03, weight_decay=0.0, noise=0.0, lamb=0.001, grid_updates=3
)


@cache
def golden(name):
    case = load_case(name)
    return case, measure_importance(case.model, 0)


def rows_of(model, output=0):
    """The rows by name, in order."""
    return {row.name: row for row in measure_importance(model, output).features}


def train(columns, target, seed, **options):
    """A KAN alone, trained on named columns."""
    table = make_rows(np.column_stack(list(columns.values())), target[:, None], tuple(columns), ("y",))
    return fit(table, replace(KAN, seed=seed, **options))


@pytest.mark.thorough(SYNTHETIC)
def test_the_true_features_of_the_synthetic_series():
    """The five true features rank first and are important; no other reaches 2 % of the largest."""
    _, importance = golden("synthetic_gt")
    rows = importance.features
    assert {row.name for row in rows[:5]} == {f"x{i}" for i in RELEVANT}
    assert [row.name for row in rows[:3]] == ["x7", "x13", "x2"]
    assert all(row.verdict == "important" for row in rows[:5])
    assert all(row.mean_abs_contribution < 0.02 * rows[0].mean_abs_contribution for row in rows[5:])
    assert {f"x{i}" for i in DECOYS} <= {row.name for row in rows if row.verdict == "negligible"}


@pytest.mark.thorough(SYNTHETIC)
def test_the_local_truth_of_the_synthetic_series():
    """Per cell the ledger has correlation 0.99 with the exact contribution, and matches its mean magnitude."""
    case, _ = golden("synthetic_gt")
    truth = case.arrays["local_truth"].astype(float)  # units of the series, not of the model
    ledger = explain_windows(case.model, case.windows("eval"), 0, Baseline("zero"))
    assert ledger.converged.all()
    assert np.corrcoef(ledger.steps.ravel(), truth.ravel())[0, 1] >= 0.99
    found, expected = (np.abs(steps.sum(axis=1)).mean(axis=0) for steps in (ledger.steps, truth))
    np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), atol=0.02)


@pytest.mark.thorough(SYNTHETIC)
def test_the_profiles_of_the_synthetic_series():
    """The output's profile consists of the same five features; no unit or node is dominated by a decoy or noise."""
    case, importance = golden("synthetic_gt")
    output = importance.profiles.shares["head", 2][0]
    assert set(np.argsort(-output)[:5]) == set(RELEVANT)
    shares = {row.name: row.share for row in importance.features}
    expected = [shares[name] for name in case.model.config.feature_names]
    np.testing.assert_allclose(output, expected, atol=0.05)  # of half the windows
    for place in (("lstm", 0), ("head", 1)):
        matters = importance.nodes[place].value > 0.1 * importance.nodes[place].value.max()
        profiles = importance.profiles.shares[place][matters]
        assert len(profiles) > 0
        assert set(profiles.argmax(axis=1)) <= set(RELEVANT)
        assert profiles[:, RELEVANT].sum(axis=1).min() > 0.7


def check_interp4(model):
    """Checks order, shares and verdicts of x0² + 0.3 x1 + 0.1 x2³ + 0 x3, x uniform on [-1, 1]."""
    rows = rows_of(model)
    assert list(rows) == ["x0", "x1", "x2", "x3"]
    windows = model.scaling.features_to_original(model.reference.scaled)[:, 0]
    changes = [f(windows) - f(windows.mean(axis=0)) for f in (lambda x: x**2, lambda x: 0.3 * x, lambda x: 0.1 * x**3)]
    exact = [np.abs(change[:, i]).mean() for i, change in enumerate(changes)]
    shares = [row.share for row in rows.values()]
    np.testing.assert_allclose(shares, [*(np.array(exact) / sum(exact)), 0], atol=0.01)
    assert rows["x3"].share < 0.01
    assert (rows["x0"].verdict, rows["x1"].verdict, rows["x3"].verdict) == ("important", "important", "negligible")
    assert rows["x2"].verdict == "weak"


def test_interp4_trained_by_pykan():
    """A KAN trained by pykan has its exact shares, and its scores are pykan's."""
    case, importance = golden("interp4")
    check_interp4(case.model)
    rows = importance.features
    scores = case.expected("feature_score").numpy()
    np.testing.assert_allclose([row.pykan_feature_score for row in rows], scores, atol=1e-5)  # in its own order


@pytest.mark.thorough("trains three models")
def test_duplicates_share_their_credit():
    """A feature and its copy are both redundant; the sum of their shares is stable across seeds, the split is not."""
    rng = np.random.default_rng(3)
    a, b, noise = rng.normal(size=(3, 1200))
    columns = {"a": a, "copy": a, "b": b, "noise": noise}
    halves = []
    for seed in range(3):
        rows = rows_of(train(columns, np.sin(2 * a) + 0.5 * b, seed, width=(4, 3, 1), epochs=40))
        for name, other in (("a", "copy"), ("copy", "a")):
            (partner,) = rows[name].redundant_with
            assert (partner.name, partner.correlation) == (other, pytest.approx(1))
        assert rows["b"].redundant_with == rows["noise"].redundant_with == ()
        halves.append((rows["a"].share, rows["copy"].share))
    assert np.ptp(np.sum(halves, axis=1)) < 0.03
    assert np.ptp(halves, axis=0).min() > 0.08


def test_opposites_are_redundant_too():
    """A feature with a correlation of -0.9 or less is redundant too, with the strongest one named first."""
    model = make_model("head", n_features=4, n_reference=400)
    windows = model.reference.scaled.clone()
    windows[:, :, 1] = -windows[:, :, 0]
    windows[:, :, 2] = windows[:, :, 0] + 0.3 * windows[:, :, 2]
    model = replace(model, reference=replace(model.reference, scaled=windows))
    rows = rows_of(model)
    assert [partner.name for partner in rows["f0"].redundant_with] == ["f1", "f2"]
    assert rows["f0"].redundant_with[0].correlation == pytest.approx(-1)
    assert rows["f0"].redundant_with[1].correlation == pytest.approx(np.corrcoef(windows[:, 0, :3].T)[0, 2])
    assert rows["f3"].redundant_with == ()


@pytest.mark.parametrize("shape", SHAPES)
def test_disconnected_features(shape):
    """A feature without a path to the output is disconnected, ranked last and exactly 0; a weak one is not."""
    model = make_model(shape, seed=2, n_features=3, lookback=3)
    network = model.network
    disconnect(network, 1)
    with torch.no_grad():
        if network.front or network.recurrent is None:
            first = (network.front or network.head)[0]
            first.scale_base[:, 2] *= 1e-9
            first.scale_spline[:, 2] *= 1e-9
        else:
            network.recurrent.weight_ih_l0[:, 2] *= 1e-9
    rows = rows_of(replace(model, reference=model.reference))
    gone, weak = rows["f1"], rows["f2"]
    assert (gone.rank, gone.verdict, gone.connected) == (3, "disconnected", False)
    assert (gone.mean_abs_contribution, gone.interval, gone.mean_contribution) == (0, (0, 0), 0)
    assert (gone.share, gone.share_interval) == (0, (0, 0))
    assert (gone.permutation_mae_increase, gone.permutation_interval) == (0, (0, 0))
    assert (weak.verdict, weak.connected) == ("negligible", True)
    assert rows["f0"].connected


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constant_features(dtype):
    """Features with one value contribute nothing, which says nothing of others: they are unseen, never negligible."""
    model = make_model("head", n_features=4, dtype=dtype)
    windows = model.reference.scaled.clone()
    windows[:, :, 1], windows[:, :, 2] = 0.1, 0.7  # means differ by rounding
    rows = rows_of(replace(model, reference=replace(model.reference, scaled=windows)))
    for name in ("f1", "f2"):
        assert rows[name].redundant_with == ()
        assert rows[name].verdict == "unseen"
        assert rows[name].share < 1e-6
    assert rows["f0"].redundant_with == rows["f3"].redundant_with == ()
    assert rows["f0"].share + rows["f3"].share == pytest.approx(1)


@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_those_of_the_features_themselves(shape):
    """A feature has pykan's score if it enters the head and there are at least 128 windows; otherwise None."""
    model = make_model(shape, n_features=3, lookback=3)
    rows = rows_of(model)
    if shape == "head":
        scores = score_layers(model.network.stages["head"], model.reference.scaled[:, 0]).feature_score
        assert {name: row.pykan_feature_score for name, row in rows.items()} == pytest.approx(
            dict(zip(model.config.feature_names, scores.tolist(), strict=True))
        )
    else:
        assert all(row.pykan_feature_score is None for row in rows.values())
    few = rows_of(make_model("head", n_reference=127))
    assert all(row.pykan_feature_score is None for row in few.values())


def test_unknown_targets_are_none():
    """Without targets, permutation effects are None, and the verdict depends on the shares."""
    rows = rows_of(make_model("head", n_features=2, with_targets=False))
    assert all(row.permutation_mae_increase is None and row.permutation_interval is None for row in rows.values())
    assert [row.verdict for row in rows.values()] == ["important", "important"]


NONE, SOME, HARM = (-1.0, 1.0), (0.1, 1.0), (-1.0, -0.1)


@pytest.mark.parametrize(
    ("n_features", "low", "high", "effect", "verdict"),
    [
        (4, 0.0, 0.0499, NONE, "negligible"),  # 0.2 / 4 features
        (4, 0.0, 0.0499, None, "negligible"),
        (4, 0.0, 0.0499, (0.0, 1.0), "negligible"),
        (4, 0.0, 0.0499, (-1.0, 0.0), "negligible"),
        (4, 0.0, 0.05, NONE, "weak"),  # the upper bound must be below it
        (4, 0.0, 0.0499, SOME, "weak"),  # its effect is certain
        (4, 0.0, 0.0499, HARM, "weak"),
        (4, 0.125, 0.2, SOME, "important"),  # 0.5 / 4 features
        (4, 0.1249, 0.2, SOME, "weak"),
        (4, 0.5, 0.6, (0.0, 1.0), "weak"),  # the effect must be above 0
        (4, 0.5, 0.6, HARM, "weak"),
        (4, 0.5, 0.6, (1e-9, 1.0), "important"),
        (4, 0.5, 0.6, None, "important"),
        (4, 0.1249, 0.6, None, "weak"),
        (20, 0.025, 0.2, SOME, "important"),
        (20, 0.0249, 0.2, SOME, "weak"),
        (20, 0.0, 0.0099, NONE, "negligible"),
        (20, 0.0, 0.01, NONE, "weak"),
        (1, 0.5, 1.0, SOME, "important"),
        (1, 0.0, 0.19, None, "negligible"),
    ],
)
def test_verdicts_at_their_borders(n_features, low, high, effect, verdict):
    """The verdict changes exactly at the thresholds of its rule."""
    assert judge(True, (low, high), n_features, effect) == verdict


ORDER = ["negligible", "weak", "important"]
bounds = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)
effects = st.none() | st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted)


@given(bounds, effects)
def test_more_never_counts_for_less(share, effect):
    """A feature with higher bounds never has a lower verdict."""
    verdicts = [judge(True, (factor * share[0], factor * share[1]), 4, effect) for factor in (0.1, 0.5, 1.0)]
    assert [ORDER.index(verdict) for verdict in verdicts] == sorted(ORDER.index(verdict) for verdict in verdicts)


@given(bounds, effects, st.sampled_from([(1, 2), (2, 4), (4, 8), (4, 32)]))
def test_verdicts_scale_with_the_number_of_features(share, effect, numbers):
    """If each feature is replaced by k copies that share its credit, each copy keeps its verdict."""
    few, many = numbers
    low, high = (bound * few / many for bound in share)  # powers of 2, so exact
    assert judge(True, (low, high), many, effect) == judge(True, share, few, effect)


@given(bounds, effects, st.sampled_from([(1, 2), (4, 5), (4, 20), (20, 32)]))
def test_irrelevant_features_move_the_even_share_alone(share, effect, numbers):
    """Adding features with share 0 never lowers a verdict, since only the even share changes."""
    few, many = numbers
    before, after = judge(True, share, few, effect), judge(True, share, many, effect)
    assert ORDER.index(before) <= ORDER.index(after)
    borders = np.array([0.5, 0.2])  # of the lower and of the upper bound, in even shares
    crossed = (share < borders / few) != (share < borders / many)
    assert before == after or crossed.any()


@given(bounds, st.tuples(st.floats(0, 1, exclude_min=True), st.floats(0, 1)), st.sampled_from([1, 4, 32]))
def test_a_sure_effect_is_never_negligible(share, effect, n_features):
    """A feature whose permutation effect is certainly above 0 is not negligible, however small its share."""
    low, width = effect
    assert judge(True, share, n_features, (low, low + width)) != "negligible"


@pytest.mark.parametrize("n_features", [1, 2, pytest.param(60, marks=pytest.mark.thorough("takes a second"))])
def test_equally_important_features_are_all_important(n_features):
    """Any number of features with equal effects are all important."""
    config = plain_layers([n_features, 1])
    features = tuple(Feature(f"x{i}", None, 0.0, 1.0) for i in range(n_features))
    network = Network(ModelConfig(features, (Target("y"),), 1, 1, config, dtype="float64"))
    with torch.no_grad():
        network.head[0].scale_base[:] = 1
        network.head[0].scale_spline[:] = 0
    windows = torch.from_numpy(np.random.default_rng(0).normal(size=(512, 1, n_features)))
    model = Forecaster(network, Reference(windows, network.config), {}, PROVENANCE)
    noise = 0.1 * np.random.default_rng(1).normal(size=(512, 1))
    targets = model.scaling.outputs_to_original(model.reference_outputs) + noise
    for known in (targets, None):
        told = rows_of(replace(model, reference=Reference(windows, model.config, known)))
        assert {row.verdict for row in told.values()} == {"important"}


NESTED = {"pair": ("f0", "f3"), "three": ("pair", "f1")}


def group(model, groups):
    return model.with_config(replace(model.config, groups=groups))


def rows_of_groups(model):
    return {row.name: row for row in add_groups(model, measure_importance(model, 0), model.config.groups).groups}


@pytest.mark.parametrize("shape", ["lstm", "front", "head"])
def test_a_group_of_one_is_its_feature(shape):
    """Every figure equals the feature's bitwise, whatever the order of the groups."""
    plain = make_model(shape, lookback=3, hidden_size=3, n_hidden=2, n_reference=60)
    importance = measure_importance(plain, 0)
    features = {row.name: row for row in importance.features}
    model = group(plain, {"last": ("f3",), "first": ("f0",)})
    rows = rows_of_groups(model)
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
    importance, rows = measure_importance(model, 0), rows_of_groups(model)
    assert set(rows) == {"pair", "three", "f2"} and rows["three"].members == ("f0", "f1", "f3")
    for row in rows.values():
        numbers = [int(name[1:]) for name in row.members]
        contribution = importance.contributions[:, numbers].sum(axis=1)
        assert row.mean_abs_contribution == pytest.approx(np.abs(contribution).mean(), rel=1e-12)
        assert row.mean_contribution == pytest.approx(contribution.mean(), rel=1e-9)
        assert row.interval[0] <= row.mean_abs_contribution <= row.interval[1]
    assert rows["three"].share + rows["f2"].share == pytest.approx(1)
    assert [row.rank for row in rows.values()] == [1, 2, 3]


def test_members_are_permuted_together():
    """In permuted windows all members come from the same other window."""
    model = make_model()
    growth = permute_features(model, 0, 7, [[1, 2], [0]])
    windows, targets = model.reference.scaled, model.reference.targets[:, 0]

    def errors(given):
        return np.abs(model.scaling.outputs_to_original(model.network(given))[:, 0] - targets)

    generator, expected = np.random.default_rng([7, 1]), 0.0
    for _ in range(3):
        moved, permuted = generator.permutation(len(windows)).tolist(), windows.clone()
        permuted[:, :, 1:3] = windows[moved][:, :, 1:3]
        expected = expected + (errors(permuted) - errors(windows)) / 3
    np.testing.assert_allclose(growth[:, 0], expected, atol=1e-9)
    assert (growth[:, 1] == permute_features(model, 0, 7)[:, 0]).all()


def test_a_group_that_nothing_reads_is_disconnected():
    """It is connected if one of its features is."""
    plain = make_model()
    with torch.no_grad():
        plain.network.recurrent.weight_ih_l0[:, [0, 3]] = 0
    model = group(plain, NESTED)
    rows = rows_of_groups(model)
    assert rows["pair"].verdict == "disconnected" and rows["pair"].mean_abs_contribution == 0
    assert rows["pair"].permutation_mae_increase == 0
    assert rows["three"].connected


def test_effects_are_unknown_without_targets():
    """Without targets the permutation importance of groups is None."""
    rows = rows_of_groups(group(make_model(with_targets=False), NESTED))
    assert all(row.permutation_mae_increase is None and row.permutation_interval is None for row in rows.values())


def test_the_model_shows_its_groups():
    """The importance table and the report have the groups; without groups there are none."""
    model = Model.of(group(make_model(), NESTED))
    importance = model.importance()
    assert [row["name"] for row in importance.table("group")] == [row.name for row in importance.groups]
    assert "three" in repr(importance) and "f0, f1, f3" in importance.html()
    answer = {each.id: each for each in model.report().findings}["features"]
    assert "`f0`, `f3` act as one, `pair`" in answer.answer
    assert set(answer.evidence["groups"]) == {"pair", "three"}
    assert Model.of(make_model()).importance().groups == ()


def test_the_importance_of_other_groups_is_that_of_a_checkpoint_with_them():
    """The call's `groups` replace those of the checkpoint; None disables groups."""
    model, other = group(make_model(), NESTED), {"last": ["f2", "f3"]}
    assert Model.of(model).importance(groups=other).groups == Model.of(group(make_model(), other)).importance().groups
    assert Model.of(model).importance(groups=None).groups == ()
    with pytest.raises(DataError, match=r"groups\.g has no feature 'z'"):
        Model.of(model).importance(groups={"g": ["z"]})


def test_groups_in_groups_share_their_figures(monkeypatch):
    """Names of the same features are measured once, and what the importance knows is not measured again."""
    model = make_model()
    chain = {f"g{n}": [f"g{n + 1}"] for n in range(3000)} | {"g3000": ["f0", "f1"]}
    importance, permuted = measure_importance(model, 0), []
    counted = permutation.permute_features

    def count(model, output, seed, groups):
        permuted.append(len(groups))
        return counted(model, output, seed, groups)

    monkeypatch.setattr("kanmodel.structure.importance.permute_features", count)
    rows = {row.name: row for row in add_groups(model, importance, chain).groups}
    assert permuted == [1] and len(rows) == 3001 + len(model.config.features) - 2
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


@pytest.mark.parametrize("shape", SHAPES)
def test_the_only_feature_that_is_read(shape):
    """The only feature that is read has a positive effect, all others exactly 0."""
    model = make_model(shape, n_features=3, lookback=4)
    for feature in (0, 1):
        disconnect(model.network, feature)
    effect = permute_features(targets_of_its_own(model), 0, seed=0).mean(axis=0)
    np.testing.assert_array_equal(effect[:2], 0)
    assert effect[2] > 0


def test_a_large_model_has_fewer_permutations_of_fewer_windows():
    """Models of usual size get 3 permutations of all windows, larger ones fewer, down to 64 windows."""
    config = make_model("lstm").config
    plans = [
        plan_permutations(
            replace(
                config,
                features=tuple(Feature(f"x{number}") for number in range(64)),
                lookback=168,
                recurrent=RecurrentConfig("lstm", units),
                head=plain_layers([units, len(config.outputs)]),
            ),
            512,
        )
        for units in (64, 192, 512, 2048)
    ]
    assert [len(windows) for _, windows in plans[:2]] == [512, 512]
    assert plans[0][0] == N_PERMUTATIONS > plans[1][0]
    assert plans[2][0] == plans[3][0] == 1
    assert 512 > len(plans[2][1]) > len(plans[3][1]) == MIN_WINDOWS
    for _, windows in plans:
        assert windows.tolist() == choose_evenly(512, len(windows)).tolist()


def test_fewer_windows_have_the_effects_of_those_windows(monkeypatch):
    """Above the budget the effect is that of one permutation of the chosen windows, with its own interval."""
    model = targets_of_its_own(make_model("lstm", n_features=3, lookback=3, n_reference=200))
    disconnect(model.network, 1)
    monkeypatch.setattr(permutation, "MULTIPLY_ADDS", 1)
    chosen = plan_permutations(model.config, 200)[1]
    reference = model.reference
    fewer = replace(
        model, reference=replace(reference, scaled=reference.scaled[chosen], targets=reference.targets[chosen])
    )
    growth = permute_features(model, 0, seed=0)
    assert growth.shape == (MIN_WINDOWS, 3)
    np.testing.assert_array_equal(growth, permute_features(fewer, 0, seed=0))
    np.testing.assert_array_equal(growth[:, 1], 0)
    for row in measure_importance(model, 0).features:
        low, high = row.permutation_interval
        assert row.permutation_mae_increase == pytest.approx(growth[:, int(row.name[1:])].mean())
        assert low <= row.permutation_mae_increase <= high


def test_batches_change_nothing(monkeypatch):
    """The effect does not depend on the batch size, and is exactly 0 for a feature that is not read."""
    model = targets_of_its_own(make_model("lstm", n_features=3, lookback=3))
    disconnect(model.network, 1)
    growth = permute_features(model, 0, seed=0)
    monkeypatch.setattr(permutation, "BATCH_BYTES", 1000)
    slices = []
    with pausing(lambda: slices.append(1)):
        in_batches = permute_features(model, 0, seed=0)
    np.testing.assert_allclose(in_batches, growth, atol=1e-12)
    np.testing.assert_array_equal(in_batches[:, 1], 0)
    assert len(slices) > 3 * N_PERMUTATIONS + 1


def targets_of_its_own(model):
    """The model with its own forecasts as targets of the reference windows."""
    model = replace(model, reference=model.reference)
    outputs = model.scaling.outputs_to_original(model.reference_outputs)
    return replace(model, reference=replace(model.reference, targets=outputs))


columns = st.integers(3, 30).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-5, 5), min_size=n, max_size=n).filter(lambda v: len(set(v)) > 1)] * 2)
)


@given(columns)
def test_it_is_spearmans(pair):
    """The correlation is scipy's, with and without ties."""
    a, b = (np.array(values, dtype=float) for values in pair)
    from scipy.stats import spearmanr  # imported here, as it is large

    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_a_constant_measure_agrees_with_nothing():
    """For a constant measure the correlation is 0 rather than NaN."""
    assert rank_correlation(np.ones(4), np.arange(4.0)) == 0
