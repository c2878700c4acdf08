"""The tensors of fast-kan and FasterKAN -> those of a `KAN`.

A layer of fast-kan (Li 2024, arXiv 2405.06721) and of FasterKAN (Delis 2024), with u = layernorm(x), or x where the
layer has no norm, with G centres and v_ig = (u_i - grid_g) / denominator:

    fast-kan    out_j = sum_i sum_g W[j, i G + g] exp(-v_ig^2) + sum_i Wb[j, i] base(x_i) + bb_j
    FasterKAN   out_j = sum_i sum_g W[j, i G + g] (1 - tanh(v_ig)^2)

The file of fast-kan does not hold the denominator, which is the distance of its centres. FasterKAN has an
`inv_denominator` in its file, which may be trained, but its forward pass does not use it: there the denominator is 1.
Forks of FasterKAN do use it, and so does `cu_fasterkan` in FasterKAN's own repository, whose columns of W are
g n_in + i; the file does not tell which of the three it is from (`INV_DENOMINATORS`). FasterKAN up to 14 May 2024
divides by a denominator, 0.33 by default, that is not in the file, whose keys and shapes are those of fast-kan without
base.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Literal

import torch
from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.layout import number_tensors
from kanmodel.network.bases import Gaussian, Sech2
from kanmodel.network.config import LayerConfig, Layers, Step

RadialLibrary = Literal["fast_kan", "faster_kan"]
TITLES: dict[RadialLibrary, str] = {"fast_kan": "fast-kan", "faster_kan": "FasterKAN"}
InvDenominator = Literal["ignored", "used", "cuda"]
INV_DENOMINATORS: dict[InvDenominator, str] = {
    "ignored": "inv_denominator ignored, as FasterKAN does",
    "used": "inv_denominator used, as forks of FasterKAN do",
    "cuda": "inv_denominator used and the inputs innermost in the columns, as cu_fasterkan does",
}
INV_DENOMINATOR_KEY = "rbf.inv_denominator"


@dataclass(frozen=True)
class _Layer:
    """One layer as its library stores it.

    Attributes:
        place: its prefix in the file, for errors.
        tensors: by the key behind the prefix.
        n_in: inputs.
        n_out: outputs.
        n_centres: centres of its grid, G.
    """

    place: str
    tensors: Mapping[str, Tensor]
    n_in: int
    n_out: int
    n_centres: int


def read_kan(
    tensors: Mapping[str, Tensor],
    prefix: str,
    *,
    library: RadialLibrary,
    base_activation: str = "silu",
    denominator: float | None = None,
    inv_denominator: InvDenominator = "ignored",
) -> tuple[Layers, dict[str, Tensor]]:
    """A KAN of fast-kan or FasterKAN, or a bare stack of their layers, or one of their layers alone.

    Args:
        tensors: the file's, by key.
        prefix: what stands before the first dot of the KAN's keys, such as ``fc_kan``; empty for a bare KAN.
        library: which of the two it is; the keys alone do not always tell.
        base_activation: what fast-kan's base does to the inputs; it is not in the file.
        denominator: width of the bumps of every layer. None: that of fast-kan's own default; FasterKAN up to
            14 May 2024 needs it.
        inv_denominator: what a FasterKAN that has one does with it; it is not in the file.

    Returns:
        The layers, and their tensors by their names in a stage, in the types of the file.

    Raises:
        CheckpointError: a key that the library does not have, one that is missing, shapes that do not fit, layers that
            do not follow each other, or a denominator that cannot be known.
        ConfigError: the denominator is not positive.
    """
    layers = [_read_layer(place, layer, library) for place, layer in _split_layers(tensors, prefix).items()]
    uses = inv_denominator != "ignored"
    for before, layer in pairwise(layers):
        if before.n_out != layer.n_in:
            raise CheckpointError(
                f"has {layer.n_in} inputs in {layer.place}, but {before.place} before it has {before.n_out} outputs"
            )
    basis = Gaussian if library == "fast_kan" else Sech2
    config = tuple(
        LayerConfig(
            n_in=layer.n_in,
            n_sum=layer.n_out,
            basis=basis(layer.n_centres, _denominator(layer, library, denominator, uses)),
            base=base_activation if "base_linear.weight" in layer.tensors else "zero",
            before=(Step("layer_norm"),) if "layernorm.weight" in layer.tensors else (),
            base_after=0 if "layernorm.weight" in layer.tensors else None,  # the base reads what was not normalised
        )
        for layer in layers
    )
    converted = [_convert(layer, centres_innermost=inv_denominator != "cuda") for layer in layers]
    return config, number_tensors(config, converted)


def _split_layers(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, dict[str, Tensor]]:
    """The tensors of each layer by its place in the file, first layer to last.

    A KAN has them under ``layers.0``, a bare stack under ``0``, and a layer alone has no number.
    """
    start = f"{prefix}." if prefix else ""
    found = {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}
    if "rbf.grid" in found:
        return {prefix or "the file": found}
    inner = "layers." if any(key.startswith("layers.") for key in found) else ""
    layers: dict[int, dict[str, Tensor]] = {}
    for key, tensor in found.items():
        match = re.fullmatch(re.escape(inner) + r"(0|[1-9][0-9]{0,3})\.(.+)", key)
        if not match:
            raise CheckpointError(f"has key {start}{key}, which no layer of fast-kan or FasterKAN has")
        layers.setdefault(int(match[1]), {})[match[2]] = tensor
    if not layers:
        raise CheckpointError(f"has no key under {prefix!r}")
    numbers = sorted(layers)
    if numbers != list(range(len(numbers))):
        gap = next(number for number in range(numbers[-1]) if number not in layers)
        raise CheckpointError(f"has no {start}{inner}{gap}, so what stands there between its layers is unknown")
    return {f"{start}{inner}{number}": layers[number] for number in numbers}


def _read_layer(place: str, tensors: Mapping[str, Tensor], library: RadialLibrary) -> _Layer:
    """Refuses the first key or shape that a layer of the library does not have."""
    for name, n_axes in (("rbf.grid", 1), ("spline_linear.weight", 2)):
        if name not in tensors:
            raise CheckpointError(f"lacks {place}.{name}, which every layer of {TITLES[library]} has")
        if tensors[name].ndim != n_axes or not tensors[name].numel():
            raise CheckpointError(f"has {place}.{name} of shape {list(tensors[name].shape)}, not of {n_axes} axes")
    n_centres = len(tensors["rbf.grid"])
    n_out, n_columns = tensors["spline_linear.weight"].shape
    if n_columns % n_centres:
        raise CheckpointError(
            f"has {n_columns} columns in {place}.spline_linear.weight, which {n_centres} centres of {place}.rbf.grid "
            "do not divide"
        )
    n_in = n_columns // n_centres
    expected: dict[str, tuple[int, ...]] = {
        "rbf.grid": (n_centres,),
        "spline_linear.weight": (n_out, n_in * n_centres),
        "layernorm.weight": (n_in,),
        "layernorm.bias": (n_in,),
    }
    if library == "fast_kan":
        expected |= {"base_linear.weight": (n_out, n_in), "base_linear.bias": (n_out,)}
    else:
        expected |= {INV_DENOMINATOR_KEY: ()}
    for name, tensor in tensors.items():
        if name not in expected:
            raise CheckpointError(f"has key {place}.{name}, which a layer of {TITLES[library]} does not have")
        if tuple(tensor.shape) != expected[name]:
            raise CheckpointError(
                f"has {place}.{name} of shape {list(tensor.shape)}, but {n_in} inputs, {n_out} outputs and "
                f"{n_centres} centres imply {list(expected[name])}"
            )
    for part in ("layernorm", "base_linear"):
        present = [name for name in (f"{part}.weight", f"{part}.bias") if name in tensors]
        if len(present) == 1:
            raise CheckpointError(f"has {place}.{present[0]}, but of {part} only that")
    return _Layer(place, tensors, n_in, n_out, n_centres)


def _denominator(layer: _Layer, library: RadialLibrary, given: float | None, uses_inverse: bool) -> float:
    """Width of a layer's bumps: what is given, or what the library takes by default."""
    if INV_DENOMINATOR_KEY in layer.tensors:
        if given is not None:
            raise CheckpointError(
                f"has {layer.place}.rbf.inv_denominator, and FasterKAN ignores it and divides by 1, but for its forks, "
                f"which use it: the denominator cannot be given as {given}"
            )
        return _inverse(layer) if uses_inverse else 1.0
    if given is not None:
        return float(given)
    if library == "faster_kan":
        raise CheckpointError(
            f"lacks {layer.place}.rbf.inv_denominator, so it is of FasterKAN up to 14 May 2024, which divides by "
            "a denominator that is not in the file (0.33 by default)"
        )
    first, last = layer.tensors["rbf.grid"][[0, -1]].double().tolist()
    if first == last:
        raise CheckpointError(f"has no distance between the centres of {layer.place}.rbf.grid to take as denominator")
    return float(abs(last - first) / (layer.n_centres - 1))  # the distance of two neighbours is rounded to their type


def _inverse(layer: _Layer) -> float:
    """The denominator of a FasterKAN that uses its inv_denominator; the bumps are even, so its sign does not matter."""
    inverse = abs(float(layer.tensors[INV_DENOMINATOR_KEY]))
    if not inverse or not isfinite(1 / inverse):
        raise CheckpointError(f"has {layer.place}.rbf.inv_denominator {inverse}, by which no bump has a finite width")
    return 1 / inverse


def _convert(layer: _Layer, centres_innermost: bool) -> dict[str, Tensor]:
    """The tensors of a `KANLayer`; what its library does not have is neutral."""
    weight = layer.tensors["spline_linear.weight"]
    per_edge = (layer.n_out, layer.n_in)
    if centres_innermost:
        coef = weight.reshape(*per_edge, layer.n_centres)
    else:
        coef = weight.reshape(layer.n_out, layer.n_centres, layer.n_in).transpose(1, 2)
    converted = {
        "coef": coef,
        "scale_base": layer.tensors.get("base_linear.weight", weight.new_zeros(per_edge)),
        "scale_spline": weight.new_ones(per_edge),
        "grid": layer.tensors["rbf.grid"].expand(layer.n_in, -1),
        "mask": weight.new_ones(per_edge),
        "subnode_scale": weight.new_ones(layer.n_out),
        "subnode_bias": layer.tensors.get("base_linear.bias", weight.new_zeros(layer.n_out)),
        "node_scale": weight.new_ones(layer.n_out),
        "node_bias": weight.new_zeros(layer.n_out),
    }
    if "layernorm.weight" in layer.tensors:
        converted |= {f"before.0.{name}": layer.tensors[f"layernorm.{name}"] for name in ("weight", "bias")}
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in converted.items()}
