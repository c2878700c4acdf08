"""The search space of readings: an order of a file's parts, and the choices that it leaves open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from math import prod

from kanmodel.importers.assembly import FLAT_READOUTS, NONE, READOUTS, Chain, Element
from kanmodel.importers.libraries import Part, RecurrentPart
from kanmodel.importers.libraries.radial import INV_DENOMINATORS, RADIAL_LIBRARIES
from kanmodel.importers.search.orders import Order
from kanmodel.network.config import Step

ACTIVATIONS = (NONE, "relu", "tanh", "silu", "gelu", "elu", "sigmoid", "leaky_relu", "softplus")
RARE = ("selu", "mish", "hardswish", "relu6", "softsign", "leaky_relu(0.1)", "leaky_relu(0.2)", "gelu_tanh")
INPUTS, PREDICTIONS, READOUT, OUTPUT = "inputs", "predictions", "readout", "output"
UNITS = ("scaled", "original")


def gap(place: str) -> str:
    """Name of the choice of the activation before a part."""
    return f"before {place or 'the KAN'}"


@dataclass(frozen=True)
class Choice:
    """A choice that the file leaves open.

    Attributes:
        name: ``readout``, ``output``, the place of a possible activation, or a choice of a library.
        options: its options, the usual one first.
    """

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Told:
    """Constraints on choices, from modules, hyperparameters or a manifest.

    Attributes:
        options: the remaining options, by name of the choice.
        more: further activations that occur in the model.
        first: the option to regard as the usual one, by name of the choice.
        plain: whether there are no activations except the known ones.
    """

    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    first: Mapping[str, str] = field(default_factory=dict)
    plain: bool = False

    def apply(self, choice: Choice) -> Choice:
        """The choice with its remaining options, in the order in which they are tried."""
        options = self.options.get(choice.name, choice.options)
        first = self.first.get(choice.name)
        if self.plain and NONE in options:
            options = (first if first in options else NONE,)
        return Choice(choice.name, (first, *(o for o in options if o != first)) if first in options else options)


@dataclass(frozen=True, eq=False)
class Space:
    """All readings of one order.

    Attributes:
        order: of the parts.
        recurrent: the LSTM or GRU; None if there is none.
        kinds: the choices of libraries.
        choices: all choices, `kinds` first, the others in the order of the computation.
    """

    order: Order
    recurrent: RecurrentPart | None
    kinds: tuple[Choice, ...]
    choices: tuple[Choice, ...]

    @classmethod
    def of(cls, order: Order, recurrent: RecurrentPart | None, told: Told, n_outputs: int) -> Space:
        """The space of an order, reduced by what is known."""
        parts = (*order.front, *order.head)
        kinds: dict[str, tuple[str, ...]] = {}
        for part in parts:
            for name, options in part.open.items():
                kinds.setdefault(name, tuple(told.options.get(name, options)))
        activations = (*ACTIVATIONS, *(name for name in told.more if name not in ACTIVATIONS))
        readouts = FLAT_READOUTS if order.flat else READOUTS
        places = [part.place for part in order.front[1:]]
        choices = [Choice(INPUTS, UNITS), *(Choice(gap(place), activations) for place in places)]
        if recurrent is not None and order.front:
            choices.append(Choice(gap(recurrent.place), activations))
        choices.append(Choice(READOUT, readouts))
        after_readout = order.head if recurrent is not None or order.front else order.head[1:]
        choices += [Choice(gap(part.place), activations) for part in after_readout]
        softmax = ("softmax",) if n_outputs > 1 else ()
        at_output = (*(name for name in activations if "(" not in name), *softmax)
        choices += [Choice(OUTPUT, at_output), Choice(PREDICTIONS, UNITS)]
        left = [told.apply(choice) for choice in choices]
        if READOUT in told.options:
            left = [_known_readout(choice, readouts) for choice in left]
        of_kinds = tuple(Choice(name, options) for name, options in kinds.items())
        return cls(order, recurrent, of_kinds, (*of_kinds, *left))

    @property
    def n_readings(self) -> int:
        """Number of readings."""
        return prod(len(choice.options) for choice in self.choices)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Index of each choice, by its name."""
        return {choice.name: number for number, choice in enumerate(self.choices)}

    def with_one_activation(self) -> Iterator[Space]:
        """The same readings as several spaces, each with another activation as the usual one before every part."""
        places = [choice for choice in self.choices if choice.name.startswith("before ")]
        for name in dict.fromkeys(option for choice in places for option in choice.options[1:]):
            told = Told(first={choice.name: name for choice in places})
            yield replace(self, choices=tuple(told.apply(choice) for choice in self.choices))

    def each_kind(self) -> Iterator[tuple[int, ...]]:
        """Yields all combinations of options of `kinds`, those with the fewest departures first."""
        every = product(*(range(len(choice.options)) for choice in self.kinds))
        return iter(sorted(every, key=lambda options: (sum(map(bool, options)), options)))


def _known_readout(choice: Choice, readouts: Sequence[str]) -> Choice:
    """The known readouts that the order allows."""
    if choice.name != READOUT:
        return choice
    return Choice(READOUT, tuple(option for option in choice.options if option in readouts))


@dataclass(frozen=True)
class Reading:
    """One interpretation of a file: a space, and the index of an option for each of its choices."""

    space: Space
    numbers: tuple[int, ...]

    @property
    def chosen(self) -> dict[str, str]:
        """The option of each choice."""
        return {
            choice.name: choice.options[number] for choice, number in zip(self.space.choices, self.numbers, strict=True)
        }

    @property
    def departures(self) -> int:
        """Number of choices that differ from the usual option; fewer is simpler."""
        return sum(map(bool, self.numbers))

    def within(self, space: Space) -> Reading:
        """The same reading in a larger space."""
        chosen = self.chosen
        return Reading(space, tuple(choice.options.index(chosen[choice.name]) for choice in space.choices))

    def changed_once(self) -> Iterator[Reading]:
        """Yields all readings that differ in one choice."""
        for number, choice in enumerate(self.space.choices):
            for option in range(len(choice.options)):
                if option != self.numbers[number]:
                    yield Reading(self.space, (*self.numbers[:number], option, *self.numbers[number + 1 :]))

    def differs_from(self, other: Reading) -> list[str]:
        """Names of the choices in which it differs from another reading of the same space."""
        theirs = other.chosen
        return [name for name, option in self.chosen.items() if theirs.get(name) != option]

    def chain(self) -> Chain:
        """The computation of the reading."""
        space, chosen = self.space, self.chosen
        output = chosen[OUTPUT]
        return Chain(
            front=(*_elements(space.order.front, chosen), *_activation(space.recurrent, chosen)),
            recurrent=space.recurrent,
            readout=chosen[READOUT],
            head=_elements(space.order.head, chosen),
            output_function=None if output == NONE else output,
        )

    def describe(self) -> str:
        """The choices that the file left open, in words."""
        space, chosen, found = self.space, self.chosen, []
        for choice in space.choices:
            if choice.name.startswith("before ") and chosen[choice.name] != NONE:
                found.append(f"{chosen[choice.name]} {choice.name}")
        if chosen[OUTPUT] != NONE:
            found.append(f"{chosen[OUTPUT]} at the output")
        if len(space.choices[space.index[READOUT]].options) > 1:
            found.append(describe_readout(chosen[READOUT]))
        found += [_describe_kind(choice.name, chosen[choice.name]) for choice in space.kinds]
        for name in (INPUTS, PREDICTIONS):
            if len(space.choices[space.index[name]].options) > 1:
                found.append(f"{name} {'scaled' if chosen[name] == 'scaled' else 'in original units'}")
        return ", ".join(found)


def describe_readout(readout: str) -> str:
    """A readout, in words."""
    return {
        "flatten": "all steps read, steps outermost",
        "flatten_features": "all steps read, features outermost",
    }.get(readout, f"readout {readout}")


def _describe_kind(name: str, option: str) -> str:
    match name:
        case "library":
            return RADIAL_LIBRARIES.get(option, option)
        case "inv_denominator":
            return INV_DENOMINATORS[option]
        case "mult_arity":
            return f"products of {option} factors"
        case "denominator":
            return f"denominator {option}"
        case "base":
            return "no base" if option == "zero" else f"base {option}"
    return option


def _elements(parts: Sequence[Part], chosen: Mapping[str, str]) -> tuple[Element, ...]:
    """The items of parts, each after its activation."""
    return tuple(element for part in parts for element in (*_activation(part, chosen), *part.items(chosen)))


def _activation(part: Part | RecurrentPart | None, chosen: Mapping[str, str]) -> tuple[Step, ...]:
    name = NONE if part is None else chosen.get(gap(part.place), NONE)
    return () if name == NONE else (step_of(name),)


def step_of(name: str) -> Step:
    """The step of an option such as ``relu`` or ``leaky_relu(0.2)``."""
    kind, _, parameter = name.partition("(")
    return Step(kind, float(parameter.rstrip(")")) if parameter else None)
