"""GET /v1/models/{model}/topology and its fidelity: the pruned network as a graph; the pruning rule in requests."""

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from kanmodel.errors import UnknownNameError
from kanmodel.model import Model
from kanmodel.structure.edges import TopologyEdge
from kanmodel.structure.pruning import Fidelity, FidelityPoint, PruningRule, Thresholds
from kanmodel.structure.questions import PruningParameters
from kanmodel.structure.topology import TopologyNode
from service.answers.forms import Answered
from service.answers.members import Closed, Color, CurveScale, FormatParameter, OutputQuery, ThemeParameter, about
from service.answers.reference import OnReference
from service.answers.table import THRESHOLDS, Fill, Metric
from service.wire.errors import invalid_value

# Named, so that generated clients have one type for each.


Threshold = Annotated[float | None, Field(ge=0)]


MIN_WIDTH, MAX_WIDTH = 240, 8000  # of a picture, pixels


MAX_WITHOUT = 500  # edges that a request names


class RuleMembers(Closed):
    """A pruning rule."""

    asks = PruningParameters

    metric: Metric | None = None
    fidelity: Annotated[float | None, Field(ge=0, le=1)] = None
    node_threshold: Threshold = None
    """Score that a hidden node must exceed, model units; 0.01 if another is given."""
    edge_threshold: Threshold = None
    """Score that an edge must exceed, model units; 0.03 if another is given."""
    input_threshold: Threshold = None
    """Score that an input must exceed, model units; 0.01 if another is given."""
    fill: Fill = "mean"
    without: Annotated[list[str] | None, Field(max_length=MAX_WITHOUT, fail_fast=True)] = None
    """Ids of edges that go in any case, `{stage}:{layer}:{i}:{j}`, such as `head:0:7:3`; what they alone connected goes
    with them. The fidelity that is asked for holds before that."""

    def rule(self, model: Model) -> PruningRule:
        """The pruning rule, for a model.

        Raises:
            DataError: both a fidelity and a threshold are given, or an edge does not exist.
        """
        without = _find_edges(model, self.without or [])
        thresholds = {name: getattr(self, f"{name}_threshold") for name in THRESHOLDS}
        given = {name: value for name, value in thresholds.items() if value is not None}
        if given and self.fidelity is not None:
            raise invalid_value("fidelity", f"and {next(iter(given))}_threshold are both given: give one")
        if given:
            return PruningRule(self.metric, None, Thresholds(**given), self.fill, without)
        fidelity = 0.99 if self.fidelity is None else self.fidelity
        return PruningRule(self.metric, fidelity, None, self.fill, without)


class RuleQuery(RuleMembers, OutputQuery):
    """Selects an output and a pruning rule."""


def _find_edges(model: Model, names: list[str]) -> tuple[tuple[str, int, int, int], ...]:
    """The edges of these names, sorted, each once; an error says which name is none."""
    found: set[tuple[str, int, int, int]] = set()
    for number, name in enumerate(names):
        try:
            found.update(model.find_edges([name]))
        except UnknownNameError as error:
            raise invalid_value(f"without[{number}]", f"must be the id of an edge, but {error}") from error
    return tuple(sorted(found))


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
    """What makes an edge of the picture strong: a high `score`, in its `opacity`, as pykan draws it, or a large
    `contribution`, in width."""
    scale: CurveScale = "layer"
    """Whether the curves of a `layer` of the picture have one y-scale, so that a flat curve looks flat, or each its
    `own`."""
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


class Count(TypedDict):
    """How many are kept, of how many."""

    kept: Annotated[int, about("How many the rule keeps.")]
    total: Annotated[int, about("How many lead to the output, pruned ones too.")]


class GraphInfo(OnReference):
    """What the graph is of."""

    output: Annotated[str, about("Name of the output.")]
    rule: Answered[PruningRule]
    fidelity: Answered[Fidelity]
    nodes: Annotated[Count, about("Nodes, sub-nodes not counted.")]
    edges: Annotated[Count, about("Edges that hold functions (kind `edge`).")]
    reference_windows: Annotated[int, about("Windows that everything was measured on.")]
    scores_missing: NotRequired[Annotated[str, about("Why nodes and edges have no scores; absent where they have.")]]


class TopologyResponse(TypedDict):
    """Node-link form: `networkx.node_link_graph(answer, edges="edges")` reads it."""

    directed: Annotated[bool, about("Edges have a direction.")]
    multigraph: Annotated[bool, about("No two edges join the same nodes.")]
    graph: GraphInfo
    nodes: Annotated[list[Answered[TopologyNode]], about("In the order of the data, features first.")]
    edges: Annotated[list[Answered[TopologyEdge]], about("Those of kind `edge` first.")]


class FidelityCurve(OnReference):
    """Cost against size: where the curve bends is the size that pays."""

    output: Annotated[str, about("Name of the output.")]
    metric: Annotated[Metric, about("What the edges are ranked by.")]
    fill: Annotated[Fill, about("What stands for a pruned edge.")]
    reference_windows: Annotated[int, about("Windows that everything was measured on.")]
    curve: list[Answered[FidelityPoint]]
    """From all edges that are not masked to none, or to where an output is not finite; of a large network not every
    number of edges, as they go in groups."""
