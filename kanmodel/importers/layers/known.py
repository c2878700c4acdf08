"""The layers of KAN libraries and of torch.

A function `read_…` reads the layer at one place; it raises `CheckpointError` if a tensor is missing, or if its shape or
what is stated fits no layer of the library. To add a library, write such a function, and name it in `READERS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count, takewhile
from math import isfinite, log
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.files.pickles import GlobalName
from kanmodel.importers.layers import submodules as parts
from kanmodel.importers.layers.splines import (
    read_efficient_kan,
    read_pykan,
    read_pykan_layer,
    read_torchkan,
    read_uniform,
)
from kanmodel.importers.layers.submodules import Chosen, Layer, Metadata, Norm, RecurrentSubmodule, Submodule, Tensors
from kanmodel.network.bases import Basis, Chebyshev, Fourier, Gaussian, Line, MexicanHat, Sech2
from kanmodel.network.config import Cell, LayerConfig, RecurrentConfig, SymbolicEdge, Transform
from kanmodel.network.functions import FUNCTIONS
from kanmodel.network.recurrent import recurrent_shapes

RADIAL_LIBRARIES = {"fast_kan": "fast-kan", "faster_kan": "FasterKAN"}
EARLY_DENOMINATORS = ("0.33", "1", "0.5")  # FasterKAN's up to 14 May 2024, the default first
INV_DENOMINATORS = {
    "ignored": "inv_denominator ignored, as FasterKAN does",
    "used": "inv_denominator used, as forks of FasterKAN do",
    "cuda": "inv_denominator used and the inputs innermost in the columns, as cu_fasterkan does",
}
INVERSE = "rbf.inv_denominator"
RADIAL_KEYS = {  # that a radial layer may have -> axes, and name in a `KANLayer`
    "layernorm.weight": ("in", "before.0.weight"),
    "layernorm.bias": ("in", "before.0.bias"),
    "base_linear.weight": ("out in", "scale_base"),
    "base_linear.bias": ("out", "subnode_bias"),
}
WAVES = ("cosines first", "sines first")  # order of FourierKAN's coefficients
HATS = ("Mexican hats, negative at 0", "Mexican hats, positive at 0")
WEIGHT1 = {"weight1 not used": "zero", "weight1 of a linear base": "identity", "weight1 of a silu base": "silu"}
# Those of a cell, such as `torch.nn.LSTMCell`, have no number.
RECURRENT_KEY = re.compile(r"(?s)(?:(.+)\.)?(?:weight_(?:ih|hh|hr)|bias_(?:ih|hh))(?:_l(\d{1,4})(?:_reverse)?)?")
GATES: dict[int, Cell] = {4: "lstm", 3: "gru", 1: "gru"}  # an RNN is a GRU whose gates are open
PARAMETERS = ("1", "3", "0", "0.5", "2")  # of polynomials that have one: usual ones
MAX_DEGREES = 64  # of polynomials, and of their parameters
MAX_FIXED = 1 << 14  # edges of a layer that are fixed functions
OPEN = 1000.0  # of which the sigmoid is 1, and that of its negative 0


class Recursion(NamedTuple):
    """P_n = (A x + B) P_n-1 - C P_n-2, of degree n."""

    library: str
    start: tuple[float, float]  # P_-1 and P_0
    recurrence: Callable[[int, float, float], tuple[float, float, float]]  # A, B, C from n and two parameters


def _jacobi(n: int, a: float, b: float) -> tuple[float, float, float]:
    if n == 1:
        return (a + b + 2) / 2, (a - b) / 2, 0
    s, of_two = 2 * n + a + b, (n + a - 1) * (n + b - 1)
    divisor = n * (n + a + b) * (s - 2)
    return s * (s - 1) * (s - 2) / 2 / divisor, (s - 1) * (a * a - b * b) / 2 / divisor, of_two * s / divisor


POLYNOMIALS = {
    "jacobi_coeffs": Recursion("JacobiKAN", (0, 1), _jacobi),
    "legendre_coeffs": Recursion("LegendreKAN", (0, 1), lambda n, a, b: (2 - 1 / n, 0, 1 - 1 / n)),
    "cheby2_coeffs": Recursion("Cheby2KAN", (0, 1), lambda n, a, b: (2, 0, 1)),
    "hermite_coeffs": Recursion("HermiteKAN", (0, 1), lambda n, a, b: (2, 0, 2 * n - 2)),
    "gegenbauer_coeffs": Recursion(
        "GegenbauerKAN", (0, 1), lambda n, a, b: (2 + (2 * a - 2) / n, 0, 1 + (2 * a - 2) / n)
    ),
    "laguerre_coeffs": Recursion("LaguerreKAN", (0, 1), lambda n, a, b: (-1 / n, 2 + (a - 1) / n, 1 + (a - 1) / n)),
    "bessel_coeffs": Recursion("BesselKAN", (1, 1), lambda n, a, b: (2 * n - 1, 0, -1)),
    "lucas_coeffs": Recursion("LucasKAN", (0, 2), lambda n, a, b: (0.5 if n == 1 else 1, 0, -1)),
    "fib_coeffs": Recursion("FibonacciKAN", (1, 0), lambda n, a, b: (1, 0, -1)),
}
SKAN = {
    "lshifted_softplus": ("softplus", -log(2)),
    **{f"l{name}": (name, 0.0) for name in ("softplus", "arctan", "relu", "sin", "cos")},
}  # functions of unikan -> name of f, and what is added


def read_radial(found: Tensors, place: str, metadata: Metadata) -> Submodule:
    """A layer of fast-kan (Li 2024, arXiv 2405.06721) or FasterKAN (Delis 2024).

    With u = layernorm(x), or x where the layer has no norm, G centres and v_ig = (u_i - grid_g) / denominator:

        fast-kan    out_j = sum_i sum_g W[j, i G + g] exp(-v_ig^2) + sum_i Wb[j, i] base(x_i) + bb_j
        FasterKAN   out_j = sum_i sum_g W[j, i G + g] (1 - tanh(v_ig)^2)

    The denominator of fast-kan is not in the file; it is the distance of the centres. FasterKAN has an
    `inv_denominator`, which may be trained, but its forward pass does not use it: the denominator is 1. Forks of
    FasterKAN use it, and so does `cu_fasterkan` in FasterKAN's repository, where the columns of W are g n_in + i; the
    file does not determine which of the three it is from (`INV_DENOMINATORS`). FasterKAN up to 14 May 2024 divides by
    a denominator, 0.33 by default, that is not in the file, and has the keys and shapes of fast-kan without base.
    """
    start = parts.start_of(place)
    sizes = parts.fit(found, place, "fast-kan", {"rbf.grid": "centres", "spline_linear.weight": "out columns"})
    n_centres, n_out, (n_in, left) = sizes["centres"], sizes["out"], divmod(sizes["columns"], sizes["centres"])
    if left:
        centres = f"which {n_centres} centres of {start}rbf.grid do not divide"
        raise CheckpointError(f"has {sizes['columns']} columns in {start}spline_linear.weight, {centres}")
    for part in ("layernorm", "base_linear"):
        names = [name for name in (f"{part}.weight", f"{part}.bias") if name in found]
        if len(names) == 1:
            raise CheckpointError(f"has {start}{names[0]}, but of {part} only that")
    axes = {f"{INVERSE}?": "", **{f"{key}?": of_key for key, (of_key, _) in RADIAL_KEYS.items()}}
    parts.fit(found, place, "fast-kan", axes, {"in": n_in, "out": n_out})
    normed, based, inverse = "layernorm.weight" in found, "base_linear.weight" in found, found.get(INVERSE)
    libraries, stated = _radial_libraries(found, place, metadata), metadata.denominator(place)
    choices = {"library": libraries} | ({"base": metadata.bases(place)} if based else {})
    if inverse is not None:
        usable = abs(float(inverse)) > 0 and isfinite(1 / abs(float(inverse)))
        choices["inv_denominator"] = tuple(INV_DENOMINATORS) if usable else ("ignored",)
    elif "faster_kan" in libraries and stated is None:
        choices["denominator"] = EARLY_DENOMINATORS
    before = (Transform("layer_norm", metadata.eps(f"{start}layernorm")),) if normed else ()
    weight = found["spline_linear.weight"]

    def read(chosen: Chosen) -> Layer:
        is_fast, meaning = chosen["library"] == "fast_kan", chosen.get("inv_denominator", "ignored")
        early = float(chosen["denominator"]) if not is_fast and "denominator" in chosen else None
        width = _radial_denominator(found, place, meaning, stated or early)
        basis: Basis = (Gaussian if is_fast else Sech2)(n_centres, width)
        base = chosen.get("base", "zero")
        config = LayerConfig(n_in, n_out, basis, base=base, before=before, base_after=0 if normed else None)
        innermost = weight.reshape(n_out, n_centres, n_in).transpose(1, 2)
        tensors = {
            "coef": innermost if meaning == "cuda" else weight.reshape(n_out, n_in, n_centres),
            "grid": found["rbf.grid"].expand(n_in, -1),
            "scale_spline": weight.new_ones(n_out, n_in),
        }
        return Layer(config, tensors | {ours: found[key] for key, (_, ours) in RADIAL_KEYS.items() if key in found})

    title = " or ".join(RADIAL_LIBRARIES[library] for library in libraries)
    keys = parts.keys_of(place, ("rbf.grid", "spline_linear.weight", *axes))
    described = f"{n_in} to {n_out}, {n_centres} centres"
    return Submodule(place, title, n_in, n_out, keys, lambda chosen: (read(chosen),), choices, described)


def _radial_libraries(found: Tensors, place: str, metadata: Metadata) -> tuple[str, ...]:
    """Only fast-kan has a base, only FasterKAN an inv_denominator; without both, either library is possible."""
    fits = [name for name, key in (("fast_kan", INVERSE), ("faster_kan", "base_linear.weight")) if key not in found]
    stated = metadata.stated.library
    if not fits:
        neither = "which neither fast-kan nor FasterKAN has"
        raise CheckpointError(f"has a base and an inv_denominator at {place!r}, {neither}")
    if stated is not None and stated not in fits:
        titles = " and ".join(RADIAL_LIBRARIES[library] for library in fits)
        own = RADIAL_LIBRARIES.get(stated, stated)
        raise CheckpointError(f"has a KAN at {place!r} whose keys fit {titles}, not {own}")
    return tuple(fits) if stated is None else (stated,)


def _radial_denominator(found: Tensors, place: str, meaning: str, stated: float | None) -> float:
    """Width of a layer's bumps: the stated one, or the library's default."""
    start = parts.start_of(place)
    if INVERSE in found and stated is not None:
        raise CheckpointError(
            f"has {start}{INVERSE}, and FasterKAN ignores it and divides by 1, but for its forks, which "
            f"use it: the denominator cannot be given as {stated}"
        )
    if INVERSE in found:
        return 1.0 if meaning == "ignored" else 1 / abs(float(found[INVERSE]))  # bumps are even
    if stated is not None:
        return stated
    first, last = found["rbf.grid"][[0, -1]].double().tolist()
    if first == last:
        raise CheckpointError(f"has no distance between the centres of {start}rbf.grid to take as denominator")
    # the distance of two neighbours has a larger rounding error
    return float(abs(last - first) / (len(found["rbf.grid"]) - 1))


def read_polynomials(found: Tensors, place: str, metadata: Metadata) -> Submodule:
    """A layer of polynomials of tanh: out_o = sum_i sum_n coeffs[i, o, n] P_n(tanh x_i), as sums of Chebyshev's."""
    key = next(key for key in POLYNOMIALS if key in found)
    kind = POLYNOMIALS[key]
    n_in, n_out, n_degrees = parts.fit(found, place, kind.library, {key: "in out degrees"}).values()
    stated = [metadata.value(place, name) for name in ("a", "alpha", "alpha_param", "b", "beta")]
    known = [str(float(value)) for value in stated if isinstance(value, (int, float))]
    if n_degrees > MAX_DEGREES or not all(-1 < float(value) < MAX_DEGREES for value in known):
        given = f"of degree {n_degrees - 1} and parameters {', '.join(known) or 'unknown'}"
        bounds = f"but they must be above -1 and below {MAX_DEGREES}"
        raise CheckpointError(f"has at {place!r} polynomials {given}, {bounds}")

    def read(chosen: Chosen) -> Layer:
        a, b = (chosen["parameter"].split() * 2)[:2]
        before, last = (np.pad([float(value)], (0, n_degrees - 1)) for value in kind.start)
        rows = [last]
        for n in range(1, n_degrees):
            x, plain, earlier = kind.recurrence(n, float(a), float(b))
            times_x = np.pad(chebyshev.chebmulx(last), (0, n_degrees))[:n_degrees]  # without zeros at its end
            before, last = last, x * times_x + plain * last - earlier * before
            rows.append(last)
        coef = found[key].double() @ torch.from_numpy(np.stack(rows))
        config = LayerConfig(n_in, n_out, Chebyshev(n_degrees - 1), base="zero")
        return Layer(config, {"coef": coef.to(found[key].dtype).transpose(0, 1)})

    free = kind.recurrence(3, 1, 1) != kind.recurrence(3, 2, 2)
    choices = {"parameter": (" ".join(known),) if known else PARAMETERS if free else ("0",)}
    usual, described = read({"parameter": choices["parameter"][0]}), f", degree {n_degrees - 1}"
    return Submodule.of(kind.library, place, usual, (key,), described, choices, read)


def read_unikan(found: Tensors, place: str, metadata: Metadata) -> Submodule:
    """A layer of unikan (SKAN, Chen and Zhang 2024, arXiv 2410.14951): node j is sum_i f(k_ji x_i) + f(k_j).

    Each group of nodes has its own f, which the file does not name. Its edges are fixed functions besides an empty
    basis, as of pykan's `fix_symbolic`.
    """
    places = [f"nodes.{n}" for n in takewhile(lambda n: f"nodes.{n}.weight.0" in found, count())]
    axes = {f"{at}.weight.0": f"out{at} columns" for at in places}
    n_in = parts.fit(found, place, "unikan", axes)["columns"]
    choices: dict[str, tuple[str, ...]] = {}
    for n, at in enumerate(f"{parts.start_of(place)}{at}" for at in places):
        function, many = metadata.value(at, "function"), f"{at}.weight.1".removeprefix(parts.start_of(place)) in found
        name = function.name.rpartition(".")[2] if isinstance(function, GlobalName) else None
        many = many or metadata.value(at, "node_type") == "mul"
        if (name or "lsin") not in SKAN or many:
            what = "products of edges or functions of several parameters" if many else f"the function {name}"
            raise CheckpointError(f"has {what} of unikan at {at!r}, but only sums of {', '.join(SKAN)} are read")
        choices[f"function {n}" if n else "function"] = (name,) if name else tuple(SKAN)
    n_in -= metadata.value(f"{parts.start_of(place)}nodes.0", "use_bias") is not False
    weight = torch.cat([found[f"{at}.weight.0"] for at in places]) * 1.0  # floats, whatever the file has
    if not 0 < (n_edges := n_in * len(weight)) <= MAX_FIXED:
        raise CheckpointError(f"has {n_edges} edges of unikan at {place!r}, but 1 to {MAX_FIXED} can be read")
    widths = [len(found[f"{at}.weight.0"]) for at in places]

    def read(chosen: Chosen) -> Layer:
        kinds = [SKAN[chosen[name]] for name, n in zip(choices, widths, strict=True) for _ in range(n)]
        added = torch.tensor([constant for _, constant in kinds], dtype=weight.dtype)
        edges = tuple(SymbolicEdge(i, j, function) for j, (function, _) in enumerate(kinds) for i in range(n_in))
        inner, one = weight[:, :n_in].flatten(), torch.ones(weight[:, :n_in].numel(), dtype=weight.dtype)
        affine = torch.stack([inner, 0 * one, one, added.repeat_interleave(n_in)], dim=1)
        empty = weight.new_zeros(len(weight), n_in)
        tensors = {"coef": empty.unsqueeze(-1), "mask": empty, "symbolic_mask": one, "symbolic_affine": affine}
        if weight.shape[1] > n_in:
            biases = [FUNCTIONS[function](k) for (function, _), k in zip(kinds, weight[:, n_in], strict=True)]
            tensors["subnode_bias"] = torch.stack(biases) + added
        return Layer(LayerConfig(n_in, len(weight), Line(), base="zero", symbolic=edges), tensors)

    usual = read({name: options[0] for name, options in choices.items()})
    return Submodule.of("unikan", place, usual, (f"{at}.weight.0" for at in places), "", choices, read)


def read_cheby_kan(found: Tensors, place: str, metadata: Metadata) -> Submodule:
    """A layer of ChebyKAN (SynodicMonth 2024): out_o = sum_i sum_d cheby_coeffs[i, o, d] T_d(tanh x_i).

    Other libraries have these keys and shapes but another function inside T_d; the check distinguishes them.
    """
    n_in, n_out, n_degrees = parts.fit(found, place, "ChebyKAN", {"cheby_coeffs": "in out degrees"}).values()
    config = LayerConfig(n_in, n_out, Chebyshev(n_degrees - 1), base="zero")
    layer = Layer(config, {"coef": found["cheby_coeffs"].transpose(0, 1)})
    return Submodule.of("ChebyKAN", place, layer, ("cheby_coeffs", "arange"), f", degree {n_degrees - 1}")


def read_fourier_kan(found: Tensors, place: str, metadata: Metadata) -> Submodule:
    """A layer of FourierKAN (GistNoesis 2024).

    out_o = bias_o + sum_i sum_k c[0, o, i, k-1] cos(k x_i) + c[1, o, i, k-1] sin(k x_i)
    """
    axes = {"fouriercoeffs": "kinds out in frequencies", "bias?": "1 out"}
    sizes = parts.fit(found, place, "FourierKAN", axes)
    if sizes["kinds"] != 2:
        raise CheckpointError(f"has {sizes['kinds']} kinds of waves in {place}.fouriercoeffs, not cosines and sines")
    tensors = {"subnode_bias": found["bias"][0]} if "bias" in found else {}
    config = LayerConfig(sizes["in"], sizes["out"], Fourier(sizes["frequencies"]), base="zero")

    def read(chosen: Chosen) -> Layer:
        first, second = found["fouriercoeffs"]
        pair = (first, second) if chosen["waves"] == WAVES[0] else (second, first)
        return Layer(config, {"coef": torch.cat(pair, 2)} | tensors)

    described = f", {sizes['frequencies']} frequencies"
    return Submodule.of("FourierKAN", place, Layer(config, tensors), axes, described, {"waves": WAVES}, read)


def read_wav_kan(found: Tensors, place: str, metadata: Metadata) -> Submodule:
    """A layer of Wav-KAN (Bozorgasl and Chen 2024, arXiv 2405.12832) with Mexican hats.

        out_o = BatchNorm(sum_i wavelet_weights[o, i] psi((x_i - translation[o, i]) / scale[o, i]))

    Its `weight1` is trained and saved, but not used; in some copies it is the weight of a base function.
    """
    kind = metadata.value(place, "wavelet_type")
    if isinstance(kind, str) and kind != "mexican_hat":
        raise CheckpointError(f"has wavelets of type {kind!r} at {place!r}, but only mexican_hat is supported")
    axes = dict.fromkeys(("wavelet_weights", "scale", "translation", "weight1?"), "out in")
    normed, based = "bn.running_mean" in found, "weight1" in found
    if normed:
        axes |= dict.fromkeys(("bn.running_mean", "bn.running_var", "bn.weight", "bn.bias"), "out")
        axes["bn.num_batches_tracked?"] = ""
    sizes = parts.fit(found, place, "Wav-KAN", axes)
    tensors = {"scale": found["scale"], "translation": found["translation"]}
    if normed:
        eps = metadata.eps(f"{parts.start_of(place)}bn")
        tensors["node_scale"], tensors["node_bias"] = _affine_of(parts.keys_under(found, "bn"), eps)
    config = LayerConfig(sizes["in"], sizes["out"], MexicanHat(), base="zero")

    def read(chosen: Chosen) -> Layer:
        base = WEIGHT1[chosen["weight1"]] if based else "zero"
        sign = 1 if chosen["hats"] == HATS[0] else -1
        chosen_tensors = {"coef": sign * found["wavelet_weights"].unsqueeze(-1)}
        if base != "zero":
            chosen_tensors["scale_base"] = found["weight1"]
        return Layer(replace(config, base=base), tensors | chosen_tensors)

    choices = {"hats": HATS} | ({"weight1": tuple(WEIGHT1)} if based else {})
    return Submodule.of("Wav-KAN", place, Layer(config, tensors), axes, choices=choices, read=read)


def read_torch_layer(found: Tensors, place: str, metadata: Metadata) -> Submodule | None:
    """A Linear, LayerNorm or BatchNorm1d; None if the tensors there are of something else.

    A weight with one axis is a LayerNorm only if it has a bias: without one it may be a PReLU, RMSNorm or other.
    """
    weight, bias, eps = found.get("weight"), found.get("bias"), metadata.eps(place)
    module = metadata.module and metadata.module.find(place)
    if module and module.class_name.startswith("torch.nn.") and "Embedding" in module.class_name:
        return None
    if "running_mean" in found:
        axes = dict.fromkeys(("running_mean", "running_var", "weight?", "bias?"), "n") | {"num_batches_tracked?": ""}
        parts.fit(found, place, "BatchNorm", axes)
        return Submodule.of("BatchNorm", place, Norm(Transform("affine"), *_affine_of(found, eps)), axes)
    if weight is None or not weight.numel() or (bias is not None and tuple(bias.shape) != weight.shape[:1]):
        return None
    if weight.ndim == 1 and bias is not None and weight.numel() > 1:
        return Submodule.of("LayerNorm", place, Norm(Transform("layer_norm", eps), weight, bias), ("weight", "bias"))
    if weight.ndim != 2:
        return None
    n_out, n_in = weight.shape
    tensors = {"coef": weight.unsqueeze(-1)} | ({} if bias is None else {"subnode_bias": bias})
    layer = Layer(LayerConfig(n_in, n_out, Line(), base="zero"), tensors)
    return Submodule.of("Linear", place, layer, ("weight", "bias"), " without bias" if bias is None else "")


def _affine_of(tensors: Tensors, eps: float) -> tuple[Tensor, Tensor]:
    """Scale and bias of a BatchNorm in evaluation mode (Ioffe and Szegedy 2015, arXiv 1502.03167), in float64."""
    mean, variance = tensors["running_mean"].double(), tensors["running_var"].double()
    scale = 1 / torch.sqrt(variance + eps)
    if "weight" in tensors:
        scale = scale * tensors["weight"].double()
    bias = tensors["bias"].double() if "bias" in tensors else torch.zeros_like(mean)
    return scale, bias - mean * scale


READERS: Mapping[str, Callable[[Mapping[str, Tensor], str, Metadata], Submodule | None]] = {
    "act_fun.0.coef": read_pykan,
    "rbf.grid": read_radial,
    "scale_sp": read_pykan_layer,
    "grid_starts": read_uniform,
    "spline_weight": read_efficient_kan,
    "base_weights.0": read_torchkan,
    "nodes.0.weight.0": read_unikan,
    **dict.fromkeys(POLYNOMIALS, read_polynomials),
    "cheby_coeffs": read_cheby_kan,
    "fouriercoeffs": read_fourier_kan,
    "wavelet_weights": read_wav_kan,
    "weight": read_torch_layer,  # last, because KANs have tensors of this name too
    "running_mean": read_torch_layer,
}  # name of a tensor -> the library's part that has it


def find_parts(tensors: Tensors, metadata: Metadata) -> tuple[list[Submodule], list[RecurrentSubmodule]]:
    """Finds all supported parts of a file, in its order; each key belongs to at most one part.

    Raises `CheckpointError` if the tensors of a part do not fit each other, or it is an unsupported variant.
    """
    recurrents, found = find_recurrent(tensors), list[Submodule]()
    for recurrent in recurrents:
        if metadata.value(recurrent.place, "nonlinearity") == "relu":
            raise CheckpointError(f"has an RNN with relu at {recurrent.place!r}, but only those with tanh are read")
    taken = {key for recurrent in recurrents for key in recurrent.keys}
    for name, read in READERS.items():
        left = {key: tensor for key, tensor in tensors.items() if key not in taken}
        for key in left:
            if key == name or key.endswith(f".{name}"):
                place = key.removesuffix(name).removesuffix(".")
                part = read(parts.keys_under(left, place), place, metadata)
                if part is not None:
                    found.append(part)
                    taken |= part.keys
    return sorted(found, key=lambda part: next(n for n, key in enumerate(tensors) if key in part.keys)), recurrents


def find_recurrent(tensors: Tensors) -> list[RecurrentSubmodule]:
    """Finds torch's LSTMs, GRUs and RNNs with tanh, and their cells, which a loop may run over the steps.

    Raises `CheckpointError` if a part is none of them, or its shapes do not fit.
    """
    places: dict[str, dict[str, str]] = {}  # keys by the names of an LSTM's tensors
    for key in tensors:
        if (match := RECURRENT_KEY.fullmatch(key)) is not None:
            name = key.rpartition(".")[2] + ("" if match[2] else "_l0")
            places.setdefault(match[1] or "", {}).setdefault(name, key)
    return [_read_recurrent(tensors, place, keys) for place, keys in places.items()]


def _read_recurrent(tensors: Tensors, place: str, keys: Mapping[str, str]) -> RecurrentSubmodule:
    found: Tensors = {name: tensors[key] for name, key in keys.items()}
    sizes = parts.fit(found, place, "torch", {"weight_ih_l0": "rows in", "weight_hh_l0": "rows hidden"})
    rows, n_in, size = sizes.values()
    if "weight_hr_l0" in found:
        problem = f"has an LSTM with a projection ({place}.weight_hr_l0: proj_size {size}), which is not read"
        raise CheckpointError(problem)
    cell = GATES.get(rows // size if rows % size == 0 else 0)
    if cell is None:
        kind = f"no LSTM, GRU or RNN ({rows} rows of gates for {size} units)"
        raise CheckpointError(f"has a recurrent network at {place!r} that is {kind}")
    n_layers = 1 + max(int(match[2]) for key in found if (match := RECURRENT_KEY.fullmatch(key)))
    two_ways, bias = (any(word in key for key in found) for word in ("_reverse", "bias"))
    title = "RNN" if rows == size else cell.upper()
    if rows == size:
        found, bias = _with_open_gates(found, place, size), True
    config = RecurrentConfig(cell, size, n_layers, bidirectional=two_ways, bias=bias)
    axes = {key: " ".join(map(str, shape)) for key, shape in recurrent_shapes(config, n_in).items()}
    parts.fit(found, place, f"torch's {title}", axes)
    used = {name: found[name] for name in axes}
    more = ("s" if n_layers > 1 else "") + (", bidirectional" if two_ways else "") + ("" if bias else ", without bias")
    described = f"{n_in} inputs, {size} units, {n_layers} layer{more}"
    own = frozenset(keys[name] for name in axes if name in keys)
    return RecurrentSubmodule(place, title, n_in, config.n_units, own, config, used, described)


def _with_open_gates(found: Tensors, place: str, size: int) -> Tensors:
    """The tensors of an RNN with tanh as those of a GRU: its reset gate is 1 and its update gate 0, whatever it reads.

    h = (1 - z) tanh(W x + b + r (U h + c)) + z h, with r = 1 and z = 0.
    """
    gates, has_bias = dict[str, Tensor](), any("bias" in name for name in found)
    for name, tensor in found.items():
        if tensor.shape[:1] != (size,):
            shape = f"of shape {list(tensor.shape)}, not of {size} rows"
            raise CheckpointError(f"has {parts.start_of(place)}{name} {shape}")
        gates[name] = torch.cat([tensor.new_zeros(2 * size, *tensor.shape[1:]), tensor])
        if not has_bias:
            gates[name.replace("weight", "bias")] = tensor.new_zeros(3 * size)
    for name, bias in gates.items():
        if name.startswith("bias_ih"):
            bias[:size], bias[size : 2 * size] = OPEN, -OPEN
    return gates
