import re
from dataclasses import replace
from functools import cache
from gc import collect
from math import tanh
from weakref import ref

import numpy as np
import pytest
import torch
from factories import SHAPES, make_model

from kanmodel.errors import UnknownNameError
from kanmodel.network.network import Network
from kanmodel.show.edge import draw_edge
from kanmodel.show.network import draw_topology
from kanmodel.structure.curves import sample_edges
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule, Thresholds, prune_by_rule
from kanmodel.structure.scores import score_layers
from kanmodel.structure.topology import build_topology

ALL = PruningRule(thresholds=Thresholds(-1, -1, -1))


@cache
def tiny(shape, seed=0, output=0, **options):
    small = {"n_features": 3, "lookback": 3, "hidden_size": 4, "product": True, "targets": ("a", "b")}
    model = make_model(shape, seed, **small | options)
    return model, measure_importance(model, output)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_edge_joins_nodes_that_exist(shape):
    """Ids of nodes are unique, every edge joins two of them, and edges of the KANs come first."""
    topology = build_topology(*tiny(shape), PruningRule())
    ids = [node.id for node in topology.nodes]
    assert len(ids) == len(set(ids))
    assert {end for edge in topology.edges for end in (edge.source, edge.target)} <= set(ids)
    kinds = [edge.kind for edge in topology.edges]
    assert kinds == sorted(kinds, key=["edge", "product", "input"].index)
    assert len(topology.kan_edges) == kinds.count("edge")


def test_units_that_read_long_names_differ_by_them():
    """Words that all inputs share leave the names of units before those that tell one input from another."""
    model = tiny("lstm", n_features=8, hidden_size=8)[0]
    names = [f"plant_hall_{number:02d}_bearing_ring_temperature_celsius" for number in range(8)]
    features = tuple(replace(one, name=name) for one, name in zip(model.config.features, names, strict=True))
    renamed = Network(replace(model.config, features=features))
    renamed.load_state_dict(model.network.state_dict())
    long = replace(model, network=renamed)
    units = [node for node in build_topology(long, measure_importance(long, 0), ALL).nodes if node.kind == "lstm"]
    assert len(units) == 8
    for unit in units:
        assert unit.reads is not None
        first = re.search(r"hall_\d\d", unit.reads)
        assert first is not None
        assert first[0].removeprefix("hall_") in unit.label, unit.label


def test_ids_of_a_front_lstm_and_head():
    """Features, front nodes, units, head nodes, outputs and factors have the ids that the interface promises."""
    topology = build_topology(*tiny("front", n_hidden=1), PruningRule())
    assert [node.id for node in topology.nodes] == [
        *(f"feature:f{i}" for i in range(3)),
        *(f"front:1:{j}" for j in range(3)),
        *("front:1:1.0", "front:1:1.1", "front:1:2.0", "front:1:2.1", "front:1:2.2"),
        *(f"front:2:{j}" for j in range(4)),
        *(f"lstm:{u}" for u in range(4)),
        *(f"head:1:{j}" for j in range(3)),
        *("head:1:1.0", "head:1:1.1", "head:1:2.0", "head:1:2.1", "head:1:2.2"),
        *("output:a+1", "output:b+1"),
    ]
    labels = {node.id: (node.kind, node.label) for node in topology.nodes}
    assert labels["feature:f1"] == ("feature", "f1")
    assert labels["lstm:3"] == ("lstm", "high f1, f2")  # what it reads; see `kanmodel.structure.names`
    assert labels["head:1:1.0"] == ("subnode", "head 1:1.0")
    assert labels["output:b+1"] == ("output", "b+1")
    edge = topology.edge("head", 0, 3, 2)
    assert (edge.source, edge.target) == ("lstm:3", "head:1:1.1")
    assert (topology.edge("head", 1, 2, 1).source, topology.edge("head", 1, 2, 1).target) == ("head:1:2", "output:b+1")
    assert (topology.edge("front", 0, 1, 0).source, topology.edge("front", 0, 1, 0).target) == (
        "feature:f1",
        "front:1:0",
    )
    products = [(edge.source, edge.target) for edge in topology.edges if edge.kind == "product"]
    assert products[:2] == [("front:1:1.0", "front:1:1"), ("front:1:1.1", "front:1:1")]
    assert len(products) == 10


def test_features_of_an_lstm_join_every_unit():
    """Where the LSTM reads features, an edge of kind input joins each with each unit, and carries its share."""
    model, importance = tiny("lstm")
    topology = build_topology(model, importance, PruningRule())
    inputs = [edge for edge in topology.edges if edge.kind == "input"]
    assert [(edge.source, edge.target) for edge in inputs] == [
        (f"feature:f{i}", f"lstm:{u}") for u in range(4) for i in range(3)
    ]
    units = {node.id: node for node in topology.nodes}
    for edge in inputs:
        assert edge.share == units[edge.target].profile[edge.source.removeprefix("feature:")]
        assert (edge.contribution, edge.scores, edge.opacity) == (None, None, None)


def test_a_head_alone_reads_its_features():
    """Without an LSTM layer 0 of the head is the features."""
    topology = build_topology(*tiny("head"), PruningRule())
    assert topology.edge("head", 0, 1, 0).source == "feature:f1"
    assert {node.kind for node in topology.nodes} == {"feature", "head", "subnode", "output"}
    assert all(node.profile == {} for node in topology.nodes if node.kind == "feature")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("output", [0, 1])
def test_contributions_are_those_of_the_ledger(shape, output):
    """Every edge and node carries its mean |contribution|, and pykan's scores of the full model."""
    model, importance = tiny(shape, 0, output)
    topology = build_topology(model, importance, PruningRule())
    assert topology.output == model.config.outputs[output]
    assert topology.reference_windows == len(model.reference.windows)
    traces = model.network.trace(model.reference.scaled).stages
    scores = {stage: score_layers(kan, traces[stage][0].inputs) for stage, kan in model.network.stages.items()}
    for edge in topology.kan_edges:
        of_stage = scores[edge.stage]
        assert edge.contribution == importance.edges[edge.stage, edge.layer].value[edge.j, edge.i]
        for metric in ("backward", "forward_n", "forward_u"):
            expected = float(getattr(of_stage, metric)[edge.layer][edge.j, edge.i])
            assert edge.scores[metric] == pytest.approx(expected, abs=1e-12)
        assert edge.opacity == tanh(3 * edge.scores["backward"])
    for index, node in enumerate(node for node in topology.nodes if node.kind == "feature"):
        assert node.contribution == pytest.approx(importance.nodes["input", 0].value[index])
    outputs = [node.contribution for node in topology.nodes if node.kind == "output"]
    assert outputs[1 - output] == 0 < outputs[output]


@pytest.mark.parametrize("shape", SHAPES)
def test_kept_is_what_the_rule_keeps(shape):
    """The graph keeps the edges and nodes that pruning keeps, and factors and products go with their node."""
    model, importance = tiny(shape)
    for rule in (PruningRule(fidelity=0.8), ALL, PruningRule(thresholds=Thresholds(0.2, 0.1, 0.1))):
        topology, pruning = build_topology(model, importance, rule), prune_by_rule(model, importance, rule)
        assert (topology.fidelity, topology.rule) == (pruning.fidelity, pruning.rule)
        assert sum(edge.kept for edge in topology.kan_edges) == pruning.n_edges
        for edge in topology.kan_edges:
            assert edge.kept == pruning.edges[edge.stage, edge.layer][edge.j, edge.i]
        kept = {node.id: node.kept for node in topology.nodes}
        for edge in topology.edges:
            if edge.kind == "product":
                assert edge.kept == kept[edge.source] == kept[edge.target]
            if edge.kept:
                assert kept[edge.source]
                assert kept[edge.target]


def test_features_go_only_when_disconnected():
    """A feature that contributes little stays; one that no weight of the LSTM reads goes."""
    model = make_model("lstm", n_features=3)
    with torch.no_grad():
        model.network.recurrent.weight_ih_l0[:, 1] = 0
        model.network.recurrent.weight_ih_l0[:, 2] *= 1e-9
    topology = build_topology(model, measure_importance(model, 0), PruningRule(fidelity=0.1))
    assert {node.id: node.kept for node in topology.nodes if node.kind == "feature"} == {
        "feature:f0": True,
        "feature:f1": False,
        "feature:f2": True,
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_profiles_are_shares(shape):
    """The profile of every node behind the features sums to 1, names features, and lists the largest first."""
    model, importance = tiny(shape)
    for node in build_topology(model, importance, PruningRule()).nodes:
        if node.kind in ("feature", "subnode"):
            continue
        shares = list(node.profile.values())
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
        assert set(node.profile) <= set(model.config.feature_names)


def test_nodes_edges_and_pictures_say_when_features_are_read():
    """A node has lags of its profile's features, an edge those of its source, and a link from a feature that one's."""
    model, importance = tiny("lstm")
    topology = build_topology(model, importance, PruningRule())
    nodes = {node.id: node for node in topology.nodes}
    for node in topology.nodes:
        assert list(node.lags) == list(node.profile)
        for name, lags in node.lags.items():
            assert lags.shares.sum() == pytest.approx(node.profile[name], abs=1e-6)
    for edge in topology.edges:
        source, target = (nodes[end] for end in (edge.source, edge.target))
        if edge.kind == "product":
            assert not edge.lags and not edge.reads
        elif edge.kind == "input":
            assert edge.reads == f"{source.label} at {target.lags[source.label]}"
        else:
            assert edge.lags == source.lags and edge.reads.count(" at lag") == len(source.lags)
    edge = topology.kan_edges[0]
    assert {row["reads"] for row in topology.table()} == {edge.reads for edge in topology.kan_edges}
    pictures = [draw_topology(topology).decode(), draw_edge(sample_edges(model, [edge])[0]).decode()]
    assert all(f"reads {edge.reads}" in picture for picture in pictures)
    unit = nodes[edge.source]
    assert ", ".join(f"{share:.0%} {name} at {unit.lags[name]}" for name, share in unit.profile.items()) in pictures[0]


def test_a_feature_that_no_node_reads_has_no_share():
    """Where only one feature is read, every node that varies stands for that feature alone."""
    model = make_model("head", n_features=3)
    with torch.no_grad():
        model.network.head[0].mask[:, 1:] = 0
        model.network.head[0].mask[:, 0] = 1
        model.network.head[0].mask[2] = 0
    profiles = measure_importance(replace(model), 0).profiles.shares
    np.testing.assert_array_equal(profiles["head", 1], [[1, 0, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(profiles["head", 2], [[1, 0, 0]])


def test_a_topology_does_not_keep_its_model():
    """Its picture and its edges are there when the model is gone."""
    model = make_model("lstm", n_features=2, lookback=2, hidden_size=2)
    topology, network = build_topology(model, measure_importance(model, 0), PruningRule()), ref(model.network)
    curves = sample_edges(model, [curve.edge for curve in topology.curves], 25)
    del model
    collect()
    assert network() is None
    assert topology.svg() == draw_topology(topology, "auto", curves=curves).decode()
    assert [curve.edge for curve in topology.curves] == sorted(
        (edge for edge in topology.kan_edges if edge.kept), key=lambda edge: -edge.contribution
    )
    with pytest.raises(UnknownNameError, match="in this part of the graph"):
        topology.through("lstm:1").edge("head", 0, 0, 0)


def test_few_windows_have_no_scores():
    """With fewer than 128 reference windows there are contributions and no scores, rather than shaky ones."""
    topology = build_topology(*tiny("head", n_reference=60), PruningRule())
    assert all(edge.scores is None and edge.opacity is None for edge in topology.edges)
    assert all(node.scores is None for node in topology.nodes)
    assert all(edge.contribution is not None for edge in topology.kan_edges)
