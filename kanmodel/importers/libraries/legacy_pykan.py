"""pykan 0.0.

Its edges are one flat axis with index out * n_in + in. Each edge has its own grid, without the knots beyond the core
interval, which are added when it is evaluated. `biases` are added to the sums.
"""

from __future__ import annotations

from itertools import count, takewhile

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
from kanmodel.importers.libraries.pykan import Outline, check_widths, describe_layers, find_all_symbolic
from kanmodel.network import splines
from kanmodel.network.bases import BSpline
from kanmodel.network.config import LayerConfig

TITLE = "pykan 0.0"


def find(tensors: Tensors, facts: Facts) -> list[Part]:
    """Finds its KANs in a file.

    Raises:
        CheckpointError: a tensor is missing, its shape fits no layer, or the grids of edges from one input differ.
    """
    places = places_of(tensors, "act_fun.0.coef")
    found = {place: keys_under(tensors, place) for place in places}
    return [_read(found[place], place, facts) for place in places if found[place]["act_fun.0.coef"].ndim == 2]


def _read(found: Tensors, place: str, facts: Facts) -> Part:
    layers = [_outline(found, place, number) for number in takewhile(lambda n: f"act_fun.{n}.coef" in found, count())]
    check_widths(place, [(layer.n_in, layer.n_nodes) for layer in layers])
    expected = {key: shape for number, layer in enumerate(layers) for key, shape in _shapes(layer, number).items()}
    compare_shapes(found, expected, place, TITLE)
    _, problem = find_all_symbolic(found, len(layers), place, None)

    def read(chosen: Chosen) -> tuple[Layer, ...]:
        return tuple(_convert(found, number, layer, place, chosen["base"]) for number, layer in enumerate(layers))

    choices = {"base": facts.bases(place)}
    return Part(
        place,
        TITLE,
        layers[0].n_in,
        layers[-1].n_nodes,
        keys_of(place, expected),
        read,
        choices,
        describe_layers(layers),
        problem,
    )


def _outline(found: Tensors, place: str, number: int) -> Outline:
    _, n_coef = shape_of(found, f"act_fun.{number}.coef", 2, place)
    _, n_knots = shape_of(found, f"act_fun.{number}.grid", 2, place)
    n_out, n_in = shape_of(found, f"symbolic_fun.{number}.mask", 2, place)
    basis = BSpline(*spline_shape(f"{start_of(place)}act_fun.{number}", n_coef, n_knots, extended=False))
    return Outline(n_in, n_out, n_out, basis)


def _shapes(layer: Outline, number: int) -> dict[str, Shape]:
    n_edges, basis = layer.n_in * layer.n_nodes, layer.basis
    return {
        f"biases.{number}.weight": (1, layer.n_nodes),
        f"act_fun.{number}.grid": (n_edges, basis.grid_size + 1),
        f"act_fun.{number}.coef": (n_edges, basis.grid_size + basis.order),
        **{f"act_fun.{number}.{name}": (n_edges,) for name in ("mask", "scale_base", "scale_sp")},
        f"symbolic_fun.{number}.mask": (layer.n_nodes, layer.n_in),
        f"symbolic_fun.{number}.affine": (layer.n_nodes, layer.n_in, 4),
    }


def _convert(found: Tensors, number: int, layer: Outline, place: str, base: str) -> Layer:
    act = keys_under(found, f"act_fun.{number}")
    per_edge = (layer.n_nodes, layer.n_in)
    grids = act["grid"].view(*per_edge, -1)
    differs = (grids != grids[:1]).any(dim=2).any(dim=0).nonzero()
    if len(differs):
        raise CheckpointError(
            f"has different grids on the edges from input {int(differs[0])} in {start_of(place)}act_fun.{number}, and "
            "Kanscope has one grid per input"
        )
    tensors = {
        "coef": act["coef"].view(*per_edge, -1),
        "scale_base": act["scale_base"].view(per_edge),
        "scale_spline": act["scale_sp"].view(per_edge),
        "mask": act["mask"].view(per_edge),
        "grid": splines.extend_grid(grids[0], layer.basis.order),
        "node_bias": found[f"biases.{number}.weight"][0],
    }
    return Layer(LayerConfig(layer.n_in, layer.n_nodes, layer.basis, base=base), tensors)
