from __future__ import annotations

import networkx
import pytest
from factories import make_model

from kanmodel.checkpoint import save_checkpoint
from kanmodel.structure.pruning import PruningRule, Thresholds, trace_fidelity
from kanmodel.structure.topology import build_topology


@pytest.mark.parametrize("name", ["nyc-weather", "front", "head"])
def test_networkx_reads_the_graph(service, name):
    """The response is node-link JSON: a directed graph in which kept units and nodes lead to the output."""
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


def test_counts_and_lists_kept_parts(service):
    """With pruned=true only kept parts are listed, with false all; the counts agree."""
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
    topology = build_topology(model, service.importance("front"), PruningRule(fidelity=0.9, fill="zero"))
    answer = service.get("/v1/models/front/topology?fidelity=0.9&fill=zero&pruned=false").json()
    assert answer["graph"]["rule"] == {"metric": topology.rule.metric, "fidelity": 0.9, "fill": "zero"}
    assert answer["graph"]["fidelity"] == {"r2": topology.fidelity.r2, "mae": None, "mae_full": None}
    for described, node in zip(answer["nodes"], topology.nodes, strict=True):
        for name in ("id", "kind", "kept", "contribution", "scores"):
            assert described.get(name) == getattr(node, name)
        assert (described.get("profile", {}), described.get("reads", "")) == (node.profile, node.reads)
        for name, lags in described.get("lags", {}).items():
            assert (lags["newest"], lags["oldest"]) == (node.lags[name].newest, node.lags[name].oldest)
            assert sum(lags["shares"]) == pytest.approx(node.profile[name], abs=1e-6)
        assert list(described.get("lags", {})) == list(node.lags)[:4]
        assert described.get("interval") == (None if node.interval is None else list(node.interval))
    for described, edge in zip(answer["edges"], topology.edges, strict=True):
        for name in ("source", "target", "kind", "stage", "layer", "i", "j", "contribution", "kept"):
            assert described[name] == getattr(edge, name)
        for name in ("scores", "share", "opacity", "outside_grid"):
            assert described.get(name) == getattr(edge, name)
        assert described.get("reads", "") == edge.reads
        assert described.get("interval") == (None if edge.interval is None else list(edge.interval))
        assert described.get("masked") == (edge.masked if edge.kind == "edge" else None)
    assert [edge["masked"] for edge in answer["edges"] if edge["kind"] == "edge"].count(True) == 4
    kinds = [edge["kind"] for edge in answer["edges"]]
    assert kinds == sorted(kinds, key=["edge", "product", "input"].index)
    assert {"edge", "product"} <= set(kinds)


def test_edges_go_by_name(service):
    """`without` removes edges in addition to the rule's, in any order, and is returned; the cost includes them."""
    rule = {"fidelity": 0.9, "fill": "zero"}
    model = service.models["front"]
    whole = service.get("/v1/models/front/topology", params=rule).json()
    edge, other = [edge for edge in whole["edges"] if edge["kind"] == "edge" and edge["layer"] == 0][:2]
    ids = ["{stage}:{layer}:{i}:{j}".format_map(one) for one in (edge, other)]
    answers = [
        service.get("/v1/models/front/topology", params={**rule, "without": names}).json()
        for names in (ids, [*ids[::-1], ids[0]])
    ]
    assert answers[0] == answers[1]
    graph = answers[0]["graph"]
    assert graph["rule"] == {**whole["graph"]["rule"], "without": sorted(ids)}
    places = tuple(sorted((one["stage"], one["layer"], one["i"], one["j"]) for one in (edge, other)))
    pruning = PruningRule(fidelity=0.9, fill="zero", without=places)
    topology = build_topology(model, service.importance("front"), pruning)
    assert graph["fidelity"]["r2"] == topology.fidelity.r2 != whole["graph"]["fidelity"]["r2"]
    assert graph["edges"]["kept"] == sum(one.kept for one in topology.upstream().kan_edges)
    listed = service.get("/v1/models/front/edges", params={**rule, "points": 2, "without": ids}).json()
    assert len(listed["edges"]) == graph["edges"]["kept"] and listed["rule"] == graph["rule"]
    assert service.get("/v1/models/front/topology", params=rule).json() == whole


@pytest.mark.parametrize(
    ("names", "path"),
    [(["head:0:0:0", "head:0:99:0"], "without[1]"), (["feature:f0"], "without[0]"), (["head:0:0:0"] * 501, "without")],
)
def test_edges_that_do_not_exist_or_are_too_many_are_refused(service, names, path):
    """422 with the path, in one sentence."""
    answer = service.get("/v1/models/front/topology", params={"without": names})
    assert answer.status_code == 422
    (problem,) = answer.json()["errors"]
    assert problem["path"] == path and "\n" not in problem["message"] and len(problem["message"]) < 300


def test_thresholds_take_the_defaults_of_pykan_and_are_echoed(service):
    """Missing thresholds and the metric are pykan's defaults; the returned rule gives the same graph."""
    answer = service.get("/v1/models/front/topology?edge_threshold=0.2").json()
    rule = answer["graph"]["rule"]
    limits = {"node_threshold": 0.01, "edge_threshold": 0.2, "input_threshold": 0.01}
    assert rule == {"metric": "backward", "fill": "mean", **limits}
    assert service.get("/v1/models/front/topology", params=rule).json() == answer
    model = service.models["front"]
    topology = build_topology(model, service.importance("front"), PruningRule(thresholds=Thresholds(edge=0.2)))
    assert answer["graph"]["edges"]["kept"] == sum(edge.kept for edge in topology.kan_edges)


def test_the_output_is_chosen_by_name(service):
    """A model of several outputs has one graph per output."""
    answers = [service.get("/v1/models/two/topology", params={"output": o}).json() for o in ("a+1", "b+2")]
    assert [answer["graph"]["output"] for answer in answers] == ["a+1", "b+2"]
    assert answers[0]["edges"] != answers[1]["edges"]


@pytest.mark.parametrize("query", [{}, {"metric": "forward_n", "fill": "zero"}])
def test_the_fidelity_curve_is_that_of_the_model_core(service, query):
    """Every number is that of the model core, and the default rule's topology lies on the curve."""
    model = service.models["head"]
    metric, fill = query.get("metric", "contribution"), query.get("fill", "mean")
    answer = service.get("/v1/models/head/topology/fidelity", params=query).json()
    assert (answer["metric"], answer["fill"]) == (metric, fill)
    assert answer["reference_windows"] == len(model.reference.windows)
    points = trace_fidelity(model, service.importance("head"), metric, fill)
    for described, point in zip(answer["curve"], points, strict=True):
        r2, mae = point.fidelity.r2, point.fidelity.mae
        assert described == {"edges": point.edges, "r2": r2, "mae": mae, "threshold": point.threshold}
    graph = service.get("/v1/models/head/topology").json()["graph"]
    curve = service.get("/v1/models/head/topology/fidelity", params={"metric": graph["rule"]["metric"]}).json()["curve"]
    assert (graph["edges"]["kept"], graph["fidelity"]["r2"]) in [(point["edges"], point["r2"]) for point in curve]


def test_few_reference_windows_leave_scores_out_and_say_so(serve, tmp_path):
    """With fewer than 128 reference windows the model is served without scores, and the graph gives the reason."""
    save_checkpoint(make_model("lstm", n_reference=100), tmp_path / "few.safetensors")
    with serve(models=tmp_path) as client:
        topology = client.get("/v1/models/few/topology").json()
    assert topology["graph"]["scores_missing"] == "scores need 128 reference windows, and there are fewer"
    assert not any("scores" in part for part in (*topology["nodes"], *topology["edges"]))
