"""The architecture of a forecaster and the units of its columns, as frozen dataclasses, and their JSON.

Every layer is a KAN layer: a Linear layer is one whose edges are lines, an activation belongs to the edges that read
it, a BatchNorm in evaluation mode is an affine map of the nodes. A config that cannot exist raises a `ConfigError`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cached_property, partial
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from math import prod
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from kanmodel import errors as checks
from kanmodel.errors import ConfigError, DataError, Index, check_choice, check_config, check_count, quote
from kanmodel.network.bases import BASES, Basis, BSpline
from kanmodel.network.functions import ACTIVATIONS, FUNCTIONS
from kanmodel.network.operations import KINKS, MAX_NODES, Loop, Node, Shape, infer_shapes
from kanmodel.network.wiring import Cut, CutValues, Inlined, Wiring, inline, list_cuts
from kanmodel.tables.columns import QUANTILE, Feature, Scaling, Target
from kanmodel.tables.encoding import Encoding, plain_encoding
from kanmodel.tables.rhythm import TimeColumn
from kanmodel.tables.table import SeriesColumn, TableSpec

T = TypeVar("T")
MAX_LAYERS = 1 << 8  # of a network, because some computations are quadratic in the number of layers
MAX_GRAPH = 1 << 25  # values of a graph for one window, with those on edges, of gates and around layers
BASE_FUNCTIONS = ("zero", *ACTIVATIONS)  # "zero": no base function
LAYER_NORM_EPS = 1e-5
BOUND = re.compile(r"(.*):(lower|upper|width|below|above)@(0\.\d+)")  # the name of a bound; see `network.intervals`
_ASIDE = re.compile(r"(.*?)((?::\w{5})?@0\.\d+)")  # a target and what it is of it, a quantile or a bound


@dataclass(frozen=True)
class Transform:
    """A transform of a layer's inputs before its edges.

    Attributes:
        kind: an elementwise activation (`functions.ACTIVATIONS`); ``affine``, a scale and a bias for each node; or
            ``layer_norm`` (Ba et al. 2016, arXiv 1607.06450), which mixes the nodes, with a scale and a bias for each.
        parameter: the slope below 0 of leaky_relu, alpha of elu, beta of softplus, or eps of layer_norm; torch's by
            default. None for kinds without one.
    """

    kind: str
    parameter: float | None = None

    def __post_init__(self) -> None:
        check_choice(self.kind, "kind", ("affine", "layer_norm", *ACTIVATIONS))
        usual = LAYER_NORM_EPS if self.mixes else None if self.has_tensors else ACTIVATIONS[self.kind].parameter
        if self.parameter is None:
            object.__setattr__(self, "parameter", usual)
        elif usual is None:
            raise ConfigError(f"parameter must be null, as {self.kind} has none, but is {quote(self.parameter)}")
        else:
            checks.check_number(self.parameter, "parameter", positive=self.kind in ("layer_norm", "softplus"))

    @property
    def mixes(self) -> bool:
        """Whether a value depends on all nodes."""
        return self.kind == "layer_norm"

    @property
    def has_tensors(self) -> bool:
        """Whether it has a ``weight`` and a ``bias``, each (n_in,)."""
        return self.kind in ("affine", "layer_norm")


@dataclass(frozen=True)
class SymbolicEdge:
    """An edge with an additional fixed function c f(a x + b) + d, as made by pykan's `fix_symbolic`.

    Attributes:
        i: index of its input.
        j: index of its sub-node.
        function: pykan's name of f.
    """

    i: Index
    j: Index
    function: Annotated[str, partial(check_choice, choices=FUNCTIONS)]

    def __post_init__(self) -> None:
        check_config(self)


@dataclass(frozen=True)
class LayerConfig:
    """A layer of edges with the sum and product nodes they enter (Liu et al. 2024, arXiv 2404.19756, 2408.10205).

    Attributes:
        n_in: number of inputs.
        n_sum: number of sum nodes.
        basis: the basis of the functions on edges.
        base: the activation added to the basis, with a weight for each edge; ``zero`` for none.
        before: transforms of the inputs before the edges, in order. Elementwise ones belong to the edges, whose
            function is x -> f(transform(x)); a layer norm mixes the nodes.
        base_after: number of these transforms before the base; None for all. 0 if only the basis takes normalised
            values, as in fast-kan.
        mult_arity: number of factors of each product node; product nodes come after the sum nodes.
        symbolic: edges with a fixed function besides the basis, of the inputs of the base.
    """

    n_in: int
    n_sum: Index
    basis: Basis = field(default_factory=BSpline)
    base: Annotated[str, partial(check_choice, choices=BASE_FUNCTIONS)] = "silu"
    before: tuple[Transform, ...] = ()
    base_after: Index | None = None
    mult_arity: tuple[Annotated[int, partial(check_count, lowest=2)], ...] = ()
    symbolic: tuple[SymbolicEdge, ...] = ()

    def __post_init__(self) -> None:
        check_config(self)
        check_count(self.n_subnodes, "the number of sub-nodes")
        check_count(len(self.before), "the number of transforms before a layer", lowest=0, highest=MAX_LAYERS)
        if self.base_after is not None:
            check_count(self.base_after, "base_after", lowest=0, highest=len(self.before))
        for number, edge in enumerate(self.symbolic):
            if edge.i >= self.n_in or edge.j >= self.n_subnodes:
                there = f"{self.n_in} inputs and {self.n_subnodes} sub-nodes"
                raise ConfigError(f"symbolic[{number}] is an edge from {edge.i} to {edge.j}, but there are {there}")

    @property
    def n_out(self) -> int:
        """Number of nodes, sum and product nodes together."""
        return self.n_sum + len(self.mult_arity)

    @property
    def n_subnodes(self) -> int:
        """Number of sub-nodes: one for each sum node, and one for each factor of a product node."""
        return self.n_sum + sum(self.mult_arity)

    @property
    def node_of_subnode(self) -> tuple[int, ...]:
        """The node that each sub-node belongs to."""
        factors = [self.n_sum + m for m, arity in enumerate(self.mult_arity) for _ in range(arity)]
        return (*range(self.n_sum), *factors)

    @property
    def is_linear(self) -> bool:
        """Whether the functions on its edges are lines through the origin, as in a Linear layer."""
        return self.basis.is_line and self.base == "zero" and not self.symbolic

    @property
    def n_before_base(self) -> int:
        """Number of transforms of `before` that are applied before the base."""
        return len(self.before) if self.base_after is None else self.base_after

    @property
    def mixes(self) -> bool:
        """Whether the input of an edge depends on all nodes, because of a layer norm."""
        return any(transform.mixes for transform in self.before)


Layers = tuple[LayerConfig, ...]


def plain_layers(width: Sequence[int | tuple[int, int]], basis: Basis | None = None, **options: Any) -> Layers:
    """Uniform layers from pykan's width: ``plain_layers([12, (5, 2), 1])`` has 5 sum and 2 product nodes, of 2 factors.

    The basis (B-splines by default) and the options of `LayerConfig` are those of all layers. Raises `ConfigError` if
    such layers cannot exist.
    """
    nodes = [(n, 0) if isinstance(n, int) else n for n in width]
    if len(nodes) < 2:
        raise ConfigError(f"width needs an input and an output layer, but is {list(width)}")
    if nodes[0][1]:
        raise ConfigError(f"width[0] has inputs only, but is {list(nodes[0])}")
    return tuple(
        LayerConfig(sum(before), n_sum, basis or BSpline(), mult_arity=(2,) * n_mult, **options)
        for before, (n_sum, n_mult) in pairwise(nodes)
    )


def width_of(layers: Layers) -> list[int | list[int]]:
    """pykan's width of consecutive layers: ``[12, 5, 1]``, with ``[n_sum, n_mult]`` for a layer with product nodes."""
    nodes: list[int | list[int]] = [layer.n_in for layer in layers[:1]]
    return nodes + [[layer.n_sum, len(layer.mult_arity)] if layer.mult_arity else layer.n_sum for layer in layers]


Cell = Literal["lstm", "gru"]
Readout = Literal["last", "mean", "flatten"]
DType = Literal["float32", "float64"]


@dataclass(frozen=True)
class RecurrentConfig:
    """An LSTM (Hochreiter and Schmidhuber 1997) or a GRU (Cho et al. 2014, arXiv 1406.1078), as in torch.

    Attributes:
        cell: lstm or gru.
        hidden_size: units per direction.
        num_layers: stacked layers.
        bidirectional: whether a second direction reads the window backwards.
        bias: whether the gates have biases.
    """

    cell: Cell
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def n_units(self) -> int:
        """Number of units of the last layer, both directions together."""
        return self.hidden_size * (2 if self.bidirectional else 1)

    def __str__(self) -> str:
        return f"{self.cell.upper()} of {self.n_units} units"


@dataclass(frozen=True)
class ModelConfig:
    """A forecaster: [front layers per step] -> [recurrent] -> readout -> head layers -> [output function].

    Attributes:
        features: input columns, in the order of a window's last axis.
        targets: forecast columns, or classes.
        lookback: steps of a window.
        horizon: forecast steps, which are outermost in the `outputs`.
        head: the layers after the readout, at least one.
        recurrent: the LSTM or GRU; None if there is none.
        front: layers applied to each step, before the recurrent part.
        readout: what the head reads of the steps: the ``last`` (``out[:, -1]``, for both directions), their ``mean``,
            or all of them, ``flatten``, oldest first.
        output_function: function of the last layer's nodes, an elementwise activation or softmax; None for none.
        dtype: dtype of all weights.
        ahead: steps from the window's last row to the first output, which is ``{target}+{ahead}``; 0 if the targets'
            columns are already shifted, or it is unknown, and the first output is ``{target}+1``.
        groups: features that belong together, by the name of their group; explanations also sum their contributions.
        time: the time stamps of the training rows and their rhythm; None if there were none.
        series: the column that says of which series a row is; None of one series.
        encoding: how the columns of a table become the features; None if they are columns as they stand.
        graph: the nodes of a network whose parts are joined in another way than a chain, in the order of the
            computation; the last are the outputs before the output function. Its KAN layers are the `head`'s, in that
            order. Empty for a chain.
        recurrents: the recurrent layers of a graph.
        loops: its other recurrences, such as a cell with KANs in it, whose layers are the head's too.
    """

    features: tuple[Feature, ...]
    targets: tuple[Target, ...]
    lookback: int
    horizon: int
    head: Layers
    recurrent: RecurrentConfig | None = None
    front: Layers = ()
    readout: Readout = "last"
    output_function: Annotated[str, partial(check_choice, choices=("softmax", *ACTIVATIONS))] | None = None
    dtype: DType = "float32"
    ahead: Index = 0
    groups: Groups = field(default_factory=dict)
    time: TimeColumn | None = None
    graph: tuple[Node, ...] = ()
    recurrents: tuple[RecurrentConfig, ...] = ()
    loops: tuple[Loop, ...] = ()
    encoding: Encoding | None = None
    series: SeriesColumn | None = None

    def __post_init__(self) -> None:
        check_config(self)
        for place, columns in (("features", self.features), ("targets", self.targets)):
            repeated = sorted(name for name, count in Counter(column.name for column in columns).items() if count > 1)
            if not columns or repeated:
                given = quote(repeated) if repeated else "none"
                raise ConfigError(f"{place} must be at least one, of unique names, but {given} given")
        for feature in self.features:
            if feature.mask == feature.name or feature.mask not in (None, *self.feature_names):
                raise ConfigError(f"mask of feature {feature.name} must be another feature, but is {feature.mask!r}")
        try:
            resolve_groups(self.groups, self.feature_names)
        except DataError as error:
            raise ConfigError(str(error)) from error
        object.__setattr__(self, "groups", deepcopy(self.groups))  # the caller may change what it gave
        if self.encoding is not None and self.encoding.features != self.feature_names:
            raise ConfigError("encoding must give the features, in their order, but gives others")
        if self.encoding is not None and self.encoding.calendar and (self.time is None or not self.time.dated):
            raise ConfigError("encoding has a calendar, but time has no dates")
        check_count(len(self.front) + len(self.head), "the number of layers", lowest=0, highest=MAX_LAYERS)
        n_outputs = self.horizon * len(self.targets)
        if self.graph or self.recurrents or self.loops:
            if self.front or self.recurrent is not None or self.readout != "last":
                raise ConfigError("a graph has no front, recurrent part and readout of a chain")
            if self.graph_shapes[-1] != (n_outputs,):
                ends = f"ends in {list(self.graph_shapes[-1])}"
                raise ConfigError(f"graph must end in {n_outputs} values, horizon x targets, but {ends}")
            if self.graph_size > MAX_GRAPH:
                raise ConfigError(f"graph has {self.graph_size} values with its edges and cuts, more than {MAX_GRAPH}")
            return
        for stage, layers, n_nodes in (("front", self.front, len(self.features)), ("head", self.head, self.n_readout)):
            for number, layer in enumerate(layers):
                if layer.n_in != n_nodes:
                    raise ConfigError(f"{stage}[{number}].n_in must be {n_nodes}, which reach it, but is {layer.n_in}")
                n_nodes = layer.n_out
        if not self.head or self.head[-1].n_out != n_outputs:
            found = self.head[-1].n_out if self.head else "no layer"
            raise ConfigError(f"head must end in {n_outputs} nodes, horizon x targets, but ends in {found}")

    @cached_property
    def stages(self) -> dict[str, Layers]:
        """The layers by stage name, in the order of the data; an empty front is left out."""
        return {"front": self.front, "head": self.head} if self.front else {"head": self.head}

    @property
    def layers(self) -> Layers:
        """All KAN layers, in the order of the data."""
        return (*self.front, *self.head)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the computation in its order: the `graph`, or the one path of a chain."""
        ops = [*("layer" for _ in self.front), *(["recurrent"] if self.recurrent else []), f"readout_{self.readout}"]
        path = (Node(op, (number,)) for number, op in enumerate([*ops, *("layer" for _ in self.head)]))
        return self.graph or (Node("window"), *path)

    @cached_property
    def graph_shapes(self) -> tuple[Shape, ...]:
        """The shapes of the nodes, without the batch."""
        limited = bool(self.graph)
        parts = self.recurrent_parts, self.loops
        return infer_shapes(self.nodes, self.window_shape, self.layers, *parts, limited)

    @cached_property
    def body_shapes(self) -> tuple[tuple[Shape, ...], ...]:
        """The shapes of the nodes of each loop's body."""
        layers, loops, found = iter(self.layers), iter(self.loops), list[tuple[Shape, ...]]()
        for node in self.nodes:
            if node.op == "layer":
                next(layers)
            elif node.op == "loop":
                found.append(next(loops).infer_shapes([self.graph_shapes[source] for source in node.inputs], layers))
        return tuple(found)

    @property
    def recurrent_parts(self) -> tuple[RecurrentConfig, ...]:
        """The recurrent layers, in the order of the nodes."""
        return self.recurrents if self.recurrent is None else (self.recurrent,)

    @cached_property
    def recurrent_widths(self) -> tuple[int, ...]:
        """Number of inputs of each recurrent layer."""
        reads = (node.inputs[0] for node in self.nodes if node.op == "recurrent")
        return tuple(self.graph_shapes[source][-1] for source in reads)

    @cached_property
    def graph_size(self) -> int:
        """Number of values that a ledger keeps of a graph for a window, with edges, gates and cuts; 0 for a chain."""
        if not self.graph:
            return 0
        sizes = [*map(prod, self.graph_shapes)]
        layers, recurrents, total = iter(self.head), iter(self.recurrents), sum(sizes)
        loops = iter(zip(self.loops, self.body_shapes, strict=True))

        def count_edges(out: Shape) -> int:
            layer = next(layers)
            return prod(out[:-1]) * layer.n_in * layer.n_subnodes

        total += sum(sizes[node] for node in self.cut_values.nodes)
        for at, node in enumerate(self.graph):
            if node.op == "layer":
                total += count_edges(self.graph_shapes[at])
            elif node.op == "recurrent":
                total += sizes[at] // self.graph_shapes[at][-1] * 5 * next(recurrents).n_units
            elif node.op == "loop":
                loop, shapes = next(loops)
                of_body = zip(loop.body, shapes, strict=True)
                total += loop.steps * sum(
                    prod(out) + (count_edges(out) if one.op == "layer" else 0) for one, out in of_body
                )
        return total

    @cached_property
    def has_kinks(self) -> bool:
        """Whether the slopes of an operation, or of an activation before a layer, jump somewhere."""
        before = (transform.kind for layer in self.layers for transform in layer.before)
        nodes = (*self.nodes, *(node for loop in self.loops for node in loop.body))
        return any(name in KINKS for name in (*before, *(node.op for node in nodes)))

    @cached_property
    def cuts(self) -> tuple[Cut, ...]:
        """The layers of a ledger between the features and the outputs."""
        return tuple(list_cuts(self))

    @cached_property
    def cut_values(self) -> CutValues:
        """The values that the cuts hold."""
        return CutValues.of(self.nodes, self.cuts)

    @cached_property
    def inlined(self) -> list[Inlined]:
        """The nodes of the computation with those of the bodies of loops."""
        return inline(self)

    @cached_property
    def wiring(self) -> Wiring:
        """How the parts of a graph are joined."""
        return Wiring.of(self)

    @property
    def n_steps(self) -> int:
        """Number of values per step that enter the recurrent part, or the readout without one."""
        return self.front[-1].n_out if self.front else len(self.features)

    @property
    def n_readout(self) -> int:
        """Number of inputs of the head."""
        return self.n_units * (self.lookback if self.readout == "flatten" else 1)

    @property
    def n_units(self) -> int:
        """Number of values per step that are read out: units of the recurrent part, or what enters it without one."""
        return self.n_steps if self.recurrent is None else self.recurrent.n_units

    @property
    def readout_stage(self) -> Literal["lstm", "gru", "cell"] | None:
        """Kind of the head's inputs: units of a ``lstm`` or ``gru``, or the values of each step, ``cell``.

        None if they are the values of existing nodes: features, or nodes of the front's last layer.
        """
        if self.readout == "flatten":
            return "cell"
        return None if self.recurrent is None else self.recurrent.cell

    @property
    def is_classifier(self) -> bool:
        """Whether the outputs are probabilities, of classes or of one event."""
        return self.output_function in ("softmax", "sigmoid")

    @property
    def mixes_steps(self) -> bool:
        """Whether each value of each step may act on each input of the head, as in a graph."""
        return self.recurrent is not None or bool(self.graph)

    @property
    def mixer(self) -> str:
        """What mixes the steps, in words; empty if nothing does."""
        return "" if self.recurrent is None else {"lstm": "an LSTM", "gru": "a GRU"}[self.recurrent.cell]

    @property
    def has_plain_steps(self) -> bool:
        """Whether the features of the steps are read out as they are."""
        return self.recurrent is None and not self.front and not self.graph

    @property
    def reads_features(self) -> bool:
        """Whether the head's inputs are the features of a single step."""
        return self.has_plain_steps and (self.lookback == 1 or self.readout == "last") and self.readout != "flatten"

    @property
    def window_shape(self) -> tuple[int, int]:
        """Steps and features of one window."""
        return self.lookback, len(self.features)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of a window's last axis."""
        return tuple(f.name for f in self.features)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, ``{target}+{step}``, in the order of the head's output nodes.

        Those of a target that is a quantile, such as ``load@0.9``, are ``load+{step}@0.9``, those of a bound,
        ``load:lower@0.8``, are ``load+{step}:lower@0.8``, and likewise ``load+{step}:scale`` of a parameter.
        """
        return tuple(map(self.name_output, range(self.horizon * len(self.targets))))

    def name_output(self, output: int) -> str:
        """The name of output number `output`, or of what it would be beyond the horizon."""
        name, step = self.target_of(output).name, max(1, self.ahead) + output // len(self.targets)
        if self.target_of(output).parameter:
            return f"+{step}:".join(name.rsplit(":", 1))
        found = _ASIDE.fullmatch(name) if QUANTILE.fullmatch(name) or BOUND.fullmatch(name) else None
        target, aside = found.groups() if found else (name, "")
        return f"{target}+{step}{aside}"

    @cached_property
    def known_outputs(self) -> list[int]:
        """The outputs that have actual values, which parameters have not."""
        return [number for number in range(len(self.outputs)) if not self.target_of(number).parameter]

    @cached_property
    def table(self) -> TableSpec:
        """How windows are cut from a table with the columns of the training."""
        encoding, targets = self.encoding or plain_encoding(self.feature_names), (each.name for each in self.targets)
        masks = {each.name: (each.mask, each.fill) for each in self.features if each.mask is not None}
        return TableSpec(encoding, (*targets,), self.ahead, self.time, self.series, self.lookback, self.horizon, masks)

    @property
    def scaling(self) -> Scaling:
        """The scaling of the features and outputs."""
        return Scaling.of(self.features, [self.target_of(output) for output in range(len(self.outputs))], self.dtype)

    def target_of(self, output: int) -> Target:
        """The target that output number `output` forecasts."""
        return self.targets[output % len(self.targets)]


Groups = Mapping[str, Sequence[str]]
"""Name of a group to the names of its members: features, or other groups."""


@dataclass(frozen=True)
class Grouping:
    """All groups with their features, including those of nested groups, and the features without a group."""

    names: tuple[str, ...]  # the groups in the given order, then the features without a group
    members: tuple[tuple[int, ...], ...]  # indices of the features of each, ascending
    whole: tuple[int, ...]  # indices of the names that are in no group: every feature is in exactly one of them

    @property
    def parts(self) -> tuple[str, ...]:
        """The names that are in no group: outermost groups, and features without a group."""
        return tuple(self.names[number] for number in self.whole)


def resolve_groups(groups: object, features: Sequence[str]) -> Grouping:
    """The grouping of features, of given names; a feature or a group is a member of at most one group.

    Raises `DataError` if it is not a mapping of printable names to lists; or if a group has no members, one that does
    not exist or is of another group, itself, or the name of a feature.
    """
    if not isinstance(groups, Mapping) or not all(isinstance(name, str) and name for name in groups):
        raise DataError.at("groups", f"must be an object of lists by the names of groups, but is {quote(groups)}")
    numbers: dict[str, tuple[int, ...]] = {feature: (number,) for number, feature in enumerate(features)}
    parent: dict[str, str] = {}  # the group of each member
    for name, members in groups.items():
        place = f"groups.{name}"
        try:
            checks.check_text(name, "the name of a group")
        except ConfigError as error:
            raise DataError.at("groups", f"cannot be used: {error}") from error
        if name in numbers:
            raise DataError.at(place, "has the name of a feature")
        if not isinstance(members, list | tuple) or not members or not all(isinstance(m, str) for m in members):
            raise DataError.at(place, f"must be a list of features, but is {quote(members)}")
        for member in members:
            if member not in numbers and member not in groups:
                raise DataError.at(place, f"has no feature {quote(member)}; the features are {', '.join(features)}")
            if member in parent:
                raise DataError.at(place, f"has {quote(member)}, which is in {quote(parent[member])} already")
            parent[member] = name
    try:
        for name in TopologicalSorter(groups).static_order():  # members first
            if name in groups:
                numbers[name] = tuple(sorted(number for member in groups[name] for number in numbers[member]))
    except CycleError as error:
        circular = next(name for name in groups if name in error.args[1])
        raise DataError.at(f"groups.{circular}", "is a member of itself") from error
    names = (*groups, *(feature for feature in features if feature not in parent))
    whole = tuple(number for number, name in enumerate(names) if name not in parent)
    return Grouping(names, tuple(numbers[name] for name in names), whole)


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """The config as plain JSON values."""
    data = asdict(config)
    if not config.graph:  # a chain has neither
        del data["graph"], data["recurrents"]
    if not config.loops:
        del data["loops"]
    for name in ("encoding", "series"):
        if data[name] is None:
            del data[name]
    for column in (*data["features"], *data["targets"]):
        if column["title"] is None:
            del column["title"]
        if not column.get("parameter", True):
            del column["parameter"]
        if column.get("mask", "") is None:
            del column["mask"], column["fill"]
    for stage in ("front", "head"):
        for layer, written in zip(getattr(config, stage), data[stage], strict=True):
            written["basis"] = {"kind": layer.basis.kind, **vars(layer.basis)}
    return data


def config_from_dict(data: object) -> ModelConfig:
    """The config that `config_to_dict` wrote; raises as `read_record`."""
    return read_record(ModelConfig, data, "config")


def read_record(cls: type[T], data: object, place: str) -> T:
    """A dataclass from a JSON object at a place of a document.

    Raises `ConfigError`, which starts with the place, if it is not an object, has an unknown key, lacks one without a
    default, or has an invalid value.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{place} must be an object, but is {quote(data)}")
    types = checks.field_types(cls)  # type: ignore[arg-type]
    for key in data:
        if key not in types:
            raise ConfigError(f"{place} has the unknown key {quote(key)}")
    values = {key: _read(types[key], value, f"{place}.{key}") for key, value in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{place} lacks one of {', '.join(key for key in types if key not in data)}") from error
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _read(hint: Any, data: Any, place: str) -> Any:
    """A value of JSON in the type of an annotation, as far as its shape allows."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if (inner := checks.optional(hint)) is not None:
        return None if data is None else _read(inner, data, place)
    if get_origin(hint) is tuple:
        if not isinstance(data, list | tuple):
            raise ConfigError(f"{place} must be a list, but is {quote(data)}")
        if is_dataclass(get_args(hint)[0]) and len(data) > MAX_NODES:
            raise ConfigError(f"{place} must have at most {MAX_NODES} objects, but has {len(data)}")
        return tuple(_read(get_args(hint)[0], item, f"{place}[{number}]") for number, item in enumerate(data))
    if hint is Basis and isinstance(data, dict):
        check_choice(data.get("kind"), f"{place}.kind", BASES)
        return read_record(BASES[data["kind"]], {key: data[key] for key in data if key != "kind"}, place)
    return read_record(hint, data, place) if isinstance(hint, type) and is_dataclass(hint) else data
