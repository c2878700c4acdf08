"""torch's own layers: Linear, LayerNorm and BatchNorm1d."""

from __future__ import annotations

from collections.abc import Sequence

from kanmodel.importers.libraries.part import (
    NORM_EPS,
    Facts,
    Layer,
    Norm,
    Part,
    Tensors,
    affine_of,
    compare_shapes,
    keys_of,
    keys_under,
    places_of,
    shape_of,
)
from kanmodel.network.bases import Line
from kanmodel.network.config import LayerConfig, Step


def find(tensors: Tensors, facts: Facts) -> list[Part]:
    """Finds Linear layers and norms in a file, in its order.

    A weight with one axis is a LayerNorm only if it has a bias: without one it may be a PReLU, RMSNorm or other.

    Raises:
        CheckpointError: the tensors of a BatchNorm do not fit each other.
    """
    parts = []
    for place in dict.fromkeys((*places_of(tensors, "weight"), *places_of(tensors, "running_mean"))):
        found = keys_under(tensors, place)
        weight, bias = found.get("weight"), found.get("bias")
        if "running_mean" in found:
            parts.append(_read_batch_norm(found, place, facts))
        elif weight is None or (bias is not None and tuple(bias.shape) != weight.shape[:1]):
            continue
        elif weight.ndim == 2 and weight.numel():
            parts.append(_read_linear(found, place))
        elif weight.ndim == 1 and bias is not None and weight.numel() > 1:
            norm = Norm(Step("layer_norm", facts.eps(place) or NORM_EPS), weight, bias)
            parts.append(_norm_part("LayerNorm", place, norm, ("weight", "bias")))
    return parts


def _read_linear(found: Tensors, place: str) -> Part:
    n_out, n_in = found["weight"].shape
    tensors = {"coef": found["weight"].unsqueeze(-1)}
    if "bias" in found:
        tensors["subnode_bias"] = found["bias"]
    layer = Layer(LayerConfig(n_in, n_out, Line(), base="zero"), tensors)
    names = [name for name in ("weight", "bias") if name in found]
    sizes = f"{n_in} to {n_out}"
    return Part(place, "Linear", n_in, n_out, keys_of(place, names), lambda chosen: (layer,), description=sizes)


def _read_batch_norm(found: Tensors, place: str, facts: Facts) -> Part:
    names = [name for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked") if name in found]
    (n,) = shape_of(found, "running_mean", 1, place)
    per_node = dict.fromkeys(("running_var", *(name for name in ("weight", "bias") if name in found)), (n,))
    compare_shapes(found, per_node, place, "BatchNorm")
    eps = facts.eps(place) or NORM_EPS
    statistics = found["running_mean"].double(), (found["running_var"].double() + eps).sqrt()
    norm = Norm(Step("affine"), *affine_of(found, eps), statistics)
    return _norm_part("BatchNorm", place, norm, names)


def _norm_part(library: str, place: str, norm: Norm, names: Sequence[str]) -> Part:
    n = len(norm.weight)
    return Part(place, library, n, n, keys_of(place, names), lambda chosen: (norm,), description=f"of {n}")
