"""What the keys and shapes of a KAN say, whatever library wrote them.

Grid size G and spline order k are never in a file. A B-spline has G + k coefficients on G + 2k + 1 knots: only both
numbers together tell k.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.network.bases import BSpline
from kanmodel.network.config import LayerConfig, Layers

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One layer of edges.

    Attributes:
        place: what its keys begin with, for errors.
        n_in: nodes that the edges leave.
        n_subnodes: sub-nodes that they enter.
        n_nodes: nodes behind these; fewer where some multiply.
        grid_size: intervals of the grid G, or centres.
        spline_order: order k; None where there are no B-splines.
    """

    place: str
    n_in: int
    n_subnodes: int
    n_nodes: int
    grid_size: int
    spline_order: int | None

    @property
    def order(self) -> int:
        """Order of the splines, of a layer that has some."""
        assert self.spline_order is not None
        return self.spline_order


def keys_under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose keys begin with a prefix, by the rest of the key."""
    start = f"{prefix}." if prefix else ""
    return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}


def shape_of(tensors: Mapping[str, Tensor], key: str, n_axes: int, place: str) -> Shape:
    """The shape of a tensor that has to be there, with as many axes as named and nothing empty."""
    if key not in tensors:
        raise CheckpointError(f"lacks {place}{key}")
    shape = tuple(tensors[key].shape)
    if len(shape) != n_axes or 0 in shape:
        raise CheckpointError(f"has {place}{key} of shape {list(shape)}, which should have {n_axes} axes")
    return shape


def bspline_layer(
    place: str, n_in: int, n_subnodes: int, n_nodes: int, n_coef: int, n_knots: int, extended: bool = True
) -> Layer:
    """A layer of B-splines with G and k from its coefficients and knots.

    Args:
        place: what its keys begin with.
        n_in: nodes that the edges leave.
        n_subnodes: sub-nodes that they enter.
        n_nodes: nodes behind these.
        n_coef: coefficients a spline.
        n_knots: knots a spline.
        extended: whether the knots beyond the core interval are among them.
    """
    order = n_knots - n_coef - 1 if extended else n_coef - n_knots + 1
    grid_size = n_coef - order
    if order < 0 or grid_size < 1:
        raise CheckpointError(f"has {n_coef} coefficients on {n_knots} knots in {place}, which fit no spline")
    return Layer(place, n_in, n_subnodes, n_nodes, grid_size, order)


def compare_keys(tensors: Mapping[str, Tensor], expected: Mapping[str, Shape], place: str, library: str) -> None:
    """Refuses the first tensor that a library does not have, or that is missing or of another shape.

    Args:
        tensors: those of one KAN.
        expected: the shape of each.
        place: what stands before their keys in the file.
        library: its name, for errors.
    """
    for key, shape in expected.items():
        if key not in tensors:
            raise CheckpointError(f"lacks {place}{key}, which {library} has")
        if tuple(tensors[key].shape) != shape:
            raise CheckpointError(
                f"has {place}{key} of shape {list(tensors[key].shape)}, but the other tensors imply {list(shape)}"
            )
    for key in tensors:
        if key not in expected:
            raise CheckpointError(f"has key {place}{key}, which is not understood: {library} has none such")


def refuse_gaps(layers: list[Layer]) -> None:
    """Refuses layers that do not follow each other."""
    for before, layer in pairwise(layers):
        if before.n_nodes != layer.n_in:
            raise CheckpointError(
                f"has {layer.n_in} inputs in {layer.place}, but {before.n_nodes} outputs in {before.place} before it"
            )


def plain_config(layers: list[Layer], base_activation: str) -> Layers:
    """The configs of B-spline layers whose nodes are all sums."""
    return tuple(
        LayerConfig(layer.n_in, layer.n_nodes, BSpline(layer.grid_size, layer.order), base_activation)
        for layer in layers
    )


def number_tensors(layers: Layers, tensors: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of layers in a row by their names in a stage; a layer without a base has no scale of it."""
    return {
        f"{number}.{name}": tensor
        for number, (layer, converted) in enumerate(zip(layers, tensors, strict=True))
        for name, tensor in converted.items()
        if name != "scale_base" or layer.base != "zero"
    }


def plain_nodes(layer: Layer, like: Tensor) -> dict[str, Tensor]:
    """The affine maps of a layer that has none."""
    return {
        "subnode_scale": torch.ones(layer.n_subnodes, dtype=like.dtype),
        "subnode_bias": torch.zeros(layer.n_subnodes, dtype=like.dtype),
        "node_scale": torch.ones(layer.n_nodes, dtype=like.dtype),
        "node_bias": torch.zeros(layer.n_nodes, dtype=like.dtype),
    }
