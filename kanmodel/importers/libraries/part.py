"""`Part`, the interface of the libraries: a part of a file, with its layers and the choices that the file leaves open.

A part is one module of the original model: a Linear, a KAN layer, a whole pykan KAN, an LSTM. Its shapes are in the
file. What the file leaves open are its choices, each with the library's default first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.pykan_config import PykanConfig
from kanmodel.network.config import LayerConfig, RecurrentConfig, Step

Shape = tuple[int, ...]
Tensors = Mapping[str, Tensor]
Chosen = Mapping[str, str]  # choice -> option
BASES = ("silu", "identity", "zero", "gelu", "relu")  # common base functions; others must be stated by the module
NORM_EPS = 1e-5


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
class Facts:
    """Facts that tensors do not contain, from the module tree or the manifest; None if unknown.

    Attributes:
        base: by place of a part, the activation added to its basis.
        eps: by place of a normalisation.
        text: by place of a part and name, the value of an attribute.
        denominator: by place of a part, the width of its bumps.
        library: library of the KANs.
        mult_arity: number of factors of pykan's product nodes: of all, or a tuple for every entry of the width.
        pykan_config: by place of a KAN, the configuration that pykan wrote beside the weights or stores in its modules.
        kept_inputs: by place of a pykan KAN, the inputs that prune_input kept, and the number before.
    """

    base: Callable[[str], str | None] = lambda place: None
    eps: Callable[[str], float | None] = lambda place: None
    text: Callable[[str, str], str | None] = lambda place, name: None
    denominator: Callable[[str], float | None] = lambda place: None
    library: str | None = None
    mult_arity: tuple[tuple[int, ...], ...] | int | None = None
    pykan_config: Callable[[str], PykanConfig | None] = lambda place: None
    kept_inputs: Callable[[str], tuple[tuple[int, ...], int] | None] = lambda place: None

    def bases(self, place: str) -> tuple[str, ...]:
        """The options of the base function: the known one, or the common ones."""
        known = self.base(place)
        return BASES if known is None else (known,)


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
