"""The parts of a model: modules whose weights determine their layers, except for choices that are left open.

A part is one module of the original model: a Linear, a KAN layer, a whole pykan KAN, an LSTM. Its shapes are in the
file. What the file leaves open are its choices, each with the library's default first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.manifest import Statement
from kanmodel.importers.pickles import GlobalName, Placeholder
from kanmodel.importers.source import Module
from kanmodel.network.config import LAYER_NORM_EPS, LayerConfig, RecurrentConfig, Transform
from kanmodel.network.functions import ACTIVATIONS

Tensors = Mapping[str, Tensor]
Chosen = Mapping[str, str]  # choice -> option
BASES = ("silu", "identity", "zero", "gelu", "relu")  # common base functions; others must be stated by the module
CLASSES = {
    **{"ReLU": "relu", "LeakyReLU": "leaky_relu", "ELU": "elu", "SELU": "selu", "GELU": "gelu", "SiLU": "silu"},
    **{"Mish": "mish", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus", "Softsign": "softsign"},
    **{"ReLU6": "relu6", "Hardtanh": "hardtanh", "Hardsigmoid": "hardsigmoid", "Hardswish": "hardswish"},
    "Identity": "identity",
}  # of torch.nn
PARAMETERS = {"LeakyReLU": "negative_slope", "ELU": "alpha", "Softplus": "beta"}
BASE_NAMES = ("base_activation", "base_fun", "base_act")


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

    step: Transform
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

    @classmethod
    def of(
        cls, library: str, place: str, item: Item, names: Iterable[str], sizes: str = "",
        choices: Mapping[str, tuple[str, ...]] | None = None, read: Callable[[Chosen], Item] | None = None,
    ) -> Part:  # fmt: skip
        """A part of one item, which may depend on choices, with the tensors `names`; `sizes` follow its widths."""
        n_in = item.config.n_in if isinstance(item, Layer) else len(item.weight)
        n_out = item.config.n_out if isinstance(item, Layer) else n_in
        widths = f"{n_in} to {n_out}" if isinstance(item, Layer) else f"of {n_in}"
        keys = keys_of(place, names)
        return cls(
            place, library, n_in, n_out, keys, lambda chosen: (read(chosen) if read else item,), choices or {},
            widths + sizes,
        )  # fmt: skip

    def items(self, chosen: Chosen) -> tuple[Item, ...]:
        """Its items for the given options; an option that it does not have is replaced by its first."""
        return self.read(
            {
                name: chosen[name] if chosen.get(name) in options else options[0]
                for name, options in self.choices.items()
            }
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
    open: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
        stated: the user's statement.
        module: the module tree; None if the file has none.
        n_entering: number of values that enter the KAN that the stated `input_id` is about.
    """

    stated: Statement = field(default_factory=Statement)
    module: Module | None = None
    n_entering: int = 1 << 16

    def bases(self, place: str) -> tuple[str, ...]:
        """The options of a part's base function: the known one, or the common ones."""
        config = self.stated.pykan_config
        stated = self.stated.base_activation or (config and config.base_activation)
        if stated:
            return (stated,)
        for at in (place, f"{start_of(place)}act_fun.0"):
            name = self.value(at, "base_fun_name")
            if isinstance(name, str) and name in ("silu", "identity", "zero"):
                return (name,)
            for key in BASE_NAMES:
                known = activation_of(self.value(at, key))
                if known is not None and "(" not in known:
                    return (known,)
        return BASES

    def eps(self, place: str) -> float:
        """The eps of a normalisation, torch's default if it is not known."""
        return self._positive(place, "eps") or LAYER_NORM_EPS

    def denominator(self, place: str) -> float | None:
        """The width of a part's bumps."""
        return self.stated.denominator or self._positive(f"{start_of(place)}rbf", "denominator")

    def value(self, place: str, name: str) -> object:
        """An attribute or a child of the module at a place; None if there is none."""
        module = None if self.module is None else self.module.find(place)
        return None if module is None else module.values.get(name, module.children.get(name))

    def _positive(self, place: str, name: str) -> float | None:
        found = self.value(place, name)
        return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) and found > 0 else None


def activation_of(value: object) -> str | None:
    """The activation that a module, function, class or name stands for, such as ``leaky_relu(0.2)``."""
    name = value if isinstance(value, str) else ""
    if isinstance(value, (Module, GlobalName, Placeholder)):
        library, _, name = (value.class_name if isinstance(value, Module) else value.name).rpartition(".")
        if not library.startswith("torch.nn." if isinstance(value, Module) else "torch"):
            return None
    if isinstance(value, Module):
        if name == "GELU" and value.values.get("approximate") == "tanh":
            return "gelu_tanh"
        known, parameter = CLASSES.get(name), value.values.get(PARAMETERS.get(name, ""))
        if known is None or not isinstance(parameter, (int, float)) or parameter == ACTIVATIONS[known].parameter:
            return known
        return f"{known}({parameter:g})"
    lower = name.lower().replace("-", "_") if isinstance(value, str) else name
    return CLASSES.get(name, lower if lower in ACTIVATIONS else None)


def start_of(place: str) -> str:
    """The prefix of keys at a place."""
    return f"{place}." if place else ""


def keys_under(tensors: Tensors, place: str) -> dict[str, Tensor]:
    """The tensors below a place, by the rest of the key."""
    start = start_of(place)
    return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}


def fit(
    found: Tensors, place: str, library: str, axes: Mapping[str, str], known: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The sizes of the named axes of tensors at a place.

    Args:
        found: tensors by the rest of their keys.
        place: prefix of the keys, for errors.
        library: name of the library that has these tensors, for errors.
        axes: names of the axes by the name of the tensor, such as ``{"coef": "out in 4", "bias?": "out"}``; a number
            is the size of an axis, and a tensor whose name ends with ? may be missing.
        known: sizes of axes that are known already.

    Raises:
        CheckpointError: a tensor is missing, has another number of axes, an empty axis, or does not fit the others.
    """
    sizes = dict(known or {})
    for name, named in axes.items():
        key, expected = name.removesuffix("?"), [int(a) if a.isdigit() else sizes.get(a) for a in named.split()]
        if key not in found:
            if key == name:
                raise CheckpointError(f"lacks {start_of(place)}{key}, which {library} has")
            continue
        shape = list(found[key].shape)
        if None in expected:
            if len(shape) != len(expected) or 0 in shape:
                raise CheckpointError(
                    f"has {start_of(place)}{key} of shape {shape}, which should have {len(expected)} axes"
                )
            expected = [n if size is None else size for n, size in zip(shape, expected, strict=True)]
        if shape != expected:
            raise CheckpointError(
                f"has {start_of(place)}{key} of shape {shape}, but the other tensors imply {expected}"
            )
        sizes |= dict(zip(named.split(), shape, strict=True))
    return sizes


def keys_of(place: str, names: Iterable[str]) -> frozenset[str]:
    """Full keys of the tensors with those names at a place; a ? at the end of a name is left out."""
    return frozenset(start_of(place) + name.removesuffix("?") for name in names)


def spline_shape(place: str, n_coef: int, n_knots: int, extended: bool = True) -> tuple[int, int]:
    """Grid size G and order k of splines, from the numbers of their coefficients and knots.

    A spline has G + k coefficients and G + 2k + 1 knots, or G + 1 without those beyond the core interval; raises
    `CheckpointError` for other numbers.
    """
    order = n_knots - n_coef - 1 if extended else n_coef - n_knots + 1
    if order < 0 or n_coef - order < 1:
        raise CheckpointError(f"has {n_coef} coefficients on {n_knots} knots in {place}, which fit no spline")
    return n_coef - order, order
