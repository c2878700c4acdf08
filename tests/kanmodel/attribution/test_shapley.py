"""Shapley values beside other implementations, closed forms, and what must hold of any game."""

from itertools import permutations

import numpy as np
import pytest
import torch
from factories import make_chain, make_model, make_windows
from goldens import load_shapley
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples, few_of

from kanmodel import DataError, Model, UnknownNameError
from kanmodel.attribution.baseline import Baseline
from kanmodel.attribution.effects import each_feature, select_cells
from kanmodel.attribution.shapley import MAX_EXACT, Orders, _rules, _values, measure_shapley
from kanmodel.network.bases import Line
from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.tables.columns import Feature, Target

MODEL = Model.of(make_model(targets=("a", "b")))
SEGMENTS = {"new": (-1, 0), "old": (-5, -2)}
BASELINES = ["mean", "zero", {"reference": 3, "seed": 1}]


def by_orders(windows, baseline, output, parts):
    """The mean over all orders of what the change of each part does, by what `predict` says, (n, n_parts)."""
    number, orders = MODEL.outputs.index(output), [*permutations(range(len(parts)))]
    found = np.zeros((len(windows), len(parts)))
    for start in MODEL.baseline(baseline):
        for order in orders:
            changed = np.repeat(start[None], len(windows), axis=0)
            before = MODEL.predict(changed)[:, number]
            for part in order:
                rows, columns = parts[part]
                changed[:, rows, columns] = windows[:, rows, columns]
                after = MODEL.predict(changed)[:, number]
                found[:, part] += after - before
                before = after
    return found / len(orders) / len(MODEL.baseline(baseline))


@settings(max_examples=examples(20))
@given(seed=st.integers(0, 99), baseline=st.sampled_from(BASELINES), output=st.sampled_from(MODEL.outputs))
def test_values_are_means_over_all_orders(seed, baseline, output):
    """Features, groups, and their segments have the values of the definition, over orders made by hand."""
    windows, by_row = make_windows(MODEL, 2, seed), slice(None)
    found = MODEL.explain(windows, output, baseline=baseline, method="shapley").shapley
    single = [(by_row, [feature]) for feature in range(len(MODEL.features))]
    np.testing.assert_allclose(found.values, by_orders(windows, baseline, output, single), atol=1e-9)
    groups = {"pair": ["f2", "f0"], "all": ["pair", "f1", "f3"]}
    asked = {"groups": groups, "segments": {"new": (-1, 0), "old": (1 - MODEL.lookback, -2)}}
    found = MODEL.explain(windows, output, baseline=baseline, method="shapley", **asked)
    parts = [(rows, [0, 1, 2, 3]) for rows in found.segment_rows]
    assert found.parts == ("all",) and found.shapley.values.shape == (2, 1, 2)
    np.testing.assert_allclose(found.shapley.values[:, 0], by_orders(windows, baseline, output, parts), atol=1e-9)


@settings(max_examples=examples(20))
@given(
    seed=st.integers(0, 99),
    baseline=st.sampled_from(BASELINES),
    segments=st.sampled_from([None, SEGMENTS, {f"s{step}": (step, step) for step in range(-4, 1)}]),
    orders=st.sampled_from([4, 10]),
)
def test_values_sum_to_the_change(seed, baseline, segments, orders):
    """They sum to F(x) - F(x0), exact or from random orders, and are 0 for what equals the baseline."""
    windows = make_windows(MODEL, 3, seed)
    windows[:, :, 1] = MODEL.baseline("mean")[0, :, 1]
    found = MODEL.explain(windows, baseline=baseline, segments=segments, method="shapley", orders=orders, seed=seed)
    change = found.predictions - found.baseline_prediction
    np.testing.assert_allclose(found.shapley.values.reshape(3, -1).sum(axis=1), change, atol=1e-9)
    if baseline == "mean":
        assert not found.shapley.values[:, 1].any() and not found.shapley.standard_error[:, 1].any()
    n_parts = found.shapley.values[0].size
    assert bool(found.shapley.standard_error.any()) == (n_parts > MAX_EXACT or isinstance(baseline, dict))


@pytest.mark.parametrize(("name", "baseline"), [("pykan_head", "zero"), ("tiny", "zero"), ("tiny", "mean")])
def test_values_of_real_models(name, baseline):
    """Exact values equal the golden ones, and random orders of 20 features are within their errors."""
    case, windows, start, exact = load_shapley(name, baseline)
    asked = case.model, windows, 0, Baseline("instance", instance=start), each_feature(case.model.config)
    found = measure_shapley(*asked, Orders(64, 1))
    if exact.shape[1] <= MAX_EXACT:
        np.testing.assert_allclose(found.values, exact, atol=1e-6 * case.model.output_std[0])
        assert not found.standard_error.any()
    else:
        far = np.abs(found.values - exact) / found.standard_error
        assert np.median(far) < 1 and far.max() < 5
        assert measure_shapley(*asked, Orders(256, 1)).standard_error.mean() < 0.6 * found.standard_error.mean()


def test_random_orders_of_an_additive_model_have_no_error():
    """Without interactions each order gives the same, so 20 features have their exact values from 4 orders."""
    features = tuple(Feature(f"f{f}", None, 0.0, 1.0, -9.0, 9.0) for f in range(20))
    layer = LayerConfig(20, 1, basis=Line(), base="zero")
    config = ModelConfig(features, (Target("y", None, 0.0, 1.0),), 1, 1, (layer,), readout="flatten", dtype="float64")
    model = make_chain(config, 0)
    windows = torch.randn(3, 1, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = measure_shapley(model, windows, 0, Baseline("zero"), each_feature(config), Orders(4))
    slopes = model.network(torch.eye(20, dtype=torch.float64)[:, None]) - model.network(torch.zeros(1, 1, 20).double())
    np.testing.assert_allclose(found.values, (windows[:, 0] * slopes.T).detach().numpy(), atol=1e-9)
    assert found.standard_error.max() < 1e-12


def test_thousands_of_orders_take_megabytes():
    """The rules of 30 parts in 2000 orders: no number for each order and coalition, which were 7 gigabytes.

    Values and errors are those of all samples at once.
    """
    rules = _rules(30, Orders(2000), 0)
    assert rules.weights is None and rules.changes is not None
    assert sum(one.numel() * one.element_size() for one in (rules.coalitions, rules.changes)) < 10e6
    worth = torch.randn(len(rules.coalitions), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    after, before = rules.changes
    samples = (worth[after] - worth[before]).mean(dim=1)  # (n_pairs, n_parts, n)
    values, errors = _values(rules, worth)
    np.testing.assert_allclose(values, samples.mean(dim=0).T, atol=1e-12)
    np.testing.assert_allclose(errors, (samples.std(dim=0) / len(samples) ** 0.5).T, rtol=1e-9)
    np.testing.assert_allclose(values.sum(dim=1), worth[-1] - worth[0], atol=1e-9)


def test_the_same_seed_gives_the_same_values_in_any_batch():
    """Random orders depend on the seed and the parts alone, not on the windows beside one."""
    windows = make_windows(MODEL, 5)
    asked = {"segments": {f"s{step}": (step, step) for step in range(-4, 1)}, "method": "shapley", "orders": 4}
    together = MODEL.explain(windows, **asked, seed=3)
    alone = MODEL.explain(windows[3:4], **asked, seed=3)
    np.testing.assert_allclose(together[3].shapley.values, alone.shapley.values, atol=1e-12)
    assert np.abs(together.shapley.values - MODEL.explain(windows, **asked, seed=4).shapley.values).max() > 1e-6


def test_a_part_that_reaches_nothing_is_zero_and_takes_no_forecast():
    """Cells in no part stay at the baseline; parts that are not connected have exactly 0."""
    windows = MODEL.to_model_units(make_windows(MODEL, 2))
    parts = torch.cat([select_cells(MODEL.config, [[0]]), select_cells(MODEL.config, [[2]], [slice(3, 5)])])
    found = measure_shapley(MODEL, windows, 0, Baseline(), parts, Orders())
    assert found.values.shape == (2, 2) and found.values.all()
    nothing = measure_shapley(MODEL, windows, 0, Baseline(), select_cells(MODEL.config, [[]]), Orders())
    assert not nothing.values.any()


def test_tables_have_both():
    """A table has contributions and Shapley values beside each other, of the parts alone."""
    windows = make_windows(MODEL, 2)
    plain = MODEL.explain(windows, method="shapley")
    assert [row["shapley"] for row in plain.table()] == plain.shapley.values.ravel().tolist()
    grouped = MODEL.explain(windows[0], groups={"pair": ["f0", "f1"], "more": ["pair", "f2"]}, method="shapley")
    rows = {row["group"]: row["shapley"] for row in grouped.table("group")}
    assert rows == {"pair": None, **dict(zip(("more", "f3"), grouped.shapley.values[0].tolist(), strict=True))}
    assert "shapley" not in grouped.table()[0] and "shapley" in repr(grouped)
    assert "as all parts move" in repr(plain[0]) and "orders" in plain[0].html()


@pytest.mark.parametrize("method", few_of(["path", "shapley"], ["shapley"], "draws the same plots"))
def test_plots_of_shap(method):
    """`shap` draws contributions and Shapley values: waterfall, beeswarm and scatter."""
    import shap
    from matplotlib import pyplot as plt

    windows = make_windows(MODEL, 8)
    explained = MODEL.explain(windows, method=method)
    found = explained.shap()
    values = explained.contributions if method == "path" else explained.shapley.values
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_allclose(found.data, windows[:, -1])
    assert list(found.feature_names) == list(explained.features)
    shap.plots.waterfall(found[0], show=False)
    shap.plots.beeswarm(found, show=False)
    shap.plots.scatter(found[:, "f1"], show=False)
    plt.close("all")
    parts = MODEL.explain(windows, groups={"pair": ["f0", "f1"]}, segments=SEGMENTS, method=method).shap()
    assert parts.shape == (8, 6) and parts.feature_names[0] == "pair, new"
    assert np.isnan(parts.data[:, :2]).all()
    np.testing.assert_allclose(parts.data[:, 2], windows[:, -2:, 2].mean(axis=1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "kernel"}, UnknownNameError, "method"),
        ({"orders": 5}, DataError, "orders must be even"),
        ({"orders": 2}, DataError, "orders must be"),
        ({"seed": -1}, DataError, "seed must be"),
    ],
)
def test_options_that_do_not_exist_are_refused(options, error, message):
    """The error names the option."""
    with pytest.raises(error, match=message):
        MODEL.explain(make_windows(MODEL, 1), **{"method": "shapley", **options})
