"""pykan 0.1 and 0.2.

pykan stores masks, scales and coefficients of edges as (in, out), but their symbolic parts as (out, in). A state_dict
contains neither the names of symbolic functions, nor the base function, nor the number of factors of a product node:
7 sub-nodes and 4 nodes may be one product of 4 factors, or three of 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count, pairwise, takewhile

from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.libraries.part import (
    Chosen,
    Facts,
    Layer,
    Part,
    Shape,
    Tensors,
    compare_shapes,
    keys_of,
    keys_under,
    places_of,
    shape_of,
    spline_shape,
    start_of,
)
from kanmodel.importers.pykan_config import Arities, PykanConfig
from kanmodel.network.bases import BSpline
from kanmodel.network.config import LayerConfig, SymbolicEdge
from kanmodel.network.functions import FUNCTIONS

TITLE = "pykan"


@dataclass(frozen=True)
class Outline:
    """The properties of a layer that its shapes determine."""

    n_in: int
    n_subnodes: int
    n_nodes: int
    basis: BSpline


def find(tensors: Tensors, facts: Facts) -> list[Part]:
    """Finds the pykan KANs in a file.

    Raises:
        CheckpointError: a tensor is missing or its shape fits no layer; the arity of product nodes or the function of
            a symbolic edge is not known.
    """
    places = places_of(tensors, "act_fun.0.coef")
    found = {place: keys_under(tensors, place) for place in places}
    return [_read(found[place], place, facts) for place in places if found[place]["act_fun.0.coef"].ndim == 3]


def _read(found: Tensors, place: str, facts: Facts) -> Part:
    layers = [_outline(found, place, number) for number in takewhile(lambda n: f"act_fun.{n}.coef" in found, count())]
    check_widths(place, [(layer.n_in, layer.n_nodes) for layer in layers])
    expected = {key: shape for number, layer in enumerate(layers) for key, shape in _shapes(layer, number).items()}
    compare_shapes(found, expected, place, TITLE)
    config = facts.pykan_config(place)
    told = facts.mult_arity if facts.mult_arity is not None or config is None else config.mult_arity
    options = _arities(layers, told)
    if config is not None:
        _compare_width(layers, next(iter(options.values())), config)
    symbolic, problem = find_all_symbolic(found, len(layers), place, config)
    kept, n_in = facts.kept_inputs(place) or (None, layers[0].n_in)
    if kept is not None and (len(kept) != layers[0].n_in or len(set(kept)) != len(kept) or max(kept) >= n_in):
        raise CheckpointError(
            f"has a head of {layers[0].n_in} inputs at {place!r}, so input_id must be as many different numbers below "
            f"{n_in}, but is {list(kept[:20])}"
        )

    def read(chosen: Chosen) -> tuple[Layer, ...]:
        arities = options[chosen["mult_arity"]]
        items = [
            _convert(found, number, layer, chosen["base"], arities[number], symbolic[number])
            for number, layer in enumerate(layers)
        ]
        return (_restore_inputs(items[0], kept, n_in) if kept is not None else items[0], *items[1:])

    choices = {"base": facts.bases(place), "mult_arity": tuple(options)}
    keys, sizes = keys_of(place, expected), describe_layers(layers)
    return Part(place, TITLE, n_in, layers[-1].n_nodes, keys, read, choices, sizes, problem)


def describe_layers(layers: list[Outline]) -> str:
    """Nodes, grids and orders of layers, in words."""
    nodes = [layers[0].n_in, *(layer.n_nodes for layer in layers)]
    grids = ", ".join(str(layer.basis.grid_size) for layer in layers)
    orders = ", ".join(map(str, sorted({layer.basis.order for layer in layers})))
    products = ", some of them products" if any(layer.n_subnodes != layer.n_nodes for layer in layers) else ""
    return f"nodes {nodes}{products}, grid {grids}, spline order {orders}"


def check_widths(place: str, widths: list[tuple[int, int]]) -> None:
    """Raises if the widths (inputs, outputs) of consecutive layers do not match."""
    for number, (before, layer) in enumerate(pairwise(widths), start=1):
        if before[1] != layer[0]:
            start = f"{start_of(place)}act_fun."
            raise CheckpointError(
                f"has {layer[0]} inputs in {start}{number}, but {before[1]} outputs in {start}{number - 1} before it"
            )


def _outline(found: Tensors, place: str, number: int) -> Outline:
    n_in, n_subnodes, n_coef = shape_of(found, f"act_fun.{number}.coef", 3, place)
    _, n_knots = shape_of(found, f"act_fun.{number}.grid", 2, place)
    (n_nodes,) = shape_of(found, f"node_bias_{number}", 1, place)
    basis = BSpline(*spline_shape(f"{start_of(place)}act_fun.{number}", n_coef, n_knots))
    return Outline(n_in, n_subnodes, n_nodes, basis)


def _shapes(layer: Outline, number: int) -> dict[str, Shape]:
    n_in, n_sub = layer.n_in, layer.n_subnodes
    return {
        f"act_fun.{number}.grid": (n_in, *layer.basis.per_input()["grid"]),
        f"act_fun.{number}.coef": (n_in, n_sub, *layer.basis.per_edge()["coef"]),
        **{f"act_fun.{number}.{name}": (n_in, n_sub) for name in ("mask", "scale_base", "scale_sp")},
        f"symbolic_fun.{number}.mask": (n_sub, n_in),
        f"symbolic_fun.{number}.affine": (n_sub, n_in, 4),
        **{f"subnode_{name}_{number}": (n_sub,) for name in ("scale", "bias")},
        **{f"node_{name}_{number}": (layer.n_nodes,) for name in ("scale", "bias")},
    }


def _arities(layers: list[Outline], told: Arities | None) -> dict[str, list[tuple[int, ...]]]:
    """Factors of each product node of every layer, by option; the stated one, or each uniform one."""
    surplus = [layer.n_subnodes - layer.n_nodes for layer in layers]  # a product of a factors has a - 1 too many
    if told is None and not any(surplus):
        return {"none": [()] * len(layers)}
    if told is not None:
        return {str(told): [_layer_arities(layers, number, told) for number in range(len(layers))]}
    uniform = [
        arity
        for arity in range(2, max(surplus) + 2)
        if all(
            n % (arity - 1) == 0 and n // (arity - 1) <= layer.n_nodes for n, layer in zip(surplus, layers, strict=True)
        )
    ]
    if not uniform or min(surplus) < 0:
        raise CheckpointError(
            f"has {layers[0].n_subnodes} sub-nodes for {layers[0].n_nodes} nodes in layer 1, so some multiply, and how "
            "many factors each has is not in the file: give mult_arity (pykan's default is 2) or pykan_config"
        )
    return {str(arity): [(arity,) * (n // (arity - 1)) for n in surplus] for arity in uniform}


def _layer_arities(layers: list[Outline], number: int, told: Arities) -> tuple[int, ...]:
    layer = layers[number]
    surplus = layer.n_subnodes - layer.n_nodes
    if isinstance(told, int):
        arities = (told,) * (surplus // (told - 1)) if surplus > 0 else ()
    elif len(told) != len(layers) + 1:
        raise CheckpointError(f"has {len(layers) + 1} layers of nodes, but mult_arity has {len(told)}")
    elif told[0]:
        raise CheckpointError("has inputs that multiply, by mult_arity")
    else:
        arities = told[number + 1]
    if sum(arities) - len(arities) != surplus or len(arities) > layer.n_nodes:
        raise CheckpointError(
            f"has {layer.n_subnodes} sub-nodes for {layer.n_nodes} nodes in layer {number + 1}, which do not fit "
            f"mult_arity {told if isinstance(told, int) else list(arities)}"
        )
    return arities


def _compare_width(layers: list[Outline], arities: list[tuple[int, ...]], config: PykanConfig) -> None:
    n_products = [len(factors) for factors in arities]
    width = [
        (layers[0].n_in, 0),
        *((layer.n_nodes - n, n) for layer, n in zip(layers, n_products, strict=True)),
    ]
    if config.width != tuple(width):
        raise CheckpointError(f"has the width {_as_pykan(width)}, but {config.name} says {_as_pykan(config.width)}")


def _as_pykan(width: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> list[int | list[int]]:
    return [n_sum if not n_mult else [n_sum, n_mult] for n_sum, n_mult in width]


def find_all_symbolic(
    found: Tensors, n_layers: int, place: str, config: PykanConfig | None
) -> tuple[list[tuple[SymbolicEdge, ...]], str | None]:
    """The symbolic edges of every layer, and why they cannot be read without further information."""
    try:
        return [_find_symbolic(found, number, place, config) for number in range(n_layers)], None
    except CheckpointError as error:
        return [()] * n_layers, str(error)


def _find_symbolic(found: Tensors, number: int, place: str, config: PykanConfig | None) -> tuple[SymbolicEdge, ...]:
    """The edges of a layer with an active symbolic part, and the names of their functions."""
    if config is not None and not config.symbolic_enabled:
        return ()
    edges = []
    for j, i in found[f"symbolic_fun.{number}.mask"].nonzero().tolist():
        where = f"{start_of(place)}symbolic_fun.{number}, edge ({number}, {i}, {j})"
        if config is None:
            raise CheckpointError(
                f"has a symbolic function in {where}, and which one is not in the file: give pykan_config, the "
                "*_config.yml of saveckpt"
            )
        try:
            name = config.function_names[number][j][i]
        except IndexError:
            raise CheckpointError(f"has a symbolic function in {where}, of which {config.name} says nothing") from None
        if name not in FUNCTIONS:
            raise CheckpointError(f"has in {where} the function {name[:80]!r}, which is not pykan's")
        edges.append(SymbolicEdge(i, j, name))
    return tuple(edges)


def _convert(
    found: Tensors,
    number: int,
    layer: Outline,
    base: str,
    arities: tuple[int, ...],
    symbolic: tuple[SymbolicEdge, ...],
) -> Layer:
    act = keys_under(found, f"act_fun.{number}")
    tensors: dict[str, Tensor] = {
        "coef": act["coef"].transpose(0, 1),
        "scale_base": act["scale_base"].T,
        "scale_spline": act["scale_sp"].T,
        "mask": act["mask"].T,
        "grid": act["grid"],
    }
    for name in ("subnode_scale", "subnode_bias", "node_scale", "node_bias"):
        tensors[name] = found[f"{name}_{number}"]
    if symbolic:
        j, i = [edge.j for edge in symbolic], [edge.i for edge in symbolic]
        tensors["symbolic_mask"] = found[f"symbolic_fun.{number}.mask"][j, i]
        tensors["symbolic_affine"] = found[f"symbolic_fun.{number}.affine"][j, i]
    n_sum = layer.n_nodes - len(arities)
    config = LayerConfig(layer.n_in, n_sum, layer.basis, base=base, mult_arity=arities, symbolic=symbolic)
    return Layer(config, tensors)


def _restore_inputs(layer: Layer, kept: tuple[int, ...], n_inputs: int) -> Layer:
    """The same layer on all inputs: the edges of the inputs that were not kept are masked."""
    tensors = dict(layer.tensors)
    for name in ("coef", "scale_base", "scale_spline", "mask"):
        edges = layer.tensors[name]  # (out, in, ...)
        tensors[name] = edges.new_zeros(edges.shape[0], n_inputs, *edges.shape[2:])
        tensors[name][:, list(kept)] = edges
    tensors["grid"] = layer.tensors["grid"][:1].repeat(n_inputs, 1)  # an input without edges may have any grid
    tensors["grid"][list(kept)] = layer.tensors["grid"]
    symbolic = tuple(replace(edge, i=kept[edge.i]) for edge in layer.config.symbolic)
    return Layer(replace(layer.config, n_in=n_inputs, symbolic=symbolic), tensors)
