"""The parts of a file (front, recurrent, head), as detected or as its manifest names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.facts import facts_of, told_of
from kanmodel.importers.libraries import LIBRARIES, AnyPart, Part, RecurrentPart, find_parts
from kanmodel.importers.manifest import Manifest
from kanmodel.importers.modules import Module, Value
from kanmodel.importers.search.orders import Sizes, find_orders
from kanmodel.importers.search.space import Space, Told
from kanmodel.network.config import ModelConfig

FOREIGN = {
    "in_proj_weight": "attention, in which every step reads the others",
    "weight_ih": "a cell that its own loop runs",
}  # substrings of keys -> the unsupported module that has them
TORCH = ("Linear", "LayerNorm", "BatchNorm")


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model.

    Attributes:
        parts: all parts except the recurrent one, in the order of the file.
        recurrent: the LSTM or GRU; None if there is none.
        told: what is known about how the parts are put together.
        unused: keys that belong to no part, which must be proved to have no effect on the forecasts.
        doubt: why they may have one, starting with a verb; empty if there is no such key, or that was proved.
    """

    parts: tuple[Part, ...]
    recurrent: RecurrentPart | None
    told: Told
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
        sizes = Sizes(shapes.lookback, len(shapes.features), len(shapes.outputs))
        head, front = manifest.prefixes.get("head"), manifest.prefixes.get("front")

        def allowed(part: Part, is_front: bool) -> bool:
            if head is not None and is_under(part.place, head):
                return not is_front
            return front is None or is_front or not is_under(part.place, front)

        orders = find_orders(self.parts, self.recurrent, sizes, allowed)
        spaces = [Space.of(order, self.recurrent, self.told, sizes.n_outputs) for order in orders]
        fitting = [space for space in spaces if space.n_readings]
        if not fitting:
            raise CheckpointError(f"has parts that fit no order with readout {manifest.readout}")
        return fitting


def dissect(
    tensors: Mapping[str, Tensor],
    module: Module | None,
    hyper_parameters: Mapping[str, Value],
    manifest: Manifest,
    taken_off: str = "",
) -> Anatomy:
    """Finds the parts of a model.

    Args:
        tensors: all tensors, by key.
        module: the module tree; None if unknown.
        hyper_parameters: saved with the weights.
        manifest: the user's statements.
        taken_off: prefix that was removed from every key of the file.

    Raises:
        CheckpointError: a named part is missing or of another kind than stated.
    """
    recurrents = find_parts(tensors, facts_of(None, manifest, 1 << 16))[1] if manifest.input_id else []
    n_reaching = recurrents[0].n_out if recurrents else len(manifest.features)
    parts, recurrents = find_parts(tensors, facts_of(module, manifest, n_reaching))
    prefixes = {name: _inner(prefix, taken_off) for name, prefix in manifest.prefixes.items()}
    recurrent = _choose_recurrent(recurrents, prefixes)
    for name in ("head", "front"):
        prefix = prefixes.get(name)
        if prefix is not None and not any(is_under(part.place, prefix) for part in parts):
            raise CheckpointError(f"has no KAN at {prefix!r}, but {_places(parts)}")
    if manifest.library is not None:
        _check_library(parts, manifest.library)
    for part in parts:
        if part.problem is not None:
            raise CheckpointError(part.problem)
    anatomy = Anatomy(tuple(parts), recurrent, told_of(module, hyper_parameters, manifest, parts))
    left = {key: tensor for key, tensor in tensors.items() if not any(key in part.keys for part in anatomy.every)}
    return replace(anatomy, unused=tuple(left), doubt=_doubt(left)) if left else anatomy


def is_under(place: str, prefix: str) -> bool:
    """Whether a place equals a prefix or is below it."""
    return not prefix or place == prefix or place.startswith(f"{prefix}.")


def _inner(prefix: str | None, taken_off: str) -> str | None:
    """A prefix from the manifest, without the prefix that was removed from every key."""
    return None if prefix is None else f"{prefix}.".removeprefix(taken_off).removesuffix(".")


def _choose_recurrent(found: Sequence[RecurrentPart], prefixes: Mapping[str, str | None]) -> RecurrentPart | None:
    if "lstm" in prefixes:
        prefix = prefixes["lstm"]
        chosen = next((part for part in found if part.place == prefix), None)
        if prefix is not None and chosen is None:
            raise CheckpointError(f"has no LSTM at {prefix!r}, but {_places(found)}")
        return chosen
    if len(found) > 1:
        raise CheckpointError(f"has recurrent parts at {_places(found)}, but Kanscope reads models with only one")
    return found[0] if found else None


def _places(parts: Sequence[AnyPart]) -> str:
    return ", ".join(repr(part.place) for part in parts) or "none at all"


def _check_library(parts: Sequence[Part], library: str) -> None:
    for part in parts:
        if part.library not in (*TORCH, *LIBRARIES[library]):
            raise CheckpointError(
                f"has a KAN at {part.place!r} whose keys fit {part.library}, not {LIBRARIES[library][0]}"
            )


def _doubt(left: Mapping[str, Tensor]) -> str:
    """Names the first key that belongs to no part: to drop it could change the forecast."""
    first = next(iter(left))
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    what = next((what for name, what in FOREIGN.items() if first.rpartition(".")[2] == name), None)
    if what is None and left[first].ndim >= 3 and first.endswith("weight"):
        what = "a convolution"
    reason = f"it is of {what}, which is no layer of a chain" if what else "it belongs to no part that is known"
    return f"has key {first}{more}, which is not understood: {reason}, and to drop it could change the forecast"
