"""The structure of a model: its parts, and what is known of how they are joined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.layers import find_parts, find_recurrent
from kanmodel.importers.manifest import LIBRARIES, NONE, Statement
from kanmodel.importers.parts import AnyPart, Metadata, Part, RecurrentPart, activation_of
from kanmodel.importers.source import Module, Source
from kanmodel.importers.space import Constraints, Space, activation_slot, find_orders
from kanmodel.network.config import ModelConfig

FOREIGN = {
    "in_proj_weight": "attention, in which every step reads the others",
    "weight_ih": "a cell that its own loop runs",
}  # names of tensors -> the unsupported module that has them
TORCH = ("Linear", "LayerNorm", "BatchNorm")
NEUTRAL = ("Dropout", "Dropout1d", "AlphaDropout", "Identity")


@dataclass(frozen=True)
class Structure:
    """The parts of a model.

    Attributes:
        parts: all parts except the recurrent one, in the order of the file.
        recurrent: the LSTM or GRU; None if there is none.
        constraints: what is known about how the parts are put together.
        stated: the user's statement.
        unused: keys that belong to no part, which must be proved to have no effect on the forecasts.
        doubt: why they may have one, starting with a verb; empty if there is no such key, or that was proved.
    """

    parts: tuple[Part, ...]
    recurrent: RecurrentPart | None
    constraints: Constraints
    stated: Statement
    unused: tuple[str, ...] = ()
    doubt: str = ""

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
        """The search spaces of readings, one for each possible order of the parts.

        Raises:
            CheckpointError: the parts fit together in no order.
        """
        head, front = self.stated.prefixes.get("head"), self.stated.prefixes.get("front")

        def allowed(part: Part, is_front: bool) -> bool:
            if head is not None and is_under(part.place, head):
                return not is_front
            return front is None or is_front or not is_under(part.place, front)

        orders = find_orders(self.parts, self.recurrent, shapes, allowed)
        spaces = [Space.of(order, self.constraints, len(shapes.outputs)) for order in orders]
        fitting = [space for space in spaces if space.n_readings]
        if not fitting:
            raise CheckpointError(f"has parts that fit no order with readout {self.stated.readout}")
        return fitting


def find_structure(source: Source, stated: Statement) -> Structure:
    """Finds the parts of a model.

    Raises:
        CheckpointError: a named part is missing or of another kind than stated.
    """
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
    return replace(structure, unused=tuple(left), doubt=_doubt(left)) if left else structure


def _places(parts: Sequence[AnyPart]) -> str:
    return ", ".join(repr(part.place) for part in parts) or "none at all"


def is_under(place: str, prefix: str) -> bool:
    """Whether a place equals a prefix or is below it."""
    return not prefix or place == prefix or place.startswith(f"{prefix}.")


def _find_constraints(source: Source, stated: Statement, parts: Sequence[Part]) -> Constraints:
    """The constraints on the choices of a search: the remaining options, and those to try first."""
    options = {activation_slot(place): (activation,) for place, activation in stated.activations.items()}
    if stated.readout is not None:
        options["readout"] = (stated.readout,)
    if stated.output_function is not None:
        options["output"] = (stated.output_function,)
    space = stated.space if stated.is_scaled else "scaled"
    if space is not None:
        options["inputs"] = options["predictions"] = (space,)
    elif all((column.mean, column.std) == (0.0, 1.0) for column in stated.targets):
        options["predictions"] = ("scaled",)
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


def _doubt(left: Mapping[str, Tensor]) -> str:
    """Names the first key that belongs to no part: to drop it could change the forecast."""
    first = next(iter(left))
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    what = FOREIGN.get(first.rpartition(".")[2])
    if what is None and left[first].ndim >= 3 and first.endswith("weight"):
        what = "a convolution"
    reason = f"it is of {what}, which is no layer of a chain" if what else "it belongs to no part that is known"
    return f"has key {first}{more}, which is not understood: {reason}, and to drop it could change the forecast"
