"""GET /v1/models and one of them: its versions, architecture and origin, and whether it is ready."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from kanmodel.forecaster import Provenance
from kanmodel.network.bases import BASES
from kanmodel.network.config import BASE_FUNCTIONS, ModelConfig, Readout, RecurrentConfig
from kanmodel.network.functions import ACTIVATIONS
from kanmodel.network.intervals import Intervals
from kanmodel.network.operations import Node
from kanmodel.tables.inputs import Input
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.skill import Skill
from kanmodel.tables.table import TableSpec
from service.answers.forms import Answered, join
from service.answers.members import Checkpoint, Closed, Name, Version, about
from service.answers.table import READOUT, SkillVerdict
from service.models.registry import State


class VersionSummary(TypedDict):
    """A version of a model and its state."""

    version: Version
    state: Annotated[State, about("`loading`, `ready`, `failed`, or `unloaded` by command.")]
    ready: Annotated[bool, about("Whether it is ready.")]
    loaded: Annotated[bool, about("Whether it is in memory; otherwise the next request that needs it waits for that.")]
    checkpoint: Annotated[Checkpoint | None, about("Identity of the checkpoint; null if none is ready.")]
    reason: NotRequired[str]
    """Why its file cannot be loaded; where it was replaced while it served, what served before goes on."""
    skill: NotRequired[SkillVerdict]
    """Whether it knows more than simple forecasts, as `skill` of the model; only if it is in memory."""
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


class Architecture(TypedDict):
    """The network: [front per step] -> [LSTM or GRU] -> readout -> head -> [output function], or a graph."""

    front: Annotated[LayersInfo | None, about("Layers on the features of each step; null if there are none.")]
    lstm: Annotated[Answered[RecurrentConfig] | None, about("The LSTM; null without one.")]
    gru: Annotated[Answered[RecurrentConfig] | None, about("The GRU; null without one.")]
    readout: Annotated[Readout, about(READOUT)]
    head: Annotated[LayersInfo, about("The layers that compute the forecasts.")]
    output_function: Annotated[
        str | None,
        Field(json_schema_extra={"anyOf": [{"enum": ["softmax", *ACTIVATIONS], "type": "string"}, {"type": "null"}]}),
    ]
    """Function of the last layer's nodes; null for none."""
    graph: NotRequired[list[Answered[Node]]]
    """The operations of a graph, in the order of the computation, which its head's layers have too, without a `width`;
    absent for a chain."""


class ServedModel(TypedDict):
    """Everything that a client needs for requests to a model."""

    name: Name
    state: Annotated[Literal["ready"], about("Always `ready`: otherwise the answer is 503.")]
    ready: Annotated[bool, about("Always true.")]
    checkpoint: Checkpoint
    version: Version
    versions: Versions
    chosen: NotRequired[Chosen]
    outputs: Annotated[list[str], about("Names of the outputs, `{target}+{step}`, in the order of a prediction.")]
    inputs: list[Answered[Input]]
    """What it reads in the terms of its table, in the order of the features: columns, and parts of the calendar."""
    table: NotRequired[Answered[TableSpec]]
    """The columns of a `series`: those of the training; absent if the features are columns as they stand, without
    times and of one series."""
    time: NotRequired[Answered[TimeColumn]]
    """The time column of the training, with which the times of a `series` are compared; absent if there was none."""
    intervals: NotRequired[Annotated[Answered[Intervals], about("Absent if the model has none.")]]
    architecture: Architecture
    reference_windows: Annotated[int, about("Number of windows on which global explanations are computed.")]
    metrics: Annotated[dict[str, float], about("Training metrics, such as `test_r2`, and coverages of intervals.")]
    skill: Annotated[Answered[Skill], about("Whether it knows more than simple forecasts; first of all to be read.")]
    provenance: Annotated[Answered[Provenance], about("Where the checkpoint comes from.")]


ModelInfo = join("ModelInfo", Answered[ModelConfig], ServedModel)


class ModelReadiness(TypedDict):
    """A model that is ready."""

    name: Name
    ready: Annotated[bool, about("Always true: otherwise the answer is 503.")]


RepositoryState = TypeAliasType("RepositoryState", Literal["LOADING", "READY", "UNAVAILABLE"])


class IndexRequest(Closed):
    """Which models to list."""

    ready: Annotated[bool, about("Whether to list only ready ones.", strict=True)] = False


class RepositoryParameters(Closed):
    """Parameters of loading and unloading, as Triton's client sends them."""

    unload_dependents: Annotated[bool, Field(strict=True)] = False
    """Ignored, since no model depends on another."""


class RepositoryRequest(Closed):
    """A request to load or unload; the file defines the model."""

    parameters: RepositoryParameters | None = None


class RepositoryEntry(TypedDict):
    """A version of a model in the repository."""

    name: Name
    version: Version
    state: Annotated[RepositoryState, about("Whether it answers.")]
    reason: str
    """Why it is not ready, or why its changed file cannot be loaded; empty if all is well."""


Entries = list[RepositoryEntry]
