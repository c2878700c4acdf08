"""The nodes, edges, pruning and pictures of networks whose parts are joined in another way than a chain."""

import re
from dataclasses import replace
from functools import cache
from xml.etree import ElementTree

import networkx
import numpy as np
import pytest
import torch
from factories import make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples, few_of
from torch import nn
from wired import EVERY, FEATURES, WIRED, random_walks, read

import kanmodel
from kanmodel.attribution.baseline import spread_windows
from kanmodel.attribution.ledger import explain_windows
from kanmodel.attribution.links import MAX_WINDOWS, TOLERANCE, measure_links
from kanmodel.attribution.paths.path import sum_subnodes
from kanmodel.errors import UnknownNameError
from kanmodel.forecaster import Forecaster
from kanmodel.network.connections import connected_features
from kanmodel.network.network import Network
from kanmodel.network.operations import Node
from kanmodel.show.network import draw_topology
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule, Thresholds
from kanmodel.structure.topology import build_topology


@cache
def topology(name):
    return read(name).topology()


def as_graph(model):
    """A chain of an LSTM and a head as a graph."""
    config = model.config
    last = tuple(
        (first, 1, 1) for first in range((config.lookback - 1) * config.n_units, config.lookback * config.n_units)
    )
    nodes = [Node("window"), Node("recurrent", (0,)), Node("arrange", (1,), shape=(config.n_units,), runs=last)]
    nodes += [Node("layer", (number,)) for number in range(2, 2 + len(config.head))]
    drawn = replace(config, recurrent=None, graph=tuple(nodes), recurrents=(config.recurrent,))
    network = Network(drawn)
    tensors = {name.replace("recurrent.", "recurrents.0."): value for name, value in model.network.state_dict().items()}
    network.load_state_dict(tensors)
    return Forecaster(network.eval().requires_grad_(False), model.reference, {}, model.provenance)


@pytest.mark.parametrize("output", few_of([0, 1], [1], "the same of another output"))
def test_a_chain_is_a_graph_with_one_path(output):
    """Drawn as a graph it has the same nodes and edges, with the same figures."""
    chain = make_model("lstm", 3, product=True, targets=("a", "b"), n_reference=130)
    graph = as_graph(chain)
    for rule in (PruningRule(), PruningRule(fidelity=None, thresholds=Thresholds(0.02, 0.05, 0.02))):
        one, other = (build_topology(each, measure_importance(each, output), rule) for each in (chain, graph))
        assert one.fidelity.r2 == pytest.approx(other.fidelity.r2, abs=1e-5)
        nodes, edges = ({part.id: part for part in each.nodes} for each in (one, other)), (one.edges, other.edges)
        ones, others = nodes
        assert [re.sub("^lstm:", "lstm:0:", identity) for identity in ones] == list(others)
        for mine, theirs in zip(ones.values(), others.values(), strict=True):
            assert (mine.kind, mine.index) == (theirs.kind, theirs.index)
            # Features, units and outputs are kept in a graph by connection alone.
            assert mine.kept == theirs.kept or mine.kind in ("feature", "lstm", "output")
            if mine.contribution is not None:
                assert mine.contribution == pytest.approx(theirs.contribution, rel=1e-3, abs=1e-6)
            assert mine.scores == (theirs.scores and pytest.approx(theirs.scores, rel=1e-4))
            assert mine.profile == pytest.approx(dict(theirs.profile), abs=1e-3)
        functions = [[edge for edge in of if edge.kind == "edge"] for of in edges]
        for mine, theirs in zip(*functions, strict=True):
            assert (mine.key, mine.kept, mine.outside_grid) == (theirs.key, theirs.kept, theirs.outside_grid)
            assert mine.contribution == pytest.approx(theirs.contribution, rel=1e-3, abs=1e-6)
            assert mine.scores == pytest.approx(theirs.scores, rel=1e-4)
        assert not any(edge.kind == "link" for edge in other.edges)


@EVERY
def test_everything_leads_from_the_features_to_the_output(name):
    """Nodes have one id each, no two edges join the same two, and circles lead through the units of a loop alone."""
    drawn = topology(name)
    graph = drawn.networkx()
    assert len(graph.nodes) == len(drawn.nodes) and len(graph.edges) == len(drawn.edges)
    units = [node.id for node in drawn.nodes if node.kind == "loop"]
    assert networkx.is_directed_acyclic_graph(networkx.restricted_view(graph, units, []))
    features = [node.id for node in drawn.nodes if node.kind == "feature"]
    upstream = drawn.upstream()
    reached = set().union(*({each, *networkx.descendants(graph, each)} for each in features))
    assert reached >= {node.id for node in drawn.nodes if node.kind not in ("subnode", "output")}
    assert {node.id for node in upstream.nodes} <= reached
    nodes = {node.id: node for node in drawn.nodes}
    for edge in drawn.edges:
        assert edge.source in nodes and edge.target in nodes
    for node in drawn.nodes:
        assert node.kind in ("feature", "output") or sum(node.profile.values()) == pytest.approx(1) or not node.profile


@EVERY
def test_what_enters_a_node_leaves_it(name):
    """By the edges and links that leave it, and the links into a computed input or output sum to its contribution."""
    model = read(name)
    config, scale = model.config, float(model.scaling.output_scale[0])
    ledger = explain_windows(model, spread_windows(model, MAX_WINDOWS), 0)
    edges = {layer.layer: layer for layer in ledger.layers if layer.edges is not None}
    change = ledger.predictions - ledger.baseline_prediction
    slack = 5 * TOLERANCE * model.output_std[0]
    leaving, entering = {}, {}
    for number, layer in edges.items():
        for identity, passing in zip(config.wiring.ids["glue", number], layer.edges.sum(axis=1).T, strict=True):
            leaving[identity] = leaving.get(identity, 0) + passing
    for (place, j, source), values in measure_links(model, 0).items():
        entering[place, j] = entering.get((place, j), 0) + scale * values.sum(axis=1)
        for identity, passing in zip(config.wiring.ids[source], scale * values.T, strict=True):
            leaving[identity] = leaving.get(identity, 0) + passing
    for (place, j), value in entering.items():
        expected = change if place[0] == "output" else edges[place[1]].nodes[:, j]
        np.testing.assert_allclose(value, expected, atol=slack)
    recurrent = {source for place, read in config.wiring.links.items() if place[0] == "steps" for source in read}
    for number, layer in edges.items():
        place = ("head", number + 1)
        for identity, value in zip(
            config.wiring.ids[place], sum_subnodes(config.head[number], layer.edges).T, strict=True
        ):
            if identity in leaving and place not in recurrent:
                np.testing.assert_allclose(leaving[identity], value, atol=slack)


@pytest.mark.parametrize("name", few_of(WIRED, {"RevIN"}, "the same with other wirings"))
def test_pruning_keeps_the_fidelity(name, tmp_path):
    """The pruned model, saved and loaded, forecasts what the ablation does, with the R2 that was asked for."""
    model, windows = read(name), random_walks(5, seed=6)
    pruned = model.prune(fidelity=0.9).save(tmp_path / "m.safetensors")
    loaded = kanmodel.load(tmp_path / "m.safetensors")
    for output in model.outputs:
        assert loaded.fidelity_to(model, output).r2 >= 0.9 - 1e-6
    np.testing.assert_allclose(loaded.predict(windows), pruned.predict(windows), rtol=1e-5)
    ids = [[edge.key for edge in each.topology().kan_edges] for each in (model, loaded)]
    assert ids[0] == ids[1]
    output = model.outputs[0]
    alone = model.prune(output, fidelity=0.9)
    ablated = model.ablate(windows, output, fidelity=0.9)
    np.testing.assert_allclose(alone.predict(windows)[:, 0], ablated.ablated_predictions, rtol=1e-4, atol=1e-5)
    points = model.fidelity_curve()
    assert points[0].fidelity.r2 == pytest.approx(1, abs=1e-6)


@EVERY
def test_curves_and_reports_answer(name):
    """Each kept edge has a curve whose value the network adds, and the report names the nodes of the graph."""
    model, drawn = read(name), topology(name)
    edges = drawn.kan_edges[:4]
    for edge, curve in zip(edges, model.curves(edges, points=5, span="reference"), strict=True):
        layer = model.network.layers[edge.stage, edge.layer]
        x = torch.zeros(5, layer.config.n_in) + torch.from_numpy(curve.x).float()[:, None]
        if not layer.config.mixes:
            np.testing.assert_allclose(curve.y, layer.edges(x)[:, edge.j, edge.i].detach(), atol=1e-5)
        assert model.edge(edge.source, edge.target, points=2).edge.key == edge.key
    report = model.report()
    assert set(report["depth"].findings[0].evidence["profiles"]) <= {node.id for node in drawn.nodes}
    compared = model.compare(model)
    assert compared.difference == 0 and all(edge.change == 0 for edge in compared.edges)
    with pytest.raises(UnknownNameError, match="there is no edge"):
        model.edge("head:90:0:0")


def test_nodes_say_what_they_are():
    """A copied value is the node that it copies, a cell or a feature; others are inputs of their layer."""
    names = ("SkipAroundHead", "RevIN", "HeadPerQuantile", "TwoBranches", "Pooled")
    kinds = {name: {node.kind for node in topology(name).nodes} for name in names}
    assert kinds["SkipAroundHead"] == kinds["RevIN"] == {"feature", "lstm", "head", "output"}
    assert kinds["HeadPerQuantile"] == {"feature", "lstm", "output"}
    assert kinds["TwoBranches"] == {"feature", "lstm", "gru", "head", "output"}
    assert kinds["Pooled"] == {"feature", "lstm", "glue", "output"}
    links = {(edge.source, edge.target) for edge in topology("RevIN").edges if edge.kind == "link"}
    assert links == {("head:1:0", "output:y1+1"), ("feature:a", "output:y1+1")}

    class Cells(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.steps, self.head = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(2, 1)

        def forward(self, x):
            return self.head(torch.tanh(self.steps(x)).amax(dim=1) + self.last(x[:, -1]))

    torch.manual_seed(0)
    drawn = kanmodel.from_torch(Cells(), windows=random_walks(), features=list(FEATURES)).topology()
    sources = {(edge.layer, edge.source) for edge in drawn.kan_edges}
    assert {"feature:a", "cell:0:a"} <= {source for _, source in sources}
    assert ("feature:a", "cell:0:a") in {(edge.source, edge.target) for edge in drawn.edges if edge.kind == "input"}


def pictures(name):
    for output in read(name).outputs:
        for pruned in (True, False):
            yield draw_topology(read(name).topology(output), pruned=pruned)


@EVERY
def test_a_graph_is_drawn(name):
    """Everything lies within the picture, and what passes layers goes along their side."""
    for text in pictures(name):
        root = ElementTree.fromstring(text)
        width = float(root.get("viewBox").split()[2])
        for path in root.iter("{http://www.w3.org/2000/svg}path"):
            across = [float(x) for x in re.findall(r"[-0-9.]+", path.get("d"))[:1]]
            assert all(0 <= x <= width for x in across)


def test_a_skip_passes_beside_the_layers():
    """Its link is dashed, and goes further to the right than any node."""
    for name, source, target in (("SkipAroundHead", "head:3:0", "output:y1+1"), ("RevIN", "feature:a", "output:y1+1")):
        root = ElementTree.fromstring(next(pictures(name)))
        group = root.find(f".//*[@data-source='{source}'][@data-target='{target}']")
        path = group.find("{http://www.w3.org/2000/svg}path")
        assert path.get("stroke-dasharray")
        lane = float(re.search(r"([0-9.]+) [0-9.]+V", path.get("d"))[1])
        circles = [float(each.get("cx")) for each in root.iter("{http://www.w3.org/2000/svg}circle")]
        chips = [float(each.get("x")) + float(each.get("width")) for each in root.iter() if each.get("class") == "chip"]
        assert lane > max(circles + chips)


@settings(max_examples=examples(20))
@given(st.sampled_from(sorted(WIRED)), st.integers(0, 99), st.floats(0.2, 0.9))
def test_disconnected_features_change_nothing(name, seed, share):
    """With any edges masked, an output is the same to the last bit if only features move that have no way to it."""
    model = as_masked(read(name), seed, share)
    windows, moved = model.reference.scaled[:8], torch.from_numpy(random_walks(8, seed)).float()
    for output in range(len(model.config.outputs)):
        still = ~torch.tensor(connected_features(model.network, output))
        other = torch.where(still, moved, windows)
        assert torch.equal(model.network(windows)[:, output], model.network(other)[:, output])


def as_masked(model, seed, share):
    network, rng = Network(model.config), np.random.default_rng(seed)
    network.load_state_dict(model.network.state_dict())
    for layer in network.layers.values():
        layer.mask_edges(torch.from_numpy(rng.random(layer.mask.shape) < share))
    return Forecaster(network.eval().requires_grad_(False), model.reference, {}, model.provenance)
