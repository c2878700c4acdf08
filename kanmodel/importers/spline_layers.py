"""Layers of splines: efficient-kan, kanx, flashkan, inkan, torchkan, and the bare layer of pykan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, count, takewhile

import torch

from kanmodel.errors import CheckpointError
from kanmodel.importers import parts
from kanmodel.importers.parts import Chosen, Item, Layer, Metadata, Norm, Part, Tensors
from kanmodel.network import splines
from kanmodel.network.bases import BSpline
from kanmodel.network.config import LayerConfig, Transform


def read_efficient_kan(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A layer of efficient-kan (Blealtan 2024), whose keys imodelsX and neuralforecast share.

    Its tensors are (out, in), as here. `spline_scaler`, if there is one, scales the splines but not the base. A grid
    without the knots beyond the core interval is one of kanx, whose tensors are (in, out).
    """
    if "grid" not in found:
        lack = (
            "without a grid, and no library that is known has such layers (efficient-kan, kanx and flashkan have one)"
        )
        raise CheckpointError(f"has {parts.start_of(place)}spline_weight {lack}")
    if found["grid"].shape[-1:] <= found["spline_weight"].shape[-1:]:
        return read_kanx(found, place, metadata)
    axes = {"spline_weight": "out in coef", "grid": "in knots", "base_weight": "out in", "spline_scaler?": "out in"}
    sizes = parts.fit(found, place, "efficient-kan", axes)
    basis = BSpline(*parts.spline_shape(place, sizes["coef"], sizes["knots"]))
    tensors = {"coef": found["spline_weight"], "grid": found["grid"], "scale_base": found["base_weight"]}
    if "spline_scaler" in found:
        tensors["scale_spline"] = found["spline_scaler"]
    return _splined("efficient-kan", place, metadata.bases(place), tensors, basis, axes)


def read_kanx(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A KANLinear of kanx on torch, with the knots of the core interval; those beyond it are added in its forward."""
    axes = {"spline_weight": "in out coef", "grid": "in knots", "base_weight": "in out"}
    sizes = parts.fit(found, place, "kanx", axes)
    basis = BSpline(*parts.spline_shape(place, sizes["coef"], sizes["knots"], extended=False))
    bases = metadata.bases(place)
    bases = (*bases, "tanh") if len(bases) > 1 else bases  # one of kanx's five
    tensors = {"grid": splines.extend_grid(found["grid"], basis.order)}
    tensors |= {"coef": found["spline_weight"].transpose(0, 1), "scale_base": found["base_weight"].T}
    return _splined("kanx", place, bases, tensors, basis, axes)


def read_uniform(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A layer of flashkan or inkan: cubic splines on uniform knots from ``grid_starts``, whatever order was asked for.

    inkan has coefficients and base weights in one matrix, the coefficients of each output first.
    """
    packed = "spline_weight" not in found
    library, axes = "flashkan", {"grid_starts": "coef", "spline_weight": "out in coef", "base_weight": "out in"}
    if packed:
        library, axes = "inkan", {"grid_starts": "coef", "weight": "out columns"}
    sizes = parts.fit(found, place, library, axes)
    n_coef = sizes["coef"]
    if packed:
        n_in, left = divmod(sizes["columns"], n_coef + 1)
        if left or not n_in:
            surface = "a function of two inputs on each edge (dim=2), which is no KAN layer of functions of one input"
            raise CheckpointError(f"has at {place!r} a layer of inkan with {surface}")
        coef, base = found["weight"][:, : n_in * n_coef], found["weight"][:, n_in * n_coef :]
    else:
        coef, base = found["spline_weight"], found["base_weight"]
    basis = BSpline(*parts.spline_shape(place, n_coef, n_coef + 4))
    starts, steps = found["grid_starts"], torch.arange(n_coef + 4, dtype=base.dtype)
    grid = (starts[0] + (starts[-1] - starts[0]) / (n_coef - 1) * steps).expand(base.shape[1], -1)
    tensors = {"coef": coef.reshape(*base.shape, n_coef), "scale_base": base, "grid": grid}
    return _splined(library, place, metadata.bases(place), tensors, basis, axes)


def read_pykan_layer(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A bare KANLayer of pykan: the edges alone, without the affine maps and symbolic functions of a KAN."""
    if found["scale_sp"].ndim == 1:
        problem = "whose flat tensors do not state its widths: save the KAN that has it"
        raise CheckpointError(f"has at {place!r} a bare KANLayer of pykan 0.0, {problem}")
    edges = {"mask": "mask", "scale_base": "scale_base", "scale_sp": "scale_spline", "coef": "coef"}
    axes = dict.fromkeys(edges, "in out") | {"coef": "in out coef", "grid": "in knots"}
    sizes = parts.fit(found, place, "pykan's KANLayer", axes)
    basis = BSpline(*parts.spline_shape(place, sizes["coef"], sizes["knots"]))
    tensors = {ours: found[name].transpose(0, 1) for name, ours in edges.items()} | {"grid": found["grid"]}
    return _splined("pykan", place, metadata.bases(place), tensors, basis, axes)


def _splined(
    library: str, place: str, bases: tuple[str, ...], tensors: Tensors, basis: BSpline, names: Iterable[str]
) -> Part:
    """A layer of splines, one of the base functions, and weights of it, (out, in)."""
    n_out, n_in = tensors["scale_base"].shape
    tensors = {"scale_spline": torch.ones_like(tensors["scale_base"]), **tensors}

    def read(chosen: Chosen) -> Layer:
        return Layer(LayerConfig(n_in, n_out, basis, base=chosen["base"]), tensors)

    described = f", grid {basis.grid_size}, spline order {basis.order}"
    return Part.of(library, place, read({"base": bases[0]}), names, described, {"base": bases}, read)


def read_torchkan(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A KAN of torchkan: behind the edges of each layer are a LayerNorm and a PReLU, which is a leaky_relu."""
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
