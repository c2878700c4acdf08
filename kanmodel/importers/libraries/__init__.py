"""The supported libraries: how their keys and shapes determine layers, and what they leave open."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from kanmodel.importers.libraries import layers
from kanmodel.importers.libraries.part import (
    AnyPart,
    Item,
    Layer,
    Metadata,
    Norm,
    Part,
    RecurrentPart,
    keys_under,
    places_of,
)
from kanmodel.importers.libraries.pykan import read_pykan

READERS: dict[str, Callable[[Mapping[str, Tensor], str, Metadata], Part | None]] = {
    "act_fun.0.coef": read_pykan,
    "rbf.grid": layers.read_radial,
    "spline_weight": layers.read_efficient_kan,
    "cheby_coeffs": layers.read_cheby_kan,
    "fouriercoeffs": layers.read_fourier_kan,
    "wavelet_weights": layers.read_wav_kan,
    "weight": layers.read_torch_layer,  # last, because KANs have tensors of this name too
    "running_mean": layers.read_torch_layer,
}  # name of a tensor -> the library's part that has it
LIBRARIES = {
    "pykan": ("pykan", "pykan 0.0"),
    "efficient_kan": ("efficient-kan",),
    "fast_kan": ("fast-kan", "fast-kan or FasterKAN"),
    "faster_kan": ("FasterKAN", "fast-kan or FasterKAN"),
}  # names in a manifest -> names of their parts

__all__ = ["LIBRARIES", "AnyPart", "Item", "Layer", "Metadata", "Norm", "Part", "RecurrentPart", "find_parts"]


def find_parts(tensors: Mapping[str, Tensor], metadata: Metadata) -> tuple[list[Part], list[RecurrentPart]]:
    """Finds all supported parts of a file, in its order; each key belongs to at most one part.

    Raises:
        CheckpointError: the tensors of a part do not fit each other, or it is a known but unsupported variant.
    """
    recurrents = layers.find_recurrent(tensors)
    left = _without(tensors, recurrents)
    parts: list[Part] = []
    for name, read in READERS.items():
        read_parts = [read(keys_under(left, place), place, metadata) for place in places_of(left, name)]
        found = [part for part in read_parts if part is not None]
        left = _without(left, found)
        parts += found
    order = {key: number for number, key in enumerate(tensors)}
    return sorted(parts, key=lambda part: min(order[key] for key in part.keys)), recurrents


def _without(tensors: Mapping[str, Tensor], parts: list[Part] | list[RecurrentPart]) -> dict[str, Tensor]:
    taken = {key for part in parts for key in part.keys}
    return {key: tensor for key, tensor in tensors.items() if key not in taken}
