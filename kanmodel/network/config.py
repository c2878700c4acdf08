"""The architecture and the units of a forecaster, as frozen data.

A network is a chain: [layers per step] -> [recurrent] -> readout -> layers -> [output function]. Every layer is a KAN
layer: a Linear layer is one whose edges are lines, an activation belongs to the edges that read it, a BatchNorm in
evaluation mode is an affine map of the nodes.

Nothing here computes: a config says what a checkpoint holds, and is refused with one sentence if it cannot exist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from reprlib import repr
from typing import Any, Literal, get_args

from kanmodel.errors import ConfigError
from kanmodel.network.activations import ACTIVATIONS
from kanmodel.network.bases import Basis, BSpline
from kanmodel.network.checks import (
    check_choice,
    check_count,
    check_flag,
    check_items,
    check_number,
    check_text,
)
from kanmodel.network.functions import FUNCTIONS

Cell = Literal["lstm", "gru"]
Readout = Literal["last", "mean", "flatten"]
DType = Literal["float32", "float64"]

MAX_LAYERS = 1 << 8  # of a network: what is computed for each layer from all of them must not exhaust the time
BASE_FUNCTIONS = ("zero", *ACTIVATIONS)  # "zero": nothing is added to the basis
LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class Feature:
    """One input column.

    Attributes:
        name: the column's name.
        unit: its unit, for people; None where unknown.
        mean: mean over the training rows, original units.
        std: standard deviation over the training rows, original units; 0 for a constant column.
        min: smallest training value, original units.
        max: largest training value, original units.
        integer: whether its values are whole numbers, so that it can change by whole numbers alone.
        fixed: whether nobody can change it, as a calendar cannot be changed; a counterfactual leaves it as it is.
    """

    name: str
    unit: str | None = None
    mean: float = 0.0
    std: float = 1.0
    min: float | None = None
    max: float | None = None
    integer: bool = field(default=False, kw_only=True)
    fixed: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        _check_column(self)
        check_flag(self.integer, "integer")
        check_flag(self.fixed, "fixed")
        for place in ("min", "max"):
            if getattr(self, place) is not None:
                check_number(getattr(self, place), place)


@dataclass(frozen=True)
class Target:
    """One forecast column, or one class.

    Attributes:
        name: the column's name.
        unit: its unit, for people; None where unknown.
        mean: mean over the training rows, original units.
        std: standard deviation over the training rows, original units; 0 for a constant column.
    """

    name: str
    unit: str | None = None
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        _check_column(self)


def _check_column(column: Feature | Target) -> None:
    check_text(column.name, "name")
    if column.unit is not None:
        check_text(column.unit, "unit")
    check_number(column.mean, "mean")
    check_number(column.std, "std")


@dataclass(frozen=True)
class Step:
    """One of the things that happen to the values of nodes before the edges read them.

    Attributes:
        kind: an elementwise activation (`activations.ACTIVATIONS`); ``affine``, a scale and a bias for each node, as a
            BatchNorm in evaluation mode is; or ``layer_norm``, which mixes the nodes (Ba et al. 2016, arXiv
            1607.06450), with a scale and a bias for each.
        parameter: of leaky_relu the slope below 0, of elu alpha, of softplus beta, of a layer_norm eps; by default
            torch's. None for those that have none.
    """

    kind: str
    parameter: float | None = None

    def __post_init__(self) -> None:
        check_choice(self.kind, "kind", ("affine", "layer_norm", *ACTIVATIONS))
        usual = LAYER_NORM_EPS if self.mixes else None if self.has_tensors else ACTIVATIONS[self.kind].parameter
        if self.parameter is None:
            object.__setattr__(self, "parameter", usual)
        elif usual is None:
            raise ConfigError(f"parameter must be null, as {self.kind} has none, but is {repr(self.parameter)}")
        else:
            check_number(self.parameter, "parameter", positive=self.kind in ("layer_norm", "softplus"))

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
    """An edge that also holds a fixed function c f(a x + b) + d, as pykan's `fix_symbolic` makes one.

    Attributes:
        i: number of the node it leaves.
        j: number of the sub-node it enters.
        function: pykan's name of f.
    """

    i: int
    j: int
    function: str

    def __post_init__(self) -> None:
        check_count(self.i, "i", lowest=0)
        check_count(self.j, "j", lowest=0)
        check_choice(self.function, "function", FUNCTIONS)


@dataclass(frozen=True)
class LayerConfig:
    """A layer of edges with the sum and product nodes they enter (Liu et al. 2024, arXiv 2404.19756, 2408.10205).

    Attributes:
        n_in: nodes that the edges leave.
        n_sum: sum nodes that they enter.
        basis: what the functions of the edges are made of.
        base: the activation that is added to the basis, with a weight for each edge; ``zero`` for none.
        before: what happens to the values of the nodes before the edges read them, in order. Elementwise steps belong
            to the edges, whose function is x -> f(step(x)); a layer norm mixes the nodes.
        base_after: how many of these steps the base reads behind; None for all. 0 where the basis alone reads the
            normalised values, as in fast-kan.
        mult_arity: number of factors of each product node, which stand behind the sum nodes.
        symbolic: the edges that hold a fixed function beside the basis; it reads what the base reads.
    """

    n_in: int
    n_sum: int
    basis: Basis = field(default_factory=BSpline)
    base: str = "silu"
    before: tuple[Step, ...] = ()
    base_after: int | None = None
    mult_arity: tuple[int, ...] = ()
    symbolic: tuple[SymbolicEdge, ...] = ()

    def __post_init__(self) -> None:
        check_count(self.n_in, "n_in")
        check_count(self.n_sum, "n_sum", lowest=0)
        check_items(self.mult_arity, "mult_arity", int)
        for number, arity in enumerate(self.mult_arity):
            check_count(arity, f"mult_arity[{number}]", lowest=2)
        check_count(self.n_subnodes, "the number of sub-nodes")
        if not isinstance(self.basis, Basis):
            raise ConfigError(f"basis must be a basis, but is {repr(self.basis)}")
        check_choice(self.base, "base", BASE_FUNCTIONS)
        check_items(self.before, "before", Step)
        check_count(len(self.before), "the number of steps before a layer", lowest=0, highest=MAX_LAYERS)
        if self.base_after is not None:
            check_count(self.base_after, "base_after", lowest=0, highest=len(self.before))
        check_items(self.symbolic, "symbolic", SymbolicEdge)
        for number, edge in enumerate(self.symbolic):
            if edge.i >= self.n_in or edge.j >= self.n_subnodes:
                raise ConfigError(
                    f"symbolic[{number}] is an edge from {edge.i} to {edge.j}, but there are {self.n_in} inputs and "
                    f"{self.n_subnodes} sub-nodes"
                )

    @property
    def n_out(self) -> int:
        """Nodes that the edges enter, sum and product nodes together."""
        return self.n_sum + len(self.mult_arity)

    @property
    def n_subnodes(self) -> int:
        """One for a sum node, one for each factor of a product node."""
        return self.n_sum + sum(self.mult_arity)

    @property
    def node_of_subnode(self) -> tuple[int, ...]:
        """The node that each sub-node belongs to."""
        factors = [self.n_sum + m for m, arity in enumerate(self.mult_arity) for _ in range(arity)]
        return (*range(self.n_sum), *factors)

    @property
    def steps_of_base(self) -> int:
        """How many steps of `before` the base reads behind."""
        return len(self.before) if self.base_after is None else self.base_after

    @property
    def mixes(self) -> bool:
        """Whether a layer norm makes what an edge reads depend on all nodes."""
        return any(step.mixes for step in self.before)


Layers = tuple[LayerConfig, ...]


def plain_layers(
    width: Sequence[int | tuple[int, int]], basis: Basis | None = None, **options: Any
) -> tuple[LayerConfig, ...]:
    """Layers that are alike, by pykan's width: ``plain_layers([12, (5, 2), 1])`` has 5 sum and 2 product nodes.

    Args:
        width: nodes of each layer, or (sum nodes, product nodes of two factors).
        basis: of all layers; B-splines of 5 intervals by default.
        **options: of all layers, as `LayerConfig` has them.

    Raises:
        ConfigError: such layers cannot exist.
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


@dataclass(frozen=True)
class RecurrentConfig:
    """An LSTM (Hochreiter and Schmidhuber 1997) or a GRU (Cho et al. 2014, arXiv 1406.1078), as torch has them.

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
        check_choice(self.cell, "cell", get_args(Cell))
        check_count(self.hidden_size, "hidden_size")
        check_count(self.num_layers, "num_layers")
        check_flag(self.bidirectional, "bidirectional")
        check_flag(self.bias, "bias")

    @property
    def n_units(self) -> int:
        """Units of the last layer, both directions in a row."""
        return self.hidden_size * (2 if self.bidirectional else 1)


@dataclass(frozen=True)
class ModelConfig:
    """A forecaster: [front layers per step] -> [recurrent] -> readout -> head layers -> [output function].

    Attributes:
        features: input columns, in the order of a window's last axis.
        targets: forecast columns, or classes.
        lookback: steps of a window.
        horizon: forecast steps; output ``{target}+{step}`` with steps outermost.
        head: the layers after the readout, at least one.
        recurrent: the LSTM or GRU; None without.
        front: layers on the values of each step, before the recurrent part; empty without.
        readout: what the head sees of the steps: the ``last`` (``out[:, -1]``, for both directions), their ``mean``, or
            all of them, ``flatten``, oldest first.
        output_function: what is applied to the last layer's nodes: an elementwise activation, or softmax; None for
            nothing.
        dtype: the type of every weight.
    """

    features: tuple[Feature, ...]
    targets: tuple[Target, ...]
    lookback: int
    horizon: int
    head: Layers
    recurrent: RecurrentConfig | None = None
    front: Layers = ()
    readout: Readout = "last"
    output_function: str | None = None
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        check_items(self.features, "features", Feature)
        check_items(self.targets, "targets", Target)
        for place, names in (("features", self.feature_names), ("targets", tuple(t.name for t in self.targets))):
            repeated = sorted(name for name, count in Counter(names).items() if count > 1)
            if not names or repeated:
                given = repr(repeated) if repeated else "none"
                raise ConfigError(f"{place} must be at least one, of unique names, but {given} given")
        check_count(self.lookback, "lookback")
        check_count(self.horizon, "horizon")
        check_choice(self.readout, "readout", get_args(Readout))
        check_choice(self.dtype, "dtype", get_args(DType))
        if self.output_function is not None:
            check_choice(self.output_function, "output_function", ("softmax", *ACTIVATIONS))
        if self.recurrent is not None and not isinstance(self.recurrent, RecurrentConfig):
            raise ConfigError(f"recurrent must be an LSTM or a GRU, but is {repr(self.recurrent)}")
        n_layers = 0
        for stage, reaching in (("front", len(self.features)), ("head", None)):
            layers = getattr(self, stage)
            check_items(layers, stage, LayerConfig)
            n_layers += len(layers)
            check_count(n_layers, "the number of layers", lowest=0, highest=MAX_LAYERS)
            n_nodes = self.n_readout if reaching is None else reaching
            for number, layer in enumerate(layers):
                if layer.n_in != n_nodes:
                    raise ConfigError(f"{stage}[{number}].n_in must be {n_nodes}, which reach it, but is {layer.n_in}")
                n_nodes = layer.n_out
        n_outputs = self.horizon * len(self.targets)
        if not self.head or self.head[-1].n_out != n_outputs:
            found = self.head[-1].n_out if self.head else "no layer"
            raise ConfigError(f"head must end in {n_outputs} nodes, horizon x targets, but ends in {found}")

    @property
    def stages(self) -> dict[str, Layers]:
        """The layers by stage name, in the order of the data; an empty front is none."""
        return {"front": self.front, "head": self.head} if self.front else {"head": self.head}

    @property
    def n_steps(self) -> int:
        """Values of each step that reach the recurrent part, or the readout without one."""
        return self.front[-1].n_out if self.front else len(self.features)

    @property
    def n_readout(self) -> int:
        """Values that the head sees."""
        n_values = self.recurrent.n_units if self.recurrent else self.n_steps
        return n_values * (self.lookback if self.readout == "flatten" else 1)

    @property
    def readout_stage(self) -> Literal["lstm", "gru", "cell"] | None:
        """What the head's inputs are: units of a ``lstm`` or ``gru``, or each step's values, ``cell``.

        None where they are the values of a node that is there already: a feature, or a node of the front's last layer.
        """
        if self.readout == "flatten":
            return "cell"
        return None if self.recurrent is None else self.recurrent.cell

    @property
    def is_classifier(self) -> bool:
        """Whether the outputs are probabilities, of classes or of one event."""
        return self.output_function in ("softmax", "sigmoid")

    @property
    def reads_features(self) -> bool:
        """Whether the head reads the features of one step as they are, so that its inputs are features."""
        return self.readout_stage is None and not self.front and (self.lookback == 1 or self.readout == "last")

    @property
    def window_shape(self) -> tuple[int, int]:
        """Steps and features of one window."""
        return self.lookback, len(self.features)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of a window's last axis."""
        return tuple(f.name for f in self.features)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, ``{target}+{step}``, in the order of the head's output nodes."""
        return tuple(f"{t.name}+{step}" for step in range(1, self.horizon + 1) for t in self.targets)

    def target_of(self, output: int) -> Target:
        """The target that output number `output` forecasts."""
        return self.targets[output % len(self.targets)]


def width_of(layers: Layers) -> list[int | list[int]]:
    """pykan's width of layers in a row: ``[12, 5, 1]``, or ``[n_sum, n_mult]`` where a layer has product nodes."""
    nodes: list[int | list[int]] = [layers[0].n_in]
    return nodes + [[layer.n_sum, len(layer.mult_arity)] if layer.mult_arity else layer.n_sum for layer in layers]
