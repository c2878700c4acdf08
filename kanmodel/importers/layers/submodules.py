"""The parts of a model: a Linear, a KAN layer, a whole pykan KAN, an LSTM.

The weights of a part determine its layers, except for choices that the file leaves open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product

from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.files.manifest import ModelSpec
from kanmodel.importers.files.pickles import GlobalName, Placeholder
from kanmodel.importers.files.source import Module
from kanmodel.network.config import LAYER_NORM_EPS, LayerConfig, RecurrentConfig, Transform
from kanmodel.network.functions import ACTIVATIONS

Tensors = Mapping[str, Tensor]
Chosen = Mapping[str, str]  # choice -> option
Choices = Mapping[str, tuple[str, ...]]  # choice -> options, the usual one first
BASES = ("silu", "identity", "zero", "gelu", "relu")  # common base functions; others must be stated by the module
PARAMETERS = {"leaky_relu": "negative_slope", "elu": "alpha", "softplus": "beta"}  # of torch's modules
BASE_NAMES = ("base_fun_name", "base_activation", "base_fun", "base_act")  # of attributes


@dataclass(frozen=True)
class Layer:
    """A layer of edges and its tensors, by their names in a `KANLayer`; missing ones are neutral."""

    config: LayerConfig
    tensors: Tensors


@dataclass(frozen=True)
class Norm:
    """A normalisation between layers, with a scale and a bias for each node."""

    step: Transform
    weight: Tensor
    bias: Tensor


Item = Layer | Norm | Transform  # an activation


@dataclass(frozen=True)
class Submodule:
    """Consecutive layers that form one module of the file."""

    place: str  # prefix of its keys, without the dot
    library: str  # its display name
    n_in: int
    n_out: int
    keys: frozenset[str]  # of its tensors
    read: Callable[[Chosen], tuple[Item, ...]]  # its items, given an option for each choice
    choices: Choices = field(default_factory=dict)  # the library's default first; parts share choices of one name
    description: str = ""  # its size, in words
    problem: str | None = None  # why it cannot be read without further information, starting with a verb

    @classmethod
    def of(
        cls,
        library: str,
        place: str,
        item: Layer | Norm,
        names: Iterable[str],
        sizes: str = "",
        choices: Choices | None = None,
        read: Callable[[Chosen], Layer | Norm] | None = None,
    ) -> Submodule:
        """A part of one item, which may depend on choices, with the tensors `names`; `sizes` follow its widths."""
        if isinstance(item, Layer):
            n_in, n_out = item.config.n_in, item.config.n_out
            widths = f"{n_in} to {n_out}"
        else:
            n_in = n_out = len(item.weight)
            widths = f"of {n_in}"
        keys, make = keys_of(place, names), read or (lambda chosen: item)
        return cls(place, library, n_in, n_out, keys, lambda chosen: (make(chosen),), choices or {}, widths + sizes)

    def items(self, chosen: Chosen) -> tuple[Item, ...]:
        """Its items for the given options; an option that it does not have is replaced by its first."""
        pairs = ((name, options, chosen.get(name)) for name, options in self.choices.items())
        return self.read({name: option if option in options else options[0] for name, options, option in pairs})

    def precedes(self, other: Submodule) -> bool:
        """Whether both are numbered in the same module, this one with the smaller number."""
        (parent, number), (its_parent, later) = _numbered(self.place), _numbered(other.place)
        return number is not None and later is not None and parent == its_parent and number < later

    @property
    def open(self) -> dict[str, tuple[str, ...]]:
        """The choices that the file leaves open."""
        return {name: options for name, options in self.choices.items() if len(options) > 1}


@dataclass(frozen=True)
class RecurrentSubmodule:
    """An LSTM or a GRU: its tensors by torch's names, and otherwise as a `Submodule`."""

    place: str
    library: str
    n_in: int
    n_out: int  # per step
    keys: frozenset[str]
    config: RecurrentConfig
    tensors: Tensors
    description: str
    open: Choices = field(default_factory=dict)


AnySubmodule = Submodule | RecurrentSubmodule


@dataclass(frozen=True)
class Metadata:
    """What is known of a file's parts besides their tensors: what the user states, else what its modules have."""

    stated: ModelSpec = field(default_factory=ModelSpec)
    module: Module | None = None
    n_entering: int = 1 << 16  # values that enter the KAN that the stated `input_id` is about

    def bases(self, place: str) -> tuple[str, ...]:
        """The options of a part's base function: the known one, or the common ones."""
        for stated in (self.stated, self.stated.pykan_config):
            if stated is not None and stated.base_activation:
                return (stated.base_activation,)
        for at, name in product((place, f"{start_of(place)}act_fun.0"), BASE_NAMES):
            value = self.value(at, name)
            known = value if value == "zero" else activation_of(value)
            if isinstance(known, str) and "(" not in known:
                return (known,)
        return BASES

    def eps(self, place: str) -> float:
        """The eps of a normalisation, torch's default if it is not known."""
        return self._positive(place, "eps") or LAYER_NORM_EPS

    def denominator(self, place: str) -> float | None:
        """The width of a part's bumps."""
        return self.stated.denominator or self._positive(f"{start_of(place)}rbf", "denominator")

    def _positive(self, place: str, name: str) -> float | None:
        found = self.value(place, name)
        return float(found) if type(found) in (int, float) and found > 0 else None  # type: ignore[operator, arg-type]

    def value(self, place: str, name: str) -> object:
        """An attribute or a child of the module at a place; None if there is none."""
        module = None if self.module is None else self.module.find(place)
        return None if module is None else module.values.get(name, module.children.get(name))


def activation_of(value: object) -> str | None:
    """The activation that a module, function, class or name stands for, such as ``leaky_relu(0.2)``."""
    name = value if isinstance(value, str) else ""
    if isinstance(value, (Module, GlobalName, Placeholder)):
        library, _, name = (value.class_name if isinstance(value, Module) else value.name).rpartition(".")
        if not library.startswith("torch.nn." if isinstance(value, Module) else "torch"):
            return None
    known = "leaky_relu" if name == "LeakyReLU" else name.lower().replace("-", "_")
    if known not in ACTIVATIONS or not isinstance(value, Module):
        return known if known in ACTIVATIONS else None
    parameter = value.values.get(PARAMETERS.get(known, ""))
    if isinstance(parameter, (int, float)) and parameter != ACTIVATIONS[known].parameter:
        return f"{known}({parameter:g})"
    return "gelu_tanh" if known == "gelu" and value.values.get("approximate") == "tanh" else known


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
    """The sizes of the named axes of tensors at a place, some of which may be `known`.

    The `axes` are named for each tensor, such as ``{"coef": "out in 4", "bias?": "out"}``; a number is the size of an
    axis, and a tensor whose name ends with ? may be missing. Raises `CheckpointError` if another is missing, or one has
    another number of axes, an empty axis, or does not fit the others.
    """
    sizes = dict(known or {})
    for name, named in axes.items():
        key, expected = name.removesuffix("?"), [int(a) if a.isdigit() else sizes.get(a) for a in named.split()]
        full = start_of(place) + key
        if key not in found:
            if key == name:
                raise CheckpointError(f"lacks {full}, which {library} has: it is damaged, or of another library")
            continue
        shape = list(found[key].shape)
        if None in expected:
            if len(shape) != len(expected) or 0 in shape:
                raise CheckpointError(f"has {full} of shape {shape}, which should have {len(expected)} axes")
            expected = [n if size is None else size for n, size in zip(shape, expected, strict=True)]
        if shape != expected:
            raise CheckpointError(f"has {full} of shape {shape}, but the other tensors imply {expected}")
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


def activation_slot(place: str) -> str:
    """Name of the choice of the activation before a part."""
    return f"before {place or 'the KAN'}"


def number_between(one: str, two: str) -> str | None:
    """The place after `one`, such as ``fc.1``, if `two` has the same parent and another number; else None."""
    (parent, number), (other, later) = _numbered(one), _numbered(two)
    if number is None or later is None or parent != other or later == number + 1:
        return None
    return f"{parent}{number + 1}"


def _numbered(place: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"((?:.*\.)?)(\d{1,4})", place)
    return (match[1], int(match[2])) if match else (place, None)
