from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch
from factories import PROVENANCE, SHAPES, make_chain, make_model, make_windows
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import networks
from thorough import examples, few_of

from kanmodel import DataError, Model
from kanmodel.attribution.baseline import Baseline, ReferenceBaselines, scaled_baselines
from kanmodel.attribution.effects import (
    BATCH_WINDOWS,
    each_cell,
    each_feature,
    measure_effects,
    measure_interactions,
    select_cells,
)
from kanmodel.computing import pausing
from kanmodel.forecaster import Forecaster, Reference
from kanmodel.network.bases import BSpline, Line
from kanmodel.network.config import LayerConfig, ModelConfig, plain_layers
from kanmodel.network.network import FrozenLayers, Network
from kanmodel.network.recurrent import FrozenRecurrent
from kanmodel.structure.importance import measure_importance
from kanmodel.tables.columns import Feature, Target

MODEL = Model.of(make_model(targets=("a", "b")))
N_FEATURES, LOOKBACK = len(MODEL.features), MODEL.lookback
BASELINES = ["mean", "zero", {"reference": 3, "seed": 1}, {"values": {f"f{f}": float(f) for f in range(N_FEATURES)}}]


def by_hand(windows, baseline, output, rows, columns):
    """`removed` and `alone` of some cells, each the mean over baselines of differences of what `predict` says."""
    number = MODEL.outputs.index(output)
    removed, alone = [], []
    for start in MODEL.baseline(baseline):
        without, only = windows.copy(), np.repeat(start[None], len(windows), axis=0)
        without[:, rows, columns] = start[rows, columns]
        only[:, rows, columns] = windows[:, rows, columns]
        removed.append(MODEL.predict(windows) - MODEL.predict(without))
        alone.append(MODEL.predict(only) - MODEL.predict(start))
    return np.mean(removed, axis=0)[:, number], np.mean(alone, axis=0)[:, number]


def chain_of_lines(n_features, lookback, layer, seed=0):
    """A model whose edges are lines, on the flattened window."""
    features = tuple(Feature(f"f{f}", None, float(f), 1.5, -9.0, 9.0) for f in range(n_features))
    target = Target("y", None, 2.0, 3.0)
    return make_chain(ModelConfig(features, (target,), lookback, 1, (layer,), readout="flatten", dtype="float64"), seed)


@given(seed=st.integers(0, 99), baseline=st.sampled_from(BASELINES), output=st.sampled_from(["a+1", "b+1"]))
def test_effects_are_differences_of_forecasts(seed, baseline, output):
    """Each effect of a feature or a cell is what `predict` says of the windows that one builds by hand."""
    windows = make_windows(MODEL, 3, seed)
    found = MODEL.explain(windows, output, baseline=baseline, effects="steps")
    feature, step = seed % N_FEATURES, seed % LOOKBACK
    for effects, place, rows in (
        (found.effects, np.s_[:, feature], slice(None)),
        (found.step_effects, np.s_[:, step, feature], slice(step, step + 1)),
    ):
        removed, alone = by_hand(windows, baseline, output, rows, [feature])
        np.testing.assert_allclose(effects.removed[place], removed, atol=1e-9)
        np.testing.assert_allclose(effects.alone[place], alone, atol=1e-9)
        np.testing.assert_array_equal(effects.together, effects.removed - effects.alone)


@given(seed=st.integers(0, 99), baseline=st.sampled_from(BASELINES))
def test_effects_of_groups_and_segments(seed, baseline):
    """A group is removed as one, with all its features at once, over all steps or over those of a segment."""
    windows = make_windows(MODEL, 2, seed)
    groups, segments = {"pair": ["f2", "f0"]}, {"new": (-1, 0), "old": (-5, -3)}
    by_group = MODEL.explain(windows, baseline=baseline, groups=groups, effects=True)
    both = MODEL.explain(windows, baseline=baseline, groups=groups, segments=segments, effects=True)
    assert by_group.group_names == ("pair", "f1", "f3") and both.effects_by_group.removed.shape == (2, 3, 3)
    for number, columns in enumerate(([0, 2], [1], [3])):
        removed, alone = by_hand(windows, baseline, "a+1", slice(None), columns)
        np.testing.assert_allclose(by_group.effects_by_group.removed[:, number], removed, atol=1e-9)
        np.testing.assert_allclose(by_group.effects_by_group.alone[:, number], alone, atol=1e-9)
        for segment, rows in enumerate((slice(4, 6), slice(0, 3), slice(3, 4))):  # the last is in no segment
            removed, alone = by_hand(windows, baseline, "a+1", rows, columns)
            np.testing.assert_allclose(both.effects_by_group.removed[:, number, segment], removed, atol=1e-9)
            np.testing.assert_allclose(both.effects_by_group.alone[:, number, segment], alone, atol=1e-9)
    rows = {(row["group"], row["segment"]): row for row in both[1].table("group")}
    assert rows["f3", "old"]["removed"] == both.effects_by_group.removed[1, 2, 1]
    assert by_group[0].effects_by_group.alone.shape == (1, 3) and MODEL.explain(windows, groups=groups).effects is None


@given(seed=st.integers(0, 99), baseline=st.sampled_from(["mean", "zero", {"reference": 3}]))
def test_a_linear_model_has_one_answer_to_three_questions(seed, baseline):
    """Where the forecast is linear, removed, contribution and alone are equal, of features and of cells."""
    model = Model.of(chain_of_lines(3, 4, LayerConfig(12, 1, Line(), "zero"), seed))
    found = model.explain(make_windows(model, 3, seed), baseline=baseline, effects="steps")
    assert np.abs(found.contributions).max() > 0.01
    for effects, contributions in ((found.effects, found.contributions), (found.step_effects, found.steps)):
        np.testing.assert_allclose(effects.removed, contributions, atol=1e-8)
        np.testing.assert_allclose(effects.alone, contributions, atol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_disconnected_feature_has_no_effect_at_all(dtype):
    """Both effects of a feature that no path connects with the output are exactly 0, however many windows there are."""
    loaded = make_model("head", dtype=dtype, product=True)
    with torch.no_grad():
        loaded.network.head[0].mask[:, 2] = 0
    model = Model.of(replace(loaded))
    for n in (1, 7, 100):
        effects = model.explain(make_windows(loaded, n), effects=True).effects
        assert (effects.removed[:, 2] == 0).all() and (effects.alone[:, 2] == 0).all()
        assert (effects.removed[:, [0, 1, 3]] != 0).any(axis=0).all()


def test_a_part_at_the_baseline_has_no_effect_at_all():
    """What holds the baseline's values already is exactly 0, and asks for no forecast."""
    windows = make_windows(MODEL, 3)
    windows[1, :, 2] = MODEL.baseline()[0, :, 2]
    effects = MODEL.explain(windows, effects=True).effects
    assert effects.removed[1, 2] == effects.alone[1, 2] == 0
    assert (effects.removed[[0, 2], 2] != 0).all()
    same = MODEL.explain(MODEL.baseline(), effects="steps")
    assert not same.effects.removed.any() and not same.step_effects.alone.any()


@settings(max_examples=examples(60))
@given(st.data(), networks())
def test_sharing_steps_changes_nothing(data, network):
    """In every kind of network the effects of any parts are those of whole forecasts of the changed windows."""
    config, n = network.config, data.draw(st.integers(1, 3))
    n_features, seed = len(config.features), data.draw(st.integers(0, 99))
    output = data.draw(st.integers(0, len(config.outputs) - 1))
    ends = st.lists(st.integers(0, config.lookback), min_size=2, max_size=2, unique=True).map(sorted)
    of_features = st.lists(st.integers(0, n_features - 1), min_size=1, unique=True)
    of_parts = st.tuples(of_features, ends.map(lambda pair: slice(*pair)))
    parts = [
        select_cells(config, [features], [rows])[0] for features, rows in data.draw(st.lists(of_parts, max_size=6))
    ]
    windows = torch.randn(n + 20, *config.window_shape, generator=torch.Generator().manual_seed(seed)).double()
    model = Forecaster(network, Reference(windows[n:], network.config), {}, PROVENANCE)
    windows, start = windows[:n], scaled_baselines(model)[0]

    def forecast(windows):
        return network(windows)[:, output].detach().numpy()

    expected = np.zeros((2, n, len(parts)))
    for number, part in enumerate(parts):
        without, only = windows.clone(), start.repeat(n, 1, 1)
        without[:, part] = start[part]
        only[:, part] = windows[:, part]
        expected[:, :, number] = forecast(windows) - forecast(without), forecast(only) - forecast(start[None])
    assume(np.isfinite(expected).all())
    scale = float(model.scaling.output_scale[output])
    largest = max(1.0, np.abs(forecast(windows)).max(), np.abs(forecast(start[None])).max())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kanmodel.attribution.effects.BATCH_WINDOWS", data.draw(st.sampled_from([1, 4 * n, 1000])))
        found = measure_effects(
            model, windows, output, Baseline(), torch.stack(parts) if parts else each_feature(config)[:0]
        )
    np.testing.assert_allclose(np.stack(found), expected * scale, rtol=1e-9, atol=1e-9 * scale * largest)


@pytest.mark.parametrize("dtype", few_of(["float32", "float64"], ["float32"], "the same in double precision"))
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ("lstm", {}),
        ("lstm", {"cell": "gru", "bias": False}),
        ("lstm", {"num_layers": 2, "readout": "mean"}),
        ("lstm", {"cell": "gru", "num_layers": 2, "readout": "flatten"}),
        ("lstm", {"bidirectional": True}),
        ("front", {"readout": "mean"}),
        ("flat", {}),
    ],
    ids=str,
)
@settings(max_examples=examples(20))
@given(seed=st.integers(0, 99))
def test_effects_are_captums(shape, options, dtype, seed):
    """`removed` of every feature and of every cell is what Captum's FeatureAblation says of the network."""
    from captum.attr import FeatureAblation  # imports matplotlib, which other workers do not need

    loaded = tiny(shape, dtype=dtype, **options)
    windows, start = loaded.to_model_units(make_windows(loaded, 3, seed)), scaled_baselines(loaded)
    captum = FeatureAblation(lambda x: loaded.network(x)[:, 0])
    features = torch.arange(windows.shape[2]).expand(1, *windows.shape[1:])
    rounding = {"float64": 1e-13, "float32": 3e-6}[dtype] * float(loaded.reference_outputs.abs().max())
    for parts, mask in ((each_feature(loaded.config), features), (each_cell(loaded.config), None)):
        expected = captum.attribute(windows, start, feature_mask=mask) * float(loaded.scaling.output_scale[0])
        expected = expected.flatten(1).detach().numpy()[:, : len(parts)]  # a feature's is repeated at every step
        found = measure_effects(loaded, windows, 0, Baseline(), parts).removed
        np.testing.assert_allclose(found, expected, rtol=0, atol=rounding * float(loaded.scaling.output_scale[0]))


def test_a_far_value_costs_the_others_nothing():
    """Without a feature that is 1e6 standard deviations away the forecast is as exact as any, in float32 too."""
    loaded, exact = tiny("lstm", dtype="float32"), tiny("lstm", dtype="float64")
    exact.network.load_state_dict(loaded.network.state_dict())
    windows = loaded.to_model_units(make_windows(loaded, 2))
    windows[:, 1, 0] = 1e6
    found, expected = (
        measure_effects(model, windows.to(dtype), 0, Baseline(), each_cell(model.config))
        for model, dtype in ((loaded, torch.float32), (replace(exact), torch.float64))
    )
    np.testing.assert_allclose(found.removed, expected.removed, rtol=0, atol=1e-5 * float(loaded.output_std[0]))


@pytest.mark.parametrize("n", [1, 3, 65])
def test_the_number_of_forecasts_is_known_before(n, monkeypatch):
    """At most 2 forecasts for each window, baseline and part are made, and 2 without a part."""
    loaded = make_model()
    rows: list[int] = []
    forward = FrozenLayers.forward
    monkeypatch.setattr(FrozenLayers, "forward", lambda head, x: (rows.append(len(x)), forward(head, x))[1])
    scaled = loaded.to_model_units(make_windows(loaded, n))
    parts = each_cell(loaded.config)
    measure_effects(loaded, scaled, 0, ReferenceBaselines(2), parts)
    assert sum(rows) == 2 * 2 * n * (len(parts) + 1)
    assert max(rows) <= BATCH_WINDOWS


@pytest.mark.parametrize("options", [{}, {"cell": "gru"}, {"num_layers": 2}, {"readout": "flatten"}], ids=str)
def test_cells_share_the_steps_before_them(options, monkeypatch):
    """A window with one changed cell takes the steps from that cell on: half of all steps for all its cells."""
    loaded = make_model(lookback=8, **options)
    steps: list[int] = []
    advance = FrozenRecurrent.advance

    def count(recurrent, states, gates):
        steps.append(states.shape[-1])
        return advance(recurrent, states, gates)

    monkeypatch.setattr(FrozenRecurrent, "advance", count)
    measure_effects(loaded, loaded.to_model_units(make_windows(loaded, 3)), 0, Baseline(), each_cell(loaded.config))
    assert sum(steps) == 2 * 3 * (
        4 * (8 + 7 + 6 + 5 + 4 + 3 + 2 + 1) + 8 + 7
    )  # both effects; the unchanged windows, twice


def test_effects_of_some_windows_are_those_windows():
    """Taking windows of an explanation takes their effects."""
    found = MODEL.explain(make_windows(MODEL, 4), effects="steps")
    np.testing.assert_array_equal(found[2].effects.alone[0], found.effects.alone[2])
    np.testing.assert_array_equal(found[1:3].step_effects.removed, found.step_effects.removed[1:3])
    assert MODEL.explain(make_windows(MODEL, 1)).effects is None


def test_it_can_be_ended_between_passes(monkeypatch):
    """A pause that raises ends the work."""
    monkeypatch.setattr("kanmodel.attribution.effects.BATCH_WINDOWS", 1024)
    calls: list[int] = []

    def pause():
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError

    scaled = MODEL.to_model_units(make_windows(MODEL, 64))
    with pytest.raises(InterruptedError), pausing(pause):
        measure_effects(MODEL, scaled, 0, Baseline(), each_cell(MODEL.config))


@pytest.mark.parametrize("effects", ["cells", 1, None])
def test_what_says_nothing_of_effects_is_refused(effects):
    """Whatever is neither True, False nor "steps" is an error that names the argument."""
    with pytest.raises(DataError, match='effects must be True or False or "steps", but is'):
        MODEL.explain(make_windows(MODEL, 1), effects=effects)


@cache
def tiny(shape, **options):
    return make_model(shape, **{"n_features": 3, "lookback": 3, "n_reference": 60} | options)


def kan_alone(config, seed, change):
    """A KAN alone with this config, features in their own units, modified by `change`."""
    rng = np.random.default_rng(seed)
    n = config[0].n_in
    features = tuple(Feature(f"x{i}", None, float(rng.normal()), float(rng.uniform(0.5, 3))) for i in range(n))
    whole = ModelConfig(features, (Target("y", "K", 2.0, 3.0),), 1, 1, config, dtype="float64")
    network = Network(whole, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        change(network.head)
    windows = torch.from_numpy(rng.normal(size=(200, 1, n)))
    return Forecaster(network, Reference(windows, network.config), {}, PROVENANCE)


@settings(max_examples=examples(20))
@given(st.integers(0, 1000), st.integers(2, 6))
def test_an_additive_model_has_none(seed, n_features):
    """In a KAN without hidden layer no features interact: every strength is 0 up to rounding."""
    config = plain_layers([n_features, 1])
    model = kan_alone(config, seed, lambda head: head[0].coef.mul_(10))
    found = measure_interactions(model, 0).pairs
    assert len(found) == min(n_features * (n_features - 1) // 2, 10)
    for interaction in found:
        assert interaction.strength < 1e-12
        assert max(interaction.interval) < 1e-12


def multiply(head):
    """Makes a head with one product node: x0 times x1, with x2 added to the first factor's output."""
    for layer in head:
        layer.mask[:] = 0
        layer.scale_base[:] = 1
        layer.scale_spline[:] = 0
    head[0].mask[0, 2] = 1  # the sum node is x2
    head[0].mask[1, 0] = head[0].mask[2, 1] = 1  # the factors are x0 and x1
    head[1].mask[:] = 1


@settings(max_examples=examples(20))
@given(st.integers(0, 1000))
def test_a_product(seed):
    """For x0 x1 + x2 the strength of x0 and x1 is mean |(x0 - m0)(x1 - m1)|, and x2 has none."""
    config = plain_layers([3, (1, 1), 1], BSpline(3), base="identity")
    model = kan_alone(config, seed, multiply)
    x = model.reference.scaled[:, 0].numpy()
    exact = 3.0 * np.abs((x[:, 0] - x[:, 0].mean()) * (x[:, 1] - x[:, 1].mean())).mean()  # 3: the target's scale
    found = {frozenset(pair.features): pair for pair in measure_interactions(model, 0).pairs}
    together = found[frozenset({"x0", "x1"})]
    assert together.strength == pytest.approx(exact)
    assert together.interval[0] < exact < together.interval[1]
    assert found[frozenset({"x0", "x2"})].strength < 1e-12
    assert found[frozenset({"x1", "x2"})].strength < 1e-12


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_second_difference(shape):
    """Every strength follows from four forecasts, with the mean in place of an absent feature at all steps."""
    model = tiny(shape)
    windows = model.scaling.features_to_original(model.reference.scaled)

    def forecast(*gone):
        changed = windows.copy()
        changed[:, :, list(gone)] = model.reference.mean[list(gone)]
        return model.predict(changed)[:, 0]

    found = measure_interactions(model, 0).pairs
    names = model.config.feature_names
    assert {frozenset(pair.features) for pair in found} == {frozenset(pair) for pair in combinations(names, 2)}
    for pair in found:
        i, j = (names.index(name) for name in pair.features)
        expected = np.abs(forecast() - forecast(i) - forecast(j) + forecast(i, j)).mean()
        assert pair.strength == pytest.approx(expected)
        assert pair.interval[0] <= pair.strength <= pair.interval[1]
    assert [pair.strength for pair in found] == sorted((pair.strength for pair in found), reverse=True)


def product_of(n_features, i, j, scale=1.0):
    """A KAN that adds n features, and multiplies x_i and x_j."""

    def change(head):
        for layer in head:
            layer.mask[:] = 0
            layer.scale_base[:] = 1
            layer.scale_spline[:] = 0
        head[0].mask[0] = 1
        head[0].mask[1, i] = head[0].mask[2, j] = 1
        head[1].mask[:] = 1
        head[1].scale_base[0, 1] = scale

    return kan_alone(plain_layers([n_features, (1, 1), 1], BSpline(3), base="identity"), 0, change)


@pytest.mark.parametrize("n_features", [8, pytest.param(40, marks=pytest.mark.thorough("takes a second"))])
def test_pairs_are_taken_from_all_features(n_features):
    """The only interacting pair is found among any number of features, even if both have the lowest importance."""
    i, j = n_features - 3, n_features - 1
    model = product_of(n_features, i, j, scale=0.01)
    with torch.no_grad():
        model.network.head[0].scale_base[0, [i, j]] = 1e-3
    model = replace(model, reference=model.reference)
    importance = measure_importance(model, 0)
    assert set(np.argsort(importance.nodes["input", 0].value)[:2]) == {i, j}
    found = measure_interactions(model, 0)
    assert len(found.pairs) == 10
    assert found.pairs[0].features == (f"x{i}", f"x{j}")
    assert found.pairs[0].strength > 1e6 * found.pairs[1].strength


@pytest.mark.parametrize(("n_features", "pairs"), [(1, 0), (2, 1), (5, 10), (24, 276), (25, 276)])
def test_the_cost_is_bounded(n_features, pairs):
    """For any number of features at most 276 pairs are screened, on 64 windows, and 10 are measured."""
    model = make_model("head", n_features=n_features, n_reference=70)
    calls = []
    model.network.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    found = measure_interactions(model, 0)
    assert (found.n_features, found.n_screened, found.screening_windows) == (n_features, pairs, 64)
    assert len(found.pairs) == min(10, pairs)
    assert sum(calls) <= 64 * (3 * n_features + pairs + 1) + 70 * 31
