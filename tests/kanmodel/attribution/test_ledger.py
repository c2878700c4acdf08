import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from factories import PROVENANCE, SHAPES, make_chain, make_model, make_windows
from goldens import load_arrays, load_case, load_shapley
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad_vec
from thorough import examples, few_of

from kanmodel.attribution.baseline import (
    Baseline,
    ReferenceBaselines,
    baseline_windows,
    scaled_baselines,
    spread_windows,
)
from kanmodel.attribution.ledger import MOST, N_TRIED, LedgerOptions, explain_windows
from kanmodel.attribution.paths.bisection import MAX_NODES, MAX_PARTS
from kanmodel.checkpoint import load_checkpoint
from kanmodel.computing import pausing
from kanmodel.errors import DataError, NonFiniteError, UnknownNameError
from kanmodel.forecaster import Forecaster, Reference
from kanmodel.network.bases import BSpline, Line
from kanmodel.network.config import (
    LayerConfig,
    ModelConfig,
    RecurrentConfig,
    SymbolicEdge,
    Transform,
    plain_layers,
)
from kanmodel.network.connections import ledger_key
from kanmodel.network.network import Network
from kanmodel.structure.importance import rank_correlation
from kanmodel.structure.scores import score_layers
from kanmodel.tables.columns import Feature, Target
from service.models.repository import BUNDLED

MODELS = {
    "lstm": ("lstm", {}),
    "head": ("head", {}),
    "front": ("front", {}),
    "products": ("front", {"product": True, "horizon": 2}),
    "head with products": ("head", {"product": True, "targets": ("a", "b")}),
    "two layers, both directions, mean": (
        "lstm",
        {"num_layers": 2, "bidirectional": True, "bias": False, "readout": "mean", "targets": ("a", "b")},
    ),
    "linear base": ("lstm", {"base_activation": "identity", "spline_order": 2}),
    "no base": ("head", {"base_activation": "zero"}),
    "float32": ("lstm", {"product": True, "dtype": "float32"}),
}
BASELINES = {
    "mean": lambda model: Baseline(),
    "zero": lambda model: Baseline("zero"),
    "values": lambda model: Baseline("values", {name: 1.5 for name in model.config.feature_names}),
    "instance": lambda model: Baseline("instance", instance=make_windows(model, 1, seed=9)[0]),
}


def fixed(path_nodes):
    """A fixed number of path nodes for every window, whatever the residual."""
    return LedgerOptions(path_nodes=path_nodes, halvings=0)


every_model = pytest.mark.parametrize(
    "name",
    few_of(
        MODELS,
        ("head", "products", "two layers, both directions, mean", "float32"),
        "the same statement of further models",
    ),
)


@cache
def model_and_windows(name, n=6):
    shape, options = MODELS[name]
    model = make_model(shape, seed=3, **options)
    return model, model.to_model_units(make_windows(model, n))


@cache
def ledger_of(name, output=0, baseline="mean"):
    model, windows = model_and_windows(name)
    return explain_windows(model, windows, output, BASELINES[baseline](model))


def measure_residual(model, ledger):
    """The residual of a ledger's layers, recomputed from its numbers, (n,)."""
    change = ledger.predictions - ledger.baseline_prediction
    gaps = [ledger.steps.sum(axis=(1, 2)) - change]
    nodes = {}
    for layer in ledger.layers:
        nodes[layer.stage, layer.layer] = layer.nodes
        if layer.nodes is not None:
            gaps.append(layer.nodes.sum(axis=1) - change)
        if layer.edges is not None:
            gaps.append(layer.edges.sum(axis=(1, 2)) - change)
    for stage, layers in model.config.stages.items():
        edges = [layer.edges for layer in ledger.layers if layer.stage == stage]
        reaching = nodes[ledger_key(model.config, stage, 0)]
        for number, config in enumerate(layers):
            if not config.mixes:
                gaps.append(np.abs(edges[number].sum(axis=1) - reaching).max(axis=1))
            of_subnodes, members = edges[number].sum(axis=2), config.node_of_subnode
            reaching = np.zeros((len(of_subnodes), config.n_out))
            for subnode, node in enumerate(members):
                reaching[:, node] += of_subnodes[:, subnode]
            if (stage, number + 1) in nodes:
                np.testing.assert_allclose(nodes[stage, number + 1], reaching, atol=1e-9)
    return np.abs(np.stack(gaps)).max(axis=0)


def all_entries(ledger):
    """Every contribution of a ledger, (n, entries)."""
    arrays = [ledger.steps]
    for layer in ledger.layers:
        arrays += [values for values in (layer.nodes, layer.edges) if values is not None]
    return np.concatenate([values.reshape(len(values), -1) for values in arrays], axis=1)


@pytest.mark.parametrize("baseline", ["zero", "mean"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["pykan_head", "tiny"])
def test_integrated_gradients_of_captum(name, dtype, baseline):
    """Contributions of features and steps equal captum's Integrated Gradients to 1e-5 of the largest."""
    case = load_case(name, dtype)
    golden = load_arrays("lstm_ig") if name == "pykan_head" else case.arrays
    expected = golden[f"ig_{baseline}_float64"]
    start = golden["mean_baseline"].astype(np.float64) if baseline == "mean" else np.zeros(expected.shape[1:])
    ledger = explain_windows(
        case.model,
        case.windows("eval")[: len(expected)],
        0,
        Baseline("instance", instance=start),
        fixed(97),
    )
    assert np.abs(ledger.steps - expected).max() <= 1e-5 * np.abs(expected).max()
    assert (ledger.path_nodes == 97).all()


def shapley_and_ledger(name, baseline):
    """Exact Shapley values by feature, over all coalitions, and the ledger's contributions, (n, n_features) each."""
    case, windows, start, exact = load_shapley(name, baseline)
    ledger = explain_windows(case.model, windows, 0, Baseline("instance", instance=start))
    return exact, ledger.contributions


@pytest.mark.parametrize(
    ("name", "baseline", "least_correlation", "largest_difference"),
    [("pykan_head", "zero", 0.85, 0.2), ("tiny", "zero", 0.9, 0.1), ("tiny", "mean", 0.85, 0.2)],
)
def test_shapley_values(name, baseline, least_correlation, largest_difference):
    """Contributions have nearly the order and the amounts of exact Shapley values, and the same sum.

    They need not be equal: the ledger follows one straight path from the baseline to the window, on which
    all features change together; a Shapley value is the mean over all orders in which they change one at a time. If
    features are added or multiplied, the two agree; of x² y the path gives x two thirds, the coalitions one half.
    """
    exact, found = shapley_and_ledger(name, baseline)
    np.testing.assert_allclose(found.sum(axis=1), exact.sum(axis=1), atol=2e-3)
    for ours, theirs in zip(found, exact, strict=True):
        assert rank_correlation(ours, theirs) >= least_correlation
        assert np.abs(ours).argmax() in np.argsort(-np.abs(theirs))[:2]
    assert np.abs(found - exact).max() <= largest_difference
    assert np.abs(found - exact).max() > 0.05  # clearly different


@every_model
@pytest.mark.parametrize("baseline", BASELINES)
def test_every_layer_adds_up(name, baseline):
    """For every output each layer sums to F(x) - F(x0) and each node conserves it, within the stated residual."""
    model, _ = model_and_windows(name)
    for output, target in enumerate(model.config.outputs):
        ledger = ledger_of(name, output, baseline)
        rounding = 1e-9 if model.config.dtype == "float64" else 1e-6  # of forecasts, by processor and size of batch
        np.testing.assert_allclose(measure_residual(model, ledger), ledger.residual, atol=rounding)
        assert (ledger.residual <= ledger.error).all()
        assert (measure_residual(model, ledger)[ledger.converged] <= ledger.tolerance).all()
        assert ledger.output == target


@every_model
def test_the_ledger_has_both_predictions(name):
    """A ledger's F(x) and F(x0) are the model's predictions for the window and the baseline."""
    model, windows = model_and_windows(name)
    tolerance = 1e-9 if model.config.dtype == "float64" else 1e-5
    originals = model.scaling.features_to_original(windows)
    for output in range(len(model.config.outputs)):
        ledger = ledger_of(name, output)
        start = baseline_windows(model, Baseline())[0]
        np.testing.assert_array_equal(ledger.baseline, start)
        np.testing.assert_allclose(ledger.predictions, model.predict(originals)[:, output], atol=tolerance)
        assert ledger.baseline_prediction == pytest.approx(model.predict(start[None])[0, output], abs=tolerance)


@every_model
def test_the_tolerance_is_kept(name):
    """Every window converges to the tolerance, in standard deviations of the output."""
    model, windows = model_and_windows(name)
    options = LedgerOptions(tolerance=1e-2)
    for output in range(len(model.config.outputs)):
        ledger = explain_windows(model, windows, output, options=options)
        outputs = model.scaling.outputs_to_original(model.reference_outputs)[:, output]
        assert ledger.tolerance == pytest.approx(1e-2 * outputs.std(ddof=1))
        assert ledger.converged.all()


@every_model
def test_entries_of_many_nodes(name):
    """A converged ledger has the entries of a far finer one, so a small residual is no coincidence."""
    model, windows = model_and_windows(name)
    for output in range(len(model.config.outputs)):
        ledger = ledger_of(name, output)
        exact = explain_windows(model, windows, output, options=LedgerOptions(tolerance=1e-5, path_nodes=33))
        difference = np.abs(all_entries(ledger) - all_entries(exact)).max(axis=1)
        assert ledger.converged.any()
        assert (difference[ledger.converged] <= 5 * ledger.tolerance).all()


def test_only_paths_above_the_tolerance_are_halved():
    """Only paths above the tolerance are bisected, and each window has the result that it has alone."""
    model, windows = model_and_windows("lstm", n=12)
    ledger = explain_windows(model, windows, 0)
    whole = explain_windows(model, windows, 0, options=fixed(17))
    assert ledger.converged.all()
    np.testing.assert_array_equal(ledger.path_nodes <= 17, whole.converged)
    assert 0 < whole.converged.sum() < 12
    for window in range(12):
        alone = explain_windows(model, windows[window : window + 1], 0)
        assert alone.path_nodes[0] == ledger.path_nodes[window]
        np.testing.assert_allclose(all_entries(alone)[0], all_entries(ledger)[window], atol=1e-9)


@every_model
@pytest.mark.parametrize("detail", ["features", "steps"])
def test_less_detail_has_the_same_contributions(name, detail):
    """Features or steps alone are complete, and as in the flow: to rounding at equal nodes, else to the tolerance."""
    model, windows = model_and_windows(name)
    for options in (fixed(17), LedgerOptions()):
        flow, alone = (explain_windows(model, windows, 0, options=options, detail=each) for each in ("flow", detail))
        slack = 1e-6 if not options.halvings else flow.tolerance + alone.tolerance
        np.testing.assert_allclose(alone.steps, flow.steps, atol=slack)
        np.testing.assert_allclose(alone.contributions, flow.contributions, atol=slack)
        gap = alone.contributions.sum(axis=1) - (alone.predictions - alone.baseline_prediction)
        np.testing.assert_allclose(np.abs(gap), alone.residual, atol=1e-6)
        assert [layer.stage for layer in alone.layers] == ["input", "output"] and alone.detail == detail


@pytest.mark.thorough("integrates with 257 nodes")
@pytest.mark.parametrize("detail", ["features", "steps", "flow"])
def test_errors_are_those_of_257_nodes(detail):
    """Stated errors of trained models are at most 1.5 times the true ones in the median, sums included.

    Few are half of the true ones or less, and no contribution is off by more than 1.5 tolerances.
    """
    ratios = []
    for name in ("pykan_head", "tiny", "synthetic_gt"):
        case = load_case(name)
        windows = case.windows("eval")[:12]
        explained = explain_windows(case.model, windows, 0, detail=detail)
        exact = explain_windows(case.model, windows.double(), 0, options=fixed(257), detail=detail)
        entries, true = (
            (explained.contributions, exact.contributions)
            if detail == "features"
            else (all_entries(explained), all_entries(exact))
        )
        off = np.abs(entries - true).max(axis=1)
        assert explained.converged.all() and (off <= 1.5 * explained.tolerance).all()
        ratios += list(explained.error / np.maximum(np.maximum(off, explained.residual), 1e-9 * explained.tolerance))
    assert np.median(ratios) <= 1.5
    assert np.mean(np.array(ratios) < 0.5) <= 0.05


def steeper(factor):
    """The bundled model with recurrent weights several times as large."""
    model = load_checkpoint(BUNDLED / "nyc-weather.safetensors")
    network = copy.deepcopy(model.network)
    for weight in network.recurrent.parameters():
        weight.mul_(factor)
    return Forecaster(network, model.reference, {}, PROVENANCE)


@pytest.mark.parametrize(("factor", "least"), [(0.01, 9), (1, 17), (1.5, 33)])
def test_paths_start_with_what_most_need(factor, least):
    """With 17 nodes where 9 are too few for most reference windows, 33 where 17 are; a lone window as many."""
    model = steeper(factor)
    few = spread_windows(model, N_TRIED)
    tried = [explain_windows(model, few, 0, options=fixed(n_nodes)) for n_nodes in (9, 17)]
    needs_more = [np.mean(each.error > each.tolerance) > MOST for each in tried]
    assert needs_more == [least > 9, least > 17]
    windows = model.reference.scaled[:8]
    together = explain_windows(model, windows, 0).path_nodes.tolist()
    assert min(together) == least
    assert [int(explain_windows(model, window[None], 0).path_nodes[0]) for window in windows] == together


@pytest.mark.parametrize("factor", [0.5, 1, 1.5, 2])
def test_few_more_nodes_than_the_smallest_rule_would_do(factor):
    """Twice as many at most on average, of a smooth model and of steep ones, as a rule that knows the truth takes."""
    model, rules = steeper(factor), (9, 13, 17, 21, 25, 29, 33, 41, 49, 57, 65, 97, 129, 193)
    windows = model.reference.scaled[::16][:24]
    exact = explain_windows(model, windows.double(), 0, options=fixed(257), detail="features").contributions
    of_rules = [explain_windows(model, windows.double(), 0, options=fixed(n), detail="features") for n in rules]
    off = np.array([np.abs(each.contributions - exact).max(axis=1) / each.tolerance for each in of_rules])
    explained = explain_windows(model, windows, 0, detail="features")
    enough = (off <= 1).any(axis=0)
    smallest = np.array(rules)[(off <= 1).argmax(axis=0)]
    assert explained.converged.all() and enough.sum() >= 12
    assert (np.abs(explained.contributions - exact).max(axis=1) <= 1.5 * explained.tolerance)[enough].all()
    assert explained.path_nodes[enough].mean() <= 2 * smallest[enough].mean()


def test_an_unknown_detail():
    """A detail that does not exist is refused by name."""
    model, windows = model_and_windows("lstm")
    with pytest.raises(UnknownNameError, match="detail"):
        explain_windows(model, windows, 0, detail="edges")


def tipping_model(factor):
    """A model whose LSTM switches between two states along the path, with weights several times as large."""
    model = make_model("lstm", seed=3)
    network = Network(model.config)
    network.load_state_dict(
        {
            name: value * factor if name.startswith("recurrent.") else value
            for name, value in model.network.state_dict().items()
        }
    )
    return replace(model, network=network)


@given(st.floats(1, 6), st.integers(0, 1000))
@settings(max_examples=examples(20))
def test_where_an_lstm_tips_over(factor, seed):
    """However steep the network is along the path, the ledger is complete and has the entries of a far finer one."""
    model = tipping_model(factor)
    windows = model.to_model_units(make_windows(model, 3, seed=seed))
    ledger = explain_windows(model, windows, 0)
    assert ledger.converged.all()
    np.testing.assert_allclose(measure_residual(model, ledger), ledger.residual, atol=1e-9)
    exact = all_entries(explain_windows(model, windows, 0, options=LedgerOptions(tolerance=1e-6, path_nodes=65)))
    assert np.abs(all_entries(ledger) - exact).max() <= 0.01 * np.abs(exact).max()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.thorough("other weights"))])
def test_kinks_are_borders_of_parts(seed):
    """ReLU layers downstream of an LSTM converge on every window, to the contributions of a far finer ledger."""
    linear = [LayerConfig(n_in, n_out, Line(), "zero") for n_in, n_out in ((16, 16), (16, 16), (16, 1))]
    layers = (linear[0], *(replace(layer, before=(Transform("relu"),)) for layer in linear[1:]))
    features = tuple(Feature(f"x{number}") for number in range(6))
    config = ModelConfig(features, (Target("y"),), 12, 1, layers, RecurrentConfig("lstm", 16), dtype="float64")
    model = make_chain(config, seed=seed)
    windows = model.reference.scaled[:6]
    ledger = explain_windows(model, windows, 0)
    exact = explain_windows(model, windows, 0, options=LedgerOptions(1e-5, 33, 30))
    assert ledger.converged.all()
    assert np.abs(all_entries(ledger) - all_entries(exact)).max() <= ledger.tolerance


def test_too_few_nodes_do_not_converge():
    """With too few nodes for the tolerance, `converged` is false and the residual is stated."""
    model, windows = model_and_windows("lstm")
    ledger = explain_windows(model, windows, 0, options=LedgerOptions(tolerance=1e-12, path_nodes=5, halvings=0))
    assert not ledger.converged.any()
    assert (ledger.residual > ledger.tolerance).all()
    assert (ledger.path_nodes == 5).all()


def test_bisection_ends():
    """With a tolerance below rounding, bisection ends; no more than four times the allowed parts are evaluated."""
    model, windows = model_and_windows("float32")
    ledger = explain_windows(model, windows, 0, options=LedgerOptions(tolerance=1e-17, halvings=50))
    assert not ledger.converged.any()
    assert (ledger.path_nodes <= 4 * MAX_PARTS * MAX_NODES).all()


@every_model
def test_layers_run_from_input_to_output(name):
    """Layers run from input to output; nodes and edges, (sub-nodes, inputs), have the expected shapes."""
    config = model_and_windows(name)[0].config
    ledger = ledger_of(name)
    assert ledger.steps.shape == (6, config.lookback, len(config.features))
    np.testing.assert_allclose(ledger.contributions, ledger.steps.sum(axis=1))
    expected = [("input", 0)]
    if config.front:
        expected += [("front", layer) for layer in range(len(config.front) + 1)]
    if config.readout_stage:
        expected += [(config.readout_stage, 0)]
    expected += [("head", layer) for layer in range(len(config.head))] + [("output", len(config.head))]
    assert [(layer.stage, layer.layer) for layer in ledger.layers] == expected
    for layer in ledger.layers:
        layers = config.stages.get(layer.stage, ())
        if layer.layer < len(layers):
            assert layer.edges.shape == (6, layers[layer.layer].n_subnodes, layers[layer.layer].n_in)
        if layers and layer.layer > 0:
            assert layer.nodes.shape == (6, layers[layer.layer - 1].n_out)
    assert ledger.layers[-1].nodes.shape == (6, len(config.outputs))


@settings(max_examples=examples(20))
@given(st.permutations(range(6)), st.sampled_from(list(MODELS)))
def test_the_order_of_windows_does_not_matter(order, name):
    """Permuting the windows permutes the ledger, and a single window has the ledger that it has among others."""
    model, windows = model_and_windows(name)
    tolerance = 1e-9 if model.config.dtype == "float64" else 1e-4
    options = fixed(25)
    ledger = explain_windows(model, windows, 0, options=options)
    permuted = explain_windows(model, windows[order], 0, options=options)
    np.testing.assert_allclose(all_entries(permuted), all_entries(ledger)[order], atol=tolerance)
    np.testing.assert_allclose(permuted.residual, ledger.residual[order], atol=tolerance)
    alone = explain_windows(model, windows[order[0]][None], 0, options=options)
    np.testing.assert_allclose(all_entries(alone)[0], all_entries(ledger)[order[0]], atol=tolerance)


def test_many_windows_are_those_of_small_batches():
    """More windows than fit in one pass have the ledgers of smaller calls."""
    model, _ = model_and_windows("lstm")
    windows = model.reference.scaled[:70]
    ledger = explain_windows(model, windows, 0)
    parts = [explain_windows(model, windows[i : i + 7], 0) for i in range(0, 70, 7)]
    np.testing.assert_allclose(all_entries(ledger), np.concatenate([all_entries(part) for part in parts]), atol=1e-9)


@every_model
def test_a_window_equal_to_its_baseline(name):
    """For a window that is its own baseline every contribution is exactly 0."""
    model, windows = model_and_windows(name)
    start = model.scaling.features_to_original(windows[:1])[0]
    same = model.to_model_units(start[None])
    ledger = explain_windows(model, same, 0, Baseline("instance", instance=start))
    assert not ledger.steps.any()
    assert ledger.predictions[0] == ledger.baseline_prediction
    assert np.abs(all_entries(ledger)).max() <= (1e-12 if model.config.dtype == "float64" else 1e-6)
    assert ledger.converged.all()


@settings(max_examples=examples(15))
@given(st.sampled_from([name for name in MODELS if name != "float32"]), st.integers(0, 1000))
def test_swapping_window_and_baseline_flips_the_sign(name, seed):
    """Swapping window and baseline flips the sign of every contribution."""
    model, _ = model_and_windows(name)
    here, there = make_windows(model, 2, seed=seed)
    options = fixed(25)
    one = explain_windows(model, model.to_model_units(here[None]), 0, Baseline("instance", instance=there), options)
    two = explain_windows(model, model.to_model_units(there[None]), 0, Baseline("instance", instance=here), options)
    np.testing.assert_allclose(all_entries(one), -all_entries(two), atol=1e-8)


@pytest.mark.parametrize("shape", ["lstm", "head", "front"])
def test_a_feature_without_weights(shape):
    """A feature with zero weights contributes exactly 0 at every step, and so does every edge that leaves it."""
    model = make_model(shape, seed=4)
    first = next(iter(model.network.stages.values()))
    with torch.no_grad():
        if shape == "lstm":
            model.network.recurrent.weight_ih_l0[:, 2] = 0
        else:
            first[0].mask[:, 2] = 0
    ledger = explain_windows(replace(model), model.to_model_units(make_windows(model, 5)), 0)
    assert not ledger.steps[:, :, 2].any()
    assert ledger.steps[:, :, 1].all()
    if shape != "lstm":
        edges = next(layer.edges for layer in ledger.layers if layer.edges is not None)
        assert not edges[:, :, 2].any()


def test_a_constant_shift_changes_no_contribution():
    """Adding a constant to the output, or to a sub-node outside products, changes no contribution."""
    model, windows = model_and_windows("lstm")
    before = explain_windows(model, windows, 0)
    shifted = make_model("lstm", seed=3)
    with torch.no_grad():
        shifted.network.head[1].node_bias += 5
    shifted = replace(shifted, reference=shifted.reference)  # its reference outputs, computed again
    after = explain_windows(shifted, windows, 0)
    np.testing.assert_allclose(all_entries(after), all_entries(before), atol=1e-12)
    np.testing.assert_allclose(after.predictions - before.predictions, 5 * shifted.scaling.output_scale[0])


def test_contributions_are_in_the_target_s_unit():
    """With a target in thousandths, contributions are a thousand times as large and converge as well."""
    model, windows = model_and_windows("lstm")
    milli = replace(model.config, targets=(replace(model.config.targets[0], std=2000.0),))
    network = Network(milli)
    network.load_state_dict(model.network.state_dict())
    scaled = Forecaster(network, model.reference, {}, PROVENANCE)
    before, after = explain_windows(model, windows, 0), explain_windows(scaled, windows, 0)
    assert model.config.targets[0].std == 2.0
    np.testing.assert_allclose(all_entries(after), all_entries(before) * 1000)
    np.testing.assert_allclose(after.tolerance, before.tolerance * 1000)
    np.testing.assert_array_equal(after.path_nodes, before.path_nodes)


def make_kan(weights, mult_arity=()):
    """A KAN alone whose edges are lines through 0 with these slopes, (out, in) per layer; no scaling."""
    head = tuple(
        LayerConfig(len(slopes[0]), len(slopes) - sum(arity), BSpline(3), "identity", mult_arity=arity)
        for slopes, arity in zip(weights, mult_arity or [()] * len(weights), strict=True)
    )
    features = tuple(Feature(f"x{i}") for i in range(head[0].n_in))
    network = Network(ModelConfig(features, (Target("y"),), 1, 1, head, dtype="float64"))
    with torch.no_grad():
        for layer, slopes in zip(network.head, weights, strict=True):
            layer.scale_spline.zero_()
            layer.scale_base.copy_(torch.tensor(slopes, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(200, 1, len(features), generator=generator, dtype=torch.float64)
    return Forecaster(network, Reference(windows, network.config), {}, PROVENANCE)


def test_cancellation():
    """For h0 = x0 + 3 x1, h1 = 3 x1 and y = h0 - h1 = x0 the ledger gives [1, 0], pykan's scores a ratio of 1 to 6."""
    model = make_kan([[[1.0, 3.0], [0.0, 3.0]], [[1.0, -1.0]]])
    one = np.ones((1, 1, 2))
    ledger = explain_windows(model, model.to_model_units(one), 0, Baseline("zero"))
    assert model.predict(one)[0, 0] == pytest.approx(1)
    np.testing.assert_allclose(ledger.contributions, [[1, 0]], atol=1e-12)
    (nodes,) = (layer.nodes for layer in ledger.layers if (layer.stage, layer.layer) == ("head", 1))
    np.testing.assert_allclose(nodes, [[4, -3]], atol=1e-12)
    inputs = model.network.encode(model.reference.scaled)
    inputs = inputs / inputs.std(dim=0)
    scores = score_layers(model.network.stages["head"], inputs).feature_score
    assert float(scores[1] / scores[0]) == pytest.approx(6, rel=0.02)


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_a_linear_network_is_its_weights(window, slopes):
    """In a linear network each contribution is the weight times the distance from the baseline."""
    model = make_kan([[[1.0, 2.0, 0.5], [0.0, 1.0, -1.0]], [slopes[:2]]])
    ledger = explain_windows(model, model.to_model_units(np.array(window)[None, None]), 0, Baseline("zero"))
    expected = np.array([slopes[0], 2 * slopes[0] + slopes[1], 0.5 * slopes[0] - slopes[1]]) * window
    np.testing.assert_allclose(ledger.contributions[0], expected, atol=1e-9)


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_a_product_is_shared_by_its_factors(window):
    """With a zero baseline the product of three inputs is split into equal parts, and its node has the whole."""
    identity = np.eye(3).tolist()
    model = make_kan([identity, [[1.0]]], ((3,), ()))
    ledger = explain_windows(model, model.to_model_units(np.array(window)[None, None]), 0, Baseline("zero"))
    product = float(np.prod(window))
    np.testing.assert_allclose(ledger.contributions[0], [product / 3] * 3, atol=1e-9)
    edges, nodes = ledger.layers[1].edges, ledger.layers[2].nodes
    np.testing.assert_allclose(edges[0], np.eye(3) * product / 3, atol=1e-9)
    np.testing.assert_allclose(nodes[0], [product], atol=1e-9)


def test_four_threads_give_the_results_of_one():
    """One model explained by four threads at once gives each the same result as alone."""
    model, _ = model_and_windows("products")
    batches = [model.to_model_units(make_windows(model, 5, seed=seed)) for seed in range(8)]

    def explain(number):
        return all_entries(explain_windows(model, batches[number], number % len(model.config.outputs)))

    expected = [explain(number) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for number, entries in enumerate(pool.map(explain, range(8))):
            np.testing.assert_array_equal(entries, expected[number])


def test_explaining_leaves_nothing_behind():
    """Explaining changes neither the model nor the windows, and leaves no gradient."""
    model, windows = model_and_windows("front")
    tensors = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    before = windows.clone()
    explain_windows(model, windows, 0)
    assert torch.equal(windows, before)
    assert not windows.requires_grad
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.network.state_dict().items())
    assert all(tensor.grad is None for tensor in model.network.parameters())


def test_pause_is_called_between_passes():
    """`pause` is called between passes, changes no number, and ends the computation by raising."""
    model, _ = model_and_windows("lstm")
    windows = model.reference.scaled[:200]
    pauses: list[int] = []
    with pausing(lambda: pauses.append(len(pauses))):
        ledger = explain_windows(model, windows, 0)
    assert len(pauses) > 1
    np.testing.assert_array_equal(all_entries(ledger), all_entries(explain_windows(model, windows, 0)))

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), pausing(stop):
        explain_windows(model, windows, 0)


def test_no_windows():
    """An empty array of windows is refused."""
    model, windows = model_and_windows("head")
    with pytest.raises(DataError, match="windows is empty"):
        explain_windows(model, windows[:0], 0)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_forecast_that_is_not_finite():
    """A window whose forecast overflows raises an error that names it, rather than NaN."""
    model = make_kan([[[1e300]]])
    with pytest.raises(NonFiniteError, match=r"outputs\[1\] must be finite"):
        explain_windows(model, model.to_model_units(np.array([[[1.0]], [[1e300]]])), 0, Baseline("zero"))


@pytest.mark.parametrize("shape", ["head", "lstm"])
def test_splines_of_order_zero(shape):
    """Splines of order 0 without a base have slope 0: nothing is attributed, and the ledger has not converged."""
    model = make_model(shape, base_activation="zero", spline_order=0)
    ledger = explain_windows(model, model.to_model_units(make_windows(model, 20)), 0)
    moved = np.abs(ledger.predictions - ledger.baseline_prediction)
    assert moved.max() > ledger.tolerance
    assert not ledger.steps.any()
    assert (ledger.residual >= moved - 1e-12).all()  # rounding, as a mean was added to the outputs


N = 400


@cache
def tiny(shape):
    model = make_model(shape, n_features=3, lookback=3, n_reference=8, product=True)
    return model, model.to_model_units(make_windows(model, 4))


@cache
def linear():
    """y = 3 (2 x0 - x1) in model units, with standard normal reference windows."""
    config = ModelConfig(
        (Feature("x0"), Feature("x1")),
        (Target("y", std=3.0),),
        1,
        1,
        plain_layers([2, 1], base="identity"),
        dtype="float64",
    )
    network = Network(config)
    with torch.no_grad():
        network.head[0].scale_base[:] = torch.tensor([[2.0, -1.0]])
        network.head[0].scale_spline[:] = 0
    windows = torch.from_numpy(np.random.default_rng(0).normal(size=(N, 1, 2)))
    return Forecaster(network, Reference(windows, network.config), {}, PROVENANCE)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [2, 8])
def test_it_is_the_mean_of_single_ledgers(shape, count):
    """Every entry is the mean of the ledgers from the baselines of the seed, drawn without replacement."""
    model, windows = tiny(shape)
    found = explain_windows(model, windows, 0, ReferenceBaselines(count, seed=7))
    chosen = np.random.default_rng(7).choice(8, count, replace=False)
    assert len(set(chosen.tolist())) == count
    instances = model.scaling.features_to_original(model.reference.scaled)[chosen]
    singles = [explain_windows(model, windows, 0, Baseline("instance", instance=instance)) for instance in instances]
    np.testing.assert_allclose(found.steps, np.mean([single.steps for single in singles], axis=0))
    np.testing.assert_allclose(found.baseline, instances.mean(axis=0))
    for number, layer in enumerate(found.layers):
        for kind in ("nodes", "edges"):
            values = getattr(layer, kind)
            if values is not None:
                expected = np.mean([getattr(single.layers[number], kind) for single in singles], axis=0)
                np.testing.assert_allclose(values, expected)
    features = [single.contributions for single in singles]
    np.testing.assert_allclose(found.standard_error, np.std(features, axis=0, ddof=1) / np.sqrt(count))
    for name in ("residual", "error"):
        np.testing.assert_array_equal(getattr(found, name), np.max([getattr(one, name) for one in singles], axis=0))
    np.testing.assert_array_equal(found.converged, np.all([single.converged for single in singles], axis=0))
    np.testing.assert_allclose(found.predictions, singles[0].predictions, rtol=1e-12, atol=1e-12)


@settings(max_examples=examples(20))
@given(st.integers(2, 60), st.integers(0, 1000))
def test_a_linear_model(count, seed):
    """For y = w x contributions are w (x - mean x0), and their standard error is |w| std(x0) / sqrt(count)."""
    model = linear()
    windows = torch.tensor([[[1.0, 2.0]], [[0.0, -1.0]]], dtype=torch.float64)
    ledger = explain_windows(model, windows, 0, ReferenceBaselines(count, seed))
    chosen = np.random.default_rng(seed).choice(N, count, replace=False)
    baselines = model.reference.scaled[chosen.tolist(), 0].numpy()
    weights = 3 * np.array([2.0, -1.0])
    np.testing.assert_allclose(
        ledger.contributions, weights * (windows[:, 0].numpy() - baselines.mean(axis=0)), atol=1e-9
    )
    expected = np.abs(weights) * baselines.std(axis=0, ddof=1) / np.sqrt(count)
    np.testing.assert_allclose(ledger.standard_error, [expected, expected], atol=1e-9)


@pytest.mark.parametrize("count", [-1, 0, 1, 9])
def test_a_count_out_of_range(count):
    """A count below 2, which has no standard error, or above the number of reference windows is refused."""
    model, windows = tiny("head")
    with pytest.raises(DataError) as caught:
        explain_windows(model, windows, 0, ReferenceBaselines(count))
    message = f"must lie between 2 and 8, the number of reference windows, but is {count}"
    assert str(caught.value) == f"baseline.reference {message}"
    assert [(problem.path, problem.message) for problem in caught.value.problems] == [("baseline.reference", message)]


@pytest.mark.parametrize(("start", "towards", "factor"), [(11, 400, 30.0), (9, 33, 30.0)])
def test_windows_far_from_the_data_are_as_exact_as_adaptive_quadrature(start, towards, factor):
    """They reach a tenth of the tolerance, by scipy's quadrature of the same gradients in float64."""
    model = load_checkpoint(BUNDLED / "nyc-weather.safetensors")
    reference = model.reference.scaled.double()
    window = (reference[start] + factor * (reference[towards] - reference[start]))[None]
    found = explain_windows(model, window.to(model.reference.scaled.dtype), 0)
    baseline = scaled_baselines(model)[0].double()
    change = window[0] - baseline

    def integrand(alpha: float) -> np.ndarray:
        point = (baseline + alpha * change)[None].requires_grad_()
        (gradient,) = torch.autograd.grad(model.frozen_float64.trace(point).outputs[0, 0], point)
        return (gradient[0] * change).numpy().ravel()

    points = np.geomspace(1e-4, 0.5, 8)
    exact, _ = quad_vec(integrand, 0, 1, epsabs=1e-5, epsrel=1e-9, points=points, norm="max", limit=4000)
    exact = exact.reshape(change.shape) * float(model.scaling.output_scale[0])
    assert found.converged.all()
    assert np.abs(found.steps[0] - exact).max() < 0.15 * found.tolerance


def test_lines_with_a_formula_that_is_masked_are_edges_with_values():
    """They are no Linear layer, though they compute what one does: values stand beside each of their functions."""
    config = make_model("lstm").config
    lines = LayerConfig(config.head[0].n_in, 3, Line(), "zero", symbolic=(SymbolicEdge(0, 0, "sin"),))
    model = make_chain(replace(config, head=(lines, LayerConfig(3, config.head[-1].n_subnodes))))
    layer = model.network.head[0]
    layer.symbolic_mask.zero_()
    found = explain_windows(model, model.reference.scaled[:2], 0, detail="flow")
    of_layer = next(of for of in found.layers if (of.stage, of.layer) == ("head", 0))
    np.testing.assert_allclose(of_layer.y, layer.weights().squeeze(-1).numpy() * of_layer.values[:, None], rtol=1e-6)
