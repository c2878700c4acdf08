"""ChebyKAN (SynodicMonth 2024): out_o = sum_i sum_d cheby_coeffs[i, o, d] T_d(tanh x_i).

Other libraries have its keys and shapes but another function inside T_d; the check distinguishes them.
"""

from __future__ import annotations

from kanmodel.importers.libraries.part import Facts, Layer, Part, Tensors, keys_of, places_of, shape_of, start_of
from kanmodel.network.bases import Chebyshev
from kanmodel.network.config import LayerConfig

TITLE = "ChebyKAN"


def find(tensors: Tensors, facts: Facts) -> list[Part]:
    """Finds its layers in a file; the buffer `arange`, if there is one, numbers the degrees.

    Raises:
        CheckpointError: the shape of a tensor fits no layer.
    """
    return [_read(tensors, place) for place in places_of(tensors, "cheby_coeffs")]


def _read(tensors: Tensors, place: str) -> Part:
    key = f"{start_of(place)}cheby_coeffs"
    n_in, n_out, n_degrees = shape_of(tensors, key, 3, "")
    layer = Layer(
        LayerConfig(n_in, n_out, Chebyshev(n_degrees - 1), base="zero"), {"coef": tensors[key].transpose(0, 1)}
    )
    names = ("cheby_coeffs", *(("arange",) if f"{start_of(place)}arange" in tensors else ()))
    sizes = f"{n_in} to {n_out}, degree {n_degrees - 1}"
    return Part(place, TITLE, n_in, n_out, keys_of(place, names), lambda chosen: (layer,), description=sizes)
