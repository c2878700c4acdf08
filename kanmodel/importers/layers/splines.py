"""Layers of splines: pykan's KANs and its bare layer, efficient-kan, kanx, flashkan, inkan and torchkan.

pykan stores masks, scales and coefficients of edges as (in, out), but their symbolic parts as (out, in). A state_dict
contains neither the names of symbolic functions, nor the base function, nor the number of factors of a product node:
7 sub-nodes and 4 nodes may be one product of 4 factors, or three of 2.

In pykan 0.0 edges are one flat axis with index out * n_in + in. Each edge has its own grid, without the knots beyond
the core interval, which are added when it is evaluated. `biases` are added to the sums.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, pairwise, takewhile

import torch
from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.files.manifest import Arities, PykanConfig, parse_pykan_config
from kanmodel.importers.layers import submodules as parts
from kanmodel.importers.layers.submodules import Chosen, Item, Layer, Metadata, Norm, Submodule, Tensors
from kanmodel.network import splines
from kanmodel.network.bases import BSpline
from kanmodel.network.config import LayerConfig, SymbolicEdge, Transform
from kanmodel.network.functions import FUNCTIONS

# Axes of the tensors of a layer by their names, with its number in those of a KAN, and a ? after what may be missing.
AXES = {
    **{"act_fun.{}.coef": "in subnodes coef", "act_fun.{}.grid": "in knots"},
    **{f"act_fun.{{}}.{name}": "in subnodes" for name in ("mask", "scale_base", "scale_sp")},
    **{"symbolic_fun.{}.mask": "subnodes in", "symbolic_fun.{}.affine": "subnodes in 4"},
    **{f"subnode_{name}_{{}}": "subnodes" for name in ("scale", "bias")},
    **{f"node_{name}_{{}}": "nodes" for name in ("scale", "bias")},
}
FLAT = {
    **{"symbolic_fun.{}.mask": "nodes in", "symbolic_fun.{}.affine": "nodes in 4", "biases.{}.weight": "1 nodes"},
    **{"act_fun.{}.coef": "edges coef", "act_fun.{}.grid": "edges knots"},
    **{f"act_fun.{{}}.{name}": "edges" for name in ("mask", "scale_base", "scale_sp")},
}  # of version 0.0
EFFICIENT = {"spline_weight": "out in coef", "grid": "in knots", "base_weight": "out in", "spline_scaler?": "out in"}
EFFICIENT |= {"base_bias?": "out", "layer_norm.weight?": "in", "layer_norm.bias?": "in"}  # of keras_efficient_kan
KANX = {"spline_weight": "in out coef", "grid": "in knots", "base_weight": "in out"}
BARE = {"coef": "in out coef", "grid": "in knots", **dict.fromkeys(("mask", "scale_base", "scale_sp"), "in out")}
NAMES = {"spline_weight": "coef", "base_weight": "scale_base", "spline_scaler": "scale_spline"}  # in a `KANLayer`
NAMES |= {"base_bias": "subnode_bias", **{f"layer_norm.{name}": f"before.0.{name}" for name in ("weight", "bias")}}
KERAS_EPS = 1e-3  # of its layer norms
NAMES |= {"scale_sp": "scale_spline", **{name: name for name in ("coef", "grid", "mask", "scale_base")}}


@dataclass(frozen=True)
class Outline:
    """What the shapes of a layer determine, and the names of its tensors."""

    flat: bool  # of version 0.0
    n_in: int
    n_subnodes: int
    n_nodes: int
    basis: BSpline
    keys: tuple[str, ...]

    def describe(self) -> str:
        """Its numbers of nodes, in words."""
        return f"{self.n_subnodes} sub-nodes for {self.n_nodes} nodes"


def read_pykan(found: Tensors, place: str, metadata: Metadata) -> Submodule | None:
    """A KAN of pykan; None if its coefficients are of no version.

    Raises `CheckpointError` if a tensor is missing or its shape fits no layer, or the arity of product nodes is not
    known; reading it does if the grids of edges from one input differ.
    """
    n_axes = found["act_fun.0.coef"].ndim
    if n_axes not in (2, 3):
        return None
    flat = n_axes == 2
    n_layers = next(number for number in count() if f"act_fun.{number}.coef" not in found)
    layers = [_outline(found, place, number, flat) for number in range(n_layers)]
    for number, (before, layer) in enumerate(pairwise(layers), start=1):
        if before.n_nodes != layer.n_in:
            here, there = (f"{parts.start_of(place)}act_fun.{n}" for n in (number, number - 1))
            ends = before.n_nodes
            raise CheckpointError(f"has {layer.n_in} inputs in {here}, but {ends} outputs in {there} before it")
    stated = None if flat else _find_config(metadata, place)
    options = {"none": [()] * n_layers} if flat else _arities(layers, metadata.stated.mult_arity, stated)
    symbolic: list[tuple[SymbolicEdge, ...]] = [()] * n_layers
    problem = None
    try:
        symbolic = [_find_symbolic(found, number, place, stated) for number in range(n_layers)]
    except CheckpointError as error:
        problem = str(error)
    kept = None if flat else metadata.stated.input_id
    n_in = layers[0].n_in if kept is None else metadata.n_entering
    if kept is not None and (len(kept) != layers[0].n_in or len(set(kept)) != len(kept) or max(kept) >= n_in):
        numbers = f"as many different numbers below {n_in}, but is {list(kept[:20])}"
        raise CheckpointError(f"has a head of {layers[0].n_in} inputs at {place!r}, so input_id must be {numbers}")

    def read(chosen: Chosen) -> tuple[Layer, ...]:
        items, base = [], chosen["base"]
        for n, (layer, arity) in enumerate(zip(layers, options[chosen["mult_arity"]], strict=True)):
            n_sum, edges = layer.n_nodes - len(arity), symbolic[n]
            config = LayerConfig(layer.n_in, n_sum, layer.basis, base=base, mult_arity=arity, symbolic=edges)
            items.append(_convert(found, place, n, layer, config))
        return (items[0] if kept is None else restore_inputs(items[0], kept, n_in), *items[1:])

    nodes = [layers[0].n_in, *(layer.n_nodes for layer in layers)]
    products = ", some of them products" if any(layer.n_subnodes != layer.n_nodes for layer in layers) else ""
    grids = ", ".join(str(layer.basis.grid_size) for layer in layers)
    orders = ", ".join(map(str, sorted({layer.basis.order for layer in layers})))
    description = f"nodes {nodes}{products}, grid {grids}, spline order {orders}"
    library, choices = "pykan 0.0" if flat else "pykan", {"base": metadata.bases(place), "mult_arity": tuple(options)}
    keys = parts.keys_of(place, (key for layer in layers for key in layer.keys))
    return Submodule(place, library, n_in, layers[-1].n_nodes, keys, read, choices, description, problem)


def _outline(found: Tensors, place: str, number: int, flat: bool) -> Outline:
    title, known = "pykan 0.0" if flat else "pykan", {}
    axes = {name.format(number): axes for name, axes in (FLAT if flat else AXES).items()}
    if flat:
        mask = f"symbolic_fun.{number}.mask"
        known = parts.fit(found, place, title, {mask: axes[mask]})
        known["edges"] = known["nodes"] * known["in"]
    sizes = parts.fit(found, place, title, axes, known)
    shape = parts.spline_shape(f"{parts.start_of(place)}act_fun.{number}", sizes["coef"], sizes["knots"], not flat)
    n_subnodes = sizes["nodes" if flat else "subnodes"]
    return Outline(flat, sizes["in"], n_subnodes, sizes["nodes"], BSpline(*shape), tuple(axes))


def _find_config(metadata: Metadata, place: str) -> PykanConfig | None:
    """The configuration of pykan beside the weights, or as its saveckpt would write it for the module."""
    stated, module = metadata.stated.pykan_config, metadata.module and metadata.module.find(place)
    if stated is not None or module is None or "symbolic_fun" not in module.children:
        return stated
    known = ("width", "mult_arity", "base_fun_name", "symbolic_enabled")
    document = {key: module.values[key] for key in known if key in module.values}
    for number, layer in module.children["symbolic_fun"].children.items():
        document[f"symbolic.funs_name.{number}"] = layer.values.get("funs_name")
    try:  # tuples become lists, as in a document
        return parse_pykan_config(json.loads(json.dumps(document, default=lambda value: None)), "its module")
    except (CheckpointError, TypeError, ValueError):
        return None


def _arities(
    layers: Sequence[Outline], stated: Arities | None, config: PykanConfig | None
) -> dict[str, list[tuple[int, ...]]]:
    """Factors of each product node of every layer, by option; the stated one, or each uniform one."""
    surplus = [layer.n_subnodes - layer.n_nodes for layer in layers]  # a product of a factors has a - 1 too many
    if stated is None and config is not None:
        stated = config.mult_arity
    if stated is not None:
        if isinstance(stated, int):
            factors = [(stated,) * (n // (stated - 1)) if n > 0 else () for n in surplus]
        elif len(stated) != len(layers) + 1:
            raise CheckpointError(f"has {len(layers) + 1} layers of nodes, but mult_arity has {len(stated)}")
        elif stated[0]:
            raise CheckpointError("has inputs that multiply, by mult_arity")
        else:
            factors = list(stated[1:])
        for number, (layer, arities, n) in enumerate(zip(layers, factors, surplus, strict=True), start=1):
            if sum(arities) - len(arities) != n or len(arities) > layer.n_nodes:
                misfit = f"which do not fit mult_arity {stated if isinstance(stated, int) else list(arities)}"
                raise CheckpointError(f"has {layer.describe()} in layer {number}, {misfit}")
        pairs = zip(layers, factors, strict=True)
        width = ((layers[0].n_in, 0), *((layer.n_nodes - len(arities), len(arities)) for layer, arities in pairs))
        if config is not None and config.width != width:
            in_file, in_config = ([n if not m else [n, m] for n, m in w] for w in (width, config.width))
            raise CheckpointError(f"has the width {in_file}, but {config.name} says {in_config}")
        return {str(stated): factors}
    if not any(surplus):
        return {"none": [()] * len(layers)}
    uniform = list(range(2, max(surplus) + 2))
    for n, layer in zip(surplus, layers, strict=True):
        uniform = [a for a in uniform if n % (a - 1) == 0 and n // (a - 1) <= layer.n_nodes]
    if not uniform or min(surplus) < 0:
        unknown = "so some multiply, and how many factors each has is not in the file"
        wanted = "give mult_arity (pykan's default is 2) or pykan_config"
        raise CheckpointError(f"has {layers[0].describe()} in layer 1, {unknown}: {wanted}")
    return {str(arity): [(arity,) * (n // (arity - 1)) for n in surplus] for arity in uniform}


def _find_symbolic(found: Tensors, number: int, place: str, config: PykanConfig | None) -> tuple[SymbolicEdge, ...]:
    """The edges of a layer with an active symbolic part, and the names of their functions."""
    if config is not None and not config.symbolic_enabled:
        return ()
    edges = []
    for j, i in found[f"symbolic_fun.{number}.mask"].nonzero().tolist():
        where = f"{parts.start_of(place)}symbolic_fun.{number}, edge ({number}, {i}, {j})"
        if config is None:
            problem = "which one is not in the file: give pykan_config, the *_config.yml of saveckpt"
            raise CheckpointError(f"has a symbolic function in {where}, and {problem}")
        try:
            name = config.function_names[number][j][i]
        except IndexError:
            raise CheckpointError(f"has a symbolic function in {where}, of which {config.name} says nothing") from None
        if name not in FUNCTIONS:
            raise CheckpointError(f"has in {where} the function {name[:80]!r}, which is not pykan's")
        edges.append(SymbolicEdge(i, j, name))
    return tuple(edges)


def _convert(found: Tensors, place: str, number: int, layer: Outline, config: LayerConfig) -> Layer:
    """The layer of a configuration, its tensors over edges as (out, in, ...)."""
    act = parts.keys_under(found, f"act_fun.{number}")

    def edges(name: str) -> Tensor:
        tensor = act[name]
        return tensor.view(layer.n_nodes, layer.n_in, *tensor.shape[1:]) if layer.flat else tensor.transpose(0, 1)

    tensors = {"coef": edges("coef"), "mask": edges("mask")}
    tensors |= {"scale_base": edges("scale_base"), "scale_spline": edges("scale_sp")}
    if layer.flat:
        grids = edges("grid")
        differs = (grids != grids[:1]).any(dim=2).any(dim=0).nonzero()
        if len(differs):
            where = f"input {int(differs[0])} in {parts.start_of(place)}act_fun.{number}"
            raise CheckpointError(f"has different grids on the edges from {where}, and Kanscope has one grid per input")
        tensors["grid"] = splines.extend_grid(grids[0], layer.basis.order)
        tensors["node_bias"] = found[f"biases.{number}.weight"][0]
    else:
        names = ("subnode_scale", "subnode_bias", "node_scale", "node_bias")
        tensors |= {"grid": act["grid"]} | {name: found[f"{name}_{number}"] for name in names}
    if config.symbolic:
        j, i = [edge.j for edge in config.symbolic], [edge.i for edge in config.symbolic]
        tensors["symbolic_mask"] = found[f"symbolic_fun.{number}.mask"][j, i]
        tensors["symbolic_affine"] = found[f"symbolic_fun.{number}.affine"][j, i]
    return Layer(config, tensors)


def restore_inputs(layer: Layer, kept: Sequence[int], n_inputs: int) -> Layer:
    """The same layer on all inputs: the edges of those that pykan's prune_input did not keep are masked."""
    tensors = dict(layer.tensors)
    for name in ("coef", "scale_base", "scale_spline", "mask"):
        edges = layer.tensors[name]  # (out, in, ...)
        tensors[name] = edges.new_zeros(edges.shape[0], n_inputs, *edges.shape[2:])
        tensors[name][:, list(kept)] = edges
    tensors["grid"] = layer.tensors["grid"][:1].repeat(n_inputs, 1)  # an input without edges may have any grid
    tensors["grid"][list(kept)] = layer.tensors["grid"]
    symbolic = tuple(replace(edge, i=kept[edge.i]) for edge in layer.config.symbolic)
    return Layer(replace(layer.config, n_in=n_inputs, symbolic=symbolic), tensors)


def read_efficient_kan(found: Tensors, place: str, metadata: Metadata) -> Submodule:
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


def read_pykan_layer(found: Tensors, place: str, metadata: Metadata) -> Submodule:
    """A bare KANLayer of pykan: the edges alone, without the affine maps and symbolic functions of a KAN."""
    if found["scale_sp"].ndim == 1:
        problem = "whose flat tensors do not state its widths: save the KAN that has it"
        raise CheckpointError(f"has at {place!r} a bare KANLayer of pykan 0.0, {problem}")
    return _splined("pykan", found, place, BARE, metadata.bases(place))


def _splined(
    library: str,
    found: Tensors,
    place: str,
    axes: Mapping[str, str],
    bases: tuple[str, ...],
    extended: bool = True,
    keys: Mapping[str, str] | None = None,
) -> Submodule:
    """A layer of splines with one of some base functions; `keys` are those of the file, if they are not of `axes`."""
    sizes = parts.fit(found, place, "pykan's KANLayer" if axes is BARE else library, axes)
    basis = BSpline(*parts.spline_shape(place, sizes["coef"], sizes["knots"], extended))
    tensors = {}
    for name, own in NAMES.items():
        if name in found and (name in axes or f"{name}?" in axes):
            is_turned = axes.get(name, "").startswith("in out")
            tensors[own] = found[name].transpose(0, 1) if is_turned else found[name]
    tensors = {"scale_spline": torch.ones_like(tensors["scale_base"]), **tensors}
    if not extended:
        tensors["grid"] = splines.extend_grid(found["grid"], basis.order)

    before = (Transform("layer_norm", KERAS_EPS),) if "before.0.weight" in tensors else ()

    def read(chosen: Chosen) -> Layer:
        return Layer(LayerConfig(sizes["in"], sizes["out"], basis, base=chosen["base"], before=before), tensors)

    described = f", grid {basis.grid_size}, spline order {basis.order}"
    return Submodule.of(library, place, read({"base": bases[0]}), keys or axes, described, {"base": bases}, read)


def read_uniform(found: Tensors, place: str, metadata: Metadata) -> Submodule:
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


def read_torchkan(found: Tensors, place: str, metadata: Metadata) -> Submodule:
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
    return Submodule(place, "torchkan", nodes[0], nodes[-1], keys, read, {"base": bases}, described)
