"""The architecture and the units of a forecaster, as frozen data.

Nothing here computes: a config says what a checkpoint holds, and is refused with one sentence if it cannot exist.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from math import inf, isfinite
from typing import Any, Literal, get_args

from kanmodel.errors import ConfigError

BaseActivation = Literal["silu", "identity", "zero"]
Basis = Literal["bspline", "gaussian", "sech2"]
Readout = Literal["last", "mean"]
DType = Literal["float32", "float64"]

# pykan's names of the functions that a symbolic edge may hold; `kanmodel.functions` has the functions
FUNCTION_NAMES = (
    *("0", "x", "x^2", "x^3", "x^4", "x^5", "1/x", "1/x^2", "1/x^3", "1/x^4", "1/x^5", "sqrt", "x^0.5", "x^1.5"),
    *("1/sqrt(x)", "1/x^0.5", "exp", "log", "abs", "sin", "cos", "tan", "tanh", "sgn"),
    *("arcsin", "arccos", "arctan", "arctanh", "gaussian"),
)
MAX_SIZE = 1 << 16  # of whatever a document counts: a hostile one must not exhaust the memory
MAX_LAYERS = 1 << 8  # of a KAN: what is computed for each layer from all of them must not exhaust the time


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
    """

    name: str
    unit: str | None = None
    mean: float = 0.0
    std: float = 1.0
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class Target:
    """One forecast column.

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


@dataclass(frozen=True)
class SymbolicEdge:
    """An edge that also holds a fixed function c f(a x + b) + d, as pykan's `fix_symbolic` makes one.

    Attributes:
        layer: layer of the node it leaves.
        i: number of that node.
        j: number of the sub-node it enters.
        function: pykan's name of f.
    """

    layer: int
    i: int
    j: int
    function: str


@dataclass(frozen=True)
class KANConfig:
    """A Kolmogorov-Arnold network (Liu et al. 2024, arXiv 2404.19756) with product nodes (arXiv 2408.10205).

    Attributes:
        width: nodes per layer from inputs to outputs, each (n_sum, n_product); inputs are sum nodes.
        grid_size: grid intervals G of each layer of edges; one number a layer.
        spline_order: order k of the splines (3: cubic), the same in every layer.
        base_activation: what is added to every spline: silu, identity or zero.
        mult_arity: number of factors of each product node, one tuple per entry of `width`.
        symbolic: the edges that hold a fixed function beside their spline.
        basis: what the splines are made of: ``bspline``; ``gaussian``, exp(-((u - c) / denominator)^2) as fast-kan has
            (Li 2024, arXiv 2405.06721); or ``sech2``, 1 - tanh((u - c) / denominator)^2 as FasterKAN has (Delis 2024).
            Of the last two `grid_size` counts the centres c, and `spline_order` is 0.
        layer_norm: whether each layer's splines act on the layer-normalised inputs u, not on the inputs themselves; one
            flag a layer. The base always acts on the inputs.
        denominator: width of each layer's gaussian or sech2 bumps; empty for B-splines.
    """

    width: tuple[tuple[int, int], ...]
    grid_size: tuple[int, ...]
    spline_order: int = 3
    base_activation: BaseActivation = "silu"
    mult_arity: tuple[tuple[int, ...], ...] = ()
    symbolic: tuple[SymbolicEdge, ...] = ()
    basis: Basis = "bspline"
    layer_norm: tuple[bool, ...] = ()
    denominator: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.mult_arity:
            object.__setattr__(self, "mult_arity", tuple((2,) * n_mult for _, n_mult in self.width))
        if not self.layer_norm:
            object.__setattr__(self, "layer_norm", (False,) * self.depth)
        if len(self.width) < 2:
            raise ConfigError(f"a KAN needs an input and an output layer, but width is {list(self.width)}")
        if self.depth > MAX_LAYERS:
            raise ConfigError(f"a KAN has at most {MAX_LAYERS} layers, but width implies {self.depth}")
        if self.width[0][1]:
            raise ConfigError(f"the first layer of a KAN has inputs only, but width[0] is {list(self.width[0])}")
        for layer, (n_sum, n_mult) in enumerate(self.width):
            if n_sum < 0 or n_mult < 0 or n_sum + n_mult < 1:
                raise ConfigError(f"width[{layer}] must hold at least one node, but is {[n_sum, n_mult]}")
        if len(self.grid_size) != self.depth or min(self.grid_size) < 1:
            raise ConfigError(
                f"grid_size must be one positive number for each of {self.depth} layers, but is {list(self.grid_size)}"
            )
        if self.spline_order < 0:
            raise ConfigError(f"spline_order must not be negative, but is {self.spline_order}")
        if self.base_activation not in get_args(BaseActivation):
            raise ConfigError(f"base_activation must be silu, identity or zero, but is {self.base_activation!r}")
        arities = [len(layer) for layer in self.mult_arity]
        if arities != [n_mult for _, n_mult in self.width] or any(a < 2 for layer in self.mult_arity for a in layer):
            raise ConfigError(
                f"mult_arity must give at least two factors for each product node of width {list(self.width)}, "
                f"but is {[list(layer) for layer in self.mult_arity]}"
            )

        self._refuse_other_bases()
        for edge in self.symbolic:
            self._refuse_symbolic(edge)

    def _refuse_other_bases(self) -> None:
        if self.basis not in get_args(Basis):
            raise ConfigError(f"basis must be bspline, gaussian or sech2, but is {self.basis!r}")
        if len(self.layer_norm) != self.depth or any(type(flag) is not bool for flag in self.layer_norm):
            raise ConfigError(
                f"layer_norm must be one flag for each of {self.depth} layers, but is {list(self.layer_norm)}"
            )
        widths = 0 if self.basis == "bspline" else self.depth
        if len(self.denominator) != widths or any(not 0 < width < inf for width in self.denominator):
            raise ConfigError(f"denominator must be {widths} positive numbers, but is {list(self.denominator)}")
        if self.basis != "bspline" and self.spline_order != 0:
            raise ConfigError(f"spline_order belongs to B-splines and must be 0, but is {self.spline_order}")

    def _refuse_symbolic(self, edge: SymbolicEdge) -> None:
        place = f"symbolic edge ({edge.layer}, {edge.i}, {edge.j})"
        if not 0 <= edge.layer < self.depth:
            raise ConfigError(f"{place} is in no layer from 0 to {self.depth - 1}")
        if not (0 <= edge.i < self.n_nodes[edge.layer] and 0 <= edge.j < self.n_subnodes[edge.layer + 1]):
            raise ConfigError(f"{place} does not exist in width {list(self.width)}")
        if edge.function not in FUNCTION_NAMES:
            raise ConfigError(f"{place} has the function {edge.function!r}; there are {', '.join(FUNCTION_NAMES)}")

    @property
    def has_knots(self) -> bool:
        """Whether the edges are B-splines, whose knots can move; radial bases have fixed centres."""
        return self.basis == "bspline"

    @property
    def depth(self) -> int:
        """Number of layers of edges."""
        return len(self.width) - 1

    @property
    def n_nodes(self) -> tuple[int, ...]:
        """Nodes per layer, sum and product nodes together."""
        return tuple(n_sum + n_mult for n_sum, n_mult in self.width)

    @property
    def n_subnodes(self) -> tuple[int, ...]:
        """Sub-nodes per layer: one for a sum node, one for each factor of a product node."""
        return tuple(n_sum + sum(arity) for (n_sum, _), arity in zip(self.width, self.mult_arity, strict=True))

    def node_of_subnode(self, layer: int) -> tuple[int, ...]:
        """The node of `layer` that each of its sub-nodes belongs to."""
        n_sum = self.width[layer][0]
        factors = [n_sum + m for m, arity in enumerate(self.mult_arity[layer]) for _ in range(arity)]
        return (*range(n_sum), *factors)

    @classmethod
    def uniform(cls, width: list[int], grid_size: int = 5, **options: Any) -> KANConfig:
        """A KAN of sum nodes with one grid size: ``KANConfig.uniform([12, 5, 1])``."""
        return cls(tuple((n, 0) for n in width), (grid_size,) * (len(width) - 1), **options)


@dataclass(frozen=True)
class LSTMConfig:
    """An LSTM (Hochreiter and Schmidhuber 1997) as `torch.nn.LSTM` has it.

    Attributes:
        hidden_size: units per direction.
        num_layers: stacked layers.
        bidirectional: whether a second direction reads the window backwards.
        bias: whether the gates have biases.
        readout: what the head sees: the output at the ``last`` step, ``out[:, -1]`` for both directions, or the
            ``mean`` over steps.
    """

    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    readout: Readout = "last"

    def __post_init__(self) -> None:
        if self.hidden_size < 1 or self.num_layers < 1:
            raise ConfigError(
                f"an LSTM needs hidden_size and num_layers of at least 1, "
                f"but has {self.hidden_size} and {self.num_layers}"
            )
        if self.readout not in get_args(Readout):
            raise ConfigError(f"readout must be last or mean, but is {self.readout!r}")

    @property
    def n_units(self) -> int:
        """Units of the readout, both directions in a row."""
        return self.hidden_size * (2 if self.bidirectional else 1)


@dataclass(frozen=True)
class ModelConfig:
    """A forecaster: [front KAN per step] -> [LSTM] -> head KAN.

    Attributes:
        features: input columns, in the order of a window's last axis.
        targets: forecast columns.
        lookback: steps of a window.
        horizon: forecast steps; output ``{target}+{step}`` with steps outermost.
        head: the KAN that gives the forecasts; its inputs are the LSTM's units, or the features where there is no LSTM.
        lstm: the LSTM; None for a KAN alone, whose lookback is 1.
        front: a KAN on the features of each step before the LSTM; None where there is none.
        dtype: the type of every weight.
    """

    features: tuple[Feature, ...]
    targets: tuple[Target, ...]
    lookback: int
    horizon: int
    head: KANConfig
    lstm: LSTMConfig | None = None
    front: KANConfig | None = None
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        for kind, names in (("feature", self.feature_names), ("target", tuple(t.name for t in self.targets))):
            repeated = sorted(name for name, count in Counter(names).items() if count > 1)
            if not names or repeated:
                raise ConfigError(f"{kind} names must be at least one and unique, but {repeated or 'none'} given")
        if self.lookback < 1 or self.horizon < 1:
            raise ConfigError(f"lookback and horizon must be at least 1, but are {self.lookback} and {self.horizon}")
        if self.dtype not in get_args(DType):
            raise ConfigError(f"dtype must be float32 or float64, but is {self.dtype!r}")
        if self.lstm is None and self.front is not None:
            raise ConfigError("a front KAN needs an LSTM behind it; without one, make the head deeper")
        if self.lstm is None and self.lookback != 1:
            raise ConfigError(f"a KAN without LSTM reads one step, but lookback is {self.lookback}")
        if self.front is not None and self.front.n_nodes[0] != len(self.features):
            raise ConfigError(f"the front KAN has {self.front.n_nodes[0]} inputs for {len(self.features)} features")
        n_head = self.lstm.n_units if self.lstm else len(self.features)
        if self.head.n_nodes[0] != n_head:
            raise ConfigError(f"the head KAN has {self.head.n_nodes[0]} inputs, but {n_head} values reach it")
        n_outputs = self.horizon * len(self.targets)
        if self.head.n_nodes[-1] != n_outputs:
            raise ConfigError(f"the head KAN has {self.head.n_nodes[-1]} outputs, but horizon x targets is {n_outputs}")

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


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """The config as plain JSON values."""
    return asdict(config)


def config_from_dict(data: dict[str, Any]) -> ModelConfig:
    """The config that `config_to_dict` wrote.

    Raises:
        ConfigError: a key is missing, unknown, or holds a value of another kind.
    """
    try:
        document = known_fields(ModelConfig, data)
        document["features"] = tuple(Feature(**known_fields(Feature, f)) for f in document["features"])
        document["targets"] = tuple(Target(**known_fields(Target, t)) for t in document["targets"])
        document["head"] = _kan_from_dict(document["head"])
        front, lstm = document.get("front"), document.get("lstm")
        document["front"] = None if front is None else _kan_from_dict(front)
        document["lstm"] = None if lstm is None else LSTMConfig(**known_fields(LSTMConfig, lstm))
        return ModelConfig(**document)
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        raise ConfigError(f"the config does not describe a model: {error}") from error


def _kan_from_dict(data: dict[str, Any]) -> KANConfig:
    document = known_fields(KANConfig, data)
    document["width"] = tuple((_size(n_sum), _size(n_mult)) for n_sum, n_mult in document["width"])
    document["grid_size"] = tuple(_size(g) for g in document["grid_size"])
    document["mult_arity"] = tuple(tuple(_size(a) for a in layer) for layer in document["mult_arity"])
    document["symbolic"] = tuple(
        SymbolicEdge(**known_fields(SymbolicEdge, edge)) for edge in document.get("symbolic", ())
    )
    document["layer_norm"] = tuple(document.get("layer_norm", ()))
    document["denominator"] = tuple(_width(width) for width in document.get("denominator", ()))
    return KANConfig(**document)


def _size(value: object) -> int:
    if type(value) is not int or value > MAX_SIZE:
        raise ValueError(f"{value!r} is not a number up to {MAX_SIZE}")
    return value


def _width(value: object) -> float:
    if type(value) is not int and type(value) is not float:
        raise ValueError(f"{value!r} is not a width")
    return float(value)


def known_fields(cls: type, data: dict[str, Any]) -> dict[str, Any]:
    """A copy of JSON values for a dataclass.

    Raises:
        ConfigError: a key is not a field of `cls`, or its value is of another kind than the field, or is not finite.
    """
    kinds = {f.name: str(f.type) for f in fields(cls)}
    unknown = sorted(set(data) - set(kinds))
    if unknown:
        raise ConfigError(f"the config of {cls.__name__} has an unknown key {unknown[0]!r}")
    for name, value in data.items():
        if not _is_of_kind(value, kinds[name]):
            raise ConfigError(f"{name} of {cls.__name__} must be of type {kinds[name]}, but is {value!r}")
    return dict(data)


def _is_of_kind(value: object, kind: str) -> bool:
    """Whether a JSON value can be what a field is declared as; what is in a list or an object is looked at later."""
    if value is None:
        return "None" in kind
    if kind.startswith("float"):
        return type(value) in (int, float) and isfinite(value)  # type: ignore[arg-type]
    if kind.startswith(("tuple", "KANConfig", "LSTMConfig")):
        return isinstance(value, (list, tuple, dict))
    if kind == "int":
        return type(value) is int and value <= MAX_SIZE
    return isinstance(value, bool if kind == "bool" else str)
