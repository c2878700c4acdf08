"""GET /v1/models/{model}/topology and its fidelity: the pruned network as a graph; the pruning rule in requests."""

from dataclasses import replace

from fastapi import Response

from kanmodel.errors import UnknownNameError
from kanmodel.model import Model
from kanmodel.show.network import count_links, curved_edges, draw_topology
from kanmodel.structure.scores import MIN_INPUTS
from kanmodel.structure.topology import N_POINTS, Topology
from service.answers.forms import describe, describe_one
from service.answers.table import N_LAGGED
from service.answers.topology import Count, FidelityCurve, FidelityQuery, GraphInfo, TopologyQuery, TopologyResponse
from service.models.registry import Served
from service.operations.reference import describe_span
from service.operations.route import Call, result
from service.wire.errors import invalid_value
from service.wire.json import JSON, SVG, answer_json, answer_svg


def describe_topology(served: Served, topology: Topology, part: Topology, pruned: bool) -> TopologyResponse:
    """The graph of a part of what leads to the output; `pruned` leaves out what the rule does not keep."""
    whole, few = topology.upstream(), topology.reference_windows < MIN_INPUTS
    graph = describe(
        GraphInfo,
        topology,
        **describe_span(served),
        nodes=_count([node.kept for node in whole.nodes if node.kind != "subnode"]),
        edges=_count([edge.kept for edge in whole.kan_edges]),
        scores_missing=f"scores need {MIN_INPUTS} reference windows, and there are fewer" if few else None,
    )
    nodes = [describe_one(node) for node in part.nodes if node.kept or not pruned]
    edges = [describe_one(edge) for edge in part.edges if edge.kept or not pruned]
    return {"directed": True, "multigraph": False, "graph": graph, "nodes": nodes, "edges": edges}


async def find_topology(call: Call) -> Topology:
    """The topology of the query's output and pruning rule."""
    rule = vars(call.query.rule(await call.find_model()))
    return await call.find(Model.topology, **rule)


def _count(kept: list[bool]) -> Count:
    return {"kept": sum(kept), "total": len(kept)}


CURVE_ARRAYS, CURVE_VALUE_BYTES = 7, 64  # of a curve; of a value in an array, in a list, and in JSON
JSON_PART_BYTES, SVG_PART_BYTES = 1200, 6000  # of a node or an edge, as objects and text
N_LINKS = 5000  # most links of each kind in a picture; of more, only the strongest are drawn


@result("topology", "topology", TopologyResponse, TopologyQuery, media_types=(JSON, SVG))
async def get_topology(call: Call) -> Response:
    """Returns the pruned network as a graph with its fidelity.

    With `Accept: image/svg+xml` or `?format=svg` as a picture; with at most 300 kept edges, the curve of each.
    Prune by `fidelity` (default 0.99) or by thresholds, not both. `through` leaves only the paths through one node.
    """
    served, query, is_drawn = call.served, call.query, call.media_type == SVG
    topology, model = await find_topology(call), await call.find_model()
    part = topology.upstream()
    if query.through is not None:
        try:
            part = part.through(query.through, only_kept=query.pruned)
        except UnknownNameError as error:
            raise invalid_value("through", f"must be the id of a node: {error}") from error

    curved = curved_edges(part) if is_drawn and query.curves else []

    def answer() -> Response:
        if not is_drawn:
            return answer_json(describe_topology(served, topology, part, query.pruned))
        picture = draw_topology(
            replace(topology, name=served.name),
            query.theme,
            curves=model.curves(curved, N_POINTS),
            pruned=query.pruned,
            color=query.color,
            scale=query.scale,
            through=query.through,
            n_links=N_LINKS,
            width=query.width,
        )
        return answer_svg(picture)

    n_parts = sum(node.kept or not query.pruned for node in part.nodes)
    n_parts += count_links(part, query.pruned, N_LINKS) if is_drawn else len(part.edges)
    n_lags = 0 if is_drawn else N_LAGGED * served.model.lookback * sum(bool(node.lags) for node in part.nodes)
    return await call.make(answer, estimate_graph(n_parts, len(curved), is_drawn) + CURVE_VALUE_BYTES * n_lags)


def estimate_curves(n_edges: int, points: int) -> int:
    """The bytes of curves in arrays, in lists, and in JSON."""
    return CURVE_ARRAYS * CURVE_VALUE_BYTES * n_edges * points


def estimate_graph(n_parts: int, n_curves: int, is_drawn: bool) -> int:
    """The bytes of the nodes and edges of a graph, as objects and text, and of its curves."""
    return (SVG_PART_BYTES if is_drawn else JSON_PART_BYTES) * n_parts + estimate_curves(n_curves, N_POINTS)


@result("topology/fidelity", "topology", FidelityCurve, FidelityQuery)
async def get_fidelity_curve(call: Call) -> Response:
    """Returns the fidelity against the number of edges, from all towards none, removing the weakest first."""
    served, asked, output = call.served, call.query, call.output
    points = await call.find(Model.fidelity_curve, metric=asked.metric, fill=asked.fill)

    def answer() -> Response:
        curve = list(map(describe_one, points))
        head, n = describe_span(served), len(served.model.reference)
        return answer_json(describe(FidelityCurve, asked, **head, output=output, reference_windows=n, curve=curve))

    return await call.make(answer)
