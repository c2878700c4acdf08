"""The tensors of pykan 0.1 and 0.2 -> those of a `KAN`.

pykan keeps masks, scales and coefficients of an edge as (in, out), but the symbolic part of the same edge as (out, in).
A state_dict holds neither the names of symbolic functions, nor the base function, nor how many factors a product node
has: 7 sub-nodes and 4 nodes may be one product of 4 factors, or three of 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, takewhile

from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.layout import (
    Layer,
    Shape,
    bspline_layer,
    compare_keys,
    keys_under,
    number_tensors,
    refuse_gaps,
    shape_of,
)
from kanmodel.importers.pykan_config import Arities, PykanConfig
from kanmodel.network.bases import BSpline
from kanmodel.network.config import LayerConfig, Layers, SymbolicEdge
from kanmodel.network.functions import FUNCTIONS

Width = tuple[tuple[int, int], ...]


def outline(tensors: Mapping[str, Tensor], prefix: str) -> list[Layer]:
    """The layers that the shapes tell of.

    Raises:
        CheckpointError: a tensor is missing or of a shape that fits no layer.
    """
    found, start = keys_under(tensors, prefix), f"{prefix}." if prefix else ""
    layers = []
    for number in takewhile(lambda number: f"act_fun.{number}.coef" in found, count()):
        n_in, n_subnodes, n_coef = shape_of(found, f"act_fun.{number}.coef", 3, start)
        _, n_knots = shape_of(found, f"act_fun.{number}.grid", 2, start)
        (n_nodes,) = shape_of(found, f"node_bias_{number}", 1, start)
        layers.append(bspline_layer(f"{start}act_fun.{number}", n_in, n_subnodes, n_nodes, n_coef, n_knots))
    return layers


def read_kan(
    tensors: Mapping[str, Tensor],
    prefix: str,
    *,
    base_activation: str,
    mult_arity: Arities | None = None,
    config: PykanConfig | None = None,
) -> tuple[Layers, dict[str, Tensor]]:
    """A KAN of pykan.

    Args:
        tensors: the file's, by key.
        prefix: what stands before the first dot of the KAN's keys, such as ``fc_kan``; empty for a bare KAN.
        base_activation: what is added to the splines.
        mult_arity: number of factors of the product nodes.
        config: what pykan wrote beside the weights, with widths, arities and names of functions.

    Returns:
        The layers, and their tensors by their names in a stage.

    Raises:
        CheckpointError: a key that pykan does not have, one that is missing, shapes that do not fit, product nodes
            whose arity is not told, or symbolic edges whose functions are not.
    """
    layers = outline(tensors, prefix)
    found, start = keys_under(tensors, prefix), f"{prefix}." if prefix else ""
    expected = {key: shape for number, layer in enumerate(layers) for key, shape in _shapes(layer, number).items()}
    compare_keys(found, expected, start, "pykan")
    refuse_gaps(layers)
    if mult_arity is None and config is not None:
        mult_arity = config.mult_arity
    width, arities = _products(layers, mult_arity)
    if config is not None and config.width != width:
        raise CheckpointError(f"has the width {_as_pykan(width)}, but {config.name} says {_as_pykan(config.width)}")
    symbolic = find_symbolic(found, layers, start, config)
    kan = tuple(
        LayerConfig(
            n_in=layer.n_in,
            n_sum=layer.n_nodes - len(arity),
            basis=BSpline(layer.grid_size, layer.order),
            base=base_activation,
            mult_arity=arity,
            symbolic=edges,
        )
        for layer, arity, edges in zip(layers, arities[1:], symbolic, strict=True)
    )
    return kan, number_tensors(kan, [_convert(found, number, edges) for number, edges in enumerate(symbolic)])


def _shapes(layer: Layer, number: int) -> dict[str, Shape]:
    n_in, n_sub, k = layer.n_in, layer.n_subnodes, layer.order
    return {
        f"act_fun.{number}.grid": (n_in, layer.grid_size + 2 * k + 1),
        f"act_fun.{number}.coef": (n_in, n_sub, layer.grid_size + k),
        **{f"act_fun.{number}.{name}": (n_in, n_sub) for name in ("mask", "scale_base", "scale_sp")},
        f"symbolic_fun.{number}.mask": (n_sub, n_in),
        f"symbolic_fun.{number}.affine": (n_sub, n_in, 4),
        **{f"subnode_{name}_{number}": (n_sub,) for name in ("scale", "bias")},
        **{f"node_{name}_{number}": (layer.n_nodes,) for name in ("scale", "bias")},
    }


def _products(layers: list[Layer], given: Arities | None) -> tuple[Width, tuple[tuple[int, ...], ...]]:
    """Sum and product nodes of every layer, inputs first, and the factors of each product node."""
    per_layer: list[tuple[int, ...]] = [()]
    for number, layer in enumerate(layers, start=1):
        surplus = layer.n_subnodes - layer.n_nodes  # a product of a factors has a - 1 sub-nodes too many
        if isinstance(given, tuple):
            if len(given) != len(layers) + 1:
                raise CheckpointError(f"has {len(layers) + 1} layers of nodes, but mult_arity has {len(given)}")
            arities = given[number]
        elif surplus == 0:
            arities = ()
        elif given is None:
            raise CheckpointError(
                f"has {layer.n_subnodes} sub-nodes for {layer.n_nodes} nodes in layer {number}, so some "
                "multiply, and how many factors each has is not in the file: give mult_arity (pykan's default is 2) or "
                "pykan_config"
            )
        else:
            arities = (given,) * (surplus // (given - 1)) if surplus > 0 else ()
        if sum(arities) - len(arities) != surplus or len(arities) > layer.n_nodes:
            raise CheckpointError(
                f"has {layer.n_subnodes} sub-nodes for {layer.n_nodes} nodes in layer {number}, "
                f"which do not fit mult_arity {list(arities) if isinstance(given, tuple) else given}"
            )
        per_layer.append(arities)
    if isinstance(given, tuple) and given[0]:
        raise CheckpointError("has inputs that multiply, by mult_arity")
    n_nodes = (layers[0].n_in, *(layer.n_nodes for layer in layers))
    width = tuple((n - len(arities), len(arities)) for n, arities in zip(n_nodes, per_layer, strict=True))
    return width, tuple(per_layer)


def find_symbolic(
    found: Mapping[str, Tensor], layers: list[Layer], start: str, config: PykanConfig | None
) -> list[tuple[SymbolicEdge, ...]]:
    """The edges of each layer whose symbolic part acts, with the names of their functions."""
    if config is not None and not config.symbolic_enabled:
        return [()] * len(layers)
    found_edges = []
    for number in range(len(layers)):
        edges = []
        for j, i in found[f"symbolic_fun.{number}.mask"].nonzero().tolist():
            place = f"{start}symbolic_fun.{number}, edge ({number}, {i}, {j})"
            if config is None:
                raise CheckpointError(
                    f"has a symbolic function in {place}, and which one is not in the file: give pykan_config, the "
                    "*_config.yml of saveckpt"
                )
            try:
                name = config.function_names[number][j][i]
            except IndexError:
                raise CheckpointError(
                    f"has a symbolic function in {place}, of which {config.name} says nothing"
                ) from None
            if name not in FUNCTIONS:
                raise CheckpointError(f"has in {place} the function {name[:80]!r}, which is not pykan's")
            edges.append(SymbolicEdge(i, j, name))
        found_edges.append(tuple(edges))
    return found_edges


def _convert(found: Mapping[str, Tensor], number: int, edges: Sequence[SymbolicEdge]) -> dict[str, Tensor]:
    """The tensors of one `KANLayer`, (out, in)."""
    act = keys_under(found, f"act_fun.{number}")
    converted = {
        "coef": act["coef"].transpose(0, 1),
        "scale_base": act["scale_base"].T,
        "scale_spline": act["scale_sp"].T,
        "mask": act["mask"].T,
        "grid": act["grid"],
        **{
            f"{kind}_{name}": found[f"{kind}_{name}_{number}"]
            for kind in ("subnode", "node")
            for name in ("scale", "bias")
        },
    }
    if edges:
        j, i = [edge.j for edge in edges], [edge.i for edge in edges]
        converted["symbolic_mask"] = found[f"symbolic_fun.{number}.mask"][j, i]
        converted["symbolic_affine"] = found[f"symbolic_fun.{number}.affine"][j, i]
    return converted


def _as_pykan(width: Width) -> list[int | list[int]]:
    return [n_sum if not n_mult else [n_sum, n_mult] for n_sum, n_mult in width]
