"""The network as a graph, in the node-link form that networkx reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from kanmodel.explain.pruning import Fidelity, FidelityPoint
from kanmodel.explain.scores import MIN_INPUTS
from kanmodel.explain.structure import NodeKind
from kanmodel.explain.topology import EdgeKind, Topology, TopologyEdge, TopologyNode
from service.models.registry import Served
from service.schemas.closed import OutputQuery
from service.schemas.models import Checkpoint, Interval, Name, Version
from service.schemas.pictures import Color, FormatParameter, ThemeParameter
from service.schemas.reference import OnReference, describe_span
from service.schemas.rules import Fill, Metric, Rule, RuleQuery, describe_rule


class TopologyQuery(RuleQuery):
    """What the graph shows."""

    pruned: Annotated[
        bool,
        Field(description="`true` lists what is kept; `false` lists everything that leads to the output, with `kept`."),
    ] = True
    through: Annotated[
        str | None,
        Field(
            description="Id of a node: only what leads to it and what it leads to is listed and drawn, by kept edges "
            "where `pruned` is `true`. The counts and the cost stay those of the whole network."
        ),
    ] = None
    format: FormatParameter = None
    theme: ThemeParameter = "auto"
    color: Annotated[
        Color,
        Field(
            description="What makes an edge of the picture strong: a high `score`, in opacity, as pykan draws it, or a "
            "large `contribution`, in width."
        ),
    ] = "score"


class FidelityQuery(OutputQuery):
    """Which curve of cost against size."""

    metric: Annotated[Metric, Field(description="What the edges are ranked by; the weakest go first.")] = "contribution"
    fill: Annotated[
        Fill,
        Field(description="What stands for a pruned edge: its `mean` on the reference windows, or `zero`."),
    ] = "mean"


class FidelityInfo(TypedDict):
    """What pruning costs, on the reference windows."""

    r2: Annotated[float, Field(description="R2 of the pruned outputs against the full model's.")]
    mae: Annotated[
        float | None,
        Field(description="Mean absolute error of the pruned model, target's unit; null without targets."),
    ]
    mae_full: Annotated[
        float | None,
        Field(description="Mean absolute error of the full model, target's unit; null without targets."),
    ]


class Count(TypedDict):
    """How many are kept, of how many."""

    kept: Annotated[int, Field(description="How many the rule keeps.")]
    total: Annotated[int, Field(description="How many lead to the output, pruned ones too.")]


class GraphInfo(OnReference):
    """What the graph is of."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint
    output: Annotated[str, Field(description="Name of the output.")]
    rule: Rule
    fidelity: FidelityInfo
    nodes: Annotated[Count, Field(description="Nodes, sub-nodes not counted.")]
    edges: Annotated[Count, Field(description="Edges that hold functions (kind `edge`).")]
    reference_windows: Annotated[int, Field(description="Windows that everything was measured on.")]
    scores_missing: NotRequired[
        Annotated[str, Field(description="Why nodes and edges have no scores; absent where they have.")]
    ]


class Scores(TypedDict):
    """pykan's scores: magnitudes in model units, unsigned, not percentages."""

    backward: Annotated[float, Field(description="pykan's default score.")]
    forward_n: NotRequired[Annotated[float, Field(description="Output over input spread; of edges only.")]]
    forward_u: NotRequired[Annotated[float, Field(description="Output spread; of edges only.")]]


class GraphNode(TypedDict):
    """A node: a feature, a unit of an LSTM or GRU, a cell of the window, a node or sub-node, or an output."""

    id: Annotated[
        str,
        Field(
            description="`feature:{name}`, `front:{l}:{j}`, `lstm:{u}` or `gru:{u}`, `cell:{step}:{name}` where the "
            "head reads all steps, step 0 the newest, `head:{l}:{j}`, `output:{name}`; of a product node's factor "
            "`head:{l}:{j}.{m}`."
        ),
    ]
    kind: Annotated[NodeKind, Field(description="What it is.")]
    layer: Annotated[int, Field(description="Its layer within its stage.")]
    index: Annotated[int, Field(description="Its number within its layer.")]
    label: Annotated[str, Field(description="A name for people.")]
    contribution: Annotated[
        float | None,
        Field(description="Mean |contribution| over the reference windows, target's unit; null for a sub-node."),
    ]
    interval: NotRequired[Annotated[Interval, Field(description="Of that mean, 95 %; absent for a sub-node.")]]
    scores: NotRequired[Scores]
    profile: NotRequired[
        Annotated[
            dict[str, float],
            Field(description="Share of each feature in the node's own value, largest first; absent for features."),
        ]
    ]
    kept: Annotated[bool, Field(description="Whether the rule keeps it.")]


class GraphEdge(TypedDict):
    """An edge: a function, or a way from a sub-node to its product node, from a feature to a unit, to an output."""

    source: Annotated[str, Field(description="Id of the node it leaves.")]
    target: Annotated[str, Field(description="Id of the node or sub-node it enters.")]
    kind: Annotated[
        EdgeKind,
        Field(
            description="`edge` holds a function; `product` joins a sub-node to its node; `input` joins a feature to "
            "a unit or a cell; `output` joins a node of the last layer to the output, where an output function stands "
            "between them."
        ),
    ]
    stage: Annotated[
        Literal["front", "lstm", "gru", "cell", "head", "output"],
        Field(description="Which part of the network it is of."),
    ]
    layer: Annotated[int, Field(description="Layer of the node it leaves.")]
    i: Annotated[int, Field(description="Number of the node it leaves.")]
    j: Annotated[int, Field(description="Number of the sub-node it enters.")]
    space: Annotated[Literal["model"], Field(description="Scores and opacity are in model units.")]
    contribution: Annotated[
        float | None,
        Field(
            description="Mean |contribution| over the reference windows, target's unit; null but for kinds `edge` and "
            "`output`."
        ),
    ]
    interval: NotRequired[
        Annotated[Interval, Field(description="Of that mean, 95 %; only for kinds `edge` and `output`.")]
    ]
    share: NotRequired[
        Annotated[float, Field(description="Share of the feature in the unit's profile; only for kind `input`.")]
    ]
    scores: NotRequired[Scores]
    opacity: NotRequired[Annotated[float, Field(description="tanh(3 x backward), as pykan draws the edge; 0 to 1.")]]
    outside_grid: NotRequired[
        Annotated[
            float,
            Field(description="Share of its reference inputs outside the core of its grid; only where it has one."),
        ]
    ]
    masked: NotRequired[
        Annotated[bool, Field(description="Whether the checkpoint itself masks it; only for kind `edge`.")]
    ]
    kept: Annotated[bool, Field(description="Whether the rule keeps it.")]


class TopologyResponse(TypedDict):
    """Node-link form: `networkx.node_link_graph(answer, edges="edges")` reads it."""

    directed: Annotated[Literal[True], Field(description="Edges have a direction.")]
    multigraph: Annotated[Literal[False], Field(description="No two edges join the same nodes.")]
    graph: GraphInfo
    nodes: Annotated[list[GraphNode], Field(description="In the order of the data, features first.")]
    edges: Annotated[list[GraphEdge], Field(description="Those of kind `edge` first.")]


class FidelityPointInfo(TypedDict):
    """What one number of edges costs, on the reference windows."""

    edges: Annotated[int, Field(description="Edges that are kept; what is cut off from either side has gone too.")]
    r2: Annotated[float, Field(description="R2 of the pruned outputs against the full model's.")]
    mae: Annotated[
        float | None,
        Field(description="Mean absolute error of the pruned model, target's unit; null without targets."),
    ]
    threshold: Annotated[float, Field(description="Score, model units, at or below which edges went.")]


class FidelityCurve(OnReference):
    """Cost against size: where the curve bends is the size that pays."""

    model_name: Name
    version: Version
    checkpoint: Checkpoint
    output: Annotated[str, Field(description="Name of the output.")]
    metric: Annotated[Metric, Field(description="What the edges are ranked by.")]
    fill: Annotated[Fill, Field(description="What stands for a pruned edge.")]
    reference_windows: Annotated[int, Field(description="Windows that everything was measured on.")]
    curve: Annotated[
        list[FidelityPointInfo],
        Field(
            description="From all edges that are not masked to none, or to where an output is not finite; of a large "
            "network not every number of edges, as they go in groups."
        ),
    ]


def describe_fidelity(fidelity: Fidelity) -> FidelityInfo:
    """What pruning costs."""
    return {"r2": fidelity.r2, "mae": fidelity.mae, "mae_full": fidelity.mae_full}


def describe_fidelity_curve(
    served: Served, output: int, query: FidelityQuery, points: Iterable[FidelityPoint]
) -> FidelityCurve:
    """The curve that a query asks for."""
    return {
        "model_name": served.name,
        "version": served.version,
        "checkpoint": served.checkpoint,
        **describe_span(served),
        "output": served.model.config.outputs[output],
        "metric": query.metric,
        "fill": query.fill,
        "reference_windows": len(served.model.reference),
        "curve": [
            {
                "edges": point.edges,
                "r2": point.fidelity.r2,
                "mae": point.fidelity.mae,
                "threshold": point.threshold,
            }
            for point in points
        ],
    }


def describe_topology(served: Served, topology: Topology, part: Topology, pruned: bool) -> TopologyResponse:
    """The graph of a part of what leads to the output; `pruned` leaves out what the rule does not keep."""
    return {
        "directed": True,
        "multigraph": False,
        "graph": _describe_graph(served, topology.upstream()),
        "nodes": [_describe_node(node) for node in part.nodes if node.kept or not pruned],
        "edges": [_describe_edge(edge) for edge in part.edges if edge.kept or not pruned],
    }


def _describe_graph(served: Served, topology: Topology) -> GraphInfo:
    described: GraphInfo = {
        "model_name": served.name,
        "version": served.version,
        "checkpoint": served.checkpoint,
        **describe_span(served),  # type: ignore[typeddict-item]  # not required
        "output": topology.output,
        "rule": describe_rule(topology.rule),
        "fidelity": describe_fidelity(topology.fidelity),
        "nodes": _count(node for node in topology.nodes if node.kind != "subnode"),
        "edges": _count(topology.kan_edges),
        "reference_windows": topology.reference_windows,
    }
    if topology.reference_windows < MIN_INPUTS:
        described["scores_missing"] = f"scores need {MIN_INPUTS} reference windows, and there are fewer"
    return described


def _count(parts: Iterable[TopologyNode | TopologyEdge]) -> Count:
    kept = [part.kept for part in parts]
    return {"kept": sum(kept), "total": len(kept)}


def _describe_node(node: TopologyNode) -> GraphNode:
    described: GraphNode = {
        "id": node.id,
        "kind": node.kind,
        "layer": node.layer,
        "index": node.index,
        "label": node.label,
        "contribution": node.contribution,
        "kept": node.kept,
    }
    if node.interval is not None:
        described["interval"] = list(node.interval)
    if node.scores is not None:
        described["scores"] = Scores(**node.scores)  # type: ignore[typeddict-item]
    if node.profile:
        described["profile"] = dict(node.profile)
    return described


def _describe_edge(edge: TopologyEdge) -> GraphEdge:
    described: GraphEdge = {
        "source": edge.source,
        "target": edge.target,
        "kind": edge.kind,
        "stage": edge.stage,  # type: ignore[typeddict-item]
        "layer": edge.layer,
        "i": edge.i,
        "j": edge.j,
        "space": "model",
        "contribution": edge.contribution,
        "kept": edge.kept,
    }
    if edge.kind == "edge":
        described["masked"] = edge.masked
    if edge.interval is not None:
        described["interval"] = list(edge.interval)
    if edge.outside_grid is not None:
        described["outside_grid"] = edge.outside_grid
    if edge.share is not None:
        described["share"] = edge.share
    if edge.scores is not None:
        described["scores"] = Scores(**edge.scores)  # type: ignore[typeddict-item]
    if edge.opacity is not None:
        described["opacity"] = edge.opacity
    return described
