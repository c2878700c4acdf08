"""The structure of a model: its parts (front, recurrent, head), and what is known of how they are joined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.assembly import NONE
from kanmodel.importers.libraries import LIBRARIES, AnyPart, Part, RecurrentPart, find_parts
from kanmodel.importers.libraries.layers import find_recurrent
from kanmodel.importers.libraries.part import activation_of
from kanmodel.importers.manifest import Manifest
from kanmodel.importers.source import Module, Value
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
        unused: keys that belong to no part, which must be proved to have no effect on the forecasts.
        doubt: why they may have one, starting with a verb; empty if there is no such key, or that was proved.
    """

    parts: tuple[Part, ...]
    recurrent: RecurrentPart | None
    constraints: Constraints
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

    def spaces(self, shapes: ModelConfig, manifest: Manifest) -> list[Space]:
        """The search spaces of readings, one for each possible order of the parts.

        Raises:
            CheckpointError: the parts fit together in no order.
        """
        head, front = manifest.prefixes.get("head"), manifest.prefixes.get("front")

        def allowed(part: Part, is_front: bool) -> bool:
            if head is not None and is_under(part.place, head):
                return not is_front
            return front is None or is_front or not is_under(part.place, front)

        orders = find_orders(self.parts, self.recurrent, shapes, allowed)
        spaces = [Space.of(order, self.recurrent, self.constraints, len(shapes.outputs)) for order in orders]
        fitting = [space for space in spaces if space.n_readings]
        if not fitting:
            raise CheckpointError(f"has parts that fit no order with readout {manifest.readout}")
        return fitting


def find_structure(
    tensors: Mapping[str, Tensor],
    module: Module | None,
    hyper_parameters: Mapping[str, Value],
    manifest: Manifest,
    removed: str = "",
) -> Structure:
    """Finds the parts of a model.

    Args:
        tensors: all tensors, by key.
        module: the module tree; None if unknown.
        hyper_parameters: saved with the weights.
        manifest: the user's statements.
        removed: prefix that was removed from every key of the file.

    Raises:
        CheckpointError: a named part is missing or of another kind than stated.
    """
    recurrents = find_recurrent(tensors) if manifest.input_id else []
    n_entering = recurrents[0].n_out if recurrents else len(manifest.features)
    parts, recurrents = find_parts(tensors, manifest.metadata(module, n_entering))
    prefixes = {
        name: None if prefix is None else f"{prefix}.".removeprefix(removed).removesuffix(".")
        for name, prefix in manifest.prefixes.items()
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
        if manifest.library is not None and part.library not in (*TORCH, *LIBRARIES[manifest.library]):
            title = LIBRARIES[manifest.library][0]
            raise CheckpointError(f"has a KAN at {part.place!r} whose keys fit {part.library}, not {title}")
    for part in parts:
        if part.problem is not None:
            raise CheckpointError(part.problem)
    constraints = _find_constraints(module, hyper_parameters, manifest, {part.place for part in parts})
    structure = Structure(tuple(parts), recurrent, constraints)
    left = {key: tensor for key, tensor in tensors.items() if not any(key in part.keys for part in structure.every)}
    return replace(structure, unused=tuple(left), doubt=_doubt(left)) if left else structure


def _places(parts: Sequence[AnyPart]) -> str:
    return ", ".join(repr(part.place) for part in parts) or "none at all"


def is_under(place: str, prefix: str) -> bool:
    """Whether a place equals a prefix or is below it."""
    return not prefix or place == prefix or place.startswith(f"{prefix}.")


def _find_constraints(
    module: Module | None, hyper_parameters: Mapping[str, Value], manifest: Manifest, places: set[str]
) -> Constraints:
    """The constraints on the choices of a search: the remaining options, and those to try first."""
    options: dict[str, tuple[str, ...]] = {}
    if manifest.readout is not None:
        options["readout"] = (manifest.readout,)
    if manifest.output_function is not None:
        options["output"] = (manifest.output_function,)
    for place, activation in manifest.activations.items():
        options[activation_slot(place)] = (activation,)
    if not manifest.is_scaled:
        options["inputs"] = options["predictions"] = ("scaled",)
    elif manifest.space is not None:
        options["inputs"] = options["predictions"] = (manifest.space,)
    elif all((column.mean, column.std) == (0.0, 1.0) for column in manifest.targets):
        options["predictions"] = ("scaled",)
    modules = [] if module is None else [child for _, child in module.walk()]
    values = [*modules, *(value for child in modules for value in child.values.values()), *hyper_parameters.values()]
    mentioned = dict.fromkeys(name for value in values if (name := activation_of(value)) and name != "identity")
    return Constraints(options, tuple(mentioned), dict(_in_sequentials(module, places)))


def _in_sequentials(module: Module | None, places: set[str]) -> Iterator[tuple[str, str]]:
    """Yields the activations between two parts of a Sequential: (name of the choice, activation)."""
    for path, child in module.walk() if module is not None else ():
        if child.class_name != "torch.nn.modules.container.Sequential":
            continue
        between: list[str] | None = None  # activations since the last part; None before the first
        for name, inner in child.children.items():
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
    what = next((what for name, what in FOREIGN.items() if first.rpartition(".")[2] == name), None)
    if what is None and left[first].ndim >= 3 and first.endswith("weight"):
        what = "a convolution"
    reason = f"it is of {what}, which is no layer of a chain" if what else "it belongs to no part that is known"
    return f"has key {first}{more}, which is not understood: {reason}, and to drop it could change the forecast"
