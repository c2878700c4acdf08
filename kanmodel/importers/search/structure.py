"""The structure of a model: its parts, and the ways in which they may be joined, as search spaces of candidates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import prod

from kanmodel.errors import CheckpointError
from kanmodel.importers.files.manifest import FLAT_READOUTS, LIBRARIES, NONE, READOUTS, ModelSpec
from kanmodel.importers.files.pickles import GlobalName
from kanmodel.importers.files.source import Source, describe
from kanmodel.importers.layers.known import INV_DENOMINATORS, RADIAL_LIBRARIES, find_parts, find_recurrent
from kanmodel.importers.layers.submodules import (
    AnySubmodule,
    Choices,
    Item,
    Metadata,
    RecurrentSubmodule,
    Submodule,
    activation_of,
    activation_slot,
)
from kanmodel.importers.search.assembly import Chain, step_of
from kanmodel.network.config import ModelConfig

MAX_ORDERS = 64
MAX_STEPS = 20_000  # of the depth-first search for orders
INPUTS, PREDICTIONS, READOUT, OUTPUT = "inputs", "predictions", "readout", "output"
UNIT_WORDS = {"scaled": "scaled", "original": "in original units"}
UNITS = tuple(UNIT_WORDS)
READOUT_WORDS = {
    "flatten": "all steps read, steps outermost",
    "flatten_features": "all steps read, features outermost",
}
KIND_WORDS = {"mult_arity": "products of {} factors", **{w: f"{w} {{}}" for w in ("denominator", "base", "parameter")}}
OPTION_WORDS = {**RADIAL_LIBRARIES, **INV_DENOMINATORS, "zero": "no base"}
FOREIGN = {
    r"in_proj_weight$": "attention, in which every step reads the others",
    r"sub_tkan|tkan_sub": "a TKAN cell, whose KANs have states of their own from step to step",
    r"equal_size_conv|phase_low": "a ReLU-KAN, whose bumps are not among the functions of edges here",
    r"_torch_params\.": "a layer of Keras that is not read (from a file: Dense, LSTM, GRU and SimpleRNN)",
}  # patterns of keys -> the unsupported module that has them
Order = tuple[tuple[Submodule, ...], tuple[Submodule, ...], bool]  # before and after the readout, and if it is flat
TORCH = ("Linear", "LayerNorm", "BatchNorm")


@dataclass(frozen=True)
class Structure:
    """The parts of a model, and what is known about how they are joined."""

    parts: tuple[Submodule, ...]  # except the recurrent one, in the order of the file
    recurrent: RecurrentSubmodule | None
    stated: ModelSpec
    stages: Mapping[str, str] = field(default_factory=dict)  # of parts by place: head or front, as far as stated
    mentioned: tuple[str, ...] = ()  # activations of its modules and hyperparameters
    unused: tuple[str, ...] = ()  # keys that belong to no part
    doubt: str = ""  # why these may have an effect on the forecasts, starting with a verb; empty if there are none

    def spaces(self, shapes: ModelConfig, activations: Sequence[str]) -> list[SearchSpace]:
        """The candidates of each possible order, with these activations; raises `CheckpointError` if there are none."""
        orders = [*islice(self._find_orders(shapes), MAX_ORDERS)]
        if not orders:
            raise CheckpointError(self._describe_widths(shapes))
        spaces = [self._space(order, len(shapes.outputs), activations) for order in orders]
        if not any(space.n_candidates for space in spaces):
            raise CheckpointError(f"has parts that fit no order with readout {self.stated.readout}")
        return [space for space in spaces if space.n_candidates]

    def _find_orders(self, shapes: ModelConfig) -> Iterator[Order]:
        """Yields all orders with matching widths, by depth-first search, the order of the file first.

        Layers that are numbered in the same place, such as those of a Sequential, keep the order of their numbers.
        """
        recurrent, lookback, budget = self.recurrent, shapes.lookback, iter(range(MAX_STEPS))

        def extend(done: tuple[Submodule, ...], n_front: int | None, width: int, flat: bool) -> Iterator[Order]:
            if next(budget, None) is None:
                return
            left = [part for part in self.parts if part not in done]
            if n_front is not None and not left and width == len(shapes.outputs):
                yield done[:n_front], done[n_front:], flat
            elif n_front is None and (recurrent is None or recurrent.n_in == width):
                n_values = width if recurrent is None else recurrent.n_out
                # without a recurrent part all steps are tried first, because layers per step are rare then
                for wide in (False,) if lookback == 1 else (recurrent is None, recurrent is not None):
                    yield from extend(done, len(done), n_values * lookback if wide else n_values, wide)
            if n_front is None and recurrent is None and lookback == 1:
                return  # one step: before and after the readout are the same
            stage = "front" if n_front is None else "head"
            for part in left:
                is_next = part.n_in == width and not any(other.precedes(part) for other in left)
                if is_next and self.stages.get(part.place, stage) == stage:
                    yield from extend((*done, part), n_front, part.n_out, flat)

        return extend((), None, len(shapes.features), False)

    def _space(self, order: Order, n_outputs: int, activations: Sequence[str]) -> SearchSpace:
        """The candidates of one order; a choice that is stated, or makes no difference, has one option."""
        front, head, flat = order
        kinds: dict[str, tuple[str, ...]] = {}
        for part in (*front, *head):
            for name, options in part.open.items():
                kinds.setdefault(name, options)
        per_step: tuple[AnySubmodule, ...] = (*front, self.recurrent) if self.recurrent else front
        slots = [activation_slot(part.place) for part in (*per_step, *head)]
        n_before, between = len(per_step), tuple(dict.fromkeys([NONE, *activations]))
        softmax = ("softmax",) if n_outputs > 1 and activations else ()
        choices = {
            INPUTS: UNITS,
            **dict.fromkeys(slots[1:n_before], between),
            READOUT: FLAT_READOUTS if flat else READOUTS,
            **dict.fromkeys(slots[max(n_before, 1) :], between),
            OUTPUT: (*(name for name in between if "(" not in name), *softmax),
            PREDICTIONS: UNITS,
        }
        stated, space = self.stated, self.stated.space if self.stated.is_scaled else "scaled"
        are_targets_plain = all((column.mean, column.std) == (0.0, 1.0) for column in stated.targets)
        fixed = {
            READOUT: stated.readout,
            OUTPUT: stated.output_function,
            INPUTS: space,
            PREDICTIONS: space or ("scaled" if are_targets_plain else None),
            **{activation_slot(place): activation for place, activation in stated.activations.items()},
        }
        for name, option in fixed.items():
            if option is not None and name in choices:
                choices[name] = (option,) if name != READOUT or option in choices[name] else ()
        return SearchSpace(per_step, head, kinds, kinds | choices)

    def _describe_widths(self, shapes: ModelConfig) -> str:
        kinds = {"without bias": " without bias, or an Embedding"}  # which have the same weight
        every: list[AnySubmodule] = [*filter(None, [self.recurrent]), *self.parts]
        widths = [
            f"{part.place or 'the file'} ({part.library}{kinds.get(part.description[-12:], '')}) "
            f"from {part.n_in} to {part.n_out}"
            for part in every
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
class SearchSpace:
    """All candidates of one order of the parts."""

    per_step: tuple[AnySubmodule, ...]  # those before the readout, the recurrent one last
    head: tuple[Submodule, ...]
    kinds: Choices  # of libraries
    choices: Choices  # all with their options, the usual one first: `kinds`, then the others in order of computation

    @property
    def n_candidates(self) -> int:
        """Number of candidates."""
        return prod(map(len, self.choices.values()))

    def candidate(self, chosen: Mapping[str, str]) -> Candidate:
        """The candidate with some options, and the usual ones of the other choices."""
        return Candidate(self, tuple(chosen.get(name, options[0]) for name, options in self.choices.items()))

    def with_one_activation(self) -> Iterator[SearchSpace]:
        """Smaller spaces, each with one activation before parts, or none at some of them."""
        slots = {name: options for name, options in self.choices.items() if name.startswith("before ")}
        for activation in dict.fromkeys(option for options in slots.values() for option in options if option != NONE):
            few = {name: (NONE, activation) for name, options in slots.items() if len(options) > 1}
            yield replace(self, choices={**self.choices, **few})


@dataclass(frozen=True)
class Candidate:
    """One way in which the parts of a file may be joined: an option of each choice of a space."""

    space: SearchSpace
    options: tuple[str, ...]

    @property
    def chosen(self) -> dict[str, str]:
        """The option of each choice."""
        return dict(zip(self.space.choices, self.options, strict=True))

    @property
    def departures(self) -> int:
        """Number of choices that differ from the usual option; fewer is simpler."""
        return sum(
            option != options[0] for option, options in zip(self.options, self.space.choices.values(), strict=True)
        )

    def differs_from(self, other: Candidate) -> list[str]:
        """Names of the choices in which it differs from another candidate."""
        return [name for name, option in self.chosen.items() if other.chosen.get(name) != option]

    def chain(self) -> Chain:
        """Its computation."""
        space, chosen = self.space, self.chosen

        def items(parts: Sequence[AnySubmodule]) -> Iterator[Item]:
            for part in parts:
                if (name := chosen.get(activation_slot(part.place), NONE)) != NONE:
                    yield step_of(name)
                if isinstance(part, Submodule):
                    yield from part.items(chosen)

        at_output = None if chosen[OUTPUT] == NONE else chosen[OUTPUT]
        recurrent = next((part for part in space.per_step if isinstance(part, RecurrentSubmodule)), None)
        return Chain(tuple(items(space.per_step)), recurrent, chosen[READOUT], tuple(items(space.head)), at_output)

    def describe(self) -> str:
        """The choices that the file left open, in words."""
        chosen = self.chosen
        left_open = {name for name, options in self.space.choices.items() if len(options) > 1}
        found = [f"{chosen[name]} {name}" for name in chosen if name.startswith("before ") and chosen[name] != NONE]
        found += [f"{chosen[OUTPUT]} at the output"] if chosen[OUTPUT] != NONE else []
        found += [READOUT_WORDS.get(chosen[READOUT], f"readout {chosen[READOUT]}")] if READOUT in left_open else []
        kinds = {name: chosen[name] for name in self.space.kinds}
        found += [OPTION_WORDS.get(kind) or KIND_WORDS.get(name, "{}").format(kind) for name, kind in kinds.items()]
        found += [f"{name} {UNIT_WORDS[chosen[name]]}" for name in (INPUTS, PREDICTIONS) if name in left_open]
        return ", ".join(found)


def find_structure(source: Source, stated: ModelSpec) -> Structure:
    """Finds the parts of a model; raises `CheckpointError` if one is missing or of another kind than stated."""
    tensors = source.tensors
    recurrents = find_recurrent(tensors) if stated.input_id else []
    n_entering = recurrents[0].n_out if recurrents else len(stated.features)
    parts, recurrents = find_parts(tensors, Metadata(stated, source.module, n_entering))
    prefixes = {
        name: None if prefix is None else f"{prefix.removesuffix('.')}.".removeprefix(source.prefix).removesuffix(".")
        for name, prefix in stated.prefixes.items()
    }
    recurrent = recurrents[0] if recurrents else None
    if "lstm" in prefixes:
        recurrent = next((part for part in recurrents if part.place == prefixes["lstm"]), None)
        if prefixes["lstm"] is not None and recurrent is None:
            raise CheckpointError(f"has no LSTM at {prefixes['lstm']!r}, but {_list_places(recurrents)}")
    elif len(recurrents) > 1:
        places = _list_places(recurrents)
        raise CheckpointError(
            f"has recurrent parts at {places}, but a file can be read with only one: give the module to from_torch"
        )
    stages: dict[str, str] = {}
    for name in ("front", "head"):
        if (prefix := prefixes.get(name)) is not None:
            under = [part.place for part in parts if f"{part.place}.".startswith(f"{prefix}." if prefix else "")]
            if not under:
                raise CheckpointError(f"has no KAN at {prefix!r}, but {_list_places(parts)}")
            stages |= dict.fromkeys(under, name)
    for part in parts:
        if stated.library is not None and part.library not in (*TORCH, *LIBRARIES[stated.library]):
            title = LIBRARIES[stated.library][0]
            raise CheckpointError(f"has a KAN at {part.place!r} whose keys fit {part.library}, not {title}")
    if problem := next((part.problem for part in parts if part.problem), None):
        raise CheckpointError(problem)
    used = {key for part in parts for key in part.keys} | (recurrent.keys if recurrent else frozenset())
    unused = tuple(key for key in tensors if key not in used)
    doubt = _doubt(source, unused) if unused else ""
    modules = [] if source.module is None else [child for _, child in source.module.walk()]
    values = [value for child in modules for value in child.values.values()]
    known = map(activation_of, [*modules, *values, *source.hyper_parameters.values()])
    mentioned = tuple(dict.fromkeys(name for name in known if name and name != "identity"))
    return Structure(tuple(parts), recurrent, stated, stages, mentioned, unused, doubt)


def _list_places(parts: Sequence[AnySubmodule]) -> str:
    return ", ".join(repr(part.place) for part in parts) or "none at all"


def _doubt(source: Source, unused: Sequence[str]) -> str:
    """Why keys that belong to no part may have an effect, naming the module that they are of, if it is known."""
    named = ((key, what) for pattern, what in FOREIGN.items() for key in unused if re.search(pattern, key))
    first, what = next(named, (max(unused, key=lambda key: source.tensors[key].ndim), None))
    owner, n_axes = source.module and source.module.find(first.rpartition(".")[0]), source.tensors[first].ndim
    if what is None and owner is not None:
        what = describe(GlobalName(owner.class_name))
    elif what is None and n_axes > 2:
        what = f"a convolution or another module with weights of {n_axes} axes"
    more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
    reason = f"it is of {what}, which is no layer of a chain" if what else "it belongs to no part that is known"
    return f"has key {first}{more}, which is not understood: {reason}, and to drop it could change the forecast"
