"""efficient-kan (Blealtan 2024), whose keys imodelsX and neuralforecast share.

Its tensors are (out, in), as here. `spline_scaler`, if there is one, scales the splines but not the base.
"""

from __future__ import annotations

import torch

from kanmodel.importers.libraries.part import (
    Chosen,
    Facts,
    Layer,
    Part,
    Tensors,
    compare_shapes,
    keys_of,
    keys_under,
    places_of,
    shape_of,
    spline_shape,
)
from kanmodel.network.bases import BSpline
from kanmodel.network.config import LayerConfig

TITLE = "efficient-kan"
NAMES = ("grid", "base_weight", "spline_weight", "spline_scaler")


def find(tensors: Tensors, facts: Facts) -> list[Part]:
    """Finds its layers in a file.

    Raises:
        CheckpointError: a tensor is missing, or its shape fits no layer.
    """
    return [_read(keys_under(tensors, place), place, facts) for place in places_of(tensors, "spline_weight")]


def _read(found: Tensors, place: str, facts: Facts) -> Part:
    n_out, n_in, n_coef = shape_of(found, "spline_weight", 3, place)
    _, n_knots = shape_of(found, "grid", 2, place)
    grid_size, order = spline_shape(place, n_coef, n_knots)
    present = [name for name in NAMES if name in found]
    expected = {"grid": (n_in, n_knots), "base_weight": (n_out, n_in), "spline_scaler": (n_out, n_in)}
    compare_shapes(
        found, {name: expected[name] for name in expected if name != NAMES[-1] or name in found}, place, TITLE
    )
    tensors = {
        "coef": found["spline_weight"],
        "grid": found["grid"],
        "scale_base": found["base_weight"],
        "scale_spline": found.get("spline_scaler", torch.ones_like(found["base_weight"])),
    }

    def read(chosen: Chosen) -> tuple[Layer]:
        return (Layer(LayerConfig(n_in, n_out, BSpline(grid_size, order), base=chosen["base"]), tensors),)

    sizes = f"{n_in} to {n_out}, grid {grid_size}, spline order {order}"
    return Part(place, TITLE, n_in, n_out, keys_of(place, present), read, {"base": facts.bases(place)}, sizes)
