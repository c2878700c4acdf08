"""The interface of the libraries: from tensors and `Metadata` to `Part`s, with layers and choices that are left open.

A part is one module of the original model: a Linear, a KAN layer, a whole pykan KAN, an LSTM. Its shapes are in the
file. What the file leaves open are its choices, each with the library's default first.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kanmodel.checks import MAX_SIZE
from kanmodel.errors import CheckpointError
from kanmodel.importers.documents import read_document
from kanmodel.importers.pickles import GlobalName, Placeholder
from kanmodel.importers.source import N_ENTERING, Module
from kanmodel.network.config import LayerConfig, RecurrentConfig, Step
from kanmodel.network.functions import ACTIVATIONS

Shape = tuple[int, ...]
Tensors = Mapping[str, Tensor]
Chosen = Mapping[str, str]  # choice -> option
BASES = ("silu", "identity", "zero", "gelu", "relu")  # common base functions; others must be stated by the module
NORM_EPS = 1e-5
CLASSES = {
    **{"ReLU": "relu", "LeakyReLU": "leaky_relu", "ELU": "elu", "SELU": "selu", "GELU": "gelu", "SiLU": "silu"},
    **{"Mish": "mish", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus", "Softsign": "softsign"},
    **{"ReLU6": "relu6", "Hardtanh": "hardtanh", "Hardsigmoid": "hardsigmoid", "Hardswish": "hardswish"},
    "Identity": "identity",
}  # of torch.nn
PARAMETERS = {"LeakyReLU": "negative_slope", "ELU": "alpha", "Softplus": "beta"}
BASE_NAMES = ("base_activation", "base_fun", "base_act")

# numbers of factors of the product nodes: a tuple for every entry of the width, or one number for all
Arities = tuple[tuple[int, ...], ...] | int


@dataclass(frozen=True)
class PykanConfig:
    """What a state_dict of pykan does not contain.

    Attributes:
        name: the file's name, for errors.
        width: nodes per layer, each (n_sum, n_product).
        mult_arity: number of factors of the product nodes.
        base_activation: silu, identity or zero.
        symbolic_enabled: whether symbolic edges are evaluated at all.
        function_names: names of the symbolic edges' functions, [layer][sub-node][input].
    """

    name: str
    width: tuple[tuple[int, int], ...]
    mult_arity: Arities
    base_activation: str
    symbolic_enabled: bool
    function_names: tuple[tuple[tuple[str, ...], ...], ...]


@dataclass(frozen=True)
class Layer:
    """A layer of edges and its tensors, by their names in a `KANLayer`; missing ones are neutral."""

    config: LayerConfig
    tensors: Tensors


@dataclass(frozen=True)
class Norm:
    """A normalisation between layers, with a scale and a bias for each node.

    Attributes:
        step: the kind of normalisation.
        weight: the scale.
        bias: the bias.
        statistics: training mean and standard deviation that scale and bias contain; None if there are none.
    """

    step: Step
    weight: Tensor
    bias: Tensor
    statistics: tuple[Tensor, Tensor] | None = None


Item = Layer | Norm


@dataclass(frozen=True)
class Part:
    """Consecutive layers that form one module of the file.

    Attributes:
        place: prefix of its keys, without the dot.
        library: display name of its library.
        n_in: number of inputs.
        n_out: number of outputs.
        keys: keys of its tensors.
        read: returns its items, given an option for each choice.
        choices: options by name of the choice, the library's default first, or the only one. A choice is shared by all
            parts of a file that have it.
        description: its size, in words.
        problem: why it cannot be read without further information, starting with a verb; None if it can.
    """

    place: str
    library: str
    n_in: int
    n_out: int
    keys: frozenset[str]
    read: Callable[[Chosen], tuple[Item, ...]]
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    description: str = ""
    problem: str | None = None

    def items(self, chosen: Chosen) -> tuple[Item, ...]:
        """Its items for the given options; an option that it does not have is replaced by its first."""
        mine = {name: chosen.get(name, options[0]) for name, options in self.choices.items()}
        return self.read(
            {name: mine[name] if mine[name] in self.choices[name] else self.choices[name][0] for name in mine}
        )

    @property
    def open(self) -> dict[str, tuple[str, ...]]:
        """The choices that the file leaves open."""
        return {name: options for name, options in self.choices.items() if len(options) > 1}


@dataclass(frozen=True)
class RecurrentPart:
    """An LSTM or a GRU: its tensors by torch's names, and otherwise as a `Part`."""

    place: str
    config: RecurrentConfig
    n_in: int
    tensors: Tensors
    keys: frozenset[str]

    @property
    def n_out(self) -> int:
        """Number of outputs per step."""
        return self.config.n_units

    @property
    def library(self) -> str:
        """LSTM or GRU."""
        return self.config.cell.upper()

    @property
    def description(self) -> str:
        """Its size, in words."""
        layers = "1 layer" if self.config.num_layers == 1 else f"{self.config.num_layers} layers"
        direction = ", bidirectional" if self.config.bidirectional else ""
        bias = "" if self.config.bias else ", without bias"
        return f"{self.n_in} inputs, {self.config.hidden_size} units, {layers}{direction}{bias}"


AnyPart = Part | RecurrentPart


@dataclass(frozen=True)
class Metadata:
    """What is known of a file's parts besides their tensors: what the user states, else what its modules have.

    Attributes:
        module: the module tree; None if the file has none.
        library: library of the KANs; None if not stated, like the following ones.
        base_activation: the activation added to the basis.
        stated_denominator: the width of the bumps of an early FasterKAN.
        mult_arity: number of factors of pykan's product nodes.
        config: the configuration that pykan wrote beside the weights.
        input_id: the inputs that pykan's prune_input kept.
        n_entering: number of values that enter the KAN that `input_id` is about.
    """

    module: Module | None = None
    library: str | None = None
    base_activation: str | None = None
    stated_denominator: float | None = None
    mult_arity: Arities | None = None
    config: PykanConfig | None = None
    input_id: tuple[int, ...] | None = None
    n_entering: int = 1 << 16

    def bases(self, place: str) -> tuple[str, ...]:
        """The options of a part's base function: the known one, or the common ones."""
        if self.base_activation is not None:
            return (self.base_activation,)
        if self.config is not None:
            return (self.config.base_activation,)
        for at in (place, f"{start_of(place)}act_fun.0"):
            name = self._value(at, "base_fun_name")
            if isinstance(name, str) and name in ("silu", "identity", "zero"):
                return (name,)
            for key in BASE_NAMES:
                known = activation_of(self._value(at, key))
                if known is not None and "(" not in known:
                    return (known,)
        return BASES

    def eps(self, place: str) -> float | None:
        """The eps of a normalisation."""
        return self._positive(place, "eps")

    def denominator(self, place: str) -> float | None:
        """The width of a part's bumps."""
        return self.stated_denominator or self._positive(f"{start_of(place)}rbf", "denominator")

    def text(self, place: str, name: str) -> str | None:
        """An attribute of a part that is a text."""
        found = self._value(place, name)
        return found if isinstance(found, str) else None

    def pykan_config(self, place: str) -> PykanConfig | None:
        """The configuration of pykan beside the weights, or as its saveckpt would write it for the module."""
        module = None if self.module is None else self.module.find(place)
        if self.config is not None or module is None or "symbolic_fun" not in module.children:
            return self.config
        document = {
            "width": module.values.get("width"),
            "mult_arity": module.values.get("mult_arity", 2),
            "base_fun_name": module.values.get("base_fun_name", "silu"),
            "symbolic_enabled": module.values.get("symbolic_enabled", True),
        }
        for number, layer in module.children["symbolic_fun"].children.items():
            document[f"symbolic.funs_name.{number}"] = layer.values.get("funs_name")
        try:
            return parse_pykan_config(_as_lists(document), "its module")
        except CheckpointError:
            return None

    def kept_inputs(self, place: str) -> tuple[tuple[int, ...], int] | None:
        """The inputs of a pykan KAN that prune_input kept, and the number before."""
        if self.input_id is not None:
            return self.input_id, self.n_entering
        kept, n_entering = self._value(place, "input_id"), self._value(place, N_ENTERING)
        if not isinstance(kept, Tensor) or not isinstance(n_entering, int) or len(kept) == n_entering:
            return None
        return tuple(map(int, kept.tolist())), n_entering

    def _value(self, place: str, name: str) -> object:
        module = None if self.module is None else self.module.find(place)
        return None if module is None else module.values.get(name, module.children.get(name))

    def _positive(self, place: str, name: str) -> float | None:
        found = self._value(place, name)
        return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) and found > 0 else None


def read_pykan_config(path: Path) -> PykanConfig:
    """Reads those keys of a ``*_config.yml``, which saveckpt writes beside the weights, that change the function.

    Raises:
        CheckpointError: it cannot be read, has Python objects, or lacks a key.
    """
    return parse_pykan_config(read_document(path), path.name)


def parse_pykan_config(document: Mapping[str, Any], name: str) -> PykanConfig:
    """`read_pykan_config` of a parsed document; `name` is for errors."""
    try:
        width = tuple(_layer_width(layer) for layer in _list(document, "width"))
        base = document.get("base_fun_name", "silu")
        if base not in ("silu", "identity", "zero"):
            raise CheckpointError(f"has the base_fun_name {reprlib.repr(base)}, not silu, identity or zero")
        enabled = document.get("symbolic_enabled", True)
        if not isinstance(enabled, bool):
            raise CheckpointError("has a symbolic_enabled that is not true or false")
        names = []
        for key in (f"symbolic.funs_name.{layer}" for layer in range(len(width) - 1) if enabled):
            rows = _list(document, key)
            if not all(isinstance(row, list) and all(isinstance(name, str) for name in row) for row in rows):
                raise CheckpointError(f"has a {key} that is not a table of names")
            names.append(tuple(tuple(row) for row in rows))
        return PykanConfig(name, width, parse_arities(document.get("mult_arity", 2)), base, enabled, tuple(names))
    except CheckpointError as error:
        raise CheckpointError(f"{name} {error}") from error


def parse_arities(value: Any) -> Arities:
    """One arity for all product nodes, or a list with one list for every entry of the width, as pykan takes them.

    Raises:
        CheckpointError: it is neither; the message starts with a verb.
    """
    if _is_count(value) and value >= 2:
        return int(value)
    lists = isinstance(value, list) and all(isinstance(layer, list) for layer in value)
    if lists and all(_is_count(arity) and arity >= 2 for layer in value for arity in layer):
        return tuple(tuple(layer) for layer in value)
    raise CheckpointError(
        "has a mult_arity that is neither a number from 2 nor a list with a list of them for every entry of the width"
    )


def _is_count(value: object) -> bool:
    """Whether a value is a plausible number of nodes or factors."""
    return type(value) is int and 0 <= value <= MAX_SIZE


def _layer_width(layer: Any) -> tuple[int, int]:
    if _is_count(layer):
        return int(layer), 0
    if isinstance(layer, list) and len(layer) == 2 and all(map(_is_count, layer)):
        return int(layer[0]), int(layer[1])
    raise CheckpointError(f"has {reprlib.repr(layer)} in its width, not a number of nodes")


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise CheckpointError(f"lacks the list {key}" if value is None else f"has a {key} that is not a list")
    return value


def _as_lists(value: object) -> Any:
    """The value with tuples converted to lists, as in a document."""
    if isinstance(value, dict):
        return {key: _as_lists(part) for key, part in value.items()}
    return [_as_lists(part) for part in value] if isinstance(value, (list, tuple)) else value


def activation_of(value: object) -> str | None:
    """The activation that a module, function, class or name stands for, such as ``leaky_relu(0.2)``."""
    if isinstance(value, Module):
        library, _, name = value.class_name.rpartition(".")
        if not library.startswith("torch.nn.") or name not in CLASSES:
            return None
        if name == "GELU" and value.values.get("approximate") == "tanh":
            return "gelu_tanh"
        return _with_parameter(CLASSES[name], value.values.get(PARAMETERS.get(name, "")))
    if isinstance(value, (GlobalName, Placeholder)):
        library, _, name = value.name.rpartition(".")
        if not library.startswith("torch"):
            return None
        return CLASSES.get(name, name if name in ACTIVATIONS else None)
    if isinstance(value, str):
        name = value.lower().replace("-", "_")
        return CLASSES.get(value, name if name in ACTIVATIONS else None)
    return None


def _with_parameter(name: str, parameter: object) -> str:
    if not isinstance(parameter, (int, float)) or parameter == ACTIVATIONS[name].parameter:
        return name
    return f"{name}({parameter:g})"


def keys_under(tensors: Tensors, place: str) -> dict[str, Tensor]:
    """The tensors below a place, by the rest of the key."""
    start = start_of(place)
    return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}


def start_of(place: str) -> str:
    """The prefix of keys at a place."""
    return f"{place}." if place else ""


def places_of(tensors: Iterable[str], name: str) -> list[str]:
    """The places of all tensors with a name, in the order of the file."""
    return [key.removesuffix(name).removesuffix(".") for key in tensors if key == name or key.endswith(f".{name}")]


def shape_of(tensors: Tensors, key: str, n_axes: int, place: str) -> Shape:
    """The shape of a required tensor; it must have `n_axes` axes, none of them empty."""
    if key not in tensors:
        raise CheckpointError(f"lacks {start_of(place)}{key}")
    shape = tuple(tensors[key].shape)
    if len(shape) != n_axes or 0 in shape:
        raise CheckpointError(f"has {start_of(place)}{key} of shape {list(shape)}, which should have {n_axes} axes")
    return shape


def compare_shapes(tensors: Tensors, expected: Mapping[str, Shape], place: str, library: str) -> None:
    """Raises for the first tensor at a place that is missing or has another shape.

    Args:
        tensors: by the rest of their keys.
        expected: the shapes of all tensors of the library.
        place: prefix of their keys.
        library: its name, for errors.
    """
    for key, shape in expected.items():
        if key not in tensors:
            raise CheckpointError(f"lacks {start_of(place)}{key}, which {library} has")
        if tuple(tensors[key].shape) != shape:
            raise CheckpointError(
                f"has {start_of(place)}{key} of shape {list(tensors[key].shape)}, but the other tensors imply "
                f"{list(shape)}"
            )


def keys_of(place: str, names: Iterable[str]) -> frozenset[str]:
    """Full keys of the tensors with those names at a place."""
    return frozenset(start_of(place) + name for name in names)


def spline_shape(place: str, n_coef: int, n_knots: int, extended: bool = True) -> tuple[int, int]:
    """Grid size G and order k of splines, from the numbers of their coefficients and knots.

    A spline has G + k coefficients and G + 2k + 1 knots, or G + 1 without those beyond the core interval.
    """
    order = n_knots - n_coef - 1 if extended else n_coef - n_knots + 1
    if order < 0 or n_coef - order < 1:
        raise CheckpointError(f"has {n_coef} coefficients on {n_knots} knots in {place}, which fit no spline")
    return n_coef - order, order


def affine_of(tensors: Tensors, eps: float) -> tuple[Tensor, Tensor]:
    """Scale and bias of a BatchNorm in evaluation mode (Ioffe and Szegedy 2015, arXiv 1502.03167), in float64."""
    mean, variance = tensors["running_mean"].double(), tensors["running_var"].double()
    scale = 1 / torch.sqrt(variance + eps)
    if "weight" in tensors:
        scale = scale * tensors["weight"].double()
    bias = tensors["bias"].double() if "bias" in tensors else torch.zeros_like(mean)
    return scale, bias - mean * scale
