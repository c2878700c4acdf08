from __future__ import annotations

import networkx
import pytest

from kanmodel.explain.importance import measure_importance
from kanmodel.explain.pruning import PruningRule, Thresholds
from kanmodel.explain.topology import build_topology


@pytest.mark.parametrize("name", ["nyc-weather", "front", "head"])
def test_networkx_reads_the_graph(service, name):
    """The answer is node-link JSON: a directed graph whose kept units and nodes lead to the output."""
    answer = service.get(f"/v1/models/{name}/topology?pruned=false").json()
    graph = networkx.node_link_graph(answer, edges="edges")
    assert graph.is_directed()
    assert graph.number_of_nodes() == len(answer["nodes"])
    assert graph.number_of_edges() == len(answer["edges"])
    output = f"output:{service.models[name].config.outputs[0]}"
    kept = [
        node for node, data in graph.nodes(data=True) if data["kept"] and data["kind"] in ("lstm", "head", "output")
    ]
    assert output in kept
    assert all(networkx.has_path(graph, node, output) for node in kept)


def test_counts_and_lists_what_is_kept(service):
    """With pruned=true only kept parts are listed; with false all, as many as the counts say."""
    pruned = service.get("/v1/models/nyc-weather/topology").json()
    everything = service.get("/v1/models/nyc-weather/topology?pruned=false").json()
    assert pruned["graph"] == everything["graph"]
    assert pruned["nodes"] == [node for node in everything["nodes"] if node["kept"]]
    assert pruned["edges"] == [edge for edge in everything["edges"] if edge["kept"]]
    counts = pruned["graph"]["edges"]
    kan_edges = [edge["kept"] for edge in everything["edges"] if edge["kind"] == "edge"]
    assert (counts["kept"], counts["total"]) == (sum(kan_edges), len(kan_edges))
    assert 0 < counts["kept"] < counts["total"]
    assert pruned["graph"]["fidelity"]["r2"] >= 0.99
    assert len(everything["nodes"]) == pruned["graph"]["nodes"]["total"]


def test_the_answer_is_the_topology(service):
    """Every number is that of the model core."""
    model = service.models["front"]
    topology = build_topology(model, measure_importance(model, 0), PruningRule(fidelity=0.9, fill="zero"))
    answer = service.get("/v1/models/front/topology?fidelity=0.9&fill=zero&pruned=false").json()
    assert answer["graph"]["rule"] == {"metric": topology.rule.metric, "fidelity": 0.9, "fill": "zero"}
    assert answer["graph"]["fidelity"] == {"r2": topology.fidelity.r2, "mae": None, "mae_full": None}
    for described, node in zip(answer["nodes"], topology.nodes, strict=True):
        assert (described["id"], described["kind"], described["kept"]) == (node.id, node.kind, node.kept)
        assert described["contribution"] == node.contribution
        assert described.get("scores") == node.scores
        assert described.get("profile", {}) == node.profile
    for described, edge in zip(answer["edges"], topology.edges, strict=True):
        for name in ("source", "target", "kind", "stage", "layer", "i", "j", "contribution", "kept"):
            assert described[name] == getattr(edge, name)
        assert described.get("scores") == edge.scores
        assert described.get("share") == edge.share
        assert described.get("opacity") == edge.opacity
    kinds = [edge["kind"] for edge in answer["edges"]]
    assert kinds == sorted(kinds, key=["edge", "product", "input"].index)
    assert {"edge", "product"} <= set(kinds)


def test_thresholds_take_the_defaults_of_pykan_and_are_echoed(service):
    """One threshold is enough: the others and the metric are pykan's, and the echoed rule gives the same graph."""
    answer = service.get("/v1/models/front/topology?edge_threshold=0.2").json()
    rule = answer["graph"]["rule"]
    assert rule == {
        "metric": "backward",
        "node_threshold": 0.01,
        "edge_threshold": 0.2,
        "input_threshold": 0.01,
        "fill": "mean",
    }
    assert service.get("/v1/models/front/topology", params=rule).json() == answer
    model = service.models["front"]
    topology = build_topology(model, measure_importance(model, 0), PruningRule(thresholds=Thresholds(edge=0.2)))
    assert answer["graph"]["edges"]["kept"] == sum(edge.kept for edge in topology.kan_edges)


def test_the_output_is_chosen_by_name(service):
    """A model of several outputs has a graph for each."""
    answers = [service.get("/v1/models/two/topology", params={"output": o}).json() for o in ("a+1", "b+2")]
    assert [answer["graph"]["output"] for answer in answers] == ["a+1", "b+2"]
    assert answers[0]["edges"] != answers[1]["edges"]
