"""Libraries of which each layer is a part: the KAN layers of six libraries, torch's own layers, LSTM and GRU.

A function `read_…` reads the layer at one place. To add a library, write such a function, and name it in the table of
`kanmodel.importers.libraries`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite

import torch

from kanmodel.errors import CheckpointError
from kanmodel.importers.libraries.part import (
    NORM_EPS,
    Chosen,
    Layer,
    Metadata,
    Norm,
    Part,
    RecurrentPart,
    Tensors,
    affine_of,
    compare_shapes,
    keys_of,
    keys_under,
    shape_of,
    spline_shape,
    start_of,
)
from kanmodel.network.bases import Basis, BSpline, Chebyshev, Fourier, Gaussian, Line, MexicanHat, Sech2
from kanmodel.network.config import Cell, LayerConfig, RecurrentConfig, Step
from kanmodel.network.recurrent import recurrent_shapes

FAST, FASTER = "fast-kan", "FasterKAN"
RADIAL_LIBRARIES = {"fast_kan": FAST, "faster_kan": FASTER}
EARLY_DENOMINATORS = ("0.33", "1", "0.5")  # FasterKAN's up to 14 May 2024, the default first
INV_DENOMINATORS = {
    "ignored": "inv_denominator ignored, as FasterKAN does",
    "used": "inv_denominator used, as forks of FasterKAN do",
    "cuda": "inv_denominator used and the inputs innermost in the columns, as cu_fasterkan does",
}
INVERSE = "rbf.inv_denominator"
WAVES = ("cosines first", "sines first")  # order of FourierKAN's coefficients
HATS = ("Mexican hats, negative at 0", "Mexican hats, positive at 0")
WEIGHT1 = {"weight1 not used": "zero", "weight1 of a linear base": "identity", "weight1 of a silu base": "silu"}
RECURRENT_KEY = re.compile(
    r"(?:(.*)\.)?(?:weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(\d{1,4})(_reverse)?", re.DOTALL
)
GATES: dict[int, Cell] = {4: "lstm", 3: "gru"}


def read_radial(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A layer of fast-kan (Li 2024, arXiv 2405.06721) or FasterKAN (Delis 2024).

    With u = layernorm(x), or x where the layer has no norm, G centres and v_ig = (u_i - grid_g) / denominator:

        fast-kan    out_j = sum_i sum_g W[j, i G + g] exp(-v_ig^2) + sum_i Wb[j, i] base(x_i) + bb_j
        FasterKAN   out_j = sum_i sum_g W[j, i G + g] (1 - tanh(v_ig)^2)

    The denominator of fast-kan is not in the file; it is the distance of the centres. FasterKAN has an
    `inv_denominator`, which may be trained, but its forward pass does not use it: the denominator is 1. Forks of
    FasterKAN use it, and so does `cu_fasterkan` in FasterKAN's repository, where the columns of W are g n_in + i; the
    file does not determine which of the three it is from (`INV_DENOMINATORS`). FasterKAN up to 14 May 2024 divides by
    a denominator, 0.33 by default, that is not in the file, and has the keys and shapes of fast-kan without base.

    Raises:
        CheckpointError: a tensor is missing or its shape fits no layer, or the manifest contradicts the file.
    """
    start = start_of(place)
    (n_centres,) = shape_of(found, "rbf.grid", 1, place)
    n_out, n_columns = shape_of(found, "spline_linear.weight", 2, place)
    n_in = n_columns // n_centres
    if n_columns % n_centres:
        raise CheckpointError(
            f"has {n_columns} columns in {start}spline_linear.weight, which {n_centres} centres of {start}rbf.grid do "
            "not divide"
        )
    present = ["rbf.grid", "spline_linear.weight"]
    for part in ("layernorm", "base_linear"):
        names = [name for name in (f"{part}.weight", f"{part}.bias") if name in found]
        if len(names) == 1:
            raise CheckpointError(f"has {start}{names[0]}, but of {part} only that")
        present += names
    normed, based, inverse = "layernorm.weight" in found, "base_linear.weight" in found, found.get(INVERSE)
    present += [INVERSE] if inverse is not None else []
    shapes = {"layernorm.weight": (n_in,), "layernorm.bias": (n_in,), INVERSE: ()}
    shapes |= {"base_linear.weight": (n_out, n_in), "base_linear.bias": (n_out,)}
    compare_shapes(found, {name: shape for name, shape in shapes.items() if name in found}, place, FAST)
    libraries = _radial_libraries(found, place, metadata)
    eps, stated = metadata.eps(f"{start}layernorm") or NORM_EPS, metadata.denominator(place)
    choices = {"library": libraries}
    if based:
        choices["base"] = metadata.bases(place)
    if "faster_kan" in libraries and inverse is None and stated is None:
        choices["denominator"] = EARLY_DENOMINATORS
    if inverse is not None:
        usable = abs(float(inverse)) > 0 and isfinite(1 / abs(float(inverse)))
        choices["inv_denominator"] = tuple(INV_DENOMINATORS) if usable else ("ignored",)

    def read(chosen: Chosen) -> tuple[Layer]:
        library, meaning = chosen["library"], chosen.get("inv_denominator", "ignored")
        early = float(chosen["denominator"]) if library == "faster_kan" and "denominator" in chosen else None
        width = _radial_denominator(found, place, meaning, stated or early)
        basis: Basis = (Gaussian if library == "fast_kan" else Sech2)(n_centres, width)
        before = (Step("layer_norm", eps),) if normed else ()
        base = chosen["base"] if based else "zero"
        config = LayerConfig(n_in, n_out, basis, base=base, before=before, base_after=0 if normed else None)
        weight = found["spline_linear.weight"]
        innermost = weight.reshape(n_out, n_centres, n_in).transpose(1, 2)
        tensors = {
            "coef": innermost if meaning == "cuda" else weight.reshape(n_out, n_in, n_centres),
            "grid": found["rbf.grid"].expand(n_in, -1),
            "scale_spline": weight.new_ones(n_out, n_in),
        }
        names = {"scale_base": "base_linear.weight", "subnode_bias": "base_linear.bias"}
        names |= {"before.0.weight": "layernorm.weight", "before.0.bias": "layernorm.bias"}
        return (Layer(config, tensors | {ours: found[theirs] for ours, theirs in names.items() if theirs in found}),)

    title = " or ".join(RADIAL_LIBRARIES[library] for library in libraries)
    sizes = f"{n_in} to {n_out}, {n_centres} centres"
    return Part(place, title, n_in, n_out, keys_of(place, present), read, choices, sizes)


def _radial_libraries(found: Tensors, place: str, metadata: Metadata) -> tuple[str, ...]:
    """Only fast-kan has a base, only FasterKAN an inv_denominator; without both, either library is possible."""
    fits = [name for name, key in (("fast_kan", INVERSE), ("faster_kan", "base_linear.weight")) if key not in found]
    if not fits:
        raise CheckpointError(f"has a base and an inv_denominator at {place!r}, which neither {FAST} nor {FASTER} has")
    if metadata.library is None:
        return tuple(fits)
    if metadata.library not in fits:
        titles = " and ".join(RADIAL_LIBRARIES[library] for library in fits)
        stated = RADIAL_LIBRARIES.get(metadata.library, metadata.library)
        raise CheckpointError(f"has a KAN at {place!r} whose keys fit {titles}, not {stated}")
    return (metadata.library,)


def _radial_denominator(found: Tensors, place: str, meaning: str, stated: float | None) -> float:
    """Width of a layer's bumps: the stated one, or the library's default."""
    start = start_of(place)
    if INVERSE in found:
        if stated is not None:
            raise CheckpointError(
                f"has {start}{INVERSE}, and FasterKAN ignores it and divides by 1, but for its forks, which "
                f"use it: the denominator cannot be given as {stated}"
            )
        return 1.0 if meaning == "ignored" else 1 / abs(float(found[INVERSE]))  # bumps are even
    if stated is not None:
        return stated
    first, last = found["rbf.grid"][[0, -1]].double().tolist()
    if first == last:
        raise CheckpointError(f"has no distance between the centres of {start}rbf.grid to take as denominator")
    # the distance of two neighbours has a larger rounding error
    return float(abs(last - first) / (len(found["rbf.grid"]) - 1))


def read_efficient_kan(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A layer of efficient-kan (Blealtan 2024), whose keys imodelsX and neuralforecast share.

    Its tensors are (out, in), as here. `spline_scaler`, if there is one, scales the splines but not the base.

    Raises:
        CheckpointError: a tensor is missing, or its shape fits no layer.
    """
    n_out, n_in, n_coef = shape_of(found, "spline_weight", 3, place)
    _, n_knots = shape_of(found, "grid", 2, place)
    basis = BSpline(*spline_shape(place, n_coef, n_knots))
    expected = {"grid": (n_in, n_knots), "base_weight": (n_out, n_in)}
    if "spline_scaler" in found:
        expected["spline_scaler"] = (n_out, n_in)
    compare_shapes(found, expected, place, "efficient-kan")
    tensors = {
        "coef": found["spline_weight"],
        "grid": found["grid"],
        "scale_base": found["base_weight"],
        "scale_spline": found.get("spline_scaler", torch.ones_like(found["base_weight"])),
    }

    def read(chosen: Chosen) -> tuple[Layer]:
        return (Layer(LayerConfig(n_in, n_out, basis, base=chosen["base"]), tensors),)

    keys, choices = keys_of(place, ("spline_weight", *expected)), {"base": metadata.bases(place)}
    sizes = f"{n_in} to {n_out}, grid {basis.grid_size}, spline order {basis.order}"
    return Part(place, "efficient-kan", n_in, n_out, keys, read, choices, sizes)


def read_cheby_kan(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A layer of ChebyKAN (SynodicMonth 2024): out_o = sum_i sum_d cheby_coeffs[i, o, d] T_d(tanh x_i).

    The buffer `arange`, if there is one, numbers the degrees. Other libraries have these keys and shapes but another
    function inside T_d; the check distinguishes them.

    Raises:
        CheckpointError: the shape of a tensor fits no layer.
    """
    n_in, n_out, n_degrees = shape_of(found, "cheby_coeffs", 3, place)
    config = LayerConfig(n_in, n_out, Chebyshev(n_degrees - 1), base="zero")
    layer = Layer(config, {"coef": found["cheby_coeffs"].transpose(0, 1)})
    names = [name for name in ("cheby_coeffs", "arange") if name in found]
    sizes = f"{n_in} to {n_out}, degree {n_degrees - 1}"
    return Part(place, "ChebyKAN", n_in, n_out, keys_of(place, names), lambda chosen: (layer,), description=sizes)


def read_fourier_kan(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A layer of FourierKAN (GistNoesis 2024).

    out_o = bias_o + sum_i sum_k c[0, o, i, k-1] cos(k x_i) + c[1, o, i, k-1] sin(k x_i)

    Raises:
        CheckpointError: the shape of a tensor fits no layer.
    """
    n_kinds, n_out, n_in, frequencies = shape_of(found, "fouriercoeffs", 4, place)
    if n_kinds != 2:
        raise CheckpointError(f"has {n_kinds} kinds of waves in {place}.fouriercoeffs, not cosines and sines")
    bias = {}
    if "bias" in found:
        compare_shapes(found, {"bias": (1, n_out)}, place, "FourierKAN")
        bias = {"subnode_bias": found["bias"][0]}
    config = LayerConfig(n_in, n_out, Fourier(frequencies), base="zero")

    def read(chosen: Chosen) -> tuple[Layer]:
        first, second = found["fouriercoeffs"]
        pair = (first, second) if chosen["waves"] == WAVES[0] else (second, first)
        return (Layer(config, {"coef": torch.cat(pair, 2)} | bias),)

    keys = keys_of(place, [name for name in ("fouriercoeffs", "bias") if name in found])
    sizes = f"{n_in} to {n_out}, {frequencies} frequencies"
    return Part(place, "FourierKAN", n_in, n_out, keys, read, {"waves": WAVES}, sizes)


def read_wav_kan(found: Tensors, place: str, metadata: Metadata) -> Part:
    """A layer of Wav-KAN (Bozorgasl and Chen 2024, arXiv 2405.12832) with Mexican hats.

        out_o = BatchNorm(sum_i wavelet_weights[o, i] psi((x_i - translation[o, i]) / scale[o, i]))

    Its `weight1` is trained and saved, but not used; in some copies it is the weight of a base function.

    Raises:
        CheckpointError: a tensor is missing or its shape fits no layer, or it has another wavelet.
    """
    n_out, n_in = shape_of(found, "wavelet_weights", 2, place)
    kind = metadata.text(place, "wavelet_type")
    if kind not in (None, "mexican_hat"):
        raise CheckpointError(f"has wavelets of type {kind!r} at {place!r}, but only mexican_hat is supported")
    shapes = dict.fromkeys(("wavelet_weights", "scale", "translation"), (n_out, n_in))
    if "weight1" in found:
        shapes["weight1"] = (n_out, n_in)
    names = [*shapes]
    compare_shapes(found, shapes, place, "Wav-KAN")
    tensors = {"scale": found["scale"], "translation": found["translation"]}
    norm = keys_under(found, "bn")
    if "running_mean" in norm:
        per_node = {f"bn.{name}": (n_out,) for name in ("running_mean", "running_var", "weight", "bias")}
        compare_shapes(found, per_node, place, "Wav-KAN")
        tensors["node_scale"], tensors["node_bias"] = affine_of(norm, metadata.eps(f"{start_of(place)}bn") or NORM_EPS)
        names += [f"bn.{name}" for name in norm]

    def read(chosen: Chosen) -> tuple[Layer]:
        base = WEIGHT1[chosen["weight1"]] if "weight1" in found else "zero"
        sign = 1 if chosen["hats"] == HATS[0] else -1
        signed = tensors | {"coef": sign * found["wavelet_weights"].unsqueeze(-1)}
        if base != "zero":
            signed["scale_base"] = found["weight1"]
        return (Layer(LayerConfig(n_in, n_out, MexicanHat(), base=base), signed),)

    choices = {"hats": HATS} | ({"weight1": tuple(WEIGHT1)} if "weight1" in found else {})
    return Part(place, "Wav-KAN", n_in, n_out, keys_of(place, names), read, choices, f"{n_in} to {n_out}")


def read_torch_layer(found: Tensors, place: str, metadata: Metadata) -> Part | None:
    """A Linear, LayerNorm or BatchNorm1d; None if the tensors there are of something else.

    A weight with one axis is a LayerNorm only if it has a bias: without one it may be a PReLU, RMSNorm or other.

    Raises:
        CheckpointError: the tensors of a BatchNorm do not fit each other.
    """
    weight, bias, eps = found.get("weight"), found.get("bias"), metadata.eps(place) or NORM_EPS
    affine = [name for name in ("weight", "bias") if name in found]
    if "running_mean" in found:
        (n,) = shape_of(found, "running_mean", 1, place)
        compare_shapes(found, dict.fromkeys(("running_var", *affine), (n,)), place, "BatchNorm")
        statistics = found["running_mean"].double(), (found["running_var"].double() + eps).sqrt()
        names = [*affine, *(n for n in ("running_mean", "running_var", "num_batches_tracked") if n in found)]
        return _norm_part("BatchNorm", place, Norm(Step("affine"), *affine_of(found, eps), statistics), names)
    if weight is None or (bias is not None and tuple(bias.shape) != weight.shape[:1]):
        return None
    if weight.ndim == 1 and bias is not None and weight.numel() > 1:
        return _norm_part("LayerNorm", place, Norm(Step("layer_norm", eps), weight, bias), affine)
    if weight.ndim != 2 or not weight.numel():
        return None
    n_out, n_in = weight.shape
    tensors = {"coef": weight.unsqueeze(-1)} | ({} if bias is None else {"subnode_bias": bias})
    layer, sizes = Layer(LayerConfig(n_in, n_out, Line(), base="zero"), tensors), f"{n_in} to {n_out}"
    return Part(place, "Linear", n_in, n_out, keys_of(place, affine), lambda chosen: (layer,), description=sizes)


def _norm_part(library: str, place: str, norm: Norm, names: Sequence[str]) -> Part:
    n = len(norm.weight)
    return Part(place, library, n, n, keys_of(place, names), lambda chosen: (norm,), description=f"of {n}")


def find_recurrent(tensors: Tensors) -> list[RecurrentPart]:
    """Finds torch's LSTMs and GRUs, whose keys and order of gates the recurrent module here shares.

    Raises:
        CheckpointError: a part is neither an LSTM nor a GRU, or its shapes do not fit.
    """
    places = dict.fromkeys(match[1] or "" for key in tensors if (match := RECURRENT_KEY.fullmatch(key)))
    return [_read_recurrent(tensors, place) for place in places]


def _read_recurrent(tensors: Tensors, place: str) -> RecurrentPart:
    found = {key: t for key, t in keys_under(tensors, place).items() if RECURRENT_KEY.fullmatch(key) and "." not in key}
    rows, n_in = shape_of(found, "weight_ih_l0", 2, place)
    _, hidden_size = shape_of(found, "weight_hh_l0", 2, place)
    if "weight_hr_l0" in found:
        raise CheckpointError(
            f"has an LSTM with a projection ({place}.weight_hr_l0: proj_size {hidden_size}), which is not read"
        )
    cell = GATES.get(rows // hidden_size if rows % hidden_size == 0 else 0)
    if cell is None:
        kind = "an RNN without gates" if rows == hidden_size else "neither an LSTM nor a GRU"
        raise CheckpointError(
            f"has a recurrent network at {place!r} that is {kind} ({rows} rows of gates for {hidden_size} units)"
        )
    numbers = [int(match[2]) for key in found if (match := RECURRENT_KEY.fullmatch(key))]
    config = RecurrentConfig(
        cell,
        hidden_size,
        num_layers=max(numbers) + 1,
        bidirectional=any(key.endswith("_reverse") for key in found),
        bias=any(key.startswith("bias") for key in found),
    )
    expected = recurrent_shapes(config, n_in)
    compare_shapes(found, expected, place, f"torch's {cell.upper()}")
    return RecurrentPart(place, config, n_in, {name: found[name] for name in expected}, keys_of(place, expected))
