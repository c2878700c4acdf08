"""GET /v1/models/{model}/edges and one of them: the functions on the edges of a KAN."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal, NotRequired

from fastapi import Response
from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.formula.symbolic import Candidate
from kanmodel.show.edge import draw_edge
from kanmodel.structure import curves
from kanmodel.structure.curves import Edge
from kanmodel.structure.topology import Topology
from service.models.registry import Served
from service.operations.members import Closed, FormatParameter, ThemeParameter, Whole, about, describe
from service.operations.reference import OnReference, describe_span
from service.operations.route import Call, result
from service.operations.topology import (
    MAX_WIDTH,
    MIN_WIDTH,
    AppliedRule,
    LagShares,
    RuleQuery,
    Scores,
    Stage,
    describe_lags,
    describe_rule,
    estimate_curves,
    find_topology,
)
from service.wire.errors import invalid_value
from service.wire.json import JSON, SVG, answer_json, answer_svg

CurveRange = TypeAliasType("CurveRange", curves.Span)
Shape = TypeAliasType("Shape", curves.CurveShape)
N_FORMULAS = 5
_OF_TOPOLOGY = ("stage", "layer", "i", "j", "source", "target", "contribution", "kept")


class CurvesQuery(RuleQuery):
    """How edges are sampled, and by which rule they are pruned."""

    points: Annotated[Whole, about("Samples of a curve, evenly spaced.", ge=2)] = 101
    range: CurveRange = "support"
    """Interval: `support`, 1st to 99th percentile on the reference windows; `reference`, their minimum to maximum;
    `grid`, the core interval of the knots."""


class CurveQuery(CurvesQuery):
    """How one edge is sampled."""

    stage: Annotated[Stage, about("The KAN of the edge.")] = "head"
    formulas: Annotated[bool, about("Whether to search for formulas of the edge.")] = False
    format: FormatParameter = None
    theme: ThemeParameter = "auto"
    width: Annotated[int, Field(ge=MIN_WIDTH, le=MAX_WIDTH)] = 760
    """Width of the picture, pixels, in which its texts keep their size."""


class Histogram(TypedDict):
    """Histogram of the edge's inputs on the reference windows."""

    edges: Annotated[list[float], about("Edges of the bins, one more than `counts`, model units.")]
    counts: Annotated[list[int], about("Number of values in each bin.")]


class SupportInfo(TypedDict):
    """Distribution of the edge's inputs on the reference windows, model units."""

    p01: Annotated[float, about("1st percentile.")]
    p50: Annotated[float, about("Median.")]
    p99: Annotated[float, about("99th percentile.")]
    histogram: Histogram
    outside_grid: float | None
    """Share of the values outside the core interval of the grid; null for a basis without one."""


class LineInfo(TypedDict):
    """Linear fit to the edge on its support, model units."""

    slope: Annotated[float, about("Its slope.")]
    intercept: Annotated[float, about("Its value at x = 0.")]
    r2: Annotated[float, about("R2 of the line; 1 for a constant.")]


class Formula(TypedDict):
    """A formula c f(a x + b) + d of an edge, model units."""

    expression: Annotated[str, about("A Python expression of x with NumPy's names, with as few digits as keep its R2.")]
    r2: float
    """Coefficient of determination between `p01` and `p99`; 1 where it is the edge's function."""
    complexity: Annotated[int, about("pykan's price of f; 1 for a straight line.")]


class EdgeFunction(TypedDict):
    """One edge, sampled; masks and scales included."""

    stage: Annotated[Stage, about("The KAN of the edge.")]
    layer: Annotated[int, about("Layer of the source node.")]
    i: Annotated[int, about("Index of the source node.")]
    j: Annotated[int, about("Index of the target sub-node.")]
    source: Annotated[str, about("Id of the source node.")]
    target: Annotated[str, about("Id of the target node or sub-node.")]
    space: Annotated[Literal["model"], about("Positions, values, knots and scores are in model units.")]
    x: Annotated[list[float], about("Positions, ascending, model units.")]
    function_of: Literal["input", "normalised input"]
    """What x is. After a layer norm it is the normalised input, which depends on all inputs of the layer. Where the
    base reads the input itself, as in fast-kan, `y` is then the spline part alone, and `base` 0."""
    y: Annotated[list[float], about("Values, base + spline (+ symbolic), model units.")]
    base: Annotated[list[float], about("The base part.")]
    spline: Annotated[list[float], about("The spline part.")]
    symbolic: NotRequired[Annotated[list[float], about("The fixed function; only for a symbolic edge.")]]
    slope: Annotated[list[float], about("dy/dx.")]
    x_original: NotRequired[Annotated[list[float], about("x in the feature's unit; only if the source is a feature.")]]
    y_original: NotRequired[list[float]]
    """y in the target's unit, as it adds to the forecast; only if the edge enters an output."""
    unit: Annotated[str | None, about("Unit of `x_original`; null if there is none or it is unknown.")]
    grid: Annotated[list[float], about("Knots, extended ones included, model units.")]
    support: SupportInfo
    line: LineInfo
    shape: Shape
    """`linear`, `curved`, `flat` if it is nearly constant, or `base_only` if its inputs lie outside the grid."""
    scores: NotRequired[Scores]
    reads: NotRequired[str]
    """When the source node reads which features, such as `hour_sin at lags 0 to 5, temp_c at lag 0`; absent where
    the topology has no lags of it."""
    lags: NotRequired[dict[str, LagShares]]
    """The features with the largest shares in the source node by lag, at most 4; only of a single edge."""
    contribution: Annotated[float | None, about("Mean |contribution| over the reference windows, target's unit.")]
    kept: Annotated[bool, about("Whether the rule keeps it.")]
    formulas: NotRequired[Annotated[list[Formula], Field(max_length=N_FORMULAS)]]
    """At most 5, best first, a straight line among them; only if requested, and not after a layer norm, where an edge
    is not a function of one number."""


class EdgeContext(OnReference):
    """Members that all answers about edges share."""

    output: Annotated[str, about("Name of the output that contributions and `kept` are about.")]
    rule: AppliedRule


class EdgeResponse(EdgeContext, EdgeFunction):
    """One edge."""


class EdgeList(EdgeContext):
    """The edges that the rule keeps."""

    edges: list[EdgeFunction]


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


class EdgePath(Closed):
    """Which edge."""

    layer: Annotated[int, about("Layer of the edge's source node.")]
    i: Annotated[int, about("Index of that node.")]
    j: Annotated[int, about("Index of the target sub-node, in the next layer.")]


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
