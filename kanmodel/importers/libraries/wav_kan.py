"""Wav-KAN (Bozorgasl and Chen 2024, arXiv 2405.12832) with Mexican hats.

    out_o = BatchNorm(sum_i wavelet_weights[o, i] psi((x_i - translation[o, i]) / scale[o, i]))

Its `weight1` is trained and saved, but not used; in some copies it is the weight of a base function.
"""

from __future__ import annotations

from kanmodel.errors import CheckpointError
from kanmodel.importers.libraries.part import (
    NORM_EPS,
    Chosen,
    Facts,
    Layer,
    Part,
    Tensors,
    affine_of,
    compare_shapes,
    keys_of,
    keys_under,
    places_of,
    shape_of,
    start_of,
)
from kanmodel.network.bases import MexicanHat
from kanmodel.network.config import LayerConfig

TITLE = "Wav-KAN"
HATS = ("Mexican hats, negative at 0", "Mexican hats, positive at 0")
WEIGHT1 = {"weight1 not used": "zero", "weight1 of a linear base": "identity", "weight1 of a silu base": "silu"}


def find(tensors: Tensors, facts: Facts) -> list[Part]:
    """Finds its layers in a file.

    Raises:
        CheckpointError: a tensor is missing or its shape fits no layer, or it has another wavelet.
    """
    return [_read(keys_under(tensors, place), place, facts) for place in places_of(tensors, "wavelet_weights")]


def _read(found: Tensors, place: str, facts: Facts) -> Part:
    n_out, n_in = shape_of(found, "wavelet_weights", 2, place)
    kind = facts.text(place, "wavelet_type")
    if kind not in (None, "mexican_hat"):
        raise CheckpointError(f"has wavelets of type {kind!r} at {place!r}, but only mexican_hat is supported")
    shapes = dict.fromkeys(("wavelet_weights", "scale", "translation"), (n_out, n_in))
    if "weight1" in found:
        shapes["weight1"] = (n_out, n_in)
    names = [*shapes]
    compare_shapes(found, shapes, place, TITLE)
    tensors = {
        "coef": found["wavelet_weights"].unsqueeze(-1),
        "scale": found["scale"],
        "translation": found["translation"],
    }
    norm = keys_under(found, "bn")
    if "running_mean" in norm:
        per_node = {f"bn.{name}": (n_out,) for name in ("running_mean", "running_var", "weight", "bias")}
        compare_shapes(found, per_node, place, TITLE)
        tensors["node_scale"], tensors["node_bias"] = affine_of(norm, facts.eps(f"{start_of(place)}bn") or NORM_EPS)
        names += [f"bn.{name}" for name in norm]

    def read(chosen: Chosen) -> tuple[Layer]:
        base = WEIGHT1[chosen["weight1"]] if "weight1" in found else "zero"
        sign = 1 if chosen["hats"] == HATS[0] else -1
        scaled = tensors | {"coef": sign * tensors["coef"]}
        if base != "zero":
            scaled["scale_base"] = found["weight1"]
        return (Layer(LayerConfig(n_in, n_out, MexicanHat(), base=base), scaled),)

    choices = {"hats": HATS} | ({"weight1": tuple(WEIGHT1)} if "weight1" in found else {})
    return Part(place, TITLE, n_in, n_out, keys_of(place, names), read, choices, f"{n_in} to {n_out}")
