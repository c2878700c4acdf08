"""Rules of tracing: what the operations of torch are in a graph.

Operations are named as torch dispatches them, without an overload, and without the ``_`` of those in place. A rule of
`RULES`, given the tracer and the arguments, returns the numbers of the elements of the result, which it moves or adds
nodes for. A function of `COMPOSITES` is the operation in terms of others, which are traced in turn, and one of
`COMPLEX` that of complex numbers in terms of their parts. What is in none of them is decomposed by torch's own
table, or is no operation of a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from math import log, prod, sqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.nn.functional import one_hot
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

from kanmodel.importers.layers.submodules import Layer
from kanmodel.network.bases import BSpline, Line
from kanmodel.network.config import LayerConfig

if TYPE_CHECKING:
    from kanmodel.importers.tracing.tracer import GraphTracer

MAX_MATRIX = 1 << 20  # values of the matrix of a linear function
MAX_SORTED = 64  # values of a sort, which takes as many turns
UNKNOWN = -1  # number of an element that no node holds, such as the place of a maximum
IN_PLACE_OF_TOPK = (
    "in place of the places of a top-k, weigh all by w / w.sum(-1, keepdim=True), where w is "
    "torch.where(x >= x.topk(k)[0][..., -1:], x.softmax(-1), 0.0)"
)
Rule = Callable[..., Any]
Sizes = Sequence[int]  # one for each axis


class NoOperationError(Exception):
    """Raised by a composite for arguments with which it is in no graph: what it computes and, optionally, why."""


def _moves(name: str, of_floats: bool = False) -> Rule:
    """The rule of an operation that only moves elements; some take floats alone, which hold any number here."""
    operation = getattr(torch.ops.aten, name)

    def rule(tracer: GraphTracer, *args: Any, **kwargs: Any) -> Any:
        if name == "scatter" and not isinstance(args[3], Tensor):  # one number for all places
            args = (*args[:3], int(tracer.of(args[3])), *args[4:])
        moved = [value for value in tree_flatten(args[:1])[0] if isinstance(value, Tensor)]

        def of(value: Tensor) -> Tensor:
            is_moved = value.is_floating_point() or any(value is each for each in moved)
            if not is_moved and tracer.depends(value):
                tracer.refuse(name, f"which decides by values of the window; {IN_PLACE_OF_TOPK}")
            numbers = tracer.of(value) if is_moved else value
            return numbers.as_subclass(Tensor).double() if of_floats and is_moved else numbers

        found = operation(*tree_map_only(Tensor, of, args), **tree_map_only(Tensor, of, kwargs))
        return tree_map_only(Tensor, Tensor.long, found) if of_floats else found

    return rule


def _elementwise(op: str) -> Rule:
    return lambda tracer, *operands: tracer.apply(op, *operands)


# Arithmetic


def _add(tracer: GraphTracer, one: Any, other: Any, alpha: float = 1, op: str = "add") -> Tensor:
    return tracer.apply(op, one, other if alpha == 1 else tracer.apply("mul", other, alpha))


def _mul(tracer: GraphTracer, one: Any, other: Any) -> Tensor:
    """The product, or silu where it is written as x sigmoid(x)."""
    left, right = tracer.of(one), tracer.of(other)
    for x, factor in ((left, right), (right, left)):
        if tracer.is_known("sigmoid", x, factor):
            return tracer.apply("silu", x)
    return tracer.apply("mul", left, right)


def _div(tracer: GraphTracer, one: Any, other: Any, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        tracer.refuse(f"a division that rounds ({rounding_mode})")
    return tracer.apply("div", one, other)


def _pow(tracer: GraphTracer, base: Any, exponent: Any) -> Tensor:
    """A power; where the window decides the exponent, of a base above 0."""
    if not isinstance(base, Tensor) or tracer.depends(exponent):
        logarithm = tracer.apply("log", base) if tracer.depends(base) else torch.as_tensor(base).double().log()
        return tracer.apply("exp", tracer.apply("mul", exponent, logarithm))
    if isinstance(exponent, Tensor):
        shape = tuple((base + exponent).shape)
        numbers, exponents = tracer.of(base).expand(shape), exponent.expand(shape)
        found = numbers.clone()
        for each in sorted({*exponents.flatten().tolist()}):
            found[exponents == each] = _pow(tracer, numbers[exponents == each], each)
        return found
    return tracer.apply("mul", base, base) if exponent == 2 else tracer.apply("power", base, parameter=float(exponent))


def _power(exponent: float) -> Rule:
    return lambda tracer, x: tracer.apply("power", x, parameter=exponent)


def _elu(tracer: GraphTracer, x: Tensor, alpha: float = 1, scale: float = 1, of_input: float = 1) -> Tensor:
    numbers = tracer.apply("elu", x if of_input == 1 else tracer.apply("mul", x, of_input), parameter=float(alpha))
    return numbers if scale == 1 else tracer.apply("mul", numbers, scale)


def _softplus(tracer: GraphTracer, x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    if threshold != 20:
        tracer.refuse(f"a softplus with threshold {threshold}")
    return tracer.apply("softplus", x, parameter=float(beta))


def _clamp(tracer: GraphTracer, x: Any, min: Any = None, max: Any = None) -> Tensor:
    numbers = tracer.of(x) if min is None else tracer.apply("maximum", x, min)
    return numbers if max is None else tracer.apply("minimum", numbers, max)


def _round(tracer: GraphTracer, x: Tensor, **_: Any) -> Tensor:
    """The values themselves, which are whole where a feature of whole numbers is scaled back."""
    if not tracer.integer:
        tracer.refuse("round", "of features that are not named in integer=[...]")
    return tracer.of(x).clone()


# Comparisons: masks are 1 and 0


def _above(tracer: GraphTracer, one: Any, other: Any) -> Tensor:
    return tracer.apply("step", tracer.apply("sub", one, other))


def _not(tracer: GraphTracer, mask: Any) -> Tensor:
    return tracer.apply("sub", 1.0, mask)


def _or(tracer: GraphTracer, one: Any, other: Any) -> Tensor:
    return _not(tracer, tracer.apply("mul", _not(tracer, one), _not(tracer, other)))


def _where(tracer: GraphTracer, mask: Tensor, one: Any, other: Any) -> Tensor:
    """A choice of numbers by a constant mask; by one of the window, an operation."""
    if not tracer.depends(mask):
        return torch.where(mask, tracer.of(one), tracer.of(other))
    return tracer.apply("where", mask, one, other)


# Reductions


def _reduction(op: str) -> Rule:
    def rule(tracer: GraphTracer, x: Tensor, axes: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
        return tracer.reduce(op, x, axes, keepdim)

    return rule


def _spread(root: bool, with_mean: bool = False) -> Rule:
    """A standard deviation or variance, with Bessel's correction by default."""

    def rule(tracer: GraphTracer, x: Tensor, axes: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
        numbers = tracer.reduce("std", x, axes, keepdim)
        n = x.numel() / max(numbers.numel(), 1)
        freedom = n - (1 if correction is None else correction)
        if freedom <= 0:
            tracer.refuse("the deviation of a single value")
        numbers = numbers if freedom == n else tracer.apply("mul", numbers, sqrt(n / freedom))
        numbers = numbers if root else tracer.apply("mul", numbers, numbers)
        return (numbers, tracer.reduce("mean", x, axes, keepdim)) if with_mean else numbers

    return rule


def _sort(tracer: GraphTracer, x: Tensor, axis: int = -1, descending: bool = False, **_: Any) -> Tensor:
    """A sorting network of neighbours, whose values are minima and maxima; the places are in no graph."""
    n = x.shape[axis] if x.ndim else 1
    if n > MAX_SORTED:
        tracer.refuse(f"a sort of {n} values", f"and a graph sorts at most {MAX_SORTED}")
    numbers = tracer.of(x).movedim(axis, -1) if x.ndim else tracer.of(x)[None]
    for turn in range(n if n > 2 else n - 1):
        first = turn % 2
        last = first + (n - first) // 2 * 2
        pairs = numbers[..., first:last].reshape(*numbers.shape[:-1], -1, 2)
        ends = [tracer.apply(op, pairs[..., 0], pairs[..., 1]) for op in ("minimum", "maximum")]
        inner = torch.stack(ends, dim=-1).flatten(-2)
        numbers = torch.cat([numbers[..., :first], inner, numbers[..., last:]], dim=-1)
    numbers = numbers.flip(-1) if descending else numbers
    return numbers.movedim(-1, axis) if x.ndim else numbers[0]


# Layers: patches of values, and linear functions


def _linear(weight: Tensor, bias: Tensor | None) -> Layer:
    config = LayerConfig(weight.shape[1], weight.shape[0], Line(), base="zero")
    return Layer(config, {"coef": weight.unsqueeze(-1), **({} if bias is None else {"subnode_bias": bias})})


def _matrix(tracer: GraphTracer, function: Callable[[Tensor], Tensor], shape: Sizes) -> Tensor:
    """The matrix of a linear function of values (n, *shape), by its images of the unit vectors, (n_in, n_out)."""
    size = prod(shape)
    if size * function(torch.zeros(1, *shape, dtype=torch.float64)).numel() > MAX_MATRIX:
        tracer.refuse("a linear function of too many values")
    return function(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1)


def _index_put(
    tracer: GraphTracer, x: Tensor, indices: Sequence[Tensor | None], values: Tensor, add: bool = False
) -> Any:
    """Values moved to places, or added to what is there, as the sums of a graph network over its neighbours."""
    if not add or any(map(tracer.depends, indices)):
        return _moves("index_put")(tracer, x, indices, values)
    places = torch.arange(x.numel()).reshape(x.shape)[tuple(slice(None) if at is None else at for at in indices)]
    if places.numel() * x.numel() > MAX_MATRIX:
        tracer.refuse("a sum of too many values by places")
    sums = tracer.matmul(
        tracer.of(values).expand(places.shape).reshape(1, -1), one_hot(places.flatten(), x.numel()).to(x.dtype)
    )
    return tracer.apply("add", x, sums.reshape(x.shape))


def _linear_function(name: str, axes: int) -> Rule:
    """The rule of an operation that is linear in its first argument, alike for all of the first axes."""

    def rule(tracer: GraphTracer, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        operation, shape = getattr(torch.ops.aten, name), x.shape[-axes:]
        matrix = _matrix(tracer, lambda values: operation(values[:, None], *args, **kwargs), shape)
        return tracer.matmul(tracer.of(x).reshape(-1, prod(shape)), matrix.to(x.dtype))

    return rule


def _patches(numbers: Tensor, sizes: Sizes, strides: Sizes, pads: Sizes, dilations: Sizes, fill: int) -> Tensor:
    """(..., *axes) -> (..., *places, values of the patch)."""
    first = numbers.ndim - len(sizes)
    numbers = torch.constant_pad_nd(numbers, [pad for pad in reversed(pads) for _ in range(2)], fill)
    for axis, (size, stride, dilation) in enumerate(zip(sizes, strides, dilations, strict=True)):
        numbers = numbers.unfold(first + axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
    return numbers.flatten(-len(sizes))


def _convolution(
    tracer: GraphTracer, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes, *rest: Any
) -> Tensor:
    """A layer of lines that is applied at each place; a transposed one is one layer of all values."""
    dilation, transposed, _, groups = rest
    if tracer.depends(weight):
        tracer.refuse("a convolution by values of the window")
    filters, shift = weight.detach().cpu(), None if bias is None else bias.detach().cpu()
    if transposed:

        def convolve(values: Tensor) -> Tensor:
            images: Tensor = torch.ops.aten.convolution(values, filters.double(), None, stride, padding, *rest)
            return images

        matrix, n_out = _matrix(tracer, convolve, x.shape[1:]), filters.shape[1] * groups
        shift = filters.new_zeros(n_out) if shift is None else shift
        layer = _linear(matrix.T.to(weight.dtype), shift.repeat_interleave(matrix.shape[1] // n_out))
        return tracer.layer(layer, tracer.of(x).flatten(1))
    patches = _patches(tracer.of(x), weight.shape[2:], stride, padding, dilation, int(tracer.of(0.0)))
    patches = patches.reshape(len(patches), groups, -1, *patches.shape[2:])
    patches = patches.movedim(2, -2).flatten(-2)  # (n, groups, *places, values)
    biases = [None] * groups if shift is None else shift.chunk(groups)
    of_groups = [
        tracer.layer(_linear(each, own), patches[:, group]).movedim(-1, 1)
        for group, (each, own) in enumerate(zip(filters.flatten(1).chunk(groups), biases, strict=True))
    ]
    return torch.cat(of_groups, dim=1)


def _max_pool(
    tracer: GraphTracer,
    x: Tensor,
    size: Sizes,
    stride: Sizes = (),
    padding: Sizes = (0, 0),
    dilation: Sizes = (1, 1),
    ceil_mode: bool = False,
) -> Tensor:
    numbers, stride, padding = tracer.of(x), stride or size, padding[: len(size)]
    if ceil_mode:  # the last places reach beyond the values
        pool = torch.ops.aten.max_pool2d_with_indices
        shape = pool(x.to("meta"), size, stride, padding, dilation, ceil_mode)[0].shape
        places = zip(shape[-len(size) :], x.shape[-len(size) :], size, stride, padding, dilation, strict=False)
        beyond = [(m - 1) * step + (k - 1) * d + 1 - n - 2 * pad for m, n, k, step, pad, d in places]
        after = [max(n, 0) for n in reversed(beyond)]
        numbers = torch.constant_pad_nd(numbers, [n for each in after for n in (0, each)], UNKNOWN)
    patches = _patches(numbers, size, stride, padding, dilation, UNKNOWN)
    patches = torch.where(patches == UNKNOWN, patches.amax(dim=-1, keepdim=True), patches)  # a value of the same patch
    return tracer.reduce("max", patches, -1)


def _avg_pool(
    tracer: GraphTracer,
    x: Tensor,
    size: Sizes,
    stride: Sizes = (),
    padding: Sizes = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Tensor:
    if ceil_mode or divisor is not None or (any(padding) and not count_include_pad):
        rule = _linear_function("avg_pool2d", 2)
        found: Tensor = rule(tracer, x, size, stride, padding, ceil_mode, count_include_pad, divisor)
        return found
    padding, fill = padding[: len(size)], int(tracer.of(0.0))
    return tracer.reduce("mean", _patches(tracer.of(x), size, stride or size, padding, (1,) * len(size), fill), -1)


def _embedding(tracer: GraphTracer, weight: Tensor, indices: Tensor, *_: Any) -> Tensor:
    """Linear splines of a whole number, whose knots are the rows: at each it is that row, between two on their line."""
    if tracer.depends(weight) or len(weight) < 2:
        tracer.refuse("an embedding of values of the window, or of a single row")
    if not tracer.integer:
        tracer.refuse("an embedding", "of features that are not named in integer=[...]")
    tensors = {
        "coef": weight.detach().cpu().T[:, None],
        "grid": torch.arange(-1.0, len(weight) + 1, dtype=weight.dtype)[None],
        "scale_spline": weight.new_ones(weight.shape[1], 1),
    }
    config = LayerConfig(1, weight.shape[1], BSpline(len(weight) - 1, 1), base="zero")
    return tracer.layer(Layer(config, tensors), tracer.of(indices)[..., None])


RULES: dict[str, Rule] = {
    **{name: _moves(name) for name in ("clone", "cat", "stack", "flip", "roll", "index", "index_select", "gather")},
    **{name: _moves(name) for name in ("repeat", "slice_scatter", "select_scatter", "scatter")},
    **{name: _moves(name) for name in ("_unsafe_index", "_pack_padded_sequence", "_pad_packed_sequence")},
    **{f"{way}_pad{n}d": _moves(f"{way}_pad{n}d", True) for way in ("replication", "reflection") for n in (1, 2, 3)},
    **dict.fromkeys(("_to_copy", "nan_to_num"), lambda tracer, x, *args, **kwargs: tracer.of(x).clone()),
    "copy": lambda tracer, target, source, *args: tracer.of(source).expand(target.shape),
    "fill": lambda tracer, target, value: tracer.of(value).expand(target.shape),
    "zero": lambda tracer, target: tracer.of(0.0).expand(target.shape),
    "constant_pad_nd": lambda tracer, x, pad, fill=0.0: torch.constant_pad_nd(tracer.of(x), pad, int(tracer.of(fill))),
    "where": _where,
    "masked_fill": lambda tracer, x, mask, value: _where(tracer, mask, value, x),
    "gt": _above,
    "lt": lambda tracer, one, other: _above(tracer, other, one),
    "ge": lambda tracer, one, other: _not(tracer, _above(tracer, other, one)),
    "le": lambda tracer, one, other: _not(tracer, _above(tracer, one, other)),
    **dict.fromkeys(("logical_not", "bitwise_not"), _not),
    **dict.fromkeys(("logical_and", "bitwise_and", "__and__"), _elementwise("mul")),
    **dict.fromkeys(("logical_or", "bitwise_or", "__or__"), _or),
    "sign": lambda tracer, x: tracer.apply("sub", _above(tracer, x, 0.0), _above(tracer, 0.0, x)),
    **{name: _elementwise(name) for name in ("relu", "silu", "mish", "tanh", "sigmoid", "hardsigmoid", "hardswish")},
    **{name: _elementwise(name) for name in ("exp", "log", "sqrt", "abs", "sin", "cos", "atan", "erf", "sinh")},
    **{name: _elementwise(name) for name in ("asinh", "maximum", "minimum")},
    "gelu": lambda tracer, x, approximate="none": tracer.apply("gelu" if approximate == "none" else "gelu_tanh", x),
    "leaky_relu": lambda tracer, x, slope=0.01: tracer.apply("leaky_relu", x, parameter=float(slope)),
    **{"elu": _elu, "softplus": _softplus, "clamp": _clamp, "clamp_min": _clamp, "round": _round},
    "clamp_max": lambda tracer, x, high: _clamp(tracer, x, None, high),
    "hardtanh": lambda tracer, x, low=-1.0, high=1.0: _clamp(tracer, x, low, high),
    "neg": lambda tracer, x: tracer.apply("mul", x, -1.0),
    "complex": lambda tracer, *parts: torch.stack([tracer.of(each) for each in parts], dim=-1),
    **{"add": _add, "mul": _mul, "div": _div, "pow": _pow, "reciprocal": _power(-1.0), "rsqrt": _power(-0.5)},
    "sub": lambda tracer, one, other, alpha=1: _add(tracer, one, other, alpha, "sub"),
    "rsub": lambda tracer, one, other, alpha=1: _add(tracer, other, one, alpha, "sub"),
    **{"mean": _reduction("mean"), "sum": _reduction("sum"), "median": _reduction("median")},
    **{"max": _reduction("max"), "min": _reduction("min"), "amax": _reduction("max"), "amin": _reduction("min")},
    **{"std": _spread(True), "var": _spread(False), "std_mean": _spread(True, True), "var_mean": _spread(False, True)},
    **{"sort": _sort, "embedding": _embedding, "index_put": _index_put},
    "topk": lambda tracer, x, k, axis=-1, largest=True, *_: _sort(tracer, x, axis, largest).narrow(axis, 0, k),
    **dict.fromkeys(("_softmax", "_safe_softmax"), lambda tracer, x, axis, *_: tracer.softmax(x, axis)),
    **dict.fromkeys(("mm", "bmm"), lambda tracer, one, other: tracer.matmul(one, other)),
    **{"convolution": _convolution, "max_pool2d_with_indices": _max_pool, "avg_pool2d": _avg_pool},
    "kanscope::quantile": lambda tracer, family, theta, level: tracer.mix(f"quantile_{family}", theta, level),
    "upsample_linear1d": _linear_function("upsample_linear1d", 1),
    **{f"upsample_{name}2d": _linear_function(f"upsample_{name}2d", 2) for name in ("bilinear", "bicubic")},
    "_upsample_bicubic2d_aa": _linear_function("_upsample_bicubic2d_aa", 2),
}


# Composites


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    below = x.clamp(max=0.0) * weight
    return x.relu() + below


def _norm(x: Tensor, order: float = 2, axes: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    if order == 1:
        return x.abs().sum(axes, keepdim=keepdim)
    if order != 2:
        raise NoOperationError(f"a norm of order {order}")
    both = torch.stack([x, -x])  # whose mean is 0: the slope of their deviation is 0 at 0, that of a root infinite
    kept = [0, *(axis % x.ndim + 1 for axis in (range(x.ndim) if axes is None else axes))]
    size = prod(both.shape[axis] for axis in kept[1:])
    found = both.std(kept, correction=0, keepdim=keepdim) * sqrt(size)
    return found.squeeze(0) if keepdim else found


def _standardise(x: Tensor, axes: list[int], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / ((centred * centred).mean(axes, keepdim=True) + eps).sqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _layer_norm(x: Tensor, shape: Sizes, weight: Any, bias: Any, eps: float) -> Tensor:
    return _affine(_standardise(x, [*range(-len(shape), 0)], eps), weight, bias)


def _by_channel(x: Tensor, values: Tensor | None) -> Tensor | None:
    return None if values is None else values.reshape(-1, *(1,) * (x.ndim - 2))


def _group_norm(x: Tensor, weight: Any, bias: Any, n: int, channels: int, rest: int, groups: int, eps: float) -> Tensor:
    standard = _standardise(x.reshape(n, groups, -1), [-1], eps).reshape(x.shape)
    return _affine(standard, _by_channel(x, weight), _by_channel(x, bias))


def _batch_norm(x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, *args: Any) -> Tensor:
    """By the statistics of training; an instance norm without these, as there is one window."""
    if mean is None or (len(args) > 2 and args[0]):
        standard = _standardise(x, [axis for axis in range(x.ndim) if axis != 1], args[-1])
        return _affine(standard, _by_channel(x, weight), _by_channel(x, bias))
    scale = (variance + args[-1]).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return _affine(x, _by_channel(x, scale), _by_channel(x, shift))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """softmax(Q K^T scale + mask) V of each head, where torch is told to compute it as a whole."""
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.full(scores.shape[-2:], -torch.inf, dtype=query.dtype).triu(1)
    scores = scores if attn_mask is None else scores + attn_mask
    return scores.softmax(-1) @ value


def _cumsum(x: Tensor, axis: int, **_: Any) -> Tensor:
    rows = x.movedim(axis, -1)
    n = rows.shape[-1]
    return (rows.reshape(-1, n) @ x.new_ones(n, n).triu()).reshape(rows.shape).movedim(-1, axis)


def _logsumexp(x: Tensor, axes: Any, keepdim: bool = False) -> Tensor:
    most = x.amax(axes, keepdim=True)
    found = (x - most).exp().sum(axes, keepdim=True).log() + most
    return found if keepdim else found.squeeze(axes)


def _threshold(x: Tensor, threshold: float, value: float) -> Tensor:
    if threshold != value:
        raise NoOperationError(f"a threshold at {threshold} that gives {value}", "which jumps there")
    return x.clamp(min=threshold)


def _scatter_add(x: Tensor, axis: int, index: Tensor, source: Tensor) -> Tensor:
    places: list[Tensor | None] = [*torch.meshgrid(*map(torch.arange, index.shape), indexing="ij")]
    places[axis] = index
    return x.index_put(places, source[tuple(map(slice, index.shape))], accumulate=True)


def _trilinear(
    one: Tensor, two: Tensor, three: Tensor, new_one: Sizes, new_two: Sizes, new_three: Sizes, summed: Sizes, *_: Any
) -> Tensor:
    """The sum of products that a bilinear layer is, each factor with new axes."""
    for axes, add in ((new_one, 0), (new_two, 1), (new_three, 2)):
        for axis in axes:
            one, two, three = (x.unsqueeze(axis) if number == add else x for number, x in enumerate((one, two, three)))
    return (one * two * three).sum([*summed])


def _adaptive_max_pool(x: Tensor, sizes: Sizes) -> Tensor:
    for axis, n in zip((-2, -1), sizes, strict=True):
        ends = [(i * x.shape[axis] // n, -(-(i + 1) * x.shape[axis] // n)) for i in range(n)]
        x = torch.stack([x.narrow(axis, first, last - first).amax(axis) for first, last in ends], dim=axis)
    return x


def _along(name: str, x: Tensor, axis: int, *args: Any) -> Tensor:
    """A Fourier transform along one axis: a linear function of the real numbers there."""
    rows = x.movedim(axis, -1)
    values = (torch.view_as_real(rows).flatten(-2) if x.is_complex() else rows).flatten(0, -2)
    if values.shape[1] ** 2 > 2 * MAX_MATRIX:
        raise NoOperationError(f"a Fourier transform of {rows.shape[-1]} values", "which are too many for a graph")
    unit = torch.eye(values.shape[1], dtype=torch.float64)
    images = getattr(torch.ops.aten, name)(_as_complex(unit) if x.is_complex() else unit, [1], *args)
    matrix = torch.view_as_real(images).flatten(1) if images.is_complex() else images
    found = values @ matrix.to(values.dtype)
    found = _as_complex(found) if images.is_complex() else found
    return found.reshape(*rows.shape[:-1], -1).movedim(-1, axis)


def _as_complex(values: Tensor) -> Tensor:
    return torch.view_as_complex(values.reshape(len(values), -1, 2))


def _fourier(x: Tensor, axes: Sizes, norm: int, forward: bool) -> Tensor:
    for axis in axes:
        x = _along("_fft_c2c", x, axis, norm, forward)
    return x


COMPOSITES: dict[str, Callable[..., Tensor]] = {
    "log1p": lambda x: (x + 1.0).log(),
    "expm1": lambda x: x.exp() - 1.0,
    **{"log2": lambda x: x.log() / log(2), "log10": lambda x: x.log() / log(10), "exp2": lambda x: (log(2) * x).exp()},
    "linalg_vector_norm": _norm,
    "_cdist_forward": lambda one, other, order=2, *_: _norm(one.unsqueeze(-2) - other.unsqueeze(-3), order, [-1]),
    **{"_prelu_kernel": _prelu, "threshold": _threshold},
    **{"native_layer_norm": _layer_norm, "native_group_norm": _group_norm, "native_batch_norm": _batch_norm},
    "_native_batch_norm_legit_no_training": _batch_norm,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_fft_r2c": lambda x, axes, norm, half: _fourier(
        _along("_fft_r2c", x, axes[-1], norm, half), axes[:-1], norm, True
    ),
    "_fft_c2r": lambda x, axes, norm, n: _along("_fft_c2r", _fourier(x, axes[:-1], norm, False), axes[-1], norm, n),
    **{"_fft_c2c": _fourier, "polar": lambda size, angle: torch.complex(size * angle.cos(), size * angle.sin())},
    "cosh": lambda x: (x.exp() + (-x).exp()) / 2.0,
    "tan": lambda x: x.sin() / x.cos(),
    "hypot": lambda *sides: _norm(torch.stack(torch.broadcast_tensors(*sides)), 2, [0]),  # type: ignore[no-untyped-call]
    **{"cumsum": _cumsum, "logsumexp": _logsumexp, "scatter_add": _scatter_add},
    "logaddexp": lambda *terms: _logsumexp(torch.stack(torch.broadcast_tensors(*terms)), [0]),  # type: ignore[no-untyped-call]
    **{"adaptive_max_pool2d": _adaptive_max_pool, "_trilinear": _trilinear},
    "cumprod": lambda x, axis, **_: torch.stack([*accumulate(x.unbind(axis), torch.mul)], dim=axis),
}


def find_decomposition(operation: Any) -> Callable[..., Any] | None:
    """An operation in terms of others by torch's table, also of one in place; None if the table has none."""
    packet = getattr(torch.ops.aten, operation._schema.name.removeprefix("aten::").removesuffix("_"), None)
    found = getattr(packet, operation._overloadname, None)
    return None if found is None else decomposition_table.get(found)


# Complex numbers


def _part(name: str, value: Any) -> Any:
    """The real or imaginary part of an argument; what is no number, such as an index or a mask, is both."""
    if isinstance(value, Tensor) and not value.is_complex():
        return torch.zeros_like(value) if name == "imag" and value.is_floating_point() else value
    return getattr(value, name) if isinstance(value, (Tensor, complex)) else value


def _of_parts(name: str, *plain: int) -> Callable[..., Tensor]:
    """An operation that does the same with both parts; numbers may stand in place of the `plain` arguments."""
    operation = getattr(torch.ops.aten, name)

    def composite(*args: Any, **kwargs: Any) -> Tensor:
        values = [complex(v) if at in plain and not isinstance(v, Tensor) else v for at, v in enumerate(args)]
        return torch.complex(
            *(operation(*tree_map(partial(_part, part), values), **kwargs) for part in ("real", "imag"))
        )

    return composite


def _complex_product(times: Callable[..., Tensor], one: Any, other: Any) -> Tensor:
    if not torch.is_complex(torch.as_tensor(other)):
        return torch.complex(times(one.real, other), times(one.imag, other))
    if not torch.is_complex(torch.as_tensor(one)):
        return _complex_product(times, other, one)
    real = times(one.real, other.real) - times(one.imag, other.imag)
    return torch.complex(real, times(one.real, other.imag) + times(one.imag, other.real))


def _complex_quotient(one: Any, other: Any) -> Tensor:
    if not torch.is_complex(torch.as_tensor(other)):
        return torch.complex(one.real / other, one.imag / other)
    quotient: Tensor = one * (torch.conj(other) / (other.real * other.real + other.imag * other.imag))
    return quotient


COMPLEX: dict[str, Callable[..., Tensor]] = {
    **{name: _of_parts(name) for name in ("neg", "sum", "mean", "cat", "stack", "flip", "roll", "index", "gather")},
    **{name: _of_parts(name) for name in ("index_select", "repeat", "slice_scatter", "select_scatter", "index_put")},
    **{name: _of_parts(name) for name in ("scatter", "copy", "zero")},
    **{name: _of_parts(name, 0, 1) for name in ("add", "sub", "rsub", "fill")},
    **{name: _of_parts(name, 2) for name in ("masked_fill", "constant_pad_nd")},
    "where": _of_parts("where", 1, 2),
    **{name: partial(_complex_product, getattr(torch, name)) for name in ("mul", "mm", "bmm")},
    **{
        "div": _complex_quotient,
        "abs": lambda x: _norm(torch.view_as_real(x), 2, [-1]),
        "_conj_physical": lambda x: torch.complex(x.real, -x.imag),
    },
    **dict.fromkeys(("clone", "_to_copy"), lambda x, **_: torch.complex(x.real, x.imag)),
}
