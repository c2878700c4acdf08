"""Explanations of forecasts, as :explain and the Open Inference Protocol answer them: computed part by part."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.attribution.ledger import MAX_TOLERANCE
from kanmodel.attribution.questions import ExplanationQuestion
from kanmodel.monitoring.trust import WindowTrust
from kanmodel.tables.inputs import InputValue
from service.answers.forecasts import Predictions
from service.answers.forms import Answered
from service.answers.members import Answer, AskAdaptation, Checkpoint, Closed, InputHash, LibraryVersions, Whole, about
from service.answers.windows import AskTrust, OfWindows, PredictionInterval, Windows

Detail = TypeAliasType("Detail", Literal["features", "steps", "flow", "links"])


class EdgeContribution(TypedDict):
    """The contribution of one edge."""

    i: Annotated[int, about("Index of the source node.")]
    j: Annotated[int, about("Index of the target sub-node, in the next layer.")]
    contribution: Annotated[float, about("Its contribution, in the target's unit.")]
    y: NotRequired[float]
    """The value of its function at the node's value, as `y` of the edge's curve; absent if there is none."""


class AroundContribution(TypedDict):
    """What flows around a layer of a graph, such as a skip or what undoes a normalisation of the window."""

    source: Annotated[str, about("What it comes from: `window`, or layers by stage and index, joined by ` + `.")]
    contribution: Annotated[float, about("Its contribution, in the target's unit.")]


class LayerContributions(TypedDict):
    """Contributions of one layer: of its nodes or its edges, each with what flows around it.

    They sum to prediction - baseline_prediction, but for those of a layer `inside` a loop, which are summed over its
    steps. A graph has one such layer for each of its KAN layers, whose nodes are its inputs, and for each recurrent
    layer and loop, whose nodes are its units.

    With detail `links`, the features of a chain with a recurrent layer, or the last nodes of its front, have edges to
    the units: over the units they sum to the feature's contribution, over the features to the unit's.
    """

    stage: Annotated[
        Literal["input", "front", "lstm", "gru", "loop", "cell", "head", "output"], about("Part of the network.")
    ]
    layer: Annotated[int, about("Index of the layer within its stage.")]
    nodes: NotRequired[Annotated[list[float], about("Contribution of each node; absent if another stage lists them.")]]
    edges: NotRequired[list[EdgeContribution]]
    """Contributions of the edges from this layer, by i, then j; absent if there are none."""
    values: NotRequired[list[float]]
    """Of each node the value at which the curves of its edges are read, as `x` of these curves (model units); of a
    front at the newest step. Absent if the edges have no curves, and of a layer that a graph evaluates several times.
    """
    inside: NotRequired[Annotated[bool, about("Whether it is inside a loop; absent if not.")]]
    around: NotRequired[list[AroundContribution]]
    """What flows around the layer of a graph; absent if nothing does."""


class Effect(TypedDict):
    """What one feature does to a forecast, in the target's unit (feature ablation); both are differences of forecasts.

    For a feature that acts on its own both equal its contribution. `removed - alone` says how much it acts together
    with others. Neither sums to F(x) - F(x0).
    """

    removed: Annotated[float, about("The loss by removal: F(x) - F(x with the feature at x0).")]
    alone: Annotated[float, about("The effect alone: F(x0 with the feature at x) - F(x0).")]


class StepEffects(TypedDict):
    """The same for each step of each feature, lookback x n_features, oldest step first."""

    removed: Annotated[list[list[float]], about("F(x) - F(x with that cell at x0).")]
    alone: Annotated[list[list[float]], about("F(x0 with that cell at x) - F(x0).")]


class Explanation(TypedDict):
    """The ledger of one instance and one output, in the target's unit."""

    instance: Annotated[int, about("Index of the instance.")]
    output: Annotated[str, about("Name of the output.")]
    prediction: Annotated[float, about("The forecast F(x); of a bound or a width, that.")]
    intervals: NotRequired[list[PredictionInterval]]
    """Of the forecast, by level, ascending; absent of a bound or a width, and without intervals."""
    usual_width: NotRequired[Annotated[float, about("Median over the reference windows; only of a width.")]]
    baseline_prediction: float
    """The forecast of the baseline, F(x0); the mean over several baselines."""
    contributions: dict[str, float]
    """Contribution of each feature, over all steps; they sum to F(x) - F(x0) (completeness)."""
    contributions_by_group: NotRequired[dict[str, dict[str, float]]]
    """Of each group, and of each feature that is in none, in each segment; without `segments` in `all steps`. Only
    where there are groups or segments."""
    steps: NotRequired[list[list[float]]]
    """lookback x n_features, oldest step first; for all details but `features`."""
    effects: NotRequired[Annotated[dict[str, Effect], about("Of each feature; only where asked for.")]]
    effects_by_group: NotRequired[dict[str, dict[str, Effect]]]
    """Of what `contributions_by_group` is of, in the same form; with `effects`."""
    step_effects: NotRequired[StepEffects]
    """Of each cell; with `effects`, for all details but `features`."""
    shapley: NotRequired[dict[str, dict[str, float]]]
    """Shapley value of each outermost group, and of each feature without a group, in each segment, in the form of
    `contributions_by_group`. A contribution is what a part adds as all parts move from the baseline to the window
    together; a Shapley value is what it adds on average over the orders in which the parts change one after another.
    They sum to F(x) - F(x0) too. Only where asked for."""
    shapley_standard_error: NotRequired[dict[str, dict[str, float]]]
    """Standard error of each of them: of the random orders, or over several baselines; 0 where all coalitions of one
    baseline were forecast."""
    layers: NotRequired[list[LayerContributions]]
    """In the order input, front, lstm or gru or cell, head, output; only for detail `flow` and `links`."""
    residual: float
    """Largest deviation of a layer's sum from F(x) - F(x0), or of a KAN node from in = out (Captum: convergence
    delta); only with detail `flow` and `links` there are other layers than the input."""
    error: float
    """Largest estimated error of any contribution of `detail`; not below the residual."""
    detail: Detail
    """The contributions on whose errors `error` and `converged` stand: as requested, and `steps` at least where there
    are `segments`."""
    tolerance: Annotated[float, about("The bound on residual and error, in the target's unit.")]
    converged: bool
    """Whether both are within the tolerance, and no node of the network jumps between two neighbouring points of the
    path."""
    path_nodes: Annotated[int, about("Number of nodes of the integration path.")]
    standard_error: dict[str, float] | None
    """Standard error of each feature's contribution, for baseline `reference`; otherwise null."""


Method = TypeAliasType("Method", Literal["integrated_gradients", "expected_gradients"])


BaselineKind = TypeAliasType("BaselineKind", Literal["mean", "zero", "reference", "values", "instance"])


BaselineName = TypeAliasType("BaselineName", Literal["mean", "zero", "reference"])


Number = Annotated[float, Field(strict=True)]


_Groups = dict[str, Annotated[list[str], Field(min_length=1)]]


_Segments = dict[str, Annotated[list[int], Field(min_length=2, max_length=2)]]


def _read_kind(value: Any) -> Any:
    """A baseline that is named by its kind alone."""
    return {"kind": value} if isinstance(value, str) else value


class Baseline(Closed):
    """What windows are compared with, in original units. An answer states the one that was used."""

    kind: BaselineKind | None = None
    """`mean`, each feature's mean over the reference windows; `zero`, its training mean; `reference`, the average of
    the explanations over drawn reference windows (expected gradients); `values`, given ones; `instance`, another
    window: why has the forecast changed? Absent: that of the member that is given, or `mean`."""
    reference: Annotated[Whole | None, Field(ge=2, strict=True)] = None
    """Number of reference windows to draw; only for `reference`, by default 32, or all if there are fewer."""
    seed: Annotated[Whole | None, about("Seed of the draw; only for `reference`.", ge=0, strict=True)] = None
    values: dict[str, Number] | None = None
    """The value of each feature at every step; in a request only for `values`. In an answer also those of `mean` and
    `zero`, and of `reference` the means over windows and steps."""
    values_by_step: dict[str, list[Number]] | None = None
    """In place of `values` of some or all features, one value for each step, oldest step first."""
    instance: Annotated[list[list[Number]] | None, about("lookback x n_features, oldest step first.")] = None


class ExplainRequest(Windows):
    """Windows to explain, in one of three forms, and the options of the explanation."""

    asks = ExplanationQuestion
    output: list[str] | None = None
    """Names of outputs, or `["all"]`; optional if the model has one. Of a model with intervals also a bound or a width
    of one, such as `load+24:lower@0.8`, `load+24:upper@0.8` or `load+24:width@0.8`. A single name may stand as it is:
    `"load+24"`."""
    detail: Detail = "features"
    """`features` for totals; `steps` for steps x features too; `flow` for every layer's nodes and edges as well;
    `links` also for edges from features to the units of a recurrent layer, which takes 3 to 7 times as long."""
    baseline: Annotated[Baseline | None, BeforeValidator(_read_kind)] = None
    """The baseline of the path, by default `mean`. A kind that needs nothing else may stand as it is: `"zero"`."""
    groups: _Groups | None = None
    """Features that mean one thing, whose contributions are summed in `contributions_by_group`: `{"hour": ["hour_sin",
    "hour_cos"]}`. A member may be another group; each is in one at most. Absent: those of the checkpoint; null:
    none."""
    segments: _Segments | None = None
    """Steps whose contributions are summed, by their first and last, 0 the newest: `{"last six hours": [-5, 0]}`. They
    may not overlap. Steps that are in none are entries of their own, such as `other steps -23 to -6`."""
    tolerance: Annotated[float, Field(gt=0, le=MAX_TOLERANCE, strict=True)] = ExplanationQuestion.tolerance
    effects: Annotated[bool, Field(strict=True)] = False
    """Whether each explanation has `effects` too: what the forecast loses without each feature, and what each does
    alone; with other details than `features` also `step_effects`. 2 forecasts for each instance, output, baseline and
    feature, or cell, which count as path nodes in `max_path_nodes`."""
    method: Literal["path", "shapley"] = "path"
    orders: Annotated[Whole, Field(ge=4, multiple_of=2, strict=True)] = ExplanationQuestion.orders
    seed: Annotated[Whole, Field(ge=0, strict=True)] = ExplanationQuestion.seed
    receipt: Annotated[bool, Field(strict=True)] = False
    """Whether to include a `receipt`, from which `kanscope explain --receipt` repeats the answer."""
    adaptation: AskAdaptation = None
    trust: AskTrust = False
    progress: Annotated[bool, Field(strict=True)] = False
    """Whether lines such as `{"progress": {"done": 32, "total": 96, "slices": 7}}` come between the explanations, one
    after each slice of work: how many explanations are computed, of how many, and how many slices that took. Only with
    `Accept: application/x-ndjson`."""


class ShapleyOrders(TypedDict):
    """The random orders of the parts, from which Shapley values of more than 12 parts are."""

    count: Annotated[int, about("Their number, half of them the reverse of the others.")]
    seed: Annotated[int, about("Seed of the draw.")]


class Receipt(TypedDict):
    """What `kanscope explain --receipt` needs, besides the windows, to reproduce an answer."""

    checkpoint: Checkpoint
    versions: LibraryVersions
    input: InputHash
    method: Method
    """`integrated_gradients` along the straight path from one baseline, or `expected_gradients`, their mean over
    several; units, nodes and edges by conductance along the same path."""
    output: Annotated[list[str], about("The explained outputs.")]
    detail: Annotated[Detail, about("Level of detail.")]
    effects: NotRequired[Annotated[bool, about("True if effects were requested.")]]
    shapley: NotRequired[Annotated[ShapleyOrders, about("The random orders, if Shapley values were requested.")]]
    baseline: Baseline
    groups: Annotated[_Groups, about("Groups of features whose contributions are summed; may be empty.")]
    segments: _Segments
    """Segments of steps whose contributions are summed, with those of steps that no given one holds; may be empty."""
    tolerance: Annotated[float, about("Largest accepted residual and error, in standard deviations of the output.")]
    path_nodes: Annotated[int, Field(ge=5)]
    """Nodes of the path to begin with, positions of a Clenshaw-Curtis rule: a multiple of 4, and one."""
    halvings: Annotated[int, about("Most bisections of any part of a path.", ge=0)]


class ExplainHeader(Answer, OfWindows):
    """What all explanations of a request share; the first line of an NDJSON answer."""

    output: Annotated[list[str], about("The explained outputs.")]
    unit: Annotated[list[str], about("The unit of each; empty if unknown.")]
    baseline: Baseline
    predictions: Predictions
    values: NotRequired[list[list[Answered[InputValue]]]]
    """Of each instance, the values of the model's `inputs` at the newest step; absent where it is recorded."""
    receipt: NotRequired[Annotated[Receipt, about("Only if requested.")]]
    trust: NotRequired[Annotated[list[Answered[WindowTrust]], about("Of each instance; only if requested.")]]


class ExplainResponse(ExplainHeader):
    """The explanations of a request."""

    explanations: list[Explanation]
    """One per instance; with several outputs, one per instance and output."""
