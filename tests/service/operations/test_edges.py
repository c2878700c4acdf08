from __future__ import annotations

import pytest

from kanmodel.formula.symbolic import Candidate, suggest_edge_formulas
from kanmodel.structure.curves import sample_edges
from kanmodel.structure.pruning import PruningRule
from kanmodel.structure.topology import build_topology
from service.operations.edges import _choose_formulas

MORE = pytest.mark.thorough("searches formulas once more")


@pytest.mark.parametrize(
    ("name", "place", "ends"),
    [
        ("front", ("front", 0, 2, 1), ("feature:f2", "front:1:1")),
        ("head", ("head", 0, 1, 0), ("feature:f1", "head:1:0")),
        ("head", ("head", 1, 0, 0), ("head:1:0", "output:y+1")),
    ],
)
def test_the_answer_is_the_curve(service, name, place, ends):
    """Every number of an edge is that of the model core, with what identifies it and original units, if any."""
    model, (stage, layer, i, j) = service.models[name], place
    topology = build_topology(model, service.importance(name), PruningRule())
    (curve,) = sample_edges(model, [topology.edge(*place)], points=7, span="grid")
    path = f"/v1/models/{name}/edges/{layer}/{i}/{j}"
    answer = service.get(f"{path}?stage={stage}&points=7&range=grid").json()
    for member in ("x", "y", "base", "spline", "slope", "grid", "x_original", "y_original"):
        values = getattr(curve, member)
        assert answer.get(member) == (None if values is None else values.tolist())
    assert ("x_original" in answer, "y_original" in answer) == (layer == 0, ends[1].startswith("output"))
    assert (answer["model_name"], answer["output"], answer["unit"]) == (name, "y+1", curve.unit)
    assert answer["rule"]["fidelity"] == 0.99
    assert tuple(answer[member] for member in ("stage", "layer", "i", "j")) == place
    assert (answer["source"], answer["target"], answer["space"]) == (*ends, "model")
    assert (answer["shape"], answer["kept"]) == (curve.shape, curve.edge.kept)
    assert answer["line"] == vars(curve.line) and answer["scores"] == dict(curve.edge.scores)
    assert answer["support"]["p01"] == curve.support.p01
    assert answer["support"]["histogram"]["counts"] == curve.support.histogram_counts.tolist()
    assert len(service.get(f"{path}?stage={stage}").json()["x"]) == 101


def test_an_edge_says_when_its_source_reads_features(service):
    """The lags of its source node, and the same in words, as the topology has them; the list has the words alone."""
    answer = service.get("/v1/models/nyc-weather/edges/0/0/0").json()
    graph = service.get("/v1/models/nyc-weather/topology?pruned=false").json()
    (source,) = (node for node in graph["nodes"] if node["id"] == answer["source"])
    assert (answer["lags"], answer["reads"]) == (source["lags"], source["reads"])
    assert len(answer["lags"]) == 4 and all(len(lags["shares"]) == 24 for lags in answer["lags"].values())
    (edge, *_) = (edge for edge in graph["edges"] if edge["source"] == source["id"])
    assert edge["reads"] == answer["reads"]
    listed = service.get("/v1/models/nyc-weather/edges?points=2").json()["edges"]
    assert all("reads" in edge and "lags" not in edge for edge in listed)


def test_lists_the_kept_edges_each_as_it_is_alone(service):
    """The list has the edges that the topology of the same rule keeps, in its order."""
    query = {"fidelity": 0.9, "points": 5}
    answer = service.get("/v1/models/front/edges", params=query).json()
    graph = service.get("/v1/models/front/topology", params={"fidelity": 0.9}).json()
    places = [(edge["stage"], edge["layer"], edge["i"], edge["j"]) for edge in graph["edges"] if edge["kind"] == "edge"]
    assert [(edge["stage"], edge["layer"], edge["i"], edge["j"]) for edge in answer["edges"]] == places
    shared = {name: answer[name] for name in answer if name != "edges"}
    assert shared["rule"] == graph["graph"]["rule"]
    stage, layer, i, j = places[0]
    alone = service.get(f"/v1/models/front/edges/{layer}/{i}/{j}", params={**query, "stage": stage}).json()
    alone.pop("lags", None)
    assert alone == {**shared, **answer["edges"][0]}


@pytest.mark.parametrize(
    ("name", "stage"),
    [pytest.param("nyc-weather", "head", marks=MORE), ("front", "front"), pytest.param("head", "head", marks=MORE)],
)
def test_formulas_are_given_where_asked_for(service, name, stage):
    """At most five, best first, one of them a straight line, with the model core's numbers; absent by default."""
    model = service.models[name]
    topology = build_topology(model, service.importance(name), PruningRule())
    for i, j in ((1, 0), (2, 1), (3, 2)):
        path = f"/v1/models/{name}/edges/0/{i}/{j}?stage={stage}&points=2"
        answer = service.get(f"{path}&formulas=true").json()
        candidates = suggest_edge_formulas(model, topology.edge(stage, 0, i, j))
        known = {candidate.expression: (candidate.r2, candidate.complexity) for candidate in candidates}
        formulas = answer.pop("formulas")
        assert len(formulas) == 5
        assert all(known[formula["expression"]] == (formula["r2"], formula["complexity"]) for formula in formulas)
        assert formulas[0]["expression"] == candidates[0].expression
        order = [round(formula["r2"], 4) for formula in formulas]
        assert order == sorted(order, reverse=True)
        assert [formula["complexity"] for formula in formulas].count(1) == 1
        assert answer == service.get(path).json()


def test_a_straight_line_is_listed_once():
    """A line among the best keeps its rank; otherwise it takes the last."""
    line, *others = [
        Candidate(function, 1.0, 0.0, 1.0, 0.0, r2)
        for function, r2 in (("x", 0.5), ("sin", 0.9), ("exp", 0.8), ("tanh", 0.7), ("abs", 0.6), ("log", 0.55))
    ]
    for candidates, lines in (([*others[:2], line, *others[2:]], 2), ([*others, line], 4)):
        described = [formula.complexity for formula in _choose_formulas(candidates)]
        assert described.index(1) == lines
        assert described.count(1) == 1
