"""fast-kan and FasterKAN.

A layer of fast-kan (Li 2024, arXiv 2405.06721) and of FasterKAN (Delis 2024), with u = layernorm(x), or x where the
layer has no norm, with G centres and v_ig = (u_i - grid_g) / denominator:

    fast-kan    out_j = sum_i sum_g W[j, i G + g] exp(-v_ig^2) + sum_i Wb[j, i] base(x_i) + bb_j
    FasterKAN   out_j = sum_i sum_g W[j, i G + g] (1 - tanh(v_ig)^2)

The denominator of fast-kan is not in the file; it is the distance of the centres. FasterKAN has an `inv_denominator`,
which may be trained, but its forward pass does not use it: the denominator is 1. Forks of FasterKAN use it, and so does
`cu_fasterkan` in FasterKAN's repository, where the columns of W are g n_in + i; the file does not determine which of
the three it is from (`INV_DENOMINATORS`). FasterKAN up to 14 May 2024 divides by a denominator, 0.33 by default, that
is not in the file, and has the keys and shapes of fast-kan without base.
"""

from __future__ import annotations

from math import isfinite

from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.libraries.part import (
    NORM_EPS,
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
    start_of,
)
from kanmodel.network.bases import Basis, Gaussian, Sech2
from kanmodel.network.config import LayerConfig, Step

FAST, FASTER = "fast-kan", "FasterKAN"
EARLY_DENOMINATORS = ("0.33", "1", "0.5")  # FasterKAN's up to 14 May 2024, the default first
INV_DENOMINATORS = {
    "ignored": "inv_denominator ignored, as FasterKAN does",
    "used": "inv_denominator used, as forks of FasterKAN do",
    "cuda": "inv_denominator used and the inputs innermost in the columns, as cu_fasterkan does",
}
INVERSE = "rbf.inv_denominator"
RADIAL_LIBRARIES = {"fast_kan": FAST, "faster_kan": FASTER}


def find(tensors: Tensors, facts: Facts) -> list[Part]:
    """Finds their layers in a file.

    Raises:
        CheckpointError: a tensor is missing or its shape fits no layer, or the manifest contradicts the file.
    """
    return [_read(keys_under(tensors, place), place, facts) for place in places_of(tensors, "rbf.grid")]


def _read(found: Tensors, place: str, facts: Facts) -> Part:
    n_centres, n_in, n_out = _sizes(found, place)
    present = ["rbf.grid", "spline_linear.weight"]
    for part in ("layernorm", "base_linear"):
        names = [name for name in (f"{part}.weight", f"{part}.bias") if name in found]
        if len(names) == 1:
            raise CheckpointError(f"has {start_of(place)}{names[0]}, but of {part} only that")
        present += names
    normed, based = "layernorm.weight" in found, "base_linear.weight" in found
    inverse = found.get(INVERSE)
    present += [INVERSE] if inverse is not None else []
    shapes = {"layernorm.weight": (n_in,), "layernorm.bias": (n_in,), INVERSE: ()}
    shapes |= {"base_linear.weight": (n_out, n_in), "base_linear.bias": (n_out,)}
    compare_shapes(found, {name: shape for name, shape in shapes.items() if name in found}, place, FAST)
    libraries = _libraries(found, place, facts)
    eps = facts.eps(f"{start_of(place)}layernorm") or NORM_EPS
    choices = {"library": libraries}
    if based:
        choices["base"] = facts.bases(place)
    if "faster_kan" in libraries and inverse is None and facts.denominator(place) is None:
        choices["denominator"] = EARLY_DENOMINATORS
    if inverse is not None:
        choices["inv_denominator"] = tuple(INV_DENOMINATORS) if _usable(inverse) else ("ignored",)

    def read(chosen: Chosen) -> tuple[Layer]:
        library, meaning = chosen["library"], chosen.get("inv_denominator", "ignored")
        early = float(chosen["denominator"]) if library == "faster_kan" and "denominator" in chosen else None
        width = _denominator(found, place, meaning, facts.denominator(place) or early)
        basis: Basis = (Gaussian if library == "fast_kan" else Sech2)(n_centres, width)
        before = (Step("layer_norm", eps),) if normed else ()
        base = chosen["base"] if based else "zero"
        config = LayerConfig(n_in, n_out, basis, base=base, before=before, base_after=0 if normed else None)
        return (Layer(config, _convert(found, n_in, n_out, n_centres, meaning != "cuda")),)

    title = " or ".join(RADIAL_LIBRARIES[library] for library in libraries)
    sizes = f"{n_in} to {n_out}, {n_centres} centres"
    return Part(place, title, n_in, n_out, keys_of(place, present), read, choices, sizes)


def _sizes(found: Tensors, place: str) -> tuple[int, int, int]:
    (n_centres,) = shape_of(found, "rbf.grid", 1, place)
    n_out, n_columns = shape_of(found, "spline_linear.weight", 2, place)
    if n_columns % n_centres:
        start = start_of(place)
        raise CheckpointError(
            f"has {n_columns} columns in {start}spline_linear.weight, which {n_centres} centres of {start}rbf.grid do "
            "not divide"
        )
    return n_centres, n_columns // n_centres, n_out


def _libraries(found: Tensors, place: str, facts: Facts) -> tuple[str, ...]:
    """Only fast-kan has a base, only FasterKAN an inv_denominator; without both, either library is possible."""
    fits = [name for name, key in (("fast_kan", INVERSE), ("faster_kan", "base_linear.weight")) if key not in found]
    if not fits:
        raise CheckpointError(f"has a base and an inv_denominator at {place!r}, which neither {FAST} nor {FASTER} has")
    if facts.library is None:
        return tuple(fits)
    if facts.library not in fits:
        titles = " and ".join(RADIAL_LIBRARIES[library] for library in fits)
        told = RADIAL_LIBRARIES.get(facts.library, facts.library)
        raise CheckpointError(f"has a KAN at {place!r} whose keys fit {titles}, not {told}")
    return (facts.library,)


def _denominator(found: Tensors, place: str, meaning: str, given: float | None) -> float:
    """Width of a layer's bumps: the given one, or the library's default."""
    if INVERSE in found:
        if given is not None:
            raise CheckpointError(
                f"has {start_of(place)}{INVERSE}, and FasterKAN ignores it and divides by 1, but for its forks, which "
                f"use it: the denominator cannot be given as {given}"
            )
        return 1.0 if meaning == "ignored" else 1 / abs(float(found[INVERSE]))  # bumps are even
    if given is not None:
        return given
    first, last = found["rbf.grid"][[0, -1]].double().tolist()
    if first == last:
        raise CheckpointError(
            f"has no distance between the centres of {start_of(place)}rbf.grid to take as denominator"
        )
    return float(
        abs(last - first) / (len(found["rbf.grid"]) - 1)
    )  # the distance of two neighbours has a larger rounding error


def _usable(inverse: Tensor) -> bool:
    """Whether it is the inverse of a finite width."""
    value = abs(float(inverse))
    return value > 0 and isfinite(1 / value)


def _convert(found: Tensors, n_in: int, n_out: int, n_centres: int, centres_innermost: bool) -> dict[str, Tensor]:
    weight = found["spline_linear.weight"]
    if centres_innermost:
        coef = weight.reshape(n_out, n_in, n_centres)
    else:
        coef = weight.reshape(n_out, n_centres, n_in).transpose(1, 2)
    tensors = {"coef": coef, "grid": found["rbf.grid"].expand(n_in, -1), "scale_spline": weight.new_ones(n_out, n_in)}
    names = {"scale_base": "base_linear.weight", "subnode_bias": "base_linear.bias"}
    names |= {"before.0.weight": "layernorm.weight", "before.0.bias": "layernorm.bias"}
    return tensors | {ours: found[theirs] for ours, theirs in names.items() if theirs in found}
