"""The structure of a model: its parts, and the ways in which they may be joined, as a search space of readings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, product
from math import prod
from typing import NamedTuple

from kanmodel.errors import CheckpointError
from kanmodel.importers.assembly import Chain, Element, step_of
from kanmodel.importers.layers import INV_DENOMINATORS, RADIAL_LIBRARIES, find_parts, find_recurrent
from kanmodel.importers.manifest import FLAT_READOUTS, LIBRARIES, NONE, READOUTS, Statement
from kanmodel.importers.parts import AnyPart, Choices, Metadata, Part, RecurrentPart, activation_of, activation_slot
from kanmodel.importers.pickles import GlobalName
from kanmodel.importers.source import Module, Source, describe
from kanmodel.network.config import ModelConfig

MAX_ORDERS = 64
MAX_STEPS = 20_000  # of the depth-first search for orders
ACTIVATIONS = (NONE, "relu", "tanh", "silu", "gelu", "elu", "sigmoid", "leaky_relu", "softplus")
RARE = ("selu", "mish", "hardswish", "relu6", "softsign", "leaky_relu(0.1)", "leaky_relu(0.2)", "gelu_tanh")
INPUTS, PREDICTIONS, READOUT, OUTPUT = "inputs", "predictions", "readout", "output"
UNIT_WORDS = {"scaled": "scaled", "original": "in original units"}
UNITS = tuple(UNIT_WORDS)
READOUT_WORDS = {
    "flatten": "all steps read, steps outermost",
    "flatten_features": "all steps read, features outermost",
    **{readout: f"readout {readout}" for readout in READOUTS},
}
KIND_WORDS = {"mult_arity": "products of {} factors", **{w: f"{w} {{}}" for w in ("denominator", "base", "parameter")}}
OPTION_WORDS = {**RADIAL_LIBRARIES, **INV_DENOMINATORS, "zero": "no base"}
FOREIGN = {
    r"in_proj_weight$": "attention, in which every step reads the others",
    r"sub_tkan|tkan_sub": "a TKAN cell, whose KANs have states of their own from step to step",
    r"equal_size_conv|phase_low": "a ReLU-KAN, whose bumps are not among the functions of edges here",
    r"_torch_params\.": "a layer of Keras that is not read (from a file: Dense, LSTM, GRU and SimpleRNN)",
}  # patterns of keys -> the unsupported module that has them
TORCH = ("Linear", "LayerNorm", "BatchNorm")
NEUTRAL = ("Dropout", "Dropout1d", "AlphaDropout", "Identity")


class Order(NamedTuple):
    """One order of all parts: those before and after the readout, and whether that is of all steps."""

    front: tuple[Part, ...]
    recurrent: RecurrentPart | None
    head: tuple[Part, ...]
    flat: bool

    @property
    def per_step(self) -> tuple[AnyPart, ...]:
        """The parts before the readout, the recurrent one last."""
        return (*self.front, self.recurrent) if self.recurrent else self.front


@dataclass(frozen=True)
class Constraints:
    """Constraints on choices, from modules, hyperparameters or a manifest, by name of the choice."""

    options: Choices = field(default_factory=dict)  # the remaining ones
    more: tuple[str, ...] = ()  # further activations that occur in the model
    first: Mapping[str, str] = field(default_factory=dict)  # the option to regard as the usual one
    plain: bool = False  # whether there are no activations except the known ones

    def apply(self, choices: Choices) -> dict[str, tuple[str, ...]]:
        """The choices with their remaining options, in the order in which they are tried."""
        narrowed = {}
        for name, options in choices.items():
            stated, first = self.options.get(name, options), self.first.get(name)
            if name == READOUT:  # of which an order allows only some
                stated = tuple(option for option in stated if option in options)
            if self.plain and NONE in stated:
                stated = (first if first in stated else NONE,)
            elif first in stated:
                stated = (first, *(option for option in stated if option != first))
            narrowed[name] = stated
        return narrowed


@dataclass(frozen=True)
class Structure:
    """The parts of a model."""

    parts: tuple[Part, ...]  # except the recurrent one, in the order of the file
    recurrent: RecurrentPart | None
    constraints: Constraints  # what is known about how the parts are put together
    stated: Statement
    unused: tuple[str, ...] = ()  # keys that belong to no part, which must be proved to have no effect on the forecasts
    doubt: str = ""  # why they may have one, starting with a verb; empty if there is no such key, or that was proved

    @property
    def every(self) -> tuple[AnyPart, ...]:
        """All parts, the recurrent one first."""
        return self.parts if self.recurrent is None else (self.recurrent, *self.parts)

    @property
    def library(self) -> str:
        """The library that the weights belong to."""
        kans = dict.fromkeys(part.library for part in self.parts if part.library not in TORCH)
        return " and ".join(kans) or "torch"

    def spaces(self, shapes: ModelConfig) -> list[Space]:
        """The search spaces, one for each possible order of the parts; raises `CheckpointError` if there is none."""
        orders = [*islice(self._find_orders(shapes), MAX_ORDERS)]
        if not orders:
            raise CheckpointError(self._describe_widths(shapes))
        spaces = [Space.of(order, self.constraints, len(shapes.outputs)) for order in orders]
        spaces = [space for space in spaces if space.n_readings]
        if not spaces:
            raise CheckpointError(f"has parts that fit no order with readout {self.stated.readout}")
        return spaces

    def _find_orders(self, shapes: ModelConfig) -> Iterator[Order]:
        """Yields all orders with matching widths, by depth-first search, the order of the file first.

        Layers that are numbered in the same place, such as those of a Sequential, keep the order of their numbers.
        """
        recurrent, budget, stated = self.recurrent, iter(range(MAX_STEPS)), self.stated.prefixes
        in_head, in_front = (
            {part.place for part in self.parts if (at := stated.get(name)) is not None and is_under(part.place, at)}
            for name in ("head", "front")
        )

        def extend(front: tuple[Part, ...], head: tuple[Part, ...] | None, width: int, flat: bool) -> Iterator[Order]:
            if next(budget, None) is None:
                return
            used = {part.place for part in (*front, *(head or ()))}
            if head is None and (recurrent is None or recurrent.n_in == width):
                n_values = width if recurrent is None else recurrent.n_out
                # without a recurrent part all steps are tried first, because layers per step are rare then
                for wide in (False,) if shapes.lookback == 1 else (recurrent is None, recurrent is not None):
                    yield from extend(front, (), n_values * shapes.lookback if wide else n_values, wide)
            elif head is not None and len(used) == len(self.parts):
                if width == len(shapes.outputs):
                    yield Order(front, recurrent, head, flat)
                return
            if head is None and recurrent is None and shapes.lookback == 1:
                return  # one step: before and after the readout are the same
            for part in self.parts:
                if part.place in used or part.n_in != width:
                    continue
                if part.place in in_head if head is None else part.place in in_front - in_head:
                    continue
                if any(other.precedes(part) for other in self.parts if other.place not in used):
                    continue
                if head is None:
                    yield from extend((*front, part), None, part.n_out, flat)
                else:
                    yield from extend(front, (*head, part), part.n_out, flat)

        return extend((), None, len(shapes.features), False)

    def _describe_widths(self, shapes: ModelConfig) -> str:
        every = ((part.place or "the file", part) for part in self.every)
        kinds = {"without bias": " without bias, or an Embedding"}  # which have the same weight
        widths = [
            f"{place} ({part.library}{kinds.get(part.description[-12:], '')}) from {part.n_in} to {part.n_out}"
            for place, part in every
        ]
        message = (
            f"has parts that do not follow each other from {len(shapes.features)} features at {shapes.lookback} steps "
            f"to {len(shapes.outputs)} outputs: {', '.join(widths) or 'none'}"
        )
        reaching = self.recurrent.n_out if self.recurrent else len(shapes.features)
        if any(part.library == "pykan" and part.n_in < reaching for part in self.parts):
            message += "; if prune_input made a KAN narrower, give input_id, the kept ones, which are not in the file"
        return message


@dataclass(frozen=True, eq=False)
class Space:
    """All readings of one order."""

    order: Order
    kinds: Choices  # of libraries
    choices: Choices  # all, `kinds` first, the others in the order of the computation

    @classmethod
    def of(cls, order: Order, constraints: Constraints, n_outputs: int) -> Space:
        """The space of an order, reduced by what is known."""
        kinds: dict[str, tuple[str, ...]] = {}
        for part in (*order.front, *order.head):
            for name, options in part.open.items():
                kinds.setdefault(name, constraints.options.get(name, options))
        activations = (*ACTIVATIONS, *(name for name in constraints.more if name not in ACTIVATIONS))
        before = [part.place for part in order.per_step[1:]]
        after = [part.place for part in (order.head if order.per_step else order.head[1:])]
        softmax = ("softmax",) if n_outputs > 1 else ()
        choices = {
            INPUTS: UNITS,
            **dict.fromkeys(map(activation_slot, before), activations),
            READOUT: FLAT_READOUTS if order.flat else READOUTS,
            **dict.fromkeys(map(activation_slot, after), activations),
            OUTPUT: (*(name for name in activations if "(" not in name), *softmax),
            PREDICTIONS: UNITS,
        }
        return cls(order, kinds, kinds | constraints.apply(choices))

    @property
    def n_readings(self) -> int:
        """Number of readings."""
        return prod(map(len, self.choices.values()))

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Index of each choice, by its name."""
        return {name: number for number, name in enumerate(self.choices)}

    def read(self, chosen: Mapping[str, str]) -> Reading:
        """The reading with some options, and the usual ones of the other choices."""
        numbers = (options.index(chosen.get(name, options[0])) for name, options in self.choices.items())
        return Reading(self, tuple(numbers))

    def with_one_activation(self) -> Iterator[Space]:
        """The same readings as several spaces, each with another activation as the usual one before every part."""
        places = {name: options for name, options in self.choices.items() if name.startswith("before ")}
        for activation in dict.fromkeys(option for options in places.values() for option in options[1:]):
            constraints = Constraints(first=dict.fromkeys(places, activation))
            yield replace(self, choices=constraints.apply(self.choices))

    def each_kind(self) -> Iterator[tuple[int, ...]]:
        """Yields all combinations of options of `kinds`, those with the fewest departures first."""
        every = product(*(range(len(options)) for options in self.kinds.values()))
        return iter(sorted(every, key=lambda options: (sum(map(bool, options)), options)))


@dataclass(frozen=True)
class Reading:
    """One interpretation of a file: a space, and the index of an option for each of its choices."""

    space: Space
    numbers: tuple[int, ...]

    @property
    def chosen(self) -> dict[str, str]:
        """The option of each choice."""
        pairs = zip(self.space.choices.items(), self.numbers, strict=True)
        return {name: options[number] for (name, options), number in pairs}

    @property
    def departures(self) -> int:
        """Number of choices that differ from the usual option; fewer is simpler."""
        return sum(map(bool, self.numbers))

    def changed_once(self) -> Iterator[Reading]:
        """Yields all readings that differ in one choice."""
        for name, options in self.space.choices.items():
            for option in options:
                if option != self.chosen[name]:
                    yield self.space.read({**self.chosen, name: option})

    def differs_from(self, other: Reading) -> list[str]:
        """Names of the choices in which it differs from another reading of the same space."""
        return [name for name, option in self.chosen.items() if other.chosen.get(name) != option]

    def chain(self) -> Chain:
        """The computation of the reading."""
        order, chosen = self.space.order, self.chosen

        def activation(part: AnyPart) -> tuple[Element, ...]:
            name = chosen.get(activation_slot(part.place), NONE)
            return () if name == NONE else (step_of(name),)

        def elements(parts: Sequence[Part]) -> tuple[Element, ...]:
            return tuple(element for part in parts for element in (*activation(part), *part.items(chosen)))

        front = (*elements(order.front), *(activation(order.recurrent) if order.recurrent else ()))
        at_output = None if chosen[OUTPUT] == NONE else chosen[OUTPUT]
        return Chain(front, order.recurrent, chosen[READOUT], elements(order.head), at_output)

    def describe(self) -> str:
        """The choices that the file left open, in words."""
        space, chosen = self.space, self.chosen
        left_open = {name for name, options in space.choices.items() if len(options) > 1}
        found = [f"{chosen[name]} {name}" for name in chosen if name.startswith("before ") and chosen[name] != NONE]
        found += [f"{chosen[OUTPUT]} at the output"] if chosen[OUTPUT] != NONE else []
        found += [READOUT_WORDS[chosen[READOUT]]] if READOUT in left_open else []
        kinds = {name: chosen[name] for name in space.kinds}
        found += [OPTION_WORDS.get(kind) or KIND_WORDS.get(name, "{}").format(kind) for name, kind in kinds.items()]
        found += [f"{name} {UNIT_WORDS[chosen[name]]}" for name in (INPUTS, PREDICTIONS) if name in left_open]
        return ", ".join(found)


def find_structure(source: Source, stated: Statement) -> Structure:
    """Finds the parts of a model; raises `CheckpointError` if one is missing or of another kind than stated."""
    tensors = source.tensors
    recurrents = find_recurrent(tensors) if stated.input_id else []
    n_entering = recurrents[0].n_out if recurrents else len(stated.features)
    parts, recurrents = find_parts(tensors, Metadata(stated, source.module, n_entering))
    prefixes = {
        name: None if prefix is None else f"{prefix}.".removeprefix(source.prefix).removesuffix(".")
        for name, prefix in stated.prefixes.items()
    }
    recurrent = recurrents[0] if recurrents else None
    if "lstm" in prefixes:
        recurrent = next((part for part in recurrents if part.place == prefixes["lstm"]), None)
        if prefixes["lstm"] is not None and recurrent is None:
            raise CheckpointError(f"has no LSTM at {prefixes['lstm']!r}, but {_places(recurrents)}")
    elif len(recurrents) > 1:
        raise CheckpointError(f"has recurrent parts at {_places(recurrents)}, but Kanscope reads models with only one")
    for name in ("head", "front"):
        prefix = prefixes.get(name)
        if prefix is not None and not any(is_under(part.place, prefix) for part in parts):
            raise CheckpointError(f"has no KAN at {prefix!r}, but {_places(parts)}")
    for part in parts:
        if stated.library is not None and part.library not in (*TORCH, *LIBRARIES[stated.library]):
            title = LIBRARIES[stated.library][0]
            raise CheckpointError(f"has a KAN at {part.place!r} whose keys fit {part.library}, not {title}")
    for part in parts:
        if part.problem is not None:
            raise CheckpointError(part.problem)
    structure = Structure(tuple(parts), recurrent, _find_constraints(source, stated, parts), stated)
    left = {key: tensor for key, tensor in tensors.items() if not any(key in part.keys for part in structure.every)}
    if not left:
        return structure
    named = ((key, what) for name, what in FOREIGN.items() for key in left if re.search(name, key))
    first, what = next(named, (max(left, key=lambda key: left[key].ndim), None))
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    owner = source.module and source.module.find(first.rpartition(".")[0])
    if what is None and owner is not None:
        what = describe(GlobalName(owner.class_name))
    elif what is None and left[first].ndim > 2:
        what = f"a convolution or another module with weights of {left[first].ndim} axes"
    reason = f"it is of {what}, which is no layer of a chain" if what else "it belongs to no part that is known"
    doubt = f"has key {first}{more}, which is not understood: {reason}, and to drop it could change the forecast"
    return replace(structure, unused=tuple(left), doubt=doubt)


def _places(parts: Sequence[AnyPart]) -> str:
    return ", ".join(repr(part.place) for part in parts) or "none at all"


def is_under(place: str, prefix: str) -> bool:
    """Whether a place equals a prefix or is below it."""
    return not prefix or place == prefix or place.startswith(f"{prefix}.")


def _find_constraints(source: Source, stated: Statement, parts: Sequence[Part]) -> Constraints:
    """The constraints on the choices of a search: the remaining options, and those to try first."""
    space = stated.space if stated.is_scaled else "scaled"
    plain = all((column.mean, column.std) == (0.0, 1.0) for column in stated.targets)
    said = {READOUT: stated.readout, OUTPUT: stated.output_function, INPUTS: space}
    said[PREDICTIONS] = space or ("scaled" if plain else None)
    said |= {activation_slot(place): activation for place, activation in stated.activations.items()}
    options = {name: (option,) for name, option in said.items() if option is not None}
    modules = [] if source.module is None else [*source.module.walk()]
    values = [value for _, child in modules for value in child.values.values()]
    known = map(activation_of, [*(child for _, child in modules), *values, *source.hyper_parameters.values()])
    mentioned = dict.fromkeys(name for name in known if name and name != "identity")
    between = (pair for path, child in modules for pair in _in_sequential(path, child, {part.place for part in parts}))
    return Constraints(options, tuple(mentioned), dict(between))


def _in_sequential(path: str, module: Module, places: set[str]) -> Iterator[tuple[str, str]]:
    """Yields the activations between two parts of a Sequential: (name of the choice, activation)."""
    if module.class_name != "torch.nn.modules.container.Sequential":
        return
    between: list[str] | None = None  # activations since the last part; None before the first
    for name, inner in module.children.items():
        place = f"{path}.{name}" if path else name
        if inner.class_name.rpartition(".")[2] in NEUTRAL:
            continue
        if (known := activation_of(inner)) is not None:
            between = None if between is None else [*between, known]
        elif place in places:
            if between is not None and len(between) < 2:
                yield activation_slot(place), between[0] if between else NONE
            between = []
        else:
            between = None
