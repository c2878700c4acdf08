"""GET /v1/models/{model}/edges and one of them: the functions on the edges of a KAN."""

from collections.abc import Sequence
from dataclasses import replace

from fastapi import Response

from kanmodel.formula.symbolic import Candidate
from kanmodel.show.edge import draw_edge
from kanmodel.structure.curves import Edge
from kanmodel.structure.topology import Topology
from service.answers.edges import (
    N_FORMULAS,
    CurveQuery,
    CurvesQuery,
    EdgeContext,
    EdgeFunction,
    EdgeList,
    EdgePath,
    EdgeResponse,
    Formula,
    SupportInfo,
)
from service.answers.members import describe
from service.answers.topology import LagShares
from service.models.registry import Served
from service.operations.reference import describe_span
from service.operations.route import Call, result
from service.operations.topology import describe_lags, describe_rule, estimate_curves, find_topology
from service.wire.errors import invalid_value
from service.wire.json import JSON, SVG, answer_json, answer_svg

_OF_TOPOLOGY = ("stage", "layer", "i", "j", "source", "target", "contribution", "kept")


def _describe_context(served: Served, topology: Topology) -> EdgeContext:
    return {**describe_span(served), "output": topology.output, "rule": describe_rule(topology.rule)}


def describe_edge(served: Served, topology: Topology, curve: Edge, candidates: Sequence[Candidate]) -> EdgeResponse:
    """One edge, with its formulas, best first, if there are any."""
    described = _describe_curve(curve, candidates, describe_lags(curve.edge.lags))
    return {**_describe_context(served, topology), **described}


def describe_edges(served: Served, topology: Topology, curves: list[Edge]) -> EdgeList:
    """Several edges."""
    return {**_describe_context(served, topology), "edges": list(map(_describe_curve, curves))}


def _describe_curve(
    curve: Edge, candidates: Sequence[Candidate] = (), lags: dict[str, LagShares] | None = None
) -> EdgeFunction:
    support = curve.support
    histogram = {"edges": support.histogram_edges.tolist(), "counts": support.histogram_counts.astype(int).tolist()}
    return describe(
        EdgeFunction,
        curve,
        **{name: getattr(curve.edge, name) for name in _OF_TOPOLOGY},
        space="model",
        scores=curve.edge.scores and dict(curve.edge.scores),
        reads=curve.edge.reads or None,
        lags=lags,
        support=describe(SupportInfo, support, histogram=histogram),
        formulas=_choose_formulas(candidates) if candidates else None,
    )


def _choose_formulas(candidates: Sequence[Candidate]) -> list[Formula]:
    """The first few; the last one is replaced by a straight line if there is none among them."""
    best = list(candidates[:N_FORMULAS])
    if all(candidate.function != "x" for candidate in best):
        best[-1] = next(candidate for candidate in candidates if candidate.function == "x")
    return [describe(Formula, candidate) for candidate in best]


@result("edges", "edges", EdgeList, CurvesQuery)
async def list_edges(call: Call) -> Response:
    """Samples the functions on all edges that the rule keeps."""
    served, query = call.served, call.query
    topology, model = await _get_topology(call), await call.find_model()
    kept = [edge for edge in topology.kan_edges if edge.kept]

    def sample() -> Response:
        return answer_json(describe_edges(served, topology, model.curves(kept, query.points, query.range)))

    return await call.make(sample, estimate_curves(len(kept), query.points))


@result("edges/{layer}/{i}/{j}", "edges", EdgeResponse, CurveQuery, media_types=(JSON, SVG), place=EdgePath)
async def get_edge(call: Call) -> Response:
    """Samples the function on one edge, with the distribution of its inputs on the reference windows.

    With `Accept: image/svg+xml` or `?format=svg` as a picture.
    """
    served, query = call.served, call.query
    topology, model = await _get_topology(call), await call.find_model()
    edge = topology.edge(query.stage, call.place.layer, call.place.i, call.place.j)

    def sample() -> Response:
        (curve,) = model.curves([edge], query.points, query.range)
        formulas = model.edge_formulas(edge) if query.formulas else []
        if call.media_type == SVG:
            unit = served.model.unit_of(call.output)
            named = replace(curve, name=served.name)
            picture = draw_edge(
                named, query.theme, output=topology.output, unit=unit, formulas=formulas, width=query.width
            )
            return answer_svg(picture)
        return answer_json(describe_edge(served, topology, curve, formulas))

    return await call.make(sample, estimate_curves(1, query.points))


async def _get_topology(call: Call) -> Topology:
    query, most = call.query, call.parts.settings.max_points
    if query.points > most:
        raise invalid_value("points", f"must be at most {most} (max_points), but is {query.points}", "limit_exceeded")
    return await find_topology(call)
