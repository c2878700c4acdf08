"""The search space of readings: the orders of a file's parts, and the choices that each leaves open."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from math import prod

from kanmodel.errors import CheckpointError
from kanmodel.importers.assembly import FLAT_READOUTS, NONE, READOUTS, Chain, Element
from kanmodel.importers.libraries import AnyPart, Part, RecurrentPart
from kanmodel.importers.libraries.layers import INV_DENOMINATORS, RADIAL_LIBRARIES
from kanmodel.network.config import ModelConfig, Step

MAX_ORDERS = 64
MAX_STEPS = 20_000  # of the depth-first search for orders
ACTIVATIONS = (NONE, "relu", "tanh", "silu", "gelu", "elu", "sigmoid", "leaky_relu", "softplus")
RARE = ("selu", "mish", "hardswish", "relu6", "softsign", "leaky_relu(0.1)", "leaky_relu(0.2)", "gelu_tanh")
INPUTS, PREDICTIONS, READOUT, OUTPUT = "inputs", "predictions", "readout", "output"
UNITS = ("scaled", "original")


@dataclass(frozen=True)
class Order:
    """One order of all parts.

    Attributes:
        front: parts applied to each step.
        head: parts after the readout.
        flat: whether the head reads all steps.
    """

    front: tuple[Part, ...]
    head: tuple[Part, ...]
    flat: bool


def find_orders(
    parts: Sequence[Part],
    recurrent: RecurrentPart | None,
    shapes: ModelConfig,
    allowed: Callable[[Part, bool], bool] = lambda part, is_front: True,
) -> list[Order]:
    """All orders with matching widths, by depth-first search, the order of the file first.

    Layers that are numbered in the same place, such as those of a Sequential, keep the order of their numbers.

    Args:
        parts: all parts of the file except the recurrent one, in its order.
        recurrent: the LSTM or GRU; None if there is none.
        shapes: lookback, features and outputs.
        allowed: whether a part may be before the readout, or after it.

    Raises:
        CheckpointError: there is no such order.
    """
    budget = iter(range(MAX_STEPS))
    found: list[Order] = []

    def extend(front: tuple[Part, ...], head: tuple[Part, ...] | None, width: int, flat: bool) -> Iterator[Order]:
        if next(budget, None) is None:
            return
        used = {part.place for part in (*front, *(head or ()))}
        if head is None:
            # without a recurrent part all steps are tried first, because layers per step are rare then
            for wide in (True, False) if recurrent is None and shapes.lookback > 1 else (False, True):
                if wide and shapes.lookback == 1:
                    continue
                if recurrent is None or recurrent.n_in == width:
                    n_values = width if recurrent is None else recurrent.n_out
                    yield from extend(front, (), n_values * shapes.lookback if wide else n_values, wide)
        elif len(used) == len(parts):
            if width == len(shapes.outputs):
                yield Order(front, head, flat)
            return
        for part in parts:
            if part.place in used or part.n_in != width or not allowed(part, head is None):
                continue
            if head is None and recurrent is None and shapes.lookback == 1:
                continue  # one step: before and after the readout are the same
            if any(_precedes(other.place, part.place) for other in parts if other.place not in used):
                continue
            if head is None:
                yield from extend((*front, part), None, part.n_out, flat)
            else:
                yield from extend(front, (*head, part), part.n_out, flat)

    for order in extend((), None, len(shapes.features), False):
        found.append(order)
        if len(found) == MAX_ORDERS:
            break
    if not found:
        raise CheckpointError(_no_order(parts, recurrent, shapes))
    return found


def _precedes(one: str, two: str) -> bool:
    """Whether two places are numbered in the same parent, the first with the smaller number."""
    (parent, number), (other, later) = _numbered(one), _numbered(two)
    return number is not None and later is not None and parent == other and number < later


def number_between(one: str, two: str) -> str | None:
    """The missing place between two with the same parent, such as ``fc.1``; None if none is missing."""
    (parent, number), (other, later) = _numbered(one), _numbered(two)
    if number is None or later is None or parent != other or later == number + 1:
        return None
    return f"{parent}{number + 1}"


def _numbered(place: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"((?:.*\.)?)(\d{1,4})", place)
    return (match[1], int(match[2])) if match else (place, None)


def _no_order(parts: Sequence[Part], recurrent: RecurrentPart | None, shapes: ModelConfig) -> str:
    every: list[AnyPart] = [*parts] if recurrent is None else [recurrent, *parts]
    widths = ", ".join(
        f"{part.place or 'the file'} ({part.library}) from {part.n_in} to {part.n_out}" for part in every
    )
    message = (
        f"has parts that do not follow each other from {len(shapes.features)} features at {shapes.lookback} steps to "
        f"{len(shapes.outputs)} outputs: {widths or 'none'}"
    )
    reaching = recurrent.n_out if recurrent else len(shapes.features)
    if any(part.library == "pykan" and part.n_in < reaching for part in parts):
        message += "; if prune_input made a KAN narrower, give input_id, the kept ones, which are not in the file"
    return message


def activation_slot(place: str) -> str:
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
class Constraints:
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
        if choice.name == READOUT:  # of which an order allows only some
            options = tuple(option for option in options if option in choice.options)
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
    def of(cls, order: Order, recurrent: RecurrentPart | None, constraints: Constraints, n_outputs: int) -> Space:
        """The space of an order, reduced by what is known."""
        parts = (*order.front, *order.head)
        kinds: dict[str, tuple[str, ...]] = {}
        for part in parts:
            for name, options in part.open.items():
                kinds.setdefault(name, tuple(constraints.options.get(name, options)))
        activations = (*ACTIVATIONS, *(name for name in constraints.more if name not in ACTIVATIONS))
        readouts = FLAT_READOUTS if order.flat else READOUTS
        places = [part.place for part in order.front[1:]]
        choices = [Choice(INPUTS, UNITS), *(Choice(activation_slot(place), activations) for place in places)]
        if recurrent is not None and order.front:
            choices.append(Choice(activation_slot(recurrent.place), activations))
        choices.append(Choice(READOUT, readouts))
        after_readout = order.head if recurrent is not None or order.front else order.head[1:]
        choices += [Choice(activation_slot(part.place), activations) for part in after_readout]
        softmax = ("softmax",) if n_outputs > 1 else ()
        at_output = (*(name for name in activations if "(" not in name), *softmax)
        choices += [Choice(OUTPUT, at_output), Choice(PREDICTIONS, UNITS)]
        of_kinds = tuple(Choice(name, options) for name, options in kinds.items())
        return cls(order, recurrent, of_kinds, (*of_kinds, *map(constraints.apply, choices)))

    @property
    def n_readings(self) -> int:
        """Number of readings."""
        return prod(len(choice.options) for choice in self.choices)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Index of each choice, by its name."""
        return {choice.name: number for number, choice in enumerate(self.choices)}

    def options(self, name: str) -> tuple[str, ...]:
        """The options of a choice, by its name."""
        return self.choices[self.index[name]].options

    def with_one_activation(self) -> Iterator[Space]:
        """The same readings as several spaces, each with another activation as the usual one before every part."""
        places = [choice for choice in self.choices if choice.name.startswith("before ")]
        for name in dict.fromkeys(option for choice in places for option in choice.options[1:]):
            constraints = Constraints(first={choice.name: name for choice in places})
            yield replace(self, choices=tuple(constraints.apply(choice) for choice in self.choices))

    def each_kind(self) -> Iterator[tuple[int, ...]]:
        """Yields all combinations of options of `kinds`, those with the fewest departures first."""
        every = product(*(range(len(choice.options)) for choice in self.kinds))
        return iter(sorted(every, key=lambda options: (sum(map(bool, options)), options)))


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
        if len(space.options(READOUT)) > 1:
            found.append(describe_readout(chosen[READOUT]))
        found += [_describe_kind(choice.name, chosen[choice.name]) for choice in space.kinds]
        for name in (INPUTS, PREDICTIONS):
            if len(space.options(name)) > 1:
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
    name = NONE if part is None else chosen.get(activation_slot(part.place), NONE)
    return () if name == NONE else (step_of(name),)


def step_of(name: str) -> Step:
    """The step of an option such as ``relu`` or ``leaky_relu(0.2)``."""
    kind, _, parameter = name.partition("(")
    return Step(kind, float(parameter.rstrip(")")) if parameter else None)
