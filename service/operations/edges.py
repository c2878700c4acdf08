"""GET /v1/models/{model}/edges and one of them: the functions on the edges of a KAN."""

from collections.abc import Sequence
from dataclasses import replace

from fastapi import Response

from kanmodel.formula.symbolic import Candidate
from kanmodel.show.edge import draw_edge
from kanmodel.structure.topology import Topology
from service.answers.edges import N_FORMULAS, CurveQuery, CurvesQuery, EdgeContext, EdgeList, EdgePath, EdgeResponse
from service.answers.forms import describe_all, describe_one
from service.answers.table import first_lags
from service.models.registry import Served
from service.operations.reference import describe_span
from service.operations.route import Call, result
from service.operations.topology import estimate_curves, find_topology
from service.wire.errors import invalid_value
from service.wire.json import JSON, SVG, answer_json, answer_svg


def _describe_context(served: Served, topology: Topology) -> EdgeContext:
    return {**describe_span(served), "output": topology.output, "rule": describe_one(topology.rule)}


def _choose_formulas(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first few; the last one is replaced by a straight line if there is none among them."""
    best = list(candidates[:N_FORMULAS])
    if best and all(candidate.function != "x" for candidate in best):
        best[-1] = next(candidate for candidate in candidates if candidate.function == "x")
    return best


@result("edges", "edges", EdgeList, CurvesQuery)
async def list_edges(call: Call) -> Response:
    """Samples the functions on all edges that the rule keeps."""
    served, query = call.served, call.query
    topology, model = await _get_topology(call), await call.find_model()
    kept = [edge for edge in topology.kan_edges if edge.kept]

    def sample() -> Response:
        curves = [describe_one(curve) for curve in model.curves(kept, query.points, query.range)]
        return answer_json(EdgeList(**_describe_context(served, topology), edges=curves))

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
        lags, chosen = describe_all(first_lags(edge.lags)), describe_all(_choose_formulas(formulas))
        return answer_json({**_describe_context(served, topology), **describe_one(curve, lags=lags, formulas=chosen)})

    return await call.make(sample, estimate_curves(1, query.points))


async def _get_topology(call: Call) -> Topology:
    query, most = call.query, call.parts.settings.max_points
    if query.points > most:
        raise invalid_value("points", f"must be at most {most} (max_points), but is {query.points}", "limit_exceeded")
    return await find_topology(call)
