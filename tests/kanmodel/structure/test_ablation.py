from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from factories import SHAPES, make_model, make_windows
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from thorough import examples

from kanmodel import Model, NonFiniteError
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.forecaster import Forecaster
from kanmodel.structure.ablation import Size, extract_subnetwork, measure_size
from kanmodel.structure.edges import network_edges
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import (
    Fidelity,
    MaskedForward,
    PruningRule,
    Thresholds,
    prune_by_rule,
    prune_network,
    r2,
)


@cache
def tiny(shape, seed=0, **options):
    small = {"n_features": 3, "lookback": 2, "hidden_size": 3, "n_hidden": 3, "n_reference": 128}
    model = make_model(shape, seed, **small | options)
    return model, tuple(measure_importance(model, output) for output in range(len(model.config.outputs)))


def fidelity_between(full, smaller, output):
    return Fidelity.of(full, output, full.reference_outputs, smaller.reference_outputs)


@settings(max_examples=examples(8))
@given(
    st.sampled_from(["lstm", "head", "front"]),
    st.integers(0, 1),
    st.sampled_from(["mean", "zero"]),
    st.floats(0.2, 0.99),
    st.data(),
)
def test_the_smaller_model_is_the_pruned_one(shape, seed, fill, fidelity, data):
    """For any windows it forecasts what the full network forecasts with the dropped edges masked."""
    model, importances = tiny(shape, seed, product=True)
    rule = PruningRule(fidelity=fidelity, fill=fill)
    smaller = extract_subnetwork(model, importances, rule)
    masked = prune_network(model, prune_by_rule(model, importances[0], rule))
    window_shape = (3, model.config.lookback, len(model.config.features))
    windows = torch.from_numpy(data.draw(hnp.arrays(np.float64, window_shape, elements=st.floats(-4, 4))))
    torch.testing.assert_close(smaller.network(windows), masked(windows), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_nodes_and_edges_keep_their_ids(tmp_path, shape):
    """At a low fidelity hidden nodes have no effect, the ids are those of the full model, and the file has all that."""
    model, importances = tiny(shape, 1, product=True)
    sha256 = save_checkpoint(model, tmp_path / "full.safetensors")
    model = load_checkpoint(tmp_path / "full.safetensors")
    smaller = extract_subnetwork(model, importances, PruningRule(fidelity=0.3))
    ids = [[(edge.source, edge.target) for edge in network_edges(each.network)] for each in (model, smaller)]
    assert ids[0] == ids[1]
    before, after = measure_size(model.network), measure_size(smaller.network)
    assert after.edges < before.edges and after.nodes <= before.nodes
    save_checkpoint(smaller, tmp_path / "smaller.safetensors")
    loaded = load_checkpoint(tmp_path / "smaller.safetensors")
    assert measure_size(loaded.network) == after
    assert torch.equal(loaded.reference_outputs, smaller.reference_outputs)
    assert (loaded.provenance.source, loaded.provenance.parent) == ("prune", f"sha256:{sha256}")
    assert loaded.reference.times == model.reference.times
    assert torch.equal(loaded.reference.scaled, model.reference.scaled)
    np.testing.assert_array_equal(loaded.reference.targets, model.reference.targets)


@pytest.mark.thorough("prunes for every output")
@pytest.mark.parametrize("fidelity", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_output_keeps_the_fidelity(shape, fidelity):
    """With four outputs each keeps what was asked, measured on the smaller model's own forecasts."""
    model, importances = tiny(shape, 2, targets=("a", "b"), horizon=2)
    smaller = extract_subnetwork(model, importances, PruningRule(fidelity=fidelity))
    full, left = (each.reference_outputs for each in (model, smaller))
    lost = ((full - left) ** 2).sum(dim=0) / ((full - full.mean(dim=0)) ** 2).sum(dim=0)
    assert (1 - lost >= fidelity).all()
    assert smaller.metrics["fidelity_r2 b+2"] == pytest.approx(1 - float(lost[3]), abs=1e-9)
    assert smaller.metrics["fidelity_r2"] == pytest.approx(1 - float(lost.mean()), abs=1e-9)


def test_edges_kept_for_another_output_may_not_spoil_one():
    """Where the mere union of what is kept for each output loses the fidelity of one, more edges stay."""
    model, _ = tiny("lstm", 3, targets=("a", "b"), product=True)
    model = replace(model, network=deepcopy(model.network))
    for layer in model.network.head:
        layer.coef.data *= 2.5
    importances = [measure_importance(model, output) for output in (0, 1)]
    rule = PruningRule(fidelity=0.7)
    kept = [prune_by_rule(model, importance, rule).edges for importance in importances]
    union = {place: kept[0][place] | kept[1][place] for place in kept[0]}
    masked = MaskedForward(model)
    assert min(masked.fidelity(output, union).r2 for output in (0, 1)) < 0.7
    smaller = extract_subnetwork(model, importances, rule)
    assert min(fidelity_between(model, smaller, output).r2 for output in (0, 1)) >= 0.7
    assert measure_size(smaller.network).edges < measure_size(model.network).edges


def test_one_output_of_several():
    """What is kept for one output alone is fewer edges, and its fidelity holds."""
    model, importances = tiny("head", 3, targets=("a", "b"))
    both, one = (
        extract_subnetwork(model, chosen, PruningRule(fidelity=0.9)) for chosen in (importances, importances[1:])
    )
    assert fidelity_between(model, one, 1).r2 >= 0.9
    assert measure_size(one.network).edges < measure_size(both.network).edges


def test_metrics_say_which_model_they_are_of():
    """Those of the full model are called so; the smaller one's own error is that of its forecasts."""
    model, importances = tiny("head", 1)
    smaller = extract_subnetwork(model, importances, PruningRule(fidelity=0.8))
    errors = smaller.predict(model.scaling.features_to_original(model.reference.scaled)) - model.reference.targets
    assert smaller.metrics == {
        "fidelity_r2": pytest.approx(fidelity_between(model, smaller, 0).r2),
        "reference_mae": pytest.approx(np.abs(errors).mean()),
        "unpruned_test_r2": 0.5,
        "unpruned_test_mae": 1.0,
    }


def test_pruning_twice():
    """The second time starts from the first: no larger, its own fidelity, and still the metrics of the first model."""
    model, importances = tiny("lstm", 1, product=True, with_targets=False)
    once = replace(extract_subnetwork(model, importances, PruningRule(fidelity=0.95)), sha256="0" * 64)
    twice = extract_subnetwork(once, [measure_importance(once, 0)], PruningRule(fidelity=0.8))
    assert measure_size(twice.network).edges < measure_size(once.network).edges
    assert twice.provenance.parent == "sha256:" + "0" * 64
    assert sorted(twice.metrics) == ["fidelity_r2", "unpruned_test_mae", "unpruned_test_r2"]
    assert twice.metrics["fidelity_r2"] == pytest.approx(fidelity_between(once, twice, 0).r2)
    assert twice.metrics["unpruned_test_r2"] == 0.5


def test_a_constant_node_that_is_needed_stays():
    """A hidden node that nothing enters still adds its constant: it is kept with its edges where the fill is zero."""
    model = make_model("head", seed=2)
    with torch.no_grad():
        model.network.head[0].mask[1] = 0
        model.network.head[0].subnode_bias[1] = 1.0
    model = Forecaster(model.network, model.reference, {}, model.provenance)
    smaller = extract_subnetwork(model, [measure_importance(model, 0)], PruningRule(fidelity=1.0, fill="zero"))
    torch.testing.assert_close(smaller.reference_outputs, model.reference_outputs, rtol=0, atol=1e-9)


def test_nothing_left():
    """A threshold above all scores drops every edge: the forecast is a constant of a network that still has layers."""
    model, importances = tiny("head", 0)
    smaller = extract_subnetwork(model, importances, PruningRule(None, None, Thresholds(-1, 1e9, -1)))
    assert measure_size(smaller.network) == Size(edges=0, nodes=0)
    assert np.ptp(smaller.reference_outputs.numpy()) == 0


KEEP_ALL = {"node": 0, "edge": 0, "input": 0}
RULES = [
    {"fidelity": 0.9},
    {"fidelity": 0.9, "fill": "zero", "without": ["head:0:1:2"]},
    {"thresholds": {"edge": 0.1}, "metric": "backward", "without": ["head:0:0:0", "head:0:2:1"]},
]


@pytest.fixture(scope="module", params=SHAPES)
def model(request) -> Model:
    return Model.of(make_model(request.param, seed=3, targets=("a", "b"), n_features=3, hidden_size=4, n_reference=130))


@pytest.fixture(scope="module")
def windows(model):
    return make_windows(model, 6)


def test_ablating_nothing_forecasts_as_predict_does():
    """If the rule keeps every edge, forecasts are bitwise the same, also when accelerated."""
    model = Model.of(make_model("lstm", dtype="float32")).accelerate()
    for count in (1, 4):
        windows = make_windows(model, count)
        found = model.ablate(windows, thresholds=KEEP_ALL, metric="contribution")
        assert found.fidelity.r2 == 1
        np.testing.assert_array_equal(found.predictions, model.predict(windows)[:, 0])
        np.testing.assert_array_equal(found.ablated_predictions, found.predictions)


@pytest.mark.parametrize("rule", RULES)
def test_the_forecasts_are_those_of_the_pruned_model(model, windows, rule):
    """`Model.prune` by the same rule for one output predicts the same; the full model is unchanged."""
    before = model.predict(windows)
    found = model.ablate(windows, "b+1", **rule)
    pruned = model.prune(["b+1"], **rule)
    np.testing.assert_allclose(found.ablated_predictions, pruned.predict(windows)[:, 1], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.predictions, before[:, 1])
    np.testing.assert_array_equal(model.predict(windows), before)
    assert found.n_kept < found.n_edges and not np.allclose(found.ablated_predictions, found.predictions)


@pytest.mark.parametrize("rule", RULES)
def test_over_the_reference_windows_it_has_the_fidelity_of_the_topology(model, rule):
    """R2 and errors of these forecasts, and the number of edges, are those of the topology."""
    found, graph = model.ablate(model.reference.windows, "b+1", **rule), model.topology("b+1", **rule)
    assert (found.fidelity, found.rule) == (graph.fidelity, graph.rule)
    edges = graph.upstream().kan_edges
    assert (found.n_kept, found.n_edges) == (sum(edge.kept for edge in edges), len(edges))
    pair = (torch.from_numpy(values) for values in (found.predictions, found.ablated_predictions))
    assert r2(*pair) == pytest.approx(graph.fidelity.r2, abs=1e-9)
    errors = np.abs(found.ablated_predictions - model.reference.targets[:, 1])
    assert errors.mean() == pytest.approx(graph.fidelity.mae, abs=1e-9)


@pytest.mark.parametrize("edges", [["head:0:1:2"], ["head:0:0:0", "head:1:2:0", "head:0:3:1"]])
def test_a_fill_of_zero_is_a_mask(edges):
    """With `fill="zero"` removing an edge from a full network equals multiplying it by 0 in torch."""
    model = Model.of(make_model("lstm", seed=2, hidden_size=4))
    windows = make_windows(model, 5)
    found = model.ablate(windows, thresholds=KEEP_ALL, metric="contribution", fill="zero", without=edges)
    masked = make_model("lstm", seed=2, hidden_size=4)
    with torch.no_grad():
        for edge in edges:
            layer, i, j = (int(part) for part in edge.split(":")[1:])
            masked.network.head[layer].mask[j, i] = 0
    np.testing.assert_allclose(found.ablated_predictions, masked.predict(windows)[:, 0], rtol=0, atol=1e-9)


def test_edges_go_by_any_name_in_any_order(model):
    """Ids, pairs of nodes and numbers name the same edge; order and repetition do not matter."""
    edge = model.topology(fidelity=1).kan_edges[-1]
    other = model.topology(fidelity=1).kan_edges[0]
    place, another = ((one.stage, one.layer, one.i, one.j) for one in (edge, other))
    forms = [
        ["{}:{}:{}:{}".format(*place), another],
        [another, (edge.source, edge.target)],
        [list(place), tuple(map(np.int64, another[1:])) if another[0] == "head" else another, place],
    ]
    found = [model.topology(without=form) for form in forms]
    assert found[0].rule.without == tuple(sorted((place, another)))
    assert all(one.rule == found[0].rule and one.edges == found[0].edges for one in found)
    assert repr(model.edge("{}:{}:{}:{}".format(*place))) == repr(model.edge(edge.source, edge.target))


def test_another_output_need_not_be_finite():
    """An output that is not finite is refused only if it is the one requested."""
    model = Model.of(make_model("head", targets=("a", "b")))
    with torch.no_grad():
        model.network.head[1].node_bias[1] = np.inf
    windows = make_windows(model, 2)
    assert np.isfinite(model.predict_output(windows, 0)).all()
    with pytest.raises(NonFiniteError, match=r"outputs\[0\]\[1\]"):
        model.predict_output(windows, 1)


def test_an_ablation_shows_its_cost(model, windows):
    """The repr and the table have each forecast with and without the edges, the number of edges, and R2."""
    found = model.ablate(windows, fidelity=0.9)
    rows = found.table()
    assert len(found) == len(rows) == 6
    assert [row["difference"] for row in rows] == (found.ablated_predictions - found.predictions).tolist()
    cost = f"{found.n_kept} of {found.n_edges} edges kept, R2 {found.fidelity.r2:.4f}"
    assert cost in repr(found) and cost in found.html()
