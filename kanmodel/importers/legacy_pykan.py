"""The tensors of pykan 0.0 -> those of a `KAN`.

Its edges are one flat axis, number out * n_in + in. Each has a grid of its own, without the knots beyond the core
interval, which are added when it is evaluated. Behind the sums stand `biases`.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    plain_config,
    plain_nodes,
    refuse_gaps,
    shape_of,
)
from kanmodel.importers.pykan import find_symbolic
from kanmodel.network import splines
from kanmodel.network.config import Layers


def outline(tensors: Mapping[str, Tensor], prefix: str) -> list[Layer]:
    """The layers that the shapes tell of.

    Raises:
        CheckpointError: a tensor is missing or of a shape that fits no layer.
    """
    found, start = keys_under(tensors, prefix), f"{prefix}." if prefix else ""
    layers = []
    for number in takewhile(lambda number: f"act_fun.{number}.coef" in found, count()):
        _, n_coef = shape_of(found, f"act_fun.{number}.coef", 2, start)
        _, n_knots = shape_of(found, f"act_fun.{number}.grid", 2, start)
        n_out, n_in = shape_of(found, f"symbolic_fun.{number}.mask", 2, start)
        place = f"{start}act_fun.{number}"
        layers.append(bspline_layer(place, n_in, n_out, n_out, n_coef, n_knots, extended=False))
    return layers


def read_kan(tensors: Mapping[str, Tensor], prefix: str, *, base_activation: str) -> tuple[Layers, dict[str, Tensor]]:
    """A KAN of pykan 0.0.

    Args:
        tensors: the file's, by key.
        prefix: what stands before the first dot of the KAN's keys; empty for a bare KAN.
        base_activation: what is added to the splines.

    Returns:
        The layers, and their tensors by their names in a stage.

    Raises:
        CheckpointError: a key that this pykan does not have, one that is missing, shapes that do not fit, edges from
            one input whose grids differ, or a symbolic edge.
    """
    layers = outline(tensors, prefix)
    found, start = keys_under(tensors, prefix), f"{prefix}." if prefix else ""
    expected: dict[str, Shape] = {}
    for number, layer in enumerate(layers):
        n_edges, k = layer.n_in * layer.n_nodes, layer.order
        expected |= {
            f"biases.{number}.weight": (1, layer.n_nodes),
            f"act_fun.{number}.grid": (n_edges, layer.grid_size + 1),
            f"act_fun.{number}.coef": (n_edges, layer.grid_size + k),
            **{f"act_fun.{number}.{name}": (n_edges,) for name in ("mask", "scale_base", "scale_sp")},
            f"symbolic_fun.{number}.mask": (layer.n_nodes, layer.n_in),
            f"symbolic_fun.{number}.affine": (layer.n_nodes, layer.n_in, 4),
        }
    compare_keys(found, expected, start, "pykan 0.0")
    refuse_gaps(layers)
    find_symbolic(found, layers, start, None)
    config = plain_config(layers, base_activation)
    return config, number_tensors(config, [_convert(found, number, layer) for number, layer in enumerate(layers)])


def _convert(found: Mapping[str, Tensor], number: int, layer: Layer) -> dict[str, Tensor]:
    """The tensors of one `KANLayer`, (out, in)."""
    act = keys_under(found, f"act_fun.{number}")
    per_edge = (layer.n_nodes, layer.n_in)
    grids = act["grid"].view(*per_edge, -1)
    differs = (grids != grids[:1]).any(dim=2).any(dim=0).nonzero()
    if len(differs):
        raise CheckpointError(
            f"has different grids on the edges from input {int(differs[0])} in {layer.place}, and Kanscope has one "
            "for an input"
        )
    return {
        "coef": act["coef"].view(*per_edge, -1),
        "scale_base": act["scale_base"].view(per_edge),
        "scale_spline": act["scale_sp"].view(per_edge),
        "mask": act["mask"].view(per_edge),
        "grid": splines.extend_grid(grids[0], layer.order),
        **plain_nodes(layer, act["coef"]),
        "node_bias": found[f"biases.{number}.weight"][0],
    }
