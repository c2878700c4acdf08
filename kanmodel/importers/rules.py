"""Rules of tracing: what the numbers of the results of an operation of torch are.

A rule is given the tracer, the result and the arguments. Its operations are named as torch dispatches them, without an
overload, and without the ``_`` of those in place. What is here is what a graph may be made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only

from kanmodel.importers.parts import Layer
from kanmodel.network.bases import BSpline, Line
from kanmodel.network.config import LayerConfig

if TYPE_CHECKING:
    from kanmodel.importers.tracing import GraphTracer

MAX_MATRIX = 1 << 20  # values of the matrix of a linear function
MAX_SORTED = 64  # values of a sort, which takes as many turns
UNKNOWN = -1  # number of an element that no node holds, such as the place of a maximum


def _moves(name: str, of_floats: bool = False) -> Callable[..., Any]:
    """The rule of an operation that only moves elements; some take floats alone, which hold any number here."""
    operation = getattr(torch.ops.aten, name)

    def rule(tracer: GraphTracer, out: Any, *args: Any, **kwargs: Any) -> Any:
        moved = [value for value in tree_flatten(args[:1])[0] if isinstance(value, Tensor)]

        def of(value: Tensor) -> Tensor:
            is_moved = value.is_floating_point() or any(value is each for each in moved)
            if not is_moved and tracer.depends(value):
                tracer.refuse(name, "which decides by values of the window")
            numbers = tracer.of(value) if is_moved else value
            return numbers.as_subclass(Tensor).double() if of_floats and is_moved else numbers

        found = operation(*tree_map_only(Tensor, of, args), **tree_map_only(Tensor, of, kwargs))
        return tree_map_only(Tensor, Tensor.long, found) if of_floats else found

    return rule


def _unary(op: str) -> Callable[..., Tensor]:
    return lambda tracer, out, x: tracer.apply(op, x)


def _add(tracer: GraphTracer, out: Tensor, one: Any, other: Any, alpha: float = 1) -> Tensor:
    return tracer.apply("add", one, other if alpha == 1 else tracer.apply("mul", other, alpha))


def _sub(tracer: GraphTracer, out: Tensor, one: Any, other: Any, alpha: float = 1) -> Tensor:
    return tracer.apply("sub", one, other if alpha == 1 else tracer.apply("mul", other, alpha))


def _mul(tracer: GraphTracer, out: Tensor, one: Any, other: Any) -> Tensor:
    """The product, or silu where it is written as x sigmoid(x)."""
    left, right = tracer.of(one), tracer.of(other)
    for x, factor in ((left, right), (right, left)):
        if tracer.is_known("sigmoid", x, factor):
            return tracer.apply("silu", x)
    return tracer.apply("mul", left, right)


def _div(tracer: GraphTracer, out: Tensor, one: Any, other: Any, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        tracer.refuse(f"a division that rounds ({rounding_mode})")
    return tracer.apply("div", one, other)


def _pow(tracer: GraphTracer, out: Tensor, base: Any, exponent: Any) -> Tensor:
    if isinstance(exponent, Tensor):
        tracer.refuse("a power whose exponent is a tensor")
    if not isinstance(base, Tensor):
        return tracer.apply("exp", tracer.apply("mul", exponent, float(np.log(base))))
    return tracer.apply("mul", base, base) if exponent == 2 else tracer.apply("power", base, parameter=float(exponent))


def _power(exponent: float) -> Callable[..., Tensor]:
    return lambda tracer, out, x: tracer.apply("power", x, parameter=exponent)


def _above(tracer: GraphTracer, one: Any, other: Any) -> Tensor:
    """1 where one number is above another, else 0."""
    return tracer.apply("step", tracer.apply("sub", one, other))


def _not(tracer: GraphTracer, mask: Any) -> Tensor:
    return tracer.apply("sub", 1.0, mask)


COMPARISONS: dict[str, Callable[..., Tensor]] = {
    "gt": lambda tracer, out, one, other: _above(tracer, one, other),
    "lt": lambda tracer, out, one, other: _above(tracer, other, one),
    "ge": lambda tracer, out, one, other: _not(tracer, _above(tracer, other, one)),
    "le": lambda tracer, out, one, other: _not(tracer, _above(tracer, one, other)),
    **{name: lambda tracer, out, mask: _not(tracer, mask) for name in ("logical_not", "bitwise_not")},
    **{
        name: lambda tracer, out, one, other: tracer.apply("mul", one, other)
        for name in ("logical_and", "bitwise_and", "__and__")
    },
    **{
        name: lambda tracer, out, one, other: _not(tracer, tracer.apply("mul", _not(tracer, one), _not(tracer, other)))
        for name in ("logical_or", "bitwise_or", "__or__")
    },
}


def _where(tracer: GraphTracer, out: Tensor, mask: Tensor, one: Any, other: Any) -> Tensor:
    """A choice of numbers by a constant mask; by one of the window, an operation."""
    if not tracer.depends(mask):
        return torch.where(mask, tracer.of(one), tracer.of(other))
    return tracer.apply("where", mask, one, other)


def _clamp(tracer: GraphTracer, out: Tensor, x: Any, low: Any = None, high: Any = None) -> Tensor:
    numbers = tracer.of(x) if low is None else tracer.apply("maximum", x, low)
    return numbers if high is None else tracer.apply("minimum", numbers, high)


def _gelu(tracer: GraphTracer, out: Tensor, x: Tensor, approximate: str = "none") -> Tensor:
    return tracer.apply("gelu" if approximate == "none" else "gelu_tanh", x)


def _elu(
    tracer: GraphTracer, out: Tensor, x: Tensor, alpha: float = 1, scale: float = 1, of_input: float = 1
) -> Tensor:
    inner = x if of_input == 1 else tracer.apply("mul", x, of_input)
    numbers = tracer.apply("elu", inner, parameter=float(alpha))
    return numbers if scale == 1 else tracer.apply("mul", numbers, scale)


def _softplus(tracer: GraphTracer, out: Tensor, x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    if threshold != 20:
        tracer.refuse(f"a softplus with threshold {threshold}")
    return tracer.apply("softplus", x, parameter=float(beta))


def _prelu(tracer: GraphTracer, out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    below = tracer.apply("mul", tracer.apply("minimum", x, 0.0), weight)
    return tracer.apply("add", tracer.apply("relu", x), below)


def _glu(tracer: GraphTracer, out: Tensor, x: Tensor, axis: int = -1) -> Tensor:
    value, gate = tracer.of(x).chunk(2, dim=axis)
    return tracer.apply("mul", value, tracer.apply("sigmoid", gate))


def _reduction(op: str) -> Callable[..., Tensor]:
    def rule(tracer: GraphTracer, out: Tensor, x: Tensor, axes: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
        return tracer.reduce(op, x, axes, keepdim)

    return rule


def _extreme(op: str) -> Callable[..., Any]:
    def rule(tracer: GraphTracer, out: Any, x: Tensor, axis: int | None = None, keepdim: bool = False) -> Any:
        numbers = tracer.reduce(op, x, axis, keepdim)
        return numbers if axis is None else (numbers, torch.full(numbers.shape, UNKNOWN))

    return rule


def _spread(root: bool, mean: bool = False) -> Callable[..., Any]:
    def rule(
        tracer: GraphTracer,
        out: Any,
        x: Tensor,
        axes: Any = None,
        *,
        correction: float | None = None,
        keepdim: bool = False,
    ) -> Any:
        numbers = tracer.reduce("std", x, axes, keepdim)
        n = x.numel() / max(numbers.numel(), 1)
        freedom = n - (1 if correction is None else correction)
        if freedom <= 0:
            tracer.refuse("the deviation of a single value")
        numbers = numbers if freedom == n else tracer.apply("mul", numbers, sqrt(n / freedom))
        numbers = numbers if root else tracer.apply("mul", numbers, numbers)
        return (numbers, tracer.reduce("mean", x, axes, keepdim)) if mean else numbers

    return rule


def _norm(
    tracer: GraphTracer, out: Tensor, x: Tensor, order: float = 2, axes: Any = None, keepdim: bool = False, **_: Any
) -> Tensor:
    if order == 1:
        return tracer.reduce("sum", tracer.apply("abs", x), axes, keepdim)
    if order != 2:
        tracer.refuse(f"a norm of order {order}")
    return tracer.apply("sqrt", tracer.reduce("sum", tracer.apply("mul", x, x), axes, keepdim))


def _addmm(
    tracer: GraphTracer, out: Tensor, bias: Any, one: Any, other: Any, beta: float = 1, alpha: float = 1
) -> Tensor:
    numbers = tracer.matmul(one, other)
    numbers = numbers if alpha == 1 else tracer.apply("mul", numbers, alpha)
    return tracer.apply("add", numbers, bias if beta == 1 else tracer.apply("mul", bias, beta))


def _normalise(tracer: GraphTracer, numbers: Tensor, axes: Sequence[int], eps: float) -> Tensor:
    centred = tracer.apply("sub", numbers, tracer.reduce("mean", numbers, axes, keep=True))
    variance = tracer.reduce("mean", tracer.apply("mul", centred, centred), axes, keep=True)
    return tracer.apply("div", centred, tracer.apply("sqrt", tracer.apply("add", variance, eps)))


def _layer_norm(
    tracer: GraphTracer, out: Any, x: Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> Any:
    numbers = _normalise(tracer, tracer.of(x), range(-len(shape), 0), eps)
    return (_affine(tracer, numbers, weight, bias),)


def _group_norm(
    tracer: GraphTracer,
    out: Any,
    x: Tensor,
    weight: Any,
    bias: Any,
    n: int,
    channels: int,
    rest: int,
    groups: int,
    eps: float,
) -> Any:
    numbers = _normalise(tracer, tracer.of(x).reshape(n, groups, -1), [-1], eps).reshape(x.shape)
    shape = (channels, *(1,) * (x.ndim - 2))
    return (_affine(tracer, numbers, *(None if each is None else each.reshape(shape) for each in (weight, bias))),)


def _batch_norm(
    tracer: GraphTracer, out: Any, x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, *args: Any
) -> Any:
    if mean is None or (len(args) > 2 and args[0]):  # an instance norm, as there is one window
        numbers = _normalise(tracer, tracer.of(x), [axis for axis in range(x.ndim) if axis != 1], args[-1])
        shape = (-1, *(1,) * (x.ndim - 2))
        return (_affine(tracer, numbers, *(each if each is None else each.reshape(shape) for each in (weight, bias))),)
    shape, scale = (-1, *(1,) * (x.ndim - 2)), (variance + args[-1]).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return (_affine(tracer, tracer.of(x), scale.reshape(shape), shift.reshape(shape)),)


def _affine(tracer: GraphTracer, numbers: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    numbers = numbers if weight is None else tracer.apply("mul", numbers, weight)
    return numbers if bias is None else tracer.apply("add", numbers, bias)


def _patches(
    numbers: Tensor,
    sizes: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    fill: int,
) -> Tensor:
    """(..., *axes) -> (..., *places, values of the patch)."""
    first = numbers.ndim - len(sizes)
    numbers = torch.constant_pad_nd(numbers, [pad for pad in reversed(pads) for _ in range(2)], fill)
    for axis, (size, stride, dilation) in enumerate(zip(sizes, strides, dilations, strict=True)):
        numbers = numbers.unfold(first + axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
    return numbers.flatten(-len(sizes))


def _convolution(
    tracer: GraphTracer,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """A layer of lines that is applied at each place; a transposed one is one layer of all values."""
    if tracer.depends(weight):
        tracer.refuse("a convolution by values of the window")
    if transposed:
        ways = stride, padding, dilation, transposed, output_padding, groups

        def convolve(values: Tensor) -> Tensor:
            images: Tensor = torch.ops.aten.convolution(values, weight.detach().cpu().double(), None, *ways)
            return images

        matrix = _matrix(tracer, convolve, x.shape[1:])
        shift = weight.new_zeros(out.shape[1]) if bias is None else bias
        shift = shift.detach().cpu()[:, None].expand(out.shape[1], matrix.shape[1] // out.shape[1]).flatten()
        return tracer.layer(_linear(matrix.T.to(weight.dtype), shift), tracer.of(x).flatten(1)).reshape(out.shape)
    patches = _patches(tracer.of(x), weight.shape[2:], stride, padding, dilation, int(tracer.of(0.0)))
    patches = patches.reshape(len(patches), groups, -1, *patches.shape[2:])
    patches = patches.movedim(2, -2).flatten(-2)  # (n, groups, *places, values)
    filters = weight.detach().cpu().flatten(1).chunk(groups)
    biases = [None] * groups if bias is None else bias.detach().cpu().chunk(groups)
    of_groups = [
        tracer.layer(_linear(each, shift), patches[:, group]).movedim(-1, 1)
        for group, (each, shift) in enumerate(zip(filters, biases, strict=True))
    ]
    return torch.cat(of_groups, dim=1)


def _matrix(tracer: GraphTracer, function: Callable[[Tensor], Tensor], shape: Sequence[int]) -> Tensor:
    """The matrix of a linear function of values (n, *shape), by its images of the unit vectors, (n_in, n_out)."""
    size = prod(shape)
    if size * function(torch.zeros(1, *shape, dtype=torch.float64)).numel() > MAX_MATRIX:
        tracer.refuse("a linear function of too many values")
    images = function(torch.eye(size, dtype=torch.float64).reshape(size, *shape))
    return images.flatten(1)


def _linear_function(name: str, axes: int) -> Callable[..., Tensor]:
    """The rule of an operation that is linear in its first argument, alike for all of the first axes."""

    def rule(tracer: GraphTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        operation, shape = getattr(torch.ops.aten, name), x.shape[-axes:]
        matrix = _matrix(tracer, lambda values: operation(values[:, None], *args, **kwargs), shape)
        rows = tracer.of(x).reshape(-1, prod(shape))
        return tracer.matmul(rows, matrix.to(x.dtype)).reshape(out.shape)

    return rule


def _linear(weight: Tensor, bias: Tensor | None) -> Layer:
    config = LayerConfig(weight.shape[1], weight.shape[0], Line(), base="zero")
    return Layer(config, {"coef": weight.unsqueeze(-1), **({} if bias is None else {"subnode_bias": bias})})


def _max_pool(
    tracer: GraphTracer,
    out: Any,
    x: Tensor,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> Any:
    (out, _), numbers, stride, padding = out, tracer.of(x), stride or size, padding[: len(size)]
    if ceil_mode:  # the last places reach beyond the values
        places = zip(out.shape[-len(size) :], x.shape[-len(size) :], size, stride, padding, dilation, strict=False)
        beyond = [(m - 1) * step + (k - 1) * d + 1 - n - 2 * pad for m, n, k, step, pad, d in places]
        after = [max(n, 0) for n in reversed(beyond)]
        numbers = torch.constant_pad_nd(numbers, [n for each in after for n in (0, each)], UNKNOWN)
    patches = _patches(numbers, size, stride, padding, dilation, UNKNOWN)
    patches = torch.where(patches == UNKNOWN, patches.amax(dim=-1, keepdim=True), patches)  # a value of the same patch
    numbers = tracer.reduce("max", patches, -1)
    return numbers, torch.full(numbers.shape, UNKNOWN)


def _avg_pool(
    tracer: GraphTracer,
    out: Tensor,
    x: Tensor,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Tensor:
    if ceil_mode or divisor is not None or (any(padding) and not count_include_pad):
        ways = size, stride, padding, ceil_mode, count_include_pad, divisor
        return _linear_function("avg_pool2d", 2)(tracer, out, x, *ways)
    padding = padding[: len(size)]
    patches = _patches(tracer.of(x), size, stride or size, padding, (1,) * len(size), int(tracer.of(0.0)))
    return tracer.reduce("mean", patches, -1)


def _attention(
    tracer: GraphTracer,
    out: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> Any:
    """softmax(Q K^T scale + mask) V of each head, where torch is told to compute it as a whole."""
    heads = [tracer.of(each).flatten(0, -3) for each in (query, key, value)]
    scores = tracer.matmul(heads[0], heads[1].transpose(1, 2)).reshape(*query.shape[:-1], key.shape[-2])
    scores = tracer.apply("mul", scores, query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.full(scores.shape[-2:], -torch.inf, dtype=query.dtype).triu(1)
    scores = scores if attn_mask is None else tracer.apply("add", scores, attn_mask)
    weights = tracer.softmax(scores, -1).flatten(0, -3)
    numbers = tracer.matmul(weights, heads[2]).reshape(*query.shape[:-1], value.shape[-1])
    return numbers, torch.full(query.shape[:-1], UNKNOWN)


def _cumprod(tracer: GraphTracer, out: Tensor, x: Tensor, axis: int, **_: Any) -> Tensor:
    first, *rest = tracer.of(x).unbind(axis)
    products = [first]
    for each in rest:
        products.append(tracer.apply("mul", products[-1], each))
    return torch.stack(products, dim=axis)


def _sort(tracer: GraphTracer, out: Any, x: Tensor, axis: int = -1, descending: bool = False, **_: Any) -> Any:
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
    numbers = numbers.movedim(-1, axis) if x.ndim else numbers[0]
    return numbers, torch.full(numbers.shape, UNKNOWN)


def _topk(tracer: GraphTracer, out: Any, x: Tensor, k: int, axis: int = -1, largest: bool = True, *_: Any) -> Any:
    numbers = _sort(tracer, out, x, axis, largest)[0].narrow(axis, 0, k)
    return numbers, torch.full(numbers.shape, UNKNOWN)


def _embedding(tracer: GraphTracer, out: Tensor, weight: Tensor, indices: Tensor, *_: Any) -> Tensor:
    """Linear splines of a whole number, whose knots are the rows: at each it is that row, between two on their line."""
    if tracer.depends(weight) or len(weight) < 2:
        tracer.refuse("an embedding of values of the window, or of a single row")
    if not tracer.integer:
        tracer.refuse("an embedding", "of features that are not named in integer=[...]")
    basis = BSpline(len(weight) - 1, 1)
    tensors = {
        "coef": weight.detach().cpu().T[:, None],
        "grid": torch.arange(-1.0, len(weight) + 1, dtype=weight.dtype)[None],
        "scale_spline": weight.new_ones(weight.shape[1], 1),
    }
    return tracer.layer(
        Layer(LayerConfig(1, weight.shape[1], basis, base="zero"), tensors), tracer.of(indices)[..., None]
    )


def _round(tracer: GraphTracer, out: Tensor, x: Tensor, **_: Any) -> Tensor:
    """The values themselves, which are whole where a feature of whole numbers is scaled back."""
    if not tracer.integer:
        tracer.refuse("round", "of features that are not named in integer=[...]")
    return tracer.of(x).clone()


def _cdist(tracer: GraphTracer, out: Tensor, one: Tensor, other: Tensor, order: float = 2, *_: Any) -> Tensor:
    moves = tracer.apply("sub", tracer.of(one).unsqueeze(-2), tracer.of(other).unsqueeze(-3))
    return _norm(tracer, out, moves, order, [-1])


def _threshold(tracer: GraphTracer, out: Tensor, x: Tensor, threshold: float, value: float) -> Tensor:
    if threshold != value:
        tracer.refuse(f"a threshold at {threshold} that gives {value}", "which jumps there")
    return tracer.apply("maximum", x, threshold)


def _cumsum(tracer: GraphTracer, out: Tensor, x: Tensor, axis: int, **_: Any) -> Tensor:
    numbers = tracer.of(x).movedim(axis, -1)
    rows = tracer.matmul(
        numbers.reshape(-1, numbers.shape[-1]), torch.ones(numbers.shape[-1], numbers.shape[-1]).triu()
    )
    return rows.reshape(numbers.shape).movedim(-1, axis)


RULES: dict[str, Callable[..., Any]] = {
    **{name: _moves(name) for name in ("clone", "cat", "stack", "flip", "roll", "index", "index_select", "gather")},
    **{
        name: _moves(name)
        for name in ("repeat", "slice_scatter", "select_scatter", "index_put", "scatter", "_unsafe_index")
    },
    **{f"{way}_pad{n}d": _moves(f"{way}_pad{n}d", True) for way in ("replication", "reflection") for n in (1, 2, 3)},
    **{name: _moves(name) for name in ("_pack_padded_sequence", "_pad_packed_sequence")},
    **{name: lambda tracer, out, x, *args, **kwargs: tracer.of(x).clone() for name in ("_to_copy", "nan_to_num")},
    "copy": lambda tracer, out, target, source, *args: tracer.of(source).expand(target.shape),
    "fill": lambda tracer, out, target, value: tracer.of(value).expand(target.shape),
    "zero": lambda tracer, out, target: tracer.of(0.0).expand(target.shape),
    **COMPARISONS,
    "where": _where,
    "masked_fill": lambda tracer, out, x, mask, value: _where(tracer, out, mask, value, x),
    "constant_pad_nd": lambda tracer, out, x, pad, value=0.0: torch.constant_pad_nd(
        tracer.of(x), pad, int(tracer.of(value))
    ),
    **{name: _unary(name) for name in ("relu", "silu", "mish", "tanh", "sigmoid", "hardsigmoid", "hardswish")},
    **{name: _unary(name) for name in ("exp", "log", "sqrt", "abs", "sin", "cos", "atan", "erf", "sinh", "asinh")},
    "neg": lambda tracer, out, x: tracer.apply("mul", x, -1.0),
    "sign": lambda tracer, out, x: tracer.apply("sub", _above(tracer, x, 0.0), _above(tracer, 0.0, x)),
    "square": lambda tracer, out, x: tracer.apply("mul", x, x),
    "log1p": lambda tracer, out, x: tracer.apply("log", tracer.apply("add", x, 1.0)),
    "expm1": lambda tracer, out, x: tracer.apply("sub", tracer.apply("exp", x), 1.0),
    **{"reciprocal": _power(-1.0), "rsqrt": _power(-0.5), "pow": _pow},
    **{"gelu": _gelu, "elu": _elu, "softplus": _softplus, "_prelu_kernel": _prelu, "glu": _glu},
    "leaky_relu": lambda tracer, out, x, slope=0.01: tracer.apply("leaky_relu", x, parameter=float(slope)),
    "hardtanh": lambda tracer, out, x, low=-1.0, high=1.0: _clamp(tracer, out, x, low, high),
    "clamp": lambda tracer, out, x, min=None, max=None: _clamp(tracer, out, x, min, max),
    "clamp_min": lambda tracer, out, x, low: tracer.apply("maximum", x, low),
    "clamp_max": lambda tracer, out, x, high: tracer.apply("minimum", x, high),
    **{"add": _add, "sub": _sub, "mul": _mul, "div": _div},
    "rsub": lambda tracer, out, one, other, alpha=1: _sub(tracer, out, other, one, alpha),
    **{
        name: lambda tracer, out, one, other, name=name: tracer.apply(name, one, other)
        for name in ("maximum", "minimum")
    },
    "addcmul": lambda tracer, out, x, one, other, value=1: _add(tracer, out, x, tracer.apply("mul", one, other), value),
    "lerp": lambda tracer, out, x, end, weight: _add(
        tracer, out, x, tracer.apply("mul", tracer.apply("sub", end, x), weight)
    ),
    **{"mean": _reduction("mean"), "sum": _reduction("sum"), "amax": _reduction("max"), "amin": _reduction("min")},
    **{"max": _extreme("max"), "min": _extreme("min"), "median": _extreme("median")},
    **{"std": _spread(True), "var": _spread(False), "std_mean": _spread(True, True), "var_mean": _spread(False, True)},
    "linalg_vector_norm": _norm,
    **{name: lambda tracer, out, x, axis, *_: tracer.softmax(x, axis) for name in ("_softmax", "_safe_softmax")},
    "_log_softmax": lambda tracer, out, x, axis, _: tracer.apply("log", tracer.softmax(x, axis)),
    **{name: lambda tracer, out, one, other: tracer.matmul(one, other) for name in ("mm", "bmm")},
    **{"addmm": _addmm, "baddbmm": _addmm},
    "mv": lambda tracer, out, one, other: tracer.matmul(one, tracer.of(other)[:, None])[:, 0],
    "dot": lambda tracer, out, one, other: tracer.matmul(tracer.of(one)[None], tracer.of(other)[:, None]),
    **{"native_layer_norm": _layer_norm, "native_group_norm": _group_norm, "native_batch_norm": _batch_norm},
    "_native_batch_norm_legit_no_training": _batch_norm,
    **{"convolution": _convolution, "max_pool2d_with_indices": _max_pool, "avg_pool2d": _avg_pool},
    **{name: _linear_function(name, 1) for name in ("upsample_linear1d",)},
    **{
        name: _linear_function(name, 2)
        for name in ("upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bicubic2d_aa")
    },
    **{"cumsum": _cumsum, "cumprod": _cumprod, "sort": _sort, "topk": _topk},
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    **{"embedding": _embedding, "round": _round, "_cdist_forward": _cdist, "threshold": _threshold},
    "log_sigmoid_forward": lambda tracer, out, x: (
        tracer.apply("mul", tracer.apply("softplus", tracer.apply("mul", x, -1.0), parameter=1.0), -1.0),
    ),
}
