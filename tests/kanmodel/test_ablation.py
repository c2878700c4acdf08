"""`Model.ablate` predicts with the edges that a pruning rule keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import make_model, make_windows

from kanmodel import Model, NonFiniteError
from kanmodel.explain.pruning import r2

KEEP_ALL = {"node": 0, "edge": 0, "input": 0}
RULES = [
    {"fidelity": 0.9},
    {"fidelity": 0.9, "fill": "zero", "without": ["head:0:1:2"]},
    {"thresholds": {"edge": 0.1}, "metric": "backward", "without": ["head:0:0:0", "head:0:2:1"]},
]


@pytest.fixture(scope="module", params=["lstm", "front", "head"])
def model(request) -> Model:
    return Model(make_model(request.param, seed=3, targets=("a", "b"), n_features=3, hidden_size=4, n_reference=130))


@pytest.fixture(scope="module")
def windows(model):
    return make_windows(model.loaded, 6)


def reference_of(model):
    return model.scaling.features_to_original(model.loaded.reference.windows.double())


def test_ablating_nothing_forecasts_as_predict_does():
    """If the rule keeps every edge, forecasts are bitwise the same, also when accelerated."""
    model = Model(make_model("lstm", dtype="float32")).accelerate()
    for count in (1, 4):
        windows = make_windows(model.loaded, count)
        found = model.ablate(windows, thresholds=KEEP_ALL, metric="contribution")
        assert found.fidelity.r2 == 1
        np.testing.assert_array_equal(found.predictions, model.predict(windows)[:, 0])
        np.testing.assert_array_equal(found.ablated_predictions, found.predictions)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("output", ["a+1", "b+1"])
def test_the_forecasts_are_those_of_the_pruned_model(model, windows, rule, output):
    """`Model.prune` by the same rule for one output predicts the same; the full model is unchanged."""
    number = model.outputs.index(output)
    before = model.predict(windows)
    found = model.ablate(windows, output, **rule)
    pruned = model.prune([output], **rule)
    np.testing.assert_allclose(found.ablated_predictions, pruned.predict(windows)[:, number], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.predictions, before[:, number])
    np.testing.assert_array_equal(model.predict(windows), before)
    assert found.n_kept < found.n_edges and not np.allclose(found.ablated_predictions, found.predictions)


@pytest.mark.parametrize("rule", RULES)
def test_over_the_reference_windows_it_has_the_fidelity_of_the_topology(model, rule):
    """R2 and errors of these forecasts, and the number of edges, are those of the topology."""
    reference = reference_of(model)
    found, graph = model.ablate(reference, "b+1", **rule), model.topology("b+1", **rule)
    assert (found.fidelity, found.rule) == (graph.fidelity, graph.rule)
    edges = graph.upstream().kan_edges
    assert (found.n_kept, found.n_edges) == (sum(edge.kept for edge in edges), len(edges))
    pair = (torch.from_numpy(values) for values in (found.predictions, found.ablated_predictions))
    assert r2(*pair) == pytest.approx(graph.fidelity.r2, abs=1e-9)
    errors = np.abs(found.ablated_predictions - model.loaded.reference.targets[:, 1])
    assert errors.mean() == pytest.approx(graph.fidelity.mae, abs=1e-9)


@pytest.mark.parametrize("edges", [["head:0:1:2"], ["head:0:0:0", "head:1:2:0", "head:0:3:1"]])
def test_a_fill_of_zero_is_a_mask(edges):
    """With `fill="zero"` removing an edge from a full network equals multiplying it by 0 in torch."""
    model = Model(make_model("lstm", seed=2, hidden_size=4))
    windows = make_windows(model.loaded, 5)
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
    model = Model(make_model("head", targets=("a", "b")))
    with torch.no_grad():
        model.loaded.network.head[1].node_bias[1] = np.inf
    windows = make_windows(model.loaded, 2)
    network = model.loaded
    assert np.isfinite(network.predict_output(windows, 0)).all()
    with pytest.raises(NonFiniteError, match=r"outputs\[0\]\[1\]"):
        network.predict_output(windows, 1)


def test_an_ablation_shows_its_cost(model, windows):
    """The repr and the table have each forecast with and without the edges, the number of edges, and R2."""
    found = model.ablate(windows, fidelity=0.9)
    rows = found.table()
    assert len(found) == len(rows) == 6
    assert [row["difference"] for row in rows] == (found.ablated_predictions - found.predictions).tolist()
    cost = f"{found.n_kept} of {found.n_edges} edges kept, R2 {found.fidelity.r2:.4f}"
    assert cost in repr(found) and cost in found.html()
