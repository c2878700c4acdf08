"""GET /v1/models/{model}/edges and one of them: the functions on the edges of a KAN."""

from typing import Annotated

from pydantic import Field

from kanmodel.structure.curves import Edge
from kanmodel.structure.pruning import PruningRule
from service.answers.forms import Answered, join
from service.answers.members import Closed, FormatParameter, ThemeParameter, Whole, about
from service.answers.reference import OnReference
from service.answers.table import CurveRange, Stage
from service.answers.topology import MAX_WIDTH, MIN_WIDTH, RuleQuery

N_FORMULAS = 5


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


class EdgeContext(OnReference):
    """Members that all answers about edges share."""

    output: Annotated[str, about("Name of the output that contributions and `kept` are about.")]
    rule: Answered[PruningRule]


EdgeResponse = join("EdgeResponse", EdgeContext, Answered[Edge])


class EdgeList(EdgeContext):
    """The edges that the rule keeps."""

    edges: list[Answered[Edge]]


class EdgePath(Closed):
    """Which edge."""

    layer: Annotated[int, about("Layer of the edge's source node.")]
    i: Annotated[int, about("Index of that node.")]
    j: Annotated[int, about("Index of the target sub-node, in the next layer.")]
