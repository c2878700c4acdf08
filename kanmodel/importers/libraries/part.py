"""What every library offers: the parts that it finds in a file, each with the layers that its weights are.

A part is what someone wrote as one module: a Linear, a layer of a KAN, a whole KAN of pykan, an LSTM. Its shapes are in
the file. What the file leaves open are its choices, each with the library's own way first.
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
Chosen = Mapping[str, str]  # an option of each choice
BASES = ("silu", "identity", "zero", "gelu", "relu")  # what people add to a basis; any other the module has to say
NORM_EPS = 1e-5


@dataclass(frozen=True)
class Layer:
    """A layer of edges and its tensors, by their names in a `KANLayer`; those left out are neutral."""

    config: LayerConfig
    tensors: Tensors


@dataclass(frozen=True)
class Norm:
    """A normalisation between layers, with a scale and a bias for each node.

    Attributes:
        step: which.
        weight: the scale.
        bias: the bias.
        statistics: mean and standard deviation of the training that scale and bias hold; None where there are none.
    """

    step: Step
    weight: Tensor
    bias: Tensor
    statistics: tuple[Tensor, Tensor] | None = None


Item = Layer | Norm


@dataclass(frozen=True)
class Part:
    """Layers in a row that the file keeps together.

    Attributes:
        place: what its keys begin with, without the dot.
        library: what computed it, for people.
        n_in: values that it reads.
        n_out: values that it gives.
        keys: those of its tensors.
        read: its items, given an option of each choice.
        choices: what decides what it computes: options by name, the library's own way first, or the only one. Parts of
            one file that have a choice of the same name make it together.
        description: its size, for people.
        problem: why it cannot be read before something more is said, beginning with a verb; None where it can.
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
        """Its items, given options; where one is none of its own, its first."""
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
        """Values of each step that it gives."""
        return self.config.n_units

    @property
    def library(self) -> str:
        """LSTM or GRU."""
        return self.config.cell.upper()

    @property
    def description(self) -> str:
        """Its size, for people."""
        layers = "1 layer" if self.config.num_layers == 1 else f"{self.config.num_layers} layers"
        direction = ", bidirectional" if self.config.bidirectional else ""
        bias = "" if self.config.bias else ", without bias"
        return f"{self.n_in} inputs, {self.config.hidden_size} units, {layers}{direction}{bias}"


AnyPart = Part | RecurrentPart


@dataclass(frozen=True)
class Facts:
    """What a file says beside tensors, through its modules or its manifest; None where it does not.

    Attributes:
        base: of a part at a place, the activation that is added to its basis.
        eps: of a normalisation at a place.
        text: of a part at a place, its attribute of a name.
        denominator: of a part at a place, the width of its bumps.
        library: what computed the KANs.
        mult_arity: number of factors of pykan's product nodes: of all, or a tuple for every entry of the width.
        pykan_config: what pykan wrote beside the weights of a KAN at a place, or keeps in its modules.
        kept_inputs: of a pykan KAN at a place, the inputs that prune_input kept, and the number of those it had.
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
        """The options of a base: the one that is known, or those that people use."""
        known = self.base(place)
        return BASES if known is None else (known,)


def keys_under(tensors: Tensors, place: str) -> dict[str, Tensor]:
    """The tensors whose keys begin with a place, by the rest of the key."""
    start = start_of(place)
    return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}


def start_of(place: str) -> str:
    """What the keys at a place begin with."""
    return f"{place}." if place else ""


def places_of(tensors: Iterable[str], name: str) -> list[str]:
    """Where there is a tensor of a name, in the order of the file."""
    return [key.removesuffix(name).removesuffix(".") for key in tensors if key == name or key.endswith(f".{name}")]


def shape_of(tensors: Tensors, key: str, n_axes: int, place: str) -> Shape:
    """The shape of a tensor that has to be there, with as many axes as named and nothing empty."""
    if key not in tensors:
        raise CheckpointError(f"lacks {start_of(place)}{key}")
    shape = tuple(tensors[key].shape)
    if len(shape) != n_axes or 0 in shape:
        raise CheckpointError(f"has {start_of(place)}{key} of shape {list(shape)}, which should have {n_axes} axes")
    return shape


def compare_shapes(tensors: Tensors, expected: Mapping[str, Shape], place: str, library: str) -> None:
    """Refuses the first tensor at a place that is missing or of another shape.

    Args:
        tensors: by the rest of their keys.
        expected: the shape of each that the library has.
        place: where they are.
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
    """Whole keys of the tensors of those names at a place."""
    return frozenset(start_of(place) + name for name in names)


def spline_shape(place: str, n_coef: int, n_knots: int, extended: bool = True) -> tuple[int, int]:
    """Grid size G and order k of splines, which no file holds, of their coefficients and knots.

    A spline has G + k coefficients on G + 2k + 1 knots, or on G + 1 where those beyond the core are left out.
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
