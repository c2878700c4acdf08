"""Layers of splines: efficient-kan, kanx, flashkan, inkan, torchkan, and the bare layer of pykan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain, count, takewhile

import torch

from kanmodel.errors import CheckpointError
from kanmodel.importers import parts
from kanmodel.importers.parts import Chosen, Item, Layer, Metadata, Norm, Part, Tensors
from kanmodel.network import splines
from kanmodel.network.bases import BSpline
from kanmodel.network.config import LayerConfig, Transform

# Axes of the tensors of a layer by their names, a ? at the end of those that may be missing.
EFFICIENT = {"spline_weight": "out in coef", "grid": "in knots", "base_weight": "out in", "spline_scaler?": "out in"}
KANX = {"spline_weight": "in out coef", "grid": "in knots", "base_weight": "in out"}
PYKAN = {"coef": "in out coef", "grid": "in knots", **dict.fromkeys(("mask", "scale_base", "scale_sp"), "in out")}
NAMES = {"spline_weight": "coef", "base_weight": "scale_base", "spline_scaler": "scale_spline"}  # in a `KANLayer`
NAMES |= {"scale_sp": "scale_spline", **{name: name for name in ("coef", "grid", "mask", "scale_base")}}


def read_efficient_kan(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A layer of efficient-kan (Blealtan 2024), whose keys imodelsX and neuralforecast share.

    `spline_scaler`, if there is one, scales the splines but not the base. A grid without the knots beyond the core
    interval is one of kanx, which adds those in its forward.
    """
    if "grid" not in found:
        lack = "no library that is known has such layers (efficient-kan, kanx and flashkan have one)"
        raise CheckpointError(f"has {parts.start_of(place)}spline_weight without a grid, and {lack}")
    bases = metadata.bases(place)
    if found["grid"].shape[-1:] > found["spline_weight"].shape[-1:]:
        return _splined("efficient-kan", found, place, EFFICIENT, bases)
    bases = (*bases, "tanh") if len(bases) > 1 else bases  # one of kanx's five
    return _splined("kanx", found, place, KANX, bases, extended=False)


def read_pykan_layer(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A bare KANLayer of pykan: the edges alone, without the affine maps and symbolic functions of a KAN."""
    if found["scale_sp"].ndim == 1:
        problem = "whose flat tensors do not state its widths: save the KAN that has it"
        raise CheckpointError(f"has at {place!r} a bare KANLayer of pykan 0.0, {problem}")
    return _splined("pykan", found, place, PYKAN, metadata.bases(place))


def _splined(
    library: str,
    found: Tensors,
    place: str,
    axes: Mapping[str, str],
    bases: tuple[str, ...],
    extended: bool = True,
    keys: Mapping[str, str] | None = None,
) -> Part:
    """A layer of splines with one of some base functions; `keys` are those of the file, if they are not of `axes`."""
    sizes = parts.fit(found, place, "pykan's KANLayer" if axes is PYKAN else library, axes)
    basis = BSpline(*parts.spline_shape(place, sizes["coef"], sizes["knots"], extended))
    tensors = {}
    for name, own in NAMES.items():
        if name in found and (name in axes or f"{name}?" in axes):
            is_turned = axes.get(name, "").startswith("in out")
            tensors[own] = found[name].transpose(0, 1) if is_turned else found[name]
    tensors = {"scale_spline": torch.ones_like(tensors["scale_base"]), **tensors}
    if not extended:
        tensors["grid"] = splines.extend_grid(found["grid"], basis.order)

    def read(chosen: Chosen) -> Layer:
        return Layer(LayerConfig(sizes["in"], sizes["out"], basis, base=chosen["base"]), tensors)

    described = f", grid {basis.grid_size}, spline order {basis.order}"
    return Part.of(library, place, read({"base": bases[0]}), keys or axes, described, {"base": bases}, read)


def read_uniform(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A layer of flashkan or inkan: cubic splines on uniform knots from ``grid_starts``, whatever order was asked for.

    inkan has coefficients and base weights in one matrix, the coefficients of each output first.
    """
    library, axes = "flashkan", {"grid_starts": "coef", "spline_weight": "out in coef", "base_weight": "out in"}
    if "spline_weight" not in found:
        library, axes = "inkan", {"grid_starts": "coef", "weight": "out columns"}
    sizes = parts.fit(found, place, library, axes)
    n_coef, tensors = sizes["coef"], dict(found)
    if library == "inkan":
        n_in, left = divmod(sizes["columns"], n_coef + 1)
        if left or not n_in:
            surface = "a function of two inputs on each edge (dim=2), which is no KAN layer of functions of one input"
            raise CheckpointError(f"has at {place!r} a layer of inkan with {surface}")
        coef, base = torch.split(found["weight"], [n_in * n_coef, n_in], dim=1)
        tensors = {"spline_weight": coef.reshape(*base.shape, n_coef), "base_weight": base}
    starts, base = found["grid_starts"], tensors["base_weight"]
    step = (starts[-1] - starts[0]) / (n_coef - 1)
    grid = starts[0] + step * torch.arange(n_coef + 4, dtype=base.dtype)
    tensors["grid"] = grid.expand(base.shape[1], -1)
    return _splined(library, tensors, place, EFFICIENT, metadata.bases(place), keys=axes)


def read_torchkan(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A KAN of torchkan: after the edges of each layer are a LayerNorm and a PReLU, which is a leaky_relu."""
    if "poly_weights.0" in found:
        scaled = "scales its inputs by the smallest and the largest of the batch, so that a forecast depends on others"
        raise CheckpointError(f"has at {place!r} a KAL_Net of torchkan, which {scaled}")
    layers: list[tuple[Layer, Norm, Transform]] = []
    axes: dict[str, str] = {}
    bases = metadata.bases(place)
    for n in takewhile(lambda n: f"base_weights.{n}" in found, count()):
        own = {f"spline_weights.{n}": "out in coef", f"base_weights.{n}": "out in", f"grid_{n}": "in knots"}
        own |= dict.fromkeys((f"layer_norms.{n}.weight", f"layer_norms.{n}.bias"), "out") | {f"prelus.{n}.weight": "1"}
        sizes = parts.fit(found, place, "torchkan", own, {"in": layers[-1][0].config.n_out} if layers else {})
        basis = BSpline(*parts.spline_shape(place, sizes["coef"], sizes["knots"]))
        base, norm = found[f"base_weights.{n}"], Transform("layer_norm", metadata.eps(f"{place}.layer_norms.{n}"))
        tensors = {"coef": found[f"spline_weights.{n}"], "grid": found[f"grid_{n}"], "scale_base": base}
        layer = Layer(LayerConfig(sizes["in"], sizes["out"], basis), tensors | {"scale_spline": torch.ones_like(base)})
        slope = Transform("leaky_relu", float(found[f"prelus.{n}.weight"]))
        layers.append((layer, Norm(norm, found[f"layer_norms.{n}.weight"], found[f"layer_norms.{n}.bias"]), slope))
        axes |= own

    def read(chosen: Chosen) -> tuple[Item, ...]:
        triples = ((replace(a, config=replace(a.config, base=chosen["base"])), b, c) for a, b, c in layers)
        return tuple(chain.from_iterable(triples))

    nodes = [layers[0][0].config.n_in, *(layer.config.n_out for layer, *_ in layers)]
    keys, described = parts.keys_of(place, axes), f"nodes {nodes}, with a LayerNorm and a PReLU behind each layer"
    return Part(place, "torchkan", nodes[0], nodes[-1], keys, read, {"base": bases}, described)
