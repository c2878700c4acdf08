import copy
from dataclasses import replace
from functools import cache

import networkx
import numpy as np
import pytest
import torch
from factories import PROVENANCE, SHAPES, make_model
from goldens import SCORED, load_case
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples, few_of

from kanmodel.computing import pausing
from kanmodel.errors import InsufficientReferenceError, NonFiniteError
from kanmodel.forecaster import Forecaster, Reference
from kanmodel.network.config import LayerConfig, ModelConfig, SymbolicEdge
from kanmodel.network.network import Network
from kanmodel.structure import pruning as pruning_module
from kanmodel.structure.ablation import extract_subnetwork
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import (
    MaskedForward,
    PruningRule,
    Thresholds,
    count_at_once,
    prune_by_rule,
    prune_network,
    score_network,
    trace_fidelity,
)
from kanmodel.structure.pruning import r2 as fidelity_r2
from kanmodel.structure.scores import score_layers
from kanmodel.tables.columns import Feature, Target

METRICS = ["contribution", "backward", "forward_n", "forward_u"]
LARGER = pytest.mark.thorough("the same of a larger model")
ALL = Thresholds(-1, -1, -1)  # no score is below
SEEDS = st.integers(0, 1)  # few, as the importance of each model takes as long as all that is asked of it


@cache
def golden(name):
    case = load_case(name)
    return case, measure_importance(case.model, 0)


@cache
def tiny(shape, seed=0, output=0, **options):
    small = {"n_features": 3, "lookback": 2, "hidden_size": 3, "n_hidden": 2, "n_reference": 128}
    model = make_model(shape, seed, **small | options)
    return model, measure_importance(model, output)


def r2(full, pruned):
    return float(1 - ((pruned - full) ** 2).sum() / ((full - full.mean()) ** 2).sum())


def prune_by_hand(model, edges, fill):
    """The network with all but these edges, (stage, layer, j, i), replaced one by one in a copy."""
    pruned = copy.deepcopy(model.network)
    traces = model.network.trace(model.reference.scaled).stages
    for stage, layers in pruned.stages.items():
        for number, layer in enumerate(layers):
            means = traces[stage][number].edges.mean(dim=0)
            for j, i in np.ndindex(*layer.mask.shape):
                if (stage, number, j, i) in edges:
                    continue
                if fill == "mean":
                    layer.subnode_bias[j] += layer.subnode_scale[j] * means[j, i]
                layer.mask[j, i] = 0
    return pruned


def listed(kept):
    """Edges by (stage, layer) as a set of (stage, layer, j, i)."""
    return {(*place, j, i) for place, keep in kept.items() for j, i in keep.nonzero().tolist()}


def connected(model, edges, output):
    """Those of the edges that lie on a way from an input of their KAN to the output, or out of a front KAN."""
    alive = set()
    for stage, layers in model.config.stages.items():
        ends = {(s, n, j, i): ((n, i), (n + 1, layers[n].node_of_subnode[j])) for s, n, j, i in edges if s == stage}
        graph, inputs = networkx.DiGraph(ends.values()), [(0, i) for i in range(layers[0].n_in)]
        outputs = [(len(layers), j) for j in ([output] if stage == "head" else range(layers[-1].n_out))]
        graph.add_edges_from([("in", node) for node in inputs] + [(node, "out") for node in outputs])
        between = networkx.descendants(graph, "in") & networkx.ancestors(graph, "out")
        alive |= {edge for edge, pair in ends.items() if between.issuperset(pair)}
    return alive


def ends_of(model, edges):
    """The nodes that edges join, as (stage, layer, node)."""
    targets = {(s, n + 1, model.config.stages[s][n].node_of_subnode[j]) for s, n, j, _ in edges}
    return targets | {(s, n, i) for s, n, _, i in edges}


@pytest.mark.parametrize("name", few_of(SCORED, ("interp4", "mult_arity_lists"), "the same of further models"))
def test_thresholds_of_pykan(name):
    """With pykan's thresholds and a fill of zero, widths, masks and predictions are pykan's after each of its calls."""
    case, importance = golden(name)
    head = case.model.config.head
    for expected in case.prunings():
        thresholds = replace(ALL, **expected.thresholds)
        pruning = prune_by_rule(case.model, importance, PruningRule(thresholds=thresholds, fill="zero"))
        nodes = [pruning.nodes["head", layer].nonzero().flatten().tolist() for layer in range(len(head) + 1)]
        assert tuple(map(tuple, nodes)) == expected.kept_nodes
        width = tuple(
            (sum(node < n_sum for node in kept), sum(node >= n_sum for node in kept))
            for kept, n_sum in zip(nodes, [head[0].n_in, *(layer.n_sum for layer in head)], strict=True)
        )
        assert width == expected.width
        for layer, mask in enumerate(expected.masks):
            members = head[layer].node_of_subnode
            subnodes = [j for j, node in enumerate(members) if node in nodes[layer + 1]]
            kept = pruning.edges["head", layer][np.ix_(subnodes, nodes[layer])]
            np.testing.assert_array_equal(kept, mask)
            assert pruning.edges["head", layer].sum() == mask.sum()
        pruned = prune_network(case.model, pruning)
        np.testing.assert_allclose(pruned(case.windows("eval")), expected.predictions, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "most", "total"), [("pykan_head", 14, 65), pytest.param("synthetic_gt", 13, 150, marks=LARGER)]
)
def test_few_edges_keep_the_fidelity(name, most, total):
    """A trained head keeps an R2 of 0.99 with few of its edges, which a network with only these edges confirms."""
    case, importance = golden(name)
    pruning = prune_by_rule(case.model, importance, PruningRule())
    assert sum(keep.numel() for keep in pruning.edges.values()) == total
    assert pruning.n_edges <= most
    assert pruning.fidelity.r2 >= 0.99
    windows = case.windows("reference")
    pruned = prune_by_hand(case.model, listed(pruning.edges), "mean")
    assert r2(case.model.network(windows), pruned(windows)) == pytest.approx(pruning.fidelity.r2, abs=1e-9)


def test_the_mean_keeps_fewer_edges_than_zero():
    """Replacing edges by their mean needs far fewer of them than replacing them by zero."""
    case, importance = golden("pykan_head")
    mean, zero = (prune_by_rule(case.model, importance, PruningRule(fill=fill)) for fill in ("mean", "zero"))
    assert zero.fidelity.r2 >= 0.99
    assert 2 * mean.n_edges < zero.n_edges


@settings(max_examples=examples(8))
@given(
    st.sampled_from(["head", "lstm", "front"]),
    SEEDS,
    st.integers(0, 1),
    st.sampled_from(METRICS),
    st.sampled_from(["mean", "zero"]),
    st.floats(0.3, 0.999),
)
def test_every_larger_k_keeps_the_fidelity(shape, seed, output, metric, fill, fidelity):
    """By brute force over every k: the kept edges are the smallest k whose R2, and that of every larger k, holds."""
    model, importance = tiny(shape, seed, output, product=True, targets=("a", "b"))
    pruning = prune_by_rule(model, importance, PruningRule(metric, fidelity, fill=fill))
    scores, windows = {}, model.reference.scaled
    traces = model.network.trace(windows).stages
    for stage, layers in model.network.stages.items():
        by_score = score_layers(layers, traces[stage][0].inputs)
        for number, layer in enumerate(layers):
            values = (
                importance.edges[stage, number].value if metric == "contribution" else getattr(by_score, metric)[number]
            )
            for j, i in np.ndindex(*layer.mask.shape):
                if layer.mask[j, i]:
                    scores[stage, number, j, i] = float(values[j, i])
    order = sorted(scores, key=lambda edge: -scores[edge])
    full = model.network(windows)[:, output]
    best = set(scores)
    for k in range(len(order), -1, -1):
        candidate = connected(model, set(order[:k]), output)
        value = r2(full, prune_by_hand(model, candidate, fill)(windows)[:, output])
        if value < fidelity:
            break
        best, best_value = candidate, value
    assert listed(pruning.edges) == best
    assert pruning.fidelity.r2 == pytest.approx(best_value, abs=1e-9)
    for (stage, number), nodes in pruning.nodes.items():  # hidden ones have kept edges on both sides
        layers = model.config.stages[stage]
        members = layers[number - 1].node_of_subnode if number else ()
        entered = {members[j] for s, n, j, _ in best if (s, n) == (stage, number - 1)}
        left = {i for s, n, _, i in best if (s, n) == (stage, number)}
        kept = set(nodes.nonzero().flatten().tolist())
        if number < len(layers):
            assert kept == left and (not number or kept == entered)
        elif stage == "head":
            assert kept == entered | {output}


@settings(max_examples=examples(12))
@given(
    st.sampled_from(["head", "lstm", "front"]),
    SEEDS,
    st.integers(0, 1),
    st.sampled_from(["mean", "zero"]),
    st.one_of(st.floats(0.5, 0.999), st.floats(0, 0.2).map(lambda edge: replace(ALL, edge=edge))),
    st.data(),
)
def test_edges_go_by_name(shape, seed, output, fill, kept, data):
    """Besides the named edges go those that they connected; R2 and error are those of a network changed by hand."""
    model, importance = tiny(shape, seed, output, product=True, targets=("a", "b"))
    limits = {"thresholds": kept, "fidelity": None} if isinstance(kept, Thresholds) else {"fidelity": kept}
    rule = PruningRule(fill=fill, **limits)
    pruning = prune_by_rule(model, importance, rule)
    before = listed(pruning.edges)
    everything = [
        (*place, i, j) for place, layer in model.network.layers.items() for j, i in np.ndindex(*layer.mask.shape)
    ]
    without = tuple(sorted(data.draw(st.sets(st.sampled_from(everything), max_size=4))))
    found = prune_by_rule(model, importance, replace(rule, without=without))
    left = before - {(stage, number, j, i) for stage, number, i, j in without}
    ends = [ends_of(model, connected(model, edges, output)) for edges in (before, left)]
    assert listed(found.edges) == {edge for edge in left if not ends_of(model, {edge}) & (ends[0] - ends[1])}
    if isinstance(kept, float):
        assert listed(found.edges) == connected(model, left, output)
    windows = model.reference.scaled
    full, by_hand = (
        network(windows)[:, output] for network in (model.network, prune_by_hand(model, listed(found.edges), fill))
    )
    assert found.fidelity.r2 == pytest.approx(r2(full, by_hand), abs=1e-9)
    assert found.rule == replace(pruning.rule, without=without)
    for place, keep in found.nodes.items():
        assert not (keep & ~pruning.nodes[place]).any()


def test_what_leaves_its_domain_without_an_edge_is_refused():
    """An output that is not finite without a named edge has no R2."""
    model = square_root()
    rule = PruningRule(thresholds=ALL, without=(("head", 0, 0, 0),))
    with pytest.raises(NonFiniteError, match="not finite"):
        prune_by_rule(model, measure_importance(model, 0), rule)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fill", ["mean", "zero"])
@pytest.mark.parametrize("output", [0, 1])
def test_the_pruned_network_does_what_was_promised(shape, fill, output):
    """A network with only the kept edges has the fidelity and the error stated, and the full model is unchanged."""
    model, importance = tiny(shape, 5, output, product=True, targets=("a", "b"))
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    pruning = prune_by_rule(model, importance, PruningRule(fidelity=0.9, fill=fill))
    pruned = prune_network(model, pruning)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    windows = model.reference.scaled
    full, outputs = model.network(windows)[:, output], pruned(windows)[:, output]
    assert r2(full, outputs) == pytest.approx(pruning.fidelity.r2, abs=1e-9)
    by_hand = prune_by_hand(model, listed(pruning.edges), fill)(windows)[:, output]
    torch.testing.assert_close(outputs, by_hand, rtol=0, atol=1e-9)
    loaded = Forecaster(pruned, model.reference, {}, model.provenance)
    for one, mae in ((loaded, pruning.fidelity.mae), (model, pruning.fidelity.mae_full)):
        found = one.predict(model.scaling.features_to_original(windows))[:, output]
        assert np.abs(found - model.reference.targets[:, output]).mean() == pytest.approx(mae, abs=1e-9)


def test_too_few_windows_for_a_score():
    """With fewer than 128 reference windows contributions still order the edges, and a score is refused.

    Without targets the curve has no errors.
    """
    model, importance = tiny("head", with_targets=False, n_reference=100)
    points = trace_fidelity(model, importance)
    assert {(point.fidelity.mae, point.fidelity.mae_full) for point in points} == {(None, None)}
    with pytest.raises(InsufficientReferenceError):
        trace_fidelity(model, importance, "backward")
    assert prune_by_rule(model, importance, PruningRule()).rule.metric == "contribution"
    with pytest.raises(
        InsufficientReferenceError, match="at least 128 reference windows, but the checkpoint holds 100"
    ):
        prune_by_rule(model, importance, PruningRule("backward"))
    with pytest.raises(InsufficientReferenceError):
        prune_by_rule(model, importance, PruningRule(thresholds=Thresholds()))


@settings(max_examples=examples(10))
@given(
    st.sampled_from(["head", "lstm", "front"]),
    SEEDS,
    st.integers(0, 1),
    st.sampled_from(METRICS),
    st.sampled_from(["mean", "zero"]),
    st.sampled_from(["float32", "float64"]),
)
def test_the_curve_goes_from_all_edges_to_none(shape, seed, output, metric, fill, dtype):
    """Each point keeps strictly fewer edges than the one before at a threshold no lower, from all to none.

    With the mean as fill, keeping all edges is the model itself: R2 is exactly 1, and errors are the same.
    """
    model, importance = tiny(shape, seed, output, product=True, targets=("a", "b"), dtype=dtype)
    points = trace_fidelity(model, importance, metric=metric, fill=fill)
    edges = [point.edges for point in points]
    live = listed({place: layer.mask for place, layer in model.network.layers.items()})
    assert edges[0] == len(connected(model, live, output))
    assert edges[-1] == 0
    assert (np.diff(edges) < 0).all()
    thresholds = [point.threshold for point in points]
    assert thresholds == sorted(thresholds)
    if fill == "mean":
        assert points[0].fidelity.r2 == 1
        assert points[0].fidelity.mae == points[0].fidelity.mae_full
        tolerance = 1e-9 if dtype == "float64" else 1e-5
        assert points[-1].fidelity.r2 == pytest.approx(0, abs=tolerance)  # what is left is the mean forecast
    assert {point.fidelity.mae_full for point in points} == {points[0].fidelity.mae_full}


@settings(max_examples=examples(10))
@given(st.sampled_from(["head", "lstm", "front"]), SEEDS, st.sampled_from(METRICS), st.floats(0.3, 0.999))
def test_what_a_rule_keeps_lies_on_the_curve(shape, seed, metric, fidelity):
    """By fidelity a rule keeps the last point of the curve before the first that loses too much."""
    model, importance = tiny(shape, seed, 0, product=True, targets=("a", "b"))
    pruning = prune_by_rule(model, importance, PruningRule(metric, fidelity))
    points = trace_fidelity(model, importance, metric=metric)
    below = next(number for number, point in enumerate(points) if point.fidelity.r2 < fidelity)
    assert pruning.n_edges == points[below - 1].edges
    assert pruning.fidelity == points[below - 1].fidelity


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("fidelity", [0.5, 0.99])
def test_edges_of_a_large_network_go_in_groups(metric, fidelity, monkeypatch):
    """Past the budget few networks are tried; what is kept holds the fidelity, and without one more edge does not."""
    model, importance = tiny("lstm", hidden_size=12, n_hidden=5)
    curve = trace_fidelity(model, importance, metric=metric)
    edges = [point.edges for point in curve]
    assert count_at_once(model) == 1
    n_edges = sum(layer.n_in * layer.n_subnodes for layer in model.config.head)
    monkeypatch.setattr(pruning_module, "EVALUATIONS", n_edges * n_edges * 128 / 16)
    assert count_at_once(model) == 16
    tried = []
    with pausing(lambda: tried.append(1)):
        kept = prune_by_rule(model, importance, PruningRule(metric, fidelity))
    assert len(tried) <= n_edges / 16 + 16 + 3
    assert kept.fidelity.r2 >= fidelity
    number = edges.index(kept.n_edges)
    assert curve[number].fidelity == kept.fidelity
    assert curve[number + 1].fidelity.r2 < fidelity
    points = trace_fidelity(model, importance, metric=metric)
    of_groups = [point.edges for point in points]
    assert (of_groups[0], of_groups[-1]) == (edges[0], 0)
    assert {(point.edges, point.fidelity) for point in points} <= {(point.edges, point.fidelity) for point in curve}
    assert len(points) <= n_edges / 16 + 2
    assert of_groups == sorted(of_groups, reverse=True)


def square_root(n_outputs=1):
    """y = sqrt(x0 + x1) where x0 is small, and large enough: without its edge the root leaves its domain."""
    symbolic = tuple(SymbolicEdge(0, output, "sqrt") for output in range(n_outputs))
    head = (LayerConfig(2, 1, base="identity"), LayerConfig(1, n_outputs, base="identity", symbolic=symbolic))
    targets = tuple(Target(f"y{output}") for output in range(n_outputs))
    config = ModelConfig((Feature("x0"), Feature("x1")), targets, 1, 1, head, dtype="float64")
    network = Network(config)
    with torch.no_grad():
        for layer in network.head:
            layer.scale_base[:] = 1
            layer.scale_spline[:] = 0
        network.head[1].mask[:] = 0
        network.head[1].symbolic_affine[:] = torch.tensor([1.0, 0.0, 1.0, 0.0])
    rng = np.random.default_rng(0)
    x1 = rng.uniform(-1, 3, 200)
    x0 = np.maximum(-x1, 0) + 0.1
    return Forecaster(
        network, Reference(torch.from_numpy(np.stack([x0, x1], 1)[:, None]), network.config), {}, PROVENANCE
    )


@cache
def measured_root():
    model = square_root()
    return model, measure_importance(model, 0)


@pytest.mark.parametrize("fill", ["mean", "zero"])
@pytest.mark.parametrize("metric", [None, *METRICS])
@pytest.mark.parametrize("fidelity", [0.01, 0.5, 0.99])
def test_what_is_not_finite_holds_no_fidelity(fidelity, metric, fill):
    """Where a function leaves its domain once an edge goes, the edge stays, whatever fidelity is asked for."""
    model, importance = measured_root()
    pruning = prune_by_rule(model, importance, PruningRule(metric, fidelity, fill=fill))
    assert pruning.n_edges == 3
    assert pruning.fidelity.r2 == 1
    smaller = extract_subnetwork(model, [importance], PruningRule(metric, fidelity, fill=fill))
    assert torch.isfinite(smaller.reference_outputs).all()
    assert smaller.metrics["fidelity_r2"] == pytest.approx(1)


@pytest.mark.parametrize("fill", ["mean", "zero"])
def test_the_curve_ends_where_it_is_not_finite(fill):
    """The cost of every number of edges is finite, from all of them on, to before the first that is not."""
    model, importance = measured_root()
    points = trace_fidelity(model, importance, fill=fill)
    assert [(point.edges, point.fidelity.r2) for point in points] == [(3, 1.0)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("part", ["edge", "input"])
def test_thresholds_that_leave_nothing_finite_are_refused(metric, part):
    """Thresholds that take an edge that a function needs are an error, not an R2 that is no number."""
    model, importance = measured_root()
    scores = score_network(model, importance, MaskedForward(model).full, metric)[0]["head", 0][0]
    assert scores[0] < scores[1]
    rule = PruningRule(metric, None, replace(ALL, **{part: float(scores.mean())}))
    with pytest.raises(NonFiniteError, match="finite"):
        prune_by_rule(model, importance, rule)


def test_a_masked_function_outside_its_domain_is_0():
    """An edge whose fixed function is masked adds 0 where that function does not exist."""
    model = square_root()
    layer = model.network.head[1]
    layer.symbolic_mask[:] = 0
    assert torch.equal(layer(torch.full((3, 1), -1.0, dtype=torch.float64)), torch.zeros(3, 1))


def test_one_output_does_not_spoil_another():
    """A smaller model for one output has finite forecasts of the others too."""
    model = square_root(n_outputs=2)
    with torch.no_grad():
        model.network.head[1].mask[0] = 1
        model.network.head[1].symbolic_mask[0] = 0  # y0 = x0 + x1 itself
    model = replace(model, reference=model.reference)
    smaller = extract_subnetwork(model, [measure_importance(model, 0)], PruningRule(fidelity=0.0))
    assert torch.isfinite(smaller.reference_outputs).all()
    assert np.isfinite(list(smaller.metrics.values())).all()


@settings(max_examples=50)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=2, max_size=5), st.floats(0, 1))
def test_r2_of_anything_is_a_number(pruned, fidelity):
    """R2 is never NaN, at most 1, and below every fidelity where an output is not finite."""
    full = torch.arange(float(len(pruned)), dtype=torch.float64)
    outputs = torch.tensor(pruned, dtype=torch.float64)
    kept = fidelity_r2(full, outputs)
    assert kept <= 1
    assert torch.isfinite(outputs).all() or kept < fidelity
    assert fidelity_r2(full * 1e200, full * 1e200) == 1
    assert fidelity_r2(full * 1e-200, full * 1e-200) == 1


@pytest.mark.parametrize("shape", ["lstm", "head", "front"])
def test_outputs_are_those_of_the_trace_in_any_order(shape):
    """Sums that are kept from one set of edges to the next are those of the next."""
    model, _ = tiny(shape, product=True)
    masked, generator = MaskedForward(model), torch.Generator().manual_seed(0)
    for share in (1.0, 0.5, 0.5, 0.9, 0.0, 0.7):
        kept = {key: live & (torch.rand(live.shape, generator=generator) < share) for key, live in masked.live.items()}
        torch.testing.assert_close(masked.outputs(kept), masked.trace(kept).outputs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fidelity", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_metric_is_the_first_of_those_that_keep_the_fewest_edges(seed, fidelity):
    """As if every metric had been tried, although one that cannot keep fewer is not followed to its end."""
    model, importance = tiny("head", seed, n_features=4, n_hidden=3)
    each = [prune_by_rule(model, importance, PruningRule.of(fidelity, metric)) for metric in METRICS]
    best = min(each, key=lambda pruning: pruning.n_edges)
    found = prune_by_rule(model, importance, PruningRule.of(fidelity))
    assert (found.rule.metric, found.kept) == (best.rule.metric, best.kept)
