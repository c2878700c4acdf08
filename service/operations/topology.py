"""GET /v1/models/{model}/topology and its fidelity: the pruned network as a graph; the pruning rule in requests."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from fastapi import Response
from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.attribution.profiles import Lags
from kanmodel.errors import UnknownNameError
from kanmodel.model import Model
from kanmodel.network.connections import NodeKind
from kanmodel.show.network import count_links, curved_edges, draw_topology
from kanmodel.structure import pruning
from kanmodel.structure.edges import EdgeKind
from kanmodel.structure.pruning import PruningRule, Thresholds
from kanmodel.structure.scores import MIN_INPUTS
from kanmodel.structure.topology import N_POINTS, Topology
from service.models.registry import Served
from service.operations.members import (
    Closed,
    Color,
    FormatParameter,
    Interval,
    OutputQuery,
    ThemeParameter,
    about,
    describe,
)
from service.operations.reference import OnReference, describe_span
from service.operations.route import Call, result
from service.wire.errors import invalid_value
from service.wire.json import JSON, SVG, answer_json, answer_svg

# Named, so that generated clients have one type for each.
Stage = TypeAliasType("Stage", Literal["front", "head"])
Metric = TypeAliasType("Metric", pruning.Metric)
Fill = TypeAliasType("Fill", pruning.Fill)
Threshold = Annotated[float | None, Field(ge=0)]
_THRESHOLDS = ("node", "edge", "input")
N_LAGGED, LAG_DIGITS = 4, 8  # features of a node that are listed by lag, and decimals of their shares
MIN_WIDTH, MAX_WIDTH = 240, 8000  # of a picture, pixels
MAX_WITHOUT = 500  # edges that a request names


class RuleMembers(Closed):
    """A pruning rule."""

    metric: Metric | None = None
    """The metric that ranks edges. Absent with `fidelity`: the one that keeps the fewest edges; absent with thresholds:
    backward."""
    fidelity: Annotated[float | None, Field(ge=0, le=1)] = None
    """Smallest R2 against the full model; 0.99 if no threshold is given."""
    node_threshold: Threshold = None
    """Score that a hidden node must exceed, model units; 0.01 if another is given."""
    edge_threshold: Threshold = None
    """Score that an edge must exceed, model units; 0.03 if another is given."""
    input_threshold: Threshold = None
    """Score that an input must exceed, model units; 0.01 if another is given."""
    fill: Fill = "mean"
    """Replacement of a pruned edge: its `mean` on the reference windows (mean ablation), or `zero`."""
    without: Annotated[list[str] | None, Field(max_length=MAX_WITHOUT, fail_fast=True)] = None
    """Ids of edges that go in any case, `{stage}:{layer}:{i}:{j}`, such as `head:0:7:3`; what they alone connected goes
    with them. The fidelity that is asked for holds before that."""

    def rule(self, model: Model) -> PruningRule:
        """The pruning rule, for a model.

        Raises:
            DataError: both a fidelity and a threshold are given, or an edge does not exist.
        """
        without = _find_edges(model, self.without or [])
        thresholds = {name: getattr(self, f"{name}_threshold") for name in _THRESHOLDS}
        given = {name: value for name, value in thresholds.items() if value is not None}
        if given and self.fidelity is not None:
            raise invalid_value("fidelity", f"and {next(iter(given))}_threshold are both given: give one")
        if given:
            return PruningRule(self.metric, None, Thresholds(**given), self.fill, without)
        fidelity = 0.99 if self.fidelity is None else self.fidelity
        return PruningRule(self.metric, fidelity, None, self.fill, without)


class RuleQuery(RuleMembers, OutputQuery):
    """Selects an output and a pruning rule."""


class AppliedRule(TypedDict):
    """The applied pruning rule, in the form of the query."""

    metric: Annotated[Metric, about("The metric that ranked the edges.")]
    fidelity: NotRequired[Annotated[float, about("Smallest R2; absent with thresholds.")]]
    node_threshold: NotRequired[Annotated[float, about("Model units; absent with `fidelity`.")]]
    edge_threshold: NotRequired[Annotated[float, about("Model units; absent with `fidelity`.")]]
    input_threshold: NotRequired[Annotated[float, about("Model units; absent with `fidelity`.")]]
    fill: Annotated[Fill, about("Replacement of a pruned edge.")]
    without: NotRequired[Annotated[list[str], about("Ids of the edges that go in any case; absent without such.")]]


def _find_edges(model: Model, names: list[str]) -> tuple[tuple[str, int, int, int], ...]:
    """The edges of these names, sorted, each once; an error says which name is none."""
    found: set[tuple[str, int, int, int]] = set()
    for number, name in enumerate(names):
        try:
            found.update(model.find_edges([name]))
        except UnknownNameError as error:
            raise invalid_value(f"without[{number}]", f"must be the id of an edge, but {error}") from error
    return tuple(sorted(found))


def describe_rule(rule: PruningRule) -> AppliedRule:
    """Describes a rule whose metric is known."""
    assert rule.metric is not None, "the rule of a topology has its metric"
    without = [":".join(map(str, edge)) for edge in rule.without] or None
    names: dict[str, Any] = {f"{name}_threshold": getattr(rule.thresholds, name, None) for name in _THRESHOLDS}
    return describe(AppliedRule, rule, **names, without=without)


class TopologyQuery(RuleQuery):
    """What the graph shows."""

    pruned: bool = True
    """`true` lists what is kept; `false` lists everything that leads to the output, with `kept`."""
    through: str | None = None
    """Id of a node: only what leads to it and what it leads to is listed and drawn, by kept edges where `pruned` is
    `true`. The counts and the cost stay those of the whole network."""
    format: FormatParameter = None
    theme: ThemeParameter = "auto"
    color: Color = "score"
    """What makes an edge of the picture strong: a high `score`, in opacity, as pykan draws it, relative to the
    strongest of its layer, or a large `contribution`, in width."""
    curves: bool = True
    """Whether the picture has the function on each edge, where at most 300 are kept; otherwise edges are links."""
    width: Annotated[int | None, Field(ge=MIN_WIDTH, le=MAX_WIDTH)] = None
    """Width of the picture, pixels, in which its texts keep their size: the layers are rows from bottom to top, or
    columns from left to right where rows have no room; wider if it has too many layers. Absent: rows, as wide as they
    take."""


class FidelityQuery(OutputQuery):
    """Which curve of cost against size."""

    metric: Annotated[Metric, about("What the edges are ranked by; the weakest go first.")] = "contribution"
    fill: Fill = "mean"
    """What stands for a pruned edge: its `mean` on the reference windows, or `zero`."""


class FidelityInfo(TypedDict):
    """What pruning costs, on the reference windows."""

    r2: Annotated[float, about("R2 of the pruned outputs against the full model's.")]
    mae: Annotated[float | None, about("Mean absolute error of the pruned model, target's unit; null without targets.")]
    mae_full: float | None
    """Mean absolute error of the full model, target's unit; null without targets."""


class Count(TypedDict):
    """How many are kept, of how many."""

    kept: Annotated[int, about("How many the rule keeps.")]
    total: Annotated[int, about("How many lead to the output, pruned ones too.")]


class GraphInfo(OnReference):
    """What the graph is of."""

    output: Annotated[str, about("Name of the output.")]
    rule: AppliedRule
    fidelity: FidelityInfo
    nodes: Annotated[Count, about("Nodes, sub-nodes not counted.")]
    edges: Annotated[Count, about("Edges that hold functions (kind `edge`).")]
    reference_windows: Annotated[int, about("Windows that everything was measured on.")]
    scores_missing: NotRequired[Annotated[str, about("Why nodes and edges have no scores; absent where they have.")]]


class Scores(TypedDict):
    """pykan's scores: magnitudes in model units, unsigned, not percentages."""

    backward: Annotated[float, about("pykan's default score.")]
    forward_n: NotRequired[Annotated[float, about("Output over input spread; of edges only.")]]
    forward_u: NotRequired[Annotated[float, about("Output spread; of edges only.")]]


class LagShares(TypedDict):
    """The steps of the window at which a feature is read, as lags: 0 is the newest step, 1 the one before."""

    newest: int
    """The first lag of the shortest run of neighbouring ones that holds 80 % of the feature's share; of equally short
    runs, the one which holds most."""
    oldest: Annotated[int, about("The last lag of this run.")]
    shares: Annotated[list[float], about("Share of the feature at each lag, lag 0 first; they sum to its share.")]


class GraphNode(TypedDict):
    """A node: a feature, a unit of an LSTM or GRU, a cell of the window, an input or node of a layer, or an output."""

    id: str
    """`feature:{name}`, `front:{l}:{j}`, `lstm:{u}` or `gru:{u}`, `cell:{step}:{name}` where the head reads all steps,
    step 0 the newest, `head:{l}:{j}`, `output:{name}`; of a product node's factor `head:{l}:{j}.{m}`. In a graph
    `lstm:{r}:{u}` or `gru:{r}:{u}`, unit u of recurrent part r; `head:{l}:{j}`, output j of layer l - 1; and
    `glue:{l}:{i}`, input i of layer l, where operations between the layers compute it."""
    kind: Annotated[NodeKind, about("What it is.")]
    layer: Annotated[int, about("Its layer within its stage.")]
    index: Annotated[int, about("Its number within its layer.")]
    label: Annotated[str, about("A name for people.")]
    contribution: float | None
    """Mean |contribution| over the reference windows, target's unit; null for a sub-node."""
    interval: NotRequired[Annotated[Interval, about("Of that mean, 95 %; absent for a sub-node.")]]
    scores: NotRequired[Scores]
    profile: NotRequired[dict[str, float]]
    """Share of each feature in the node's own value, largest first; absent for features."""
    lags: NotRequired[dict[str, LagShares]]
    """When the node reads the features with the largest shares, at most 4. Absent for features and sub-nodes, nodes of
    a front, which read the step at which they are applied, a window of one step, and a model with more than 4 million
    nodes x features x steps."""
    reads: NotRequired[Annotated[str, about("The same in words: `hour_sin at lags 0 to 5, temp_c at lag 0`.")]]
    kept: Annotated[bool, about("Whether the rule keeps it.")]


class GraphEdge(TypedDict):
    """An edge: a function, or a way from a sub-node to its product node, from a feature to a unit, to an output."""

    source: Annotated[str, about("Id of the node it leaves.")]
    target: Annotated[str, about("Id of the node or sub-node it enters.")]
    kind: EdgeKind
    """`edge` holds a function; `product` joins a sub-node to its node; `input` joins a feature to a unit or a cell;
    `output` joins a node of the last layer to the output, where an output function stands between them; `link` joins
    two nodes of a graph of which one is computed from the other by operations between the layers, such as a skip."""
    stage: Literal["front", "lstm", "gru", "cell", "glue", "head", "output"]
    """Which part of the network it is of."""
    layer: Annotated[int, about("Layer of the node it leaves.")]
    i: Annotated[int, about("Number of the node it leaves.")]
    j: Annotated[int, about("Number of the sub-node it enters.")]
    space: Annotated[Literal["model"], about("Scores and opacity are in model units.")]
    contribution: float | None
    """Mean |contribution| over the reference windows, target's unit; null for kinds `product` and `input`, and for a
    `link` into a recurrent part or of a graph with more than 256 computed nodes."""
    interval: NotRequired[Annotated[Interval, about("Of that mean, 95 %; absent without a contribution.")]]
    share: NotRequired[Annotated[float, about("Share of the feature in the target's profile; only from a feature.")]]
    reads: NotRequired[str]
    """When its source reads which features, as `hour_sin at lags 0 to 5, temp_c at lag 0`; of an edge with a `share`,
    when the target reads the feature. Absent for kind `product`, and for an `edge` that leaves a feature."""
    scores: NotRequired[Scores]
    opacity: NotRequired[Annotated[float, about("tanh(3 x backward), as pykan draws the edge; 0 to 1.")]]
    outside_grid: NotRequired[float]
    """Share of its reference inputs outside the core of its grid; only where it has one."""
    masked: NotRequired[Annotated[bool, about("Whether the checkpoint itself masks it; only for kind `edge`.")]]
    kept: Annotated[bool, about("Whether the rule keeps it.")]


class TopologyResponse(TypedDict):
    """Node-link form: `networkx.node_link_graph(answer, edges="edges")` reads it."""

    directed: Annotated[bool, about("Edges have a direction.")]
    multigraph: Annotated[bool, about("No two edges join the same nodes.")]
    graph: GraphInfo
    nodes: Annotated[list[GraphNode], about("In the order of the data, features first.")]
    edges: Annotated[list[GraphEdge], about("Those of kind `edge` first.")]


class FidelityPointInfo(TypedDict):
    """What one number of edges costs, on the reference windows."""

    edges: Annotated[int, about("Edges that are kept; what is cut off from either side has gone too.")]
    r2: Annotated[float, about("R2 of the pruned outputs against the full model's.")]
    mae: Annotated[float | None, about("Mean absolute error of the pruned model, target's unit; null without targets.")]
    threshold: Annotated[float, about("Score, model units, at or below which edges went.")]


class FidelityCurve(OnReference):
    """Cost against size: where the curve bends is the size that pays."""

    output: Annotated[str, about("Name of the output.")]
    metric: Annotated[Metric, about("What the edges are ranked by.")]
    fill: Annotated[Fill, about("What stands for a pruned edge.")]
    reference_windows: Annotated[int, about("Windows that everything was measured on.")]
    curve: list[FidelityPointInfo]
    """From all edges that are not masked to none, or to where an output is not finite; of a large network not every
    number of edges, as they go in groups."""


def describe_topology(served: Served, topology: Topology, part: Topology, pruned: bool) -> TopologyResponse:
    """The graph of a part of what leads to the output; `pruned` leaves out what the rule does not keep."""
    whole, few = topology.upstream(), topology.reference_windows < MIN_INPUTS
    graph = describe(
        GraphInfo,
        topology,
        **describe_span(served),
        rule=describe_rule(topology.rule),
        nodes=_count([node.kept for node in whole.nodes if node.kind != "subnode"]),
        edges=_count([edge.kept for edge in whole.kan_edges]),
        scores_missing=f"scores need {MIN_INPUTS} reference windows, and there are fewer" if few else None,
    )
    nodes = [
        describe(
            GraphNode,
            node,
            scores=node.scores and dict(node.scores),
            profile=dict(node.profile) or None,
            lags=describe_lags(node.lags),
            reads=node.reads or None,
        )
        for node in part.nodes
        if node.kept or not pruned
    ]
    edges = []
    for edge in (one for one in part.edges if one.kept or not pruned):
        scores, masked = edge.scores and dict(edge.scores), edge.masked if edge.kind == "edge" else None
        reads = edge.reads or None
        edges.append(describe(GraphEdge, edge, space="model", scores=scores, masked=masked, reads=reads))
    return {"directed": True, "multigraph": False, "graph": graph, "nodes": nodes, "edges": edges}


def describe_lags(lags: Mapping[str, Lags]) -> dict[str, LagShares] | None:
    """The lags of the first features; None if there are none."""
    described = {}
    for name, of in islice(lags.items(), N_LAGGED):
        described[name] = describe(LagShares, of, shares=np.round(of.shares.astype(float), LAG_DIGITS).tolist())
    return described or None


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
        curve = [describe(FidelityPointInfo, one, r2=one.fidelity.r2, mae=one.fidelity.mae) for one in points]
        head, n = describe_span(served), len(served.model.reference)
        return answer_json(describe(FidelityCurve, asked, **head, output=output, reference_windows=n, curve=curve))

    return await call.make(answer)
