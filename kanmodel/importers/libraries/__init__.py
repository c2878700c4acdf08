"""The libraries whose layers are read, one file each: what their keys and shapes say, and what they leave open.

A file that comes in has one `find`, and an entry in the table below; nothing else asks what a library is.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kanmodel.importers.libraries import (
    cheby_kan,
    efficient_kan,
    fourier_kan,
    legacy_pykan,
    pykan,
    radial,
    recurrent,
    torch_layers,
    wav_kan,
)
from kanmodel.importers.libraries.part import AnyPart, Facts, Item, Layer, Norm, Part, RecurrentPart

KANS = (pykan, legacy_pykan, radial, efficient_kan, cheby_kan, fourier_kan, wav_kan)
LIBRARIES = {
    "pykan": ("pykan", "pykan 0.0"),
    "efficient_kan": ("efficient-kan",),
    "fast_kan": ("fast-kan", "fast-kan or FasterKAN"),
    "faster_kan": ("FasterKAN", "fast-kan or FasterKAN"),
}  # those that a manifest may name, and what their parts are called

__all__ = ["LIBRARIES", "AnyPart", "Facts", "Item", "Layer", "Norm", "Part", "RecurrentPart", "find_parts"]


def find_parts(tensors: Mapping[str, Tensor], facts: Facts) -> tuple[list[Part], list[RecurrentPart]]:
    """Everything in a file that is understood, in its order; a key belongs to one part at most.

    Raises:
        CheckpointError: a part whose tensors do not fit each other, or that is known but not read.
    """
    recurrents = recurrent.find(tensors)
    left = _without(tensors, recurrents)
    parts: list[Part] = []
    for library in (*KANS, torch_layers):
        found = library.find(left, facts)
        left = _without(left, found)
        parts += found
    order = {key: number for number, key in enumerate(tensors)}
    return sorted(parts, key=lambda part: min(order[key] for key in part.keys)), recurrents


def _without(tensors: Mapping[str, Tensor], parts: list[Part] | list[RecurrentPart]) -> dict[str, Tensor]:
    taken = {key for part in parts for key in part.keys}
    return {key: tensor for key, tensor in tensors.items() if key not in taken}
