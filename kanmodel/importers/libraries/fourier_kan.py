"""FourierKAN (GistNoesis 2024).

out_o = bias_o + sum_i sum_k c[0, o, i, k-1] cos(k x_i) + c[1, o, i, k-1] sin(k x_i)
"""

from __future__ import annotations

import torch

from kanmodel.errors import CheckpointError
from kanmodel.importers.libraries.part import (
    Chosen,
    Facts,
    Layer,
    Part,
    Tensors,
    compare_shapes,
    keys_of,
    keys_under,
    places_of,
    shape_of,
)
from kanmodel.network.bases import Fourier
from kanmodel.network.config import LayerConfig

TITLE = "FourierKAN"
WAVES = ("cosines first", "sines first")  # order of the coefficients


def find(tensors: Tensors, facts: Facts) -> list[Part]:
    """Finds its layers in a file.

    Raises:
        CheckpointError: the shape of a tensor fits no layer.
    """
    return [_read(keys_under(tensors, place), place) for place in places_of(tensors, "fouriercoeffs")]


def _read(found: Tensors, place: str) -> Part:
    n_kinds, n_out, n_in, frequencies = shape_of(found, "fouriercoeffs", 4, place)
    if n_kinds != 2:
        raise CheckpointError(f"has {n_kinds} kinds of waves in {place}.fouriercoeffs, not cosines and sines")
    bias = {}
    if "bias" in found:
        compare_shapes(found, {"bias": (1, n_out)}, place, TITLE)
        bias = {"subnode_bias": found["bias"][0]}

    def read(chosen: Chosen) -> tuple[Layer]:
        first, second = found["fouriercoeffs"]
        pair = (first, second) if chosen["waves"] == WAVES[0] else (second, first)
        return (
            Layer(LayerConfig(n_in, n_out, Fourier(frequencies), base="zero"), {"coef": torch.cat(pair, 2)} | bias),
        )

    names = ("fouriercoeffs", *(("bias",) if bias else ()))
    sizes = f"{n_in} to {n_out}, {frequencies} frequencies"
    return Part(place, TITLE, n_in, n_out, keys_of(place, names), read, {"waves": WAVES}, sizes)
