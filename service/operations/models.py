"""GET /v1/models and one of them: its versions, architecture and origin, and whether it is ready."""

from typing import Annotated, Any, Literal, NotRequired

from fastapi import Response
from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.network import intervals
from kanmodel.network.bases import BASES, BSpline
from kanmodel.network.config import BASE_FUNCTIONS, LayerConfig, Layers, ModelConfig, Readout, width_of
from kanmodel.network.functions import ACTIVATIONS
from kanmodel.tables.instants import DAY
from service.models.registry import NO_VERSIONS, Entry, ModelVersions, Served, State
from service.models.repository import Choice
from service.operations.members import Checkpoint, Name, Version, about, describe
from service.operations.route import MODEL, Call, Operation
from service.wire.json import answer_json

MAX_NAMES = 100  # of series
_MONTH = 30.436875 * DAY  # a mean one
_SECONDS = {"second": 1.0, "day": DAY, "month": _MONTH, "month end": _MONTH}
IntervalsKind = TypeAliasType("IntervalsKind", intervals.Kind)
ReadoutOf = Annotated[
    Readout, about("Input of the head: the `last` step, the `mean` over the steps, or all steps, `flatten`.")
]


class VersionSummary(TypedDict):
    """A version of a model and its state."""

    version: Version
    state: Annotated[State, about("`loading`, `ready`, `failed`, or `unloaded` by command.")]
    ready: Annotated[bool, about("Whether it is ready.")]
    loaded: Annotated[bool, about("Whether it is in memory; otherwise the next request that needs it waits for that.")]
    checkpoint: Annotated[Checkpoint | None, about("Identity of the checkpoint; null if none is ready.")]
    reason: NotRequired[str]
    """Why its file cannot be loaded; where it was replaced while it served, what served before goes on."""
    prepared: Annotated[bool, about("Whether its global results were read beside the checkpoint.")]
    unprepared: NotRequired[str]
    """Why they are computed instead; absent as long as the model was not in memory."""


Versions = Annotated[list[VersionSummary], about("All versions, highest first.")]


class ChosenInfo(TypedDict):
    """The choice of `versions.json` that is followed, for requests that name no version."""

    default: Annotated[str | None, about("Version that answers; null: the highest ready of those not tried.")]
    canary: Annotated[dict[str, float], about("Share of the requests with windows that a version answers instead.")]
    shadow: Annotated[dict[str, float], about("Share that a version forecasts too, to be counted only.")]
    problem: NotRequired[str]
    """Why the file as it is now is not followed, but the last choice that was valid."""


Chosen = Annotated[ChosenInfo, about("Absent if nothing was chosen.")]


class ModelSummary(VersionSummary):
    """A model, described by its default version: the one that is chosen, or else the highest that is ready."""

    name: Name
    versions: Versions
    chosen: NotRequired[Chosen]


class ModelList(TypedDict):
    """All models of the folder, failed ones included."""

    models: Annotated[list[str], about("Names of the models.")]
    details: Annotated[list[ModelSummary], about("A summary of each, in the same order.")]
    problem: NotRequired[str]
    """Why they may not be those that the folder or the store has by now, such as an outage of it; absent if all is
    well."""


ColumnTitle = Annotated[str, about("What it is, as a noun phrase for sentences; absent if it has only its name.")]


class FeatureInfo(TypedDict):
    """One input column, with statistics of its training values, in its own unit."""

    name: Annotated[str, about("Name of the column.")]
    unit: Annotated[str | None, about("Its unit, for display; null if unknown.")]
    title: NotRequired[ColumnTitle]
    mean: Annotated[float, about("Mean over the training rows.")]
    std: Annotated[float, about("Standard deviation over the training rows; 0 for a constant column.")]
    min: Annotated[float | None, about("Smallest training value; null if unknown.")]
    max: Annotated[float | None, about("Largest training value; null if unknown.")]
    integer: Annotated[bool, about("Whether its values are integers.")]
    fixed: Annotated[bool, about("Whether it cannot be changed, such as a calendar feature.")]


class TargetInfo(TypedDict):
    """One forecast column, or one class."""

    name: Annotated[str, about("Name of the column.")]
    unit: Annotated[str | None, about("Unit of predictions and contributions; null if unknown.")]
    title: NotRequired[ColumnTitle]


class BasisInfo(TypedDict):
    """The basis of the functions on a layer's edges, with its options."""

    kind: Annotated[str, about("Name of the basis.", json_schema_extra={"enum": list(BASES)})]
    grid_size: NotRequired[Annotated[int, about("Grid intervals; of `bspline`.")]]
    order: NotRequired[Annotated[int, about("Order of the splines; 3 is cubic; of `bspline`.")]]
    centres: NotRequired[Annotated[int, about("Number of radial functions; of `gaussian` and `sech2`.")]]
    denominator: NotRequired[Annotated[float, about("Width of a radial function; of `gaussian` and `sech2`.")]]
    degree: NotRequired[Annotated[int, about("Highest degree of the polynomials; of `chebyshev`.")]]
    frequencies: NotRequired[Annotated[int, about("Number of frequencies; of `fourier`.")]]


class LayerInfo(TypedDict):
    """One layer; a Linear layer is one whose basis is `line`."""

    basis: BasisInfo
    base_activation: Annotated[str, Field(json_schema_extra={"enum": list(BASE_FUNCTIONS)})]
    """Activation added to the basis; `zero` for none."""
    before: Annotated[
        list[str],
        Field(json_schema_extra={"items": {"type": "string", "enum": ["affine", "layer_norm", *ACTIVATIONS]}}),
    ]
    """Operations on the nodes' values before the edges, in order."""


class LayersInfo(TypedDict):
    """Layers in a row, each a Kolmogorov-Arnold layer."""

    width: list[int]
    """Nodes per layer, inputs first; where there are product nodes, these come last in their layer: as many as
    `mult_arity` lists for it."""
    layers: Annotated[list[LayerInfo], about("Each layer of edges, first to last.")]
    grid_size: NotRequired[Annotated[int, about("Grid intervals; only if all layers are B-splines with as many.")]]
    spline_order: NotRequired[Annotated[int, about("Order of the splines; only if all layers have the same.")]]
    base_activation: NotRequired[str]
    """Activation added to the basis; only if all layers have the same."""
    mult_arity: NotRequired[list[list[int]]]
    """Factors of each product node, by layer; only if there are any."""


class RecurrentInfo(TypedDict):
    """The LSTM or GRU before the head."""

    hidden_size: Annotated[int, about("Units per direction.")]
    num_layers: Annotated[int, about("Stacked layers.")]
    bidirectional: Annotated[bool, about("Whether a second direction reads the window backwards.")]
    readout: ReadoutOf


class NodeInfo(TypedDict):
    """One operation of a graph."""

    op: Annotated[str, about("Its name; `layer` number k is layer k of the head.")]
    inputs: Annotated[list[int], about("Indices of the nodes that it reads, all before it.")]
    shape: Annotated[list[int], about("Shape of its values for one window.")]


class Architecture(TypedDict):
    """The network: [front per step] -> [LSTM or GRU] -> readout -> head -> [output function], or a graph."""

    front: Annotated[LayersInfo | None, about("Layers on the features of each step; null if there are none.")]
    lstm: Annotated[RecurrentInfo | None, about("The LSTM; null without one.")]
    gru: Annotated[RecurrentInfo | None, about("The GRU; null without one.")]
    readout: ReadoutOf
    head: Annotated[LayersInfo, about("The layers that compute the forecasts.")]
    output_function: Annotated[
        str | None,
        Field(json_schema_extra={"anyOf": [{"enum": ["softmax", *ACTIVATIONS], "type": "string"}, {"type": "null"}]}),
    ]
    """Function of the last layer's nodes; null for none."""
    graph: NotRequired[list[NodeInfo]]
    """The operations of a graph, in the order of the computation, which its head's layers have too, without a `width`;
    absent for a chain."""


class ColumnInfo(TypedDict):
    """A column of a table, as people have it."""

    name: Annotated[str, about("Name of the column.")]
    levels: Annotated[list[str], about("The texts that it may hold; empty for numbers.")]
    later: Annotated[int, about("Rows later at which its value is taken, as its future is known; otherwise 0.")]
    features: Annotated[list[str], about("The features that it becomes.")]


class TimeInfo(TypedDict):
    """The times of the rows that the model was trained on."""

    name: Annotated[str, about("Name of the column.")]
    step: float
    """Usual time from row to row: seconds, of months those of a mean one; or of numbers their own unit."""
    max_step: Annotated[float, about("Longest step that is not a gap, in usual steps.")]
    dated: Annotated[bool, about("Whether they are dates; else numbers.")]


class SeriesInfo(TypedDict):
    """The series that the model was trained on."""

    column: Annotated[str, about("Name of the column that says of which series a row is.")]
    columns: Annotated[list[str], about("Of a wide table, those of the target, one for each series; else empty.")]
    count: Annotated[int, about("Number of series.")]
    names: Annotated[list[str], about(f"Their names, at most {MAX_NAMES}.")]


class TableInfo(TypedDict):
    """How the columns of a table become the features of the model, in training and in requests."""

    columns: Annotated[list[ColumnInfo], about("The columns that are read.")]
    rows: Annotated[int, about("Rows that one window needs: the lookback, and the known ones after it.")]
    calendar: Annotated[list[str], about("Parts of the calendar that are features, for which times are needed.")]
    holidays: Annotated[str | None, about("Country of the public holidays; null without.")]
    step: Annotated[str | None, about("Usual time from row to row in words, `1 business day`; null without times.")]
    zone: Annotated[str | None, about("Time zone of times without an offset; null for UTC.")]
    series: NotRequired[Annotated[SeriesInfo, about("The series; absent of a model of one.")]]
    fill: str | None
    """How missing values are filled: `forward`, `linear`, or a number; null if they are not, and null is refused."""
    max_fill: Annotated[int | None, about("Most rows without a value, one after another, that are filled.")]


class CalibrationInfo(TypedDict):
    """The windows by which intervals were calibrated, on which nothing was fitted."""

    windows: Annotated[int, about("Their number.")]
    first: Annotated[str | None, about("Time stamp of the first; null if unknown.")]
    last: Annotated[str | None, about("That of the last.")]


class IntervalsInfo(TypedDict):
    """The prediction intervals of a model, whose bounds and widths are outputs too: `load+24:width@0.8`."""

    levels: Annotated[list[float], about("Nominal coverages, ascending.")]
    kind: IntervalsKind
    """What the distances of the bounds from the forecast are: `nodes` of the network, trained for this; differences of
    the model's own `quantiles`; or `constant`, of which no feature is a cause."""
    outputs: list[str]
    """The outputs that have intervals: all, but of a target with quantiles the target itself or its median alone."""
    calibration: CalibrationInfo


class ProvenanceInfo(TypedDict):
    """Where the checkpoint comes from."""

    source: Annotated[str, about("The command that made it.")]
    library: Annotated[str, about("Name and version of what computed the weights.")]
    created: Annotated[str, about("UTC time, ISO 8601.")]
    verified: bool
    """Whether its predictions were proved equal to those of the model it was made from, on the windows that were
    given."""
    parent: Annotated[Checkpoint | None, about("The checkpoint from which it was made; null if there is none.")]
    difference: float | None
    """Largest difference from the predictions that an import was checked against, in their unit; null without such a
    check."""
    relative_difference: float | None
    """The same in standard deviations of that output over the check's windows, or relative to its magnitude if it does
    not vary."""
    not_told_apart: list[str]
    """Other functions that the imported weights may be: they give the same predictions on the windows of the check, but
    not on all others. Empty where only one function fits."""
    unused: Annotated[list[str], about("Keys of the imported weights that have no effect on the forecasts.")]
    fitted_from: Annotated[str | None, about("Time of the first window that it was last fitted to; null if unknown.")]
    fitted_to: Annotated[str | None, about("Time of the last one.")]


class ModelInfo(TypedDict):
    """Everything that a client needs for requests to a model."""

    name: Name
    state: Annotated[Literal["ready"], about("Always `ready`: otherwise the answer is 503.")]
    ready: Annotated[bool, about("Always true.")]
    checkpoint: Checkpoint
    version: Version
    versions: Versions
    chosen: NotRequired[Chosen]
    features: Annotated[list[FeatureInfo], about("Input columns, in the order of an instance's last axis.")]
    table: NotRequired[TableInfo]
    """The columns of a `series`: those of the training; absent if the features are columns as they stand, without
    times and of one series."""
    time: NotRequired[TimeInfo]
    """The time column of the training, with which the times of a `series` are compared; absent if there was none."""
    groups: dict[str, list[str]]
    """Features by the name of their group, whose contributions `:explain` sums by default."""
    intervals: NotRequired[IntervalsInfo]
    """The prediction intervals; absent if the model has none."""
    targets: Annotated[list[TargetInfo], about("Forecast columns.")]
    outputs: Annotated[list[str], about("Names of the outputs, `{target}+{step}`, in the order of a prediction.")]
    lookback: Annotated[int, about("Number of steps of an instance.")]
    horizon: Annotated[int, about("Forecast steps.")]
    ahead: int
    """Rows from a window's newest row to the one that its first step forecasts; 0 where the targets were shifted before
    training, so that they stand in the window's newest row, or where that is not known."""
    architecture: Architecture
    reference_windows: Annotated[int, about("Number of windows on which global explanations are computed.")]
    metrics: Annotated[dict[str, float], about("Training metrics, such as `test_r2`, and coverages of intervals.")]
    provenance: ProvenanceInfo


class ModelReadiness(TypedDict):
    """A model that is ready."""

    name: Name
    ready: Annotated[bool, about("Always true: otherwise the answer is 503.")]


def summarise_model(entries: ModelVersions) -> ModelSummary:
    """Summarises the versions of a model for the list of models."""
    default = entries.default
    given: dict[str, Any] = {**_summarise_version(default), "versions": list(map(_summarise_version, entries))}
    return describe(ModelSummary, default, **given, chosen=_describe_choice(entries))


def _describe_choice(entries: ModelVersions) -> ChosenInfo | None:
    choice = entries.choice
    if choice is None and entries.problem is None:
        return None
    return describe(ChosenInfo, choice or Choice(), problem=entries.problem)


def _summarise_version(entry: Entry) -> VersionSummary:
    return describe(VersionSummary, entry, ready=entry.state == "ready", loaded=entry.served is not None)


def describe_model(served: Served, entries: ModelVersions) -> ModelInfo:
    """Describes a model's architecture, units and metrics, and the state of all its versions."""
    model, config = served.model, served.model.config
    cells: dict[str, RecurrentInfo | None] = {"lstm": None, "gru": None}
    if config.recurrent is not None:
        cells[config.recurrent.cell] = describe(RecurrentInfo, config.recurrent, readout=config.readout)
    front = _describe_layers(config.front) if config.front else None
    head, more = _describe_layers(config.head), dict[str, Any](graph=None)
    if config.graph:
        head["width"] = []
        nodes = zip(config.graph, config.graph_shapes, strict=True)
        more["graph"] = [NodeInfo(op=one.op, inputs=list(one.inputs), shape=list(shape)) for one, shape in nodes]
    architecture = describe(Architecture, config, front=front, head=head, **cells, **more)
    given: dict[str, Any] = {name: getattr(served, name) for name in ("name", "version", "checkpoint")}
    given |= {"state": "ready", "ready": True, "versions": list(map(_summarise_version, entries))}
    given |= {"table": None, "time": None, "intervals": None, "chosen": _describe_choice(entries)}
    if (found := model.intervals) is not None:
        given["intervals"] = describe(IntervalsInfo, found, outputs=list(model.bounded_outputs))
    if config.encoding is not None or config.time is not None or config.series is not None:
        given["table"] = _describe_table(config)
    if (time := config.time) is not None:
        weeks = 7 if time.is_open_days else 1  # in which their gaps are counted
        given["time"] = describe(TimeInfo, time, step=time.step * _SECONDS[time.unit], max_step=time.max_step * weeks)
    given |= {"architecture": architecture, "reference_windows": len(model.reference), "metrics": dict(model.metrics)}
    return describe(ModelInfo, config, **given, provenance=describe(ProvenanceInfo, model.provenance))


def _describe_table(config: ModelConfig) -> TableInfo:
    spec, time, series = config.table, config.time, config.series
    of_series = None
    if series is not None:
        about_names = {"count": len(series.known), "names": [*series.known[:MAX_NAMES]]}
        of_series = describe(SeriesInfo, series, column=series.name, **about_names)
    return describe(
        TableInfo,
        None,
        **spec.encoding.describe(),
        rows=spec.lookback + spec.encoding.later,
        step=None if time is None else time.describe_steps(1),
        zone=None if time is None else time.zone,
        series=of_series,
    )


def _describe_layers(layers: Layers) -> LayersInfo:
    grids = [layer.basis.grid_size for layer in layers if isinstance(layer.basis, BSpline)]
    orders = {getattr(layer.basis, "order", None) for layer in layers}
    bases, factors = {layer.base for layer in layers}, [layer.mult_arity for layer in layers]
    return describe(
        LayersInfo,
        layers,
        width=[n if isinstance(n, int) else sum(n) for n in width_of(layers)],
        layers=list(map(_describe_layer, layers)),
        grid_size=grids[0] if None not in orders and len(set(grids)) == 1 else None,
        spline_order=orders.pop() if len(orders) == 1 else None,
        base_activation=bases.pop() if len(bases) == 1 else None,
        mult_arity=[[], *map(list, factors)] if any(factors) else None,
    )


def _describe_layer(layer: LayerConfig) -> LayerInfo:
    basis: Any = {"kind": layer.basis.kind, **vars(layer.basis)}
    return {"basis": basis, "base_activation": layer.base, "before": [step.kind for step in layer.before]}


@Operation("GET", "/v1/models", "models", "read", ModelList)
async def list_models(call: Call) -> Response:
    """Lists the models and their versions, with the state of each and the reason of a failure."""
    registry = call.parts.registry
    index = registry.index()
    details = list(map(summarise_model, index.values()))
    return answer_json(describe(ModelList, registry, models=list(index), details=details))


@Operation("GET", MODEL, "models", "read", ModelInfo)
async def get_model(call: Call) -> Response:
    """Describes a model: features with units and ranges, outputs, architecture, training metrics."""
    return answer_json(describe_model(call.served, call.parts.registry.index().get(call.served.name, NO_VERSIONS)))


@Operation("GET", f"{MODEL}/ready", "models", "read", ModelReadiness, loads=False)
async def get_model_readiness(call: Call) -> Response:
    """Readiness of a model; one that is not ready answers 503."""
    return answer_json(ModelReadiness(name=call.state.model, ready=True))
