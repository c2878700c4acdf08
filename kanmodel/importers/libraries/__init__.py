"""The supported KAN libraries, one module each: how their keys and shapes determine layers, and what they leave open.

To add a library, write a module with a `find` function and add an entry to the table below; nothing else depends on
the library.
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
}  # names in a manifest -> names of their parts

__all__ = ["LIBRARIES", "AnyPart", "Facts", "Item", "Layer", "Norm", "Part", "RecurrentPart", "find_parts"]


def find_parts(tensors: Mapping[str, Tensor], facts: Facts) -> tuple[list[Part], list[RecurrentPart]]:
    """Finds all supported parts of a file, in its order; each key belongs to at most one part.

    Raises:
        CheckpointError: the tensors of a part do not fit each other, or it is a known but unsupported variant.
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
