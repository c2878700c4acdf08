"""The tensors of efficient-kan -> those of a `KAN`. imodelsX and neuralforecast have the same keys.

Its tensors are (out, in) like ours. `spline_scaler`, where there is one, scales the splines and not the base.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
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
from kanmodel.network.config import Layers

LAYER_KEY = re.compile(r"((?:layers\.)?(0|[1-9][0-9]{0,3}))\.spline_weight")


def outline(tensors: Mapping[str, Tensor], prefix: str) -> list[Layer]:
    """The layers that the shapes tell of: of a KAN, of a bare stack, or one alone.

    Raises:
        CheckpointError: a tensor is missing or of a shape that fits no layer, or a number is left out.
    """
    layers = []
    for place in _places(tensors, prefix):
        found = keys_under(tensors, place)
        start = f"{place}." if place else ""
        n_out, n_in, n_coef = shape_of(found, "spline_weight", 3, start)
        _, n_knots = shape_of(found, "grid", 2, start)
        layers.append(bspline_layer(place, n_in, n_out, n_out, n_coef, n_knots))
    return layers


def read_kan(tensors: Mapping[str, Tensor], prefix: str, *, base_activation: str) -> tuple[Layers, dict[str, Tensor]]:
    """A KAN of efficient-kan.

    Args:
        tensors: the file's, by key.
        prefix: what stands before the first dot of the KAN's keys; empty for a bare KAN.
        base_activation: what is added to the splines.

    Returns:
        The layers, and their tensors by their names in a stage.

    Raises:
        CheckpointError: a key that the library does not have, one that is missing, or shapes that do not fit.
    """
    layers = outline(tensors, prefix)
    refuse_gaps(layers)
    expected: dict[str, Shape] = {}
    for layer in layers:
        start = f"{layer.place}." if layer.place else ""
        expected |= {
            f"{start}base_weight": (layer.n_nodes, layer.n_in),
            f"{start}spline_weight": (layer.n_nodes, layer.n_in, layer.grid_size + layer.order),
            f"{start}grid": (layer.n_in, layer.grid_size + 2 * layer.order + 1),
        }
        if f"{start}spline_scaler" in tensors:
            expected[f"{start}spline_scaler"] = (layer.n_nodes, layer.n_in)
    under = f"{prefix}." if prefix else ""
    compare_keys({key: t for key, t in tensors.items() if key.startswith(under)}, expected, "", "efficient-kan")
    config = plain_config(layers, base_activation)
    return config, number_tensors(config, [_convert(keys_under(tensors, layer.place), layer) for layer in layers])


def _places(tensors: Mapping[str, Tensor], prefix: str) -> list[str]:
    """What the keys of each layer begin with, first layer to last."""
    found, start = keys_under(tensors, prefix), f"{prefix}." if prefix else ""
    if "spline_weight" in found:
        return [prefix]
    matches = [match for match in map(LAYER_KEY.fullmatch, found) if match]
    places = {int(match[2]): f"{start}{match[1]}" for match in matches}
    gap = next((number for number in range(len(places)) if number not in places), None)
    if gap is not None or len(places) != len(matches):
        raise CheckpointError(f"has layers {sorted(places)} under {prefix!r}, and what stands between them is unknown")
    return [places[number] for number in range(len(places))]


def _convert(found: Mapping[str, Tensor], layer: Layer) -> dict[str, Tensor]:
    """The tensors of one `KANLayer`."""
    base = found["base_weight"]
    return {
        "coef": found["spline_weight"],
        "scale_base": base,
        "scale_spline": found.get("spline_scaler", torch.ones_like(base)),
        "mask": torch.ones_like(base),
        "grid": found["grid"],
        **plain_nodes(layer, base),
    }
